//! Training: a compiled program learns to predict as the dense network that it came from.
//!
//! `run::train` is the whole of it, from files to a file; `Trainer` is its core, step by step; `hybrid` gives layers back to
//! attention by time to first spike.

pub mod adamw;
pub mod checkpoint;
pub mod comparison;
pub mod documents;
pub mod events;
pub mod hybrid;
pub mod reduce;
pub mod run;
pub mod stall;
pub mod text;
pub mod trainer;

pub use run::{Outcome, TrainLength, TrainOptions, train};
pub use trainer::{Trainer, TrainerOptions};
