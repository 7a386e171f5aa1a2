//! Dense f32 products. Law: an output is one ascending chain, `((0 + x0 w0) + x1 w1) + ...`, multiply then add.
//!
//! Many tokens: sixteen outputs' weights are copied side by side, a panel, and a tile of up to six tokens by sixteen
//! outputs stays in registers while the chain runs. Few tokens: weights are read once, in the order in which they lie, for
//! memory is what limits. A chain that pauses in memory between two blocks of inputs is the same chain.

use super::check::{check_product, check_rows_of};
use super::vectors::interface::Vectors;

/// Outputs of a tile: two vectors of eight.
pub(super) const LANES: usize = 16;
/// Tokens of a tile: with twelve sums, two weights, an input and a product the sixteen registers are full.
pub(super) const TOKENS: usize = 6;
/// Inputs of a block: a panel of them, 16 KiB, stays in the first-level cache while all tokens pass.
const BLOCK: usize = 256;
/// From so many tokens on it pays to copy weights into panels.
const PANEL_TOKENS: usize = 6;
/// Outputs whose sums stay in the first-level cache beside the weights that are read.
const COLUMNS: usize = 1024;

pub(super) type OutputLanes = [f32; LANES];

/// DenseWeights `[k, m]`.
#[inline(always)]
pub(super) fn input_major(
    vectors: impl Vectors,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    k: usize,
    m: usize,
    y: &mut [f32],
) {
    check_product(x.len(), w.len(), k, m, y.len());
    y.fill(0.0);
    if y.len() / m < PANEL_TOKENS {
        gemv_rows(x, w, k, m, y);
    } else {
        panels(vectors, x, DenseWeights::InputMajor(w), k, m, y);
    }
    add_bias(bias, m, y);
}

/// DenseWeights `[m, k]`.
#[inline(always)]
pub(super) fn output_major(
    vectors: impl Vectors,
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    k: usize,
    m: usize,
    y: &mut [f32],
) {
    check_product(x.len(), w.len(), k, m, y.len());
    y.fill(0.0);
    if y.len() == m {
        gemv_outputs(vectors, x, w, k, y);
    } else {
        panels(vectors, x, DenseWeights::OutputMajor(w), k, m, y);
    }
    add_bias(bias, m, y);
}

#[inline(always)]
fn add_bias(bias: Option<&[f32]>, m: usize, y: &mut [f32]) {
    let Some(bias) = bias else { return };
    assert_eq!(bias.len(), m, "a bias for each output");
    y.chunks_exact_mut(m).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b));
}

/// Eight inputs per pass over the outputs.
#[inline(always)]
fn gemv_rows(x: &[f32], w: &[f32], k: usize, m: usize, y: &mut [f32]) {
    const ROWS: usize = 8;
    for from in (0..m).step_by(COLUMNS) {
        let columns = from..(from + COLUMNS).min(m);
        for c in (0..k).step_by(ROWS) {
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
                let y = &mut y[columns.clone()];
                let row = |i: usize| &w[(c + i) * m..][columns.clone()];
                if let Some(&x) = x[c..].first_chunk::<ROWS>() {
                    let rows: [&[f32]; ROWS] = std::array::from_fn(row);
                    add_rows(&x, rows, y);
                } else {
                    x[c..].iter().enumerate().for_each(|(i, &x)| add_rows(&[x], [row(i)], y));
                }
            }
        }
    }
}

#[inline(always)]
pub(super) fn add_rows<const N: usize>(x: &[f32; N], rows: [&[f32]; N], y: &mut [f32]) {
    let rows = rows.map(|row| &row[..y.len()]);
    for (o, y) in y.iter_mut().enumerate() {
        let mut sum = *y;
        for (&x, row) in x.iter().zip(rows) {
            sum += x * row[o];
        }
        *y = sum;
    }
}

/// One token, weights in rows `stride` apart: sixteen outputs at a time, transposed in registers.
#[inline(always)]
pub(super) fn gemv_outputs(vectors: impl Vectors, x: &[f32], w: &[f32], stride: usize, y: &mut [f32]) {
    for (y, w) in y.chunks_mut(LANES).zip(w.chunks(LANES * stride)) {
        if y.len() == LANES {
            y.copy_from_slice(&chain_outputs(vectors, x, w, stride));
        } else {
            for (y, w) in y.iter_mut().zip(w.chunks(stride)) {
                *y = x.iter().zip(w).fold(0.0, |sum, (&x, &w)| sum + x * w);
            }
        }
    }
}

#[inline(always)]
fn chain_outputs(vectors: impl Vectors, x: &[f32], w: &[f32], stride: usize) -> OutputLanes {
    let k = x.len();
    let rows = sixteen(w, stride, k);
    let mut sums = [[0.0f32; 8]; 2];
    let whole = k / 8 * 8;
    for c in (0..whole).step_by(8) {
        for (rows, sums) in rows.iter().zip(&mut sums) {
            for (lanes, &x) in vectors.transpose(rows, c).iter().zip(&x[c..c + 8]) {
                sums.iter_mut().zip(lanes).for_each(|(sum, &w)| *sum += x * w);
            }
        }
    }
    let mut all = [0.0; LANES];
    all.iter_mut().zip(sums.as_flattened()).for_each(|(all, sum)| *all = *sum);
    for c in whole..k {
        all.iter_mut().zip(rows.as_flattened()).for_each(|(sum, row)| *sum += x[c] * row[c]);
    }
    all
}

/// Two times eight rows of weights.
#[inline(always)]
fn sixteen(w: &[f32], stride: usize, k: usize) -> [[&[f32]; 8]; 2] {
    let mut rows: [[&[f32]; 8]; 2] = [[&[]; 8]; 2];
    rows.as_flattened_mut().iter_mut().enumerate().for_each(|(o, row)| *row = &w[o * stride..][..k]);
    rows
}

#[derive(Clone, Copy)]
enum DenseWeights<'a> {
    InputMajor(&'a [f32]),
    OutputMajor(&'a [f32]),
}

/// All tokens by all outputs, panel by panel.
#[inline(always)]
fn panels(vectors: impl Vectors, x: &[f32], w: DenseWeights<'_>, k: usize, m: usize, y: &mut [f32]) {
    let mut panel = [[0.0; LANES]; BLOCK];
    for o in (0..m).step_by(LANES) {
        for c in (0..k).step_by(BLOCK) {
            let panel = &mut panel[..(k - c).min(BLOCK)];
            let width = (m - o).min(LANES);
            match w {
                DenseWeights::InputMajor(w) => gather_columns(&w[c * m + o..], m, width, panel),
                DenseWeights::OutputMajor(w) => gather_rows(vectors, &w[o * k + c..], k, width, panel),
            }
            pass_tokens(StridedRows { values: &x[c..], stride: k }, panel, &mut y[o..], m, width);
        }
    }
}

/// The panel of `width` outputs of weights `[k, m]` of which `w` is what begins at the first.
#[inline(always)]
pub(super) fn gather_columns(w: &[f32], m: usize, width: usize, panel: &mut [OutputLanes]) {
    for (lanes, w) in panel.iter_mut().zip(w.chunks(m)) {
        if width == LANES {
            lanes.copy_from_slice(&w[..LANES]);
        } else {
            *lanes = [0.0; LANES];
            lanes[..width].copy_from_slice(&w[..width]);
        }
    }
}

/// The panel of `width` outputs whose weights lie in rows `stride` apart.
#[inline(always)]
pub(super) fn gather_rows(vectors: impl Vectors, w: &[f32], stride: usize, width: usize, panel: &mut [OutputLanes]) {
    let inputs = panel.len();
    if width < LANES {
        panel.fill([0.0; LANES]);
        for (o, row) in w.chunks(stride).take(width).enumerate() {
            panel.iter_mut().zip(row).for_each(|(lanes, &w)| lanes[o] = w);
        }
        return;
    }
    let rows = sixteen(w, stride, inputs);
    let whole = inputs / 8 * 8;
    for c in (0..whole).step_by(8) {
        for (half, rows) in rows.iter().enumerate() {
            for (lanes, transposed) in panel[c..c + 8].iter_mut().zip(&vectors.transpose(rows, c)) {
                lanes[8 * half..8 * half + 8].copy_from_slice(transposed);
            }
        }
    }
    for (c, lanes) in panel.iter_mut().enumerate().skip(whole) {
        lanes.iter_mut().zip(rows.as_flattened()).for_each(|(lane, row)| *lane = row[c]);
    }
}

/// Rows that lie `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct StridedRows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

/// `y += x w` for all tokens, whose rows of `y` lie `m` apart, and `width` of sixteen outputs.
#[inline(always)]
pub(super) fn pass_tokens(x: StridedRows<'_>, panel: &[OutputLanes], y: &mut [f32], m: usize, width: usize) {
    let (mut x, mut y) = (x, y);
    loop {
        match y.len().div_ceil(m) {
            0 => return,
            1 => return tile::<1>(x, panel, y, m, width),
            2 => return tile::<2>(x, panel, y, m, width),
            3 => return tile::<3>(x, panel, y, m, width),
            4 => return tile::<4>(x, panel, y, m, width),
            5 => return tile::<5>(x, panel, y, m, width),
            TOKENS => return tile::<TOKENS>(x, panel, y, m, width),
            _ => tile::<TOKENS>(x, panel, y, m, width),
        }
        x.values = &x.values[TOKENS * x.stride..];
        y = &mut y[TOKENS * m..];
    }
}

#[inline(always)]
fn tile<const T: usize>(x: StridedRows<'_>, panel: &[OutputLanes], y: &mut [f32], m: usize, width: usize) {
    let mut sums = [[0.0; LANES]; T];
    for (sums, y) in sums.iter_mut().zip(y.chunks(m)) {
        sums[..width].copy_from_slice(&y[..width]);
    }
    let rows: [&[f32]; T] = std::array::from_fn(|t| &x.values[t * x.stride..][..panel.len()]);
    let sums = chains(rows, panel, sums);
    for (sums, y) in sums.iter().zip(y.chunks_mut(m)) {
        y[..width].copy_from_slice(&sums[..width]);
    }
}

/// The sums after the panel's inputs.
#[inline(always)]
fn chains<const T: usize>(x: [&[f32]; T], panel: &[OutputLanes], mut sums: [OutputLanes; T]) -> [OutputLanes; T] {
    for (c, w) in panel.iter().enumerate() {
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = x[c];
            sums.iter_mut().zip(w).for_each(|(sum, &w)| *sum += x * w);
        }
    }
    sums
}

/// Row by row and head by head; vectors lie across a head's outputs.
#[inline(always)]
pub(super) fn head_linear(x: &[f32], w: &[f32], k: usize, m: usize, y: &mut [f32]) {
    let heads = w.len() / (k * m);
    check_rows_of(x.len(), heads * k, y.len(), heads * m);
    for (x, y) in x.chunks_exact(heads * k).zip(y.chunks_exact_mut(heads * m)) {
        for ((x, w), y) in x.chunks_exact(k).zip(w.chunks_exact(k * m)).zip(y.chunks_exact_mut(m)) {
            for (c, y) in (0..).step_by(HEAD_BLOCK).zip(y.chunks_mut(HEAD_BLOCK)) {
                let rows = x.iter().zip(w.chunks_exact(m)).map(|(&x, row)| (x, &row[c..]));
                // Blocks of one length stay in registers.
                let mut sums = [0.0; HEAD_BLOCK];
                if y.len() == HEAD_BLOCK {
                    for (x, row) in rows {
                        sums.iter_mut().zip(&row[..HEAD_BLOCK]).for_each(|(sum, &w)| *sum += x * w);
                    }
                } else {
                    for (x, row) in rows {
                        sums[..y.len()].iter_mut().zip(row).for_each(|(sum, &w)| *sum += x * w);
                    }
                }
                y.copy_from_slice(&sums[..y.len()]);
            }
        }
    }
}

/// Outputs of a head that are summed at once.
const HEAD_BLOCK: usize = 64;
