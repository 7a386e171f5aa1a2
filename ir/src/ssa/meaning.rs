//! What spiking attention computes, slow and obvious: the oracle's part of it.
//!
//! Integers are exact in 64 bits. A result is one division: the weighted sum of values over the sum of weights, which a
//! sink adds to where there is one; 0 over 0 is 0.

use crate::curve::Curve;
use crate::events::Events;
use crate::membrane::{Membrane, MembraneLayer};
use crate::op::Heads;
use crate::real::Real;
use crate::types::Code;
use std::ops::Range;

/// Weight of the key that fires in the first phase of time-to-first-spike attention: 2^11.
pub const FIRST_SPIKE_WEIGHT: i32 = 1 << 11;

/// Weights of the phases: `round(2^11 * 2^(-k / phases))`, as far as they are above 0.
pub fn phase_weights(phases: u32) -> Vec<i32> {
    (0..)
        .map(|k| {
            libm::floor(f64::from(FIRST_SPIKE_WEIGHT) * libm::exp2(-f64::from(k) / f64::from(phases)) + 0.5) as i32
        })
        .take_while(|&weight| weight > 0)
        .collect()
}

/// Halvings after which a key has no weight left.
pub const HALVINGS: usize = 16;

/// What a key's weight is multiplied by before its first halving.
pub const FRESH: i64 = 1 << (HALVINGS - 1);

/// How often the weight of the key at position `key` has halved when position `at` asks, in a head that halves every `every`
/// tokens; 0 is never.
pub fn halvings(at: usize, key: usize, every: i32) -> usize {
    let block =
        |position: usize| usize::try_from(every).ok().and_then(|every| position.checked_div(every)).unwrap_or(0);
    block(at) - block(key)
}

/// The first position whose key has weight left when position `at` asks.
pub fn first_key(at: usize, every: i32) -> usize {
    let every = usize::try_from(every).unwrap_or(0);
    at.checked_div(every).unwrap_or(0).saturating_sub(HALVINGS - 1) * every
}

/// Where a call of attention stands: how many tokens were before, how many there are.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Tokens before this call.
    pub past: usize,
    /// Tokens of this call.
    pub tokens: usize,
    /// The heads, and how far back they look.
    pub heads: Heads,
}

impl Span {
    /// Columns of query head `h` in rows of `width`.
    fn head(&self, h: usize, width: usize) -> Range<usize> {
        let width = width / self.heads.query as usize;
        h * width..(h + 1) * width
    }

    /// Columns of what query head `h` reads in rows of keys or values of `width`.
    fn shared(&self, h: usize, width: usize) -> Range<usize> {
        let (width, h) = (width / self.heads.kv as usize, h / self.heads.group());
        h * width..(h + 1) * width
    }

    /// Numbers of a row of keys or values, of which there is one per position.
    fn row(&self, all: usize) -> usize {
        all / (self.past + self.tokens)
    }
}

/// A sink for every head of queries, and a half-life for every head of keys.
#[derive(Clone, Copy, Debug)]
pub struct Recency<'a, R> {
    /// In units of a key's weight.
    pub sink: &'a [R],
    /// After how many tokens the memory of each head halves; 0 is never.
    pub half_life: &'a [i32],
}

impl<R: Real> Recency<'_, R> {
    /// Sink and half-life of every query head.
    fn heads(&self, span: Span) -> impl Iterator<Item = (usize, R, i32)> {
        self.sink.iter().enumerate().map(move |(h, &sink)| (h, sink, self.half_life[h / span.heads.group()]))
    }
}

/// `sum / (total + sink)`.
fn mean<R: Real>(sum: i64, total: i64, sink: R) -> R {
    let all = R::from_i64(total) + sink;
    if all == R::ZERO { R::ZERO } else { R::from_i64(sum) / all }
}

/// What a score loses at a distance, of what it loses per token: the nearest whole number.
pub fn fall<R: Real>(alibi: R, distance: usize) -> i64 {
    (R::from_i64(distance as i64) * alibi + R::from_f64(0.5)).to_f64() as i64
}

/// When keys' neurons fire, and what their spikes weigh.
#[derive(Clone, Copy, Debug)]
pub struct Delays<'a, R> {
    /// By query head: phases for a unit of a score.
    pub slope: &'a [R],
    /// By query head: what a score loses per token between query and key, in its units.
    pub alibi: Option<&'a [R]>,
    /// By phase.
    pub weights: &'a [i32],
    /// How many keys may fire, if not all: those of the largest scores, the latest of equal ones.
    pub most_keys: Option<u32>,
}

/// Time-to-first-spike attention on levels. The sooner a key's neuron fires after the best one, the more its value weighs: phase
/// `trunc((best - score) * slope + 0.5)`. With ALiBi, a score is less its head's `fall`.
pub fn timed<R: Real>([q, k, v]: [&[i32]; 3], delays: Delays<'_, R>, code: Code, span: Span) -> (Vec<R>, Events) {
    let d = q.len() / span.tokens;
    let kv = span.row(k.len());
    let mut out = Vec::with_capacity(q.len());
    let mut events = Events::default();
    for i in 0..span.tokens {
        let at = span.past + i;
        let first = span.heads.first_key(at);
        let keys = at + 1 - first;
        events.keys += keys as u64;
        for (h, &slope) in delays.slope.iter().enumerate() {
            let head = span.shared(h, kv);
            let q = &q[i * d..][span.head(h, d)];
            events.score_additions += spikes(code, q) * keys as u64;
            events.score_pairs += (q.iter().filter(|&&q| q != 0).count() * keys) as u64;
            let lost = |j: usize| delays.alibi.map_or(0, |alibi| fall(alibi[h], at - j));
            let scores: Vec<i64> = (first..=at).map(|j| product(q, &k[j * kv..][head.clone()]) - lost(j)).collect();
            let best = scores.iter().copied().fold(scores[0], i64::max);
            let mut order: Vec<usize> = (0..keys).collect();
            if let Some(most) = delays.most_keys {
                order.sort_by_key(|&j| (std::cmp::Reverse(scores[j]), std::cmp::Reverse(j)));
                order.truncate(most as usize);
            }
            let mut sums = vec![0i64; head.len()];
            let mut total = 0i64;
            for j in order {
                let delay = R::from_i64(best - scores[j]) * slope + R::from_f64(0.5);
                if delay >= R::from_i32(delays.weights.len() as i32) {
                    continue;
                }
                let weight = i64::from(delays.weights[delay.truncate() as usize]);
                events.value_keys += 1;
                total += weight;
                add(&mut sums, weight, &v[(first + j) * kv..][head.clone()]);
            }
            out.extend(sums.into_iter().map(|sum| R::from_i64(sum) / R::from_i64(total)));
        }
    }
    (out, events)
}

/// Attention by coincidence: a key weighs as often as query and key spike at the same timestep and feature, perhaps squared,
/// times `2^(15 - halvings)`. `q` and `k` by timestep, `v` in levels.
pub fn coincident<R: Real>(
    [q, k]: [&[Vec<i32>]; 2],
    v: &[i32],
    recency: Recency<'_, R>,
    squared: bool,
    span: Span,
) -> (Vec<R>, Events) {
    let d = span.row(v.len());
    let mut out = Vec::with_capacity(span.tokens * d * span.heads.group());
    let mut events = Events::default();
    for i in 0..span.tokens {
        let at = span.past + i;
        events.keys += at as u64 + 1;
        for (h, sink, every) in recency.heads(span) {
            let mut sums = vec![0i64; d / span.heads.kv as usize];
            let mut total = 0i64;
            events.score_pairs += one_sided(q, i, h, every, span);
            for j in first_key(at, every)..=at {
                let met = (0..q.len()).map(|t| coincidences(&q[t], &k[t], [i, j], h, span)).sum::<i64>();
                let weight = if squared { met * met } else { met } * (FRESH >> halvings(at, j, every));
                events.score_additions += met as u64;
                events.value_keys += u64::from(weight > 0);
                total += weight;
                add(&mut sums, weight, &v[j * d..][span.shared(h, d)]);
            }
            let sink = sink * R::from_i64(FRESH);
            out.extend(sums.into_iter().map(|sum| mean(sum, total, sink)));
        }
    }
    (out, events)
}

/// Attention by coincidence whose output are LIF neurons: at every timestep a key weighs as often as it coincides with the query
/// at that timestep, and the weighted mean of v's spikes flows into the neurons, which start anew with every token. All by
/// timestep; rows of v are as wide as `gain` is long.
pub fn emitted<R: Real>(
    [q, k, v]: [&[Vec<i32>]; 3],
    recency: Recency<'_, R>,
    gain: &[R],
    span: Span,
) -> (Vec<Vec<i32>>, Events) {
    let (d, steps) = (gain.len(), q.len());
    let kv = d / span.heads.group();
    let mut out = vec![Vec::with_capacity(span.tokens * d); steps];
    let mut events = Events::default();
    for i in 0..span.tokens {
        let at = span.past + i;
        events.keys += at as u64 + 1;
        let mut neurons = MembraneLayer::<R>::new(Membrane::LIF, steps as u16, Curve::Identity, d);
        events.score_pairs += recency.heads(span).map(|(h, _, every)| one_sided(q, i, h, every, span)).sum::<u64>();
        for (t, out) in out.iter_mut().enumerate() {
            for (h, sink, every) in recency.heads(span) {
                let head = span.head(h, d);
                let mut sums = vec![0i64; head.len()];
                let mut total = 0i64;
                for j in first_key(at, every)..=at {
                    let met = coincidences(&q[t], &k[t], [i, j], h, span);
                    let weight = met * (FRESH >> halvings(at, j, every));
                    events.score_additions += met as u64;
                    events.value_keys += u64::from(weight > 0);
                    total += weight;
                    add(&mut sums, weight, &v[t][j * kv..][span.shared(h, kv)]);
                }
                let sink = sink * R::from_i64(FRESH);
                for ((c, gain), sum) in head.clone().zip(&gain[head.clone()]).zip(sums) {
                    let input = mean(sum, total, sink) * *gain;
                    out.push(neurons.step(c, input, &[]));
                }
            }
        }
    }
    (out, events)
}

/// Linear attention on levels that are not negative: sums of `k v^T` and of k, `[heads, features, width + 1]`, with `guard` bits
/// below the levels. Where a position is a multiple of its head's period, the sums are halved toward zero before its token
/// is added.
pub fn summed<R: Real>(
    [q, k, v]: [&[i32]; 3],
    code: [Code; 2],
    recency: Recency<'_, R>,
    guard: u8,
    state: &mut Vec<i64>,
    span: Span,
) -> (Vec<R>, Events) {
    let [f, kf, d] = [q, k, v].map(|x| x.len() / span.tokens);
    let (group, kv) = (span.heads.group(), span.heads.kv as usize);
    let (width, features) = (d / kv, kf / kv);
    state.resize(kv * features * (width + 1), 0);
    let mut out = Vec::with_capacity(v.len() * group);
    let mut events = Events::default();
    for i in 0..span.tokens {
        let at = span.past + i;
        events.keys += at as u64 + 1;
        for (h, sink, every) in recency.heads(span) {
            let sums = &mut state[h / group * features * (width + 1)..][..features * (width + 1)];
            let k = &k[i * kf..][span.shared(h, kf)];
            // The first query of a group finds the sums as they were before this token.
            if h % group == 0 {
                if at > 0 && halvings(at, at - 1, every) > 0 {
                    sums.iter_mut().for_each(|sum| *sum /= 2);
                }
                let v = &v[i * d..][span.shared(h, d)];
                for (&k, sums) in k.iter().zip(sums.chunks_exact_mut(width + 1)) {
                    let (total, sums) = sums.split_last_mut().unwrap_or_else(|| unreachable!("a row has a total"));
                    add(sums, i64::from(k) << guard, v);
                    *total += i64::from(k) << guard;
                }
                // A spike of the key adds a row of the value and one to the sum.
                events.score_additions += spikes(code[1], k) * (width as u64 + 1);
            }
            let q = &q[i * f..][span.head(h, f)];
            // A spike of the query adds a row of the state.
            events.score_additions += spikes(code[0], q) * (width as u64 + 1);
            let mut row = vec![0i64; width + 1];
            for (&q, sums) in q.iter().zip(sums.chunks_exact(width + 1)) {
                row.iter_mut().zip(sums).for_each(|(all, &sum)| *all += i64::from(q) * sum);
            }
            let sink = sink * R::from_i64(1 << guard);
            out.extend(row[..width].iter().map(|&sum| mean(sum, row[width], sink)));
        }
    }
    (out, events)
}

/// Spikes of a head's query, one for every key that has not faded: what drives scores where a key is held as its level.
fn one_sided(q: &[Vec<i32>], i: usize, h: usize, every: i32, span: Span) -> u64 {
    let at = span.past + i;
    let f = q.first().map_or(0, Vec::len) / span.tokens;
    let spikes = q.iter().flat_map(|q| &q[i * f..][span.head(h, f)]).filter(|spike| **spike != 0).count();
    (spikes * (at + 1 - first_key(at, every))) as u64
}

/// Features of a head at which token `i`'s query and position `j`'s key both spike.
fn coincidences(q: &[i32], k: &[i32], [i, j]: [usize; 2], h: usize, span: Span) -> i64 {
    let (f, kf) = (q.len() / span.tokens, span.row(k.len()));
    product(&q[i * f..][span.head(h, f)], &k[j * kf..][span.shared(h, kf)])
}

fn product(a: &[i32], b: &[i32]) -> i64 {
    a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum()
}

fn add(sums: &mut [i64], weight: i64, v: &[i32]) {
    sums.iter_mut().zip(v).for_each(|(sum, &v)| *sum += weight * i64::from(v));
}

fn spikes(code: Code, levels: &[i32]) -> u64 {
    levels.iter().map(|&level| u64::from(code.spikes(level))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fade_by_blocks_and_drop_out_after_sixteen() {
        assert_eq!((halvings(7, 4, 4), halvings(8, 7, 4), halvings(100, 0, 0)), (0, 1, 0));
        assert_eq!((first_key(63, 4), first_key(64, 4), first_key(68, 4), first_key(9999, 0)), (0, 4, 8, 0));
    }

    const ONE: Span = Span { past: 0, tokens: 3, heads: Heads { query: 1, kv: 1, window: None, alibi: false } };

    /// Three tokens, two features, one timestep each; v of one channel. Worked by hand.
    #[test]
    fn coincidences_are_counted_and_fade() {
        let q = [vec![1, 1, 1, 0, 1, 1]];
        let k = [vec![1, 0, 1, 1, 0, 1]];
        let v = [4, 8, -2];
        let ask = |squared, sink, half_life| {
            let recency = Recency { sink: &[sink], half_life: &[half_life] };
            coincident::<f64>([&q, &k], &v, recency, squared, ONE).0
        };
        assert_eq!(ask(false, 0.0, 0), [4.0, 6.0, (4.0 + 2.0 * 8.0 - 2.0) / 4.0]);
        assert_eq!(ask(true, 0.0, 0), [4.0, 6.0, (4.0 + 4.0 * 8.0 - 2.0) / 6.0]);
        assert_eq!(ask(false, 1.0, 0), [2.0, 4.0, (4.0 + 2.0 * 8.0 - 2.0) / 5.0]);
        // Position 2 begins a block: what lies before it counts half.
        assert_eq!(ask(false, 0.0, 2), [4.0, 6.0, (2.0 + 8.0 - 2.0) / 2.5]);
        let (silent, _) =
            coincident::<f64>([&[vec![0; 6]], &k], &v, Recency { sink: &[0.0], half_life: &[0] }, true, ONE);
        assert_eq!(silent, [0.0; 3]);
    }

    /// Without halving, the state gives what pairs of tokens do; with it, the older count less, rounded toward zero.
    #[test]
    fn a_state_stands_for_all_pairs() {
        let (q, k, v) = ([1, 2, 3, 0, 1, 1], [2, 0, 1, 1, 0, 3], [5, -7, 9]);
        let ask = |half_life, guard| {
            let recency = Recency { sink: &[0.0], half_life: &[half_life] };
            summed::<f64>([&q, &k, &v], [Code::Binary; 2], recency, guard, &mut Vec::new(), ONE).0
        };
        assert_eq!(ask(0, 0), [5.0, (6.0 * 5.0 + 3.0 * -7.0) / 9.0, (2.0 * 5.0 + 2.0 * -7.0 + 3.0 * 9.0) / 7.0]);
        // Sums of k v^T (10 - 7, -7) halve to (1, -3), those of k (3, 1) to (1, 0).
        assert_eq!(ask(2, 0)[2], (1.0 - 3.0 + 3.0 * 9.0) / (1.0 + 0.0 + 3.0));
        assert_eq!(ask(2, 1)[2], (3.0 - 7.0 + 2.0 * 3.0 * 9.0) / (3.0 + 1.0 + 2.0 * 3.0));
    }

    #[test]
    fn of_equal_keys_the_latest_win() {
        let weights = phase_weights(8);
        let ask = |most_keys| {
            let delays = Delays { slope: &[1.0], alibi: None, weights: &weights, most_keys };
            timed::<f64>([&[1, 1, 1], &[1, 1, 0], &[3, 5, 7]], delays, Code::Binary, ONE).0
        };
        assert_eq!(ask(Some(1)), [3.0, 5.0, 5.0]);
        assert_eq!(ask(Some(2)), [3.0, 4.0, 4.0]);
        assert_eq!(ask(Some(3)), ask(None));
    }

    /// Eight phases halve a weight. Scores 0, 8, 8 less 16, 8, 0 at the last query: phases 24, 8, 0.
    #[test]
    fn distance_delays_a_spike() {
        let weights = phase_weights(8);
        let delays = Delays { slope: &[1.0], alibi: Some(&[8.0]), weights: &weights, most_keys: None };
        let (out, _) = timed::<f64>([&[1, 1, 1], &[0, 8, 8], &[64, 16, 4]], delays, Code::Binary, ONE);
        assert_eq!(out[2], (64.0 / 8.0 + 16.0 / 2.0 + 4.0) / (1.0 / 8.0 + 1.0 / 2.0 + 1.0));
        assert_eq!((fall(0.5f32, 0), fall(0.5f32, 3), fall(0.4f32, 3)), (0, 2, 1));
    }
}
