//! Progress of long work, and a request to end it: what a library user implements to watch, and to stop, what takes long.
//!
//! Law: no result depends on it. Work that is asked to stop gives the diagnostic of `cancelled`, and no result.

use crate::ranks::{Alone, Ranks};
use snnc_ir::Diagnostic;
use std::fmt;

/// Watches long work, from any thread.
///
/// ```
/// use snnc::progress::{Progress, Silent};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// #[derive(Debug, Default)]
/// struct Count(AtomicU64);
/// impl Progress for Count {
///     fn advance(&self, units: u64) {
///         self.0.fetch_add(units, Ordering::Relaxed);
///     }
/// }
///
/// let count = Count::default();
/// let watched: &dyn Progress = &count;
/// watched.begin("evaluating", 3);
/// watched.advance(3);
/// assert_eq!(count.0.into_inner(), 3);
/// assert!(!Silent.is_cancelled());
/// ```
pub trait Progress: Sync + fmt::Debug {
    /// A stage of `units` units of work begins; it ends with `end`, or when the next one begins.
    fn begin(&self, _stage: &str, _units: u64) {}
    /// So many units more are done.
    fn advance(&self, _units: u64) {}
    /// What is worth a line beside the bar: a loss, a speed.
    fn message(&self, _text: &str) {}
    /// A line for the user that stays: what was found or chosen on the way.
    fn status(&self, _text: &str) {}
    /// The stage is over.
    fn end(&self) {}
    /// Something that the user should know, and that changes no result.
    fn warn(&self, _text: &str) {}
    /// Whether the work should stop where it can.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// How windows are run: on how many threads of how many processes, and who watches.
#[derive(Clone, Copy, Debug)]
pub struct Workers<'a> {
    /// Threads that each run a sequence of their own; no result depends on their number.
    pub threads: usize,
    /// Who watches.
    pub progress: &'a dyn Progress,
    /// The processes that share the work; no result depends on their number.
    pub ranks: &'a dyn Ranks,
}

impl<'a> Workers<'a> {
    /// So many threads of this process.
    pub fn alone(threads: usize, progress: &'a dyn Progress) -> Self {
        Self { threads, progress, ranks: &Alone }
    }

    /// So many units of spread work more are done here. Every rank does about as many in that time.
    pub fn advance(&self, units: u64) {
        self.progress.advance(units * self.ranks.count() as u64);
    }
}

impl From<usize> for Workers<'static> {
    /// So many threads that nobody watches.
    fn from(threads: usize) -> Self {
        Self::alone(threads, &Silent)
    }
}

/// What work that was asked to stop ends with.
pub fn cancelled() -> Diagnostic {
    Diagnostic::new("", "the work was cancelled before it was done")
}
