//! Products of f32 matrices, for sums over sample text and the factors made of them.
//!
//! Law: the bits depend on the operands alone. Every sum is one ascending chain per `DEPTH` terms, and chains are handed on in
//! ascending order. Nothing is fused or reordered, whatever vectors the processor has.

use pulp::{Arch, NullaryFnOnce};
use std::ops::Range;

/// Terms of a chain. A panel of as many rows of one operand fits the first cache.
pub(crate) const DEPTH: usize = 256;

/// Rows and columns of the result that are summed together: what fits the registers.
const ROWS: usize = 4;
const COLUMNS: usize = 16;

/// An operand: the number for term `k` and place `i` is `data[k * term + i * place]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProductOperand<'a> {
    pub data: &'a [f32],
    pub term: usize,
    pub place: usize,
}

/// The product's part that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProductPart {
    All,
    /// Columns up to the row's own.
    Lower,
}

/// Hands `sum over k of a[k, i] * b[k, j]` to `store` as `(i, first j, sums)`: some columns of a row at a time, once for every
/// chain of terms.
pub(crate) fn products(
    [a, b]: [ProductOperand<'_>; 2],
    terms: usize,
    [rows, columns]: [usize; 2],
    part: ProductPart,
    mut store: impl FnMut(usize, usize, &[f32]),
) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for first in (0..terms).step_by(DEPTH) {
        let chain = first..(first + DEPTH).min(terms);
        packed::<ROWS>(a, chain.clone(), rows, &mut left);
        packed::<COLUMNS>(b, chain.clone(), columns, &mut right);
        let terms = chain.len();
        Arch::new().dispatch(Tiles {
            left: &left,
            right: &right,
            terms,
            sizes: [rows, columns],
            part,
            store: &mut store,
        });
    }
}

/// A chain's sums, with the operands in panels.
struct Tiles<'a, F> {
    left: &'a [[f32; ROWS]],
    right: &'a [[f32; COLUMNS]],
    terms: usize,
    sizes: [usize; 2],
    part: ProductPart,
    store: &'a mut F,
}

impl<F: FnMut(usize, usize, &[f32])> NullaryFnOnce for Tiles<'_, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { left, right, terms, sizes: [rows, columns], part, store } = self;
        for (panel, j) in right.chunks_exact(terms).zip((0..columns).step_by(COLUMNS)) {
            for (few, i) in left.chunks_exact(terms).zip((0..rows).step_by(ROWS)) {
                if part == ProductPart::Lower && j >= i + ROWS {
                    continue;
                }
                for (row, sums) in tile(few, panel).iter().enumerate().take(rows - i) {
                    let end = if part == ProductPart::Lower { (i + row + 1).min(columns) } else { columns };
                    let width = end.saturating_sub(j).min(COLUMNS);
                    store(i + row, j, &sums[..width]);
                }
            }
        }
    }
}

/// The sums of some rows and columns.
#[inline(always)]
fn tile(a: &[[f32; ROWS]], b: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0f32; COLUMNS]; ROWS];
    for (a, b) in a.iter().zip(b) {
        for (sums, a) in sums.iter_mut().zip(a) {
            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    sums
}

/// Panels of `N` places one after the other, the terms of a panel in order; zeros where there is no place any more.
fn packed<const N: usize>(of: ProductOperand<'_>, terms: Range<usize>, places: usize, panels: &mut Vec<[f32; N]>) {
    panels.clear();
    panels.resize(terms.len() * places.div_ceil(N), [0.0; N]);
    for (panel, first) in panels.chunks_exact_mut(terms.len()).zip((0..places).step_by(N)) {
        let count = N.min(places - first);
        if of.place == 1 {
            for (to, k) in panel.iter_mut().zip(terms.clone()) {
                to[..count].copy_from_slice(&of.data[k * of.term + first..][..count]);
            }
            continue;
        }
        for i in 0..count {
            let place = &of.data[(first + i) * of.place..];
            panel.iter_mut().zip(terms.clone()).for_each(|(to, k)| to[i] = place[k * of.term]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::random::SplitMix64;

    /// Any size, either order of an operand, whole or half: the sums are those of plain loops, chain by chain.
    #[test]
    fn products_are_those_of_plain_loops() {
        let mut random = SplitMix64(7);
        let mut numbers = |count: usize| -> Vec<f32> {
            (0..count).map(|_| (random.bits() >> 40) as f32 / 16_777_216.0 - 0.5).collect()
        };
        for (terms, rows, columns) in [(1, 1, 1), (3, 5, 17), (DEPTH + 9, 33, 20), (2 * DEPTH, 16, 48)] {
            let (a, b) = (numbers(terms * rows), numbers(terms * columns));
            let operands = [
                ProductOperand { data: &a, term: 1, place: terms },
                ProductOperand { data: &b, term: columns, place: 1 },
            ];
            for part in [ProductPart::All, ProductPart::Lower] {
                let mut got = vec![0f32; rows * columns];
                products(operands, terms, [rows, columns], part, |i, j, sums| {
                    got[i * columns + j..][..sums.len()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
                });
                for (at, got) in got.iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let mut wanted = 0f32;
                    for first in (0..terms).step_by(DEPTH) {
                        let chain = first..(first + DEPTH).min(terms);
                        wanted += chain.fold(0f32, |sum, k| sum + a[i * terms + k] * b[k * columns + j]);
                    }
                    let wanted = if part == ProductPart::Lower && j > i { 0.0 } else { wanted };
                    assert_eq!(got.to_bits(), wanted.to_bits(), "{terms} {rows} {columns} {part:?} at {i}, {j}");
                }
            }
        }
    }
}
