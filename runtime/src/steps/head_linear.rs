//! A dense map of its own for every head.

use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::{Diagnostic, Value};

/// `y[heads, outputs] = x[heads, inputs] w[heads, inputs, outputs]`, head by head.
#[derive(Debug)]
struct HeadLinearStep {
    heads: usize,
    inputs: usize,
    outputs: usize,
}

/// # Errors
/// The weight is not of three axes.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let sizes = p.graph.ty(args[1]).shape().sizes().unwrap_or_default();
    let [heads, inputs, outputs] = sizes[..] else { return Err(p.misfit(at, "its maps have no heads")) };
    p.step(at, HeadLinearStep { heads, inputs, outputs }, &args[..1], &args[1..])
}

impl StepKind for HeadLinearStep {
    fn name(&self) -> String {
        "head_linear".into()
    }

    fn executed(&self, rows: usize, _: &Events, _: &MatmulCounts) -> Executed {
        let weights = self.heads * self.inputs * self.outputs;
        Executed::dense(rows, weights, 4 * weights)
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, .. } = call;
        let (w, y) = (constants.f32(0)?, numbers_mut(out)?);
        resources.kernels.head_linear(numbers(x)?, w, self.inputs, self.outputs, y);
        Ok(())
    }
}
