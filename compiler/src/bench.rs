//! How fast a program runs: load, prefill, decode at several depths and of several sequences, collapsed and stepped, and what
//! memory that takes.
//!
//! Every figure is the best of some runs after one that does not count, for what disturbs a run only makes it slower. Ids are seeded, the same on every
//! machine. Ratios are to be taken within one run of one machine.

use crate::Complaints;
use crate::convert::{seeded_ids, vocabulary};
use memmap2::MmapMut;
use serde_json::{Value as Json, json};
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::types::Elem;
use snnc_ir::verify::verify;
use snnc_ir::{Builder, Graph, Op, Tensor, Value};
use snnc_runtime::kernels::Kernels;
use snnc_runtime::sample::SplitMix64;
use snnc_runtime::{Batch, Isa, Options, Program, Rows, Session};
use std::sync::Arc;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Lengths of prompts.
    pub prompts: Vec<usize>,
    /// Tokens before the ones that decoding is measured on.
    pub depths: Vec<usize>,
    /// Sequences that decode together, past `BATCH_DEPTH` tokens each.
    pub batches: Vec<usize>,
    /// Tokens that are decoded at each depth, by each sequence.
    pub decoded: usize,
    /// Runs of which the best counts.
    pub repeats: usize,
}

/// Tokens before the ones that decoding of several sequences is measured on.
pub const BATCH_DEPTH: usize = 128;

/// Prompt tokens a second, or new tokens a second in all.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Tokens of the prompt, or tokens before, or sequences.
    pub at: usize,
    pub tokens_per_s: f64,
}

/// Speeds of one form of a program.
#[derive(Clone, Debug, Default)]
pub struct Speeds {
    pub prefill: Vec<Rate>,
    pub decode: Vec<Rate>,
    pub batched: Vec<Rate>,
}

/// Speeds of a program on seeded ids. Lengths beyond its context are left out.
///
/// # Errors
/// It cannot be run.
pub fn measure(program: &Arc<Program>, setting: &Setting) -> Result<Speeds, Complaints> {
    let graph = program.graph();
    let context = graph.context as usize;
    let ids = seeded_ids(vocabulary(graph)?, context);
    let mut session = Session::new(Arc::clone(program));
    let mut speeds = Speeds::default();
    for &length in setting.prompts.iter().filter(|&&length| length > 0 && length <= context) {
        let mut best = f64::INFINITY;
        for run in 0..=setting.repeats {
            session.reset();
            let start = Instant::now();
            session.forward(&ids[..length], Rows::Last)?;
            // The first run only warms up.
            if run > 0 {
                best = best.min(start.elapsed().as_secs_f64());
            }
        }
        speeds.prefill.push(Rate { at: length, tokens_per_s: length as f64 / best });
    }
    for &depth in setting.depths.iter().filter(|&&depth| depth < context) {
        let count = setting.decoded.min(context - depth).max(1);
        let mut best = f64::INFINITY;
        for run in 0..=setting.repeats {
            session.reset();
            if depth > 0 {
                session.forward(&ids[..depth], Rows::None)?;
            }
            let start = Instant::now();
            for id in &ids[depth..depth + count] {
                session.forward(&[*id], Rows::Last)?;
            }
            // The first run only warms up.
            if run > 0 {
                best = best.min(start.elapsed().as_secs_f64());
            }
        }
        speeds.decode.push(Rate { at: depth, tokens_per_s: count as f64 / best });
    }
    if BATCH_DEPTH < context {
        let count = setting.decoded.min(context - BATCH_DEPTH);
        for &sequences in &setting.batches {
            let best = batched(program, &ids, sequences, count, setting.repeats)?;
            speeds.batched.push(Rate { at: sequences, tokens_per_s: (sequences * count) as f64 / best });
        }
    }
    Ok(speeds)
}

/// Seconds that `count` tokens of each of some sequences take.
fn batched(
    program: &Arc<Program>,
    ids: &[u32],
    sequences: usize,
    count: usize,
    repeats: usize,
) -> Result<f64, Complaints> {
    let mut batch = Batch::new(Arc::clone(program), sequences);
    let mut best = f64::INFINITY;
    for run in 0..=repeats {
        for sequence in 0..sequences {
            batch.reset(sequence);
            batch.forward(sequence, &ids[..BATCH_DEPTH], Rows::None)?;
        }
        let start = Instant::now();
        for i in 0..count {
            // Sequences read different tokens, as if each had a text of its own.
            let id = |sequence: usize| ids[(BATCH_DEPTH + i + sequence) % ids.len()];
            let next: Vec<(usize, u32)> = (0..sequences).map(|sequence| (sequence, id(sequence))).collect();
            for outputs in batch.step(&next) {
                outputs?;
            }
        }
        // The first run only warms up.
        if run > 0 {
            best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best)
}

/// Load, plan and first token of `load`, in milliseconds; and the program.
///
/// # Errors
/// It cannot be loaded or run.
pub fn first_token(
    load: &dyn Fn() -> Result<Arc<Program>, Complaints>,
) -> Result<([f64; 2], Arc<Program>), Complaints> {
    let start = Instant::now();
    let program = load()?;
    let loaded = start.elapsed().as_secs_f64() * 1e3;
    Session::new(Arc::clone(&program)).forward(&[0], Rows::Last)?;
    Ok(([loaded, start.elapsed().as_secs_f64() * 1e3], program))
}

/// Seed of the choice of neurons that fire.
const SEED: u64 = 0x0bec_0de5;

/// The same program with so many of its neurons firing, once each, whatever they read: what events cost at a given density.
/// Its results mean nothing.
///
/// # Errors
/// The graph is not well typed.
pub fn with_density(graph: &Graph, density: f64) -> Result<Graph, Complaints> {
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    let mut random = SplitMix64(SEED);
    for (value, node) in graph.iter() {
        let mut args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        if let Op::Level(LevelOp::Quant { .. })
        | Op::Spike(SpikeOp::Fire { .. })
        | Op::Spike(SpikeOp::Integrate { .. }) = node.op
        {
            let width = node.ty.shape().width().unwrap_or(0);
            let fires = |random: &mut SplitMix64| (random.bits() >> 11) as f64 / ((1u64 << 53) as f64) < density;
            let offset = (0..width).map(|_| if fires(&mut random) { 1.0 } else { 0.0 }).collect();
            let last = args.len() - 1;
            let constant = |data| Arc::new(Tensor::f32(&[width], data));
            args[last - 1] = builder.weight(&format!("bench.{}.gain", value.0), constant(vec![0.0; width]));
            args[last] = builder.weight(&format!("bench.{}.offset", value.0), constant(offset));
        }
        map.push(match node.op {
            Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => builder.add(op, &args, graph.origin(value))?,
        });
    }
    Ok(builder.finish(graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect()))
}

/// The same program for sequences of another length: rows of its tables of positions repeat, or are left out. What it says
/// beyond the positions that it was trained with means nothing.
///
/// # Errors
/// Its sums are not bounded for so many tokens.
pub fn with_context(graph: &Graph, context: u32) -> Result<Graph, Complaints> {
    let mut builder = Builder::new(graph.stage, context);
    let mut map: Vec<Value> = Vec::with_capacity(graph.nodes.len());
    for (value, node) in graph.iter() {
        let mut args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
        if node.op == Op::Dense(DenseOp::Embed)
            && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions)
            && let Some(table) = graph.constant(node.args[1])
            && let (Some(rows), [_, width]) = (table.tensor.as_f32(), table.tensor.sizes())
        {
            let repeated = rows.iter().copied().cycle().take(context as usize * width).collect();
            let tensor = Tensor::f32(&[context as usize, *width], repeated);
            args[1] = builder.weight(&format!("{}.repeated", table.name), Arc::new(tensor));
        }
        map.push(match node.op {
            Op::Leaf(LeafOp::Weight(id)) => builder.weight(&graph.weight(id).name, graph.weight(id).tensor.clone()),
            op => builder.add(op, &args, graph.origin(value))?,
        });
    }
    let outputs = graph.outputs.iter().map(|(name, value)| (name.clone(), map[value.index()])).collect();
    let graph = builder.finish(outputs);
    verify(&graph)?;
    Ok(graph)
}

/// The share of neurons that fire, over `tokens` seeded ids.
///
/// # Errors
/// It cannot be run.
pub fn density(graph: &Graph, tokens: usize) -> Result<f64, Complaints> {
    let program = Arc::new(Program::new(Arc::new(graph.clone()), &Options::default())?);
    let tokens = tokens.min(graph.context as usize);
    let ids = seeded_ids(vocabulary(graph)?, tokens);
    let mut session = Session::new(program);
    session.forward(&ids, Rows::All)?;
    let (mut spikes, mut slots) = (0u64, 0u64);
    for ((_, node), events) in graph.iter().zip(session.events()) {
        if let Some((_, steps)) = node.ty.levels().filter(|_| snnc_ir::events::is_neuron(&node.op)) {
            spikes += events.spikes;
            slots += node.ty.shape().width().unwrap_or(0) as u64 * tokens as u64 * u64::from(steps);
        }
    }
    Ok(spikes as f64 / slots.max(1) as f64)
}

/// Bytes of weights that one token's decoding reads: all int8 weights once.
pub fn weight_bytes(graph: &Graph) -> usize {
    let products = graph.iter().filter(|(_, node)| {
        matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) | Op::Dense(DenseOp::Linear(_)))
    });
    let bytes = |value: Value| {
        let elements: usize = graph.ty(value).shape().sizes().map_or(0, |sizes| sizes.iter().product());
        elements * graph.ty(value).elem().map_or(0, Elem::bytes)
    };
    products.map(|(_, node)| bytes(node.args[1])).sum()
}

/// Bytes that no cache holds.
const FAR_BYTES: usize = 1 << 28;

/// Gigabytes a second that so many threads read from memory together, in order, from large pages and asking ahead: the limit of
/// what walks over weights. `None` where there is not so much memory.
pub fn memory_read_gb_per_s(threads: usize) -> Option<f64> {
    let kernels = Kernels::new(Isa::detect().ok()?).ok()?;
    let mut map = MmapMut::map_anon(FAR_BYTES).ok()?;
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    map.fill(1);
    let words: &[u64] = bytemuck::try_cast_slice(&map).ok()?;
    let read = |part: &[u64]| _ = std::hint::black_box(kernels.read(part));
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(words.len().div_ceil(threads.max(1))) {
                scope.spawn(move || read(part));
            }
        });
        start.elapsed().as_secs_f64()
    };
    let best = (0..7).map(|_| pass()).fold(f64::INFINITY, f64::min);
    Some(FAR_BYTES as f64 / best / 1e9)
}

/// The most memory that this process has held, in MB; `None` where the system does not say.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

impl Speeds {
    pub fn json(&self) -> Json {
        let rate = |rate: &Rate| json!({ "at": rate.at, "tokens_per_s": rate.tokens_per_s });
        let rates = |rates: &[Rate]| rates.iter().map(rate).collect::<Vec<Json>>();
        json!({ "prefill": rates(&self.prefill), "decode": rates(&self.decode), "batched": rates(&self.batched) })
    }

    /// The rate at a length or a depth.
    pub fn at(rates: &[Rate], at: usize) -> Option<f64> {
        rates.iter().find(|rate| rate.at == at).map(|rate| rate.tokens_per_s)
    }
}
