//! The ONNX front end: a file becomes a graph at the Imported stage.
//!
//! | file | does |
//! |---|---|
//! | `proto`, `scan`, `read` | decode a file, after a look at where it is malformed |
//! | `model`, `tensor` | hold it: nodes by name, constants as arrays |
//! | `evaluate` | says what one node gives on arrays, and what a whole file gives |
//! | `import` | evaluates away all that does not depend on the token ids, and translates the rest |
//! | `finite` | refuses weights that are not finite, by the tensor's name |
//! | `unsupported` | says what a refused file has that is not taken |
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
pub mod export;
mod finite;
pub mod import;
pub mod mmap;
pub mod model;
pub mod proto;
pub mod read;
mod scan;
pub mod tensor;
mod tensor_data;
pub mod unsupported;

use import::ImportOptions;
use import::inputs::{self, InputBindings};
use model::{OnnxModel, OnnxNode};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, WeightStore, verify};
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
    /// The file's output that the graph computes.
    pub output: String,
    /// Whether that output is a hidden state, on which the table of tokens was put as a head.
    pub head_added: bool,
    /// The file's output of probabilities, where `output` is what its softmax takes.
    pub probabilities: Option<String>,
    /// What it has that snnc does not take, in words: why it may not be recognised.
    pub traits: Vec<String>,
    /// Where the context comes from, where the file does not say it.
    pub context_note: Option<String>,
    /// Sizes of inputs that were not taken as the file has them, in words.
    pub opened: Vec<String>,
    /// What a user said that inputs hold.
    pub bindings: InputBindings,
    /// The file itself: it shares its weights with the graph.
    pub model: OnnxModel,
}

impl Import {
    /// What the user should know of it, though it is no error.
    pub fn warnings(&self) -> Vec<String> {
        let head = format!(
            "no output can be logits: `{}` is a hidden state, and the table of tokens serves as its head",
            self.output
        );
        let softmax = self.probabilities.as_ref().map(|probabilities| {
            format!("`{probabilities}` holds probabilities: the logits are what its softmax takes, `{}`", self.output)
        });
        let opened = self.opened.iter().map(|opened| format!("the file {opened}"));
        self.head_added
            .then_some(head)
            .into_iter()
            .chain(softmax)
            .chain(opened)
            .chain(self.context_note.clone())
            .collect()
    }
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
    import_with(path, &ImportOptions::default(), None)
}

/// The same, with what a user says of it; `store` keeps weights that are no f32 in their files.
///
/// # Errors
/// As of `import`; a name that is no input's, a context that cannot be had, no room for weights.
pub fn import_with(
    path: &Path,
    options: &ImportOptions,
    store: Option<&dyn WeightStore>,
) -> Result<Import, Diagnostics> {
    let model = read::read_kept(path, store)?;
    import_model_with(model, options).map_err(|diagnostics| diagnostics.in_file(&path.display().to_string()))
}

/// Imports a file that was read.
///
/// # Errors
/// What the file has that snnc does not take, and everything in it that is not supported.
pub fn import_model(model: OnnxModel) -> Result<Import, Diagnostics> {
    import_model_with(model, &ImportOptions::default())
}

/// The same, with what a user says of it.
///
/// # Errors
/// As of `import_model`; a name that is no input's, a context that cannot be had.
pub fn import_model_with(mut model: OnnxModel, options: &ImportOptions) -> Result<Import, Diagnostics> {
    let opened = inputs::open(&mut model.graph.inputs);
    let import::Imported { graph, rounds_activations, output, probabilities, head_added, traits, context_note } =
        import::import(&model, options).map_err(|import::Refused { diagnostics, traits }| {
            let mut told = explain(&model, &traits, diagnostics).or_code(ErrorCode::ONNX_UNSUPPORTED);
            if let Some(first) = told.first_mut() {
                let named = std::mem::replace(first, Diagnostic::new("", ""));
                *first = opened.iter().fold(named, |named, opened| named.note(format!("the file {opened}")));
            }
            told
        })?;
    finite::check(&model, &graph, &output)?;
    verify::verify(&graph)?;
    let origin = OnnxOrigin {
        bytes: model.bytes,
        hash: model.hash,
        producer: model.producer.clone(),
        opset: model.opset(),
        nodes: model.graph.nodes.iter().map(OnnxNode::count).sum(),
    };
    let bindings = options.bindings.clone();
    Ok(Import {
        graph,
        origin,
        rounds_activations,
        output,
        probabilities,
        head_added,
        traits,
        context_note,
        opened,
        bindings,
        model,
    })
}

/// Diagnostics about nodes of a file that was imported. What the file has that is not taken is said in place of all
/// that follows from it; else every place is told with the module it belongs to.
pub fn explained(import: &Import, diagnostics: Diagnostics) -> Diagnostics {
    explain(&import.model, &import.traits, diagnostics).or_code(ErrorCode::ONNX_UNSUPPORTED)
}

fn explain(model: &OnnxModel, seen: &[String], mut diagnostics: Diagnostics) -> Diagnostics {
    if diagnostics.iter().any(|diagnostic| diagnostic.code != ErrorCode::NONE && diagnostic.code != ErrorCode::RAISE) {
        return diagnostics;
    }
    let mut traits = unsupported::traits(model);
    let named = |seen: &&String| !traits.iter().any(|known| known.starts_with(seen.split(':').next().unwrap_or(seen)));
    let more: Vec<String> = seen.iter().filter(named).cloned().collect();
    traits.extend(more);
    if !traits.is_empty() {
        let message = format!("this network has what snnc does not take: {}", traits.join(", "));
        return Diagnostics::from(Diagnostic::new("", message).note(unsupported::TAKEN));
    }
    if diagnostics.is_empty() {
        let message = "the nodes of this network are known, but not the way in which they are put together";
        diagnostics.push(Diagnostic::new("", message).code(ErrorCode::RAISE).note(unsupported::TAKEN));
    }
    for diagnostic in diagnostics.iter_mut() {
        let node = model.graph.nodes.iter().find(|node| diagnostic.place == node.label());
        if let Some(node) = node.filter(|node| !node.module.is_empty()) {
            diagnostic.place = format!("{} in {}", diagnostic.place, node.module).into();
        }
    }
    diagnostics
}
