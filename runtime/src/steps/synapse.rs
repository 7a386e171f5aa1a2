//! Spikes through a weight: to sums that are decoded at once, or to a current per timestep for time-stepped neurons.

use crate::jit::dispatch::{self, SpikePlanes};
use crate::jit::emit::Emitter;
use crate::jit::synapse::{scratch_len, synapse};
use crate::layout::plane_bytes;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, MatmulInput, MatmulSizes, StepForm, StepKind, numbers, numbers_mut};
use crate::steps::time_stepped::fuses;
use snnc_ir::events::Events;
use snnc_ir::op::Op;
use snnc_ir::op::SpikeOp;
use snnc_ir::types::{Code, Elem};
use snnc_ir::{Diagnostic, Value};

/// Spikes to decoded sums, Horner over the timesteps.
#[derive(Debug)]
struct SynapseStep {
    code: Code,
    steps: u16,
    inputs: usize,
    outputs: usize,
    /// Whether the weight is of 4 bits, which machine code does not read.
    grouped: bool,
}

/// Spikes to currents, timestep by timestep.
#[derive(Debug)]
struct CurrentsStep {
    steps: u16,
    inputs: usize,
    outputs: usize,
}

/// A synapse's step for the node `at` that decodes it.
///
/// # Errors
/// Operands are not spikes in rows.
pub fn plan_decoded(p: &mut Planner<'_>, at: Value, synapse: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(synapse).args;
    let (code, steps) = p.levels(args[0])?;
    let grouped = matches!(p.elem(args[1]), Elem::I4(_));
    let kind = SynapseStep { code, steps, inputs: p.width(args[0])?, outputs: p.width(at)?, grouped };
    p.step(at, kind, &args[..1], &args[1..])
}

/// A step of its own where time-stepped neurons and others read the synapse; else the node that reads it runs it.
///
/// # Errors
/// Operands are not spikes in rows.
pub fn plan_currents(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let time_stepped = |user: &Value| matches!(p.graph.node(*user).op, Op::Spike(SpikeOp::Integrate { .. }));
    if fuses(p, at) || !p.users(at).iter().any(time_stepped) {
        return Ok(());
    }
    let args = &p.graph.node(at).args;
    let (_, steps) = p.levels(args[0])?;
    let kind = CurrentsStep { steps, inputs: p.width(args[0])?, outputs: p.width(at)? };
    p.step(at, kind, &args[..1], &args[1..])
}

fn executed(outputs: usize, matmuls: &MatmulCounts) -> Executed {
    let sparse = matmuls.rows * outputs as u64;
    Executed { additions: sparse, bytes: sparse, macs: 0 }
}

impl StepKind for SynapseStep {
    fn name(&self) -> String {
        format!("synapse_{}_{}_{}_{}", self.code.name(), self.steps, self.inputs, self.outputs)
    }

    fn form(&self, wide: bool) -> StepForm {
        if !wide && !self.grouped { StepForm::Code } else { StepForm::Kernel }
    }

    fn scratch_words(&self) -> usize {
        scratch_len(self.inputs, self.outputs)
    }

    fn matmul(&self) -> Option<MatmulSizes> {
        let reads = MatmulInput::Spikes { steps: self.steps };
        Some(MatmulSizes { inputs: self.inputs, outputs: self.outputs, reads })
    }

    fn executed(&self, _: usize, _: &Events, matmuls: &MatmulCounts) -> Executed {
        executed(self.outputs, matmuls)
    }

    fn emit(&self, e: &mut Emitter<'_>, _: bool) {
        synapse(e, self.code, self.steps, self.inputs, self.outputs);
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, taken, .. } = call;
        let (w, y) = (constants.panels(0, self.inputs, self.outputs)?, numbers_mut(out)?);
        let planes = SpikePlanes { planes: numbers(x)?, stride: plane_bytes(self.inputs), steps: self.steps.into() };
        *taken += dispatch::synapse(resources.kernels, resources.pool, planes, self.code.carry(), w, y);
        Ok(())
    }
}

impl StepKind for CurrentsStep {
    fn name(&self) -> String {
        "currents".into()
    }

    fn matmul(&self) -> Option<MatmulSizes> {
        let reads = MatmulInput::Spikes { steps: self.steps };
        Some(MatmulSizes { inputs: self.inputs, outputs: self.outputs, reads })
    }

    fn executed(&self, _: usize, _: &Events, matmuls: &MatmulCounts) -> Executed {
        executed(self.outputs, matmuls)
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, taken, .. } = call;
        let (w, y) = (constants.panels(0, self.inputs, self.outputs)?, numbers_mut(out)?);
        let planes: &[i8] = numbers(x)?;
        let stride = plane_bytes(self.inputs);
        debug_assert_eq!(planes.len() / stride % usize::from(self.steps), 0, "whole trains");
        *taken +=
            dispatch::synapse(resources.kernels, resources.pool, SpikePlanes { planes, stride, steps: 1 }, 1, w, y);
        Ok(())
    }
}
