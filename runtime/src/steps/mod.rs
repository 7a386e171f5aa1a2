//! The kinds of steps, one file each, and which of them an operation becomes.
//!
//! A file has the step's sizes, its plan, what it runs, what it counts and its name (`crate::step::StepKind`). A new kind is a
//! new file and a row of the table below.

mod add;
mod at_start;
mod attention;
mod chain;
mod chain_step;
mod check;
mod coincidence;
mod curve;
mod decode;
mod embed;
mod gated;
mod gather_channels;
mod hadamard;
mod head_linear;
mod heads;
mod linear;
mod linear_attention;
mod matmul_int;
mod neuron;
mod norm;
mod rotary;
mod row_max_abs;
mod scale;
mod scale_shift;
mod scaled_sums;
mod synapse;
mod time_stepped;
mod ttfs;

use crate::plan::Plan;
use crate::planner::Planner;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::op::{Binary, Op};
use snnc_ir::{Diagnostic, Graph, Ssa, Value};

/// The plan of a graph, for passes of at most `chunk` tokens.
///
/// # Errors
/// The graph has an operation or an operand that no step fits.
pub fn plan(graph: &Graph, chunk: usize) -> Result<Plan, Diagnostic> {
    let mut planner = Planner::new(graph, chunk);
    planner.chained = chain::readers(&planner, &[]);
    let alone = chain::norms_alone(&planner);
    planner.chained = chain::readers(&planner, &alone);
    for (value, _) in graph.iter() {
        planner.check(value)?;
        check::plan(&mut planner, value)?;
        if !chain::absorbed(&planner, value) && !chain::plan(&mut planner, value)? {
            plan_node(&mut planner, value)?;
        }
    }
    Ok(planner.finish())
}

/// Adds the steps of a node: the table of what runs which operation.
fn plan_node(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    match p.graph.node(at).op {
        Op::Leaf(LeafOp::Weight(_)) => Ok(()),
        Op::Leaf(LeafOp::Tokens) => p.tokens(at),
        Op::Leaf(LeafOp::Positions) => p.positions(at),
        Op::Leaf(LeafOp::Opening) => p.opening(at),
        Op::Leaf(LeafOp::Stream(_)) => p.stream(at),
        Op::Dense(DenseOp::Embed) => embed::plan(p, at),
        Op::Dense(DenseOp::Centre) => norm::plan_centre(p, at),
        Op::Dense(DenseOp::RmsNorm { eps, heads }) => norm::plan_rms(p, at, eps, heads as usize),
        Op::Dense(DenseOp::Rotary { heads, pairs }) => rotary::plan(p, at, heads as usize, pairs),
        Op::Dense(DenseOp::AtStart) => at_start::plan(p, at),
        Op::Dense(DenseOp::Hadamard(size)) => hadamard::plan(p, at, size),
        Op::Dense(DenseOp::Gated(curve)) => gated::plan(p, at, curve),
        Op::Dense(DenseOp::Linear(layout)) => linear::plan(p, at, layout),
        Op::Dense(DenseOp::Curve(curve)) => curve::plan(p, at, curve),
        Op::Dense(DenseOp::Attention { heads, scale }) => attention::plan(p, at, heads, scale),
        Op::Level(LevelOp::Quant { code, steps, curve }) => neuron::plan(p, at, code, steps, curve, false),
        Op::Spike(SpikeOp::Fire { code, steps, curve }) => neuron::plan(p, at, code, steps, curve, true),
        Op::Level(LevelOp::GatedQuant { code, steps, curve }) => gated::plan_neuron(p, at, code, steps, curve, false),
        Op::Spike(SpikeOp::GatedFire { code, steps, curve }) => gated::plan_neuron(p, at, code, steps, curve, true),
        Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => time_stepped::plan(p, at, membrane, steps, curve),
        Op::Level(LevelOp::MatMulInt) => matmul_int::plan(p, at),
        Op::Spike(SpikeOp::Synapse) => synapse::plan_currents(p, at),
        Op::Spike(SpikeOp::Decode) => decode::plan(p, at),
        Op::Level(LevelOp::ScaleShift) => scale_shift::plan(p, at),
        Op::Level(LevelOp::Ssa { heads, variant }) => match variant {
            Ssa::Ttfs { phases } => ttfs::plan(p, at, heads, phases, None),
            Ssa::TopK { phases, keys } => ttfs::plan(p, at, heads, phases, Some(keys)),
            Ssa::Coincidence { squared } => coincidence::plan(p, at, heads, squared, None),
            Ssa::Lif { output } => coincidence::plan(p, at, heads, false, Some(output)),
            Ssa::Linear { guard } => linear_attention::plan(p, at, heads, guard),
        },
        Op::Level(LevelOp::HeadLinear) => head_linear::plan(p, at),
        Op::Array(ArrayOp::Binary(Binary::Add)) => add::plan(p, at),
        Op::Array(ArrayOp::Binary(Binary::Mul)) => scale::plan(p, at, false),
        Op::Array(ArrayOp::Binary(Binary::Div)) => scale::plan(p, at, true),
        Op::Level(LevelOp::RowMaxAbs { heads }) => row_max_abs::plan(p, at, heads),
        Op::Level(LevelOp::GatherChannels) => gather_channels::plan(p, at),
        Op::Array(_) | Op::Training(_) => Err(p.misfit(at, "no step runs it; programs are raised before they are run")),
    }
}
