//! A spiking program as an ONNX file that any runtime runs: time is collapsed, so a neuron is its level and a synapse is an
//! integer product (`MatMulInteger`).
//!
//! Levels, weights and their products are the same integers as in snnc's engines, and the f32 operations between them (norms, the
//! residual stream, curves of neurons, transforms) stand in the same order (`exact`). So logits are the same to the bit, but for
//! products of reals (dense sites, dense attention, feature maps), GELUs by their formula (gated, or before thresholds of a
//! token), and linear attention whose sums halve. There a runtime has an order of its own.
//!
//! The file has no state: it takes whole texts, `input_ids` `i64[batch, sequence]`, and gives `logits` `f32[batch, sequence,
//! vocabulary]`.

mod attention;
mod builder;
mod exact;
mod proof;

pub use proof::ExportProof;

use crate::proto::{
    DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto,
};
use builder::{FLOAT, INT64, OnnxBuilder, UINT8, ValueName, ZERO_POINT};
use snnc_ir::curve::Curve;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, Binary, DenseOp, Layout, LeafOp, LevelOp, Pairs, SpikeOp};
use snnc_ir::{Diagnostic, ErrorCode, Graph, Op, Tensor, Value};
use std::collections::HashMap;

/// The version of ONNX's operators by default: the newest that all runtimes of the last years know.
pub const OPSET: i64 = 17;

/// The newest version that can be asked for.
pub const OPSET_MAX: i64 = 27;

/// From this version on there is an operator for linear attention.
const OPSET_OF_LINEAR_ATTENTION: i64 = 27;

/// The version of the format that goes with operators of a version.
fn format_version(opset: i64) -> i64 {
    match opset {
        ..=17 => 8,
        18..=20 => 9,
        21..=22 => 10,
        23 => 11,
        _ => 12,
    }
}

/// The largest level that fits in 8 bits with a sign.
const LEVEL_MAX: i32 = 127;

/// What a weight of more than 8 bits is divided by. Its parts then fit: those of 4-bit weights are at most 8 * 127.
const WEIGHT_DIGIT: i32 = 8;

/// A program as ONNX.
#[derive(Clone, Debug)]
pub struct OnnxExport {
    /// The network.
    pub model: ModelProto,
    /// How near the file is to the program.
    pub proof: ExportProof,
}

/// The ONNX file of a program at stage quantised, whose table of tokens has `vocabulary` rows, in operators of a version from
/// `OPSET` to `OPSET_MAX`. It is run on random tokens, and compared with the program.
///
/// # Errors
/// It has attention that answers within a timestep. What was made computes something else.
pub fn export(graph: &Graph, vocabulary: usize, opset: i64) -> Result<OnnxExport, Diagnostics> {
    let mut lowering = Lowering::new(graph);
    lowering.builder.opset = opset;
    let mut outputs = Vec::new();
    for (value, node) in graph.iter() {
        lowering.builder.at(graph.site(value).map_or(String::new(), |site| site.to_string()));
        if !matches!(node.op, Op::Leaf(LeafOp::Weight(_))) {
            let name = lowering.node(value)?;
            lowering.names.insert(value, name);
        }
    }
    for (name, value) in &graph.outputs {
        let given = lowering.builder_output(*value, name);
        let width = graph.ty(*value).shape().row_width().unwrap_or(1);
        outputs.push(info(
            &given,
            FLOAT,
            &[AxisSize::Name("batch"), AxisSize::Name("sequence"), AxisSize::Size(width)],
        ));
    }
    let node = std::mem::take(&mut lowering.builder.nodes);
    let proto = GraphProto {
        node,
        name: "snnc".into(),
        initializer: lowering.builder.into_constants(),
        input: vec![info("input_ids", INT64, &[AxisSize::Name("batch"), AxisSize::Name("sequence")])],
        output: outputs,
    };
    let model = ModelProto {
        ir_version: format_version(opset),
        producer_name: "snnc".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(proto),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        functions: Vec::new(),
    };
    let proof = proof::prove(&model, graph, vocabulary)?;
    Ok(OnnxExport { model, proof })
}

enum AxisSize<'a> {
    Size(usize),
    Name(&'a str),
}

fn info(name: &str, elem_type: i32, dims: &[AxisSize<'_>]) -> ValueInfoProto {
    let dim = |dim: &AxisSize<'_>| match dim {
        AxisSize::Size(size) => DimensionProto { dim_value: Some(*size as i64), dim_param: None },
        AxisSize::Name(name) => DimensionProto { dim_value: None, dim_param: Some((*name).into()) },
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor_type = TensorTypeProto { elem_type, shape: Some(shape) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// A graph on its way into ONNX. Reals, levels and sums are all f32 there, `[batch, tokens, width]`; token ids are i64, and so are
/// positions, `[tokens]`. Sums are whole numbers that f32 rounds as the engines round them.
struct Lowering<'g> {
    graph: &'g Graph,
    builder: OnnxBuilder,
    names: HashMap<Value, ValueName>,
    /// Levels in parts of 8 bits.
    digits: HashMap<Value, Vec<ValueName>>,
    /// Positions, where something asks for them.
    positions: Option<ValueName>,
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph) -> Self {
        let builder = OnnxBuilder::default();
        Self { graph, builder, names: HashMap::new(), digits: HashMap::new(), positions: None }
    }

    /// The value under an output's name.
    fn builder_output(&mut self, value: Value, name: &str) -> ValueName {
        let from = self.names[&value].clone();
        self.builder.nodes.push(NodeProto {
            input: vec![from],
            output: vec![name.into()],
            name: format!("output/{name}"),
            op_type: "Identity".into(),
            ..Default::default()
        });
        name.into()
    }

    fn arg(&self, at: Value, i: usize) -> Value {
        self.graph.node(at).args[i]
    }

    /// Operand `i`: what it was called, or the constant that it is.
    fn operand(&mut self, at: Value, i: usize) -> ValueName {
        let value = self.arg(at, i);
        if let Some(name) = self.names.get(&value) {
            return name.clone();
        }
        let tensor = self.constant(at, i);
        let sizes = tensor.sizes().to_vec();
        match (tensor.as_f32(), tensor.as_i32()) {
            (Some(data), _) => self.builder.f32(&sizes, data),
            (None, Some(data)) => {
                let all: Vec<i64> = data.iter().map(|&x| i64::from(x)).collect();
                self.builder.ints(&all)
            }
            (None, None) => unreachable!("weights of synapses are asked for by `synapses` and `embed`"),
        }
    }

    /// The constant that operand `i` is.
    fn constant(&self, at: Value, i: usize) -> &'g Tensor {
        let weight = self.graph.constant(self.arg(at, i));
        &weight.unwrap_or_else(|| unreachable!("parameters are constants")).tensor
    }

    fn width(&self, value: Value) -> usize {
        self.graph.ty(value).shape().row_width().unwrap_or(1)
    }

    fn node(&mut self, at: Value) -> Result<ValueName, Diagnostic> {
        let op = self.graph.node(at).op;
        Ok(match op {
            Op::Leaf(LeafOp::Tokens) => "input_ids".into(),
            Op::Leaf(LeafOp::Positions) => self.positions(),
            Op::Leaf(LeafOp::Opening) => self.opening(),
            Op::Array(ArrayOp::Binary(Binary::Add)) => self.binary(at, "Add"),
            Op::Array(ArrayOp::Binary(Binary::Mul)) => self.binary(at, "Mul"),
            Op::Array(ArrayOp::Binary(Binary::Div)) => self.binary(at, "Div"),
            Op::Dense(DenseOp::Embed) => self.embed(at),
            Op::Dense(DenseOp::Centre) => {
                let (width, x) = (self.width(at), self.operand(at, 0));
                let b = &mut self.builder;
                let sum = b.row_sum(&x, &[0, 0], width);
                let count = b.number(width as f32);
                let mean = b.plain("Div", &[&sum, &count]);
                b.plain("Sub", &[&x, &mean])
            }
            Op::Dense(DenseOp::RmsNorm { eps, heads }) => self.rms_norm(at, eps.get(), heads),
            Op::Dense(DenseOp::Rotary { heads, pairs }) => self.rotary(at, heads as usize, pairs),
            Op::Dense(DenseOp::Linear(layout)) => self.linear(at, layout),
            Op::Dense(DenseOp::Curve(curve)) => {
                let x = self.operand(at, 0);
                self.builder.curve(curve, &x)
            }
            Op::Dense(DenseOp::Gated(curve)) => {
                let (gate, up) = (self.operand(at, 0), self.operand(at, 1));
                let open = self.builder.curve(curve, &gate);
                self.builder.plain("Mul", &[&open, &up])
            }
            Op::Dense(DenseOp::Hadamard(size)) => {
                let (width, x) = (self.width(at), self.operand(at, 0));
                self.builder.hadamard(&x, size, width)
            }
            Op::Dense(DenseOp::AtStart) => self.at_start(at),
            Op::Dense(DenseOp::Attention { heads, scale }) => self.attention(at, heads, scale.get()),
            Op::Level(LevelOp::Quant { code, steps, curve }) => {
                let x = self.operand(at, 0);
                let potential = match curve {
                    Curve::Identity => self.affine(at, &x, 1),
                    Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => {
                        let h = self.affine(at, &x, 1);
                        let y = self.builder.curve_by_table(curve, &h);
                        self.affine(at, &y, 3)
                    }
                };
                self.level(&potential, code.levels(steps))
            }
            Op::Level(LevelOp::GatedQuant { code, steps, curve }) => {
                let (gate, up) = (self.operand(at, 0), self.operand(at, 1));
                let h = self.affine(at, &gate, 2);
                let open = self.builder.curve(curve, &h);
                let up = self.affine(at, &up, 4);
                let potential = self.builder.plain("Mul", &[&open, &up]);
                self.level(&potential, code.levels(steps))
            }
            Op::Level(LevelOp::MatMulInt) => self.matmul_int(at),
            Op::Level(LevelOp::ScaleShift) => {
                let x = self.operand(at, 0);
                self.affine(at, &x, 1)
            }
            Op::Level(LevelOp::RowMaxAbs { heads }) => self.row_max_abs(at, heads),
            Op::Level(LevelOp::GatherChannels) => {
                let (x, channels) = (self.operand(at, 0), self.operand(at, 1));
                self.builder.gather(&x, &channels, -1)
            }
            Op::Level(LevelOp::HeadLinear) => self.head_linear(at),
            Op::Level(LevelOp::Ssa { heads, variant }) => self.ssa(at, heads, variant)?,
            Op::Leaf(LeafOp::Weight(_)) => unreachable!("constants are no nodes of the file"),
            Op::Leaf(LeafOp::Stream(_)) | Op::Array(_) | Op::Training(_) => {
                let message = format!("`{op}` stands in no program that is run alone");
                return Err(Diagnostic::new(self.graph.origin(at), message).code(ErrorCode::EXPORT));
            }
            Op::Spike(
                SpikeOp::Fire { .. }
                | SpikeOp::GatedFire { .. }
                | SpikeOp::Integrate { .. }
                | SpikeOp::Synapse
                | SpikeOp::Decode,
            ) => unreachable!("time is collapsed"),
        })
    }

    fn binary(&mut self, at: Value, op_type: &str) -> ValueName {
        let (a, b) = (self.operand(at, 0), self.operand(at, 1));
        self.builder.plain(op_type, &[&a, &b])
    }

    /// `x gain + offset`, which are operands `i` and `i + 1`.
    fn affine(&mut self, at: Value, x: &str, i: usize) -> ValueName {
        let (gain, offset) = (self.operand(at, i), self.operand(at, i + 1));
        let scaled = self.builder.plain("Mul", &[x, &gain]);
        self.builder.plain("Add", &[&scaled, &offset])
    }

    /// Absolute positions, i64 `[tokens]`.
    fn positions(&mut self) -> ValueName {
        if let Some(name) = &self.positions {
            return name.clone();
        }
        let b = &mut self.builder;
        let (zero, one) = (b.int(0), b.int(1));
        let sizes = b.plain("Shape", &["input_ids"]);
        let tokens = b.gather(&sizes, &one, 0);
        let name = b.plain("Range", &[&zero, &tokens, &one]);
        self.positions = Some(name.clone());
        name
    }

    fn embed(&mut self, at: Value) -> ValueName {
        let ids = self.operand(at, 0);
        let rows = match self.constant(at, 1).as_f32() {
            Some(_) => {
                let table = self.operand(at, 1);
                self.builder.gather(&table, &ids, 0)
            }
            // Columns of a weight, part by part.
            None => {
                let parts = self.synapses(at, 1);
                let b = &mut self.builder;
                let mut sum: Option<ValueName> = None;
                for (part, factor) in parts {
                    let columns = b.gather(&part, &ids, 1);
                    let columns = b.transpose(&columns, &[1, 2, 0]);
                    let (zero, factor) = (b.number(ZERO_POINT as f32), b.number(factor as f32));
                    let columns = b.cast(&columns, FLOAT);
                    let columns = b.plain("Sub", &[&columns, &zero]);
                    let columns = b.plain("Mul", &[&columns, &factor]);
                    sum = Some(sum.map_or(columns.clone(), |sum| b.plain("Add", &[&sum, &columns])));
                }
                sum.unwrap_or_else(|| unreachable!("a weight has a part"))
            }
        };
        if matches!(self.graph.node(self.arg(at, 0)).op, Op::Leaf(LeafOp::Positions)) {
            // One row per position, for all texts.
            let first = self.builder.ints(&[0]);
            return self.builder.plain("Unsqueeze", &[&rows, &first]);
        }
        rows
    }

    fn rms_norm(&mut self, at: Value, eps: f32, heads: u32) -> ValueName {
        let (width, x) = (self.width(at), self.operand(at, 0));
        let (lead, own) = match heads {
            1 => (vec![0, 0], width),
            heads => (vec![0, 0, i64::from(heads)], width / heads as usize),
        };
        let b = &mut self.builder;
        let grouped: Vec<i64> = lead.iter().copied().chain([own as i64]).collect();
        let x = if heads == 1 { x } else { b.reshape(&x, &grouped) };
        let squares = b.plain("Mul", &[&x, &x]);
        let sum = b.row_sum(&squares, &lead, own);
        let [count, eps] = [own as f32, eps].map(|x| b.number(x));
        let mean = b.plain("Div", &[&sum, &count]);
        let above = b.plain("Add", &[&mean, &eps]);
        let root = b.plain("Sqrt", &[&above]);
        // A one that is no constant: runtimes make `x / root` of `x (1 / root)`, which is rounded once instead of twice.
        let one = b.plain("Div", &[&above, &above]);
        let inverse = b.plain("Div", &[&one, &root]);
        let y = b.plain("Mul", &[&x, &inverse]);
        if heads == 1 { y } else { b.reshape(&y, &[0, 0, width as i64]) }
    }

    fn rotary(&mut self, at: Value, heads: usize, pairs: Pairs) -> ValueName {
        let (width, turned) = (self.width(at), self.width(self.arg(at, 1)));
        let (x, turns) = (self.operand(at, 0), self.operand(at, 1));
        let (count, head) = (turned / 2, width / heads);
        let channels = |side: usize| (0..count).map(|i| pairs.channels(i, count)[side] as i64).collect::<Vec<i64>>();
        let (first, second) = (channels(0), channels(1));
        let passing: Vec<i64> = (turned as i64..head as i64).collect();
        // Where each channel is in what is put together below.
        let order: Vec<i64> = first.iter().chain(&second).chain(&passing).copied().collect();
        let mut back = vec![0; head];
        order.iter().enumerate().for_each(|(from, &to)| back[to as usize] = from as i64);
        let b = &mut self.builder;
        let x = b.reshape(&x, &[0, 0, heads as i64, head as i64]);
        let part = |b: &mut OnnxBuilder, places: &[i64]| {
            let places = b.ints(places);
            b.gather(&x, &places, -1)
        };
        let (p, q) = (part(b, &first), part(b, &second));
        let axis = b.ints(&[2]);
        let angle = |b: &mut OnnxBuilder, from: usize| {
            let places: Vec<i64> = (from as i64..(from + count) as i64).collect();
            let places = b.ints(&places);
            let columns = b.gather(&turns, &places, -1);
            b.plain("Unsqueeze", &[&columns, &axis])
        };
        let (cos, sin) = (angle(b, 0), angle(b, count));
        let [p_cos, p_sin, q_cos, q_sin] =
            [(&p, &cos), (&p, &sin), (&q, &cos), (&q, &sin)].map(|(x, by)| b.plain("Mul", &[x, by]));
        let p = b.plain("Sub", &[&p_cos, &q_sin]);
        let q = b.plain("Add", &[&q_cos, &p_sin]);
        let mut all = vec![p, q];
        if !passing.is_empty() {
            all.push(part(b, &passing));
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let y = b.op("Concat", &all, vec![builder::int("axis", -1)]);
        let back = b.ints(&back);
        let y = b.gather(&y, &back, -1);
        b.reshape(&y, &[0, 0, width as i64])
    }

    fn linear(&mut self, at: Value, layout: Layout) -> ValueName {
        let (x, bias) = (self.operand(at, 0), self.operand(at, 2));
        let weight = self.operand(at, 1);
        let weight = match layout {
            Layout::InputMajor => weight,
            Layout::OutputMajor => self.builder.transpose(&weight, &[1, 0]),
        };
        let sums = self.builder.plain("MatMul", &[&x, &weight]);
        self.builder.plain("Add", &[&sums, &bias])
    }

    /// What texts have begun with, `[batch, tokens, 2]`: the first ids, and behind them the ids of second tokens.
    fn opening(&mut self) -> ValueName {
        let positions = self.positions();
        let b = &mut self.builder;
        let (one, none, last, zero) = (b.int(1), b.int(-1), b.ints(&[-1]), b.ints(&[0]));
        let first = b.gather("input_ids", &zero, 1);
        let later = b.plain("Greater", &[&positions, &one]);
        let first = b.plain("Where", &[&later, &none, &first]);
        let second = b.plain("Equal", &[&positions, &one]);
        let second = b.plain("Where", &[&second, "input_ids", &none]);
        let both = [first, second].map(|ids| b.plain("Unsqueeze", &[&ids, &last]));
        b.op("Concat", &[&both[0], &both[1]], vec![builder::int("axis", -1)])
    }

    /// Constant rows where a text has begun in certain ways.
    fn at_start(&mut self, at: Value) -> ValueName {
        let [x, opening, starts, rows] = [0, 1, 2, 3].map(|i| self.operand(at, i));
        let b = &mut self.builder;
        let (before_last, last) = (b.ints(&[-2]), b.ints(&[-1]));
        let opening = b.plain("Unsqueeze", &[&opening, &before_last]);
        let equal = b.plain("Equal", &[&opening, &starts]);
        let equal = b.cast(&equal, FLOAT);
        let picked = b.reduce("ReduceMin", &equal);
        let picked = b.plain("Squeeze", &[&picked, &last]);
        let row = b.plain("MatMul", &[&picked, &rows]);
        let any = b.reduce("ReduceMax", &picked);
        let any = b.cast(&any, builder::BOOL);
        b.plain("Where", &[&any, &row, &x])
    }

    /// The nearest level, ties away from zero, at most `most` either way.
    fn level(&mut self, potential: &str, most: i32) -> ValueName {
        let b = &mut self.builder;
        let (half, limit) = (b.number(0.5), b.number(most as f32 + 0.5));
        let magnitude = b.plain("Abs", &[potential]);
        let up = b.plain("Add", &[&magnitude, &half]);
        let clipped = b.plain("Min", &[&up, &limit]);
        let whole = b.plain("Floor", &[&clipped]);
        let sign = b.plain("Sign", &[potential]);
        b.plain("Mul", &[&whole, &sign])
    }

    /// Levels in parts of 8 bits around `ZERO_POINT`: part `i` counts `LEVEL_BASE^i`.
    fn digits(&mut self, value: Value) -> Vec<ValueName> {
        if let Some(parts) = self.digits.get(&value) {
            return parts.clone();
        }
        let (code, steps) = self.graph.ty(value).levels().unwrap_or_else(|| unreachable!("checked by infer"));
        let mut most = code.levels(steps);
        let mut left = self.names[&value].clone();
        let mut parts = Vec::new();
        let b = &mut self.builder;
        let (base, zero) = (b.number((LEVEL_MAX + 1) as f32), b.number(ZERO_POINT as f32));
        loop {
            let part = match most <= LEVEL_MAX {
                true => left.clone(),
                // Toward zero, so that the rest has the same sign.
                false => {
                    let quotient = b.plain("Div", &[&left, &base]);
                    let magnitude = b.plain("Abs", &[&quotient]);
                    let whole = b.plain("Floor", &[&magnitude]);
                    let sign = b.plain("Sign", &[&left]);
                    let higher = b.plain("Mul", &[&whole, &sign]);
                    let taken = b.plain("Mul", &[&higher, &base]);
                    let rest = b.plain("Sub", &[&left, &taken]);
                    left = higher;
                    rest
                }
            };
            let part = b.plain("Add", &[&part, &zero]);
            parts.push(b.cast(&part, UINT8));
            if most <= LEVEL_MAX {
                break;
            }
            most /= LEVEL_MAX + 1;
        }
        self.digits.insert(value, parts.clone());
        parts
    }

    /// A weight of synapses in parts of 8 bits around `ZERO_POINT`, each with what it counts.
    fn synapses(&mut self, at: Value, i: usize) -> Vec<(ValueName, i32)> {
        let tensor = self.constant(at, i);
        let all = tensor.to_integers().unwrap_or_else(|| unreachable!("checked by infer"));
        let sizes = tensor.sizes();
        if all.iter().all(|&w| (-LEVEL_MAX..=LEVEL_MAX).contains(&w)) {
            return vec![(self.builder.u8(sizes, all.into_iter()), 1)];
        }
        let high = self.builder.u8(sizes, all.iter().map(|&w| w / WEIGHT_DIGIT));
        let low = self.builder.u8(sizes, all.iter().map(|&w| w % WEIGHT_DIGIT));
        vec![(low, 1), (high, WEIGHT_DIGIT)]
    }

    fn matmul_int(&mut self, at: Value) -> ValueName {
        let digits = self.digits(self.arg(at, 0));
        let parts = self.synapses(at, 1);
        let b = &mut self.builder;
        let zero = b.zero_point();
        let mut sum: Option<ValueName> = None;
        let mut place = 1;
        for digit in &digits {
            for (weight, factor) in &parts {
                let product = b.plain("MatMulInteger", &[digit, weight, &zero, &zero]);
                let product = match factor * place {
                    1 => product,
                    by => {
                        let by = b.i32(by);
                        b.plain("Mul", &[&product, &by])
                    }
                };
                sum = Some(sum.map_or(product.clone(), |sum| b.plain("Add", &[&sum, &product])));
            }
            place *= LEVEL_MAX + 1;
        }
        let sum = sum.unwrap_or_else(|| unreachable!("levels and weights have a part"));
        b.cast(&sum, FLOAT)
    }

    fn row_max_abs(&mut self, at: Value, heads: u32) -> ValueName {
        let x = self.operand(at, 0);
        let b = &mut self.builder;
        let x = if heads == 1 { x } else { b.reshape(&x, &[0, 0, heads.into(), -1]) };
        let magnitudes = b.plain("Abs", &[&x]);
        let most = b.reduce("ReduceMax", &magnitudes);
        let (zero, one) = (b.number(0.0), b.number(1.0));
        let is_silent = b.plain("Equal", &[&most, &zero]);
        let most = b.plain("Where", &[&is_silent, &one, &most]);
        if heads == 1 { most } else { b.reshape(&most, &[0, 0, heads.into()]) }
    }

    fn head_linear(&mut self, at: Value) -> ValueName {
        let heads = self.constant(at, 1).sizes()[0] as i64;
        let (x, map) = (self.operand(at, 0), self.operand(at, 1));
        let width = self.width(at) as i64;
        let b = &mut self.builder;
        let x = b.reshape(&x, &[0, 0, heads, -1]);
        let x = b.transpose(&x, &[0, 2, 1, 3]);
        let y = b.plain("MatMul", &[&x, &map]);
        let y = b.transpose(&y, &[0, 2, 1, 3]);
        b.reshape(&y, &[0, 0, width])
    }
}
