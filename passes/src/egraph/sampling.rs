//! Recognises activation functions by what they compute, not by how they are written.
//!
//! A class that is built from one other class (its *root*) by arithmetic with known numbers is a function of one
//! variable. Its values at fixed points are carried along as a fact of the class; where they are those of a known
//! curve, the class is that curve of its root.

use egg::Id;
use snnc_ir::eval::{binary, unary};
use snnc_ir::op::ArrayOp;
use snnc_ir::{Binary, Curve, Op};
use std::rc::Rc;

/// Values of a class as a function of `root`, at the points of `grid`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointwise {
    /// The class that is the variable.
    pub root: Id,
    /// Values at the points of the grid.
    pub samples: Rc<Vec<f64>>,
}

/// Ways to see one class that are kept. The chain of a tanh GELU, the longest there is, needs five.
pub const MAX_ROOTS: usize = 8;

/// Exporters write the constants of a curve in f32, so samples differ from the exact curve by that much; the closest two
/// known curves (GELU by tanh and by erf) differ by 5e-4.
pub const TOLERANCE: f64 = 2e-5;

/// The same where constants were rounded to codes of eight bits.
pub const TOLERANCE_OF_CODES: f64 = 1e-2;

/// Points on both sides of 0, dense where curves bend, up to where they are straight.
fn grid() -> impl Iterator<Item = f64> {
    (-32..32).map(|i| {
        let x = (f64::from(i) + 0.5) / 32.0;
        9.0 * x * x.abs() + 0.5 * x
    })
}

/// What is known of an operand.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Its class.
    pub class: Id,
    /// The number that it is, where that is known.
    pub scalar: Option<f32>,
    /// Ways to see it as a function of one class.
    pub ways: &'a [Pointwise],
}

/// Every way to see `op` of these operands as a function of one class; `find` says which class a root is now.
pub fn pointwise(op: Op, args: &[Operand<'_>], find: &dyn Fn(Id) -> Id) -> Vec<Pointwise> {
    let apply = |ways: Vec<Pointwise>, f: &dyn Fn(f64) -> f64| -> Vec<Pointwise> {
        let map = |way: Pointwise| Pointwise {
            root: way.root,
            samples: Rc::new(way.samples.iter().map(|&x| f(x)).collect()),
        };
        ways.into_iter().map(map).collect()
    };
    match op {
        Op::Array(ArrayOp::Unary(kind)) => apply(ways(&args[0]), &|x| unary(kind, x)),
        Op::Array(ArrayOp::Binary(kind)) => {
            let scalar = |i: usize| args[i].scalar.map(f64::from);
            match (scalar(0), scalar(1)) {
                (None, Some(b)) => apply(ways(&args[0]), &|a| binary(kind, a, b)),
                (Some(a), None) => apply(ways(&args[1]), &|b| binary(kind, a, b)),
                (None, None) => join(kind, &ways(&args[0]), &ways(&args[1]), find),
                (Some(_), Some(_)) => Vec::new(),
            }
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => Vec::new(),
    }
}

/// An operand's own ways, deepest root first, and the operand itself as a variable.
fn ways(operand: &Operand<'_>) -> Vec<Pointwise> {
    let mut ways = operand.ways.to_vec();
    ways.truncate(MAX_ROOTS - 1);
    ways.push(Pointwise { root: operand.class, samples: Rc::new(grid().collect()) });
    ways
}

/// Two functions of the same variable make one.
fn join(kind: Binary, a: &[Pointwise], b: &[Pointwise], find: &dyn Fn(Id) -> Id) -> Vec<Pointwise> {
    let pair = |a: &Pointwise| {
        let b = b.iter().find(|b| find(b.root) == find(a.root))?;
        let samples = a.samples.iter().zip(b.samples.iter()).map(|(&a, &b)| binary(kind, a, b)).collect();
        Some(Pointwise { root: a.root, samples: Rc::new(samples) })
    };
    a.iter().filter_map(pair).collect()
}

/// The known curve that these samples are of: the closest, if it is close enough.
pub fn curve_of(way: &Pointwise, tolerance: f64) -> Option<Curve> {
    let error = |curve: Curve| {
        let one = |(x, &y): (f64, &f64)| (curve.at(x) - y).abs() / (1.0 + x.abs());
        grid().zip(way.samples.iter()).map(one).fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) })
    };
    let curves = Curve::ALL.into_iter().filter(|curve| *curve != Curve::Identity).map(|curve| (error(curve), curve));
    let (error, curve) = curves.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (error <= tolerance).then_some(curve)
}
