//! Files of shards: results by window, with the record of the run that they are of.
//!
//! Files come from strangers. What a file says is bounded, its checksum is that of what it says, and the files that it names have
//! to be what they were, by their hashes.

use crate::evaluate::WindowScore;
use crate::files;
use crate::merge::{Shards, damaged, refused};
use crate::part::PartJson;
use crate::run_record::{RunFile, RunRecord, commit};
use crate::schema::{document, tag};
use crate::shard::Shard;
use crate::verify_run::RecordedRun;
use serde::Deserialize;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a file, at most: those of 40 million predictions.
const PART_BYTES_MAX: u64 = 1 << 30;

/// Arguments of a recorded run, at most.
const ARGUMENTS_MAX: usize = 1 << 10;

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

/// Reads the files of all shards of a run, in any order; and the run, as if one process had done it.
///
/// # Errors
/// A file that is damaged, of another run or of a shard that another file has; a missing shard; a file of the run that has changed.
pub fn read_all(paths: &[PathBuf]) -> Result<(RunRecord, Shards), Diagnostics> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        all.push((path, read(path)?));
    }
    let Some((path, first)) = all.first() else {
        return Err(Diagnostic::new("", "there are no shards to merge").code(ErrorCode::OPTION).into());
    };
    check_build(path, &first.run)?;
    for (other_path, other) in &all[1..] {
        let differing = differences(first, other);
        if !differing.is_empty() {
            let message = format!("is of another run than {}: {}", path.display(), differing.join(", "));
            return Err(refused(other_path, message, "merge shards of one command, on the same files").into());
        }
    }
    let run = first.run.clone();
    let shards = Shards::new(all.into_iter().map(|(path, written)| (path.clone(), written.part)).collect())?;
    let record = RecordedRun { run, results: Vec::new() };
    record.check_files()?;
    Ok((record.run, shards))
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
