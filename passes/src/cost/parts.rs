//! Where in a transformer a node stands: its layer and part, by structure alone.

use snnc_ir::op::{ArrayOp, DenseOp, LevelOp, SpikeOp};
use snnc_ir::{Binary, Graph, Op, Value};
use std::collections::BTreeMap;

/// The part of a transformer that work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// To queries, keys and values, and back to the residual stream, with the neurons between.
    Projections,
    /// Queries times keys.
    Scores,
    /// From scores to weights and their sum.
    Softmax,
    /// Weights times values.
    Values,
    Mlp,
    LayerNorm,
    Head,
    /// Embedding and residual stream.
    Rest,
}

impl Part {
    pub const ALL: [Part; 8] = [
        Part::Projections,
        Part::Scores,
        Part::Softmax,
        Part::Values,
        Part::Mlp,
        Part::LayerNorm,
        Part::Head,
        Part::Rest,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Projections => "attention projections",
            Part::Scores => "attention scores",
            Part::Softmax => "attention softmax",
            Part::Values => "attention values",
            Part::Mlp => "MLP",
            Part::LayerNorm => "LayerNorm",
            Part::Head => "head",
            Part::Rest => "the rest",
        }
    }

    /// Scores, softmax and values.
    pub fn is_core(self) -> bool {
        matches!(self, Part::Scores | Part::Softmax | Part::Values)
    }

    /// The core with its projections.
    pub fn is_attention(self) -> bool {
        self == Part::Projections || self.is_core()
    }
}

/// Layer and part. The head and the rest are of no layer; neither is a last LayerNorm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerPart {
    pub layer: Option<u32>,
    pub part: Part,
}

/// The place of every node: of products by what they read and feed, of attention (as its scores) by its number, of all else
/// by the product or the attention that it serves.
pub fn parts(graph: &Graph) -> Vec<LayerPart> {
    let users = graph.users();
    let mut layers = 0;
    let mut known: Vec<Option<LayerPart>> = vec![None; graph.nodes.len()];
    for (value, node) in graph.iter() {
        let place = if node.op.has_state() {
            layers += 1;
            Some(LayerPart { layer: Some(layers - 1), part: Part::Scores })
        } else if matches!(
            node.op,
            Op::Dense(DenseOp::Linear(_)) | Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse)
        ) {
            Some(product(graph, &users, value, layers))
        } else {
            // Features are part of what scores them.
            (node.op == Op::Level(LevelOp::HeadLinear)).then_some(LayerPart { layer: Some(layers), part: Part::Scores })
        };
        known[value.index()] = place;
    }
    // From the outputs back: what serves a product comes before it.
    for (value, node) in graph.iter().rev() {
        let at = value.index();
        if known[at].is_some() {
            continue;
        }
        let mut served = users[at].iter().filter_map(|user| known[user.index()]);
        known[at] = if is_between(graph, value) || matches!(node.op, Op::Dense(DenseOp::Curve(_))) {
            let served = served.find(|place| !matches!(place.part, Part::Rest | Part::LayerNorm));
            let features = node.args.first().is_some_and(|arg| graph.node(*arg).op == Op::Level(LevelOp::HeadLinear));
            let outside = |place: LayerPart| place.part.is_core() && !features;
            served.map(|place| if outside(place) { LayerPart { part: Part::Projections, ..place } } else { place })
        } else if matches!(node.op, Op::Dense(DenseOp::LayerNormNoGain { .. }) | Op::Dense(DenseOp::LayerNorm { .. })) {
            let layer = served.next().and_then(|place| place.layer);
            Some(LayerPart { layer, part: Part::LayerNorm })
        } else {
            None
        };
    }
    // What serves nothing ends its product.
    for (value, node) in graph.iter() {
        if known[value.index()].is_none()
            && (is_between(graph, value) || matches!(node.op, Op::Dense(DenseOp::Curve(_))))
        {
            known[value.index()] = node.args.first().and_then(|arg| known[arg.index()]);
        }
    }
    known.into_iter().map(|place| place.unwrap_or(LayerPart { layer: None, part: Part::Rest })).collect()
}

fn product(graph: &Graph, users: &[Vec<Value>], value: Value, layers: u32) -> LayerPart {
    let before = Some(layers.max(1) - 1);
    if reads_attention(graph, graph.node(value).args[0]) {
        LayerPart { layer: before, part: Part::Projections }
    } else if feeds(graph, users, value, &|user| graph.node(user).op.has_state()) {
        LayerPart { layer: Some(layers), part: Part::Projections }
    } else if is_output(graph, users, value) {
        LayerPart { layer: None, part: Part::Head }
    } else {
        LayerPart { layer: before, part: Part::Mlp }
    }
}

/// Products whose weight is a part of another one's, by node: several of them make one projection of the dense network, of
/// which the largest stands for it.
pub fn splits(graph: &Graph) -> Vec<bool> {
    let mut splits = vec![false; graph.nodes.len()];
    // By product: what its results are added up to.
    let users = graph.users();
    let mut wholes: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (value, _) in
        graph.iter().filter(|(_, node)| matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse)))
    {
        wholes.entry(sum_of(graph, &users, value)).or_default().push(value);
    }
    for products in wholes.values() {
        let weights =
            |value: &Value| graph.ty(graph.node(*value).args[1]).shape().sizes().map_or(0, |s| s.iter().product());
        let largest = products.iter().copied().reduce(|a, b| if weights(&b) > weights(&a) { b } else { a });
        products.iter().filter(|value| Some(**value) != largest).for_each(|value| splits[value.index()] = true);
    }
    splits
}

/// The last value that a product's results alone are summed up to: itself, or the sum of a projection's parts.
fn sum_of(graph: &Graph, users: &[Vec<Value>], value: Value) -> Value {
    let mut sum = value;
    let mut at = value;
    while let [user] = users[at.index()][..] {
        let is_sum = graph.node(user).op == Op::Array(ArrayOp::Binary(Binary::Add)) && is_part(graph, user);
        if !is_sum
            && !matches!(
                graph.node(user).op,
                Op::Spike(SpikeOp::Decode)
                    | Op::Level(LevelOp::ScaleShift)
                    | Op::Level(LevelOp::GatherChannels)
                    | Op::Array(ArrayOp::Binary(Binary::Mul))
            )
        {
            break;
        }
        at = user;
        sum = if is_sum { user } else { sum };
    }
    sum
}

/// Whether an operation stands between a product and what reads it: neurons, other units, the sum of a projection's parts
/// with a threshold for every token.
fn is_between(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    match node.op {
        Op::Spike(SpikeOp::Decode)
        | Op::Level(LevelOp::ScaleShift)
        | Op::Level(LevelOp::GatherChannels)
        | Op::Level(LevelOp::RowMaxAbs)
        | Op::Level(LevelOp::HeadLinear)
        | Op::Array(ArrayOp::Binary(Binary::Mul | Binary::Div)) => true,
        Op::Array(ArrayOp::Binary(Binary::Add)) => is_part(graph, value),
        op => op.is_neuron(),
    }
}

/// Whether a value is a part of what a projection gives, or the sum of parts; the residual stream is neither.
pub fn is_part(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    let whole = matches!(
        node.op,
        Op::Level(LevelOp::ScaleShift)
            | Op::Level(LevelOp::GatherChannels)
            | Op::Dense(DenseOp::Linear(_))
            | Op::Array(ArrayOp::Binary(Binary::Mul))
    );
    whole || node.op == Op::Array(ArrayOp::Binary(Binary::Add)) && node.args.iter().all(|arg| is_part(graph, *arg))
}

fn reads_attention(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    node.op.has_state() || is_between(graph, value) && reads_attention(graph, node.args[0])
}

fn feeds(graph: &Graph, users: &[Vec<Value>], value: Value, wanted: &dyn Fn(Value) -> bool) -> bool {
    users[value.index()]
        .iter()
        .any(|&user| wanted(user) || is_between(graph, user) && feeds(graph, users, user, wanted))
}

fn is_output(graph: &Graph, users: &[Vec<Value>], value: Value) -> bool {
    let named = |value: Value| graph.outputs.iter().any(|(_, output)| *output == value);
    named(value) || feeds(graph, users, value, &named)
}
