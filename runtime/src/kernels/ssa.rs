//! Spiking attention by time to first spike, on levels, head by head.
//!
//! A key's neuron fires the later, the less its score is than the query's best: after
//! `phase = trunc((best - score) * slope + 0.5)`. What fires in phase `p` weighs `weights[p]`; what would fire after the last
//! phase stays silent. The output is the weighted mean of the values: two exact integers, one division.
//!
//! Few queries: keys are read as they lie, then the values of the keys that fired. Many: keys and values are interleaved once,
//! and tiles of queries pass over them as tokens pass over a weight; no matrix of all queries by all keys is made. Where
//! queries come as trains, scores are summed timestep by timestep, Horner over time; the rest is the same.

use super::check_attention;
use super::neuron::{Code, Level, count, spell_one};
use super::product::{GROUP, Group, OUTPUTS};
use super::vectors::{Sums, Vectors};

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
    /// Timesteps of the queries' trains, if that is how they come.
    pub steps: Option<u16>,
}

/// What spikes drove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SsaCount {
    /// One for every query spike and key that it meets.
    pub score_additions: u64,
    /// Keys that fired, over tokens and heads.
    pub value_keys: u64,
}

/// Memory that attention works in, kept from call to call.
#[derive(Debug, Default)]
pub struct Scratch {
    plane: Vec<i8>,
    part: Vec<i32>,
    scores: Vec<i32>,
    weights: Vec<i16>,
    fired: Vec<(u32, i16)>,
    sums: Vec<i32>,
    keys: Vec<Group>,
    values: Vec<Group>,
    /// Low and high bytes of weights.
    bytes: [Vec<i8>; 2],
}

/// Entries of a table of phases: more than the phases of any base, and a power of two.
pub(super) const PHASES: usize = 1024;

/// Weights by phase, 0 for those that never fire.
pub(super) type Table = [i16; PHASES];

/// Up to so many queries, keys are read as they lie.
const FEW: usize = 2;
/// Queries of a tile.
const TILE: usize = 6;
/// Queries whose scores are held at a time.
const QUERIES: usize = 4 * TILE;
/// Groups of values that all queries of a tile pass before the next ones, 16 KiB.
const BLOCK: usize = 64;

/// One head of all queries: `out[n, width]`.
#[inline(always)]
pub(super) fn head<Q: Level, K: Level, V: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    h: usize,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> SsaCount {
    let (d, heads) = (shape.d, shape.slope.len());
    check_attention(q.len(), k.len(), v.len(), d, heads, q.len());
    assert!(h < heads && out.len() * heads == q.len(), "a head's share of the results");
    let (width, queries, keys) = (d / heads, q.len() / d, k.len() / d);
    let (late, table) = table(shape.weights);
    let head = Head { d, from: h * width, width, slope: shape.slope[h], late, table: &table, past: keys - queries };
    let mut tally = SsaCount::default();
    for (i, q) in q.chunks_exact(d).enumerate() {
        tally.score_additions += count(&q[head.from..][..width], shape.code) * (head.past + i + 1) as u64;
    }
    tally.value_keys = match (K::narrow(k), V::narrow(v)) {
        (Some(k), Some(v)) if queries > FEW && (shape.steps.is_some() || Q::narrow(q).is_some()) => {
            many(vectors, q, k, v, shape, &head, scratch, out)
        }
        _ => few(vectors, q, k, v, shape, &head, scratch, out),
    };
    tally
}

/// Weights by phase, and how many phases there are.
fn table(weights: &[i32]) -> (f32, Table) {
    assert!(weights.len() < PHASES && weights.iter().all(|w| (0..1 << 15).contains(w)), "weights of 15 bits");
    let mut table = [0; PHASES];
    table.iter_mut().zip(weights).for_each(|(entry, &w)| *entry = w as i16);
    (weights.len() as f32, table)
}

/// A head's place in rows, and how its keys fire.
struct Head<'a> {
    d: usize,
    /// Its first channel.
    from: usize,
    width: usize,
    slope: f32,
    late: f32,
    table: &'a Table,
    /// Keys before the first query's own.
    past: usize,
}

impl Head<'_> {
    /// Weights of all keys; what they are together.
    #[inline(always)]
    fn fire(&self, vectors: impl Vectors, scores: &mut [i32], weights: &mut [i16]) -> i32 {
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
        weights.iter().map(|&w| i32::from(w)).sum()
    }
}

/// Query by query. Keys that fired; only their values are read.
#[inline(always)]
fn few<Q: Level, K: Level, V: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    head: &Head<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> u64 {
    let (d, width) = (head.d, head.width);
    let mut awake = 0;
    for (i, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(width)).enumerate() {
        let keys = head.past + i + 1;
        scratch.scores.resize(keys, 0);
        scratch.weights.resize(keys, 0);
        let q = &q[head.from..][..width];
        let keys_at = &k[head.from..(keys - 1) * d + head.from + width];
        match shape.steps {
            None => vectors.dots(q, keys_at, d, &mut scratch.scores),
            Some(steps) => {
                scratch.part.resize(keys, 0);
                scratch.plane.resize(width, 0);
                scratch.scores.fill(0);
                for t in 0..steps {
                    scratch.plane.iter_mut().zip(q).for_each(|(s, &q)| *s = spell_one(q, shape.code, t, steps));
                    vectors.dots(&scratch.plane, keys_at, d, &mut scratch.part);
                    let carry = shape.code.carry();
                    scratch.scores.iter_mut().zip(&scratch.part).for_each(|(sum, part)| *sum = carry * *sum + part);
                }
            }
        }
        let total = head.fire(vectors, &mut scratch.scores, &mut scratch.weights);
        scratch.fired.resize(keys, (0, 0));
        let mut fired = 0;
        for (j, &weight) in scratch.weights.iter().enumerate() {
            // Without a branch: whether a key fires cannot be foreseen. What is silent is written over by the next.
            scratch.fired[fired] = (j as u32, weight);
            fired += usize::from(weight > 0);
        }
        scratch.sums.resize(width, 0);
        scratch.sums.fill(0);
        vectors.weigh(&scratch.fired[..fired], &v[head.from..], d, &mut scratch.sums);
        out.iter_mut().zip(&scratch.sums).for_each(|(out, &sum)| *out = sum as f32 / total as f32);
        awake += fired as u64;
    }
    awake
}

/// Tile by tile, for keys and values of 8 bits. Keys that fired.
#[inline(always)]
fn many<Q: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[i8],
    v: &[i8],
    shape: &Ssa<'_>,
    head: &Head<'_>,
    scratch: &mut Scratch,
    out: &mut [f32],
) -> u64 {
    let (d, width) = (head.d, head.width);
    let keys = k.len() / d;
    let Scratch { plane, scores, weights, keys: turned, values, bytes, .. } = scratch;
    turn_keys(vectors, k, head, keys, turned);
    interleave_values(vectors, v, head, keys, values);
    let stride = keys.next_multiple_of(OUTPUTS);
    scores.resize(QUERIES * stride, 0);
    weights.resize(stride, 0);
    bytes.iter_mut().for_each(|bytes| bytes.resize(QUERIES * stride, 0));
    let mut awake = 0;
    let mut totals = [0; QUERIES];
    for (group, (q, out)) in q.chunks(QUERIES * d).zip(out.chunks_mut(QUERIES * width)).enumerate() {
        let first = head.past + group * QUERIES + 1;
        let queries = q.len() / d;
        // All keys that a query of the group meets.
        let most = first + queries - 1;
        sum_scores(vectors, q, shape, head, most, turned, plane, scores, stride);
        for i in 0..queries {
            let met = first + i;
            let weights = &mut weights[..met];
            totals[i] = head.fire(vectors, &mut scores[i * stride..][..met], weights);
            awake += weights.iter().map(|&w| u64::from(w > 0)).sum::<u64>();
            for (place, bytes) in bytes.iter_mut().enumerate() {
                let row = &mut bytes[i * stride..][..most.next_multiple_of(OUTPUTS)];
                let byte = |w: i16| if place == 0 { w as i8 } else { ((w - i16::from(w as i8)) >> 8) as i8 };
                row.iter_mut().zip(&*weights).for_each(|(byte_of, &w)| *byte_of = byte(w));
                row[met..].fill(0);
            }
        }
        weigh_values(vectors, bytes, queries, most, values, stride, width, &totals, out);
    }
    awake
}

/// Blocks of 64 keys as weights of queries: `[keys / 64][width / 4]` groups, an output for each key.
#[inline(always)]
fn turn_keys(vectors: impl Vectors, k: &[i8], head: &Head<'_>, keys: usize, turned: &mut Vec<Group>) {
    let groups = head.width.div_ceil(GROUP);
    turned.clear();
    turned.resize(keys.div_ceil(OUTPUTS) * groups, Group([0; GROUP * OUTPUTS]));
    for (block, k) in turned.chunks_exact_mut(groups).zip(k.chunks(OUTPUTS * head.d)) {
        for (j, key) in k.chunks(head.d).enumerate() {
            let (fours, rest) = key[head.from..][..head.width].as_chunks::<GROUP>();
            for (group, four) in block.iter_mut().zip(fours) {
                group.0.as_chunks_mut::<GROUP>().0[j] = *four;
            }
            if let Some(last) = block.last_mut().filter(|_| !rest.is_empty()) {
                last.0[j * GROUP..][..rest.len()].copy_from_slice(rest);
            }
        }
        block.iter_mut().for_each(|group| vectors.form(group));
    }
}

/// Values as weights of weights: `[width / 64][keys / 64][16]` groups of four keys, an output for each channel.
#[inline(always)]
fn interleave_values(vectors: impl Vectors, v: &[i8], head: &Head<'_>, keys: usize, values: &mut Vec<Group>) {
    let groups = keys.next_multiple_of(OUTPUTS) / GROUP;
    values.clear();
    values.resize(head.width.div_ceil(OUTPUTS) * groups, Group([0; GROUP * OUTPUTS]));
    for (p, values) in values.chunks_exact_mut(groups).enumerate() {
        let columns = p * OUTPUTS..head.width.min((p + 1) * OUTPUTS);
        for (group, v) in values.iter_mut().zip(v.chunks(GROUP * head.d)) {
            let mut rows = [0; GROUP * OUTPUTS];
            for (row, v) in rows.chunks_exact_mut(OUTPUTS).zip(v.chunks(head.d)) {
                row[..columns.len()].copy_from_slice(&v[head.from..][columns.clone()]);
            }
            vectors.interleave(&rows, std::slice::from_mut(group));
        }
        let read = keys.div_ceil(GROUP);
        values[read..].iter_mut().for_each(|group| vectors.form(group));
    }
}

/// Scores of a group of queries with the first `most` keys, in rows `stride` apart.
#[inline(always)]
fn sum_scores<Q: Level>(
    vectors: impl Vectors,
    q: &[Q],
    shape: &Ssa<'_>,
    head: &Head<'_>,
    most: usize,
    turned: &[Group],
    plane: &mut Vec<i8>,
    scores: &mut [i32],
    stride: usize,
) {
    let queries = q.len() / head.d;
    let groups = head.width.div_ceil(GROUP);
    let padded = groups * GROUP;
    // By timestep, and by query, what it says; levels where time is collapsed.
    let steps = shape.steps.unwrap_or(1);
    plane.clear();
    plane.resize(usize::from(steps) * queries * padded, 0);
    for (i, x) in plane.chunks_exact_mut(padded).enumerate() {
        let (t, q) = ((i / queries) as u16, &q[i % queries * head.d + head.from..][..head.width]);
        match shape.steps {
            None => x.iter_mut().zip(q).for_each(|(x, &q)| *x = q.to_i16() as i8),
            Some(steps) => x.iter_mut().zip(q).for_each(|(x, &q)| *x = spell_one(q, shape.code, t, steps)),
        }
    }
    for (t, plane) in plane.chunks_exact(queries * padded).enumerate() {
        let carry = if t == 0 { 0 } else { shape.code.carry() };
        for (tile, x) in plane.chunks(TILE * padded).enumerate() {
            let scores = &mut scores[tile * TILE * stride..];
            match x.len() / padded {
                1 => score_tile::<1>(vectors, x, padded, turned, groups, most, carry, scores, stride),
                2 => score_tile::<2>(vectors, x, padded, turned, groups, most, carry, scores, stride),
                3 => score_tile::<3>(vectors, x, padded, turned, groups, most, carry, scores, stride),
                4 => score_tile::<4>(vectors, x, padded, turned, groups, most, carry, scores, stride),
                5 => score_tile::<5>(vectors, x, padded, turned, groups, most, carry, scores, stride),
                _ => score_tile::<TILE>(vectors, x, padded, turned, groups, most, carry, scores, stride),
            }
        }
    }
}

#[inline(always)]
fn score_tile<const T: usize>(
    vectors: impl Vectors,
    x: &[i8],
    padded: usize,
    turned: &[Group],
    groups: usize,
    most: usize,
    carry: i32,
    scores: &mut [i32],
    stride: usize,
) {
    let rows: [&[i8]; T] = std::array::from_fn(|t| &x[t * padded..][..padded]);
    let origins: [i32; T] = std::array::from_fn(|t| vectors.origin(rows[t]));
    for (block, keys) in turned.chunks_exact(groups).take(most.div_ceil(OUTPUTS)).enumerate() {
        let mut sums: [Sums; T] = std::array::from_fn(|t| [origins[t]; OUTPUTS]);
        vectors.tile(rows, keys, &mut sums);
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

/// The weighted means of the first `most` values.
#[inline(always)]
fn weigh_values(
    vectors: impl Vectors,
    bytes: &[Vec<i8>; 2],
    queries: usize,
    most: usize,
    values: &[Group],
    stride: usize,
    width: usize,
    totals: &[i32],
    out: &mut [f32],
) {
    let tiles = totals[..queries].chunks(TILE).zip(out.chunks_mut(TILE * width));
    for (tile, (totals, out)) in tiles.enumerate() {
        let bytes = [0, 1].map(|i: usize| &bytes[i][tile * TILE * stride..]);
        match totals.len() {
            1 => weigh_tile::<1>(vectors, bytes, most, values, stride, width, totals, out),
            2 => weigh_tile::<2>(vectors, bytes, most, values, stride, width, totals, out),
            3 => weigh_tile::<3>(vectors, bytes, most, values, stride, width, totals, out),
            4 => weigh_tile::<4>(vectors, bytes, most, values, stride, width, totals, out),
            5 => weigh_tile::<5>(vectors, bytes, most, values, stride, width, totals, out),
            _ => weigh_tile::<TILE>(vectors, bytes, most, values, stride, width, totals, out),
        }
    }
}

#[inline(always)]
fn weigh_tile<const T: usize>(
    vectors: impl Vectors,
    bytes: [&[i8]; 2],
    most: usize,
    values: &[Group],
    stride: usize,
    width: usize,
    totals: &[i32],
    out: &mut [f32],
) {
    let used = most.next_multiple_of(GROUP);
    for (p, values) in values.chunks_exact(stride / GROUP).enumerate() {
        // Of low bytes, of high bytes.
        let mut sums: [[Sums; T]; 2] = [[[0; OUTPUTS]; T]; 2];
        for (bytes, sums) in bytes.iter().zip(&mut sums) {
            for (t, sums) in sums.iter_mut().enumerate() {
                sums.fill(vectors.origin(&bytes[t * stride..][..used]));
            }
            for (block, values) in values[..used / GROUP].chunks(BLOCK).enumerate() {
                let from = block * BLOCK * GROUP;
                let rows: [&[i8]; T] = std::array::from_fn(|t| &bytes[t * stride + from..][..values.len() * GROUP]);
                vectors.tile(rows, values, sums);
            }
        }
        let columns = p * OUTPUTS..width.min((p + 1) * OUTPUTS);
        for t in 0..T {
            let out = &mut out[t * width..][columns.clone()];
            for ((out, low), high) in out.iter_mut().zip(&sums[0][t]).zip(&sums[1][t]) {
                *out = (low + 256 * high) as f32 / totals[t] as f32;
            }
        }
    }
}
