//! Rows times, or divided by, a number of their own, or number by number.

use crate::jit::dispatch;
use crate::kernels::SpikeCount;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use crate::steps::scaled_sums;
use snnc_ir::types::Shape;
use snnc_ir::{Diagnostic, Value};

/// `y[n, d] = x[n, d] * by[n]`, or divided by it; `by[n, d]` where each has a number of its own.
#[derive(Debug)]
struct ScaleStep {
    divide: bool,
    width: usize,
    each: bool,
}

/// # Errors
/// The second operand is neither one number per token nor of the first one's shape.
pub fn plan(p: &mut Planner<'_>, at: Value, divide: bool) -> Result<(), Diagnostic> {
    if let Some(of) = scaled_sums::scaled_sums(p, at) {
        return scaled_sums::plan(p, at, &of, None);
    }
    let args = &p.graph.node(at).args;
    let width = p.width(at)?;
    let is_rows = |value: Value, width| p.graph.ty(value).shape() == Shape::rows(width);
    let each = width != 1 && is_rows(args[1], width);
    if !is_rows(args[0], width) || !each && !is_rows(args[1], 1) {
        return Err(p.misfit(at, "its second operand is neither one number per token nor of the first one's shape"));
    }
    p.step(at, ScaleStep { divide, width, each }, args, &[])
}

impl StepKind for ScaleStep {
    fn name(&self) -> String {
        if self.divide { "div" } else { "mul" }.into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, by, ..], out, .. } = call;
        let (x, by, width) = (numbers::<f32>(x)?, numbers::<f32>(by)?, self.width);
        dispatch::by_rows(resources.pool, numbers_mut::<f32>(out)?, width, |first, y| {
            let own = if self.each { 1 } else { width };
            let by = &by[first * width / own..][..y.len() / own];
            resources.kernels.scale_rows(&x[first * width..][..y.len()], by, own, self.divide, y);
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}
