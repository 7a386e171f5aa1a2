//! Rows times a Hadamard matrix over the root of its size, by additions.
//!
//! Law: the order of operations is that of `HadamardMatrix::apply`: sums of parts, ascending, each multiplied once; butterflies of numbers that lie
//! 1, 2, 4, ... apart. Vectors lie across the numbers of a part, and butterflies of several distances are done while their numbers
//! are in registers.

use super::check::check_rows;
use super::float_lanes::{FloatLanes, LANES, butterflies_apart};
use super::vectors::interface::Vectors;
use snnc_ir::hadamard::HadamardMatrix;

/// Vectors of a part that are summed side by side.
const COLUMNS: usize = 4;

/// Blocks of rows, each times the matrix.
#[inline(always)]
pub(super) fn transform(vectors: impl Vectors, x: &[f32], matrix: &HadamardMatrix, y: &mut [f32]) {
    let (n, part) = (matrix.size().block(), 1 << matrix.size().power);
    check_rows(x.len(), n, y.len());
    let scale = matrix.size().scale() as f32;
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        add_parts(vectors, x, matrix.signs(), part, scale, y);
        // No closures around what uses vectors: a body that is not inlined would be compiled for any machine.
        for y in y.chunks_exact_mut(part) {
            butterflies(vectors, y);
        }
    }
}

/// Part `i` of `y` is the sum of the parts of `x` with the signs of row `i`, times `scale`.
#[inline(always)]
fn add_parts(vectors: impl Vectors, x: &[f32], signs: &[bool], part: usize, scale: f32, y: &mut [f32]) {
    let order = x.len() / part;
    if order == 1 {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale);
        return;
    }
    if part < LANES {
        return add_short_parts(x, signs, part, scale, y);
    }
    let (x, y, part) = (x.as_chunks::<LANES>().0, y.as_chunks_mut::<LANES>().0, part / LANES);
    let whole = part / COLUMNS * COLUMNS;
    for from in (0..whole).step_by(COLUMNS) {
        add_columns::<COLUMNS>(vectors, x, signs, [order, part, from], scale, y);
    }
    for from in whole..part {
        add_columns::<1>(vectors, x, signs, [order, part, from], scale, y);
    }
}

/// The same where parts are shorter than a vector.
#[inline(always)]
fn add_short_parts(x: &[f32], signs: &[bool], part: usize, scale: f32, y: &mut [f32]) {
    for (signs, y) in signs.chunks_exact(x.len() / part).zip(y.chunks_exact_mut(part)) {
        y.copy_from_slice(&x[..part]);
        for (x, &negative) in x.chunks_exact(part).zip(signs).skip(1) {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = if negative { *y - x } else { *y + x });
        }
        y.iter_mut().for_each(|y| *y *= scale);
    }
}

/// `N` vectors of columns of all parts.
#[inline(always)]
fn add_columns<const N: usize>(
    vectors: impl Vectors,
    x: &[FloatLanes],
    signs: &[bool],
    [order, part, from]: [usize; 3],
    scale: f32,
    y: &mut [FloatLanes],
) {
    for (signs, y) in signs.chunks_exact(order).zip(y.chunks_exact_mut(part)) {
        let mut sum: [FloatLanes; N] = std::array::from_fn(|i| x[from + i]);
        for (x, &negative) in x.chunks_exact(part).zip(signs).skip(1) {
            let x = &x[from..from + N];
            if negative {
                for (sum, x) in sum.iter_mut().zip(x) {
                    vectors.subtract(sum, x);
                }
            } else {
                for (sum, x) in sum.iter_mut().zip(x) {
                    vectors.add(sum, x);
                }
            }
        }
        for (y, sum) in y[from..from + N].iter_mut().zip(&sum) {
            *y = sum.map(|sum| sum * scale);
        }
    }
}

/// All butterflies of a part, those of the nearest numbers first.
#[inline(always)]
fn butterflies(vectors: impl Vectors, y: &mut [f32]) {
    let n = y.len();
    if n < LANES {
        for stage in 0..n.trailing_zeros() {
            butterflies_apart(y, 1 << stage);
        }
        return;
    }
    let lanes = y.as_chunks_mut::<LANES>().0;
    let mut distance = 1;
    loop {
        let all = lanes.len() / distance;
        distance *= match all {
            1 => across::<1>(vectors, lanes, distance),
            2 => across::<2>(vectors, lanes, distance),
            4 => across::<4>(vectors, lanes, distance),
            _ => across::<8>(vectors, lanes, distance),
        };
        if distance == lanes.len() {
            return;
        }
    }
}

/// Butterflies of vectors that lie `distance`, twice that, ... apart: as many distances as double to `N`, which it returns.
/// Before the first of them those within vectors.
#[inline(always)]
fn across<const N: usize>(vectors: impl Vectors, lanes: &mut [FloatLanes], distance: usize) -> usize {
    for group in lanes.chunks_exact_mut(N * distance) {
        for first in 0..distance {
            let mut v: [FloatLanes; N] = std::array::from_fn(|i| group[first + i * distance]);
            if distance == 1 {
                for v in &mut v {
                    vectors.butterflies(v);
                }
            }
            let mut half = 1;
            while half < N {
                for pair in v.chunks_exact_mut(2 * half) {
                    let (a, b) = pair.split_at_mut(half);
                    for (a, b) in a.iter_mut().zip(b) {
                        vectors.butterfly(a, b);
                    }
                }
                half *= 2;
            }
            v.iter().enumerate().for_each(|(i, v)| group[first + i * distance] = *v);
        }
    }
    N
}
