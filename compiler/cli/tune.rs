//! `snnc tune`: timesteps site by site within a budget, and the front of what else could be had.

use crate::args::{OnnxArgs, StartArgs};
use crate::bar::Bar;
use crate::format::{self, Figures, FormatArgs};
use crate::output::{failed, status};
use crate::ranks::{is_first, world};
use crate::table::Grid;
use crate::units::{count, percent, si};
use clap::Args;
use serde_json::Value as Json;
use snnc::compile::compile;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::model::threads_or_all;
use snnc::option_values::{budget, calibration_tokens, goal, text_or_ids, threads};
use snnc::quant_options::spelled;
use snnc::recipe::CompileRecipe;
use snnc::run_record::RunRecord;
use snnc::schema::document;
use snnc::tune::{Budget, Goal, Point, TuneOptions, Tuned, tune};
use snnc_ir::diagnostic::Diagnostics;
use std::path::PathBuf;

/// Find the fewest spikes within a budget of perplexity, site by site
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc tune model.onnx --text valid.txt -o model.snn
  snnc tune model.onnx --text valid.txt --budget timesteps=4 --save recipe.toml --resume tune.jsonl")]
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
    #[arg(long, value_name = "FILE", required_unless_present = "tokens", help_heading = "Text")]
    text: Option<PathBuf>,
    /// Token ids instead of a text: a .npy file of integers, [n] or [texts, n]. They are run as they are
    #[arg(long, value_name = "FILE.npy", conflicts_with = "text", help_heading = "Text")]
    tokens: Option<PathBuf>,
    /// Windows to run, spread evenly over the text, of at most 512 tokens [default: 32; fewer for large networks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    windows: Option<u32>,
    /// Text, or .npy file of token ids, to measure activation ranges on [default: a built-in text]
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    calibrate: Option<PathBuf>,
    /// Calibration tokens [default: 16384; fewer for networks of more than 90 M weights]
    #[arg(long, value_name = "N", value_parser = calibration_tokens, help_heading = "Text")]
    calibration_tokens: Option<usize>,
    /// Tokens to probe every site on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    probe_tokens: Option<u32>,
    /// Compile what was chosen, and write it here
    #[arg(short, long, value_name = "FILE.snn", help_heading = "Output")]
    output: Option<PathBuf>,
    /// Write what was chosen as a recipe, for `snnc compile --recipe`
    #[arg(long, value_name = "FILE.toml", help_heading = "Output")]
    save: Option<PathBuf>,
    /// Keep every measurement in this file, and go on from those that it holds
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    resume: Option<PathBuf>,
    /// Threads; the result does not depend on them
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
}

impl TuneCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        let used =
            used.reads("--text", &self.text).reads("--tokens", &self.tokens).reads("--calibrate", &self.calibrate);
        used.writes("-o", &self.output).writes("--save", &self.save).writes("--resume", &self.resume)
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
            ranks: world(),
            journal: self.resume.clone(),
        };
        let tuned = tune(&options, &Bar::default())?;
        // Who waits for hours has the files, whatever becomes of the table.
        if let Some(point) = tuned.chosen.as_ref().filter(|_| is_first()) {
            self.keep(point, &options)?;
        }
        format::print(&tuned, self.format.format())?;
        if tuned.chosen.is_none() {
            failed("no allocation of up to 8 timesteps stays within the budget");
        }
        Ok(tuned.chosen.is_some())
    }
}

impl TuneCommand {
    /// Writes the files that were asked for.
    fn keep(&self, point: &Point, options: &TuneOptions) -> Result<(), Diagnostics> {
        if let Some(path) = &self.save {
            let text = CompileRecipe::of(point, options).text();
            files::write_whole(path, |out| out.write_all(text.as_bytes()))?;
            status(&format!("{}: a recipe for `snnc compile MODEL --recipe`", path.display()));
        }
        let Some(path) = &self.output else { return Ok(()) };
        let compiled = compile(&options.compile(point), &Bar::default(), &mut |_, _| {})?;
        let bytes = compiled.write(path)?;
        status(&format!("{}: {}, {}", path.display(), si(bytes as f64, "B"), compiled.options));
        Ok(())
    }
}

impl Figures for Tuned {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        document(&Tuned::json(self), run)
    }

    fn text(&self) -> String {
        let text = grid(self).text();
        let Some(point) = &self.chosen else { return text };
        format!(
            "{text}\nwithin {}: {:+.3} %, {:.3} spikes per neuron, mean T {:.2}, by\n{}\n",
            self.budget,
            100.0 * point.increase,
            point.spikes,
            point.timesteps,
            spelled(&point.options)
        )
    }

    fn grids(&self) -> Vec<Grid> {
        vec![grid(self)]
    }

    fn rows(&self, json: &Json) -> Vec<Json> {
        json["points"].as_array().cloned().unwrap_or_default()
    }
}

/// A row per measured allocation, the least rise of perplexity first.
fn grid(tuned: &Tuned) -> Grid {
    let caption = format!("Allocations of timesteps that were measured for the budget {}.", tuned.budget);
    let header = ["allocation", "rise, %", "KL, nats", "spikes", "mean T", "additions", "paper45, %", "int45, %"];
    let mut grid = Grid::new(caption, &header);
    for point in &tuned.points {
        let chosen = tuned.chosen.as_ref().is_some_and(|chosen| spelled(&chosen.options) == spelled(&point.options));
        grid.rows.push(cells(point, chosen));
    }
    grid
}

fn cells(point: &Point, chosen: bool) -> Vec<String> {
    let name = match (&point.allocation, chosen) {
        (_, true) => "chosen".into(),
        (None, _) => format!("T = {}", point.options.levels.steps),
        (Some(_), _) => "by site".into(),
    };
    vec![
        name,
        format!("{:+.3}", 100.0 * point.increase),
        format!("{:.6}", point.kl),
        format!("{:.3}", point.spikes),
        format!("{:.2}", point.timesteps),
        count(point.additions),
        percent(point.savings[0][1]),
        percent(point.savings[1][1]),
    ]
}
