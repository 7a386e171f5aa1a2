//! Graph to graph: from what an exporter wrote to a spiking program.
//!
//! Every pass is a function from a graph and a context to a graph; `STANDARD` is their order. Passes read no files and no
//! clocks: what was measured on text comes in as plain data.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod apply_parameters;
pub mod collapse;
pub mod constants;
pub mod context;
pub mod cost;
pub mod egraph;
pub mod features;
pub mod fit;
pub mod fold;
pub mod gradient;
pub mod hybrid;
pub mod levels;
pub mod moments;
pub mod observed;
pub mod options;
pub mod pipeline;
mod products;
pub mod quantise;
pub mod raise;
pub mod relax;
pub mod residual;
pub mod rotate;
pub mod segments;
mod shared_channels;
pub mod side_by_side;
pub mod simplify;
pub mod sites;
pub mod spike;
pub mod tie_embedding;

pub use context::{Context, StartRows};
pub use pipeline::{Pass, RULES, STANDARD, front_and_back, run};
