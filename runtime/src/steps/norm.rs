//! Rows to mean 0 and variance 1, with and without a gain and an offset per channel.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, check_finite, numbers, numbers_mut};
use snnc_ir::op::Scalar;
use snnc_ir::{Diagnostic, Value};

/// Layer norm with gain and offset.
#[derive(Debug)]
struct LayerNormStep {
    eps: Scalar,
}

/// Layer norm alone.
#[derive(Debug)]
struct LayerNormNoGainStep {
    eps: Scalar,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, eps: Scalar) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    p.step(at, LayerNormStep { eps }, &args[..1], &args[1..])
}

/// # Errors
/// Operands are not rows.
pub fn plan_no_gain(p: &mut Planner<'_>, at: Value, eps: Scalar) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    p.step(at, LayerNormNoGainStep { eps, width }, &p.graph.node(at).args, &[])
}

impl StepKind for LayerNormStep {
    fn name(&self) -> String {
        "layer_norm".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, .. } = call;
        let (gain, offset) = (constants.f32(0)?, constants.f32(1)?);
        check_finite(resources.kernels.layer_norm(numbers(x)?, gain, offset, self.eps.get(), numbers_mut(out)?))
    }
}

impl StepKind for LayerNormNoGainStep {
    fn name(&self) -> String {
        "layer_norm_no_gain".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        let y = numbers_mut(out)?;
        check_finite(resources.kernels.layer_norm_no_gain(numbers(x)?, self.width, self.eps.get(), y))
    }
}
