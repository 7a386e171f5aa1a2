//! What the command writes: data to standard output, words to standard error; and its exit status.
//!
//! Exit status: 0 done, 1 something is wrong with an input or an output, 2 wrong usage, 3 a limit that the user set failed,
//! 130 interrupted, 141 nobody reads what is printed.

use console::style;
use snnc::schema::{Documented, document};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::diagnostic::{ErrorCode, Place};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// A limit failed, or a warning was denied.
pub const FAILED: u8 = 3;

/// What a shell expects of a process that Ctrl-C ended.
pub const INTERRUPTED: i32 = 130;

/// What a shell says of a process that SIGPIPE ended.
pub const READER_GONE: i32 = 141;

/// The exit status of a command that did its work, whether or not what the user set was met.
pub fn verdict(result: Result<bool, Diagnostics>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(diagnostics) => {
            report(&diagnostics);
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong, on standard error: `error[E0107]: place: message`, and a line per note.
pub fn report(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        status(&in_words(diagnostic));
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

/// A line that is worth a second look.
pub fn warn(text: &str) {
    status(&format!("{} {text}", style("warning:").for_stderr().yellow().bold()));
}

/// A line for a person. A standard error that is closed is no reason to stop.
pub fn status(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
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
    if READER_IS_GONE.load(Ordering::SeqCst) {
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

/// JSON for whoever reads standard output, with the name of its schema.
pub fn emit_json<T: Documented>(value: &T) -> Result<(), Diagnostics> {
    emit(&format!("{:#}\n", document(value)))
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
