//! `snnc compile`: ONNX in, `.snn` out.

use crate::args::{OnnxArgs, StartArgs};
use crate::bar::Bar;
use crate::output::{emit, status, warn};
use crate::quant_args::QuantArgs;
use crate::sampling::context_in_words;
use crate::units::{percent, si};
use clap::Args;
use snnc::compile::{CompileOptions, CompiledModel, compile};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::memory_budget::MemoryBudget;
use snnc::model::threads_or_all;
use snnc::option_values::{calibration_tokens, threads};
use snnc::recipe::CompileRecipe;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Graph, text};
use snnc_passes::STANDARD;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Convert a language model, an ONNX file or a Hugging Face folder, to a spiking network
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc compile model.onnx -o model.snn --calibrate sample.txt
  snnc compile SmolLM2-135M-Instruct --preset accurate -o smol.snn
  snnc compile model.onnx --timesteps 4,mlp.hidden=5 -o model.snn
  snnc compile model.onnx --recipe recipe.toml -o model.snn")]
pub struct CompileCommand {
    /// An ONNX file, or a Hugging Face folder
    model: PathBuf,
    /// Output file [default: the model's name with .snn, in the current folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Tokenizer to keep in the program: tokenizer.json, vocab.json with merges.txt beside it, or a folder of these.
    /// [default: the one beside the model]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Context of the program in tokens [default: the file's own].
    ///
    /// Of a network with rotary positions it is how long their tables are; without this option it is what the configuration beside
    /// the model says, at most 4096.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Print the IR after a pass, such as `ir=raise`. `ir=imported` is the graph before the first pass
    #[arg(long, value_name = "ir=PASS", value_parser = emitted)]
    emit: Vec<String>,
    /// Text, or .npy file of token ids ([n] or [texts, n]), to measure activation ranges on [default: a built-in text]
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    calibrate: Option<PathBuf>,
    /// Calibration tokens [default: 16384; fewer for networks of more than 90 M weights]
    #[arg(long, value_name = "N", value_parser = calibration_tokens, help_heading = "Text")]
    calibration_tokens: Option<usize>,
    /// A recipe: options of the conversion in a TOML file, as `snnc tune --save` writes it.
    ///
    /// It stands instead of the options below.
    #[arg(long, value_name = "FILE.toml", conflicts_with = "QuantArgs", help_heading = "Conversion")]
    recipe: Option<PathBuf>,
    /// Threads for calibration; the result does not depend on them
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    quant: QuantArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
}

fn emitted(text: &str) -> Result<String, String> {
    let known = || STANDARD.iter().map(|pass| pass.name).collect::<Vec<_>>().join(", ");
    let name = text.strip_prefix("ir=").ok_or("it is written ir=PASS")?;
    let fits = name == "imported" || STANDARD.iter().any(|pass| pass.name == name);
    if fits { Ok(name.to_string()) } else { Err(format!("there is no pass `{name}`; there are imported, {}", known())) }
}

impl CompileCommand {
    pub fn files(&self) -> FileUse {
        let used = self
            .onnx
            .files(FileUse::default())
            .reads_models("the model", [&self.model])
            .reads("--tokenizer", &self.tokenizer);
        let used = used.reads("--calibrate", &self.calibrate).reads("--recipe", &self.recipe);
        used.writes("-o", [self.output()])
    }

    fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| files::default_output(&self.model, "snn"))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let start = Instant::now();
        let output = self.output();
        let recipe = self.recipe.as_deref().map(CompileRecipe::read).transpose()?;
        let options = CompileOptions {
            model: self.model.clone(),
            tokenizer: self.tokenizer.clone(),
            start: self.start.start.clone(),
            calibrate: self.calibration_file(recipe.as_ref())?,
            calibration_tokens: self.calibration_tokens.or_else(|| recipe.as_ref()?.calibration_tokens()),
            quant: match &recipe {
                Some(recipe) => recipe.options()?.options()?,
                None => self.quant.options()?,
            },
            onnx: OnnxOptions { context: self.context, ..self.onnx.options()? },
            threads: threads_or_all(self.threads),
            memory: MemoryBudget::beside(&output),
        };
        let mut dumps = String::new();
        let compiled = compile(&options, &Bar::default(), &mut |pass: &str, graph: &Graph| {
            if self.emit.iter().any(|name| name == pass) {
                dumps += &text::print(graph);
            }
        });
        // A graph that was refused is worth seeing, so dumps come before the error; but a program comes before its dumps, which
        // a reader may not want to the end.
        let bytes = match &compiled {
            Ok(compiled) => compiled.write(&output)?,
            Err(_) => 0,
        };
        emit(&dumps)?;
        summary(&compiled?, &output, bytes, start.elapsed().as_secs_f64());
        Ok(())
    }
}

impl CompileCommand {
    /// What ranges are measured on: what the user names, else what the recipe does.
    fn calibration_file(&self, recipe: Option<&CompileRecipe>) -> Result<Option<PathBuf>, Diagnostics> {
        let Some(recipe) = recipe.filter(|_| self.calibrate.is_none()) else { return Ok(self.calibrate.clone()) };
        let (file, warning) = recipe.calibration_file();
        warning.iter().for_each(|warning| warn(warning));
        self.files().reads("the calibration text of the recipe", &file).check()?;
        Ok(file)
    }
}

fn summary(compiled: &CompiledModel, output: &Path, bytes: u64, seconds: f64) {
    let CompiledModel { options, calibration, .. } = compiled;
    let (output, size) = (output.display(), si(bytes as f64, "B"));
    status(&format!("{output}: {size}, {options}, calibrated on {}, in {seconds:.1} s", calibration.source));
    status(&context_in_words(&compiled.collapsed()));
    let Some(lists) = compiled.expected_savings() else { return };
    let beside = |(name, share): &(&str, f64)| format!("{} % against {name}", percent(Some(*share)));
    let of = |(list, savings): &(String, Vec<(&str, f64)>)| {
        format!("{} by `{list}`", savings.iter().map(beside).collect::<Vec<String>>().join(", "))
    };
    let lists = lists.iter().map(of).collect::<Vec<String>>().join("; ");
    status(&format!("expected saving of energy in a prompt: {lists}; `snnc energy` has what is counted"));
}
