//! The time-stepped neurons of a program for SANA-FE, a simulator of neuromorphic chips: network, places on a chip, spikes of a run.
//!
//! Its neurons compute in multiples of 1/64, so all numbers become integers: weights times a neuron's scale `S`, thresholds `S / gain`. They
//! are rounded to even numbers, so that potentials can start at half of them. A neuron fires above its threshold; potentials stand 1/64
//! higher, which makes that "at least". A spike of one timestep is seen in the next: neurons of depth `d` work in steps `d + 2` to
//! `d + 1 + T`, counted from 1. Two input neurons per depth make their time: `start` sets potentials one step before, and `one`
//! fires in each of these steps and carries offsets.

use super::nir::dialect::Fidelity;
use super::nir::island::{Island, islands, neurons};
use super::npz::{NpzArray, NpzFile};
use super::sana_fe_manifest::{ChipGroup, SanaFeManifest};
use crate::files;
use crate::recording::Recording;
use crate::schema::document;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::membrane::Membrane;
use snnc_ir::types::Type;
use snnc_ir::{Curve, Diagnostic, ErrorCode, Graph, Op, SpikeOp, Stage, Value};
use snnc_runtime::Options;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Neurons of a core, inputs among them, in the model of Loihi that SANA-FE brings.
pub const CORE_NEURONS: usize = 1024;

/// Cores of a tile there.
const TILE_CORES: usize = 4;

/// Cores of the chip there.
pub const CHIP_CORES: usize = 128;

/// What potentials may reach: the simulator holds multiples of 1/64 in 32 bits.
const POTENTIAL_MAX: f64 = 33_000_000.0;

/// The threshold of neurons that no spike reaches.
const UNREACHED: i64 = 1 << 20;

/// How groups of neurons come to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChipPlacement {
    /// Every group begins a core.
    Layers,
    /// Groups that read the same spikes share cores, so that a spike is sent to fewer of them.
    Packed,
}

impl ChipPlacement {
    /// How an option spells it.
    pub fn name(self) -> &'static str {
        match self {
            ChipPlacement::Layers => "layers",
            ChipPlacement::Packed => "packed",
        }
    }
}

/// What is to be exported, and where to.
#[derive(Clone, Debug)]
pub struct SanaFeOptions<'a> {
    /// How groups come to cores.
    pub placement: ChipPlacement,
    /// The folder, which is made if needed.
    pub folder: &'a Path,
    /// Tokens to run, of which spikes are kept.
    pub trace: Option<&'a [u32]>,
}

/// A group of neurons that take spikes from outside.
struct ChipInput {
    name: String,
    value: Value,
    /// Of which sign; `None` for spikes of one sign alone.
    negative: Option<bool>,
    width: usize,
}

/// A group of neurons.
struct ChipLayer {
    name: String,
    value: Value,
    depth: usize,
    /// Names of what it reads, each with the weights, `[sources, neurons]`.
    reads: Vec<(String, Vec<i64>)>,
    threshold: Vec<i64>,
    bias: Vec<i64>,
    is_signed: bool,
    resets_to_zero: bool,
    /// What rounding moves, at most, in thresholds.
    rounding: f64,
}

/// Writes `network.yaml`, `manifest.json`, and with a text `spikes.npz`.
///
/// # Errors
/// The program has no neurons that the simulator has; it does not fit the chip; a file cannot be written.
pub fn export(graph: &Graph, options: &SanaFeOptions<'_>) -> Result<SanaFeManifest, Diagnostics> {
    let refused = |message: String| Diagnostic::new("--to sana-fe", message).code(ErrorCode::EXPORT);
    if graph.stage != Stage::Spiking {
        return Err(refused("the program has no timesteps".into()).into());
    }
    let has_words = |membrane: Membrane| ["if", "if_hard"].contains(&membrane.name());
    let all = islands(graph, &has_words);
    let chains: Vec<&Island> =
        all.iter().filter(|island| island.links.iter().any(|link| link.neurons.is_some())).collect();
    if chains.is_empty() {
        let error = refused("the program has no neurons that SANA-FE has".into());
        return Err(error.note("compile with `--neuron if` or `--neuron if_hard`").into());
    }
    let (inputs, layers) = network(graph, &chains);
    let steps = |value: Value| graph.ty(value).levels().map_or(1, |(_, steps)| usize::from(steps));
    let timesteps = steps(layers[0].value);
    if let Some(other) =
        inputs.iter().map(|x| x.value).chain(layers.iter().map(|n| n.value)).find(|v| steps(*v) != timesteps)
    {
        let message = format!("layers have {timesteps} and {} timesteps, and the chip has one clock", steps(other));
        return Err(refused(message).note("compile with one number of timesteps").into());
    }
    let places = ChipPlaces::of(&inputs, &layers, options.placement);
    let mut manifest = manifest(graph, &inputs, &layers, &places, timesteps, options.placement);
    if places.cores > CHIP_CORES {
        let message = format!(
            "{} neurons take {} cores, and the chip has {CHIP_CORES} of {CORE_NEURONS}",
            manifest.neurons, places.cores
        );
        return Err(refused(message).note("a chip of that size needs an architecture of its own").into());
    }
    let made =
        |e| Diagnostic::new(options.folder.display().to_string(), format!("cannot be made: {e}")).code(ErrorCode::FILE);
    fs::create_dir_all(options.folder).map_err(made)?;
    if let Some(ids) = options.trace {
        let values: Vec<Value> = inputs.iter().map(|x| x.value).chain(layers.iter().map(|n| n.value)).collect();
        let recording = Recording::run(graph, &values, ids, &Options::default())?;
        let (file, messages) = spikes(graph, &inputs, &layers, &places, &recording);
        file.write(&options.folder.join("spikes.npz"))?;
        manifest.messages_per_token = Some(messages);
    }
    let yaml = yaml(&inputs, &layers, &places);
    files::write_whole(&options.folder.join("network.yaml"), |out| out.write_all(yaml.as_bytes()))?;
    let json = format!("{:#}\n", document(&manifest, None));
    files::write_whole(&options.folder.join("manifest.json"), |out| out.write_all(json.as_bytes()))?;
    Ok(manifest)
}

/// Whether neurons send spikes of both signs.
fn has_signs(graph: &Graph, value: Value) -> bool {
    let relu = |curve: Curve| curve == Curve::Relu;
    match neurons(graph, value) {
        Some((_, _, one_sign)) => !one_sign,
        None => !matches!(graph.node(value).op, Op::Spike(SpikeOp::Fire { curve, .. }) if relu(curve)),
    }
}

/// Groups of the chains, in the program's order.
fn network(graph: &Graph, chains: &[&Island]) -> (Vec<ChipInput>, Vec<ChipLayer>) {
    let (mut inputs, mut layers): (Vec<ChipInput>, Vec<ChipLayer>) = (Vec::new(), Vec::new());
    for island in chains {
        let width = graph.ty(island.input).shape().row_width().unwrap_or(0);
        if inputs.iter().all(|input| input.value != island.input) {
            let number = inputs.iter().filter(|input| input.negative != Some(true)).count();
            let mut add =
                |name: String, negative| inputs.push(ChipInput { name, value: island.input, negative, width });
            match has_signs(graph, island.input) {
                false => add(format!("x{number}"), None),
                true => {
                    add(format!("x{number}p"), Some(false));
                    add(format!("x{number}n"), Some(true));
                }
            }
        }
        // Names of what is read, and whether its weights are negated; of neurons of both signs halves of a group.
        let own = inputs.iter().filter(|input| input.value == island.input);
        let mut sources: Vec<(String, bool)> =
            own.map(|input| (input.name.clone(), input.negative == Some(true))).collect();
        let mut halves = false;
        for (depth, link) in island.links.iter().enumerate() {
            let Some((value, (membrane, steps, one_sign))) = link.neurons.and_then(|n| Some((n, neurons(graph, n)?)))
            else {
                break;
            };
            let name = format!("n{}", layers.len());
            let integers = Integers::of(graph, link.synapse, value, steps, one_sign);
            let reads =
                sources.iter().map(|(source, negated)| (source.clone(), integers.weights(*negated, halves))).collect();
            layers.push(ChipLayer {
                name: name.clone(),
                value,
                depth,
                reads,
                threshold: integers.threshold,
                bias: integers.bias,
                is_signed: !one_sign,
                rounding: integers.rounding,
                resets_to_zero: membrane.name() == "if_hard",
            });
            sources = vec![(name, false)];
            halves = !one_sign;
        }
    }
    (inputs, layers)
}

/// A neuron's numbers as integers.
struct IntegerNeuron {
    /// What its weights are multiplied by.
    scale: i64,
    threshold: i64,
    bias: i64,
    /// What rounding moves, over all timesteps, in thresholds.
    error: f64,
}

impl IntegerNeuron {
    /// Scales that are tried: the largest ones.
    const TRIED: i64 = 1024;

    /// Of a gain and an offset, where a timestep brings at most `most` before the gain. Of the largest scales at which no potential
    /// leaves the range it is the one that rounds least.
    fn of(gain: f32, offset: f32, most: f64, steps: f64) -> Self {
        if gain == 0.0 {
            let bias = libm::round(UNREACHED as f64 * f64::from(offset) / steps) as i64;
            return Self { scale: 0, threshold: UNREACHED, bias, error: 0.5 * steps / UNREACHED as f64 };
        }
        let inverse = 1.0 / f64::from(gain.abs());
        let offset = f64::from(offset) / steps;
        let largest = (POTENTIAL_MAX / (inverse * (1.0 + offset.abs() * steps) + steps * most)) as i64;
        let largest = largest.max(1);
        let tried = (largest - Self::TRIED).max(largest / 2).max(1)..=largest;
        let made = tried.map(|scale| {
            let exact = scale as f64 * inverse;
            let threshold = 2 * libm::round(exact / 2.0).max(1.0) as i64;
            let wanted = exact * offset;
            let bias = libm::round(wanted) as i64;
            let error = (libm::fabs(threshold as f64 - exact) + steps * libm::fabs(bias as f64 - wanted)) / exact;
            Self { scale: if gain < 0.0 { -scale } else { scale }, threshold, bias, error }
        });
        let best = made.min_by(|a, b| a.error.total_cmp(&b.error));
        best.unwrap_or_else(|| unreachable!("one scale at least is tried"))
    }
}

/// Weights, thresholds and offsets of neurons as integers.
struct Integers {
    /// `[sources, neurons]` of one sign, each neuron's times its scale.
    weight: Vec<i64>,
    width: usize,
    one_sign: bool,
    threshold: Vec<i64>,
    bias: Vec<i64>,
    rounding: f64,
}

impl Integers {
    fn of(graph: &Graph, synapse: Value, value: Value, steps: u16, one_sign: bool) -> Self {
        let constant = |value: Value, i: usize| {
            let weight = graph.constant(graph.node(value).args[i]);
            &weight.unwrap_or_else(|| unreachable!("parameters are constants")).tensor
        };
        let weight = constant(synapse, 1).to_integers().unwrap_or_default();
        let (gain, offset) = (constant(value, 1).as_f32().unwrap_or(&[]), constant(value, 2).as_f32().unwrap_or(&[]));
        let width = gain.len();
        let mut most = vec![0.0f64; width];
        for row in weight.chunks_exact(width.max(1)) {
            row.iter().zip(&mut most).for_each(|(w, most)| *most += f64::from(*w).abs());
        }
        let made: Vec<IntegerNeuron> = gain
            .iter()
            .zip(offset)
            .zip(&most)
            .map(|((gain, offset), most)| IntegerNeuron::of(*gain, *offset, *most, f64::from(steps)))
            .collect();
        let mut threshold: Vec<i64> = made.iter().map(|neuron| neuron.threshold).collect();
        let mut bias: Vec<i64> = made.iter().map(|neuron| neuron.bias).collect();
        let rounding = made.iter().map(|neuron| neuron.error).fold(0.0, f64::max);
        let weight = weight.iter().enumerate().map(|(i, w)| i64::from(*w) * made[i % width].scale).collect();
        if !one_sign {
            threshold.extend(threshold.clone());
            bias.extend(bias.iter().map(|b| -b).collect::<Vec<i64>>());
        }
        Self { weight, width, one_sign, threshold, bias, rounding }
    }

    /// `[sources, neurons]`: negated for a source of negative spikes, and with both halves of sources and neurons of both signs.
    fn weights(&self, negated: bool, halves: bool) -> Vec<i64> {
        let sign = if negated { -1 } else { 1 };
        let mut all = Vec::new();
        for source_sign in if halves { &[1, -1][..] } else { &[1][..] } {
            for row in self.weight.chunks_exact(self.width.max(1)) {
                all.extend(row.iter().map(|w| w * sign * source_sign));
                if !self.one_sign {
                    all.extend(row.iter().map(|w| -w * sign * source_sign));
                }
            }
        }
        all
    }
}

/// Where the groups are: the first place of each, and how many cores they take.
struct ChipPlaces {
    /// By input, then by layer.
    first: Vec<usize>,
    /// Of `one` and `start` by depth.
    clocks: usize,
    cores: usize,
}

impl ChipPlaces {
    fn of(inputs: &[ChipInput], layers: &[ChipLayer], placement: ChipPlacement) -> Self {
        let depths = layers.iter().map(|layer| layer.depth + 1).max().unwrap_or(0);
        let (mut first, mut at) = (Vec::new(), 0);
        for input in inputs {
            first.push(at);
            at += input.width;
        }
        let clocks = at;
        at += 2 * depths;
        let next_core = |at: usize| at.next_multiple_of(CORE_NEURONS);
        let mut before: Option<&ChipLayer> = None;
        for layer in layers {
            let shares = before.is_some_and(|before| {
                before.reads.iter().map(|read| &read.0).eq(layer.reads.iter().map(|read| &read.0))
            });
            if placement == ChipPlacement::Layers || !shares {
                at = next_core(at);
            }
            first.push(at);
            at += layer.threshold.len();
            before = Some(layer);
        }
        Self { first, clocks, cores: next_core(at) / CORE_NEURONS }
    }

    fn core(place: usize) -> usize {
        place / CORE_NEURONS
    }

    /// Cores of a group of so many neurons.
    fn cores_of(&self, group: usize, neurons: usize) -> std::ops::RangeInclusive<usize> {
        Self::core(self.first[group])..=Self::core(self.first[group] + neurons.max(1) - 1)
    }
}

fn manifest(
    graph: &Graph,
    inputs: &[ChipInput],
    layers: &[ChipLayer],
    places: &ChipPlaces,
    timesteps: usize,
    placement: ChipPlacement,
) -> SanaFeManifest {
    let site = |value: Value| graph.site(value).map(|site| site.to_string());
    let of_input = |(i, input): (usize, &ChipInput)| ChipGroup {
        name: input.name.clone(),
        site: site(input.value),
        depth: None,
        neurons: input.width,
        signed: false,
        first_core: *places.cores_of(i, input.width).start(),
        last_core: *places.cores_of(i, input.width).end(),
        rounding: None,
    };
    let of_layer = |(i, layer): (usize, &ChipLayer)| {
        let cores = places.cores_of(inputs.len() + i, layer.threshold.len());
        ChipGroup {
            name: layer.name.clone(),
            site: site(layer.value),
            depth: Some(layer.depth),
            neurons: layer.threshold.len(),
            signed: layer.is_signed,
            first_core: *cores.start(),
            last_core: *cores.end(),
            rounding: Some(layer.rounding),
        }
    };
    let groups: Vec<ChipGroup> =
        inputs.iter().enumerate().map(of_input).chain(layers.iter().enumerate().map(of_layer)).collect();
    SanaFeManifest {
        architecture: "loihi",
        placement: placement.name(),
        rating: Fidelity::Approximate,
        reason: "thresholds and offsets are rounded to integers; in thresholds at most by `rounding`",
        timesteps,
        steps: timesteps + 1 + layers.iter().map(|layer| layer.depth + 1).max().unwrap_or(0),
        neurons: groups.iter().map(|group| group.neurons).sum(),
        synapses: layers.iter().flat_map(|layer| &layer.reads).map(|(_, weights)| weights.len()).sum(),
        cores: places.cores,
        cores_of_chip: CHIP_CORES,
        cores_of_network: cores_of_network(graph),
        neurons_of_core: CORE_NEURONS,
        messages_per_token: None,
        groups,
    }
}

/// Cores that all neurons of the program would take, where every layer begins a core and neurons of both signs are two.
fn cores_of_network(graph: &Graph) -> usize {
    let layers = graph.iter().filter(|(_, node)| node.op.is_neuron());
    layers
        .map(|(value, _)| {
            let width = graph.ty(value).shape().row_width().unwrap_or(0);
            (if has_signs(graph, value) { 2 * width } else { width }).div_ceil(CORE_NEURONS)
        })
        .sum()
}

/// Spikes of a run by group, `[tokens, timesteps, neurons]`, and messages per token: a spike goes to every core that reads it.
fn spikes(
    graph: &Graph,
    inputs: &[ChipInput],
    layers: &[ChipLayer],
    places: &ChipPlaces,
    recording: &Recording,
) -> (NpzFile, f64) {
    let mut file = NpzFile::default();
    let mut messages = 0.0;
    let tokens = recording.tokens();
    let targets = |name: &str| {
        let readers =
            layers.iter().enumerate().filter(|(_, layer)| layer.reads.iter().any(|(source, _)| source == name));
        let cores = readers.flat_map(|(i, layer)| places.cores_of(inputs.len() + i, layer.threshold.len()));
        cores.collect::<std::collections::BTreeSet<usize>>().len()
    };
    let mut add = |name: &str, value: Value, signs: &[i32]| {
        let Type::Train { steps, shape, .. } = graph.ty(value) else { return };
        let width = shape.row_width().unwrap_or(1);
        let all = recording.ints(value);
        let mut data = Vec::with_capacity(all.len() * signs.len());
        for row in all.chunks_exact(width) {
            for sign in signs {
                data.extend(row.iter().map(|spike| i8::from(spike * sign > 0)));
            }
        }
        let count: f64 = data.iter().map(|spike| f64::from(*spike)).sum();
        messages += count * targets(name) as f64 / tokens.max(1) as f64;
        file.add(name, NpzArray::new(&[tokens, usize::from(steps), width * signs.len()], &data));
    };
    for input in inputs {
        add(&input.name, input.value, if input.negative == Some(true) { &[-1] } else { &[1] });
    }
    for layer in layers {
        add(&layer.name, layer.value, if layer.is_signed { &[1, -1] } else { &[1] });
    }
    (file, messages)
}

/// The network and its places.
fn yaml(inputs: &[ChipInput], layers: &[ChipLayer], places: &ChipPlaces) -> String {
    let depths = layers.iter().map(|layer| layer.depth + 1).max().unwrap_or(0);
    let mut out = String::from("network:\n  name: snnc\n  groups:\n");
    // Writing to memory does not fail.
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let input = |line: &mut dyn FnMut(String), name: &str, width: usize| {
        line(format!(
            "    - name: {name}\n      attributes: [log_spikes: true]\n      neurons:\n        - 0..{}: []",
            width - 1
        ));
    };
    inputs.iter().for_each(|group| input(&mut line, &group.name, group.width));
    for depth in 0..depths {
        input(&mut line, &format!("one{depth}"), 1);
        input(&mut line, &format!("start{depth}"), 1);
    }
    for layer in layers {
        let reset = if layer.resets_to_zero { "reset_mode: hard, reset: 0.015625" } else { "reset_mode: soft" };
        line(format!(
            "    - name: {}\n      attributes: [log_spikes: true, {reset}, leak_decay: 1.0, dendrite_hw_name: loihi_dendrites]\n      neurons:",
            layer.name
        ));
        layer.threshold.iter().enumerate().for_each(|(i, theta)| line(format!("        - {i}: [threshold: {theta}]")));
    }
    line("  edges:".into());
    let edge = |line: &mut dyn FnMut(String), from: &str, to: &str, weights: &mut dyn Iterator<Item = String>| {
        line(format!("    - {from} -> {to}: [type: dense, weight: [{}]]", weights.collect::<Vec<String>>().join(",")));
    };
    for layer in layers {
        for (from, weights) in &layer.reads {
            edge(&mut line, from, &layer.name, &mut weights.iter().map(i64::to_string));
        }
        let (one, start) = (format!("one{}", layer.depth), format!("start{}", layer.depth));
        edge(&mut line, &one, &layer.name, &mut layer.bias.iter().map(i64::to_string));
        // Half of the threshold, and 1/64 for "at least".
        edge(&mut line, &start, &layer.name, &mut layer.threshold.iter().map(|theta| format!("{}.015625", theta / 2)));
    }
    line("mappings:".into());
    let mut place = |name: &str, i: usize, at: usize, is_input: bool| {
        let core = ChipPlaces::core(at);
        let soma = if is_input { format!("\"loihi_inputs[{}]\"", at % CORE_NEURONS) } else { "loihi_lif".into() };
        line(format!("  - {name}.{i}: [core: {}.{}, soma: {soma}]", core / TILE_CORES, core % TILE_CORES));
    };
    for (group, first) in inputs.iter().zip(&places.first) {
        (0..group.width).for_each(|i| place(&group.name, i, first + i, true));
    }
    for depth in 0..depths {
        place(&format!("one{depth}"), 0, places.clocks + 2 * depth, true);
        place(&format!("start{depth}"), 0, places.clocks + 2 * depth + 1, true);
    }
    for (layer, first) in layers.iter().zip(&places.first[inputs.len()..]) {
        (0..layer.threshold.len()).for_each(|i| place(&layer.name, i, first + i, false));
    }
    out
}
