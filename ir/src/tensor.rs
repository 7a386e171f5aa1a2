//! Dense tensors: the constants of a program, owned or lying in a mapped file.
//!
//! Elements lie row by row, but for 8-bit weights `[k, m]` that kernels walk: those may lie in *panels*, `[m / 64][k][64]`,
//! so that what one input gives 64 outputs is one cache line, and a panel is read from end to end. Both say the same. Weights of
//! 4 bits have one layout only (`nibbles`).

use crate::nibbles::GroupedSizes;
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
    /// Its own.
    Owned(Vec<T>),
    /// A part of shared bytes.
    Shared {
        /// All of them.
        bytes: SharedBytes,
        /// Which of them.
        range: Range<usize>,
    },
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

pub use crate::nibbles::PANEL;

/// Elements, in row-major order but for `Panels`.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Reals.
    F32(Buffer<f32>),
    /// Integers.
    I32(Buffer<i32>),
    /// Synaptic weights, row-major.
    I8(Buffer<i8>),
    /// 8-bit elements of `[k, m]` as `[m / 64][k][64]`; what the last panel has beyond `m` is zero.
    Panels(Buffer<i8>),
    /// Weights of 4 bits in groups, as `nibbles` has them.
    Groups {
        /// Multipliers and levels, panel by panel.
        bytes: Buffer<u8>,
        /// Inputs that share a multiplier.
        group: u16,
    },
}

impl Data {
    /// Numbers that are stored, the zeros at the end of panels among them; of weights in groups the bytes.
    pub fn len(&self) -> usize {
        match self {
            Data::F32(v) => v.len(),
            Data::I32(v) => v.len(),
            Data::I8(v) | Data::Panels(v) => v.len(),
            Data::Groups { bytes, .. } => bytes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements' bytes in memory order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::F32(v) => bytemuck::cast_slice(v),
            Data::I32(v) => bytemuck::cast_slice(v),
            Data::I8(v) | Data::Panels(v) => bytemuck::cast_slice(v),
            Data::Groups { bytes, .. } => bytes,
        }
    }

    /// The type of the elements.
    pub fn elem(&self) -> Elem {
        match self {
            Data::F32(_) => Elem::F32,
            Data::I32(_) => Elem::I32,
            Data::I8(_) | Data::Panels(_) => Elem::I8,
            Data::Groups { group, .. } => Elem::I4(*group),
        }
    }
}

/// A tensor whose sizes are known. Invariant: the data are as many as sizes and layout say.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    sizes: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// Panics if `sizes` and `data` disagree: a precondition of the caller.
    pub fn new(sizes: Vec<usize>, data: Data) -> Self {
        let len = match data {
            Data::Panels(_) => panels_len(&sizes),
            Data::Groups { group, .. } => GroupedSizes::new(&sizes, group).map(GroupedSizes::bytes),
            Data::F32(_) | Data::I32(_) | Data::I8(_) => Some(sizes.iter().product()),
        };
        assert_eq!(len, Some(data.len()), "sizes {sizes:?} must match the data");
        Self { sizes, data }
    }

    /// A tensor of reals.
    pub fn f32(sizes: &[usize], data: Vec<f32>) -> Self {
        Self::new(sizes.to_vec(), Data::F32(data.into()))
    }

    /// A tensor of synaptic weights.
    pub fn i8(sizes: &[usize], data: Vec<i8>) -> Self {
        Self::new(sizes.to_vec(), Data::I8(data.into()))
    }

    /// Weights of 4 bits: levels `[k, m]` and multipliers `[k / group, m]`.
    ///
    /// Panics if there are not so many or a group cannot be so large: a precondition of the caller.
    pub fn i4(sizes: [usize; 2], group: u16, levels: &[i8], multipliers: &[i8]) -> Self {
        let grouped = GroupedSizes::new(&sizes, group);
        let bytes = grouped.map(|grouped| grouped.pack(levels, multipliers).into());
        Self::new(sizes.to_vec(), Data::Groups { bytes: bytes.unwrap_or(Vec::new().into()), group })
    }

    /// A tensor of integers.
    pub fn i32(sizes: &[usize], data: Vec<i32>) -> Self {
        Self::new(sizes.to_vec(), Data::I32(data.into()))
    }

    /// Its sizes, outermost first.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// Its elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its elements alone.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// The type of the elements.
    pub fn elem(&self) -> Elem {
        self.data.elem()
    }

    /// Its reals, if that is what they are.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            Data::I32(_) | Data::I8(_) | Data::Panels(_) | Data::Groups { .. } => None,
        }
    }

    /// Its integers, if that is what they are.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(v) => Some(v),
            Data::F32(_) | Data::I8(_) | Data::Panels(_) | Data::Groups { .. } => None,
        }
    }

    /// 8-bit elements row by row; `None` if they lie in panels.
    pub fn as_i8(&self) -> Option<&[i8]> {
        match &self.data {
            Data::I8(v) => Some(v),
            Data::F32(_) | Data::I32(_) | Data::Panels(_) | Data::Groups { .. } => None,
        }
    }

    /// 8-bit elements in panels.
    pub fn as_panels(&self) -> Option<&[i8]> {
        match &self.data {
            Data::Panels(v) => Some(v),
            Data::F32(_) | Data::I32(_) | Data::I8(_) | Data::Groups { .. } => None,
        }
    }

    /// 8-bit elements of a matrix in either layout, and how many outputs lie side by side: rows are a single panel.
    pub fn weights(&self) -> Option<(&[i8], usize)> {
        match (&self.data, &self.sizes[..]) {
            (Data::I8(v), [_, outputs]) => Some((v, *outputs)),
            (Data::Panels(v), [_, _]) => Some((v, PANEL)),
            _ => None,
        }
    }

    /// Weights of 4 bits as they lie in memory, and their sizes.
    pub fn as_groups(&self) -> Option<(&[u8], GroupedSizes)> {
        match &self.data {
            Data::Groups { bytes, group } => Some((bytes, GroupedSizes::new(&self.sizes, *group)?)),
            Data::F32(_) | Data::I32(_) | Data::I8(_) | Data::Panels(_) => None,
        }
    }

    /// Weights as integers, row by row, whatever their layout and their bits; `None` for others.
    pub fn to_integers(&self) -> Option<Vec<i32>> {
        match self.as_groups() {
            Some((bytes, sizes)) => Some(sizes.elements(bytes)),
            None => Some(self.to_rows()?.into_iter().map(i32::from).collect()),
        }
    }

    fn matrix(&self) -> Option<[usize; 2]> {
        self.sizes.as_array().copied()
    }

    /// Whether what panels and groups have beyond their outputs and inputs is zero, as it must be; true for other layouts.
    pub fn has_padding(&self) -> bool {
        if let Some((bytes, sizes)) = self.as_groups() {
            return sizes.has_padding(bytes);
        }
        let (Some(panels), [inputs, outputs]) = (self.as_panels(), &self.sizes[..]) else { return true };
        let width = outputs % PANEL;
        let last = if width == 0 { &[] } else { &panels[outputs / PANEL * inputs * PANEL..] };
        last.chunks_exact(PANEL).all(|line| line[width..].iter().all(|&w| w == 0))
    }

    /// The same tensor in panels; `None` if it is no matrix of 8-bit elements that lie row by row.
    pub fn to_panels(&self) -> Option<Tensor> {
        let (rows, [inputs, outputs]) = (self.as_i8()?, self.matrix()?);
        let mut panels = vec![0; panels_len(&self.sizes)?];
        if rows.is_empty() {
            return Some(Tensor::new(self.sizes.clone(), Data::Panels(panels.into())));
        }
        for (p, panel) in panels.chunks_exact_mut(inputs * PANEL).enumerate() {
            let (from, width) = (p * PANEL, PANEL.min(outputs - p * PANEL));
            for (line, row) in panel.chunks_exact_mut(PANEL).zip(rows.chunks_exact(outputs)) {
                line[..width].copy_from_slice(&row[from..from + width]);
            }
        }
        Some(Tensor::new(self.sizes.clone(), Data::Panels(panels.into())))
    }

    /// 8-bit elements row by row, whatever their layout; `None` for others.
    pub fn to_rows(&self) -> Option<Vec<i8>> {
        if let Some(rows) = self.as_i8() {
            return Some(rows.to_vec());
        }
        let (panels, [inputs, outputs]) = (self.as_panels()?, self.matrix()?);
        let mut rows = vec![0; inputs * outputs];
        if rows.is_empty() {
            return Some(rows);
        }
        for (p, panel) in panels.chunks_exact(inputs * PANEL).enumerate() {
            let (from, width) = (p * PANEL, PANEL.min(outputs - p * PANEL));
            for (line, row) in panel.chunks_exact(PANEL).zip(rows.chunks_exact_mut(outputs)) {
                row[from..from + width].copy_from_slice(&line[..width]);
            }
        }
        Some(rows)
    }

    /// The one element of a tensor of one f32.
    pub fn scalar(&self) -> Option<f32> {
        match &self.data {
            Data::F32(v) if v.len() == 1 => Some(v[0]),
            _ => None,
        }
    }
}

/// Bytes that elements take which do not lie in panels of bytes; `None` if they are more than memory has addresses, or if 4-bit
/// elements are no matrix.
pub fn stored_bytes(elem: Elem, sizes: &[usize]) -> Option<usize> {
    match elem {
        Elem::I4(group) => GroupedSizes::new(sizes, group).map(GroupedSizes::bytes),
        Elem::F32 | Elem::I32 | Elem::I8 | Elem::Level(..) => {
            sizes.iter().try_fold(elem.bytes(), |bytes, &size| bytes.checked_mul(size))
        }
    }
}

/// Numbers that a matrix takes in panels; `None` if it is no matrix, or larger than memory has addresses.
pub fn panels_len(sizes: &[usize]) -> Option<usize> {
    let [inputs, outputs] = *sizes else { return None };
    outputs.checked_next_multiple_of(PANEL)?.checked_mul(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_say_what_rows_say() {
        for (k, m) in [(1, 1), (3, 64), (5, 65), (2, 200), (0, 7), (4, 0)] {
            let rows = Tensor::i8(&[k, m], (0..k * m).map(|i| (i % 251) as u8 as i8).collect());
            let panels = rows.to_panels().expect("a matrix of i8");
            assert_eq!(panels.to_rows().as_deref(), rows.as_i8());
            assert_eq!((panels.elem(), panels.sizes()), (Elem::I8, rows.sizes()));
            assert!(panels.to_panels().is_none() && panels.as_i8().is_none());
        }
        assert!(Tensor::i8(&[4], vec![0; 4]).to_panels().is_none());
        assert!(Tensor::f32(&[2, 2], vec![0.0; 4]).to_panels().is_none());
    }
}
