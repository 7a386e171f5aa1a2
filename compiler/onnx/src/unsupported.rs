//! What a file that is refused has that no decoder has which is taken: one sentence before the list of nodes.
//!
//! Traits are told from the ONNX graph alone, so that they can be named for files that no part of could be imported.

use super::import::inputs;
use super::model::OnnxModel;

/// What a network must be.
pub const TAKEN: &str = "snnc takes decoders: embeddings, learned or rotary positions or ALiBi, LayerNorm or RMSNorm, causal softmax attention \
                         (heads may share keys, a window may end it), MLPs with ReLU, GELU or SiLU, gated or not, a linear head";

/// Something that is not taken, and the operators in which it shows.
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
    Trait { what: "pooling", operators: &["MaxPool", "AveragePool", "GlobalMaxPool"] },
    Trait { what: "sparse attention", operators: &["com.microsoft.SparseAttention"] },
    Trait { what: "mixtures of experts", operators: &["com.microsoft.MoE", "com.microsoft.QMoE", "TopK"] },
];

/// What the file has that is not taken, with the node where it is first seen; empty where nothing of the kind is found.
pub fn traits(model: &OnnxModel) -> Vec<String> {
    let nodes = &model.graph.nodes;
    let mut found = Vec::new();
    if let Some(port) =
        model.graph.inputs.iter().find(|port| ["encoder", "decoder_input"].iter().any(|word| port.name.contains(word)))
    {
        found.push(format!("a decoder that reads the states of an encoder (input {})", port.name));
    }
    if inputs::ids(&model.graph.inputs).is_none() {
        found.push("no input for token ids".to_string());
    }
    for Trait { what, operators } in TRAITS {
        let node = nodes.iter().find(|node| operators.contains(&&*node.operator()));
        found.extend(node.map(|node| format!("{what} (first at {})", node.label())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OnnxNode, Port};
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

    #[test]
    fn other_networks_are_told_by_what_they_have() {
        let image = Port { name: "x".into(), elem: Some(OnnxElem::F32), sizes: vec![None; 4] };
        let cnn = traits(&model(image, &[("Conv", &["x"], "y"), ("MaxPool", &["y"], "z")]));
        assert_eq!(cnn, ["no input for token ids", "convolutions (first at y)", "pooling (first at z)"]);
        let ids = Port { name: "input_ids".into(), elem: Some(OnnxElem::I64), sizes: vec![None, None] };
        let square: &[(&str, &[&str], &str)] = &[("Mul", &["x", "x"], "s"), ("ReduceMean", &["s"], "m")];
        assert_eq!(traits(&model(ids, square)), [""; 0]);
    }
}
