//! Reads the spelling of an operation: the inverse of its `Display`.
//!
//! What does not print as it was written is refused, so there is one spelling for everything.

use crate::curve::Curve;
use crate::membrane::Membrane;
use crate::op::{ArrayOp, Binary, DenseOp, Layout, LeafOp, LevelOp, Op, Perm, Scalar, SpikeOp, Unary};
use crate::ssa::{Output, Ssa};
use crate::training::{Surrogate, TrainingOp};
use crate::types::{Code, Dim, Shape};

/// The operation that prints as `spelled`. Errors say what is wrong with it.
pub fn op(spelled: &str) -> Result<Op, String> {
    let (name, attributes) = match spelled.split_once('[') {
        None => (spelled, ""),
        Some((name, rest)) => (name, rest.strip_suffix(']').ok_or("`]` is missing after the attributes")?),
    };
    let attributes: Vec<&str> = attributes.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect();
    let op = match attributes[..] {
        [] if !matches!(name, "reshape" | "reduce_sum" | "broadcast_to") => plain(name)?,
        _ => with_attributes(name, &attributes)?,
    };
    let printed = op.to_string();
    if printed == spelled { Ok(op) } else { Err(format!("this is spelled `{printed}`")) }
}

/// Operations without attributes.
fn plain(name: &str) -> Result<Op, String> {
    if let Some(kind) = Unary::ALL.into_iter().find(|kind| kind.name() == name) {
        return Ok(Op::Array(ArrayOp::Unary(kind)));
    }
    if let Some(kind) = Binary::ALL.into_iter().find(|kind| kind.name() == name) {
        return Ok(Op::Array(ArrayOp::Binary(kind)));
    }
    if let Some(op) = TrainingOp::PLAIN.into_iter().find(|op| op.name() == name) {
        return Ok(Op::Training(op));
    }
    let all = [
        Op::Leaf(LeafOp::Tokens),
        Op::Leaf(LeafOp::Positions),
        Op::Array(ArrayOp::Where),
        Op::Array(ArrayOp::MatMul),
        Op::Array(ArrayOp::Mean),
        Op::Array(ArrayOp::Softmax),
        Op::Array(ArrayOp::MergeHeads),
        Op::Dense(DenseOp::Embed),
        Op::Dense(DenseOp::Linear(Layout::InputMajor)),
        Op::Level(LevelOp::MatMulInt),
        Op::Level(LevelOp::ScaleShift),
        Op::Level(LevelOp::RowMaxAbs),
        Op::Level(LevelOp::GatherChannels),
        Op::Level(LevelOp::HeadLinear),
        Op::Spike(SpikeOp::Synapse),
        Op::Spike(SpikeOp::Decode),
    ];
    all.into_iter().find(|op| op.name() == name).ok_or_else(|| format!("`{name}` is no operation without attributes"))
}

fn with_attributes(name: &str, attributes: &[&str]) -> Result<Op, String> {
    Ok(match (name, attributes) {
        ("causal_mask", &[keep, drop]) => Op::Array(ArrayOp::CausalMask { keep: scalar(keep)?, drop: scalar(drop)? }),
        ("transpose", axes) => Op::Array(ArrayOp::Transpose(perm(axes)?)),
        ("reshape", dims) => Op::Array(ArrayOp::Reshape(shape(dims)?)),
        ("slice", &[axis, start, len]) => Op::Array(ArrayOp::Slice {
            axis: number(keyed(axis, "axis")?)?,
            start: number(keyed(start, "start")?)?,
            len: number(keyed(len, "len")?)?,
        }),
        ("split_heads", &[heads]) => Op::Array(ArrayOp::SplitHeads { heads: number(keyed(heads, "heads")?)? }),
        ("layer_norm", &[eps]) => Op::Dense(DenseOp::LayerNorm { eps: scalar(keyed(eps, "eps")?)? }),
        ("layer_norm_no_gain", &[eps]) => Op::Dense(DenseOp::LayerNormNoGain { eps: scalar(keyed(eps, "eps")?)? }),
        ("linear", &["output_major"]) => Op::Dense(DenseOp::Linear(Layout::OutputMajor)),
        ("curve", &[name]) => Op::Dense(DenseOp::Curve(curve(name)?)),
        ("attention", &[heads, scale]) => Op::Dense(DenseOp::Attention {
            heads: number(keyed(heads, "heads")?)?,
            scale: scalar(keyed(scale, "scale")?)?,
        }),
        ("quant", neuron) => {
            let (code, steps, curve) = self::neuron(neuron)?;
            Op::Level(LevelOp::Quant { code, steps, curve })
        }
        ("fire", neuron) => {
            let (code, steps, curve) = self::neuron(neuron)?;
            Op::Spike(SpikeOp::Fire { code, steps, curve })
        }
        ("integrate", neuron) => {
            let (name, steps, curve) = match *neuron {
                [name, steps] => (name, steps, Curve::Identity),
                [name, steps, curve] => (name, steps, self::curve(curve)?),
                _ => return Err("a neuron has a membrane, timesteps and perhaps a curve".into()),
            };
            let names = || Membrane::ALL.map(Membrane::name).join(", ");
            let membrane = Membrane::from_name(name);
            let membrane = membrane.ok_or_else(|| format!("`{name}` is no membrane: there are {}", names()))?;
            Op::Spike(SpikeOp::Integrate { membrane, steps: number(steps)?, curve })
        }
        ("ssa", &[variant, heads, ref more @ ..]) => {
            Op::Level(LevelOp::Ssa { heads: number(keyed(heads, "heads")?)?, variant: ssa(variant, more)? })
        }
        ("reduce_sum", dims) => Op::Training(TrainingOp::ReduceSum(shape(dims)?)),
        ("broadcast_to", dims) => Op::Training(TrainingOp::BroadcastTo(shape(dims)?)),
        ("fake_quant", &[most]) => Op::Training(TrainingOp::FakeQuant { most: number(most)? }),
        ("topk_mask", &[keys]) => Op::Training(TrainingOp::TopKMask { keys: number(keys)? }),
        ("fake_quant_grad", &[most]) => Op::Training(TrainingOp::FakeQuantGrad { most: number(most)? }),
        ("step", &[kind]) => Op::Training(TrainingOp::Step(surrogate(kind)?)),
        ("surrogate", &[kind]) => Op::Training(TrainingOp::Surrogate(surrogate(kind)?)),
        ("curve_slope", &[name]) => Op::Training(TrainingOp::CurveSlope(curve(name)?)),
        ("layer_norm_no_gain_grad", &[eps]) => {
            Op::Training(TrainingOp::LayerNormNoGainGrad { eps: scalar(keyed(eps, "eps")?)? })
        }
        ("gather_channels_grad", &[width]) => {
            Op::Training(TrainingOp::GatherChannelsGrad { width: number(keyed(width, "width")?)? })
        }
        ("embed_grad", &[rows]) => Op::Training(TrainingOp::EmbedGrad { rows: number(keyed(rows, "rows")?)? }),
        _ => return Err(format!("`{name}[{}]` is no operation", attributes.join(","))),
    })
}

/// A variant of spiking attention by its name and what follows the heads.
fn ssa(name: &str, attributes: &[&str]) -> Result<Ssa, String> {
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

/// `code,steps`, and the curve where it is not the identity.
fn neuron(attributes: &[&str]) -> Result<(Code, u16, Curve), String> {
    let (code, steps, curve) = match *attributes {
        [code, steps] => (code, steps, Curve::Identity),
        [code, steps, curve] => (code, steps, self::curve(curve)?),
        _ => return Err("a neuron has a code, timesteps and perhaps a curve".into()),
    };
    let code = Code::from_name(code).ok_or_else(|| format!("`{code}` is no code: there are binary and unary"))?;
    Ok((code, number(steps)?, curve))
}

fn curve(name: &str) -> Result<Curve, String> {
    Curve::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = Curve::ALL.into_iter().map(Curve::name).collect();
        format!("`{name}` is no curve: there are {}", names.join(", "))
    })
}

fn surrogate(name: &str) -> Result<Surrogate, String> {
    let names = || Surrogate::ALL.map(Surrogate::name).join(", ");
    Surrogate::from_name(name).ok_or_else(|| format!("`{name}` is no surrogate: there are {}", names()))
}

/// The value of `key=value`.
fn keyed<'a>(attribute: &'a str, key: &str) -> Result<&'a str, String> {
    let value = attribute.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
    value.ok_or_else(|| format!("`{key}=` was expected, here is `{attribute}`"))
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("`{text}` is no number that fits here"))
}

/// Any f32 but those that are not numbers, whose bits a spelling would lose.
fn scalar(text: &str) -> Result<Scalar, String> {
    let value: f32 = number(text)?;
    if value.is_nan() { Err(format!("`{text}` is not a number")) } else { Ok(Scalar::new(value)) }
}

fn perm(axes: &[&str]) -> Result<Perm, String> {
    let numbers = axes.iter().map(|axis| number(axis)).collect::<Result<Vec<usize>, String>>()?;
    Perm::new(&numbers).ok_or_else(|| format!("[{}] is no order of at most five axes", axes.join(",")))
}

/// Sizes of a shape, of which there are at most five.
pub(super) fn shape(dims: &[&str]) -> Result<Shape, String> {
    if dims.len() > Shape::MAX_RANK {
        return Err(format!("shapes have at most {} sizes", Shape::MAX_RANK));
    }
    let dim = |text: &&str| match *text {
        "tokens" => Ok(Dim::Tokens),
        "context" => Ok(Dim::Context),
        size => number(size).map(Dim::Fixed),
    };
    Ok(Shape::new(&dims.iter().map(dim).collect::<Result<Vec<Dim>, String>>()?))
}
