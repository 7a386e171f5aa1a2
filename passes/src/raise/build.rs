//! What right sides of rules are put together from.

use crate::egraph::pattern::Match;
use crate::egraph::rule::Expr;
use snnc_ir::op::ArrayOp;
use snnc_ir::types::Shape;
use snnc_ir::{Binary, Op};

/// What a mask must at least put on a score: the exponential of this is 0 in f32. A mask that is just as strong as that hides a
/// key only if its score is none of the largest; the proof of import sees whether it does.
pub(super) const WEAKEST: f32 = -104.0;

/// What a variable stands for.
pub(super) fn class(m: &Match<'_>, name: &str) -> Expr {
    Expr::Class(m.class(name))
}

/// An operation on what two variables stand for.
pub(super) fn two(op: Op, m: &Match, a: &str, b: &str) -> Expr {
    Expr::op(op, [class(m, a), class(m, b)])
}

/// A product, element by element.
pub(super) fn mul(a: Expr, b: Expr) -> Expr {
    Expr::op(Op::Array(ArrayOp::Binary(Binary::Mul)), [a, b])
}

/// Whether a variable is a constant of this shape.
pub(super) fn vector(m: &Match<'_>, name: &str, shape: Shape) -> bool {
    m.is_constant(name) && m.ty(name).shape() == shape
}

/// A sum, element by element.
pub(super) fn add(a: Expr, b: Expr) -> Expr {
    Expr::op(Op::Array(ArrayOp::Binary(Binary::Add)), [a, b])
}
