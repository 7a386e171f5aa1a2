//! Rows that are constants where a sequence has begun in certain ways.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::{Diagnostic, Value};

/// Constant rows stand where a sequence has begun in their way.
#[derive(Debug)]
struct AtStartStep;

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    p.step(at, AtStartStep, &args[..2], &args[2..])
}

impl StepKind for AtStartStep {
    fn name(&self) -> String {
        "at_start".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, opening, ..], out, .. } = call;
        let (starts, rows) = (constants.i32(0)?, constants.f32(1)?);
        resources.kernels.at_start(numbers(x)?, numbers(opening)?, starts, rows, numbers_mut(out)?);
        Ok(())
    }
}
