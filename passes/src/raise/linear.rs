//! Linear algebra on constants: factors, shifts, sums and products of projections are projections.
//!
//! `((x W + b) * g) = x (W * g) + b * g`, `x V + x W = x (V + W)`, `(x A) B = x (A B)`. Which of two equal forms is taken is a
//! matter of price: a product of two thin matrices stays two, unless it stands beside another projection of its input.

use super::build::{add, class, matmul, mul, vector};
use crate::constants::fixed;
use crate::egraph::pattern::Match;
use crate::egraph::rule::Expr;
use crate::egraph::term::{Term, Terms};
use snnc_ir::op::{ArrayOp, DenseOp, Layout, Perm};
use snnc_ir::types::Shape;
use snnc_ir::{Binary, Op, Unary};

/// Whether a variable is one constant number that changes something, or one for each of `width` channels. What is equal to
/// itself times 1 or plus 0 would be folded for ever.
fn per_channel(m: &Match<'_>, name: &str, width: usize, neutral: f32) -> bool {
    match m.scalar(name) {
        Some(number) => number != neutral && m.ty(name).shape().rank() <= 1,
        None => vector(m, name, Shape::fixed(&[width])),
    }
}

fn is_factor(m: &Match<'_>, name: &str, width: usize) -> bool {
    per_channel(m, name, width, 1.0)
}

fn is_shift(m: &Match<'_>, name: &str, width: usize) -> bool {
    per_channel(m, name, width, 0.0)
}

/// Whether a number may scale a constant: not where a number has, since what is its own negative's negative would be scaled
/// for ever. Two numbers one after the other are one by `mul-mul`.
fn may_scale(m: &Match<'_>, number: &str, constant: &str) -> bool {
    let is_number = |id: &egg::Id| m.terms[*id].data.scalar.is_some();
    let scaled = |term: &Term| term.op == Op::Array(ArrayOp::Binary(Binary::Mul)) && term.args.iter().any(is_number);
    m.scalar(number).is_none() || !m.terms[m.class(constant)].nodes.iter().any(scaled)
}

fn layout(m: &Match<'_>, name: &str) -> Option<Layout> {
    if let Op::Dense(DenseOp::Linear(layout)) = m.op(name) { Some(layout) } else { None }
}

fn linear(layout: Layout, x: Expr, w: Expr, b: Expr) -> Expr {
    Expr::op(Op::Dense(DenseOp::Linear(layout)), [x, w, b])
}

/// Inputs and outputs of a weight.
fn extent(m: &Match<'_>, name: &str, layout: Layout) -> Option<[usize; 2]> {
    match (layout, m.ty(name).shape().sizes()?.as_slice()) {
        (Layout::InputMajor, &[inputs, outputs]) | (Layout::OutputMajor, &[outputs, inputs]) => Some([inputs, outputs]),
        _ => None,
    }
}

/// A factor for each row of a matrix, or for all.
fn by_row(m: &Match<'_>, name: &str) -> Expr {
    match m.ty(name).shape().sizes().as_deref() {
        Some(&[n]) if n > 1 => Expr::op(fixed(&[n, 1]), [class(m, name)]),
        _ => class(m, name),
    }
}

/// The weight as `[in, out]`.
fn input_major(m: &Match<'_>, name: &str, layout: Layout) -> Option<Expr> {
    Some(match layout {
        Layout::InputMajor => class(m, name),
        Layout::OutputMajor => Expr::op(Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0])?)), [class(m, name)]),
    })
}

/// A factor behind a projection.
pub(super) fn factor_of_linear(m: &Match<'_>) -> Option<Expr> {
    let layout = layout(m, "l")?;
    let [_, outputs] = extent(m, "w", layout)?;
    if !is_factor(m, "g", outputs) || !may_scale(m, "g", "w") {
        return None;
    }
    let w = match layout {
        Layout::InputMajor => mul(class(m, "w"), class(m, "g")),
        Layout::OutputMajor => mul(class(m, "w"), by_row(m, "g")),
    };
    Some(linear(layout, class(m, "x"), w, mul(class(m, "b"), class(m, "g"))))
}

/// A constant that is added behind a projection.
pub(super) fn shift_of_linear(m: &Match<'_>) -> Option<Expr> {
    let layout = layout(m, "l")?;
    let [_, outputs] = extent(m, "w", layout)?;
    is_shift(m, "g", outputs).then(|| linear(layout, class(m, "x"), class(m, "w"), add(class(m, "b"), class(m, "g"))))
}

/// The same behind the residual addition.
pub(super) fn shift_later(m: &Match<'_>) -> Option<Expr> {
    let shifted = shift_of_linear(m)?;
    (!m.is_constant("r") && m.ty("r") == m.root_ty()).then(|| add(class(m, "r"), shifted))
}

/// Two projections of one input.
pub(super) fn sum_of_linears(m: &Match<'_>) -> Option<Expr> {
    let (l, n) = (layout(m, "l")?, layout(m, "n")?);
    let (w, v) =
        if l == n { (class(m, "w"), class(m, "v")) } else { (input_major(m, "w", l)?, input_major(m, "v", n)?) };
    if extent(m, "w", l)? != extent(m, "v", n)? {
        return None;
    }
    let layout = if l == n { l } else { Layout::InputMajor };
    Some(linear(layout, class(m, "x"), add(w, v), add(class(m, "b"), class(m, "c"))))
}

/// The same where the first was added to something else before.
pub(super) fn sum_later(m: &Match<'_>) -> Option<Expr> {
    let x = m.terms.find(m.class("x"));
    let reads = |term: &Term| matches!(term.op, Op::Dense(DenseOp::Linear(_))) && m.terms.find(term.args[0]) == x;
    let other = !m.is_constant("r") && m.ty("r") == m.root_ty() && !m.terms[m.class("r")].nodes.iter().any(reads);
    if other { sum_of_linears(m).map(|sum| add(class(m, "r"), sum)) } else { None }
}

/// A product of matrices and nothing else.
fn is_product(terms: &Terms, term: &Term) -> bool {
    term.op == Op::Array(ArrayOp::MatMul) && term.args.iter().all(|&arg| terms[arg].data.constant)
}

/// A projection of a projection. The first weight is none of these products, so that a chain has one product for each part.
pub(super) fn linear_of_linear(m: &Match<'_>) -> Option<Expr> {
    let (l, n) = (layout(m, "l")?, layout(m, "n")?);
    if m.terms[m.class("a")].nodes.iter().all(|term| is_product(m.terms, term)) {
        return None;
    }
    let [_, inner] = extent(m, "a", l)?;
    let [_, outputs] = extent(m, "w", n)?;
    let (a, w) = (input_major(m, "a", l)?, input_major(m, "w", n)?);
    let row = Expr::op(fixed(&[1, inner]), [class(m, "b")]);
    let shift = Expr::op(fixed(&[outputs]), [matmul(row, w.clone())]);
    Some(linear(Layout::InputMajor, class(m, "x"), matmul(a, w), add(class(m, "c"), shift)))
}

/// A factor before a projection.
pub(super) fn linear_of_factor(m: &Match<'_>) -> Option<Expr> {
    let layout = layout(m, "l")?;
    let [inputs, _] = extent(m, "w", layout)?;
    let rows = !m.is_constant("x") && m.ty("x").shape().row_width() == Some(inputs);
    if !rows || !is_factor(m, "g", inputs) || !may_scale(m, "g", "w") {
        return None;
    }
    let w = match layout {
        Layout::InputMajor => mul(class(m, "w"), by_row(m, "g")),
        Layout::OutputMajor => mul(class(m, "w"), class(m, "g")),
    };
    Some(linear(layout, class(m, "x"), w, class(m, "b")))
}

/// A constant that is added before a projection.
pub(super) fn linear_of_shift(m: &Match<'_>) -> Option<Expr> {
    let layout = layout(m, "l")?;
    let [inputs, outputs] = extent(m, "w", layout)?;
    let rows = !m.is_constant("x") && m.ty("x").shape().row_width() == Some(inputs);
    if !rows || m.scalar("g").is_some() || !is_shift(m, "g", inputs) {
        return None;
    }
    let shift = match layout {
        Layout::InputMajor => matmul(Expr::op(fixed(&[1, inputs]), [class(m, "g")]), class(m, "w")),
        Layout::OutputMajor => matmul(class(m, "w"), Expr::op(fixed(&[inputs, 1]), [class(m, "g")])),
    };
    let bias = add(class(m, "b"), Expr::op(fixed(&[outputs]), [shift]));
    Some(linear(layout, class(m, "x"), class(m, "w"), bias))
}

/// A factor or a constant behind an embedding belongs to its table.
pub(super) fn factor_of_embedding(m: &Match<'_>) -> Option<Expr> {
    let &[_, width] = m.ty("t").shape().sizes()?.as_slice() else { return None };
    (is_factor(m, "s", width) && may_scale(m, "s", "t"))
        .then(|| Expr::op(Op::Dense(DenseOp::Embed), [class(m, "i"), mul(class(m, "t"), class(m, "s"))]))
}

pub(super) fn shift_of_embedding(m: &Match<'_>) -> Option<Expr> {
    let &[_, width] = m.ty("t").shape().sizes()?.as_slice() else { return None };
    is_shift(m, "s", width)
        .then(|| Expr::op(Op::Dense(DenseOp::Embed), [class(m, "i"), add(class(m, "t"), class(m, "s"))]))
}

/// A factor behind a sum belongs to each part.
pub(super) fn factor_of_sum(m: &Match<'_>) -> Option<Expr> {
    let width = m.root_ty().shape().row_width()?;
    let parts = ["a", "b"].iter().all(|part| !m.is_constant(part) && m.ty(part) == m.root_ty());
    (parts && is_factor(m, "g", width))
        .then(|| add(mul(class(m, "a"), class(m, "g")), mul(class(m, "b"), class(m, "g"))))
}

/// A factor or a constant behind a LayerNorm.
pub(super) fn factor_of_norm(m: &Match<'_>) -> Option<Expr> {
    let width = m.ty("x").shape().row_width()?;
    let parts = [class(m, "x"), mul(class(m, "g"), class(m, "s")), mul(class(m, "b"), class(m, "s"))];
    (is_factor(m, "s", width) && may_scale(m, "s", "g")).then(|| Expr::op(m.op("n"), parts))
}

pub(super) fn shift_of_norm(m: &Match<'_>) -> Option<Expr> {
    let width = m.ty("x").shape().row_width()?;
    let parts = [class(m, "x"), class(m, "g"), add(class(m, "b"), class(m, "s"))];
    is_shift(m, "s", width).then(|| Expr::op(m.op("n"), parts))
}

/// A difference is a sum with what is -1 times as large.
pub(super) fn difference(m: &Match<'_>) -> Option<Expr> {
    let width = m.root_ty().shape().row_width()?;
    let rows = m.ty("a") == m.root_ty() && !m.is_constant("a") && m.scalar("b").is_none();
    let other = m.ty("b") == m.root_ty() || vector(m, "b", Shape::fixed(&[width]));
    (rows && other).then(|| add(class(m, "a"), mul(class(m, "b"), Expr::Number(-1.0))))
}

/// The same of a constant and rows.
pub(super) fn negative(m: &Match<'_>) -> Option<Expr> {
    m.root_ty().shape().row_width()?;
    (!m.is_constant("x")).then(|| mul(class(m, "x"), Expr::Number(-1.0)))
}

/// A quotient by one constant per channel.
pub(super) fn quotient(m: &Match<'_>) -> Option<Expr> {
    let width = m.root_ty().shape().row_width()?;
    let rows = m.ty("a") == m.root_ty() && !m.is_constant("a") && m.scalar("b").is_none();
    let inverse = Expr::op(Op::Array(ArrayOp::Unary(Unary::Reciprocal)), [class(m, "b")]);
    (rows && vector(m, "b", Shape::fixed(&[width]))).then(|| mul(class(m, "a"), inverse))
}

/// Whether a constant is only to be had by arithmetic on others.
pub(super) fn is_computed(terms: &Terms, constant: egg::Id) -> bool {
    let arithmetic = |term: &Term| {
        matches!(
            term.op,
            Op::Array(ArrayOp::MatMul | ArrayOp::Binary(Binary::Add | Binary::Mul | Binary::Sub | Binary::Div))
        )
    };
    terms[constant].nodes.iter().all(arithmetic)
}
