//! The same program made to be measured: so many neurons that fire, so many tokens of context. Its results mean nothing.

use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::random::SplitMix64;
use snnc_ir::verify::verify;
use snnc_ir::{Builder, Graph, Op, Tensor, Value};
use std::sync::Arc;

/// Seed of the choice of neurons that fire.
const SEED: u64 = 0x0bec_0de5;

/// The same program with so many of its neurons firing, once each, whatever they read: what events cost at a given density.
/// Its results mean nothing.
///
/// # Errors
/// The graph is not well typed.
pub fn with_density(graph: &Graph, density: f64) -> Result<Graph, Diagnostics> {
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    let mut random = SplitMix64(SEED);
    for (value, node) in graph.iter() {
        let mut args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        if let Op::Level(LevelOp::Quant { .. })
        | Op::Spike(SpikeOp::Fire { .. })
        | Op::Spike(SpikeOp::Integrate { .. }) = node.op
        {
            let width = node.ty.shape().width().unwrap_or(0);
            let fires = |random: &mut SplitMix64| (random.bits() >> 11) as f64 / ((1u64 << 53) as f64) < density;
            let offset = (0..width).map(|_| if fires(&mut random) { 1.0 } else { 0.0 }).collect();
            let last = args.len() - 1;
            let constant = |data| Arc::new(Tensor::f32(&[width], data));
            args[last - 1] = builder.weight(&format!("bench.{}.gain", value.0), constant(vec![0.0; width]));
            args[last] = builder.weight(&format!("bench.{}.offset", value.0), constant(offset));
        }
        map.push(match node.op {
            Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => builder.add(op, &args, graph.origin(value))?,
        });
    }
    Ok(builder.finish(graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect()))
}

/// The same program for sequences of another length: rows of its tables of positions repeat, or are left out. What it says
/// beyond the positions that it was trained with means nothing.
///
/// # Errors
/// Its sums are not bounded for so many tokens.
pub fn with_context(graph: &Graph, context: u32) -> Result<Graph, Diagnostics> {
    let mut builder = Builder::new(graph.stage, context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let mut args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        if node.op == Op::Dense(DenseOp::Embed)
            && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions)
            && let Some(table) = graph.constant(node.args[1])
            && let (Some(rows), [_, width]) = (table.tensor.as_f32(), table.tensor.sizes())
        {
            let repeated = rows.iter().copied().cycle().take(context as usize * width).collect();
            let tensor = Tensor::f32(&[context as usize, *width], repeated);
            args[1] = builder.weight(&format!("{}.repeated", table.name), Arc::new(tensor));
        }
        map.push(match node.op {
            Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => builder.add(op, &args, graph.origin(value))?,
        });
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    let graph = builder.finish(outputs);
    verify(&graph)?;
    Ok(graph)
}
