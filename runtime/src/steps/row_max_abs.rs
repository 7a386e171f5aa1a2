//! The largest magnitude of every row, or of every head of it.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, check_finite, numbers, numbers_mut};
use snnc_ir::{Diagnostic, Value};

/// One number per `width` of a row.
#[derive(Debug)]
struct RowMaxAbsStep {
    width: usize,
}

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: u32) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    p.step(at, RowMaxAbsStep { width: p.width(args[0])? / heads as usize }, args, &[])
}

impl StepKind for RowMaxAbsStep {
    fn name(&self) -> String {
        "row_max_abs".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        check_finite(resources.kernels.row_max_abs(numbers(x)?, self.width, numbers_mut(out)?))
    }
}
