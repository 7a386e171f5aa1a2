//! `snnc run --prompts`: continues many texts, some at a time.
//!
//! Law: a text is the one that its prompt gives alone, with the seed plus its line's number. Prompts are read one by one, each
//! by a pass of its own; then a pass serves the next token of all texts at hand, and whoever is done makes room for the next
//! prompt. A text that fails is said and leaves the others alone.

use crate::bar::Bar;
use crate::output::{emit, emit_json_line, status};
use snnc::evaluate::logits_of;
use snnc::generate::{PromptJson, Request, Stopped, Writing, prompt_ids, slides, start_tokens};
use snnc::progress::Progress;
use snnc::tokens::Tokens;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{Batch, Program, SampleOptions};
use std::iter::Enumerate;
use std::sync::Arc;
use std::time::Instant;

/// A prompt of the file.
struct Prompt<'a> {
    /// Of its line, from 1.
    number: usize,
    /// The line for diagnostics.
    place: String,
    text: &'a str,
    ids: Vec<u32>,
}

/// The prompts of a file, one a line; empty lines are none.
fn prompts<'a>(file: &str, text: &'a str, tokens: &Tokens, most: usize) -> Result<Vec<Prompt<'a>>, Diagnostics> {
    let (mut prompts, mut diagnostics) = (Vec::new(), Diagnostics::new());
    for (number, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.is_empty()) {
        let place = format!("{file}:{number}");
        match prompt_ids(tokens, text, most, &place) {
            Ok(ids) => prompts.push(Prompt { number, place, text, ids }),
            Err(error) => diagnostics.push(error),
        }
    }
    if prompts.is_empty() && diagnostics.is_empty() {
        diagnostics.push(Diagnostic::new(file, "has no prompts").code(ErrorCode::OPTION).note("write one per line"));
    }
    if diagnostics.is_empty() { Ok(prompts) } else { Err(diagnostics) }
}

/// How the file is to be continued: as `request` says, whose own prompt is not looked at.
pub struct PromptFile<'a> {
    /// What the file is called in messages.
    pub file: &'a str,
    pub request: Request<'a>,
    /// Texts at a time.
    pub batch: usize,
    pub json: bool,
}

/// Continues every line of `text`.
pub fn continue_all(
    program: &Arc<Program>,
    tokens: &Tokens,
    setting: &PromptFile<'_>,
    text: &str,
) -> Result<(), Diagnostics> {
    let context = program.graph().context as usize;
    let prompts = prompts(setting.file, text, tokens, setting.request.prompt_tokens_max(context))?;
    let batch = Batch::new(program.clone(), setting.batch.min(prompts.len()))?;
    let mut all = Prompts {
        tokens,
        setting,
        context,
        output: logits_of(program.graph())?,
        waiting: prompts.iter().enumerate(),
        here: (0..batch.sequences()).map(|_| None).collect(),
        batch,
        done: prompts.iter().map(|_| None).collect(),
        shown: 0,
        diagnostics: Diagnostics::new(),
        bar: Bar::default(),
        tokens_read: 0,
        tokens_stepped: 0,
        seconds: [0.0; 2],
        slides: 0,
    };
    all.bar.begin("writing", prompts.len() as u64);
    while all.join() {
        all.step();
        all.show(&prompts)?;
    }
    all.show(&prompts)?;
    all.bar.end();
    let code = program.codegen_ms();
    let code = if code > 0.0 { format!("; machine code in {code:.1} ms") } else { String::new() };
    status(&format!("{}{code}", all.summary()));
    if all.diagnostics.is_empty() { Ok(()) } else { Err(all.diagnostics) }
}

/// All texts: to come, at hand and done.
struct Prompts<'a> {
    tokens: &'a Tokens,
    setting: &'a PromptFile<'a>,
    context: usize,
    output: String,
    batch: Batch,
    waiting: Enumerate<std::slice::Iter<'a, Prompt<'a>>>,
    /// By sequence of the batch: the text that is being written there.
    here: Vec<Option<Sequence<'a>>>,
    /// By prompt: what was written, until it is shown.
    done: Vec<Option<Written>>,
    shown: usize,
    diagnostics: Diagnostics,
    bar: Bar,
    tokens_read: usize,
    /// New tokens but the first of each text, which its prompt's pass gives.
    tokens_stepped: usize,
    /// Of prompts, of steps.
    seconds: [f64; 2],
    /// How often the oldest half of a text was dropped.
    slides: usize,
}

/// A text at hand.
struct Sequence<'a> {
    /// Which prompt it continues.
    at: usize,
    prompt: &'a Prompt<'a>,
    writing: Writing<'a>,
    next: u32,
}

struct Written {
    text: String,
    tokens: usize,
    /// `None`: it failed.
    stopped: Option<Stopped>,
}

/// A place in the batch, the text that begins there, and the ids that are run first.
type Beginning<'a> = (usize, Sequence<'a>, Vec<u32>);

impl<'a> Prompts<'a> {
    /// Reads prompts wherever there is room, several in a pass; whether there are texts at hand.
    fn join(&mut self) -> bool {
        loop {
            let mut joined: Vec<Beginning<'a>> = Vec::new();
            for sequence in 0..self.here.len() {
                while self.here[sequence].is_none() && joined.last().is_none_or(|(last, ..)| *last != sequence) {
                    let Some((at, prompt)) = self.waiting.next() else { break };
                    if let Some(here) = self.begun(at, prompt) {
                        joined.push(self.beginning(sequence, here));
                    }
                }
            }
            if joined.is_empty() {
                return self.here.iter().any(Option::is_some);
            }
            self.read(joined);
        }
    }

    /// A prompt that is to be continued; none if nothing is asked for.
    fn begun(&mut self, at: usize, prompt: &'a Prompt<'a>) -> Option<Sequence<'a>> {
        let options = self.setting.request.options;
        let seed = options.seed.wrapping_add(prompt.number as u64);
        let request =
            Request { prompt: prompt.text, options: SampleOptions { seed, ..options }, ..self.setting.request };
        let kept = start_tokens(self.tokens, &prompt.ids);
        let writing = Writing::new(self.tokens, request, prompt.ids.clone(), kept);
        let here = Sequence { at, prompt, writing, next: 0 };
        if here.writing.stopped.is_some() {
            self.finish(here);
            return None;
        }
        Some(here)
    }

    /// Runs the ids with which some sequences begin, several in a pass.
    fn read(&mut self, joined: Vec<Beginning<'a>>) {
        let start = Instant::now();
        let prompts: Vec<(usize, &[u32])> = joined.iter().map(|(at, _, ids)| (*at, &ids[..])).collect();
        prompts.iter().for_each(|(sequence, _)| self.batch.reset(*sequence));
        let outputs = self.batch.prefill(&prompts);
        let counts: Vec<usize> = prompts.iter().map(|(_, ids)| ids.len()).collect();
        let mut taken = Vec::with_capacity(outputs.len());
        for (((sequence, mut here, _), outputs), count) in joined.into_iter().zip(outputs).zip(counts) {
            let full = count >= self.context;
            let next = outputs.and_then(|o| here.writing.take(o.f32(&self.output).unwrap_or(&[]), full));
            self.tokens_read += count;
            taken.push((sequence, here, next));
        }
        self.seconds[0] += start.elapsed().as_secs_f64();
        for (sequence, here, next) in taken {
            self.resume(sequence, here, next);
        }
    }

    /// The ids with which a text begins: all of its prompt, or where that is longer than the context what is left of it.
    fn beginning(&mut self, sequence: usize, mut here: Sequence<'a>) -> Beginning<'a> {
        let ids = if here.prompt.ids.len() > self.context { self.slid(&mut here) } else { here.prompt.ids.clone() };
        (sequence, here, ids)
    }

    /// Drops the oldest half of a text that is longer than the context; the rest is to be run.
    fn slid(&mut self, here: &mut Sequence<'a>) -> Vec<u32> {
        self.slides += 1;
        here.writing.slide(self.context)
    }

    /// One more token for every text at hand.
    fn step(&mut self) {
        let texts: Vec<(usize, Sequence<'a>)> =
            self.here.iter_mut().enumerate().filter_map(|(i, here)| Some((i, here.take()?))).collect();
        let (texts, full): (Vec<_>, Vec<_>) =
            texts.into_iter().partition(|(sequence, _)| self.batch.past(*sequence) < self.context);
        let mut slid = Vec::with_capacity(full.len());
        for (sequence, mut here) in full {
            let ids = self.slid(&mut here);
            slid.push((sequence, here, ids));
        }
        if !slid.is_empty() {
            self.read(slid);
        }
        let start = Instant::now();
        let next: Vec<(usize, u32)> = texts.iter().map(|(sequence, here)| (*sequence, here.next)).collect();
        let full: Vec<bool> = next.iter().map(|&(sequence, _)| self.batch.past(sequence) + 1 >= self.context).collect();
        let outputs = self.batch.step(&next).into_iter().zip(full);
        let mut taken = Vec::with_capacity(texts.len());
        for ((sequence, mut here), (outputs, full)) in texts.into_iter().zip(outputs) {
            let next = outputs.and_then(|o| here.writing.take(o.f32(&self.output).unwrap_or(&[]), full));
            taken.push((sequence, here, next));
        }
        self.seconds[1] += start.elapsed().as_secs_f64();
        self.tokens_stepped += taken.len();
        for (sequence, here, next) in taken {
            self.resume(sequence, here, next);
        }
    }

    /// Keeps a text at hand if it has a next token.
    fn resume(&mut self, sequence: usize, mut here: Sequence<'a>, next: Result<Option<u32>, Diagnostic>) {
        match next {
            Ok(Some(next)) => {
                here.next = next;
                self.here[sequence] = Some(here);
            }
            Ok(None) => self.finish(here),
            Err(error) => {
                let error = error.note(format!("while continuing the prompt at {}", here.prompt.place));
                self.diagnostics.push(error);
                self.finish(here);
            }
        }
    }

    fn finish(&mut self, here: Sequence<'a>) {
        let (text, tokens, stopped) = here.writing.into_parts();
        self.done[here.at] = Some(Written { text, tokens, stopped });
        self.bar.advance(1);
    }

    /// Prints what is done and next in the order of the prompts.
    fn show(&mut self, prompts: &[Prompt<'_>]) -> Result<(), Diagnostics> {
        while let Some(done) = self.done.get_mut(self.shown).and_then(Option::take) {
            let prompt = &prompts[self.shown];
            let json = self.setting.json;
            let show = || if json { emit_json_line(&as_json(prompt, &done)) } else { emit(&as_text(prompt, &done)) };
            self.bar.suspend(show)?;
            self.shown += 1;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        let rate = |n: usize, s: f64| if s > 0.0 { n as f64 / s } else { 0.0 };
        format!(
            "{} prompts, {} at a time; {} prompt tokens at {:.0} tokens/s, {} new after the first at {:.1} tokens/s in all{}",
            self.shown,
            self.here.len(),
            self.tokens_read,
            rate(self.tokens_read, self.seconds[0]),
            self.tokens_stepped,
            rate(self.tokens_stepped, self.seconds[1]),
            slides(self.slides),
        )
    }
}

fn as_json(prompt: &Prompt<'_>, done: &Written) -> PromptJson {
    let stopped = done.stopped.map_or("error", Stopped::name);
    PromptJson { prompt: prompt.text.into(), text: done.text.clone(), tokens: done.tokens, stopped }
}

/// A heading with the line's number and the prompt, then what continues it.
fn as_text(prompt: &Prompt<'_>, done: &Written) -> String {
    let failed = if done.stopped.is_none() { " [failed]" } else { "" };
    format!("=== {}: {}\n{}{failed}\n\n", prompt.number, prompt.text, done.text)
}
