//! `snnc chat`: a conversation, one line per message.
//!
//! Answers go to standard output, one after the other, each with an end of line. All else goes to standard error: what is
//! asked for, figures, errors of a turn.

use crate::args::{EngineArgs, OnnxArgs, ThreadArgs};
use crate::output::{self, emit, report, say, status, warn};
use crate::sampling::{EndArgs, MostTokens, SampleArgs, context_in_words, most_tokens};
use crate::units::{count, si};
use clap::Args;
use serde_json::Value as Json;
use snnc::chat::conversation::{ChatOptions, Conversation, Kept, Turn, TurnFigures};
use snnc::chat::find::{no_template, template_source};
use snnc::chat::python::Moment;
use snnc::chat::template::{ChatTemplate, TemplateValues};
use snnc::energy::{self, PriceList};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::generate::{Stopped, slides};
use snnc::model::{EngineOptions, Loaded};
use snnc::sliding::OnFull;
use snnc::tokens::Tokens;
use snnc::tokens::start::StartChoice;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Stage};
use snnc_passes::cost::{Activity, Form};
use snnc_runtime::Program;
use std::io::{BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::sync::Arc;

/// Talk with a .snn program, or with the dense network of an ONNX file or a folder
#[derive(Args, Debug)]
#[command(after_help = "A line is a message. These are commands:
  /reset   begin a new conversation
  /stats   tokens, speed, spikes and energy of the last turn
  /help    this list
  /exit    end; so does the end of the input (Ctrl-D)
A message that begins with / is written with a second one: //home is a folder.

Answers go to standard output, all else to standard error:
  echo 'What is the capital of France?' | snnc chat model.snn")]
pub struct ChatCommand {
    /// The .snn or .onnx file
    model: PathBuf,
    /// What the network is told before the first message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Chat template, a Jinja file [default: the one that the program keeps, or that is beside the ONNX file]
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Something that the template asks for, as in enable_thinking=false; may be given several times.
    ///
    /// The value is JSON, or else a text.
    #[arg(long = "template-value", value_name = "NAME=VALUE", value_parser = template_value)]
    template_values: Vec<(String, Json)>,
    /// The day that a template is told, as 2024-07-26 [default: today, UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Moment>,
    /// Most tokens of an answer; -1 writes until the text or the context ends [default: -1; the context with --on-full slide]
    #[arg(short = 'n', long, value_name = "N", value_parser = most_tokens, allow_negative_numbers = true)]
    max_new_tokens: Option<MostTokens>,
    /// Say spikes and energy after every turn, as /stats does
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    end: EndArgs,
    #[command(flatten)]
    onnx: OnnxArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    threads: ThreadArgs,
}

fn template_value(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
    Ok((name.to_string(), serde_json::from_str(value).unwrap_or_else(|_| Json::from(value))))
}

/// Bytes of a message, at most.
const MESSAGE_BYTES: usize = 1 << 20;

/// The price list of the energy that is shown.
const PRICES: &str = "paper45";

impl ChatCommand {
    pub fn files(&self) -> FileUse {
        let used = self
            .onnx
            .files(FileUse::default())
            .reads_models("the model", [&self.model])
            .reads("--template", &self.template);
        self.engine.files(used)
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        self.max_new_tokens.map_or(Ok(()), |most| self.end.check(most))?;
        let onnx = OnnxOptions { context: self.end.context, ..self.onnx.options()? };
        let loaded = Loaded::read(&self.model, &onnx)?;
        loaded.warnings.iter().for_each(|warning| warn(warning));
        let spiking = loaded.source.graph.stage == Stage::Spiking;
        let engine = EngineOptions { count: spiking, ..self.threads.of(self.engine.options()?) };
        let (tokens, program) = loaded.ready(&StartChoice::Auto, &engine, self.end.context);
        let tokens = tokens?;
        loaded.lints().iter().for_each(|lint| warn(lint));
        let (template, program) = (self.chat_template(&loaded, &tokens)?, program?);
        status(&context_in_words(program.graph()));
        let options = ChatOptions {
            system: self.system.clone(),
            most: match (self.max_new_tokens, self.end.on_full) {
                (Some(MostTokens(most)), _) => most,
                (None, OnFull::Stop) => None,
                (None, OnFull::Slide) => Some(program.graph().context as usize),
            },
            options: self.sample.options(),
            stop: self.end.stop.clone(),
            on_full: self.end.on_full,
        };
        let conversation = Conversation::new(&program, &tokens, template, options)?;
        let form = if self.engine.which.stepped { Form::Stepped } else { Form::Collapsed };
        let mut talk =
            Talk { conversation, program: &program, spiking, form, stats: self.stats, last: None, failed: None };
        talk.listen()?;
        talk.failed.map_or(Ok(()), Err)
    }

    /// The template of the user's, or of the program's.
    fn chat_template(&self, loaded: &Loaded, tokens: &Tokens) -> Result<ChatTemplate, Diagnostics> {
        let language = tokens.language();
        let now = self.date.unwrap_or_else(Moment::now);
        let values = TemplateValues { now, named: self.template_values.clone() };
        let found = template_source(loaded, language, self.template.as_deref())?;
        let missing = || {
            let place = loaded.path.display().to_string();
            no_template(&place).note("`snnc run` continues a text")
        };
        let (source, place) = found.ok_or_else(missing)?;
        Ok(ChatTemplate::new(&source, &place, language, values)?)
    }
}

/// A conversation with whoever writes to standard input.
struct Talk<'a> {
    conversation: Conversation<'a>,
    program: &'a Arc<Program>,
    spiking: bool,
    /// How the program is run, for its energy.
    form: Form,
    stats: bool,
    last: Option<Turn>,
    /// What went wrong last, where nobody at a terminal reads of it.
    failed: Option<Diagnostics>,
}

impl Talk<'_> {
    /// Reads messages and commands until their end.
    fn listen(&mut self) -> Result<(), Diagnostics> {
        let input = std::io::stdin();
        let person = input.is_terminal();
        if person {
            say("/help lists commands; Ctrl-D ends");
        }
        let mut input = input.lock();
        while let Some(line) = read_line(&mut input, person)? {
            match line.trim() {
                "" => {}
                "/exit" | "/quit" => break,
                "/help" => say(HELP),
                "/reset" => {
                    self.conversation.reset();
                    self.last = None;
                    say("a new conversation");
                }
                "/stats" => self.show_stats(),
                command if command.starts_with('/') && !command.starts_with("//") => {
                    say(&format!("there is no command {command}; /help lists them, and // begins a message with /"));
                }
                message => self
                    .turn(message.strip_prefix('/').filter(|_| message.starts_with("//")).unwrap_or(message), person)?,
            }
        }
        if person {
            say("");
        }
        Ok(())
    }

    /// One message and its answer. What goes wrong with it ends the conversation only where nothing can be printed.
    fn turn(&mut self, message: &str, person: bool) -> Result<(), Diagnostics> {
        let mut unprinted = None;
        let mut show = |text: &str| emit(text).inspect_err(|errors| unprinted = Some(errors.clone()));
        match self.conversation.say(message, &mut show) {
            Ok(turn) => {
                emit("\n")?;
                said(&turn).iter().for_each(|line| say(line));
                self.last = Some(turn);
                if self.stats {
                    self.show_stats();
                }
            }
            Err(errors) => {
                if let Some(errors) = unprinted {
                    return Err(errors);
                }
                report(&errors);
                self.failed = (!person).then(failed_turns);
            }
        }
        Ok(())
    }

    /// Tokens, speed, spikes and energy of the last turn.
    fn show_stats(&self) {
        let Some(turn) = &self.last else { return say("nothing was said yet") };
        let TurnFigures { prompt, answer, prompt_seconds, seconds, .. } = &turn.figures;
        let rate = |n: u64, seconds: f64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        say(&format!(
            "{} tokens kept, {} read at {:.0} tokens/s, {} written at {:.1} tokens/s",
            turn.past,
            prompt.tokens,
            rate(prompt.tokens, *prompt_seconds),
            turn.tokens,
            rate(answer.tokens, *seconds),
        ));
        let graph = self.program.graph();
        if !self.spiking {
            return say("a dense network has no spikes; compile it first");
        }
        let run = (prompt.tokens + answer.tokens).max(1) as f64;
        let neurons = |activity: &Activity| -> u64 {
            let spikes = graph.iter().zip(&activity.events).filter(|((_, node), _)| node.op.is_neuron());
            spikes.map(|(_, events)| events.spikes).sum()
        };
        let spikes = (neurons(prompt) + neurons(answer)) as f64;
        let energy = self.energy_j(prompt, answer).map_or(String::new(), |joules| {
            format!("; {}, {} per token by `{PRICES}`", si(joules, "J"), si(joules / run, "J"))
        });
        say(&format!("{} spikes, {} per token{energy}", count(spikes), count(spikes / run)));
    }

    /// The energy of a turn; `None` where something has no price.
    fn energy_j(&self, prompt: &Activity, answer: &Activity) -> Option<f64> {
        let list = PriceList::named(PRICES).ok()?;
        let span = (self.program.options().chunk as u64).min(prompt.tokens);
        let pj = |activity, span| energy::run_pj(self.program.graph(), activity, self.form, span, &list);
        let answered = if answer.tokens == 0 { 0.0 } else { pj(answer, 1)? };
        Some((pj(prompt, span)? + answered) * 1e-12)
    }
}

const HELP: &str = "/reset   begin a new conversation
/stats   tokens, speed, spikes and energy of the last turn
/help    this list
/exit    end; so does Ctrl-D
a message that begins with / is written with a second one";

/// What is to be said of a turn beside its answer.
fn said(turn: &Turn) -> Vec<String> {
    let mut lines = Vec::new();
    match turn.kept {
        Kept::All => {}
        Kept::Start(tokens) => lines.push(format!(
            "the template writes an earlier turn in another way now: the first {tokens} tokens of the state are kept, the rest was run again"
        )),
        Kept::Nothing => lines.push("the template writes an earlier turn in another way now: the whole conversation was run again".into()),
    }
    if turn.figures.slides > 0 {
        lines.push(slides(turn.figures.slides).trim_start_matches("; ").to_string());
    }
    if turn.stopped == Stopped::Context {
        lines.push("the answer stopped at the end of the context; /reset begins a new conversation".into());
    }
    lines
}

fn failed_turns() -> Diagnostics {
    Diagnostic::new("standard input", "a message had no answer").code(ErrorCode::OPTION).into()
}

/// The next line; `None` at the end of the input. A person is asked for it.
fn read_line(input: &mut impl BufRead, person: bool) -> Result<Option<String>, Diagnostics> {
    if person {
        output::ask("> ");
    }
    let wrong = |what: String| Diagnostics::from(Diagnostic::new("standard input", what).code(ErrorCode::OPTION));
    let mut line = Vec::new();
    let read = input.take(MESSAGE_BYTES as u64 + 1).read_until(b'\n', &mut line);
    read.map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if line.len() > MESSAGE_BYTES {
        return Err(wrong(format!("a line has more than {} KiB", MESSAGE_BYTES >> 10)));
    }
    if line.is_empty() {
        return Ok(None);
    }
    let text = String::from_utf8(line).map_err(|_| wrong("is not UTF-8 text".into()))?;
    Ok(Some(files::without_mark(text)))
}
