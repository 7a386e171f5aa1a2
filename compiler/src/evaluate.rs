//! How well a network predicts text, and how near two networks are: perplexity, cosine similarity, agreement.
//!
//! The usual protocol for decoders: the text with one start token before it is cut into windows of the
//! context's length, a stride apart; every token but the first is predicted once, by the first window that has it. With
//! a stride of the context's length windows do not overlap; a shorter one gives every prediction more of its past.

use crate::parallel::map_in_order;
use crate::progress::Workers;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_ir::random::SplitMix64;
use snnc_ir::verify::LOGITS;
use snnc_ir::{Diagnostic, Elem, ErrorCode, Graph, Type};
use snnc_passes::cost::Activity;
use snnc_runtime::sample::greedy;
use snnc_runtime::{Program, Rows, Session};
use std::ops::Range;
use std::sync::Arc;

/// Inputs that are run together, and the first of them whose prediction counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What is run, by its place in the text.
    pub inputs: Range<usize>,
    /// The first input whose prediction counts.
    pub scored: usize,
}

/// What of a text is run.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Inputs of a window, at most; the context's length without one.
    pub length: Option<usize>,
    /// Inputs from the start of a window to the start of the next; the context's length without one.
    pub stride: Option<usize>,
    /// Windows, spread evenly over all there are.
    pub windows: usize,
}

/// Windows of at most `length` of `inputs` inputs.
///
/// ```
/// use snnc::evaluate::{Cut, cut};
/// let half = Cut { length: None, stride: Some(2), windows: usize::MAX };
/// let windows = cut(6, 4, half);
/// // The second window begins two inputs later; what the first has scored is only its past.
/// assert_eq!(windows[1].inputs, 2..6);
/// assert_eq!(windows[1].scored, 4);
/// ```
pub fn cut(inputs: usize, length: usize, cut: Cut) -> Vec<Window> {
    let stride = cut.stride.unwrap_or(length).clamp(1, length.max(1));
    let all = if inputs == 0 { 0 } else { 1 + inputs.saturating_sub(length).div_ceil(stride) };
    let count = cut.windows.min(all);
    let window = |w: usize| {
        let start = w * stride;
        let scored = if w == 0 { 0 } else { start - stride + length };
        Window { inputs: start..(start + length).min(inputs), scored }
    };
    (0..count).map(|i| window(i * all / count)).collect()
}

/// Sums over predicted tokens, in f64, in the order of the text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Tokens of the run.
    pub tokens: usize,
    /// Negative log likelihood of the text, in nats.
    pub nll: f64,
    /// The same of the dense network.
    pub nll_dense: f64,
    /// Predictions that were right.
    pub right: usize,
    /// The same of the dense network.
    pub right_dense: usize,
    /// Cosine of the two networks' logits.
    pub cosine: f64,
    /// The same around the means.
    pub cosine_centred: f64,
    /// Kullback-Leibler divergence of the dense prediction from the spiking one, in nats.
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

    /// A sum as a mean over tokens.
    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.tokens as f64
    }
}

/// A finished evaluation. `events` are the program's, by node.
#[derive(Clone, Debug)]
pub struct TextEvaluation {
    /// Sums over predicted tokens.
    pub score: Score,
    /// Windows that were run.
    pub windows: usize,
    /// What the program's nodes did.
    pub events: Vec<Events>,
    /// Tokens that were run, the unit of `events`.
    pub run: u64,
    /// The interval of the rise of perplexity over the dense network's, as shares.
    pub interval: Option<[f64; 2]>,
    /// The divergence, in nats, that 99 % of predictions have at most; `None` without a dense network.
    pub kl_99: Option<f64>,
}

/// Draws of a bootstrap.
const DRAWS: usize = 2000;

/// Windows that a bootstrap needs: of fewer it says too much.
const WINDOWS: usize = 10;

/// The 95 % confidence interval of the rise of perplexity over the dense network's, by paired bootstrap: windows are drawn with
/// replacement, as many as there are, each with what both networks made of it (Efron and Tibshirani 1993, percentiles). `None`
/// of fewer than ten windows. The draws are the same every time.
pub fn interval(windows: &[Score]) -> Option<[f64; 2]> {
    if windows.len() < WINDOWS {
        return None;
    }
    let mut random = SplitMix64(0);
    let mut rise = |_| {
        let drawn = (0..windows.len()).map(|_| &windows[(random.bits() % windows.len() as u64) as usize]);
        let (nats, tokens) = drawn
            .fold((0.0, 0), |(nats, tokens), window| (nats + window.nll - window.nll_dense, tokens + window.tokens));
        libm::expm1(nats / tokens as f64)
    };
    let mut rises: Vec<f64> = (0..DRAWS).map(&mut rise).collect();
    rises.sort_by(f64::total_cmp);
    Some([rises[DRAWS / 40], rises[DRAWS - 1 - DRAWS / 40]])
}

/// What 99 % of some numbers are at most, by nearest rank; `None` of none.
pub(crate) fn percentile_99(mut of: Vec<f64>) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    of.get((99 * of.len()).div_ceil(100).max(1) - 1).copied()
}

impl TextEvaluation {
    /// What the program did, by node.
    pub fn activity(&self) -> Activity {
        Activity { tokens: self.run, events: self.events.clone() }
    }
}

/// NeuronTotals and their spikes over a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeuronTotals {
    /// NeuronTotals that could have spiked: neurons times tokens.
    pub neurons: u64,
    /// Spikes in all.
    pub spikes: u64,
    /// Timesteps, summed over them.
    pub steps: u64,
}

impl NeuronTotals {
    /// Of a run.
    pub fn of(graph: &Graph, done: &TextEvaluation) -> Self {
        let mut all = Self::default();
        for (value, node) in graph.iter() {
            let Some((_, steps)) = node.ty.levels().filter(|_| node.op.is_neuron()) else { continue };
            let neurons = done.run * node.ty.shape().width().unwrap_or(0) as u64;
            all.neurons += neurons;
            all.spikes += done.events[value.index()].spikes;
            all.steps += neurons * u64::from(steps);
        }
        all
    }

    /// Spikes per neuron and token.
    pub fn rate(&self) -> f64 {
        self.spikes as f64 / self.neurons.max(1) as f64
    }

    /// Timesteps a neuron, on average.
    pub fn mean_steps(&self) -> f64 {
        self.steps as f64 / self.neurons.max(1) as f64
    }
}

/// The program's output that predicts the next token.
///
/// # Errors
/// The program has none: no output of that name, or one that is no row of numbers per token.
pub fn logits_of(graph: &Graph) -> Result<String, Diagnostic> {
    let found = graph.outputs.iter().find(|(name, _)| name == LOGITS);
    let Some((name, value)) = found else {
        let names: Vec<&str> = graph.outputs.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("the program predicts no tokens: it has no output `{LOGITS}`, only {}", names.join(", "));
        return Err(Diagnostic::new("", message).code(ErrorCode::RUN));
    };
    match graph.ty(*value) {
        Type::Tensor { elem: Elem::F32, shape } if shape.row_width().is_some() => Ok(name.clone()),
        other => {
            Err(Diagnostic::new("", format!("the program predicts no tokens: its logits are {other}"))
                .code(ErrorCode::RUN))
        }
    }
}

/// Scores `program` on `ids`, beside `dense` where there is one. Results do not depend on the number of threads.
///
/// # Errors
/// The text is empty; a network cannot be run; a request to stop.
pub fn evaluate<'a>(
    program: &Arc<Program>,
    dense: Option<&Arc<Program>>,
    ids: &[u32],
    cut: Cut,
    workers: impl Into<Workers<'a>>,
) -> Result<TextEvaluation, Diagnostics> {
    let context = cut.length.unwrap_or(usize::MAX).clamp(1, program.graph().context as usize);
    // The last id is only predicted, never an input.
    let inputs = ids.len().saturating_sub(1);
    evaluate_windows(program, dense, ids, &self::cut(inputs, context, cut), workers)
}

/// Windows of an evaluation, at most: each has a score that is kept to the end.
const WINDOWS_MOST: usize = 1 << 21;

/// The same on these windows of `ids`.
///
/// # Errors
/// As of `evaluate`.
pub fn evaluate_windows<'a>(
    program: &Arc<Program>,
    dense: Option<&Arc<Program>>,
    ids: &[u32],
    ranges: &[Window],
    workers: impl Into<Workers<'a>>,
) -> Result<TextEvaluation, Diagnostics> {
    let workers = workers.into();
    if ranges.len() > WINDOWS_MOST {
        let message = format!("{} windows are more than {WINDOWS_MOST}", ranges.len());
        let note = "use a longer --stride, or name a number of --windows";
        return Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note).into());
    }
    if ranges.is_empty() {
        return Err(Diagnostic::new("", "the text is empty: there is nothing to predict").into());
    }
    let names = (
        logits_of(program.graph())?,
        match dense {
            Some(dense) => Some(logits_of(dense.graph())?),
            None => None,
        },
    );
    workers.progress.begin("evaluating", ranges.iter().map(|window| window.inputs.len() as u64).sum());
    let sessions = || Ok((Session::new(program.clone())?, dense.map(|dense| Session::new(dense.clone())).transpose()?));
    let score = |(session, beside): &mut (Session, Option<Session>), _, window: &Window| {
        session.reset();
        if let Some(beside) = beside {
            beside.reset();
        }
        let (mut score, mut divergences) = (Score::default(), Vec::new());
        for chunk in chunks(window.inputs.clone()) {
            let targets = &ids[chunk.start + 1..chunk.end + 1];
            let outputs = session.forward(&ids[chunk.clone()], Rows::All)?;
            let logits = outputs.f32(&names.0).unwrap_or(&[]);
            let reference = match (&mut *beside, &names.1) {
                (Some(beside), Some(name)) => {
                    Some(beside.forward(&ids[chunk.clone()], Rows::All)?.f32(name).unwrap_or(&[]).to_vec())
                }
                _ => None,
            };
            let skipped = window.scored.saturating_sub(chunk.start).min(chunk.len());
            score.add(&score_rows(logits, reference.as_deref(), targets, skipped, &mut divergences));
            workers.progress.advance(chunk.len() as u64);
        }
        Ok((score, divergences))
    };
    let (scored, sessions) = map_in_order(workers, ranges, sessions, score)?;
    workers.progress.end();
    let (scores, divergences): (Vec<Score>, Vec<Vec<f64>>) = scored.into_iter().unzip();
    let mut evaluation = TextEvaluation {
        score: Score::default(),
        windows: ranges.len(),
        events: vec![Events::default(); program.graph().nodes.len()],
        run: ranges.iter().map(|window| window.inputs.len() as u64).sum(),
        interval: None,
        kl_99: percentile_99(divergences.concat()),
    };
    for (session, _) in &sessions {
        evaluation.events.iter_mut().zip(session.events()).for_each(|(all, events)| *all += *events);
    }
    // Sums of f64 depend on their order, which is the text's.
    scores.iter().for_each(|score| evaluation.score.add(score));
    evaluation.interval = dense.and_then(|_| interval(&scores));
    Ok(evaluation)
}

/// Rows scored at a time: logits of a large vocabulary are big.
pub(crate) const CHUNK: usize = 64;

/// A window's inputs, cut so that logits of a few rows are held at a time.
pub fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(CHUNK).map(move |start| start..(start + CHUNK).min(range.end))
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

    /// Windows that all rise as much leave no doubt; others an interval around the rise of all, narrower the more there are.
    #[test]
    fn intervals_tell_how_sure_a_rise_is() {
        let window = |nll| Score { tokens: 10, nll, nll_dense: 20.0, ..Score::default() };
        assert_eq!(interval(&vec![window(21.0); 9]), None);
        let sure = interval(&vec![window(21.0); 10]).expect("windows");
        assert!(sure.iter().all(|rise| (rise - libm::expm1(0.1)).abs() < 1e-12), "{sure:?}");
        let width = |count: usize| {
            let windows: Vec<Score> = (0..count).map(|i| window(if i % 2 == 0 { 20.5 } else { 21.5 })).collect();
            let [low, high] = interval(&windows).expect("windows");
            assert!(low < libm::expm1(0.1) && libm::expm1(0.1) < high, "{low} to {high}");
            high - low
        };
        // 1.96 standard errors either way: the deviation is 0.05 nats per token.
        let expected = |count: f64| 2.0 * 1.96 * 0.05 / count.sqrt() * libm::exp(0.1);
        for count in [16, 256] {
            assert!((width(count) / expected(count as f64) - 1.0).abs() < 0.15, "{count}: {}", width(count));
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

    /// Every input is scored once, with the past that its window gives it.
    #[test]
    fn windows_score_every_input_once() {
        for (inputs, length, stride) in [(10, 4, 4), (10, 4, 2), (3, 4, 2), (9, 4, 3), (4, 4, 1), (1, 4, 4)] {
            let windows = cut(inputs, length, Cut { length: None, stride: Some(stride), windows: usize::MAX });
            let scored: Vec<usize> = windows.iter().flat_map(|w| w.scored..w.inputs.end).collect();
            assert_eq!(scored, (0..inputs).collect::<Vec<usize>>(), "{inputs} by {length}, {stride} apart");
            assert!(windows.iter().all(|w| w.inputs.len() <= length && w.inputs.start <= w.scored));
        }
    }
}
