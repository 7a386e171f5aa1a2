//! Both engines, bit for bit: outputs, events, state, on sizes that fit no vector.

use crate::{Engine, Executed, Isa, KernelCosts, MatmulCounts, Options, Program, Rows, Session};
use snnc_ir::events::Events;
use snnc_ir::hadamard::HadamardSize;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::op::{Binary, Heads, Layout, Op, Pairs, Scalar};
use snnc_ir::{Builder, Code, Curve, Graph, Ssa, Stage, Tensor, Value};
use std::sync::Arc;

/// A small transformer with everything that a stage may hold.
#[derive(Clone, Copy, Debug)]
struct TestNet {
    stage: Stage,
    width: usize,
    heads: u32,
    hidden: usize,
    vocab: usize,
    layers: usize,
    context: u32,
    code: Code,
    steps: u16,
    curve: Curve,
    /// Heads of keys, and how far back queries look.
    kv: u32,
    window: Option<u32>,
    /// Channels of a head that are turned by the position; 0: positions have a table of their own.
    turned: usize,
    pairs: Pairs,
    /// Whether hidden layers have a gate, and queries and keys a norm.
    gated: bool,
    qk_norm: bool,
    /// What turns the hidden layers of gates.
    hadamard: Option<HadamardSize>,
    /// Whether scores fall with the distance.
    alibi: bool,
    /// Whether tokens have thresholds of their own at q, k and v.
    thresholds: bool,
}

const NET: TestNet = TestNet {
    stage: Stage::Tensor,
    width: 12,
    heads: 3,
    hidden: 20,
    vocab: 23,
    layers: 2,
    context: 40,
    code: Code::Binary,
    steps: 7,
    curve: Curve::GeluTanh,
    kv: 3,
    window: None,
    turned: 0,
    pairs: Pairs::Half,
    gated: false,
    qk_norm: false,
    hadamard: None,
    alibi: false,
    thresholds: false,
};

/// Parts that newer networks have.
const LLAMA: TestNet =
    TestNet { width: 24, heads: 6, kv: 2, hidden: 20, turned: 4, gated: true, curve: Curve::Silu, ..NET };

/// A graph in the making, with numbers for its constants (SplitMix64).
struct NetMaker {
    b: Builder,
    net: TestNet,
    state: u64,
    names: usize,
}

type Made = Result<Value, snnc_ir::Diagnostic>;

impl NetMaker {
    fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn real(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.bits() >> 40) as f32 / (1 << 24) as f32)
    }

    fn floats(&mut self, sizes: &[usize], low: f32, high: f32) -> Value {
        let data = (0..sizes.iter().product()).map(|_| self.real(low, high)).collect();
        self.names += 1;
        self.b.weight(&format!("w{}", self.names), Arc::new(Tensor::f32(sizes, data)))
    }

    fn bytes(&mut self, inputs: usize, outputs: usize) -> Value {
        let data = (0..inputs * outputs).map(|_| (self.bits() % 255) as i8).map(|w| w.max(-127)).collect();
        self.names += 1;
        self.b.weight(&format!("w{}", self.names), Arc::new(Tensor::i8(&[inputs, outputs], data)))
    }

    fn op(&mut self, op: Op, args: &[Value]) -> Made {
        let origin = format!("/{}", op.name());
        self.b.add(op, args, &origin)
    }

    /// A dense layer of the stage: f32 in, f32 out.
    fn linear(&mut self, x: Value, inputs: usize, outputs: usize, layout: Layout) -> Made {
        let sizes = if layout == Layout::InputMajor { [inputs, outputs] } else { [outputs, inputs] };
        let (w, b) = (self.floats(&sizes, -0.4, 0.4), self.floats(&[outputs], -0.2, 0.2));
        self.op(Op::Dense(DenseOp::Linear(layout)), &[x, w, b])
    }

    /// A neuron layer of the stage, from f32 or i32 whose magnitudes are about `scale`.
    fn neurons(&mut self, x: Value, width: usize, scale: f32, curve: Curve) -> Made {
        let TestNet { code, steps, stage, .. } = self.net;
        let levels = code.levels(steps) as f32;
        let mut args = vec![x];
        if curve == Curve::Identity {
            let gain = levels / scale / 1.5;
            args.extend([self.floats(&[width], gain / 2.0, gain), self.floats(&[width], -1.0, 1.0)]);
        } else {
            // Some pre-activations lie beyond the table's reach on both sides.
            args.extend([self.floats(&[width], 1.0 / scale, 9.0 / scale), self.floats(&[width], -2.0, 2.0)]);
            args.extend([self.floats(&[width], levels / 16.0, levels / 3.0), self.floats(&[width], -1.0, 1.0)]);
        }
        let op = if stage == Stage::Spiking {
            Op::Spike(SpikeOp::Fire { code, steps, curve })
        } else {
            Op::Level(LevelOp::Quant { code, steps, curve })
        };
        self.op(op, &args)
    }

    /// Levels or spikes through int8 weights to sums.
    fn sums(&mut self, x: Value, inputs: usize, outputs: usize) -> Made {
        let w = self.bytes(inputs, outputs);
        if self.net.stage == Stage::Spiking {
            let current = self.op(Op::Spike(SpikeOp::Synapse), &[x, w])?;
            return self.op(Op::Spike(SpikeOp::Decode), &[current]);
        }
        self.op(Op::Level(LevelOp::MatMulInt), &[x, w])
    }

    /// Magnitude of such sums, roughly.
    fn reach(&self, inputs: usize) -> f32 {
        self.net.code.levels(self.net.steps) as f32 * 40.0 * (inputs as f32).sqrt()
    }

    fn affine(&mut self, x: Value, inputs: usize, outputs: usize) -> Made {
        let gain = 1.0 / self.reach(inputs);
        let (gain, offset) = (self.floats(&[outputs], gain / 2.0, gain), self.floats(&[outputs], -0.2, 0.2));
        self.op(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])
    }

    /// Neurons with a multiplicative input, of gates and factors about as large as `scale`.
    fn gated_neurons(&mut self, [gate, up]: [Value; 2], width: usize, scale: f32) -> Made {
        let TestNet { code, steps, curve, stage, .. } = self.net;
        let levels = code.levels(steps) as f32;
        let [pre, gain] = [6.0 / scale, levels / scale].map(|s| self.floats(&[width], s / 3.0, s));
        let [before, offset] = [0; 2].map(|_| self.floats(&[width], -1.0, 1.0));
        let op = if stage == Stage::Spiking {
            Op::Spike(SpikeOp::GatedFire { code, steps, curve })
        } else {
            Op::Level(LevelOp::GatedQuant { code, steps, curve })
        };
        self.op(op, &[gate, up, pre, before, gain, offset])
    }

    /// A hidden layer that is turned, of its gate and factor in reals.
    fn turned_hidden(&mut self, [gate, up]: [Value; 2], size: HadamardSize) -> Made {
        let y = self.op(Op::Dense(DenseOp::Gated(self.net.curve)), &[gate, up])?;
        self.op(Op::Dense(DenseOp::Hadamard(size)), &[y])
    }

    fn norm(&mut self, x: Value, heads: u32) -> Made {
        self.op(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-5), heads }), &[x])
    }

    /// Queries or keys in reals, `width` wide in all: perhaps normalised and turned.
    fn positioned(&mut self, x: Value, turns: Option<Value>, heads: u32, width: usize) -> Made {
        let mut x = x;
        if self.net.qk_norm {
            x = self.norm(x, heads)?;
            let (gain, offset) = (self.floats(&[width], 0.5, 1.5), self.floats(&[width], -0.1, 0.1));
            x = self.op(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])?;
        }
        match turns {
            Some(turns) => self.op(Op::Dense(DenseOp::Rotary { heads, pairs: self.net.pairs }), &[x, turns]),
            None => Ok(x),
        }
    }

    fn dense_layer(&mut self, x: Value, turns: Option<Value>) -> Made {
        let TestNet { width, heads, kv, window, hidden, curve, gated, .. } = self.net;
        let add = Op::Array(ArrayOp::Binary(Binary::Add));
        let (g, b) = (self.floats(&[width], 0.5, 1.5), self.floats(&[width], -0.3, 0.3));
        let y = self.norm(x, 1)?;
        let y = self.op(Op::Level(LevelOp::ScaleShift), &[y, g, b])?;
        let kv_width = width / heads as usize * kv as usize;
        let [q, k, v] =
            [width, kv_width, kv_width].map(|m| self.linear(y, width, m, Layout::InputMajor).expect("fits"));
        let (q, k) = (self.positioned(q, turns, heads, width)?, self.positioned(k, turns, kv, kv_width)?);
        let mut args = vec![q, k, v];
        args.extend(self.net.alibi.then(|| self.floats(&[heads as usize], 0.0, 0.7)));
        let heads = Heads { kv, window, alibi: self.net.alibi, ..Heads::equal(heads) };
        let y = self.op(Op::Dense(DenseOp::Attention { heads, scale: Scalar::new(0.5) }), &args)?;
        let y = self.linear(y, width, width, Layout::OutputMajor)?;
        let x = self.op(add, &[x, y])?;
        let y = self.op(Op::Dense(DenseOp::Centre), &[x])?;
        let y = self.norm(y, 1)?;
        let gate = self.linear(y, width, hidden, Layout::InputMajor)?;
        let y = if let Some(size) = self.net.hadamard {
            let up = self.linear(y, width, hidden, Layout::InputMajor)?;
            self.turned_hidden([gate, up], size)?
        } else if gated {
            let up = self.linear(y, width, hidden, Layout::InputMajor)?;
            self.op(Op::Dense(DenseOp::Gated(curve)), &[gate, up])?
        } else {
            self.op(Op::Dense(DenseOp::Curve(curve)), &[gate])?
        };
        let y = self.linear(y, hidden, width, Layout::InputMajor)?;
        self.op(add, &[x, y])
    }

    fn layer(&mut self, x: Value, turns: Option<Value>) -> Made {
        let TestNet { stage, width, heads, kv, window, hidden, curve, gated, qk_norm, .. } = self.net;
        let add = Op::Array(ArrayOp::Binary(Binary::Add));
        if stage == Stage::Tensor {
            return self.dense_layer(x, turns);
        }
        let y = self.op(Op::Dense(DenseOp::Centre), &[x])?;
        let y = self.norm(y, 1)?;
        let y = self.neurons(y, width, 1.0, Curve::Identity)?;
        let mut qkv = [y; 3];
        for (i, (part, heads_of)) in qkv.iter_mut().zip([heads, kv, kv]).enumerate() {
            let outputs = width / heads as usize * heads_of as usize;
            let sums = self.sums(y, width, outputs)?;
            *part = if i < 2 && (turns.is_some() || qk_norm) {
                let real = self.affine(sums, width, outputs)?;
                let real = self.positioned(real, turns, heads_of, outputs)?;
                self.neurons(real, outputs, 1.0, Curve::Identity)?
            } else {
                self.neurons(sums, outputs, self.reach(width), Curve::Identity)?
            };
        }
        let most = (self.net.code.levels(self.net.steps) as f32).powi(2);
        let slope = self.floats(&[heads as usize], 5.0 / most, 60.0 / most);
        let mut args = qkv.to_vec();
        if self.net.thresholds {
            for heads in [heads, kv, kv] {
                args.push(self.op(Op::Level(LevelOp::RowMaxAbs { heads }), &[x])?);
            }
        }
        args.push(slope);
        args.extend(self.net.alibi.then(|| self.floats(&[heads as usize], 0.0, most / 20.0)));
        let TestNet { alibi, thresholds, .. } = self.net;
        let heads = Heads { query: heads, kv, window, alibi, thresholds };
        let y = self.op(Op::Level(LevelOp::Ssa { heads, variant: Ssa::Ttfs { phases: 8 } }), &args)?;
        let scale = most.sqrt() / 2.0;
        let y = self.neurons(y, width, scale, Curve::Identity)?;
        let sums = self.sums(y, width, width)?;
        let y = self.affine(sums, width, width)?;
        let x = self.op(add, &[y, x])?;
        let y = self.norm(x, 1)?;
        let y = self.neurons(y, width, 1.0, Curve::Identity)?;
        let sums = self.sums(y, width, hidden)?;
        let y = if let Some(size) = self.net.hadamard {
            let up = self.sums(y, width, hidden)?;
            let [gate, up] = [sums, up].map(|sums| self.affine(sums, width, hidden).expect("fits"));
            let y = self.turned_hidden([gate, up], size)?;
            self.neurons(y, hidden, 1.0, Curve::Identity)?
        } else if gated {
            let up = self.sums(y, width, hidden)?;
            self.gated_neurons([sums, up], hidden, self.reach(width))?
        } else {
            self.neurons(sums, hidden, self.reach(width), curve)?
        };
        let sums = self.sums(y, hidden, width)?;
        let y = self.affine(sums, hidden, width)?;
        self.op(add, &[x, y])
    }

    fn graph(mut self) -> Result<Graph, snnc_ir::Diagnostic> {
        let TestNet { stage, width, vocab, layers, context, turned, .. } = self.net;
        let (tokens, positions) = (self.op(Op::Leaf(LeafOp::Tokens), &[])?, self.op(Op::Leaf(LeafOp::Positions), &[])?);
        let table = self.floats(&[vocab, width], -1.0, 1.0);
        let places = self.floats(&[context as usize, width], -0.5, 0.5);
        let (x, p) = (
            self.op(Op::Dense(DenseOp::Embed), &[tokens, table])?,
            self.op(Op::Dense(DenseOp::Embed), &[positions, places])?,
        );
        let mut x = self.op(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, p])?;
        let shift = self.floats(&[width], -0.1, 0.1);
        x = self.op(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, shift])?;
        let mut outputs = vec![("embedded".to_string(), x)];
        let turns = if turned > 0 {
            let angles = self.floats(&[context as usize, turned], -1.0, 1.0);
            Some(self.op(Op::Dense(DenseOp::Embed), &[positions, angles])?)
        } else {
            None
        };
        for i in 0..layers {
            x = self.layer(x, turns)?;
            if stage != Stage::Tensor {
                let rows = self.floats(&[2, width], -1.0, 1.0);
                let starts = self.b.weight("starts", Arc::new(Tensor::i32(&[2, 2], vec![3, -1, 3, 1])));
                let opening = self.op(Op::Leaf(LeafOp::Opening), &[])?;
                x = self.op(Op::Dense(DenseOp::AtStart), &[x, opening, starts, rows])?;
            }
            outputs.push((format!("layer{i}"), x));
        }
        let y = self.norm(x, 1)?;
        let logits = if stage == Stage::Tensor {
            self.linear(y, width, vocab, Layout::OutputMajor)?
        } else {
            let y = self.neurons(y, width, 1.0, Curve::Identity)?;
            let sums = self.sums(y, width, vocab)?;
            self.affine(sums, width, vocab)?
        };
        outputs.push(("logits".to_string(), logits));
        Ok(self.b.finish(outputs))
    }
}

fn make(net: TestNet) -> Arc<Graph> {
    let maker = NetMaker { b: Builder::new(net.stage, net.context), net, state: 1, names: 0 };
    Arc::new(maker.graph().expect("the net is well typed"))
}

fn program(graph: &Arc<Graph>, engine: Engine, chunk: usize) -> Arc<Program> {
    let options = Options { engine, chunk, ..Options::default() };
    Arc::new(Program::new(Arc::clone(graph), &options).expect("the graph can be run"))
}

fn tokens(n: usize, vocab: usize) -> Vec<u32> {
    (0..n).map(|i| (i * 7 + i * i) as u32 % vocab as u32).collect()
}

/// Bits of all outputs after each of the calls, and the events of all.
type Trace = (Vec<Vec<u32>>, Vec<Events>);

fn trace(program: &Arc<Program>, calls: &[&[u32]], rows: Rows) -> Trace {
    let mut session = Session::new(Arc::clone(program)).expect("there is memory");
    let mut bits = Vec::new();
    for call in calls {
        let outputs = session.forward(call, rows).expect("the call is in order");
        for (name, _) in &program.graph().outputs {
            bits.push(outputs.f32(name).expect("outputs are f32").iter().map(|x| x.to_bits()).collect());
        }
    }
    (bits, session.events().to_vec())
}

fn check(net: TestNet) {
    let graph = make(net);
    let ids = tokens(21, net.vocab);
    let (oracle, jit) = (program(&graph, Engine::Interpreter, 128), program(&graph, Engine::Jit, 128));
    for rows in [Rows::All, Rows::Last, Rows::None] {
        let calls = [&ids[..9], &ids[9..10], &ids[10..]];
        let (bits, events) = trace(&oracle, &calls, rows);
        let (jit_bits, jit_events) = trace(&jit, &calls, rows);
        for (i, (a, b)) in bits.iter().zip(&jit_bits).enumerate() {
            assert_eq!(a, b, "{net:?} {rows:?}: output {i} in order of calls");
        }
        for (i, (a, b)) in events.iter().zip(&jit_events).enumerate() {
            assert_eq!(a, b, "{net:?} {rows:?}: events of `{}`", graph.nodes[i].op);
        }
    }
}

#[test]
fn a_tensor_program_gives_the_oracles_bits() {
    check(NET);
    check(TestNet { width: 48, hidden: 20, curve: Curve::GeluErf, ..NET });
    check(TestNet { width: 16, heads: 2, kv: 2, hidden: 64, vocab: 32, curve: Curve::Relu, ..NET });
}

/// Grouped heads, windows, rotations of a part of a head, norms of queries and keys, gates.
#[test]
fn parts_of_newer_networks_give_the_oracles_bits() {
    let nets = [
        LLAMA,
        TestNet { kv: 1, window: Some(5), turned: 2, pairs: Pairs::Interleaved, curve: Curve::GeluTanh, ..LLAMA },
        TestNet { kv: 6, window: Some(1), qk_norm: true, curve: Curve::GeluErf, steps: 9, ..LLAMA },
        TestNet { kv: 3, turned: 0, qk_norm: true, curve: Curve::Relu, code: Code::Unary, steps: 20, ..LLAMA },
        TestNet { width: 66, heads: 3, kv: 1, hidden: 33, turned: 22, window: Some(13), steps: 16, ..LLAMA },
        TestNet { gated: false, curve: Curve::GeluQuick, pairs: Pairs::Interleaved, steps: 11, ..LLAMA },
        TestNet { turned: 0, alibi: true, ..LLAMA },
        TestNet { turned: 0, alibi: true, window: Some(9), steps: 16, ..LLAMA },
        TestNet { thresholds: true, ..LLAMA },
        TestNet { turned: 0, thresholds: true, alibi: true, window: Some(9), steps: 16, ..LLAMA },
    ];
    for net in nets {
        for stage in [Stage::Tensor, Stage::Quantised, Stage::Spiking] {
            check(TestNet { stage, ..net });
        }
    }
}

/// Hidden layers that are turned: whole, in blocks, by additions of parts alone and by butterflies alone.
#[test]
fn turned_hidden_layers_give_the_oracles_bits() {
    let sizes = [(12, 1, 24), (12, 0, 36), (20, 2, 160), (1, 1, 6), (1, 6, 128), (28, 5, 896)];
    for (order, power, hidden) in sizes {
        for stage in [Stage::Tensor, Stage::Quantised, Stage::Spiking] {
            let hadamard = turned_by(order, power);
            check(TestNet { stage, hidden, hadamard, ..LLAMA });
            check(TestNet { stage, hidden, hadamard, curve: Curve::GeluTanh, steps: 16, ..LLAMA });
        }
    }
    let program = program(
        &make(TestNet { stage: Stage::Quantised, hidden: 24, hadamard: turned_by(12, 1), ..LLAMA }),
        Engine::Jit,
        8,
    );
    let text = program.explain();
    assert!(text.contains("scale_shift > gated > hadamard > quant"), "{text}");
}

fn turned_by(order: u32, power: u32) -> Option<HadamardSize> {
    Some(HadamardSize { order, power })
}

#[test]
fn codes_lengths_curves_and_odd_widths_give_the_oracles_bits() {
    let sizes = [(12, 3, 20, 23), (48, 3, 7, 33), (16, 2, 64, 32), (1, 1, 1, 2)];
    let codes = [1, 4, 7, 8, 10, 15, 16].map(|steps| (Code::Binary, steps));
    let unary = [1, 4, 8, 10, 127, 200].map(|steps| (Code::Unary, steps));
    let curves = [Curve::GeluTanh, Curve::Relu, Curve::GeluErf, Curve::Silu];
    for stage in [Stage::Quantised, Stage::Spiking] {
        for (i, &(code, steps)) in codes.iter().chain(&unary).enumerate() {
            for (j, (width, heads, hidden, vocab)) in sizes.into_iter().enumerate() {
                let curve = curves[(i + j) % curves.len()];
                let layers = 1 + j % 2;
                check(TestNet { stage, width, heads, kv: heads, hidden, vocab, layers, code, steps, curve, ..NET });
            }
        }
    }
}

#[test]
fn how_tokens_are_cut_into_calls_and_chunks_never_shows() {
    let stages = [Stage::Tensor, Stage::Quantised, Stage::Spiking];
    let newer = TestNet { window: Some(9), alibi: true, thresholds: true, ..LLAMA };
    let turned = TestNet { hidden: 24, hadamard: turned_by(12, 1), ..LLAMA };
    for (stage, net) in stages.into_iter().flat_map(|stage| [(stage, NET), (stage, newer), (stage, turned)]) {
        let net = TestNet { stage, ..net };
        let graph = make(net);
        let ids = tokens(30, net.vocab);
        let singles: Vec<&[u32]> = ids.chunks(1).collect();
        let whole = trace(&program(&graph, Engine::Jit, 128), &[&ids], Rows::All);
        let joined = |trace: Trace| {
            let outputs = graph.outputs.len();
            let of = |i: usize| trace.0.iter().skip(i).step_by(outputs).flatten().copied().collect();
            ((0..outputs).map(of).collect::<Vec<Vec<u32>>>(), trace.1)
        };
        for chunk in [1, 2, 7, 16, 29, 30] {
            assert_eq!(joined(trace(&program(&graph, Engine::Jit, chunk), &[&ids], Rows::All)), whole);
            assert_eq!(joined(trace(&program(&graph, Engine::Jit, chunk), &singles, Rows::All)), whole);
        }
        assert_eq!(joined(trace(&program(&graph, Engine::Interpreter, 4), &singles, Rows::All)), whole);
        let last = trace(&program(&graph, Engine::Jit, 7), &[&ids], Rows::Last).0;
        for (row, all) in last.iter().zip(&whole.0) {
            assert_eq!(row[..], all[all.len() - row.len()..]);
            assert_eq!(row.len() * ids.len(), all.len());
        }
    }
}

#[test]
fn stepped_and_collapsed_programs_are_equal() {
    let turned = TestNet { hidden: 24, hadamard: turned_by(12, 1), ..LLAMA };
    for (code, net) in Code::ALL.into_iter().flat_map(|code| [(code, NET), (code, LLAMA), (code, turned)]) {
        let net = TestNet { stage: Stage::Spiking, code, ..net };
        let ids = tokens(17, net.vocab);
        let run = |stage| trace(&program(&make(TestNet { stage, ..net }), Engine::Jit, 8), &[&ids], Rows::All).0;
        assert_eq!(run(Stage::Spiking), run(Stage::Quantised));
    }
}

/// Neurons that are named as outputs: what they say is the same on both engines, however it is cut into chunks, and a train's
/// spikes denote the level that the collapsed program has.
#[test]
fn neurons_can_be_looked_at() {
    let ids = tokens(19, NET.vocab);
    for (code, steps) in
        [(Code::Binary, 7), (Code::Binary, 9), (Code::Binary, 16), (Code::Unary, 5), (Code::Unary, 300)]
    {
        let seen = |stage, engine, chunk| {
            let mut graph = (*make(TestNet { stage, code, steps, ..LLAMA })).clone();
            let neurons: Vec<Value> =
                graph.iter().filter(|(_, node)| node.op.is_neuron()).map(|(value, _)| value).collect();
            graph.outputs.extend(neurons.iter().map(|value| (format!("{}", value.0), *value)));
            let mut session = Session::new(program(&Arc::new(graph.clone()), engine, chunk)).expect("there is memory");
            let mut all = vec![Vec::new(); neurons.len()];
            for part in ids.chunks(chunk) {
                let outputs = session.forward(part, Rows::All).expect("in order");
                for (all, value) in all.iter_mut().zip(&neurons) {
                    all.extend_from_slice(outputs.levels(&value.0.to_string()).expect("neurons have levels"));
                }
            }
            assert!(all.iter().flatten().any(|&level| level != 0));
            let widths: Vec<usize> = neurons.iter().filter_map(|value| graph.ty(*value).shape().row_width()).collect();
            (all, widths)
        };
        let (levels, widths) = seen(Stage::Quantised, Engine::Jit, 128);
        assert_eq!(seen(Stage::Quantised, Engine::Interpreter, 7).0, levels);
        let (spikes, _) = seen(Stage::Spiking, Engine::Jit, 4);
        assert_eq!(seen(Stage::Spiking, Engine::Interpreter, 128).0, spikes);
        for ((levels, spikes), width) in levels.iter().zip(&spikes).zip(widths) {
            for (i, &level) in levels.iter().enumerate() {
                let row = &spikes[i / width * width * usize::from(steps)..][..width * usize::from(steps)];
                let said = (0..steps).map(|t| (t, row[usize::from(t) * width + i % width]));
                assert!(said.clone().all(|(t, spike)| spike == code.spike(level, t, steps)));
                assert_eq!(said.map(|(t, spike)| spike * code.weight(t, steps)).sum::<i32>(), level);
            }
        }
    }
}

#[test]
fn a_synapse_adds_one_row_for_every_spike() {
    let net = TestNet { stage: Stage::Spiking, ..NET };
    let graph = make(net);
    let mut session = Session::new(program(&graph, Engine::Jit, 8)).expect("there is memory");
    session.forward(&tokens(17, net.vocab), Rows::All).expect("in order");
    let mut additions = 0;
    for (_, node) in graph.iter().filter(|(_, node)| node.op == Op::Spike(SpikeOp::Synapse)) {
        additions += session.events()[node.args[0].index()].spikes * node.ty.shape().width().unwrap_or(0) as u64;
    }
    assert!(additions > 0);
    let Executed { additions: done, .. } = session.executed();
    assert_eq!(done, additions);
}

#[test]
fn counting_changes_tallies_only() {
    let graph = make(TestNet { stage: Stage::Spiking, ..NET });
    let ids = tokens(9, NET.vocab);
    for engine in [Engine::Interpreter, Engine::Jit] {
        let silent = Options { engine, count: false, ..Options::default() };
        let silent = Arc::new(Program::new(Arc::clone(&graph), &silent).expect("the graph can be run"));
        let (bits, events) = trace(&silent, &[&ids], Rows::All);
        let (counted_bits, counted) = trace(&program(&graph, engine, 128), &[&ids], Rows::All);
        assert_eq!(bits, counted_bits);
        for (a, b) in events.iter().zip(&counted) {
            assert_eq!(*a, Events { spikes: 0, active: 0, saturated: 0, additions: 0, ..*b });
        }
    }
}

#[test]
fn a_refused_call_leaves_the_sequence_as_it_was() {
    for engine in [Engine::Interpreter, Engine::Jit] {
        let graph = make(NET);
        let program = program(&graph, engine, 4);
        let mut session = Session::new(Arc::clone(&program)).expect("there is memory");
        let ids = tokens(30, NET.vocab);
        session.forward(&ids[..10], Rows::None).expect("in order");
        let refused = |session: &mut Session, ids: &[u32]| {
            let message = session.forward(ids, Rows::All).err().map(|error| error.to_string());
            assert_eq!(session.past(), 10);
            message.unwrap_or_default()
        };
        assert_eq!(refused(&mut session, &[0; 31]), "41 tokens do not fit a context of 40");
        assert_eq!(refused(&mut session, &[3, 23]), "id 23 is outside the table of 23 rows");
        let row: Vec<f32> =
            session.forward(&ids[10..], Rows::Last).expect("in order").f32("logits").expect("f32").to_vec();
        let whole = Session::new(program)
            .expect("there is memory")
            .forward(&ids, Rows::Last)
            .map(|outputs| outputs.f32("logits").map(<[f32]>::to_vec));
        assert_eq!(whole, Ok(Some(row)));
        session.reset();
        assert_eq!(session.past(), 0);
    }
}

/// One token of this program leads to an infinite mean square; the others do not.
fn overflowing(stage: Stage) -> Arc<Graph> {
    let mut m = NetMaker { b: Builder::new(stage, 40), net: TestNet { stage, ..NET }, state: 1, names: 0 };
    let mut table = vec![0.5; 5 * 12];
    table[3 * 12..4 * 12].fill(f32::MAX);
    let table = m.b.weight("table", Arc::new(Tensor::f32(&[5, 12], table)));
    let tokens = m.b.add(Op::Leaf(LeafOp::Tokens), &[], "").expect("fits");
    let x = m.b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "/embed").expect("fits");
    let y = m.b.add(Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(1e-5), heads: 1 }), &[x], "/norm").expect("fits");
    let y = if stage == Stage::Tensor {
        let attention = DenseOp::Attention { heads: Heads::equal(3), scale: Scalar::new(1.0) };
        m.b.add(Op::Dense(attention), &[y, y, y], "/attention").expect("fits")
    } else {
        let y = m.neurons(y, 12, 1.0, Curve::Identity).expect("fits");
        let sums = m.sums(y, 12, 12).expect("fits");
        m.affine(sums, 12, 12).expect("fits")
    };
    Arc::new(m.b.finish(vec![("y".to_string(), y)]))
}

#[test]
fn a_value_that_is_not_finite_is_an_error_that_names_its_origin() {
    let engines = [Engine::Interpreter, Engine::Jit];
    let stages = [Stage::Tensor, Stage::Quantised, Stage::Spiking];
    for (engine, stage) in engines.into_iter().flat_map(|engine| stages.map(|stage| (engine, stage))) {
        let mut session = Session::new(program(&overflowing(stage), engine, 2)).expect("there is memory");
        let error = session.forward(&[0, 1, 2, 4, 3], Rows::All).expect_err("token 3 overflows");
        assert_eq!(error.place, "/norm", "{engine:?} {stage:?}");
        assert_eq!(session.past(), 0);
        assert!(session.forward(&[0, 1, 2], Rows::All).is_ok());
    }
}

#[test]
fn an_output_that_is_not_finite_is_an_error_that_names_its_origin() {
    for engine in [Engine::Interpreter, Engine::Jit] {
        let mut b = Builder::new(Stage::Tensor, 40);
        let table = b.weight("table", Arc::new(Tensor::f32(&[2, 3], vec![1.0, 2.0, 3.0, 1.0, f32::MAX, 3.0])));
        let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "").expect("fits");
        let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "/embed").expect("fits");
        let y = b.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, x], "/add").expect("fits");
        let graph = Arc::new(b.finish(vec![("y".to_string(), y)]));
        let mut session = Session::new(program(&graph, engine, 1)).expect("there is memory");
        let error = session.forward(&[0, 1], Rows::All).expect_err("token 1 overflows");
        assert_eq!(error.to_string(), "/add: `add` gave inf");
        assert_eq!(session.past(), 0);
    }
}

#[test]
fn a_graph_whose_types_lie_is_refused() {
    let mut graph = (*make(NET)).clone();
    let at =
        graph.nodes.iter().position(|node| node.op == Op::Array(ArrayOp::Binary(Binary::Add))).expect("there is one");
    graph.nodes[at].ty = snnc_ir::Type::tensor(snnc_ir::Elem::F32, snnc_ir::Shape::rows(1000));
    let error = Program::new(Arc::new(graph), &Options::default()).expect_err("it is not 1000 wide");
    assert_eq!(error.message, "`add` cannot be planned: it is said to be f32[tokens,1000] and is f32[tokens,12]");
}

#[test]
fn programs_come_and_go() {
    let graph = make(TestNet { stage: Stage::Spiking, ..NET });
    let first = trace(&program(&graph, Engine::Jit, 8), &[&[1, 2, 3]], Rows::All);
    for _ in 0..50 {
        assert_eq!(trace(&program(&graph, Engine::Jit, 8), &[&[1, 2, 3]], Rows::All), first);
    }
}

#[test]
fn sessions_of_one_program_run_on_threads_of_their_own() {
    let graph = make(TestNet { stage: Stage::Spiking, ..NET });
    let program = program(&graph, Engine::Jit, 8);
    let ids = tokens(20, NET.vocab);
    let expected = trace(&program, &[&ids], Rows::All);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| assert_eq!(trace(&program, &[&ids], Rows::All), expected)));
        }
    });
}

#[test]
fn a_plan_reads_as_text() {
    let program = program(&make(TestNet { stage: Stage::Spiking, layers: 1, ..NET }), Engine::Jit, 8);
    let text = program.explain();
    for part in
        ["code fire_binary_7_identity_f32_12", " synapse_binary_7_12_20", "kernel ttfs", "scale_shift_add_12", "/embed"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// Costs that force rows, and costs that force all of them: the same bits and events, and each way is counted.
#[test]
fn costs_choose_and_change_no_result() {
    let ids = tokens(40, NET.vocab);
    let calls: [&[u32]; 4] = [&ids[..1], &ids[1..2], &ids[2..5], &ids[5..]];
    let run = |graph: &Arc<Graph>, options: Options| {
        let program = Arc::new(Program::new(Arc::clone(graph), &options).expect("the graph can be run"));
        let mut session = Session::new(Arc::clone(&program)).expect("there is memory");
        for call in calls {
            session.forward(call, Rows::Last).expect("the call is in order");
        }
        let products = session.matmul_counts().iter().fold(MatmulCounts::default(), |mut all, one| {
            all += *one;
            all
        });
        (trace(&program, &calls, Rows::All), products, program.explain_choices(session.matmul_counts()))
    };
    for stage in [Stage::Quantised, Stage::Spiking] {
        let graph = make(TestNet { stage, ..NET });
        let (want, ..) = run(&graph, Options::default());
        for isa in crate::ISAS.into_iter().filter(|isa| isa.is_available()) {
            for threads in [1, 2] {
                let with =
                    |kernel_costs| run(&graph, Options { isa: Some(isa), threads, kernel_costs, ..Options::default() });
                let (rows, by_rows, why_rows) = with(Some(KernelCosts::of([1e9, 1e-9, 1e-9, 1e9, 1e9, 1e9])));
                let (all, by_all, why_all) = with(Some(KernelCosts::of([1e-9, 1e9, 1e9, 1e-9, 1e-9, 1e-9])));
                assert!(rows == want && all == want, "{stage:?}, {isa:?}, {threads} threads");
                assert_eq!((by_rows.fired, by_rows.dense), (by_all.fired, 0));
                if stage == Stage::Quantised {
                    assert_eq!((by_all.sparse, by_all.dense), (0, by_rows.sparse));
                    assert!(why_rows.contains("rows |") && !why_rows.contains(" all |"), "{why_rows}");
                    assert!(why_all.contains(" all |") && !why_all.contains("rows |"), "{why_all}");
                }
                let machine = format!("kernels ({})", isa.name());
                let total = format!("rows {}, all 0\n", by_rows.sparse);
                for part in [machine.as_str(), "threads: ", "arena: ", "density", "cross", total.as_str()] {
                    assert!(why_rows.contains(part), "{part} in\n{why_rows}");
                }
            }
        }
    }
}

/// What `--emit` shows: each function once, as IR and as instructions; synapses only where no kernel drives them.
#[test]
fn functions_are_listed() {
    let graph = make(TestNet { stage: Stage::Spiking, layers: 2, ..NET });
    for isa in [Isa::Portable, Isa::best()] {
        let options = Options { isa: Some(isa), ..Options::default() };
        let listings = Program::new(Arc::clone(&graph), &options).and_then(|p| p.listings()).expect("it compiles");
        let names: Vec<&str> = listings.iter().map(|listing| listing.name.as_str()).collect();
        assert!(names.contains(&"fire_binary_7_identity_f32_12") && names.last() == Some(&"forward"), "{names:?}");
        assert_eq!(names.contains(&"synapse_binary_7_12_20"), isa == Isa::Portable, "{names:?}");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
        for listing in &listings {
            assert!(listing.clif.starts_with("function") && listing.clif.contains("block0("), "{}", listing.clif);
            assert!(listing.asm.contains("ret"), "{}: {}", listing.name, listing.asm);
        }
    }
}

/// Machine code for GPT-2 small's plan is made in a fraction of the time that reading its weights takes.
#[test]
fn twelve_layers_of_768_compile_within_a_tenth_of_a_second() {
    for stage in [Stage::Tensor, Stage::Quantised, Stage::Spiking] {
        // The vocabulary is short: it costs memory, and no code.
        let net = TestNet { stage, width: 768, heads: 12, kv: 12, hidden: 3072, vocab: 257, layers: 12, ..NET };
        let program = program(&make(net), Engine::Jit, 1);
        assert!(program.codegen_ms() < 100.0, "{stage:?}: {} ms", program.codegen_ms());
    }
}

/// Potentials where a comparison, a rounding or the end of a table decides.
const EDGES: [f32; 23] = [
    0.0,
    -0.0,
    0.5,
    -0.5,
    0.499_999_97,
    1.5,
    2.5,
    -2.5,
    126.5,
    127.4,
    127.5,
    128.0,
    1e38,
    -1e38,
    8.0,
    -8.0,
    7.999_999_5,
    -7.999_999_5,
    8.000_001,
    1e-40,
    f32::MIN_POSITIVE,
    3.0,
    -3.1,
];

/// Two neuron layers, on f32 and on i32 potentials, whose levels are the outputs.
fn edges(stage: Stage, code: Code, steps: u16, curve: Curve) -> Result<Graph, snnc_ir::Diagnostic> {
    let d = EDGES.len();
    let mut m = NetMaker { b: Builder::new(stage, 64), net: TestNet { stage, code, steps, ..NET }, state: 1, names: 0 };
    let mut row = |name: &str, from: &[f32], stride: usize| {
        let data = (0..d).map(|i| from[i * stride / 2 % from.len()]).collect();
        m.b.weight(name, Arc::new(Tensor::f32(&[d], data)))
    };
    let mut constants = Vec::new();
    if curve != Curve::Identity {
        constants.push(row("pre_gain", &[1.0, 1.0, -1.0, 1e10, f32::NAN], 2));
        constants.push(row("pre_offset", &[0.0, 0.0, 0.0, 1.0], 2));
    }
    constants.push(row("gain", &[1.0, -1.0, 0.3, 1e10, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 0.0], 6));
    constants.push(row("offset", &[0.0, -0.0, 0.5, -1e38, f32::INFINITY, f32::NAN], 1));
    let (one, zero) = (row("one", &[1.0], 1), row("zero", &[0.0], 1));
    // Row r is the edges turned by r, so that every edge meets every constant.
    let table = (0..d * d).map(|i| EDGES[(i / d + i) % d]).collect();
    let table = m.b.weight("table", Arc::new(Tensor::f32(&[d, d], table)));
    let same = (0..d * d).map(|i| i8::from(i % d == i / d)).collect();
    let same = m.b.weight("same", Arc::new(Tensor::i8(&[d, d], same)));
    let tokens = m.op(Op::Leaf(LeafOp::Tokens), &[])?;
    let mut x = m.op(Op::Dense(DenseOp::Embed), &[tokens, table])?;
    let mut outputs = Vec::new();
    for name in ["from f32", "from i32"] {
        let args: Vec<Value> = [x].iter().chain(&constants).copied().collect();
        if stage == Stage::Spiking {
            let spikes = m.op(Op::Spike(SpikeOp::Fire { code, steps, curve }), &args)?;
            let current = m.op(Op::Spike(SpikeOp::Synapse), &[spikes, same])?;
            x = m.op(Op::Spike(SpikeOp::Decode), &[current])?;
        } else {
            let levels = m.op(Op::Level(LevelOp::Quant { code, steps, curve }), &args)?;
            x = m.op(Op::Level(LevelOp::MatMulInt), &[levels, same])?;
        }
        outputs.push((name.to_string(), m.op(Op::Level(LevelOp::ScaleShift), &[x, one, zero])?));
    }
    Ok(m.b.finish(outputs))
}

/// Neurons with a multiplicative input, of every gate with every factor among the edges.
fn gated_edges(stage: Stage, code: Code, steps: u16, curve: Curve) -> Result<Graph, snnc_ir::Diagnostic> {
    let d = EDGES.len();
    let mut m = NetMaker { b: Builder::new(stage, 64), net: TestNet { stage, code, steps, ..NET }, state: 1, names: 0 };
    let mut rows = |name: &str, turn: usize| {
        let table = (0..d * d).map(|i| EDGES[(i / d * turn + i) % d]).collect();
        m.b.weight(name, Arc::new(Tensor::f32(&[d, d], table)))
    };
    let (gates, factors) = (rows("gates", 0), rows("factors", 1));
    let mut row = |name: &str, from: &[f32]| {
        let data = (0..d).map(|i| from[i % from.len()]).collect();
        m.b.weight(name, Arc::new(Tensor::f32(&[d], data)))
    };
    let constants = [
        row("pre_gain", &[1.0, -1.0, 1e10, f32::NAN, 0.3]),
        row("pre_offset", &[0.0, 1.0, f32::INFINITY]),
        row("gain", &[1.0, -1.0, 0.3, 1e10, f32::NEG_INFINITY, f32::NAN, 0.0]),
        row("offset", &[0.0, -0.0, 0.5, -1e38]),
    ];
    let (one, zero) = (row("one", &[1.0]), row("zero", &[0.0]));
    let same = (0..d * d).map(|i| i8::from(i % d == i / d)).collect();
    let same = m.b.weight("same", Arc::new(Tensor::i8(&[d, d], same)));
    let tokens = m.op(Op::Leaf(LeafOp::Tokens), &[])?;
    let [gate, factor] = [gates, factors].map(|table| m.op(Op::Dense(DenseOp::Embed), &[tokens, table]).expect("fits"));
    let [pre_gain, pre_offset, gain, offset] = constants;
    let args = [gate, factor, pre_gain, pre_offset, gain, offset];
    let sums = if stage == Stage::Spiking {
        let spikes = m.op(Op::Spike(SpikeOp::GatedFire { code, steps, curve }), &args)?;
        let current = m.op(Op::Spike(SpikeOp::Synapse), &[spikes, same])?;
        m.op(Op::Spike(SpikeOp::Decode), &[current])?
    } else {
        let levels = m.op(Op::Level(LevelOp::GatedQuant { code, steps, curve }), &args)?;
        m.op(Op::Level(LevelOp::MatMulInt), &[levels, same])?
    };
    let y = m.op(Op::Level(LevelOp::ScaleShift), &[sums, one, zero])?;
    Ok(m.b.finish(vec![("levels".to_string(), y)]))
}

#[test]
fn neurons_agree_at_every_edge() {
    let ids: Vec<u32> = (0..EDGES.len() as u32).collect();
    let codes = [
        (Code::Binary, 7),
        (Code::Binary, 1),
        (Code::Binary, 11),
        (Code::Binary, 16),
        (Code::Unary, 127),
        (Code::Unary, 300),
    ];
    for stage in [Stage::Quantised, Stage::Spiking] {
        for (code, steps) in codes {
            for curve in Curve::ALL {
                let graph = Arc::new(edges(stage, code, steps, curve).expect("fits"));
                let run = |engine| trace(&program(&graph, engine, 64), &[&ids], Rows::All);
                assert_eq!(run(Engine::Interpreter), run(Engine::Jit), "{stage:?} {code:?} {steps} {curve:?}");
                let graph = Arc::new(gated_edges(stage, code, steps, curve).expect("fits"));
                let run = |engine| trace(&program(&graph, engine, 64), &[&ids], Rows::All);
                assert_eq!(run(Engine::Interpreter), run(Engine::Jit), "gated: {stage:?} {code:?} {steps} {curve:?}");
            }
        }
    }
}
