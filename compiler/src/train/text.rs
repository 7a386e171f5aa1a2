//! What a program learns from: ids in memory, a text that is too long to be held, ids of a file, or many documents.

use super::documents::Documents;
use crate::id_file::IdFile;
use crate::reading::{self, BYTES_A_TOKEN, IdSource, ids_from};
use crate::texts::SampleText;
use crate::tokens::Tokens;
use crate::tokens::passages;
use snnc_ir::{Diagnostic, ErrorCode};
use std::borrow::Cow;
use std::path::Path;

/// Bytes of a long text that are validated on, at most.
const VALIDATED: usize = 1 << 22;

/// Ids of a file that are validated on, at most: about as many as a text has.
const VALIDATED_IDS: usize = VALIDATED / 4;

/// What a user names to learn from.
#[derive(Debug)]
pub enum TrainingSource<'a> {
    /// One text, or a file of ids.
    One(IdSource<'a>),
    /// The documents of a folder or of a `.jsonl` file.
    Documents {
        /// They.
        documents: Documents,
        /// Their tokenizer.
        tokens: &'a Tokens,
    },
}

impl<'a> TrainingSource<'a> {
    /// A folder, a `.jsonl` file, a `.npy` file of ids, or a text. `rows`: those of the network's embedding.
    ///
    /// # Errors
    /// What cannot be read; a text where `tokens` says that there is no tokenizer; ids that the network has no row for.
    pub fn read(path: &Path, tokens: Result<&'a Tokens, Diagnostic>, rows: usize) -> Result<Self, Diagnostic> {
        match Documents::are_at(path) {
            true => Ok(Self::Documents { tokens: tokens?, documents: Documents::read(path)? }),
            false => IdSource::read(path, tokens, rows).map(Self::One),
        }
    }

    /// XXH3-64 of its bytes.
    pub fn hash(&self) -> u64 {
        match self {
            Self::One(source) => source.hash(),
            Self::Documents { documents, .. } => documents.hash(),
        }
    }

    /// The ids to validate on; of what is long, those of its beginning.
    ///
    /// # Errors
    /// It cannot be read or tokenised.
    pub fn validation_ids(&self) -> Result<Vec<u32>, Diagnostic> {
        match self {
            Self::One(IdSource::Text { text, tokens }) => text_ids(text, tokens),
            Self::One(IdSource::File(file)) => Ok(file.ids(0..file.len().min(VALIDATED_IDS))),
            Self::Documents { documents, tokens } => documents.packed(tokens, 0..documents.len(), VALIDATED_IDS),
        }
    }
}

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
    /// Windows are tokenised as they are drawn, at places by byte.
    Documents {
        /// All of them.
        documents: Documents,
        /// The first ones, which are trained on.
        count: usize,
        /// Their tokenizer.
        tokens: &'a Tokens,
    },
}

impl<'a> TrainingText<'a> {
    /// The text to train on, and the ids of its last twentieth where that is to be validated on.
    ///
    /// # Errors
    /// The text cannot be read or tokenised; nothing of it is left to validate on.
    pub fn of(source: TrainingSource<'a>, validated: bool) -> Result<(Self, Vec<u32>), Diagnostic> {
        let (text, tokens) = match source {
            TrainingSource::One(IdSource::Text { text, tokens }) => (text, tokens),
            TrainingSource::One(IdSource::File(ids)) => return Ok(Self::of_file(ids, validated)),
            TrainingSource::Documents { documents, tokens } => {
                let all = documents.len();
                let count = if validated { documents.last_twentieth()? } else { all };
                let last = documents.packed(tokens, count..all, VALIDATED_IDS)?;
                return Ok((Self::Documents { documents, count, tokens }, last));
            }
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
            Self::Documents { documents, count, .. } => documents.bytes_of(*count) as usize / BYTES_A_TOKEN,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
            Self::Documents { documents, count, .. } => documents.bytes_of(*count) as usize,
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
            Self::Documents { documents, count, tokens } => {
                return documents.ids_from(tokens, *count, at as u64, window + 1).map(Cow::Owned);
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
