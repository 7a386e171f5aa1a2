//! Turns quantised stills into spike trains, op by op.
//!
//! Law: a train denotes the weighted sum of its spikes. Each arm below keeps that law, so the pass is exact.
//! It chooses no levels (`quantise` does) and saves no work (`collapse` does).

use crate::Context;
use snnc_ir::{Builder, Diagnostic, Graph, Op, Stage, Type, Value};

/// The Spiking graph that means the same as a Quantised one: levels are fired, products are synapses.
pub fn spike(graph: &Graph, _: &Context) -> Result<Graph, Vec<Diagnostic>> {
    let mut builder = Builder::new(Stage::Spiking, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        let origin = graph.origin(value);
        let new = match node.op {
            Op::Weight(id) => {
                let weight = graph.weight(id);
                Ok(builder.weight(&weight.name, weight.tensor.clone()))
            }
            Op::Quant { code, steps, curve } => builder.add(Op::Fire { code, steps, curve }, &args, origin),
            Op::Product => {
                builder.add(Op::Synapse, &args, origin).and_then(|current| builder.add(Op::Settle, &[current], origin))
            }
            // Levels that leave for the dense part of a network are settled first.
            Op::Affine if matches!(builder.ty(args[0]), Type::Train { .. }) => builder
                .add(Op::Settle, &args[..1], origin)
                .and_then(|levels| builder.add(Op::Affine, &[levels, args[1], args[2]], origin)),
            op => builder.add(op, &args, origin),
        };
        map.push(new.map_err(|e| vec![e])?);
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(builder.finish(outputs))
}
