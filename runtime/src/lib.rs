//! Graph to results: two engines that give the same bits.
//!
//! A `Program` is a graph made ready for an engine; a `Session` is one sequence of tokens run through it, a `Batch` several
//! that share its passes. The interpreter is the oracle of `snnc_ir::eval`; the JIT runs a plan with machine code for what is element by element or spike by
//! spike, and Rust kernels for the rest. Every number and every event is the same in both.

mod batch;
mod executor;
mod explain;
mod interpreter;
mod jit;
pub mod kernel_costs;
pub mod kernels;
mod kv_cache;
mod layout;
mod liveness;
mod meter;
mod outputs;
mod plan;
mod planner;
mod pool;
mod program;
pub mod sample;
mod session;
mod step;
mod steps;
mod training;

pub use batch::Batch;
pub use executor::Rows;
pub use jit::schedule::Listing;
pub use kernel_costs::KernelCosts;
pub use kernels::{ISAS, Isa};
pub use meter::{Executed, MatmulCounts};
pub use outputs::Outputs;
pub use program::{Engine, Options, Program};
pub use sample::{SampleOptions, Sampler};
pub use session::Session;
pub use training::TrainingEngine;
