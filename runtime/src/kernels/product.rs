//! The integer product of levels and 8-bit weights, which are packed once so that they are read in order.
//!
//! `[m / 64][k / 4][64][4]`: four inputs of an output lie side by side, sixty-four outputs make a panel. Many tokens: a block
//! of a panel stays in the first-level cache while all tokens pass, six at a time. Few: the weights are walked once.

use super::check_rows_of;
use super::neuron::Level;
use super::pages::{Line, Lines};
use super::vectors::{TILE, Vectors};

/// Inputs of an output that lie side by side.
pub(super) const GROUP: usize = 4;
/// Outputs of a panel.
pub const OUTPUTS: usize = 64;
/// Tokens of a tile: with twelve sums, two weights, an input and a product the sixteen registers are full.
const TOKENS: usize = 6;
/// Groups of a block, 16 KiB.
const BLOCK: usize = 64;
/// Up to so many tokens, the weights are walked for each.
const WALK_TOKENS: usize = 2;

/// Packed weights. What pads them is zero.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    inputs: usize,
    outputs: usize,
    lines: Lines,
}

impl PackedI8 {
    /// Lines that packed weights take.
    pub fn line_count(inputs: usize, outputs: usize) -> usize {
        outputs.div_ceil(OUTPUTS) * inputs.div_ceil(GROUP) * GROUP
    }

    /// From lines that `pack` filled.
    pub fn new(lines: Lines, inputs: usize, outputs: usize) -> Self {
        assert_eq!(lines.len(), Self::line_count(inputs, outputs), "lines of {inputs} inputs, {outputs} outputs");
        Self { inputs, outputs, lines }
    }

    /// Packs `w[inputs, outputs]`, none of them -128, into lines of zeros.
    pub fn pack(w: &[i8], inputs: usize, outputs: usize, lines: &mut [Line]) {
        assert!(
            inputs > 0 && outputs > 0 && w.len() == inputs * outputs,
            "weights of {inputs} inputs, {outputs} outputs"
        );
        assert_eq!(lines.len(), Self::line_count(inputs, outputs), "lines of {inputs} inputs, {outputs} outputs");
        let groups = inputs.div_ceil(GROUP);
        for (p, panel) in lines.chunks_exact_mut(groups * GROUP).enumerate() {
            for (group, rows) in panel.chunks_exact_mut(GROUP).zip(w.chunks(GROUP * outputs)) {
                pack_group(&rows[p * OUTPUTS..], outputs, (outputs - p * OUTPUTS).min(OUTPUTS), group);
            }
        }
    }

    /// The outputs of some panels, 64 each.
    pub fn panels(&self, range: std::ops::Range<usize>) -> Self {
        let lines = self.groups() * GROUP;
        let outputs = self.outputs.min(range.end * OUTPUTS) - range.start * OUTPUTS;
        Self { inputs: self.inputs, outputs, lines: self.lines.slice(range.start * lines..range.end * lines) }
    }

    pub fn panel_count(&self) -> usize {
        self.outputs.div_ceil(OUTPUTS)
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Memory that the weights take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }
}

/// `width` outputs of up to four inputs, whose rows lie `stride` apart.
#[inline(always)]
fn pack_group(rows: &[i8], stride: usize, width: usize, group: &mut [Line]) {
    if width == OUTPUTS && rows.len() >= 3 * stride + OUTPUTS {
        let rows: [&[i8]; GROUP] = std::array::from_fn(|i| &rows[i * stride..][..OUTPUTS]);
        for (o, line) in (0..OUTPUTS).step_by(16).zip(group) {
            let [a, b, c, d] = rows.map(|row| &row[o..o + 16]);
            for (i, four) in line.0.chunks_exact_mut(GROUP).enumerate() {
                four.copy_from_slice(&[a[i], b[i], c[i], d[i]]);
            }
        }
        return;
    }
    for (i, row) in rows.chunks(stride).enumerate() {
        for (o, &w) in row[..width].iter().enumerate() {
            group[o / 16].0[o % 16 * GROUP + i] = w;
        }
    }
}

#[inline(always)]
pub(super) fn product_i8(vectors: impl Vectors, x: &[i8], w: &PackedI8, y: &mut [i32]) {
    check_rows_of(x.len(), w.inputs, y.len(), w.outputs);
    if x.len() / w.inputs <= WALK_TOKENS && w.inputs.is_multiple_of(GROUP) {
        walk(vectors, x, w, y);
    } else {
        padded_i16(vectors, &widen(x, w.inputs), w, y);
    }
}

#[inline(always)]
pub(super) fn product_i16(vectors: impl Vectors, x: &[i16], w: &PackedI8, y: &mut [i32]) {
    check_rows_of(x.len(), w.inputs, y.len(), w.outputs);
    let widened;
    let x = if w.inputs.is_multiple_of(GROUP) {
        x
    } else {
        widened = widen(x, w.inputs);
        &widened
    };
    padded_i16(vectors, x, w, y);
}

/// `x = 256 high + low`, and the product is linear.
#[inline(always)]
pub(super) fn product_i32(vectors: impl Vectors, x: &[i32], w: &PackedI8, y: &mut [i32]) {
    let high: Vec<i16> = x.iter().map(|&x| (x >> 8) as i16).collect();
    let low: Vec<i16> = x.iter().map(|&x| (x & 0xff) as i16).collect();
    product_i16(vectors, &high, w, y);
    let mut rest = vec![0; y.len()];
    product_i16(vectors, &low, w, &mut rest);
    // The sum fits; 256 times the high part alone may not, and wraps back.
    y.iter_mut().zip(rest).for_each(|(y, rest)| *y = y.wrapping_mul(256).wrapping_add(rest));
}

/// Rows of whole groups.
#[inline(always)]
fn padded_i16(vectors: impl Vectors, x: &[i16], w: &PackedI8, y: &mut [i32]) {
    if y.len() / w.outputs > WALK_TOKENS {
        tiles(vectors, x, w, y);
    } else {
        walk(vectors, x, w, y);
    }
}

/// Rows in 16 bits, padded to whole groups.
#[inline(always)]
fn widen<L: Level>(x: &[L], inputs: usize) -> Vec<i16> {
    let k = inputs.next_multiple_of(GROUP);
    let mut wide = vec![0; x.len() / inputs * k];
    for (wide, x) in wide.chunks_exact_mut(k).zip(x.chunks_exact(inputs)) {
        wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.to_i16());
    }
    wide
}

#[inline(always)]
fn walk<L: Level>(vectors: impl Vectors, x: &[L], w: &PackedI8, y: &mut [i32]) {
    let (groups, m) = (w.groups(), w.outputs);
    for (p, panel) in w.lines.chunks_exact(groups * GROUP).enumerate() {
        let columns = p * OUTPUTS..((p + 1) * OUTPUTS).min(m);
        for (x, y) in x.chunks_exact(groups * GROUP).zip(y.chunks_exact_mut(m)) {
            let sums = vectors.walk(x, panel);
            let y = &mut y[columns.clone()];
            y.copy_from_slice(&sums[..y.len()]);
        }
    }
}

#[inline(always)]
fn tiles(vectors: impl Vectors, x: &[i16], w: &PackedI8, y: &mut [i32]) {
    let (groups, m) = (w.groups(), w.outputs);
    y.fill(0);
    for (p, panel) in w.lines.chunks_exact(groups * GROUP).enumerate() {
        let width = (m - p * OUTPUTS).min(OUTPUTS);
        for (block, lines) in panel.chunks(BLOCK * GROUP).enumerate() {
            let x = &x[block * BLOCK * GROUP..];
            pass_tokens(vectors, x, groups * GROUP, lines, &mut y[p * OUTPUTS..], m, width);
        }
    }
}

/// `y += x w` for all tokens, whose rows lie `k` and `m` apart, and the `width` outputs of a panel.
#[inline(always)]
fn pass_tokens(
    vectors: impl Vectors,
    mut x: &[i16],
    k: usize,
    lines: &[Line],
    mut y: &mut [i32],
    m: usize,
    width: usize,
) {
    loop {
        match y.len().div_ceil(m) {
            0 => return,
            1 => return pass_outputs::<1>(vectors, x, k, lines, y, m, width),
            2 => return pass_outputs::<2>(vectors, x, k, lines, y, m, width),
            3 => return pass_outputs::<3>(vectors, x, k, lines, y, m, width),
            4 => return pass_outputs::<4>(vectors, x, k, lines, y, m, width),
            5 => return pass_outputs::<5>(vectors, x, k, lines, y, m, width),
            TOKENS => return pass_outputs::<TOKENS>(vectors, x, k, lines, y, m, width),
            _ => pass_outputs::<TOKENS>(vectors, x, k, lines, y, m, width),
        }
        x = &x[TOKENS * k..];
        y = &mut y[TOKENS * m..];
    }
}

#[inline(always)]
fn pass_outputs<const T: usize>(
    vectors: impl Vectors,
    x: &[i16],
    k: usize,
    lines: &[Line],
    y: &mut [i32],
    m: usize,
    width: usize,
) {
    let inputs = lines.len() / GROUP * GROUP;
    let rows: [&[i16]; T] = std::array::from_fn(|t| &x[t * k..][..inputs]);
    for from in (0..width).step_by(TILE) {
        let mut sums = [[0; TILE]; T];
        vectors.tile(rows, lines, from / TILE, &mut sums);
        for (sums, y) in sums.iter().zip(y.chunks_mut(m)) {
            y[from..width].iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
        }
    }
}
