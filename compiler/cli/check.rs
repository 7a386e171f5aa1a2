//! `snnc check`: whether a file can be compiled, and all that is in the way.

use crate::args::OnnxArgs;
use crate::output::{emit, emit_json, warn};
use crate::units::si;
use clap::Args;
use snnc::check::{CheckJson, check};
use snnc::file_use::FileUse;
use snnc_ir::diagnostic::Diagnostics;
use std::path::PathBuf;

/// Check whether an ONNX file or a Hugging Face folder can be compiled, and describe its network
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc check model.onnx
  snnc check SmolLM2-135M-Instruct --json")]
pub struct CheckCommand {
    /// An ONNX file, or a Hugging Face folder
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    onnx: OnnxArgs,
}

impl CheckCommand {
    pub fn files(&self) -> FileUse {
        self.onnx.files(FileUse::default()).reads_models("the model", [&self.model])
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let checked = self.onnx.options().and_then(|options| check(&self.model, &options));
        if self.json {
            emit_json(&CheckJson::of(&checked))?;
            return checked.map(drop);
        }
        let checked = checked?;
        checked.warnings.iter().for_each(|warning| warn(warning));
        let mut rows = vec![("file", checked.file.line())];
        rows.extend(checked.network.lines());
        let estimate = checked.estimate();
        let memory = si(estimate.bytes as f64, "B");
        rows.push((
            "compile",
            format!("about {:.0} s and {memory} of memory; longer with less", estimate.seconds.ceil()),
        ));
        let rows: String = rows.iter().map(|(name, text)| format!("  {name:<11} {text}\n")).collect();
        emit(&format!("{}: a network that snnc compiles\n{rows}", self.model.display()))
    }
}
