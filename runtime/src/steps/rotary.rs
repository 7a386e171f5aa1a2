//! Rotary positions: channels of heads turned in pairs by the angles of a row's position.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::op::Pairs;
use snnc_ir::{Diagnostic, Value};

/// Heads side by side in rows of `width`, turned.
#[derive(Debug)]
struct RotaryStep {
    heads: usize,
    pairs: Pairs,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: usize, pairs: Pairs) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    p.step(at, RotaryStep { heads, pairs, width }, &p.graph.node(at).args, &[])
}

impl StepKind for RotaryStep {
    fn name(&self) -> String {
        format!("rotary {}", self.pairs.name())
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, turns, ..], out, .. } = call;
        let &RotaryStep { heads, pairs, width } = self;
        resources.kernels.rotary(numbers(x)?, numbers(turns)?, width, heads, pairs, numbers_mut(out)?);
        Ok(())
    }
}
