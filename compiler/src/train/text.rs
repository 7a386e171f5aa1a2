//! What a program learns from: ids in memory, or a text that is too long to be held.

use crate::reading::{self, BYTES_A_TOKEN, ids_from};
use crate::texts::SampleText;
use crate::tokens::Tokens;
use crate::tokens::passages;
use snnc_ir::{Diagnostic, ErrorCode};
use std::borrow::Cow;

/// Bytes of a long text that are validated on, at most.
const VALIDATED: usize = 1 << 22;

/// Where windows are drawn from.
pub trait TrainingIds {
    /// Places at which a window may begin.
    fn places(&self, window: usize) -> usize;

    /// The window at a place: its tokens and one more.
    ///
    /// # Errors
    /// A text that cannot be read.
    fn window(&self, at: usize, window: usize) -> Result<Cow<'_, [u32]>, Diagnostic>;
}

impl TrainingIds for [u32] {
    fn places(&self, window: usize) -> usize {
        self.len().saturating_sub(window)
    }

    fn window(&self, at: usize, window: usize) -> Result<Cow<'_, [u32]>, Diagnostic> {
        Ok(Cow::Borrowed(&self[at..=at + window]))
    }
}

impl TrainingIds for Vec<u32> {
    fn places(&self, window: usize) -> usize {
        self.as_slice().places(window)
    }

    fn window(&self, at: usize, window: usize) -> Result<Cow<'_, [u32]>, Diagnostic> {
        self.as_slice().window(at, window)
    }
}

/// A text to train on.
#[derive(Debug)]
pub enum TrainingText<'a> {
    /// All of its ids.
    Ids(Vec<u32>),
    /// Windows are tokenised as they are drawn, at places by byte.
    Long {
        /// The text.
        text: SampleText,
        /// Its first bytes, which are trained on.
        bytes: usize,
        /// Its tokenizer.
        tokens: &'a Tokens,
    },
}

impl<'a> TrainingText<'a> {
    /// The text to train on, and the ids of its last twentieth unless another text is to validate on.
    ///
    /// # Errors
    /// The text cannot be read or tokenised.
    pub fn of(text: SampleText, tokens: &'a Tokens, validated: bool) -> Result<(Self, Vec<u32>), Diagnostic> {
        if text.whole().is_some() {
            let mut ids = validation_ids(&text, tokens)?;
            let last = if validated { ids.split_off(ids.len() - ids.len() / 20) } else { Vec::new() };
            return Ok((Self::Ids(ids), last));
        }
        let mut bytes = text.len();
        let mut last = Vec::new();
        if validated {
            bytes = text.word_from(bytes - bytes / 20)?;
            let end = text.len().min(bytes + VALIDATED);
            last = reading::part(tokens, &text, bytes..end, passages::by_lines)?;
        }
        Ok((Self::Long { text, bytes, tokens }, last))
    }

    /// Tokens, or a number that there are at least.
    pub fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Long { bytes, .. } => bytes / BYTES_A_TOKEN,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The ids of a text to validate on; of a long one, those of its beginning.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn validation_ids(text: &SampleText, tokens: &Tokens) -> Result<Vec<u32>, Diagnostic> {
    match text.whole() {
        Some(text) => tokens.corpus(text),
        None => reading::part(tokens, text, 0..VALIDATED, passages::by_lines),
    }
}

impl TrainingIds for TrainingText<'_> {
    fn places(&self, window: usize) -> usize {
        match self {
            Self::Ids(ids) => ids.places(window),
            Self::Long { bytes, .. } => bytes.saturating_sub((window + 1) * BYTES_A_TOKEN),
        }
    }

    fn window(&self, at: usize, window: usize) -> Result<Cow<'_, [u32]>, Diagnostic> {
        let (text, tokens) = match self {
            Self::Ids(ids) => return ids.window(at, window),
            Self::Long { text, tokens, .. } => (text, tokens),
        };
        let at = if at == 0 { 0 } else { text.word_from(at)? };
        // Where tokens are longer than they usually are, the end of the text may be too near.
        for at in [at, 0] {
            let ids = ids_from(tokens, text, at, window + 1)?;
            if ids.len() > window {
                return Ok(Cow::Owned(ids));
            }
        }
        let what = format!("has no {} tokens in a row", window + 1);
        Err(Diagnostic::new(text.place(), what)
            .code(ErrorCode::TRAINING)
            .note("use another text, or a smaller --window-tokens"))
    }
}
