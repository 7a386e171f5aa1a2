//! Biases of scores that fall evenly with the distance between query and key (ALiBi: Press et al. 2022), told by their numbers.
//!
//! Exporters write them as a number for each head and key position. That differs from a fall with the distance by what all scores of
//! a query have more, and softmax does not notice that.

use super::views::{Addend, TableColumn, Views, stretched};
use snnc_ir::op::ArrayOp;
use snnc_ir::types::{Dim, Shape};
use snnc_ir::{Binary, Graph, Op, Value};

/// How far a number may be from a straight line, as a share: numbers of bfloat16 are so rounded.
const NEAR: f64 = 1.0 / 128.0;

/// Parts of a sum that are looked at: a value that is added to itself again and again has twice as many each time.
const PARTS_MAX: usize = 64;

/// A bias of scores, in parts that are added.
#[derive(Debug, Default)]
pub(super) struct Bias {
    /// By place of the fixed axes of the scores: what a score loses per token of distance; empty: nothing.
    pub falls: Vec<f64>,
    /// Masks among its parts.
    pub masks: Vec<Value>,
}

/// Whether a value is made of numbers by position and perhaps masks.
pub(super) fn is_bias(graph: &Graph, views: &Views<'_>, value: Value) -> bool {
    let (mut by_position, mut seen, mut parts) = (false, 0, vec![value]);
    while let Some(part) = parts.pop() {
        let node = graph.node(part);
        seen += 1;
        if seen > PARTS_MAX {
            return false;
        }
        if views.is_positional(part) {
            by_position = true;
        } else if matches!(node.op, Op::Array(ArrayOp::Binary(Binary::Add) | ArrayOp::Reshape(_))) {
            parts.extend(&node.args);
        } else if !matches!(node.op, Op::Array(ArrayOp::CausalMask { .. })) {
            return false;
        }
    }
    by_position
}

/// A bias by position of scores of shape `scores`; none where it is no even fall with the distance.
pub(super) fn bias(graph: &Graph, views: &mut Views<'_>, value: Value, scores: &[Dim]) -> Option<Bias> {
    let mut all = Bias::default();
    let (mut seen, mut parts) = (0, vec![value]);
    while let Some(part) = parts.pop() {
        seen += 1;
        if seen > PARTS_MAX {
            return None;
        }
        match graph.node(part).op {
            Op::Array(ArrayOp::CausalMask { .. }) => all.masks.push(part),
            Op::Array(ArrayOp::Binary(Binary::Add)) if !views.is_made(part) => parts.extend(&graph.node(part).args),
            Op::Array(ArrayOp::Reshape(to)) if !views.is_made(part) => {
                // Sizes of 1 before the heads.
                let of = graph.node(part).args[0];
                let significant =
                    |shape: Shape| shape.dims().iter().copied().skip_while(|dim| *dim == Dim::Fixed(1)).collect();
                let [from, to]: [Vec<Dim>; 2] = [graph.ty(of).shape(), to].map(significant);
                parts.push(Some(of).filter(|_| from == to)?);
            }
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                let falls = by_position(graph, views, part, scores)?;
                if all.falls.is_empty() {
                    all.falls = falls;
                } else {
                    all.falls.iter_mut().zip(&falls).for_each(|(sum, fall)| *sum += fall);
                }
            }
        }
    }
    all.falls.iter().all(|fall| *fall >= 0.0).then_some(all)
}

/// By place of the fixed axes of scores: how much more a score is, per position of its key; empty where it depends on the query alone.
fn by_position(graph: &Graph, views: &mut Views<'_>, value: Value, scores: &[Dim]) -> Option<Vec<f64>> {
    if !views.is_positional(value) {
        return None;
    }
    let shape = graph.ty(value).shape();
    let (view, [out @ .., Dim::Tokens]) = (views.get(value).cloned()?, scores) else { return None };
    let own = match shape.dims() {
        [.., Dim::Tokens, Dim::Fixed(1)] => return Some(Vec::new()),
        [own @ .., Dim::Tokens] => own,
        _ => return None,
    };
    let entries = view.entries();
    stretched(own, out)?
        .into_iter()
        .map(|place| {
            let &[Addend { channel, factor, by: None }] = entries[place].as_slice() else { return None };
            let column = views.column(TableColumn { table: view.base, column: channel })?;
            Some(factor * slope(&column)?)
        })
        .collect()
}

/// The slope of numbers on a straight line.
fn slope(numbers: &[f64]) -> Option<f64> {
    let (&first, &last) = (numbers.first()?, numbers.last()?);
    let slope = (last - first) / (numbers.len() - 1).max(1) as f64;
    let near = |(i, x): (usize, &f64)| (x - first - slope * i as f64).abs() <= NEAR * (slope * i as f64).abs();
    numbers.iter().enumerate().all(near).then_some(slope)
}
