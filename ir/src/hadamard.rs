//! Hadamard matrices, and the fast transform by them: the meaning of the op `hadamard`, and what rotations of weights are made of.
//!
//! A Hadamard matrix has entries of 1 and -1, and rows that are orthogonal to each other. Those here are symmetric and have a
//! first row of ones, so that a transform divided by the root of its size is its own inverse and its own transpose:
//!
//! ```text
//! H(1)      [1]
//! H(q + 1)  a border of ones around f(i + j mod q), where f(0) = -1 and f(s) is 1 for squares, else -1;
//!           q a prime with q mod 4 = 3 (Paley's first construction with its core in reverse order: Paley 1933)
//! H(2q + 2) C x [1 1; 1 -1] + I x [1 -1; -1 -1], where C has 0 at its corner, ones beside it and the same f(i - j) with
//!           f(0) = 0, in a field of q elements; q a prime with q mod 4 = 1 or the square of an odd prime (Paley's second
//!           construction), then signs that make the first row ones
//! H(2^k)    [1 1; 1 -1] x ... x [1 1; 1 -1]       (Sylvester 1867)
//! ```

use crate::real::Real;
use std::fmt;

/// The largest order of a matrix that is no power of two: a sum of so many rows is what it costs per number.
pub const ORDER_MAX: u32 = 256;
/// The largest power of two beside it.
pub const POWER_MAX: u32 = 20;

/// Additions per number above which a larger block is not worth its cost: see `HadamardSize::of_width`.
const ADDITIONS_MAX: u32 = 40;

/// The size of a transform: `order * 2^power`. The order is 1 or that of a Paley matrix that is no power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HadamardSize {
    /// The order of the matrix by which rows of a block are added up.
    pub order: u32,
    /// How many stages of butterflies come behind it.
    pub power: u32,
}

impl HadamardSize {
    /// The size for rows of `width` numbers that are transformed at run time: the largest block that divides the width and takes
    /// at most 40 additions per number; of equal ones the one with fewest additions. `None` where only blocks of 1 do.
    ///
    /// ```
    /// use snnc_ir::hadamard::HadamardSize;
    ///
    /// assert_eq!(HadamardSize::of_width(1536), Some(HadamardSize { order: 12, power: 7 }));
    /// assert_eq!(HadamardSize::of_width(14336), Some(HadamardSize { order: 28, power: 9 }));
    /// // 43 * 256: no matrix of order 172 is made here.
    /// assert_eq!(HadamardSize::of_width(11008), Some(HadamardSize { order: 1, power: 8 }));
    /// assert_eq!(HadamardSize::of_width(7), None);
    /// ```
    pub fn of_width(width: usize) -> Option<Self> {
        Self::within(width, ADDITIONS_MAX)
    }

    /// The same for rows that are transformed once, when weights are made: the largest block, whatever it takes.
    ///
    /// ```
    /// use snnc_ir::hadamard::HadamardSize;
    ///
    /// assert_eq!(HadamardSize::largest(960), Some(HadamardSize { order: 60, power: 4 }));
    /// // Blocks of 4, where no larger matrix divides the width.
    /// assert_eq!(HadamardSize::largest(92).map(HadamardSize::block), Some(4));
    /// ```
    pub fn largest(width: usize) -> Option<Self> {
        Self::within(width, u32::MAX)
    }

    fn within(width: usize, additions: u32) -> Option<Self> {
        let orders = (1..=ORDER_MAX).filter(|&order| width > 0 && width.is_multiple_of(order as usize));
        let sizes = orders.filter(|&order| is_order(order)).map(|order| {
            let power = (width / order as usize).trailing_zeros().min(POWER_MAX);
            Self { order, power }
        });
        let worth = sizes.filter(|size| size.block() > 1 && size.additions() <= additions);
        worth.max_by_key(|size| (size.block(), std::cmp::Reverse(size.additions())))
    }

    /// Whether there is such a transform: an order that is known here, a power of at most 20, and more than one number.
    pub fn is_sound(self) -> bool {
        is_order(self.order) && self.power <= POWER_MAX && (self.order > 1 || self.power > 0)
    }

    /// Numbers that are transformed together.
    pub fn block(self) -> usize {
        (self.order as usize) << self.power.min(POWER_MAX)
    }

    /// Additions and subtractions per number.
    pub fn additions(self) -> u32 {
        self.order - 1 + self.power
    }

    /// By what the sums are multiplied: 1 over the root of the size, rounded once.
    pub fn scale(self) -> f64 {
        1.0 / (self.block() as f64).sqrt()
    }
}

impl fmt::Display for HadamardSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order={},power={}", self.order, self.power)
    }
}

/// A matrix ready to be multiplied by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HadamardMatrix {
    size: HadamardSize,
    signs: Vec<bool>,
}

impl HadamardMatrix {
    /// The matrix of a size that is sound.
    pub fn of(size: HadamardSize) -> Self {
        Self { size, signs: signs(size.order) }
    }

    /// Its size.
    pub fn size(&self) -> HadamardSize {
        self.size
    }

    /// By row and column of the matrix by which parts are added up: whether an entry is -1.
    pub fn signs(&self) -> &[bool] {
        &self.signs
    }

    /// Every block of a row times the matrix, over the root of its size. The order of operations, which every engine follows:
    /// a block is `order` parts of `2^power` numbers. First part `i` becomes the sum over `j`, ascending, of parts `j` with
    /// the signs of row `i`, and each sum is multiplied by the size's `scale`. Then, within each part and for `h` = 1, 2, 4, ...,
    /// the numbers `(a, b)` that lie `h` apart become `(a + b, a - b)`.
    ///
    /// Panics where blocks do not divide the row: a precondition of the caller.
    pub fn apply<R: Real>(&self, row: &mut [R]) {
        let (n, part) = (self.size.block(), 1 << self.size.power);
        assert!(row.len().is_multiple_of(n), "blocks of {n} in {} numbers", row.len());
        let scale = R::from_f64(self.size.scale());
        let mut before = Vec::with_capacity(n);
        for block in row.chunks_exact_mut(n) {
            before.clear();
            before.extend_from_slice(block);
            for (sums, signs) in block.chunks_exact_mut(part).zip(self.signs.chunks_exact(self.size.order as usize)) {
                add_parts(&before, signs, sums);
                sums.iter_mut().for_each(|sum| *sum = *sum * scale);
                (0..self.size.power).for_each(|stage| butterflies(sums, 1 << stage));
            }
        }
    }
}

/// Sums of all parts of a block with these signs. The first is 1.
fn add_parts<R: Real>(block: &[R], signs: &[bool], sums: &mut [R]) {
    let mut parts = block.chunks_exact(sums.len()).zip(signs);
    parts.by_ref().take(1).for_each(|(part, _)| sums.copy_from_slice(part));
    for (part, negative) in parts {
        let pairs = sums.iter_mut().zip(part);
        if *negative {
            pairs.for_each(|(sum, x)| *sum = *sum - *x);
        } else {
            pairs.for_each(|(sum, x)| *sum = *sum + *x);
        }
    }
}

/// Sums and differences of numbers that lie `half` apart.
fn butterflies<R: Real>(part: &mut [R], half: usize) {
    for pair in part.chunks_exact_mut(2 * half) {
        let (a, b) = pair.split_at_mut(half);
        a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
    }
}

/// Whether a symmetric matrix of this order is made here: 1, or one of Paley's that is no power of two.
pub fn is_order(order: u32) -> bool {
    let paley = order <= ORDER_MAX && order.is_multiple_of(4) && !order.is_power_of_two();
    order == 1 || paley && (first_prime(order).is_some() || second_field(order).is_some())
}

/// By row and column: whether an entry of the matrix of this order is -1. Of an order that is not known here, as of order 1.
///
/// ```
/// use snnc_ir::hadamard::signs;
///
/// let signs = signs(12);
/// assert!((0..12).all(|i| !signs[i]));
/// assert_eq!(signs[12..24].iter().filter(|negative| **negative).count(), 6);
/// ```
pub fn signs(order: u32) -> Vec<bool> {
    match (first_prime(order), second_field(order)) {
        _ if !is_order(order) || order == 1 => vec![false],
        (Some(q), _) => of_first_kind(q as usize),
        (None, Some(field)) => of_second_kind(&field),
        (None, None) => vec![false],
    }
}

/// The prime of Paley's first construction.
fn first_prime(order: u32) -> Option<u32> {
    order.checked_sub(1).filter(|q| q % 4 == 3 && is_prime(*q))
}

/// The field of his second.
fn second_field(order: u32) -> Option<FiniteField> {
    let q = (order / 2).checked_sub(1).filter(|q| order.is_multiple_of(2) && q % 4 == 1)?;
    let root = q.isqrt();
    match (is_prime(q), root * root == q && is_prime(root)) {
        (true, _) => Some(FiniteField::new(q as usize, false)),
        (false, true) => Some(FiniteField::new(root as usize, true)),
        (false, false) => None,
    }
}

/// A field of `p` or of `p * p` elements, for an odd prime `p`. Element `a + p b` is `a + b s`, where the square of `s` is `n`, which
/// is no square of the field of `p`.
struct FiniteField {
    p: usize,
    squared: bool,
    /// By remainder of `p`: whether it is a square and not 0.
    squares: Vec<bool>,
    /// The smallest remainder that is no square.
    n: usize,
}

impl FiniteField {
    fn new(p: usize, squared: bool) -> Self {
        let squares = squares(p);
        let n = (1..p).find(|x| !squares[*x]).unwrap_or(0);
        Self { p, squared, squares, n }
    }

    fn size(&self) -> usize {
        if self.squared { self.p * self.p } else { self.p }
    }

    /// Whether the difference of two elements, which differ, is a square.
    fn is_square(&self, x: usize, y: usize) -> bool {
        let p = self.p;
        let minus = |x: usize, y: usize| (x % p + p - y % p) % p;
        let (a, b) = (minus(x, y), minus(x / p, y / p));
        if !self.squared {
            return self.squares[a];
        }
        // An element is a square where its norm is one of the field of p elements. The norm is 0 of 0 alone.
        self.squares[(a * a + (p - self.n) * (b * b % p)) % p]
    }
}

fn is_prime(n: u32) -> bool {
    n > 1 && (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

/// By remainder of a prime: whether it is a square and not 0.
fn squares(q: usize) -> Vec<bool> {
    let mut squares = vec![false; q];
    (1..q).for_each(|x| squares[x * x % q] = true);
    squares
}

fn of_first_kind(q: usize) -> Vec<bool> {
    let squares = squares(q);
    let order = q + 1;
    let entry = |at: usize| match (at / order, at % order) {
        (0, _) | (_, 0) => false,
        (i, j) => !squares[(i + j - 2) % q],
    };
    (0..order * order).map(entry).collect()
}

fn of_second_kind(field: &FiniteField) -> Vec<bool> {
    let order = 2 * (field.size() + 1);
    let entry = |i: usize, j: usize| {
        let (low, (a, b)) = ([i % 2, j % 2], (i / 2, j / 2));
        match (a, b) {
            _ if a == b => low != [0, 0],
            (0, _) | (_, 0) => low == [1, 1],
            (a, b) => field.is_square(a - 1, b - 1) == (low == [1, 1]),
        }
    };
    // Rows and the same columns with other signs.
    (0..order * order)
        .map(|at| (at / order, at % order))
        .map(|(i, j)| entry(i, j) ^ entry(0, i) ^ entry(0, j))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> impl Iterator<Item = u32> {
        (1..=ORDER_MAX).filter(|order| is_order(*order))
    }

    #[test]
    fn orders_of_both_constructions_are_known() {
        assert_eq!(orders().take(9).collect::<Vec<u32>>(), [1, 12, 20, 24, 28, 36, 44, 48, 52]);
        // Of squares of primes: 2 * (5 * 5 + 1), 2 * (7 * 7 + 1), 2 * (11 * 11 + 1).
        assert!([52, 100, 244].iter().all(|order| is_order(*order)));
        // 56 would take a cube of a prime, 92 a search.
        assert!([2, 4, 8, 16, 56, 92, 257, u32::MAX, 0].iter().all(|order| !is_order(*order)));
    }

    #[test]
    fn matrices_are_symmetric_and_rows_are_orthogonal() {
        for order in orders() {
            let n = order as usize;
            let signs = signs(order);
            assert_eq!(signs.len(), n * n);
            for i in 0..n {
                assert!(!signs[i], "the first row of order {order} is ones");
                for j in 0..n {
                    assert_eq!(signs[i * n + j], signs[j * n + i], "order {order}");
                    let differ = (0..n).filter(|k| signs[i * n + k] != signs[j * n + k]).count();
                    assert_eq!(2 * differ, if i == j { 0 } else { n }, "rows {i} and {j} of order {order}");
                }
            }
        }
    }

    #[test]
    fn a_transform_is_its_own_inverse() {
        for size in [(1, 1), (1, 5), (12, 0), (12, 3), (20, 2), (36, 1), (76, 0), (100, 1)] {
            let size = HadamardSize { order: size.0, power: size.1 };
            assert!(size.is_sound());
            let row: Vec<f64> = (0..3 * size.block()).map(|i| ((i * 37 % 101) as f64 - 50.0) / 8.0).collect();
            let (matrix, mut again) = (HadamardMatrix::of(size), row.clone());
            matrix.apply(&mut again);
            assert_ne!(row, again, "{size}");
            matrix.apply(&mut again);
            assert!(row.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-12), "{size}");
        }
        for size in [(1, 0), (2, 1), (12, POWER_MAX + 1), (0, 1)] {
            assert!(!HadamardSize { order: size.0, power: size.1 }.is_sound(), "{size:?}");
        }
    }

    /// Worked by hand: order 1 and four numbers; the root of 4 is 2.
    #[test]
    fn four_numbers_are_added_and_subtracted() {
        let mut row = [1.0f32, 2.0, 3.0, 6.0];
        HadamardMatrix::of(HadamardSize { order: 1, power: 2 }).apply(&mut row);
        assert_eq!(row, [6.0, -2.0, -3.0, 1.0]);
    }

    /// Every channel is spread over all of its block, and channels stay at right angles.
    #[test]
    fn every_channel_is_spread_evenly() {
        for width in (2..=128).chain([144, 192, 200, 256]) {
            let Some(size) = HadamardSize::largest(width) else { continue };
            let (n, matrix) = (size.block(), HadamardMatrix::of(size));
            let row = |i: usize| {
                let mut row: Vec<f64> = (0..n).map(|j| f64::from(i == j)).collect();
                matrix.apply(&mut row);
                row
            };
            let rows: Vec<Vec<f64>> = (0..n).map(row).collect();
            for (i, row) in rows.iter().enumerate() {
                let even = |x: &f64| (x.abs() * (n as f64).sqrt() - 1.0).abs() < 1e-12;
                assert!(row.iter().all(even), "{width}: row {i} is {row:?}");
                for (j, other) in rows.iter().enumerate() {
                    let dot: f64 = row.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!((dot - f64::from(i == j)).abs() < 1e-12, "{width}: rows {i} and {j} give {dot}");
                }
            }
        }
    }

    #[test]
    fn widths_of_networks_are_one_block() {
        for (width, order, power) in [
            (64, 1, 6),
            (20, 20, 0),
            (36, 36, 0),
            (100, 100, 0),
            (576, 36, 4),
            (768, 12, 6),
            (896, 28, 5),
            (960, 60, 4),
            (1536, 12, 7),
            (1600, 100, 4),
            (5120, 20, 8),
        ] {
            assert_eq!(HadamardSize::largest(width), Some(HadamardSize { order, power }), "{width}");
        }
        for (width, block) in [(50, 2), (92, 4), (11008, 256)] {
            assert_eq!(HadamardSize::largest(width).map(HadamardSize::block), Some(block), "{width}");
        }
        assert_eq!([0, 1, 3].map(HadamardSize::largest), [None; 3]);
    }

    #[test]
    fn blocks_are_the_largest_that_are_worth_it() {
        let of = |width| HadamardSize::of_width(width).map(|size| (size.order, size.power));
        let found = [1, 2, 12, 64, 576, 2560, 4864, 5632, 6912].map(of);
        let some = |order, power| Some((order, power));
        assert_eq!(
            found,
            [None, some(1, 1), some(12, 0), some(1, 6), some(36, 4), some(20, 7), some(1, 8), some(1, 9), some(12, 6)]
        );
    }
}
