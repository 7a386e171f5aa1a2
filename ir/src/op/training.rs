//! What a network in training has beside the operations of an imported one: losses, what rounds but is differentiated as
//! if it did not, derivatives, and the transposes of what has no transpose of its own.
//!
//! A graph of stage `training` is run on one window of text, whole: a value is a tensor in f32, time is collapsed or unrolled,
//! and nothing is kept between calls. The gradient pass (`snnc-passes`) takes such graphs and makes such graphs.

use crate::curve::Curve;
use crate::op::attribute::{Scalar, Surrogate};
use crate::op::dense::EPS;
use crate::op::info::{I_TRAINING, OpInfo, TRAINING};
use crate::op::shapes::{broadcast, divides, f32_of, f32_shape, row_width, same};
use crate::op::spelling::{curve, keyed, number, scalar, shape, surrogate};
use crate::types::{Dim, Elem, Shape, Type};
use std::fmt;

/// An operation that only training has; exporters write two of them in a softmax of their own. `c` is the gradient of the loss by the result of the operation that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrainingOp {
    /// `i32[tokens]`: the token that follows each of this call's.
    Targets,
    /// Sums over what broadcasting has spread: the result has this shape, which broadcasts to the operand's.
    ReduceSum(Shape),
    /// The operand spread to this shape by broadcasting: the transpose of `reduce_sum`.
    BroadcastTo(Shape),
    /// The nearest level, ties away from zero, at most `most` either way. Its derivative is taken to be 1 where nothing is
    /// clipped.
    FakeQuant {
        /// The largest level either way.
        most: u32,
    },
    /// `(x, c)`: `c` where `FakeQuant` does not clip `x`, else 0.
    FakeQuantGrad {
        /// The largest level either way.
        most: u32,
    },
    /// The largest whole number that is not above the operand. Its derivative is taken to be 1.
    Floor,
    /// The operand, at least `least` and at most `most`.
    Clamp {
        /// The range.
        least: Scalar,
        /// As above.
        most: Scalar,
    },
    /// `(x, c)`: `c` where a step against it leads into the range of `Clamp` or stays there, else 0: what has left the range
    /// can come back.
    ClampGrad {
        /// The range.
        least: Scalar,
        /// As above.
        most: Scalar,
    },
    /// 1 where the operand is not negative, else 0. Its derivative is taken to be the surrogate.
    Step(Surrogate),
    /// The surrogate at the operand.
    Surrogate(Surrogate),
    /// The curve's derivative at the operand.
    CurveSlope(Curve),
    /// The operand, taken to be a constant.
    StopGradient,
    /// The largest of a row, innermost size 1, taken to be a constant.
    RowMax,
    /// 1 for the `keys` largest numbers of a row, of equal ones the latest, else 0; taken to be a constant.
    TopKMask {
        /// How many.
        keys: u32,
    },
    /// `(x, c)`: the gradient by `x` of `rms_norm`.
    RmsNormGrad {
        /// Added to the mean square.
        eps: Scalar,
        /// Equal groups of channels, each of which is normalised on its own.
        heads: u32,
    },
    /// `(x, c f32[tokens,heads])`: the gradient by `x` of `row_max_abs`: it goes to the first of a head's largest magnitudes.
    RowMaxAbsGrad,
    /// `(c f32[tokens,k], channels i32[k]) -> f32[tokens,width]`: the gradient of `gather_channels`.
    GatherChannelsGrad {
        /// Channels of the result.
        width: u32,
    },
    /// `(ids i32[tokens], c f32[tokens,d]) -> f32[rows,d]`: the gradient by the table of `embed`.
    EmbedGrad {
        /// Rows of the table.
        rows: u32,
    },
    /// `(period f32[heads]) -> f32[heads,tokens,tokens]`: `2^-(floor(i / h) - floor(j / h))` for query `i` and key `j <= i`
    /// of a head whose memory halves every `h` tokens, the period rounded to a whole number of at least 1; 0 for later keys
    /// and after 16 halvings. Its derivative is taken to be that of a memory that fades evenly, `2^-((i - j) / h)`.
    DecayMask,
    /// `(period f32[heads], c f32[heads,tokens,tokens]) -> f32[heads]`: the gradient of `decay_mask`.
    DecayMaskGrad,
    /// `(logits, reference) -> f32[1]`: Kullback-Leibler divergence of the prediction `logits` from `reference`, in nats, mean
    /// over tokens.
    Divergence,
    /// `(logits, reference, c f32[1])`: its gradient by `logits`.
    DivergenceGrad,
    /// `(logits, targets i32[tokens]) -> f32[1]`: the negative log likelihood of the targets, in nats, mean over tokens.
    CrossEntropy,
    /// `(logits, targets, c f32[1])`: its gradient by `logits`.
    CrossEntropyGrad,
}

/// What a range must be.
const RANGE: &str = "a range of finite ends, the lower one first";

fn is_range(least: &Scalar, most: &Scalar) -> bool {
    least.get().is_finite() && most.get().is_finite() && least.get() <= most.get()
}

/// The most that a level may be: integers up to there are exact in f32.
pub const LEVEL_MAX: u32 = 1 << 23;

impl TrainingOp {
    /// Operations without attributes.
    const PLAIN: [TrainingOp; 11] = [
        TrainingOp::Targets,
        TrainingOp::Floor,
        TrainingOp::StopGradient,
        TrainingOp::RowMax,
        TrainingOp::RowMaxAbsGrad,
        TrainingOp::DecayMask,
        TrainingOp::DecayMaskGrad,
        TrainingOp::Divergence,
        TrainingOp::DivergenceGrad,
        TrainingOp::CrossEntropy,
        TrainingOp::CrossEntropyGrad,
    ];

    pub(super) fn info(&self) -> OpInfo {
        match self {
            TrainingOp::Targets => OpInfo::new("targets", 0, TRAINING),
            TrainingOp::ReduceSum(_) => OpInfo::new("reduce_sum", 1, I_TRAINING),
            TrainingOp::BroadcastTo(_) => OpInfo::new("broadcast_to", 1, TRAINING),
            TrainingOp::FakeQuant { .. } => OpInfo::new("fake_quant", 1, TRAINING),
            TrainingOp::FakeQuantGrad { .. } => OpInfo::new("fake_quant_grad", 2, TRAINING),
            TrainingOp::Floor => OpInfo::new("floor", 1, TRAINING),
            TrainingOp::Clamp { least, most } => OpInfo::new("clamp", 1, TRAINING).expect(is_range(least, most), RANGE),
            TrainingOp::ClampGrad { least, most } => {
                OpInfo::new("clamp_grad", 2, TRAINING).expect(is_range(least, most), RANGE)
            }
            TrainingOp::Step(_) => OpInfo::new("step", 1, TRAINING),
            TrainingOp::Surrogate(_) => OpInfo::new("surrogate", 1, TRAINING),
            TrainingOp::CurveSlope(_) => OpInfo::new("curve_slope", 1, TRAINING),
            TrainingOp::StopGradient => OpInfo::new("stop_gradient", 1, TRAINING),
            TrainingOp::RowMax => OpInfo::new("row_max", 1, I_TRAINING),
            TrainingOp::TopKMask { .. } => OpInfo::new("topk_mask", 1, TRAINING),
            TrainingOp::RmsNormGrad { eps, .. } => {
                OpInfo::new("rms_norm_grad", 2, TRAINING).expect(eps.get().is_finite() && eps.get() >= 0.0, EPS)
            }
            TrainingOp::RowMaxAbsGrad => OpInfo::new("row_max_abs_grad", 2, TRAINING),
            TrainingOp::GatherChannelsGrad { .. } => OpInfo::new("gather_channels_grad", 2, TRAINING),
            TrainingOp::EmbedGrad { .. } => OpInfo::new("embed_grad", 2, TRAINING),
            TrainingOp::DecayMask => OpInfo::new("decay_mask", 1, TRAINING),
            TrainingOp::DecayMaskGrad => OpInfo::new("decay_mask_grad", 2, TRAINING),
            TrainingOp::Divergence => OpInfo::new("divergence", 2, TRAINING),
            TrainingOp::DivergenceGrad => OpInfo::new("divergence_grad", 3, TRAINING),
            TrainingOp::CrossEntropy => OpInfo::new("cross_entropy", 2, TRAINING),
            TrainingOp::CrossEntropyGrad => OpInfo::new("cross_entropy_grad", 3, TRAINING),
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TrainingOp::ReduceSum(shape) | TrainingOp::BroadcastTo(shape) => write!(f, "{shape}"),
            TrainingOp::FakeQuant { most } | TrainingOp::FakeQuantGrad { most } => write!(f, "[{most}]"),
            TrainingOp::Clamp { least, most } | TrainingOp::ClampGrad { least, most } => {
                write!(f, "[{:?},{:?}]", least.get(), most.get())
            }
            TrainingOp::Step(kind) | TrainingOp::Surrogate(kind) => write!(f, "[{}]", kind.name()),
            TrainingOp::TopKMask { keys } => write!(f, "[{keys}]"),
            TrainingOp::CurveSlope(curve) => write!(f, "[{}]", curve.name()),
            TrainingOp::RmsNormGrad { eps, heads: 1 } => write!(f, "[eps={:?}]", eps.get()),
            TrainingOp::RmsNormGrad { eps, heads } => write!(f, "[eps={:?},heads={heads}]", eps.get()),
            TrainingOp::GatherChannelsGrad { width } => write!(f, "[width={width}]"),
            TrainingOp::EmbedGrad { rows } => write!(f, "[rows={rows}]"),
            TrainingOp::Targets
            | TrainingOp::Floor
            | TrainingOp::StopGradient
            | TrainingOp::RowMax
            | TrainingOp::RowMaxAbsGrad
            | TrainingOp::DecayMask
            | TrainingOp::DecayMaskGrad
            | TrainingOp::Divergence
            | TrainingOp::DivergenceGrad
            | TrainingOp::CrossEntropy
            | TrainingOp::CrossEntropyGrad => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        if let Some(op) = Self::PLAIN.into_iter().find(|op| attributes.is_empty() && op.info().name == name) {
            return Ok(Some(op));
        }
        Ok(Some(match (name, attributes) {
            ("reduce_sum", dims) => TrainingOp::ReduceSum(shape(dims)?),
            ("broadcast_to", dims) => TrainingOp::BroadcastTo(shape(dims)?),
            ("fake_quant", &[most]) => TrainingOp::FakeQuant { most: number(most)? },
            ("fake_quant_grad", &[most]) => TrainingOp::FakeQuantGrad { most: number(most)? },
            ("clamp", &[least, most]) => TrainingOp::Clamp { least: scalar(least)?, most: scalar(most)? },
            ("clamp_grad", &[least, most]) => TrainingOp::ClampGrad { least: scalar(least)?, most: scalar(most)? },
            ("topk_mask", &[keys]) => TrainingOp::TopKMask { keys: number(keys)? },
            ("step", &[kind]) => TrainingOp::Step(surrogate(kind)?),
            ("surrogate", &[kind]) => TrainingOp::Surrogate(surrogate(kind)?),
            ("curve_slope", &[name]) => TrainingOp::CurveSlope(curve(name)?),
            ("rms_norm_grad", &[eps]) => TrainingOp::RmsNormGrad { eps: scalar(keyed(eps, "eps")?)?, heads: 1 },
            ("rms_norm_grad", &[eps, heads]) => {
                TrainingOp::RmsNormGrad { eps: scalar(keyed(eps, "eps")?)?, heads: number(keyed(heads, "heads")?)? }
            }
            ("gather_channels_grad", &[width]) => {
                TrainingOp::GatherChannelsGrad { width: number(keyed(width, "width")?)? }
            }
            ("embed_grad", &[rows]) => TrainingOp::EmbedGrad { rows: number(keyed(rows, "rows")?)? },
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self, args: &[Type]) -> Result<Type, String> {
        let real = |i: usize| f32_shape(args, i);
        let rows = |i: usize| row_width(f32_shape(args, i)?);
        let equal = |i: usize| same(args, i);
        let integers = |i: usize, shape: Shape| integers(args, i, shape);
        let tokens = Shape::new(&[Dim::Tokens]);
        let one = Shape::fixed(&[1]);
        let f32_of = |shape| Ok(f32_of(shape));
        let single = |i: usize| single(args, i);
        match self {
            TrainingOp::Targets => Ok(Type::tensor(Elem::I32, tokens)),
            TrainingOp::ReduceSum(to) => {
                let from = real(0)?;
                match broadcast(to, from) {
                    Ok(all) if all == from => f32_of(to),
                    _ => Err(format!("{to} does not broadcast to {from}")),
                }
            }
            TrainingOp::BroadcastTo(to) => match broadcast(real(0)?, to) {
                Ok(all) if all == to => f32_of(to),
                _ => Err(format!("{} does not broadcast to {to}", real(0)?)),
            },
            TrainingOp::FakeQuant { most } | TrainingOp::FakeQuantGrad { most } => {
                if !(1..=LEVEL_MAX).contains(&most) {
                    return Err(format!("levels up to 1 to {LEVEL_MAX} are possible, here is {most}"));
                }
                if let TrainingOp::FakeQuantGrad { .. } = self {
                    equal(1)?;
                }
                real(0).and_then(f32_of)
            }
            TrainingOp::ClampGrad { .. } => {
                equal(1)?;
                real(0).and_then(f32_of)
            }
            TrainingOp::Floor
            | TrainingOp::Clamp { .. }
            | TrainingOp::Step(_)
            | TrainingOp::Surrogate(_)
            | TrainingOp::CurveSlope(_)
            | TrainingOp::StopGradient => real(0).and_then(f32_of),
            TrainingOp::TopKMask { keys } => {
                if keys == 0 {
                    return Err("no row is without a largest number".into());
                }
                if real(0)?.rank() == 0 {
                    return Err("a scalar has no rows".into());
                }
                real(0).and_then(f32_of)
            }
            TrainingOp::RowMax => {
                let mut dims = real(0)?.dims().to_vec();
                *dims.last_mut().ok_or("a scalar has no innermost axis")? = Dim::Fixed(1);
                f32_of(Shape::new(&dims))
            }
            TrainingOp::RmsNormGrad { heads, .. } => {
                rows(0)?;
                equal(1)?;
                divides(heads, args[0].shape().row_width().unwrap_or(0))?;
                Ok(args[0])
            }
            TrainingOp::RowMaxAbsGrad => {
                let (width, heads) = (rows(0)?, rows(1)?);
                if heads == 0 || !width.is_multiple_of(heads) {
                    return Err(format!("one number per token, or per head, was expected, here is {}", args[1]));
                }
                Ok(args[0])
            }
            TrainingOp::GatherChannelsGrad { width } => {
                integers(1, Shape::fixed(&[rows(0)?]))?;
                f32_of(Shape::rows(width as usize))
            }
            TrainingOp::EmbedGrad { rows: count } => {
                integers(0, tokens)?;
                f32_of(Shape::new(&[Dim::Fixed(count), Dim::Fixed(rows(1)? as u32)]))
            }
            TrainingOp::DecayMask | TrainingOp::DecayMaskGrad => {
                let periods = real(0)?;
                let &[heads @ Dim::Fixed(_)] = periods.dims() else {
                    return Err(format!("a period for every head was expected, here is {periods}"));
                };
                let pairs = Shape::new(&[heads, Dim::Tokens, Dim::Tokens]);
                if self == TrainingOp::DecayMask {
                    return f32_of(pairs);
                }
                match real(1)? {
                    shape if shape == pairs => f32_of(periods),
                    shape => Err(format!("operand 2 should be f32{pairs}, it has shape {shape}")),
                }
            }
            TrainingOp::Divergence | TrainingOp::DivergenceGrad => {
                rows(0)?;
                equal(1)?;
                if self == TrainingOp::Divergence {
                    return f32_of(one);
                }
                single(2)?;
                Ok(args[0])
            }
            TrainingOp::CrossEntropy | TrainingOp::CrossEntropyGrad => {
                rows(0)?;
                integers(1, tokens)?;
                if self == TrainingOp::CrossEntropy {
                    return f32_of(one);
                }
                single(2)?;
                Ok(args[0])
            }
        }
    }
}

/// Operand `i` has integers of this shape.
fn integers(args: &[Type], i: usize, shape: Shape) -> Result<(), String> {
    if args[i] == Type::tensor(Elem::I32, shape) {
        return Ok(());
    }
    Err(format!("operand {} should be i32{shape}, it is {}", i + 1, args[i]))
}

/// Operand `i` is one number.
fn single(args: &[Type], i: usize) -> Result<(), String> {
    match f32_shape(args, i)? {
        shape if shape == Shape::fixed(&[1]) => Ok(()),
        shape => Err(format!("operand {} should be f32[1], it has shape {shape}", i + 1)),
    }
}

impl fmt::Display for TrainingOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)?;
        self.attributes(f)
    }
}
