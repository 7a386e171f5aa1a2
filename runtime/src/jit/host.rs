//! The kernels' side of the door: from a step and its rows to the kernel that does it.

use super::memory::Plain;
use super::memory::{Operands, Run, cast, cast_mut};
use super::plain;
use crate::plan::{Plan, Step, Work, wide};
use crate::program::Options;
use crate::state::{Level, Slot};
use snnc_ir::eval::phase_weights;
use snnc_ir::{Diagnostic, Graph};

/// Why a kernel stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NotFinite,
    /// Lengths or types do not fit: an error of the plan.
    Misfit,
}

impl Fault {
    pub fn code(self) -> i32 {
        match self {
            Fault::NotFinite => 1,
            Fault::Misfit => 2,
        }
    }

    pub fn from_code(code: i32) -> Self {
        if code == 1 { Fault::NotFinite } else { Fault::Misfit }
    }
}

/// What a step's kernel wants beside the graph's constants.
#[derive(Debug)]
pub enum Prepared {
    Nothing,
    /// Weights of the phases of spiking attention.
    Phases(Vec<i32>),
}

pub fn prepare(_graph: &Graph, plan: &Plan, _options: &Options) -> Result<Vec<Prepared>, Diagnostic> {
    Ok(plan
        .steps
        .iter()
        .map(|step| match step.work {
            Work::Ssa { phases, .. } => Prepared::Phases(phase_weights(phases)),
            _ => Prepared::Nothing,
        })
        .collect())
}

/// Runs the kernel of a step on its operands' rows, which begin at row `first` of the chunk.
pub fn run(run: &mut Run<'_>, i: usize, operands: Operands<'_>, first: usize) -> Result<(), Fault> {
    let compiled = run.compiled;
    let step = &compiled.plan.steps[i];
    let call = Call { graph: &compiled.graph, step };
    let Operands { inputs: [a, b, c], out } = operands;
    let past = run.past + first;
    match step.work {
        Work::Embed { width, .. } => call.embed(number(a)?, number_mut(out)?, width),
        Work::Normalise { eps, width } => call.normalise(number(a)?, number_mut(out)?, eps.get(), width, None),
        Work::LayerNorm { eps, width } => {
            let affine = Some((call.f32(0)?, call.f32(1)?));
            call.normalise(number(a)?, number_mut(out)?, eps.get(), width, affine)
        }
        Work::Linear { layout, inputs, outputs } => {
            plain::linear(number(a)?, call.f32(0)?, call.f32(1)?, layout, inputs, outputs, number_mut(out)?);
            Ok(())
        }
        Work::Curve { curve, .. } => {
            let (x, y): (&[f32], &mut [f32]) = (number(a)?, number_mut(out)?);
            y.iter_mut().zip(x).for_each(|(y, &x)| *y = curve.at(x));
            Ok(())
        }
        Work::Attention { heads, scale, width } => {
            let (q, k, v): (&[f32], &[f32], &[f32]) = (number(a)?, number(b)?, number(c)?);
            let (keys, values) = extend(run.slots, step, k, v, past)?;
            plain::attention(q, keys, values, past, heads, width, scale.get(), number_mut(out)?);
            let tokens = q.len() / width;
            run.events[i].keys += (past + 1..=past + tokens).map(|n| n as u64).sum::<u64>();
            Ok(())
        }
        Work::Ssa { heads, code, steps, width, .. } => {
            let Prepared::Phases(phases) = &compiled.prepared[i] else { return Err(Fault::Misfit) };
            let slope = call.f32(0)?;
            let out = number_mut(out)?;
            let shape = plain::Ssa { code, past, heads, width, slope, phases };
            run.events[i] += if wide(code, steps) {
                let (keys, values) = extend::<i16>(run.slots, step, number(b)?, number(c)?, past)?;
                plain::ssa::<i16>(number(a)?, keys, values, &shape, out)
            } else {
                let (keys, values) = extend::<i8>(run.slots, step, number(b)?, number(c)?, past)?;
                plain::ssa::<i8>(number(a)?, keys, values, &shape, out)
            };
            Ok(())
        }
        Work::Product { code, steps, outputs, .. } => {
            let w = call.i8(0)?;
            if wide(code, steps) {
                plain::product::<i16>(number(a)?, w, outputs, number_mut(out)?);
            } else {
                plain::product::<i8>(number(a)?, w, outputs, number_mut(out)?);
            }
            Ok(())
        }
        Work::Neuron(_) | Work::Settle { .. } | Work::Synapse { .. } | Work::Affine { .. } | Work::Add { .. } => {
            Err(Fault::Misfit)
        }
    }
}

/// A step with its graph.
struct Call<'a> {
    graph: &'a Graph,
    step: &'a Step,
}

impl<'a> Call<'a> {
    fn f32(&self, i: usize) -> Result<&'a [f32], Fault> {
        let id = self.step.constants.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_f32().ok_or(Fault::Misfit)
    }

    fn i8(&self, i: usize) -> Result<&'a [i8], Fault> {
        let id = self.step.constants.get(i).ok_or(Fault::Misfit)?;
        self.graph.weight(*id).tensor.as_i8().ok_or(Fault::Misfit)
    }

    fn embed(&self, ids: &[i32], out: &mut [f32], width: usize) -> Result<(), Fault> {
        let table = self.f32(0)?;
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
            let from = usize::try_from(id).map_err(|_| Fault::Misfit)? * width;
            out.copy_from_slice(table.get(from..from + width).ok_or(Fault::Misfit)?);
        }
        Ok(())
    }

    fn normalise(
        &self,
        x: &[f32],
        y: &mut [f32],
        eps: f32,
        width: usize,
        affine: Option<(&[f32], &[f32])>,
    ) -> Result<(), Fault> {
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            if !plain::normalise(x, y, eps) {
                return Err(Fault::NotFinite);
            }
            if let Some((gain, bias)) = affine {
                y.iter_mut().zip(gain).zip(bias).for_each(|((y, g), b)| *y = *y * g + b);
            }
        }
        Ok(())
    }
}

/// Adds this call's keys and values to the state; all keys and values of the sequence.
fn extend<'s, T: Level>(
    slots: &'s mut [Option<Slot>],
    step: &Step,
    keys: &[T],
    values: &[T],
    past: usize,
) -> Result<(&'s [T], &'s [T]), Fault> {
    let slot = slots[step.node.index()].as_mut().ok_or(Fault::Misfit)?;
    slot.append(past, keys, values).ok_or(Fault::Misfit)?;
    T::view(&slot.keys).zip(T::view(&slot.values)).ok_or(Fault::Misfit)
}

fn number<T: Plain>(bytes: &[u8]) -> Result<&[T], Fault> {
    cast(bytes).ok_or(Fault::Misfit)
}

fn number_mut<T: Plain>(bytes: &mut [u8]) -> Result<&mut [T], Fault> {
    cast_mut(bytes).ok_or(Fault::Misfit)
}
