//! Shards of a run to files, and their files to the results of the whole run.
//!
//! Law: merged shards give the figures of one process, bit for bit. A file keeps results by window, and sums are made here.
//!
//! Files come from strangers. Sizes and numbers are bounded before they are used, and what a file names is compared with its hashes.

use crate::evaluate::{WindowResults, WindowScore, WindowWork, add_events, event_counts, events_of};
use crate::files;
use crate::parallel::{dealt, in_turn};
use crate::part::PartJson;
use crate::ranks;
use crate::run_record::{RunFile, RunRecord, commit};
use crate::schema::{document, tag};
use crate::shard::Shard;
use crate::verify_run::RecordedRun;
use serde::Deserialize;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::events::Events;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a part, at most: those of 40 million predictions.
const PART_BYTES_MAX: u64 = 1 << 30;

/// Most that a node does in a shard: sums over all nodes and shards stay far from what a number of 64 bits holds.
const EVENTS_MAX: u64 = 1 << 44;

/// Arguments of a recorded run, at most.
const ARGUMENTS_MAX: usize = 1 << 10;

/// Runs a shard's windows.
///
/// # Errors
/// A network cannot be run; a request to stop.
pub fn run_shard(work: &WindowWork<'_>, shard: Shard) -> Result<PartJson, Diagnostics> {
    work.check()?;
    ranks::agree(work.workers.ranks, &serde_json::json!({ "windows": work.hash(), "shard": shard }))?;
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

/// Writes what a shard gave. `run` is the run of which it is a shard.
///
/// # Errors
/// `path` cannot be written.
pub fn write(path: &Path, part: PartJson, run: &RunRecord) -> Result<(), Diagnostic> {
    let part = PartJson { checksum: checksum(run, &part), ..part };
    files::write_whole(path, |out| {
        serde_json::to_writer(&mut *out, &document(&part, Some(run)))?;
        out.write_all(b"\n")
    })
}

/// What a file of a shard holds, key by key: no value is read twice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKeys {
    schema: String,
    run: RunRecord,
    shard: Shard,
    windows: usize,
    work: String,
    scores: Vec<Vec<WindowScore>>,
    events: Vec<Vec<[u64; 8]>>,
    checksum: String,
}

/// A shard, and the run that it is of.
struct WrittenPart {
    run: RunRecord,
    part: PartJson,
}

/// Hashes what is written.
struct HashedBytes(Xxh3);

impl Write for HashedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// XXH3-64 of everything but the checksum.
fn checksum(run: &RunRecord, part: &PartJson) -> String {
    let PartJson { shard, windows, work, scores, events, checksum: _ } = part;
    let mut hash = HashedBytes(Xxh3::new());
    // Hashing takes all that is written.
    let _ = serde_json::to_writer(&mut hash, &(run, shard, windows, work, scores, events));
    format!("{:016x}", hash.0.digest())
}

/// All shards of a run.
#[derive(Debug)]
pub struct Shards {
    run: RunRecord,
    windows: usize,
    work: String,
    /// In the order of the shards, each with its file.
    parts: Vec<(PathBuf, PartJson)>,
}

impl Shards {
    /// Reads the files of all shards of a run, in any order.
    ///
    /// # Errors
    /// A file that is damaged, of another run or of a shard that another file has; a missing shard; a file of the run that has changed.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Diagnostics> {
        let mut all = Vec::with_capacity(paths.len());
        for path in paths {
            all.push((path, read(path)?));
        }
        let Some((first, _)) = all.first() else {
            return Err(Diagnostic::new("", "there are no shards to merge").code(ErrorCode::OPTION).into());
        };
        check_build(first, &all[0].1.run)?;
        for (path, other) in &all[1..] {
            let differing = differences(&all[0].1, other);
            if !differing.is_empty() {
                let message = format!("is of another run than {}: {}", first.display(), differing.join(", "));
                return Err(refused(path, message, "merge shards of one command, on the same files").into());
            }
        }
        let (run, windows) = (all[0].1.run.clone(), all[0].1.part.windows);
        let work = all[0].1.part.work.clone();
        let mut parts: Vec<(PathBuf, PartJson)> =
            all.into_iter().map(|(path, written)| (path.clone(), written.part)).collect();
        parts.sort_by_key(|(_, part)| part.shard.index);
        for pair in parts.windows(2) {
            if pair[0].1.shard.index == pair[1].1.shard.index {
                let message = format!("is shard {} as {} is", pair[1].1.shard, pair[0].0.display());
                return Err(refused(&pair[1].0, message, "name the file of every shard once").into());
            }
        }
        let shards = Self { run, windows, work, parts };
        shards.check_all_there()?;
        // Whoever reads a large text for a merge first wants to know that it is the right one.
        RecordedRun { run: shards.run.clone(), results: Vec::new() }.check_files()?;
        Ok(shards)
    }

    fn check_all_there(&self) -> Result<(), Diagnostic> {
        let count = self.parts[0].1.shard.count;
        let is_there = |index| self.parts.iter().any(|(_, part)| part.shard.index == index);
        let missing: Vec<u32> = (0..count).filter(|&index| !is_there(index)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let more = if missing.len() == 1 { String::new() } else { format!(", and {} more", missing.len() - 1) };
        let message = format!("shard {first}/{count} is missing{more}");
        let note = format!("run the same command with --shard {first}/{count}, and name its file here as well");
        Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note))
    }

    /// The run that these are the shards of, as if one process had done it.
    pub fn run(&self) -> &RunRecord {
        &self.run
    }

    /// The results of all windows.
    ///
    /// # Errors
    /// They are not of this work, or no work gives them.
    pub fn results(&self, work: &WindowWork<'_>) -> Result<WindowResults, Diagnostics> {
        work.check()?;
        if (work.ranges.len(), work.hash()) != (self.windows, self.work.clone()) {
            let message = "is of another text or other windows than the command that it names";
            return Err(refused(&self.parts[0].0, message, "run all shards again with this snnc").into());
        }
        for (path, part) in &self.parts {
            check_numbers(part, work).map_err(|message| damaged(path, &message))?;
        }
        let nodes = |(at, program): (usize, &std::sync::Arc<snnc_runtime::Program>)| {
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

/// Reads one file.
fn read(path: &Path) -> Result<WrittenPart, Diagnostic> {
    let unread = |e: io::Error| {
        Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")).code(ErrorCode::FILE)
    };
    let meta = std::fs::metadata(path).map_err(unread)?;
    if !meta.is_file() {
        return Err(Diagnostic::new(path.display().to_string(), "is not a file").code(ErrorCode::FILE));
    }
    if meta.len() > PART_BYTES_MAX {
        let message = format!("has {} bytes, a shard at most {PART_BYTES_MAX}", meta.len());
        return Err(refused(path, message, "use more shards"));
    }
    let file = BufReader::new(File::open(path).map_err(unread)?.take(PART_BYTES_MAX));
    let keys: WrittenKeys = serde_json::from_reader(file).map_err(|e| damaged(path, &e.to_string()))?;
    let WrittenKeys { schema, run, shard, windows, work, scores, events, checksum: written } = keys;
    let expected = tag::<PartJson>();
    if schema != expected {
        return Err(damaged(path, &format!("it is of `{schema}`, not of `{expected}`")));
    }
    Shard::new(shard.index, shard.count).map_err(|message| damaged(path, &message))?;
    let written = WrittenPart { run, part: PartJson { shard, windows, work, scores, events, checksum: written } };
    if written.run.arguments.len() > ARGUMENTS_MAX {
        return Err(damaged(path, "its command is too long"));
    }
    if written.part.checksum != checksum(&written.run, &written.part) {
        return Err(damaged(path, "its checksum is another"));
    }
    Ok(written)
}

fn refused(path: &Path, message: impl Into<String>, note: &str) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::OPTION).note(note)
}

fn damaged(path: &Path, what: &str) -> Diagnostic {
    let message = format!("is not what a shard of snnc wrote: {what}");
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::FILE).note("run this shard again")
}

/// Refuses shards of another snnc.
fn check_build(path: &Path, run: &RunRecord) -> Result<(), Diagnostic> {
    let own = (env!("CARGO_PKG_VERSION"), commit());
    if (run.version.as_str(), run.commit.as_deref()) == own {
        return Ok(());
    }
    let named = |version: &str, commit: Option<&str>| format!("{version} ({})", commit.unwrap_or("no commit"));
    let message = format!("is of snnc {}, this is {}", named(&run.version, run.commit.as_deref()), named(own.0, own.1));
    Err(refused(path, message, "merge with the snnc that ran the shards"))
}

/// What two shards differ by that shards of one run agree in.
fn differences(first: &WrittenPart, other: &WrittenPart) -> Vec<String> {
    let (a, b) = (&first.run, &other.run);
    let mut found = Vec::new();
    if (&a.version, &a.commit) != (&b.version, &b.commit) {
        found.push(format!("it is of snnc {} ({})", b.version, b.commit.as_deref().unwrap_or("no commit")));
    }
    if a.arguments != b.arguments {
        found.push(format!("its command is `snnc {}`", b.arguments.join(" ")));
    }
    let same =
        |one: &RunFile, other: &RunFile| (&one.role, one.bytes, &one.xxh3) == (&other.role, other.bytes, &other.xxh3);
    let differs = |(one, other): &(&RunFile, &RunFile)| !same(one, other);
    if let Some((_, file)) = a.files.iter().zip(&b.files).find(differs) {
        found.push(format!("{} ({}) has other contents", file.path, file.role));
    } else if a.files.len() != b.files.len() {
        found.push("it has read other files".into());
    }
    let (a, b) = (&first.part, &other.part);
    if a.shard.count != b.shard.count {
        found.push(format!("it is one of {} shards, not of {}", b.shard.count, a.shard.count));
    }
    if (&a.work, a.windows) != (&b.work, b.windows) {
        found.push("it has other windows".into());
    }
    found
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
