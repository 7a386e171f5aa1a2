//! What is done to every number on its own: sums, scales, curves; and the rows of an embedding.

use super::check_rows;

/// A curve by its formula, for dense programs. Spiking ones look it up in a table (`neuron`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    Identity,
    Relu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`
    GeluErf,
    /// `x sigmoid(1.702 x)`
    GeluQuick,
    /// `x sigmoid(x)`
    Silu,
}

#[inline(always)]
pub(super) fn curve(curve: Curve, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many results as arguments");
    match curve {
        Curve::Identity => y.copy_from_slice(x),
        Curve::Relu => each(x, y, |x| if x > 0.0 { x } else { 0.0 }),
        Curve::GeluTanh => each(x, y, gelu_tanh),
        Curve::GeluErf => each(x, y, |x| (0.5 * x) * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))),
        Curve::GeluQuick => each(x, y, |x| x / (1.0 + libm::expf(-1.702 * x))),
        Curve::Silu => each(x, y, |x| x / (1.0 + libm::expf(-x))),
    }
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// `sqrt(2 / pi)`
    const ROOT: f32 = 0.797_884_6;
    let cube = x * x * x;
    let t = libm::tanhf(ROOT * (x + 0.044_715 * cube));
    (0.5 * x) * (1.0 + t)
}

#[inline(always)]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

#[inline(always)]
pub(super) fn add(a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == b.len() && a.len() == y.len(), "as many results as operands");
    y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| *y = a + b);
}

#[inline(always)]
pub(super) fn add_row(a: &[f32], row: &[f32], y: &mut [f32]) {
    check_rows(a.len(), row.len(), y.len());
    for (a, y) in a.chunks_exact(row.len()).zip(y.chunks_exact_mut(row.len())) {
        add(a, row, y);
    }
}

#[inline(always)]
pub(super) fn affine(acc: &[i32], gain: &[f32], offset: &[f32], y: &mut [f32]) {
    check_affine(acc.len(), gain, offset, y.len());
    for (acc, y) in acc.chunks_exact(gain.len()).zip(y.chunks_exact_mut(gain.len())) {
        let channels = y.iter_mut().zip(acc).zip(gain).zip(offset);
        channels.for_each(|(((y, &acc), &gain), &offset)| *y = acc as f32 * gain + offset);
    }
}

#[inline(always)]
pub(super) fn affine_add(acc: &[i32], gain: &[f32], offset: &[f32], residual: &[f32], y: &mut [f32]) {
    check_affine(acc.len(), gain, offset, y.len());
    assert_eq!(residual.len(), y.len(), "a residual for each result");
    let d = gain.len();
    for ((acc, residual), y) in acc.chunks_exact(d).zip(residual.chunks_exact(d)).zip(y.chunks_exact_mut(d)) {
        let channels = y.iter_mut().zip(residual).zip(acc).zip(gain).zip(offset);
        channels.for_each(|((((y, &r), &acc), &gain), &offset)| *y = r + (acc as f32 * gain + offset));
    }
}

fn check_affine(acc: usize, gain: &[f32], offset: &[f32], y: usize) {
    check_rows(acc, gain.len(), y);
    assert_eq!(gain.len(), offset.len(), "an offset for each channel");
}

#[inline(always)]
pub(super) fn embed(ids: &[i32], table: &[f32], d: usize, y: &mut [f32]) -> bool {
    assert!(d > 0 && ids.len() * d == y.len(), "a row for each id");
    ids.iter().zip(y.chunks_exact_mut(d)).all(|(&id, y)| {
        let row = usize::try_from(id).ok().and_then(|id| table.get(id.checked_mul(d)?..)?.get(..d));
        row.map(|row| y.copy_from_slice(row)).is_some()
    })
}
