//! Rows times, or divided by, a number of their own.

use crate::jit::dispatch;
use crate::kernels::SpikeCount;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use crate::steps::scaled_sums;
use snnc_ir::types::Shape;
use snnc_ir::{Diagnostic, Value};

/// `y[n, d] = x[n, d] * by[n]`, or divided by it.
#[derive(Debug)]
struct ScaleStep {
    divide: bool,
    width: usize,
}

/// # Errors
/// The second operand is not one number per token.
pub fn plan(p: &mut Planner<'_>, at: Value, divide: bool) -> Result<(), Diagnostic> {
    if let Some(of) = scaled_sums::scaled_sums(p, at) {
        return scaled_sums::plan(p, at, &of, None);
    }
    let args = &p.graph.node(at).args;
    let width = p.width(at)?;
    let is_rows = |value: Value, width| p.graph.ty(value).shape() == Shape::rows(width);
    if !is_rows(args[0], width) || !is_rows(args[1], 1) {
        return Err(p.misfit(at, "its second operand is not one number per token"));
    }
    p.step(at, ScaleStep { divide, width }, args, &[])
}

impl StepKind for ScaleStep {
    fn name(&self) -> String {
        if self.divide { "div" } else { "mul" }.into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, by, _], out, .. } = call;
        let (x, by, width) = (numbers::<f32>(x)?, numbers::<f32>(by)?, self.width);
        dispatch::by_rows(resources.pool, numbers_mut::<f32>(out)?, width, |first, y| {
            let by = &by[first..first + y.len() / width];
            resources.kernels.scale_rows(&x[first * width..][..y.len()], by, width, self.divide, y);
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}
