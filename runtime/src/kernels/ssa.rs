//! Spiking attention by time to first spike, on levels.
//!
//! A key's neuron fires the later, the less its score is than the query's best: after
//! `phase = trunc((best - score) * slope + 0.5)`. What fires in phase `p` weighs `weights[p]`; what would fire after the last
//! phase stays silent and its value is not read. The output is the weighted mean of the values: two exact integers, one
//! division. No matrix of queries by keys is made.

use super::check_attention;
use super::neuron::{Code, Level, count, spell_one};
use super::vectors::Vectors;

/// What the attention of a layer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Ssa<'a> {
    /// Width of a row: all heads side by side.
    pub d: usize,
    /// By head: phases for each unit of a score.
    pub slope: &'a [f32],
    /// By phase; each at least 0 and below 2^15.
    pub weights: &'a [i32],
    /// The code of the queries' spikes.
    pub code: Code,
}

/// What spikes drove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SsaCount {
    /// One for every query spike and key that it meets.
    pub score_additions: u64,
    /// Keys that fired, over tokens and heads.
    pub value_keys: u64,
}

/// Scores as products of levels.
#[inline(always)]
pub(super) fn collapsed<Q: Level, K: Level, V: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    out: &mut [f32],
) -> SsaCount {
    let mut levels = vec![0; shape.d / shape.slope.len().max(1)];
    attend(
        vectors,
        q,
        k,
        v,
        shape,
        out,
        |_, _| (),
        |(), q, k, scores| {
            levels.iter_mut().zip(q).for_each(|(level, q)| *level = q.to_i16());
            vectors.dots(&levels, k, shape.d, scores);
        },
    )
}

/// Scores spike by spike: at every timestep, each query spike adds or subtracts its channel of all keys.
#[inline(always)]
pub(super) fn stepped<Q: Level, K: Level, V: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    steps: u16,
    out: &mut [f32],
) -> SsaCount {
    let turn = |k: &[K], width: usize| turned(k, shape.d, width);
    attend(vectors, q, k, v, shape, out, turn, |(channels, keys), q, _, scores| {
        scores.fill(0);
        for t in 0..steps {
            if shape.code == Code::Binary {
                scores.iter_mut().for_each(|score| *score *= 2);
            }
            for (&q, channel) in q.iter().zip(channels.chunks_exact(*keys)) {
                match spell_one(q, shape.code, t, steps) {
                    0 => (),
                    1 => scores.iter_mut().zip(channel).for_each(|(score, &k)| *score += i32::from(k)),
                    _ => scores.iter_mut().zip(channel).for_each(|(score, &k)| *score -= i32::from(k)),
                }
            }
        }
    })
}

/// A head's keys, channel by channel, and how many they are.
#[inline(always)]
fn turned<L: Level>(k: &[L], d: usize, width: usize) -> (Vec<i16>, usize) {
    let keys = k.len().div_ceil(d);
    let mut channels = vec![0; width * keys];
    for (j, key) in k.chunks(d).enumerate() {
        for (c, &k) in key[..width].iter().enumerate() {
            channels[c * keys + j] = k.to_i16();
        }
    }
    (channels, keys)
}

/// Attention with scores by `score(prepared, q, keys, scores)`, where `prepare` has seen the head's keys.
#[inline(always)]
fn attend<Q: Level, K: Level, V: Level, P>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    out: &mut [f32],
    prepare: impl Fn(&[K], usize) -> P,
    mut score: impl FnMut(&P, &[Q], &[K], &mut [i32]),
) -> SsaCount {
    let (d, heads) = (shape.d, shape.slope.len());
    check_attention(q.len(), k.len(), v.len(), d, heads, out.len());
    assert!(shape.weights.iter().all(|w| (0..1 << 15).contains(w)), "weights of 15 bits");
    let (width, past) = (d / heads, (k.len() - q.len()) / d);
    let mut tally = SsaCount::default();
    if q.is_empty() {
        return tally;
    }
    let mut scores = vec![0; k.len() / d];
    let mut fired = vec![(0, 0); k.len() / d];
    let mut sums = vec![0; width];
    for (h, &slope) in shape.slope.iter().enumerate() {
        let head = h * width..(h + 1) * width;
        let (k, v) = (&k[head.start..], &v[head.start..]);
        let prepared = prepare(k, width);
        for (i, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
            let (q, out) = (&q[head.clone()], &mut out[head.clone()]);
            let scores = &mut scores[..past + i + 1];
            score(&prepared, q, k, scores);
            let (awake, total) = fire(scores, slope, shape.weights, &mut fired);
            sums.fill(0);
            vectors.weigh(&fired[..awake], v, d, &mut sums);
            out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32 / total as f32);
            tally.score_additions += count(q, shape.code) * scores.len() as u64;
            tally.value_keys += awake as u64;
        }
    }
    tally
}

/// The keys that fire with their weights, to the front of `fired`: how many they are, and what they weigh together.
#[inline(always)]
fn fire(scores: &mut [i32], slope: f32, weights: &[i32], fired: &mut [(u32, i16)]) -> (usize, i32) {
    let best = scores.iter().copied().fold(i32::MIN, i32::max);
    let late = weights.len() as f32;
    for score in scores.iter_mut() {
        let delay = (best - *score) as f32 * slope + 0.5;
        *score = if delay >= late { late } else { delay } as i32;
    }
    let (mut awake, mut total) = (0, 0);
    for (j, &phase) in scores.iter().enumerate() {
        // Without a branch: whether a key fires cannot be foreseen. What is silent is written over by the next.
        let weight = weights.get(phase as usize).copied().unwrap_or(0);
        fired[awake] = (j as u32, weight as i16);
        awake += usize::from(weight > 0);
        total += weight;
    }
    (awake, total)
}
