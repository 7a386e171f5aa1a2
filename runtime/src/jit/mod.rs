//! Plan to machine code, and the engine that runs it.
//!
//! Machine code does what is element by element or spike by spike, and calls the kernels in the plan's order. One function
//! for each shape, not for each layer: a record per step tells what differs. Outputs and events equal the oracle's, bit for
//! bit.

pub mod code_map;
pub mod compiled;
pub mod dispatch;
pub mod emit;
pub mod engine;
pub mod frame;
pub mod lanes;
pub mod loop_call;
pub mod memory;
pub mod neuron_loop;
pub mod pass;
mod repetition;
mod rows;
mod rule;
pub mod schedule;
pub mod soon;
pub mod synapse;
#[cfg(test)]
mod tests;
