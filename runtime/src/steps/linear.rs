//! Dense products of f32 rows with an f32 weight, and a bias.

use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::op::Layout;
use snnc_ir::{Diagnostic, Value};

/// `y = x w + bias`.
#[derive(Debug)]
struct LinearStep {
    layout: Layout,
    inputs: usize,
    outputs: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, layout: Layout) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let kind = LinearStep { layout, inputs: p.width(args[0])?, outputs: p.width(at)? };
    p.step(at, kind, &args[..1], &args[1..])
}

impl StepKind for LinearStep {
    fn name(&self) -> String {
        "linear".into()
    }

    fn executed(&self, rows: usize, _: &Events, _: &MatmulCounts) -> Executed {
        Executed::dense(rows, self.inputs * self.outputs, 4 * self.inputs * self.outputs)
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, .. } = call;
        let (x, w, bias, y) = (numbers(x)?, constants.f32(0)?, Some(constants.f32(1)?), numbers_mut(out)?);
        let &LinearStep { layout, inputs, outputs } = self;
        match layout {
            Layout::InputMajor => resources.kernels.linear_f32(x, w, bias, inputs, outputs, y),
            Layout::OutputMajor => resources.kernels.linear_f32_output_major(x, w, bias, inputs, outputs, y),
        }
        Ok(())
    }
}
