//! Spiking attention by time to first spike, on levels.
//!
//! A key's neuron fires the later, the less its score is than the query's best: after
//! `phase = trunc((best - score) * slope + 0.5)`. What fires in phase `p` weighs `weights[p]`; what would fire after the last
//! phase stays silent and its value is not read. The output is the weighted mean of the values: two exact integers, one
//! division. No matrix of queries by keys is made.

use super::check_attention;
use super::neuron::{Code, Level, count, spell_one};
use super::vectors::Vectors;
use std::ops::Range;

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
    let levels: Vec<i16> = q.iter().map(|q| q.to_i16()).collect();
    attend(vectors, q, k, v, shape, out, false, |rows, block, scores| {
        for (row, scores) in rows.iter().zip(scores) {
            let keys = row.keys.min(block.end) - row.keys.min(block.start);
            if keys > 0 {
                let q = &levels[row.at..row.at + row.width];
                vectors.dots(q, &k[block.start * shape.d + row.channel..], shape.d, &mut scores[block.start..][..keys]);
            }
        }
    })
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
    // Keys are turned once for all timesteps of a group, so a block is all of them.
    attend(vectors, q, k, v, shape, out, true, |rows, block, scores| {
        let mut turned: Option<(usize, Vec<i16>)> = None;
        for (row, scores) in rows.iter().zip(scores) {
            let keys = row.keys.min(block.end) - row.keys.min(block.start);
            if keys == 0 {
                continue;
            }
            // The rows of a group may be of one head.
            if turned.as_ref().is_none_or(|(channel, _)| *channel != row.channel) {
                let from = &k[block.start * shape.d + row.channel..];
                turned = Some((row.channel, turn(from, shape.d, row.width, block.len())));
            }
            let Some((_, channels)) = &turned else { continue };
            let scores = &mut scores[block.start..][..keys];
            scores.fill(0);
            for t in 0..steps {
                if shape.code == Code::Binary {
                    scores.iter_mut().for_each(|score| *score *= 2);
                }
                for (&q, channel) in q[row.at..row.at + row.width].iter().zip(channels.chunks_exact(block.len())) {
                    match spell_one(q, shape.code, t, steps) {
                        0 => (),
                        1 => scores.iter_mut().zip(channel).for_each(|(score, &k)| *score += i32::from(k)),
                        _ => scores.iter_mut().zip(channel).for_each(|(score, &k)| *score -= i32::from(k)),
                    }
                }
            }
        }
    })
}

/// Some of a head's keys, channel by channel.
#[inline(always)]
fn turn<L: Level>(k: &[L], d: usize, width: usize, keys: usize) -> Vec<i16> {
    let mut channels = vec![0; width * keys];
    for (j, key) in k.chunks(d).take(keys).enumerate() {
        for (c, &k) in key[..width].iter().enumerate() {
            channels[c * keys + j] = k.to_i16();
        }
    }
    channels
}

/// One query of one head.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// Where its numbers begin among the queries, and its result among the results.
    at: usize,
    /// The head's first channel.
    channel: usize,
    width: usize,
    /// Keys that it meets.
    keys: usize,
    slope: f32,
}

/// Up to so many queries, all heads of one are a group, so that keys are walked in the order of memory.
const WALK_QUERIES: usize = 2;
/// Keys that they meet at a time: their rows fit the first-level cache beside the next ones', which are asked for.
const WALK_KEYS: usize = 8;
/// Queries of a group of one head: they meet the same keys while those are in the first-level cache.
const QUERIES: usize = 16;
/// Keys that a group meets at a time.
const KEYS: usize = 64;

/// Attention with scores by `score(rows, block of keys, scores by row)`, or of all keys if `whole`.
#[inline(always)]
fn attend<Q: Level, K: Level, V: Level>(
    vectors: impl Vectors,
    q: &[Q],
    k: &[K],
    v: &[V],
    shape: &Ssa<'_>,
    out: &mut [f32],
    whole: bool,
    score: impl Fn(&[Row], Range<usize>, &mut [Vec<i32>]),
) -> SsaCount {
    let (d, heads) = (shape.d, shape.slope.len());
    check_attention(q.len(), k.len(), v.len(), d, heads, out.len());
    let mut tally = SsaCount::default();
    if q.is_empty() {
        return tally;
    }
    let (width, queries, all) = (d / heads, q.len() / d, k.len() / d);
    let past = all - queries;
    let table = table(shape.weights);
    let late = shape.weights.len() as f32;
    let row = |i: usize, h: usize| Row {
        at: i * d + h * width,
        channel: h * width,
        width,
        keys: past + i + 1,
        slope: shape.slope[h],
    };
    let walks = queries <= WALK_QUERIES;
    let groups: Vec<Vec<Row>> = if walks {
        (0..queries).map(|i| (0..heads).map(|h| row(i, h)).collect()).collect()
    } else {
        let starts = (0..heads).flat_map(|h| (0..queries).step_by(QUERIES).map(move |i| (h, i)));
        starts.map(|(h, i)| (i..queries.min(i + QUERIES)).map(|i| row(i, h)).collect()).collect()
    };
    let block = if walks { WALK_KEYS } else { KEYS };
    let score_block = if whole { all } else { block };
    let most = groups.iter().map(Vec::len).max().unwrap_or(0);
    let mut scores = vec![vec![0i32; all]; most];
    let mut fired = vec![vec![(0u32, 0i16); all]; most];
    let mut sums = vec![0i32; most * width];
    for rows in &groups {
        let keys = rows.iter().map(|row| row.keys).max().unwrap_or(0);
        for start in (0..keys).step_by(score_block) {
            let end = start + score_block;
            if walks {
                vectors.ahead(&k[(end * d).min(k.len())..((end + score_block) * d).min(k.len())]);
            }
            score(rows, start..keys.min(end), &mut scores);
        }
        // By row: keys that fired, what they weigh together, and how many of them have been summed.
        let mut awake = vec![(0, 0, 0); rows.len()];
        for ((row, scores), (fired, awake)) in rows.iter().zip(&mut scores).zip(fired.iter_mut().zip(&mut awake)) {
            let (count, total) = fire(&mut scores[..row.keys], row.slope, late, &table, fired);
            *awake = (count, total, 0);
            tally.score_additions += self::count(&q[row.at..row.at + width], shape.code) * row.keys as u64;
            tally.value_keys += count as u64;
        }
        let sums = &mut sums[..rows.len() * width];
        sums.fill(0);
        for end in (block..keys + block).step_by(block) {
            if walks {
                vectors.ahead(&v[(end * d).min(v.len())..((end + block) * d).min(v.len())]);
            }
            for ((row, sums), (fired, awake)) in
                rows.iter().zip(sums.chunks_exact_mut(width)).zip(fired.iter().zip(&mut awake))
            {
                let (count, _, from) = *awake;
                let to = from + fired[from..count].partition_point(|(j, _)| (*j as usize) < end);
                if to > from {
                    vectors.weigh(&fired[from..to], &v[row.channel..], d, sums);
                    awake.2 = to;
                }
            }
        }
        for ((row, sums), (_, total, _)) in rows.iter().zip(sums.chunks_exact(width)).zip(&awake) {
            let out = &mut out[row.at..row.at + width];
            out.iter_mut().zip(sums).for_each(|(out, &sum)| *out = sum as f32 / *total as f32);
        }
    }
    tally
}

/// Entries of a table of phases: more than the phases of any base, and a power of two.
const PHASES: usize = 1024;

/// Weights by phase, 0 for those that never fire.
fn table(weights: &[i32]) -> [i16; PHASES] {
    assert!(weights.len() < PHASES && weights.iter().all(|w| (0..1 << 15).contains(w)), "weights of 15 bits");
    let mut table = [0; PHASES];
    table.iter_mut().zip(weights).for_each(|(entry, &w)| *entry = w as i16);
    table
}

/// The keys that fire with their weights, to the front of `fired`: how many they are, and what they weigh together.
#[inline(always)]
fn fire(scores: &mut [i32], slope: f32, late: f32, weights: &[i16; PHASES], fired: &mut [(u32, i16)]) -> (usize, i32) {
    let best = scores.iter().copied().fold(i32::MIN, i32::max);
    for score in scores.iter_mut() {
        let delay = (best - *score) as f32 * slope + 0.5;
        // As `if delay >= late { late } else { delay }`, NaN included, without a branch.
        *score = if late <= delay { late } else { delay } as i32;
    }
    let (mut awake, mut total) = (0, 0);
    for (j, &phase) in scores.iter().enumerate() {
        // Without a branch: whether a key fires cannot be foreseen. What is silent is written over by the next.
        let weight = weights[phase as usize % PHASES];
        fired[awake] = (j as u32, weight);
        awake += usize::from(weight > 0);
        total += i32::from(weight);
    }
    (awake, total)
}
