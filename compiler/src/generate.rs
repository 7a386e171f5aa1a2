//! Text that a network writes: a prompt, then one token after the other until it has enough.

use crate::evaluate::logits_of;
use crate::sliding::{OnFull, slid};
use crate::tokens::Tokens;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_runtime::{MatmulCounts, Program, Rows, SampleOptions, Sampler, Session};
use std::sync::Arc;
use std::time::Instant;

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The text to continue.
    pub prompt: &'a str,
    /// Tokens to write, at most; without a number until the text or the context ends.
    pub most: Option<usize>,
    /// How tokens are drawn.
    pub options: SampleOptions,
    /// Texts before which it ends.
    pub stop: &'a [String],
    /// What is done when the context is full.
    pub on_full: OnFull,
}

impl<'a> Request<'a> {
    /// The likeliest continuation of a prompt.
    pub fn new(prompt: &'a str, most: usize) -> Self {
        let (options, on_full) = (SampleOptions::default(), OnFull::Stop);
        Self { prompt, most: Some(most), options, stop: &[], on_full }
    }

    /// Tokens that a prompt may have.
    pub fn prompt_tokens_max(&self, context: usize) -> usize {
        match self.on_full {
            OnFull::Stop => context,
            OnFull::Slide => usize::MAX,
        }
    }
}

/// What was written, and how fast.
#[derive(Debug)]
pub struct Generated {
    /// The text.
    pub text: String,
    /// Ids of the new tokens.
    pub ids: Vec<u32>,
    /// Tokens of the run.
    pub tokens: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How often the context was full and the oldest half was dropped.
    pub slides: usize,
    /// How products were done, by node.
    pub products: Vec<MatmulCounts>,
    seconds: f64,
    prompt_seconds: f64,
    stopped: Option<Stopped>,
}

impl Generated {
    /// Why it ended.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Tokens per second behind the first new one.
    pub fn new_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens.saturating_sub(1) as f64 / self.seconds } else { 0.0 }
    }

    /// Speeds in words.
    pub fn summary(&self) -> String {
        let rate = |n: usize, s: f64| if s > 0.0 { n as f64 / s } else { 0.0 };
        let end = if self.stopped == Some(Stopped::Context) { "; stopped at the end of the context" } else { "" };
        let slid = slides(self.slides);
        format!(
            "{} prompt tokens at {:.0} tokens/s, {} new at {:.1} tokens/s{slid}{end}",
            self.prompt_tokens,
            rate(self.prompt_tokens, self.prompt_seconds),
            self.tokens,
            rate(self.tokens.saturating_sub(1), self.seconds),
        )
    }
}

/// What is said of a context that was full.
pub fn slides(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "; the context was full, the oldest half was dropped".into(),
        _ => format!("; the context was full {count} times, each time the oldest half was dropped"),
    }
}

/// Continues the prompt and shows the text as it grows.
pub fn generate(
    program: &Arc<Program>,
    tokens: &Tokens,
    request: &Request<'_>,
    show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
) -> Result<Generated, Diagnostics> {
    let context = program.graph().context as usize;
    let ids = prompt_ids(tokens, request.prompt, request.prompt_tokens_max(context), "--prompt")?;
    continue_ids(program, tokens, request, ids, show)
}

/// Continues ids, whose text is the prompt of `request`, and shows the text as it grows.
///
/// # Errors
/// There are no ids, or more than the context takes; what cannot be run; what `show` refuses.
pub fn continue_ids(
    program: &Arc<Program>,
    tokens: &Tokens,
    request: &Request<'_>,
    ids: Vec<u32>,
    show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
) -> Result<Generated, Diagnostics> {
    let output = logits_of(program.graph())?;
    let mut sequence = WholeSequence { session: Session::new(program.clone())?, output };
    continue_sequence(&mut sequence, tokens, request, ids, show)
}

/// A sequence of tokens of which the next one is predicted.
pub trait Predicting {
    /// Tokens that it can have.
    fn context(&self) -> usize;

    /// Tokens seen so far.
    fn past(&self) -> usize;

    /// Forgets the sequence.
    fn reset(&mut self);

    /// Runs tokens after what was seen: the logits behind the last one.
    ///
    /// # Errors
    /// They cannot be run.
    fn last_logits(&mut self, tokens: &[u32]) -> Result<&[f32], Diagnostic>;

    /// How products were done so far, by node.
    fn products(&self) -> Vec<MatmulCounts>;
}

/// A sequence of a program that this process runs alone.
struct WholeSequence {
    session: Session,
    output: String,
}

impl Predicting for WholeSequence {
    fn context(&self) -> usize {
        self.session.context()
    }

    fn past(&self) -> usize {
        self.session.past()
    }

    fn reset(&mut self) {
        self.session.reset();
    }

    fn last_logits(&mut self, tokens: &[u32]) -> Result<&[f32], Diagnostic> {
        Ok(self.session.forward(tokens, Rows::Last)?.f32(&self.output).unwrap_or(&[]))
    }

    fn products(&self) -> Vec<MatmulCounts> {
        self.session.matmul_counts().to_vec()
    }
}

/// As `continue_ids`, with an empty sequence of any kind.
///
/// # Errors
/// As of `continue_ids`.
pub fn continue_sequence(
    sequence: &mut dyn Predicting,
    tokens: &Tokens,
    request: &Request<'_>,
    ids: Vec<u32>,
    show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
) -> Result<Generated, Diagnostics> {
    let context = sequence.context();
    check_ids(&ids, request.prompt_tokens_max(context))?;
    let prompt_tokens = ids.len();
    let mut next = ids.clone();
    let kept = start_tokens(tokens, &ids);
    let mut writing = Writing::new(tokens, *request, ids, kept);
    let start = Instant::now();
    let mut prompt_seconds = None;
    let mut slides = 0;
    while writing.stopped.is_none() {
        if sequence.past() + next.len() > context {
            sequence.reset();
            next = writing.slide(context);
            slides += 1;
        }
        let full = sequence.past() + next.len() >= context;
        let taken = writing.take(sequence.last_logits(&next)?, full)?;
        prompt_seconds.get_or_insert_with(|| start.elapsed().as_secs_f64());
        next.clear();
        next.extend(taken);
        writing.show(false, show)?;
    }
    let prompt_seconds = prompt_seconds.unwrap_or(0.0);
    let seconds = start.elapsed().as_secs_f64() - prompt_seconds;
    writing.show(true, show)?;
    let ids = writing.written().to_vec();
    let (text, tokens, stopped) = writing.into_parts();
    let products = sequence.products();
    Ok(Generated { products, text, ids, tokens, prompt_tokens, slides, seconds, prompt_seconds, stopped })
}

fn check_ids(ids: &[u32], most: usize) -> Result<(), Diagnostic> {
    let wrong = |what: String| Err(Diagnostic::new("the prompt", what).code(ErrorCode::OPTION));
    match ids.len() {
        0 => wrong("has no tokens".into()),
        length if length > most => wrong(format!("is {length} tokens long, the network's context is {most}")),
        _ => Ok(()),
    }
}

/// Continues ids without a tokenizer: nothing but their number ends them, or the context. `each` is told of every new id.
///
/// # Errors
/// There are no ids, or more than the context takes; what cannot be run; what `each` refuses.
pub fn generate_ids(
    program: &Arc<Program>,
    request: &Request<'_>,
    ids: &[u32],
    each: &mut dyn FnMut(u32) -> Result<(), Diagnostics>,
) -> Result<Vec<u32>, Diagnostics> {
    let context = program.graph().context as usize;
    let output = logits_of(program.graph())?;
    check_ids(ids, request.prompt_tokens_max(context))?;
    let (mut session, mut sampler) = (Session::new(program.clone())?, Sampler::new(request.options));
    let (mut all, mut window, mut next) = (ids.to_vec(), ids.to_vec(), ids.to_vec());
    while request.most.is_none_or(|most| all.len() - ids.len() < most) {
        if session.past() + next.len() > context {
            if request.on_full == OnFull::Stop {
                break;
            }
            session.reset();
            window = slid(&window, 0, context);
            next.clone_from(&window);
        }
        let outputs = session.forward(&next, Rows::Last)?;
        let id = sampler.next(outputs.f32(&output).unwrap_or(&[]), &all);
        all.push(id);
        window.push(id);
        next = vec![id];
        each(id)?;
    }
    Ok(all.split_off(ids.len()))
}

/// The ids of a prompt. A prompt that is written with the start token in front does not get it twice.
///
/// # Errors
/// It is longer than `most`, or has no tokens where none stands before every text; the tokenizer refuses it.
pub fn prompt_ids(tokens: &Tokens, prompt: &str, most: usize, place: &str) -> Result<Vec<u32>, Diagnostic> {
    let wrong = |what: String, note: &str| Err(Diagnostic::new(place, what).code(ErrorCode::OPTION).note(note));
    let start = tokens.start();
    let ids = tokens.document_within(prompt, most.saturating_add(start.len()))?.map(|mut ids| {
        if !start.is_empty() && ids[start.len()..].starts_with(start) {
            ids.drain(..start.len());
        }
        ids
    });
    let length = match ids {
        Some(ids) if ids.is_empty() => {
            let what = "the prompt has no tokens, and no token stands before a text";
            return wrong(what.into(), "write a prompt, or name a token with --start");
        }
        Some(ids) if ids.len() <= most => return Ok(ids),
        Some(ids) => ids.len().to_string(),
        None => format!("more than {most}"),
    };
    let what = format!("the prompt is {length} tokens long, the network's context is {most}");
    wrong(what, "shorten the prompt, or write --on-full slide, which drops the oldest half")
}

/// How many of the first ids are the start tokens, which stay when the context is full.
pub fn start_tokens(tokens: &Tokens, ids: &[u32]) -> usize {
    if ids.starts_with(tokens.start()) { tokens.start().len() } else { 0 }
}

/// A continued prompt as a line of JSON.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PromptJson {
    /// The text to continue.
    pub prompt: String,
    /// What continues it.
    pub text: String,
    /// Tokens of that text.
    pub tokens: usize,
    /// Why it ended: `max-new-tokens`, `context`, `end-of-text`, `stop` or `error`.
    pub stopped: &'static str,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It has as many tokens as were asked for.
    Enough,
    /// The context is full.
    Context,
    /// The network ended the text.
    EndOfText,
    /// A stop text came.
    StopText,
}

impl Stopped {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Stopped::Enough => "max-new-tokens",
            Stopped::Context => "context",
            Stopped::EndOfText => "end-of-text",
            Stopped::StopText => "stop",
        }
    }
}

/// Tokens whose text may still change: so many at the end of a text are decoded anew with each token.
const UNSETTLED: usize = 128;

/// A text in the making.
#[derive(Debug)]
pub struct Writing<'a> {
    tokens: &'a Tokens,
    most: Option<usize>,
    stop: Vec<String>,
    on_full: OnFull,
    /// Nothing stands before the text.
    begins: bool,
    sampler: Sampler,
    /// The prompt's, and those that were written.
    ids: Vec<u32>,
    prompt_tokens: usize,
    /// What the network sees of them: all, or what stayed when the context was full.
    window: Vec<u32>,
    /// Tokens at the start of the window that always stay.
    kept: usize,
    /// The text of the first tokens that were written, which no later token changes.
    settled: String,
    settled_tokens: usize,
    text: Growing,
    /// Why the text has ended, if it has.
    pub stopped: Option<Stopped>,
}

impl<'a> Writing<'a> {
    /// At the start: `ids` are the prompt's, whose first `kept` stay when the context is full.
    pub fn new(tokens: &'a Tokens, request: Request<'_>, ids: Vec<u32>, kept: usize) -> Self {
        let Request { prompt, most, options, stop, on_full } = request;
        let hold = stop.iter().map(String::len).max().unwrap_or(0);
        Self {
            tokens,
            most,
            stop: stop.to_vec(),
            on_full,
            begins: prompt.is_empty(),
            sampler: Sampler::new(options),
            prompt_tokens: ids.len(),
            window: ids.clone(),
            ids,
            kept,
            settled: String::new(),
            settled_tokens: 0,
            text: Growing { hold, rewritten: tokens.rewrites(), ..Growing::default() },
            stopped: (most == Some(0)).then_some(Stopped::Enough),
        }
    }

    /// Chooses a token by the logits of the last one; it is the next to be run, unless the text is done. `full`: the context
    /// has no room for another.
    pub fn take(&mut self, logits: &[f32], full: bool) -> Result<Option<u32>, Diagnostic> {
        let id = self.sampler.next(logits, &self.ids);
        if self.tokens.ends(id) {
            self.stopped = Some(Stopped::EndOfText);
            return Ok(None);
        }
        self.ids.push(id);
        self.window.push(id);
        self.decode()?;
        if self.text.stops_at(&self.stop) {
            self.stopped = Some(Stopped::StopText);
        } else if self.most.is_some_and(|most| self.written().len() >= most) {
            self.stopped = Some(Stopped::Enough);
        } else if full && self.on_full == OnFull::Stop {
            self.stopped = Some(Stopped::Context);
        }
        Ok(self.stopped.is_none().then_some(id))
    }

    /// Decodes what is written. Text is settled where both halves of its tokens give it, one after the other.
    fn decode(&mut self) -> Result<(), Diagnostic> {
        let open = &self.ids[self.prompt_tokens + self.settled_tokens..];
        let begins = self.settled_tokens == 0 && self.begins;
        let text = |ids: &[u32], begins| if begins { self.tokens.decode(ids) } else { self.tokens.continuation(ids) };
        let whole = text(open, begins)?;
        let halves = if open.len() < UNSETTLED || self.tokens.rewrites() {
            None
        } else {
            let (first, second) = open.split_at(open.len() / 2);
            let first_text = text(first, begins)?;
            (first_text.clone() + &text(second, false)? == whole).then_some((first.len(), first_text))
        };
        self.text.is(self.settled.clone() + &whole);
        if let Some((tokens, text)) = halves {
            self.settled += &text;
            self.settled_tokens += tokens;
        }
        Ok(())
    }

    /// The tokens that were written.
    pub fn written(&self) -> &[u32] {
        &self.ids[self.prompt_tokens..]
    }

    /// What the network sees: the prompt and the text, or what stayed of them.
    pub fn window(&self) -> &[u32] {
        &self.window
    }

    /// Drops the oldest half of what the network sees, for it is longer than the context; gives what stays.
    pub fn slide(&mut self, context: usize) -> Vec<u32> {
        self.window = slid(&self.window, self.kept, context);
        self.window.clone()
    }

    /// Shows what is new and will not change; `finished`: everything.
    pub fn show(
        &mut self,
        finished: bool,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<(), Diagnostics> {
        self.text.show(finished, show)
    }

    /// What was written, in how many tokens, and why it ended.
    pub fn into_parts(self) -> (String, usize, Option<Stopped>) {
        (self.text.text, self.ids.len() - self.prompt_tokens, self.stopped)
    }
}

/// Text that grows token by token; what may still change is held back.
#[derive(Debug, Default)]
struct Growing {
    text: String,
    /// What was shown: the text began with it then.
    shown: String,
    /// Bytes at the end that may turn out to begin a stop text.
    hold: usize,
    /// Later tokens change the text of earlier ones, so that nothing is shown before the end.
    rewritten: bool,
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

    /// Shows what is new and decoded. While text still grows, a character that is not whole yet decodes to a replacement
    /// at the end, and the last bytes may begin a stop text. Text that does not begin with what was shown waits for the end,
    /// which shows all from the first difference.
    fn show(
        &mut self,
        finished: bool,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<(), Diagnostics> {
        let mut end = self.text.len();
        if !finished {
            end = self.text.trim_end_matches('\u{fffd}').len().saturating_sub(self.hold.saturating_sub(1));
        }
        end = self.text.floor_char_boundary(end);
        let same = self.text.bytes().zip(self.shown.bytes()).take_while(|(a, b)| a == b).count();
        let start = self.text.floor_char_boundary(same.min(end));
        if finished || (!self.rewritten && same == self.shown.len()) {
            if start < end {
                show(&self.text[start..end])?;
            }
            if end > self.shown.len() || same < self.shown.len() {
                self.shown = self.text[..end].to_string();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Growing;

    /// What is shown while the text takes these forms one after the other.
    fn shown(hold: usize, stop: &[&str], forms: &[&str]) -> Vec<String> {
        let stop: Vec<String> = stop.iter().map(ToString::to_string).collect();
        let mut text = Growing { hold, ..Growing::default() };
        let mut shown = Vec::new();
        for (i, form) in forms.iter().enumerate() {
            text.is(form.to_string());
            let finished = text.stops_at(&stop) || i + 1 == forms.len();
            let pushed = text.show(finished, &mut |new| {
                shown.push(new.to_string());
                Ok(())
            });
            assert!(pushed.is_ok());
        }
        shown
    }

    #[test]
    fn a_character_shows_when_it_is_whole() {
        assert_eq!(shown(0, &[], &["a", "a\u{fffd}", "a\u{fffd}\u{fffd}", "aé", "aéb"]), ["a", "é", "b"]);
    }

    #[test]
    fn what_never_became_whole_shows_at_the_end() {
        assert_eq!(shown(0, &[], &["a", "a\u{fffd}"]), ["a", "\u{fffd}"]);
    }

    #[test]
    fn text_that_changes_shows_at_the_end() {
        assert_eq!(shown(0, &[], &["a", "a '", "a're", "a're b"]), ["a", " '", "'re b"]);
        // The change is inside a character.
        assert_eq!(shown(0, &[], &["é", "è", "èx"]), ["é", "èx"]);
        assert_eq!(shown(0, &[], &["ab", "a", "abc", "abcd"]), ["ab", "c", "d"]);
        assert_eq!(shown(0, &[], &["ab", "a"]), ["ab"]);
    }

    #[test]
    fn nothing_of_a_stop_text_shows() {
        assert_eq!(shown(4, &["stop"], &["go", "go s", "go stop now"]), ["g", "o "]);
        assert_eq!(shown(4, &["stop"], &["go", "go s", "go so"]), ["g", "o so"]);
    }
}
