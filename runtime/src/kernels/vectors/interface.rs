//! The inner loops of kernels, by instruction set: sums of products of 8- and 16-bit numbers in 32 bits.
//!
//! Law: every implementation gives the same integers. Compilers do not find dot products of bytes by themselves where it
//! matters, so these are in intrinsics. PanelSums wrap; callers know that the whole of none overflows.

use super::super::activation::{self, Samples};
use super::super::event_list::{EventRows, HALVES, Prefetch, RowPlace};
use super::super::float_lanes::FloatLanes;
use super::super::level::StoredLevel;
use super::super::pairs::{ChannelPair, PhaseTable};
use super::super::panel::{GROUP, Group, OUTPUTS, Panels};
use snnc_ir::nibbles::{BLOCK, GROUP_MAX, GROUP_STEP};

/// Sums of a panel's outputs.
pub type PanelSums = [i32; OUTPUTS];

pub trait Vectors: Copy {
    /// One token and all rows of a panel `[k][64]`: `x w`.
    fn gemv(self, x: &[i8], panel: &[i8]) -> PanelSums;

    /// Some rows `[k][64]` at each of `T` times: `sums = sum over t of carry^(T - 1 - t) * (sum of value * row)`, wrapping. The sums
    /// stay in registers from the first time to the last.
    fn train<'a, P: RowPlace>(
        self,
        lists: impl Iterator<Item = (EventRows<'a, P>, Prefetch<'a>)>,
        carry: i32,
        rows: &[i8],
        sums: &mut PanelSums,
    );

    /// Whether spikes that have the weight of their timestep are added as fast as spikes of 1 and -1.
    fn weighs_spikes(self) -> bool;

    /// Lists what is not 0 of `x`, times `2^shift`, in order; how many there are. There is room for all of `x` and `ROOM` more,
    /// and what it writes beyond the last one says nothing.
    fn list<P: RowPlace>(self, x: &[i8], shift: u32, places: &mut [P], values: &mut [i8]) -> usize;

    /// Rows of a panel to groups, in whatever form `tile` reads them; what is missing of the last group is zero.
    fn interleave(self, rows: &[i8], block: &mut [Group]);

    /// `T` tokens and interleaved rows: `sums += x w - origin(x)`. Each `x` has four inputs for each group.
    fn tile<const T: usize>(self, x: [&[i8]; T], block: &[Group], sums: &mut [PanelSums; T]);

    /// `y = x w` for many tokens, by a unit that multiplies matrices. False, and nothing is done, where there is none or where there
    /// are too few tokens for it.
    fn multiply(self, _x: &[i8], _w: Panels<'_>, _y: &mut [i32]) -> bool {
        false
    }

    /// A group of weights of 4 bits, as `snnc_ir::nibbles` has it, for `T` tokens: `sums = sum of (level + 8) * x`. Each `x` has eight
    /// inputs for each 256 bytes of levels, of which there are at most four times so many.
    fn group_sums<const T: usize>(self, x: [&[i8]; T], levels: &[u8], sums: &mut [PanelSums; T]);

    /// `y += weight * x w` for many tokens and weights of 4 bits, as `multiply` does it.
    fn add_grouped(self, _x: &[i8], _weight: i32, _w: Panels<'_>, _y: &mut [i32]) -> bool {
        false
    }

    /// Whether there is a unit that multiplies matrices: `multiply` then takes 16 tokens or more.
    fn multiplies_matrices(self) -> bool {
        false
    }

    /// The same as `tile` with 16-bit inputs and weights in pairs: `sums += x w`.
    fn tile_pairs<const T: usize>(self, x: [&[i16]; T], block: &[ChannelPair], sums: &mut [PanelSums; T]);

    /// Prefetches the line of memory at an address, which need not be valid.
    fn prefetch(self, _: *const i8) {}

    /// What a token's sums have to begin with where `tile` makes them.
    fn origin(self, x: &[i8]) -> i32;

    /// Eight numbers from `c` on of eight rows, column by column.
    fn transpose(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8];

    /// The low byte of each level, with a sign, and what is left: `x = 256 * high + low`. Which have something left, a bit each.
    fn halves(self, x: &[i16; HALVES], low: &mut [i8; HALVES], high: &mut [i8; HALVES]) -> u32;

    /// `sum += x`.
    fn add(self, sum: &mut FloatLanes, x: &FloatLanes);

    /// `sum -= x`.
    fn subtract(self, sum: &mut FloatLanes, x: &FloatLanes);

    /// `(a, b)` becomes `(a + b, a - b)`.
    fn butterfly(self, a: &mut FloatLanes, b: &mut FloatLanes);

    /// The same of numbers of one vector that lie 1 apart, then 2, 4 and 8.
    fn butterflies(self, v: &mut FloatLanes);

    /// The curve at 16 points, as `activation::curve_at` has it.
    fn activate(self, table: &Samples, h: &mut [f32; activation::BLOCK]);

    /// The weights of these phases, which are from 0 to `late`; from `late` on the table has zeros.
    fn look_up(self, table: &PhaseTable, late: usize, phases: &[i32], weights: &mut [i16]);

    /// `scores[j] = q . keys[j]`: key `j` is the first `q.len()` numbers from `j * stride` on.
    fn dots<Q: StoredLevel, K: StoredLevel>(self, q: &[Q], keys: &[K], stride: usize, scores: &mut [i32]);

    /// `sums += sum over (j, weight) of weight * values[j]`: value `j` is `sums.len()` numbers from `j * stride` on.
    fn weigh<L: StoredLevel>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]);
}

/// Checks that a group has levels for its inputs.
#[inline(always)]
pub(super) fn check_group<const T: usize>(x: [&[i8]; T], levels: &[u8]) -> usize {
    let blocks = levels.len() / BLOCK;
    assert!(blocks * BLOCK == levels.len() && blocks * GROUP_STEP <= GROUP_MAX, "{} bytes of levels", levels.len());
    assert!(x.iter().all(|x| x.len() == blocks * GROUP_STEP), "eight inputs for each block");
    blocks
}

/// Four inputs and their rows, `[4][64]`.
pub(super) type Four = ([i8; GROUP], Group);

/// The rows of a panel by fours, each with its inputs; what the last four lack is zero.
#[inline(always)]
pub(super) fn fours<'a>(x: &'a [i8], panel: &'a [i8]) -> (&'a [i8], &'a [i8], Option<Four>) {
    assert_eq!(x.len() * OUTPUTS, panel.len(), "a row for each input");
    let whole = x.len() / GROUP * GROUP;
    let (x, rest) = x.split_at(whole);
    let (panel, rows) = panel.split_at(whole * OUTPUTS);
    if rest.is_empty() {
        return (x, panel, None);
    }
    let (mut last, mut group) = ([0; GROUP], Group([0; GROUP * OUTPUTS]));
    last[..rest.len()].copy_from_slice(rest);
    group.0[..rows.len()].copy_from_slice(rows);
    (x, panel, Some((last, group)))
}

/// Up to four rows as a group, `[64][4]`.
pub(super) fn interleave_few(rows: &[i8], group: &mut Group) {
    group.0.fill(0);
    for (i, row) in rows.chunks_exact(OUTPUTS).enumerate() {
        group.0[i..].iter_mut().step_by(GROUP).zip(row).for_each(|(to, &w)| *to = w);
    }
}

/// Rows, or outputs, of a block of a product of bf16.
pub const BF16_SIDE: usize = 32;

/// Numbers of a line.
pub const BF16_NUMBERS: usize = 32;

/// A cache line of bf16.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Bf16Line(pub [u16; BF16_NUMBERS]);
