//! Values that were computed side by side, as one: Concat of heads that are a module each.
//!
//! The IR has no concatenation. Where all parts are the same operations with other weights, those weights are put beside
//! each other, and the operations are done once for all heads: what other exporters write from the start.

use super::importer::Importer;
use super::value::{ImportError, LiveValue};
use crate::model::OnnxNode;
use snnc_ir::op::{ArrayOp, LeafOp, Perm};
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Op, Tensor, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// The longest chain of operations in a head.
const DEPTH_MAX: usize = 64;

/// How values of all heads are held as one.
#[derive(Clone, Copy, Debug)]
enum HeadsForm {
    /// Every head has the same value.
    Same(Value),
    /// `[tokens, heads * width]`, or `[heads * width]` of a constant.
    Beside(Value),
    /// `[heads, a, b]`.
    Stacked(Value),
}

/// Heads while they are put together.
struct HeadJoiner<'a, 'm> {
    importer: &'a mut Importer<'m>,
    label: &'a str,
    heads: u32,
    done: HashMap<Vec<Value>, Option<HeadsForm>>,
}

impl Importer<'_> {
    /// Parts of one size along `axis`, which are computed alike; `None` where they are not.
    pub(super) fn side_by_side(
        &mut self,
        node: &OnnxNode,
        parts: &[LiveValue],
        axis: usize,
    ) -> Result<Option<LiveValue>, ImportError> {
        let (Some(first), Ok(heads)) = (parts.first(), u32::try_from(parts.len())) else { return Ok(None) };
        let shape = self.builder.ty(first.value).shape();
        let (&[.., Dim::Tokens, Dim::Fixed(width)], 2) = (first.dims.as_slice(), shape.rank()) else { return Ok(None) };
        if parts.iter().any(|part| part.dims != first.dims) {
            return Ok(None);
        }
        let values: Vec<Value> = parts.iter().map(|part| part.value).collect();
        let mut joiner = HeadJoiner { importer: self, label: node.label(), heads, done: HashMap::new() };
        let Some(form) = joiner.join(&values, 0) else { return Ok(None) };
        let mut dims = first.dims.clone();
        let value = if axis + 1 == dims.len() {
            let Some(all) = width.checked_mul(heads) else { return Ok(None) };
            dims[axis] = Dim::Fixed(all);
            joiner.beside(form, all)
        } else if dims[axis] == Dim::Fixed(1) {
            dims[axis] = Dim::Fixed(heads);
            joiner.stacked(form).filter(|_| !matches!(form, HeadsForm::Same(_)))
        } else {
            None
        };
        value.map(|value| self.live(value, dims).map_err(ImportError::from)).transpose()
    }
}

impl HeadJoiner<'_, '_> {
    fn join(&mut self, values: &[Value], depth: usize) -> Option<HeadsForm> {
        if values.iter().all(|value| value == &values[0]) {
            return Some(HeadsForm::Same(values[0]));
        }
        if let Some(done) = self.done.get(values) {
            return *done;
        }
        let form = if depth < DEPTH_MAX { self.joined(values, depth) } else { None };
        self.done.insert(values.to_vec(), form);
        form
    }

    fn joined(&mut self, values: &[Value], depth: usize) -> Option<HeadsForm> {
        let graph = self.importer.builder.graph();
        let nodes: Vec<(Op, Vec<Value>)> =
            values.iter().map(|&value| (graph.node(value).op, graph.node(value).args.to_vec())).collect();
        let args = |i: usize| nodes.iter().map(|(_, args)| args[i]).collect::<Vec<Value>>();
        let op = nodes[0].0;
        if matches!(op, Op::Leaf(LeafOp::Weight(_))) {
            return self.weights(values, 1).map(HeadsForm::Beside);
        }
        if let Op::Array(ArrayOp::Slice { axis: 1, .. }) = op {
            return self.slices(&nodes);
        }
        if nodes.iter().any(|(other, args)| *other != op || args.len() != nodes[0].1.len()) {
            return None;
        }
        match op {
            Op::Array(ArrayOp::MatMul) => {
                let x = self.join(&args(0), depth + 1)?;
                if let (HeadsForm::Same(x), Some(columns)) = (x, self.columns(&args(1))) {
                    return self.add(op, &[x, columns]).map(HeadsForm::Beside);
                }
                let y = self.join(&args(1), depth + 1)?;
                self.each(op, &[x, y])
            }
            Op::Array(ArrayOp::Unary(_)) => match self.join(&args(0), depth + 1)? {
                HeadsForm::Beside(x) => self.add(op, &[x]).map(HeadsForm::Beside),
                x => self.each(op, &[x]),
            },
            Op::Array(ArrayOp::Binary(_)) => {
                let both = [self.join(&args(0), depth + 1)?, self.join(&args(1), depth + 1)?];
                let graph = self.importer.builder.graph();
                let wide = |form: &HeadsForm| match form {
                    HeadsForm::Beside(value) => Some(*value),
                    HeadsForm::Same(value) if graph.ty(*value).shape().rank() == 0 => Some(*value),
                    HeadsForm::Same(_) | HeadsForm::Stacked(_) => None,
                };
                match both.each_ref().map(wide) {
                    [Some(x), Some(y)] => self.add(op, &[x, y]).map(HeadsForm::Beside),
                    _ => self.each(op, &both),
                }
            }
            Op::Array(ArrayOp::Softmax | ArrayOp::Mean | ArrayOp::Where) => {
                let forms: Option<Vec<HeadsForm>> =
                    (0..nodes[0].1.len()).map(|i| self.join(&args(i), depth + 1)).collect();
                self.each(op, &forms?)
            }
            Op::Array(ArrayOp::Transpose(perm)) if Some(perm) == Perm::new(&[1, 0]) => {
                let x = self.join(&args(0), depth + 1)?;
                self.each(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1])?)), &[x])
            }
            Op::Array(
                ArrayOp::Transpose(_)
                | ArrayOp::CausalMask { .. }
                | ArrayOp::Alibi
                | ArrayOp::Reshape(_)
                | ArrayOp::Concat { .. }
                | ArrayOp::Slice { .. }
                | ArrayOp::SplitHeads { .. }
                | ArrayOp::MergeHeads,
            )
            | Op::Leaf(_)
            | Op::Dense(_)
            | Op::Level(_)
            | Op::Spike(_)
            | Op::Training(_) => None,
        }
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Option<Value> {
        self.importer.builder.add(op, args, self.label).ok()
    }

    /// An operation on every head alone.
    fn each(&mut self, op: Op, forms: &[HeadsForm]) -> Option<HeadsForm> {
        let args: Option<Vec<Value>> = forms.iter().map(|&form| self.stacked(form)).collect();
        self.add(op, &args?).map(HeadsForm::Stacked)
    }

    /// `[heads, tokens, width]`; what all heads share broadcasts as it is.
    fn stacked(&mut self, form: HeadsForm) -> Option<Value> {
        match form {
            HeadsForm::Same(value) | HeadsForm::Stacked(value) => Some(value),
            HeadsForm::Beside(value) => {
                let shape = self.importer.builder.ty(value).shape();
                let width = u32::try_from(shape.row_width()?).ok()? / self.heads;
                let shape = Shape::new(&[Dim::Tokens, Dim::Fixed(self.heads), Dim::Fixed(width)]);
                let split = self.add(Op::Array(ArrayOp::Reshape(shape)), &[value])?;
                self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0, 2])?)), &[split])
            }
        }
    }

    /// `[tokens, width]`, `width` being that of all heads together.
    fn beside(&mut self, form: HeadsForm, width: u32) -> Option<Value> {
        match form {
            HeadsForm::Same(_) => None,
            HeadsForm::Beside(value) => Some(value),
            HeadsForm::Stacked(value) => {
                let turned = self.add(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0, 2])?)), &[value])?;
                let shape = Shape::new(&[Dim::Tokens, Dim::Fixed(width)]);
                self.add(Op::Array(ArrayOp::Reshape(shape)), &[turned])
            }
        }
    }

    /// Neighbouring parts of one value are a part of it.
    fn slices(&mut self, nodes: &[(Op, Vec<Value>)]) -> Option<HeadsForm> {
        let of = nodes[0].1[0];
        let mut next = None;
        for (op, args) in nodes {
            let Op::Array(ArrayOp::Slice { axis: 1, start, len }) = *op else { return None };
            if args[0] != of || next.is_some_and(|next| next != start) {
                return None;
            }
            next = Some(start + len);
        }
        let Op::Array(ArrayOp::Slice { start, .. }) = nodes[0].0 else { return None };
        let whole = Op::Array(ArrayOp::Slice { axis: 1, start, len: next? - start });
        let is_all = self.importer.builder.ty(of).shape().row_width() == Some((next? - start) as usize);
        if is_all { Some(HeadsForm::Beside(of)) } else { self.add(whole, &[of]).map(HeadsForm::Beside) }
    }

    /// Matrices of one size, or their transposes, beside each other.
    fn columns(&mut self, values: &[Value]) -> Option<Value> {
        let graph = self.importer.builder.graph();
        let swap = Perm::new(&[1, 0])?;
        let turned = |value: &Value| {
            let node = graph.node(*value);
            (node.op == Op::Array(ArrayOp::Transpose(swap))).then(|| node.args[0])
        };
        match values.iter().map(turned).collect::<Option<Vec<Value>>>() {
            Some(rows) => {
                let rows = self.weights(&rows, 0)?;
                self.add(Op::Array(ArrayOp::Transpose(swap)), &[rows])
            }
            None => self.weights(values, 1),
        }
    }

    /// Constants of one size as one: matrices along `axis`, vectors along their only one.
    fn weights(&mut self, values: &[Value], axis: usize) -> Option<Value> {
        let graph = self.importer.builder.graph();
        let all: Option<Vec<_>> = values.iter().map(|&value| graph.constant(value)).collect();
        let all = all?;
        let sizes = all[0].tensor.sizes().to_vec();
        if all.iter().any(|weight| weight.tensor.sizes() != sizes) {
            return None;
        }
        let parts: Option<Vec<&[f32]>> = all.iter().map(|weight| weight.tensor.as_f32()).collect();
        let parts = parts?;
        let (sizes, numbers) = match (sizes.as_slice(), axis) {
            (&[n], _) => (vec![n * parts.len()], parts.concat()),
            (&[n, m], 0) => (vec![n * parts.len(), m], parts.concat()),
            (&[n, m], _) => {
                let rows = (0..n).flat_map(|row| parts.iter().flat_map(move |part| &part[row * m..][..m]));
                (vec![n, m * parts.len()], rows.copied().collect())
            }
            _ => return None,
        };
        let name = format!("{} and others", all[0].name);
        Some(self.importer.builder.weight(&name, Arc::new(Tensor::f32(&sizes, numbers))))
    }
}
