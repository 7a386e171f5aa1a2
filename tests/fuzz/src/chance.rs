//! What all targets share: verdicts, numbers drawn, the corpus.

use snnc_ir::random::SplitMix64;
use std::path::{Path, PathBuf};

/// What became of an input that nothing is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was an error, as it should be or may be.
    Refused,
    /// It was read, and all that was tried with it held.
    Accepted,
}

/// A number below `n`; 0 where `n` is.
pub fn below(random: &mut SplitMix64, n: usize) -> usize {
    (random.bits() % (n.max(1) as u64)) as usize
}

/// One of them.
pub fn pick<'a, T>(random: &mut SplitMix64, all: &'a [T]) -> &'a T {
    &all[below(random, all.len())]
}

/// Numbers that limits are made of.
pub const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    63,
    64,
    127,
    128,
    255,
    256,
    1023,
    1024,
    65535,
    1 << 20,
    (1 << 20) + 1,
    1 << 31,
    u32::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Where inputs that once fell, and inputs to begin with, are kept.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The files of a target's corpus, by name.
pub fn corpus_files(target: &str) -> Vec<Vec<u8>> {
    let Ok(folder) = std::fs::read_dir(corpus(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = folder.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}
