//! Variants of GPT-2: other sizes, heads and activation functions, against a plain forward pass in f64 that is
//! written from the network's definition and reads the weights by name.

#![allow(clippy::unwrap_used)]

use snnc::convert;
use snnc::proof;
use snnc_examples::gpt2::{self, Activation, Gpt2Config, HeadExport};
use snnc_onnx::{self as onnx, model::OnnxModel};
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_runtime::Engine;
use snnc_tests::{centred_cosine, ids, options, run, spiking};
use std::io::Write;
use std::sync::{Arc, Mutex};

const TINY: Gpt2Config = Gpt2Config::TINY;

type RowsF64 = Vec<Vec<f64>>;

struct NamedWeights<'a>(&'a OnnxModel);

impl NamedWeights<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        let array = &self.0.graph.initializers[name];
        array.as_f32().unwrap().iter().map(|&x| f64::from(x)).collect()
    }

    fn linear(&self, x: &RowsF64, name: &str) -> RowsF64 {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let n = b.len();
        let row =
            |x: &Vec<f64>| (0..n).map(|j| b[j] + (0..x.len()).map(|i| x[i] * w[i * n + j]).sum::<f64>()).collect();
        x.iter().map(row).collect()
    }

    fn norm(&self, x: &RowsF64, name: &str) -> RowsF64 {
        let (g, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            (0..x.len()).map(|i| (x[i] - mean) / (variance + 1e-5).sqrt() * g[i] + b[i]).collect()
        };
        x.iter().map(row).collect()
    }
}

fn activation(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::GeluTanh => {
            0.5 * x * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)))
        }
        Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::GeluQuick => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
        Activation::Relu => x.max(0.0),
    }
}

fn attend(config: &Gpt2Config, layer: usize, qkv: &RowsF64) -> RowsF64 {
    let (d, w) = (config.width, config.width / config.heads);
    let mut scale = 1.0 / (w as f64).sqrt();
    if config.inverse_layer_scale {
        scale /= (layer + 1) as f64;
    }
    let mut out = vec![vec![0.0; d]; qkv.len()];
    for head in 0..config.heads {
        for (i, out) in out.iter_mut().enumerate() {
            let part = |row: usize, which: usize| &qkv[row][which * d + head * w..][..w];
            let score = |j: usize| part(i, 0).iter().zip(part(j, 1)).map(|(q, k)| q * k).sum::<f64>() * scale;
            let scores: Vec<f64> = (0..=i).map(score).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            for (j, s) in scores.iter().enumerate() {
                let weight = (s - largest).exp() / sum;
                part(j, 2).iter().enumerate().for_each(|(c, v)| out[head * w + c] += weight * v);
            }
        }
    }
    out
}

fn sum(a: &RowsF64, b: &RowsF64) -> RowsF64 {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

/// Logits of every token.
fn forward(config: &Gpt2Config, model: &OnnxModel, tokens: &[u32]) -> Vec<f32> {
    let (w, d) = (NamedWeights(model), config.width);
    let (wte, wpe) = (w.get("transformer.wte.weight"), w.get("transformer.wpe.weight"));
    let embed = |(i, &id): (usize, &u32)| (0..d).map(|c| wte[id as usize * d + c] + wpe[i * d + c]).collect();
    let mut x: RowsF64 = tokens.iter().enumerate().map(embed).collect();
    for layer in 0..config.layers {
        let h = format!("transformer.h.{layer}");
        let qkv = w.linear(&w.norm(&x, &format!("{h}.ln_1")), &format!("{h}.attn.c_attn"));
        x = sum(&x, &w.linear(&attend(config, layer, &qkv), &format!("{h}.attn.c_proj")));
        let mut inner = w.linear(&w.norm(&x, &format!("{h}.ln_2")), &format!("{h}.mlp.c_fc"));
        inner.iter_mut().flatten().for_each(|x| *x = activation(config.activation, *x));
        x = sum(&x, &w.linear(&inner, &format!("{h}.mlp.c_proj")));
    }
    let x = w.norm(&x, "transformer.ln_f");
    let head = match config.head {
        HeadExport::Untied => {
            let (head, v) = (w.get("onnx::MatMul_head"), config.vocabulary);
            (0..v).flat_map(|t| (0..d).map(move |c| (t, c))).map(|(t, c)| head[c * v + t]).collect()
        }
        HeadExport::Tied | HeadExport::Copied | HeadExport::Missing => wte,
    };
    let logit = |x: &Vec<f64>, t: usize| x.iter().zip(&head[t * d..][..d]).map(|(x, h)| x * h).sum::<f64>() as f32;
    x.iter().flat_map(|x| (0..config.vocabulary).map(|t| logit(x, t)).collect::<Vec<f32>>()).collect()
}

fn check(config: Gpt2Config) {
    let model = onnx::read::read_bytes(&gpt2::bytes(&config).unwrap()).unwrap();
    let tokens = ids(24.min(config.context), config.vocabulary);
    let want = forward(&config, &model, &tokens);
    let import = onnx::import_model(model).unwrap_or_else(|e| panic!("{config:?}: {e:?}"));
    assert_eq!(import.graph.context as usize, config.context);
    let tensor = convert::dense(import.graph.clone(), false, &mut |_, _, _| {}).unwrap();
    let dense = run(&tensor, options(Engine::Jit), &[&tokens]).logits();
    let worst = dense.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(dense.len() == want.len() && worst < 1e-4, "{config:?}: {worst}");
    let proof = proof::prove(&import, &tensor, None).unwrap();
    assert!(proof.difference < 1e-4 && proof.range > 0.1, "{config:?}: {proof:?}");
    let program = collapse(&spiking(import.graph, Levels::default())).unwrap();
    let cosine = centred_cosine(&run(&program, options(Engine::Jit), &[&tokens]).logits(), &want);
    assert!(cosine > 0.99, "{config:?}: cosine {cosine}");
}

#[test]
fn activation_functions() {
    for activation in [Activation::Relu, Activation::Silu, Activation::GeluErf, Activation::GeluQuick] {
        check(Gpt2Config { activation, ..TINY });
    }
}

#[test]
fn heads_of_the_network() {
    for head in [HeadExport::Tied, HeadExport::Copied, HeadExport::Untied, HeadExport::Missing] {
        check(Gpt2Config { head, opset: 13, ..TINY });
    }
}

#[test]
fn numbers_of_layers_heads_and_widths() {
    for (layers, width, heads) in [(1, 64, 4), (3, 64, 1), (2, 64, 64), (2, 96, 6), (2, 60, 5), (1, 100, 4), (2, 8, 2)]
    {
        check(Gpt2Config { layers, width, heads, ..TINY });
    }
}

#[test]
fn contexts_and_vocabularies() {
    for (context, vocabulary) in [(32, 300), (64, 100_000), (2048, 300)] {
        check(Gpt2Config { context, vocabulary, layers: 1, width: 32, ..TINY });
    }
}

#[test]
fn a_context_of_8192_tokens() {
    check(Gpt2Config { context: 8192, layers: 1, width: 32, vocabulary: 300, ..TINY });
}

#[test]
fn scores_that_are_scaled_by_the_layer() {
    check(Gpt2Config { inverse_layer_scale: true, layers: 3, ..TINY });
}

/// Writes what a file beside the model holds to memory.
struct MemoryWriter(Arc<Mutex<Vec<u8>>>);

impl Write for MemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Weights in several files beside the model are the same weights; a byte less is refused.
#[test]
fn weights_in_other_files() {
    let folder = tempfile::tempdir().unwrap();
    let (path, parts) = (folder.path().join("m.onnx"), [(); 3].map(|()| Arc::new(Mutex::new(Vec::new()))));
    let name = |i: usize| format!("m.onnx.data.{i}");
    let writer =
        |(i, part): (usize, &Arc<Mutex<Vec<u8>>>)| (name(i), Box::new(MemoryWriter(part.clone())) as Box<dyn Write>);
    let mut out = Vec::new();
    gpt2::write_beside(&TINY, &mut out, &mut parts.iter().enumerate().map(writer).collect::<Vec<_>>()).unwrap();
    std::fs::write(&path, out).unwrap();
    for (i, part) in parts.iter().enumerate() {
        std::fs::write(folder.path().join(name(i)), &*part.lock().unwrap()).unwrap();
    }
    let beside = onnx::import(&path).unwrap().graph;
    let inside = onnx::import_model(onnx::read::read_bytes(&gpt2::bytes(&TINY).unwrap()).unwrap()).unwrap().graph;
    assert_eq!(snnc_ir::text::print(&beside), snnc_ir::text::print(&inside));
    let last = folder.path().join(name(2));
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    let complaint = onnx::import(&path).unwrap_err()[0].to_string();
    assert!(complaint.contains("which has"), "{complaint}");
    std::fs::remove_file(&last).unwrap();
    let complaint = onnx::import(&path).unwrap_err()[0].to_string();
    assert!(complaint.contains("cannot be read"), "{complaint}");
}
