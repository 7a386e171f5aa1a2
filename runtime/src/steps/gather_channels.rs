//! Some channels of every row.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::{Diagnostic, Value};

/// `y[n, k] = x[n, channels[k]]`, of rows of `inputs`.
#[derive(Debug)]
struct GatherChannelsStep {
    inputs: usize,
}

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    p.step(at, GatherChannelsStep { inputs: p.width(args[0])? }, &args[..1], &args[1..])
}

impl StepKind for GatherChannelsStep {
    fn name(&self) -> String {
        "gather_channels".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, .. } = call;
        resources.kernels.gather_channels(numbers(x)?, self.inputs, constants.i32(0)?, numbers_mut(out)?);
        Ok(())
    }
}
