//! Chooses one term for every class that the outputs need, by price, shared classes counted once.
//!
//! Greedy over the DAG: a class's cost is the set of classes below it; terms are tried until no class finds a cheaper
//! set. That is not optimal in theory; on these graphs, where alternatives are local, it is.

use super::{Term, Terms};
use egg::Id;
use indexmap::IndexMap;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What choosing a term costs, itself only. `None`: it may not be chosen.
pub type Price<'a> = &'a dyn Fn(&Terms, &Term) -> Option<u64>;

#[derive(Clone)]
struct Cost {
    total: u64,
    depth: u32,
    term: Term,
    /// Price of every class below and including this one.
    below: Rc<BTreeMap<Id, u64>>,
}

/// The chosen terms, operands before users; or the classes in the way: those of which no term may be chosen though all
/// operands of one could.
pub fn extract(terms: &Terms, outputs: &[Id], price: Price<'_>) -> Result<IndexMap<Id, Term>, Vec<Id>> {
    let mut classes: Vec<Id> = terms.classes().map(|class| class.id).collect();
    classes.sort_unstable();
    let mut best: IndexMap<Id, Cost> = IndexMap::new();
    loop {
        let mut changed = false;
        for &class in &classes {
            for term in &terms[class].nodes {
                changed |= improve(terms, class, term, price, &mut best);
            }
        }
        if !changed {
            break;
        }
    }
    let mut chosen = IndexMap::new();
    for &output in outputs {
        choose(terms, terms.find(output), &best, &mut chosen).map_err(|()| blockers(terms, &best, output))?;
    }
    Ok(chosen)
}

/// Whether `term` is a cheaper choice for its class than the one known.
fn improve(terms: &Terms, class: Id, term: &Term, price: Price<'_>, best: &mut IndexMap<Id, Cost>) -> bool {
    let Some(own) = price(terms, term) else { return false };
    let Some(args) = term.args.iter().map(|arg| best.get(&terms.find(*arg))).collect::<Option<Vec<&Cost>>>() else {
        return false;
    };
    if args.iter().any(|arg| arg.below.contains_key(&class)) {
        return false;
    }
    // A lower bound spares most sets from being merged.
    let known = best.get(&class);
    let bound = own + args.iter().map(|arg| arg.total).max().unwrap_or(0);
    if known.is_some_and(|known| known.total < bound) {
        return false;
    }
    let mut below = BTreeMap::clone(args.iter().max_by_key(|arg| arg.below.len()).map_or(&Rc::default(), |a| &a.below));
    for arg in &args {
        below.extend(arg.below.iter().map(|(&id, &price)| (id, price)));
    }
    if own > 0 {
        below.insert(class, own);
    }
    let total = below.values().sum();
    let depth = 1 + args.iter().map(|arg| arg.depth).max().unwrap_or(0);
    let better = known.is_none_or(|known| (total, depth) < (known.total, known.depth));
    if better {
        best.insert(class, Cost { total, depth, term: term.clone(), below: Rc::new(below) });
    }
    better
}

fn choose(terms: &Terms, class: Id, best: &IndexMap<Id, Cost>, chosen: &mut IndexMap<Id, Term>) -> Result<(), ()> {
    let mut todo = vec![(class, false)];
    while let Some((class, ready)) = todo.pop() {
        if chosen.contains_key(&class) {
            continue;
        }
        let term = &best.get(&class).ok_or(())?.term;
        if ready {
            chosen.insert(class, term.clone());
        } else {
            todo.push((class, true));
            todo.extend(term.args.iter().rev().map(|arg| (terms.find(*arg), false)));
        }
    }
    Ok(())
}

/// Classes below `output` that have no choice although all operands of one of their terms have one.
fn blockers(terms: &Terms, best: &IndexMap<Id, Cost>, output: Id) -> Vec<Id> {
    let mut seen = std::collections::BTreeSet::new();
    let mut todo = vec![terms.find(output)];
    let mut blockers = Vec::new();
    while let Some(class) = todo.pop() {
        if best.contains_key(&class) || !seen.insert(class) {
            continue;
        }
        let without: Vec<Id> = terms[class]
            .nodes
            .iter()
            .flat_map(|term| term.args.iter().map(|arg| terms.find(*arg)))
            .filter(|arg| !best.contains_key(arg))
            .collect();
        if without.is_empty() {
            blockers.push(class);
        }
        todo.extend(without);
    }
    blockers.sort_unstable();
    blockers
}
