//! Tokenizers of anybody's making: text to ids and back ends, without a panic, in bounded time and memory.
//!
//! Mutants keep the structure of a `tokenizer.json`: pieces are exchanged, repeated, nested and given extreme numbers and texts,
//! so that most of them get to the tokenizers crate.

use crate::bytes;
use crate::chance::{NUMBERS, Verdict, below, corpus_files, pick};
use serde_json::{Value as Json, json};
use snnc::tokens::Tokens;
use snnc_ir::random::SplitMix64;
use std::time::{Duration, Instant};

/// Longest time for a tokenizer and its texts: they are small.
const LONGEST: Duration = Duration::from_secs(2);

/// Ids per byte of text, at most: a character is three bytes, a byte falls back to a token, replacements lengthen.
const IDS_PER_BYTE: usize = 64;

/// Small tokenizers of every kind that is read, the model's, and the corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let small = [byte_level(), byte_fallback(), unigram(), word_piece()];
    let mut seeds: Vec<Vec<u8>> = small.iter().map(|json| json.to_string().into_bytes()).collect();
    seeds.extend(corpus_files("tokenizer"));
    let demo = snnc_tests::demo_model().with_file_name("tokenizer.json");
    seeds.extend(std::fs::read(demo).ok());
    seeds
}

fn added(id: usize, content: &str) -> Json {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": true})
}

fn vocabulary(tokens: impl Iterator<Item = String>) -> Json {
    tokens.enumerate().map(|(id, token)| (token, json!(id))).collect::<serde_json::Map<String, Json>>().into()
}

/// As GPT-2's, of the bytes that are characters themselves and the space.
fn byte_level() -> Json {
    let letters = (33u8..127).map(|b| char::from(b).to_string());
    let more = ["Ġ", "Ċ", "er", "Ġt", "he", "Ġthe"].map(String::from);
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(0, "<|endoftext|>")],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": false},
            {"type": "Digits", "individual_digits": true}, level]},
        "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocabulary(["<|endoftext|>".to_string()].into_iter().chain(letters).chain(more)),
                  "merges": [["e", "r"], ["Ġ", "t"], ["h", "e"], ["Ġt", "he"]]},
    })
}

/// As Llama's.
fn byte_fallback() -> Json {
    let tokens = ["<unk>", "<s>", "</s>"].map(String::from).into_iter();
    let tokens = tokens.chain((0..256).map(|byte| format!("<0x{byte:02X}>")));
    let tokens = tokens.chain(["▁", "t", "h", "e", "th", "▁th"].map(String::from));
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
                  "vocab": vocabulary(tokens), "merges": ["t h", "▁ th"]},
    })
}

fn unigram() -> Json {
    let space = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
    json!({
        "version": "1.0", "added_tokens": [added(0, "<unk>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}, {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, {"type": "Strip", "strip_left": true, "strip_right": true}]},
        "pre_tokenizer": space, "decoder": space,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false,
                  "vocab": [["<unk>", 0.0], ["▁the", -1.5], ["▁", -2.0], ["r", -3.0], ["e", -3.5], ["river", -1.0]]},
    })
}

fn word_piece() -> Json {
    json!({
        "version": "1.0", "added_tokens": [added(0, "[UNK]")], "pre_tokenizer": {"type": "BertPreTokenizer"},
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                       "lowercase": true},
        "post_processor": {"type": "BertProcessing", "sep": ["[UNK]", 0], "cls": ["[UNK]", 0]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "the": 1, "riv": 2, "##er": 3, "runs": 4, ".": 5}},
    })
}

/// Pieces of any kind, some of which are refused.
fn pieces() -> Vec<Json> {
    vec![
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false}),
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false}),
        json!({"type": "Digits", "individual_digits": false}),
        json!({"type": "Whitespace"}),
        json!({"type": "WhitespaceSplit"}),
        json!({"type": "Punctuation", "behavior": "MergedWithNext"}),
        json!({"type": "BertPreTokenizer"}),
        json!({"type": "FixedLength", "length": 0}),
        json!({"type": "UnicodeScripts"}),
        json!({"type": "CharDelimiterSplit", "delimiter": "é"}),
        json!({"type": "Split", "pattern": {"String": "e"}, "behavior": "Removed", "invert": true}),
        json!({"type": "Split", "pattern": {"Regex": "(?=(\\d{3})+(?!\\d))"}, "behavior": "Isolated", "invert": false}),
        json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Contiguous", "invert": false}),
        json!({"type": "Split", "pattern": {"Regex": "\\s*"}, "behavior": "MergedWithPrevious", "invert": false}),
        json!({"type": "NFD"}),
        json!({"type": "NFKD"}),
        json!({"type": "Lowercase"}),
        json!({"type": "StripAccents"}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        json!({"type": "Strip", "content": "e", "start": 2, "stop": 1}),
        json!({"type": "Nmt"}),
        json!({"type": "Precompiled", "precompiled_charsmap": "ALQCAACEAAAAAACA"}),
        json!({"type": "Prepend", "prepend": "é"}),
        json!({"type": "Replace", "pattern": {"String": ""}, "content": "xx"}),
        json!({"type": "Replace", "pattern": {"String": "e"}, "content": ""}),
        json!({"type": "Replace", "pattern": {"Regex": "r*"}, "content": "rr"}),
        json!({"type": "BPEDecoder", "suffix": "er"}),
        json!({"type": "WordPiece", "prefix": "", "cleanup": true}),
        json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
        json!({"type": "Fuse"}),
        json!({"type": "ByteFallback"}),
        json!({"type": "RobertaProcessing", "sep": ["e", 1], "cls": ["e", 1], "trim_offsets": true, "add_prefix_space": true}),
        json!(null),
    ]
}

const TEXTS: [&str; 12] = ["", " ", "e", "é", "\u{0}", "▁", "##", "</w>", "\u{feff}", "𝄞", "(", "<s>"];

/// A tokenizer with some changes.
pub fn mutant(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let seed = pick(random, seeds);
    let Ok(mut json) = serde_json::from_slice::<Json>(seed) else {
        let mut mutant = seed.clone();
        bytes::change(&mut mutant, random);
        return mutant;
    };
    for _ in 0..=below(random, 3) {
        change(&mut json, random);
    }
    let mut mutant = json.to_string().into_bytes();
    if below(random, 16) == 0 {
        bytes::change(&mut mutant, random);
    }
    mutant
}

fn change(json: &mut Json, random: &mut SplitMix64) {
    let part = *pick(random, &["normalizer", "pre_tokenizer", "decoder", "post_processor"]);
    let (key, kind) = match part {
        "normalizer" => ("normalizers", "Sequence"),
        "pre_tokenizer" => ("pretokenizers", "Sequence"),
        "post_processor" => ("processors", "Sequence"),
        _ => ("decoders", "Sequence"),
    };
    match below(random, 10) {
        // A piece in the place of all.
        0 => json[part] = pick(random, &pieces()).clone(),
        // A piece before or after the others.
        1 | 2 => {
            let mut all = vec![json[part].take(), pick(random, &pieces()).clone()];
            all.retain(|piece| !piece.is_null());
            if below(random, 2) == 0 {
                all.reverse();
            }
            json[part] = json!({"type": kind, key: all});
        }
        // The same piece many times.
        3 => {
            let piece = if below(random, 2) == 0 { json[part].take() } else { pick(random, &pieces()).clone() };
            json[part] = json!({"type": kind, key: vec![piece; 1 + below(random, 60)]});
        }
        // Sequences in sequences.
        4 => {
            for _ in 0..=below(random, 100) {
                json[part] = json!({"type": kind, key: [json[part].take()]});
            }
        }
        // Tokens beside the vocabulary.
        5 => {
            let content = format!("{}{}", pick(random, &TEXTS), pick(random, &TEXTS));
            let mut token = added(below(random, 400), &content);
            for flag in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
                token[flag] = json!(below(random, 2) == 0);
            }
            let mut all = json["added_tokens"].as_array().cloned().unwrap_or_default();
            all.push(token);
            json["added_tokens"] = all.into();
        }
        // A text, number or list somewhere.
        _ => leaf(json, random),
    }
}

/// Changes something deep inside.
fn leaf(json: &mut Json, random: &mut SplitMix64) {
    match json {
        Json::Object(all) if !all.is_empty() => {
            let at = below(random, all.len());
            let key = all.keys().nth(at).cloned().unwrap_or_default();
            if below(random, 12) == 0 {
                all.remove(&key);
            } else if let Some(inner) = all.get_mut(&key) {
                leaf(inner, random);
            }
        }
        Json::Array(all) if !all.is_empty() => match below(random, 8) {
            0 => drop(all.remove(below(random, all.len()))),
            1 => all.push(pick(random, all).clone()),
            2 => {
                let (a, b) = (below(random, all.len()), below(random, all.len()));
                all.swap(a, b);
            }
            _ => {
                let at = below(random, all.len());
                leaf(&mut all[at], random);
            }
        },
        other => {
            *other = match below(random, 8) {
                0 => json!(null),
                1 => json!(below(random, 2) == 0),
                2 => json!(pick(random, &TEXTS).repeat(1 + below(random, 5000))),
                3 | 4 => json!(*pick(random, &TEXTS)),
                5 => json!(-(*pick(random, &NUMBERS) as f64)),
                _ => json!(*pick(random, &NUMBERS)),
            }
        }
    }
}

/// Reads a tokenizer, and some texts with it.
///
/// # Errors
/// It takes too long, or makes too many ids of a text.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let start = Instant::now();
    let verdict = tried(bytes)?;
    match start.elapsed() {
        taken if taken > LONGEST => Err(format!("it took {taken:?}")),
        _ => Ok(verdict),
    }
}

fn tried(bytes: &[u8]) -> Result<Verdict, String> {
    let Ok(tokens) = Tokens::new(bytes, "fuzz") else { return Ok(Verdict::Refused) };
    let spaces = " ".repeat(3000);
    let word = "er".repeat(1500);
    let digits = "123".repeat(1000);
    let texts = [
        "",
        "The river runs, they're 1234.",
        "\u{feff}\u{0}é漢 \n\n  x",
        "<s>the</s> <|endoftext|>e",
        &spaces,
        &word,
        &digits,
    ];
    for text in texts {
        let Ok(ids) = tokens.document(text) else { return Ok(Verdict::Refused) };
        if ids.len() > IDS_PER_BYTE * text.len() + 64 {
            return Err(format!("{} ids of {} bytes", ids.len(), text.len()));
        }
        if tokens.encode(text).ok().is_some_and(|own| ids.len() != own.len() + tokens.start().len()) {
            return Err("the same text has other ids".into());
        }
        for end in 0..ids.len().min(12) {
            if tokens.decode(&ids[..end]).and_then(|_| tokens.continuation(&ids[..end])).is_err() {
                return Ok(Verdict::Refused);
            }
        }
        if tokens.decode(&ids).is_err() {
            return Ok(Verdict::Refused);
        }
    }
    Ok(Verdict::Accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds are read, and many mutants get past the allow-list.
    #[test]
    fn mutants_reach_the_crate() {
        let seeds = seeds();
        assert!(seeds.iter().all(|seed| check(seed) == Ok(Verdict::Accepted)));
        let mut random = SplitMix64(1);
        let verdicts = (0..300).map(|_| check(&mutant(&seeds[..4], &mut random)));
        let accepted = verdicts.filter(|verdict| *verdict == Ok(Verdict::Accepted)).count();
        assert!(accepted > 30, "{accepted} of 300");
    }
}
