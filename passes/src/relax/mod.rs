//! A program in training: its own graph with reals for integers, beside the dense network that it learns from.
//!
//! Law: where no parameter has moved, the relaxed graph computes what the program computes, level for level. A level is a
//! real that was rounded, and is differentiated as if it were not; a synapse is a product in f32. What trains are numbers
//! beside the program's constants, all 0 at first: the logarithm of a factor for gains (thresholds), something added to
//! offsets (initial potentials, biases), weights and maps. A neuron moves its threshold and what a level is worth together
//! (Esser et al. 2020, LSQ), so that levels become finer or wider and nothing else, wherever whoever reads it can make up for
//! it: projections by their weights, attention's readers by their gains, keys by the opposite of what queries do. Time-stepped
//! neurons move their gain alone, and so does a head whose weight the embedding reads. Parameters that a neuron has of its own
//! move within their ranges. `TrainGraph::constants` says what the program's constants become.

mod attention;
mod membranes;
#[cfg(test)]
mod tests;

use crate::residual::{Addition, additions, start};
use indexmap::IndexMap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::op::{Heads, Layout, Perm};
use snnc_ir::op::{Surrogate, TrainingOp};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::state::neuron_of;
use snnc_ir::types::Elem;
use snnc_ir::{Binary, Builder, Curve, Diagnostic, Graph, Node, Op, Shape, Stage, Tensor, Type, Unary, Value, Weight};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Which parameters train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trainable {
    /// Those of attention: projections, maps, thresholds.
    #[default]
    Ssa,
    /// Of all neurons thresholds and initial potentials; biases; slopes, sinks and half-lives of attention. No weights.
    Thresholds,
    /// Those, and for every weight a product of two matrices of so many rows and columns that is added to it.
    Lora(u32),
    /// All, but for a weight that the embedding reads as well.
    All,
}

impl fmt::Display for Trainable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trainable::Ssa => f.write_str("ssa"),
            Trainable::Thresholds => f.write_str("thresholds"),
            Trainable::Lora(rank) => write!(f, "lora:{rank}"),
            Trainable::All => f.write_str("all"),
        }
    }
}

/// What is made small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Kullback-Leibler divergence from the dense network's prediction.
    #[default]
    Divergence,
    /// Negative log likelihood of the text.
    CrossEntropy,
    /// Of every block its part of the residual stream, given the dense network's input to it: the squared error as a share of
    /// the square of the dense network's part, summed over blocks that have something to train. What blocks learn then does not depend
    /// on other blocks.
    Transfer,
}

/// What a user chooses about training that the graph depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    /// Which parameters train.
    pub train: Trainable,
    /// What is made small.
    pub loss: Loss,
    /// What stands for the derivative of a spike.
    pub surrogate: Surrogate,
}

/// A step of 1 in the parameter of a threshold or an offset is so many of its units: at the rate that suits weights,
/// thresholds alone learn too slowly (4 timesteps, 150 steps: 13 % less divergence, 18 % with this, none with 20).
const THRESHOLD_UNIT: f32 = 5.0;

/// What a step of 1 in an offset's parameter is where potentials count levels.
const LEVEL: f32 = 1.0;

/// A program in training.
#[derive(Clone, Debug)]
pub struct TrainGraph {
    /// Stage `training`, with one output, `loss`.
    pub graph: Graph,
    /// Weights of it that train; all of them start as they are in the graph.
    pub parameters: Vec<String>,
    /// The program's constants that change, by name, as a graph of the same parameters. Weights are in units of the program's
    /// 8-bit weights, not rounded.
    pub constants: Graph,
}

/// A step of 1 in a weight's parameter is so many times its output's root mean square weight: weights of trained networks
/// are about 1/20, so that one rate of learning suits weights and logarithms.
const WEIGHT_UNIT: f32 = 20.0;

/// The relaxed graph of a program (stage `quantised` or `spiking`: both mean the same) that learns from `teacher` (stage `tensor`).
///
/// # Errors
/// An operation that has no relaxation; nothing that trains.
pub fn relax(program: &Graph, teacher: &Graph, recipe: Recipe) -> Result<TrainGraph, Diagnostics> {
    let logits = |graph: &Graph| graph.outputs.first().map(|(_, value)| *value);
    let (Some(own), Some(other)) = (logits(program), logits(teacher)) else {
        return Err(Diagnostics::from(Diagnostic::new("", "a network without an output has nothing to learn")));
    };
    if let Some(weight) = program.weights.iter().find(|weight| matches!(weight.tensor.elem(), Elem::I4(_))) {
        let error = Diagnostic::new(&weight.name, "weights of 4 bits do not train");
        return Err(Diagnostics::from(error.note("compile the network with `--weights i8`, and train that")));
    }
    let mut relaxing = Relaxing::new([program.context, teacher.context], recipe);
    let dense = match recipe.loss {
        Loss::Divergence | Loss::Transfer => Some(relaxing.graph(teacher, false)?),
        Loss::CrossEntropy => None,
    };
    let student = relaxing.graph(program, true)?[own.index()];
    let loss = match (recipe.loss, dense) {
        (Loss::Divergence, Some(dense)) => relaxing.training(TrainingOp::Divergence, &[student, dense[other.index()]]),
        (Loss::Transfer, _) => relaxing.transferred(),
        _ => relaxing
            .training(TrainingOp::Targets, &[])
            .and_then(|targets| relaxing.training(TrainingOp::CrossEntropy, &[student, targets])),
    };
    let loss = loss?;
    let effective = std::mem::take(&mut relaxing.effective);
    let all =
        relaxing.builder.finish(std::iter::once((crate::gradient::LOSS.to_string(), loss)).chain(effective).collect());
    let (loss, constants) = all.outputs.split_at(1);
    let [graph, constants] = [loss, constants].map(|outputs| Builder::with_outputs(&all, outputs.to_vec()));
    // What leads to no loss has no gradient.
    let known = |name: &String| graph.weights.iter().any(|weight| weight.name == *name);
    let parameters: Vec<String> = relaxing.parameters.into_iter().filter(known).collect();
    if parameters.is_empty() {
        return Err(Diagnostics::from(Diagnostic::new("", "this program has nothing of what is to train")));
    }
    Ok(TrainGraph { graph, parameters, constants })
}

/// What a constant is to whoever reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ParameterKind {
    Threshold,
    Weight,
}

struct Relaxing {
    builder: Builder,
    /// The power of two that no sequence of the program is longer than: memory that halves after so many tokens never does.
    never: u32,
    recipe: Recipe,
    parameters: Vec<String>,
    /// By name of the program's constants: what they have become.
    effective: IndexMap<String, Value>,
    /// Whether the constants at hand may train.
    own: bool,
    /// Where the dense network's residual stream starts.
    first: Option<Value>,
    /// The dense network's residual stream before and after every block.
    dense: Vec<Addition>,
    /// The program's after every block, given the dense network's before it; none where nothing in the block trains.
    blocks: Vec<Option<Value>>,
    /// Parameters of the blocks so far.
    of_blocks: usize,
    origin: NodeOrigin,
}

/// A layer of neurons.
#[derive(Clone, Debug)]
struct Neurons {
    /// Levels, or how many spikes.
    plain: Value,
    /// The same in units that do not change with the threshold.
    worth: Value,
    /// The logarithm of what a level is worth, where it may change.
    log: Option<Value>,
    /// Of queries the same, by channel of the keys that they are compared with.
    by_key: Option<Value>,
    /// Of neurons that are rectified and emit a level in their first timesteps: the potential as if they were not.
    potential: Option<Value>,
    /// The largest level.
    most: u32,
    /// Of time-stepped neurons: spikes, one value a timestep.
    spikes: Vec<Value>,
}

/// What the thresholds of a layer have to do with others.
#[derive(Clone, Copy, Default)]
struct Links {
    /// Of keys: the logarithm of the queries that they are compared with.
    query: Option<Value>,
    /// Of queries: heads of them, and of the keys.
    shared: Option<Heads>,
    /// The logarithm of the unit of what the neurons hear.
    unit: Option<Value>,
}

/// Constants of neurons, as training moves their thresholds.
struct MovedThresholds {
    gain: Value,
    offset: Value,
    /// As of `Neurons`.
    log: Option<Value>,
    by_key: Option<Value>,
    /// What a level is worth, by channel.
    worth: Option<Value>,
}

/// What is known of the graph that is being added.
struct Walk {
    /// Neurons whose levels are features of attention.
    features: HashSet<Value>,
    /// The queries that keys are compared with.
    queries: HashMap<Value, Value>,
    /// Heads of queries and of the keys that they are compared with, by the queries.
    shared: HashMap<Value, Heads>,
    /// Attention that only neurons read.
    read_by_neurons: HashSet<Value>,
    /// The new value of every node so far.
    map: Vec<Value>,
    /// Layers of neurons, by their value in the program.
    layers: IndexMap<Value, Neurons>,
    /// Of attention that gives values in units of their own: their logarithm.
    units: IndexMap<Value, Value>,
    /// Where blocks add their parts to the residual stream.
    additions: Vec<Addition>,
}

impl Walk {
    /// Of the neurons `value`, whose thresholds move with what `input` hears.
    fn links(&self, value: Value, input: Value) -> Links {
        let query = self.queries.get(&value).and_then(|query| self.layers.get(query)?.by_key);
        Links { query, shared: self.shared.get(&value).copied(), unit: self.units.get(&input).copied() }
    }
}

impl Relaxing {
    fn new([own, other]: [u32; 2], recipe: Recipe) -> Self {
        Self {
            builder: Builder::new(Stage::Training, own.min(other)),
            never: own.max(2).next_power_of_two(),
            recipe,
            parameters: Vec::new(),
            effective: IndexMap::new(),
            own: false,
            first: None,
            dense: Vec::new(),
            blocks: Vec::new(),
            of_blocks: 0,
            origin: NodeOrigin::default(),
        }
    }

    /// Adds a graph; `own`: the one that trains.
    fn graph(&mut self, graph: &Graph, own: bool) -> Result<Vec<Value>, Diagnostic> {
        self.own = own;
        let mut walk = Walk {
            features: features(graph),
            queries: compared(graph).map(|(q, k, _)| (k, q)).collect(),
            shared: compared(graph).map(|(q, _, heads)| (q, heads)).collect(),
            read_by_neurons: read_by_neurons(graph),
            map: Vec::with_capacity(graph.nodes.len()),
            layers: IndexMap::new(),
            units: IndexMap::new(),
            additions: additions(graph),
        };
        let start = start(graph, &walk.additions);
        for (value, node) in graph.iter() {
            self.origin = graph.origin(value).clone();
            let new = self.node(graph, value, node, &mut walk)?;
            walk.map.push(if start == Some(value) { self.start(new) } else { new });
        }
        Ok(walk.map)
    }

    /// What a node is in reals.
    fn node(&mut self, graph: &Graph, value: Value, node: &Node, walk: &mut Walk) -> Result<Value, Diagnostic> {
        let args: Vec<Value> = node.args.iter().map(|arg| walk.map[arg.index()]).collect();
        let weight = |i: usize| node.args.get(i).and_then(|&arg| graph.constant(arg));
        let known =
            |i: usize| weight(i).ok_or_else(|| Diagnostic::new(graph.origin(value), "a parameter that is no constant"));
        let layer = |i: usize| node.args.get(i).and_then(|&arg| walk.layers.get(&neuron_of(graph, arg)));
        Ok(match node.op {
            // Constants are made where they are read.
            Op::Leaf(LeafOp::Weight(_)) => Value(0),
            Op::Leaf(LeafOp::Tokens)
            | Op::Leaf(LeafOp::Positions | LeafOp::Opening)
            | Op::Dense(DenseOp::Curve(_))
            | Op::Dense(DenseOp::Gated(_) | DenseOp::Hadamard(_))
            | Op::Dense(DenseOp::Centre | DenseOp::RmsNorm { .. } | DenseOp::Rotary { .. })
            | Op::Level(LevelOp::RowMaxAbs { .. }) => self.add(node.op, &args)?,
            Op::Array(ArrayOp::Binary(Binary::Add)) => {
                let sum = self.add(node.op, &args)?;
                match walk.additions.iter().find(|addition| addition.after == value) {
                    Some(addition) => self.block(walk.map[addition.before.index()], sum),
                    None => sum,
                }
            }
            Op::Array(ArrayOp::Binary(Binary::Mul | Binary::Div)) => self.add(node.op, &args)?,
            Op::Dense(DenseOp::Embed) => {
                let table = self.table(known(1)?)?;
                self.add(Op::Dense(DenseOp::Embed), &[args[0], table])?
            }
            Op::Level(LevelOp::GatherChannels) => {
                let channels = self.fixed(known(1)?);
                self.add(Op::Level(LevelOp::GatherChannels), &[args[0], channels])?
            }
            Op::Dense(DenseOp::AtStart) => {
                let [starts, rows] = [self.fixed(known(2)?), self.fixed(known(3)?)];
                self.add(node.op, &[args[0], args[1], starts, rows])?
            }
            Op::Level(LevelOp::ScaleShift) => self.affine(args[0], known(1)?, known(2)?)?,
            Op::Dense(DenseOp::Linear(layout)) => {
                let w = self.matrix(known(1)?, layout)?;
                let bias = self.offset(known(2)?)?;
                let y = self.add(Op::Array(ArrayOp::MatMul), &[args[0], w])?;
                self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[y, bias])?
            }
            Op::Dense(DenseOp::Attention { heads, scale }) => {
                let alibi = heads.alibi.then(|| known(3)).transpose()?;
                self.attention(&args, heads, scale, alibi)?
            }
            Op::Level(LevelOp::Quant { code, steps, curve }) | Op::Spike(SpikeOp::Fire { code, steps, curve }) => {
                let mut x = args[0];
                let gain = node.args.len() - 2;
                let is_feature = walk.features.contains(&value);
                if curve != Curve::Identity {
                    let unit = if is_feature { LEVEL } else { self.unit(known(2)?) };
                    x = self.affine_by(x, known(1)?, known(2)?, unit)?;
                }
                let most = code.levels(steps) as u32;
                let found = match is_feature {
                    true => self.feature_neurons(x, known(gain)?, known(gain + 1)?, most)?,
                    false => {
                        let links = walk.links(value, node.args[0]);
                        self.neurons(x, curve, [known(gain)?, known(gain + 1)?], most, links)?
                    }
                };
                let plain = found.plain;
                walk.layers.insert(value, found);
                plain
            }
            Op::Level(LevelOp::GatedQuant { code, steps, curve })
            | Op::Spike(SpikeOp::GatedFire { code, steps, curve }) => {
                let links = walk.links(value, node.args[1]);
                let constants = [known(2)?, known(3)?, known(4)?, known(5)?];
                let most = code.levels(steps) as u32;
                let found = self.gated_neurons([args[0], args[1]], curve, constants, most, links)?;
                let plain = found.plain;
                walk.layers.insert(value, found);
                plain
            }
            Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => {
                let inputs = if let Type::Train { .. } = graph.ty(node.args[0]) {
                    // Each timestep's current, and its share of the offset.
                    let synapse = graph.node(node.args[0]);
                    let presynaptic =
                        synapse.args.first().and_then(|&arg| walk.layers.get(&neuron_of(graph, arg))).cloned();
                    let w = synapse.args.get(1).filter(|&&w| !is_shared(graph, w)).and_then(|&w| graph.constant(w));
                    let (Some(presynaptic), Some(w), Op::Spike(SpikeOp::Synapse)) = (presynaptic, w, synapse.op) else {
                        return Err(Diagnostic::new(graph.origin(value), "a current that no neurons drive"));
                    };
                    let currents = self.currents(&presynaptic, w)?;
                    self.shares(&currents, known(1)?, known(2)?)?
                } else {
                    let x = self.affine(args[0], known(1)?, known(2)?)?;
                    let timesteps = self.number(steps.into());
                    vec![self.two(Binary::Div, x, timesteps)?; steps.into()]
                };
                let ranges = membrane.rule().parameters.iter().zip(3..);
                let parameters: Vec<Value> =
                    ranges.map(|(range, i)| self.ranged(known(i)?, range)).collect::<Result<_, _>>()?;
                let found = self.membranes(&inputs, membrane, curve, &parameters)?;
                let plain = found.plain;
                walk.layers.insert(value, found);
                plain
            }
            Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) => {
                self.product(args[0], layer(0).cloned(), known(1)?, is_shared(graph, node.args[1]))?
            }
            Op::Spike(SpikeOp::Decode) => args[0],
            Op::Level(LevelOp::HeadLinear) => self.head_linear(args[0], known(1)?)?,
            Op::Level(LevelOp::Ssa { heads, variant }) => {
                let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|i| layer(i).cloned()) else {
                    return Err(Diagnostic::new(graph.origin(value), "attention on what no neurons emit"));
                };
                if variant == (Ssa::Lif { output: Output::Spikes }) {
                    let found = self.emitted([q, k, v], heads, [known(3)?, known(4)?, known(5)?])?;
                    let plain = found.plain;
                    walk.layers.insert(value, found);
                    plain
                } else {
                    // Values in units that do not change with their thresholds, where the readers' gains can follow.
                    let unit = v.log.filter(|_| walk.read_by_neurons.contains(&value));
                    let values = if unit.is_some() { v.worth } else { v.plain };
                    if let Some(unit) = unit {
                        walk.units.insert(value, self.of_queries(unit, heads)?);
                    }
                    let (first, mut both) = (heads.first_constant(), [q.plain, k.plain]);
                    let own = heads.thresholds.then(|| args[5]);
                    if heads.thresholds {
                        for (part, &own) in both.iter_mut().zip(&args[3..5]) {
                            *part = self.in_thresholds(*part, own)?;
                        }
                    }
                    let (q, k) = (Neurons { plain: both[0], ..q }, Neurons { plain: both[1], ..k });
                    self.ssa([q, k], values, variant, heads, known(first)?, weight(first + 1), own)?
                }
            }
            Op::Leaf(LeafOp::Stream(_)) | Op::Array(_) | Op::Training(_) => {
                return Err(Diagnostic::new(graph.origin(value), format!("`{}` has no relaxation", node.op)));
            }
        })
    }

    /// What the first block reads: of the program that learns what blocks are, what the dense network's does.
    fn start(&mut self, stream: Value) -> Value {
        match self.first {
            Some(start) if self.own && self.recipe.loss == Loss::Transfer => start,
            Some(_) => stream,
            None => {
                self.first = Some(stream);
                stream
            }
        }
    }

    /// Notes the residual stream before and after a block, and gives what the next block reads.
    fn block(&mut self, before: Value, after: Value) -> Value {
        if !self.own {
            self.dense.push(Addition { before, after });
            return after;
        }
        let trains = self.parameters.len() > std::mem::replace(&mut self.of_blocks, self.parameters.len());
        self.blocks.push(Some(after).filter(|_| trains));
        let dense = self.dense.get(self.blocks.len() - 1).map(|addition| addition.after);
        dense.filter(|_| self.recipe.loss == Loss::Transfer).unwrap_or(after)
    }

    /// The loss of `Transfer`.
    fn transferred(&mut self) -> Result<Value, Diagnostic> {
        let (dense, blocks) = (self.dense.clone(), self.blocks.clone());
        if dense.len() != blocks.len() {
            let message = format!("the program has {} blocks, the dense network {}", blocks.len(), dense.len());
            return Err(Diagnostic::new("", message).note("name the file that the program was compiled from"));
        }
        let mut loss = None;
        for (own, Addition { before, after: wanted }) in blocks.into_iter().zip(dense) {
            let Some(own) = own else { continue };
            let part = self.two(Binary::Sub, wanted, before)?;
            let error = self.two(Binary::Sub, own, wanted)?;
            let [size, error] = [part, error].map(|x| {
                let square = self.two(Binary::Mul, x, x)?;
                self.training(TrainingOp::ReduceSum(Shape::fixed(&[1])), &[square])
            });
            let share = self.two(Binary::Div, error?, size?)?;
            loss = Some(match loss {
                None => share,
                Some(sum) => self.two(Binary::Add, sum, share)?,
            });
        }
        loss.ok_or_else(|| Diagnostic::new("", "no block of the network has anything of what is to train"))
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Result<Value, Diagnostic> {
        self.builder.add(op, args, &self.origin)
    }

    fn training(&mut self, op: TrainingOp, args: &[Value]) -> Result<Value, Diagnostic> {
        self.add(Op::Training(op), args)
    }

    fn two(&mut self, kind: Binary, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.add(Op::Array(ArrayOp::Binary(kind)), &[a, b])
    }

    fn number(&mut self, x: f32) -> Value {
        self.numbers(&format!("number {x:?}"), &[], vec![x])
    }

    fn numbers(&mut self, name: &str, sizes: &[usize], data: Vec<f32>) -> Value {
        let found = self.builder.graph().iter().find_map(|(value, _)| {
            let weight = self.builder.graph().constant(value)?;
            (weight.name == name && weight.tensor.sizes() == sizes).then_some(value)
        });
        found.unwrap_or_else(|| self.builder.weight(name, Arc::new(Tensor::f32(sizes, data))))
    }

    /// A constant that stays as it is.
    fn fixed(&mut self, weight: &Weight) -> Value {
        self.builder.weight(&self.named(weight), weight.tensor.clone())
    }

    /// A new parameter beside a constant.
    fn parameter(&mut self, of: &Weight, suffix: &str, sizes: &[usize]) -> Value {
        self.parameter_from(of, suffix, sizes, vec![0.0; sizes.iter().product()])
    }

    fn parameter_from(&mut self, of: &Weight, suffix: &str, sizes: &[usize], start: Vec<f32>) -> Value {
        let name = format!("{}.{suffix}", of.name);
        if !self.parameters.contains(&name) {
            self.parameters.push(name.clone());
        }
        self.numbers(&name, sizes, start)
    }

    fn trains(&self, kind: ParameterKind) -> bool {
        let attention = || self.origin.site.is_some_and(|site| site.role.is_attention());
        self.own
            && match self.recipe.train {
                Trainable::Ssa => attention(),
                Trainable::Thresholds => kind == ParameterKind::Threshold,
                Trainable::Lora(_) | Trainable::All => true,
            }
    }

    fn becomes(&mut self, weight: &Weight, value: Value) -> Value {
        self.effective.insert(weight.name.clone(), value);
        value
    }

    /// `constant * exp(log)`, where it trains.
    fn factor(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(ParameterKind::Threshold) {
            return Ok(plain);
        }
        let log = self.log(weight)?;
        let factor = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[log])?;
        let value = self.two(Binary::Mul, plain, factor)?;
        Ok(self.becomes(weight, value))
    }

    /// The logarithm of a factor.
    fn log(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        self.log_of(weight, weight.tensor.sizes())
    }

    fn log_of(&mut self, weight: &Weight, sizes: &[usize]) -> Result<Value, Diagnostic> {
        let log = self.parameter(weight, "log", sizes);
        let unit = self.number(THRESHOLD_UNIT);
        self.two(Binary::Mul, log, unit)
    }

    /// `constant + shift * unit`, where it trains.
    fn offset(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        self.offset_by(weight, self.unit(weight))
    }

    /// An offset's root mean square, at least 1e-3.
    fn unit(&self, weight: &Weight) -> f32 {
        root_mean_square(weight.tensor.as_f32().unwrap_or(&[]).iter().copied()).max(1e-3)
    }

    fn offset_by(&mut self, weight: &Weight, unit: f32) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(ParameterKind::Threshold) {
            return Ok(plain);
        }
        let shift = self.shift(weight, unit)?;
        let value = self.two(Binary::Add, plain, shift)?;
        Ok(self.becomes(weight, value))
    }

    fn shift(&mut self, weight: &Weight, unit: f32) -> Result<Value, Diagnostic> {
        let shift = self.parameter(weight, "shift", weight.tensor.sizes());
        let unit = self.number(unit * THRESHOLD_UNIT);
        self.two(Binary::Mul, shift, unit)
    }

    /// `constant + delta * unit`, where it trains: the unit is a row's largest magnitude.
    fn added(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(ParameterKind::Weight) {
            return Ok(plain);
        }
        let sizes = weight.tensor.sizes();
        let (width, data) = (sizes.last().copied().unwrap_or(1), weight.tensor.as_f32().unwrap_or(&[]));
        let units = data.chunks_exact(width).map(|row| row.iter().fold(1e-6, |most: f32, x| most.max(x.abs())));
        let units: Vec<f32> = units.collect();
        let mut column = sizes.to_vec();
        column.pop();
        column.push(1);
        let units = self.numbers(&format!("{}.unit", weight.name), &column, units);
        let delta = self.parameter(weight, "delta", sizes);
        let delta = self.two(Binary::Mul, delta, units)?;
        let value = self.two(Binary::Add, plain, delta)?;
        Ok(self.becomes(weight, value))
    }

    fn affine(&mut self, x: Value, gain: &Weight, offset: &Weight) -> Result<Value, Diagnostic> {
        self.affine_by(x, gain, offset, self.unit(offset))
    }

    fn affine_by(&mut self, x: Value, gain: &Weight, offset: &Weight, unit: f32) -> Result<Value, Diagnostic> {
        let (gain, offset) = (self.factor(gain)?, self.offset_by(offset, unit)?);
        self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])
    }

    /// `level((curve(x) gain + offset) exp(-log) + shift)`, worth `exp(log)` each.
    fn neurons(
        &mut self,
        x: Value,
        curve: Curve,
        constants: [&Weight; 2],
        most: u32,
        links: Links,
    ) -> Result<Neurons, Diagnostic> {
        let x = if curve == Curve::Identity { x } else { self.add(Op::Dense(DenseOp::Curve(curve)), &[x])? };
        let moved = self.thresholds(constants, links)?;
        let p = self.add(Op::Level(LevelOp::ScaleShift), &[x, moved.gain, moved.offset])?;
        self.leveled(p, &moved, most)
    }

    /// `level(curve(gate a + b) ((up gain + offset) exp(-log) + shift))`: what the gate multiplies has the threshold in it.
    fn gated_neurons(
        &mut self,
        [gate, up]: [Value; 2],
        curve: Curve,
        [pre_gain, pre_offset, gain, offset]: [&Weight; 4],
        most: u32,
        links: Links,
    ) -> Result<Neurons, Diagnostic> {
        let gate = self.affine(gate, pre_gain, pre_offset)?;
        let moved = self.thresholds([gain, offset], links)?;
        let up = self.add(Op::Level(LevelOp::ScaleShift), &[up, moved.gain, moved.offset])?;
        let p = self.add(Op::Dense(DenseOp::Gated(curve)), &[gate, up])?;
        self.leveled(p, &moved, most)
    }

    /// Gain and offset of neurons whose thresholds move, if they train. Of keys the logarithm is less by that of the query, so
    /// that their product stays; queries that share a key share the logarithm. An input in a unit is multiplied by it in the
    /// program.
    fn thresholds(&mut self, [gain, offset]: [&Weight; 2], links: Links) -> Result<MovedThresholds, Diagnostic> {
        let [plain_gain, plain_offset] = [gain, offset].map(|weight| self.fixed(weight));
        let trains = self.trains(ParameterKind::Threshold);
        let mut moved =
            MovedThresholds { gain: plain_gain, offset: plain_offset, log: None, by_key: None, worth: None };
        if trains {
            let shared = links.shared.filter(|heads| heads.group() > 1);
            let width = gain.tensor.sizes().iter().product::<usize>() / shared.map_or(1, Heads::group);
            let by_key = self.log_of(gain, &[width])?;
            let log = match (shared, links.query) {
                (Some(heads), _) => self.of_queries(by_key, heads)?,
                (None, Some(query)) => self.two(Binary::Sub, by_key, query)?,
                (None, None) => by_key,
            };
            let less = self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[log])?;
            let less = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[less])?;
            moved.worth = Some(self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[log])?);
            (moved.log, moved.by_key) = (Some(log), Some(by_key));
            moved.gain = self.two(Binary::Mul, plain_gain, less)?;
            moved.offset = self.two(Binary::Mul, plain_offset, less)?;
            let shift = self.shift(offset, LEVEL)?;
            moved.offset = self.two(Binary::Add, moved.offset, shift)?;
            self.becomes(offset, moved.offset);
        }
        if trains || links.unit.is_some() {
            let stored = match links.unit {
                Some(unit) => {
                    let unit = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[unit])?;
                    self.two(Binary::Mul, moved.gain, unit)?
                }
                None => moved.gain,
            };
            self.becomes(gain, stored);
        }
        Ok(moved)
    }

    /// Potentials, rounded to levels.
    fn leveled(&mut self, p: Value, moved: &MovedThresholds, most: u32) -> Result<Neurons, Diagnostic> {
        let plain = self.training(TrainingOp::FakeQuant { most }, &[p])?;
        let worth = match moved.worth {
            Some(more) => self.two(Binary::Mul, plain, more)?,
            None => plain,
        };
        let MovedThresholds { log, by_key, .. } = *moved;
        Ok(Neurons { plain, worth, log, by_key, potential: None, most, spikes: Vec::new() })
    }

    /// Rectified neurons that attention reads: what comes before the rectifier trains, and says enough.
    fn feature_neurons(&mut self, x: Value, gain: &Weight, offset: &Weight, most: u32) -> Result<Neurons, Diagnostic> {
        let [gain, offset] = [gain, offset].map(|weight| self.fixed(weight));
        let potential = self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])?;
        let rectified = self.add(Op::Dense(DenseOp::Curve(Curve::Relu)), &[x])?;
        let p = self.add(Op::Level(LevelOp::ScaleShift), &[rectified, gain, offset])?;
        let plain = self.training(TrainingOp::FakeQuant { most }, &[p])?;
        Ok(Neurons {
            plain,
            worth: plain,
            log: None,
            by_key: None,
            potential: Some(potential),
            most,
            spikes: Vec::new(),
        })
    }

    /// Rows of a table, or of an 8-bit weight turned.
    fn table(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        match (weight.tensor.to_rows(), weight.tensor.sizes()) {
            (Some(rows), &[inputs, outputs]) => {
                let turned = (0..rows.len()).map(|i| f32::from(rows[i % inputs * outputs + i / inputs])).collect();
                Ok(self.numbers(&format!("{}.turned", self.named(weight)), &[outputs, inputs], turned))
            }
            _ => Ok(self.fixed(weight)),
        }
    }

    /// A weight in f32, `[in, out]`.
    fn matrix(&mut self, weight: &Weight, layout: Layout) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        let value = if self.trains(ParameterKind::Weight) && self.recipe.train != Trainable::Thresholds {
            let value = self.moved(weight, plain)?;
            self.becomes(weight, value)
        } else {
            plain
        };
        match layout {
            Layout::InputMajor => Ok(value),
            Layout::OutputMajor => self.turned(value),
        }
    }

    /// What levels are worth times an 8-bit weight.
    fn product(
        &mut self,
        x: Value,
        neurons: Option<Neurons>,
        weight: &Weight,
        shared: bool,
    ) -> Result<Value, Diagnostic> {
        // The embedding reads what is stored.
        if shared {
            let plain = self.rows(weight);
            return self.add(Op::Array(ArrayOp::MatMul), &[x, plain]);
        }
        let (w, _) = self.stored(neurons.as_ref().and_then(|neurons| neurons.log), weight)?;
        // Levels times their worth: a gradient by it then takes no product more.
        self.add(Op::Array(ArrayOp::MatMul), &[neurons.map_or(x, |neurons| neurons.worth), w])
    }

    /// An 8-bit weight as reals.
    fn rows(&mut self, weight: &Weight) -> Value {
        let rows = weight.tensor.to_rows().unwrap_or_default().into_iter().map(f32::from).collect();
        self.numbers(&self.named(weight), weight.tensor.sizes(), rows)
    }

    /// What a constant is called here.
    fn named(&self, weight: &Weight) -> String {
        if self.own { weight.name.clone() } else { format!("teacher {}", weight.name) }
    }

    /// An 8-bit weight as training has it, for what levels are worth, and as the program stores it, for levels: what a level of
    /// each channel is worth, by its logarithm, is in that.
    fn stored(&mut self, log: Option<Value>, weight: &Weight) -> Result<(Value, Value), Diagnostic> {
        let plain = self.rows(weight);
        let trains = self.trains(ParameterKind::Weight);
        let w = if trains { self.moved(weight, plain)? } else { plain };
        let stored = match log {
            Some(log) => {
                let column =
                    self.add(Op::Array(ArrayOp::Reshape(Shape::fixed(&[weight.tensor.sizes()[0], 1]))), &[log])?;
                let column = self.add(Op::Array(ArrayOp::Unary(Unary::Exp)), &[column])?;
                self.two(Binary::Mul, w, column)?
            }
            None => w,
        };
        if trains || log.is_some() {
            self.becomes(weight, stored);
        }
        Ok((w, stored))
    }

    /// A weight and what is learned beside it.
    fn moved(&mut self, weight: &Weight, plain: Value) -> Result<Value, Diagnostic> {
        let &[inputs, outputs] = weight.tensor.sizes() else {
            return Err(Diagnostic::new(&weight.name, "a weight that is no matrix"));
        };
        let units = self.units(weight, inputs, outputs);
        let units = self.numbers(&format!("{}.unit", weight.name), &[outputs], units);
        let delta = match self.recipe.train {
            Trainable::Lora(rank) => {
                let rank = rank as usize;
                // As Hu et al. 2021: one factor random, the other 0.
                let scale = 1.0 / (inputs as f32).sqrt();
                let start = spread(inputs * rank).map(|x| x * scale).collect();
                let down = self.parameter_from(weight, "down", &[inputs, rank], start);
                let up = self.parameter(weight, "up", &[rank, outputs]);
                self.add(Op::Array(ArrayOp::MatMul), &[down, up])?
            }
            Trainable::Ssa | Trainable::Thresholds | Trainable::All => {
                self.parameter(weight, "delta", &[inputs, outputs])
            }
        };
        let delta = self.two(Binary::Mul, delta, units)?;
        self.two(Binary::Add, plain, delta)
    }

    /// By output: what a step of 1 in a parameter is.
    fn units(&self, weight: &Weight, inputs: usize, outputs: usize) -> Vec<f32> {
        let rows: Vec<f32> = match weight.tensor.to_rows() {
            Some(rows) => rows.into_iter().map(f32::from).collect(),
            None => weight.tensor.as_f32().unwrap_or(&[]).to_vec(),
        };
        let column = |o: usize| (0..inputs).map(move |i| i * outputs + o);
        let unit = |o: usize| WEIGHT_UNIT * root_mean_square(column(o).map(|i| rows[i])).max(1e-6);
        (0..outputs).map(unit).collect()
    }

    fn turned(&mut self, value: Value) -> Result<Value, Diagnostic> {
        let rank = self.builder.ty(value).shape().rank();
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        let Some(perm) = Perm::new(&axes) else { unreachable!("an exchange is a permutation") };
        self.add(Op::Array(ArrayOp::Transpose(perm)), &[value])
    }
}

/// Neurons whose spikes are features of attention.
fn features(graph: &Graph) -> HashSet<Value> {
    let mut features = HashSet::new();
    for node in &graph.nodes {
        if let Op::Level(LevelOp::Ssa { variant, .. }) = node.op
            && variant.has_features()
        {
            features.extend(node.args[..2].iter().map(|&arg| neuron_of(graph, arg)));
        }
    }
    features
}

/// Of attention that weighs keys by their product with the query: neurons of queries, those of keys, heads of both.
fn compared(graph: &Graph) -> impl Iterator<Item = (Value, Value, Heads)> {
    graph.nodes.iter().filter_map(|node| {
        let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { return None };
        let [q, k] = [0, 1].map(|i| neuron_of(graph, node.args[i]));
        (!variant.has_features()).then_some((q, k, heads))
    })
}

/// Values that only neurons without a curve read, whose gains may take up a factor of every channel.
fn read_by_neurons(graph: &Graph) -> HashSet<Value> {
    let neurons = |&user: &Value| {
        matches!(
            graph.node(user).op,
            Op::Level(LevelOp::Quant { curve: Curve::Identity, .. })
                | Op::Spike(SpikeOp::Fire { curve: Curve::Identity, .. })
        )
    };
    let users = graph.users();
    graph.iter().map(|(value, _)| value).filter(|value| users[value.index()].iter().all(neurons)).collect()
}

/// Whether an embedding reads the constant as well.
fn is_shared(graph: &Graph, weight: Value) -> bool {
    graph.nodes.iter().any(|node| node.op == Op::Dense(DenseOp::Embed) && node.args[1] == weight)
}

fn root_mean_square(x: impl Iterator<Item = f32>) -> f32 {
    let (count, sum) = x.fold((0u32, 0f64), |(count, sum), x| (count + 1, sum + f64::from(x) * f64::from(x)));
    (sum / f64::from(count.max(1))).sqrt() as f32
}

/// Numbers between -1 and 1 that look like chance and are the same every time (xorshift).
fn spread(count: usize) -> impl Iterator<Item = f32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..count).map(move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    })
}
