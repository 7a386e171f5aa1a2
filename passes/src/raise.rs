//! Raises what an exporter wrote to a transformer in its own words: norms, linear, curve, attention.
//!
//! Nothing is recognised by name or by place. Rules state equalities between ways of writing the same thing; activation
//! functions are told by sampling; the causal mask has been tested number by number on import. The graph that needs the
//! fewest operations of the Tensor stage is taken; what no rule could raise is named.

mod affine;
mod attention;
mod build;
mod distances;
mod heads;
mod norms;
mod refusal;
mod rotary;
mod rows;
#[cfg(test)]
mod tests;
mod views;

use crate::constants;
use crate::context::Context;
use crate::egraph::pattern::Match;
use crate::egraph::rule::{Expr, RewriteRule};
use crate::egraph::sampling::Operand;
use crate::egraph::term::{Term, Terms, is_constant};
use crate::egraph::{rewrite, sampling};
use crate::sites;
pub use attention::MASKED;
use attention::{
    added_mask, alibi_twice, attention, attention_of_one_head, blended_mask, flipped_mask, grouped_attention,
    mask_twice, masked_later, scaled_alibi, scaled_mask, shifted_scores, shifted_softmax, softmax,
};
use build::{class, mul, two, vector};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, LevelOp};
use snnc_ir::op::{Layout, Perm, Scalar};
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Binary, Graph, Op, Stage, Unary};

/// The Tensor graph that means the same as an Imported one.
///
/// # Errors
/// All operations that no rule could raise, each with its place.
///
/// ```
/// use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
/// use snnc_ir::{Builder, Op, Stage, Tensor};
/// use snnc_passes::{Context, raise::raise};
/// use std::sync::Arc;
///
/// let mut b = Builder::new(Stage::Imported, 8);
/// let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "")?;
/// let table = b.weight("table", Arc::new(Tensor::f32(&[3, 2], vec![1.0; 6])));
/// let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "")?;
/// let w = b.weight("w", Arc::new(Tensor::f32(&[2, 4], vec![0.5; 8])));
/// let y = b.add(Op::Array(ArrayOp::MatMul), &[x, w], "")?;
/// let graph = raise(&b.finish(vec![("logits".into(), y)]), &Context::default())?;
/// assert!(graph.nodes.iter().any(|node| matches!(node.op, Op::Dense(DenseOp::Linear(_)))));
/// # Ok::<(), snnc_ir::diagnostic::Diagnostics>(())
/// ```
pub fn raise(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    let tolerance = if context.rounded { sampling::TOLERANCE_OF_CODES } else { sampling::TOLERANCE };
    let graph = constants::fold_numbers(graph)?;
    let graph = &affine::folded(&heads::in_one_form(&norms::recognised(&graph, tolerance)?)?)?;
    // Constant expressions are only legal before the Tensor stage, which they are folded for.
    let raised = rewrite(graph, RULES, tolerance, &price, Stage::Imported, |terms, stuck| {
        refusal::unraised(terms, graph, stuck)
    })?;
    Ok(sites::annotated(constants::fold(&raised, Stage::Tensor, context.store)?))
}

/// What an operation costs here: whether it belongs to the Tensor stage, and one per node. What depends on constants only
/// is computed once, now.
fn price(terms: &Terms, term: &Term) -> Option<u64> {
    if is_constant(terms, term) {
        return Some(0);
    }
    let equal_shapes = || {
        let shape = |i: usize| terms[term.args[i]].data.ty.shape();
        shape(0) == shape(1) && shape(0).row_width().is_some()
    };
    match term.op {
        Op::Array(ArrayOp::Binary(Binary::Add)) => equal_shapes().then_some(10),
        op if op.legal_in(Stage::Tensor) => Some(10),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

#[rustfmt::skip]
/// The rules, by what they are about. Each is a theorem that a test checks on drawn operands.
pub const RULES: &[RewriteRule] = &[
    // name                    left                                                        right
    RewriteRule { name: "commute-add", left: "(add ?a ?b)", right: |m| Some(two(Op::Array(ArrayOp::Binary(Binary::Add)), m, "b", "a")) },
    RewriteRule { name: "commute-mul", left: "(mul ?a ?b)", right: |m| Some(two(Op::Array(ArrayOp::Binary(Binary::Mul)), m, "b", "a")) },
    // What changes nothing: masks of ones, heads that are scaled by 1.
    RewriteRule { name: "add-zero",    left: "(add ?x ?n)",                       right: |m| unchanged(m, 0.0) },
    RewriteRule { name: "sub-zero",    left: "(sub ?x ?n)",                       right: |m| unchanged(m, 0.0) },
    RewriteRule { name: "mul-one",     left: "(mul ?x ?n)",                       right: |m| unchanged(m, 1.0) },
    RewriteRule { name: "max-lowest",  left: "(max ?x ?n)",                       right: |m| unchanged(m, f32::MIN) },
    // Scaling by a number: one form, and it floats up to where attention looks for it.
    RewriteRule { name: "div-number",  left: "(div ?a ?b)",                       right: div_by_number },
    RewriteRule { name: "mul-inverse", left: "(mul ?x (reciprocal ?y))",          right: |m| Some(two(Op::Array(ArrayOp::Binary(Binary::Div)), m, "x", "y")) },
    RewriteRule { name: "mul-mul",     left: "(mul (mul ?x ?a) ?b)",              right: mul_mul },
    RewriteRule { name: "matmul-left", left: "(matmul (mul ?a ?s) ?b)",           right: scaled_matmul },
    RewriteRule { name: "matmul-right",left: "(matmul ?a (mul ?b ?s))",           right: scaled_matmul },
    RewriteRule { name: "move-scale",  left: "(transpose:t (mul ?x ?s))",         right: scaled_move },
    RewriteRule { name: "shape-scale", left: "(reshape:t (mul ?x ?s))",           right: scaled_move },
    // Order of axes.
    RewriteRule { name: "transposes",  left: "(transpose:p (transpose:q ?x))",    right: transposes },
    RewriteRule { name: "reshapes",    left: "(reshape:p (reshape ?x))",          right: reshapes },
    RewriteRule { name: "turn-ones",   left: "(transpose:p ?x)",                  right: turn_beside_ones },
    RewriteRule { name: "split",       left: "(transpose:p (reshape:r ?x))",      right: split },
    RewriteRule { name: "merge",       left: "(reshape:r (transpose:p ?x))",      right: merge },
    RewriteRule { name: "slice-turned",left: "(slice:s (transpose:p ?x))",        right: turned_slice },
    RewriteRule { name: "slice-ones",  left: "(slice:s (reshape:r ?x))",          right: slice_beside_ones },
    // LayerNorm in nine nodes: the variance as a square or as a product.
    RewriteRule { name: "norm",        left: "(div (sub ?x (mean ?x)) (sqrt (add (mean (pow (sub ?x (mean ?x)) ?two)) ?eps)))", right: norm },
    RewriteRule { name: "norm-mul",    left: "(div (sub ?x (mean ?x)) (sqrt (add (mean (mul (sub ?x (mean ?x)) (sub ?x (mean ?x)))) ?eps)))", right: norm },
    RewriteRule { name: "norm-gain",   left: "(mul (rms_norm:n ?x) ?g)",         right: norm_gain },
    RewriteRule { name: "norm-affine", left: "(add (mul (rms_norm:n ?x) ?g) ?b)",right: norm_affine },
    // A bias that was added to the residual belongs to the projection that is added next.
    RewriteRule { name: "bias-later",  left: "(add (add ?x ?b) ?y)",              right: later_bias },
    // Projections.
    RewriteRule { name: "linear",      left: "(add (matmul ?x ?w) ?b)",           right: linear },
    RewriteRule { name: "no-bias",     left: "(matmul ?x ?w)",                    right: linear_without_bias },
    RewriteRule { name: "columns",     left: "(slice:s (linear:l ?x ?w ?b))",     right: columns },
    RewriteRule { name: "inner-columns", left: "(slice:s (reshape:r (linear:l ?x ?w ?b)))", right: inner_columns },
    // Embeddings.
    RewriteRule { name: "embed-scale", left: "(mul (embed ?i ?t) ?s)",            right: scaled_embedding },
    // Activation functions, whatever they are written as.
    RewriteRule { name: "relu",        left: "(relu ?x)",                         right: curve },
    RewriteRule { name: "curve-mul",   left: "(mul ?a ?b)",                       right: curve },
    RewriteRule { name: "curve-div",   left: "(div ?a ?b)",                       right: curve },
    RewriteRule { name: "curve-max",   left: "(max ?a ?b)",                       right: curve },
    // Gates: a curve of one projection, times another.
    RewriteRule { name: "gated",       left: "(mul (curve:c ?x) ?u)",             right: gated },
    RewriteRule { name: "gated-late",  left: "(mul ?x (mul ?a ?u))",              right: gated_later },
    // Softmax in its own words. What is taken from every score of a row changes no weight.
    RewriteRule { name: "softmax",     left: "(div (exp ?s) (reduce_sum:r (exp ?s)))", right: softmax },
    RewriteRule { name: "softmax-shift", left: "(softmax (sub ?s ?t))",           right: shifted_softmax },
    // Attention: a mask that is added is one that selects; then the whole.
    RewriteRule { name: "mask-after",  left: "(div (mul (softmax ?s) (causal_mask:c)) (reduce_sum:r (mul (softmax ?s) (causal_mask:c))))", right: masked_later },
    RewriteRule { name: "mask-exp",    left: "(div (mul (exp ?s) (causal_mask:c)) (reduce_sum:r (mul (exp ?s) (causal_mask:c))))", right: masked_later },
    RewriteRule { name: "mask-shift",  left: "(softmax (where (causal_mask:c) (add ?s ?k) ?n))", right: shifted_scores },
    RewriteRule { name: "mask-add",    left: "(add ?s (causal_mask:c))",               right: added_mask },
    RewriteRule { name: "mask-blend",  left: "(sub (mul ?s (causal_mask:c)) (causal_mask:d))", right: |m| blended_mask(m, 1.0) },
    RewriteRule { name: "mask-blend+", left: "(add (mul ?s (causal_mask:c)) (causal_mask:d))", right: |m| blended_mask(m, -1.0) },
    RewriteRule { name: "mask-flip",   left: "(where (causal_mask:c) ?n ?s)",          right: flipped_mask },
    RewriteRule { name: "mask-scale",  left: "(mul (where (causal_mask:c) ?s ?n) ?k)", right: scaled_mask },
    RewriteRule { name: "alibi-scale", left: "(mul (alibi ?s ?m) ?k)",                 right: scaled_alibi },
    RewriteRule { name: "alibi-twice", left: "(alibi (alibi ?s ?m) ?n)",                right: alibi_twice },
    RewriteRule { name: "mask-twice",  left: "(where (causal_mask:c) (where (causal_mask:d) ?s ?n) ?m)", right: mask_twice },
    RewriteRule { name: "attention",   left: "(merge_heads (matmul (softmax (where (causal_mask:c) (mul (matmul (split_heads:h ?q) (transpose:p (split_heads:h ?k))) ?scale) ?n)) (split_heads:h ?v)))", right: attention },
    RewriteRule { name: "unscaled",    left: "(merge_heads (matmul (softmax (where (causal_mask:c) (matmul (split_heads:h ?q) (transpose:p (split_heads:h ?k))) ?n)) (split_heads:h ?v)))", right: attention },
    RewriteRule { name: "alibi",       left: "(merge_heads (matmul (softmax (where (causal_mask:c) (alibi (mul (matmul (split_heads:h ?q) (transpose:p (split_heads:h ?k))) ?scale) ?alibi) ?n)) (split_heads:h ?v)))", right: attention },
    RewriteRule { name: "alibi-unscaled", left: "(merge_heads (matmul (softmax (where (causal_mask:c) (alibi (matmul (split_heads:h ?q) (transpose:p (split_heads:h ?k))) ?alibi) ?n)) (split_heads:h ?v)))", right: attention },
    RewriteRule { name: "grouped",     left: "(merge_heads (reshape:m (matmul (softmax (where (causal_mask:c) (mul (matmul (reshape:a (split_heads:h ?q)) (reshape:b (transpose:p (split_heads:g ?k)))) ?scale) ?n)) (reshape:e (split_heads:g ?v)))))", right: grouped_attention },
    RewriteRule { name: "grouped-unscaled", left: "(merge_heads (reshape:m (matmul (softmax (where (causal_mask:c) (matmul (reshape:a (split_heads:h ?q)) (reshape:b (transpose:p (split_heads:g ?k)))) ?n)) (reshape:e (split_heads:g ?v)))))", right: grouped_attention },
    RewriteRule { name: "grouped-alibi", left: "(merge_heads (reshape:m (matmul (softmax (where (causal_mask:c) (alibi (mul (matmul (reshape:a (split_heads:h ?q)) (reshape:b (transpose:p (split_heads:g ?k)))) ?scale) ?alibi) ?n)) (reshape:e (split_heads:g ?v)))))", right: grouped_attention },
    RewriteRule { name: "grouped-alibi-unscaled", left: "(merge_heads (reshape:m (matmul (softmax (where (causal_mask:c) (alibi (matmul (reshape:a (split_heads:h ?q)) (reshape:b (transpose:p (split_heads:g ?k)))) ?alibi) ?n)) (reshape:e (split_heads:g ?v)))))", right: grouped_attention },
    RewriteRule { name: "one-head",    left: "(matmul (softmax (where (causal_mask:c) (mul (matmul ?q (transpose:p ?k)) ?scale) ?n)) ?v)", right: attention_of_one_head },
    RewriteRule { name: "one-unscaled",left: "(matmul (softmax (where (causal_mask:c) (matmul ?q (transpose:p ?k)) ?n)) ?v)", right: attention_of_one_head },
];

fn unchanged(m: &Match<'_>, neutral: f32) -> Option<Expr> {
    let same = m.root_ty() == m.ty("x") && !m.is_root_constant();
    (same && m.scalar("n") == Some(neutral)).then(|| class(m, "x"))
}

fn div_by_number(m: &Match<'_>) -> Option<Expr> {
    m.scalar("b").filter(|b| *b != 0.0)?;
    if m.is_constant("a") {
        return None;
    }
    Some(mul(class(m, "a"), Expr::op(Op::Array(ArrayOp::Unary(Unary::Reciprocal)), [class(m, "b")])))
}

fn mul_mul(m: &Match<'_>) -> Option<Expr> {
    m.scalar("a").and(m.scalar("b"))?;
    Some(mul(class(m, "x"), mul(class(m, "a"), class(m, "b"))))
}

fn scaled_matmul(m: &Match<'_>) -> Option<Expr> {
    m.scalar("s")?;
    (!m.is_constant("a") && !m.is_constant("b"))
        .then(|| mul(two(Op::Array(ArrayOp::MatMul), m, "a", "b"), class(m, "s")))
}

/// A scale of more axes than what it scales has would bring them to other axes.
fn scaled_move(m: &Match<'_>) -> Option<Expr> {
    m.scalar("s")?;
    let rank = m.ty("s").shape().rank();
    let few = rank <= m.ty("x").shape().rank() && rank <= m.root_ty().shape().rank();
    (few && !m.is_constant("x")).then(|| mul(Expr::op(m.op("t"), [class(m, "x")]), class(m, "s")))
}

fn transposes(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Transpose(p)), Op::Array(ArrayOp::Transpose(q))) = (m.op("p"), m.op("q")) else {
        return None;
    };
    let both = p.after(&q)?;
    Some(if both.is_identity() {
        class(m, "x")
    } else {
        Expr::op(Op::Array(ArrayOp::Transpose(both)), [class(m, "x")])
    })
}

fn reshapes(m: &Match<'_>) -> Option<Expr> {
    let Op::Array(ArrayOp::Reshape(to)) = m.op("p") else { return None };
    let same = m.ty("x").shape() == to;
    Some(if same { class(m, "x") } else { Expr::op(m.op("p"), [class(m, "x")]) })
}

/// `[tokens, d]` seen as `[tokens, heads, w]`, heads first; keys then have their last axes exchanged.
fn split(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Transpose(p)), Op::Array(ArrayOp::Reshape(r))) = (m.op("p"), m.op("r")) else {
        return None;
    };
    m.ty("x").shape().row_width()?;
    let [Dim::Tokens, Dim::Fixed(heads), Dim::Fixed(_)] = *r.dims() else { return None };
    let split = Expr::op(Op::Array(ArrayOp::SplitHeads { heads }), [class(m, "x")]);
    match p.axes() {
        [1, 0, 2] => Some(split),
        [1, 2, 0] => Some(Expr::op(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1])?)), [split])),
        _ => None,
    }
}

/// Sizes of 1 have no order.
fn turn_beside_ones(m: &Match<'_>) -> Option<Expr> {
    let Op::Array(ArrayOp::Transpose(p)) = m.op("p") else { return None };
    let (from, to) = (m.ty("x").shape(), m.root_ty().shape());
    let is_one = |axis: &u8| from.dims()[usize::from(*axis)] == Dim::Fixed(1);
    let order: Vec<u8> = p.axes().iter().copied().filter(|axis| !is_one(axis)).collect();
    if order.len() == from.rank() || m.is_constant("x") {
        return None;
    }
    let before = |axis: u8| order.iter().filter(|&&other| other < axis).count();
    let perm = Perm::new(&order.iter().map(|&axis| before(axis)).collect::<Vec<usize>>())?;
    let dense: Vec<Dim> = from.dims().iter().copied().filter(|dim| *dim != Dim::Fixed(1)).collect();
    let x = Expr::op(Op::Array(ArrayOp::Reshape(Shape::new(&dense))), [class(m, "x")]);
    let turned = if perm.is_identity() { x } else { Expr::op(Op::Array(ArrayOp::Transpose(perm)), [x]) };
    Some(Expr::op(Op::Array(ArrayOp::Reshape(to)), [turned]))
}

fn merge(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Reshape(r)), Op::Array(ArrayOp::Transpose(p))) = (m.op("r"), m.op("p")) else {
        return None;
    };
    r.row_width()?;
    let heads_first = matches!(m.ty("x").shape().dims(), [Dim::Fixed(_), Dim::Tokens, Dim::Fixed(_)]);
    (heads_first && p.axes() == [1, 0, 2]).then(|| Expr::op(Op::Array(ArrayOp::MergeHeads), [class(m, "x")]))
}

fn norm(m: &Match<'_>) -> Option<Expr> {
    let eps = m.scalar("eps")?;
    if m.has("two") && m.scalar("two") != Some(2.0) {
        return None;
    }
    m.ty("x").shape().row_width().filter(|_| m.root_ty() == m.ty("x"))?;
    let op = Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(eps), heads: 1 });
    Some(Expr::op(op, [Expr::op(Op::Dense(DenseOp::Centre), [class(m, "x")])]))
}

fn norm_affine(m: &Match<'_>) -> Option<Expr> {
    let channels = Shape::fixed(&[m.ty("x").shape().row_width()?]);
    let normal = Expr::op(m.op("n"), [class(m, "x")]);
    (vector(m, "g", channels) && vector(m, "b", channels))
        .then(|| Expr::op(Op::Level(LevelOp::ScaleShift), [normal, class(m, "g"), class(m, "b")]))
}

fn norm_gain(m: &Match<'_>) -> Option<Expr> {
    let width = m.ty("x").shape().row_width()?;
    let normal = Expr::op(m.op("n"), [class(m, "x")]);
    vector(m, "g", Shape::fixed(&[width]))
        .then(|| Expr::op(Op::Level(LevelOp::ScaleShift), [normal, class(m, "g"), Expr::Zeros(width)]))
}

/// A constant matrix, as it is or behind a transpose, with the layout in which it is a weight.
fn weight(m: &Match<'_>, name: &str) -> Option<(Layout, Expr, usize)> {
    let id = m.class(name);
    let &[_, outputs] = m.ty(name).shape().sizes()?.as_slice() else { return None };
    let turned = m.terms[id].nodes.iter().find_map(|term| match term.op {
        Op::Array(ArrayOp::Transpose(_)) => Some(term.args[0]),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    });
    if !m.is_constant(name) {
        return None;
    }
    Some(match turned {
        Some(of) => (Layout::OutputMajor, Expr::Class(of), outputs),
        None => (Layout::InputMajor, Expr::Class(id), outputs),
    })
}

fn later_bias(m: &Match<'_>) -> Option<Expr> {
    let moves = m.is_constant("b") && m.ty("b").shape().rank() == 1;
    let open = !m.is_constant("x") && !m.is_constant("y") && m.ty("x") == m.ty("y");
    let with_bias = two(Op::Array(ArrayOp::Binary(Binary::Add)), m, "y", "b");
    (moves && open).then(|| Expr::op(Op::Array(ArrayOp::Binary(Binary::Add)), [class(m, "x"), with_bias]))
}

fn linear(m: &Match<'_>) -> Option<Expr> {
    m.ty("x").shape().row_width()?;
    let (layout, w, outputs) = weight(m, "w")?;
    vector(m, "b", Shape::fixed(&[outputs]))
        .then(|| Expr::op(Op::Dense(DenseOp::Linear(layout)), [class(m, "x"), w, class(m, "b")]))
}

fn linear_without_bias(m: &Match<'_>) -> Option<Expr> {
    m.ty("x").shape().row_width()?;
    let (layout, w, outputs) = weight(m, "w")?;
    Some(Expr::op(Op::Dense(DenseOp::Linear(layout)), [class(m, "x"), w, Expr::Zeros(outputs)]))
}

/// Some outputs of a projection are a projection with some columns.
fn columns(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Slice { axis: 1, start, len }), Op::Dense(DenseOp::Linear(layout))) =
        (m.op("s"), m.op("l"))
    else {
        return None;
    };
    let axis = match layout {
        Layout::InputMajor => 1,
        Layout::OutputMajor => 0,
    };
    m.ty("x").shape().row_width()?;
    let w = Expr::op(Op::Array(ArrayOp::Slice { axis, start, len }), [class(m, "w")]);
    let b = Expr::op(Op::Array(ArrayOp::Slice { axis: 0, start, len }), [class(m, "b")]);
    Some(Expr::op(Op::Dense(DenseOp::Linear(layout)), [class(m, "x"), w, b]))
}

/// A part of what a projection's outputs were reshaped to is a projection with the weights of that part.
fn inner_columns(m: &Match<'_>) -> Option<Expr> {
    let (
        Op::Array(ArrayOp::Slice { axis, start, len }),
        Op::Array(ArrayOp::Reshape(r)),
        Op::Dense(DenseOp::Linear(layout)),
    ) = (m.op("s"), m.op("r"), m.op("l"))
    else {
        return None;
    };
    let [Dim::Tokens, inner @ ..] = r.dims() else { return None };
    let inner: Vec<usize> = inner.iter().map(|dim| dim.size(0, 0)).collect();
    let (along, &[rows, columns]) = (usize::from(axis).checked_sub(1)?, m.ty("w").shape().sizes()?.as_slice()) else {
        return None;
    };
    let part = |w: Expr, lead: &[usize], trail: &[usize]| {
        let all = [lead, &inner, trail].concat();
        let axis = (lead.len() + along) as u8;
        (all.len() <= Shape::MAX_RANK).then(|| {
            let sliced = Expr::op(
                Op::Array(ArrayOp::Slice { axis, start, len }),
                [Expr::op(Op::Array(ArrayOp::Reshape(Shape::fixed(&all))), [w])],
            );
            let outputs = inner.iter().product::<usize>() / inner[along] * len as usize;
            Expr::op(Op::Array(ArrayOp::Reshape(Shape::fixed(&[lead, &[outputs], trail].concat()))), [sliced])
        })
    };
    let w = match layout {
        Layout::InputMajor => part(class(m, "w"), &[rows], &[])?,
        Layout::OutputMajor => part(class(m, "w"), &[], &[columns])?,
    };
    let b = part(class(m, "b"), &[], &[])?;
    let mut dims = r.dims().to_vec();
    dims[usize::from(axis)] = Dim::Fixed(len);
    m.ty("x").shape().row_width()?;
    Some(Expr::op(
        Op::Array(ArrayOp::Reshape(Shape::new(&dims))),
        [Expr::op(Op::Dense(DenseOp::Linear(layout)), [class(m, "x"), w, b])],
    ))
}

/// A part of something turned is something turned of which a part is taken.
fn turned_slice(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Slice { axis, start, len }), Op::Array(ArrayOp::Transpose(p))) = (m.op("s"), m.op("p"))
    else {
        return None;
    };
    if m.is_constant("x") {
        return None;
    }
    let axis = *p.axes().get(usize::from(axis))?;
    Some(Expr::op(
        Op::Array(ArrayOp::Transpose(p)),
        [Expr::op(Op::Array(ArrayOp::Slice { axis, start, len }), [class(m, "x")])],
    ))
}

/// A part of something that only got sizes of 1 is that part with those sizes.
fn slice_beside_ones(m: &Match<'_>) -> Option<Expr> {
    let (Op::Array(ArrayOp::Slice { axis, start, len }), Op::Array(ArrayOp::Reshape(r))) = (m.op("s"), m.op("r"))
    else {
        return None;
    };
    let is_size = |dim: &&Dim| **dim != Dim::Fixed(1);
    let from = m.ty("x").shape();
    let (at, r) = (usize::from(axis), r.dims());
    if !r.iter().filter(is_size).eq(from.dims().iter().filter(is_size)) || r[at] == Dim::Fixed(1) {
        return None;
    }
    let nth = r[..at].iter().filter(is_size).count();
    let (axis, _) = from.dims().iter().enumerate().filter(|(_, dim)| is_size(dim)).nth(nth)?;
    let mut dims = r.to_vec();
    dims[at] = Dim::Fixed(len);
    let sliced = Expr::op(Op::Array(ArrayOp::Slice { axis: axis as u8, start, len }), [class(m, "x")]);
    Some(Expr::op(Op::Array(ArrayOp::Reshape(Shape::new(&dims))), [sliced]))
}

fn scaled_embedding(m: &Match<'_>) -> Option<Expr> {
    m.scalar("s").filter(|_| m.ty("s").shape().rank() <= m.ty("t").shape().rank())?;
    Some(Expr::op(Op::Dense(DenseOp::Embed), [class(m, "i"), mul(class(m, "t"), class(m, "s"))]))
}

fn curve(m: &Match<'_>) -> Option<Expr> {
    let fact = &m.terms[m.root].data;
    fact.ty.shape().row_width()?;
    let (way, curve) =
        fact.pointwise.iter().find_map(|way| Some((way, sampling::curve_of(way, m.terms.analysis.tolerance)?)))?;
    (m.terms[way.root].data.ty == fact.ty).then(|| Expr::op(Op::Dense(DenseOp::Curve(curve)), [Expr::Class(way.root)]))
}

/// A gated linear unit: rows times a curve of other rows.
fn gated(m: &Match<'_>) -> Option<Expr> {
    let Op::Dense(DenseOp::Curve(curve)) = m.op("c") else { return None };
    let alike = m.ty("x") == m.ty("u") && m.root_ty() == m.ty("x") && !m.is_constant("u");
    alike.then(|| Expr::op(Op::Dense(DenseOp::Gated(curve)), [class(m, "x"), class(m, "u")]))
}

/// The same where a part of the curve was multiplied later: x * (sigmoid(x) * u).
fn gated_later(m: &Match<'_>) -> Option<Expr> {
    let rows = |name| m.ty(name).shape().row_width().is_some() && !m.is_constant(name);
    if !rows("x") || !rows("a") || !rows("u") || m.ty("x") != m.ty("u") {
        return None;
    }
    let operand = |name| {
        let class = m.class(name);
        let fact = &m.terms[class].data;
        Operand { class, scalar: fact.scalar, ways: &fact.pointwise }
    };
    let product = Op::Array(ArrayOp::Binary(Binary::Mul));
    let ways = sampling::pointwise(product, &[operand("x"), operand("a")], &|id| m.terms.find(id));
    let (way, curve) = ways.iter().find_map(|way| Some((way, sampling::curve_of(way, m.terms.analysis.tolerance)?)))?;
    let alike = m.terms[way.root].data.ty == m.ty("u") && m.root_ty() == m.ty("u");
    alike.then(|| Expr::op(Op::Dense(DenseOp::Gated(curve)), [Expr::Class(way.root), class(m, "u")]))
}
