//! Properties that the passes promise, on random numbers: every rewrite that takes time out of a program, firing, folding.
//!
//! Both sides of a property stand in one graph and are evaluated by their definition, so no engine takes part. Properties of
//! whole networks follow at the end. Equal means equal to the bit, unless a property says that constants are rounded.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use snnc::convert::{ConvertOptions, Sample, convert, spiking};
use snnc_examples::gpt2::{Activation, Gpt2Config, HeadExport};
use snnc_examples::llama::{self, LlamaConfig};
use snnc_ir::eval::{Array, Content, Evaluation, Evaluator, Memory, Real};
use snnc_ir::events::Events;
use snnc_ir::op::{DenseOp, Heads, LeafOp, LevelOp, Pairs, SpikeOp};
use snnc_ir::ssa::Output;
use snnc_ir::verify::verify;
use snnc_ir::{Builder, Code, Curve, Graph, Op, Ssa, Stage, Tensor, Value};
use snnc_passes::collapse::collapse;
use snnc_passes::fold::fold;
use snnc_passes::levels::Levels;
use snnc_passes::options::{PHASES, QuantOptions, Rotations};
use snnc_passes::rotate::{possible, rotate};
use snnc_passes::spike::spike;
use snnc_passes::{Context, Pass, front_and_back, run as run_passes};
use snnc_runtime::Engine;
use snnc_tests::{centred_cosine, ids, imported, options, run};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The widest value and the most tokens of a case.
const WIDTH: usize = 12;
const TOKENS: usize = 5;

/// Sizes, a code, and numbers to make operands of.
#[derive(Clone, Debug)]
struct DrawnCase {
    code: Code,
    steps: u16,
    curve: Curve,
    heads: usize,
    width: usize,
    outputs: usize,
    tokens: usize,
    inputs: Vec<f32>,
    /// Gains and offsets, below 2 either way; vector `k` of a case begins at `k * WIDTH`.
    reals: Vec<f32>,
    weights: Vec<i8>,
}

/// Inputs are ordinary, on a tie between levels, zero of either sign, or far beyond every level.
fn input() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -50f32..50.0,
        3 => (-300i32..300).prop_map(|n| n as f32 / 2.0),
        1 => prop::sample::select(vec![0.0, -0.0, f32::MIN_POSITIVE, 1e30, -1e30]),
    ]
}

fn case() -> impl Strategy<Value = DrawnCase> {
    let levels = prop_oneof![(Just(Code::Binary), 1u16..=8), (Just(Code::Unary), 1u16..=40)];
    let sizes = (1usize..=4, 1usize..=3, 1usize..=WIDTH, 1usize..=TOKENS);
    let gain = prop_oneof![4 => -2f32..2.0, 1 => prop::sample::select(vec![0.0, 1.0, -1.0, 0.5])];
    let numbers = (
        prop::collection::vec(input(), TOKENS * WIDTH),
        prop::collection::vec(gain, 16 * WIDTH),
        prop::collection::vec(-127i8..=127, 3 * WIDTH * WIDTH),
    );
    (levels, prop::sample::select(Curve::ALL.to_vec()), sizes, numbers).prop_map(
        |((code, steps), curve, (heads, head, outputs, tokens), (inputs, reals, weights))| DrawnCase {
            code,
            steps,
            curve,
            heads,
            width: heads * head,
            outputs,
            tokens,
            inputs,
            reals,
            weights,
        },
    )
}

/// A graph in the making, with a case's numbers as constants.
struct CaseGraph<'c> {
    case: &'c DrawnCase,
    builder: Builder,
}

impl<'c> CaseGraph<'c> {
    fn new(case: &'c DrawnCase, stage: Stage) -> Self {
        Self { case, builder: Builder::new(stage, TOKENS as u32) }
    }

    fn add(&mut self, op: Op, args: &[Value]) -> Value {
        self.builder.add(op, args, "").unwrap()
    }

    /// `f32[tokens, width]`: the inputs.
    fn input(&mut self) -> Value {
        let DrawnCase { tokens, width, inputs, .. } = self.case;
        let table = Tensor::f32(&[*tokens, *width], inputs[..tokens * width].to_vec());
        let table = self.builder.weight("inputs", Arc::new(table));
        let ids = self.add(Op::Leaf(LeafOp::Tokens), &[]);
        self.add(Op::Dense(DenseOp::Embed), &[ids, table])
    }

    /// Vector `k`, `scale` times the case's numbers.
    fn vector(&mut self, k: usize, len: usize, scale: f32) -> Value {
        let data = self.case.reals[k * WIDTH..][..len].iter().map(|x| x * scale).collect();
        self.builder.weight(&format!("vector{k}"), Arc::new(Tensor::f32(&[len], data)))
    }

    /// Gains and offsets of a neuron layer on `x`, from vector `k` on; `scale` brings `x` to the size of one.
    fn gains(&mut self, curve: Curve, k: usize, len: usize, scale: f32) -> Vec<Value> {
        let count = if curve == Curve::Identity { 2 } else { 4 };
        (0..count).map(|i| self.vector(k + i, len, if i == 0 { scale } else { 1.0 })).collect()
    }

    /// `i8[width, outputs]`, the `k`-th.
    fn matrix(&mut self, k: usize) -> Value {
        let DrawnCase { width, outputs, weights, .. } = self.case;
        let data = weights[k * WIDTH * WIDTH..][..width * outputs].to_vec();
        self.builder.weight(&format!("matrix{k}"), Arc::new(Tensor::i8(&[*width, *outputs], data)))
    }

    fn fire(&mut self, x: Value, curve: Curve, gains: &[Value]) -> Value {
        let DrawnCase { code, steps, .. } = *self.case;
        self.add(Op::Spike(SpikeOp::Fire { code, steps, curve }), &[&[x], gains].concat())
    }

    fn quant(&mut self, x: Value, curve: Curve, gains: &[Value]) -> Value {
        let DrawnCase { code, steps, .. } = *self.case;
        self.add(Op::Level(LevelOp::Quant { code, steps, curve }), &[&[x], gains].concat())
    }

    /// A gate and what it multiplies, with the constants of gated neurons: vectors 0 to 5.
    fn gate(&mut self) -> Vec<Value> {
        let (x, width) = (self.input(), self.case.width);
        let [gain, offset] = [0, 1].map(|k| self.vector(k, width, 1.0));
        let up = self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset]);
        let constants = [2, 3, 4, 5].map(|k| self.vector(k, width, 1.0));
        [&[x, up], &constants[..]].concat()
    }

    /// Some channels of reals.
    fn gathered(&mut self, x: Value, channels: &[i32]) -> Value {
        let channels = Tensor::i32(&[channels.len()], channels.to_vec());
        let channels = self.builder.weight("channels", Arc::new(channels));
        self.add(Op::Level(LevelOp::GatherChannels), &[x, channels])
    }

    /// Levels, each at the channels that want it.
    fn repeated(&mut self, levels: Value, channels: &[i32]) -> Value {
        let width = self.builder.ty(levels).shape().row_width().unwrap();
        let mut unchanged = |len: usize| {
            [1.0, 0.0].map(|x| self.builder.weight("unchanged", Arc::new(Tensor::f32(&[len], vec![x; len]))))
        };
        let ([one, zero], [ones, zeros]) = (unchanged(width), unchanged(channels.len()));
        let reals = self.add(Op::Level(LevelOp::ScaleShift), &[levels, one, zero]);
        let reals = self.gathered(reals, channels);
        self.quant(reals, Curve::Identity, &[ones, zeros])
    }

    fn affine(&mut self, x: Value, k: usize) -> Value {
        let (gain, offset) = (self.vector(k, self.case.outputs, 0.01), self.vector(k + 1, self.case.outputs, 1.0));
        self.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset])
    }

    /// Queries, keys and values, each spikes of the input through gains of its own.
    fn trains(&mut self) -> [Value; 3] {
        let x = self.input();
        [0, 2, 4].map(|k| {
            let gains = self.gains(Curve::Identity, k, self.case.width, 1.0);
            self.fire(x, Curve::Identity, &gains)
        })
    }

    fn ssa(&mut self, [q, k, v]: [Value; 3]) -> Value {
        let slopes = self.case.reals[6 * WIDTH..][..self.case.heads].iter().map(|x| x.abs() + 1e-3).collect();
        let slopes = self.builder.weight("slopes", Arc::new(Tensor::f32(&[self.case.heads], slopes)));
        self.add(
            Op::Level(LevelOp::Ssa {
                heads: Heads::equal(self.case.heads as u32),
                variant: Ssa::Ttfs { phases: PHASES },
            }),
            &[q, k, v, slopes],
        )
    }

    /// Spikes of rectified neurons of the input, and of values; sinks and half-lives.
    fn features(&mut self, code: Code, half_life: &[i32]) -> Vec<Value> {
        let DrawnCase { width, heads, steps, reals, .. } = self.case;
        let x = self.input();
        let mut args: Vec<Value> = [0, 2]
            .map(|k| {
                let mut gains = self.gains(Curve::Identity, k, *width, 1.0);
                for part in [4 + k, 5 + k] {
                    let positive = reals[part * WIDTH..][..*width].iter().map(|x| x.abs()).collect();
                    gains.push(
                        self.builder.weight(&format!("positive{part}"), Arc::new(Tensor::f32(&[*width], positive))),
                    );
                }
                let fire = Op::Spike(SpikeOp::Fire { code, steps: *steps, curve: Curve::Relu });
                self.add(fire, &[&[x], &gains[..]].concat())
            })
            .to_vec();
        let gains = self.gains(Curve::Identity, 10, *width, 1.0);
        args.push(self.fire(x, Curve::Identity, &gains));
        let sinks = reals[12 * WIDTH..][..*heads].iter().map(|x| x.abs()).collect();
        args.push(self.builder.weight("sinks", Arc::new(Tensor::f32(&[*heads], sinks))));
        args.push(self.builder.weight("half_life", Arc::new(Tensor::i32(&[*heads], half_life[..*heads].to_vec()))));
        args
    }

    fn finish(self, outputs: &[Value]) -> Graph {
        self.builder.finish(outputs.iter().enumerate().map(|(i, value)| (i.to_string(), *value)).collect())
    }

    /// Finished, and checked as the passes may assume it is.
    fn verified(self, outputs: &[Value]) -> Graph {
        let graph = self.finish(outputs);
        verify(&graph).unwrap();
        graph
    }
}

/// The outputs of a graph on tokens 0, 1, ...
fn outputs<R: Real>(graph: &Graph, ids: &[u32]) -> Vec<Array<R>> {
    let evaluator = Evaluator::<R>::new(graph);
    let done = evaluator.run(ids, &mut Memory::new(graph)).unwrap();
    graph.outputs.iter().map(|(_, value)| evaluator.get(&done, *value).clone()).collect()
}

fn of_case(graph: &Graph, case: &DrawnCase) -> Vec<Array<f32>> {
    outputs(graph, &(0..case.tokens as u32).collect::<Vec<u32>>())
}

/// Equal to the bit: f32's own equality takes 0 for -0.
fn bits(arrays: &[Array<f32>]) -> Vec<Vec<u32>> {
    let bits = |array: &Array<f32>| match &array.content {
        Content::Real(x) => x.iter().map(|x| x.to_bits()).collect(),
        Content::Int(x) => x.iter().map(|&x| x as u32).collect(),
        Content::Train(parts) => parts.iter().flatten().map(|&x| x as u32).collect(),
    };
    arrays.iter().map(bits).collect()
}

fn has(graph: &Graph, is: impl Fn(&Op) -> bool) -> bool {
    graph.nodes.iter().any(|node| is(&node.op))
}

fn in_time(op: &Op) -> bool {
    matches!(
        op,
        Op::Spike(SpikeOp::Fire { .. } | SpikeOp::GatedFire { .. }) | Op::Spike(SpikeOp::Synapse | SpikeOp::Decode)
    )
}

/// Neuron by neuron: thresholds from the most significant down, a soft reset at every spike.
#[test]
fn a_code_spells_every_level_by_thresholding() {
    let check = |code: Code, steps: u16, level: i32| {
        let (mut residue, mut spikes, mut sum) = (level.abs(), 0, 0);
        for t in 0..steps {
            let threshold = code.weight(t, steps);
            let fires = residue >= threshold;
            residue -= if fires { threshold } else { 0 };
            spikes += u32::from(fires);
            let spike = if fires { level.signum() } else { 0 };
            assert_eq!(code.spike(level, t, steps), spike, "{code:?} {steps}: spike {t} of {level}");
            sum = code.carry() * sum + spike;
        }
        assert_eq!((residue, sum), (0, level), "{code:?} {steps}: {level}");
        assert_eq!(code.spikes(level), spikes, "{code:?} {steps}: {level}");
    };
    for (code, most) in [(Code::Binary, 10), (Code::Unary, 40)] {
        for steps in 1..=most {
            let levels = code.levels(steps);
            (-levels..=levels).for_each(|level| check(code, steps, level));
        }
    }
}

proptest! {
    #[test]
    fn decode_fire_is_quant(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let x = net.input();
        let gains = net.gains(case.curve, 0, case.width, 1.0);
        let spikes = net.fire(x, case.curve, &gains);
        let decoded = net.add(Op::Spike(SpikeOp::Decode), &[spikes]);
        let levels = net.quant(x, case.curve, &gains);
        let got = bits(&of_case(&net.finish(&[decoded, levels]), &case));
        prop_assert_eq!(&got[0], &got[1]);
        let most = case.code.levels(case.steps);
        prop_assert!(got[1].iter().all(|&level| (level as i32).abs() <= most));
    }

    #[test]
    fn decode_gated_fire_is_gated_quant(case in case()) {
        let DrawnCase { code, steps, curve, .. } = case;
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let args = net.gate();
        let spikes = net.add(Op::Spike(SpikeOp::GatedFire { code, steps, curve }), &args);
        let decoded = net.add(Op::Spike(SpikeOp::Decode), &[spikes]);
        let levels = net.add(Op::Level(LevelOp::GatedQuant { code, steps, curve }), &args);
        let got = bits(&of_case(&net.finish(&[decoded, levels]), &case));
        prop_assert_eq!(&got[0], &got[1]);
        let most = case.code.levels(case.steps);
        prop_assert!(got[1].iter().all(|&level| (level as i32).abs() <= most));
    }

    /// Grouped heads are heads whose keys and values are there once for each query of their group.
    #[test]
    fn grouped_heads_share_their_keys(
        case in case(),
        most_kv in 1usize..=4,
        window in prop::option::of(1u32..=4),
        variant in prop::sample::select(vec![
            Ssa::Ttfs { phases: PHASES }, Ssa::TopK { phases: PHASES, keys: 2 }, Ssa::Linear { guard: 2 },
        ]),
        half_life in prop::collection::vec(prop::sample::select(vec![0, 1, 2, 4]), 4),
    ) {
        let DrawnCase { heads: query, width, .. } = case;
        let kv = (1..=most_kv.min(query)).rev().find(|kv| query.is_multiple_of(*kv)).unwrap();
        let window = window.filter(|_| !variant.has_features());
        // Every other one with ALiBi.
        let alibi = !variant.has_features() && case.tokens.is_multiple_of(2);
        let equal = Heads { window, alibi, ..Heads::equal(query as u32) };
        let grouped = Heads { kv: kv as u32, ..equal };
        let head = width / query;
        let mut net = CaseGraph::new(&case, Stage::Quantised);
        let x = net.input();
        let some = net.gathered(x, &(0..(kv * head) as i32).collect::<Vec<i32>>());
        let [q, k, v] = [(x, 0, width), (some, 2, kv * head), (some, 4, kv * head)].map(|(x, at, len)| {
            let gains = net.gains(Curve::Identity, at, len, 1.0);
            net.quant(x, Curve::Identity, &gains)
        });
        let place = |c: usize| (c / head / grouped.group() * head + c % head) as i32;
        let places: Vec<i32> = (0..width).map(place).collect();
        let [more_k, more_v] = [k, v].map(|levels| net.repeated(levels, &places));
        let slopes = case.reals[6 * WIDTH..][..query].iter().map(|x| x.abs() + 1e-3).collect();
        let slopes = net.builder.weight("slopes", Arc::new(Tensor::f32(&[query], slopes)));
        let [few, many] = [kv, query].map(|heads| {
            let of_head = (0..heads).map(|h| half_life[h * kv / heads]).collect();
            net.builder.weight("half_life", Arc::new(Tensor::i32(&[heads], of_head)))
        });
        let falls = case.reals[7 * WIDTH..][..query].iter().map(|x| 9.0 * x.abs()).collect();
        let falls = net.builder.weight("falls", Arc::new(Tensor::f32(&[query], falls)));
        let more = usize::from(variant.has_features() || alibi);
        let [few, many] = [few, many].map(|half_lives| if alibi { falls } else { half_lives });
        let left = net.add(Op::Level(LevelOp::Ssa { heads: grouped, variant }), &[q, k, v, slopes, few][..4 + more]);
        let args = [q, more_k, more_v, slopes, many];
        let right = net.add(Op::Level(LevelOp::Ssa { heads: equal, variant }), &args[..4 + more]);
        let graph = net.finish(&[left, right]);
        let ids: Vec<u32> = (0..case.tokens as u32).collect();
        let evaluator = Evaluator::<f32>::new(&graph);
        let done = evaluator.run(&ids, &mut Memory::new(&graph)).unwrap();
        let [left, right] = [0, 1].map(|i| graph.outputs[i].1);
        prop_assert_eq!(bits(&[evaluator.get(&done, left).clone()]), bits(&[evaluator.get(&done, right).clone()]));
        // Sums of linear attention are kept once for a group, so its keys' spikes add once.
        if !variant.has_features() {
            prop_assert_eq!(done.events[left.index()], done.events[right.index()]);
        }
    }

    #[test]
    fn decode_synapse_is_matmul_int(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let [spikes, ..] = net.trains();
        let w = net.matrix(0);
        let current = net.add(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
        let left = net.add(Op::Spike(SpikeOp::Decode), &[current]);
        let levels = net.add(Op::Spike(SpikeOp::Decode), &[spikes]);
        let right = net.add(Op::Level(LevelOp::MatMulInt), &[levels, w]);
        let got = of_case(&net.finish(&[left, right, current]), &case);
        prop_assert_eq!(got[0].ints(), got[1].ints());
        // An accumulator that carries from step to step comes to the same.
        let Content::Train(parts) = &got[2].content else { panic!("a synapse gives a current") };
        let step = |sum: Vec<i32>, part: &Vec<i32>| sum.iter().zip(part).map(|(s, p)| case.code.carry() * s + p).collect();
        prop_assert_eq!(&parts.iter().fold(vec![0; parts[0].len()], step), got[0].ints());
    }

    #[test]
    fn attention_of_spikes_is_attention_of_levels(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let trains = net.trains();
        let left = net.ssa(trains);
        let levels = trains.map(|train| net.add(Op::Spike(SpikeOp::Decode), &[train]));
        let right = net.ssa(levels);
        let graph = net.finish(&[left, right]);
        let ids: Vec<u32> = (0..case.tokens as u32).collect();
        let evaluator = Evaluator::<f32>::new(&graph);
        let done = evaluator.run(&ids, &mut Memory::new(&graph)).unwrap();
        let [left, right] = [0, 1].map(|i| graph.outputs[i].1);
        prop_assert_eq!(bits(&[evaluator.get(&done, left).clone()]), bits(&[evaluator.get(&done, right).clone()]));
        prop_assert_eq!(done.events[left.index()], done.events[right.index()]);
    }

    #[test]
    fn attention_on_features_is_that_of_levels_wherever_a_sequence_is_cut(
        case in case(),
        kind in prop::sample::select(vec![
            (Code::Unary, Ssa::Coincidence { squared: false }),
            (Code::Unary, Ssa::Coincidence { squared: true }),
            (Code::Unary, Ssa::Lif { output: Output::Mean }),
            (Code::Unary, Ssa::Linear { guard: 2 }),
            (Code::Binary, Ssa::Linear { guard: 0 }),
        ]),
        half_life in prop::collection::vec(prop::sample::select(vec![0, 1, 2, 4]), 4),
        cut in 0usize..=TOKENS,
    ) {
        let (code, variant) = kind;
        let case = DrawnCase { steps: case.steps.min(8), ..case };
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let args = net.features(code, &half_life);
        let op = Op::Level(LevelOp::Ssa { heads: Heads::equal(case.heads as u32), variant });
        let left = net.add(op, &args);
        let levels: Vec<Value> = args[..3].iter().map(|&train| net.add(Op::Spike(SpikeOp::Decode), &[train])).collect();
        let right = net.add(op, &[&levels, &args[3..]].concat());
        let graph = net.verified(&[left, right]);
        let ids: Vec<u32> = (0..case.tokens as u32).collect();
        let evaluator = Evaluator::<f32>::new(&graph);
        let [left, right] = [0, 1].map(|i| graph.outputs[i].1);
        let get = |done: &Evaluation<f32>, value: Value| bits(&[evaluator.get(done, value).clone()]).concat();
        let whole = evaluator.run(&ids, &mut Memory::new(&graph)).unwrap();
        let want = get(&whole, left);
        prop_assert_eq!(&get(&whole, right), &want);
        prop_assert_eq!(whole.events[left.index()], whole.events[right.index()]);
        let (mut memory, mut joined, mut events) = (Memory::new(&graph), Vec::new(), Events::default());
        let (before, after) = ids.split_at(cut.min(ids.len()));
        for call in [before, after].into_iter().filter(|call| !call.is_empty()) {
            let done = evaluator.run(call, &mut memory).unwrap();
            joined.extend(get(&done, left));
            events += done.events[left.index()];
        }
        prop_assert_eq!(joined, want);
        prop_assert_eq!(events, whole.events[left.index()]);
    }

    #[test]
    fn collapse_takes_all_time_out_and_changes_no_bit(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let trains = net.trains();
        let attention = net.ssa(trains);
        let gains = net.gains(case.curve, 8, case.width, 1.0);
        let again = net.fire(attention, case.curve, &gains);
        let w = net.matrix(0);
        let sums = [trains[0], again].map(|train| {
            let current = net.add(Op::Spike(SpikeOp::Synapse), &[train, w]);
            net.add(Op::Spike(SpikeOp::Decode), &[current])
        });
        let shared = net.affine(sums[0], 12);
        let last = net.affine(sums[1], 14);
        let constants: Vec<Value> = [10, 11, 12, 13].map(|k| net.vector(k, case.outputs, 1.0)).to_vec();
        let DrawnCase { code, steps, curve, .. } = case;
        let gated = net.add(Op::Spike(SpikeOp::GatedFire { code, steps, curve }), &[&[shared, last], &constants[..]].concat());
        let gated = net.add(Op::Spike(SpikeOp::Decode), &[gated]);
        let graph = net.verified(&[attention, shared, last, gated]);
        let collapsed = collapse(&graph).unwrap();
        verify(&collapsed).unwrap();
        prop_assert!(collapsed.stage == Stage::Quantised && !has(&collapsed, in_time));
        prop_assert_eq!(bits(&of_case(&collapsed, &case)), bits(&of_case(&graph, &case)));
    }

    #[test]
    fn spike_puts_levels_in_time_and_collapse_takes_them_out(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Quantised);
        let x = net.input();
        let gains = net.gains(case.curve, 0, case.width, 1.0);
        let levels = net.quant(x, case.curve, &gains);
        let w = net.matrix(0);
        let sum = net.add(Op::Level(LevelOp::MatMulInt), &[levels, w]);
        let y = net.affine(sum, 4);
        let graph = net.verified(&[y]);
        let spiking = spike(&graph, &Context::default()).unwrap();
        verify(&spiking).unwrap();
        let untimed = |op: &Op| matches!(op, Op::Level(LevelOp::Quant { .. }) | Op::Level(LevelOp::MatMulInt));
        prop_assert!(spiking.stage == Stage::Spiking && has(&spiking, in_time) && !has(&spiking, untimed));
        let want = bits(&of_case(&graph, &case));
        prop_assert_eq!(&bits(&of_case(&spiking, &case)), &want);
        prop_assert_eq!(&bits(&of_case(&collapse(&spiking).unwrap(), &case)), &want);
    }

    /// Two constants per channel are rounded, so a potential beside a tie may fall to the other side: one level, no more.
    #[test]
    fn fold_moves_no_level_by_more_than_one(case in case()) {
        let mut net = CaseGraph::new(&case, Stage::Spiking);
        let [spikes, ..] = net.trains();
        let w = net.matrix(0);
        let current = net.add(Op::Spike(SpikeOp::Synapse), &[spikes, w]);
        let sum = net.add(Op::Spike(SpikeOp::Decode), &[current]);
        let real = net.affine(sum, 6);
        let gains = net.gains(case.curve, 8, case.outputs, 1.0);
        let fired = net.fire(real, case.curve, &gains);
        let decoded = net.add(Op::Spike(SpikeOp::Decode), &[fired]);
        // The projection has a second reader, which must not notice.
        let graph = net.finish(&[decoded, real]);
        let folded = fold(&graph, &Context::default()).unwrap();
        let reads_affine = |graph: &Graph| {
            let fire = |node: &&snnc_ir::Node| matches!(node.op, Op::Spike(SpikeOp::Fire { .. }));
            graph.nodes.iter().filter(fire).any(|node| graph.node(node.args[0]).op == Op::Level(LevelOp::ScaleShift))
        };
        prop_assert!(reads_affine(&graph) && !reads_affine(&folded));
        let (before, after) = (of_case(&graph, &case), of_case(&folded, &case));
        for (a, b) in before[0].ints().iter().zip(after[0].ints()) {
            prop_assert!((a - b).abs() <= 1, "{} became {}", a, b);
        }
        prop_assert_eq!(bits(&before[1..]), bits(&after[1..]));
    }
}

const TINY: Gpt2Config = Gpt2Config { width: 24, heads: 3, vocabulary: 70, context: 32, ..Gpt2Config::TINY };

#[rustfmt::skip]
const NETWORKS: [(Gpt2Config, Code, u16); 4] = [
    (TINY,                                                              Code::Binary, 7),
    (Gpt2Config { activation: Activation::GeluErf, opset: 13, ..TINY }, Code::Binary, 4),
    (Gpt2Config { activation: Activation::Relu, head: HeadExport::Copied, ..TINY },  Code::Binary, 8),
    (Gpt2Config { width: 15, heads: 5, ..TINY },                        Code::Unary,  5),
];

const DECODER: LlamaConfig =
    LlamaConfig { width: 24, heads: 4, kv_heads: 2, head_width: 6, turned: 6, hidden: 40, ..LlamaConfig::TINY };

#[rustfmt::skip]
const DECODERS: [(LlamaConfig, Code, u16); 4] = [
    (DECODER,                                                                        Code::Binary, 7),
    (LlamaConfig { qk_norm: true, window: Some(5), pairs: Pairs::Interleaved, ..DECODER }, Code::Binary, 8),
    (LlamaConfig { kv_heads: 1, turned: 4, bias: true, tied: false, curve: Curve::GeluTanh, ..DECODER }, Code::Binary, 6),
    (LlamaConfig { post_norm: true, kv_heads: 4, turned: 0, ..DECODER },             Code::Unary,  9),
];

/// The graph after every pass of a whole conversion, by the pass's name.
fn after_every_pass(
    recipe: &ConvertOptions,
    convert: impl FnOnce(&ConvertOptions, &mut dyn FnMut(&Pass, &Graph)),
) -> BTreeMap<&'static str, Graph> {
    let mut after = BTreeMap::new();
    convert(recipe, &mut |pass, graph| {
        after.insert(pass.name, graph.clone());
    });
    after
}

/// Every network with its vocabulary, after every pass.
fn networks() -> impl Iterator<Item = (String, usize, BTreeMap<&'static str, Graph>)> {
    let recipe = |code, steps| ConvertOptions {
        quant: QuantOptions::uniform(Levels { code, steps }),
        calibration_tokens: 1024,
        threads: 2,
    };
    let gpt2 = NETWORKS.into_iter().map(move |(config, code, steps)| {
        let after = after_every_pass(&recipe(code, steps), |recipe, see| {
            convert(imported(&config), false, &Sample::SeededIds, recipe, &mut |pass, _, graph| see(pass, graph))
                .unwrap();
        });
        (format!("{config:?} {code:?} {steps}"), config.vocabulary, after)
    });
    let decoders = DECODERS.into_iter().map(move |(config, code, steps)| {
        let after = after_every_pass(&recipe(code, steps), |recipe, see| {
            let graph = snnc_tests::llama(&config);
            spiking(graph, &Sample::SeededIds, recipe, &mut |pass, _, graph| see(pass, graph)).unwrap();
        });
        (format!("{config:?} {code:?} {steps}"), config.vocabulary, after)
    });
    gpt2.chain(decoders)
}

#[test]
fn spike_is_exact_and_fold_is_but_for_rounding() {
    for (what, vocabulary, after) in networks() {
        let ids = ids(19, vocabulary);
        let [quantised, spiking, folded] =
            ["quantise", "spike", "fold"].map(|pass| run(&after[pass], options(Engine::Interpreter), &[&ids]));
        assert!(spiking.bits == quantised.bits, "{what}: spike changes logits");
        assert_eq!(spiking.events, quantised.events, "{what}: spike changes events");
        let floats = |bits: &[u32]| bits.iter().map(|&bits| f32::from_bits(bits)).collect::<Vec<f32>>();
        for (row, (a, b)) in spiking.bits.chunks(vocabulary).zip(folded.bits.chunks(vocabulary)).enumerate() {
            let cosine = centred_cosine(&floats(a), &floats(b));
            assert!(cosine > 0.9999, "{what}: fold, cosine {cosine} at token {row}");
        }
    }
}

/// In f64, where only the rounding of folded constants is left.
#[test]
fn raise_and_simplify_are_exact_but_for_rounding() {
    for (config, ..) in NETWORKS {
        let graph = imported(&config);
        let ids = ids(19, config.vocabulary);
        let want = outputs::<f64>(&graph, &ids);
        let (front, _) = front_and_back();
        run_passes(front, graph, &Context::default(), &mut |pass, _, after| {
            let got = outputs::<f64>(after, &ids);
            let pairs = got[0].reals().iter().zip(want[0].reals());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-6, "{config:?}: {} changes logits by {worst}", pass.name);
        })
        .unwrap();
    }
}

#[test]
fn simplify_of_a_decoder_is_exact_but_for_rounding() {
    for (config, ..) in DECODERS {
        let graph = llama::graph(&config).unwrap();
        let ids = ids(19, config.vocabulary);
        let [want, got] = [&graph, &snnc_tests::llama(&config)].map(|graph| outputs::<f64>(graph, &ids));
        let pairs = got[0].reals().iter().zip(want[0].reals());
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-5, "{config:?}: simplify changes logits by {worst}");
    }
}

/// Logits stay, and the residual stream and values change: in every network whose norms read the stream. What a norm gives, where that
/// is the stream, has a gain.
#[test]
fn rotate_is_exact_but_for_rounding() {
    let (front, _) = front_and_back();
    let gpt2 = NETWORKS.iter().map(|(config, ..)| {
        let graph = run_passes(front, imported(config), &Context::default(), &mut |_, _, _| {}).unwrap();
        (format!("{config:?}"), config.vocabulary, graph, Rotations { residual: true, heads: true, hidden: false })
    });
    let decoders = DECODERS.iter().map(|(config, ..)| {
        let wanted = Rotations { residual: !config.post_norm, heads: true, hidden: config.gated };
        (format!("{config:?}"), config.vocabulary, snnc_tests::llama(config), wanted)
    });
    for (what, vocabulary, graph, wanted) in gpt2.chain(decoders) {
        let (rotations, reasons) = possible(&graph);
        assert_eq!(rotations, wanted, "{what}: {reasons:?}");
        let ids = ids(19, vocabulary);
        let want = outputs::<f64>(&graph, &ids);
        for rotations in [rotations, Rotations { residual: false, heads: true, hidden: false }] {
            let rotated = rotate(&graph, &Context { rotations, ..Context::default() }).unwrap();
            verify(&rotated).unwrap();
            let changed = |(a, b): (&snnc_ir::Weight, &snnc_ir::Weight)| a.tensor != b.tensor;
            assert!(graph.weights.iter().zip(&rotated.weights).any(changed), "{what}: nothing is rotated");
            let got = outputs::<f64>(&rotated, &ids);
            let pairs = got[0].reals().iter().zip(want[0].reals());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 1e-5, "{what}: {rotations:?} change logits by {worst}");
        }
    }
}
