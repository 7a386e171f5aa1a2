//! Graph to results: two engines that give the same bits.
//!
//! A `Program` is a graph made ready for an engine; a `Session` is one sequence of tokens run through it, a `Batch` several
//! that share its passes. The interpreter is the oracle of `snnc_ir::eval`; the JIT runs a plan with machine code for what is element by element or spike by
//! spike, and Rust kernels for the rest. Every number and every event is the same in both.

pub mod batch;
mod explain;
pub mod interpreter;
pub mod jit;
pub mod kernel_costs;
pub mod kernels;
pub mod kv_cache;
pub mod meter;
pub mod plan;
mod pool;
pub mod program;
pub mod sample;
pub mod session;
pub mod training;

pub use batch::Batch;
pub use jit::Listing;
pub use kernel_costs::KernelCosts;
pub use kernels::{ISAS, Isa};
pub use meter::{Executed, MatmulCounts};
pub use program::{Engine, Options, Program};
pub use sample::{SampleOptions, Sampler};
pub use session::{Executor, Outputs, Rows, SequenceSpan, Session};
pub use training::TrainingEngine;
