//! Operators that stand for several: activation functions and normalised sums. Each becomes the plain operations
//! that it means, so that recognition sees one network whoever wrote it.

use super::importer::Importer;
use super::value::{ImportError, ImportValue, LiveValue};
use crate::evaluate::call::axis;
use crate::model::OnnxNode;
use snnc_ir::op::ArrayOp;
use snnc_ir::op::Scalar;
use snnc_ir::types::Dim;
use snnc_ir::{Binary, Op, Unary};

/// com.microsoft.LayerNormalization and its relatives have an epsilon of their own.
const CONTRIB_EPS: f32 = 1e-12;

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

    /// RMSNormalization and its relatives: x over the root of its mean square, times a gain, over the innermost axis.
    pub(super) fn rms_norm(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
        eps: f32,
    ) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let along = axis(node.int("axis").unwrap_or(-1), x.dims.len())?;
        if along + 1 != x.dims.len() {
            return Err("only a norm over the innermost axis is supported".into());
        }
        self.rms_norm_of(node, &x, inputs.get(1).and_then(Option::as_ref), eps)
    }

    /// com.microsoft.SkipSimplifiedLayerNormalization: the norm of input + skip + bias, and that sum.
    pub(super) fn skip_rms_norm(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        let skip = self.input(node, inputs, 1)?;
        let sum = self.biased(node, inputs, 3)?;
        let sum = self.combined(node, Binary::Add, &sum, &skip)?;
        let normal = self.rms_norm_of(node, &sum, inputs.get(2).and_then(Option::as_ref), CONTRIB_EPS)?;
        Ok(vec![ImportValue::Live(normal), ImportValue::Failed, ImportValue::Failed, ImportValue::Live(sum)])
    }

    /// In plain operations: heads may be normalised each on its own, wherever their axis is.
    fn rms_norm_of(
        &mut self,
        node: &OnnxNode,
        x: &LiveValue,
        gain: Option<&ImportValue>,
        eps: f32,
    ) -> Result<LiveValue, ImportError> {
        let mut dims = x.dims.clone();
        let Some(last) = dims.last_mut() else { return Err("a number has no innermost axis".into()) };
        *last = Dim::Fixed(1);
        let square = self.combined(node, Binary::Mul, x, x)?;
        let mean = self.add(node, Op::Array(ArrayOp::Mean), &[square.value], dims)?;
        let eps = self.number(node.float("epsilon").unwrap_or(eps));
        let sum = self.combined(node, Binary::Add, &mean, &eps)?;
        let root = self.add(node, Op::Array(ArrayOp::Unary(Unary::Sqrt)), &[sum.value], sum.dims)?;
        let normal = self.combined(node, Binary::Div, x, &root)?;
        match gain {
            Some(gain) => {
                let gain = self.operand(gain, node)?;
                self.combined(node, Binary::Mul, &normal, &gain)
            }
            None => Ok(normal),
        }
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
}
