//! Gradients of a loss by parameters, as a graph: reverse mode, one arm an operation.
//!
//! Law: for every operation `y = f(x)` that is smooth, what its arm adds is `c df/dx`, with `c` the gradient of the loss by
//! `y`. Operations that round or jump have a stated stand-in for their derivative (`snnc_ir::training`). The result is a graph
//! of the same stage with an output more for each parameter; nothing is computed here, and what no parameter needs gets no
//! gradient.

use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Perm;
use snnc_ir::op::TrainingOp;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::{Binary, Builder, Curve, Diagnostic, Dim, Graph, Node, Op, Shape, Stage, Tensor, Unary, Value};
use std::sync::Arc;

/// The output that is differentiated.
pub const LOSS: &str = "loss";

/// What the output with the gradient by a weight is called.
///
/// ```
/// assert_eq!(snnc_passes::gradient::gradient_of("w"), "gradient w");
/// ```
pub fn gradient_of(name: &str) -> String {
    format!("gradient {name}")
}

/// The graph with the gradients of its output `loss`, `f32[1]`, by the weights of these names.
///
/// # Errors
/// No such loss or weight; a weight that the loss does not depend on; an operation between them that has no derivative.
pub fn gradient(graph: &Graph, parameters: &[String]) -> Result<Graph, Diagnostics> {
    assert_eq!(graph.stage, Stage::Training, "gradients are of networks in training");
    let loss = graph.output(LOSS).filter(|&loss| graph.ty(loss).shape() == Shape::fixed(&[1]));
    let loss =
        loss.ok_or_else(|| Diagnostics::from(Diagnostic::new("", "the graph has no output `loss` of one number")))?;
    let wanted = parameters.iter().map(|name| weight_named(graph, name)).collect::<Result<Vec<Value>, _>>();
    let wanted = wanted?;
    let needs = dependants(graph, &wanted);
    let mut tape = Tape::copy(graph)?;
    let mut gradients: Vec<Option<Value>> = vec![None; graph.nodes.len()];
    gradients[loss.index()] = Some(tape.one());
    let mut errors = Diagnostics::new();
    for (value, node) in graph.iter().rev().filter(|(value, _)| needs[value.index()]) {
        let Some(c) = gradients[value.index()] else { continue };
        let origin = graph.origin(value);
        for (i, arg) in node.args.iter().enumerate().filter(|(_, arg)| needs[arg.index()]) {
            match tape.at(origin, value).by(node, i, c).and_then(|part| tape.sum(gradients[arg.index()], part)) {
                Ok(sum) => gradients[arg.index()] = sum,
                Err(error) => errors.push(error),
            }
        }
    }
    let mut outputs: Vec<(String, Value)> =
        graph.outputs.iter().map(|(name, value)| (name.clone(), tape.map[value.index()])).collect();
    for (name, value) in parameters.iter().zip(&wanted) {
        match gradients[value.index()] {
            Some(gradient) => outputs.push((gradient_of(name), gradient)),
            None => errors.push(Diagnostic::new(format!("@{name}"), "the loss does not depend on it")),
        }
    }
    if errors.is_empty() { Ok(tape.builder.finish(outputs)) } else { Err(errors) }
}

fn weight_named(graph: &Graph, name: &str) -> Result<Value, Diagnostic> {
    let found = graph.iter().find(|(value, _)| graph.constant(*value).is_some_and(|weight| weight.name == name));
    found.map(|(value, _)| value).ok_or_else(|| Diagnostic::new(format!("@{name}"), "there is no weight of this name"))
}

/// Whether a value depends on any of `sources`.
fn dependants(graph: &Graph, sources: &[Value]) -> Vec<bool> {
    let mut needs = vec![false; graph.nodes.len()];
    sources.iter().for_each(|source| needs[source.index()] = true);
    for (value, node) in graph.iter() {
        needs[value.index()] |= node.args.iter().any(|arg| needs[arg.index()]);
    }
    needs
}

/// The graph with its gradients in the making.
struct Tape {
    builder: Builder,
    /// By value of the graph.
    map: Vec<Value>,
    /// Of the operation whose gradient is being made.
    origin: NodeOrigin,
    /// Its result.
    result: Value,
}

impl Tape {
    fn copy(graph: &Graph) -> Result<Self, Diagnostic> {
        let mut builder = Builder::new(Stage::Training, graph.context);
        let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
        for (value, node) in graph.iter() {
            let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
            map.push(match node.op {
                Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
                op => builder.add(op, &args, graph.origin(value))?,
            });
        }
        Ok(Self { builder, map, origin: NodeOrigin::default(), result: Value(0) })
    }

    /// The gradient of the loss by itself.
    fn one(&mut self) -> Value {
        self.builder.weight("one", Arc::new(Tensor::f32(&[1], vec![1.0])))
    }

    fn at(&mut self, origin: &NodeOrigin, result: Value) -> &mut Self {
        self.origin = origin.clone();
        self.result = self.map[result.index()];
        self
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Result<Value, Diagnostic> {
        self.builder.add(op, args, &self.origin)
    }

    fn training(&mut self, op: TrainingOp, args: &[Value]) -> Result<Value, Diagnostic> {
        self.add(Op::Training(op), args)
    }

    fn mul(&mut self, a: Value, b: Value) -> Result<Value, Diagnostic> {
        self.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[a, b])
    }

    fn neg(&mut self, a: Value) -> Result<Value, Diagnostic> {
        self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[a])
    }

    fn shape(&self, value: Value) -> Shape {
        self.builder.ty(value).shape()
    }

    /// What broadcasting has spread is summed, so that `c` has the shape of `like`.
    fn reduce(&mut self, c: Value, like: Value) -> Result<Value, Diagnostic> {
        let shape = self.shape(like);
        if self.shape(c) == shape { Ok(c) } else { self.training(TrainingOp::ReduceSum(shape), &[c]) }
    }

    fn sum(&mut self, known: Option<Value>, part: Option<Value>) -> Result<Option<Value>, Diagnostic> {
        match (known, part) {
            (Some(a), Some(b)) => self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[a, b]).map(Some),
            (known, part) => Ok(known.or(part)),
        }
    }

    /// The matrix with its last two axes exchanged.
    fn turned(&mut self, value: Value) -> Result<Value, Diagnostic> {
        let rank = self.shape(value).rank();
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        let Some(perm) = Perm::new(&axes) else { unreachable!("an exchange is a permutation") };
        self.add(Op::Array(ArrayOp::Transpose(perm)), &[value])
    }

    /// The gradient of the loss by operand `i` of `node`, given that by its result; `None` where it is 0 by definition.
    fn by(&mut self, node: &Node, i: usize, c: Value) -> Result<Option<Value>, Diagnostic> {
        let args: Vec<Value> = node.args.iter().map(|arg| self.map[arg.index()]).collect();
        let (y, x) = (self.result, args[i]);
        let made = match node.op {
            Op::Array(ArrayOp::Unary(Unary::Neg)) => self.neg(c),
            Op::Array(ArrayOp::Unary(Unary::Exp)) => self.mul(c, y),
            Op::Array(ArrayOp::Binary(Binary::Add)) => self.reduce(c, x),
            Op::Array(ArrayOp::Binary(Binary::Sub)) => match (i, self.reduce(c, x)?) {
                (0, part) => Ok(part),
                (_, part) => self.neg(part),
            },
            Op::Array(ArrayOp::Binary(Binary::Mul)) => {
                let part = self.mul(c, args[1 - i])?;
                self.reduce(part, x)
            }
            Op::Array(ArrayOp::Binary(Binary::Div)) => {
                let share = self.add(Op::Array(ArrayOp::Binary(Binary::Div)), &[c, args[1]])?;
                if i == 0 {
                    return self.reduce(share, x).map(Some);
                }
                let part = self.mul(share, y)?;
                let part = self.reduce(part, x)?;
                self.neg(part)
            }
            Op::Array(ArrayOp::MatMul) => {
                let other = self.turned(args[1 - i])?;
                let part = self.add(Op::Array(ArrayOp::MatMul), &if i == 0 { [c, other] } else { [other, c] })?;
                self.reduce(part, x)
            }
            Op::Array(ArrayOp::Transpose(perm)) => {
                let mut inverse = vec![0; perm.axes().len()];
                perm.axes().iter().enumerate().for_each(|(to, &from)| inverse[usize::from(from)] = to);
                let Some(inverse) = Perm::new(&inverse) else { unreachable!("permutations have inverses") };
                self.add(Op::Array(ArrayOp::Transpose(inverse)), &[c])
            }
            Op::Array(ArrayOp::Reshape(_)) => {
                let shape = self.shape(x);
                self.add(Op::Array(ArrayOp::Reshape(shape)), &[c])
            }
            Op::Array(ArrayOp::Softmax) => self.by_softmax(y, c),
            Op::Array(ArrayOp::SplitHeads { .. }) => self.add(Op::Array(ArrayOp::MergeHeads), &[c]),
            Op::Array(ArrayOp::MergeHeads) => match self.shape(x).dims() {
                [Dim::Fixed(heads), ..] => self.add(Op::Array(ArrayOp::SplitHeads { heads: *heads }), &[c]),
                _ => unreachable!("checked by infer"),
            },
            Op::Dense(DenseOp::Embed) => match (i, self.shape(x).dims()) {
                (1, [Dim::Fixed(rows), _]) => self.training(TrainingOp::EmbedGrad { rows: *rows }, &[args[0], c]),
                _ => return Ok(None),
            },
            // Both are symmetric matrices.
            Op::Dense(DenseOp::Centre | DenseOp::Hadamard(_)) => self.add(node.op, &[c]),
            Op::Dense(DenseOp::Rotary { .. }) if i == 0 => {
                let back = self.turned_back(args[1])?;
                self.add(node.op, &[c, back])
            }
            // Nothing flows into the row at a start.
            Op::Dense(DenseOp::AtStart) if i == 0 => self.by_start(&args, c),
            Op::Dense(DenseOp::AtStart) => return Ok(None),
            // How positions turn is a constant of the network.
            Op::Dense(DenseOp::Rotary { .. }) => return Ok(None),
            Op::Dense(DenseOp::Gated(curve)) => self.by_gate(curve, &args, i, c),
            Op::Dense(DenseOp::RmsNorm { eps, heads }) => {
                self.training(TrainingOp::RmsNormGrad { eps, heads }, &[x, c])
            }
            Op::Dense(DenseOp::Curve(curve)) => {
                let slope = self.training(TrainingOp::CurveSlope(curve), &[x])?;
                self.mul(c, slope)
            }
            Op::Level(LevelOp::ScaleShift) => self.by_scale_shift(&args, i, c),
            Op::Level(LevelOp::RowMaxAbs { .. }) => self.training(TrainingOp::RowMaxAbsGrad, &[x, c]),
            Op::Level(LevelOp::GatherChannels) => {
                let width = self.shape(x).width().unwrap_or(0) as u32;
                self.training(TrainingOp::GatherChannelsGrad { width }, &[c, args[1]])
            }
            Op::Training(op) => return self.by_training(op, &args, i, c),
            // Illegal in this stage, or without operands, or of integers.
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) => Err(self.none(node.op)),
        };
        made.map(Some)
    }

    /// Of the gate: the curve's slope times the factor; of the factor: the curve.
    fn by_gate(&mut self, curve: Curve, args: &[Value], i: usize, c: Value) -> Result<Value, Diagnostic> {
        let factor = match i {
            0 => {
                let slope = self.training(TrainingOp::CurveSlope(curve), &args[..1])?;
                self.mul(slope, args[1])?
            }
            _ => self.add(Op::Dense(DenseOp::Curve(curve)), &args[..1])?,
        };
        self.mul(c, factor)
    }

    /// Of the rows that are no constants.
    fn by_start(&mut self, args: &[Value], c: Value) -> Result<Value, Diagnostic> {
        let sizes = self.shape(args[3]).sizes().unwrap_or_default();
        let zeros = Tensor::f32(&sizes, vec![0.0; sizes.iter().product()]);
        let none = self.builder.weight("no gradient", Arc::new(zeros));
        self.add(Op::Dense(DenseOp::AtStart), &[c, args[1], args[2], none])
    }

    /// Of the value: the gain; of the gain: the value, summed over tokens; of the offset: the sum alone.
    fn by_scale_shift(&mut self, args: &[Value], i: usize, c: Value) -> Result<Value, Diagnostic> {
        match i {
            0 => self.mul(c, args[1]),
            1 => {
                let part = self.mul(c, args[0])?;
                self.reduce(part, args[1])
            }
            _ => self.reduce(c, args[2]),
        }
    }

    /// Cosines as they are, and sines with the other sign: the rotation the other way.
    fn turned_back(&mut self, turns: Value) -> Result<Value, Diagnostic> {
        let width = self.shape(turns).width().unwrap_or(0);
        let signs = (0..width).map(|i| if i < width / 2 { 1.0 } else { -1.0 }).collect();
        let signs = self.builder.weight(&format!("{width} signs"), Arc::new(Tensor::f32(&[width], signs)));
        self.mul(turns, signs)
    }

    /// `y (c - sum(c y))`, row by row.
    fn by_softmax(&mut self, y: Value, c: Value) -> Result<Value, Diagnostic> {
        let product = self.mul(c, y)?;
        let mut dims = self.shape(y).dims().to_vec();
        if let Some(inner) = dims.last_mut() {
            *inner = Dim::Fixed(1);
        }
        let sum = self.training(TrainingOp::ReduceSum(Shape::new(&dims)), &[product])?;
        let rest = self.add(Op::Array(ArrayOp::Binary(Binary::Sub)), &[c, sum])?;
        self.mul(y, rest)
    }

    fn by_training(&mut self, op: TrainingOp, args: &[Value], i: usize, c: Value) -> Result<Option<Value>, Diagnostic> {
        let x = args[i];
        let made = match op {
            TrainingOp::ReduceSum(_) => {
                let shape = self.shape(x);
                self.training(TrainingOp::BroadcastTo(shape), &[c])
            }
            TrainingOp::BroadcastTo(_) => self.reduce(c, x),
            TrainingOp::FakeQuant { most } => self.training(TrainingOp::FakeQuantGrad { most }, &[x, c]),
            TrainingOp::Floor => Ok(c),
            TrainingOp::Clamp { least, most } => self.training(TrainingOp::ClampGrad { least, most }, &[x, c]),
            TrainingOp::Step(kind) => {
                let slope = self.training(TrainingOp::Surrogate(kind), &[x])?;
                self.mul(c, slope)
            }
            TrainingOp::Divergence if i == 0 => self.training(TrainingOp::DivergenceGrad, &[x, args[1], c]),
            TrainingOp::CrossEntropy if i == 0 => self.training(TrainingOp::CrossEntropyGrad, &[x, args[1], c]),
            TrainingOp::StopGradient | TrainingOp::RowMax | TrainingOp::TopKMask { .. } => return Ok(None),
            TrainingOp::DecayMask => self.training(TrainingOp::DecayMaskGrad, &[x, c]),
            TrainingOp::Divergence | TrainingOp::CrossEntropy => Err(Diagnostic::new(
                &self.origin,
                format!("what `{op}` compares with is taken to be a constant: no parameter may lead to it"),
            )),
            // What this pass makes.
            TrainingOp::Targets
            | TrainingOp::FakeQuantGrad { .. }
            | TrainingOp::ClampGrad { .. }
            | TrainingOp::Surrogate(_)
            | TrainingOp::CurveSlope(_)
            | TrainingOp::RmsNormGrad { .. }
            | TrainingOp::RowMaxAbsGrad
            | TrainingOp::GatherChannelsGrad { .. }
            | TrainingOp::EmbedGrad { .. }
            | TrainingOp::DecayMaskGrad
            | TrainingOp::DivergenceGrad
            | TrainingOp::CrossEntropyGrad => Err(self.none(Op::Training(op))),
        };
        made.map(Some)
    }

    fn none(&self, op: Op) -> Diagnostic {
        Diagnostic::new(&self.origin, format!("`{op}` has no derivative here"))
    }
}

#[cfg(test)]
mod tests;
