//! Values of an ONNX graph: dense row-major arrays of the element types that GPT-2 files use.
//!
//! Every float is held as f32 (f16, bf16 and f64 are converted when they are read); every integer that is neither i32 nor
//! a byte is an i64. Large f32 arrays of a file are shared bytes, so that a copy of one costs nothing.

use snnc_ir::tensor::Buffer;

/// Element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnnxElem {
    /// Floats of any width, as f32.
    F32,
    /// Integers of 16 and 64 bits, signed or not, and unsigned ones of 32.
    I64,
    /// Signed, 32 bits.
    I32,
    /// Signed, 8 or 4 bits.
    I8,
    /// Unsigned, 8 or 4 bits.
    U8,
    /// Truth.
    Bool,
}

/// Elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub enum ArrayData {
    /// Of `OnnxElem::F32`: owned, or in the mapped file.
    F32(Buffer<f32>),
    /// Of `OnnxElem::I64`.
    I64(Vec<i64>),
    /// Of `OnnxElem::I32`.
    I32(Vec<i32>),
    /// Of `OnnxElem::I8`.
    I8(Vec<i8>),
    /// Of `OnnxElem::U8`.
    U8(Vec<u8>),
    /// Of `OnnxElem::Bool`.
    Bool(Vec<bool>),
}

/// Invariant: the product of `sizes` is the number of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxArray {
    sizes: Vec<usize>,
    data: ArrayData,
}

impl OnnxElem {
    /// The type of ONNX's number for it, as narrowed above. `None` for strings, complex numbers and the like.
    pub fn of_onnx(number: i32) -> Option<Self> {
        match number {
            1 | 10 | 11 | 16 => Some(OnnxElem::F32),
            2 | 21 => Some(OnnxElem::U8),
            3 | 22 => Some(OnnxElem::I8),
            6 => Some(OnnxElem::I32),
            4 | 5 | 7 | 12 | 13 => Some(OnnxElem::I64),
            9 => Some(OnnxElem::Bool),
            _ => None,
        }
    }

    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            OnnxElem::F32 => "float",
            OnnxElem::I64 => "int64",
            OnnxElem::I32 => "int32",
            OnnxElem::I8 => "int8",
            OnnxElem::U8 => "uint8",
            OnnxElem::Bool => "bool",
        }
    }

    /// Whether it is an integer; truth is none.
    pub fn is_int(self) -> bool {
        matches!(self, OnnxElem::I64 | OnnxElem::I32 | OnnxElem::I8 | OnnxElem::U8)
    }
}

/// One element, wide enough for all types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// Of a float array.
    Float(f32),
    /// Of an integer or a boolean array.
    Int(i64),
}

impl Element {
    /// As a float, rounded where it is a large integer.
    pub fn float(self) -> f32 {
        match self {
            Element::Float(x) => x,
            Element::Int(x) => x as f32,
        }
    }

    /// Floats toward zero.
    pub fn int(self) -> i64 {
        match self {
            Element::Float(x) => x as i64,
            Element::Int(x) => x,
        }
    }

    /// Whether it is 0, -0.0 or false.
    pub fn is_zero(self) -> bool {
        match self {
            Element::Float(x) => x == 0.0,
            Element::Int(x) => x == 0,
        }
    }
}

impl ArrayData {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self {
            ArrayData::F32(v) => v.len(),
            ArrayData::I64(v) => v.len(),
            ArrayData::I32(v) => v.len(),
            ArrayData::I8(v) => v.len(),
            ArrayData::U8(v) => v.len(),
            ArrayData::Bool(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their type.
    pub fn elem(&self) -> OnnxElem {
        match self {
            ArrayData::F32(_) => OnnxElem::F32,
            ArrayData::I64(_) => OnnxElem::I64,
            ArrayData::I32(_) => OnnxElem::I32,
            ArrayData::I8(_) => OnnxElem::I8,
            ArrayData::U8(_) => OnnxElem::U8,
            ArrayData::Bool(_) => OnnxElem::Bool,
        }
    }

    /// The `i`-th element. Panics outside: a precondition of the caller.
    pub fn get(&self, i: usize) -> Element {
        match self {
            ArrayData::F32(v) => Element::Float(v[i]),
            ArrayData::I64(v) => Element::Int(v[i]),
            ArrayData::I32(v) => Element::Int(i64::from(v[i])),
            ArrayData::I8(v) => Element::Int(i64::from(v[i])),
            ArrayData::U8(v) => Element::Int(i64::from(v[i])),
            ArrayData::Bool(v) => Element::Int(i64::from(v[i])),
        }
    }

    /// The elements at `indices`, in that order. Panics on an index outside: a precondition of the caller.
    pub fn pick(&self, indices: impl Iterator<Item = usize>) -> ArrayData {
        match self {
            ArrayData::F32(v) => ArrayData::F32(indices.map(|i| v[i]).collect::<Vec<f32>>().into()),
            ArrayData::I64(v) => ArrayData::I64(indices.map(|i| v[i]).collect()),
            ArrayData::I32(v) => ArrayData::I32(indices.map(|i| v[i]).collect()),
            ArrayData::I8(v) => ArrayData::I8(indices.map(|i| v[i]).collect()),
            ArrayData::U8(v) => ArrayData::U8(indices.map(|i| v[i]).collect()),
            ArrayData::Bool(v) => ArrayData::Bool(indices.map(|i| v[i]).collect()),
        }
    }

    /// Numbers as elements of one type: floats toward zero, integers wrapped to the type's bits, truth as 0 and 1.
    pub fn from_numbers(elem: OnnxElem, numbers: impl Iterator<Item = Element>) -> ArrayData {
        match elem {
            OnnxElem::F32 => ArrayData::F32(numbers.map(Element::float).collect::<Vec<f32>>().into()),
            OnnxElem::I64 => ArrayData::I64(numbers.map(Element::int).collect()),
            OnnxElem::I32 => ArrayData::I32(numbers.map(|x| x.int() as i32).collect()),
            OnnxElem::I8 => ArrayData::I8(numbers.map(|x| x.int() as i8).collect()),
            OnnxElem::U8 => ArrayData::U8(numbers.map(|x| x.int() as u8).collect()),
            OnnxElem::Bool => ArrayData::Bool(numbers.map(|x| !x.is_zero()).collect()),
        }
    }
}

impl OnnxArray {
    /// Panics if `sizes` and `data` disagree: a precondition of the caller.
    pub fn new(sizes: Vec<usize>, data: ArrayData) -> Self {
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "sizes {sizes:?} must match the data");
        Self { sizes, data }
    }

    /// Of floats. Panics if `sizes` and `data` disagree.
    pub fn f32(sizes: &[usize], data: Vec<f32>) -> Self {
        Self::new(sizes.to_vec(), ArrayData::F32(data.into()))
    }

    /// Of integers. Panics if `sizes` and `data` disagree.
    pub fn i64(sizes: &[usize], data: Vec<i64>) -> Self {
        Self::new(sizes.to_vec(), ArrayData::I64(data))
    }

    /// Of truth. Panics if `sizes` and `data` disagree.
    pub fn bool(sizes: &[usize], data: Vec<bool>) -> Self {
        Self::new(sizes.to_vec(), ArrayData::Bool(data))
    }

    /// A vector of integers, as shape arithmetic has them.
    pub fn vector(data: Vec<i64>) -> Self {
        Self::i64(&[data.len()], data)
    }

    /// Its shape.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// How many axes it has.
    pub fn rank(&self) -> usize {
        self.sizes.len()
    }

    /// Its elements.
    pub fn data(&self) -> &ArrayData {
        &self.data
    }

    /// Its elements' type.
    pub fn elem(&self) -> OnnxElem {
        self.data.elem()
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Its elements, if they are floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            ArrayData::F32(v) => Some(v),
            _ => None,
        }
    }

    /// Its elements, if they are truth.
    pub fn as_bool(&self) -> Option<&[bool]> {
        match &self.data {
            ArrayData::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The elements of an integer array.
    pub fn ints(&self) -> Option<Vec<i64>> {
        self.elem().is_int().then(|| (0..self.len()).map(|i| self.data.get(i).int()).collect())
    }

    /// The only element.
    pub fn number(&self) -> Option<Element> {
        (self.len() == 1).then(|| self.data.get(0))
    }

    /// The number that all elements are.
    pub fn uniform(&self) -> Option<Element> {
        if self.is_empty() {
            return None;
        }
        let first = self.data.get(0);
        (1..self.len()).all(|i| self.data.get(i) == first).then_some(first)
    }

    /// The same numbers as another type; see `ArrayData::from_numbers`.
    pub fn cast(&self, elem: OnnxElem) -> OnnxArray {
        if elem == self.elem() {
            return self.clone();
        }
        let numbers = (0..self.len()).map(|i| self.data.get(i));
        OnnxArray { sizes: self.sizes.clone(), data: ArrayData::from_numbers(elem, numbers) }
    }

    /// The same elements in another shape; costs nothing for a file's f32 arrays. `None` if the counts differ.
    ///
    /// ```
    /// use snnc_onnx::tensor::OnnxArray;
    ///
    /// let row = OnnxArray::vector(vec![1, 2, 3, 4]);
    /// assert_eq!(row.reshaped(vec![2, 2]), Some(OnnxArray::i64(&[2, 2], vec![1, 2, 3, 4])));
    /// assert_eq!(row.reshaped(vec![3, 2]), None);
    /// ```
    pub fn reshaped(&self, sizes: Vec<usize>) -> Option<OnnxArray> {
        let count = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        (count == self.len()).then(|| OnnxArray { sizes, data: self.data.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_keeps_the_elements() {
        let array = OnnxArray::vector((0..6).collect());
        assert_eq!(array.reshaped(vec![2, 3]).map(|a| a.ints()), Some(Some((0..6).collect())));
        assert_eq!(array.reshaped(vec![usize::MAX, 3]), None);
    }
}
