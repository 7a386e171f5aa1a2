//! The kinds of input that are tried.

use crate::chance::Verdict;
use crate::{onnx, program, snn, tokenizer};
use snnc_ir::random::SplitMix64;

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
