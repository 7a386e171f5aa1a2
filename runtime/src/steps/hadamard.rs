//! Rows times a Hadamard matrix, by additions.

use crate::jit::dispatch;
use crate::kernels::SpikeCount;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::hadamard::{HadamardMatrix, HadamardSize};
use snnc_ir::{Diagnostic, Value};

/// Blocks of rows, each times the matrix over the root of its size.
#[derive(Debug)]
struct HadamardStep {
    matrix: HadamardMatrix,
    width: usize,
}

/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, size: HadamardSize) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    p.step(at, HadamardStep { matrix: HadamardMatrix::of(size), width }, &p.graph.node(at).args, &[])
}

impl StepKind for HadamardStep {
    fn name(&self) -> String {
        "hadamard".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [x, ..], out, .. } = call;
        let (x, width, kernels) = (numbers::<f32>(x)?, self.width, resources.kernels);
        dispatch::by_rows(resources.pool, numbers_mut(out)?, width, |first, y| {
            kernels.hadamard(&x[first * width..][..y.len()], &self.matrix, y);
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}
