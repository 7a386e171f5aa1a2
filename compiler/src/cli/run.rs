//! `snnc run`: continues a text.

use super::{EngineArgs, Loaded, note, print, program};
use crate::Complaints;
use crate::evaluate::logits_of;
use crate::tokens::Tokens;
use clap::Args;
use snnc_ir::Diagnostic;
use snnc_runtime::{Program, Rows, SampleOptions, Sampler, Session};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Continue a text with a .snn program, or with the dense network of an ONNX file
#[derive(Args, Debug)]
pub struct Run {
    /// The .snn or .onnx file
    model: PathBuf,
    /// The text to continue; - reads standard input
    #[arg(short, long, value_name = "TEXT")]
    prompt: String,
    /// Tokens to write at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 40)]
    max_new_tokens: usize,
    #[command(flatten)]
    engine: EngineArgs,
    /// 0 takes the likeliest token; higher is more varied
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    temperature: f32,
    /// Draw from the K likeliest tokens only; 0: from all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the likeliest tokens that make up probability P only
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f32,
    /// Stop before this text
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the draws: the same seed gives the same text
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "it is no number".to_string())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("it is a number from 0 up".into()) }
}

fn probability(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "it is no number".to_string())?;
    if number > 0.0 && number <= 1.0 { Ok(number) } else { Err("it is a number above 0, at most 1".into()) }
}

impl Run {
    pub fn run(self) -> Result<(), Complaints> {
        let loaded = Loaded::read(&self.model)?;
        let tokens = loaded.tokens(&self.model)?;
        let prompt = if self.prompt == "-" { standard_input()? } else { self.prompt.clone() };
        let program = program(loaded.graph, self.engine, false)?;
        let options =
            SampleOptions { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p, seed: self.seed };
        print(&prompt)?;
        let request = Request { prompt: &prompt, most: self.max_new_tokens, options, stop: &self.stop };
        let done = generate(&program, &tokens, &request, &mut print)?;
        print("\n")?;
        let code = program.codegen_ms();
        let code = if code > 0.0 { format!("; machine code in {code:.1} ms") } else { String::new() };
        note(&format!("{}{code}", done.summary()));
        Ok(())
    }
}

fn standard_input() -> Result<String, Complaints> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes);
    let wrong = |what: String| vec![Diagnostic::new("standard input", what)];
    read.map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".into()))?;
    Ok(text.trim_end_matches('\n').to_string())
}

/// What to write.
pub struct Request<'a> {
    pub prompt: &'a str,
    pub most: usize,
    pub options: SampleOptions,
    pub stop: &'a [String],
}

/// What was written, and how fast.
pub struct Generated {
    pub text: String,
    pub tokens: usize,
    pub prompt_tokens: usize,
    seconds: f64,
    prompt_seconds: f64,
    at_end: bool,
}

impl Generated {
    fn summary(&self) -> String {
        let rate = |n: usize, s: f64| if s > 0.0 { n as f64 / s } else { 0.0 };
        let end = if self.at_end { "; stopped at the end of the context" } else { "" };
        format!(
            "{} prompt tokens at {:.0} tokens/s, {} new at {:.1} tokens/s{end}",
            self.prompt_tokens,
            rate(self.prompt_tokens, self.prompt_seconds),
            self.tokens,
            rate(self.tokens.saturating_sub(1), self.seconds),
        )
    }
}

/// Continues the prompt and shows the text as it grows.
pub fn generate(
    program: &Arc<Program>,
    tokens: &Tokens,
    request: &Request<'_>,
    show: &mut dyn FnMut(&str) -> Result<(), Complaints>,
) -> Result<Generated, Complaints> {
    let one = |e: Diagnostic| vec![e];
    let context = program.graph().context as usize;
    let output = logits_of(program.graph()).map_err(one)?;
    let ids = tokens.document(request.prompt).map_err(one)?;
    if ids.len() > context {
        let message = format!("the prompt is {} tokens long, the network's context is {context}", ids.len());
        return Err(vec![Diagnostic::new("--prompt", message).note("shorten the prompt")]);
    }
    let mut sampler = Sampler::new(request.options);
    let mut session = Session::new(program.clone());
    let mut text = Growing { hold: request.stop.iter().map(String::len).max().unwrap_or(0), ..Growing::default() };
    let start = Instant::now();
    let mut new: Vec<u32> = Vec::new();
    let mut next = ids.clone();
    let mut prompt_seconds = 0.0;
    let mut at_end = false;
    while new.len() < request.most {
        if session.past() + next.len() > context {
            at_end = true;
            break;
        }
        let outputs = session.forward(&next, Rows::Last).map_err(one)?;
        let id = sampler.next(outputs.f32(&output).unwrap_or(&[]));
        if new.is_empty() {
            prompt_seconds = start.elapsed().as_secs_f64();
        }
        if id == tokens.start {
            break;
        }
        new.push(id);
        next = vec![id];
        text.is(tokens.decode(&new).map_err(one)?);
        if text.stops_at(request.stop) {
            break;
        }
        text.show(show)?;
    }
    let seconds = start.elapsed().as_secs_f64() - prompt_seconds;
    text.hold = 0;
    text.show(show)?;
    Ok(Generated { text: text.text, tokens: new.len(), prompt_tokens: ids.len(), seconds, prompt_seconds, at_end })
}

/// Text that grows token by token; what may still change is held back.
#[derive(Default)]
struct Growing {
    text: String,
    shown: usize,
    /// Bytes at the end that may turn out to begin a stop text.
    hold: usize,
}

impl Growing {
    fn is(&mut self, text: String) {
        self.text = text;
    }

    /// Cuts the text before the first stop text in it.
    fn stops_at(&mut self, stop: &[String]) -> bool {
        let first = stop.iter().filter(|s| !s.is_empty()).filter_map(|s| self.text.find(s.as_str())).min();
        if let Some(at) = first {
            self.text.truncate(at);
        }
        first.is_some()
    }

    /// Shows what is new and settled: a character that is not whole yet decodes to a replacement at the end.
    fn show(&mut self, show: &mut dyn FnMut(&str) -> Result<(), Complaints>) -> Result<(), Complaints> {
        let whole = self.text.trim_end_matches('\u{fffd}').len();
        let whole = if self.hold == 0 { self.text.len() } else { whole };
        let mut end = whole.saturating_sub(self.hold.saturating_sub(1));
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        if self.hold == 0 || end > self.shown {
            let end = end.max(self.shown).min(self.text.len());
            if let Some(new) = self.text.get(self.shown..end) {
                show(new)?;
            }
            self.shown = end;
        }
        Ok(())
    }
}
