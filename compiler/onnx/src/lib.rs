//! The ONNX front end: a file becomes a graph at the Imported stage.
//!
//! `read` gives the file as it is; `evaluate` says what a node gives on concrete arrays; `import` evaluates away all that
//! does not depend on the token ids and translates the rest. No shape is ever reasoned about symbolically: the file is
//! evaluated for several numbers of tokens, and what differs is a function of that number.

pub mod evaluate;
pub mod import;
pub mod mmap;
pub mod model;
pub mod proto;
pub mod read;
mod scan;
pub mod tensor;
mod tensor_data;
pub mod unsupported;

use model::{OnnxModel, OnnxNode};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, verify};
use std::path::Path;

/// Names of all operators that are known.
pub fn operators() -> impl Iterator<Item = &'static str> {
    evaluate::OPERATORS.iter().map(|(name, _)| *name).chain(import::CONTROL)
}

/// What an ONNX file became.
#[derive(Debug)]
pub struct Import {
    /// At stage Imported, verified; its one output is `logits`.
    pub graph: Graph,
    pub origin: OnnxOrigin,
    /// Whether the file rounds activations to codes, which the graph does not.
    pub rounds_activations: bool,
    /// The file itself: it shares its weights with the graph.
    pub model: OnnxModel,
}

/// Which file a graph came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxOrigin {
    /// Length of the file in bytes and its XXH3-64; tensors in files beside it are not counted.
    pub bytes: u64,
    pub hash: u64,
    /// What wrote the file, in its own words.
    pub producer: String,
    pub opset: i64,
    /// With those of branches.
    pub nodes: usize,
}

/// Reads and imports the ONNX file at `path`.
///
/// # Errors
/// Everything about the file that is wrong or not supported, each with its place in the file.
pub fn import(path: &Path) -> Result<Import, Diagnostics> {
    let model = read::read(path)?;
    import_model(model).map_err(|complaints| complaints.in_file(&path.display().to_string()))
}

/// Imports a file that was read.
///
/// # Errors
/// What the file has that GPT-2 has not, and everything in it that is not supported.
pub fn import_model(model: OnnxModel) -> Result<Import, Diagnostics> {
    let import::Imported { graph, rounds_activations } =
        import::import(&model).map_err(|complaints| explained(&model, complaints))?;
    verify::verify(&graph)?;
    let origin = OnnxOrigin {
        bytes: model.bytes,
        hash: model.hash,
        producer: model.producer.clone(),
        opset: model.opset(),
        nodes: model.graph.nodes.iter().map(OnnxNode::count).sum(),
    };
    Ok(Import { graph, origin, rounds_activations, model })
}

/// Diagnostics about nodes of a file. What the file has instead of GPT-2's parts is said in place of all that follows from
/// it; else every place is told with the module it belongs to.
pub fn explained(model: &OnnxModel, mut complaints: Diagnostics) -> Diagnostics {
    let traits = unsupported::traits(model);
    if !traits.is_empty() {
        let message = format!("this is not a GPT-2: it has {}", traits.join(", "));
        return Diagnostics::from(Diagnostic::new("", message).note(unsupported::TAKEN));
    }
    for complaint in complaints.iter_mut() {
        let node = model.graph.nodes.iter().find(|node| complaint.place == node.label());
        if let Some(node) = node.filter(|node| !node.module.is_empty()) {
            complaint.place = format!("{} in {}", complaint.place, node.module).into();
        }
    }
    complaints
}
