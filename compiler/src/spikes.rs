//! Spikes of a run, one by one: which neuron fired, at which token and timestep, and with which sign.
//!
//! Law: spikes of a layer, weighted by its code, add up to its levels, whichever engine ran it, and however.

use crate::evaluate::CHUNK;
use crate::lints::name_of;
use crate::progress::{Progress, cancelled};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Code, Diagnostic, Graph, Stage, Value};
use snnc_passes::sites::selects;
use snnc_runtime::{Options, Program, Rows, Session};
use std::sync::Arc;

/// Numbers of neurons that are held at a time, at most.
const NUMBERS: usize = 1 << 25;

/// A layer of neurons that is watched.
#[derive(Clone, Debug)]
pub struct WatchedLayer {
    /// The site that it codes, such as `h.0.mlp.hidden`. A second layer of the same site has ` (2)` behind it.
    pub site: String,
    /// The neurons, as the IR spells them.
    pub neuron: String,
    /// How spikes spell a level.
    pub code: Code,
    /// Timesteps.
    pub timesteps: u16,
    /// Neurons.
    pub width: usize,
    value: Value,
    /// Numbers of a token and neuron as they come: 1 level, or a spike for each timestep.
    parts: usize,
}

impl WatchedLayer {
    /// What spikes of each timestep weigh.
    pub fn weights(&self) -> Vec<i32> {
        (0..self.timesteps).map(|t| self.code.weight(t, self.timesteps)).collect()
    }
}

/// What a layer did: its levels, and its spikes as columns of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerSpikes {
    /// Levels, `[tokens, width]`, row-major.
    pub levels: Vec<i32>,
    /// The place of the token in the run, from 0, in ascending order.
    pub tokens: Vec<u32>,
    /// The timestep, from 0; ascending within a token.
    pub timesteps: Vec<u16>,
    /// The neuron's index in its layer; ascending within a timestep.
    pub neurons: Vec<u32>,
    /// 1 or -1.
    pub signs: Vec<i8>,
}

impl LayerSpikes {
    /// Takes in what some tokens did, `[tokens, parts, width]`, the first of them at place `token`.
    fn add(&mut self, layer: &WatchedLayer, token: usize, numbers: &[i32]) {
        let (width, weights) = (layer.width, layer.weights());
        for (token, row) in (token..).zip(numbers.chunks_exact(layer.parts * width)) {
            for (t, weight) in (0..layer.timesteps).zip(&weights) {
                let spike = |i: usize| match layer.parts {
                    1 => layer.code.spike(row[i], t, layer.timesteps),
                    _ => row[usize::from(t) * width + i],
                };
                let start = self.levels.len() - if t == 0 { 0 } else { width };
                if t == 0 {
                    self.levels.resize(start + width, 0);
                }
                for i in 0..width {
                    let sign = spike(i);
                    if sign != 0 {
                        self.levels[start + i] += sign * weight;
                        self.tokens.push(token as u32);
                        self.timesteps.push(t);
                        self.neurons.push(i as u32);
                        self.signs.push(sign as i8);
                    }
                }
            }
        }
    }
}

/// The name of the output that a layer of neurons is seen through. No output of a network has such a name.
pub fn output_of(value: Value) -> String {
    format!("neurons %{}", value.0)
}

/// The graph with these layers as outputs. Nodes keep their numbers.
pub fn opened(graph: &Graph, layers: impl IntoIterator<Item = Value>) -> Graph {
    let mut open = graph.clone();
    open.outputs.extend(layers.into_iter().map(|value| (output_of(value), value)));
    open
}

/// A program whose neurons are watched.
#[derive(Clone, Debug)]
pub struct WatchedProgram {
    program: Arc<Program>,
    layers: Vec<WatchedLayer>,
    chunk: usize,
}

impl WatchedProgram {
    /// Of a spiking program, or of its collapse: the layers that one of `selectors` means, or all without any.
    ///
    /// # Errors
    /// A dense network; a selector that means no layer; a graph that cannot be planned.
    pub fn new(graph: &Graph, selectors: &[String], options: &Options) -> Result<Self, Diagnostics> {
        if !matches!(graph.stage, Stage::Spiking | Stage::Quantised) {
            let error = Diagnostic::new("", "a dense network has no spikes; compile it first").code(ErrorCode::RUN);
            return Err(error.into());
        }
        let mut layers: Vec<WatchedLayer> = Vec::new();
        for (value, node) in graph.iter().filter(|(_, node)| node.op.is_neuron()) {
            let (Some((code, timesteps)), Some(width)) = (node.ty.levels(), node.ty.shape().row_width()) else {
                continue;
            };
            let name = name_of(graph, value);
            let twins = layers.iter().filter(|layer| layer.site.split(' ').next() == Some(&name)).count();
            let site = if twins > 0 { format!("{name} ({})", twins + 1) } else { name };
            // A train has no element.
            let parts = if node.ty.elem().is_none() { usize::from(timesteps) } else { 1 };
            layers.push(WatchedLayer { site, neuron: node.op.to_string(), code, timesteps, width, value, parts });
        }
        let path = |layer: &WatchedLayer| layer.site.split(' ').next().unwrap_or_default().to_string();
        for selector in selectors {
            if !layers.iter().any(|layer| selects(selector, &path(layer))) {
                let known: Vec<&str> = layers.iter().map(|layer| layer.site.as_str()).collect();
                let error = Diagnostic::new(selector, "names no layer of neurons").code(ErrorCode::OPTION);
                return Err(error.note(format!("layers: {}", known.join(", "))).into());
            }
        }
        layers.retain(|layer| selectors.is_empty() || selectors.iter().any(|one| selects(one, &path(layer))));
        // Long trains of many neurons are taken in a few tokens at a time.
        let numbers: usize = layers.iter().map(|layer| layer.parts * layer.width).sum();
        let chunk = (NUMBERS / numbers.max(1)).clamp(1, CHUNK);
        let open = opened(graph, layers.iter().map(|layer| layer.value));
        let program = Program::new(Arc::new(open), &Options { chunk, ..*options })?;
        Ok(Self { program: Arc::new(program), layers, chunk })
    }

    /// The layers, in the order of the network.
    pub fn layers(&self) -> &[WatchedLayer] {
        &self.layers
    }

    /// Runs ids, and gives what each layer did.
    ///
    /// # Errors
    /// Ids that cannot be run; a request to stop.
    pub fn run(&self, ids: &[u32], progress: &dyn Progress) -> Result<Vec<LayerSpikes>, Diagnostics> {
        let mut session = Session::new(Arc::clone(&self.program))?;
        let mut seen = vec![LayerSpikes::default(); self.layers.len()];
        progress.begin("running", ids.len() as u64);
        for (i, part) in ids.chunks(self.chunk).enumerate() {
            if progress.is_cancelled() {
                return Err(cancelled().into());
            }
            let outputs = session.forward(part, Rows::All)?;
            for (seen, layer) in seen.iter_mut().zip(&self.layers) {
                seen.add(layer, i * self.chunk, outputs.levels(&output_of(layer.value)).unwrap_or(&[]));
            }
            progress.advance(part.len() as u64);
        }
        progress.end();
        Ok(seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{CompileOptions, compile};
    use crate::progress::Silent;
    use snnc_passes::collapse::collapse;

    /// The spikes that a stepped program sends are those that the levels of its collapse spell.
    #[test]
    fn spikes_are_the_levels_spelled() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tales/model.onnx");
        let mut options = CompileOptions::new(model.as_ref());
        options.calibration_tokens = Some(64);
        let compiled = compile(&options, &Silent, &mut |_, _| {}).expect("the demo's model is compiled");
        let graph = &compiled.file.graph;
        let all = Options::default();
        let stepped = WatchedProgram::new(graph, &[], &all).expect("it runs");
        let collapsed = WatchedProgram::new(&collapse(graph).expect("it collapses"), &[], &all).expect("it runs");
        let ids = [5, 17, 9, 300, 12];
        let [a, b] = [&stepped, &collapsed].map(|program| program.run(&ids, &Silent).expect("ids of the vocabulary"));
        assert_eq!(a, b);
        assert!(a.iter().any(|layer| !layer.signs.is_empty()));
        let site = &stepped.layers()[0].site;
        assert_eq!(collapsed.layers()[0].site, *site);
        let one = WatchedProgram::new(graph, std::slice::from_ref(site), &all).expect("it is a site");
        assert_eq!(one.run(&ids, &Silent).expect("ids of the vocabulary")[0], a[0]);
        assert!(WatchedProgram::new(graph, &["h.99".into()], &all).is_err());
    }
}
