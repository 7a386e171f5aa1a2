//! Rows less their mean, and rows over the root of their mean square: what normalises them.
//!
//! Law: a sum over a row has sixteen lanes; element `i` is added to lane `i mod 16` in ascending order, then lanes fold 8, 4,
//! 2, 1. A row is multiplied by one reciprocal.

use super::check::check_rows;

const LANES: usize = 16;

/// Rows of `d` less their mean.
#[inline(always)]
pub(super) fn centre(x: &[f32], d: usize, y: &mut [f32]) {
    check_rows(x.len(), d, y.len());
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        let mean = row_sum(x, |x| x) / d as f32;
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
    }
}

/// Rows of `d`, or heads of rows, over the root of their mean square plus `eps`; whether every mean square was finite.
#[inline(always)]
pub(super) fn rms_norm(x: &[f32], d: usize, eps: f32, y: &mut [f32]) -> bool {
    check_rows(x.len(), d, y.len());
    let mut rows = x.chunks_exact(d).zip(y.chunks_exact_mut(d));
    rows.all(|(x, y)| {
        let mean_square = row_sum(x, |x| x * x) / d as f32;
        let inverse = 1.0 / (mean_square + eps).sqrt();
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * inverse);
        mean_square.is_finite()
    })
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
