//! `snnc eval`: perplexity, nearness to the dense network, where the difference comes from, and what is not as it seems.

use crate::args::{EngineArgs, OnnxArgs, StartArgs};
use crate::bar::Bar;
use crate::eval_table::{OneEval, SeveralEvals};
use crate::format::{self, Format, FormatArgs};
use crate::output::{failed, status, warn};
use crate::ranks::{is_first, world};
use crate::shards::{self, ShardArgs};
use clap::Args;
use snnc::eval::{EvalOptions, eval, eval_merged, eval_shard};
use snnc::eval_report::{EvalReport, Gates};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::lints;
use snnc::merge::Shards;
use snnc::model::threads_or_all;
use snnc::option_values::{share, text_or_ids, threads};
use snnc::report;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::{Path, PathBuf};

/// Measure how well a program predicts text, beside the dense network it came from; or several programs of one network
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc eval model.snn --reference model.onnx --text test.txt
  snnc eval t7.snn t4.snn --reference model.onnx --text test.txt --format latex
  snnc eval model.snn --reference model.onnx --text test.txt --max-perplexity-increase 1%")]
pub struct EvalCommand {
    /// The .snn file (or an ONNX file or a folder, to measure the dense network).
    ///
    /// Several files of one network are run on the same windows, beside one run of the reference. What is printed then is a row per
    /// program.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The ONNX file or folder that the program was compiled from, to compare with
    #[arg(long, value_name = "MODEL.onnx")]
    reference: Option<PathBuf>,
    /// Text to predict
    #[arg(long, value_name = "FILE", required_unless_present = "tokens", help_heading = "Text")]
    text: Option<PathBuf>,
    /// Token ids instead of a text: a .npy file of integers, [n] or [texts, n]. They are run as they are
    #[arg(long, value_name = "FILE.npy", conflicts_with = "text", help_heading = "Text")]
    tokens: Option<PathBuf>,
    /// Windows to run, spread evenly over the text [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    windows: Option<u32>,
    /// Tokens from the start of one window to the next. [default: the context's length]
    ///
    /// With a shorter stride windows overlap, and every token is still scored once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Text")]
    stride: Option<u32>,
    /// Measure what every site loses, by cause. This runs the network some hundred times on a few windows
    #[arg(long, requires = "reference", help_heading = "More to measure")]
    ledger: bool,
    /// Tokens that the ledger runs on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", requires = "ledger", value_parser = clap::value_parser!(u32).range(1..), help_heading = "More to measure")]
    ledger_tokens: Option<u32>,
    /// Measure whether the network recalls a pair of tokens seen earlier, at several distances
    #[arg(long, help_heading = "More to measure")]
    recall: bool,
    /// Write the result of one program as an HTML page
    #[arg(long, value_name = "FILE.html", conflicts_with = "shard", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Exit with status 3 if perplexity rises by more than this: `1%` or `0.01`
    #[arg(long, value_name = "SHARE", requires = "reference", value_parser = share, help_heading = "Limits, for exit status 3")]
    max_perplexity_increase: Option<f64>,
    /// Exit with status 3 if the centred cosine of logits is less
    #[arg(long, value_name = "COSINE", requires = "reference", value_parser = cosine, help_heading = "Limits, for exit status 3")]
    min_cosine: Option<f64>,
    /// Exit with status 3 if top-1 agreement is less: `98%` or `0.98`
    #[arg(long, value_name = "SHARE", requires = "reference", value_parser = share, help_heading = "Limits, for exit status 3")]
    min_agreement: Option<f64>,
    /// Exit with status 3 if there are warnings
    #[arg(long, help_heading = "Limits, for exit status 3")]
    deny: bool,
    /// Windows that run at once; the result does not depend on it
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    /// Under mpirun, split the layers between the ranks instead of the windows: for a network that one rank cannot hold
    #[arg(long, conflicts_with_all = ["shard", "ledger", "recall"], help_heading = "Engine")]
    split_layers: bool,
    #[command(flatten)]
    pub shards: ShardArgs,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

fn cosine(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (-1.0..=1.0).contains(number));
    number.ok_or_else(|| format!("`{text}` is no cosine: write a number from -1 to 1, such as 0.999"))
}

impl EvalCommand {
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", &self.models);
        let used = used.reads("--text", &self.text).reads("--tokens", &self.tokens);
        let used = used.reads_models("--reference", &self.reference).writes("--html", &self.html);
        self.engine.files(self.shards.files(used))
    }

    /// Whether every gate held.
    pub fn run(self) -> Result<bool, Diagnostics> {
        if self.html.is_some() && self.models.len() > 1 {
            let message = format!("a page is of one program, and {} are named", self.models.len());
            return Err(Diagnostic::new("--html", message).code(ErrorCode::OPTION).into());
        }
        if let Some((shard, path)) = self.shards.wanted() {
            shards::write(eval_shard(&self.options()?, shard, &Bar::default())?, &path)?;
            return Ok(true);
        }
        let found = eval(&self.options()?, &Bar::default())?;
        self.tell(&found, self.format.format())
    }

    /// The same from shards that were run before.
    pub fn merged(&self, shards: &Shards, format: Format) -> Result<bool, Diagnostics> {
        let found = eval_merged(&self.options()?, shards, &Bar::default())?;
        self.tell(&found, format)
    }

    /// Prints what was found. Whether every gate held.
    fn tell(&self, found: &[EvalReport], format: Format) -> Result<bool, Diagnostics> {
        let mut held = true;
        let named = || self.models.iter().map(|path| path.display().to_string()).zip(found);
        for (name, report) in named() {
            // One program needs no name.
            let of = if found.len() == 1 { String::new() } else { format!("{name}: ") };
            lints::lines(&report.lints).iter().for_each(|line| warn(&format!("{of}{line}")));
            let broken = self.gates().failed(report);
            broken.iter().for_each(|gate| failed(&format!("{of}{gate}")));
            held &= broken.is_empty();
        }
        if let [report] = found {
            self.print(report, format)?;
        } else {
            format::print(&SeveralEvals(named().collect()), format)?;
        }
        Ok(held)
    }

    /// Prints what was found of one program, and writes the page if one is wanted.
    fn print(&self, found: &EvalReport, format: Format) -> Result<(), Diagnostics> {
        if let (Some(path), Some(model), true) = (&self.html, self.models.first(), is_first()) {
            let title = report::file_name(model);
            let options = self.options()?;
            let sources = report::evaluation_sources(
                [model, &options.text],
                options.reference.as_deref(),
                &options.onnx,
                self.command(model, path),
            )?;
            let page = report::page(&report::Report::of_evaluation(&title, found, sources));
            files::write_whole(path, |out| out.write_all(page.as_bytes()))?;
            status(&format!("{}: written", path.display()));
        }
        let name = self.models.first().map_or(String::new(), |model| report::file_name(model));
        format::print(&OneEval { name, found }, format)
    }

    /// The command with file names alone.
    fn command(&self, model: &Path, page: &Path) -> String {
        let mut line = format!("snnc eval {}", report::file_name(model));
        let files = [("--reference", &self.reference), ("--text", &self.text), ("--tokens", &self.tokens)];
        for (flag, path) in files.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?))) {
            line += &format!(" {flag} {}", report::file_name(path));
        }
        for (flag, number) in [("--windows", self.windows), ("--stride", self.stride)] {
            line += &number.map_or(String::new(), |number| format!(" {flag} {number}"));
        }
        if self.ledger {
            line += " --ledger";
        }
        line + &format!(" --html {}", report::file_name(page))
    }

    fn options(&self) -> Result<EvalOptions, Diagnostics> {
        Ok(EvalOptions {
            models: self.models.clone(),
            onnx: self.onnx.options()?,
            reference: self.reference.clone(),
            text: text_or_ids(&self.text, &self.tokens)?.unwrap_or_default(),
            start: self.start.start.clone(),
            windows: self.windows.map(|n| n as usize),
            stride: self.stride.map(|n| n as usize),
            ledger: self.ledger,
            ledger_tokens: self.ledger_tokens.map(|n| n as usize),
            recall: self.recall,
            engine: self.engine.options()?,
            threads: threads_or_all(self.threads),
            ranks: world(),
            split_layers: self.split_layers,
        })
    }

    fn gates(&self) -> Gates {
        Gates {
            max_perplexity_increase: self.max_perplexity_increase,
            min_cosine: self.min_cosine,
            min_agreement: self.min_agreement,
            deny_warnings: self.deny,
        }
    }
}
