//! Operators that stand for several: activation functions, normalised sums, attention. Each becomes the plain operations
//! that it means, so that recognition sees one network whoever wrote it.

use super::importer::Importer;
use super::shapes::fixed;
use super::value::{ImportError, ImportValue, LiveValue};
use crate::model::OnnxNode;
use snnc_ir::op::ArrayOp;
use snnc_ir::op::Scalar;
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Op, Unary};

/// com.microsoft.LayerNormalization and its relatives have an epsilon of their own.
const CONTRIB_EPS: f32 = 1e-12;

/// Which keys a query sees, beside what a mask says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyView {
    All,
    Past,
}

impl Importer<'_> {
    /// x/2 * (1 + erf(x / sqrt 2)), or x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
    pub(super) fn gelu(&mut self, node: &OnnxNode, x: &LiveValue, approximate: &str) -> Result<LiveValue, ImportError> {
        use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};
        let (kind, inner) = match approximate {
            "none" => (Unary::Erf, self.times(node, x, FRAC_1_SQRT_2)?),
            "tanh" => {
                let three = self.number(3.0);
                let cube = self.combined(node, Binary::Pow, x, &three)?;
                let cube = self.times(node, &cube, 0.044715)?;
                let sum = self.combined(node, Binary::Add, x, &cube)?;
                (Unary::Tanh, self.times(node, &sum, FRAC_2_SQRT_PI * FRAC_1_SQRT_2)?)
            }
            other => return Err(format!("the approximation {other:?} is not known").into()),
        };
        let curve = self.add(node, Op::Array(ArrayOp::Unary(kind)), &[inner.value], inner.dims)?;
        let one = self.number(1.0);
        let gate = self.combined(node, Binary::Add, &curve, &one)?;
        let half = self.times(node, x, 0.5)?;
        self.combined(node, Binary::Mul, &half, &gate)
    }

    /// x * sigmoid(alpha x).
    pub(super) fn swish(&mut self, node: &OnnxNode, x: &LiveValue, alpha: f32) -> Result<LiveValue, ImportError> {
        let inner = self.times(node, x, alpha)?;
        let gate = self.add(node, Op::Array(ArrayOp::Unary(Unary::Sigmoid)), &[inner.value], inner.dims)?;
        self.combined(node, Binary::Mul, x, &gate)
    }

    /// An input plus a bias, where there is one.
    pub(super) fn biased(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        bias: usize,
    ) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        match inputs.get(bias).and_then(Option::as_ref) {
            Some(bias) => {
                let bias = self.operand(bias, node)?;
                self.combined(node, Binary::Add, &x, &bias)
            }
            None => Ok(x),
        }
    }

    /// com.microsoft.SkipLayerNormalization: the norm of input + skip + bias, and that sum.
    pub(super) fn skip_layer_norm(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let skip = self.input(node, inputs, 1)?;
        let sum = self.biased(node, inputs, 4)?;
        let sum = self.combined(node, Binary::Add, &sum, &skip)?;
        let normal = self.normal(node, inputs, &sum, [2, 3])?;
        Ok(vec![ImportValue::Live(normal), ImportValue::Failed, ImportValue::Failed, ImportValue::Live(sum)])
    }

    /// LayerNorm of `x` over its innermost axis, gain and bias being inputs.
    fn normal(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        x: &LiveValue,
        at: [usize; 2],
    ) -> Result<LiveValue, ImportError> {
        let Some(&Dim::Fixed(width)) = x.dims.last() else {
            return Err("the innermost axis should have a fixed size".into());
        };
        let gain = self.channels(node, inputs, at[0], width, 1.0)?;
        let bias = self.channels(node, inputs, at[1], width, 0.0)?;
        let eps = Scalar::new(node.float("epsilon").unwrap_or(CONTRIB_EPS));
        self.layer_norm_of(node, x, eps, [gain, bias])
    }

    /// com.microsoft.EmbedLayerNormalization: ids, segment ids, three tables, gain, bias, mask, position ids.
    pub(super) fn embed_layer_norm(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let table = |i: usize| match at(i) {
            Some(ImportValue::Constant(constant)) => Ok(constant.clone()),
            _ => Err(ImportError::Invalid(format!("input {} should be a constant table", i + 1))),
        };
        let ids = at(0).ok_or("the token ids are missing")?.clone();
        let positions = match at(8) {
            Some(value) => value.clone(),
            None => ImportValue::Constant(self.counted(node)),
        };
        let not_rows = || ImportError::Invalid("ids and positions should index its tables".into());
        let tokens = self.embed_rows(node, &table(2)?, &ids)?.ok_or_else(not_rows)?;
        let places = self.embed_rows(node, &table(3)?, &positions)?.ok_or_else(not_rows)?;
        let mut sum = self.combined(node, Binary::Add, &tokens, &places)?;
        if let (Some(segments), Some(ImportValue::Constant(table))) = (at(1), at(4)) {
            let segments = self.gathered(node, table, segments)?;
            let segments = self.operand(&segments, node)?;
            sum = self.combined(node, Binary::Add, &sum, &segments)?;
        }
        let normal = self.normal(node, inputs, &sum, [5, 6])?;
        Ok(vec![ImportValue::Live(normal), ImportValue::Constant(self.lengths(node)), ImportValue::Live(sum)])
    }

    /// `[1, tokens, d]` as `[1, heads, tokens, w]`.
    fn heads(&mut self, node: &OnnxNode, x: LiveValue, heads: u32) -> Result<LiveValue, ImportError> {
        let [lead @ .., tokens, Dim::Fixed(width)] = x.dims.as_slice() else {
            return Err("attention wants [batch,tokens,width]".into());
        };
        if heads == 0 || !width.is_multiple_of(heads) || lead.iter().any(|&dim| dim != Dim::Fixed(1)) {
            return Err(format!("{heads} heads do not divide a width of {width}").into());
        }
        let dims = vec![Dim::Fixed(1), *tokens, Dim::Fixed(heads), Dim::Fixed(width / heads)];
        let split = self.reshaped(node, x, dims)?;
        self.transposed(node, split, &[0, 2, 1, 3])
    }

    /// And back.
    fn merged(&mut self, node: &OnnxNode, x: LiveValue) -> Result<LiveValue, ImportError> {
        let x = self.transposed(node, x, &[0, 2, 1, 3])?;
        let &[one, tokens, Dim::Fixed(heads), Dim::Fixed(width)] = x.dims.as_slice() else {
            return Err("attention wants heads of a fixed size".into());
        };
        self.reshaped(node, x, vec![one, tokens, fixed(heads as usize * width as usize)?])
    }

    /// softmax(scale q k^T + mask) v, all `[1, heads, tokens, w]`.
    fn attend(
        &mut self,
        node: &OnnxNode,
        [q, k, v]: [&LiveValue; 3],
        scale: Option<f32>,
        view: KeyView,
        mask: Option<&ImportValue>,
    ) -> Result<LiveValue, ImportError> {
        let (&[_, _, _, Dim::Fixed(width)], 4, 4) = (q.dims.as_slice(), k.dims.len(), v.dims.len()) else {
            return Err("attention wants heads of a fixed size".into());
        };
        if q.dims[1] != k.dims[1] || q.dims[1] != v.dims[1] {
            return Err("queries, keys and values should have the same number of heads".into());
        }
        let turned = self.transposed(node, k.clone(), &[0, 1, 3, 2])?;
        let scores = self.product(node, q, &turned)?;
        let scale = scale.filter(|&scale| scale != 0.0).unwrap_or_else(|| 1.0 / (width as f32).sqrt());
        let mut scores = self.times(node, &scores, scale)?;
        if view == KeyView::Past {
            let select =
                Op::Array(ArrayOp::CausalMask { keep: Scalar::new(1.0), drop: Scalar::new(0.0), window: None });
            let selected = self.builder.add(select, &[], node.label())?;
            let lowest = self.number(f32::MIN);
            let dims = scores.dims.clone();
            scores = self.add(node, Op::Array(ArrayOp::Where), &[selected, scores.value, lowest.value], dims)?;
        }
        if let Some(mask) = mask {
            scores = self.masked(node, scores, mask)?;
        }
        let weights = self.add(node, Op::Array(ArrayOp::Softmax), &[scores.value], scores.dims)?;
        self.product(node, &weights, v)
    }

    /// Scores behind a mask: booleans keep or drop, numbers are added.
    fn masked(&mut self, node: &OnnxNode, scores: LiveValue, mask: &ImportValue) -> Result<LiveValue, ImportError> {
        let ImportValue::Constant(constant) = mask else {
            return Err("its mask depends on the token ids".into());
        };
        let is_bool = constant.at(0).as_bool().is_some();
        if constant.uniform() == Some(if is_bool { 1.0 } else { 0.0 }) {
            return Ok(scores);
        }
        let mask = self.operand(mask, node)?;
        if !is_bool {
            return self.combined(node, Binary::Add, &scores, &mask);
        }
        let lowest = self.number(f32::MIN);
        let dims = self.broadcast(&scores.dims, &mask.dims)?;
        self.add(node, Op::Array(ArrayOp::Where), &[mask.value, scores.value, lowest.value], dims)
    }

    /// ONNX's own Attention: q, k, v, mask, and a past, which is empty here.
    pub(super) fn attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<LiveValue, ImportError> {
        if node.float("softcap").unwrap_or(0.0) != 0.0 {
            return Err("soft-capped scores are not part of GPT-2".into());
        }
        let mut qkv = Vec::new();
        let mut rows = false;
        for (i, count) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
            let x = self.input(node, inputs, i)?;
            rows = x.dims.len() == 3;
            qkv.push(if rows { self.heads(node, x, self.count_of(node, count)?)? } else { x });
        }
        for past in inputs.iter().skip(4).take(2).flatten() {
            self.is_no_past(past)?;
        }
        let view = if node.int("is_causal").unwrap_or(0) != 0 { KeyView::Past } else { KeyView::All };
        let mask = inputs.get(3).and_then(Option::as_ref);
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], node.float("scale"), view, mask)?;
        if rows { self.merged(node, y) } else { Ok(y) }
    }

    fn count_of(&self, node: &OnnxNode, name: &str) -> Result<u32, ImportError> {
        let count = node.int(name).and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0);
        count.ok_or_else(|| format!("attribute {name} should be a number of heads").into())
    }

    fn is_no_past(&self, past: &ImportValue) -> Result<(), ImportError> {
        match past {
            ImportValue::Constant(constant) if (0..self.counts.len()).all(|k| constant.at(k).is_empty()) => Ok(()),
            _ => Err("its past is not one that the file takes as an input".into()),
        }
    }

    /// com.microsoft.Attention: one projection to queries, keys and values, and attention on them.
    pub(super) fn packed_attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<LiveValue, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let (x, w) = (self.input(node, inputs, 0)?, self.input(node, inputs, 1)?);
        let all = self.product_plus(node, &x, &w, at(2))?;
        self.attend_packed(node, &all, [at(3), at(4), at(5)])
    }

    /// Attention on queries, keys and values side by side, with a mask, a past and what is added to scores.
    pub(super) fn attend_packed(
        &mut self,
        node: &OnnxNode,
        all: &LiveValue,
        [mask, past, added]: [Option<&ImportValue>; 3],
    ) -> Result<LiveValue, ImportError> {
        if let Some(past) = past {
            self.is_no_past(past)?;
        }
        let axis = all.dims.len() - 1;
        let Dim::Fixed(width) = all.dims[axis] else { return Err("its weights should have a fixed size".into()) };
        let width = width as usize;
        let sizes = match node.ints("qkv_hidden_sizes") {
            Some(sizes) => sizes.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect(),
            None => vec![width / 3; 3],
        };
        if sizes.len() != 3 || sizes.iter().sum::<usize>() != width || sizes.contains(&0) {
            return Err(format!("its weights give {width} numbers, which are no queries, keys and values").into());
        }
        let heads = self.count_of(node, "num_heads")?;
        let mut qkv = Vec::new();
        for part in self.parts(node, all, axis, &sizes)? {
            qkv.push(self.heads(node, part, heads)?);
        }
        self.unmasked(mask)?;
        let view = if node.int("unidirectional").unwrap_or(0) != 0 { KeyView::Past } else { KeyView::All };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], node.float("scale"), view, added)?;
        self.merged(node, y)
    }

    /// com.microsoft.MultiHeadAttention: queries, keys and values that are projected already.
    pub(super) fn multi_head_attention(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<LiveValue, ImportError> {
        let at = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let heads = self.count_of(node, "num_heads")?;
        let mut qkv = Vec::new();
        for i in 0..3 {
            let mut x = self.input(node, inputs, i)?;
            if x.dims.len() == 4 {
                qkv.push(x);
                continue;
            }
            if let Some(bias) = at(3) {
                let bias = self.operand(bias, node)?;
                let [.., Dim::Fixed(width)] = x.dims[..] else { return Err("its width should be fixed".into()) };
                let width = width as usize;
                let bias = self.part(node, &bias, 0, i * width, width)?;
                x = self.combined(node, Binary::Add, &x, &bias)?;
            }
            qkv.push(self.heads(node, x, heads)?);
        }
        self.unmasked(at(4))?;
        for past in inputs.iter().skip(6).take(2).flatten() {
            self.is_no_past(past)?;
        }
        let view = if node.int("unidirectional").unwrap_or(0) != 0 { KeyView::Past } else { KeyView::All };
        let y = self.attend(node, [&qkv[0], &qkv[1], &qkv[2]], node.float("scale"), view, at(5))?;
        self.merged(node, y)
    }

    /// A padding mask of a whole sequence: ones, or its length.
    fn unmasked(&self, mask: Option<&ImportValue>) -> Result<(), ImportError> {
        let constant = match mask {
            None => return Ok(()),
            Some(ImportValue::Constant(constant)) => constant,
            Some(_) => return Err("its mask depends on the token ids".into()),
        };
        let is_whole = |k: usize| {
            let array = constant.at(k);
            let length = self.counts[k] as f32;
            let lengths = array.rank() == 1 && array.len() == 1;
            array.uniform().is_some_and(|x| if lengths { x.float() == length } else { x.float() == 1.0 })
        };
        if (0..self.counts.len()).all(is_whole) { Ok(()) } else { Err("its mask hides a part of the sequence".into()) }
    }
}
