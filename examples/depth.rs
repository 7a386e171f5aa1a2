//! Does conversion hold at depth? Final hidden states of a converted GPT-2 beside the dense one's, at any size.
//!
//! `cargo run --release -p snnc-examples --example depth -- --size large --outliers 4`
//!
//! Weights are random with GPT-2's initial scales, so what is seen is how errors of levels add up through the layers, and
//! nothing of what a network has learned. Levels are fitted to seeded random ids; other ids are compared.

#![allow(clippy::print_stdout)]

use snnc::convert::{Recipe, Sample, calibration_tokens, dense, spiking};
use snnc_examples::gpt2::{self, Gpt2Config};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Builder, Graph};
use snnc_onnx as onnx;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Thresholds};
use snnc_runtime::{Options, Program, Rows, Session};
use std::error::Error;
use std::sync::Arc;

const USAGE: &str = "usage: depth [--size tiny|small|medium|large] [--outliers CHANNELS] [--timesteps T] [--tokens N] [--weights i8|f32] [--calibration TOKENS] [--dense SITE,...] [--thresholds auto|static|token]";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut overrides = Vec::new();
    let (mut calibration, mut thresholds) = (None, Thresholds::Auto);
    let (mut config, mut steps, mut tokens, mut exact_weights) =
        (Gpt2Config::SMALL, Levels::default().steps, 128, false);
    for pair in arguments.chunks(2) {
        match pair {
            [option, value] if option == "--size" => {
                config = match value.as_str() {
                    "tiny" => Gpt2Config::TINY,
                    "small" => Gpt2Config::SMALL,
                    "medium" => Gpt2Config::MEDIUM,
                    "large" => Gpt2Config::LARGE,
                    _ => return Err(USAGE.into()),
                }
            }
            [option, value] if option == "--outliers" => config.outliers = value.parse()?,
            [option, value] if option == "--timesteps" => steps = value.parse()?,
            [option, value] if option == "--tokens" => tokens = value.parse()?,
            [option, value] if option == "--calibration" => calibration = Some(value.parse()?),
            [option, value] if option == "--dense" => {
                overrides.extend(value.split(',').map(|site| (site.to_string(), Override::Dense)));
            }
            [option, value] if option == "--thresholds" => {
                thresholds = Thresholds::ALL.into_iter().find(|kind| kind.name() == value).ok_or(USAGE)?;
            }
            [option, value] if option == "--weights" => exact_weights = value == "f32",
            _ => return Err(USAGE.into()),
        }
    }
    let tokens = tokens.min(config.context);
    let complaints = |all: Diagnostics| all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let model = onnx::read::read_bytes(&gpt2::bytes(&config)?).map_err(|e| e.to_string())?;
    let imported = onnx::import_model(model).map_err(complaints)?.graph;
    let tensor = dense(imported, false, &mut |_, _, _| {}).map_err(complaints)?;
    let tensor = without_head(&tensor).ok_or("no head reads the last hidden states")?;
    let ids: Vec<u32> =
        (0..tokens as u64).map(|i| ((i * 2_654_435_761 + 97) % config.vocabulary as u64) as u32).collect();
    let want = hidden(tensor.clone(), &ids)?;
    let wishes = QuantOptions {
        overrides,
        exact_weights,
        thresholds,
        ..QuantOptions::uniform(Levels { steps, ..Levels::default() })
    };
    let recipe = Recipe {
        wishes,
        calibration_tokens: calibration.unwrap_or_else(|| calibration_tokens(config.parameters())),
        threads: 2,
    };
    let graph = spiking(tensor, &Sample::SeededIds, &recipe, &mut |_, _, _| {}).map_err(complaints)?.graph;
    let got = hidden(collapse(&graph).map_err(complaints)?, &ids)?;
    let rows: Vec<f64> = want.chunks(config.width).zip(got.chunks(config.width)).map(|(a, b)| cosine(a, b)).collect();
    println!(
        "{} layers, width {}, {} outlier channels, T = {steps}: cosine of final hidden states {:.6}, least {:.6} ({tokens} tokens)",
        config.layers,
        config.width,
        config.outliers,
        rows.iter().sum::<f64>() / rows.len() as f64,
        rows.iter().copied().fold(1.0, f64::min),
    );
    Ok(())
}

/// The network up to what its head reads.
fn without_head(graph: &Graph) -> Option<Graph> {
    let head = graph.outputs.first().map(|(_, value)| *value)?;
    let last = *graph.node(head).args.first()?;
    Some(Builder::with_outputs(graph, vec![("hidden".into(), last)]))
}

fn hidden(graph: Graph, ids: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let options = Options { count: false, ..Options::default() };
    let program = Program::new(Arc::new(graph), &options).map_err(|e| e.to_string())?;
    let mut session = Session::new(Arc::new(program));
    let outputs = session.forward(ids, Rows::All).map_err(|e| e.to_string())?;
    Ok(outputs.f32("hidden").ok_or("no hidden states")?.to_vec())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
