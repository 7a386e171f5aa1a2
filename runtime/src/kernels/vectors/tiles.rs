//! Products of many tokens by AMX, the matrix unit that some processors with AVX-512 have: 16 tokens by 64 inputs times 64 inputs by
//! 16 outputs is one instruction.
//!
//! Law: the same integers as everywhere. A panel is interleaved once, so that an output's weights for four inputs lie side by
//! side; then blocks of 32 tokens pass over it, with all their sums in registers from the first input to the last.

use super::super::panel::{GROUP, Group, OUTPUTS, Panels};
use snnc_ir::nibbles::{GroupedSizes, LEVEL_LEAST};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

/// Tokens, or outputs, of a tile.
pub const TOKENS: usize = 16;
/// Inputs of a tile.
pub const INPUTS: usize = 64;
/// Bytes of a group: a tile of weights has sixteen rows, so far apart.
const GROUP_BYTES: usize = GROUP * OUTPUTS;

/// Whether this process may use the unit. It asks the system once.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| is_there() && is_permitted())
}

/// Whether the processor has tiles, products of bytes in them, and permutations of bytes.
fn is_there() -> bool {
    /// Bits of `edx` of leaf 7: AMX-TILE and AMX-INT8.
    const TILES: u32 = 1 << 24 | 1 << 25;
    let highest = __cpuid(0).eax;
    highest >= 7 && __cpuid_count(7, 0).edx & TILES == TILES && is_x86_feature_detected!("avx512vbmi")
}

/// Whether the unit multiplies bf16 as well (AMX-BF16), where it is there.
pub fn multiplies_bf16() -> bool {
    const BF16: u32 = 1 << 22;
    __cpuid_count(7, 0).edx & BF16 == BF16
}

/// Eight tiles of sixteen rows of 64 bytes, for this thread.
///
/// # Safety
/// `available` has said so, and nothing else uses tiles until `release`.
pub unsafe fn configure() {
    // SAFETY: the caller's.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &CONFIGURATION, options(nostack, readonly)) };
}

/// Tiles are free again.
///
/// # Safety
/// `available` has said so.
pub unsafe fn release() {
    // SAFETY: the caller's.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Linux saves tiles of a process that has asked for it (`arch_prctl`), threads that come later included.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that reads no memory; it clobbers what is named. Test: `products_of_many_tokens`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack)
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// What `ldtilecfg` reads: palette 1, eight tiles of sixteen rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfiguration([u8; 64]);

const CONFIGURATION: TileConfiguration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = INPUTS as u8;
        bytes[48 + tile] = TOKENS as u8;
        tile += 1;
    }
    TileConfiguration(bytes)
};

thread_local! {
    /// A panel of a thread, interleaved.
    static PANEL: RefCell<Vec<Group>> = RefCell::default();
}

/// `y[n, m] = x[n, k] w`, where `k` is the inputs of `w`, padded to whole tiles. Sixteen tokens at least.
///
/// # Safety
/// `available` has said so.
pub unsafe fn product(x: &[i8], k: usize, w: Panels<'_>, y: &mut [i32]) {
    let (rows, m) = (x.len() / k, w.outputs());
    assert!(k.is_multiple_of(INPUTS) && k >= w.inputs() && x.len() == rows * k, "rows of {k}: {} inputs", x.len());
    assert!(rows >= TOKENS && y.len() == rows * m, "{rows} tokens and {} results", y.len());
    let mut blocks = PANEL.take();
    blocks.resize(k / GROUP, Group([0; GROUP_BYTES]));
    // SAFETY: the unit is there by the caller. Of the pointers, `x` from token `t` on has sixteen or 32 rows of `k` bytes by the
    // choice of `t`, the panel has `k / 4` groups, and `block` writes as many columns of `y`, or of a part of its own, as
    // there are. Nothing else uses tiles meanwhile. Test: `products_of_many_tokens`.
    unsafe {
        configure();
        for (p, panel) in w.panels().enumerate() {
            interleave(panel, w.panel(p + 1), &mut blocks);
            let width = (m - p * OUTPUTS).min(OUTPUTS);
            let mut t = 0;
            while t < rows {
                // The last block meets some tokens again; it gives the same sums.
                let both = rows - t > TOKENS && rows >= 2 * TOKENS;
                let tokens = if both { 2 * TOKENS } else { TOKENS };
                let first = t.min(rows - tokens);
                block(&x[first * k..][..tokens * k], k, &blocks, &mut y[first * m + p * OUTPUTS..], m, width);
                t = first + tokens;
            }
        }
        release();
    }
    PANEL.set(blocks);
}

/// `y += weight * x w` for weights of 4 bits in groups, as `product` does it: elements are `low + 128 * high`, two bytes. False, and
/// nothing is done, where they are not of 4 bits.
///
/// # Safety
/// `available` has said so.
pub unsafe fn add_grouped(x: &[i8], k: usize, weight: i32, w: Panels<'_>, y: &mut [i32]) -> bool {
    let Some(sizes) = w.grouped() else { return false };
    let (rows, m) = (x.len() / k, w.outputs());
    assert!(k.is_multiple_of(INPUTS) && k >= w.inputs() && x.len() == rows * k, "rows of {k}: {} inputs", x.len());
    assert!(rows >= TOKENS && y.len() == rows * m, "{rows} tokens and {} results", y.len());
    let mut blocks = PANEL.take();
    blocks.clear();
    blocks.resize(2 * k / GROUP, Group([0; GROUP_BYTES]));
    let (low, high) = blocks.split_at_mut(k / GROUP);
    // SAFETY: as of `product`; sums of 32 tokens have rows of 64. Test: `products_of_groups_are_exact`.
    unsafe {
        configure();
        for (p, panel) in w.panels().enumerate() {
            split(sizes, bytemuck::cast_slice(panel), low, high);
            let width = (m - p * OUTPUTS).min(OUTPUTS);
            let mut t = 0;
            while t < rows {
                let both = rows - t > TOKENS && rows >= 2 * TOKENS;
                let tokens = if both { 2 * TOKENS } else { TOKENS };
                let first = t.min(rows - tokens);
                let x = &x[first * k..][..tokens * k];
                let mut parts = [[0; 2 * TOKENS * OUTPUTS]; 2];
                sums(x, k, low, parts[0].as_mut_ptr(), OUTPUTS);
                sums(x, k, high, parts[1].as_mut_ptr(), OUTPUTS);
                // The last block meets some tokens again, whose sums are there already.
                let [low, high] = parts.each_ref().map(|part| &part[(t - first) * OUTPUTS..tokens * OUTPUTS]);
                for ((y, low), high) in
                    y[t * m..].chunks_mut(m).zip(low.chunks_exact(OUTPUTS)).zip(high.chunks_exact(OUTPUTS))
                {
                    let columns = y[p * OUTPUTS..][..width].iter_mut().zip(low).zip(high);
                    columns.for_each(|((y, low), high)| {
                        *y = y.wrapping_add(weight.wrapping_mul(low.wrapping_add(high.wrapping_mul(128))));
                    });
                }
                t = first + tokens;
            }
        }
        release();
    }
    PANEL.set(blocks);
    true
}

/// The elements of a panel in two bytes each: `low + 128 * high`, in the order of outputs.
#[target_feature(enable = "avx512f,avx512bw")]
fn split(sizes: GroupedSizes, panel: &[u8], low: &mut [Group], high: &mut [Group]) {
    for group in sizes.groups_of(panel) {
        let mut by = [0i16; GROUP_BYTES];
        by.as_chunks_mut::<GROUP>().0.iter_mut().zip(group.multipliers).for_each(|(by, &x)| *by = [x.into(); GROUP]);
        let blocks = group.levels.as_chunks::<GROUP_BYTES>().0;
        for (bytes, b) in blocks.iter().zip((group.first / GROUP..).step_by(2)) {
            for (half, shift) in [0, 4].into_iter().enumerate() {
                let (low, high) = (&mut low[b + half].0, &mut high[b + half].0);
                for i in 0..GROUP_BYTES {
                    let element = (i16::from((bytes[i] >> shift) & 0xf) + i16::from(LEVEL_LEAST)) * by[i];
                    let rest = ((element + 64) & 127) - 64;
                    low[i] = rest as i8;
                    high[i] = ((element - rest) >> 7) as i8;
                }
            }
        }
    }
}

/// A block of tokens by a panel: `width` columns of rows of `y`, which are `m` apart.
///
/// # Safety
/// Tiles are configured; `x` is sixteen or 32 rows of `k`; there are `k / 4` groups.
#[inline(always)]
unsafe fn block(x: &[i8], k: usize, panel: &[Group], y: &mut [i32], m: usize, width: usize) {
    let tokens = x.len() / k;
    let last = (tokens - 1) * m + width;
    assert!(panel.len() * GROUP == k && last <= y.len(), "a row of sums for each of {tokens} tokens");
    // SAFETY: the caller's; a full panel's sums are within `y` by the assertion.
    unsafe {
        if width == OUTPUTS {
            return sums(x, k, panel, y.as_mut_ptr(), m);
        }
        let mut part = [0; 2 * TOKENS * OUTPUTS];
        sums(x, k, panel, part.as_mut_ptr(), OUTPUTS);
        for (y, part) in y.chunks_mut(m).zip(part.chunks_exact(OUTPUTS)).take(tokens) {
            y[..width].copy_from_slice(&part[..width]);
        }
    }
}

/// # Safety
/// As of `block`; 64 sums are written for each token, in rows that are `m` apart.
#[inline(always)]
unsafe fn sums(x: &[i8], k: usize, panel: &[Group], y: *mut i32, m: usize) {
    let steps = k / INPUTS;
    // SAFETY: the caller's. Tiles of tokens have a stride of `k` bytes, those of weights one of a group, those of sums `4 m`.
    unsafe {
        if x.len() == 2 * TOKENS * k {
            for half in 0..2 {
                let (y, w) = (y.add(2 * TOKENS * half), panel.as_ptr().cast::<i8>().add(2 * INPUTS * half));
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{x} + {k}]",
                    "tileloadd tmm6, [{w} + {group}]",
                    "tileloadd tmm7, [{w} + {group} + 64]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{z} + {k}]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {x}, 64", "add {z}, 64", "add {w}, 4096",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{y} + {m}], tmm0",
                    "tilestored [{y} + {m} + 64], tmm1",
                    "tilestored [{v} + {m}], tmm2",
                    "tilestored [{v} + {m} + 64], tmm3",
                    x = inout(reg) x.as_ptr() => _,
                    z = inout(reg) x.as_ptr().add(TOKENS * k) => _,
                    w = inout(reg) w => _,
                    y = in(reg) y,
                    v = in(reg) y.add(TOKENS * m),
                    k = in(reg) k,
                    group = in(reg) GROUP_BYTES,
                    m = in(reg) 4 * m,
                    steps = inout(reg) steps => _,
                    options(nostack)
                );
            }
        } else {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{x} + {k}]",
                "tileloadd tmm5, [{w} + {group}]",
                "tileloadd tmm6, [{w} + {group} + 64]",
                "tdpbssd tmm0, tmm4, tmm5",
                "tileloadd tmm5, [{w} + {group} + 128]",
                "tdpbssd tmm1, tmm4, tmm6",
                "tileloadd tmm6, [{w} + {group} + 192]",
                "tdpbssd tmm2, tmm4, tmm5",
                "tdpbssd tmm3, tmm4, tmm6",
                "add {x}, 64", "add {w}, 4096",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{y} + {m}], tmm0",
                "tilestored [{y} + {m} + 64], tmm1",
                "tilestored [{y} + {m} + 128], tmm2",
                "tilestored [{y} + {m} + 192], tmm3",
                x = inout(reg) x.as_ptr() => _,
                w = inout(reg) panel.as_ptr() => _,
                y = in(reg) y,
                k = in(reg) k,
                group = in(reg) GROUP_BYTES,
                m = in(reg) 4 * m,
                steps = inout(reg) steps => _,
                options(nostack)
            );
        }
    }
}

/// Of sixteen bytes of each of four rows: byte `4 c + r` is byte `c` of row `r`.
static ORDER: [u8; 64] = {
    let (mut order, mut i) = ([0; 64], 0);
    while i < 64 {
        order[i] = (i % GROUP * 16 + i / GROUP) as u8;
        i += 1;
    }
    order
};

/// Rows of a panel as groups, in the order of outputs; what rows do not fill is zero. The next panel is prefetched meanwhile.
///
/// # Safety
/// AVX-512 with permutations of bytes is there.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn interleave(rows: &[i8], next: &[i8], block: &mut [Group]) {
    let (fours, rest) = rows.as_chunks::<GROUP_BYTES>();
    assert!(fours.len() + usize::from(!rest.is_empty()) <= block.len(), "a group for each four rows");
    // SAFETY: the caller's; four rows of 64 bytes in, a group of as many out. A prefetch reads nothing.
    unsafe {
        let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
        let (next, end) = (next.as_ptr(), next.len());
        for (i, (rows, group)) in fours.iter().zip(block.iter_mut()).enumerate() {
            if i * GROUP_BYTES < end {
                for line in 0..GROUP {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(i * GROUP_BYTES + line * 64));
                }
            }
            for quarter in 0..4 {
                let from = rows.as_ptr().add(16 * quarter);
                let row = |r: usize| _mm_loadu_si128(from.add(r * OUTPUTS).cast());
                let four = _mm512_castsi128_si512(row(0));
                let four = _mm512_inserti32x4::<1>(four, row(1));
                let four = _mm512_inserti32x4::<2>(four, row(2));
                let four = _mm512_inserti32x4::<3>(four, row(3));
                let group = group.0.as_mut_ptr().add(64 * quarter);
                _mm512_storeu_si512(group.cast(), _mm512_permutexvar_epi8(order, four));
            }
        }
    }
    let mut left = block[fours.len()..].iter_mut();
    if let (false, Some(group)) = (rest.is_empty(), left.next()) {
        super::interface::interleave_few(rest, group);
    }
    left.for_each(|group| group.0.fill(0));
}
