//! An estimate from files: a program on text, or at rates that are expected.

use super::measure::{MeasuredWindows, expected};
use super::prices::PriceList;
use super::{Estimate, Setting, estimate};
use crate::evaluate::{Window, WindowResults, WindowWork};
use crate::files;
use crate::front::OnnxOptions;
use crate::merge::{Shards, run_shard};
use crate::model::{EngineOptions, Loaded};
use crate::part::PartJson;
use crate::progress::{Progress, Workers};
use crate::ranks::{Alone, Ranks};
use crate::reading::{TextIds, ids_for};
use crate::shard::Shard;
use crate::tokens::start::StartChoice;
use serde_json::Value as Json;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Stage};
use snnc_passes::cost::{Activity, Rate};
use snnc_runtime::{Options, Program};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an estimate is told.
#[derive(Clone, Debug)]
pub struct EnergyOptions {
    /// The `.snn` file.
    pub model: PathBuf,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// The text, or a `.npy` file of token ids; without one, neurons are expected to fire as they did on the calibration text, and every key to be read.
    pub text: Option<PathBuf>,
    /// What stands before the text.
    pub start: StartChoice,
    /// Spikes per neuron and token to expect instead.
    pub firing_rate: Option<Rate>,
    /// Tokens of a window: prefill takes all of them, decoding comes after them. The network's context without a number.
    pub context: Option<u32>,
    /// MeasuredWindows, spread evenly over the text.
    pub windows: usize,
    /// Sequences that share a pass over the weights.
    pub batch: u64,
    /// Price lists.
    pub lists: Vec<PriceList>,
    /// Which engine runs it, and how.
    pub engine: EngineOptions,
    /// Windows that run at once; the result does not depend on it.
    pub threads: usize,
    /// Processes that share the windows; the result does not depend on their number.
    pub ranks: &'static dyn Ranks,
}

impl EnergyOptions {
    /// At the rates of the calibration text, by all built-in price lists.
    pub fn new(model: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            onnx: OnnxOptions::default(),
            text: None,
            start: StartChoice::Auto,
            firing_rate: None,
            context: None,
            windows: 8,
            batch: 1,
            lists: PriceList::built_in(),
            engine: EngineOptions::default(),
            threads: crate::model::threads_or_all(None),
            ranks: &Alone,
        }
    }
}

/// Estimates what a program costs.
///
/// # Errors
/// What cannot be read or run; a context beyond the network's; a request to stop.
pub fn energy(options: &EnergyOptions, progress: &dyn Progress) -> Result<Estimate, Diagnostics> {
    let loaded = checked(options)?;
    if options.text.is_some() {
        let prepared = PreparedEnergy::new(options, &loaded, progress)?;
        let results = prepared.work().run()?;
        return Ok(prepared.estimate(&results));
    }
    let setting = setting(options, &loaded);
    let section = loaded.calibration.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
    let graph = &loaded.source.graph;
    let activity = expected(graph, section.as_ref(), options.firing_rate, setting.context)
        .map_err(|diagnostics| files::at(&options.model, diagnostics))?;
    progress.status("no text: firing rates are expected, not measured, and every key is taken to be read");
    Ok(Estimate { measured: false, ..estimate(graph, &activity, setting, options.lists.clone()) })
}

/// What a shard of the windows does, for `energy_merged`.
///
/// # Errors
/// As of `energy`; there is no text.
pub fn energy_shard(options: &EnergyOptions, shard: Shard, progress: &dyn Progress) -> Result<PartJson, Diagnostics> {
    let loaded = checked(options)?;
    run_shard(&PreparedEnergy::new(options, &loaded, progress)?.work(), shard)
}

/// What `energy` gives, from shards that were run before.
///
/// # Errors
/// As of `energy`; shards of another run.
pub fn energy_merged(
    options: &EnergyOptions,
    shards: &Shards,
    progress: &dyn Progress,
) -> Result<Estimate, Diagnostics> {
    let loaded = checked(options)?;
    let prepared = PreparedEnergy::new(options, &loaded, progress)?;
    let results = shards.results(&prepared.work())?;
    Ok(prepared.estimate(&results))
}

/// The model, which the options fit.
fn checked(options: &EnergyOptions) -> Result<Loaded, Diagnostics> {
    let loaded = Loaded::read(&options.model, &options.onnx)?;
    let place = options.model.display().to_string();
    if loaded.source.graph.stage != Stage::Spiking {
        let message = "is a dense network, which has no spikes to count; compile it first";
        return Err(Diagnostic::new(place, message).into());
    }
    let most = loaded.source.graph.context;
    if let Some(context) = options.context.filter(|context| *context > most) {
        let message = format!("--context {context} is more than the network's context of {most}");
        return Err(Diagnostic::new(place, message).into());
    }
    let neurons = loaded.source.graph.nodes.iter().filter(|node| node.op.is_neuron());
    let steps = neurons.filter_map(|node| node.ty.levels()).map(|(_, steps)| steps).max().unwrap_or(0);
    if let Some(rate) = options.firing_rate.filter(|rate| rate.spikes > f64::from(steps)) {
        let message = format!("{} spikes per neuron are more than the {steps} timesteps of this program", rate.spikes);
        return Err(Diagnostic::new("--firing-rate", message).code(ErrorCode::OPTION).into());
    }
    Ok(loaded)
}

fn setting(options: &EnergyOptions, loaded: &Loaded) -> Setting {
    let context = options.context.unwrap_or(loaded.source.graph.context);
    Setting { context: context.into(), batch: options.batch, span: Options::default().chunk as u64 }
}

/// A program that is ready to run on the windows of a text.
struct PreparedEnergy<'a> {
    options: &'a EnergyOptions,
    setting: Setting,
    program: [Arc<Program>; 1],
    text: TextIds,
    windows: Vec<Window>,
    workers: Workers<'a>,
}

impl<'a> PreparedEnergy<'a> {
    fn new(options: &'a EnergyOptions, loaded: &Loaded, progress: &'a dyn Progress) -> Result<Self, Diagnostics> {
        let Some(text) = &options.text else {
            let message = "there is no text to run: rates are expected without one, and nothing is shared out";
            let note = "name a text with --text, or token ids with --tokens";
            return Err(Diagnostic::new("--shard", message).code(ErrorCode::OPTION).note(note).into());
        };
        let setting = setting(options, loaded);
        let context = setting.context as usize;
        let tokens = loaded.tokens_if_any(&options.start)?;
        let cut = MeasuredWindows { length: context, count: options.windows }.cut();
        let text = ids_for(&loaded.ids(text, tokens.as_ref())?, context, cut)?;
        let program = [loaded.source.clone().program(&EngineOptions { count: true, ..options.engine })?];
        let windows = text.cut(context, cut);
        let workers = Workers { threads: options.threads, progress, ranks: options.ranks };
        Ok(Self { options, setting, program, text, windows, workers })
    }

    fn work(&self) -> WindowWork<'_> {
        let (ids, ranges) = (&self.text.ids, &self.windows);
        WindowWork { programs: &self.program, dense: None, ids, ranges, workers: self.workers }
    }

    fn estimate(&self, results: &WindowResults) -> Estimate {
        let tokens = self.windows.iter().map(|window| window.inputs.len() as u64).sum();
        let activity = Activity { tokens, events: results.events.iter().flatten().copied().collect() };
        estimate(self.program[0].graph(), &activity, self.setting, self.options.lists.clone())
    }
}
