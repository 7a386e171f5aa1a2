//! How busy a network is: events by node over some tokens, measured on text or assumed.

use snnc_ir::events::{Events, is_neuron};
use snnc_ir::{Carrier, Graph, Op, Type, Value};

/// What every node of a graph did over some tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    pub tokens: u64,
    /// By node.
    pub events: Vec<Events>,
}

/// How often a neuron fires, on average over a layer and over tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Spikes a neuron and token.
    pub spikes: f64,
    /// Share of neurons that fire at least once a token.
    pub active: f64,
}

impl Activity {
    /// What is to be expected of `tokens` tokens that each meet `keys` keys, from every neuron layer's rate and the share of
    /// keys inside the window.
    pub fn assumed(graph: &Graph, tokens: u64, keys: u64, rate: &dyn Fn(Value) -> Rate, window: f64) -> Self {
        let count = |all: u64, share: f64| (all as f64 * share).round() as u64;
        let mut this = Self { tokens, events: vec![Events::default(); graph.nodes.len()] };
        for (value, node) in graph.iter().filter(|(_, node)| is_neuron(&node.op)) {
            let (neurons, rate) = (tokens * node.ty.shape().width().unwrap_or(0) as u64, rate(value));
            let (spikes, active) = (count(neurons, rate.spikes), count(neurons, rate.active));
            this.events[value.index()] = Events { spikes, active, ..Events::default() };
        }
        for (value, node) in graph.iter() {
            if let Op::Ssa { heads, .. } | Op::Attention { heads, .. } = node.op {
                let met = tokens * keys;
                let value_keys = count(met * u64::from(heads), window);
                this.events[value.index()] = Events { keys: met, value_keys, ..Events::default() };
            }
        }
        this.meet(graph, keys);
        this
    }

    /// The same network producing token after token, each of which meets `keys` keys: neurons as they were, attention by
    /// so many keys, of which the same share is inside the window.
    pub fn decoding(&self, graph: &Graph, keys: u64) -> Self {
        let mut this = self.clone();
        for (value, _) in graph.iter().filter(|(_, node)| node.op.has_state()) {
            let Events { keys: met, value_keys, .. } = self.events[value.index()];
            let all = self.tokens * keys;
            let share = u128::from(value_keys) * u128::from(all) / u128::from(met.max(1));
            let events = &mut this.events[value.index()];
            (events.keys, events.value_keys) = (all, share as u64);
        }
        this.meet(graph, keys);
        this
    }

    /// The same tokens without a spike.
    pub fn silent(&self) -> Self {
        let keys = |events: &Events| Events { keys: events.keys, ..Events::default() };
        Self { tokens: self.tokens, events: self.events.iter().map(keys).collect() }
    }

    /// Every query meets so many keys.
    fn meet(&mut self, graph: &Graph, keys: u64) {
        for (value, node) in graph.iter().filter(|(_, node)| matches!(node.op, Op::Ssa { .. })) {
            let queries = self.of_neurons(graph, node.args[0]);
            let events = &mut self.events[value.index()];
            (events.score_additions, events.score_pairs) = (queries.spikes * keys, queries.active * keys);
        }
    }

    /// What the neurons did whose spikes or levels a value is.
    pub(super) fn of_neurons(&self, graph: &Graph, value: Value) -> Events {
        self.events[neurons_of(graph, value).index()]
    }
}

/// The neuron layer whose spikes a value is.
pub fn neurons_of(graph: &Graph, value: Value) -> Value {
    match graph.node(value).op {
        Op::Settle => neurons_of(graph, graph.node(value).args[0]),
        _ => value,
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
