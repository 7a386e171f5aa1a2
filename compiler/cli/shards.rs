//! `--shard`: a share of the windows of a run, to a file that `snnc merge` reads.

use crate::output::{run_record, status};
use crate::ranks::{Spread, is_first};
use clap::Args;
use snnc::file_use::FileUse;
use snnc::part::PartJson;
use snnc::part_file;
use snnc::shard::Shard;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::{Path, PathBuf};

/// Which share of the windows is run, and where its results go.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Shards")]
pub struct ShardArgs {
    /// Run a share of the windows alone, such as `0/3`, and write its results for `snnc merge`. `slurm` takes the share from the variables of a Slurm task
    #[arg(long, value_name = "I/N|slurm", value_parser = shard, requires = "output", conflicts_with_all = ["format", "json"])]
    shard: Option<ShardChoice>,
    /// File for the results of a shard. `{shard}` in its name becomes the shard's number
    #[arg(short, long, value_name = "FILE.json", requires = "shard")]
    output: Option<PathBuf>,
}

/// A share, and whether Slurm has chosen it.
#[derive(Clone, Copy, Debug)]
struct ShardChoice {
    shard: Shard,
    of_slurm: bool,
}

fn shard(text: &str) -> Result<ShardChoice, String> {
    let of_slurm = text == "slurm";
    let shard = if of_slurm { Shard::of_slurm(|name| std::env::var(name).ok())? } else { text.parse()? };
    Ok(ShardChoice { shard, of_slurm })
}

impl ShardArgs {
    /// The share and its file, if there is one.
    pub fn wanted(&self) -> Option<(Shard, PathBuf)> {
        let (ShardChoice { shard, .. }, path) = (self.shard?, self.output.as_ref()?);
        let name = path.to_str().map(|name| PathBuf::from(name.replace("{shard}", &shard.index.to_string())));
        Some((shard, name.unwrap_or_else(|| path.clone())))
    }

    /// With the file that these options name.
    pub fn files(&self, used: FileUse) -> FileUse {
        used.writes("-o", self.wanted().map(|(_, path)| path))
    }

    /// What the command does with several processes.
    pub fn spread(&self) -> Spread {
        if self.shard.is_some_and(|choice| choice.of_slurm) { Spread::Tasks } else { Spread::Ranks }
    }

    /// Whether any of these options is given.
    pub fn is_given(&self) -> bool {
        self.shard.is_some() || self.output.is_some()
    }
}

/// Writes what a shard gave.
///
/// # Errors
/// The file cannot be written.
pub fn write(part: PartJson, path: &Path) -> Result<(), Diagnostics> {
    if !is_first() {
        return Ok(());
    }
    let Some(mut run) = run_record() else {
        return Err(Diagnostic::new("--shard", "nobody knows what was typed").code(ErrorCode::OPTION).into());
    };
    run.arguments = whole(&run.arguments);
    let shard = part.shard;
    part_file::write(path, part, &run)?;
    status(&format!("{}: shard {shard}; `snnc merge` puts all shards together", path.display()));
    Ok(())
}

/// Options with a value that differ between the shards of a run and change no result.
const OWN: [[&str; 2]; 3] = [["--shard", "--shard"], ["--output", "-o"], ["--threads", "-t"]];

/// The arguments of the run of which a shard is a part.
fn whole(arguments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if OWN.iter().flatten().any(|option| argument == option) {
            rest.next();
        } else if !OWN.iter().any(|[long, short]| {
            argument.starts_with(&format!("{long}=")) || (short.len() == 2 && argument.starts_with(short))
        }) {
            kept.push(argument.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_one_run_have_the_same_arguments() {
        let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<String>>();
        for line in [
            "eval a --shard 0/3 --text t -o b --windows 4 -t 2",
            "eval a --shard=1/3 --text t -ob --windows 4",
            "eval a --text t --windows 4 --output=c --shard 2/3 --threads=1",
        ] {
            assert_eq!(whole(&words(line)), words("eval a --text t --windows 4"), "{line}");
        }
    }
}
