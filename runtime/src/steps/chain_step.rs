//! A chain at work: a few rows at a time go through all of its operations, while they are in the first-level cache.

use crate::jit::dispatch;
use crate::kernels::{GatedParams, InputRows, Kernels, NeuronParams, SpikeCount};
use crate::layout::level_bytes;
use crate::step::{Constants, CurveTables, Fault, KernelCall, StepKind, check_finite, numbers, numbers_mut};
use crate::steps::neuron::neuron_params;
use crate::steps::scaled_sums::scaled_rows;
use snnc_ir::events::Events;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::op::{Pairs, Scalar};
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Value};
use std::cell::RefCell;

/// One operation of a chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    ScaleShift,
    /// A scale and a shift of sums, times a number of their row; with `shift` another scale and shift behind that.
    ScaledSums {
        shift: bool,
    },
    /// Times, or over, a number of its row.
    ByRow {
        divide: bool,
    },
    /// Over the largest magnitude of its row, which is the step's second result.
    Share,
    Centre,
    RmsNorm {
        eps: Scalar,
        /// Channels that are normalised together.
        width: usize,
    },
    Rotary {
        heads: usize,
        pairs: Pairs,
    },
    Gated {
        curve: Curve,
        factor: Factor,
    },
    Hadamard(HadamardSize),
    /// Neurons with a multiplicative input. Their own four constants come before those of the factor.
    GatedQuant {
        code: Code,
        steps: u16,
        curve: Curve,
        factor: Factor,
    },
    Quant {
        code: Code,
        steps: u16,
        curve: Curve,
    },
}

/// How what a gate multiplies comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    Reals,
    /// As sums with a scale and a shift.
    Sums,
    /// As sums that are also multiplied by a number of their row: see `Link::ScaledSums`.
    ScaledSums {
        shift: bool,
    },
}

/// An operation, and where it finds what it reads beside the rows.
#[derive(Clone, Copy, Debug)]
pub struct ChainLink {
    pub link: Link,
    /// Which of the step's inputs behind the first.
    pub operands: [usize; 2],
    /// Its first constant.
    pub constant: usize,
}

/// `[tokens, width]` to the same.
#[derive(Debug)]
pub struct ChainStep {
    pub links: Vec<ChainLink>,
    /// What the first one reads: f32 or i32.
    pub from: Elem,
    /// The matrix of its transform, if it has one.
    pub matrix: Option<HadamardMatrix>,
    pub width: usize,
    /// Bytes of a row of results.
    pub row_bytes: usize,
    /// The norm, whose mean squares are checked.
    pub norm: Option<Value>,
}

/// Numbers of rows that go through a chain together: with twice as many results, half of a first-level cache.
const NUMBERS: usize = 2048;

thread_local! {
    /// Results of a thread, by turns, and what a gate multiplies.
    static ROWS: RefCell<[Vec<f32>; 3]> = RefCell::default();
}

impl StepKind for ChainStep {
    fn name(&self) -> String {
        let name = |at: &ChainLink| match at.link {
            Link::ScaleShift => "scale_shift",
            Link::ScaledSums { shift: false } => "scale_shift > mul",
            Link::ScaledSums { shift: true } => "scale_shift > mul > scale_shift",
            Link::ByRow { divide: false } => "mul",
            Link::ByRow { divide: true } => "div",
            Link::Share => "row_max_abs > div",
            Link::Centre => "centre",
            Link::RmsNorm { .. } => "rms_norm",
            Link::Rotary { .. } => "rotary",
            Link::Gated { .. } => "gated",
            Link::Hadamard(_) => "hadamard",
            Link::GatedQuant { .. } => "gated_quant",
            Link::Quant { .. } => "quant",
        };
        self.links.iter().map(name).collect::<Vec<_>>().join(" > ")
    }

    fn counts_spikes(&self) -> bool {
        self.neurons().is_some()
    }

    fn curve_table(&self) -> Option<Curve> {
        let Some(Link::Quant { curve, .. }) = self.neurons() else { return None };
        (curve != Curve::Identity).then_some(curve)
    }

    fn checks(&self, node: Value) -> Value {
        self.norm.unwrap_or(node)
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, operands @ ..], out, also, events, .. } = call;
        let (kernels, tables, count) = (resources.kernels, resources.tables, resources.count);
        let work = ChainWork { step: self, kernels, constants, tables, count };
        let some = (NUMBERS / self.width).max(1);
        let all_rows = (out.len() / self.row_bytes).max(1);
        let beside = operands.map(|operand| operand.len() / all_rows);
        let peak_bytes = also.len() / all_rows;
        let parts = ((out, self.row_bytes), (also, peak_bytes));
        let fired = dispatch::by_rows_of_two(resources.pool, parts.0, parts.1, |first, out, mut peaks| {
            let mut all = SpikeCount::default();
            for (i, out) in out.chunks_mut(some * self.row_bytes).enumerate() {
                let (row, rows) = (first + i * some, out.len() / self.row_bytes);
                let (mine, rest) = peaks.split_at_mut(rows * peak_bytes);
                peaks = rest;
                let x = &x[4 * row * self.width..][..4 * rows * self.width];
                let operands = [0, 1].map(|k| &operands[k][row * beside[k]..][..rows * beside[k]]);
                all += work.rows(x, operands, numbers_mut(mine)?, out)?;
            }
            Ok(all)
        })?;
        let SpikeCount { spikes, active, saturated } = fired;
        *events += Events { spikes, active, saturated, ..Events::default() };
        Ok(())
    }
}

impl ChainStep {
    /// The neurons at the end.
    fn neurons(&self) -> Option<Link> {
        self.links.last().map(|at| at.link).filter(|link| matches!(link, Link::Quant { .. } | Link::GatedQuant { .. }))
    }
}

/// A chain at work.
#[derive(Clone, Copy)]
struct ChainWork<'a> {
    step: &'a ChainStep,
    kernels: Kernels,
    constants: Constants<'a>,
    tables: &'a CurveTables,
    /// Whether spikes are counted.
    count: bool,
}

impl ChainWork<'_> {
    /// A few rows through all operations.
    fn rows(&self, x: &[u8], operands: [&[u8]; 2], peaks: &mut [f32], out: &mut [u8]) -> Result<SpikeCount, Fault> {
        let (links, width) = (&self.step.links, self.step.width);
        ROWS.with_borrow_mut(|[a, b, factors]| {
            let len = x.len() / size_of::<f32>();
            a.resize(len, 0.0);
            b.resize(len, 0.0);
            let (mut from, mut to) = (a, b);
            // Whether the neurons read shares of the peaks.
            let mut shares = false;
            for (i, at) in links.iter().enumerate() {
                let read = if i == 0 { None } else { Some(&from[..]) };
                if let (Link::Quant { .. }, Some(read)) = (at.link, read) {
                    return self.levels(read, at, shares.then_some(&*peaks), out);
                }
                if let (&ChainLink { link: Link::GatedQuant { code, steps, curve, factor }, .. }, Some(read)) =
                    (at, read)
                {
                    let up = self.factor(at, factor, 4, operands, factors)?;
                    return self.gated_levels(at, (code, steps, curve), [read, up], out);
                }
                if let (Link::Share, Some(read)) = (at.link, read) {
                    check_finite(self.kernels.row_max_abs(read, width, peaks))?;
                    let next = links.get(i + 1).map(|next| next.link);
                    shares = matches!(next, Some(Link::Quant { curve: Curve::Identity, .. }));
                    if shares {
                        continue;
                    }
                }
                let last = i + 1 == links.len();
                let write = if last { numbers_mut(out)? } else { &mut to[..] };
                match (at.link, read) {
                    (Link::Share, Some(read)) => self.kernels.scale_rows(read, peaks, width, true, write),
                    (_, read) => self.link(at, read, x, operands, factors, write)?,
                }
                std::mem::swap(&mut from, &mut to);
            }
            Ok(SpikeCount::default())
        })
    }

    /// One operation on rows of f32, or on the chain's first operand.
    fn link(
        &self,
        at: &ChainLink,
        read: Option<&[f32]>,
        x: &[u8],
        operands: [&[u8]; 2],
        factors: &mut Vec<f32>,
        y: &mut [f32],
    ) -> Result<(), Fault> {
        let (kernels, width) = (self.kernels, self.step.width);
        let reals = || read.map_or_else(|| numbers(x), Ok);
        let operand = |i: usize| operands[at.operands[i]];
        let constant = |i: usize| self.constants.f32(at.constant + i);
        match at.link {
            Link::ScaleShift if read.is_none() && self.step.from == Elem::I32 => {
                kernels.scale_shift(numbers::<i32>(x)?, constant(0)?, constant(1)?, None, y);
            }
            Link::ScaleShift => kernels.scale_shift(reals()?, constant(0)?, constant(1)?, None, y),
            Link::ScaledSums { shift } => {
                let rows = scaled_rows(self.constants, at.constant, shift)?;
                kernels.scaled_sums(numbers(x)?, &rows, numbers(operand(0))?, None, y);
            }
            Link::ByRow { divide } => kernels.scale_rows(reals()?, numbers(operand(0))?, width, divide, y),
            Link::Centre => kernels.centre(reals()?, width, y),
            Link::RmsNorm { eps, width } => check_finite(kernels.rms_norm(reals()?, width, eps.get(), y))?,
            Link::Rotary { heads, pairs } => kernels.rotary(reals()?, numbers(operand(0))?, width, heads, pairs, y),
            Link::Gated { curve, factor } => {
                let up = self.factor(at, factor, 0, operands, factors)?;
                kernels.gated_f32(curve, reals()?, up, y);
            }
            Link::Hadamard(_) => kernels.hadamard(reals()?, self.step.matrix.as_ref().ok_or(Fault::Misfit)?, y),
            // Something comes before a share, and before neurons.
            Link::Share | Link::GatedQuant { .. } | Link::Quant { .. } => return Err(Fault::Misfit),
        }
        Ok(())
    }

    /// What a gate multiplies, as reals: where it comes as sums, in memory of the thread. Its constants begin at number `first` of
    /// the link's.
    fn factor<'r>(
        &self,
        at: &ChainLink,
        factor: Factor,
        first: usize,
        operands: [&'r [u8]; 2],
        scaled: &'r mut Vec<f32>,
    ) -> Result<&'r [f32], Fault> {
        let [rows, by] = at.operands.map(|operand| operands[operand]);
        let first = at.constant + first;
        match factor {
            Factor::Reals => return numbers(rows),
            Factor::Sums => {
                let sums = numbers::<i32>(rows)?;
                scaled.resize(sums.len(), 0.0);
                let (gain, offset) = (self.constants.f32(first)?, self.constants.f32(first + 1)?);
                self.kernels.scale_shift(sums, gain, offset, None, scaled);
            }
            Factor::ScaledSums { shift } => {
                let sums = numbers::<i32>(rows)?;
                scaled.resize(sums.len(), 0.0);
                let constants = scaled_rows(self.constants, first, shift)?;
                self.kernels.scaled_sums(sums, &constants, numbers(by)?, None, scaled);
            }
        }
        Ok(scaled)
    }

    /// Neurons with a multiplicative input at the end.
    fn gated_levels(
        &self,
        at: &ChainLink,
        (code, steps, curve): (Code, u16, Curve),
        [gate, up]: [&[f32]; 2],
        out: &mut [u8],
    ) -> Result<SpikeCount, Fault> {
        let constant = |i: usize| self.constants.f32(at.constant + i);
        let neuron = GatedParams {
            levels: code.levels(steps),
            curve,
            pre_gain: constant(0)?,
            pre_offset: constant(1)?,
            gain: constant(2)?,
            offset: constant(3)?,
            count: self.count.then_some(code),
        };
        let (gate, up) = (InputRows::F32(gate), InputRows::F32(up));
        Ok(match level_bytes(code, steps) {
            1 => self.kernels.quantise_gated::<i8>(gate, up, &neuron, numbers_mut(out)?),
            _ => self.kernels.quantise_gated::<i16>(gate, up, &neuron, numbers_mut(out)?),
        })
    }

    /// The neurons at the end; with `peaks` they read shares of these.
    fn levels(&self, x: &[f32], at: &ChainLink, peaks: Option<&[f32]>, out: &mut [u8]) -> Result<SpikeCount, Fault> {
        let Link::Quant { code, steps, curve } = at.link else { return Err(Fault::Misfit) };
        let count = self.count.then_some(code);
        let neuron: NeuronParams<'_> =
            neuron_params(self.constants, at.constant, self.tables, curve, code.levels(steps), count)?;
        let narrow = level_bytes(code, steps) == 1;
        Ok(match peaks {
            Some(peaks) if narrow => self.kernels.quantise_shares::<i8>(x, peaks, &neuron, numbers_mut(out)?),
            Some(peaks) => self.kernels.quantise_shares::<i16>(x, peaks, &neuron, numbers_mut(out)?),
            None if narrow => self.kernels.quantise::<f32, i8>(x, &neuron, numbers_mut(out)?),
            None => self.kernels.quantise::<f32, i16>(x, &neuron, numbers_mut(out)?),
        })
    }
}
