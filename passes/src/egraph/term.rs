//! The language of the e-graph: the IR's own operations, and what is known of every class of equal values.
//!
//! A term is an `Op` and its operand classes; there is no second vocabulary. What is known (`Fact`) is computed by egg as terms
//! are added and classes merge.

use super::sampling::{self, Operand, Pointwise};
use egg::{Analysis, DidMerge, EGraph, Id, Language};
use indexmap::IndexSet;
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::{Op, Shape, Tensor, Type, Weight, WeightId, eval};
use std::collections::HashMap;
use std::sync::Arc;

/// An operation applied to classes of equal values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term {
    /// The operation with its attributes.
    pub op: Op,
    /// The classes of its operands.
    pub args: Vec<Id>,
}

impl Language for Term {
    /// The operation's name: patterns know operations by it.
    type Discriminant = &'static str;

    fn discriminant(&self) -> Self::Discriminant {
        self.op.name()
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

/// What is known of all members of a class.
#[derive(Clone, Debug)]
pub struct Fact {
    /// The type of the value.
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

/// Computes facts; owns the constants and the operations that terms name.
#[derive(Debug, Default)]
pub struct Facts {
    /// Constants, by the number in `Op::Leaf(LeafOp::Weight)`.
    pub weights: Vec<Weight>,
    /// Every operation of the e-graph, so that a label of a pattern can bind one by its number.
    pub(super) ops: IndexSet<Op>,
    /// Origin of the terms that are being added.
    pub(super) origin: u32,
    /// How far samples of an activation function may be from a known curve.
    pub tolerance: f64,
    /// The class of every number that is known, by its bits.
    numbers: HashMap<u32, Id>,
}

impl Facts {
    /// About terms that name these constants; `tolerance` is for recognising activation functions.
    pub fn new(weights: Vec<Weight>, tolerance: f64) -> Self {
        Self { weights, tolerance, ..Self::default() }
    }
}

/// An e-graph of the IR's terms.
pub type Terms = EGraph<Term, Facts>;

impl Analysis<Term> for Facts {
    type Data = Fact;

    fn make(terms: &mut Terms, term: &Term, _id: Id) -> Fact {
        terms.analysis.ops.insert(term.op);
        let types: Vec<Type> = term.args.iter().map(|&arg| terms[arg].data.ty).collect();
        let (ty, scalar) = match term.op {
            Op::Leaf(LeafOp::Weight(WeightId(id))) => {
                let tensor = &terms.analysis.weights[id as usize].tensor;
                (Type::tensor(tensor.elem(), Shape::fixed(tensor.sizes())), tensor.scalar())
            }
            op => {
                let ty = op.infer(&types).unwrap_or_else(|e| panic!("a rule built an ill-typed `{op}`: {e}"));
                (ty, scalar_of(terms, term))
            }
        };
        let constant = is_constant(terms, term);
        let pointwise = if constant { Vec::new() } else { pointwise(terms, term) };
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
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    }
}

/// Every way to see `term` as a function of one class.
fn pointwise(terms: &Terms, term: &Term) -> Vec<Pointwise> {
    let operands: Vec<Operand<'_>> = term
        .args
        .iter()
        .map(|&arg| {
            let class = terms.find(arg);
            let Fact { scalar, ref pointwise, .. } = terms[class].data;
            Operand { class, scalar, ways: pointwise }
        })
        .collect();
    sampling::pointwise(term.op, &operands, &|id| terms.find(id))
}

/// Whether a term is computed from constants alone, so that it costs nothing at run time.
pub fn is_constant(terms: &Terms, term: &Term) -> bool {
    match term.op {
        Op::Leaf(LeafOp::Weight(_)) => true,
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
            !term.args.is_empty() && term.args.iter().all(|&arg| terms[arg].data.constant)
        }
    }
}

/// Adds a term on behalf of a rule that matched at a class with this origin.
pub(super) fn add_from(terms: &mut Terms, op: Op, args: Vec<Id>, origin: u32) -> Id {
    terms.analysis.origin = origin;
    let id = terms.add(Term { op, args });
    terms.analysis.origin = 0;
    id
}

/// The constant of this name, made if there is none.
pub(super) fn add_constant(terms: &mut Terms, name: &str, make: impl FnOnce() -> Tensor) -> Id {
    let weights = &mut terms.analysis.weights;
    let id = weights.iter().position(|weight| weight.name == name).unwrap_or_else(|| {
        weights.push(Weight { name: name.to_string(), tensor: Arc::new(make()) });
        weights.len() - 1
    });
    add_from(terms, Op::Leaf(LeafOp::Weight(WeightId(id as u32))), Vec::new(), 0)
}
