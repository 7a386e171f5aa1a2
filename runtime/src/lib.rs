//! Graph to results: two engines that give the same bits.
//!
//! A `Program` is a graph made ready for an engine; a `Session` is one sequence of tokens run through it, a `Batch` several
//! that share its passes. The interpreter is the oracle of `snnc_ir::eval`; the JIT runs a plan with machine code for what is element by element or spike by
//! spike, and Rust kernels for the rest. Every number and every event is the same in both.

pub mod batch;
mod explain;
pub mod interpreter;
pub mod jit;
pub mod kernels;
pub mod meter;
pub mod plan;
mod pool;
pub mod prices;
pub mod program;
pub mod sample;
pub mod session;
pub mod state;
pub mod whole;

pub use batch::Batch;
pub use jit::Listing;
pub use kernels::{ISAS, Isa};
pub use meter::{Executed, Products};
pub use prices::Prices;
pub use program::{Engine, Options, Program};
pub use sample::{SampleOptions, Sampler};
pub use session::{Machine, Outputs, Rows, Session, Span};
pub use whole::Whole;
