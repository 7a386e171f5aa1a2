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

/// A step, to be read.
#[derive(Clone, Debug)]
pub struct PlanRow {
    /// The node whose value it makes.
    pub node: Value,
    /// All nodes that it runs, constants and inputs that it reads included.
    pub nodes: Vec<Value>,
    /// What runs it.
    pub form: StepForm,
    /// The name of the kernel, or of the function in machine code.
    pub name: String,
    /// Its function in machine code, if it has one: the name of a listing.
    pub function: Option<String>,
    /// Where its result and its operands lie in the arena, and which rows it runs on.
    pub memory: String,
    /// Its line.
    pub text: String,
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
    /// Ids, positions, openings and rows of another program, where the program uses them.
    pub tokens: Option<usize>,
    pub positions: Option<usize>,
    pub opening: Option<usize>,
    pub stream: Option<usize>,
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
        for row in self.rows(graph, wide) {
            text += &row.text;
            text.push('\n');
        }
        text
    }

    /// Its steps, to be read; `wide` as `StepKind::form` has it.
    pub fn rows(&self, graph: &Graph, wide: bool) -> Vec<PlanRow> {
        let nodes = self.nodes_by_step(graph);
        self.steps
            .iter()
            .enumerate()
            .zip(nodes)
            .map(|((i, step), nodes)| self.row(graph, wide, i, step, nodes))
            .collect()
    }

    fn row(&self, graph: &Graph, wide: bool, i: usize, step: &Step, nodes: Vec<Value>) -> PlanRow {
        let buffer = &self.buffers[step.out];
        let rows = if step.rows == RowSet::Wanted { " (wanted rows)" } else { "" };
        let inputs: Vec<String> = step.inputs.iter().map(|&input| format!("@{}", self.buffers[input].offset)).collect();
        let also = step.also.map_or(String::new(), |also| format!(" and @{}", self.buffers[also].offset));
        let (form, name) = (step.kind.form(wide), step.kind.name());
        let kind = match form {
            StepForm::Kernel => "kernel",
            StepForm::Code => "code",
            StepForm::Loop => "loop",
        };
        let text = format!(
            "{i:4}  {:<28} {:<32} @{:<9} <- {:<20} {kind} {name}{also}{rows}  {}",
            graph.node(step.node).op.to_string(),
            buffer.ty.to_string(),
            buffer.offset,
            inputs.join(" "),
            graph.origin(step.node)
        );
        let function = (form != StepForm::Kernel).then(|| step.kind.function());
        let memory = format!("@{} <- {}{also}{rows}", buffer.offset, inputs.join(" "));
        PlanRow { node: step.node, nodes, form, name, function, memory, text }
    }

    /// By step: the nodes that it runs, in ascending order. A node without a step of its own is run by those of its users.
    fn nodes_by_step(&self, graph: &Graph) -> Vec<Vec<Value>> {
        let mut of_node: Vec<Vec<usize>> = vec![Vec::new(); graph.nodes.len()];
        for (i, step) in self.steps.iter().enumerate() {
            of_node[step.node.index()].push(i);
        }
        let also = |buffer: usize| self.steps.iter().position(|step| step.also == Some(buffer));
        let users = graph.users();
        let mut nodes = vec![Vec::new(); self.steps.len()];
        for (value, _) in graph.iter().rev() {
            let at = value.index();
            if of_node[at].is_empty() {
                of_node[at].extend(self.of[at].and_then(also));
            }
            if of_node[at].is_empty() {
                let mut steps: Vec<usize> = users[at].iter().flat_map(|user| of_node[user.index()].clone()).collect();
                steps.sort_unstable();
                steps.dedup();
                of_node[at] = steps;
            }
        }
        for (value, _) in graph.iter() {
            of_node[value.index()].iter().for_each(|&step| nodes[step].push(value));
        }
        nodes
    }
}
