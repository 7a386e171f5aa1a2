//! The path that every command takes from an ONNX file or a Hugging Face folder to a network: imported, raised, simplified, and
//! proved to be the file's.
//!
//! `check` and `compile` go on from here, and so do the commands that run the dense network itself. None has another way in.
//! A folder has no nodes of its own to be compared with: what its description says is compared with references in tests.

use crate::convert;
use crate::describe::Network;
use crate::files::{self, DenseModel, Model};
use crate::proof::{self, Proof};
use snnc_hf::FolderOptions;
use snnc_hf::folder::{self, FolderKind};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, Stage, WeightStore};
use snnc_onnx::Import;
pub use snnc_onnx::import::ImportOptions;
pub use snnc_onnx::import::inputs::{InputBindings, InputFill};
use snnc_passes::Pass;
use std::path::{Path, PathBuf};

/// What a user says of an ONNX file; a compiled program needs none of it.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// What inputs hold, by name.
    pub inputs: InputBindings,
    /// Largest difference of the imported network's logits to the file's, as a share of their range: above 0, at most 1.
    pub import_tolerance: Option<f32>,
    /// Descriptions of architectures beside those of snnc, for folders.
    pub architectures: Option<PathBuf>,
    /// Tokens of context that tables of computed positions are made for; without a number what the file's configuration says,
    /// at most 4096. A table of learned positions has its own length.
    pub context: Option<u32>,
}

impl OnnxOptions {
    /// The same for the file at `path`, with what its configuration says.
    pub fn of_file(&self, path: &Path) -> ImportOptions {
        ImportOptions { bindings: self.inputs.clone(), context: self.context, configured: configured_context(path) }
    }
}

/// Keys of a configuration that say how long a sequence may be, by family.
const CONTEXT_KEYS: [&str; 4] = ["max_position_embeddings", "n_positions", "n_ctx", "seq_length"];

/// The longest sequence that the configuration of a model says, in tokens: `config.json` beside it or above its folder `onnx`, or
/// the `genai_config.json` of onnxruntime's builder.
fn configured_context(path: &Path) -> Option<u32> {
    let folder = path.parent()?;
    let above = folder.parent().filter(|_| folder.file_name().is_some_and(|name| name == "onnx"));
    let config = |folder: &Path, name: &str| -> Option<serde_json::Value> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(name)).ok()?).ok()
    };
    let tokens = [Some(folder), above].into_iter().flatten().find_map(|folder| {
        let by_config = || {
            let config = config(folder, "config.json")?;
            CONTEXT_KEYS.iter().find_map(|key| config.get(key)?.as_u64())
        };
        by_config().or_else(|| config(folder, "genai_config.json")?["model"]["context_length"].as_u64())
    });
    tokens.and_then(|tokens| u32::try_from(tokens).ok())
}

/// Who is shown the graph: first as `imported`, then after every pass by its name.
pub type GraphWatch<'a> = dyn FnMut(&str, &Graph) + 'a;

/// The network of a file or folder. That of an ONNX file is proved to be the file's.
#[derive(Debug)]
pub struct DenseNetwork {
    /// At stage Tensor, simplified: what ranges are measured on.
    pub tensor: Graph,
    /// The same in a few words.
    pub network: Network,
    /// How near it is to its file; `None` of a folder.
    pub proof: Option<Proof>,
}

/// Reads the model that a user named: a `.snn` or ONNX file, or a folder with weights or with an ONNX file.
///
/// # Errors
/// What cannot be read or is no model.
pub fn load(path: &Path, options: &OnnxOptions) -> Result<Model, Diagnostics> {
    load_kept(path, options, None)
}

/// The same; `store` keeps weights that are not f32 in their files.
///
/// # Errors
/// As of `load`; no room for weights.
pub fn load_kept(path: &Path, options: &OnnxOptions, store: Option<&dyn WeightStore>) -> Result<Model, Diagnostics> {
    if !path.is_dir() {
        return files::load_with(path, &options.of_file(path), store);
    }
    match folder::look(path)? {
        FolderKind::Onnx(file) => files::load_with(&file, &options.of_file(&file), store),
        FolderKind::Weights(weights) => {
            let options = FolderOptions { context: options.context, architectures: options.architectures.clone() };
            let import = snnc_hf::import(path, &weights, &options, &files::map, store)?;
            Ok(Model::Dense(DenseModel::Folder(Box::new(import))))
        }
    }
}

/// What is said of a folder's network instead of a proof.
pub const UNPROVED: &str = "a folder has no nodes of its own, so the network is not compared with it";

/// The network that was found; `store` keeps weights that are made for it. `watch` is shown the graph as `imported`, and after each pass by its name.
///
/// # Errors
/// What cannot be compiled, or differs from its file.
pub fn network(
    path: &Path,
    dense: &DenseModel,
    tolerance: Option<f32>,
    store: Option<&dyn WeightStore>,
    watch: &mut GraphWatch<'_>,
) -> Result<DenseNetwork, Diagnostics> {
    match dense {
        DenseModel::Onnx(import) => onnx_network(path, import, tolerance, store, watch),
        DenseModel::Folder(import) => {
            let (tensor, network) = simplified(&import.graph, false, store, watch).map_err(|e| files::at(path, e))?;
            let network = network.map_err(|e| files::at(path, e.into()))?;
            Ok(DenseNetwork { tensor, network, proof: None })
        }
    }
}

/// The same for an ONNX file.
///
/// # Errors
/// As of `network`.
pub fn onnx_network(
    path: &Path,
    import: &Import,
    tolerance: Option<f32>,
    store: Option<&dyn WeightStore>,
    watch: &mut GraphWatch<'_>,
) -> Result<DenseNetwork, Diagnostics> {
    let (tensor, network) = simplified(&import.graph, import.rounds_activations, store, watch)
        .map_err(|diagnostics| files::at(path, snnc_onnx::explained(import, diagnostics)))?;
    let network = network.map_err(|e| files::at(path, e.into()))?;
    let proof = proof::prove(import, &tensor, tolerance).map_err(|diagnostics| files::at(path, diagnostics))?;
    Ok(DenseNetwork { tensor, network, proof: Some(proof) })
}

/// The graph that ranges are measured on, and the network as it was before gains went into weights.
fn simplified(
    graph: &Graph,
    rounded: bool,
    store: Option<&dyn WeightStore>,
    watch: &mut GraphWatch<'_>,
) -> Result<(Graph, Result<Network, Diagnostic>), Diagnostics> {
    watch("imported", graph);
    let mut network = None;
    let mut watch = |pass: &Pass, before: &Graph, after: &Graph| {
        if network.is_none() && before.stage == Stage::Tensor {
            network = Some(Network::of(before));
        }
        watch(pass.name, after);
    };
    let tensor = convert::dense_kept(graph.clone(), rounded, store, &mut watch)?;
    let network = network.unwrap_or_else(|| Network::of(&tensor));
    Ok((tensor, network))
}

#[cfg(test)]
mod tests {
    use super::configured_context;

    #[test]
    fn a_configuration_lies_beside_a_model_or_above_it() {
        let folder = tempfile::tempdir().expect("a folder for a test");
        let onnx = folder.path().join("onnx");
        std::fs::create_dir(&onnx).expect("it is empty");
        let model = onnx.join("model.onnx");
        assert_eq!(configured_context(&model), None);
        std::fs::write(folder.path().join("config.json"), r#"{"n_positions": 300}"#).expect("there is room");
        assert_eq!(configured_context(&model), Some(300));
        std::fs::write(onnx.join("genai_config.json"), r#"{"model": {"context_length": 200}}"#).expect("there is room");
        assert_eq!(configured_context(&model), Some(200));
        std::fs::write(onnx.join("config.json"), r#"{"max_position_embeddings": 100}"#).expect("there is room");
        assert_eq!(configured_context(&model), Some(100));
    }
}
