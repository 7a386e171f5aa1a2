//! Turns quantised tensors into spike trains, op by op.
//!
//! Law: a train denotes the weighted sum of its spikes. Each arm below keeps that law, so the pass is exact.
//! It chooses no levels (`quantise` does) and saves no work (`collapse` does). Only time-stepped neurons
//! break the law, and only where they are asked for: what they say depends on the order of their inputs.

use crate::context::Context;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{LeafOp, LevelOp, SpikeOp};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::site::{ChannelGroup, Site};
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Builder, Code, Curve, Diagnostic, Graph, Op, Stage, Tensor, Type, Value};
use std::sync::Arc;

/// The Spiking graph that means the same as a Quantised one: levels are fired, products are synapses.
pub fn spike(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    let mut builder = Builder::new(Stage::Spiking, graph.context);
    let users = graph.users();
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        let origin = graph.origin(value);
        let new = match node.op {
            Op::Leaf(LeafOp::Weight(id)) => {
                let weight = graph.weight(id);
                Ok(builder.weight(&weight.name, weight.tensor.clone()))
            }
            Op::Level(LevelOp::Quant { code, steps, curve }) => {
                let membrane = match read_by(graph, &users, value) {
                    Reader::Lif => Some(Membrane::LIF),
                    Reader::Counter => None,
                    Reader::Other => context.membrane.filter(|_| !integrates_first(origin, context)),
                };
                match membrane.filter(|_| answers(&builder, code, curve, &args)) {
                    Some(membrane) => integrate(&mut builder, membrane, (steps, curve), &args, origin),
                    None => builder.add(Op::Spike(SpikeOp::Fire { code, steps, curve }), &args, origin),
                }
            }
            Op::Level(LevelOp::GatedQuant { code, steps, curve }) => {
                builder.add(Op::Spike(SpikeOp::GatedFire { code, steps, curve }), &args, origin)
            }
            Op::Level(LevelOp::MatMulInt) => builder
                .add(Op::Spike(SpikeOp::Synapse), &args, origin)
                .and_then(|current| builder.add(Op::Spike(SpikeOp::Decode), &[current], origin)),
            // Levels that leave for the dense part of a network are decoded first.
            Op::Level(LevelOp::ScaleShift) if matches!(builder.ty(args[0]), Type::Train { .. }) => builder
                .add(Op::Spike(SpikeOp::Decode), &args[..1], origin)
                .and_then(|levels| builder.add(Op::Level(LevelOp::ScaleShift), &[levels, args[1], args[2]], origin)),
            op => builder.add(op, &args, origin),
        };
        map.push(new?);
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(builder.finish(outputs))
}

/// What a layer of neurons speaks to.
enum Reader {
    /// Attention whose spikes are LIF neurons'.
    Lif,
    /// Attention on features that fire in their first timesteps.
    Counter,
    Other,
}

fn read_by(graph: &Graph, users: &[Vec<Value>], value: Value) -> Reader {
    for user in users[value.index()].iter().map(|&user| graph.node(user)) {
        let Op::Level(LevelOp::Ssa { variant, .. }) = user.op else { continue };
        let feature = user.args[..2].contains(&value);
        match variant {
            Ssa::Lif { output: Output::Spikes } => return Reader::Lif,
            Ssa::Lif { output: Output::Mean } if feature => return Reader::Lif,
            Ssa::Coincidence { .. } | Ssa::Linear { .. } if feature => return Reader::Counter,
            Ssa::Ttfs { .. }
            | Ssa::TopK { .. }
            | Ssa::Coincidence { .. }
            | Ssa::Linear { .. }
            | Ssa::Lif { output: Output::Mean } => {}
        }
    }
    Reader::Other
}

/// Whether a time-stepped neuron can stand for a layer: its spikes all weigh the same, and it bends by
/// being silent below 0, so nothing may be added behind the bend.
fn answers(builder: &Builder, code: Code, curve: Curve, args: &[Value]) -> bool {
    let zero = |value: &Value| constant(builder, *value).iter().all(|&x| x == 0.0);
    code == Code::Unary && Membrane::has(curve) && (curve == Curve::Identity || args.last().is_some_and(zero))
}

/// Whether a layer is of the site that is to integrate first.
fn integrates_first(origin: &NodeOrigin, context: &Context) -> bool {
    let whole = |site: Site| site.group(ChannelGroup::Whole);
    origin.site.is_some() && origin.site.map(whole) == context.integrates_first
}

/// `relu(x g + o) s = relu(x (g s) + o s)`, since a scale is never negative. Parameters of the neuron are at their start.
fn integrate(
    builder: &mut Builder,
    membrane: Membrane,
    (steps, curve): (u16, Curve),
    args: &[Value],
    origin: &NodeOrigin,
) -> Result<Value, Diagnostic> {
    let op = Op::Spike(SpikeOp::Integrate { membrane, steps, curve });
    let name = |builder: &Builder, value: Value| {
        builder.graph().constant(value).map_or(String::new(), |weight| weight.name.clone())
    };
    let base = name(builder, args[1]);
    let base = base.trim_end_matches("gain").trim_end_matches("pre_");
    let width = constant(builder, args[1]).len();
    let parameters: Vec<Value> = membrane
        .rule()
        .parameters
        .iter()
        .map(|parameter| {
            let start = Tensor::f32(&[width], vec![parameter.start as f32; width]);
            builder.weight(&format!("{base}{}", parameter.name), Arc::new(start))
        })
        .collect();
    let &[x, pre_gain, pre_offset, gain, _] = args else {
        return builder.add(op, &[args, &parameters].concat(), origin);
    };
    let names = [pre_gain, pre_offset].map(|value| name(builder, value));
    let scaled = [pre_gain, pre_offset].map(|value| {
        let pairs = constant(builder, value).iter().zip(constant(builder, gain));
        pairs.map(|(x, s)| x * s).collect::<Vec<f32>>()
    });
    let [gain, offset] = [0, 1].map(|i| {
        let data = scaled[i].clone();
        builder.weight(&format!("{}.scaled", names[i]), Arc::new(Tensor::f32(&[data.len()], data)))
    });
    builder.add(op, &[&[x, gain, offset], &parameters[..]].concat(), origin)
}

fn constant(builder: &Builder, value: Value) -> &[f32] {
    builder.graph().constant(value).and_then(|weight| weight.tensor.as_f32()).unwrap_or(&[])
}
