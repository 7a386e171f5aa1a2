//! `config.json`, key by key.
//!
//! Law: every key that is there is either read, known to change nothing, refused, or told of in a warning. So a network is never
//! silently another one than its configuration says.

use crate::architecture::{ArchitectureSetting, ConfigRules, RefusedKey};
use serde_json::{Map, Value as Json};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use std::collections::BTreeSet;

/// Largest size that a configuration may say: no tensor of memory has more rows.
const SIZE_MAX: u64 = (1 << 31) - 1;

/// A configuration that is being read. What is wrong is collected, so that all of it is told at once.
#[derive(Debug)]
pub struct Config {
    place: String,
    given: Map<String, Json>,
    defaults: Map<String, Json>,
    read: BTreeSet<String>,
    found: Diagnostics,
    warnings: Vec<String>,
}

impl Config {
    /// A configuration of the file that messages call `place`.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn parse(place: &str, bytes: &[u8]) -> Result<Self, Diagnostic> {
        let wrong = |message: String| Diagnostic::new(place, message).code(ErrorCode::FOLDER);
        let json: Json = serde_json::from_slice(bytes).map_err(|e| wrong(format!("is no JSON: {e}")))?;
        let Json::Object(given) = json else { return Err(wrong("is no JSON object of settings".into())) };
        let (defaults, read) = (Map::new(), BTreeSet::new());
        Ok(Self { place: place.into(), given, defaults, read, found: Diagnostics::new(), warnings: Vec::new() })
    }

    /// What the file says.
    pub fn given(&self) -> &Map<String, Json> {
        &self.given
    }

    /// Values of keys that are not there.
    pub fn set_defaults(&mut self, defaults: &Map<String, Json>) {
        self.defaults = defaults.clone();
    }

    /// Keys that need not be read.
    pub fn overlook(&mut self, keys: &[String]) {
        self.read.extend(keys.iter().cloned());
    }

    /// Refuses the value of a key that says another network.
    pub fn refuse_others(&mut self, key: &str, rule: &RefusedKey) {
        let Some(value) = self.value(key).filter(|value| !rule.harmless.contains(value)) else { return };
        self.refuse(key, format!("is {}: {} cannot be compiled yet", shortened(&value), rule.part));
    }

    /// Adds what is wrong with the value of a key.
    pub fn refuse(&mut self, key: &str, message: impl Into<String>) {
        self.found.push(self.at(key, message));
    }

    /// Adds what the user should know, though it is no error.
    pub fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }

    /// A diagnostic about a key.
    pub fn at(&self, key: &str, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(format!("{}: {key}", self.place), message).code(ErrorCode::ARCHITECTURE)
    }

    /// The value of a key, as it is given, or else its default; `None` where it is null. Of several keys, `a|b`, the first that is
    /// there; `a.b` is the key `b` of the settings in `a`.
    pub fn value(&mut self, key: &str) -> Option<Json> {
        self.read.extend(key.split('|').map(str::to_string));
        let entry = |all: &Map<String, Json>, key: &str| match key.split_once('.') {
            None => all.get(key).cloned(),
            Some((outer, inner)) => all.get(outer).and_then(|settings| settings.get(inner)).cloned(),
        };
        let of = |all: &Map<String, Json>| key.split('|').find_map(|key| entry(all, key));
        of(&self.given).or_else(|| of(&self.defaults)).filter(|value| !value.is_null())
    }

    /// Whether the file itself has a value for the key.
    pub fn gives(&self, key: &str) -> bool {
        self.given.get(key).is_some_and(|value| !value.is_null())
    }

    /// What `read` makes of the value of a key; what it cannot is refused.
    fn typed<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&Json) -> Option<T>) -> Option<T> {
        let value = self.value(key)?;
        let typed = read(&value);
        if typed.is_none() {
            self.refuse(key, format!("is {}; {wanted} was expected", shortened(&value)));
        }
        typed
    }

    /// A size, from 1.
    pub fn size(&mut self, key: &str) -> Option<usize> {
        let read = |value: &Json| value.as_u64().filter(|size| (1..=SIZE_MAX).contains(size)).map(|size| size as usize);
        self.typed(key, "a whole number from 1", read)
    }

    /// A size that must be there; without one, it is refused and is 1.
    pub fn needed_size(&mut self, key: &str) -> usize {
        if self.value(key).is_none() {
            self.refuse(key, "is missing: the network cannot be known without it");
        }
        self.size(key).unwrap_or(1)
    }

    /// A whole number from 0.
    pub fn index(&mut self, key: &str) -> Option<usize> {
        self.typed(key, "a whole number", |value| value.as_u64().map(|index| index.min(SIZE_MAX) as usize))
    }

    /// A finite number.
    pub fn number(&mut self, key: &str) -> Option<f64> {
        self.typed(key, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// True or false.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "true or false", Json::as_bool)
    }

    /// A text.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.typed(key, "a text", |value| value.as_str().map(str::to_string))
    }

    /// The number that a description states or takes from a key; `otherwise` where there is none.
    pub fn number_of(&mut self, setting: &ArchitectureSetting<f64>, otherwise: f64) -> f64 {
        match setting {
            ArchitectureSetting::Is(number) => *number,
            ArchitectureSetting::Key(key) => self.number(key).unwrap_or(otherwise),
        }
    }

    /// Whether a description states or takes from a key that something is so; it is not where nothing is said.
    pub fn flag_of(&mut self, setting: &ArchitectureSetting<bool>) -> bool {
        match setting {
            ArchitectureSetting::Is(flag) => *flag,
            ArchitectureSetting::Key(key) => self.flag(key).unwrap_or(false),
        }
    }

    /// The text that a description states or takes from a key, and that key.
    pub fn text_of(&mut self, setting: &ArchitectureSetting<String>) -> (Option<String>, String) {
        match setting {
            ArchitectureSetting::Is(text) => (Some(text.clone()), "the description".into()),
            ArchitectureSetting::Key(key) => (self.text(key), key.clone()),
        }
    }

    /// What the user should know, the names of keys among it that nobody knows.
    ///
    /// # Errors
    /// What was refused, with what `rules` refuse.
    pub fn finish(mut self, rules: &ConfigRules) -> Result<Vec<String>, Diagnostics> {
        let mut unknown = Vec::new();
        let nested = self.given.iter().filter(|(key, _)| self.read.iter().any(|read| is_inside(read, key)));
        let inner = nested.flat_map(|(outer, settings)| {
            settings.as_object().into_iter().flatten().map(move |(key, value)| (format!("{outer}.{key}"), value))
        });
        let outer = self.given.iter().filter(|(key, _)| !self.read.iter().any(|read| is_inside(read, key)));
        for (key, value) in &outer.map(|(key, value)| (key.clone(), value)).chain(inner).collect::<Vec<_>>() {
            if self.read.contains(key) || rules.inert.contains(key) || value.is_null() {
                continue;
            }
            match rules.refused.get(key) {
                Some(rule) if rule.harmless.contains(value) => {}
                Some(rule) => {
                    let message = format!("is {}: {} cannot be compiled yet", shortened(value), rule.part);
                    self.found.push(self.at(key, message));
                }
                None => unknown.push(key.clone()),
            }
        }
        if !unknown.is_empty() {
            let names = unknown.join(", ");
            self.warnings
                .push(format!("config.json has keys that are not known, and are taken to change nothing: {names}"));
        }
        self.found.or_else(self.warnings)
    }
}

/// Whether a key that was read is one of the settings in `outer`.
fn is_inside(read: &str, outer: &str) -> bool {
    read.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

/// A value as a message shows it.
pub fn shortened(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
