//! What rules say of softmax, masks and attention: the right sides of `RULES` in `raise`.

use super::build::{WEAKEST, add, class, mul};
use crate::egraph::pattern::Match;
use crate::egraph::rule::Expr;
use snnc_ir::op::{ArrayOp, DenseOp, Heads, Scalar, TrainingOp};
use snnc_ir::types::Dim;
use snnc_ir::{Op, Type};

/// Exponentials over their sum along the innermost axis.
pub(super) fn softmax(m: &Match<'_>) -> Option<Expr> {
    let Op::Training(TrainingOp::ReduceSum(to)) = m.op("r") else { return None };
    let from = m.ty("s").shape();
    let ([lead @ .., Dim::Fixed(1)], [own @ .., _]) = (to.dims(), from.dims()) else { return None };
    (lead == own && m.root_ty() == m.ty("s")).then(|| Expr::op(Op::Array(ArrayOp::Softmax), [class(m, "s")]))
}

/// Softmax does not notice what is the same for all numbers of a row.
pub(super) fn shifted_softmax(m: &Match<'_>) -> Option<Expr> {
    let same = m.ty("t").shape().dims().last().is_none_or(|last| *last == Dim::Fixed(1));
    (same && m.root_ty() == m.ty("s")).then(|| Expr::op(Op::Array(ArrayOp::Softmax), [class(m, "s")]))
}

/// What is put on the score of a key that is absent.
pub const MASKED: f32 = -1e4;

/// The mask of ones where a query may look, as far back as `like` looks.
fn select(like: Op) -> Op {
    let window = if let Op::Array(ArrayOp::CausalMask { window, .. }) = like { window } else { None };
    Op::Array(ArrayOp::CausalMask { keep: Scalar::new(1.0), drop: Scalar::new(0.0), window })
}

/// Scores that all get the same number more.
fn raised(s: Expr, by: f32) -> Expr {
    if by == 0.0 { s } else { add(s, Expr::Number(by)) }
}

/// Scores of which those that the mask `like` hides are `by`.
fn filled(like: Op, s: Expr, by: f32) -> Expr {
    Expr::op(Op::Array(ArrayOp::Where), [Expr::op(select(like), []), s, Expr::Number(by.max(f32::MIN))])
}

pub(super) fn added_mask(m: &Match<'_>) -> Option<Expr> {
    let Op::Array(ArrayOp::CausalMask { keep, drop, .. }) = m.op("c") else { return None };
    let masks = keep.get().is_finite() && drop.get() - keep.get() <= WEAKEST && m.ty("s").shape().rank() >= 2;
    masks.then(|| filled(m.op("c"), raised(class(m, "s"), keep.get()), MASKED))
}

/// Weights that a mask takes away when they are there, what is left being scaled to add up to 1 again.
pub(super) fn masked_later(m: &Match<'_>) -> Option<Expr> {
    let Op::Training(TrainingOp::ReduceSum(to)) = m.op("r") else { return None };
    let from = m.ty("s").shape();
    let ([lead @ .., Dim::Fixed(1)], [own @ .., _]) = (to.dims(), from.dims()) else { return None };
    let by_row = lead == own;
    let softmax = |scores| Expr::op(Op::Array(ArrayOp::Softmax), [scores]);
    (by_row && selects(m) && m.root_ty() == m.ty("s")).then(|| softmax(filled(m.op("c"), class(m, "s"), MASKED)))
}

/// What all kept scores have more changes no weight.
pub(super) fn shifted_scores(m: &Match<'_>) -> Option<Expr> {
    let (k, n) = (m.scalar("k")?, m.scalar("n")?);
    let masks = selects(m) && k.is_finite() && n - k <= WEAKEST && m.ty("s") == m.root_ty();
    let scores = Expr::op(Op::Array(ArrayOp::Where), [Expr::op(m.op("c"), []), class(m, "s"), Expr::Number(MASKED)]);
    masks.then(|| Expr::op(Op::Array(ArrayOp::Softmax), [scores]))
}

/// Scores times a mask of ones and zeros, less a large number where the mask is zero.
pub(super) fn blended_mask(m: &Match<'_>, sign: f32) -> Option<Expr> {
    let (
        Op::Array(ArrayOp::CausalMask { keep, drop, window }),
        Op::Array(ArrayOp::CausalMask { keep: none, drop: large, window: other }),
    ) = (m.op("c"), m.op("d"))
    else {
        return None;
    };
    let (none, large) = (-sign * none.get(), -sign * large.get());
    let blends =
        window == other && keep.get() == 1.0 && drop.get() == 0.0 && none.is_finite() && large - none <= WEAKEST;
    blends.then(|| filled(m.op("c"), raised(class(m, "s"), none), large))
}

pub(super) fn flipped_mask(m: &Match<'_>) -> Option<Expr> {
    let Op::Array(ArrayOp::CausalMask { keep, drop, .. }) = m.op("c") else { return None };
    (keep.get() == 0.0 && drop.get() != 0.0)
        .then(|| Expr::op(Op::Array(ArrayOp::Where), [Expr::op(select(m.op("c")), []), class(m, "s"), class(m, "n")]))
}

/// Scores that are scaled when they are masked already.
pub(super) fn scaled_mask(m: &Match<'_>) -> Option<Expr> {
    m.scalar("n").and(m.scalar("k"))?;
    let same = m.root_ty() == m.ty("s") && window(m, "c").is_some();
    let scaled = |name| mul(class(m, name), class(m, "k"));
    same.then(|| Expr::op(Op::Array(ArrayOp::Where), [Expr::op(m.op("c"), []), scaled("s"), scaled("n")]))
}

/// Of two masks, what both keep: the shorter window.
pub(super) fn mask_twice(m: &Match<'_>) -> Option<Expr> {
    let (first, second) = (window(m, "c")?, window(m, "d")?);
    let shorter = match (first, second) {
        (Some(a), Some(b)) if a <= b => "c",
        (Some(_), None) => "c",
        (Some(_) | None, _) => "d",
    };
    (masked(m, "n") && masked(m, "m"))
        .then(|| Expr::op(Op::Array(ArrayOp::Where), [Expr::op(m.op(shorter), []), class(m, "s"), class(m, "n")]))
}

/// How far back a mask looks that keeps exactly the past, or the last of it.
fn window(m: &Match<'_>, name: &str) -> Option<Option<u32>> {
    match m.op(name) {
        Op::Array(ArrayOp::CausalMask { keep, drop, window }) if keep.get() != 0.0 && drop.get() == 0.0 => Some(window),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// The mask keeps exactly the past.
fn selects(m: &Match<'_>) -> bool {
    window(m, "c").is_some()
}

fn masked(m: &Match<'_>, name: &str) -> bool {
    m.scalar(name).is_some_and(|n| n <= WEAKEST)
}

fn scale(m: &Match<'_>) -> Option<Scalar> {
    if m.has("scale") { m.scalar("scale").map(Scalar::new) } else { Some(Scalar::new(1.0)) }
}

/// What falls with the distance, scaled.
pub(super) fn scaled_alibi(m: &Match<'_>) -> Option<Expr> {
    m.scalar("k").filter(|k| *k > 0.0)?;
    let one = m.ty("k").shape().rank() == 0;
    one.then(|| {
        let alibi = mul(class(m, "m"), class(m, "k"));
        Expr::op(Op::Array(ArrayOp::Alibi), [mul(class(m, "s"), class(m, "k")), alibi])
    })
}

/// Falls with the distance add up.
pub(super) fn alibi_twice(m: &Match<'_>) -> Option<Expr> {
    Some(Expr::op(Op::Array(ArrayOp::Alibi), [class(m, "s"), add(class(m, "m"), class(m, "n"))]))
}

/// Attention of queries, keys and values by that name.
fn attended(m: &Match<'_>, heads: Heads) -> Option<Expr> {
    let scale = scale(m).filter(|scale| !heads.alibi || scale.get() > 0.0)?;
    let op = Op::Dense(DenseOp::Attention { heads, scale });
    let mut args = vec![class(m, "q"), class(m, "k"), class(m, "v")];
    args.extend(heads.alibi.then(|| class(m, "alibi")));
    Some(Expr::Op(op, args))
}

pub(super) fn attention(m: &Match<'_>) -> Option<Expr> {
    let Op::Array(ArrayOp::SplitHeads { heads }) = m.op("h") else { return None };
    let turned = matches!(m.op("p"), Op::Array(ArrayOp::Transpose(p)) if p.axes() == [0, 2, 1]);
    let heads = Heads { window: window(m, "c")?, alibi: m.has("alibi"), ..Heads::equal(heads) };
    let alike = m.ty("q") == m.ty("k") && m.ty("q") == m.ty("v") && m.root_ty() == m.ty("q");
    (turned && alike && masked(m, "n")).then(|| attended(m, heads)).flatten()
}

/// Heads of queries in groups, each of which has its own head of keys and values: `[kv, group, tokens, w]`.
pub(super) fn grouped_attention(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::SplitHeads { heads: query }), Op::Array(ArrayOp::SplitHeads { heads: kv })) =
        (m.op("h"), m.op("g"))
    else {
        return None;
    };
    let turned = matches!(m.op("p"), Op::Array(ArrayOp::Transpose(p)) if p.axes() == [0, 2, 1]);
    let width = u32::try_from(m.ty("q").shape().row_width()?).ok()? / query;
    let of = |name, dims: &[Dim]| matches!(m.op(name), Op::Array(ArrayOp::Reshape(to)) if to.dims() == dims);
    let (group, width) = (Dim::Fixed(query.checked_div(kv)?), Dim::Fixed(width));
    let (kv_heads, one) = (Dim::Fixed(kv), Dim::Fixed(1));
    let in_groups = of("a", &[kv_heads, group, Dim::Tokens, width])
        && of("b", &[kv_heads, one, width, Dim::Tokens])
        && of("e", &[kv_heads, one, Dim::Tokens, width])
        && of("m", &[Dim::Fixed(query), Dim::Tokens, width]);
    let heads = Heads { kv, window: window(m, "c")?, alibi: m.has("alibi"), ..Heads::equal(query) };
    let fits = turned && in_groups && m.ty("k") == m.ty("v") && m.root_ty() == m.ty("q");
    (fits && masked(m, "n")).then(|| attended(m, heads)).flatten()
}

pub(super) fn attention_of_one_head(m: &Match<'_>) -> Option<Expr> {
    let rows = |name| matches!(m.ty(name), Type::Tensor { shape, .. } if shape.row_width().is_some());
    let turned = matches!(m.op("p"), Op::Array(ArrayOp::Transpose(p)) if p.axes() == [1, 0]);
    let heads = Heads { window: window(m, "c")?, ..Heads::equal(1) };
    let fits = rows("q") && m.ty("q") == m.ty("k") && m.ty("q") == m.ty("v") && m.root_ty() == m.ty("q");
    (turned && fits && masked(m, "n")).then(|| attended(m, heads)).flatten()
}
