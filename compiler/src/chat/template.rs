//! Chat templates: messages to text, by Jinja as Hugging Face uses it.
//!
//! A template is somebody else's program. It sees messages and a few names, and no file; fuel bounds its time and its memory.

use super::python::{Moment, json_dumps};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use serde_json::Value as Json;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::language::NamedSpecialToken;
use snnc_ir::{Diagnostic, LanguageConfig};
use std::fmt;

/// Steps of a template, each of them worth 64 bytes of memory at most: some hundred times what a long conversation takes.
const FUEL: u64 = 1 << 22;

/// Macros inside macros.
const DEPTH: usize = 64;

/// What the environment calls the template.
const NAME: &str = "chat_template";

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What was said.
    pub content: String,
}

/// A template that was read.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    place: String,
    special_tokens: Vec<NamedSpecialToken>,
    values: TemplateValues,
}

/// What a user tells a template.
#[derive(Clone, Debug)]
pub struct TemplateValues {
    /// What `strftime_now` says.
    pub now: Moment,
    /// Other names and what they are, such as `enable_thinking`.
    pub named: Vec<(String, Json)>,
}

impl ChatTemplate {
    /// Reads a template, which may ask for the special tokens of `language` and for `values`.
    ///
    /// # Errors
    /// It is no Jinja, with line and column.
    pub fn new(
        source: &str,
        place: &str,
        language: &LanguageConfig,
        values: TemplateValues,
    ) -> Result<Self, Diagnostic> {
        let source = without_generation_tags(source);
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.unwrap_or_default());
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(DEPTH);
        // Errors then say where in a line they are.
        environment.set_debug(true);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(TemplateRefusal(message)))
        });
        let now = values.now;
        environment.add_function("strftime_now", move |format: String| {
            now.strftime(&format).map_err(|message| Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", tojson);
        let special_tokens = language.special_tokens.clone();
        let mut template = Self { environment, source: source.clone(), place: place.into(), special_tokens, values };
        if let Err(error) = template.environment.add_template_owned(NAME, source) {
            return Err(template.diagnose(&error));
        }
        Ok(template)
    }

    /// A conversation as text; with `answers` up to where the next answer begins.
    ///
    /// # Errors
    /// The template refuses the conversation, does not end, or does what cannot be done, with line and column.
    pub fn render(&self, messages: &[Message], answers: bool) -> Result<String, Diagnostic> {
        let tokens = self.special_tokens.iter().map(|token| (token.name.as_str(), Value::from(token.text.as_str())));
        let named = self.values.named.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value))));
        let messages = Value::from(Serde(messages));
        let own = [("messages", messages), ("add_generation_prompt", Value::from(answers))];
        // As in Transformers: there are none, and templates ask.
        let none = ["tools", "documents"].map(|name| (name, Value::from(())));
        let all = Value::from_pairs(tokens.chain(none).chain(named).chain(own));
        let rendered = self.environment.get_template(NAME).and_then(|template| template.render(all));
        rendered.map_err(|error| self.diagnose(&error))
    }

    fn diagnose(&self, error: &Error) -> Diagnostic {
        let place = match (error.line(), error.range()) {
            (Some(line), Some(range)) => format!("{}:{line}:{}", self.place, self.column(range.start)),
            (Some(line), None) => format!("{}:{line}", self.place),
            (None, _) => self.place.clone(),
        };
        if let Some(message) = refusal(error) {
            let what = format!("the chat template refuses the conversation: {message}");
            return Diagnostic::new(place, what).code(ErrorCode::OPTION);
        }
        if error.kind() == ErrorKind::OutOfFuel {
            let what = format!("the chat template does not end within {FUEL} steps, or takes too much memory");
            return Diagnostic::new(place, what).code(ErrorCode::OPTION);
        }
        let detail = error.detail().map_or(String::new(), |detail| format!(": {detail}"));
        let what = format!("the chat template cannot be used: {}{detail}", error.kind());
        Diagnostic::new(place, what).code(ErrorCode::OPTION).note("--template FILE takes another one")
    }

    /// The column of a byte, from 1.
    fn column(&self, byte: usize) -> usize {
        let before = &self.source[..self.source.floor_char_boundary(byte)];
        1 + before.rsplit('\n').next().unwrap_or_default().chars().count()
    }
}

/// What a template says with `raise_exception`.
#[derive(Debug)]
struct TemplateRefusal(String);

impl fmt::Display for TemplateRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateRefusal {}

/// The message of `raise_exception`, if that is what went wrong.
fn refusal(error: &Error) -> Option<String> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(TemplateRefusal(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

/// JSON as templates are used to it: without the escapes that a page of HTML needs.
fn tojson(value: Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = indent.or(options.get::<Option<usize>>("indent")?);
    for ignored in ["ensure_ascii", "separators", "sort_keys"] {
        options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    json_dumps(&value, indent).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// A template without the tags that mark what is trained on: `{% generation %}` and `{% endgeneration %}` say nothing here.
/// They become a condition that always holds, whose length and white space are theirs.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        text += before;
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        let word = tag.trim_matches(['{', '%', '}', '-', '+']).trim();
        text += &match word {
            "generation" => tag.replace("generation", "if true   "),
            "endgeneration" => tag.replace("endgeneration", "endif        "),
            _ => tag.to_string(),
        };
        rest = after;
    }
    text + rest
}
