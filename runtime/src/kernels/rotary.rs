//! Channels of heads turned in pairs, by angles that depend on the position.
//!
//! Law: `(a, b)` becomes `(a cos - b sin, b cos + a sin)`, each product and each sum rounded; what is not turned passes.

use super::check::check_rows;
use snnc_ir::op::Pairs;

/// Rows of `d`, in each of which `heads` heads lie side by side. A row of `turns` is `turned / 2` cosines, then as many sines.
#[inline(always)]
pub(super) fn rotary(x: &[f32], turns: &[f32], d: usize, heads: usize, pairs: Pairs, y: &mut [f32]) {
    check_rows(x.len(), d, y.len());
    let rows = x.len() / d;
    assert!(heads > 0 && d.is_multiple_of(heads), "{heads} heads in rows of {d}");
    assert!(rows > 0 && turns.len().is_multiple_of(2 * rows), "a row of cosines and sines for each row");
    let (width, turned) = (d / heads, turns.len() / rows);
    assert!(turned > 0 && turned <= width, "{turned} channels of {width} are turned");
    for ((x, y), turns) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(turns.chunks_exact(turned)) {
        let (cos, sin) = turns.split_at(turned / 2);
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            match pairs {
                Pairs::Half => turn_halves(x, cos, sin, y),
                Pairs::Interleaved => turn_twos(x, cos, sin, y),
            }
            y[turned..].copy_from_slice(&x[turned..]);
        }
    }
}

#[inline(always)]
fn turn_halves(x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) {
    let half = cos.len();
    let (a, b) = (&x[..half], &x[half..2 * half]);
    let (first, second) = y[..2 * half].split_at_mut(half);
    let (cos, sin) = (&cos[..half], &sin[..half]);
    for i in 0..half {
        first[i] = a[i] * cos[i] - b[i] * sin[i];
        second[i] = b[i] * cos[i] + a[i] * sin[i];
    }
}

#[inline(always)]
fn turn_twos(x: &[f32], cos: &[f32], sin: &[f32], y: &mut [f32]) {
    let pairs = x.as_chunks::<2>().0.iter().zip(y.as_chunks_mut::<2>().0);
    for (([a, b], y), (&cos, &sin)) in pairs.zip(cos.iter().zip(sin)) {
        *y = [a * cos - b * sin, b * cos + a * sin];
    }
}
