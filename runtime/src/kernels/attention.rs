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
use snnc_ir::op::Heads;

/// What the attention of a layer is made of.
#[derive(Clone, Copy, Debug)]
pub struct DenseShape<'a> {
    pub heads: Heads,
    /// Of a head.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// By query head: what a scaled score loses per token between query and key; empty: nothing.
    pub alibi: &'a [f32],
}

#[inline(always)]
pub(super) fn causal(vectors: impl Vectors, q: &[f32], k: &[f32], v: &[f32], shape: &DenseShape<'_>, out: &mut [f32]) {
    let &DenseShape { heads, width, scale, alibi } = shape;
    check_attention(q.len(), k.len(), v.len(), width, heads, out.len());
    out.fill(0.0);
    let (d, kd) = (heads.query as usize * width, heads.kv as usize * width);
    let past = k.len() / kd - q.len() / d;
    // What the first query does not see, none does.
    let seen = heads.first_key(past);
    for h in 0..heads.query as usize {
        let (from, shared) = (h * width, seen * kd + h / heads.group() * width);
        let (k, v) = (&k[shared.min(k.len())..], &v[shared.min(v.len())..]);
        let head = DenseHead { d, kd, width, scale, alibi: alibi.get(h).copied(), heads, past, seen, k, v };
        if q.len() == d {
            head.one(vectors, &q[from..], &mut out[from..]);
        } else if !q.is_empty() {
            head.many(vectors, &q[from..], &mut out[from..]);
        }
    }
}

/// A head: its channels are the first `width` of rows, which lie `d` apart, those of keys and values `kd` apart.
struct DenseHead<'a> {
    d: usize,
    kd: usize,
    width: usize,
    scale: f32,
    alibi: Option<f32>,
    heads: Heads,
    /// Tokens before the first query's own.
    past: usize,
    /// The first position of which there is a key.
    seen: usize,
    k: &'a [f32],
    v: &'a [f32],
}

impl DenseHead<'_> {
    fn keys(&self) -> usize {
        self.k.len().div_ceil(self.kd)
    }

    #[inline(always)]
    fn one(&self, vectors: impl Vectors, q: &[f32], out: &mut [f32]) {
        let mut scores = vec![0.0; self.keys()];
        gemv_outputs(vectors, &q[..self.width], self.k, self.kd, &mut scores);
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
        for (tile, (q, out)) in q.chunks(TOKENS * d).zip(out.chunks_mut(TOKENS * d)).enumerate() {
            let tokens = q.len().div_ceil(d);
            let at = self.past + tile * TOKENS;
            // The first key of the tile's first query, and how many keys that one sees; each further one sees one more.
            let (first, common) = (self.first_key(at), at + 1 - self.seen);
            let scores = &mut scores[..tokens * stride];
            scores.fill(0.0);
            let panels = (common + tokens - 1).div_ceil(LANES);
            for (p, panel) in transposed.chunks_exact(self.width).enumerate().take(panels).skip(first / LANES) {
                pass_tokens(StridedRows { values: q, stride: d }, panel, &mut scores[p * LANES..], stride, LANES);
            }
            let mut sums = [0.0; TOKENS];
            for (t, (scores, sum)) in scores.chunks_exact_mut(stride).zip(&mut sums).enumerate() {
                let own = self.first_key(at + t);
                *sum = self.weigh(&mut scores[own..common + t]);
                // What has left the window weighs nothing; a product with 0 changes no sum.
                scores[first..own].fill(0.0);
            }
            for (p, panel) in columns.chunks_exact(keys).enumerate() {
                let width = (self.width - p * LANES).min(LANES);
                let scores = StridedRows { values: &scores[first..], stride };
                pass_tokens(scores, &panel[first..common], &mut out[p * LANES..], d, width);
            }
            for (t, (scores, out)) in scores.chunks_exact(stride).zip(out.chunks_mut(d)).enumerate() {
                let out = &mut out[..self.width];
                let from = common.max(self.first_key(at + t));
                self.add_values(&scores[from..common + t], from, out);
                out.iter_mut().for_each(|out| *out /= sums[t]);
            }
        }
    }

    /// The first key that the query at a position sees, of those that there are.
    fn first_key(&self, at: usize) -> usize {
        self.heads.first_key(at) - self.seen
    }

    /// Scores to exponentials of what they lack to the best; their sum. The last is of the query's own key.
    #[inline(always)]
    fn weigh(&self, scores: &mut [f32]) -> f32 {
        scores.iter_mut().for_each(|score| *score *= self.scale);
        if let Some(alibi) = self.alibi {
            let by_distance = scores.iter_mut().rev().enumerate();
            by_distance.for_each(|(distance, score)| *score -= distance as f32 * alibi);
        }
        let best = scores.iter().fold(scores[0], |best, &score| if best < score { score } else { best });
        scores.iter_mut().for_each(|score| *score -= best);
        exponentials(scores);
        row_sum(scores, |e| e)
    }

    /// `out += sum of weights[i] * value[first + i]`.
    #[inline(always)]
    fn add_values(&self, weights: &[f32], first: usize, out: &mut [f32]) {
        let value = |j: usize| &self.v[(first + j) * self.kd..][..self.width];
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
            gather_rows(vectors, &self.k[first * self.kd..], self.kd, (keys - first).min(LANES), panel);
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
            gather_columns(&self.v[first..], self.kd, (self.width - first).min(LANES), panel);
        }
        panels
    }
}
