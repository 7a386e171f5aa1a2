//! Tokenizers and texts of anybody's making: what is obeyed, what is dropped, what is refused, and long texts in little memory.

#![allow(clippy::unwrap_used)]

use serde_json::{Value as Json, json};
use snnc::tokens::Tokens;
use snnc::tokens::find::{self, TokenizerFile};
use snnc::tokens::start::StartChoice;
use snnc_examples::gpt2::{self, Activation, Gpt2Config, HeadExport};
use snnc_tests::{call, demo_model, printed, shared, snnc};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Characters that stand for the 256 bytes in byte-level tokens.
fn byte_characters() -> Vec<String> {
    let plain = |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut other = 256..;
    let mut one = |b: u32| {
        let c = if plain(b) { b } else { other.next().unwrap() };
        char::from_u32(c).unwrap().to_string()
    };
    (0..256).map(&mut one).collect()
}

const MERGES: [[&str; 2]; 8] =
    [["e", "r"], ["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["Ġ", "r"], ["i", "v"], ["Ġr", "iv"], ["Ġriv", "er"]];

/// A byte-level BPE as GPT-2's, whose first ids are `specials`.
fn byte_level(specials: &[&str]) -> Json {
    let tokens = specials.iter().map(|special| special.to_string()).chain(byte_characters());
    let tokens = tokens.chain(MERGES.iter().map(|pair| pair.concat()));
    let vocab: serde_json::Map<String, Json> = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let added: Vec<Json> = specials.iter().enumerate().map(|(id, special)| added_token(id, special)).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": MERGES},
    })
}

fn added_token(id: usize, content: &str) -> Json {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": true})
}

/// As Llama's: a mark before every text, spaces as marks, bytes where nothing else fits.
fn byte_fallback() -> Json {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = "▁|t|h|e|r|i|v|s|a|b|th|▁th|▁the|iv|riv|▁r|er|river|▁river";
    let tokens = ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes);
    let tokens = tokens.chain(pieces.split('|').map(String::from)).chain(["▁riv".to_string()]);
    let vocab: serde_json::Map<String, Json> = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
    let merges =
        [["t", "h"], ["▁", "th"], ["▁th", "e"], ["i", "v"], ["e", "r"], ["▁", "r"], ["▁r", "iv"], ["▁riv", "er"]];
    let special = |id: usize, content: &str| added_token(id, content);
    json!({
        "version": "1.0", "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                  "merges": merges},
    })
}

fn tokens(json: &Json) -> Tokens {
    Tokens::new(json.to_string().as_bytes(), "tokenizer.json").unwrap()
}

/// A folder with a network of 300 rows.
fn folder() -> tempfile::TempDir {
    let config = Gpt2Config {
        layers: 1,
        width: 16,
        heads: 2,
        vocabulary: 300,
        context: 32,
        activation: Activation::GeluTanh,
        opset: 17,
        head: HeadExport::Untied,
        inverse_layer_scale: false,
        outliers: 0,
        seed: 5,
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), gpt2::bytes(&config).unwrap()).unwrap();
    fs::write(folder.path().join("text.txt"), "the river runs, the river rises.\nthe river\n".repeat(40)).unwrap();
    folder
}

fn write(folder: &Path, name: &str, json: &Json) {
    fs::write(folder.join(name), json.to_string()).unwrap();
}

/// What a call that fails says.
fn refusal(folder: &Path, args: &[&str]) -> String {
    let output = call(folder, args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    said
}

const EVAL: [&str; 4] = ["eval", "model.onnx", "--text", "text.txt"];

/// Truncation and padding change no text, from a file or from a program.
#[test]
fn settings_of_batches_are_not_obeyed() {
    let folder = folder();
    let at = folder.path();
    let mut json = byte_level(&["<|endoftext|>"]);
    write(at, "tokenizer.json", &json);
    let plain = printed(at, &EVAL);
    json["truncation"] = json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 9});
    json["padding"] = json!({"strategy": {"Fixed": 4096}, "direction": "Left", "pad_to_multiple_of": u64::MAX / 2 + 1,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    json["model"]["dropout"] = json!(0.5);
    write(at, "tokenizer.json", &json);
    assert_eq!(printed(at, &EVAL), plain);
    printed(at, &["compile", "model.onnx", "-o", "a.snn", "--calibration-tokens", "64"]);
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    printed(at, &["compile", "model.onnx", "-o", "b.snn", "--calibration-tokens", "64"]);
    let eval = |program| printed(at, &["eval", program, "--text", "text.txt"]);
    assert_eq!(eval("a.snn"), eval("b.snn"));
}

/// What stands before a text, by `--start` and by the files beside the tokenizer.
#[test]
fn the_start_token_is_what_the_files_say() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = at.join("model.onnx");
    let start = |choice: &str| {
        let file = find::find(&model, None).unwrap().unwrap();
        Tokens::of(&file, &choice.parse::<StartChoice>().unwrap()).map(|tokens| tokens.start().to_vec())
    };
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    assert_eq!(start("auto").unwrap(), [0]);
    assert_eq!(start("none").unwrap(), [0; 0]);
    assert_eq!(start("<|endoftext|>").unwrap(), [0]);
    assert_eq!(start("Ġriver").unwrap(), [264]);
    assert_eq!(start("264").unwrap(), [264]);
    for unknown in ["<s>", "4096", "-1", "1e3", "18446744073709551615"] {
        assert!(start(unknown).unwrap_err().message.contains("has no token"), "{unknown}");
    }
    // Ids of a configuration, then names, then what is said outright.
    write(at, "config.json", &json!({"bos_token_id": 5, "eos_token_id": [6, 7]}));
    assert_eq!(start("auto").unwrap(), [5]);
    write(at, "generation_config.json", &json!({"bos_token_id": 4}));
    assert_eq!(start("auto").unwrap(), [4]);
    write(at, "tokenizer.json", &byte_level(&["<s>", "</s>", "<pad>"]));
    write(at, "special_tokens_map.json", &json!({"bos_token": {"content": "</s>"}, "eos_token": "<s>"}));
    assert_eq!(start("auto").unwrap(), [1]);
    write(at, "tokenizer_config.json", &json!({"bos_token": "<s>"}));
    assert_eq!(start("auto").unwrap(), [0]);
    write(at, "tokenizer_config.json", &json!({"bos_token": "<s>", "add_bos_token": false}));
    assert_eq!(start("auto").unwrap(), [0; 0]);
    write(at, "tokenizer_config.json", &json!({"bos_token": "<pad>", "add_bos_token": true}));
    assert_eq!(start("auto").unwrap(), [2]);
    fs::write(at.join("tokenizer_config.json"), "{").unwrap();
    assert!(find::find(&model, None).unwrap_err().message.contains("is no JSON"));
    for name in ["tokenizer_config.json", "special_tokens_map.json", "config.json", "generation_config.json"] {
        fs::remove_file(at.join(name)).unwrap();
    }
    assert_eq!(start("auto").unwrap(), [0; 0]);
    write(at, "tokenizer.json", &byte_fallback());
    assert_eq!(start("auto").unwrap(), [1]);
}

/// A program does without the folder what it did with it, and `--start` is the same from both.
#[test]
fn programs_remember_their_start_token() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<s>", "</s>", "<pad>"]));
    write(at, "special_tokens_map.json", &json!({"bos_token": "</s>"}));
    let count = |program: &str, more: &[&str]| -> u64 {
        let said = printed(at, &[&["eval", program, "--text", "text.txt", "--windows", "1", "--json"], more].concat());
        serde_json::from_str::<Json>(&said).unwrap()["tokens"].as_u64().unwrap()
    };
    fs::write(at.join("text.txt"), "the river").unwrap();
    let text = 2 + 1;
    assert_eq!(count("model.onnx", &[]), text);
    assert_eq!(count("model.onnx", &["--start", "none"]), text - 1);
    let compile = |output, more: &[&str]| {
        printed(at, &[&["compile", "model.onnx", "-o", output, "--calibration-tokens", "64"], more].concat())
    };
    compile("auto.snn", &[]);
    compile("none.snn", &["--start", "none"]);
    fs::remove_file(at.join("tokenizer.json")).unwrap();
    fs::remove_file(at.join("special_tokens_map.json")).unwrap();
    assert_eq!([count("auto.snn", &[]), count("none.snn", &[])], [text, text - 1]);
    assert_eq!([count("auto.snn", &["--start", "none"]), count("none.snn", &["--start", "0"])], [text - 1, text]);
    assert!(refusal(at, &["run", "none.snn", "-p", ""]).contains("has no tokens"));
    assert!(refusal(at, &["run", "auto.snn", "-p", "x", "--start", "zzz"]).contains("has no token `zzz`"));
}

/// Greedy continuations with nothing before the prompt are those of onnxruntime.
#[test]
fn nothing_stands_before_a_prompt_if_nothing_is_to() {
    let Some(folder) = shared("bugs/start-token-forced") else { return };
    let expected = fs::read_to_string(folder.join("ref_new_ids.txt")).unwrap();
    let ids: Vec<u32> = expected.lines().next().unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect();
    let file = find::find(&folder.join("model.onnx"), None).unwrap().unwrap();
    let tokens = Tokens::of(&file, &StartChoice::None).unwrap();
    let prompt = tokens.document("The river").unwrap();
    assert_eq!(ids[..prompt.len()], prompt, "the reference begins with the prompt");
    let new = (ids.len() - prompt.len()).to_string();
    let run = ["run", "model.onnx", "-p", "The river", "--start", "none", "-n", &new];
    assert_eq!(printed(&folder, &run), format!("{}\n", tokens.decode(&ids).unwrap()));
}

/// GPT-2's two files are its tokenizer: by their folder, by either name, and in a program.
#[test]
fn vocabulary_and_merges_are_a_tokenizer() {
    let folder = folder();
    let at = folder.path();
    let json = byte_level(&["<|endoftext|>"]);
    write(at, "tokenizer.json", &json);
    let expected = printed(at, &EVAL);
    fs::remove_file(at.join("tokenizer.json")).unwrap();
    write(at, "vocab.json", &json["model"]["vocab"]);
    let compile = ["compile", "model.onnx", "-o", "a.snn", "--calibration-tokens", "64", "--tokenizer"];
    let said = refusal(at, &[&compile[..], &["vocab.json"]].concat());
    assert!(said.contains("vocabulary without merges"), "{said}");
    let lines: Vec<String> = MERGES.iter().map(|pair| pair.join(" ")).collect();
    fs::write(at.join("merges.txt"), format!("#version: 0.2\n{}\n", lines.join("\n"))).unwrap();
    assert_eq!(printed(at, &EVAL), expected);
    let file = find::find(&at.join("model.onnx"), None).unwrap().unwrap();
    let found = Tokens::of(&file, &StartChoice::Auto).unwrap();
    for text in ["the river runs", "The  river\n\n<|endoftext|> é漢", ""] {
        assert_eq!(found.encode(text).unwrap(), tokens(&json).encode(text).unwrap());
    }
    printed(at, &["compile", "model.onnx", "-o", "own.snn", "--calibration-tokens", "64"]);
    for named in ["vocab.json", "merges.txt", "."] {
        printed(at, &[&compile[..], &[named]].concat());
        assert!(fs::read(at.join("a.snn")).unwrap() == fs::read(at.join("own.snn")).unwrap(), "{named}");
    }
    fs::write(at.join("merges.txt"), "#version: 0.2\na b c\n").unwrap();
    assert!(refusal(at, &EVAL).contains("merges.txt:2: is no merge"));
    fs::write(at.join("merges.txt"), "a b\n").unwrap();
    assert!(refusal(at, &EVAL).contains("`ab` is not in the vocabulary"));
}

/// Tokens that the network has no row for are warned of; a text that has one is refused.
#[test]
fn tokens_beyond_the_rows_are_refused_in_texts() {
    let folder = folder();
    let at = folder.path();
    let mut json = byte_level(&["<|endoftext|>"]);
    let vocab = json["model"]["vocab"].as_object().unwrap().len();
    let more: Vec<Json> = (vocab..320).map(|id| added_token(id, &format!("<extra{id}>"))).collect();
    json["added_tokens"].as_array_mut().unwrap().extend(more);
    write(at, "tokenizer.json", &json);
    let output = call(at, &["compile", "model.onnx", "-o", "a.snn", "--calibration-tokens", "64"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("warning: tokenizer.json: has 320 entries"), "{said}");
    for program in ["model.onnx", "a.snn"] {
        printed(at, &["run", program, "-p", "the river<extra299>", "-n", "2"]);
        let said = refusal(at, &["run", program, "-p", "the river<extra300>"]);
        assert!(said.contains("the token `<extra300>`, id 300"), "{said}");
        let said = refusal(at, &["run", program, "-p", "x", "--start", "<extra301>"]);
        assert!(said.contains("the token `<extra301>`, id 301"), "{said}");
    }
    // Ids that do not follow: the crate would give others.
    json["added_tokens"][1]["id"] = json!(900);
    write(at, "tokenizer.json", &json);
    let said = refusal(at, &EVAL);
    assert!(said.contains("gives the added token"), "{said}");
}

/// Pieces that would panic, or never end, are refused by name; from a file and from a program.
#[test]
fn hostile_pieces_are_refused_by_name() {
    let base = byte_level(&["<|endoftext|>"]);
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let replace = |pattern: Json, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let cases: Vec<(&str, Json, &str)> = vec![
        ("/model/continuing_subword_prefix", json!("longer than a token"), "continuing_subword_prefix"),
        ("/model/continuing_subword_prefix", json!("#".repeat(10_000)), "continuing_subword_prefix"),
        ("/normalizer", replace(json!({"String": ""}), "x"), "Replace has an empty pattern"),
        ("/normalizer", replace(json!({"Regex": "a*"}), "x"), "matches nothing"),
        ("/normalizer", replace(json!({"String": "a"}), &"b".repeat(1000)), "lengthens texts"),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": vec![replace(json!({"String": "a"}), "aa"); 30]}),
            "Replace",
        ),
        ("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "Precompiled"),
        ("/normalizer", json!({"type": "Prepend", "prepend": "a".repeat(100_000)}), "Prepend"),
        ("/pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "FixedLength"),
        ("/pre_tokenizer", json!({"type": "Sequence", "pretokenizers": vec![level; 40]}), "ByteLevel"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "Digits", "individual_digits": true}); 400]}),
            "Digits",
        ),
        ("/pre_tokenizer", split("(a+)+$"), "Split"),
        ("/pre_tokenizer", split(r"(?:\w|\d)*x"), "Split"),
        ("/pre_tokenizer", split(r"(\w+)\1"), "Split"),
        ("/decoder", json!({"type": "Strip", "content": "a", "start": 0, "stop": 5}), "Strip"),
        ("/decoder", json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}), "CTC"),
        ("/decoder", replace(json!({"String": ""}), "x"), "Replace"),
        ("/model/merges", json!([["zzz", "e"]]), "`zzz` is not in the vocabulary"),
        ("/model/vocab", json!({"a": -1}), "the id of `a` is -1"),
        ("/model/type", json!("Quantum"), "Quantum"),
        ("/added_tokens", json!([{"id": 1, "content": ""}]), "added_tokens[0]"),
    ];
    let mut nested = json!({"type": "NFC"});
    for _ in 0..30 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    let deep = ("/normalizer", nested, "deep");
    for (place, value, words) in cases.into_iter().chain([deep]) {
        let mut json = base.clone();
        *json.pointer_mut(place).unwrap() = value;
        let start = Instant::now();
        let error = Tokens::new(json.to_string().as_bytes(), "tokenizer.json").expect_err(words);
        assert!(error.message.contains(words), "{place}: {} should say `{words}`", error.message);
        assert!(start.elapsed() < Duration::from_secs(2), "{words}");
    }
}

/// What the crate does not survive is an error without a word of a panic.
#[test]
fn panics_of_the_crate_are_errors() {
    let folder = folder();
    let at = folder.path();
    let mut json = byte_level(&["<|endoftext|>"]);
    json["model"]["continuing_subword_prefix"] = json!("##");
    write(at, "tokenizer.json", &json);
    let said = refusal(at, &["compile", "model.onnx", "-o", "a.snn"]);
    assert!(said.contains("begin with the continuing_subword_prefix `##`"), "{said}");
}

/// Llama's pieces: the same ids and texts as its own program, the mark stays out of the middle of long texts.
#[test]
fn a_tokenizer_with_byte_fallback() {
    let own = tokens(&byte_fallback());
    let text = "the river thé r";
    let ids = own.document(text).unwrap();
    assert_eq!(ids[0], 1);
    assert_eq!(own.decode(&ids[1..]).unwrap(), text);
    let river = own.encode("a river").unwrap();
    assert_eq!(
        own.continuation(&river[river.len() - 1..]).unwrap(),
        " river",
        "a space comes before a word that continues"
    );
    let long = "the river ".repeat(300_000);
    assert!(own.document(&long).unwrap()[1..] == own.encode(&long).unwrap(), "a long text in passages");
    let Some(folder) = shared("models/stories260k") else { return };
    let file = find::find(&folder.join("model.onnx"), None).unwrap().unwrap();
    let stories = Tokens::of(&file, &StartChoice::Auto).unwrap();
    assert_eq!(stories.start(), [1]);
    let expected: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(folder.join("sample_ids.json")).unwrap()).unwrap();
    let sample = fs::read_to_string(folder.join("sample.txt")).unwrap();
    let found = stories.document(&sample).unwrap();
    assert_eq!(found[..expected[0].len()], expected[0]);
}

/// A Unigram model, and WordPiece, whose decoder changes text that was decoded before.
#[test]
fn other_models_of_words() {
    let unigram = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "alpha": 0.5, "nbest_size": 9, "byte_fallback": false,
                  "vocab": [["<unk>", 0.0], ["▁the", -1.0], ["▁river", -2.0], ["▁", -3.0], ["r", -4.0], ["s", -4.0]]},
    });
    let own = tokens(&unigram);
    let ids = own.encode("the river s").unwrap();
    assert_eq!(ids, [1, 2, 3, 5]);
    assert!((0..20).all(|_| own.encode("the river s").unwrap() == ids), "nothing is drawn");
    assert_eq!(own.decode(&ids).unwrap(), "the river s");
    let pieces = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "BertPreTokenizer"},
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                       "lowercase": true},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[UNK]": 0, "the": 1, "riv": 2, "##er": 3, "'": 4, "s": 5, ".": 6}},
    });
    let own = tokens(&pieces);
    let ids = own.encode("The river's.").unwrap();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    assert!(own.rewrites());
}

/// A text of one long line is tokenised as the whole is.
#[test]
fn passages_have_the_ids_of_the_whole() {
    let json = fs::read(demo_model().with_file_name("tokenizer.json")).unwrap();
    let own = Tokens::new(&json, "tokenizer.json").unwrap();
    let text = include_str!("../compiler/src/calibration.txt").repeat(40);
    assert!(text.len() > 1 << 21);
    for text in [text.replace('\n', " "), text] {
        let whole: Vec<u32> = own.start().iter().copied().chain(own.encode(&text).unwrap()).collect();
        assert!(own.document(&text).unwrap() == whole);
    }
}

/// A byte order mark is no part of a text.
#[test]
fn a_byte_order_mark_is_no_text() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    let text = fs::read(at.join("text.txt")).unwrap();
    let plain = printed(at, &EVAL);
    fs::write(at.join("text.txt"), [b"\xef\xbb\xbf", &text[..]].concat()).unwrap();
    assert_eq!(printed(at, &EVAL), plain);
    for (name, mark) in [("plain.txt", ""), ("mark.txt", "\u{feff}")] {
        fs::write(at.join(name), format!("{mark}the river\nthe rises\n")).unwrap();
    }
    let run = |file| printed(at, &["run", "model.onnx", "--prompts", file, "-n", "3"]);
    assert_eq!(run("mark.txt"), run("plain.txt"));
}

/// Numbers at their ends.
#[test]
fn extreme_numbers_end() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    let all = u64::MAX.to_string();
    let u32_all = u32::MAX.to_string();
    let compile = |more: &[&str]| {
        [&["compile", "model.onnx", "-o", "a.snn"], more].concat().into_iter().map(String::from).collect()
    };
    let calls: Vec<Vec<String>> = vec![
        compile(&["--calibration-tokens", &all]),
        compile(&["--calibration-tokens", &all, "--calibrate", "text.txt"]),
        compile(&["--calibration-tokens", "16777216"]),
        compile(&["--calibration-tokens", "0"]),
        ["run", "model.onnx", "-p", "x", "-n", &all].map(String::from).to_vec(),
        [&EVAL[..], &["--windows", &u32_all, "--stride", "1"]].concat().into_iter().map(String::from).collect(),
        [&EVAL[..], &["--stride", &u32_all]].concat().into_iter().map(String::from).collect(),
        [
            "tune",
            "model.onnx",
            "--text",
            "text.txt",
            "--windows",
            "1",
            "--probe-tokens",
            "64",
            "--calibration-tokens",
            &all,
        ]
        .map(String::from)
        .to_vec(),
    ];
    for args in calls {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let start = Instant::now();
        let output = call(at, &args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 2 | 3)), "{args:?}: {said}");
        assert!(start.elapsed() < Duration::from_secs(20), "{args:?} took {:?}", start.elapsed());
    }
    fs::remove_file(at.join("tokenizer.json")).unwrap();
    printed(at, &["compile", "model.onnx", "-o", "bare.snn", "--calibration-tokens", "16777216"]);
}

/// The most memory that a call takes, in MB.
#[cfg(target_os = "linux")]
fn peak(folder: &Path, args: &[&str]) -> u64 {
    let mut child = Command::new(snnc())
        .args(args)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kb = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
        most = most.max(kb.unwrap_or(0) / 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    most
}

/// A line of 200 MB is read in pieces.
#[cfg(target_os = "linux")]
#[test]
fn a_long_line_takes_little_memory() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    let piece = "abcd ".repeat(200_000);
    let mut file = fs::File::create(at.join("long.txt")).unwrap();
    (0..200).for_each(|_| std::io::Write::write_all(&mut file, piece.as_bytes()).unwrap());
    drop(file);
    let compile = ["compile", "model.onnx", "-o", "a.snn", "--calibrate", "long.txt", "--calibration-tokens", "256"];
    let train = "train a.snn --reference model.onnx --text long.txt -o b.snn --parameters thresholds --steps 2";
    let train: Vec<&str> = train.split(' ').collect();
    let calls: [&[&str]; 4] = [
        &compile,
        &["eval", "a.snn", "--text", "long.txt", "--windows", "2"],
        &["energy", "a.snn", "--text", "long.txt"],
        &train,
    ];
    for args in calls {
        let megabytes = peak(at, args);
        assert!(megabytes < 200, "{args:?} took {megabytes} MB");
    }
}

/// A tokenizer in a program is judged as one in a file.
#[test]
fn tokenizers_in_programs_are_judged_too() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    printed(at, &["compile", "model.onnx", "-o", "a.snn", "--calibration-tokens", "64"]);
    let bytes = fs::read(at.join("a.snn")).unwrap();
    let mut file = snnc_ir::container::read(std::sync::Arc::new(bytes)).unwrap();
    let mut json = byte_level(&["<|endoftext|>"]);
    json["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
    file.tokenizer = Some(json.to_string().into_bytes());
    let mut out = Vec::new();
    snnc_ir::container::write(&file, &mut out).unwrap();
    fs::write(at.join("b.snn"), &out).unwrap();
    let said = refusal(at, &["run", "b.snn", "-p", "x"]);
    assert!(said.contains("b.snn: tokenizer: `pre_tokenizer`: FixedLength is not read"), "{said}");
    // A start token that the tokenizer does not have.
    file.tokenizer = Some(byte_level(&["<|endoftext|>"]).to_string().into_bytes());
    file.provenance = Some(br#"{"special_tokens": {"start": [4000000000], "end": []}}"#.to_vec());
    let hints =
        snnc::model::stored_tokenizer(Path::new("c.snn"), file.tokenizer.clone(), None, file.provenance.as_deref());
    let stored: TokenizerFile = hints.unwrap();
    let error = Tokens::of(&stored, &StartChoice::Auto).unwrap_err();
    assert!(error.message.contains("has no token 4000000000"), "{}", error.message);
}

/// A `.npy` file of ids as NumPy writes it.
fn write_ids(folder: &Path, name: &str, descr: &str, shape: &str, ids: &[u32]) {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    header.push_str(&" ".repeat((64 - (header.len() + 11) % 64) % 64));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let width = descr[2..].parse::<usize>().unwrap();
    ids.iter().for_each(|id| bytes.extend(&u64::from(*id).to_le_bytes()[..width]));
    fs::write(folder.join(name), bytes).unwrap();
}

/// Ids of a file are run as those of the text are; none of these commands needs a tokenizer then.
#[test]
fn ids_of_a_file_are_a_text() {
    let folder = folder();
    let at = folder.path();
    write(at, "tokenizer.json", &byte_level(&["<|endoftext|>"]));
    let file = find::find(&at.join("model.onnx"), None).unwrap().unwrap();
    let ids = Tokens::of(&file, &StartChoice::Auto)
        .unwrap()
        .document(&fs::read_to_string(at.join("text.txt")).unwrap())
        .unwrap();
    let json = |args: &[&str]| -> Json {
        let mut found: Json = serde_json::from_str(&printed(at, &[args, &["--json"]].concat())).unwrap();
        found.as_object_mut().unwrap().remove("run");
        found
    };
    let by_text = json(&EVAL);
    fs::remove_file(at.join("tokenizer.json")).unwrap();
    for descr in ["<u2", "<i4", "<i8"] {
        write_ids(at, "ids.npy", descr, &format!("({},)", ids.len()), &ids);
        for option in ["--tokens", "--text"] {
            let mut by_ids = json(&["eval", "model.onnx", option, "ids.npy"]);
            assert_eq!(by_ids["perplexity_by_word"], Json::Null);
            by_ids["perplexity_by_word"] = by_text["perplexity_by_word"].clone();
            assert_eq!(by_ids, by_text, "{descr} {option}");
        }
    }
    // Texts of one length: every window is inside one.
    let texts: Vec<u32> = ids.iter().copied().take(5 * 40).collect();
    write_ids(at, "texts.npy", "<i4", "(5, 40)", &texts);
    let several = json(&["eval", "model.onnx", "--tokens", "texts.npy"]);
    assert_eq!((several["tokens"].as_u64(), several["windows"].as_u64()), (Some(5 * 39), Some(5 * 2)));
    let some = json(&["eval", "model.onnx", "--tokens", "texts.npy", "--windows", "3"]);
    assert_eq!(some["windows"], 3);
    let compile = ["compile", "model.onnx", "-o", "m.snn", "--calibration-tokens", "64", "--calibrate"];
    printed(at, &[&compile[..], &["texts.npy"]].concat());
    let calibrated = snnc_ir::container::read(std::sync::Arc::new(fs::read(at.join("m.snn")).unwrap())).unwrap();
    let section: Json = serde_json::from_slice(&calibrated.calibration.unwrap()).unwrap();
    assert_eq!(section["source"], "texts.npy");
    printed(at, &[&compile[..], &["ids.npy"]].concat());
    printed(at, &["energy", "m.snn", "--tokens", "ids.npy", "--windows", "2"]);
    let seen = json(&["inspect", "m.snn", "--tokens", "ids.npy"]);
    assert_eq!(seen["predictions"][0]["text"], format!("<{}>", ids[1]));
    printed(at, &["report", "m.snn", "--text", "texts.npy", "--tokens", "8", "-o", "r.html"]);
    let tune = ["tune", "model.onnx", "--windows", "1", "--calibration-tokens", "64", "--probe-tokens", "16"];
    printed(at, &[&tune[..], &["--tokens", "ids.npy", "--calibrate", "texts.npy"]].concat());
    let train = ["train", "m.snn", "--reference", "model.onnx", "-o", "t.snn", "--steps", "1", "--batch", "1"];
    for file in ["ids.npy", "texts.npy"] {
        let windows = ["--window-tokens", "8", "--validation-windows", "1", "--tokens", file];
        printed(at, &[&train[..], &windows, &["--parameters", "thresholds"]].concat());
    }
    write_ids(at, "short.npy", "<i4", "(5, 20)", &texts[..5 * 20]);
    printed(at, &["logits", "m.snn", "--tokens", "short.npy", "-o", "l.npy"]);
    let logits = fs::read(at.join("l.npy")).unwrap();
    assert!(String::from_utf8_lossy(&logits[..128]).contains("(5, 20, 300,)"));
}

/// What is no file of ids for this network is refused with its place.
#[test]
fn ids_that_cannot_be_run_are_named() {
    let folder = folder();
    let at = folder.path();
    write_ids(at, "large.npy", "<i4", "(3,)", &[1, 2, 300]);
    let said = refusal(at, &["eval", "model.onnx", "--tokens", "large.npy"]);
    assert!(said.contains("large.npy: element 2: id 300; the network's embedding has 300 rows"), "{said}");
    let said = refusal(at, &["compile", "model.onnx", "--calibrate", "large.npy"]);
    assert!(said.contains("element 2: id 300"), "{said}");
    write_ids(at, "float.npy", "<f4", "(1,)", &[1]);
    assert!(refusal(at, &["logits", "model.onnx", "--tokens", "float.npy", "-o", "x.npy"]).contains("type `<f4`"));
    assert!(refusal(at, &["eval", "model.onnx", "--tokens", "text.txt"]).contains("is no .npy file of token ids"));
    assert!(refusal(at, &["eval", "model.onnx", "--text", "text.txt"]).contains("has no tokenizer"));
    write_ids(at, "none.npy", "<i4", "(0,)", &[]);
    assert!(refusal(at, &["eval", "model.onnx", "--tokens", "none.npy"]).contains("empty"));
    assert!(refusal(at, &["compile", "model.onnx", "--calibrate", "none.npy"]).contains("empty"));
    assert!(refusal(at, &["logits", "model.onnx", "--tokens", "none.npy", "-o", "x.npy"]).contains("holds no ids"));
}

/// A vocabulary and merges split texts as their class does: Qwen 2 keeps digits apart, GPT-2 does not. Tokens beside the
/// vocabulary come from the configuration.
#[test]
fn a_pair_splits_texts_as_its_class_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let byte: Json = serde_json::from_str(&snnc_tests::byte_tokenizer()).unwrap();
    let mut vocabulary = byte["model"]["vocab"].as_object().unwrap().clone();
    vocabulary.insert("12".into(), json!(257));
    write(at, "vocab.json", &Json::Object(vocabulary));
    fs::write(at.join("merges.txt"), "#version: 0.2\n1 2\n").unwrap();
    let ids = |config: Json, text: &str| {
        write(at, "tokenizer_config.json", &config);
        let file = find::find(at, None).unwrap().unwrap();
        Tokens::of(&file, &StartChoice::None).unwrap().encode(text).unwrap()
    };
    assert_eq!(ids(json!({"tokenizer_class": "GPT2Tokenizer"}), "12"), [257]);
    let end = json!({"content": "<|im_end|>", "special": true, "normalized": false});
    let qwen = json!({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": {"258": end}});
    assert_eq!(ids(qwen, "12<|im_end|>"), [49, 50, 258]);
    write(at, "tokenizer_config.json", &json!({"tokenizer_class": "HatTokenizer"}));
    assert!(find::find(at, None).unwrap_err().message.contains("HatTokenizer"));
}
