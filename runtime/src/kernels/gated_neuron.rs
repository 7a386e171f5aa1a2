//! Neurons with a multiplicative input: the curve of a gate times another potential, to the nearest level; and levels as spikes.
//!
//! Law: `potential = curve(gate * pre_gain + pre_offset) * (up * gain + offset)`, each operation rounded, the curve as
//! `Curve::at_f32` has it. Levels are those of `neuron`.

use super::activation::{BLOCK, with_curve};
use super::check::check_rows;
use super::level::{Potential, StoredLevel};
use super::neuron::{SpikeCount, block, level, spell_one, tally};
use snnc_ir::Curve;
use snnc_ir::types::Code;

/// A layer's constants, each of a number per channel. `d` is their length.
#[derive(Clone, Copy, Debug)]
pub struct GatedParams<'a> {
    /// The largest level; at most 127 where levels are stored in 8 bits.
    pub levels: i32,
    pub curve: Curve,
    /// What the curve is taken of: `gate * pre_gain + pre_offset`.
    pub pre_gain: &'a [f32],
    pub pre_offset: &'a [f32],
    /// What it is multiplied by: `up * gain + offset`.
    pub gain: &'a [f32],
    pub offset: &'a [f32],
    /// The code whose spikes are counted.
    pub count: Option<Code>,
}

/// Rows of gates and of what they multiply to rows of levels.
#[inline(always)]
pub(super) fn quantise<G: Potential, U: Potential, L: StoredLevel>(
    gate: &[G],
    up: &[U],
    neuron: &GatedParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let d = neuron.gain.len();
    check_rows(gate.len(), d, y.len());
    assert_eq!(gate.len(), up.len(), "a factor for each gate");
    let constants = [neuron.pre_gain, neuron.pre_offset, neuron.gain, neuron.offset];
    assert!(constants.iter().all(|constants| constants.len() == d), "constants for each channel");
    assert!((0..=L::MOST).contains(&neuron.levels), "levels to {} in 8 or 16 bits", neuron.levels);
    let limit = neuron.levels as f32 + 0.5;
    let mut fired = SpikeCount::default();
    for ((gate, up), y) in gate.chunks_exact(d).zip(up.chunks_exact(d)).zip(y.chunks_exact_mut(d)) {
        with_curve!(neuron.curve, f, row(gate, up, constants, limit, f, y));
        // While the row is near.
        if let Some(code) = neuron.count {
            tally(y, code, neuron.levels, &mut fired);
        }
    }
    fired
}

#[inline(always)]
fn row<G: Potential, U: Potential, L: StoredLevel>(
    gate: &[G],
    up: &[U],
    constants: [&[f32]; 4],
    limit: f32,
    curve: impl Fn(f32) -> f32,
    y: &mut [L],
) {
    for from in (0..y.len()).step_by(BLOCK) {
        let some = BLOCK.min(y.len() - from);
        let [pre_gain, pre_offset, gain, offset] = constants.map(|constants| block(constants, from));
        let (mut g, mut u, mut levels) = ([0.0; BLOCK], [0.0; BLOCK], [0; BLOCK]);
        if some == BLOCK {
            // Of a known length, so that vectors read it.
            g.iter_mut().zip(&gate[from..from + BLOCK]).for_each(|(g, x)| *g = x.to_f32());
            u.iter_mut().zip(&up[from..from + BLOCK]).for_each(|(u, x)| *u = x.to_f32());
        } else {
            g.iter_mut().zip(&gate[from..]).for_each(|(g, x)| *g = x.to_f32());
            u.iter_mut().zip(&up[from..]).for_each(|(u, x)| *u = x.to_f32());
        }
        for i in 0..BLOCK {
            g[i] = curve(g[i] * pre_gain[i] + pre_offset[i]);
        }
        for i in 0..BLOCK {
            levels[i] = level(g[i] * (u[i] * gain[i] + offset[i]), limit);
        }
        y[from..from + some].iter_mut().zip(levels).for_each(|(y, level)| *y = L::from_i32(level));
    }
}

/// Levels of rows of `d` as the spikes that spell them: for each row a plane per timestep, `stride` apart.
#[inline(always)]
pub(super) fn spell<L: StoredLevel>(levels: &[L], d: usize, code: Code, steps: u16, stride: usize, planes: &mut [i8]) {
    let train = usize::from(steps) * stride;
    assert!(d > 0 && stride >= d && levels.len().is_multiple_of(d), "planes of {d} spikes, {stride} apart");
    assert_eq!(levels.len() / d * train, planes.len(), "a plane per timestep for each row");
    for (levels, train) in levels.chunks_exact(d).zip(planes.chunks_exact_mut(train)) {
        for (t, plane) in (0..steps).zip(train.chunks_exact_mut(stride)) {
            let (spikes, beyond) = plane.split_at_mut(d);
            spikes.iter_mut().zip(levels).for_each(|(spike, &level)| *spike = spell_one(level, code, t, steps));
            beyond.fill(0);
        }
    }
}
