//! What stands before every text, and which tokens end one: what the user says, what the files beside a tokenizer say, or what
//! a program remembers of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The token that GPT-2 puts before and after every text.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// What a user wants before every text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartChoice {
    /// What the files beside the tokenizer say, else what it names itself, else nothing.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// A token by its text, or by its id.
    Token(String),
}

impl FromStr for StartChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            "" => Err("a token has a text or an id".into()),
            token => Ok(Self::Token(token.into())),
        }
    }
}

impl fmt::Display for StartChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Token(token) => token,
        })
    }
}

/// What a program remembers of the tokens that begin and end texts: it runs without the files that said so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpecialTokens {
    /// Ids that stand before every text.
    pub start: Vec<u32>,
    /// Ids that end a text.
    pub end: Vec<u32>,
}

/// A token as a file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedToken {
    /// By its text.
    Text(String),
    /// By its id.
    Id(u32),
}

/// What is known of a tokenizer from outside it.
#[derive(Clone, Debug, Default)]
pub struct TokenizerHints {
    /// A program's own: it was decided when the program was compiled.
    pub resolved: Option<SpecialTokens>,
    /// Whether texts begin with a token, where a file says so.
    pub add_bos: Option<bool>,
    /// The token that begins texts, the surest first.
    pub bos: Vec<NamedToken>,
    /// Tokens that end texts.
    pub eos: Vec<NamedToken>,
}

/// Longest file beside a tokenizer that is looked at.
const CONFIG_BYTES: u64 = 32 << 20;

impl TokenizerHints {
    /// What the files in the tokenizer's folder say, then those in the model's.
    ///
    /// # Errors
    /// A file of the tokenizer's is no JSON.
    pub fn of_folders(tokenizer: &Path, model: &Path) -> Result<Self, Diagnostic> {
        let mut hints = Self::default();
        let config = read(&tokenizer.join("tokenizer_config.json"))?;
        hints.add_bos = config["add_bos_token"].as_bool();
        let map = read(&tokenizer.join("special_tokens_map.json"))?;
        for file in [&config, &map] {
            hints.bos.extend(named(&file["bos_token"]));
            hints.eos.extend(named(&file["eos_token"]));
        }
        // Other programs have files of these names, so one that is no JSON says nothing.
        for name in ["generation_config.json", "config.json"] {
            let file = read(&model.join(name)).unwrap_or_default();
            hints.bos.extend(ids(&file["bos_token_id"]));
            hints.eos.extend(ids(&file["eos_token_id"]));
        }
        Ok(hints)
    }
}

fn named(json: &Json) -> Option<NamedToken> {
    let text = json.as_str().or_else(|| json["content"].as_str());
    text.filter(|text| !text.is_empty()).map(|text| NamedToken::Text(text.into()))
}

/// One id, or several.
fn ids(json: &Json) -> Vec<NamedToken> {
    let all = json.as_array().map_or(std::slice::from_ref(json), Vec::as_slice);
    let id = |id: &Json| id.as_u64().and_then(|id| u32::try_from(id).ok()).map(NamedToken::Id);
    all.iter().take(16).filter_map(id).collect()
}

/// The JSON of a file; null where there is none.
fn read(path: &Path) -> Result<Json, Diagnostic> {
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

    #[test]
    fn tokens_are_named_by_text_or_object() {
        assert_eq!(named(&json!("<s>")), Some(NamedToken::Text("<s>".into())));
        assert_eq!(named(&json!({"content": "<s>", "lstrip": false})), Some(NamedToken::Text("<s>".into())));
        assert_eq!(named(&json!(null)), None);
        assert_eq!(ids(&json!([1, 2])), [NamedToken::Id(1), NamedToken::Id(2)]);
        assert_eq!(ids(&json!(-1)), []);
    }

    #[test]
    fn a_choice_prints_as_it_is_typed() {
        for text in ["auto", "none", "<s>", "17"] {
            assert_eq!(text.parse::<StartChoice>().map(|choice| choice.to_string()), Ok(text.into()));
        }
        assert!("".parse::<StartChoice>().is_err());
    }
}
