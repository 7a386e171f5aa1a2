//! A transformer in its own words.

use crate::curve::Curve;
use crate::hadamard::HadamardSize;
use crate::op::attribute::{Heads, Layout, Pairs, Scalar};
use crate::op::info::{ITQS, OpInfo, QS_TRAINING, TQS, TQS_TRAINING};
use crate::op::leaf::opening_type;
use crate::op::shapes::{divides, f32_of, f32_shape, matrix, per_channel, row_width, same};
use crate::op::spelling::{curve, heads, keyed, number, pairs, scalar};
use crate::types::{Dim, Elem, Shape, Type};
use std::fmt;

/// A transformer in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenseOp {
    /// `(i32[tokens], f32[v, d]) -> f32[tokens, d]`: rows of a table.
    Embed,
    /// `f32[tokens, d]` less its mean over the channels: what LayerNorm does before it is an RMSNorm.
    Centre,
    /// `f32[tokens, d]` over the root of its mean square plus `eps`, without a gain (RMSNorm: Zhang and Sennrich 2019).
    RmsNorm {
        /// Added to the mean square.
        eps: Scalar,
        /// Equal groups of channels, each of which is normalised on its own; 1 is the whole row.
        heads: u32,
    },
    /// `(x f32[tokens, heads * w], turns f32[tokens, r])`: of each head the first `r` channels are turned in pairs, the others
    /// pass. A row of `turns` is the cosine of each pair's angle, then the sines; `(a, b)` becomes
    /// `(a cos - b sin, b cos + a sin)` (rotary positions: Su et al. 2021).
    Rotary {
        /// How many heads a row has side by side.
        heads: u32,
        /// Which channels are turned together.
        pairs: Pairs,
    },
    /// `(x f32[tokens, d], w, bias f32[m]) -> f32[tokens, m]`.
    Linear(Layout),
    /// An activation function.
    Curve(Curve),
    /// `(gate, up)`, both `f32[tokens, d]`: the curve of the gate, times `up` (gated linear units: Shazeer 2020).
    Gated(Curve),
    /// `f32[tokens, d]`, in blocks that divide `d`, times a symmetric Hadamard matrix over the root of its size: its own inverse
    /// and its own transpose. The order of additions is `HadamardMatrix::apply`'s (Sylvester 1867; Paley 1933).
    Hadamard(HadamardSize),
    /// `(x f32[tokens, d], opening i32[tokens, 2], starts i32[k, 2], rows f32[k, d]) -> f32[tokens, d]`: rows of `x`; but where what a
    /// sequence has begun with is one of `starts`, the row of it: a constant of the network (attention sinks: Xiao et al. 2023).
    AtStart,
    /// `(q f32[tokens, heads * w], k, v f32[tokens, kv_heads * w])`: causal softmax attention with its keys and values as state. With
    /// `alibi`, `f32[heads]` follows: what a score loses per token between query and key, after it was scaled.
    Attention {
        /// The heads, and how far back they look.
        heads: Heads,
        /// What scores are multiplied by.
        scale: Scalar,
    },
}

impl DenseOp {
    pub(super) fn info(&self) -> OpInfo {
        let eps_is_sound = |eps: &Scalar| eps.get().is_finite() && eps.get() >= 0.0;
        match self {
            DenseOp::Embed => OpInfo::new("embed", 2, ITQS).parameters(1),
            DenseOp::Centre => OpInfo::new("centre", 1, ITQS),
            DenseOp::RmsNorm { eps, .. } => OpInfo::new("rms_norm", 1, ITQS).expect(eps_is_sound(eps), EPS),
            DenseOp::Rotary { .. } => OpInfo::new("rotary", 2, ITQS),
            DenseOp::Linear(_) => OpInfo::new("linear", 3, TQS).parameters(1),
            DenseOp::Curve(_) => OpInfo::new("curve", 1, TQS_TRAINING),
            DenseOp::Gated(_) => OpInfo::new("gated", 2, TQS_TRAINING),
            DenseOp::Hadamard(size) => OpInfo::new("hadamard", 1, TQS_TRAINING).expect(size.is_sound(), HADAMARD),
            DenseOp::AtStart => OpInfo::new("at_start", 4, QS_TRAINING).parameters(2),
            DenseOp::Attention { heads, scale } => {
                let info = OpInfo::new("attention", 3 + usize::from(heads.alibi), TQS).parameters(3).state();
                info.expect(scale.get().is_finite(), "a finite scale")
            }
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DenseOp::RmsNorm { eps, heads: 1 } => write!(f, "[eps={:?}]", eps.get()),
            DenseOp::RmsNorm { eps, heads } => write!(f, "[eps={:?},heads={heads}]", eps.get()),
            DenseOp::Rotary { heads, pairs } => write!(f, "[heads={heads},pairs={}]", pairs.name()),
            DenseOp::Linear(Layout::OutputMajor) => f.write_str("[output_major]"),
            DenseOp::Curve(curve) | DenseOp::Gated(curve) => write!(f, "[{}]", curve.name()),
            DenseOp::Hadamard(size) => write!(f, "[{size}]"),
            DenseOp::Attention { heads, scale } => write!(f, "[{heads},scale={:?}]", scale.get()),
            DenseOp::Embed | DenseOp::Centre | DenseOp::AtStart | DenseOp::Linear(Layout::InputMajor) => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (name, attributes) {
            ("embed", []) => DenseOp::Embed,
            ("linear", []) => DenseOp::Linear(Layout::InputMajor),
            ("linear", &["output_major"]) => DenseOp::Linear(Layout::OutputMajor),
            ("centre", []) => DenseOp::Centre,
            ("rms_norm", &[eps]) => DenseOp::RmsNorm { eps: scalar(keyed(eps, "eps")?)?, heads: 1 },
            ("rms_norm", &[eps, heads]) => {
                DenseOp::RmsNorm { eps: scalar(keyed(eps, "eps")?)?, heads: number(keyed(heads, "heads")?)? }
            }
            ("rotary", &[heads, pairing]) => {
                DenseOp::Rotary { heads: number(keyed(heads, "heads")?)?, pairs: pairs(keyed(pairing, "pairs")?)? }
            }
            ("curve", &[name]) => DenseOp::Curve(curve(name)?),
            ("gated", &[name]) => DenseOp::Gated(curve(name)?),
            ("hadamard", &[order, power]) => DenseOp::Hadamard(HadamardSize {
                order: number(keyed(order, "order")?)?,
                power: number(keyed(power, "power")?)?,
            }),
            ("at_start", []) => DenseOp::AtStart,
            ("attention", attributes) if !attributes.is_empty() => {
                let (heads, rest) = heads(attributes)?;
                let &[scale] = rest else { return Err("attention has heads and a scale".into()) };
                DenseOp::Attention { heads, scale: scalar(keyed(scale, "scale")?)? }
            }
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self, args: &[Type]) -> Result<Type, String> {
        match self {
            DenseOp::Embed => match (args[0], args[1].elem(), args[1].shape().dims()) {
                (
                    Type::Tensor { elem: Elem::I32, shape },
                    Some(elem @ (Elem::F32 | Elem::I8)),
                    [Dim::Fixed(a), Dim::Fixed(b)],
                ) if shape == Shape::new(&[Dim::Tokens]) => {
                    // Columns of a weight, rows of a table.
                    let integers = elem == Elem::I8;
                    let shape = Shape::rows(*if integers { a } else { b } as usize);
                    Ok(if integers { Type::tensor(Elem::I32, shape) } else { f32_of(shape) })
                }
                _ => Err(format!("i32[tokens] and a table were expected, here are {} and {}", args[0], args[1])),
            },
            DenseOp::Centre => {
                row_width(f32_shape(args, 0)?)?;
                Ok(args[0])
            }
            DenseOp::RmsNorm { heads, .. } => {
                divides(heads, row_width(f32_shape(args, 0)?)?)?;
                Ok(args[0])
            }
            DenseOp::Rotary { heads, .. } => {
                let d = row_width(f32_shape(args, 0)?)?;
                divides(heads, d)?;
                let (width, turned) = (d / heads as usize, row_width(f32_shape(args, 1)?)?);
                if turned % 2 == 1 || turned > width {
                    return Err(format!("{turned} channels of a head of {width} cannot be turned in pairs"));
                }
                Ok(args[0])
            }
            DenseOp::Linear(layout) => {
                let d = row_width(f32_shape(args, 0)?)?;
                let (rows, columns) = matrix(f32_shape(args, 1)?)?;
                let (inputs, outputs) = match layout {
                    Layout::InputMajor => (rows, columns),
                    Layout::OutputMajor => (columns, rows),
                };
                if inputs != d {
                    return Err(format!("the weight takes {inputs} inputs, the value has {d}"));
                }
                per_channel(args, 2, outputs)?;
                Ok(f32_of(Shape::rows(outputs)))
            }
            DenseOp::Curve(_) => {
                row_width(f32_shape(args, 0)?)?;
                Ok(args[0])
            }
            DenseOp::Gated(_) => {
                row_width(f32_shape(args, 0)?)?;
                same(args, 1)?;
                Ok(args[0])
            }
            DenseOp::Hadamard(size) => {
                let d = row_width(f32_shape(args, 0)?)?;
                if size.block() == 0 || !d.is_multiple_of(size.block()) {
                    return Err(format!("blocks of {} do not divide a width of {d}", size.block()));
                }
                Ok(args[0])
            }
            DenseOp::AtStart => {
                let d = row_width(f32_shape(args, 0)?)?;
                let opening = opening_type();
                if args[1] != opening {
                    return Err(format!("operand 2 should be {opening}, it is {}", args[1]));
                }
                let known = |starts: &[Dim]| match (args[2].elem(), starts) {
                    (Some(Elem::I32), [Dim::Fixed(k), Dim::Fixed(2)]) => Some(*k as usize),
                    _ => None,
                };
                let count = known(args[2].shape().dims());
                let count = count.ok_or(format!("starts, i32[k,2], were expected, here is {}", args[2]))?;
                match matrix(f32_shape(args, 3)?)? {
                    sizes if sizes == (count, d) => Ok(args[0]),
                    _ => Err(format!("rows, f32[{count},{d}], were expected, here is {}", args[3])),
                }
            }
            DenseOp::Attention { heads, .. } => {
                let [q, k] = [row_width(f32_shape(args, 0)?)?, row_width(f32_shape(args, 1)?)?];
                if let Some(fault) = heads.fault(q, k) {
                    return Err(fault);
                }
                if heads.thresholds {
                    return Err("dense attention has no thresholds of tokens".into());
                }
                let wanted = f32_of(Shape::rows(q / heads.query as usize * heads.kv as usize));
                if heads.alibi {
                    per_channel(args, 3, heads.query as usize)?;
                }
                match args[1..3].iter().position(|arg| *arg != wanted) {
                    Some(i) => Err(format!("operand {} should be {wanted}, it is {}", i + 2, args[i + 1])),
                    None => Ok(args[0]),
                }
            }
        }
    }
}

pub(super) const EPS: &str = "a finite eps that is not negative";
/// What attributes of `hadamard` should be.
const HADAMARD: &str =
    "an order that is 1 or Paley's and no power of two, at most 256, and a power of at most 20: a block of two or more";
