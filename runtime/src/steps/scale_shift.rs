//! A gain and an offset per channel: sums, levels or reals to reals, perhaps with a residual added in the same step.

use crate::jit::dispatch;
use crate::jit::emit::{Emitter, Stream, StreamRole};
use crate::jit::lanes::{F32, reals, scale_shift_of};
use crate::kernels::SpikeCount;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepForm, StepKind, numbers, numbers_mut};
use crate::steps::scaled_sums;
use cranelift_codegen::ir::InstBuilder;
use snnc_ir::op::{ArrayOp, LevelOp};
use snnc_ir::op::{Binary, Op};
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Diagnostic, Value};

/// `y = x * gain + offset`; with `add`, plus a residual.
#[derive(Debug)]
struct ScaleShiftStep {
    from: Elem,
    width: usize,
    add: bool,
}

/// A step, unless the addition that alone reads it runs it.
///
/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    if p.only_user(at).is_some_and(|user| fused(p, user) == Some(at)) {
        return Ok(());
    }
    if let Some(of) = scaled_sums::scaled_sums(p, at) {
        return scaled_sums::plan(p, at, &of, None);
    }
    let args = &p.graph.node(at).args;
    let kind = ScaleShiftStep { from: stored(p, args[0]), width: p.width(at)?, add: false };
    p.step(at, kind, &args[..1], &args[1..])
}

/// The step of an addition with its operand `inner`, a scale and shift.
///
/// # Errors
/// Operands are not rows.
pub fn plan_with_residual(p: &mut Planner<'_>, add: Value, inner: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(add).args;
    let residual = if args[0] == inner { args[1] } else { args[0] };
    if let Some(of) = scaled_sums::scaled_sums(p, inner) {
        return scaled_sums::plan(p, add, &of, Some(residual));
    }
    let inner = &p.graph.node(inner).args;
    let kind = ScaleShiftStep { from: stored(p, inner[0]), width: p.width(add)?, add: true };
    p.step(add, kind, &[inner[0], residual], &inner[1..])
}

/// The operand of an addition of rows that is a scale and shift and runs in the same step, if there is one.
pub fn fused(p: &Planner<'_>, add: Value) -> Option<Value> {
    let node = p.graph.node(add);
    let Op::Array(ArrayOp::Binary(Binary::Add)) = node.op else { return None };
    let shape = p.graph.ty(add).shape();
    if node.args.iter().any(|&arg| p.graph.ty(arg).shape() != shape) {
        return None;
    }
    let inner =
        |arg: &&Value| p.graph.node(**arg).op == Op::Level(LevelOp::ScaleShift) && p.only_user(**arg) == Some(add);
    node.args.iter().find(inner).copied()
}

/// What it reads: levels that take as many bytes are all the same to it, so that one function does.
fn stored(p: &Planner<'_>, value: Value) -> Elem {
    let longest = |steps| Elem::Level(Code::Binary, steps);
    match (p.elem(value), p.elem(value).bytes()) {
        (Elem::Level(..), 1) => longest(7),
        (Elem::Level(..), 2) => longest(15),
        (Elem::Level(..), _) => longest(16),
        (elem @ (Elem::F32 | Elem::I32 | Elem::I8 | Elem::I4(_)), _) => elem,
    }
}

/// Reading sums is the usual case; levels and reals are named.
fn suffix(from: Elem) -> &'static str {
    match from {
        Elem::Level(..) => match from.bytes() {
            1 => "_i8",
            2 => "_i16",
            _ => "_level32",
        },
        Elem::F32 => "_f32",
        Elem::I32 | Elem::I8 | Elem::I4(_) => "",
    }
}

impl StepKind for ScaleShiftStep {
    fn name(&self) -> String {
        format!("scale_shift{}{}_{}", if self.add { "_add" } else { "" }, suffix(self.from), self.width)
    }

    fn form(&self, wide: bool) -> StepForm {
        if wide && matches!(self.from, Elem::F32 | Elem::I32) { StepForm::Kernel } else { StepForm::Code }
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, residual, ..], out, .. } = call;
        let (gain, offset) = (constants.f32(0)?, constants.f32(1)?);
        let residual = if self.add { Some(numbers::<f32>(residual)?) } else { None };
        let (kernels, width) = (resources.kernels, self.width);
        dispatch::by_rows(resources.pool, numbers_mut::<f32>(out)?, width, |first, y| {
            let some = first * width..first * width + y.len();
            let residual = residual.map(|residual| &residual[some.clone()]);
            match self.from {
                Elem::I32 => kernels.scale_shift(&numbers::<i32>(x)?[some], gain, offset, residual, y),
                _ => kernels.scale_shift(&numbers::<f32>(x)?[some], gain, offset, residual, y),
            }
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }

    fn emit(&self, e: &mut Emitter<'_>, _: bool) {
        scale_shift(e, self.from, self.width, self.add);
    }
}

/// `x * gain + offset`, and plus a residual with `add`.
fn scale_shift(e: &mut Emitter<'_>, from: Elem, width: usize, add: bool) {
    let row = |base| Stream { base, row_bytes: 4 * width, lane_bytes: 4, role: StreamRole::In };
    let lane_bytes = from.bytes();
    let first = e.input(0, lane_bytes * width);
    let mut streams = vec![Stream { row_bytes: lane_bytes * width, lane_bytes, ..row(first) }];
    for i in 0..2 {
        streams.push(Stream { base: e.constant(i), row_bytes: 0, lane_bytes: 4, role: StreamRole::In });
    }
    if add {
        streams.push(row(e.input(1, 4 * width)));
    }
    streams.push(Stream { role: StreamRole::Out, ..row(e.out(4 * width)) });
    e.sweep(width, &streams, |e, at| {
        for (x, offset) in reals(e, from, at[0]).into_iter().zip((0..).step_by(16)) {
            let y = scale_shift_of(e, x, &|e: &mut Emitter<'_>, i: usize| e.load(F32, at[1 + i], offset), 0);
            let y = if add {
                let residual = e.load(F32, at[3], offset);
                e.b.ins().fadd(y, residual)
            } else {
                y
            };
            e.store(y, at[at.len() - 1], offset);
        }
    });
}
