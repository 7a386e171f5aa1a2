//! Fuzz targets: what reads files of anybody's making, and what must hold of each.
//!
//! A target is a module with `check`, which says of one input whether it was refused or accepted, or what is wrong, and
//! with `mutant`, which makes inputs that get far: they keep their structure and have right checksums. A panic, a hang, or
//! more memory than a file is worth is a finding as well; `driver` watches for those from another process.
//!
//! `cargo run --release --workspace --bin fuzz -- snn --seconds 60` needs no nightly compiler; `libfuzzer/` is for `cargo fuzz`.

#![warn(missing_docs)]
#![allow(clippy::expect_used, missing_debug_implementations)]

pub mod bytes;
pub mod driver;
pub mod engines;
pub mod onnx;
pub mod program;
pub mod seal;
pub mod snn;
pub mod tokenizer;

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

/// A kind of input.
#[derive(Clone, Copy)]
pub struct Target {
    /// How the command line calls it.
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// An input like the seeds.
    pub mutant: fn(&[Vec<u8>], &mut SplitMix64) -> Vec<u8>,
    /// Tries an input.
    pub check: fn(&[u8]) -> Result<Verdict, String>,
}

/// All of them.
pub const TARGETS: [Target; 4] = [
    Target { name: "snn", seeds: snn::seeds, mutant: snn::mutant, check: snn::check },
    Target { name: "program", seeds: program::seeds, mutant: program::mutant, check: program::check },
    Target { name: "onnx", seeds: onnx::seeds, mutant: onnx::mutant, check: onnx::check },
    Target { name: "tokenizer", seeds: tokenizer::seeds, mutant: tokenizer::mutant, check: tokenizer::check },
];

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds, which hold what once fell, and some mutants: a longer run is `fuzz`'s.
    #[test]
    fn seeds_and_some_mutants_hold() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(seeds.len() >= 2, "{}: inputs to begin with", target.name);
            let mut accepted = 0;
            for i in 0..seeds.len() as u64 + 100 {
                let verdict = driver::attempt(&target, &driver::input(&target, &seeds, i));
                let verdict = verdict.unwrap_or_else(|found| panic!("{} --first {i}: {found}", target.name));
                accepted += usize::from(verdict == Verdict::Accepted);
            }
            assert!(accepted > 10, "{}: only {accepted} inputs are accepted", target.name);
        }
    }

    #[test]
    fn a_file_that_is_opened_is_sealed_again() {
        for seed in snn::seeds() {
            let parts = seal::Parts::open(&seed).expect("a file");
            assert_eq!(parts.seal(), seed);
        }
    }
}
