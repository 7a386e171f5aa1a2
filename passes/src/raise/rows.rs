//! Rows of some channels of other rows, in any order: a part of them, several parts, or a projection with some of its columns.

use super::heads::HeadForms;
use super::views::by_token;
use snnc_ir::op::{ArrayOp, Perm};
use snnc_ir::types::Shape;
use snnc_ir::{Binary, Diagnostic, Op, Tensor, Value};
use std::sync::Arc;

/// Parts that rows are put together from, at most.
const PARTS_MAX: usize = 256;

impl HeadForms<'_> {
    /// Rows that only move channels of other rows, as those.
    pub fn moved_rows(&mut self, value: Value) -> Result<Option<Value>, Diagnostic> {
        let node = self.graph.node(value);
        let moves = matches!(
            node.op,
            Op::Array(ArrayOp::Reshape(_) | ArrayOp::MergeHeads | ArrayOp::Concat { .. } | ArrayOp::Transpose(_))
        );
        if !moves || node.ty.shape().row_width().is_none() || !self.views.is_made(value) {
            return Ok(None);
        }
        let Some(view) = self.views.get(value).cloned() else { return Ok(None) };
        match view.channels() {
            Some(channels) => self.gathered(view.base, &channels, value),
            None => Ok(None),
        }
    }

    /// Rows of these channels of a base; none where that is no part of it and no projection.
    pub fn gathered(&mut self, base: Value, channels: &[u32], at: Value) -> Result<Option<Value>, Diagnostic> {
        if let Some((rows, places)) = self.rows.get(&base) {
            let (rows, channels) = (*rows, channels.iter().map(|&c| places[c as usize]).collect::<Vec<u32>>());
            return self.picked(rows, &channels, at);
        }
        let shape = self.graph.ty(base).shape();
        let Some((axis, sizes)) = by_token(shape) else { return Ok(None) };
        if runs(channels).len() > 1
            && let Some(columns) = self.columns(base, channels)?
        {
            return Ok(Some(columns));
        }
        let mut rows = self.map[base.index()];
        if shape.row_width().is_none() {
            let order: Vec<usize> =
                [axis].into_iter().chain((0..shape.rank()).filter(|other| *other != axis)).collect();
            let Some(perm) = Perm::new(&order) else { return Ok(None) };
            if !perm.is_identity() {
                rows = self.add(Op::Array(ArrayOp::Transpose(perm)), &[rows], at)?;
            }
            rows = self.reshaped(rows, Shape::rows(sizes.iter().product()), at)?;
        }
        self.picked(rows, channels, at)
    }

    /// Channels of rows of the new graph.
    fn picked(&mut self, rows: Value, channels: &[u32], at: Value) -> Result<Option<Value>, Diagnostic> {
        let width = self.builder.ty(rows).shape().row_width().unwrap_or(0);
        let runs = runs(channels);
        if runs.len() > PARTS_MAX {
            return Ok(None);
        }
        let mut all = None;
        for &(start, len) in &runs {
            let part = match (start, len as usize == width) {
                (0, true) => rows,
                _ => self.add(Op::Array(ArrayOp::Slice { axis: 1, start, len }), &[rows], at)?,
            };
            all = Some(match all {
                Some(all) => self.add(Op::Array(ArrayOp::Concat { axis: 1 }), &[all, part], at)?,
                None => part,
            });
        }
        Ok(all)
    }

    /// A projection with some of its columns, in any order.
    fn columns(&mut self, base: Value, channels: &[u32]) -> Result<Option<Value>, Diagnostic> {
        let node = self.graph.node(base);
        let pick = |row: &[f32]| channels.iter().map(|&c| row[c as usize]).collect::<Vec<f32>>();
        match node.op {
            Op::Array(ArrayOp::MatMul) => {
                let Some((name, data, width)) = self.matrix(node.args[1]) else { return Ok(None) };
                let picked: Vec<f32> = data.chunks_exact(width).flat_map(pick).collect();
                let tensor = Tensor::f32(&[data.len() / width, channels.len()], picked);
                let w = self.builder.weight(&format!("{name}.channels"), Arc::new(tensor));
                let x = self.map[node.args[0].index()];
                self.add(node.op, &[x, w], base).map(Some)
            }
            Op::Array(ArrayOp::Binary(Binary::Add)) => {
                let constant = |i: usize| {
                    let weight = self.graph.constant(node.args[i])?;
                    let data = weight.tensor.as_f32().filter(|_| weight.tensor.sizes().len() == 1)?;
                    Some((weight.name.clone(), pick(data)))
                };
                let (live, bias) = match (constant(0), constant(1)) {
                    (Some(bias), None) => (node.args[1], bias),
                    (None, Some(bias)) => (node.args[0], bias),
                    _ => return Ok(None),
                };
                let Some(x) = self.columns(live, channels)? else { return Ok(None) };
                let tensor = Tensor::f32(&[channels.len()], bias.1);
                let bias = self.builder.weight(&format!("{}.channels", bias.0), Arc::new(tensor));
                self.add(node.op, &[x, bias], base).map(Some)
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => Ok(None),
        }
    }

    /// A constant matrix, as it is or turned: its name, numbers and columns.
    fn matrix(&self, value: Value) -> Option<(String, Vec<f32>, usize)> {
        let sizes = self.graph.ty(value).shape().sizes()?;
        let &[rows, columns] = sizes.as_slice() else { return None };
        if let Some(weight) = self.graph.constant(value) {
            return Some((weight.name.clone(), weight.tensor.as_f32()?.to_vec(), columns));
        }
        let node = self.graph.node(value);
        let weight = self.graph.constant(*node.args.first()?)?;
        let data = weight.tensor.as_f32()?;
        let is_turned = matches!(node.op, Op::Array(ArrayOp::Transpose(perm)) if perm.axes() == [1, 0]);
        let at = |i: usize| data[i % columns * rows + i / columns];
        is_turned.then(|| (weight.name.clone(), (0..data.len()).map(at).collect(), columns))
    }
}

/// Neighbouring channels as one: start and length.
fn runs(channels: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &channel in channels {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == channel => *len += 1,
            _ => runs.push((channel, 1)),
        }
    }
    runs
}
