//! Spiking attention of many queries by a unit that multiplies matrices of bytes: scores are one product, and so are the sums of
//! weighted values, with weights as two bytes.
//!
//! Law: the same integers as in `ssa`. Sums wrap there and here, and the verifier promises that what they come to does not.

use super::event_list::HALVES;
use super::panel::{OUTPUTS, Panels};
use super::ssa_head::{RowTotal, SsaHead};
use super::vectors::interface::Vectors;
use std::ops::Range;

/// Queries at a time: what is made ready of keys and values for a product pays for so many, and all that they work on stays
/// in a cache.
const QUERIES: usize = 64;
/// Queries of a product at least.
const LEAST: usize = 16;

/// Memory that it works in.
#[derive(Debug, Default)]
pub(super) struct ByteScratch {
    /// Keys as weights: panels of 64 keys, whose inputs are channels.
    keys: Vec<i8>,
    /// Values as weights: panels of 64 channels, whose inputs are keys.
    values: Vec<i8>,
    queries: Vec<i8>,
    scores: Vec<i32>,
    weights: Vec<i16>,
    low: Vec<i8>,
    high: Vec<i8>,
    sums: [Vec<i32>; 2],
}

/// Makes keys and values of a head ready. Inputs are whole vectors of 64; what is missing is zero.
#[inline(always)]
pub(super) fn prepare(k: &[i8], v: &[i8], head: &SsaHead<'_>, scratch: &mut ByteScratch) {
    let (channels, kd) = (head.width.next_multiple_of(OUTPUTS), head.kd);
    let keys = (k.len() / kd).next_multiple_of(OUTPUTS);
    scratch.keys.clear();
    scratch.keys.resize(keys * channels, 0);
    for (panel, k) in scratch.keys.chunks_exact_mut(OUTPUTS * channels).zip(k.chunks(OUTPUTS * kd)) {
        for (j, key) in k.chunks_exact(kd).enumerate() {
            let key = &key[head.shared..][..head.width];
            panel.chunks_exact_mut(OUTPUTS).zip(key).for_each(|(row, &x)| row[j] = x);
        }
    }
    scratch.values.clear();
    scratch.values.resize(keys * channels, 0);
    for (p, panel) in scratch.values.chunks_exact_mut(OUTPUTS * keys).enumerate() {
        let columns = columns(head, p);
        for (row, value) in panel.chunks_exact_mut(OUTPUTS).zip(v.chunks_exact(kd)) {
            row[..columns.len()].copy_from_slice(&value[head.shared..][columns.clone()]);
        }
    }
}

/// Channels of panel `p`.
fn columns(head: &SsaHead<'_>, p: usize) -> Range<usize> {
    p * OUTPUTS..head.width.min((p + 1) * OUTPUTS)
}

/// A head of all queries, with keys and values as they were made ready. Keys that fired.
#[inline(always)]
pub(super) fn many(
    vectors: impl Vectors,
    q: &[i8],
    head: &SsaHead<'_>,
    scratch: &mut ByteScratch,
    out: &mut [f32],
) -> u64 {
    let mut awake = 0;
    for (group, q) in q.chunks(QUERIES * head.d).enumerate() {
        let first = group * QUERIES;
        let met = met(head, first..first + q.len() / head.d);
        let mut totals = [RowTotal::default(); QUERIES];
        score(vectors, q, head, &met, scratch);
        awake += fire(vectors, q.len() / head.d, first, head, &met, scratch, &mut totals);
        weigh(vectors, &totals[..q.len() / head.d], first, head, &met, scratch, out);
    }
    awake
}

/// All keys that some queries meet, in whole panels.
fn met(head: &SsaHead<'_>, queries: Range<usize>) -> Range<usize> {
    let (start, end) = (head.keys_met(queries.start).start, head.keys_met(queries.end - 1).end);
    start / OUTPUTS * OUTPUTS..end.next_multiple_of(OUTPUTS)
}

/// Scores of some queries with the keys that they meet, a row for each.
#[inline(always)]
fn score(vectors: impl Vectors, q: &[i8], head: &SsaHead<'_>, met: &Range<usize>, scratch: &mut ByteScratch) {
    let channels = head.width.next_multiple_of(OUTPUTS);
    let ByteScratch { keys, queries, scores, .. } = scratch;
    let rows = (q.len() / head.d).max(LEAST);
    queries.clear();
    queries.resize(rows * channels, 0);
    for (row, q) in queries.chunks_exact_mut(channels).zip(q.chunks_exact(head.d)) {
        row[..head.width].copy_from_slice(&q[head.from..][..head.width]);
    }
    scores.resize(rows * met.len(), 0);
    let keys = Panels::new(&keys[met.start * channels..met.end * channels], channels, met.len());
    assert!(vectors.multiply(queries, keys, scores), "there is a unit, and there are enough queries");
}

/// Which keys fire, and what they weigh together for each query. Keys that fired.
#[inline(always)]
fn fire(
    vectors: impl Vectors,
    queries: usize,
    first: usize,
    head: &SsaHead<'_>,
    met: &Range<usize>,
    scratch: &mut ByteScratch,
    totals: &mut [RowTotal; QUERIES],
) -> u64 {
    let ByteScratch { scores, weights, low, high, .. } = scratch;
    let stride = met.len();
    for bytes in [&mut *low, &mut *high] {
        bytes.clear();
        bytes.resize(queries.max(LEAST) * stride, 0);
    }
    let mut awake = 0;
    for (i, total) in totals[..queries].iter_mut().enumerate() {
        let own = head.keys_met(first + i);
        let own = own.start - met.start..own.end - met.start;
        weights.clear();
        weights.resize(stride, 0);
        *total = head.fire(vectors, first + i, &mut scores[i * stride..][own.clone()], &mut weights[own.clone()]);
        awake += weights[own].iter().map(|&w| u64::from(w > 0)).sum::<u64>();
        let [low, high] =
            [&mut *low, &mut *high].map(|bytes| bytes[i * stride..][..stride].as_chunks_mut::<HALVES>().0);
        for (weights, (low, high)) in weights.as_chunks::<HALVES>().0.iter().zip(low.iter_mut().zip(high)) {
            vectors.halves(weights, low, high);
        }
    }
    awake
}

/// The weighted means of values.
#[inline(always)]
fn weigh(
    vectors: impl Vectors,
    totals: &[RowTotal],
    first: usize,
    head: &SsaHead<'_>,
    met: &Range<usize>,
    scratch: &mut ByteScratch,
    out: &mut [f32],
) {
    let ByteScratch { values, low, high, sums, .. } = scratch;
    let panels = head.width.div_ceil(OUTPUTS);
    for (p, values) in values.chunks_exact(values.len() / panels).enumerate() {
        let columns = columns(head, p);
        let values = Panels::new(&values[met.start * OUTPUTS..met.end * OUTPUTS], met.len(), columns.len());
        for (weights, sums) in [&*low, high].into_iter().zip(sums.iter_mut()) {
            sums.resize(weights.len() / met.len() * columns.len(), 0);
            assert!(vectors.multiply(weights, values, sums), "there is a unit, and there are enough queries");
        }
        let [low, high] = sums;
        let rows = low.chunks_exact(columns.len()).zip(high.chunks_exact(columns.len()));
        for (i, ((low, high), &total)) in rows.zip(totals).enumerate() {
            let out = &mut out[head.results(first + i)][columns.clone()];
            for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
                *out = total.mean(high.wrapping_mul(256).wrapping_add(low));
            }
        }
    }
}
