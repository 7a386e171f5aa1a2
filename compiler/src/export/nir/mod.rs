//! What NIR can carry of a program: *islands*, chains of synapses and time-stepped neurons, one file each, and a manifest that says
//! how they connect and how faithful each is.
//!
//! NIR has no attention, no norms and no products of signals. Between islands, the host does what the program does there.
//!
//! Every signal of an island has more channels than the program's, its *lines*: `one`, which is 1 at every timestep and carries
//! offsets, and `start`, which is 1 in a timestep before the first and sets potentials to where they start. All products are
//! those of whole numbers, or have one term and an offset, so a reader's order of sums does not matter.

pub mod dialect;
pub mod island;
pub mod manifest;

use crate::files;
use crate::nir::{NirGraph, NirNode};
use crate::recording::Recording;
use crate::schema::document;
use dialect::{DT, Dialect, Encoding, Fidelity, feedback};
use island::{Island, IslandLink, islands, neurons};
use manifest::{NirConnection, NirIsland, NirManifest, NirNodeRating, NirPort, NirUnsupported};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::SpikeOp;
use snnc_ir::types::Type;
use snnc_ir::{Diagnostic, ErrorCode, Graph, Op, Site, Stage, Value};
use snnc_runtime::Options;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::npz::{NpzArray, NpzFile};
use super::own_names::OwnNames;
use super::record::current;

/// Whole numbers up to here are f32 numbers.
const EXACT_MAX: i64 = 1 << 24;

/// What is to be exported, and where to.
#[derive(Clone, Debug)]
pub struct NirOptions<'a> {
    /// Whose understanding of NIR.
    pub dialect: Dialect,
    /// The folder, which is made if needed.
    pub folder: &'a Path,
    /// Tokens to run, of which spikes are kept beside every island.
    pub trace: Option<&'a [u32]>,
}

/// Writes the islands of a program, one after the other, and their manifest.
///
/// # Errors
/// The program is not at stage spiking; a file cannot be written.
pub fn export(graph: &Graph, options: &NirOptions<'_>) -> Result<NirManifest, Diagnostics> {
    if graph.stage != Stage::Spiking {
        let message = "the program has no timesteps";
        return Err(Diagnostic::new("--to nir", message).code(ErrorCode::EXPORT).into());
    }
    let made =
        |e| Diagnostic::new(options.folder.display().to_string(), format!("cannot be made: {e}")).code(ErrorCode::FILE);
    fs::create_dir_all(options.folder).map_err(made)?;
    let has_words = |membrane| options.dialect.rate(membrane).fidelity != Fidelity::Unsupported;
    let islands = islands(graph, &has_words);
    if islands.is_empty() {
        return Err(Diagnostic::new("--to nir", "the program has no synapses").code(ErrorCode::EXPORT).into());
    }
    let traced = |island: &Island| {
        let neurons = island.links.iter().filter_map(|link| link.neurons);
        neurons.chain([island.input]).collect::<Vec<Value>>()
    };
    let values: Vec<Value> = islands.iter().flat_map(traced).collect();
    let run = options.trace.map(|ids| Recording::run(graph, &values, ids, &Options::default())).transpose()?;
    let names = names(graph, &islands);
    let mut written = Vec::new();
    for (island, name) in islands.iter().zip(&names) {
        let (nir, mut entry) = built(graph, island, name, options.dialect);
        let bytes = nir.bytes()?;
        drop(nir);
        files::write_whole(&options.folder.join(&entry.file), |out| out.write_all(&bytes))?;
        if let Some(recording) = &run {
            let file = format!("{name}.npz");
            trace(graph, island, &entry, recording).write(&options.folder.join(&file))?;
            entry.trace = Some(file);
        }
        written.push(entry);
    }
    let manifest = NirManifest {
        dialect: options.dialect.name(),
        dt: DT,
        connections: connections(graph, &islands, &names),
        host: host(graph, &islands),
        unsupported: unsupported(graph, options.dialect),
        weights_in_islands: weights_in(graph, &islands),
        islands: written,
    };
    let json = format!("{:#}\n", document(&manifest, None));
    files::write_whole(&options.folder.join("manifest.json"), |out| out.write_all(json.as_bytes()))?;
    Ok(manifest)
}

fn path(site: Option<Site>) -> Option<String> {
    site.map(|site| site.to_string())
}

/// A name of its own for every island: where it is in the transformer.
fn names(graph: &Graph, islands: &[Island]) -> Vec<String> {
    let mut names = OwnNames::default();
    let mut name = |island: &Island| {
        let site = path(graph.site(island.output())).unwrap_or_else(|| "island".into());
        // Of a chain, the block: what its sites begin with alike.
        let name = match island.links.len() {
            1 => site,
            _ => site.rsplit_once('.').map_or(site.clone(), |(block, _)| block.to_string()),
        };
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        names.own(&plain)
    };
    islands.iter().map(&mut name).collect()
}

/// Channels of a train in an island: with two membranes per neuron there are two.
fn channels(graph: &Graph, value: Value) -> (usize, bool) {
    let width = graph.ty(value).shape().row_width().unwrap_or(0);
    match neurons(graph, value) {
        Some((_, _, one_sign)) => (width, !one_sign),
        None => (width, false),
    }
}

/// A matrix of an island, `[outputs + lines, inputs + lines]`, that hands the lines on.
struct IslandMatrix {
    inputs: usize,
    outputs: usize,
    lines: usize,
    weight: Vec<f32>,
}

impl IslandMatrix {
    fn new(outputs: usize, inputs: usize, lines: usize) -> Self {
        let (rows, columns) = (outputs + lines, inputs + lines);
        let mut matrix = Self { inputs, outputs, lines, weight: vec![0.0; rows * columns] };
        for line in 0..lines {
            matrix.set(outputs + line, inputs + line, 1.0);
        }
        matrix
    }

    fn set(&mut self, row: usize, column: usize, x: f32) {
        self.weight[row * (self.inputs + self.lines) + column] = x;
    }

    fn node(self) -> NirNode {
        NirNode::Affine { weight: self.weight, bias: vec![0.0; self.outputs + self.lines] }
    }
}

/// The matrix of a synapse. Its inputs are the program's channels, or twice as many where the neurons before it have two membranes.
fn synapse(graph: &Graph, value: Value, signed_input: bool, lines: usize) -> (IslandMatrix, i64) {
    let weight = graph.constant(graph.node(value).args[1]).map(|weight| &weight.tensor);
    let weight = weight.unwrap_or_else(|| unreachable!("parameters are constants"));
    let all = weight.to_integers().unwrap_or_default();
    let [inputs, outputs] = weight.sizes()[..] else { unreachable!("checked by infer") };
    let mut matrix = IslandMatrix::new(outputs, if signed_input { 2 * inputs } else { inputs }, lines);
    let mut most = vec![0i64; outputs];
    for (i, row) in all.chunks_exact(outputs.max(1)).enumerate() {
        for (o, &w) in row.iter().enumerate() {
            matrix.set(o, i, w as f32);
            most[o] += i64::from(w).abs();
            if signed_input {
                matrix.set(o, inputs + i, -w as f32);
            }
        }
    }
    (matrix, most.into_iter().max().unwrap_or(0))
}

/// Gains and offsets of neurons: of those with two membranes, first all positive ones.
fn gains(graph: &Graph, value: Value, steps: u16, one_sign: bool, encoding: Encoding) -> IslandMatrix {
    let constant = |i: usize| {
        let weight = graph.constant(graph.node(value).args[i]).and_then(|weight| weight.tensor.as_f32());
        weight.unwrap_or_else(|| unreachable!("checked by infer"))
    };
    let (gain, offset) = (constant(1), constant(2));
    let width = gain.len();
    let signs: &[f32] = if one_sign { &[1.0] } else { &[1.0, -1.0] };
    let mut matrix = IslandMatrix::new(signs.len() * width, width, encoding.lines().len());
    for (i, (&gain, &offset)) in gain.iter().zip(offset).enumerate() {
        for (side, sign) in signs.iter().enumerate() {
            let row = side * width + i;
            matrix.set(row, i, sign * gain);
            matrix.set(row, width + encoding.line("one"), sign * (offset / f32::from(steps)));
            matrix.set(row, width + encoding.line("start"), START);
        }
    }
    matrix
}

/// Timesteps of a reader before the program's first.
const LEAD: usize = 1;

/// Where potentials start, in thresholds.
const START: f32 = 0.5;

/// The file of an island, and what the manifest says of it.
fn built(graph: &Graph, island: &Island, name: &str, dialect: Dialect) -> (NirGraph, NirIsland) {
    let membranes: Vec<Membrane> =
        island.links.iter().filter_map(|link| Some(neurons(graph, link.neurons?)?.0)).collect();
    let encoding = dialect.encoding(&membranes);
    let lines = encoding.lines().len();
    let mut made = IslandFile::default();
    let (input_width, _) = channels(graph, island.input);
    made.add("input", NirNode::Input(input_width + lines));
    // The island's own input is one channel with a sign.
    let mut signed = false;
    for (i, IslandLink { synapse: at, neurons: read }) in island.links.iter().enumerate() {
        let (matrix, most_sum) = synapse(graph, *at, signed, lines);
        let rated = made.add(&format!("w{i}"), matrix.node());
        rated.site = path(graph.site(*at));
        if most_sum >= EXACT_MAX {
            rated.rating = Fidelity::Approximate;
            rated.reason = Some("sums are beyond the whole numbers of f32".into());
        }
        let Some((read, (membrane, steps, one_sign))) = read.and_then(|read| Some((read, neurons(graph, read)?)))
        else {
            continue;
        };
        made.add_neurons(i, gains(graph, read, steps, one_sign, encoding), dialect, encoding);
        made.rate(&format!("n{i}"), path(graph.site(read)), membrane, dialect);
        signed = !one_sign;
    }
    let output = island.output();
    let (width, output_signed) = channels(graph, output);
    let output_channels = if output_signed { 2 * width } else { width };
    made.add("output", NirNode::Output(output_channels + lines));
    let is_spikes = neurons(graph, output).is_some();
    let (code, timesteps) = match graph.ty(island.input) {
        Type::Train { code, steps, .. } => (code.name(), steps),
        Type::Tensor { .. } => unreachable!("a synapse reads spikes"),
    };
    let port = |kind, value: Value, width, signed| NirPort {
        kind,
        site: path(graph.site(value)),
        width,
        lines: encoding.lines().to_vec(),
        signed,
    };
    let rated = made.rated;
    let entry = NirIsland {
        name: name.into(),
        file: format!("{name}.nir"),
        trace: None,
        rating: rated.iter().map(|node| node.rating).max().unwrap_or(Fidelity::Faithful),
        reasons: rated.iter().filter_map(|node| Some(format!("{}: {}", node.name, node.reason.as_ref()?))).collect(),
        code,
        timesteps,
        lead: LEAD,
        stride: encoding.stride(),
        input: port("spikes", island.input, input_width, false),
        output: port(if is_spikes { "spikes" } else { "currents" }, output, width, output_signed),
        nodes: rated,
    };
    (made.graph, entry)
}

/// An island in the making: every node reads the one before it.
#[derive(Default)]
struct IslandFile {
    graph: NirGraph,
    rated: Vec<NirNodeRating>,
    /// The node that the next one reads.
    last: Option<String>,
}

impl IslandFile {
    /// Gains, then the neurons behind them.
    fn add_neurons(&mut self, i: usize, gains: IslandMatrix, dialect: Dialect, encoding: Encoding) {
        let width = gains.outputs + gains.lines;
        self.add(&format!("g{i}"), gains.node());
        match encoding {
            Encoding::Plain => {
                self.add(&format!("n{i}"), dialect.neuron(width));
            }
            Encoding::Feedback => {
                let (nodes, edge) = feedback(i, width);
                nodes.into_iter().for_each(|(name, node)| {
                    self.add(&name, node);
                });
                self.graph.edges.push(edge);
                self.last = Some(format!("n{i}"));
            }
        }
    }

    /// Says what neurons a node stands for.
    fn rate(&mut self, name: &str, site: Option<String>, membrane: Membrane, dialect: Dialect) {
        if let Some(rated) = self.rated.iter_mut().find(|node| node.name == name) {
            let rating = dialect.rate(membrane);
            rated.site = site;
            rated.neuron = Some(membrane.name());
            rated.rating = rating.fidelity;
            rated.reason = rating.reason.map(String::from);
        }
    }

    fn add(&mut self, name: &str, node: NirNode) -> &mut NirNodeRating {
        if let Some(last) = self.last.replace(name.into()) {
            self.graph.edges.push([last, name.into()]);
        }
        let at = self.rated.len();
        self.rated.push(NirNodeRating {
            name: name.into(),
            r#type: node.type_name(),
            site: None,
            neuron: None,
            rating: Fidelity::Faithful,
            reason: None,
        });
        self.graph.nodes.push((name.into(), node));
        &mut self.rated[at]
    }
}

/// Spikes of a run in a reader's timesteps, with the lines: what enters an island, and what its neurons send.
fn trace(graph: &Graph, island: &Island, entry: &NirIsland, recording: &Recording) -> NpzFile {
    let mut file = NpzFile::default();
    let tokens = recording.tokens();
    let lines = |on: &str| entry.input.lines.iter().map(|line| i8::from(*line == on)).collect::<Vec<i8>>();
    let [one, odd, start] = ["one", "odd", "start"].map(lines);
    let mut add = |name: String, value: Value, signed: bool| {
        let Type::Train { steps, shape, .. } = graph.ty(value) else { return };
        let (steps, width) = (usize::from(steps), shape.row_width().unwrap_or(0));
        let spikes = recording.ints(value);
        let channels = if signed { 2 * width } else { width };
        let timesteps = LEAD + entry.stride * steps;
        let mut data = Vec::with_capacity(tokens * timesteps * (channels + one.len()));
        let silent = |data: &mut Vec<i8>, lines: &[i8]| {
            data.extend(std::iter::repeat_n(0, channels));
            data.extend(lines);
        };
        for token in 0..tokens {
            silent(&mut data, &start);
            for row in spikes[recording.token(spikes, token)].chunks_exact(width) {
                if signed {
                    data.extend(row.iter().map(|&spike| i8::from(spike > 0)));
                    data.extend(row.iter().map(|&spike| i8::from(spike < 0)));
                } else {
                    data.extend(row.iter().map(|&spike| spike as i8));
                }
                data.extend(&one);
                for _ in 1..entry.stride {
                    silent(&mut data, &odd);
                }
            }
        }
        file.add(&name, NpzArray::new(&[tokens, timesteps, channels + one.len()], &data));
    };
    add("input".into(), island.input, false);
    for (i, link) in island.links.iter().enumerate() {
        if let Some(read) = link.neurons {
            add(format!("n{i}"), read, channels(graph, read).1);
        }
    }
    let last = island.links[island.links.len() - 1];
    if last.neurons.is_none() {
        let currents = currents(graph, last.synapse, entry, recording);
        let width = entry.output.width + one.len();
        file.add("output", NpzArray::new(&[tokens, currents.len() / (tokens * width).max(1), width], &currents));
    }
    file
}

/// What the last synapse of an island gives, in a reader's timesteps, with the lines.
fn currents(graph: &Graph, at: Value, entry: &NirIsland, recording: &Recording) -> Vec<f32> {
    let [spikes, weight] = [0, 1].map(|i| graph.node(at).args[i]);
    let weights = graph.constant(weight).and_then(|weight| weight.tensor.to_integers()).unwrap_or_default();
    let inputs = graph.ty(spikes).shape().row_width().unwrap_or(1);
    let (spikes, width) = (recording.ints(spikes), entry.output.width);
    let line = |on: &str| entry.output.lines.iter().map(|line| f32::from(u8::from(*line == on))).collect::<Vec<f32>>();
    let [one, odd, start] = ["one", "odd", "start"].map(line);
    let mut all = Vec::new();
    for token in 0..recording.tokens() {
        all.extend(std::iter::repeat_n(0.0, width));
        all.extend(&start);
        for row in spikes[recording.token(spikes, token)].chunks_exact(inputs) {
            all.extend(current(row, &weights, width).into_iter().map(|sum| sum as f32));
            all.extend(&one);
            for _ in 1..entry.stride {
                all.extend(std::iter::repeat_n(0.0, width));
                all.extend(&odd);
            }
        }
    }
    all
}

/// An operation of the host as a connection names it: its spelling and its site.
fn host_name(graph: &Graph, value: Value) -> String {
    let op = graph.node(value).op;
    path(graph.site(value)).map_or(op.to_string(), |site| format!("{op} #{site}"))
}

fn connections(graph: &Graph, islands: &[Island], names: &[String]) -> Vec<NirConnection> {
    let users = graph.users();
    let giver: BTreeMap<usize, &String> =
        islands.iter().zip(names).map(|(island, name)| (island.output().index(), name)).collect();
    let taker: BTreeMap<usize, &String> =
        islands.iter().zip(names).map(|(island, name)| (island.links[0].synapse.index(), name)).collect();
    let mut all = Vec::new();
    for (island, name) in islands.iter().zip(names) {
        let from = giver.get(&island.input.index()).map(|name| (*name).clone());
        let from = from.unwrap_or_else(|| host_name(graph, island.input));
        all.push(NirConnection { from, to: name.clone() });
        for &user in users[island.output().index()].iter().filter(|user| !taker.contains_key(&user.index())) {
            all.push(NirConnection { from: name.clone(), to: host_name(graph, user) });
        }
    }
    all
}

/// Operations outside of islands.
fn host(graph: &Graph, islands: &[Island]) -> BTreeMap<String, usize> {
    let links = islands.iter().flat_map(|island| &island.links);
    let inside: BTreeSet<usize> =
        links.flat_map(|link| [Some(link.synapse), link.neurons]).flatten().map(Value::index).collect();
    let mut all = BTreeMap::new();
    for (value, node) in graph.iter() {
        if !matches!(node.op, Op::Leaf(_)) && !inside.contains(&value.index()) {
            *all.entry(node.op.to_string()).or_default() += 1;
        }
    }
    all
}

/// Neurons that no file has, though a synapse feeds them.
fn unsupported(graph: &Graph, dialect: Dialect) -> Vec<NirUnsupported> {
    let of = |(value, node): (Value, &snnc_ir::Node)| {
        let reason = if let Some((membrane, ..)) = neurons(graph, value) {
            let rating = dialect.rate(membrane);
            rating.reason.filter(|_| rating.fidelity == Fidelity::Unsupported)?
        } else if node.op.is_neuron() {
            "it integrates its whole input before it spikes; neurons of NIR answer within the timestep"
        } else {
            return None;
        };
        let site = path(graph.site(value)).unwrap_or_default();
        Some(NirUnsupported { site, neuron: node.op.to_string(), reason: reason.into() })
    };
    graph.iter().filter_map(of).collect()
}

/// The share of synaptic weights that islands hold.
fn weights_in(graph: &Graph, islands: &[Island]) -> f64 {
    let size = |synapse: Value| {
        graph.ty(graph.node(synapse).args[1]).shape().sizes().map_or(0, |sizes| sizes.iter().product::<usize>())
    };
    let inside: usize = islands.iter().flat_map(|island| &island.links).map(|link| size(link.synapse)).sum();
    let all: usize = graph
        .iter()
        .filter(|(_, node)| matches!(node.op, Op::Spike(SpikeOp::Synapse)))
        .map(|(value, _)| size(value))
        .sum();
    inside as f64 / all.max(1) as f64
}
