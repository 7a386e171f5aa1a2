//! Several programs on the same text, in a few numbers each.

use schemars::JsonSchema;
use serde::Serialize;

/// A program's run in a few numbers.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunSummary {
    /// The program's file name.
    pub name: String,
    /// Why its text is worth little, where it is.
    pub worse: Option<String>,
    /// How it was compiled.
    pub options: Option<String>,
    /// Perplexity of the text, and its 95 % confidence interval.
    pub perplexity: f64,
    /// `null` of fewer than ten tokens.
    pub perplexity_95: Option<[f64; 2]>,
    /// Kullback-Leibler divergence from the dense network, in nats per token.
    pub kl: Option<f64>,
    /// Its 95 % confidence interval.
    pub kl_95: Option<[f64; 2]>,
    /// Spikes per neuron and token.
    pub spikes_per_neuron: f64,
    /// Timesteps per neuron, on average.
    pub timesteps_mean: f64,
    /// By price list, in the order of the lists.
    pub energy: Vec<RunEnergy>,
    /// By layer of neurons.
    pub layers: Vec<RunLayer>,
}

/// A run's energy by one price list.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunEnergy {
    /// The price list.
    pub list: String,
    /// Dense f32, in picojoules per token; `null` where something has no price.
    pub dense_pj: Option<f64>,
    /// Spiking with time collapsed.
    pub spiking_pj: Option<f64>,
    /// Spiking, by part, summed over layers.
    pub parts: Vec<(String, f64)>,
}

/// A layer of neurons.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RunLayer {
    /// The site that it codes.
    pub site: String,
    /// Timesteps.
    pub timesteps: u16,
    /// Spikes per neuron and token.
    pub spikes_per_neuron: f64,
}

/// Names that differ: the second of the same name gets a number.
pub fn tell_apart(runs: &mut [RunSummary]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (i, run) in runs.iter_mut().enumerate() {
        let twins = names[..i].iter().filter(|name| **name == names[i]).count();
        if twins > 0 {
            run.name = format!("{} ({})", names[i], twins + 1);
        }
    }
}
