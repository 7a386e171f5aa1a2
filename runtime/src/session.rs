//! One sequence of tokens: what it has seen, what it has done, and the outputs of the last call.
//!
//! Law: a token's numbers depend on it and its past alone, so how a sequence is cut into calls and calls into chunks never
//! shows. A call that fails leaves the sequence as it was before it.

use crate::batch::Batch;
use crate::meter::{Executed, MatmulCounts, Meter};
use crate::program::Program;
use snnc_ir::events::Events;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::types::Elem;
use snnc_ir::{Diagnostic, Graph, Op, Type, Value};
use std::fmt;
use std::sync::Arc;

/// Which rows of the outputs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    All,
    /// The last token's: what leads to no state runs on that token only.
    Last,
    /// None: only the state is kept up.
    None,
}

/// Some tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceSpan<'a> {
    /// Its number in the executor.
    pub sequence: usize,
    pub tokens: &'a [u32],
}

/// An engine with some sequences in it, numbered from 0.
pub trait Executor: fmt::Debug + Send {
    /// Tokens that the sequence has seen.
    fn past(&self, sequence: usize) -> usize;

    /// Forgets the sequence.
    fn reset(&mut self, sequence: usize);

    /// Remembers where the sequence stands, for `rewind`.
    fn mark(&mut self, sequence: usize);

    /// Goes back to the sequence's last mark.
    fn rewind(&mut self, sequence: usize);

    /// Runs spans of different sequences in one pass, at most a chunk of tokens in all, and adds what was done to the meter.
    /// `Rows::Last` is the last token of the last span. The caller has checked ids and lengths.
    ///
    /// # Errors
    /// A value that is not finite, in any of the sequences. Nothing is added then, and all of them are to be rewound.
    fn step(&mut self, spans: &[SequenceSpan<'_>], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic>;

    /// The wanted rows of an f32 output in the last step, span after span.
    fn output(&self, value: Value) -> &[f32];

    /// The wanted rows of an output of levels or spikes in the last step, span after span; a row of spikes has its timesteps
    /// one after the other.
    fn levels(&self, value: Value) -> Vec<i32>;
}

/// Rows of one output; which of the two depends on its type.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutputRows {
    pub(crate) f32: Vec<f32>,
    pub(crate) levels: Vec<i32>,
}

impl OutputRows {
    pub(crate) fn clear(&mut self) {
        self.f32.clear();
        self.levels.clear();
    }
}

/// Outputs of one call.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    pub(crate) graph: &'a Graph,
    /// By output of the graph.
    pub(crate) rows: &'a [OutputRows],
}

impl<'a> Outputs<'a> {
    /// The wanted rows of the f32 output of that name, row-major.
    pub fn f32(&self, name: &str) -> Option<&'a [f32]> {
        let i = self.graph.outputs.iter().position(|(known, _)| known == name)?;
        is_rows_of_f32(self.graph, self.graph.outputs[i].1).then(|| self.rows[i].f32.as_slice())
    }

    /// The wanted rows of the output of levels of that name, row-major, `[tokens,width]`; of a train of spikes -1, 0 and +1,
    /// `[tokens,timesteps,width]`. A program that is compiled has none: whoever wants to look at neurons names them as
    /// outputs.
    pub fn levels(&self, name: &str) -> Option<&'a [i32]> {
        let i = self.graph.outputs.iter().position(|(known, _)| known == name)?;
        let ty = self.graph.ty(self.graph.outputs[i].1);
        (ty.levels().is_some() && ty.shape().row_width().is_some()).then(|| self.rows[i].levels.as_slice())
    }
}

/// One sequence.
#[derive(Debug)]
pub struct Session {
    batch: Batch,
}

impl Session {
    pub fn new(program: Arc<Program>) -> Self {
        Self { batch: Batch::new(program, 1) }
    }

    /// Tokens seen so far.
    pub fn past(&self) -> usize {
        self.batch.past(0)
    }

    /// Forgets the sequence; tallies stay.
    pub fn reset(&mut self) {
        self.batch.reset(0);
    }

    /// Runs `tokens` after what the session has seen.
    ///
    /// # Errors
    /// Ids outside a table, more tokens than the context, a value that is not finite. The sequence is then unchanged.
    pub fn forward(&mut self, tokens: &[u32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        self.batch.forward(0, tokens, rows)
    }

    /// What neurons and attention did so far, by node of the program's graph.
    pub fn events(&self) -> &[Events] {
        self.batch.events()
    }

    /// How products were done so far, by node.
    pub fn matmul_counts(&self) -> &[MatmulCounts] {
        self.batch.matmul_counts()
    }

    /// What the plan did so far.
    pub fn executed(&self) -> Executed {
        self.batch.executed()
    }
}

pub(crate) fn is_rows_of_f32(graph: &Graph, value: Value) -> bool {
    matches!(graph.ty(value), Type::Tensor { elem: Elem::F32, shape } if shape.row_width().is_some())
}

/// Engines check where they normalise; what lies after the last normalisation is checked here.
pub(crate) fn check_finite(graph: &Graph, value: Value, rows: &[f32]) -> Result<(), Diagnostic> {
    match rows.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Diagnostic::new(graph.origin(value), format!("`{}` gave {bad:?}", graph.node(value).op))),
    }
}

/// Whether the tokens fit the context and every table that they, or their positions, are looked up in.
pub(crate) fn check(graph: &Graph, tokens: &[u32], past: usize) -> Result<(), Diagnostic> {
    let end = past + tokens.len();
    if end > graph.context as usize {
        return Err(Diagnostic::new("", format!("{end} tokens do not fit a context of {}", graph.context)));
    }
    let outside = |id: usize, rows: usize| Diagnostic::new("", format!("id {id} is outside the table of {rows} rows"));
    for (_, node) in graph.iter().filter(|(_, node)| node.op == Op::Dense(DenseOp::Embed)) {
        let rows = graph.table_rows(node.args[1]).unwrap_or(0);
        let by_position = graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions);
        if by_position && end > rows {
            return Err(outside(past.max(rows), rows));
        }
        if let Some(&id) = tokens.iter().find(|&&id| !by_position && id as usize >= rows) {
            return Err(outside(id as usize, rows));
        }
    }
    Ok(())
}
