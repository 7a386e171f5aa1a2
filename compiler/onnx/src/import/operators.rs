//! The operators of a network, one by one: an ONNX node on values that depend on the token ids becomes nodes of the graph.

use super::importer::Importer;
use super::reduce::Reduction;
use super::shapes::{ir_shape, kept_axes, reshaped_dims};
use super::value::{ImportError, ImportValue, LiveValue};
use crate::evaluate::call::{OnnxCall, axis, broadcast, count, volume};
use crate::evaluate::shape_ops::{flat_sizes, reshape_sizes, squeeze_sizes, unsqueeze_sizes};
use crate::import::constants::Constant;
use crate::model::{Attribute, OnnxNode};
use crate::tensor::OnnxArray;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::op::{Perm, Scalar};
use snnc_ir::types::{Dim, Elem, Shape};
use snnc_ir::{Binary, Op, Tensor, Type, Unary, Value};
use std::sync::Arc;

/// The version of ONNX in which Softmax lost its flattening to a matrix.
pub(super) const SOFTMAX_ALONG_ONE_AXIS: i64 = 13;

/// Operators that are supported or not by what they are given.
pub(super) const BY_OPERANDS: [&str; 8] = ["Shape", "Size", "Expand", "Gather", "Concat", "Where", "IsNaN", "Greater"];

/// com.microsoft's default for QuickGelu.
const QUICK_GELU_ALPHA: f32 = 1.702;

/// ONNX's default for LayerNormalization.
const LAYER_NORM_EPS: f32 = 1e-5;

impl Importer<'_> {
    pub(super) fn operator(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let one = |live: Result<LiveValue, ImportError>| live.map(|live| vec![ImportValue::Live(live)]);
        match &*node.operator() {
            "Shape" => self.shape(node, inputs, |call, sizes| Ok(OnnxArray::vector(call.shape_of(sizes)))),
            "Size" => self.shape(node, inputs, |_, sizes| Ok(OnnxArray::i64(&[], vec![volume(sizes)? as i64]))),
            "Identity" | "Dropout" => one(self.input(node, inputs, 0)),
            "Cast" => one(self.cast(node, inputs)),
            "Reshape" => Ok(vec![self.reshape(node, inputs, reshape_sizes)?]),
            "Squeeze" => Ok(vec![self.reshape(node, inputs, squeeze_sizes)?]),
            "Unsqueeze" => Ok(vec![self.reshape(node, inputs, unsqueeze_sizes)?]),
            "Flatten" => Ok(vec![self.reshape(node, inputs, flat_sizes)?]),
            "Expand" => one(self.expand(node, inputs)),
            "Tile" => one(self.tile(node, inputs)),
            "Transpose" => one(self.transpose(node, inputs)),
            "Slice" => Ok(vec![self.slice(node, inputs)?]),
            "Split" => self.split(node, inputs),
            "Gather" => Ok(vec![self.pick(node, inputs)?]),
            "GatherND" => Ok(vec![self.gather_nd(node, inputs)?]),
            "Einsum" => one(self.einsum(node, inputs)),
            "Concat" => one(self.concat(node, inputs)),
            "Add" => one(self.binary(node, inputs, Binary::Add)),
            "Sub" => one(self.binary(node, inputs, Binary::Sub)),
            "Mul" => one(self.binary(node, inputs, Binary::Mul)),
            "Div" => one(self.binary(node, inputs, Binary::Div)),
            "Pow" => one(self.binary(node, inputs, Binary::Pow)),
            "Min" => one(self.binary(node, inputs, Binary::Min)),
            "Max" => one(self.binary(node, inputs, Binary::Max)),
            "Neg" => one(self.unary(node, inputs, Unary::Neg)),
            "Sqrt" => one(self.unary(node, inputs, Unary::Sqrt)),
            "Exp" => one(self.unary(node, inputs, Unary::Exp)),
            "Tanh" => one(self.unary(node, inputs, Unary::Tanh)),
            "Erf" => one(self.unary(node, inputs, Unary::Erf)),
            "Sigmoid" => one(self.unary(node, inputs, Unary::Sigmoid)),
            "Relu" => one(self.unary(node, inputs, Unary::Relu)),
            "Reciprocal" => one(self.unary(node, inputs, Unary::Reciprocal)),
            "Sum" => one(self.binary(node, inputs, Binary::Add)),
            "CastLike" => one(self.cast_like(node, inputs)),
            "Gelu" => {
                let x = self.input(node, inputs, 0)?;
                one(self.gelu(node, &x, node.text("approximate").unwrap_or("none")))
            }
            "com.microsoft.Gelu" | "com.microsoft.BiasGelu" => {
                let x = self.biased(node, inputs, 1)?;
                one(self.gelu(node, &x, "none"))
            }
            "com.microsoft.FastGelu" => {
                let x = self.biased(node, inputs, 1)?;
                one(self.gelu(node, &x, "tanh"))
            }
            "com.microsoft.QuickGelu" => {
                let x = self.input(node, inputs, 0)?;
                one(self.swish(node, &x, node.float("alpha").unwrap_or(QUICK_GELU_ALPHA)))
            }
            "Swish" => {
                let x = self.input(node, inputs, 0)?;
                one(self.swish(node, &x, node.float("alpha").unwrap_or(1.0)))
            }
            "RotaryEmbedding" => one(self.rotary(node, inputs, [1, 2, 3])),
            "com.microsoft.RotaryEmbedding" => one(self.rotary(node, inputs, [2, 3, 1])),
            "Attention" => self.attention(node, inputs),
            "com.microsoft.Attention" => one(self.packed_attention(node, inputs)),
            "com.microsoft.MultiHeadAttention" => self.multi_head_attention(node, inputs),
            "com.microsoft.GroupQueryAttention" => self.group_query_attention(node, inputs),
            "com.microsoft.SkipLayerNormalization" => self.skip_layer_norm(node, inputs),
            "RMSNormalization" | "SimplifiedLayerNormalization" => one(self.rms_norm(node, inputs, LAYER_NORM_EPS)),
            "com.microsoft.SimplifiedLayerNormalization" => one(self.rms_norm(node, inputs, LAYER_NORM_EPS)),
            "com.microsoft.SkipSimplifiedLayerNormalization" => self.skip_rms_norm(node, inputs),
            "com.microsoft.EmbedLayerNormalization" => self.embed_layer_norm(node, inputs),
            "com.microsoft.FusedMatMul" => one(self.fused_matmul(node, inputs)),
            "Where" => one(self.choose(node, inputs)),
            "IsNaN" => self.is_nan(node, inputs),
            "Greater" => self.is_greater(node, inputs),
            "MatMul" => one(self.matmul(node, inputs)),
            "Gemm" => one(self.gemm(node, inputs)),
            "ReduceMean" => one(self.reduced(node, inputs, Reduction::Mean)),
            "ReduceSum" => one(self.reduced(node, inputs, Reduction::Sum)),
            "ReduceMax" => one(self.reduced(node, inputs, Reduction::Max)),
            "GlobalAveragePool" => one(self.pooled(node, inputs)),
            "Softmax" => one(self.softmax(node, inputs)),
            "LayerNormalization" => one(self.layer_norm(node, inputs)),
            _ => Err(ImportError::Unsupported),
        }
    }

    /// The `i`-th input as an operand.
    pub(super) fn input(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        i: usize,
    ) -> Result<LiveValue, ImportError> {
        let value = inputs.get(i).and_then(Option::as_ref).ok_or_else(|| format!("input {} is missing", i + 1))?;
        self.operand(value, node)
    }

    pub(super) fn add(
        &mut self,
        node: &OnnxNode,
        op: Op,
        args: &[Value],
        dims: Vec<Dim>,
    ) -> Result<LiveValue, ImportError> {
        let value = self.builder.add(op, args, node.label())?;
        Ok(self.live(value, dims)?)
    }

    /// What is known of a shape.
    fn shape(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        f: impl Fn(&OnnxCall, &[usize]) -> Result<OnnxArray, String>,
    ) -> Result<Vec<ImportValue>, ImportError> {
        let dims = match inputs.first().and_then(Option::as_ref) {
            Some(ImportValue::Live(live)) => live.dims.clone(),
            Some(ImportValue::Never(dims)) => dims.clone(),
            Some(ImportValue::Merged(merged)) => {
                let sizes = |call: &OnnxCall, k: usize| f(call, &merged.sizes(self.counts[k])).map(Arc::new);
                return Ok(vec![ImportValue::Constant(Constant::of(node.label(), self.at_each(node, inputs, sizes)?))]);
            }
            _ => return Err(ImportError::Unsupported),
        };
        let arrays = self.at_each(node, inputs, |call, k| f(call, &self.sizes(&dims, k)).map(Arc::new))?;
        Ok(vec![ImportValue::Constant(Constant::of(node.label(), arrays))])
    }

    /// Casts between kinds of floats, or kinds of integers, change nothing here.
    fn cast(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        use crate::tensor::OnnxElem;
        let x = self.input(node, inputs, 0)?;
        let to = node
            .int("to")
            .and_then(|to| OnnxElem::of_onnx(i32::try_from(to).ok()?))
            .ok_or("the type to cast to is not supported")?;
        match (self.builder.ty(x.value).elem(), to) {
            (Some(Elem::F32), OnnxElem::F32) | (Some(Elem::I32), OnnxElem::I64 | OnnxElem::I32) => Ok(x),
            _ => Err(format!("a cast to {} of what depends on the token ids is not supported", to.name()).into()),
        }
    }

    fn cast_like(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let (x, like) = (self.input(node, inputs, 0)?, inputs.get(1).and_then(Option::as_ref));
        let is_float = match like {
            Some(ImportValue::Constant(constant)) => constant.at(0).as_f32().is_some(),
            Some(ImportValue::Live(live)) => self.builder.ty(live.value).elem() == Some(Elem::F32),
            _ => false,
        };
        if is_float == (self.builder.ty(x.value).elem() == Some(Elem::F32)) {
            return Ok(x);
        }
        Err("a cast of what depends on the token ids is not supported".into())
    }

    fn reshape(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        sizes: impl Fn(&OnnxCall, &[usize]) -> Result<Vec<usize>, String>,
    ) -> Result<ImportValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let all = self.at_each(node, inputs, |call, k| sizes(call, &self.sizes(&x.dims, k)))?;
        match reshaped_dims(&x.dims, &all, &self.counts) {
            Ok(dims) => Ok(ImportValue::Live(self.reshaped(node, x, dims)?)),
            Err(message) => Ok(self.merged_axes(node, x, &all)?.ok_or(message)?),
        }
    }

    pub(super) fn reshaped(&mut self, node: &OnnxNode, x: LiveValue, dims: Vec<Dim>) -> Result<LiveValue, ImportError> {
        let (x, shape) = (self.whole(node, &x)?, ir_shape(&dims)?);
        if self.builder.ty(x.value).shape() == shape {
            return Ok(LiveValue { value: x.value, dims });
        }
        if let (Some(weight), Some(sizes)) = (self.builder.graph().constant(x.value), shape.sizes()) {
            let (name, tensor) = (weight.name.clone(), Tensor::new(sizes, weight.tensor.data().clone()));
            return Ok(LiveValue { value: self.builder.weight(&name, Arc::new(tensor)), dims });
        }
        self.add(node, Op::Array(ArrayOp::Reshape(shape)), &[x.value], dims)
    }

    /// Axes in another order.
    fn transpose(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let perm = OnnxCall { node, opset: self.model.opset(), inputs: &[] }.permutation(x.dims.len())?;
        self.transposed(node, x, &perm)
    }

    pub(super) fn transposed(
        &mut self,
        node: &OnnxNode,
        x: LiveValue,
        perm: &[usize],
    ) -> Result<LiveValue, ImportError> {
        if perm.len() != x.dims.len() {
            return Err(format!("a matrix is wanted, here are {} axes", x.dims.len()).into());
        }
        let x = self.whole(node, &x)?;
        let dims: Vec<Dim> = perm.iter().map(|&axis| x.dims[axis]).collect();
        // Sizes of 1 that the IR has on neither side are put aside before and back after.
        let kept = kept_axes(&x.dims);
        let kept_after: Vec<usize> = kept_axes(&dims).into_iter().map(|axis| perm[axis]).collect();
        let both = |axis: &usize| kept.contains(axis) && kept_after.contains(axis);
        let from: Vec<usize> = kept.iter().copied().filter(both).collect();
        let to: Vec<usize> = kept_after.iter().copied().filter(both).collect();
        let order: Vec<usize> = to.iter().filter_map(|axis| from.iter().position(|other| other == axis)).collect();
        let order = Perm::new(&order).ok_or_else(|| format!("{} axes cannot be turned", order.len()))?;
        let dense: Vec<Dim> = from.iter().map(|&axis| x.dims[axis]).collect();
        let turned: Vec<Dim> = to.iter().map(|&axis| x.dims[axis]).collect();
        let x = self.reshaped(node, x, dense)?;
        let x = self.add(node, Op::Array(ArrayOp::Transpose(order)), &[x.value], turned)?;
        self.reshaped(node, x, dims)
    }

    /// NumPy's rule, at every number of tokens. In a file of one number of tokens, that number beside tokens is tokens.
    pub(super) fn broadcast(&self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
        for k in 0..self.counts.len() {
            broadcast(&self.sizes(a, k), &self.sizes(b, k))?;
        }
        let rank = a.len().max(b.len());
        let at = |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map_or(Dim::Fixed(1), |i| dims[i]);
        let dim = |i: usize| match (at(a, i), at(b, i)) {
            (Dim::Fixed(1), dim) | (dim, Dim::Fixed(1)) => dim,
            (Dim::Tokens, _) | (_, Dim::Tokens) => Dim::Tokens,
            (dim, _) => dim,
        };
        Ok((0..rank).map(dim).collect())
    }

    fn binary(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        kind: Binary,
    ) -> Result<LiveValue, ImportError> {
        let mut x = self.input(node, inputs, 0)?;
        for i in 1..inputs.len() {
            let y = self.input(node, inputs, i)?;
            x = self.combined(node, kind, &x, &y)?;
        }
        Ok(x)
    }

    pub(super) fn combined(
        &mut self,
        node: &OnnxNode,
        kind: Binary,
        x: &LiveValue,
        y: &LiveValue,
    ) -> Result<LiveValue, ImportError> {
        let dims = self.broadcast(&x.dims, &y.dims)?;
        let (x, y) = (self.beside(node, x, y)?, self.beside(node, y, x)?);
        let (mut x, mut y) = (self.aligned(node, x, &dims)?, self.aligned(node, y, &dims)?);
        // One number serves for a constant of equal elements, unless that is the one that the other is stretched to.
        let shape = ir_shape(&dims)?;
        if ![&x, &y].iter().any(|operand| self.builder.ty(operand.value).shape() == shape) {
            (x, y) = (self.whole(node, &x)?, self.whole(node, &y)?);
        }
        self.add(node, Op::Array(ArrayOp::Binary(kind)), &[x.value, y.value], dims)
    }

    /// A value with the sizes of 1 that it needs to stand beside others in a result of `dims`: the IR leaves some out.
    fn aligned(&mut self, node: &OnnxNode, x: LiveValue, dims: &[Dim]) -> Result<LiveValue, ImportError> {
        let own = self.builder.ty(x.value).shape();
        let Some(ahead) = dims.len().checked_sub(x.dims.len()).filter(|_| own.rank() > 0) else { return Ok(x) };
        let sizes =
            kept_axes(dims).into_iter().map(|axis| axis.checked_sub(ahead).map_or(Dim::Fixed(1), |i| x.dims[i]));
        let sizes: Vec<Dim> = sizes.skip_while(|dim| *dim == Dim::Fixed(1)).collect();
        if own.dims() == sizes {
            return Ok(x);
        }
        if sizes.len() > Shape::MAX_RANK {
            return Err(format!("a value has {} axes; {} are possible", sizes.len(), Shape::MAX_RANK).into());
        }
        let value = self.builder.add(Op::Array(ArrayOp::Reshape(Shape::new(&sizes))), &[x.value], node.label())?;
        Ok(LiveValue { value, dims: x.dims })
    }

    /// The second where the first is not 0, else the third.
    pub(super) fn selected(
        &mut self,
        node: &OnnxNode,
        [c, a, b]: [LiveValue; 3],
        dims: Vec<Dim>,
    ) -> Result<LiveValue, ImportError> {
        let (c, a, b) = (self.aligned(node, c, &dims)?, self.aligned(node, a, &dims)?, self.aligned(node, b, &dims)?);
        self.add(node, Op::Array(ArrayOp::Where), &[c.value, a.value, b.value], dims)
    }

    /// In a file of one number of tokens, a constant with a row for each token is a table of positions.
    fn beside(&mut self, node: &OnnxNode, x: &LiveValue, other: &LiveValue) -> Result<LiveValue, ImportError> {
        let &[n] = self.counts.as_slice() else { return Ok(x.clone()) };
        let batch = |dims: &[Dim]| dims.len() > 2 && dims[dims.len() - 2] == Dim::Fixed(1);
        let (before, [rows, .., width]) = x.dims.split_at(x.dims.len().saturating_sub(2 + usize::from(batch(&x.dims))))
        else {
            return Ok(x.clone());
        };
        let (Dim::Fixed(rows), Some(weight)) = (*rows, self.builder.graph().constant(x.value)) else {
            return Ok(x.clone());
        };
        let behind_tokens = match other.dims.as_slice() {
            [.., Dim::Tokens, last] | [.., Dim::Tokens, Dim::Fixed(1), last] => last == width,
            _ => false,
        };
        if rows as usize != n || weight.tensor.sizes().first() != Some(&n) || !behind_tokens {
            return Ok(x.clone());
        }
        let (name, tensor) = (weight.name.clone(), weight.tensor.clone());
        let mut table = x.value;
        if tensor.sizes().len() != 2 {
            let sizes = vec![n, tensor.sizes().iter().skip(1).product()];
            let rows = Tensor::new(sizes, tensor.data().clone());
            table = self.builder.weight(&format!("{name} by position"), Arc::new(rows));
        }
        let positions = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
        let mut dims = before.to_vec();
        dims.extend(x.dims[before.len()..].iter().enumerate().map(|(i, dim)| if i == 0 { Dim::Tokens } else { *dim }));
        self.add(node, Op::Dense(DenseOp::Embed), &[positions, table], dims)
    }

    fn unary(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        kind: Unary,
    ) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        self.add(node, Op::Array(ArrayOp::Unary(kind)), &[x.value], x.dims.clone())
    }

    pub(super) fn number(&mut self, number: f32) -> LiveValue {
        LiveValue { value: self.scalar(number), dims: Vec::new() }
    }

    pub(super) fn times(&mut self, node: &OnnxNode, x: &LiveValue, factor: f32) -> Result<LiveValue, ImportError> {
        if factor == 1.0 {
            return Ok(x.clone());
        }
        let factor = self.number(factor);
        self.combined(node, Binary::Mul, x, &factor)
    }

    pub(super) fn choose(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let [Some(condition), Some(_), Some(_)] = inputs else { return Err("an input is missing".into()) };
        let (dims, sure) = match condition {
            ImportValue::Constant(constant) => (constant.dims(&self.counts)?, constant.uniform().map(|x| x != 0.0)),
            ImportValue::Never(dims) => (dims.clone(), Some(false)),
            _ => return Err(ImportError::Unsupported),
        };
        let (a, b) = (self.input(node, inputs, 1)?, self.input(node, inputs, 2)?);
        let dims = self.broadcast(&self.broadcast(&dims, &a.dims)?, &b.dims)?;
        let chosen = match sure {
            Some(true) => a,
            Some(false) => b,
            None => {
                let c = self.operand(condition, node)?;
                return self.selected(node, [c, a, b], dims);
            }
        };
        if ir_shape(&chosen.dims)? == ir_shape(&dims)? {
            Ok(LiveValue { value: chosen.value, dims })
        } else {
            Err(ImportError::Unsupported)
        }
    }

    /// A softmax of finite scores is never NaN, and every engine refuses scores that are not finite.
    fn is_nan(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<Vec<ImportValue>, ImportError> {
        let x = self.input(node, inputs, 0)?;
        if self.builder.graph().node(x.value).op != Op::Array(ArrayOp::Softmax) {
            return Err(ImportError::Unsupported);
        }
        Ok(vec![ImportValue::Never(x.dims)])
    }

    fn matmul(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let (a, b) = (self.input(node, inputs, 0)?, self.input(node, inputs, 1)?);
        self.product(node, &a, &b)
    }

    /// Products of two operands that sum over the labels that they share and the result has not. Several labels that play
    /// the same part are put together into one axis: weights may have an axis for heads.
    fn einsum(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let equation: String = node.text("equation").unwrap_or("").chars().filter(|c| !c.is_whitespace()).collect();
        let refused = || ImportError::Invalid(format!("the equation {equation:?} is not supported"));
        let [a, b] = [self.input(node, inputs, 0)?, self.input(node, inputs, 1)?];
        let (Some((left, out)), 2) = (equation.split_once("->"), inputs.len()) else { return Err(refused()) };
        let parts: Vec<Vec<char>> = left.split(',').map(|part| part.chars().collect()).collect();
        let out: Vec<char> = out.chars().collect();
        let [left, right] = parts.as_slice() else { return Err("two operands are wanted".into()) };
        let both: Vec<char> = left.iter().copied().filter(|c| right.contains(c)).collect();
        let (batch, summed): (Vec<char>, Vec<char>) = both.iter().partition(|c| out.contains(c));
        let free = |labels: &[char]| labels.iter().copied().filter(|c| !both.contains(c)).collect::<Vec<char>>();
        let (rows, columns) = (free(left), free(right));
        let fits = left.len() == a.dims.len() && right.len() == b.dims.len();
        if !fits || out.len() != batch.len() + rows.len() + columns.len() || summed.is_empty() {
            return Err(refused());
        }
        let order = |from: &[char], to: &[char]| -> Result<Vec<usize>, ImportError> {
            let at = |c: &char| from.iter().position(|other| other == c);
            to.iter().map(at).collect::<Option<_>>().ok_or_else(|| "a label is used by nothing".into())
        };
        let dims_of = |labels: &[char], from: &[char], x: &LiveValue| -> Vec<Dim> {
            labels.iter().filter_map(|c| from.iter().position(|other| other == c)).map(|axis| x.dims[axis]).collect()
        };
        let (lead, ends) = (dims_of(&batch, left, &a), [dims_of(&rows, left, &a), dims_of(&columns, right, &b)]);
        let sums = together(&dims_of(&summed, left, &a)).ok_or_else(refused)?;
        let [n, m] = [together(&ends[0]).ok_or_else(refused)?, together(&ends[1]).ok_or_else(refused)?];
        let a = self.permuted(node, inputs, 0, a, &order(left, &[&batch[..], &rows, &summed].concat())?)?;
        let a = self.reshaped(node, a, [&lead[..], &[n, sums]].concat())?;
        let b = self.permuted(node, inputs, 1, b, &order(right, &[&batch[..], &summed, &columns].concat())?)?;
        let b = self.reshaped(node, b, [&lead[..], &[sums, m]].concat())?;
        let y = self.product(node, &a, &b)?;
        let y = self.reshaped(node, y, [&lead[..], &ends[0], &ends[1]].concat())?;
        self.transposed(node, y, &order(&[&batch[..], &rows, &columns].concat(), &out)?)
    }

    /// An operand with its axes in another order; those of a constant of more than two axes are turned here and now.
    fn permuted(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        i: usize,
        x: LiveValue,
        perm: &[usize],
    ) -> Result<LiveValue, ImportError> {
        let constant = inputs.get(i).and_then(Option::as_ref).filter(|value| matches!(value, ImportValue::Constant(_)));
        let Some(constant) = constant.filter(|_| x.dims.len() > 2 && !perm.is_sorted()) else {
            return self.transposed(node, x, perm);
        };
        let turn = OnnxNode {
            op_type: "Transpose".into(),
            outputs: vec![node.inputs[i].clone()],
            attributes: [("perm".to_string(), Attribute::Ints(perm.iter().map(|&axis| axis as i64).collect()))].into(),
            ..OnnxNode::default()
        };
        let turned = self.evaluated(&turn, &[Some(constant)])?;
        self.operand(&ImportValue::Constant(turned), node)
    }

    /// A product, and a bias where there is one.
    pub(super) fn product_plus(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        w: &LiveValue,
        bias: Option<&ImportValue>,
    ) -> Result<LiveValue, ImportError> {
        let y = self.product(node, x, w)?;
        let Some(bias) = bias else { return Ok(y) };
        let bias = self.operand(bias, node)?;
        self.combined(node, Binary::Add, &y, &bias)
    }

    pub(super) fn product(&mut self, node: &OnnxNode, a: &LiveValue, b: &LiveValue) -> Result<LiveValue, ImportError> {
        let ([lead_a @ .., n, _], [lead_b @ .., _, m]) = (a.dims.as_slice(), b.dims.as_slice()) else {
            return Err("matrices are wanted".into());
        };
        let mut dims = self.broadcast(lead_a, lead_b)?;
        dims.extend([*n, *m]);
        let (a, b) = (self.whole(node, a)?, self.whole(node, b)?);
        self.add(node, Op::Array(ArrayOp::MatMul), &[a.value, b.value], dims)
    }

    /// com.microsoft.FusedMatMul: alpha * A B, either of them turned.
    fn fused_matmul(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        if ["transBatchA", "transBatchB"].iter().any(|name| node.int(name).unwrap_or(0) != 0) {
            return Err("batches that are turned are not supported".into());
        }
        let mut operands = Vec::new();
        for (i, turn) in ["transA", "transB"].into_iter().enumerate() {
            let x = self.input(node, inputs, i)?;
            let rank = x.dims.len();
            let turned = node.int(turn).unwrap_or(0) != 0 && rank >= 2;
            let perm: Vec<usize> = (0..rank.saturating_sub(2)).chain([rank - 1, rank.saturating_sub(2)]).collect();
            operands.push(if turned { self.transposed(node, x, &perm)? } else { x });
        }
        let product = self.product(node, &operands[0], &operands[1])?;
        self.times(node, &product, node.float("alpha").unwrap_or(1.0))
    }

    /// alpha * A B + beta * C.
    fn gemm(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let mut operands = Vec::new();
        for (i, turn) in ["transA", "transB"].into_iter().enumerate() {
            let x = self.input(node, inputs, i)?;
            let turned = node.int(turn).unwrap_or(0) != 0;
            operands.push(if turned { self.transposed(node, x, &[1, 0])? } else { x });
        }
        let product = self.product(node, &operands[0], &operands[1])?;
        let product = self.times(node, &product, node.float("alpha").unwrap_or(1.0))?;
        if inputs.get(2).and_then(Option::as_ref).is_none() {
            return Ok(product);
        }
        let bias = self.input(node, inputs, 2)?;
        let bias = self.times(node, &bias, node.float("beta").unwrap_or(1.0))?;
        self.combined(node, Binary::Add, &product, &bias)
    }

    fn softmax(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        self.softmax_of(node, &x, if self.model.opset() < SOFTMAX_ALONG_ONE_AXIS { 1 } else { -1 })
    }

    pub(super) fn softmax_of(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        default: i64,
    ) -> Result<LiveValue, ImportError> {
        let axis = axis(node.int("axis").unwrap_or(default), x.dims.len())?;
        if axis + 1 != x.dims.len() {
            return Err("only a softmax over the innermost axis is supported".into());
        }
        self.add(node, Op::Array(ArrayOp::Softmax), &[x.value], x.dims.clone())
    }

    fn layer_norm(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let axis = axis(node.int("axis").unwrap_or(-1), x.dims.len())?;
        if axis + 1 != x.dims.len() {
            return Err("only a LayerNormalization of the innermost axis is supported".into());
        }
        let Dim::Fixed(width) = x.dims[axis] else { return Err("the innermost axis should have a fixed size".into()) };
        let gain = self.channels(node, inputs, 1, width, 1.0)?;
        let bias = self.channels(node, inputs, 2, width, 0.0)?;
        let eps = Scalar::new(node.float("epsilon").unwrap_or(LAYER_NORM_EPS));
        self.layer_norm_of(node, &x, eps, [gain, bias])
    }

    /// `centre`, `rms_norm`, then gain and bias, over the innermost axis.
    pub(super) fn layer_norm_of(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        eps: Scalar,
        [gain, bias]: [Value; 2],
    ) -> Result<LiveValue, ImportError> {
        let centred = self.add(node, Op::Dense(DenseOp::Centre), &[x.value], x.dims.clone())?;
        let rms = Op::Dense(DenseOp::RmsNorm { eps, heads: 1 });
        let normal = self.add(node, rms, &[centred.value], x.dims.clone())?;
        self.add(node, Op::Level(LevelOp::ScaleShift), &[normal.value, gain, bias], x.dims.clone())
    }

    /// A vector of `width` numbers; `default` where it is left out. One number alone is spread out.
    pub(super) fn channels(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        i: usize,
        width: u32,
        default: f32,
    ) -> Result<Value, ImportError> {
        let value = inputs.get(i).and_then(Option::as_ref);
        let number = match value {
            None => Some(default),
            Some(ImportValue::Constant(constant)) => constant.uniform(),
            Some(_) => None,
        };
        if let Some(number) = number {
            let array = OnnxArray::f32(&[width as usize], vec![number; count(&[width as usize])?]);
            let name = value.map_or(format!("{}.{i}", node.label()), |_| node.inputs[i].clone());
            return Ok(self.weight(&name, &Arc::new(array))?);
        }
        let x = self.input(node, inputs, i)?;
        match self.builder.ty(x.value) {
            ty @ Type::Tensor { .. } if ty.shape() == Shape::fixed(&[width as usize]) => Ok(x.value),
            other => Err(format!("input {} should be f32[{width}], it is {other}", i + 1).into()),
        }
    }
}

/// Several axes as one; `None` where that is no size in the IR.
fn together(dims: &[Dim]) -> Option<Dim> {
    let mut one = Dim::Fixed(1);
    for &dim in dims {
        one = match (one, dim) {
            (Dim::Fixed(1), dim) | (dim, Dim::Fixed(1)) => dim,
            (Dim::Fixed(a), Dim::Fixed(b)) => Dim::Fixed(a.checked_mul(b)?),
            _ => return None,
        };
    }
    Some(one)
}

impl OnnxCall<'_> {
    fn shape_of(&self, sizes: &[usize]) -> Vec<i64> {
        crate::evaluate::shape_ops::shape_span(self, sizes).iter().map(|&n| n as i64).collect()
    }
}
