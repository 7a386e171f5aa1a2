//! What is said of a network that no rule could raise: what it is, where that can be told, else what is in the way.

use super::build::WEAKEST;
use crate::egraph::term::Terms;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Diagnostic, Graph, Op, Unary, Value};

const TAKEN: &str = "snnc takes decoders: embeddings, learned or rotary positions or ALiBi, LayerNorm or RMSNorm, causal softmax attention \
                     (heads may share keys, a window may end it), MLPs with ReLU, GELU or SiLU, gated or not, a linear head";

/// All parts of the network that are not taken, where they can be called by name; else every operation in the way. Never nothing.
pub(super) fn unraised(terms: &Terms, graph: &Graph, stuck: &[egg::Id]) -> Diagnostics {
    if let Some(cause) = uncausal(graph) {
        return cause.note(TAKEN).into();
    }
    let kind = |(is, what): &(PartKind, &str)| {
        let value = is(graph)?;
        Some(Diagnostic::new(graph.origin(value), format!("{what} is not supported")))
    };
    let mut all: Diagnostics = KINDS.iter().filter_map(kind).collect();
    if all.is_empty() {
        all = in_the_way(terms, graph, stuck);
    }
    if let Some(first) = all.first_mut() {
        *first = std::mem::replace(first, Diagnostic::new("", "")).note(TAKEN);
    }
    all
}

/// The operations that no rule could raise.
fn in_the_way(terms: &Terms, graph: &Graph, stuck: &[egg::Id]) -> Diagnostics {
    let one = |&id: &egg::Id| {
        let class = &terms[id];
        let place = graph.origins.get_index(class.data.origin as usize).cloned().unwrap_or_default();
        let mut ops: Vec<String> = class.nodes.iter().map(|term| format!("`{}`", term.op)).collect();
        ops.dedup();
        Diagnostic::new(place, format!("{} of type {} is not part of a decoder", ops.join(" = "), class.data.ty))
    };
    let is_mask =
        |id: &&egg::Id| terms[**id].nodes.iter().any(|term| matches!(term.op, Op::Array(ArrayOp::CausalMask { .. })));
    // A mask is stuck wherever the scores that it belongs to are.
    let (masks, others): (Vec<&egg::Id>, Vec<&egg::Id>) = stuck.iter().partition(is_mask);
    let mut all: Diagnostics = others.into_iter().map(one).collect();
    all.dedup();
    if all.is_empty() {
        let scores = |id: &&egg::Id| Diagnostic {
            message: "the scores that this mask is put on are those of no attention that is known".into(),
            ..one(id)
        };
        all = masks.iter().map(scores).collect();
    }
    if all.is_empty() {
        all = Diagnostic::new("", "no part of the network is in the way, but no decoder was found in it").into();
    }
    all
}

/// How much a mask takes from the scores of later tokens, by value of a square; none where nothing does.
fn hidden(graph: &Graph) -> Vec<Option<f32>> {
    let is_square = |value: Value| matches!(graph.ty(value).shape().dims(), [.., Dim::Tokens, Dim::Tokens]);
    let mut hidden: Vec<Option<f32>> = vec![None; graph.nodes.len()];
    for (value, node) in graph.iter() {
        let of_args = || {
            let args = node.args.iter().filter(|arg| is_square(**arg)).filter_map(|arg| hidden[arg.index()]);
            args.reduce(f32::min)
        };
        hidden[value.index()] = match node.op {
            // A mask that selects or multiplies hides all.
            Op::Array(ArrayOp::CausalMask { keep, drop, .. }) if keep.get() == 0.0 && drop.get() < 0.0 => {
                Some(drop.get())
            }
            Op::Array(ArrayOp::CausalMask { keep, drop, .. }) if keep.get() != 0.0 && drop.get() < -1.0 => {
                Some(drop.get() - keep.get())
            }
            Op::Array(ArrayOp::CausalMask { .. }) => Some(f32::NEG_INFINITY),
            Op::Array(ArrayOp::Where) if node.args.first().is_some_and(|arg| hidden[arg.index()].is_some()) => {
                Some(f32::NEG_INFINITY)
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => of_args(),
        };
    }
    hidden
}

/// The first attention that no mask keeps from later tokens.
fn uncausal(graph: &Graph) -> Option<Diagnostic> {
    let is_square = |value: Value| matches!(graph.ty(value).shape().dims(), [.., Dim::Tokens, Dim::Tokens]);
    let hidden = hidden(graph);
    let softmaxes =
        graph.iter().filter(|(value, node)| matches!(node.op, Op::Array(ArrayOp::Softmax)) && is_square(*value));
    for (value, node) in softmaxes {
        match hidden[node.args[0].index()] {
            None => {
                let message = "attention sees later tokens: no causal mask is put on its scores";
                let advice = "a decoder that was exported for one new token at a time has none; give snnc the one without a past, or the merged one";
                return Some(Diagnostic::new(graph.origin(value), message).note(advice));
            }
            Some(by) if by > WEAKEST => {
                let message = format!(
                    "attention sees later tokens: its mask is too weak to be causal, it takes {} off their scores and {} are needed",
                    -by, -WEAKEST
                );
                return Some(Diagnostic::new(graph.origin(value), message));
            }
            Some(_) => {}
        }
    }
    None
}

/// Finds where a graph has a part of a kind.
type PartKind = fn(&Graph) -> Option<Value>;

/// Parts that are not taken, by what they are.
const KINDS: &[(PartKind, &str)] = &[
    (capped, "capping scores by tanh"),
    (slopes, "a bias of scores by position that does not fall evenly with the distance"),
    (head_means, "a LayerNorm of each head on its own"),
    (scaled_by_position, "a product with numbers of the position that is no rotation of pairs of channels"),
];

fn find(graph: &Graph, is: impl Fn(&Op, &[Value]) -> bool) -> Option<Value> {
    graph.iter().find(|(_, node)| is(&node.op, &node.args)).map(|(value, _)| value)
}

fn capped(graph: &Graph) -> Option<Value> {
    let is_square = |value: Value| matches!(graph.ty(value).shape().dims(), [.., Dim::Tokens, Dim::Tokens]);
    find(graph, |op, args| *op == Op::Array(ArrayOp::Unary(Unary::Tanh)) && is_square(args[0]))
}

/// Whether a value is rows of a table by position, moved as it may be.
fn is_positional(graph: &Graph, mut value: Value) -> bool {
    loop {
        let node = graph.node(value);
        match node.op {
            Op::Leaf(LeafOp::Positions) => return true,
            Op::Dense(DenseOp::Embed) | Op::Array(ArrayOp::Reshape(_) | ArrayOp::Transpose(_)) => value = node.args[0],
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => return false,
        }
    }
}

fn is_square(graph: &Graph, value: Value) -> bool {
    matches!(graph.ty(value).shape().dims(), [.., Dim::Tokens, Dim::Tokens] | [Dim::Tokens, .., Dim::Tokens])
        && graph.ty(value).shape().rank() > 1
}

/// Numbers of a key's position that are added to scores.
fn slopes(graph: &Graph) -> Option<Value> {
    find(graph, |op, args| {
        matches!(op, Op::Array(ArrayOp::Binary(Binary::Add | Binary::Sub)))
            && args.iter().any(|arg| is_square(graph, *arg))
            && args.iter().any(|arg| is_positional(graph, *arg))
    })
}

/// A mean of channels that are neither a row nor squares.
fn head_means(graph: &Graph) -> Option<Value> {
    find(graph, |op, args| {
        let of = |value: Value| graph.node(value);
        let is_power = |value: Value| match of(value).op {
            Op::Array(ArrayOp::Binary(Binary::Mul)) => of(value).args[0] == of(value).args[1],
            Op::Array(ArrayOp::Binary(Binary::Pow)) => true,
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        };
        *op == Op::Array(ArrayOp::Mean) && graph.ty(args[0]).shape().row_width().is_none() && !is_power(args[0])
    })
}

/// Channels times numbers of their position, where that was found to be no rotation.
fn scaled_by_position(graph: &Graph) -> Option<Value> {
    find(graph, |op, args| {
        *op == Op::Array(ArrayOp::Binary(Binary::Mul))
            && args.iter().any(|arg| is_positional(graph, *arg))
            && !args.iter().all(|arg| is_positional(graph, *arg))
    })
}
