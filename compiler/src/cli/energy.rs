//! `snnc energy`: what a network costs on text, dense beside spiking, by several price lists.

use super::{EngineArgs, Loaded, WhichEngine, print, print_json, program, threads};
use crate::energy::measure::Windows;
use crate::energy::{PriceList, Setting, estimate, measure};
use crate::{Complaints, files};
use clap::Args;
use snnc_ir::{Diagnostic, Stage};
use std::path::PathBuf;

/// Estimate operations, memory traffic and energy by layer, from the spikes of a run on text
///
/// Counts are exact and the same for every engine. Prices are of the literature, each with its source: `--json` prints them.
#[derive(Args, Debug)]
pub struct Energy {
    /// The .snn file
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a window: prefill reads that many, decoding comes after them [default: the network's context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
    /// Windows, spread evenly over the text
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    windows: u32,
    /// Sequences that share a pass over the weights
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// A price list that snnc has, or a TOML file with one; may be repeated. The first is that of the table by layer
    /// [default: all that snnc has]
    #[arg(long, value_name = "NAME|FILE")]
    prices: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: WhichEngine,
    /// Windows that run at once; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Energy {
    pub fn run(self) -> Result<(), Complaints> {
        let lists = lists(&self.prices)?;
        let loaded = Loaded::read(&self.model)?;
        let place = self.model.display().to_string();
        if loaded.input.graph.stage != Stage::Spiking {
            let message = "is a dense network, which has no spikes to count; compile it first";
            return Err(vec![Diagnostic::new(place, message)]);
        }
        let most = loaded.input.graph.context;
        let context = self.context.unwrap_or(most);
        if context > most {
            let message = format!("--context {context} is more than the network's context of {most}");
            return Err(vec![Diagnostic::new(place, message)]);
        }
        let tokens = loaded.tokens(&self.model)?;
        let text = files::read_text(&self.text).map_err(|e| vec![e])?;
        let ids = tokens.document(&text).map_err(|e| vec![e])?;
        let engine = EngineArgs { which: self.engine, prices: None };
        let program = program(loaded.input, &engine, true)?;
        let windows = Windows { length: context as usize, count: self.windows as usize };
        let (activity, _) = measure(&program, &ids, windows, threads(self.threads))?;
        let setting =
            Setting { context: context.into(), batch: self.batch.into(), span: program.options().chunk as u64 };
        let shown = lists[0].clone();
        let estimate = estimate(program.graph(), &activity, setting, lists);
        if self.json { print_json(&estimate.json()) } else { print(&estimate.table(&shown)) }
    }
}

/// The price lists of these names or files, or all that are built in.
pub(super) fn lists(named: &[String]) -> Result<Vec<PriceList>, Complaints> {
    if named.is_empty() {
        return Ok(PriceList::built_in());
    }
    let (mut lists, mut complaints) = (Vec::new(), Complaints::new());
    for name in named {
        match PriceList::named(name) {
            Ok(list) if lists.iter().any(|other: &PriceList| other.name == list.name) => {
                let message = format!("is called `{}` as another list is; give it a name of its own", list.name);
                complaints.push(Diagnostic::new(name, message));
            }
            Ok(list) => lists.push(list),
            Err(more) => complaints.extend(more),
        }
    }
    if complaints.is_empty() { Ok(lists) } else { Err(complaints) }
}
