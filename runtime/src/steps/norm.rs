//! What normalises rows: less their mean, and over the root of their mean square. Gains are steps of their own.

use crate::jit::dispatch;
use crate::kernels::SpikeCount;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, check_finite, numbers, numbers_mut};
use snnc_ir::op::Scalar;
use snnc_ir::{Diagnostic, Value};

/// Rows less their mean.
#[derive(Debug)]
struct CentreStep {
    width: usize,
}

/// Rows, or heads of rows, over the root of their mean square.
#[derive(Debug)]
struct RmsNormStep {
    eps: Scalar,
    /// Channels that are normalised together.
    width: usize,
}

/// # Errors
/// The operand is not rows.
pub fn plan_centre(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    p.step(at, CentreStep { width }, &p.graph.node(at).args, &[])
}

/// # Errors
/// The operand is not rows.
pub fn plan_rms(p: &mut Planner<'_>, at: Value, eps: Scalar, heads: usize) -> Result<(), Diagnostic> {
    let width = p.width(at)? / heads;
    p.step(at, RmsNormStep { eps, width }, &p.graph.node(at).args, &[])
}

impl StepKind for CentreStep {
    fn name(&self) -> String {
        "centre".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        let (x, width, kernels) = (numbers::<f32>(x)?, self.width, resources.kernels);
        dispatch::by_rows(resources.pool, numbers_mut(out)?, width, |first, y| {
            kernels.centre(&x[first * width..][..y.len()], width, y);
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}

impl StepKind for RmsNormStep {
    fn name(&self) -> String {
        "rms_norm".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        let (x, width, kernels) = (numbers::<f32>(x)?, self.width, resources.kernels);
        dispatch::by_rows(resources.pool, numbers_mut(out)?, width, |first, y| {
            check_finite(kernels.rms_norm(&x[first * width..][..y.len()], width, self.eps.get(), y))?;
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}
