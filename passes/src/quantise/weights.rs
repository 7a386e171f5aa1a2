//! The one place where a projection's weight is made from its factors: the network's own weight, the scales of the levels that
//! it reads, units of what attention hands on. What else is to be folded into a weight belongs here.

use super::compensate::Feedback;
use super::groups::{self, GroupedWeight, in_groups};
use crate::fit::QuantParams;
use crate::shared_channels::SharedChannels;
use snnc_ir::bounds::SUM_MAX;
use snnc_ir::op::{Heads, Layout};
use snnc_ir::{Tensor, eval};
use std::sync::Arc;

/// What a tensor of the new graph stands for: `unit * x + shift`, channel by channel.
#[derive(Clone)]
pub(super) struct Units {
    pub unit: Vec<f32>,
    pub shift: Vec<f32>,
}

impl Units {
    /// Of values as attention hands them on: a head of them for every head of queries.
    pub fn for_queries(self, heads: Heads) -> Self {
        let shared = SharedChannels { heads, width: self.unit.len() / heads.kv as usize };
        let all = |of: &[f32]| (0..of.len() * heads.group()).map(|q| of[shared.key(q)]).collect();
        Self { unit: all(&self.unit), shift: all(&self.shift) }
    }
}

/// A weight as a sum of weights, each with the rows of as many inputs as a 32-bit sum of levels up to `most` bears.
pub(super) fn shares(weight: &Tensor, most: i32) -> Vec<Tensor> {
    if let Some((bytes, sizes)) = weight.as_groups() {
        return groups::shares(bytes, sizes, most);
    }
    let (Some(all), [_, outputs]) = (weight.as_i8(), weight.sizes()) else { return Vec::new() };
    let mut shares = vec![vec![0; all.len()]];
    let mut sums = vec![0u64; *outputs];
    for (row, at) in all.chunks_exact(*outputs).zip((0..).step_by(*outputs)) {
        let more = |(sum, w): (&u64, &i8)| *sum + u64::from(w.unsigned_abs()) * most as u64;
        let full = sums.iter().zip(row).any(|pair| more(pair) > SUM_MAX);
        if full {
            sums.fill(0);
            shares.push(vec![0; all.len()]);
        }
        sums = sums.iter().zip(row).map(more).collect();
        if let Some(share) = shares.last_mut() {
            share[at..at + row.len()].copy_from_slice(row);
        }
    }
    shares.into_iter().map(|share| Tensor::i8(weight.sizes(), share)).collect()
}

/// A weight, input-major: without some of its outputs, and these with an output of zeros behind them.
pub(super) fn split_outputs(w: &[f32], layout: Layout, inputs: usize, outputs: usize, some: &[usize]) -> [Vec<f32>; 2] {
    let mut common = rows_of(w, inputs, layout, &(0..inputs).collect::<Vec<usize>>());
    let mut few = Vec::with_capacity(inputs * (some.len() + 1));
    for row in common.chunks_exact_mut(outputs) {
        few.extend(some.iter().map(|&o| std::mem::take(&mut row[o])));
        few.push(0.0);
    }
    [common, few]
}

/// What the bits lack of a weight with its input's scales.
pub(super) fn lacking(w: &[f32], scale: &[f32], folded: &Folded) -> Vec<f32> {
    let m = folded.scale.len();
    let integers = folded.weight.to_integers().unwrap_or_default();
    let one = |(i, (&w, &int)): (usize, (&f32, &i32))| w * scale[i / m] - int as f32 * folded.scale[i % m];
    w.iter().zip(&integers).enumerate().map(one).collect()
}

/// Some rows of a weight, input-major.
pub(super) fn rows_of(w: &[f32], inputs: usize, layout: Layout, channels: &[usize]) -> Vec<f32> {
    let m = w.len() / inputs.max(1);
    match layout {
        Layout::InputMajor => channels.iter().flat_map(|&c| &w[c * m..(c + 1) * m]).copied().collect(),
        Layout::OutputMajor => {
            let mut rows = vec![0.0; channels.len() * m];
            for (o, column) in w.chunks_exact(inputs.max(1)).enumerate() {
                channels.iter().enumerate().for_each(|(i, &c)| rows[i * m + o] = column[c]);
            }
            rows
        }
    }
}

/// A weight that reads `x` in other units.
pub(super) fn scaled(w: &[f32], sizes: &[usize], layout: Layout, units: &Units) -> Arc<Tensor> {
    let inputs = units.unit.len();
    let row = |i: usize| match layout {
        Layout::InputMajor => i / (w.len() / inputs),
        Layout::OutputMajor => i % inputs,
    };
    Arc::new(Tensor::f32(sizes, w.iter().enumerate().map(|(i, w)| w * units.unit[row(i)]).collect()))
}

/// The bias with what a shift of `x` comes to.
pub(super) fn shifted(w: &[f32], bias: &[f32], layout: Layout, units: &Units) -> Arc<Tensor> {
    let (k, m) = (units.shift.len(), bias.len());
    let at = |c: usize, o: usize| match layout {
        Layout::InputMajor => w[c * m + o],
        Layout::OutputMajor => w[o * k + c],
    };
    let one = |(o, &b): (usize, &f32)| {
        let shift: f64 = (0..k).map(|c| f64::from(at(c, o)) * f64::from(units.shift[c])).sum();
        (f64::from(b) + shift) as f32
    };
    Arc::new(Tensor::f32(&[m], bias.iter().enumerate().map(one).collect()))
}

/// How a weight is rounded.
#[derive(Clone, Copy)]
pub(super) struct WeightRounding<'a> {
    /// What errors of weights come to at later inputs. Without it all are rounded to nearest.
    pub feedback: Option<&'a Feedback>,
    /// Inputs that share a multiplier, for weights of 4 bits.
    pub group: Option<u16>,
}

/// A projection with its input's scales in its rows, in int8 or in groups of 4 bits.
pub(super) struct Folded {
    /// `[in, out]`
    pub weight: Tensor,
    /// What 1 of the integer sum stands for, by output.
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Magnitudes of int8 weights: symmetric, so that a sign change never overflows.
const WEIGHT_LEVELS: f32 = 127.0;

/// `W diag scale`, and the bias with what the zero points come to.
pub(super) fn fold_scale(
    w: &[f32],
    bias: &[f32],
    layout: Layout,
    fit: &QuantParams,
    rounding: WeightRounding<'_>,
) -> Folded {
    let zero_point: Vec<f32> =
        fit.zero_point.iter().zip(&fit.bias_correction).map(|(m, bias_correction)| m + bias_correction).collect();
    match layout {
        Layout::InputMajor => fold_input_major(w, bias, &fit.scale, &zero_point, rounding),
        Layout::OutputMajor => fold_output_major(w, bias, &fit.scale, &zero_point, rounding),
    }
}

pub(super) fn fold_input_major(
    w: &[f32],
    bias: &[f32],
    scale: &[f32],
    zero_point: &[f32],
    WeightRounding { feedback, group }: WeightRounding<'_>,
) -> Folded {
    let (k, m) = (scale.len(), bias.len());
    let mut most = vec![0f32; m];
    let mut shift = vec![0f64; m];
    for ((row, &s), &zero_point) in w.chunks_exact(m).zip(scale).zip(zero_point) {
        most.iter_mut().zip(row).for_each(|(most, &w)| *most = most.max((w * s).abs()));
        if zero_point != 0.0 {
            shift.iter_mut().zip(row).for_each(|(shift, &w)| *shift += f64::from(w) * f64::from(zero_point));
        }
    }
    let bias = bias.iter().zip(&shift).map(|(&b, &shift)| (f64::from(b) + shift) as f32).collect();
    if let Some(group) = group {
        let GroupedWeight { tensor: weight, unit: scale } = in_groups(|c, o| w[c * m + o], scale, m, group, feedback);
        return Folded { weight, scale, bias };
    }
    let inverse: Vec<f32> = most.iter().map(|&most| if most > 0.0 { WEIGHT_LEVELS / most } else { 0.0 }).collect();
    let weight = match feedback {
        Some(feedback) => compensated(feedback, |c, o| w[c * m + o], scale, &inverse),
        None => {
            let one = |(row, &s): (&[f32], &f32)| {
                let level = move |(&w, &inverse): (&f32, &f32)| eval::level(w * s * inverse, 127) as i8;
                row.iter().zip(&inverse).map(level).collect::<Vec<i8>>()
            };
            w.chunks_exact(m).zip(scale).flat_map(one).collect()
        }
    };
    let scale = most.iter().map(|&most| most / WEIGHT_LEVELS).collect();
    Folded { weight: Tensor::i8(&[k, m], weight), scale, bias }
}

/// Rows read at a time when an output-major weight is turned.
const TURN: usize = 64;

fn fold_output_major(
    w: &[f32],
    bias: &[f32],
    scale: &[f32],
    zero_point: &[f32],
    WeightRounding { feedback, group }: WeightRounding<'_>,
) -> Folded {
    let (k, m) = (scale.len(), bias.len());
    let dot = |sum: f64, (&w, &m): (&f32, &f32)| sum + f64::from(w) * f64::from(m);
    let moved = |(row, &b): (&[f32], &f32)| (f64::from(b) + row.iter().zip(zero_point).fold(0.0, dot)) as f32;
    let bias = w.chunks_exact(k).zip(bias).map(moved).collect();
    if let Some(group) = group {
        let GroupedWeight { tensor: weight, unit: scale } = in_groups(|c, o| w[o * k + c], scale, m, group, feedback);
        return Folded { weight, scale, bias };
    }
    let (mut inverses, mut units, mut weight) = (Vec::with_capacity(m), Vec::with_capacity(m), vec![0i8; w.len()]);
    for (block, rows) in w.chunks(TURN * k).enumerate() {
        let inverse: Vec<f32> = rows
            .chunks_exact(k)
            .map(|row| {
                let most = row.iter().zip(scale).fold(0f32, |most, (&w, &s)| most.max((w * s).abs()));
                units.push(most / WEIGHT_LEVELS);
                if most > 0.0 { WEIGHT_LEVELS / most } else { 0.0 }
            })
            .collect();
        for (c, &s) in scale.iter().enumerate().filter(|_| feedback.is_none()) {
            let out = &mut weight[c * m + block * TURN..][..inverse.len()];
            for (r, (out, &inverse)) in out.iter_mut().zip(&inverse).enumerate() {
                *out = eval::level(rows[r * k + c] * s * inverse, 127) as i8;
            }
        }
        inverses.extend(inverse);
    }
    if let Some(feedback) = feedback {
        weight = compensated(feedback, |c, o| w[o * k + c], scale, &inverses);
    }
    Folded { weight: Tensor::i8(&[k, m], weight), scale: units, bias }
}

/// The weight at input `c` and output `o` in levels of the output, `[in, out]`, each rounded with what the errors before it come to.
fn compensated(feedback: &Feedback, w: impl Fn(usize, usize) -> f32 + Sync, scale: &[f32], inverse: &[f32]) -> Vec<i8> {
    let m = inverse.len();
    let mut weight = vec![0; scale.len() * m];
    let fill = |first: usize, panel: &mut [f32], width: usize| {
        for ((c, row), s) in panel.chunks_exact_mut(width).enumerate().zip(scale) {
            let outputs = (first..).zip(&inverse[first..]);
            row.iter_mut().zip(outputs).for_each(|(x, (o, inverse))| *x = w(c, o) * s * inverse);
        }
    };
    feedback.round(m, 127, fill, |c, first, levels| {
        weight[c * m + first..][..levels.len()].copy_from_slice(levels);
    });
    weight
}
