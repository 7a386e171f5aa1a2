//! Makes a decoder of the Llama kind with random weights and compiles it: for speed and memory, which do not depend on what a network
//! has learned.
//!
//! `cargo run --release -p snnc-examples --example make_llama -- --size smol -o smol.snn`

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc::convert::{ConvertOptions, Sample, spiking};
use snnc_examples::llama::{self, LlamaConfig};
use snnc_ir::Curve;
use snnc_ir::container::{self, File};
use snnc_ir::op::Pairs;
use snnc_passes::options::QuantOptions;
use std::error::Error;
use std::io::{BufWriter, Write};

/// Write a compiled Llama with random weights
#[derive(Parser)]
struct LlamaArguments {
    /// The model whose sizes the other options change: tiny or smol
    #[arg(long, default_value = "smol", value_parser = LlamaConfig::named)]
    size: LlamaConfig,
    #[arg(long)]
    layers: Option<usize>,
    #[arg(long)]
    vocabulary: Option<usize>,
    #[arg(long)]
    context: Option<usize>,
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Tokens that a query sees
    #[arg(long)]
    window: Option<u32>,
    /// Channels of a head that are turned by the position
    #[arg(long)]
    turned: Option<usize>,
    /// half or interleaved
    #[arg(long, value_parser = pairs)]
    pairs: Option<Pairs>,
    /// Normalise every head of queries and keys
    #[arg(long)]
    qk_norm: bool,
    /// The curve of the gate: silu, gelu_tanh, gelu_erf, gelu_quick, relu or identity
    #[arg(long, value_parser = curve)]
    curve: Option<Curve>,
    /// Tokens that ranges are measured on
    #[arg(long, default_value_t = 512)]
    calibration_tokens: usize,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The .snn file to write
    #[arg(short, long)]
    output: String,
}

fn pairs(name: &str) -> Result<Pairs, String> {
    Pairs::from_name(name).ok_or_else(|| "half or interleaved was expected".to_string())
}

fn curve(name: &str) -> Result<Curve, String> {
    Curve::from_name(name).ok_or_else(|| format!("one of {} was expected", Curve::ALL.map(Curve::name).join(", ")))
}

impl LlamaArguments {
    fn config(&self) -> LlamaConfig {
        let size = self.size;
        LlamaConfig {
            layers: self.layers.unwrap_or(size.layers),
            vocabulary: self.vocabulary.unwrap_or(size.vocabulary),
            context: self.context.unwrap_or(size.context),
            kv_heads: self.kv_heads.unwrap_or(size.kv_heads),
            window: self.window.or(size.window),
            turned: self.turned.unwrap_or(size.turned),
            pairs: self.pairs.unwrap_or(size.pairs),
            qk_norm: self.qk_norm || size.qk_norm,
            curve: self.curve.unwrap_or(size.curve),
            ..size
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = LlamaArguments::parse();
    let tensor = llama::graph(&arguments.config())?;
    let LlamaArguments { calibration_tokens, threads, output, .. } = arguments;
    let options = ConvertOptions { quant: QuantOptions::default(), calibration_tokens, threads };
    let converted = spiking(tensor, &Sample::SeededIds, &options, &mut |_, _, _| {})
        .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(&output)?);
    container::write(&File::new(converted.graph), &mut out)?;
    out.flush()?;
    println!("{output}: {} bytes", std::fs::metadata(&output)?.len());
    Ok(())
}
