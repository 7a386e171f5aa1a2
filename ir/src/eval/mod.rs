//! The meaning of every operation, slow and obvious: the oracle that engines are compared with, bit for bit.
//!
//! Generic over the real number: f32 is what programs mean, with one stated order for every sum; f64 is for checking
//! approximations. Integers are exact. A program's state is the keys and values of its attention operations.

mod arithmetic;
mod training;
mod value;

use crate::curve::Curve;
use crate::diagnostic::{Diagnostic, ErrorCode};
use crate::events::Events;
use crate::finite::{FiniteCheck, checked_operands, not_finite};
use crate::graph::{Graph, Node, Value};
use crate::hadamard::HadamardMatrix;
use crate::membrane::{Membrane, MembraneLayer};
use crate::op::{ArrayOp, DenseOp, Heads, Layout, LeafOp, LevelOp, Op, SpikeOp, opening};
pub use crate::real::Real;
use crate::ssa::meaning::{self, Delays, Recency, Span, phase_weights};
use crate::ssa::{Output, Ssa, StateType};
use crate::stage::Stage;
use crate::tensor::Tensor;
use crate::types::{Code, Type};
pub use arithmetic::{LANES, binary, fired, level, row_sum, spike_events, unary};
use arithmetic::{
    attention, centred, chain, concat, head_linear, matmul, matmul_int, mean_square, rms_norm, row_max_abs, rows,
    slice, softmax, spikes, split_heads, spread, transpose, turned,
};
use std::fmt::Debug;
pub use training::{decay_row, decay_slope, period};
pub use value::{Array, Content};

/// Keys and values seen so far, for every node that keeps state.
#[derive(Clone, Debug, Default)]
pub struct Memory<R> {
    past: usize,
    /// The token that it began with.
    first: Option<u32>,
    /// By node.
    kept: Vec<Option<Cached<R>>>,
}

/// What a node keeps of a sequence.
#[derive(Clone, Debug)]
enum Cached<R> {
    /// Keys and values, `[past, d]` each, row-major; of trains, one such part per timestep. Then the thresholds of both, where tokens
    /// have their own.
    Rows(Vec<Content<R>>),
    /// See `ssa::State`.
    Sums(Vec<i64>),
}

impl<R: Real> Memory<R> {
    /// Nothing seen yet.
    pub fn new(graph: &Graph) -> Self {
        Self { past: 0, first: None, kept: vec![None; graph.nodes.len()] }
    }

    /// A memory of `past` tokens: the keys and values, `[past, d]` each, of every node that keeps state, in the graph's
    /// order. Panics where their number is another one: a precondition of the caller.
    pub fn with_past(graph: &Graph, past: usize, rows: Vec<[Vec<R>; 2]>) -> Self {
        let mut rows = rows.into_iter().map(|both| both.map(Content::Real).into());
        let keeps = |op: &Op| matches!(op, Op::Dense(DenseOp::Attention { .. }));
        let row = |node: &Node| {
            keeps(&node.op).then(|| Cached::Rows(rows.next().expect("keys and values for every attention")))
        };
        let kept = graph.nodes.iter().map(row).collect();
        assert!(rows.next().is_none(), "no more keys and values than attentions");
        Self { past, first: None, kept }
    }

    /// How many tokens were seen.
    pub fn past(&self) -> usize {
        self.past
    }

    /// Forgets all but the first `tokens`. Whether it could: sums cannot be taken back, and stay as they were.
    pub fn shorten(&mut self, tokens: usize) -> bool {
        if tokens >= self.past {
            return true;
        }
        if self.kept.iter().flatten().any(|kept| matches!(kept, Cached::Sums(_))) {
            return false;
        }
        for kept in self.kept.iter_mut().flatten() {
            if let Cached::Rows(both) = kept {
                both.iter_mut().for_each(|rows| rows.shorten(self.past, tokens));
            }
        }
        self.past = tokens;
        true
    }
}

/// Elements of constants that are converted to the evaluator's number once; larger ones are where they are used, so that
/// there are never two copies of a network.
const SMALL_MAX: usize = 1 << 16;

/// A program ready to be evaluated.
#[derive(Debug)]
pub struct Evaluator<'g, R> {
    graph: &'g Graph,
    constants: Vec<Option<Array<R>>>,
    targets: &'g [u32],
    stream: &'g [f32],
}

/// Every value of one call, and what its neurons did.
#[derive(Debug)]
pub struct Evaluation<R> {
    values: Vec<Option<Array<R>>>,
    /// What each node did, by node.
    pub events: Vec<Events>,
}

impl<'g, R: Real> Evaluator<'g, R> {
    /// Makes small constants ready.
    pub fn new(graph: &'g Graph) -> Self {
        let is_small = |tensor: &Tensor| tensor.sizes().iter().product::<usize>() <= SMALL_MAX;
        let small = |value| graph.constant(value).filter(|weight| is_small(&weight.tensor));
        let constants = graph.iter().map(|(value, _)| small(value).map(|weight| Array::from_tensor(&weight.tensor)));
        Self { graph, constants: constants.collect(), targets: &[], stream: &[] }
    }

    /// With the tokens that a graph in training is to predict: one after each of those that it is run on.
    pub fn with_targets(graph: &'g Graph, targets: &'g [u32]) -> Self {
        Self { targets, ..Self::new(graph) }
    }

    /// With the rows that another program hands over, one per token of a call.
    pub fn with_stream(graph: &'g Graph, rows: &'g [f32]) -> Self {
        Self { stream: rows, ..Self::new(graph) }
    }

    /// With other numbers in a constant, of any size.
    pub fn set(&mut self, constant: Value, numbers: Vec<R>) {
        let sizes = self.graph.ty(constant).shape().sizes().unwrap_or_default();
        self.constants[constant.index()] = Some(Array::real(sizes, numbers));
    }

    /// Runs the program on `tokens` after what `memory` has seen, and adds them to it.
    ///
    /// # Errors
    /// A token id outside a table, a sequence longer than the context, a value that is not finite.
    pub fn run(&self, tokens: &[u32], memory: &mut Memory<R>) -> Result<Evaluation<R>, Diagnostic> {
        let done = self.run_wanted(tokens, memory, &|_| 0)?;
        for (_, value) in &self.graph.outputs {
            if let Content::Real(data) = &self.get(&done, *value).content
                && let Some(bad) = data.iter().find(|x| !x.to_f64().is_finite())
            {
                let message = format!("`{}` gave {bad:?}", self.graph.node(*value).op);
                return Err(Diagnostic::new(self.graph.origin(*value), message).code(ErrorCode::RUN));
            }
        }
        Ok(done)
    }

    /// The same for an engine of which some rows are not wanted: of a node's operands, rows before `first(node)` are not checked
    /// to be finite, and outputs are not checked at all.
    ///
    /// # Errors
    /// As of `run`.
    pub fn run_wanted(
        &self,
        tokens: &[u32],
        memory: &mut Memory<R>,
        first: &dyn Fn(Value) -> usize,
    ) -> Result<Evaluation<R>, Diagnostic> {
        let end = memory.past + tokens.len();
        if end > self.graph.context as usize {
            return Err(Diagnostic::new("", format!("{end} tokens do not fit a context of {}", self.graph.context)));
        }
        check_stream(self.graph, tokens, self.stream)?;
        let mut done = Evaluation {
            values: vec![None; self.graph.nodes.len()],
            events: vec![Events::default(); self.graph.nodes.len()],
        };
        for (value, node) in self.graph.iter().filter(|(_, node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_)))) {
            let large = |arg: &Value| match self.constants[arg.index()] {
                Some(_) => None,
                None => self.graph.constant(*arg).map(|weight| Array::from_tensor(&weight.tensor)),
            };
            let constants = node.args.iter().map(large).collect();
            if !self.is_finite_before(&done, value, first(value)) {
                return Err(not_finite(self.graph, value));
            }
            let call = NodeCall {
                evaluator: self,
                constants,
                tokens,
                past: memory.past,
                first: memory.first,
                done: &done,
                at: value,
            };
            let (array, events, state) = call.eval(memory.kept[value.index()].as_ref())?;
            if matches!(self.graph.stage, Stage::Imported | Stage::Training)
                && let Content::Real(data) = &array.content
                && let Some(bad) = data.iter().find(|x| !x.to_f64().is_finite())
                && !matches!(node.op, Op::Array(ArrayOp::CausalMask { .. }))
            {
                let place = self.graph.origin(value);
                return Err(Diagnostic::new(place, format!("`{}` gave {bad:?}", node.op)));
            }
            done.values[value.index()] = Some(array);
            done.events[value.index()] = events;
            if state.is_some() {
                memory.kept[value.index()] = state;
            }
        }
        if memory.past == 0 {
            memory.first = tokens.first().copied();
        }
        memory.past = end;
        Ok(done)
    }

    /// Whether what a node checks is finite, from a row on.
    fn is_finite_before(&self, done: &Evaluation<R>, at: Value, first: usize) -> bool {
        let finite = |x: &R| x.to_f64().is_finite();
        let from = |value: Value| match &self.value(done, value).content {
            Content::Real(data) => {
                let width = self.graph.ty(value).shape().row_width().unwrap_or(data.len());
                (&data[(first * width).min(data.len())..], width)
            }
            Content::Int(_) | Content::Train(_) => (&[][..], 1),
        };
        match FiniteCheck::of(&self.graph.node(at).op) {
            FiniteCheck::Nothing => true,
            FiniteCheck::Operands(_) => checked_operands(self.graph, at).all(|value| from(value).0.iter().all(finite)),
            FiniteCheck::MeanSquare => {
                let (data, width) = from(self.graph.node(at).args[0]);
                let heads = if let Op::Dense(DenseOp::RmsNorm { heads, .. }) = self.graph.node(at).op {
                    heads as usize
                } else {
                    1
                };
                data.chunks_exact((width / heads).max(1)).all(|row| finite(&mean_square(row)))
            }
        }
    }

    fn value<'a>(&'a self, done: &'a Evaluation<R>, value: Value) -> &'a Array<R> {
        match (&self.constants[value.index()], &done.values[value.index()]) {
            (Some(array), _) | (None, Some(array)) => array,
            (None, None) => unreachable!("operands come before users"),
        }
    }

    /// A value of a finished call.
    pub fn get<'a>(&'a self, done: &'a Evaluation<R>, value: Value) -> &'a Array<R> {
        self.value(done, value)
    }
}

/// Whether a program has the rows that it begins with, where it begins with rows of another program: one per token, of finite
/// numbers.
///
/// # Errors
/// There are more or fewer numbers, or one is not finite.
pub fn check_stream(graph: &Graph, tokens: &[u32], rows: &[f32]) -> Result<(), Diagnostic> {
    let width = graph.stream_width().unwrap_or(0);
    let wrong = |message: String| Err(Diagnostic::new("", message).code(ErrorCode::RUN));
    if rows.len() != width * tokens.len() {
        let begins = if width > 0 { "begins behind another program" } else { "begins with tokens alone" };
        let [want, found] = [width * tokens.len(), rows.len()];
        return wrong(format!("the program {begins}: {want} numbers of its stream are needed, here are {found}"));
    }
    match rows.iter().find(|x| !x.is_finite()) {
        Some(bad) => wrong(format!("`stream` gave {bad:?}")),
        None => Ok(()),
    }
}

/// Levels, and what neurons of these levels did.
fn leveled<R: Real>(sizes: Vec<usize>, code: Code, steps: u16, levels: Vec<i32>) -> NodeResult<R> {
    let events = fired(code, steps, &levels);
    (Array::int(sizes, levels), events, None)
}

/// The same as a spike train.
fn emitted<R: Real>(sizes: Vec<usize>, code: Code, steps: u16, levels: &[i32]) -> NodeResult<R> {
    let emit = |t| levels.iter().map(|&level| code.spike(level, t, steps)).collect();
    let train = Content::Train((0..steps).map(emit).collect());
    (Array { sizes, content: train }, fired(code, steps, levels), None)
}

/// What a node gives, what it did, and what it keeps from now on.
type NodeResult<R> = (Array<R>, Events, Option<Cached<R>>);

/// One node of one call.
struct NodeCall<'a, R> {
    evaluator: &'a Evaluator<'a, R>,
    /// Operands that are large constants.
    constants: Vec<Option<Array<R>>>,
    tokens: &'a [u32],
    past: usize,
    first: Option<u32>,
    done: &'a Evaluation<R>,
    at: Value,
}

impl<R: Real> NodeCall<'_, R> {
    fn arg(&self, i: usize) -> &Array<R> {
        if let Some(constant) = &self.constants[i] {
            return constant;
        }
        self.evaluator.value(self.done, self.evaluator.graph.node(self.at).args[i])
    }

    fn arg_type(&self, i: usize) -> Type {
        self.evaluator.graph.ty(self.evaluator.graph.node(self.at).args[i])
    }

    fn sizes(&self) -> Vec<usize> {
        self.evaluator.graph.ty(self.at).shape().concrete(self.tokens.len(), self.past)
    }

    fn eval(&self, state: Option<&Cached<R>>) -> Result<NodeResult<R>, Diagnostic> {
        let sizes = self.sizes();
        let n = self.tokens.len();
        let real = |data: Vec<R>| (Array::real(sizes.clone(), data), Events::default(), None);
        let int = |data: Vec<i32>| (Array::int(sizes.clone(), data), Events::default(), None);
        let op = self.evaluator.graph.node(self.at).op;
        Ok(match op {
            Op::Leaf(LeafOp::Weight(_)) => unreachable!("constants are not run"),
            Op::Leaf(LeafOp::Tokens) => int(self.tokens.iter().map(|&id| id as i32).collect()),
            Op::Leaf(LeafOp::Positions) => int((self.past..self.past + n).map(|i| i as i32).collect()),
            Op::Leaf(LeafOp::Stream(_)) => real(self.evaluator.stream.iter().map(|&x| R::from_f32(x)).collect()),
            Op::Leaf(LeafOp::Opening) => int(opening(self.past, self.first, self.tokens).flatten().collect()),
            Op::Array(ArrayOp::Unary(kind)) => real(self.arg(0).reals().iter().map(|&x| unary(kind, x)).collect()),
            Op::Array(ArrayOp::Binary(kind)) => {
                real(spread(&sizes, &[self.arg(0), self.arg(1)], |x| binary(kind, x[0], x[1])))
            }
            Op::Array(ArrayOp::CausalMask { keep, drop, window }) => {
                let seen = |i: usize, j: usize| j <= i && window.is_none_or(|window| i - j < window as usize);
                let at = |i: usize| if seen(i / n, i % n) { keep.get() } else { drop.get() };
                real((0..n * n).map(|i| R::from_f32(at(i))).collect())
            }
            Op::Array(ArrayOp::Alibi) => {
                let bias = |h: usize, i: usize| {
                    let apart = (i % n) as i32 - (i / n % n) as i32;
                    R::from_i32(apart) * self.arg(1).reals()[h]
                };
                let scores = self.arg(0).reals().iter().enumerate();
                real(scores.map(|(i, &score)| score + bias(i / (n * n), i)).collect())
            }
            Op::Array(ArrayOp::Where) => real(spread(&sizes, &[self.arg(0), self.arg(1), self.arg(2)], |x| {
                if x[0] == R::ZERO { x[2] } else { x[1] }
            })),
            Op::Array(ArrayOp::MatMul) => real(matmul(self.arg(0), self.arg(1), &sizes)),
            Op::Array(ArrayOp::Transpose(perm)) => real(transpose(self.arg(0), perm.axes())),
            Op::Array(ArrayOp::Reshape(_)) => real(self.arg(0).reals().to_vec()),
            Op::Array(ArrayOp::Slice { axis, start, len }) => {
                real(slice(self.arg(0), usize::from(axis), start as usize, len as usize))
            }
            Op::Array(ArrayOp::Concat { axis }) => real(concat(self.arg(0), self.arg(1), usize::from(axis))),
            Op::Array(ArrayOp::Mean) => {
                real(rows(self.arg(0)).map(|row| row_sum(row) / R::from_i32(row.len() as i32)).collect())
            }
            Op::Array(ArrayOp::Softmax) => real(rows(self.arg(0)).flat_map(softmax).collect()),
            Op::Array(ArrayOp::SplitHeads { heads }) => real(split_heads(self.arg(0), heads as usize)),
            Op::Array(ArrayOp::MergeHeads) => real(transpose(self.arg(0), &[1, 0, 2])),
            Op::Dense(DenseOp::Embed) => match self.embed()? {
                Content::Int(columns) => int(columns),
                Content::Real(rows) => real(rows),
                Content::Train(_) => unreachable!("a table is no train"),
            },
            Op::Dense(DenseOp::Centre) => real(rows(self.arg(0)).flat_map(centred).collect()),
            Op::Dense(DenseOp::RmsNorm { eps, heads }) => {
                let groups = self.arg(0).reals().chunks_exact(sizes[1] / heads as usize);
                real(groups.flat_map(|row| rms_norm(row, R::from_f32(eps.get()))).collect())
            }
            Op::Dense(DenseOp::Rotary { heads, pairs }) => {
                let both = rows(self.arg(0)).zip(rows(self.arg(1)));
                real(both.flat_map(|(row, turns)| turned(row, turns, heads as usize, pairs)).collect())
            }
            Op::Dense(DenseOp::Linear(layout)) => real(self.linear(layout)),
            Op::Dense(DenseOp::Curve(curve)) => real(self.arg(0).reals().iter().map(|&x| curve.at(x)).collect()),
            Op::Dense(DenseOp::Gated(curve)) => {
                let both = self.arg(0).reals().iter().zip(self.arg(1).reals());
                real(both.map(|(&gate, &up)| curve.at(gate) * up).collect())
            }
            Op::Dense(DenseOp::Hadamard(size)) => {
                let mut rows = self.arg(0).reals().to_vec();
                HadamardMatrix::of(size).apply(&mut rows);
                real(rows)
            }
            Op::Dense(DenseOp::AtStart) => {
                let [openings, starts] = [1, 2].map(|i| self.arg(i).ints().as_chunks::<2>().0);
                let row = |(opening, row): (&[i32; 2], _)| {
                    let known = starts.iter().position(|start| start == opening);
                    known.and_then(|at| rows(self.arg(3)).nth(at)).unwrap_or(row)
                };
                real(openings.iter().zip(rows(self.arg(0))).flat_map(row).copied().collect())
            }
            Op::Dense(DenseOp::Attention { heads, scale }) => {
                let state = self.extend(state);
                let [Content::Real(k), Content::Real(v)] = state.as_slice() else { unreachable!("checked by infer") };
                let scale = R::from_f32(scale.get());
                let alibi = heads.alibi.then(|| self.arg(3).reals());
                let out = attention([self.arg(0).reals(), k, v], n, heads, scale, alibi);
                let keys = heads.keys(self.past, n);
                (Array::real(sizes, out), Events { keys, ..Events::default() }, Some(Cached::Rows(state)))
            }
            Op::Level(LevelOp::Quant { code, steps, curve }) => {
                leveled(sizes, code, steps, self.levels(code, steps, curve))
            }
            Op::Level(LevelOp::GatedQuant { code, steps, curve }) => {
                leveled(sizes, code, steps, self.gated_levels(code, steps, curve))
            }
            Op::Spike(SpikeOp::Fire { code, steps, curve }) => {
                emitted(sizes, code, steps, &self.levels(code, steps, curve))
            }
            Op::Spike(SpikeOp::GatedFire { code, steps, curve }) => {
                emitted(sizes, code, steps, &self.gated_levels(code, steps, curve))
            }
            Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => {
                let parts = self.integrate(membrane, steps, curve);
                let events = spike_events(&parts);
                (Array { sizes, content: Content::Train(parts) }, events, None)
            }
            Op::Level(LevelOp::MatMulInt) => {
                let levels = self.arg(0).ints();
                let (code, _) = self.arg_type(0).levels().unwrap_or_else(|| unreachable!("checked by infer"));
                let events = Events { additions: spikes(code, levels) * sizes[1] as u64, ..Events::default() };
                (Array::int(sizes.clone(), matmul_int(levels, self.arg(1).ints(), sizes[1])), events, None)
            }
            Op::Spike(SpikeOp::Synapse) => {
                let Content::Train(parts) = &self.arg(0).content else { unreachable!("checked by infer") };
                let weight = self.arg(1).ints();
                let train = Content::Train(parts.iter().map(|part| matmul_int(part, weight, sizes[1])).collect());
                let spikes = parts.iter().flatten().filter(|spike| **spike != 0).count();
                let events = Events { additions: (spikes * sizes[1]) as u64, ..Events::default() };
                (Array { sizes, content: train }, events, None)
            }
            Op::Spike(SpikeOp::Decode) => int(self.decoded(0)),
            Op::Level(LevelOp::ScaleShift) => {
                let (gain, offset) = (self.arg(1).reals(), self.arg(2).reals());
                let at = |(i, x): (usize, R)| x * gain[i % gain.len()] + offset[i % gain.len()];
                real(self.potentials(0).into_iter().enumerate().map(at).collect())
            }
            Op::Training(op) => {
                let args: Vec<&Array<R>> = (0..Op::Training(op).info().arity).map(|i| self.arg(i)).collect();
                let content = training::eval(op, &args, &sizes, self.evaluator.targets);
                let content = content.map_err(|message| Diagnostic::new("", message))?;
                (Array { sizes, content }, Events::default(), None)
            }
            Op::Level(LevelOp::RowMaxAbs { heads }) => {
                let each = |row: &'_ [R]| {
                    row.chunks_exact((row.len() / heads as usize).max(1)).map(row_max_abs).collect::<Vec<R>>()
                };
                real(rows(self.arg(0)).flat_map(each).collect())
            }
            Op::Level(LevelOp::GatherChannels) => {
                let channels = self.arg(1).ints();
                real(rows(self.arg(0)).flat_map(|row| channels.iter().map(|&c| row[c as usize])).collect())
            }
            Op::Level(LevelOp::HeadLinear) => real(head_linear(self.arg(0), self.arg(1))),
            Op::Level(LevelOp::Ssa { heads, variant }) => self.ssa(heads, variant, state),
        })
    }

    fn ssa(&self, heads: Heads, variant: Ssa, kept: Option<&Cached<R>>) -> (Array<R>, Events, Option<Cached<R>>) {
        let sizes = self.sizes();
        let span = Span { past: self.past, tokens: self.tokens.len(), heads };
        let real = |(out, events): (Vec<R>, Events), kept| (Array::real(sizes.clone(), out), events, Some(kept));
        let code = |i: usize| self.arg_type(i).levels().unwrap_or_else(|| unreachable!("checked by infer")).0;
        let recency = || Recency { sink: self.arg(3).reals(), half_life: self.arg(4).ints() };
        match variant {
            Ssa::Ttfs { phases } | Ssa::TopK { phases, .. } => {
                let most_keys = if let Ssa::TopK { keys, .. } = variant { Some(keys) } else { None };
                let state = self.extend(kept);
                let [Content::Int(k), Content::Int(v), rest @ ..] = state.as_slice() else {
                    unreachable!("checked by infer")
                };
                let (q, weights, first) = (self.decoded(0), phase_weights(phases), heads.first_constant());
                let alibi = heads.alibi.then(|| self.arg(first + 1).reals());
                let thresholds = match rest {
                    [Content::Real(k), Content::Real(v)] => Some([self.arg(3).reals(), k, v]),
                    _ => None,
                };
                let slope = self.arg(first).reals();
                let delays = Delays { slope, alibi, weights: &weights, most_keys, thresholds };
                let out = meaning::timed([&q, k, v], delays, code(0), span);
                real(out, Cached::Rows(state))
            }
            Ssa::Coincidence { squared } => {
                let state = self.extend(kept);
                let [Content::Train(k), Content::Int(v)] = state.as_slice() else { unreachable!("checked by infer") };
                let out = meaning::coincident([&self.spelled(0), k], v, recency(), squared, span);
                real(out, Cached::Rows(state))
            }
            Ssa::Lif { output: Output::Mean } => {
                let state = self.extend(kept);
                let [Content::Train(k), Content::Int(v)] = state.as_slice() else { unreachable!("checked by infer") };
                let out = meaning::coincident([&self.spelled(0), k], v, recency(), false, span);
                real(out, Cached::Rows(state))
            }
            Ssa::Lif { output: Output::Spikes } => {
                let state = self.extend(kept);
                let [Content::Train(k), Content::Train(v)] = state.as_slice() else { unreachable!("checked by infer") };
                let q = self.spelled(0);
                let (parts, mut events) = meaning::emitted([&q, k, v], recency(), self.arg(5).reals(), span);
                events += spike_events(&parts);
                let content = match self.evaluator.graph.ty(self.at) {
                    Type::Train { .. } => Content::Train(parts),
                    Type::Tensor { .. } => {
                        let levels = (0..sizes.iter().product()).map(|i| parts.iter().map(|part| part[i]).sum());
                        Content::Int(levels.collect())
                    }
                };
                (Array { sizes, content }, events, Some(Cached::Rows(state)))
            }
            Ssa::Linear { guard } => {
                let mut sums = match kept {
                    Some(Cached::Sums(sums)) => sums.clone(),
                    Some(Cached::Rows(_)) | None => Vec::new(),
                };
                let [q, k, v] = [0, 1, 2].map(|i| self.decoded(i));
                let out = meaning::summed([&q, &k, &v], [code(0), code(1)], recency(), guard, &mut sums, span);
                real(out, Cached::Sums(sums))
            }
        }
    }

    /// The spikes that operand `i` comes as, or that spell its levels, by timestep.
    fn spelled(&self, i: usize) -> Vec<Vec<i32>> {
        match &self.arg(i).content {
            Content::Train(parts) => parts.clone(),
            Content::Int(levels) => {
                let (code, steps) = self.arg_type(i).levels().unwrap_or_else(|| unreachable!("checked by infer"));
                (0..steps).map(|t| levels.iter().map(|&level| code.spike(level, t, steps)).collect()).collect()
            }
            Content::Real(_) => unreachable!("checked by infer"),
        }
    }

    /// Rows of a table, or columns of a weight.
    fn embed(&self) -> Result<Content<R>, Diagnostic> {
        let table = self.arg(1);
        let columns = matches!(table.content, Content::Int(_));
        let [rows, width] = if columns { [table.sizes[1], table.sizes[0]] } else { [table.sizes[0], table.sizes[1]] };
        let mut ids = Vec::with_capacity(self.tokens.len());
        for &id in self.arg(0).ints() {
            ids.push(
                usize::try_from(id)
                    .ok()
                    .filter(|&id| id < rows)
                    .ok_or_else(|| Diagnostic::new("", format!("id {id} is outside the table of {rows} rows")))?,
            );
        }
        Ok(if columns {
            let column = |&id: &usize| (0..width).map(move |c| table.ints()[c * rows + id]);
            Content::Int(ids.iter().flat_map(column).collect())
        } else {
            let row = |&id: &usize| table.reals()[id * width..(id + 1) * width].iter().copied();
            Content::Real(ids.iter().flat_map(row).collect())
        })
    }

    /// One ascending chain for each output; the bias comes last.
    fn linear(&self, layout: Layout) -> Vec<R> {
        let (x, w, bias) = (self.arg(0), self.arg(1).reals(), self.arg(2).reals());
        let (k, m) = (x.sizes[1], bias.len());
        let mut y = vec![R::ZERO; x.sizes[0] * m];
        for (x, y) in x.reals().chunks_exact(k).zip(y.chunks_exact_mut(m)) {
            match layout {
                Layout::InputMajor => {
                    for (&x, w) in x.iter().zip(w.chunks_exact(m)) {
                        y.iter_mut().zip(w).for_each(|(y, &w)| *y = *y + x * w);
                    }
                }
                Layout::OutputMajor => {
                    for (y, w) in y.iter_mut().zip(w.chunks_exact(k)) {
                        *y = chain(x, w);
                    }
                }
            }
            y.iter_mut().zip(bias).for_each(|(y, &b)| *y = *y + b);
        }
        y
    }

    /// Operand `i`, sums and levels as reals.
    fn potentials(&self, i: usize) -> Vec<R> {
        match &self.arg(i).content {
            Content::Real(x) => x.clone(),
            Content::Int(x) => x.iter().map(|&x| R::from_i32(x)).collect(),
            Content::Train(_) => unreachable!("checked by infer"),
        }
    }

    fn levels(&self, code: Code, steps: u16, curve: Curve) -> Vec<i32> {
        let input = self.potentials(0);
        let most = code.levels(steps);
        if curve == Curve::Identity {
            let (gain, offset) = (self.arg(1).reals(), self.arg(2).reals());
            let d = gain.len();
            let at = |(i, x): (usize, R)| level(x * gain[i % d] + offset[i % d], most);
            return input.into_iter().enumerate().map(at).collect();
        }
        let [pre_gain, pre_offset, gain, offset] = [1, 2, 3, 4].map(|i| self.arg(i).reals());
        let d = gain.len();
        let table = curve.table();
        let at = |(i, x): (usize, R)| {
            let c = i % d;
            let h = x * pre_gain[c] + pre_offset[c];
            level(curve.by_table(&table, h) * gain[c] + offset[c], most)
        };
        input.into_iter().enumerate().map(at).collect()
    }

    /// Levels of neurons with a multiplicative input.
    fn gated_levels(&self, code: Code, steps: u16, curve: Curve) -> Vec<i32> {
        let [pre_gain, pre_offset, gain, offset] = [2, 3, 4, 5].map(|i| self.arg(i).reals());
        let (d, most) = (gain.len(), code.levels(steps));
        let at = |(i, (gate, up)): (usize, (R, R))| {
            let c = i % d;
            let open = curve.at(gate * pre_gain[c] + pre_offset[c]);
            level(open * (up * gain[c] + offset[c]), most)
        };
        self.potentials(0).into_iter().zip(self.potentials(1)).enumerate().map(at).collect()
    }

    /// Timestep by timestep; a tensor flows evenly, and so does the offset.
    fn integrate(&self, membrane: Membrane, steps: u16, curve: Curve) -> Vec<Vec<i32>> {
        let (gain, offset) = (self.arg(1).reals(), self.arg(2).reals());
        let all = R::from_i32(i32::from(steps));
        let tensor = |i: usize, x: R| {
            let c = i % gain.len();
            (x * gain[c] + offset[c]) / all
        };
        let inputs: Vec<Vec<R>> = match &self.arg(0).content {
            Content::Train(parts) => {
                let at = |(i, &x): (usize, &i32)| {
                    let c = i % gain.len();
                    R::from_i32(x) * gain[c] + offset[c] / all
                };
                parts.iter().map(|part| part.iter().enumerate().map(at).collect()).collect()
            }
            Content::Real(x) => {
                let flow: Vec<R> = x.iter().enumerate().map(|(i, &x)| tensor(i, x)).collect();
                vec![flow; usize::from(steps)]
            }
            Content::Int(x) => {
                let flow: Vec<R> = x.iter().enumerate().map(|(i, &x)| tensor(i, R::from_i32(x))).collect();
                vec![flow; usize::from(steps)]
            }
        };
        let constants: Vec<&[R]> = (0..membrane.rule().parameters.len()).map(|i| self.arg(3 + i).reals()).collect();
        let parameters: Vec<Vec<R>> = (0..gain.len()).map(|c| constants.iter().map(|x| x[c]).collect()).collect();
        let mut layer = MembraneLayer::new(membrane, steps, curve, inputs.first().map_or(0, Vec::len));
        let mut step = |input: Vec<R>| {
            let neurons = input.into_iter().zip(parameters.iter().cycle()).enumerate();
            neurons.map(|(i, (x, parameters))| layer.step(i, x, parameters)).collect()
        };
        inputs.into_iter().map(&mut step).collect()
    }

    /// What operand `i` denotes, whether it comes as levels or as a train.
    fn decoded(&self, i: usize) -> Vec<i32> {
        let parts = match &self.arg(i).content {
            Content::Int(levels) => return levels.clone(),
            Content::Train(parts) => parts,
            Content::Real(_) => unreachable!("checked by infer"),
        };
        let Type::Train { code, steps, .. } = self.arg_type(i) else { unreachable!("trains have train types") };
        let mut sum = vec![0; parts.first().map_or(0, Vec::len)];
        for (t, part) in (0..steps).zip(parts) {
            let weight = code.weight(t, steps);
            sum.iter_mut().zip(part).for_each(|(sum, &x)| *sum += weight * x);
        }
        sum
    }

    /// The state with this call's keys, values and their thresholds after it: as levels or by timestep, as the operation keeps them.
    fn extend(&self, kept: Option<&Cached<R>>) -> Vec<Content<R>> {
        let keeps = match self.evaluator.graph.state(self.at) {
            Some(StateType::Rows { keys, values, thresholds }) => {
                [(1, keys), (2, values)].into_iter().chain(thresholds.into_iter().flat_map(|ty| [(4, ty), (5, ty)]))
            }
            Some(StateType::Sums { .. }) | None => unreachable!("asked of what keeps rows"),
        };
        let extended = |(place, (i, ty)): (usize, (usize, Type))| {
            let new = match &self.arg(i).content {
                Content::Real(x) => Content::Real(x.clone()),
                Content::Int(_) | Content::Train(_) => match ty {
                    Type::Tensor { .. } => Content::Int(self.decoded(i)),
                    Type::Train { .. } => Content::Train(self.spelled(i)),
                },
            };
            let Some(Cached::Rows(old)) = kept else { return new };
            match (old[place].clone(), new) {
                (Content::Real(mut old), Content::Real(new)) => {
                    old.extend(new);
                    Content::Real(old)
                }
                (Content::Int(mut old), Content::Int(new)) => {
                    old.extend(new);
                    Content::Int(old)
                }
                (Content::Train(mut old), Content::Train(new)) => {
                    old.iter_mut().zip(new).for_each(|(old, new)| old.extend(new));
                    Content::Train(old)
                }
                (_, new) => new,
            }
        };
        keeps.enumerate().map(extended).collect()
    }
}
