//! The engine of networks in training: one whole window of text at a time, every value in f32.
//!
//! An engine for itself beside the two that run programs: shapes are any, nothing is kept between runs, parameters change
//! from one run to the next. It is run by one thread; several windows are run by several engines, whose results do not depend
//! on how many there are.

mod joining;
mod plan;
mod products;
mod recompute;
mod steps;

use crate::kernels::{Isa, Kernels, StridedMatrix, multiply};
use crate::memory_limit::MemoryReservation;
pub use plan::{PlanOptions, TrainingPlan};
pub use products::GradientProducts;
use products::{ProductScratch, in_bf16};
use snnc_ir::ErrorCode;
use snnc_ir::eval::{decay_row, decay_slope, period};
use snnc_ir::op::opening;
use snnc_ir::{Data, Diagnostic, Graph, Stage};
use std::sync::Arc;
use steps::{StridedView, TrainingStep, TrainingStepKind, ValueSource};

/// A graph of stage `training`, ready for windows of one length.
#[derive(Debug)]
pub struct TrainingEngine {
    plan: Arc<TrainingPlan>,
    kernels: Kernels,
    arena: Vec<f32>,
    positions: Vec<i32>,
    opening: Vec<i32>,
    tokens: Vec<i32>,
    targets: Vec<i32>,
    /// How many parameters `run` is given.
    parameters: usize,
    /// Whether what depends on parameters alone is that of the parameters that `run` is given.
    renewed: bool,
    scratch: ProductScratch,
    /// Memory of the arena.
    _reserved: MemoryReservation,
}

impl TrainingEngine {
    /// Plans the graph for windows of so many tokens. `parameters`: names of the weights that `run` is given.
    ///
    /// # Errors
    /// The graph is of another stage, or longer windows than its context are asked for.
    pub fn new(graph: &Graph, tokens: usize, parameters: &[String], options: PlanOptions) -> Result<Self, Diagnostic> {
        if graph.stage != Stage::Training {
            return Err(Diagnostic::new("", format!("a program of stage {} is not trained", graph.stage.name()))
                .code(ErrorCode::RUN));
        }
        if tokens == 0 || tokens > graph.context as usize {
            let message = format!("windows of 1 to {} tokens are possible, here are {tokens}", graph.context);
            return Err(Diagnostic::new("", message).code(ErrorCode::RUN));
        }
        let kernels = Isa::detect()
            .and_then(Kernels::new)
            .map_err(|message| Diagnostic::new("", message).code(ErrorCode::RUN))?;
        let plan = Arc::new(TrainingPlan::new(graph, tokens, parameters, kernels, options)?);
        let reserved = MemoryReservation::new(4 * plan.arena_len as u128, "values of a window in training")?;
        let mut engine = Self {
            _reserved: reserved,
            arena: vec![0.0; plan.arena_len],
            positions: (0..tokens as i32).collect(),
            opening: Vec::new(),
            tokens: vec![0; tokens],
            targets: vec![0; tokens],
            parameters: parameters.len(),
            renewed: false,
            kernels,
            scratch: ProductScratch::default(),
            plan,
        };
        let plan = Arc::clone(&engine.plan);
        plan.first.iter().try_for_each(|step| engine.step(step, &[]))?;
        Ok(engine)
    }

    /// Another engine for the same graph.
    ///
    /// # Errors
    /// As of `new`.
    pub fn another(&self) -> Result<Self, Diagnostic> {
        let bytes = 4 * self.plan.arena_len as u128;
        let mut engine = Self {
            _reserved: MemoryReservation::new(bytes, "values of a window in training")?,
            plan: Arc::clone(&self.plan),
            kernels: self.kernels,
            scratch: ProductScratch::default(),
            arena: vec![0.0; self.plan.arena_len],
            positions: self.positions.clone(),
            opening: self.opening.clone(),
            tokens: self.tokens.clone(),
            targets: self.targets.clone(),
            parameters: self.parameters,
            renewed: false,
        };
        let plan = Arc::clone(&engine.plan);
        plan.first.iter().try_for_each(|step| engine.step(step, &[]))?;
        Ok(engine)
    }

    /// Says that the next run has other parameters than the last.
    pub fn renew(&mut self) {
        self.renewed = false;
    }

    /// Runs a window: its tokens, and one more that the last is to predict. Parameters are those of the last run, or `renew` has said
    /// that they are others.
    ///
    /// # Errors
    /// An id outside a table; a loss that is not finite.
    pub fn run(&mut self, window: &[u32], parameters: &[Vec<f32>]) -> Result<(), Diagnostic> {
        let count = self.plan.every.len();
        self.run_some(window, parameters, count)
    }

    /// Runs a window up to the first output, the loss, which it gives. No other output is there afterwards.
    ///
    /// # Errors
    /// As of `run`.
    pub fn run_loss(&mut self, window: &[u32], parameters: &[Vec<f32>]) -> Result<f32, Diagnostic> {
        let count = self.plan.until_loss;
        self.run_some(window, parameters, count)?;
        Ok(self.output(0, parameters)[0])
    }

    fn run_some(&mut self, window: &[u32], parameters: &[Vec<f32>], steps: usize) -> Result<(), Diagnostic> {
        let n = self.positions.len();
        assert!(window.len() == n + 1 && parameters.len() == self.parameters, "a window and parameters of this engine");
        self.tokens.iter_mut().zip(window).for_each(|(to, &id)| *to = id as i32);
        self.opening = opening(0, None, &window[..n]).flatten().collect();
        self.targets.iter_mut().zip(&window[1..]).for_each(|(to, &id)| *to = id as i32);
        let plan = Arc::clone(&self.plan);
        if !self.renewed {
            plan.renewed.iter().try_for_each(|step| self.step(step, parameters))?;
            self.renewed = true;
        }
        plan.every[..steps].iter().try_for_each(|step| self.step(step, parameters))
    }

    /// Output `i` of the last run.
    pub fn output<'a>(&'a self, i: usize, parameters: &'a [Vec<f32>]) -> &'a [f32] {
        let arena = SplitArena { before: &self.arena, after: &[], after_from: self.arena.len() };
        self.read(arena, &self.plan.outputs[i], parameters)
    }

    /// Bytes of its arena.
    pub fn bytes(&self) -> usize {
        self.plan.arena_len * size_of::<f32>()
    }

    fn read<'a>(&'a self, arena: SplitArena<'a>, view: &StridedView, parameters: &'a [Vec<f32>]) -> &'a [f32] {
        match view.source {
            ValueSource::Arena(at) => arena.value(at, view.len()),
            ValueSource::Parameter(i) => &parameters[i],
            ValueSource::Constant(value) => {
                self.plan.constants.get(&value).and_then(|tensor| tensor.as_f32()).unwrap_or(&[])
            }
            ValueSource::Tokens | ValueSource::Positions | ValueSource::Opening | ValueSource::Targets => {
                unreachable!("integers")
            }
        }
    }

    fn integers(&self, view: &StridedView) -> &[i32] {
        match view.source {
            ValueSource::Tokens => &self.tokens,
            ValueSource::Positions => &self.positions,
            ValueSource::Opening => &self.opening,
            ValueSource::Targets => &self.targets,
            ValueSource::Constant(value) => match self.plan.constants.get(&value).map(|tensor| tensor.data()) {
                Some(Data::I32(data)) => data,
                _ => unreachable!("an i32 constant"),
            },
            ValueSource::Arena(_) | ValueSource::Parameter(_) => unreachable!("reals"),
        }
    }

    fn step(&mut self, step: &TrainingStep, parameters: &[Vec<f32>]) -> Result<(), Diagnostic> {
        let mut arena = std::mem::take(&mut self.arena);
        let (before, rest) = arena.split_at_mut(step.out.start);
        let (out, after) = rest.split_at_mut(step.out.len());
        let inputs = SplitArena { before, after, after_from: step.out.end };
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.compute(step, inputs, parameters, &mut scratch, out);
        self.arena = arena;
        self.scratch = scratch;
        done.map_err(|message| Diagnostic::new(&step.origin, message).code(ErrorCode::RUN))
    }

    fn compute(
        &self,
        step: &TrainingStep,
        arena: SplitArena<'_>,
        parameters: &[Vec<f32>],
        scratch: &mut ProductScratch,
        y: &mut [f32],
    ) -> Result<(), String> {
        let k = self.kernels;
        let real = |i: usize| self.read(arena, &step.inputs[i], parameters);
        let width = |i: usize| step.inputs[i].sizes.last().copied().unwrap_or(1);
        match &step.kind {
            TrainingStepKind::Formula(formula) => {
                let inputs: Vec<&[f32]> = (0..step.inputs.len()).map(real).collect();
                k.evaluate(formula, &inputs, y);
            }
            TrainingStepKind::ReduceSum(axes) => k.sum(real(0), axes, y),
            TrainingStepKind::MatMul => matmul([&step.inputs[0], &step.inputs[1]], [real(0), real(1)], y, multiply),
            TrainingStepKind::LevelProduct(weight) => weight.product(k, real(0), scratch, y),
            TrainingStepKind::RoundedProduct(unit, weight) => {
                let product = |a: StridedMatrix<'_>, b: StridedMatrix<'_>, y: &mut [f32]| {
                    in_bf16((k, *unit), a, b, weight.as_deref(), scratch, y);
                };
                matmul([&step.inputs[0], &step.inputs[1]], [real(0), real(1)], y, product);
            }
            TrainingStepKind::Softmax => k.softmax(real(0), width(0), y),
            TrainingStepKind::RowMax => k.row_max(real(0), width(0), y),
            TrainingStepKind::TopkMask { keys } => k.topk_mask(real(0), width(0), *keys, y),
            TrainingStepKind::CausalMask { keep, drop, window } => {
                causal_mask(self.positions.len(), [*keep, *drop], *window, y);
            }
            TrainingStepKind::Centre => k.centre(real(0), width(0), y),
            TrainingStepKind::Hadamard(matrix) => k.hadamard(real(0), matrix, y),
            TrainingStepKind::AtStart => {
                let [opening, starts] = [1, 2].map(|i| self.integers(&step.inputs[i]));
                k.at_start(real(0), opening, starts, real(3), y);
            }
            TrainingStepKind::RmsNorm { eps, heads } => {
                all_finite(k.rms_norm(real(0), width(0) / heads, *eps, y))?;
            }
            TrainingStepKind::RmsNormGrad { eps, heads } => {
                k.rms_norm_grad(real(0), real(1), width(0) / heads, *eps, y)
            }
            TrainingStepKind::Rotary { heads, pairs } => k.rotary(real(0), real(1), width(0), *heads, *pairs, y),
            TrainingStepKind::Gated(curve) => k.gated_f32(*curve, real(0), real(1), y),
            TrainingStepKind::RowMaxAbs => all_finite(k.row_max_abs(real(0), real(0).len() / y.len().max(1), y))?,
            TrainingStepKind::RowMaxAbsGrad => row_max_abs_grad(real(0), real(1), y),
            TrainingStepKind::GatherChannels => k.gather_channels(real(0), width(0), self.integers(&step.inputs[1]), y),
            TrainingStepKind::GatherChannelsGrad => {
                gather_channels_grad(real(0), self.integers(&step.inputs[1]), self.positions.len(), y);
            }
            TrainingStepKind::Embed => {
                if !k.embed(self.integers(&step.inputs[0]), real(1), width(1), y) {
                    return Err("an id is outside the table".into());
                }
            }
            TrainingStepKind::EmbedGrad => embed_grad(self.integers(&step.inputs[0]), real(1), width(1), y)?,
            TrainingStepKind::DecayMask => decay_mask(self.positions.len(), real(0), y),
            TrainingStepKind::DecayMaskGrad => {
                let n = self.positions.len();
                for ((&h, c), y) in real(0).iter().zip(real(1).chunks_exact(n * n)).zip(y) {
                    *y = decay_mask_grad(h, n, c);
                }
            }
            TrainingStepKind::Divergence => y[0] = finite(k.divergence(real(0), real(1), width(0)))?,
            TrainingStepKind::CrossEntropy => {
                y[0] = finite(k.cross_entropy(real(0), self.integers(&step.inputs[1]), width(0)))?
            }
            TrainingStepKind::DivergenceGrad => {
                let scale = real(2)[0] / self.positions.len() as f32;
                k.divergence_grad(real(0), real(1), width(0), scale, y);
            }
            TrainingStepKind::CrossEntropyGrad => {
                let scale = real(2)[0] / self.positions.len() as f32;
                k.cross_entropy_grad(real(0), self.integers(&step.inputs[1]), width(0), scale, y);
            }
        }
        Ok(())
    }
}

/// The arena without the part that a step writes.
#[derive(Clone, Copy)]
struct SplitArena<'a> {
    before: &'a [f32],
    after: &'a [f32],
    /// Where `after` begins.
    after_from: usize,
}

impl<'a> SplitArena<'a> {
    /// A value of so many numbers; it lies in one of the parts, because values that live at once do not overlap.
    fn value(self, at: usize, len: usize) -> &'a [f32] {
        match at.checked_sub(self.after_from) {
            Some(at) => &self.after[at..at + len],
            None => &self.before[at..at + len],
        }
    }
}

fn all_finite(yes: bool) -> Result<(), String> {
    if yes { Ok(()) } else { Err("a number that is not finite was met; a smaller rate of learning may help".into()) }
}

fn finite(loss: f32) -> Result<f32, String> {
    let message = || format!("the loss is {loss}; a smaller rate of learning may help");
    if loss.is_finite() { Ok(loss) } else { Err(message()) }
}

/// A product for every leading index, over operands that are spread along leading axes of size 1.
fn matmul(
    [a, b]: [&StridedView; 2],
    [a_data, b_data]: [&[f32]; 2],
    y: &mut [f32],
    mut multiply: impl FnMut(StridedMatrix<'_>, StridedMatrix<'_>, &mut [f32]),
) {
    let split = |view: &StridedView| {
        let inner = view.sizes.len() - 2;
        let matrix = ([view.sizes[inner], view.sizes[inner + 1]], [view.steps[inner], view.steps[inner + 1]]);
        let lead: Vec<(usize, usize)> =
            view.sizes[..inner].iter().copied().zip(view.steps[..inner].iter().copied()).collect();
        (matrix, lead)
    };
    let ((a_sizes, a_steps), a_lead) = split(a);
    let ((b_sizes, b_steps), b_lead) = split(b);
    let rank = a_lead.len().max(b_lead.len());
    let at =
        |lead: &[(usize, usize)], axis: usize| axis.checked_sub(rank - lead.len()).map_or((1, 0), |axis| lead[axis]);
    let lead: Vec<usize> = (0..rank).map(|axis| at(&a_lead, axis).0.max(at(&b_lead, axis).0)).collect();
    let offset = |lead_of: &[(usize, usize)], mut flat: usize| {
        let mut offset = 0;
        for axis in (0..rank).rev() {
            let (size, step) = at(lead_of, axis);
            offset += if size == 1 { 0 } else { flat % lead[axis] * step };
            flat /= lead[axis];
        }
        offset
    };
    let size = a_sizes[0] * b_sizes[1];
    for (batch, y) in y.chunks_exact_mut(size).enumerate() {
        let matrix = |data, [rows, columns]: [usize; 2], steps| StridedMatrix { data, rows, columns, steps };
        let a = matrix(&a_data[offset(&a_lead, batch)..], a_sizes, a_steps);
        let b = matrix(&b_data[offset(&b_lead, batch)..], b_sizes, b_steps);
        multiply(a, b, y);
    }
}

/// Of every query and key one number where it may see it, else the other.
fn causal_mask(n: usize, [keep, drop]: [f32; 2], window: Option<u32>, y: &mut [f32]) {
    let seen = |i: usize, j: usize| j <= i && window.is_none_or(|window| i - j < window as usize);
    y.iter_mut().enumerate().for_each(|(i, y)| *y = if seen(i / n, i % n) { keep } else { drop });
}

/// What keys still weigh, by head, query and key.
fn decay_mask(n: usize, periods: &[f32], y: &mut [f32]) {
    for (&h, y) in periods.iter().zip(y.chunks_exact_mut(n * n)) {
        let h = period(h.into());
        y.chunks_exact_mut(n).enumerate().for_each(|(i, row)| decay_row(h, i, row));
    }
}

/// The sum of all weights' gradients, each by how fast its weight grows with the period.
fn decay_mask_grad(h: f32, n: usize, c: &[f32]) -> f32 {
    let slopes: Vec<f32> = (0..n).rev().map(|distance| decay_slope(h.into(), distance) as f32).collect();
    let row =
        |(i, c): (usize, &[f32])| c[..=i].iter().zip(&slopes[n - 1 - i..]).map(|(c, slope)| c * slope).sum::<f32>();
    c.chunks_exact(n).enumerate().map(row).sum()
}

/// Channels that were gathered get what their copies got.
fn gather_channels_grad(c: &[f32], channels: &[i32], rows: usize, y: &mut [f32]) {
    y.fill(0.0);
    let width = y.len() / rows;
    for (y, c) in y.chunks_exact_mut(width).zip(c.chunks_exact(channels.len())) {
        channels.iter().zip(c).for_each(|(&at, &c)| y[at as usize] += c);
    }
}

/// Rows of a table get what the tokens got that looked them up.
fn embed_grad(ids: &[i32], c: &[f32], width: usize, y: &mut [f32]) -> Result<(), String> {
    y.fill(0.0);
    for (&id, c) in ids.iter().zip(c.chunks_exact(width)) {
        let row = usize::try_from(id).ok().and_then(|id| y.get_mut(id * width..(id + 1) * width));
        let row = row.ok_or("an id is outside the table")?;
        row.iter_mut().zip(c).for_each(|(y, &c)| *y += c);
    }
    Ok(())
}

/// The largest magnitude's element, the first of equal ones, gets all.
fn row_max_abs_grad(x: &[f32], c: &[f32], y: &mut [f32]) {
    let width = (x.len() / c.len().max(1)).max(1);
    y.fill(0.0);
    for ((x, y), &c) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).zip(c) {
        let first = (0..width).fold(0, |best, i| if x[best].abs() < x[i].abs() { i } else { best });
        if x[first] != 0.0 {
            y[first] = if x[first] < 0.0 { -c } else { c };
        }
    }
}
