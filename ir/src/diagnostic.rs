//! What is wrong with an input, said to a person: where, what was found, what to do.

use std::fmt;

/// One complaint about an input. `place` is an ONNX node, a line of text, a byte offset or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub place: String,
    pub message: String,
    pub notes: Vec<String>,
}

impl Diagnostic {
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into(), notes: Vec::new() }
    }

    /// Adds a line that says more or what to do.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            write!(f, "{}", self.message)?;
        } else {
            write!(f, "{}: {}", self.place, self.message)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
    }
}

impl std::error::Error for Diagnostic {}
