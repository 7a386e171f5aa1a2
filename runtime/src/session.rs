//! One sequence of tokens: what it has seen, what it has done, and the outputs of the last call.
//!
//! Law: a token's numbers depend on it and its past alone, so how a sequence is cut into calls and calls into chunks never
//! shows. A call that fails leaves the sequence as it was before it.

use crate::meter::{Executed, Meter, Products};
use crate::program::Program;
use snnc_ir::price::Events;
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

/// An engine with one sequence in it.
pub trait Machine: fmt::Debug + Send {
    fn past(&self) -> usize;

    /// Forgets the sequence.
    fn reset(&mut self);

    /// Remembers where the sequence stands, for `rewind`.
    fn mark(&mut self);

    /// Goes back to the last mark.
    fn rewind(&mut self);

    /// Runs one chunk of tokens and adds what was done to the meter. The session has checked ids and lengths.
    ///
    /// # Errors
    /// A value that is not finite.
    fn step(&mut self, tokens: &[u32], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic>;

    /// The wanted rows of an f32 output in the last step.
    fn output(&self, value: Value) -> &[f32];
}

/// One sequence.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
    machine: Box<dyn Machine>,
    meter: Meter,
    /// By output of the graph: its wanted rows in the last call; empty where it is not f32.
    outputs: Vec<Vec<f32>>,
}

/// Outputs of one call.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    graph: &'a Graph,
    rows: &'a [Vec<f32>],
}

impl<'a> Outputs<'a> {
    /// The wanted rows of the f32 output of that name, row-major.
    pub fn f32(&self, name: &str) -> Option<&'a [f32]> {
        let i = self.graph.outputs.iter().position(|(known, _)| known == name)?;
        is_rows_of_f32(self.graph, self.graph.outputs[i].1).then(|| self.rows[i].as_slice())
    }
}

impl Session {
    pub fn new(program: Arc<Program>) -> Self {
        let machine = program.start();
        let meter = Meter::new(program.graph().nodes.len());
        let outputs = vec![Vec::new(); program.graph().outputs.len()];
        Self { program, machine, meter, outputs }
    }

    /// Tokens seen so far.
    pub fn past(&self) -> usize {
        self.machine.past()
    }

    /// Forgets the sequence; tallies stay.
    pub fn reset(&mut self) {
        self.machine.reset();
    }

    /// Runs `tokens` after what the session has seen.
    ///
    /// # Errors
    /// Ids outside a table, more tokens than the context, a value that is not finite. The sequence is then unchanged.
    pub fn forward(&mut self, tokens: &[u32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        check(self.program.graph(), tokens, self.past())?;
        self.outputs.iter_mut().for_each(Vec::clear);
        self.machine.mark();
        let chunk = self.program.options().chunk;
        for (i, part) in tokens.chunks(chunk).enumerate() {
            let last = (i + 1) * chunk >= tokens.len();
            if let Err(error) = self.step(part, if rows == Rows::Last && !last { Rows::None } else { rows }) {
                self.machine.rewind();
                return Err(error);
            }
        }
        Ok(Outputs { graph: self.program.graph(), rows: &self.outputs })
    }

    fn step(&mut self, tokens: &[u32], rows: Rows) -> Result<(), Diagnostic> {
        self.machine.step(tokens, rows, &mut self.meter)?;
        if rows == Rows::None {
            return Ok(());
        }
        for (kept, (_, value)) in self.outputs.iter_mut().zip(&self.program.graph().outputs) {
            if is_rows_of_f32(self.program.graph(), *value) {
                let rows = self.machine.output(*value);
                check_finite(self.program.graph(), *value, rows)?;
                kept.extend_from_slice(rows);
            }
        }
        Ok(())
    }

    /// What neurons and attention did so far, by node of the program's graph.
    pub fn events(&self) -> &[Events] {
        &self.meter.events
    }

    /// How products were done so far, by node.
    pub fn products(&self) -> &[Products] {
        &self.meter.products
    }

    /// What the plan did so far.
    pub fn executed(&self) -> Executed {
        self.meter.executed
    }
}

fn is_rows_of_f32(graph: &Graph, value: Value) -> bool {
    matches!(graph.ty(value), Type::Still { elem: Elem::F32, shape } if shape.row_width().is_some())
}

/// Engines check where they normalise; what lies after the last normalisation is checked here.
fn check_finite(graph: &Graph, value: Value, rows: &[f32]) -> Result<(), Diagnostic> {
    match rows.iter().find(|x| !x.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Diagnostic::new(graph.origin(value), format!("`{}` gave {bad:?}", graph.node(value).op))),
    }
}

/// Whether the tokens fit the context and every table that they, or their positions, are looked up in.
fn check(graph: &Graph, tokens: &[u32], past: usize) -> Result<(), Diagnostic> {
    let end = past + tokens.len();
    if end > graph.context as usize {
        return Err(Diagnostic::new("", format!("{end} tokens do not fit a context of {}", graph.context)));
    }
    let outside = |id: usize, rows: usize| Diagnostic::new("", format!("id {id} is outside the table of {rows} rows"));
    for (_, node) in graph.iter().filter(|(_, node)| node.op == Op::Embed) {
        let rows = graph.table_rows(node.args[1]).unwrap_or(0);
        let by_position = graph.node(node.args[0]).op == Op::Positions;
        if by_position && end > rows {
            return Err(outside(past.max(rows), rows));
        }
        if let Some(&id) = tokens.iter().find(|&&id| !by_position && id as usize >= rows) {
            return Err(outside(id as usize, rows));
        }
    }
    Ok(())
}
