//! Long work: it runs on a thread of its own, while the caller's thread looks for Ctrl-C and shows progress.
//!
//! Law: the thread that works never touches Python, so that it may go on for a moment after the caller has left.

use crate::errors::exception;
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use snnc::progress::Progress;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, ErrorCode as Code};
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks for Ctrl-C.
pub const LOOK: Duration = Duration::from_millis(50);

/// How long work that was asked to stop is waited for. What takes longer ends by itself, and its result is dropped.
const LEAVE: Duration = Duration::from_millis(200);

/// Frames of Python from a function of the extension module to the caller of the package, whose line a warning names.
const CALLER: i32 = 3;

/// What is to be told of work at hand.
#[derive(Debug, Default)]
struct News {
    /// Stages with their units: done, and in all. The last one goes on.
    stages: Vec<(String, u64, u64)>,
    /// Lines for the user.
    lines: Vec<String>,
    warnings: Vec<String>,
}

/// Watches work from another thread.
#[derive(Debug, Default)]
pub struct WorkWatch {
    news: Mutex<News>,
    cancelled: AtomicBool,
}

impl WorkWatch {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the work to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }
}

impl Progress for WorkWatch {
    fn begin(&self, stage: &str, units: u64) {
        self.news().stages.push((stage.to_string(), 0, units));
    }

    fn advance(&self, units: u64) {
        if let Some((_, done, _)) = self.news().stages.last_mut() {
            *done += units;
        }
    }

    fn status(&self, text: &str) {
        self.news().lines.push(text.to_string());
    }

    fn warn(&self, text: &str) {
        self.news().warnings.push(text.to_string());
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// Tells Python what is new: warnings as warnings, the rest to `progress`, which is called with what is done, how much there is,
/// and what is being done; with 0 of 0 for a line.
pub fn tell(py: Python<'_>, watch: &WorkWatch, progress: Option<&Py<PyAny>>) -> PyResult<()> {
    let News { stages, lines, warnings } = {
        let mut news = watch.news();
        let now = std::mem::take(&mut *news);
        news.stages.extend(now.stages.last().cloned());
        now
    };
    for warning in warnings {
        let text = CString::new(warning.replace('\0', " ")).unwrap_or_default();
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, CALLER)?;
    }
    let Some(progress) = progress else { return Ok(()) };
    for line in lines {
        progress.call1(py, (0u64, 0u64, line))?;
    }
    for (stage, done, units) in stages {
        progress.call1(py, (done, units, stage))?;
    }
    Ok(())
}

/// What is said of a panic, which is a mistake of snnc and not of its user.
pub fn broken() -> Diagnostics {
    let error = Diagnostic::new("", "snnc broke off; this is a bug of snnc").code(Code::NONE);
    error.note("standard error says where; please report it with the model and the options").into()
}

/// What is said where no thread can be started.
pub fn no_thread(error: &std::io::Error) -> Diagnostics {
    Diagnostic::new("", format!("no thread can be started: {error}")).code(ErrorCode::RUN).into()
}

/// Runs `job` on a thread of its own, with Python free for other threads.
///
/// # Errors
/// Those of the job; what a signal handler or `progress` raises, `KeyboardInterrupt` above all.
pub fn work<T: Send + 'static>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    job: impl FnOnce(&WorkWatch) -> Result<T, Diagnostics> + Send + 'static,
) -> PyResult<T> {
    let watch = Arc::new(WorkWatch::default());
    let (done, result) = channel();
    let worker = Arc::clone(&watch);
    std::thread::Builder::new()
        .name("snnc-work".into())
        .spawn(move || {
            // Whoever has left does not hear of it.
            let _ = done.send(job(&worker));
        })
        .map_err(|error| exception(py, &no_thread(&error)))?;
    // A receiver is moved between threads by lending it: it is nobody else's.
    let result = Mutex::new(result);
    let wait = |time: Duration| py.detach(|| result.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(time));
    let mut told = Instant::now();
    loop {
        let outcome = wait(LOOK);
        let look = py.check_signals().and_then(|()| {
            let due = outcome.is_ok() || told.elapsed() >= LOOK;
            if due {
                told = Instant::now();
                tell(py, &watch, progress)
            } else {
                Ok(())
            }
        });
        if let Err(error) = look {
            watch.cancel();
            if outcome.is_err() {
                // Files that it holds are let go before the caller goes on, where that is soon.
                let _ = wait(LEAVE);
            }
            return Err(error);
        }
        match outcome {
            Ok(done) => return done.map_err(|diagnostics| exception(py, &diagnostics)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(exception(py, &broken())),
        }
    }
}
