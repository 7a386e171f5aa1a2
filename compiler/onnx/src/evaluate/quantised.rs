//! Quantised operators: codes are rounded to even and clipped to their type, products of codes are exact.

use super::call::{OnnxCall, count};
use super::network::{floats, matmul, scale_axis, softmax_rows, zip};
use crate::tensor::{ArrayData, Element, OnnxArray, OnnxElem};

/// Smallest and largest code of a type.
fn ends(elem: OnnxElem) -> Result<(f64, f64), String> {
    match elem {
        OnnxElem::I8 => Ok((-128.0, 127.0)),
        OnnxElem::U8 => Ok((0.0, 255.0)),
        OnnxElem::I32 => Ok((f64::from(i32::MIN), f64::from(i32::MAX))),
        // Codes of sixteen bits are held as wide ones.
        OnnxElem::I64 => Ok((-32768.0, 65535.0)),
        OnnxElem::F32 | OnnxElem::Bool => Err(format!("codes of {} are not possible", elem.name())),
    }
}

/// Real numbers of codes, or codes of real numbers: for each element its scale and zero point.
struct Scales<'a> {
    scale: &'a [f32],
    zero: Option<&'a OnnxArray>,
    /// Size of the axis, elements of one place along it, elements that share a scale along it.
    axis: Option<(usize, usize, usize)>,
}

impl<'a> Scales<'a> {
    fn new(
        x: &OnnxArray,
        scale: &'a OnnxArray,
        zero: Option<&'a OnnxArray>,
        axis: usize,
        block: usize,
    ) -> Result<Self, String> {
        let numbers = floats(scale)?;
        if zero.is_some_and(|zero| zero.len() != numbers.len()) {
            return Err("there should be as many zero points as scales".into());
        }
        if numbers.len() == 1 {
            return Ok(Self { scale: numbers, zero, axis: None });
        }
        let size = *x.sizes().get(axis).ok_or_else(|| format!("axis {axis} is outside {} axes", x.rank()))?;
        let inner = x.sizes()[axis + 1..].iter().product::<usize>();
        let block = if block == 0 { 1 } else { block };
        let outer: usize = if block == 1 && numbers.len() == size { 1 } else { x.sizes()[..axis].iter().product() };
        let wanted = if block == 1 { size } else { outer * size.div_ceil(block) * inner };
        if numbers.len() != wanted {
            return Err(format!("{} scales do not fit {:?} along axis {axis}", numbers.len(), x.sizes()));
        }
        Ok(Self { scale: numbers, zero, axis: Some((size, inner, block)) })
    }

    fn at(&self, i: usize) -> (f64, f64) {
        let k = match self.axis {
            None => 0,
            Some((size, inner, 1)) => i / inner % size,
            Some((size, inner, block)) => {
                (i / inner / size * size.div_ceil(block) + i / inner % size / block) * inner + i % inner
            }
        };
        (f64::from(self.scale[k]), self.zero.map_or(0.0, |zero| zero.data().get(k).int() as f64))
    }
}

fn real_of(x: &OnnxArray, scales: &Scales<'_>) -> OnnxArray {
    let real = |i: usize| {
        let (scale, zero) = scales.at(i);
        ((x.data().get(i).int() as f64 - zero) * scale) as f32
    };
    OnnxArray::f32(x.sizes(), (0..x.len()).map(real).collect())
}

fn codes_of(x: &OnnxArray, scales: &Scales<'_>, elem: OnnxElem) -> Result<OnnxArray, String> {
    let (data, (low, high)) = (floats(x)?, ends(elem)?);
    let code = |(i, &x): (usize, &f32)| {
        let (scale, zero) = scales.at(i);
        let code = f64::from((x / scale as f32).round_ties_even()) + zero;
        Element::Int(code.clamp(low, high) as i64)
    };
    Ok(OnnxArray::new(x.sizes().to_vec(), ArrayData::from_numbers(elem, data.iter().enumerate().map(code))))
}

/// Sums of products of codes less their zero points.
fn integer_product(
    a: &OnnxArray,
    b: &OnnxArray,
    a_zero: Option<&OnnxArray>,
    b_zero: Option<&OnnxArray>,
) -> Result<OnnxArray, String> {
    let centred = |x: &OnnxArray, zero: Option<&OnnxArray>, rows: bool| -> Result<OnnxArray, String> {
        let columns = x.sizes().last().copied().unwrap_or(1).max(1);
        let height = x.sizes().iter().rev().nth(1).copied().unwrap_or(1).max(1);
        let at = |i: usize| -> Result<i64, String> {
            let Some(zero) = zero else { return Ok(0) };
            let k = match (zero.len(), rows) {
                (1, _) => 0,
                (n, true) if n == height => i / columns % height,
                (n, false) if n == columns => i % columns,
                (n, _) => return Err(format!("{n} zero points do not fit {:?}", x.sizes())),
            };
            Ok(zero.data().get(k).int())
        };
        let data = (0..x.len()).map(|i| Ok((x.data().get(i).int() - at(i)?) as f32));
        Ok(OnnxArray::f32(x.sizes(), data.collect::<Result<_, String>>()?))
    };
    let (a, b) = (centred(a, a_zero, true)?, centred(b, b_zero, false)?);
    exact_product(&a, &b)
}

/// Rows of `a` are cut into pieces whose sums stay below 2^24, so that f32 adds them exactly; pieces are added as i64.
fn exact_product(a: &OnnxArray, b: &OnnxArray) -> Result<OnnxArray, String> {
    const PIECE: usize = 256;
    let (&[.., k], &[_, m]) = (a.sizes(), b.sizes()) else {
        if a.sizes().last().is_some_and(|&k| k > PIECE) {
            return Err("products of several matrices of codes are exact up to an inner size of 256 only".into());
        }
        let y = matmul(a, b)?;
        let numbers = (0..y.len()).map(|i| y.data().get(i));
        return Ok(OnnxArray::new(y.sizes().to_vec(), ArrayData::from_numbers(OnnxElem::I32, numbers)));
    };
    let (x, y) = (floats(a)?, floats(b)?);
    if b.sizes()[0] != k {
        return Err(format!("inner sizes {k} and {} differ", b.sizes()[0]));
    }
    let mut sizes = a.sizes().to_vec();
    let last = sizes.len() - 1;
    sizes[last] = m;
    let mut out = Vec::with_capacity(count(&sizes)?);
    for row in x.chunks_exact(k.max(1)) {
        let mut sums = vec![0i64; m];
        for (row, y) in row.chunks(PIECE).zip(y.chunks(PIECE * m.max(1))) {
            let mut piece = vec![0f32; m];
            for (&x, y) in row.iter().zip(y.chunks_exact(m.max(1))) {
                piece.iter_mut().zip(y).for_each(|(sum, &y)| *sum += x * y);
            }
            sums.iter_mut().zip(piece).for_each(|(sum, piece)| *sum += piece as i64);
        }
        out.extend(sums.into_iter().map(|sum| sum as i32));
    }
    Ok(OnnxArray::new(sizes, ArrayData::I32(out)))
}

impl<'a> OnnxCall<'a> {
    fn scales(&self, x: &OnnxArray, scale: usize, default_axis: i64) -> Result<Scales<'a>, String> {
        let numbers = self.arg(scale)?;
        let along = if numbers.len() == 1 { 0 } else { scale_axis(self, default_axis, x.rank())? };
        let block = self.node.int("block_size").and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        Scales::new(x, numbers, self.optional(scale + 1), along, block)
    }

    pub(super) fn quantize(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        let elem = match (self.optional(2), self.node.int("output_dtype").filter(|&n| n != 0)) {
            (Some(zero), _) => zero.elem(),
            (None, Some(number)) => super::call::elem_of(number)?,
            (None, None) => OnnxElem::U8,
        };
        codes_of(x, &self.scales(x, 1, 1)?, elem)
    }

    pub(super) fn dequantize(&self) -> Result<OnnxArray, String> {
        let x = self.arg(0)?;
        Ok(real_of(x, &self.scales(x, 1, 1)?))
    }

    /// Codes of one byte over the range of the values and 0.
    pub(super) fn dynamic_quantize(&self) -> Result<Vec<OnnxArray>, String> {
        let x = self.arg(0)?;
        let (low, high) = floats(x)?.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
        let scale = (high - low) / 255.0;
        let scale = if scale == 0.0 { 1.0 } else { scale };
        let zero = (0.0 - low / scale).round_ties_even().clamp(0.0, 255.0) as u8;
        let (scale, zero) = (OnnxArray::f32(&[], vec![scale]), OnnxArray::new(Vec::new(), ArrayData::U8(vec![zero])));
        let codes = codes_of(x, &Scales::new(x, &scale, Some(&zero), 0, 0)?, OnnxElem::U8)?;
        Ok(vec![codes, scale, zero])
    }

    pub(super) fn matmul_integer(&self) -> Result<OnnxArray, String> {
        integer_product(self.arg(0)?, self.arg(1)?, self.optional(2), self.optional(3))
    }

    /// The real numbers of input `i`, whose scale and zero point follow it.
    fn real(&self, i: usize, default_axis: i64) -> Result<OnnxArray, String> {
        let x = self.arg(i)?;
        let numbers = self.arg(i + 1)?;
        let along = if numbers.len() == 1 { 0 } else { super::call::axis(default_axis, x.rank())? };
        Ok(real_of(x, &Scales::new(x, numbers, self.optional(i + 2), along, 0)?))
    }

    /// Codes of a result by the scale and zero point at input `i`.
    fn coded(&self, x: &OnnxArray, i: usize) -> Result<OnnxArray, String> {
        let zero = self.optional(i + 1);
        let elem = zero.map_or(OnnxElem::U8, OnnxArray::elem);
        codes_of(x, &Scales::new(x, self.arg(i)?, zero, 0, 0)?, elem)
    }

    pub(super) fn qlinear_matmul(&self) -> Result<OnnxArray, String> {
        let y = matmul(&self.real(0, -2)?, &self.real(3, -1)?)?;
        self.coded(&y, 6)
    }

    pub(super) fn qgemm(&self) -> Result<OnnxArray, String> {
        let turn = |x: OnnxArray, name: &str| {
            if self.node.int(name).unwrap_or(0) == 0 { Ok(x) } else { super::network::turned(&x) }
        };
        let b_axis = if self.node.int("transB").unwrap_or(0) == 0 { 1 } else { 0 };
        let (a, b) = (turn(self.real(0, 0)?, "transA")?, turn(self.real(3, b_axis)?, "transB")?);
        let mut y = super::network::scaled(matmul(&a, &b)?, self.node.float("alpha").unwrap_or(1.0))?;
        if let Some(bias) = self.optional(6) {
            let (a_scale, b_scale) = (floats(self.arg(1)?)?, floats(self.arg(4)?)?);
            let scale = |i: usize| a_scale[0] * b_scale[if b_scale.len() == 1 { 0 } else { i % b_scale.len() }];
            if a_scale.is_empty() || b_scale.is_empty() {
                return Err("a scale is missing".into());
            }
            let real: Vec<f32> = (0..bias.len()).map(|i| bias.data().get(i).int() as f32 * scale(i)).collect();
            y = zip(&y, &OnnxArray::f32(bias.sizes(), real), |y, c| y + c)?;
        }
        if self.optional(7).is_some() { self.coded(&y, 7) } else { Ok(y) }
    }

    /// com.microsoft's QLinearAdd, QLinearMul.
    pub(super) fn qlinear_binary(&self, f: impl Fn(f32, f32) -> f32) -> Result<OnnxArray, String> {
        self.coded(&zip(&self.real(0, 0)?, &self.real(3, 0)?, f)?, 6)
    }

    pub(super) fn qlinear_map(&self, f: impl Fn(f32) -> f32) -> Result<OnnxArray, String> {
        let x = self.real(0, 0)?;
        let y = OnnxArray::f32(x.sizes(), floats(&x)?.iter().map(|&x| f(x)).collect());
        self.coded(&y, 3)
    }

    pub(super) fn qlinear_softmax(&self) -> Result<OnnxArray, String> {
        let x = self.real(0, 0)?;
        let new = self.node.int("opset").unwrap_or(13) >= 13;
        let along = self.axis(if new { -1 } else { 1 }, x.rank())?;
        if new && along + 1 != x.rank() {
            return Err("only a softmax over the innermost axis is supported".into());
        }
        let mut out = floats(&x)?.to_vec();
        softmax_rows(&mut out, x.sizes()[along..].iter().product());
        self.coded(&OnnxArray::f32(x.sizes(), out), 3)
    }

    pub(super) fn qlinear_where(&self) -> Result<OnnxArray, String> {
        let (condition, a, b) = (self.arg(0)?, self.real(1, 0)?, self.real(4, 0)?);
        let inputs = [Some(condition), Some(&a), Some(&b)];
        let y = OnnxCall { inputs: &inputs, ..*self }.choose()?;
        self.coded(&y, 7)
    }

    pub(super) fn qlinear_concat(&self) -> Result<OnnxArray, String> {
        let parts = (2..self.inputs.len()).step_by(3).map(|i| self.real(i, 0)).collect::<Result<Vec<_>, String>>()?;
        let inputs: Vec<Option<&OnnxArray>> = parts.iter().map(Some).collect();
        let y = OnnxCall { inputs: &inputs, ..*self }.concat()?;
        self.coded(&y, 0)
    }

    /// com.microsoft.DynamicQuantizeMatMul: A is quantised here.
    pub(super) fn dynamic_quantize_matmul(&self) -> Result<OnnxArray, String> {
        let quantised = OnnxCall { inputs: self.inputs.get(..1).unwrap_or(&[]), ..*self }.dynamic_quantize()?;
        let sums = integer_product(&quantised[0], self.arg(1)?, Some(&quantised[2]), self.optional(3))?;
        self.scaled_sums(&sums, &quantised[1], self.arg(2)?, self.optional(4))
    }

    pub(super) fn matmul_integer_to_float(&self) -> Result<OnnxArray, String> {
        let sums = integer_product(self.arg(0)?, self.arg(1)?, self.optional(4), self.optional(5))?;
        self.scaled_sums(&sums, self.arg(2)?, self.arg(3)?, self.optional(6))
    }

    /// com.microsoft.QAttention: codes, codes of weights, bias, both scales, mask, both zero points, past.
    pub(super) fn quantised_attention(&self) -> Result<Vec<OnnxArray>, String> {
        let sums = integer_product(self.arg(0)?, self.arg(1)?, self.optional(6), self.optional(7))?;
        let all = self.scaled_sums(&sums, self.arg(3)?, self.arg(4)?, self.optional(2))?;
        self.attend_packed(&all, 5, 8, None)
    }

    fn scaled_sums(
        &self,
        sums: &OnnxArray,
        a: &OnnxArray,
        b: &OnnxArray,
        bias: Option<&OnnxArray>,
    ) -> Result<OnnxArray, String> {
        let real = OnnxArray::f32(sums.sizes(), (0..sums.len()).map(|i| sums.data().get(i).float()).collect());
        let y = zip(&zip(&real, a, |x, s| x * s)?, b, |x, s| x * s)?;
        bias.map_or(Ok(y.clone()), |bias| zip(&y, bias, |y, c| y + c))
    }

    pub(super) fn matmul_bits(&self) -> Result<OnnxArray, String> {
        let y = matmul(self.arg(0)?, &self.block_weights()?)?;
        self.optional(5).map_or(Ok(y.clone()), |bias| zip(&y, bias, |y, c| y + c))
    }

    /// The weights `[K, N]` of com.microsoft.MatMulNBits, which are stored as `[N, blocks, bytes]`: codes of a few bits,
    /// low bits first, in blocks along K that share a scale.
    pub fn block_weights(&self) -> Result<OnnxArray, String> {
        let (k, n, block) = (self.size("K")?, self.size("N")?, self.size("block_size")?);
        // Also bounds all that is multiplied from them below.
        count(&[k, n])?;
        count(&[n, block])?;
        let bits = self.size("bits").unwrap_or(4);
        if ![2, 4, 8].contains(&bits) || self.optional(4).is_some() {
            return Err(format!("codes of {bits} bits or in groups are not supported"));
        }
        let blocks = k.div_ceil(block);
        let bytes = (block * bits).div_ceil(8);
        let zero_bytes = (blocks * bits).div_ceil(8);
        let (codes, scales, zeros) = (self.arg(1)?, floats(self.arg(2)?)?, self.optional(3));
        if codes.len() != n * blocks * bytes || scales.len() != n * blocks {
            return Err(format!("its codes and scales do not fit {n} x {blocks} blocks"));
        }
        let bits_at = |array: &OnnxArray, byte: usize, i: usize| {
            let at = i * bits;
            array.data().get(byte + at / 8).int() >> (at % 8) & ((1 << bits) - 1)
        };
        let zero = |row: usize, b: usize| -> Result<f32, String> {
            match zeros {
                None => Ok((1 << (bits - 1)) as f32),
                Some(zeros) if zeros.elem() == OnnxElem::F32 && zeros.len() == n * blocks => {
                    Ok(zeros.data().get(row * blocks + b).float())
                }
                Some(zeros) if zeros.elem() == OnnxElem::U8 && zeros.len() == n * zero_bytes => {
                    Ok(bits_at(zeros, row * zero_bytes, b) as f32)
                }
                Some(_) => Err("its zero points do not fit its blocks".into()),
            }
        };
        let mut weights = vec![0f32; k * n];
        for row in 0..n {
            for b in 0..blocks {
                let (scale, zero) = (scales[row * blocks + b], zero(row, b)?);
                for i in 0..block.min(k - b * block) {
                    let code = bits_at(codes, (row * blocks + b) * bytes, i) as f32;
                    weights[(b * block + i) * n + row] = (code - zero) * scale;
                }
            }
        }
        Ok(OnnxArray::f32(&[k, n], weights))
    }
}
