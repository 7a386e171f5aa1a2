//! What training runs: element by element with broadcasting, sums, softmax, losses and derivatives, products in f32.
//!
//! Other laws than elsewhere: products may use fused multiply-add, and transcendentals are approximations to a few units in
//! the last place, so results are the same on one instruction set only. They never depend on threads.

use super::exponential::exponential;
use super::norm::row_sum;
use super::topk::outside_topk;
use snnc_ir::Curve;

/// A function of every number on its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Map {
    Copy,
    Neg,
    Exp,
    /// The nearest integer, ties away from zero, of magnitude at most this.
    FakeQuant(f32),
    /// The largest whole number that is not above it.
    Floor,
    /// At least the first and at most the second.
    Clamp(f32, f32),
    /// 1 where not negative.
    Step,
    Arctan,
    FastSigmoid,
    Triangle,
    Rectangle,
    Curve(Curve),
    Slope(Curve),
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Zip {
    Add,
    Sub,
    Mul,
    Div,
    /// The second where the first is closer to zero than this, else 0.
    FakeQuantGrad(f32),
    /// The second, but 0 where a step against it leads out of this range.
    ClampGrad(f32, f32),
}

/// A size, and how far apart its elements are in two operands: 0 where an operand is spread.
pub type Axis = (usize, [usize; 2]);

/// Of as many numbers as it gives, or of one for all.
#[inline(always)]
pub(super) fn map(map: Map, x: &[f32], y: &mut [f32]) {
    if x.len() == 1 {
        let mut one = [0.0];
        map_each(map, x, &mut one);
        y.fill(one[0]);
    } else {
        map_each(map, x, y);
    }
}

#[inline(always)]
fn map_each(map: Map, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many results as arguments");
    match map {
        Map::Copy => y.copy_from_slice(x),
        Map::Neg => each(x, y, |x| -x),
        Map::Exp => each(x, y, exp),
        Map::FakeQuant(most) => each(x, y, |x| {
            let near = x.abs() + 0.5;
            let near = if near < most + 0.5 { near } else { most + 0.5 };
            near.trunc().copysign(x) + 0.0
        }),
        Map::Floor => each(x, y, f32::floor),
        Map::Clamp(least, most) => each(x, y, |x| {
            let x = if x < least { least } else { x };
            if most < x { most } else { x }
        }),
        Map::Step => each(x, y, |x| if x < 0.0 { 0.0 } else { 1.0 }),
        Map::Arctan => each(x, y, |x| {
            let x = std::f32::consts::PI * x;
            1.0 / (1.0 + x * x)
        }),
        Map::FastSigmoid => each(x, y, |x| {
            let x = 1.0 + 25.0 * x.abs();
            1.0 / (x * x)
        }),
        Map::Triangle => each(x, y, |x| if x.abs() < 1.0 { 1.0 - x.abs() } else { 0.0 }),
        Map::Rectangle => each(x, y, |x| if x.abs() < 0.5 { 1.0 } else { 0.0 }),
        Map::Curve(curve) => match curve {
            Curve::Identity => y.copy_from_slice(x),
            Curve::Relu => each(x, y, |x| if x > 0.0 { x } else { 0.0 }),
            Curve::GeluTanh => each(x, y, |x| 0.5 * x * (1.0 + tanh(ROOT * (x + CUBE * x * x * x)))),
            Curve::GeluErf => each(x, y, |x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))),
            Curve::GeluQuick => each(x, y, |x| x * sigmoid(1.702 * x)),
            Curve::Silu => each(x, y, |x| x * sigmoid(x)),
        },
        Map::Slope(curve) => match curve {
            Curve::Identity => y.fill(1.0),
            Curve::Relu => each(x, y, |x| if x > 0.0 { 1.0 } else { 0.0 }),
            Curve::GeluTanh => each(x, y, |x| {
                let t = tanh(ROOT * (x + CUBE * x * x * x));
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (ROOT * (1.0 + 3.0 * CUBE * x * x))
            }),
            Curve::GeluErf => each(x, y, |x| {
                let whole = 0.5 * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2));
                whole + x * 0.398_942_3 * exp(-0.5 * x * x)
            }),
            Curve::GeluQuick => each(x, y, |x| swish_slope(1.702, x)),
            Curve::Silu => each(x, y, |x| swish_slope(1.0, x)),
        },
    }
}

/// `sqrt(2 / pi)`
const ROOT: f32 = 0.797_884_6;
const CUBE: f32 = 0.044_715;

#[inline(always)]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

#[inline(always)]
fn exp(x: f32) -> f32 {
    let e = exponential(-x.abs());
    if x > 0.0 { 1.0 / e } else { e }
}

/// Wrong by less than 2e-7.
#[inline(always)]
fn tanh(x: f32) -> f32 {
    let e = exponential(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exponential(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

#[inline(always)]
fn swish_slope(a: f32, x: f32) -> f32 {
    let s = sigmoid(a * x);
    s + a * x * s * (1.0 - s)
}

/// Of as many numbers as it gives each, or of one for all.
#[inline(always)]
pub(super) fn zip(kind: Zip, a: &[f32], b: &[f32], y: &mut [f32]) {
    match kind {
        Zip::Add => zip_each(a, b, y, |a, b| a + b),
        Zip::Sub => zip_each(a, b, y, |a, b| a - b),
        Zip::Mul => zip_each(a, b, y, |a, b| a * b),
        Zip::Div => zip_each(a, b, y, |a, b| a / b),
        Zip::ClampGrad(least, most) => {
            zip_each(a, b, y, |x, c| if (x <= least && c > 0.0) || (most <= x && c < 0.0) { 0.0 } else { c })
        }
        Zip::FakeQuantGrad(end) => zip_each(a, b, y, |x, c| if x.abs() < end { c } else { 0.0 }),
    }
}

#[inline(always)]
fn zip_each(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (&[a], &[b]) => y.fill(f(a, b)),
        (a, &[b]) => y.iter_mut().zip(a).for_each(|(y, &a)| *y = f(a, b)),
        (&[a], b) => y.iter_mut().zip(b).for_each(|(y, &b)| *y = f(a, b)),
        (a, b) => y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = f(a, b)),
    }
}

/// `y[...] += x[...]` over all axes of `x`: steps are those of `x` and of `y`, 0 where it is summed. Where the innermost axis
/// is summed, as `row_sum`.
#[inline(always)]
pub(super) fn sum(x: &[f32], axes: &[Axis], y: &mut [f32]) {
    y.fill(0.0);
    let (&(n, [_, step]), outer) = axes.split_last().expect("at least one axis");
    let mut index = vec![0; outer.len()];
    let mut to = 0;
    for x in x.chunks_exact(n) {
        match step {
            0 => y[to] += row_sum(x, |x| x),
            1 => y[to..to + n].iter_mut().zip(x).for_each(|(y, &x)| *y += x),
            _ => x.iter().enumerate().for_each(|(i, &x)| y[to + i * step] += x),
        }
        for (at, &(size, steps)) in index.iter_mut().zip(outer).rev() {
            *at += 1;
            to += steps[1];
            if *at < size {
                break;
            }
            *at = 0;
            to -= size * steps[1];
        }
    }
}

#[inline(always)]
fn max_of(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (blocks, rest) = row.as_chunks::<16>();
    for block in blocks {
        lanes.iter_mut().zip(block).for_each(|(most, &x)| *most = if x > *most { x } else { *most });
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most })
}

/// The largest of every row.
#[inline(always)]
pub(super) fn row_max(x: &[f32], width: usize, y: &mut [f32]) {
    y.iter_mut().zip(x.chunks_exact(width)).for_each(|(y, row)| *y = max_of(row));
}

/// 1 for the `keys` largest of every row, of equal ones the latest, else 0.
#[inline(always)]
pub(super) fn topk_mask(x: &[f32], width: usize, keys: usize, y: &mut [f32]) {
    // Integers in the order of the numbers; 0 has one sign.
    let order = |&x: &f32| {
        let bits = (x + 0.0).to_bits() as i32;
        bits ^ ((bits >> 31) as u32 >> 1) as i32
    };
    y.fill(1.0);
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let scores: Vec<i32> = x.iter().map(order).collect();
        outside_topk(&scores, keys).into_iter().for_each(|key| y[key] = 0.0);
    }
}

/// Over rows.
#[inline(always)]
pub(super) fn softmax(x: &[f32], width: usize, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        softmax_row(x, y);
    }
}

/// Returns the logarithm of the sum of exponentials.
#[inline(always)]
fn softmax_row(x: &[f32], y: &mut [f32]) -> f32 {
    let most = max_of(x);
    each(x, y, |x| exponential(x - most));
    let sum = row_sum(y, |x| x);
    let inverse = 1.0 / sum;
    y.iter_mut().for_each(|y| *y *= inverse);
    most + libm::logf(sum)
}

/// `s (c - y mean(c y))` with `y` the row normalised and `s` the inverse of its root mean square.
#[inline(always)]
pub(super) fn rms_norm_grad(x: &[f32], c: &[f32], width: usize, eps: f32, out: &mut [f32]) {
    let d = width as f32;
    let mut products = vec![0.0; width];
    for ((x, c), out) in x.chunks_exact(width).zip(c.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
        let inverse = 1.0 / (row_sum(x, |x| x * x) / d + eps).sqrt();
        each(x, out, |x| x * inverse);
        products.iter_mut().zip(&*out).zip(c).for_each(|((p, &y), &c)| *p = y * c);
        let mean = row_sum(&products, |x| x) / d;
        out.iter_mut().zip(c).for_each(|(y, &c)| *y = inverse * (c - *y * mean));
    }
}

/// Mean over rows of the divergence of `q` from `p`, both logits.
#[inline(always)]
pub(super) fn divergence(q: &[f32], p: &[f32], width: usize) -> f32 {
    let mut weights = vec![0.0; width];
    let mut total = 0f64;
    for (q, p) in q.chunks_exact(width).zip(p.chunks_exact(width)) {
        let sum_q = softmax_row(q, &mut weights);
        let sum_p = softmax_row(p, &mut weights);
        weights.iter_mut().zip(p).zip(q).for_each(|((w, &p), &q)| *w *= (p - sum_p) - (q - sum_q));
        total += f64::from(row_sum(&weights, |x| x));
    }
    (total / (q.len() / width) as f64) as f32
}

/// `(softmax(q) - softmax(p)) * scale`.
#[inline(always)]
pub(super) fn divergence_grad(q: &[f32], p: &[f32], width: usize, scale: f32, out: &mut [f32]) {
    let mut other = vec![0.0; width];
    for ((q, p), out) in q.chunks_exact(width).zip(p.chunks_exact(width)).zip(out.chunks_exact_mut(width)) {
        softmax_row(q, out);
        softmax_row(p, &mut other);
        out.iter_mut().zip(&other).for_each(|(q, &p)| *q = (*q - p) * scale);
    }
}

/// Mean over rows of the negative log likelihood of `targets`. NaN where a target is outside.
#[inline(always)]
pub(super) fn cross_entropy(logits: &[f32], targets: &[i32], width: usize) -> f32 {
    let mut weights = vec![0.0; width];
    let mut total = 0f64;
    for (row, &target) in logits.chunks_exact(width).zip(targets) {
        let sum = softmax_row(row, &mut weights);
        total += row.get(target as usize).map_or(f64::NAN, |&x| f64::from(sum - x));
    }
    (total / targets.len() as f64) as f32
}

#[inline(always)]
pub(super) fn cross_entropy_grad(logits: &[f32], targets: &[i32], width: usize, scale: f32, out: &mut [f32]) {
    for ((row, out), &target) in logits.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(targets) {
        softmax_row(row, out);
        if let Some(q) = out.get_mut(target as usize) {
            *q -= 1.0;
        }
        out.iter_mut().for_each(|q| *q *= scale);
    }
}

/// A matrix in a slice: where it starts, and how far apart its rows and columns are.
#[derive(Clone, Copy, Debug)]
pub struct StridedMatrix<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    pub steps: [usize; 2],
}

impl StridedMatrix<'_> {
    /// Rows for columns.
    pub fn turned(self) -> Self {
        Self { rows: self.columns, columns: self.rows, steps: [self.steps[1], self.steps[0]], ..self }
    }

    fn check(&self) {
        assert!(self.rows > 0 && self.columns > 0, "a matrix has elements");
        let last = (self.rows - 1) * self.steps[0] + (self.columns - 1) * self.steps[1];
        assert!(last < self.data.len(), "the last element lies in the slice");
    }
}

/// `y[n, m] = a[n, k] b[k, m]`.
pub fn multiply(a: StridedMatrix<'_>, b: StridedMatrix<'_>, y: &mut [f32]) {
    a.check();
    b.check();
    assert!(a.columns == b.rows && y.len() == a.rows * b.columns, "sizes of a product fit");
    let [a_rows, a_columns] = a.steps.map(|step| step as isize);
    let [b_rows, b_columns] = b.steps.map(|step| step as isize);
    // SAFETY: `check` has seen that all elements of the operands, and the assertion that those of the result, lie in their
    // slices; the result is borrowed exclusively. Test: `products_by_steps`.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.columns,
            b.columns,
            1.0,
            a.data.as_ptr(),
            a_rows,
            a_columns,
            b.data.as_ptr(),
            b_rows,
            b_columns,
            0.0,
            y.as_mut_ptr(),
            b.columns as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_steps() {
        let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let plain = StridedMatrix { data: &x, rows: 2, columns: 3, steps: [3, 1] };
        let transposed = StridedMatrix { data: &x, rows: 3, columns: 2, steps: [1, 3] };
        let mut y = [0.0; 4];
        multiply(plain, transposed, &mut y);
        assert_eq!(y, [5.0, 14.0, 14.0, 50.0]);
        let outside = StridedMatrix { data: &x[1..], ..plain };
        assert!(std::panic::catch_unwind(|| multiply(outside, transposed, &mut [0.0; 4])).is_err());
    }

    /// Approximations are near enough for gradients, whatever the size of the argument.
    #[test]
    fn transcendentals_are_near() {
        for i in -4000..4000 {
            let x = i as f32 / 100.0;
            let wide = f64::from(x);
            assert!((f64::from(exp(x)) / wide.exp() - 1.0).abs() < 3e-7, "exp {x}");
            assert!((f64::from(tanh(x)) - wide.tanh()).abs() < 2e-7, "tanh {x}");
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-wide).exp())).abs() < 2e-7, "sigmoid {x}");
        }
    }
}
