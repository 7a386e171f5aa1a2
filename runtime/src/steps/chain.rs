//! Operations row by row of which each is read by the next alone: a few rows at a time go through all of them, while they are in
//! the first-level cache.
//!
//! A chain has scales and shifts, norms, rotations, gates and Hadamard transforms, and perhaps neurons at its end. What a gate
//! multiplies may be a scale and shift of sums, which then runs in the chain as well. What it gives is to the bit what its
//! operations give one after the other. Spike trains and levels of 32 bits have steps of their own.

use crate::jit::dispatch;
use crate::kernels::{Kernels, NeuronParams, SpikeCount};
use crate::layout::level_bytes;
use crate::planner::Planner;
use crate::step::{Constants, CurveTables, Fault, KernelCall, StepKind, check_finite, numbers, numbers_mut};
use crate::steps::neuron::neuron_params;
use crate::steps::scale_shift;
use snnc_ir::events::Events;
use snnc_ir::finite::checked_operands;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::op::{DenseOp, LevelOp, Op, Pairs, Scalar};
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Diagnostic, Value};
use std::cell::RefCell;

/// One operation of a chain.
#[derive(Clone, Copy, Debug)]
enum Link {
    ScaleShift,
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
        /// Whether what it multiplies comes as sums, with a scale and a shift.
        scaled: bool,
    },
    Hadamard(HadamardSize),
    Quant {
        code: Code,
        steps: u16,
        curve: Curve,
    },
}

#[derive(Debug)]
struct ChainStep {
    links: Vec<Link>,
    /// What the first one reads: f32 or i32.
    from: Elem,
    /// The matrix of its transform, if it has one.
    matrix: Option<HadamardMatrix>,
    width: usize,
    /// Bytes of a row of results.
    row_bytes: usize,
    /// The norm, whose mean squares are checked.
    norm: Option<Value>,
}

/// Whether the one operation that reads a node runs it as well.
pub fn absorbed(p: &Planner<'_>, node: Value) -> bool {
    is_in_chain(p, node) || is_scaled_factor(p, node)
}

/// Whether a node is the operation before the one that reads it in its chain.
fn is_in_chain(p: &Planner<'_>, node: Value) -> bool {
    let Some(user) = p.only_user(node) else { return false };
    if p.norms_alone.binary_search(&node).is_ok() {
        return false;
    }
    if link(p, node).is_none_or(|link| matches!(link, Link::Quant { .. })) || link(p, user).is_none() {
        return false;
    }
    let fused = |add: Value| scale_shift::fused(p, add) == Some(user);
    let checked = p.unproven[node.index()] && checked_operands(p.graph, user).any(|operand| operand == node);
    let again = once(p, user).is_some_and(|kind| chain(p, node).iter().any(|&other| once(p, other) == Some(kind)));
    p.graph.node(user).args[0] == node && !checked && !again && !p.only_user(user).is_some_and(fused)
}

/// A chain has one check, one second operand (angles or what a gate multiplies) and one matrix.
fn once(p: &Planner<'_>, at: Value) -> Option<&'static str> {
    match p.graph.node(at).op {
        Op::Dense(DenseOp::RmsNorm { .. }) => Some("check"),
        Op::Dense(DenseOp::Rotary { .. } | DenseOp::Gated(_)) => Some("operand"),
        Op::Dense(DenseOp::Hadamard(_)) => Some("matrix"),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// Whether a node is a scale and shift of sums that a gate multiplies which runs in a chain.
fn is_scaled_factor(p: &Planner<'_>, node: Value) -> bool {
    let Some(user) = p.only_user(node) else { return false };
    let (own, gate) = (p.graph.node(node), p.graph.node(user));
    let scales = own.op == Op::Level(LevelOp::ScaleShift) && p.graph.ty(own.args[0]).elem() == Some(Elem::I32);
    let Op::Dense(DenseOp::Gated(_)) = gate.op else { return false };
    scales && gate.args[1] == node && (is_in_chain(p, user) || is_in_chain(p, gate.args[0]))
}

/// Norms whose chain would end behind a check that comes after theirs: of several values that are not finite, all engines report
/// the same one. In ascending order.
pub fn norms_alone(p: &Planner<'_>) -> Vec<Value> {
    let mut alone = Vec::new();
    // Operations with a check, the last first, and the node at which each is checked.
    let mut checks: Vec<(Value, Value)> = Vec::new();
    for (at, node) in p.graph.iter().rev() {
        if let Op::Dense(DenseOp::RmsNorm { .. }) = node.op {
            let end = chain_end(p, at);
            let overtakes =
                checks.iter().rev().take_while(|(later, _)| *later < end).any(|(_, checked)| *checked < end);
            alone.extend(overtakes.then_some(at));
            checks.push((at, if overtakes { at } else { end }));
        } else if checked_operands(p.graph, at).any(|operand| p.unproven[operand.index()]) {
            checks.push((at, at));
        }
    }
    alone.reverse();
    alone
}

/// The last operation of the chain that a node is in.
fn chain_end(p: &Planner<'_>, at: Value) -> Value {
    let mut end = at;
    while let Some(user) = p.only_user(end).filter(|_| is_in_chain(p, end)) {
        end = user;
    }
    end
}

/// The operations that run with a node, itself the last.
fn chain(p: &Planner<'_>, at: Value) -> Vec<Value> {
    let mut nodes = vec![at];
    let mut first = at;
    while let Some(&before) = p.graph.node(first).args.first()
        && is_in_chain(p, before)
    {
        nodes.push(before);
        first = before;
    }
    nodes.reverse();
    nodes
}

/// What a node is in a chain, if it can be in one.
fn link(p: &Planner<'_>, at: Value) -> Option<Link> {
    let node = p.graph.node(at);
    let from = p.graph.ty(*node.args.first()?).elem()?;
    match node.op {
        Op::Level(LevelOp::ScaleShift) if matches!(from, Elem::F32 | Elem::I32) => Some(Link::ScaleShift),
        Op::Dense(DenseOp::Centre) => Some(Link::Centre),
        Op::Dense(DenseOp::RmsNorm { eps, heads }) => {
            Some(Link::RmsNorm { eps, width: p.width(at).ok()? / heads as usize })
        }
        Op::Dense(DenseOp::Rotary { heads, pairs }) => Some(Link::Rotary { heads: heads as usize, pairs }),
        Op::Dense(DenseOp::Gated(curve)) => Some(Link::Gated { curve, scaled: false }),
        Op::Dense(DenseOp::Hadamard(size)) => Some(Link::Hadamard(size)),
        Op::Level(LevelOp::Quant { code, steps, curve }) if level_bytes(code, steps) <= 2 => {
            Some(Link::Quant { code, steps, curve })
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// Adds the step of a chain that ends at a node, if there is one of two operations or more.
///
/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<bool, Diagnostic> {
    let nodes = chain(p, at);
    if nodes.len() < 2 {
        return Ok(false);
    }
    let mut links: Vec<Link> = nodes.iter().filter_map(|&node| link(p, node)).collect();
    let is_norm = |node: &&Value| matches!(p.graph.node(**node).op, Op::Dense(DenseOp::RmsNorm { .. }));
    let norm = nodes.iter().find(is_norm).copied();
    let first = p.graph.node(nodes[0]).args[0];
    let (mut inputs, mut constants) = (vec![first], Vec::new());
    for (&node, link) in nodes.iter().zip(&mut links) {
        let args = &p.graph.node(node).args;
        match link {
            Link::Rotary { .. } => inputs.push(args[1]),
            Link::Gated { scaled, .. } => {
                *scaled = is_scaled_factor(p, args[1]);
                let factor = &p.graph.node(args[1]).args;
                inputs.push(if *scaled { factor[0] } else { args[1] });
                constants.extend(if *scaled { &factor[1..] } else { &[] });
            }
            Link::ScaleShift | Link::Centre | Link::RmsNorm { .. } | Link::Hadamard(_) | Link::Quant { .. } => {
                constants.extend(&args[1..]);
            }
        }
    }
    let matrix = links.iter().find_map(|link| match link {
        Link::Hadamard(size) => Some(HadamardMatrix::of(*size)),
        _ => None,
    });
    let width = p.width(at)?;
    let bytes = match links.last() {
        Some(&Link::Quant { code, steps, .. }) => level_bytes(code, steps),
        _ => size_of::<f32>(),
    };
    let kind = ChainStep { links, from: p.elem(first), matrix, width, row_bytes: bytes * width, norm };
    p.step(at, kind, &inputs, &constants)?;
    Ok(true)
}

/// Numbers of rows that go through a chain together: with twice as many results, half of a first-level cache.
const NUMBERS: usize = 2048;

thread_local! {
    /// Results of a thread, by turns, and what a gate multiplies.
    static ROWS: RefCell<[Vec<f32>; 3]> = RefCell::default();
}

impl StepKind for ChainStep {
    fn name(&self) -> String {
        let name = |link: &Link| match link {
            Link::ScaleShift => "scale_shift",
            Link::Centre => "centre",
            Link::RmsNorm { .. } => "rms_norm",
            Link::Rotary { .. } => "rotary",
            Link::Gated { .. } => "gated",
            Link::Hadamard(_) => "hadamard",
            Link::Quant { .. } => "quant",
        };
        self.links.iter().map(name).collect::<Vec<_>>().join(" > ")
    }

    fn counts_spikes(&self) -> bool {
        matches!(self.links.last(), Some(Link::Quant { .. }))
    }

    fn curve_table(&self) -> Option<Curve> {
        let Some(Link::Quant { curve, .. }) = self.links.last() else { return None };
        (*curve != Curve::Identity).then_some(*curve)
    }

    fn checks(&self, node: Value) -> Value {
        self.norm.unwrap_or(node)
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, second, _], out, events, .. } = call;
        let (kernels, tables, count) = (resources.kernels, resources.tables, resources.count);
        let work = ChainWork { step: self, kernels, constants, tables, count };
        let some = (NUMBERS / self.width).max(1);
        let beside = second.len() / (out.len() / self.row_bytes).max(1);
        let fired = dispatch::by_rows(resources.pool, out, self.row_bytes, |first, out| {
            let mut all = SpikeCount::default();
            for (i, out) in out.chunks_mut(some * self.row_bytes).enumerate() {
                let (row, rows) = (first + i * some, out.len() / self.row_bytes);
                let x = &x[4 * row * self.width..][..4 * rows * self.width];
                all += work.rows(x, &second[row * beside..][..rows * beside], out)?;
            }
            Ok(all)
        })?;
        let SpikeCount { spikes, active, saturated } = fired;
        *events += Events { spikes, active, saturated, ..Events::default() };
        Ok(())
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
    fn rows(&self, x: &[u8], second: &[u8], out: &mut [u8]) -> Result<SpikeCount, Fault> {
        ROWS.with_borrow_mut(|[a, b, factors]| {
            let len = x.len() / size_of::<f32>();
            a.resize(len, 0.0);
            b.resize(len, 0.0);
            let (mut from, mut to) = (a, b);
            let mut constant = 0;
            for (i, link) in self.step.links.iter().enumerate() {
                let read = if i == 0 { None } else { Some(&from[..]) };
                let last = i + 1 == self.step.links.len();
                if let (&Link::Quant { code, steps, curve }, Some(read)) = (link, read) {
                    return self.levels(read, (code, steps, curve), constant, out);
                }
                let write = if last { numbers_mut(out)? } else { &mut to[..] };
                constant += self.link(link, read, [x, second], constant, factors, write)?;
                std::mem::swap(&mut from, &mut to);
            }
            Ok(SpikeCount::default())
        })
    }

    /// One operation on rows of f32, or on the chain's first operand; how many constants it takes.
    fn link(
        &self,
        link: &Link,
        read: Option<&[f32]>,
        [x, second]: [&[u8]; 2],
        constant: usize,
        factors: &mut Vec<f32>,
        y: &mut [f32],
    ) -> Result<usize, Fault> {
        let reals = || read.map_or_else(|| numbers(x), Ok);
        match *link {
            Link::ScaleShift => {
                let (gain, offset) = (self.constants.f32(constant)?, self.constants.f32(constant + 1)?);
                if read.is_none() && self.step.from == Elem::I32 {
                    self.kernels.scale_shift(numbers::<i32>(x)?, gain, offset, None, y);
                } else {
                    self.kernels.scale_shift(reals()?, gain, offset, None, y);
                }
                return Ok(2);
            }
            Link::Centre => self.kernels.centre(reals()?, self.step.width, y),
            Link::RmsNorm { eps, width } => check_finite(self.kernels.rms_norm(reals()?, width, eps.get(), y))?,
            Link::Rotary { heads, pairs } => {
                self.kernels.rotary(reals()?, numbers(second)?, self.step.width, heads, pairs, y);
            }
            Link::Gated { curve, scaled: false } => {
                self.kernels.gated_f32(curve, reals()?, numbers(second)?, y);
            }
            Link::Gated { curve, scaled: true } => {
                let (gain, offset) = (self.constants.f32(constant)?, self.constants.f32(constant + 1)?);
                factors.resize(y.len(), 0.0);
                self.kernels.scale_shift(numbers::<i32>(second)?, gain, offset, None, factors);
                self.kernels.gated_f32(curve, reals()?, factors, y);
                return Ok(2);
            }
            Link::Hadamard(_) => {
                self.kernels.hadamard(reals()?, self.step.matrix.as_ref().ok_or(Fault::Misfit)?, y);
            }
            Link::Quant { .. } => return Err(Fault::Misfit),
        }
        Ok(0)
    }

    /// The neurons at the end.
    fn levels(
        &self,
        x: &[f32],
        (code, steps, curve): (Code, u16, Curve),
        constant: usize,
        out: &mut [u8],
    ) -> Result<SpikeCount, Fault> {
        let count = self.count.then_some(code);
        let neuron: NeuronParams<'_> =
            neuron_params(self.constants, constant, self.tables, curve, code.levels(steps), count)?;
        Ok(match level_bytes(code, steps) {
            1 => self.kernels.quantise::<f32, i8>(x, &neuron, numbers_mut(out)?),
            _ => self.kernels.quantise::<f32, i16>(x, &neuron, numbers_mut(out)?),
        })
    }
}
