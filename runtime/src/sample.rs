//! From logits to a token: the largest, or one drawn at random.
//!
//! Deterministic: the same options and the same logits give the same tokens on every machine. Exponentials are the `libm`
//! crate's, sums are in f64 and in the order of falling logits, ties go to the lowest id. The order of steps: penalty of what was
//! said lately, temperature, top-k, top-p, min-p.

use snnc_ir::random::SplitMix64;
use std::borrow::Cow;

/// How to choose a token from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// What logits are divided by; 0 takes the largest logit.
    pub temperature: f32,
    /// Only the `top_k` largest take part; 0 is all of them.
    pub top_k: usize,
    /// Only the largest whose probabilities reach `top_p` take part; 1 is all of them.
    pub top_p: f32,
    /// Only tokens at least so many times as probable as the likeliest take part; 0 is all of them (Nguyen et al. 2024).
    pub min_p: f32,
    /// What the logit of a token that was there lately is divided by, or multiplied by if it is below zero; 1 changes nothing
    /// (Keskar et al. 2019, section 4.1).
    pub repeat_penalty: f32,
    /// Last tokens of the sequence that count as lately, those of the prompt included.
    pub repeat_window: usize,
    /// Equal seeds draw equal tokens.
    pub seed: u64,
}

/// Last tokens that count as lately where nothing else is said: what llama.cpp takes.
pub const REPEAT_WINDOW: usize = 64;

impl Default for SampleOptions {
    fn default() -> Self {
        let (top_p, min_p, repeat_penalty) = (1.0, 0.0, 1.0);
        Self { temperature: 0.0, top_k: 0, top_p, min_p, repeat_penalty, repeat_window: REPEAT_WINDOW, seed: 0 }
    }
}

/// Chooses token after token.
///
/// ```
/// use snnc_runtime::{SampleOptions, Sampler};
///
/// let logits = [0.5, 3.0, -1.0, 2.0];
/// assert_eq!(Sampler::new(SampleOptions::default()).next(&logits, &[]), 1);
///
/// let options = SampleOptions { temperature: 1.0, top_k: 2, seed: 7, ..SampleOptions::default() };
/// let draw = || {
///     let mut sampler = Sampler::new(options);
///     (0..50).map(|_| sampler.next(&logits, &[])).collect::<Vec<u32>>()
/// };
/// assert_eq!(draw(), draw());
/// assert!(draw().iter().all(|id| [1, 3].contains(id)));
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SampleOptions,
    random: SplitMix64,
}

impl Sampler {
    /// Draws from the seed of the options.
    pub fn new(options: SampleOptions) -> Self {
        Self { options, random: SplitMix64(options.seed) }
    }

    /// The next token, from the logits of the last one. `before`: the sequence so far, of which the last tokens count. Panics on
    /// no logits: a precondition of the caller.
    pub fn next(&mut self, logits: &[f32], before: &[u32]) -> u32 {
        assert!(!logits.is_empty(), "there are logits to choose from");
        let lately = &before[before.len() - before.len().min(self.options.repeat_window)..];
        let logits = penalised(logits, lately, self.options.repeat_penalty);
        // A temperature that is not above zero, NaN included, leaves nothing to chance.
        if self.options.temperature > 0.0 { self.draw(&logits) } else { greedy(&logits) }
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let ids = self.candidates(logits);
        let best = logits[ids[0] as usize];
        let temperature = f64::from(self.options.temperature);
        let weigh = |&id: &u32| libm::exp(f64::from(logits[id as usize] - best) / temperature);
        let weights: Vec<f64> = ids.iter().map(weigh).collect();
        // The first weight is 1, so a weight is how many times as probable as the likeliest a token is.
        let probable = weights.partition_point(|weight| *weight >= f64::from(self.options.min_p)).max(1);
        let kept = nucleus(&weights, f64::from(self.options.top_p)).min(probable);
        let mut left = self.uniform() * weights[..kept].iter().sum::<f64>();
        for (&id, weight) in ids.iter().zip(&weights[..kept]) {
            left -= weight;
            if left < 0.0 {
                return id;
            }
        }
        ids[kept - 1]
    }

    /// Ids from the largest logit down, at most `top_k` of them.
    fn candidates(&self, logits: &[f32]) -> Vec<u32> {
        let falling = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let k = self.options.top_k;
        if k > 0 && k < ids.len() {
            ids.select_nth_unstable_by(k - 1, falling);
            ids.truncate(k);
        }
        ids.sort_unstable_by(falling);
        ids
    }

    /// In [0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.random.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Logits of which those of `lately` are made smaller by `penalty`, each once.
fn penalised<'a>(logits: &'a [f32], lately: &[u32], penalty: f32) -> Cow<'a, [f32]> {
    if penalty == 1.0 || lately.is_empty() {
        return Cow::Borrowed(logits);
    }
    let mut ids = lately.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let mut logits = logits.to_vec();
    for id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
    Cow::Owned(logits)
}

/// The lowest id of the largest logit. Panics on no logits.
///
/// ```
/// assert_eq!(snnc_runtime::sample::greedy(&[0.0, 2.0, 2.0]), 1);
/// ```
pub fn greedy(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// How many of the falling `weights` it takes to reach the share `top_p`; at least one.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    if top_p >= 1.0 {
        return weights.len();
    }
    let enough = weights.iter().sum::<f64>() * top_p;
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= enough
    });
    reached.map_or(weights.len(), |i| i + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.5, 3.0, -1.0, 3.0, 2.0];

    fn draws(options: SampleOptions) -> Vec<u32> {
        let mut sampler = Sampler::new(options);
        (0..2000).map(|_| sampler.next(&LOGITS, &[])).collect()
    }

    fn warm() -> SampleOptions {
        SampleOptions { temperature: 1.0, seed: 7, ..SampleOptions::default() }
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(draws(SampleOptions::default())[0], 1);
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        assert_eq!(draws(warm()), draws(warm()));
        assert_ne!(draws(warm()), draws(SampleOptions { seed: 8, ..warm() }));
    }

    #[test]
    fn top_k_and_top_p_leave_only_the_largest() {
        assert!(draws(SampleOptions { top_k: 2, ..warm() }).iter().all(|id| [1, 3].contains(id)));
        assert!(draws(SampleOptions { top_p: 0.1, ..warm() }).iter().all(|id| *id == 1));
        let seen = draws(warm());
        assert!((0..5).all(|id| seen.contains(&id)));
    }

    #[test]
    fn min_p_leaves_only_what_is_probable_enough() {
        // Beside the likeliest, the token of logit 2 has 0.37 of its probability, that of 0.5 has 0.08.
        assert!(draws(SampleOptions { min_p: 0.5, ..warm() }).iter().all(|id| [1, 3].contains(id)));
        let seen = draws(SampleOptions { min_p: 0.1, ..warm() });
        assert!(seen.iter().all(|id| [1, 3, 4].contains(id)) && seen.contains(&4));
        // One stays, however much is asked for.
        assert!(draws(SampleOptions { min_p: 1.0, top_p: 0.1, ..warm() }).iter().all(|id| *id == 1));
        assert_eq!(draws(SampleOptions { min_p: 0.0, ..warm() }), draws(warm()));
    }

    #[test]
    fn what_was_said_lately_is_less_likely() {
        let next = |options, before: &[u32]| Sampler::new(options).next(&[2.0, 1.5, -0.5, -1.0], before);
        let penalty =
            |repeat_penalty, repeat_window| SampleOptions { repeat_penalty, repeat_window, ..Default::default() };
        assert_eq!(next(penalty(1.0, 64), &[0]), 0);
        assert_eq!(next(penalty(1.2, 64), &[0]), 0);
        assert_eq!(next(penalty(1.4, 64), &[0]), 1);
        // Once is as much as often.
        assert_eq!(next(penalty(1.2, 64), &[0, 0, 0]), 0);
        // Beyond the window nothing counts; an id that has no logit neither.
        assert_eq!(next(penalty(1.4, 2), &[0, 2, 3]), 0);
        assert_eq!(next(penalty(1.4, 0), &[0]), 0);
        assert_eq!(next(penalty(1.4, 64), &[9]), 0);
        // A logit below zero falls as well: -0.5 becomes -1.5, below -1.
        assert_eq!(Sampler::new(penalty(3.0, 64)).next(&[-0.5, -1.0], &[0]), 1);
    }

    #[test]
    fn shares_follow_the_softmax() {
        let drawn = draws(warm());
        let share = |id| drawn.iter().filter(|&&x| x == id).count() as f64 / drawn.len() as f64;
        let exps: Vec<f64> = LOGITS.iter().map(|&x| f64::from(x).exp()).collect();
        let sum: f64 = exps.iter().sum();
        // Five standard deviations of a share of 2000 draws are at most 0.056.
        (0..5).for_each(|id| assert!((share(id) - exps[id as usize] / sum).abs() < 0.056));
    }
}
