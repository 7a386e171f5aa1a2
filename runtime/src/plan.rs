//! What runs in which order, and where results lie.
//!
//! Every value has rows, one per token of the chunk, so row `r` lies at `offset + r * row_bytes` of one arena in which values
//! share memory when their lives do not overlap. A step that leads to no state runs on the wanted rows alone.
//!
//! The plan knows no addresses and runs nothing: it is the same for all sessions.

use crate::step::{StepForm, StepKind};
use snnc_ir::{Graph, Type, Value, WeightId};

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
pub struct ValueBuffer {
    pub ty: Type,
    pub offset: usize,
    pub row_bytes: usize,
}

/// One entry of the plan.
#[derive(Debug)]
pub struct Step {
    pub node: Value,
    pub kind: Box<dyn StepKind>,
    /// Indices into `Plan::buffers`.
    pub inputs: Vec<usize>,
    pub constants: Vec<WeightId>,
    pub out: usize,
    /// The buffer of a second result.
    pub also: Option<usize>,
    pub rows: RowSet,
}

/// A graph in the order in which it is run.
#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub buffers: Vec<ValueBuffer>,
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
    /// Words of scratch that the widest synapse in machine code needs.
    pub fn scratch_words(&self) -> usize {
        self.steps.iter().map(|step| step.kind.scratch_words()).max().unwrap_or(0)
    }

    /// The plan as text, one line per step; `wide` as `StepKind::form` has it.
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
            let also = step.also.map_or(String::new(), |also| format!(" and @{}", self.buffers[also].offset));
            let kind = match step.kind.form(wide) {
                StepForm::Kernel => "kernel",
                StepForm::Code => "code",
                StepForm::Loop => "loop",
            };
            text += &format!(
                "{i:4}  {:<28} {:<32} @{:<9} <- {:<20} {kind} {}{also}{rows}  {}\n",
                graph.node(step.node).op.to_string(),
                buffer.ty.to_string(),
                buffer.offset,
                inputs.join(" "),
                step.kind.name(),
                graph.origin(step.node)
            );
        }
        text
    }
}
