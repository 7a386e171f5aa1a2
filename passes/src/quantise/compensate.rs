//! Rounding of weights that compensates its own errors.
//!
//! A projection's output is wrong by `e . x`, where `e` are the errors of its weights, and on sample text by
//! `sum e_i e_j H_ij` in all, with the second moments `H` of the inputs. With `H = M M^T`, `M` upper triangular, that is
//! `sum over k of (M_kk e_k + sum over j < k of M_jk e_j)^2`. So inputs are rounded in order, and what the errors before it
//! come to at an input is added to its weight before that is rounded.
//!
//! Source: Frantar et al. 2022 (GPTQ), in the form of Chee et al. 2023 (QuIP, theorem 6), which needs no inverse.

use crate::moments::Moments;
use crate::products::{DEPTH, Operand, ProductPart, products};
use pulp::{Arch, NullaryFnOnce};
use snnc_ir::eval;

/// What is added to the diagonal of moments, as a share of its mean (GPTQ's choice): a sample is not all text.
const DAMPING: f32 = 0.01;

/// How often damping is made ten times as much where moments have no factor.
const ATTEMPTS: usize = 3;

/// Inputs that are rounded one by one before what they hand on is summed in one go.
const BLOCK: usize = 32;

/// Outputs that are rounded together.
const PANEL: usize = 128;

/// What errors at inputs come to at later inputs: row `k` holds `M_jk / M_kk` for every `j < k`, so that nothing else of the
/// square `[inputs, inputs]` is read.
#[derive(Debug)]
pub(crate) struct Feedback {
    inputs: usize,
    shares: Vec<f32>,
}

impl Feedback {
    /// Of levels `(x - centre) / scale` of some channels. `None` where the moments are no moments: a number is not finite.
    pub fn new(moments: &Moments, channels: &[usize], scale: &[f32], centre: &[f32]) -> Option<Self> {
        let n = channels.len();
        let mut damping = DAMPING;
        for _ in 0..ATTEMPTS {
            let mut square = moments.of_levels(channels, scale, centre);
            let sum: f32 = (0..n).map(|i| square[i * n + i]).sum();
            let more = damping * (sum / n as f32);
            if !more.is_finite() {
                return None;
            }
            // Without anything to go by, errors go nowhere.
            (0..n).for_each(|i| square[i * n + i] += if sum > 0.0 { more } else { 1.0 });
            if factor(&mut square, n) {
                return Some(Self { inputs: n, shares: square });
            }
            damping *= 10.0;
        }
        None
    }

    /// Rounds weights that are in units of their levels, `[inputs, outputs]`, which `fill` writes into a panel of some outputs,
    /// `[inputs, width]`: from -`most` to `most`, handed to `store` by input and first output.
    pub fn round(
        &self,
        outputs: usize,
        most: i32,
        mut fill: impl FnMut(usize, &mut [f32], usize),
        mut store: impl FnMut(usize, usize, &[i8]),
    ) {
        let mut panel = vec![0f32; self.inputs * PANEL.min(outputs)];
        for first in (0..outputs).step_by(PANEL) {
            let width = PANEL.min(outputs - first);
            let panel = &mut panel[..self.inputs * width];
            fill(first, panel, width);
            self.round_panel(panel, width, most, |input, levels| store(input, first, levels));
        }
    }

    /// Weights become their errors, input by input.
    fn round_panel(&self, panel: &mut [f32], width: usize, most: i32, mut store: impl FnMut(usize, &[i8])) {
        let n = self.inputs;
        let mut handed = vec![0f32; BLOCK * width];
        let mut levels = vec![0i8; width];
        for first in (0..n).step_by(BLOCK) {
            let count = BLOCK.min(n - first);
            let (errors, rest) = panel.split_at_mut(first * width);
            handed.fill(0.0);
            if first > 0 {
                let shares = Operand { data: &self.shares[first * n..], term: 1, place: n };
                let errors = Operand { data: errors, term: width, place: 1 };
                products([shares, errors], first, [count, width], ProductPart::All, |i, j, sums| {
                    let at = i * width + j;
                    handed[at..at + sums.len()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
                });
            }
            for i in 0..count {
                let (errors, rest) = rest.split_at_mut(i * width);
                let handed = &mut handed[i * width..(i + 1) * width];
                let shares = &self.shares[(first + i) * n + first..][..i];
                let (weights, levels_of) = (&mut rest[..width], &mut levels);
                Arch::new().dispatch(RoundRow { weights, handed, errors, shares, most, levels: levels_of });
                store(first + i, &levels);
            }
        }
    }
}

/// One input: `weights` become errors; `handed` is what the blocks before it hand on, `errors` and `shares` are its own block's.
struct RoundRow<'a> {
    weights: &'a mut [f32],
    handed: &'a mut [f32],
    errors: &'a [f32],
    shares: &'a [f32],
    most: i32,
    levels: &'a mut [i8],
}

impl NullaryFnOnce for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { weights, handed, errors, shares, most, levels } = self;
        for (errors, share) in errors.chunks_exact(weights.len()).zip(shares) {
            handed.iter_mut().zip(errors).for_each(|(sum, error)| *sum += share * error);
        }
        for ((w, handed), level) in weights.iter_mut().zip(handed).zip(levels) {
            let nearest = eval::level(*w + *handed, most);
            *level = nearest as i8;
            *w -= nearest as f32;
        }
    }
}

/// Turns the lower triangle of symmetric `H` into `M_jk / M_kk` at row `k` and column `j`, where `H = M M^T` with `M` upper
/// triangular. Whether `H` has such a factor: it must be positive definite.
fn factor(square: &mut [f32], n: usize) -> bool {
    let mut end = n;
    while end > 0 {
        let first = end.saturating_sub(DEPTH.min(BLOCK));
        // Rows of the block, from the last: each without what those below it hold.
        for k in (first..end).rev() {
            let (above, below) = square.split_at_mut((k + 1) * n);
            let row = &mut above[k * n..k * n + k + 1];
            for other in below.chunks_exact(n).take(end - k - 1) {
                let share = other[k];
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
            }
            let pivot = row[k];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return false;
            }
            let inverse = 1.0 / pivot.sqrt();
            row.iter_mut().for_each(|x| *x *= inverse);
        }
        let (above, block) = square.split_at_mut(first * n);
        let rows = Operand { data: block, term: n, place: 1 };
        products([rows; 2], end - first, [first; 2], ProductPart::Lower, |i, j, sums| {
            let at = i * n + j;
            above[at..at + sums.len()].iter_mut().zip(sums).for_each(|(x, sum)| *x -= sum);
        });
        end = first;
    }
    for (k, row) in square.chunks_exact_mut(n.max(1)).enumerate() {
        let inverse = 1.0 / row[k];
        row[..k].iter_mut().for_each(|x| *x *= inverse);
    }
    true
}
