//! A run to look at: one set of data, of which `inspect` prints the essentials and `report` makes a page.
//!
//! `Report` is all there is to see, as plain data; what a command was not given the files for is absent from it and listed in
//! `missing`. Nothing in it depends on clocks, threads, engines or the folder that files lie in: the same input gives the
//! same bytes.

mod blocks;
mod build;
mod compare;
mod contents;
pub mod figures;
mod inputs;
mod page;
mod passes;
mod raster;
mod run;
mod runs;
mod trace;

pub use blocks::{Conversion, ReportBlock, blocks};
pub use build::{ReportOptions, build, evaluation_sources};
pub use contents::{
    AttentionKeys, CalibrationFacts, FileFacts, Missing, NetworkFacts, NetworkPart, Report, ReportSources, file_name,
};
pub use inputs::TrainingCurve;
pub use page::{escaped, filled, in_script, page};
pub use passes::{Passes, StageText, passes, run_again};
pub use raster::{Histogram, Raster, ReportLayer};
pub use run::{Gathered, Prediction, RankedToken, TokenRanking, gather};
pub use runs::{RunEnergy, RunLayer, RunSummary};
pub use trace::{NeuronTrace, TraceChoice, TraceStep, trace};
