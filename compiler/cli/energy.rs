//! `snnc energy`: what a network costs on text, dense beside spiking, by several price lists.

use crate::args::{OnnxArgs, StartArgs, WhichEngine};
use crate::bar::Bar;
use crate::energy_table::Costs;
use crate::format::{self, Format, FormatArgs};
use crate::ranks::world;
use crate::shards::{self, ShardArgs};
use clap::Args;
use snnc::energy::Estimate;
use snnc::energy::run::{EnergyOptions, energy, energy_merged, energy_shard};
use snnc::file_use::FileUse;
use snnc::merge::Shards;
use snnc::model::threads_or_all;
use snnc::option_values::{ENERGY_BATCH_MAX, firing_rate, price_lists, text_or_ids, threads};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::verify::CONTEXT_MAX;
use snnc_passes::cost::Rate;
use std::path::PathBuf;

/// Estimate operations, memory traffic and energy by layer, from the spikes of a run on text
///
/// Counts are exact and the same for every engine.
/// Prices come from the literature. `--json` prints each with its source.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc energy model.snn --text test.txt
  snnc energy model.snn --text test.txt --prices int45 --format csv > energy.csv")]
pub struct EnergyCommand {
    /// The .snn file
    model: PathBuf,
    /// Text to run.
    ///
    /// Without it, neurons are assumed to fire at the rates of the calibration text, and every key is assumed to be read.
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    text: Option<PathBuf>,
    /// Token ids instead of a text: a .npy file of integers, [n] or [texts, n]. They are run as they are
    #[arg(long, value_name = "FILE.npy", conflicts_with = "text", help_heading = "Text")]
    tokens: Option<PathBuf>,
    /// Assume this many spikes per neuron and token. `2.5,0.9` also gives the share of neurons that fire at all
    #[arg(long, value_name = "SPIKES[,SHARE]", value_parser = firing_rate, allow_negative_numbers = true, conflicts_with_all = ["text", "tokens"], help_heading = "Text")]
    firing_rate: Option<Rate>,
    /// Tokens per window: prefill reads them, decoding starts after them [default: the network's context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTEXT_MAX)), help_heading = "Text")]
    context: Option<u32>,
    /// Windows, spread evenly over the text
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    windows: u32,
    /// Sequences that share a pass over the weights
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(ENERGY_BATCH_MAX)), help_heading = "Text")]
    batch: u32,
    /// A built-in price list, or a TOML file with one; repeatable. [default: all built-in lists]
    ///
    /// The table by layer uses the first list.
    #[arg(long, value_name = "NAME|FILE", help_heading = "Prices")]
    prices: Vec<String>,
    /// Print all tables: by layer and part, by every list, break-even and sensitivity
    #[arg(long, help_heading = "Output")]
    full: bool,
    /// Windows that run at once; the result does not depend on it
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    #[command(flatten)]
    pub shards: ShardArgs,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: WhichEngine,
}

impl EnergyCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        let used = used.reads("--text", &self.text).reads("--tokens", &self.tokens).reads("--prices", &self.prices);
        self.shards.files(used)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let (options, bar) = (self.options()?, Bar::default());
        match self.shards.wanted() {
            Some((shard, path)) => shards::write(energy_shard(&options, shard, &bar)?, &path),
            None => self.print(energy(&options, &bar)?, self.format.format()),
        }
    }

    /// The same from shards that were run before.
    pub fn merged(&self, shards: &Shards, format: Format, bar: &Bar) -> Result<(), Diagnostics> {
        self.print(energy_merged(&self.options()?, shards, bar)?, format)
    }

    fn print(&self, estimate: Estimate, format: Format) -> Result<(), Diagnostics> {
        format::print(&Costs { estimate, full: self.full }, format)
    }

    fn options(&self) -> Result<EnergyOptions, Diagnostics> {
        Ok(EnergyOptions {
            model: self.model.clone(),
            onnx: self.onnx.options()?,
            text: text_or_ids(&self.text, &self.tokens)?,
            start: self.start.start.clone(),
            firing_rate: self.firing_rate,
            context: self.context,
            windows: self.windows as usize,
            batch: self.batch.into(),
            lists: price_lists(&self.prices)?,
            engine: self.engine.options(),
            threads: threads_or_all(self.threads),
            ranks: world(),
        })
    }
}
