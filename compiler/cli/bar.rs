//! Progress on a terminal: a bar, and words beside it; nothing elsewhere. And Ctrl-C, which asks for an end.

use crate::output::{INTERRUPTED, status, warn};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snnc::files;
use snnc::progress::Progress;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Whether Ctrl-C was pressed.
static STOP: AtomicBool = AtomicBool::new(false);
/// Whether the work at hand ends by itself when asked to.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// Ctrl-C: work that listens ends with what it has; other work ends at once.
pub fn interrupted() {
    if LISTENS.load(Ordering::SeqCst) && !STOP.swap(true, Ordering::SeqCst) {
        status("stopping after this step; press Ctrl-C again to stop at once");
        return;
    }
    let untouched = files::discard_pending();
    status(if untouched {
        "interrupted; no output was changed"
    } else {
        "interrupted; the outputs written so far are whole"
    });
    std::process::exit(INTERRUPTED);
}

/// From here on work listens to Ctrl-C, or no longer.
pub fn listen(listens: bool) {
    LISTENS.store(listens, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed.
pub fn was_interrupted() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// A bar on standard error, if that is a terminal.
#[derive(Debug, Default)]
pub struct Bar {
    shown: Mutex<Option<ProgressBar>>,
}

impl Bar {
    fn with(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        act(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Prints while no bar is in the way.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        let bar = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &str, units: u64) {
        self.end();
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::with_draw_target(Some(units), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg:>12} [{bar:30}] {pos}/{len}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(stage.to_string());
        self.with(|shown| *shown = Some(bar));
    }

    fn advance(&self, units: u64) {
        self.with(|shown| shown.iter().for_each(|bar| bar.inc(units)));
    }

    fn message(&self, text: &str) {
        self.with(|shown| shown.iter().for_each(|bar| bar.set_message(text.to_string())));
    }

    fn end(&self) {
        self.with(|shown| shown.take().iter().for_each(ProgressBar::finish_and_clear));
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
