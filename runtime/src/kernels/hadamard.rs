//! Rows times a Hadamard matrix over the root of its size, by additions.
//!
//! Law: the order of operations is that of `HadamardSize::transform`: sums of parts, ascending; butterflies of numbers that lie
//! 1, 2, 4, ... apart; one multiplication. Vectors lie across the numbers of a part, and butterflies of several distances are
//! done while their numbers are in registers.

use super::check::check_rows;
use snnc_ir::hadamard::{HadamardSize, signs};

/// A matrix ready to be multiplied by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HadamardMatrix {
    size: HadamardSize,
    /// By row and column of the matrix by which parts are added up: whether an entry is -1.
    signs: Vec<bool>,
}

impl HadamardMatrix {
    /// The matrix of a size that is sound.
    pub fn of(size: HadamardSize) -> Self {
        Self { size, signs: signs(size.order) }
    }
}

/// Numbers of a vector of vectors: butterflies of distances below it are done within one.
const LANES: usize = 16;
/// Numbers of a part that are summed side by side.
const COLUMNS: usize = 64;
/// Vectors that butterflies are done on together: three distances.
const RADIX: usize = 8;

type Lanes = [f32; LANES];

/// Blocks of rows, each times the matrix.
#[inline(always)]
pub(super) fn transform(x: &[f32], matrix: &HadamardMatrix, y: &mut [f32]) {
    let (n, part) = (matrix.size.block(), 1 << matrix.size.power);
    check_rows(x.len(), n, y.len());
    let scale = matrix.size.scale() as f32;
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        if matrix.size.order == 1 {
            y.copy_from_slice(x);
        } else {
            add_parts(x, &matrix.signs, part, y);
        }
        for y in y.chunks_exact_mut(part) {
            butterflies(y, scale);
        }
    }
}

/// Part `i` of `y` is the sum of the parts of `x` with the signs of row `i`.
#[inline(always)]
fn add_parts(x: &[f32], signs: &[bool], part: usize, y: &mut [f32]) {
    let order = x.len() / part;
    let whole = part / COLUMNS * COLUMNS;
    for from in (0..whole).step_by(COLUMNS) {
        add_columns::<COLUMNS>(x, signs, [order, part, from], y);
    }
    for from in (whole..part / LANES * LANES).step_by(LANES) {
        add_columns::<LANES>(x, signs, [order, part, from], y);
    }
    // Parts are powers of two: these are shorter than a vector.
    for from in part / LANES * LANES..part {
        add_columns::<1>(x, signs, [order, part, from], y);
    }
}

/// Some columns of all parts.
#[inline(always)]
fn add_columns<const N: usize>(x: &[f32], signs: &[bool], [order, part, from]: [usize; 3], y: &mut [f32]) {
    let column = |j: usize| x[j * part + from..].first_chunk::<N>();
    let Some(first) = column(0) else { return };
    for (signs, y) in signs.chunks_exact(order).zip(y.chunks_exact_mut(part)) {
        let mut sum = *first;
        for (j, &negative) in signs.iter().enumerate().skip(1) {
            let Some(x) = column(j) else { return };
            if negative {
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum -= x);
            } else {
                sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
            }
        }
        y[from..from + N].copy_from_slice(&sum);
    }
}

/// All butterflies of a part, the nearest numbers first, and what multiplies in the end.
#[inline(always)]
fn butterflies(y: &mut [f32], scale: f32) {
    let n = y.len();
    if n < LANES {
        let mut half = 1;
        while half < n {
            for pair in y.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            half *= 2;
        }
        y.iter_mut().for_each(|y| *y *= scale);
        return;
    }
    let vectors = y.as_chunks_mut::<LANES>().0;
    for v in vectors.iter_mut() {
        *v = within::<8>(within::<4>(within::<2>(within::<1>(*v))));
    }
    let mut distance = 1;
    while distance < vectors.len() {
        distance *= match vectors.len() / distance {
            2 => across::<2>(vectors, distance),
            4 => across::<4>(vectors, distance),
            _ => across::<RADIX>(vectors, distance),
        };
    }
    vectors.iter_mut().for_each(|v| v.iter_mut().for_each(|y| *y *= scale));
}

/// Butterflies of numbers of a vector that lie `H` apart.
#[inline(always)]
fn within<const H: usize>(v: Lanes) -> Lanes {
    let mut out = [0.0; LANES];
    for (i, out) in out.iter_mut().enumerate() {
        // The second of a pair is what the first one less it is.
        let (own, other) = (v[i], v[i ^ H]);
        *out = if i & H == 0 { own + other } else { other - own };
    }
    out
}

/// Butterflies of vectors that lie `distance`, twice that, ... apart: as many distances as double to `N`, which it returns.
#[inline(always)]
fn across<const N: usize>(vectors: &mut [Lanes], distance: usize) -> usize {
    for group in vectors.chunks_exact_mut(N * distance) {
        for first in 0..distance {
            let mut v: [Lanes; N] = std::array::from_fn(|i| group[first + i * distance]);
            let mut half = 1;
            while half < N {
                for i in (0..N).filter(|i| i & half == 0) {
                    for c in 0..LANES {
                        let (a, b) = (v[i][c], v[i + half][c]);
                        (v[i][c], v[i + half][c]) = (a + b, a - b);
                    }
                }
                half *= 2;
            }
            v.iter().enumerate().for_each(|(i, v)| group[first + i * distance] = *v);
        }
    }
    N
}
