//! Hadamard matrices, and the fast transform by them: the meaning of the op `hadamard`.
//!
//! A Hadamard matrix has entries of 1 and -1, and rows that are orthogonal to each other. Those here are symmetric and have a
//! first row of ones, so that a transform divided by the root of its size is its own inverse and its own transpose:
//!
//! ```text
//! H(1)      [1]
//! H(q + 1)  a border of ones around f(i + j mod q), where f(0) = -1 and f(s) is 1 for squares, else -1;
//!           q a prime with q mod 4 = 3 (Paley's first construction with its core in reverse order: Paley 1933)
//! H(2q + 2) C x [1 1; 1 -1] + I x [1 -1; -1 -1], where C has 0 at its corner, ones beside it and the same f(i - j) with
//!           f(0) = 0; q a prime with q mod 4 = 1 (Paley's second construction), then signs that make the first row ones
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
    /// The size for rows of `width` numbers: the largest block that divides the width and takes at most 40 additions per
    /// number; of equal ones the one with fewest additions. `None` where only blocks of 1 do.
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
        let orders = (1..=ORDER_MAX).filter(|&order| width > 0 && width.is_multiple_of(order as usize));
        let sizes = orders.filter(|&order| is_order(order)).map(|order| {
            let power = (width / order as usize).trailing_zeros().min(POWER_MAX);
            Self { order, power }
        });
        let worth = sizes.filter(|size| size.block() > 1 && size.additions() <= ADDITIONS_MAX);
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

    /// Every block of a row times the matrix, over the root of its size. The order of operations, which every engine follows:
    /// a block is `order` parts of `2^power` numbers. First part `i` becomes the sum over `j`, ascending, of parts `j` with
    /// the signs of row `i`, and each sum is multiplied by `scale`. Then, within each part and for `h` = 1, 2, 4, ..., the
    /// numbers `(a, b)` that lie `h` apart become `(a + b, a - b)`.
    ///
    /// Panics where blocks do not divide the row: a precondition of the caller.
    pub fn transform<R: Real>(self, row: &[R]) -> Vec<R> {
        let (n, part) = (self.block(), 1 << self.power);
        assert!(row.len().is_multiple_of(n), "blocks of {n} in {} numbers", row.len());
        let (signs, scale) = (signs(self.order), R::from_f64(self.scale()));
        let mut out = Vec::with_capacity(row.len());
        for block in row.chunks_exact(n) {
            let mut y: Vec<R> = mixed(block, &signs, part).into_iter().map(|sum| sum * scale).collect();
            for half in (0..self.power).map(|stage| 1 << stage) {
                for pair in y.chunks_exact_mut(2 * half) {
                    let (a, b) = pair.split_at_mut(half);
                    a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
                }
            }
            out.extend(y);
        }
        out
    }
}

impl fmt::Display for HadamardSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order={},power={}", self.order, self.power)
    }
}

/// Sums of parts with the signs of each row.
fn mixed<R: Real>(block: &[R], signs: &[bool], part: usize) -> Vec<R> {
    let order = block.len() / part;
    let mut out = Vec::with_capacity(block.len());
    for row in signs.chunks_exact(order) {
        for c in 0..part {
            let rest = (1..order).map(|j| (block[j * part + c], row[j]));
            out.push(rest.fold(block[c], |sum, (x, negative)| if negative { sum - x } else { sum + x }));
        }
    }
    out
}

/// Whether a symmetric matrix of this order is made here: 1, or one of Paley's that is no power of two.
pub fn is_order(order: u32) -> bool {
    let paley = order <= ORDER_MAX && order.is_multiple_of(4) && !order.is_power_of_two();
    order == 1 || paley && (first_prime(order).is_some() || second_prime(order).is_some())
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
    match (first_prime(order), second_prime(order)) {
        _ if !is_order(order) || order == 1 => vec![false],
        (Some(q), _) => of_first_kind(q as usize),
        (None, Some(q)) => of_second_kind(q as usize),
        (None, None) => vec![false],
    }
}

/// The prime of Paley's first construction.
fn first_prime(order: u32) -> Option<u32> {
    order.checked_sub(1).filter(|q| q % 4 == 3 && is_prime(*q))
}

/// The prime of his second.
fn second_prime(order: u32) -> Option<u32> {
    (order / 2).checked_sub(1).filter(|q| order.is_multiple_of(2) && q % 4 == 1 && is_prime(*q))
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

fn of_second_kind(q: usize) -> Vec<bool> {
    let squares = squares(q);
    let order = 2 * (q + 1);
    let entry = |i: usize, j: usize| {
        let (low, (a, b)) = ([i % 2, j % 2], (i / 2, j / 2));
        match (a, b) {
            _ if a == b => low != [0, 0],
            (0, _) | (_, 0) => low == [1, 1],
            (a, b) => squares[(a + q - b) % q] == (low == [1, 1]),
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
        assert_eq!(orders().take(8).collect::<Vec<u32>>(), [1, 12, 20, 24, 28, 36, 44, 48]);
        // 52 and 92 would take powers of primes and a search.
        assert!([2, 4, 8, 16, 52, 92, 257, u32::MAX, 0].iter().all(|order| !is_order(*order)));
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
        for size in [(1, 1), (1, 5), (12, 0), (12, 3), (20, 2), (36, 1), (76, 0)] {
            let size = HadamardSize { order: size.0, power: size.1 };
            assert!(size.is_sound());
            let row: Vec<f64> = (0..3 * size.block()).map(|i| ((i * 37 % 101) as f64 - 50.0) / 8.0).collect();
            let again = size.transform(&size.transform(&row));
            assert!(row.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-12), "{size}");
        }
        for size in [(1, 0), (2, 1), (12, POWER_MAX + 1), (0, 1)] {
            assert!(!HadamardSize { order: size.0, power: size.1 }.is_sound(), "{size:?}");
        }
    }

    /// Worked by hand: order 1 and four numbers; the root of 4 is 2.
    #[test]
    fn four_numbers_are_added_and_subtracted() {
        let size = HadamardSize { order: 1, power: 2 };
        assert_eq!(size.transform(&[1.0f32, 2.0, 3.0, 6.0]), [6.0, -2.0, -3.0, 1.0]);
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
