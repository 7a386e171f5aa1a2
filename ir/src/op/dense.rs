//! A transformer in its own words.

use crate::curve::Curve;
use crate::op::attribute::{Layout, Scalar};
use crate::op::info::{IT, ITQS, OpInfo, TQS, TQS_TRAINING};
use crate::op::shapes::{divides, f32_of, f32_shape, matrix, per_channel, row_width, same};
use crate::op::spelling::{curve, keyed, number, scalar};
use crate::types::{Dim, Elem, Shape, Type};
use std::fmt;

/// A transformer in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenseOp {
    /// `(i32[tokens], f32[v, d]) -> f32[tokens, d]`: rows of a table.
    Embed,
    /// `(x, gain f32[d], bias f32[d])`.
    LayerNorm {
        /// Added to the variance.
        eps: Scalar,
    },
    /// `LayerNorm` without gain and bias.
    LayerNormNoGain {
        /// Added to the variance.
        eps: Scalar,
    },
    /// `(x f32[tokens, d], w, bias f32[m]) -> f32[tokens, m]`.
    Linear(Layout),
    /// An activation function.
    Curve(Curve),
    /// `(q, k, v)`, each `f32[tokens, d]`: causal softmax attention with its keys and values as state.
    Attention {
        /// How many heads a row has side by side.
        heads: u32,
        /// What scores are multiplied by.
        scale: Scalar,
    },
}

impl DenseOp {
    pub(super) fn info(&self) -> OpInfo {
        let eps_is_sound = |eps: &Scalar| eps.get().is_finite() && eps.get() >= 0.0;
        match self {
            DenseOp::Embed => OpInfo::new("embed", 2, ITQS).parameters(1),
            DenseOp::LayerNorm { eps } => OpInfo::new("layer_norm", 3, IT).parameters(1).expect(eps_is_sound(eps), EPS),
            DenseOp::LayerNormNoGain { eps } => {
                OpInfo::new("layer_norm_no_gain", 1, TQS_TRAINING).expect(eps_is_sound(eps), EPS)
            }
            DenseOp::Linear(_) => OpInfo::new("linear", 3, TQS).parameters(1),
            DenseOp::Curve(_) => OpInfo::new("curve", 1, TQS_TRAINING),
            DenseOp::Attention { scale, .. } => {
                OpInfo::new("attention", 3, TQS).state().expect(scale.get().is_finite(), "a finite scale")
            }
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DenseOp::LayerNorm { eps } | DenseOp::LayerNormNoGain { eps } => write!(f, "[eps={:?}]", eps.get()),
            DenseOp::Linear(Layout::OutputMajor) => f.write_str("[output_major]"),
            DenseOp::Curve(curve) => write!(f, "[{}]", curve.name()),
            DenseOp::Attention { heads, scale } => write!(f, "[heads={heads},scale={:?}]", scale.get()),
            DenseOp::Embed | DenseOp::Linear(Layout::InputMajor) => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (name, attributes) {
            ("embed", []) => DenseOp::Embed,
            ("linear", []) => DenseOp::Linear(Layout::InputMajor),
            ("linear", &["output_major"]) => DenseOp::Linear(Layout::OutputMajor),
            ("layer_norm", &[eps]) => DenseOp::LayerNorm { eps: scalar(keyed(eps, "eps")?)? },
            ("layer_norm_no_gain", &[eps]) => DenseOp::LayerNormNoGain { eps: scalar(keyed(eps, "eps")?)? },
            ("curve", &[name]) => DenseOp::Curve(curve(name)?),
            ("attention", &[heads, scale]) => {
                DenseOp::Attention { heads: number(keyed(heads, "heads")?)?, scale: scalar(keyed(scale, "scale")?)? }
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
            DenseOp::LayerNorm { .. } => {
                let shape = f32_shape(args, 0)?;
                let width = shape.width().ok_or_else(|| format!("{shape} has no fixed innermost size"))?;
                per_channel(args, 1, width)?;
                per_channel(args, 2, width)?;
                Ok(f32_of(shape))
            }
            DenseOp::LayerNormNoGain { .. } => {
                row_width(f32_shape(args, 0)?)?;
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
            DenseOp::Attention { heads, .. } => {
                let d = row_width(f32_shape(args, 0)?)?;
                same(args, 1)?;
                same(args, 2)?;
                divides(heads, d)?;
                Ok(args[0])
            }
        }
    }
}

pub(super) const EPS: &str = "a finite eps that is not negative";
