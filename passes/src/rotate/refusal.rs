//! What is said of what cannot be rotated.

use snnc_ir::{Diagnostic, ErrorCode, Graph, Value};

/// Why something cannot be rotated.
pub(super) fn refused(graph: &Graph, value: Option<Value>, what: &str, why: &str) -> Diagnostic {
    let place = value.map_or_else(String::new, |value| {
        let origin = graph.origin(value);
        match (&origin.site, origin.name.is_empty()) {
            (_, false) => origin.name.clone(),
            (Some(site), true) => site.to_string(),
            (None, true) => format!("%{}", value.0),
        }
    });
    Diagnostic::new(place, format!("{what} cannot be rotated: {why}"))
        .code(ErrorCode::PASS)
        .note("leave it out of --rotate, or let --rotate auto take what is possible")
}
