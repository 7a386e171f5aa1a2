//! Attention whose values are turned head by head: a projection makes them, and projections read what attention gives.

use super::refusal::refused;
use snnc_ir::op::DenseOp;
use snnc_ir::{Diagnostic, Graph, Node, Op, Value};

/// By value: the width of a head, of attention that is turned and of the projections of its values.
///
/// # Errors
/// There is none; the first attention says why.
pub(super) fn turned_heads(graph: &Graph) -> Result<Vec<Option<usize>>, Diagnostic> {
    let users = graph.users();
    let mut heads = vec![None; graph.nodes.len()];
    let mut why = None;
    for (value, node) in graph.iter() {
        let Some(width) = head_width(graph, node) else { continue };
        match obstacle(graph, &users, node) {
            None => [heads[value.index()], heads[node.args[2].index()]] = [Some(width); 2],
            Some((at, told)) => why = why.or(Some(refused(graph, Some(at), WHAT, told))),
        }
    }
    if heads.iter().all(Option::is_none) {
        return Err(why.unwrap_or_else(|| refused(graph, None, WHAT, "no layer attends")));
    }
    Ok(heads)
}

const WHAT: &str = "the values of heads";

/// Channels of a head of values, of attention.
fn head_width(graph: &Graph, node: &Node) -> Option<usize> {
    let Op::Dense(DenseOp::Attention { heads, .. }) = node.op else { return None };
    Some(graph.ty(node.args[2]).shape().width()? / heads.kv.max(1) as usize)
}

/// What stands in the way of turning the values of an attention; other attention that reads them has to be turned as well.
fn obstacle(graph: &Graph, users: &[Vec<Value>], node: &Node) -> Option<(Value, &'static str)> {
    let values = node.args[2];
    let is_output = |value: Value| graph.outputs.iter().any(|(_, output)| *output == value);
    let Op::Dense(DenseOp::Linear(_)) = graph.node(values).op else {
        return Some((values, "no projection makes them"));
    };
    if is_output(values) || graph.node(values).args[1..].iter().any(|arg| graph.constant(*arg).is_none()) {
        return Some((values, "no constant projection makes them for attention alone"));
    }
    for &attention in &users[values.index()] {
        let other = graph.node(attention);
        let alike = head_width(graph, other) == head_width(graph, node);
        if !alike || other.args[..2].contains(&values) {
            return Some((attention, "it reads them as well"));
        }
        let projected = |user: &Value| {
            let Node { op, args, .. } = graph.node(*user);
            matches!(op, Op::Dense(DenseOp::Linear(_))) && graph.constant(args[1]).is_some()
        };
        let by_others = users[attention.index()].iter().find(|user| !projected(user));
        if let Some(&user) = by_others {
            return Some((user, "it reads what attention gives, and is no projection"));
        }
        if is_output(attention) {
            return Some((attention, "what attention gives leaves the network"));
        }
    }
    None
}
