//! Which chat template a model has.

use crate::model::Loaded;
use crate::tokens::language_files::template_file;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, LanguageConfig};
use std::path::Path;

/// A chat template and what it is called in messages: the file's, or the model's own; none if it has none.
///
/// # Errors
/// The file cannot be read.
pub fn template_source(
    loaded: &Loaded,
    language: &LanguageConfig,
    file: Option<&Path>,
) -> Result<Option<(String, String)>, Diagnostics> {
    Ok(match file {
        Some(path) => Some((template_file(path)?, path.display().to_string())),
        None if language.chat_template.is_empty() => None,
        None => Some((language.chat_template.clone(), format!("{}: chat template", loaded.path.display()))),
    })
}

/// What is said where a model has no template.
pub fn no_template(place: &str) -> Diagnostic {
    let what = "has no chat template, so a conversation cannot be written as this network knows it";
    Diagnostic::new(place, what).code(ErrorCode::OPTION).note(
        "name one with --template FILE, or compile with tokenizer_config.json or chat_template.jinja beside the model",
    )
}
