//! How calls end: a status, and on failure a message that waits for its thread.

use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, reason = "C has no names within names")]
pub enum SnncStatus {
    /// All is well.
    SNNC_OK = 0,
    /// It failed; snnc_error and snnc_error_code say why.
    SNNC_ERROR = 1,
    /// The caller's function asked for an end.
    SNNC_STOPPED = 2,
    /// The room that was passed is too small. What is needed was written to the count; nothing else was.
    SNNC_NO_ROOM = 3,
}

/// Why a call does not end well.
pub enum Ending {
    /// Something is wrong.
    Failed(Diagnostics),
    /// Any other end.
    Other(SnncStatus),
}

impl From<Diagnostics> for Ending {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Failed(diagnostics)
    }
}

impl From<Diagnostic> for Ending {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::Failed(diagnostic.into())
    }
}

/// An argument that is wrong.
pub fn wrong(argument: &str, what: impl Into<String>) -> Diagnostic {
    Diagnostic::new(argument, what).code(ErrorCode::OPTION)
}

thread_local! {
    static LAST: RefCell<(CString, CString)> = RefCell::default();
}

/// What a text is in C: up to its first zero byte, if it has one.
pub fn c_text(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

fn keep(code: &str, message: &str) {
    LAST.with(|last| *last.borrow_mut() = (c_text(code), c_text(message)));
}

/// Does the work of a call.
pub fn call(work: impl FnOnce() -> Result<(), Ending>) -> SnncStatus {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => SnncStatus::SNNC_OK,
        Ok(Err(Ending::Other(status))) => status,
        Ok(Err(Ending::Failed(diagnostics))) => {
            let code = diagnostics.iter().next().map(|one| one.code.to_string()).unwrap_or_default();
            keep(&code, &diagnostics.to_string());
            SnncStatus::SNNC_ERROR
        }
        Err(_) => {
            keep(&ErrorCode::RUN.to_string(), "snnc panicked, which is a bug: please report it");
            SnncStatus::SNNC_ERROR
        }
    }
}

/// Why the last call of this thread that gave SNNC_ERROR did. The text is valid until the next call of the thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_error() -> *const c_char {
    LAST.with(|last| last.borrow().1.as_ptr())
}

/// The code of that error, such as "E0402". docs/errors.md lists them.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_error_code() -> *const c_char {
    LAST.with(|last| last.borrow().0.as_ptr())
}

/// The version of snnc, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn snnc_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
