//! Second moments of what sites hold: which channels go together on sample text, and by how much. Plain data, measured
//! elsewhere; what rounds weights with compensation reads them.

use crate::products::{ProductOperand, ProductPart, products};
use indexmap::IndexMap;
use snnc_ir::{Diagnostic, Value};
use std::fmt::Debug;
use std::sync::Arc;

/// Sums over rows of the products of two channels each, around a point near the mean, so that little cancels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputMoments {
    /// By channel: what is subtracted before anything is summed, the mean of the rows that were first added.
    reference: Vec<f32>,
    /// By channel: the sum of what is left.
    first: Vec<f32>,
    /// `sum of x_i * x_j` of what is left for every `j <= i`, channel `i` after channel `i - 1`.
    second: Vec<f32>,
    /// Rows that were added.
    rows: usize,
}

/// By site.
pub type SiteMoments = IndexMap<Value, Arc<InputMoments>>;

/// Who knows moments when weights are rounded. Those of all sites may be more than memory holds, so they are asked for site by site.
pub trait MomentSource: Debug + Sync {
    /// The moments of a site; `None` where none were measured.
    ///
    /// # Errors
    /// They could not be measured.
    fn moments(&self, site: Value) -> Result<Option<Arc<InputMoments>>, Diagnostic>;
}

impl MomentSource for SiteMoments {
    fn moments(&self, site: Value) -> Result<Option<Arc<InputMoments>>, Diagnostic> {
        Ok(self.get(&site).cloned())
    }
}

/// The bytes of the moments of a site of so many channels.
pub fn moments_bytes(width: usize) -> usize {
    triangle(width) * size_of::<f32>()
}

/// Numbers of a triangle with so many rows.
fn triangle(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

impl InputMoments {
    /// Of nothing yet.
    pub fn new(width: usize) -> Self {
        Self { reference: Vec::new(), first: vec![0.0; width], second: vec![0.0; triangle(width)], rows: 0 }
    }

    /// Channels.
    pub fn width(&self) -> usize {
        self.first.len()
    }

    /// Adds rows `[rows, width]`. The result depends on how rows are put together, so put them together in one stated way.
    pub fn add(&mut self, rows: &[f32]) {
        let width = self.width();
        let count = rows.len() / width.max(1);
        if count == 0 {
            return;
        }
        if self.rows == 0 {
            self.reference = sums(rows, width).iter().map(|sum| sum / count as f32).collect();
        }
        let left = |row: &[f32]| row.iter().zip(&self.reference).map(|(x, r)| x - r).collect::<Vec<f32>>();
        let left: Vec<f32> = rows.chunks_exact(width).flat_map(left).collect();
        self.first.iter_mut().zip(sums(&left, width)).for_each(|(all, sum)| *all += sum);
        let operand = ProductOperand { data: &left, term: width, place: 1 };
        products([operand; 2], count, [width; 2], ProductPart::Lower, |i, j, sums| {
            let at = triangle(i) + j;
            self.second[at..at + sums.len()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        });
        self.rows += count;
    }

    /// The moments of `(x - centre) / scale` of some channels: the lower triangle of a square matrix, row by row, zeros above.
    /// A channel with the scale 0 holds nothing.
    pub(crate) fn of_levels(&self, channels: &[usize], scale: &[f32], centre: &[f32]) -> Vec<f32> {
        let n = channels.len();
        let inverse: Vec<f64> = scale.iter().map(|&s| if s > 0.0 { 1.0 / f64::from(s) } else { 0.0 }).collect();
        let reference = |c: usize| self.reference.get(c).copied().unwrap_or(0.0);
        let shift = |(&c, &centre): (&usize, &f32)| f64::from(reference(c)) - f64::from(centre);
        let shift: Vec<f64> = channels.iter().zip(centre).map(shift).collect();
        let first: Vec<f64> = channels.iter().map(|&c| f64::from(self.first[c])).collect();
        let mut square = vec![0f32; n * n];
        for (i, row) in square.chunks_exact_mut(n.max(1)).enumerate() {
            let whole = first[i] + self.rows as f64 * shift[i];
            for (j, at) in row[..=i].iter_mut().enumerate() {
                let (c, d) = (channels[i].max(channels[j]), channels[i].min(channels[j]));
                let second = f64::from(self.second[triangle(c) + d]);
                let moved = second + shift[i] * first[j] + shift[j] * whole;
                *at = (moved * inverse[i] * inverse[j]) as f32;
            }
        }
        square
    }
}

/// Sums of columns, row after row.
fn sums(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f32; width];
    for row in rows.chunks_exact(width.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments of levels are those of the levels themselves, wherever they are centred and whatever rows came first.
    #[test]
    fn moments_of_levels_are_sums_of_products() {
        let rows: Vec<[f32; 3]> =
            (0..7).map(|i| [i as f32, (i * i) as f32 / 4.0 - 3.0, if i % 2 == 0 { 100.5 } else { 99.5 }]).collect();
        let mut moments = InputMoments::new(3);
        moments.add(rows[..3].concat().as_slice());
        moments.add(rows[3..].concat().as_slice());
        let (scale, centre) = ([0.5, 2.0, 0.25], [0.0, 1.0, 99.0]);
        let channels = [2, 0, 1];
        let of = |values: [f32; 3]| channels.map(|c| values[c]);
        let got = moments.of_levels(&channels, &of(scale), &of(centre));
        for i in 0..3 {
            for j in 0..3 {
                let (c, d) = (channels[i], channels[j]);
                let level = |row: &[f32; 3], c: usize| (row[c] - centre[c]) / scale[c];
                let sum: f32 = rows.iter().map(|row| level(row, c) * level(row, d)).sum();
                let wanted = if j <= i { sum } else { 0.0 };
                assert!((got[i * 3 + j] - wanted).abs() <= 1e-4 * wanted.abs(), "{i} {j}: {} {wanted}", got[i * 3 + j]);
            }
        }
        let silent = moments.of_levels(&[0, 1], &[0.5, 0.0], &[0.0, 1.0]);
        assert_eq!(silent[2..], [0.0, 0.0]);
    }
}
