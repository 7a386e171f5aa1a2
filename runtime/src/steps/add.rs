//! The sum of two values in rows, or of rows and one constant row.

use crate::jit::emit::{Emitter, GROUP, Stream, StreamRole};
use crate::jit::lanes::F32;
use crate::planner::Planner;
use crate::step::{StepForm, StepKind};
use crate::steps::scale_shift::{fused, plan_with_residual};
use cranelift_codegen::ir::InstBuilder;
use snnc_ir::types::Shape;
use snnc_ir::{Diagnostic, Value};

/// `y = a + b`; with `channel`, the second operand is a constant of one row.
#[derive(Debug)]
struct AddStep {
    width: usize,
    channel: bool,
}

/// # Errors
/// Operands are neither both rows, nor rows and a number per channel.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    if let Some(inner) = fused(p, at) {
        return plan_with_residual(p, at, inner);
    }
    let graph = p.graph;
    let args = &graph.node(at).args;
    let width = p.width(at)?;
    let rows = |value: Value| graph.ty(value).shape() == Shape::rows(width);
    let channels = |value: Value| {
        graph.constant(value).is_some_and(|weight| weight.tensor.sizes().iter().product::<usize>() == width)
    };
    match (args[0], args[1]) {
        (a, b) if rows(a) && rows(b) => p.step(at, AddStep { width, channel: false }, &[a, b], &[]),
        (a, b) if rows(a) && channels(b) => p.step(at, AddStep { width, channel: true }, &[a], &[b]),
        (a, b) if channels(a) && rows(b) => p.step(at, AddStep { width, channel: true }, &[b], &[a]),
        (a, b) => {
            let (a, b) = (graph.ty(a), graph.ty(b));
            Err(p.misfit(at, &format!("no step broadcasts {a} and {b}")))
        }
    }
}

impl StepKind for AddStep {
    fn name(&self) -> String {
        format!("add{}_{}", if self.channel { "_channel" } else { "" }, self.width)
    }

    fn form(&self, _: bool) -> StepForm {
        StepForm::Code
    }

    fn emit(&self, e: &mut Emitter<'_>, _: bool) {
        add(e, self.width, self.channel);
    }
}

/// The sum of two values, or of a value and one row.
fn add(e: &mut Emitter<'_>, width: usize, channel: bool) {
    let row = |base| Stream { base, row_bytes: 4 * width, lane_bytes: 4, role: StreamRole::In };
    let second = if channel { Stream { row_bytes: 0, ..row(e.constant(0)) } } else { row(e.input(1, 4 * width)) };
    let streams = [row(e.input(0, 4 * width)), second, Stream { role: StreamRole::Out, ..row(e.out(4 * width)) }];
    e.sweep(width, &streams, |e, at| {
        for offset in (0..4 * GROUP).step_by(16) {
            let (x, y) = (e.load(F32, at[0], offset), e.load(F32, at[1], offset));
            let sum = e.b.ins().fadd(x, y);
            e.store(sum, at[2], offset);
        }
    });
}
