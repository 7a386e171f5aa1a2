//! What is said of a network that no rule could raise: what it is, where that can be told, else what is in the way.

use super::build::WEAKEST;
use crate::egraph::term::Terms;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp};
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Diagnostic, Graph, Op, Unary, Value};

const TAKEN: &str =
    "snnc takes GPT-2: embeddings, LayerNorm, causal softmax attention, MLPs with ReLU, GELU or SiLU, a linear head";

/// One line where the network is known to be another one; else every operation in the way. Never nothing.
pub(super) fn unraised(terms: &Terms, graph: &Graph, stuck: &[egg::Id]) -> Diagnostics {
    if let Some(cause) = uncausal(graph) {
        return cause.note(TAKEN).into();
    }
    if let Some((value, what)) = KINDS.iter().find_map(|(is, what)| Some((is(graph)?, what))) {
        return Diagnostic::new(graph.origin(value), format!("this is not a GPT-2: it has {what}")).note(TAKEN).into();
    }
    let one = |&id: &egg::Id| {
        let class = &terms[id];
        let place = graph.origins.get_index(class.data.origin as usize).cloned().unwrap_or_default();
        let mut ops: Vec<String> = class.nodes.iter().map(|term| format!("`{}`", term.op)).collect();
        ops.dedup();
        Diagnostic::new(place, format!("{} of type {} is not part of a GPT-2 block", ops.join(" = "), class.data.ty))
    };
    let is_mask =
        |id: &&egg::Id| terms[**id].nodes.iter().any(|term| matches!(term.op, Op::Array(ArrayOp::CausalMask { .. })));
    // A mask is stuck wherever the scores that it belongs to are.
    let (masks, others): (Vec<&egg::Id>, Vec<&egg::Id>) = stuck.iter().partition(is_mask);
    let mut all: Diagnostics = others.into_iter().map(one).collect();
    all.dedup();
    if all.is_empty() {
        let scores = |id: &&egg::Id| Diagnostic {
            message: "the scores that this mask is put on are those of no attention that GPT-2 has".into(),
            ..one(id)
        };
        all = masks.iter().map(scores).collect();
    }
    if all.is_empty() {
        all = Diagnostic::new("", "no part of the network is in the way, but no GPT-2 was found in it").into();
    }
    if let Some(first) = all.first_mut() {
        *first = std::mem::replace(first, Diagnostic::new("", "")).note(TAKEN);
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

/// Finds where a graph shows that it is another kind of network.
type NetworkKind = fn(&Graph) -> Option<Value>;

/// Networks that are not GPT-2, by what they have.
const KINDS: &[(NetworkKind, &str)] = &[
    (root_mean_square, "RMSNorm in place of LayerNorm"),
    (shared_keys, "keys and values that several heads share (multi-query attention)"),
    (capped, "scores that are capped by tanh"),
    (gated, "gated MLPs: a product of two projections"),
];

fn find(graph: &Graph, is: impl Fn(&Op, &[Value]) -> bool) -> Option<Value> {
    graph.iter().find(|(_, node)| is(&node.op, &node.args)).map(|(value, _)| value)
}

/// A mean of squares of what had no mean taken from it.
fn root_mean_square(graph: &Graph) -> Option<Value> {
    let squared = |value: Value| {
        let node = graph.node(value);
        let square = match node.op {
            Op::Array(ArrayOp::Binary(Binary::Mul)) => node.args[0] == node.args[1],
            Op::Array(ArrayOp::Binary(Binary::Pow)) => {
                graph.constant(node.args[1]).and_then(|weight| weight.tensor.scalar()) == Some(2.0)
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        };
        square.then(|| node.args[0])
    };
    let centred = |value: Value| {
        let node = graph.node(value);
        let is_mean = |arg: &Value| matches!(graph.node(*arg).op, Op::Array(ArrayOp::Mean));
        node.op == Op::Array(ArrayOp::Binary(Binary::Sub)) && node.args.iter().any(is_mean)
    };
    let averaged = |value: Value| find(graph, |op, args| *op == Op::Array(ArrayOp::Mean) && args == [value]);
    find(graph, |op, args| {
        *op == Op::Array(ArrayOp::Mean) && squared(args[0]).is_some_and(|x| !centred(x) && averaged(x).is_none())
    })
}

/// Products of several heads with one.
fn shared_keys(graph: &Graph) -> Option<Value> {
    let rank = |value: &Value| graph.ty(*value).shape().rank();
    let live = |value: &Value| graph.ty(*value).shape().dims().contains(&Dim::Tokens);
    find(graph, |op, args| {
        *op == Op::Array(ArrayOp::MatMul) && args.iter().all(live) && rank(&args[0]) == 3 && rank(&args[1]) == 2
    })
}

fn capped(graph: &Graph) -> Option<Value> {
    let is_square = |value: Value| matches!(graph.ty(value).shape().dims(), [.., Dim::Tokens, Dim::Tokens]);
    find(graph, |op, args| *op == Op::Array(ArrayOp::Unary(Unary::Tanh)) && is_square(args[0]))
}

/// A product of two projections of one value, one of them behind an activation function.
fn gated(graph: &Graph) -> Option<Value> {
    let projection = |mut value: Value| {
        for _ in 0..8 {
            let node = graph.node(value);
            match node.op {
                Op::Array(ArrayOp::MatMul) => return graph.constant(node.args[1]).is_some().then_some(value),
                Op::Dense(DenseOp::Linear(_)) => return Some(value),
                Op::Array(ArrayOp::Unary(_) | ArrayOp::Binary(_)) => {
                    value = *node.args.iter().find(|arg| graph.ty(**arg) == node.ty)?;
                }
                Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                    return None;
                }
            }
        }
        None
    };
    find(graph, |op, args| {
        let pair = || Some((projection(args[0])?, projection(args[1])?));
        *op == Op::Array(ArrayOp::Binary(Binary::Mul))
            && pair().is_some_and(|(a, b)| a != b && graph.node(a).args[0] == graph.node(b).args[0])
    })
}
