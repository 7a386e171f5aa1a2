//! Integrate-then-fire neurons: a potential to the nearest level, perhaps by a curve, and the level to its spikes.

use crate::jit::dispatch;
use crate::jit::emit::{Emitter, GROUP, Stream, StreamRole};
use crate::jit::frame::{StepRecord, StepTally};
use crate::jit::lanes::{
    F32, I32, LANES, emit_spikes, level, look_up, magnitudes_that, narrow, potential, scale_shift_of, spikes_of,
    splat_int, total,
};
use crate::kernels::{ActivationTable, NeuronParams};
use crate::layout::{level_bytes, plane_bytes};
use crate::planner::Planner;
use crate::step::{Constants, CurveTables, Fault, KernelCall, StepForm, StepKind, numbers, numbers_mut};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value as CodeValue};
use snnc_ir::events::Events;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Diagnostic, Value};
use std::mem::offset_of;

/// A layer: potential to level, and with `emit` on to spikes.
#[derive(Debug)]
struct NeuronStep {
    code: Code,
    steps: u16,
    curve: Curve,
    /// The potential's element: f32 or i32.
    from: Elem,
    emit: bool,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(
    p: &mut Planner<'_>,
    at: Value,
    code: Code,
    steps: u16,
    curve: Curve,
    emit: bool,
) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let kind = NeuronStep { code, steps, curve, from: p.elem(args[0]), emit, width: p.width(at)? };
    p.step(at, kind, &args[..1], &args[1..])
}

impl StepKind for NeuronStep {
    fn name(&self) -> String {
        let NeuronStep { code, steps, curve, from, emit, width } = self;
        let kind = if *emit { "fire" } else { "quant" };
        format!("{kind}_{}_{steps}_{}_{from}_{width}", code.name(), curve.name())
    }

    fn form(&self, wide: bool) -> StepForm {
        if !wide || self.emit || level_bytes(self.code, self.steps) > 2 { StepForm::Code } else { StepForm::Kernel }
    }

    fn counts_spikes(&self) -> bool {
        true
    }

    fn curve_table(&self) -> Option<Curve> {
        (self.curve != Curve::Identity).then_some(self.curve)
    }

    fn emit(&self, e: &mut Emitter<'_>, count: bool) {
        machine_code(e, self, count);
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out: y, events, .. } = call;
        let count = resources.count.then_some(self.code);
        let levels = self.code.levels(self.steps);
        let neuron = neuron_params(constants, 0, resources.tables, self.curve, levels, count)?;
        let (kernels, pool) = (resources.kernels, resources.pool);
        let fired = match (self.from, level_bytes(self.code, self.steps)) {
            (Elem::I32, 1) => dispatch::neuron::<i32, i8>(kernels, pool, numbers(x)?, &neuron, numbers_mut(y)?),
            (Elem::I32, 2) => dispatch::neuron::<i32, i16>(kernels, pool, numbers(x)?, &neuron, numbers_mut(y)?),
            (Elem::F32, 1) => dispatch::neuron::<f32, i8>(kernels, pool, numbers(x)?, &neuron, numbers_mut(y)?),
            (Elem::F32, 2) => dispatch::neuron::<f32, i16>(kernels, pool, numbers(x)?, &neuron, numbers_mut(y)?),
            _ => return Err(Fault::Misfit),
        };
        let (spikes, active, saturated) = (fired.spikes, fired.active, fired.saturated);
        *events += Events { spikes, active, saturated, ..Events::default() };
        Ok(())
    }
}

/// A layer's constants, of which the first is number `first` of the step's.
///
/// # Errors
/// A constant is not there.
pub fn neuron_params<'a>(
    constants: Constants<'a>,
    first: usize,
    tables: &'a CurveTables,
    curve: Curve,
    levels: i32,
    count: Option<Code>,
) -> Result<NeuronParams<'a>, Fault> {
    let activation = match curve {
        Curve::Identity => None,
        curve => {
            let table = tables.get(&curve).ok_or(Fault::Misfit)?;
            Some(ActivationTable { gain: constants.f32(first)?, offset: constants.f32(first + 1)?, table })
        }
    };
    let last = first + if activation.is_some() { 2 } else { 0 };
    Ok(NeuronParams { levels, activation, gain: constants.f32(last)?, offset: constants.f32(last + 1)?, count })
}

/// `(potential, constants...) -> levels` or, where the layer emits, `-> spikes`.
fn machine_code(e: &mut Emitter<'_>, n: &NeuronStep, count: bool) {
    let bytes = level_bytes(n.code, n.steps);
    let plane = plane_bytes(n.width);
    let constants = if n.curve == Curve::Identity { 2 } else { 4 };
    let mut streams =
        vec![Stream { base: e.input(0, 4 * n.width), row_bytes: 4 * n.width, lane_bytes: 4, role: StreamRole::In }];
    for i in 0..constants {
        streams.push(Stream { base: e.constant(i), row_bytes: 0, lane_bytes: 4, role: StreamRole::In });
    }
    let (lane_bytes, row_bytes) = if n.emit { (1, plane * usize::from(n.steps)) } else { (bytes, bytes * n.width) };
    let role = if n.emit { StreamRole::Padded } else { StreamRole::Out };
    streams.push(Stream { base: e.out(row_bytes), row_bytes, lane_bytes, role });
    let table = e.of_record(offset_of!(StepRecord, table));
    let zero = splat_int(e, I32, 0);
    let counters = [offset_of!(StepTally, spikes), offset_of!(StepTally, active), offset_of!(StepTally, saturated)]
        .map(|tally| (tally, e.variable(zero)));
    e.sweep(n.width, &streams, |e, at| {
        let quarter = |q: usize| LANES * 4 * q;
        let levels: Vec<CodeValue> = (0..GROUP / LANES)
            .map(|q| {
                let constant = |e: &mut Emitter<'_>, i: usize| e.load(F32, at[1 + i], quarter(q));
                let mut x = potential(e, n.from, at[0], quarter(q));
                if n.curve != Curve::Identity {
                    x = scale_shift_of(e, x, &constant, 0);
                    x = look_up(e, table, x);
                }
                let p = scale_shift_of(e, x, &constant, constants - 2);
                level(e, p, n.code.levels(n.steps))
            })
            .collect();
        let levels = narrow(e, &levels, bytes);
        if count {
            let spikes = spikes_of(e, n.code, &levels, bytes);
            let active = magnitudes_that(e, IntCC::NotEqual, 0, &levels, bytes);
            let saturated = magnitudes_that(e, IntCC::Equal, n.code.levels(n.steps), &levels, bytes);
            for ((_, counter), more) in counters.into_iter().zip([spikes, active, saturated]) {
                let sum = e.b.use_var(counter);
                let sum = e.b.ins().iadd(sum, more);
                e.b.def_var(counter, sum);
            }
        }
        let out = at[at.len() - 1];
        if n.emit {
            emit_spikes(e, (n.code, n.steps), &levels, out, plane);
        } else {
            levels.iter().enumerate().for_each(|(i, &part)| e.store(part, out, 16 * i));
        }
    });
    if count {
        for (tally, counter) in counters {
            let sum = e.b.use_var(counter);
            let sum = total(e, sum);
            e.tally(tally, sum);
        }
    }
}
