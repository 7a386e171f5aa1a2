//! How the program came from the network, block by block: what of the IR every ONNX node became.

use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::{Graph, Op, Value};
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
        let origin = program.origin(value);
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
        all.entry(graph.origin(value)).or_default().push(node.op.to_string());
    }
    all
}

/// The block of every node. Constants are called after theirs; what has none is with the node before it, or with the one
/// behind it where it prepares that: a normalisation.
fn block_names(graph: &Graph) -> Vec<String> {
    let mut names = vec![String::new(); graph.nodes.len()];
    let mut now = "embedding".to_string();
    let mut waiting: Vec<Value> = Vec::new();
    let mut begun = false;
    for (value, node) in graph.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
        let prepares =
            matches!(node.op, Op::Dense(DenseOp::LayerNormNoGain { .. }) | Op::Dense(DenseOp::LayerNorm { .. }));
        begun |= prepares;
        let own = node.args.iter().find_map(|arg| block_of(&graph.constant(*arg)?.name)).filter(|_| begun);
        if prepares {
            waiting.push(value);
            continue;
        }
        if let Some(own) = own {
            now = own;
            waiting.drain(..).for_each(|value| names[value.index()].clone_from(&now));
        }
        if waiting.is_empty() {
            names[value.index()].clone_from(&now);
        } else {
            waiting.push(value);
        }
    }
    waiting.into_iter().for_each(|value| names[value.index()].clone_from(&now));
    names
}

/// `h.3` of a constant `h.3.attn.q.weight` or a site `h.3.attention.q`, `head` of `head.weight`.
pub(super) fn block_of(constant: &str) -> Option<String> {
    let mut words = constant.split('.');
    match (words.next()?, words.next()) {
        ("h", Some(layer)) if layer.parse::<u32>().is_ok() => Some(format!("h.{layer}")),
        ("head", _) => Some("head".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::block_of;

    #[test]
    fn constants_are_called_after_their_block() {
        for (name, block) in [
            ("h.3.attn.q.weight", Some("h.3")),
            ("head.in.gain", Some("head")),
            ("h.x.weight", None),
            ("m.transformer.wte.weight.gain", None),
        ] {
            assert_eq!(block_of(name).as_deref(), block);
        }
    }
}
