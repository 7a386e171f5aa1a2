//! Spike trains to the levels that they encode.
//!
//! A train is decoded once, whoever reads its levels. A current is never stored for this: the step that decodes a synapse
//! runs it.

use crate::jit::emit::{Emitter, Stream, StreamRole};
use crate::jit::lanes::{I8, levels_of, splat_int, widened};
use crate::layout::{level_bytes, plane_bytes};
use crate::planner::Planner;
use crate::step::{StepForm, StepKind};
use crate::steps::synapse;
use cranelift_codegen::ir::InstBuilder;
use snnc_ir::op::Op;
use snnc_ir::op::SpikeOp;
use snnc_ir::types::{Code, Elem, Type};
use snnc_ir::{Diagnostic, Value};

/// Spikes to levels.
#[derive(Debug)]
struct DecodeStep {
    code: Code,
    steps: u16,
    width: usize,
}

/// # Errors
/// The operand is no train in rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let train = p.graph.node(at).args[0];
    if let Op::Spike(SpikeOp::Synapse) = p.graph.node(train).op {
        return synapse::plan_decoded(p, at, train);
    }
    decode_train(p, at, train)?;
    if let Some(buffer) = p.decoded[train.index()] {
        p.lies_in(at, buffer);
    }
    Ok(())
}

/// Adds the step, made for `at`, that turns the spikes `value` into levels, where it is a spike train and none has done so.
///
/// # Errors
/// It is no train in rows.
pub fn decode_train(p: &mut Planner<'_>, at: Value, value: Value) -> Result<(), Diagnostic> {
    if !p.is_train(value) || p.decoded[value.index()].is_some() {
        return Ok(());
    }
    let (code, steps) = p.levels(value)?;
    let shape = p.graph.ty(value).shape();
    let out = p.buffer(at, Type::tensor(Elem::Level(code, steps), shape))?;
    p.decoded[value.index()] = Some(out);
    // Another reader of the train's levels may be wanted on more rows than this node is: it runs when the train does.
    let rows = p.row_set(value);
    let width = p.width(value)?;
    p.push(at, DecodeStep { code, steps, width }, &[value], &[], out, rows)
}

impl StepKind for DecodeStep {
    fn name(&self) -> String {
        format!("decode_{}_{}_{}", self.code.name(), self.steps, self.width)
    }

    fn form(&self, _: bool) -> StepForm {
        StepForm::Code
    }

    fn emit(&self, e: &mut Emitter<'_>, _: bool) {
        decode(e, self.code, self.steps, self.width);
    }
}

/// Spikes of every timestep to the level they denote: Horner over the planes of a row.
fn decode(e: &mut Emitter<'_>, code: Code, steps: u16, width: usize) {
    let (plane, bytes) = (plane_bytes(width), level_bytes(code, steps));
    let train = plane * usize::from(steps);
    let streams = [
        Stream { base: e.input(0, train), row_bytes: train, lane_bytes: 1, role: StreamRole::Padded },
        Stream { base: e.out(bytes * width), row_bytes: bytes * width, lane_bytes: bytes, role: StreamRole::Out },
    ];
    e.sweep(width, &streams, |e, at| {
        let zero = splat_int(e, levels_of(bytes), 0);
        let sums: Vec<_> = (0..bytes).map(|_| e.variable(zero)).collect();
        let end = e.int(train);
        e.count(end, plane, |e, offset| {
            let here = e.b.ins().iadd(at[0], offset);
            let spikes = e.load(I8, here, 0);
            let parts = (0..bytes.ilog2()).fold(vec![spikes], |parts, _| widened(e, &parts));
            for (&sum, part) in sums.iter().zip(parts) {
                let old = e.b.use_var(sum);
                let carried = if code.carry() == 2 { e.b.ins().iadd(old, old) } else { old };
                let new = e.b.ins().iadd(carried, part);
                e.b.def_var(sum, new);
            }
        });
        for (i, &sum) in sums.iter().enumerate() {
            let sum = e.b.use_var(sum);
            e.store(sum, at[1], 16 * i);
        }
    });
}
