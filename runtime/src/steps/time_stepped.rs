//! Time-stepped neurons (IF, LIF, ST-BIF): they fire within the timestep in which their input arrives.

use crate::layout::plane_bytes;
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::membrane::{Membrane, MembraneLayer};
use snnc_ir::types::Elem;
use snnc_ir::{Curve, Diagnostic, Value};

/// A layer; `from` is `None` for currents.
#[derive(Debug)]
struct TimeSteppedStep {
    membrane: Membrane,
    steps: u16,
    curve: Curve,
    from: Option<Elem>,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, membrane: Membrane, steps: u16, curve: Curve) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let from = p.graph.ty(args[0]).elem();
    let kind = TimeSteppedStep { membrane, steps, curve, from, width: p.width(at)? };
    p.step(at, kind, &args[..1], &args[1..])
}

impl StepKind for TimeSteppedStep {
    fn name(&self) -> String {
        format!("integrate {}", self.membrane.name())
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, events, .. } = call;
        let &TimeSteppedStep { membrane, steps, curve, from, width } = self;
        let parameters =
            (0..membrane.rule().parameters.len()).map(|i| constants.f32(2 + i)).collect::<Result<_, _>>()?;
        let neuron = TimeSteppedNeuron {
            membrane,
            steps,
            curve,
            gain: constants.f32(0)?,
            offset: constants.f32(1)?,
            parameters,
        };
        let train = width * usize::from(steps);
        let planes = numbers_mut(out)?;
        let fired = match from {
            None => neuron.run(
                numbers::<i32>(x)?,
                train,
                |x, row, t, c| neuron.of_current(x[row * train + usize::from(t) * width + c], c),
                planes,
            ),
            Some(Elem::F32) => {
                neuron.run(numbers::<f32>(x)?, width, |x, row, _, c| neuron.of_tensor(x[row * width + c], c), planes)
            }
            Some(_) => neuron.run(
                numbers::<i32>(x)?,
                width,
                |x, row, _, c| neuron.of_tensor(x[row * width + c] as f32, c),
                planes,
            ),
        };
        if resources.count {
            *events += fired;
        }
        Ok(())
    }
}

/// A layer with its constants.
struct TimeSteppedNeuron<'a> {
    membrane: Membrane,
    steps: u16,
    curve: Curve,
    gain: &'a [f32],
    offset: &'a [f32],
    parameters: Vec<&'a [f32]>,
}

impl TimeSteppedNeuron<'_> {
    /// A timestep's input from its current.
    fn of_current(&self, x: i32, c: usize) -> f32 {
        x as f32 * self.gain[c] + self.offset[c] / f32::from(self.steps)
    }

    /// A timestep's share of a tensor's value.
    fn of_tensor(&self, x: f32, c: usize) -> f32 {
        (x * self.gain[c] + self.offset[c]) / f32::from(self.steps)
    }

    /// Rows of `row` numbers to spikes, a plane per timestep; `input(x, row, timestep, channel)`.
    fn run<X>(&self, x: &[X], row: usize, input: impl Fn(&[X], usize, u16, usize) -> f32, planes: &mut [i8]) -> Events {
        let width = self.gain.len();
        let plane = plane_bytes(width);
        let mut events = Events::default();
        planes.fill(0);
        let trains = planes.chunks_exact_mut(plane * usize::from(self.steps));
        for (i, train) in trains.enumerate().take(x.len() / row.max(1)) {
            for c in 0..width {
                let mut state = MembraneLayer::new(self.membrane, self.steps, self.curve, 1);
                let parameters: Vec<f32> = self.parameters.iter().map(|all| all[c]).collect();
                let mut fired = 0;
                for t in 0..self.steps {
                    let spike = state.step(0, input(x, i, t, c), &parameters);
                    train[usize::from(t) * plane + c] = spike as i8;
                    fired += u64::from(spike.unsigned_abs());
                }
                events.spikes += fired;
                events.active += u64::from(fired > 0);
                events.saturated += u64::from(fired == u64::from(self.steps));
            }
        }
        events
    }
}
