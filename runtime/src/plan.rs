//! What runs in which order, and where results lie.
//!
//! One step makes one value; a current train is stored only for neurons that are time-stepped:
//! the step that decodes one runs its synapse. Every value has
//! rows, one a token of the chunk, so row `r` lies at `offset + r * row_bytes` of one arena in which values share memory
//! when their lives do not overlap. A step that leads to no state runs on the wanted rows alone.
//!
//! The plan knows no addresses and runs nothing: it is the same for all sessions.

use crate::meter::{Executed, MatmulCounts};
use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::op::{Binary, Layout, Op, Scalar};
use snnc_ir::ssa::Output;
use snnc_ir::types::{Carrier, Code, Elem, Shape, Type};
use snnc_ir::{Curve, Diagnostic, Graph, Ssa, Value, WeightId, bounds};
use std::fmt;

/// Values and their rows begin at multiples of this, so that a vector load meets one cache line.
const ALIGN: usize = 64;

/// A neuron layer: potential to level, and with `emit` on to spikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeuronLayer {
    pub code: Code,
    pub steps: u16,
    pub curve: Curve,
    /// The potential's element: f32 or i32.
    pub from: Elem,
    pub emit: bool,
    pub width: usize,
}

/// What a step does, with all its sizes but the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    // --- Rust kernels ---
    Embed {
        rows: usize,
        width: usize,
    },
    /// Columns of a weight.
    EmbedColumns {
        inputs: usize,
        outputs: usize,
    },
    LayerNormNoGain {
        eps: Scalar,
        width: usize,
    },
    LayerNorm {
        eps: Scalar,
        width: usize,
    },
    Linear {
        layout: Layout,
        inputs: usize,
        outputs: usize,
    },
    Curve {
        curve: Curve,
        width: usize,
    },
    Attention {
        heads: usize,
        scale: Scalar,
        width: usize,
    },
    TtfsAttention {
        heads: usize,
        phases: u32,
        /// How many keys may fire, if not all.
        keys: Option<u32>,
        /// The queries'.
        code: Code,
        steps: u16,
        /// Whether queries, keys and values take 16 bits.
        wide: [bool; 3],
        /// Whether sums may leave 32 bits, or levels take 32.
        long: bool,
        width: usize,
    },
    /// A dense map of its own for every head.
    HeadLinear {
        heads: usize,
        inputs: usize,
        outputs: usize,
    },
    /// Attention by coincidence of unary features.
    Coincidence {
        heads: usize,
        squared: bool,
        steps: u16,
        /// Of a head.
        features: usize,
        /// Whether features come as spikes, or as levels.
        trains: bool,
        /// Whether LIF neurons stand behind it.
        emit: bool,
        width: usize,
    },
    /// Linear attention; codes of queries and of keys.
    LinearAttention {
        heads: usize,
        guard: u8,
        codes: [Code; 2],
        /// Of a head.
        features: usize,
        width: usize,
    },
    MatMulInt {
        code: Code,
        steps: u16,
        inputs: usize,
        outputs: usize,
    },
    /// Spikes through a weight to currents, timestep by timestep, for neurons that answer within it.
    Currents {
        steps: u16,
        inputs: usize,
        outputs: usize,
    },
    /// Neurons that are time-stepped; `from` is `None` for a current.
    TimeStepped {
        membrane: Membrane,
        steps: u16,
        curve: Curve,
        from: Option<Elem>,
        width: usize,
    },

    /// The largest magnitude of every row.
    RowMaxAbs {
        width: usize,
    },
    /// Rows times, or over, a number of their own.
    Scale {
        divide: bool,
        width: usize,
    },
    /// Some channels of every row.
    GatherChannels {
        inputs: usize,
        outputs: usize,
    },

    // --- machine code ---
    Neuron(NeuronLayer),
    /// Spikes to levels.
    Decode {
        code: Code,
        steps: u16,
        width: usize,
    },
    /// Spikes through a weight to decoded sums, timestep by timestep.
    Synapse {
        code: Code,
        steps: u16,
        inputs: usize,
        outputs: usize,
    },
    /// Sums, levels or reals to reals; with `add`, plus a residual.
    ScaleShift {
        from: Elem,
        width: usize,
        add: bool,
    },
    /// With `channel`, the second operand is a constant of one row.
    Add {
        width: usize,
        channel: bool,
    },
}

/// Which rows of a chunk a step runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowSet {
    /// All: its value leads to a state.
    All,
    /// Those that are wanted of the outputs.
    Wanted,
}

/// One value's memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub ty: Type,
    pub offset: usize,
    pub row_bytes: usize,
    /// The steps that write it first and read it last.
    born: usize,
    dies: usize,
}

/// One entry of the plan.
#[derive(Clone, Debug)]
pub struct Step {
    pub node: Value,
    pub kind: StepKind,
    /// Indices into `Plan::buffers`.
    pub inputs: Vec<usize>,
    pub constants: Vec<WeightId>,
    pub out: usize,
    pub rows: RowSet,
}

/// A graph in the order in which it is run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub buffers: Vec<Buffer>,
    /// By node: its value's buffer, if it has one.
    pub of: Vec<Option<usize>>,
    /// The most tokens of one pass.
    pub chunk: usize,
    pub arena_bytes: usize,
    /// Ids and positions, where the program uses them.
    pub tokens: Option<usize>,
    pub positions: Option<usize>,
}

impl Plan {
    /// # Errors
    /// The graph has an operation or an operand that no step fits.
    pub fn new(graph: &Graph, chunk: usize) -> Result<Self, Diagnostic> {
        let plan = Plan {
            steps: Vec::new(),
            buffers: Vec::new(),
            of: vec![None; graph.nodes.len()],
            chunk,
            arena_bytes: 0,
            tokens: None,
            positions: None,
        };
        let decoded = vec![None; graph.nodes.len()];
        let mut planner = Planner { graph, users: graph.users(), late: leads_to_no_state(graph), decoded, plan };
        for (value, _) in graph.iter() {
            planner.check(value)?;
            planner.visit(value)?;
        }
        let mut plan = planner.plan;
        for buffer in graph.outputs.iter().filter_map(|(_, value)| plan.of[value.index()]) {
            plan.buffers[buffer].dies = usize::MAX;
        }
        plan.arena_bytes = allocate(&mut plan.buffers, chunk);
        Ok(plan)
    }

    /// The plan as text, one line a step; `wide` as `StepKind::is_code` has it.
    pub fn explain(&self, graph: &Graph, wide: bool) -> String {
        let mut text = format!(
            "{} steps, chunks of {} tokens, arena {:.1} KiB\n",
            self.steps.len(),
            self.chunk,
            self.arena_bytes as f64 / 1024.0
        );
        for (i, step) in self.steps.iter().enumerate() {
            let buffer = &self.buffers[step.out];
            let rows = if step.rows == RowSet::Wanted { " (wanted rows)" } else { "" };
            let inputs: Vec<String> =
                step.inputs.iter().map(|&input| format!("@{}", self.buffers[input].offset)).collect();
            let kind = step.kind.to_string();
            let name = kind.split_once(' ').map_or(kind.as_str(), |(_, name)| name);
            let kind = if step.kind.is_code(wide) { "code" } else { "kernel" };
            text += &format!(
                "{i:4}  {:<28} {:<32} @{:<9} <- {:<20} {kind} {name}{rows}  {}\n",
                graph.node(step.node).op.to_string(),
                buffer.ty.to_string(),
                buffer.offset,
                inputs.join(" "),
                graph.origin(step.node)
            );
        }
        text
    }
}

/// By node: whether no state of a later token depends on it, so that rows which nobody wants need not be run.
pub fn leads_to_no_state(graph: &Graph) -> Vec<bool> {
    let mut late = vec![true; graph.nodes.len()];
    for (value, node) in graph.iter().rev() {
        if node.op.has_state() {
            late[value.index()] = false;
        }
        if !late[value.index()] {
            node.args.iter().for_each(|arg| late[arg.index()] = false);
        }
    }
    late
}

/// Bytes from one plane of a train to the next: the row's spikes, padded so that vectors need no tail.
pub fn plane_bytes(width: usize) -> usize {
    width.next_multiple_of(16)
}

/// Bytes of a level of this code.
pub fn level_bytes(code: Code, steps: u16) -> usize {
    Elem::Level(code, steps).bytes()
}

/// Bytes of one row of a value; `None` if it is not rows, one a token.
fn row_bytes(ty: Type) -> Option<usize> {
    let width = match ty.shape().dims() {
        [snnc_ir::Dim::Tokens] => 1,
        _ => ty.shape().row_width()?,
    };
    match ty {
        Type::Tensor { elem, .. } => Some(width * elem.bytes()),
        Type::Train { carrier: Carrier::Spike, steps, .. } => Some(plane_bytes(width) * usize::from(steps)),
        Type::Train { carrier: Carrier::Current, steps, .. } => Some(4 * width * usize::from(steps)),
    }
}

struct Planner<'g> {
    graph: &'g Graph,
    users: Vec<Vec<Value>>,
    late: Vec<bool>,
    /// By node: the levels of its train, where a step has decoded it.
    decoded: Vec<Option<usize>>,
    plan: Plan,
}

impl Planner<'_> {
    /// Whether the value's type is what its operands or its constant say: machine code is made from types alone.
    fn check(&self, at: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(at);
        if node.args.iter().any(|arg| *arg >= at) {
            return Err(self.misfit(at, "an operand comes after it"));
        }
        let types: Vec<Type> = node.args.iter().map(|&arg| self.graph.ty(arg)).collect();
        let ty = match self.graph.constant(at) {
            Some(weight) => Ok(Type::tensor(weight.tensor.elem(), Shape::fixed(weight.tensor.sizes()))),
            None => node.op.infer(&types),
        };
        match ty {
            Ok(ty) if ty == node.ty => Ok(()),
            Ok(ty) => Err(self.misfit(at, &format!("it is said to be {} and is {ty}", node.ty))),
            Err(why) => Err(self.misfit(at, &why)),
        }
    }

    fn visit(&mut self, at: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(at);
        let args = &node.args;
        match node.op {
            Op::Leaf(LeafOp::Weight(_)) => {}
            Op::Spike(SpikeOp::Synapse) => {
                let heard = |user: &Value| matches!(self.graph.node(*user).op, Op::Spike(SpikeOp::Integrate { .. }));
                if self.users[at.index()].iter().any(heard) {
                    let (_, steps) = self.levels(args[0])?;
                    let kind = StepKind::Currents { steps, inputs: self.width(args[0])?, outputs: self.width(at)? };
                    self.step(at, kind, &args[..1], &args[1..])?;
                }
            }
            Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => {
                let from = self.graph.ty(args[0]).elem();
                let kind = StepKind::TimeStepped { membrane, steps, curve, from, width: self.width(at)? };
                self.step(at, kind, &args[..1], &args[1..])?;
            }
            Op::Leaf(LeafOp::Tokens) => self.plan.tokens = Some(self.buffer(at)?),
            Op::Leaf(LeafOp::Positions) => self.plan.positions = Some(self.buffer(at)?),
            Op::Dense(DenseOp::Embed) => {
                let sizes = self.graph.ty(args[1]).shape().sizes().unwrap_or_default();
                let [rows, width] = sizes[..] else { return Err(self.misfit(at, "its table is no matrix")) };
                let kind = match self.elem(args[1]) {
                    Elem::I8 => StepKind::EmbedColumns { inputs: rows, outputs: width },
                    _ => StepKind::Embed { rows, width },
                };
                self.step(at, kind, &args[..1], &args[1..])?;
            }
            Op::Dense(DenseOp::LayerNormNoGain { eps }) => {
                self.step(at, StepKind::LayerNormNoGain { eps, width: self.width(at)? }, args, &[])?
            }
            Op::Dense(DenseOp::LayerNorm { eps }) => {
                self.step(at, StepKind::LayerNorm { eps, width: self.width(at)? }, &args[..1], &args[1..])?;
            }
            Op::Dense(DenseOp::Linear(layout)) => {
                let kind = StepKind::Linear { layout, inputs: self.width(args[0])?, outputs: self.width(at)? };
                self.step(at, kind, &args[..1], &args[1..])?;
            }
            Op::Dense(DenseOp::Curve(curve)) => {
                self.step(at, StepKind::Curve { curve, width: self.width(at)? }, args, &[])?
            }
            Op::Dense(DenseOp::Attention { heads, scale }) => {
                let kind = StepKind::Attention { heads: heads as usize, scale, width: self.width(at)? };
                self.step(at, kind, args, &[])?;
            }
            Op::Level(LevelOp::Quant { code, steps, curve }) => self.neuron(at, code, steps, curve, false)?,
            Op::Spike(SpikeOp::Fire { code, steps, curve }) => self.neuron(at, code, steps, curve, true)?,
            Op::Level(LevelOp::MatMulInt) => {
                let (code, steps) = self.levels(args[0])?;
                let kind = StepKind::MatMulInt { code, steps, inputs: self.width(args[0])?, outputs: self.width(at)? };
                self.step(at, kind, &args[..1], &args[1..])?;
            }
            Op::Spike(SpikeOp::Decode) => self.decode(at)?,
            Op::Level(LevelOp::ScaleShift) => {
                let fused = self.only_user(at).is_some_and(|user| self.fused_scale_shift(user) == Some(at));
                if !fused {
                    let kind = StepKind::ScaleShift { from: self.read(args[0]), width: self.width(at)?, add: false };
                    self.step(at, kind, &args[..1], &args[1..])?;
                }
            }
            Op::Level(LevelOp::Ssa { heads, variant }) => self.ssa(at, heads as usize, variant)?,
            Op::Level(LevelOp::HeadLinear) => {
                let sizes = self.graph.ty(args[1]).shape().sizes().unwrap_or_default();
                let [heads, inputs, outputs] = sizes[..] else { return Err(self.misfit(at, "its maps have no heads")) };
                self.step(at, StepKind::HeadLinear { heads, inputs, outputs }, &args[..1], &args[1..])?;
            }
            Op::Array(ArrayOp::Binary(Binary::Add)) => self.add(at)?,
            Op::Array(ArrayOp::Binary(kind @ (Binary::Mul | Binary::Div))) => {
                let rows = |value: Value, width| self.graph.ty(value).shape() == Shape::rows(width);
                let width = self.width(at)?;
                if !rows(args[0], width) || !rows(args[1], 1) {
                    return Err(self.misfit(at, "its second operand is not one number a token"));
                }
                self.step(at, StepKind::Scale { divide: kind == Binary::Div, width }, args, &[])?;
            }
            Op::Level(LevelOp::RowMaxAbs) => {
                self.step(at, StepKind::RowMaxAbs { width: self.width(args[0])? }, args, &[])?
            }
            Op::Level(LevelOp::GatherChannels) => {
                let kind = StepKind::GatherChannels { inputs: self.width(args[0])?, outputs: self.width(at)? };
                self.step(at, kind, &args[..1], &args[1..])?;
            }
            Op::Array(ArrayOp::Unary(_))
            | Op::Array(ArrayOp::Binary(Binary::Sub | Binary::Pow | Binary::Min | Binary::Max))
            | Op::Array(ArrayOp::CausalMask { .. })
            | Op::Array(ArrayOp::Where)
            | Op::Array(ArrayOp::MatMul)
            | Op::Array(ArrayOp::Transpose(_))
            | Op::Array(ArrayOp::Reshape(_))
            | Op::Array(ArrayOp::Slice { .. })
            | Op::Array(ArrayOp::Mean)
            | Op::Array(ArrayOp::Softmax)
            | Op::Array(ArrayOp::SplitHeads { .. })
            | Op::Array(ArrayOp::MergeHeads)
            | Op::Training(_) => {
                return Err(self.misfit(at, "no step runs it; programs are raised before they are run"));
            }
        }
        Ok(())
    }

    fn neuron(&mut self, at: Value, code: Code, steps: u16, curve: Curve, emit: bool) -> Result<(), Diagnostic> {
        let args = &self.graph.node(at).args;
        let from = self.elem(args[0]);
        let width = self.width(at)?;
        self.step(at, StepKind::Neuron(NeuronLayer { code, steps, curve, from, emit, width }), &args[..1], &args[1..])
    }

    /// A spike train becomes levels; a current train is made and decoded in one step.
    fn decode(&mut self, at: Value) -> Result<(), Diagnostic> {
        let train = self.graph.node(at).args[0];
        if let Op::Spike(SpikeOp::Synapse) = self.graph.node(train).op {
            let args = &self.graph.node(train).args;
            let (code, steps) = self.levels(args[0])?;
            let kind = StepKind::Synapse { code, steps, inputs: self.width(args[0])?, outputs: self.width(at)? };
            return self.step(at, kind, &args[..1], &args[1..]);
        }
        if self.decoded[train.index()].is_none() {
            self.decode_spikes(at, train)?;
        }
        self.plan.of[at.index()] = self.decoded[train.index()];
        Ok(())
    }

    /// Adds the step, made for `at`, that turns the spikes `train` into levels.
    fn decode_spikes(&mut self, at: Value, train: Value) -> Result<(), Diagnostic> {
        let (code, steps) = self.levels(train)?;
        let shape = self.graph.ty(train).shape();
        let out = self.new_buffer(at, Type::tensor(Elem::Level(code, steps), shape))?;
        self.decoded[train.index()] = Some(out);
        // Whoever else decodes the train may be wanted on more rows than this node is: it runs when the train does.
        let rows = self.row_set(train);
        self.push(at, StepKind::Decode { code, steps, width: self.width(train)? }, &[train], &[], out, rows)
    }

    fn ssa(&mut self, at: Value, heads: usize, variant: Ssa) -> Result<(), Diagnostic> {
        let args = &self.graph.node(at).args;
        let (code, steps) = self.levels(args[0])?;
        let trains = matches!(self.graph.ty(args[0]), Type::Train { .. });
        let (features, width) = (self.width(args[0])? / heads, self.width(at)?);
        let kind = match variant {
            Ssa::Ttfs { phases } | Ssa::TopK { phases, .. } => {
                let keys = if let Ssa::TopK { keys, .. } = variant { Some(keys) } else { None };
                let (mut wide, mut long) = ([false; 3], !bounds::narrow_attention(self.graph, at));
                for (wide, &arg) in wide.iter_mut().zip(args) {
                    let (code, steps) = self.levels(arg)?;
                    *wide = level_bytes(code, steps) > 1;
                    long |= level_bytes(code, steps) > 2;
                }
                StepKind::TtfsAttention { heads, phases, keys, code, steps, wide, long, width }
            }
            Ssa::Coincidence { squared } => {
                StepKind::Coincidence { heads, squared, steps, features, trains, emit: false, width }
            }
            Ssa::Lif { output } => {
                let emit = output == Output::Spikes;
                StepKind::Coincidence { heads, squared: false, steps, features, trains, emit, width }
            }
            Ssa::Linear { guard } => {
                let codes = [code, self.levels(args[1])?.0];
                StepKind::LinearAttention { heads, guard, codes, features, width }
            }
        };
        for (i, &arg) in args[..3].iter().enumerate() {
            let train = matches!(self.graph.ty(arg), Type::Train { .. });
            if train && kind.reads_levels(i) && self.decoded[arg.index()].is_none() {
                self.decode_spikes(at, arg)?;
            }
        }
        self.step(at, kind, &args[..3], &args[3..])
    }

    fn add(&mut self, at: Value) -> Result<(), Diagnostic> {
        let args = &self.graph.node(at).args;
        let width = self.width(at)?;
        if let Some(scale_shift) = self.fused_scale_shift(at) {
            let residual = if args[0] == scale_shift { args[1] } else { args[0] };
            let inner = &self.graph.node(scale_shift).args;
            let kind = StepKind::ScaleShift { from: self.read(inner[0]), width, add: true };
            return self.step(at, kind, &[inner[0], residual], &inner[1..]);
        }
        let rows = |value: Value| self.graph.ty(value).shape() == Shape::rows(width);
        let channels = |value: Value| {
            self.graph.constant(value).is_some_and(|weight| weight.tensor.sizes().iter().product::<usize>() == width)
        };
        match (args[0], args[1]) {
            (a, b) if rows(a) && rows(b) => self.step(at, StepKind::Add { width, channel: false }, &[a, b], &[]),
            (a, b) if rows(a) && channels(b) => self.step(at, StepKind::Add { width, channel: true }, &[a], &[b]),
            (a, b) if channels(a) && rows(b) => self.step(at, StepKind::Add { width, channel: true }, &[b], &[a]),
            (a, b) => {
                let (a, b) = (self.graph.ty(a), self.graph.ty(b));
                Err(self.misfit(at, &format!("no step broadcasts {a} and {b}")))
            }
        }
    }

    /// The scale_shift operand of an addition of rows that runs in the same step, if there is one.
    fn fused_scale_shift(&self, add: Value) -> Option<Value> {
        let node = self.graph.node(add);
        let Op::Array(ArrayOp::Binary(Binary::Add)) = node.op else { return None };
        let shape = self.graph.ty(add).shape();
        if node.args.iter().any(|&arg| self.graph.ty(arg).shape() != shape) {
            return None;
        }
        let inner = |arg: &&Value| {
            self.graph.node(**arg).op == Op::Level(LevelOp::ScaleShift) && self.only_user(**arg) == Some(add)
        };
        node.args.iter().find(inner).copied()
    }

    fn only_user(&self, value: Value) -> Option<Value> {
        let output = self.graph.outputs.iter().any(|(_, output)| *output == value);
        match self.users[value.index()][..] {
            [user] if !output => Some(user),
            _ => None,
        }
    }

    fn step(&mut self, at: Value, kind: StepKind, inputs: &[Value], constants: &[Value]) -> Result<(), Diagnostic> {
        let out = self.buffer(at)?;
        self.push(at, kind, inputs, constants, out, self.row_set(at))
    }

    fn push(
        &mut self,
        at: Value,
        kind: StepKind,
        inputs: &[Value],
        constants: &[Value],
        out: usize,
        rows: RowSet,
    ) -> Result<(), Diagnostic> {
        let mut buffers = Vec::with_capacity(inputs.len());
        for (i, &input) in inputs.iter().enumerate() {
            let decoded = if kind.reads_levels(i) { self.decoded[input.index()] } else { None };
            let buffer = decoded.or(self.plan.of[input.index()]);
            buffers.push(buffer.ok_or_else(|| self.misfit(at, "an operand is not rows, one a token"))?);
        }
        let mut weights = Vec::with_capacity(constants.len());
        for &constant in constants {
            let Op::Leaf(LeafOp::Weight(id)) = self.graph.node(constant).op else {
                return Err(self.misfit(at, "an operand should be a constant"));
            };
            weights.push(id);
        }
        let now = self.plan.steps.len();
        buffers.iter().for_each(|&buffer| self.plan.buffers[buffer].dies = now);
        self.plan.steps.push(Step { node: at, kind, inputs: buffers, constants: weights, out, rows });
        Ok(())
    }

    fn row_set(&self, at: Value) -> RowSet {
        if self.late[at.index()] { RowSet::Wanted } else { RowSet::All }
    }

    fn buffer(&mut self, at: Value) -> Result<usize, Diagnostic> {
        let buffer = self.new_buffer(at, self.graph.ty(at))?;
        self.plan.of[at.index()] = Some(buffer);
        Ok(buffer)
    }

    fn new_buffer(&mut self, at: Value, ty: Type) -> Result<usize, Diagnostic> {
        let row_bytes = row_bytes(ty).ok_or_else(|| self.misfit(at, &format!("{ty} is not rows, one a token")))?;
        // Ids and positions are there before the first step.
        let leaf = matches!(self.graph.node(at).op, Op::Leaf(LeafOp::Tokens) | Op::Leaf(LeafOp::Positions));
        let now = if leaf { 0 } else { self.plan.steps.len() };
        self.plan.buffers.push(Buffer { ty, offset: 0, row_bytes, born: now, dies: now });
        Ok(self.plan.buffers.len() - 1)
    }

    fn width(&self, value: Value) -> Result<usize, Diagnostic> {
        let shape = self.graph.ty(value).shape();
        shape.row_width().ok_or_else(|| self.misfit(value, &format!("{shape} is not rows, one a token")))
    }

    fn elem(&self, value: Value) -> Elem {
        self.graph.ty(value).elem().unwrap_or(Elem::F32)
    }

    /// What an scale_shift map reads: levels that take as many bytes are all the same to it, so that one function does.
    fn read(&self, value: Value) -> Elem {
        let longest = |steps| Elem::Level(Code::Binary, steps);
        match (self.elem(value), self.elem(value).bytes()) {
            (Elem::Level(..), 1) => longest(7),
            (Elem::Level(..), 2) => longest(15),
            (Elem::Level(..), _) => longest(16),
            (elem @ (Elem::F32 | Elem::I32 | Elem::I8), _) => elem,
        }
    }

    fn levels(&self, value: Value) -> Result<(Code, u16), Diagnostic> {
        self.graph.ty(value).levels().ok_or_else(|| self.misfit(value, "levels or spikes were expected"))
    }

    fn misfit(&self, at: Value, why: &str) -> Diagnostic {
        Diagnostic::new(self.graph.origin(at), format!("`{}` cannot be planned: {why}", self.graph.node(at).op))
    }
}

/// Gives every buffer an offset such that buffers alive at the same step do not overlap; returns the bytes of all.
///
/// First fit in order of birth: a new buffer goes to the lowest gap between the buffers alive with it.
fn allocate(buffers: &mut [Buffer], chunk: usize) -> usize {
    let bytes = |buffer: &Buffer| (buffer.row_bytes * chunk).next_multiple_of(ALIGN);
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    order.sort_by_key(|&i| buffers[i].born);
    let mut live: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let born = buffers[i].born;
        live.retain(|&other| buffers[other].dies >= born);
        live.sort_by_key(|&other| buffers[other].offset);
        let mut offset = 0;
        for &other in &live {
            if offset + bytes(&buffers[i]) <= buffers[other].offset {
                break;
            }
            offset = offset.max(buffers[other].offset + bytes(&buffers[other]));
        }
        buffers[i].offset = offset;
        total = total.max(offset + bytes(&buffers[i]));
        live.push(i);
    }
    total
}

impl StepKind {
    /// Whether machine code does it; else a Rust kernel does. `wide`: kernels have wider vectors than machine code, so they do
    /// what both can do.
    pub fn is_code(&self, wide: bool) -> bool {
        match self {
            StepKind::Embed { .. }
            | StepKind::EmbedColumns { .. }
            | StepKind::LayerNormNoGain { .. }
            | StepKind::LayerNorm { .. }
            | StepKind::Linear { .. }
            | StepKind::Curve { .. }
            | StepKind::Attention { .. }
            | StepKind::TtfsAttention { .. }
            | StepKind::HeadLinear { .. }
            | StepKind::Coincidence { .. }
            | StepKind::LinearAttention { .. }
            | StepKind::MatMulInt { .. }
            | StepKind::Currents { .. }
            | StepKind::TimeStepped { .. }
            | StepKind::RowMaxAbs { .. }
            | StepKind::Scale { .. }
            | StepKind::GatherChannels { .. } => false,
            StepKind::Synapse { .. } => !wide,
            StepKind::Neuron(layer) => !wide || layer.emit || level_bytes(layer.code, layer.steps) > 2,
            StepKind::Decode { .. } | StepKind::ScaleShift { .. } | StepKind::Add { .. } => true,
        }
    }

    /// Whether it reads what is kept of a sequence, so that it matters whose a row is.
    pub fn keeps_state(&self) -> bool {
        matches!(
            self,
            StepKind::Attention { .. }
                | StepKind::TtfsAttention { .. }
                | StepKind::Coincidence { .. }
                | StepKind::LinearAttention { .. }
        )
    }

    /// Whether it reads the levels of operand `i` where that is a train: attention does, but for what it keeps as spikes. All
    /// else that takes a train reads its spikes.
    fn reads_levels(&self, i: usize) -> bool {
        match self {
            StepKind::TtfsAttention { .. } | StepKind::LinearAttention { .. } => true,
            StepKind::Coincidence { emit, .. } => i == 2 && !emit,
            _ => false,
        }
    }

    /// What running it on `rows` rows does, given its events and how its products were done.
    pub fn executed(&self, rows: usize, events: &Events, products: &MatmulCounts) -> Executed {
        let rows64 = rows as u64;
        let dense = |macs: usize, bytes: usize| Executed {
            macs: rows64 * macs as u64,
            bytes: if rows == 0 { 0 } else { bytes as u64 },
            additions: 0,
        };
        match *self {
            StepKind::Embed { width, .. } => Executed { bytes: rows64 * 4 * width as u64, ..Executed::default() },
            StepKind::EmbedColumns { inputs, .. } => Executed { bytes: rows64 * inputs as u64, ..Executed::default() },
            StepKind::Linear { inputs, outputs, .. } => dense(inputs * outputs, 4 * inputs * outputs),
            StepKind::MatMulInt { inputs, outputs, .. } => {
                let listed = products.rows * outputs as u64;
                let once = if products.dense > 0 { (inputs * outputs) as u64 } else { 0 };
                let macs = products.dense * (inputs * outputs) as u64;
                Executed { macs, additions: listed, bytes: once + listed }
            }
            StepKind::Attention { width, .. } => {
                Executed { macs: 2 * events.keys * width as u64, ..Executed::default() }
            }
            StepKind::TtfsAttention { width, heads, .. } => Executed {
                macs: events.keys * width as u64 + events.value_keys * (width / heads) as u64,
                ..Executed::default()
            },
            StepKind::HeadLinear { heads, inputs, outputs } => {
                dense(heads * inputs * outputs, 4 * heads * inputs * outputs)
            }
            StepKind::Coincidence { width, heads, .. } => Executed {
                macs: events.value_keys * (width / heads) as u64,
                additions: events.score_additions,
                bytes: 0,
            },
            StepKind::LinearAttention { width, features, .. } => dense(2 * features * width, 0),
            StepKind::Synapse { outputs, .. } | StepKind::Currents { outputs, .. } => {
                let listed = products.rows * outputs as u64;
                Executed { additions: listed, bytes: listed, macs: 0 }
            }
            StepKind::LayerNormNoGain { .. }
            | StepKind::LayerNorm { .. }
            | StepKind::Curve { .. }
            | StepKind::Neuron(_)
            | StepKind::TimeStepped { .. }
            | StepKind::RowMaxAbs { .. }
            | StepKind::Scale { .. }
            | StepKind::GatherChannels { .. }
            | StepKind::Decode { .. }
            | StepKind::ScaleShift { .. }
            | StepKind::Add { .. } => Executed::default(),
        }
    }
}

/// Sums are what an scale_shift map is of; levels are said.
fn numbers(from: Elem) -> &'static str {
    match from {
        Elem::Level(..) => match from.bytes() {
            1 => "_i8",
            2 => "_i16",
            _ => "_level32",
        },
        Elem::F32 => "_f32",
        Elem::I32 | Elem::I8 => "",
    }
}

impl fmt::Display for StepKind {
    /// The name of the kernel, or of the function in machine code: one name a function.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepKind::Embed { .. } => f.write_str("kernel embed"),
            StepKind::EmbedColumns { .. } => f.write_str("kernel embed_columns"),
            StepKind::LayerNormNoGain { .. } => f.write_str("kernel layer_norm_no_gain"),
            StepKind::LayerNorm { .. } => f.write_str("kernel layer_norm"),
            StepKind::Linear { .. } => f.write_str("kernel linear"),
            StepKind::Curve { curve, .. } => write!(f, "kernel curve {}", curve.name()),
            StepKind::Attention { .. } => f.write_str("kernel attention"),
            StepKind::TtfsAttention { keys: None, .. } => f.write_str("kernel ttfs"),
            StepKind::TtfsAttention { keys: Some(_), .. } => f.write_str("kernel ttfs_topk"),
            StepKind::HeadLinear { .. } => f.write_str("kernel head_linear"),
            StepKind::Coincidence { .. } => f.write_str("kernel coincidence"),
            StepKind::LinearAttention { .. } => f.write_str("kernel linear_attention"),
            StepKind::MatMulInt { .. } => f.write_str("kernel matmul_int"),
            StepKind::Currents { .. } => f.write_str("kernel currents"),
            StepKind::TimeStepped { membrane, .. } => write!(f, "kernel integrate {}", membrane.name()),
            StepKind::RowMaxAbs { .. } => f.write_str("kernel row_max_abs"),
            StepKind::Scale { divide, .. } => write!(f, "kernel {}", if *divide { "div" } else { "mul" }),
            StepKind::GatherChannels { .. } => f.write_str("kernel gather_channels"),
            StepKind::Neuron(NeuronLayer { code, steps, curve, from, emit, width }) => {
                let kind = if *emit { "fire" } else { "quant" };
                write!(f, "code {kind}_{}_{steps}_{}_{from}_{width}", code.name(), curve.name())
            }
            StepKind::Decode { code, steps, width } => write!(f, "code decode_{}_{steps}_{width}", code.name()),
            StepKind::Synapse { code, steps, inputs, outputs } => {
                write!(f, "code synapse_{}_{steps}_{inputs}_{outputs}", code.name())
            }
            StepKind::ScaleShift { from, width, add } => {
                let (add, from) = (if *add { "_add" } else { "" }, numbers(*from));
                write!(f, "code scale_shift{add}{from}_{width}")
            }
            StepKind::Add { width, channel: false } => write!(f, "code add_{width}"),
            StepKind::Add { width, channel: true } => write!(f, "code add_channel_{width}"),
        }
    }
}
