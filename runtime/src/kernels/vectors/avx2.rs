//! 256-bit vectors: `pmaddubsw` sums pairs of products of bytes in 16 bits, `pmaddwd` pairs of those in 32.

use super::super::activation::{self, DENSITY, LAST, REACH, SAMPLES, Samples};
use super::super::event_list::{BLOCK, EventRows, HALVES, Prefetch, RowPlace, list_few};
use super::super::float_lanes::FloatLanes;
use super::super::level::StoredLevel;
use super::super::pairs::{ChannelPair, PAIR, PhaseTable};
use super::super::panel::{GROUP, Group, OUTPUTS};
use super::interface::{PanelSums, Vectors, check_group, fours, interleave_few};
use super::portable::{Portable, dot};
use snnc_ir::nibbles::{self, GROUP_STEP};
use std::arch::x86_64::*;

/// 256-bit vectors. A value of this type exists only in functions compiled for AVX2 (`kernels!`), into which the methods
/// are inlined: that is what makes the intrinsics in them safe to call.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The proof that the instructions are there.
    ///
    /// # Safety
    /// AVX2 and `popcnt` are there: the caller is compiled for them.
    #[inline(always)]
    pub unsafe fn vectors() -> Self {
        Self(())
    }
}

/// Numbers of a 16-bit vector.
const LANES: usize = 16;
/// Floats of a vector.
const HALF: usize = 8;

impl Vectors for Avx2 {
    #[inline(always)]
    fn gemv(self, x: &[i8], panel: &[i8]) -> PanelSums {
        let (x, panel, last) = fours(x, panel);
        let mut sums = [0; OUTPUTS];
        // SAFETY: AVX2 by the type's invariant; four rows for each four inputs by `fours`. Test: `products_are_exact`.
        unsafe {
            let mut lanes = [_mm256_setzero_si256(); VECTORS];
            let (x, panel) = (x.as_chunks::<GROUP>().0, panel.as_chunks::<{ GROUP * OUTPUTS }>().0);
            for (x, rows) in x.iter().zip(panel) {
                let from = rows.as_ptr();
                (0..GROUP).for_each(|i| prefetch(from.wrapping_add(PREFETCH_BYTES + i * OUTPUTS)));
                add_four(
                    std::array::from_fn(|i| from.add(i * OUTPUTS)),
                    i32::from_le_bytes(x.map(|x| x as u8)),
                    &mut lanes,
                );
            }
            if let Some((x, group)) = &last {
                let from = group.0.as_ptr();
                add_four(
                    std::array::from_fn(|i| from.add(i * OUTPUTS)),
                    i32::from_le_bytes(x.map(|x| x as u8)),
                    &mut lanes,
                );
            }
            finish(lanes, &mut sums);
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
        // SAFETY: AVX2 by the type's invariant; every place is of one of the rows by `check`. Test: `rows_are_exact`.
        unsafe {
            let mut lanes = [_mm256_setzero_si256(); VECTORS];
            for (list, prefetched) in lists {
                list.check(rows.len() / OUTPUTS);
                if carry != 1 {
                    for lanes in &mut lanes {
                        *lanes = _mm256_mullo_epi32(*lanes, _mm256_set1_epi32(carry));
                    }
                }
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
            finish(lanes, sums);
        }
    }

    #[inline(always)]
    fn weighs_spikes(self) -> bool {
        false
    }

    #[inline(always)]
    fn list<P: RowPlace>(self, x: &[i8], shift: u32, places: &mut [P], values: &mut [i8]) -> usize {
        assert!(x.len().next_multiple_of(BLOCK) <= places.len().min(values.len()), "a place for each number");
        let (eights, rest) = x.as_chunks::<BLOCK>();
        let mut fired = 0;
        // SAFETY: AVX2 by the type's invariant. Eight numbers in; eight places and values out, from at most as many events on as
        // there were numbers before, which the assertion has room for. A place is 16 or 32 bits, for the trait has no other
        // implementation. Test: `lists_are_of_what_fires`.
        unsafe {
            let count = _mm_cvtsi32_si128(shift as i32);
            let kept = _mm_set1_epi8((-1i8).wrapping_shl(shift));
            for (i, eight) in eights.iter().enumerate() {
                let x = _mm_loadl_epi64(eight.as_ptr().cast());
                let silent = _mm_movemask_epi8(_mm_cmpeq_epi8(x, _mm_setzero_si128()));
                let mask = !silent as u8;
                let at = _mm_loadl_epi64(PICK[usize::from(mask)].as_ptr().cast());
                let picked = _mm_and_si128(kept, _mm_sll_epi16(_mm_shuffle_epi8(x, at), count));
                _mm_storel_epi64(values.as_mut_ptr().add(fired).cast(), picked);
                let (to, first) = (places.as_mut_ptr().add(fired), i * BLOCK * P::STEP);
                if size_of::<P>() == 2 {
                    let offsets = _mm_slli_epi16::<{ OUTPUTS.ilog2() as i32 }>(_mm_cvtepu8_epi16(at));
                    _mm_storeu_si128(to.cast(), _mm_add_epi16(offsets, _mm_set1_epi16(first as i16)));
                } else {
                    let channels = _mm256_cvtepu8_epi32(at);
                    _mm256_storeu_si256(to.cast(), _mm256_add_epi32(channels, _mm256_set1_epi32(first as i32)));
                }
                fired += mask.count_ones() as usize;
            }
        }
        fired + list_few(rest, eights.len() * BLOCK, shift, &mut places[fired..], &mut values[fired..])
    }

    #[inline(always)]
    fn interleave(self, rows: &[i8], block: &mut [Group]) {
        assert_eq!(rows.len().div_ceil(GROUP * OUTPUTS), block.len(), "four rows for each group");
        let (whole, rest) = rows.as_chunks::<{ GROUP * OUTPUTS }>();
        for (rows, group) in whole.iter().zip(block.iter_mut()) {
            // SAFETY: AVX2 by the type's invariant; four rows of 64 in, 256 numbers out. Test: `products_are_exact`.
            unsafe {
                for half in 0..2 {
                    let from = rows.as_ptr().add(32 * half);
                    let quads = quads(std::array::from_fn(|i| from.add(i * OUTPUTS)));
                    // Outputs 0 to 3 and 16 to 19, and so on, to outputs 0 to 7, and so on.
                    let to = group.0.as_mut_ptr().add(128 * half).cast::<__m256i>();
                    for (i, pair) in quads.as_chunks::<2>().0.iter().enumerate() {
                        _mm256_storeu_si256(to.add(i), _mm256_permute2x128_si256::<0x20>(pair[0], pair[1]));
                        _mm256_storeu_si256(to.add(i + 2), _mm256_permute2x128_si256::<0x31>(pair[0], pair[1]));
                    }
                }
            }
        }
        if let Some(last) = block.get_mut(whole.len()) {
            interleave_few(rest, last);
        }
    }

    /// A token at a time would load all weights for each; all outputs at a time would not fit the registers.
    #[inline(always)]
    fn tile<const T: usize>(self, x: [&[i8]; T], block: &[Group], sums: &mut [PanelSums; T]) {
        assert!(x.iter().all(|x| x.len() == block.len() * GROUP), "four inputs for each group");
        let x = x.map(<[i8]>::as_ptr);
        for eighths in 0..OUTPUTS / 16 {
            // SAFETY: AVX2 by the type's invariant. A group is eight vectors, of which the tile's are two; four inputs from `4 * g`
            // on are within `x` by the assertion; the sums are eight vectors. Test: `products_are_exact`.
            unsafe {
                let ones = _mm256_set1_epi16(1);
                let mut lanes = [[_mm256_setzero_si256(); 2]; T];
                for (g, group) in block.iter().enumerate() {
                    let w = group.0.as_ptr().cast::<__m256i>().add(2 * eighths);
                    let w = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                    for (lanes, x) in lanes.iter_mut().zip(x) {
                        let x = _mm256_set1_epi32(x.add(g * GROUP).cast::<i32>().read_unaligned());
                        let magnitude = _mm256_abs_epi8(x);
                        for (lanes, w) in lanes.iter_mut().zip(w) {
                            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x));
                            *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(pairs, ones));
                        }
                    }
                }
                for (lanes, sums) in lanes.into_iter().zip(sums.iter_mut()) {
                    let sums = sums.as_mut_ptr().cast::<__m256i>().add(2 * eighths);
                    for (i, lanes) in lanes.into_iter().enumerate() {
                        let sum = _mm256_add_epi32(_mm256_loadu_si256(sums.add(i)), lanes);
                        _mm256_storeu_si256(sums.add(i), sum);
                    }
                }
            }
        }
    }

    /// Sums stay in 16 bits: 32 products of a level plus 8, at most 15, with an input.
    #[inline(always)]
    fn group_sums<const T: usize>(self, x: [&[i8]; T], levels: &[u8], sums: &mut [PanelSums; T]) {
        let blocks = check_group(x, levels);
        let x = x.map(<[i8]>::as_ptr);
        for eighth in 0..OUTPUTS / HALF {
            // SAFETY: AVX2 by the type's invariant. By `check_group` a block is eight vectors, and eight inputs from `8 * b` on are
            // within each `x`; the sums are eight vectors. Test: `products_of_groups_are_exact`.
            unsafe {
                let (mask, ones) = (_mm256_set1_epi8(0xf), _mm256_set1_epi16(1));
                let mut lanes = [_mm256_setzero_si256(); T];
                for b in 0..blocks {
                    let bytes =
                        _mm256_loadu_si256(levels.as_ptr().add(b * nibbles::BLOCK).cast::<__m256i>().add(eighth));
                    let low = _mm256_and_si256(bytes, mask);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
                    for (lanes, x) in lanes.iter_mut().zip(x) {
                        let four = |i: usize| {
                            _mm256_set1_epi32(x.add(b * GROUP_STEP + i * GROUP).cast::<i32>().read_unaligned())
                        };
                        let both =
                            _mm256_add_epi16(_mm256_maddubs_epi16(low, four(0)), _mm256_maddubs_epi16(high, four(1)));
                        *lanes = _mm256_add_epi16(*lanes, both);
                    }
                }
                for (lanes, sums) in lanes.into_iter().zip(sums.iter_mut()) {
                    let to = sums.as_mut_ptr().cast::<__m256i>().add(eighth);
                    _mm256_storeu_si256(to, _mm256_madd_epi16(lanes, ones));
                }
            }
        }
    }

    #[inline(always)]
    fn tile_pairs<const T: usize>(self, x: [&[i16]; T], block: &[ChannelPair], sums: &mut [PanelSums; T]) {
        assert!(x.iter().all(|x| x.len() == block.len() * PAIR), "two inputs for each pair");
        let x = x.map(<[i16]>::as_ptr);
        for part in 0..OUTPUTS / 16 {
            // SAFETY: AVX2 by the type's invariant. A pair is eight vectors, of which two are of this part; two inputs from
            // `2 * g` on are within `x` by the assertion; the sums are eight vectors. Test: `dots_and_weighted_sums_are_exact`.
            unsafe {
                let mut lanes = [[_mm256_setzero_si256(); 2]; T];
                for (g, pair) in block.iter().enumerate() {
                    let w = pair.0.as_ptr().cast::<__m256i>().add(2 * part);
                    let w = [_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1))];
                    for (lanes, x) in lanes.iter_mut().zip(x) {
                        let x = _mm256_set1_epi32(x.add(g * PAIR).cast::<i32>().read_unaligned());
                        for (lanes, w) in lanes.iter_mut().zip(w) {
                            *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(w, x));
                        }
                    }
                }
                for (lanes, sums) in lanes.into_iter().zip(sums.iter_mut()) {
                    let sums = sums.as_mut_ptr().cast::<__m256i>().add(2 * part);
                    for (i, lanes) in lanes.into_iter().enumerate() {
                        let sum = _mm256_add_epi32(_mm256_loadu_si256(sums.add(i)), lanes);
                        _mm256_storeu_si256(sums.add(i), sum);
                    }
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
        assert!(rows.iter().all(|row| c + 8 <= row.len()), "eight numbers of each row");
        for half in 0..2 {
            // SAFETY: AVX2 by the type's invariant. Four of the eight numbers from `c` on of every row; four columns of
            // the block. Test: `dense_products_are_chains`.
            unsafe {
                // Row `i` beside row `i + 4`.
                let both = |i: usize| {
                    let load = |row: &[f32]| _mm_loadu_ps(row.as_ptr().add(c + 4 * half));
                    _mm256_set_m128(load(rows[i + 4]), load(rows[i]))
                };
                let [a, b, c, d] = [both(0), both(1), both(2), both(3)];
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let columns = [
                    _mm256_shuffle_ps::<0x44>(ab, cd),
                    _mm256_shuffle_ps::<0xee>(ab, cd),
                    _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
                    _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
                ];
                for (i, column) in columns.into_iter().enumerate() {
                    _mm256_storeu_ps(block[4 * half + i].as_mut_ptr(), column);
                }
            }
        }
        block
    }

    #[inline(always)]
    fn prefetch(self, line: *const i8) {
        prefetch(line);
    }

    #[inline(always)]
    fn halves(self, x: &[i16; HALVES], low: &mut [i8; HALVES], high: &mut [i8; HALVES]) -> u32 {
        // SAFETY: AVX2 by the type's invariant; 32 levels in, 32 bytes out twice. Test: `products_are_exact`.
        unsafe {
            let x = [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x.as_ptr().add(16).cast())];
            let half = _mm256_set1_epi16(128);
            let lows = [_mm256_slli_epi16::<8>(x[0]), _mm256_slli_epi16::<8>(x[1])];
            let rest = [_mm256_adds_epi16(x[0], half), _mm256_adds_epi16(x[1], half)];
            // Packing goes by halves of a vector: quarters 0, 2, 1, 3.
            let bytes = |a: __m256i, b: __m256i| {
                let packed = _mm256_packs_epi16(_mm256_srai_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
                _mm256_permute4x64_epi64::<0xd8>(packed)
            };
            let rest = bytes(rest[0], rest[1]);
            _mm256_storeu_si256(low.as_mut_ptr().cast(), bytes(lows[0], lows[1]));
            _mm256_storeu_si256(high.as_mut_ptr().cast(), rest);
            !(_mm256_movemask_epi8(_mm256_cmpeq_epi8(rest, _mm256_setzero_si256())) as u32)
        }
    }

    #[inline(always)]
    fn add(self, sum: &mut FloatLanes, x: &FloatLanes) {
        for half in [0, HALF] {
            // SAFETY: AVX2 by the type's invariant; 8 of 16 numbers each. Test: `transforms_are_their_definition`.
            unsafe {
                let more =
                    _mm256_add_ps(_mm256_loadu_ps(sum.as_ptr().add(half)), _mm256_loadu_ps(x.as_ptr().add(half)));
                _mm256_storeu_ps(sum.as_mut_ptr().add(half), more);
            }
        }
    }

    #[inline(always)]
    fn subtract(self, sum: &mut FloatLanes, x: &FloatLanes) {
        for half in [0, HALF] {
            // SAFETY: as of `add`.
            unsafe {
                let less =
                    _mm256_sub_ps(_mm256_loadu_ps(sum.as_ptr().add(half)), _mm256_loadu_ps(x.as_ptr().add(half)));
                _mm256_storeu_ps(sum.as_mut_ptr().add(half), less);
            }
        }
    }

    #[inline(always)]
    fn butterfly(self, a: &mut FloatLanes, b: &mut FloatLanes) {
        for half in [0, HALF] {
            // SAFETY: as of `add`.
            unsafe {
                let (x, y) = (_mm256_loadu_ps(a.as_ptr().add(half)), _mm256_loadu_ps(b.as_ptr().add(half)));
                _mm256_storeu_ps(a.as_mut_ptr().add(half), _mm256_add_ps(x, y));
                _mm256_storeu_ps(b.as_mut_ptr().add(half), _mm256_sub_ps(x, y));
            }
        }
    }

    #[inline(always)]
    fn butterflies(self, v: &mut FloatLanes) {
        /// -0 where a number is the second of its pair, which its partner less it becomes.
        const SECOND: [[f32; HALF]; 3] = [
            [0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 0.0, -0.0],
            [0.0, 0.0, -0.0, -0.0, 0.0, 0.0, -0.0, -0.0],
            [0.0, 0.0, 0.0, 0.0, -0.0, -0.0, -0.0, -0.0],
        ];
        // SAFETY: as of `add`.
        unsafe {
            let [one, two, four] = [
                _mm256_loadu_ps(SECOND[0].as_ptr()),
                _mm256_loadu_ps(SECOND[1].as_ptr()),
                _mm256_loadu_ps(SECOND[2].as_ptr()),
            ];
            let mut both = [_mm256_loadu_ps(v.as_ptr()), _mm256_loadu_ps(v.as_ptr().add(HALF))];
            for x in &mut both {
                *x = _mm256_add_ps(_mm256_permute_ps::<0b10_11_00_01>(*x), _mm256_xor_ps(*x, one));
                *x = _mm256_add_ps(_mm256_permute_ps::<0b01_00_11_10>(*x), _mm256_xor_ps(*x, two));
                *x = _mm256_add_ps(_mm256_permute2f128_ps::<1>(*x, *x), _mm256_xor_ps(*x, four));
            }
            _mm256_storeu_ps(v.as_mut_ptr(), _mm256_add_ps(both[0], both[1]));
            _mm256_storeu_ps(v.as_mut_ptr().add(HALF), _mm256_sub_ps(both[0], both[1]));
        }
    }

    #[inline(always)]
    fn activate(self, table: &Samples, h: &mut [f32; activation::BLOCK]) {
        for eight in h.as_chunks_mut::<8>().0 {
            // SAFETY: AVX2 by the type's invariant; eight numbers; indices are from 0 to `LAST` and a pair is read from each on,
            // within the table. Tests: `neurons_give_the_nearest_level`, `extreme_potentials`.
            unsafe {
                let set = |x: f32| _mm256_set1_ps(x);
                let h = _mm256_loadu_ps(eight.as_ptr());
                let s = _mm256_mul_ps(_mm256_add_ps(h, set(REACH)), set(DENSITY));
                // Of a number and NaN these give the second, as the comparisons of `sample` do.
                let at = _mm256_cvttps_epi32(_mm256_min_ps(_mm256_max_ps(s, set(0.0)), set(LAST)));
                let pairs = table.as_ptr().cast::<f64>();
                let low = _mm256_i32gather_pd::<4>(pairs, _mm256_castsi256_si128(at));
                let high = _mm256_i32gather_pd::<4>(pairs, _mm256_extracti128_si256::<1>(at));
                let (low, high) = (_mm256_castpd_ps(low), _mm256_castpd_ps(high));
                // Lefts, then rights, of pairs 0, 1, 4, 5 | 2, 3, 6, 7.
                let left = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(low, high));
                let right = _mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(low, high));
                let left = _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(left));
                let right = _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(right));
                let fraction = _mm256_sub_ps(s, _mm256_cvtepi32_ps(at));
                let within = _mm256_add_ps(left, _mm256_mul_ps(fraction, _mm256_sub_ps(right, left)));
                let below = _mm256_mul_ps(h, set(table[SAMPLES]));
                let above = _mm256_mul_ps(h, set(table[SAMPLES + 1]));
                let is_below = _mm256_cmp_ps::<_CMP_LE_OQ>(h, set(-REACH));
                let is_above = _mm256_cmp_ps::<_CMP_GE_OQ>(h, set(REACH));
                let y = _mm256_blendv_ps(_mm256_blendv_ps(within, below, is_below), above, is_above);
                _mm256_storeu_ps(eight.as_mut_ptr(), y);
            }
        }
    }

    #[inline(always)]
    fn look_up(self, table: &PhaseTable, late: usize, phases: &[i32], weights: &mut [i16]) {
        Portable.look_up(table, late, phases, weights);
    }

    #[inline(always)]
    fn dots<Q: StoredLevel, K: StoredLevel>(self, q: &[Q], keys: &[K], stride: usize, scores: &mut [i32]) {
        let (d, n) = (q.len(), scores.len());
        assert!(n == 0 || (n - 1) * stride + d <= keys.len(), "every key within the keys");
        let whole = d / LANES * LANES;
        let fours = n / 4 * 4;
        for j in (0..fours).step_by(4) {
            // SAFETY: AVX2 by the type's invariant. A vector of 16 numbers from `c` on lies within `q` and, by the
            // assertion, within each of the keys `j` to `j + 3`; four scores from `j` on are within `scores`.
            // Test: `dots_and_weighted_sums_are_exact`.
            unsafe {
                let mut sums = [_mm256_setzero_si256(); 4];
                for c in (0..whole).step_by(LANES) {
                    let q = load(q.as_ptr().add(c));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let key = load(keys.as_ptr().add((j + i) * stride + c));
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(q, key));
                        let later = keys.as_ptr().wrapping_add((j + i + PREFETCH_KEYS) * stride + c);
                        if c.is_multiple_of(64 / size_of::<K>()) {
                            prefetch(later.cast());
                        }
                    }
                }
                let [a, b, c, d] = sums;
                let both = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
                let four = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256::<1>(both));
                _mm_storeu_si128(scores.as_mut_ptr().add(j).cast(), four);
            }
        }
        for (j, score) in scores.iter_mut().enumerate() {
            let key = &keys[j * stride..][..d];
            if j >= fours {
                *score = dot(q, key);
            } else if whole < d {
                *score += dot(&q[whole..], &key[whole..]);
            }
        }
    }

    #[inline(always)]
    fn weigh<L: StoredLevel>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
        let mut at = 0;
        while at < sums.len() {
            at += match sums.len() - at {
                64.. => weigh_block::<L, 4>(weights, &values[at..], stride, &mut sums[at..]),
                32.. => weigh_block::<L, 2>(weights, &values[at..], stride, &mut sums[at..]),
                16.. => weigh_block::<L, 1>(weights, &values[at..], stride, &mut sums[at..]),
                _ => {
                    Portable.weigh(weights, &values[at..], stride, &mut sums[at..]);
                    return;
                }
            };
        }
    }
}

/// Vectors of a panel's sums.
const VECTORS: usize = OUTPUTS / 8;

/// How far ahead rows are prefetched, in bytes: the next panel follows this one, and prefetching beyond all of them is harmless.
const PREFETCH_BYTES: usize = 2048;

/// The rows at these places. Places are loaded several at a time: loads are what there are few of.
#[inline(always)]
pub(super) fn rows_at<P: RowPlace>(from: *const i8, places: &[P; GROUP]) -> [*const i8; GROUP] {
    let row = |offset: u64| from.wrapping_add(offset as usize);
    match *bytemuck::bytes_of(places).as_chunks().0 {
        [word] => {
            let word = u64::from_le_bytes(word);
            [row(word & 0xffff), row(word >> 16 & 0xffff), row(word >> 32 & 0xffff), row(word >> 48)]
        }
        [a, b] => {
            let row = |channel: u64| row(channel * OUTPUTS as u64);
            let (a, b) = (u64::from_le_bytes(a), u64::from_le_bytes(b));
            [row(a & 0xffff_ffff), row(a >> 32), row(b & 0xffff_ffff), row(b >> 32)]
        }
        _ => std::array::from_fn(|i| row(places[i].offset() as u64)),
    }
}

/// Prefetches the rows at some places.
#[inline(always)]
pub(super) fn prefetch_places<P: RowPlace>(places: &[P], from: *const i8) {
    for place in places {
        prefetch(from.wrapping_add(place.offset()));
    }
}

/// Prefetches some rows.
#[inline(always)]
pub(super) fn prefetch_rows(rows: &[i8]) {
    for row in rows.chunks(OUTPUTS) {
        prefetch(row.as_ptr());
    }
}

/// For each mask, which of eight numbers it has, in order.
static PICK: [[u8; BLOCK]; 256] = {
    let mut pick = [[0; BLOCK]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut i, mut picked) = (0, 0);
        while i < BLOCK {
            if mask >> i & 1 == 1 {
                pick[mask][picked] = i as u8;
                picked += 1;
            }
            i += 1;
        }
        mask += 1;
    }
    pick
};

/// Keys that are prefetched before they are read.
pub(super) const PREFETCH_KEYS: usize = 64;

/// Prefetches a row that is read soon. The processor's own prefetching stops at every page.
#[inline(always)]
pub(super) fn prefetch(row: *const i8) {
    // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(row) };
}

/// Half of four rows, an output's four numbers side by side: outputs 0 to 3 and 16 to 19, 4 to 7 and 20 to 23, and so on.
///
/// # Safety
/// AVX2 is there, and so are 32 numbers of each row.
#[inline(always)]
unsafe fn quads(rows: [*const i8; GROUP]) -> [__m256i; 4] {
    // SAFETY: the caller's.
    unsafe {
        let [a, b, c, d] = rows;
        let (a, b) = (_mm256_loadu_si256(a.cast()), _mm256_loadu_si256(b.cast()));
        let (c, d) = (_mm256_loadu_si256(c.cast()), _mm256_loadu_si256(d.cast()));
        let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
        [
            _mm256_unpacklo_epi16(ab, cd),
            _mm256_unpackhi_epi16(ab, cd),
            _mm256_unpacklo_epi16(ab_high, cd_high),
            _mm256_unpackhi_epi16(ab_high, cd_high),
        ]
    }
}

/// Four rows times the four bytes of `x`, added to lanes that are in the order of `quads`.
///
/// `|x| * (w with the sign of x)`: `pmaddubsw` takes one operand without sign. Two products of at most 128 * 127 do not
/// saturate 16 bits.
///
/// # Safety
/// AVX2 is there, and so are four rows of a panel.
#[inline(always)]
unsafe fn add_four(rows: [*const i8; GROUP], x: i32, lanes: &mut [__m256i; VECTORS]) {
    // SAFETY: the caller's.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        let x = _mm256_set1_epi32(x);
        let magnitude = _mm256_abs_epi8(x);
        for (half, lanes) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let quads = quads(rows.map(|row| row.add(32 * half)));
            for (lanes, w) in lanes.iter_mut().zip(quads) {
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x));
                *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
}

/// Entries that are added up in 16 bits: a lane gets one of 127 at most of each.
const NARROW: usize = 4 * 60;

/// Adds listed rows, times their values, to lanes that are in the order of `quads`; `ahead(i)` comes before batch `i`.
///
/// # Safety
/// AVX2 is there, and so is a row at each place.
#[inline(always)]
unsafe fn add_rows<P: RowPlace>(
    list: EventRows<'_, P>,
    from: *const i8,
    lanes: &mut [__m256i; VECTORS],
    mut ahead: impl FnMut(usize),
) {
    // SAFETY: the caller's.
    unsafe {
        if list.are_spikes() {
            for (start, part) in list.parts(NARROW) {
                add_spikes(part, from, lanes, |i| ahead(start / P::BATCH + i));
            }
        } else {
            for (i, (places, values)) in list.batches().enumerate() {
                ahead(i);
                for (four, x) in places.as_chunks().0.iter().zip(values.as_chunks::<GROUP>().0) {
                    add_four(rows_at(from, four), i32::from_le_bytes(x.map(|x| x as u8)), lanes);
                }
            }
        }
    }
}

/// The same for at most `NARROW` spikes: `pmaddubsw` by ones adds two rows, which have the sign of their spikes.
///
/// # Safety
/// AVX2 is there, and so is a row at each place.
#[inline(always)]
unsafe fn add_spikes<P: RowPlace>(
    list: EventRows<'_, P>,
    from: *const i8,
    lanes: &mut [__m256i; VECTORS],
    mut ahead: impl FnMut(usize),
) {
    // SAFETY: the caller's.
    unsafe {
        let ones = _mm256_set1_epi8(1);
        let mut narrow = [_mm256_setzero_si256(); VECTORS / 2];
        for (i, (places, values)) in list.batches().enumerate() {
            ahead(i);
            for (four, x) in places.as_chunks().0.iter().zip(values.as_chunks::<GROUP>().0) {
                let [a, b, c, d] = rows_at(from, four);
                let [x, y] = [[x[0], x[1]], [x[2], x[3]]].map(|x| i16::from_le_bytes(x.map(|x| x as u8)));
                for (rows, x) in [([a, b], _mm256_set1_epi16(x)), ([c, d], _mm256_set1_epi16(y))] {
                    for (half, sums) in narrow.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                        let a = _mm256_loadu_si256(rows[0].add(32 * half).cast());
                        let b = _mm256_loadu_si256(rows[1].add(32 * half).cast());
                        let low = _mm256_sign_epi8(_mm256_unpacklo_epi8(a, b), x);
                        let high = _mm256_sign_epi8(_mm256_unpackhi_epi8(a, b), x);
                        sums[0] = _mm256_add_epi16(sums[0], _mm256_maddubs_epi16(ones, low));
                        sums[1] = _mm256_add_epi16(sums[1], _mm256_maddubs_epi16(ones, high));
                    }
                }
            }
        }
        for (lanes, sums) in lanes.as_chunks_mut::<2>().0.iter_mut().zip(narrow) {
            let signs = _mm256_srai_epi16::<15>(sums);
            lanes[0] = _mm256_add_epi32(lanes[0], _mm256_unpacklo_epi16(sums, signs));
            lanes[1] = _mm256_add_epi32(lanes[1], _mm256_unpackhi_epi16(sums, signs));
        }
    }
}

/// Stores lanes in the order of `quads` as sums.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn finish(lanes: [__m256i; VECTORS], sums: &mut PanelSums) {
    let sums = sums.as_mut_ptr().cast::<__m256i>();
    // SAFETY: the caller's; the sums are eight vectors.
    unsafe {
        for (half, lanes) in lanes.as_chunks::<4>().0.iter().enumerate() {
            let ordered = [
                _mm256_permute2x128_si256::<0x20>(lanes[0], lanes[1]),
                _mm256_permute2x128_si256::<0x20>(lanes[2], lanes[3]),
                _mm256_permute2x128_si256::<0x31>(lanes[0], lanes[1]),
                _mm256_permute2x128_si256::<0x31>(lanes[2], lanes[3]),
            ];
            for (i, lanes) in ordered.into_iter().enumerate() {
                _mm256_storeu_si256(sums.add(4 * half + i), lanes);
            }
        }
    }
}

/// `V` vectors of 16 sums, two values at a time: their numbers side by side meet their weights side by side.
#[inline(always)]
fn weigh_block<L: StoredLevel, const V: usize>(
    weights: &[(u32, i16)],
    values: &[L],
    stride: usize,
    sums: &mut [i32],
) -> usize {
    let within = |&(j, _): &(u32, i16)| j as usize * stride + V * LANES <= values.len();
    assert!(sums.len() >= V * LANES && weights.iter().all(within), "every value within the values");
    let values = values.as_ptr();
    let sums = sums.as_mut_ptr().cast::<__m256i>();
    // SAFETY: AVX2 by the type's invariant. Values and sums are within their slices by the assertion.
    // Test: `dots_and_weighted_sums_are_exact`.
    unsafe {
        let mut lanes = [[_mm256_setzero_si256(); 2]; V];
        for pair in weights.chunks(2) {
            let (j, weight) = pair[0];
            let (other, other_weight) = if pair.len() == 2 { pair[1] } else { (j, 0) };
            let (a, b) = (values.add(j as usize * stride), values.add(other as usize * stride));
            let weights = _mm256_set1_epi32((weight as u16 as i32) | ((other_weight as i32) << 16));
            for (i, lanes) in lanes.iter_mut().enumerate() {
                let (a, b) = (load(a.add(i * LANES)), load(b.add(i * LANES)));
                lanes[0] = _mm256_add_epi32(lanes[0], _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weights));
                lanes[1] = _mm256_add_epi32(lanes[1], _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weights));
            }
        }
        for (i, [low, high]) in lanes.into_iter().enumerate() {
            // Unpacking took numbers 0 to 3 and 8 to 11 to `low`, the others to `high`.
            let ordered = [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
            for (half, lanes) in ordered.into_iter().enumerate() {
                let sums = sums.add(2 * i + half);
                _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), lanes));
            }
        }
    }
    V * LANES
}

/// Sixteen levels in 16 bits each.
///
/// # Safety
/// AVX2 is there, and so are sixteen levels.
#[inline(always)]
unsafe fn load<L: StoredLevel>(from: *const L) -> __m256i {
    // SAFETY: the caller's; a level is an `i8` or an `i16`, for the trait is sealed.
    unsafe {
        if size_of::<L>() == 1 {
            _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()))
        } else {
            _mm256_loadu_si256(from.cast())
        }
    }
}
