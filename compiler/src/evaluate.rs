//! How well a network predicts text, and how near two networks are, by running them on windows of it.
//!
//! The usual protocol for decoders: the text with one start token before it is cut into windows of the
//! context's length, a stride apart; every token but the first is predicted once, by the first window that has it. With
//! a stride of the context's length windows do not overlap; a shorter one gives every prediction more of its past.

use crate::parallel::map_in_order;
use crate::progress::Workers;
use crate::score::{Intervals, Score, percentile_99, score_rows};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_ir::verify::LOGITS;
use snnc_ir::{Diagnostic, Elem, ErrorCode, Graph, Type};
use snnc_passes::cost::Activity;
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
    /// How sure the scores and the differences from the dense network are; `None` of few windows.
    pub intervals: Option<Intervals>,
    /// The divergence, in nats, that 99 % of predictions have at most; `None` without a dense network.
    pub kl_99: Option<f64>,
}

impl TextEvaluation {
    /// What the program did, by node.
    pub fn activity(&self) -> Activity {
        Activity { tokens: self.run, events: self.events.clone() }
    }
}

/// Neurons and their spikes over a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeuronTotals {
    /// Neurons that could have spiked: neurons times tokens.
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
    Ok(evaluate_programs(std::slice::from_ref(program), dense, ids, ranges, workers.into())?.swap_remove(0))
}

/// The sessions of a thread: one per program, and one of the dense network.
struct ProgramSessions {
    programs: Vec<Session>,
    dense: Option<Session>,
}

impl ProgramSessions {
    fn new(programs: &[Arc<Program>], dense: Option<&Arc<Program>>) -> Result<Self, Diagnostic> {
        let session = |program: &Arc<Program>| Session::new(program.clone());
        let programs = programs.iter().map(session).collect::<Result<_, _>>()?;
        Ok(Self { programs, dense: dense.map(session).transpose()? })
    }

    fn reset(&mut self) {
        self.programs.iter_mut().chain(&mut self.dense).for_each(Session::reset);
    }
}

/// The score of a window, and what each of its predictions diverges by.
type WindowScore = (Score, Vec<f64>);

/// Several programs on the same windows of `ids`, each beside one run of `dense`: an evaluation per program, in their order. Logits
/// of the dense network are held for a few rows at a time.
///
/// # Errors
/// As of `evaluate`.
pub fn evaluate_programs(
    programs: &[Arc<Program>],
    dense: Option<&Arc<Program>>,
    ids: &[u32],
    ranges: &[Window],
    workers: Workers<'_>,
) -> Result<Vec<TextEvaluation>, Diagnostics> {
    check_windows(ranges)?;
    let names = programs.iter().map(|program| logits_of(program.graph())).collect::<Result<Vec<_>, _>>()?;
    let name_dense = dense.map(|dense| logits_of(dense.graph())).transpose()?;
    workers.progress.begin("evaluating", ranges.iter().map(|window| window.inputs.len() as u64).sum());
    let score = |sessions: &mut ProgramSessions, _, window: &Window| {
        sessions.reset();
        let mut scored: Vec<WindowScore> = vec![WindowScore::default(); programs.len()];
        for chunk in chunks(window.inputs.clone()) {
            let targets = &ids[chunk.start + 1..chunk.end + 1];
            let skipped = window.scored.saturating_sub(chunk.start).min(chunk.len());
            let reference = match (&mut sessions.dense, &name_dense) {
                (Some(dense), Some(name)) => {
                    Some(dense.forward(&ids[chunk.clone()], Rows::All)?.f32(name).unwrap_or(&[]))
                }
                _ => None,
            };
            for ((session, name), (score, divergences)) in sessions.programs.iter_mut().zip(&names).zip(&mut scored) {
                let outputs = session.forward(&ids[chunk.clone()], Rows::All)?;
                let logits = outputs.f32(name).unwrap_or(&[]);
                score.add(&score_rows(logits, reference, targets, skipped, divergences));
            }
            workers.progress.advance(chunk.len() as u64);
        }
        Ok(scored)
    };
    let (scored, sessions) = map_in_order(workers, ranges, || ProgramSessions::new(programs, dense), score)?;
    workers.progress.end();
    let evaluation = |(at, program): (usize, &Arc<Program>)| {
        let mut events = vec![Events::default(); program.graph().nodes.len()];
        for session in &sessions {
            events.iter_mut().zip(session.programs[at].events()).for_each(|(all, events)| *all += *events);
        }
        let windows: Vec<&WindowScore> = scored.iter().map(|window| &window[at]).collect();
        summed(ranges, &windows, events)
    };
    Ok(programs.iter().enumerate().map(evaluation).collect())
}

/// # Errors
/// There are none, or too many.
fn check_windows(ranges: &[Window]) -> Result<(), Diagnostic> {
    if ranges.len() > WINDOWS_MOST {
        let message = format!("{} windows are more than {WINDOWS_MOST}", ranges.len());
        let note = "use a longer --stride, or name a number of --windows";
        return Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note));
    }
    if ranges.is_empty() {
        return Err(Diagnostic::new("", "the text is empty: there is nothing to predict"));
    }
    Ok(())
}

/// The evaluation of a program from what it scored on every window.
fn summed(ranges: &[Window], scored: &[&WindowScore], events: Vec<Events>) -> TextEvaluation {
    let scores: Vec<Score> = scored.iter().map(|(score, _)| *score).collect();
    let mut score = Score::default();
    // Sums of f64 depend on their order, which is the text's.
    scores.iter().for_each(|window| score.add(window));
    TextEvaluation {
        score,
        windows: ranges.len(),
        events,
        run: ranges.iter().map(|window| window.inputs.len() as u64).sum(),
        intervals: Intervals::of(&scores, "windows"),
        kl_99: percentile_99(scored.iter().flat_map(|(_, divergences)| divergences).copied().collect()),
    }
}

/// Rows scored at a time: logits of a large vocabulary are big.
pub(crate) const CHUNK: usize = 64;

/// A window's inputs, cut so that logits of a few rows are held at a time.
pub fn chunks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(CHUNK).map(move |start| start..(start + CHUNK).min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;

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
