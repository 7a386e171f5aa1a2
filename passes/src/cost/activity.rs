//! How busy a network is: events by node over some tokens, measured on text or expected.

use snnc_ir::events::Events;
use snnc_ir::op::{DenseOp, Heads, LevelOp};
use snnc_ir::state::neuron_of;
use snnc_ir::{Carrier, Graph, Op, Ssa, Type, Value};

/// What every node of a graph did over some tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// How many tokens.
    pub tokens: u64,
    /// By node.
    pub events: Vec<Events>,
}

/// How often a neuron fires, on average over a layer and over tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Spikes a neuron and token.
    pub spikes: f64,
    /// Share of neurons that fire at least once per token.
    pub active: f64,
}

impl Activity {
    /// What is to be expected of `tokens` tokens that each meet so many keys of an attention, from every neuron layer's rate and
    /// the share of keys that fire.
    pub fn expected(
        graph: &Graph,
        tokens: u64,
        keys: &dyn Fn(Heads) -> u64,
        rate: &dyn Fn(Value) -> Rate,
        fired: f64,
    ) -> Self {
        let count = |all: u64, share: f64| (all as f64 * share).round() as u64;
        let mut this = Self { tokens, events: vec![Events::default(); graph.nodes.len()] };
        for (value, node) in graph.iter().filter(|(_, node)| node.op.is_neuron()) {
            let (neurons, rate) = (tokens * node.ty.shape().width().unwrap_or(0) as u64, rate(value));
            let (spikes, active) = (count(neurons, rate.spikes), count(neurons, rate.active));
            this.events[value.index()] = Events { spikes, active, ..Events::default() };
        }
        for (value, node) in graph.iter() {
            let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { continue };
            let keys = keys(heads);
            let [q, k] = [0, 1].map(|i| this.of_neurons(graph, node.args[i]));
            let one_sided = q.spikes * keys;
            let width = node.ty.shape().width().unwrap_or(0) as u64 / u64::from(heads.query.max(1));
            let (score_pairs, score_additions) = match variant {
                Ssa::Ttfs { .. } | Ssa::TopK { .. } => (q.active * keys, one_sided),
                Ssa::Linear { .. } => (0, (q.spikes + k.spikes) * (width + 1)),
                // Spikes coincide as often as if those of keys were strewn at random.
                Ssa::Coincidence { .. } | Ssa::Lif { .. } => {
                    let ty = graph.ty(node.args[1]);
                    let slots =
                        tokens * ty.shape().width().unwrap_or(0) as u64 * ty.levels().map_or(1, |l| u64::from(l.1));
                    (one_sided, count(one_sided, k.spikes as f64 / slots.max(1) as f64))
                }
            };
            let fired = if matches!(variant, Ssa::Linear { .. }) { 0.0 } else { fired };
            let value_keys = count(tokens * keys * u64::from(heads.query), fired);
            let own = this.events[value.index()];
            this.events[value.index()] =
                Events { keys: tokens * keys, score_pairs, score_additions, value_keys, ..own };
        }
        for (value, node) in graph.iter() {
            let Op::Dense(DenseOp::Attention { heads, .. }) = node.op else { continue };
            this.events[value.index()].keys = tokens * keys(heads);
        }
        this
    }

    /// The same network producing token after token after `keys` others: neurons as they were, attention by so many keys as
    /// its window lets a token meet, of which the same share fires.
    pub fn decoding(&self, graph: &Graph, keys: u64) -> Self {
        let mut this = self.clone();
        for (value, node) in graph.iter().filter(|(_, node)| node.op.has_state()) {
            let was = self.events[value.index()];
            let keys = heads_of(node.op).map_or(keys, |heads| met(keys, heads));
            let all = self.tokens * keys;
            let scaled = |count: u64| (u128::from(count) * u128::from(all) / u128::from(was.keys.max(1))) as u64;
            let now = &mut this.events[value.index()];
            now.keys = all;
            let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { continue };
            match variant {
                Ssa::Ttfs { .. } | Ssa::TopK { .. } => {
                    let queries = self.of_neurons(graph, node.args[0]);
                    (now.score_pairs, now.score_additions) = (queries.active * keys, queries.spikes * keys);
                    now.value_keys = scaled(was.value_keys);
                    if let Ssa::TopK { keys: most, .. } = variant {
                        now.value_keys = now.value_keys.min(self.tokens * u64::from(heads.query) * u64::from(most));
                    }
                }
                Ssa::Coincidence { .. } | Ssa::Lif { .. } => {
                    now.score_pairs = scaled(was.score_pairs);
                    now.score_additions = scaled(was.score_additions);
                    now.value_keys = scaled(was.value_keys);
                }
                // A state of fixed size is met, however many keys are in it.
                Ssa::Linear { .. } => {}
            }
        }
        this
    }

    /// The same tokens without a spike.
    pub fn silent(&self) -> Self {
        let keys = |events: &Events| Events { keys: events.keys, ..Events::default() };
        Self { tokens: self.tokens, events: self.events.iter().map(keys).collect() }
    }

    /// What the neurons did whose spikes or levels a value is.
    pub(super) fn of_neurons(&self, graph: &Graph, value: Value) -> Events {
        self.events[neuron_of(graph, value).index()]
    }
}

/// Keys that a query meets after so many: those of its window.
fn met(keys: u64, heads: Heads) -> u64 {
    heads.window.map_or(keys, |window| keys.min(window.into()))
}

/// Heads of an attention, dense or spiking.
fn heads_of(op: Op) -> Option<Heads> {
    match op {
        Op::Level(LevelOp::Ssa { heads, .. }) | Op::Dense(DenseOp::Attention { heads, .. }) => Some(heads),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// One token of neurons that all fire at every timestep.
pub(super) fn busy(ty: Type) -> Events {
    let (Some((_, steps)), Some(width)) = (ty.levels(), ty.shape().width()) else { return Events::default() };
    if matches!(ty, Type::Train { carrier: Carrier::Current, .. }) {
        return Events::default();
    }
    let active = width as u64;
    Events { spikes: active * u64::from(steps), active, saturated: active, ..Events::default() }
}
