//! What the command writes: data to standard output, words to standard error; and its exit status.
//!
//! Exit status: 0 done, 1 something is wrong with an input or an output, 2 wrong usage, 3 a limit that the user set failed,
//! 130 interrupted.

use console::style;
use snnc::schema::{Documented, document};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::diagnostic::{ErrorCode, Place};
use std::io::{self, Write};
use std::process::ExitCode;

/// A limit failed, or a warning was denied.
pub const FAILED: u8 = 3;

/// What a shell expects of a process that Ctrl-C ended.
pub const INTERRUPTED: i32 = 130;

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

/// Data for whoever reads standard output. A reader that has gone away ends the program quietly.
pub fn emit(text: &str) -> Result<(), Diagnostics> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
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
