//! A program with constants that training has changed.
//!
//! Weights come as reals in units of the old 8-bit weights. They are rounded to 8 bits anew, with a scale of their own for
//! every output, which goes into the gain of whoever reads the sums: neurons, or the map that gives the residual stream its
//! part. Everything else is stored as it comes. Nothing else of the program changes.

use indexmap::IndexMap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Builder, Diagnostic, Graph, Op, Tensor, Value, eval};
use std::sync::Arc;

/// Magnitudes of int8 weights.
const WEIGHT_LEVELS: f32 = 127.0;

/// The program (stage `spiking`) with these constants, by name.
///
/// # Errors
/// Numbers of other sizes than a constant has; a weight whose sums are read by something without a gain.
pub fn apply_parameters(program: &Graph, constants: &IndexMap<String, Vec<f32>>) -> Result<Graph, Diagnostics> {
    let mut builder = Builder::new(program.stage, program.context);
    let weights = rounded(program, constants)?;
    let mut map: Vec<Option<Value>> = vec![None; program.nodes.len()];
    for (value, node) in program.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
        let gains = scaled_gains(program, &weights, value)?;
        let mut args = Vec::with_capacity(node.args.len());
        for (i, &arg) in node.args.iter().enumerate() {
            let scale = gains.iter().find(|(gain, _)| *gain == i);
            args.push(match (map[arg.index()], scale) {
                (_, Some((_, scale))) => scaled(&mut builder, program, constants, arg, scale),
                (Some(known), None) => known,
                (None, None) => {
                    let new = constant(&mut builder, program, &weights, constants, arg)?;
                    map[arg.index()] = Some(new);
                    new
                }
            });
        }
        map[value.index()] = Some(builder.add(node.op, &args, program.origin(value))?);
    }
    let outputs = program.outputs.iter().filter_map(|(name, value)| Some((name.clone(), map[value.index()]?)));
    let outputs = outputs.collect();
    Ok(builder.finish(outputs))
}

/// A constant as training left it.
fn constant(
    builder: &mut Builder,
    program: &Graph,
    weights: &IndexMap<Value, Rounded>,
    constants: &IndexMap<String, Vec<f32>>,
    value: Value,
) -> Result<Value, Diagnostic> {
    let weight = program.constant(value).unwrap_or_else(|| unreachable!("operands come before users"));
    let tensor = match (weights.get(&value), constants.get(&weight.name)) {
        (Some(rounded), _) => Arc::clone(&rounded.tensor),
        (None, Some(numbers)) if weight.tensor.as_i32().is_some() => {
            check(weight.tensor.sizes(), &weight.name, numbers)?;
            Arc::new(Tensor::i32(
                weight.tensor.sizes(),
                numbers.iter().map(|&h| half_life(h, program.context)).collect(),
            ))
        }
        (None, Some(numbers)) => {
            check(weight.tensor.sizes(), &weight.name, numbers)?;
            Arc::new(Tensor::f32(weight.tensor.sizes(), numbers.to_vec()))
        }
        (None, None) => weight.tensor.clone(),
    };
    Ok(builder.weight(&weight.name, tensor))
}

/// Tokens after which memory halves; 0 is never.
fn half_life(period: f32, context: u32) -> i32 {
    i32::try_from(eval::period(period.into())).ok().filter(|&h| h.unsigned_abs() < context).unwrap_or(0)
}

/// So many finite numbers as a constant has.
fn check(sizes: &[usize], name: &str, numbers: &[f32]) -> Result<(), Diagnostic> {
    if sizes.iter().product::<usize>() != numbers.len() {
        return Err(Diagnostic::new(format!("@{name}"), format!("{} numbers do not fit {sizes:?}", numbers.len())));
    }
    if numbers.iter().any(|x| !x.is_finite()) {
        return Err(Diagnostic::new(format!("@{name}"), "training left a number that is not finite"));
    }
    Ok(())
}

/// A weight in 8 bits, and what 1 of the old units is in new ones, by output.
struct Rounded {
    tensor: Arc<Tensor>,
    scale: Vec<f32>,
}

fn rounded(program: &Graph, constants: &IndexMap<String, Vec<f32>>) -> Result<IndexMap<Value, Rounded>, Diagnostic> {
    let mut all = IndexMap::new();
    for (value, _) in program.iter() {
        let Some(weight) = program.constant(value) else { continue };
        let (Some(_), Some(numbers)) = (weight.tensor.weights(), constants.get(&weight.name)) else { continue };
        check(weight.tensor.sizes(), &weight.name, numbers)?;
        let outputs = weight.tensor.sizes()[1];
        let mut most = vec![0f32; outputs];
        for row in numbers.chunks_exact(outputs) {
            most.iter_mut().zip(row).for_each(|(most, w)| *most = most.max(w.abs()));
        }
        let scale: Vec<f32> = most.iter().map(|&most| if most > 0.0 { most / WEIGHT_LEVELS } else { 1.0 }).collect();
        let round = |(i, &w): (usize, &f32)| eval::level(w / scale[i % outputs], 127) as i8;
        let rows: Vec<i8> = numbers.iter().enumerate().map(round).collect();
        let tensor = Tensor::i8(weight.tensor.sizes(), rows);
        let tensor = if weight.tensor.as_panels().is_some() { tensor.to_panels().unwrap_or(tensor) } else { tensor };
        all.insert(value, Rounded { tensor: Arc::new(tensor), scale });
    }
    Ok(all)
}

/// The scale of the sums that a value is, where training changed it.
fn scale_of<'a>(program: &Graph, weights: &'a IndexMap<Value, Rounded>, value: Value) -> Option<&'a [f32]> {
    let node = program.node(value);
    match node.op {
        Op::Spike(SpikeOp::Decode) => scale_of(program, weights, node.args[0]),
        Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) => {
            weights.get(&node.args[1]).map(|rounded| rounded.scale.as_slice())
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// Operands of a node that are gains of sums whose scale training changed: their place, and that scale.
fn scaled_gains<'a>(
    program: &Graph,
    weights: &'a IndexMap<Value, Rounded>,
    value: Value,
) -> Result<Vec<(usize, &'a [f32])>, Diagnostic> {
    let node = program.node(value);
    let mut gains = Vec::new();
    for (i, &arg) in node.args.iter().enumerate() {
        // Decoding passes sums on.
        let scale = scale_of(program, weights, arg).filter(|_| node.op != Op::Spike(SpikeOp::Decode));
        match (scale, gain_of(node.op, i)) {
            (None, _) => {}
            (Some(scale), Some(gain)) => gains.push((gain, scale)),
            (Some(_), None) => {
                let message = format!("`{}` reads sums of trained weights and has no gain", node.op);
                return Err(Diagnostic::new(program.origin(value), message));
            }
        }
    }
    Ok(gains)
}

/// The operand that multiplies operand `i`, if one does.
fn gain_of(op: Op, i: usize) -> Option<usize> {
    match (op, i) {
        (
            Op::Level(LevelOp::ScaleShift | LevelOp::Quant { .. })
            | Op::Spike(SpikeOp::Fire { .. } | SpikeOp::Integrate { .. }),
            0,
        ) => Some(1),
        // The gate's, and that of what it multiplies.
        (Op::Level(LevelOp::GatedQuant { .. }) | Op::Spike(SpikeOp::GatedFire { .. }), 0) => Some(2),
        (Op::Level(LevelOp::GatedQuant { .. }) | Op::Spike(SpikeOp::GatedFire { .. }), 1) => Some(4),
        (Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_), _) => None,
    }
}

/// The gain times the sums' new scale.
fn scaled(
    builder: &mut Builder,
    program: &Graph,
    constants: &IndexMap<String, Vec<f32>>,
    gain: Value,
    scale: &[f32],
) -> Value {
    let weight = program.constant(gain).unwrap_or_else(|| unreachable!("a gain is a constant"));
    let old = constants.get(&weight.name).map(Vec::as_slice).or_else(|| weight.tensor.as_f32()).unwrap_or(&[]);
    let new: Vec<f32> = old.iter().zip(scale).map(|(gain, scale)| gain * scale).collect();
    builder.weight(&weight.name, Arc::new(Tensor::f32(weight.tensor.sizes(), new)))
}
