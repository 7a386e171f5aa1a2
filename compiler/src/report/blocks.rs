//! How the program came from the network, block by block: what of the IR every ONNX node became.

use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::op::LeafOp;
use snnc_ir::{Graph, Op};
use std::collections::BTreeMap;

/// A transformer block, what is before them, or the head.
#[derive(Debug, Serialize, JsonSchema, PartialEq, Eq)]
pub struct ReportBlock {
    /// `embedding`, `h.0`, `head`.
    pub name: String,
    /// What each of its ONNX nodes became.
    pub conversions: Vec<Conversion>,
}

/// What an ONNX node became.
#[derive(Debug, Serialize, JsonSchema, PartialEq, Eq)]
pub struct Conversion {
    /// The ONNX node's name.
    pub origin: String,
    /// Its operations in the dense network, where that is known, and in the program.
    pub dense: Vec<String>,
    /// The spiking network.
    pub spiking: Vec<String>,
    /// What the program's last operation of it gives.
    pub gives: String,
}

/// The blocks of `program`, beside the Tensor graph `dense` that it was made from.
pub fn blocks(program: &Graph, dense: Option<&Graph>) -> Vec<ReportBlock> {
    let known = dense.map_or_else(BTreeMap::new, operations);
    let names = block_names(program);
    let mut blocks: Vec<ReportBlock> = Vec::new();
    for (value, node) in program.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
        let name = &names[value.index()];
        if blocks.last().is_none_or(|block| block.name != *name) {
            blocks.push(ReportBlock { name: name.clone(), conversions: Vec::new() });
        }
        let Some(block) = blocks.last_mut() else { continue };
        let origin = program.origin(value).name.as_str();
        if block.conversions.last().is_none_or(|last| last.origin != origin) {
            let dense = known.get(origin).cloned().unwrap_or_default();
            let (origin, gives) = (origin.to_string(), String::new());
            block.conversions.push(Conversion { origin, dense, spiking: Vec::new(), gives });
        }
        if let Some(last) = block.conversions.last_mut() {
            last.spiking.push(node.op.to_string());
            last.gives = node.ty.to_string();
        }
    }
    blocks
}

/// The operations of a graph by their origin.
fn operations(graph: &Graph) -> BTreeMap<&str, Vec<String>> {
    let mut all: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (value, node) in graph.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
        all.entry(graph.origin(value).name.as_str()).or_default().push(node.op.to_string());
    }
    all
}

/// The block of every node: its site's, or that of the node before it where it stands at none.
fn block_names(graph: &Graph) -> Vec<String> {
    let mut names = vec![String::new(); graph.nodes.len()];
    let mut now = "embedding".to_string();
    for (value, _) in graph.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
        if let Some(site) = graph.site(value) {
            now = site.block();
        }
        names[value.index()].clone_from(&now);
    }
    names
}
