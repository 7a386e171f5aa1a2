//! A value in one call.

use crate::real::Real;
use crate::tensor::{Data, Tensor};

/// What a value holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content<R> {
    /// Reals.
    Real(Vec<R>),
    /// Integers: levels, sums, ids.
    Int(Vec<i32>),
    /// One part per timestep.
    Train(Vec<Vec<i32>>),
}

impl<R> Content<R> {
    /// Leaves the first `tokens` of `all` rows.
    pub(super) fn shorten(&mut self, all: usize, tokens: usize) {
        fn first<T>(rows: &mut Vec<T>, all: usize, tokens: usize) {
            rows.truncate(rows.len() / all.max(1) * tokens);
        }
        match self {
            Content::Real(rows) => first(rows, all, tokens),
            Content::Int(rows) => first(rows, all, tokens),
            Content::Train(parts) => parts.iter_mut().for_each(|rows| first(rows, all, tokens)),
        }
    }
}

/// A value in one call.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<R> {
    /// Its sizes in this call, outermost first.
    pub sizes: Vec<usize>,
    /// Its elements, row-major.
    pub content: Content<R>,
}

impl<R: Real> Array<R> {
    pub(super) fn real(sizes: Vec<usize>, data: Vec<R>) -> Self {
        Self { sizes, content: Content::Real(data) }
    }

    pub(super) fn int(sizes: Vec<usize>, data: Vec<i32>) -> Self {
        Self { sizes, content: Content::Int(data) }
    }

    /// A constant, in the evaluator's number.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        let content = match tensor.data() {
            Data::F32(v) => Content::Real(v.iter().map(|&x| R::from_f32(x)).collect()),
            Data::I32(v) => Content::Int(v.to_vec()),
            Data::I8(_) | Data::Panels(_) | Data::Groups { .. } => {
                Content::Int(tensor.to_integers().unwrap_or_default())
            }
        };
        Self { sizes: tensor.sizes().to_vec(), content }
    }

    /// Panics on other contents: the verifier has checked the types.
    pub fn reals(&self) -> &[R] {
        match &self.content {
            Content::Real(v) => v,
            Content::Int(_) | Content::Train(_) => panic!("a real tensor was expected"),
        }
    }

    /// Panics on other contents: the verifier has checked the types.
    pub fn ints(&self) -> &[i32] {
        match &self.content {
            Content::Int(v) => v,
            Content::Real(_) | Content::Train(_) => panic!("an integer tensor was expected"),
        }
    }
}
