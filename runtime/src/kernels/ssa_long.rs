//! Spiking attention of many levels or long contexts: the definition that `ssa` has, in 64 bits, query by query.
//!
//! Plain on purpose: seven timesteps never come here, and ten only with a context beyond GPT-2's.

use super::check::check_attention;
use super::ssa::{SsaCount, SsaShape};
use super::ssa_head::{QueryThresholds, rank};
use super::topk::outside_topk;
use snnc_ir::ssa::meaning::fall;
use snnc_ir::types::Code;
use std::ops::Range;

/// Attention on levels; where queries come as trains, scores are summed spike by spike.
#[inline(always)]
pub(super) fn attend(q: &[i32], k: &[i32], v: &[i32], shape: &SsaShape<'_>, out: &mut [f32]) -> SsaCount {
    let ([d, kd], width, steps) = (shape.row_widths(), shape.width, shape.steps);
    check_attention(q.len(), k.len(), v.len(), width, shape.heads, out.len());
    let past = k.len() / kd - q.len() / d;
    let mut tally = SsaCount::default();
    for (i, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let at = past + i;
        let met = shape.heads.first_key(at) * kd..(at + 1) * kd;
        for (h, &slope) in shape.slope.iter().enumerate() {
            let (head, shared) = (h * width, h / shape.heads.group() * width);
            let (head, shared) = (head..head + width, shared..shared + width);
            let q = &q[head.clone()];
            let keys = k[met.clone()].chunks_exact(kd);
            let mut scores: Vec<i64> = keys.map(|k| score(q, &k[shared.clone()], shape.code, steps)).collect();
            let alibi = shape.alibi.get(h).copied();
            let lost = |distance: usize| alibi.map_or(0, |alibi| fall(alibi, distance));
            let own = shape.thresholds.map(|all| all.of_head(shape.heads, i, h, at));
            let own = own.as_ref().map(|(query, [keys, values])| QueryThresholds { query: *query, keys, values });
            tally.score_pairs += (q.iter().filter(|&&q| q != 0).count() * scores.len()) as u64;
            tally.score_additions +=
                q.iter().map(|&q| u64::from(spikes(q, shape.code))).sum::<u64>() * scores.len() as u64;
            let lost = (0..scores.len()).rev().map(lost);
            let (behind, silent): (Vec<f32>, Vec<usize>) = match own {
                None => {
                    scores.iter_mut().zip(lost).for_each(|(score, lost)| *score -= lost);
                    let best = scores.iter().copied().fold(i64::MIN, i64::max);
                    (scores.iter().map(|score| (best - score) as f32).collect(), outside(&scores, shape))
                }
                Some(own) => {
                    let each = scores.iter().zip(lost).enumerate();
                    let scaled: Vec<f32> = each.map(|(j, (&p, lost))| own.score(j, p as f32, lost as f32)).collect();
                    let ranks: Vec<i32> = scaled.iter().map(|score| rank(*score)).collect();
                    let best = scaled.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    (scaled.iter().map(|score| best - score).collect(), outside(&ranks, shape))
                }
            };
            let v = &v[met.clone()];
            tally.value_keys += weigh(&behind, &silent, own, v, kd, shared, slope, shape, &mut out[head]);
        }
    }
    tally
}

#[inline(always)]
fn score(q: &[i32], k: &[i32], code: Code, steps: Option<u16>) -> i64 {
    let Some(steps) = steps else {
        return q.iter().zip(k).map(|(&q, &k)| i64::from(q) * i64::from(k)).sum();
    };
    let carry = if code == Code::Binary { 2 } else { 1 };
    let driven = |t| q.iter().zip(k).map(|(&q, &k)| i64::from(spike(q, code, t, steps)) * i64::from(k)).sum::<i64>();
    (0..steps).fold(0, |sum, t| sum * carry + driven(t))
}

/// The spike of a level at timestep `t`.
#[inline(always)]
fn spike(level: i32, code: Code, t: u16, steps: u16) -> i32 {
    let magnitude = level.unsigned_abs();
    let fires = match code {
        Code::Binary => magnitude >> (steps - 1 - t) & 1 == 1,
        Code::Unary => u32::from(t) < magnitude,
    };
    if fires { level.signum() } else { 0 }
}

#[inline(always)]
fn spikes(level: i32, code: Code) -> u32 {
    match code {
        Code::Binary => level.unsigned_abs().count_ones(),
        Code::Unary => level.unsigned_abs(),
    }
}

/// Keys that may not fire.
fn outside<S: Copy + Ord>(scores: &[S], shape: &SsaShape<'_>) -> Vec<usize> {
    shape.keys.map_or(Vec::new(), |most| outside_topk(scores, most))
}

/// The weighted mean of a head's values, by how far their keys are behind the best one; how many keys add something.
#[inline(always)]
fn weigh(
    behind: &[f32],
    silent: &[usize],
    own: Option<QueryThresholds<'_>>,
    v: &[i32],
    d: usize,
    head: Range<usize>,
    slope: f32,
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> u64 {
    let late = shape.weights.len() as f32;
    // As `if delay >= late`, NaN included, which then is phase 0.
    let phase = |behind: f32| if late <= behind * slope + 0.5 { late } else { behind * slope + 0.5 } as usize;
    let weight = |behind: &f32| shape.weights.get(phase(*behind)).map_or(0, |&weight| weight as i16);
    let mut weights: Vec<i16> = behind.iter().map(weight).collect();
    silent.iter().for_each(|&key| weights[key] = 0);
    let total: i64 = weights.iter().map(|&weight| i64::from(weight)).sum();
    let threshold = own.map_or(1.0, |own| own.weigh(&mut weights));
    let mut sums = vec![0i64; head.len()];
    for (&weight, v) in weights.iter().zip(v.chunks_exact(d)).filter(|(weight, _)| **weight > 0) {
        sums.iter_mut().zip(&v[head.clone()]).for_each(|(sum, &v)| *sum += i64::from(weight) * i64::from(v));
    }
    out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32 / total as f32 * threshold);
    weights.iter().map(|&weight| u64::from(weight > 0)).sum()
}
