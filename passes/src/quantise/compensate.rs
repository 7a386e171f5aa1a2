//! Rounding of weights that compensates its own errors.
//!
//! A projection's output is wrong by `e . x`, where `e` are the errors of its weights, and on sample text by
//! `sum e_i e_j H_ij` in all, with the second moments `H` of the inputs. With `H = M M^T`, `M` upper triangular, that is
//! `sum over k of (M_kk e_k + sum over j < k of M_jk e_j)^2`. So inputs are rounded in order, and what the errors before it
//! come to at an input is added to its weight before that is rounded.
//!
//! Source: Frantar et al. 2022 (GPTQ), in the form of Chee et al. 2023 (QuIP, theorem 6), which needs no inverse.

use crate::moments::InputMoments;
use crate::products::{DEPTH, ProductOperand, ProductPart, products};
use crate::side_by_side::SideBySide;
use pulp::{Arch, NullaryFnOnce};
use snnc_ir::eval;

/// What is added to the diagonal of moments, as a share of its mean (GPTQ's choice): a sample is not all text.
const DAMPING: f32 = 0.01;

/// How often damping is made ten times as much where moments have no factor.
const ATTEMPTS: usize = 3;

/// Inputs that are rounded one by one before what they hand on is summed in one go.
const BLOCK: usize = 32;

/// Outputs that are rounded together.
pub(crate) const PANEL: usize = 128;

/// What errors at inputs come to at later inputs: row `k` holds `M_jk / M_kk` for every `j < k`, so that nothing else of the
/// square `[inputs, inputs]` is read.
#[derive(Debug)]
pub(crate) struct Feedback {
    inputs: usize,
    shares: Vec<f32>,
    /// How panels are rounded.
    side_by_side: SideBySide,
}

impl Feedback {
    /// Of levels `(x - centre) / scale` of some channels. `None` where the moments are no moments: a number is not finite.
    pub fn new(
        moments: &InputMoments,
        channels: &[usize],
        scale: &[f32],
        centre: &[f32],
        side_by_side: SideBySide,
    ) -> Option<Self> {
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
                return Some(Self { inputs: n, shares: square, side_by_side });
            }
            damping *= 10.0;
        }
        None
    }

    /// How panels are rounded.
    pub fn side_by_side(&self) -> SideBySide {
        self.side_by_side.clone()
    }

    /// Rounds weights that are in units of their levels, `[inputs, outputs]`, which `fill` writes into a panel of some outputs,
    /// `[inputs, width]`: from -`most` to `most`, handed to `store` by input and first output. Panels are rounded side
    /// by side; each is what it is alone.
    pub fn round(
        &self,
        outputs: usize,
        most: i32,
        fill: impl Fn(usize, &mut [f32], usize) + Sync,
        mut store: impl FnMut(usize, usize, &[i8]),
    ) {
        let one = |panel: usize| {
            let first = panel * PANEL;
            let width = PANEL.min(outputs - first);
            let (mut panel, mut levels) = (vec![0f32; self.inputs * width], vec![0i8; width]);
            fill(first, &mut panel, width);
            let mut all = Vec::with_capacity(panel.len());
            let store = |_: usize, levels: &[i8]| all.extend_from_slice(levels);
            self.pass(&mut panel, width, BLOCK, &mut Uniform { most, levels: &mut levels, store });
            (first, width, all)
        };
        for (first, width, levels) in self.side_by_side.map(outputs.div_ceil(PANEL), one) {
            levels.chunks_exact(width).enumerate().for_each(|(input, levels)| store(input, first, levels));
        }
    }

    /// Weights of a panel `[inputs, width]` become their errors, input by input. What the errors of earlier blocks come to is known
    /// when a block begins.
    pub fn pass(&self, panel: &mut [f32], width: usize, block: usize, rows: &mut impl RowRounding) {
        let n = self.inputs;
        let mut handed = vec![0f32; block * width];
        for first in (0..n).step_by(block) {
            let count = block.min(n - first);
            let (errors, rest) = panel.split_at_mut(first * width);
            handed.fill(0.0);
            if first > 0 {
                let shares = ProductOperand { data: &self.shares[first * n..], term: 1, place: n };
                let errors = ProductOperand { data: errors, term: width, place: 1 };
                products([shares, errors], first, [count, width], ProductPart::All, |i, j, sums| {
                    let at = i * width + j;
                    handed[at..at + sums.len()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
                });
            }
            rows.begin(first, &rest[..count * width], &handed);
            for i in 0..count {
                let (errors, rest) = rest.split_at_mut(i * width);
                let handed = &mut handed[i * width..(i + 1) * width];
                let shares = &self.shares[(first + i) * n + first..][..i];
                Arch::new().dispatch(HandOn { handed: &mut *handed, errors, shares });
                rows.round(first + i, &mut rest[..width], handed);
            }
        }
    }
}

/// How an input's weights are rounded.
pub(crate) trait RowRounding {
    /// A block of inputs `[count, width]` begins, with what the blocks before it hand on.
    fn begin(&mut self, _first: usize, _weights: &[f32], _handed: &[f32]) {}

    /// `weights` become errors; `handed` is what earlier errors come to.
    fn round(&mut self, input: usize, weights: &mut [f32], handed: &[f32]);
}

/// Levels that are all 1 apart.
struct Uniform<'a, S> {
    most: i32,
    levels: &'a mut [i8],
    store: S,
}

impl<S: FnMut(usize, &[i8])> RowRounding for Uniform<'_, S> {
    fn round(&mut self, input: usize, weights: &mut [f32], handed: &[f32]) {
        Arch::new().dispatch(RoundRow { weights, handed, most: self.most, levels: &mut *self.levels });
        (self.store)(input, self.levels);
    }
}

/// What errors of an input's own block hand on to it.
struct HandOn<'a> {
    handed: &'a mut [f32],
    errors: &'a [f32],
    shares: &'a [f32],
}

impl NullaryFnOnce for HandOn<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { handed, errors, shares } = self;
        for (errors, share) in errors.chunks_exact(handed.len()).zip(shares) {
            handed.iter_mut().zip(errors).for_each(|(sum, error)| *sum += share * error);
        }
    }
}

/// One input: `weights` become errors.
struct RoundRow<'a> {
    weights: &'a mut [f32],
    handed: &'a [f32],
    most: i32,
    levels: &'a mut [i8],
}

impl NullaryFnOnce for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { weights, handed, most, levels } = self;
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
        let rows = ProductOperand { data: block, term: n, place: 1 };
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

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_ir::random::SplitMix64;

    fn numbers(random: &mut SplitMix64, count: usize) -> Vec<f32> {
        (0..count).map(|_| (random.bits() >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    /// Moments of channels that go together: sums of a few hidden causes, and noise of their own.
    fn correlated(random: &mut SplitMix64, n: usize) -> InputMoments {
        let causes = n.div_ceil(4);
        let mix = numbers(random, causes * n);
        let mut moments = InputMoments::new(n);
        for _ in 0..3 {
            let rows: Vec<f32> = (0..n)
                .flat_map(|_| {
                    let (hidden, own) = (numbers(random, causes), numbers(random, n));
                    let sum = |j: usize| hidden.iter().enumerate().map(|(k, h)| h * mix[k * n + j]).sum::<f32>();
                    (0..n).map(|j| sum(j) + 0.2 * own[j]).collect::<Vec<f32>>()
                })
                .collect();
            moments.add(&rows);
        }
        moments
    }

    fn whole(moments: &InputMoments) -> Feedback {
        let n = moments.width();
        let channels: Vec<usize> = (0..n).collect();
        Feedback::new(moments, &channels, &vec![1.0; n], &vec![0.0; n], SideBySide::default()).expect("moments")
    }

    /// The levels of `w`, `[inputs, outputs]`.
    fn rounded(feedback: &Feedback, w: &[f32], outputs: usize) -> Vec<i8> {
        let mut levels = vec![0i8; w.len()];
        let fill = |first: usize, panel: &mut [f32], width: usize| {
            let rows = panel.chunks_exact_mut(width).zip(w.chunks_exact(outputs));
            rows.for_each(|(row, w)| row.copy_from_slice(&w[first..first + width]));
        };
        feedback
            .round(outputs, 127, fill, |i, first, of| levels[i * outputs + first..][..of.len()].copy_from_slice(of));
        levels
    }

    fn nearest(w: &[f32]) -> Vec<i8> {
        w.iter().map(|&w| eval::level(w, 127) as i8).collect()
    }

    /// What the output is wrong by on the sample, squared and summed.
    fn error(moments: &InputMoments, w: &[f32], levels: &[i8], outputs: usize) -> f64 {
        let n = moments.width();
        let channels: Vec<usize> = (0..n).collect();
        let square = moments.of_levels(&channels, &vec![1.0; n], &vec![0.0; n]);
        let e = |i: usize, o: usize| f64::from(w[i * outputs + o]) - f64::from(levels[i * outputs + o]);
        let at = |i: usize, j: usize| f64::from(square[i.max(j) * n + i.min(j)]);
        let one = |o: usize| {
            (0..n)
                .flat_map(|i| (0..n).map(move |j| (i, j)))
                .map(move |(i, j)| e(i, o) * e(j, o) * at(i, j))
                .sum::<f64>()
        };
        (0..outputs).map(one).sum()
    }

    #[test]
    fn outputs_are_nearer_than_by_rounding_to_nearest() {
        let mut random = SplitMix64(3);
        for (inputs, outputs) in [(4, 200), (33, 40), (70, 130), (129, 7)] {
            let moments = correlated(&mut random, inputs);
            let w: Vec<f32> = numbers(&mut random, inputs * outputs).iter().map(|w| 100.0 * w).collect();
            let own = error(&moments, &w, &rounded(&whole(&moments), &w, outputs), outputs);
            let usual = error(&moments, &w, &nearest(&w), outputs);
            assert!(own < 0.8 * usual, "{inputs} to {outputs}: {own} is not much less than {usual}");
        }
    }

    /// Blocks and panels change nothing but the rounding of sums: the definition, one weight at a time in f64, gives the same.
    #[test]
    fn blocks_give_what_the_definition_gives() {
        let mut random = SplitMix64(5);
        let (n, outputs) = (3 * BLOCK + 5, PANEL + 3);
        let moments = correlated(&mut random, n);
        let w: Vec<f32> = numbers(&mut random, n * outputs).iter().map(|w| 120.0 * w).collect();
        let feedback = whole(&moments);
        let channels: Vec<usize> = (0..n).collect();
        let mut m: Vec<f64> =
            moments.of_levels(&channels, &vec![1.0; n], &vec![0.0; n]).into_iter().map(f64::from).collect();
        let mean = (0..n).map(|i| m[i * n + i]).sum::<f64>() / n as f64;
        (0..n).for_each(|i| m[i * n + i] += f64::from(DAMPING) * mean);
        // Column k of M, the last first, stands in row k.
        for k in (0..n).rev() {
            for j in 0..=k {
                m[k * n + j] -= (k + 1..n).map(|l| m[l * n + k] * m[l * n + j]).sum::<f64>();
            }
            let pivot = m[k * n + k].sqrt();
            (0..=k).for_each(|j| m[k * n + j] /= pivot);
        }
        let levels = rounded(&feedback, &w, outputs);
        let mut other = 0;
        for o in 0..outputs {
            let mut errors: Vec<f64> = Vec::new();
            for k in 0..n {
                let handed: f64 = errors.iter().enumerate().map(|(j, e)| e * m[k * n + j] / m[k * n + k]).sum();
                let x = f64::from(w[k * outputs + o]);
                let level = eval::level((x + handed) as f32, 127);
                other += usize::from(level != i32::from(levels[k * outputs + o]));
                // Where two levels were as near, both go on from the same one.
                errors.push(x - f64::from(levels[k * outputs + o]));
            }
        }
        assert!(other * 1000 < n * outputs, "{other} of {} levels differ", n * outputs);
    }

    #[test]
    fn channels_that_have_nothing_in_common_are_rounded_to_nearest() {
        let n = 50;
        let mut moments = InputMoments::new(n);
        // One channel at a time, both ways, so that nothing is left around the mean.
        let rows: Vec<f32> = (0..2 * n * n)
            .map(|at| if at / n % n == at % n { if at < n * n { 1.5 } else { -1.5 } } else { 0.0 })
            .collect();
        moments.add(&rows);
        let w: Vec<f32> = numbers(&mut SplitMix64(11), n * 9).iter().map(|w| 127.0 * w).collect();
        assert_eq!(rounded(&whole(&moments), &w, 9), nearest(&w));
        assert_eq!(rounded(&whole(&InputMoments::new(n)), &w, 9), nearest(&w), "without any rows");
    }

    /// Channels that are the same, channels that hold nothing, weights at the ends: there are levels, none beyond the ends.
    #[test]
    fn hard_moments_have_levels_too() {
        let mut random = SplitMix64(13);
        let n = 40;
        let mut moments = InputMoments::new(n);
        let rows: Vec<f32> = (0..90)
            .flat_map(|_| {
                let x = 1e4 * numbers(&mut random, 1)[0];
                (0..n).map(move |j| if j % 3 == 0 { 0.0 } else { x })
            })
            .collect();
        moments.add(&rows);
        let w: Vec<f32> = numbers(&mut random, n * 5).iter().map(|w| if *w < 0.0 { -127.0 } else { 127.0 }).collect();
        let levels = rounded(&whole(&moments), &w, 5);
        assert!(levels.iter().all(|level| *level > i8::MIN));
        let mut broken = InputMoments::new(2);
        broken.add(&[1.0, f32::INFINITY]);
        assert!(Feedback::new(&broken, &[0, 1], &[1.0; 2], &[0.0; 2], SideBySide::default()).is_none());
    }

    #[test]
    fn an_output_is_rounded_without_regard_to_others() {
        let mut random = SplitMix64(17);
        let (n, outputs) = (2 * BLOCK, 2 * PANEL + 1);
        let feedback = whole(&correlated(&mut random, n));
        let w: Vec<f32> = numbers(&mut random, n * outputs).iter().map(|w| 90.0 * w).collect();
        let all = rounded(&feedback, &w, outputs);
        for o in [0, PANEL - 1, PANEL, 2 * PANEL] {
            let column = |of: &dyn Fn(usize) -> f32| (0..n).map(of).collect::<Vec<f32>>();
            let alone = rounded(&feedback, &column(&|i| w[i * outputs + o]), 1);
            assert!(alone.iter().enumerate().all(|(i, level)| *level == all[i * outputs + o]), "output {o}");
        }
    }
}
