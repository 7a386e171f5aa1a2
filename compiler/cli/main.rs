//! The `snnc` command: one file per subcommand, which reads options, calls the library and prints what it gives.

mod args;
mod bar;
mod bench;
mod chat;
mod check;
mod compile;
mod demo;
mod energy;
mod energy_table;
mod eval;
mod eval_table;
mod explore;
mod export;
mod format;
mod global;
mod inspect;
mod logits;
mod merge;
mod nir;
mod opt;
mod output;
mod plan;
mod prompts;
mod quant_args;
mod ranks;
mod report;
mod report_text;
mod run;
mod sampling;
mod serve;
mod shards;
mod shell;
mod show;
mod signals;
mod table;
mod train;
mod tune;
mod units;
mod verify;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use global::GlobalArgs;
use merge::ShardedCommand;
use output::{INTERRUPTED, verdict};
use ranks::{CommandEnd, Spread};
use snnc::file_use::FileUse;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use std::ffi::OsString;
use std::process::ExitCode;

/// Compiles a language model, an ONNX file or a Hugging Face folder, to a spiking neural network, runs it, and says what it costs.
#[derive(Parser, Debug)]
#[command(name = "snnc", version, max_term_width = 80)]
#[command(after_help = "First steps:
  snnc demo
  snnc compile model.onnx -o model.snn
  snnc run model.snn -p 'Once upon a time'

`snnc COMMAND --help` has examples of each command. As in other tools, `-m` may
stand before the model. SNNC_LOG (error, warn, info or debug) says how much is
said, where no option does; `snnc -vV` says what build this is.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    Check(check::CheckCommand),
    Compile(compile::CompileCommand),
    Run(run::RunCommand),
    Chat(chat::ChatCommand),
    Serve(serve::ServeCommand),
    Eval(eval::EvalCommand),
    Energy(energy::EnergyCommand),
    Merge(merge::MergeCommand),
    Inspect(inspect::InspectCommand),
    Report(report::ReportCommand),
    Logits(logits::LogitsCommand),
    Show(show::ShowCommand),
    Opt(opt::OptCommand),
    Explore(explore::ExploreCommand),
    Export(export::ExportCommand),
    Nir(nir::NirCommand),
    Tune(tune::TuneCommand),
    Train(train::TrainCommand),
    Bench(bench::BenchCommand),
    Verify(verify::VerifyCommand),
    Demo(demo::DemoCommand),
    Completions(shell::CompletionsCommand),
    Man(shell::ManCommand),
}

impl Command {
    /// The files that it reads and writes.
    fn files(&self) -> FileUse {
        match self {
            Command::Check(command) => command.files(),
            Command::Compile(command) => command.files(),
            Command::Run(command) => command.files(),
            Command::Chat(command) => command.files(),
            Command::Serve(command) => command.files(),
            Command::Eval(command) => command.files(),
            Command::Energy(command) => command.files(),
            Command::Merge(command) => command.files(),
            Command::Inspect(command) => command.files(),
            Command::Report(command) => command.files(),
            Command::Logits(command) => command.files(),
            Command::Show(command) => command.files(),
            Command::Opt(command) => command.files(),
            Command::Explore(command) => command.files(),
            Command::Export(command) => command.files(),
            Command::Nir(command) => command.files(),
            Command::Tune(command) => command.files(),
            Command::Train(command) => command.files(),
            Command::Bench(command) => command.files(),
            Command::Verify(command) => command.files(),
            Command::Demo(command) => command.files(),
            Command::Completions(_) => FileUse::default(),
            Command::Man(command) => command.files(),
        }
    }
}

impl Command {
    /// What it does with several processes.
    fn spread(&self) -> Spread {
        match self {
            Command::Eval(command) => command.shards.spread(),
            Command::Energy(command) => command.shards.spread(),
            Command::Run(command) => command.spread(),
            Command::Tune(_) | Command::Train(_) => Spread::Ranks,
            _ => Spread::Alone,
        }
    }
}

/// The files that a command line uses.
fn files_of(arguments: &[String]) -> Result<FileUse, String> {
    let words = std::iter::once("snnc").chain(arguments.iter().map(String::as_str));
    Cli::try_parse_from(words).map(|cli| cli.command.files()).map_err(|e| e.to_string())
}

/// The command of a command line, if it has shards.
fn sharded(arguments: &[String]) -> Result<ShardedCommand, String> {
    let words = std::iter::once("snnc").chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
        Command::Eval(command) => Ok(ShardedCommand::Eval(command)),
        Command::Energy(command) => Ok(ShardedCommand::Energy(command)),
        _ => Err("only `snnc eval` and `snnc energy` have shards".into()),
    }
}

/// The arguments behind the command's own name, as text.
fn typed(arguments: &[OsString]) -> Vec<String> {
    arguments.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

fn main() -> ExitCode {
    let arguments = global::prepared(std::env::args_os());
    if let Some(text) = global::verbose_version(&arguments) {
        return ExitCode::from(verdict(output::emit(&text).map(|()| true)).unwrap_or_else(|status| status));
    }
    let command = Cli::command().color(global::color_choice(&arguments));
    let cli = Cli::from_arg_matches(&command.get_matches_from(&arguments)).unwrap_or_else(|e| e.exit());
    if let Err(message) = cli.global.apply() {
        clap::Error::raw(ErrorKind::ValueValidation, message).exit();
    }
    if let Err(e) = ctrlc::set_handler(bar::interrupted) {
        let message = format!("Ctrl-C cannot be caught ({e}); it will leave temporary files");
        output::report(&[Diagnostic::new("", message).code(ErrorCode::OPTION)]);
    }
    if let Some(bytes) = cli.global.max_memory {
        snnc_runtime::set_memory_limit(bytes);
    }
    signals::survive_size_limit();
    match ranks::join(cli.command.spread()) {
        Ok(member) => member.end(run(cli.command, &arguments)),
        Err(diagnostic) => {
            output::report(&[diagnostic]);
            ExitCode::FAILURE
        }
    }
}

/// Runs a command to its end.
fn run(command: Command, arguments: &[OsString]) -> CommandEnd {
    let files = command.files();
    files.check().or_else(|diagnostics| verdict(Err(diagnostics)).map(drop))?;
    output::set_has_outputs(files.has_outputs());
    output::set_run(typed(arguments), files);
    let result = match command {
        Command::Check(command) => command.run(),
        Command::Compile(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Eval(command) => return verdict(command.run()),
        Command::Energy(command) => command.run(),
        Command::Merge(command) => return verdict(command.run(sharded)),
        Command::Inspect(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Logits(command) => command.run(),
        Command::Show(command) => command.run(),
        Command::Opt(command) => command.run(),
        Command::Explore(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Nir(command) => command.run(),
        Command::Tune(command) => return verdict(command.run()),
        Command::Train(command) => {
            return match command.run() {
                Ok(true) => Ok(0),
                Ok(false) => Ok(INTERRUPTED as u8),
                Err(_) if bar::was_interrupted() => Err(INTERRUPTED as u8),
                Err(diagnostics) => verdict(Err(diagnostics)),
            };
        }
        Command::Bench(command) => return verdict(command.run()),
        Command::Verify(command) => return verdict(command.run(files_of)),
        Command::Demo(command) => command.run(),
        Command::Completions(command) => command.run(Cli::command()),
        Command::Man(command) => command.run(Cli::command()),
    };
    verdict(result.map(|()| true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::any::TypeId;
    use std::path::PathBuf;

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
    }

    /// Command lines that name every file that a command can be given, each by another name.
    const WITH_FILES: [&str; 39] = [
        "check a --architecture b",
        "compile a -o b --tokenizer c --calibrate d --architecture e",
        "run a --prompts b --kernel-costs c --emit clif=d --architecture e",
        "chat a --template b --kernel-costs c --architecture d",
        "serve a --api-key-file b --template c --kernel-costs d --architecture e",
        "eval a --reference b --text c --html d --kernel-costs e --architecture f",
        "eval a --tokens b",
        "eval a b --tokens c",
        "energy a --text b --prices c --architecture d",
        "energy a --tokens b",
        "eval a --text b --shard 0/2 -o c",
        "energy a --text b --shard 0/2 -o c",
        "merge a b",
        "inspect a --tokens b.npy",
        "inspect a --text b --reference c --prices d --architecture e",
        "report a --text b --reference c --prices d -o e --architecture f",
        "report a b --text c --tune d --training e --figures f -o g",
        "logits a --tokens 1 -o b --kernel-costs c --architecture d",
        "logits a --tokens b.npy -o c",
        "show a --emit asm=b --kernel-costs c --architecture d",
        "opt a --model b --model c -o d",
        "opt a --passes raise,simplify --dump-to b",
        "explore a --reference b -o c --architecture d",
        "explore a.snn",
        "export a --to onnx -o b",
        "export a --to nir -o b --text c",
        "nir a --input b -o c",
        "tune a --text b --calibrate c --architecture d",
        "tune a --tokens b -o c --save d --resume e",
        "compile a --recipe b -o c",
        "train a --text b --reference c -o d --validate e --architecture f",
        "train a --tokens b --reference c -o d",
        "bench a --baseline b --kernel-costs c --emit clif=d",
        "bench a --measure-kernel-costs b",
        "verify a",
        "demo --model a -o b --report c",
        "man -o a",
        "compile a.onnx",
        "report a.snn",
    ];

    /// Every file that an option names is declared, so that no output is an input.
    #[test]
    fn commands_declare_their_files() {
        let mut seen = std::collections::BTreeSet::new();
        for line in WITH_FILES {
            let matches = Cli::command().get_matches_from(["snnc"].into_iter().chain(line.split(' ')));
            let (name, options) = matches.subcommand().expect(line);
            let cli = Cli::from_arg_matches(&matches).expect(line);
            let used = cli.command.files();
            let command = Cli::command();
            let command = command.find_subcommand(name).expect(line);
            let of_files = |arg: &&clap::Arg| arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
            for arg in command.get_arguments().filter(of_files) {
                let id = arg.get_id().as_str();
                for path in options.get_many::<PathBuf>(id).into_iter().flatten() {
                    assert!(used.paths().any(|used| used.starts_with(path)), "{line}: --{id} {}", path.display());
                    seen.insert(format!("{name} {id}"));
                }
            }
            // By words that are no options of files: `clif=d`, and names of price lists.
            let words =
                line.split([' ', '=']).filter(|word| word.len() == 1 && word.as_bytes()[0].is_ascii_lowercase());
            for word in words {
                assert!(used.paths().any(|used| used.starts_with(word)), "{line}: {word}");
            }
        }
        for command in Cli::command().get_subcommands() {
            for arg in command.get_arguments() {
                let known = format!("{} {}", command.get_name(), arg.get_id());
                let of_files = arg.get_value_parser().type_id() == TypeId::of::<PathBuf>();
                assert!(!of_files || seen.contains(&known), "a line names the file of {known}");
            }
        }
    }

    /// No sentence of a help text has more than 35 words.
    #[test]
    fn help_is_in_short_sentences() {
        for command in Cli::command().get_subcommands() {
            let texts = command.get_arguments().flat_map(|arg| [arg.get_help(), arg.get_long_help()]);
            for text in texts.chain([command.get_about(), command.get_long_about()]).flatten() {
                let text = text.to_string();
                for sentence in text.split(['.', ';']) {
                    let words = sentence.split_whitespace().count();
                    assert!(words <= 35, "{}: {words} words: {sentence}", command.get_name());
                }
            }
        }
    }
}
