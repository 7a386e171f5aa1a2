//! `snnc energy`: what a run costs, dense beside spiking.

use super::{EngineArgs, Loaded, print, print_json, program, threads};
use crate::evaluate::{Cut, evaluate};
use crate::{Complaints, energy, files};
use clap::Args;
use snnc_ir::{Diagnostic, Stage};
use std::path::PathBuf;

/// Estimate operations and energy by layer, from the spikes of a run on text
#[derive(Args, Debug)]
pub struct Energy {
    /// The .snn file
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Windows of the context's length, spread evenly over the text
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    windows: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Windows that run at once; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Energy {
    pub fn run(self) -> Result<(), Complaints> {
        let loaded = Loaded::read(&self.model)?;
        if loaded.input.graph.stage != Stage::Spiking {
            let message = "is a dense network, which has no spikes to count; compile it first";
            return Err(vec![Diagnostic::new(self.model.display().to_string(), message)]);
        }
        let tokens = loaded.tokens(&self.model)?;
        let text = files::read_text(&self.text).map_err(|e| vec![e])?;
        let ids = tokens.document(&text).map_err(|e| vec![e])?;
        let program = program(loaded.input, &self.engine, true)?;
        let done = evaluate(
            &program,
            None,
            &ids,
            Cut { stride: None, windows: self.windows as usize },
            threads(self.threads),
        )?;
        let estimate = energy::estimate(program.graph(), done.run, &done.events);
        if self.json { print_json(&estimate.json()) } else { print(&estimate.table()) }
    }
}
