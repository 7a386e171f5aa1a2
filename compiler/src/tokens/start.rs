//! What stands before every text: what the user says, what the files beside a tokenizer say, or what a program remembers of them.

use super::language_files::LanguageFiles;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::LanguageConfig;
use std::fmt;
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

/// The tokens that begin and end texts, as JSON says them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SpecialTokens {
    /// Ids that stand before every text.
    pub start: Vec<u32>,
    /// Ids that end a text.
    pub end: Vec<u32>,
}

impl SpecialTokens {
    /// Of what a program remembers.
    pub fn of(language: &LanguageConfig) -> Self {
        Self { start: language.start.clone(), end: language.end.clone() }
    }
}

/// What is known of a tokenizer from outside it.
#[derive(Clone, Debug)]
pub enum TokenizerHints {
    /// What the files beside it say.
    Files(LanguageFiles),
    /// What a program remembers: it was decided when the program was compiled.
    Program(LanguageConfig),
}

impl Default for TokenizerHints {
    fn default() -> Self {
        Self::Files(LanguageFiles::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_prints_as_it_is_typed() {
        for text in ["auto", "none", "<s>", "17"] {
            assert_eq!(text.parse::<StartChoice>().map(|choice| choice.to_string()), Ok(text.into()));
        }
        assert!("".parse::<StartChoice>().is_err());
    }
}
