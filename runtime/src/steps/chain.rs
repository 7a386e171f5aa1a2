//! Operations row by row of which each is read by the next alone: which of them run together, in a step of `chain_step`.
//!
//! A chain has scales and shifts, factors of rows, norms, rotations, gates and Hadamard transforms, and perhaps neurons at its end.
//! What a gate multiplies may be a scale and shift of sums, which then runs in the chain as well. Where levels have thresholds of
//! their tokens, the chain that makes the potentials also gives their peaks. What it gives is to the bit what its operations give
//! one after the other. Spike trains and levels of 32 bits have steps of their own.

use crate::layout::level_bytes;
use crate::planner::Planner;
use crate::steps::chain_step::{ChainLink, ChainStep, Factor, Link};
use crate::steps::scale_shift;
use crate::steps::scaled_sums::{self, ScaledSums, scaled_sums};
use snnc_ir::finite::checked_operands;
use snnc_ir::hadamard::HadamardMatrix;
use snnc_ir::op::{ArrayOp, Binary, DenseOp, LevelOp, Op};
use snnc_ir::types::{Elem, Shape};
use snnc_ir::{Diagnostic, Value};

/// Most values that a chain reads beside its first operand.
const OPERANDS: usize = 2;

/// What a chain has one of, or few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// The check of a norm.
    Check,
    /// The matrix of a transform.
    Matrix,
    /// A value that is read beside the first operand.
    Operand(Value),
}

/// Whether another step runs a node as well.
pub fn absorbed(p: &Planner<'_>, node: Value) -> bool {
    let is_peak = || p.users(node).iter().any(|&user| share(p, user).is_some_and(|peak| peak == node));
    p.chained[node.index()].is_some() || scaled_sums::absorbed(p, node) || is_scaled_factor(p, node) || is_peak()
}

/// By node: the operation behind it that runs it in its chain. `alone`: norms that nothing runs, in ascending order.
pub fn readers(p: &Planner<'_>, alone: &[Value]) -> Vec<Option<Value>> {
    let mut all = vec![None; p.graph.nodes.len()];
    // What the chain that ends at a node holds so far.
    let mut held: Vec<Vec<Holding>> = Vec::with_capacity(all.len());
    for (node, _) in p.graph.iter() {
        let mut holds = own_holdings(p, node);
        if let Some(&before) = p.graph.node(node).args.first()
            && all[before.index()] == Some(node)
        {
            holds.extend(&held[before.index()]);
        }
        let fits = |user: &Value| {
            !alone.contains(&node) && go_together(p, node, *user) && is_room(&holds, own_holdings(p, *user))
        };
        all[node.index()] = reader(p, node).filter(fits);
        held.push(holds);
    }
    all
}

/// The one operation that reads a node, or that shares it with the peaks of its rows.
fn reader(p: &Planner<'_>, node: Value) -> Option<Value> {
    let shares = |user: &Value| p.graph.node(*user).args[0] == node && share(p, *user).is_some();
    p.only_user(node).or_else(|| p.users(node).iter().copied().find(shares))
}

/// Whether a node and what reads it can run in a chain, whatever else it has.
fn go_together(p: &Planner<'_>, node: Value, user: Value) -> bool {
    let (Some(own), Some(next)) = (link(p, node), link(p, user)) else { return false };
    let follows = match own {
        Link::Quant { .. } | Link::GatedQuant { .. } => false,
        Link::Share => matches!(next, Link::Quant { .. }),
        _ => true,
    };
    let fused = |add: Value| scale_shift::fused(p, add) == Some(user);
    let checked = p.unproven[node.index()] && checked_operands(p.graph, user).any(|operand| operand == node);
    let first = p.graph.node(user).args[0] == node && !scaled_sums::absorbed(p, node);
    follows && first && !checked && !p.only_user(user).is_some_and(fused)
}

/// What an operation holds of its chain.
fn own_holdings(p: &Planner<'_>, at: Value) -> Vec<Holding> {
    let node = p.graph.node(at);
    let operands = |values: &[Value]| values.iter().map(|&value| Holding::Operand(value)).collect();
    match (node.op, scaled_sums(p, at)) {
        (_, Some(of)) => operands(&[of.by]),
        (Op::Dense(DenseOp::RmsNorm { .. }), _) => vec![Holding::Check],
        (Op::Dense(DenseOp::Hadamard(_)), _) => vec![Holding::Matrix],
        (Op::Dense(DenseOp::Rotary { .. }), _) => operands(&node.args[1..]),
        (Op::Dense(DenseOp::Gated(_)) | Op::Level(LevelOp::GatedQuant { .. }), _) => match factor(p, at) {
            FactorInputs::Reals => operands(&node.args[1..2]),
            FactorInputs::Sums(args) => operands(&args[..1]),
            FactorInputs::Scaled(of) => operands(&[of.sums, of.by]),
        },
        (Op::Array(ArrayOp::Binary(Binary::Mul | Binary::Div)), _) if share(p, at).is_none() => {
            operands(&node.args[1..])
        }
        (Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_), None) => Vec::new(),
    }
}

/// Whether a chain can hold more.
fn is_room(held: &[Holding], more: Vec<Holding>) -> bool {
    let mut all = Vec::new();
    for holding in held.iter().copied().chain(more) {
        let again = all.contains(&holding);
        match holding {
            Holding::Check | Holding::Matrix if again => return false,
            Holding::Check | Holding::Matrix | Holding::Operand(_) => all.extend((!again).then_some(holding)),
        }
    }
    all.iter().filter(|holding| matches!(holding, Holding::Operand(_))).count() <= OPERANDS
}

/// The peaks of the rows that a node is divided by, if the node's chain makes them: nothing needs a check, and what else reads
/// them comes after the chain.
fn share(p: &Planner<'_>, at: Value) -> Option<Value> {
    let node = p.graph.node(at);
    let (Op::Array(ArrayOp::Binary(Binary::Div)), &[x, peak]) = (node.op, node.args.as_slice()) else { return None };
    let of_peak = p.graph.node(peak);
    if of_peak.op != Op::Level(LevelOp::RowMaxAbs { heads: 1 }) || of_peak.args[0] != x || p.users(x) != [peak, at] {
        return None;
    }
    let is_output = |value: Value| p.graph.outputs.iter().any(|(_, output)| *output == value);
    let scales = p.graph.node(x).op == Op::Level(LevelOp::ScaleShift) && link(p, x).is_some();
    let proven = !p.unproven[x.index()] && !p.unproven[peak.index()];
    let end = p.only_user(at).filter(|&user| matches!(link(p, user), Some(Link::Quant { .. }))).unwrap_or(at);
    let later = p.users(peak).iter().all(|&user| user == at || user > end);
    let same_rows = p.row_set(peak) == p.row_set(end);
    (scales && proven && later && same_rows && !is_output(x) && !is_output(peak)).then_some(peak)
}

/// What a gate multiplies.
enum FactorInputs<'g> {
    Reals,
    /// Operands of a scale and shift of sums.
    Sums(&'g [Value]),
    Scaled(ScaledSums),
}

fn factor<'g>(p: &Planner<'g>, gate: Value) -> FactorInputs<'g> {
    let graph = p.graph;
    let value = graph.node(gate).args[1];
    let node = graph.node(value);
    // What is checked has to be there.
    let checked = p.unproven[value.index()] && checked_operands(graph, gate).any(|operand| operand == value);
    if checked || p.only_user(value).is_none() {
        return FactorInputs::Reals;
    }
    if let Some(of) = scaled_sums(p, value) {
        return FactorInputs::Scaled(of);
    }
    let sums = node.op == Op::Level(LevelOp::ScaleShift) && graph.ty(node.args[0]).elem() == Some(Elem::I32);
    if sums { FactorInputs::Sums(&node.args) } else { FactorInputs::Reals }
}

/// Whether a node is a scale and shift of sums that a gate multiplies which runs in a chain.
fn is_scaled_factor(p: &Planner<'_>, node: Value) -> bool {
    let Some(user) = p.only_user(node) else { return false };
    let gate = p.graph.node(user);
    let (Op::Dense(DenseOp::Gated(_)) | Op::Level(LevelOp::GatedQuant { .. })) = gate.op else { return false };
    let in_chain = |value: Value| p.chained[value.index()].is_some();
    gate.args[1] == node
        && !matches!(factor(p, user), FactorInputs::Reals)
        && (in_chain(user) || p.chained[gate.args[0].index()] == Some(user))
}

/// Norms whose chain would run behind a check that comes after theirs, that of the chain's last operation among them: of several
/// values that are not finite, all engines report the same one. In ascending order.
pub fn norms_alone(p: &Planner<'_>) -> Vec<Value> {
    let mut alone = Vec::new();
    // Operations with a check, the last first, and the node at which each is checked.
    let mut checks: Vec<(Value, Value)> = Vec::new();
    for (at, node) in p.graph.iter().rev() {
        if let Op::Dense(DenseOp::RmsNorm { .. }) = node.op {
            let end = chain_end(p, at);
            let overtakes =
                checks.iter().rev().take_while(|(later, _)| *later <= end).any(|(_, checked)| *checked <= end);
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
    while let Some(user) = p.chained[end.index()] {
        end = user;
    }
    end
}

/// The operations that run with a node, itself the last.
fn chain(p: &Planner<'_>, at: Value) -> Vec<Value> {
    let mut nodes = vec![at];
    let mut first = at;
    while let Some(&before) = p.graph.node(first).args.first()
        && p.chained[before.index()] == Some(first)
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
    if let Some(of) = scaled_sums(p, at) {
        return Some(Link::ScaledSums { shift: of.is_shifted() });
    }
    match node.op {
        Op::Level(LevelOp::ScaleShift) if matches!(from, Elem::F32 | Elem::I32) => Some(Link::ScaleShift),
        Op::Array(ArrayOp::Binary(kind @ (Binary::Mul | Binary::Div))) => {
            let width = p.width(at).ok()?;
            let fits = |i: usize, width| p.graph.ty(node.args[i]).shape() == Shape::rows(width);
            let link = if share(p, at).is_some() { Link::Share } else { Link::ByRow { divide: kind == Binary::Div } };
            (from == Elem::F32 && fits(0, width) && fits(1, 1)).then_some(link)
        }
        Op::Dense(DenseOp::Centre) => Some(Link::Centre),
        Op::Dense(DenseOp::RmsNorm { eps, heads }) => {
            Some(Link::RmsNorm { eps, width: p.width(at).ok()? / heads as usize })
        }
        Op::Dense(DenseOp::Rotary { heads, pairs }) => Some(Link::Rotary { heads: heads as usize, pairs }),
        Op::Dense(DenseOp::Gated(curve)) => Some(Link::Gated { curve, factor: Factor::Reals }),
        Op::Dense(DenseOp::Hadamard(size)) => Some(Link::Hadamard(size)),
        Op::Level(LevelOp::Quant { code, steps, curve }) if level_bytes(code, steps) <= 2 => {
            Some(Link::Quant { code, steps, curve })
        }
        Op::Level(LevelOp::GatedQuant { code, steps, curve })
            if level_bytes(code, steps) <= 2 && [from, p.elem(node.args[1])] == [Elem::F32; 2] =>
        {
            Some(Link::GatedQuant { code, steps, curve, factor: Factor::Reals })
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// The links of a chain, its inputs and its constants, as they are found.
#[derive(Default)]
struct ChainParts {
    links: Vec<ChainLink>,
    /// Beside the first operand.
    operands: Vec<Value>,
    constants: Vec<Value>,
}

impl ChainParts {
    /// Adds an operation with what it reads. What several read is one input.
    fn add(&mut self, link: Link, operands: &[Value], constants: &[Value]) {
        let mut places = [0; OPERANDS];
        for (place, operand) in places.iter_mut().zip(operands) {
            *place = self.operands.iter().position(|known| known == operand).unwrap_or(self.operands.len());
            if *place == self.operands.len() {
                self.operands.push(*operand);
            }
        }
        self.links.push(ChainLink { link, operands: places, constant: self.constants.len() });
        self.constants.extend(constants);
    }
}

/// The same gate, with what it multiplies in another form.
fn with_factor(link: Link, factor: Factor) -> Link {
    match link {
        Link::Gated { curve, .. } => Link::Gated { curve, factor },
        Link::GatedQuant { code, steps, curve, .. } => Link::GatedQuant { code, steps, curve, factor },
        link => link,
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
    let is_norm = |node: &&Value| matches!(p.graph.node(**node).op, Op::Dense(DenseOp::RmsNorm { .. }));
    let norm = nodes.iter().find(is_norm).copied();
    let peak = nodes.iter().find_map(|&node| share(p, node));
    let mut first = p.graph.node(nodes[0]).args[0];
    let mut parts = ChainParts::default();
    for &node in &nodes {
        let args = &p.graph.node(node).args;
        let Some(link) = link(p, node) else { return Err(p.misfit(node, "it is no operation of a chain")) };
        match link {
            Link::ScaledSums { .. } => {
                let Some(of) = scaled_sums(p, node) else { return Err(p.misfit(node, "it multiplies no sums")) };
                first = of.sums;
                parts.add(link, &[of.by], &of.constants);
            }
            Link::Gated { .. } | Link::GatedQuant { .. } => {
                let own = &args[2..];
                match factor(p, node) {
                    FactorInputs::Reals => parts.add(link, &args[1..2], own),
                    FactorInputs::Sums(inner) => {
                        parts.add(with_factor(link, Factor::Sums), &inner[..1], &[own, &inner[1..]].concat());
                    }
                    FactorInputs::Scaled(of) => {
                        let link = with_factor(link, Factor::ScaledSums { shift: of.is_shifted() });
                        parts.add(link, &[of.sums, of.by], &[own, &of.constants].concat());
                    }
                }
            }
            Link::Rotary { .. } | Link::ByRow { .. } => parts.add(link, &args[1..], &[]),
            Link::Share => parts.add(link, &[], &[]),
            Link::ScaleShift | Link::Centre | Link::RmsNorm { .. } | Link::Hadamard(_) | Link::Quant { .. } => {
                parts.add(link, &[], &args[1..]);
            }
        }
    }
    let size = parts.links.iter().find_map(|at| if let Link::Hadamard(size) = at.link { Some(size) } else { None });
    let matrix = size.map(HadamardMatrix::of);
    let width = p.width(at)?;
    let bytes = match parts.links.last().map(|at| at.link) {
        Some(Link::Quant { code, steps, .. } | Link::GatedQuant { code, steps, .. }) => level_bytes(code, steps),
        _ => size_of::<f32>(),
    };
    let ChainParts { links, operands, constants } = parts;
    let kind = ChainStep { links, from: p.elem(first), matrix, width, row_bytes: bytes * width, norm };
    let inputs: Vec<Value> = [first].into_iter().chain(operands).collect();
    p.step(at, kind, &inputs, &constants)?;
    if let Some(peak) = peak {
        p.also(peak)?;
    }
    Ok(true)
}
