//! Turns the hidden layers of gated MLPs by a Hadamard matrix, exact up to rounding.
//!
//! A hidden layer is the product of two projections, so what turns it cannot be folded into a weight in front of it: an op
//! `hadamard` stands between the gate and the projection behind it, which takes the transpose (QuaRot: Ashkboos et al. 2024):
//!
//! ```text
//! down(gated(g, up))  =  down'(hadamard(gated(g, S up)))        down' = H S down
//! ```
//!
//! `H` is symmetric and its own inverse. `S` are signs, drawn from a seeded generator, so that no common direction of the layer
//! falls on one channel; they cost nothing, as long as nobody else reads `up`.

use super::refusal::refused;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::op::{DenseOp, Layout, LeafOp};
use snnc_ir::random::SplitMix64;
use snnc_ir::weight_store::kept;
use snnc_ir::{Builder, Diagnostic, Graph, Node, Op, Tensor, Value, WeightStore};
use std::sync::Arc;

/// The seed of the signs.
const SEED: u64 = 0x4861_6461_6d61_7264;

/// The Tensor graph with all hidden layers turned that can be: those of gates that projections alone read. Others stay as they are.
///
/// # Errors
/// There is none.
pub(super) fn turned_hidden(graph: &Graph, store: Option<&dyn WeightStore>) -> Result<Graph, Diagnostic> {
    check(graph)?;
    let turns = hidden_layers(graph);
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Option<Value>> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        // Constants are placed where they are used, so that those that are turned keep their names.
        if let Op::Leaf(LeafOp::Weight(_)) = node.op {
            map.push(None);
            continue;
        }
        let mut args: Vec<Value> = Vec::with_capacity(node.args.len());
        for (i, arg) in node.args.iter().enumerate() {
            args.push(match (map[arg.index()], graph.constant(*arg)) {
                (Some(new), _) => new,
                (None, Some(weight)) => {
                    let made = turned(&turns, value, node, i, &weight.tensor);
                    let is_new = !Arc::ptr_eq(&made, &weight.tensor);
                    let made = if is_new { kept(store, Arc::unwrap_or_clone(made))? } else { made };
                    builder.weight(&weight.name, made)
                }
                (None, None) => unreachable!("operands come before users"),
            });
        }
        let mut new = builder.add(node.op, &args, graph.origin(value))?;
        if let Some(turn) = turns.iter().find(|turn| turn.hidden == value) {
            new = builder.add(DenseOp::Hadamard(turn.size), &[new], graph.origin(value))?;
        }
        map.push(Some(new));
    }
    let outputs = graph.outputs.iter().filter_map(|(name, value)| Some((name.clone(), map[value.index()]?))).collect();
    Ok(builder.finish(outputs))
}

/// # Errors
/// No hidden layer can be turned.
pub(super) fn check(graph: &Graph) -> Result<(), Diagnostic> {
    if hidden_layers(graph).is_empty() {
        return Err(refused(graph, None, "hidden layers", "no gate multiplies what projections alone read"));
    }
    Ok(())
}

/// A hidden layer that is turned.
#[derive(Clone, Debug)]
struct HiddenLayer {
    /// What the gate gives.
    hidden: Value,
    /// The projection whose outputs take the signs, where there is one.
    up: Option<Value>,
    size: HadamardSize,
    /// By channel: 1 or -1.
    signs: Vec<f32>,
}

fn hidden_layers(graph: &Graph) -> Vec<HiddenLayer> {
    let users = graph.users();
    let is_output = |value: Value| graph.outputs.iter().any(|(_, output)| *output == value);
    let mut random = SplitMix64(SEED);
    let mut layers = Vec::new();
    for (hidden, node) in graph.iter() {
        let Op::Dense(DenseOp::Gated(_)) = node.op else { continue };
        let readers = &users[hidden.index()];
        let by_projections = readers.iter().all(|user| is_constant_linear(graph, *user));
        let size = node.ty.shape().row_width().and_then(HadamardSize::of_width);
        let Some(size) = size.filter(|_| by_projections && !readers.is_empty() && !is_output(hidden)) else { continue };
        let up = node.args[1];
        let alone = users[up.index()] == [hidden] && !is_output(up);
        let up = Some(up).filter(|up| alone && is_constant_linear(graph, *up));
        let width = node.ty.shape().row_width().unwrap_or(0);
        let mut sign = || if random.bits() >> 63 == 1 { -1.0 } else { 1.0 };
        let signs = (0..width).map(|_| if up.is_some() { sign() } else { 1.0 }).collect();
        layers.push(HiddenLayer { hidden, up, size, signs });
    }
    layers
}

/// Whether a value is a projection with constants.
fn is_constant_linear(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    let constant = |arg: &Value| graph.constant(*arg).is_some_and(|weight| weight.tensor.as_f32().is_some());
    matches!(node.op, Op::Dense(DenseOp::Linear(_))) && node.args[1..].iter().all(constant)
}

/// Operand `i` of a node, a constant, as the graph with turned layers has it.
fn turned(turns: &[HiddenLayer], value: Value, node: &Node, i: usize, constant: &Arc<Tensor>) -> Arc<Tensor> {
    let Op::Dense(DenseOp::Linear(layout)) = node.op else { return constant.clone() };
    let mut tensor = constant.clone();
    if let Some(behind) = turns.iter().find(|turn| turn.hidden == node.args[0] && i == 1) {
        tensor = turned_back(&tensor, layout, behind);
    }
    if let Some(before) = turns.iter().find(|turn| turn.up == Some(value)) {
        let layout = if i == 1 { layout } else { Layout::InputMajor };
        tensor = with_signs(&tensor, layout, &before.signs);
    }
    tensor
}

/// A weight or bias with the signs of its outputs.
fn with_signs(tensor: &Tensor, layout: Layout, signs: &[f32]) -> Arc<Tensor> {
    let data = tensor.as_f32().unwrap_or(&[]);
    let inputs = data.len() / signs.len().max(1);
    let sign = |i: usize| match layout {
        Layout::InputMajor => signs[i % signs.len()],
        Layout::OutputMajor => signs[i / inputs],
    };
    Arc::new(Tensor::f32(tensor.sizes(), data.iter().enumerate().map(|(i, w)| w * sign(i)).collect()))
}

/// `H S w`: in f64, rounded once.
fn turned_back(tensor: &Tensor, layout: Layout, turn: &HiddenLayer) -> Arc<Tensor> {
    let data = tensor.as_f32().unwrap_or(&[]);
    let inputs = turn.signs.len();
    let outputs = data.len() / inputs.max(1);
    let place = |output: usize, input: usize| match layout {
        Layout::InputMajor => input * outputs + output,
        Layout::OutputMajor => output * inputs + input,
    };
    let matrix = HadamardMatrix::of(turn.size);
    let mut turned = vec![0.0; data.len()];
    for output in 0..outputs {
        let column = turn.signs.iter().enumerate().map(|(input, sign)| f64::from(data[place(output, input)] * sign));
        let mut column = column.collect::<Vec<f64>>();
        matrix.apply(&mut column);
        column.into_iter().enumerate().for_each(|(input, w)| turned[place(output, input)] = w as f32);
    }
    Arc::new(Tensor::f32(tensor.sizes(), turned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::eval::{Content, Evaluator, Memory};
    use snnc_ir::text::{fill::parse_filled, print};

    const WEIGHTS: &str = "
weight @table : f32[4,4] = fill(seed=1)
weight @gate : f32[4,24] = fill(seed=2)
weight @up : f32[24,4] = fill(seed=3)
weight @down : f32[24,4] = fill(seed=4)
weight @again : f32[4,24] = fill(seed=5)
weight @wide : f32[24] = fill(seed=6)
weight @narrow : f32[4] = fill(seed=7)
";

    fn graph(body: &str) -> Graph {
        let text = format!("snnc 3 tensor context=4\n{WEIGHTS}\n{body}");
        parse_filled(&text, &|name, _, _| Err(name.to_string())).expect("it is sound").graph
    }

    fn outputs(graph: &Graph) -> Vec<f64> {
        let evaluator = Evaluator::<f64>::new(graph);
        let done = evaluator.run(&[0, 3, 1, 2], &mut Memory::new(graph)).expect("it runs");
        let output = |(_, value): &(String, Value)| match &evaluator.get(&done, *value).content {
            Content::Real(data) => data.clone(),
            Content::Int(_) | Content::Train(_) => Vec::new(),
        };
        graph.outputs.iter().flat_map(output).collect()
    }

    const GATED: &str = "
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,4]
%2 = linear(%1, @gate, @wide) : f32[tokens,24]
%3 = linear[output_major](%1, @up, @wide) : f32[tokens,24]
%4 = gated[silu](%2, %3) : f32[tokens,24]
%5 = linear(%4, @down, @narrow) : f32[tokens,4]
%6 = linear[output_major](%4, @again, @narrow) : f32[tokens,4]
";

    #[test]
    fn the_outputs_are_the_same() {
        for outputs_of in ["output a = %5\noutput b = %6", "output a = %5\noutput b = %6\noutput c = %3"] {
            let before = graph(&format!("{GATED}\n{outputs_of}\n"));
            let after = turned_hidden(&before, None).expect("it fits");
            assert_eq!(hidden_layers(&before).len(), 1);
            let text = print(&after);
            assert!(text.contains("hadamard[order=12,power=1]"), "{text}");
            let (a, b) = (outputs(&before), outputs(&after));
            assert!(!a.is_empty() && a.len() == b.len());
            // Weights are rounded once to f32.
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + a.abs())), "{a:?}\n{b:?}");
            let shifted = |graph: &Graph| outputs(graph).iter().map(|x| x.abs()).sum::<f64>();
            assert!(shifted(&before) > 1.0, "there is something to compare");
        }
    }

    #[test]
    fn layers_that_others_read_stay() {
        for outputs_of in ["output a = %4\noutput b = %5\noutput c = %6", "output a = %5\noutput b = %6\noutput c = %7"]
        {
            let more = if outputs_of.contains("%7") { "%7 = curve[silu](%4) : f32[tokens,24]\n" } else { "" };
            let before = graph(&format!("{GATED}{more}\n{outputs_of}\n"));
            let told = turned_hidden(&before, None).expect_err("none can be turned").to_string();
            assert!(told.contains("hidden layers cannot be rotated"), "{told}");
        }
    }
}
