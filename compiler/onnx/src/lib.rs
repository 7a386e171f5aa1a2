//! The ONNX front end: a file becomes a graph at the Imported stage.
//!
//! | file | does |
//! |---|---|
//! | `proto`, `scan`, `read` | decode a file, after a look at where it is malformed |
//! | `model`, `tensor` | hold it: nodes by name, constants as arrays |
//! | `evaluate` | says what one node gives on arrays, and what a whole file gives |
//! | `import` | evaluates away all that does not depend on the token ids, and translates the rest |
//! | `unsupported` | says what a refused file has that GPT-2 has not |
//!
//! No shape is ever reasoned about symbolically: the file is evaluated for several numbers of tokens, and what differs is a
//! function of that number.
//!
//! A network of two tables, token ids to the sum of their rows:
//!
//! ```
//! use prost::Message;
//! use snnc_onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
//! use snnc_onnx::proto::{DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto};
//!
//! let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
//!     input: inputs.iter().map(|name| name.to_string()).collect(),
//!     output: vec![output.into()],
//!     op_type: op.into(),
//!     ..Default::default()
//! };
//! let table = |name: &str, rows: i64| TensorProto {
//!     name: name.into(),
//!     dims: vec![rows, 4],
//!     data_type: 1,
//!     float_data: (0..rows * 4).map(|i| i as f32).collect(),
//!     ..Default::default()
//! };
//! let integer = |name: &str, dims: &[i64], value| TensorProto {
//!     name: name.into(),
//!     dims: dims.to_vec(),
//!     data_type: 7,
//!     int64_data: vec![value],
//!     ..Default::default()
//! };
//! let open = DimensionProto::default();
//! let ids = TensorTypeProto { elem_type: 7, shape: Some(TensorShapeProto { dim: vec![open.clone(), open] }) };
//! let graph = GraphProto {
//!     node: vec![
//!         node("Shape", &["input_ids"], "shape"),
//!         node("Gather", &["shape", "one"], "tokens"),
//!         node("Range", &["zero", "tokens", "one"], "range"),
//!         node("Unsqueeze", &["range", "axis"], "positions"),
//!         node("Gather", &["wte", "input_ids"], "by_token"),
//!         node("Gather", &["wpe", "positions"], "by_position"),
//!         node("Add", &["by_token", "by_position"], "logits"),
//!     ],
//!     initializer: vec![
//!         table("wte", 10),
//!         table("wpe", 8),
//!         integer("zero", &[], 0),
//!         integer("one", &[], 1),
//!         integer("axis", &[1], 0),
//!     ],
//!     input: vec![ValueInfoProto { name: "input_ids".into(), r#type: Some(TypeProto { tensor_type: Some(ids) }) }],
//!     output: vec![ValueInfoProto { name: "logits".into(), ..Default::default() }],
//!     ..Default::default()
//! };
//! let opset_import = vec![OperatorSetIdProto { version: 17, ..Default::default() }];
//! let file = ModelProto { graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec();
//!
//! let import = snnc_onnx::import_model(snnc_onnx::read::read_bytes(&file)?)?;
//! assert_eq!((import.graph.context, import.origin.nodes), (8, 7));
//! let text = snnc_ir::text::print(&import.graph);
//! assert!(text.contains("%3 = embed(%2, @wpe) : f32[tokens,4]"), "{text}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

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
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
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
    /// Which file it was, and how large.
    pub origin: OnnxOrigin,
    /// Whether the file rounds activations to codes, which the graph does not.
    pub rounds_activations: bool,
    /// The file itself: it shares its weights with the graph.
    pub model: OnnxModel,
}

/// Which file a graph came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnnxOrigin {
    /// Length of the file in bytes; tensors in files beside it are not counted.
    pub bytes: u64,
    /// XXH3-64 of its bytes.
    pub hash: u64,
    /// What wrote the file, in its own words.
    pub producer: String,
    /// Version of ONNX's own operators.
    pub opset: i64,
    /// Nodes, with those of branches.
    pub nodes: usize,
}

/// Reads and imports the ONNX file at `path`.
///
/// # Errors
/// Everything about the file that is wrong or not supported, each with its place in the file.
pub fn import(path: &Path) -> Result<Import, Diagnostics> {
    let model = read::read(path)?;
    import_model(model).map_err(|diagnostics| diagnostics.in_file(&path.display().to_string()))
}

/// Imports a file that was read.
///
/// # Errors
/// What the file has that GPT-2 has not, and everything in it that is not supported.
pub fn import_model(model: OnnxModel) -> Result<Import, Diagnostics> {
    let import::Imported { graph, rounds_activations } =
        import::import(&model).map_err(|e| explained(&model, e).or_code(ErrorCode::ONNX_UNSUPPORTED))?;
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
pub fn explained(model: &OnnxModel, mut diagnostics: Diagnostics) -> Diagnostics {
    let traits = unsupported::traits(model);
    if !traits.is_empty() {
        let message = format!("this is not a GPT-2: it has {}", traits.join(", "));
        return Diagnostics::from(Diagnostic::new("", message).note(unsupported::TAKEN));
    }
    for diagnostic in diagnostics.iter_mut() {
        let node = model.graph.nodes.iter().find(|node| diagnostic.place == node.label());
        if let Some(node) = node.filter(|node| !node.module.is_empty()) {
            diagnostic.place = format!("{} in {}", diagnostic.place, node.module).into();
        }
    }
    diagnostics
}
