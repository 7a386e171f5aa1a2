//! Makes a GPT-2 with random weights: for speed and memory, which do not depend on what a network has learned.
//!
//! `cargo run --release -p snnc-examples --example make_gpt2 -- --size small -o gpt2.onnx`

#![allow(clippy::print_stdout)]

use snnc_examples::gpt2::{self, Activation, Gpt2Config, Head};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const USAGE: &str =
    "usage: make_gpt2 [--size tiny|small|medium|large] [--layers N] [--width N] [--heads N] [--vocabulary N]
                 [--context N] [--activation gelu|gelu_erf|gelu_quick|relu|silu] [--opset 13|17]
                 [--head tied|copy|untied|none] [--inverse-layer-scale yes|no] [--outliers CHANNELS] [--external FILES]
                 [--seed N] -o FILE";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (config, path, external) = parse(&arguments).map_err(|message| format!("{message}\n{USAGE}"))?;
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

/// Options come in pairs; `--size` comes first, since it sets all the others.
fn parse(arguments: &[String]) -> Result<(Gpt2Config, String, usize), String> {
    let (mut config, mut path, mut external) = (Gpt2Config::SMALL, None, 0);
    for pair in arguments.chunks(2) {
        let [option, value] = pair else { return Err(format!("{} wants a value", pair[0])) };
        let number = || value.parse::<usize>().map_err(|_| format!("{option} wants a number, not {value}"));
        match (option.as_str(), value.as_str()) {
            ("--size", "tiny") => config = Gpt2Config::TINY,
            ("--size", "small") => config = Gpt2Config::SMALL,
            ("--size", "medium") => config = Gpt2Config::MEDIUM,
            ("--size", "large") => config = Gpt2Config::LARGE,
            ("--layers", _) => config.layers = number()?,
            ("--width", _) => config.width = number()?,
            ("--heads", _) => config.heads = number()?,
            ("--vocabulary", _) => config.vocabulary = number()?,
            ("--context", _) => config.context = number()?,
            ("--opset", _) => config.opset = number()? as i64,
            ("--seed", _) => config.seed = number()? as u64,
            ("--activation", "gelu") => config.activation = Activation::GeluTanh,
            ("--activation", "gelu_erf") => config.activation = Activation::GeluErf,
            ("--activation", "relu") => config.activation = Activation::Relu,
            ("--activation", "silu") => config.activation = Activation::Silu,
            ("--activation", "gelu_quick") => config.activation = Activation::GeluQuick,
            ("--head", "tied") => config.head = Head::Tied,
            ("--head", "copy") => config.head = Head::Copied,
            ("--head", "untied") => config.head = Head::Untied,
            ("--head", "none") => config.head = Head::Missing,
            ("--inverse-layer-scale", "yes") => config.inverse_layer_scale = true,
            ("--inverse-layer-scale", "no") => config.inverse_layer_scale = false,
            ("--outliers", _) => config.outliers = number()?,
            ("--external", _) => external = number()?,
            ("-o", path_given) => path = Some(path_given.to_string()),
            _ => return Err(format!("{option} {value} is not known")),
        }
    }
    Ok((config, path.ok_or("-o is missing")?, external))
}
