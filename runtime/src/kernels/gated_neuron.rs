//! Neurons with a multiplicative input: the curve of a gate times another potential, to the nearest level; and levels as spikes.
//!
//! Law: `potential = curve(gate * pre_gain + pre_offset) * (up * gain + offset)`, each operation rounded, the curve as
//! `Curve::at_f32` has it. Levels are those of `neuron`.

use super::activation::with_curve;
use super::check::check_rows;
use super::level::StoredLevel;
use super::neuron::{SpikeCount, level, spell_one, tally};
use snnc_ir::Curve;
use snnc_ir::types::Code;
use std::ops::Range;

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

/// Numbers that flow into neurons: sums of synapses, or reals.
#[derive(Clone, Copy, Debug)]
pub enum InputRows<'a> {
    I32(&'a [i32]),
    F32(&'a [f32]),
}

impl<'a> InputRows<'a> {
    pub fn len(self) -> usize {
        match self {
            InputRows::I32(x) => x.len(),
            InputRows::F32(x) => x.len(),
        }
    }

    /// All of them as reals.
    pub fn reals(self) -> Vec<f32> {
        match self {
            InputRows::I32(x) => x.iter().map(|&x| x as f32).collect(),
            InputRows::F32(x) => x.to_vec(),
        }
    }

    /// Some of them.
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            InputRows::I32(x) => InputRows::I32(&x[range]),
            InputRows::F32(x) => InputRows::F32(&x[range]),
        }
    }

    /// So many of them from one on, as reals.
    #[inline(always)]
    fn read(self, from: usize, block: &mut [f32]) {
        match self {
            InputRows::I32(x) => block.iter_mut().zip(&x[from..]).for_each(|(y, &x)| *y = x as f32),
            InputRows::F32(x) => block.iter_mut().zip(&x[from..]).for_each(|(y, &x)| *y = x),
        }
    }
}

/// Neurons that are computed side by side: several vectors, so that none waits for the steps of another.
const BLOCK: usize = 64;

/// Rows of gates and of what they multiply to rows of levels.
#[inline(always)]
pub(super) fn quantise<L: StoredLevel>(
    gate: InputRows<'_>,
    up: InputRows<'_>,
    neuron: &GatedParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let d = neuron.gain.len();
    check_rows(gate.len(), d, y.len());
    assert_eq!(gate.len(), up.len(), "a factor for each gate");
    let lengths = [neuron.pre_gain.len(), neuron.pre_offset.len(), neuron.offset.len()];
    assert_eq!(lengths, [d; 3], "constants for each channel");
    assert!((0..=L::MOST).contains(&neuron.levels), "levels to {} in 8 or 16 bits", neuron.levels);
    let mut fired = SpikeCount::default();
    for (i, y) in y.chunks_exact_mut(d).enumerate() {
        for (from, y) in (0..).step_by(BLOCK).zip(y.chunks_mut(BLOCK)) {
            let (mut g, mut u) = ([0.0; BLOCK], [0.0; BLOCK]);
            // Of a known length, so that vectors do it.
            if y.len() == BLOCK {
                gate.read(i * d + from, &mut g);
                up.read(i * d + from, &mut u);
                levels_of(&mut g, &u, neuron, from, y);
            } else {
                let (g, u) = (&mut g[..y.len()], &mut u[..y.len()]);
                gate.read(i * d + from, g);
                up.read(i * d + from, u);
                levels_of(g, u, neuron, from, y);
            }
        }
        // While the row is near.
        if let Some(code) = neuron.count {
            tally(y, code, neuron.levels, &mut fired);
        }
    }
    fired
}

/// Levels of some neurons from channel `from` on.
#[inline(always)]
fn levels_of<L: StoredLevel>(gate: &mut [f32], up: &[f32], neuron: &GatedParams<'_>, from: usize, y: &mut [L]) {
    let n = y.len();
    let (pre_gain, pre_offset) = (&neuron.pre_gain[from..from + n], &neuron.pre_offset[from..from + n]);
    let (gain, offset) = (&neuron.gain[from..from + n], &neuron.offset[from..from + n]);
    let limit = neuron.levels as f32 + 0.5;
    gate.iter_mut().zip(pre_gain).zip(pre_offset).for_each(|((g, gain), offset)| *g = *g * gain + offset);
    with_curve!(neuron.curve, f, gate.iter_mut().for_each(|g| *g = f(*g)));
    let potentials = gate.iter().zip(up).zip(gain).zip(offset).map(|(((g, u), gain), offset)| g * (u * gain + offset));
    y.iter_mut().zip(potentials).for_each(|(y, potential)| *y = L::from_i32(level(potential, limit)));
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
