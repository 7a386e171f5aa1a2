//! The operators of a network, on arrays of f32: products, normalisation, softmax, activation functions, attention.
//!
//! Sums run in ascending order. Written from ONNX's own definitions, and apart from the importer, which is checked by it.

use super::call::{ElementOffsets, OnnxCall, axis, broadcast, count, strides};
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};

/// `[.., n, k] x [.., k, m]`, NumPy's rule for the rest.
pub(super) fn matmul(a: &OnnxArray, b: &OnnxArray) -> Result<OnnxArray, String> {
    let (x, y) = (floats(a)?, floats(b)?);
    let (a_sizes, b_sizes) = (matrix(a.sizes(), true)?, matrix(b.sizes(), false)?);
    let (&[ref lead_a @ .., n, k], &[ref lead_b @ .., k2, m]) = (a_sizes.as_slice(), b_sizes.as_slice()) else {
        return Err("matrices are wanted".into());
    };
    if k != k2 {
        return Err(format!("inner sizes {k} and {k2} differ"));
    }
    let lead = broadcast(lead_a, lead_b)?;
    let batches = count(&lead)?;
    count(&[&lead[..], &[n, m]].concat())?;
    let mut out = vec![0f32; batches * n * m];
    if !out.is_empty() {
        for batch in 0..batches {
            let (i, j) = (offset(batch, &lead, lead_a), offset(batch, &lead, lead_b));
            product(&x[i * n * k..][..n * k], &y[j * k * m..][..k * m], &mut out[batch * n * m..][..n * m], k, m);
        }
    }
    let mut sizes = lead;
    if a.rank() > 1 {
        sizes.push(n);
    }
    if b.rank() > 1 {
        sizes.push(m);
    }
    Ok(OnnxArray::f32(&sizes, out))
}

/// `out += a b`, row by row of `b`.
pub(super) fn product(a: &[f32], b: &[f32], out: &mut [f32], k: usize, m: usize) {
    if k == 0 || m == 0 {
        return;
    }
    for (row, out) in a.chunks_exact(k).zip(out.chunks_exact_mut(m)) {
        for (&x, b) in row.iter().zip(b.chunks_exact(m)) {
            out.iter_mut().zip(b).for_each(|(out, &b)| *out += x * b);
        }
    }
}

/// A vector is a row on the left and a column on the right.
fn matrix(sizes: &[usize], left: bool) -> Result<Vec<usize>, String> {
    match (sizes, left) {
        ([], _) => Err("a number is no matrix".into()),
        (&[n], true) => Ok(vec![1, n]),
        (&[n], false) => Ok(vec![n, 1]),
        (sizes, _) => Ok(sizes.to_vec()),
    }
}

/// Which matrix of an array with leading sizes `from` belongs to the `batch`-th of `lead`.
fn offset(batch: usize, lead: &[usize], from: &[usize]) -> usize {
    let (to, own, missing) = (strides(lead), strides(from), lead.len() - from.len());
    let place = |i: usize| if from[i] == 1 { 0 } else { batch / to[i + missing] % lead[i + missing] * own[i] };
    (0..from.len()).map(place).sum()
}

pub(super) fn floats(x: &OnnxArray) -> Result<&[f32], String> {
    x.as_f32().ok_or_else(|| format!("floats are wanted, here are elements of {}", x.elem().name()))
}

/// The transpose of a matrix.
pub(super) fn turned(x: &OnnxArray) -> Result<OnnxArray, String> {
    let (data, &[rows, columns]) = (floats(x)?, x.sizes()) else { return Err("a matrix is wanted".into()) };
    let mut out = vec![0f32; data.len()];
    for (i, row) in data.chunks_exact(columns.max(1)).enumerate() {
        row.iter().enumerate().for_each(|(j, &x)| out[j * rows + i] = x);
    }
    Ok(OnnxArray::f32(&[columns, rows], out))
}

/// `f` of all pairs, with broadcasting; equal shapes, one number and a trailing row have loops of their own.
pub(super) fn zip(a: &OnnxArray, b: &OnnxArray, f: impl Fn(f32, f32) -> f32) -> Result<OnnxArray, String> {
    let (x, y) = (floats(a)?, floats(b)?);
    let sizes = broadcast(a.sizes(), b.sizes())?;
    let n = count(&sizes)?;
    let same = |from: &[usize]| from == sizes;
    let data: Vec<f32> = match (x, y) {
        (x, y) if same(a.sizes()) && same(b.sizes()) => x.iter().zip(y).map(|(&x, &y)| f(x, y)).collect(),
        (x, &[y]) if same(a.sizes()) => x.iter().map(|&x| f(x, y)).collect(),
        (&[x], y) if same(b.sizes()) => y.iter().map(|&y| f(x, y)).collect(),
        (x, y) if same(a.sizes()) && !y.is_empty() && b.sizes().len() == 1 => {
            x.chunks_exact(y.len()).flat_map(|row| row.iter().zip(y)).map(|(&x, &y)| f(x, y)).collect()
        }
        (x, y) => {
            let (i, j) = (ElementOffsets::stretched(a.sizes(), &sizes)?, ElementOffsets::stretched(b.sizes(), &sizes)?);
            i.zip(j).map(|(i, j)| f(x[i], y[j])).collect()
        }
    };
    debug_assert_eq!(data.len(), n);
    Ok(OnnxArray::f32(&sizes, data))
}

/// Softmax of every row.
pub(super) fn softmax_rows(data: &mut [f32], width: usize) {
    for row in data.chunks_exact_mut(width.max(1)) {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|x| *x = libm::expf(*x - largest));
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|x| *x /= sum);
    }
}

/// `(x - mean) / sqrt(variance + eps) * gain + bias` of every row, and what was subtracted and multiplied.
pub(super) fn normalised(
    x: &[f32],
    width: usize,
    eps: f32,
    gain: Option<&[f32]>,
    bias: Option<&[f32]>,
    centred: bool,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let (mut out, mut means, mut scales) = (Vec::with_capacity(x.len()), Vec::new(), Vec::new());
    for row in x.chunks_exact(width.max(1)) {
        let n = row.len() as f64;
        let mean = if centred { row.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
        let variance = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        means.push(mean as f32);
        scales.push(scale as f32);
        out.extend(row.iter().enumerate().map(|(i, &x)| {
            let y = ((f64::from(x) - mean) * scale) as f32;
            y * gain.map_or(1.0, |gain| gain[i % gain.len()]) + bias.map_or(0.0, |bias| bias[i % bias.len()])
        }));
    }
    (out, means, scales)
}

/// GELU by erf, or by tanh.
pub(super) fn gelu(x: f32, by_tanh: bool) -> f32 {
    let x = f64::from(x);
    let gate = if by_tanh {
        libm::tanh(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x))
    } else {
        libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)
    };
    (0.5 * x * (1.0 + gate)) as f32
}

pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

impl OnnxCall<'_> {
    pub(super) fn matmul(&self) -> Result<OnnxArray, String> {
        matmul(self.arg(0)?, self.arg(1)?)
    }

    /// alpha * A B + beta * C.
    pub(super) fn gemm(&self) -> Result<OnnxArray, String> {
        let turn = |i: usize, name: &str| -> Result<OnnxArray, String> {
            if self.node.int(name).unwrap_or(0) == 0 { Ok(self.arg(i)?.clone()) } else { turned(self.arg(i)?) }
        };
        let (a, b) = (turn(0, "transA")?, turn(1, "transB")?);
        if a.rank() != 2 || b.rank() != 2 {
            return Err("matrices are wanted".into());
        }
        let alpha = self.node.float("alpha").unwrap_or(1.0);
        let y = scaled(matmul(&a, &b)?, alpha)?;
        match self.optional(2) {
            Some(c) => zip(&y, &scaled(c.clone(), self.node.float("beta").unwrap_or(1.0))?, |y, c| y + c),
            None => Ok(y),
        }
    }

    /// Softmax or its logarithm: along one axis, or since `axis` as if the rest were one.
    pub(super) fn softmax(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let new = self.opset >= 13;
        let along = self.axis(if new { -1 } else { 1 }, x.rank())?;
        let mut out = floats(x)?.to_vec();
        if new && along + 1 != x.rank() {
            let (size, inner) = (x.sizes()[along], x.sizes()[along + 1..].iter().product::<usize>());
            let starts = (0..out.len()).filter(|i| size > 0 && i / inner.max(1) % size == 0);
            for start in starts.collect::<Vec<usize>>() {
                let mut row: Vec<f32> = (0..size).map(|k| out[start + k * inner]).collect();
                softmax_rows(&mut row, size);
                row.into_iter().enumerate().for_each(|(k, y)| out[start + k * inner] = y);
            }
        } else {
            softmax_rows(&mut out, x.sizes()[along..].iter().product());
        }
        if self.node.op_type == "LogSoftmax" {
            out.iter_mut().for_each(|y| *y = libm::logf(*y));
        }
        Ok(OnnxArray::f32(x.sizes(), out))
    }

    /// LayerNormalization and, without the mean, RMSNormalization.
    pub(super) fn layer_norm(&self, default_eps: f32, centred: bool) -> Result<Vec<OnnxArray>, String> {
        let x = self.arg(0)?;
        let along = self.axis(-1, x.rank())?;
        let inner = &x.sizes()[along..];
        let width: usize = inner.iter().product();
        let (gain, bias) = (self.spread(1, inner)?, if centred { self.spread(2, inner)? } else { None });
        let eps = self.node.float("epsilon").unwrap_or(default_eps);
        let (out, means, scales) = normalised(floats(x)?, width, eps, gain.as_deref(), bias.as_deref(), centred);
        let mut sizes = x.sizes().to_vec();
        sizes[along..].iter_mut().for_each(|size| *size = 1);
        let small = |data: Vec<f32>| OnnxArray::f32(&sizes, data);
        Ok(vec![OnnxArray::f32(x.sizes(), out), small(means), small(scales)])
    }

    /// An input with an element for each of `sizes`, by broadcasting.
    fn spread(&self, i: usize, sizes: &[usize]) -> Result<Option<Vec<f32>>, String> {
        let Some(x) = self.optional(i) else { return Ok(None) };
        let data = floats(x)?;
        if x.is_empty() || !broadcast(x.sizes(), sizes).is_ok_and(|all| all == sizes) {
            return Err(format!("parameters of {:?} do not fit rows of {sizes:?}", x.sizes()));
        }
        Ok(Some(ElementOffsets::stretched(x.sizes(), sizes)?.map(|i| data[i]).collect()))
    }

    pub(super) fn map(&self, f: impl Fn(f32) -> f32) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        Ok(OnnxArray::f32(x.sizes(), floats(x)?.iter().map(|&x| f(x)).collect()))
    }

    pub(super) fn gelu(&self) -> Result<OnnxArray, String> {
        match self.node.text("approximate").unwrap_or("none") {
            "none" => self.map(|x| gelu(x, false)),
            "tanh" => self.map(|x| gelu(x, true)),
            other => Err(format!("the approximation {other:?} is not known")),
        }
    }

    /// Limits are attributes in old versions and inputs in new ones.
    pub(super) fn clip(&self) -> Result<OnnxArray, String> {
        let limit = |name: &str, i: usize| -> Option<Element> {
            self.node.float(name).map(Element::Float).or_else(|| self.optional(i).and_then(OnnxArray::number))
        };
        let (low, high, x) = (limit("min", 1), limit("max", 2), self.arg(0)?);
        if x.elem() == OnnxElem::F32 {
            return self.map(|x| {
                let x = low.map_or(x, |low| x.max(low.float()));
                high.map_or(x, |high| x.min(high.float()))
            });
        }
        let clip = |i: usize| {
            let x = x.data().get(i).int();
            let x = low.map_or(x, |low| x.max(low.int()));
            Element::Int(high.map_or(x, |high| x.min(high.int())))
        };
        Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(x.elem(), (0..x.len()).map(clip))))
    }

    pub(super) fn cast_like(&self) -> Result<OnnxArray, String> {
        Ok(self.arg(0)?.cast(self.arg(1)?.elem()))
    }

    pub(super) fn arg_max(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let along = self.axis(0, x.rank())?;
        let (size, inner) = (x.sizes()[along], x.sizes()[along + 1..].iter().product::<usize>().max(1));
        let starts = (0..x.len()).filter(|i| i / inner % size == 0);
        let best = starts.map(|start| {
            let at = |k: usize| x.data().get(start + k * inner).float();
            (1..size).fold(0, |best, k| if at(k) > at(best) { k } else { best }) as i64
        });
        let mut sizes = x.sizes().to_vec();
        sizes[along] = 1;
        if self.node.int("keepdims") == Some(0) {
            sizes.remove(along);
        }
        let best: Vec<i64> = best.collect();
        if best.len() != count(&sizes)? {
            return Err("there is nothing to choose from".into());
        }
        Ok(OnnxArray::i64(&sizes, best))
    }

    /// An attribute that is a size.
    pub(super) fn size(&self, name: &str) -> Result<usize, String> {
        let size = self.node.int(name).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
        size.ok_or_else(|| format!("attribute {name} should be a size"))
    }

    /// Products of two operands, summed over what the result does not name.
    pub(super) fn einsum(&self) -> Result<OnnxArray, String> {
        let equation: String =
            self.node.text("equation").unwrap_or("").chars().filter(|c| !c.is_whitespace()).collect();
        let (left, out) = equation.split_once("->").ok_or("an equation without a result is not supported")?;
        let labels: Vec<Vec<char>> = left.split(',').map(|part| part.chars().collect()).collect();
        let out: Vec<char> = out.chars().collect();
        if labels.len() != self.inputs.len() || left.contains('.') {
            return Err(format!("the equation {equation:?} is not supported"));
        }
        let mut sizes: Vec<(char, usize)> = Vec::new();
        for (i, labels) in labels.iter().enumerate() {
            let x = self.arg(i)?;
            if x.rank() != labels.len() {
                return Err(format!("the equation {equation:?} does not fit its operands"));
            }
            for (&label, &size) in labels.iter().zip(x.sizes()) {
                match sizes.iter().find(|(other, _)| *other == label) {
                    Some((_, other)) if *other != size => return Err(format!("sizes of {label} differ")),
                    Some(_) => {}
                    None => sizes.push((label, size)),
                }
            }
        }
        let size_of = |label: &char| sizes.iter().find(|(other, _)| other == label).map(|(_, size)| *size);
        let out_sizes: Option<Vec<usize>> = out.iter().map(size_of).collect();
        let out_sizes = out_sizes.ok_or("a label of the result is no operand's")?;
        let all: Vec<usize> = sizes.iter().map(|(_, size)| *size).collect();
        let steps = |labels: &[char], own: &[usize]| -> Vec<usize> {
            let own = strides(own);
            let step = |(label, _): &(char, usize)| {
                labels.iter().zip(&own).filter(|(l, _)| *l == label).map(|(_, step)| *step).sum()
            };
            sizes.iter().map(step).collect()
        };
        let total = count(&all)?;
        let mut result = vec![0f32; count(&out_sizes)?];
        let operands: Vec<(&[f32], Vec<usize>)> = labels
            .iter()
            .enumerate()
            .map(|(i, labels)| Ok((floats(self.arg(i)?)?, steps(labels, self.arg(i)?.sizes()))))
            .collect::<Result<_, String>>()?;
        let (to, from) = (steps(&out, &out_sizes), strides(&all));
        for i in 0..total {
            let at = |steps: &[usize]| (0..all.len()).map(|a| i / from[a] % all[a] * steps[a]).sum::<usize>();
            result[at(&to)] += operands.iter().map(|(x, steps)| x[at(steps)]).product::<f32>();
        }
        Ok(OnnxArray::f32(&out_sizes, result))
    }
}

/// Whether a row of parameters has the width of the rows it is for.
pub(super) fn fits(row: Option<&[f32]>, width: usize) -> Result<(), String> {
    match row {
        Some(row) if row.is_empty() || row.len() != width && row.len() != 1 => {
            Err(format!("{} parameters do not fit rows of {width}", row.len()))
        }
        _ => Ok(()),
    }
}

pub(super) fn scaled(x: OnnxArray, factor: f32) -> Result<OnnxArray, String> {
    if factor == 1.0 {
        return Ok(x);
    }
    Ok(OnnxArray::f32(x.sizes(), floats(&x)?.iter().map(|x| x * factor).collect()))
}

/// The axis along which codes have scales of their own.
pub(super) fn scale_axis(call: &OnnxCall<'_>, default: i64, rank: usize) -> Result<usize, String> {
    axis(call.node.int("axis").unwrap_or(default), rank)
}
