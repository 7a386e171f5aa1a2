//! Levels spread over timesteps: neurons that fire, synapses that add.

use crate::curve::Curve;
use crate::membrane::Membrane;
use crate::op::info::{OpInfo, S};
use crate::op::shapes::{gated_neuron, neuron, neuron_arity, per_channel, row_width, synapses};
use crate::op::spelling::{self, number};
use crate::types::{Carrier, Code, Elem, Shape, Type};
use std::fmt;

/// Levels spread over timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpikeOp {
    /// As `Quant`, but emits the level as a spike train.
    Fire {
        /// How levels are spelled.
        code: Code,
        /// How many timesteps.
        steps: u16,
        /// The activation function before the levels.
        curve: Curve,
    },
    /// As `GatedQuant`, but emits the level as a spike train.
    GatedFire {
        /// How levels are spelled.
        code: Code,
        /// How many timesteps.
        steps: u16,
        /// The activation function of the gate.
        curve: Curve,
    },
    /// `(x, gain f32[d], offset f32[d]) -> spikes [tokens, d]`, unary: a time-stepped neuron. `x` is a current of as many
    /// timesteps, or a tensor that flows evenly over them. Each parameter of the neuron is one more operand, `f32[d]`.
    Integrate {
        /// What a timestep's input does.
        membrane: Membrane,
        /// How many timesteps.
        steps: u16,
        /// The activation function before the levels.
        curve: Curve,
    },
    /// `(spikes [tokens, d], i8[d, m]) -> current [tokens, m]`: adds or subtracts a weight row for every spike.
    Synapse,
    /// What a spike train denotes: the sum of its parts weighted by its code.
    Decode,
}

impl SpikeOp {
    pub(super) fn info(&self) -> OpInfo {
        match self {
            SpikeOp::Fire { curve, .. } => OpInfo::new("fire", neuron_arity(*curve), S).parameters(1).neuron(),
            SpikeOp::GatedFire { .. } => OpInfo::new("gated_fire", 6, S).parameters(2).neuron(),
            SpikeOp::Integrate { membrane, .. } => {
                OpInfo::new("integrate", 3 + membrane.rule().parameters.len(), S).parameters(1).neuron()
            }
            SpikeOp::Synapse => OpInfo::new("synapse", 2, S).parameters(1),
            SpikeOp::Decode => OpInfo::new("decode", 1, S),
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpikeOp::Fire { code, steps, curve } => spelling::write_neuron(f, code.name(), *steps, *curve),
            SpikeOp::GatedFire { code, steps, curve } => spelling::write_gated(f, *code, *steps, *curve),
            SpikeOp::Integrate { membrane, steps, curve } => spelling::write_neuron(f, membrane.name(), *steps, *curve),
            SpikeOp::Synapse | SpikeOp::Decode => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (name, attributes) {
            ("synapse", []) => SpikeOp::Synapse,
            ("decode", []) => SpikeOp::Decode,
            ("fire", neuron) if !neuron.is_empty() => {
                let (code, steps, curve) = spelling::neuron(neuron)?;
                SpikeOp::Fire { code, steps, curve }
            }
            ("gated_fire", neuron) if !neuron.is_empty() => {
                let (code, steps, curve) = spelling::gated(neuron)?;
                SpikeOp::GatedFire { code, steps, curve }
            }
            ("integrate", neuron) if !neuron.is_empty() => time_stepped(neuron)?,
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self, args: &[Type]) -> Result<Type, String> {
        match self {
            SpikeOp::Fire { code, steps, curve } => {
                let d = neuron(args, curve, code.max_steps(), steps)?;
                Ok(Type::Train { carrier: Carrier::Spike, code, steps, shape: Shape::rows(d) })
            }
            SpikeOp::GatedFire { code, steps, .. } => {
                let d = gated_neuron(args, code.max_steps(), steps)?;
                Ok(Type::Train { carrier: Carrier::Spike, code, steps, shape: Shape::rows(d) })
            }
            SpikeOp::Integrate { membrane, steps, curve } => {
                let code = Code::Unary;
                if !Membrane::has(curve) {
                    return Err(format!("a time-stepped neuron has no curve `{}`", curve.name()));
                }
                if steps == 0 || steps > code.max_steps() {
                    return Err(format!("1 to {} timesteps are possible, here are {steps}", code.max_steps()));
                }
                let shape = match args[0] {
                    Type::Tensor { elem: Elem::F32 | Elem::I32, shape } => shape,
                    Type::Train { carrier: Carrier::Current, code: Code::Unary, steps: own, shape } if own == steps => {
                        shape
                    }
                    other => {
                        return Err(format!(
                            "a potential, or a unary current of {steps} timesteps, was expected, here is {other}"
                        ));
                    }
                };
                let d = row_width(shape)?;
                (1..3 + membrane.rule().parameters.len()).try_for_each(|i| per_channel(args, i, d))?;
                Ok(Type::Train { carrier: Carrier::Spike, code, steps, shape: Shape::rows(d) })
            }
            SpikeOp::Synapse => match args[0] {
                Type::Train { carrier: Carrier::Spike, code, steps, shape } => {
                    let outputs = synapses(shape, args[1])?;
                    Ok(Type::Train { carrier: Carrier::Current, code, steps, shape: Shape::rows(outputs) })
                }
                other => Err(format!("a spike train was expected, here is {other}")),
            },
            SpikeOp::Decode => match args[0] {
                Type::Train { carrier: Carrier::Spike, code, steps, shape } => {
                    Ok(Type::tensor(Elem::Level(code, steps), shape))
                }
                Type::Train { carrier: Carrier::Current, shape, .. } => Ok(Type::tensor(Elem::I32, shape)),
                other => Err(format!("a train was expected, here is {other}")),
            },
        }
    }
}

/// `membrane,steps`, and the curve where it is not the identity.
fn time_stepped(attributes: &[&str]) -> Result<SpikeOp, String> {
    let (name, steps, curve) = match *attributes {
        [name, steps] => (name, steps, Curve::Identity),
        [name, steps, curve] => (name, steps, spelling::curve(curve)?),
        _ => return Err("a neuron has a membrane, timesteps and perhaps a curve".into()),
    };
    let membrane =
        Membrane::from_name(name).ok_or_else(|| format!("`{name}` is no membrane: there are {}", Membrane::names()))?;
    Ok(SpikeOp::Integrate { membrane, steps: number(steps)?, curve })
}
