//! A program in training: its own graph with reals for integers, beside the dense network that it learns from.
//!
//! Law: where no parameter has moved, the relaxed graph computes what the program computes, level for level. A level is a
//! real that was rounded, and is differentiated as if it were not; a synapse is a product in f32. What trains are numbers
//! beside the program's constants, all 0 at first: the logarithm of a factor for gains (thresholds), something added to
//! offsets (initial potentials, biases), weights and maps. A neuron whose levels only projections read moves its threshold
//! and what a level is worth together (Esser et al. 2020, LSQ), so that levels become finer or wider and nothing else.
//! `Relaxed::constants` says what the program's constants become.

use indexmap::IndexMap;
use snnc_ir::op::{Layout, Perm, Scalar};
use snnc_ir::training::{LEVEL_MAX, Surrogate, Training};
use snnc_ir::{Binary, Builder, Curve, Diagnostic, Dim, Graph, Op, Shape, Stage, Tensor, Unary, Value, Weight};
use std::sync::Arc;

/// Which parameters train.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Train {
    /// Those of attention: projections, maps, thresholds.
    #[default]
    Ssa,
    /// Of all neurons thresholds and initial potentials; biases; slopes of attention. No weights.
    Thresholds,
    /// Those, and for every weight a product of two matrices of so many rows and columns that is added to it.
    Lora(u32),
    /// All, but for a weight that the embedding reads as well.
    All,
}

/// What is made small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// Kullback-Leibler divergence from the dense network's prediction.
    #[default]
    Divergence,
    /// Negative log likelihood of the text.
    CrossEntropy,
}

/// What a user chooses about training that the graph depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    pub train: Train,
    pub loss: Loss,
    pub surrogate: Surrogate,
}

/// A program in training.
#[derive(Clone, Debug)]
pub struct Relaxed {
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

/// What masks a score; finite, since values are.
const MASKED: f32 = -1e9;

/// The relaxed graph of a collapsed program (stage `quantised`) that learns from `teacher` (stage `tensor`).
///
/// # Errors
/// An operation that has no relaxation; nothing that trains.
pub fn relax(program: &Graph, teacher: &Graph, recipe: Recipe) -> Result<Relaxed, Vec<Diagnostic>> {
    let one = |e: Diagnostic| vec![e];
    let logits = |graph: &Graph| graph.outputs.first().map(|(_, value)| *value);
    let (Some(own), Some(other)) = (logits(program), logits(teacher)) else {
        return Err(one(Diagnostic::new("", "a network without an output has nothing to learn")));
    };
    let mut relaxing = Relaxing::new(program.context.min(teacher.context), recipe);
    let map = relaxing.graph(program, true).map_err(one)?;
    let student = map[own.index()];
    let loss = match recipe.loss {
        Loss::Divergence => {
            let map = relaxing.graph(teacher, false).map_err(one)?;
            relaxing.training(Training::Divergence, &[student, map[other.index()]])
        }
        Loss::CrossEntropy => relaxing
            .training(Training::Targets, &[])
            .and_then(|targets| relaxing.training(Training::CrossEntropy, &[student, targets])),
    };
    let loss = loss.map_err(one)?;
    let effective = std::mem::take(&mut relaxing.effective);
    let all = relaxing.builder.finish(
        std::iter::once((crate::gradient::LOSS.to_string(), loss)).chain(effective).collect(),
    );
    let (loss, constants) = all.outputs.split_at(1);
    let [graph, constants] = [loss, constants].map(|outputs| Builder::with_outputs(&all, outputs.to_vec()));
    // What leads to no loss has no gradient.
    let known = |name: &String| graph.weights.iter().any(|weight| weight.name == *name);
    let parameters: Vec<String> = relaxing.parameters.into_iter().filter(known).collect();
    if parameters.is_empty() {
        return Err(one(Diagnostic::new("", "this program has nothing of what is to train")));
    }
    Ok(Relaxed { graph, parameters, constants })
}

/// What a constant is to whoever reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Threshold,
    Weight,
}

struct Relaxing {
    builder: Builder,
    recipe: Recipe,
    parameters: Vec<String>,
    /// By name of the program's constants: what they have become.
    effective: IndexMap<String, Value>,
    /// Whether the constants at hand may train.
    own: bool,
    origin: String,
}

/// Levels of a neuron: as attention reads them, and as projections do.
#[derive(Clone, Copy)]
struct Levels {
    plain: Value,
    worth: Value,
    /// The logarithm of what a level is worth, where it may change.
    log: Option<Value>,
}

impl Relaxing {
    fn new(context: u32, recipe: Recipe) -> Self {
        Self {
            builder: Builder::new(Stage::Training, context),
            recipe,
            parameters: Vec::new(),
            effective: IndexMap::new(),
            own: false,
            origin: String::new(),
        }
    }

    /// Adds a graph; `own`: the one that trains.
    fn graph(&mut self, graph: &Graph, own: bool) -> Result<Vec<Value>, Diagnostic> {
        self.own = own;
        let mut map = Vec::with_capacity(graph.nodes.len());
        let mut levels: IndexMap<Value, Levels> = IndexMap::new();
        for (value, node) in graph.iter() {
            self.origin = graph.origin(value).to_string();
            let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
            let weight = |i: usize| node.args.get(i).and_then(|&arg| graph.constant(arg));
            let known = |i: usize| {
                weight(i).ok_or_else(|| Diagnostic::new(graph.origin(value), "a parameter that is no constant"))
            };
            map.push(match node.op {
                // Constants are made where they are read.
                Op::Weight(_) => Value(0),
                Op::Tokens | Op::Positions | Op::Curve(_) | Op::Normalise { .. } | Op::Peak => self.add(node.op, &args)?,
                Op::Binary(Binary::Add | Binary::Mul | Binary::Div) => self.add(node.op, &args)?,
                Op::Embed => {
                    let table = self.table(known(1)?)?;
                    self.add(Op::Embed, &[args[0], table])?
                }
                Op::Pick => {
                    let channels = self.fixed(known(1)?);
                    self.add(Op::Pick, &[args[0], channels])?
                }
                Op::LayerNorm { eps } => {
                    let y = self.add(Op::Normalise { eps }, &args[..1])?;
                    self.affine(y, known(1)?, known(2)?)?
                }
                Op::Affine => self.affine(args[0], known(1)?, known(2)?)?,
                Op::Linear(layout) => {
                    let w = self.matrix(known(1)?, layout)?;
                    let bias = self.offset(known(2)?)?;
                    let y = self.add(Op::MatMul, &[args[0], w])?;
                    self.add(Op::Binary(Binary::Add), &[y, bias])?
                }
                Op::Attention { heads, scale } => self.attention(&args, heads, scale)?,
                Op::Quant { code, steps, curve } => {
                    let mut x = args[0];
                    let gain = node.args.len() - 2;
                    if curve != Curve::Identity {
                        x = self.affine(x, known(1)?, known(2)?)?;
                        x = self.add(Op::Curve(curve), &[x])?;
                    }
                    let found = self.neuron(x, known(gain)?, known(gain + 1)?, code.levels(steps))?;
                    levels.insert(value, found);
                    found.plain
                }
                Op::Product => {
                    let read = levels.get(&node.args[0]).copied();
                    self.product(args[0], read, known(1)?, is_shared(graph, node.args[1]))?
                }
                Op::Ssa { heads, phases } => self.ttfs(&args, known(3)?, heads, phases)?,
                op => return Err(Diagnostic::new(graph.origin(value), format!("`{op}` cannot be trained yet"))),
            });
        }
        Ok(map)
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Result<Value, Diagnostic> {
        self.builder.add(op, args, &self.origin)
    }

    fn training(&mut self, op: Training, args: &[Value]) -> Result<Value, Diagnostic> {
        self.add(Op::Training(op), args)
    }

    fn two(&mut self, kind: Binary, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.add(Op::Binary(kind), &[a, b])
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
        let name = if self.own { weight.name.clone() } else { format!("dense {}", weight.name) };
        self.builder.weight(&name, weight.tensor.clone())
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

    fn trains(&self, weight: &Weight, kind: Kind) -> bool {
        let attention = || weight.name.split('.').any(|part| part == "attn");
        self.own
            && match self.recipe.train {
                Train::Ssa => attention(),
                Train::Thresholds => kind == Kind::Threshold,
                Train::Lora(_) | Train::All => true,
            }
    }

    fn becomes(&mut self, weight: &Weight, value: Value) -> Value {
        self.effective.insert(weight.name.clone(), value);
        value
    }

    /// `constant * exp(log)`, where it trains.
    fn factor(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(weight, Kind::Threshold) {
            return Ok(plain);
        }
        let log = self.parameter(weight, "log", weight.tensor.sizes());
        let factor = self.add(Op::Unary(Unary::Exp), &[log])?;
        let value = self.two(Binary::Mul, plain, factor)?;
        Ok(self.becomes(weight, value))
    }

    /// `constant + shift * unit`, where it trains: the unit is its root mean square, at least 1e-3.
    fn offset(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        if !self.trains(weight, Kind::Threshold) {
            return Ok(plain);
        }
        let unit = root_mean_square(weight.tensor.as_f32().unwrap_or(&[]).iter().copied()).max(1e-3);
        let shift = self.shift(weight, unit)?;
        let value = self.two(Binary::Add, plain, shift)?;
        Ok(self.becomes(weight, value))
    }

    fn shift(&mut self, weight: &Weight, unit: f32) -> Result<Value, Diagnostic> {
        let shift = self.parameter(weight, "shift", weight.tensor.sizes());
        let unit = self.number(unit);
        self.two(Binary::Mul, shift, unit)
    }

    fn affine(&mut self, x: Value, gain: &Weight, offset: &Weight) -> Result<Value, Diagnostic> {
        let (gain, offset) = (self.factor(gain)?, self.offset(offset)?);
        self.add(Op::Affine, &[x, gain, offset])
    }

    /// `level((x gain + offset) exp(-log) + shift)`, worth `exp(log)` each.
    fn neuron(&mut self, x: Value, gain: &Weight, offset: &Weight, most: i32) -> Result<Levels, Diagnostic> {
        let level = Training::Level { most: most as u32 };
        let [plain_gain, plain_offset] = [gain, offset].map(|weight| self.fixed(weight));
        if !self.trains(gain, Kind::Threshold) {
            let p = self.add(Op::Affine, &[x, plain_gain, plain_offset])?;
            let plain = self.training(level, &[p])?;
            return Ok(Levels { plain, worth: plain, log: None });
        }
        let log = self.parameter(gain, "log", gain.tensor.sizes());
        let less = self.add(Op::Unary(Unary::Neg), &[log])?;
        let [less, more] = [less, log].map(|log| self.add(Op::Unary(Unary::Exp), &[log]));
        let (less, more) = (less?, more?);
        let new_gain = self.two(Binary::Mul, plain_gain, less)?;
        let new_offset = self.two(Binary::Mul, plain_offset, less)?;
        let shift = self.shift(offset, 1.0)?;
        let new_offset = self.two(Binary::Add, new_offset, shift)?;
        let p = self.add(Op::Affine, &[x, new_gain, new_offset])?;
        self.becomes(gain, new_gain);
        self.becomes(offset, new_offset);
        let plain = self.training(level, &[p])?;
        let worth = self.two(Binary::Mul, plain, more)?;
        Ok(Levels { plain, worth, log: Some(log) })
    }

    /// Rows of a table, or of an 8-bit weight turned.
    fn table(&mut self, weight: &Weight) -> Result<Value, Diagnostic> {
        match (weight.tensor.to_rows(), weight.tensor.sizes()) {
            (Some(rows), &[inputs, outputs]) => {
                let turned = (0..rows.len()).map(|i| f32::from(rows[i % inputs * outputs + i / inputs])).collect();
                Ok(self.numbers(&format!("{}.turned", weight.name), &[outputs, inputs], turned))
            }
            _ => Ok(self.fixed(weight)),
        }
    }

    /// A weight in f32, `[in, out]`.
    fn matrix(&mut self, weight: &Weight, layout: Layout) -> Result<Value, Diagnostic> {
        let plain = self.fixed(weight);
        let value = if self.trains(weight, Kind::Weight) && self.recipe.train != Train::Thresholds {
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
        levels: Option<Levels>,
        weight: &Weight,
        shared: bool,
    ) -> Result<Value, Diagnostic> {
        let rows = weight.tensor.to_rows().unwrap_or_default().into_iter().map(f32::from).collect();
        let plain = self.numbers(&weight.name.clone(), weight.tensor.sizes(), rows);
        // The embedding reads what is stored.
        if shared {
            return self.add(Op::MatMul, &[x, plain]);
        }
        let trains = self.trains(weight, Kind::Weight);
        let w = if trains { self.moved(weight, plain)? } else { plain };
        let log = levels.and_then(|levels| levels.log);
        if let Some(log) = log {
            let column = self.add(Op::Reshape(Shape::fixed(&[weight.tensor.sizes()[0], 1])), &[log])?;
            let column = self.add(Op::Unary(Unary::Exp), &[column])?;
            let stored = self.two(Binary::Mul, w, column)?;
            self.becomes(weight, stored);
        } else if trains {
            self.becomes(weight, w);
        }
        // Levels times their worth: a gradient by it then takes no product more.
        self.add(Op::MatMul, &[levels.map_or(x, |levels| levels.worth), w])
    }

    /// A weight and what is learned beside it.
    fn moved(&mut self, weight: &Weight, plain: Value) -> Result<Value, Diagnostic> {
        let &[inputs, outputs] = weight.tensor.sizes() else {
            return Err(Diagnostic::new(&weight.name, "a weight that is no matrix"));
        };
        let units = self.units(weight, inputs, outputs);
        let units = self.numbers(&format!("{}.unit", weight.name), &[outputs], units);
        let delta = match self.recipe.train {
            Train::Lora(rank) => {
                let rank = rank as usize;
                // As Hu et al. 2021: one factor random, the other 0.
                let scale = 1.0 / (inputs as f32).sqrt();
                let start = spread(inputs * rank).map(|x| x * scale).collect();
                let down = self.parameter_from(weight, "down", &[inputs, rank], start);
                let up = self.parameter(weight, "up", &[rank, outputs]);
                self.add(Op::MatMul, &[down, up])?
            }
            Train::Ssa | Train::Thresholds | Train::All => self.parameter(weight, "delta", &[inputs, outputs]),
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
        self.add(Op::Transpose(perm), &[value])
    }

    /// `[heads, tokens, tokens]`: every query's product with every key.
    fn scores(&mut self, q: Value, k: Value, heads: u32) -> Result<Value, Diagnostic> {
        let [q, k] = [q, k].map(|x| self.add(Op::Split { heads }, &[x]));
        let k = self.turned(k?)?;
        self.add(Op::MatMul, &[q?, k])
    }

    fn masked(&mut self, scores: Value) -> Result<Value, Diagnostic> {
        let mask = Op::Causal { keep: Scalar::new(0.0), drop: Scalar::new(MASKED) };
        let mask = self.add(mask, &[])?;
        self.two(Binary::Add, scores, mask)
    }

    fn attention(&mut self, args: &[Value], heads: u32, scale: Scalar) -> Result<Value, Diagnostic> {
        let scores = self.scores(args[0], args[1], heads)?;
        let scale = self.number(scale.get());
        let scores = self.two(Binary::Mul, scores, scale)?;
        let scores = self.masked(scores)?;
        let weights = self.add(Op::Softmax, &[scores])?;
        let v = self.add(Op::Split { heads }, &[args[2]])?;
        let mixed = self.add(Op::MatMul, &[weights, v])?;
        self.add(Op::Merge, &[mixed])
    }

    /// `ssa[ttfs]` as `docs/ir.md` has it, phases and weights rounded; the slope trains.
    fn ttfs(&mut self, args: &[Value], slope: &Weight, heads: u32, phases: u32) -> Result<Value, Diagnostic> {
        let rounded = Training::Level { most: LEVEL_MAX };
        let scores = self.scores(args[0], args[1], heads)?;
        let slope = self.factor(slope)?;
        let slope = self.add(Op::Reshape(Shape::fixed(&[heads as usize, 1, 1])), &[slope])?;
        let scores = self.two(Binary::Mul, scores, slope)?;
        let scores = self.masked(scores)?;
        let most = self.training(Training::Most, &[scores])?;
        let late = self.two(Binary::Sub, most, scores)?;
        let phase = self.training(rounded, &[late])?;
        let fall = self.number(-std::f32::consts::LN_2 / phases as f32);
        let exponent = self.two(Binary::Mul, phase, fall)?;
        let weight = self.add(Op::Unary(Unary::Exp), &[exponent])?;
        let first = self.number(snnc_ir::eval::FIRST_SPIKE_WEIGHT as f32);
        let weight = self.two(Binary::Mul, weight, first)?;
        let weight = self.training(rounded, &[weight])?;
        self.mean(weight, args[2], heads, None)
    }

    /// Values weighed by `[heads, tokens, tokens]`, divided by the weights' sum plus `more`, `[heads]`.
    fn mean(&mut self, weights: Value, v: Value, heads: u32, more: Option<Value>) -> Result<Value, Diagnostic> {
        let v = self.add(Op::Split { heads }, &[v])?;
        let mixed = self.add(Op::MatMul, &[weights, v])?;
        let shape = Shape::new(&[Dim::Fixed(heads), Dim::Tokens, Dim::Fixed(1)]);
        let mut sum = self.training(Training::Sum(shape), &[weights])?;
        if let Some(more) = more {
            let more = self.add(Op::Reshape(Shape::fixed(&[heads as usize, 1, 1])), &[more])?;
            sum = self.two(Binary::Add, sum, more)?;
        }
        let mean = self.two(Binary::Div, mixed, sum)?;
        self.add(Op::Merge, &[mean])
    }
}

/// Whether an embedding reads the constant as well.
fn is_shared(graph: &Graph, weight: Value) -> bool {
    graph.nodes.iter().any(|node| node.op == Op::Embed && node.args[1] == weight)
}

fn root_mean_square(x: impl Iterator<Item = f32>) -> f32 {
    let (count, sum) = x.fold((0u32, 0f64), |(count, sum), x| (count + 1, sum + f64::from(x) * f64::from(x)));
    (sum / f64::from(count.max(1))).sqrt() as f32
}

/// Numbers between -1 and 1, spread evenly (the fractions of multiples of the golden ratio): as good as chance as the start
/// of a factor.
fn spread(count: usize) -> impl Iterator<Item = f32> {
    (1..=count).map(|i| ((i as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0) as f32)
}
