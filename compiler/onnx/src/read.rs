//! Reads an ONNX file: protobuf, checked, decoded over the mapped file, and made a model of names and arrays.
//!
//! `scan` says where the file is malformed before anything is made of it. Weights of f32 are slices of the mapped file
//! where they lie on a multiple of four, which no exporter promises; the others are copied, once. So memory is the file's
//! size and little more. Fields that say nothing about the network (documentation, types of inner values, training) are
//! left out.

use crate::mmap::ModelFile;
use crate::model::{Attribute, OnnxGraph, OnnxModel, OnnxNode, Port};
use crate::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::scan::scan;
use crate::tensor::{OnnxArray, OnnxElem};
use crate::tensor_data::{self, TensorSources};
use bytes::Bytes;
use functions::Functions;
use indexmap::IndexMap;
use prost::Message;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::{Diagnostic, WeightStore};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads the ONNX file at `path`, and the files beside it that its tensors name.
///
/// # Errors
/// What is wrong and at which byte, tensor or file.
pub fn read(path: &Path) -> Result<OnnxModel, Diagnostic> {
    read_kept(path, None)
}

/// The same; `store` keeps f32 that the files have in other types.
///
/// # Errors
/// As of `read`; no room for weights.
pub fn read_kept(path: &Path, store: Option<&dyn WeightStore>) -> Result<OnnxModel, Diagnostic> {
    let unread = |what: String| Diagnostic::new(path.display().to_string(), what).code(ErrorCode::FILE);
    let failed = |e: std::io::Error| unread(format!("cannot be read: {e}"));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(unread("is not a file".into()));
    }
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let file = ModelFile::open(path).map_err(failed)?;
    model(file, |file| TensorSources::new(file, Some(folder), store))
        .map_err(|e| e.in_file(path.display().to_string()).code(ErrorCode::ONNX_FILE))
}

/// The files beside the ONNX file at `path` that its tensors name, whether or not they are there; none of a file that is no ONNX.
pub fn external_files(path: &Path) -> Vec<PathBuf> {
    let proto = || {
        let is_file = std::fs::metadata(path).is_ok_and(|meta| meta.is_file());
        let bytes = is_file.then(|| ModelFile::open(path).ok())?.map(|file| file.bytes())?;
        scan(&bytes).ok()?;
        ModelProto::decode(bytes).ok()?.graph
    };
    let Some(graph) = proto() else { return Vec::new() };
    let attributes = graph.node.iter().flat_map(|node| &node.attribute).flat_map(|attribute| &attribute.t);
    let entries = graph.initializer.iter().chain(attributes).flat_map(|tensor| &tensor.external_data);
    let locations: BTreeSet<&str> =
        entries.filter(|entry| entry.key == "location").map(|entry| entry.value.as_str()).collect();
    locations.into_iter().map(|location| path.with_file_name(location)).collect()
}

/// Reads an ONNX file from bytes, which are copied; it may not name other files.
///
/// # Errors
/// What is wrong and at which byte or tensor.
pub fn read_bytes(bytes: &[u8]) -> Result<OnnxModel, Diagnostic> {
    let file = ModelFile::of(Bytes::copy_from_slice(bytes));
    model(file, |file| TensorSources::new(file, None, None)).map_err(|e| e.code(ErrorCode::ONNX_FILE))
}

fn model<'a>(file: ModelFile, sources: impl FnOnce(ModelFile) -> TensorSources<'a>) -> Result<OnnxModel, Diagnostic> {
    let bytes = file.bytes();
    scan(&bytes)?;
    let len = bytes.len() as u64;
    let proto = ModelProto::decode(bytes).map_err(|e| Diagnostic::new("", format!("is no ONNX file: {e}")))?;
    let graph = proto.graph.ok_or_else(|| {
        Diagnostic::new("", "there is no graph in it").note("an ONNX file was expected (protobuf with a GraphProto)")
    })?;
    let graph = Functions::of(&proto.functions, &proto.opset_import).inlined(graph)?;
    let mut sources = sources(file);
    let graph = graph_of(graph, &mut sources)?;
    let producer = [proto.producer_name, proto.producer_version].join(" ").trim().to_string();
    let opsets = proto.opset_import.into_iter().map(|opset| (opset.domain, opset.version)).collect();
    Ok(OnnxModel { opsets, producer, graph, bytes: len, hash: sources.hash() })
}

fn graph_of(proto: GraphProto, sources: &mut TensorSources<'_>) -> Result<OnnxGraph, Diagnostic> {
    let mut initializers = IndexMap::with_capacity(proto.initializer.len());
    for tensor in proto.initializer {
        let (name, array) = array_of(tensor, sources)?;
        if initializers.insert(name.clone(), Arc::new(array)).is_some() {
            return Err(Diagnostic::new(format!("tensor {name}"), "there are two initializers of this name"));
        }
    }
    let nodes = proto.node.into_iter().map(|node| node_of(node, sources)).collect::<Result<_, Diagnostic>>()?;
    // Old files list initializers among the inputs as well.
    let inputs = proto.input.into_iter().map(port_of).filter(|port| !initializers.contains_key(&port.name)).collect();
    let outputs = proto.output.into_iter().map(port_of).collect();
    Ok(OnnxGraph { inputs, outputs, nodes: ordered(nodes), initializers })
}

fn array_of(tensor: TensorProto, sources: &mut TensorSources<'_>) -> Result<(String, OnnxArray), Diagnostic> {
    let name = tensor.name.clone();
    let place = if name.is_empty() { "a tensor without a name".to_string() } else { format!("tensor {name}") };
    let array = tensor_data::array(tensor, sources).map_err(|message| Diagnostic::new(place, message))?;
    Ok((name, array))
}

fn port_of(proto: ValueInfoProto) -> Port {
    let tensor = proto.r#type.and_then(|kind| kind.tensor_type).unwrap_or_default();
    let dims = tensor.shape.map_or(Vec::new(), |shape| shape.dim);
    let size = |value: Option<i64>| value.and_then(|size| usize::try_from(size).ok());
    Port {
        name: proto.name,
        elem: OnnxElem::of_onnx(tensor.elem_type),
        sizes: dims.into_iter().map(|dim| size(dim.dim_value)).collect(),
    }
}

fn node_of(proto: NodeProto, sources: &mut TensorSources<'_>) -> Result<OnnxNode, Diagnostic> {
    let mut attributes = IndexMap::with_capacity(proto.attribute.len());
    for mut attribute in proto.attribute {
        let name = std::mem::take(&mut attribute.name);
        attributes.insert(name, attribute_of(attribute, sources)?);
    }
    let scopes = proto.metadata_props.iter().rfind(|entry| entry.key == NAME_SCOPES);
    Ok(OnnxNode {
        name: proto.name,
        op_type: proto.op_type,
        domain: if proto.domain == "ai.onnx" { String::new() } else { proto.domain },
        inputs: proto.input,
        outputs: proto.output,
        attributes,
        module: scopes.map_or(String::new(), |entry| innermost_module(&entry.value)),
    })
}

/// The attribute's own kind decides; files older than IR version 2 name none, and the field that is there does.
fn attribute_of(proto: AttributeProto, sources: &mut TensorSources<'_>) -> Result<Attribute, Diagnostic> {
    let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
    Ok(match (proto.kind(), proto.t, proto.g) {
        (1, ..) => Attribute::Float(proto.f.unwrap_or_default()),
        (2, ..) => Attribute::Int(proto.i.unwrap_or_default()),
        (3, ..) => Attribute::Text(text(proto.s.unwrap_or_default())),
        (4, Some(tensor), _) => Attribute::Tensor(Arc::new(array_of(tensor, sources)?.1)),
        (5, _, Some(graph)) => Attribute::Graph(Box::new(graph_of(graph, sources)?)),
        (6, ..) => Attribute::Floats(proto.floats),
        (7, ..) => Attribute::Ints(proto.ints),
        (8, ..) => Attribute::Texts(proto.strings.into_iter().map(text).collect()),
        (kind, ..) => Attribute::Other(kind),
    })
}

/// Nodes after those whose results they need. ONNX wants files to be so, and some converters forget it. What no order can
/// help stays where it was.
fn ordered(nodes: Vec<OnnxNode>) -> Vec<OnnxNode> {
    let makers: HashMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .flat_map(|(i, node)| node.outputs.iter().map(move |name| (name.as_str(), i)))
        .collect();
    let needs: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| node.needs().into_iter().filter_map(|name| makers.get(name).copied()).collect())
        .collect();
    if needs.iter().enumerate().all(|(i, needs)| needs.iter().all(|&maker| maker < i)) {
        return nodes;
    }
    let mut done = vec![false; nodes.len()];
    let mut order = Vec::with_capacity(nodes.len());
    let mut open: Vec<(usize, usize)> = Vec::new();
    for first in 0..nodes.len() {
        open.push((first, 0));
        while let Some((i, next)) = open.pop() {
            if next == 0 && std::mem::replace(&mut done[i], true) {
                continue;
            }
            match needs[i].get(next) {
                Some(&maker) => {
                    open.push((i, next + 1));
                    if !done[maker] {
                        open.push((maker, 0));
                    }
                }
                None => order.push(i),
            }
        }
    }
    drop((makers, needs));
    let mut nodes: Vec<Option<OnnxNode>> = nodes.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| nodes[i].take()).collect()
}

/// Where PyTorch keeps the modules that a node is inside of.
const NAME_SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The last but one of a list in Python's notation; the last is the node itself.
fn innermost_module(scopes: &str) -> String {
    let names: Vec<&str> = scopes.split('\'').skip(1).step_by(2).collect();
    names.iter().rev().nth(1).map_or(String::new(), |name| (*name).to_string())
}

mod functions;
#[cfg(test)]
mod tests;
