//! From an ONNX file to a network: which output is taken, what inputs hold, what is proved, and what a refusal says.

#![allow(clippy::unwrap_used)]

use snnc::check::check;
use snnc::compile::{CompileOptions, compile};
use snnc::convert;
use snnc::front::{self, DenseNetwork, ImportOptions, InputBindings, OnnxOptions};
use snnc::model::{EngineOptions, Loaded};
use snnc::progress::Silent;
use snnc::proof;
use snnc_examples::gpt2::{self, Gpt2Config, HeadExport};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::random::SplitMix64;
use snnc_onnx::import::inputs as onnx_inputs;
use snnc_onnx::model::{Attribute, OnnxModel, OnnxNode, Port};
use snnc_onnx::tensor::{OnnxArray, OnnxElem};
use snnc_onnx::{self as onnx, Import};
use snnc_runtime::{Rows, Session};
use snnc_tests::shared;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CONFIG: Gpt2Config =
    Gpt2Config { width: 32, heads: 4, vocabulary: 96, context: 32, head: HeadExport::Untied, ..Gpt2Config::TINY };

fn network(config: &Gpt2Config) -> OnnxModel {
    onnx::read::read_bytes(&gpt2::bytes(config).unwrap()).unwrap()
}

fn bindings(texts: &[&str]) -> ImportOptions {
    let bindings = InputBindings::parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    ImportOptions { bindings, ..ImportOptions::default() }
}

/// Imported and proved, and translated to spikes once.
fn proved(import: &Import) -> Result<DenseNetwork, Diagnostics> {
    let found = front::onnx_network(Path::new("model.onnx"), import, None, None, &mut |_, _| {})?;
    convert::trial(found.tensor.clone())?;
    Ok(found)
}

fn said(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn node(op: &str, inputs: &[&str], output: &str) -> OnnxNode {
    let inputs = inputs.iter().map(ToString::to_string).collect();
    OnnxNode { op_type: op.into(), inputs, outputs: vec![output.into()], ..OnnxNode::default() }
}

fn port(name: &str, elem: OnnxElem, sizes: &[Option<usize>]) -> Port {
    Port { name: name.into(), elem: Some(elem), sizes: sizes.to_vec() }
}

/// The hidden state before the head, and the head's weight.
fn before_the_head(model: &OnnxModel) -> [String; 2] {
    let head = model.graph.nodes.iter().find(|node| node.outputs[0] == "logits").expect("a head");
    [head.inputs[0].clone(), head.inputs[1].clone()]
}

/// Numbers of a `.npy` file of f32 or i64, and its last size.
fn npy(path: &Path) -> (Vec<f64>, usize) {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let shape = header.split('(').nth(1).unwrap().split(')').next().unwrap().to_string();
    let last = shape.split(',').filter_map(|n| n.trim().parse().ok()).next_back().unwrap();
    let data = &bytes[start..];
    let numbers = if header.contains("<i8") {
        data.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap()) as f64).collect()
    } else {
        data.chunks_exact(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect()
    };
    (numbers, last)
}

fn inputs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/bugs")
}

/// Largest difference of the dense network's logits to the references in a folder, as a share of their range.
fn difference(folder: &Path, options: &OnnxOptions) -> f64 {
    let loaded = Loaded::read(&folder.join("model.onnx"), options).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    let (want, _) = npy(&folder.join("ref_logits.npy"));
    let ids: Vec<u32> = npy(&folder.join("ref_ids.npy")).0.iter().map(|&id| id as u32).collect();
    let mut session = Session::new(loaded.source.program(&EngineOptions::default()).unwrap()).unwrap();
    let outputs = session.forward(&ids, Rows::All).unwrap();
    far_from(outputs.f32("logits").unwrap(), &want)
}

/// Largest difference as a share of the range of what should be; of the last rows, where that is less.
fn far_from(got: &[f32], want: &[f64]) -> f64 {
    let got = &got[got.len().checked_sub(want.len()).unwrap()..];
    let (low, high) = want.iter().fold((f64::MAX, f64::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    got.iter().zip(want).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max) / (high - low)
}

/// What torch and onnxruntime write, in folders with logits by onnxruntime: several heads of a model, the last token by
/// GatherND, a batch axis in the middle, QAttention, positions from row 2, heads side by side by Concat.
#[test]
fn files_of_exporters_give_their_reference_logits() {
    let options = OnnxOptions::default();
    for (name, most) in [
        ("hf-gpt2-double-heads", 1e-5),
        ("nanogpt-last-dynamo", 1e-5),
        ("torch-transformer-encoder", 1e-5),
        ("ort-qattention", 0.05),
        ("hf-opt", 1e-5),
        ("lecture-heads", 1e-5),
    ] {
        let folder = inputs().join(name);
        let far = difference(&folder, &options);
        assert!(far < most, "{name}: {far}");
        check(&folder.join("model.onnx"), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let opt = check(&inputs().join("hf-opt/model.onnx"), &options).unwrap();
    assert_eq!(opt.network.context, 32, "the table has 34 rows, of which positions reach all but two");
}

/// What a folder's file says by its own nodes is what onnxruntime said.
#[test]
fn files_are_evaluated_as_onnxruntime_does() {
    for (name, most) in [("hf-opt", 1e-5), ("lecture-heads", 1e-5), ("ort-qattention", 0.02)] {
        let folder = inputs().join(name);
        let import = onnx::import(&folder.join("model.onnx")).unwrap();
        let ids: Vec<u32> = npy(&folder.join("ref_ids.npy")).0.iter().map(|&id| id as u32).collect();
        let port = onnx_inputs::ids(&import.model.graph.inputs).unwrap();
        let mut given = HashMap::from([(port.name.clone(), onnx_inputs::tokens(port, &ids).unwrap())]);
        for other in import.model.graph.inputs.iter().filter(|other| other.name != port.name) {
            given.insert(other.name.clone(), onnx_inputs::fresh(other, ids.len(), &InputBindings::default()).unwrap());
        }
        let outputs = onnx::evaluate::graph::run(&import.model, given, &[&import.output]).unwrap();
        let far = far_from(outputs[0].as_f32().unwrap(), &npy(&folder.join("ref_logits.npy")).0);
        assert!(far < most, "{name}: {far}");
    }
}

/// One layer, node by node: `out = Op(in, in) attribute=value`.
fn lines(text: &str, weights: &[(&str, &[usize])]) -> OnnxModel {
    let mut model = OnnxModel::default();
    model.opsets.insert(String::new(), 17);
    model.graph.inputs.push(port("input_ids", OnnxElem::I64, &[None, None]));
    model.graph.outputs.push(port("logits", OnnxElem::F32, &[None, None, Some(24)]));
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (output, call) = line.split_once(" = ").unwrap();
        let (op, rest) = call.split_once('(').unwrap();
        let (inputs, attributes) = rest.split_once(')').unwrap();
        let mut made = node(op, &inputs.split(", ").collect::<Vec<_>>(), output);
        for (name, value) in attributes.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
            let ints: Option<Vec<i64>> = value.split(',').map(|x| x.parse().ok()).collect();
            let value = match ints.as_deref() {
                Some([int]) => Attribute::Int(*int),
                Some(ints) => Attribute::Ints(ints.to_vec()),
                None => Attribute::Text(value.into()),
            };
            made.attributes.insert(name.into(), value);
        }
        model.graph.nodes.push(made);
    }
    let mut random = SplitMix64(7);
    for (name, sizes) in weights {
        let count = sizes.iter().product();
        let numbers = (0..count).map(|_| (random.bits() % 2001) as f32 / 1000.0 - 1.0).collect();
        model.graph.initializers.insert((*name).into(), Arc::new(OnnxArray::f32(sizes, numbers)));
    }
    let lower = (0..256).map(|i| i % 16 <= i / 16).collect();
    for (name, array) in [
        ("zero", OnnxArray::i64(&[], vec![0])),
        ("one", OnnxArray::i64(&[], vec![1])),
        ("two", OnnxArray::i64(&[], vec![2])),
        ("start", OnnxArray::vector(vec![0])),
        ("axis1", OnnxArray::vector(vec![1])),
        ("lower", OnnxArray::bool(&[16, 16], lower)),
        ("scale", OnnxArray::f32(&[], vec![0.5])),
        ("lowest", OnnxArray::f32(&[], vec![-1e9])),
    ] {
        model.graph.initializers.insert(name.into(), Arc::new(array));
    }
    model
}

/// Embeddings of 8 channels and a mask; then what is given, from `n` to `o`; then the rest of the network.
fn layer(attention: &str) -> String {
    format!(
        "shape = Shape(input_ids)
         count = Gather(shape, one)
         end = Unsqueeze(count, start)
         range = Range(zero, count, one)
         pos = Gather(wpe, range)
         tok = Gather(wte, input_ids)
         x = Add(tok, pos)
         n = LayerNormalization(x, gain, bias)
         rows = Slice(lower, start, end, start)
         mask = Slice(rows, start, end, axis1)
         {attention}
         r = Add(x, o)
         last = LayerNormalization(r, gain, bias)
         logits = MatMul(last, head)"
    )
}

const LAYER: [(&str, &[usize]); 5] =
    [("wte", &[24, 8]), ("wpe", &[16, 8]), ("gain", &[8]), ("bias", &[8]), ("head", &[8, 24])];

fn proved_layer(attention: &str, weights: &[(&str, &[usize])]) {
    let model = lines(&layer(attention), &[&LAYER, weights].concat());
    let import = onnx::import_model(model).unwrap_or_else(|e| panic!("{attention}: {e}"));
    let found = proved(&import).unwrap_or_else(|e| panic!("{attention}: {e}"));
    let proof = found.proof.as_ref().unwrap();
    assert!(proof.range > 0.1 && found.network.layers.attention[0].heads.query == 2, "{proof:?}");
}

#[test]
fn einsum_by_heads_is_attention() {
    let by_head: [(&str, &[usize]); 4] =
        [("wq", &[8, 2, 4]), ("wk", &[8, 2, 4]), ("wv", &[8, 2, 4]), ("wo", &[2, 4, 8])];
    proved_layer(
        "q = Einsum(n, wq) equation=btw,whd->bthd
         k = Einsum(n, wk) equation=btw,whd->bthd
         v = Einsum(n, wv) equation=btw,whd->bthd
         s = Einsum(q, k) equation=bthd,bshd->bhts
         c = Mul(s, scale)
         m = Where(mask, c, lowest)
         p = Softmax(m) axis=-1
         a = Einsum(p, v) equation=bhts,bshd->bthd
         o = Einsum(a, wo) equation=bthd,hdw->btw",
        &by_head,
    );
    // Heads first, in weights and in values.
    let heads_first: [(&str, &[usize]); 4] =
        [("wq", &[2, 8, 4]), ("wk", &[2, 8, 4]), ("wv", &[2, 8, 4]), ("wo", &[2, 4, 8])];
    proved_layer(
        "q = Einsum(n, wq) equation=btw,hwd->bhtd
         k = Einsum(n, wk) equation=btw,hwd->bhtd
         v = Einsum(n, wv) equation=btw,hwd->bhtd
         s = Einsum(q, k) equation=bhtd,bhsd->bhts
         c = Mul(s, scale)
         m = Where(mask, c, lowest)
         p = Softmax(m) axis=-1
         a = Einsum(p, v) equation=bhts,bhsd->bhtd
         o = Einsum(a, wo) equation=bhtd,hdw->btw",
        &heads_first,
    );
}

/// A head of its own for each part, with biases and weights that are turned.
#[test]
fn heads_by_concat_are_attention() {
    let head = |h: usize| {
        format!(
            "q{h}m = MatMul(n, wq{h})
             q{h} = Add(q{h}m, bq{h})
             k{h}t = Transpose(wk{h}) perm=1,0
             k{h} = MatMul(n, k{h}t)
             v{h} = MatMul(n, wv{h})
             k{h}T = Transpose(k{h}) perm=0,2,1
             s{h} = MatMul(q{h}, k{h}T)
             c{h} = Mul(s{h}, scale)
             m{h} = Where(mask, c{h}, lowest)
             p{h} = Softmax(m{h}) axis=-1
             a{h} = MatMul(p{h}, v{h})"
        )
    };
    let weights: [(&str, &[usize]); 9] = [
        ("wq0", &[8, 4]),
        ("wq1", &[8, 4]),
        ("bq0", &[4]),
        ("bq1", &[4]),
        ("wk0", &[4, 8]),
        ("wk1", &[4, 8]),
        ("wv0", &[8, 4]),
        ("wv1", &[8, 4]),
        ("wo", &[8, 8]),
    ];
    let heads = format!("{}\n{}", head(0), head(1));
    proved_layer(&format!("{heads}\n all = Concat(a0, a1) axis=-1\n o = MatMul(all, wo)"), &weights);
    // Stacked on an axis of their own, which is then turned and folded.
    let stacked = "u0 = Unsqueeze(a0, axis1)
         u1 = Unsqueeze(a1, axis1)
         all = Concat(u0, u1) axis=1
         turned = Transpose(all) perm=0,2,1,3
         flat = Reshape(turned, whole)
         o = MatMul(flat, wo)";
    let mut model = lines(&layer(&format!("{heads}\n{stacked}")), &[&LAYER[..], &weights].concat());
    model.graph.initializers.insert("whole".into(), Arc::new(OnnxArray::vector(vec![0, 0, 8])));
    proved(&onnx::import_model(model).unwrap()).unwrap();
}

#[test]
fn other_networks_are_called_what_they_are() {
    let what = "holds NaN: tensor bigm is infinite, as a number is that overflows f16";
    let file = inputs().join("fp16-mask-overflow").join("model.onnx");
    let line = check(&file, &OnnxOptions::default()).unwrap_err()[0].to_string();
    assert!(line.lines().next().unwrap().contains(what), "{line}");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    all.sort();
    all
}

#[test]
fn logits_are_the_output_as_wide_as_the_vocabulary() {
    let hidden_of = |model: &OnnxModel| before_the_head(model)[0].clone();
    let open = [None, None, None];
    // In every order, by any name, whether or not the file declares sizes.
    for name in ["logits", "lm_logits", "output_1", "last_hidden_state"] {
        for (first, declared) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut model = network(&CONFIG);
            let hidden = hidden_of(&model);
            for node in &mut model.graph.nodes {
                node.outputs.iter_mut().filter(|output| *output == "logits").for_each(|output| *output = name.into());
            }
            let of = |name: &str, width: usize| {
                port(name, OnnxElem::F32, &if declared { vec![None, None, Some(width)] } else { Vec::new() })
            };
            let mut outputs = vec![of(&hidden, 32), of(name, 96)];
            if !first {
                outputs.reverse();
            }
            model.graph.outputs = outputs;
            let import = onnx::import_model(model).unwrap();
            assert!(import.output == name && !import.head_added && import.warnings().is_empty(), "{name} {first}");
            proved(&import).unwrap();
        }
    }
    // Inputs that only other outputs need are not asked for.
    let mut model = network(&CONFIG);
    let hidden = hidden_of(&model);
    model.graph.inputs.push(port("choice", OnnxElem::F32, &[]));
    model.graph.nodes.push(node("Mul", &[&hidden, "choice"], "mc_logits"));
    model.graph.outputs.insert(0, port("mc_logits", OnnxElem::F32, &open));
    let import = onnx::import_model(model).unwrap();
    assert_eq!(import.output, "logits");
    proved(&import).unwrap();
}

#[test]
fn a_hidden_state_gets_a_head_and_it_is_said() {
    let import = onnx::import_model(network(&Gpt2Config { head: HeadExport::Missing, ..CONFIG })).unwrap();
    assert!(import.head_added);
    assert!(import.warnings()[0].contains("is a hidden state, and the table of tokens serves as its head"));
    proved(&import).unwrap();
    // The deepest of several hidden states is the last.
    let mut model = network(&CONFIG);
    let hidden = before_the_head(&model)[0].clone();
    let early = model.graph.nodes.iter().find(|node| node.op_type == "LayerNormalization").unwrap();
    let early = early.outputs[0].clone();
    model.graph.outputs = [&early, &hidden].map(|name| port(name, OnnxElem::F32, &[None, None, Some(32)])).to_vec();
    let import = onnx::import_model(model).unwrap();
    assert!(import.head_added && import.output == hidden);
}

#[test]
fn classifiers_are_refused_as_what_they_are() {
    for (width, what) in [(3, "3 classes, 96 tokens: no language model"), (1, "1 number, 96 tokens")] {
        for beside_hidden in [false, true] {
            let mut model = network(&CONFIG);
            let [hidden, head] = before_the_head(&model);
            let numbers = (0..32 * width).map(|i| (i % 7) as f32 - 3.0).collect();
            model.graph.initializers.insert(head, Arc::new(OnnxArray::f32(&[32, width], numbers)));
            model.graph.outputs[0].sizes = vec![None, None, Some(width)];
            if beside_hidden {
                model.graph.outputs.insert(0, port(&hidden, OnnxElem::F32, &[None, None, Some(32)]));
            }
            let refused = onnx::import_model(model).unwrap_err();
            assert!(refused[0].message.starts_with(what), "{}", said(&refused));
        }
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let names: Vec<String> = network(&CONFIG).graph.initializers.keys().cloned().collect();
    let is_weight = |name: &&String| name.contains("weight") || name.contains("bias") || name.contains("MatMul");
    let mut seen = 0;
    for name in names.iter().filter(is_weight) {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut model = network(&CONFIG);
            let array = &model.graph.initializers[name];
            let Some(numbers) = array.as_f32() else { continue };
            let (mut numbers, sizes) = (numbers.to_vec(), array.sizes().to_vec());
            let last = numbers.len() - 1;
            numbers[last] = bad;
            model.graph.initializers.insert(name.clone(), Arc::new(OnnxArray::f32(&sizes, numbers)));
            let refused = onnx::import_model(model).unwrap_err();
            assert!(refused[0].place == format!("tensor {name}").as_str(), "{name} {bad}: {}", said(&refused));
            assert!(refused.len() == 1 && refused[0].message.starts_with("it holds"), "{}", said(&refused));
            seen += 1;
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn constants_of_equal_elements_keep_their_shape() {
    let names: Vec<String> = network(&CONFIG).graph.initializers.keys().cloned().collect();
    let mut seen = 0;
    for name in names {
        for number in [0.0, 0.125] {
            let mut model = network(&CONFIG);
            let array = &model.graph.initializers[&name];
            if array.as_f32().is_none()
                || array.rank() != 2
                || array.sizes()[0] == array.sizes()[1] && array.len() > 1024
            {
                continue;
            }
            let equal = OnnxArray::f32(array.sizes(), vec![number; array.len()]);
            model.graph.initializers.insert(name.clone(), Arc::new(equal));
            let import = onnx::import_model(model).unwrap_or_else(|e| panic!("{name} {number}: {e}"));
            let found = proved(&import).unwrap_or_else(|e| panic!("{name} {number}: {e}"));
            // A head of equal columns predicts nothing, and that is said.
            let proof = found.proof.unwrap();
            assert_eq!(proof.warning().is_some(), proof.range == 0.0);
            seen += 1;
        }
    }
    assert!(seen >= 16, "{seen}");
}

/// A network whose embeddings are multiplied by an input that snnc does not know.
fn with_input(name: &str, elem: OnnxElem, sizes: &[Option<usize>]) -> OnnxModel {
    let mut model = network(&CONFIG);
    let [hidden, _] = before_the_head(&model);
    for node in model.graph.nodes.iter_mut().filter(|node| node.outputs[0] == "logits") {
        node.inputs[0] = "gated".into();
    }
    let at = model.graph.nodes.iter().position(|node| node.outputs[0] == "logits").unwrap();
    let mut cast = node("Cast", &[name], "as_float");
    cast.attributes.insert("to".into(), Attribute::Int(1));
    model.graph.nodes.insert(at, node("Mul", &[&hidden, "as_float"], "gated"));
    model.graph.nodes.insert(at, cast);
    model.graph.inputs.push(port(name, elem, sizes));
    model
}

#[test]
fn inputs_hold_what_the_user_says() {
    let args = || with_input("args_1", OnnxElem::I64, &[Some(1)]);
    let refused = said(&onnx::import_model(args()).unwrap_err());
    assert!(refused.contains("input args_1") && refused.contains("--input args_1=ones"), "{refused}");
    for text in ["args_1=ones", "args_1=1", "args_1=mask"] {
        proved(&onnx::import_model_with(args(), &bindings(&[text])).unwrap()).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    for (text, what) in [
        ("args_2=ones", "the file has no such input; its inputs are input_ids, args_1"),
        ("input_ids=ones", "this input takes the token ids"),
        ("args_1=0.5", "it holds whole numbers, and 0.5 is none"),
    ] {
        let refused = said(&onnx::import_model_with(args(), &bindings(&[text])).unwrap_err());
        assert!(refused.contains(what), "{text}: {refused}");
    }
    for text in ["args_1", "=ones", "args_1=", "args_1=two", "args_1=inf", "args_1=nan"] {
        assert!(InputBindings::parse(&[text.to_string()]).is_err(), "{text}");
    }
    // Masks of heads have the sizes that the file declares.
    let import = onnx::import_model(with_input("head_mask", OnnxElem::F32, &[Some(1), Some(32)])).unwrap();
    proved(&import).unwrap();
}

#[test]
fn a_tolerance_is_a_share() {
    let import = onnx::import_model(network(&CONFIG)).unwrap();
    let tensor = convert::dense(import.graph.clone(), false, &mut |_, _, _| {}).unwrap();
    for share in [0.0, -1.0, 1.5, 1e30, f32::NAN, f32::INFINITY] {
        let refused = said(&proof::prove(&import, &tensor, Some(share)).unwrap_err());
        assert!(refused.contains("above 0 and at most 1"), "{share}: {refused}");
    }
    assert!(proof::prove(&import, &tensor, Some(1.0)).is_ok());
}

/// Logits beyond f32 are no logits, whatever the network makes of them.
#[test]
fn logits_that_are_not_finite_prove_nothing() {
    let mut model = network(&CONFIG);
    let import = onnx::import_model(network(&CONFIG)).unwrap();
    let tensor = convert::dense(import.graph, false, &mut |_, _, _| {}).unwrap();
    let [_, head] = before_the_head(&model);
    let array = &model.graph.initializers[&head];
    let huge = OnnxArray::f32(array.sizes(), array.as_f32().unwrap().iter().map(|x| x.signum() * 3e38).collect());
    model.graph.initializers.insert(head, Arc::new(huge));
    let import = onnx::import_model(model).unwrap();
    let refused = said(&proof::prove(&import, &tensor, Some(1.0)).unwrap_err());
    assert!(refused.contains("the file's own logits are"), "{refused}");
}

/// Files that are quantised everywhere and lose too much, which a few tokens of one draw do not show.
#[test]
fn no_command_takes_a_file_that_is_not_proved() {
    let Some(folder) = shared("hostile/check-vs-compile") else { return };
    for path in files(&folder) {
        let options = OnnxOptions::default();
        assert!(said(&check(&path, &options).unwrap_err()).contains("is not the file's"), "{}", path.display());
        assert!(said(&Loaded::read(&path, &options).unwrap_err()).contains("is not the file's"));
        let compiled = compile(&CompileOptions::new(&path), &Silent, &mut |_, _| {});
        assert!(said(&compiled.unwrap_err()).contains("is not the file's"));
    }
}

#[test]
fn check_and_compile_agree() {
    let mut all = files_below(&inputs());
    for folder in ["flavours", "flavours2", "bugs"] {
        let Some(folder) = shared(folder) else { continue };
        all.extend(files_below(&folder));
    }
    for path in all {
        let checked = check(&path, &OnnxOptions::default());
        let options = CompileOptions { calibration_tokens: Some(64), threads: 1, ..CompileOptions::new(&path) };
        let compiled = compile(&options, &Silent, &mut |_, _| {});
        let words = |result: Option<&Diagnostics>| result.map_or("it is taken".to_string(), said);
        assert_eq!(words(checked.as_ref().err()), words(compiled.as_ref().err()), "{}", path.display());
        if let Err(refused) = &checked {
            assert!(!refused.is_empty(), "{}: a refusal without a word", path.display());
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut all = files(folder);
    all.extend(folders.flat_map(|folder| files(&folder)));
    all
}

/// A file that ends with a softmax gives probabilities: logits are what it takes, and that is said.
#[test]
fn a_softmax_at_the_end_is_put_aside() {
    let sizes = [None, None, Some(96)];
    for (op, axis, ends) in [
        ("Softmax", Some(-1), true),
        ("Softmax", Some(2), true),
        ("LogSoftmax", None, true),
        ("Softmax", Some(1), false),
    ] {
        let mut model = network(&CONFIG);
        let mut last = node(op, &["logits"], "probs");
        last.attributes.extend(axis.map(|axis| ("axis".to_string(), Attribute::Int(axis))));
        model.graph.nodes.extend([last, node("Identity", &["probs"], "out")]);
        model.graph.outputs = vec![port("out", OnnxElem::F32, &sizes)];
        let import = onnx::import_model(model);
        if !ends {
            let refused = import.and_then(|import| proved(&import).map(|_| ()));
            assert!(refused.is_err(), "over tokens, it is no softmax of logits");
            continue;
        }
        let import = import.unwrap();
        assert_eq!((import.output.as_str(), import.probabilities.as_deref()), ("logits", Some("out")));
        assert!(import.warnings()[0].contains("`out` holds probabilities"), "{:?}", import.warnings());
        let whole = onnx::import_model(network(&CONFIG)).unwrap();
        assert_eq!(snnc_ir::text::print(&import.graph), snnc_ir::text::print(&whole.graph));
        proved(&import).unwrap();
    }
}

/// A tokenizer beside the file that writes the built-in text in tokens the network has no rows for.
#[test]
fn a_tokenizer_of_another_network_is_refused_by_check_as_by_compile() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::write(&model, gpt2::bytes(&CONFIG).unwrap()).unwrap();
    let tokenizer = snnc_tests::demo_model().with_file_name("tokenizer.json");
    std::fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    let checked = check(&model, &OnnxOptions::default()).map(|_| ());
    let compiled = compile(&CompileOptions::new(&model), &Silent, &mut |_, _| {}).map(|_| ());
    assert_eq!(said(&checked.unwrap_err()), said(&compiled.unwrap_err()));
}
