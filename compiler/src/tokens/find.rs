//! Where a model's tokenizer is: `tokenizer.json`, or the vocabulary and merges of GPT-2's byte-level BPE, from which the same
//! JSON is made.

use super::allowed::FILE_BYTES;
use super::language_files::LanguageFiles;
use super::start::{END_OF_TEXT, TokenizerHints};
use serde_json::{Map, Value as Json, json};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::fs::File;
use std::io::Read;
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
    let model = folder(model);
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

fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn trouble(path: &Path, what: impl Into<String>) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), what).code(ErrorCode::TOKENIZER)
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

/// Reads a file that is not too long to be a tokenizer.
fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let unread = |e| Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")).code(ErrorCode::FILE);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(unread)?;
    if bytes.len() > FILE_BYTES {
        return Err(trouble(path, format!("is longer than {} MB", FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Whether a file is an object of tokens and their ids.
fn is_vocabulary(bytes: &[u8]) -> bool {
    let json = serde_json::from_slice::<Map<String, Json>>(bytes).unwrap_or_default();
    !json.is_empty() && !json.contains_key("model") && json.values().all(Json::is_u64)
}

/// How words are split by tokenizers that are no GPT-2's, by their class in Transformers. Their texts are in NFC.
const SPLITS: [(&str, &str); 1] = [(
    "Qwen2Tokenizer",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)];

/// Byte-level BPE of a vocabulary and merges, as a `tokenizer.json`: GPT-2's, unless `tokenizer_config.json` names another.
fn joined(vocab: &Path, merges: &Path) -> Result<Vec<u8>, Diagnostic> {
    let bytes = read(vocab)?;
    if !is_vocabulary(&bytes) {
        return Err(trouble(vocab, "is no vocabulary: an object of tokens and their ids was expected"));
    }
    let entries: Map<String, Json> =
        serde_json::from_slice(&bytes).map_err(|e| trouble(vocab, format!("is no JSON: {e}")))?;
    let text = String::from_utf8(read(merges)?).map_err(|_| trouble(merges, "is not UTF-8 text"))?;
    let pairs = merge_pairs(text.strip_prefix('\u{feff}').unwrap_or(&text), merges)?;
    let config = object(&vocab.with_file_name("tokenizer_config.json"))?;
    let added = added_tokens(vocab, &entries, &config)?;
    let class = config.get("tokenizer_class").and_then(Json::as_str).unwrap_or_default();
    let split = SPLITS.iter().find(|(name, _)| class.strip_suffix("Fast").unwrap_or(class) == *name);
    let level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
    let (normalizer, before) = match split {
        None => (Json::Null, level(true)),
        Some((_, pattern)) => {
            let split =
                json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
            (json!({"type": "NFC"}), json!({"type": "Sequence", "pretokenizers": [split, level(false)]}))
        }
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": before, "post_processor": null, "decoder": level(true),
        "model": {"type": "BPE", "vocab": entries, "merges": pairs},
    });
    Ok(tokenizer.to_string().into_bytes())
}

/// The merges of a file, a pair per line.
fn merge_pairs<'a>(text: &'a str, merges: &Path) -> Result<Vec<[&'a str; 2]>, Diagnostic> {
    let mut pairs: Vec<[&str; 2]> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        let pair = line.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let Some((first, second)) = pair else {
            let what = "is no merge: two tokens with a space between them were expected";
            return Err(Diagnostic::new(format!("{}:{number}", merges.display()), what).code(ErrorCode::TOKENIZER));
        };
        pairs.push([first, second]);
    }
    Ok(pairs)
}

/// The object of a file; an empty one where there is no file.
fn object(path: &Path) -> Result<Map<String, Json>, Diagnostic> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&read(path)?).map_err(|e| trouble(path, format!("is no JSON: {e}")))
}

/// Tokens beside the vocabulary: GPT-2's end of text, which its tokenizer knows without being told; those of
/// `added_tokens.json`; those of `added_tokens_decoder` in `tokenizer_config.json`.
fn added_tokens(
    vocab: &Path,
    entries: &Map<String, Json>,
    config: &Map<String, Json>,
) -> Result<Vec<Json>, Diagnostic> {
    let token = |content: &str, id: &Json, flags: &Json| {
        let flag = |name: &str, usual: bool| flags[name].as_bool().unwrap_or(usual);
        json!({"id": id, "content": content, "single_word": flag("single_word", false), "lstrip": flag("lstrip", false),
               "rstrip": flag("rstrip", false), "normalized": flag("normalized", false), "special": flag("special", true)})
    };
    let mut added: Vec<Json> =
        entries.get(END_OF_TEXT).map(|id| token(END_OF_TEXT, id, &Json::Null)).into_iter().collect();
    let mut more: Vec<Json> = Vec::new();
    for (content, id) in &object(&vocab.with_file_name("added_tokens.json"))? {
        more.push(token(content, id, &Json::Null));
    }
    for (id, flags) in config.get("added_tokens_decoder").and_then(Json::as_object).into_iter().flatten() {
        if let (Ok(id), Some(content)) = (id.parse::<u64>(), flags["content"].as_str()) {
            // This file says more of a token than the other.
            more.retain(|token| token["content"] != content);
            more.push(token(content, &id.into(), flags));
        }
    }
    more.retain(|token| token["content"] != END_OF_TEXT || added.is_empty());
    more.sort_by_key(|token| token["id"].as_u64());
    added.extend(more);
    Ok(added)
}
