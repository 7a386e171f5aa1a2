//! Spiking attention by time to first spike, on levels, head by head.
//!
//! A key's neuron fires the later, the less its score is than the query's best: after
//! `phase = trunc((best - score) * slope + 0.5)`. What fires in phase `p` weighs `weights[p]`; what would fire after the last
//! phase stays silent. The output is the weighted mean of the values: two exact integers, one division.
//!
//! Few queries: keys are read as they lie, then the values of the keys that fired. Many: keys and values are interleaved once
//! in 16 bits, and tiles of queries pass over them as tokens pass over a weight; no matrix of all queries by all keys is made. Where
//! queries come as trains, scores are summed timestep by timestep, Horner over time; the rest is the same. Where a unit multiplies
//! matrices and all are levels of 8 bits, it does both sums (`ssa_bytes`).

use super::check::check_attention;
use super::elementwise::prefetch;
use super::event_list::{MOST_IN_TWO, count_nonzero};
use super::level::StoredLevel;
use super::neuron::{count, spell_one};
use super::pairs::{ChannelPair, PAIR, PHASES, PhaseTable};
use super::panel::OUTPUTS;
use super::ssa_bytes::{self, ByteScratch};
use super::ssa_head::{KeyThresholds, RowTotal, SsaHead};
use super::vectors::interface::{PanelSums, Vectors};
use snnc_ir::op::Heads;
use snnc_ir::ssa::meaning::fall;
use snnc_ir::types::Code;
use std::ops::Range;

/// What the attention of a layer is made of.
#[derive(Clone, Copy, Debug)]
pub struct SsaShape<'a> {
    pub heads: Heads,
    /// Of a head.
    pub width: usize,
    /// By query head: phases for each unit of a score.
    pub slope: &'a [f32],
    /// By query head: what a score loses per token between query and key; empty: nothing.
    pub alibi: &'a [f32],
    /// By phase; each at least 0 and below 2^15.
    pub weights: &'a [i32],
    /// The code of the queries' spikes.
    pub code: Code,
    /// Timesteps of the queries' trains, if that is how they come.
    pub steps: Option<u16>,
    /// How many keys may fire, if not all.
    pub keys: Option<usize>,
    /// Weights that are read soon: few queries prefetch them, because they wait for little memory themselves.
    pub soon: &'a [i8],
    /// Where tokens have thresholds of their own.
    pub thresholds: Option<TokenThresholds<'a>>,
}

/// Thresholds of tokens, row by row: one for each query head, and one for each head of keys.
#[derive(Clone, Copy, Debug)]
pub struct TokenThresholds<'a> {
    /// Of the queries.
    pub queries: &'a [f32],
    /// Of all keys.
    pub keys: &'a [f32],
    /// Of all values.
    pub values: &'a [f32],
}

impl<'a> TokenThresholds<'a> {
    /// Of one head of keys and of values, from the first key that is seen on.
    fn columns(self, heads: Heads, head: usize, [queries, keys, seen]: [usize; 3], columns: &mut [Vec<f32>; 2]) {
        let kv = heads.kv as usize;
        assert!(self.queries.len() == queries * heads.query as usize, "a threshold for each query and head");
        for (column, rows) in columns.iter_mut().zip([self.keys, self.values]) {
            assert!(rows.len() == keys * kv, "a threshold for each key and head");
            column.clear();
            column.extend(rows.iter().skip(seen * kv + head).step_by(kv));
        }
    }

    /// As query head `h` sees them, with the columns of its keys and values.
    fn seen_by(self, heads: Heads, h: usize, [keys, values]: &'a [Vec<f32>; 2]) -> KeyThresholds<'a> {
        KeyThresholds { queries: &self.queries[h..], heads: heads.query as usize, keys, values }
    }

    /// Of head `h` of query `i`, which stands at position `at`, and of the keys and values that it meets.
    pub(super) fn of_head(self, heads: Heads, i: usize, h: usize, at: usize) -> (f32, [Vec<f32>; 2]) {
        let (kv, shared) = (heads.kv as usize, h / heads.group());
        let rows = heads.first_key(at) * kv..(at + 1) * kv;
        let of = |all: &[f32]| all[rows.clone()].iter().skip(shared).step_by(kv).copied().collect();
        (self.queries[i * heads.query as usize + h], [of(self.keys), of(self.values)])
    }
}

impl SsaShape<'_> {
    /// Widths of a row of queries and of a row of keys.
    pub fn row_widths(&self) -> [usize; 2] {
        [self.heads.query, self.heads.kv].map(|heads| heads as usize * self.width)
    }

    /// What the scores of a query head lose with so many keys, from the farthest to the query's own.
    fn falls(&self, h: usize, keys: usize) -> Vec<i32> {
        let of = |alibi: &f32| (0..keys).rev().map(|distance| fall(*alibi, distance) as i32).collect();
        self.alibi.get(h).map_or(Vec::new(), of)
    }
}

/// What spikes drove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SsaCount {
    /// One for every query's neuron that fired and key that it meets.
    pub score_pairs: u64,
    /// One for every query spike and key that it meets.
    pub score_additions: u64,
    /// Keys that fired, over tokens and heads.
    pub value_keys: u64,
}

/// Memory that attention works in, kept from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    spikes: Vec<i8>,
    part: Vec<i32>,
    scores: Vec<i32>,
    weights: Vec<i16>,
    fired: Vec<(u32, i16)>,
    sums: Vec<i32>,
    plane: Vec<i16>,
    keys: Vec<ChannelPair>,
    values: Vec<ChannelPair>,
    bytes: ByteScratch,
    /// Thresholds of keys and of values, of one head.
    thresholds: [Vec<f32>; 2],
}

const ZERO: ChannelPair = ChannelPair([0; PAIR * OUTPUTS]);

/// Values that are prefetched before it is known whether their keys fire.
const PREFETCHED: usize = 64;
/// Up to so many queries, keys are read as they lie.
const FEW: usize = 2;
/// Queries of a tile.
const TILE: usize = 6;
/// Queries whose scores are held at a time.
const QUERIES: usize = 4 * TILE;
/// Pairs of values that all queries of a tile pass before the next ones, 16 KiB.
const BLOCK: usize = 64;

/// Some query heads that share a head of keys, side by side, of all queries: `out[n, heads.len() * width]`.
#[inline(always)]
pub(super) fn heads<Q: StoredLevel, K: StoredLevel, V: StoredLevel>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &SsaShape<'_>,
    heads: Range<usize>,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> SsaCount {
    let [d, kd] = shape.row_widths();
    let (width, group) = (shape.width, shape.heads.group());
    check_attention(q.len(), k.len(), v.len(), width, shape.heads, q.len());
    let (queries, keys) = (q.len() / d, k.len() / kd);
    assert!(heads.end <= shape.slope.len() && !heads.is_empty(), "heads {heads:?} of {}", shape.slope.len());
    assert!(heads.start / group == (heads.end - 1) / group, "heads {heads:?} in groups of {group}");
    assert!(out.len() == queries * heads.len() * width, "the results of {} heads", heads.len());
    let past = keys - queries;
    // What the first query does not see, none does.
    let seen = shape.heads.first_key(past);
    let (late, table) = table(shape.weights);
    let mut columns = std::mem::take(&mut scratch.thresholds);
    if let Some(all) = shape.thresholds {
        all.columns(shape.heads, heads.start / group, [queries, keys, seen], &mut columns);
    }
    let of_head = |h: usize| SsaHead {
        d,
        kd,
        from: h * width,
        shared: h / group * width,
        width,
        out: [(h - heads.start) * width, heads.len() * width],
        slope: shape.slope[h],
        falls: &[],
        thresholds: shape.thresholds.map(|all| all.seen_by(shape.heads, h, &columns)),
        late,
        table: &table,
        past: past - seen,
        window: shape.heads,
        seen,
        keys: shape.keys,
    };
    let (k, v) = (&k[seen * kd..], &v[seen * kd..]);
    let by_bytes = queries > FEW && shape.steps.is_none() && vectors.multiplies_matrices();
    let bytes = match (Q::narrow(q), K::narrow(k), V::narrow(v)) {
        (Some(q), Some(k), Some(v)) if by_bytes && shape.weights.iter().all(|&w| w <= MOST_IN_TWO) => {
            ssa_bytes::prepare(k, v, &of_head(heads.start), &mut scratch.bytes);
            Some(q)
        }
        _ => None,
    };
    if queries > FEW && bytes.is_none() {
        let head = of_head(heads.start);
        transpose_keys(k, &head, &mut scratch.keys);
        interleave_values(v, &head, &mut scratch.values);
    }
    let mut tally = SsaCount::default();
    for h in heads.clone() {
        let falls = shape.falls(h, keys - seen);
        let head = SsaHead { falls: &falls, ..of_head(h) };
        for (i, q) in q.chunks_exact(d).enumerate() {
            let (q, keys) = (&q[head.from..][..width], head.keys_met(i).len() as u64);
            let active = Q::narrow(q).map_or_else(|| q.iter().filter(|q| q.to_i32() != 0).count(), count_nonzero);
            tally.score_pairs += active as u64 * keys;
            tally.score_additions += count(q, shape.code) * keys;
        }
        tally.value_keys += if let Some(q) = bytes {
            ssa_bytes::many(vectors, q, &head, &mut scratch.bytes, out)
        } else if queries > FEW {
            many(vectors, q, shape, &head, scratch, out)
        } else {
            few(vectors, q, k, v, shape, &head, scratch, out)
        };
    }
    scratch.thresholds = columns;
    tally
}

/// Weights by phase, and how many phases there are.
fn table(weights: &[i32]) -> (f32, PhaseTable) {
    assert!(weights.len() < PHASES && weights.iter().all(|w| (0..1 << 15).contains(w)), "weights of 15 bits");
    let mut table = [0; PHASES];
    table.iter_mut().zip(weights).for_each(|(entry, &w)| *entry = w as i16);
    (weights.len() as f32, table)
}

/// Query by query. Keys that fired; only their values are read.
#[inline(always)]
fn few<Q: StoredLevel, K: StoredLevel, V: StoredLevel>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &SsaShape<'_>,
    head: &SsaHead<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> u64 {
    let (d, kd, width) = (head.d, head.kd, head.width);
    let mut awake = 0;
    for (i, q) in q.chunks_exact(d).enumerate() {
        let met = head.keys_met(i);
        let keys = met.len();
        scratch.scores.resize(keys, 0);
        scratch.weights.resize(keys, 0);
        let q = &q[head.from..][..width];
        let mut soon = share(shape, head.from / width);
        let mut prefetch_soon = || soon.next().into_iter().for_each(|lines| prefetch(vectors, lines));
        prefetch_soon();
        let from = met.start * kd + head.shared;
        let keys_at = &k[from..(met.end - 1) * kd + head.shared + width];
        match shape.steps {
            None => vectors.dots(q, keys_at, kd, &mut scratch.scores),
            Some(steps) => {
                scratch.part.resize(keys, 0);
                scratch.spikes.resize(width, 0);
                scratch.scores.fill(0);
                for t in 0..steps {
                    scratch.spikes.iter_mut().zip(q).for_each(|(s, &q)| *s = spell_one(q, shape.code, t, steps));
                    vectors.dots(&scratch.spikes, keys_at, kd, &mut scratch.part);
                    let carry = shape.code.carry();
                    scratch.scores.iter_mut().zip(&scratch.part).for_each(|(sum, part)| *sum = carry * *sum + part);
                }
            }
        }
        prefetch_soon();
        // Values are on their way while it is decided which keys fire.
        for value in v[from..].chunks(kd).take(PREFETCHED.min(keys)) {
            vectors.prefetch(value.as_ptr().cast());
        }
        let total = head.fire(vectors, i, &mut scratch.scores, &mut scratch.weights);
        scratch.fired.resize(keys, (0, 0));
        let mut fired = 0;
        for (j, &weight) in scratch.weights.iter().enumerate() {
            // Without a branch: whether a key fires cannot be foreseen. What is silent is written over by the next.
            scratch.fired[fired] = (j as u32, weight);
            fired += usize::from(weight > 0);
        }
        prefetch_soon();
        scratch.sums.resize(width, 0);
        scratch.sums.fill(0);
        vectors.weigh(&scratch.fired[..fired], &v[from..], kd, &mut scratch.sums);
        let out = &mut out[head.results(i)];
        out.iter_mut().zip(&scratch.sums).for_each(|(out, &sum)| *out = total.mean(sum));
        awake += fired as u64;
    }
    awake
}

/// A head's share of the weights that are read soon, in three parts.
#[inline(always)]
fn share<'a>(shape: &SsaShape<'a>, h: usize) -> std::slice::ChunksExact<'a, i8> {
    let share = shape.soon.len() / shape.slope.len();
    shape.soon[h * share..(h + 1) * share].chunks_exact((share / 3).max(1))
}

/// Tile by tile, with keys and values as they were made ready. Keys that fired.
#[inline(always)]
fn many<Q: StoredLevel>(
    vectors: impl Vectors,
    q: &[Q],
    shape: &SsaShape<'_>,
    head: &SsaHead<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> u64 {
    let d = head.d;
    let Scratch { plane, scores, weights, keys: transposed, values, .. } = scratch;
    let stride = head.keys_met(q.len() / d - 1).end.next_multiple_of(OUTPUTS);
    scores.resize(QUERIES * stride, 0);
    weights.resize(QUERIES * stride, 0);
    let mut awake = 0;
    let mut totals = [RowTotal::default(); QUERIES];
    for (group, q) in q.chunks(QUERIES * d).enumerate() {
        let (first, queries) = (group * QUERIES, q.len() / d);
        // All keys that a query of the group meets, from the first key of a pair on.
        let met = head.keys_met(first).start / PAIR * PAIR..head.keys_met(first + queries - 1).end;
        spell_queries(q, shape, head, plane);
        sum_scores(vectors, plane, shape, head, queries, &met, transposed, scores, stride);
        for i in 0..queries {
            let own = head.keys_met(first + i);
            let row = &mut weights[i * stride..][..met.end.next_multiple_of(PAIR)];
            row[met.start..own.start].fill(0);
            row[own.end..].fill(0);
            let weights = &mut row[own.clone()];
            totals[i] = head.fire(vectors, first + i, &mut scores[i * stride..][own], weights);
            awake += weights.iter().map(|&w| u64::from(w > 0)).sum::<u64>();
        }
        weigh_values(vectors, weights, &totals[..queries], &met, values, stride, head, first, out);
    }
    awake
}

/// Blocks of 64 keys as weights of queries: `[keys / 64][width / 2]` pairs, an output for each key.
#[inline(always)]
fn transpose_keys<K: StoredLevel>(k: &[K], head: &SsaHead<'_>, transposed: &mut Vec<ChannelPair>) {
    let pairs = head.width.div_ceil(PAIR);
    transposed.clear();
    transposed.resize((k.len() / head.kd).div_ceil(OUTPUTS) * pairs, ZERO);
    for (block, k) in transposed.chunks_exact_mut(pairs).zip(k.chunks(OUTPUTS * head.kd)) {
        for (j, key) in k.chunks_exact(head.kd).enumerate() {
            let (twos, rest) = key[head.shared..][..head.width].as_chunks::<PAIR>();
            for (pair, two) in block.iter_mut().zip(twos) {
                pair.0.as_chunks_mut::<PAIR>().0[j] = [two[0].to_i16(), two[1].to_i16()];
            }
            if let (Some(last), [rest]) = (block.last_mut(), rest) {
                last.0[j * PAIR] = rest.to_i16();
            }
        }
    }
}

/// Values as weights of weights: `[width / 64][keys / 2]` pairs of keys, an output for each channel.
#[inline(always)]
fn interleave_values<V: StoredLevel>(v: &[V], head: &SsaHead<'_>, values: &mut Vec<ChannelPair>) {
    let pairs = (v.len() / head.kd).div_ceil(PAIR);
    values.clear();
    values.resize(head.width.div_ceil(OUTPUTS) * pairs, ZERO);
    for (p, values) in values.chunks_exact_mut(pairs).enumerate() {
        let columns = head.shared + p * OUTPUTS..head.shared + head.width.min((p + 1) * OUTPUTS);
        for (pair, v) in values.iter_mut().zip(v.chunks(PAIR * head.kd)) {
            for (i, v) in v.chunks_exact(head.kd).enumerate() {
                let both = pair.0.as_chunks_mut::<PAIR>().0.iter_mut();
                both.zip(&v[columns.clone()]).for_each(|(both, v)| both[i] = v.to_i16());
            }
        }
    }
}

/// By timestep and by query what it says, in rows of whole pairs; levels where time is collapsed.
#[inline(always)]
fn spell_queries<Q: StoredLevel>(q: &[Q], shape: &SsaShape<'_>, head: &SsaHead<'_>, plane: &mut Vec<i16>) {
    let (queries, padded) = (q.len() / head.d, head.width.next_multiple_of(PAIR));
    plane.clear();
    plane.resize(usize::from(shape.steps.unwrap_or(1)) * queries * padded, 0);
    for (i, x) in plane.chunks_exact_mut(padded).enumerate() {
        let (t, q) = ((i / queries) as u16, &q[i % queries * head.d + head.from..][..head.width]);
        match shape.steps {
            None => x.iter_mut().zip(q).for_each(|(x, &q)| *x = q.to_i16()),
            Some(steps) => x.iter_mut().zip(q).for_each(|(x, &q)| *x = spell_one(q, shape.code, t, steps).into()),
        }
    }
}

/// Calls a function with `T` tokens of a tile.
macro_rules! tile {
    ($tokens:expr, $function:ident($($arg:expr),*)) => {
        match $tokens {
            1 => $function::<1>($($arg),*),
            2 => $function::<2>($($arg),*),
            3 => $function::<3>($($arg),*),
            4 => $function::<4>($($arg),*),
            5 => $function::<5>($($arg),*),
            _ => $function::<TILE>($($arg),*),
        }
    };
}

/// Scores of a group of queries with the keys that they meet, in rows `stride` apart.
#[inline(always)]
fn sum_scores(
    vectors: impl Vectors,
    plane: &[i16],
    shape: &SsaShape<'_>,
    head: &SsaHead<'_>,
    queries: usize,
    met: &Range<usize>,
    transposed: &[ChannelPair],
    scores: &mut [i32],
    stride: usize,
) {
    let padded = head.width.next_multiple_of(PAIR);
    for (t, plane) in plane.chunks_exact(queries * padded).enumerate() {
        let carry = if t == 0 { 0 } else { shape.code.carry() };
        for (x, scores) in plane.chunks(TILE * padded).zip(scores.chunks_mut(TILE * stride)) {
            tile!(x.len() / padded, score_tile(vectors, x, transposed, met, carry, scores, stride));
        }
    }
}

#[inline(always)]
fn score_tile<const T: usize>(
    vectors: impl Vectors,
    x: &[i16],
    transposed: &[ChannelPair],
    met: &Range<usize>,
    carry: i32,
    scores: &mut [i32],
    stride: usize,
) {
    let padded = x.len() / T;
    let rows: [&[i16]; T] = std::array::from_fn(|t| &x[t * padded..][..padded]);
    let blocks = transposed.chunks_exact(padded / PAIR).enumerate();
    for (block, keys) in blocks.take(met.end.div_ceil(OUTPUTS)).skip(met.start / OUTPUTS) {
        let mut sums: [PanelSums; T] = [[0; OUTPUTS]; T];
        vectors.tile_pairs(rows, keys, &mut sums);
        for (t, sums) in sums.iter().enumerate() {
            let scores = &mut scores[t * stride + block * OUTPUTS..][..OUTPUTS];
            if carry == 0 {
                scores.copy_from_slice(sums);
            } else {
                scores.iter_mut().zip(sums).for_each(|(score, sum)| *score = *score * carry + sum);
            }
        }
    }
}

/// The weighted means of the values that a group of queries meets, of which the first has number `first`.
#[inline(always)]
fn weigh_values(
    vectors: impl Vectors,
    weights: &[i16],
    totals: &[RowTotal],
    met: &Range<usize>,
    values: &[ChannelPair],
    stride: usize,
    head: &SsaHead<'_>,
    first: usize,
    out: &mut [f32],
) {
    let tiles = totals.chunks(TILE).zip(weights.chunks(TILE * stride)).zip((first..).step_by(TILE));
    for ((totals, weights), first) in tiles {
        tile!(totals.len(), weigh_tile(vectors, weights, totals, met, values, stride, head, first, out));
    }
}

#[inline(always)]
fn weigh_tile<const T: usize>(
    vectors: impl Vectors,
    weights: &[i16],
    totals: &[RowTotal],
    met: &Range<usize>,
    values: &[ChannelPair],
    stride: usize,
    head: &SsaHead<'_>,
    first: usize,
    out: &mut [f32],
) {
    let panels = head.width.div_ceil(OUTPUTS);
    for (p, values) in values.chunks_exact(values.len() / panels).enumerate() {
        let mut sums: [PanelSums; T] = [[0; OUTPUTS]; T];
        let values = &values[met.start / PAIR..met.end.div_ceil(PAIR)];
        for (values, from) in values.chunks(BLOCK).zip((met.start..).step_by(BLOCK * PAIR)) {
            let rows: [&[i16]; T] = std::array::from_fn(|t| &weights[t * stride + from..][..values.len() * PAIR]);
            vectors.tile_pairs(rows, values, &mut sums);
        }
        let columns = p * OUTPUTS..head.width.min((p + 1) * OUTPUTS);
        for (t, sums) in sums.iter().enumerate() {
            let out = &mut out[head.results(first + t)][columns.clone()];
            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = totals[t].mean(sum));
        }
    }
}
