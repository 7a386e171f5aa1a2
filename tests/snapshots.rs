//! The IR of a small network before and after every pass.

#![allow(clippy::unwrap_used)]

use snnc_examples::gpt2::Gpt2Config;
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Graph, text};
use snnc_passes::Pass;
use snnc_passes::collapse::collapse;
use snnc_passes::gradient::gradient;
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_passes::relax::{Recipe, Trainable, relax};
use snnc_tests::imported;

const SMALLEST: Gpt2Config =
    Gpt2Config { layers: 1, width: 8, heads: 2, vocabulary: 16, context: 8, ..Gpt2Config::TINY };

/// The defaults, but nothing is rotated: such a small network may gain by it, and most networks of its kind do not.
fn plain() -> QuantOptions {
    QuantOptions { rotate: Rotate::These(Rotations::default()), ..QuantOptions::default() }
}

/// Attention of every kind that has features, as it begins training.
#[test]
fn attention_before_training() {
    for (name, variant) in [
        ("coincidence", Ssa::Coincidence { squared: true }),
        ("linear", Ssa::Linear { guard: 8 }),
        ("lif", Ssa::Lif { output: Output::Spikes }),
    ] {
        let quant_options = QuantOptions { attention: Some(variant), ..plain() };
        let recipe = snnc::convert::ConvertOptions { quant: quant_options, calibration_tokens: 64, threads: 2 };
        let sample = snnc::convert::Sample::SeededIds;
        let mut passed = |_: &Pass, _: &Graph, _: &Graph| {};
        let converted = snnc::convert::convert(imported(&SMALLEST), false, &sample, &recipe, &mut passed).unwrap();
        insta::assert_snapshot!(format!("attention-{name}"), text::print(&converted.graph));
    }
}

#[test]
fn every_pass() {
    let graph = imported(&SMALLEST);
    insta::assert_snapshot!("0-imported", text::print(&graph));
    let mut after: Vec<(&str, Graph)> = Vec::new();
    let recipe = snnc::convert::ConvertOptions { quant: plain(), calibration_tokens: 64, threads: 2 };
    let sample = snnc::convert::Sample::SeededIds;
    snnc::convert::convert(graph, false, &sample, &recipe, &mut |pass, _, graph| {
        after.push((pass.name, graph.clone()))
    })
    .unwrap();
    after.push(("collapse", collapse(&after.last().unwrap().1).unwrap()));
    for (i, (name, graph)) in after.iter().enumerate() {
        insta::assert_snapshot!(format!("{}-{name}", i + 1), text::print(graph));
    }
}

/// Thresholds of a network in training: the relaxed program beside the dense network, then with gradients.
#[test]
fn training() {
    let teacher = snnc::convert::dense(imported(&SMALLEST), false, &mut |_, _, _| {}).unwrap();
    let program = snnc_tests::converted(imported(&SMALLEST), plain());
    let relaxed = relax(&program, &teacher, Recipe { train: Trainable::Thresholds, ..Recipe::default() }).unwrap();
    insta::assert_snapshot!("training-relaxed", text::print(&relaxed.graph));
    let some: Vec<String> = relaxed.parameters.into_iter().filter(|name| name.contains("mlp.up")).collect();
    let back = gradient(&relaxed.graph, &some).unwrap();
    insta::assert_snapshot!("training-gradient", text::print(&back));
}
