//! Decoder families beyond GPT-2, by every exporter: what is taken gives the reference logits, what is not is refused with its
//! reasons. The table of `docs/onnx.md` is what this test measured.

#![allow(clippy::unwrap_used)]

use snnc::convert;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::{Graph, Op};
use snnc_onnx as onnx;
use snnc_onnx::tensor::{ArrayData, Element, OnnxArray, OnnxElem};
use snnc_tests::reference::{Reference, safetensors};
use snnc_tests::{documented, shared, spiking_cosine};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// f32 sums in another order than onnxruntime's.
const ROUNDING: f32 = 1e-4;

/// Files that compute in f16; those of the builder of ONNX Runtime GenAI keep more of their sums in f16 than one that computes in f32
/// can follow.
const HALF: f32 = 5e-3;
const HALF_OF_GENAI: f32 = 1e-2;

/// Files that round activations to eight bits are taken with the meaning of their weights: what the rounding makes of logits, as
/// a share of their range.
const ROUNDED_SHARE: f32 = 0.07;

/// Spiking programs by default options are at least so near.
const COSINE: f64 = 0.99;

/// How the names of exporters begin, behind those of families.
const EXPORTERS: [&str; 9] =
    ["dynamo", "dynquant", "genai", "legacy", "matmul4", "old436", "optimum", "ortfused", "qdq"];

/// What was measured on one file.
#[derive(Debug)]
struct FamilyFigures {
    opset: i64,
    /// Largest difference of the network's logits, and of the file's own nodes', to the reference's.
    difference: f32,
    evaluation: f32,
    /// The range of those.
    range: f32,
    rounds_activations: bool,
    /// Centred cosine of the spiking program's logits to the network's.
    cosine: f64,
}

/// Rows of a batch.
fn batch(x: &Reference) -> impl Iterator<Item = &[f32]> {
    x.data.chunks_exact((x.data.len() / x.sizes[0]).max(1))
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, x| if x.is_nan() { f32::INFINITY } else { most.max(x) })
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

fn attentions(graph: &Graph) -> usize {
    graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. }))).count()
}

/// Logits of `tokens`, after the past that a file of references gives row `row`.
fn logits(graph: &Graph, io: &BTreeMap<String, Reference>, row: usize, tokens: &[u32]) -> Vec<f32> {
    // [batch, heads, past, w] as [past, heads * w].
    let rows = |layer: usize, kind: &str| {
        let x = &io[&format!("in.past_key_values.{layer}.{kind}")];
        let [_, heads, past, w] = x.sizes[..] else { panic!("{layer}.{kind}: {:?}", x.sizes) };
        let x = batch(x).nth(row).unwrap();
        (0..past * heads * w).map(|i| x[(i / w % heads * past + i / w / heads) * w + i % w]).collect::<Vec<f32>>()
    };
    let past = io.get("in.past_key_values.0.key").map_or(0, |keys| keys.sizes[2]);
    let mut memory = match past {
        0 => Memory::new(graph),
        past => {
            let state = (0..attentions(graph)).map(|layer| [rows(layer, "key"), rows(layer, "value")]).collect();
            Memory::with_past(graph, past, state)
        }
    };
    let evaluator = Evaluator::<f32>::new(graph);
    let done = evaluator.run(tokens, &mut memory).unwrap();
    evaluator.get(&done, graph.outputs[0].1).reals().to_vec()
}

/// Largest difference of a network to a file of references, and the range of those.
fn against(graph: &Graph, io: &BTreeMap<String, Reference>, output: &str) -> (f32, f32) {
    // Beside weights of a few bits: the file's own logits where activations are not rounded.
    let wanted = io.get("f32.logits").unwrap_or_else(|| &io[&format!("out.{output}")]);
    let (mut difference, mut low, mut high) = (0f32, f32::MAX, f32::MIN);
    let past = io.get("in.past_key_values.0.key").map_or(0, |keys| keys.sizes[2]);
    for (row, (tokens, want)) in batch(&io["in.input_ids"]).zip(batch(wanted)).enumerate() {
        let tokens: Vec<u32> = tokens.iter().map(|&id| id as u32).collect();
        // A sequence that is padded on the left is the sequence without the padding.
        let mask = io.get("in.attention_mask").filter(|_| past == 0).map(|mask| batch(mask).nth(row).unwrap());
        let hidden = mask.map_or(0, |mask| mask.iter().take_while(|&&x| x == 0.0).count());
        let want = &want[hidden * wanted.sizes.last().unwrap()..];
        difference = difference.max(largest_difference(&logits(graph, io, row, &tokens[hidden..]), want));
        low = want.iter().copied().fold(low, f32::min);
        high = want.iter().copied().fold(high, f32::max);
    }
    (difference, high - low)
}

/// Imports, raises and runs one file on all its references.
fn measure(path: &Path) -> Result<FamilyFigures, String> {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let say = |complaints: Diagnostics| complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let import = onnx::import(path).map_err(say)?;
    let tensor = convert::raise(import.graph.clone(), import.rounds_activations);
    let tensor = tensor.map_err(|complaints| say(onnx::explained(&import, complaints)))?;
    let (mut difference, mut evaluation, mut range) = (0f32, 0f32, 0f32);
    for kind in [".io", ".prefill.io"] {
        let file = path.with_file_name(format!("{name}{kind}.safetensors"));
        if !file.is_file() {
            continue;
        }
        let io = safetensors(&file);
        let (far, own) = against(&tensor, &io, &import.output);
        (difference, range) = (difference.max(far), range.max(own));
        let given = io.iter().filter_map(|(name, x)| Some((name.strip_prefix("in.")?.to_string(), array(x)))).collect();
        let outputs = onnx::evaluate::graph::run(&import.model, given, &[&import.output]).map_err(|e| e.to_string())?;
        let wanted = io.get("f32.logits").unwrap_or_else(|| &io[&format!("out.{}", import.output)]);
        evaluation = evaluation.max(largest_difference(outputs[0].as_f32().unwrap(), &wanted.data));
    }
    let rounds_activations = import.rounds_activations;
    let cosine = spiking_cosine(&tensor, import.graph, rounds_activations).map_err(say)?;
    Ok(FamilyFigures { opset: import.origin.opset, difference, evaluation, range, rounds_activations, cosine })
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    all.sort();
    all
}

#[test]
fn every_family_gives_its_reference_logits_or_says_why_not() {
    let Some(folder) = shared("flavours2") else { return };
    let mut table =
        String::from("| file | opset | network | file's nodes | spiking, cosine |\n|---|---|---|---|---|\n");
    let mut families: BTreeMap<String, (BTreeSet<&str>, f32, f64)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for path in files(&folder) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let m = match measure(&path) {
            Ok(m) => m,
            Err(why) => {
                wrong.push(format!("{name}: {why}"));
                continue;
            }
        };
        let most = match (name.contains("fp16"), name.contains("genai")) {
            (true, false) => HALF,
            (true, true) => HALF_OF_GENAI,
            (false, _) => ROUNDING,
        };
        let of_network = if m.rounds_activations { ROUNDED_SHARE * m.range } else { most };
        if m.difference >= of_network || m.evaluation >= most || m.cosine < COSINE {
            wrong.push(format!("{name}: {m:?}"));
        }
        let share = |x: f32| x / m.range;
        let (network, nodes) = (share(m.difference), share(m.evaluation));
        table += &format!("| `{name}` | {} | {network:.1e} | {nodes:.1e} | {:.4} |\n", m.opset, m.cosine);
        let at = |exporter: &'static str| name.find(&format!("_{exporter}")).map(|at| (at, exporter));
        let (end, exporter) = EXPORTERS.into_iter().filter_map(at).min().unwrap();
        let (exporters, largest, least) = families.entry(name[..end].into()).or_insert((BTreeSet::new(), 0.0, 1.0));
        exporters.insert(exporter);
        if !m.rounds_activations && !name.contains("fp16") {
            *largest = largest.max(network);
        }
        *least = least.min(m.cosine);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    documented("onnx.md", "families", &table);
    let mut by_family =
        String::from("| family | exporters | largest difference | spiking, least cosine |\n|---|---|---|---|\n");
    for (family, (exporters, largest, least)) in families {
        let exporters = exporters.into_iter().collect::<Vec<&str>>().join(", ");
        by_family += &format!("| `{family}` | {exporters} | {largest:.1e} | {least:.4} |\n");
    }
    documented("models.md", "files", &by_family);
}
