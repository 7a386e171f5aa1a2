//! The inner loops of integer kernels, by instruction set: sums of products of 8- and 16-bit numbers in 32 bits.
//!
//! Law: every implementation gives the same integers. Compilers do not find `pmaddwd` (two products and their sum in each
//! 32-bit lane) and `pmaddubsw` by themselves where it matters, so these are in intrinsics. Sums wrap; callers know that
//! none overflows.

use super::neuron::Level;
use super::pages::Line;
use super::product::{GROUP, OUTPUTS};

/// Outputs of a tile of the packed product.
pub(super) const TILE: usize = 8;

pub(super) trait Vectors: Copy {
    /// The packed product for `T` tokens and the eight outputs from `8 * eighth` on of a panel: `sums += x w`. Each `x` has
    /// four inputs for each of the panel's groups.
    fn tile<const T: usize>(self, x: [&[i16]; T], panel: &[Line], eighth: usize, sums: &mut [[i32; TILE]; T]);

    /// The packed product for one token and all outputs of a panel: `sums = x w`.
    fn walk<L: Level>(self, x: &[L], panel: &[Line]) -> [i32; OUTPUTS];

    /// `acc[o] += sum over rows of row[o]`, or `-=`. The rows are as long as `acc`.
    fn add_rows<const N: usize, const SUBTRACT: bool>(self, rows: &[&[i8]; N], acc: &mut [i32]);

    /// Eight numbers from `c` on of eight rows, column by column.
    fn turn(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8];

    /// The entries of a table at these indices, which are at least 0, and at the next ones.
    fn pairs<const N: usize, const M: usize>(self, table: &[f32; N], at: &[i32; M]) -> [[f32; M]; 2];

    /// Asks for memory that is read soon.
    fn ahead<T>(self, soon: &[T]);

    /// `scores[j] = q . keys[j]`: key `j` is the first `q.len()` numbers from `j * stride` on.
    fn dots<L: Level>(self, q: &[i16], keys: &[L], stride: usize, scores: &mut [i32]);

    /// `sums += sum over (j, weight) of weight * values[j]`: value `j` is `sums.len()` numbers from `j * stride` on.
    fn weigh<L: Level>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]);
}

/// Plain loops.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Portable {
    pub(super) fn vectors() -> Self {
        Self
    }
}

impl Vectors for Portable {
    #[inline(always)]
    fn tile<const T: usize>(self, x: [&[i16]; T], panel: &[Line], eighth: usize, sums: &mut [[i32; TILE]; T]) {
        for (g, lines) in panel.chunks_exact(GROUP).enumerate() {
            let w = &lines[eighth / 2].0[eighth % 2 * 32..][..32];
            for (x, sums) in x.iter().zip(sums.iter_mut()) {
                let x = &x[g * GROUP..][..GROUP];
                for (sum, w) in sums.iter_mut().zip(w.chunks_exact(GROUP)) {
                    *sum += x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
                }
            }
        }
    }

    #[inline(always)]
    fn walk<L: Level>(self, x: &[L], panel: &[Line]) -> [i32; OUTPUTS] {
        let mut sums = [0; OUTPUTS];
        for (lines, x) in panel.chunks_exact(GROUP).zip(x.chunks_exact(GROUP)) {
            for (line, sums) in lines.iter().zip(sums.chunks_exact_mut(OUTPUTS / GROUP)) {
                for (sum, w) in sums.iter_mut().zip(line.0.chunks_exact(GROUP)) {
                    *sum += x.iter().zip(w).map(|(&x, &w)| x.to_i32() * i32::from(w)).sum::<i32>();
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn add_rows<const N: usize, const SUBTRACT: bool>(self, rows: &[&[i8]; N], acc: &mut [i32]) {
        let rows = rows.map(|row| &row[..acc.len()]);
        for (o, acc) in acc.iter_mut().enumerate() {
            let mut sum = 0i16;
            for row in rows {
                sum += i16::from(row[o]);
            }
            *acc += i32::from(if SUBTRACT { -sum } else { sum });
        }
    }

    #[inline(always)]
    fn turn(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8] {
        let mut block = [[0.0; 8]; 8];
        for (j, row) in rows.iter().enumerate() {
            for (column, &x) in block.iter_mut().zip(&row[c..c + 8]) {
                column[j] = x;
            }
        }
        block
    }

    #[inline(always)]
    fn pairs<const N: usize, const M: usize>(self, table: &[f32; N], at: &[i32; M]) -> [[f32; M]; 2] {
        let mut found = [[0.0; M]; 2];
        for (i, &at) in at.iter().enumerate() {
            found[0][i] = table[at as usize];
            found[1][i] = table[at as usize + 1];
        }
        found
    }

    #[inline(always)]
    fn ahead<T>(self, _: &[T]) {}

    #[inline(always)]
    fn dots<L: Level>(self, q: &[i16], keys: &[L], stride: usize, scores: &mut [i32]) {
        for (j, score) in scores.iter_mut().enumerate() {
            *score = dot(q, &keys[j * stride..]);
        }
    }

    #[inline(always)]
    fn weigh<L: Level>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
        for &(j, weight) in weights {
            let value = &values[j as usize * stride..];
            sums.iter_mut().zip(value).for_each(|(sum, &v)| *sum += i32::from(weight) * v.to_i32());
        }
    }
}

#[inline(always)]
fn dot<L: Level>(q: &[i16], key: &[L]) -> i32 {
    q.iter().zip(key).map(|(&q, &k)| i32::from(q) * k.to_i32()).sum()
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{GROUP, Level, Line, OUTPUTS, TILE, Vectors, dot};
    use std::arch::x86_64::*;

    /// 256-bit vectors. A value of this type exists only in functions compiled for AVX2 (`kernels!`), into which the methods
    /// are inlined: that is what makes the intrinsics in them safe to call.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(());

    impl Avx2 {
        #[inline(always)]
        pub(in super::super) fn vectors() -> Self {
            Self(())
        }
    }

    /// Numbers of a 16-bit vector.
    const LANES: usize = 16;

    impl Vectors for Avx2 {
        #[inline(always)]
        fn tile<const T: usize>(self, x: [&[i16]; T], panel: &[Line], eighth: usize, sums: &mut [[i32; TILE]; T]) {
            let groups = panel.len() / GROUP;
            assert!(
                eighth < OUTPUTS / TILE && x.iter().all(|x| x.len() >= groups * GROUP),
                "four inputs for each group"
            );
            let x = x.map(<[i16]>::as_ptr);
            let w = panel.as_ptr().cast::<i8>();
            // SAFETY: AVX2 by the type's invariant. Group `g` of a panel is 256 bytes, of which the tile's are the 32 from
            // `32 * eighth` on; four inputs from `4 * g` on are within `x` by the assertion. Test: `products_are_exact`.
            unsafe {
                let zero = _mm256_setzero_si256();
                let mut pairs = [[zero; 2]; T];
                for g in 0..groups {
                    let at = w.add(g * 256 + eighth * 32).cast::<__m128i>();
                    let weights =
                        [_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), _mm256_cvtepi8_epi16(_mm_loadu_si128(at.add(1)))];
                    for (pairs, x) in pairs.iter_mut().zip(x) {
                        let x = _mm256_set1_epi64x(x.add(g * GROUP).cast::<i64>().read_unaligned());
                        pairs[0] = _mm256_add_epi32(pairs[0], _mm256_madd_epi16(weights[0], x));
                        pairs[1] = _mm256_add_epi32(pairs[1], _mm256_madd_epi16(weights[1], x));
                    }
                }
                for (pairs, sums) in pairs.into_iter().zip(sums) {
                    // A lane holds half of an output's sum, its neighbour the other half.
                    let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(pairs[0], pairs[1]));
                    let sums = sums.as_mut_ptr().cast::<__m256i>();
                    _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), both));
                }
            }
        }

        #[inline(always)]
        fn walk<L: Level>(self, x: &[L], panel: &[Line]) -> [i32; OUTPUTS] {
            assert!(x.len() >= panel.len() / GROUP * GROUP, "four inputs for each group");
            let mut sums = [0; OUTPUTS];
            // SAFETY: AVX2 by the type's invariant, inputs for all groups by the assertion, and a level is an `i8` or an `i16`,
            // for the trait is sealed. Test: `products_are_exact`.
            unsafe {
                if size_of::<L>() == 1 {
                    walk_narrow(x.as_ptr().cast(), panel, &mut sums);
                } else {
                    for (half, sums) in sums.as_chunks_mut().0.iter_mut().enumerate() {
                        walk_wide(x.as_ptr().cast(), panel, half, sums);
                    }
                }
            }
            sums
        }

        /// Pairs of rows side by side, so that one `pmaddubsw` with ones adds both.
        #[inline(always)]
        fn add_rows<const N: usize, const SUBTRACT: bool>(self, rows: &[&[i8]; N], acc: &mut [i32]) {
            const COLUMNS: usize = 32;
            assert!(
                N.is_multiple_of(2) && N <= 256 && rows.iter().all(|row| row.len() >= acc.len()),
                "pairs of rows, whose sums fit 16 bits"
            );
            let whole = acc.len() / COLUMNS * COLUMNS;
            for o in (0..whole).step_by(COLUMNS) {
                // SAFETY: AVX2 by the type's invariant. `o + 32` is at most the length of `acc` and of each row.
                // Test: `rows_are_exact`.
                unsafe {
                    let ones = _mm256_set1_epi8(1);
                    let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
                    for pair in rows.as_chunks::<2>().0 {
                        let [a, b] = pair.map(|row| _mm256_loadu_si256(row.as_ptr().add(o).cast()));
                        low = _mm256_add_epi16(low, _mm256_maddubs_epi16(ones, _mm256_unpacklo_epi8(a, b)));
                        high = _mm256_add_epi16(high, _mm256_maddubs_epi16(ones, _mm256_unpackhi_epi8(a, b)));
                    }
                    // Unpacking took columns 0 to 7 and 16 to 23 to `low`, the others to `high`.
                    let eights = [
                        _mm256_castsi256_si128(low),
                        _mm256_castsi256_si128(high),
                        _mm256_extracti128_si256::<1>(low),
                        _mm256_extracti128_si256::<1>(high),
                    ];
                    for (i, eight) in eights.into_iter().enumerate() {
                        let acc = acc.as_mut_ptr().add(o + 8 * i).cast::<__m256i>();
                        let (sum, eight) = (_mm256_loadu_si256(acc), _mm256_cvtepi16_epi32(eight));
                        let sum = if SUBTRACT { _mm256_sub_epi32(sum, eight) } else { _mm256_add_epi32(sum, eight) };
                        _mm256_storeu_si256(acc, sum);
                    }
                }
            }
            super::Portable.add_rows::<N, SUBTRACT>(&rows.map(|row| &row[whole..]), &mut acc[whole..]);
        }

        #[inline(always)]
        fn turn(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8] {
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
        fn pairs<const N: usize, const M: usize>(self, table: &[f32; N], at: &[i32; M]) -> [[f32; M]; 2] {
            assert!(N >= 2 && N <= i32::MAX as usize, "a pair, and indices of 32 bits");
            if !M.is_multiple_of(8) {
                return super::Portable.pairs(table, at);
            }
            let mut found = [[0.0; M]; 2];
            for i in (0..M).step_by(8) {
                // SAFETY: AVX2 by the type's invariant. Eight indices from `i` on; each is brought to 0 to `N - 2`, so that it
                // and the next are in the table. Test: `neurons_give_the_nearest_level`.
                unsafe {
                    let at = _mm256_loadu_si256(at.as_ptr().add(i).cast());
                    let at = _mm256_min_epu32(at, _mm256_set1_epi32(N as i32 - 2));
                    let low = _mm256_i32gather_ps::<4>(table.as_ptr(), at);
                    let high = _mm256_i32gather_ps::<4>(table.as_ptr().add(1), at);
                    _mm256_storeu_ps(found[0].as_mut_ptr().add(i), low);
                    _mm256_storeu_ps(found[1].as_mut_ptr().add(i), high);
                }
            }
            found
        }

        #[inline(always)]
        fn ahead<T>(self, soon: &[T]) {
            let from = soon.as_ptr().cast::<i8>();
            for at in (0..size_of_val(soon)).step_by(64) {
                // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(at)) };
            }
        }

        #[inline(always)]
        fn dots<L: Level>(self, q: &[i16], keys: &[L], stride: usize, scores: &mut [i32]) {
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
                        let q = _mm256_loadu_si256(q.as_ptr().add(c).cast());
                        for (i, sum) in sums.iter_mut().enumerate() {
                            let key = load(keys.as_ptr().add((j + i) * stride + c));
                            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(q, key));
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
        fn weigh<L: Level>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
            let mut at = 0;
            while at < sums.len() {
                at += match sums.len() - at {
                    64.. => weigh_block::<L, 4>(weights, &values[at..], stride, &mut sums[at..]),
                    32.. => weigh_block::<L, 2>(weights, &values[at..], stride, &mut sums[at..]),
                    16.. => weigh_block::<L, 1>(weights, &values[at..], stride, &mut sums[at..]),
                    _ => {
                        super::Portable.weigh(weights, &values[at..], stride, &mut sums[at..]);
                        return;
                    }
                };
            }
        }
    }

    /// `|x| * (w with the sign of x)`: `pmaddubsw` takes one operand without sign. Two products of at most 127 * 127 do not
    /// saturate 16 bits.
    ///
    /// # Safety
    /// AVX2 is there, and so are four inputs for each group.
    #[inline(always)]
    unsafe fn walk_narrow(x: *const i8, panel: &[Line], sums: &mut [i32; OUTPUTS]) {
        const VECTORS: usize = OUTPUTS / 8;
        let w = panel.as_ptr().cast::<__m256i>();
        let sums = sums.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the caller's. A group of a panel is eight vectors, an input group four bytes; the sums are eight vectors.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut lanes = [_mm256_setzero_si256(); VECTORS];
            for g in 0..panel.len() / GROUP {
                ahead(w.cast::<i8>().wrapping_add(g * 256));
                let x = _mm256_set1_epi32(x.add(g * GROUP).cast::<i32>().read_unaligned());
                let magnitude = _mm256_abs_epi8(x);
                for (i, lanes) in lanes.iter_mut().enumerate() {
                    let w = _mm256_load_si256(w.add(g * VECTORS + i));
                    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(w, x));
                    *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(pairs, ones));
                }
            }
            for (i, lanes) in lanes.into_iter().enumerate() {
                _mm256_storeu_si256(sums.add(i), lanes);
            }
        }
    }

    /// How far ahead weights are asked for, in bytes: the next panel follows this one, and asking beyond all of them is
    /// harmless.
    const AHEAD: usize = 1024;

    /// Asks for the four lines of a group that is walked soon. The processor's own prefetching stops at every page.
    #[inline(always)]
    fn ahead(group: *const i8) {
        for line in 0..4 {
            // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(group.wrapping_add(AHEAD + 64 * line)) };
        }
    }

    /// Half of a panel: its eight vectors of half sums fill half of the registers.
    ///
    /// # Safety
    /// AVX2 is there, and so are four inputs for each group.
    #[inline(always)]
    unsafe fn walk_wide(x: *const i16, panel: &[Line], half: usize, sums: &mut [i32; OUTPUTS / 2]) {
        assert!(half < 2, "a panel has two halves");
        let w = panel.as_ptr().cast::<__m128i>();
        let sums = sums.as_mut_ptr().cast::<__m256i>();
        // SAFETY: the caller's. A group of a panel is sixteen 128-bit vectors, of which eight are this half's; an input group is
        // eight bytes; the sums are four vectors.
        unsafe {
            let mut lanes = [_mm256_setzero_si256(); 8];
            for g in 0..panel.len() / GROUP {
                if half == 0 {
                    ahead(w.cast::<i8>().wrapping_add(g * 256));
                }
                let x = _mm256_set1_epi64x(x.add(g * GROUP).cast::<i64>().read_unaligned());
                for (i, lanes) in lanes.iter_mut().enumerate() {
                    let w = _mm256_cvtepi8_epi16(_mm_load_si128(w.add(g * 16 + half * 8 + i)));
                    *lanes = _mm256_add_epi32(*lanes, _mm256_madd_epi16(w, x));
                }
            }
            for (i, pair) in lanes.as_chunks::<2>().0.iter().enumerate() {
                let both = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(pair[0], pair[1]));
                _mm256_storeu_si256(sums.add(i), both);
            }
        }
    }

    /// `V` vectors of 16 sums, two values at a time: their numbers side by side meet their weights side by side.
    #[inline(always)]
    fn weigh_block<L: Level, const V: usize>(
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
                let ordered =
                    [_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high)];
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
    unsafe fn load<L: Level>(from: *const L) -> __m256i {
        // SAFETY: the caller's; a level is an `i8` or an `i16`, for the trait is sealed.
        unsafe {
            if size_of::<L>() == 1 {
                _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast()))
            } else {
                _mm256_loadu_si256(from.cast())
            }
        }
    }
}
