//! A node with its operands, and what all operators share: axes, shapes, broadcasting, the order of elements.

use crate::model::OnnxNode;
use crate::tensor::{OnnxArray, OnnxElem};

/// The most elements of a result: a mask of 8192 by 8192 tokens, or the embedding of the largest GPT-2.
pub const ELEMENTS_MAX: usize = 1 << 27;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvaluateError {
    /// The operator is not one of those evaluated here.
    #[error("this operator cannot be evaluated")]
    Unknown,
    /// The node asks for something that it cannot have; a sentence.
    #[error("{0}")]
    Invalid(String),
}

impl From<String> for EvaluateError {
    fn from(message: String) -> Self {
        EvaluateError::Invalid(message)
    }
}

impl From<&str> for EvaluateError {
    fn from(message: &str) -> Self {
        EvaluateError::Invalid(message.to_string())
    }
}

/// A node with its operands. `None` is an optional input that is left out.
#[derive(Clone, Copy, Debug)]
pub struct OnnxCall<'a> {
    /// The node.
    pub node: &'a OnnxNode,
    /// The version of ONNX's own operators.
    pub opset: i64,
    /// Its operands, in the file's order.
    pub inputs: &'a [Option<&'a OnnxArray>],
}

impl<'a> OnnxCall<'a> {
    /// The `i`-th operand, from 0.
    ///
    /// # Errors
    /// It is left out.
    pub fn arg(&self, i: usize) -> Result<&'a OnnxArray, String> {
        self.optional(i).ok_or_else(|| format!("input {} is missing", i + 1))
    }

    /// The `i`-th operand, from 0, if it is there.
    pub fn optional(&self, i: usize) -> Option<&'a OnnxArray> {
        self.inputs.get(i).copied().flatten()
    }

    pub(super) fn sizes(&self, i: usize) -> Result<&'a [usize], String> {
        self.arg(i).map(OnnxArray::sizes)
    }

    /// The integers of an input.
    pub fn ints(&self, i: usize) -> Result<Vec<i64>, String> {
        self.arg(i)?.ints().ok_or_else(|| format!("input {} should hold integers", i + 1))
    }

    /// Axes or sizes that are an attribute in old versions and an input in new ones.
    pub fn ints_of(&self, name: &str, input: usize) -> Result<Option<Vec<i64>>, String> {
        match (self.node.ints(name), self.optional(input)) {
            (Some(ints), _) => Ok(Some(ints.to_vec())),
            (None, Some(_)) => self.ints(input).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The attribute `axis`, counted from the front.
    pub fn axis(&self, default: i64, rank: usize) -> Result<usize, String> {
        axis(self.node.int("axis").unwrap_or(default), rank)
    }
}

/// An axis that may be counted from the back, counted from the front.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let found = from_front.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < rank);
    found.ok_or_else(|| format!("axis {axis} is outside the {rank} axes"))
}

/// The number of elements of `sizes`.
pub fn volume(sizes: &[usize]) -> Result<usize, String> {
    let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    count.ok_or_else(|| format!("a shape of {sizes:?} is too large"))
}

/// The number of elements of `sizes`, where it is small enough to be made. A size of 0 hides no large one beside it: there
/// are loops over those as well.
pub fn count(sizes: &[usize]) -> Result<usize, String> {
    let extent = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size.max(1)));
    extent.filter(|&n| n <= ELEMENTS_MAX).ok_or_else(|| format!("a shape of {sizes:?} is too large"))?;
    volume(sizes)
}

/// Sizes as a file gives them.
pub fn sizes_of(ints: &[i64]) -> Result<Vec<usize>, String> {
    let sizes: Option<Vec<usize>> = ints.iter().map(|&n| usize::try_from(n).ok()).collect();
    sizes.ok_or_else(|| format!("{ints:?} is no shape"))
}

/// NumPy's rule: align at the innermost size; sizes are equal, or one of them is 1 or missing.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |sizes: &[usize], i: usize| (i + sizes.len()).checked_sub(rank).map_or(1, |i| sizes[i]);
    let size = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        _ => Err(format!("shapes {a:?} and {b:?} do not broadcast")),
    };
    (0..rank).map(size).collect()
}

/// Row-major strides.
pub(super) fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(sizes[i]);
    }
    strides
}

/// Offsets of elements, last axis fastest: `start` plus a step for every axis.
#[derive(Debug)]
pub(super) struct ElementOffsets {
    sizes: Vec<usize>,
    steps: Vec<isize>,
    index: Vec<usize>,
    offset: isize,
    left: usize,
}

impl ElementOffsets {
    pub fn new(sizes: &[usize], steps: Vec<isize>, start: usize) -> Result<Self, String> {
        let left = count(sizes)?;
        Ok(Self { sizes: sizes.to_vec(), steps, index: vec![0; sizes.len()], offset: start as isize, left })
    }

    /// Over `to`, an array of `from` stretched to it.
    pub fn stretched(from: &[usize], to: &[usize]) -> Result<Self, String> {
        let missing = to.len() - from.len();
        let steps = strides(from);
        let step = |i: usize| match i.checked_sub(missing) {
            Some(i) if from[i] != 1 => steps[i] as isize,
            _ => 0,
        };
        Self::new(to, (0..to.len()).map(step).collect(), 0)
    }
}

impl Iterator for ElementOffsets {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let here = self.offset as usize;
        for axis in (0..self.sizes.len()).rev() {
            self.index[axis] += 1;
            self.offset += self.steps[axis];
            if self.index[axis] < self.sizes[axis] {
                break;
            }
            self.offset -= self.steps[axis] * self.sizes[axis] as isize;
            self.index[axis] = 0;
        }
        Some(here)
    }
}

/// An index that may be counted from the back.
pub(super) fn index(index: i64, size: usize) -> Result<usize, String> {
    let from_front = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    let found = from_front.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < size);
    found.ok_or_else(|| format!("index {index} is outside a size of {size}"))
}

pub(super) fn elem_of(number: i64) -> Result<OnnxElem, String> {
    let elem = i32::try_from(number).ok().and_then(OnnxElem::of_onnx);
    elem.ok_or_else(|| format!("the element type (ONNX's number {number}) is not supported"))
}
