//! Texts that a user names: short ones in memory, long ones in pieces from their file, so that memory does not grow with them.

use crate::files;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a text that is held in memory, at most.
const IN_MEMORY: u64 = 1 << 24;

/// Bytes of a long text that are read at a time.
const PIECE: usize = 1 << 18;

/// Bytes in which a space is looked for.
const WORD: usize = 1 << 12;

/// The mark that some editors put before a text.
const MARK: &str = "\u{feff}";

/// A text, without the byte order mark that its file may begin with.
#[derive(Debug)]
pub struct SampleText {
    /// What it is called in messages.
    place: String,
    source: TextSource,
    words: usize,
    hash: u64,
}

#[derive(Debug)]
enum TextSource {
    Memory(String),
    /// Checked once to be UTF-8.
    File {
        file: Mutex<File>,
        /// Where the text begins.
        from: u64,
        bytes: usize,
    },
}

impl SampleText {
    /// A text in memory.
    pub fn of(place: impl Into<String>, text: impl Into<String>) -> Self {
        let (place, text) = (place.into(), text.into());
        Self {
            place,
            words: text.split_whitespace().count(),
            hash: xxh3_64(text.as_bytes()),
            source: TextSource::Memory(text),
        }
    }

    /// A file's text.
    ///
    /// # Errors
    /// The file cannot be read, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let long = std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > IN_MEMORY);
        if long { Self::open(path) } else { Ok(Self::of(path.display().to_string(), files::read_text(path)?)) }
    }

    /// Looks through a long file once.
    fn open(path: &Path) -> Result<Self, Diagnostic> {
        let place = path.display().to_string();
        let unread = |e: io::Error| unread(&place, &e);
        let mut file = File::open(path).map_err(unread)?;
        let mut start = [0; MARK.len()];
        file.read_exact(&mut start).map_err(unread)?;
        let from = if start == MARK.as_bytes() { MARK.len() as u64 } else { 0 };
        file.seek(SeekFrom::Start(from)).map_err(unread)?;
        let (mut hash, mut bytes, mut words, mut inside) = (Xxh3::new(), 0, 0, false);
        let mut rest: Vec<u8> = Vec::with_capacity(2 * PIECE);
        loop {
            let ended = (&mut file).take(PIECE as u64).read_to_end(&mut rest).map_err(unread)? == 0;
            let text = match std::str::from_utf8(&rest) {
                Ok(text) => text,
                Err(e) if e.error_len().is_none() && !ended => {
                    std::str::from_utf8(&rest[..e.valid_up_to()]).unwrap_or_default()
                }
                Err(e) => return Err(files::not_utf8(path, from as usize + bytes + e.valid_up_to())),
            };
            for c in text.chars() {
                words += usize::from(!inside && !c.is_whitespace());
                inside = !c.is_whitespace();
            }
            hash.update(text.as_bytes());
            let read = text.len();
            bytes += read;
            rest.drain(..read);
            if ended {
                break;
            }
        }
        let source = TextSource::File { file: Mutex::new(file), from, bytes };
        Ok(Self { place, source, words, hash: hash.digest() })
    }

    /// What it is called in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match &self.source {
            TextSource::Memory(text) => text.len(),
            TextSource::File { bytes, .. } => *bytes,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words between white space.
    pub fn words(&self) -> usize {
        self.words
    }

    /// XXH3-64 of its bytes.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// All of it, if it is held in memory.
    pub fn whole(&self) -> Option<&str> {
        match &self.source {
            TextSource::Memory(text) => Some(text),
            TextSource::File { .. } => None,
        }
    }

    /// Where it goes on after byte `at`, and at most `most` bytes from there: whole characters.
    ///
    /// # Errors
    /// The file has changed since it was opened.
    pub fn at(&self, at: usize, most: usize) -> Result<(usize, Cow<'_, str>), Diagnostic> {
        let end = at.saturating_add(most).min(self.len());
        match &self.source {
            TextSource::Memory(text) => {
                let at = text.ceil_char_boundary(at.min(text.len()));
                Ok((at, Cow::Borrowed(&text[at..text.floor_char_boundary(end).max(at)])))
            }
            TextSource::File { file, from, .. } => {
                let mut bytes = vec![0; end.saturating_sub(at)];
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(from + at as u64)).map_err(|e| unread(&self.place, &e))?;
                file.read_exact(&mut bytes).map_err(|e| unread(&self.place, &e))?;
                let begin = bytes.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
                let valid = match std::str::from_utf8(&bytes[begin..]) {
                    Ok(text) => text.len(),
                    Err(e) if e.error_len().is_none() => e.valid_up_to(),
                    Err(_) => {
                        let what = "has changed while it was read";
                        return Err(Diagnostic::new(self.place.as_str(), what).code(ErrorCode::FILE));
                    }
                };
                bytes.truncate(begin + valid);
                let text = String::from_utf8(bytes.split_off(begin)).unwrap_or_default();
                Ok((at + begin, Cow::Owned(text)))
            }
        }
    }

    /// The first place at or after byte `at` where a line begins; `at` itself at the start of the text, and where no line begins;
    /// the next space where none begins within `most` bytes.
    ///
    /// # Errors
    /// As of `at`.
    pub fn line_from(&self, at: usize, most: usize) -> Result<usize, Diagnostic> {
        let mut from = at;
        let mut first = None;
        while from < self.len() && from - at < most {
            let (begin, text) = self.at(from, most.min(PIECE))?;
            let first = *first.get_or_insert(begin);
            if at == 0 {
                return Ok(0);
            }
            match text.find('\n') {
                Some(newline) if begin + newline + 1 < self.len() => return Ok(begin + newline + 1),
                Some(_) => return Ok(first),
                None => from = begin + text.len().max(1),
            }
        }
        let first = first.unwrap_or(at.min(self.len()));
        if from >= self.len() {
            return Ok(first);
        }
        // A long line is cut between words.
        self.word_from(first)
    }

    /// The next space after byte `at`; `at` itself where none is near.
    ///
    /// # Errors
    /// As of `at`.
    pub fn word_from(&self, at: usize) -> Result<usize, Diagnostic> {
        let (begin, text) = self.at(at, WORD)?;
        Ok(begin + text.find(char::is_whitespace).unwrap_or(0))
    }
}

impl From<&str> for SampleText {
    fn from(text: &str) -> Self {
        Self::of("", text)
    }
}

fn unread(place: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::new(place, format!("cannot be read: {error}")).code(ErrorCode::FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in pieces gives what the text in memory gives.
    #[test]
    fn pieces_are_the_text() {
        let text = "é漢 abc\n𝄞x ".repeat(40_000);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text.txt");
        std::fs::write(&path, format!("{MARK}{text}")).expect("written");
        let (file, memory) = (SampleText::open(&path).expect("UTF-8"), SampleText::of("", text.clone()));
        assert_eq!((file.len(), file.words(), file.hash()), (memory.len(), memory.words(), memory.hash()));
        for at in [0, 1, 2, 3, 100_001, 262_143, 262_144, text.len() - 1, text.len(), text.len() + 9] {
            for most in [0, 1, 4, 100, 1 << 20] {
                let (a, b) = (file.at(at.min(text.len()), most).expect("read"), memory.at(at, most).expect("read"));
                assert_eq!(a.1, b.1, "{most} bytes at {at}");
            }
            let lines = [&file, &memory].map(|text| text.line_from(at.min(text.len()), 1 << 20).expect("read"));
            assert_eq!(lines[0], lines[1], "a line from {at}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("text.txt");
        let mut bytes = b"a".repeat(PIECE + 5);
        bytes[PIECE + 1] = 0xff;
        std::fs::write(&path, &bytes).expect("written");
        let said = SampleText::open(&path).expect_err("no UTF-8").message;
        assert!(said.contains(&format!("byte {}", PIECE + 1)), "{said}");
    }
}
