//! How well a network predicts text, and how near two networks are, by running them on windows of it.
//!
//! The usual protocol for decoders: the text with one start token before it is cut into windows of the
//! context's length, a stride apart; every token but the first is predicted once, by the first window that has it. With
//! a stride of the context's length windows do not overlap; a shorter one gives every prediction more of its past.

use crate::parallel::map_in_order;
use crate::progress::Workers;
use crate::ranks;
use crate::score::{Intervals, Score, percentile_99, score_rows};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_ir::verify::LOGITS;
use snnc_ir::{Diagnostic, Elem, ErrorCode, Graph, Type, text};
use snnc_passes::cost::Activity;
use snnc_runtime::{Program, Rows, Session};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

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
    let windows = self::cut(inputs, context, cut);
    Ok(evaluate_programs(std::slice::from_ref(program), dense, ids, &windows, workers.into())?.swap_remove(0))
}

/// Windows of an evaluation, at most: each has a score that is kept to the end.
const WINDOWS_MOST: usize = 1 << 21;

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

/// What a program scored on a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowScore {
    /// Sums over the window's predictions.
    pub score: Score,
    /// What each prediction diverges by, in nats; none without a dense network.
    #[serde(with = "crate::exact::list")]
    #[schemars(with = "Vec<f64>")]
    pub divergences: Vec<f64>,
}

/// What windows gave, before anything is summed whose order shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowResults {
    /// By window, in the order of the text, and by program.
    pub scores: Vec<Vec<WindowScore>>,
    /// By program and node: what all these windows did.
    pub events: Vec<Vec<Events>>,
}

/// Programs and the windows of a text that they are run on, each beside one run of a dense network.
#[derive(Clone, Copy, Debug)]
pub struct WindowWork<'a> {
    /// The programs.
    pub programs: &'a [Arc<Program>],
    /// The dense network.
    pub dense: Option<&'a Arc<Program>>,
    /// The text.
    pub ids: &'a [u32],
    /// Windows of it.
    pub ranges: &'a [Window],
    /// How they are run.
    pub workers: Workers<'a>,
}

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
    let work = WindowWork { programs, dense, ids, ranges, workers };
    Ok(evaluations(ranges, &work.run()?))
}

impl WindowWork<'_> {
    /// Runs the windows, on all ranks.
    ///
    /// # Errors
    /// There are no windows, or too many; a network cannot be run; a request to stop; ranks of other texts.
    pub fn run(&self) -> Result<WindowResults, Diagnostics> {
        self.check()?;
        self.agree()?;
        Ok(self.run_some(self.ranges)?)
    }

    /// Refuses ranks with other programs, texts or windows.
    ///
    /// # Errors
    /// There are some.
    pub fn agree(&self) -> Result<(), Diagnostic> {
        if self.workers.ranks.count() == 1 {
            return Ok(());
        }
        let hash = |program: &Arc<Program>| hash_of_program(program.graph());
        let programs: Vec<String> = self.programs.iter().map(hash).collect();
        let all = json!({ "windows": self.hash(), "programs": programs, "reference": self.dense.map(hash) });
        ranks::agree(self.workers.ranks, &all)
    }

    /// XXH3-64 of the text's ids and the windows.
    pub fn hash(&self) -> String {
        hash_of_windows(self.ids, self.ranges, self.programs.len())
    }

    /// # Errors
    /// There are no windows, or too many.
    pub fn check(&self) -> Result<(), Diagnostic> {
        check_windows(self.ranges.len())
    }

    /// Runs some of the windows, on all ranks.
    ///
    /// # Errors
    /// As of `run`.
    pub fn run_some(&self, ranges: &[Window]) -> Result<WindowResults, Diagnostic> {
        let &Self { programs, dense, ids, workers, .. } = self;
        let names = programs.iter().map(|program| logits_of(program.graph())).collect::<Result<Vec<_>, _>>()?;
        let name_dense = dense.map(|dense| logits_of(dense.graph())).transpose()?;
        workers.progress.begin("evaluating", ranges.iter().map(|window| window.inputs.len() as u64).sum());
        let score = |sessions: &mut ProgramSessions, _, window: &Window| {
            sessions.reset();
            let mut scored: Vec<WindowScore> = vec![WindowScore::default(); programs.len()];
            for chunk in chunks(window.inputs.clone()) {
                let reference = match (&mut sessions.dense, &name_dense) {
                    (Some(dense), Some(name)) => {
                        Some(dense.forward(&ids[chunk.clone()], Rows::All)?.f32(name).unwrap_or(&[]))
                    }
                    _ => None,
                };
                for ((session, name), scored) in sessions.programs.iter_mut().zip(&names).zip(&mut scored) {
                    let outputs = session.forward(&ids[chunk.clone()], Rows::All)?;
                    let logits = outputs.f32(name).unwrap_or(&[]);
                    score_rows_of(window, &chunk, ids, logits, reference, scored);
                }
                workers.advance(chunk.len() as u64);
            }
            Ok(scored)
        };
        let (scores, sessions) = map_in_order(workers, ranges, || ProgramSessions::new(programs, dense), score)?;
        let events = self.all_events(&sessions)?;
        workers.progress.end();
        Ok(WindowResults { scores, events })
    }

    /// What the sessions of all ranks did, by program and node.
    fn all_events(&self, sessions: &[ProgramSessions]) -> Result<Vec<Vec<Events>>, Diagnostic> {
        let of = |(at, program): (usize, &Arc<Program>)| {
            let mut events = vec![Events::default(); program.graph().nodes.len()];
            sessions.iter().for_each(|session| add_events(&mut events, session.programs[at].events()));
            events
        };
        let mut all: Vec<Vec<Events>> = self.programs.iter().enumerate().map(of).collect();
        let ranks = self.workers.ranks;
        if ranks.count() > 1 {
            let own: Vec<Vec<[u64; 8]>> = all.iter().map(|events| events.iter().map(event_counts).collect()).collect();
            all.iter_mut().for_each(|events| events.fill(Events::default()));
            for of_rank in ranks::gathered(ranks, &own)? {
                for (all, events) in all.iter_mut().zip(of_rank) {
                    add_events(all, &events.into_iter().map(events_of).collect::<Vec<Events>>());
                }
            }
        }
        Ok(all)
    }
}

/// # Errors
/// There are no windows, or too many.
pub fn check_windows(count: usize) -> Result<(), Diagnostic> {
    if count > WINDOWS_MOST {
        let message = format!("{count} windows are more than {WINDOWS_MOST}");
        let note = "use a longer --stride, or name a number of --windows";
        return Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note));
    }
    if count == 0 {
        return Err(Diagnostic::new("", "the text is empty: there is nothing to predict"));
    }
    Ok(())
}

/// An evaluation per program, in their order, from the results of all windows.
pub fn evaluations(ranges: &[Window], results: &WindowResults) -> Vec<TextEvaluation> {
    let evaluation = |(at, events): (usize, &Vec<Events>)| {
        let windows: Vec<&WindowScore> = results.scores.iter().map(|window| &window[at]).collect();
        summed(ranges, &windows, events.clone())
    };
    results.events.iter().enumerate().map(evaluation).collect()
}

/// XXH3-64 of a program as text, in which every constant has its own hash.
pub fn hash_of_program(graph: &Graph) -> String {
    format!("{:016x}", xxh3_64(text::print(graph).as_bytes()))
}

/// XXH3-64 of a text's ids and the windows on which so many programs are run.
pub fn hash_of_windows(ids: &[u32], ranges: &[Window], programs: usize) -> String {
    let mut hash = Xxh3::new();
    hash.update(bytemuck::cast_slice(ids));
    hash.update(format!("{ranges:?} {programs}").as_bytes());
    format!("{:016x}", hash.digest())
}

/// Adds what a chunk of a window scores: `logits` are its rows, and `reference` those of the dense network.
pub fn score_rows_of(
    window: &Window,
    chunk: &Range<usize>,
    ids: &[u32],
    logits: &[f32],
    reference: Option<&[f32]>,
    scored: &mut WindowScore,
) {
    let targets = &ids[chunk.start + 1..chunk.end + 1];
    let skipped = window.scored.saturating_sub(chunk.start).min(chunk.len());
    scored.score.add(&score_rows(logits, reference, targets, skipped, &mut scored.divergences));
}

/// Adds what nodes did, node by node.
pub fn add_events(all: &mut [Events], more: &[Events]) {
    all.iter_mut().zip(more).for_each(|(all, events)| *all += *events);
}

/// What a node did, as a row of numbers.
pub fn event_counts(events: &Events) -> [u64; 8] {
    let &Events { spikes, active, saturated, additions, keys, score_pairs, score_additions, value_keys } = events;
    [spikes, active, saturated, additions, keys, score_pairs, score_additions, value_keys]
}

/// What a node did, from such a row.
pub fn events_of(counts: [u64; 8]) -> Events {
    let [spikes, active, saturated, additions, keys, score_pairs, score_additions, value_keys] = counts;
    Events { spikes, active, saturated, additions, keys, score_pairs, score_additions, value_keys }
}

/// The evaluation of a program from what it scored on every window.
fn summed(ranges: &[Window], scored: &[&WindowScore], events: Vec<Events>) -> TextEvaluation {
    let scores: Vec<Score> = scored.iter().map(|window| window.score).collect();
    let mut score = Score::default();
    // Sums of f64 depend on their order, which is the text's.
    scores.iter().for_each(|window| score.add(window));
    TextEvaluation {
        score,
        windows: ranges.len(),
        events,
        run: ranges.iter().map(|window| window.inputs.len() as u64).sum(),
        intervals: Intervals::of(&scores, "windows"),
        kl_99: percentile_99(scored.iter().flat_map(|window| &window.divergences).copied().collect()),
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
