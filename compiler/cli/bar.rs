//! How far long work is: a bar on a terminal; in a log a line with the time every ten seconds. And Ctrl-C, which asks for an end.

use crate::output::{INTERRUPTED, LogLevel, is_said, log, say, status, warn};
use crate::ranks::is_first;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snnc::files;
use snnc::progress::Progress;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whether Ctrl-C was pressed.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the work at hand ends by itself when asked to.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Ctrl-C: work that listens ends with what it has; other work ends at once.
pub fn interrupted() {
    if LISTENS.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst) {
        say_first("stopping after this step; press Ctrl-C again to stop at once");
        return;
    }
    let untouched = files::discard_pending();
    say_first(if untouched {
        "interrupted; no output was changed"
    } else {
        "interrupted; the outputs written so far are whole"
    });
    std::process::exit(INTERRUPTED);
}

/// One of several processes is enough to say it.
fn say_first(line: &str) {
    if is_first() {
        say(line);
    }
}

/// From here on work listens to Ctrl-C, or no longer.
pub fn listen(listens: bool) {
    LISTENS.store(listens, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed.
pub fn was_interrupted() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// Time between lines of a log about the same work.
const EVERY: Duration = Duration::from_secs(10);

/// A bar on standard error if that is a terminal, else lines.
#[derive(Debug, Default)]
pub struct Bar {
    shown: Mutex<Option<ShownProgress>>,
}

/// A stage of work, as it is shown.
#[derive(Debug)]
enum ShownProgress {
    Bar(ProgressBar),
    Lines(LoggedStage),
}

/// A stage of work in a log.
#[derive(Debug)]
struct LoggedStage {
    name: String,
    /// What is said beside it: a loss, a speed.
    beside: String,
    units: u64,
    done: u64,
    began: Instant,
    told: Instant,
}

impl LoggedStage {
    fn new(name: &str, units: u64) -> Self {
        let now = Instant::now();
        Self { name: name.into(), beside: String::new(), units, done: 0, began: now, told: now }
    }

    fn tell_if_due(&mut self) {
        if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            log(LogLevel::Info, &self.line());
        }
    }

    /// How far it is, and how long it still takes at the pace so far.
    fn line(&self) -> String {
        let share = self.done as f64 / self.units.max(1) as f64;
        let seconds = self.began.elapsed().as_secs_f64();
        let left = if share > 0.0 { format!(", {:.0} s left", seconds / share - seconds) } else { String::new() };
        let beside = if self.beside.is_empty() { String::new() } else { format!("; {}", self.beside) };
        format!("{}: {:.0} % ({} of {}){left}{beside}", self.name, 100.0 * share, self.done, self.units)
    }
}

impl Bar {
    fn with(&self, act: impl FnOnce(&mut Option<ShownProgress>)) {
        act(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Prints while no bar is in the way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = match &*self.shown.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(ShownProgress::Bar(bar)) => Some(bar.clone()),
            Some(ShownProgress::Lines(_)) | None => None,
        };
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &str, units: u64) {
        self.end();
        log_stage(&format!("{stage}: {units} to do"));
        if !is_said(LogLevel::Info) {
            return;
        }
        if !std::io::stderr().is_terminal() {
            self.with(|shown| *shown = Some(ShownProgress::Lines(LoggedStage::new(stage, units))));
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(units), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg:>12} [{bar:30}] {pos}/{len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(stage.to_string());
        self.with(|shown| *shown = Some(ShownProgress::Bar(bar)));
    }

    fn advance(&self, units: u64) {
        self.with(|shown| match shown {
            Some(ShownProgress::Bar(bar)) => bar.inc(units),
            Some(ShownProgress::Lines(stage)) => {
                stage.done += units;
                stage.tell_if_due();
            }
            None => {}
        });
    }

    fn message(&self, text: &str) {
        self.with(|shown| match shown {
            Some(ShownProgress::Bar(bar)) => bar.set_message(text.to_string()),
            Some(ShownProgress::Lines(stage)) => stage.beside = text.into(),
            None => {}
        });
    }

    fn end(&self) {
        self.with(|shown| match shown.take() {
            Some(ShownProgress::Bar(bar)) => bar.finish_and_clear(),
            Some(ShownProgress::Lines(stage)) => {
                log_stage(&format!("{}: done in {:.1} s", stage.name, stage.began.elapsed().as_secs_f64()));
            }
            None => {}
        });
    }

    fn status(&self, text: &str) {
        self.suspend(|| status(text));
    }

    fn warn(&self, text: &str) {
        self.suspend(|| warn(text));
    }

    fn is_cancelled(&self) -> bool {
        was_interrupted()
    }
}

/// A line about a stage as a whole.
fn log_stage(line: &str) {
    log(LogLevel::Debug, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_the_work_is() {
        let mut stage = LoggedStage::new("probing", 8);
        assert_eq!(stage.line(), "probing: 0 % (0 of 8)");
        stage.done = 8;
        stage.beside = "loss 0.1".into();
        assert_eq!(stage.line(), "probing: 100 % (8 of 8), 0 s left; loss 0.1");
    }
}
