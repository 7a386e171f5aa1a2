//! The plan of a network in training: what is done once, what in every run, and where each value lies.
//!
//! A value lives from the step that makes it to the last that reads it; values that do not live at once share memory of one
//! arena, as in inference (`liveness`). What only exchanges axes is no step where products read it: they take any strides. What depends on neither tokens nor
//! parameters is done once.

use super::joining::joined;
use super::products::{GradientProducts, LevelWeight, exact_in_bf16, rounded_once};
use super::recompute::{ForwardLife, PARTS, kept};
use super::steps::{ChangesWith, PlannedStep, StridedView, TrainingStep, TrainingStepKind, ValueSource, steps_of};
use crate::kernels::{Axis, Formula, FormulaOperand, FormulaStep};
use crate::kernels::{Kernels, Map, StridedMatrix, Zip};
use crate::liveness::{Lifetime, allocate};
use snnc_ir::ErrorCode;
use snnc_ir::hadamard::HadamardMatrix;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::op::{Surrogate, TrainingOp};
use snnc_ir::{Binary, Diagnostic, Elem, Graph, Op, Tensor, Unary, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Values begin at multiples of this, so that a vector load meets one cache line: 64 bytes.
const ALIGN: usize = 16;

/// What a plan may choose; only `GradientProducts::Bf16` changes results.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// How products of the backward pass are computed.
    pub products: GradientProducts,
    /// Bytes of values above which values of the forward pass are computed again for the backward pass, where that takes less memory.
    pub recompute_above: u64,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { products: GradientProducts::F32, recompute_above: u64::MAX }
    }
}

#[derive(Clone, Debug)]
pub struct TrainingPlan {
    /// Done once.
    pub first: Vec<TrainingStep>,
    /// Done where parameters have changed.
    pub renewed: Vec<TrainingStep>,
    /// Done in every run.
    pub every: Vec<TrainingStep>,
    /// How many of these the first output, the loss, takes.
    pub until_loss: usize,
    /// Numbers of the arena.
    pub arena_len: usize,
    /// By output of the graph.
    pub outputs: Vec<StridedView>,
    /// The constants that steps read as they are. Others are in the steps themselves, as bytes or rounded.
    pub constants: HashMap<Value, Arc<Tensor>>,
}

impl TrainingPlan {
    /// # Errors
    /// An operation that is not of this stage.
    pub fn new(
        graph: &Graph,
        tokens: usize,
        parameters: &[String],
        kernels: Kernels,
        options: PlanOptions,
    ) -> Result<Self, Diagnostic> {
        let plan = |kept: &[bool]| TrainingPlanner::new(graph, tokens, parameters).planned(kept);
        let mut best = plan(&[])?;
        if (size_of::<f32>() * best.arena_len) as u64 > options.recompute_above {
            let lives = best.forward_lives();
            for parts in PARTS {
                let found = plan(&kept(graph.nodes.len(), &lives, parts))?;
                best = if found.arena_len < best.arena_len { found } else { best };
            }
        }
        Ok(best.with_products(graph, parameters, kernels, options.products))
    }

    /// Steps of the forward pass are made products of integers where they are such, those of the backward pass products of rounded
    /// operands where that is asked for.
    fn with_products(
        mut self,
        graph: &Graph,
        parameters: &[String],
        kernels: Kernels,
        products: GradientProducts,
    ) -> Self {
        let loss = graph.outputs.first().map(|(_, value)| *value);
        let exact = kernels.isa().bf16_unit();
        // A value that is computed twice is computed in the same way.
        let mut forward: HashMap<Value, TrainingStepKind> = HashMap::new();
        for step in self.first.iter_mut().chain(&mut self.renewed).chain(&mut self.every) {
            let TrainingStepKind::MatMul = step.kind else { continue };
            if Some(step.node) <= loss {
                let kind = forward.entry(step.node).or_insert_with(|| {
                    let levels = LevelWeight::of(graph, step.node, parameters);
                    let rounded = exact.filter(|_| exact_in_bf16(graph, step.node));
                    let levels = levels.map(|weight| TrainingStepKind::LevelProduct(Arc::new(weight)));
                    let rounded = rounded.map(|unit| TrainingStepKind::RoundedProduct(unit, None));
                    levels.or(rounded).unwrap_or(TrainingStepKind::MatMul)
                });
                step.kind = kind.clone();
            } else if let GradientProducts::Bf16(unit) = products {
                let weight = constant_matrix(graph, &step.inputs[1]).map(|w| rounded_once(kernels, w));
                step.kind = TrainingStepKind::RoundedProduct(unit, weight);
            }
        }
        self.constants = self.constants_read(graph);
        self
    }

    fn constants_read(&self, graph: &Graph) -> HashMap<Value, Arc<Tensor>> {
        let steps = self.first.iter().chain(&self.renewed).chain(&self.every);
        let inputs = steps.flat_map(|step| match step.kind {
            TrainingStepKind::LevelProduct(_) | TrainingStepKind::RoundedProduct(_, Some(_)) => &step.inputs[..1],
            _ => &step.inputs,
        });
        let constant = |view: &StridedView| match view.source {
            ValueSource::Constant(value) => Some((value, graph.constant(value)?.tensor.clone())),
            _ => None,
        };
        inputs.chain(&self.outputs).filter_map(constant).collect()
    }

    /// Of each value of the forward pass that changes with the window: the step that makes it, the last of the forward pass that reads
    /// it, and its numbers.
    fn forward_lives(&self) -> Vec<ForwardLife> {
        let steps = &self.every[..self.until_loss];
        let mut lives: Vec<ForwardLife> = Vec::with_capacity(steps.len());
        let mut at: HashMap<usize, usize> = HashMap::new();
        for (now, step) in steps.iter().enumerate() {
            for input in &step.inputs {
                if let ValueSource::Arena(offset) = input.source
                    && let Some(&life) = at.get(&offset)
                {
                    lives[life].dies = now;
                }
            }
            at.insert(step.out.start, lives.len());
            lives.push(ForwardLife { value: step.node, born: now, dies: now, numbers: step.out.len() });
        }
        lives
    }
}

struct TrainingPlanner<'g> {
    graph: &'g Graph,
    tokens: usize,
    parameters: &'g [String],
    views: Vec<Option<StridedView>>,
    /// What a value changes with.
    changes: Vec<ChangesWith>,
    /// Whether all that read a value take any strides.
    only_products: Vec<bool>,
    /// A value's number is the place of its step.
    steps: Vec<PlannedStep>,
    /// Steps so far when the loss was there; what comes later is the backward pass.
    until_loss: Option<usize>,
    /// Values that are computed again where they are read next.
    stale: Vec<bool>,
}

impl<'g> TrainingPlanner<'g> {
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
            changes: vec![ChangesWith::Nothing; graph.nodes.len()],
            only_products,
            steps: Vec::new(),
            until_loss: None,
            stale: vec![false; graph.nodes.len()],
        }
    }

    /// The plan; of `kept`, values of the forward pass that are there in the backward pass, others are computed again. None of them:
    /// nothing is computed twice.
    fn planned(mut self, kept: &[bool]) -> Result<TrainingPlan, Diagnostic> {
        let loss = self.graph.outputs.first().map(|(_, value)| *value);
        for (value, _) in self.graph.iter() {
            self.visit(value)?;
            if Some(value) == loss {
                self.until_loss = Some(self.steps.len());
                for (at, kept) in kept.iter().enumerate() {
                    self.stale[at] = !kept && self.changes[at] == ChangesWith::Window;
                }
            }
        }
        Ok(self.finish())
    }

    fn sizes(&self, value: Value) -> Vec<usize> {
        self.graph.ty(value).shape().concrete(self.tokens, 0)
    }

    fn view(&mut self, value: Value) -> Result<StridedView, Diagnostic> {
        if std::mem::take(&mut self.stale[value.index()]) {
            self.visit(value)?;
        }
        Ok(self.views[value.index()].clone().unwrap_or_else(|| unreachable!("operands come before users")))
    }

    fn visit(&mut self, at: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(at);
        let args = &node.args;
        let all = args.iter().map(|arg| self.changes[arg.index()]);
        self.changes[at.index()] = all.max().unwrap_or(ChangesWith::Nothing);
        let sizes = self.sizes(at);
        let leaf = |source| StridedView::whole(source, sizes.clone());
        let view = match node.op {
            Op::Leaf(LeafOp::Tokens) => {
                self.changes[at.index()] = ChangesWith::Window;
                leaf(ValueSource::Tokens)
            }
            Op::Training(TrainingOp::Targets) => {
                self.changes[at.index()] = ChangesWith::Window;
                leaf(ValueSource::Targets)
            }
            Op::Leaf(LeafOp::Opening) => {
                self.changes[at.index()] = ChangesWith::Window;
                leaf(ValueSource::Opening)
            }
            Op::Leaf(LeafOp::Positions) => leaf(ValueSource::Positions),
            Op::Leaf(LeafOp::Weight(id)) => {
                let name = &self.graph.weight(id).name;
                match self.parameters.iter().position(|parameter| parameter == name) {
                    Some(i) => {
                        self.changes[at.index()] = ChangesWith::Parameters;
                        leaf(ValueSource::Parameter(i))
                    }
                    None => leaf(ValueSource::Constant(at)),
                }
            }
            Op::Array(ArrayOp::Reshape(_)) => {
                let inner = self.whole(args[0])?;
                StridedView::whole(inner.source, self.sizes(at))
            }
            Op::Training(TrainingOp::StopGradient) => self.view(args[0])?,
            Op::Array(ArrayOp::Transpose(perm)) => {
                let view = self.view(args[0])?;
                let permuted = |all: &[usize]| perm.axes().iter().map(|&axis| all[usize::from(axis)]).collect();
                self.laid(
                    at,
                    StridedView { source: view.source, sizes: permuted(&view.sizes), steps: permuted(&view.steps) },
                )
            }
            Op::Array(ArrayOp::SplitHeads { heads }) => {
                let view = self.view(args[0])?;
                let (heads, [n, d]) = (heads as usize, [view.sizes[0], view.sizes[1]]);
                let [row, column] = [view.steps[0], view.steps[1]];
                let (sizes, steps) = (vec![heads, n, d / heads], vec![d / heads * column, row, column]);
                self.laid(at, StridedView { source: view.source, sizes, steps })
            }
            Op::Array(ArrayOp::MergeHeads) => {
                let view = self.view(args[0])?;
                let order = |all: &[usize]| vec![all[1], all[0], all[2]];
                let (sizes, steps) = (order(&view.sizes), order(&view.steps));
                let out = self.lay(at, &StridedView { source: view.source, sizes, steps });
                StridedView::whole(out.source, self.sizes(at))
            }
            op => {
                let kind = self.kind(at, op)?;
                self.step(at, kind)?
            }
        };
        self.views[at.index()] = Some(view);
        Ok(())
    }

    /// The view itself where only products read it, else a copy in the usual order.
    fn laid(&mut self, at: Value, view: StridedView) -> StridedView {
        if view.is_whole() || self.only_products[at.index()] { view } else { self.lay(at, &view) }
    }

    fn lay(&mut self, at: Value, view: &StridedView) -> StridedView {
        let copy = map_of(Map::Copy, &view.sizes, view.steps.clone());
        let out = self.push(at, copy, vec![view.clone()], view.len());
        StridedView::whole(ValueSource::Arena(out), view.sizes.clone())
    }

    /// The operand in its usual order.
    fn whole(&mut self, arg: Value) -> Result<StridedView, Diagnostic> {
        let view = self.view(arg)?;
        if view.is_whole() {
            return Ok(view);
        }
        let laid = self.lay(arg, &view);
        self.views[arg.index()] = Some(laid.clone());
        Ok(laid)
    }

    fn step(&mut self, at: Value, kind: TrainingStepKind) -> Result<StridedView, Diagnostic> {
        let any = matches!(kind, TrainingStepKind::MatMul);
        let args = self.graph.node(at).args.clone();
        let inputs = args.iter().map(|&arg| if any { self.view(arg) } else { self.whole(arg) });
        let inputs = inputs.collect::<Result<Vec<StridedView>, _>>()?;
        let sizes = self.sizes(at);
        let out = self.push(at, kind, inputs, sizes.iter().product());
        Ok(StridedView::whole(ValueSource::Arena(out), sizes))
    }

    fn kind(&self, at: Value, op: Op) -> Result<TrainingStepKind, Diagnostic> {
        let args = &self.graph.node(at).args;
        let sizes = self.sizes(at);
        let steps = |i: usize| spread_steps(&self.sizes(args[i]), &sizes);
        let map = |kind| map_of(kind, &sizes, steps_of(&sizes));
        let zip = |kind| {
            let zip = FormulaStep::Zip(kind, [FormulaOperand::Input(0), FormulaOperand::Input(1)]);
            TrainingStepKind::Formula(Formula::new(&sizes, vec![steps(0), steps(1)], vec![zip]))
        };
        Ok(match op {
            Op::Array(ArrayOp::Unary(Unary::Neg)) => map(Map::Neg),
            Op::Array(ArrayOp::Unary(Unary::Exp)) => map(Map::Exp),
            Op::Array(ArrayOp::Binary(Binary::Add)) => zip(Zip::Add),
            Op::Array(ArrayOp::Binary(Binary::Sub)) => zip(Zip::Sub),
            Op::Array(ArrayOp::Binary(Binary::Mul)) => zip(Zip::Mul),
            Op::Array(ArrayOp::Binary(Binary::Div)) => zip(Zip::Div),
            Op::Array(ArrayOp::CausalMask { keep, drop, window }) => {
                TrainingStepKind::CausalMask { keep: keep.get(), drop: drop.get(), window }
            }
            Op::Array(ArrayOp::MatMul) => TrainingStepKind::MatMul,
            Op::Array(ArrayOp::Softmax) => TrainingStepKind::Softmax,
            Op::Dense(DenseOp::Embed) if self.graph.ty(args[1]).elem() == Some(Elem::F32) => TrainingStepKind::Embed,
            Op::Dense(DenseOp::Centre) => TrainingStepKind::Centre,
            Op::Dense(DenseOp::RmsNorm { eps, heads }) => {
                TrainingStepKind::RmsNorm { eps: eps.get(), heads: heads as usize }
            }
            Op::Dense(DenseOp::Rotary { heads, pairs }) => TrainingStepKind::Rotary { heads: heads as usize, pairs },
            Op::Dense(DenseOp::Hadamard(size)) => TrainingStepKind::Hadamard(HadamardMatrix::of(size)),
            Op::Dense(DenseOp::AtStart) => TrainingStepKind::AtStart,
            Op::Dense(DenseOp::Gated(curve)) => TrainingStepKind::Gated(curve),
            Op::Dense(DenseOp::Curve(kind)) => map(Map::Curve(kind)),
            Op::Level(LevelOp::ScaleShift) => {
                let product = FormulaStep::Zip(Zip::Mul, [FormulaOperand::Input(0), FormulaOperand::Input(1)]);
                let sum = FormulaStep::Zip(Zip::Add, [FormulaOperand::Step(0), FormulaOperand::Input(2)]);
                TrainingStepKind::Formula(Formula::new(&sizes, (0..3).map(steps).collect(), vec![product, sum]))
            }
            Op::Level(LevelOp::RowMaxAbs { .. }) => TrainingStepKind::RowMaxAbs,
            Op::Level(LevelOp::GatherChannels) => TrainingStepKind::GatherChannels,
            Op::Training(op) => match op {
                TrainingOp::ReduceSum(_) => {
                    let from = self.sizes(args[0]);
                    TrainingStepKind::ReduceSum(axes(&from, &steps_of(&from), &spread_steps(&sizes, &from)))
                }
                TrainingOp::BroadcastTo(_) => map_of(Map::Copy, &sizes, steps(0)),
                TrainingOp::FakeQuant { most } => map(Map::FakeQuant(most as f32)),
                TrainingOp::FakeQuantGrad { most } => zip(Zip::FakeQuantGrad(most as f32 + 0.5)),
                TrainingOp::Floor => map(Map::Floor),
                TrainingOp::Clamp { least, most } => map(Map::Clamp(least.get(), most.get())),
                TrainingOp::ClampGrad { least, most } => zip(Zip::ClampGrad(least.get(), most.get())),
                TrainingOp::Step(_) => map(Map::Step),
                TrainingOp::Surrogate(kind) => map(match kind {
                    Surrogate::Arctan => Map::Arctan,
                    Surrogate::FastSigmoid => Map::FastSigmoid,
                    Surrogate::Triangle => Map::Triangle,
                    Surrogate::Rectangle => Map::Rectangle,
                }),
                TrainingOp::CurveSlope(kind) => map(Map::Slope(kind)),
                TrainingOp::RowMax => TrainingStepKind::RowMax,
                TrainingOp::TopKMask { keys } => TrainingStepKind::TopkMask { keys: keys as usize },
                TrainingOp::RmsNormGrad { eps, heads } => {
                    TrainingStepKind::RmsNormGrad { eps: eps.get(), heads: heads as usize }
                }
                TrainingOp::RowMaxAbsGrad => TrainingStepKind::RowMaxAbsGrad,
                TrainingOp::GatherChannelsGrad { .. } => TrainingStepKind::GatherChannelsGrad,
                TrainingOp::EmbedGrad { .. } => TrainingStepKind::EmbedGrad,
                TrainingOp::DecayMask => TrainingStepKind::DecayMask,
                TrainingOp::DecayMaskGrad => TrainingStepKind::DecayMaskGrad,
                TrainingOp::Divergence => TrainingStepKind::Divergence,
                TrainingOp::DivergenceGrad => TrainingStepKind::DivergenceGrad,
                TrainingOp::CrossEntropy => TrainingStepKind::CrossEntropy,
                TrainingOp::CrossEntropyGrad => TrainingStepKind::CrossEntropyGrad,
                TrainingOp::Targets | TrainingOp::StopGradient => unreachable!("no step makes it"),
            },
            other => {
                let message = format!("`{other}` is not run in training");
                return Err(Diagnostic::new(self.graph.origin(at), message).code(ErrorCode::RUN));
            }
        })
    }

    /// Adds a step; its value's number.
    fn push(&mut self, node: Value, kind: TrainingStepKind, inputs: Vec<StridedView>, len: usize) -> usize {
        let now = self.steps.len();
        let changes = self.changes[node.index()];
        let origin = self.graph.origin(node).clone();
        self.steps.push(PlannedStep { step: TrainingStep { node, origin, kind, inputs, out: 0..len }, changes });
        now
    }

    /// Gives every value its place in the arena.
    fn finish(self) -> TrainingPlan {
        let outputs: Vec<StridedView> =
            self.graph.outputs.iter().filter_map(|(_, value)| self.views[value.index()].clone()).collect();
        let steps = joined(self.steps, &outputs);
        let lives = lives(&steps, &outputs);
        let (offsets, arena_len) = allocate(&lives, ALIGN);
        let placed = |mut view: StridedView| {
            if let ValueSource::Arena(value) = &mut view.source {
                *value = offsets[*value];
            }
            view
        };
        let (mut first, mut renewed, mut every) = (Vec::new(), Vec::new(), Vec::new());
        let mut until_loss = 0;
        for (number, planned) in steps.into_iter().enumerate() {
            let Some(PlannedStep { mut step, changes }) = planned else { continue };
            step.out = offsets[number]..offsets[number] + step.out.len();
            step.inputs = step.inputs.into_iter().map(placed).collect();
            match changes {
                ChangesWith::Nothing => first.push(step),
                ChangesWith::Parameters => renewed.push(step),
                ChangesWith::Window => {
                    until_loss += usize::from(self.until_loss.is_none_or(|loss| number < loss));
                    every.push(step);
                }
            }
        }
        TrainingPlan {
            first,
            renewed,
            every,
            until_loss,
            arena_len,
            outputs: outputs.into_iter().map(placed).collect(),
            constants: HashMap::new(),
        }
    }
}

/// By number of a value: when it is made and read last. What is not done in every run is done before all else, and is never overwritten.
fn lives(steps: &[Option<PlannedStep>], outputs: &[StridedView]) -> Vec<Lifetime> {
    let mut lives: Vec<Lifetime> = Vec::with_capacity(steps.len());
    for (now, planned) in steps.iter().enumerate() {
        let inputs = planned.iter().flat_map(|planned| &planned.step.inputs);
        for value in inputs.filter_map(StridedView::value) {
            lives[value].dies = lives[value].dies.max(now);
        }
        let size = planned.as_ref().map_or(0, |planned| planned.step.out.len());
        let always = planned.as_ref().is_some_and(|planned| planned.changes != ChangesWith::Window);
        let (born, dies) = if always { (0, usize::MAX) } else { (now, now) };
        lives.push(Lifetime { size, born, dies });
    }
    for value in outputs.iter().filter_map(StridedView::value) {
        lives[value].dies = usize::MAX;
    }
    lives
}

/// One function of every number.
fn map_of(kind: Map, sizes: &[usize], steps: Vec<usize>) -> TrainingStepKind {
    let map = FormulaStep::Map(kind, FormulaOperand::Input(0));
    TrainingStepKind::Formula(Formula::new(sizes, vec![steps], vec![map]))
}

/// The constant that a view is, where it is a matrix.
fn constant_matrix<'g>(graph: &'g Graph, view: &StridedView) -> Option<StridedMatrix<'g>> {
    let (&[rows, columns], &[step, along]) = (&view.sizes[..], &view.steps[..]) else { return None };
    let ValueSource::Constant(value) = view.source else { return None };
    let data = graph.constant(value)?.tensor.as_f32()?;
    Some(StridedMatrix { data, rows, columns, steps: [step, along] })
}

/// Steps of `own` seen as `sizes`: 0 where it is spread.
fn spread_steps(own: &[usize], sizes: &[usize]) -> Vec<usize> {
    let usual = steps_of(own);
    let missing = sizes.len() - own.len();
    let step = |axis: usize| if axis < missing || own[axis - missing] == 1 { 0 } else { usual[axis - missing] };
    (0..sizes.len()).map(step).collect()
}

/// Axes of a loop over two operands; neighbours that lie as one axis are joined.
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
