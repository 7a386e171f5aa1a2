//! Moves what is linear and constant into weights, exact up to rounding.
//!
//! A norm's gain and bias go into every projection that it feeds: `W (g n + b) + c = (W diag g) n + (W b + c)`. What LayerNorm
//! subtracts goes into the projections that write the residual stream, so that one RMSNorm after the other reads a stream that
//! is centred already: `centre(x + W y + c) = centre(x) + (C W) y + C c`, with `C` the matrix that subtracts the mean (SliceGPT:
//! Ashkboos et al. 2024). What nothing constant writes is centred at run time: the embedding once, a norm that is itself the
//! residual stream each time.

use crate::constants::{self, fixed};
use crate::context::Context;
use crate::egraph::pattern::Match;
use crate::egraph::rule::{Expr, RewriteRule};
use crate::egraph::sampling::TOLERANCE;
use crate::egraph::term::{Term, Terms, is_constant};
use crate::egraph::{effort, rewrite};
use crate::sites;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, Layout, Perm};
use snnc_ir::{Binary, Diagnostic, Graph, Op, Stage};

/// The Tensor graph with gains and biases folded.
pub fn simplify(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    let lost = |_: &Terms, _: &[egg::Id]| {
        Diagnostics::from(Diagnostic::new("", "simplification lost a value; this is a defect of snnc"))
    };
    // Constant expressions are only legal before the Tensor stage, which they are folded for.
    let simplified = rewrite(graph, RULES, TOLERANCE, &price, Stage::Imported, lost)?;
    Ok(sites::annotated(constants::fold(&simplified, Stage::Tensor, context.store)?))
}

/// Operations of one token: a gain and a bias multiply and add once per channel.
fn price(terms: &Terms, term: &Term) -> Option<u64> {
    match term.op {
        _ if is_constant(terms, term) => Some(0),
        op if op.legal_in(Stage::Tensor) => Some(1 + effort(terms, term)),
        _ => None,
    }
}

#[rustfmt::skip]
/// The rules.
pub const RULES: &[RewriteRule] = &[
    RewriteRule { name: "gain-into-weight", left: "(linear:l (scale_shift ?x ?g ?b) ?w ?c)", right: gain_into_weight },
    // Subtracting the mean is linear, so writers of the residual stream can do it once and for all.
    RewriteRule { name: "centre-sum",       left: "(centre (add ?a ?b))",                    right: centred_sum },
    RewriteRule { name: "centre-linear",    left: "(centre (linear:l ?x ?w ?c))",            right: centred_linear },
    RewriteRule { name: "centre-twice",     left: "(centre (centre ?x))",                    right: centred_twice },
];

fn gain_into_weight(m: &Match<'_>) -> Option<Expr> {
    let Op::Dense(DenseOp::Linear(layout)) = m.op("l") else { return None };
    let d = m.ty("x").shape().row_width()?;
    let outputs = m.ty("c").shape().width()?;
    let class = |name| Expr::Class(m.class(name));
    let (gain, bias) = match layout {
        Layout::InputMajor => (
            Expr::op(fixed(&[d, 1]), [class("g")]),
            Expr::op(Op::Array(ArrayOp::MatMul), [Expr::op(fixed(&[1, d]), [class("b")]), class("w")]),
        ),
        Layout::OutputMajor => {
            (class("g"), Expr::op(Op::Array(ArrayOp::MatMul), [class("w"), Expr::op(fixed(&[d, 1]), [class("b")])]))
        }
    };
    let w = Expr::op(Op::Array(ArrayOp::Binary(Binary::Mul)), [class("w"), gain]);
    let c = Expr::op(Op::Array(ArrayOp::Binary(Binary::Add)), [class("c"), Expr::op(fixed(&[outputs]), [bias])]);
    Some(Expr::op(Op::Dense(DenseOp::Linear(layout)), [class("x"), w, c]))
}

fn centred(x: Expr) -> Expr {
    Expr::op(Op::Dense(DenseOp::Centre), [x])
}

/// What a sum is centred by, its parts are.
fn centred_sum(m: &Match<'_>) -> Option<Expr> {
    let part = |name| centred(Expr::Class(m.class(name)));
    (m.ty("a") == m.ty("b")).then(|| Expr::op(Op::Array(ArrayOp::Binary(Binary::Add)), [part("a"), part("b")]))
}

/// A projection whose outputs are centred is one with centred columns and a centred bias.
fn centred_linear(m: &Match<'_>) -> Option<Expr> {
    let Op::Dense(DenseOp::Linear(layout)) = m.op("l") else { return None };
    let (inputs, outputs) = (m.ty("x").shape().row_width()?, m.ty("c").shape().width()?);
    let class = |name| Expr::Class(m.class(name));
    let less = |x: Expr, mean: Expr| Expr::op(Op::Array(ArrayOp::Binary(Binary::Sub)), [x, mean]);
    let mean = |x: Expr| Expr::op(Op::Array(ArrayOp::Mean), [x]);
    let of_weight = match layout {
        Layout::InputMajor => mean(class("w")),
        Layout::OutputMajor => {
            let swap = Op::Array(ArrayOp::Transpose(Perm::new(&[1, 0])?));
            Expr::op(fixed(&[1, inputs]), [mean(Expr::op(swap, [class("w")]))])
        }
    };
    // One output has nothing to be compared with.
    (outputs > 1).then(|| {
        let (w, c) = (less(class("w"), of_weight), less(class("c"), mean(class("c"))));
        Expr::op(Op::Dense(DenseOp::Linear(layout)), [class("x"), w, c])
    })
}

fn centred_twice(m: &Match<'_>) -> Option<Expr> {
    Some(centred(Expr::Class(m.class("x"))))
}
