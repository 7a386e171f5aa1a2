//! Puts sizes of 1 aside: `[tokens, 1, d]`, as a batch axis in the middle gives it, is `[tokens, d]`.
//!
//! Every value that depends on the tokens loses its sizes of 1 but the innermost. What broadcasts along one gets it back where
//! it is read.

use snnc_ir::op::{ArrayOp, Perm, TrainingOp};
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Builder, Diagnostic, Graph, Op, Value};

const ONE: Dim = Dim::Fixed(1);

/// The same graph without sizes of 1 between tokens and channels; itself where there are none.
///
/// # Errors
/// None, for a graph that was verified.
pub(super) fn without_ones(graph: &Graph) -> Result<Graph, Diagnostic> {
    let has = |dims: &[Dim]| {
        let inner = dims.iter().position(|dim| *dim == Dim::Tokens).map_or(dims.len(), |at| at + 1);
        dims.len() > 2 && dims[inner..].split_last().is_some_and(|(_, between)| between.contains(&ONE))
    };
    if !graph.nodes.iter().any(|node| has(node.ty.shape().dims())) {
        return Ok(graph.clone());
    }
    let mut aside = Aside { graph, builder: Builder::new(graph.stage, graph.context), map: Vec::new() };
    for (value, _) in graph.iter() {
        let new = aside.node(value)?;
        aside.map.push(new);
    }
    let Aside { builder, map, .. } = aside;
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    Ok(builder.finish(outputs))
}

struct Aside<'a> {
    graph: &'a Graph,
    builder: Builder,
    /// The same elements in the new graph, in some shape, by value of the old one.
    map: Vec<Value>,
}

/// Which axes stay: sizes other than 1, and the innermost.
fn stays(dims: &[Dim]) -> Vec<bool> {
    (0..dims.len()).map(|axis| dims[axis] != ONE || axis + 1 == dims.len()).collect()
}

/// A shape without its sizes of 1 but the innermost.
fn dense(dims: &[Dim]) -> Vec<Dim> {
    dims.iter().zip(stays(dims)).filter(|(_, stays)| *stays).map(|(dim, _)| *dim).collect()
}

impl Aside<'_> {
    fn node(&mut self, value: Value) -> Result<Value, Diagnostic> {
        let graph = self.graph;
        let node = graph.node(value);
        if let Some(weight) = graph.constant(value) {
            return Ok(self.builder.weight(&weight.name, weight.tensor.clone()));
        }
        let to = node.ty.shape();
        let own = |i: usize| graph.ty(node.args[i]).shape();
        let (op, wanted): (Op, Vec<Vec<Dim>>) = match node.op {
            Op::Array(ArrayOp::Reshape(_)) => return self.shaped(node.args[0], &dense(to.dims()), value),
            Op::Array(ArrayOp::Transpose(perm)) => return self.turned(value, perm),
            Op::Array(ArrayOp::Slice { axis, .. }) if own(0).dims()[usize::from(axis)] == ONE => {
                return self.shaped(node.args[0], &dense(to.dims()), value);
            }
            Op::Array(ArrayOp::Slice { axis, start, len }) => {
                let before = stays(own(0).dims()).iter().take(axis.into()).filter(|stays| **stays).count();
                (Op::Array(ArrayOp::Slice { axis: before as u8, start, len }), vec![dense(own(0).dims())])
            }
            Op::Array(ArrayOp::Binary(_) | ArrayOp::Where) => {
                let along = stays(to.dims());
                (node.op, (0..node.args.len()).map(|i| aligned(own(i), &along, 0)).collect())
            }
            Op::Array(ArrayOp::MatMul) if own(1).rank() == 2 && dense(own(0).dims()).len() > 1 => {
                (node.op, vec![dense(own(0).dims()), own(1).dims().to_vec()])
            }
            Op::Array(ArrayOp::MatMul) => {
                let batch: Vec<bool> = to.dims().iter().take(to.rank().max(2) - 2).map(|dim| *dim != ONE).collect();
                (node.op, (0..2).map(|i| aligned(own(i), &batch, 2)).collect())
            }
            Op::Array(ArrayOp::Unary(_) | ArrayOp::Softmax | ArrayOp::Mean) | Op::Training(TrainingOp::RowMax) => {
                (node.op, vec![dense(own(0).dims())])
            }
            Op::Training(TrainingOp::ReduceSum(_)) if dense(to.dims()).len() == dense(own(0).dims()).len() => {
                (Op::Training(TrainingOp::ReduceSum(Shape::new(&dense(to.dims())))), vec![dense(own(0).dims())])
            }
            op @ (Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_)) => {
                (op, (0..node.args.len()).map(|i| own(i).dims().to_vec()).collect())
            }
        };
        let mut args = Vec::with_capacity(wanted.len());
        for (arg, dims) in node.args.iter().zip(&wanted) {
            args.push(self.shaped(*arg, dims, value)?);
        }
        let new = self.builder.add(op, &args, graph.origin(value))?;
        self.reshaped(new, &dense(to.dims()), value)
    }

    /// Axes in another order: sizes of 1 have none.
    fn turned(&mut self, value: Value, perm: Perm) -> Result<Value, Diagnostic> {
        let (graph, arg) = (self.graph, self.graph.node(value).args[0]);
        let (from, to) = (graph.ty(arg).shape(), graph.ty(value).shape());
        let kept: Vec<usize> = (0..from.rank()).filter(|&axis| from.dims()[axis] != ONE).collect();
        let place = |axis: &u8| kept.iter().position(|kept| *kept == usize::from(*axis));
        let order: Vec<usize> = perm.axes().iter().filter_map(place).collect();
        let sizes: Vec<Dim> = kept.iter().map(|&axis| from.dims()[axis]).collect();
        let Some(order) = Perm::new(&order).filter(|_| !order.is_empty()) else {
            return self.shaped(arg, &dense(to.dims()), value);
        };
        let x = self.shaped(arg, &sizes, value)?;
        let turned = self.builder.add(Op::Array(ArrayOp::Transpose(order)), &[x], graph.origin(value))?;
        self.reshaped(turned, &dense(to.dims()), value)
    }

    /// An old value in this shape, for the node that stands at `at`.
    fn shaped(&mut self, old: Value, dims: &[Dim], at: Value) -> Result<Value, Diagnostic> {
        self.reshaped(self.map[old.index()], dims, at)
    }

    fn reshaped(&mut self, new: Value, dims: &[Dim], at: Value) -> Result<Value, Diagnostic> {
        if self.builder.ty(new).shape().dims() == dims {
            return Ok(new);
        }
        self.builder.add(Op::Array(ArrayOp::Reshape(Shape::new(dims))), &[new], self.graph.origin(at))
    }
}

/// An operand's sizes on the axes of the result that stay, and its innermost `inner`. Leading axes may be missing.
fn aligned(own: Shape, along: &[bool], inner: usize) -> Vec<Dim> {
    let missing = along.len() + inner - own.rank();
    let stays = |(axis, _): &(usize, &Dim)| along.get(missing + axis).copied().unwrap_or(true);
    own.dims().iter().enumerate().filter(stays).map(|(_, dim)| *dim).collect()
}
