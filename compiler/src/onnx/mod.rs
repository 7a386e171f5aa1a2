//! The ONNX front end: a file becomes a graph at the Imported stage.
//!
//! `read` gives the file as it is; `evaluate` says what a node gives on concrete arrays; `import` evaluates away all that
//! does not depend on the token ids and translates the rest. No shape is ever reasoned about symbolically: the file is
//! evaluated for several numbers of tokens, and what differs is a function of that number.

pub mod evaluate;
pub mod import;
pub mod read;
pub mod tensor;
pub mod wire;

use crate::{Complaints, files};
use snnc_ir::{Graph, verify};
use std::path::Path;

/// What an ONNX file became.
#[derive(Debug)]
pub struct Import {
    /// At stage Imported, verified; its one output is `logits`.
    pub graph: Graph,
    pub origin: Origin,
}

/// Which file a graph came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Length of the file in bytes and its XXH3-64; tensors in files beside it are not counted.
    pub bytes: u64,
    pub hash: u64,
    /// What wrote the file, in its own words.
    pub producer: String,
    pub opset: i64,
    pub nodes: usize,
}

/// Reads and imports the ONNX file at `path`.
///
/// # Errors
/// Everything about the file that is wrong or not supported, each with its place in the file.
pub fn import(path: &Path) -> Result<Import, Complaints> {
    let model = read::read(path).map_err(|e| vec![e])?;
    import_model(model).map_err(|complaints| files::at(path, complaints))
}

/// Imports a file that was read.
pub fn import_model(model: read::Model) -> Result<Import, Complaints> {
    let (bytes, hash, opset, nodes) = (model.bytes, model.hash, model.opset(), model.graph.nodes.len());
    let graph = import::import(&model)?;
    verify::verify(&graph)?;
    Ok(Import { graph, origin: Origin { bytes, hash, producer: model.producer, opset, nodes } })
}
