//! `snnc merge`: the figures of a run from those of its shards.

use crate::bar::Bar;
use crate::energy::EnergyCommand;
use crate::eval::EvalCommand;
use crate::format::{Format, FormatArgs};
use crate::output::set_run;
use clap::Args;
use snnc::file_use::FileUse;
use snnc::part_file::read_all;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::PathBuf;

/// Put the shards of a run together, and print what one process would have printed
///
/// Shards name the command, the models and the text. Those are read again, and have to be what they were, by their hashes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc eval model.snn --text test.txt --shard 0/2 -o part-0.json
  snnc eval model.snn --text test.txt --shard 1/2 -o part-1.json
  snnc merge part-0.json part-1.json --json > run.json")]
pub struct MergeCommand {
    /// The files of all shards, in any order
    #[arg(required = true, value_name = "PART.json")]
    parts: Vec<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

/// A command that has shards.
#[derive(Debug)]
pub enum ShardedCommand {
    Eval(EvalCommand),
    Energy(EnergyCommand),
}

impl ShardedCommand {
    fn files(&self) -> FileUse {
        match self {
            Self::Eval(command) => command.files(),
            Self::Energy(command) => command.files(),
        }
    }

    fn is_shard(&self) -> bool {
        match self {
            Self::Eval(command) => command.shards.is_given(),
            Self::Energy(command) => command.shards.is_given(),
        }
    }
}

impl MergeCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().reads("a shard", &self.parts)
    }

    /// Whether every limit of the run held. `parse`: the command of these arguments, or why it is none that has shards.
    ///
    /// # Errors
    /// A shard that cannot be read, or is missing; what the run cannot read.
    pub fn run(self, parse: impl Fn(&[String]) -> Result<ShardedCommand, String>) -> Result<bool, Diagnostics> {
        let (run, shards) = read_all(&self.parts)?;
        let arguments = &run.arguments;
        let place = self.parts.first().map_or(String::new(), |path| path.display().to_string());
        let wrong = |message: String| {
            let note = "run the shards again, with options written apart: `-o FILE`";
            Diagnostics::from(Diagnostic::new(place.as_str(), message).code(ErrorCode::OPTION).note(note))
        };
        let command =
            parse(arguments).map_err(|e| wrong(format!("its command is not understood: {}", e.trim_end())))?;
        let files = command.files();
        if files.has_outputs() || command.is_shard() {
            return Err(wrong("its command writes files".into()));
        }
        let format = self.format.format();
        // The figures are those of this command, so the record of the run is its record.
        let json = (format == Format::Json).then(|| "--json".to_string());
        set_run(arguments.iter().cloned().chain(json).collect(), files);
        match command {
            ShardedCommand::Eval(command) => command.merged(&shards, format),
            ShardedCommand::Energy(command) => command.merged(&shards, format, &Bar::default()).map(|()| true),
        }
    }
}
