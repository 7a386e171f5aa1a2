//! Chooses one term for every class that the outputs need, by price, shared classes counted once.
//!
//! Greedy over the DAG: a class's cost is the set of classes below it; terms are tried until no class finds a cheaper
//! set. That is not optimal in theory; on these graphs, where alternatives are local, it is.
//!
//! egg's own extractor adds up the costs of operands, so it counts a shared class once per use: a residual stream would cost
//! twice as much after every block (`tests` shows a choice that it gets wrong). Sets share their parts (`Below`), so that a
//! class adds a path to what is there and no copy.

use super::term::{Term, Terms};
use egg::Id;
use indexmap::IndexMap;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;

/// What choosing a term costs, itself only. `None`: it may not be chosen.
pub type Price<'a> = &'a dyn Fn(&Terms, &Term) -> Option<u64>;

/// Prices by class: a binary trie over the bits of a class's number, whose sum every node knows. Tries share nodes.
#[derive(Clone, Debug, Default)]
struct Below(Option<Rc<Trie>>);

#[derive(Debug)]
enum Trie {
    Leaf(u64),
    Fork { sum: u64, sides: [Below; 2] },
}

/// How many parts of sets may still be made.
struct SetBudget(u64);

/// Parts of sets that one extraction makes at most: some 16 MiB a million. A chain of 2^17 nodes takes a third of them.
const PARTS_MAX: u64 = 1 << 24;

impl Below {
    fn sum(&self) -> u64 {
        match self.0.as_deref() {
            None => 0,
            Some(Trie::Leaf(price)) => *price,
            Some(Trie::Fork { sum, .. }) => *sum,
        }
    }

    /// Whether a class is among them, in a trie of this depth.
    fn has(&self, class: usize, depth: u32) -> bool {
        match self.0.as_deref() {
            None => false,
            Some(Trie::Leaf(_)) => true,
            Some(Trie::Fork { sides, .. }) => sides[class >> (depth - 1) & 1].has(class, depth - 1),
        }
    }

    /// One class.
    fn one(class: usize, price: u64, depth: u32, budget: &mut SetBudget) -> Self {
        let leaf = Self(Some(Rc::new(Trie::Leaf(price))));
        (0..depth).fold(leaf, |inner, bit| {
            let sides = if class >> bit & 1 == 0 { [inner, Self(None)] } else { [Self(None), inner] };
            Self::fork(sides, budget)
        })
    }

    fn fork(sides: [Self; 2], budget: &mut SetBudget) -> Self {
        budget.0 = budget.0.saturating_sub(1);
        Self(Some(Rc::new(Trie::Fork { sum: sides[0].sum() + sides[1].sum(), sides })))
    }

    /// Both together; a class that is in both has the price of `other`. What is the same in both is not looked at. Something of
    /// the two where the budget is spent.
    fn with(&self, other: &Self, budget: &mut SetBudget) -> Self {
        let (Some(a), Some(b)) = (&self.0, &other.0) else {
            return if self.0.is_none() { other } else { self }.clone();
        };
        if Rc::ptr_eq(a, b) || budget.0 == 0 {
            return self.clone();
        }
        match (&**a, &**b) {
            (Trie::Fork { sides: x, .. }, Trie::Fork { sides: y, .. }) => {
                let sides = [x[0].with(&y[0], budget), x[1].with(&y[1], budget)];
                let is = |known: &[Self; 2]| sides[0].same(&known[0]) && sides[1].same(&known[1]);
                if is(x) {
                    self.clone()
                } else if is(y) {
                    other.clone()
                } else {
                    Self::fork(sides, budget)
                }
            }
            (Trie::Leaf(x), Trie::Leaf(y)) if x == y => self.clone(),
            _ => other.clone(),
        }
    }

    fn same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}

/// The best term known for a class.
#[derive(Clone)]
struct BestTerm {
    depth: u32,
    term: Term,
    /// Price of every class below and including this one.
    below: Below,
    /// When it was found, in choices.
    at: u64,
}

struct Extraction<'a> {
    terms: &'a Terms,
    price: Price<'a>,
    /// By class number.
    best: Vec<Option<BestTerm>>,
    /// When a class was last tried, in choices.
    tried: Vec<u64>,
    /// Choices that were made.
    made: u64,
    /// Bits of a class number.
    bits: u32,
    budget: SetBudget,
}

/// Why nothing was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtractionError {
    /// The classes in the way: those of which no term may be chosen though all operands of one could.
    Blocked(Vec<Id>),
    /// Values are shared in so many ways that comparing choices would take all memory.
    TooEntangled,
}

/// The chosen terms, operands before users.
///
/// # Errors
/// Classes without a choice, or too many sets.
pub fn extract(terms: &Terms, outputs: &[Id], price: Price<'_>) -> Result<IndexMap<Id, Term>, ExtractionError> {
    let mut classes: Vec<Id> = terms.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    let numbers = classes.last().map_or(0, |&last| usize::from(last) + 1);
    let bits = usize::BITS - numbers.leading_zeros();
    let best = vec![None; numbers];
    let mut extraction =
        Extraction { terms, price, best, tried: vec![0; numbers], made: 1, bits, budget: SetBudget(PARTS_MAX) };
    // Rounds over all classes in order, without those of which no operand has changed.
    let users = users(terms, &classes, numbers);
    let mut waiting: BTreeSet<Id> = classes.into_iter().collect();
    let mut last = None;
    while let Some(class) = next_after(&waiting, last) {
        waiting.remove(&class);
        let before = extraction.made;
        extraction.try_class(class);
        if extraction.budget.0 == 0 {
            return Err(ExtractionError::TooEntangled);
        }
        if extraction.made > before {
            waiting.extend(&users[usize::from(class)]);
        }
        last = Some(class);
    }
    let mut chosen = IndexMap::new();
    for &output in outputs {
        extraction
            .choose(terms.find(output), &mut chosen)
            .map_err(|()| ExtractionError::Blocked(extraction.blockers(output)))?;
    }
    Ok(chosen)
}

/// The first class after another, or the first of all.
fn next_after(waiting: &BTreeSet<Id>, last: Option<Id>) -> Option<Id> {
    let after = last.and_then(|last| waiting.range((Bound::Excluded(last), Bound::Unbounded)).next());
    after.or_else(|| waiting.first()).copied()
}

/// By class number, the classes with a term that takes it.
fn users(terms: &Terms, classes: &[Id], numbers: usize) -> Vec<Vec<Id>> {
    let mut users = vec![Vec::new(); numbers];
    for &class in classes {
        for arg in terms[class].nodes.iter().flat_map(|term| &term.args) {
            let users = &mut users[usize::from(terms.find(*arg))];
            if users.last() != Some(&class) {
                users.push(class);
            }
        }
    }
    users
}

impl Extraction<'_> {
    fn of(&self, class: Id) -> Option<&BestTerm> {
        self.best[usize::from(self.terms.find(class))].as_ref()
    }

    /// Tries the terms of a class, unless no operand has changed since the last time.
    fn try_class(&mut self, class: Id) {
        let terms = self.terms;
        let since = self.tried[usize::from(class)];
        self.tried[usize::from(class)] = self.made;
        for term in &terms[class].nodes {
            let changed = |arg: &Id| self.of(*arg).is_some_and(|choice| choice.at >= since);
            if since == 0 || term.args.iter().any(changed) {
                self.try_term(class, term);
            }
        }
    }

    /// Takes `term` where it is a cheaper choice for its class than the one known.
    fn try_term(&mut self, class: Id, term: &Term) {
        let number = usize::from(class);
        let Some(own) = (self.price)(self.terms, term) else { return };
        let Some(args) = term.args.iter().map(|arg| self.of(*arg)).collect::<Option<Vec<&BestTerm>>>() else { return };
        if args.iter().any(|arg| arg.below.has(number, self.bits)) {
            return;
        }
        // A lower bound spares most sets from being merged.
        let mut budget = SetBudget(self.budget.0);
        let known = self.best[number].as_ref();
        let bound = own + args.iter().map(|arg| arg.below.sum()).max().unwrap_or(0);
        if known.is_some_and(|known| known.below.sum() < bound) {
            return;
        }
        let mut below = args.iter().fold(Below::default(), |below, arg| below.with(&arg.below, &mut budget));
        if own > 0 {
            below = below.with(&Below::one(number, own, self.bits, &mut budget), &mut budget);
        }
        let depth = 1 + args.iter().map(|arg| arg.depth).max().unwrap_or(0);
        let better = known.is_none_or(|known| (below.sum(), depth) < (known.below.sum(), known.depth));
        self.budget = budget;
        if better {
            self.best[number] = Some(BestTerm { depth, term: term.clone(), below, at: self.made });
            self.made += 1;
        }
    }

    fn choose(&self, class: Id, chosen: &mut IndexMap<Id, Term>) -> Result<(), ()> {
        let mut todo = vec![(class, false)];
        while let Some((class, ready)) = todo.pop() {
            if chosen.contains_key(&class) {
                continue;
            }
            let term = &self.of(class).ok_or(())?.term;
            if ready {
                chosen.insert(class, term.clone());
            } else {
                todo.push((class, true));
                todo.extend(term.args.iter().rev().map(|arg| (self.terms.find(*arg), false)));
            }
        }
        Ok(())
    }

    /// Classes below `output` that have no choice although all operands of one of their terms have one.
    fn blockers(&self, output: Id) -> Vec<Id> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![self.terms.find(output)];
        let mut blockers = Vec::new();
        while let Some(class) = todo.pop() {
            if self.of(class).is_some() || !seen.insert(class) {
                continue;
            }
            let args = self.terms[class].nodes.iter().flat_map(|term| &term.args);
            let without: Vec<Id> =
                args.map(|arg| self.terms.find(*arg)).filter(|arg| self.of(*arg).is_none()).collect();
            if without.is_empty() {
                blockers.push(class);
            }
            todo.extend(without);
        }
        blockers.sort_unstable();
        blockers
    }
}
