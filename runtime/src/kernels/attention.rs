//! Causal attention in f32.
//!
//! Law: a score is one ascending chain over channels, an output one ascending chain over keys; no matrix of all queries by
//! all keys is made. So scores are the product of queries with the keys as output-major weights, outputs the product of
//! exponentials with the values as input-major weights, and both are `linear`'s tiles, six queries at a time.

use super::check::check_attention;
use super::exponential::exponentials;
use super::linear::{
    LANES, OutputLanes, StridedRows, TOKENS, add_rows, gather_columns, gather_rows, gemv_outputs, pass_tokens,
};
use super::norm::row_sum;
use super::vectors::interface::Vectors;

#[inline(always)]
pub(super) fn causal(
    vectors: impl Vectors,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    d: usize,
    heads: usize,
    scale: f32,
    out: &mut [f32],
) {
    check_attention(q.len(), k.len(), v.len(), d, heads, out.len());
    out.fill(0.0);
    let width = d / heads;
    for from in (0..d).step_by(width) {
        let head = DenseHead { d, width, scale, k: &k[from.min(k.len())..], v: &v[from.min(v.len())..] };
        if q.len() == d {
            head.one(vectors, &q[from..], &mut out[from..]);
        } else if !q.is_empty() {
            head.many(vectors, &q[from..], &mut out[from..]);
        }
    }
}

/// A head: its channels are the first `width` of rows that lie `d` apart.
struct DenseHead<'a> {
    d: usize,
    width: usize,
    scale: f32,
    k: &'a [f32],
    v: &'a [f32],
}

impl DenseHead<'_> {
    fn keys(&self) -> usize {
        self.k.len().div_ceil(self.d)
    }

    #[inline(always)]
    fn one(&self, vectors: impl Vectors, q: &[f32], out: &mut [f32]) {
        let mut scores = vec![0.0; self.keys()];
        gemv_outputs(vectors, &q[..self.width], self.k, self.d, &mut scores);
        let sum = self.weigh(&mut scores);
        let out = &mut out[..self.width];
        self.add_values(&scores, 0, out);
        out.iter_mut().for_each(|out| *out /= sum);
    }

    #[inline(always)]
    fn many(&self, vectors: impl Vectors, q: &[f32], out: &mut [f32]) {
        let (d, keys) = (self.d, self.keys());
        let stride = keys.next_multiple_of(LANES);
        let (transposed, columns) = (self.transposed_keys(vectors), self.value_columns());
        let mut scores = vec![0.0; TOKENS * stride];
        let past = keys - q.len().div_ceil(d);
        for (tile, (q, out)) in q.chunks(TOKENS * d).zip(out.chunks_mut(TOKENS * d)).enumerate() {
            let tokens = q.len().div_ceil(d);
            // The first query of the tile sees so many keys, each further one sees one more.
            let common = past + tile * TOKENS + 1;
            let scores = &mut scores[..tokens * stride];
            scores.fill(0.0);
            let seen = (common + tokens - 1).div_ceil(LANES);
            for (p, panel) in transposed.chunks_exact(self.width).take(seen).enumerate() {
                pass_tokens(StridedRows { values: q, stride: d }, panel, &mut scores[p * LANES..], stride, LANES);
            }
            let mut sums = [0.0; TOKENS];
            for (t, (scores, sum)) in scores.chunks_exact_mut(stride).zip(&mut sums).enumerate() {
                *sum = self.weigh(&mut scores[..common + t]);
            }
            for (p, panel) in columns.chunks_exact(keys).enumerate() {
                let width = (self.width - p * LANES).min(LANES);
                pass_tokens(StridedRows { values: scores, stride }, &panel[..common], &mut out[p * LANES..], d, width);
            }
            for (t, (scores, out)) in scores.chunks_exact(stride).zip(out.chunks_mut(d)).enumerate() {
                let out = &mut out[..self.width];
                self.add_values(&scores[common..common + t], common, out);
                out.iter_mut().for_each(|out| *out /= sums[t]);
            }
        }
    }

    /// Scores to exponentials of what they lack to the best; their sum.
    #[inline(always)]
    fn weigh(&self, scores: &mut [f32]) -> f32 {
        scores.iter_mut().for_each(|score| *score *= self.scale);
        let best = scores.iter().fold(scores[0], |best, &score| if best < score { score } else { best });
        scores.iter_mut().for_each(|score| *score -= best);
        exponentials(scores);
        row_sum(scores, |e| e)
    }

    /// `out += sum of weights[i] * value[first + i]`.
    #[inline(always)]
    fn add_values(&self, weights: &[f32], first: usize, out: &mut [f32]) {
        let value = |j: usize| &self.v[(first + j) * self.d..][..self.width];
        let (eights, rest) = weights.as_chunks::<8>();
        for (i, weights) in eights.iter().enumerate() {
            add_rows(weights, std::array::from_fn(|j| value(i * 8 + j)), out);
        }
        for (j, &weight) in rest.iter().enumerate() {
            add_rows(&[weight], [value(eights.len() * 8 + j)], out);
        }
    }

    /// Sixteen keys side by side, channel by channel: `[keys / 16][width]`.
    #[inline(always)]
    fn transposed_keys(&self, vectors: impl Vectors) -> Vec<OutputLanes> {
        let keys = self.keys();
        let mut panels = vec![[0.0; LANES]; keys.div_ceil(LANES) * self.width];
        for (p, panel) in panels.chunks_exact_mut(self.width).enumerate() {
            let first = p * LANES;
            gather_rows(vectors, &self.k[first * self.d..], self.d, (keys - first).min(LANES), panel);
        }
        panels
    }

    /// Sixteen channels of the values side by side, key by key: `[width / 16][keys]`.
    #[inline(always)]
    fn value_columns(&self) -> Vec<OutputLanes> {
        let keys = self.keys();
        let mut panels = vec![[0.0; LANES]; self.width.div_ceil(LANES) * keys];
        for (p, panel) in panels.chunks_exact_mut(keys).enumerate() {
            let first = p * LANES;
            gather_columns(&self.v[first..], self.d, (self.width - first).min(LANES), panel);
        }
        panels
    }
}
