//! Products of f32 whose operands are rounded to bf16 and whose sums are f32: gradients of training, where they are asked for.
//!
//! Law: they differ from products in f32 by the rounding of operands, a relative 2^-9 each. They never depend on threads.

use super::training::StridedMatrix;
use super::vectors::interface::{BF16_NUMBERS as NUMBERS, BF16_SIDE as SIDE, Bf16Line};
#[cfg(target_arch = "x86_64")]
use super::vectors::{bf16::Bf16Block, tiles};

const NOTHING: Bf16Line = Bf16Line([0; NUMBERS]);

/// The nearest bf16, of two the even one.
#[inline(always)]
fn rounded(x: f32) -> u16 {
    let bits = x.to_bits();
    let near = bits.wrapping_add(0x7fff).wrapping_add(bits >> 16 & 1) >> 16;
    if x.is_nan() { 0x7fc0 } else { near as u16 }
}

/// A left operand: rows of whole lines, as many as whole blocks have.
#[derive(Clone, Debug, Default)]
pub struct Bf16Rows {
    lines: usize,
    rows: Vec<Bf16Line>,
}

/// A right operand in panels of 32 outputs, `[outputs / 32][lines][16 pairs][32 outputs][2]`, `lines` of 32 inputs.
#[derive(Clone, Debug, Default)]
pub struct Bf16Panels {
    lines: usize,
    panels: Vec<Bf16Line>,
}

/// A left operand as it lies.
#[derive(Clone, Copy, Debug)]
pub enum Bf16Left<'a> {
    Rows(&'a Bf16Rows),
    /// Turned, as a right operand: for dot products of pairs alone.
    Panels(&'a Bf16Panels),
}

/// What multiplies numbers of bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bf16Unit {
    /// The matrix unit, AMX.
    Tiles,
    /// Dot products of pairs, AVX-512.
    Pairs,
}

impl Bf16Unit {
    /// The fastest that this processor has, if it has one.
    pub fn best() -> Option<Self> {
        [Self::Tiles, Self::Pairs].into_iter().find(|unit| unit.is_available())
    }

    /// Whether this process may use it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Tiles => tiles::available() && tiles::multiplies_bf16(),
            Self::Pairs => is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f"),
        }
    }

    /// Whether this process may use it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        false
    }

    /// How a run's record calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiles => "amx-bf16",
            Self::Pairs => "avx512-bf16",
        }
    }
}

/// Lines of a row that all blocks pass before the next: rows and panels of so many stay in the second-level cache.
const CHUNK: usize = 64;

/// `y[n, m] = x[n, k] w[k, m]`. `sums` is memory to work in.
///
/// # Panics
/// Sizes that do not fit each other; a unit that is not here.
#[cfg(target_arch = "x86_64")]
pub fn multiply_bf16(
    unit: Bf16Unit,
    x: Bf16Left<'_>,
    w: &Bf16Panels,
    [n, m]: [usize; 2],
    y: &mut [f32],
    sums: &mut Vec<f32>,
) {
    let by_tiles = unit == Bf16Unit::Tiles;
    let (lines, left, row_lines) = match x {
        Bf16Left::Rows(x) => (x.lines, &x.rows, x.lines),
        Bf16Left::Panels(x) => (x.lines, &x.panels, 0),
    };
    let (rows, outputs) = (n.next_multiple_of(SIDE), m.next_multiple_of(SIDE));
    assert!(row_lines == lines || !by_tiles, "tiles take rows");
    assert!(unit.is_available(), "{} is not here", unit.name());
    assert!(w.lines == lines && y.len() == n * m, "{lines} and {} lines, {} results", w.lines, y.len());
    assert!(left.len() == rows * lines && w.panels.len() == outputs * lines, "whole blocks of {n} by {m}");
    let direct = rows == n && outputs == m;
    if !direct {
        sums.resize(sums.len().max(rows * outputs), 0.0);
    }
    let all = if direct { &mut *y } else { &mut sums[..rows * outputs] };
    if by_tiles {
        // SAFETY: the unit is there; nothing else uses tiles until `release`. Test: `products_of_bf16`.
        unsafe { tiles::configure() };
    }
    for from in (0..lines).step_by(CHUNK) {
        for panel in 0..outputs / SIDE {
            for row in (0..rows).step_by(SIDE) {
                let block = Bf16Block {
                    x: left[row * lines + if row_lines > 0 { from } else { from * SIDE }..].as_ptr(),
                    row: row_lines,
                    w: w.panels[panel * lines * SIDE + from * SIDE..].as_ptr(),
                    y: all[row * outputs + panel * SIDE..].as_mut_ptr(),
                    sums: outputs,
                    lines: (lines - from).min(CHUNK),
                    goes_on: from > 0,
                };
                // SAFETY: 32 rows of so many lines, or as many lines of a panel, begin at `x`, as many lines of a panel at `w`, and 32
                // rows of 32 sums at `y`, by the assertions; the unit is there, and its tiles are configured. Test: `products_of_bf16`.
                unsafe {
                    match (by_tiles, row_lines) {
                        (true, _) => block.by_tiles(),
                        (false, 0) => block.by_pairs::<true>(),
                        (false, _) => block.by_pairs::<false>(),
                    }
                }
            }
        }
    }
    if by_tiles {
        // SAFETY: the unit is there.
        unsafe { tiles::release() };
    }
    if !direct {
        y.chunks_exact_mut(m).zip(sums.chunks_exact(outputs)).for_each(|(y, sums)| y.copy_from_slice(&sums[..m]));
    }
}

/// No processor of this architecture has a unit.
#[cfg(not(target_arch = "x86_64"))]
pub fn multiply_bf16(unit: Bf16Unit, _: Bf16Left<'_>, _: &Bf16Panels, _: [usize; 2], _: &mut [f32], _: &mut Vec<f32>) {
    unreachable!("{} is not here", unit.name())
}

/// Rounds a left operand into memory that is there.
#[inline(always)]
pub(super) fn round_rows(x: StridedMatrix<'_>, to: &mut Bf16Rows) {
    let [step, along] = x.steps;
    to.lines = x.columns.div_ceil(NUMBERS);
    to.rows.clear();
    to.rows.resize(x.rows.next_multiple_of(SIDE) * to.lines, NOTHING);
    if along == 1 {
        for (r, lines) in to.rows.chunks_exact_mut(to.lines).take(x.rows).enumerate() {
            let row = &x.data[r * step..][..x.columns];
            for (line, x) in lines.iter_mut().zip(row.chunks(NUMBERS)) {
                line.0.iter_mut().zip(x).for_each(|(to, &x)| *to = rounded(x));
            }
        }
        return;
    }
    // Squares of 32 by 32, so that what lies side by side is read together.
    for first in (0..x.rows).step_by(SIDE) {
        let rows = (x.rows - first).min(SIDE);
        for line in 0..to.lines {
            let columns = (x.columns - line * NUMBERS).min(NUMBERS);
            for c in 0..columns {
                let from = &x.data[first * step + (line * NUMBERS + c) * along..];
                for r in 0..rows {
                    to.rows[(first + r) * to.lines + line].0[c] = rounded(from[r * step]);
                }
            }
        }
    }
}

/// Rounds a right operand into memory that is there.
#[inline(always)]
pub(super) fn round_panels(w: StridedMatrix<'_>, to: &mut Bf16Panels) {
    let [step, along] = w.steps;
    to.lines = w.rows.div_ceil(NUMBERS);
    to.panels.clear();
    to.panels.resize(w.columns.next_multiple_of(SIDE) * to.lines, NOTHING);
    for (panel, lines) in to.panels.chunks_exact_mut(SIDE * to.lines).enumerate() {
        let first = panel * SIDE;
        let outputs = (w.columns - first).min(SIDE);
        for (pair, lines) in lines.chunks_exact_mut(2).take(w.rows.div_ceil(2)).enumerate() {
            let second = 2 * pair + 1 < w.rows;
            let a = &w.data[2 * pair * step + first * along..];
            let b = if second { &w.data[(2 * pair + 1) * step + first * along..] } else { a };
            let mut both = [[0u16; 2]; SIDE];
            if along == 1 && outputs == SIDE && second {
                both.iter_mut()
                    .zip(&a[..SIDE])
                    .zip(&b[..SIDE])
                    .for_each(|((to, &a), &b)| *to = [rounded(a), rounded(b)]);
            } else {
                for (o, to) in both.iter_mut().enumerate().take(outputs) {
                    *to = [rounded(a[o * along]), if second { rounded(b[o * along]) } else { 0 }];
                }
            }
            lines[0].0.copy_from_slice(both[..SIDE / 2].as_flattened());
            lines[1].0.copy_from_slice(both[SIDE / 2..].as_flattened());
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::{Isa, Kernels};
    use super::*;

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        for (x, near) in
            [(1.0, 0x3f80), (1.003_906_3, 0x3f80), (1.011_718_8, 0x3f82), (-2.0, 0xc000), (f32::INFINITY, 0x7f80)]
        {
            assert_eq!(rounded(x), near, "{x}");
        }
        assert_eq!(rounded(f32::NAN), 0x7fc0);
        assert_eq!(rounded(f32::from_bits(u32::MAX)), 0x7fc0);
        for x in -256..=256 {
            assert_eq!(f32::from_bits(u32::from(rounded(x as f32)) << 16), x as f32, "small integers stay");
        }
    }

    /// Sizes of whole blocks and not, sums of more than a chunk, operands that lie by rows and by columns.
    #[test]
    fn products_of_bf16() {
        let kernels = Kernels::new(Isa::best()).expect("it is available");
        let units = [Bf16Unit::Tiles, Bf16Unit::Pairs].into_iter().filter(|unit| unit.is_available());
        for unit in units {
            for [n, k, m] in [[1, 1, 1], [32, 32, 32], [33, 31, 65], [7, 100, 40], [64, 2 * CHUNK * NUMBERS + 5, 32]] {
                let (x, w) = (numbers(n * k, 1), numbers(k * m, 2));
                let exact = |i: usize, j: usize, wide: bool| -> f64 {
                    let number = |x: f32| if wide { x } else { f32::from_bits(u32::from(rounded(x)) << 16) };
                    (0..k).map(|c| f64::from(number(x[i * k + c])) * f64::from(number(w[c * m + j]))).sum()
                };
                let turned: Vec<f32> = (0..k * n).map(|i| x[i % n * k + i / n]).collect();
                let turned_w: Vec<f32> = (0..k * m).map(|i| w[i % k * m + i / k]).collect();
                let xs = [(&x, [k, 1]), (&turned, [1, n])];
                let ws = [(&w, [m, 1]), (&turned_w, [1, k])];
                let mut first = None;
                for ((x, x_steps), (w, w_steps)) in xs.into_iter().flat_map(|x| ws.map(|w| (x, w))) {
                    let (mut rows, mut panels) = (Bf16Rows::default(), Bf16Panels::default());
                    kernels.round_rows(StridedMatrix { data: x, rows: n, columns: k, steps: x_steps }, &mut rows);
                    kernels.round_panels(StridedMatrix { data: w, rows: k, columns: m, steps: w_steps }, &mut panels);
                    let (mut y, mut sums) = (vec![f32::NAN; n * m], Vec::new());
                    multiply_bf16(unit, Bf16Left::Rows(&rows), &panels, [n, m], &mut y, &mut sums);
                    let first = first.get_or_insert_with(|| y.clone());
                    assert_eq!(*first, y, "{unit:?}: the same bits however operands lie");
                    if unit == Bf16Unit::Pairs {
                        let mut left = Bf16Panels::default();
                        let x = StridedMatrix { data: x, rows: n, columns: k, steps: x_steps };
                        kernels.round_panels(x.turned(), &mut left);
                        multiply_bf16(unit, Bf16Left::Panels(&left), &panels, [n, m], &mut y, &mut sums);
                        assert_eq!(*first, y, "{unit:?}: the same bits of a left operand in panels");
                    }
                    for (at, &y) in y.iter().enumerate() {
                        let own = exact(at / m, at % m, false);
                        assert!((f64::from(y) - own).abs() < 1e-6 * k as f64, "{unit:?} {n} {k} {m}: {y} for {own}");
                        assert!(
                            (own - exact(at / m, at % m, true)).abs() < 0.01 * (k as f64).sqrt(),
                            "operands are near"
                        );
                    }
                }
            }
        }
    }
}
