//! `snnc report`: a run to look at, as a page. What is to be seen is gathered here, for `inspect` as well.

use crate::args::{WhichEngine, price_lists};
use crate::bar::Bar;
use crate::output::status;
use clap::Args;
use serde_json::{Value as Json, json};
use snnc::Complaints;
use snnc::calibration::Calibration;
use snnc::convert::{self, vocabulary};
use snnc::energy::{Setting, estimate};
use snnc::evaluate::Neurons;
use snnc::files::{self, Model};
use snnc::findings::Findings;
use snnc::ledger::{self, Ledger};
use snnc::lints::{coverage, lints};
use snnc::model::{Loaded, Source, threads_or_all};
use snnc::progress::Workers;
use snnc::report::{self, Facts, Gathered, Missing, Origin, Provenance, blocks, file_name, gather, passes};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, Stage};
use snnc_passes::collapse;
use snnc_runtime::{Engine, Options};
use std::path::{Path, PathBuf};

/// What is to be seen.
#[derive(Args, Debug)]
pub struct Shown {
    /// The .snn file
    model: PathBuf,
    /// Text to run; without it only the program itself is shown
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of the text to run, from its start; at most the context's
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// The ONNX file that the program came from: predictions beside the dense network's, and the IR by pass
    #[arg(long, value_name = "MODEL.onnx")]
    against: Option<PathBuf>,
    /// Say what every site loses, by cause; runs the network some hundred times on the text
    #[arg(long, requires_all = ["against", "text"])]
    ledger: bool,
    /// Tokens that the ledger runs on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", requires = "ledger", value_parser = clap::value_parser!(u32).range(1..))]
    ledger_tokens: Option<u32>,
    /// A price list of energy, built in or a file, instead of all that are built in; repeatable
    #[arg(long, value_name = "NAME|FILE.toml")]
    prices: Vec<String>,
    #[command(flatten)]
    engine: WhichEngine,
    /// Threads; nothing that is shown depends on them [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Make a page of a run to look at: network, spikes, levels, energy, errors, predictions and IR
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc report model.snn --text test.txt -o report.html
  snnc report model.snn --text test.txt --against model.onnx --ledger -o report.html

The page is one file without references to others: it opens anywhere, without a network.")]
pub struct Report {
    #[command(flatten)]
    shown: Shown,
    /// Where the page goes [default: the program's name with .html, in this folder]
    #[arg(short, long, value_name = "FILE.html")]
    output: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> Result<(), Complaints> {
        let named = || PathBuf::from(self.shown.model.file_stem().unwrap_or_default()).with_extension("html");
        let output = self.output.clone().unwrap_or_else(named);
        files::check_writable(&output)?;
        let mut report = self.shown.report()?;
        report.provenance.command = self.shown.command("report", &format!(" -o {}", file_name(&output)));
        let page = report::page(&report);
        files::write_whole(&output, |out| out.write_all(page.as_bytes()))?;
        status(&format!("{}: {:.2} MB", output.display(), page.len() as f64 / 1e6));
        Ok(())
    }
}

/// A program with what its file says of it, and the dense network beside it.
struct Pair {
    program: Graph,
    section: Option<Vec<u8>>,
    dense: Option<Source>,
    own_embedding: bool,
}

impl Shown {
    /// All that is to be seen.
    pub fn report(&self) -> Result<report::Report, Complaints> {
        let loaded = Loaded::read(&self.model)?;
        if loaded.source.graph.stage != Stage::Spiking {
            let message = "is a dense network, which has no spikes to show";
            let complaint = Diagnostic::new(self.model.display().to_string(), message).note("compile it first");
            return Err(complaint.into());
        }
        let compiled: Option<Json> = loaded.provenance.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let mut provenance = Provenance {
            snnc: env!("CARGO_PKG_VERSION").into(),
            program: Some(origin(&self.model)?),
            calibration: loaded.calibration.as_deref().and_then(calibrated),
            ..Provenance::default()
        };
        let (dense, source) = self.dense()?;
        if let (Some(source), Some(path)) = (&source, &self.against) {
            let known = compiled.as_ref().and_then(|json| json["source"]["xxh3"].as_str());
            provenance.dense_is_source = known.map(|known| known == source.xxh3);
            if provenance.dense_is_source == Some(false) {
                status(&format!("warning: {} is not the file that the program was compiled from", path.display()));
            }
        }
        provenance.dense = source;
        let own_embedding =
            compiled.as_ref().and_then(|json| json["options"].as_str()).is_some_and(|o| o.contains("--embedding own"));
        provenance.compiled = compiled;
        let tokens = self.text.as_ref().map(|_| loaded.tokens()).transpose()?;
        let pair = Pair { program: loaded.source.graph, section: loaded.calibration, dense, own_embedding };
        self.same_vocabulary(&pair)?;
        // What is wrong in a list shows before long work.
        price_lists(&self.prices)?;
        let mut report = report::Report {
            title: file_name(&self.model),
            network: Some(Facts::of(&pair.program)),
            blocks: Vec::new(),
            findings: None,
            layers: Vec::new(),
            predictions: Vec::new(),
            energy: None,
            passes: None,
            missing: Vec::new(),
            provenance,
        };
        if let (Some(path), Some(tokens)) = (&self.text, &tokens) {
            let text = files::read_text(path)?;
            report.provenance.text = Some(Origin::of(path, text.as_bytes()));
            let ids = tokens.document(&text)?;
            let words = text.split_whitespace().count().max(1);
            let ratio = ids.len().saturating_sub(1) as f64 / words as f64;
            self.run_on(&pair, &ids, tokens, ratio, &mut report)?;
        }
        let tensor = match &pair.dense {
            Some(Source { graph, rounded }) => Some(convert::dense(graph.clone(), *rounded, &mut |_, _, _| {})?),
            None => None,
        };
        report.blocks = blocks(&pair.program, tensor.as_ref());
        let dense = pair.dense.map(|Source { graph, rounded }| (graph, rounded));
        report.passes = Some(passes(&pair.program, dense, pair.section.as_deref(), pair.own_embedding)?);
        self.missing(&mut report);
        Ok(report)
    }

    /// The dense network, and what file it is.
    fn dense(&self) -> Result<(Option<Source>, Option<Origin>), Complaints> {
        let Some(path) = &self.against else { return Ok((None, None)) };
        match files::load(path)? {
            Model::Onnx(import) => {
                let of = &import.origin;
                let source = Origin { name: file_name(path), bytes: of.bytes, xxh3: format!("{:016x}", of.hash) };
                Ok((Some(Source { graph: import.graph, rounded: import.rounds_activations }), Some(source)))
            }
            Model::Snn(_) => {
                let message = "is a compiled program, where an ONNX file was expected";
                Err(Diagnostic::new(path.display().to_string(), message).into())
            }
        }
    }

    fn same_vocabulary(&self, pair: &Pair) -> Result<(), Complaints> {
        let (Some(path), Some(dense)) = (&self.against, &pair.dense) else { return Ok(()) };
        let (own, other) = (vocabulary(&pair.program)?, vocabulary(&dense.graph)?);
        if own == other {
            return Ok(());
        }
        let message = format!("has a vocabulary of {other}, {} one of {own}", self.model.display());
        let note = "compare with the file that the program was compiled from";
        Err(Diagnostic::new(path.display().to_string(), message).note(note).into())
    }

    /// Runs the program on the text and puts what was seen into the report.
    fn run_on(
        &self,
        pair: &Pair,
        ids: &[u32],
        tokens: &snnc::tokens::Tokens,
        tokens_a_word: f64,
        report: &mut report::Report,
    ) -> Result<(), Complaints> {
        let most = (self.tokens as usize).min(pair.program.context as usize);
        let shown = &ids[..ids.len().min(most + 1)];
        report.provenance.tokens = Some([shown.len().saturating_sub(1), ids.len().saturating_sub(1)]);
        let graph = if self.engine.stepped || collapse::depends_on_order(&pair.program) {
            pair.program.clone()
        } else {
            collapse::collapse(&pair.program)?
        };
        let which = WhichEngine { interpret: self.engine.interpret, ..WhichEngine::default() };
        let dense = pair.dense.clone().map(|source| source.program(&which.options())).transpose()?;
        let engine = if self.engine.interpret { Engine::Interpreter } else { Engine::Jit };
        let options = Options { engine, threads: threads_or_all(self.threads), ..Options::default() };
        let section: Option<Json> = pair.section.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Gathered { done, predictions, layers } =
            gather(&pair.program, &graph, dense.as_ref(), shown, tokens, section.as_ref(), &options, &Bar::default())?;
        let context = shown.len().saturating_sub(1) as u64;
        let setting = Setting { context, batch: 1, span: options.chunk as u64 };
        report.energy = Some(estimate(&graph, &done.activity(), setting, price_lists(&self.prices)?).json());
        let findings = Findings {
            beside: dense.is_some(),
            tokens_a_word,
            coverage: Some(coverage(&graph, &done.activity())),
            neurons: Some(Neurons::of(&graph, &done)),
            lints: lints(&graph, section.as_ref(), shown, done.run, &done.events),
            ledger: if self.ledger { Some(self.ledger(pair, ids)?) } else { None },
            recalled: None,
            done,
        };
        report.findings = Some(findings.json());
        (report.predictions, report.layers) = (predictions, layers);
        Ok(())
    }

    fn ledger(&self, pair: &Pair, ids: &[u32]) -> Result<Ledger, Complaints> {
        let (Some(Source { graph, rounded }), Some(section)) = (&pair.dense, &pair.section) else {
            let message = "keeps nothing of its calibration, so its levels are not known";
            return Err(Diagnostics::from(
                Diagnostic::new(self.model.display().to_string(), message).note("compile the model again"),
            ));
        };
        let tensor = convert::dense(graph.clone(), *rounded, &mut |_, _, _| {})?;
        let calibration = Calibration::read(section, &tensor).map_err(|e| files::at(&self.model, e.into()))?;
        let tokens = self.ledger_tokens.map_or_else(|| ledger::tokens(&tensor), |n| n as usize);
        let windows = ledger::windows(&tensor, ids, tokens);
        ledger::ledger(
            &tensor,
            &calibration,
            ids,
            &windows,
            Workers { threads: threads_or_all(self.threads), progress: &Bar::default() },
        )
    }

    /// Says what the report lacks, and how to get it.
    fn missing(&self, report: &mut report::Report) {
        let mut add = |part, how: &str| report.missing.push(Missing { part, how: how.into() });
        if self.text.is_none() {
            add("spikes, levels, energy and predictions", "run the program on a text: --text FILE");
        }
        if self.against.is_none() {
            add("the dense network beside it, and the IR by pass", "name the ONNX file: --against MODEL.onnx");
        }
        if !self.ledger {
            add("where every error comes from", "--text FILE --against MODEL.onnx --ledger");
        }
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
        file("--against", &self.against);
        if self.text.is_some() {
            line += &format!(" --tokens {}", self.tokens);
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

/// What file a program is.
fn origin(path: &Path) -> Result<Origin, Complaints> {
    let unread = |e| Diagnostics::from(Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")));
    let bytes = files::map(path).map_err(unread)?;
    Ok(Origin::of(path, (*bytes).as_ref()))
}

/// What a program keeps of its calibration, but for the numbers.
fn calibrated(section: &[u8]) -> Option<Json> {
    let json: Json = serde_json::from_slice(section).ok()?;
    let [source, windows, tokens, phases] = ["source", "windows", "tokens", "phases"].map(|key| json[key].clone());
    Some(json!({ "source": source, "windows": windows, "tokens": tokens, "phases": phases }))
}
