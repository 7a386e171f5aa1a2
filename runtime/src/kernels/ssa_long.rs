//! Spiking attention of many levels or long contexts: the definition that `ssa` has, in 64 bits, query by query.
//!
//! Plain on purpose: seven timesteps never come here, and ten only with a context beyond GPT-2's.

use super::check::check_attention;
use super::ssa::{SsaCount, SsaShape};
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
            if let Some(&alibi) = shape.alibi.get(h) {
                let by_distance = scores.iter_mut().rev().enumerate();
                by_distance.for_each(|(distance, score)| *score -= fall(alibi, distance));
            }
            tally.score_pairs += (q.iter().filter(|&&q| q != 0).count() * scores.len()) as u64;
            tally.score_additions +=
                q.iter().map(|&q| u64::from(spikes(q, shape.code))).sum::<u64>() * scores.len() as u64;
            tally.value_keys += weigh(&scores, &v[met.clone()], kd, shared, slope, shape, &mut out[head]);
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

/// The weighted mean of a head's values; how many keys fired.
#[inline(always)]
fn weigh(
    scores: &[i64],
    v: &[i32],
    d: usize,
    head: Range<usize>,
    slope: f32,
    shape: &SsaShape<'_>,
    out: &mut [f32],
) -> u64 {
    let best = scores.iter().copied().fold(i64::MIN, i64::max);
    let (weights, late) = (shape.weights, shape.weights.len() as f32);
    let mut silent = vec![false; scores.len()];
    shape.keys.map_or(Vec::new(), |most| outside_topk(scores, most)).into_iter().for_each(|key| silent[key] = true);
    let (mut sums, mut total, mut fired) = (vec![0i64; head.len()], 0i64, 0);
    for ((&score, v), _) in scores.iter().zip(v.chunks_exact(d)).zip(&silent).filter(|(_, silent)| !**silent) {
        let delay = (best - score) as f32 * slope + 0.5;
        // As `if delay >= late`, NaN included, which then is phase 0.
        let phase = if late <= delay { late } else { delay } as usize;
        let Some(&weight) = weights.get(phase) else { continue };
        fired += 1;
        total += i64::from(weight);
        sums.iter_mut().zip(&v[head.clone()]).for_each(|(sum, &v)| *sum += i64::from(weight) * i64::from(v));
    }
    out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32 / total as f32);
    fired
}
