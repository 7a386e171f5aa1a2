//! A conversation with a network: its state stays between turns, so that only new tokens are run.
//!
//! Law: an answer depends on the ids before it alone. They are those of the text that the template gives, but for answers, whose
//! ids stay as the network chose them. What is said is text: names of special tokens in it are no tokens.

use super::spoken::SpokenWords;
use super::template::{ChatTemplate, Message};
use crate::evaluate::logits_of;
use crate::generate::{Request, Stopped, Writing, start_tokens};
use crate::sliding::OnFull;
use crate::tokens::Tokens;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::events::Events;
use snnc_passes::cost::Activity;
use snnc_runtime::{Program, Rows, SampleOptions, Session};
use std::sync::Arc;
use std::time::Instant;

/// How answers are written.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// What the network is told before the first turn.
    pub system: Option<String>,
    /// Tokens of an answer, at most; without a number until the text or the context ends.
    pub most: Option<usize>,
    /// How tokens are drawn. Turn N, counted from 0, uses the seed plus N.
    pub options: SampleOptions,
    /// Texts before which an answer ends.
    pub stop: Vec<String>,
    /// What is done when the context is full.
    pub on_full: OnFull,
}

/// What became of the state that earlier turns left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it; the new text follows.
    All,
    /// So many of its tokens: the template writes an earlier turn in another way now.
    Start(usize),
    /// None of it, for the same reason, or because sums over all tokens cannot be taken back.
    Nothing,
}

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The answer.
    pub text: String,
    /// Why it ended.
    pub stopped: Stopped,
    /// What became of the state before.
    pub kept: Kept,
    /// Tokens that were there before this turn, and were not run again.
    pub past: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// How much was run, and how long it took.
    pub figures: TurnFigures,
}

/// How much a turn ran, and how long it took.
#[derive(Clone, Debug, Default)]
pub struct TurnFigures {
    /// What was run before the answer began.
    pub prompt: Activity,
    /// What was run while it was written.
    pub answer: Activity,
    /// How often the context was full and the oldest half was dropped.
    pub slides: usize,
    /// Time until the answer began, in seconds.
    pub prompt_seconds: f64,
    /// Time that the answer took after that, in seconds.
    pub seconds: f64,
}

/// A conversation.
#[derive(Debug)]
pub struct Conversation<'a> {
    tokens: &'a Tokens,
    template: ChatTemplate,
    options: ChatOptions,
    output: String,
    session: Session,
    context: usize,
    words: SpokenWords<'a>,
    messages: Vec<Message>,
    turns: u64,
    /// The text of the conversation as far as it is tokenised.
    text: String,
    /// Its ids, or what stayed of them when the context was full. The session has seen them, but perhaps for the last.
    ids: Vec<u32>,
}

/// A conversation up to where an answer begins.
struct ConversationIds {
    ids: Vec<u32>,
    /// So many of them the session has seen.
    seen: usize,
    kept: Kept,
}

fn add(sum: &mut Activity, run: &Activity) {
    sum.tokens += run.tokens;
    sum.events.resize(run.events.len(), Events::default());
    sum.events.iter_mut().zip(&run.events).for_each(|(sum, events)| *sum += *events);
}

impl<'a> Conversation<'a> {
    /// Before the first turn.
    ///
    /// # Errors
    /// The program predicts no tokens; there is not enough memory.
    pub fn new(
        program: &Arc<Program>,
        tokens: &'a Tokens,
        template: ChatTemplate,
        options: ChatOptions,
    ) -> Result<Self, Diagnostic> {
        let mut conversation = Self {
            tokens,
            template,
            options,
            output: logits_of(program.graph())?,
            session: Session::new(program.clone())?,
            context: program.graph().context as usize,
            words: SpokenWords::new(tokens),
            messages: Vec::new(),
            turns: 0,
            text: String::new(),
            ids: Vec::new(),
        };
        conversation.reset();
        Ok(conversation)
    }

    /// Forgets everything but what the network is told before the first turn.
    pub fn reset(&mut self) {
        self.forget();
        self.turns = 0;
        let system = self.options.system.iter();
        self.messages = system.map(|text| Message { role: "system", content: self.words.marked(text) }).collect();
    }

    /// Forgets the state, not the conversation.
    fn forget(&mut self) {
        self.session.reset();
        self.text.clear();
        self.ids.clear();
    }

    /// The ids of the conversation, or what stayed of them when the context was full.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Says something, and shows the answer as it grows.
    ///
    /// # Errors
    /// The template refuses it; the conversation is longer than the context; the program fails. It is then as it was before, but
    /// its state is made anew with the next turn.
    pub fn say(
        &mut self,
        question: &str,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<Turn, Diagnostics> {
        self.messages.push(Message { role: "user", content: self.words.marked(question) });
        let turn = self.answer(show);
        if turn.is_err() {
            self.messages.pop();
        }
        turn
    }

    fn answer(&mut self, show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>) -> Result<Turn, Diagnostics> {
        let text = self.template.render(&self.messages, true)?;
        let prompt = self.prompt(&text)?;
        let done = self.write(&text, prompt, show);
        if done.is_err() {
            self.forget();
        }
        let turn = done?;
        self.messages.push(Message { role: "assistant", content: turn.text.clone() });
        self.turns += 1;
        Ok(turn)
    }

    /// The ids of a conversation. What goes on from the text before is added to its ids.
    ///
    /// # Errors
    /// They are more than the context has, and nothing is to be dropped.
    fn prompt(&self, text: &str) -> Result<ConversationIds, Diagnostic> {
        let past = self.session.past();
        let (ids, seen, kept) = match text.strip_prefix(self.text.as_str()).filter(|_| past > 0) {
            Some(rest) => ([&self.ids[..], &self.words.encode(rest, false)?].concat(), past, Kept::All),
            None => {
                let ids = self.words.encode(text, true)?;
                let same = ids.iter().zip(&self.ids[..past]).take_while(|(a, b)| a == b).count();
                (ids, same, if past == 0 { Kept::All } else { Kept::Start(same) })
            }
        };
        if ids.is_empty() {
            let what = "the chat template gives no tokens";
            return Err(Diagnostic::new("", what).code(ErrorCode::OPTION).note("--template FILE takes another one"));
        }
        if ids.len() > self.context && self.options.on_full == OnFull::Stop {
            let (count, context) = (ids.len(), self.context);
            let what = format!("the conversation is {count} tokens long, the network's context is {context}");
            return Err(Diagnostic::new("", what)
                .code(ErrorCode::OPTION)
                .note("/reset begins a new one; --on-full slide drops the oldest half"));
        }
        // The last token is run, for it is what the answer follows.
        Ok(ConversationIds { seen: seen.min(ids.len() - 1), ids, kept })
    }

    /// Runs what is new, and writes an answer.
    fn write(
        &mut self,
        text: &str,
        prompt: ConversationIds,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<Turn, Diagnostics> {
        let ConversationIds { ids, seen, mut kept } = prompt;
        if seen < self.session.past() && !self.session.shorten(seen) {
            self.session.reset();
        }
        let past = self.session.past();
        if past == 0 && kept != Kept::All {
            kept = Kept::Nothing;
        }
        let (next, prompt_length) = (ids[past..].to_vec(), ids.len());
        let stays = if self.options.on_full == OnFull::Slide { self.first_tokens(text, &ids)? } else { 0 };
        let ChatOptions { most, options, on_full, .. } = self.options;
        let options = SampleOptions { seed: options.seed.wrapping_add(self.turns), ..options };
        let stop = self.options.stop.clone();
        let mut writing =
            Writing::new(self.tokens, Request { prompt: text, most, options, stop: &stop, on_full }, ids, stays);
        let figures = self.run(&mut writing, next, show)?;
        let window = writing.window().to_vec();
        let (answer, tokens, stopped) = writing.into_parts();
        let stopped = stopped.unwrap_or(Stopped::Enough);
        self.text = format!("{text}{answer}");
        self.ids = window;
        if stopped == Stopped::StopText {
            // Tokens of the answer say more than its text.
            if figures.slides == 0 && self.session.shorten(prompt_length) {
                self.ids.truncate(prompt_length);
                self.text.truncate(text.len());
            } else {
                self.forget();
            }
        }
        Ok(Turn { text: answer, stopped, kept, past, tokens, figures })
    }

    /// Runs `next` and whatever is written after it, until the answer ends.
    fn run(
        &mut self,
        writing: &mut Writing<'_>,
        mut next: Vec<u32>,
        show: &mut dyn FnMut(&str) -> Result<(), Diagnostics>,
    ) -> Result<TurnFigures, Diagnostics> {
        let mut figures = TurnFigures::default();
        let mut before = self.session.events().to_vec();
        let start = Instant::now();
        while writing.stopped.is_none() {
            if self.session.past() + next.len() > self.context {
                self.session.reset();
                next = writing.slide(self.context);
                figures.slides += 1;
            }
            let full = self.session.past() + next.len() >= self.context;
            let outputs = self.session.forward(&next, Rows::Last)?;
            let taken = writing.take(outputs.f32(&self.output).unwrap_or(&[]), full)?;
            let run = Activity { tokens: next.len() as u64, events: self.since(&mut before) };
            if figures.prompt.tokens == 0 {
                (figures.prompt, figures.prompt_seconds) = (run, start.elapsed().as_secs_f64());
            } else {
                add(&mut figures.answer, &run);
            }
            next.clear();
            next.extend(taken);
            writing.show(false, show)?;
        }
        writing.show(true, show)?;
        figures.seconds = start.elapsed().as_secs_f64() - figures.prompt_seconds;
        Ok(figures)
    }

    /// What was done since `before`, which is then now.
    fn since(&self, before: &mut Vec<Events>) -> Vec<Events> {
        let now = self.session.events().to_vec();
        let done = now.iter().zip(&*before).map(|(now, before)| *now - *before).collect();
        *before = now;
        done
    }

    /// How many tokens at the start of a conversation stay when the context is full: the start token, and what the network is
    /// told before the first turn.
    fn first_tokens(&self, text: &str, ids: &[u32]) -> Result<usize, Diagnostic> {
        let system = &self.messages[..self.messages.len().min(1)];
        if system.iter().any(|message| message.role == "system") {
            // A template may refuse a conversation without a question.
            let told = self.template.render(system, false).unwrap_or_default();
            let own = if text.starts_with(&told) { self.words.encode(&told, true)? } else { Vec::new() };
            if ids.starts_with(&own) {
                return Ok(own.len().max(start_tokens(self.tokens, ids)));
            }
        }
        Ok(start_tokens(self.tokens, ids))
    }
}
