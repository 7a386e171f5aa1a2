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
    let one = |result: Result<Array, String>| result.map(|array| vec![array]).map_err(Failure::Wrong);
    match &*node.operator() {
        "Constant" => one(call.constant()),
        "ConstantOfShape" => one(call.constant_of_shape()),
        "Shape" => one(call.shape()),
        "Size" => one(call.arg(0).map(|x| Array::i64(&[], vec![x.len() as i64]))),
        "Identity" | "Dropout" => one(call.arg(0).cloned()),
        "Cast" => one(call.cast()),
        "Range" => one(call.range()),
        "Gather" => one(call.gather()),
        "GatherND" => one(call.gather_nd()),
        "GatherElements" => one(call.gather_elements()),
        "ScatterND" => one(call.scatter_nd()),
        "Slice" => one(call.slice()),
        "Squeeze" => one(squeeze_sizes(&call, call.sizes(0)?).and_then(|sizes| call.reshaped(sizes))),
        "Unsqueeze" => one(unsqueeze_sizes(&call, call.sizes(0)?).and_then(|sizes| call.reshaped(sizes))),
        "Flatten" => one(flat_sizes(&call, call.sizes(0)?).and_then(|sizes| call.reshaped(sizes))),
        "Reshape" => one(reshape_sizes(&call, call.sizes(0)?).and_then(|sizes| call.reshaped(sizes))),
        "Transpose" => one(call.transpose()),
        "Concat" => one(call.concat()),
        "Split" => call.split().map_err(Failure::Wrong),
        "Expand" => one(call.expand()),
        "Tile" => one(call.tile()),
        "Where" => one(call.choose()),
        "NonZero" => one(call.non_zero()),
        "CumSum" => one(call.cum_sum()),
        "Trilu" => one(call.trilu()),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" => one(call.reduce()),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Sum" => one(call.arithmetic()),
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => one(call.comparison()),
        "And" | "Or" | "Xor" => one(call.logic()),
        "Not" => one(call.not()),
        "IsNaN" => one(call.is_nan()),
        "MatMul" => one(call.matmul()),
        "Gemm" => one(call.gemm()),
        "Einsum" => one(call.einsum()),
        "Softmax" | "LogSoftmax" => one(call.softmax()),
        "LayerNormalization" => call.layer_norm(LAYER_NORM_EPS, true).map_err(Failure::Wrong),
        "RMSNormalization" | "SimplifiedLayerNormalization" => {
            call.layer_norm(LAYER_NORM_EPS, false).map_err(Failure::Wrong)
        }
        "Gelu" => one(call.gelu()),
        "Clip" => one(call.clip()),
        "CastLike" => one(call.cast_like()),
        "ArgMax" => one(call.arg_max()),
        "Swish" => one(call.quick_gelu(1.0)),
        "Softplus" => one(call.map(|x| libm::log1pf(libm::expf(-x.abs())) + x.max(0.0))),
        "Attention" => call.attention().map_err(Failure::Wrong),
        "QuantizeLinear" | "com.microsoft.QuantizeLinear" => one(call.quantize()),
        "DequantizeLinear" | "com.microsoft.DequantizeLinear" => one(call.dequantize()),
        "DynamicQuantizeLinear" => call.dynamic_quantize().map_err(Failure::Wrong),
        "MatMulInteger" => one(call.matmul_integer()),
        "QLinearMatMul" => one(call.qlinear_matmul()),
        "com.microsoft.QGemm" => one(call.qgemm()),
        "com.microsoft.QLinearAdd" => one(call.qlinear_binary(|a, b| a + b)),
        "com.microsoft.QLinearMul" => one(call.qlinear_binary(|a, b| a * b)),
        "com.microsoft.QLinearSigmoid" => one(call.qlinear_map(network::sigmoid)),
        "com.microsoft.QLinearSoftmax" => one(call.qlinear_softmax()),
        "com.microsoft.QLinearWhere" => one(call.qlinear_where()),
        "com.microsoft.QLinearConcat" => one(call.qlinear_concat()),
        "com.microsoft.DynamicQuantizeMatMul" => one(call.dynamic_quantize_matmul()),
        "com.microsoft.MatMulIntegerToFloat" => one(call.matmul_integer_to_float()),
        "com.microsoft.MatMulNBits" => one(call.matmul_bits()),
        "com.microsoft.GatherBlockQuantized" => one(call.gather_blocks()),
        "com.microsoft.Gelu" | "com.microsoft.BiasGelu" => one(call.biased_gelu(false)),
        "com.microsoft.FastGelu" => one(call.biased_gelu(true)),
        "com.microsoft.QuickGelu" => one(call.quick_gelu(QUICK_GELU_ALPHA)),
        "com.microsoft.SkipLayerNormalization" => call.skip_layer_norm(true).map_err(Failure::Wrong),
        "com.microsoft.SkipSimplifiedLayerNormalization" => call.skip_layer_norm(false).map_err(Failure::Wrong),
        "com.microsoft.EmbedLayerNormalization" => call.embed_layer_norm().map_err(Failure::Wrong),
        "com.microsoft.FusedMatMul" => one(call.fused_matmul()),
        "com.microsoft.Attention" => call.packed_attention().map_err(Failure::Wrong),
        "com.microsoft.MultiHeadAttention" => call.multi_head_attention().map_err(Failure::Wrong),
        "Neg" | "Abs" | "Sqrt" | "Floor" | "Ceil" | "Exp" | "Log" | "Sin" | "Cos" | "Tanh" | "Erf" | "Relu"
        | "Sigmoid" | "Reciprocal" => one(call.unary()),
        _ => Err(Failure::Unknown),
    }
}

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
