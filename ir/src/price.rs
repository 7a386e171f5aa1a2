//! What a run did, in integers, and what that costs.
//!
//! `Events` are measured (spikes, keys) and the same for every engine and plan. `Work` follows from events and shapes:
//! multiply-accumulates of the dense network, additions of the spiking one. A price list turns work into energy.
//! Counted here are the products with weights and of attention; normalisation, softmax's division, residual additions
//! and memory are not, and reports say so.

use crate::graph::{Graph, Value};
use crate::op::{Binary, Layout, Op};
use crate::ssa::{Ssa, neuron_of};
use std::ops::AddAssign;

/// What one node did, summed over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Spikes that a neuron layer emitted.
    pub spikes: u64,
    /// Neurons that fired at every timestep: what they should say may be beyond their largest level.
    pub saturated: u64,
    /// Keys that queries met, summed over tokens (not over heads).
    pub keys: u64,
    /// Additions that spikes drove in attention scores: one for every query spike and key it meets; of coincidences, one for
    /// every pair of spikes that coincide; of linear attention, one for every spike of a query or key and channel of its sums.
    pub score_additions: u64,
    /// Keys that fired inside the window, summed over tokens and heads.
    pub value_keys: u64,
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Self) {
        self.spikes += other.spikes;
        self.saturated += other.saturated;
        self.keys += other.keys;
        self.score_additions += other.score_additions;
        self.value_keys += other.value_keys;
    }
}

/// Operations of one node over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates of the dense network.
    pub dense_macs: u64,
    /// Multiply-accumulates that the spiking network does where it is not spikes that meet weights.
    pub macs: u64,
    /// Additions that spikes drove.
    pub additions: u64,
    /// Spikes that drove them.
    pub spikes: u64,
    /// Neurons that could have spiked: neurons times tokens.
    pub neurons: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.dense_macs += other.dense_macs;
        self.macs += other.macs;
        self.additions += other.additions;
        self.spikes += other.spikes;
        self.neurons += other.neurons;
    }
}

/// The part of a transformer that a node's work belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// To queries, keys and values, and back to the residual stream.
    Projections,
    /// Scores, softmax and the weighted sum of values.
    Core,
    Mlp,
    Head,
}

impl Part {
    pub const ALL: [Part; 4] = [Part::Projections, Part::Core, Part::Mlp, Part::Head];

    pub fn name(self) -> &'static str {
        match self {
            Part::Projections => "attention projections",
            Part::Core => "attention core",
            Part::Mlp => "MLP",
            Part::Head => "head",
        }
    }
}

/// Layer and part of every node that does counted work, by structure alone: what feeds attention, what it feeds, what an
/// output reads. `None` for all other nodes; the head belongs to no layer.
pub fn parts(graph: &Graph) -> Vec<Option<(Option<u32>, Part)>> {
    let users = graph.users();
    let mut layers = 0;
    let mut parts = vec![None; graph.nodes.len()];
    for (value, node) in graph.iter() {
        match node.op {
            Op::Attention { .. } | Op::Ssa { .. } => {
                parts[value.index()] = Some((Some(layers), Part::Core));
                layers += 1;
            }
            Op::Linear(_) | Op::Product | Op::Synapse | Op::HeadMap => {
                let part = if reads_attention(graph, node.args[0]) {
                    (Some(layers.max(1) - 1), Part::Projections)
                } else if feeds(graph, &users, value, &|user| graph.node(user).op.has_state()) {
                    (Some(layers), Part::Projections)
                } else if is_output(graph, &users, value) {
                    (None, Part::Head)
                } else {
                    (Some(layers.max(1) - 1), Part::Mlp)
                };
                parts[value.index()] = Some(part);
            }
            _ => {}
        }
    }
    parts
}

/// Whether an operation is a layer of neurons.
pub fn is_neuron(op: &Op) -> bool {
    matches!(op, Op::Quant { .. } | Op::Fire { .. } | Op::Integrate { .. })
}

/// Whether an operation stands between a product and what reads it: neurons, other units, the sum of a projection's parts
/// with a threshold for every token.
fn is_between(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    match node.op {
        Op::Settle | Op::Affine | Op::Pick | Op::HeadMap | Op::Binary(Binary::Mul) => true,
        Op::Binary(Binary::Add) => is_part(graph, value),
        op => is_neuron(&op),
    }
}

/// Whether a value is a part of what a projection gives, or the sum of parts; the residual stream is neither.
pub fn is_part(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    let whole = matches!(node.op, Op::Affine | Op::Pick | Op::Linear(_) | Op::Binary(Binary::Mul));
    whole || node.op == Op::Binary(Binary::Add) && node.args.iter().all(|arg| is_part(graph, *arg))
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

/// The work of every node in a run on `tokens` tokens in which nodes did `events`.
pub fn work(graph: &Graph, tokens: u64, events: &[Events]) -> Vec<Work> {
    graph.iter().map(|(value, _)| work_of(graph, value, tokens, events)).collect()
}

fn work_of(graph: &Graph, value: Value, tokens: u64, events: &[Events]) -> Work {
    let node = graph.node(value);
    let width = |value: Value| graph.ty(value).shape().width().unwrap_or(0) as u64;
    let matrix =
        |value: Value| graph.ty(value).shape().sizes().map_or(0, |sizes| sizes.iter().product::<usize>() as u64);
    match node.op {
        Op::Linear(Layout::InputMajor | Layout::OutputMajor) => {
            Work { dense_macs: tokens * matrix(node.args[1]), ..Work::default() }
        }
        Op::Product | Op::Synapse => {
            let spikes = events[neuron_of(graph, node.args[0]).index()].spikes;
            Work {
                dense_macs: tokens * matrix(node.args[1]),
                additions: spikes * width(value),
                spikes,
                neurons: tokens * width(node.args[0]),
                ..Work::default()
            }
        }
        // The dense network has no such map.
        Op::HeadMap => Work { macs: tokens * matrix(node.args[1]), ..Work::default() },
        Op::Attention { .. } => Work { dense_macs: 2 * events[value.index()].keys * width(value), ..Work::default() },
        Op::Ssa { heads, variant } => {
            let Events { keys, score_additions, value_keys, .. } = events[value.index()];
            let head = width(value) / u64::from(heads);
            let neurons = tokens * width(node.args[0]);
            let work = Work {
                dense_macs: 2 * keys * width(value),
                additions: score_additions + value_keys * head,
                spikes: events[neuron_of(graph, node.args[0]).index()].spikes,
                neurons,
                ..Work::default()
            };
            match variant {
                // Keys are neurons there.
                Ssa::Ttfs { .. } | Ssa::TopK { .. } => {
                    Work { spikes: work.spikes + value_keys, neurons: neurons + keys * u64::from(heads), ..work }
                }
                Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => work,
            }
        }
        // Not counted, and said so in reports.
        Op::Tokens
        | Op::Positions
        | Op::Weight(_)
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Causal { .. }
        | Op::Where
        | Op::MatMul
        | Op::Transpose(_)
        | Op::Reshape(_)
        | Op::Slice { .. }
        | Op::Mean
        | Op::Softmax
        | Op::Split { .. }
        | Op::Merge
        | Op::Embed
        | Op::LayerNorm { .. }
        | Op::Normalise { .. }
        | Op::Curve(_)
        | Op::Quant { .. }
        | Op::Affine
        | Op::Peak
        | Op::Pick
        | Op::Fire { .. }
        | Op::Integrate { .. }
        | Op::Settle
        | Op::Training(_) => Work::default(),
    }
}

/// Energy of one operation, in picojoules, with where the numbers come from.
#[derive(Clone, Copy, Debug)]
pub struct PriceList {
    pub name: &'static str,
    pub source: &'static str,
    pub mac_pj: f64,
    pub addition_pj: f64,
}

/// The convention of the spiking literature: f32 arithmetic in 45 nm at 0.9 V, compute only. A multiply-accumulate is a
/// multiplication (3.7) and an addition (0.9).
pub const HOROWITZ_45NM_F32: PriceList = PriceList {
    name: "45 nm, f32",
    source: "Horowitz, ISSCC 2014: 45 nm, 0.9 V, f32 multiply 3.7 pJ, f32 add 0.9 pJ; compute only, no memory",
    mac_pj: 4.6,
    addition_pj: 0.9,
};

impl PriceList {
    pub fn dense_pj(&self, work: &Work) -> f64 {
        work.dense_macs as f64 * self.mac_pj
    }

    pub fn spiking_pj(&self, work: &Work) -> f64 {
        work.additions as f64 * self.addition_pj + work.macs as f64 * self.mac_pj
    }
}
