//! `snnc energy`: what a network costs on text, dense beside spiking, by several price lists.

use crate::args::{WhichEngine, price_lists};
use crate::bar::Bar;
use crate::output::{emit, emit_json, status};
use clap::Args;
use serde_json::Value as Json;
use snnc::energy::measure::{Windows, expected};
use snnc::energy::{Estimate, Setting, estimate, measure};
use snnc::model::{EngineOptions, Loaded, threads_or_all};
use snnc::progress::Workers;
use snnc::{Complaints, files};
use snnc_ir::{Diagnostic, Stage};
use snnc_passes::cost::Rate;
use snnc_runtime::Options;
use std::path::PathBuf;

/// Estimate operations, memory traffic and energy by layer, from the spikes of a run on text
///
/// Counts are exact and the same for every engine. Prices are of the literature, each with its source: `--json` prints them.
#[derive(Args, Debug)]
pub struct Energy {
    /// The .snn file
    model: PathBuf,
    /// The text; without it, neurons are expected to fire as they did on the calibration text, and every key to be read
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Expect this many spikes a neuron and token instead; `2.5,0.9`: of which so large a share fires at all
    #[arg(long, value_name = "SPIKES[,SHARE]", value_parser = rate, conflicts_with = "text")]
    rate: Option<Rate>,
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
        let lists = price_lists(&self.prices)?;
        let loaded = Loaded::read(&self.model)?;
        let place = self.model.display().to_string();
        if loaded.source.graph.stage != Stage::Spiking {
            let message = "is a dense network, which has no spikes to count; compile it first";
            return Err(Diagnostic::new(place, message).into());
        }
        let most = loaded.source.graph.context;
        let context = self.context.unwrap_or(most);
        if context > most {
            let message = format!("--context {context} is more than the network's context of {most}");
            return Err(Diagnostic::new(place, message).into());
        }
        let setting =
            Setting { context: context.into(), batch: self.batch.into(), span: Options::default().chunk as u64 };
        let shown = lists[0].clone();
        let estimate = match &self.text {
            Some(text) => {
                let tokens = loaded.tokens()?;
                let text = files::read_text(text)?;
                let ids = tokens.document(&text)?;
                let program = loaded.source.program(&EngineOptions { count: true, ..self.engine.options() })?;
                let windows = Windows { length: context as usize, count: self.windows as usize };
                let (activity, _) = measure(
                    &program,
                    &ids,
                    windows,
                    Workers { threads: threads_or_all(self.threads), progress: &Bar::default() },
                )?;
                estimate(program.graph(), &activity, setting, lists)
            }
            None => {
                let section =
                    loaded.calibration.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
                let graph = &loaded.source.graph;
                let activity = expected(graph, section.as_ref(), self.rate, setting.context)
                    .map_err(|complaints| files::at(&self.model, complaints))?;
                status("no text: rates are expected, not measured, and every key is taken to be read");
                Estimate { measured: false, ..estimate(graph, &activity, setting, lists) }
            }
        };
        if self.json { emit_json(&estimate.json()) } else { emit(&estimate.table(&shown)) }
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    let (spikes, active) = text.split_once(',').map_or((text, None), |(spikes, active)| (spikes, Some(active)));
    let spikes = number(spikes).ok_or_else(|| format!("`{spikes}` is no number of spikes"))?;
    let active = match active {
        None => spikes.min(1.0),
        Some(text) => number(text).filter(|share| *share <= 1.0).ok_or_else(|| format!("`{text}` is no share of 1"))?,
    };
    if active > spikes { Err("who fires at all spikes once at least".into()) } else { Ok(Rate { spikes, active }) }
}
