//! Text to token ids and back, by the model's own tokenizer.

use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The token that GPT-2 puts before and after every text.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Bytes of a long text that are tokenised at once, at least.
const PASSAGE: usize = 1 << 14;

/// A tokenizer in Hugging Face's `tokenizer.json` form.
#[derive(Debug)]
pub struct Tokens {
    tokenizer: Tokenizer,
    /// The id that stands before every text.
    pub start: u32,
}

impl Tokens {
    /// # Errors
    /// `json` is no tokenizer, or one without an end-of-text token.
    pub fn new(json: &[u8], place: &str) -> Result<Self, Diagnostic> {
        let tokenizer = Tokenizer::from_bytes(json)
            .map_err(|e| Diagnostic::new(place, format!("is not a tokenizer.json: {e}")).code(ErrorCode::TOKENIZER))?;
        let start = tokenizer.token_to_id(END_OF_TEXT).ok_or_else(|| {
            Diagnostic::new(place, format!("the tokenizer has no {END_OF_TEXT}, which GPT-2 begins every text with"))
                .code(ErrorCode::TOKENIZER)
        })?;
        Ok(Self { tokenizer, start })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// The tokenizer refuses it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|e| {
            Diagnostic::new("", format!("the text cannot be tokenised: {e}")).code(ErrorCode::TOKENIZER)
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a text with the start token before them.
    pub fn document(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let mut ids = vec![self.start];
        ids.extend(self.encode(text)?);
        Ok(ids)
    }

    /// The ids of a long text, a passage of whole lines at a time: much faster than at once, and the same but perhaps for
    /// spaces at the ends of passages.
    pub fn corpus(&self, text: &str) -> Result<Vec<u32>, Diagnostic> {
        let mut ids = vec![self.start];
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.char_indices().map(|(at, _)| at).find(|&at| at >= PASSAGE).unwrap_or(rest.len());
            let end = rest[end..].find('\n').map_or(rest.len(), |line| end + line + 1);
            let (passage, after) = rest.split_at(end);
            ids.extend(self.encode(passage)?);
            rest = after;
        }
        Ok(ids)
    }

    /// The text of ids.
    ///
    /// # Errors
    /// The tokenizer refuses them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Diagnostic> {
        self.tokenizer
            .decode(ids, false)
            .map_err(|e| Diagnostic::new("", format!("ids cannot be decoded: {e}")).code(ErrorCode::TOKENIZER))
    }

    /// Entries of the vocabulary.
    pub fn len(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Whether the vocabulary has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// `tokenizer.json` in the model's folder, if there is one.
pub fn beside(model: &Path) -> Option<PathBuf> {
    let folder = model.parent()?;
    let path = folder.join("tokenizer.json");
    path.is_file().then_some(path)
}
