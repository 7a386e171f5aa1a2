//! The oracle as an engine: every node of the graph, evaluated as `snnc_ir::eval` says.
//!
//! It evaluates all rows whatever is wanted; events of neurons that lead to no state are then counted on the wanted rows
//! only, as an engine that skips the others counts them. It keeps no constants of its own between steps: slow, and meant so.

use crate::executor::{Executor, OutputRows, Rows, SequenceSpan};
use crate::liveness::leads_to_no_state;
use crate::memory_limit::MemoryReservation;
use crate::meter::Meter;
use snnc_ir::eval::{Array, Content, Evaluator, Memory, fired};
use snnc_ir::events::Events;
use snnc_ir::op::{LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Diagnostic, Graph, Node, Op, Type, Value};
use std::sync::Arc;

/// Some sequences, evaluated one after the other.
#[derive(Debug)]
pub struct Interpreter {
    graph: Arc<Graph>,
    count: bool,
    sequences: Vec<EvaluatedSequence>,
    /// By output of the graph: its wanted rows in the last step.
    outputs: Vec<OutputRows>,
}

/// What it keeps of one.
#[derive(Clone, Debug)]
struct EvaluatedSequence {
    memory: Memory<f32>,
    marked: Memory<f32>,
}

impl Interpreter {
    pub fn new(graph: Arc<Graph>, count: bool, sequences: usize) -> Self {
        let memory = Memory::new(&graph);
        let sequences = vec![EvaluatedSequence { marked: memory.clone(), memory }; sequences];
        let outputs = vec![OutputRows::default(); graph.outputs.len()];
        Self { graph, count, sequences, outputs }
    }

    /// Evaluates one span, adds its wanted rows to the outputs and what was done to `events`.
    fn span(&mut self, span: &SequenceSpan<'_>, rows: Rows, events: &mut [Events]) -> Result<(), Diagnostic> {
        let evaluator = Evaluator::<f32>::with_stream(&self.graph, span.stream);
        let bytes = oracle_bytes(&self.graph, span.tokens.len());
        let _reserved = MemoryReservation::new(bytes, "values of all nodes in the interpreter")?;
        let late = leads_to_no_state(&self.graph);
        let first = |value: Value| if late[value.index()] { first_wanted(rows, span.tokens.len()) } else { 0 };
        let done = evaluator.run_wanted(span.tokens, &mut self.sequences[span.sequence].memory, &first)?;
        for (kept, (_, value)) in self.outputs.iter_mut().zip(&self.graph.outputs) {
            keep_wanted(kept, evaluator.get(&done, *value), rows);
        }
        for (value, node) in self.graph.iter() {
            let counted =
                node.op.is_neuron() || matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse));
            events[value.index()] += match (counted, late[value.index()]) {
                (true, _) if !self.count => Events::default(),
                (true, true) if node.op.is_neuron() => recount(evaluator.get(&done, value), node.ty, rows),
                // Rows that nobody wants are not run.
                (true, true) => {
                    let spikes = recount(evaluator.get(&done, node.args[0]), self.graph.ty(node.args[0]), rows).spikes;
                    let outputs = node.ty.shape().width().unwrap_or(0) as u64;
                    Events { additions: spikes * outputs, ..Events::default() }
                }
                (true, false) | (false, _) => done.events[value.index()],
            };
        }
        Ok(())
    }
}

impl Executor for Interpreter {
    fn past(&self, sequence: usize) -> usize {
        self.sequences[sequence].memory.past()
    }

    fn reset(&mut self, sequence: usize) {
        self.sequences[sequence].memory = Memory::new(&self.graph);
    }

    fn shorten(&mut self, sequence: usize, tokens: usize) -> bool {
        self.sequences[sequence].memory.shorten(tokens)
    }

    fn mark(&mut self, sequence: usize) {
        let sequence = &mut self.sequences[sequence];
        sequence.marked = sequence.memory.clone();
    }

    fn rewind(&mut self, sequence: usize) {
        let sequence = &mut self.sequences[sequence];
        sequence.memory = sequence.marked.clone();
    }

    fn step(&mut self, spans: &[SequenceSpan<'_>], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic> {
        self.outputs.iter_mut().for_each(OutputRows::clear);
        let mut events = vec![Events::default(); self.graph.nodes.len()];
        for (i, span) in spans.iter().enumerate() {
            let last = i + 1 == spans.len();
            self.span(span, if rows == Rows::Last && !last { Rows::None } else { rows }, &mut events)?;
        }
        meter.events.iter_mut().zip(events).for_each(|(all, events)| *all += events);
        Ok(())
    }

    fn output(&self, value: Value) -> &[f32] {
        let i = self.graph.outputs.iter().position(|(_, output)| *output == value);
        i.map_or(&[], |i| &self.outputs[i].f32)
    }

    fn levels(&self, value: Value) -> Vec<i32> {
        let i = self.graph.outputs.iter().position(|(_, output)| *output == value);
        i.map_or(Vec::new(), |i| self.outputs[i].levels.clone())
    }
}

/// Bytes of all values of so many tokens: the oracle forgets none before the pass ends.
fn oracle_bytes(graph: &Graph, tokens: usize) -> u128 {
    let numbers = |node: &Node| {
        let steps = match node.ty {
            Type::Train { steps, .. } => u128::from(steps),
            Type::Tensor { .. } => 1,
        };
        node.ty.shape().concrete(tokens, 0).iter().fold(steps, |product, &n| product.saturating_mul(n as u128))
    };
    let run = graph.nodes.iter().filter(|node| !matches!(node.op, Op::Leaf(LeafOp::Weight(_))));
    run.map(numbers).fold(0, u128::saturating_add).saturating_mul(4)
}

fn first_wanted(rows: Rows, all: usize) -> usize {
    match rows {
        Rows::All => 0,
        Rows::Last => all - 1,
        Rows::None => all,
    }
}

fn keep_wanted(kept: &mut OutputRows, array: &Array<f32>, rows: Rows) {
    let [n, d] = array.sizes[..] else { return };
    let first = first_wanted(rows, n);
    match &array.content {
        Content::Real(data) => kept.f32.extend_from_slice(&data[first * d..]),
        Content::Int(data) => kept.levels.extend_from_slice(&data[first * d..]),
        Content::Train(parts) => {
            (first..n).for_each(|row| parts.iter().for_each(|part| kept.levels.extend(&part[row * d..][..d])));
        }
    }
}

/// Spikes of a neuron on the wanted rows.
fn recount(array: &Array<f32>, ty: Type, rows: Rows) -> Events {
    let from = first_wanted(rows, array.sizes[0]) * array.sizes[1];
    match (&array.content, ty.levels()) {
        (Content::Int(levels), Some((code, steps))) => fired(code, steps, &levels[from..]),
        (Content::Train(parts), _) => {
            let spikes = parts.iter().map(|part| part[from..].iter().filter(|&&spike| spike != 0).count() as u64).sum();
            let neurons = from..array.sizes.iter().product();
            let active = neurons.clone().filter(|&i| parts.iter().any(|part| part[i] != 0)).count() as u64;
            let saturated = neurons.filter(|&i| parts.iter().all(|part| part[i] != 0)).count() as u64;
            Events { spikes, active, saturated, ..Events::default() }
        }
        (Content::Real(_) | Content::Int(_), _) => Events::default(),
    }
}
