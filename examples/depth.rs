//! Does conversion hold at depth? Final hidden states of a converted GPT-2 beside the dense one's, at any size.
//!
//! `cargo run --release -p snnc-examples --example depth -- --size large --outliers 4`
//!
//! Weights are random with GPT-2's initial scales, so what is seen is how errors of levels add up through the layers, and
//! nothing of what a network has learned. Levels are fitted to seeded random ids; other ids are compared.

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc::convert::{ConvertOptions, Sample, calibration_tokens, dense, spiking};
use snnc_examples::gpt2::{self, Gpt2Config};
use snnc_ir::op::{DenseOp, Layout};
use snnc_ir::{Builder, Graph, Tensor, Value};
use snnc_onnx as onnx;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations, Thresholds};
use snnc_runtime::{Options, Program, Rows, Session};
use std::error::Error;
use std::sync::Arc;

/// Compare the final hidden states of a converted GPT-2 with the dense one's
#[derive(Parser)]
struct DepthArguments {
    /// tiny, small, medium or large
    #[arg(long, default_value = "small", value_parser = Gpt2Config::named)]
    size: Gpt2Config,
    /// Channels of the residual stream that are far larger than the others
    #[arg(long, default_value_t = 0)]
    outliers: usize,
    #[arg(long, default_value_t = Levels::default().steps)]
    timesteps: u16,
    /// Tokens to compare
    #[arg(long, default_value_t = 128)]
    tokens: usize,
    /// i8 or f32
    #[arg(long, default_value = "i8", value_parser = ["i8", "f32"])]
    weights: String,
    /// Tokens to calibrate on
    #[arg(long)]
    calibration: Option<usize>,
    /// Sites that stay dense
    #[arg(long, value_delimiter = ',')]
    dense: Vec<String>,
    /// auto, fixed or token
    #[arg(long, default_value = "auto", value_parser = thresholds)]
    thresholds: Thresholds,
    /// What is rotated: auto, none, or a list of residual, heads and hidden
    #[arg(long, default_value = "auto", value_parser = rotate)]
    rotate: Rotate,
}

fn rotate(names: &str) -> Result<Rotate, String> {
    match names {
        "auto" => Ok(Rotate::Auto),
        "none" => Ok(Rotate::These(Rotations::default())),
        names => Rotations::named(names.split(',')).map(Rotate::These).ok_or(format!("`{names}` cannot be rotated")),
    }
}

fn thresholds(name: &str) -> Result<Thresholds, String> {
    Thresholds::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or("one of auto, fixed, normal, token was expected".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    let DepthArguments {
        size,
        outliers,
        timesteps: steps,
        tokens,
        weights,
        calibration,
        dense: sites,
        thresholds,
        rotate,
    } = DepthArguments::parse();
    let config = Gpt2Config { outliers, ..size };
    let overrides = sites.into_iter().chain(["head".to_string()]).map(|site| (site, Override::Dense)).collect();
    let exact_weights = weights == "f32";
    let tokens = tokens.min(config.context);
    let model = onnx::read::read_bytes(&gpt2::bytes(&config)?)?;
    let imported = onnx::import_model(model)?.graph;
    let tensor = dense(imported, false, &mut |_, _, _| {})?;
    let tensor = without_head(&tensor)?;
    let ids: Vec<u32> =
        (0..tokens as u64).map(|i| ((i * 2_654_435_761 + 97) % config.vocabulary as u64) as u32).collect();
    let want = hidden(tensor.clone(), &ids)?;
    let quant_options = QuantOptions {
        overrides,
        exact_weights,
        thresholds,
        rotate,
        ..QuantOptions::uniform(Levels { steps, ..Levels::default() })
    };
    let recipe = ConvertOptions {
        calibration_tokens: calibration.unwrap_or_else(|| calibration_tokens(config.parameters(), &quant_options)),
        quant: quant_options,
        threads: 2,
    };
    let graph = spiking(tensor, &Sample::SeededIds, &recipe, &mut |_, _, _| {})?.graph;
    let got = hidden(collapse(&graph)?, &ids)?;
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

/// The network with the identity for a head: rotation can turn that back.
fn without_head(graph: &Graph) -> Result<Graph, Box<dyn Error>> {
    let head = graph.outputs.first().map(|(_, value)| *value).ok_or("the network gives nothing")?;
    let last = *graph.node(head).args.first().ok_or("no head reads the last hidden states")?;
    let width = graph.ty(last).shape().width().unwrap_or(0);
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter().take_while(|(value, _)| *value <= last) {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        map.push(match graph.constant(value) {
            Some(weight) => builder.weight(&weight.name, weight.tensor.clone()),
            None => builder.add(node.op, &args, graph.origin(value))?,
        });
    }
    let ones = (0..width * width).map(|i| f32::from(u8::from(i / width == i % width))).collect();
    let identity = builder.weight("identity", Arc::new(Tensor::f32(&[width, width], ones)));
    let none = builder.weight("none", Arc::new(Tensor::f32(&[width], vec![0.0; width])));
    let args = [map[last.index()], identity, none];
    let hidden = builder.add(DenseOp::Linear(Layout::InputMajor), &args, graph.origin(last))?;
    Ok(builder.finish(vec![("hidden".into(), hidden)]))
}

fn hidden(graph: Graph, ids: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let options = Options { count: false, ..Options::default() };
    let program = Program::new(Arc::new(graph), &options)?;
    let mut session = Session::new(Arc::new(program))?;
    let outputs = session.forward(ids, Rows::All)?;
    Ok(outputs.f32("hidden").ok_or("no hidden states")?.to_vec())
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
