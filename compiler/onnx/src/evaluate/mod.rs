//! What one ONNX node gives on concrete arrays, and what a whole file does: the meaning of the shape, integer and boolean
//! arithmetic that exporters leave in their files, and of the network itself, against which imports are checked.
//!
//! Slow and obvious. No result has more than `ELEMENTS_MAX` elements, and that is checked before it is made, so a small
//! file cannot ask for much memory. Differences between operator versions (an attribute that became an input) are
//! handled where the operator reads it. Operators that are not here answer `EvaluateError::Unknown`.

mod attention;
pub mod call;
mod contrib;
mod elementwise;
pub mod graph;
mod linear_attention;
mod network;
mod quantised;
mod reduce;
pub mod shape_ops;

use crate::model::OnnxNode;
use crate::tensor::OnnxArray;
use call::{EvaluateError, OnnxCall, count};
use shape_ops::{flat_sizes, reshape_sizes, squeeze_sizes, unsqueeze_sizes};

/// ONNX's default for LayerNormalization.
const LAYER_NORM_EPS: f32 = 1e-5;

/// com.microsoft's default for QuickGelu.
const QUICK_GELU_ALPHA: f32 = 1.702;

/// How many numbers a node reads or multiplies: what keeps a small file from asking for days.
pub fn work(node: &OnnxNode, inputs: &[Option<&OnnxArray>]) -> usize {
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

/// The outputs of `node`, for operands that may be left out.
///
/// ```
/// use snnc_onnx::evaluate::evaluate;
/// use snnc_onnx::model::OnnxNode;
/// use snnc_onnx::tensor::OnnxArray;
///
/// let add = OnnxNode { op_type: "Add".into(), ..OnnxNode::default() };
/// let (row, column) = (OnnxArray::vector(vec![1, 2]), OnnxArray::i64(&[2, 1], vec![10, 20]));
/// let sums = evaluate(&add, 17, &[Some(&row), Some(&column)])?;
/// assert_eq!(sums, [OnnxArray::i64(&[2, 2], vec![11, 12, 21, 22])]);
/// # Ok::<(), snnc_onnx::evaluate::call::EvaluateError>(())
/// ```
///
/// # Errors
/// The operator is not one of `OPERATORS`, or its operands are not what it takes.
pub fn evaluate(node: &OnnxNode, opset: i64, inputs: &[Option<&OnnxArray>]) -> Result<Vec<OnnxArray>, EvaluateError> {
    for empty in inputs.iter().flatten().filter(|x| x.is_empty()) {
        count(empty.sizes())?;
    }
    let call = OnnxCall { node, opset, inputs };
    let operator = node.operator();
    let found = OPERATORS.iter().find(|(name, _)| *name == operator);
    found.map_or(Err(EvaluateError::Unknown), |(_, meaning)| meaning(&call))
}

/// What a node gives, its operands being there or not.
type Meaning = fn(&OnnxCall) -> Result<Vec<OnnxArray>, EvaluateError>;

fn one(result: Result<OnnxArray, String>) -> Result<Vec<OnnxArray>, EvaluateError> {
    Ok(vec![result?])
}

fn all(results: Result<Vec<OnnxArray>, String>) -> Result<Vec<OnnxArray>, EvaluateError> {
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
    ("GlobalAveragePool", |c| one(c.pool())),
    ("Greater", |c| one(c.comparison())),
    ("GreaterOrEqual", |c| one(c.comparison())),
    ("Identity", |c| one(c.arg(0).cloned())),
    ("IsNaN", |c| one(c.is_nan())),
    ("LayerNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, true))),
    ("Less", |c| one(c.comparison())),
    ("LessOrEqual", |c| one(c.comparison())),
    ("LinearAttention", |c| all(c.linear_attention())),
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
    ("RotaryEmbedding", |c| one(c.rotary())),
    ("ScatterND", |c| one(c.scatter_nd())),
    ("Shape", |c| one(c.shape())),
    ("Sigmoid", |c| one(c.unary())),
    ("SimplifiedLayerNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, false))),
    ("Sign", |c| one(c.unary())),
    ("Sin", |c| one(c.unary())),
    ("Size", |c| one(c.arg(0).map(|x| OnnxArray::i64(&[], vec![x.len() as i64])))),
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
    ("TopK", |c| all(c.top_k())),
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
    ("com.microsoft.GroupQueryAttention", |c| all(c.group_query_attention())),
    ("com.microsoft.MatMulIntegerToFloat", |c| one(c.matmul_integer_to_float())),
    ("com.microsoft.MatMulNBits", |c| one(c.matmul_bits())),
    ("com.microsoft.MultiHeadAttention", |c| all(c.multi_head_attention())),
    ("com.microsoft.QAttention", |c| all(c.quantised_attention())),
    ("com.microsoft.QGemm", |c| one(c.qgemm())),
    ("com.microsoft.QLinearAdd", |c| one(c.qlinear_binary(|a, b| a + b))),
    ("com.microsoft.QLinearConcat", |c| one(c.qlinear_concat())),
    ("com.microsoft.QLinearMul", |c| one(c.qlinear_binary(|a, b| a * b))),
    ("com.microsoft.QLinearSigmoid", |c| one(c.qlinear_map(network::sigmoid))),
    ("com.microsoft.QLinearSoftmax", |c| one(c.qlinear_softmax())),
    ("com.microsoft.QLinearWhere", |c| one(c.qlinear_where())),
    ("com.microsoft.QuantizeLinear", |c| one(c.quantize())),
    ("com.microsoft.QuickGelu", |c| one(c.quick_gelu(QUICK_GELU_ALPHA))),
    ("com.microsoft.RotaryEmbedding", |c| one(c.contrib_rotary())),
    ("com.microsoft.SimplifiedLayerNormalization", |c| all(c.layer_norm(LAYER_NORM_EPS, false))),
    ("com.microsoft.SkipLayerNormalization", |c| all(c.skip_layer_norm(true))),
    ("com.microsoft.SkipSimplifiedLayerNormalization", |c| all(c.skip_layer_norm(false))),
];

#[cfg(test)]
mod tests;
