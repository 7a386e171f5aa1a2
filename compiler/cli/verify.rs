//! `snnc verify`: a run again, from the JSON that it printed.

use crate::output::{emit, failed, status, warn};
use clap::Args;
use serde_json::Value as Json;
use snnc::file_use::FileUse;
use snnc::run_record::commit;
use snnc::verify_run::RecordedRun;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Repeat a run from the JSON that it printed, and compare the results
///
/// The files have to be those of then, by their hashes. Results are compared exactly. The exit status is 3 where they differ.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc eval model.snn --reference model.onnx --text test.txt --json > run.json
  snnc verify run.json")]
pub struct VerifyCommand {
    /// What a command printed with --json or --format json
    #[arg(value_name = "RUN.json")]
    record: PathBuf,
}

/// Differences that are shown.
const SHOWN: usize = 10;

/// Commands whose results are not of the clock, and that write nothing.
const REPEATABLE: [&str; 6] = ["check", "eval", "energy", "inspect", "run", "tune"];

impl VerifyCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().reads("the record", [&self.record])
    }

    /// Whether the results are those of the record. `used`: which files a command line uses, or why it is none.
    ///
    /// # Errors
    /// The record cannot be read; a file has changed; the run cannot be repeated.
    pub fn run(&self, used: impl Fn(&[String]) -> Result<FileUse, String>) -> Result<bool, Diagnostics> {
        let place = self.record.display().to_string();
        let wrong = |message: String| Diagnostic::new(place.as_str(), message).code(ErrorCode::FILE);
        let text = std::fs::read_to_string(&self.record).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let record = RecordedRun::parse(&place, &text)?;
        let arguments = &record.run.arguments;
        let name = arguments.iter().find(|argument| !argument.starts_with('-')).map_or("", String::as_str);
        if !REPEATABLE.contains(&name) {
            let note = format!("these can be: {}", REPEATABLE.join(", "));
            return Err(wrong(format!("is of `snnc {name}`, which is not repeated")).note(note).into());
        }
        let files = used(arguments).map_err(|e| wrong(format!("its options are not understood: {}", e.trim_end())))?;
        if let Some((option, path)) = files.outputs().next() {
            let message = format!("its run writes {} ({option}), which would be lost", path.display());
            return Err(wrong(message).note("record a run that writes no file").into());
        }
        record.check_files()?;
        let version = env!("CARGO_PKG_VERSION");
        if (record.run.version.as_str(), record.run.commit.as_deref()) != (version, commit()) {
            let named = |version: &str, commit: Option<&str>| format!("{version} ({})", commit.unwrap_or("no commit"));
            let (then, now) = (named(&record.run.version, record.run.commit.as_deref()), named(version, commit()));
            warn(&format!("the record is of snnc {then}, this is {now}"));
        }
        status(&format!("snnc {}", arguments.join(" ")));
        let again = repeat(arguments).map_err(wrong)?;
        let again = RecordedRun::parse("the run", &again)?;
        let differences = record.differences(&again.results);
        if differences.is_empty() {
            emit(&format!("the same results as in {place}\n"))?;
            return Ok(true);
        }
        let said = |value: &Option<Json>| value.as_ref().map_or("nothing".into(), Json::to_string);
        for one in differences.iter().take(SHOWN) {
            failed(&format!("{}: {} in the record, {} now", one.path, said(&one.recorded), said(&one.now)));
        }
        if differences.len() > SHOWN {
            failed(&format!("{} more values differ", differences.len() - SHOWN));
        }
        Ok(false)
    }
}

/// What this command prints, given these arguments.
fn repeat(arguments: &[String]) -> Result<String, String> {
    let own = std::env::current_exe().map_err(|e| format!("cannot be repeated: {e}"))?;
    let mut command = Command::new(own);
    let command = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let done = command.output().map_err(|e| format!("cannot be repeated: {e}"))?;
    // A limit that failed is a result as well.
    if !done.status.success() && done.status.code() != Some(i32::from(crate::output::FAILED)) {
        return Err(format!("its run failed: {}", done.status));
    }
    String::from_utf8(done.stdout).map_err(|_| "its run did not print text".into())
}
