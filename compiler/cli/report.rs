//! `snnc report`: a run to look at, as a page. Its options are those of `inspect` as well.

use crate::args::{OnnxArgs, StartArgs, WhichEngine};
use crate::bar::Bar;
use crate::output::{status, warn};
use clap::Args;
use clap::error::ErrorKind;
use snnc::file_use::FileUse;
use snnc::files;
use snnc::model::threads_or_all;
use snnc::option_values::{neuron_choice, price_lists, text_or_ids, threads};
use snnc::report::{self, ReportOptions, TraceChoice, figures, file_name};
use snnc::tokens::start::StartChoice;
use snnc_ir::diagnostic::Diagnostics;
use std::path::{Path, PathBuf};

/// What is to be seen.
#[derive(Args, Debug)]
pub struct Shown {
    /// The .snn file
    #[arg(index = 1)]
    model: PathBuf,
    /// The ONNX file or folder that the program was compiled from.
    ///
    /// It adds the dense network's predictions and the IR after every pass.
    #[arg(long, value_name = "MODEL.onnx")]
    reference: Option<PathBuf>,
    /// Text, or .npy file of token ids, to run. Without it the report shows only the program itself
    #[arg(long, value_name = "FILE", help_heading = "Text")]
    text: Option<PathBuf>,
    /// Tokens to run from the start of the text, at most the context's length; or a .npy file of token ids, as for --text
    #[arg(long, value_name = "N|FILE.npy", default_value = "128", value_parser = shown_tokens, help_heading = "Text")]
    tokens: ShownTokens,
    /// Measure what every site loses, by cause. This runs the network some hundred times on the text
    #[arg(long, requires = "reference", help_heading = "More to measure")]
    ledger: bool,
    /// Tokens that the ledger runs on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", requires = "ledger", value_parser = clap::value_parser!(u32).range(1..), help_heading = "More to measure")]
    ledger_tokens: Option<u32>,
    /// The neuron whose membrane is shown, such as h.0.mlp.hidden:12, or h.0.mlp.hidden:12@5 for token 5. [default: one of the
    /// first MLP that fires at about half of its timesteps]
    #[arg(long, value_name = "SITE[:INDEX][@TOKEN]", value_parser = neuron_choice, help_heading = "More to measure")]
    neuron: Option<TraceChoice>,
    /// A built-in price list, or a TOML file with one; repeatable [default: all built-in lists]
    #[arg(long, value_name = "NAME|FILE.toml", help_heading = "Prices")]
    prices: Vec<String>,
    /// Threads; the report does not depend on them [default: all cores]
    #[arg(short = 't', long, value_name = "N", value_parser = threads, help_heading = "Engine")]
    threads: Option<usize>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: WhichEngine,
}

/// Tokens of a run.
#[derive(Clone, Debug)]
enum ShownTokens {
    /// So many of the text.
    Count(u32),
    /// Those of a file.
    File(PathBuf),
}

/// Tokens of a run where no number is given.
const TOKENS: u32 = 128;

fn shown_tokens(text: &str) -> Result<ShownTokens, String> {
    match text.parse() {
        Ok(0) => Err("a run has one token at least".into()),
        Ok(count) => Ok(ShownTokens::Count(count)),
        Err(_) if text.ends_with(".npy") => Ok(ShownTokens::File(text.into())),
        Err(_) => Err("it is a whole number, or a file that ends in .npy".into()),
    }
}

/// Write a page about a run: network, spikes, levels, energy, errors, predictions and IR
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc report model.snn --text test.txt -o report.html
  snnc report model.snn --text test.txt --reference model.onnx --ledger -o report.html
  snnc report model.snn --text test.txt --figures figures
  snnc report t7.snn t5.snn t4.snn --text test.txt --reference model.onnx -o compared.html

The page is one file. It opens in any browser, without a network.")]
pub struct ReportCommand {
    /// More programs of the same network, which the report compares with the first on the same text
    #[arg(value_name = "MORE", index = 2)]
    others: Vec<PathBuf>,
    /// A file with what `snnc tune --json` printed. It adds the front of perplexity against energy and timesteps
    #[arg(long, value_name = "FILE.json", help_heading = "More to show")]
    tune: Option<PathBuf>,
    /// A file with what `snnc train --json` printed. It adds the losses, and the program before and after training
    #[arg(long, value_name = "FILE.jsonl", help_heading = "More to show")]
    training: Option<PathBuf>,
    /// Also write every figure as SVG, PNG and CSV into this folder, which is made if needed
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    figures: Option<PathBuf>,
    /// Output file [default: the program's name with .html, in the current folder]
    #[arg(short, long, value_name = "FILE.html", help_heading = "Output")]
    output: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
}

impl ReportCommand {
    pub fn files(&self) -> FileUse {
        let used = self.shown.files().reads_models("a program", &self.others);
        let used = used.reads("--tune", &self.tune).reads("--training", &self.training);
        // Which figures there are is known after the run, and looked at again then.
        let figures = self.figures.iter().map(|folder| folder.join("spikes-by-layer.svg"));
        used.writes("-o", [self.output()]).writes_in_folder("--figures", figures)
    }

    fn output(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| files::default_output(&self.shown.model, "html"))
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let output = self.output();
        let mut options = self.shown.options()?;
        options.others.clone_from(&self.others);
        options.tune.clone_from(&self.tune);
        options.training.clone_from(&self.training);
        let mut report = report::build(&options, &Bar::default())?;
        report.provenance.command = self.command(&output);
        let page = report::page(&report);
        if let Some(folder) = &self.figures {
            self.write_figures(&report, folder)?;
        }
        files::write_whole(&output, |out| out.write_all(page.as_bytes()))?;
        status(&format!("{}: {:.2} MB", output.display(), page.len() as f64 / 1e6));
        match report.runs.as_slice() {
            [] => report.worse.iter().for_each(|worse| warn(&format!("{}: {worse}", report.title))),
            runs => {
                runs.iter().for_each(|run| run.worse.iter().for_each(|worse| warn(&format!("{}: {worse}", run.name))))
            }
        }
        Ok(())
    }

    /// Writes the figures, if none of their files is one that was read.
    fn write_figures(&self, report: &report::Report, folder: &Path) -> Result<(), Diagnostics> {
        let figures = figures::all(report);
        let paths = figures.iter().flat_map(|figure| figures::paths(figure, folder));
        self.shown
            .files()
            .reads("--tune", &self.tune)
            .reads("--training", &self.training)
            .writes_in_folder("--figures", paths)
            .check()?;
        let bar = Bar::default();
        figures::write(&figures, folder, &bar)?;
        status(&format!("{}: {} figures as SVG, PNG and CSV", folder.display(), figures.len()));
        Ok(())
    }

    /// The command with file names alone.
    fn command(&self, output: &Path) -> String {
        let mut end = String::new();
        for (flag, path) in [("--tune", &self.tune), ("--training", &self.training), ("--figures", &self.figures)] {
            end += &path.as_deref().map_or(String::new(), |path| format!(" {flag} {}", file_name(path)));
        }
        let line = self.shown.command("report", &format!("{end} -o {}", file_name(output)));
        let more: String = self.others.iter().map(|path| format!(" {}", file_name(path))).collect();
        let first = format!("snnc report {}", file_name(&self.shown.model));
        line.replacen(&first, &format!("{first}{more}"), 1)
    }
}

impl Shown {
    /// The file of token ids, where one is named.
    fn ids(&self) -> Option<PathBuf> {
        match &self.tokens {
            ShownTokens::Count(_) => None,
            ShownTokens::File(path) => Some(path.clone()),
        }
    }

    /// How many tokens are run, at most.
    fn count(&self) -> u32 {
        match self.tokens {
            ShownTokens::Count(count) => count,
            ShownTokens::File(_) => TOKENS,
        }
    }

    /// The files that these options name.
    pub fn files(&self) -> FileUse {
        let used = self.onnx.files(FileUse::default()).reads_models("the model", [&self.model]);
        let used = used.reads("--text", &self.text).reads("--tokens", self.ids());
        used.reads_models("--reference", &self.reference).reads("--prices", &self.prices)
    }

    /// All that is to be seen.
    pub fn report(&self) -> Result<report::Report, Diagnostics> {
        report::build(&self.options()?, &Bar::default())
    }

    fn options(&self) -> Result<ReportOptions, Diagnostics> {
        let ids = self.ids();
        if self.text.is_some() && ids.is_some() {
            let message = "--tokens names token ids and --text a text; leave one of them out\n";
            clap::Error::raw(ErrorKind::ArgumentConflict, message).exit();
        }
        if self.ledger && self.text.is_none() && ids.is_none() {
            let message = "--ledger needs a text to run: --text FILE\n";
            clap::Error::raw(ErrorKind::MissingRequiredArgument, message).exit();
        }
        if self.neuron.is_some() && self.text.is_none() && ids.is_none() {
            let message = "--neuron needs a text to run: --text FILE\n";
            clap::Error::raw(ErrorKind::MissingRequiredArgument, message).exit();
        }
        Ok(ReportOptions {
            model: self.model.clone(),
            others: Vec::new(),
            tune: None,
            training: None,
            neuron: Some(self.neuron.clone().unwrap_or_default()),
            onnx: self.onnx.options()?,
            text: text_or_ids(&self.text, &ids)?,
            start: self.start.start.clone(),
            tokens: self.count() as usize,
            reference: self.reference.clone(),
            ledger: self.ledger,
            ledger_tokens: self.ledger_tokens.map(|n| n as usize),
            lists: price_lists(&self.prices)?,
            engine: self.engine.options(),
            threads: threads_or_all(self.threads),
        })
    }

    /// The command with file names alone.
    pub fn command(&self, name: &str, end: &str) -> String {
        let mut line = format!("snnc {name} {}", file_name(&self.model));
        let mut file = |flag: &str, path: &Option<PathBuf>| {
            if let Some(path) = path {
                line += &format!(" {flag} {}", file_name(path));
            }
        };
        file("--text", &self.text);
        file("--tokens", &self.ids());
        file("--reference", &self.reference);
        if self.start.start != StartChoice::Auto {
            line += &format!(" --start {}", self.start.start);
        }
        if self.text.is_some() {
            line += &format!(" --tokens {}", self.count());
        }
        if let Some(neuron) = &self.neuron {
            line += &format!(" --neuron {neuron}");
        }
        for list in &self.prices {
            line += &format!(" --prices {}", file_name(Path::new(list)));
        }
        if self.ledger {
            line += " --ledger";
        }
        if let Some(tokens) = self.ledger_tokens {
            line += &format!(" --ledger-tokens {tokens}");
        }
        line + end
    }
}
