//! What the manifest of a SANA-FE export says: data alone.

use super::nir::dialect::Fidelity;
use schemars::JsonSchema;
use serde::Serialize;

/// What was exported.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SanaFeManifest {
    /// The architecture, one of those that SANA-FE brings.
    pub architecture: &'static str,
    /// How groups came to cores: `layers` or `packed`.
    pub placement: &'static str,
    /// Whether the simulator does what the program does.
    pub rating: Fidelity,
    /// Why it is not faithful.
    pub reason: &'static str,
    /// Timesteps of the program.
    pub timesteps: usize,
    /// Steps of the simulator per token.
    pub steps: usize,
    /// Neurons, inputs among them.
    pub neurons: usize,
    /// Synapses, without those that carry offsets.
    pub synapses: usize,
    /// Cores that are taken.
    pub cores: usize,
    /// Cores that the chip has.
    pub cores_of_chip: usize,
    /// Cores that all neurons of the program would take, those among them for which the simulator has no words.
    pub cores_of_network: usize,
    /// Neurons that a core has room for.
    pub neurons_of_core: usize,
    /// Messages from core to core per token, where a text was run: a spike goes to every core that reads it.
    pub messages_per_token: Option<f64>,
    /// Groups of neurons.
    pub groups: Vec<ChipGroup>,
}

/// A group of neurons on the chip.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChipGroup {
    /// Its name in the network.
    pub name: String,
    /// The site that it codes.
    pub site: Option<String>,
    /// How many groups are between it and the inputs; `null` of inputs.
    pub depth: Option<usize>,
    /// Its neurons; of both signs twice the program's.
    pub neurons: usize,
    /// Whether its second half sends the negative spikes.
    pub signed: bool,
    /// The first core that it is on.
    pub first_core: usize,
    /// The last one.
    pub last_core: usize,
    /// What rounding moves at most over all timesteps, in thresholds; `null` of inputs.
    pub rounding: Option<f64>,
}
