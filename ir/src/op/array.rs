//! What exporters write, after shape arithmetic is evaluated away.

use crate::op::attribute::{Binary, Perm, Scalar, Unary};
use crate::op::info::{I, I_TRAINING, IQS, ITQS, OpInfo};
use crate::op::shapes::{broadcast, concat, divides, f32_of, f32_shape, matmul, per_channel, row_width, slice, volume};
use crate::op::spelling::{keyed, number, perm, scalar, shape};
use crate::types::{Dim, Shape, Type};
use std::fmt;

/// What exporters write, after shape arithmetic is evaluated away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArrayOp {
    /// A function of one number, element by element.
    Unary(Unary),
    /// Element by element, with broadcasting of sizes 1 and of missing leading sizes.
    Binary(Binary),
    /// `f32[tokens,tokens]`: `keep` where column <= row, and not a window or more before it; `drop` elsewhere.
    CausalMask {
        /// The number where a query may look.
        keep: Scalar,
        /// The number where it may not.
        drop: Scalar,
        /// How many tokens a query sees, itself among them; `None`: all before it.
        window: Option<u32>,
    },
    /// `(scores f32[..., tokens, tokens], alibi f32[heads])`: scores, of which the leading axes are heads, plus their head's number
    /// times column less row (ALiBi: Press et al. 2022).
    Alibi,
    /// `(c, a, b)`: `a` where `c` is not 0, else `b`; broadcasts.
    Where,
    /// `[..., n, k] x [..., k, m]`; leading sizes broadcast.
    MatMul,
    /// Axes in another order.
    Transpose(Perm),
    /// The same elements in another shape.
    Reshape(Shape),
    /// `len` entries of a fixed axis, from `start`.
    Slice {
        /// Which axis.
        axis: u8,
        /// The first entry.
        start: u32,
        /// How many entries.
        len: u32,
    },
    /// `(a, b)`, of equal sizes but for a fixed axis: `b` behind `a` on that axis.
    Concat {
        /// Which axis.
        axis: u8,
    },
    /// Mean over the innermost axis, which stays with size 1.
    Mean,
    /// Over the innermost axis.
    Softmax,
    /// `[tokens, heads*w] -> [heads, tokens, w]`.
    SplitHeads {
        /// How many heads a row has side by side.
        heads: u32,
    },
    /// `[heads, tokens, w] -> [tokens, heads*w]`.
    MergeHeads,
}

impl ArrayOp {
    pub(super) fn info(&self) -> OpInfo {
        match self {
            ArrayOp::Unary(kind @ (Unary::Neg | Unary::Exp)) => OpInfo::new(kind.name(), 1, I_TRAINING),
            ArrayOp::Unary(kind) => OpInfo::new(kind.name(), 1, I),
            ArrayOp::Binary(Binary::Add) => OpInfo::new("add", 2, ITQS),
            ArrayOp::Binary(kind @ (Binary::Mul | Binary::Div)) => OpInfo::new(kind.name(), 2, IQS),
            ArrayOp::Binary(Binary::Sub) => OpInfo::new("sub", 2, I_TRAINING),
            ArrayOp::Binary(kind @ (Binary::Pow | Binary::Min | Binary::Max)) => OpInfo::new(kind.name(), 2, I),
            ArrayOp::CausalMask { keep, drop, window } => OpInfo::new("causal_mask", 0, I_TRAINING).expect(
                !keep.get().is_nan() && !drop.get().is_nan() && *window != Some(0),
                "numbers and a window of a token at least",
            ),
            ArrayOp::Alibi => OpInfo::new("alibi", 2, I).parameters(1),
            ArrayOp::Where => OpInfo::new("where", 3, I),
            ArrayOp::MatMul => OpInfo::new("matmul", 2, I_TRAINING),
            ArrayOp::Transpose(_) => OpInfo::new("transpose", 1, I_TRAINING),
            ArrayOp::Reshape(_) => OpInfo::new("reshape", 1, I_TRAINING),
            ArrayOp::Slice { .. } => OpInfo::new("slice", 1, I),
            ArrayOp::Concat { .. } => OpInfo::new("concat", 2, I),
            ArrayOp::Mean => OpInfo::new("mean", 1, I),
            ArrayOp::Softmax => OpInfo::new("softmax", 1, I_TRAINING),
            ArrayOp::SplitHeads { .. } => OpInfo::new("split_heads", 1, I_TRAINING),
            ArrayOp::MergeHeads => OpInfo::new("merge_heads", 1, I_TRAINING),
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArrayOp::CausalMask { keep, drop, window: None } => write!(f, "[{:?},{:?}]", keep.get(), drop.get()),
            ArrayOp::CausalMask { keep, drop, window: Some(window) } => {
                write!(f, "[{:?},{:?},window={window}]", keep.get(), drop.get())
            }
            ArrayOp::Transpose(perm) => write!(f, "{:?}", perm.axes()),
            ArrayOp::Reshape(shape) => write!(f, "{shape}"),
            ArrayOp::Slice { axis, start, len } => write!(f, "[axis={axis},start={start},len={len}]"),
            ArrayOp::Concat { axis } => write!(f, "[axis={axis}]"),
            ArrayOp::SplitHeads { heads } => write!(f, "[heads={heads}]"),
            ArrayOp::Unary(_)
            | ArrayOp::Binary(_)
            | ArrayOp::Alibi
            | ArrayOp::Where
            | ArrayOp::MatMul
            | ArrayOp::Mean
            | ArrayOp::Softmax
            | ArrayOp::MergeHeads => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        let unary = Unary::ALL.into_iter().find(|kind| kind.name() == name).map(ArrayOp::Unary);
        let binary = Binary::ALL.into_iter().find(|kind| kind.name() == name).map(ArrayOp::Binary);
        if let Some(op) = unary.or(binary).filter(|_| attributes.is_empty()) {
            return Ok(Some(op));
        }
        Ok(Some(match (name, attributes) {
            ("alibi", []) => ArrayOp::Alibi,
            ("where", []) => ArrayOp::Where,
            ("matmul", []) => ArrayOp::MatMul,
            ("mean", []) => ArrayOp::Mean,
            ("softmax", []) => ArrayOp::Softmax,
            ("merge_heads", []) => ArrayOp::MergeHeads,
            ("causal_mask", &[keep, drop]) => {
                ArrayOp::CausalMask { keep: scalar(keep)?, drop: scalar(drop)?, window: None }
            }
            ("causal_mask", &[keep, drop, window]) => {
                let window = Some(number(keyed(window, "window")?)?);
                ArrayOp::CausalMask { keep: scalar(keep)?, drop: scalar(drop)?, window }
            }
            ("transpose", axes) if !axes.is_empty() => ArrayOp::Transpose(perm(axes)?),
            ("reshape", dims) => ArrayOp::Reshape(shape(dims)?),
            ("slice", &[axis, start, len]) => ArrayOp::Slice {
                axis: number(keyed(axis, "axis")?)?,
                start: number(keyed(start, "start")?)?,
                len: number(keyed(len, "len")?)?,
            },
            ("concat", &[axis]) => ArrayOp::Concat { axis: number(keyed(axis, "axis")?)? },
            ("split_heads", &[heads]) => ArrayOp::SplitHeads { heads: number(keyed(heads, "heads")?)? },
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self, args: &[Type]) -> Result<Type, String> {
        match self {
            ArrayOp::Unary(_) => f32_shape(args, 0).map(f32_of),
            ArrayOp::Binary(_) => broadcast(f32_shape(args, 0)?, f32_shape(args, 1)?).map(f32_of),
            ArrayOp::CausalMask { .. } => Ok(f32_of(Shape::new(&[Dim::Tokens, Dim::Tokens]))),
            ArrayOp::Alibi => {
                let scores = f32_shape(args, 0)?;
                let [lead @ .., Dim::Tokens, Dim::Tokens] = scores.dims() else {
                    return Err(format!("scores, [...,tokens,tokens], were expected, here is {}", args[0]));
                };
                let heads: Option<Vec<usize>> = Shape::new(lead).sizes();
                let heads = heads.ok_or("heads of a fixed number were expected")?.iter().product();
                per_channel(args, 1, heads)?;
                Ok(args[0])
            }
            ArrayOp::Where => {
                let values = broadcast(f32_shape(args, 1)?, f32_shape(args, 2)?)?;
                broadcast(f32_shape(args, 0)?, values).map(f32_of)
            }
            ArrayOp::MatMul => matmul(f32_shape(args, 0)?, f32_shape(args, 1)?).map(f32_of),
            ArrayOp::Transpose(perm) => {
                let shape = f32_shape(args, 0)?;
                if perm.axes().len() != shape.rank() {
                    return Err(format!("the order {:?} does not fit shape {shape}", perm.axes()));
                }
                let dims: Vec<Dim> = perm.axes().iter().map(|&axis| shape.dims()[usize::from(axis)]).collect();
                Ok(f32_of(Shape::new(&dims)))
            }
            ArrayOp::Reshape(to) => {
                let from = f32_shape(args, 0)?;
                if volume(from)? != volume(to)? {
                    return Err(format!("{from} and {to} differ in their number of elements"));
                }
                Ok(f32_of(to))
            }
            ArrayOp::Slice { axis, start, len } => slice(f32_shape(args, 0)?, axis, start, len).map(f32_of),
            ArrayOp::Concat { axis } => concat(f32_shape(args, 0)?, f32_shape(args, 1)?, axis).map(f32_of),
            ArrayOp::Mean => {
                let shape = f32_shape(args, 0)?;
                let mut dims = shape.dims().to_vec();
                *dims.last_mut().ok_or("a scalar has no innermost axis")? = Dim::Fixed(1);
                Ok(f32_of(Shape::new(&dims)))
            }
            ArrayOp::Softmax => {
                let shape = f32_shape(args, 0)?;
                if shape.rank() == 0 {
                    return Err("a scalar has no innermost axis".into());
                }
                Ok(f32_of(shape))
            }
            ArrayOp::SplitHeads { heads } => {
                let d = row_width(f32_shape(args, 0)?)?;
                divides(heads, d)?;
                Ok(f32_of(Shape::new(&[Dim::Fixed(heads), Dim::Tokens, Dim::Fixed(d as u32 / heads)])))
            }
            ArrayOp::MergeHeads => match f32_shape(args, 0)?.dims() {
                [Dim::Fixed(heads), Dim::Tokens, Dim::Fixed(w)] => {
                    Ok(f32_of(Shape::rows(*heads as usize * *w as usize)))
                }
                _ => Err(format!("[heads,tokens,width] was expected, here is {}", args[0])),
            },
        }
    }
}
