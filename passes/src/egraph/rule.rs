//! Rules, and the runner that applies them until nothing new is found.

use super::pattern::{Match, Pattern, search};
use super::{Terms, add_constant, add_from};
use egg::Id;
use snnc_ir::op::SpikeOp;
use snnc_ir::{Diagnostic, Op, Tensor};

/// A right-hand side: a class that the match found, or an operation on such.
#[derive(Clone, Debug)]
pub enum Expr {
    Class(Id),
    Op(Op, Vec<Expr>),
    Number(f32),
    /// A vector of this many zeros.
    Zeros(usize),
}

impl Expr {
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
    match (op, args) {
        (Op::Spike(SpikeOp::Decode), [train]) => terms[*train].data.origin,
        _ => origin,
    }
}

/// An equality: what matches `left` equals what `right` builds, where it builds anything.
#[derive(Clone, Copy)]
pub struct Rule {
    pub name: &'static str,
    pub left: &'static str,
    pub right: fn(&Terms, &Match) -> Option<Expr>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.left)
    }
}

/// The most rounds of matching and applying. GPT-2 of any depth needs about eight: rounds grow with the depth of a
/// pattern, not of the network.
pub const MAX_ROUNDS: usize = 40;

/// The most terms for each class at the start.
pub const MAX_GROWTH: usize = 100;

/// Applies `rules` until they say nothing new. Returns the number of rounds.
///
/// # Errors
/// A limit was reached: the rules did not come to an end.
pub fn saturate(terms: &mut Terms, rules: &[Rule]) -> Result<usize, Diagnostic> {
    let patterns: Vec<(Pattern, Rule)> = rules.iter().map(|rule| (Pattern::parse(rule.left), *rule)).collect();
    let most = terms.number_of_classes() * MAX_GROWTH + 1000;
    for round in 1..=MAX_ROUNDS {
        let before = (terms.number_of_classes(), terms.total_size());
        let mut changed = false;
        for (class, expr) in found(terms, &patterns) {
            let origin = terms[class].data.origin;
            let id = expr.add(terms, origin);
            changed |= terms.union(class, id);
            if terms.total_size() > most {
                return Err(endless(terms, round));
            }
        }
        terms.rebuild();
        if !changed && before == (terms.number_of_classes(), terms.total_size()) {
            return Ok(round);
        }
    }
    Err(endless(terms, MAX_ROUNDS))
}

fn endless(terms: &Terms, rounds: usize) -> Diagnostic {
    let size = terms.total_size();
    Diagnostic::new("", format!("rewriting did not come to an end: {size} terms after {rounds} rounds"))
        .note("this is a defect of snnc's rules; please report the model")
}

/// Every match of every rule, with what it builds, by class and then by rule.
fn found(terms: &Terms, patterns: &[(Pattern, Rule)]) -> Vec<(Id, Expr)> {
    let mut classes: Vec<Id> = terms.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    let mut found = Vec::new();
    for class in classes {
        for (pattern, rule) in patterns {
            for m in search(terms, pattern, class) {
                found.extend((rule.right)(terms, &m).map(|expr| (class, expr)));
            }
        }
    }
    found
}
