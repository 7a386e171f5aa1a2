//! What a pass of a spiking MLP costs, 768-3072-768 with ReLU in rate code, time collapsed and spike by spike.
//!
//! `cargo run --release -p snnc-examples --example mlp -- --steps 4 --rate 0.1 --threads 1 mlp.f32 y.f32`
//!
//! `examples/compare/mlp.py` writes the first file, little-endian f32: tokens, then weights and biases of both layers, weights
//! input-major; it reads the second one, the MLP's outputs, and sets the time beside SpikingJelly's. A neuron is the same for
//! a whole layer, as there: its threshold is such that the largest value fires at every step, or, with `--rate`, such that this
//! share of a layer's neurons fires at a step.
//!
//! With `--neuron if`, or another time-stepped neuron, a token's values flow evenly over the timesteps into the first layer, and
//! time does not collapse. Thresholds for a rate are then found by running the network.

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc_ir::membrane::Membrane;
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
    /// `fire`, or a time-stepped neuron such as `if`
    #[arg(long, default_value = "fire", value_parser = neuron)]
    neuron: MlpNeuron,
    /// The share of a layer's neurons that fires at a step [default: the largest value fires at every step]
    #[arg(long, value_parser = share)]
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

#[derive(Clone, Copy)]
enum MlpNeuron {
    Fire,
    TimeStepped(Membrane),
}

fn neuron(name: &str) -> Result<MlpNeuron, String> {
    if name == "fire" {
        return Ok(MlpNeuron::Fire);
    }
    Membrane::from_name(name).map(MlpNeuron::TimeStepped).ok_or("it is neither `fire` nor a time-stepped neuron".into())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().map_err(|_| "it is no number")?;
    if share > 0.0 && share <= 1.0 { Ok(share) } else { Err("a rate is above 0, and at most 1".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let MlpArguments { steps, neuron, rate, threads, repeats, input, output } = MlpArguments::parse();
    let mlp = Mlp::read(&input)?;
    let (stepped, collapsed) = match neuron {
        MlpNeuron::Fire => {
            let gains = [&mlp.x, &mlp.hidden()].map(|values| gain(values, steps, rate));
            let graph = mlp.spiking(neuron, steps, gains)?;
            verify(&graph)?;
            let collapsed = measure(collapse(&graph)?, threads, repeats)?;
            (measure(graph, threads, repeats)?, Some(collapsed))
        }
        MlpNeuron::TimeStepped(_) => {
            let gains = mlp.searched(neuron, steps, rate, threads)?;
            (measure(mlp.spiking(neuron, steps, gains)?, threads, repeats)?, None)
        }
    };
    if collapsed.as_ref().is_some_and(|collapsed| collapsed.y != stepped.y) {
        return Err("the two forms differ".into());
    }
    std::fs::write(output, stepped.y.iter().flat_map(|y| y.to_le_bytes()).collect::<Vec<u8>>())?;
    let [input_rate, hidden_rate] = mlp.rates(stepped.spikes, steps);
    let collapsed = collapsed.map_or(String::new(), |form| format!("\"collapsed_ms\": {}, ", form.ms));
    println!(
        "{{{collapsed}\"stepped_ms\": {}, \"input_rate\": {input_rate}, \"hidden_rate\": {hidden_rate}}}",
        stepped.ms,
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

    fn tokens(&self) -> usize {
        self.x.len() / WIDTH
    }

    /// Shares of the two layers' neurons that fired at a step.
    fn rates(&self, spikes: [f64; 2], steps: u16) -> [f64; 2] {
        let steps = f64::from(steps) * self.tokens() as f64;
        [spikes[0] / steps / WIDTH as f64, spikes[1] / steps / HIDDEN as f64]
    }

    /// Gains at which the network, as it runs, fires at this rate: the first layer's, then the one that reads it.
    fn searched(
        &self,
        neuron: MlpNeuron,
        steps: u16,
        rate: Option<f64>,
        threads: usize,
    ) -> Result<[f32; 2], Box<dyn Error>> {
        let mut gains = [&self.x, &self.hidden()].map(|values| gain(values, steps, None));
        verify(&self.spiking(neuron, steps, gains)?)?;
        let Some(rate) = rate else { return Ok(gains) };
        for layer in 0..2 {
            let start = gains[layer];
            let mut exponents = (-12.0f32, 12.0f32);
            let mut fires = f64::NAN;
            // Gains are bisected by their exponents until the rate is right to a thousandth.
            for _ in 0..28 {
                let middle = f32::midpoint(exponents.0, exponents.1);
                gains[layer] = start * middle.exp2();
                fires = self.rates(count(&Arc::new(self.spiking(neuron, steps, gains)?), threads)?.1, steps)[layer];
                if (fires / rate - 1.0).abs() < 1e-3 {
                    break;
                }
                if fires < rate { exponents.0 = middle } else { exponents.1 = middle }
            }
            if (fires / rate - 1.0).abs() > 0.02 {
                let layer = ["input", "hidden layer"][layer];
                return Err(
                    format!("no threshold of the {layer} lets a share of {rate} fire: the nearest is {fires}").into()
                );
            }
        }
        Ok(gains)
    }

    fn spiking(&self, neuron: MlpNeuron, steps: u16, gains: [f32; 2]) -> Result<Graph, Diagnostic> {
        let [x_gain, h_gain] = gains;
        let mut maker = MlpBuilder(Builder::new(Stage::Spiking, self.tokens() as u32));
        let ids = maker.op(Op::Leaf(LeafOp::Tokens), &[])?;
        let table = maker.constant("x", Tensor::f32(&[self.tokens(), WIDTH], self.x.clone()));
        let x = maker.op(Op::Dense(DenseOp::Embed), &[ids, table])?;
        let (gain, zero) = (maker.row("x.gain", vec![x_gain; WIDTH]), maker.row("x.offset", vec![0.0; WIDTH]));
        let layer = match neuron {
            MlpNeuron::Fire => SpikeOp::Fire { code: Code::Unary, steps, curve: Curve::Identity },
            MlpNeuron::TimeStepped(membrane) => SpikeOp::Integrate { membrane, steps, curve: Curve::Identity },
        };
        let spikes = maker.op(Op::Spike(layer), &[x, gain, zero])?;
        let (current, scales) = maker.synapse("up", spikes, &self.up, HIDDEN)?;
        let spikes = match neuron {
            MlpNeuron::Fire => {
                let sums = maker.op(Op::Spike(SpikeOp::Decode), &[current])?;
                let real = maker.row("up.scale", scales.iter().map(|scale| scale / x_gain).collect());
                let bias = maker.row("up.bias", self.up_bias.clone());
                let (gain, zero) =
                    (maker.row("h.gain", vec![h_gain; HIDDEN]), maker.row("h.offset", vec![0.0; HIDDEN]));
                let layer = SpikeOp::Fire { code: Code::Unary, steps, curve: Curve::Relu };
                maker.op(Op::Spike(layer), &[sums, real, bias, gain, zero])?
            }
            MlpNeuron::TimeStepped(membrane) => {
                let gain = maker.row("h.gain", scales.iter().map(|scale| scale / x_gain * h_gain).collect());
                let offset = maker.row("h.offset", self.up_bias.iter().map(|bias| bias * h_gain).collect());
                let layer = SpikeOp::Integrate { membrane, steps, curve: Curve::Relu };
                maker.op(Op::Spike(layer), &[current, gain, offset])?
            }
        };
        let (current, scales) = maker.synapse("down", spikes, &self.down, WIDTH)?;
        let sums = maker.op(Op::Spike(SpikeOp::Decode), &[current])?;
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

    /// Currents through int8 weights, and what one of a weight is worth, by output.
    fn synapse(&mut self, name: &str, x: Value, w: &[f32], outputs: usize) -> Result<(Value, Vec<f32>), Diagnostic> {
        let mut scales = vec![f32::MIN_POSITIVE; outputs];
        for row in w.chunks_exact(outputs) {
            scales.iter_mut().zip(row).for_each(|(scale, w)| *scale = scale.max(w.abs() / 127.0));
        }
        let levels = w.iter().enumerate().map(|(i, w)| (w / scales[i % outputs]).round() as i8).collect();
        let weight = self.constant(name, Tensor::i8(&[w.len() / outputs, outputs], levels));
        Ok((self.op(Op::Spike(SpikeOp::Synapse), &[x, weight])?, scales))
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
    let (y, spikes) = count(&graph, threads)?;
    let tokens: Vec<u32> = (0..graph.context).collect();
    let mut timed = session(&graph, threads, false)?;
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

/// The outputs, and the spikes of the two layers of neurons.
fn count(graph: &Arc<Graph>, threads: usize) -> Result<(Vec<f32>, [f64; 2]), Box<dyn Error>> {
    let tokens: Vec<u32> = (0..graph.context).collect();
    let mut counted = session(graph, threads, true)?;
    let y = counted.forward(&tokens, Rows::All)?.f32("y").ok_or("no output")?.to_vec();
    let neurons = graph.iter().filter(|(_, node)| node.op.info().is_neuron);
    let mut fired = neurons.map(|(value, _)| counted.events()[value.index()].spikes as f64);
    Ok((y, [fired.next().unwrap_or(0.0), fired.next().unwrap_or(0.0)]))
}

fn session(graph: &Arc<Graph>, threads: usize, count: bool) -> Result<Session, Diagnostic> {
    let options = Options { count, threads, ..Options::default() };
    Program::new(Arc::clone(graph), &options).and_then(|program| Session::new(Arc::new(program)))
}
