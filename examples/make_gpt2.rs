//! Makes a GPT-2 with random weights: for speed and memory, which do not depend on what a network has learned.
//!
//! `cargo run --release -p snnc-examples --example make_gpt2 -- --size small -o gpt2.onnx`

#![allow(clippy::print_stdout)]

use snnc_examples::gpt2::{self, Activation, Gpt2Config};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};

const USAGE: &str =
    "usage: make_gpt2 [--size tiny|small|medium|large] [--layers N] [--width N] [--heads N] [--vocabulary N]
                 [--context N] [--activation gelu|gelu_erf|relu] [--opset 13|17] [--head tied|copy] [--seed N] -o FILE";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (config, path) = parse(&arguments).map_err(|message| format!("{message}\n{USAGE}"))?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    gpt2::write(&config, &mut out)?;
    out.flush()?;
    println!("{path}: {} parameters, {} bytes", config.parameters(), std::fs::metadata(&path)?.len());
    Ok(())
}

/// Options come in pairs; `--size` comes first, since it sets all the others.
fn parse(arguments: &[String]) -> Result<(Gpt2Config, String), String> {
    let (mut config, mut path) = (Gpt2Config::SMALL, None);
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
            ("--head", "tied") => config.tied = true,
            ("--head", "copy") => config.tied = false,
            ("-o", path_given) => path = Some(path_given.to_string()),
            _ => return Err(format!("{option} {value} is not known")),
        }
    }
    Ok((config, path.ok_or("-o is missing")?))
}
