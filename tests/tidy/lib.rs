//! The house's rules about source and prose, read from the files themselves.
//!
//! One file per family of rules; each rule is a function from all sources to its findings. Nothing of snnc is linked, so that
//! this runs in seconds and while the rest does not compile. `tidy.rs` says how many findings each rule may have.

#![warn(missing_docs)]

pub mod circles;
pub mod code;
pub mod dependencies;
pub mod docs;
pub mod ops;
pub mod prose;
pub mod sources;

use std::fmt;

/// Something that a rule does not allow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// From the repository's root.
    pub file: String,
    /// From 1; 0 means the whole file.
    pub line: usize,
    /// What is there, and what to do.
    pub message: String,
}

impl Finding {
    /// A finding at a line of a file.
    pub fn new(file: &str, line: usize, message: String) -> Self {
        Self { file: file.to_string(), line, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line.max(1), self.message)
    }
}
