//! What a program starts from.

use crate::op::info::{ITQS, OpInfo, QS_TRAINING, TQS};
use crate::op::spelling::number;
use crate::types::{Dim, Elem, Shape, Type};
use crate::value::WeightId;
use std::fmt;

/// What a program starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeafOp {
    /// `i32[tokens]`: the token ids of this call.
    Tokens,
    /// `i32[tokens]`: the absolute positions of this call's tokens.
    Positions,
    /// `i32[tokens, 2]`: what the sequence has begun with, of its first two tokens: the first id and -1, then both ids. From the third
    /// token on both numbers are -1.
    Opening,
    /// `f32[tokens, width]`: rows that another program hands over, which ended where this one begins.
    Stream(u32),
    /// A constant of the program.
    Weight(WeightId),
}

impl LeafOp {
    pub(super) fn info(&self) -> OpInfo {
        match self {
            LeafOp::Tokens => OpInfo::new("tokens", 0, ITQS),
            LeafOp::Positions => OpInfo::new("positions", 0, ITQS),
            LeafOp::Opening => OpInfo::new("opening", 0, QS_TRAINING),
            LeafOp::Stream(width) => OpInfo::new("stream", 0, TQS).expect(*width > 0, "a width above 0"),
            LeafOp::Weight(_) => OpInfo::new("weight", 0, ITQS),
        }
    }

    pub(super) fn attributes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeafOp::Stream(width) => write!(f, "[{width}]"),
            LeafOp::Tokens | LeafOp::Positions | LeafOp::Opening | LeafOp::Weight(_) => Ok(()),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Result<Option<Self>, String> {
        Ok(Some(match (name, attributes) {
            ("tokens", []) => LeafOp::Tokens,
            ("positions", []) => LeafOp::Positions,
            ("opening", []) => LeafOp::Opening,
            ("stream", &[width]) => LeafOp::Stream(number(width)?),
            _ => return Ok(None),
        }))
    }

    pub(super) fn infer(self) -> Result<Type, String> {
        match self {
            LeafOp::Tokens | LeafOp::Positions => Ok(Type::tensor(Elem::I32, Shape::new(&[Dim::Tokens]))),
            LeafOp::Opening => Ok(opening_type()),
            LeafOp::Stream(width) => Ok(Type::tensor(Elem::F32, Shape::rows(width as usize))),
            LeafOp::Weight(_) => Err("a constant's type is its tensor's".into()),
        }
    }
}

/// Stands where an opening has no token.
const NO_TOKEN: i32 = -1;

/// Of openings: `i32[tokens, 2]`.
pub(super) fn opening_type() -> Type {
    Type::tensor(Elem::I32, Shape::new(&[Dim::Tokens, Dim::Fixed(2)]))
}

/// What a sequence has begun with where its tokens from `past` on are `tokens`, and `first` is the id that it began with: a pair for each.
///
/// ```
/// use snnc_ir::op::opening;
/// assert!(opening(0, None, &[7, 5, 5]).eq([[7, -1], [7, 5], [-1, -1]]));
/// assert!(opening(1, Some(7), &[5]).eq([[7, 5]]));
/// ```
pub fn opening(past: usize, first: Option<u32>, tokens: &[u32]) -> impl Iterator<Item = [i32; 2]> {
    let id = |id: Option<&u32>| id.map_or(NO_TOKEN, |&id| id as i32);
    let first = if past == 0 { id(tokens.first()) } else { id(first.as_ref()) };
    tokens.iter().enumerate().map(move |(i, token)| match past + i {
        0 => [first, NO_TOKEN],
        1 => [first, id(Some(token))],
        _ => [NO_TOKEN; 2],
    })
}
