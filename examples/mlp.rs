//! What a pass of a spiking MLP costs, 768-3072-768 with ReLU in rate code, time collapsed and spike by spike.
//!
//! `cargo run --release -p snnc-examples --example mlp -- --steps 4 --rate 0.1 --threads 1 mlp.f32 y.f32`
//!
//! `examples/compare/mlp.py` writes the first file, little-endian f32: tokens, then weights and biases of both layers, weights
//! input-major; it reads the second one, the MLP's outputs, and sets the time beside SpikingJelly's. A neuron is the same for
//! a whole layer, as there: its threshold is such that the largest value fires at every step, or, with `--rate`, such that this
//! share of a layer's neurons fires at a step.

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::{Builder, Code, Curve, Diagnostic, Graph, Op, Stage, Tensor, Value, verify::verify};
use snnc_passes::collapse::collapse;
use snnc_runtime::{Options, Program, Rows, Session};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const WIDTH: usize = 768;
const HIDDEN: usize = 3072;

/// Time a pass of a spiking MLP, collapsed and spike by spike
#[derive(Parser)]
struct MlpArguments {
    /// Timesteps
    #[arg(long, default_value_t = 4)]
    steps: u16,
    /// The share of a layer's neurons that fires at a step [default: the largest value fires at every step]
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Timed passes, of which the fastest counts
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Tokens, weights and biases, as `mlp.py` writes them
    input: String,
    /// Where the outputs go
    output: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let MlpArguments { steps, rate, threads, repeats, input, output } = MlpArguments::parse();
    let mlp = Mlp::read(&input)?;
    let [x_gain, h_gain] = [&mlp.x, &mlp.hidden()].map(|values| gain(values, steps, rate));
    let graph = mlp.spiking(steps, x_gain, h_gain)?;
    verify(&graph)?;
    let collapsed = measure(collapse(&graph)?, threads, repeats)?;
    let stepped = measure(graph, threads, repeats)?;
    if collapsed.y != stepped.y {
        return Err("the two forms differ".into());
    }
    std::fs::write(output, stepped.y.iter().flat_map(|y| y.to_le_bytes()).collect::<Vec<u8>>())?;
    let [x_rate, h_rate] = stepped.spikes.map(|spikes| spikes / f64::from(steps) / (mlp.x.len() / WIDTH) as f64);
    println!(
        "{{\"collapsed_ms\": {}, \"stepped_ms\": {}, \"input_rate\": {}, \"hidden_rate\": {}}}",
        collapsed.ms,
        stepped.ms,
        x_rate / WIDTH as f64,
        h_rate / HIDDEN as f64
    );
    Ok(())
}

struct Mlp {
    x: Vec<f32>,
    up: Vec<f32>,
    up_bias: Vec<f32>,
    down: Vec<f32>,
    down_bias: Vec<f32>,
}

impl Mlp {
    fn read(path: &str) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(path)?;
        let mut values: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        let mut last = |count: usize| {
            let at = values.len().checked_sub(count).ok_or(format!("{path} is too short"))?;
            Ok::<_, String>(values.split_off(at))
        };
        let (down_bias, down) = (last(WIDTH)?, last(HIDDEN * WIDTH)?);
        let (up_bias, up) = (last(HIDDEN)?, last(WIDTH * HIDDEN)?);
        if values.is_empty() || !values.len().is_multiple_of(WIDTH) {
            return Err(format!("{path} holds no whole tokens").into());
        }
        Ok(Self { x: values, up, up_bias, down, down_bias })
    }

    /// The dense network's hidden activations: thresholds follow from them.
    fn hidden(&self) -> Vec<f32> {
        let mut h = Vec::with_capacity(self.x.len() / WIDTH * HIDDEN);
        for token in self.x.chunks_exact(WIDTH) {
            let mut row = self.up_bias.clone();
            for (&x, weights) in token.iter().zip(self.up.chunks_exact(HIDDEN)) {
                row.iter_mut().zip(weights).for_each(|(sum, &w)| *sum += x * w);
            }
            h.extend(row.iter().map(|sum| sum.max(0.0)));
        }
        h
    }

    fn spiking(&self, steps: u16, x_gain: f32, h_gain: f32) -> Result<Graph, Diagnostic> {
        let tokens = self.x.len() / WIDTH;
        let fire = |curve| Op::Spike(SpikeOp::Fire { code: Code::Unary, steps, curve });
        let mut maker = MlpBuilder(Builder::new(Stage::Spiking, tokens as u32));
        let ids = maker.op(Op::Leaf(LeafOp::Tokens), &[])?;
        let table = maker.constant("x", Tensor::f32(&[tokens, WIDTH], self.x.clone()));
        let x = maker.op(Op::Dense(DenseOp::Embed), &[ids, table])?;
        let (gain, zero) = (maker.row("x.gain", vec![x_gain; WIDTH]), maker.row("x.offset", vec![0.0; WIDTH]));
        let spikes = maker.op(fire(Curve::Identity), &[x, gain, zero])?;
        let (sums, scales) = maker.synapse("up", spikes, &self.up, HIDDEN)?;
        let real = maker.row("up.scale", scales.iter().map(|scale| scale / x_gain).collect());
        let bias = maker.row("up.bias", self.up_bias.clone());
        let (gain, zero) = (maker.row("h.gain", vec![h_gain; HIDDEN]), maker.row("h.offset", vec![0.0; HIDDEN]));
        let spikes = maker.op(fire(Curve::Relu), &[sums, real, bias, gain, zero])?;
        let (sums, scales) = maker.synapse("down", spikes, &self.down, WIDTH)?;
        let real = maker.row("down.scale", scales.iter().map(|scale| scale / h_gain).collect());
        let bias = maker.row("down.bias", self.down_bias.clone());
        let y = maker.op(Op::Level(LevelOp::ScaleShift), &[sums, real, bias])?;
        Ok(maker.0.finish(vec![("y".into(), y)]))
    }
}

/// Level of a value is `value * gain`, rounded.
fn gain(values: &[f32], steps: u16, rate: Option<f64>) -> f32 {
    let most = f32::from(steps);
    let largest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let Some(rate) = rate else { return most / largest };
    let fires = |gain: f32| {
        let levels: f64 = values.iter().map(|value| f64::from((value * gain).abs().round().min(most))).sum();
        levels / values.len() as f64 / f64::from(steps)
    };
    let (mut low, mut high) = (0.0, 1e3 * most / largest);
    for _ in 0..32 {
        let middle = (low + high) / 2.0;
        if fires(middle) < rate { low = middle } else { high = middle }
    }
    high
}

/// A graph in the making.
struct MlpBuilder(Builder);

impl MlpBuilder {
    fn op(&mut self, op: Op, args: &[Value]) -> Result<Value, Diagnostic> {
        self.0.add(op, args, op.name())
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> Value {
        self.0.weight(name, Arc::new(tensor))
    }

    fn row(&mut self, name: &str, values: Vec<f32>) -> Value {
        self.constant(name, Tensor::f32(&[values.len()], values))
    }

    /// Settled sums over int8 weights, and what one of a weight is worth, by output.
    fn synapse(&mut self, name: &str, x: Value, w: &[f32], outputs: usize) -> Result<(Value, Vec<f32>), Diagnostic> {
        let mut scales = vec![f32::MIN_POSITIVE; outputs];
        for row in w.chunks_exact(outputs) {
            scales.iter_mut().zip(row).for_each(|(scale, w)| *scale = scale.max(w.abs() / 127.0));
        }
        let levels = w.iter().enumerate().map(|(i, w)| (w / scales[i % outputs]).round() as i8).collect();
        let weight = self.constant(name, Tensor::i8(&[w.len() / outputs, outputs], levels));
        let current = self.op(Op::Spike(SpikeOp::Synapse), &[x, weight])?;
        Ok((self.op(Op::Spike(SpikeOp::Decode), &[current])?, scales))
    }
}

struct TimedMlp {
    /// Best of the repeats.
    ms: f64,
    y: Vec<f32>,
    /// Of the two layers of neurons.
    spikes: [f64; 2],
}

fn measure(graph: Graph, threads: usize, repeats: usize) -> Result<TimedMlp, Box<dyn Error>> {
    let graph = Arc::new(graph);
    let tokens: Vec<u32> = (0..graph.context).collect();
    let session = |count| {
        let options = Options { count, threads, ..Options::default() };
        Program::new(Arc::clone(&graph), &options).and_then(|program| Session::new(Arc::new(program)))
    };
    let mut counted = session(true)?;
    let y = counted.forward(&tokens, Rows::All)?.f32("y").ok_or("no output")?.to_vec();
    let mut fired = counted.events().iter().map(|events| events.spikes as f64).filter(|&spikes| spikes > 0.0);
    let spikes = [fired.next().unwrap_or(0.0), fired.next().unwrap_or(0.0)];
    let mut timed = session(false)?;
    let mut ms = f64::INFINITY;
    for run in 0..=repeats {
        timed.reset();
        let start = Instant::now();
        timed.forward(&tokens, Rows::All)?;
        // The first run only warms up.
        if run > 0 {
            ms = ms.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(TimedMlp { ms, y, spikes })
}
