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
        let new = match node.op {
            Op::Leaf(LeafOp::Weight(id)) => Ok(builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone())),
            op => {
                let folded = projections(graph, node);
                let mut args: Vec<Option<Value>> = node.args.iter().map(|arg| map[arg.index()]).collect();
                for (input, affine) in &folded {
                    let reads = input_of(graph, node, affine);
                    args[input.at] = map[reads.index()];
                    let constants = folded_constants(&mut builder, graph, node, affine, *input);
                    args[input.gain..input.gain + 2].copy_from_slice(&constants.map(Some));
                }
                let args: Vec<Value> = args.into_iter().flatten().collect();
                builder.add(op, &args, graph.origin(value))
            }
        };
        map[value.index()] = Some(new?);
    }
    let outputs = graph.outputs.iter().filter_map(|(name, value)| Some((name.clone(), map[value.index()]?))).collect();
    Ok(builder.finish(outputs))
}

/// An input of neurons, and where the gain and offset are that it meets first.
#[derive(Clone, Copy)]
struct NeuronInput {
    at: usize,
    gain: usize,
    /// What the names of these constants end in.
    names: [&'static str; 2],
}

const PLAIN: [&str; 2] = ["gain", "offset"];
const BEFORE_CURVE: [&str; 2] = ["pre_gain", "pre_offset"];

/// The inputs of a layer of neurons; none of anything else.
fn inputs(op: Op) -> Vec<NeuronInput> {
    let one = |names| vec![NeuronInput { at: 0, gain: 1, names }];
    match op {
        Op::Spike(SpikeOp::Fire { curve: Curve::Identity, .. }) => one(PLAIN),
        Op::Spike(SpikeOp::Fire { .. }) => one(BEFORE_CURVE),
        // A time-stepped neuron has its curve behind its gain.
        Op::Spike(SpikeOp::Integrate { .. }) => one(PLAIN),
        Op::Spike(SpikeOp::GatedFire { .. }) => {
            vec![NeuronInput { at: 0, gain: 2, names: BEFORE_CURVE }, NeuronInput { at: 1, gain: 4, names: PLAIN }]
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => Vec::new(),
    }
}

/// The projections that neurons take in, by input.
fn projections<'g>(graph: &'g Graph, node: &Node) -> Vec<(NeuronInput, &'g Node)> {
    let projection = |input: NeuronInput| {
        let affine = graph.node(node.args[input.at]);
        let sums = affine.args.first().is_some_and(|&x| matches!(graph.ty(x).elem(), Some(Elem::I32 | Elem::F32)));
        (sums && affine.op == Op::Level(LevelOp::ScaleShift)).then_some((input, affine))
    };
    inputs(node.op).into_iter().filter_map(projection).collect()
}

/// What a node still reads in the folded program: neurons that take in a projection read its sums, and no longer the two
/// constants that come first.
fn reads(graph: &Graph, node: &Node) -> Vec<Value> {
    let folded = projections(graph, node);
    let mut reads = node.args.clone();
    for (input, affine) in &folded {
        reads[input.at] = input_of(graph, node, affine);
    }
    let replaced = |i: usize| folded.iter().any(|(input, _)| (input.gain..input.gain + 2).contains(&i));
    reads.iter().enumerate().filter(|(i, _)| !replaced(*i)).map(|(_, value)| *value).collect()
}

/// What a neuron that takes in a projection reads: its sums; or, where it is time-stepped and the synapse runs
/// for as long as it does, the current itself.
fn input_of(graph: &Graph, neuron: &Node, affine: &Node) -> Value {
    let decode = graph.node(affine.args[0]);
    let current = decode.args.first().map(|&train| graph.ty(train));
    match (neuron.op, current) {
        (Op::Spike(SpikeOp::Integrate { steps, .. }), Some(Type::Train { code: Code::Unary, steps: own, .. }))
            if own == steps =>
        {
            decode.args[0]
        }
        _ => affine.args[0],
    }
}

/// Nodes of the folded program. Names of constants that are not among them are free for those that take their place.
fn live(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.nodes.len()];
    graph.outputs.iter().for_each(|(_, value)| live[value.index()] = true);
    for (value, node) in graph.iter().rev() {
        if live[value.index()] {
            reads(graph, node).into_iter().for_each(|arg| live[arg.index()] = true);
        }
    }
    live
}

/// The gain and offset that do the projection's work as well.
fn folded_constants(
    builder: &mut Builder,
    graph: &Graph,
    neuron: &Node,
    affine: &Node,
    input: NeuronInput,
) -> [Value; 2] {
    let NeuronInput { gain: first, names, .. } = input;
    let (scale, bias) = (constant(graph, affine.args[1]), constant(graph, affine.args[2]));
    let (gain, offset) = (constant(graph, neuron.args[first]), constant(graph, neuron.args[first + 1]));
    let base = graph.constant(neuron.args[first]).map_or("neuron.", |weight| weight.name.trim_end_matches(names[0]));
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
