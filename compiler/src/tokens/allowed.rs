//! What of a `tokenizer.json` is read: the pieces that language models use, within limits. It is checked on the JSON, before the
//! tokenizers crate sees it, so that no file of anybody's making costs unbounded time or memory.
//!
//! Settings that serve batches or training are dropped: truncation and padding would cut or fill whole texts, dropout and
//! sampling would draw. Post-processors are dropped too, once the token that they put before a text is known.

use super::pattern;
use serde_json::{Map, Value as Json, json};

/// Longest `tokenizer.json`, in bytes: the largest of language models have a third of it.
pub const FILE_BYTES: usize = 96 << 20;

/// Entries of a vocabulary, and merges.
const ENTRIES: usize = 1 << 21;

/// Tokens beside the vocabulary.
const ADDED: usize = 1 << 16;

/// Bytes of all of these.
const ADDED_ALL: usize = 2 << 20;

/// Bytes of an entry.
const ENTRY_BYTES: usize = 4096;

/// Bytes of an entry of a Unigram model, which looks for every beginning of every entry.
const UNIGRAM_BYTES: usize = 128;

/// Bytes of all entries of a Unigram model: its trie takes some hundred times as many.
const UNIGRAM_ALL: usize = 4 << 20;

/// Pieces of a sequence, those of sequences inside it included.
const PIECES: usize = 16;

/// Sequences inside sequences.
const DEPTH: usize = 4;

/// Bytes of a prefix, a suffix, or a text that is put before another.
const AFFIX: usize = 64;

/// By how much all replacements together may lengthen a text.
const GROWTH: usize = 16;

/// Longest word of WordPiece, whose time is its square.
const WORD: u64 = 256;

/// A tokenizer that may be built.
#[derive(Debug)]
pub struct AllowedTokenizer {
    /// Its model, as the tokenizers crate is to see it.
    pub model: Json,
    /// The normalizer, the pre-tokenizer and the decoder; null where there is none.
    pub pieces: [Json; 3],
    /// The list of tokens beside the vocabulary.
    pub added_tokens: Json,
    /// What the post-processor puts before every text; `None` where it says nothing of that.
    pub before: Option<Vec<String>>,
    /// Tokens beside the vocabulary, with their ids.
    pub added: Vec<(String, u64)>,
    /// Whether long texts may take more than their length: patterns search again, or the crate looks back for the spaces before
    /// a token.
    pub slow: bool,
    /// Whether a mark is put before every text, as if it began with a space.
    pub prepends: bool,
    /// Whether the text of some ids may change when others follow.
    pub rewrites: bool,
    /// Whether the first token of a text decodes otherwise than the same token later, as without the space before it.
    pub joins: bool,
}

/// Checks a `tokenizer.json`.
///
/// # Errors
/// What it has that is not read, by its place in the JSON.
pub fn allowed(bytes: &[u8]) -> Result<AllowedTokenizer, String> {
    if bytes.len() > FILE_BYTES {
        return Err(format!("is {} MB long, more than {} MB", bytes.len() >> 20, FILE_BYTES >> 20));
    }
    let json: Json = serde_json::from_slice(bytes).map_err(|e| format!("is not a tokenizer.json: {e}"))?;
    let Json::Object(mut all) = json else { return Err("is not a tokenizer.json: it is no object".into()) };
    let Some(model) = all.remove("model") else { return Err("is not a tokenizer.json: it has no `model`".into()) };
    let mut pieces = Pieces { growth: 1, ..Pieces::default() };
    let mut part = |name: &str, kind: PieceKind| -> Result<Json, String> {
        let part = all.remove(name).unwrap_or(Json::Null);
        pieces.count = 0;
        pieces.check(&part, name, kind, 0)?;
        Ok(part)
    };
    let normalizer = part("normalizer", PieceKind::Normalizer)?;
    let pre_tokenizer = part("pre_tokenizer", PieceKind::PreTokenizer)?;
    let decoder = part("decoder", PieceKind::Decoder)?;
    let added = all.remove("added_tokens").unwrap_or(Json::Null);
    let before = all.get("post_processor").and_then(|processor| before(processor, 0));
    let (tokens, looks_back) = added_tokens(&added)?;
    let slow = looks_back || pieces.patterns || !model.get("merges").is_some_and(Json::is_array);
    let added_tokens = if added.is_null() { json!([]) } else { added };
    let model = checked_model(model)?;
    let Pieces { prepends, rewrites, joins, .. } = pieces;
    let pieces = [normalizer, pre_tokenizer, decoder];
    Ok(AllowedTokenizer { model, pieces, added_tokens, before, added: tokens, slow, prepends, rewrites, joins })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PieceKind {
    Normalizer,
    PreTokenizer,
    Decoder,
}

/// What has been seen of normalizers, pre-tokenizers and decoders.
#[derive(Default)]
struct Pieces {
    count: usize,
    growth: usize,
    byte_level: bool,
    prepends: bool,
    rewrites: bool,
    joins: bool,
    patterns: bool,
    /// Of all patterns.
    size: u64,
}

impl Pieces {
    fn check(&mut self, piece: &Json, place: &str, kind: PieceKind, depth: usize) -> Result<(), String> {
        if piece.is_null() {
            return Ok(());
        }
        let Some(name) = piece["type"].as_str() else { return Err(format!("`{place}` has no `type`")) };
        let refused = |what: &str| Err(format!("`{place}`: {name} {what}"));
        if name == "Sequence" {
            let key = match kind {
                PieceKind::Normalizer => "normalizers",
                PieceKind::PreTokenizer => "pretokenizers",
                PieceKind::Decoder => "decoders",
            };
            let Some(parts) = piece[key].as_array() else { return refused(&format!("has no `{key}`")) };
            if depth >= DEPTH {
                return refused(&format!("is more than {DEPTH} deep"));
            }
            return parts
                .iter()
                .enumerate()
                .try_for_each(|(i, part)| self.check(part, &format!("{place}.{key}[{i}]"), kind, depth + 1));
        }
        self.count += 1;
        if self.count > PIECES {
            return refused(&format!("is piece {} of a sequence; {PIECES} are read", self.count));
        }
        let said = match kind {
            PieceKind::Normalizer => self.normalizer(name, piece),
            PieceKind::PreTokenizer => self.pre_tokenizer(name, piece),
            PieceKind::Decoder => self.decoder(name, piece),
        };
        said.or_else(|what| refused(&what))
    }

    fn normalizer(&mut self, name: &str, piece: &Json) -> Result<(), String> {
        match name {
            "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Strip" | "StripAccents" | "Nmt" | "BertNormalizer" => {
                Ok(())
            }
            "ByteLevel" => self.byte_level(),
            "Replace" => self.replace(piece),
            "Prepend" => {
                let text = piece["prepend"].as_str().unwrap_or_default();
                let before = std::mem::replace(&mut self.prepends, true);
                if before { Err("comes twice".into()) } else { affix(text, "prepend") }
            }
            _ => Err("is not read".into()),
        }
    }

    fn pre_tokenizer(&mut self, name: &str, piece: &Json) -> Result<(), String> {
        match name {
            "Digits" | "Whitespace" | "WhitespaceSplit" | "Punctuation" | "BertPreTokenizer" | "Metaspace" => Ok(()),
            "ByteLevel" => self.byte_level(),
            "Split" => match (&piece["pattern"]["String"], &piece["pattern"]["Regex"]) {
                (Json::String(text), Json::Null) => affix(text, "pattern"),
                (Json::Null, Json::String(regex)) => self.pattern(regex).map(drop),
                _ => Err("has no pattern".into()),
            },
            _ => Err("is not read".into()),
        }
    }

    fn decoder(&mut self, name: &str, piece: &Json) -> Result<(), String> {
        self.joins |= matches!(name, "Strip" | "Metaspace" | "WordPiece" | "BPEDecoder");
        match name {
            "ByteLevel" | "ByteFallback" | "Fuse" | "Metaspace" => Ok(()),
            "Replace" => self.replace(piece),
            "Strip" => match (piece["start"].as_u64(), piece["stop"].as_u64()) {
                (Some(0..=1024), Some(0)) => Ok(()),
                _ => Err("takes more than 1024 characters from the start, or any from the end".into()),
            },
            "WordPiece" => {
                self.rewrites = true;
                affix(piece["prefix"].as_str().unwrap_or_default(), "prefix")
            }
            "BPEDecoder" => affix(piece["suffix"].as_str().unwrap_or_default(), "suffix"),
            _ => Err("is not read".into()),
        }
    }

    /// Every one after the first spells bytes of bytes: texts double each time.
    fn byte_level(&mut self) -> Result<(), String> {
        if std::mem::replace(&mut self.byte_level, true) { Err("comes twice".into()) } else { Ok(()) }
    }

    /// Whether a pattern may match nothing.
    fn pattern(&mut self, regex: &str) -> Result<bool, String> {
        self.patterns = true;
        let shape = pattern::check(regex).map_err(|what| format!("has the pattern `{}`, and {what}", cut(regex)))?;
        self.size += shape.size;
        if self.size > 2 * pattern::SIZE {
            return Err("has a pattern that is too large beside the others".into());
        }
        Ok(shape.empty)
    }

    fn replace(&mut self, piece: &Json) -> Result<(), String> {
        let content = piece["content"].as_str().ok_or("has no content")?;
        let least = match (&piece["pattern"]["String"], &piece["pattern"]["Regex"]) {
            (Json::String(text), Json::Null) => affix(text, "pattern").map(|()| text.chars().count()),
            (Json::Null, Json::String(regex)) => match self.pattern(regex)? {
                true => Err(format!("has the pattern `{}`, which matches nothing", cut(regex))),
                false => Ok(1),
            },
            _ => Err("has no pattern".into()),
        }?;
        self.growth = self.growth.saturating_mul(content.chars().count().div_ceil(least).max(1));
        if self.growth > GROWTH {
            return Err(format!("lengthens texts more than {GROWTH} times, with those before it"));
        }
        Ok(())
    }
}

fn affix(text: &str, what: &str) -> Result<(), String> {
    match text.len() {
        0 => Err(format!("has an empty {what}")),
        1..=AFFIX => Ok(()),
        more => Err(format!("has a {what} of {more} bytes, more than {AFFIX}")),
    }
}

/// The tokens that a post-processor puts before a text; `None` where it does not say.
fn before(processor: &Json, depth: usize) -> Option<Vec<String>> {
    let text = |json: &Json| json.as_str().map(str::to_string);
    match processor["type"].as_str()? {
        "Sequence" if depth < DEPTH => {
            processor["processors"].as_array()?.iter().find_map(|part| before(part, depth + 1))
        }
        "BertProcessing" | "RobertaProcessing" => Some(vec![text(&processor["cls"][0])?]),
        "TemplateProcessing" => {
            let pieces = processor["single"].as_array()?.iter();
            let specials = pieces.map_while(|piece| piece["SpecialToken"]["id"].as_str());
            let tokens = specials.flat_map(|id| {
                let tokens = processor["special_tokens"][id]["tokens"].as_array();
                tokens.map_or_else(|| vec![id.to_string()], |tokens| tokens.iter().filter_map(text).collect())
            });
            let tokens: Vec<String> = tokens.take(16).collect();
            (!tokens.is_empty()).then_some(tokens)
        }
        _ => None,
    }
}

/// Tokens beside the vocabulary with their ids, and whether some have the spaces around them.
fn added_tokens(added: &Json) -> Result<(Vec<(String, u64)>, bool), String> {
    let Some(added) = added.as_array() else {
        return if added.is_null() { Ok((Vec::new(), false)) } else { Err("`added_tokens` is no list".into()) };
    };
    if added.len() > ADDED {
        return Err(format!("has {} added tokens, more than {ADDED}", added.len()));
    }
    let (mut looks_back, mut all) = (false, 0);
    let mut tokens = Vec::with_capacity(added.len());
    for (i, token) in added.iter().enumerate() {
        let (Some(content), Some(id)) = (token["content"].as_str(), token["id"].as_u64()) else {
            return Err(format!("`added_tokens[{i}]` has no content or no id"));
        };
        if content.is_empty() || content.len() > ENTRY_BYTES {
            return Err(format!("`added_tokens[{i}]` is {} bytes long; 1 to {ENTRY_BYTES} are read", content.len()));
        }
        all += content.len();
        if all > ADDED_ALL {
            return Err(format!("has more than {} MB of added tokens", ADDED_ALL >> 20));
        }
        looks_back |= token["lstrip"] == true || token["single_word"] == true;
        tokens.push((content.to_string(), id));
    }
    Ok((tokens, looks_back))
}

/// A model of known keys only.
fn checked_model(model: Json) -> Result<Json, String> {
    let Json::Object(mut model) = model else { return Err("`model` is no object".into()) };
    // Old files do not say which it is.
    let named = match (model.get("type"), model.get("vocab")) {
        (Some(Json::String(name)), _) => name.clone(),
        (None, Some(Json::Array(_))) => "Unigram".into(),
        (None, _) if model.contains_key("merges") => "BPE".into(),
        (None, _) if model.contains_key("max_input_chars_per_word") => "WordPiece".into(),
        _ => return Err("`model` has no `type`".into()),
    };
    let keys: &[&str] = match named.as_str() {
        "BPE" => {
            check_bpe(&mut model)?;
            &[
                "vocab",
                "merges",
                "unk_token",
                "continuing_subword_prefix",
                "end_of_word_suffix",
                "fuse_unk",
                "byte_fallback",
                "ignore_merges",
            ]
        }
        "Unigram" => {
            check_unigram(&model)?;
            &["vocab", "unk_id", "byte_fallback"]
        }
        "WordPiece" => {
            entries(&model)?;
            short(&model, "continuing_subword_prefix")?;
            if model.get("max_input_chars_per_word").and_then(Json::as_u64).is_some_and(|most| most > WORD) {
                return Err(format!("`model`: words of more than {WORD} characters are not read"));
            }
            &["vocab", "unk_token", "continuing_subword_prefix", "max_input_chars_per_word"]
        }
        "WordLevel" => {
            entries(&model)?;
            &["vocab", "unk_token"]
        }
        other => return Err(format!("`model`: {} is not read", cut(other))),
    };
    let mut kept: Map<String, Json> = model.into_iter().filter(|(key, _)| keys.contains(&key.as_str())).collect();
    kept.insert("type".into(), named.into());
    Ok(Json::Object(kept))
}

/// A name of the file's, for a message.
fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

fn short(model: &Map<String, Json>, key: &str) -> Result<String, String> {
    let text = model.get(key).and_then(Json::as_str).unwrap_or_default();
    if text.len() > AFFIX {
        return Err(format!("`model.{key}` is {} bytes long, more than {AFFIX}", text.len()));
    }
    Ok(text.into())
}

fn entries(model: &Map<String, Json>) -> Result<&Map<String, Json>, String> {
    let Some(vocab) = model.get("vocab").and_then(Json::as_object) else { return Err("`model` has no `vocab`".into()) };
    if vocab.len() > ENTRIES {
        return Err(format!("`model.vocab` has {} entries, more than {ENTRIES}", vocab.len()));
    }
    for (token, id) in vocab {
        if token.len() > ENTRY_BYTES {
            return Err(format!("`model.vocab` has an entry of {} bytes, more than {ENTRY_BYTES}", token.len()));
        }
        if id.as_u64().is_none_or(|id| id > u64::from(u32::MAX)) {
            return Err(format!("`model.vocab`: the id of `{}` is {id}", cut(token)));
        }
    }
    Ok(vocab)
}

/// Every merge joins two entries to a third: the crate takes it on trust.
fn check_bpe(model: &mut Map<String, Json>) -> Result<(), String> {
    let prefix = short(model, "continuing_subword_prefix")?;
    short(model, "end_of_word_suffix")?;
    let vocab = entries(model)?;
    let none = Vec::new();
    let merges = match model.get("merges") {
        Some(Json::Array(merges)) => merges,
        None | Some(Json::Null) => &none,
        Some(_) => return Err("`model.merges` is no list".into()),
    };
    if merges.len() > ENTRIES {
        return Err(format!("`model.merges` has {} entries, more than {ENTRIES}", merges.len()));
    }
    let mut joined = String::new();
    for (i, merge) in merges.iter().enumerate() {
        let pair = match merge {
            // A space is no part of a token in this older form.
            Json::String(text) if text.starts_with("#version") => continue,
            Json::String(text) => text.split_once(' ').filter(|(_, second)| !second.contains(' ')),
            Json::Array(pair) => match pair.as_slice() {
                [Json::String(first), Json::String(second)] => Some((first.as_str(), second.as_str())),
                _ => None,
            },
            _ => None,
        };
        let Some((first, second)) = pair else { return Err(format!("`model.merges[{i}]` is no pair of tokens")) };
        let Some(second_end) = second.strip_prefix(prefix.as_str()) else {
            return Err(format!(
                "`model.merges[{i}]`: `{}` does not begin with the continuing_subword_prefix `{prefix}`",
                cut(second)
            ));
        };
        joined.clear();
        joined.extend([first, second_end]);
        if let Some(lacking) = [first, second, &joined].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(format!("`model.merges[{i}]`: `{}` is not in the vocabulary", cut(lacking)));
        }
    }
    Ok(())
}

fn check_unigram(model: &Map<String, Json>) -> Result<(), String> {
    let Some(vocab) = model.get("vocab").and_then(Json::as_array) else { return Err("`model` has no `vocab`".into()) };
    if vocab.len() > ENTRIES {
        return Err(format!("`model.vocab` has {} entries, more than {ENTRIES}", vocab.len()));
    }
    let mut all = 0;
    for (i, entry) in vocab.iter().enumerate() {
        let token = match entry.as_array().map(Vec::as_slice) {
            Some([Json::String(token), score]) if score.is_number() => token,
            _ => return Err(format!("`model.vocab[{i}]` is no token and score")),
        };
        if token.is_empty() || token.len() > UNIGRAM_BYTES {
            return Err(format!("`model.vocab[{i}]` is {} bytes long; 1 to {UNIGRAM_BYTES} are read", token.len()));
        }
        all += token.len();
    }
    if all > UNIGRAM_ALL {
        return Err(format!("the entries of `model.vocab` have {all} bytes, more than {UNIGRAM_ALL}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Json)) -> Result<AllowedTokenizer, String> {
        let mut json = json!({
            "version": "1.0", "truncation": {"max_length": 3}, "padding": {"strategy": {"Fixed": 9}}, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": {"type": "ByteLevel"}, "post_processor": null, "decoder": null,
            "model": {"type": "BPE", "dropout": 0.5, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
        });
        change(&mut json);
        allowed(json.to_string().as_bytes())
    }

    #[test]
    fn settings_of_batches_and_training_are_dropped() {
        let AllowedTokenizer { model, pieces, .. } = with(|_| ()).expect("a BPE");
        assert_eq!(model.get("dropout"), None);
        assert_eq!(pieces.map(|piece| piece["type"].clone()), [Json::Null, "ByteLevel".into(), Json::Null]);
    }

    #[test]
    fn refusals_name_the_piece() {
        let refused = |change: fn(&mut Json), what: &str| {
            let said = with(change).expect_err(what);
            assert!(said.contains(what), "{said} / {what}");
        };
        refused(|json| json["normalizer"] = json!({"type": "Precompiled"}), "`normalizer`: Precompiled is not read");
        refused(
            |json| json["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"}),
            "Replace has an empty pattern",
        );
        refused(
            |json| json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength"}]}),
            "`pre_tokenizer.pretokenizers[0]`: FixedLength is not read",
        );
        refused(|json| json["model"]["type"] = json!("Other"), "`model`: Other is not read");
        refused(
            |json| json["model"]["continuing_subword_prefix"] = json!("##"),
            "begin with the continuing_subword_prefix `##`",
        );
        refused(|json| json["model"]["merges"] = json!([["b", "a"]]), "`ba` is not in the vocabulary");
        refused(
            |json| json["decoder"] = json!({"type": "Strip", "content": " ", "start": 0, "stop": 9}),
            "from the end",
        );
        let level = json!({"type": "ByteLevel"});
        let many = json!({"type": "Sequence", "pretokenizers": vec![level; 40]});
        let said = with(|json| json["pre_tokenizer"] = many).expect_err("40 of them");
        assert!(said.contains("ByteLevel comes twice"), "{said}");
        let replace = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let many = json!({"type": "Sequence", "normalizers": vec![replace; 30]});
        let said = with(|json| json["normalizer"] = many).expect_err("30 of them");
        assert!(said.contains("lengthens texts"), "{said}");
    }

    #[test]
    fn what_comes_before_a_text_is_read() {
        let template = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        });
        let sequence = json!({"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]});
        let before = with(|json| json["post_processor"] = sequence).expect("a BPE").before;
        assert_eq!(before, Some(vec!["<s>".to_string()]));
        assert_eq!(with(|json| json["post_processor"] = json!({"type": "ByteLevel"})).expect("a BPE").before, None);
    }
}
