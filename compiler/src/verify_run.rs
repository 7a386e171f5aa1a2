//! A run against its record: whether its files are those of then, and where its results differ.
//!
//! Law: results are compared exactly. The same files and options give the same numbers on every machine.

use crate::run_record::{RunFile, RunRecord};
use serde_json::Value as Json;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::Path;

/// What a command printed as JSON: one document, or one per line.
#[derive(Clone, Debug)]
pub struct RecordedRun {
    /// What the run was.
    pub run: RunRecord,
    /// What it printed, without the record of the run.
    pub results: Vec<Json>,
}

impl RecordedRun {
    /// Reads what a command printed.
    ///
    /// # Errors
    /// It is no JSON, or does not say what run it is of.
    pub fn parse(place: &str, text: &str) -> Result<Self, Diagnostics> {
        let wrong = |message: String| Diagnostic::new(place, message).code(ErrorCode::FILE);
        let documents = serde_json::Deserializer::from_str(text).into_iter::<Json>().collect::<Result<Vec<Json>, _>>();
        let mut results = documents.map_err(|e| wrong(format!("is no JSON of a command: {e}")))?;
        let run = results.first_mut().and_then(Json::as_object_mut).and_then(|first| first.shift_remove("run"));
        let Some(run) = run else {
            let note = "`run` is the first key of what `snnc eval ... --format json` prints";
            return Err(wrong("does not say what run it is of: it has no key `run`".into()).note(note).into());
        };
        let run = serde_json::from_value(run).map_err(|e| wrong(format!("its key `run` is not understood: {e}")))?;
        Ok(Self { run, results })
    }

    /// Whether every file of the run is what it was.
    ///
    /// # Errors
    /// Every file that is missing or has changed.
    pub fn check_files(&self) -> Result<(), Diagnostics> {
        let changed: Diagnostics = self.run.files.iter().filter_map(changed).collect();
        if changed.is_empty() { Ok(()) } else { Err(changed) }
    }

    /// Where the results of another run differ: a path and both values.
    pub fn differences(&self, again: &[Json]) -> Vec<Difference> {
        let mut found = Vec::new();
        let all = |results: &[Json]| match results {
            // One document needs no number.
            [one] => one.clone(),
            several => Json::Array(several.to_vec()),
        };
        compare("", &all(&self.results), &all(again), &mut found);
        found
    }
}

fn changed(file: &RunFile) -> Option<Diagnostic> {
    let told = |message: String| {
        let note = "results can be repeated only from the same files; run in the folder in which the paths hold";
        Some(Diagnostic::new(file.path.as_str(), message).code(ErrorCode::FILE).note(note))
    };
    match RunFile::of(&file.role, Path::new(&file.path)) {
        Ok(now) if now.xxh3 == file.xxh3 && now.bytes == file.bytes => None,
        Ok(now) => told(format!(
            "is not the file of the record: it has {} bytes and the hash {}, the record {} and {}",
            now.bytes, now.xxh3, file.bytes, file.xxh3
        )),
        Err(e) => told(format!("cannot be read: {e}")),
    }
}

/// A value that differs between two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Where: `programs[1].kl`.
    pub path: String,
    /// In the record; `None` where it has no such value.
    pub recorded: Option<Json>,
    /// Now.
    pub now: Option<Json>,
}

fn compare(path: &str, recorded: &Json, now: &Json, found: &mut Vec<Difference>) {
    match (recorded, now) {
        (Json::Object(a), Json::Object(b)) => {
            let name = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            for (key, recorded) in a {
                pair(name(key), Some(recorded), b.get(key), found);
            }
            for (key, now) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                pair(name(key), None, Some(now), found);
            }
        }
        (Json::Array(a), Json::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                pair(format!("{path}[{i}]"), a.get(i), b.get(i), found);
            }
        }
        (recorded, now) if recorded == now => {}
        (recorded, now) => {
            found.push(Difference { path: path.into(), recorded: Some(recorded.clone()), now: Some(now.clone()) });
        }
    }
}

fn pair(path: String, recorded: Option<&Json>, now: Option<&Json>, found: &mut Vec<Difference>) {
    match (recorded, now) {
        (Some(recorded), Some(now)) => compare(&path, recorded, now, found),
        (recorded, now) => found.push(Difference { path, recorded: recorded.cloned(), now: now.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recorded(results: &Json) -> RecordedRun {
        let run = RunRecord::of(vec!["eval".into()], &Default::default());
        let mut document = json!({ "run": run });
        document
            .as_object_mut()
            .into_iter()
            .for_each(|all| all.extend(results.as_object().cloned().unwrap_or_default()));
        RecordedRun::parse("run.json", &document.to_string()).unwrap_or_else(|e| panic!("{e:?}"))
    }

    #[test]
    fn every_difference_has_its_path() {
        let record = recorded(&json!({"kl": 0.1, "of": [{"a": 1}, {"a": 2}], "gone": true}));
        assert_eq!(record.differences(&[json!({"kl": 0.1, "of": [{"a": 1}, {"a": 2}], "gone": true})]), []);
        let found = record.differences(&[json!({"kl": 0.2, "of": [{"a": 1}, {"a": 3}, {}], "more": null})]);
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["kl", "of[1].a", "of[2]", "gone", "more"]);
    }

    #[test]
    fn what_says_no_run_is_refused() {
        for text in ["", "{}", "[1]", "{\"run\": 3}", "{\"a\": "] {
            assert!(RecordedRun::parse("run.json", text).is_err(), "{text}");
        }
    }
}
