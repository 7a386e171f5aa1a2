//! A head of spiking attention: where it lies in rows, and which of its keys fire.

use super::pairs::PhaseTable;
use super::topk::outside_topk;
use super::vectors::interface::Vectors;
use snnc_ir::op::Heads;
use std::ops::Range;

/// A head's place in rows, and how its keys fire. Keys are counted from the first that any query sees.
pub(super) struct SsaHead<'a> {
    /// Widths of rows of queries, and of keys and values.
    pub d: usize,
    pub kd: usize,
    /// Its first channel among queries, and among keys and values.
    pub from: usize,
    pub shared: usize,
    pub width: usize,
    /// Its first channel in rows of results, and their width.
    pub out: [usize; 2],
    pub slope: f32,
    /// What scores lose by the distance of their keys, the farthest first; empty: nothing.
    pub falls: &'a [i32],
    pub late: f32,
    pub table: &'a PhaseTable,
    /// Keys before the first query's own.
    pub past: usize,
    pub window: Heads,
    /// Positions before the first key.
    pub seen: usize,
    /// How many keys may fire, if not all.
    pub keys: Option<usize>,
}

impl SsaHead<'_> {
    /// Keys that query `i` sees.
    #[inline(always)]
    pub fn keys_met(&self, i: usize) -> Range<usize> {
        let at = self.past + i;
        self.window.first_key(self.seen + at) - self.seen..at + 1
    }

    /// Its place in query `i`'s row of results.
    #[inline(always)]
    pub fn results(&self, i: usize) -> Range<usize> {
        let [from, stride] = self.out;
        i * stride + from..i * stride + from + self.width
    }

    /// Weights of all keys; what they are together.
    #[inline(always)]
    pub fn fire(&self, vectors: impl Vectors, scores: &mut [i32], weights: &mut [i16]) -> i32 {
        if !self.falls.is_empty() {
            // The last key is the query's own.
            let falls = &self.falls[self.falls.len() - scores.len()..];
            scores.iter_mut().zip(falls).for_each(|(score, fall)| *score -= fall);
        }
        let silent = self.keys.map_or(Vec::new(), |most| outside_topk(scores, most));
        let best = scores.iter().copied().fold(i32::MIN, i32::max);
        for score in scores.iter_mut() {
            let delay = (best - *score) as f32 * self.slope + 0.5;
            let phase = if self.late <= delay { self.late } else { delay };
            let phase = if phase > 0.0 { phase } else { 0.0 };
            // SAFETY: from 0 to `late`, which is below `PHASES`, by the two lines above; of NaN the second makes 0.
            // Test: `dots_and_weighted_sums_are_exact`.
            *score = unsafe { phase.to_int_unchecked::<i32>() };
        }
        vectors.look_up(self.table, self.late as usize, scores, weights);
        silent.into_iter().for_each(|key| weights[key] = 0);
        weights.iter().map(|&w| i32::from(w)).sum()
    }
}
