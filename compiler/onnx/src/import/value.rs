//! What the importer holds for a value of the file, and why a node is not translated.

use super::constants::Constant;
use snnc_ir::types::Dim;
use snnc_ir::{Diagnostic, Value};

/// What is known about an ONNX value.
#[derive(Clone, Debug)]
pub(super) enum ImportValue {
    /// It does not depend on the token ids.
    Constant(Constant),
    Live(LiveValue),
    /// A boolean that is false everywhere: whether a finite number is NaN.
    Never(Vec<Dim>),
    /// A value in the middle of quantised arithmetic.
    Coded(Box<Coded>),
    /// Several values in a row.
    Sequence(Vec<ImportValue>),
    /// The row of the last token of a value. What is computed of one row is computed of all: logits of the last token are
    /// a part of everybody's.
    Last(LiveValue),
    /// Heads and tokens on one axis: queries of several heads that all meet the same keys.
    Merged(MergedValue),
    /// Something is wrong with it and has been said.
    Failed,
}

/// A value of the graph that is being built, with its ONNX shape.
#[derive(Clone, Debug)]
pub(super) struct LiveValue {
    pub value: Value,
    pub dims: Vec<Dim>,
}

/// A value some of whose ONNX axes hold several axes of the IR's.
#[derive(Clone, Debug)]
pub(super) struct MergedValue {
    /// The value with all its axes apart.
    pub value: LiveValue,
    /// How many of those axes each ONNX axis holds.
    pub groups: Vec<usize>,
}

impl MergedValue {
    /// Sizes of the ONNX axes at a number of tokens.
    pub fn sizes(&self, tokens: usize) -> Vec<usize> {
        let mut axes = self.value.dims.iter().map(|dim| dim.size(tokens, 0));
        self.groups.iter().map(|&n| axes.by_ref().take(n).product()).collect()
    }
}

/// Why a node is not translated.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum ImportError {
    /// The operator, or what it is given, is not one of those translated here.
    #[error("the operator is not supported here")]
    Unsupported,
    /// The node asks for something that it cannot have; a sentence.
    #[error("{0}")]
    Invalid(String),
}

impl From<String> for ImportError {
    fn from(message: String) -> Self {
        ImportError::Invalid(message)
    }
}

impl From<&str> for ImportError {
    fn from(message: &str) -> Self {
        ImportError::Invalid(message.to_string())
    }
}

impl From<Diagnostic> for ImportError {
    fn from(diagnostic: Diagnostic) -> Self {
        ImportError::Invalid(diagnostic.message)
    }
}

/// A value in the middle of quantised arithmetic.
#[derive(Clone, Debug)]
pub(super) enum Coded {
    /// Codes of a real value.
    Codes { of: LiveValue, by: Scale },
    /// Rows of a table of codes, by token id.
    Rows { table: Constant, ids: LiveValue },
    /// Sums of products of codes and weights: `of * weights` once they are scaled.
    Sums { of: LiveValue, weights: Constant, by: Scale },
    /// The scale itself, times a number a column.
    Scale { by: Scale, times: Option<Constant> },
    /// The code of zero.
    Zero,
}

/// How real values become codes.
#[derive(Clone, Debug)]
pub(super) enum Scale {
    /// As the file says: scale and zero point.
    Given(Constant, Option<Constant>),
    /// Measured on the value at run time: the number of the node that does.
    Measured(u32),
}

impl Scale {
    pub fn is(&self, other: &Scale) -> bool {
        match (self, other) {
            (Scale::Given(a, p), Scale::Given(b, q)) => {
                a.at(0) == b.at(0) && p.as_ref().map(|p| p.at(0)) == q.as_ref().map(|q| q.at(0))
            }
            (Scale::Measured(a), Scale::Measured(b)) => a == b,
            (Scale::Given(..), Scale::Measured(_)) | (Scale::Measured(_), Scale::Given(..)) => false,
        }
    }
}
