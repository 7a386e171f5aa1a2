//! What `snnc export` writes: ONNX files that give the program's logits, node by node, for every kind of program.

#![allow(clippy::unwrap_used)]

use snnc::export::onnx;
use snnc::front::OnnxOptions;
use snnc::model::Loaded;
use snnc_examples::gpt2::{Activation, Gpt2Config};
use snnc_ir::membrane::Membrane;
use snnc_ir::{Code, Graph, Ssa, Tensor};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Thresholds};
use snnc_tests::{converted, imported, snnc, write_small_model};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const TINY: Gpt2Config = Gpt2Config::TINY;

/// What roundings may do to logits, as a share of their range, where a runtime has an order of its own: a level or two that are
/// another one.
const NEAR: f32 = 0.02;

/// The file gives the program's logits: their bits, unless the runtime has an order of its own.
#[track_caller]
fn check(name: &str, graph: &Graph) {
    check_within(name, graph, 0.0);
}

#[track_caller]
fn check_within(name: &str, graph: &Graph, most: f32) {
    let exported = onnx::export(graph).unwrap_or_else(|e| panic!("{name}: {e}"));
    let proof = exported.proof;
    assert!(proof.range > 0.0 && proof.difference <= most * proof.range, "{name}: {}", proof.line());
}

fn levels(code: Code, steps: u16) -> QuantOptions {
    QuantOptions::uniform(Levels { code, steps })
}

/// Levels of 8 bits and of more, both codes, curves, weights of 4 bits and of f32.
#[test]
fn levels_and_weights_of_all_widths() {
    for (code, steps) in [
        (Code::Binary, 1),
        (Code::Binary, 7),
        (Code::Binary, 8),
        (Code::Binary, 14),
        (Code::Unary, 9),
        (Code::Unary, 200),
    ] {
        check(&format!("{code:?} {steps}"), &converted(imported(&TINY), levels(code, steps)));
    }
    for activation in [Activation::Relu, Activation::GeluErf, Activation::GeluQuick, Activation::Silu] {
        let config = Gpt2Config { activation, ..TINY };
        check(&format!("{activation:?}"), &converted(imported(&config), QuantOptions::default()));
    }
    for thresholds in [Thresholds::Fixed, Thresholds::Token, Thresholds::Normal] {
        check(
            &format!("{thresholds:?}"),
            &converted(imported(&TINY), QuantOptions { thresholds, ..QuantOptions::default() }),
        );
    }
    let grouped = QuantOptions { weight_group: Some(32), ..QuantOptions::default() };
    check("i4", &converted(imported(&TINY), grouped));
    check("f32 weights", &converted(imported(&TINY), QuantOptions { exact_weights: true, ..QuantOptions::default() }));
    let overrides = vec![("h.0.q".into(), Override::Dense), ("head".into(), Override::Dense)];
    check("dense sites", &converted(imported(&TINY), QuantOptions { overrides, ..QuantOptions::default() }));
}

#[test]
fn every_kind_of_attention() {
    let kinds: [(Option<Ssa>, &[(&str, u16)]); 9] = [
        (None, &[]),
        (Some(Ssa::Ttfs { phases: 3 }), &[]),
        // Scores beyond the whole numbers of f32.
        (Some(Ssa::Ttfs { phases: 8 }), &[("q", 14), ("k", 12)]),
        (Some(Ssa::TopK { phases: 8, keys: 3 }), &[]),
        (Some(Ssa::TopK { phases: 8, keys: 4 }), &[("q", 15), ("k", 13), ("v", 16)]),
        (Some(Ssa::Coincidence { squared: false }), &[("q", 1), ("v", 9)]),
        (Some(Ssa::Coincidence { squared: true }), &[]),
        (Some(Ssa::Linear { guard: 8 }), &[]),
        (Some(Ssa::Linear { guard: 8 }), &[("h.0.q", 1), ("h.1.q", 9), ("v", 16)]),
    ];
    for (attention, steps) in kinds {
        let overrides = steps.iter().map(|(site, steps)| (site.to_string(), Override::Steps(*steps))).collect();
        let mut graph = converted(imported(&TINY), QuantOptions { attention, overrides, ..QuantOptions::default() });
        check(&format!("{attention:?} {steps:?}"), &graph);
        for half_life in [[1, 2, 4, 4], [0, 16, 32, 0]] {
            let mut found = false;
            for weight in graph.weights.iter_mut().filter(|weight| weight.name.ends_with(".half_life")) {
                weight.tensor = Arc::new(Tensor::i32(&[4], half_life.to_vec()));
                found = true;
            }
            if found {
                // Sums that halve toward zero have no form as a matrix.
                let most = if matches!(attention, Some(Ssa::Linear { .. })) { NEAR } else { 0.0 };
                check_within(&format!("{attention:?} {steps:?} {half_life:?}"), &graph, most);
            }
        }
    }
}

/// Rotary positions, gated layers, grouped heads, windows, ALiBi, parallel blocks, rotations: whatever families have.
#[test]
fn every_family() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/folders");
    let mut count = 0;
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").is_file() {
            continue;
        }
        let loaded = Loaded::read(&folder, &OnnxOptions::default()).unwrap();
        check(&folder.display().to_string(), &converted(loaded.source.graph, QuantOptions::default()));
        count += 1;
    }
    assert!(count >= 20, "{count} folders");
}

/// What answers within a timestep is refused with what to do, and nothing is written.
#[test]
fn time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = QuantOptions { membrane: Some(Membrane::IF), ..levels(Code::Unary, 4) };
    let refused = onnx::export(&converted(imported(&TINY), options)).unwrap_err().to_string();
    assert!(refused.contains("ONNX has no timesteps") && refused.contains("--neuron fire"), "{refused}");
    write_small_model(folder.path());
    let run = |line: &str| Command::new(snnc()).args(line.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(run("compile model.onnx -o m.snn --calibration-tokens 64 --neuron if --timesteps 4").status.success());
    let failed = run("export m.snn --to onnx -o out.onnx");
    assert!(!failed.status.success() && !folder.path().join("out.onnx").exists());
    let done = run("compile model.onnx -o m.snn --calibration-tokens 64");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = run("export m.snn --to onnx -o out.onnx");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = run("compile model.onnx -o c.snn --calibration-tokens 64 --start 3 --first-token constant");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let program = snnc::files::read_snn(&folder.path().join("c.snn")).unwrap().graph;
    assert!(program.nodes.iter().any(|node| node.op.name() == "at_start"));
    check("the first token as a constant", &program);
    let same = run("export m.snn --to onnx -o m.snn");
    assert!(!same.status.success(), "a program is not overwritten by its own export");
}
