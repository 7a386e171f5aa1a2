//! `snnc tune`: timesteps site by site within a budget, and the front of what else could be had.

use crate::args::{OnnxArgs, StartArgs, calibration_tokens, share, text_or_ids, threads};
use crate::bar::Bar;
use crate::output::{emit, emit_json, status};
use crate::table::{lines, numbers};
use crate::units::{count, percent};
use clap::Args;
use comfy_table::CellAlignment;
use snnc::file_use::FileUse;
use snnc::model::threads_or_all;
use snnc::quant_options::spelled;
use snnc::tune::{Budget, Goal, Point, TuneOptions, Tuned, tune};
use snnc_ir::diagnostic::Diagnostics;
use std::path::PathBuf;

/// Find the fewest spikes within a budget of perplexity, site by site
#[derive(Args, Debug)]
pub struct TuneCommand {
    /// An ONNX file, or a Hugging Face folder
    model: PathBuf,
    /// Budget: `perplexity+1%`, or `timesteps=4` for a mean number of timesteps per neuron
    #[arg(long, value_name = "BUDGET", default_value = "perplexity+1%", value_parser = budget)]
    budget: Budget,
    /// What to minimise within a budget of perplexity: energy, attention, spikes or timesteps
    #[arg(long, value_name = "GOAL", default_value = "energy", value_parser = goal)]
    minimise: Goal,
    /// Text to measure on. Use another one than you evaluate on later
    #[arg(long, value_name = "FILE", required_unless_present = "tokens")]
    text: Option<PathBuf>,
    /// Token ids instead of a text: a .npy file of integers, [n] or [texts, n]. They are run as they are
    #[arg(long, value_name = "FILE.npy", conflicts_with = "text")]
    tokens: Option<PathBuf>,
    #[command(flatten)]
    start: StartArgs,
    /// Windows to run, spread evenly over the text, of at most 512 tokens [default: 32; fewer for large networks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
    /// Text, or .npy file of token ids, to measure activation ranges on [default: a built-in text]
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Calibration tokens [default: 16384; fewer for networks of more than 90 M weights]
    #[arg(long, value_name = "N", value_parser = calibration_tokens)]
    calibration_tokens: Option<usize>,
    /// Tokens to probe every site on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    probe_tokens: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Threads; the result does not depend on them
    #[arg(short = 't', long, value_name = "N", value_parser = threads)]
    threads: Option<usize>,
    #[command(flatten)]
    onnx: OnnxArgs,
}

fn goal(text: &str) -> Result<Goal, String> {
    let names = || Goal::ALL.map(Goal::name).join(", ");
    let found = Goal::ALL.into_iter().find(|goal| goal.name() == text);
    found.ok_or_else(|| format!("there is no `{text}` to minimise; there are {}", names()))
}

fn budget(text: &str) -> Result<Budget, String> {
    let budget = match (text.strip_prefix("perplexity+"), text.strip_prefix("timesteps=")) {
        (Some(rise), _) => Budget::Perplexity(share(rise)?),
        (_, Some(steps)) => Budget::Timesteps(steps.parse().map_err(|_| format!("`{steps}` is no number"))?),
        _ => return Err("a budget is written perplexity+1% or timesteps=4".into()),
    };
    let (Budget::Perplexity(limit) | Budget::Timesteps(limit)) = budget;
    if limit > 0.0 { Ok(budget) } else { Err("a budget is more than 0".into()) }
}

impl TuneCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        used.reads("--text", &self.text).reads("--tokens", &self.tokens).reads("--calibrate", &self.calibrate)
    }

    /// Whether anything stays within the budget.
    pub fn run(self) -> Result<bool, Diagnostics> {
        let options = TuneOptions {
            model: self.model.clone(),
            onnx: self.onnx.options()?,
            budget: self.budget,
            minimise: self.minimise,
            text: text_or_ids(&self.text, &self.tokens)?.unwrap_or_default(),
            start: self.start.start.clone(),
            windows: self.windows.map(|n| n as usize),
            calibrate: self.calibrate.clone(),
            calibration_tokens: self.calibration_tokens,
            probe_tokens: self.probe_tokens.map(|n| n as usize),
            threads: threads_or_all(self.threads),
        };
        let tuned = tune(&options, &Bar::default())?;
        if self.json {
            emit_json(&tuned.json())?
        } else {
            emit(&table(&tuned))?
        }
        if tuned.chosen.is_none() {
            status("failed: no allocation of up to 8 timesteps stays within the budget");
        }
        Ok(tuned.chosen.is_some())
    }
}

fn table(tuned: &Tuned) -> String {
    let mut table = numbers(&[
        "perplexity",
        "KL, nats",
        "spikes per neuron",
        "mean T",
        "additions per token",
        "paper45 saves, attention",
        "all %",
        "options",
    ]);
    for point in &tuned.points {
        table.add_row(cells(point));
    }
    table.column_iter_mut().last().into_iter().for_each(|last| last.set_cell_alignment(CellAlignment::Left));
    let Some(point) = &tuned.chosen else { return lines(&table) };
    format!(
        "{}\nwithin {}: {:+.3} %, {:.3} spikes per neuron, {:.2} timesteps on average\n  snnc compile MODEL {}\n",
        lines(&table),
        tuned.budget,
        100.0 * point.increase,
        point.spikes,
        point.timesteps,
        spelled(&point.options)
    )
}

fn cells(point: &Point) -> [String; 8] {
    let mark = if point.allocation.is_none() { "uniform: " } else { "" };
    [
        format!("{:+.3} %", 100.0 * point.increase),
        format!("{:.6}", point.kl),
        format!("{:.3}", point.spikes),
        format!("{:.2}", point.timesteps),
        count(point.additions),
        percent(point.savings[0][0]),
        percent(point.savings[0][1]),
        format!("{mark}{}", spelled(&point.options)),
    ]
}
