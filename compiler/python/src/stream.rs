//! What comes piece by piece: text of a generation, events of a training run.

use crate::errors::exception;
use crate::work::{LOOK, WorkWatch, broken, no_thread, tell};
use pyo3::prelude::*;
use snnc::progress::cancelled;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// PieceSender that wait for their reader at most; whoever makes more waits for the reader.
const WAITING: usize = 64;

/// What the thread that works sends.
#[derive(Debug)]
enum StreamMessage {
    Piece(String),
    /// The last one: what is known of the whole, as JSON.
    Done(Result<String, Diagnostics>),
}

/// Sends pieces to the reader.
#[derive(Debug)]
pub struct PieceSender(SyncSender<StreamMessage>);

impl PieceSender {
    /// Sends one.
    ///
    /// # Errors
    /// Nobody reads any longer.
    pub fn send(&self, piece: String) -> Result<(), Diagnostics> {
        self.0.send(StreamMessage::Piece(piece)).map_err(|_| cancelled().into())
    }
}

/// An iterator over pieces that a thread of its own makes.
#[derive(Debug)]
#[pyclass(frozen, name = "Stream", module = "snnc._snnc")]
pub struct PieceStream {
    pieces: Mutex<Receiver<StreamMessage>>,
    watch: Arc<WorkWatch>,
    progress: Option<Py<PyAny>>,
    /// After Ctrl-C the work is waited for, since it keeps what it has.
    keeps: bool,
    done: Mutex<Option<String>>,
    process: u32,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PieceStream {
    /// Begins work that sends pieces, and gives JSON in the end.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn begin(
        py: Python<'_>,
        keeps: bool,
        progress: Option<Py<PyAny>>,
        job: impl FnOnce(&PieceSender, &WorkWatch) -> Result<String, Diagnostics> + Send + 'static,
    ) -> PyResult<Self> {
        let (sender, receiver) = sync_channel(WAITING);
        let watch = Arc::new(WorkWatch::default());
        let worker = Arc::clone(&watch);
        let serve = move || {
            let pieces = PieceSender(sender);
            let done = job(&pieces, &worker);
            // Whoever has left does not hear of it.
            let _ = pieces.0.send(StreamMessage::Done(done));
        };
        std::thread::Builder::new()
            .name("snnc-stream".into())
            .spawn(serve)
            .map_err(|error| exception(py, &no_thread(&error)))?;
        let (pieces, done, process) = (Mutex::new(receiver), Mutex::new(None), std::process::id());
        Ok(Self { pieces, watch, progress, keeps, done, process })
    }

    /// The next piece; `None` behind the last.
    fn next(&self, py: Python<'_>) -> PyResult<Option<String>> {
        if std::process::id() != self.process {
            let error =
                Diagnostic::new("", "this iterator belongs to the process that made it, and this is a fork of it");
            return Err(exception(py, &error.code(ErrorCode::RUN).note("begin anew in this process").into()));
        }
        let mut interrupted: Option<PyErr> = None;
        loop {
            if py.detach(|| locked(&self.done).is_some()) {
                return interrupted.map_or(Ok(None), Err);
            }
            let message = py.detach(|| locked(&self.pieces).recv_timeout(LOOK));
            let look = py.check_signals().and_then(|()| tell(py, &self.watch, self.progress.as_ref()));
            if let Err(error) = look {
                self.watch.cancel();
                if !self.keeps || interrupted.is_some() {
                    return Err(error);
                }
                interrupted = Some(error);
            }
            match message {
                Ok(StreamMessage::Piece(_)) if interrupted.is_some() => {}
                Ok(StreamMessage::Piece(piece)) => return Ok(Some(piece)),
                Ok(StreamMessage::Done(Ok(json))) => *locked(&self.done) = Some(json),
                Ok(StreamMessage::Done(Err(diagnostics))) => {
                    *locked(&self.done) = Some("null".into());
                    return Err(interrupted.unwrap_or_else(|| exception(py, &diagnostics)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    *locked(&self.done) = Some("null".into());
                    return Err(exception(py, &broken()));
                }
            }
        }
    }
}

#[pymethods]
impl PieceStream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.next(py)
    }

    /// What is known of the whole, as JSON; `None` before the end.
    #[getter]
    fn done(&self, py: Python<'_>) -> Option<String> {
        py.detach(|| locked(&self.done).clone())
    }

    /// Asks the work to stop.
    fn cancel(&self) {
        self.watch.cancel();
    }
}

impl Drop for PieceStream {
    fn drop(&mut self) {
        self.watch.cancel();
    }
}
