//! What rows of weights cost on this machine: kernels and loops are timed.

use crate::executor::Rows;
use crate::kernel_costs::KernelCosts;
use crate::kernels::{EventList, Isa, Kernels, OUTPUTS, Panels};
use crate::program::{Options, Program};
use crate::session::Session;
use memmap2::MmapMut;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, SpikeOp};
use snnc_ir::random::SplitMix64;
use snnc_ir::{Builder, Curve, Diagnostic, ErrorCode, Graph, Op, Stage, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// Weights that no cache holds.
const FAR_BYTES: usize = 96 << 20;
/// GPT-2 small's widest product; and one that stays in the second-level cache.
const FAR: [usize; 2] = [768, 3072];
const NEAR: [usize; 2] = [768, 256];
/// The share of channels that fire: near the crossover.
const DENSITY: f64 = 0.2;
/// Tokens of few tiles and of many, between which the cost of a token lies.
const FEW: usize = 6;
const MANY: usize = 30;
/// Rounds over all weights; the best counts, for what disturbs a run only makes it slower.
const ROUNDS: usize = 5;
/// Passes of a network of IF neurons.
const LOOP_ROUNDS: usize = 20;
const SEED: u64 = 0x0061_0047;

/// The costs of this machine, with the instructions that `isa` or the environment names; takes some seconds on one thread.
///
/// # Errors
/// The machine does not have these instructions, or not the memory.
pub fn measure(isa: Option<Isa>) -> Result<KernelCosts, Diagnostic> {
    let kernels = isa.map_or_else(Isa::detect, Ok).and_then(Kernels::new);
    let kernels = kernels.map_err(|message| Diagnostic::new("", message).code(ErrorCode::PRICES))?;
    let memory = weights()
        .map_err(|e| Diagnostic::new("", format!("no memory to measure costs in ({e})")).code(ErrorCode::PRICES))?;
    let weights: &[i8] = bytemuck::cast_slice(&memory);
    let [inputs, outputs] = FAR;
    let matrix = |w| Panels::new(w, inputs, outputs);
    let far: Vec<Panels<'_>> = weights.chunks_exact(inputs * outputs).map(matrix).collect();
    let near = Panels::new(&weights[..NEAR[0] * NEAR[1]], NEAR[0], NEAR[1]);
    let x = levels(MANY * inputs);
    let mut y = vec![0; MANY * outputs];
    let rows = (inputs * outputs / OUTPUTS) as f64;

    let mut dense_of = |tokens: usize| {
        let (x, y) = (&x[..tokens * inputs], &mut y[..tokens * outputs]);
        least(&far, |w| kernels.matmul_int(x, &[], w, y)) / rows
    };
    let (dense, few, many) = (dense_of(1), dense_of(FEW), dense_of(MANY));
    let tile = (many - few) / (MANY - FEW) as f64;

    let one = kernels.event_list(&x[..inputs], inputs, inputs);
    let fired = |events: &EventList, outputs: usize| (events.count() as usize * outputs / OUTPUTS) as f64;
    let sparse_far = least(&far, |w| kernels.synapse(&one, w, &mut y[..outputs])) / fired(&one, outputs);
    let all = kernels.event_list(&x, inputs, inputs);
    let again = vec![near; far.len()];
    let sparse_near = least(&again, |w| kernels.synapse(&all, w, &mut y[..MANY * NEAR[1]])) / fired(&all, NEAR[1]);

    // Noise may make a difference of two times negative; a price is above 0.
    let least = dense / 1000.0;
    let costs = [dense, sparse_far, sparse_near, tile, few - FEW as f64 * tile, f64::MAX].map(|price| price.max(least));
    let code = sparse_near + loop_difference(kernels.isa(), &KernelCosts::of(costs))?;
    Ok(KernelCosts { code_ns: code.max(least), ..KernelCosts::of(costs) })
}

/// Nanoseconds per row by which machine code is slower than the kernel where a loop over timesteps adds rows up.
fn loop_difference(isa: Isa, costs: &KernelCosts) -> Result<f64, Diagnostic> {
    let graph = Arc::new(time_stepped()?);
    let tokens: Vec<u32> = (0..graph.context).collect();
    let session = |code_ns| {
        let kernel_costs = Some(KernelCosts { code_ns, ..*costs });
        let options = Options { isa: Some(isa), kernel_costs, ..Options::default() };
        Program::new(Arc::clone(&graph), &options).and_then(|program| Session::new(Arc::new(program)))
    };
    // By the kernel, then by machine code: whichever seems to cost less.
    let mut sessions = [session(f64::MAX)?, session(0.0)?];
    let mut least = [f64::INFINITY; 2];
    let mut rows = 1;
    for _ in 0..LOOP_ROUNDS {
        for (session, least) in sessions.iter_mut().zip(&mut least) {
            session.reset();
            let start = Instant::now();
            session.forward(&tokens, Rows::All)?;
            *least = least.min(start.elapsed().as_nanos() as f64);
            rows = session.matmul_counts().iter().map(|done| done.rows).sum::<u64>();
        }
    }
    // A session counts the rows of all its passes.
    let of_a_pass = rows as f64 / LOOP_ROUNDS as f64 * (NEAR[1] / OUTPUTS) as f64;
    Ok((least[1] - least[0]) / of_a_pass.max(1.0))
}

/// A weight that stays in the second-level cache, between layers of IF neurons.
fn time_stepped() -> Result<Graph, Diagnostic> {
    let [inputs, outputs] = NEAR;
    let levels = levels(MANY * inputs);
    let mut b = Builder::new(Stage::Spiking, MANY as u32);
    let integrate = Op::Spike(SpikeOp::Integrate { membrane: Membrane::IF, steps: 32, curve: Curve::Relu });
    let row = |b: &mut Builder, width: usize, x: f32| b.weight("row", Arc::new(Tensor::f32(&[width], vec![x; width])));
    let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "")?;
    let table = levels.iter().map(|&x| f32::from(x)).collect();
    let table = b.weight("table", Arc::new(Tensor::f32(&[MANY, inputs], table)));
    let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "")?;
    let (gain, zero) = (row(&mut b, inputs, 0.25), row(&mut b, inputs, 0.0));
    let spikes = b.add(integrate, &[x, gain, zero], "")?;
    let weights = (0..inputs * outputs).map(|i| (i % 15) as i8 - 7).collect();
    let weights = b.weight("weight", Arc::new(Tensor::i8(&[inputs, outputs], weights)));
    let current = b.add(Op::Spike(SpikeOp::Synapse), &[spikes, weights], "")?;
    let (gain, zero) = (row(&mut b, outputs, 1e-3), row(&mut b, outputs, 0.0));
    let spikes = b.add(integrate, &[current, gain, zero], "")?;
    let levels = b.add(Op::Spike(SpikeOp::Decode), &[spikes], "")?;
    let y = b.add(Op::Level(LevelOp::ScaleShift), &[levels, gain, zero], "")?;
    Ok(b.finish(vec![("y".into(), y)]))
}

/// The least nanoseconds that one of the weights takes, in some rounds over all. What is timed is short, a millisecond at most,
/// so that on a busy machine some of it runs without a pause.
fn least<'a>(weights: &[Panels<'a>], mut run: impl FnMut(Panels<'a>)) -> f64 {
    let mut least = f64::INFINITY;
    for &w in std::iter::repeat_n(weights, ROUNDS).flatten() {
        let start = Instant::now();
        run(w);
        least = least.min(start.elapsed().as_nanos() as f64);
    }
    least
}

/// Seeded weights from 0 to 127, on large pages where the system gives them, as a program's are.
fn weights() -> std::io::Result<MmapMut> {
    let mut memory = MmapMut::map_anon(FAR_BYTES)?;
    #[cfg(target_os = "linux")]
    // A system without large pages has small ones.
    let _ = memory.advise(memmap2::Advice::HugePage);
    let mut random = SplitMix64(SEED);
    for bytes in memory.chunks_exact_mut(8) {
        bytes.copy_from_slice(&(random.bits() & 0x7f7f_7f7f_7f7f_7f7f).to_ne_bytes());
    }
    Ok(memory)
}

/// Seeded levels, most of them 0.
fn levels(count: usize) -> Vec<i8> {
    let mut random = SplitMix64(SEED);
    let mut level = || {
        let bits = random.bits();
        let fires = ((bits >> 11) as f64) < DENSITY * (1u64 << 53) as f64;
        if fires { 1 + (bits & 63) as i8 } else { 0 }
    };
    (0..count).map(|_| level()).collect()
}
