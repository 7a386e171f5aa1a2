//! Writes the book: `cargo run --release -p snnc-book [FOLDER]`, by default to `target/book`.

use snnc_book::{build, repository};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = repository();
    let folder = std::env::args_os().nth(1).map_or_else(|| root.join("target/book"), PathBuf::from);
    let said = match build(&root.join("docs"), &folder) {
        Ok(()) => writeln!(std::io::stdout(), "{}", folder.join("index.html").display()),
        Err(e) => {
            // Nobody may read this either.
            let _ = writeln!(std::io::stderr(), "error: the book is not written: {e:#}");
            return ExitCode::FAILURE;
        }
    };
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
