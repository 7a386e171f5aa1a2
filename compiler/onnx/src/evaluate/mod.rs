//! What one ONNX node gives on concrete arrays, and what a whole file does: the meaning of the shape, integer and boolean
//! arithmetic that exporters leave in their files, and of the network itself, against which imports are checked.
//!
//! Slow and obvious. No result has more than `ELEMENTS_MAX` elements, and that is checked before it is made, so a small
//! file cannot ask for much memory. Differences between operator versions (an attribute that became an input) are
//! handled where the operator reads it. Operators that are not here answer `Failure::Unknown`.

mod contrib;
mod elementwise;
pub mod graph;
mod moves;
mod network;
mod quantised;
mod reduce;

pub use moves::{
    Span, flat_sizes, reshape_sizes, shape_span, slice_spans, split_sizes, squeeze_sizes, unsqueeze_sizes,
};

use super::read::OnnxNode;
use super::tensor::{Array, Elem};

/// The most elements of a result: a mask of 8192 by 8192 tokens, or the embedding of the largest GPT-2.
pub const ELEMENTS_MAX: usize = 1 << 27;

/// ONNX's default for LayerNormalization.
const LAYER_NORM_EPS: f32 = 1e-5;

/// com.microsoft's default for QuickGelu.
const QUICK_GELU_ALPHA: f32 = 1.702;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The operator is not one of those evaluated here.
    Unknown,
    /// The node asks for something that it cannot have; a sentence.
    Wrong(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Failure::Wrong(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Failure::Wrong(message.to_string())
    }
}

/// A node with its operands. `None` is an optional input that is left out.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub node: &'a OnnxNode,
    pub opset: i64,
    pub inputs: &'a [Option<&'a Array>],
}

/// How many numbers a node reads or multiplies: what keeps a small file from asking for days.
pub fn work(node: &OnnxNode, inputs: &[Option<&Array>]) -> usize {
    let read = inputs.iter().flatten().map(|x| x.len()).fold(0, usize::saturating_add);
    if ["Constant", "Identity", "Reshape", "Shape"].contains(&node.op_type.as_str()) {
        return 1;
    }
    let is_product = ["MatMul", "Gemm", "QGemm", "Attention", "Einsum"].iter().any(|word| node.op_type.contains(word));
    match inputs {
        [Some(a), rest @ ..] if is_product => {
            let wide = rest.iter().flatten().map(|b| b.len() / b.sizes().first().copied().unwrap_or(1).max(1));
            let wide = wide.chain(rest.iter().flatten().map(|b| b.sizes().last().copied().unwrap_or(1))).max();
            a.len().saturating_mul(wide.unwrap_or(1)).saturating_add(read)
        }
        _ => read,
    }
}

/// The outputs of `node`.
pub fn evaluate(node: &OnnxNode, opset: i64, inputs: &[Option<&Array>]) -> Result<Vec<Array>, Failure> {
    for empty in inputs.iter().flatten().filter(|x| x.is_empty()) {
        count(empty.sizes())?;
    }
    let call = Call { node, opset, inputs };
    let operator = node.operator();
    let found = OPERATORS.iter().find(|(name, _)| *name == operator);
    found.map_or(Err(Failure::Unknown), |(_, meaning)| meaning(&call))
}

/// What a node gives, its operands being there or not.
type Meaning = fn(&Call) -> Result<Vec<Array>, Failure>;

fn one(result: Result<Array, String>) -> Result<Vec<Array>, Failure> {
    Ok(vec![result?])
}

fn all(results: Result<Vec<Array>, String>) -> Result<Vec<Array>, Failure> {
    Ok(results?)
}

/// Every operator that is evaluated, by name.
#[rustfmt::skip]
pub const OPERATORS: &[(&str, Meaning)] = &[
    ("Abs", |c| one(c.unary())),
    ("Add", |c| one(c.arithmetic())),
    ("And", |c| one(c.logic())),
    ("ArgMax", |c| one(c.arg_max())),
    ("Attention", |c| all(c.attention())),
    ("Cast", |c| one(c.cast())),
    ("CastLike", |c| one(c.cast_like())),
    ("Ceil", |c| one(c.unary())),
    ("Clip", |c| one(c.clip())),
    ("Concat", |c| one(c.concat())),
    ("Constant", |c| one(c.constant())),
    ("ConstantOfShape", |c| one(c.constant_of_shape())),
    ("Cos", |c| one(c.unary())),
    ("CumSum", |c| one(c.cum_sum())),
    ("DequantizeLinear", |c| one(c.dequantize())),
    ("Div", |c| one(c.arithmetic())),
    ("Dropout", |c| one(c.arg(0).cloned())),
    ("DynamicQuantizeLinear", |c| all(c.dynamic_quantize())),
    ("Einsum", |c| one(c.einsum())),
    ("Equal", |c| one(c.comparison())),
    ("Erf", |c| one(c.unary())),
    ("Exp", |c| one(c.unary())),
    ("Expand", |c| one(c.expand())),
    ("Flatten", |c| one(flat_sizes(c, c.sizes(0)?).and_then(|sizes| c.reshaped(sizes)))),
    ("Floor", |c| one(c.unary())),
    ("Gather", |c| one(c.gather())),
    ("GatherElements", |c| one(c.gather_elements())),
    ("GatherND", |c| one(c.gather_nd())),
    ("Gelu", |c| one(c.gelu())),
    ("Gemm", |c| one(c.gemm())),
    ("Greater", |c| one(c.comparison())),
    ("GreaterOrEqual", |c| one(c.comparison())),
    ("Identity", |c| one(c.arg(0).cloned())),
    ("IsNaN", |c| one(c.is_nan())),
    ("LayerNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, true))),
    ("Less", |c| one(c.comparison())),
    ("LessOrEqual", |c| one(c.comparison())),
    ("Log", |c| one(c.unary())),
    ("LogSoftmax", |c| one(c.softmax())),
    ("MatMul", |c| one(c.matmul())),
    ("MatMulInteger", |c| one(c.matmul_integer())),
    ("Max", |c| one(c.arithmetic())),
    ("Min", |c| one(c.arithmetic())),
    ("Mod", |c| one(c.arithmetic())),
    ("Mul", |c| one(c.arithmetic())),
    ("Neg", |c| one(c.unary())),
    ("NonZero", |c| one(c.non_zero())),
    ("Not", |c| one(c.not())),
    ("Or", |c| one(c.logic())),
    ("Pow", |c| one(c.arithmetic())),
    ("QLinearMatMul", |c| one(c.qlinear_matmul())),
    ("QuantizeLinear", |c| one(c.quantize())),
    ("RMSNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, false))),
    ("Range", |c| one(c.range())),
    ("Reciprocal", |c| one(c.unary())),
    ("ReduceMax", |c| one(c.reduce())),
    ("ReduceMean", |c| one(c.reduce())),
    ("ReduceMin", |c| one(c.reduce())),
    ("ReduceProd", |c| one(c.reduce())),
    ("ReduceSum", |c| one(c.reduce())),
    ("Relu", |c| one(c.unary())),
    ("Reshape", |c| one(reshape_sizes(c, c.sizes(0)?).and_then(|sizes| c.reshaped(sizes)))),
    ("ScatterND", |c| one(c.scatter_nd())),
    ("Shape", |c| one(c.shape())),
    ("Sigmoid", |c| one(c.unary())),
    ("SimplifiedLayerNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, false))),
    ("Sin", |c| one(c.unary())),
    ("Size", |c| one(c.arg(0).map(|x| Array::i64(&[], vec![x.len() as i64])))),
    ("Slice", |c| one(c.slice())),
    ("Softmax", |c| one(c.softmax())),
    ("Softplus", |c| one(c.map(|x| libm::log1pf(libm::expf(-x.abs())) + x.max(0.0)))),
    ("Split", |c| all(c.split())),
    ("Sqrt", |c| one(c.unary())),
    ("Squeeze", |c| one(squeeze_sizes(c, c.sizes(0)?).and_then(|sizes| c.reshaped(sizes)))),
    ("Sub", |c| one(c.arithmetic())),
    ("Sum", |c| one(c.arithmetic())),
    ("Swish", |c| one(c.quick_gelu(1.0))),
    ("Tanh", |c| one(c.unary())),
    ("Tile", |c| one(c.tile())),
    ("Transpose", |c| one(c.transpose())),
    ("Trilu", |c| one(c.trilu())),
    ("Unsqueeze", |c| one(unsqueeze_sizes(c, c.sizes(0)?).and_then(|sizes| c.reshaped(sizes)))),
    ("Where", |c| one(c.choose())),
    ("Xor", |c| one(c.logic())),
    ("com.microsoft.Attention", |c| all(c.packed_attention())),
    ("com.microsoft.BiasGelu", |c| one(c.biased_gelu(false))),
    ("com.microsoft.DequantizeLinear", |c| one(c.dequantize())),
    ("com.microsoft.DynamicQuantizeMatMul", |c| one(c.dynamic_quantize_matmul())),
    ("com.microsoft.EmbedLayerNormalization", |c| all(c.embed_layer_norm())),
    ("com.microsoft.FastGelu", |c| one(c.biased_gelu(true))),
    ("com.microsoft.FusedMatMul", |c| one(c.fused_matmul())),
    ("com.microsoft.GatherBlockQuantized", |c| one(c.gather_blocks())),
    ("com.microsoft.Gelu", |c| one(c.biased_gelu(false))),
    ("com.microsoft.MatMulIntegerToFloat", |c| one(c.matmul_integer_to_float())),
    ("com.microsoft.MatMulNBits", |c| one(c.matmul_bits())),
    ("com.microsoft.MultiHeadAttention", |c| all(c.multi_head_attention())),
    ("com.microsoft.QGemm", |c| one(c.qgemm())),
    ("com.microsoft.QLinearAdd", |c| one(c.qlinear_binary(|a, b| a + b))),
    ("com.microsoft.QLinearConcat", |c| one(c.qlinear_concat())),
    ("com.microsoft.QLinearMul", |c| one(c.qlinear_binary(|a, b| a * b))),
    ("com.microsoft.QLinearSigmoid", |c| one(c.qlinear_map(network::sigmoid))),
    ("com.microsoft.QLinearSoftmax", |c| one(c.qlinear_softmax())),
    ("com.microsoft.QLinearWhere", |c| one(c.qlinear_where())),
    ("com.microsoft.QuantizeLinear", |c| one(c.quantize())),
    ("com.microsoft.QuickGelu", |c| one(c.quick_gelu(QUICK_GELU_ALPHA))),
    ("com.microsoft.SkipLayerNormalization", |c| all(c.skip_layer_norm(true))),
    ("com.microsoft.SkipSimplifiedLayerNormalization", |c| all(c.skip_layer_norm(false))),
];

impl<'a> Call<'a> {
    pub fn arg(&self, i: usize) -> Result<&'a Array, String> {
        self.optional(i).ok_or_else(|| format!("input {} is missing", i + 1))
    }

    pub fn optional(&self, i: usize) -> Option<&'a Array> {
        self.inputs.get(i).copied().flatten()
    }

    fn sizes(&self, i: usize) -> Result<&'a [usize], String> {
        self.arg(i).map(Array::sizes)
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
fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; sizes.len()];
    for i in (1..sizes.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(sizes[i]);
    }
    strides
}

/// Offsets of elements, last axis fastest: `start` plus a step for every axis.
#[derive(Debug)]
struct Walk {
    sizes: Vec<usize>,
    steps: Vec<isize>,
    index: Vec<usize>,
    offset: isize,
    left: usize,
}

impl Walk {
    fn new(sizes: &[usize], steps: Vec<isize>, start: usize) -> Result<Self, String> {
        let left = count(sizes)?;
        Ok(Self { sizes: sizes.to_vec(), steps, index: vec![0; sizes.len()], offset: start as isize, left })
    }

    /// Over `to`, an array of `from` stretched to it.
    fn stretched(from: &[usize], to: &[usize]) -> Result<Self, String> {
        let missing = to.len() - from.len();
        let steps = strides(from);
        let step = |i: usize| match i.checked_sub(missing) {
            Some(i) if from[i] != 1 => steps[i] as isize,
            _ => 0,
        };
        Self::new(to, (0..to.len()).map(step).collect(), 0)
    }
}

impl Iterator for Walk {
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
fn index(index: i64, size: usize) -> Result<usize, String> {
    let from_front = if index < 0 { index.checked_add(size as i64) } else { Some(index) };
    let found = from_front.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < size);
    found.ok_or_else(|| format!("index {index} is outside a size of {size}"))
}

fn elem_of(number: i64) -> Result<Elem, String> {
    Elem::of_onnx(number).ok_or_else(|| format!("the element type (ONNX's number {number}) is not supported"))
}

#[cfg(test)]
mod tests;
