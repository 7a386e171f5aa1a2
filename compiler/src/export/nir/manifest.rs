//! What a manifest says of islands: data alone.

use super::dialect::Fidelity;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// What was exported.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirManifest {
    /// Whose understanding of NIR the files are written for.
    pub dialect: &'static str,
    /// Seconds of a timestep.
    pub dt: f64,
    /// The islands, in the program's order.
    pub islands: Vec<NirIsland>,
    /// What feeds what.
    pub connections: Vec<NirConnection>,
    /// Operations that the host does between islands, with how many there are.
    pub host: BTreeMap<String, usize>,
    /// Neurons for which there are no words, by site.
    pub unsupported: Vec<NirUnsupported>,
    /// Of all synaptic weights, the share that islands hold.
    pub weights_in_islands: f64,
}

/// An island and its file.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirIsland {
    /// Its name.
    pub name: String,
    /// The NIR file.
    pub file: String,
    /// The file with spikes of a run, where one was asked for.
    pub trace: Option<String>,
    /// The least faithful of its nodes.
    pub rating: Fidelity,
    /// Why it is not faithful.
    pub reasons: Vec<String>,
    /// How spikes spell levels.
    pub code: &'static str,
    /// Timesteps of the program.
    pub timesteps: u16,
    /// Timesteps of the reader before the program's first, in which potentials are set.
    pub lead: usize,
    /// Timesteps of the reader per timestep of the program.
    pub stride: usize,
    /// What it reads.
    pub input: NirPort,
    /// What it gives.
    pub output: NirPort,
    /// Its nodes.
    pub nodes: Vec<NirNodeRating>,
}

/// What enters or leaves an island.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirPort {
    /// `spikes` or `currents`.
    pub kind: &'static str,
    /// The site that it codes or is computed for.
    pub site: Option<String>,
    /// The program's channels.
    pub width: usize,
    /// Channels behind them.
    pub lines: Vec<&'static str>,
    /// Whether each neuron has a channel for spikes of either sign: first all positive ones, then all negative ones.
    pub signed: bool,
}

/// A node and how faithful it is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirNodeRating {
    /// Its name in the file.
    pub name: String,
    /// Its type in NIR.
    pub r#type: &'static str,
    /// The site of neurons.
    pub site: Option<String>,
    /// The neuron, as the IR spells it.
    pub neuron: Option<&'static str>,
    /// Whether it does what the program does.
    pub rating: Fidelity,
    /// Why it does not.
    pub reason: Option<String>,
}

/// Something that an island feeds, or that feeds it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirConnection {
    /// An island, or an operation of the host.
    pub from: String,
    /// An island, or an operation of the host.
    pub to: String,
}

/// Neurons for which there are no words.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NirUnsupported {
    /// Their site.
    pub site: String,
    /// The neuron, as the IR spells it.
    pub neuron: String,
    /// Why.
    pub reason: String,
}
