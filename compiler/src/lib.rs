//! The edge of snnc: ONNX files, `.snn` files, text.
//!
//! `convert` is the whole compiler as one function. The command `snnc` stands in `cli/`, behind the feature `cli`; it reads
//! options, calls this library, and prints.

pub mod bench;
pub mod calibrate;
pub mod calibration;
pub mod check;
pub mod compile;
pub mod convert;
pub mod describe;
pub mod energy;
pub mod eval;
pub mod eval_report;
pub mod evaluate;
pub mod files;
pub mod generate;
pub mod kernel_costs;
pub mod ledger;
pub mod lints;
pub mod model;
pub mod npy;
pub mod parallel;
pub mod progress;
pub mod proof;
pub mod quant_options;
pub mod recall;
pub mod record;
pub mod report;
pub mod schema;
pub mod tokens;
pub mod train;
pub mod tune;
