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
use std::cmp::Ordering;
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
    /// Tokens' thresholds at q, k and v, by token and head, where they have their own.
    pub thresholds: Option<[&'a [R]; 3]>,
}

/// A head of a query, and its keys, among the thresholds of tokens.
#[derive(Clone, Copy)]
struct HeadThresholds<'a, R> {
    query: R,
    /// Of keys and of values, from the first key on, by token and head.
    keys: &'a [R],
    values: &'a [R],
    /// Its head of keys, and how many there are.
    head: usize,
    heads: usize,
}

impl<'a, R: Real> HeadThresholds<'a, R> {
    /// Those of query head `h` of the call's token `i`.
    fn new([q, k, v]: [&'a [R]; 3], span: Span, i: usize, h: usize) -> Self {
        let Heads { query, kv, .. } = span.heads;
        let from = span.heads.first_key(span.past + i) * kv as usize;
        let (keys, values) = (&k[from..], &v[from..]);
        Self { query: q[i * query as usize + h], keys, values, head: h / span.heads.group(), heads: kv as usize }
    }

    /// A key's score: the product of levels times both tokens' thresholds, less what it loses. What is no number counts as 0.
    fn score(self, j: usize, product: i64, lost: i64) -> R {
        let score = R::from_i64(product) * (self.keys[j * self.heads + self.head] * self.query) - R::from_i64(lost);
        if score.to_f64().is_nan() { R::ZERO } else { score }
    }

    /// What a key weighs where its value is added: by its value's threshold, of which the largest one among keys that fire
    /// counts whole. And that largest one.
    fn weights(self, fired: &[(usize, i64)]) -> (Vec<i64>, R) {
        let of = |j: usize| self.values[j * self.heads + self.head];
        let largest = fired.iter().fold(R::ZERO, |most, &(j, _)| if most < of(j) { of(j) } else { most });
        let share = R::from_i32(1) / largest;
        let weight = |&(j, weight): &(usize, i64)| {
            let scaled = R::from_i64(weight) * (of(j) * share) + R::from_f64(0.5);
            if scaled > R::ZERO { i64::from(scaled.truncate()).min(weight) } else { 0 }
        };
        (fired.iter().map(weight).collect(), largest)
    }
}

impl<R: Real> Delays<'_, R> {
    /// How far each key's score is behind the best one, of keys that may fire.
    fn behind<S: Copy>(
        &self,
        scores: &[S],
        compare: impl Fn(S, S) -> Ordering,
        distance: impl Fn(S, S) -> R,
    ) -> Vec<(usize, R)> {
        let best = scores.iter().copied().fold(scores[0], |a, b| if compare(a, b) == Ordering::Less { b } else { a });
        let mut order: Vec<usize> = (0..scores.len()).collect();
        if let Some(most) = self.most_keys {
            order.sort_by(|&a, &b| compare(scores[b], scores[a]).then(b.cmp(&a)));
            order.truncate(most as usize);
        }
        order.into_iter().map(|j| (j, distance(best, scores[j]))).collect()
    }

    /// What a key weighs that is so far behind the best one; `None` of one that stays silent.
    fn weight(&self, behind: R, slope: R) -> Option<i64> {
        let delay = behind * slope + R::from_f64(0.5);
        let silent = delay >= R::from_i32(self.weights.len() as i32);
        (!silent).then(|| i64::from(self.weights[delay.truncate() as usize]))
    }
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
            let scored = (first..=at).map(|j| (product(q, &k[j * kv..][head.clone()]), lost(j)));
            let own = delays.thresholds.map(|thresholds| HeadThresholds::new(thresholds, span, i, h));
            let behind = match own {
                None => {
                    let scores: Vec<i64> = scored.map(|(product, lost)| product - lost).collect();
                    delays.behind(&scores, |a, b| a.cmp(&b), |best, score| R::from_i64(best - score))
                }
                Some(own) => {
                    let scores: Vec<R> = scored.enumerate().map(|(j, (p, lost))| own.score(j, p, lost)).collect();
                    // Zeros of both signs are equal.
                    let compare = |a: R, b: R| (a + R::ZERO).to_f64().total_cmp(&(b + R::ZERO).to_f64());
                    delays.behind(&scores, compare, |best, score| best - score)
                }
            };
            let fires = |(j, behind)| Some((j, delays.weight(behind, slope)?));
            let fired: Vec<(usize, i64)> = behind.into_iter().filter_map(fires).collect();
            let total: i64 = fired.iter().map(|(_, weight)| weight).sum();
            let (weights, threshold): (Vec<i64>, _) = match own {
                None => (fired.iter().map(|(_, weight)| *weight).collect(), None),
                Some(own) => {
                    let (weights, largest) = own.weights(&fired);
                    (weights, Some(largest))
                }
            };
            events.value_keys += weights.iter().filter(|weight| **weight > 0).count() as u64;
            let mut sums = vec![0i64; head.len()];
            for ((j, _), weight) in fired.iter().zip(weights) {
                add(&mut sums, weight, &v[(first + j) * kv..][head.clone()]);
            }
            let mean = |sum| R::from_i64(sum) / R::from_i64(total);
            out.extend(sums.into_iter().map(|sum| threshold.map_or(mean(sum), |threshold| mean(sum) * threshold)));
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

    const ONE: Span =
        Span { past: 0, tokens: 3, heads: Heads { query: 1, kv: 1, window: None, alibi: false, thresholds: false } };

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
            let delays = Delays { slope: &[1.0], alibi: None, weights: &weights, most_keys, thresholds: None };
            timed::<f64>([&[1, 1, 1], &[1, 1, 0], &[3, 5, 7]], delays, Code::Binary, ONE).0
        };
        assert_eq!(ask(Some(1)), [3.0, 5.0, 5.0]);
        assert_eq!(ask(Some(2)), [3.0, 4.0, 4.0]);
        assert_eq!(ask(Some(3)), ask(None));
    }

    /// Scores 4, 8, 2 times both thresholds, 2, 0.5 and 1 of keys: 16, 8 and 4 behind nothing, 8 and 12. Values weigh by 0.5, 2 and 1 of 2.
    #[test]
    fn thresholds_of_tokens_scale_scores_and_values() {
        let weights = phase_weights(4);
        let thresholds: [&[f64]; 3] = [&[1.0, 1.0, 2.0], &[2.0, 0.5, 1.0], &[0.5, 2.0, 1.0]];
        let alone = Delays { slope: &[1.0], alibi: None, weights: &weights, most_keys: None, thresholds: None };
        let ask = |most_keys| {
            let delays = Delays { thresholds: Some(thresholds), most_keys, ..alone };
            timed([&[1, 1, 1], &[4, 8, 2], &[64, 16, 4]], delays, Code::Binary, ONE).0
        };
        let sum = 2048.0 * 0.25 * 64.0 + 512.0 * 16.0 + 256.0 * 0.5 * 4.0;
        assert_eq!(
            ask(None),
            [32.0, (0.25 * 64.0 * 2048.0 + 1024.0 * 16.0) / (2048.0 + 1024.0) * 2.0, sum / 2816.0 * 2.0]
        );
        assert_eq!(ask(Some(1))[2], 32.0);
        let none: [&[f64]; 3] = [&[1.0; 3]; 3];
        let plain = timed([&[1, 1, 1], &[4, 8, 2], &[64, 16, 4]], alone, Code::Binary, ONE).0;
        let delays = Delays { thresholds: Some(none), ..alone };
        assert_eq!(timed([&[1, 1, 1], &[4, 8, 2], &[64, 16, 4]], delays, Code::Binary, ONE).0, plain);
    }

    /// Eight phases halve a weight. Scores 0, 8, 8 less 16, 8, 0 at the last query: phases 24, 8, 0.
    #[test]
    fn distance_delays_a_spike() {
        let weights = phase_weights(8);
        let delays =
            Delays { slope: &[1.0], alibi: Some(&[8.0]), weights: &weights, most_keys: None, thresholds: None };
        let (out, _) = timed::<f64>([&[1, 1, 1], &[0, 8, 8], &[64, 16, 4]], delays, Code::Binary, ONE);
        assert_eq!(out[2], (64.0 / 8.0 + 16.0 / 2.0 + 4.0) / (1.0 / 8.0 + 1.0 / 2.0 + 1.0));
        assert_eq!((fall(0.5f32, 0), fall(0.5f32, 3), fall(0.4f32, 3)), (0, 2, 1));
    }
}
