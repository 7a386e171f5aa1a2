//! How much memory a conversion may take, and what it keeps there. No result depends on it.
//!
//! Three things grow with the network: weights that passes make, moments by which weights are rounded, and the program's own weights, of
//! eight bits. The first two have a share of the memory each. Weights beyond it lie in files (`spill_files`); moments are measured in
//! groups of sites (`moment_groups`), group after group.

use crate::files;
use crate::spill_files::SpillFiles;
use snnc_ir::WeightStore;
use snnc_runtime::memory_limit;
use std::path::{Path, PathBuf};

/// Shares of the memory: weights that passes make, moments, the program with the runs of calibration, and pages of files.
const SHARES: u64 = 4;

/// What a conversion may take.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    /// Bytes in all.
    pub bytes: u64,
    /// The folder of files for large weights, where there is no more room; without one they are in memory.
    pub folder: Option<PathBuf>,
}

impl Default for MemoryBudget {
    /// What large buffers may take (`--max-memory`), and no folder.
    fn default() -> Self {
        Self { bytes: memory_limit(), folder: None }
    }
}

impl MemoryBudget {
    /// The same, with files beside an output.
    pub fn beside(output: &Path) -> Self {
        Self { folder: Some(files::folder_of(output).to_path_buf()), ..Self::default() }
    }

    /// Bytes of one share.
    fn share(&self) -> u64 {
        self.bytes / SHARES
    }

    /// The same for a conversion whose new weights are where `store` keeps them.
    pub fn with<'a>(&self, store: Option<&'a dyn WeightStore>) -> ConversionMemory<'a> {
        ConversionMemory { bytes: self.bytes, moments: self.share(), store }
    }

    /// Where weights lie that passes make.
    pub fn spill_files(&self) -> Option<SpillFiles> {
        self.folder.as_ref().map(|folder| SpillFiles::new(folder.clone(), self.share()))
    }
}

/// What the steps of a conversion may hold.
#[derive(Clone, Copy, Debug)]
pub struct ConversionMemory<'a> {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of moments at once.
    pub moments: u64,
    /// Where weights lie that passes make; in memory without one.
    pub store: Option<&'a dyn WeightStore>,
}

impl Default for ConversionMemory<'_> {
    fn default() -> Self {
        MemoryBudget::default().with(None)
    }
}
