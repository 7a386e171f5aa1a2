//! Values with heads and tokens on one axis: multi-query attention that takes the heads of all queries as more tokens.
//!
//! The IR's axes are either fixed or the tokens. Such a value is kept with its axes apart until the file splits them again;
//! what is done to it in between is done to all heads alike.

use super::constants::Constant;
use super::importer::Importer;
use super::shapes::{fixed, reshaped_dims};
use super::value::{ImportError, ImportValue, LiveValue, MergedValue};
use crate::evaluate::shape_ops::reshape_sizes;
use crate::model::{Attribute, OnnxNode};
use snnc_ir::Binary;
use snnc_ir::types::Dim;

impl Importer<'_> {
    /// `x` in a shape of which an axis holds several of its own; `None` where the sizes are no products of neighbours.
    pub(super) fn merged_axes(
        &mut self,
        node: &OnnxNode,
        x: LiveValue,
        all: &[Vec<usize>],
    ) -> Result<Option<ImportValue>, ImportError> {
        let mut open: Vec<Dim> = x.dims.iter().copied().filter(|dim| *dim != Dim::Fixed(1)).rev().collect();
        let size = |dim: Dim, k: usize| dim.size(self.counts[k], 0);
        let (mut own, mut groups) = (Vec::new(), Vec::new());
        for axis in 0..all.first().map_or(0, Vec::len) {
            let mut left: Vec<usize> = all.iter().map(|sizes| sizes[axis]).collect();
            let before = own.len();
            while left.iter().any(|&size| size != 1) {
                let Some(dim) = open.pop() else { return Ok(None) };
                let divides = |dim: Dim| (0..left.len()).all(|k| left[k].is_multiple_of(size(dim, k)));
                // A fixed axis may go to two axes: the outer part of it here, the rest to the next.
                let part = match (dim, left[0]) {
                    (dim, _) if divides(dim) => dim,
                    (Dim::Fixed(whole), outer) if left.iter().all(|&size| size == outer) => {
                        let Some(rest) =
                            (whole as usize).checked_div(outer).filter(|rest| rest * outer == whole as usize)
                        else {
                            return Ok(None);
                        };
                        open.push(fixed(rest)?);
                        fixed(outer)?
                    }
                    _ => return Ok(None),
                };
                left.iter_mut().enumerate().for_each(|(k, left)| *left /= size(part, k));
                own.push(part);
            }
            groups.push(own.len() - before);
        }
        if !open.is_empty() {
            return Ok(None);
        }
        let value = self.reshaped(node, x, own)?;
        Ok(Some(ImportValue::Merged(MergedValue { value, groups })))
    }

    /// An operator on such a value, if it does to every head what it does to all.
    pub(super) fn on_merged_axes(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let (Some(ImportValue::Merged(x)), second) = (at(0), at(1)) else { return self.merged_second(node, inputs) };
        let same = |value: LiveValue| Ok(vec![ImportValue::Merged(MergedValue { value, groups: x.groups.clone() })]);
        let by_rows = x.groups.last() == Some(&1);
        match (&*node.operator(), second) {
            ("Identity" | "Cast", _) => same(x.value.clone()),
            ("Shape", _) => self.operator(node, inputs),
            ("Reshape", _) => self.apart(node, inputs, x),
            (operator, _) if by_rows && BY_ROW.contains(&operator) && of_innermost(node, x.groups.len()) => {
                let mut inputs = inputs.to_vec();
                inputs[0] = Some(ImportValue::Live(x.value.clone()));
                let alone = along_innermost(node);
                match self.operator(&alone, &inputs)?.into_iter().next() {
                    Some(ImportValue::Live(value)) => same(value),
                    _ => Err(ImportError::Unsupported),
                }
            }
            ("MatMul", Some(ImportValue::Live(y))) if by_rows => self.merged_product(node, x, y),
            (operator, Some(ImportValue::Constant(number))) => {
                let kind = arithmetic(operator).ok_or(ImportError::Unsupported)?;
                let number = self.one_number(number)?;
                same(self.combined(node, kind, &x.value, &number)?)
            }
            (operator, Some(ImportValue::Merged(y))) if y.groups == x.groups => {
                let kind = arithmetic(operator).ok_or(ImportError::Unsupported)?;
                same(self.combined(node, kind, &x.value, &y.value)?)
            }
            _ => Err("it takes heads and tokens on one axis".into()),
        }
    }

    /// The same where only the second operand is one.
    fn merged_second(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        match (inputs, arithmetic(&node.operator())) {
            ([Some(ImportValue::Constant(number)), Some(ImportValue::Merged(x))], Some(kind)) => {
                let number = self.one_number(number)?;
                let value = self.combined(node, kind, &number, &x.value)?;
                Ok(vec![ImportValue::Merged(MergedValue { value, groups: x.groups.clone() })])
            }
            _ => Err("it takes heads and tokens on one axis".into()),
        }
    }

    fn one_number(&mut self, constant: &Constant) -> Result<LiveValue, ImportError> {
        let number = constant.uniform().ok_or("it combines heads and tokens on one axis with several numbers")?;
        Ok(self.number(number))
    }

    /// The axes of such a value in another shape: apart again, as a rule.
    fn apart(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        x: &MergedValue,
    ) -> Result<Vec<ImportValue>, ImportError> {
        let all = self.at_each(node, inputs, |call, k| reshape_sizes(call, &x.sizes(self.counts[k])))?;
        let x = x.value.clone();
        Ok(vec![match reshaped_dims(&x.dims, &all, &self.counts) {
            Ok(dims) => ImportValue::Live(self.reshaped(node, x, dims)?),
            Err(message) => self.merged_axes(node, x, &all)?.ok_or(message)?,
        }])
    }

    /// Rows of heads and tokens times the matrix that all of them meet.
    fn merged_product(
        &mut self,
        node: &OnnxNode,
        x: &MergedValue,
        y: &LiveValue,
    ) -> Result<Vec<ImportValue>, ImportError> {
        let [lead @ .., rows, _] = x.groups.as_slice() else { return Err("matrices are wanted".into()) };
        let [before @ .., k, m] = y.dims.as_slice() else { return Err("matrices are wanted".into()) };
        let own = before.iter().copied().filter(|dim| *dim != Dim::Fixed(1)).count();
        if lead.iter().sum::<usize>() != own && own > 0 || *rows == 0 {
            return Err("queries and keys have different heads".into());
        }
        let between = vec![Dim::Fixed(1); rows - 1];
        let before: Vec<Dim> = before.iter().copied().filter(|dim| *dim != Dim::Fixed(1)).collect();
        let y = self.reshaped(node, y.clone(), [&before[..], &between, &[*k, *m]].concat())?;
        let value = self.product(node, &x.value, &y)?;
        Ok(vec![ImportValue::Merged(MergedValue { value, groups: x.groups.clone() })])
    }
}

/// Operators on every row alone.
const BY_ROW: [&str; 9] = [
    "Softmax",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "com.microsoft.SimplifiedLayerNormalization",
    "Neg",
    "Exp",
    "Tanh",
    "Sigmoid",
    "Relu",
];

/// Whether an operator's axis is the last of so many.
fn of_innermost(node: &OnnxNode, rank: usize) -> bool {
    node.int("axis").is_none_or(|axis| axis == -1 || axis + 1 == rank as i64)
}

/// The same operator along the innermost axis, however many there are.
fn along_innermost(node: &OnnxNode) -> OnnxNode {
    let mut alone = node.clone();
    if let Some(axis) = alone.attributes.get_mut("axis") {
        *axis = Attribute::Int(-1);
    }
    alone
}

/// Arithmetic that an operator does element by element.
fn arithmetic(operator: &str) -> Option<Binary> {
    match operator {
        "Add" => Some(Binary::Add),
        "Sub" => Some(Binary::Sub),
        "Mul" => Some(Binary::Mul),
        "Div" => Some(Binary::Div),
        _ => None,
    }
}
