//! A program as it runs: its plan, and the functions that were compiled for it.

use crate::explore::disassembly::instructions;
use crate::explore::stages::LayerFilter;
use crate::explore::stages::Places;
use serde::{Serialize, Serializer};
use snnc_ir::Diagnostic;
use snnc_runtime::{FunctionListing, PlanRow, Program, StepForm};
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

/// A row of a plan.
#[derive(Debug, Serialize)]
pub struct ExploredRow {
    /// The step.
    pub step: u32,
    /// As the plan prints it, without its origin.
    pub text: String,
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
    /// The instruction of Cranelift's IR that it was made from.
    pub clif: Option<u32>,
}

impl Serialize for MachineLine {
    /// A list, because there are thousands.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.offset, &self.bytes, &self.text, self.clif).serialize(serializer)
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
    let row = |(step, row): (u32, &PlanRow)| ExploredRow {
        step,
        text: without_origin(&row.text, &program.graph().origin(row.node).name),
        runs: match row.form {
            StepForm::Kernel => Runner::Kernel,
            StepForm::Code => Runner::Code,
            StepForm::Loop => Runner::Loop,
        },
        name: row.name.clone(),
        function: row.function.as_deref().and_then(|name| names.get(name).copied()),
        place: places[row.node.index()],
    };
    let shown: Vec<ExploredRow> =
        (0..).zip(&rows).map(row).filter(|row| filter.shows(all.all[row.place as usize].layer)).collect();
    let left_out = rows.len() - shown.len();
    let functions = listings.iter().map(function).collect();
    Ok((ExploredProgram { form, rows: shown, functions }, steps, left_out))
}

/// A row ends with its origin.
fn without_origin(text: &str, origin: &str) -> String {
    text.strip_suffix(origin).unwrap_or(text).trim_end().to_string()
}

fn function(listing: &FunctionListing) -> CodeFunction {
    let map = &listing.map;
    let decoded = instructions(listing);
    let exact = decoded.is_some();
    let of_offset = |offset: u32| {
        let after = map.ranges.partition_point(|range| range.start <= offset);
        map.ranges[..after].last().filter(|range| offset < range.end).and_then(|range| range.instruction)
    };
    let code = match decoded {
        Some(all) => all
            .into_iter()
            .map(|at| MachineLine {
                offset: Some(at.offset),
                bytes: at.bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                clif: if at.runs { of_offset(at.offset) } else { None },
                text: at.text,
            })
            .collect(),
        None => {
            let line = |text: &str| MachineLine {
                offset: None,
                bytes: String::new(),
                text: text.trim_end().into(),
                clif: None,
            };
            listing.asm.lines().map(line).collect()
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
