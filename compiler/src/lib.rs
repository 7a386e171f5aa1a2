//! snnc as a library: ONNX files and Hugging Face folders to spiking programs, and what such a program does and costs.
//!
//! Whatever the command `snnc` does is a function here. Each takes an options struct and a [`progress::Progress`], which is told
//! how far the work is and may stop it:
//!
//! | to do | function |
//! |---|---|
//! | check an ONNX file or a folder | [`check::check`] |
//! | compile it | [`compile::compile`] |
//! | write text | [`generate::generate`] |
//! | evaluate | [`eval::eval`] |
//! | estimate energy | [`energy::run::energy`] |
//! | see the IR and machine code | [`explore::build`], [`explore::page`] |
//! | make a report | [`report::build`], [`report::page`] |
//! | train | [`train::train`] |
//! | find cheap timesteps | [`tune::tune`] |
//! | measure speed | [`bench::bench`] |
//!
//! ```no_run
//! use snnc::compile::{CompileOptions, compile};
//! use snnc::eval::{EvalOptions, eval};
//! use snnc::progress::Silent;
//!
//! # fn main() -> Result<(), snnc_ir::Diagnostics> {
//! let compiled = compile(&CompileOptions::new("model.onnx".as_ref()), &Silent, &mut |_, _| {})?;
//! compiled.write("model.snn".as_ref())?;
//! for report in eval(&EvalOptions::new("model.snn".as_ref(), "text.txt".as_ref()), &Silent)? {
//!     println!("perplexity {}", report.done.score.perplexity());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The command itself is the crate in `cli/`. It reads options, calls this library, and prints.

#![warn(missing_docs)]

pub mod bench;
pub mod calibrate;
pub mod calibration;
pub mod chat;
pub mod check;
pub mod compile;
pub mod convert;
pub mod describe;
pub mod energy;
pub mod eval;
pub mod eval_report;
pub mod evaluate;
pub mod exact;
pub mod explore;
pub mod export;
pub mod file_use;
pub mod files;
pub mod first_token;
pub mod front;
pub mod generate;
pub mod id_file;
pub mod kernel_costs;
pub mod ledger;
pub mod lints;
pub mod memory_budget;
pub mod merge;
pub mod model;
pub mod moment_groups;
pub mod nir;
pub mod npy;
pub mod opt;
pub mod option_values;
pub mod parallel;
pub mod part;
pub mod part_file;
pub mod program_lints;
pub mod progress;
pub mod proof;
pub mod quant_options;
pub mod ranks;
pub mod reading;
pub mod recall;
pub mod recipe;
pub mod record;
pub mod recording;
pub mod report;
pub mod rotation;
pub mod run_record;
pub mod schema;
pub mod score;
pub mod shard;
pub mod shared_model;
pub mod sliding;
pub mod spikes;
pub mod spill_files;
pub mod split_layers;
pub mod stages;
pub mod texts;
pub mod tokens;
pub mod train;
pub mod tune;
pub mod verify_run;
