//! Where a model's tokenizer is: `tokenizer.json`, or the vocabulary and merges of GPT-2's byte-level BPE, from which the same
//! JSON is made.

use super::language_files::LanguageFiles;
use super::pair::{is_vocabulary, joined, read, trouble};
use super::start::TokenizerHints;
use snnc_ir::Diagnostic;
use std::path::{Path, PathBuf};

/// A tokenizer as it was found.
#[derive(Clone, Debug)]
pub struct TokenizerFile {
    /// In the form of `tokenizer.json`: the bytes of the user's file where it has this form.
    pub json: Vec<u8>,
    /// Its name in messages.
    pub place: String,
    /// What is known of it from outside.
    pub hints: TokenizerHints,
}

/// Files with a vocabulary and with merges, as Hugging Face and as OpenAI call them.
const PAIRS: [[&str; 2]; 2] = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];

/// The tokenizer in a model's folder, or the file or folder that a user named; `None` where the model's folder has none.
///
/// # Errors
/// What cannot be read; a vocabulary without merges.
pub fn find(model: &Path, named: Option<&Path>) -> Result<Option<TokenizerFile>, Diagnostic> {
    let model = folder_of_model(model);
    let found = match named {
        None => in_folder(&model)?,
        Some(path) if path.is_dir() => {
            let what = "has no tokenizer.json, and no vocab.json with merges.txt";
            Some(in_folder(path)?.ok_or_else(|| trouble(path, what))?)
        }
        Some(path) => Some(file(path)?),
    };
    let Some((path, json)) = found else { return Ok(None) };
    let hints = TokenizerHints::Files(LanguageFiles::read(&folder(&path), &model)?);
    Ok(Some(TokenizerFile { json, place: path.display().to_string(), hints }))
}

/// The folder of a model, which is itself one or a file in one. Some have their ONNX files one folder below the rest.
fn folder_of_model(model: &Path) -> PathBuf {
    if model.is_dir() {
        return model.to_path_buf();
    }
    let folder = folder(model);
    let above = folder.parent().filter(|_| folder.file_name().is_some_and(|name| name == "onnx"));
    match above {
        Some(above) if !has_tokenizer(&folder) && has_tokenizer(above) => above.to_path_buf(),
        _ => folder,
    }
}

fn has_tokenizer(folder: &Path) -> bool {
    folder.join("tokenizer.json").is_file() || PAIRS.iter().any(|[vocab, _]| folder.join(vocab).is_file())
}

fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The file of a folder that has a tokenizer, and its JSON.
fn in_folder(folder: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, Diagnostic> {
    let path = folder.join("tokenizer.json");
    if path.is_file() {
        let json = read(&path)?;
        return Ok(Some((path, json)));
    }
    for [vocab, merges] in PAIRS.map(|pair| pair.map(|name| folder.join(name))) {
        if vocab.is_file() && merges.is_file() {
            let json = joined(&vocab, &merges)?;
            return Ok(Some((vocab, json)));
        }
    }
    Ok(None)
}

/// A file that a user named: a tokenizer, or one half of a pair.
fn file(path: &Path) -> Result<(PathBuf, Vec<u8>), Diagnostic> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for [vocab, merges] in PAIRS {
        if name == merges {
            return Ok((path.to_path_buf(), joined(&path.with_file_name(vocab), path)?));
        }
    }
    let json = read(path)?;
    if !is_vocabulary(&json) {
        return Ok((path.to_path_buf(), json));
    }
    let known = PAIRS.into_iter().find(|[vocab, _]| *vocab == name);
    let beside = known.into_iter().chain(PAIRS).map(|[_, merges]| path.with_file_name(merges));
    let Some(merges) = beside.into_iter().find(|merges| merges.is_file()) else {
        let what = "is a vocabulary without merges: a byte-level BPE needs both";
        return Err(trouble(path, what).note("put merges.txt beside it, or name a tokenizer.json"));
    };
    Ok((path.to_path_buf(), joined(path, &merges)?))
}
