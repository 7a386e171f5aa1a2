//! What rows of weights cost, in nanoseconds: by these a product is dense or sparse.
//!
//! A row is one of a panel, 64 weights. A dense product reads all rows; a sparse one reads those whose channels fired. Costs
//! choose and estimate; no result depends on them. The default ones are of one machine; `kernel_timing` gives those of this one.
//! Weights are near in a cache, and far in memory.

use crate::kernels::{Isa, multiplies_matrices};

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
    /// Where nobody has measured: what `kernel_timing` gave on a Zen 5 virtual machine, whose other core was busy; with a unit
    /// that multiplies matrices, what it gave on a Sapphire Rapids virtual machine.
    pub fn typical(isa: Isa) -> Self {
        Self::of(match isa {
            Isa::Portable => [5.8, 70.0, 6.0, 6.0, 3.1, 2.7],
            Isa::Avx2 => [1.7, 5.8, 0.84, 0.8, 2.8, 3.0],
            Isa::Avx512 if multiplies_matrices() => [1.9, 5.0, 0.5, 0.08, 1.2, 3.0],
            Isa::Avx512 => [1.3, 4.4, 0.355, 0.158, 1.6, 2.6],
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
