//! The core of training: windows of text through a relaxed program and its gradients, step by step.
//!
//! Law: the state after a step is a function of the state before it, the step's number and the seed. So a run that was
//! interrupted goes on bit for bit, and the number of threads and ranks never shows: every window's gradients are added in the order
//! of the windows. Every rank has the whole state.

use super::adamw::{Moments, Schedule};
use super::checkpoint::TrainState;
use super::reduce::{OrderedSum, WindowGradients};
use super::stall::Stall;
use super::text::TrainingIds;
use crate::parallel::pool;
use crate::ranks::{self, Ranks};
use indexmap::IndexMap;
use rayon::prelude::*;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, Graph};
use snnc_passes::gradient::gradient;
use snnc_passes::relax::{Recipe, TrainGraph, relax};
use snnc_runtime::{PlanOptions, TrainingEngine};
use std::borrow::Cow;
use std::ops::Range;

/// What a trainer is told.
#[derive(Clone, Copy, Debug)]
pub struct TrainerOptions {
    /// What trains, by which loss.
    pub recipe: Recipe,
    /// The schedule of the learning rate.
    pub rates: Schedule,
    /// How engines compute.
    pub plan: PlanOptions,
    /// Windows a step.
    pub batch: usize,
    /// Tokens a window.
    pub window: usize,
    /// Seed of the windows' places.
    pub seed: u64,
    /// Threads; no result depends on their number.
    pub threads: usize,
    /// Processes that share the windows of a step; no result depends on their number.
    pub ranks: &'static dyn Ranks,
}

/// A program in training.
#[derive(Debug)]
pub struct Trainer {
    /// Names of the parameters.
    names: Vec<String>,
    /// What the program's constants become.
    constants: Graph,
    /// One for each thread.
    engines: Vec<TrainingEngine>,
    pool: rayon::ThreadPool,
    /// Windows that every rank runs at once: engines of the rank that has the fewest.
    at_once: usize,
    /// Memory of the sum of gradients, from one step to the next.
    summed: Vec<f32>,
    /// How tokens are drawn.
    pub options: TrainerOptions,
    /// Parameters and the optimiser's state.
    pub numbers: TrainState,
    /// Steps done.
    pub step: u64,
    /// The step with the least validation loss.
    pub best_step: u64,
    /// Validation losses by step.
    pub losses: Vec<(u64, f64)>,
    /// Whether they still improve.
    pub stall: Stall,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Stepped {
    /// The loss.
    pub loss: f64,
    /// The norm of the gradients before clipping.
    pub norm: f32,
    /// The learning rate.
    pub rate: f32,
}

impl Trainer {
    /// # Errors
    /// What cannot be trained; windows longer than the context.
    pub fn new(program: &Graph, reference: &Graph, options: TrainerOptions) -> Result<Self, Diagnostics> {
        let relaxed = relax(program, reference, options.recipe)?;
        snnc_ir::verify::verify(&relaxed.graph)?;
        let back = gradient(&relaxed.graph, &relaxed.parameters)?;
        snnc_ir::verify::verify(&back)?;
        let threads = options.threads.clamp(1, options.batch.div_ceil(options.ranks.count()));
        let first = TrainingEngine::new(&back, options.window, &relaxed.parameters, options.plan)?;
        let more = (1..threads).map(|_| first.another()).collect::<Result<Vec<_>, Diagnostic>>()?;
        let engines = std::iter::once(first).chain(more).collect();
        let start = |name: &String| {
            let weight = relaxed.graph.weights.iter().find(|weight| weight.name == *name);
            weight.and_then(|weight| weight.tensor.as_f32()).unwrap_or(&[]).to_vec()
        };
        let parameters: Vec<Vec<f32>> = relaxed.parameters.iter().map(start).collect();
        let numbers = TrainState { moments: Moments::new(&parameters), best: parameters.clone(), parameters };
        let pool = pool(threads)?;
        let at_once = ranks::gathered(options.ranks, &threads)?.into_iter().min().unwrap_or(1).clamp(1, threads);
        let (step, best_step, losses, stall) = (0, 0, Vec::new(), Stall::default());
        // Weights that engines hold as bytes are needed no more as reals.
        let TrainGraph { parameters: names, constants, .. } = relaxed;
        let summed = Vec::new();
        Ok(Self { names, constants, engines, pool, at_once, summed, options, numbers, step, best_step, losses, stall })
    }

    /// Names and lengths of the parameters.
    pub fn parameters(&self) -> impl Iterator<Item = (&String, usize)> {
        self.names.iter().zip(self.numbers.parameters.iter().map(Vec::len))
    }

    /// Bytes that engines work in.
    pub fn bytes(&self) -> usize {
        self.engines.iter().map(TrainingEngine::bytes).sum()
    }

    /// Where the windows of a step begin. Drawn anew for every step, so that nothing of chance is kept.
    fn starts(&self, range: usize, step: u64) -> Vec<usize> {
        let mut random = SplitMix64(self.options.seed ^ step.wrapping_mul(0xd134_2543_de82_ef95));
        (0..self.options.batch).map(|_| (random.bits() % range.max(1) as u64) as usize).collect()
    }

    /// The windows of a step, each a window's tokens and one more.
    ///
    /// # Errors
    /// A text that cannot be read.
    fn windows<'a, T: TrainingIds + ?Sized>(&self, text: &'a T, step: u64) -> Result<Vec<Cow<'a, [u32]>>, Diagnostic> {
        let window = self.options.window;
        let starts = self.starts(text.places(window), step);
        starts.into_iter().map(|at| text.window(at, window)).collect()
    }

    /// One step on windows of a text, which has more tokens than a window.
    ///
    /// # Errors
    /// A number that is not finite.
    pub fn advance(&mut self, text: &(impl TrainingIds + ?Sized)) -> Result<Stepped, Diagnostic> {
        let (loss, gradients) = self.gradients(text, self.step)?;
        let share = 1.0 / self.options.batch as f32;
        let rates = &self.options.rates;
        let TrainState { parameters, moments, .. } = &mut self.numbers;
        let norm = self.pool.install(|| moments.step(parameters, (&gradients, share), rates, self.step));
        self.summed = gradients;
        if !norm.is_finite() {
            let message = format!("the gradients of step {} are not finite", self.step);
            return Err(Diagnostic::new("", message).code(ErrorCode::TRAINING).note("a smaller --rate may help"));
        }
        let rate = rates.at(self.step);
        self.step += 1;
        Ok(Stepped { loss: loss * f64::from(share), norm, rate })
    }

    /// The loss and the gradients of a step, of all parameters one after the other, summed over its windows in their order.
    ///
    /// # Errors
    /// A number that is not finite; a rank that cannot be reached.
    pub fn gradients(&mut self, text: &(impl TrainingIds + ?Sized), step: u64) -> Result<(f64, Vec<f32>), Diagnostic> {
        let windows = self.windows(text, step)?;
        let windows: Vec<&[u32]> = windows.iter().map(AsRef::as_ref).collect();
        let lengths = self.numbers.parameters.iter().map(Vec::len).collect();
        let (losses, gradients) = self.in_order(&windows, lengths)?;
        Ok((total(&losses), gradients))
    }

    /// The mean loss over windows, each a window's tokens and one more; the best parameters so far are kept.
    ///
    /// # Errors
    /// A loss that is not finite; a rank that cannot be reached.
    pub fn validate(&mut self, windows: &[&[u32]]) -> Result<f64, Diagnostic> {
        let (by_window, _) = self.in_order(windows, Vec::new())?;
        let loss = total(&by_window) / windows.len() as f64;
        if self.losses.iter().all(|&(_, other)| loss < other) {
            self.numbers.best.clone_from(&self.numbers.parameters);
            self.best_step = self.step;
        }
        self.losses.push((self.step, loss));
        self.stall.note(&by_window);
        Ok(loss)
    }

    /// The mean loss over windows, of which nothing is kept.
    ///
    /// # Errors
    /// As of `validate`.
    pub fn loss(&mut self, windows: &[&[u32]]) -> Result<f64, Diagnostic> {
        let (by_window, _) = self.in_order(windows, Vec::new())?;
        Ok(total(&by_window) / windows.len() as f64)
    }

    /// Runs windows on the engines of all ranks, and sums gradients in the order of the windows; losses are by window. `lengths`: numbers of the
    /// gradients that are wanted; with none the backward pass is not run.
    ///
    /// As many windows as there are engines run at once, then their outputs are added one after the other.
    fn in_order(&mut self, windows: &[&[u32]], lengths: Vec<usize>) -> Result<(Vec<f32>, Vec<f32>), Diagnostic> {
        let engines = &mut self.engines;
        engines.iter_mut().for_each(TrainingEngine::renew);
        let (ranks, parameters) = (self.options.ranks, &self.numbers.parameters);
        let outputs = 1..=lengths.len();
        let loss_alone = lengths.is_empty();
        let run = |engine: &mut TrainingEngine, window: &[u32]| match loss_alone {
            true => engine.run_loss(window, parameters).map(drop),
            false => engine.run(window, parameters),
        };
        let memory = if loss_alone { Vec::new() } else { std::mem::take(&mut self.summed) };
        let mut sum = OrderedSum::new(ranks, lengths, memory);
        for round in windows.chunks(self.at_once * ranks.count()) {
            let some = &round[evenly(round.len(), ranks.rank(), ranks.count())];
            self.pool.install(|| {
                let runs = engines.par_iter_mut().zip(some);
                runs.with_max_len(1).map(|(engine, window)| run(engine, window)).collect::<Result<(), _>>()?;
                let mut own: Vec<WindowGradients<'_>> = Vec::with_capacity(some.len());
                for engine in &engines[..some.len()] {
                    let gradients = outputs.clone().map(|i| engine.output(i, parameters)).collect();
                    own.push((engine.output(0, parameters)[0], gradients));
                }
                sum.add(&own)
            })?;
        }
        self.pool.install(|| sum.finish())
    }

    /// The program's constants under the best parameters, by name.
    ///
    /// # Errors
    /// As of an engine.
    pub fn constants(&self) -> Result<IndexMap<String, Vec<f32>>, Diagnostic> {
        let (graph, names) = (&self.constants, &self.names);
        let mut whole = TrainingEngine::new(graph, 1, names, PlanOptions::default())?;
        let best = &self.numbers.best;
        whole.run(&[0, 0], best)?;
        let named =
            graph.outputs.iter().enumerate().map(|(i, (name, _))| (name.clone(), whole.output(i, best).to_vec()));
        Ok(named.collect())
    }
}

/// In their order.
fn total(losses: &[f32]) -> f64 {
    losses.iter().copied().map(f64::from).sum()
}

/// The items of a rank, of so many that follow each other.
fn evenly(items: usize, rank: usize, ranks: usize) -> Range<usize> {
    rank * items / ranks..(rank + 1) * items / ranks
}
