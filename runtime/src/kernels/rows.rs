//! A synapse driven by events: the weight rows of the channels that fired are added or subtracted, no others are read.
//!
//! Eight rows a pass, because the sums are then read and written once for eight; their sum fits 16 bits.

use super::vectors::Vectors;

const ROWS: usize = 8;

#[inline(always)]
pub(super) fn accumulate(vectors: impl Vectors, spikes: &[i8], w: &[i8], acc: &mut [i32]) -> usize {
    assert!(!acc.is_empty() && spikes.len() * acc.len() == w.len(), "a row of weights for each channel");
    let fired = |sign: i8| {
        let channels = spikes.iter().zip(w.chunks_exact(acc.len()));
        channels.filter(move |(spike, _)| **spike == sign).map(|(_, row)| row).collect::<Vec<&[i8]>>()
    };
    let (plus, minus) = (fired(1), fired(-1));
    add::<false>(vectors, &plus, acc);
    add::<true>(vectors, &minus, acc);
    plus.len() + minus.len()
}

#[inline(always)]
fn add<const SUBTRACT: bool>(vectors: impl Vectors, rows: &[&[i8]], acc: &mut [i32]) {
    let (eights, rest) = rows.as_chunks::<ROWS>();
    eights.iter().for_each(|rows| vectors.add_rows::<ROWS, SUBTRACT>(rows, acc));
    let (twos, ones) = rest.as_chunks::<2>();
    twos.iter().for_each(|rows| vectors.add_rows::<2, SUBTRACT>(rows, acc));
    for row in ones {
        let signed = |w: i8| i32::from(if SUBTRACT { -w } else { w });
        acc.iter_mut().zip(*row).for_each(|(acc, &w)| *acc += signed(w));
    }
}
