//! What a file that is refused has instead of GPT-2's parts: one sentence before the list of nodes.
//!
//! Traits are told from the ONNX graph alone, so that they can be named for files that no part of could be imported.

use super::import::inputs;
use super::model::{OnnxModel, OnnxNode};
use super::tensor::OnnxArray;
use std::collections::{HashMap, HashSet};

/// What a network must be.
pub const TAKEN: &str = "snnc takes GPT-2: learned positions, LayerNorm, causal softmax attention, MLPs with ReLU, GELU or SiLU, a linear head";

/// Something that GPT-2 does not have, and the first node where it shows.
struct Trait {
    what: &'static str,
    operators: &'static [&'static str],
}

/// What rotates queries and keys.
const ROTARY: &str = "rotary position embeddings";

/// What leaves the mean in.
const RMS_NORM: &str = "RMSNorm in place of LayerNorm";

const TRAITS: &[Trait] = &[
    Trait {
        what: "convolutions",
        operators: &["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "com.microsoft.FusedConv"],
    },
    Trait { what: "recurrent layers", operators: &["LSTM", "GRU", "RNN", "com.microsoft.DynamicQuantizeLSTM"] },
    Trait { what: "loops", operators: &["Loop", "Scan"] },
    Trait { what: "batch normalisation", operators: &["BatchNormalization", "InstanceNormalization"] },
    Trait { what: "pooling", operators: &["MaxPool", "AveragePool", "GlobalMaxPool"] },
    Trait { what: ROTARY, operators: &["RotaryEmbedding", "com.microsoft.RotaryEmbedding"] },
    Trait {
        what: RMS_NORM,
        operators: &[
            "RMSNormalization",
            "SimplifiedLayerNormalization",
            "com.microsoft.SimplifiedLayerNormalization",
            "com.microsoft.SkipSimplifiedLayerNormalization",
        ],
    },
    Trait { what: "sparse attention", operators: &["com.microsoft.SparseAttention"] },
    Trait { what: "mixtures of experts", operators: &["com.microsoft.MoE", "com.microsoft.QMoE", "TopK"] },
];

/// Operators that move, repeat or convert numbers.
const MOVES: [&str; 17] = [
    "Cast",
    "Concat",
    "Expand",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Neg",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
    "Flatten",
];

/// Operators of activation functions and of what stands beside them.
const ELEMENTWISE: [&str; 19] = [
    "Add",
    "Cast",
    "Clip",
    "Div",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Relu",
    "Sigmoid",
    "Sub",
    "Swish",
    "Tanh",
    "Softplus",
];

/// The nodes of a file by what they make and use.
struct NodeUses<'m> {
    model: &'m OnnxModel,
    makers: HashMap<&'m str, &'m OnnxNode>,
    users: HashMap<&'m str, Vec<&'m OnnxNode>>,
    /// Values that depend on the token ids, not on their number alone.
    live: HashSet<&'m str>,
}

impl<'m> NodeUses<'m> {
    fn of(model: &'m OnnxModel) -> Self {
        let (mut makers, mut users): (HashMap<&str, &OnnxNode>, HashMap<&str, Vec<&OnnxNode>>) = Default::default();
        let mut live: HashSet<&str> = inputs::ids(&model.graph.inputs).iter().map(|port| port.name.as_str()).collect();
        for node in &model.graph.nodes {
            makers.extend(node.outputs.iter().map(|name| (name.as_str(), node)));
            node.inputs.iter().for_each(|name| users.entry(name).or_default().push(node));
            let counts = ["Shape", "Size"].contains(&node.op_type.as_str());
            if !counts && node.needs().iter().any(|name| live.contains(name)) {
                live.extend(node.outputs.iter().map(String::as_str));
            }
        }
        Self { model, makers, users, live }
    }

    fn maker(&self, name: &str) -> Option<&'m OnnxNode> {
        self.makers.get(name).copied()
    }

    /// The maker of a value, or of what casts made it from.
    fn real_maker(&self, name: &str) -> Option<&'m OnnxNode> {
        let mut node = self.maker(name)?;
        for _ in 0..4 {
            match node.inputs.first().filter(|_| node.op_type == "Cast") {
                Some(input) => node = self.maker(input)?,
                None => break,
            }
        }
        Some(node)
    }

    /// The first product of a live value with something that is moved from `name` and is not live itself.
    fn multiplies(&self, name: &'m str) -> Option<&'m OnnxNode> {
        let (mut open, mut seen) = (vec![name], HashSet::new());
        while let Some(name) = open.pop() {
            if !seen.insert(name) {
                continue;
            }
            for node in self.users.get(name).into_iter().flatten() {
                let beside_live = node.inputs.iter().any(|input| self.live.contains(input.as_str()));
                if node.op_type == "Mul" && beside_live {
                    return Some(node);
                }
                if !beside_live && (MOVES.contains(&node.op_type.as_str()) || node.op_type == "Mul") {
                    open.extend(node.outputs.iter().map(String::as_str));
                }
            }
        }
        None
    }

    /// Sines and cosines, computed or from a table, that a value of the network is multiplied by.
    fn rotary(&self) -> Option<&'m OnnxNode> {
        let nodes = &self.model.graph.nodes;
        let asked = nodes.iter().find(|node| node.int("do_rotary").unwrap_or(0) != 0);
        let computed = nodes.iter().filter(|node| ["Cos", "Sin"].contains(&node.op_type.as_str()));
        let mut computed = computed.filter(|node| node.outputs.iter().any(|name| self.multiplies(name).is_some()));
        let tables = self.model.graph.initializers.iter().map(|(name, array)| (name.as_str(), &**array));
        let constants =
            nodes.iter().filter_map(|node| Some((node.outputs.first()?.as_str(), &**node.tensor("value")?)));
        let mut tables = tables.chain(constants).filter(|(_, array)| is_periodic(array));
        asked.or_else(|| computed.next()).or_else(|| tables.find_map(|(name, _)| self.multiplies(name)))
    }

    /// The mean of the square of something that no mean was taken from, under a root.
    fn uncentred_norm(&self) -> Option<&'m OnnxNode> {
        self.model.graph.nodes.iter().filter(|node| node.op_type == "ReduceMean").find(|node| {
            let Some(square) = node.inputs.first().and_then(|name| self.real_maker(name)) else { return false };
            let is_product = square.op_type == "Mul" && matches!(square.inputs.as_slice(), [a, b] if a == b);
            let is_square = square.op_type == "Pow" || is_product;
            let of = square.inputs.first().and_then(|name| self.real_maker(name));
            // mean(x^2) - mean(x)^2 is a variance.
            let users = node.outputs.first().and_then(|name| self.users.get(name.as_str()));
            let in_a_variance = users.into_iter().flatten().any(|user| user.op_type == "Sub");
            is_square && of.is_none_or(|of| of.op_type != "Sub") && !in_a_variance
        })
    }

    /// The products that a value is made from by functions of one number.
    fn projections(&self, name: &'m str) -> HashSet<&'m str> {
        let (mut open, mut seen, mut found) = (vec![name], HashSet::new(), HashSet::new());
        while let Some(name) = open.pop() {
            if !self.live.contains(name) || seen.len() > 64 || !seen.insert(name) {
                continue;
            }
            match self.maker(name) {
                Some(node) if ELEMENTWISE.contains(&node.op_type.as_str()) => {
                    open.extend(node.inputs.iter().map(String::as_str));
                }
                _ => drop(found.insert(name)),
            }
        }
        found
    }

    /// A product of two projections of one value: the gate of an MLP.
    fn gated(&self) -> Option<&'m OnnxNode> {
        let source = |name: &str| {
            let node = self.maker(name)?;
            let is_product = ["MatMul", "Gemm", "Split"].contains(&node.op_type.as_str());
            node.inputs.first().filter(|input| is_product && self.live.contains(input.as_str()))
        };
        let alone = |name: &'m str| {
            let all = self.projections(name);
            if all.len() == 1 { all.into_iter().next() } else { None }
        };
        self.model.graph.nodes.iter().filter(|node| node.op_type == "Mul").find(|node| {
            let [a, b] = node.inputs.as_slice() else { return false };
            let (Some(a), Some(b)) = (alone(a), alone(b)) else { return false };
            a != b && source(a).is_some() && source(a) == source(b)
        })
    }
}

/// Rows 0, 1, 2... of sines and cosines: every column begins with 0 or 1 and turns on by one angle.
fn is_periodic(array: &OnnxArray) -> bool {
    let sizes: Vec<usize> = array.sizes().iter().copied().filter(|&n| n > 1).collect();
    let (&[rows, width], Some(x)) = (sizes.as_slice(), array.as_f32()) else { return false };
    if rows < 5 {
        return false;
    }
    let near = |a: f32, b: f32| (a - b).abs() < 0.02;
    let turns = |column: usize| {
        let at = |row: usize| x[row * width + column];
        let twice_cosine = match at(0) {
            first if near(first, 1.0) => 2.0 * at(1),
            first if near(first, 0.0) && at(1).abs() > 1e-3 => at(2) / at(1),
            first if near(first, 0.0) => 2.0,
            _ => return false,
        };
        (2..5).all(|row| near(at(row), twice_cosine * at(row - 1) - at(row - 2)) && at(row).abs() < 1.02)
    };
    let moves = |column: usize| !near(x[column], x[width + column]);
    (0..width).all(turns) && (0..width).any(moves)
}

/// Keys and values with fewer heads than queries, as an operator says.
fn shared_keys(nodes: &[OnnxNode]) -> Option<String> {
    nodes.iter().find_map(|node| {
        let queries = node.int("num_heads").or(node.int("q_num_heads"))?;
        let keys = node.int("kv_num_heads").filter(|&keys| keys != queries)?;
        Some(format!("{} (first at {})", shared(keys, queries), node.label()))
    })
}

/// What attention is called whose keys and values have `keys` heads, for `queries` heads of queries.
pub(crate) fn shared(keys: i64, queries: i64) -> String {
    if keys == 1 {
        format!("multi-query attention: one head of keys and values for {queries} of queries")
    } else {
        format!("grouped-query attention: {keys} heads of keys and values for {queries} of queries")
    }
}

/// What the file has that no GPT-2 has, with the node where it is first seen; empty where nothing of the kind is found.
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
    let view = NodeUses::of(model);
    for Trait { what, operators } in TRAITS {
        let by_operator = nodes.iter().find(|node| operators.contains(&&*node.operator()));
        let node = by_operator.or_else(|| match *what {
            ROTARY => view.rotary(),
            RMS_NORM => view.uncentred_norm(),
            _ => None,
        });
        found.extend(node.map(|node| format!("{what} (first at {})", node.label())));
    }
    found.extend(shared_keys(nodes));
    found.extend(view.gated().map(|node| format!("gated MLPs (first at {})", node.label())));
    found
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
        let square: &[(&str, &[&str], &str)] = &[
            ("Mul", &["x", "x"], "s"),
            ("ReduceMean", &["s"], "m"),
            ("Cos", &["f"], "c"),
            ("Mul", &["input_ids", "c"], "r"),
        ];
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
