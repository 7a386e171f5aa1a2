//! What a program learns from: ids in memory, or a text that is too long to be held.

use crate::id_file::IdFile;
use crate::reading::{self, BYTES_A_TOKEN, IdSource, ids_from};
use crate::texts::SampleText;
use crate::tokens::Tokens;
use crate::tokens::passages;
use snnc_ir::{Diagnostic, ErrorCode};
use std::borrow::Cow;

/// Bytes of a long text that are validated on, at most.
const VALIDATED: usize = 1 << 22;

/// Ids of a file that are validated on, at most: about as many as a text has.
const VALIDATED_IDS: usize = VALIDATED / 4;

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
    /// Ids of a file.
    File {
        /// The file.
        ids: IdFile,
        /// Its first texts, which are trained on.
        texts: usize,
        /// Of each text the first ids, which are trained on.
        length: usize,
    },
}

impl<'a> TrainingText<'a> {
    /// The text to train on, and the ids of its last twentieth unless another text is to validate on.
    ///
    /// # Errors
    /// The text cannot be read or tokenised.
    pub fn of(source: IdSource<'a>, validated: bool) -> Result<(Self, Vec<u32>), Diagnostic> {
        let (text, tokens) = match source {
            IdSource::Text { text, tokens } => (text, tokens),
            IdSource::File(ids) => return Ok(Self::of_file(ids, validated)),
        };
        if text.whole().is_some() {
            let mut ids = text_ids(&text, tokens)?;
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

    /// The last twentieth of a file is that of its only text, or of its texts.
    fn of_file(ids: IdFile, validated: bool) -> (Self, Vec<u32>) {
        let (mut texts, mut length) = (ids.texts(), ids.length());
        match (validated, texts) {
            (false, _) => {}
            (true, 0 | 1) => length -= length / 20,
            (true, _) => texts -= (texts / 20).max(1),
        }
        let from = if texts < ids.texts() { texts * length } else { length };
        let last = if validated { ids.ids(from..ids.len().min(from + VALIDATED_IDS)) } else { Vec::new() };
        (Self::File { ids, texts, length }, last)
    }

    /// Tokens, or a number that there are at least.
    pub fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Long { bytes, .. } => bytes / BYTES_A_TOKEN,
            Self::File { texts, length, .. } => texts * length,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The ids to validate on; of what is long, those of its beginning.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn validation_ids(source: &IdSource<'_>) -> Result<Vec<u32>, Diagnostic> {
    match source {
        IdSource::Text { text, tokens } => text_ids(text, tokens),
        IdSource::File(file) => Ok(file.ids(0..file.len().min(VALIDATED_IDS))),
    }
}

fn text_ids(text: &SampleText, tokens: &Tokens) -> Result<Vec<u32>, Diagnostic> {
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
            Self::File { texts, length, .. } => texts * length.saturating_sub(window),
        }
    }

    fn window(&self, at: usize, window: usize) -> Result<Cow<'_, [u32]>, Diagnostic> {
        let (text, tokens) = match self {
            Self::Ids(ids) => return ids.window(at, window),
            Self::Long { text, tokens, .. } => (text, tokens),
            Self::File { ids, length, .. } => {
                // No window goes on from one text to the next.
                let places = length.saturating_sub(window).max(1);
                let from = at / places * ids.length() + at % places;
                return Ok(Cow::Owned(ids.ids(from..from + window + 1)));
            }
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
