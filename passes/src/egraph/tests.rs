//! The matcher, the runner and the extractor on graphs of a few nodes.

use super::extract::{ExtractionError, extract};
use super::pattern::{Match, Pattern};
use super::rule::{Expr, Limits, RewriteRule, saturate};
use super::term::{Facts, Term, Terms};
use egg::{CostFunction, Extractor, Id, Language as _, Searcher as _};
use snnc_ir::op::Perm;
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::{Binary, Op, Tensor, Unary, Weight, WeightId};
use std::sync::Arc;

const ADD: Op = Op::Array(ArrayOp::Binary(Binary::Add));
const MUL: Op = Op::Array(ArrayOp::Binary(Binary::Mul));
const NEG: Op = Op::Array(ArrayOp::Unary(Unary::Neg));
const EXP: Op = Op::Array(ArrayOp::Unary(Unary::Exp));
const SQRT: Op = Op::Array(ArrayOp::Unary(Unary::Sqrt));

/// Terms on constants `[3, 4]`, numbered as they are asked for.
struct TermSketch(Terms);

impl TermSketch {
    fn new(constants: usize) -> Self {
        let weight = |i: usize| Weight {
            name: format!("w{i}"),
            tensor: Arc::new(Tensor::f32(&[3, 4], (0..12).map(|x| x as f32).collect())),
        };
        Self(Terms::new(Facts::new((0..constants).map(weight).collect(), 1e-5)))
    }

    fn constant(&mut self, i: u32) -> Id {
        self.0.add(Term { op: Op::Leaf(LeafOp::Weight(WeightId(i))), args: Vec::new() })
    }

    fn add(&mut self, op: Op, args: &[Id]) -> Id {
        self.0.add(Term { op, args: args.to_vec() })
    }
}

/// How often a pattern fits a class, which is rebuilt first.
fn fits(sketch: &mut TermSketch, pattern: &'static str, class: Id) -> usize {
    sketch.0.rebuild();
    let class = sketch.0.find(class);
    Pattern::parse(pattern).search_eclass(&sketch.0, class).map_or(0, |found| found.substs.len())
}

fn order(axes: &[usize]) -> Op {
    Op::Array(ArrayOp::Transpose(Perm::new(axes).expect("a permutation")))
}

#[test]
fn a_variable_that_stands_twice_is_one_class() {
    let mut s = TermSketch::new(2);
    let [x, y] = [s.constant(0), s.constant(1)];
    let [same, other] = [s.add(ADD, &[x, x]), s.add(ADD, &[x, y])];
    assert_eq!([fits(&mut s, "(add ?x ?x)", same), fits(&mut s, "(add ?x ?x)", other)], [1, 0]);
    assert_eq!(fits(&mut s, "(add ?x ?y)", same), 1);
    // Two classes that turn out equal are one.
    s.0.union(x, y);
    assert_eq!(fits(&mut s, "(add ?x ?x)", other), 1);
}

#[test]
fn a_label_binds_an_operation_and_one_that_stands_twice_is_one_operation() {
    let mut s = TermSketch::new(1);
    let x = s.constant(0);
    let turned = s.add(order(&[1, 0]), &[x]);
    let [back, same] = [s.add(order(&[1, 0]), &[turned]), s.add(order(&[0, 1]), &[turned])];
    for (class, found) in [(back, 1), (same, 0)] {
        assert_eq!(fits(&mut s, "(transpose:p (transpose:p ?x))", class), found);
        assert_eq!(fits(&mut s, "(transpose:p (transpose:q ?x))", class), 1);
    }
    let pattern = Pattern::parse("(transpose:p (transpose:q ?x))");
    let found = pattern.search_eclass(&s.0, same).expect("it fits");
    let m = pattern.matched(&s.0, same, &found.substs[0]);
    assert_eq!((m.op("p"), m.op("q"), m.class("x")), (order(&[0, 1]), order(&[1, 0]), x));
    assert!(m.has("x") && !m.has("p") && m.is_constant("x"));
}

/// One way for each term of a class: heads are names, so terms of one name differ in attributes.
#[test]
fn every_term_of_a_class_is_a_way_to_fit() {
    let mut s = TermSketch::new(2);
    let [x, y] = [s.constant(0), s.constant(1)];
    let [a, b, c] = [s.add(ADD, &[x, y]), s.add(ADD, &[y, x]), s.add(MUL, &[x, y])];
    s.0.union(a, b);
    s.0.union(a, c);
    assert_eq!(
        [fits(&mut s, "(add ?x ?y)", a), fits(&mut s, "(mul ?x ?y)", a), fits(&mut s, "(sub ?x ?y)", a)],
        [2, 1, 0]
    );
    // Terms in terms multiply.
    let root = s.add(NEG, &[a]);
    assert_eq!(fits(&mut s, "(neg (add ?x ?y))", root), 2);
    let both = s.add(MUL, &[a, a]);
    assert_eq!(fits(&mut s, "(mul (add ?x ?y) (add ?v ?w))", both), 4);
    // And a limit cuts them off.
    let pattern = Pattern::parse("(mul (add ?x ?y) (add ?v ?w))");
    assert_eq!(pattern.search_with_limit(&s.0, 3).iter().map(|found| found.substs.len()).sum::<usize>(), 3);
}

#[test]
fn matches_come_in_the_order_of_classes() {
    let mut s = TermSketch::new(3);
    let leaves = [s.constant(0), s.constant(1), s.constant(2)];
    let roots: Vec<Id> = leaves.iter().map(|&leaf| s.add(NEG, &[leaf])).collect();
    s.0.rebuild();
    let found: Vec<Id> = Pattern::parse("(neg ?x)").search(&s.0).iter().map(|found| found.eclass).collect();
    assert_eq!(found, roots);
}

#[test]
#[should_panic(expected = "goes on after its end")]
fn a_pattern_is_one_term() {
    Pattern::parse("(add ?x ?y) ?z");
}

#[test]
#[should_panic(expected = "where a term should stand")]
fn a_pattern_has_no_bare_words() {
    Pattern::parse("(add ?x y)");
}

fn class(m: &Match<'_>, name: &str) -> Expr {
    Expr::Class(m.class(name))
}

#[rustfmt::skip]
const COMMUTE: RewriteRule = RewriteRule { name: "commute", left: "(add ?a ?b)", right: |m| Some(Expr::op(ADD, [class(m, "b"), class(m, "a")])) };
#[rustfmt::skip]
const TWICE: RewriteRule = RewriteRule { name: "twice", left: "(neg (neg ?x))", right: |m| Some(class(m, "x")) };
#[rustfmt::skip]
const REFUSES: RewriteRule = RewriteRule { name: "refuses", left: "(add ?a ?b)", right: |_| None };
/// Not true, and so without an end: every product has a factor more.
#[rustfmt::skip]
const GROWS: RewriteRule = RewriteRule { name: "grows", left: "(mul ?x ?y)", right: |m| Some(Expr::op(MUL, [Expr::op(MUL, [class(m, "x"), class(m, "y")]), Expr::op(NEG, [class(m, "y")])])) };

const MANY: Limits = Limits { rounds: 20, terms: 1000 };

#[test]
fn rules_run_until_they_say_nothing_new() {
    let mut s = TermSketch::new(2);
    let [x, y] = [s.constant(0), s.constant(1)];
    let sum = s.add(ADD, &[x, y]);
    let root = s.add(NEG, &[sum]);
    let root = s.add(NEG, &[root]);
    let turned = s.add(ADD, &[y, x]);
    let (terms, rounds) = saturate(s.0, &[COMMUTE, TWICE], MANY).expect("they come to an end");
    assert_eq!((terms.find(sum), terms.find(sum)), (terms.find(root), terms.find(turned)));
    // The last round finds nothing.
    assert_eq!(rounds, 2);
}

#[test]
fn a_rule_that_refuses_changes_nothing() {
    let mut s = TermSketch::new(2);
    let [x, y] = [s.constant(0), s.constant(1)];
    s.add(ADD, &[x, y]);
    s.0.rebuild();
    let before = (s.0.number_of_classes(), s.0.total_size());
    let (terms, rounds) = saturate(s.0, &[REFUSES], MANY).expect("there is nothing to do");
    assert_eq!((before, 1), ((terms.number_of_classes(), terms.total_size()), rounds));
}

#[test]
fn rules_without_an_end_meet_a_limit() {
    let grown = |limits: Limits| {
        let mut s = TermSketch::new(2);
        let [x, y] = [s.constant(0), s.constant(1)];
        s.add(MUL, &[x, y]);
        match saturate(s.0, &[GROWS], limits) {
            Ok((_, rounds)) => panic!("it grows for ever, and came to an end after {rounds} rounds"),
            Err(error) => error.to_string(),
        }
    };
    let rounds = grown(Limits { rounds: 5, ..MANY });
    assert!(rounds.contains("did not come to an end") && rounds.contains("after 5 rounds"), "{rounds}");
    let terms = grown(Limits { rounds: 1_000_000, terms: 30 });
    assert!(terms.contains("did not come to an end: 3"), "{terms}");
}

/// The price of every operation, for our extractor and for egg's.
fn price(op: Op) -> u64 {
    match op {
        MUL => 1,
        NEG => 4,
        SQRT => 5,
        _ => 2,
    }
}

struct TreeCost;

impl CostFunction<Term> for TreeCost {
    type Cost = u64;

    fn cost<C: FnMut(Id) -> u64>(&mut self, term: &Term, mut costs: C) -> u64 {
        term.fold(price(term.op), |sum, id| sum + costs(id))
    }
}

/// `x y` with `x = y = -w`, or `sqrt w`: as a graph the product costs 1 + 4 + 2, its root 5 + 2. A tree has `-w` twice.
#[test]
fn shared_classes_are_paid_for_once() {
    let mut s = TermSketch::new(1);
    let w = s.constant(0);
    let shared = s.add(NEG, &[w]);
    let product = s.add(MUL, &[shared, shared]);
    let root = s.add(SQRT, &[w]);
    let root = s.add(NEG, &[root]);
    s.0.union(product, root);
    s.0.rebuild();
    // 7 as a graph against 11.
    let chosen = extract(&s.0, &[root], &|_, term| Some(price(term.op))).expect("all terms may be chosen");
    assert_eq!(chosen[&s.0.find(root)].op, MUL);
    // egg's: 13 against 11.
    assert_eq!(Extractor::new(&s.0, TreeCost).find_best_node(root).op, NEG);
}

/// Chains of doublings are sets as large as their length, not as two to its power.
#[test]
fn a_long_chain_of_shared_classes_is_extracted() {
    let mut s = TermSketch::new(1);
    let mut x = s.constant(0);
    for _ in 0..5000 {
        x = s.add(MUL, &[x, x]);
    }
    s.0.rebuild();
    let chosen = extract(&s.0, &[x], &|_, term| Some(price(term.op))).expect("all terms may be chosen");
    assert_eq!(chosen.len(), 5001);
    // Operands come before users.
    assert_eq!(chosen.keys().next_back(), Some(&s.0.find(x)));
}

#[test]
fn what_may_not_be_chosen_is_named() {
    let mut s = TermSketch::new(1);
    let w = s.constant(0);
    let bad = s.add(SQRT, &[w]);
    let root = s.add(MUL, &[bad, w]);
    s.0.rebuild();
    let without = |_: &Terms, term: &Term| (term.op != SQRT).then_some(1);
    assert_eq!(extract(&s.0, &[root], &without), Err(ExtractionError::Blocked(vec![bad])));
    // Another way to the same value helps.
    let good = s.add(EXP, &[w]);
    s.0.union(bad, good);
    s.0.rebuild();
    assert_eq!(extract(&s.0, &[root], &without).map(|chosen| chosen.len()), Ok(3));
}

/// `x = 0 + x` is a circle that costs nothing more: it is never chosen.
#[test]
fn circles_are_never_chosen() {
    let mut s = TermSketch::new(2);
    let [w, zero] = [s.constant(0), s.constant(1)];
    let x = s.add(NEG, &[w]);
    let sum = s.add(ADD, &[x, zero]);
    s.0.union(x, sum);
    s.0.rebuild();
    let chosen = extract(&s.0, &[sum], &|_, term| Some(price(term.op))).expect("all terms may be chosen");
    assert_eq!(chosen[&s.0.find(sum)].op, NEG);
}
