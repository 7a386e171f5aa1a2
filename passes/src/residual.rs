//! The residual stream: where it starts, and the additions by which blocks put their parts on it.
//!
//! An addition is told by what it adds: a value, and something that was made from that value. What a network adds up before its
//! first block, such as embeddings of tokens and positions, was not made from each other. A stream may be centred where a part is
//! added and not where the part was made.

use crate::cost::is_part;
use snnc_ir::op::{ArrayOp, DenseOp};
use snnc_ir::{Binary, Graph, Op, Value};

/// A part that a block adds to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The stream that the part is added to.
    pub before: Value,
    /// The stream with the block's part.
    pub after: Value,
}

/// All additions to the residual stream, in the order of the network. Blocks that stand beside each other have one each.
pub fn additions(graph: &Graph) -> Vec<Addition> {
    let mut found: Vec<Addition> = Vec::new();
    for (after, node) in graph.iter() {
        if node.op != Op::Array(ArrayOp::Binary(Binary::Add)) || is_part(graph, after) {
            continue;
        }
        let made = |part: Value, stream: Value| is_made_from(graph, part, not_centred(graph, stream));
        // The second of two parts that were made from one value comes on top of the first.
        let beside = |stream: Value, part: Value| {
            let first = found.iter().find(|addition| addition.after == stream);
            first.is_some_and(|first| made(part, first.before))
        };
        let adds = |&(stream, part): &(Value, Value)| made(part, stream) || beside(stream, part);
        let [a, b] = [node.args[0], node.args[1]];
        let before = [(a, b), (b, a)].into_iter().find(adds).map(|(stream, _)| stream);
        found.extend(before.map(|before| Addition { before, after }));
    }
    found
}

/// Where the stream starts: what the first block reads.
pub fn start(graph: &Graph, additions: &[Addition]) -> Option<Value> {
    additions.first().map(|first| not_centred(graph, first.before))
}

/// The value that a centred one was made from.
fn not_centred(graph: &Graph, value: Value) -> Value {
    let node = graph.node(value);
    if node.op == Op::Dense(DenseOp::Centre) { node.args[0] } else { value }
}

/// Whether `value` depends on `source`, which is another one.
fn is_made_from(graph: &Graph, value: Value, source: Value) -> bool {
    let mut needed = vec![false; graph.nodes.len()];
    needed[value.index()] = true;
    for (at, node) in graph.iter().rev().filter(|(at, _)| source < *at && *at <= value) {
        if needed[at.index()] {
            node.args.iter().for_each(|arg| needed[arg.index()] = true);
        }
    }
    source < value && needed[source.index()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::text::parse_filled;

    const WEIGHTS: &str = "
weight @table : f32[4,4] = fill(seed=1)
weight @w : f32[4,4] = fill(seed=2)
weight @b : f32[4] = fill(seed=3)
";

    /// Values of additions, as text numbers them.
    fn told(body: &str) -> Vec<(u32, u32)> {
        let text = format!("snnc 3 tensor context=4\n{WEIGHTS}\n{body}");
        let graph = parse_filled(&text, &|name, _, _| Err(name.to_string())).expect("it is sound").graph;
        let place =
            |value: Value| graph.iter().take(value.index()).filter(|(at, _)| graph.constant(*at).is_none()).count();
        additions(&graph).iter().map(|addition| (place(addition.before) as u32, place(addition.after) as u32)).collect()
    }

    #[test]
    fn what_was_not_made_from_the_stream_is_no_addition() {
        let body = "
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,4]
%2 = positions : i32[tokens]
%3 = embed(%2, @table) : f32[tokens,4]
%4 = add(%1, %3) : f32[tokens,4]
%5 = linear(%4, @w, @b) : f32[tokens,4]
%6 = add(%4, %5) : f32[tokens,4]

output y = %6
";
        assert_eq!(told(body), [(4, 6)]);
    }

    #[test]
    fn parts_beside_each_other_are_two_additions_or_one() {
        let parts = "
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,4]
%2 = linear(%1, @w, @b) : f32[tokens,4]
%3 = rms_norm[eps=1e-5](%1) : f32[tokens,4]
";
        for (sums, wanted) in
            [(["add(%1, %2)", "add(%4, %3)"], vec![(1, 4), (4, 5)]), (["add(%2, %3)", "add(%4, %1)"], vec![(1, 5)])]
        {
            let [first, second] = sums.map(|sum| format!("{sum} : f32[tokens,4]"));
            let body = format!("{parts}%4 = {first}\n%5 = {second}\n\noutput y = %5\n");
            assert_eq!(told(&body), wanted, "{sums:?}");
        }
    }

    #[test]
    fn a_stream_that_is_centred_is_added_to() {
        let body = "
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,4]
%2 = linear(%1, @w, @b) : f32[tokens,4]
%3 = centre(%1) : f32[tokens,4]
%4 = add(%3, %2) : f32[tokens,4]

output y = %4
";
        assert_eq!(told(body), [(3, 4)]);
    }
}
