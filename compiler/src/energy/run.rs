//! An estimate from files: a program on text, or at rates that are expected.

use super::measure::{MeasuredWindows, expected};
use super::prices::PriceList;
use super::{Estimate, Setting, estimate};
use crate::evaluate::evaluate_windows;
use crate::files;
use crate::front::OnnxOptions;
use crate::model::{EngineOptions, Loaded};
use crate::progress::{Progress, Workers};
use crate::reading::ids_for;
use crate::tokens::start::StartChoice;
use serde_json::Value as Json;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Stage};
use snnc_passes::cost::Rate;
use snnc_runtime::Options;
use std::path::{Path, PathBuf};

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
        }
    }
}

/// Estimates what a program costs.
///
/// # Errors
/// What cannot be read or run; a context beyond the network's; a request to stop.
pub fn energy(options: &EnergyOptions, progress: &dyn Progress) -> Result<Estimate, Diagnostics> {
    let loaded = Loaded::read(&options.model, &options.onnx)?;
    let place = options.model.display().to_string();
    if loaded.source.graph.stage != Stage::Spiking {
        let message = "is a dense network, which has no spikes to count; compile it first";
        return Err(Diagnostic::new(place, message).into());
    }
    let most = loaded.source.graph.context;
    let context = options.context.unwrap_or(most);
    if context > most {
        let message = format!("--context {context} is more than the network's context of {most}");
        return Err(Diagnostic::new(place, message).into());
    }
    let neurons = loaded.source.graph.nodes.iter().filter(|node| node.op.is_neuron());
    let steps = neurons.filter_map(|node| node.ty.levels()).map(|(_, steps)| steps).max().unwrap_or(0);
    if let Some(rate) = options.firing_rate.filter(|rate| rate.spikes > f64::from(steps)) {
        let message = format!("{} spikes per neuron are more than the {steps} timesteps of this program", rate.spikes);
        return Err(Diagnostic::new("--firing-rate", message).code(ErrorCode::OPTION).into());
    }
    let setting = Setting { context: context.into(), batch: options.batch, span: Options::default().chunk as u64 };
    let lists = options.lists.clone();
    let Some(text) = &options.text else {
        let section = loaded.calibration.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
        let graph = &loaded.source.graph;
        let activity = expected(graph, section.as_ref(), options.firing_rate, setting.context)
            .map_err(|diagnostics| files::at(&options.model, diagnostics))?;
        progress.status("no text: firing rates are expected, not measured, and every key is taken to be read");
        return Ok(Estimate { measured: false, ..estimate(graph, &activity, setting, lists) });
    };
    let tokens = loaded.tokens_if_any(&options.start)?;
    let cut = MeasuredWindows { length: context as usize, count: options.windows }.cut();
    let read = ids_for(&loaded.ids(text, tokens.as_ref())?, context as usize, cut)?;
    let program = loaded.source.program(&EngineOptions { count: true, ..options.engine })?;
    let windows = read.cut(context as usize, cut);
    let workers = Workers { threads: options.threads, progress };
    let done = evaluate_windows(&program, None, &read.ids, &windows, workers)?;
    Ok(estimate(program.graph(), &done.activity(), setting, lists))
}
