//! How fast a program runs here.

pub mod machine;
pub mod run;
pub mod speeds;
pub mod variants;

pub use run::{BenchJson, BenchOptions, Regression, bench, regressions};
pub use speeds::{BATCH_DEPTH, SpeedAt, SpeedOptions, Speeds};
