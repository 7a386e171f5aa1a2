//! The parts of a program that NIR has words for: chains of synapses and of neurons that answer within a timestep.

use snnc_ir::membrane::Membrane;
use snnc_ir::op::SpikeOp;
use snnc_ir::{Curve, Graph, Op, Value};

/// A chain of synapses, each with the neurons that read it if they belong to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Island {
    /// The spike train that it reads.
    pub input: Value,
    /// Synapses with their neurons. All but the last have neurons.
    pub links: Vec<IslandLink>,
}

/// A synapse and what reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IslandLink {
    /// The synapse.
    pub synapse: Value,
    /// The neurons, where they are its only reader.
    pub neurons: Option<Value>,
}

impl Island {
    /// What leaves it: spikes of its last neurons, or currents.
    pub fn output(&self) -> Value {
        let last = self.links[self.links.len() - 1];
        last.neurons.unwrap_or(last.synapse)
    }
}

/// Time-stepped neurons: their kind, their timesteps, and whether they send spikes of one sign alone.
pub fn neurons(graph: &Graph, value: Value) -> Option<(Membrane, u16, bool)> {
    let Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) = graph.node(value).op else { return None };
    Some((membrane, steps, curve == Curve::Relu))
}

/// All islands of a program at stage spiking, in its order. `has_words` says of which neurons there are words; others end a chain.
pub fn islands(graph: &Graph, has_words: &dyn Fn(Membrane) -> bool) -> Vec<Island> {
    let users = graph.users();
    let is_synapse = |value: Value| matches!(graph.node(value).op, Op::Spike(SpikeOp::Synapse));
    // The neurons that alone read a synapse.
    let after = |synapse: Value| match users[synapse.index()].as_slice() {
        &[user] => {
            let (membrane, ..) = neurons(graph, user)?;
            (graph.node(user).args[0] == synapse && has_words(membrane)).then_some(user)
        }
        _ => None,
    };
    // The synapse that alone reads neurons of a chain.
    let next = |neurons: Value| match users[neurons.index()].as_slice() {
        &[user] if is_synapse(user) => Some(user),
        _ => None,
    };
    let continues = |synapse: Value| {
        let input = graph.node(synapse).args[0];
        let before = graph.node(input).args.first().copied();
        before.is_some_and(|before| is_synapse(before) && after(before) == Some(input) && next(input) == Some(synapse))
    };
    let starts = graph.iter().map(|(value, _)| value).filter(|&value| is_synapse(value) && !continues(value));
    starts
        .map(|start| {
            let mut links = Vec::new();
            let mut synapse = Some(start);
            while let Some(here) = synapse {
                let neurons = after(here);
                links.push(IslandLink { synapse: here, neurons });
                synapse = neurons.and_then(next);
            }
            Island { input: graph.node(start).args[0], links }
        })
        .collect()
}
