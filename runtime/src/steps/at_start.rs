//! Rows that are constants where certain tokens begin a sequence.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::{Diagnostic, Value};

/// Constant rows stand where their tokens begin a sequence.
#[derive(Debug)]
struct AtStartStep;

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    p.step(at, AtStartStep, &args[..3], &args[3..])
}

impl StepKind for AtStartStep {
    fn name(&self) -> String {
        "at_start".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, tokens, positions], out, .. } = call;
        let tokens = [numbers(tokens)?, numbers(positions)?];
        let (ids, rows) = (constants.i32(0)?, constants.f32(1)?);
        resources.kernels.at_start(numbers(x)?, tokens, ids, rows, numbers_mut(out)?);
        Ok(())
    }
}
