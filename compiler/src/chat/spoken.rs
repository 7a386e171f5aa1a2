//! What is said in a conversation, and its ids: names of special tokens are tokens where the template writes them, and text where
//! somebody says them.

use crate::tokens::Tokens;
use snnc_ir::Diagnostic;

/// Stands inside the name of a special token that is said, until it is tokenised. It is no character, so nobody says it.
const MARK: char = '\u{fdd0}';

/// A tokenizer, as conversations use it.
#[derive(Clone, Debug)]
pub struct SpokenWords<'a> {
    tokens: &'a Tokens,
    /// Names of special tokens, the longest first.
    special: Vec<String>,
}

impl<'a> SpokenWords<'a> {
    /// Of a tokenizer.
    pub fn new(tokens: &'a Tokens) -> Self {
        Self { tokens, special: tokens.special_names() }
    }

    /// What is said, with a mark inside every name of a special token.
    pub fn marked(&self, said: &str) -> String {
        let mut text = said.replace(MARK, "\u{fffd}");
        for name in &self.special {
            if text.contains(name.as_str()) {
                let first = name.chars().next().map_or(0, char::len_utf8);
                text = text.replace(name.as_str(), &format!("{}{MARK}{}", &name[..first], &name[first..]));
            }
        }
        text
    }

    /// The ids of a text that the template gave; `first`: nothing is before it. Where a name of a special token was said, the
    /// text between two special tokens of the template is plain text.
    ///
    /// # Errors
    /// The tokenizer refuses it.
    pub fn encode(&self, text: &str, first: bool) -> Result<Vec<u32>, Diagnostic> {
        if !text.contains(MARK) {
            return self.tokens.passage(text, first);
        }
        let mut ids = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let found = self.special.iter().filter_map(|name| Some((rest.find(name.as_str())?, name.len())));
            // The first, and of several there the longest.
            let (at, length) =
                found.min_by_key(|&(at, length)| (at, std::cmp::Reverse(length))).unwrap_or((rest.len(), 0));
            let (said, after) = rest.split_at(at);
            let (token, after) = after.split_at(length);
            let begins = first && rest.len() == text.len();
            if said.contains(MARK) {
                ids.extend(self.tokens.plain_passage(&said.replace(MARK, ""), begins)?);
                ids.extend(self.tokens.passage(token, false)?);
            } else {
                ids.extend(self.tokens.passage(&rest[..at + length], begins)?);
            }
            rest = after;
        }
        Ok(ids)
    }
}
