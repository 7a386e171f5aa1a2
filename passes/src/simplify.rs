//! Moves what is linear and constant into weights: a LayerNorm's gain and bias go into every projection it feeds.
//!
//! `W LN(x) + c = (W diag g) n(x) + (W b + c)`, with `n` the LayerNorm without gain and bias. Exact up to rounding.

use crate::constants::{self, fixed};
use crate::context::Context;
use crate::egraph::pattern::Match;
use crate::egraph::rule::{Expr, RewriteRule};
use crate::egraph::sampling::TOLERANCE;
use crate::egraph::term::{Term, Terms, is_constant};
use crate::egraph::{effort, rewrite};
use crate::sites;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Layout;
use snnc_ir::op::{ArrayOp, DenseOp};
use snnc_ir::{Binary, Diagnostic, Graph, Op, Stage};

/// The Tensor graph with gains and biases folded.
pub fn simplify(graph: &Graph, _: &Context) -> Result<Graph, Diagnostics> {
    let lost = |_: &Terms, _: &[egg::Id]| {
        Diagnostics::from(Diagnostic::new("", "simplification lost a value; this is a defect of snnc"))
    };
    // Constant expressions are only legal before the Tensor stage, which they are folded for.
    let simplified = rewrite(graph, RULES, TOLERANCE, &price, Stage::Imported, lost)?;
    Ok(sites::annotated(constants::fold(&simplified, Stage::Tensor)?))
}

/// Operations of one token: a LayerNorm multiplies and adds once more a channel than a normalisation.
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
    RewriteRule { name: "gain-into-weight", left: "(linear:l (layer_norm:n ?x ?g ?b) ?w ?c)", right: gain_into_weight },
];

fn gain_into_weight(m: &Match<'_>) -> Option<Expr> {
    let (Op::Dense(DenseOp::Linear(layout)), Op::Dense(DenseOp::LayerNorm { eps })) = (m.op("l"), m.op("n")) else {
        return None;
    };
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
    Some(Expr::op(
        Op::Dense(DenseOp::Linear(layout)),
        [Expr::op(Op::Dense(DenseOp::LayerNormNoGain { eps }), [class("x")]), w, c],
    ))
}
