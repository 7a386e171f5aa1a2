//! `snnc show`: the IR of a program, or of an ONNX file or a folder up to a pass.

use crate::args::{EngineArgs, OnnxArgs, ThreadArgs, WhichEngine};
use crate::output::emit;
use crate::plan::PlanArgs;
use clap::Args;
use similar::TextDiff;
use snnc::file_use::FileUse;
use snnc::files::Model;
use snnc::front;
use snnc::model::ModelSource;
use snnc::stages::{StagesShown, shown};
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, text};
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
        let StagesShown { before, after } = shown(&self.model, &self.onnx.options()?, self.until.as_deref())?;
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
}

/// All lines, with `-` and `+` before those that differ.
fn diff(a: &str, b: &str) -> String {
    TextDiff::from_lines(a, b).iter_all_changes().map(|change| format!("{} {change}", change.tag())).collect()
}
