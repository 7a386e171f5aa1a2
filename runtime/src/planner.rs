//! Makes a plan, node by node: what the kinds of steps in `steps` add to.
//!
//! It checks types, because machine code is made from types alone, and gives every value its buffer and its lifetime.

use crate::layout::row_bytes;
use crate::liveness::{Lifetime, allocate, leads_to_no_state};
use crate::plan::{Plan, RowSet, Step, ValueBuffer};
use crate::step::StepKind;
use snnc_ir::ErrorCode;
use snnc_ir::finite::unproven;
use snnc_ir::op::LeafOp;
use snnc_ir::op::Op;
use snnc_ir::types::{Code, Elem, Shape, Type};
use snnc_ir::{Diagnostic, Graph, Value};

/// Values and their rows begin at multiples of this, so that a vector load meets one cache line.
const ALIGN: usize = 64;

/// A plan in the making.
#[derive(Debug)]
pub struct Planner<'g> {
    pub graph: &'g Graph,
    /// By node: the levels of its spike train, where a step has decoded it.
    pub decoded: Vec<Option<usize>>,
    users: Vec<Vec<Value>>,
    late: Vec<bool>,
    /// By node: whether its numbers may not be finite.
    pub unproven: Vec<bool>,
    /// By node: the operation that runs it as well, in the same chain.
    pub chained: Vec<Option<Value>>,
    /// By buffer: the steps that write it first and read it last.
    lives: Vec<[usize; 2]>,
    plan: Plan,
}

impl<'g> Planner<'g> {
    /// Nothing planned yet, for passes of at most `chunk` tokens.
    pub fn new(graph: &'g Graph, chunk: usize) -> Self {
        let plan = Plan {
            steps: Vec::new(),
            buffers: Vec::new(),
            of: vec![None; graph.nodes.len()],
            chunk,
            arena_bytes: 0,
            tokens: None,
            positions: None,
            opening: None,
            stream: None,
        };
        let decoded = vec![None; graph.nodes.len()];
        let late = leads_to_no_state(graph);
        let (users, unproven, chained) = (graph.users(), unproven(graph), vec![None; graph.nodes.len()]);
        Self { graph, decoded, users, late, unproven, chained, lives: Vec::new(), plan }
    }

    /// Gives every buffer its place in the arena.
    pub fn finish(mut self) -> Plan {
        for buffer in self.graph.outputs.iter().filter_map(|(_, value)| self.plan.of[value.index()]) {
            self.lives[buffer][1] = usize::MAX;
        }
        let size = |buffer: &ValueBuffer| buffer.row_bytes * self.plan.chunk;
        let lifetime =
            |(buffer, &[born, dies]): (&ValueBuffer, &[usize; 2])| Lifetime { size: size(buffer), born, dies };
        let lifetimes: Vec<Lifetime> = self.plan.buffers.iter().zip(&self.lives).map(lifetime).collect();
        let (offsets, bytes) = allocate(&lifetimes, ALIGN);
        self.plan.buffers.iter_mut().zip(offsets).for_each(|(buffer, offset)| buffer.offset = offset);
        self.plan.arena_bytes = bytes;
        self.plan
    }

    /// Whether the value's type is what its operands or its constant say.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, at: Value) -> Result<(), Diagnostic> {
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

    /// Ids of tokens: they are there before the first step.
    pub fn tokens(&mut self, at: Value) -> Result<(), Diagnostic> {
        self.plan.tokens = Some(self.leaf(at)?);
        Ok(())
    }

    /// Positions of tokens: they are there before the first step.
    pub fn positions(&mut self, at: Value) -> Result<(), Diagnostic> {
        self.plan.positions = Some(self.leaf(at)?);
        Ok(())
    }

    /// What sequences have begun with: it is there before the first step.
    pub fn opening(&mut self, at: Value) -> Result<(), Diagnostic> {
        self.plan.opening = Some(self.leaf(at)?);
        Ok(())
    }

    /// Rows that another program hands over: they are there before the first step.
    pub fn stream(&mut self, at: Value) -> Result<(), Diagnostic> {
        self.plan.stream = Some(self.leaf(at)?);
        Ok(())
    }

    fn leaf(&mut self, at: Value) -> Result<usize, Diagnostic> {
        let buffer = self.buffer(at, self.graph.ty(at))?;
        self.lives[buffer] = [0, 0];
        self.plan.of[at.index()] = Some(buffer);
        Ok(buffer)
    }

    /// Adds the step that makes the value `at` from inputs in the arena and constants.
    pub fn step(
        &mut self,
        at: Value,
        kind: impl StepKind + 'static,
        inputs: &[Value],
        constants: &[Value],
    ) -> Result<(), Diagnostic> {
        let out = self.buffer(at, self.graph.ty(at))?;
        self.plan.of[at.index()] = Some(out);
        self.push(at, kind, inputs, constants, out, self.row_set(at))
    }

    /// The same, with the buffer of the result, which need not be `at`'s, and the rows that it runs on.
    pub fn push(
        &mut self,
        at: Value,
        kind: impl StepKind + 'static,
        inputs: &[Value],
        constants: &[Value],
        out: usize,
        rows: RowSet,
    ) -> Result<(), Diagnostic> {
        let mut buffers = Vec::with_capacity(inputs.len());
        for (i, &input) in inputs.iter().enumerate() {
            let decoded = if kind.reads_levels(i) { self.decoded[input.index()] } else { None };
            let buffer = decoded.or(self.plan.of[input.index()]);
            buffers.push(buffer.ok_or_else(|| self.misfit(at, "an operand is not rows, one per token"))?);
        }
        let mut weights = Vec::with_capacity(constants.len());
        for &constant in constants {
            let Op::Leaf(LeafOp::Weight(id)) = self.graph.node(constant).op else {
                return Err(self.misfit(at, "an operand should be a constant"));
            };
            weights.push(id);
        }
        let now = self.plan.steps.len();
        buffers.iter().for_each(|&buffer| self.lives[buffer][1] = now);
        let kind = Box::new(kind);
        self.plan.steps.push(Step { node: at, kind, inputs: buffers, constants: weights, out, also: None, rows });
        Ok(())
    }

    /// Says that the last step has the value `of` as its second result, on the same rows.
    ///
    /// # Errors
    /// It is not rows, or there is no step.
    pub fn also(&mut self, of: Value) -> Result<(), Diagnostic> {
        let buffer = self.buffer(of, self.graph.ty(of))?;
        let Some(step) = self.plan.steps.last_mut() else { return Err(self.misfit(of, "no step makes it")) };
        step.also = Some(buffer);
        let now = self.plan.steps.len() - 1;
        self.lives[buffer] = [now, now];
        self.plan.of[of.index()] = Some(buffer);
        Ok(())
    }

    /// Whether all rows of a value are needed.
    pub fn row_set(&self, at: Value) -> RowSet {
        if self.late[at.index()] { RowSet::Wanted } else { RowSet::All }
    }

    /// A buffer for rows of this type, written first by the next step.
    pub fn buffer(&mut self, at: Value, ty: Type) -> Result<usize, Diagnostic> {
        let row_bytes = row_bytes(ty).ok_or_else(|| self.misfit(at, &format!("{ty} is not rows, one per token")))?;
        let now = self.plan.steps.len();
        self.plan.buffers.push(ValueBuffer { ty, offset: 0, row_bytes });
        self.lives.push([now, now]);
        Ok(self.plan.buffers.len() - 1)
    }

    /// Says that the value lies in a buffer that is there.
    pub fn lies_in(&mut self, at: Value, buffer: usize) {
        self.plan.of[at.index()] = Some(buffer);
    }

    /// Nodes that read the value.
    pub fn users(&self, value: Value) -> &[Value] {
        &self.users[value.index()]
    }

    /// The one node that reads the value, if it is no output.
    pub fn only_user(&self, value: Value) -> Option<Value> {
        let output = self.graph.outputs.iter().any(|(_, output)| *output == value);
        match self.users(value)[..] {
            [user] if !output => Some(user),
            _ => None,
        }
    }

    /// Channels of a row.
    pub fn width(&self, value: Value) -> Result<usize, Diagnostic> {
        let shape = self.graph.ty(value).shape();
        shape.row_width().ok_or_else(|| self.misfit(value, &format!("{shape} is not rows, one per token")))
    }

    /// The value's element; f32 for a spike train.
    pub fn elem(&self, value: Value) -> Elem {
        self.graph.ty(value).elem().unwrap_or(Elem::F32)
    }

    /// Code and timesteps of levels or of a spike train.
    pub fn levels(&self, value: Value) -> Result<(Code, u16), Diagnostic> {
        self.graph.ty(value).levels().ok_or_else(|| self.misfit(value, "levels or spikes were expected"))
    }

    /// Whether the value is a spike train.
    pub fn is_train(&self, value: Value) -> bool {
        matches!(self.graph.ty(value), Type::Train { .. })
    }

    /// Why a node has no step.
    pub fn misfit(&self, at: Value, why: &str) -> Diagnostic {
        Diagnostic::new(self.graph.origin(at), format!("`{}` cannot be planned: {why}", self.graph.node(at).op))
            .code(ErrorCode::RUN)
    }
}
