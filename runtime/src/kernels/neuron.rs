//! Neurons: potentials to levels, and levels to the spikes that spell them.
//!
//! A potential's level is the nearest integer, ties away from zero, at most `levels` either way. A binary code spells it by
//! the bits of its magnitude, the most significant first; a unary code by as many spikes as it is large.

use super::activation::{ActivationTable, BLOCK, Samples};
use super::check::check_rows;
use super::level::{Potential, StoredLevel};
use super::vectors::interface::Vectors;
use snnc_ir::types::Code;

/// A layer's constants. `d` is the length of `gain`.
#[derive(Clone, Copy, Debug)]
pub struct NeuronParams<'a> {
    /// The largest level; at most 127 where levels are stored in 8 bits.
    pub levels: i32,
    /// What the input goes through first.
    pub activation: Option<ActivationTable<'a>>,
    /// By channel: `potential = x * gain + offset`.
    pub gain: &'a [f32],
    pub offset: &'a [f32],
    /// The code whose spikes are counted.
    pub count: Option<Code>,
}

/// What a layer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpikeCount {
    /// Spikes that spell its levels.
    pub spikes: u64,
    /// Neurons whose level is not 0.
    pub active: u64,
    /// Neurons at their largest level.
    pub saturated: u64,
}

impl std::ops::AddAssign for SpikeCount {
    fn add_assign(&mut self, more: Self) {
        self.spikes += more.spikes;
        self.active += more.active;
        self.saturated += more.saturated;
    }
}

#[inline(always)]
pub(super) fn quantise<X: Potential, L: StoredLevel>(
    vectors: impl Vectors,
    x: &[X],
    neuron: &NeuronParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let d = neuron.gain.len();
    check_rows(x.len(), d, y.len());
    assert_eq!(neuron.offset.len(), d, "an offset for each channel");
    assert!((0..=L::MOST).contains(&neuron.levels), "levels to {} in 8 or 16 bits", neuron.levels);
    let mut fired = SpikeCount::default();
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
        match neuron.activation {
            None => straight(x, neuron, y),
            Some(activation) => through_table(vectors, x, activation, neuron, y),
        }
        // While the row is near.
        if let Some(code) = neuron.count {
            tally(y, code, neuron.levels, &mut fired);
        }
    }
    fired
}

/// The same of shares of a row's peak: `potential = x / peak * gain + offset`, each operation rounded, without a curve.
#[inline(always)]
pub(super) fn quantise_shares<L: StoredLevel>(
    x: &[f32],
    peaks: &[f32],
    neuron: &NeuronParams<'_>,
    y: &mut [L],
) -> SpikeCount {
    let d = neuron.gain.len();
    check_rows(x.len(), d, y.len());
    assert!(peaks.len() == x.len() / d && neuron.offset.len() == d, "a peak for each row, an offset for each channel");
    assert!(neuron.activation.is_none(), "shares go through no curve");
    assert!((0..=L::MOST).contains(&neuron.levels), "levels to {} in 8 or 16 bits", neuron.levels);
    let mut fired = SpikeCount::default();
    for ((x, y), &peak) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(peaks) {
        levels_of_shares(x, peak, neuron, y);
        // While the row is near.
        if let Some(code) = neuron.count {
            tally(y, code, neuron.levels, &mut fired);
        }
    }
    fired
}

/// Shares whose levels are found side by side.
const SHARES: usize = 64;
/// The largest level of which products are near enough to quotients.
const MOST_BY_PRODUCT: i32 = 1023;

/// Levels of a row's shares. Division is slow, so a row is multiplied by one reciprocal, and divided only where a potential is so
/// near the middle between two levels that the roundings of the product could choose the other level.
#[inline(always)]
fn levels_of_shares<L: StoredLevel>(x: &[f32], peak: f32, neuron: &NeuronParams<'_>, y: &mut [L]) {
    let limit = neuron.levels as f32 + 0.5;
    let inverse = 1.0 / peak;
    let by_product = inverse.is_normal() && neuron.levels <= MOST_BY_PRODUCT;
    let constants = neuron.gain.chunks(SHARES).zip(neuron.offset.chunks(SHARES));
    for ((x, y), (gain, offset)) in x.chunks(SHARES).zip(y.chunks_mut(SHARES)).zip(constants) {
        if !(by_product && levels_of_products(x, inverse, [gain, offset], limit, y)) {
            let channels = y.iter_mut().zip(x).zip(gain).zip(offset);
            channels.for_each(|(((y, &x), &gain), &offset)| *y = L::from_i32(level(x / peak * gain + offset, limit)));
        }
    }
}

/// Levels of `x * inverse * gain + offset`; whether they are those of `x / peak * gain + offset`.
///
/// A reciprocal and a product round twice where a quotient rounds once, and three or two roundings follow in both: the potentials
/// differ by at most ten halves of a last bit of their terms. So nothing is in doubt outside 16 halves of a last bit around the middle.
#[inline(always)]
fn levels_of_products<L: StoredLevel>(
    x: &[f32],
    inverse: f32,
    [gain, offset]: [&[f32]; 2],
    limit: f32,
    y: &mut [L],
) -> bool {
    const DOUBT: f32 = 1.0 / (1 << 20) as f32;
    let mut doubtful = 0;
    for (((y, &x), &gain), &offset) in y.iter_mut().zip(x).zip(gain).zip(offset) {
        let product = x * inverse * gain;
        let potential = product + offset;
        let a = potential.abs() + 0.5;
        let v = if a < limit { a } else { limit };
        // SAFETY: as of `level`. Test: `levels_of_shares_are_those_of_quotients`.
        let magnitude = unsafe { v.to_int_unchecked::<i32>() };
        let beyond = v - magnitude as f32;
        let doubt = (product.abs() + offset.abs() + 1.0) * DOUBT;
        doubtful |= u32::from(!(beyond > doubt && beyond < 1.0 - doubt));
        *y = L::from_i32(if potential < 0.0 { -magnitude } else { magnitude });
    }
    doubtful == 0
}

/// Levels counted at once, and blocks of so many whose counts fit 8 bits: 15 bits a magnitude.
const LANES: usize = 64;
const BLOCKS: usize = 16;

/// Adds what a row of levels says.
#[inline(always)]
pub(super) fn tally<L: StoredLevel>(row: &[L], code: Code, most: i32, fired: &mut SpikeCount) {
    let (none, most) = (L::from_i32(0), L::from_i32(most));
    let (blocks, rest) = row.as_chunks::<LANES>();
    let mut bits = 0;
    for some in blocks.chunks(BLOCKS) {
        let (mut ones, mut silent, mut saturated) = ([0u8; LANES], [0u8; LANES], [0u8; LANES]);
        for block in some {
            for (i, &level) in block.iter().enumerate() {
                ones[i] += level.bits();
                silent[i] += u8::from(level.is_as_large(none));
                saturated[i] += u8::from(level.is_as_large(most));
            }
        }
        let sum = |lanes: [u8; LANES]| u64::from(lanes.iter().map(|&n| u16::from(n)).sum::<u16>());
        bits += sum(ones);
        fired.active += (some.len() * LANES) as u64 - sum(silent);
        fired.saturated += sum(saturated);
    }
    for &level in rest {
        bits += u64::from(level.bits());
        fired.active += u64::from(!level.is_as_large(none));
        fired.saturated += u64::from(level.is_as_large(most));
    }
    fired.spikes += match code {
        Code::Binary => bits,
        Code::Unary => count(row, code),
    };
}

#[inline(always)]
fn straight<X: Potential, L: StoredLevel>(x: &[X], neuron: &NeuronParams<'_>, y: &mut [L]) {
    let limit = neuron.levels as f32 + 0.5;
    let channels = y.iter_mut().zip(x).zip(neuron.gain).zip(neuron.offset);
    channels.for_each(|(((y, &x), &gain), &offset)| *y = L::from_i32(level(x.to_f32() * gain + offset, limit)));
}

#[inline(always)]
fn through_table<X: Potential, L: StoredLevel>(
    vectors: impl Vectors,
    x: &[X],
    activation: ActivationTable<'_>,
    neuron: &NeuronParams<'_>,
    y: &mut [L],
) {
    let d = x.len();
    assert!(
        activation.gain.len() == d && activation.offset.len() == d,
        "a gain and an offset before the curve for each channel"
    );
    let Some(table) = activation.table.first_chunk() else { panic!("a table of a curve") };
    let limit = neuron.levels as f32 + 0.5;
    let constants = [activation.gain, activation.offset, neuron.gain, neuron.offset];
    let whole = d / BLOCK * BLOCK;
    for from in (0..whole).step_by(BLOCK) {
        let mut h = [0.0; BLOCK];
        h.iter_mut().zip(&x[from..from + BLOCK]).for_each(|(h, x)| *h = x.to_f32());
        let levels = table_block(vectors, table, h, constants.map(|c| block(c, from)), limit);
        y[from..from + BLOCK].iter_mut().zip(levels).for_each(|(y, level)| *y = L::from_i32(level));
    }
    if whole < d {
        let mut h = [0.0; BLOCK];
        h.iter_mut().zip(&x[whole..]).for_each(|(h, x)| *h = x.to_f32());
        let levels = table_block(vectors, table, h, constants.map(|c| block(c, whole)), limit);
        y[whole..].iter_mut().zip(levels).for_each(|(y, level)| *y = L::from_i32(level));
    }
}

/// Constants from a channel on; 0 beyond the last.
#[inline(always)]
fn block(constants: &[f32], from: usize) -> [f32; BLOCK] {
    let rest = &constants[from..];
    rest.first_chunk().copied().unwrap_or_else(|| {
        let mut some = [0.0; BLOCK];
        some[..rest.len()].copy_from_slice(rest);
        some
    })
}

#[inline(always)]
fn table_block(
    vectors: impl Vectors,
    table: &Samples,
    mut h: [f32; BLOCK],
    [gain, offset, then_gain, then_offset]: [[f32; BLOCK]; 4],
    limit: f32,
) -> [i32; BLOCK] {
    let mut levels = [0; BLOCK];
    for i in 0..BLOCK {
        h[i] = h[i] * gain[i] + offset[i];
    }
    vectors.activate(table, &mut h);
    for i in 0..BLOCK {
        levels[i] = level(h[i] * then_gain[i] + then_offset[i], limit);
    }
    levels
}

/// The nearest level of a potential; `limit` is the largest level and a half.
#[inline(always)]
pub(super) fn level(potential: f32, limit: f32) -> i32 {
    let a = potential.abs() + 0.5;
    let v = if a < limit { a } else { limit };
    // SAFETY: from 0.5 to 32767.5: `a` is no less, and where it is NaN the comparison chose the limit, which `quantise` has
    // checked. Test: `extreme_potentials`.
    let magnitude = unsafe { v.to_int_unchecked::<i32>() };
    if potential < 0.0 { -magnitude } else { magnitude }
}

#[inline(always)]
pub(super) fn count<L: StoredLevel>(levels: &[L], code: Code) -> u64 {
    // Blocks whose counts fit 32 bits: 65536 magnitudes of 16 bits.
    let blocks = levels.chunks(1 << 16);
    match code {
        Code::Unary => blocks.map(|b| u64::from(b.iter().map(|l| l.to_i32().unsigned_abs()).sum::<u32>())).sum(),
        Code::Binary => match L::narrow(levels) {
            Some(levels) => ones_of_bytes(levels),
            None => levels.chunks(8).map(|b| u64::from(ones(b))).sum(),
        },
    }
}

/// Bits of the magnitudes of levels of 8 bits.
#[inline(always)]
fn ones_of_bytes(levels: &[i8]) -> u64 {
    // Blocks whose counts fit 8 bits, so that vectors count as many at a time as they hold.
    let (blocks, rest) = levels.as_chunks::<32>();
    let ones = |block: &[i8]| u64::from(block.iter().map(|l| l.unsigned_abs().count_ones() as u8).sum::<u8>());
    blocks.iter().map(|block| ones(block)).sum::<u64>() + ones(rest)
}

/// Bits of up to eight magnitudes, side by side in one word as far as they go.
#[inline(always)]
fn ones<L: StoredLevel>(levels: &[L]) -> u32 {
    let mut words = [0u16; 8];
    words.iter_mut().zip(levels).for_each(|(word, level)| *word = level.to_i16().unsigned_abs());
    let [a, b, c, d, e, f, g, h] = words.map(u64::from);
    (a | b << 16 | c << 32 | d << 48).count_ones() + (e | f << 16 | g << 32 | h << 48).count_ones()
}

/// The spike of a level at timestep `t`.
#[inline(always)]
pub(super) fn spell_one<L: StoredLevel>(level: L, code: Code, t: u16, steps: u16) -> i8 {
    let level = level.to_i16();
    let magnitude = level.unsigned_abs();
    let fires = match code {
        Code::Binary => (magnitude >> (steps - 1 - t)) & 1 == 1,
        Code::Unary => t < magnitude,
    };
    let sign = if level < 0 { -1 } else { 1 };
    if fires { sign } else { 0 }
}
