//! `snnc eval`: perplexity, and nearness to the dense network.

use super::{EngineArgs, Loaded, print, print_json, program, threads};
use crate::evaluate::{Evaluation, evaluate};
use crate::{Complaints, files};
use clap::Args;
use serde_json::{Value as Json, json};
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
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Windows that run at once; the result does not depend on it
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Eval {
    pub fn run(self) -> Result<(), Complaints> {
        let loaded = Loaded::read(&self.model)?;
        let tokens = loaded.tokens(&self.model)?;
        let text = files::read_text(&self.text).map_err(|e| vec![e])?;
        let ids = tokens.document(&text).map_err(|e| vec![e])?;
        let dense = match &self.against {
            Some(path) => {
                let args = EngineArgs { interpret: self.engine.interpret, ..EngineArgs::default() };
                Some(program(Loaded::read(path)?.input, args, false)?)
            }
            None => None,
        };
        let program = program(loaded.input, self.engine, true)?;
        let windows = self.windows.map_or(usize::MAX, |n| n as usize);
        let done = evaluate(&program, dense.as_ref(), &ids, windows, threads(self.threads))?;
        if self.json { print_json(&as_json(&done, dense.is_some())) } else { print(&as_text(&done, dense.is_some())) }
    }
}

fn as_json(done: &Evaluation, beside: bool) -> Json {
    let score = &done.score;
    let tokens = score.tokens as f64;
    let mut json = json!({
        "tokens": score.tokens,
        "windows": done.windows,
        "perplexity": score.perplexity(),
        "accuracy": score.right as f64 / tokens,
        "spikes": done.events.iter().map(|events| events.spikes).sum::<u64>(),
    });
    if beside {
        json["perplexity_dense"] = json!(score.perplexity_dense());
        json["perplexity_increase"] = json!(score.perplexity() / score.perplexity_dense() - 1.0);
        json["cosine"] = json!(score.mean(score.cosine));
        json["cosine_centred"] = json!(score.mean(score.cosine_centred));
        json["top1_agreement"] = json!(score.agreed as f64 / tokens);
        json["kl"] = json!(score.mean(score.kl));
        json["accuracy_dense"] = json!(score.right_dense as f64 / tokens);
    }
    json
}

/// The same for a person.
pub fn as_text(done: &Evaluation, beside: bool) -> String {
    let score = &done.score;
    let tokens = score.tokens as f64;
    let mut text = format!("{} tokens in {} windows\n", score.tokens, done.windows);
    let percent = |n: usize| 100.0 * n as f64 / tokens;
    if !beside {
        text += &format!("{:<34} {:>10.4}\n", "perplexity", score.perplexity());
        text += &format!("{:<34} {:>9.2} %\n", "next token right", percent(score.right));
        return text;
    }
    let increase = 100.0 * (score.perplexity() / score.perplexity_dense() - 1.0);
    text += &format!("{:<34} {:>10.4}\n", "perplexity, dense", score.perplexity_dense());
    text += &format!("{:<34} {:>10.4}  ({increase:+.3} %)\n", "perplexity", score.perplexity());
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
