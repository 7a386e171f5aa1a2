//! Options that several subcommands have, and how they are read.

use clap::Args;
use snnc::file_use::FileUse;
use snnc::front::{InputBindings, OnnxOptions};
use snnc::kernel_costs;
use snnc::model::{EngineOptions, threads_or_all};
use snnc::option_values::{import_tolerance, threads};
use snnc::tokens::start::StartChoice;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::Engine;
use std::path::PathBuf;

/// Which engine runs a program, and how fast.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    #[command(flatten)]
    pub which: WhichEngine,
    /// Costs of reading weight rows on this machine, from `snnc bench --measure-kernel-costs`.
    ///
    /// They change the speed and no result.
    #[arg(long, value_name = "FILE")]
    pub kernel_costs: Option<PathBuf>,
}

/// Which engine runs a program. The numbers are the same.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub struct WhichEngine {
    /// Run machine code (the default)
    #[arg(long, conflicts_with = "interpret")]
    pub jit: bool,
    /// Run the reference interpreter, which gives the same results slowly
    #[arg(long)]
    pub interpret: bool,
    /// Run every timestep, spike by spike, instead of collapsing time. The results are the same
    #[arg(long)]
    pub stepped: bool,
}

/// Threads of one sequence.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub struct ThreadArgs {
    /// Threads of one sequence; no result depends on them [default: all cores]
    #[arg(short = 't', long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Pin each thread to a processor of its own
    #[arg(long)]
    pub pin: bool,
}

impl WhichEngine {
    /// On one thread, without counts.
    pub fn options(self) -> EngineOptions {
        let engine = if self.interpret { Engine::Interpreter } else { Engine::Jit };
        EngineOptions { engine, stepped: self.stepped, ..EngineOptions::default() }
    }
}

impl EngineArgs {
    /// On one thread, without counts.
    ///
    /// # Errors
    /// The file of kernel costs cannot be read, or is none.
    pub fn options(&self) -> Result<EngineOptions, Diagnostics> {
        let kernel_costs = self.kernel_costs.as_deref().map(kernel_costs::read).transpose()?;
        Ok(EngineOptions { kernel_costs, ..self.which.options() })
    }
}

impl EngineArgs {
    /// With the file that these options name.
    pub fn files(&self, used: FileUse) -> FileUse {
        used.reads("--kernel-costs", &self.kernel_costs)
    }
}

impl ThreadArgs {
    /// The same engine on these threads.
    pub fn of(self, options: EngineOptions) -> EngineOptions {
        EngineOptions { threads: threads_or_all(self.threads), pin: self.pin, ..options }
    }
}

/// What a user says of an ONNX file or a folder; a compiled program needs none of it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "ONNX files and folders")]
pub struct OnnxArgs {
    /// What an input of the ONNX file holds, beside the token ids; may be given several times.
    ///
    /// VALUE is ones, zeros, a number, positions (0, 1, 2...) or mask (every token may be seen). The sizes are those that
    /// the file declares.
    #[arg(long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// Largest allowed difference between the logits of the imported network and of the file, as a share of their range.
    ///
    /// Above 0, at most 1. [default: 0.001; 0.1 for files that round activations]
    #[arg(long, value_name = "SHARE", value_parser = import_tolerance)]
    import_tolerance: Option<f32>,
    /// Descriptions of architectures beside those of snnc, for Hugging Face folders: a TOML file.
    #[arg(long, value_name = "FILE")]
    architecture: Option<PathBuf>,
}

impl OnnxArgs {
    /// With the file that these options name.
    pub fn files(&self, used: FileUse) -> FileUse {
        used.reads("--architecture", &self.architecture)
    }

    /// The options for the library.
    ///
    /// # Errors
    /// An input that is not written NAME=VALUE.
    pub fn options(&self) -> Result<OnnxOptions, Diagnostics> {
        let inputs = InputBindings::parse(&self.inputs)
            .map_err(|message| Diagnostic::new("--input", message).code(ErrorCode::OPTION))?;
        let &Self { import_tolerance, ref architecture, .. } = self;
        Ok(OnnxOptions { inputs, import_tolerance, architectures: architecture.clone(), context: None })
    }
}

/// What stands before a text.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Text")]
pub struct StartArgs {
    /// Token before every text: its text or its id, `none`, or `auto`.
    ///
    /// `auto` is what the files beside the tokenizer say, else the token that the tokenizer names, else none. A program keeps
    /// what `auto` was when it was compiled.
    #[arg(long, value_name = "auto|none|TOKEN", default_value = "auto")]
    pub start: StartChoice,
}

/// Most sequences that share a pass. Beyond a few dozen, more texts at a time make nothing faster, and each has keys and values
/// of its own.
pub const BATCH_MAX: i64 = 256;
