//! The plan of a network in training: what is done once, what in every run, and where each value lies.
//!
//! A value has a buffer from the step that makes it to the last that reads it; buffers of one length are used again. What
//! only exchanges axes is no step where products read it: they walk over any strides. What depends on neither tokens nor
//! parameters is done once.

use crate::jit::dense_curve;
use crate::kernels::{Axis, Map, Zip};
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::training::{Surrogate, TrainingOp};
use snnc_ir::{Binary, Diagnostic, Elem, Graph, Op, Unary, Value};

/// Where numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A buffer of this plan.
    Buffer(usize),
    /// The constant that a value is.
    Constant(Value),
    /// A parameter, by its place in the list of them.
    Parameter(usize),
    Tokens,
    Positions,
    Targets,
}

/// A value as it lies: sizes, and how far apart elements are along each axis.
#[derive(Clone, Debug)]
pub struct View {
    pub source: Source,
    pub sizes: Vec<usize>,
    pub steps: Vec<usize>,
}

impl View {
    fn whole(source: Source, sizes: Vec<usize>) -> Self {
        let steps = steps_of(&sizes);
        Self { source, sizes, steps }
    }

    fn is_whole(&self) -> bool {
        let usual = steps_of(&self.sizes);
        self.sizes.iter().zip(&self.steps).zip(&usual).all(|((&size, step), usual)| size == 1 || step == usual)
    }

    pub fn len(&self) -> usize {
        self.sizes.iter().product()
    }
}

fn steps_of(sizes: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; sizes.len()];
    for axis in (0..sizes.len().saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * sizes[axis + 1];
    }
    steps
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Work {
    Map(Map),
    Zip(Zip, Vec<Axis>),
    Sum(Vec<Axis>),
    /// Copies an operand into its usual order, or spreads it.
    Lay(Vec<Axis>),
    MatMul,
    Affine,
    Softmax,
    Most,
    Winners {
        keys: usize,
    },
    Causal {
        keep: f32,
        drop: f32,
    },
    Normalise {
        eps: f32,
    },
    NormaliseBack {
        eps: f32,
    },
    Peak,
    PeakBack,
    Pick,
    Spread,
    Embed,
    Scatter,
    Recency,
    RecencyBack,
    Divergence,
    DivergenceBack,
    CrossEntropy,
    CrossEntropyBack,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub node: Value,
    pub work: Work,
    pub inputs: Vec<View>,
    pub out: usize,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// Done once.
    pub first: Vec<Step>,
    /// Done in every run.
    pub every: Vec<Step>,
    /// Lengths of buffers.
    pub buffers: Vec<usize>,
    /// By output of the graph.
    pub outputs: Vec<View>,
}

impl Plan {
    /// # Errors
    /// An operation that is not of this stage.
    pub fn new(graph: &Graph, tokens: usize, parameters: &[String]) -> Result<Self, Diagnostic> {
        let mut planner = Planner::new(graph, tokens, parameters);
        for (value, _) in graph.iter() {
            planner.visit(value)?;
        }
        Ok(planner.finish())
    }
}

struct Planner<'g> {
    graph: &'g Graph,
    tokens: usize,
    parameters: &'g [String],
    views: Vec<Option<View>>,
    /// Whether a value changes from run to run.
    changes: Vec<bool>,
    /// Whether all who read a value walk over any strides.
    only_products: Vec<bool>,
    /// Buffers before they share memory: length, last reader, whether it is kept for ever.
    buffers: Vec<(usize, usize, bool)>,
    steps: Vec<(Step, bool)>,
}

impl<'g> Planner<'g> {
    fn new(graph: &'g Graph, tokens: usize, parameters: &'g [String]) -> Self {
        let mut only_products = vec![true; graph.nodes.len()];
        for node in &graph.nodes {
            let any = matches!(
                node.op,
                Op::Array(ArrayOp::MatMul)
                    | Op::Array(ArrayOp::Transpose(_))
                    | Op::Array(ArrayOp::SplitHeads { .. })
                    | Op::Array(ArrayOp::MergeHeads)
            );
            node.args.iter().for_each(|arg| only_products[arg.index()] &= any);
        }
        graph.outputs.iter().for_each(|(_, value)| only_products[value.index()] = false);
        Self {
            graph,
            tokens,
            parameters,
            views: vec![None; graph.nodes.len()],
            changes: vec![false; graph.nodes.len()],
            only_products,
            buffers: Vec::new(),
            steps: Vec::new(),
        }
    }

    fn sizes(&self, value: Value) -> Vec<usize> {
        self.graph.ty(value).shape().concrete(self.tokens, 0)
    }

    fn view(&self, value: Value) -> View {
        self.views[value.index()].clone().unwrap_or_else(|| unreachable!("operands come before users"))
    }

    fn visit(&mut self, at: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(at);
        let args = &node.args;
        self.changes[at.index()] = args.iter().any(|arg| self.changes[arg.index()]);
        let sizes = self.sizes(at);
        let leaf = |source| View::whole(source, sizes.clone());
        let view = match node.op {
            Op::Leaf(LeafOp::Tokens) => {
                self.changes[at.index()] = true;
                leaf(Source::Tokens)
            }
            Op::Training(TrainingOp::Targets) => {
                self.changes[at.index()] = true;
                leaf(Source::Targets)
            }
            Op::Leaf(LeafOp::Positions) => leaf(Source::Positions),
            Op::Leaf(LeafOp::Weight(id)) => {
                let name = &self.graph.weight(id).name;
                match self.parameters.iter().position(|parameter| parameter == name) {
                    Some(i) => {
                        self.changes[at.index()] = true;
                        leaf(Source::Parameter(i))
                    }
                    None => leaf(Source::Constant(at)),
                }
            }
            Op::Array(ArrayOp::Reshape(_)) => {
                let inner = self.whole(args[0]);
                View::whole(inner.source, self.sizes(at))
            }
            Op::Training(TrainingOp::StopGradient) => self.view(args[0]),
            Op::Array(ArrayOp::Transpose(perm)) => {
                let view = self.view(args[0]);
                let turned = |all: &[usize]| perm.axes().iter().map(|&axis| all[usize::from(axis)]).collect();
                self.laid(at, View { source: view.source, sizes: turned(&view.sizes), steps: turned(&view.steps) })
            }
            Op::Array(ArrayOp::SplitHeads { heads }) => {
                let view = self.view(args[0]);
                let (heads, [n, d]) = (heads as usize, [view.sizes[0], view.sizes[1]]);
                let [row, column] = [view.steps[0], view.steps[1]];
                let (sizes, steps) = (vec![heads, n, d / heads], vec![d / heads * column, row, column]);
                self.laid(at, View { source: view.source, sizes, steps })
            }
            Op::Array(ArrayOp::MergeHeads) => {
                let view = self.view(args[0]);
                let order = |all: &[usize]| vec![all[1], all[0], all[2]];
                let (sizes, steps) = (order(&view.sizes), order(&view.steps));
                let out = self.lay(at, &View { source: view.source, sizes, steps });
                View::whole(out.source, self.sizes(at))
            }
            op => {
                let work = self.work(at, op)?;
                self.step(at, work)
            }
        };
        self.views[at.index()] = Some(view);
        Ok(())
    }

    /// The view itself where only products read it, else a copy in the usual order.
    fn laid(&mut self, at: Value, view: View) -> View {
        if view.is_whole() || self.only_products[at.index()] { view } else { self.lay(at, &view) }
    }

    fn lay(&mut self, at: Value, view: &View) -> View {
        let axes = axes(&view.sizes, &view.steps, &steps_of(&view.sizes));
        let out = self.buffer(view.len(), self.changes[at.index()]);
        self.push(Step { node: at, work: Work::Lay(axes), inputs: vec![view.clone()], out }, self.changes[at.index()]);
        View::whole(Source::Buffer(out), view.sizes.clone())
    }

    /// The operand in its usual order.
    fn whole(&mut self, arg: Value) -> View {
        let view = self.view(arg);
        if view.is_whole() {
            return view;
        }
        let laid = self.lay(arg, &view);
        self.views[arg.index()] = Some(laid.clone());
        laid
    }

    fn step(&mut self, at: Value, work: Work) -> View {
        let any = matches!(work, Work::MatMul);
        let args = self.graph.node(at).args.clone();
        let inputs = args.iter().map(|&arg| if any { self.view(arg) } else { self.whole(arg) }).collect();
        let sizes = self.sizes(at);
        let out = self.buffer(sizes.iter().product(), self.changes[at.index()]);
        self.push(Step { node: at, work, inputs, out }, self.changes[at.index()]);
        View::whole(Source::Buffer(out), sizes)
    }

    fn work(&self, at: Value, op: Op) -> Result<Work, Diagnostic> {
        let args = &self.graph.node(at).args;
        let sizes = self.sizes(at);
        let zip = |kind| {
            let steps = |i: usize| spread_steps(&self.sizes(args[i]), &sizes);
            Work::Zip(kind, axes(&sizes, &steps(0), &steps(1)))
        };
        Ok(match op {
            Op::Array(ArrayOp::Unary(Unary::Neg)) => Work::Map(Map::Neg),
            Op::Array(ArrayOp::Unary(Unary::Exp)) => Work::Map(Map::Exp),
            Op::Array(ArrayOp::Binary(Binary::Add)) => zip(Zip::Add),
            Op::Array(ArrayOp::Binary(Binary::Sub)) => zip(Zip::Sub),
            Op::Array(ArrayOp::Binary(Binary::Mul)) => zip(Zip::Mul),
            Op::Array(ArrayOp::Binary(Binary::Div)) => zip(Zip::Div),
            Op::Array(ArrayOp::CausalMask { keep, drop }) => Work::Causal { keep: keep.get(), drop: drop.get() },
            Op::Array(ArrayOp::MatMul) => Work::MatMul,
            Op::Array(ArrayOp::Softmax) => Work::Softmax,
            Op::Dense(DenseOp::Embed) if self.graph.ty(args[1]).elem() == Some(Elem::F32) => Work::Embed,
            Op::Dense(DenseOp::LayerNormNoGain { eps }) => Work::Normalise { eps: eps.get() },
            Op::Dense(DenseOp::Curve(kind)) => Work::Map(Map::Curve(dense_curve(kind))),
            Op::Level(LevelOp::ScaleShift) => Work::Affine,
            Op::Level(LevelOp::RowMaxAbs) => Work::Peak,
            Op::Level(LevelOp::GatherChannels) => Work::Pick,
            Op::Training(op) => match op {
                TrainingOp::ReduceSum(_) => {
                    let from = self.sizes(args[0]);
                    Work::Sum(axes(&from, &steps_of(&from), &spread_steps(&sizes, &from)))
                }
                TrainingOp::BroadcastTo(_) => {
                    Work::Lay(axes(&sizes, &spread_steps(&self.sizes(args[0]), &sizes), &steps_of(&sizes)))
                }
                TrainingOp::FakeQuant { most } => Work::Map(Map::Level(most as f32)),
                TrainingOp::FakeQuantGrad { most } => zip(Zip::Within(most as f32 + 0.5)),
                TrainingOp::Step(_) => Work::Map(Map::Step),
                TrainingOp::Surrogate(kind) => Work::Map(match kind {
                    Surrogate::Arctan => Map::Arctan,
                    Surrogate::FastSigmoid => Map::FastSigmoid,
                    Surrogate::Triangle => Map::Triangle,
                    Surrogate::Rectangle => Map::Rectangle,
                }),
                TrainingOp::CurveSlope(kind) => Work::Map(Map::Slope(dense_curve(kind))),
                TrainingOp::RowMax => Work::Most,
                TrainingOp::TopKMask { keys } => Work::Winners { keys: keys as usize },
                TrainingOp::LayerNormNoGainGrad { eps } => Work::NormaliseBack { eps: eps.get() },
                TrainingOp::RowMaxAbsGrad => Work::PeakBack,
                TrainingOp::GatherChannelsGrad { .. } => Work::Spread,
                TrainingOp::EmbedGrad { .. } => Work::Scatter,
                TrainingOp::DecayMask => Work::Recency,
                TrainingOp::DecayMaskGrad => Work::RecencyBack,
                TrainingOp::Divergence => Work::Divergence,
                TrainingOp::DivergenceGrad => Work::DivergenceBack,
                TrainingOp::CrossEntropy => Work::CrossEntropy,
                TrainingOp::CrossEntropyGrad => Work::CrossEntropyBack,
                TrainingOp::Targets | TrainingOp::StopGradient => unreachable!("no step makes it"),
            },
            other => {
                let message = format!("`{other}` is not run in training");
                return Err(Diagnostic::new(self.graph.origin(at), message));
            }
        })
    }

    fn buffer(&mut self, len: usize, changes: bool) -> usize {
        self.buffers.push((len, self.steps.len(), !changes));
        self.buffers.len() - 1
    }

    fn push(&mut self, step: Step, changes: bool) {
        let now = self.steps.len();
        for input in &step.inputs {
            if let Source::Buffer(buffer) = input.source {
                self.buffers[buffer].1 = now;
            }
        }
        self.steps.push((step, changes));
    }

    /// Gives every value memory: the first buffer of its length that nobody reads any more.
    fn finish(mut self) -> Plan {
        let outputs: Vec<View> = self.graph.outputs.iter().map(|(_, value)| self.view(*value)).collect();
        for view in &outputs {
            if let Source::Buffer(buffer) = view.source {
                self.buffers[buffer].2 = true;
            }
        }
        let mut memory: Vec<(usize, usize)> = Vec::new();
        let mut place = vec![usize::MAX; self.buffers.len()];
        for (now, (step, _)) in self.steps.iter().enumerate() {
            let (len, dies, kept) = self.buffers[step.out];
            let dies = if kept { usize::MAX } else { dies };
            let free = if kept { None } else { memory.iter().position(|&(own, until)| own == len && until < now) };
            place[step.out] = free.unwrap_or_else(|| {
                memory.push((len, 0));
                memory.len() - 1
            });
            memory[place[step.out]].1 = dies;
        }
        let moved = |mut view: View| {
            if let Source::Buffer(buffer) = &mut view.source {
                *buffer = place[*buffer];
            }
            view
        };
        let (mut first, mut every) = (Vec::new(), Vec::new());
        for (mut step, changes) in self.steps {
            step.out = place[step.out];
            step.inputs = step.inputs.into_iter().map(moved).collect();
            if changes { every.push(step) } else { first.push(step) }
        }
        let buffers = memory.into_iter().map(|(len, _)| len).collect();
        Plan { first, every, buffers, outputs: outputs.into_iter().map(moved).collect() }
    }
}

/// Steps of `own` seen as `sizes`: 0 where it is spread.
fn spread_steps(own: &[usize], sizes: &[usize]) -> Vec<usize> {
    let usual = steps_of(own);
    let missing = sizes.len() - own.len();
    let step = |axis: usize| if axis < missing || own[axis - missing] == 1 { 0 } else { usual[axis - missing] };
    (0..sizes.len()).map(step).collect()
}

/// Axes of a walk over two operands, neighbours that are walked as one joined.
fn axes(sizes: &[usize], a: &[usize], b: &[usize]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = Vec::new();
    for ((&size, &a), &b) in sizes.iter().zip(a).zip(b).filter(|((size, _), _)| **size != 1) {
        match axes.last_mut() {
            Some((outer, [outer_a, outer_b])) if *outer_a == a * size && *outer_b == b * size => {
                *outer *= size;
                (*outer_a, *outer_b) = (a, b);
            }
            _ => axes.push((size, [a, b])),
        }
    }
    if axes.is_empty() {
        axes.push((1, [1, 1]));
    }
    axes
}
