//! The integer product of levels and 8-bit weights in panels, `[m / 64][k][64]`.
//!
//! One token (`gemv`) reads the rows of a panel, four at a time, as fast as memory gives them. Many tokens: a block of rows is
//! interleaved once, so that an output's weights for four inputs lie side by side, and stays in the first-level cache while
//! all tokens pass, six at a time.

use super::check::check_rows_of;
use super::event_list::{EventList, Prefetch};
use super::grouped;
use super::panel::{GROUP, Group, OUTPUTS, Panels, padded};
use super::vectors::interface::{PanelSums, Vectors};

/// Tokens of a tile: with AVX-512, 24 sums, four weights and an input of the 32 registers.
const TOKENS: usize = 6;
/// Groups of a block, 16 KiB.
const BLOCK: usize = 64;

/// `y = x w`. Levels of more than 8 bits are `x` and events, a plane per token, of their higher bytes in ascending order: there
/// are few, and the panel that they read is in a cache.
#[inline(always)]
pub(super) fn matmul_int(vectors: impl Vectors, x: &[i8], higher: &[EventList], w: Panels<'_>, y: &mut [i32]) {
    check_rows_of(x.len(), w.inputs(), y.len(), w.outputs());
    let tokens = y.len() / w.outputs();
    assert!(higher.iter().all(|events| events.planes() == tokens), "a plane for each token");
    if let Some(sizes) = w.grouped() {
        grouped::product(vectors, x, higher, w, sizes, y);
    } else if tokens == 1 {
        gemv(vectors, x, higher, w, y);
    } else if vectors.multiply(x, w, y) {
        add_higher_of_all(vectors, higher, w, y);
    } else if w.inputs().is_multiple_of(GROUP) {
        tiles(vectors, x, higher, w, y);
    } else {
        tiles(vectors, &padded(x, w.inputs(), w.inputs().next_multiple_of(GROUP)), higher, w, y);
    }
}

/// Adds to a token's sums what the higher bytes of its levels give.
#[inline(always)]
fn add_higher(vectors: impl Vectors, higher: &[EventList], token: usize, panel: &[i8], y: &mut [i32]) {
    if higher.iter().all(|events| events.is_silent(token)) {
        return;
    }
    let mut sums: PanelSums = [0; OUTPUTS];
    let bytes = higher.iter().rev().map(|events| (events.plane(token), Prefetch::Nothing));
    vectors.train(bytes, 256, panel, &mut sums);
    y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = y.wrapping_add(sum.wrapping_mul(256)));
}

#[inline(always)]
fn gemv(vectors: impl Vectors, x: &[i8], higher: &[EventList], w: Panels<'_>, y: &mut [i32]) {
    for (panel, y) in w.panels().zip(y.chunks_mut(OUTPUTS)) {
        let sums = vectors.gemv(x, panel);
        y.copy_from_slice(&sums[..y.len()]);
        if !higher.is_empty() {
            add_higher(vectors, higher, 0, panel, y);
        }
    }
}

/// The same for all tokens and outputs.
#[inline(always)]
fn add_higher_of_all(vectors: impl Vectors, higher: &[EventList], w: Panels<'_>, y: &mut [i32]) {
    if higher.is_empty() {
        return;
    }
    for (p, panel) in w.panels().enumerate() {
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(w.outputs());
        for (token, y) in y.chunks_exact_mut(w.outputs()).enumerate() {
            add_higher(vectors, higher, token, panel, &mut y[columns.clone()]);
        }
    }
}

#[inline(always)]
fn tiles(vectors: impl Vectors, x: &[i8], higher: &[EventList], w: Panels<'_>, y: &mut [i32]) {
    let (k, m) = (w.inputs().next_multiple_of(GROUP), w.outputs());
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
        y.fill(vectors.origin(x));
    }
    let mut block = [Group([0; GROUP * OUTPUTS]); BLOCK];
    for (p, panel) in w.panels().enumerate() {
        let width = (m - p * OUTPUTS).min(OUTPUTS);
        for (b, rows) in panel.chunks(BLOCK * GROUP * OUTPUTS).enumerate() {
            let block = &mut block[..rows.len().div_ceil(GROUP * OUTPUTS)];
            vectors.interleave(rows, block);
            pass_tokens(vectors, &x[b * BLOCK * GROUP..], k, block, &mut y[p * OUTPUTS..], m, width);
        }
        if !higher.is_empty() {
            for (token, y) in y.chunks_exact_mut(m).enumerate() {
                add_higher(vectors, higher, token, panel, &mut y[p * OUTPUTS..][..width]);
            }
        }
    }
}

/// `y += x w` for all tokens, whose rows lie `k` and `m` apart, and the `width` outputs of a panel.
#[inline(always)]
fn pass_tokens(
    vectors: impl Vectors,
    mut x: &[i8],
    k: usize,
    block: &[Group],
    mut y: &mut [i32],
    m: usize,
    width: usize,
) {
    loop {
        match y.len().div_ceil(m) {
            0 => return,
            1 => return pass_tile::<1>(vectors, x, k, block, y, m, width),
            2 => return pass_tile::<2>(vectors, x, k, block, y, m, width),
            3 => return pass_tile::<3>(vectors, x, k, block, y, m, width),
            4 => return pass_tile::<4>(vectors, x, k, block, y, m, width),
            5 => return pass_tile::<5>(vectors, x, k, block, y, m, width),
            TOKENS => return pass_tile::<TOKENS>(vectors, x, k, block, y, m, width),
            _ => pass_tile::<TOKENS>(vectors, x, k, block, y, m, width),
        }
        x = &x[TOKENS * k..];
        y = &mut y[TOKENS * m..];
    }
}

#[inline(always)]
fn pass_tile<const T: usize>(
    vectors: impl Vectors,
    x: &[i8],
    k: usize,
    block: &[Group],
    y: &mut [i32],
    m: usize,
    width: usize,
) {
    let rows: [&[i8]; T] = std::array::from_fn(|t| &x[t * k..][..block.len() * GROUP]);
    let mut sums: [PanelSums; T] = [[0; OUTPUTS]; T];
    if width == OUTPUTS {
        // Rows as long as the sums, so that copies are vectors.
        sums.iter_mut().zip(y.chunks(m)).for_each(|(sums, y)| sums.copy_from_slice(&y[..OUTPUTS]));
        vectors.tile(rows, block, &mut sums);
        sums.iter().zip(y.chunks_mut(m)).for_each(|(sums, y)| y[..OUTPUTS].copy_from_slice(sums));
    } else {
        sums.iter_mut().zip(y.chunks(m)).for_each(|(sums, y)| sums[..width].copy_from_slice(&y[..width]));
        vectors.tile(rows, block, &mut sums);
        sums.iter().zip(y.chunks_mut(m)).for_each(|(sums, y)| y[..width].copy_from_slice(&sums[..width]));
    }
}

#[inline(always)]
pub(super) fn embed_columns(ids: &[i32], w: Panels<'_>, y: &mut [i32]) -> bool {
    assert_eq!(ids.len() * w.inputs(), y.len(), "a column for each id");
    ids.iter().zip(y.chunks_exact_mut(w.inputs())).all(|(&id, y)| {
        let Some(id) = usize::try_from(id).ok().filter(|&id| id < w.outputs()) else { return false };
        let rows = w.panel(id / OUTPUTS).chunks_exact(OUTPUTS);
        y.iter_mut().zip(rows).for_each(|(y, row)| *y = row[id % OUTPUTS].into());
        true
    })
}

/// The low byte of each level, with a sign, and what is left: `x = 256 * rest + byte`. Whether anything is left.
#[inline(always)]
pub(super) fn split(x: &mut [i32], bytes: &mut [i8]) -> bool {
    assert_eq!(x.len(), bytes.len(), "a byte for each level");
    for (x, byte) in x.iter_mut().zip(bytes) {
        *byte = *x as i8;
        *x = (*x - i32::from(*byte)) >> 8;
    }
    x.iter().fold(0, |any, x| any | x) != 0
}
