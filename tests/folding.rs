//! Networks whose algebra other front ends write in another way, against the logits that onnxruntime gives: import and raise
//! change nothing, spikes change little. And graphs that are long or wide, which take no time that grows with their paths.

#![allow(clippy::unwrap_used)]

use snnc::convert;
use snnc::proof;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
use snnc_ir::{Binary, Builder, Op, Stage, Tensor};
use snnc_onnx as onnx;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_runtime::Engine;
use snnc_tests::{centred_cosine, options, run, spiking};
use std::path::Path;
use std::sync::Arc;

/// The numbers of a `.npy` file of i64 or f32.
fn npy(path: &Path) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let data = &bytes[start..];
    if header.contains("<i8") {
        return data.chunks_exact(8).map(|x| i64::from_le_bytes(x.try_into().unwrap()) as f64).collect();
    }
    assert!(header.contains("<f4"), "{header}");
    data.chunks_exact(4).map(|x| f64::from(f32::from_le_bytes(x.try_into().unwrap()))).collect()
}

/// A network is its reference, and its spiking program nearly so.
fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/bugs").join(name);
    let tokens: Vec<u32> = npy(&folder.join("ref_ids.npy")).iter().map(|&id| id as u32).collect();
    let want: Vec<f32> = npy(&folder.join("ref_logits.npy")).iter().map(|&x| x as f32).collect();
    let import = onnx::import(&folder.join("model.onnx")).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    let tensor = convert::dense(import.graph.clone(), false, &mut |_, _, _| {}).unwrap();
    let proof = proof::prove(&import, &tensor, None).unwrap();
    assert!(proof.difference < 1e-4, "{name}: {proof:?}");
    let dense = run(&tensor, options(Engine::Jit), &[&tokens]).logits();
    let worst = dense.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(dense.len() == want.len() && worst < 1e-4, "{name}: {worst}");
    let stepped = spiking(import.graph, Levels::default());
    let program = collapse(&stepped).unwrap();
    let logits = run(&program, options(Engine::Jit), &[&tokens]).logits();
    let cosine = centred_cosine(&logits, &want);
    assert!(cosine > 0.999, "{name}: cosine {cosine}");
    assert_eq!(run(&program, options(Engine::Interpreter), &[&tokens]).logits(), logits, "{name}: engines differ");
    assert_eq!(run(&stepped, options(Engine::Jit), &[&tokens]).logits(), logits, "{name}: stepped differs");
}

#[test]
fn thin_products_beside_a_weight_are_added_to_it() {
    check("lora-unmerged");
}

#[test]
fn factors_of_embeddings_scores_and_logits_fold() {
    check("mup-logits");
}

#[test]
fn a_gain_in_the_reciprocal_root_is_a_layer_norm() {
    check("tf-gpt2");
}

#[test]
fn a_variance_of_moments_is_a_layer_norm_and_a_mask_may_come_behind_softmax() {
    check("flax-gpt");
}

#[test]
fn a_layer_norm_may_stand_behind_the_residual_addition() {
    check("post-ln-gpt1");
}

#[test]
fn embeddings_may_be_narrower_than_blocks() {
    check("opt-350m");
}

/// A projection, and what `grow` makes of it again and again, as logits.
fn grown(
    times: usize,
    grow: impl Fn(&mut Builder, snnc_ir::Value, snnc_ir::Value) -> snnc_ir::Value,
) -> snnc_ir::Graph {
    let mut b = Builder::new(Stage::Imported, 8);
    let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "").unwrap();
    let table = b.weight("table", Arc::new(Tensor::f32(&[3, 2], vec![0.5; 6])));
    let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "").unwrap();
    let w = b.weight("w", Arc::new(Tensor::f32(&[2, 2], vec![0.25, 0.5, -0.5, 0.25])));
    let mut y = b.add(Op::Array(ArrayOp::MatMul), &[x, w], "").unwrap();
    for _ in 0..times {
        y = grow(&mut b, y, x);
    }
    let head = b.add(Op::Array(ArrayOp::MatMul), &[y, w], "").unwrap();
    b.finish(vec![("y".into(), head)])
}

const ADD: Op = Op::Array(ArrayOp::Binary(Binary::Add));

#[test]
fn time_grows_with_the_nodes_and_not_with_the_paths() {
    let doubled = grown(60, |b, y, _| b.add(ADD, &[y, y], "").unwrap());
    convert::raise(doubled, false).unwrap();
    let chain = grown(100_000, |b, y, x| b.add(ADD, &[y, x], "").unwrap());
    convert::raise(chain, false).unwrap();
}

#[test]
fn long_chains_of_projections_fold() {
    let chain = grown(10_000, |b, y, _| {
        let w = b.weight("v", Arc::new(Tensor::f32(&[2, 2], vec![0.5, 0.5, -0.5, 0.5])));
        b.add(Op::Array(ArrayOp::MatMul), &[y, w], "").unwrap()
    });
    let raised = convert::raise(chain, false).unwrap();
    assert!(raised.nodes.len() < 10, "{} nodes", raised.nodes.len());
}
