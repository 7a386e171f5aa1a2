//! What sums of a program cannot exceed, whatever its levels (rule 12 of the verifier): engines choose their integers by it.

use crate::graph::{Graph, Node, Weight};
use crate::nibbles::{ELEMENT_MOST, GroupedSizes};
use crate::op::{ArrayOp, Binary, DenseOp, Heads, LeafOp, LevelOp, Op};
use crate::ssa::meaning::{FIRST_SPIKE_WEIGHT, FRESH};
use crate::ssa::{Output, Ssa};
use crate::stage::Stage;
use crate::tensor::Tensor;
use crate::types::{Elem, Type};
use crate::value::Value;

/// Largest weight: -128 is left out so that negating is safe.
const WEIGHT_MAX: u64 = 127;

/// What sums of a spiking attention cannot exceed.
pub(crate) struct SumBounds {
    /// A difference of two scores, or a score that is a weight.
    pub scores: u128,
    /// A weighted sum of values.
    pub values: u128,
}

pub(crate) fn attention_sums(graph: &Graph, value: Value) -> SumBounds {
    let node = graph.node(value);
    let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { return SumBounds { scores: 0, values: 0 } };
    let levels = |i: usize| {
        let found = node.args.get(i).and_then(|arg| graph.ty(*arg).levels());
        found.map_or(0, |(code, steps)| code.levels(steps) as u128)
    };
    let head = graph.ty(node.args[0]).shape().width().unwrap_or(0) as u128 / u128::from(heads.query.max(1));
    let context = u128::from(graph.context);
    match variant {
        Ssa::Ttfs { .. } | Ssa::TopK { .. } => SumBounds {
            scores: (2 * head * levels(0) * levels(1)).saturating_add(if heads.alibi { lost(graph, node) } else { 0 }),
            values: FIRST_SPIKE_WEIGHT as u128 * levels(2) * context,
        },
        Ssa::Coincidence { .. } | Ssa::Lif { output: Output::Mean } => {
            let most = head * levels(0);
            let weight = if variant == (Ssa::Coincidence { squared: true }) { most * most } else { most };
            SumBounds { scores: weight, values: weight.saturating_mul(FRESH as u128 * levels(2) * context) }
        }
        Ssa::Lif { output: Output::Spikes } => SumBounds { scores: head, values: head * FRESH as u128 * context },
        Ssa::Linear { guard } => {
            let row = head * levels(0) * levels(1) * (1 << guard) * held(graph, node);
            SumBounds { scores: row, values: row * levels(2) }
        }
    }
}

/// What a score loses at most by ALiBi.
fn lost(graph: &Graph, node: &Node) -> u128 {
    let alibi =
        node_constant(graph, node, node.args.len() - 1).and_then(|weight| weight.tensor.as_f32()).unwrap_or(&[]);
    let most = alibi.iter().copied().fold(0f32, f32::max);
    // Rounded in f32, so with room to spare.
    ((f64::from(graph.context) * f64::from(most) * 1.001) as u128).saturating_add(1)
}

/// Tokens that sums of linear attention hold, at most: what halves every h tokens holds less than 2 h of them.
fn held(graph: &Graph, node: &Node) -> u128 {
    let context = u128::from(graph.context);
    let half_life = node_constant(graph, node, 4).and_then(|weight| weight.tensor.as_i32()).unwrap_or(&[]);
    let of_head = |&every: &i32| match u128::try_from(every) {
        Ok(every) if every > 0 => context.min(2 * every),
        _ => context,
    };
    half_life.iter().map(of_head).max().unwrap_or(context)
}

/// Whether what linear attention keeps fits i32.
pub fn narrow_sums(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    let Op::Level(LevelOp::Ssa { variant: Ssa::Linear { guard }, .. }) = node.op else { return false };
    let levels = |i: usize| {
        let found = node.args.get(i).and_then(|arg| graph.ty(*arg).levels());
        found.map_or(0, |(code, steps)| code.levels(steps) as u128)
    };
    levels(1) * levels(2).max(1) * (1 << guard) * held(graph, node) <= i32::MAX as u128
}

/// Whether the sums of an attention by time to first spike fit i32.
pub fn narrow_attention(graph: &Graph, value: Value) -> bool {
    let SumBounds { scores, values } = attention_sums(graph, value);
    scores.max(values) <= i32::MAX as u128
}

/// What the magnitude of a sum that an i32 holds is at most.
pub const SUM_MAX: u64 = i32::MAX as u64;

/// What the magnitude of a sum of weights times levels cannot exceed. Looks at the weights only if their number and range
/// do not decode it.
pub fn largest_sum(weight: &Tensor, levels: u64) -> u64 {
    if let Some((bytes, sizes)) = weight.as_groups() {
        let cheap = (sizes.inputs() as u64).saturating_mul(ELEMENT_MOST as u64).saturating_mul(levels);
        return if cheap <= SUM_MAX { cheap } else { largest_grouped_sum(bytes, sizes).saturating_mul(levels) };
    }
    let (Some((weights, width)), [inputs, outputs]) = (weight.weights(), weight.sizes()) else { return 0 };
    let cheap = *inputs as u64 * WEIGHT_MAX * levels;
    if cheap <= SUM_MAX {
        return cheap;
    }
    let mut sums = vec![0u64; outputs.next_multiple_of(width)];
    for (sums, panel) in sums.chunks_exact_mut(width).zip(weights.chunks_exact(inputs * width)) {
        for row in panel.chunks_exact(width) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += u64::from(w.unsigned_abs()));
        }
    }
    sums.into_iter().max().unwrap_or(0) * levels
}

/// The largest sum over an output's magnitudes.
fn largest_grouped_sum(bytes: &[u8], sizes: GroupedSizes) -> u64 {
    let mut sums = vec![0u64; sizes.outputs()];
    for row in sizes.elements(bytes).chunks_exact(sizes.outputs().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += u64::from(w.unsigned_abs()));
    }
    sums.into_iter().max().unwrap_or(0)
}

pub(crate) fn node_constant<'g>(graph: &'g Graph, node: &Node, i: usize) -> Option<&'g Weight> {
    node.args.get(i).and_then(|&arg| graph.constant(arg))
}

/// What the magnitude of every value's numbers cannot exceed, by node; infinity where nothing is known. It supposes that
/// what is checked (`finite`) was. Tables and large weights are not looked at: they are finite numbers in the stages that
/// promise it.
pub fn magnitudes(graph: &Graph) -> Vec<f64> {
    let mut all: Vec<f64> = Vec::with_capacity(graph.nodes.len());
    for (_, node) in graph.iter() {
        let magnitude = magnitude(graph, node, &all);
        all.push(magnitude);
    }
    all
}

fn magnitude(graph: &Graph, node: &Node, known: &[f64]) -> f64 {
    let of = |i: usize| node.args.get(i).and_then(|arg| known.get(arg.index())).copied().unwrap_or(f64::INFINITY);
    let constant = |i: usize| largest_number(node_constant(graph, node, i));
    let finite = f64::from(f32::MAX);
    match node.op {
        Op::Leaf(_) => f64::INFINITY,
        Op::Array(ArrayOp::Binary(Binary::Add)) => of(0) + of(1),
        Op::Array(ArrayOp::Binary(Binary::Mul)) => of(0) * of(1),
        // A row over its own largest magnitude.
        Op::Array(ArrayOp::Binary(Binary::Div)) => {
            let peak = graph.node(node.args[1]);
            if peak.op == Op::Level(LevelOp::RowMaxAbs { heads: 1 }) && peak.args[0] == node.args[0] {
                1.0
            } else {
                f64::INFINITY
            }
        }
        // How positions are turned: a small table of cosines and sines.
        Op::Dense(DenseOp::Embed) if graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions) => constant(1),
        Op::Dense(DenseOp::Embed) => match graph.stage {
            Stage::Quantised | Stage::Spiking => finite,
            Stage::Imported | Stage::Tensor | Stage::Training => f64::INFINITY,
        },
        // Without eps, a row of equal numbers has no scale.
        Op::Dense(DenseOp::RmsNorm { eps, heads }) if eps.get() > 0.0 => {
            let width = node.ty.shape().width().unwrap_or(usize::MAX) as f64 / f64::from(heads.max(1));
            2.0 * width.sqrt() + 2.0
        }
        Op::Dense(DenseOp::Centre) => 2.0 * of(0),
        // No curve is above its argument by more than a rounding.
        Op::Dense(DenseOp::Curve(_)) => 2.0 * of(0),
        Op::Dense(DenseOp::Gated(_)) => 2.0 * of(0) * of(1),
        // The sums before they are divided by the root of the size.
        Op::Dense(DenseOp::Hadamard(size)) => 2.0 * size.block() as f64 * of(0),
        Op::Dense(DenseOp::AtStart) => of(0).max(constant(3)),
        Op::Dense(DenseOp::Rotary { .. }) => of(0) * (1.0 + 2.0 * of(1)),
        Op::Level(LevelOp::ScaleShift) => of_numbers(graph, node.args[0], of(0)) * constant(1) + constant(2),
        Op::Level(LevelOp::RowMaxAbs { .. }) => of(0).min(finite).max(1.0),
        Op::Level(LevelOp::GatherChannels) => of(0),
        Op::Level(LevelOp::HeadLinear) => {
            let inputs = graph.ty(node.args[1]).shape().dims().get(1).map_or(usize::MAX, |dim| dim.size(1, 0));
            of(0) * constant(1) * inputs as f64
        }
        // A quotient of 64-bit integers, perhaps times a threshold.
        Op::Level(LevelOp::Ssa { heads: Heads { thresholds: true, .. }, .. }) => 2f64.powi(64) * of(5),
        Op::Level(LevelOp::Ssa { .. }) => 2f64.powi(64),
        Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => f64::INFINITY,
    }
}

/// Bound of an operand that may be integers.
fn of_numbers(graph: &Graph, value: Value, known: f64) -> f64 {
    match graph.ty(value) {
        Type::Tensor { elem: Elem::Level(code, steps), .. } => f64::from(code.levels(steps)),
        Type::Tensor { elem: Elem::I32 | Elem::I8 | Elem::I4(_), .. } => 2f64.powi(31),
        Type::Tensor { elem: Elem::F32, .. } | Type::Train { .. } => known,
    }
}

fn largest_number(weight: Option<&Weight>) -> f64 {
    let numbers = weight.and_then(|weight| weight.tensor.as_f32());
    numbers.map_or(f64::INFINITY, |numbers| {
        let most =
            numbers.iter().fold(0f64, |most, x| if f64::from(x.abs()) > most { f64::from(x.abs()) } else { most });
        if numbers.iter().all(|x| x.is_finite()) { most } else { f64::INFINITY }
    })
}
