//! Time-stepped neurons, unrolled: what flows in at each timestep, what membranes make of it.

use super::{Neurons, Relaxing};
use snnc_ir::membrane::{KEPT, Membrane};
use snnc_ir::op::TrainingOp;
use snnc_ir::op::{ArrayOp, LevelOp};
use snnc_ir::{Binary, Curve, Diagnostic, Op, Unary, Value, Weight};

impl Relaxing {
    /// An input for every timestep: `x gain + offset / timesteps`.
    pub(super) fn shares(
        &mut self,
        currents: &[Value],
        gain: &Weight,
        offset: &Weight,
    ) -> Result<Vec<Value>, Diagnostic> {
        let unit = self.unit(offset);
        let (gain, offset) = (self.factor(gain)?, self.offset_by(offset, unit)?);
        let share = self.number(1.0 / currents.len() as f32);
        let offset = self.two(Binary::Mul, offset, share)?;
        currents.iter().map(|&x| self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])).collect()
    }

    /// What a synapse carries at each timestep of a unary train.
    pub(super) fn currents(&mut self, neurons: &Neurons, weight: &Weight) -> Result<Vec<Value>, Diagnostic> {
        let w = self.stored(neurons.log, weight)?.1;
        let spikes = if neurons.spikes.is_empty() { self.spelled(neurons)? } else { neurons.spikes.clone() };
        spikes.into_iter().map(|spikes| self.add(Op::Array(ArrayOp::MatMul), &[spikes, w])).collect()
    }

    /// Levels of a unary code as spikes of the first timesteps: of `level`, one where `|level|` passes `t + 1/2`.
    fn spelled(&mut self, neurons: &Neurons) -> Result<Vec<Value>, Diagnostic> {
        let mut spikes = Vec::with_capacity(neurons.most as usize);
        for t in 0..neurons.most {
            let threshold = self.number(t as f32 + 0.5);
            let over = self.two(Binary::Sub, neurons.plain, threshold)?;
            let less = self.add(Op::Array(ArrayOp::Unary(Unary::Neg)), &[neurons.plain])?;
            let under = self.two(Binary::Sub, less, threshold)?;
            let step = TrainingOp::Step(self.recipe.surrogate);
            let (up, down) = (self.training(step, &[over])?, self.training(step, &[under])?);
            spikes.push(self.two(Binary::Sub, up, down)?);
        }
        Ok(spikes)
    }

    /// Membranes given an input at every timestep: one of them, or one for each sign. What a spike takes from a membrane is
    /// taken to be a constant.
    pub(super) fn membranes(
        &mut self,
        inputs: &[Value],
        membrane: Membrane,
        curve: Curve,
    ) -> Result<Neurons, Diagnostic> {
        if membrane == Membrane::StBif {
            let spikes = self.traced(inputs, curve)?;
            return self.emitting(spikes);
        }
        let mut spikes: Vec<Value> = Vec::new();
        let kept = if membrane == Membrane::Lif { KEPT as f32 } else { 1.0 };
        for positive in [true, false] {
            if !positive && curve == Curve::Relu {
                break;
            }
            let mut potential = None;
            for (t, &input) in inputs.iter().enumerate() {
                let start = match potential {
                    None => self.number(0.5 * kept),
                    Some(potential) => {
                        let kept = self.number(kept);
                        self.two(Binary::Mul, potential, kept)?
                    }
                };
                let v = self.two(if positive { Binary::Add } else { Binary::Sub }, start, input)?;
                let one = self.number(1.0);
                let over = self.two(Binary::Sub, v, one)?;
                let spike = self.training(TrainingOp::Step(self.recipe.surrogate), &[over])?;
                let taken = self.training(TrainingOp::StopGradient, &[spike])?;
                potential = Some(match membrane {
                    Membrane::IfHard => {
                        let left = self.two(Binary::Sub, one, taken)?;
                        self.two(Binary::Mul, v, left)?
                    }
                    Membrane::If | Membrane::Lif | Membrane::StBif => self.two(Binary::Sub, v, taken)?,
                });
                match spikes.get(t) {
                    Some(&up) => spikes[t] = self.two(Binary::Sub, up, spike)?,
                    None => spikes.push(spike),
                }
            }
        }
        self.emitting(spikes)
    }

    /// Spikes of membranes that take back what was too much (`st_bif`): up from the threshold on, down below 0, as far as what
    /// was said allows. That is taken to be a constant.
    fn traced(&mut self, inputs: &[Value], curve: Curve) -> Result<Vec<Value>, Diagnostic> {
        let step = TrainingOp::Step(self.recipe.surrogate);
        let most = inputs.len() as f32;
        let least = if curve == Curve::Relu { 0.0 } else { -most };
        let [one, half, top, bottom] = [1.0, 0.5, most - 0.5, least + 0.5].map(|x| self.number(x));
        let (mut potential, mut said): (Value, Option<Value>) = (half, None);
        let mut spikes = Vec::with_capacity(inputs.len());
        for &input in inputs {
            let q = self.two(Binary::Add, potential, input)?;
            let over = self.two(Binary::Sub, q, one)?;
            let up = self.training(step, &[over])?;
            let not_down = self.training(step, &[q])?;
            let down = self.two(Binary::Sub, one, not_down)?;
            let spike = match said {
                // Nothing was said, and all may be.
                None if least < 0.0 => self.two(Binary::Sub, up, down)?,
                None => up,
                Some(said) => {
                    let room = [self.two(Binary::Sub, top, said)?, self.two(Binary::Sub, said, bottom)?];
                    let [more, less] = room.map(|room| {
                        let may = self.training(step, &[room])?;
                        self.training(TrainingOp::StopGradient, &[may])
                    });
                    let (up, down) = (self.two(Binary::Mul, up, more?)?, self.two(Binary::Mul, down, less?)?);
                    self.two(Binary::Sub, up, down)?
                }
            };
            let taken = self.training(TrainingOp::StopGradient, &[spike])?;
            potential = self.two(Binary::Sub, q, taken)?;
            said = Some(match said {
                None => taken,
                Some(said) => self.two(Binary::Add, said, taken)?,
            });
            spikes.push(spike);
        }
        Ok(spikes)
    }

    /// Neurons by their spikes, one value a timestep.
    fn emitting(&mut self, spikes: Vec<Value>) -> Result<Neurons, Diagnostic> {
        let mut plain = spikes[0];
        for &spike in &spikes[1..] {
            plain = self.two(Binary::Add, plain, spike)?;
        }
        Ok(Neurons { plain, worth: plain, log: None, potential: None, most: spikes.len() as u32, spikes })
    }
}
