//! 512-bit vectors with `vpdpbusd`: four products of bytes and their sum into each 32-bit lane in one instruction.
//!
//! It takes one operand without sign, so weights are `w + 128` to it, and 128 times the sum of the inputs is taken away
//! again: by `origin` where many tokens meet the same weights, by a lane of its own where one token meets them.

use super::super::activation::{BLOCK, DENSITY, LAST, REACH, SAMPLES, Samples};
use super::super::event_list::{EventRows, HALVES, Prefetch, ROOM, RowPlace};
use super::super::float_lanes::FloatLanes;
use super::super::level::StoredLevel;
use super::super::pairs::{ChannelPair, PAIR, PhaseTable};
use super::super::panel::{GROUP, Group, OUTPUTS, Panels, padded};
use super::avx2::{Avx2, PREFETCH_KEYS, prefetch, prefetch_places, prefetch_rows, rows_at};
use super::interface::{PanelSums, Vectors, check_group, fours, interleave_few};
use super::portable::Portable;
use super::tiles;
use snnc_ir::nibbles::{self, GROUP_STEP};
use std::arch::x86_64::*;

/// A value of this type exists only in functions compiled for AVX-512 with VNNI (`kernels!`), into which the methods are
/// inlined: that is what makes the intrinsics in them safe to call.
#[derive(Clone, Copy)]
pub struct Avx512(());

impl Avx512 {
    /// The proof that the instructions are there.
    ///
    /// # Safety
    /// AVX-512 with VNNI is there: the caller is compiled for it.
    #[inline(always)]
    pub unsafe fn vectors() -> Self {
        Self(())
    }
}

/// Vectors of a panel's sums.
const VECTORS: usize = OUTPUTS / 16;

/// How far ahead rows are prefetched, in bytes.
const PREFETCH_BYTES: usize = 4096;

impl Vectors for Avx512 {
    #[inline(always)]
    fn gemv(self, x: &[i8], panel: &[i8]) -> PanelSums {
        let (x, panel, last) = fours(x, panel);
        let mut sums = [0; OUTPUTS];
        // SAFETY: AVX-512 by the type's invariant; four rows for each four inputs by `fours`. Test: `products_are_exact`.
        unsafe {
            let mut lanes = Accumulators::zero();
            let (x, panel) = (x.as_chunks::<GROUP>().0, panel.as_chunks::<{ GROUP * OUTPUTS }>().0);
            for (x, rows) in x.iter().zip(panel) {
                let from = rows.as_ptr();
                (0..GROUP).for_each(|i| prefetch(from.wrapping_add(PREFETCH_BYTES + i * OUTPUTS)));
                lanes.add_four(rows_of(from), bytes(x));
            }
            if let Some((x, group)) = &last {
                let from = group.0.as_ptr();
                lanes.add_four(rows_of(from), bytes(x));
            }
            lanes.finish(&mut sums);
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
        let from = rows.as_ptr();
        // SAFETY: AVX-512 by the type's invariant; every place is of one of the rows by `check`. Test: `rows_are_exact`.
        unsafe {
            let (mut lanes, mut inputs) = ([[_mm512_setzero_si512(); VECTORS]; 2], 0i32);
            for (list, prefetched) in lists {
                list.check(rows.len() / OUTPUTS);
                if carry != 1 {
                    for lanes in lanes.as_flattened_mut() {
                        *lanes = _mm512_mullo_epi32(*lanes, _mm512_set1_epi32(carry));
                    }
                }
                inputs = inputs.wrapping_mul(carry).wrapping_add(list.total());
                match prefetched {
                    Prefetch::Nothing => add_rows(list, from, &mut lanes, |_| ()),
                    Prefetch::Listed => {
                        add_rows(list, from, &mut lanes, |i| prefetch_places(list.later(i), from));
                    }
                    Prefetch::Rows(soon) => {
                        let mut soon = list.shares(soon, OUTPUTS);
                        add_rows(list, from, &mut lanes, |_| prefetch_rows(soon.next().unwrap_or_default()));
                    }
                    Prefetch::Next(places, rows) => {
                        let mut soon = list.shares(places, 1);
                        add_rows(list, from, &mut lanes, |_| {
                            prefetch_places(soon.next().unwrap_or_default(), rows.as_ptr());
                        });
                    }
                }
            }
            let inputs = _mm512_set1_epi32(inputs.wrapping_mul(128));
            let [mut all, more] = lanes;
            for (all, more) in all.iter_mut().zip(more) {
                *all = _mm512_add_epi32(*all, more);
            }
            let sums = sums.as_mut_ptr().cast::<__m512i>();
            for (i, lanes) in in_order(all).into_iter().enumerate() {
                _mm512_storeu_si512(sums.add(i), _mm512_sub_epi32(lanes, inputs));
            }
        }
    }

    #[inline(always)]
    fn weighs_spikes(self) -> bool {
        true
    }

    #[inline(always)]
    fn list<P: RowPlace>(self, x: &[i8], shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
        if !std::arch::is_x86_feature_detected!("avx512vbmi2") {
            return avx2().list(x, shift, places, values);
        }
        assert!(x.len() + ROOM <= places.len().min(values.len()), "a place for each number, and a vector behind");
        // SAFETY: AVX-512 by the type's invariant, and its compression of bytes as just seen; there is room by the assertion.
        unsafe { compressed(x, shift, places, values) }
    }

    /// Groups are `w + 128`, in the order of outputs.
    #[inline(always)]
    fn interleave(self, rows: &[i8], block: &mut [Group]) {
        assert_eq!(rows.len().div_ceil(GROUP * OUTPUTS), block.len(), "four rows for each group");
        let (whole, rest) = rows.as_chunks::<{ GROUP * OUTPUTS }>();
        for (rows, group) in whole.iter().zip(block.iter_mut()) {
            // SAFETY: AVX-512 by the type's invariant; four rows of 64 in, 256 numbers out. Test: `products_are_exact`.
            unsafe {
                let from = rows.as_ptr();
                (0..GROUP).for_each(|i| prefetch(from.wrapping_add(PREFETCH_BYTES + i * OUTPUTS)));
                let quads = quads(rows_of(from), u64::MAX);
                let to = group.0.as_mut_ptr().cast::<__m512i>();
                for (i, w) in in_order(quads).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(i), w);
                }
            }
        }
        if let Some(last) = block.get_mut(whole.len()) {
            interleave_few(rest, last);
            last.0.iter_mut().for_each(|w| *w ^= i8::MIN);
        }
    }

    #[inline(always)]
    fn multiply(self, x: &[i8], w: Panels<'_>, y: &mut [i32]) -> bool {
        if y.len() / w.outputs() < tiles::TOKENS || !tiles::available() {
            return false;
        }
        let k = w.inputs().next_multiple_of(tiles::INPUTS);
        // SAFETY: `available` has just said so. Test: `products_of_many_tokens`.
        unsafe {
            if k == w.inputs() {
                tiles::product(x, k, w, y);
            } else {
                tiles::product(&padded(x, w.inputs(), k), k, w, y);
            }
        }
        true
    }

    #[inline(always)]
    fn group_sums<const T: usize>(self, x: [&[i8]; T], levels: &[u8], sums: &mut [PanelSums; T]) {
        let blocks = check_group(x, levels);
        let x = x.map(<[i8]>::as_ptr);
        // One token has sums of its own for the upper half of bytes, so that they do not wait for each other.
        let upper = usize::from(T == 1);
        // SAFETY: AVX-512 by the type's invariant. By `check_group` a block is four vectors, and eight inputs from `8 * b` on are within
        // each `x`; the sums are four vectors. Test: `products_of_groups_are_exact`.
        unsafe {
            let mask = _mm512_set1_epi8(0xf);
            let mut lanes = [[[_mm512_setzero_si512(); VECTORS]; 2]; T];
            for b in 0..blocks {
                let bytes = four(levels.as_ptr().add(b * nibbles::BLOCK).cast());
                let low = bytes.map(|bytes| _mm512_and_si512(bytes, mask));
                let high = bytes.map(|bytes| _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask));
                for (lanes, x) in lanes.iter_mut().zip(x) {
                    let input =
                        |i: usize| _mm512_set1_epi32(x.add(b * GROUP_STEP + i * GROUP).cast::<i32>().read_unaligned());
                    let (first, second) = (input(0), input(1));
                    for v in 0..VECTORS {
                        lanes[0][v] = _mm512_dpbusd_epi32(lanes[0][v], low[v], first);
                        lanes[upper][v] = _mm512_dpbusd_epi32(lanes[upper][v], high[v], second);
                    }
                }
            }
            for ([lanes, more], sums) in lanes.into_iter().zip(sums) {
                let to = sums.as_mut_ptr().cast::<__m512i>();
                for v in 0..VECTORS {
                    _mm512_storeu_si512(to.add(v), _mm512_add_epi32(lanes[v], more[v]));
                }
            }
        }
    }

    #[inline(always)]
    fn add_grouped(self, x: &[i8], weight: i32, w: Panels<'_>, y: &mut [i32]) -> bool {
        if y.len() / w.outputs() < tiles::TOKENS || !tiles::available() {
            return false;
        }
        let k = w.inputs().next_multiple_of(tiles::INPUTS);
        // SAFETY: `available` has just said so. Test: `products_of_groups_are_exact`.
        unsafe {
            if k == w.inputs() {
                tiles::add_grouped(x, k, weight, w, y)
            } else {
                tiles::add_grouped(&padded(x, w.inputs(), k), k, weight, w, y)
            }
        }
    }

    #[inline(always)]
    fn multiplies_matrices(self) -> bool {
        tiles::available()
    }

    #[inline(always)]
    fn tile_pairs<const T: usize>(self, x: [&[i16]; T], block: &[ChannelPair], sums: &mut [PanelSums; T]) {
        assert!(x.iter().all(|x| x.len() == block.len() * PAIR), "two inputs for each pair");
        let x = x.map(<[i16]>::as_ptr);
        // SAFETY: AVX-512 by the type's invariant. A pair is four vectors; two inputs from `2 * g` on are within `x` by the
        // assertion; the sums are four vectors. Test: `dots_and_weighted_sums_are_exact`.
        unsafe {
            let mut lanes = [[_mm512_setzero_si512(); VECTORS]; T];
            for (lanes, sums) in lanes.iter_mut().zip(sums.iter()) {
                *lanes = four(sums.as_ptr().cast());
            }
            for (g, pair) in block.iter().enumerate() {
                let w = four(pair.0.as_ptr().cast());
                for (lanes, x) in lanes.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x.add(g * PAIR).cast::<i32>().read_unaligned());
                    for (lanes, w) in lanes.iter_mut().zip(w) {
                        *lanes = _mm512_dpwssd_epi32(*lanes, w, x);
                    }
                }
            }
            for (lanes, sums) in lanes.into_iter().zip(sums) {
                let sums = sums.as_mut_ptr().cast::<__m512i>();
                for (i, lanes) in lanes.into_iter().enumerate() {
                    _mm512_storeu_si512(sums.add(i), lanes);
                }
            }
        }
    }

    #[inline(always)]
    fn tile<const T: usize>(self, x: [&[i8]; T], block: &[Group], sums: &mut [PanelSums; T]) {
        assert!(x.iter().all(|x| x.len() == block.len() * GROUP), "four inputs for each group");
        let x = x.map(<[i8]>::as_ptr);
        // SAFETY: AVX-512 by the type's invariant. A group is four vectors; four inputs from `4 * g` on are within `x` by the
        // assertion; the sums are four vectors. Test: `products_are_exact`.
        unsafe {
            let mut lanes = [[_mm512_setzero_si512(); VECTORS]; T];
            for (lanes, sums) in lanes.iter_mut().zip(sums.iter()) {
                *lanes = four(sums.as_ptr().cast());
            }
            for (g, group) in block.iter().enumerate() {
                let w = four(group.0.as_ptr().cast());
                for (lanes, x) in lanes.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x.add(g * GROUP).cast::<i32>().read_unaligned());
                    for (lanes, w) in lanes.iter_mut().zip(w) {
                        *lanes = _mm512_dpbusd_epi32(*lanes, w, x);
                    }
                }
            }
            for (lanes, sums) in lanes.into_iter().zip(sums) {
                let sums = sums.as_mut_ptr().cast::<__m512i>();
                for (i, lanes) in lanes.into_iter().enumerate() {
                    _mm512_storeu_si512(sums.add(i), lanes);
                }
            }
        }
    }

    #[inline(always)]
    fn origin(self, x: &[i8]) -> i32 {
        -128 * x.iter().map(|&x| i32::from(x)).sum::<i32>()
    }

    #[inline(always)]
    fn transpose(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8] {
        avx2().transpose(rows, c)
    }

    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        prefetch(line);
    }

    #[inline(always)]
    fn halves(self, x: &[i16; HALVES], low: &mut [i8; HALVES], high: &mut [i8; HALVES]) -> u32 {
        // SAFETY: AVX-512 by the type's invariant; 32 levels in, 32 bytes out twice. Test: `products_are_exact`.
        unsafe {
            let x = _mm512_loadu_si512(x.as_ptr().cast());
            let rest = _mm512_srai_epi16::<8>(_mm512_adds_epi16(x, _mm512_set1_epi16(128)));
            _mm256_storeu_si256(low.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(x));
            _mm256_storeu_si256(high.as_mut_ptr().cast(), _mm512_cvtepi16_epi8(rest));
            _mm512_test_epi16_mask(rest, rest)
        }
    }

    #[inline(always)]
    fn add(self, sum: &mut FloatLanes, x: &FloatLanes) {
        // SAFETY: AVX-512 by the type's invariant; 16 numbers each. Test: `transforms_are_their_definition`.
        unsafe {
            let more = _mm512_add_ps(_mm512_loadu_ps(sum.as_ptr()), _mm512_loadu_ps(x.as_ptr()));
            _mm512_storeu_ps(sum.as_mut_ptr(), more);
        }
    }

    #[inline(always)]
    fn subtract(self, sum: &mut FloatLanes, x: &FloatLanes) {
        // SAFETY: as of `add`.
        unsafe {
            let less = _mm512_sub_ps(_mm512_loadu_ps(sum.as_ptr()), _mm512_loadu_ps(x.as_ptr()));
            _mm512_storeu_ps(sum.as_mut_ptr(), less);
        }
    }

    #[inline(always)]
    fn butterfly(self, a: &mut FloatLanes, b: &mut FloatLanes) {
        // SAFETY: as of `add`.
        unsafe {
            let (x, y) = (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr()));
            _mm512_storeu_ps(a.as_mut_ptr(), _mm512_add_ps(x, y));
            _mm512_storeu_ps(b.as_mut_ptr(), _mm512_sub_ps(x, y));
        }
    }

    #[inline(always)]
    fn butterflies(self, v: &mut FloatLanes) {
        // SAFETY: as of `add`.
        unsafe {
            // `p` has each number's partner; the second of a pair is the first less it.
            let x = _mm512_loadu_ps(v.as_ptr());
            let p = _mm512_permute_ps::<0b10_11_00_01>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, p), 0xaaaa, p, x);
            let p = _mm512_permute_ps::<0b01_00_11_10>(x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, p), 0xcccc, p, x);
            let p = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, p), 0xf0f0, p, x);
            let p = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            let x = _mm512_mask_sub_ps(_mm512_add_ps(x, p), 0xff00, p, x);
            _mm512_storeu_ps(v.as_mut_ptr(), x);
        }
    }

    #[inline(always)]
    fn activate(self, table: &Samples, h: &mut [f32; BLOCK]) {
        // SAFETY: AVX-512 by the type's invariant; sixteen numbers; indices are from 0 to `LAST` and a pair is read from each on,
        // within the table. Tests: `neurons_give_the_nearest_level`, `extreme_potentials`.
        unsafe {
            let (to, h) = (h.as_mut_ptr(), _mm512_loadu_ps(h.as_ptr()));
            let (reach, depth) = (_mm512_set1_ps(REACH), _mm512_set1_ps(-REACH));
            let s = _mm512_mul_ps(_mm512_add_ps(h, reach), _mm512_set1_ps(DENSITY));
            // Of a number and NaN these give the second, as the comparisons of `sample` do.
            let inside = _mm512_min_ps(_mm512_max_ps(s, _mm512_setzero_ps()), _mm512_set1_ps(LAST));
            let at = _mm512_cvttps_epi32(inside);
            let pairs = table.as_ptr().cast::<f64>();
            let low = _mm512_i32gather_pd::<4>(_mm512_castsi512_si256(at), pairs);
            let high = _mm512_i32gather_pd::<4>(_mm512_extracti64x4_epi64::<1>(at), pairs);
            let (low, high) = (_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            let evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
            let left = _mm512_permutex2var_ps(low, evens, high);
            let right = _mm512_permutex2var_ps(low, odds, high);
            let fraction = _mm512_sub_ps(s, _mm512_cvtepi32_ps(at));
            let within = _mm512_add_ps(left, _mm512_mul_ps(fraction, _mm512_sub_ps(right, left)));
            let is_below = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(h, depth);
            let is_above = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(h, reach);
            let y = _mm512_mask_mul_ps(within, is_below, h, _mm512_set1_ps(table[SAMPLES]));
            let y = _mm512_mask_mul_ps(y, is_above, h, _mm512_set1_ps(table[SAMPLES + 1]));
            _mm512_storeu_ps(to, y);
        }
    }

    #[inline(always)]
    fn look_up(self, table: &PhaseTable, late: usize, phases: &[i32], weights: &mut [i16]) {
        let (whole, rest) = phases.as_chunks::<32>();
        if late >= IN_REGISTERS {
            return Portable.look_up(table, late, phases, weights);
        }
        let (weights, last) = weights.split_at_mut(whole.len() * 32);
        // SAFETY: AVX-512 by the type's invariant; 32 phases in, 32 weights out; the table has four vectors and more.
        // Test: `dots_and_weighted_sums_are_exact`.
        unsafe {
            let [a, b, c, d] = four(table.as_ptr().cast());
            for (phases, weights) in whole.iter().zip(weights.as_chunks_mut::<32>().0) {
                let at = phases.as_ptr().cast::<__m512i>();
                let low = _mm512_cvtepi32_epi16(_mm512_loadu_si512(at));
                let high = _mm512_cvtepi32_epi16(_mm512_loadu_si512(at.add(1)));
                let at = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                // An index has six bits for two vectors; the seventh chooses the pair.
                let early = _mm512_permutex2var_epi16(a, at, b);
                let later = _mm512_permutex2var_epi16(c, at, d);
                let second = _mm512_cmpge_epi16_mask(at, _mm512_set1_epi16(64));
                let found = _mm512_mask_blend_epi16(second, early, later);
                _mm512_storeu_si512(weights.as_mut_ptr().cast(), found);
            }
        }
        Portable.look_up(table, late, rest, last);
    }

    #[inline(always)]
    fn dots<Q: StoredLevel, K: StoredLevel>(self, q: &[Q], keys: &[K], stride: usize, scores: &mut [i32]) {
        match (Q::narrow(q), K::narrow(keys)) {
            (Some(q), Some(keys)) => dots(q, keys, stride, scores),
            _ => avx2().dots(q, keys, stride, scores),
        }
    }

    #[inline(always)]
    fn weigh<L: StoredLevel>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
        match L::narrow(values) {
            Some(values) => weigh(weights, values, stride, sums),
            None => avx2().weigh(weights, values, stride, sums),
        }
    }
}

/// Half as wide vectors, which a machine with AVX-512 has as well.
#[inline(always)]
fn avx2() -> Avx2 {
    // SAFETY: called by methods of `Avx512` alone, whose type's invariant is more than AVX2. Test: `dense_products_are_chains`.
    unsafe { Avx2::vectors() }
}

/// Entries of a table of phases that four vectors hold.
const IN_REGISTERS: usize = 128;

/// Keys of which scores are summed side by side.
const KEYS: usize = 16;

/// `scores[j] = q . keys[j]` in bytes.
#[inline(always)]
fn dots(q: &[i8], keys: &[i8], stride: usize, scores: &mut [i32]) {
    let (d, n) = (q.len(), scores.len());
    assert!(n == 0 || (n - 1) * stride + d <= keys.len(), "every key within the keys");
    let inputs = 128 * q.iter().map(|&q| i32::from(q)).sum::<i32>();
    for key in 0..n.min(PREFETCH_KEYS) {
        prefetch(keys.as_ptr().wrapping_add(key * stride));
    }
    for (j, scores) in scores.chunks_mut(KEYS).enumerate() {
        let last = scores.len() - 1;
        // SAFETY: AVX-512 by the callers' invariant. Bytes from `c` on, of which the mask leaves those below `d`, lie within `q`
        // and, by the assertion, within each key; of the last keys there may be fewer, whose place the last one takes; sixteen
        // sums are of the kind. Test: `dots_and_weighted_sums_are_exact`.
        unsafe {
            let flip = _mm512_set1_epi8(i8::MIN);
            let mut sums = [_mm512_setzero_si512(); KEYS];
            for c in (0..d).step_by(64) {
                let mask = u64::MAX >> (64 - (d - c).min(64));
                let q = _mm512_maskz_loadu_epi8(mask, q.as_ptr().add(c));
                let mut at = keys.as_ptr().add(j * KEYS * stride + c);
                for (i, sum) in sums.iter_mut().enumerate() {
                    prefetch(at.wrapping_add(PREFETCH_KEYS * stride));
                    let key = _mm512_xor_si512(flip, _mm512_maskz_loadu_epi8(mask, at));
                    *sum = _mm512_dpbusd_epi32(*sum, key, q);
                    // One after the other: sixteen places would not fit the registers.
                    at = if i < last { at.add(stride) } else { at };
                }
            }
            let sums = _mm512_sub_epi32(fold(sums), _mm512_set1_epi32(inputs));
            _mm512_mask_storeu_epi32(scores.as_mut_ptr(), u16::MAX >> (KEYS - scores.len()), sums);
        }
    }
}

/// The sum of each vector's lanes, in the order of the vectors.
///
/// # Safety
/// AVX-512 is there.
#[inline(always)]
unsafe fn fold(x: [__m512i; 16]) -> __m512i {
    // SAFETY: the caller's.
    unsafe {
        let zero = _mm512_setzero_si512();
        // Two vectors' lanes by turns, then four's: quarter by quarter, lane `i` is a part of vector `i` of the four.
        let mut twos = [zero; 8];
        for (i, sum) in twos.iter_mut().enumerate() {
            let (a, b) = (x[2 * i], x[2 * i + 1]);
            *sum = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        }
        let mut fours = [zero; 4];
        for (i, sum) in fours.iter_mut().enumerate() {
            let (a, b) = (twos[2 * i], twos[2 * i + 1]);
            *sum = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        }
        // Quarter `i` of the four sums becomes a vector: the sum of these has four's sums in quarter after quarter.
        let [a, b, c, d] = in_order(fours);
        _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d))
    }
}

/// `sums += sum over (j, weight) of weight * values[j]` in bytes.
#[inline(always)]
fn weigh(weights: &[(u32, i16)], values: &[i8], stride: usize, sums: &mut [i32]) {
    let Some((last, _)) = weights.last() else { return };
    assert!(weights.is_sorted_by_key(|(j, _)| *j), "keys in their order");
    assert!(*last as usize * stride + sums.len() <= values.len(), "every value within the values");
    for (c, sums) in (0..).step_by(OUTPUTS).zip(sums.chunks_mut(OUTPUTS)) {
        let mask = u64::MAX >> (OUTPUTS - sums.len());
        let mut all = [[0; OUTPUTS]; 2];
        // SAFETY: AVX-512 by the callers' invariant. Bytes from `c` on, of which the mask leaves as many as there are sums, lie
        // within every value by the assertions. Test: `dots_and_weighted_sums_are_exact`.
        unsafe {
            let (mut low, mut high) = (Accumulators::zero(), Accumulators::zero());
            for (i, four) in weights.chunks(GROUP).enumerate() {
                for (j, _) in weights.get(i * GROUP + PREFETCH_KEYS..).unwrap_or_default().iter().take(GROUP) {
                    prefetch(values.as_ptr().wrapping_add(*j as usize * stride + c));
                }
                let (mut rows, mut bytes) = ([values.as_ptr().add(c); GROUP], [[0u8; GROUP]; 2]);
                for (i, &(j, weight)) in four.iter().enumerate() {
                    rows[i] = values.as_ptr().add(j as usize * stride + c);
                    let byte = weight as i8;
                    bytes[0][i] = byte as u8;
                    bytes[1][i] = ((weight - i16::from(byte)) >> 8) as u8;
                }
                let quads = quads(rows, mask);
                low.add(quads, i32::from_le_bytes(bytes[0]));
                high.add(quads, i32::from_le_bytes(bytes[1]));
            }
            low.finish(&mut all[0]);
            high.finish(&mut all[1]);
        }
        sums.iter_mut().zip(all[0]).zip(all[1]).for_each(|((sum, low), high)| *sum += low + 256 * high);
    }
}

/// Adds listed rows, times their values, to lanes that are in the order of `quads`, and 128 times the values; `ahead(i)` comes
/// before batch `i`. Where a batch is two fours, each has lanes of its own, so that none waits for the other.
///
/// # Safety
/// AVX-512 with VNNI is there, and so is a row at each place.
#[inline(always)]
unsafe fn add_rows<P: RowPlace>(
    list: EventRows<'_, P>,
    from: *const i8,
    [lanes, more]: &mut [[__m512i; VECTORS]; 2],
    mut ahead: impl FnMut(usize),
) {
    // SAFETY: the caller's.
    unsafe {
        for (i, (places, values)) in list.batches().enumerate() {
            ahead(i);
            if let (Some(four), Some(x)) = (places.first_chunk(), values.first_chunk()) {
                add_four(lanes, quads(rows_at(from, four), u64::MAX), bytes(x));
            }
            if P::BATCH == 2 * GROUP
                && let (Some(four), Some(x)) = (places.last_chunk(), values.last_chunk())
            {
                add_four(more, quads(rows_at(from, four), u64::MAX), bytes(x));
            }
        }
    }
}

/// Four rows, interleaved, times the four bytes of `x`.
///
/// # Safety
/// AVX-512 with VNNI is there.
#[inline(always)]
unsafe fn add_four(lanes: &mut [__m512i; VECTORS], quads: [__m512i; VECTORS], x: i32) {
    // SAFETY: the caller's.
    unsafe {
        let x = _mm512_set1_epi32(x);
        for (lanes, w) in lanes.iter_mut().zip(quads) {
            *lanes = _mm512_dpbusd_epi32(*lanes, w, x);
        }
    }
}

/// Four rows that lie side by side.
#[inline(always)]
fn rows_of(from: *const i8) -> [*const i8; GROUP] {
    [from, from.wrapping_add(OUTPUTS), from.wrapping_add(2 * OUTPUTS), from.wrapping_add(3 * OUTPUTS)]
}

#[inline(always)]
fn bytes(x: &[i8; GROUP]) -> i32 {
    let [a, b, c, d] = *x;
    i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
}

/// Sums of a panel in the order of `quads`, and 128 times the sum of the inputs in every lane.
struct Accumulators {
    sums: [__m512i; VECTORS],
    inputs: __m512i,
}

impl Accumulators {
    /// # Safety
    /// AVX-512 with VNNI is there.
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        let zero = unsafe { _mm512_setzero_si512() };
        Self { sums: [zero; VECTORS], inputs: zero }
    }

    /// Four rows times the four bytes of `x`.
    ///
    /// # Safety
    /// AVX-512 with VNNI is there, and so are four rows of a panel.
    #[inline(always)]
    unsafe fn add_four(&mut self, rows: [*const i8; GROUP], x: i32) {
        // SAFETY: the caller's.
        unsafe {
            self.add(quads(rows, u64::MAX), x);
        }
    }

    /// The same for rows that are interleaved already.
    ///
    /// # Safety
    /// AVX-512 with VNNI is there.
    #[inline(always)]
    unsafe fn add(&mut self, quads: [__m512i; VECTORS], x: i32) {
        // SAFETY: the caller's.
        unsafe {
            add_four(&mut self.sums, quads, x);
            self.inputs = _mm512_dpbusd_epi32(self.inputs, _mm512_set1_epi8(i8::MIN), _mm512_set1_epi32(x));
        }
    }

    /// Adds all to `sums`.
    ///
    /// # Safety
    /// AVX-512 is there.
    #[inline(always)]
    unsafe fn finish(self, sums: &mut PanelSums) {
        let sums = sums.as_mut_ptr().cast::<__m512i>();
        // SAFETY: the caller's; the sums are four vectors.
        unsafe {
            for (i, lanes) in in_order(self.sums).into_iter().enumerate() {
                let sum = _mm512_add_epi32(_mm512_loadu_si512(sums.add(i)), _mm512_sub_epi32(lanes, self.inputs));
                _mm512_storeu_si512(sums.add(i), sum);
            }
        }
    }
}

/// `Vectors::list`, 64 channels at a time: how many fire.
///
/// # Safety
/// AVX-512 with compression of bytes (VBMI2) is there, and places and values for all of `x` and `ROOM` more.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,popcnt")]
unsafe fn compressed<P: RowPlace>(x: &[i8], shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
    let mut fired = 0;
    // SAFETY: the caller's. Masks leave what is beyond `x` unread. Of 64 channels at most 64 places and values are written, from
    // at most as many events on as there were channels before. A place is 16 or 32 bits, for the trait has no other
    // implementation. Test: `lists_are_of_what_fires`.
    unsafe {
        let (count, kept) = (_mm_cvtsi32_si128(shift as i32), _mm512_set1_epi8((-1i8).wrapping_shl(shift)));
        let sixteen = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let pairs = _mm512_add_epi32(_mm512_slli_epi32::<1>(sixteen), _mm512_slli_epi32::<17>(sixteen));
        let thirty_two = _mm512_add_epi32(pairs, _mm512_set1_epi32(1 << 16));
        for (i, some) in x.chunks(ROOM).enumerate() {
            let there = u64::MAX >> (ROOM - some.len());
            let x = _mm512_maskz_loadu_epi8(there, some.as_ptr());
            let fires = _mm512_test_epi8_mask(x, x);
            let picked = _mm512_maskz_compress_epi8(fires, x);
            let picked = _mm512_and_si512(kept, _mm512_sll_epi16(picked, count));
            _mm512_storeu_si512(values.as_mut_ptr().add(fired).cast(), picked);
            let (to, first) = (places.as_mut_ptr(), (i * ROOM * P::STEP) as i32);
            let mut at = fired;
            if size_of::<P>() == 2 {
                let offsets = _mm512_slli_epi16::<{ OUTPUTS.ilog2() }>(thirty_two);
                for half in 0..2 {
                    let mask = (fires >> (32 * half)) as u32;
                    let from = _mm512_set1_epi16((first + half * 32 * P::STEP as i32) as i16);
                    let places = _mm512_maskz_compress_epi16(mask, _mm512_add_epi16(offsets, from));
                    _mm512_storeu_si512(to.add(at).cast(), places);
                    at += mask.count_ones() as usize;
                }
            } else {
                for quarter in 0..4 {
                    let mask = (fires >> (16 * quarter)) as u16;
                    let channels = _mm512_add_epi32(sixteen, _mm512_set1_epi32(first + 16 * quarter));
                    _mm512_storeu_si512(to.add(at).cast(), _mm512_maskz_compress_epi32(mask, channels));
                    at += mask.count_ones() as usize;
                }
            }
            fired += fires.count_ones() as usize;
        }
    }
    fired
}

/// Four rows as `w + 128`, an output's four numbers side by side: vector `i` has outputs `16 j + 4 i` and the next three in its
/// quarter `j`.
///
/// # Safety
/// AVX-512 is there, and so are the bytes of the mask of each row.
#[inline(always)]
unsafe fn quads(rows: [*const i8; GROUP], mask: u64) -> [__m512i; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        let flip = _mm512_set1_epi8(i8::MIN);
        let [a, b, c, d] = rows;
        let a = _mm512_xor_si512(flip, _mm512_maskz_loadu_epi8(mask, a));
        let b = _mm512_xor_si512(flip, _mm512_maskz_loadu_epi8(mask, b));
        let c = _mm512_xor_si512(flip, _mm512_maskz_loadu_epi8(mask, c));
        let d = _mm512_xor_si512(flip, _mm512_maskz_loadu_epi8(mask, d));
        let (ab, cd) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ]
    }
}

/// Four vectors that lie side by side. (Intrinsics are inlined into loops, but not into closures
/// that a library function calls.)
///
/// # Safety
/// AVX-512 is there, and so are the vectors.
#[inline(always)]
unsafe fn four(from: *const __m512i) -> [__m512i; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        [
            _mm512_loadu_si512(from),
            _mm512_loadu_si512(from.add(1)),
            _mm512_loadu_si512(from.add(2)),
            _mm512_loadu_si512(from.add(3)),
        ]
    }
}

/// Quarter `j` of vector `i` becomes quarter `i` of vector `j`.
///
/// # Safety
/// AVX-512 is there.
#[inline(always)]
unsafe fn in_order([a, b, c, d]: [__m512i; VECTORS]) -> [__m512i; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
        let (ab_high, cd_high) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
        [
            _mm512_shuffle_i32x4::<0x88>(ab, cd),
            _mm512_shuffle_i32x4::<0xdd>(ab, cd),
            _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
            _mm512_shuffle_i32x4::<0xdd>(ab_high, cd_high),
        ]
    }
}
