//! The residual stream: where it starts, and the additions by which blocks put their parts on it.
//!
//! An addition is told by what it adds: a value, and something that was made from that value. What a network adds up before its
//! first block, such as embeddings of tokens and positions, was not made from each other.

use crate::cost::is_part;
use snnc_ir::op::ArrayOp;
use snnc_ir::{Binary, Graph, Op, Value};

/// A part that a block adds to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addition {
    /// The stream that the block was given.
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
        // The second of two parts that were made from one value comes on top of the first.
        let beside = |stream: Value, part: Value| {
            let first = found.iter().find(|addition| addition.after == stream);
            first.is_some_and(|first| is_made_from(graph, part, first.before))
        };
        let adds = |&(stream, part): &(Value, Value)| is_made_from(graph, part, stream) || beside(stream, part);
        let [a, b] = [node.args[0], node.args[1]];
        let before = [(a, b), (b, a)].into_iter().find(adds).map(|(stream, _)| stream);
        found.extend(before.map(|before| Addition { before, after }));
    }
    found
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
