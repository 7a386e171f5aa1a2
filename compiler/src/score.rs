//! How well rows of logits predict tokens, how near two networks' rows are, and how sure the sums over a text's windows are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::random::SplitMix64;
use snnc_runtime::sample::greedy;

/// Sums over predicted tokens, in f64, in the order of the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Score {
    /// Tokens of the run.
    pub tokens: usize,
    /// Negative log likelihood of the text, in nats.
    #[serde(with = "crate::exact")]
    #[schemars(with = "f64")]
    pub nll: f64,
    /// The same of the dense network.
    #[serde(with = "crate::exact")]
    #[schemars(with = "f64")]
    pub nll_dense: f64,
    /// Predictions that were right.
    pub right: usize,
    /// The same of the dense network.
    pub right_dense: usize,
    /// Cosine of the two networks' logits.
    #[serde(with = "crate::exact")]
    #[schemars(with = "f64")]
    pub cosine: f64,
    /// The same around the means.
    #[serde(with = "crate::exact")]
    #[schemars(with = "f64")]
    pub cosine_centred: f64,
    /// Kullback-Leibler divergence of the dense prediction from the spiking one, in nats.
    #[serde(with = "crate::exact")]
    #[schemars(with = "f64")]
    pub kl: f64,
    /// Both networks hold the same token for likeliest.
    pub agreed: usize,
}

impl Score {
    pub(crate) fn add(&mut self, other: &Score) {
        self.tokens += other.tokens;
        self.nll += other.nll;
        self.nll_dense += other.nll_dense;
        self.right += other.right;
        self.right_dense += other.right_dense;
        self.cosine += other.cosine;
        self.cosine_centred += other.cosine_centred;
        self.kl += other.kl;
        self.agreed += other.agreed;
    }

    /// Of the program.
    pub fn perplexity(&self) -> f64 {
        libm::exp(self.nll / self.tokens as f64)
    }

    /// Of the dense network.
    pub fn perplexity_dense(&self) -> f64 {
        libm::exp(self.nll_dense / self.tokens as f64)
    }

    /// Rise of perplexity over the dense network's, as a share.
    pub fn increase(&self) -> f64 {
        libm::expm1((self.nll - self.nll_dense) / self.tokens as f64)
    }

    /// A sum as a mean over tokens.
    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.tokens as f64
    }
}

/// Draws of a bootstrap.
const DRAWS: usize = 2000;

/// Windows that a bootstrap needs: of fewer it says too much.
const WINDOWS: usize = 10;

/// 95 % confidence intervals of what a program scores, and of what it differs by from the dense network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intervals {
    /// What was drawn: `windows` or `tokens`.
    pub over: &'static str,
    /// Of the perplexity.
    pub perplexity: [f64; 2],
    /// Of the dense network's.
    pub perplexity_dense: [f64; 2],
    /// Of the rise of perplexity over the dense network's, as a share.
    pub increase: [f64; 2],
    /// Of the Kullback-Leibler divergence, in nats per token.
    pub kl: [f64; 2],
    /// Of the share of tokens for which both networks hold the same token for likeliest.
    pub agreement: [f64; 2],
}

impl Intervals {
    /// By paired bootstrap: windows are drawn with replacement, as many as there are, each with what both networks made of it
    /// (Efron and Tibshirani 1993, percentiles). `None` of fewer than ten windows. `over` says what the windows are: tokens are
    /// windows of one token, and an interval over them takes them for independent, which makes it too narrow. The draws are the same every time. Without a
    /// dense network, what is said of it means nothing.
    pub fn of(windows: &[Score], over: &'static str) -> Option<Self> {
        if windows.len() < WINDOWS {
            return None;
        }
        let mut random = SplitMix64(0);
        let mut draw = |_| {
            let mut drawn = Score::default();
            (0..windows.len()).for_each(|_| drawn.add(&windows[(random.bits() % windows.len() as u64) as usize]));
            drawn
        };
        let draws: Vec<Score> = (0..DRAWS).map(&mut draw).collect();
        let middle = |of: fn(&Score) -> f64| {
            let mut all: Vec<f64> = draws.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            [all[DRAWS / 40], all[DRAWS - 1 - DRAWS / 40]]
        };
        Some(Self {
            over,
            perplexity: middle(Score::perplexity),
            perplexity_dense: middle(Score::perplexity_dense),
            increase: middle(Score::increase),
            kl: middle(|drawn| drawn.mean(drawn.kl)),
            agreement: middle(|drawn| drawn.mean(drawn.agreed as f64)),
        })
    }
}

/// What 99 % of some numbers are at most, by nearest rank; `None` of none.
pub(crate) fn percentile_99(mut of: Vec<f64>) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    of.get((99 * of.len()).div_ceil(100).max(1) - 1).copied()
}

/// Scores rows of logits, the first `skipped` of them left out; what each diverges by is added to `divergences`.
pub(crate) fn score_rows(
    logits: &[f32],
    dense: Option<&[f32]>,
    targets: &[u32],
    skipped: usize,
    divergences: &mut Vec<f64>,
) -> Score {
    let width = logits.len() / targets.len().max(1);
    let mut score = Score { tokens: targets.len() - skipped, ..Score::default() };
    for (i, &target) in targets.iter().enumerate().skip(skipped) {
        let row = &logits[i * width..(i + 1) * width];
        let log_sum = log_sum_exp(row);
        let nll =
            |row: &[f32], log_sum: f64| row.get(target as usize).map_or(f64::INFINITY, |&x| log_sum - f64::from(x));
        score.nll += nll(row, log_sum);
        score.right += usize::from(best(row) == target as usize);
        let Some(dense) = dense else { continue };
        let other = &dense[i * width..(i + 1) * width];
        let log_sum_dense = log_sum_exp(other);
        score.nll_dense += nll(other, log_sum_dense);
        score.right_dense += usize::from(best(other) == target as usize);
        score.agreed += usize::from(best(row) == best(other));
        score.cosine += cosine(row, other, 0.0, 0.0);
        score.cosine_centred += cosine(row, other, mean(row), mean(other));
        let kl = divergence([other, row], [log_sum_dense, log_sum]);
        score.kl += kl;
        divergences.push(kl);
    }
    score
}

/// Kullback-Leibler divergence of the second row of logits from the first, in nats; `log_sums` are their `log_sum_exp`.
pub fn divergence([dense, other]: [&[f32]; 2], log_sums: [f64; 2]) -> f64 {
    let term = |(&p, &q): (&f32, &f32)| {
        let (p, q) = (f64::from(p) - log_sums[0], f64::from(q) - log_sums[1]);
        libm::exp(p) * (p - q)
    };
    dense.iter().zip(other).map(term).sum()
}

/// Logarithm of the sum of a row's exponentials.
pub fn log_sum_exp(row: &[f32]) -> f64 {
    let most = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    most + libm::log(row.iter().map(|&x| libm::exp(f64::from(x) - most)).sum::<f64>())
}

/// Index of the largest logit, the first of equals.
pub fn best(row: &[f32]) -> usize {
    greedy(row) as usize
}

fn mean(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64
}

fn cosine(a: &[f32], b: &[f32], mean_a: f64, mean_b: f64) -> f64 {
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a) - mean_a, f64::from(b) - mean_b);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows that are all alike leave no doubt; others an interval around what all give, narrower the more there are.
    #[test]
    fn intervals_tell_how_sure_a_difference_is() {
        let window = |nll, kl, agreed| Score { tokens: 10, nll, nll_dense: 20.0, kl, agreed, ..Score::default() };
        assert_eq!(Intervals::of(&vec![window(21.0, 0.5, 9); 9], "windows"), None);
        let sure = Intervals::of(&vec![window(21.0, 0.5, 9); 10], "windows").expect("windows");
        let near = |interval: [f64; 2], wanted: f64| interval.iter().all(|x| (x - wanted).abs() < 1e-12);
        assert!(near(sure.increase, libm::expm1(0.1)) && near(sure.kl, 0.05) && near(sure.agreement, 0.9), "{sure:?}");
        // Deviations of 0.05 nats, 0.01 nats and 0.1 tokens per token; 1.96 standard errors either way.
        let of = |i| if i % 2 == 0 { window(20.5, 0.4, 8) } else { window(21.5, 0.6, 10) };
        for count in [16, 256] {
            let windows: Vec<Score> = (0..count).map(of).collect();
            let found = Intervals::of(&windows, "windows").expect("windows");
            let rise = libm::expm1(0.1);
            for ([low, high], middle, deviation) in
                [(found.increase, rise, 0.05 * (1.0 + rise)), (found.kl, 0.05, 0.01), (found.agreement, 0.9, 0.1)]
            {
                let expected = 2.0 * 1.96 * deviation / f64::from(count).sqrt();
                assert!(low < middle && middle < high, "{count}: {low} to {high} around {middle}");
                assert!(((high - low) / expected - 1.0).abs() < 0.15, "{count}: {low} to {high}, not {expected} apart");
            }
        }
    }

    #[test]
    fn percentiles_are_numbers_of_the_list() {
        assert_eq!(percentile_99(Vec::new()), None);
        for (count, wanted) in [(1, 1.0), (99, 99.0), (100, 99.0), (101, 100.0), (1000, 990.0)] {
            let falling = (1..=count).rev().map(f64::from).collect();
            assert_eq!(percentile_99(falling), Some(wanted), "of {count}");
        }
    }
}
