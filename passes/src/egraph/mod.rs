//! E-graphs over the IR's own operations: a graph becomes terms, rules add equal terms, the cheapest are a graph again.
//!
//! egg does it: its e-graph holds the terms (`term`), its runner applies the rules (`rule`), whose left-hand sides are searchers
//! of our own (`pattern`), since attributes are part of an operation here and not of its name. Extraction is ours (`extract`),
//! because values are shared and egg's counts them once per use. Everything runs in a fixed order, so the same graph gives the
//! same result; limits are counts, and reaching one is an error.

pub mod extract;
pub mod pattern;
pub mod rule;
pub mod sampling;
pub mod term;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod theorems;

use crate::cost;
use egg::Id;
use extract::{ExtractionError, Price};
use indexmap::IndexMap;
use rule::{Limits, RewriteRule, saturate};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::LeafOp;
use snnc_ir::{Builder, Diagnostic, ErrorCode, Graph, Op, Stage, Type, Value, WeightId};
use term::{Facts, Term, Terms};

/// The cheapest graph of `stage` that `rules` prove equal to `graph`; `tolerance` is for recognising activation functions.
///
/// # Errors
/// Whatever no term of `stage` was found for, in the words of `stuck`; rules that did not come to an end.
pub fn rewrite(
    graph: &Graph,
    rules: &[RewriteRule],
    tolerance: f64,
    price: Price<'_>,
    stage: Stage,
    stuck: impl Fn(&Terms, &[Id]) -> Diagnostics,
) -> Result<Graph, Diagnostics> {
    let (terms, classes) = from_graph(graph, tolerance);
    let limits = Limits::of(&terms);
    let (terms, _) = saturate(terms, rules, limits)?;
    let class = |(name, value): &(String, Value)| (name.clone(), terms.find(classes[value.index()]));
    let outputs: Vec<(String, Id)> = graph.outputs.iter().map(class).collect();
    let roots: Vec<Id> = outputs.iter().map(|(_, id)| *id).collect();
    let choice = extract::extract(&terms, &roots, price).map_err(|error| match error {
        ExtractionError::Blocked(classes) => stuck(&terms, &classes),
        ExtractionError::TooEntangled => entangled(graph),
    })?;
    to_graph(&terms, &choice, &outputs, stage, graph).map_err(Diagnostics::from)
}

fn entangled(graph: &Graph) -> Diagnostics {
    let message = format!("values of {} nodes are shared in too many ways to compare what is equal", graph.nodes.len());
    Diagnostic::new("", message)
        .code(ErrorCode::REWRITE)
        .note("a spiking program also runs as it is, with --stepped")
        .into()
}

/// The class of every output of `graph` once `rules` have nothing new to say: outputs of one class are equal by these rules.
///
/// # Errors
/// Rules that did not come to an end.
pub fn output_classes(graph: &Graph, rules: &[RewriteRule], tolerance: f64) -> Result<Vec<Id>, Diagnostics> {
    let (terms, classes) = from_graph(graph, tolerance);
    let limits = Limits::of(&terms);
    let (terms, _) = saturate(terms, rules, limits)?;
    Ok(graph.outputs.iter().map(|(_, value)| terms.find(classes[value.index()])).collect())
}

/// Operations that a term does for one token, as the cost pass counts them.
pub fn effort(terms: &Terms, term: &Term) -> u64 {
    let data = |id: &Id| terms[*id].data.ty;
    let args: Vec<Type> = term.args.iter().map(data).collect();
    term.op.infer(&args).map_or(0, |ty| cost::effort(term.op, &args, ty))
}

/// The terms of a graph, and the class of each of its values.
pub fn from_graph(graph: &Graph, tolerance: f64) -> (Terms, Vec<Id>) {
    let mut terms = Terms::new(Facts::new(graph.weights.clone(), tolerance));
    let mut classes = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let args = node.args.iter().map(|arg| classes[arg.index()]).collect();
        classes.push(term::add_from(&mut terms, node.op, args, node.origin));
    }
    (terms, classes)
}

/// The graph whose outputs are the chosen terms of `outputs`, in `like`'s context and with its origins.
fn to_graph(
    terms: &Terms,
    choice: &IndexMap<Id, Term>,
    outputs: &[(String, Id)],
    stage: Stage,
    like: &Graph,
) -> Result<Graph, Diagnostic> {
    let mut builder = Builder::new(stage, like.context);
    let mut values: IndexMap<Id, Value> = IndexMap::new();
    for (&class, term) in choice {
        let value = match term.op {
            Op::Leaf(LeafOp::Weight(WeightId(id))) => {
                let weight = &terms.analysis.weights[id as usize];
                builder.weight(&weight.name, weight.tensor.clone())
            }
            op => {
                let args: Vec<Value> = term.args.iter().map(|arg| values[&terms.find(*arg)]).collect();
                let origin = like.origins.get_index(terms[class].data.origin as usize).cloned().unwrap_or_default();
                builder.add(op, &args, origin)?
            }
        };
        values.insert(class, value);
    }
    let outputs = outputs.iter().map(|(name, id)| (name.clone(), values[&terms.find(*id)])).collect();
    Ok(builder.finish(outputs))
}
