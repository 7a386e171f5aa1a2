//! Reports of several programs in a few numbers each, and whether they can be compared.

use super::contents::Report;
use super::raster::ReportLayer;
use super::runs::{RunEnergy, RunLayer, RunSummary};
use crate::energy::json::SavingJson;
use snnc_ir::{Diagnostic, ErrorCode};

/// A report in a few numbers; `None` where nothing was run.
pub fn summary(report: &Report) -> Option<RunSummary> {
    let found = report.evaluation.as_ref()?;
    let energy = report.energy.as_ref()?;
    let by_list = |(list, total): (&String, &SavingJson)| {
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
    let layer = |layer: &ReportLayer| RunLayer {
        site: layer.site.clone(),
        timesteps: layer.timesteps,
        spikes_per_neuron: layer.spikes as f64 / (layer.width as f64 * tokens),
    };
    Some(RunSummary {
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
