//! A curve by its formula, element by element: dense programs have these. Neurons look their curve up in a table.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::{Curve, Diagnostic, Value};

/// `y = curve(x)`.
#[derive(Debug)]
struct CurveStep {
    curve: Curve,
}

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, curve: Curve) -> Result<(), Diagnostic> {
    p.step(at, CurveStep { curve }, &p.graph.node(at).args, &[])
}

impl StepKind for CurveStep {
    fn name(&self) -> String {
        format!("curve {}", self.curve.name())
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        resources.kernels.curve_f32(self.curve, numbers(x)?, numbers_mut(out)?);
        Ok(())
    }
}
