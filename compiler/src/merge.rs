//! Shards of a run, and the results of the whole run from theirs.
//!
//! Law: merged shards give the figures of one process, bit for bit. A shard keeps results by window, and sums are made here.
//!
//! Results come from files of strangers: their sizes and numbers are bounded before they are used.

use crate::evaluate::{WindowResults, WindowScore, WindowWork, add_events, event_counts, events_of};
use crate::parallel::{dealt, in_turn};
use crate::part::PartJson;
use crate::ranks;
use crate::shard::Shard;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::events::Events;
use snnc_runtime::Program;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most that a node does in a shard: sums over all nodes and shards stay far from what a number of 64 bits holds.
const EVENTS_MAX: u64 = 1 << 44;

/// Runs a shard's windows.
///
/// # Errors
/// A network cannot be run; a request to stop.
pub fn run_shard(work: &WindowWork<'_>, shard: Shard) -> Result<PartJson, Diagnostics> {
    work.check()?;
    work.agree()?;
    ranks::agree(work.workers.ranks, &serde_json::json!({ "shard": shard }))?;
    let own: Vec<_> = own(work.ranges.len(), shard).map(|window| work.ranges[window].clone()).collect();
    let WindowResults { scores, events } = work.run_some(&own)?;
    let events = events.iter().map(|events| events.iter().map(event_counts).collect()).collect();
    let windows = work.ranges.len();
    Ok(PartJson { shard, windows, work: work.hash(), scores, events, checksum: String::new() })
}

/// The windows of a shard.
fn own(windows: usize, shard: Shard) -> impl Iterator<Item = usize> {
    dealt(windows, shard.index as usize, shard.count as usize)
}

/// All shards of a run.
#[derive(Clone, Debug)]
pub struct Shards {
    /// In the order of the shards, each with its file.
    parts: Vec<(PathBuf, PartJson)>,
}

impl Shards {
    /// Of the results of all shards of a run, in any order.
    ///
    /// # Errors
    /// A shard is missing, or there twice.
    pub fn new(mut parts: Vec<(PathBuf, PartJson)>) -> Result<Self, Diagnostic> {
        parts.sort_by_key(|(_, part)| part.shard.index);
        for pair in parts.windows(2) {
            if pair[0].1.shard.index == pair[1].1.shard.index {
                let message = format!("is shard {} as {} is", pair[1].1.shard, pair[0].0.display());
                return Err(refused(&pair[1].0, message, "name the file of every shard once"));
            }
        }
        let count = parts.first().map_or(0, |(_, part)| part.shard.count);
        let is_there = |index: &u32| parts.binary_search_by_key(index, |(_, part)| part.shard.index).is_ok();
        let missing: Vec<u32> = (0..count).filter(|index| !is_there(index)).collect();
        let Some(first) = missing.first() else { return Ok(Self { parts }) };
        let more = if missing.len() == 1 { String::new() } else { format!(", and {} more", missing.len() - 1) };
        let message = format!("shard {first}/{count} is missing{more}");
        let note = format!("run the same command with --shard {first}/{count}, and name its file here as well");
        Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note))
    }

    /// The results of all windows.
    ///
    /// # Errors
    /// They are not of this work, or no work gives them.
    pub fn results(&self, work: &WindowWork<'_>) -> Result<WindowResults, Diagnostics> {
        work.check()?;
        let (windows, hash) = (work.ranges.len(), work.hash());
        for (path, part) in &self.parts {
            if (part.windows, &part.work) != (windows, &hash) {
                let message = "is of another text or other windows than the command that it names";
                return Err(refused(path, message, "run all shards again with this snnc").into());
            }
            check_numbers(part, work).map_err(|message| damaged(path, &message))?;
        }
        let nodes = |(at, program): (usize, &Arc<Program>)| {
            let mut all = vec![Events::default(); program.graph().nodes.len()];
            for (_, part) in &self.parts {
                add_events(&mut all, &part.events[at].iter().map(|counts| events_of(*counts)).collect::<Vec<Events>>());
            }
            all
        };
        let events = work.programs.iter().enumerate().map(nodes).collect();
        let scores = in_turn(self.parts.iter().map(|(_, part)| part.scores.clone()).collect());
        Ok(WindowResults { scores, events })
    }
}

pub(crate) fn refused(path: &Path, message: impl Into<String>, note: &str) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::OPTION).note(note)
}

pub(crate) fn damaged(path: &Path, what: &str) -> Diagnostic {
    let message = format!("is not what a shard of snnc wrote: {what}");
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::FILE).note("run this shard again")
}

/// Whether results may be those of a shard of this work.
///
/// # Errors
/// They may not; what is wrong.
fn check_numbers(part: &PartJson, work: &WindowWork<'_>) -> Result<(), String> {
    let own: Vec<usize> = own(work.ranges.len(), part.shard).collect();
    if part.scores.len() != own.len() {
        return Err(format!("it has scores of {} windows, not of {}", part.scores.len(), own.len()));
    }
    for (&at, scores) in own.iter().zip(&part.scores) {
        let window = &work.ranges[at];
        let tokens = window.inputs.end.saturating_sub(window.scored.max(window.inputs.start));
        let divergences = if work.dense.is_some() { tokens } else { 0 };
        let fits = |WindowScore { score, divergences: all }: &WindowScore| {
            score.tokens == tokens
                && all.len() == divergences
                && [score.right, score.right_dense, score.agreed].iter().all(|&count| count <= tokens)
        };
        if scores.len() != work.programs.len() || !scores.iter().all(fits) {
            return Err(format!("window {at} cannot have these scores"));
        }
    }
    if part.events.len() != work.programs.len() {
        return Err(format!("it is of {} programs, not of {}", part.events.len(), work.programs.len()));
    }
    for (events, program) in part.events.iter().zip(work.programs) {
        if events.len() != program.graph().nodes.len() {
            return Err("it is of another program".into());
        }
        if events.iter().flatten().any(|&count| count > EVENTS_MAX) {
            return Err("a node cannot do so much".into());
        }
    }
    Ok(())
}
