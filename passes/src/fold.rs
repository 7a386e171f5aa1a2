//! Folds the scale and bias of a projection into the neurons that read it.
//!
//! `gain * (scale * sum + bias) + offset = (gain * scale) * sum + (gain * bias + offset)`: a neuron then integrates
//! integers and its potential is in units of its level, so all thresholds are the powers of two that its code spells.
//! Exact up to the rounding of two constants a channel.

use crate::Context;
use snnc_ir::{Builder, Curve, Diagnostic, Graph, Op, Tensor, Value};
use std::sync::Arc;

/// The same program with every `fire(affine(x))` as one `fire(x)`.
pub fn fold(graph: &Graph, _: &Context) -> Result<Graph, Vec<Diagnostic>> {
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let mut args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        if let (Op::Fire { curve, .. }, Op::Affine) =
            (node.op, node.args.first().map_or(Op::Tokens, |x| graph.node(*x).op))
        {
            let affine = graph.node(node.args[0]);
            // Without a curve the neuron's own gain and offset take the projection's; with one, those before the curve.
            let names = match curve {
                Curve::Identity => ["gain", "offset"],
                Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => {
                    ["pre_gain", "pre_offset"]
                }
            };
            args[0] = map[affine.args[0].index()];
            let scale = constant(graph, affine.args[1]);
            let bias = constant(graph, affine.args[2]);
            let (gain, offset) = (constant(graph, node.args[1]), constant(graph, node.args[2]));
            let base = graph.constant(node.args[1]).map_or("neuron", |w| w.name.trim_end_matches(names[0]));
            let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a * b).collect::<Vec<f32>>();
            let shifted = product(gain, bias).iter().zip(offset).map(|(&p, &o)| p + o).collect::<Vec<f32>>();
            args[1] = vector(&mut builder, &format!("{base}{}", names[0]), product(gain, scale));
            args[2] = vector(&mut builder, &format!("{base}{}", names[1]), shifted);
        }
        let new = match node.op {
            Op::Weight(id) => Ok(builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone())),
            op => builder.add(op, &args, graph.origin(value)),
        };
        map.push(new.map_err(|e| vec![e])?);
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(tidy(builder.finish(outputs)))
}

fn constant(graph: &Graph, value: Value) -> &[f32] {
    let found = graph.constant(value).and_then(|weight| weight.tensor.as_f32());
    found.unwrap_or_else(|| unreachable!("gains and offsets are constants, as the verifier has checked"))
}

fn vector(builder: &mut Builder, name: &str, data: Vec<f32>) -> Value {
    builder.weight(name, Arc::new(Tensor::f32(&[data.len()], data)))
}

/// Names lose the suffix that kept old and new constants apart while both were there.
fn tidy(mut graph: Graph) -> Graph {
    for i in 0..graph.weights.len() {
        let name = graph.weights[i].name.clone();
        let Some(short) = name.strip_suffix(".2") else { continue };
        if graph.weights.iter().all(|weight| weight.name != short) {
            graph.weights[i].name = short.to_string();
        }
    }
    graph
}
