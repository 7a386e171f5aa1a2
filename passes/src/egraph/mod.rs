//! E-graphs over the IR's own operations: the term language, what is known of every class, rules, the runner.
//!
//! A term is an `Op` and its operand classes; there is no second vocabulary. Rules are patterns over operation names
//! with a function that builds the right-hand side. Everything runs in a fixed order, so the same graph gives the same
//! result; limits are counts, and reaching one is an error.

pub mod extract;
pub mod pattern;
pub mod rule;
pub mod sampling;

use crate::cost;
use egg::{Analysis, DidMerge, EGraph, Id, Language};
use extract::Price;
use indexmap::IndexMap;
use rule::{Rule, saturate};
use sampling::Pointwise;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::{Builder, Diagnostic, Graph, Op, Stage, Tensor, Type, Value, Weight, WeightId, eval};
use std::collections::HashMap;
use std::mem::Discriminant;
use std::sync::Arc;

/// An operation applied to classes of equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    pub op: Op,
    pub args: Vec<Id>,
}

impl Language for Term {
    type Discriminant = Discriminant<Op>;

    fn discriminant(&self) -> Self::Discriminant {
        std::mem::discriminant(&self.op)
    }

    fn matches(&self, other: &Self) -> bool {
        self.op == other.op && self.args.len() == other.args.len()
    }

    fn children(&self) -> &[Id] {
        &self.args
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.args
    }
}

/// Operations that a term does for one token, as the cost pass counts them.
pub fn effort(terms: &Terms, term: &Term) -> u64 {
    let data = |id: &Id| terms[*id].data.ty;
    let args: Vec<Type> = term.args.iter().map(data).collect();
    term.op.infer(&args).map_or(0, |ty| cost::effort(term.op, &args, ty))
}

/// What is known of all members of a class.
#[derive(Clone, Debug)]
pub struct Fact {
    pub ty: Type,
    /// The value, where it is one number known now.
    pub scalar: Option<f32>,
    /// Depends on constants only.
    pub constant: bool,
    /// Ways to see the class as a function of one other class, element by element.
    pub pointwise: Vec<Pointwise>,
    /// Index of the ONNX node it comes from; 0 if none.
    pub origin: u32,
}

/// Computes facts; owns the constants that terms name.
#[derive(Debug)]
pub struct Facts {
    pub weights: Vec<Weight>,
    /// Origin of the terms that are being added.
    origin: u32,
    /// How far samples of an activation function may be from a known curve.
    pub tolerance: f64,
    /// The class of every number that is known, by its bits.
    numbers: HashMap<u32, Id>,
}

pub type Terms = EGraph<Term, Facts>;

impl Analysis<Term> for Facts {
    type Data = Fact;

    fn make(terms: &mut Terms, term: &Term, _id: Id) -> Fact {
        let types: Vec<Type> = term.args.iter().map(|&arg| terms[arg].data.ty).collect();
        let (ty, scalar) = match term.op {
            Op::Leaf(LeafOp::Weight(WeightId(id))) => {
                let tensor = &terms.analysis.weights[id as usize].tensor;
                (Type::tensor(tensor.elem(), snnc_ir::Shape::fixed(tensor.sizes())), tensor.scalar())
            }
            op => {
                let ty = op.infer(&types).unwrap_or_else(|e| panic!("a rule built an ill-typed `{op}`: {e}"));
                (ty, scalar_of(terms, term))
            }
        };
        let constant = is_constant(terms, term);
        let pointwise = if constant { Vec::new() } else { sampling::pointwise(terms, term) };
        Fact { ty, scalar, constant, pointwise, origin: terms.analysis.origin }
    }

    fn merge(&mut self, a: &mut Fact, b: Fact) -> DidMerge {
        debug_assert_eq!(a.ty, b.ty, "equal values have equal types");
        let mut merged = DidMerge(false, false);
        if a.scalar.is_none() && b.scalar.is_some() {
            a.scalar = b.scalar;
            merged.0 = true;
        }
        if !a.constant && b.constant {
            a.constant = true;
            merged.0 = true;
        }
        if a.origin == 0 && b.origin != 0 {
            a.origin = b.origin;
        }
        let known = a.pointwise.len();
        for way in b.pointwise {
            if a.pointwise.len() < sampling::MAX_ROOTS && a.pointwise.iter().all(|have| have.root != way.root) {
                a.pointwise.push(way);
            }
        }
        merged.0 |= a.pointwise.len() > known;
        merged.1 = true;
        merged
    }

    /// One class for one number, however it is computed: else products of ones would be new for ever.
    fn modify(terms: &mut Terms, id: Id) {
        let fact = &terms[id].data;
        let (Some(number), true) = (fact.scalar, fact.ty.shape().rank() == 0) else { return };
        let first = *terms.analysis.numbers.entry(number.to_bits()).or_insert(id);
        if terms.find(first) != terms.find(id) {
            terms.union(first, id);
        }
    }
}

/// The number that arithmetic on known numbers gives.
fn scalar_of(terms: &Terms, term: &Term) -> Option<f32> {
    let arg = |i: usize| terms[term.args[i]].data.scalar;
    match term.op {
        Op::Array(ArrayOp::Unary(kind)) => arg(0).map(|x| eval::unary(kind, x)),
        Op::Array(ArrayOp::Binary(kind)) => Some(eval::binary(kind, arg(0)?, arg(1)?)),
        Op::Array(ArrayOp::Reshape(_)) | Op::Array(ArrayOp::Transpose(_)) => arg(0),
        _ => None,
    }
}

/// The cheapest graph of `stage` that `rules` prove equal to `graph`; `tolerance` is for recognising activation functions.
///
/// # Errors
/// Whatever no term of `stage` was found for, in the words of `stuck`; rules that did not come to an end.
pub fn rewrite(
    graph: &Graph,
    rules: &[Rule],
    tolerance: f64,
    price: Price<'_>,
    stage: Stage,
    stuck: impl Fn(&Terms, &[Id]) -> Diagnostics,
) -> Result<Graph, Diagnostics> {
    let (mut terms, classes) = from_graph(graph, tolerance);
    saturate(&mut terms, rules)?;
    let class = |(name, value): &(String, Value)| (name.clone(), terms.find(classes[value.index()]));
    let outputs: Vec<(String, Id)> = graph.outputs.iter().map(class).collect();
    let roots: Vec<Id> = outputs.iter().map(|(_, id)| *id).collect();
    let choice = extract::extract(&terms, &roots, price).map_err(|classes| stuck(&terms, &classes))?;
    to_graph(&terms, &choice, &outputs, stage, graph).map_err(Diagnostics::from)
}

/// Whether a term is computed from constants alone, so that it costs nothing at run time.
pub fn is_constant(terms: &Terms, term: &Term) -> bool {
    match term.op {
        Op::Leaf(LeafOp::Weight(_)) => true,
        _ => !term.args.is_empty() && term.args.iter().all(|&arg| terms[arg].data.constant),
    }
}

/// The terms of a graph, and the class of each of its values.
fn from_graph(graph: &Graph, tolerance: f64) -> (Terms, Vec<Id>) {
    let mut terms = Terms::new(Facts { weights: graph.weights.clone(), origin: 0, tolerance, numbers: HashMap::new() });
    let mut classes = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        terms.analysis.origin = node.origin;
        let args = node.args.iter().map(|arg| classes[arg.index()]).collect();
        classes.push(terms.add(Term { op: node.op, args }));
    }
    terms.analysis.origin = 0;
    (terms, classes)
}

/// Adds a term on behalf of a rule that matched at a class with this origin.
pub(crate) fn add_from(terms: &mut Terms, op: Op, args: Vec<Id>, origin: u32) -> Id {
    terms.analysis.origin = origin;
    let id = terms.add(Term { op, args });
    terms.analysis.origin = 0;
    id
}

/// The constant of this name, made if there is none.
pub(crate) fn add_constant(terms: &mut Terms, name: &str, make: impl FnOnce() -> Tensor) -> Id {
    let weights = &mut terms.analysis.weights;
    let id = weights.iter().position(|weight| weight.name == name).unwrap_or_else(|| {
        weights.push(Weight { name: name.to_string(), tensor: Arc::new(make()) });
        weights.len() - 1
    });
    add_from(terms, Op::Leaf(LeafOp::Weight(WeightId(id as u32))), Vec::new(), 0)
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
                let origin = like.origins.get_index(terms[class].data.origin as usize).map_or("", String::as_str);
                builder.add(op, &args, origin)?
            }
        };
        values.insert(class, value);
    }
    let outputs = outputs.iter().map(|(name, id)| (name.clone(), values[&terms.find(*id)])).collect();
    Ok(builder.finish(outputs))
}
