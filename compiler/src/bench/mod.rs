//! How fast a program runs here.

pub mod machine;
pub mod run;
pub mod speeds;
pub mod variants;

pub use run::{Baseline, BenchJson, BenchOptions, Regression, bench};
pub use speeds::{BATCH_DEPTH, SpeedAt, SpeedOptions, Speeds};
