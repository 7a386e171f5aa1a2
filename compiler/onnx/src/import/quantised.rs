//! Quantised files: what codes stand for.
//!
//! Weights keep their quantised values, as real numbers. Activations that the file rounds to codes are taken as the real
//! values that the codes stand for: the network that a quantised file came from, with the file's weights. A code is never
//! computed with here; a value in the middle of quantised arithmetic is the real value and what is still to be done.

use super::constants::Constant;
use snnc_ir::op::ArrayOp;

use super::importer::Importer;
use super::operators::SOFTMAX_ALONG_ONE_AXIS;
use super::value::{Coded, ImportError, ImportValue, LiveValue, Scale};
use crate::evaluate::call::{OnnxCall, broadcast};
use crate::model::{Attribute, OnnxNode};
use crate::tensor::{OnnxArray, OnnxElem};
use snnc_ir::{Binary, Op, Unary};
use std::sync::Arc;

/// Operators that move numbers without changing them: what they do to values they do to codes.
const MOVES: [&str; 10] =
    ["Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather", "Expand"];

type Inputs<'a> = &'a [Option<ImportValue>];

fn at(inputs: Inputs<'_>, i: usize) -> Option<&ImportValue> {
    inputs.get(i).and_then(Option::as_ref)
}

fn constant(inputs: Inputs<'_>, i: usize) -> Result<Constant, ImportError> {
    match at(inputs, i) {
        Some(ImportValue::Constant(constant)) => Ok(constant.clone()),
        Some(_) => Err(format!("input {} should be a constant", i + 1).into()),
        None => Err(format!("input {} is missing", i + 1).into()),
    }
}

fn given(inputs: Inputs<'_>, i: usize) -> Result<Scale, ImportError> {
    let zero = at(inputs, i + 1).map(|_| constant(inputs, i + 1)).transpose()?;
    Ok(Scale::Given(constant(inputs, i)?, zero))
}

fn codes(of: LiveValue, by: Scale) -> ImportValue {
    ImportValue::Coded(Box::new(Coded::Codes { of, by }))
}

impl Importer<'_> {
    /// A node of quantised arithmetic. `None`: it is not one.
    pub(super) fn quantised(
        &mut self,
        node: &OnnxNode,
        inputs: Inputs<'_>,
    ) -> Result<Option<Vec<ImportValue>>, ImportError> {
        let outputs = self.quantised_operator(node, inputs)?;
        let exact = [
            "Cast",
            "Mul",
            "DequantizeLinear",
            "com.microsoft.DequantizeLinear",
            "com.microsoft.MatMulNBits",
            "com.microsoft.GatherBlockQuantized",
        ];
        if outputs.is_some() && !exact.contains(&&*node.operator()) {
            self.rounds_activations = true;
        }
        Ok(outputs)
    }

    fn quantised_operator(
        &mut self,
        node: &OnnxNode,
        inputs: Inputs<'_>,
    ) -> Result<Option<Vec<ImportValue>>, ImportError> {
        if let Some(moved) = self.moved_codes(node, inputs)? {
            return Ok(Some(moved));
        }
        if let Some((real, scale)) = self.recoded(node, inputs)? {
            return Ok(Some(vec![codes(real, given(inputs, scale)?)]));
        }
        let one = |value: Result<ImportValue, ImportError>| value.map(|value| Some(vec![value]));
        let live = |live: Result<LiveValue, ImportError>| live.map(|live| Some(vec![ImportValue::Live(live)]));
        match &*node.operator() {
            "QuantizeLinear" | "com.microsoft.QuantizeLinear" => {
                let of = self.input(node, inputs, 0)?;
                one(given(inputs, 1).map(|by| codes(of, by)))
            }
            "DequantizeLinear" | "com.microsoft.DequantizeLinear" => live(self.real(node, inputs, 0)),
            "DynamicQuantizeLinear" => self.measured_codes(node, inputs).map(Some),
            "MatMulInteger" => one(Self::integer_product(inputs)),
            "Cast" => self.cast_codes(node, inputs),
            "Mul" => self.scaled(node, inputs),
            // Without a scale of its output it gives real numbers.
            "com.microsoft.QGemm" => live(self.quantised_gemm(node, inputs)),
            "com.microsoft.DynamicQuantizeMatMul" => {
                let x = self.input(node, inputs, 0)?;
                let w = self.real_at(node, inputs, [1, 2, 3])?;
                live(self.product_plus(node, &x, &w, at(inputs, 4)))
            }
            "com.microsoft.MatMulIntegerToFloat" => {
                let x = self.real_at(node, inputs, [0, 2, 4])?;
                let w = self.real_at(node, inputs, [1, 3, 5])?;
                live(self.product_plus(node, &x, &w, at(inputs, 6)))
            }
            "com.microsoft.QAttention" => {
                let x = self.real_at(node, inputs, [0, 3, 6])?;
                let w = self.real_at(node, inputs, [1, 4, 7])?;
                let all = self.product_plus(node, &x, &w, at(inputs, 2))?;
                live(self.attend_packed(node, &all, [at(inputs, 5), at(inputs, 8), None]))
            }
            "com.microsoft.MatMulNBits" => live(self.block_product(node, inputs)),
            "com.microsoft.GatherBlockQuantized" => live(self.gathered_blocks(node, inputs)),
            _ => Ok(None),
        }
    }

    /// An operator that moves numbers, on codes. `None`: it is another one, or on something else.
    fn moved_codes(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<Option<Vec<ImportValue>>, ImportError> {
        let Some(ImportValue::Coded(coded)) = at(inputs, 0) else { return Ok(None) };
        let Coded::Codes { of, by } = &**coded else { return Ok(None) };
        if !node.domain.is_empty() || !MOVES.contains(&node.op_type.as_str()) {
            return Ok(None);
        }
        if matches!(by, Scale::Given(scale, _) if scale.at(0).len() > 1) {
            return Err("codes with a scale for each channel are moved".into());
        }
        let mut real = inputs.to_vec();
        real[0] = Some(ImportValue::Live(of.clone()));
        let moved = self.operator(node, &real)?.into_iter().map(|value| match value {
            ImportValue::Live(of) => codes(of, by.clone()),
            other => other,
        });
        Ok(Some(moved.collect()))
    }

    /// Operators from codes to codes: the real value, and which input is the scale of its codes.
    fn recoded(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<Option<(LiveValue, usize)>, ImportError> {
        Ok(Some(match &*node.operator() {
            "QLinearMatMul" => {
                let (a, b) = (self.real(node, inputs, 0)?, self.real(node, inputs, 3)?);
                (self.product(node, &a, &b)?, 6)
            }
            "com.microsoft.QGemm" if at(inputs, 7).is_some() => (self.quantised_gemm(node, inputs)?, 7),
            "com.microsoft.QLinearAdd" | "com.microsoft.QLinearMul" => {
                let kind = if node.op_type == "QLinearAdd" { Binary::Add } else { Binary::Mul };
                let (a, b) = (self.real(node, inputs, 0)?, self.real(node, inputs, 3)?);
                (self.combined(node, kind, &a, &b)?, 6)
            }
            "com.microsoft.QLinearSigmoid" => {
                let x = self.real(node, inputs, 0)?;
                (self.add(node, Op::Array(ArrayOp::Unary(Unary::Sigmoid)), &[x.value], x.dims.clone())?, 3)
            }
            "com.microsoft.QLinearSoftmax" => {
                let x = self.real(node, inputs, 0)?;
                let along_one = node.int("opset").unwrap_or(SOFTMAX_ALONG_ONE_AXIS) >= SOFTMAX_ALONG_ONE_AXIS;
                (self.softmax_of(node, &x, if along_one { -1 } else { 1 })?, 3)
            }
            "com.microsoft.QLinearWhere" => {
                let (a, b) = (self.real(node, inputs, 1)?, self.real(node, inputs, 4)?);
                let parts = [at(inputs, 0).cloned(), Some(ImportValue::Live(a)), Some(ImportValue::Live(b))];
                (self.choose(node, &parts)?, 7)
            }
            "com.microsoft.QLinearConcat" => {
                let part = |i: usize| self.real(node, inputs, i).map(|x| Some(ImportValue::Live(x)));
                let parts = (2..inputs.len()).step_by(3).map(part).collect::<Result<Vec<_>, ImportError>>()?;
                (self.concat(node, &parts)?, 0)
            }
            _ => return Ok(None),
        }))
    }

    /// DynamicQuantizeLinear: codes, their scale and the code of zero, all measured when the file runs.
    fn measured_codes(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<Vec<ImportValue>, ImportError> {
        let by = Scale::Measured(self.unique());
        let of = self.input(node, inputs, 0)?;
        let scale = Coded::Scale { by: by.clone(), times: None };
        Ok(vec![codes(of, by), ImportValue::Coded(Box::new(scale)), ImportValue::Coded(Box::new(Coded::Zero))])
    }

    /// Cast in the middle of quantised arithmetic changes nothing. `None`: the operand is another one.
    fn cast_codes(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<Option<Vec<ImportValue>>, ImportError> {
        let Some(ImportValue::Coded(coded)) = at(inputs, 0) else { return Ok(None) };
        match &**coded {
            Coded::Sums { .. } | Coded::Scale { .. } => Ok(Some(vec![ImportValue::Coded(coded.clone())])),
            Coded::Rows { table, ids } => {
                let table = self.evaluated(node, &[Some(&ImportValue::Constant(table.clone()))])?;
                self.gathered_by_ids(node, &table, ids).map(|rows| Some(vec![rows]))
            }
            Coded::Codes { .. } | Coded::Zero => Err(ImportError::Unsupported),
        }
    }

    /// com.microsoft.MatMulNBits: weights of a few bits in blocks.
    fn block_product(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<LiveValue, ImportError> {
        let x = self.input(node, inputs, 0)?;
        let packed: Option<Vec<Option<&OnnxArray>>> = (0..inputs.len().min(5))
            .map(|i| match at(inputs, i).filter(|_| i > 0) {
                None => Some(None),
                Some(ImportValue::Constant(constant)) => constant.single().map(|array| Some(&**array)),
                Some(_) => None,
            })
            .collect();
        let packed = packed.ok_or("its weights should be constants")?;
        let w = OnnxCall { node, opset: self.model.opset(), inputs: &packed }.block_weights()?;
        let name = node.inputs.get(1).map_or("weights", String::as_str);
        let w = self.operand(&ImportValue::Constant(Constant::one(name, Arc::new(w))), node)?;
        self.product_plus(node, &x, &w, at(inputs, 5))
    }

    /// com.microsoft.GatherBlockQuantized: rows of a table of codes in blocks.
    fn gathered_blocks(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<LiveValue, ImportError> {
        let rows = constant(inputs, 0)?.at(0).sizes().first().copied().unwrap_or(0);
        let all = OnnxArray::vector((0..rows as i64).collect());
        let all = ImportValue::Constant(Constant::one(node.label(), Arc::new(all)));
        let table = self.evaluated(node, &[at(inputs, 0), Some(&all), at(inputs, 2), at(inputs, 3)])?;
        let indices = at(inputs, 1).ok_or("its indices are missing")?;
        let rows = self.embed_rows(node, &table, indices)?;
        rows.ok_or_else(|| "its indices are neither token ids nor positions".into())
    }

    /// The real value of input `i`, whose scale and zero point follow it.
    fn real(&mut self, node: &OnnxNode, inputs: Inputs<'_>, i: usize) -> Result<LiveValue, ImportError> {
        self.real_at(node, inputs, [i, i + 1, i + 2])
    }

    /// The real value of codes, their scale and their zero point.
    fn real_at(&mut self, node: &OnnxNode, inputs: Inputs<'_>, from: [usize; 3]) -> Result<LiveValue, ImportError> {
        self.real_along(node, inputs, from, -1)
    }

    /// The same; constant codes may have a scale for each place of the axis `along`.
    fn real_along(
        &mut self,
        node: &OnnxNode,
        inputs: Inputs<'_>,
        [x, scale, zero]: [usize; 3],
        along: i64,
    ) -> Result<LiveValue, ImportError> {
        let coded = match at(inputs, x) {
            Some(ImportValue::Coded(coded)) => coded.clone(),
            Some(ImportValue::Constant(_)) => {
                let table = self.dequantised(node, inputs, [x, scale, zero], along)?;
                return self.operand(&ImportValue::Constant(table), node);
            }
            _ => return Err(format!("input {} should be quantised", x + 1).into()),
        };
        match *coded {
            Coded::Codes { of, by: Scale::Measured(by) } => {
                let own =
                    |coded: &Coded| matches!(coded, Coded::Scale { by: Scale::Measured(b), times: None } if *b == by);
                match at(inputs, scale) {
                    Some(ImportValue::Coded(coded)) if own(coded) => Ok(of),
                    _ => Err("its codes belong to another scale".into()),
                }
            }
            Coded::Codes { of, by } => {
                let zero = at(inputs, zero).map(|_| constant(inputs, zero)).transpose()?;
                let same = by.is(&Scale::Given(constant(inputs, scale)?, zero));
                if same { Ok(of) } else { Err("it reads codes by another scale than they were written by".into()) }
            }
            Coded::Rows { table, ids } => {
                let mut parts = inputs.to_vec();
                parts[x] = Some(ImportValue::Constant(table));
                let table = self.dequantised(node, &parts, [x, scale, zero], along)?;
                match self.gathered_by_ids(node, &table, &ids)? {
                    ImportValue::Live(live) => Ok(live),
                    _ => Err(ImportError::Unsupported),
                }
            }
            Coded::Sums { .. } | Coded::Scale { .. } | Coded::Zero => Err(ImportError::Unsupported),
        }
    }

    fn gathered_by_ids(
        &mut self,
        node: &OnnxNode,
        table: &Constant,
        ids: &LiveValue,
    ) -> Result<ImportValue, ImportError> {
        let rows = self.embed_rows(node, table, &ImportValue::Live(ids.clone()))?;
        rows.map(ImportValue::Live).ok_or_else(|| "its table should be a matrix of floats".into())
    }

    /// The real numbers of constant codes; where an operator has no axis for its scales, those of its columns.
    fn dequantised(
        &mut self,
        node: &OnnxNode,
        inputs: Inputs<'_>,
        from: [usize; 3],
        along: i64,
    ) -> Result<Constant, ImportError> {
        let mut alone = OnnxNode { outputs: node.outputs.clone(), ..OnnxNode::default() };
        alone.op_type = "DequantizeLinear".into();
        if node.op_type == alone.op_type {
            alone.attributes = node.attributes.clone();
        } else {
            alone.attributes.insert("axis".into(), Attribute::Int(along));
        }
        self.evaluated(&alone, &from.map(|i| at(inputs, i)))
    }

    fn integer_product(inputs: Inputs<'_>) -> Result<ImportValue, ImportError> {
        let Some(ImportValue::Coded(coded)) = at(inputs, 0) else {
            return Err("its first input should be codes of an activation".into());
        };
        let Coded::Codes { of, by } = &**coded else { return Err(ImportError::Unsupported) };
        let zero_fits = match (by, at(inputs, 2)) {
            (Scale::Measured(_), Some(ImportValue::Coded(zero))) => matches!(**zero, Coded::Zero),
            (Scale::Given(_, Some(zero)), Some(ImportValue::Constant(other))) => zero.at(0) == other.at(0),
            (Scale::Given(_, None), None) => true,
            _ => false,
        };
        if !zero_fits {
            return Err("its zero point is not that of its codes".into());
        }
        let weights = constant(inputs, 1)?;
        let array = weights.single().ok_or("its weights depend on the number of tokens")?;
        let zero = match at(inputs, 3) {
            Some(ImportValue::Constant(zero)) => zero.at(0).clone(),
            Some(_) => return Err(ImportError::Unsupported),
            None => OnnxArray::new(Vec::new(), crate::tensor::ArrayData::I8(vec![0])),
        };
        let centred = columns(array, &zero, |w, z| w - z)?;
        let weights = Constant::one(weights.name(), Arc::new(centred));
        Ok(ImportValue::Coded(Box::new(Coded::Sums { of: of.clone(), weights, by: by.clone() })))
    }

    /// A scale times a number, or sums times their scale: then they are real again.
    fn scaled(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<Option<Vec<ImportValue>>, ImportError> {
        let (Some(a), Some(b)) = (at(inputs, 0), at(inputs, 1)) else { return Ok(None) };
        let value = match (a, b) {
            (ImportValue::Coded(coded), ImportValue::Constant(number))
            | (ImportValue::Constant(number), ImportValue::Coded(coded)) => match &**coded {
                Coded::Scale { by, times: None } => {
                    ImportValue::Coded(Box::new(Coded::Scale { by: by.clone(), times: Some(number.clone()) }))
                }
                // The file gives the scale as a number, and the product of both scales here.
                Coded::Sums { of, weights, by: Scale::Given(scale, _) } => {
                    let weights = weights.single().ok_or("its weights depend on the number of tokens")?;
                    let scale = scale.at(0).number().ok_or("its scale should be one number")?.float();
                    let real = columns(weights, number.at(0), |w, s| w * s / scale)?;
                    ImportValue::Live(self.times_weights(node, of, real)?)
                }
                _ => return Err(ImportError::Unsupported),
            },
            (ImportValue::Coded(a), ImportValue::Coded(b)) => {
                let (of, weights, sums_by, scale_by, times) = match (&**a, &**b) {
                    (Coded::Sums { of, weights, by: s }, Coded::Scale { by, times })
                    | (Coded::Scale { by, times }, Coded::Sums { of, weights, by: s }) => (of, weights, s, by, times),
                    _ => return Err(ImportError::Unsupported),
                };
                if !sums_by.is(scale_by) {
                    return Err("its scale is not that of its codes".into());
                }
                let weights = weights.single().ok_or("its weights depend on the number of tokens")?;
                let real = match times {
                    Some(times) => columns(weights, times.at(0), |w, s| w * s)?,
                    None => (**weights).clone(),
                };
                ImportValue::Live(self.times_weights(node, of, real)?)
            }
            _ => return Ok(None),
        };
        Ok(Some(vec![value]))
    }

    fn times_weights(&mut self, node: &OnnxNode, of: &LiveValue, weights: OnnxArray) -> Result<LiveValue, ImportError> {
        let name = node.inputs.first().map_or("weights", String::as_str).to_string();
        let w = self.operand(&ImportValue::Constant(Constant::one(&name, Arc::new(weights))), node)?;
        self.product(node, of, &w)
    }

    /// com.microsoft.QGemm: A, B and C as codes; C's scale is the product of the others'.
    fn quantised_gemm(&mut self, node: &OnnxNode, inputs: Inputs<'_>) -> Result<LiveValue, ImportError> {
        // A scale for each output, wherever they are in B.
        let along = if node.int("transB").unwrap_or(0) != 0 { 0 } else { 1 };
        let (a, b) = (self.real(node, inputs, 0)?, self.real_along(node, inputs, [3, 4, 5], along)?);
        let turned = |s: &mut Self, x: LiveValue, name: &str| {
            if node.int(name).unwrap_or(0) != 0 { s.transposed(node, x, &[1, 0]) } else { Ok(x) }
        };
        let (a, b) = (turned(self, a, "transA")?, turned(self, b, "transB")?);
        let y = self.product(node, &a, &b)?;
        let y = self.times(node, &y, node.float("alpha").unwrap_or(1.0))?;
        if at(inputs, 6).is_none() {
            return Ok(y);
        }
        let scale = constant(inputs, 1)?.at(0).number().ok_or("the scale of A should be one number")?.float();
        let bias = columns(&constant(inputs, 6)?.at(0).clone(), &OnnxArray::f32(&[], vec![scale]), |c, s| c * s)?;
        let bias = columns(&bias, constant(inputs, 4)?.at(0), |c, s| c * s)?;
        let name = node.inputs.get(6).map_or("bias", String::as_str);
        let bias = self.operand(&ImportValue::Constant(Constant::one(name, Arc::new(bias))), node)?;
        self.combined(node, Binary::Add, &y, &bias)
    }
}

/// `f` of every number and its column's.
fn columns(x: &OnnxArray, by: &OnnxArray, f: impl Fn(f32, f32) -> f32) -> Result<OnnxArray, ImportError> {
    let width = x.sizes().last().copied().unwrap_or(1);
    if by.len() != 1 && (by.len() != width || broadcast(x.sizes(), by.sizes())? != x.sizes()) {
        return Err(format!("{} scales do not fit {width} columns", by.len()).into());
    }
    let number = |array: &OnnxArray, i: usize| array.data().get(i).float();
    let at = |i: usize| f(number(x, i), number(by, if by.len() == 1 { 0 } else { i % width }));
    debug_assert!(x.elem() != OnnxElem::Bool);
    Ok(OnnxArray::f32(x.sizes(), (0..x.len()).map(at).collect()))
}
