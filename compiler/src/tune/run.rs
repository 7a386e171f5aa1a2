//! A tuning run from files: the front of what can be had, and the cheapest point within a budget.

use super::journal::Journal;
use super::point::{Allocation, Goal, Point};
use super::search::{Candidate, TIMESTEPS, Tuner};
use crate::calibrate::{MomentText, calibrate, calibrate_with_moments, moment_tokens, read_sites};
use crate::compile::CompileOptions;
use crate::convert;
use crate::evaluate::Cut;
use crate::front::OnnxOptions;
use crate::ledger;
use crate::model::{Loaded, calibration_sample};
use crate::progress::{Progress, Workers};
use crate::quant_options::spelled;
use crate::ranks::{self, Alone, Ranks};
use crate::reading::ids_for;
use crate::rotation;
use crate::tokens::Tokens;
use crate::tokens::start::StartChoice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, text};
use snnc_passes::levels::Levels;
use snnc_passes::moments::SiteMoments;
use snnc_passes::options::{QuantOptions, Rotate, Rounding};
use snnc_runtime::{Options, Program};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// What a tuning run is told.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// The ONNX file.
    pub model: PathBuf,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// What may be spent.
    pub budget: Budget,
    /// What is to be small within a budget of perplexity.
    pub minimise: Goal,
    /// Text that points are measured on, or a `.npy` file of token ids.
    pub text: PathBuf,
    /// Windows of that text, spread evenly over it, of at most 512 tokens; 32 without a number, fewer for large networks.
    pub windows: Option<usize>,
    /// What stands before a text.
    pub start: StartChoice,
    /// Text or ids that levels are fitted to; a built-in one without one.
    pub calibrate: Option<PathBuf>,
    /// Tokens of that text to run; 16384 without a number, fewer for networks of more than 90 M weights.
    pub calibration_tokens: Option<usize>,
    /// Tokens that every site is probed on; 2048 without a number, fewer for large networks.
    pub probe_tokens: Option<usize>,
    /// Threads; the result does not depend on them.
    pub threads: usize,
    /// Processes that share the probes; the result does not depend on their number.
    pub ranks: &'static dyn Ranks,
    /// A file that keeps every measurement; a run goes on from those that it holds.
    pub journal: Option<PathBuf>,
}

impl TuneOptions {
    /// The least energy for 1 % of perplexity.
    pub fn new(model: &Path, text: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            onnx: OnnxOptions::default(),
            budget: Budget::Perplexity(0.01),
            minimise: Goal::Energy,
            text: text.to_path_buf(),
            windows: None,
            start: StartChoice::Auto,
            calibrate: None,
            calibration_tokens: None,
            probe_tokens: None,
            threads: crate::model::threads_or_all(None),
            ranks: &Alone,
            journal: None,
        }
    }

    /// What compiles a point that the run measured.
    pub fn compile(&self, point: &Point) -> CompileOptions {
        CompileOptions {
            start: self.start.clone(),
            calibrate: self.calibrate.clone(),
            calibration_tokens: self.calibration_tokens,
            quant: point.options.clone(),
            onnx: self.onnx.clone(),
            threads: self.threads,
            ..CompileOptions::new(&self.model)
        }
    }

    /// What is to be small.
    pub fn goal(&self) -> Goal {
        match self.budget {
            Budget::Perplexity(_) => self.minimise,
            Budget::Timesteps(_) => Goal::Timesteps,
        }
    }
}

/// What may be spent.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// The rise of perplexity, as a share.
    Perplexity(f64),
    /// The mean over neurons.
    Timesteps(f64),
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Perplexity(rise) => write!(f, "perplexity+{:.4}%", 100.0 * rise),
            Budget::Timesteps(steps) => write!(f, "timesteps={steps}"),
        }
    }
}

/// What a tuning run found.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// What may be spent.
    pub budget: Budget,
    /// What is to be small.
    pub goal: Goal,
    /// The cheapest within the budget; `None` where nothing is.
    pub chosen: Option<Point>,
    /// All that were measured, the least rise of perplexity first.
    pub points: Vec<Point>,
}

/// Points of the front that are measured beside the one that keeps the budget.
const SHOWN: [f64; 4] = [0.1, 0.3, 2.0, 5.0];

/// Tokens of a window, at most.
const WINDOW: usize = 512;

/// Products of a weight and a token that measuring points is worth by default, point by point: a minute's work on two cores.
const PRODUCTS: usize = 1_100_000_000_000;

/// Windows of so many tokens that a network with so many weights is measured on by default.
fn windows_of(weights: usize, length: usize) -> usize {
    (PRODUCTS / weights.saturating_mul(length).max(1)).clamp(4, 32)
}

/// Halvings of the front until the budget's place is known.
const HALVINGS: usize = 7;

/// Measures what timesteps cost and lose, site by site, and finds the cheapest within the budget.
///
/// # Errors
/// What cannot be read or run; a request to stop.
pub fn tune(options: &TuneOptions, progress: &dyn Progress) -> Result<Tuned, Diagnostics> {
    let loaded = Loaded::read(&options.model, &options.onnx)?;
    if !loaded.source.is_dense() {
        let message = "is compiled already; tune the ONNX file or folder that it was made from";
        return Err(Diagnostic::new(options.model.display().to_string(), message).code(ErrorCode::TRAINING).into());
    }
    loaded.warnings.iter().for_each(|warning| progress.warn(warning));
    let tokens = loaded.tokens_if_any(&options.start)?;
    tokens.iter().filter_map(Tokens::excess).for_each(|excess| progress.warn(&excess));
    let length = WINDOW.min(loaded.source.graph.context as usize);
    let windows = options.windows.unwrap_or_else(|| windows_of(loaded.source.graph.parameters(), length));
    let cut = Cut { length: Some(length), stride: None, windows };
    let text = ids_for(&loaded.ids(&options.text, tokens.as_ref())?, length, cut)?;
    let ranges = text.cut(length, cut);
    let sample = calibration_sample(tokens.as_ref(), options.calibrate.as_deref(), progress)?;
    let tensor = convert::dense(loaded.source.graph, loaded.source.rounded, &mut |_, _, _| {})?;
    let calibration_tokens = options
        .calibration_tokens
        .unwrap_or_else(|| convert::calibration_tokens(tensor.parameters(), &QuantOptions::default()))
        .max(1);
    let (windows, _) = convert::sample_windows(&tensor, &sample, calibration_tokens)?;
    let workers = Workers { threads: options.threads, progress, ranks: options.ranks };
    let goal = options.goal();
    let quant = QuantOptions { zero_point: goal.zero_point(), ..QuantOptions::uniform(Levels::default()) };
    let rotated = rotation::rotated(tensor, &quant, &windows, &[], None, workers, &mut |_, _, _| {})?;
    // Whoever follows the points' options is to rotate what was measured, or nothing.
    let base = QuantOptions { rotate: Rotate::These(rotated.rotations), ..quant };
    let tensor = rotated.tensor;
    let (seen, moments) = match base.rounding {
        Rounding::Compensated => {
            let text = MomentText { windows: &windows, constants: &[], tokens: moment_tokens(false) };
            calibrate_with_moments(&tensor, text, &read_sites(&tensor), workers)?
        }
        Rounding::Nearest => (calibrate(&tensor, &windows, &[], workers)?, SiteMoments::new()),
    };
    let probe_tokens = options.probe_tokens.unwrap_or_else(|| ledger::tokens(&tensor));
    let sample: Vec<&[u32]> = windows.iter().map(|window| &window[..]).collect();
    let identity = || identity(&tensor, &(&text.ids, &ranges, &sample), &base, (goal, probe_tokens));
    if options.ranks.count() > 1 {
        ranks::agree(options.ranks, &serde_json::json!({ "run": identity(), "budget": options.budget.to_string() }))?;
    }
    let journal = match &options.journal {
        Some(path) => {
            let identity = identity();
            let journal = Journal::open(path, &identity, options.ranks)?;
            if journal.count() > 0 {
                progress.status(&format!("{}: {} measurements are known", path.display(), journal.count()));
            }
            journal
        }
        None => Journal::default(),
    };
    let tuner = Tuner {
        journal: &journal,
        tensor: &tensor,
        seen: &seen,
        moments: &moments,
        ids: &text.ids,
        ranges: &ranges,
        probe_tokens,
        workers,
        base,
    };
    let engine = Options { count: false, ..Options::default() };
    let dense = Program::new(Arc::new(tensor.clone()), &engine).map(Arc::new)?;
    let front = tuner.front(goal)?;
    let (mut points, chosen) = match options.budget {
        Budget::Perplexity(rise) => search(&tuner, &dense, &front, rise, goal)?,
        Budget::Timesteps(steps) => within(&tuner, &dense, &front, steps)?,
    };
    points.sort_by(|a, b| a.increase.total_cmp(&b.increase));
    points.dedup_by_key(|point| spelled(&point.options));
    Ok(Tuned { budget: options.budget, goal, chosen, points })
}

/// What the measurements of a run depend on, as a hash: the network, the texts and the options. Threads are no part of it, and neither
/// is the budget.
fn identity(
    tensor: &Graph,
    texts: &impl fmt::Debug,
    base: &QuantOptions,
    (goal, probe_tokens): (Goal, usize),
) -> String {
    let mut hash = Xxh3::new();
    hash.update(text::print(tensor).as_bytes());
    hash.update(format!("{texts:?} {} {base:?} {goal:?} {probe_tokens}", env!("CARGO_PKG_VERSION")).as_bytes());
    format!("{:016x}", hash.digest())
}

/// Measured points of the front, and the cheapest that keeps a budget of perplexity.
fn search(
    tuner: &Tuner<'_>,
    dense: &Arc<Program>,
    front: &[Allocation],
    budget: f64,
    goal: Goal,
) -> Result<(Vec<Point>, Option<Point>), Diagnostics> {
    let mut points: Vec<Point> = Vec::new();
    let mut chosen: Option<Point> = None;
    // Damage rises along the front: the last point that keeps the budget is the cheapest.
    let (mut kept, mut lost) = (0, front.len());
    for _ in 0..HALVINGS {
        if lost - kept < 2 {
            break;
        }
        // What is predicted is near what is measured, so the first guess is the prediction.
        let middle = if points.is_empty() { at_damage(front, budget) } else { (kept + lost) / 2 };
        let middle = middle.clamp(kept + 1, lost - 1);
        let point = tuner.measure(dense, &[Candidate::Allocated(&front[middle])])?.swap_remove(0);
        if point.increase <= budget {
            kept = middle;
            if chosen.as_ref().is_none_or(|best| point.cost(goal) < best.cost(goal)) {
                chosen = Some(point.clone());
            }
        } else {
            lost = middle;
        }
        points.push(point);
    }
    let beside = SHOWN.map(|share| Candidate::Allocated(&front[at_damage(front, share * budget)]));
    points.extend(tuner.measure(dense, &beside.into_iter().chain(uniform()).collect::<Vec<Candidate<'_>>>())?);
    Ok((points, chosen))
}

/// The point of the front with the least damage whose timesteps are at most so many on average; and some beside it.
fn within(
    tuner: &Tuner<'_>,
    dense: &Arc<Program>,
    front: &[Allocation],
    steps: f64,
) -> Result<(Vec<Point>, Option<Point>), Diagnostics> {
    let neurons = tuner.neurons();
    let at = |steps: f64| front.iter().find(|allocation| allocation.cost <= steps * neurons);
    let wanted: Vec<&Allocation> = [0.0, 1.0, 0.5, -0.5].into_iter().filter_map(|more| at(steps + more)).collect();
    let candidates: Vec<Candidate<'_>> = wanted.into_iter().map(Candidate::Allocated).chain(uniform()).collect();
    let points = tuner.measure(dense, &candidates)?;
    let chosen = points.first().filter(|_| at(steps).is_some()).cloned();
    Ok((points, chosen))
}

/// The same timesteps everywhere, to compare with.
fn uniform<'a>() -> impl Iterator<Item = Candidate<'a>> {
    TIMESTEPS.filter(|steps| *steps > 2).map(Candidate::Uniform)
}

/// The last point of the front whose predicted damage is at most so much.
fn at_damage(front: &[Allocation], damage: f64) -> usize {
    front.iter().rposition(|allocation| allocation.damage <= damage).unwrap_or(0)
}

/// What a tuning run found, as data.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TuneJson {
    /// As a user types it.
    pub budget: String,
    /// What was to be small.
    pub minimise: String,
    /// `null`: nothing is within the budget.
    pub chosen: Option<TunePoint>,
    /// All that were measured.
    pub points: Vec<TunePoint>,
}

/// A measured allocation of timesteps, as data.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TunePoint {
    /// The options that ask for it.
    pub flags: String,
    /// The same timesteps everywhere.
    pub uniform: bool,
    /// The rise of perplexity, as a share.
    pub perplexity_increase: f64,
    /// Kullback-Leibler divergence from the dense network, in nats per token.
    pub kl: f64,
    /// Spikes per neuron and token.
    pub spikes_per_neuron: f64,
    /// Timesteps per neuron, on average.
    pub timesteps_mean: f64,
    /// Additions that spikes drive.
    pub additions_per_token: f64,
    /// Those of the attention block.
    pub attention_additions_per_token: f64,
    /// By price list.
    pub saving: TuneSavings,
}

/// Savings by two price lists.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TuneSavings {
    /// By the convention of the literature.
    pub paper45: TuneSaving,
    /// By every operation's own price.
    pub int45: TuneSaving,
}

/// The share of the dense f32 network's energy that is not spent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TuneSaving {
    /// Of the attention block.
    pub attention_block: Option<f64>,
    /// In all.
    pub total: Option<f64>,
}

impl TunePoint {
    /// Of a measured point.
    pub fn of(point: &Point) -> Self {
        let saving = |[attention_block, total]: [Option<f64>; 2]| TuneSaving { attention_block, total };
        let [paper45, int45] = point.savings.map(saving);
        Self {
            flags: spelled(&point.options),
            uniform: point.allocation.is_none(),
            perplexity_increase: point.increase,
            kl: point.kl,
            spikes_per_neuron: point.spikes,
            timesteps_mean: point.timesteps,
            additions_per_token: point.additions,
            attention_additions_per_token: point.attention_additions,
            saving: TuneSavings { paper45, int45 },
        }
    }
}

impl Tuned {
    /// The same as data.
    pub fn json(&self) -> TuneJson {
        TuneJson {
            budget: self.budget.to_string(),
            minimise: self.goal.name().to_string(),
            chosen: self.chosen.as_ref().map(TunePoint::of),
            points: self.points.iter().map(TunePoint::of).collect(),
        }
    }
}
