//! A program as it runs: its plan, and the functions that were compiled for it.

use crate::explore::disassembly::{Instruction, instructions};
use crate::explore::stages::{LayerFilter, Places};
use serde::{Serialize, Serializer};
use snnc_ir::Diagnostic;
use snnc_runtime::{CodeMap, FunctionListing, PlanRow, Program, StepForm};
use std::collections::HashMap;

/// A program in one of the forms in which it runs.
#[derive(Debug, Serialize)]
pub struct ExploredProgram {
    /// `collapsed` or `stepped`.
    pub form: &'static str,
    /// Its plan.
    pub rows: Vec<ExploredRow>,
    /// What was compiled: a function for each distinct work, and the one that runs the plan.
    pub functions: Vec<CodeFunction>,
}

/// What runs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runner {
    /// A Rust kernel: it is not generated.
    Kernel,
    /// Machine code.
    Code,
    /// A Rust kernel around a loop in machine code.
    Loop,
}

impl Runner {
    fn word(self) -> &'static str {
        match self {
            Runner::Kernel => "kernel",
            Runner::Code => "code",
            Runner::Loop => "loop",
        }
    }
}

/// A row of a plan.
#[derive(Debug, Serialize)]
pub struct ExploredRow {
    /// The step.
    pub step: u32,
    /// What runs it, and what it computes.
    pub text: String,
    /// Where its result and its operands lie in memory, in bytes from the start of the arena.
    pub memory: String,
    /// What runs it.
    pub runs: Runner,
    /// The kernel, or the function.
    pub name: String,
    /// Its function in machine code, an index into the functions.
    pub function: Option<usize>,
    /// Where its node comes from, an index into the places.
    pub place: u32,
}

/// A compiled function. Each instruction of Cranelift's IR has a number.
#[derive(Debug, Serialize)]
pub struct CodeFunction {
    /// Its name.
    pub name: String,
    /// Sets of steps. The first is that of what belongs to no instruction.
    pub sets: Vec<Vec<u32>>,
    /// By instruction of Cranelift's IR: its set.
    pub of: Vec<u32>,
    /// Lines of Cranelift's IR, and which instruction each one is.
    pub clif: Vec<(String, Option<u32>)>,
    /// The machine's instructions.
    pub code: Vec<MachineLine>,
    /// Bytes of code.
    pub bytes: usize,
    /// Whether instructions of the machine are linked one by one: there is a disassembler for it.
    pub exact: bool,
}

/// A line of machine code.
#[derive(Clone, Debug)]
pub struct MachineLine {
    /// Where it begins; `None` where only the text is known.
    pub offset: Option<u32>,
    /// Its bytes in hexadecimal.
    pub bytes: String,
    /// The instruction.
    pub text: String,
    /// The instruction of Cranelift's IR that it was made from; `None` for labels, constants, what a function begins with, and
    /// what the optimiser made anew.
    pub clif: Option<u32>,
    /// Its set of steps. What the optimiser made anew has that of the next instruction that has one.
    pub set: u32,
}

impl Serialize for MachineLine {
    /// A list, because there are thousands.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.offset, &self.bytes, &self.text, self.clif, self.set).serialize(serializer)
    }
}

/// A program and, by node of its graph, the steps that run it. `places` are those of the nodes. Also how many rows are left out.
///
/// # Errors
/// It cannot be compiled again.
pub fn explored(
    form: &'static str,
    program: &Program,
    places: &[u32],
    all: &Places,
    filter: &LayerFilter,
) -> Result<(ExploredProgram, Vec<Vec<u32>>, usize), Diagnostic> {
    let (rows, listings) = (program.plan_rows(), program.listings()?);
    let names: HashMap<&str, usize> =
        listings.iter().enumerate().map(|(i, listing)| (listing.name.as_str(), i)).collect();
    let mut steps = vec![Vec::new(); program.graph().nodes.len()];
    for (i, row) in (0..).zip(&rows) {
        row.nodes.iter().for_each(|node| steps[node.index()].push(i));
    }
    let row = |(step, row): (u32, &PlanRow)| {
        let node = program.graph().node(row.node);
        let runs = match row.form {
            StepForm::Kernel => Runner::Kernel,
            StepForm::Code => Runner::Code,
            StepForm::Loop => Runner::Loop,
        };
        ExploredRow {
            step,
            text: format!("{step:4}  {:<6} {:<30} {} : {}", runs.word(), row.name, node.op, node.ty),
            memory: row.memory.clone(),
            runs,
            name: row.name.clone(),
            function: row.function.as_deref().and_then(|name| names.get(name).copied()),
            place: places[row.node.index()],
        }
    };
    let shown: Vec<ExploredRow> =
        (0..).zip(&rows).map(row).filter(|row| filter.shows(all.all[row.place as usize].layer)).collect();
    let left_out = rows.len() - shown.len();
    let functions = listings.iter().map(function).collect();
    Ok((ExploredProgram { form, rows: shown, functions }, steps, left_out))
}

fn function(listing: &FunctionListing) -> CodeFunction {
    let map = &listing.map;
    let decoded = instructions(listing);
    let exact = decoded.is_some();
    let code = match decoded {
        Some(all) => all.into_iter().map(|at| machine_line(map, at)).collect(),
        None => {
            let bare = |text: &str| MachineLine {
                offset: None,
                bytes: String::new(),
                text: text.trim_end().into(),
                clif: None,
                set: 0,
            };
            listing.asm.lines().map(bare).collect()
        }
    };
    CodeFunction {
        name: listing.name.clone(),
        sets: map.steps.clone(),
        of: map.instructions.clone(),
        clif: listing.clif.lines().map(str::to_string).zip(map.lines.iter().copied()).collect(),
        code,
        bytes: map.code.len(),
        exact,
    }
}

fn machine_line(map: &CodeMap, at: Instruction) -> MachineLine {
    let after = map.ranges.partition_point(|range| range.start <= at.offset);
    let own = map.ranges[..after].last().filter(|range| at.runs && at.offset < range.end);
    let clif = own.and_then(|range| range.instruction);
    let begins = own.is_some_and(|range| range.start == 0);
    let next = || map.ranges[after..].iter().find_map(|range| range.instruction);
    let counted = clif.or_else(|| if at.runs && !begins { next() } else { None });
    MachineLine {
        offset: Some(at.offset),
        bytes: at.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        text: at.text,
        clif,
        set: counted.and_then(|number| map.instructions.get(number as usize).copied()).unwrap_or(0),
    }
}
