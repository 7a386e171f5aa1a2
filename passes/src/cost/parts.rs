//! Where in a transformer a node stands: its layer and part, by its site.

use snnc_ir::op::{ArrayOp, DenseOp, LevelOp, SpikeOp};
use snnc_ir::site::{ChannelGroup, Role, Site};
use snnc_ir::{Binary, Graph, Node, Op, Value};
use std::collections::BTreeMap;

/// The part of a transformer that work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// To queries, keys and values, and back to the residual stream, with neurons and rotations between.
    Projections,
    /// Queries times keys.
    Scores,
    /// From scores to weights and their sum.
    Softmax,
    /// Weights times values.
    Values,
    /// All projections of an MLP, its activation function and its gate.
    Mlp,
    /// Norms with their gains, and what centres the residual stream.
    Norm,
    /// The projection to logits.
    Head,
    /// Embedding and residual stream.
    Rest,
}

impl Part {
    /// Every part, in the order of tables.
    pub const ALL: [Part; 8] =
        [Part::Projections, Part::Scores, Part::Softmax, Part::Values, Part::Mlp, Part::Norm, Part::Head, Part::Rest];

    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Projections => "attention projections",
            Part::Scores => "attention scores",
            Part::Softmax => "attention softmax",
            Part::Values => "attention values",
            Part::Mlp => "MLP",
            Part::Norm => "norms",
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

/// Layer and part. The head and the rest are of no layer; neither is a last norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerPart {
    /// Number of the layer, from 0; `None` for head and rest.
    pub layer: Option<u32>,
    /// Which part of it.
    pub part: Part,
}

impl LayerPart {
    /// What an operation at a site is priced as.
    pub fn of(op: &Op, site: Option<Site>) -> Self {
        let part = match op {
            Op::Dense(DenseOp::Centre | DenseOp::RmsNorm { .. }) => Part::Norm,
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                site.map_or(Part::Rest, part_of)
            }
        };
        LayerPart { layer: site.and_then(|site| site.layer), part }
    }
}

fn part_of(site: Site) -> Part {
    match (site.role, site.group) {
        // Features are part of what scores them.
        (Role::Attention, _) | (_, ChannelGroup::Features) => Part::Scores,
        (Role::AttentionIn | Role::Query | Role::Key | Role::Value | Role::AttentionOut, _) => Part::Projections,
        (Role::MlpIn | Role::MlpHidden | Role::Other, _) => Part::Mlp,
        (Role::Head, _) => Part::Head,
    }
}

/// The place of every node.
pub fn parts(graph: &Graph) -> Vec<LayerPart> {
    let thresholds = token_thresholds(graph);
    let place = |(value, node): (Value, &Node)| {
        let place = LayerPart::of(&node.op, graph.site(value));
        let is_gain = !thresholds[value.index()] && is_gain_of_norm(graph, node);
        if is_gain { LayerPart { part: Part::Norm, ..place } } else { place }
    };
    graph.iter().map(place).collect()
}

/// Whether a node is the gain and bias of a norm.
fn is_gain_of_norm(graph: &Graph, node: &Node) -> bool {
    let is_norm = |value: Value| matches!(graph.node(value).op, Op::Dense(DenseOp::RmsNorm { .. }));
    node.op == Op::Level(LevelOp::ScaleShift) && is_norm(node.args[0])
}

/// Which values a token's threshold is the peak of: its neurons' gains are in them.
fn token_thresholds(graph: &Graph) -> Vec<bool> {
    let mut found = vec![false; graph.nodes.len()];
    for node in graph.nodes.iter().filter(|node| matches!(node.op, Op::Level(LevelOp::RowMaxAbs { .. }))) {
        found[node.args[0].index()] = true;
    }
    found
}

/// Products whose weight is a part of another one's, by node: several of them make one projection of the dense network, of
/// which the largest stands for it.
pub fn splits(graph: &Graph) -> Vec<bool> {
    let mut splits = vec![false; graph.nodes.len()];
    // By product: what its results are added up to.
    let sums = sums(graph);
    let mut wholes: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for (value, _) in
        graph.iter().filter(|(_, node)| matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse)))
    {
        wholes.entry(sums[value.index()].unwrap_or(value)).or_default().push(value);
    }
    for products in wholes.values() {
        let weights =
            |value: &Value| graph.ty(graph.node(*value).args[1]).shape().sizes().map_or(0, |s| s.iter().product());
        let largest = products.iter().copied().reduce(|a, b| if weights(&b) > weights(&a) { b } else { a });
        products.iter().filter(|value| Some(**value) != largest).for_each(|value| splits[value.index()] = true);
    }
    splits
}

/// By value: the last one that its results alone are summed up to, the sum of a projection's parts; none if that is itself.
fn sums(graph: &Graph) -> Vec<Option<Value>> {
    let users = graph.users();
    let mut sums: Vec<Option<Value>> = vec![None; graph.nodes.len()];
    for (value, _) in graph.iter().rev() {
        let &[user] = users[value.index()].as_slice() else { continue };
        let op = graph.node(user).op;
        let is_sum = op == Op::Array(ArrayOp::Binary(Binary::Add)) && is_part(graph, user);
        let passes = matches!(
            op,
            Op::Spike(SpikeOp::Decode)
                | Op::Level(LevelOp::ScaleShift)
                | Op::Level(LevelOp::GatherChannels)
                | Op::Array(ArrayOp::Binary(Binary::Mul))
        );
        if is_sum || passes {
            sums[value.index()] = sums[user.index()].or(is_sum.then_some(user));
        }
    }
    sums
}

/// Additions that one spike of a site drives in some parts of a Tensor graph.
pub fn fan_out(tensor: &Graph, site: Value, wanted: impl Fn(Part) -> bool) -> f64 {
    let places = parts(tensor);
    let reads = tensor.iter().filter(|(_, node)| node.args.contains(&site));
    let each = |(value, node): (Value, &Node)| {
        if !wanted(places[value.index()].part) {
            0.0
        } else if matches!(node.op, Op::Dense(DenseOp::Linear(_))) {
            tensor.ty(value).shape().width().unwrap_or(0) as f64
        } else if let Op::Dense(DenseOp::Attention { heads, .. }) = node.op
            && node.args[0] == site
        {
            // A query's spike meets the keys that it sees; keys and values are read, they drive nothing.
            let context = tensor.context as usize;
            (heads.keys(0, context) as f64 / context.max(1) as f64).floor()
        } else {
            0.0
        }
    };
    reads.map(each).sum()
}

/// Whether a value belongs to a projection, and not to the residual stream.
pub fn is_part(graph: &Graph, value: Value) -> bool {
    graph.site(value).is_some()
}
