//! Makes a GPT-2 with random weights: for speed and memory, which do not depend on what a network has learned.
//!
//! `cargo run --release -p snnc-examples --example make_gpt2 -- --size small -o gpt2.onnx`

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc_examples::gpt2::{self, Activation, Gpt2Config, HeadExport};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Write a GPT-2 with random weights as an ONNX file
#[derive(Parser)]
struct MakeArguments {
    /// The model whose sizes the other options change: tiny, small, medium or large
    #[arg(long, default_value = "small", value_parser = Gpt2Config::named)]
    size: Gpt2Config,
    #[arg(long)]
    layers: Option<usize>,
    #[arg(long)]
    width: Option<usize>,
    #[arg(long)]
    heads: Option<usize>,
    #[arg(long)]
    vocabulary: Option<usize>,
    #[arg(long)]
    context: Option<usize>,
    /// gelu, gelu_erf, gelu_quick, relu or silu
    #[arg(long, value_parser = activation)]
    activation: Option<Activation>,
    /// 13 or 17
    #[arg(long)]
    opset: Option<i64>,
    /// tied, copy, untied or none
    #[arg(long, value_parser = head)]
    head: Option<HeadExport>,
    /// Divide the scores of layer N by N: yes or no
    #[arg(long, value_parser = yes_or_no)]
    inverse_layer_scale: Option<bool>,
    /// Channels of the residual stream that are far larger than the others
    #[arg(long)]
    outliers: Option<usize>,
    /// Files beside the model that hold the weights
    #[arg(long, default_value_t = 0)]
    external: usize,
    #[arg(long)]
    seed: Option<u64>,
    /// The ONNX file to write
    #[arg(short, long)]
    output: String,
}

fn one_of<T: Copy>(name: &str, all: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
    let found = all.iter().find(|(other, _)| *other == name);
    found.map(|(_, value)| *value).ok_or_else(|| format!("one of {} was expected", names.join(", ")))
}

fn activation(name: &str) -> Result<Activation, String> {
    use Activation::{GeluErf, GeluQuick, GeluTanh, Relu, Silu};
    let all = [("gelu", GeluTanh), ("gelu_erf", GeluErf), ("gelu_quick", GeluQuick), ("relu", Relu), ("silu", Silu)];
    one_of(name, &all)
}

fn head(name: &str) -> Result<HeadExport, String> {
    use HeadExport::{Copied, Missing, Tied, Untied};
    one_of(name, &[("tied", Tied), ("copy", Copied), ("untied", Untied), ("none", Missing)])
}

fn yes_or_no(name: &str) -> Result<bool, String> {
    one_of(name, &[("yes", true), ("no", false)])
}

impl MakeArguments {
    fn config(&self) -> Gpt2Config {
        let size = self.size;
        Gpt2Config {
            layers: self.layers.unwrap_or(size.layers),
            width: self.width.unwrap_or(size.width),
            heads: self.heads.unwrap_or(size.heads),
            vocabulary: self.vocabulary.unwrap_or(size.vocabulary),
            context: self.context.unwrap_or(size.context),
            activation: self.activation.unwrap_or(size.activation),
            opset: self.opset.unwrap_or(size.opset),
            head: self.head.unwrap_or(size.head),
            inverse_layer_scale: self.inverse_layer_scale.unwrap_or(size.inverse_layer_scale),
            outliers: self.outliers.unwrap_or(size.outliers),
            seed: self.seed.unwrap_or(size.seed),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = MakeArguments::parse();
    let config = arguments.config();
    let MakeArguments { output: path, external, .. } = arguments;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let mut beside = Vec::new();
    for i in 0..external {
        let name = if external == 1 { format!("{path}.data") } else { format!("{path}.data.{i}") };
        let file: Box<dyn Write> = Box::new(BufWriter::with_capacity(1 << 20, File::create(&name)?));
        let location = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
        beside.push((location, file));
    }
    gpt2::write_beside(&config, &mut out, &mut beside)?;
    out.flush()?;
    println!("{path}: {} parameters, {} bytes", config.parameters(), std::fs::metadata(&path)?.len());
    Ok(())
}
