//! Rows of a table: of a table of its own in f32, or the columns of the output layer's weight in 8 bits.

use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, check_known, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::types::Elem;
use snnc_ir::{Diagnostic, Value};

/// Rows of a table.
#[derive(Debug)]
struct EmbedStep {
    width: usize,
}

/// Columns of a weight.
#[derive(Debug)]
struct EmbedColumnsStep {
    inputs: usize,
    outputs: usize,
}

/// # Errors
/// The table is no matrix.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let sizes = p.graph.ty(args[1]).shape().sizes().unwrap_or_default();
    let [rows, width] = sizes[..] else { return Err(p.misfit(at, "its table is no matrix")) };
    match p.elem(args[1]) {
        Elem::I8 => p.step(at, EmbedColumnsStep { inputs: rows, outputs: width }, &args[..1], &args[1..]),
        _ => p.step(at, EmbedStep { width }, &args[..1], &args[1..]),
    }
}

impl StepKind for EmbedStep {
    fn name(&self) -> String {
        "embed".into()
    }

    fn executed(&self, rows: usize, _: &Events, _: &MatmulCounts) -> Executed {
        Executed { bytes: rows as u64 * 4 * self.width as u64, ..Executed::default() }
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [ids, ..], out, .. } = call;
        check_known(resources.kernels.embed(numbers(ids)?, constants.f32(0)?, self.width, numbers_mut(out)?))
    }
}

impl StepKind for EmbedColumnsStep {
    fn name(&self) -> String {
        "embed_columns".into()
    }

    fn executed(&self, rows: usize, _: &Events, _: &MatmulCounts) -> Executed {
        Executed { bytes: rows as u64 * self.inputs as u64, ..Executed::default() }
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [ids, ..], out, .. } = call;
        let w = constants.panels(0, self.inputs, self.outputs)?;
        check_known(resources.kernels.embed_columns(numbers(ids)?, w, numbers_mut(out)?))
    }
}
