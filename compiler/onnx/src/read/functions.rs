//! Model-local functions: a node that names one becomes the nodes of its body.
//!
//! Values inside a body get names of their own for every call; an attribute that refers to one of the function's takes the value
//! of the call, or the function's default.

use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto};
use snnc_ir::Diagnostic;
use std::collections::HashMap;

/// Functions inside functions.
const DEPTH_MAX: usize = 32;

/// Nodes of a graph after all functions stand in it.
const NODES_MAX: usize = 1 << 20;

/// Functions of a file, by domain, name and overload.
pub(super) struct Functions<'p> {
    all: HashMap<[&'p str; 3], &'p FunctionProto>,
    opset: i64,
    calls: usize,
    nodes: usize,
}

fn own_opset(opsets: &[OperatorSetIdProto]) -> Option<i64> {
    let own = opsets.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
    own.map(|opset| opset.version)
}

impl<'p> Functions<'p> {
    pub fn of(functions: &'p [FunctionProto], opsets: &[OperatorSetIdProto]) -> Self {
        let all =
            functions.iter().map(|function| ([&*function.domain, &*function.name, &*function.overload], function));
        Self { all: all.collect(), opset: own_opset(opsets).unwrap_or(1), calls: 0, nodes: 0 }
    }

    /// The same graph without nodes that name functions.
    ///
    /// # Errors
    /// Functions inside functions without an end, too many nodes, operators of another version than the file's.
    pub fn inlined(&mut self, mut graph: GraphProto) -> Result<GraphProto, Diagnostic> {
        if !self.all.is_empty() {
            graph.node = self.expanded(graph.node, 0)?;
        }
        Ok(graph)
    }

    fn expanded(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, Diagnostic> {
        let mut all = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            let Some(function) = self.all.get(&[&*node.domain, &*node.op_type, &*node.overload]).copied() else {
                for graph in node.attribute.iter_mut().filter_map(|attribute| attribute.g.as_mut()) {
                    graph.node = self.expanded(std::mem::take(&mut graph.node), depth)?;
                }
                self.nodes += 1;
                all.push(node);
                continue;
            };
            let place = format!("function {}", function.name);
            let failed = |message: String| Err(Diagnostic::new(&*place, message));
            if depth == DEPTH_MAX || self.nodes > NODES_MAX {
                return failed(format!(
                    "functions stand in functions more than {DEPTH_MAX} times, or give more than {NODES_MAX} nodes"
                ));
            }
            if let Some(version) = own_opset(&function.opset_import).filter(|version| *version != self.opset) {
                return failed(format!(
                    "its operators are those of opset {version}, the file's are those of opset {}",
                    self.opset
                ));
            }
            let body = self.called(function, &node);
            all.extend(self.expanded(body, depth + 1)?);
        }
        Ok(all)
    }

    /// The nodes of a call.
    fn called(&mut self, function: &FunctionProto, node: &NodeProto) -> Vec<NodeProto> {
        self.calls += 1;
        let label =
            if node.name.is_empty() { node.output.first().map_or("", String::as_str) } else { node.name.as_str() };
        let mut names = HashMap::new();
        for (formal, given) in [(&function.input, &node.input), (&function.output, &node.output)] {
            for (i, formal) in formal.iter().enumerate() {
                match given.get(i).filter(|name| !name.is_empty()) {
                    Some(name) => drop(names.insert(formal.clone(), name.clone())),
                    None if std::ptr::eq(given, &node.input) => drop(names.insert(formal.clone(), String::new())),
                    None => {}
                }
            }
        }
        let call = FunctionCall { function, node, names, prefix: format!("{label}/{}", self.calls), label };
        function.node.iter().map(|inner| call.node(inner)).collect()
    }
}

/// A body that takes the place of a node.
struct FunctionCall<'a> {
    function: &'a FunctionProto,
    node: &'a NodeProto,
    /// Names of the call by those of the function.
    names: HashMap<String, String>,
    prefix: String,
    label: &'a str,
}

impl FunctionCall<'_> {
    fn name(&self, name: &str) -> String {
        match self.names.get(name) {
            Some(given) => given.clone(),
            None if name.is_empty() => String::new(),
            None => format!("{}/{name}", self.prefix),
        }
    }

    fn node(&self, inner: &NodeProto) -> NodeProto {
        let names = |all: &[String]| all.iter().map(|name| self.name(name)).collect();
        let own = if inner.name.is_empty() { inner.op_type.as_str() } else { inner.name.as_str() };
        NodeProto {
            input: names(&inner.input),
            output: names(&inner.output),
            name: format!("{}/{own}", self.label),
            attribute: inner.attribute.iter().filter_map(|attribute| self.attribute(attribute)).collect(),
            metadata_props: if inner.metadata_props.is_empty() {
                &self.node.metadata_props
            } else {
                &inner.metadata_props
            }
            .clone(),
            ..inner.clone()
        }
    }

    /// An attribute with the value of the call; none where neither it nor the function gives one.
    fn attribute(&self, attribute: &AttributeProto) -> Option<AttributeProto> {
        if attribute.ref_attr_name.is_empty() {
            let graph = attribute.g.as_ref().map(|graph| self.graph(graph));
            return Some(AttributeProto { g: graph, ..attribute.clone() });
        }
        let named = |all: &[AttributeProto]| all.iter().find(|given| given.name == attribute.ref_attr_name).cloned();
        let given = named(&self.node.attribute).or_else(|| named(&self.function.attribute_proto))?;
        Some(AttributeProto { name: attribute.name.clone(), ..given })
    }

    /// A branch inside a body: it sees the body's values.
    fn graph(&self, graph: &GraphProto) -> GraphProto {
        let mut new = graph.clone();
        new.node = graph.node.iter().map(|node| self.node(node)).collect();
        new.initializer.iter_mut().for_each(|tensor| tensor.name = self.name(&tensor.name));
        new.input.iter_mut().chain(&mut new.output).for_each(|port| port.name = self.name(&port.name));
        new
    }
}
