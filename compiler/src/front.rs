//! The path that every command takes from an ONNX file to a network: imported, raised, simplified, and proved to be the file's.
//!
//! `check` and `compile` go on from here, and so do the commands that run the dense network itself. None has another way in.

use crate::convert;
use crate::describe::Network;
use crate::files;
use crate::proof::{self, Proof};
use snnc_ir::Graph;
use snnc_ir::diagnostic::Diagnostics;
use snnc_onnx::Import;
pub use snnc_onnx::import::ImportOptions;
pub use snnc_onnx::import::inputs::{InputBindings, InputFill};
use snnc_passes::Pass;
use std::path::Path;

/// What a user says of an ONNX file; a compiled program needs none of it.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// What inputs hold, by name.
    pub inputs: InputBindings,
    /// Largest difference of the imported network's logits to the file's, as a share of their range: above 0, at most 1.
    pub import_tolerance: Option<f32>,
    /// Tokens of context that tables of computed positions are made for; without a number what the file's configuration says,
    /// at most 4096. A table of learned positions has its own length.
    pub context: Option<u32>,
}

impl OnnxOptions {
    /// The same for the file at `path`, with what the `config.json` beside it says.
    pub fn of_file(&self, path: &Path) -> ImportOptions {
        ImportOptions { bindings: self.inputs.clone(), context: self.context, configured: configured_context(path) }
    }
}

/// Keys of a configuration that say how long a sequence may be, by family.
const CONTEXT_KEYS: [&str; 4] = ["max_position_embeddings", "n_positions", "n_ctx", "seq_length"];

/// The longest sequence that the `config.json` beside a model says, in tokens.
fn configured_context(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(path.parent()?.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    CONTEXT_KEYS.iter().find_map(|key| config.get(key)?.as_u64()).and_then(|n| u32::try_from(n).ok())
}

/// Who is shown the graph: first as `imported`, then after every pass by its name.
pub type GraphWatch<'a> = dyn FnMut(&str, &Graph) + 'a;

/// The network of an ONNX file, which is proved to be the file's.
#[derive(Debug)]
pub struct DenseNetwork {
    /// At stage Tensor, simplified: what ranges are measured on.
    pub tensor: Graph,
    /// The same in a few words.
    pub network: Network,
    /// How near it is to its file.
    pub proof: Proof,
}

/// The network of a file that was imported. `watch` is shown the graph as `imported`, and after each pass by its name.
///
/// # Errors
/// What no part is known of, or differs from its file.
pub fn network(
    path: &Path,
    import: &Import,
    tolerance: Option<f32>,
    watch: &mut GraphWatch<'_>,
) -> Result<DenseNetwork, Diagnostics> {
    watch("imported", &import.graph);
    let mut watch = |pass: &Pass, _: &Graph, after: &Graph| watch(pass.name, after);
    let tensor = convert::dense(import.graph.clone(), import.rounds_activations, &mut watch)
        .map_err(|diagnostics| files::at(path, snnc_onnx::explained(import, diagnostics)))?;
    let network = Network::of(&tensor).map_err(|e| files::at(path, e.into()))?;
    let proof = proof::prove(import, &tensor, tolerance).map_err(|diagnostics| files::at(path, diagnostics))?;
    Ok(DenseNetwork { tensor, network, proof })
}
