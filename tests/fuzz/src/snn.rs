//! `.snn` files of anybody's making: their structure, text and weights change, and their checksums are right.

use crate::chance::{NUMBERS, Verdict, below, corpus_files, pick};
use crate::seal::{AlignedBytes, Parts, StoredWeight};
use crate::{bytes, engines};
use snnc_examples::gpt2::Gpt2Config;
use snnc_examples::llama::LlamaConfig;
use snnc_ir::container::{self, File};
use snnc_ir::random::SplitMix64;
use snnc_ir::{Code, Graph, Op, Stage, text};
use snnc_passes::cost::{Activity, Form, Number, Rate, Sharing, costs};
use snnc_passes::levels::Levels;
use snnc_passes::options::QuantOptions;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a seed: larger ones are slow to change and show no more.
const SEED_MAX: usize = 1 << 16;

/// Programs of tests' cases, small networks of several kinds, and the corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = corpus_files("snn");
    seeds.extend(cases().into_iter().map(|graph| sealed(&graph)).filter(|seed| seed.len() < SEED_MAX));
    let config = Gpt2Config { layers: 1, width: 16, heads: 2, vocabulary: 24, context: 16, ..Gpt2Config::SMALL };
    let graph = snnc_tests::imported(&config);
    for levels in [Levels { code: Code::Binary, steps: 7 }, Levels { code: Code::Unary, steps: 5 }] {
        seeds.push(sealed(&snnc_tests::converted(graph.clone(), QuantOptions::uniform(levels))));
    }
    let config = LlamaConfig {
        layers: 1,
        width: 16,
        heads: 2,
        kv_heads: 1,
        head_width: 8,
        hidden: 24,
        vocabulary: 24,
        context: 16,
        window: Some(5),
        turned: 6,
        qk_norm: true,
        ..LlamaConfig::TINY
    };
    seeds.push(sealed(&snnc_tests::from_tensor(snnc_tests::llama(&config), QuantOptions::default())));
    seeds
}

/// Programs in `tests/cases` that can stand in a file and be run.
fn cases() -> Vec<Graph> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases");
    let mut paths: Vec<_> = ["collapse", "cost", "fold", "spike", "text", "verify", "tie_embedding"]
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|folder| folder.flatten().map(|file| file.path()))
        .collect();
    paths.sort();
    let read = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path).ok()?;
        let start = text.lines().position(|line| line.starts_with("snnc"))?;
        let program: Vec<&str> = text.lines().skip(start).collect();
        let graph =
            text::parse_filled(&program.join("\n"), &|name, _, _| Err(format!("no rule for @{name}"))).ok()?.graph;
        matches!(graph.stage, Stage::Tensor | Stage::Quantised | Stage::Spiking).then_some(graph)
    };
    paths.into_iter().filter_map(read).collect()
}

fn sealed(graph: &Graph) -> Vec<u8> {
    let mut bytes = Vec::new();
    container::write(&File::new(graph.clone().in_panels()), &mut bytes).expect("memory takes everything");
    bytes
}

/// A file with a few changes, in one of three layers: its text, its weights, its bytes.
pub fn mutant(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let seed = pick(random, seeds);
    let Some(mut parts) = Parts::open(seed) else {
        let mut mutant = seed.clone();
        bytes::change(&mut mutant, random);
        return mutant;
    };
    for _ in 0..1 + below(random, 3) {
        match below(random, 8) {
            0..=3 => change_text(&mut parts.program, random),
            4..=6 if !parts.weights.is_empty() => {
                let i = below(random, parts.weights.len());
                change_weight(&mut parts.weights[i], random);
            }
            _ => change_section(&mut parts, random),
        }
    }
    let mut mutant = parts.seal();
    if below(random, 16) == 0 {
        bytes::change(&mut mutant, random);
    }
    mutant
}

/// Lines of an operation, without those of weights.
fn node_lines(lines: &[String]) -> Vec<usize> {
    (0..lines.len()).filter(|&i| lines[i].starts_with('%')).collect()
}

fn change_text(program: &mut String, random: &mut SplitMix64) {
    let mut lines: Vec<String> = program.lines().map(str::to_string).collect();
    let nodes = node_lines(&lines);
    if nodes.is_empty() {
        return;
    }
    let i = *pick(random, &nodes);
    match below(random, 7) {
        // An operand that another line has.
        0 => {
            let with = below(random, nodes.len());
            let operand = operands(&lines[i]);
            if !operand.is_empty() {
                let old = pick(random, &operand).clone();
                lines[i] = lines[i].replacen(&old, &format!("%{with}"), 2);
            }
        }
        // A number.
        1 | 2 => lines[i] = with_number(&lines[i], random),
        // An operation of another line.
        3 => {
            let other = lines[*pick(random, &nodes)].clone();
            let (own, theirs) = (operation(&lines[i]), operation(&other));
            lines[i] = lines[i].replacen(&own, &theirs, 1);
        }
        // The header's stage or context.
        4 => {
            let header = lines[0].clone();
            lines[0] = match below(random, 2) {
                0 => with_number(&header, random),
                _ => {
                    let stages = ["imported", "tensor", "quantised", "spiking", "training"];
                    let old = stages.into_iter().find(|stage| header.contains(stage)).unwrap_or("spiking");
                    header.replace(old, pick::<&str>(random, &stages))
                }
            };
        }
        // A code, a curve, a membrane, an attention.
        5 => change_word(&mut lines[i], random),
        // A size, everywhere.
        _ => change_size(&mut lines, i, random),
    }
    *program = lines.join("\n") + "\n";
    *program = retyped(program);
}

/// Words of which another one may stand in their place.
const WORDS: [&str; 19] = [
    "binary",
    "unary",
    "relu",
    "gelu_tanh",
    "gelu_erf",
    "silu",
    "if",
    "if_hard",
    "lif",
    "st_bif",
    "ttfs",
    "linear",
    "coincidence",
    "topk",
    "f32",
    "i32",
    "i8",
    "tokens",
    "context",
];

fn change_word(line: &mut String, random: &mut SplitMix64) {
    let found: Vec<&str> = WORDS.into_iter().filter(|word| line.contains(word)).collect();
    if !found.is_empty() {
        let (old, new) = (*pick(random, &found), *pick(random, &WORDS));
        *line = line.replace(old, new);
    }
}

/// Puts another size in the place of one that line `i` has, in all lines.
fn change_size(lines: &mut [String], i: usize, random: &mut SplitMix64) {
    let sizes = numbers(&lines[i]);
    if sizes.is_empty() {
        return;
    }
    let old = pick(random, &sizes).clone();
    let new = pick(random, &NUMBERS).to_string();
    for (open, close) in [(",", "]"), ("[", "]"), ("[", ","), (",", ",")] {
        let (old, new) = (format!("{open}{old}{close}"), format!("{open}{new}{close}"));
        lines.iter_mut().for_each(|line| *line = line.replace(&old, &new));
    }
}

/// The same program with the types that operations give, as far as they fit.
fn retyped(program: &str) -> String {
    let mut types = std::collections::HashMap::new();
    let mut lines: Vec<String> = Vec::new();
    for line in program.lines() {
        lines.push(retyped_line(line, &mut types).unwrap_or_else(|| line.to_string()));
    }
    lines.join("\n") + "\n"
}

/// A line with the type that its operation gives.
fn retyped_line(line: &str, types: &mut std::collections::HashMap<String, snnc_ir::Type>) -> Option<String> {
    if let Some(rest) = line.strip_prefix("weight ") {
        let (name, rest) = rest.split_once(" : ")?;
        let (elem, sizes) = rest.split_once('[')?;
        let elem = match elem {
            "f32" => snnc_ir::Elem::F32,
            "i32" => snnc_ir::Elem::I32,
            _ => snnc_ir::Elem::I8,
        };
        let sizes = sizes.split_once(']')?.0;
        let sizes: Vec<usize> =
            sizes.split(',').filter(|size| !size.is_empty()).map_while(|size| size.parse().ok()).collect();
        if sizes.len() <= snnc_ir::Shape::MAX_RANK {
            types.insert(name.to_string(), snnc_ir::Type::tensor(elem, snnc_ir::Shape::fixed(&sizes)));
        }
        return None;
    }
    let (left, right) = line.strip_prefix('%')?.split_once(" = ")?;
    let (before, after) = right.rsplit_once(" : ")?;
    let tail = after.find(' ').map_or("", |at| &after[at..]);
    let op = Op::parse(&operation(line)).ok()?;
    let args = operands(line).iter().map(|operand| types.get(operand).copied()).collect::<Option<Vec<_>>>()?;
    let ty = op.infer(&args).ok()?;
    types.insert(format!("%{left}"), ty);
    Some(format!("%{left} = {before} : {ty}{tail}"))
}

/// Operands of a line: `%1` or `@name`.
fn operands(line: &str) -> Vec<String> {
    let Some((_, right)) = line.split_once(" = ") else { return Vec::new() };
    let Some(open) = right.find('(') else { return Vec::new() };
    let Some(close) = right[open..].find(')') else { return Vec::new() };
    right[open + 1..open + close].split(", ").map(str::to_string).collect()
}

/// The operation of a line with its attributes.
fn operation(line: &str) -> String {
    let right = line.split_once(" = ").map_or("", |(_, right)| right);
    right.split(['(', ' ']).next().unwrap_or("").to_string()
}

/// Numbers of a line, as they are spelled.
fn numbers(line: &str) -> Vec<String> {
    let right = line.split_once(" = ").map_or(line, |(_, right)| right);
    let words = right.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    words.map(str::to_string).collect()
}

fn with_number(line: &str, random: &mut SplitMix64) -> String {
    let found = numbers(line);
    if found.is_empty() {
        return line.to_string();
    }
    let old = pick(random, &found).clone();
    let new = match below(random, 3) {
        0 => format!("{}e{}", below(random, 10), 38 - below(random, 90) as i64),
        _ => pick(random, &NUMBERS).to_string(),
    };
    let at = line.rfind(&old).filter(|_| below(random, 2) == 0).or(line.find(&old)).unwrap_or(0);
    format!("{}{new}{}", &line[..at], &line[at + old.len()..])
}

/// Numbers that arithmetic trips over.
const REALS: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::MIN_POSITIVE,
    1e-45,
    1e-30,
    1e19,
    1e30,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

fn change_weight(weight: &mut StoredWeight, random: &mut SplitMix64) {
    let whole = below(random, 3) == 0;
    match weight.elem.as_str() {
        "f32" => {
            let x = *pick(random, &REALS);
            put(&mut weight.bytes, 4, whole, random, &x.to_le_bytes());
        }
        "i32" => {
            let x = *pick(random, &[0, 1, -1, 2, 3, 64, 1 << 20, i32::MAX, i32::MIN]);
            put(&mut weight.bytes, 4, whole, random, &x.to_le_bytes());
        }
        _ => {
            let x = *pick(random, &[0u8, 1, 0x7f, 0x80, 0x81, 0xff]);
            put(&mut weight.bytes, 1, whole, random, &[x]);
        }
    }
}

fn put(bytes: &mut [u8], size: usize, whole: bool, random: &mut SplitMix64, new: &[u8]) {
    let count = bytes.len() / size;
    if whole {
        bytes.chunks_exact_mut(size).for_each(|element| element.copy_from_slice(new));
    } else if count > 0 {
        let at = below(random, count) * size;
        bytes[at..at + size].copy_from_slice(new);
    }
}

fn change_section(parts: &mut Parts, random: &mut SplitMix64) {
    match below(random, 3) {
        0 => parts.others.push((3 + below(random, 4) as i32, vec![b'{'; below(random, 40)])),
        1 if !parts.weights.is_empty() => {
            let i = below(random, parts.weights.len());
            bytes::change(&mut parts.weights[i].bytes, random);
        }
        _ => {
            let mut text = std::mem::take(&mut parts.program).into_bytes();
            bytes::change(&mut text, random);
            parts.program = String::from_utf8_lossy(&text).into_owned();
        }
    }
}

/// Reads a file, and runs what is in it in all ways.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let Ok(file) = container::read(Arc::new(AlignedBytes::new(bytes))) else { return Ok(Verdict::Refused) };
    let mut again = Vec::new();
    container::write(&file, &mut again).map_err(|error| error.to_string())?;
    if again != bytes {
        return Err("what was read is written as another file".into());
    }
    count(&file.graph);
    engines::agree(&file.graph)
}

/// What the program does, in all forms: it is counted without a panic.
fn count(graph: &Graph) {
    let busy = Activity::expected(graph, 4, &|_| 4, &|_| Rate { spikes: 1.0, active: 0.5 }, 0.5);
    for form in [Form::Dense(Number::F32), Form::Stepped, Form::Collapsed] {
        costs(graph, &busy, form, Sharing { span: 1, batch: 1 });
    }
}
