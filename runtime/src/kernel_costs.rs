//! What rows of weights cost, in nanoseconds: by these a product is dense or sparse.
//!
//! A row is one of a panel, 64 weights. A dense product reads all rows; a sparse one reads those whose channels fired. Costs
//! choose and estimate; no result depends on them. The default ones are of one machine; `measure` gives those of this one. Weights
//! are near in a cache, and far in memory.

use crate::executor::Rows;
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

/// Nanoseconds per row of 64 weights.
///
/// ```
/// use snnc_runtime::{Isa, KernelCosts};
///
/// // Below this share of channels that fire, one token's product is sparse.
/// let costs = KernelCosts::typical(Isa::Avx512);
/// let share = costs.crossover(1, 768);
/// assert!(costs.prefers_sparse(1, 768, (0.9 * share * 768.0) as usize));
/// assert!(!costs.prefers_sparse(1, 768, (1.1 * share * 768.0) as usize));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelCosts {
    /// In one token's dense product, which reads memory in order.
    pub dense_ns: f64,
    /// In a sparse product, of a row that comes from memory.
    pub sparse_far_ns: f64,
    /// In a sparse product, of a row that an earlier token of the pass has brought into a cache.
    pub sparse_near_ns: f64,
    /// In a dense product of several tokens, which go in tiles of six: for each token.
    pub tile_ns: f64,
    /// To make a row ready for tiles, once per pass: read it, and interleave it with three others.
    pub interleave_ns: f64,
    /// In a loop over timesteps, of a row that machine code adds up.
    pub code_ns: f64,
}

impl KernelCosts {
    /// Where nobody has measured: what `measure` gave on a Zen 5 virtual machine, whose other core was busy.
    pub fn typical(isa: Isa) -> Self {
        Self::of(match isa {
            Isa::Portable => [5.8, 72.3, 6.3, 6.3, 3.0, 2.0],
            Isa::Avx2 => [1.8, 6.3, 0.91, 0.81, 2.8, 2.0],
            Isa::Avx512 => [1.4, 4.4, 0.42, 0.155, 1.7, 2.0],
        })
    }

    /// How a file names them, in the order of `values`.
    pub const NAMES: [&str; 6] = ["dense_ns", "sparse_far_ns", "sparse_near_ns", "tile_ns", "interleave_ns", "code_ns"];

    /// Costs in the order of `NAMES`.
    pub fn of([dense_ns, sparse_far_ns, sparse_near_ns, tile_ns, interleave_ns, code_ns]: [f64; 6]) -> Self {
        Self { dense_ns, sparse_far_ns, sparse_near_ns, tile_ns, interleave_ns, code_ns }
    }

    /// In the order of `NAMES`.
    pub fn values(&self) -> [f64; 6] {
        let Self { dense_ns, sparse_far_ns, sparse_near_ns, tile_ns, interleave_ns, code_ns } = *self;
        [dense_ns, sparse_far_ns, sparse_near_ns, tile_ns, interleave_ns, code_ns]
    }

    /// Whether in a loop over timesteps a kernel adds rows up for less than machine code.
    pub fn rows_by_kernel(&self) -> bool {
        self.sparse_near_ns < self.code_ns
    }

    /// Nanoseconds of all rows of a panel, for so many tokens.
    pub fn dense(&self, tokens: usize, inputs: usize) -> f64 {
        let row = if tokens == 1 { self.dense_ns } else { self.interleave_ns + tokens as f64 * self.tile_ns };
        inputs as f64 * row
    }

    /// Nanoseconds of the rows of a panel whose channels fired; every row comes from memory once.
    pub fn sparse(&self, inputs: usize, fired: f64) -> f64 {
        let far = fired.min(inputs as f64);
        far * self.sparse_far_ns + (fired - far) * self.sparse_near_ns
    }

    /// Whether a sparse product costs less.
    pub fn prefers_sparse(&self, tokens: usize, inputs: usize, fired: usize) -> bool {
        self.sparse(inputs, fired as f64) < self.dense(tokens, inputs)
    }

    /// The share of channels that fire below which a sparse product costs less; 1 if it always does.
    pub fn crossover(&self, tokens: usize, inputs: usize) -> f64 {
        let (inputs, dense) = (inputs as f64, self.dense(tokens, inputs));
        let far = dense / self.sparse_far_ns;
        let fired =
            if far <= inputs { far } else { inputs + (dense - inputs * self.sparse_far_ns) / self.sparse_near_ns };
        (fired / (tokens as f64 * inputs)).min(1.0)
    }
}

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
    let sparse_far = least(&far, |w| kernels.synapse(&one, 1, 1, w, &mut y[..outputs])) / fired(&one, outputs);
    let all = kernels.event_list(&x, inputs, inputs);
    let again = vec![near; far.len()];
    let sparse_near =
        least(&again, |w| kernels.synapse(&all, 1, 1, w, &mut y[..MANY * NEAR[1]])) / fired(&all, NEAR[1]);

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
    for _ in 0..4 * ROUNDS {
        for (session, least) in sessions.iter_mut().zip(&mut least) {
            session.reset();
            let start = Instant::now();
            session.forward(&tokens, Rows::All)?;
            *least = least.min(start.elapsed().as_nanos() as f64);
            rows = session.matmul_counts().iter().map(|done| done.rows).sum::<u64>();
        }
    }
    let panels = (NEAR[1] / OUTPUTS) as u64;
    Ok((least[1] - least[0]) / (rows * panels).max(1) as f64)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_crossover_both_ways_cost_the_same() {
        let costs = KernelCosts::typical(Isa::Avx512);
        for (tokens, inputs) in [(1, 768), (2, 768), (6, 3072), (128, 768)] {
            let density = costs.crossover(tokens, inputs);
            let fired = density * (tokens * inputs) as f64;
            let (sparse, dense) = (costs.sparse(inputs, fired), costs.dense(tokens, inputs));
            assert!(density < 1.0 && (sparse / dense - 1.0).abs() < 1e-9, "{tokens} tokens: {sparse} and {dense}");
            assert!(
                costs.prefers_sparse(tokens, inputs, fired as usize - 1)
                    && !costs.prefers_sparse(tokens, inputs, fired as usize + 2)
            );
        }
    }
}
