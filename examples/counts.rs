//! What snnc counts of a small spiking network, for `examples/compare/energy.py` to set beside another counter's figures.
//!
//! `cargo run --release -p snnc-examples --example counts -- FOLDER` writes the network there, little-endian: `x.i32`, levels of
//! `TOKENS` tokens, `first.i8` and `second.i8`, weights input-major; and prints, as JSON, its sizes and gains with the counts
//! that the cost pass makes of a metered run. All of it is integers and powers of two, so that whoever runs the same network gets
//! the same spikes.

#![allow(clippy::print_stdout)]

use serde_json::json;
use snnc::energy::{Block, Phase, PriceList, Setting, estimate};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Builder, Code, Curve, Diagnostic, Graph, Op, Stage, Tensor};
use snnc_passes::cost::{Activity, Form, Number, Operation};
use snnc_runtime::{Options, Program, Rows, Session};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

const SIZES: [usize; 3] = [64, 128, 32];
const STEPS: u16 = 8;
const TOKENS: usize = 16;
/// Potential of a sum of weights, in thresholds.
const GAIN: f32 = 1.0 / 256.0;

/// Numbers without a pattern, the same everywhere.
fn draw(count: usize, below: u64, seed: u64) -> impl Iterator<Item = u64> {
    let mix = |x: u64| (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..count as u64).map(move |i| mix(mix(i.wrapping_add(seed << 32)) ^ 0x5eed) % below)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: counts FOLDER")?;
    let folder = Path::new(&folder);
    let x: Vec<i32> = draw(TOKENS * SIZES[0], u64::from(STEPS) + 1, 1).map(|x| x as i32).collect();
    let weights = |inputs, outputs, seed| draw(inputs * outputs, 255, seed).map(|w| (w as i32 - 127) as i8).collect();
    let [first, second]: [Vec<i8>; 2] = [weights(SIZES[0], SIZES[1], 2), weights(SIZES[1], SIZES[2], 3)];
    std::fs::write(folder.join("x.i32"), x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
    for (name, weights) in [("first.i8", &first), ("second.i8", &second)] {
        std::fs::write(folder.join(name), weights.iter().map(|w| *w as u8).collect::<Vec<u8>>())?;
    }
    let graph = network(&x, &first, &second)?;
    let program = Arc::new(Program::new(Arc::new(graph), &Options::default())?);
    let mut session = Session::new(Arc::clone(&program))?;
    session.forward(&(0..TOKENS as u32).collect::<Vec<u32>>(), Rows::All)?;
    let activity = Activity { tokens: TOKENS as u64, events: session.events().to_vec() };
    let setting = Setting { context: TOKENS as u64, batch: 1, span: TOKENS as u64 };
    let estimate = estimate(program.graph(), &activity, setting, PriceList::built_in());
    let all = estimate.counts(Phase::Prefill, Form::Stepped).sum(Block::Total);
    let dense = estimate.counts(Phase::Prefill, Form::Dense(Number::F32)).sum(Block::Total);
    let neurons = program.graph().iter().filter(|(_, node)| node.op.is_neuron());
    let spikes: Vec<u64> = neurons.map(|(value, _)| activity.events[value.index()].spikes).collect();
    let figures = json!({
        "sizes": SIZES, "timesteps": STEPS, "tokens": TOKENS, "gain": GAIN,
        "spikes": spikes, "accumulates": all.of(Operation::Accumulate), "macs": all.macs(), "dense_macs": dense.macs(),
        "neuron_updates": all.of(Operation::NeuronActive) + all.of(Operation::NeuronIdle),
    });
    println!("{figures}");
    Ok(())
}

/// Levels to spikes, a weight, plain IF time-stepped neurons, a weight.
fn network(x: &[i32], first: &[i8], second: &[i8]) -> Result<Graph, Diagnostic> {
    let mut b = Builder::new(Stage::Spiking, TOKENS as u32);
    let row = |b: &mut Builder, name: &str, width: usize, value: f32| {
        b.weight(name, Arc::new(Tensor::f32(&[width], vec![value; width])))
    };
    let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens")?;
    let levels = x.iter().map(|&x| x as f32).collect();
    let table = b.weight("x", Arc::new(Tensor::f32(&[TOKENS, SIZES[0]], levels)));
    let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "x")?;
    let (one, zero) = (row(&mut b, "in.gain", SIZES[0], 1.0), row(&mut b, "in.offset", SIZES[0], 0.0));
    let fire = Op::Spike(SpikeOp::Fire { code: Code::Unary, steps: STEPS, curve: Curve::Identity });
    let spikes = b.add(fire, &[x, one, zero], "in")?;
    let w = b.weight("first", Arc::new(Tensor::i8(&[SIZES[0], SIZES[1]], first.to_vec())));
    let current = b.add(Op::Spike(SpikeOp::Synapse), &[spikes, w], "first")?;
    let (gain, zero) = (row(&mut b, "hidden.gain", SIZES[1], GAIN), row(&mut b, "hidden.offset", SIZES[1], 0.0));
    let integrate = Op::Spike(SpikeOp::Integrate { membrane: Membrane::IF, steps: STEPS, curve: Curve::Relu });
    let spikes = b.add(integrate, &[current, gain, zero], "hidden")?;
    let w = b.weight("second", Arc::new(Tensor::i8(&[SIZES[1], SIZES[2]], second.to_vec())));
    let current = b.add(Op::Spike(SpikeOp::Synapse), &[spikes, w], "second")?;
    let sums = b.add(Op::Spike(SpikeOp::Decode), &[current], "second")?;
    let (one, zero) = (row(&mut b, "out.gain", SIZES[2], 1.0), row(&mut b, "out.offset", SIZES[2], 0.0));
    let y = b.add(Op::Level(LevelOp::ScaleShift), &[sums, one, zero], "out")?;
    Ok(b.finish(vec![("y".into(), y)]))
}
