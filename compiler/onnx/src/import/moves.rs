//! Operators that move numbers of values that depend on the token ids: parts of an axis, values side by side, copies.

use super::constants::Constant;
use super::importer::Importer;
use super::shapes::{fixed, ir_shape, kept_axes, unify};
use super::value::{ImportError, ImportValue, LiveValue};
use crate::evaluate::call::{axis, sizes_of};
use crate::evaluate::shape_ops::{SliceSpan, slice_spans, split_sizes};
use crate::model::OnnxNode;
use snnc_ir::op::ArrayOp;
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Binary, Op, Value};

/// Parts that one value is put together from, at most.
const PARTS_MAX: usize = 1024;

impl Importer<'_> {
    /// Slice: any elements of a fixed axis; all tokens, or the last one.
    pub(super) fn slice(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<ImportValue, ImportError> {
        let mut x = self.input(node, inputs, 0)?;
        let spans = self.at_each(node, inputs, |call, k| slice_spans(call, &self.sizes(&x.dims, k)))?;
        for axis in 0..x.dims.len() {
            let along: Vec<SliceSpan> = spans.iter().map(|spans| spans[axis]).collect();
            let whole = |k: usize| SliceSpan { start: 0, step: 1, len: x.dims[axis].size(self.counts[k], 0) };
            if along.iter().enumerate().all(|(k, &span)| span == whole(k)) {
                continue;
            }
            let span = along[0];
            let is_last = |(k, span): (usize, &SliceSpan)| span.start + 1 == self.counts[k] && span.len == 1;
            if x.dims[axis] == Dim::Tokens && along.iter().enumerate().all(is_last) {
                return Ok(ImportValue::Last(x));
            }
            if x.dims[axis] == Dim::Tokens || along.iter().any(|&other| other != span) {
                return Err(format!("it takes a part of axis {axis} that depends on the number of tokens").into());
            }
            let at = |i: usize| span.start.wrapping_add_signed(i as isize * span.step as isize);
            x = self.picked(node, &x, axis, &(0..span.len).map(at).collect::<Vec<usize>>())?;
        }
        Ok(ImportValue::Live(x))
    }

    /// These elements of a fixed axis, in this order.
    fn picked(&mut self, node: &OnnxNode, x: &LiveValue, axis: usize, at: &[usize]) -> Result<LiveValue, ImportError> {
        let Dim::Fixed(size) = x.dims[axis] else { return Err("it picks among the tokens".into()) };
        let size = size as usize;
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &i in at {
            match runs.last_mut() {
                Some((start, len)) if *start + *len == i => *len += 1,
                _ => runs.push((i, 1)),
            }
        }
        if let Some(every) = even_step(at, size) {
            let (before, after) = (&x.dims[..axis], &x.dims[axis + 1..]);
            let apart = [before, &[fixed(size / every)?, fixed(every)?], after].concat();
            let apart = self.reshaped(node, x.clone(), apart)?;
            let one = self.part(node, &apart, axis + 1, at[0], 1)?;
            return self.reshaped(node, one, [before, &[fixed(at.len())?], after].concat());
        }
        match runs.as_slice() {
            [] => Err("it takes nothing".into()),
            &[(0, len)] if len == size => Ok(x.clone()),
            &[(start, len)] => self.part(node, x, axis, start, len),
            runs if runs.len() > PARTS_MAX => Err(format!("it picks {} elements one by one", runs.len()).into()),
            runs => {
                let parts = runs.iter().map(|&(start, len)| self.part(node, x, axis, start, len));
                let parts = parts.collect::<Result<Vec<LiveValue>, ImportError>>()?;
                self.joined(node, &parts, axis)
            }
        }
    }

    /// `len` elements of a fixed axis.
    pub(super) fn part(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        axis: usize,
        start: usize,
        len: usize,
    ) -> Result<LiveValue, ImportError> {
        let x = self.whole(node, x)?;
        let mut dims = x.dims.clone();
        if dims[axis] == fixed(len)? {
            return Ok(x);
        }
        let inner = kept_axes(&x.dims).iter().position(|&kept| kept == axis).ok_or("it takes nothing")?;
        dims[axis] = fixed(len)?;
        let (Ok(start), Ok(len)) = (u32::try_from(start), u32::try_from(len)) else {
            return Err("it is too large".into());
        };
        let value =
            self.builder.add(Op::Array(ArrayOp::Slice { axis: inner as u8, start, len }), &[x.value], node.label())?;
        self.dressed(node, value, dims)
    }

    /// `value` in the shape of `dims`, which may have one more or less leading 1.
    fn dressed(&mut self, node: &OnnxNode, value: Value, dims: Vec<Dim>) -> Result<LiveValue, ImportError> {
        let shape = ir_shape(&dims)?;
        if self.builder.ty(value).shape() == shape {
            return Ok(LiveValue { value, dims });
        }
        self.add(node, Op::Array(ArrayOp::Reshape(shape)), &[value], dims)
    }

    pub(super) fn split(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let axis = axis(node.int("axis").unwrap_or(0), x.dims.len())?;
        let all = self.at_each(node, inputs, |call, k| split_sizes(call, x.dims[axis].size(self.counts[k], 0)))?;
        if x.dims[axis] == Dim::Tokens || all.iter().any(|sizes| *sizes != all[0]) {
            return Err("it splits the tokens".into());
        }
        Ok(self.parts(node, &x, axis, &all[0])?.into_iter().map(ImportValue::Live).collect())
    }

    /// All of a fixed axis, in parts of these sizes.
    pub(super) fn parts(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        axis: usize,
        sizes: &[usize],
    ) -> Result<Vec<LiveValue>, ImportError> {
        let starts = sizes.iter().scan(0, |start, &len| Some(std::mem::replace(start, *start + len)));
        starts.zip(sizes).map(|(start, &len)| self.part(node, x, axis, start, len)).collect()
    }

    /// Gather with constant indices: elements of a fixed axis; all tokens, or the last one.
    pub(super) fn pick(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<ImportValue, ImportError> {
        let (Some(Some(ImportValue::Live(x))), Some(Some(ImportValue::Constant(indices)))) =
            (inputs.first(), inputs.get(1))
        else {
            return Err(ImportError::Unsupported);
        };
        let along = axis(node.int("axis").unwrap_or(0), x.dims.len())?;
        let Dim::Fixed(size) = x.dims[along] else {
            if indices.positions_from(&self.counts) == Some(0) {
                return Ok(ImportValue::Live(x.clone()));
            }
            let index = |k: usize| indices.at(k).number().map(|index| index.int());
            let is_last = |k: usize| index(k).is_some_and(|i| i == -1 || i + 1 == self.counts[k] as i64);
            if (0..self.counts.len()).all(is_last) {
                return Ok(ImportValue::Last(x.clone()));
            }
            return Err("it picks among the tokens".into());
        };
        let ints =
            indices.single().and_then(|array| array.ints()).ok_or("its indices depend on the number of tokens")?;
        let at = ints.iter().map(|&i| axis(i, size as usize)).collect::<Result<Vec<usize>, String>>()?;
        let own = indices.at(0).sizes().iter().map(|&n| fixed(n)).collect::<Result<Vec<Dim>, String>>()?;
        let dims = [&x.dims[..along], &own, &x.dims[along + 1..]].concat();
        let x = x.clone();
        let picked = self.picked(node, &x, along, &at)?;
        self.dressed(node, picked.value, dims).map(ImportValue::Live)
    }

    /// GatherND: entries of a fixed first axis, or the last token, its constant indices all being that of the last row.
    pub(super) fn gather_nd(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<ImportValue, ImportError> {
        let (Some(Some(ImportValue::Live(x))), Some(Some(ImportValue::Constant(indices)))) =
            (inputs.first(), inputs.get(1))
        else {
            return Err(ImportError::Unsupported);
        };
        let batch = usize::try_from(node.int("batch_dims").unwrap_or(0)).unwrap_or(usize::MAX);
        let before = x.dims.iter().take_while(|&&dim| dim == Dim::Fixed(1)).count();
        // An index for each axis down to the tokens: those before have one place.
        let is_last = |k: usize| {
            let (array, n) = (indices.at(k), self.counts[k] as i64);
            let Some(ints) = array.ints() else { return false };
            let Some((last, lead)) = ints.split_last() else { return false };
            let depth = array.sizes().last().copied().unwrap_or(0);
            depth == ints.len()
                && batch + depth == before + 1
                && lead.iter().all(|&i| i == 0 || i == -1)
                && (*last == -1 || *last + 1 == n)
        };
        if x.dims.get(before) == Some(&Dim::Tokens) && (0..self.counts.len()).all(is_last) {
            return Ok(ImportValue::Last(x.clone()));
        }
        // One index of one place: entries of the first axis.
        let depth_is_one = |k: usize| indices.at(k).sizes().last() == Some(&1) && indices.at(k).rank() == 2;
        if batch == 0 && (0..self.counts.len()).all(depth_is_one) && x.dims.first() != Some(&Dim::Tokens) {
            let (x, indices) = (x.clone(), indices.clone());
            return self.first_entries(node, &x, &indices).map(ImportValue::Live);
        }
        Err("it picks what is not the last token".into())
    }

    /// Entries of the first axis, each index being one of them.
    fn first_entries(&mut self, node: &OnnxNode, x: &LiveValue, indices: &Constant) -> Result<LiveValue, ImportError> {
        let &[Dim::Fixed(size), ..] = x.dims.as_slice() else { return Err("it picks among the tokens".into()) };
        let ints =
            indices.single().and_then(|array| array.ints()).ok_or("its indices depend on the number of tokens")?;
        let at = ints.iter().map(|&i| axis(i, size as usize)).collect::<Result<Vec<usize>, String>>()?;
        self.picked(node, x, 0, &at)
    }

    /// Parts that are empty are left out: a past that there is not. Heads that are computed alike are computed as one.
    pub(super) fn concat(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let is_empty = |constant: &Constant| (0..self.counts.len()).all(|k| constant.at(k).is_empty());
        let full = |value: &&ImportValue| !matches!(value, ImportValue::Constant(constant) if is_empty(constant));
        let parts: Vec<&ImportValue> = inputs.iter().flatten().filter(full).collect();
        match parts.as_slice() {
            [] => Err(ImportError::Unsupported),
            [one] => self.operand(one, node),
            several => {
                let all = several.iter().map(|value| self.operand(value, node));
                let all = all.collect::<Result<Vec<LiveValue>, ImportError>>()?;
                let axis = axis(node.int("axis").unwrap_or(-1), all[0].dims.len())?;
                match self.side_by_side(node, &all, axis)? {
                    Some(one) => Ok(one),
                    None => self.joined(node, &all, axis),
                }
            }
        }
    }

    /// Values beside each other on a fixed axis.
    pub(super) fn joined(
        &mut self,
        node: &OnnxNode,
        parts: &[LiveValue],
        axis: usize,
    ) -> Result<LiveValue, ImportError> {
        let mut dims = parts[0].dims.clone();
        let mut width = 0usize;
        for part in parts {
            let same = |i: usize| i == axis || part.dims[i] == dims[i];
            if part.dims.len() != dims.len() || !(0..dims.len()).all(same) {
                return Err("it puts values of different shapes side by side".into());
            }
            let Dim::Fixed(size) = part.dims[axis] else {
                return Err("it puts tokens behind tokens: a past that is not empty".into());
            };
            width += size as usize;
        }
        dims[axis] = fixed(width)?;
        let (shape, kept) = (ir_shape(&dims)?, kept_axes(&dims));
        let place = kept.iter().position(|&kept| kept == axis).ok_or("it joins nothing")?;
        let mut all: Option<Value> = None;
        for part in parts {
            let x = self.whole(node, part)?;
            let own: Vec<Dim> = kept.iter().map(|&axis| x.dims[axis]).collect();
            let own = Shape::new(&own);
            let x = match self.builder.ty(x.value).shape() == own {
                true => x.value,
                false => self.builder.add(Op::Array(ArrayOp::Reshape(own)), &[x.value], node.label())?,
            };
            all = Some(match all {
                Some(all) => {
                    self.builder.add(Op::Array(ArrayOp::Concat { axis: place as u8 }), &[all, x], node.label())?
                }
                None => x,
            });
        }
        let all = all.ok_or("it joins nothing")?;
        debug_assert_eq!(self.builder.ty(all).shape(), shape);
        Ok(self.live(all, dims)?)
    }

    /// Expand: copies along axes of size 1.
    pub(super) fn expand(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let all = self.at_each(node, inputs, |call, _| sizes_of(&call.ints(1)?))?;
        let dims = self.broadcast(&x.dims, &unify(&all, &self.counts)?)?;
        self.stretched(node, &x, dims)
    }

    /// Copies of a value along axes of size 1, so that its shape is `dims`: what a product with ones gives.
    pub(super) fn stretched(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        dims: Vec<Dim>,
    ) -> Result<LiveValue, ImportError> {
        if ir_shape(&dims)? == ir_shape(&x.dims)? {
            return Ok(LiveValue { value: x.value, dims });
        }
        let ahead = dims.len() - x.dims.len();
        let copies = |i: usize| match i.checked_sub(ahead).map(|i| x.dims[i]) {
            Some(own) if own == dims[i] => Dim::Fixed(1),
            _ => dims[i],
        };
        let ones: Vec<Dim> = (0..dims.len()).map(copies).collect();
        if ones.contains(&Dim::Tokens) {
            return Err("it repeats a value for every token".into());
        }
        let ones = LiveValue { dims: ones, ..self.number(1.0) };
        let ones = self.whole(node, &ones)?;
        self.combined(node, Binary::Mul, x, &ones)
    }

    /// Tile: copies of whole axes behind each other.
    pub(super) fn tile(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let mut x = self.input(node, inputs, 0)?;
        let all = self.at_each(node, inputs, |call, _| sizes_of(&call.ints(1)?))?;
        if all.iter().any(|times| *times != all[0]) || all[0].len() != x.dims.len() {
            return Err("how often it repeats depends on the number of tokens".into());
        }
        for (axis, &times) in all[0].iter().enumerate() {
            if times == 1 {
                continue;
            }
            let Dim::Fixed(size) = x.dims[axis] else { return Err("it repeats the tokens".into()) };
            let apart = |n: usize| -> Result<Vec<Dim>, String> {
                Ok([&x.dims[..axis], &[fixed(n)?], &x.dims[axis..]].concat())
            };
            let (one, many) = (apart(1)?, apart(times)?);
            let mut dims = x.dims.clone();
            dims[axis] = fixed(size as usize * times)?;
            let copied = self.reshaped(node, x, one)?;
            let copied = self.stretched(node, &copied, many)?;
            x = self.reshaped(node, copied, dims)?;
        }
        Ok(x)
    }
}

/// The step of indices that take one of every few elements of an axis.
fn even_step(at: &[usize], size: usize) -> Option<usize> {
    let &[first, second, ..] = at else { return None };
    let step = second.checked_sub(first).filter(|&step| step > 1)?;
    let even = first < step && size.is_multiple_of(step) && at.len() == size / step;
    (even && at.iter().enumerate().all(|(i, &at)| at == first + i * step)).then_some(step)
}
