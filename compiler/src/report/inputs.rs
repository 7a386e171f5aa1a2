//! What other commands printed as JSON and a report shows: the front of `tune`, the course of `train`.

use crate::files;
use crate::train::comparison::Comparison;
use crate::tune::TuneJson;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use snnc_ir::{Diagnostic, ErrorCode};
use std::path::Path;

/// What `snnc train --json` printed, as far as it is shown.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct TrainingCurve {
    /// Steps, each with the mean loss of its windows.
    pub steps: Vec<(u64, f64)>,
    /// Steps, each with the loss on the validation windows.
    pub validation: Vec<(u64, f64)>,
    /// The program before training.
    pub before: Option<Comparison>,
    /// The program after training.
    pub after: Option<Comparison>,
}

/// The front of a file with what `snnc tune --json` printed.
///
/// # Errors
/// The file cannot be read, is not that, or has no point.
pub fn read_front(path: &Path) -> Result<TuneJson, Diagnostic> {
    const BY: &str = "snnc tune --json";
    let text = files::read_text(path)?;
    let json: Json = serde_json::from_str(&text).map_err(|e| no_json(path, BY, &e))?;
    check_schema(path, &json, "tune", BY)?;
    let front: TuneJson = serde_json::from_value(json).map_err(|e| no_json(path, BY, &e))?;
    if front.points.is_empty() {
        return Err(refused(path, "has no point that was measured", BY));
    }
    Ok(front)
}

/// A line of a training run. What is not shown is left out.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum TrainingLine {
    Before { program: Comparison },
    Step { step: u64, loss: f64 },
    Validation { step: u64, loss: f64 },
    Hybrid {},
    After { program: Comparison },
}

impl TrainingCurve {
    /// Of a file with what `snnc train --json` printed, a line per event.
    ///
    /// # Errors
    /// The file cannot be read, a line is not that, or there is none.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        const BY: &str = "snnc train --json";
        let mut curve = Self::default();
        for (number, line) in (1..).zip(files::read_text(path)?.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let place = format!("{}:{number}", path.display());
            let place = Path::new(&place);
            let json: Json = serde_json::from_str(line).map_err(|e| no_json(place, BY, &e))?;
            check_schema(place, &json, "train", BY)?;
            match serde_json::from_value(json).map_err(|e| no_json(place, BY, &e))? {
                TrainingLine::Before { program } => curve.before = Some(program),
                TrainingLine::After { program } => curve.after = Some(program),
                TrainingLine::Step { step, loss } => curve.steps.push((step, loss)),
                TrainingLine::Validation { step, loss } => curve.validation.push((step, loss)),
                TrainingLine::Hybrid {} => {}
            }
        }
        if curve.steps.is_empty() && curve.validation.is_empty() && curve.before.is_none() && curve.after.is_none() {
            return Err(refused(path, "has no line of a training run", BY));
        }
        Ok(curve)
    }
}

fn check_schema(path: &Path, json: &Json, name: &str, by: &str) -> Result<(), Diagnostic> {
    let schema = json["schema"].as_str().unwrap_or("");
    if schema.starts_with(&format!("snnc.{name}.v")) {
        return Ok(());
    }
    let found = if schema.is_empty() { "has no `schema`".to_string() } else { format!("is of the schema `{schema}`") };
    Err(refused(path, &found, by))
}

fn no_json(path: &Path, by: &str, why: &serde_json::Error) -> Diagnostic {
    refused(path, &format!("is not what `{by}` prints: {why}"), by)
}

fn refused(path: &Path, message: &str, by: &str) -> Diagnostic {
    let note = format!("name a file with all that `{by}` printed");
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::OPTION).note(note)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::document;
    use crate::train::events::TrainEvent;
    use std::fs;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("there is room");
        fs::write(file.path(), text).expect("it can be written");
        file
    }

    #[test]
    fn what_training_prints_is_read() {
        let step = TrainEvent::Step { step: 3, loss: 0.5, norm: 1.0, rate: 1e-3, tokens: 64, tokens_per_s: 9.0 };
        let validation = TrainEvent::Validation { step: 4, loss: 0.25, best: true, set: None, steps: 9 };
        let text = format!("{}\n\n{}\n", document(&step, None), document(&validation, None));
        let curve = TrainingCurve::read(file(&text).path()).expect("it is such a file");
        assert_eq!((curve.steps, curve.validation), (vec![(3, 0.5)], vec![(4, 0.25)]));
    }

    #[test]
    fn other_files_are_refused_with_their_place() {
        for (text, wanted) in [
            ("", "no line"),
            ("{}", "has no `schema`"),
            ("\n{\"schema\":\"snnc.tune.v2\"}", "snnc.tune.v2"),
            ("{\"schema\":\"snnc.train.v2\",\"kind\":\"step\"}", "step"),
            ("loss 3\n", "not what"),
        ] {
            let told = TrainingCurve::read(file(text).path()).expect_err(text);
            assert!(told.to_string().contains(wanted), "{text}: {told}");
        }
        for text in ["", "[]", "{\"schema\":\"snnc.train.v2\"}", "{\"schema\":\"snnc.tune.v2\",\"points\":[]}"] {
            assert!(read_front(file(text).path()).is_err(), "{text}");
        }
    }
}
