//! Graphs with every operation in them, and the law of the text form on each.

use super::*;
use crate::build::Builder;
use crate::curve::Curve;
use crate::diagnostic::Diagnostics;
use crate::graph::{Graph, Stage, Value};
use crate::hadamard::HadamardSize;
use crate::membrane::Membrane;
use crate::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use crate::op::{Binary, Heads, Layout, Op, Pairs, Perm, Scalar, Unary};
use crate::op::{Surrogate, TrainingOp};
use crate::ssa::{Output, Ssa};
use crate::tensor::Tensor;
use crate::types::{Code, Dim, Elem, Shape};
use std::sync::Arc;

/// Adds nodes in few words.
pub(crate) struct Sketch(pub Builder);

impl Sketch {
    pub fn new(stage: Stage) -> Self {
        Self(Builder::new(stage, 8))
    }

    pub fn f32(&mut self, name: &str, sizes: &[usize]) -> Value {
        let count = sizes.iter().product::<usize>();
        let data = (0..count).map(|i| 0.25 + i as f32 / 16.0).collect();
        self.0.weight(name, Arc::new(Tensor::f32(sizes, data)))
    }

    pub fn i8(&mut self, name: &str, sizes: &[usize]) -> Value {
        let count = sizes.iter().product::<usize>();
        let data = (0..count).map(|i| (i * 37 % 255) as u8 as i8).map(|x| x.max(-127)).collect();
        self.0.weight(name, Arc::new(Tensor::i8(sizes, data)))
    }

    pub fn i32(&mut self, name: &str, sizes: &[usize]) -> Value {
        let data = (0..sizes.iter().product::<usize>() as i32).collect();
        self.0.weight(name, Arc::new(Tensor::i32(sizes, data)))
    }

    pub fn add(&mut self, op: Op, args: &[Value]) -> Value {
        let origin = format!("/h.0/{}", op.name());
        self.0.add(op, args, &origin).expect("the operands fit")
    }

    pub fn finish(self, outputs: &[(&str, Value)]) -> Graph {
        self.0.finish(outputs.iter().map(|(name, value)| (name.to_string(), *value)).collect())
    }

    /// `centre`, `rms_norm`, then a gain and a bias.
    pub fn layer_norm(&mut self, x: Value, gain: Value, bias: Value) -> Value {
        let centred = self.add(Op::Dense(DenseOp::Centre), &[x]);
        let normal = self.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(EPS), heads: 1 }), &[centred]);
        self.add(Op::Level(LevelOp::ScaleShift), &[normal, gain, bias])
    }

    /// The embedding that the samples start with: `f32[tokens, 4]`.
    pub fn embedding(&mut self) -> Value {
        let (tokens, positions) = (self.add(Op::Leaf(LeafOp::Tokens), &[]), self.add(Op::Leaf(LeafOp::Positions), &[]));
        let (wte, wpe) = (self.f32("wte", &[16, 4]), self.f32("wpe", &[8, 4]));
        let (x, p) = (
            self.add(Op::Dense(DenseOp::Embed), &[tokens, wte]),
            self.add(Op::Dense(DenseOp::Embed), &[positions, wpe]),
        );
        self.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, p])
    }
}

const EPS: f32 = 1e-5;

fn imported() -> Graph {
    let mut s = Sketch::new(Stage::Imported);
    let x = s.embedding();
    let (gain, bias) = (s.f32("ln gain", &[4]), s.f32("ln//bias", &[4]));
    let mut y = s.layer_norm(x, gain, bias);
    for kind in Unary::ALL {
        y = s.add(Op::Array(ArrayOp::Unary(kind)), &[y]);
    }
    let scalar = s.f32("two", &[]);
    for kind in Binary::ALL {
        y = s.add(Op::Array(ArrayOp::Binary(kind)), &[y, scalar]);
    }
    let heads = s.add(Op::Array(ArrayOp::SplitHeads { heads: 2 }), &[y]);
    let turned = s.add(Op::Array(ArrayOp::Transpose(Perm::new(&[0, 2, 1]).expect("an order"))), &[heads]);
    let scores = s.add(Op::Array(ArrayOp::MatMul), &[heads, turned]);
    let mask =
        s.add(Op::Array(ArrayOp::CausalMask { keep: Scalar::new(1.0), drop: Scalar::new(0.0), window: None }), &[]);
    let never = s.add(
        Op::Array(ArrayOp::CausalMask {
            keep: Scalar::new(-0.0),
            drop: Scalar::new(f32::NEG_INFINITY),
            window: Some(3),
        }),
        &[],
    );
    let alibi = s.f32("alibi", &[2]);
    let scores = s.add(Op::Array(ArrayOp::Alibi), &[scores, alibi]);
    let masked = s.add(Op::Array(ArrayOp::Where), &[mask, scores, never]);
    let probable = s.add(Op::Array(ArrayOp::Softmax), &[masked]);
    let mixed = s.add(Op::Array(ArrayOp::MatMul), &[probable, heads]);
    let merged = s.add(Op::Array(ArrayOp::MergeHeads), &[mixed]);
    let mean = s.add(Op::Array(ArrayOp::Mean), &[merged]);
    let centred = s.add(Op::Array(ArrayOp::Binary(Binary::Sub)), &[merged, mean]);
    let part = s.add(Op::Array(ArrayOp::Slice { axis: 1, start: 1, len: 2 }), &[centred]);
    let part = s.add(Op::Array(ArrayOp::Concat { axis: 1 }), &[part, part]);
    let part = s.add(Op::Array(ArrayOp::Slice { axis: 1, start: 1, len: 2 }), &[part]);
    let flat = s.add(Op::Array(ArrayOp::Reshape(Shape::new(&[Dim::Fixed(2), Dim::Tokens]))), &[part]);
    s.finish(&[("y", flat), ("odd \"name\"\n\\é", mean)])
}

fn tensor() -> Graph {
    let mut s = Sketch::new(Stage::Tensor);
    let x = s.embedding();
    let (gain, bias) = (s.f32("ln.gain", &[4]), s.f32("ln.bias", &[4]));
    let y = s.layer_norm(x, gain, bias);
    let (w, b) = (s.f32("w", &[4, 8]), s.f32("b", &[8]));
    let h = s.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[y, w, b]);
    let mut g = h;
    for curve in Curve::ALL {
        g = s.add(Op::Dense(DenseOp::Curve(curve)), &[g]);
    }
    let (w, b) = (s.f32("w2", &[4, 8]), s.f32("b2", &[4]));
    let q = s.add(Op::Dense(DenseOp::Linear(Layout::OutputMajor)), &[g, w, b]);
    let n = s.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(0.0), heads: 2 }), &[q]);
    let scale = Scalar::new(0.707_106_77);
    let a = s.add(Op::Dense(DenseOp::Attention { heads: Heads::equal(2), scale }), &[q, n, y]);
    let (positions, turns) = (s.add(Op::Leaf(LeafOp::Positions), &[]), s.f32("turns", &[8, 2]));
    let turns = s.add(Op::Dense(DenseOp::Embed), &[positions, turns]);
    let [q, k] = Pairs::ALL.map(|pairs| s.add(Op::Dense(DenseOp::Rotary { heads: 2, pairs }), &[a, turns]));
    let k = s.add(Op::Dense(DenseOp::Gated(Curve::Silu)), &[k, n]);
    let k = s.add(Op::Dense(DenseOp::Hadamard(HadamardSize { order: 1, power: 1 })), &[k]);
    let (w, b) = (s.f32("w3", &[4, 2]), s.f32("b3", &[2]));
    let k = s.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[k, w, b]);
    let heads = Heads { kv: 1, window: Some(3), alibi: true, ..Heads::equal(2) };
    let alibi = s.f32("alibi", &[2]);
    let a = s.add(Op::Dense(DenseOp::Attention { heads, scale }), &[q, k, k, alibi]);
    let sum = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, a]);
    let stream = s.add(Op::Leaf(LeafOp::Stream(4)), &[]);
    let sum = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, stream]);
    s.finish(&[("y", sum)])
}

pub(crate) fn quantised() -> Graph {
    let mut s = Sketch::new(Stage::Quantised);
    let x = s.embedding();
    let opening = s.add(Op::Leaf(LeafOp::Opening), &[]);
    let (starts, rows) = (s.i32("starts", &[2, 2]), s.f32("start.rows", &[2, 4]));
    let x = s.add(Op::Dense(DenseOp::AtStart), &[x, opening, starts, rows]);
    let n = s.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(EPS), heads: 1 }), &[x]);
    let (gain, offset) = (s.f32("gain", &[4]), s.f32("offset", &[4]));
    let quant = |steps, curve| Op::Level(LevelOp::Quant { code: Code::Binary, steps, curve });
    let levels = s.add(quant(7, Curve::Identity), &[n, gain, offset]);
    let w = s.i8("w", &[4, 4]);
    let product = s.add(Op::Level(LevelOp::MatMulInt), &[levels, w]);
    let v = s.add(quant(7, Curve::Identity), &[product, gain, offset]);
    let slope = s.f32("slope", &[2]);
    let a = s.add(
        Op::Level(LevelOp::Ssa { heads: Heads::equal(2), variant: Ssa::Ttfs { phases: 8 } }),
        &[levels, levels, v, slope],
    );
    let alibi = s.f32("alibi", &[2]);
    let heads = Heads { alibi: true, ..Heads::equal(2) };
    let a = {
        let faded = Op::Level(LevelOp::Ssa { heads, variant: Ssa::Ttfs { phases: 8 } });
        let other = s.add(faded, &[levels, levels, v, slope, alibi]);
        s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[a, other])
    };
    let mut y = a;
    for curve in Curve::ALL.into_iter().filter(|curve| *curve != Curve::Identity) {
        let h =
            s.add(Op::Level(LevelOp::Quant { code: Code::Unary, steps: 15, curve }), &[y, gain, offset, gain, offset]);
        let p = s.add(Op::Level(LevelOp::MatMulInt), &[h, w]);
        y = s.add(Op::Level(LevelOp::ScaleShift), &[p, gain, offset]);
    }
    let gated = Op::Level(LevelOp::GatedQuant { code: Code::Binary, steps: 7, curve: Curve::Silu });
    let h = s.add(gated, &[product, y, gain, offset, gain, offset]);
    let p = s.add(Op::Level(LevelOp::MatMulInt), &[h, w]);
    y = s.add(Op::Level(LevelOp::ScaleShift), &[p, gain, offset]);
    let sum = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, y]);
    s.finish(&[("y", sum), ("levels", v)])
}

pub(crate) fn spiking() -> Graph {
    let mut s = Sketch::new(Stage::Spiking);
    let x = s.embedding();
    let n = s.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(EPS), heads: 1 }), &[x]);
    let (gain, offset) = (s.f32("gain", &[4]), s.f32("offset", &[4]));
    let fire = |code, steps, curve| Op::Spike(SpikeOp::Fire { code, steps, curve });
    let spikes = s.add(fire(Code::Binary, 7, Curve::Identity), &[n, gain, offset]);
    let w = s.i8("w", &[4, 4]);
    let current = s.add(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
    let decoded = s.add(Op::Spike(SpikeOp::Decode), &[current]);
    let v = s.add(fire(Code::Binary, 7, Curve::Identity), &[decoded, gain, offset]);
    let slope = s.f32("slope", &[2]);
    let a = s.add(
        Op::Level(LevelOp::Ssa { heads: Heads::equal(2), variant: Ssa::Ttfs { phases: 8 } }),
        &[spikes, spikes, v, slope],
    );
    let h = s.add(fire(Code::Unary, 15, Curve::GeluTanh), &[a, gain, offset, gain, offset]);
    let current = s.add(Op::Spike(SpikeOp::Synapse), &[h, w]);
    let decoded = s.add(Op::Spike(SpikeOp::Decode), &[current]);
    let y = s.add(Op::Level(LevelOp::ScaleShift), &[decoded, gain, offset]);
    let gated = Op::Spike(SpikeOp::GatedFire { code: Code::Binary, steps: 7, curve: Curve::Silu });
    let h = s.add(gated, &[decoded, y, gain, offset, gain, offset]);
    let current = s.add(Op::Spike(SpikeOp::Synapse), &[h, w]);
    let decoded = s.add(Op::Spike(SpikeOp::Decode), &[current]);
    let y = s.add(Op::Level(LevelOp::ScaleShift), &[decoded, gain, offset]);
    let sum = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, y]);
    s.finish(&[("y", sum)])
}

/// A threshold for every token, and channels picked.
pub(crate) fn thresholds() -> Graph {
    let mut s = Sketch::new(Stage::Quantised);
    let x = s.embedding();
    let peak = s.add(Op::Level(LevelOp::RowMaxAbs { heads: 1 }), &[x]);
    let share = s.add(Op::Array(ArrayOp::Binary(Binary::Div)), &[x, peak]);
    let channels = s.i32("channels", &[3]);
    let picked = s.add(Op::Level(LevelOp::GatherChannels), &[share, channels]);
    let y = s.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[picked, peak]);
    let mixed = attention_with_thresholds(&mut s, x);
    s.finish(&[("y", y), ("mixed", mixed)])
}

/// Attention whose tokens have thresholds of their own at q, k and v, head by head; with ALiBi, and of the best keys.
fn attention_with_thresholds(s: &mut Sketch, x: Value) -> Value {
    let heads = s.add(Op::Level(LevelOp::RowMaxAbs { heads: 2 }), &[x]);
    let each = s.0.weight("each", Arc::new(Tensor::i32(&[4], vec![0, 0, 1, 1])));
    let each = s.add(Op::Level(LevelOp::GatherChannels), &[heads, each]);
    let share = s.add(Op::Array(ArrayOp::Binary(Binary::Div)), &[x, each]);
    let (gain, offset) = (s.f32("gain", &[4]), s.f32("offset", &[4]));
    let neurons = Op::Level(LevelOp::Quant { code: Code::Binary, steps: 7, curve: Curve::Identity });
    let levels = s.add(neurons, &[share, gain, offset]);
    let (slope, alibi) = (s.f32("slope", &[2]), s.f32("alibi", &[2]));
    let shape = Heads { thresholds: true, ..Heads::equal(2) };
    let ssa = |heads, variant| Op::Level(LevelOp::Ssa { heads, variant });
    let operands = [levels, levels, levels, heads, heads, heads, slope, alibi];
    let timed = s.add(ssa(shape, Ssa::Ttfs { phases: 8 }), &operands[..7]);
    let best = s.add(ssa(Heads { alibi: true, ..shape }, Ssa::TopK { phases: 8, keys: 2 }), &operands);
    s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[timed, best])
}

/// Time-stepped neurons.
pub(crate) fn prompt() -> Graph {
    let mut s = Sketch::new(Stage::Spiking);
    let x = s.embedding();
    let (gain, offset) = (s.f32("gain", &[4]), s.f32("offset", &[4]));
    let w = s.i8("w", &[4, 4]);
    let mut spikes = s.add(
        Op::Spike(SpikeOp::Integrate { membrane: Membrane::LIF, steps: 5, curve: Curve::Identity }),
        &[x, gain, offset],
    );
    for membrane in Membrane::all() {
        let current = s.add(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
        let parameters = vec![s.f32("parameter", &[4]); membrane.rule().parameters.len()];
        spikes = s.add(
            Op::Spike(SpikeOp::Integrate { membrane, steps: 5, curve: Curve::Relu }),
            &[&[current, gain, offset], &parameters[..]].concat(),
        );
    }
    let current = s.add(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
    let decoded = s.add(Op::Spike(SpikeOp::Decode), &[current]);
    let y = s.add(Op::Level(LevelOp::ScaleShift), &[decoded, gain, offset]);
    s.finish(&[("y", y)])
}

/// Every operation that only training has.
fn training() -> Graph {
    let mut s = Sketch::new(Stage::Training);
    let x = s.embedding();
    let (tokens, logits) = (s.add(Op::Leaf(LeafOp::Tokens), &[]), s.f32("table", &[16, 4]));
    let reference = s.add(Op::Dense(DenseOp::Embed), &[tokens, logits]);
    let period = s.f32("period", &[2]);
    let channels = s.i32("channels", &[2]);
    let eps = Scalar::new(EPS);
    let mut add = |op: TrainingOp, args: &[Value]| s.add(Op::Training(op), args);
    let targets = add(TrainingOp::Targets, &[]);
    let mut y = add(TrainingOp::FakeQuant { most: 15 }, &[x]);
    for kind in Surrogate::ALL {
        y = add(TrainingOp::Step(kind), &[y]);
        y = add(TrainingOp::Surrogate(kind), &[y]);
    }
    y = add(TrainingOp::Floor, &[y]);
    let (least, most) = (Scalar::new(-0.5), Scalar::new(2.0));
    y = add(TrainingOp::Clamp { least, most }, &[y]);
    y = add(TrainingOp::ClampGrad { least, most }, &[x, y]);
    y = add(TrainingOp::CurveSlope(Curve::GeluTanh), &[y]);
    y = add(TrainingOp::StopGradient, &[y]);
    y = add(TrainingOp::TopKMask { keys: 3 }, &[y]);
    let most = add(TrainingOp::RowMax, &[y]);
    let y = add(TrainingOp::BroadcastTo(Shape::rows(4)), &[most]);
    let y = add(TrainingOp::FakeQuantGrad { most: 15 }, &[x, y]);
    let y = add(TrainingOp::RmsNormGrad { eps, heads: 1 }, &[x, y]);
    let column = add(TrainingOp::ReduceSum(Shape::rows(1)), &[y]);
    let y = add(TrainingOp::RowMaxAbsGrad, &[y, column]);
    let losses = [add(TrainingOp::Divergence, &[y, reference]), add(TrainingOp::CrossEntropy, &[y, targets])];
    let back = add(TrainingOp::DivergenceGrad, &[y, reference, losses[0]]);
    let last = add(TrainingOp::CrossEntropyGrad, &[back, targets, losses[1]]);
    let scattered = add(TrainingOp::EmbedGrad { rows: 16 }, &[tokens, last]);
    let table = s.add(Op::Dense(DenseOp::Embed), &[tokens, scattered]);
    let picked = s.add(Op::Level(LevelOp::GatherChannels), &[table, channels]);
    let spread = s.add(Op::Training(TrainingOp::GatherChannelsGrad { width: 4 }), &[picked, channels]);
    let recency = s.add(Op::Training(TrainingOp::DecayMask), &[period]);
    let faded = s.add(Op::Training(TrainingOp::DecayMaskGrad), &[period, recency]);
    s.finish(&[("loss", losses[0]), ("x", spread), ("recency", faded)])
}

/// Attention of every variant that has features.
pub(crate) fn features(stage: Stage) -> Graph {
    let mut s = Sketch::new(stage);
    let x = s.embedding();
    let map = s.f32("map", &[2, 2, 3]);
    let y = s.add(Op::Level(LevelOp::HeadLinear), &[x, map]);
    let neuron = |code, steps, curve| match stage {
        Stage::Spiking => Op::Spike(SpikeOp::Fire { code, steps, curve }),
        Stage::Imported | Stage::Tensor | Stage::Quantised | Stage::Training => {
            Op::Level(LevelOp::Quant { code, steps, curve })
        }
    };
    let (gain, offset, narrow) = (s.f32("gain", &[6]), s.f32("offset", &[6]), s.f32("narrow", &[4]));
    let q = s.add(neuron(Code::Unary, 4, Curve::Relu), &[y, gain, offset, gain, offset]);
    let k = s.add(neuron(Code::Unary, 4, Curve::Relu), &[y, offset, gain, gain, offset]);
    let v = s.add(neuron(Code::Unary, 4, Curve::Identity), &[x, narrow, narrow]);
    let (sink, half_life) = (s.f32("sink", &[2]), s.i32("half_life", &[2]));
    let ssa = |variant| Op::Level(LevelOp::Ssa { heads: Heads::equal(2), variant });
    let mut outputs = Vec::new();
    for (name, variant) in [
        ("counted", Ssa::Coincidence { squared: false }),
        ("squared", Ssa::Coincidence { squared: true }),
        ("summed", Ssa::Linear { guard: 8 }),
        ("mean", Ssa::Lif { output: Output::Mean }),
    ] {
        outputs.push((name, s.add(ssa(variant), &[q, k, v, sink, half_life])));
    }
    let spikes = s.add(ssa(Ssa::Lif { output: Output::Spikes }), &[q, k, v, sink, half_life, narrow]);
    let levels = if stage == Stage::Spiking { s.add(Op::Spike(SpikeOp::Decode), &[spikes]) } else { spikes };
    outputs.push(("emitted", s.add(Op::Level(LevelOp::ScaleShift), &[levels, narrow, narrow])));
    let slope = s.f32("slope", &[2]);
    outputs.push(("best", s.add(ssa(Ssa::TopK { phases: 8, keys: 2 }), &[v, v, v, slope])));
    s.finish(&outputs)
}

pub(crate) fn all() -> Vec<Graph> {
    vec![
        imported(),
        tensor(),
        quantised(),
        spiking(),
        thresholds(),
        prompt(),
        features(Stage::Quantised),
        features(Stage::Spiking),
        training(),
    ]
}

/// Parses with the weights of `graph`.
fn parse_with(text: &str, graph: &Graph) -> Result<Graph, Diagnostics> {
    parse(text, &|name, _, _| {
        let weight = graph.weights.iter().find(|weight| weight.name == name);
        weight.map(|weight| weight.tensor.clone()).ok_or_else(|| format!("there is no tensor {name}"))
    })
}

/// Nodes, weights and outputs, as far as they can be compared.
fn content(graph: &Graph) -> String {
    format!("{graph:?}")
}

#[test]
fn what_is_printed_is_read_back_node_for_node() {
    for graph in all() {
        let text = print(&graph);
        let again = parse_with(&text, &graph).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        assert_eq!(print(&again), text);
        assert_eq!(content(&again), content(&graph));
    }
}

/// A number for every operation; the compiler asks for a new one's, and the test for a sample of it.
fn ordinal(op: &Op) -> usize {
    match op {
        Op::Leaf(LeafOp::Tokens) => 0,
        Op::Leaf(LeafOp::Positions) => 1,
        Op::Leaf(LeafOp::Weight(_)) => 2,
        Op::Array(ArrayOp::Unary(_)) => 3,
        Op::Array(ArrayOp::Binary(_)) => 4,
        Op::Array(ArrayOp::CausalMask { .. }) => 5,
        Op::Array(ArrayOp::Where) => 6,
        Op::Array(ArrayOp::MatMul) => 7,
        Op::Array(ArrayOp::Transpose(_)) => 8,
        Op::Array(ArrayOp::Reshape(_)) => 9,
        Op::Array(ArrayOp::Slice { .. }) => 10,
        Op::Array(ArrayOp::Mean) => 11,
        Op::Array(ArrayOp::Softmax) => 12,
        Op::Array(ArrayOp::SplitHeads { .. }) => 13,
        Op::Array(ArrayOp::MergeHeads) => 14,
        Op::Dense(DenseOp::Embed) => 15,
        Op::Dense(DenseOp::Centre) => 16,
        Op::Dense(DenseOp::RmsNorm { .. }) => 17,
        Op::Dense(DenseOp::Linear(_)) => 18,
        Op::Dense(DenseOp::Curve(_)) => 19,
        Op::Dense(DenseOp::Attention { .. }) => 20,
        Op::Level(LevelOp::Quant { .. }) => 21,
        Op::Level(LevelOp::MatMulInt) => 22,
        Op::Level(LevelOp::ScaleShift) => 23,
        Op::Level(LevelOp::Ssa { .. }) => 24,
        Op::Spike(SpikeOp::Fire { .. }) => 25,
        Op::Spike(SpikeOp::Synapse) => 26,
        Op::Spike(SpikeOp::Decode) => 27,
        Op::Spike(SpikeOp::Integrate { .. }) => 28,
        Op::Level(LevelOp::RowMaxAbs { .. }) => 29,
        Op::Level(LevelOp::GatherChannels) => 30,
        Op::Level(LevelOp::HeadLinear) => 31,
        Op::Training(_) => 32,
        Op::Array(ArrayOp::Concat { .. }) => 33,
        Op::Dense(DenseOp::Rotary { .. }) => 34,
        Op::Dense(DenseOp::Gated(_)) => 35,
        Op::Level(LevelOp::GatedQuant { .. }) => 36,
        Op::Spike(SpikeOp::GatedFire { .. }) => 37,
        Op::Dense(DenseOp::Hadamard(_)) => 38,
        Op::Dense(DenseOp::AtStart) => 39,
        Op::Array(ArrayOp::Alibi) => 40,
        Op::Leaf(LeafOp::Opening) => 41,
        Op::Leaf(LeafOp::Stream(_)) => 42,
    }
}

#[test]
fn the_samples_have_every_operation() {
    let graphs = all();
    let mut met: Vec<usize> = graphs.iter().flat_map(|graph| &graph.nodes).map(|node| ordinal(&node.op)).collect();
    met.sort_unstable();
    met.dedup();
    assert_eq!(met, (0..43).collect::<Vec<usize>>());
}

#[test]
fn a_program_looks_like_this() {
    let mut s = Sketch::new(Stage::Spiking);
    let tokens = s.add(Op::Leaf(LeafOp::Tokens), &[]);
    let (table, gain, slope) = (s.f32("wte", &[16, 4]), s.f32("a gain", &[4]), s.f32("slope", &[2]));
    let x = s.add(Op::Dense(DenseOp::Embed), &[tokens, table]);
    let fire = Op::Spike(SpikeOp::Fire { code: Code::Binary, steps: 7, curve: Curve::GeluTanh });
    let spikes = s.add(fire, &[x, gain, gain, gain, gain]);
    let y =
        s.0.add(
            Op::Level(LevelOp::Ssa { heads: Heads::equal(2), variant: Ssa::Ttfs { phases: 8 } }),
            &[spikes, spikes, spikes, slope],
            "",
        )
        .expect("it fits");
    let expected = r#"snnc 3 spiking context=8

weight @wte : f32[16,4] HASH
weight @"a gain" : f32[4] HASH
weight @slope : f32[2] HASH

%0 = tokens : i32[tokens]                                                        // /h.0/tokens
%1 = embed(%0, @wte) : f32[tokens,4]                                             // /h.0/embed
%2 = fire[binary,7,gelu_tanh](%1, @"a gain", @"a gain", @"a gain", @"a gain") : spike<binary,7>[tokens,4] // /h.0/fire
%3 = ssa[ttfs,heads=2,phases=8](%2, %2, %2, @slope) : f32[tokens,4]
     // state: keys level<binary,7>[context,4], values level<binary,7>[context,4]

output hidden = %3
"#;
    let graph = s.finish(&[("hidden", y)]);
    let hashes = graph.weights.iter().map(|weight| format!("{:016x}", hash(&weight.tensor)));
    let expected = hashes.fold(expected.to_string(), |text, hash| text.replacen("HASH", &hash, 1));
    assert_eq!(print(&graph), expected);
}

#[test]
fn attention_says_what_it_keeps() {
    let text = print(&features(Stage::Spiking));
    for (op, state) in [
        ("ssa[topk,heads=2,phases=8,keys=2]", "keys level<unary,4>[context,4], values level<unary,4>[context,4]"),
        ("ssa[coincidence,heads=2]", "keys spike<unary,4>[context,6], values level<unary,4>[context,4]"),
        ("ssa[coincidence,heads=2,squared]", "keys spike<unary,4>[context,6], values level<unary,4>[context,4]"),
        ("ssa[linear,heads=2,guard=8]", "sums of k v^T i32[2,3,2], of k i32[2,3]"),
        ("ssa[lif,heads=2]", "keys spike<unary,4>[context,6], values level<unary,4>[context,4]"),
        ("ssa[lif,heads=2,output=spikes]", "keys spike<unary,4>[context,6], values spike<unary,4>[context,4]"),
    ] {
        let mut lines = text.lines().skip_while(|line| !line.contains(&format!(" = {op}(")));
        assert!(lines.next().is_some(), "{op} in\n{text}");
        assert_eq!(lines.next().map(str::trim), Some(format!("// state: {state}").as_str()), "{op}");
    }
    for (wrong, told) in [
        ("ssa[topk,heads=2,phases=8]", "`topk` with `phases=8` is no attention: there are ttfs, topk, coincidence"),
        ("ssa[sigmoid,heads=2]", "`sigmoid` with `` is no attention"),
        ("ssa[linear,heads=2,guard=256]", "`256` is no number that fits here"),
    ] {
        let error = Op::parse(wrong).expect_err(wrong);
        assert!(error.contains(told), "{error}");
    }
}

/// A small program; cases below replace a part of it.
const PROGRAM: &str = "snnc 3 tensor context=8

weight @wte : f32[16,4]
weight @w : f32[4,4]
weight @b : f32[4]

%0 = tokens : i32[tokens]
%1 = embed(%0, @wte) : f32[tokens,4] // a
%2 = linear(%1, @w, @b) : f32[tokens,4]
%3 = rms_norm[eps=1e-5](%2) : f32[tokens,4]
%4 = add(%2, %3) : f32[tokens,4]

output logits = %4
";

fn parse_zeros(text: &str) -> Result<Graph, Diagnostics> {
    parse(text, &|_, elem, sizes| match elem {
        Elem::F32 => Ok(Arc::new(Tensor::f32(sizes, vec![0.0; sizes.iter().product()]))),
        Elem::I8 => Ok(Arc::new(Tensor::i8(sizes, vec![0; sizes.iter().product()]))),
        Elem::I32 | Elem::I4(_) | Elem::Level(..) => Err("here are no such weights".into()),
    })
}

#[test]
fn spaces_comments_and_missing_hashes_are_fine() {
    let tidy = print(&parse_zeros(PROGRAM).expect("it is a program"));
    let loose = PROGRAM.replace(" = ", "=").replace(", ", " ,").replace('\n', "  \r\n\r\n// words\n");
    assert_eq!(print(&parse_zeros(&loose).expect("it is a program")), tidy);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let cases = [
        (
            "snnc 3",
            "snnc 2",
            "1:6: this is version 2 of the text form, known is version 3\n  compile the model again with this snnc",
        ),
        (
            "snnc 3 tensor",
            "snnc 3 tenser",
            "1:8: `tenser` is no stage: there are imported, tensor, quantised, spiking, training",
        ),
        ("context=8", "context=4294967296", "1:23: a number below 2^32 was expected"),
        ("@b : f32[4]", "@b : f64[4]", "5:13: weights are f32, i32, i8 or i4<32>, here is `f64[4]`"),
        ("@b : f32[4]", "@b : f32[4,4,4,4,4,4]", "5:13: shapes have at most 5 sizes"),
        ("@b : f32[4]", "@b : f32[tokens]", "5:13: sizes of weights are numbers"),
        (
            "@b : f32[4]",
            "@b : f32[4294967295,4294967295,2]",
            "5:13: f32[4294967295,4294967295,2] is larger than any memory",
        ),
        ("@b : f32[4]", "@b : i32[4]", "5:13: here are no such weights"),
        (
            "@b : f32[4]",
            "@b : f32[4] 0123456789abcdef",
            "5:20: @b is declared with hash 0123456789abcdef, its tensor has d0a66a65c7528968\n  these are not the weights that the program was made with",
        ),
        ("@b : f32[4]", "@w : f32[4]", "5:8: there is a weight @w already"),
        ("@b : f32[4]", "@\"b : f32[4]", "5:20: `\"` is missing"),
        ("@b : f32[4]", "@\"\\u{d800}\" : f32[4]", "5:18: an escape is `\\\"`, `\\\\` or `\\u{hex}`"),
        ("%1 = embed", "%2 = embed", "8:2: values are numbered in order: %1 was expected, here is %2"),
        ("rms_norm[eps=1e-5]", "rms_norm[eps=0.00001]", "10:6: this is spelled `rms_norm[eps=1e-5]`"),
        ("rms_norm[eps=1e-5]", "rms_norm[eps=NaN]", "10:6: `NaN` is not a number"),
        ("rms_norm[eps=1e-5]", "rms_norm[eps=1e-5", "10:6: `]` is missing after the attributes"),
        (
            "rms_norm[eps=1e-5]",
            "quant[binary,7,sine]",
            "10:6: `sine` is no curve: there are identity, relu, gelu_tanh, gelu_erf, gelu_quick, silu",
        ),
        ("rms_norm[eps=1e-5]", "normalize", "10:6: `normalize` is no operation without attributes"),
        ("rms_norm[eps=1e-5](%2)", "rms_norm[eps=1e-5](%3)", "10:25: there is no value %3 before this line"),
        ("embed(%0, @wte)", "embed(%0, @wpe)", "8:16: there is no weight @wpe"),
        ("embed(%0, @wte)", "embed(%0)", "8:6: `embed` does not fit its operands: it takes 2 operands, here are 1"),
        ("@b) : f32[tokens,4]", "@b) : f32[tokens,5]", "9:27: `linear` gives f32[tokens,4] here, not f32[tokens,5]"),
        ("add(%2, %3)", "add(%2, %1)", "10:1: nothing uses %3\n  remove this line"),
        ("add(%2, %3)", "rms_norm[eps=1e-5](%2)", "11:6: this line adds nothing: its value is %3\n  use %3 instead"),
        ("output logits", "output \"\"", "13:8: a name of 1 to 1024 bytes was expected"),
        ("= %4\n", "= %4\noutput logits = %4\n", "14:8: there is an output logits already"),
        ("= %4\n", "= %4 %5\n", "13:20: the line should end here"),
        ("output logits", "logits", "13:1: a line starts with `weight`, `%` or `output`"),
    ];
    for (part, instead, expected) in cases {
        assert!(PROGRAM.contains(part), "{part}");
        let errors = parse_zeros(&PROGRAM.replacen(part, instead, 1)).expect_err(instead);
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told[0], expected, "{instead}");
    }
}

#[test]
fn one_mistake_is_one_error_and_two_are_two() {
    let text = PROGRAM.replace("embed(", "imbed(").replace("eps=1e-5", "eps=x");
    let errors = parse_zeros(&text).expect_err("two mistakes");
    let places: Vec<String> = errors.iter().map(|error| error.place.to_string()).collect();
    assert_eq!(places, ["8:6", "10:6"]);
}

#[test]
fn garbage_is_refused_in_time() {
    let header = "snnc 3 tensor context=8\n";
    for text in ["", "\n//\n", "snnc", "snnc 3 tensor context=8 x"] {
        assert!(parse_zeros(text).is_err_and(|errors| errors.len() == 1), "{text}");
    }
    let long = format!("{header}%0 = tokens : i32[tokens] // {}", "x".repeat(1 << 20));
    assert_eq!(parse_zeros(&long).expect_err("long")[0].message, "this line has 1048605 bytes; 65536 are allowed");
    let many = format!("{header}{}", "x\n".repeat(1 << 20));
    assert_eq!(parse_zeros(&many).expect_err("many").len(), 51);
}

proptest::proptest! {
    #[test]
    fn names_survive(name in "\\PC{1,20}|[ -~]{1,20}", tail in "[\\x00-\\x7f]{1,9}") {
        let mut s = Sketch::new(Stage::Spiking);
        let tokens = s.0.add(Op::Leaf(LeafOp::Tokens), &[], &name).expect("it fits");
        let table = s.f32(&tail, &[1, 1]);
        let x = s.0.add(Op::Dense(DenseOp::Embed), &[tokens, table], &tail).expect("it fits");
        let graph = s.finish(&[(&name, x)]);
        let text = print(&graph);
        let again = parse_with(&text, &graph).unwrap_or_else(|errors| panic!("{errors:?}\n{text}"));
        assert_eq!(content(&again), content(&graph));
    }

    #[test]
    fn a_damaged_program_is_refused_or_reads_back(at in 0usize..PROGRAM.len(), with in "[ -~\\n]{0,3}", gone in 0usize..8) {
        let mut text = PROGRAM.to_string();
        text.replace_range(at..(at + gone).min(PROGRAM.len()), &with);
        if let Ok(graph) = parse_zeros(&text) {
            let text = print(&graph);
            assert_eq!(print(&parse_zeros(&text).expect("it was printed")), text);
        }
    }
}
