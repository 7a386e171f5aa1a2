//! Gated units: a curve of one value times another, as reals or as the levels and spikes of neurons with a multiplicative input.

use crate::jit::dispatch;
use crate::kernels::{GatedParams, InputRows, Kernels, SpikeCount, StoredLevel};
use crate::layout::{level_bytes, plane_bytes};
use crate::planner::Planner;
use crate::pool::Pool;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use bytemuck::Pod;
use snnc_ir::eval::{fired, level};
use snnc_ir::events::Events;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Curve, Diagnostic, Value};

/// `y = curve(gate) * up`.
#[derive(Debug)]
struct GatedStep {
    curve: Curve,
}

/// A layer of neurons: gate and factor to level, and with `emit` on to spikes.
#[derive(Debug)]
struct GatedNeuronStep {
    code: Code,
    steps: u16,
    curve: Curve,
    /// Elements of the gate and of what it multiplies: f32 or i32.
    from: [Elem; 2],
    emit: bool,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, curve: Curve) -> Result<(), Diagnostic> {
    p.step(at, GatedStep { curve }, &p.graph.node(at).args, &[])
}

/// # Errors
/// Operands are not rows.
pub fn plan_neuron(
    p: &mut Planner<'_>,
    at: Value,
    code: Code,
    steps: u16,
    curve: Curve,
    emit: bool,
) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let from = [p.elem(args[0]), p.elem(args[1])];
    let kind = GatedNeuronStep { code, steps, curve, from, emit, width: p.width(at)? };
    p.step(at, kind, &args[..2], &args[2..])
}

impl StepKind for GatedStep {
    fn name(&self) -> String {
        format!("gated {}", self.curve.name())
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, inputs: [gate, up, ..], out, .. } = call;
        resources.kernels.gated_f32(self.curve, numbers(gate)?, numbers(up)?, numbers_mut(out)?);
        Ok(())
    }
}

impl StepKind for GatedNeuronStep {
    fn name(&self) -> String {
        format!("gated_{} {}", if self.emit { "fire" } else { "quant" }, self.curve.name())
    }

    fn counts_spikes(&self) -> bool {
        true
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [gate, up, ..], out, events, .. } = call;
        let neuron = GatedParams {
            levels: self.code.levels(self.steps),
            curve: self.curve,
            pre_gain: constants.f32(0)?,
            pre_offset: constants.f32(1)?,
            gain: constants.f32(2)?,
            offset: constants.f32(3)?,
            count: resources.count.then_some(self.code),
        };
        let layer = GatedLayer { step: self, kernels: resources.kernels, pool: resources.pool, neuron };
        let SpikeCount { spikes, active, saturated } = match level_bytes(self.code, self.steps) {
            1 => layer.run::<i8>([gate, up], out)?,
            2 => layer.run::<i16>([gate, up], out)?,
            _ => layer.run_widest([gate, up], out)?,
        };
        *events += Events { spikes, active, saturated, ..Events::default() };
        Ok(())
    }
}

/// A layer at work.
struct GatedLayer<'a> {
    step: &'a GatedNeuronStep,
    kernels: Kernels,
    pool: &'a Pool,
    neuron: GatedParams<'a>,
}

impl GatedLayer<'_> {
    /// Levels that are stored in `L`, or the spikes that spell them.
    fn run<L: StoredLevel + Pod + Send + Sync>(&self, rows: [&[u8]; 2], out: &mut [u8]) -> Result<SpikeCount, Fault> {
        let &GatedNeuronStep { code, steps, width, emit, .. } = self.step;
        if !emit {
            return self.levels::<L>(rows, numbers_mut(out)?);
        }
        let mut levels = vec![L::zeroed(); rows[0].len() / size_of::<f32>()];
        let fired = self.levels(rows, &mut levels)?;
        self.kernels.spell(&levels, width, code, steps, plane_bytes(width), numbers_mut(out)?);
        Ok(fired)
    }

    fn levels<L: StoredLevel + Send>(&self, [gate, up]: [&[u8]; 2], y: &mut [L]) -> Result<SpikeCount, Fault> {
        let [gate_elem, up_elem] = self.step.from;
        let (gate, up) = (input(gate_elem, gate)?, input(up_elem, up)?);
        Ok(dispatch::gated_neuron(self.kernels, self.pool, gate, up, &self.neuron, y))
    }

    /// Levels of 32 bits, or their spikes: few networks have these, so the definition does.
    fn run_widest(&self, [gate, up]: [&[u8]; 2], out: &mut [u8]) -> Result<SpikeCount, Fault> {
        let GatedNeuronStep { code, steps, curve, from, emit, width } = *self.step;
        let (gate, up) = (input(from[0], gate)?.reals(), input(from[1], up)?.reals());
        let GatedParams { pre_gain, pre_offset, gain, offset, levels: most, .. } = self.neuron;
        let levels: Vec<i32> = (0..gate.len())
            .map(|i| {
                let c = i % width;
                let open = curve.at_f32(gate[i] * pre_gain[c] + pre_offset[c]);
                level(open * (up[i] * gain[c] + offset[c]), most)
            })
            .collect();
        if emit {
            let (planes, stride) = (numbers_mut::<i8>(out)?, plane_bytes(width));
            for (row, train) in levels.chunks_exact(width).zip(planes.chunks_exact_mut(usize::from(steps) * stride)) {
                for (t, plane) in (0..steps).zip(train.chunks_exact_mut(stride)) {
                    let (spikes, beyond) = plane.split_at_mut(width);
                    spikes.iter_mut().zip(row).for_each(|(spike, &x)| *spike = code.spike(x, t, steps) as i8);
                    // Whoever lists spikes reads whole planes.
                    beyond.fill(0);
                }
            }
        } else {
            numbers_mut::<i32>(out)?.copy_from_slice(&levels);
        }
        let Events { spikes, active, saturated, .. } =
            if self.neuron.count.is_some() { fired(code, steps, &levels) } else { Events::default() };
        Ok(SpikeCount { spikes, active, saturated })
    }
}

/// Rows of sums or of reals.
fn input(elem: Elem, rows: &[u8]) -> Result<InputRows<'_>, Fault> {
    match elem {
        Elem::F32 => Ok(InputRows::F32(numbers(rows)?)),
        Elem::I32 => Ok(InputRows::I32(numbers(rows)?)),
        Elem::I8 | Elem::I4(_) | Elem::Level(..) => Err(Fault::Misfit),
    }
}
