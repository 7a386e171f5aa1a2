//! What a file that is refused has instead of GPT-2's parts: one sentence before the list of nodes.
//!
//! Traits are told from the ONNX graph alone, so that they can be named for files that no part of could be imported.

use super::import::inputs;
use super::model::{OnnxModel, OnnxNode};
use std::collections::HashMap;

/// What a network must be.
pub const TAKEN: &str = "snnc takes GPT-2: learned positions, LayerNorm, causal softmax attention, MLPs with ReLU, GELU or SiLU, a linear head";

/// Something that GPT-2 does not have, and the first node where it shows.
struct Trait {
    what: &'static str,
    operators: &'static [&'static str],
}

const TRAITS: &[Trait] = &[
    Trait {
        what: "convolutions",
        operators: &["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "com.microsoft.FusedConv"],
    },
    Trait { what: "recurrent layers", operators: &["LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM"] },
    Trait { what: "loops", operators: &["Loop", "Scan"] },
    Trait { what: "batch normalisation", operators: &["BatchNormalization", "InstanceNormalization"] },
    Trait { what: "pooling", operators: &["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"] },
    Trait {
        what: "rotary position embeddings",
        operators: &["RotaryEmbedding", "com.microsoft.RotaryEmbedding", "Cos", "Sin"],
    },
    Trait {
        what: "RMSNorm in place of LayerNorm",
        operators: &[
            "RMSNormalization",
            "SimplifiedLayerNormalization",
            "com.microsoft.SimplifiedLayerNormalization",
            "com.microsoft.SkipSimplifiedLayerNormalization",
        ],
    },
    Trait {
        what: "keys and values shared by several heads",
        operators: &["com.microsoft.GroupQueryAttention", "com.microsoft.SparseAttention"],
    },
    Trait { what: "mixtures of experts", operators: &["com.microsoft.MoE", "com.microsoft.QMoE", "TopK"] },
];

/// What the file has that no GPT-2 has, with the node where it is first seen; empty where nothing of the kind is found.
pub fn traits(model: &OnnxModel) -> Vec<String> {
    let nodes = &model.graph.nodes;
    let mut found = Vec::new();
    if inputs::ids(&model.graph.inputs).is_none() {
        found.push("no input for token ids".to_string());
    }
    for Trait { what, operators } in TRAITS {
        if let Some(node) = nodes.iter().find(|node| operators.contains(&&*node.operator())) {
            found.push(format!("{what} (first at {})", node.label()));
        }
    }
    if let Some(node) = uncentred_norm(nodes)
        && !found.iter().any(|what| what.starts_with("RMSNorm"))
    {
        found.push(format!("RMSNorm in place of LayerNorm (first at {})", node.label()));
    }
    found
}

/// The mean of the square of something that no mean was taken from, and that is not an activation function's cube.
fn uncentred_norm(nodes: &[OnnxNode]) -> Option<&OnnxNode> {
    let makers: HashMap<&str, &OnnxNode> =
        nodes.iter().flat_map(|node| node.outputs.iter().map(move |name| (name.as_str(), node))).collect();
    let maker = |name: &String| makers.get(name.as_str()).copied();
    nodes.iter().filter(|node| node.op_type == "ReduceMean").find(|node| {
        let square = node.inputs.first().and_then(maker);
        square.is_some_and(|square| {
            let is_product = square.op_type == "Mul" && matches!(square.inputs.as_slice(), [a, b] if a == b);
            let is_square = square.op_type == "Pow" || is_product;
            let of = square.inputs.first().and_then(maker);
            is_square && of.is_none_or(|of| !["Sub", "Cast"].contains(&of.op_type.as_str()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Port;
    use crate::tensor::OnnxElem;

    fn model(input: Port, nodes: &[(&str, &[&str], &str)]) -> OnnxModel {
        let mut model = OnnxModel::default();
        model.graph.inputs.push(input);
        model.graph.nodes.extend(nodes.iter().map(|(op, inputs, output)| OnnxNode {
            op_type: (*op).into(),
            inputs: inputs.iter().map(|name| (*name).to_string()).collect(),
            outputs: vec![(*output).into()],
            ..OnnxNode::default()
        }));
        model
    }

    fn ids() -> Port {
        Port { name: "input_ids".into(), elem: Some(OnnxElem::I64), sizes: vec![None, None] }
    }

    #[test]
    fn other_networks_are_told_by_what_they_have() {
        let image = Port { name: "x".into(), elem: Some(OnnxElem::F32), sizes: vec![None; 4] };
        let cnn = traits(&model(image, &[("Conv", &["x"], "y"), ("MaxPool", &["y"], "z")]));
        assert_eq!(cnn, ["no input for token ids", "convolutions (first at y)", "pooling (first at z)"]);
        let square: &[(&str, &[&str], &str)] =
            &[("Mul", &["x", "x"], "s"), ("ReduceMean", &["s"], "m"), ("Cos", &["f"], "c")];
        let llama = traits(&model(ids(), square));
        assert_eq!(llama, ["rotary position embeddings (first at c)", "RMSNorm in place of LayerNorm (first at m)"]);
        let norm: &[(&str, &[&str], &str)] = &[
            ("ReduceMean", &["x"], "a"),
            ("Sub", &["x", "a"], "d"),
            ("Pow", &["d", "two"], "s"),
            ("ReduceMean", &["s"], "m"),
        ];
        assert_eq!(traits(&model(ids(), norm)), [""; 0]);
        let bare: &[(&str, &[&str], &str)] =
            &[("Mul", &[], "s"), ("ReduceMean", &["s"], "m"), ("ReduceMean", &[], "n")];
        assert_eq!(traits(&model(ids(), bare)), [""; 0]);
    }
}
