//! What the command writes: data to standard output, words to standard error; and its exit status.
//!
//! Exit status: 0 done, 1 something is wrong with an input or an output, 2 wrong usage, 3 a limit that the user set failed,
//! 130 interrupted, 141 nobody reads what is printed.

use crate::ranks::{CommandEnd, is_first, wait_for_first, world};
use clap::ValueEnum;
use console::{Term, style};
use snnc::file_use::FileUse;
use snnc::run_record::RunRecord;
use snnc::schema::{Documented, document};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::diagnostic::{ErrorCode, Place};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// A limit failed, or a warning was denied.
pub const FAILED: u8 = 3;

/// What a shell expects of a process that Ctrl-C ended.
pub const INTERRUPTED: i32 = 130;

/// What a shell says of a process that SIGPIPE ended.
pub const READER_GONE: i32 = 141;

/// The exit status of a command that did its work, whether or not what the user set was met; or that of one that failed.
pub fn verdict(result: Result<bool, Diagnostics>) -> CommandEnd {
    match result {
        Ok(true) => Ok(0),
        Ok(false) => Ok(FAILED),
        Err(diagnostics) => {
            wait_for_first();
            report(&diagnostics);
            Err(1)
        }
    }
}

/// How much is said on standard error.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Errors, and limits that failed
    Error,
    /// Warnings as well
    Warn,
    /// What was done, and how far long work is
    Info,
    /// When each stage of the work began and ended
    Debug,
}

/// As a number, for the static below.
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);

/// From here on so much is said.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::SeqCst);
}

/// Whether lines of this level are written: by rank 0 alone.
pub fn is_said(level: LogLevel) -> bool {
    is_first() && level as u8 <= LEVEL.load(Ordering::SeqCst)
}

/// Says what is wrong, on standard error: `error[E0107]: place: message`, and a line per note.
pub fn report(diagnostics: &[Diagnostic]) {
    let rank = if world().count() == 1 { String::new() } else { format!("rank {}: ", world().rank()) };
    for diagnostic in diagnostics {
        say(&(rank.clone() + &in_words(diagnostic)));
    }
}

fn in_words(diagnostic: &Diagnostic) -> String {
    let Diagnostic { code, place, message, notes } = diagnostic;
    let code = if *code == ErrorCode::NONE { String::new() } else { format!("[{code}]") };
    let head = style(format!("error{code}:")).for_stderr().red().bold();
    let place =
        if *place == Place::Nowhere { String::new() } else { format!(" {}:", style(place).for_stderr().bold()) };
    let note = |note: &String| format!("\n  {} {note}", style("note:").for_stderr().cyan());
    format!("{head}{place} {message}{}", notes.iter().map(note).collect::<String>())
}

/// A limit that the user set does not hold.
pub fn failed(text: &str) {
    if !is_first() {
        return;
    }
    say(&format!("{} {text}", style("failed:").for_stderr().red().bold()));
}

/// A line that is worth a second look.
pub fn warn(text: &str) {
    if is_said(LogLevel::Warn) {
        say(&format!("{} {text}", style("warning:").for_stderr().yellow().bold()));
    }
}

/// What was done.
pub fn status(line: &str) {
    if is_said(LogLevel::Info) {
        say(line);
    }
}

/// A line with the time, for who reads a log.
pub fn log(level: LogLevel, line: &str) {
    if is_said(level) {
        say(&format!("{} {line}", humantime::format_rfc3339_seconds(SystemTime::now())));
    }
}

/// A line for a person, who asked for it or has to know. A terminal breaks it between words. A standard error that is closed is no
/// reason to stop.
pub fn say(line: &str) {
    let mut out = io::stderr();
    let columns = if out.is_terminal() { usize::from(Term::stderr().size().1) } else { usize::MAX };
    if console::measure_text_width(line) <= columns {
        let _ = writeln!(out, "{line}");
    } else {
        let options = textwrap::Options::new(columns).subsequent_indent("    ");
        textwrap::wrap(line, options).iter().for_each(|line| drop(writeln!(out, "{line}")));
    }
}

/// A question for a person, who answers on the same line.
pub fn ask(question: &str) {
    let mut out = io::stderr();
    let _ = out.write_all(question.as_bytes()).and_then(|()| out.flush());
}

/// Whether the command writes files, which whoever reads standard output does not know of.
static HAS_OUTPUTS: AtomicBool = AtomicBool::new(false);

/// Whether whoever read standard output has gone away.
static READER_IS_GONE: AtomicBool = AtomicBool::new(false);

/// From here on a reader of standard output that goes away ends only what is printed, if the command writes files.
pub fn set_has_outputs(has_outputs: bool) {
    HAS_OUTPUTS.store(has_outputs, Ordering::SeqCst);
}

/// Text for whoever reads standard output. A reader that has gone away ends the process as SIGPIPE would, or where the command
/// writes files, only what is printed.
pub fn emit(text: &str) -> Result<(), Diagnostics> {
    emit_bytes(text.as_bytes())
}

/// Bytes for whoever reads standard output, as of `emit`.
pub fn emit_bytes(bytes: &[u8]) -> Result<(), Diagnostics> {
    if READER_IS_GONE.load(Ordering::SeqCst) || !is_first() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe && HAS_OUTPUTS.load(Ordering::SeqCst) => {
            READER_IS_GONE.store(true, Ordering::SeqCst);
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(READER_GONE),
        Err(e) => {
            Err(Diagnostic::new("standard output", format!("cannot be written: {e}")).code(ErrorCode::OPTION).into())
        }
    }
}

/// What was typed and which files that names.
static RUN: Mutex<Option<(Vec<String>, FileUse)>> = Mutex::new(None);

/// What the process was asked to do, for the JSON that it prints. A merge was asked for what its shards were asked for.
pub fn set_run(arguments: Vec<String>, used: FileUse) {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some((arguments, used));
}

/// The record of this run. It reads all files of the command, so it is made only where it is printed.
pub fn run_record() -> Option<RunRecord> {
    let run = RUN.lock().unwrap_or_else(PoisonError::into_inner);
    run.as_ref().map(|(arguments, used)| RunRecord::of(arguments.clone(), used))
}

/// JSON for whoever reads standard output, with the name of its schema and the record of the run.
pub fn emit_json<T: Documented>(value: &T) -> Result<(), Diagnostics> {
    emit(&format!("{:#}\n", document(value, run_record().as_ref())))
}

/// Whether a line of JSON was printed already.
static HAS_LINES: AtomicBool = AtomicBool::new(false);

/// A line of JSON for whoever reads standard output. The first one has the record of the run.
pub fn emit_json_line<T: Documented>(value: &T) -> Result<(), Diagnostics> {
    let run = if HAS_LINES.swap(true, Ordering::SeqCst) { None } else { run_record() };
    emit(&format!("{}\n", document(value, run.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_code_place_and_notes() {
        let known = Diagnostic::new("m.snn", "cannot be read").note("try another").code(ErrorCode::FILE);
        assert_eq!(in_words(&known), "error[E0101]: m.snn: cannot be read\n  note: try another");
        assert_eq!(in_words(&Diagnostic::new("", "it broke")), "error: it broke");
    }
}
