//! Spikes of a run: layer by layer, as columns of one table.

use crate::model::SnncModel;
use crate::pointers::{free, give, handle, lend, numbers, text};
use crate::status::{SnncStatus, c_text, call, wrong};
use snnc::progress::Silent;
use snnc::spikes::{LayerSpikes, WatchedLayer};
use std::ffi::{CString, c_char};

/// What the neurons of a run did.
#[derive(Debug)]
pub struct SnncSpikes {
    layers: Vec<KeptLayer>,
}

#[derive(Debug)]
struct KeptLayer {
    site: CString,
    neuron: CString,
    layer: WatchedLayer,
    weights: Vec<i32>,
    seen: LayerSpikes,
}

/// A layer of neurons and its spikes. All pointers are valid until the spikes are freed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SnncLayer {
    /// Where it stands, such as "h.0.mlp.hidden".
    pub site: *const c_char,
    /// The neurons, as the IR spells them.
    pub neuron: *const c_char,
    /// Timesteps.
    pub timesteps: usize,
    /// Neurons.
    pub width: usize,
    /// What a spike of each timestep weighs, `[timesteps]`.
    pub weights: *const i32,
    /// Tokens of the run.
    pub tokens: usize,
    /// Levels, `[tokens, width]`: the sum of each neuron's weighted spikes.
    pub levels: *const i32,
    /// Spikes. Spike i is of token `spike_token[i]` at timestep `spike_timestep[i]`, by neuron `spike_neuron[i]`, with the sign
    /// `spike_sign[i]`.
    pub spikes: usize,
    /// Places of tokens in the run, from 0, ascending, `[spikes]`.
    pub spike_token: *const u32,
    /// Timesteps from 0, ascending within a token, `[spikes]`.
    pub spike_timestep: *const u16,
    /// Places of neurons in the layer, from 0, `[spikes]`.
    pub spike_neuron: *const u32,
    /// 1 or -1, `[spikes]`.
    pub spike_sign: *const i8,
}

/// Runs ids and keeps what neurons do: of the layers that `site` means, such as "h.0.mlp" or "*.mlp.hidden", or of all where it is
/// null. With `stepped`, every timestep is run; the spikes are the same. They are freed with snnc_spikes_free.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_spikes(
    model: *const SnncModel,
    ids: *const u32,
    count: usize,
    site: *const c_char,
    stepped: bool,
    spikes: *mut *mut SnncSpikes,
) -> SnncStatus {
    call(|| {
        let model = handle(model, "model")?;
        let ids = numbers(ids, count, "ids")?;
        let sites = if site.is_null() { Vec::new() } else { vec![text(site, "site")?.to_string()] };
        let program = model.shared.watched(&sites, stepped)?;
        let seen = program.run(ids, &Silent)?;
        let layers = program.layers().iter().zip(seen).map(|(layer, seen)| KeptLayer {
            site: c_text(&layer.site),
            neuron: c_text(&layer.neuron),
            weights: layer.weights(),
            layer: layer.clone(),
            seen,
        });
        Ok(lend(SnncSpikes { layers: layers.collect() }, spikes, "spikes")?)
    })
}

/// Layers of a run; 0 for null.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_spikes_layers(spikes: *const SnncSpikes) -> usize {
    handle(spikes, "spikes").map_or(0, |spikes| spikes.layers.len())
}

/// The layer at a place, from 0.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_spikes_layer(spikes: *const SnncSpikes, place: usize, layer: *mut SnncLayer) -> SnncStatus {
    call(|| {
        let layers = &handle(spikes, "spikes")?.layers;
        let found = layers
            .get(place)
            .ok_or_else(|| wrong("place", format!("{place} is none; there are {} layers", layers.len())))?;
        let seen = &found.seen;
        let view = SnncLayer {
            site: found.site.as_ptr(),
            neuron: found.neuron.as_ptr(),
            timesteps: found.weights.len(),
            width: found.layer.width,
            weights: found.weights.as_ptr(),
            tokens: seen.levels.len() / found.layer.width.max(1),
            levels: seen.levels.as_ptr(),
            spikes: seen.signs.len(),
            spike_token: seen.tokens.as_ptr(),
            spike_timestep: seen.timesteps.as_ptr(),
            spike_neuron: seen.neurons.as_ptr(),
            spike_sign: seen.signs.as_ptr(),
        };
        Ok(give(layer, view, "layer")?)
    })
}

/// Frees spikes; null is nothing to free.
#[unsafe(no_mangle)]
pub extern "C" fn snnc_spikes_free(spikes: *mut SnncSpikes) {
    let _ = call(|| {
        free(spikes);
        Ok(())
    });
}
