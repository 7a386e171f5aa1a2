//! Takes time out of a program where the law allows: counts instead of steps, one product instead of `T`.
//!
//! Both forms are equal to the bit, so this is a choice by price and by nothing else:
//!
//! ```text
//! decode (fire x)       =  quant x                    a neuron that integrates first emits exactly its level
//! decode (synapse s w)  =  product (decode s) w       time commutes with everything linear
//! ssa q k v             =  ssa (decode q) (decode k) (decode v)
//! decode (ssa q k v)    =  ssa (decode q) (decode k) (decode v)      where it emits spikes
//! ```

use crate::egraph::pattern::Match;
use crate::egraph::rule::{Expr, RewriteRule};
use crate::egraph::sampling::TOLERANCE;
use crate::egraph::term::{Term, Terms};
use crate::egraph::{effort, rewrite};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Diagnostic, Graph, Op, Stage, Type};

#[rustfmt::skip]
/// The rules: each takes time out of one kind of operation.
pub const RULES: &[RewriteRule] = &[
    RewriteRule { name: "decode-fire",    left: "(decode (fire:f ?x ?g ?o))",             right: decode_fire },
    RewriteRule { name: "decode-curve",   left: "(decode (fire:f ?x ?a ?b ?g ?o))",       right: decode_curve },
    RewriteRule { name: "decode-gated",   left: "(decode (gated_fire:f ?x ?u ?a ?b ?g ?o))", right: decode_gated },
    RewriteRule { name: "decode-synapse", left: "(decode (synapse ?s ?w))",               right: decode_synapse },
    RewriteRule { name: "decode-ssa",     left: "(ssa:a ?q ?k ?v ?c)",                    right: decode_ssa },
    RewriteRule { name: "decode-memory",  left: "(ssa:a ?q ?k ?v ?s ?h)",                 right: decode_memory },
    RewriteRule { name: "decode-scaled",  left: "(ssa:a ?q ?k ?v ?t ?u ?w ?c)",           right: decode_scaled },
    RewriteRule { name: "decode-faded",   left: "(ssa:a ?q ?k ?v ?t ?u ?w ?c ?h)",        right: decode_faded },
    RewriteRule { name: "decode-emitted", left: "(decode (ssa:a ?q ?k ?v ?s ?h ?g))",     right: decode_emitted },
];

/// Whether a program has time-stepped neurons: what they say depends on the order of their inputs, so
/// that every timestep has to be run.
pub fn depends_on_order(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| matches!(node.op, Op::Spike(SpikeOp::Integrate { .. })))
}

/// The Quantised program that a Spiking one is equal to.
///
/// # Errors
/// Its neurons depend on the order of their inputs.
pub fn collapse(graph: &Graph) -> Result<Graph, Diagnostics> {
    rewrite(graph, RULES, TOLERANCE, &price, Stage::Quantised, |terms, stuck| {
        let what: Vec<String> =
            stuck.iter().flat_map(|id| &terms[*id].nodes).map(|term| format!("`{}`", term.op)).collect();
        Diagnostics::from(Diagnostic::new("", format!("time does not collapse here: {}", what.join(", "))))
    })
}

/// Operations of one token. What has time in it is not for sale here.
fn price(terms: &Terms, term: &Term) -> Option<u64> {
    let ty = |i: usize| terms[term.args[i]].data.ty;
    match term.op {
        Op::Leaf(LeafOp::Weight(_)) => Some(0),
        Op::Level(LevelOp::Ssa { .. }) if matches!(ty(0), Type::Train { .. }) => None,
        op if op.legal_in(Stage::Quantised) => Some(1 + effort(terms, term)),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

fn class(m: &Match<'_>, name: &str) -> Expr {
    Expr::Class(m.class(name))
}

fn decode(m: &Match<'_>, name: &str) -> Expr {
    Expr::op(Op::Spike(SpikeOp::Decode), [class(m, name)])
}

fn decode_fire(m: &Match<'_>) -> Option<Expr> {
    let Op::Spike(SpikeOp::Fire { code, steps, curve }) = m.op("f") else { return None };
    Some(Expr::op(Op::Level(LevelOp::Quant { code, steps, curve }), [class(m, "x"), class(m, "g"), class(m, "o")]))
}

fn decode_curve(m: &Match<'_>) -> Option<Expr> {
    let Op::Spike(SpikeOp::Fire { code, steps, curve }) = m.op("f") else { return None };
    let args = ["x", "a", "b", "g", "o"].map(|name| class(m, name));
    Some(Expr::op(Op::Level(LevelOp::Quant { code, steps, curve }), args))
}

fn decode_gated(m: &Match<'_>) -> Option<Expr> {
    let Op::Spike(SpikeOp::GatedFire { code, steps, curve }) = m.op("f") else { return None };
    let args = ["x", "u", "a", "b", "g", "o"].map(|name| class(m, name));
    Some(Expr::op(Op::Level(LevelOp::GatedQuant { code, steps, curve }), args))
}

fn decode_synapse(m: &Match<'_>) -> Option<Expr> {
    Some(Expr::op(Op::Level(LevelOp::MatMulInt), [decode(m, "s"), class(m, "w")]))
}

fn decode_ssa(m: &Match<'_>) -> Option<Expr> {
    decode_attention(m, &["c"])
}

/// With thresholds of tokens.
fn decode_scaled(m: &Match<'_>) -> Option<Expr> {
    decode_attention(m, &["t", "u", "w", "c"])
}

/// With these and ALiBi.
fn decode_faded(m: &Match<'_>) -> Option<Expr> {
    decode_attention(m, &["t", "u", "w", "c", "h"])
}

fn decode_memory(m: &Match<'_>) -> Option<Expr> {
    decode_attention(m, &["s", "h"])
}

fn decode_emitted(m: &Match<'_>) -> Option<Expr> {
    decode_attention(m, &["s", "h", "g"])
}

/// That levels say when features spike is what the verifier promises of all but those of
/// time-stepped neurons, and these never collapse.
fn decode_attention(m: &Match<'_>, others: &[&str]) -> Option<Expr> {
    let decoded = ["q", "k", "v"].into_iter().map(|name| decode(m, name));
    let args = decoded.chain(others.iter().map(|name| class(m, name)));
    matches!(m.ty("q"), Type::Train { .. }).then(|| Expr::Op(m.op("a"), args.collect()))
}
