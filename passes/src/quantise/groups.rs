//! Weights of 4 bits, whose levels are those of their group of inputs.
//!
//! An element is `multiplier * level` in units of its output. The unit is fixed first: the largest weight of an output is worth
//! the largest multiplier, nearly. Then groups are rounded one after the other. A group's multiplier is the best of a few when
//! it begins, with what the errors of the groups before it come to; the weight farthest from 0 is near the level -8.

use super::compensate::{Feedback, PANEL, RowRounding};
use snnc_ir::bounds::SUM_MAX;
use snnc_ir::nibbles::{GroupedSizes, LEVEL_LEAST, LEVEL_MOST, MULTIPLIER_MOST};
use snnc_ir::{Tensor, eval};

/// What the level -8 is worth, as shares of the weight farthest from 0: 8/7 is a level of 7 on its own side, less clips it.
const SHARES: [f32; 6] = [8.0 / 7.0, 1.0, 0.93, 0.86, 0.79, 0.72];

/// Weights grow by what the errors before them come to.
const HEADROOM: f32 = 1.1;

/// A weight in units of its outputs, and what these are.
pub(super) struct GroupedWeight {
    pub tensor: Tensor,
    /// What an element of 1 stands for, by output.
    pub unit: Vec<f32>,
}

/// The weight `w(input, output)` times its input's scale, in groups of so many inputs. `feedback`: what errors of weights come to
/// at later inputs. Without one all are rounded to nearest.
pub(super) fn in_groups(
    w: impl Fn(usize, usize) -> f32 + Sync,
    scale: &[f32],
    outputs: usize,
    group: u16,
    feedback: Option<&Feedback>,
) -> GroupedWeight {
    let (k, m) = (scale.len(), outputs);
    let mut most = vec![0f32; m];
    for (c, s) in scale.iter().enumerate() {
        most.iter_mut().enumerate().for_each(|(o, most)| *most = most.max((w(c, o) * s).abs()));
    }
    let levels = f32::from(LEVEL_MOST) * f32::from(MULTIPLIER_MOST);
    let unit: Vec<f32> = most.iter().map(|most| most * HEADROOM / levels).collect();
    let inverse: Vec<f32> = unit.iter().map(|&unit| if unit > 0.0 { 1.0 / unit } else { 0.0 }).collect();
    let block = usize::from(group);
    let rounded = |panel: usize| {
        let first = panel * PANEL;
        let width = PANEL.min(m - first);
        let mut panel = vec![0f32; k * width];
        for ((c, row), s) in panel.chunks_exact_mut(width).enumerate().zip(scale) {
            let outputs = (first..).zip(&inverse[first..]);
            row.iter_mut().zip(outputs).for_each(|(x, (o, inverse))| *x = w(c, o) * s * inverse);
        }
        let mut groups = Groups::new([k, width], block);
        match feedback {
            Some(feedback) => feedback.pass(&mut panel, width, block, &mut groups),
            None => groups.nearest(&mut panel, width),
        }
        groups
    };
    let side_by_side = feedback.map(Feedback::side_by_side).unwrap_or_default();
    let (mut levels, mut multipliers) = (vec![0i8; k * m], vec![0i8; k.div_ceil(block) * m]);
    for (panel, groups) in side_by_side.map(m.div_ceil(PANEL), rounded).into_iter().enumerate() {
        let place = |all: &mut [i8], own: &[i8]| {
            let rows = all.chunks_exact_mut(m).zip(own.chunks_exact(groups.width));
            rows.for_each(|(row, own)| row[panel * PANEL..][..own.len()].copy_from_slice(own));
        };
        place(&mut levels, &groups.levels);
        place(&mut multipliers, &groups.multipliers);
    }
    GroupedWeight { tensor: Tensor::i4([k, m], group, &levels, &multipliers), unit }
}

/// Levels and multipliers of a panel of outputs, `[inputs, width]` and `[groups, width]`.
struct Groups {
    width: usize,
    block: usize,
    /// Multipliers of the group that has begun, by output.
    steps: Vec<f32>,
    levels: Vec<i8>,
    multipliers: Vec<i8>,
}

impl Groups {
    fn new([inputs, width]: [usize; 2], block: usize) -> Self {
        let multipliers = vec![0; inputs.div_ceil(block) * width];
        Self { width, block, steps: Vec::new(), levels: vec![0; inputs * width], multipliers }
    }

    /// Rounds a panel without feedback.
    fn nearest(&mut self, panel: &mut [f32], width: usize) {
        let none = vec![0f32; self.block * width];
        for (g, group) in panel.chunks_mut(self.block * width).enumerate() {
            self.begin(g * self.block, group, &none);
            for (i, row) in group.chunks_exact_mut(width).enumerate() {
                self.round(g * self.block + i, row, &none[..width]);
            }
        }
    }
}

/// The level of a weight in units of its output, which are `step` apart.
fn level_of(x: f32, step: f32) -> i32 {
    if step == 0.0 { 0 } else { eval::level(x / step, -i32::from(LEVEL_LEAST)).min(LEVEL_MOST.into()) }
}

/// The best multiplier for the weights of a group at one output.
fn best_step(weights: impl Iterator<Item = f32> + Clone) -> f32 {
    let farthest = weights.clone().fold(0f32, |far, x| if x.abs() > far.abs() { x } else { far });
    let mut best = (f32::INFINITY, 0.0);
    for share in SHARES {
        let most = f32::from(MULTIPLIER_MOST);
        let step = (farthest.abs() * share / f32::from(-LEVEL_LEAST)).round().clamp(1.0, most);
        let step = if farthest == 0.0 { 0.0 } else { -step.copysign(farthest) };
        let error = weights.clone().fold(0f32, |sum, x| {
            let error = x - step * level_of(x, step) as f32;
            sum + error * error
        });
        if error < best.0 {
            best = (error, step);
        }
    }
    best.1
}

impl RowRounding for Groups {
    fn begin(&mut self, first: usize, weights: &[f32], handed: &[f32]) {
        let width = handed.len() / self.block;
        let column = |o: usize| {
            let rows = weights.chunks_exact(width).zip(handed.chunks_exact(width));
            rows.map(move |(weights, handed)| weights[o] + handed[o])
        };
        self.steps = (0..width).map(|o| best_step(column(o))).collect();
        let multipliers = &mut self.multipliers[first / self.block * width..][..width];
        multipliers.iter_mut().zip(&self.steps).for_each(|(to, step)| *to = *step as i8);
    }

    fn round(&mut self, input: usize, weights: &mut [f32], handed: &[f32]) {
        let levels = &mut self.levels[input * self.width..][..weights.len()];
        for (((w, handed), step), level) in weights.iter_mut().zip(handed).zip(&self.steps).zip(levels) {
            let nearest = level_of(*w + *handed, *step);
            *level = nearest as i8;
            *w -= step * nearest as f32;
        }
    }
}

/// A weight as a sum of weights, each with as many groups as a 32-bit sum of levels up to `most` bears.
pub(super) fn shares(bytes: &[u8], sizes: GroupedSizes, most: i32) -> Vec<Tensor> {
    let m = sizes.outputs();
    let [levels, multipliers] = sizes.unpack(bytes);
    let mut shares = vec![vec![0i8; multipliers.len()]];
    let mut sums = vec![0u64; m];
    for (g, own) in multipliers.chunks_exact(m.max(1)).enumerate() {
        let mut magnitudes = vec![0u64; m];
        for row in levels[g * sizes.group() * m..].chunks_exact(m).take(sizes.group()) {
            magnitudes.iter_mut().zip(row).for_each(|(sum, level)| *sum += u64::from(level.unsigned_abs()));
        }
        let more: Vec<u64> =
            magnitudes.iter().zip(own).map(|(sum, by)| sum * u64::from(by.unsigned_abs()) * most as u64).collect();
        if sums.iter().zip(&more).any(|(sum, more)| sum + more > SUM_MAX) {
            sums.fill(0);
            shares.push(vec![0; multipliers.len()]);
        }
        sums.iter_mut().zip(&more).for_each(|(sum, more)| *sum += more);
        if let Some(share) = shares.last_mut() {
            share[g * m..][..m].copy_from_slice(own);
        }
    }
    let share = |own: Vec<i8>| Tensor::i4([sizes.inputs(), m], sizes.group() as u16, &levels, &own);
    shares.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moments::InputMoments;
    use crate::side_by_side::SideBySide;
    use snnc_ir::bounds::largest_sum;
    use snnc_ir::random::SplitMix64;

    fn numbers(random: &mut SplitMix64, count: usize) -> Vec<f32> {
        (0..count).map(|_| (random.bits() >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn rounded(w: &[f32], k: usize, group: u16, feedback: Option<&Feedback>) -> GroupedWeight {
        let m = w.len() / k;
        in_groups(|c, o| w[c * m + o], &vec![1.0; k], m, group, feedback)
    }

    /// What weights are, of what they should be.
    fn errors(w: &[f32], made: &GroupedWeight) -> Vec<f64> {
        let m = made.unit.len();
        let elements = made.tensor.to_integers().expect("integers");
        let one = |(at, (w, e)): (usize, (&f32, &i32))| f64::from(*w) - f64::from(*e) * f64::from(made.unit[at % m]);
        w.iter().zip(&elements).enumerate().map(one).collect()
    }

    #[test]
    fn a_group_has_levels_of_its_own() {
        let mut random = SplitMix64(3);
        let (k, m) = (70, 131);
        // Every third group is 20 times as large.
        let w: Vec<f32> = numbers(&mut random, k * m)
            .into_iter()
            .enumerate()
            .map(|(at, x)| if at / m / 16 % 3 == 0 { 20.0 * x } else { x })
            .collect();
        let made = rounded(&w, k, 16, None);
        for (at, error) in errors(&w, &made).into_iter().enumerate() {
            let largest = if at / m / 16 % 3 == 0 { 20.0 } else { 1.0 };
            // Half a step of 1/7 of the largest, what clips, and multipliers of which the smallest are coarse.
            assert!(error.abs() < 0.3 * largest, "weight {at}: {error} of {}", w[at]);
        }
    }

    #[test]
    fn feedback_makes_outputs_nearer() {
        let mut random = SplitMix64(7);
        let (k, m) = (96, 40);
        let mix = numbers(&mut random, 12 * k);
        let mut moments = InputMoments::new(k);
        let rows: Vec<f32> = (0..400)
            .flat_map(|_| {
                let (hidden, own) = (numbers(&mut random, 12), numbers(&mut random, k));
                let sum = |j: usize| hidden.iter().enumerate().map(|(i, h)| h * mix[i * k + j]).sum::<f32>();
                (0..k).map(|j| sum(j) + 0.2 * own[j]).collect::<Vec<f32>>()
            })
            .collect();
        moments.add(&rows);
        let channels: Vec<usize> = (0..k).collect();
        let feedback =
            Feedback::new(&moments, &channels, &vec![1.0; k], &vec![0.0; k], SideBySide::default()).expect("moments");
        let w = numbers(&mut random, k * m);
        let wrong = |made: &GroupedWeight| {
            let errors = errors(&w, made);
            let output =
                |x: &[f32], o: usize| x.iter().enumerate().map(|(c, x)| f64::from(*x) * errors[c * m + o]).sum::<f64>();
            rows.chunks_exact(k).flat_map(|x| (0..m).map(move |o| output(x, o).powi(2))).sum::<f64>()
        };
        let (own, usual) = (wrong(&rounded(&w, k, 32, Some(&feedback))), wrong(&rounded(&w, k, 32, None)));
        assert!(own < 0.6 * usual, "{own} is not much less than {usual}");
    }

    #[test]
    fn zeros_stay_zeros_and_one_output_is_rounded_alone() {
        let mut random = SplitMix64(9);
        let (k, m) = (33, 200);
        let mut w = numbers(&mut random, k * m);
        w.iter_mut().skip(5).step_by(m).for_each(|w| *w = 0.0);
        let all = rounded(&w, k, 8, None).tensor.to_integers().expect("integers");
        assert!((0..k).all(|c| all[c * m + 5] == 0));
        for o in [0, 127, 128, 199] {
            let column: Vec<f32> = (0..k).map(|c| w[c * m + o]).collect();
            let alone = rounded(&column, k, 8, None).tensor.to_integers().expect("integers");
            assert!((0..k).all(|c| alone[c] == all[c * m + o]), "output {o}");
        }
    }

    #[test]
    fn shares_add_up_and_fit() {
        let (k, m, most) = (200, 3, 65_535);
        let w = numbers(&mut SplitMix64(11), k * m);
        let made = rounded(&w, k, 32, None).tensor;
        assert!(largest_sum(&made, most as u64) > SUM_MAX);
        let (bytes, sizes) = made.as_groups().expect("groups");
        let parts = shares(bytes, sizes, most);
        assert!(parts.len() > 1 && parts.iter().all(|part| largest_sum(part, most as u64) <= SUM_MAX));
        let all: Vec<Vec<i32>> = parts.iter().filter_map(Tensor::to_integers).collect();
        let sum: Vec<i32> = (0..k * m).map(|at| all.iter().map(|part| part[at]).sum()).collect();
        assert_eq!(Some(sum), made.to_integers());
    }
}
