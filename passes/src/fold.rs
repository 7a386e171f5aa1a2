//! Folds the scale and bias of a projection into the neurons that read it.
//!
//! `gain * (scale * sum + bias) + offset = (gain * scale) * sum + (gain * bias + offset)`: a neuron then integrates
//! integers. Without a curve its potential is in units of its level, so that its thresholds are the powers of two that
//! its code spells; with one, the fold goes before the curve. Exact up to the rounding of two constants per channel.

use crate::context::Context;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Builder, Code, Curve, Elem, Graph, Node, Op, Tensor, Type, Value};
use std::sync::Arc;

/// The same program with every `fire(affine(x))` as one `fire(x)`.
pub fn fold(graph: &Graph, _: &Context) -> Result<Graph, Diagnostics> {
    let live = live(graph);
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Option<Value>> = vec![None; graph.nodes.len()];
    for (value, node) in graph.iter().filter(|(value, _)| live[value.index()]) {
        let mut args: Vec<Value> = reads(graph, node).filter_map(|arg| map[arg.index()]).collect();
        // A time-stepped neuron has its curve behind its gain.
        let curve = match node.op {
            Op::Spike(SpikeOp::Fire { curve, .. }) => Some(curve),
            Op::Spike(SpikeOp::Integrate { .. }) => Some(Curve::Identity),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        };
        if let (Some(curve), Some(affine)) = (curve, projection(graph, node)) {
            args.splice(1..1, folded_constants(&mut builder, graph, node, affine, curve));
        }
        let new = match node.op {
            Op::Leaf(LeafOp::Weight(id)) => Ok(builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone())),
            op => builder.add(op, &args, graph.origin(value)),
        };
        map[value.index()] = Some(new?);
    }
    let outputs = graph.outputs.iter().filter_map(|(name, value)| Some((name.clone(), map[value.index()]?))).collect();
    Ok(builder.finish(outputs))
}

/// The projection that a neuron takes in.
fn projection<'g>(graph: &'g Graph, node: &Node) -> Option<&'g Node> {
    let input = graph.node(*node.args.first()?);
    let sums = input.args.first().is_some_and(|&x| matches!(graph.ty(x).elem(), Some(Elem::I32 | Elem::F32)));
    let neuron = matches!(node.op, Op::Spike(SpikeOp::Fire { .. }) | Op::Spike(SpikeOp::Integrate { .. }));
    (sums && neuron && input.op == Op::Level(LevelOp::ScaleShift)).then_some(input)
}

/// What a node still reads in the folded program: a neuron that takes in a projection reads its sums, and no longer the
/// two constants that come first.
fn reads<'g>(graph: &'g Graph, node: &'g Node) -> impl Iterator<Item = Value> {
    let (input, rest) = match projection(graph, node) {
        Some(affine) => (input_of(graph, node, affine), &node.args[3..]),
        None => (&node.args[..], &[][..]),
    };
    input.iter().chain(rest).copied()
}

/// What a neuron that takes in a projection reads: its sums; or, where it is time-stepped and the synapse runs
/// for as long as it does, the current itself.
fn input_of<'g>(graph: &'g Graph, neuron: &Node, affine: &'g Node) -> &'g [Value] {
    let decode = graph.node(affine.args[0]);
    let current = decode.args.first().map(|&train| graph.ty(train));
    match (neuron.op, current) {
        (Op::Spike(SpikeOp::Integrate { steps, .. }), Some(Type::Train { code: Code::Unary, steps: own, .. }))
            if own == steps =>
        {
            &decode.args[..1]
        }
        _ => &affine.args[..1],
    }
}

/// Nodes of the folded program. Names of constants that are not among them are free for those that take their place.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    graph.outputs.iter().for_each(|(_, value)| live[value.index()] = true);
    for (value, node) in graph.iter().rev() {
        if live[value.index()] {
            reads(graph, node).for_each(|arg| live[arg.index()] = true);
        }
    }
    live
}

/// The gain and offset that do the projection's work as well.
fn folded_constants(builder: &mut Builder, graph: &Graph, neuron: &Node, affine: &Node, curve: Curve) -> [Value; 2] {
    let names = match curve {
        Curve::Identity => ["gain", "offset"],
        Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => ["pre_gain", "pre_offset"],
    };
    let (scale, bias) = (constant(graph, affine.args[1]), constant(graph, affine.args[2]));
    let (gain, offset) = (constant(graph, neuron.args[1]), constant(graph, neuron.args[2]));
    let base = graph.constant(neuron.args[1]).map_or("neuron.", |weight| weight.name.trim_end_matches(names[0]));
    let new_gain = gain.iter().zip(scale).map(|(&g, &s)| g * s).collect();
    let new_offset = gain.iter().zip(bias).zip(offset).map(|((&g, &b), &o)| g * b + o).collect();
    [(names[0], new_gain), (names[1], new_offset)].map(|(name, data): (&str, Vec<f32>)| {
        builder.weight(&format!("{base}{name}"), Arc::new(Tensor::f32(&[data.len()], data)))
    })
}

fn constant(graph: &Graph, value: Value) -> &[f32] {
    let found = graph.constant(value).and_then(|weight| weight.tensor.as_f32());
    found.unwrap_or_else(|| unreachable!("gains and offsets are constants, as the verifier has checked"))
}
