//! `snnc export`: a program in the format of another tool.

use crate::output::status;
use clap::{Args, ValueEnum};
use snnc::export::onnx;
use snnc::file_use::FileUse;
use snnc::files;
use snnc_ir::diagnostic::Diagnostics;
use std::path::PathBuf;

/// Formats of other tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// ONNX, for any runtime: time is collapsed, synapses are MatMulInteger
    Onnx,
}

/// Write a program in the format of another tool
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc export model.snn --to onnx -o spiking.onnx")]
pub struct ExportCommand {
    /// The .snn file
    model: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: ExportFormat,
    /// Output file
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
}

impl ExportCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().reads_models("the model", [&self.model]).writes("-o", [&self.output])
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let file = files::read_snn(&self.model)?;
        match self.to {
            ExportFormat::Onnx => {
                let exported = onnx::export(&file.graph)?;
                status(&exported.proof.line());
                let written = exported.write(&self.output)?;
                let data = if written.has_data_file { " with the weights in a file beside it" } else { "" };
                status(&format!("{}: {:.1} MB{data}", self.output.display(), written.bytes as f64 / 1e6));
            }
        }
        Ok(())
    }
}
