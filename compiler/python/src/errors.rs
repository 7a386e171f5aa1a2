//! Diagnostics as exceptions: `snnc._errors` has their classes.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use snnc_ir::diagnostic::Diagnostics;

/// The exception of what went wrong.
pub fn exception(py: Python<'_>, diagnostics: &Diagnostics) -> PyErr {
    let rows: Vec<(String, String, String, Vec<String>)> = diagnostics
        .iter()
        .map(|one| (one.code.to_string(), one.place.to_string(), one.message.clone(), one.notes.clone()))
        .collect();
    let made = py.import("snnc._errors").and_then(|module| module.call_method1("error_of", (rows,)));
    // Without its own classes the module is not whole; the words are what matters then.
    made.map_or_else(|_| PyRuntimeError::new_err(diagnostics.to_string()), PyErr::from_value)
}
