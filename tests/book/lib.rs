//! The book of the project: the pages in `docs`, as HTML that needs no network.
//!
//! `SUMMARY.md` says in which order pages stand. mdBook writes them; `links` follows what they refer to.

#![warn(missing_docs)]
#![allow(clippy::expect_used)]

pub mod html;
pub mod markdown;

use mdbook_driver::MDBook;
use mdbook_driver::errors::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// A reference that leads nowhere, or to a place that it may not lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokenLink {
    /// From the folder that was looked at.
    pub file: String,
    /// From 1; for HTML, of the written file.
    pub line: usize,
    /// What is there, and what is wrong with it.
    pub message: String,
}

impl fmt::Display for BrokenLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("this crate lies in its repository")
}

/// Writes the book of `docs`, a folder with a `book.toml`, to `folder`.
///
/// # Errors
/// Why a page, the list of pages or the configuration cannot be read, or the book not be written.
pub fn build(docs: &Path, folder: &Path) -> Result<(), Error> {
    let mut book = MDBook::load(docs)?;
    book.config.build.build_dir = std::path::absolute(folder)?;
    book.build()?;
    // mdBook copies whatever is no page; its own settings are no part of the book.
    std::fs::remove_file(folder.join("book.toml"))?;
    Ok(())
}
