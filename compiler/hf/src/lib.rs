//! The Hugging Face front end: a folder with `config.json` and safetensors becomes a graph at the Tensor stage.
//!
//! | file | does |
//! |---|---|
//! | `folder` | finds the files of a folder, and says what to do where they are others |
//! | `tensor_file`, `checkpoint` | read tensors, after a look at where they are malformed |
//! | `config` | reads `config.json`: no key goes unnoticed |
//! | `architecture`, `architectures.toml` | descriptions of networks, which are data |
//! | `rotary` | frequencies of rotary positions |
//! | `blueprint` | a description with the numbers of a configuration |
//! | `build` | makes the graph |
//!
//! A family is a combination of parts, never a case of its own: to add one is to write a description. It does without the
//! Imported stage, since nothing has to be recognised.

#![warn(missing_docs)]

pub mod architecture;
pub mod blueprint;
mod build;
pub mod checkpoint;
pub mod config;
pub mod folder;
pub mod rotary;
pub mod tensor_file;

use architecture::{ArchitectureTable, ConfigRules, Described};
use blueprint::Asked;
use checkpoint::{FolderTensors, OpenFile};
use config::Config;
use folder::WeightFiles;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, WeightStore, verify};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// What a folder became.
#[derive(Debug)]
pub struct FolderImport {
    /// At stage Tensor, verified; its one output is `logits`.
    pub graph: Graph,
    /// Which folder it was, and how large.
    pub origin: FolderOrigin,
    /// What the user should know of it, though it is no error.
    pub warnings: Vec<String>,
}

/// Which folder a graph came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderOrigin {
    /// Length of the configuration and of all files of weights, in bytes.
    pub bytes: u64,
    /// XXH3-64 of their bytes: the configuration, then weights in the order of their names.
    pub hash: u64,
    /// What wrote the folder, in its own words.
    pub producer: String,
    /// The description by which it was read.
    pub architecture: String,
    /// Tensors.
    pub tensors: usize,
}

/// What a user says of a folder.
#[derive(Clone, Debug, Default)]
pub struct FolderOptions {
    /// The most tokens of a sequence.
    pub context: Option<u32>,
    /// A table of descriptions beside those of snnc.
    pub architectures: Option<PathBuf>,
}

/// Reads the network of a folder. `open` gives the bytes of a file, mapped or read; `store` keeps weights that are none of its bytes.
///
/// # Errors
/// Everything about the folder that is wrong or not supported, each with its file, and its key or tensor.
pub fn import(
    folder: &Path,
    weights: &WeightFiles,
    options: &FolderOptions,
    open: &OpenFile<'_>,
    store: Option<&dyn WeightStore>,
) -> Result<FolderImport, Diagnostics> {
    let place = folder.join(folder::CONFIG);
    if !place.is_file() {
        let message = "holds weights, but no config.json that says what they are";
        let e = Diagnostic::new(folder.display().to_string(), message).code(ErrorCode::FOLDER);
        return Err(e.note("download all files of the network").into());
    }
    let table = match &options.architectures {
        Some(path) => ArchitectureTable::with_file(path)?,
        None => ArchitectureTable::built_in(),
    };
    let bytes = folder::read_json(&place)?;
    let mut config = Config::parse(&place.display().to_string(), &bytes)?;
    let name = name(&mut config, &table)?;
    let described = table.get(&name, config.given())?;
    let architecture = match described {
        Some(Described::Network(architecture)) => architecture,
        Some(Described::Missing(parts)) => return Err(missing(&config, &name, &parts, &table).into()),
        None => return Err(unknown(&config, &name, &table).into()),
    };
    check_class(&mut config, &architecture.classes, &name);
    let checkpoint = FolderTensors::read(weights, open, store)?;
    config.set_defaults(&architecture.defaults);
    config.overlook(&architecture.inert);
    architecture.refused.iter().for_each(|(key, rule)| config.refuse_others(key, rule));
    let asked = Asked { context: options.context };
    let blueprint = blueprint::plan(&architecture, &mut config, asked, &checkpoint);
    let producer = producer(&mut config);
    let warnings = config.finish(&ConfigRules::built_in())?;
    let blueprint = blueprint.ok_or_else(|| {
        let e = Diagnostic::new(place.display().to_string(), "says nothing that can be built");
        Diagnostics::from(e.code(ErrorCode::ARCHITECTURE))
    })?;
    let at = |diagnostics: Diagnostics| diagnostics.in_file(&folder.display().to_string());
    checkpoint
        .check(&blueprint.wanted, |tensor| is_buffer(&architecture.buffers, &architecture.prefix, tensor))
        .map_err(at)?;
    let graph = build::build(&blueprint, &checkpoint).map_err(at)?;
    verify::verify(&graph).map_err(at)?;
    let mut hash = Xxh3::new();
    hash.update(&bytes);
    checkpoint.add_to(&mut hash);
    let origin = FolderOrigin {
        bytes: bytes.len() as u64 + checkpoint.bytes(),
        hash: hash.digest(),
        producer,
        architecture: name,
        tensors: checkpoint.names().count(),
    };
    Ok(FolderImport { graph, origin, warnings })
}

/// The description of a configuration: `model_type`, or else by the class that it names.
fn name(config: &mut Config, table: &ArchitectureTable) -> Result<String, Diagnostic> {
    let class = class(config);
    let by_class = || class.as_deref().and_then(|class| table.of_class(class)).map(str::to_string);
    config.text("model_type").or_else(by_class).ok_or_else(|| {
        let e = config.at("model_type", "is missing: nothing says which network this is");
        e.note(format!("{} are known", table.names().join(", ")))
    })
}

/// The first class of `architectures`.
fn class(config: &mut Config) -> Option<String> {
    let classes = config.value("architectures")?;
    classes.as_array()?.first()?.as_str().map(str::to_string)
}

/// Refuses a class that is not the network with its head: a classifier has the same blocks.
fn check_class(config: &mut Config, classes: &[String], name: &str) {
    let Some(class) = class(config).filter(|class| !classes.contains(class)) else { return };
    let message = format!("is {class}, which is no language model of the kind {name}: {} are", classes.join(", "));
    config.refuse("architectures", message);
}

fn producer(config: &mut Config) -> String {
    config.text("transformers_version").map_or_else(String::new, |version| format!("transformers {version}"))
}

fn missing(config: &Config, name: &str, parts: &[String], table: &ArchitectureTable) -> Diagnostic {
    let message = format!("is {name}: this network has {}, which cannot be compiled yet", parts.join(", and "));
    config.at("model_type", message).note(format!("{} can", table.names().join(", ")))
}

fn unknown(config: &Config, name: &str, table: &ArchitectureTable) -> Diagnostic {
    let e = config.at("model_type", format!("is {name}, of which there is no description"));
    e.note(format!("{} are described", table.names().join(", ")))
        .note("--architecture FILE reads a description of your own; docs/hugging-face.md shows one")
}

/// Whether a tensor is one of those that follow from the configuration, in any layer.
fn is_buffer(buffers: &[String], prefix: &str, tensor: &str) -> bool {
    let tensor = tensor.strip_prefix(prefix).unwrap_or(tensor);
    let fits = |pattern: &String| match pattern.split_once("{layer}") {
        None => tensor == pattern,
        Some((before, after)) => {
            let layer = tensor.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            layer.is_some_and(|layer| !layer.is_empty() && layer.bytes().all(|digit| digit.is_ascii_digit()))
        }
    };
    buffers.iter().any(fits)
}
