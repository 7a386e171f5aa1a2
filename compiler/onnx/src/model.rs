//! An ONNX file as the rest of this crate sees it: names, nodes in order, constants that are arrays.

use crate::tensor::{OnnxArray, OnnxElem};
use indexmap::IndexMap;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// An ONNX file.
#[derive(Debug, Default)]
pub struct OnnxModel {
    /// Version of the operators of each domain; ONNX's own domain is "".
    pub opsets: IndexMap<String, i64>,
    /// What wrote the file, and its version.
    pub producer: String,
    /// The network.
    pub graph: OnnxGraph,
    /// Length of the file in bytes, without external data.
    pub bytes: u64,
    /// XXH3-64 of the file, without external data.
    pub hash: u64,
}

/// The file's graph, or one inside a node.
#[derive(Clone, Debug, Default)]
pub struct OnnxGraph {
    /// Without those that are initializers, which old files list as well.
    pub inputs: Vec<Port>,
    /// What the graph gives.
    pub outputs: Vec<Port>,
    /// Each after those whose results it needs.
    pub nodes: Vec<OnnxNode>,
    /// Constants by name.
    pub initializers: IndexMap<String, Arc<OnnxArray>>,
}

/// A named input or output.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Port {
    /// What nodes call it.
    pub name: String,
    /// `None` for types that this reader does not know.
    pub elem: Option<OnnxElem>,
    /// `None` where a size is symbolic or missing.
    pub sizes: Vec<Option<usize>>,
}

/// An operator with its operands.
#[derive(Clone, Debug, Default)]
pub struct OnnxNode {
    /// Empty where the file gives none.
    pub name: String,
    /// The operator in its domain: `Add`.
    pub op_type: String,
    /// Empty for ONNX's own operators.
    pub domain: String,
    /// "" is an optional input that is left out.
    pub inputs: Vec<String>,
    /// Names of the results; "" is one that nobody wants.
    pub outputs: Vec<String>,
    /// Options by name.
    pub attributes: IndexMap<String, Attribute>,
    /// The module that the node is a part of, where the exporter says so: `transformer.h.3.attn`.
    pub module: String,
}

/// The value of an option.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// ONNX's type 1.
    Float(f32),
    /// Type 2.
    Int(i64),
    /// Type 3.
    Text(String),
    /// Type 6.
    Floats(Vec<f32>),
    /// Type 7.
    Ints(Vec<i64>),
    /// Type 8.
    Texts(Vec<String>),
    /// Type 4.
    Tensor(Arc<OnnxArray>),
    /// Type 5: a branch.
    Graph(Box<OnnxGraph>),
    /// A kind that GPT-2 files do not have; its ONNX number.
    Other(i32),
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

    /// The attribute of this name, if it is a graph.
    pub fn graph(&self, name: &str) -> Option<&OnnxGraph> {
        match self.attributes.get(name) {
            Some(Attribute::Graph(x)) => Some(x),
            _ => None,
        }
    }

    /// The attribute of this name, if it is an integer.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(x)) => Some(*x),
            _ => None,
        }
    }

    /// The attribute of this name, if it is a list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(x)) => Some(x),
            _ => None,
        }
    }

    /// The attribute of this name, if it is a number.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(x)) => Some(*x),
            _ => None,
        }
    }

    /// The attribute of this name, if it is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(x)) => Some(x),
            _ => None,
        }
    }

    /// The attribute of this name, if it is a tensor.
    pub fn tensor(&self, name: &str) -> Option<&Arc<OnnxArray>> {
        match self.attributes.get(name) {
            Some(Attribute::Tensor(x)) => Some(x),
            _ => None,
        }
    }
}
