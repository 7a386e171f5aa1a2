//! What a tuning run has measured so far, in a file: a run that ended goes on from there.
//!
//! A line of JSON per measurement. The first says which run it is of: a file of another network, text or option is refused. A line that was cut
//! off when the run ended is dropped.

use super::point::Point;
use crate::quant_options::{parse, spelled};
use crate::ranks::{Ranks, from_first};
use serde::{Deserialize, Serialize};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What the first line calls itself.
const SCHEMA: &str = "snnc.tune-journal.v1";

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum JournalLine {
    /// The first one.
    Run { schema: String, identity: String },
    /// What a site loses with so many timesteps, in nats per token.
    Probe { site: usize, choice: usize, loss: f64 },
    /// A measured allocation.
    Point { options: String, point: PointFigures },
}

/// The figures of a measured allocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PointFigures {
    increase: f64,
    kl: f64,
    spikes: f64,
    timesteps: f64,
    additions: f64,
    attention_additions: f64,
    savings: [[Option<f64>; 2]; 2],
}

/// What was measured, and the file that keeps it.
#[derive(Debug, Default)]
pub struct Journal {
    file: Option<(PathBuf, Mutex<File>)>,
    probes: BTreeMap<(usize, usize), f64>,
    points: Mutex<BTreeMap<String, PointFigures>>,
}

impl Journal {
    /// Opens the file of a run, or begins one. `identity` is what the run depends on. Rank 0 reads and writes the file; all ranks know
    /// what it held.
    ///
    /// # Errors
    /// The file cannot be read or written, is no journal, or is of another run.
    pub fn open(path: &Path, identity: &str, ranks: &dyn Ranks) -> Result<Self, Diagnostic> {
        let wrong = |message: String| Diagnostic::new(path.display().to_string(), message).code(ErrorCode::CHECKPOINT);
        let bytes = from_first(ranks, || match std::fs::read(path) {
            Ok(bytes) => Ok(bytes),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(wrong(format!("cannot be read: {e}"))),
        })?;
        let text = String::from_utf8(bytes).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let mut journal = Self::default();
        // Only the end of a line makes it whole.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines().enumerate();
        let first = lines.next().map(|(_, line)| serde_json::from_str::<JournalLine>(line));
        match &first {
            None if text.is_empty() => {}
            Some(Ok(JournalLine::Run { schema, identity: known })) if schema == SCHEMA => {
                if known != identity {
                    let message = "is of a run with another network, text or option".to_string();
                    return Err(wrong(message).note("use the same command, or name another file"));
                }
            }
            _ => return Err(wrong("is no journal of `snnc tune`".into()).note("name a file that is not there yet")),
        }
        for (number, line) in lines {
            match serde_json::from_str(line).map_err(|e| wrong(format!("line {}: {e}", number + 1)))? {
                JournalLine::Run { .. } => return Err(wrong(format!("line {} begins another run", number + 1))),
                JournalLine::Probe { site, choice, loss } => {
                    journal.probes.insert((site, choice), loss);
                }
                JournalLine::Point { options, point } => {
                    journal.points.get_mut().unwrap_or_else(PoisonError::into_inner).insert(options, point);
                }
            }
        }
        if !ranks.is_first() {
            return Ok(journal);
        }
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            file.set_len(whole as u64)?;
            Ok(file)
        };
        let file = open().map_err(|e: std::io::Error| wrong(format!("cannot be written: {e}")))?;
        journal.file = Some((path.to_path_buf(), Mutex::new(file)));
        if whole == 0 {
            journal.keep(&JournalLine::Run { schema: SCHEMA.into(), identity: identity.into() })?;
        }
        Ok(journal)
    }

    /// Measurements that it holds.
    pub fn count(&self) -> usize {
        self.probes.len() + self.points.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What a site loses with a choice, where that is known.
    pub fn probe(&self, (site, choice): (usize, usize)) -> Option<f64> {
        self.probes.get(&(site, choice)).copied()
    }

    /// Keeps what a site loses with a choice.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_probe(&self, (site, choice): (usize, usize), loss: f64) -> Result<(), Diagnostic> {
        if loss.is_finite() { self.keep(&JournalLine::Probe { site, choice, loss }) } else { Ok(()) }
    }

    /// A measured allocation, where it is known, by the options that ask for it.
    pub fn point(&self, options: &str) -> Option<Point> {
        let points = self.points.lock().unwrap_or_else(PoisonError::into_inner);
        let PointFigures { increase, kl, spikes, timesteps, additions, attention_additions, savings } =
            points.get(options)?.clone();
        let options = parse(options).ok()?.options().ok()?;
        let allocation = None;
        Some(Point { allocation, options, increase, kl, spikes, timesteps, additions, attention_additions, savings })
    }

    /// Keeps a measured allocation.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_point(&self, point: &Point) -> Result<(), Diagnostic> {
        let &Point { increase, kl, spikes, timesteps, additions, attention_additions, savings, .. } = point;
        let figures = PointFigures { increase, kl, spikes, timesteps, additions, attention_additions, savings };
        let options = spelled(&point.options);
        self.points.lock().unwrap_or_else(PoisonError::into_inner).insert(options.clone(), figures.clone());
        // JSON has no other numbers; such a network is measured again.
        let numbers = [increase, kl, spikes, timesteps, additions, attention_additions];
        let is_kept = numbers.into_iter().chain(savings.into_iter().flatten().flatten()).all(f64::is_finite);
        if is_kept { self.keep(&JournalLine::Point { options, point: figures }) } else { Ok(()) }
    }

    fn keep(&self, line: &JournalLine) -> Result<(), Diagnostic> {
        let Some((path, file)) = &self.file else { return Ok(()) };
        let text = serde_json::to_string(line).unwrap_or_default() + "\n";
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // In one call, so that an end at any moment leaves at most the last line cut off.
        file.write_all(text.as_bytes()).map_err(|e| {
            Diagnostic::new(path.display().to_string(), format!("cannot be written: {e}")).code(ErrorCode::CHECKPOINT)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snnc_passes::options::QuantOptions;

    fn point() -> Point {
        Point {
            allocation: None,
            options: QuantOptions::default(),
            increase: 0.1 + 0.2,
            kl: 1e-300,
            spikes: 2.0,
            timesteps: 7.0,
            additions: 3e9,
            attention_additions: 1.5,
            savings: [[None, Some(0.5)], [Some(-0.1), None]],
        }
    }

    #[test]
    fn what_was_kept_comes_back_bit_by_bit() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("run");
        let open = |identity: &str| Journal::open(&path, identity, &crate::ranks::Alone);
        let journal = open("a").map_err(|e| e.message)?;
        journal.keep_probe((3, 4), 0.1).map_err(|e| e.message)?;
        journal.keep_point(&point()).map_err(|e| e.message)?;
        // The run ended while a line was written.
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, format!("{text}{{\"kind\":\"probe\",\"si"))?;
        let again = open("a").map_err(|e| e.message)?;
        assert_eq!((again.probe((3, 4)), again.probe((3, 5)), again.count()), (Some(0.1), None, 2));
        let known = again.point(&spelled(&point().options)).ok_or("it was kept")?;
        assert_eq!((known.increase, known.kl, known.savings), (point().increase, 1e-300, point().savings));
        assert_eq!(std::fs::read_to_string(&path)?, text, "the cut line is gone");
        assert!(open("b").is_err_and(|e| e.message.contains("another network")));
        std::fs::write(&path, "not a journal\n")?;
        assert!(open("a").is_err());
        assert_eq!(std::fs::read_to_string(&path)?, "not a journal\n", "it is left as it was");
        Ok(())
    }
}
