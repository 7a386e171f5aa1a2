//! Dense row-major tensors: the constants of a program, owned or lying in a mapped file.

use crate::types::Elem;
use bytemuck::Pod;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes that somebody else keeps, such as a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Elements that are owned, or that lie in shared bytes.
#[derive(Clone)]
pub enum Buffer<T> {
    Owned(Vec<T>),
    Shared { bytes: SharedBytes, range: Range<usize> },
}

impl<T: Pod> Buffer<T> {
    /// A view of `bytes[range]`. `None` if the range is outside, not a multiple of the element or not aligned to it.
    pub fn shared(bytes: SharedBytes, range: Range<usize>) -> Option<Self> {
        let slice = (*bytes).as_ref().get(range.clone())?;
        bytemuck::try_cast_slice::<u8, T>(slice).ok()?;
        Some(Buffer::Shared { bytes, range })
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Buffer::Owned(v) => v,
            Buffer::Shared { bytes, range } => bytemuck::cast_slice(&(**bytes).as_ref()[range.clone()]),
        }
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(v: Vec<T>) -> Self {
        Buffer::Owned(v)
    }
}

impl<T: Pod + PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.len())
    }
}

/// Elements, in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    F32(Buffer<f32>),
    I32(Buffer<i32>),
    I8(Buffer<i8>),
}

impl Data {
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I8(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' bytes in memory order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::I8(v) => bytemuck::cast_slice(v),
        }
    }

    pub fn elem(&self) -> Elem {
        match self {
            Data::F32(_) => Elem::F32,
            Data::I32(_) => Elem::I32,
            Data::I8(_) => Elem::I8,
        }
    }
}

/// A tensor whose sizes are known. Invariant: the product of `sizes` is the number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    sizes: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// Panics if `sizes` and `data` disagree: a precondition of the caller.
    pub fn new(sizes: Vec<usize>, data: Data) -> Self {
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "sizes {sizes:?} must match the data");
        Self { sizes, data }
    }

    pub fn f32(sizes: &[usize], data: Vec<f32>) -> Self {
        Self::new(sizes.to_vec(), Data::F32(data.into()))
    }

    pub fn i8(sizes: &[usize], data: Vec<i8>) -> Self {
        Self::new(sizes.to_vec(), Data::I8(data.into()))
    }

    pub fn i32(sizes: &[usize], data: Vec<i32>) -> Self {
        Self::new(sizes.to_vec(), Data::I32(data.into()))
    }

    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    pub fn data(&self) -> &Data {
        &self.data
    }

    pub fn into_data(self) -> Data {
        self.data
    }

    pub fn elem(&self) -> Elem {
        self.data.elem()
    }

    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            Data::I32(_) | Data::I8(_) => None,
        }
    }

    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(v) => Some(v),
            Data::F32(_) | Data::I8(_) => None,
        }
    }

    pub fn as_i8(&self) -> Option<&[i8]> {
        match &self.data {
            Data::I8(v) => Some(v),
            Data::F32(_) | Data::I32(_) => None,
        }
    }

    /// The one element of a tensor of one f32.
    pub fn scalar(&self) -> Option<f32> {
        match &self.data {
            Data::F32(v) if v.len() == 1 => Some(v[0]),
            _ => None,
        }
    }
}
