//! Weights turned along their axes: in f64, rounded to f32 once.

use snnc_ir::Tensor;
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::random::SplitMix64;
use std::collections::HashMap;

/// A turn along an axis: every `width` numbers of it are a vector that is multiplied by `R`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct AxisTurn {
    /// Numbers that are turned together.
    pub width: usize,
    /// Whether their mean is subtracted before.
    pub centred: bool,
}

/// The turns of a matrix, or of a vector along its last axis. Two turns of one matrix are independent of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AxisTurns {
    /// Of columns.
    pub first: Option<AxisTurn>,
    /// Of rows.
    pub last: Option<AxisTurn>,
}

/// Seed of the signs before Hadamard matrices. One seed per width: all vectors of a width are turned alike.
const SEED: u64 = 0x726f_7461_7465;

/// Columns that are turned at a time: a cache line of f64.
const TILE: usize = 8;

/// The matrices by width.
#[derive(Default)]
pub(super) struct Turner {
    rotations: HashMap<usize, RandomRotation>,
}

impl Turner {
    /// `tensor` turned. `None` where it is no f32 vector or matrix, or an axis has no whole number of vectors.
    pub fn turned(&mut self, tensor: &Tensor, turns: AxisTurns) -> Option<Tensor> {
        let (rows, columns) = match *tensor.sizes() {
            [columns] => (1, columns),
            [rows, columns] => (rows, columns),
            _ => return None,
        };
        let fits = |turn: Option<AxisTurn>, size: usize| {
            turn.is_none_or(|turn| turn.width > 0 && size.is_multiple_of(turn.width))
        };
        let data = tensor.as_f32().filter(|_| fits(turns.first, rows) && fits(turns.last, columns))?;
        let mut row = vec![0f64; columns];
        let mut by_rows = |x: &[f32]| {
            row.iter_mut().zip(x).for_each(|(wide, x)| *wide = f64::from(*x));
            turns.last.iter().for_each(|turn| self.rotation(turn.width).apply(&mut row, turn.centred));
            row.clone()
        };
        let Some(turn) = turns.first else {
            let turned = data.chunks_exact(columns.max(1)).flat_map(by_rows).map(|x| x as f32).collect();
            return Some(Tensor::f32(tensor.sizes(), turned));
        };
        let mut wide: Vec<f64> = Vec::with_capacity(data.len());
        data.chunks_exact(columns.max(1)).for_each(|x| wide.extend(by_rows(x)));
        let mut turned = vec![0f32; data.len()];
        let mut tile = vec![0f64; TILE * rows];
        for from in (0..columns).step_by(TILE) {
            let count = TILE.min(columns - from);
            for (r, x) in wide.chunks_exact(columns).enumerate() {
                x[from..from + count].iter().enumerate().for_each(|(c, x)| tile[c * rows + r] = *x);
            }
            let rotation = self.rotation(turn.width);
            tile.chunks_exact_mut(rows).take(count).for_each(|column| rotation.apply(column, turn.centred));
            for (r, x) in turned.chunks_exact_mut(columns).enumerate() {
                x[from..from + count].iter_mut().enumerate().for_each(|(c, x)| *x = tile[c * rows + r] as f32);
            }
        }
        Some(Tensor::f32(tensor.sizes(), turned))
    }

    fn rotation(&mut self, width: usize) -> &RandomRotation {
        self.rotations.entry(width).or_insert_with(|| RandomRotation::new(width))
    }
}

/// Random signs, then the Hadamard matrix of a width; there is none of an odd width.
struct RandomRotation {
    signs: Vec<f64>,
    matrix: Option<HadamardMatrix>,
}

impl RandomRotation {
    fn new(width: usize) -> Self {
        let mut random = SplitMix64(SEED ^ width as u64);
        let signs = (0..width).map(|_| if random.bits() >> 63 == 0 { 1.0 } else { -1.0 }).collect();
        Self { signs, matrix: HadamardSize::largest(width).map(HadamardMatrix::of) }
    }

    /// Every vector of `x` times `R`, perhaps after its mean was subtracted.
    fn apply(&self, x: &mut [f64], centred: bool) {
        for vector in x.chunks_exact_mut(self.signs.len()) {
            if centred {
                let mean = vector.iter().sum::<f64>() / vector.len() as f64;
                vector.iter_mut().for_each(|x| *x -= mean);
            }
            vector.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
            self.matrix.iter().for_each(|matrix| matrix.apply(vector));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize, seed: u64) -> Tensor {
        let mut random = SplitMix64(seed);
        let data = (0..rows * columns).map(|_| (random.bits() % 65) as f32 / 32.0 - 1.0).collect();
        Tensor::f32(&[rows, columns], data)
    }

    fn turned(tensor: &Tensor, first: Option<AxisTurn>, last: Option<AxisTurn>) -> Tensor {
        Turner::default().turned(tensor, AxisTurns { first, last }).expect("it fits")
    }

    #[test]
    fn what_is_written_turned_and_read_turned_is_what_it_was() {
        let turn = |width| Some(AxisTurn { width, centred: false });
        // x [3, 24] times w [24, 10], with 12 channels per vector.
        let (x, w) = (matrix(3, 24, 1), matrix(24, 10, 2));
        let product = |x: &Tensor, w: &Tensor| -> Vec<f32> {
            let (x, w) = (x.as_f32().expect("f32"), w.as_f32().expect("f32"));
            let at = |i: usize| (0..24).map(|k| x[i / 10 * 24 + k] * w[k * 10 + i % 10]).sum();
            (0..30).map(at).collect()
        };
        let (before, after) = (product(&x, &w), product(&turned(&x, None, turn(12)), &turned(&w, turn(12), None)));
        assert!(before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5), "{before:?} and {after:?}");
        assert_ne!(x, turned(&x, None, turn(12)));
    }

    #[test]
    fn both_axes_are_turned_independently() {
        let (rows, columns) = (AxisTurn { width: 8, centred: true }, AxisTurn { width: 4, centred: false });
        let w = matrix(16, 12, 3);
        let both = turned(&w, Some(rows), Some(columns));
        let one = turned(&turned(&w, None, Some(columns)), Some(rows), None);
        let pairs = both.as_f32().expect("f32").iter().zip(one.as_f32().expect("f32"));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn what_does_not_fit_is_not_turned() {
        let turns = AxisTurns { first: None, last: Some(AxisTurn { width: 8, centred: false }) };
        assert_eq!(Turner::default().turned(&matrix(2, 12, 1), turns), None);
        assert_eq!(Turner::default().turned(&Tensor::i8(&[1, 8], vec![0; 8]), turns), None);
    }
}
