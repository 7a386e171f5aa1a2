//! Networks with reference logits: import and raise change nothing, conversion changes little.

#![allow(clippy::unwrap_used)]

use snnc::convert;
use snnc_onnx as onnx;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_runtime::Engine;
use snnc_tests::{centred_cosine, demo_model, options, run, shared, spiking};
use std::fs;
use std::path::Path;

/// f32 sums in another order than onnxruntime's.
const ROUNDING: f32 = 1e-4;

struct Npy {
    sizes: Vec<usize>,
    data: Vec<u8>,
}

/// Version 1 arrays in row-major order.
fn npy(path: &Path) -> Npy {
    let bytes = fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..10 + length]).into_owned();
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let sizes = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    Npy { sizes, data: bytes[10 + length..].to_vec() }
}

fn ids_of(npy: &Npy) -> Vec<u32> {
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
    let ids = ids_of(&npy(&folder.join("ref_input_ids.npy")));
    let want = floats(&npy(&folder.join("ref_logits.npy")).data);
    check(&demo_model(), &[(&ids, &want)]);
}
