//! The edge of snnc: ONNX files, `.snn` files, text, the command line, words to people.
//!
//! `convert` is the whole compiler as one function; `cli` is one file a subcommand. Only this crate prints.

use snnc_ir::diagnostic::Diagnostics;

pub mod bench;
pub mod calibrate;
pub mod calibration;
pub mod cli;
pub mod convert;
pub mod describe;
pub mod energy;
pub mod evaluate;
pub mod files;
pub mod findings;
pub mod hybrid;
pub mod ledger;
pub mod lints;
pub mod npy;
pub mod opt;
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
