//! A program whose layers attend as one of two programs does: some as the first, some as the second.
//!
//! Both come from one network, so their residual streams hold the same between blocks; a block of one may follow a block of
//! the other. Everything but attention is the first program's, its tables of embeddings and positions among it.

use crate::residual::{additions, start};
use indexmap::IndexMap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::{Builder, Diagnostic, Graph, Op, Value};
use std::ops::Range;

/// `first` with the attention of `second` in the layers where `take` is true.
///
/// # Errors
/// Programs of different networks; layers that share a block and are not taken together.
pub fn hybrid(first: &Graph, second: &Graph, take: &[bool]) -> Result<Graph, Diagnostics> {
    let graphs = [first, second];
    let [a, b] = graphs.map(cuts);
    let same = |(a, b): (&StreamCut, &StreamCut)| a.layers == b.layers && first.ty(a.value) == second.ty(b.value);
    let alike = a.len() == b.len() && a.iter().zip(&b).all(same);
    let layers = a.last().map_or(0, |last| last.layers.end);
    if !alike || layers != take.len() || first.context != second.context {
        return Err(Diagnostics::from(Diagnostic::new("", "these programs are not of one network")));
    }
    let mut builder = Builder::new(first.stage, first.context);
    let mut maps = [IndexMap::new(), IndexMap::new()];
    for (own, other) in a.iter().zip(&b) {
        let taken = &take[own.layers.clone()];
        let from = usize::from(taken.first() == Some(&true));
        if taken.iter().any(|&take| usize::from(take) != from) {
            let message = format!("layers {} to {} share a block", own.layers.start, own.layers.end - 1);
            return Err(Diagnostics::from(Diagnostic::new("", message).note("take all of them or none")));
        }
        let end = [own.value, other.value];
        let new = copy(&mut builder, graphs[from], end[from], &mut maps[from])?;
        // Both programs go on from here.
        for (map, end) in maps.iter_mut().zip(end) {
            map.insert(end, new);
        }
    }
    let mut outputs = Vec::new();
    for (name, value) in &first.outputs {
        outputs.push((name.clone(), copy(&mut builder, first, *value, &mut maps[0])?));
    }
    Ok(builder.finish(outputs))
}

/// A value that stands for the same in every program of a network.
struct StreamCut {
    value: Value,
    /// The layers whose attention is between the cut before it and this one.
    layers: Range<usize>,
}

/// What embeddings give, the start of the residual stream, and it after every block.
fn cuts(graph: &Graph) -> Vec<StreamCut> {
    let values_of = |wanted: &dyn Fn(Op) -> bool| -> Vec<Value> {
        graph.iter().filter(|(_, node)| wanted(node.op)).map(|(value, _)| value).collect()
    };
    let embedded = values_of(&|op| op == Op::Dense(DenseOp::Embed));
    let attentions = values_of(&|op| op.has_state());
    let stream = additions(graph);
    let start = start(graph, &stream).filter(|start| !embedded.contains(start));
    let mut done = 0;
    let mut stretch = |value: Value| {
        let layers = done..attentions.partition_point(|attention| *attention < value);
        done = layers.end;
        StreamCut { value, layers }
    };
    let stretches: Vec<StreamCut> =
        start.into_iter().chain(stream.iter().map(|addition| addition.after)).map(&mut stretch).collect();
    embedded.into_iter().map(|value| StreamCut { value, layers: 0..0 }).chain(stretches).collect()
}

/// Adds a value and what it needs, as far as that is not there.
fn copy(
    builder: &mut Builder,
    graph: &Graph,
    value: Value,
    map: &mut IndexMap<Value, Value>,
) -> Result<Value, Diagnostic> {
    let mut needed = vec![false; graph.nodes.len()];
    needed[value.index()] = !map.contains_key(&value);
    for (at, node) in graph.iter().rev() {
        if needed[at.index()] {
            node.args.iter().for_each(|arg| needed[arg.index()] |= !map.contains_key(arg));
        }
    }
    for (at, node) in graph.iter().filter(|(at, _)| needed[at.index()]) {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg]).collect();
        let new = match node.op {
            Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => builder.add(op, &args, graph.origin(at))?,
        };
        map.insert(at, new);
    }
    Ok(map[&value])
}
