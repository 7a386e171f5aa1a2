//! Networks with reference logits: import and raise change nothing, conversion changes little.

#![allow(clippy::unwrap_used)]

use snnc::convert::{self, ConvertOptions, Sample};
use snnc::first_token::rows;
use snnc::id_file::IdFile;
use snnc::npy;
use snnc_examples::llama::LlamaConfig;
use snnc_ir::{Builder, Graph, Tensor, Value};
use snnc_onnx as onnx;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_passes::options::{QuantOptions, Rotate, Rotations, Thresholds};
use snnc_runtime::{Engine, Program, Rows, Session};
use snnc_tests::{centred_cosine, demo_model, llama, options, run, shared, spiking};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// f32 sums in another order than onnxruntime's.
const ROUNDING: f32 = 1e-4;

struct ReferenceArray {
    sizes: Vec<usize>,
    data: Vec<u8>,
}

/// Version 1 arrays in row-major order.
fn array(path: &Path) -> ReferenceArray {
    let bytes = fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + length]).into_owned();
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let sizes = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    ReferenceArray { sizes, data: bytes[10 + length..].to_vec() }
}

fn ids_of(npy: &ReferenceArray) -> Vec<u32> {
    let each = npy.data.len() / npy.sizes.iter().product::<usize>();
    npy.data.chunks_exact(each).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn check(model: &Path, rows: &[(&[u32], &[f32])]) {
    let name = model.display();
    let imported = onnx::import(model).unwrap().graph;
    let tensor = convert::dense(imported.clone(), false, &mut |_, _, _| {}).unwrap();
    let program = collapse(&spiking(imported, Levels::default())).unwrap();
    for (ids, want) in rows {
        let dense = run(&tensor, options(Engine::Jit), &[ids]).logits();
        assert_eq!(dense.len(), want.len(), "{name}");
        let worst = dense.iter().zip(*want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < ROUNDING, "{name}: differs from its reference by {worst}");
        let spiking = run(&program, options(Engine::Jit), &[ids]).logits();
        let cosine = centred_cosine(&spiking, want);
        assert!(cosine > 0.99, "{name}: cosine {cosine}");
    }
}

#[test]
fn the_demo_model_gives_its_reference_logits() {
    let Some(folder) = shared("models/wt2-gelu") else { return };
    let ids = ids_of(&array(&folder.join("ref_input_ids.npy")));
    let want = floats(&array(&folder.join("ref_logits.npy")).data);
    check(&demo_model(), &[(&ids, &want)]);
}

/// A network in which token 7 has massive activations, and a file of ids in which every text begins with 3 and many go on with 7.
fn with_a_sink(folder: &Path) -> (Graph, PathBuf) {
    let mut tensor = llama(&LlamaConfig { tied: false, ..LlamaConfig::TINY });
    let table = tensor.weights.iter_mut().find(|weight| weight.name == "embed_tokens.weight").unwrap();
    let mut rows = table.tensor.as_f32().unwrap().to_vec();
    let width = rows.len() / table.tensor.sizes()[0];
    rows[7 * width..8 * width].iter_mut().for_each(|x| *x *= 100.0);
    table.tensor = Arc::new(Tensor::f32(table.tensor.sizes(), rows));
    let (texts, length) = (20, 48);
    let id = |i: usize| match (i / length, i % length) {
        (_, 0) => 3,
        (text, 1) if text % 2 == 0 => 7,
        // Anywhere else token 7 would be as massive.
        (text, at) => (text * 31 + at * at * 17) as i32 % 100 + 8,
    };
    let path = folder.join("ids.npy");
    let mut file = fs::File::create(&path).unwrap();
    npy::write_header(&mut file, "<i4", &[texts, length]).unwrap();
    (0..texts * length).for_each(|i| file.write_all(&id(i).to_le_bytes()).unwrap());
    (tensor, path)
}

/// Fixed thresholds do not cover what a few tokens do right behind the first one: their rows are constants of the network.
#[test]
fn tokens_with_massive_activations_behind_the_first_are_constants() {
    let folder = tempfile::tempdir().unwrap();
    let (tensor, path) = with_a_sink(folder.path());
    let sample = Sample::Ids { name: "ids.npy".into(), file: IdFile::open(&path).unwrap() };
    let rotate = Rotate::These(Rotations::default());
    let quant = QuantOptions { thresholds: Thresholds::Fixed, rotate, ..QuantOptions::default() };
    let recipe = ConvertOptions { quant, calibration_tokens: 960, threads: 2 };
    let done = convert::spiking(tensor.clone(), &sample, &recipe, &mut |_, _, _| {}).unwrap();
    assert_eq!(done.calibration.starts, [vec![3], vec![3, 7]]);
    let dense = rows(&tensor, &done.calibration.starts).unwrap().unwrap();
    let graph = &done.graph;
    let at_start: Vec<Value> =
        graph.iter().filter(|(_, node)| node.op.name() == "at_start").map(|(at, _)| at).collect();
    assert_eq!(at_start.len(), dense.rows.len());
    let outputs = at_start.iter().map(|at| (at.0.to_string(), *at)).collect();
    let streams =
        Arc::new(Program::new(Arc::new(Builder::with_outputs(graph, outputs)), &options(Engine::Jit)).unwrap());
    let of = |pieces: &[&[u32]]| {
        let mut session = Session::new(streams.clone()).unwrap();
        let mut all = vec![Vec::new(); at_start.len()];
        for piece in pieces {
            let outputs = session.forward(piece, Rows::All).unwrap();
            let row = |at: &Value| outputs.f32(&at.0.to_string()).unwrap().to_vec();
            all.iter_mut().zip(&at_start).for_each(|(all, at)| all.extend(row(at)));
        }
        all
    };
    let width = LlamaConfig::TINY.width;
    let whole = of(&[&[3, 7, 20, 9]]);
    for (whole, (_, dense)) in whole.iter().zip(&dense.rows) {
        assert_eq!(whole[..2 * width], dense[..], "both rows are what the dense network computes");
    }
    assert_eq!(whole, of(&[&[3], &[7], &[20, 9]]), "pieces never show");
    let elsewhere = of(&[&[4, 7], &[3, 7]]);
    let is_constant = |at: usize| elsewhere[0][at * width..][..width] == dense.rows[0][width..2 * width];
    assert!((0..4).all(|at| !is_constant(at)), "only behind its first token, and only at the second place");
    let logits = |graph: &Graph| run(graph, options(Engine::Jit), &[&[3, 7, 20, 9, 50]]).logits();
    let near = centred_cosine(&logits(graph), &logits(&tensor));
    assert!(near > 0.99, "{near}");
    for engine in [Engine::Interpreter, Engine::Jit] {
        let ran = |pieces: &[&[u32]]| run(graph, options(engine), pieces).bits;
        assert_eq!(ran(&[&[3, 7, 20, 9]]), ran(&[&[3], &[7, 20], &[9]]), "{engine:?}");
    }
}
