//! Spikes, levels and potentials of a run, as arrays by site.

use super::npz::{NpzArray, NpzFile};
use super::own_names::OwnNames;
use crate::lints::name_of;
use crate::recording::Recording;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::membrane::MembraneLayer;
use snnc_ir::op::SpikeOp;
use snnc_ir::types::Type;
use snnc_ir::{Graph, Node, Op, Value};
use snnc_runtime::Options;

/// Arrays of a run of a program at stage spiking, on a text.
///
/// | array | elements |
/// |---|---|
/// | `tokens` | i32 `[tokens]` |
/// | `logits` | f32 `[tokens, vocabulary]` |
/// | `SITE.spikes` | i8 `[tokens, timesteps, neurons]`, -1, 0 or 1 |
/// | `SITE.levels` | i32 `[tokens, neurons]`: what the spikes denote |
/// | `SITE.membrane` | f32 `[tokens, timesteps, neurons]`: of time-stepped neurons, the potential that a timestep leaves, in thresholds; of neurons with a membrane per sign the positive one's |
///
/// # Errors
/// The program cannot be run.
pub fn record(graph: &Graph, ids: &[u32], options: &Options) -> Result<NpzFile, Diagnostics> {
    let neurons: Vec<Value> = graph.iter().filter(|(_, node)| node.op.is_neuron()).map(|(value, _)| value).collect();
    let read = neurons.iter().filter_map(|&value| integrated(graph, graph.node(value)));
    let logits = graph.outputs.iter().map(|(_, value)| *value);
    let kept: Vec<Value> = neurons.iter().copied().chain(read).chain(logits.clone()).collect();
    let recording = Recording::run(graph, &kept, ids, options)?;
    let tokens = recording.tokens();
    let mut names = OwnNames::default();
    let mut file = NpzFile::default();
    file.add("tokens", NpzArray::new(&[tokens], &ids.iter().map(|&id| id as i32).collect::<Vec<_>>()));
    for ((name, value), logits) in graph.outputs.iter().zip(logits) {
        let numbers = recording.numbers(logits);
        let width = graph.ty(*value).shape().row_width().unwrap_or(1);
        file.add(name, NpzArray::new(&[tokens, width], numbers));
    }
    for &value in &neurons {
        let Type::Train { code, steps, shape, .. } = graph.ty(value) else { continue };
        let (width, timesteps) = (shape.row_width().unwrap_or(1), usize::from(steps));
        let name = names.own(&name_of(graph, value));
        let parts = recording.ints(value);
        let spikes: Vec<i8> = parts.iter().map(|&spike| spike as i8).collect();
        file.add(&format!("{name}.spikes"), NpzArray::new(&[tokens, timesteps, width], &spikes));
        let mut levels = vec![0i32; tokens * width];
        for (token, levels) in levels.chunks_exact_mut(width).enumerate() {
            let rows = parts[recording.token(parts, token)].chunks_exact(width);
            for (t, row) in (0..steps).zip(rows) {
                let weight = code.weight(t, steps);
                levels.iter_mut().zip(row).for_each(|(level, spike)| *level += weight * spike);
            }
        }
        file.add(&format!("{name}.levels"), NpzArray::new(&[tokens, width], &levels));
        if let Some(potentials) = membrane(graph, value, &recording) {
            file.add(&format!("{name}.membrane"), NpzArray::new(&[tokens, timesteps, width], &potentials));
        }
    }
    Ok(file)
}

/// What time-stepped neurons integrate, as far as it can be kept: of currents the spikes before them.
fn integrated(graph: &Graph, node: &Node) -> Option<Value> {
    let Op::Spike(SpikeOp::Integrate { .. }) = node.op else { return None };
    let read = graph.node(node.args[0]);
    let is_synapse = matches!(read.op, Op::Spike(SpikeOp::Synapse));
    Some(if is_synapse { read.args[0] } else { node.args[0] })
}

/// What a synapse makes of one timestep's spikes.
pub(super) fn current(spikes: &[i32], weights: &[i32], width: usize) -> Vec<i32> {
    let mut sums = vec![0; width];
    for (spike, row) in spikes.iter().zip(weights.chunks_exact(width)).filter(|(spike, _)| **spike != 0) {
        sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += spike * weight);
    }
    sums
}

/// The potentials of time-stepped neurons, replayed from what flowed into them.
fn membrane(graph: &Graph, value: Value, recording: &Recording) -> Option<Vec<f32>> {
    let node = graph.node(value);
    let Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) = node.op else { return None };
    let constants: Vec<&[f32]> =
        node.args[1..].iter().map(|&arg| graph.constant(arg)?.tensor.as_f32()).collect::<Option<_>>()?;
    let [gain, offset, parameters @ ..] = constants.as_slice() else { return None };
    let width = gain.len();
    let all = f32::from(steps);
    let numbers = recording.numbers(node.args[0]);
    let read = graph.node(node.args[0]);
    let is_synapse = matches!(read.op, Op::Spike(SpikeOp::Synapse));
    let weights = is_synapse.then(|| graph.constant(read.args[1])?.tensor.to_integers()).flatten();
    if weights.is_none() && numbers.is_empty() {
        return None;
    }
    let spikes = weights.as_ref().map_or(&[][..], |_| recording.ints(read.args[0]));
    let mut potentials = Vec::with_capacity(recording.tokens() * usize::from(steps) * width);
    for token in 0..recording.tokens() {
        let mut layer = MembraneLayer::<f32>::new(membrane, steps, curve, width);
        let spikes = &spikes[recording.token(spikes, token)];
        let numbers = &numbers[recording.token(numbers, token)];
        for t in 0..usize::from(steps) {
            let each = spikes.len() / usize::from(steps);
            let currents = weights.as_ref().map(|weights| current(&spikes[t * each..(t + 1) * each], weights, width));
            for c in 0..width {
                let input = match &currents {
                    Some(currents) => currents[c] as f32 * gain[c] + offset[c] / all,
                    None => (numbers[c] * gain[c] + offset[c]) / all,
                };
                let own: Vec<f32> = parameters.iter().map(|all| all[c]).collect();
                layer.step(c, input, &own);
                potentials.push(layer.states(c)[0]);
            }
        }
    }
    Some(potentials)
}
