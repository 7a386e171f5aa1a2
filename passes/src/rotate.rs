//! Turns the residual stream and the values of attention by orthogonal matrices, exact up to rounding.
//!
//! `rms_norm(x R) = rms_norm(x) R` for an orthogonal `R`. So the residual stream of a network may be turned for nothing: what writes it
//! takes `R`, what reads it takes the transpose (QuaRot: Ashkboos et al. 2024). A channel that is far larger than the others is then spread over all.
//! Attention's weights do not depend on its values, so the values of each head may be turned as well, and the projection behind attention
//! turns them back. `R` is a Hadamard matrix behind seeded random signs (`snnc_ir::hadamard`); it is made in f64, and weights are rounded once.
//!
//! The stream is turned as a whole or not at all. Where something acts on its channels one by one, the pass refuses and says where.

mod heads;
mod hidden;
mod refusal;
mod stream;
mod weights;

use crate::context::Context;
use crate::options::Rotations;
use heads::turned_heads;
use hidden::turned_hidden;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, Layout, LeafOp, LevelOp};
use snnc_ir::weight_store::kept;
use snnc_ir::{Binary, Builder, Diagnostic, ErrorCode, Graph, Node, Op, Tensor, Value, WeightId, WeightStore};
use std::collections::HashMap;
use std::sync::Arc;
use stream::ResidualStream;
use weights::{AxisTurn, AxisTurns, Turner};

/// The Tensor graph with what the context asks for rotated.
///
/// # Errors
/// It cannot be: something acts on single channels of the residual stream, or no attention reads a projection's values and is read
/// by a projection.
pub fn rotate(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    let Rotations { residual, heads, hidden } = context.rotations;
    let graph = if hidden { &turned_hidden(graph, context.store)? } else { graph };
    if !residual && !heads {
        return Ok(graph.clone());
    }
    let stream = if residual { ResidualStream::of(graph)? } else { ResidualStream::none(graph) };
    let heads = if heads { turned_heads(graph)? } else { vec![None; graph.nodes.len()] };
    Rebuild::new(graph, stream, heads, context.store).graph().map_err(Diagnostics::from)
}

/// What of a Tensor graph can be rotated, and why the rest cannot.
pub fn possible(graph: &Graph) -> (Rotations, Vec<Diagnostic>) {
    let (residual, heads) = (ResidualStream::of(graph), turned_heads(graph));
    let hidden = hidden::check(graph);
    let rotations = Rotations { residual: residual.is_ok(), heads: heads.is_ok(), hidden: hidden.is_ok() };
    (rotations, residual.err().into_iter().chain(heads.err()).chain(hidden.err()).collect())
}

/// A value of the graph in the making, as it is and with its channels centred.
type Forms = [Option<Value>; 2];

/// The graph in the making.
struct Rebuild<'g> {
    graph: &'g Graph,
    stream: ResidualStream,
    /// Of attention that is turned and of projections of its values: the width of a head.
    heads: Vec<Option<usize>>,
    builder: Builder,
    forms: Vec<Forms>,
    turner: Turner,
    /// Weights that were turned.
    turned: HashMap<(WeightId, AxisTurns), Arc<Tensor>>,
    /// Where they lie.
    store: Option<&'g dyn WeightStore>,
}

impl<'g> Rebuild<'g> {
    fn new(
        graph: &'g Graph,
        stream: ResidualStream,
        heads: Vec<Option<usize>>,
        store: Option<&'g dyn WeightStore>,
    ) -> Self {
        let builder = Builder::new(graph.stage, graph.context);
        let forms = Vec::with_capacity(graph.nodes.len());
        Self { graph, stream, heads, builder, forms, turner: Turner::default(), turned: HashMap::new(), store }
    }

    fn graph(mut self) -> Result<Graph, Diagnostic> {
        for (value, node) in self.graph.iter() {
            let mut forms = [None; 2];
            // Constants are made where they are read: one that is turned keeps its name.
            let is_constant = self.graph.constant(value).is_some();
            for (centred, form) in [false, true].into_iter().zip(&mut forms) {
                if self.stream.wanted(value, centred) && !is_constant {
                    *form = Some(self.form(value, node, centred)?);
                }
            }
            self.forms.push(forms);
        }
        let mut outputs = Vec::with_capacity(self.graph.outputs.len());
        for (name, value) in &self.graph.outputs {
            outputs.push((name.clone(), self.plain(*value)?));
        }
        Ok(self.builder.finish(outputs))
    }

    /// A value in the new graph, in one of its forms.
    fn form(&mut self, value: Value, node: &Node, centred: bool) -> Result<Value, Diagnostic> {
        let is_stream = self.stream.has(value);
        match node.op {
            Op::Dense(DenseOp::Linear(layout)) => self.linear(value, node, layout, centred),
            Op::Dense(DenseOp::Embed) if is_stream => {
                let turns = AxisTurns { first: None, last: self.stream_turn(value, centred) };
                let args = [self.plain(node.args[0])?, self.weight(node.args[1], turns)?];
                self.builder.add(node.op, &args, self.graph.origin(value))
            }
            Op::Level(LevelOp::ScaleShift) if is_stream => {
                let turns = AxisTurns { first: None, last: self.stream_turn(value, centred) };
                let shift = self.weight(node.args[2], turns)?;
                let args = [self.get(node.args[0], centred)?, self.plain(node.args[1])?, shift];
                self.builder.add(node.op, &args, self.graph.origin(value))
            }
            // What is centred was made so.
            Op::Dense(DenseOp::Centre) if is_stream => self.get(node.args[0], true),
            Op::Array(ArrayOp::Binary(Binary::Add)) if is_stream => {
                let args = [self.get(node.args[0], centred)?, self.get(node.args[1], centred)?];
                self.builder.add(node.op, &args, self.graph.origin(value))
            }
            op @ (Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_)) => {
                let args = node.args.iter().map(|arg| self.plain(*arg)).collect::<Result<Vec<Value>, _>>()?;
                self.builder.add(op, &args, self.graph.origin(value))
            }
        }
    }

    /// A projection, perhaps turned where it reads and where it writes.
    fn linear(&mut self, value: Value, node: &Node, layout: Layout, centred: bool) -> Result<Value, Diagnostic> {
        let [x, w, bias] = [node.args[0], node.args[1], node.args[2]];
        let head = |at: Value| self.heads[at.index()].map(|width| AxisTurn { width, centred: false });
        let input = if self.stream.has(x) { self.stream_turn(x, false) } else { head(x) };
        let output = if self.stream.has(value) { self.stream_turn(value, centred) } else { head(value) };
        let turns = match layout {
            Layout::InputMajor => AxisTurns { first: input, last: output },
            Layout::OutputMajor => AxisTurns { first: output, last: input },
        };
        let args =
            [self.plain(x)?, self.weight(w, turns)?, self.weight(bias, AxisTurns { first: None, last: output })?];
        self.builder.add(node.op, &args, self.graph.origin(value))
    }

    /// How the stream is turned where `value` is on it.
    fn stream_turn(&self, value: Value, centred: bool) -> Option<AxisTurn> {
        self.graph.ty(value).shape().width().map(|width| AxisTurn { width, centred })
    }

    /// A constant, turned.
    fn weight(&mut self, value: Value, turns: AxisTurns) -> Result<Value, Diagnostic> {
        let Op::Leaf(LeafOp::Weight(id)) = self.graph.node(value).op else { return self.plain(value) };
        let weight = self.graph.weight(id);
        // A bias of zeros is one, however it is turned.
        let is_zero = weight.tensor.as_f32().is_some_and(|data| data.iter().all(|x| *x == 0.0));
        if turns == AxisTurns::default() || is_zero {
            return Ok(self.builder.weight(&weight.name, weight.tensor.clone()));
        }
        let made = match self.turned.get(&(id, turns)) {
            Some(made) => made.clone(),
            None => {
                let made = self.turner.turned(&weight.tensor, turns);
                let made = kept(self.store, made.ok_or_else(|| lost(self.graph, value))?)?;
                self.turned.insert((id, turns), made.clone());
                made
            }
        };
        Ok(self.builder.weight(&weight.name, made))
    }

    fn plain(&mut self, value: Value) -> Result<Value, Diagnostic> {
        self.get(value, false)
    }

    fn get(&mut self, value: Value, centred: bool) -> Result<Value, Diagnostic> {
        if let Some(weight) = self.graph.constant(value) {
            return Ok(self.builder.weight(&weight.name, weight.tensor.clone()));
        }
        let form = self.forms.get(value.index()).and_then(|forms| forms[usize::from(centred)]);
        form.ok_or_else(|| lost(self.graph, value))
    }
}

/// What the rebuilt graph should have and does not.
fn lost(graph: &Graph, value: Value) -> Diagnostic {
    Diagnostic::new(graph.origin(value), "rotation lost a value; this is a defect of snnc").code(ErrorCode::PASS)
}
