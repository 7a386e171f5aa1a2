//! How fast a program runs: load, prefill, decode at several depths and of several sequences, collapsed and stepped, and what
//! memory that takes.
//!
//! Every figure is the best of some runs after one that does not count, for what disturbs a run only makes it slower. Ids are seeded, the same on every
//! machine. Ratios are to be taken within one run of one machine.

use crate::convert::{seeded_ids, vocabulary};
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{DenseOp, LevelOp, SpikeOp};
use snnc_ir::types::Elem;
use snnc_ir::{Diagnostic, Graph, Op, Value};
use snnc_runtime::{Batch, Options, Program, Rows, Session};
use std::sync::Arc;
use std::time::Instant;

/// What to measure.
#[derive(Clone, Debug)]
pub struct SpeedOptions {
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

/// Prompt tokens per second, or new tokens per second in all.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct SpeedAt {
    /// Tokens of the prompt, or tokens before, or sequences.
    pub at: usize,
    /// Tokens per second.
    pub tokens_per_s: f64,
}

/// Speeds of one form of a program.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Speeds {
    /// Prompts, by their length.
    pub prefill: Vec<SpeedAt>,
    /// Decoding, by the tokens before.
    pub decode: Vec<SpeedAt>,
    /// Decoding together, by the number of sequences.
    pub batched: Vec<SpeedAt>,
}

/// Speeds of a program on seeded ids. Lengths beyond its context are left out.
///
/// # Errors
/// It cannot be run.
pub fn measure(program: &Arc<Program>, options: &SpeedOptions) -> Result<Speeds, Diagnostics> {
    let graph = program.graph();
    let context = graph.context as usize;
    let ids = seeded_ids(vocabulary(graph)?, context);
    let mut session = Session::new(Arc::clone(program))?;
    let mut speeds = Speeds::default();
    for &length in options.prompts.iter().filter(|&&length| length > 0 && length <= context) {
        let seconds = prefill(&mut session, &ids[..length], options.repeats)?;
        speeds.prefill.push(SpeedAt { at: length, tokens_per_s: length as f64 / seconds });
    }
    for &depth in options.depths.iter().filter(|&&depth| depth < context) {
        let count = options.decoded.min(context - depth).max(1);
        let seconds = decode(&mut session, &ids[..depth + count], depth, options.repeats)?;
        speeds.decode.push(SpeedAt { at: depth, tokens_per_s: count as f64 / seconds });
    }
    if BATCH_DEPTH < context {
        let count = options.decoded.min(context - BATCH_DEPTH);
        for &sequences in &options.batches {
            let seconds = batched(program, &ids, sequences, count, options.repeats)?;
            speeds.batched.push(SpeedAt { at: sequences, tokens_per_s: (sequences * count) as f64 / seconds });
        }
    }
    Ok(speeds)
}

/// The least seconds of some runs after one that only warms up; `run` gives those of one.
fn best_of(repeats: usize, mut run: impl FnMut() -> Result<f64, Diagnostic>) -> Result<f64, Diagnostic> {
    run()?;
    (0..repeats).try_fold(f64::INFINITY, |best, _| Ok(run()?.min(best)))
}

/// Seconds that a prompt takes.
fn prefill(session: &mut Session, ids: &[u32], repeats: usize) -> Result<f64, Diagnostic> {
    best_of(repeats, || {
        session.reset();
        let start = Instant::now();
        session.forward(ids, Rows::Last)?;
        Ok(start.elapsed().as_secs_f64())
    })
}

/// Seconds that the tokens past `depth` take one by one.
fn decode(session: &mut Session, ids: &[u32], depth: usize, repeats: usize) -> Result<f64, Diagnostic> {
    best_of(repeats, || {
        session.reset();
        if depth > 0 {
            session.forward(&ids[..depth], Rows::None)?;
        }
        let start = Instant::now();
        for id in &ids[depth..] {
            session.forward(&[*id], Rows::Last)?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

/// Seconds that `count` tokens of each of some sequences take.
fn batched(
    program: &Arc<Program>,
    ids: &[u32],
    sequences: usize,
    count: usize,
    repeats: usize,
) -> Result<f64, Diagnostics> {
    let mut batch = Batch::new(Arc::clone(program), sequences)?;
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
    load: &dyn Fn() -> Result<Arc<Program>, Diagnostics>,
) -> Result<([f64; 2], Arc<Program>), Diagnostics> {
    let start = Instant::now();
    let program = load()?;
    let loaded = start.elapsed().as_secs_f64() * 1e3;
    Session::new(Arc::clone(&program))?.forward(&[0], Rows::Last)?;
    Ok(([loaded, start.elapsed().as_secs_f64() * 1e3], program))
}

/// The share of neurons that fire, over `tokens` seeded ids.
///
/// # Errors
/// It cannot be run.
pub fn density(graph: &Graph, tokens: usize) -> Result<f64, Diagnostics> {
    let program = Arc::new(Program::new(Arc::new(graph.clone()), &Options::default())?);
    let tokens = tokens.min(graph.context as usize);
    let ids = seeded_ids(vocabulary(graph)?, tokens);
    let mut session = Session::new(program)?;
    session.forward(&ids, Rows::All)?;
    let (mut spikes, mut slots) = (0u64, 0u64);
    for ((_, node), events) in graph.iter().zip(session.events()) {
        if let Some((_, steps)) = node.ty.levels().filter(|_| node.op.is_neuron()) {
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

impl Speeds {
    /// The rate at a length or a depth.
    pub fn at(rates: &[SpeedAt], at: usize) -> Option<f64> {
        rates.iter().find(|rate| rate.at == at).map(|rate| rate.tokens_per_s)
    }
}
