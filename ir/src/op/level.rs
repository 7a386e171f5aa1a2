//! Levels instead of reals: what stands between the norms of a converted network.

use crate::curve::Curve;
use crate::op::attribute::Heads;
use crate::op::info::{ITQS, OpInfo, Q, QS, QS_TRAINING};
use crate::op::shapes::{f32_of, f32_shape, gated_neuron, neuron, neuron_arity, per_channel, row_width, synapses};
use crate::op::spelling::{self, keyed, number};
use crate::ssa::{GUARD_MAX, Output, Ssa};
use crate::types::{Carrier, Code, Dim, Elem, Shape, Type};
use std::fmt;

/// Levels instead of reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LevelOp {
    /// `(x, gain f32[d], offset f32[d])`, or with a curve `(x, pre_gain, pre_offset, gain, offset)`: the nearest level of
    /// the affine image of (the curve of) `x`, ties away from zero.
    Quant {
        /// How levels are spelled.
        code: Code,
        /// How many timesteps.
        steps: u16,
        /// The activation function before the levels.
        curve: Curve,
    },
    /// `(gate, up, pre_gain f32[d], pre_offset f32[d], gain f32[d], offset f32[d])`: the nearest level of
    /// `curve(gate pre_gain + pre_offset) * (up gain + offset)`, ties away from zero: neurons with a multiplicative input. Gate
    /// and up are `f32` or `i32`, `[tokens, d]`.
    GatedQuant {
        /// How levels are spelled.
        code: Code,
        /// How many timesteps.
        steps: u16,
        /// The activation function of the gate.
        curve: Curve,
    },
    /// `(levels [tokens, d], i8[d, m]) -> i32[tokens, m]`: exact integer product.
    MatMulInt,
    /// `(x [tokens, m], gain f32[m], offset f32[m]) -> f32[tokens, m]`: sums or levels as reals, reals in other units, a norm's
    /// gain and bias.
    ScaleShift,
    /// `f32[tokens, heads * w] -> f32[tokens, heads]`: the largest magnitude of each head of a row, 1 where all are 0: per-token
    /// thresholds.
    RowMaxAbs {
        /// Heads side by side in a row, each with a threshold; 1: a threshold for the whole row.
        heads: u32,
    },
    /// `(x f32[tokens, d], channels i32[k]) -> f32[tokens, k]`: some channels of every row.
    GatherChannels,
    /// `(x f32[tokens, heads * w], map f32[heads, w, m]) -> f32[tokens, heads * m]`: a dense map of its own for every head.
    HeadLinear,
    /// `(q [tokens, heads * f], k [tokens, kv_heads * f], v [tokens, kv_heads * w], ...)`: spiking attention, causal. Takes level
    /// tensors or spike trains; gives a weighted mean of v's levels, `f32[tokens, heads * w]`, or spikes. What a key weighs, what else it takes and what it keeps is the variant's: see `Ssa`.
    Ssa {
        /// The heads, and how far back they look.
        heads: Heads,
        /// How keys are weighed.
        variant: Ssa,
    },
}

impl LevelOp {
    pub(super) fn info(&self) -> OpInfo {
        match self {
            LevelOp::Quant { curve, .. } => OpInfo::new("quant", neuron_arity(*curve), Q).parameters(1).neuron(),
            LevelOp::GatedQuant { .. } => OpInfo::new("gated_quant", 6, Q).parameters(2).neuron(),
            LevelOp::MatMulInt => OpInfo::new("matmul_int", 2, Q).parameters(1),
            LevelOp::ScaleShift => OpInfo::new("scale_shift", 3, ITQS).parameters(1),
            LevelOp::RowMaxAbs { .. } => OpInfo::new("row_max_abs", 1, QS_TRAINING),
            LevelOp::GatherChannels => OpInfo::new("gather_channels", 2, QS_TRAINING).parameters(1),
            LevelOp::HeadLinear => OpInfo::new("head_linear", 2, QS).parameters(1),
            LevelOp::Ssa { heads, variant } => {
                let first = heads.first_constant();
                let arity = first + variant.constants() + usize::from(heads.alibi);
                OpInfo::new("ssa", arity, QS).parameters(first).state()
            }
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LevelOp::Quant { code, steps, curve } => spelling::write_neuron(f, code.name(), *steps, *curve),
            LevelOp::GatedQuant { code, steps, curve } => spelling::write_gated(f, *code, *steps, *curve),
            LevelOp::Ssa { heads, variant } => write!(f, "[{},{heads}{}]", variant.name(), variant.attributes()),
            LevelOp::RowMaxAbs { heads: 1 } => Ok(()),
            LevelOp::RowMaxAbs { heads } => write!(f, "[heads={heads}]"),
            LevelOp::MatMulInt | LevelOp::ScaleShift | LevelOp::GatherChannels | LevelOp::HeadLinear => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (name, attributes) {
            ("matmul_int", []) => LevelOp::MatMulInt,
            ("scale_shift", []) => LevelOp::ScaleShift,
            ("row_max_abs", []) => LevelOp::RowMaxAbs { heads: 1 },
            ("row_max_abs", &[heads]) => LevelOp::RowMaxAbs { heads: number(keyed(heads, "heads")?)? },
            ("gather_channels", []) => LevelOp::GatherChannels,
            ("head_linear", []) => LevelOp::HeadLinear,
            ("quant", neuron) if !neuron.is_empty() => {
                let (code, steps, curve) = spelling::neuron(neuron)?;
                LevelOp::Quant { code, steps, curve }
            }
            ("gated_quant", neuron) if !neuron.is_empty() => {
                let (code, steps, curve) = spelling::gated(neuron)?;
                LevelOp::GatedQuant { code, steps, curve }
            }
            ("ssa", &[variant, ref attributes @ ..]) => {
                let (heads, more) = spelling::heads(attributes)?;
                LevelOp::Ssa { heads, variant: ssa_variant(variant, more)? }
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self, args: &[Type]) -> Result<Type, String> {
        match self {
            LevelOp::Quant { code, steps, curve } => {
                let d = neuron(args, curve, code.max_steps(), steps)?;
                Ok(Type::tensor(Elem::Level(code, steps), Shape::rows(d)))
            }
            LevelOp::GatedQuant { code, steps, .. } => {
                let d = gated_neuron(args, code.max_steps(), steps)?;
                Ok(Type::tensor(Elem::Level(code, steps), Shape::rows(d)))
            }
            LevelOp::MatMulInt => match args[0] {
                Type::Tensor { elem: Elem::Level(..), shape } => {
                    let outputs = synapses(shape, args[1])?;
                    Ok(Type::tensor(Elem::I32, Shape::rows(outputs)))
                }
                other => Err(format!("levels were expected, here is {other}")),
            },
            LevelOp::ScaleShift => match args[0] {
                Type::Tensor { elem: Elem::F32 | Elem::I32 | Elem::Level(..), shape } => {
                    let d = row_width(shape)?;
                    per_channel(args, 1, d)?;
                    per_channel(args, 2, d)?;
                    Ok(f32_of(shape))
                }
                other => Err(format!("sums, levels or reals, [tokens,width], were expected, here is {other}")),
            },
            LevelOp::RowMaxAbs { heads } => {
                let (d, heads) = (row_width(f32_shape(args, 0)?)?, heads as usize);
                if heads == 0 || !d.is_multiple_of(heads) {
                    return Err(format!("{heads} heads do not divide a width of {d}"));
                }
                Ok(f32_of(Shape::rows(heads)))
            }
            LevelOp::GatherChannels => {
                row_width(f32_shape(args, 0)?)?;
                match args[1] {
                    Type::Tensor { elem: Elem::I32, shape } => match shape.dims() {
                        [Dim::Fixed(k)] => Ok(f32_of(Shape::rows(*k as usize))),
                        _ => Err(format!("channels, i32[k], were expected, here is {}", args[1])),
                    },
                    other => Err(format!("channels, i32[k], were expected, here is {other}")),
                }
            }
            LevelOp::HeadLinear => {
                let d = row_width(f32_shape(args, 0)?)?;
                match f32_shape(args, 1)?.dims() {
                    [Dim::Fixed(heads), Dim::Fixed(w), Dim::Fixed(m)] if *heads as usize * *w as usize == d => {
                        let width =
                            (*heads as usize).checked_mul(*m as usize).filter(|&width| width <= i32::MAX as usize);
                        Ok(f32_of(Shape::rows(width.ok_or("its results are too wide")?)))
                    }
                    _ => Err(format!(
                        "maps of heads, f32[heads,width,m], of {d} inputs were expected, here is {}",
                        args[1]
                    )),
                }
            }
            LevelOp::Ssa { heads, variant } => ssa(heads, variant, args),
        }
    }
}

/// A variant of spiking attention by its name and what follows the heads.
fn ssa_variant(name: &str, attributes: &[&str]) -> Result<Ssa, String> {
    Ok(match (name, attributes) {
        ("ttfs", &[phases]) => Ssa::Ttfs { phases: number(keyed(phases, "phases")?)? },
        ("topk", &[phases, keys]) => {
            Ssa::TopK { phases: number(keyed(phases, "phases")?)?, keys: number(keyed(keys, "keys")?)? }
        }
        ("coincidence", &[]) => Ssa::Coincidence { squared: false },
        ("coincidence", &["squared"]) => Ssa::Coincidence { squared: true },
        ("linear", &[guard]) => Ssa::Linear { guard: number(keyed(guard, "guard")?)? },
        ("lif", &[]) => Ssa::Lif { output: Output::Mean },
        ("lif", &["output=spikes"]) => Ssa::Lif { output: Output::Spikes },
        _ => {
            let names = Ssa::NAMES.join(", ");
            return Err(format!("`{name}` with `{}` is no attention: there are {names}", attributes.join(",")));
        }
    })
}

/// Checks the thresholds of tokens behind v.
fn thresholds(heads: Heads, variant: Ssa, args: &[Type]) -> Result<(), String> {
    if variant.has_features() {
        return Err(format!("`{}` attention has no thresholds of tokens", variant.name()));
    }
    for (i, heads) in [(3, heads.query), (4, heads.kv), (5, heads.kv)] {
        let expected = f32_of(Shape::rows(heads as usize));
        if args[i] != expected {
            return Err(format!("operand {} should be {expected}, it is {}", i + 1, args[i]));
        }
    }
    Ok(())
}

fn ssa(heads: Heads, variant: Ssa, args: &[Type]) -> Result<Type, String> {
    for arg in &args[..3] {
        if arg.levels().is_none() || matches!(arg, Type::Train { .. }) != matches!(args[0], Type::Train { .. }) {
            return Err(format!("levels or spikes, all three, were expected, here is {arg}"));
        }
    }
    let [q, k, v] = [row_width(args[0].shape())?, row_width(args[1].shape())?, row_width(args[2].shape())?];
    if let Some(fault) = heads.fault(q, k).or_else(|| heads.fault(q, v)) {
        return Err(fault);
    }
    let (query, kv) = (heads.query as usize, heads.kv as usize);
    if q / query != k / kv || (k != v && !variant.has_features()) {
        return Err(format!("heads of one width were expected, here are {}, {} and {}", args[0], args[1], args[2]));
    }
    if heads.window.is_some() && variant.has_features() {
        return Err(format!("`{}` attention has no window", variant.name()));
    }
    if heads.thresholds {
        thresholds(heads, variant, args)?;
    }
    if heads.alibi && variant.has_features() {
        return Err(format!("`{}` attention fades by half-lives, not by ALiBi", variant.name()));
    }
    let d = v / kv * query;
    match variant {
        Ssa::Ttfs { phases } | Ssa::TopK { phases, .. } => {
            if !(1..=64).contains(&phases) {
                return Err(format!("1 to 64 phases an octave are possible, here are {phases}"));
            }
            if let Ssa::TopK { keys: 0, .. } = variant {
                return Err("one key at least should fire".into());
            }
            let first = heads.first_constant();
            per_channel(args, first, query)?;
            if heads.alibi {
                per_channel(args, first + 1, query)?;
            }
        }
        Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => {
            per_channel(args, 3, query)?;
            if args[4] != Type::tensor(Elem::I32, Shape::fixed(&[kv])) {
                return Err(format!("operand 5 should be i32[{kv}], it is {}", args[4]));
            }
        }
    }
    match variant {
        Ssa::Coincidence { .. } | Ssa::Lif { .. } => {
            let code = |i: usize| args[i].levels();
            if !matches!(code(0), Some((Code::Unary, _))) || code(0) != code(1) {
                return Err(format!(
                    "unary features of equal length were expected, here are {} and {}",
                    args[0], args[1]
                ));
            }
            let Ssa::Lif { output: Output::Spikes } = variant else {
                return Ok(Type::tensor(Elem::F32, Shape::rows(d)));
            };
            if code(2) != code(0) {
                return Err(format!(
                    "values as long as the features were expected, here are {} and {}",
                    args[0], args[2]
                ));
            }
            per_channel(args, 5, d)?;
            let steps = code(0).map_or(1, |(_, steps)| steps);
            Ok(match args[0] {
                Type::Train { .. } => {
                    Type::Train { carrier: Carrier::Spike, code: Code::Unary, steps, shape: Shape::rows(d) }
                }
                Type::Tensor { .. } => Type::tensor(Elem::Level(Code::Unary, steps), Shape::rows(d)),
            })
        }
        Ssa::Linear { guard } if guard > GUARD_MAX => {
            Err(format!("at most {GUARD_MAX} guard bits are possible, here are {guard}"))
        }
        Ssa::Ttfs { .. } | Ssa::TopK { .. } | Ssa::Linear { .. } => Ok(Type::tensor(Elem::F32, Shape::rows(d))),
    }
}
