//! What the files beside a tokenizer and a model say of the texts that they read and write: `tokenizer_config.json`,
//! `special_tokens_map.json`, `chat_template.jinja`, `generation_config.json`, `config.json`.
//!
//! They are found by folder and by no other name. What they say is a wish: a tokenizer turns it into ids (`Tokens::of`).

use serde_json::Value as Json;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::language::{NamedSpecialToken, TEMPLATE_BYTES};
use std::path::Path;

/// Longest file that is looked at.
const CONFIG_BYTES: u64 = 32 << 20;

/// Ids of one list, and names of one file, at most.
const TOKENS_MAX: usize = 64;

/// A file with a chat template alone; it goes before the key of `tokenizer_config.json`.
const TEMPLATE_FILE: &str = "chat_template.jinja";

/// A token as a file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedToken {
    /// By its text.
    Text(String),
    /// By its id.
    Id(u32),
}

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct LanguageFiles {
    /// Whether texts begin with a token, where a file says so.
    pub add_bos: Option<bool>,
    /// The token that begins texts, the surest first.
    pub bos: Vec<NamedToken>,
    /// Tokens that end texts, those of all files.
    pub eos: Vec<NamedToken>,
    /// Tokens by the names that a chat template calls them, such as `bos_token`.
    pub special_tokens: Vec<NamedSpecialToken>,
    /// How a conversation becomes a text, where a file says so.
    pub chat_template: Option<String>,
}

impl LanguageFiles {
    /// What the files in the tokenizer's folder say, then those in the model's.
    ///
    /// # Errors
    /// A file of the tokenizer's is no JSON, or a chat template is too long or no text.
    pub fn read(tokenizer: &Path, model: &Path) -> Result<Self, Diagnostic> {
        let mut found = Self::default();
        let config = json(&tokenizer.join("tokenizer_config.json"))?;
        found.add_bos = config["add_bos_token"].as_bool();
        let map = json(&tokenizer.join("special_tokens_map.json"))?;
        for file in [&config, &map] {
            found.bos.extend(named(&file["bos_token"]).map(NamedToken::Text));
            found.eos.extend(named(&file["eos_token"]).map(NamedToken::Text));
            found.add_special_tokens(file);
        }
        // Other programs have files of these names, so one that is no JSON says nothing.
        for name in ["generation_config.json", "config.json"] {
            let file = json(&model.join(name)).unwrap_or_default();
            found.bos.extend(ids(&file["bos_token_id"]));
            found.eos.extend(ids(&file["eos_token_id"]));
        }
        found.chat_template = chat_template(tokenizer, model, &config)?;
        Ok(found)
    }

    /// Every key of a file that names a token, if no file before did.
    fn add_special_tokens(&mut self, file: &Json) {
        for (name, token) in file.as_object().into_iter().flatten().filter(|(name, _)| name.ends_with("_token")) {
            let known = self.special_tokens.iter().any(|token| token.name == *name);
            if let Some(text) = named(token).filter(|_| !known && self.special_tokens.len() < TOKENS_MAX) {
                self.special_tokens.push(NamedSpecialToken { name: name.clone(), text });
            }
        }
    }
}

/// A token's text, as a string or in an object.
fn named(json: &Json) -> Option<String> {
    let text = json.as_str().or_else(|| json["content"].as_str());
    text.filter(|text| !text.is_empty()).map(String::from)
}

/// One id, or several.
fn ids(json: &Json) -> Vec<NamedToken> {
    let all = json.as_array().map_or(std::slice::from_ref(json), Vec::as_slice);
    let id = |id: &Json| id.as_u64().and_then(|id| u32::try_from(id).ok()).map(NamedToken::Id);
    all.iter().take(TOKENS_MAX).filter_map(id).collect()
}

/// The template of a file of its own, else of `tokenizer_config.json`.
fn chat_template(tokenizer: &Path, model: &Path, config: &Json) -> Result<Option<String>, Diagnostic> {
    for folder in [tokenizer, model] {
        let path = folder.join(TEMPLATE_FILE);
        if path.is_file() {
            return template_file(&path).map(Some);
        }
    }
    let place = tokenizer.join("tokenizer_config.json");
    let template = match &config["chat_template"] {
        Json::String(template) => template,
        // Several templates by name: the one for conversations is called `default`.
        Json::Array(several) => {
            let default = several.iter().find(|one| one["name"] == "default").or_else(|| several.first());
            match default.and_then(|one| one["template"].as_str()) {
                Some(template) => template,
                None => return Ok(None),
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_) => return Ok(None),
    };
    if template.len() > TEMPLATE_BYTES {
        return Err(too_long(&place));
    }
    Ok(Some(template.to_string()).filter(|template| !template.trim().is_empty()))
}

/// A chat template that stands alone in a file.
///
/// # Errors
/// The file cannot be read, is too long or no UTF-8.
pub fn template_file(path: &Path) -> Result<String, Diagnostic> {
    let unread = |e| Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")).code(ErrorCode::FILE);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, TEMPLATE_BYTES as u64 + 1), &mut bytes)
        .map_err(unread)?;
    if bytes.len() > TEMPLATE_BYTES {
        return Err(too_long(path));
    }
    let text = String::from_utf8(bytes).map_err(|e| crate::files::not_utf8(path, e.utf8_error().valid_up_to()))?;
    Ok(crate::files::without_mark(text))
}

fn too_long(path: &Path) -> Diagnostic {
    let what = format!("the chat template has more than {} KiB", TEMPLATE_BYTES >> 10);
    Diagnostic::new(path.display().to_string(), what).code(ErrorCode::TOKENIZER).note("take it away, or shorten it")
}

/// The JSON of a file; null where there is none.
fn json(path: &Path) -> Result<Json, Diagnostic> {
    let wrong = |what: String| {
        Diagnostic::new(path.display().to_string(), what)
            .code(ErrorCode::TOKENIZER)
            .note("it says which token begins a text: mend it, or take it away and name the token with --start")
    };
    let Ok(facts) = std::fs::metadata(path) else { return Ok(Json::Null) };
    if !facts.is_file() {
        return Ok(Json::Null);
    }
    if facts.len() > CONFIG_BYTES {
        return Err(wrong(format!("is {} MB long, more than {} MB", facts.len() >> 20, CONFIG_BYTES >> 20)));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is no JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    #[test]
    fn tokens_are_named_by_text_or_object() {
        assert_eq!(named(&json!("<s>")).as_deref(), Some("<s>"));
        assert_eq!(named(&json!({"content": "<s>", "lstrip": false})).as_deref(), Some("<s>"));
        assert_eq!(named(&json!(null)), None);
        assert_eq!(ids(&json!([1, 2])), [NamedToken::Id(1), NamedToken::Id(2)]);
        assert_eq!(ids(&json!(-1)), []);
    }

    #[test]
    fn every_file_has_its_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        let read = || LanguageFiles::read(folder.path(), folder.path());
        write(
            "tokenizer_config.json",
            r#"{"eos_token": "<e>", "pad_token": {"content": "<p>"}, "chat_template": "A"}"#,
        );
        write("special_tokens_map.json", r#"{"bos_token": "<b>", "pad_token": "<q>", "x": "<x>"}"#);
        write("generation_config.json", r#"{"eos_token_id": [7, 8]}"#);
        write("config.json", r#"{"eos_token_id": 9, "bos_token_id": null}"#);
        let found = read().expect("all are JSON");
        assert_eq!(found.bos, [NamedToken::Text("<b>".into())]);
        let ends = [NamedToken::Text("<e>".into()), NamedToken::Id(7), NamedToken::Id(8), NamedToken::Id(9)];
        assert_eq!(found.eos, ends);
        let named: Vec<(&str, &str)> =
            found.special_tokens.iter().map(|token| (token.name.as_str(), token.text.as_str())).collect();
        assert_eq!(named, [("eos_token", "<e>"), ("pad_token", "<p>"), ("bos_token", "<b>")]);
        assert_eq!(found.chat_template.as_deref(), Some("A"));
        let several = r#"[{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]"#;
        write("tokenizer_config.json", &format!(r#"{{"chat_template": {several}}}"#));
        assert_eq!(read().expect("JSON").chat_template.as_deref(), Some("D"));
        write("chat_template.jinja", "F");
        assert_eq!(read().expect("JSON").chat_template.as_deref(), Some("F"));
        write("chat_template.jinja", &"x".repeat(TEMPLATE_BYTES + 1));
        assert!(read().expect_err("it is too long").message.contains("more than 128 KiB"));
    }
}
