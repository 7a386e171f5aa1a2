//! A tokenizer of two files, as a `tokenizer.json`: the vocabulary and the merges of a byte-level BPE.
//!
//! The two files do not say how a text is split before merges apply. `tokenizer_config.json` names a class that does; without one it is
//! GPT-2's. Tokens beside the vocabulary come from `tokenizer_config.json`, or else from `added_tokens.json`.

use super::allowed::FILE_BYTES;
use super::start::END_OF_TEXT;
use serde_json::{Map, Value as Json, json};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How Qwen 2 splits texts: as GPT-2 does, but words may follow any sign, digits stand alone, and lines end pieces.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Classes of tokenizers that split texts as GPT-2 does.
const LIKE_GPT2: [&str; 4] = ["GPT2Tokenizer", "GPT2TokenizerFast", "CodeGenTokenizer", "PreTrainedTokenizerFast"];

/// Classes of tokenizers that split texts as Qwen 2 does.
const LIKE_QWEN2: [&str; 2] = ["Qwen2Tokenizer", "Qwen2TokenizerFast"];

/// A tokenizer that cannot be read.
pub(super) fn trouble(path: &Path, what: impl Into<String>) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), what).code(ErrorCode::TOKENIZER)
}

/// Reads a file that is not too long to be a tokenizer.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let unread = |e| Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")).code(ErrorCode::FILE);
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(unread)?;
    if bytes.len() > FILE_BYTES {
        return Err(trouble(path, format!("is longer than {} MB", FILE_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Whether a file is an object of tokens and their ids.
pub(super) fn is_vocabulary(bytes: &[u8]) -> bool {
    let json = serde_json::from_slice::<Map<String, Json>>(bytes).unwrap_or_default();
    !json.is_empty() && !json.contains_key("model") && json.values().all(Json::is_u64)
}

/// The byte-level BPE of a vocabulary and merges, as a `tokenizer.json`.
///
/// # Errors
/// What cannot be read, is not what it should be, or splits texts in a way that is not known.
pub(super) fn joined(vocab: &Path, merges: &Path) -> Result<Vec<u8>, Diagnostic> {
    let bytes = read(vocab)?;
    if !is_vocabulary(&bytes) {
        return Err(trouble(vocab, "is no vocabulary: an object of tokens and their ids was expected"));
    }
    let entries = object(vocab, &bytes)?;
    let text = String::from_utf8(read(merges)?).map_err(|_| trouble(merges, "is not UTF-8 text"))?;
    let pairs = pairs(merges, &text)?;
    let config = optional(&vocab.with_file_name("tokenizer_config.json"))?;
    let [normalizer, pre_tokenizer] = splitting(&vocab.with_file_name("tokenizer_config.json"), &config)?;
    let added = added(vocab, &entries, &config)?;
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": entries, "merges": pairs},
    });
    Ok(tokenizer.to_string().into_bytes())
}

fn object(path: &Path, bytes: &[u8]) -> Result<Map<String, Json>, Diagnostic> {
    serde_json::from_slice(bytes).map_err(|e| trouble(path, format!("is no JSON: {e}")))
}

/// The object of a file; empty where there is none.
fn optional(path: &Path) -> Result<Map<String, Json>, Diagnostic> {
    if path.is_file() { object(path, &read(path)?) } else { Ok(Map::new()) }
}

/// The lines of a file of merges.
fn pairs<'t>(merges: &Path, text: &'t str) -> Result<Vec<[&'t str; 2]>, Diagnostic> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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

/// The normalizer and the pre-tokenizer of a class.
fn splitting(place: &Path, config: &Map<String, Json>) -> Result<[Json; 2], Diagnostic> {
    let class = config.get("tokenizer_class").and_then(Json::as_str);
    let prefix = config.get("add_prefix_space").and_then(Json::as_bool).unwrap_or(false);
    let level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    match class {
        Some(class) if LIKE_QWEN2.contains(&class) => {
            let split = json!({
                "type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false,
            });
            let both = json!({"type": "Sequence", "pretokenizers": [split, level(false)]});
            Ok([json!({"type": "NFC"}), both])
        }
        Some(class) if !LIKE_GPT2.contains(&class) => {
            let what =
                format!("names the class {class}: how it splits texts is not known from a vocabulary and merges");
            Err(trouble(place, what)
                .note("save tokenizer.json: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"))
        }
        Some(_) | None => Ok([Json::Null, level(true)]),
    }
}

/// Tokens beside the vocabulary, in the order of their ids.
fn added(vocab: &Path, entries: &Map<String, Json>, config: &Map<String, Json>) -> Result<Vec<Json>, Diagnostic> {
    let token = |content: &str, id: u64, like: &Json| {
        let is = |key: &str, otherwise: bool| like[key].as_bool().unwrap_or(otherwise);
        json!({
            "id": id, "content": content, "single_word": is("single_word", false), "lstrip": is("lstrip", false),
            "rstrip": is("rstrip", false), "normalized": is("normalized", false), "special": is("special", true),
        })
    };
    let mut tokens: Vec<(u64, String, Json)> = Vec::new();
    let decoder = config.get("added_tokens_decoder").and_then(Json::as_object);
    for (id, like) in decoder.into_iter().flatten() {
        if let (Ok(id), Some(content)) = (id.parse(), like["content"].as_str()) {
            tokens.push((id, content.to_string(), token(content, id, like)));
        }
    }
    let listed = optional(&vocab.with_file_name("added_tokens.json"))?;
    // GPT-2's tokenizer knows this one as special without being told.
    let usual = entries.get_key_value(END_OF_TEXT);
    for (content, id) in usual.into_iter().chain(&listed) {
        if let Some(id) = id.as_u64().filter(|_| !tokens.iter().any(|(_, known, _)| known == content)) {
            tokens.push((id, content.clone(), token(content, id, &Json::Null)));
        }
    }
    tokens.sort_by_key(|(id, ..)| *id);
    Ok(tokens.into_iter().map(|(.., token)| token).collect())
}
