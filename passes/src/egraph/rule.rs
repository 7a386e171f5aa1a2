//! Rules as egg's rewrites, and the run that applies them until nothing new is found.
//!
//! A rule's right-hand side is a function that may refuse. To egg it is an `Applier`. Limits are counts, egg's clock is off, and
//! egg must say that it saturated: nothing depends on how fast a machine is.

use super::pattern::{Match, Pattern};
use super::term::{Facts, Term, Terms, add_constant, add_from};
use egg::{Applier, Id, PatternAst, Rewrite, Runner, SimpleScheduler, StopReason, Subst, Symbol};
use snnc_ir::ErrorCode;
use snnc_ir::op::SpikeOp;
use snnc_ir::{Diagnostic, Op, Tensor};
use std::time::Duration;

/// A right-hand side: a class that the match found, or an operation on such.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A class that is there.
    Class(Id),
    /// An operation on terms.
    Op(Op, Vec<Expr>),
    /// A number.
    Number(f32),
    /// A vector of this many zeros.
    Zeros(usize),
}

impl Expr {
    /// An operation on terms.
    pub fn op<const N: usize>(op: Op, args: [Expr; N]) -> Self {
        Expr::Op(op, args.into())
    }

    fn add(self, terms: &mut Terms, origin: u32) -> Id {
        match self {
            Expr::Class(id) => id,
            Expr::Op(op, args) => {
                let args: Vec<Id> = args.into_iter().map(|arg| arg.add(terms, origin)).collect();
                add_from(terms, op, args.clone(), origin_of(terms, op, &args, origin))
            }
            Expr::Number(x) => add_constant(terms, &format!("number{x:?}"), || Tensor::f32(&[], vec![x])),
            Expr::Zeros(n) => add_constant(terms, &format!("zeros.{n}"), || Tensor::f32(&[n], vec![0.0; n])),
        }
    }
}

/// What a spike train denotes stands where the train does, whoever asks for it.
fn origin_of(terms: &Terms, op: Op, args: &[Id], origin: u32) -> u32 {
    let train = args.first().filter(|_| op == Op::Spike(SpikeOp::Decode));
    train.map_or(origin, |train| terms[*train].data.origin)
}

/// An equality: what matches `left` equals what `right` builds, where it builds anything.
#[derive(Clone, Copy)]
pub struct RewriteRule {
    /// What the rule is called; no other rule of its table has this name.
    pub name: &'static str,
    /// The left-hand side, as `Pattern::parse` reads it.
    pub left: &'static str,
    /// The right-hand side; `None` where the rule does not hold for this match.
    pub right: fn(&Match<'_>) -> Option<Expr>,
}

impl std::fmt::Debug for RewriteRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.left)
    }
}

/// The right-hand side of a rule, with the pattern that names what a substitution binds.
struct Right {
    pattern: Pattern,
    build: fn(&Match<'_>) -> Option<Expr>,
}

impl Applier<Term, Facts> for Right {
    fn apply_one(
        &self,
        terms: &mut Terms,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Term>>,
        _: Symbol,
    ) -> Vec<Id> {
        let Some(expr) = (self.build)(&self.pattern.matched(terms, class, subst)) else { return Vec::new() };
        let origin = terms[class].data.origin;
        let id = expr.add(terms, origin);
        // egg takes an empty list for "nothing new".
        if terms.union(class, id) { vec![id] } else { Vec::new() }
    }
}

impl RewriteRule {
    /// The rule as egg runs it.
    fn rewrite(&self) -> Rewrite<Term, Facts> {
        let pattern = Pattern::parse(self.left);
        let right = Right { pattern: pattern.clone(), build: self.right };
        Rewrite::new(self.name, pattern, right)
            .unwrap_or_else(|e| unreachable!("a right side asks for no variables: {e}"))
    }
}

/// When to give up on rules that do not come to an end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rounds of matching and applying.
    pub rounds: usize,
    /// Terms.
    pub terms: usize,
}

/// The most rounds. GPT-2 of any depth needs about eight: rounds grow with the depth of a pattern, not of the network.
pub const MAX_ROUNDS: usize = 40;

/// The most terms for each class at the start.
pub const MAX_GROWTH: usize = 100;

impl Limits {
    /// For an e-graph as it is before the first rule.
    pub fn of(terms: &Terms) -> Self {
        Self { rounds: MAX_ROUNDS, terms: terms.number_of_classes() * MAX_GROWTH + 1000 }
    }
}

/// Applies `rules` until they say nothing new. Returns the e-graph and the number of rounds, the last of which found nothing.
///
/// # Errors
/// A limit was reached: the rules did not come to an end.
pub fn saturate(terms: Terms, rules: &[RewriteRule], limits: Limits) -> Result<(Terms, usize), Diagnostic> {
    let rewrites: Vec<Rewrite<Term, Facts>> = rules.iter().map(RewriteRule::rewrite).collect();
    let runner = Runner::<Term, Facts>::new(Facts::default())
        .with_egraph(terms)
        .with_iter_limit(limits.rounds)
        .with_node_limit(limits.terms)
        .with_time_limit(Duration::MAX)
        .with_scheduler(SimpleScheduler)
        .run(&rewrites);
    match runner.stop_reason {
        Some(StopReason::Saturated) => Ok((runner.egraph, runner.iterations.len())),
        Some(
            StopReason::IterationLimit(_) | StopReason::NodeLimit(_) | StopReason::TimeLimit(_) | StopReason::Other(_),
        )
        | None => Err(endless(&runner.egraph, runner.iterations.len())),
    }
}

fn endless(terms: &Terms, rounds: usize) -> Diagnostic {
    let size = terms.total_size();
    Diagnostic::new("", format!("rewriting did not come to an end: {size} terms after {rounds} rounds"))
        .code(ErrorCode::REWRITE)
        .note("this is a defect of snnc's rules; please report the model")
}
