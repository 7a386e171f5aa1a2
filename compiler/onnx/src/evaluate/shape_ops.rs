//! Operators that make, move, pick or join elements without arithmetic on them.

use super::call::{ElementOffsets, OnnxCall, axis, broadcast, count, elem_of, index, sizes_of, strides, volume};
use crate::model::Attribute;
use crate::tensor::{ArrayData, Element, OnnxArray};

/// The part of an axis that a slice takes: `len` elements from `start`, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceSpan {
    /// The first element taken.
    pub start: usize,
    /// From one element taken to the next; negative backwards.
    pub step: i64,
    /// How many are taken.
    pub len: usize,
}

impl OnnxCall<'_> {
    pub(super) fn constant(&self) -> Result<OnnxArray, String> {
        for (name, value) in &self.node.attributes {
            match (name.as_str(), value) {
                ("value", Attribute::Tensor(tensor)) => return Ok((**tensor).clone()),
                ("value_float", Attribute::Float(x)) => return Ok(OnnxArray::f32(&[], vec![*x])),
                ("value_floats", Attribute::Floats(x)) => return Ok(OnnxArray::f32(&[x.len()], x.clone())),
                ("value_int", Attribute::Int(x)) => return Ok(OnnxArray::i64(&[], vec![*x])),
                ("value_ints", Attribute::Ints(x)) => return Ok(OnnxArray::vector(x.clone())),
                _ => {}
            }
        }
        Err("it has no value of a kind that is supported".into())
    }

    pub(super) fn constant_of_shape(&self) -> Result<OnnxArray, String> {
        let sizes = sizes_of(&self.ints(0)?)?;
        let n = count(&sizes)?;
        let zero = OnnxArray::f32(&[1], vec![0.0]);
        let value = self.node.tensor("value").map_or(&zero, |tensor| tensor);
        let number = value.number().ok_or("its value should be one element")?;
        Ok(OnnxArray::new(sizes, ArrayData::from_numbers(value.elem(), (0..n).map(|_| number))))
    }

    pub(super) fn shape(&self) -> Result<OnnxArray, String> {
        let sizes = self.arg(0)?.sizes();
        Ok(OnnxArray::vector(shape_span(self, sizes).iter().map(|&n| n as i64).collect()))
    }

    pub(super) fn range(&self) -> Result<OnnxArray, String> {
        let number = |i| self.arg(i)?.number().ok_or_else(|| format!("input {} should be one number", i + 1));
        let (start, limit, delta) = (number(0)?, number(1)?, number(2)?);
        if delta.is_zero() {
            return Err("the step of a range is zero".into());
        }
        let length = match (start, limit, delta) {
            (Element::Int(a), Element::Int(b), Element::Int(d)) => {
                let span = i128::from(b) - i128::from(a);
                let d = i128::from(d);
                let whole = span / d + i128::from(span % d != 0 && (span < 0) == (d < 0));
                whole.max(0) as f64
            }
            (a, b, d) => (f64::from(b.float() - a.float()) / f64::from(d.float())).ceil().max(0.0),
        };
        let n = count(&[length as usize])?;
        let at = |i: usize| match (start, delta) {
            (Element::Int(a), Element::Int(d)) => Element::Int(a.wrapping_add(d.wrapping_mul(i as i64))),
            (a, d) => Element::Float(a.float() + d.float() * i as f32),
        };
        Ok(OnnxArray::new(vec![n], ArrayData::from_numbers(self.arg(0)?.elem(), (0..n).map(at))))
    }

    pub(super) fn reshaped(&self, sizes: Vec<usize>) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        x.reshaped(sizes.clone()).ok_or_else(|| format!("shape {:?} cannot become {sizes:?}", x.sizes()))
    }

    pub(super) fn transpose(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let perm = self.permutation(x.rank())?;
        let from = strides(x.sizes());
        let sizes: Vec<usize> = perm.iter().map(|&i| x.sizes()[i]).collect();
        let steps = perm.iter().map(|&i| from[i] as isize).collect();
        let data = x.data().pick(ElementOffsets::new(&sizes, steps, 0)?);
        Ok(OnnxArray::new(sizes, data))
    }

    /// The attribute `perm`; the reverse order where it is missing.
    pub fn permutation(&self, rank: usize) -> Result<Vec<usize>, String> {
        let Some(perm) = self.node.ints("perm") else { return Ok((0..rank).rev().collect()) };
        let axes = perm.iter().map(|&i| axis(i, rank)).collect::<Result<Vec<usize>, String>>()?;
        let all = (0..rank).all(|i| axes.contains(&i)) && axes.len() == rank;
        if all { Ok(axes) } else { Err(format!("{perm:?} is no order of {rank} axes")) }
    }

    pub(super) fn slice(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let spans = slice_spans(self, x.sizes())?;
        let from = strides(x.sizes());
        let sizes: Vec<usize> = spans.iter().map(|span| span.len).collect();
        if sizes.contains(&0) {
            return Ok(OnnxArray::new(sizes, x.data().pick(std::iter::empty())));
        }
        let start = spans.iter().zip(&from).map(|(span, stride)| span.start * stride).sum();
        let steps = spans.iter().zip(&from).map(|(span, &stride)| span.step as isize * stride as isize).collect();
        let data = x.data().pick(ElementOffsets::new(&sizes, steps, start)?);
        Ok(OnnxArray::new(sizes, data))
    }

    /// Whether the first output is the first operand as it is, which is known without looking at elements.
    pub fn changes_nothing(&self) -> bool {
        let Ok(x) = self.arg(0) else { return false };
        match &*self.node.operator() {
            "Slice" => slice_spans(self, x.sizes()).is_ok_and(|spans| {
                let whole = |(span, &len): (&SliceSpan, &usize)| *span == SliceSpan { start: 0, step: 1, len };
                spans.iter().zip(x.sizes()).all(whole)
            }),
            "Expand" => {
                let sizes = self.ints(1).and_then(|ints| sizes_of(&ints)).and_then(|to| broadcast(x.sizes(), &to));
                sizes.is_ok_and(|sizes| sizes == x.sizes())
            }
            "Cast" => self.node.int("to").and_then(|to| elem_of(to).ok()) == Some(x.elem()),
            _ => false,
        }
    }

    pub(super) fn concat(&self) -> Result<OnnxArray, String> {
        let first = self.arg(0)?;
        let axis = self.axis(0, first.rank())?;
        let (outer, mut sizes) = (first.sizes()[..axis].iter().product::<usize>(), first.sizes().to_vec());
        sizes[axis] = 0;
        let mut chunks = Vec::with_capacity(self.inputs.len());
        for i in 0..self.inputs.len() {
            let part = self.arg(i)?;
            let fits = |(j, (a, b)): (usize, (&usize, &usize))| j == axis || a == b;
            let same = part.rank() == first.rank() && part.sizes().iter().zip(first.sizes()).enumerate().all(fits);
            if !same || part.elem() != first.elem() {
                return Err(format!("shapes {:?} and {:?} do not join on axis {axis}", first.sizes(), part.sizes()));
            }
            sizes[axis] += part.sizes()[axis];
            chunks.push(part.sizes()[axis..].iter().product::<usize>());
        }
        count(&sizes)?;
        let numbers = (0..outer).flat_map(|o| {
            let part = move |(i, &chunk): (usize, &usize)| (o * chunk..(o + 1) * chunk).map(move |k| (i, k));
            chunks.iter().enumerate().flat_map(part)
        });
        let numbers = numbers.filter_map(|(i, k)| self.optional(i).map(|x| x.data().get(k)));
        let data = ArrayData::from_numbers(first.elem(), numbers);
        Ok(OnnxArray::new(sizes, data))
    }

    pub(super) fn split(&self) -> Result<Vec<OnnxArray>, String> {
        let x = self.arg(0)?;
        let axis = self.axis(0, x.rank())?;
        let from = strides(x.sizes());
        let mut start = 0;
        let mut parts = Vec::new();
        for len in split_sizes(self, x.sizes()[axis])? {
            let mut sizes = x.sizes().to_vec();
            sizes[axis] = len;
            let steps = from.iter().map(|&stride| stride as isize).collect();
            let data = x.data().pick(ElementOffsets::new(&sizes, steps, start * from[axis])?);
            parts.push(OnnxArray::new(sizes, data));
            start += len;
        }
        Ok(parts)
    }

    pub(super) fn expand(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let sizes = broadcast(x.sizes(), &sizes_of(&self.ints(1)?)?)?;
        let data = x.data().pick(ElementOffsets::stretched(x.sizes(), &sizes)?);
        Ok(OnnxArray::new(sizes, data))
    }

    pub(super) fn tile(&self) -> Result<OnnxArray, String> {
        let (x, repeats) = (self.arg(0)?, sizes_of(&self.ints(1)?)?);
        if repeats.len() != x.rank() {
            return Err(format!("{} repeats do not fit {} axes", repeats.len(), x.rank()));
        }
        let product = |(&n, &r): (&usize, &usize)| n.checked_mul(r).ok_or("the result is too large");
        let sizes = x.sizes().iter().zip(&repeats).map(product).collect::<Result<Vec<usize>, _>>()?;
        let (from, to) = (strides(x.sizes()), strides(&sizes));
        let offset = |i: usize| (0..sizes.len()).map(|a| i / to[a] % sizes[a] % x.sizes()[a] * from[a]).sum::<usize>();
        let data = x.data().pick((0..count(&sizes)?).map(offset));
        Ok(OnnxArray::new(sizes, data))
    }

    pub(super) fn gather(&self) -> Result<OnnxArray, String> {
        let (x, indices) = (self.arg(0)?, self.ints(1)?);
        let axis = self.axis(0, x.rank())?;
        let size = x.sizes()[axis];
        let rows = indices.iter().map(|&i| index(i, size)).collect::<Result<Vec<usize>, String>>()?;
        let sizes = [&x.sizes()[..axis], self.arg(1)?.sizes(), &x.sizes()[axis + 1..]].concat();
        count(&sizes)?;
        let outer: usize = x.sizes()[..axis].iter().product();
        let inner: usize = x.sizes()[axis + 1..].iter().product();
        let rows = &rows;
        let offsets = (0..outer)
            .flat_map(move |o| rows.iter().flat_map(move |&row| (0..inner).map(move |i| (o * size + row) * inner + i)));
        let data = x.data().pick(offsets);
        Ok(OnnxArray::new(sizes, data))
    }

    pub(super) fn gather_elements(&self) -> Result<OnnxArray, String> {
        let (x, indices, at) = (self.arg(0)?, self.ints(1)?, self.arg(1)?);
        let axis = self.axis(0, x.rank())?;
        let fits = at.rank() == x.rank() && (0..x.rank()).all(|a| a == axis || at.sizes()[a] <= x.sizes()[a]);
        if !fits {
            return Err(format!("indices of shape {:?} do not fit {:?}", at.sizes(), x.sizes()));
        }
        let (from, to) = (strides(x.sizes()), strides(at.sizes()));
        let mut offsets = Vec::with_capacity(indices.len());
        for (n, &i) in indices.iter().enumerate() {
            let place = |a: usize| if a == axis { 0 } else { n / to[a] % at.sizes()[a] * from[a] };
            offsets.push((0..x.rank()).map(place).sum::<usize>() + index(i, x.sizes()[axis])? * from[axis]);
        }
        Ok(OnnxArray::new(at.sizes().to_vec(), x.data().pick(offsets.into_iter())))
    }

    pub(super) fn gather_nd(&self) -> Result<OnnxArray, String> {
        let (x, at) = (self.arg(0)?, self.arg(1)?);
        let batch = usize::try_from(self.node.int("batch_dims").unwrap_or(0)).map_err(|_| "batch_dims is negative")?;
        let depth = *at.sizes().last().ok_or("indices should have an axis")?;
        let outer = &at.sizes()[..at.rank() - 1];
        let fits = batch <= outer.len() && batch + depth <= x.rank() && x.sizes()[..batch] == outer[..batch];
        if !fits {
            return Err(format!("indices of shape {:?} do not fit {:?}", at.sizes(), x.sizes()));
        }
        let sizes = [outer, &x.sizes()[batch + depth..]].concat();
        count(&sizes)?;
        let starts = self.starts(x, &self.ints(1)?, depth, batch, outer)?;
        let inner: usize = x.sizes()[batch + depth..].iter().product();
        let data = x.data().pick(starts.iter().flat_map(|&start| start..start + inner));
        Ok(OnnxArray::new(sizes, data))
    }

    /// Where each index tuple points; the first `batch` axes are those of the tuple itself.
    fn starts(
        &self,
        x: &OnnxArray,
        at: &[i64],
        depth: usize,
        batch: usize,
        outer: &[usize],
    ) -> Result<Vec<usize>, String> {
        let from = strides(x.sizes());
        let inner_tuples: usize = outer[batch..].iter().product::<usize>().max(1);
        let block: usize = x.sizes()[batch..].iter().product();
        let tuples: usize = outer.iter().product();
        let start = |n: usize| {
            let tuple = &at[n * depth..(n + 1) * depth];
            let steps = tuple.iter().enumerate().map(|(a, &i)| Ok(index(i, x.sizes()[batch + a])? * from[batch + a]));
            Ok(n / inner_tuples * block + steps.sum::<Result<usize, String>>()?)
        };
        (0..tuples).map(start).collect()
    }

    pub(super) fn scatter_nd(&self) -> Result<OnnxArray, String> {
        let (x, at, updates) = (self.arg(0)?, self.arg(1)?, self.arg(2)?);
        if self.node.text("reduction").is_some_and(|kind| kind != "none") {
            return Err("a reduction while scattering is not supported".into());
        }
        let depth = *at.sizes().last().ok_or("indices should have an axis")?;
        let outer = &at.sizes()[..at.rank() - 1];
        let fits = depth <= x.rank()
            && updates.elem() == x.elem()
            && updates.sizes() == [outer, &x.sizes()[depth.min(x.rank())..]].concat();
        if !fits {
            return Err(format!("updates of shape {:?} do not fit {:?}", updates.sizes(), x.sizes()));
        }
        let inner: usize = x.sizes()[depth..].iter().product();
        let mut numbers: Vec<Element> = (0..x.len()).map(|i| x.data().get(i)).collect();
        for (n, start) in self.starts(x, &self.ints(1)?, depth, 0, outer)?.into_iter().enumerate() {
            (0..inner).for_each(|i| numbers[start + i] = updates.data().get(n * inner + i));
        }
        Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(x.elem(), numbers.into_iter())))
    }
}

/// The sizes that a Shape node answers: all, or those from `start` to `end`.
pub fn shape_span<'a>(call: &OnnxCall, sizes: &'a [usize]) -> &'a [usize] {
    let rank = sizes.len() as i64;
    let clamp = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (clamp(call.node.int("start").unwrap_or(0)), clamp(call.node.int("end").unwrap_or(rank)));
    &sizes[start..end.max(start)]
}

/// Reshape: 0 keeps a size (unless `allowzero`), -1 takes what is left.
pub fn reshape_sizes(call: &OnnxCall, from: &[usize]) -> Result<Vec<usize>, String> {
    let target = call.ints_of("shape", 1)?.ok_or("the new shape is missing")?;
    let keep = call.node.int("allowzero").unwrap_or(0) == 0;
    let size = |(i, &n): (usize, &i64)| match n {
        0 if keep => from.get(i).copied().ok_or_else(|| format!("{target:?} keeps an axis that {from:?} has not")),
        -1 => Ok(1),
        n => usize::try_from(n).map_err(|_| format!("{target:?} is no shape")),
    };
    let mut sizes = target.iter().enumerate().map(size).collect::<Result<Vec<usize>, String>>()?;
    let (have, known) = (volume(from)?, volume(&sizes)?);
    let open: Vec<usize> = (0..target.len()).filter(|&i| target[i] == -1).collect();
    match open.as_slice() {
        [] if known == have => {}
        [i] if known != 0 && have % known == 0 => sizes[*i] = have / known,
        _ => return Err(format!("shape {from:?} cannot become {target:?}")),
    }
    Ok(sizes)
}

/// Flatten: a matrix, divided at an axis.
pub fn flat_sizes(call: &OnnxCall, from: &[usize]) -> Result<Vec<usize>, String> {
    let at = call.node.int("axis").unwrap_or(1);
    let at = if at == from.len() as i64 { from.len() } else { axis(at, from.len())? };
    Ok(vec![volume(&from[..at])?, volume(&from[at..])?])
}

/// The shape `from` without the axes that are given, or without all of size 1.
///
/// # Errors
/// An axis is not of size 1.
pub fn squeeze_sizes(call: &OnnxCall, from: &[usize]) -> Result<Vec<usize>, String> {
    let Some(axes) = call.ints_of("axes", 1)? else {
        return Ok(from.iter().copied().filter(|&n| n != 1).collect());
    };
    let axes = axes.iter().map(|&a| axis(a, from.len())).collect::<Result<Vec<usize>, String>>()?;
    if axes.iter().any(|&a| from[a] != 1) {
        return Err(format!("axes {axes:?} of {from:?} are not all 1"));
    }
    Ok((0..from.len()).filter(|a| !axes.contains(a)).map(|a| from[a]).collect())
}

/// The shape `from` with axes of size 1 where they are given, counted in the result.
///
/// # Errors
/// An axis is outside the result, or given twice.
pub fn unsqueeze_sizes(call: &OnnxCall, from: &[usize]) -> Result<Vec<usize>, String> {
    let axes = call.ints_of("axes", 1)?.ok_or("the axes are missing")?;
    let rank = from.len() + axes.len();
    let axes = axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<usize>, String>>()?;
    if (0..axes.len()).any(|i| axes[..i].contains(&axes[i])) {
        return Err(format!("axes {axes:?} name one axis twice"));
    }
    let mut rest = from.iter().copied();
    Ok((0..rank).map(|a| if axes.contains(&a) { 1 } else { rest.next().unwrap_or(1) }).collect())
}

/// What a Slice takes of each axis of an array of `sizes`.
pub fn slice_spans(call: &OnnxCall, sizes: &[usize]) -> Result<Vec<SliceSpan>, String> {
    let (starts, ends, axes, steps) = if call.node.ints("starts").is_some() {
        (
            call.node.ints("starts").map(<[i64]>::to_vec),
            call.node.ints("ends").map(<[i64]>::to_vec),
            call.node.ints("axes").map(<[i64]>::to_vec),
            None,
        )
    } else {
        let optional = |i: usize| call.optional(i).map(|_| call.ints(i)).transpose();
        (Some(call.ints(1)?), Some(call.ints(2)?), optional(3)?, optional(4)?)
    };
    let (starts, ends) = (starts.unwrap_or_default(), ends.ok_or("the ends are missing")?);
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    let mut spans: Vec<SliceSpan> = sizes.iter().map(|&len| SliceSpan { start: 0, step: 1, len }).collect();
    for (i, &a) in axes.iter().enumerate() {
        let a = axis(a, sizes.len())?;
        spans[a] = span(starts[i], ends[i], steps[i], sizes[a])?;
    }
    Ok(spans)
}

/// ONNX's clamping: forward to `0..=n`, backward to `-1..n`.
fn span(start: i64, end: i64, step: i64, size: usize) -> Result<SliceSpan, String> {
    let n = size as i64;
    let wrap = |at: i64| if at < 0 { at.saturating_add(n) } else { at };
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let (start, end) = match step {
        0 => return Err("the step of a slice is zero".into()),
        1.. => (wrap(start).clamp(low, high), wrap(end).clamp(low, high)),
        _ => (wrap(start).clamp(0.min(high), high), wrap(end).clamp(low, high)),
    };
    let distance = if step > 0 { end - start } else { start - end };
    let stride = step.unsigned_abs();
    let len = if distance <= 0 { 0 } else { (distance as u64).div_ceil(stride) as usize };
    Ok(SliceSpan { start: start.max(0) as usize, step: if len <= 1 { 1 } else { step }, len })
}

/// Lengths of the parts of an axis of `size`.
pub fn split_sizes(call: &OnnxCall, size: usize) -> Result<Vec<usize>, String> {
    let outputs = call.node.outputs.len().max(1);
    let sizes = match call.ints_of("split", 1)? {
        Some(sizes) => sizes_of(&sizes)?,
        None => {
            let part = size.div_ceil(outputs);
            (0..outputs).map(|i| part.min(size.saturating_sub(part * i))).collect()
        }
    };
    let sum = sizes.iter().try_fold(0usize, |n, &size| n.checked_add(size));
    if sum != Some(size) || sizes.len() != outputs {
        return Err(format!("parts {sizes:?} do not make {size} in {outputs} outputs"));
    }
    Ok(sizes)
}
