//! A program whose layers attend as one of two programs does: some as the first, some as the second.
//!
//! Both come from one network, so their residual streams hold the same between blocks; a block of one may follow a block of
//! the other. Everything but attention is the first program's.

use crate::cost::is_part;
use indexmap::IndexMap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::{Binary, Builder, Diagnostic, Graph, Op, Value};

/// `first` with the attention of `second` in the layers where `take` is true.
///
/// # Errors
/// Programs of different networks.
pub fn hybrid(first: &Graph, second: &Graph, take: &[bool]) -> Result<Graph, Diagnostics> {
    let (a, b) = (blocks(first), blocks(second));
    // The embedding, then attention and MLP of every layer.
    if a.len() != b.len() || a.len() != 1 + 2 * take.len() || first.context != second.context {
        return Err(Diagnostics::from(Diagnostic::new("", "these programs are not of one network")));
    }
    let mut builder = Builder::new(first.stage, first.context);
    let mut maps = [IndexMap::new(), IndexMap::new()];
    let graphs = [first, second];
    let mut stream = None;
    for (k, ends) in a.iter().zip(&b).enumerate() {
        // Odd blocks are attention.
        let from = usize::from(k % 2 == 1 && take[k / 2]);
        let end = [*ends.0, *ends.1];
        let new = copy(&mut builder, graphs[from], end[from], &mut maps[from])?;
        // Both programs go on from here.
        for (map, end) in maps.iter_mut().zip(end) {
            map.insert(end, new);
        }
        stream = Some(new);
    }
    if stream.is_none() {
        return Err(Diagnostics::from(Diagnostic::new("", "a network without blocks")));
    }
    let mut outputs = Vec::new();
    for (name, value) in &first.outputs {
        outputs.push((name.clone(), copy(&mut builder, first, *value, &mut maps[0])?));
    }
    Ok(builder.finish(outputs))
}

/// The residual stream after the embedding and after every block.
fn blocks(graph: &Graph) -> Vec<Value> {
    let ends = graph
        .iter()
        .filter(|(value, node)| node.op == Op::Array(ArrayOp::Binary(Binary::Add)) && !is_part(graph, *value));
    ends.map(|(value, _)| value).collect()
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
