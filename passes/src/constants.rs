//! Evaluates what depends on constants only, once, and gives the graph its next stage.
//!
//! Common shapes of arithmetic on weights have a loop of their own here, so that a large weight is read once and copied
//! once; the rest goes through the evaluator.

use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::types::Shape;
use snnc_ir::weight_store::kept;
use snnc_ir::{Binary, Builder, Diagnostic, Graph, Op, Stage, Tensor, Value, Weight, WeightStore};

/// The same graph at `stage`, with constant expressions replaced by constants named after their first operand.
pub fn fold(graph: &Graph, stage: Stage, store: Option<&dyn WeightStore>) -> Result<Graph, Diagnostic> {
    folded(graph, stage, store, &|_| true)
}

/// The same graph, with those expressions alone replaced that come to one number.
pub fn fold_numbers(graph: &Graph) -> Result<Graph, Diagnostic> {
    folded(graph, graph.stage, None, &|shape| shape.sizes().is_some_and(|sizes| sizes.iter().all(|&n| n == 1)))
}

fn folded(
    graph: &Graph,
    stage: Stage,
    store: Option<&dyn WeightStore>,
    wanted: &dyn Fn(Shape) -> bool,
) -> Result<Graph, Diagnostic> {
    let mut builder = Builder::new(stage, graph.context);
    let mut known: Vec<Option<Weight>> = Vec::with_capacity(graph.nodes.len());
    let mut map: Vec<Option<Value>> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let operands: Option<Vec<&Weight>> = node.args.iter().map(|arg| known[arg.index()].as_ref()).collect();
        let constant = match (node.op, operands) {
            (Op::Leaf(LeafOp::Weight(id)), _) => Some(graph.weight(id).clone()),
            (_, Some(args)) if !args.is_empty() && wanted(node.ty.shape()) => {
                let (name, tensor) = evaluate(graph, value, &args)?;
                Some(Weight { name, tensor: kept(store, tensor)? })
            }
            _ => None,
        };
        // A constant is added where something that is not one uses it, so intermediate ones never show.
        let new = match constant {
            Some(_) => None,
            None => {
                let mut args = Vec::with_capacity(node.args.len());
                for arg in &node.args {
                    args.push(place(&mut builder, &map, &known, *arg));
                }
                Some(builder.add(node.op, &args, graph.origin(value))?)
            }
        };
        known.push(constant);
        map.push(new);
    }
    let place = |(name, value): &(String, Value)| (name.clone(), place(&mut builder, &map, &known, *value));
    let outputs = graph.outputs.iter().map(place).collect();
    Ok(builder.finish(outputs))
}

fn place(builder: &mut Builder, map: &[Option<Value>], known: &[Option<Weight>], value: Value) -> Value {
    match (&map[value.index()], &known[value.index()]) {
        (Some(new), _) => *new,
        (None, Some(weight)) => builder.weight(&weight.name, weight.tensor.clone()),
        (None, None) => unreachable!("operands come before users"),
    }
}

/// The constant's name and what it is.
fn evaluate(graph: &Graph, value: Value, args: &[&Weight]) -> Result<(String, Tensor), Diagnostic> {
    let node = graph.node(value);
    let sizes = node.ty.shape().sizes().ok_or_else(|| {
        Diagnostic::new(graph.origin(value), format!("`{}` of constants depends on the number of tokens", node.op))
    })?;
    let name = match node.op {
        Op::Array(ArrayOp::Slice { start, len, .. }) if len > 0 && start % len == 0 => {
            format!("{}.{}", args[0].name, start / len)
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
            args[0].name.clone()
        }
    };
    let tensors: Vec<&Tensor> = args.iter().map(|weight| &*weight.tensor).collect();
    let tensor = match direct(node.op, &tensors, &sizes) {
        Some(data) => Tensor::f32(&sizes, data),
        None => by_evaluator(node.op, args, graph.origin(value), sizes)?,
    };
    Ok((name, tensor))
}

/// The result where the shapes are common ones.
fn direct(op: Op, args: &[&Tensor], sizes: &[usize]) -> Option<Vec<f32>> {
    let a = args[0].as_f32()?;
    let b = args.get(1).and_then(|b| b.as_f32());
    match (op, args[0].sizes(), args.get(1).map_or(&[][..], |b| b.sizes())) {
        (Op::Array(ArrayOp::Reshape(_)), _, _) => Some(a.to_vec()),
        (Op::Array(ArrayOp::Binary(Binary::Mul)), [_, m], [_, 1]) if sizes == args[0].sizes() => {
            let scaled = a.chunks_exact(*m).zip(b?).flat_map(|(row, &g)| row.iter().map(move |&x| x * g));
            Some(scaled.collect())
        }
        (Op::Array(ArrayOp::Binary(Binary::Mul)), [_, d], [n]) if n == d => {
            let b = b?;
            let mut out = Vec::with_capacity(a.len());
            a.chunks_exact(*d).for_each(|row| out.extend(row.iter().zip(b).map(|(&x, &g)| x * g)));
            Some(out)
        }
        (Op::Array(ArrayOp::Binary(Binary::Add)), a_sizes, b_sizes) if a_sizes == b_sizes => {
            Some(a.iter().zip(b?).map(|(&a, &b)| a + b).collect())
        }
        (Op::Array(ArrayOp::Slice { axis: 1, start, len }), [_, m], _) => {
            let columns = start as usize..(start + len) as usize;
            let mut out = Vec::with_capacity(sizes.iter().product());
            a.chunks_exact(*m).for_each(|row| out.extend_from_slice(&row[columns.clone()]));
            Some(out)
        }
        (Op::Array(ArrayOp::MatMul), [_, k], [_, 1]) => {
            let b = b?;
            let dot = |row: &[f32]| row.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>() as f32;
            Some(a.chunks_exact(*k).map(dot).collect())
        }
        _ => None,
    }
}

fn by_evaluator(op: Op, args: &[&Weight], origin: &NodeOrigin, sizes: Vec<usize>) -> Result<Tensor, Diagnostic> {
    let mut builder = Builder::new(Stage::Imported, 1);
    let values: Vec<Value> = args.iter().map(|weight| builder.weight(&weight.name, weight.tensor.clone())).collect();
    let value = builder.add(op, &values, origin)?;
    let graph = builder.finish(vec![(String::new(), value)]);
    let evaluator = Evaluator::<f32>::new(&graph);
    let done = evaluator.run(&[], &mut Memory::new(&graph))?;
    match &evaluator.get(&done, graph.outputs[0].1).content {
        Content::Real(data) => Ok(Tensor::f32(&sizes, data.clone())),
        Content::Int(_) | Content::Train(_) => Err(Diagnostic::new(origin, format!("`{op}` of constants is no f32"))),
    }
}

/// A fixed shape as an attribute.
pub(crate) fn fixed(sizes: &[usize]) -> Op {
    Op::Array(ArrayOp::Reshape(Shape::fixed(sizes)))
}
