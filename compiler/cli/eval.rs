//! `snnc eval`: perplexity, nearness to the dense network, where the difference comes from, and what is not as it seems.

use crate::args::{EngineArgs, WhichEngine, share};
use crate::bar::Bar;
use crate::output::{emit, emit_json, status};
use clap::Args;
use serde_json::Value as Json;
use snnc::calibration::Calibration;
use snnc::convert::vocabulary;
use snnc::evaluate::{Cut, Evaluation, Neurons, evaluate};
use snnc::findings::Findings;
use snnc::ledger::{Ledger, ledger};
use snnc::lints::{coverage, lints};
use snnc::model::{EngineOptions, Loaded, Source, threads_or_all};
use snnc::progress::Workers;
use snnc::recall::{self, recall};
use snnc::{Complaints, convert, files, report};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Stage};
use std::path::PathBuf;

/// Measure how well a program predicts text, beside the dense network it came from
#[derive(Args, Debug)]
pub struct Eval {
    /// The .snn file (or .onnx, to measure the dense network)
    model: PathBuf,
    /// The ONNX file to compare with
    #[arg(long, value_name = "MODEL.onnx")]
    against: Option<PathBuf>,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Windows of the context's length, spread evenly over the text [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
    /// Tokens from one window to the next; shorter than the context, windows overlap and every token is scored once
    /// [default: the context's length]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stride: Option<u32>,
    /// Say what every site loses, by cause; runs the network some hundred times on a few windows
    #[arg(long, requires = "against")]
    ledger: bool,
    /// Tokens that the ledger runs on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", requires = "ledger", value_parser = clap::value_parser!(u32).range(1..))]
    ledger_tokens: Option<u32>,
    /// Ask whether a pair of tokens seen earlier is recalled, at several distances
    #[arg(long)]
    recall: bool,
    /// Write everything as a page to look at
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Exit with status 3 if perplexity rises by more than this: `1%` or `0.01`
    #[arg(long, value_name = "SHARE", requires = "against", value_parser = share)]
    max_perplexity_increase: Option<f64>,
    /// Exit with status 3 if the centred cosine of logits is less
    #[arg(long, value_name = "COSINE", requires = "against", value_parser = cosine)]
    min_cosine: Option<f64>,
    /// Exit with status 3 if the best guesses agree less often: `98%` or `0.98`
    #[arg(long, value_name = "SHARE", requires = "against", value_parser = share)]
    min_agreement: Option<f64>,
    /// Exit with status 3 if there are warnings
    #[arg(long)]
    deny: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Windows that run at once; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn cosine(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| format!("`{text}` is no cosine: write 0.999"))
}

impl Eval {
    /// Whether every limit was kept.
    pub fn run(self) -> Result<bool, Complaints> {
        if let Some(path) = &self.html {
            files::check_writable(path)?;
        }
        let loaded = Loaded::read(&self.model)?;
        let tokens = loaded.tokens()?;
        let text = files::read_text(&self.text)?;
        let ids = tokens.document(&text)?;
        let dense_input = self.against.as_deref().map(Loaded::read).transpose()?.map(|loaded| loaded.source);
        let dense = match &dense_input {
            Some(input) => {
                let which = WhichEngine { interpret: self.engine.which.interpret, ..WhichEngine::default() };
                let args = EngineArgs { which, prices: self.engine.prices.clone() };
                Some(input.clone().program(&args.options()?)?)
            }
            None => None,
        };
        if let (Some(against), Some(input)) = (&self.against, &dense_input) {
            let [own, other] = [&loaded.source.graph, &input.graph].map(vocabulary);
            let (own, other) = (own?, other?);
            if own != other {
                let message = format!("has a vocabulary of {other}, {} one of {own}", self.model.display());
                let note = "compare with the file that the program was compiled from";
                return Err(Diagnostic::new(against.display().to_string(), message).note(note).into());
            }
        }
        let spiking = loaded.source.graph.stage == Stage::Spiking;
        if self.ledger && !spiking {
            let message = "is a dense network: there is nothing to account for";
            return Err(Diagnostic::new(self.model.display().to_string(), message).into());
        }
        let section = loaded.calibration.clone();
        let program = loaded.source.program(&EngineOptions { count: true, ..self.engine.options()? })?;
        let cut = Cut {
            length: None,
            stride: self.stride.map(|n| n as usize),
            windows: self.windows.map_or(usize::MAX, |n| n as usize),
        };
        let done = evaluate(
            &program,
            dense.as_ref(),
            &ids,
            cut,
            Workers { threads: threads_or_all(self.threads), progress: &Bar::default() },
        )?;
        let json = section.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
        let graph = program.graph();
        let words = text.split_whitespace().count().max(1);
        let findings = Findings {
            beside: dense.is_some(),
            tokens_a_word: ids.len().saturating_sub(1) as f64 / words as f64,
            coverage: spiking.then(|| coverage(graph, &done.activity())),
            neurons: spiking.then(|| Neurons::of(graph, &done)),
            lints: if spiking { lints(graph, json.as_ref(), &ids, done.run, &done.events) } else { Vec::new() },
            recalled: match self.recall {
                true => Some((recall(&program, &ids)?, dense.as_ref().map(|dense| recall(dense, &ids)).transpose()?)),
                false => None,
            },
            ledger: match dense_input {
                Some(input) if self.ledger => Some(self.ledger(input, section.as_deref(), &ids)?),
                _ => None,
            },
            done,
        };
        for lint in &findings.lints {
            status(&format!("warning: {}: {}: {}", lint.kind.name(), lint.place, lint.message));
        }
        let broken = self.broken(&findings);
        broken.iter().for_each(|limit| status(&format!("not kept: {limit}")));
        if let Some(path) = &self.html {
            let title = self.model.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let page = report::page(&report::Report::of_findings(&title, &findings));
            files::write_whole(path, |out| out.write_all(page.as_bytes()))?;
            status(&format!("{}: written", path.display()));
        }
        if self.json {
            emit_json(&findings.json())?
        } else {
            emit(&as_text_of(&findings))?
        }
        Ok(broken.is_empty())
    }

    fn ledger(&self, input: Source, section: Option<&[u8]>, ids: &[u32]) -> Result<Ledger, Complaints> {
        let tensor = convert::dense(input.graph, input.rounded, &mut |_, _, _| {})?;
        let section = section.ok_or_else(|| {
            let message = "keeps nothing of its calibration, so its levels are not known";
            Diagnostics::from(
                Diagnostic::new(self.model.display().to_string(), message).note("compile the model again"),
            )
        })?;
        let calibration = Calibration::read(section, &tensor).map_err(|e| files::at(&self.model, e.into()))?;
        let tokens = self.ledger_tokens.map_or_else(|| snnc::ledger::tokens(&tensor), |n| n as usize);
        let windows = snnc::ledger::windows(&tensor, ids, tokens);
        ledger(
            &tensor,
            &calibration,
            ids,
            &windows,
            Workers { threads: threads_or_all(self.threads), progress: &Bar::default() },
        )
    }

    /// Limits that were not kept.
    fn broken(&self, findings: &Findings) -> Vec<String> {
        let score = &findings.done.score;
        let mut broken = Vec::new();
        let increase = score.perplexity() / score.perplexity_dense() - 1.0;
        if let Some(most) = self.max_perplexity_increase
            && (increase.is_nan() || increase > most)
        {
            broken.push(format!("perplexity rises by {:.3} %, {:.3} % is the limit", 100.0 * increase, 100.0 * most));
        }
        let cosine = score.mean(score.cosine_centred);
        if let Some(least) = self.min_cosine
            && (cosine.is_nan() || cosine < least)
        {
            broken.push(format!("the centred cosine is {cosine:.6}, {least} is the limit"));
        }
        let agreed = score.agreed as f64 / score.tokens as f64;
        if let Some(least) = self.min_agreement
            && (agreed.is_nan() || agreed < least)
        {
            broken.push(format!("best guesses agree in {:.2} %, {:.2} % is the limit", 100.0 * agreed, 100.0 * least));
        }
        if self.deny && !findings.lints.is_empty() {
            broken.push(format!("{} warnings, and --deny", findings.lints.len()));
        }
        broken
    }
}

fn as_text_of(findings: &Findings) -> String {
    let mut text = as_text(&findings.done, findings.beside, Some(findings.tokens_a_word));
    if let Some(neurons) = &findings.neurons {
        let rate = neurons.rate();
        text += &format!("{:<34} {rate:>10.3}  (of {:.2} timesteps)\n", "spikes a neuron", neurons.mean_steps());
    }
    if let Some(coverage) = &findings.coverage {
        let least = coverage
            .least()
            .map_or(String::new(), |(place, share)| format!("  (least: {place}, {:.1} %)", 100.0 * share.ratio()));
        let driven = 100.0 * coverage.total.ratio();
        text += &format!("{:<34} {driven:>9.1} %{least}\n", "multiplications driven by spikes");
    }
    if let Some((own, dense)) = &findings.recalled {
        text += &recall::table(own, dense.as_deref());
    }
    if let Some(ledger) = &findings.ledger {
        text += &format!("\n{}", ledger.table());
    }
    text
}

/// The scores for a person; by word as well where it is known how many tokens a word has.
pub fn as_text(done: &Evaluation, beside: bool, tokens_a_word: Option<f64>) -> String {
    let score = &done.score;
    let tokens = score.tokens as f64;
    let mut text = format!("{} tokens in {} windows\n", score.tokens, done.windows);
    let percent = |n: usize| 100.0 * n as f64 / tokens;
    let by_word = |nll: f64| tokens_a_word.map(|ratio| libm::exp(nll / tokens * ratio));
    if !beside {
        text += &format!("{:<34} {:>10.4}\n", "perplexity", score.perplexity());
        if let Some(perplexity) = by_word(score.nll) {
            text += &format!("{:<34} {perplexity:>10.3}\n", "perplexity by word");
        }
        text += &format!("{:<34} {:>9.2} %\n", "next token right", percent(score.right));
        return text;
    }
    let increase = 100.0 * (score.perplexity() / score.perplexity_dense() - 1.0);
    text += &format!("{:<34} {:>10.4}\n", "perplexity, dense", score.perplexity_dense());
    let interval = done
        .interval
        .map_or(String::new(), |[low, high]| format!("; 95 % interval {:+.2} to {:+.2} %", 100.0 * low, 100.0 * high));
    text += &format!("{:<34} {:>10.4}  ({increase:+.3} %{interval})\n", "perplexity", score.perplexity());
    if let (Some(own), Some(dense)) = (by_word(score.nll), by_word(score.nll_dense)) {
        text += &format!("{:<34} {own:>10.3}  (dense {dense:.3})\n", "perplexity by word");
    }
    text += &format!("{:<34} {:>10.6}\n", "cosine of logits, centred", score.mean(score.cosine_centred));
    text += &format!("{:<34} {:>10.6}\n", "cosine of logits, raw", score.mean(score.cosine));
    text += &format!("{:<34} {:>9.2} %\n", "same best guess", percent(score.agreed));
    text += &format!("{:<34} {:>10.6}\n", "KL from dense, nats", score.mean(score.kl));
    text += &format!(
        "{:<34} {:>9.2} %  (dense {:.2} %)\n",
        "next token right",
        percent(score.right),
        percent(score.right_dense)
    );
    text
}
