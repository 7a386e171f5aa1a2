//! Blocks of products of bf16, 32 rows by 32 outputs: by AMX, or by the dot products of pairs that some processors with AVX-512 have.
//!
//! Law: a block's sums are f32, in ascending order of pairs of inputs. The two units round between the two products of a pair
//! differently, so their bits differ; those of one unit are always the same.

use super::interface::{BF16_SIDE as SIDE, Bf16Line};
use std::arch::asm;
use std::arch::x86_64::*;

/// Where a block lies.
pub struct Bf16Block {
    pub x: *const Bf16Line,
    /// Lines from a row to the next; of a left operand in panels, none.
    pub row: usize,
    pub w: *const Bf16Line,
    pub y: *mut f32,
    /// Sums from a row to the next.
    pub sums: usize,
    /// Lines of each row.
    pub lines: usize,
    /// Whether the sums go on from what is there.
    pub goes_on: bool,
}

impl Bf16Block {
    /// # Safety
    /// AMX is there and configured; 32 rows lie at each pointer.
    pub unsafe fn by_tiles(self) {
        let (row, sums) = (64 * self.row, 4 * self.sums);
        // SAFETY: the caller's.
        unsafe {
            let (z, v) = (self.x.add(16 * self.row), self.y.add(16 * self.sums));
            if self.goes_on {
                asm!(
                    "tileloadd tmm0, [{y} + {m}]", "tileloadd tmm1, [{y} + {m} + 64]",
                    "tileloadd tmm2, [{v} + {m}]", "tileloadd tmm3, [{v} + {m} + 64]",
                    y = in(reg) self.y, v = in(reg) v, m = in(reg) sums, options(nostack, readonly)
                );
            } else {
                asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
            }
            asm!(
                "2:",
                "tileloadd tmm4, [{x} + {k}]",
                "tileloadd tmm6, [{w} + {line}]",
                "tileloadd tmm7, [{w} + {line} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{z} + {k}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {x}, 64", "add {z}, 64", "add {w}, 2048",
                "dec {lines}",
                "jnz 2b",
                "tilestored [{y} + {m}], tmm0",
                "tilestored [{y} + {m} + 64], tmm1",
                "tilestored [{v} + {m}], tmm2",
                "tilestored [{v} + {m} + 64], tmm3",
                x = inout(reg) self.x => _,
                z = inout(reg) z => _,
                w = inout(reg) self.w => _,
                y = in(reg) self.y,
                v = in(reg) v,
                k = in(reg) row,
                line = in(reg) 128usize,
                m = in(reg) sums,
                lines = inout(reg) self.lines => _,
                options(nostack)
            );
        }
    }

    /// `PANELS`: the left operand lies as the right one does.
    ///
    /// # Safety
    /// AVX-512 with bf16 is there; 32 rows lie at each pointer.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn by_pairs<const PANELS: bool>(self) {
        /// Rows at once: sixteen sums, two weights and an input of the 32 registers.
        const ROWS: usize = 8;
        for first in (0..SIDE).step_by(ROWS) {
            // SAFETY: the caller's.
            unsafe {
                let (row, pair_step) = if PANELS { (1, SIDE) } else { (16 * self.row, 1) };
                let (x, y) = (self.x.cast::<i32>().add(first * row), self.y.add(first * self.sums));
                let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
                if self.goes_on {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        *sums = [0, 16].map(|half| _mm512_loadu_ps(y.add(r * self.sums + half)));
                    }
                }
                for pair in 0..16 * self.lines {
                    let w = [0, 1].map(|half| bf16(_mm512_load_si512(self.w.add(2 * pair + half).cast())));
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let x = _mm512_set1_epi32(*x.add(r * row + pair * pair_step));
                        sums.iter_mut().zip(w).for_each(|(sum, w)| *sum = _mm512_dpbf16_ps(*sum, bf16(x), w));
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (half, sum) in sums.iter().enumerate() {
                        _mm512_storeu_ps(y.add(r * self.sums + 16 * half), *sum);
                    }
                }
            }
        }
    }
}

/// The same bits as numbers.
#[target_feature(enable = "avx512f")]
fn bf16(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits that may hold anything.
    unsafe { std::mem::transmute(bits) }
}
