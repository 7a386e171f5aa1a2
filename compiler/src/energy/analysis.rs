//! What a figure hangs on: how many spikes would make spiking cost as much as dense, and what every price does to a saving.

use super::{Block, Estimate, Phase, PriceList, PricedItem};
use snnc_passes::cost::{Form, LayerPart};

/// Where a layer and part costs as much spiking as dense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakEven {
    /// Where it is.
    pub place: LayerPart,
    /// A neuron and token, as measured.
    pub spikes: f64,
    /// A neuron and token, at which spiking costs as much as dense; below 0 where it costs more without any spikes.
    pub break_even_spikes: f64,
    /// Timesteps, as measured, on average over neurons.
    pub timesteps: f64,
    /// Timesteps at which there would be so many spikes, at as many a timestep as there are.
    pub break_even_timesteps: f64,
}

/// The break-even of every layer and part with neurons, of spiking energy as a straight line from no spikes to those measured.
/// Rows without a total by this list, and those whose neurons never fire, have none.
pub fn break_even(estimate: &Estimate, list: &PriceList, phase: Phase, dense: Form, spiking: Form) -> Vec<BreakEven> {
    let silent = estimate.silent[&phase].iter().find(|counts| counts.form == spiking);
    let one = |(&place, neurons): (&LayerPart, &super::NeuronCounts)| {
        let block = Block::Row(place);
        let pj = |form| estimate.counts(phase, form).price(block, list).pj();
        let (dense, now, none) = (pj(dense)?, pj(spiking)?, silent?.price(block, list).pj()?);
        if neurons.spikes == 0 || now <= none {
            return None;
        }
        let all = neurons.neurons as f64;
        let (spikes, timesteps) = (neurons.spikes as f64 / all, neurons.slots as f64 / all);
        let times = (dense - none) / (now - none);
        Some(BreakEven {
            place,
            spikes,
            break_even_spikes: spikes * times,
            timesteps,
            break_even_timesteps: timesteps * times,
        })
    };
    estimate.neurons.iter().filter_map(one).collect()
}

/// What one price does to a saving.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensitivity {
    /// What has the price.
    pub item: PricedItem,
    /// Its share of either side's energy.
    pub dense_share: f64,
    /// Its share of the spiking network's energy.
    pub spiking_share: f64,
    /// The saving at half the price, and at twice.
    pub halved: f64,
    /// The saving at twice the price.
    pub doubled: f64,
}

/// Every price that a block's saving depends on; none where it has no saving.
pub fn sensitivity(
    estimate: &Estimate,
    block: Block,
    list: &PriceList,
    phase: Phase,
    dense: Form,
    spiking: Form,
) -> Vec<Sensitivity> {
    let compared = estimate.compare(block, list, phase, dense, spiking);
    let (Some(dense_pj), Some(spiking_pj), Some(_)) = (compared.dense.pj(), compared.spiking.pj(), compared.saving())
    else {
        return Vec::new();
    };
    let of =
        |items: &[(PricedItem, f64)], item| items.iter().find(|(other, _)| *other == item).map_or(0.0, |(_, pj)| *pj);
    let one = |item| {
        let (d, s) = (of(&compared.dense.items, item), of(&compared.spiking.items, item));
        let saving = |factor: f64| 1.0 - (spiking_pj + (factor - 1.0) * s) / (dense_pj + (factor - 1.0) * d);
        let shares = (d / dense_pj, if spiking_pj > 0.0 { s / spiking_pj } else { 0.0 });
        (d > 0.0 || s > 0.0).then(|| Sensitivity {
            item,
            dense_share: shares.0,
            spiking_share: shares.1,
            halved: saving(0.5),
            doubled: saving(2.0),
        })
    };
    PricedItem::all().filter_map(one).collect()
}
