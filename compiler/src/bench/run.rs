//! A measurement of a file: load, first token, prefill, decode and memory; and figures against an earlier one.

use super::machine::{memory_read_gb_per_s, peak_rss_mb};
use super::speeds::{SpeedOptions, Speeds, density, first_token, measure, weight_bytes};
use super::variants::{with_context, with_density};
use crate::files;
use crate::front::{self, OnnxOptions};
use crate::model::{EngineOptions, ModelSource};
use crate::progress::{Progress, cancelled};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, Stage};
use snnc_runtime::Program;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a measurement is told.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The `.snn` file.
    pub model: PathBuf,
    /// What to measure.
    pub speeds: SpeedOptions,
    /// Threads, kernel costs, and whether events are counted.
    pub engine: EngineOptions,
    /// Measure the form that runs every timestep as well.
    pub stepped: bool,
    /// Make this share of all neurons fire, once each, whatever they read.
    pub density: Option<f64>,
    /// Let sequences have so many tokens.
    pub context: Option<u32>,
}

/// A measurement as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BenchJson {
    /// The program's file.
    pub model: String,
    /// Threads; no result depends on their number.
    pub threads: usize,
    /// Milliseconds until the program is loaded and planned; and until its first token.
    pub load_ms: f64,
    /// Milliseconds until the first token.
    pub first_token_ms: f64,
    /// Collapsed, where they were measured.
    pub prefill_128_tokens_per_s: Option<f64>,
    /// The same of a prompt of 1024 tokens.
    pub prefill_1024_tokens_per_s: Option<f64>,
    /// Past 128 tokens.
    pub decode_tokens_per_s: Option<f64>,
    /// What this machine reads from memory, in order.
    pub memory_read_gb_per_s: Option<f64>,
    /// Weights that decoding reads per second, as a share of what memory gives.
    pub decode_share_of_memory: Option<f64>,
    /// Tokens that were decoded at each depth.
    pub decoded_tokens: usize,
    /// The most memory that the process has held.
    pub peak_rss_mb: Option<f64>,
    /// Bytes of weights that one token's decoding reads.
    pub weight_bytes: usize,
    /// The share of neurons that fire at a timestep.
    pub density: f64,
    /// Speeds of the collapsed program.
    pub collapsed: Speeds,
    /// Speeds of the program that runs every timestep, where it was measured.
    pub stepped: Option<Speeds>,
}

/// Who is shown every program that was measured.
pub type ProgramWatch<'a> = dyn FnMut(&Arc<Program>) -> Result<(), Diagnostics> + 'a;

/// Measures a program.
///
/// # Errors
/// It cannot be read or run; a request to stop.
pub fn bench(
    options: &BenchOptions,
    progress: &dyn Progress,
    watch: &mut ProgramWatch<'_>,
) -> Result<BenchJson, Diagnostics> {
    let program = |stepped| {
        let source = ModelSource { graph: graph(options)?, rounded: false };
        source.program(&EngineOptions { stepped, ..options.engine })
    };
    let ([load_ms, first_token_ms], fast) = first_token(&|| program(false))?;
    let collapsed = measure(&fast, &options.speeds)?;
    let peak_rss_mb = peak_rss_mb();
    let weight_bytes = weight_bytes(fast.graph());
    let density = density(fast.graph(), 64)?;
    watch(&fast)?;
    drop(fast);
    if progress.is_cancelled() {
        return Err(cancelled().into());
    }
    let stepped = if options.stepped {
        let slow = program(true)?;
        let speeds = measure(&slow, &options.speeds)?;
        watch(&slow)?;
        Some(speeds)
    } else {
        None
    };
    let memory_read_gb_per_s = memory_read_gb_per_s(options.engine.threads);
    let decode = Speeds::at(&collapsed.decode, 128);
    let real = decode.filter(|_| options.density.is_none()).zip(memory_read_gb_per_s);
    Ok(BenchJson {
        model: options.model.display().to_string(),
        threads: options.engine.threads,
        load_ms,
        first_token_ms,
        prefill_128_tokens_per_s: Speeds::at(&collapsed.prefill, 128),
        prefill_1024_tokens_per_s: Speeds::at(&collapsed.prefill, 1024),
        decode_tokens_per_s: decode,
        memory_read_gb_per_s,
        decode_share_of_memory: real.map(|(rate, most)| rate * weight_bytes as f64 / 1e9 / most),
        decoded_tokens: options.speeds.decoded,
        peak_rss_mb,
        weight_bytes,
        density,
        collapsed,
        stepped,
    })
}

/// The program of the file, as it is to be measured.
fn graph(options: &BenchOptions) -> Result<Graph, Diagnostics> {
    let graph = match front::load(&options.model, &OnnxOptions::default())? {
        files::Model::Snn(file) if file.graph.stage == Stage::Spiking => file.graph,
        _ => {
            let place = options.model.display().to_string();
            return Err(Diagnostic::new(place, "is no .snn program").note("compile it first").into());
        }
    };
    let graph = match options.context {
        Some(context) => with_context(&graph, context)?,
        None => graph,
    };
    match options.density {
        Some(density) => with_density(&graph, density),
        None => Ok(graph),
    }
}

/// Figures that a baseline is compared by: whether more is better.
const FIGURES: [(&str, bool); 5] = [
    ("load_ms", false),
    ("prefill_128_tokens_per_s", true),
    ("prefill_1024_tokens_per_s", true),
    ("decode_tokens_per_s", true),
    ("peak_rss_mb", false),
];

/// A figure that is worse than the baseline allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Regression {
    /// Its name.
    pub name: &'static str,
    /// The figure.
    pub now: f64,
    /// The same in the baseline.
    pub before: f64,
    /// By how much it is worse, as a share.
    pub worse: f64,
}

/// An earlier measurement on the same machine.
#[derive(Clone, Debug)]
pub struct Baseline(Json);

impl Baseline {
    /// The JSON of a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no JSON.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        let text = files::read_text(path)?;
        let json = serde_json::from_str(&text).map_err(|e| {
            let message = format!("is no JSON of `snnc bench --json` ({e})");
            Diagnostic::new(path.display().to_string(), message)
        })?;
        Ok(Self(json))
    }

    /// The figures of `now` that are worse than these by more than a share of `most`.
    pub fn regressions(&self, now: &BenchJson, most: f64) -> Vec<Regression> {
        let now = serde_json::to_value(now).unwrap_or_default();
        let worse = |(name, more_is_better): (&'static str, bool)| {
            let (now, before) = (now[name].as_f64()?, self.0[name].as_f64()?);
            let worse = if more_is_better { before / now - 1.0 } else { now / before - 1.0 };
            (worse > most).then_some(Regression { name, now, before, worse })
        };
        FIGURES.into_iter().filter_map(worse).collect()
    }
}
