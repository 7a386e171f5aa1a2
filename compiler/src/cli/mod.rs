//! The command line: one file a subcommand. Data goes to standard output, words to standard error.
//!
//! Exit status: 0 done, 1 something is wrong with an input or an output, 2 wrong usage, 3 a limit that the user set was not
//! kept, 130 interrupted.

mod bench;
mod check;
mod compile;
mod demo;
mod energy;
pub mod eval;
mod inspect;
mod logits;
mod plan;
mod prompts;
mod report;
mod run;
mod show;
mod train;
mod tune;
mod wishes;

use crate::convert::{BUILT_IN_TEXT, Sample};
use crate::tokens::{self, Tokens};
use crate::{Complaints, convert, files, prices};
use clap::{Args, Parser, Subcommand};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph};
use snnc_passes::collapse;
use snnc_runtime::{Engine, Options, Program};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Compiles GPT-2 in ONNX to a spiking neural network, runs it, and says what it costs.
#[derive(Parser, Debug)]
#[command(name = "snnc", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Check(check::Check),
    Compile(compile::Compile),
    Run(run::Run),
    Eval(eval::Eval),
    Energy(energy::Energy),
    Inspect(inspect::Inspect),
    Report(report::Report),
    Logits(logits::Logits),
    Show(show::Show),
    Tune(tune::Tune),
    Train(train::Train),
    Bench(bench::Bench),
    Demo(demo::Demo),
}

/// Which engine runs a program, and how fast.
#[derive(Args, Clone, Debug, Default)]
struct EngineArgs {
    #[command(flatten)]
    which: WhichEngine,
    /// What rows of weights cost on this machine, from `snnc bench --measure-prices`; only the speed depends on it
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

/// Which engine runs a program. The numbers are the same.
#[derive(Args, Clone, Copy, Debug, Default)]
struct WhichEngine {
    /// Run machine code (the default)
    #[arg(long, conflicts_with = "interpret")]
    jit: bool,
    /// Run the reference interpreter: the same numbers, slowly
    #[arg(long)]
    interpret: bool,
    /// Run every timestep, spike by spike; without it time is collapsed. The numbers are the same
    #[arg(long)]
    stepped: bool,
}

/// Threads of one sequence.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
struct ThreadArgs {
    /// Threads of one sequence; no result depends on them [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Keep each thread on a processor of its own
    #[arg(long)]
    pin: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(e) = ctrlc::set_handler(interrupted) {
        complain(&[Diagnostic::new("", format!("Ctrl-C cannot be caught ({e}); it will leave temporary files"))]);
    }
    let result = match cli.command {
        Command::Check(command) => command.run(),
        Command::Compile(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Eval(command) => return verdict(command.run()),
        Command::Energy(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Logits(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Tune(command) => return verdict(command.run()),
        Command::Train(command) => {
            return match command.run() {
                Ok(train::Ended::Whole) => ExitCode::SUCCESS,
                Ok(train::Ended::Interrupted) => ExitCode::from(INTERRUPTED as u8),
                Err(complaints) => verdict(Err(complaints)),
            };
        }
        Command::Bench(command) => return verdict(command.run()),
        Command::Demo(command) => command.run(),
    };
    verdict(result.map(|()| true))
}

/// The exit status of a command that did its work, whether or not what the user set was kept.
fn verdict(result: Result<bool, Complaints>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_KEPT),
        Err(complaints) => {
            complain(&complaints);
            ExitCode::FAILURE
        }
    }
}

/// A limit was not kept, or a warning was denied.
const NOT_KEPT: u8 = 3;

/// What a shell expects of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

fn interrupted() {
    if train::ask_to_stop() {
        note("stopping after this step; once more stops at once");
        return;
    }
    files::discard_pending();
    note("interrupted; no output was changed");
    std::process::exit(INTERRUPTED);
}

fn complain(complaints: &[Diagnostic]) {
    for complaint in complaints {
        note(&format!("error: {complaint}"));
    }
}

/// A line for a person. A standard error that is closed is no reason to stop.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Data for whoever reads standard output. A reader that has gone away ends the program quietly.
fn print(text: &str) -> Result<(), Complaints> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Diagnostic::new("standard output", format!("cannot be written: {e}")).into()),
    }
}

fn print_json(value: &serde_json::Value) -> Result<(), Complaints> {
    print(&format!("{value:#}\n"))
}

/// Threads that work on several windows at once where the user names no number.
fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

/// A program that one thread runs, or several each on a sequence of its own.
fn program(input: Input, args: &EngineArgs, count: bool) -> Result<Arc<Program>, Complaints> {
    shared_program(input, args, count, ThreadArgs { threads: Some(1), pin: false })
}

/// A graph as an engine takes it: an imported one is raised, a spiking one is collapsed unless every step is to run.
fn shared_program(input: Input, args: &EngineArgs, count: bool, of: ThreadArgs) -> Result<Arc<Program>, Complaints> {
    use snnc_ir::Stage;
    let Input { graph, rounded } = input;
    let graph = match graph.stage {
        Stage::Imported => {
            if args.which.stepped {
                return Err(Diagnostic::new("", "--stepped: a dense network has no timesteps; compile it first").into());
            }
            convert::raise(graph, rounded)?
        }
        Stage::Spiking if !args.which.stepped && !collapse::depends_on_order(&graph) => collapse::collapse(&graph)?,
        // A network in training is refused below.
        Stage::Tensor | Stage::Quantised | Stage::Spiking | Stage::Training => graph,
    };
    let prices = args.prices.as_deref().map(prices::read).transpose()?;
    let engine = if args.which.interpret { Engine::Interpreter } else { Engine::Jit };
    let options = Options { engine, count, threads: threads(of.threads), pin: of.pin, prices, ..Options::default() };
    Program::new(Arc::new(graph), &options).map(Arc::new).map_err(Diagnostics::from)
}

/// A graph to run, and whether an imported one has its numbers from codes of eight bits.
#[derive(Clone, Debug)]
struct Input {
    graph: Graph,
    rounded: bool,
}

/// A network that a user named, ready to be run on text.
struct Loaded {
    input: Input,
    /// What a program keeps of its calibration, and says of its making.
    calibration: Option<Vec<u8>>,
    provenance: Option<Vec<u8>>,
    tokenizer: Option<Vec<u8>>,
    /// What the tokenizer is called in messages.
    tokenizer_place: String,
}

impl Loaded {
    /// Reads a `.snn` with its tokenizer, or an ONNX file with the one beside it.
    fn read(path: &Path) -> Result<Self, Complaints> {
        Ok(match files::load(path)? {
            files::Model::Onnx(import) => {
                let (tokenizer, place) = find_tokenizer(path, None)?;
                let input = Input { graph: import.graph, rounded: import.rounds_activations };
                Self { input, calibration: None, provenance: None, tokenizer, tokenizer_place: place }
            }
            files::Model::Snn(file) => Self {
                input: Input { graph: file.graph, rounded: false },
                calibration: file.calibration,
                provenance: file.provenance,
                tokenizer: file.tokenizer,
                tokenizer_place: format!("{}: tokenizer", path.display()),
            },
        })
    }

    /// The tokenizer, without which text cannot be read.
    fn tokens(&self, path: &Path) -> Result<Tokens, Complaints> {
        let json = self.tokenizer.as_ref().ok_or_else(|| {
            let what = "has no tokenizer, so text cannot be read or written";
            Diagnostics::from(
                Diagnostic::new(path.display().to_string(), what)
                    .note("compile with --tokenizer FILE, or put tokenizer.json beside the ONNX file"),
            )
        })?;
        Tokens::new(json, &self.tokenizer_place).map_err(Diagnostics::from)
    }
}

/// What ranges are measured on: the text that a user named, the built-in one, or ids where there is no tokenizer.
fn sample<'a>(tokens: Option<&'a Tokens>, named: Option<&Path>) -> Result<Sample<'a>, Complaints> {
    match (tokens, named) {
        (Some(tokens), Some(path)) => {
            let text = files::read_text(path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Sample::Text { name, text, tokens })
        }
        (Some(tokens), None) => {
            Ok(Sample::Text { name: "the built-in text".into(), text: BUILT_IN_TEXT.into(), tokens })
        }
        (None, Some(path)) => Err(Diagnostics::from(
            Diagnostic::new(path.display().to_string(), "cannot be calibrated on: the model has no tokenizer")
                .note("name one with --tokenizer FILE"),
        )),
        (None, None) => {
            note("warning: no tokenizer, so calibrating on seeded random ids; name one with --tokenizer FILE");
            Ok(Sample::SeededIds)
        }
    }
}

/// The tokenizer file that a user named, or the one beside the model; and its name.
fn find_tokenizer(model: &Path, named: Option<&Path>) -> Result<(Option<Vec<u8>>, String), Complaints> {
    let path: Option<PathBuf> = named.map(Path::to_path_buf).or_else(|| tokens::beside(model));
    let Some(path) = path else { return Ok((None, String::new())) };
    let bytes = files::read_bytes(&path)?;
    Ok((Some(bytes), path.display().to_string()))
}
