//! `snnc show`: the IR of a program, or of an ONNX file or a folder up to a pass.

use crate::args::{EngineArgs, OnnxArgs, ThreadArgs, WhichEngine};
use crate::output::emit;
use crate::plan::PlanArgs;
use clap::Args;
use similar::TextDiff;
use snnc::convert::{self, CALIBRATION_WINDOW, ConvertOptions, Sample};
use snnc::file_use::FileUse;
use snnc::files::Model;
use snnc::front;
use snnc::model::ModelSource;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, text};
use snnc_passes::options::QuantOptions;
use snnc_passes::{Pass, STANDARD, collapse, front_and_back};
use std::path::PathBuf;

/// Print the IR of a .snn program, or of an ONNX file or a folder up to a pass
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc show model.onnx --until quantise --diff
  snnc show model.snn --emit asm")]
pub struct ShowCommand {
    /// The .snn or .onnx file, or a folder with a network
    model: PathBuf,
    /// Last pass to run.
    ///
    /// For an ONNX file: imported, raise, simplify, quantise, spike, fold or tie_embedding. For a .snn file, which has been through all of these: collapse.
    #[arg(long, value_name = "PASS", conflicts_with = "PlanArgs")]
    until: Option<String>,
    /// Show what the last pass changed
    #[arg(long, conflicts_with = "PlanArgs")]
    diff: bool,
    /// Costs of reading weight rows on this machine, from `snnc bench --measure-kernel-costs`
    #[arg(long, value_name = "FILE", requires = "PlanArgs", help_heading = "Engine")]
    kernel_costs: Option<PathBuf>,
    /// Plan the program that runs every timestep, spike by spike
    #[arg(long, requires = "PlanArgs", help_heading = "Engine")]
    stepped: bool,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

impl ShowCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        self.plan.files(used.reads("--kernel-costs", &self.kernel_costs))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        if self.plan.asked() {
            return self.planned();
        }
        let (before, after) = match front::load(&self.model, &self.onnx.options()?)? {
            Model::Snn(file) => match self.until.as_deref() {
                None | Some("tie_embedding") => (None, file.graph),
                Some("collapse") => {
                    let after = collapse::collapse(&file.graph)?;
                    (Some(file.graph), after)
                }
                Some(other) => {
                    return Err(self.unknown(
                        other,
                        "a compiled program has been through all passes up to tie_embedding; collapse may follow",
                    ));
                }
            },
            Model::Dense(dense) => {
                let rounded = dense.rounds_activations();
                self.dense(dense.into_graph(), rounded)?
            }
        };
        match (self.diff, before) {
            (false, _) => emit(&text::print(&after)),
            (true, Some(before)) => emit(&diff(&text::print(&before), &text::print(&after))),
            (true, None) => Err(Diagnostic::new("--diff", "there is no pass to compare with; add --until PASS")
                .code(ErrorCode::OPTION)
                .into()),
        }
    }

    /// The network as it would run: collapsed unless stepped.
    fn planned(self) -> Result<(), Diagnostics> {
        let source = match front::load(&self.model, &self.onnx.options()?)? {
            Model::Snn(file) => ModelSource { graph: file.graph, rounded: false },
            Model::Dense(dense) => {
                let rounded = dense.rounds_activations();
                ModelSource { graph: dense.into_graph(), rounded }
            }
        };
        let engine = EngineArgs {
            which: WhichEngine { stepped: self.stepped, ..WhichEngine::default() },
            kernel_costs: self.kernel_costs,
        };
        let program = source.program(&ThreadArgs::default().of(engine.options()?))?;
        self.plan.show(&program, None, &mut emit)
    }

    fn unknown(&self, name: &str, known: &str) -> Diagnostics {
        Diagnostics::from(
            Diagnostic::new("--until", format!("there is no pass `{name}` here")).code(ErrorCode::OPTION).note(known),
        )
    }

    /// The graphs before and after the last pass that was asked for. Ranges, where a pass needs them, are those of seeded
    /// ids: the shape of the program does not depend on them.
    fn dense(&self, imported: Graph, rounded: bool) -> Result<(Option<Graph>, Graph), Diagnostics> {
        let until = self.until.as_deref().unwrap_or("simplify");
        if until == "imported" {
            return Ok((None, imported));
        }
        if !STANDARD.iter().any(|pass| pass.name == until) {
            let known: Vec<&str> = STANDARD.iter().map(|pass| pass.name).collect();
            return Err(self.unknown(until, &format!("there are imported, {}", known.join(", "))));
        }
        let mut seen = None;
        let mut watch = |pass: &Pass, before: &Graph, after: &Graph| {
            if pass.name == until {
                seen = Some((before.clone(), after.clone()));
            }
        };
        let (front, _) = front_and_back();
        if front.iter().any(|pass| pass.name == until) {
            convert::dense(imported, rounded, &mut watch)?;
        } else {
            let recipe =
                ConvertOptions { quant: QuantOptions::default(), calibration_tokens: CALIBRATION_WINDOW, threads: 1 };
            convert::convert(imported, rounded, &Sample::SeededIds, &recipe, &mut watch)?;
        }
        let (before, after) = seen.ok_or_else(|| self.unknown(until, "it was not reached"))?;
        Ok((Some(before), after))
    }
}

/// All lines, with `-` and `+` before those that differ.
fn diff(a: &str, b: &str) -> String {
    TextDiff::from_lines(a, b).iter_all_changes().map(|change| format!("{} {change}", change.tag())).collect()
}
