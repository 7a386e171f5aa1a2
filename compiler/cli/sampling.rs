//! Options of `snnc run` and `snnc chat`: how tokens are chosen, and where a text ends.

use crate::units::si;
use clap::Args;
use snnc::option_values::{self, min_p, repeat_penalty, temperature, top_p};
use snnc::sliding::OnFull;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Graph};
use snnc_runtime::sample::REPEAT_WINDOW;
use snnc_runtime::{SampleOptions, sequence_bytes};

/// How tokens are chosen.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Sampling")]
pub struct SampleArgs {
    /// Sampling temperature. 0 takes the likeliest token; higher values are more varied
    #[arg(long, visible_alias = "temp", default_value_t = 0.0, value_parser = temperature)]
    temperature: f32,
    /// Draw only from the K likeliest tokens; 0 draws from all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw only from the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = top_p)]
    top_p: f32,
    /// Draw only from tokens at least P times as probable as the likeliest; 0 draws from all
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = min_p)]
    min_p: f32,
    /// Divide the logits of tokens among the last --repeat-window by X, or multiply those below zero; 1 changes nothing
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = repeat_penalty)]
    repeat_penalty: f32,
    /// Last tokens that --repeat-penalty looks at, those of the prompt included
    #[arg(long, value_name = "N", default_value_t = REPEAT_WINDOW)]
    repeat_window: usize,
    /// Seed of the sampling: the same seed gives the same text
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
}

impl SampleArgs {
    /// The options for the library.
    pub fn options(self) -> SampleOptions {
        let Self { temperature, top_k, top_p, min_p, repeat_penalty, repeat_window, seed } = self;
        SampleOptions { temperature, top_k, top_p, min_p, repeat_penalty, repeat_window, seed }
    }
}

/// Where a text ends.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "End of a text")]
pub struct EndArgs {
    /// Stop before this text
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// When the context is full: stop, or drop the oldest half after the start token and run the rest again (slide)
    #[arg(long, value_name = "stop|slide", default_value = "stop")]
    pub on_full: OnFull,
    /// Context in tokens, at most the program's own.
    ///
    /// Of an ONNX file with rotary positions it is how long their tables are, which is what its configuration says without
    /// this option, at most 4096.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
}

/// Tokens to write, at most; `None`: until the text or the context ends.
#[derive(Clone, Copy, Debug)]
pub struct MostTokens(pub Option<usize>);

impl EndArgs {
    /// Refuses a text that never has to end.
    ///
    /// # Errors
    /// Neither the number of tokens nor the context ends it.
    pub fn check(&self, most: MostTokens) -> Result<(), Diagnostics> {
        if most.0.is_some() || self.on_full == OnFull::Stop {
            return Ok(());
        }
        let what = "with --on-full slide a text may have no end";
        Err(Diagnostic::new("-n -1", what).code(ErrorCode::OPTION).note("give a number of tokens").into())
    }
}

/// A number of tokens, or -1.
pub fn most_tokens(text: &str) -> Result<MostTokens, String> {
    option_values::most_tokens(text).map(MostTokens)
}

/// How long the context is, and what a full one takes.
pub fn context_in_words(graph: &Graph) -> String {
    let bytes = si(sequence_bytes(graph) as f64, "B");
    format!("a context of {} tokens, whose state takes {bytes} when it is full", graph.context)
}
