//! Ids of texts of any length: all of a text, or only the windows that are run; and ids that a file holds.

use crate::evaluate::{self, Cut, Window};
use crate::id_file::{IdFile, is_npy};
use crate::texts::SampleText;
use crate::tokens::passages;
use crate::tokens::{PassageEnd, Tokens};
use snnc_ir::Diagnostic;
use std::ops::Range;
use std::path::Path;

/// Bytes of text that hold at least one token's text with room to spare: only what is run is tokenised.
pub const BYTES_A_TOKEN: usize = 12;

/// Bytes of a passage whose tokens are looked for, at most.
const WINDOW_BYTES: usize = 1 << 22;

/// Bytes of a long text that are read at a time.
const PIECE: usize = 1 << 18;

/// Bytes of a line that is passed over to begin at the next.
const LINE: usize = 1 << 16;

/// The ids of a text, or of windows of it.
#[derive(Debug)]
pub struct TextIds {
    /// Ids one after the other.
    pub ids: Vec<u32>,
    /// Where the windows are, if the ids are those of some windows only.
    pub windows: Option<Vec<Window>>,
    /// Tokens of the text per word; nothing is known of the words of a file of ids.
    pub tokens_per_word: Option<f64>,
}

/// Where ids come from.
#[derive(Debug)]
pub enum IdSource<'a> {
    /// A text and its tokenizer.
    Text {
        /// The text.
        text: SampleText,
        /// Its tokenizer.
        tokens: &'a Tokens,
    },
    /// A file of ids, which are run as they are.
    File(IdFile),
}

impl<'a> IdSource<'a> {
    /// A text, or a `.npy` file of ids: told by content. `rows`: those of the network's embedding.
    ///
    /// # Errors
    /// The file cannot be read; a text where `tokens` says that there is no tokenizer; ids that the network has no row for.
    pub fn read(path: &Path, tokens: Result<&'a Tokens, Diagnostic>, rows: usize) -> Result<Self, Diagnostic> {
        if is_npy(path) {
            let file = IdFile::open(path)?;
            file.check(rows)?;
            return Ok(Self::File(file));
        }
        let text = SampleText::read(path)?;
        Ok(Self::Text { text, tokens: tokens? })
    }

    /// What it is called in messages.
    pub fn place(&self) -> &str {
        match self {
            Self::Text { text, .. } => text.place(),
            Self::File(file) => file.place(),
        }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text { text, .. } => text.len(),
            Self::File(file) => file.bytes(),
        }
    }

    /// XXH3-64 of its bytes.
    pub fn hash(&self) -> u64 {
        match self {
            Self::Text { text, .. } => text.hash(),
            Self::File(file) => file.hash(),
        }
    }
}

/// The ids that an evaluation needs. Of a text too long to be held, only the windows are tokenised if their number is limited:
/// they are then spread evenly over its bytes.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn ids_for(source: &IdSource<'_>, length: usize, cut: Cut) -> Result<TextIds, Diagnostic> {
    let (text, tokens) = match source {
        IdSource::Text { text, tokens } => (text, tokens),
        IdSource::File(file) => return Ok(file_windows(file, length, cut)),
    };
    let length = cut.length.unwrap_or(length).min(length).max(1);
    if text.whole().is_none() && cut.windows < text.len() / length {
        return spread(tokens, text, length, cut);
    }
    let ids = all(tokens, text)?;
    let own = ids.len().saturating_sub(tokens.start().len());
    Ok(TextIds { tokens_per_word: Some(own as f64 / text.words().max(1) as f64), ids, windows: None })
}

/// The windows of a file of ids that `cut` asks for. No window goes on from one text of the file to the next.
pub fn file_windows(file: &IdFile, length: usize, cut: Cut) -> TextIds {
    let length = cut.length.unwrap_or(length).min(length).max(1);
    let each = evaluate::cut(file.length().saturating_sub(1), length, Cut { windows: usize::MAX, ..cut });
    let all = file.texts().saturating_mul(each.len());
    if all <= cut.windows && file.texts() == 1 {
        return TextIds { ids: file.ids(0..file.len()), windows: None, tokens_per_word: None };
    }
    let count = cut.windows.min(all);
    let (mut ids, mut windows) = (Vec::new(), Vec::with_capacity(count));
    for i in 0..count {
        let (text, window) = (share(i, count, all) / each.len(), &each[share(i, count, all) % each.len()]);
        let begin = text * file.length();
        let inputs = ids.len()..ids.len() + window.inputs.len();
        let scored = inputs.start + window.scored - window.inputs.start;
        ids.extend(file.ids(begin + window.inputs.start..begin + window.inputs.end + 1));
        windows.push(Window { inputs, scored });
    }
    TextIds { ids, windows: Some(windows), tokens_per_word: None }
}

impl TextIds {
    /// The windows that `cut` asks for, of at most `length` inputs.
    pub fn cut(&self, length: usize, cut: Cut) -> Vec<Window> {
        let length = cut.length.unwrap_or(length).min(length).max(1);
        // The last id is only predicted, never an input.
        self.windows.clone().unwrap_or_else(|| evaluate::cut(self.ids.len().saturating_sub(1), length, cut))
    }
}

impl TextIds {
    /// The same in windows of at most `length` inputs that each begin with `token` besides.
    pub fn led_by(self, token: u32, length: usize, cut: Cut) -> Self {
        let (mut ids, mut windows) = (Vec::new(), Vec::new());
        for Window { inputs, scored } in self.cut(length, cut) {
            let own = &self.ids[inputs.start..inputs.end + 1];
            let more = usize::from(own[0] != token);
            let begin = ids.len();
            ids.extend(std::iter::once(token).filter(|_| more == 1).chain(own.iter().copied()));
            // What the token itself predicts is no part of the text.
            windows.push(Window { inputs: begin..ids.len() - 1, scored: begin + more + scored - inputs.start });
        }
        Self { ids, windows: Some(windows), ..self }
    }
}

/// The ids of all of a text.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn all(tokens: &Tokens, text: &SampleText) -> Result<Vec<u32>, Diagnostic> {
    match text.whole() {
        Some(text) => tokens.document(text),
        None => part(tokens, text, 0..text.len(), passages::by_words),
    }
}

/// The ids of a part of a text, in passages; the start token stands before the text's start.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn part(tokens: &Tokens, text: &SampleText, bytes: Range<usize>, cut: PassageEnd) -> Result<Vec<u32>, Diagnostic> {
    let mut ids = if bytes.start == 0 { tokens.beginning()? } else { Vec::new() };
    let (mut at, mut held, mut first) = (bytes.start, String::new(), true);
    loop {
        let (begin, piece) = text.at(at, PIECE.min(bytes.end.saturating_sub(at)))?;
        held.push_str(&piece);
        at = begin + piece.len();
        let ended = piece.is_empty();
        let mut done = 0;
        while let Some(end) = cut(&held[done..], ended).filter(|end| *end > 0) {
            ids.extend(tokens.passage(&held[done..done + end], first)?);
            (done, first) = (done + end, false);
        }
        held.drain(..done);
        if ended {
            return Ok(ids);
        }
    }
}

/// Ids that begin at a place of a text, so many at most.
///
/// # Errors
/// The text cannot be read or tokenised.
pub fn ids_from(tokens: &Tokens, text: &SampleText, at: usize, count: usize) -> Result<Vec<u32>, Diagnostic> {
    let mut bytes = count.saturating_mul(BYTES_A_TOKEN);
    loop {
        let (begin, passage) = text.at(at, bytes.min(WINDOW_BYTES))?;
        let mut ids = if begin == 0 { tokens.beginning()? } else { Vec::new() };
        let mut rest: &str = &passage;
        while let Some(end) = passages::by_words(rest, true).filter(|end| *end > 0 && ids.len() < count) {
            ids.extend(tokens.passage(&rest[..end], rest.len() == passage.len())?);
            rest = &rest[end..];
        }
        let all = begin + passage.len() >= text.len() || bytes >= WINDOW_BYTES;
        if ids.len() >= count || all {
            ids.truncate(count);
            return Ok(ids);
        }
        // Tokens of long runs of spaces are longer than others.
        bytes = bytes.saturating_mul(4);
    }
}

/// Windows that begin at lines spread evenly over a text's bytes.
fn spread(tokens: &Tokens, text: &SampleText, length: usize, cut: Cut) -> Result<TextIds, Diagnostic> {
    let stride = cut.stride.unwrap_or(length).clamp(1, length);
    let (mut ids, mut windows) = (Vec::new(), Vec::new());
    let (mut own, mut words) = (0, 0);
    for i in 0..cut.windows {
        let at = share(i, cut.windows, text.len());
        let at = text.line_from(at, LINE)?;
        let window = ids_from(tokens, text, at, length + 1)?;
        if window.len() < 2 {
            continue;
        }
        own += window.len() - if at == 0 { tokens.start().len().min(window.len()) } else { 0 };
        words += tokens.decode(&window)?.split_whitespace().count();
        let inputs = ids.len()..ids.len() + window.len() - 1;
        let scored =
            if windows.is_empty() { inputs.start } else { inputs.start.max(inputs.end.saturating_sub(stride)) };
        windows.push(Window { inputs, scored });
        ids.extend(window);
    }
    Ok(TextIds { ids, windows: Some(windows), tokens_per_word: Some(own as f64 / words.max(1) as f64) })
}

/// Place `i` of `count` places spread evenly over so many bytes, or windows.
pub fn share(i: usize, count: usize, bytes: usize) -> usize {
    (i as u128 * bytes as u128 / count.max(1) as u128) as usize
}
