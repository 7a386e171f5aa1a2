//! Time-stepped neurons (IF, LIF, ST-BIF and others): they fire within the timestep in which their input arrives.
//!
//! A loop in machine code runs a layer over its timesteps, with the synapse that drives it where nothing else reads the
//! synapse's currents. The kernel here lists events, lays numbers out for vectors, and shares tiles among threads.

use crate::jit::dispatch::{SpikePlanes, tokens_listed};
use crate::jit::emit::{Emitter, GROUP};
use crate::jit::loop_call::{LoopCall, LoopCode, LoopSource};
use crate::jit::neuron_loop::{LoopInput, NeuronLoop};
use crate::kernels::{EventList, Panels, SpikeCount};
use crate::layout::plane_bytes;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{
    Constants, Fault, KernelCall, MatmulInput, MatmulSizes, Resources, StepForm, StepKind, numbers, numbers_mut,
};
use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{Op, SpikeOp};
use snnc_ir::types::{Elem, Type};
use snnc_ir::{Curve, Diagnostic, Value};
use std::cell::RefCell;

thread_local! {
    /// What a thread lists events in.
    static EVENTS: RefCell<EventList> = RefCell::default();
}

/// Bytes of numbers that are copied at a time where a width is no multiple of a group's.
const COPIED: usize = 1 << 20;

/// A layer.
#[derive(Debug)]
struct TimeSteppedStep {
    shape: NeuronLoop,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, membrane: Membrane, steps: u16, curve: Curve) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let width = p.width(at)?;
    let shape = |flow| NeuronLoop { membrane, steps, curve, flow, width };
    if fuses(p, args[0]) {
        let synapse = &p.graph.node(args[0]).args;
        let kind = TimeSteppedStep { shape: shape(LoopInput::Synapse { inputs: p.width(synapse[0])? }) };
        return p.step(at, kind, &synapse[..1], &[&synapse[1..], &args[1..]].concat());
    }
    let flow = match p.graph.ty(args[0]) {
        Type::Train { .. } => LoopInput::Currents(Elem::I32),
        Type::Tensor { elem: Elem::F32, .. } => LoopInput::Even(Elem::F32),
        Type::Tensor { .. } => LoopInput::Even(Elem::I32),
    };
    p.step(at, TimeSteppedStep { shape: shape(flow) }, &args[..1], &args[1..])
}

/// Whether a current is part of the loop of the neurons that it drives: nothing else reads it, and the loop reads its weight,
/// which it does not where that is of 4 bits.
pub fn fuses(p: &Planner<'_>, current: Value) -> bool {
    let neurons = p.only_user(current).map(|user| p.graph.node(user).op);
    let node = p.graph.node(current);
    node.op == Op::Spike(SpikeOp::Synapse)
        && !matches!(p.graph.ty(node.args[1]).elem(), Some(Elem::I4(_)))
        && matches!(neurons, Some(Op::Spike(SpikeOp::Integrate { .. })))
}

impl StepKind for TimeSteppedStep {
    fn name(&self) -> String {
        self.shape.name()
    }

    fn form(&self, _: bool) -> StepForm {
        StepForm::Loop
    }

    fn neuron_loop(&self) -> Option<NeuronLoop> {
        Some(self.shape)
    }

    fn emit(&self, e: &mut Emitter<'_>, count: bool) {
        self.shape.emit(e, count);
    }

    fn matmul(&self) -> Option<MatmulSizes> {
        let LoopInput::Synapse { inputs } = self.shape.flow else { return None };
        let reads = MatmulInput::Spikes { steps: self.shape.steps };
        Some(MatmulSizes { inputs, outputs: self.shape.width, reads })
    }

    fn executed(&self, _: usize, _: &Events, matmuls: &MatmulCounts) -> Executed {
        let additions = matmuls.rows * self.shape.width as u64;
        Executed { additions, bytes: additions, macs: 0 }
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, code, inputs: [x, ..], out, events, taken, .. } = call;
        let code = code.ok_or(Fault::Misfit)?;
        let shape = self.shape;
        let fused = matches!(shape.flow, LoopInput::Synapse { .. });
        let layer = Layer { code, resources, constants: shape.constants_of(constants, usize::from(fused))? };
        let fired = match shape.flow {
            LoopInput::Synapse { inputs } => {
                let weights = constants.panels(0, inputs, shape.width)?;
                layer.run_events(numbers(x)?, weights, numbers_mut(out)?, taken)
            }
            LoopInput::Currents(_) | LoopInput::Even(_) => layer.run_rows(x, numbers_mut(out)?),
        };
        if resources.count {
            let SpikeCount { spikes, active, saturated } = fired;
            *events += Events { spikes, active, saturated, ..Events::default() };
        }
        Ok(())
    }
}

/// A layer with its constants, laid out for its loop.
pub struct Layer<'a> {
    pub code: &'a LoopCode,
    pub resources: Resources<'a>,
    pub constants: LayerConstants,
}

/// Constants of a layer in rows of whole tiles.
pub struct LayerConstants {
    numbers: Vec<f32>,
    /// -1 for a channel, 0 for what fills up the last group, and a vector behind it.
    lanes: Vec<i8>,
}

impl LayerConstants {
    /// Rows of constants of as many channels.
    pub fn of(shape: &NeuronLoop, rows: &[&[f32]]) -> Self {
        let (width, padded, whole) = (shape.width, shape.padded(), shape.constants_row());
        let mut numbers = vec![0.0; rows.len() * whole];
        numbers.chunks_exact_mut(whole).zip(rows).for_each(|(to, row)| to[..width].copy_from_slice(row));
        if !matches!(shape.flow, LoopInput::Even(_)) {
            let steps = f32::from(shape.steps);
            numbers[whole..2 * whole].iter_mut().for_each(|offset| *offset /= steps);
        }
        let mut lanes = vec![0; padded + GROUP];
        lanes[..width].fill(-1);
        Self { numbers, lanes }
    }
}

impl NeuronLoop {
    /// Gains, offsets and parameters, from constant `first` of a step on.
    fn constants_of(&self, constants: Constants<'_>, first: usize) -> Result<LayerConstants, Fault> {
        let rows: Vec<&[f32]> =
            (0..self.constants()).map(|i| constants.f32(first + i)).collect::<Result<_, Fault>>()?;
        if rows.iter().any(|row| row.len() != self.width) {
            return Err(Fault::Misfit);
        }
        Ok(LayerConstants::of(self, &rows))
    }
}

impl Layer<'_> {
    fn call(&self, source: LoopSource<'_>, out: &mut [i8]) -> SpikeCount {
        let Self { code, resources, constants } = self;
        let shape = code.shape();
        let tokens = out.len() / (plane_bytes(shape.width) * usize::from(shape.steps));
        let (numbers, lanes) = (&constants.numbers, &constants.lanes);
        LoopCall { code, source, constants: numbers, lanes, out, tokens }.run(resources.pool)
    }

    /// All tokens from rows of numbers, which are laid out in whole groups: some tokens at a time, so that copies stay small.
    pub fn run_rows(&self, x: &[u8], out: &mut [i8]) -> SpikeCount {
        let shape = self.code.shape();
        let (width, padded) = (4 * shape.width, 4 * shape.padded());
        if width == padded {
            return self.call(LoopSource::Rows(x), out);
        }
        let steps = usize::from(shape.steps);
        let rows = if matches!(shape.flow, LoopInput::Currents(_)) { steps } else { 1 };
        let some = (COPIED / (rows * padded)).max(1);
        let mut fired = SpikeCount::default();
        let parts = x.chunks(some * rows * width).zip(out.chunks_mut(some * steps * plane_bytes(shape.width)));
        for (x, out) in parts {
            let mut copy = vec![0; x.len() / width * padded];
            copy.chunks_exact_mut(padded)
                .zip(x.chunks_exact(width))
                .for_each(|(to, row)| to[..width].copy_from_slice(row));
            fired += self.call(LoopSource::Rows(&copy), out);
        }
        fired
    }

    /// All tokens from spikes, some at a time; `taken` counts the spikes.
    fn run_events(&self, planes: &[i8], weights: Panels<'_>, out: &mut [i8], taken: &mut u64) -> SpikeCount {
        let Self { code, resources, .. } = self;
        let shape = code.shape();
        let (steps, inputs) = (usize::from(shape.steps), weights.inputs());
        let (stride, train) = (plane_bytes(inputs), plane_bytes(shape.width) * steps);
        let some = tokens_listed(resources.kernels, SpikePlanes { planes, stride, steps }, inputs);
        let kernels = code.by_kernel().then_some(resources.kernels);
        let mut fired = SpikeCount::default();
        let mut list = EVENTS.take();
        for (planes, out) in planes.chunks(some * steps * stride).zip(out.chunks_mut(some * train)) {
            resources.kernels.list_events(planes, stride, inputs, &mut list);
            let mut ends = vec![0];
            if kernels.is_none() {
                ends.extend(list.parts().2);
            }
            fired += self.call(LoopSource::Events { list: &list, ends: &ends, weights, kernels }, out);
            *taken += list.count();
        }
        EVENTS.set(list);
        fired
    }
}
