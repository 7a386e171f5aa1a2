//! What a program starts from.

use crate::op::info::{ITQS, OpInfo};
use crate::types::{Dim, Elem, Shape, Type};
use crate::value::WeightId;

/// What a program starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeafOp {
    /// `i32[tokens]`: the token ids of this call.
    Tokens,
    /// `i32[tokens]`: the absolute positions of this call's tokens.
    Positions,
    /// A constant of the program.
    Weight(WeightId),
}

impl LeafOp {
    pub(super) fn info(&self) -> OpInfo {
        match self {
            LeafOp::Tokens => OpInfo::new("tokens", 0, ITQS),
            LeafOp::Positions => OpInfo::new("positions", 0, ITQS),
            LeafOp::Weight(_) => OpInfo::new("weight", 0, ITQS),
        }
    }

    pub(super) fn parse(name: &str, attributes: &[&str]) -> Option<Self> {
        [LeafOp::Tokens, LeafOp::Positions].into_iter().find(|op| attributes.is_empty() && op.info().name == name)
    }

    pub(super) fn infer(self) -> Result<Type, String> {
        match self {
            LeafOp::Tokens | LeafOp::Positions => Ok(Type::tensor(Elem::I32, Shape::new(&[Dim::Tokens]))),
            LeafOp::Weight(_) => Err("a constant's type is its tensor's".into()),
        }
    }
}
