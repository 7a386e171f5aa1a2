//! Reads an ONNX file: protobuf to a `OnnxModel` of our own, tensors converted one by one.
//!
//! The file is read once, front to back, through a buffer; the bytes of an f32 tensor are read to where they stay. So
//! memory is the file's size and little more. What a tensor's sizes say is checked against the bytes that are there
//! before anything is made of them. Fields that say nothing about the network (documentation, types of inner values,
//! training) are left out.

use super::tensor::{OnnxArray, OnnxElem};
use super::tensor_data::{Beside, RawTensor};
use super::wire::{Payload, Watched, Wire};
use indexmap::IndexMap;
use snnc_ir::Diagnostic;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// An ONNX file.
#[derive(Debug, Default)]
pub struct OnnxModel {
    /// Version of the operators of each domain; ONNX's own domain is "".
    pub opsets: IndexMap<String, i64>,
    pub producer: String,
    pub graph: OnnxGraph,
    /// Length of the file and its XXH3-64 (without external data).
    pub bytes: u64,
    pub hash: u64,
}

/// The file's graph, or one inside a node.
#[derive(Clone, Debug, Default)]
pub struct OnnxGraph {
    /// Without those that are initializers, which old files list as well.
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub nodes: Vec<OnnxNode>,
    pub initializers: IndexMap<String, Arc<OnnxArray>>,
}

/// A named input or output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    pub name: String,
    /// `None` for types that this reader does not know.
    pub elem: Option<OnnxElem>,
    /// `None` where a size is symbolic or missing.
    pub sizes: Vec<Option<usize>>,
}

#[derive(Clone, Debug, Default)]
pub struct OnnxNode {
    pub name: String,
    pub op_type: String,
    pub domain: String,
    /// "" is an optional input that is left out.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: IndexMap<String, Attribute>,
    /// The module that the node is a part of, where the exporter says so: `transformer.h.3.attn`.
    pub module: String,
}

#[derive(Clone, Debug)]
pub enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
    Tensor(Arc<OnnxArray>),
    Graph(Box<OnnxGraph>),
    /// A kind that GPT-2 files do not have; its ONNX number.
    Other(u64),
}

impl OnnxModel {
    /// Version of ONNX's own operators.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").or_else(|| self.opsets.get("ai.onnx")).copied().unwrap_or(1)
    }
}

impl OnnxGraph {
    /// Elements of all initializers: what a file may ask for grows with what is in it.
    pub fn elements(&self) -> usize {
        self.initializers.values().map(|array| array.len()).sum()
    }

    /// The nodes that `outputs` need, in order.
    pub fn needed<'g>(&'g self, outputs: &[&'g str]) -> Vec<&'g OnnxNode> {
        let mut names: HashSet<&str> = outputs.iter().copied().collect();
        let mut needed = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|name| names.contains(name.as_str())) {
                names.extend(node.needs());
                needed.push(node);
            }
        }
        needed.reverse();
        needed
    }
}

impl OnnxNode {
    /// How messages and origins call the node: its name, or its first output's.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.outputs.first().map_or(&self.op_type, |name| name) } else { &self.name }
    }

    /// The operator with its domain, as messages and tables name it: `Add`, `com.microsoft.FastGelu`.
    pub fn operator(&self) -> Cow<'_, str> {
        match self.domain.as_str() {
            "" => Cow::Borrowed(&self.op_type),
            domain => Cow::Owned(format!("{domain}.{}", self.op_type)),
        }
    }

    /// The names of all values that the node needs: its inputs, and what graphs inside it take from outside.
    pub fn needs(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.inputs.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        for graph in self.graphs() {
            names.extend(graph.nodes.iter().flat_map(OnnxNode::needs));
            names.extend(graph.outputs.iter().map(|port| port.name.as_str()));
        }
        names
    }

    /// The node and all that are inside it.
    pub fn count(&self) -> usize {
        1 + self.graphs().flat_map(|graph| &graph.nodes).map(OnnxNode::count).sum::<usize>()
    }

    fn graphs(&self) -> impl Iterator<Item = &OnnxGraph> {
        self.attributes.values().filter_map(|attribute| match attribute {
            Attribute::Graph(graph) => Some(&**graph),
            _ => None,
        })
    }

    pub fn graph(&self, name: &str) -> Option<&OnnxGraph> {
        match self.attributes.get(name) {
            Some(Attribute::Graph(x)) => Some(x),
            _ => None,
        }
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(x)) => Some(*x),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(x)) => Some(x),
            _ => None,
        }
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(x)) => Some(*x),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(x)) => Some(x),
            _ => None,
        }
    }

    pub fn tensor(&self, name: &str) -> Option<&Arc<OnnxArray>> {
        match self.attributes.get(name) {
            Some(Attribute::Tensor(x)) => Some(x),
            _ => None,
        }
    }
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

/// The most nodes, initializers or names of one message: they are larger in memory than in the file.
const ITEMS_MAX: usize = 1 << 20;

/// Reads the ONNX file at `path`, and the files beside it that its tensors name.
///
/// # Errors
/// What is wrong and at which byte, tensor or file.
pub fn read(path: &Path) -> Result<OnnxModel, Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}"));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Diagnostic::new(path.display().to_string(), "is not a file"));
    }
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    read_stream(file, metadata.len(), Some(folder)).map_err(|error| error.in_file(path.display().to_string()))
}

/// Reads an ONNX file from bytes; it may not name other files.
pub fn read_bytes(bytes: &[u8]) -> Result<OnnxModel, Diagnostic> {
    read_stream(bytes, bytes.len() as u64, None)
}

fn read_stream(input: impl Read, len: u64, folder: Option<PathBuf>) -> Result<OnnxModel, Diagnostic> {
    let mut hash = Xxh3::new();
    let watched = Watched { input, see: |bytes: &[u8]| hash.update(bytes) };
    let wire = Wire::new(BufReader::with_capacity(1 << 18, watched), len);
    let mut reader = Reader { wire, beside: Beside::new(folder) };
    let (opsets, producer, graph) = reader.model()?;
    drop(reader);
    let graph = graph.ok_or_else(|| {
        Diagnostic::new("", "there is no graph in it").note("an ONNX file was expected (protobuf with a GraphProto)")
    })?;
    Ok(OnnxModel { opsets, producer, graph, bytes: len, hash: hash.digest() })
}

struct Reader<R> {
    wire: Wire<R>,
    /// Files of external data.
    beside: Beside,
}

impl<R: BufRead> Reader<R> {
    fn model(&mut self) -> Result<(IndexMap<String, i64>, String, Option<OnnxGraph>), Diagnostic> {
        let (mut opsets, mut producer, mut graph) = (IndexMap::new(), String::new(), None);
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (2 | 3, Payload::Bytes(len)) => {
                    let word = self.wire.text(len)?;
                    producer = [producer, word].join(" ").trim().to_string();
                }
                (7, Payload::Bytes(_)) if graph.is_some() => return Err(self.wire.error("there are two graphs in it")),
                (7, Payload::Bytes(len)) => graph = Some(self.nested(len, Self::graph)?),
                (8, Payload::Bytes(len)) => {
                    let (domain, version) = self.nested(len, Self::opset)?;
                    opsets.insert(domain, version);
                }
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok((opsets, producer, graph))
    }

    /// `read` inside the next `len` bytes.
    fn nested<T>(&mut self, len: u64, read: impl FnOnce(&mut Self) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
        let outer = self.wire.enter(len)?;
        let result = read(self)?;
        self.wire.leave(outer);
        Ok(result)
    }

    fn opset(&mut self) -> Result<(String, i64), Diagnostic> {
        let (mut domain, mut version) = (String::new(), 0);
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => domain = self.wire.text(len)?,
                (2, Payload::Varint(x)) => version = x as i64,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok((domain, version))
    }

    fn graph(&mut self) -> Result<OnnxGraph, Diagnostic> {
        let mut graph = OnnxGraph::default();
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => {
                    self.limit(graph.nodes.len(), "nodes")?;
                    graph.nodes.push(self.nested(len, Self::node)?);
                }
                (5, Payload::Bytes(len)) => {
                    self.limit(graph.initializers.len(), "initializers")?;
                    let (name, array) = self.tensor(len)?;
                    if graph.initializers.insert(name.clone(), Arc::new(array)).is_some() {
                        return Err(Diagnostic::new(
                            format!("tensor {name}"),
                            "there are two initializers of this name",
                        ));
                    }
                }
                (11, Payload::Bytes(len)) => {
                    self.limit(graph.inputs.len(), "inputs")?;
                    graph.inputs.push(self.nested(len, Self::port)?);
                }
                (12, Payload::Bytes(len)) => {
                    self.limit(graph.outputs.len(), "outputs")?;
                    graph.outputs.push(self.nested(len, Self::port)?);
                }
                (15, Payload::Bytes(_)) => return Err(self.wire.error("sparse initializers are not supported")),
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        let initializers = &graph.initializers;
        graph.inputs.retain(|port| !initializers.contains_key(&port.name));
        graph.nodes = ordered(graph.nodes);
        Ok(graph)
    }

    fn limit(&self, count: usize, what: &str) -> Result<(), Diagnostic> {
        if count < ITEMS_MAX { Ok(()) } else { Err(self.wire.error(format!("there are more than {ITEMS_MAX} {what}"))) }
    }

    fn port(&mut self) -> Result<Port, Diagnostic> {
        let mut port = Port::default();
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => port.name = self.wire.text(len)?,
                (2, Payload::Bytes(len)) => self.nested(len, |r| r.port_type(&mut port))?,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(port)
    }

    fn port_type(&mut self, port: &mut Port) -> Result<(), Diagnostic> {
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => self.nested(len, |r| r.tensor_type(port))?,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(())
    }

    fn tensor_type(&mut self, port: &mut Port) -> Result<(), Diagnostic> {
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Varint(x)) => port.elem = OnnxElem::of_onnx(x as i64),
                (2, Payload::Bytes(len)) => self.nested(len, |r| r.shape(&mut port.sizes))?,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(())
    }

    fn shape(&mut self, sizes: &mut Vec<Option<usize>>) -> Result<(), Diagnostic> {
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => {
                    self.limit(sizes.len(), "sizes")?;
                    sizes.push(self.nested(len, Self::dimension)?);
                }
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(())
    }

    fn dimension(&mut self) -> Result<Option<usize>, Diagnostic> {
        let mut size = None;
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Varint(x)) => size = usize::try_from(x as i64).ok(),
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(size)
    }

    fn node(&mut self) -> Result<OnnxNode, Diagnostic> {
        let mut node = OnnxNode::default();
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => {
                    self.limit(node.inputs.len(), "inputs of a node")?;
                    node.inputs.push(self.wire.text(len)?);
                }
                (2, Payload::Bytes(len)) => {
                    self.limit(node.outputs.len(), "outputs of a node")?;
                    node.outputs.push(self.wire.text(len)?);
                }
                (3, Payload::Bytes(len)) => node.name = self.wire.text(len)?,
                (4, Payload::Bytes(len)) => node.op_type = self.wire.text(len)?,
                (5, Payload::Bytes(len)) => {
                    let (name, attribute) = self.nested(len, Self::attribute)?;
                    node.attributes.insert(name, attribute);
                }
                (7, Payload::Bytes(len)) => node.domain = self.wire.text(len)?,
                (9, Payload::Bytes(len)) => {
                    let (key, value) = self.nested(len, Self::entry)?;
                    if key == NAME_SCOPES {
                        node.module = innermost_module(&value);
                    }
                }
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        if node.domain == "ai.onnx" {
            node.domain.clear();
        }
        Ok(node)
    }

    /// The attribute's own kind decides; files older than IR version 2 name none, and the field that is there does.
    fn attribute(&mut self) -> Result<(String, Attribute), Diagnostic> {
        let (mut name, mut kind, mut seen) = (String::new(), 0, 0);
        let (mut float, mut int, mut text, mut tensor, mut graph) = (0.0, 0, String::new(), None, None);
        let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        while let Some((number, payload)) = self.wire.field()? {
            seen = if (2..=11).contains(&number) { number } else { seen };
            match (number, payload) {
                (1, Payload::Bytes(len)) => name = self.wire.text(len)?,
                (2, Payload::Fixed32(b)) => float = f32::from_le_bytes(b),
                (3, Payload::Varint(x)) => int = x as i64,
                (4, Payload::Bytes(len)) => text = self.words(len)?,
                (5, Payload::Bytes(len)) => tensor = Some(self.tensor(len)?.1),
                (6, Payload::Bytes(len)) => graph = Some(self.nested(len, Self::graph)?),
                (7, Payload::Fixed32(b)) => floats.push(f32::from_le_bytes(b)),
                (7, Payload::Bytes(len)) => floats.extend(floats_of(&self.wire.bytes(len)?)),
                (8, Payload::Varint(x)) => ints.push(x as i64),
                (8, Payload::Bytes(len)) => self.wire.packed(len, &mut ints)?,
                (9, Payload::Bytes(len)) => texts.push(self.words(len)?),
                (20, Payload::Varint(x)) => kind = x,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        // The kinds' numbers are those of the fields less one, up to 10.
        let kind = if kind == 0 { seen.saturating_sub(1) } else { kind };
        let attribute = match (kind, tensor, graph) {
            (1, _, _) => Attribute::Float(float),
            (2, _, _) => Attribute::Int(int),
            (3, _, _) => Attribute::Text(text),
            (4, Some(tensor), _) => Attribute::Tensor(Arc::new(tensor)),
            (5, _, Some(graph)) => Attribute::Graph(Box::new(graph)),
            (6, _, _) => Attribute::Floats(floats),
            (7, _, _) => Attribute::Ints(ints),
            (8, _, _) => Attribute::Texts(texts),
            _ => Attribute::Other(kind),
        };
        Ok((name, attribute))
    }

    /// A text that need not be UTF-8.
    fn words(&mut self, len: u64) -> Result<String, Diagnostic> {
        Ok(String::from_utf8_lossy(&self.wire.bytes(len)?).into_owned())
    }

    fn tensor(&mut self, len: u64) -> Result<(String, OnnxArray), Diagnostic> {
        let at = self.wire.at();
        let raw = self.nested(len, Self::raw_tensor)?;
        let name = raw.name.clone();
        let place = if name.is_empty() { format!("tensor at byte {at}") } else { format!("tensor {name}") };
        let array = raw.array(&mut self.beside).map_err(|message| Diagnostic::new(place, message))?;
        Ok((name, array))
    }

    fn raw_tensor(&mut self) -> Result<RawTensor, Diagnostic> {
        let mut raw = RawTensor::default();
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Varint(x)) => raw.dims.push(x as i64),
                (1, Payload::Bytes(len)) => self.wire.packed(len, &mut raw.dims)?,
                (2, Payload::Varint(x)) => raw.elem = x as i64,
                (4, Payload::Fixed32(b)) => raw.floats.extend(b),
                (4, Payload::Bytes(len)) => append(&mut raw.floats, self.wire.bytes(len)?),
                (5 | 7 | 11, Payload::Varint(x)) => raw.ints.push(x as i64),
                (5 | 7 | 11, Payload::Bytes(len)) => self.wire.packed(len, &mut raw.ints)?,
                (8, Payload::Bytes(len)) => raw.name = self.wire.text(len)?,
                (9, Payload::Bytes(len)) => raw.bytes = Some(self.wire.bytes(len)?),
                (10, Payload::Fixed64(b)) => raw.doubles.extend(b),
                (10, Payload::Bytes(len)) => append(&mut raw.doubles, self.wire.bytes(len)?),
                (13, Payload::Bytes(len)) => {
                    self.limit(raw.external.len(), "entries of external data")?;
                    raw.external.push(self.nested(len, Self::entry)?);
                }
                (14, Payload::Varint(x)) => raw.is_external = x == 1,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(raw)
    }

    fn entry(&mut self) -> Result<(String, String), Diagnostic> {
        let mut entry = (String::new(), String::new());
        while let Some((number, payload)) = self.wire.field()? {
            match (number, payload) {
                (1, Payload::Bytes(len)) => entry.0 = self.wire.text(len)?,
                (2, Payload::Bytes(len)) => entry.1 = self.wire.text(len)?,
                (_, payload) => self.wire.skip(payload)?,
            }
        }
        Ok(entry)
    }
}

/// Adds bytes without a copy where they are the first.
fn append(to: &mut Vec<u8>, bytes: Vec<u8>) {
    if to.is_empty() { *to = bytes } else { to.extend(bytes) }
}

fn floats_of(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::ArrayData;

    /// Protobuf by hand: a field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut all = vec![number << 3 | 2];
        let mut len = bytes.len();
        while len >= 0x80 {
            all.push(len as u8 | 0x80);
            len >>= 7;
        }
        all.push(len as u8);
        all.extend(bytes);
        all
    }

    /// Protobuf by hand: a field of a number.
    fn int(number: u8, mut value: u64) -> Vec<u8> {
        let mut all = vec![number << 3];
        while value >= 0x80 {
            all.push(value as u8 | 0x80);
            value >>= 7;
        }
        all.push(value as u8);
        all
    }

    fn tensor(name: &str, elem: u64, dims: &[u64], rest: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = dims.iter().flat_map(|&n| int(1, n)).collect();
        [dims, int(2, elem), field(8, name.as_bytes()), rest.to_vec()].concat()
    }

    fn file(graph: &[Vec<u8>]) -> Vec<u8> {
        let opset = [field(1, b""), int(2, 17)].concat();
        [int(1, 8), field(2, b"hand"), field(8, &opset), field(7, &graph.concat())].concat()
    }

    fn file_of_tensor(elem: u64, dims: &[u64], rest: &[u8]) -> Vec<u8> {
        file(&[field(5, &tensor("w", elem, dims, rest))])
    }

    fn small() -> Vec<u8> {
        let value = tensor("", 7, &[1], &field(9, &3i64.to_le_bytes()));
        let attribute = [field(1, b"value"), field(5, &value)].concat();
        let node = [field(1, b"x"), field(2, b"y"), field(3, b"n"), field(4, b"Add"), field(5, &attribute)].concat();
        let shape = [field(1, &field(2, b"batch")), field(1, &int(1, 7))].concat();
        let kind = field(1, &[int(1, 7), field(2, &shape)].concat());
        let port = [field(1, b"x"), field(2, &kind)].concat();
        let weight = tensor("w", 1, &[2, 1], &field(9, &[0, 0, 128, 63, 0, 0, 0, 64]));
        file(&[field(1, &node), field(5, &weight), field(11, &port), field(12, &field(1, b"y"))])
    }

    #[test]
    fn what_is_in_the_file_is_read() {
        let model = read_bytes(&small()).expect("a model");
        assert_eq!((model.opset(), model.producer.as_str(), model.bytes), (17, "hand", small().len() as u64));
        let graph = &model.graph;
        assert_eq!(graph.inputs, [Port { name: "x".into(), elem: Some(OnnxElem::I64), sizes: vec![None, Some(7)] }]);
        assert_eq!(graph.outputs[0].name, "y");
        assert_eq!((graph.nodes[0].label(), graph.nodes[0].op_type.as_str()), ("n", "Add"));
        assert_eq!(*graph.initializers["w"], OnnxArray::f32(&[2, 1], vec![1.0, 2.0]));
        assert_eq!(graph.nodes[0].tensor("value").map(|x| x.ints()), Some(Some(vec![3])));
    }

    #[test]
    fn every_element_type_is_read_from_either_place() {
        let ints = |x: &[i64]| OnnxArray::vector(x.to_vec());
        let cases: &[(u64, Vec<u8>, OnnxArray)] = &[
            (1, field(4, &1.5f32.to_le_bytes()), OnnxArray::f32(&[1], vec![1.5])),
            (7, field(7, &[5]), ints(&[5])),
            (7, int(7, u64::MAX), ints(&[-1])),
            (6, int(5, 9), OnnxArray::new(vec![1], ArrayData::I32(vec![9]))),
            (9, int(5, 1), OnnxArray::bool(&[1], vec![true])),
            (9, field(9, &[0]), OnnxArray::bool(&[1], vec![false])),
            (10, field(9, &[0, 0x3c]), OnnxArray::f32(&[1], vec![1.0])),
            (10, int(5, 0x3c00), OnnxArray::f32(&[1], vec![1.0])),
            (16, field(9, &[0x80, 0x3f]), OnnxArray::f32(&[1], vec![1.0])),
            (11, field(9, &2f64.to_le_bytes()), OnnxArray::f32(&[1], vec![2.0])),
            (11, field(10, &2f64.to_le_bytes()), OnnxArray::f32(&[1], vec![2.0])),
            (3, field(9, &[255]), OnnxArray::new(vec![1], ArrayData::I8(vec![-1]))),
            (2, field(9, &[255]), OnnxArray::new(vec![1], ArrayData::U8(vec![255]))),
        ];
        for (elem, rest, expected) in cases {
            let model = read_bytes(&file_of_tensor(*elem, &[1], rest)).expect("a model");
            assert_eq!(*model.graph.initializers["w"], *expected, "element {elem}");
        }
    }

    #[track_caller]
    fn refuse(bytes: &[u8], words: &str) {
        let complaint = read_bytes(bytes).expect_err("a complaint").to_string();
        assert!(complaint.contains(words), "{complaint}");
    }

    #[test]
    fn what_is_no_model_is_refused() {
        refuse(b"", "no graph");
        refuse(b"\x89PNG\r\n\x1a\n", "byte");
        refuse(&field(7, b"")[..1], "truncated");
        refuse(&[field(7, b""), field(7, b"")].concat(), "two graphs");
        refuse(&[0x3b], "unknown wire type 3");
    }

    #[test]
    fn sizes_are_checked_before_anything_is_made() {
        let raw = field(9, &[0; 8]);
        refuse(&file_of_tensor(1, &[3], &raw), "tensor w: its shape [3] wants 12 bytes, the file has 8");
        refuse(&file_of_tensor(1, &[1 << 40, 1 << 40], &raw), "not possible");
        refuse(&file_of_tensor(1, &[1 << 61], &raw), "wants");
        refuse(&file_of_tensor(1, &[u64::MAX], &raw), "not possible");
        refuse(&file_of_tensor(1, &[1; 17], &raw), "17 axes");
        refuse(&file_of_tensor(7, &[3], &int(7, 1)), "wants 3 elements, the file has 1");
        refuse(&file_of_tensor(8, &[1], &raw), "element type");
        let external = [int(14, 1), field(13, &[field(1, b"location"), field(2, b"w.bin")].concat())].concat();
        refuse(&file_of_tensor(1, &[1], &external), "another file");
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut graph = Vec::new();
        for _ in 0..60 {
            graph = field(1, &field(5, &field(6, &graph)));
        }
        refuse(&file(&[graph]), "nested more than");
    }

    #[test]
    fn no_bytes_panic() {
        let whole = small();
        for end in 0..whole.len() {
            assert!(read_bytes(&whole[..end]).is_err(), "{end} bytes of {}", whole.len());
        }
        for at in 0..whole.len() {
            for bits in [0x01, 0x02, 0x08, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= bits;
                drop(read_bytes(&changed));
            }
        }
    }
}
