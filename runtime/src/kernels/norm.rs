//! Rows to mean 0 and variance 1.
//!
//! Law: a sum over a row has sixteen lanes; element `i` is added to lane `i mod 16` in ascending order, then lanes fold 8, 4,
//! 2, 1. The variance takes a second pass, over the centred row.

use super::check::check_rows;

const LANES: usize = 16;

#[inline(always)]
pub(super) fn layer_norm_no_gain(x: &[f32], d: usize, eps: f32, y: &mut [f32]) -> bool {
    check_rows(x.len(), d, y.len());
    let mut rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
    rows.all(|(x, y)| {
        let (inverse, finite) = centre(x, eps, y);
        y.iter_mut().for_each(|y| *y *= inverse);
        finite
    })
}

#[inline(always)]
pub(super) fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) -> bool {
    check_rows(x.len(), gain.len(), y.len());
    assert_eq!(gain.len(), bias.len(), "a bias for each channel");
    let mut rows = x.chunks_exact(gain.len()).zip(y.chunks_exact_mut(gain.len()));
    rows.all(|(x, y)| {
        let (inverse, finite) = centre(x, eps, y);
        y.iter_mut().zip(gain).zip(bias).for_each(|((y, &g), &b)| *y = (*y * inverse) * g + b);
        finite
    })
}

/// The row less its mean, what makes its variance 1, and whether that was finite.
#[inline(always)]
fn centre(x: &[f32], eps: f32, y: &mut [f32]) -> (f32, bool) {
    let d = x.len() as f32;
    let mean = row_sum(x, |x| x) / d;
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
    let variance = row_sum(y, |c| c * c) / d;
    (1.0 / (variance + eps).sqrt(), variance.is_finite())
}

/// The sum of `f(x)`.
#[inline(always)]
pub(super) fn row_sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        lanes.iter_mut().zip(x).for_each(|(lane, &x)| *lane += f(x));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane += f(x));
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}
