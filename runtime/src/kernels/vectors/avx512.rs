//! 512-bit vectors with `vpdpbusd`: four products of bytes and their sum into each 32-bit lane in one instruction.
//!
//! It takes one operand without sign, so weights are `w + 128` to it, and 128 times the sum of the inputs is taken away
//! again: by `origin` where many tokens meet the same weights, by a lane of its own where one token walks them.

use super::super::events::Rows;
use super::super::neuron::Level;
use super::super::product::{GROUP, Group, OUTPUTS};
use super::avx2::Avx2;
use super::portable::Portable;
use super::{Sums, Vectors, fours};
use std::arch::x86_64::*;

/// A value of this type exists only in functions compiled for AVX-512 with VNNI (`kernels!`), into which the methods are
/// inlined: that is what makes the intrinsics in them safe to call.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(());

impl Avx512 {
    #[inline(always)]
    pub(in super::super) fn vectors() -> Self {
        Self(())
    }
}

/// Vectors of a panel's sums.
const VECTORS: usize = OUTPUTS / 16;

/// How far ahead rows are asked for, in bytes.
const AHEAD: usize = 4096;

impl Vectors for Avx512 {
    #[inline(always)]
    fn walk(self, x: &[i8], panel: &[i8]) -> Sums {
        let (x, panel, last) = fours(x, panel);
        let mut sums = [0; OUTPUTS];
        // SAFETY: AVX-512 by the type's invariant; four rows for each four inputs by `fours`. Test: `products_are_exact`.
        unsafe {
            let mut lanes = Lanes::zero();
            let (x, panel) = (x.as_chunks::<GROUP>().0, panel.as_chunks::<{ GROUP * OUTPUTS }>().0);
            for (x, rows) in x.iter().zip(panel) {
                let from = rows.as_ptr();
                (0..GROUP).for_each(|i| ask(from.wrapping_add(AHEAD + i * OUTPUTS)));
                lanes.add_four(std::array::from_fn(|i| from.add(i * OUTPUTS)), bytes(x));
            }
            if let Some((x, group)) = &last {
                let from = group.0.as_ptr();
                lanes.add_four(std::array::from_fn(|i| from.add(i * OUTPUTS)), bytes(x));
            }
            lanes.finish(&mut sums);
        }
        sums
    }

    #[inline(always)]
    fn rows(self, rows: Rows<'_>, panel: &[i8], far: bool, sums: &mut Sums) {
        rows.check(panel.len() / OUTPUTS);
        let from = panel.as_ptr();
        // SAFETY: AVX-512 by the type's invariant; every channel has a row in the panel by `check`. Test: `rows_are_exact`.
        unsafe {
            let mut lanes = Lanes::zero();
            if far {
                for (i, (four, x)) in rows.fours().enumerate() {
                    rows.later(i).iter().for_each(|&channel| ask(from.wrapping_add(channel as usize * OUTPUTS)));
                    lanes.add_four(four.map(|channel| from.add(channel as usize * OUTPUTS)), x);
                }
            } else {
                for (four, x) in rows.fours() {
                    lanes.add_four(four.map(|channel| from.add(channel as usize * OUTPUTS)), x);
                }
            }
            lanes.finish(sums);
        }
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
                (0..GROUP).for_each(|i| ask(from.wrapping_add(AHEAD + i * OUTPUTS)));
                let quads = quads(std::array::from_fn(|i| from.add(i * OUTPUTS)));
                let to = group.0.as_mut_ptr().cast::<__m512i>();
                for (i, w) in in_order(quads).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add(i), w);
                }
            }
        }
        if let Some(last) = block.get_mut(whole.len()) {
            Portable.interleave(rest, std::slice::from_mut(last));
            last.0.iter_mut().for_each(|w| *w ^= i8::MIN);
        }
    }

    #[inline(always)]
    fn tile<const T: usize>(self, x: [&[i8]; T], block: &[Group], sums: &mut [Sums; T]) {
        assert!(x.iter().all(|x| x.len() == block.len() * GROUP), "four inputs for each group");
        let x = x.map(<[i8]>::as_ptr);
        // SAFETY: AVX-512 by the type's invariant. A group is four vectors; four inputs from `4 * g` on are within `x` by the
        // assertion; the sums are four vectors. Test: `products_are_exact`.
        unsafe {
            let mut lanes: [[__m512i; VECTORS]; T] = std::array::from_fn(|t| {
                let sums = sums[t].as_ptr().cast::<__m512i>();
                std::array::from_fn(|i| _mm512_loadu_si512(sums.add(i)))
            });
            for (g, group) in block.iter().enumerate() {
                let w = group.0.as_ptr().cast::<__m512i>();
                let w: [__m512i; VECTORS] = std::array::from_fn(|i| _mm512_loadu_si512(w.add(i)));
                for (lanes, x) in lanes.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x.add(g * GROUP).cast::<i32>().read_unaligned());
                    lanes.iter_mut().zip(w).for_each(|(lanes, w)| *lanes = _mm512_dpbusd_epi32(*lanes, w, x));
                }
            }
            for (lanes, sums) in lanes.into_iter().zip(sums) {
                let sums = sums.as_mut_ptr().cast::<__m512i>();
                lanes.into_iter().enumerate().for_each(|(i, lanes)| _mm512_storeu_si512(sums.add(i), lanes));
            }
        }
    }

    #[inline(always)]
    fn origin(self, x: &[i8]) -> i32 {
        -128 * x.iter().map(|&x| i32::from(x)).sum::<i32>()
    }

    #[inline(always)]
    fn turn(self, rows: &[&[f32]; 8], c: usize) -> [[f32; 8]; 8] {
        Avx2::vectors().turn(rows, c)
    }

    #[inline(always)]
    fn pairs<const N: usize, const M: usize>(self, table: &[f32; N], at: &[i32; M]) -> [[f32; M]; 2] {
        Avx2::vectors().pairs(table, at)
    }

    #[inline(always)]
    fn ahead<T>(self, soon: &[T]) {
        Avx2::vectors().ahead(soon);
    }

    #[inline(always)]
    fn dots<L: Level>(self, q: &[i16], keys: &[L], stride: usize, scores: &mut [i32]) {
        Avx2::vectors().dots(q, keys, stride, scores);
    }

    #[inline(always)]
    fn weigh<L: Level>(self, weights: &[(u32, i16)], values: &[L], stride: usize, sums: &mut [i32]) {
        Avx2::vectors().weigh(weights, values, stride, sums);
    }
}

/// Asks for a row that is read soon. The processor's own prefetching stops at every page.
#[inline(always)]
fn ask(row: *const i8) {
    // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(row) };
}

#[inline(always)]
fn bytes(x: &[i8; GROUP]) -> i32 {
    i32::from_le_bytes(x.map(|x| x as u8))
}

/// Sums of a panel in the order of `quads`, and 128 times the sum of the inputs in every lane.
struct Lanes {
    sums: [__m512i; VECTORS],
    inputs: __m512i,
}

impl Lanes {
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
            let x = _mm512_set1_epi32(x);
            let quads = quads(rows);
            self.sums.iter_mut().zip(quads).for_each(|(sums, w)| *sums = _mm512_dpbusd_epi32(*sums, w, x));
            self.inputs = _mm512_dpbusd_epi32(self.inputs, _mm512_set1_epi8(i8::MIN), x);
        }
    }

    /// Adds all to `sums`.
    ///
    /// # Safety
    /// AVX-512 is there.
    #[inline(always)]
    unsafe fn finish(self, sums: &mut Sums) {
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

/// Four rows as `w + 128`, an output's four numbers side by side: vector `i` has outputs `16 j + 4 i` and the next three in its
/// quarter `j`.
///
/// # Safety
/// AVX-512 is there, and so are four rows of a panel.
#[inline(always)]
unsafe fn quads(rows: [*const i8; GROUP]) -> [__m512i; VECTORS] {
    // SAFETY: the caller's.
    unsafe {
        let flip = _mm512_set1_epi8(i8::MIN);
        let [a, b, c, d] = rows.map(|row| _mm512_xor_si512(flip, _mm512_loadu_si512(row.cast())));
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
