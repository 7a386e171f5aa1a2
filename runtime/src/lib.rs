//! Graph to results: two engines that give the same bits.
//!
//! A [`Program`] is a graph made ready for an engine. A [`Session`] is one sequence of tokens run through it, and a [`Batch`] is
//! several that share its passes. The interpreter is the oracle of `snnc_ir::eval`. The JIT runs a plan: machine code for what is
//! element by element or spike by spike, Rust kernels for the rest. Every number and every event is the same in both.
//!
//! A program that looks up rows of a table:
//!
//! ```
//! use snnc_ir::op::{DenseOp, LeafOp, Op};
//! use snnc_ir::{Builder, Stage, Tensor};
//! use snnc_runtime::{Options, Program, Rows, Session};
//! use std::sync::Arc;
//!
//! let mut b = Builder::new(Stage::Tensor, 8);
//! let table = b.weight("table", Arc::new(Tensor::f32(&[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
//! let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens")?;
//! let rows = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "embed")?;
//! let graph = b.finish(vec![("rows".to_string(), rows)]);
//!
//! let program = Program::new(Arc::new(graph), &Options::default())?;
//! let mut session = Session::new(Arc::new(program))?;
//! let outputs = session.forward(&[2, 0], Rows::All)?;
//! assert_eq!(outputs.f32("rows"), Some(&[4.0, 5.0, 0.0, 1.0][..]));
//! # Ok::<(), snnc_ir::Diagnostic>(())
//! ```
#![warn(missing_docs)]

mod batch;
mod executor;
mod explain;
mod interpreter;
mod jit;
mod kernel_costs;
pub mod kernel_timing;
pub mod kernels;
mod kv_cache;
mod layout;
mod liveness;
mod memory_limit;
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
pub use jit::code_map::{CodeMap, CodeRange};
pub use jit::schedule::{FORWARD, FunctionListing};
pub use kernel_costs::KernelCosts;
pub use kernels::Bf16Unit;
pub use kernels::{ISAS, Isa};
pub use memory_limit::{MemoryReservation, memory_in_words, memory_limit, set_memory_limit};
pub use meter::{Executed, MatmulCounts};
pub use outputs::Outputs;
pub use plan::PlanRow;
pub use pool::threads_that_fit;
pub use program::{Engine, Options, Program, sequence_bytes};
pub use sample::{SampleOptions, Sampler};
pub use session::Session;
pub use step::StepForm;
pub use training::{GradientProducts, PlanOptions, TrainingEngine};
