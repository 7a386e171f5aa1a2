//! `snnc inspect`: a run to look at, in the terminal.

use crate::format::{self, Figures, Format, FormatArgs};
use crate::report::Shown;
use crate::report_text;
use crate::table::Grid;
use clap::Args;
use serde_json::Value as Json;
use snnc::file_use::FileUse;
use snnc::report::Report;
use snnc::run_record::RunRecord;
use snnc::schema::document;
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
    #[command(flatten)]
    format: FormatArgs,
}

impl InspectCommand {
    pub fn files(&self) -> FileUse {
        self.shown.files()
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let mut report = self.shown.report()?;
        let format = self.format.format();
        report.provenance.command = self.shown.command("inspect", if format == Format::Json { " --json" } else { "" });
        format::print(&Inspected(report), format)
    }
}

/// What is printed of a report. Its JSON has everything that a page of `report` has.
#[derive(Debug)]
struct Inspected(Report);

impl Figures for Inspected {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        document(&self.0, run)
    }

    fn text(&self) -> String {
        report_text::text(&self.0)
    }

    fn grids(&self) -> Vec<Grid> {
        let tokens = self.0.predictions.len().max(1) as f64;
        let caption = format!("Layers of neurons of {}, on {} tokens.", self.0.title, self.0.predictions.len());
        let header = ["site", "neurons", "T", "spikes per neuron"];
        let mut grid = Grid::new(caption, &header);
        for layer in &self.0.layers {
            let rate = layer.spikes as f64 / (layer.width as f64 * tokens);
            grid.rows.push(vec![
                layer.site.clone(),
                layer.width.to_string(),
                layer.timesteps.to_string(),
                format!("{rate:.3}"),
            ]);
        }
        vec![grid]
    }

    fn rows(&self, json: &Json) -> Vec<Json> {
        json["layers"].as_array().cloned().unwrap_or_default()
    }
}
