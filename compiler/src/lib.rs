//! The edge of snnc: ONNX files, `.snn` files, text.
//!
//! `convert` is the whole compiler as one function. The command `snnc` stands in `cli/`, behind the feature `cli`; it reads
//! options, calls this library, and prints.

use snnc_ir::diagnostic::Diagnostics;

pub mod bench;
pub mod calibrate;
pub mod calibration;
pub mod convert;
pub mod describe;
pub mod energy;
pub mod evaluate;
pub mod files;
pub mod findings;
pub mod generate;
pub mod hybrid;
pub mod ledger;
pub mod lints;
pub mod model;
pub mod npy;
pub mod parallel;
pub mod prices;
pub mod progress;
pub mod proof;
pub mod recall;
pub mod report;
pub mod tokens;
pub mod train;
pub mod tune;

/// What can go wrong with somebody's input: everything that was found.
pub type Complaints = Diagnostics;
