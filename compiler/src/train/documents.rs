//! Many documents to learn from: the lines of a `.jsonl` file, or the `.txt` and `.jsonl` files of a folder.
//!
//! Only where they are is held in memory. A window goes on from a document to the next, with what ends a text and what stands before
//! one in between, as if all documents were packed one after the other.

use crate::files;
use crate::reading::ids_from;
use crate::texts::SampleText;
use crate::tokens::Tokens;
use snnc_ir::{Diagnostic, ErrorCode};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Where a document is.
#[derive(Clone, Copy, Debug)]
struct DocumentPlace {
    file: usize,
    /// Its first byte in the file.
    start: u64,
    /// Bytes of the file that it takes.
    bytes: u64,
    /// Bytes of all documents before it.
    before: u64,
}

/// A file of documents.
#[derive(Debug)]
struct DocumentFile {
    path: PathBuf,
    form: DocumentForm,
}

#[derive(Debug)]
enum DocumentForm {
    /// A document per line, as JSON.
    Lines,
    /// One document, read whole when it is needed.
    Short,
    /// One document that is too long to be held.
    Long(SampleText),
}

/// Documents in the order of their files' names and of their lines.
#[derive(Debug)]
pub struct Documents {
    place: String,
    files: Vec<DocumentFile>,
    places: Vec<DocumentPlace>,
    hash: u64,
}

impl Documents {
    /// Whether a path is read as documents: a folder, or a file whose name ends in `.jsonl`.
    pub fn are_at(path: &Path) -> bool {
        path.is_dir() || is_lines(path)
    }

    /// Looks once through all files.
    ///
    /// # Errors
    /// What cannot be read; a line without text; no document at all.
    pub fn read(path: &Path) -> Result<Self, Diagnostic> {
        let place = path.display().to_string();
        let mut paths = Vec::new();
        if path.is_dir() {
            add_files(path, &mut paths)?;
        } else {
            paths.push(path.to_path_buf());
        }
        let mut all = Self { place, files: Vec::new(), places: Vec::new(), hash: 0 };
        let mut hash = Xxh3::new();
        for path in paths {
            let file = all.files.len();
            let form = if is_lines(&path) {
                hash.update(&all.add_lines(&path, file)?.to_le_bytes());
                DocumentForm::Lines
            } else {
                let text = SampleText::read(&path)?;
                hash.update(&text.hash().to_le_bytes());
                all.add(file, 0..text.len() as u64);
                if text.whole().is_some() { DocumentForm::Short } else { DocumentForm::Long(text) }
            };
            all.files.push(DocumentFile { path, form });
        }
        all.hash = hash.digest();
        if all.places.is_empty() {
            let note =
                "a folder needs .txt or .jsonl files; a .jsonl file has a JSON object with a string \"text\" per line";
            return Err(all.refused("has no documents").note(note));
        }
        Ok(all)
    }

    fn refused(&self, message: &str) -> Diagnostic {
        Diagnostic::new(self.place.as_str(), message).code(ErrorCode::TRAINING)
    }

    /// Adds a document, if it has any text.
    fn add(&mut self, file: usize, bytes: Range<u64>) {
        if !bytes.is_empty() {
            let place =
                DocumentPlace { file, start: bytes.start, bytes: bytes.end - bytes.start, before: self.bytes() };
            self.places.push(place);
        }
    }

    /// Adds the lines of a file. XXH3-64 of its bytes.
    fn add_lines(&mut self, path: &Path, file: usize) -> Result<u64, Diagnostic> {
        let unread = |e| files::trouble(path, "cannot be read", &e);
        let mut reader = BufReader::new(File::open(path).map_err(unread)?);
        let (mut hash, mut line, mut at) = (Xxh3::new(), Vec::new(), 0);
        for number in 1.. {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(unread)? as u64;
            if length == 0 {
                break;
            }
            hash.update(&line);
            if !line.trim_ascii().is_empty() && !text_of(&line, path, || format!("line {number}"))?.is_empty() {
                self.add(file, at..at + length);
            }
            at += length;
        }
        Ok(hash.digest())
    }

    /// What they are called in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// XXH3-64 of what all files hold.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of all.
    fn bytes(&self) -> u64 {
        self.bytes_of(self.places.len())
    }

    /// Bytes of the first so many.
    pub fn bytes_of(&self, count: usize) -> u64 {
        count.checked_sub(1).map_or(0, |last| self.places[last].before + self.places[last].bytes)
    }

    /// The first document of the last twentieth, by bytes; there is one before it, and one in it.
    ///
    /// # Errors
    /// There is one document alone.
    pub fn last_twentieth(&self) -> Result<usize, Diagnostic> {
        if self.places.len() < 2 {
            let note = "name a text to validate on with --validate";
            return Err(self.refused("has one document, and none is left to validate on").note(note));
        }
        let from = self.bytes() - self.bytes() / 20;
        Ok(self.places.partition_point(|place| place.before < from).clamp(1, self.places.len() - 1))
    }

    /// Ids of documents packed one after the other, as many as `most` at most.
    ///
    /// # Errors
    /// What cannot be read or tokenised.
    pub fn packed(&self, tokens: &Tokens, documents: Range<usize>, most: usize) -> Result<Vec<u32>, Diagnostic> {
        let mut ids = Vec::new();
        for document in documents {
            if ids.len() >= most {
                break;
            }
            self.append(tokens, document, 0, most, &mut ids)?;
        }
        ids.truncate(most);
        Ok(ids)
    }

    /// So many ids from byte `at` of the first `documents` on; after the last of these comes the first.
    ///
    /// # Errors
    /// What cannot be read or tokenised; documents that have fewer ids together.
    pub fn ids_from(&self, tokens: &Tokens, documents: usize, at: u64, count: usize) -> Result<Vec<u32>, Diagnostic> {
        let first = self.places[..documents].partition_point(|place| place.before <= at).max(1) - 1;
        let mut within = at.saturating_sub(self.places[first].before);
        let mut ids = Vec::new();
        for document in (first..documents).chain(0..documents) {
            self.append(tokens, document, within, count, &mut ids)?;
            within = 0;
            if ids.len() >= count {
                ids.truncate(count);
                return Ok(ids);
            }
        }
        let note = "use more text, or a smaller --window-tokens";
        Err(self.refused(&format!("has no {count} tokens")).note(note))
    }

    /// The text of the first documents, so many bytes of it at most, a line break between them.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn beginning(&self, most: usize) -> Result<SampleText, Diagnostic> {
        let mut all = String::new();
        for document in 0..self.places.len() {
            all.push_str(&self.text(document)?.at(0, most - all.len())?.1);
            if all.len() + 1 >= most {
                break;
            }
            all.push('\n');
        }
        Ok(SampleText::of(self.place.as_str(), all))
    }

    /// A document's text.
    fn text(&self, document: usize) -> Result<DocumentText<'_>, Diagnostic> {
        let place = self.places[document];
        let file = &self.files[place.file];
        Ok(DocumentText(match &file.form {
            DocumentForm::Long(text) => Ok(text),
            DocumentForm::Short => Err(SampleText::read(&file.path)?),
            DocumentForm::Lines => {
                let name = || format!("the line at byte {}", place.start);
                Err(SampleText::of(self.place.as_str(), text_of(&bytes_of(&file.path, place)?, &file.path, name)?))
            }
        }))
    }

    /// Appends ids of a document from a byte on, up to `most` in all, and what ends a text.
    fn append(
        &self,
        tokens: &Tokens,
        document: usize,
        at: u64,
        most: usize,
        ids: &mut Vec<u32>,
    ) -> Result<(), Diagnostic> {
        let text = self.text(document)?;
        // A line of JSON is a little longer than its text.
        let at = (at as usize).min(text.len().saturating_sub(1));
        let at = if at == 0 { 0 } else { text.word_from(at)? };
        ids.extend(ids_from(tokens, &text, at, most.saturating_sub(ids.len()))?);
        // Where the same token ends a text and stands before one, it is there once.
        ids.extend(tokens.language().end.first().filter(|end| tokens.start() != [**end]));
        Ok(())
    }
}

/// A text that is held, or one that was read just now.
struct DocumentText<'a>(Result<&'a SampleText, SampleText>);

impl Deref for DocumentText<'_> {
    type Target = SampleText;

    fn deref(&self) -> &SampleText {
        match &self.0 {
            Ok(text) => text,
            Err(text) => text,
        }
    }
}

fn is_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"))
}

/// The files of a folder and of the folders in it, by name.
fn add_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Diagnostic> {
    let unread = |e| files::trouble(folder, "cannot be read", &e);
    let entries = std::fs::read_dir(folder).map_err(unread)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unread)?;
    paths.sort();
    for path in paths {
        // A link to a folder may lead back to where it stands.
        if path.is_dir() && !path.is_symlink() {
            add_files(&path, found)?;
        } else if path.is_file() && (is_lines(&path) || path.extension().is_some_and(|e| e.eq_ignore_ascii_case("txt")))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn bytes_of(path: &Path, place: DocumentPlace) -> Result<Vec<u8>, Diagnostic> {
    let unread = |e| files::trouble(path, "cannot be read", &e);
    let mut file = File::open(path).map_err(unread)?;
    file.seek(SeekFrom::Start(place.start)).map_err(unread)?;
    let mut bytes = Vec::new();
    file.take(place.bytes).read_to_end(&mut bytes).map_err(unread)?;
    Ok(bytes)
}

/// The text of a line; other fields are not looked at.
fn text_of(line: &[u8], path: &Path, name: impl Fn() -> String) -> Result<String, Diagnostic> {
    let cause = match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(mut value) => match value.get_mut("text").map(serde_json::Value::take) {
            Some(serde_json::Value::String(text)) => return Ok(text),
            _ => String::new(),
        },
        Err(e) => format!(": {e}"),
    };
    let message = format!("{} is no JSON object with a string \"text\"{cause}", name());
    Err(Diagnostic::new(path.display().to_string(), message).code(ErrorCode::TRAINING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokens() -> Tokens {
        let words = ["<|endoftext|>", "<unk>", "a", "b", "c", "d", "e"];
        let vocabulary: serde_json::Map<_, _> =
            words.iter().enumerate().map(|(i, word)| ((*word).into(), json!(i))).collect();
        let end = json!({ "id": 0, "content": words[0], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true });
        let json = json!({ "version": "1.0", "added_tokens": [end], "pre_tokenizer": { "type": "Whitespace" },
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": words[1] } });
        Tokens::new(json.to_string().as_bytes(), "tokenizer.json").expect("it is one")
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("there is room");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
            std::fs::write(path, text).expect("it can be written");
        }
        folder
    }

    #[test]
    fn documents_stand_one_after_the_other() {
        let lines = "{\"text\": \"c d\", \"id\": 7}\n\n{\"text\": \"\"}\n{\"text\": \"e\\na\"}";
        let files = [("1.txt", "a b"), ("2/b.jsonl", lines), ("3.txt", "d"), ("notes.md", "b b b"), ("4.txt", "")];
        let folder = folder(&files);
        let (tokens, documents) = (tokens(), Documents::read(folder.path()).expect("there are some"));
        assert_eq!((documents.len(), tokens.start(), &tokens.language().end[..]), (4, &[0][..], &[0][..]));
        let all = [0, 2, 3, 0, 4, 5, 0, 6, 2, 0, 5];
        assert_eq!(documents.packed(&tokens, 0..4, 100).expect("readable"), all);
        assert_eq!(documents.packed(&tokens, 1..3, 4).expect("readable"), all[3..7]);
        // From within a document; over the end of those that are trained on; not all text there is.
        assert_eq!(documents.ids_from(&tokens, 3, 0, 10).expect("enough"), [0, 2, 3, 0, 4, 5, 0, 6, 2, 0]);
        assert_eq!(documents.ids_from(&tokens, 3, 1, 8).expect("enough"), [3, 0, 4, 5, 0, 6, 2, 0]);
        assert_eq!(documents.ids_from(&tokens, 2, 3, 6).expect("enough"), [0, 4, 5, 0, 2, 3]);
        assert!(documents.ids_from(&tokens, 1, 0, 40).expect_err("too few").message.contains("40 tokens"));
        assert_eq!(documents.beginning(6).expect("readable").whole(), Some("a b\nc "));
        assert_eq!(documents.last_twentieth().expect("several"), 3);
    }

    #[test]
    fn what_is_no_document_is_named() {
        for (files, wanted) in [
            (&[("a.jsonl", "{\"text\": \"a\"}\n{\"words\": \"b\"}")][..], "line 2 is no JSON object"),
            (&[("a.jsonl", "[1]")], "line 1 is no JSON object"),
            (&[("a.jsonl", "\n\n")], "no documents"),
            (&[("a.csv", "a")], "no documents"),
        ] {
            let folder = folder(files);
            let told = Documents::read(folder.path()).expect_err(wanted);
            assert!(told.message.contains(wanted), "{}", told.message);
        }
        let folder = folder(&[("a.txt", "a b c")]);
        let one = Documents::read(folder.path()).expect("there is one");
        assert!(one.last_twentieth().expect_err("none is left").message.contains("one document"));
    }
}
