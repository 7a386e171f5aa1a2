//! `snnc inspect`: a run to look at, in the terminal.

use crate::output::{emit, emit_json};
use crate::report::Shown;
use crate::report_text;
use clap::Args;
use snnc::file_use::FileUse;
use snnc_ir::diagnostic::Diagnostics;

/// Print the essentials of a report in the terminal
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc inspect model.snn
  snnc inspect model.snn --text test.txt --reference model.onnx
  snnc inspect model.snn --text test.txt --json > run.json

Colours are for terminals, and never where NO_COLOR is set.")]
pub struct InspectCommand {
    #[command(flatten)]
    shown: Shown,
    /// Print everything that a page of `report` holds, as JSON
    #[arg(long)]
    json: bool,
}

impl InspectCommand {
    pub fn files(&self) -> FileUse {
        self.shown.files()
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let mut report = self.shown.report()?;
        report.provenance.command = self.shown.command("inspect", if self.json { " --json" } else { "" });
        if self.json { emit_json(&report) } else { emit(&report_text::text(&report)) }
    }
}
