//! Every neuron of the table on every engine: the same spikes from the interpreter and from machine code, for all curves,
//! numbers of timesteps, widths, instruction sets and threads. And what the machine code of each is made from.

#![allow(clippy::unwrap_used)]

use snnc_ir::events::Events;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Builder, Curve, Graph, Op, Stage, Tensor, Value, verify::verify};
use snnc_runtime::{Engine, ISAS, Isa, KernelCosts, Options, Program, Rows, Session};
use std::sync::Arc;

/// TestLayers of neurons with synapses between them.
#[derive(Clone, Copy, Debug)]
struct TestLayers {
    membrane: Membrane,
    curve: Curve,
    steps: u16,
    /// Channels of the first layer, and of the others.
    widths: [usize; 2],
    tokens: usize,
}

/// A graph in the making, with seeded numbers for its constants.
struct LayerMaker {
    b: Builder,
    layers: TestLayers,
    seed: u64,
}

impl LayerMaker {
    fn op(&mut self, op: Op, args: &[Value]) -> Value {
        self.b.add(op, args, op.name()).unwrap()
    }

    /// From 0 to below 1.
    fn number(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.seed >> 40) as f32 / (1 << 24) as f32
    }

    fn row(&mut self, width: usize, from: f32, to: f32) -> Value {
        let numbers = (0..width).map(|_| from + (to - from) * self.number()).collect();
        self.b.weight("row", Arc::new(Tensor::f32(&[width], numbers)))
    }

    fn weight(&mut self, inputs: usize, outputs: usize) -> Value {
        let weights = (0..inputs * outputs).map(|_| (self.number() * 255.0) as i32 - 127).map(|w| w as i8).collect();
        self.b.weight("weight", Arc::new(Tensor::i8(&[inputs, outputs], weights)))
    }

    /// Neurons of a current or of numbers, of which a timestep brings about `scale`.
    fn neurons(&mut self, x: Value, scale: f32, width: usize) -> Value {
        let TestLayers { membrane, curve, steps, .. } = self.layers;
        let mut args = vec![x, self.row(width, -0.4 / scale, 1.1 / scale), self.row(width, -0.5, 2.0)];
        for parameter in &membrane.rule().parameters {
            args.push(self.row(width, parameter.least as f32, parameter.most as f32));
        }
        self.op(Op::Spike(SpikeOp::Integrate { membrane, steps, curve }), &args)
    }

    fn decoded(&mut self, x: Value, width: usize) -> Value {
        let sums = self.op(Op::Spike(SpikeOp::Decode), &[x]);
        let (one, zero) = (self.row(width, 1.0, 1.0), self.row(width, 0.0, 0.0));
        self.op(Op::Level(LevelOp::ScaleShift), &[sums, one, zero])
    }

    /// Numbers flow in, then currents that nothing else reads, then currents and sums that are read twice.
    fn graph(mut self) -> Graph {
        let TestLayers { steps, widths: [inputs, width], tokens, .. } = self.layers;
        let ids = self.op(Op::Leaf(LeafOp::Tokens), &[]);
        // Of a few tokens the numbers are far outside of what neurons spell.
        let reach = |token: usize| if token % 5 == 4 { 1e6 } else { 2.0 * f32::from(steps) };
        let table = (0..tokens * inputs).map(|i| reach(i / inputs) * (2.0 * self.number() - 1.0)).collect();
        let table = self.b.weight("table", Arc::new(Tensor::f32(&[tokens, inputs], table)));
        let x = self.op(Op::Dense(DenseOp::Embed), &[ids, table]);
        let spikes = self.neurons(x, 1.0, inputs);
        let scale = 30.0 * (inputs as f32).sqrt();
        let w = self.weight(inputs, width);
        let alone = self.op(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
        let first = self.neurons(alone, scale, width);
        let w = self.weight(width, width);
        let shared = self.op(Op::Spike(SpikeOp::Synapse), &[first, w]);
        let sums = self.op(Op::Spike(SpikeOp::Decode), &[shared]);
        let scale = 30.0 * (width as f32).sqrt();
        let second = self.neurons(shared, scale, width);
        let third = self.neurons(sums, scale * f32::from(steps).sqrt(), width);
        let outputs = [first, second, third].map(|spikes| self.decoded(spikes, width));
        let named = outputs.into_iter().enumerate().map(|(i, y)| (format!("y{i}"), y)).collect();
        self.b.finish(named)
    }
}

fn graph(layers: TestLayers) -> Arc<Graph> {
    let b = Builder::new(Stage::Spiking, layers.tokens as u32);
    let graph = LayerMaker { b, layers, seed: 7 }.graph();
    verify(&graph).unwrap();
    Arc::new(graph)
}

/// Outputs and events, by calls of some tokens.
fn seen(graph: &Arc<Graph>, options: &Options, calls: &[usize]) -> (Vec<Vec<u32>>, Vec<Events>) {
    let program = Program::new(Arc::clone(graph), options).unwrap();
    let mut session = Session::new(Arc::new(program)).unwrap();
    let (mut outputs, mut token) = (vec![Vec::new(); 3], 0);
    for &tokens in calls {
        let ids: Vec<u32> = (token..token + tokens as u32).collect();
        let done = session.forward(&ids, Rows::All).unwrap();
        for (i, output) in outputs.iter_mut().enumerate() {
            output.extend(done.f32(&format!("y{i}")).unwrap().iter().map(|y| y.to_bits()));
        }
        token += tokens as u32;
    }
    (outputs, session.events().to_vec())
}

/// Costs by which a kernel adds rows up in loops, or machine code does.
fn costs(isa: Isa, by_kernel: bool) -> Option<KernelCosts> {
    let code_ns = if by_kernel { f64::MAX } else { 0.0 };
    Some(KernelCosts { code_ns, ..KernelCosts::typical(isa) })
}

/// Outputs do not depend on whether spikes are counted; where they are not, there are none.
fn check_silent(layers: TestLayers) {
    let graph = graph(layers);
    let silent = Options { count: false, ..Options::default() };
    let (outputs, events) = seen(&graph, &silent, &[layers.tokens]);
    let (want, _) = seen(&graph, &Options::default(), &[layers.tokens]);
    assert_eq!(outputs, want, "{layers:?}");
    assert!(events.iter().all(|events| events.spikes + events.active + events.saturated == 0), "{layers:?}");
}

fn check(layers: TestLayers) {
    let graph = graph(layers);
    let oracle = Options { engine: Engine::Interpreter, ..Options::default() };
    let want = seen(&graph, &oracle, &[layers.tokens]);
    assert!(want.1.iter().any(|events| events.spikes > 0) || layers.steps == 1, "{layers:?}: something fires");
    for isa in ISAS.into_iter().filter(|isa| isa.is_available()) {
        for (by_kernel, threads) in [(true, 1), (true, 2), (false, 1), (false, 2)] {
            let options =
                Options { isa: Some(isa), threads, kernel_costs: costs(isa, by_kernel), ..Options::default() };
            for calls in [vec![layers.tokens], vec![1; layers.tokens]] {
                let found = seen(&graph, &options, &calls);
                assert!(found == want, "{layers:?} {isa:?} {threads} threads, by kernel: {by_kernel}, {calls:?}");
            }
        }
    }
}

#[test]
fn all_neurons_spike_the_same_in_machine_code() {
    for membrane in Membrane::all() {
        for curve in [Curve::Identity, Curve::Relu] {
            for (steps, widths) in [(1, [5, 3]), (7, [17, 70]), (33, [64, 48]), (100, [3, 130])] {
                check(TestLayers { membrane, curve, steps, widths, tokens: 6 });
            }
        }
    }
}

#[test]
fn counting_changes_no_spike() {
    for (steps, curve) in [(7, Curve::Relu), (7, Curve::Identity), (70, Curve::Relu), (70, Curve::Identity)] {
        for membrane in [Membrane::IF, Membrane::ST_BIF] {
            check_silent(TestLayers { membrane, curve, steps, widths: [17, 70], tokens: 5 });
        }
    }
}

/// Around the ends of blocks of timesteps and of counts, to the most that a code has.
#[test]
fn any_number_of_timesteps_is_run() {
    for membrane in [Membrane::IF, Membrane::ST_BIF] {
        for steps in [2, 3, 31, 32, 63, 64, 65, 127, 128, 255, 256, 257, 1000, 1023, 1024] {
            check(TestLayers { membrane, curve: Curve::Identity, steps, widths: [9, 18], tokens: 2 });
        }
    }
}

#[test]
fn any_width_is_run() {
    for width in [1, 2, 7, 8, 9, 15, 16, 24, 31, 32, 33, 63, 65, 72, 127, 128, 129, 200] {
        check(TestLayers { membrane: Membrane::IF, curve: Curve::Relu, steps: 5, widths: [width, width], tokens: 3 });
    }
}

/// More events than are listed at a time, and work that threads share.
#[test]
fn many_events_are_run_in_parts() {
    check(TestLayers { membrane: Membrane::LIF, curve: Curve::Identity, steps: 64, widths: [600, 200], tokens: 9 });
}

/// The loop of each neuron in Cranelift's IR, as it is before any machine: rows are added up by a kernel.
#[test]
fn loops_are_made_from_formulas() {
    for membrane in Membrane::all() {
        let layers = TestLayers { membrane, curve: Curve::Identity, steps: 4, widths: [16, 16], tokens: 1 };
        let options = Options { kernel_costs: costs(Isa::Portable, true), ..Options::default() };
        let program = Program::new(graph(layers), &options).unwrap();
        let name = format!("integrate_{}_4_identity_spikes_16_16", membrane.name());
        let listings = program.listings().unwrap();
        let listing = listings.iter().find(|listing| listing.name == name).unwrap();
        insta::assert_snapshot!(format!("loop-{}", membrane.name()), listing.clif);
    }
}

/// Rows that machine code adds up, and counts of spikes between blocks of timesteps.
#[test]
fn loops_without_a_kernel_are_whole() {
    let layers = TestLayers { membrane: Membrane::IF, curve: Curve::Relu, steps: 40, widths: [16, 16], tokens: 1 };
    let options = Options { kernel_costs: costs(Isa::Portable, false), ..Options::default() };
    let listings = Program::new(graph(layers), &options).unwrap().listings().unwrap();
    let listing = listings.iter().find(|listing| listing.name == "integrate_if_40_relu_spikes_16_16").unwrap();
    assert!(!listing.clif.contains("call "), "{}", listing.clif);
    insta::assert_snapshot!("loop-if-rows-by-code", listing.clif);
}

/// What the loops of a network as large as GPT-2 small cost to make: a loop is made once for each of its shapes.
#[test]
fn loops_of_one_shape_are_made_once() {
    let layers = TestLayers { membrane: Membrane::IF, curve: Curve::Relu, steps: 7, widths: [24, 24], tokens: 1 };
    let listings = Program::new(graph(layers), &Options::default()).unwrap().listings().unwrap();
    let loops = listings.iter().filter(|listing| listing.name.starts_with("integrate")).count();
    assert_eq!(loops, 4, "of numbers in f32 and in i32, of a synapse, of currents");
}
