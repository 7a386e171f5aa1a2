//! What the tests share: small networks made on the spot, and ways to run them.
//!
//! Tests that want reference files look for `../shared` beside the repository and say plainly when it is not there.

#![warn(missing_docs)]
#![allow(clippy::expect_used, clippy::print_stderr, missing_debug_implementations)]

pub mod browser;
pub mod reference;

use snnc::convert::{self, ConvertOptions, Sample};
use snnc_examples::gpt2::{self, Gpt2Config};
use snnc_examples::llama::{self, LlamaConfig};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::events::Events;
use snnc_ir::op::{LevelOp, SpikeOp};
use snnc_ir::{Graph, Op};
use snnc_onnx as onnx;
use snnc_passes::Context;
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_passes::options::QuantOptions;
use snnc_passes::simplify::simplify;
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

/// What the command does in a folder.
pub fn call(folder: &Path, args: &[&str]) -> Output {
    Command::new(snnc()).args(args).current_dir(folder).output().expect("the command was built")
}

/// What a call that succeeds prints.
pub fn printed(folder: &Path, args: &[&str]) -> String {
    let output = call(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The Imported graph of a generated network.
pub fn imported(config: &Gpt2Config) -> Graph {
    let bytes = gpt2::bytes(config).expect("writing to memory does not fail");
    let model = onnx::read::read_bytes(&bytes).expect("a generated file is well-formed");
    onnx::import_model(model).expect("a generated network is a GPT-2").graph
}

/// The Tensor graph of a generated decoder of the Llama kind, as levels are chosen on it.
pub fn llama(config: &LlamaConfig) -> Graph {
    let graph = llama::graph(config).expect("the sizes fit each other");
    simplify(&graph, &Context::default()).expect("a generated network is sound")
}

/// The Spiking program of a Tensor graph, calibrated on seeded ids.
pub fn from_tensor(graph: Graph, quant_options: QuantOptions) -> Graph {
    let recipe = ConvertOptions { quant: quant_options, calibration_tokens: 2048, threads: 2 };
    convert::spiking(graph, &Sample::SeededIds, &recipe, &mut |_, _, _| {}).expect("a generated network converts").graph
}

/// The Spiking program of a network, calibrated on seeded ids.
pub fn spiking(graph: Graph, levels: Levels) -> Graph {
    converted(graph, QuantOptions::uniform(levels))
}

/// The Spiking program of a network by anybody's quant_options, calibrated on seeded ids.
pub fn converted(graph: Graph, quant_options: QuantOptions) -> Graph {
    let recipe = ConvertOptions { quant: quant_options, calibration_tokens: 2048, threads: 2 };
    let sample = Sample::SeededIds;
    convert::convert(graph, false, &sample, &recipe, &mut |_, _, _| {}).expect("a generated network converts").graph
}

/// Logits of every token, and what neurons and attention did, by the name of their last constant.
pub struct Ran {
    /// Logits as bits, so that equal means equal.
    pub bits: Vec<u32>,
    /// What neurons and attention did, by the name of their last constant.
    pub events: BTreeMap<String, Events>,
}

impl Ran {
    /// Logits as numbers.
    pub fn logits(&self) -> Vec<f32> {
        self.bits.iter().map(|&bits| f32::from_bits(bits)).collect()
    }
}

/// Runs `graph` on pieces of a sequence, one forward pass a piece.
pub fn run(graph: &Graph, options: Options, pieces: &[&[u32]]) -> Ran {
    let program = Arc::new(Program::new(Arc::new(graph.clone()), &options).expect("a verified program runs"));
    let mut session = Session::new(program).expect("there is memory");
    let mut bits = Vec::new();
    for piece in pieces {
        let outputs = session.forward(piece, Rows::All).expect("the sequence fits");
        bits.extend(outputs.f32("logits").expect("there are logits").iter().map(|x| x.to_bits()));
    }
    let named = |(i, events): (usize, &Events)| {
        let node = &graph.nodes[i];
        let counted = node.op.is_neuron()
            || matches!(
                node.op,
                Op::Level(LevelOp::Ssa { .. }) | Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse)
            );
        let last = graph.constant(*node.args.last()?)?;
        counted.then(|| (last.name.clone(), *events))
    };
    let events = session.events().iter().enumerate().filter_map(named).collect();
    Ran { bits, events }
}

/// An engine with its meters on.
pub fn options(engine: Engine) -> Options {
    Options { engine, count: true, ..Options::default() }
}

/// Ids below `vocabulary` without a pattern.
pub fn ids(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count as u64).map(|i| ((i * i * 2654435761 + i * 40503 + 12345) >> 7) as u32 % vocabulary as u32).collect()
}

/// A folder of reference files beside the repository, if it is there.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(folder);
    if !path.is_dir() {
        eprintln!("skipped: the reference files ../shared/{folder} are not here");
        return None;
    }
    Some(path)
}

/// The model in the repository.
pub fn demo_model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/wt2-gelu/model.onnx")
}

/// Cosine of two rows around their means.
pub fn centred_cosine(a: &[f32], b: &[f32]) -> f64 {
    let centre = |x: &[f32]| {
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
        x.iter().map(|&x| f64::from(x) - mean).collect::<Vec<f64>>()
    };
    let (a, b) = (centre(a), centre(b));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

/// The command, built in the profile of this test; or the one that `SNNC_BINARY` names, to try tests on another version.
pub fn snnc() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(named) = std::env::var_os("SNNC_BINARY") {
            return named.into();
        }
        let test = std::env::current_exe().expect("a test is a file");
        let profile = test.ancestors().nth(2).expect("a test is in a folder of its profile");
        let mut build = Command::new(env!("CARGO"));
        // Of the whole workspace, so that dependencies have the features with which the tests were built.
        build.args(["build", "--workspace", "--bin", "snnc"]);
        // The folder of the profile `dev` has another name.
        let name = profile.file_name().and_then(|name| name.to_str()).expect("a profile has a name");
        build.args(["--profile", if name == "debug" { "dev" } else { name }]);
        assert!(build.status().expect("there is cargo").success(), "the command builds");
        profile.join(format!("snnc{}", std::env::consts::EXE_SUFFIX))
    })
}

/// Writes a network of two small layers, as `model.onnx`, with a tokenizer of bytes beside it, and a text, as `text.txt`.
pub fn write_small_model(folder: &Path) {
    let config = Gpt2Config { layers: 2, width: 16, heads: 2, vocabulary: 260, context: 64, ..Gpt2Config::TINY };
    let bytes = gpt2::bytes(&config).expect("writing to memory does not fail");
    std::fs::write(folder.join("model.onnx"), bytes).expect("the folder takes files");
    std::fs::write(folder.join("tokenizer.json"), byte_tokenizer()).expect("the folder takes files");
    let text = "The river runs to the sea, and the road follows it.\n".repeat(200);
    std::fs::write(folder.join("text.txt"), text).expect("the folder takes files");
}

/// A byte-level `tokenizer.json` without merges: a token for every byte, and the end of text.
pub fn byte_tokenizer() -> String {
    // GPT-2 writes a byte that is no printable character as one from U+0100 on.
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100..;
    let mut vocabulary = serde_json::Map::new();
    for byte in 0..256u32 {
        let letter = if printable(byte) { Some(byte) } else { others.next() };
        let letter = letter.and_then(char::from_u32).expect("all of these are characters");
        vocabulary.insert(letter.to_string(), byte.into());
    }
    vocabulary.insert("<|endoftext|>".into(), 256.into());
    let bytes = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let end = serde_json::json!({
        "id": 256, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": true, "special": true
    });
    let tokenizer = serde_json::json!({
        "version": "1.0",
        "added_tokens": [end],
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] }
    });
    tokenizer.to_string()
}

/// Centred cosine of the logits of a network's spiking program, made by default options and seeded ids, with the network's own.
/// `imported` is the network before it was raised; `rounded`: whether its file rounds activations.
///
/// # Errors
/// Why it is not converted.
pub fn spiking_cosine(tensor: &Graph, imported: Graph, rounded: bool) -> Result<f64, Diagnostics> {
    let sample = ids(20.min(tensor.context as usize), convert::vocabulary(tensor)?);
    let simple = convert::dense(imported, rounded, &mut |_, _, _| {})?;
    let recipe = ConvertOptions { quant: QuantOptions::default(), calibration_tokens: 2048, threads: 2 };
    let converted = convert::spiking(simple, &Sample::SeededIds, &recipe, &mut |_, _, _| {})?;
    let program = collapse(&converted.graph)?;
    let dense = run(tensor, options(Engine::Jit), &[&sample]).logits();
    Ok(centred_cosine(&run(&program, options(Engine::Jit), &[&sample]).logits(), &dense))
}

/// The part of a page of `docs/` between the marks `name` is this text; `SNNC_UPDATE_DOCS=1` writes it.
///
/// # Panics
/// The page has no such marks, or another text there.
pub fn documented(page: &str, name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let all = std::fs::read_to_string(&path).expect("a page is there");
    let (start, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = all.split_once(&start).unwrap_or_else(|| panic!("docs/{page} has no mark {start}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/{page} has no mark {end}"));
    if std::env::var_os("SNNC_UPDATE_DOCS").is_some() {
        std::fs::write(&path, [before, &start, text, &end, after].concat()).expect("a page may be written");
    } else {
        assert_eq!(found, text, "docs/{page} is stale; SNNC_UPDATE_DOCS=1 makes it anew");
    }
}

/// Says what a test did not do, and why.
pub fn say(what: &str) {
    eprintln!("{what}");
}
