//! Every exporter, against the logits that onnxruntime gives: import and raise change nothing, conversion changes
//! little. The table of `docs/onnx.md` is what these tests measured.

#![allow(clippy::unwrap_used)]

use snnc::convert;
use snnc::proof;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::{Graph, Op};
use snnc_onnx as onnx;
use snnc_onnx::model::OnnxNode;
use snnc_onnx::tensor::{ArrayData, Element, OnnxArray, OnnxElem};
use snnc_runtime::Engine;
use snnc_tests::reference::{Reference, safetensors};
use snnc_tests::{documented, options, run, shared, spiking_cosine};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What was measured on one file.
#[derive(Debug)]
struct ExportFigures {
    name: String,
    producer: String,
    opset: i64,
    nodes: usize,
    /// Largest difference of the imported network's logits to the reference's, and the range of those.
    difference: f32,
    range: f32,
    /// The same for the file's own nodes, evaluated one by one.
    evaluation: f32,
    /// Centred cosine of the spiking program's logits to the imported network's.
    cosine: f64,
    operators: BTreeSet<String>,
}

/// Rows of a batch.
fn batch(x: &Reference) -> impl Iterator<Item = &[f32]> {
    x.data.chunks_exact(x.data.len() / x.sizes[0])
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// As an input of the file.
fn array(x: &Reference) -> OnnxArray {
    let numbers = x.data.iter().map(|&x| if x.fract() == 0.0 { Element::Int(x as i64) } else { Element::Float(x) });
    let elem = match x.kind.as_str() {
        "I64" => OnnxElem::I64,
        "I32" => OnnxElem::I32,
        "BOOL" => OnnxElem::Bool,
        _ => return OnnxArray::f32(&x.sizes, x.data.clone()),
    };
    OnnxArray::new(x.sizes.clone(), ArrayData::from_numbers(elem, numbers))
}

fn operators(nodes: &[OnnxNode], into: &mut BTreeSet<String>) {
    for node in nodes {
        into.insert(node.operator().into_owned());
        ["then_branch", "else_branch"]
            .iter()
            .filter_map(|name| node.graph(name))
            .for_each(|g| operators(&g.nodes, into));
    }
}

/// Logits of `tokens` after the past that a file of references gives row `row`.
fn logits_after(graph: &Graph, io: &BTreeMap<String, Reference>, row: usize, tokens: &[u32]) -> Vec<f32> {
    let layers = graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. }))).count();
    // [batch, heads, past, w] as [past, heads * w].
    let rows = |layer: usize, kind: &str| {
        let x = &io[&format!("in.past_key_values.{layer}.{kind}")];
        let [_, heads, past, w] = x.sizes[..] else { panic!("{layer}.{kind}: {:?}", x.sizes) };
        let x = batch(x).nth(row).unwrap();
        (0..past * heads * w).map(|i| x[(i / w % heads * past + i / w / heads) * w + i % w]).collect::<Vec<f32>>()
    };
    let past = io["in.past_key_values.0.key"].sizes[2];
    let state = (0..layers).map(|layer| [rows(layer, "key"), rows(layer, "value")]).collect();
    let evaluator = Evaluator::<f32>::new(graph);
    let mut memory = Memory::with_past(graph, past, state);
    let done = evaluator.run(tokens, &mut memory).unwrap();
    evaluator.get(&done, graph.outputs[0].1).reals().to_vec()
}

/// Imports, raises, converts and runs one file.
fn measure(path: &Path) -> Result<ExportFigures, String> {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    fn say(complaints: Diagnostics) -> String {
        complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
    let import = onnx::import(path).map_err(say)?;
    let io = safetensors(&path.with_file_name(format!("{name}.io.safetensors")));
    let rounded = import.rounds_activations;
    let tensor = convert::raise(import.graph.clone(), rounded).map_err(say)?;
    let tokens = io.iter().find(|(name, x)| {
        name.starts_with("in.")
            && x.kind.starts_with('I')
            && !["mask", "position", "type"].iter().any(|w| name.contains(w))
    });
    let tokens = tokens.ok_or("no ids")?.1;
    let output = import.output.clone();
    let logits = io.get(&format!("out.{output}")).ok_or("no logits")?;
    let has_past = io.keys().any(|name| name.starts_with("in.past") && !io[name].data.is_empty());
    let (mut difference, mut range) = (0f32, 0f32);
    for (row, (row_tokens, want)) in batch(tokens).zip(batch(logits)).enumerate() {
        let row_tokens: Vec<u32> = row_tokens.iter().map(|&id| id as u32).collect();
        let mask = io.get("in.attention_mask").map(|mask| batch(mask).nth(row).unwrap().to_vec());
        // A sequence that is padded on the left is the sequence without the padding.
        let hidden = mask.map_or(0, |mask| mask.iter().take_while(|&&x| x == 0.0).count());
        let width = *logits.sizes.last().unwrap();
        let want = &want[if has_past { 0 } else { hidden * width }..];
        let got = if has_past {
            logits_after(&tensor, &io, row, &row_tokens)
        } else {
            run(&tensor, options(Engine::Jit), &[&row_tokens[hidden..]]).logits()
        };
        let got = &got[got.len().saturating_sub(want.len())..];
        if got.len() != want.len() {
            return Err(format!("{} logits where {} should be", got.len(), want.len()));
        }
        difference = difference.max(largest_difference(got, want));
        let ends = want.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
        range = range.max(ends.1 - ends.0);
    }
    let given = io.iter().filter_map(|(name, x)| Some((name.strip_prefix("in.")?.to_string(), array(x)))).collect();
    let evaluated = onnx::evaluate::graph::run(&import.model, given, &[&output]).map_err(|e| e.to_string())?;
    let evaluation = largest_difference(evaluated[0].as_f32().unwrap(), &logits.data);
    let cosine = spiking_cosine(&tensor, import.graph, rounded).map_err(say)?;
    let mut all = BTreeSet::new();
    operators(&import.model.graph.nodes, &mut all);
    let operators = all;
    let onnx::OnnxOrigin { producer, opset, nodes, .. } = import.origin;
    Ok(ExportFigures { name, producer, opset, nodes, difference, range, evaluation, cosine, operators })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    all.sort();
    all
}

/// f32 sums in another order than onnxruntime's.
const ROUNDING: f32 = 1e-4;

/// Files that compute in f16.
const HALF: f32 = 5e-3;

/// What another order of adding may change where the next step rounds to codes, as a share of the logits' range.
const ROUNDED_CODES: f32 = 0.02;

/// What dropping the rounding of activations may change, as a share of the logits' range.
const ROUNDED_ACTIVATIONS: f32 = 0.025;

#[test]
fn every_export_gives_its_reference_logits() {
    let Some(folder) = shared("flavours") else { return };
    let mut all = Vec::new();
    for path in files(&folder) {
        let m = measure(&path).unwrap_or_else(|message| panic!("{}: {message}", path.display()));
        let (file, network) = match m.name.as_str() {
            name if name.contains("int8") => (ROUNDED_CODES * m.range, ROUNDED_ACTIVATIONS * m.range),
            name if name.contains("fp16") => (HALF, HALF),
            _ => (ROUNDING, ROUNDING),
        };
        assert!(m.evaluation < file, "{m:?}");
        assert!(m.difference < network, "{m:?}");
        assert!(m.cosine >= 0.99, "{m:?}");
        all.push(m);
    }
    documented("onnx.md", "exports", &exports_table(&all));
    documented("onnx.md", "operators", &operators_table(&all));
}

/// Small files of other kinds, one operator family each: fused, quantised, branching, of a past. They are the seeds of the
/// fuzzer as well. What is recognised gives what the file's own nodes give.
#[test]
fn small_files_of_other_kinds_are_proved() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/onnx");
    let all = files(&folder);
    assert!(all.len() > 10, "{} files", all.len());
    for path in all {
        let import = onnx::import(&path).unwrap_or_else(|e| panic!("{e:?}"));
        let rounded = import.rounds_activations;
        let tensor = snnc::convert::dense(import.graph.clone(), rounded, &mut |_, _, _| {});
        let tensor = tensor.unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        let proof = proof::prove(&import, &tensor, None).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
        let most = if rounded { 0.03 } else { 1e-5 };
        assert!(proof.difference <= most * proof.range && proof.range > 0.01, "{}: {proof:?}", path.display());
        assert_eq!(rounded, path.to_string_lossy().contains("rounds"), "{}", path.display());
    }
}

/// An import that is wrong is refused: here a weight of the network is another one than the file's.
#[test]
fn a_wrong_import_is_refused() {
    let bytes = snnc_examples::gpt2::bytes(&snnc_examples::gpt2::Gpt2Config::TINY).unwrap();
    let mut import = onnx::import_model(onnx::read::read_bytes(&bytes).unwrap()).unwrap();
    let tensor = snnc::convert::dense(import.graph.clone(), false, &mut |_, _, _| {}).unwrap();
    assert!(proof::prove(&import, &tensor, None).is_ok());
    let weights = &mut import.model.graph.initializers;
    let (name, array) = weights.iter().find(|(name, _)| name.contains("c_proj.weight")).unwrap();
    let (name, mut data) = (name.clone(), array.as_f32().unwrap().to_vec());
    data[7] += 1.0;
    let changed = OnnxArray::f32(array.sizes(), data);
    weights.insert(name, std::sync::Arc::new(changed));
    let complaint = proof::prove(&import, &tensor, None).unwrap_err()[0].to_string();
    assert!(complaint.contains("not the file's"), "{complaint}");
    assert!(proof::prove(&import, &tensor, Some(1.0)).is_ok());
}

/// An unknown operator in the place of one that the network needs is named with its place.
#[test]
fn an_unknown_operator_is_named_with_its_place() {
    let Some(folder) = shared("flavours") else { return };
    for path in files(&folder) {
        let mut model = onnx::read::read(&path).unwrap();
        let wanted = ["Softmax", "Attention", "MatMul", "Gemm", "MatMulInteger"];
        let node = model.graph.nodes.iter_mut().find(|node| wanted.contains(&node.op_type.as_str())).unwrap();
        node.op_type = "Marvellous".into();
        let label = node.label().to_string();
        let complaints = onnx::import_model(model).unwrap_err();
        let said = complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(said.contains("Marvellous is not supported") && said.contains(&label), "{}: {said}", path.display());
    }
}

fn exports_table(all: &[ExportFigures]) -> String {
    let row = |m: &ExportFigures| {
        format!(
            "| `{}` | {} | {} | {} | {:.1e} | {:.1e} | {:.4} |\n",
            m.name,
            m.producer.split('+').next().unwrap_or_default(),
            m.opset,
            m.nodes,
            m.difference / m.range,
            m.evaluation / m.range,
            m.cosine
        )
    };
    let head = "| file | exporter | opset | nodes | network | file's nodes | spiking, cosine |\n|---|---|---|---|---|---|---|\n";
    head.to_string() + &all.iter().map(row).collect::<String>()
}

/// What every operator is taken as, and in how many of the files it is.
fn operators_table(all: &[ExportFigures]) -> String {
    let mut table = String::from("| operator | on constants | in the network | files |\n|---|---|---|---|\n");
    let mut names: BTreeSet<String> = all.iter().flat_map(|m| m.operators.clone()).collect();
    names.extend(onnx::operators().map(String::from));
    for name in &names {
        let (domain, op_type) = name.rsplit_once('.').unwrap_or(("", name));
        let node = OnnxNode { op_type: op_type.into(), domain: domain.into(), ..OnnxNode::default() };
        let support = onnx::import::support(&node);
        let mark = |yes: bool| if yes { "yes" } else { "" };
        let files = all.iter().filter(|m| m.operators.contains(name)).count();
        let files = if files == 0 { String::new() } else { files.to_string() };
        table += &format!("| `{name}` | {} | {} | {files} |\n", mark(support.constant), mark(support.live));
    }
    table
}
