//! Several programs on the same text, in a few numbers each.

use super::contents::Report;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::{Diagnostic, ErrorCode};

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

impl RunSummary {
    /// Of a whole report; `None` where nothing was run.
    pub fn of(report: &Report) -> Option<Self> {
        let found = report.evaluation.as_ref()?;
        let energy = report.energy.as_ref()?;
        let by_list = |(list, total): (&String, &crate::energy::json::SavingJson)| {
            let mut parts: Vec<(String, f64)> = Vec::new();
            for row in &energy.rows {
                let Some(pj) = row.prices.get(list).and_then(|cost| cost.spiking_pj) else { continue };
                match parts.iter_mut().find(|(part, _)| part == row.part) {
                    Some((_, sum)) => *sum += pj,
                    None => parts.push((row.part.into(), pj)),
                }
            }
            RunEnergy { list: list.clone(), dense_pj: total.dense_pj, spiking_pj: total.spiking_pj, parts }
        };
        let tokens = report.predictions.len().max(1) as f64;
        let layer = |layer: &super::raster::ReportLayer| RunLayer {
            site: layer.site.clone(),
            timesteps: layer.timesteps,
            spikes_per_neuron: layer.spikes as f64 / (layer.width as f64 * tokens),
        };
        Some(Self {
            name: report.title.clone(),
            worse: report.worse.clone(),
            options: report.provenance.compiled.as_ref().and_then(|record| record.options.clone()),
            perplexity: found.perplexity,
            perplexity_95: found.perplexity_95,
            kl: found.beside.as_ref().map(|beside| beside.kl),
            kl_95: found.beside.as_ref().and_then(|beside| beside.kl_95),
            spikes_per_neuron: found.spikes_per_neuron.unwrap_or(0.0),
            timesteps_mean: found.timesteps_mean.unwrap_or(0.0),
            energy: energy.total.iter().map(by_list).collect(),
            layers: report.layers.iter().map(layer).collect(),
        })
    }
}

/// Whether another program read what the first one did.
///
/// # Errors
/// It read other tokens.
pub fn check_same_tokens(first: &Report, other: &Report) -> Result<(), Diagnostic> {
    let ids = |report: &Report| report.predictions.iter().map(|prediction| prediction.id).collect::<Vec<u32>>();
    if ids(first) == ids(other) {
        return Ok(());
    }
    let message = format!(
        "reads the text as other tokens than {}, or fewer of them: these are not the same network",
        first.title
    );
    Err(Diagnostic::new(&other.title, message).code(ErrorCode::OPTION).note("compare programs of one network"))
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
