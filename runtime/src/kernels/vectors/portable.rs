//! Plain loops, which a compiler turns into whatever vectors it may assume.

use super::super::activation::{self, Samples, curve_at};
use super::super::event_list::{BLOCK, EventRows, HALVES, Prefetch, RowPlace, list_few};
use super::super::float_lanes::{FloatLanes, butterflies_apart};
use super::super::level::StoredLevel;
use super::super::pairs::{ChannelPair, PAIR, PhaseTable};
use super::super::panel::{GROUP, Group, OUTPUTS};
use super::interface::{PanelSums, Vectors, check_group};
use snnc_ir::nibbles::{self, GROUP_STEP};

/// No instructions beyond those that the compiler may assume.
#[derive(Clone, Copy)]
pub struct Portable;

impl Portable {
    #[inline(always)]
    pub fn vectors() -> Self {
        Self
    }
}

impl Vectors for Portable {
    #[inline(always)]
    fn gemv(self, x: &[i8], panel: &[i8]) -> PanelSums {
        let mut sums = [0; OUTPUTS];
        for (&x, row) in x.iter().zip(panel.chunks_exact(OUTPUTS)) {
            sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum += i32::from(i16::from(x) * i16::from(w)));
        }
        sums
    }

    #[inline(always)]
    fn train<'a, P: RowPlace>(
        self,
        lists: impl Iterator<Item = (EventRows<'a, P>, Prefetch<'a>)>,
        carry: i32,
        rows: &[i8],
        sums: &mut PanelSums,
    ) {
        sums.fill(0);
        for (list, _) in lists {
            list.check(rows.len() / OUTPUTS);
            if carry != 1 {
                sums.iter_mut().for_each(|sum| *sum = sum.wrapping_mul(carry));
            }
            for (&place, &x) in list.places().iter().zip(list.values()) {
                let row = &rows[place.offset()..][..OUTPUTS];
                let product = |w: i8| i32::from(i16::from(x) * i16::from(w));
                sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum = sum.wrapping_add(product(w)));
            }
        }
    }

    #[inline(always)]
    fn weighs_spikes(self) -> bool {
        true
    }

    #[inline(always)]
    fn list<P: RowPlace>(self, x: &[i8], shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
        let mut fired = 0;
        for (block, from) in x.chunks(BLOCK).zip((0..).step_by(BLOCK)) {
            if block.iter().any(|x| *x != 0) {
                fired += list_few(block, from, shift, &mut places[fired..], &mut values[fired..]);
            }
        }
        fired
    }

    #[inline(always)]
    /// Rows stay rows: plain vectors lie along them.
    fn interleave(self, rows: &[i8], block: &mut [Group]) {
        for (rows, group) in rows.chunks(GROUP * OUTPUTS).zip(block) {
            group.0.fill(0);
            group.0[..rows.len()].copy_from_slice(rows);
        }
    }

    #[inline(always)]
    fn tile<const T: usize>(self, x: [&[i8]; T], block: &[Group], sums: &mut [PanelSums; T]) {
        for (g, group) in block.iter().enumerate() {
            for (x, sums) in x.iter().zip(sums.iter_mut()) {
                for (&x, row) in x[g * GROUP..][..GROUP].iter().zip(group.0.chunks_exact(OUTPUTS)) {
                    sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum += i32::from(i16::from(x) * i16::from(w)));
                }
            }
        }
    }

    #[inline(always)]
    fn group_sums<const T: usize>(self, x: [&[i8]; T], levels: &[u8], sums: &mut [PanelSums; T]) {
        check_group(x, levels);
        for (x, sums) in x.iter().zip(sums) {
            sums.fill(0);
            for (x, bytes) in x.chunks_exact(GROUP_STEP).zip(levels.chunks_exact(nibbles::BLOCK)) {
                for (sum, four) in sums.iter_mut().zip(bytes.as_chunks::<GROUP>().0) {
                    for (i, byte) in four.iter().enumerate() {
                        let (low, high) = (i32::from(byte & 0xf), i32::from(byte >> 4));
                        *sum += low * i32::from(x[i]) + high * i32::from(x[i + GROUP]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile_pairs<const T: usize>(self, x: [&[i16]; T], block: &[ChannelPair], sums: &mut [PanelSums; T]) {
        for (x, sums) in x.iter().zip(sums.iter_mut()) {
            for (x, pair) in x.as_chunks::<PAIR>().0.iter().zip(block) {
                for (sum, w) in sums.iter_mut().zip(pair.0.as_chunks::<PAIR>().0) {
                    *sum += i32::from(x[0]) * i32::from(w[0]) + i32::from(x[1]) * i32::from(w[1]);
                }
            }
        }
    }

    #[inline(always)]
    fn origin(self, _: &[i8]) -> i32 {
        0
    }

    #[inline(always)]
    fn transpose(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8] {
        let mut block = [[0.0; 8]; 8];
        for (j, row) in rows.iter().enumerate() {
            for (column, &x) in block.iter_mut().zip(&row[c..c + 8]) {
                column[j] = x;
            }
        }
        block
    }

    #[inline(always)]
    fn halves(self, x: &[i16; HALVES], low: &mut [i8; HALVES], high: &mut [i8; HALVES]) -> u32 {
        let mut left = 0;
        for (i, &x) in x.iter().enumerate() {
            low[i] = x as i8;
            high[i] = (x.saturating_add(128) >> 8) as i8;
            left |= u32::from(high[i] != 0) << i;
        }
        left
    }

    #[inline(always)]
    fn add(self, sum: &mut FloatLanes, x: &FloatLanes) {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
    }

    #[inline(always)]
    fn subtract(self, sum: &mut FloatLanes, x: &FloatLanes) {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum -= x);
    }

    #[inline(always)]
    fn butterfly(self, a: &mut FloatLanes, b: &mut FloatLanes) {
        a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
    }

    #[inline(always)]
    fn butterflies(self, v: &mut FloatLanes) {
        for half in [1, 2, 4, 8] {
            butterflies_apart(v, half);
        }
    }

    #[inline(always)]
    fn activate(self, table: &Samples, h: &mut [f32; activation::BLOCK]) {
        h.iter_mut().for_each(|h| *h = curve_at(table, *h));
    }

    #[inline(always)]
    fn look_up(self, table: &PhaseTable, _: usize, phases: &[i32], weights: &mut [i16]) {
        weights.iter_mut().zip(phases).for_each(|(weight, &phase)| *weight = table[phase as usize % table.len()]);
    }

    #[inline(always)]
    fn dots<Q: StoredLevel, K: StoredLevel>(self, q: &[Q], keys: &[K], stride: usize, scores: &mut [i32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = dot(q, &keys[j * stride..]);
        }
    }

    #[inline(always)]
    fn weigh<L: StoredLevel>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
        for &(j, weight) in weights {
            let value = &values[j as usize * stride..];
            sums.iter_mut().zip(value).for_each(|(sum, &v)| *sum += i32::from(weight) * v.to_i32());
        }
    }
}

#[inline(always)]
pub(super) fn dot<Q: StoredLevel, K: StoredLevel>(q: &[Q], key: &[K]) -> i32 {
    q.iter().zip(key).map(|(&q, &k)| q.to_i32() * k.to_i32()).sum()
}
