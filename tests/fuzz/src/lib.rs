//! Fuzz targets: what reads files of anybody's making, and what must hold of each.
//!
//! A target is a module with `check`, which says of one input whether it was refused or accepted, or what is wrong, and
//! with `mutant`, which makes inputs that get far: they keep their structure and have right checksums. A panic, a hang, or
//! more memory than a file is worth is a finding as well; `driver` watches for those from another process.
//!
//! `cargo build --release --workspace --bin fuzz` makes the command, on the stable compiler; `libfuzzer/` is for `cargo fuzz`.

#![warn(missing_docs)]
#![allow(clippy::expect_used, missing_debug_implementations)]

pub mod bytes;
pub mod chance;
pub mod driver;
pub mod engines;
pub mod onnx;
pub mod program;
pub mod seal;
pub mod snn;
pub mod targets;
pub mod tokenizer;

#[cfg(test)]
mod tests {
    use super::chance::Verdict;
    use super::targets::TARGETS;
    use super::{driver, seal, snn};

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
