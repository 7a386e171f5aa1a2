//! What is done to every number on its own: scales, curves; and the rows of an embedding.

use super::activation::with_curve;
use super::check::check_rows;
use super::level::Potential;
use super::panel::OUTPUTS;
use super::vectors::interface::Vectors;
use snnc_ir::Curve;

/// A curve as `Curve::at_f32` has it. Neurons without a gate look theirs up in a table (`activation`).
#[inline(always)]
pub(super) fn curve(curve: Curve, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many results as arguments");
    with_curve!(curve, f, each(x, y, f));
}

/// The curve of `gate`, times `up`.
#[inline(always)]
pub(super) fn gated(curve: Curve, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert!(gate.len() == up.len() && up.len() == y.len(), "as many results as gates and factors");
    with_curve!(curve, f, y.iter_mut().zip(gate).zip(up).for_each(|((y, &gate), &up)| *y = f(gate) * up));
}

#[inline(always)]
fn each(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
}

/// A gain and an offset per channel; and what is added behind them, if something is.
#[inline(always)]
pub(super) fn scale_shift<X: Potential>(
    x: &[X],
    gain: &[f32],
    offset: &[f32],
    residual: Option<&[f32]>,
    y: &mut [f32],
) {
    let d = gain.len();
    check_rows(x.len(), d, y.len());
    assert_eq!(offset.len(), d, "an offset for each channel");
    match residual {
        None => {
            for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)) {
                let channels = y.iter_mut().zip(x).zip(gain.iter().zip(offset));
                channels.for_each(|((y, x), (&gain, &offset))| *y = x.to_f32() * gain + offset);
            }
        }
        Some(residual) => {
            assert_eq!(residual.len(), y.len(), "a residual for each number");
            for ((x, y), residual) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(residual.chunks_exact(d)) {
                let channels = y.iter_mut().zip(x).zip(gain.iter().zip(offset)).zip(residual);
                channels.for_each(|(((y, x), (&gain, &offset)), &r)| *y = x.to_f32() * gain + offset + r);
            }
        }
    }
}

/// The constants of sums that are multiplied by a number of their row: `(x * gain + offset) * by`, and with `shift` then once
/// more `* gain + offset`. Each is of a number per channel.
#[derive(Clone, Copy, Debug)]
pub struct ScaledRows<'a> {
    pub scale: [&'a [f32]; 2],
    pub shift: Option<[&'a [f32]; 2]>,
}

/// Sums with a scale, times a number of their row; what is behind that, and what is added last, if something is.
#[inline(always)]
pub(super) fn scaled_sums(x: &[i32], rows: &ScaledRows<'_>, by: &[f32], residual: Option<&[f32]>, y: &mut [f32]) {
    let [gain, offset] = rows.scale;
    let d = gain.len();
    check_rows(x.len(), d, y.len());
    assert!(offset.len() == d && by.len() == x.len() / d, "an offset for each channel, a number for each row");
    for (i, (x, y)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
        let by = by[i];
        let channels = x.iter().zip(gain.iter().zip(offset));
        let scaled = channels.map(|(&x, (&gain, &offset))| (x as f32 * gain + offset) * by);
        match (rows.shift, residual) {
            (None, None) => y.iter_mut().zip(scaled).for_each(|(y, x)| *y = x),
            (None, Some(residual)) => {
                y.iter_mut().zip(scaled).zip(&residual[i * d..][..d]).for_each(|((y, x), &r)| *y = x + r);
            }
            (Some([gain, offset]), None) => {
                let shift = gain[..d].iter().zip(&offset[..d]);
                y.iter_mut().zip(scaled).zip(shift).for_each(|((y, x), (&gain, &offset))| *y = x * gain + offset);
            }
            (Some([gain, offset]), Some(residual)) => {
                let shift = gain[..d].iter().zip(&offset[..d]);
                let channels = y.iter_mut().zip(scaled).zip(shift).zip(&residual[i * d..][..d]);
                channels.for_each(|(((y, x), (&gain, &offset)), &r)| *y = x * gain + offset + r);
            }
        }
    }
}

/// The largest magnitude of every row, 1 where all are 0; whether all were finite.
#[inline(always)]
pub(super) fn row_max_abs(x: &[f32], d: usize, y: &mut [f32]) -> bool {
    assert!(d > 0 && x.len() == d * y.len(), "a number for each row");
    let mut rows = x.chunks_exact(d).zip(y);
    rows.all(|(x, y)| {
        // Without the sign, bits of floats are in the order of their magnitudes: infinity and NaN are the largest. Integers,
        // because their maximum is the same in any order, so that vectors find it.
        let most = x.iter().fold(0, |most: i32, x| most.max((x.to_bits() & (u32::MAX >> 1)).cast_signed()));
        let most = f32::from_bits(most.cast_unsigned());
        *y = if most == 0.0 { 1.0 } else { most };
        most.is_finite()
    })
}

/// Rows times, or over, a number of their own.
#[inline(always)]
pub(super) fn scale_rows(x: &[f32], by: &[f32], d: usize, divide: bool, y: &mut [f32]) {
    assert!(x.len() == y.len() && x.len() == d * by.len(), "a number for each row");
    if d == 1 {
        let all = x.iter().zip(by).zip(y);
        return if divide {
            all.for_each(|((x, by), y)| *y = x / by);
        } else {
            all.for_each(|((x, by), y)| *y = x * by);
        };
    }
    for ((x, &by), y) in x.chunks_exact(d).zip(by).zip(y.chunks_exact_mut(d)) {
        if divide {
            each(x, y, |x| x / by);
        } else {
            each(x, y, |x| x * by);
        }
    }
}

/// Some channels of every row.
#[inline(always)]
pub(super) fn gather_channels(x: &[f32], d: usize, channels: &[i32], y: &mut [f32]) {
    assert!(d > 0 && x.len() / d * channels.len() == y.len(), "as many results as channels");
    for (x, y) in x.chunks_exact(d).zip(y.chunks_exact_mut(channels.len().max(1))) {
        y.iter_mut().zip(channels).for_each(|(y, &c)| *y = x[c as usize]);
    }
}

/// Rows of `x`; but constants where a sequence has begun in certain ways, which are pairs of ids as openings are.
#[inline(always)]
pub(super) fn at_start(x: &[f32], openings: &[i32], starts: &[i32], rows: &[f32], y: &mut [f32]) {
    let [openings, starts] = [openings, starts].map(|pairs| pairs.as_chunks::<2>().0);
    let d = rows.len() / starts.len().max(1);
    assert!(d > 0 && openings.len() * d == y.len(), "an opening for each row");
    y.copy_from_slice(x);
    for (opening, y) in openings.iter().zip(y.chunks_exact_mut(d)) {
        if let Some(at) = starts.iter().position(|start| start == opening) {
            y.copy_from_slice(&rows[at * d..][..d]);
        }
    }
}

#[inline(always)]
pub(super) fn embed(ids: &[i32], table: &[f32], d: usize, y: &mut [f32]) -> bool {
    assert!(d > 0 && ids.len() * d == y.len(), "a row for each id");
    ids.iter().zip(y.chunks_exact_mut(d)).all(|(&id, y)| {
        let row = usize::try_from(id).ok().and_then(|id| table.get(id.checked_mul(d)?..)?.get(..d));
        row.map(|row| y.copy_from_slice(row)).is_some()
    })
}

/// Prefetches lines of memory.
#[inline(always)]
pub(super) fn prefetch(vectors: impl Vectors, lines: &[i8]) {
    lines.chunks(OUTPUTS).for_each(|line| vectors.prefetch(line.as_ptr()));
}

#[inline(always)]
pub(super) fn read(vectors: impl Vectors, x: &[u64]) -> u64 {
    /// Words of a line, of which four are read at once.
    const LINE: usize = 8;
    /// How far ahead, in words.
    const PREFETCH_WORDS: usize = 512;
    let mut sums = [0; 4 * LINE];
    for lines in x.as_chunks::<{ 4 * LINE }>().0 {
        for line in lines.chunks(LINE) {
            vectors.prefetch(line.as_ptr().wrapping_add(PREFETCH_WORDS).cast());
        }
        sums.iter_mut().zip(lines).for_each(|(sum, word)| *sum ^= word);
    }
    sums.iter().fold(0, |all, sum| all ^ sum)
}
