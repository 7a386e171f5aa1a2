//! Time-stepped neurons: what a membrane does with one timestep's input.
//!
//! Unlike `fire`, which integrates the whole train before it speaks, such a neuron spikes before it has heard everything,
//! so what it says depends on the order of its inputs, and time does not collapse. Potentials are in units of the
//! threshold. A membrane starts half-way, so that a constant input is rounded, not cut off. Signed values have two
//! membranes, one for each sign; with a ReLU there is one, which never spikes for what is negative: a plain IF layer.

use crate::curve::Curve;
use crate::real::Real;

/// How a membrane integrates, and what a spike leaves of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Membrane {
    /// Integrate and fire; a spike takes the threshold away.
    If,
    /// Integrate and fire; a spike takes everything away.
    IfHard,
    /// Leaky: 1/16 of the potential is lost every timestep; a spike takes the threshold away.
    Lif,
    /// Bipolar with a tracer of what was said: takes back what later inputs contradict (SpikeZIP-TF, 2024).
    StBif,
}

/// What a LIF membrane keeps from one timestep to the next.
pub const KEPT: f64 = 15.0 / 16.0;

/// One neuron between timesteps.
#[derive(Clone, Copy, Debug)]
pub struct MembraneState<R> {
    /// Potentials for positive and for negative spikes.
    potentials: [R; 2],
    /// Spikes so far, with their signs.
    said: i32,
}

impl Membrane {
    /// All of them.
    pub const ALL: [Membrane; 4] = [Membrane::If, Membrane::IfHard, Membrane::Lif, Membrane::StBif];

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Membrane::If => "if",
            Membrane::IfHard => "if_hard",
            Membrane::Lif => "lif",
            Membrane::StBif => "st_bif",
        }
    }

    /// The membrane of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|membrane| membrane.name() == name)
    }

    /// The curves that such a neuron has by itself.
    pub fn has(curve: Curve) -> bool {
        matches!(curve, Curve::Identity | Curve::Relu)
    }

    /// A membrane before its first timestep: half-way to the threshold.
    pub fn start<R: Real>() -> MembraneState<R> {
        MembraneState { potentials: [R::from_f64(0.5); 2], said: 0 }
    }

    /// Takes one timestep's input in and says the spike: -1, 0 or +1.
    pub fn step<R: Real>(self, state: &mut MembraneState<R>, input: R, steps: u16, curve: Curve) -> i32 {
        let one = R::from_f64(1.0);
        let spike = match self {
            Membrane::StBif => {
                let q = state.potentials[0] + input;
                let most = i32::from(steps);
                let least = if curve == Curve::Relu { 0 } else { -most };
                let spike = if q >= one && state.said < most {
                    1
                } else if q < R::ZERO && state.said > least {
                    -1
                } else {
                    0
                };
                state.potentials[0] = q - R::from_i32(spike);
                spike
            }
            Membrane::If | Membrane::IfHard | Membrane::Lif => {
                let signs = if curve == Curve::Relu { &[1][..] } else { &[1, -1] };
                let mut spike = 0;
                for (potential, &sign) in state.potentials.iter_mut().zip(signs) {
                    let kept = if self == Membrane::Lif { *potential * R::from_f64(KEPT) } else { *potential };
                    let v = if sign == 1 { kept + input } else { kept - input };
                    let fires = v >= one;
                    *potential = match (fires, self) {
                        (false, _) => v,
                        (true, Membrane::IfHard) => R::ZERO,
                        (true, _) => v - one,
                    };
                    spike += if fires { sign } else { 0 };
                }
                spike
            }
        };
        state.said += spike;
        spike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(membrane: Membrane, inputs: &[f64], curve: Curve) -> Vec<i32> {
        let mut state = Membrane::start();
        inputs.iter().map(|&x| membrane.step(&mut state, x, inputs.len() as u16, curve)).collect()
    }

    /// Worked by hand: potentials .875, 1.25, .625, 1 and so on.
    #[test]
    fn a_constant_input_is_rounded() {
        assert_eq!(train(Membrane::If, &[0.375; 8], Curve::Identity), [0, 1, 0, 1, 0, 0, 1, 0]);
        assert_eq!(train(Membrane::If, &[-0.375; 8], Curve::Identity), [0, -1, 0, -1, 0, 0, -1, 0]);
        assert_eq!(train(Membrane::If, &[-0.375; 8], Curve::Relu), [0; 8]);
        // .875, 1.25 and a spike, .375, .75, 1.125 and a spike.
        assert_eq!(train(Membrane::IfHard, &[0.375; 8], Curve::Identity), [0, 1, 0, 0, 1, 0, 0, 1]);
    }

    /// 2.2 - 1 + .4 = 1.6, which rounds to 2.
    #[test]
    fn a_tracer_takes_back_what_was_too_much() {
        assert_eq!(train(Membrane::StBif, &[2.25, -1.0, 0.375, 0.0], Curve::Relu), [1, 0, 1, 0]);
        assert_eq!(train(Membrane::StBif, &[2.25, -2.0, 0.0, 0.0], Curve::Relu), [1, -1, 0, 0]);
        assert_eq!(train(Membrane::StBif, &[1.0, 1.0, -2.0, 0.0], Curve::Identity), [1, 1, -1, -1]);
    }

    #[test]
    fn a_leak_loses_charge() {
        let spikes = |membrane| train(membrane, &[0.25; 64], Curve::Identity).iter().sum::<i32>();
        assert_eq!((spikes(Membrane::If), spikes(Membrane::Lif) < 16), (16, true));
    }

    /// Equal sums in another order: what cannot be taken back is said too early.
    #[test]
    fn order_matters() {
        let early = train(Membrane::If, &[2.0, -2.0, 0.0, 0.0], Curve::Relu);
        let late = train(Membrane::If, &[-2.0, 2.0, 0.0, 0.0], Curve::Relu);
        assert_ne!(early.iter().sum::<i32>(), late.iter().sum::<i32>());
    }
}
