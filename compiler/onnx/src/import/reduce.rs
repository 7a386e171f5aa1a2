//! Operators that take all numbers of a row together.

use super::constants::Constant;
use super::importer::Importer;
use super::value::{ImportError, ImportValue, LiveValue};
use crate::model::OnnxNode;
use crate::tensor::{ArrayData, OnnxArray};
use snnc_ir::op::{ArrayOp, TrainingOp};
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Op, Unary, Value};
use std::sync::Arc;

/// What a row becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduction {
    Mean,
    Sum,
    Max,
}

impl Importer<'_> {
    /// ReduceMean, ReduceSum and ReduceMax over the innermost axis.
    pub(super) fn reduced(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        kind: Reduction,
    ) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let rank = x.dims.len();
        let axes = self.at_each(node, inputs, |call, _| call.reduced_axes(rank))?;
        if rank == 0 || axes.iter().any(|axes| *axes != [rank - 1]) {
            let name = match kind {
                Reduction::Mean => "mean",
                Reduction::Sum => "sum",
                Reduction::Max => "maximum",
            };
            return Err(format!("only a {name} over the innermost axis is supported").into());
        }
        let keeps = node.int("keepdims").unwrap_or(1) != 0;
        self.of_innermost(node, x, kind, keeps)
    }

    /// GlobalAveragePool: the mean over all axes but two, of which here all but the innermost are 1.
    pub(super) fn pooled(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        match x.dims.as_slice() {
            [_, _, between @ .., _] if between.iter().all(|dim| *dim == Dim::Fixed(1)) => {
                self.of_innermost(node, x, Reduction::Mean, true)
            }
            _ => Err("only a pool over the innermost axis is supported".into()),
        }
    }

    fn of_innermost(
        &mut self,
        node: &OnnxNode,
        x: LiveValue,
        kind: Reduction,
        keeps: bool,
    ) -> Result<LiveValue, ImportError> {
        let mut dims = x.dims;
        let mut shape = self.builder.ty(x.value).shape().dims().to_vec();
        let (Some(last), Some(inner)) = (dims.last_mut(), shape.last_mut()) else {
            return Err("a number has no innermost axis".into());
        };
        (*last, *inner) = (Dim::Fixed(1), Dim::Fixed(1));
        let op = match kind {
            Reduction::Mean => Op::Array(ArrayOp::Mean),
            Reduction::Sum => Op::Training(TrainingOp::ReduceSum(snnc_ir::Shape::new(&shape))),
            Reduction::Max => Op::Training(TrainingOp::RowMax),
        };
        let reduced = self.add(node, op, &[x.value], dims.clone())?;
        if keeps {
            return Ok(reduced);
        }
        dims.pop();
        self.reshaped(node, reduced, dims)
    }

    /// A sum of a row's weights in attention is greater than 0: some exporters ask, and would take something else if not.
    pub(super) fn is_greater(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let [Some(ImportValue::Live(x)), Some(ImportValue::Constant(bound))] = inputs else {
            return Err(ImportError::Unsupported);
        };
        if bound.uniform() != Some(0.0) || !self.is_positive(x.value) {
            return Err(ImportError::Unsupported);
        }
        let sure = |_: &usize| Arc::new(OnnxArray::new(vec![], ArrayData::Bool(vec![true])));
        Ok(vec![ImportValue::Constant(Constant::of(node.label(), self.counts.iter().map(sure).collect()))])
    }

    /// Whether all numbers of a value are greater than 0 by what it is.
    fn is_positive(&self, value: Value) -> bool {
        let graph = self.builder.graph();
        let is_exponential =
            |value: Value| matches!(graph.node(value).op, Op::Array(ArrayOp::Softmax | ArrayOp::Unary(Unary::Exp)));
        let keeps_itself = |value: Value| {
            let mask = graph.node(value).op;
            matches!(mask, Op::Array(ArrayOp::CausalMask { keep, drop, .. }) if keep.get() > 0.0 && drop.get() >= 0.0)
        };
        let node = graph.node(value);
        let Op::Training(TrainingOp::ReduceSum(_)) = node.op else { return is_exponential(value) };
        let of = graph.node(node.args[0]);
        let masked = of.op == Op::Array(ArrayOp::Binary(Binary::Mul))
            && of.args.iter().any(|arg| is_exponential(*arg))
            && of.args.iter().any(|arg| keeps_itself(*arg));
        masked || is_exponential(node.args[0])
    }
}
