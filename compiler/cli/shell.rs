//! `snnc completions` and `snnc man`: what a shell and `man` need to know of the command.

use crate::output::{emit, status};
use clap::{Args, Command};
use clap_complete::Shell;
use snnc::file_use::FileUse;
use snnc::files;
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use std::path::PathBuf;

/// Print the completions of a shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc completions bash > ~/.local/share/bash-completion/completions/snnc
  snnc completions zsh > ~/.zfunc/_snnc")]
pub struct CompletionsCommand {
    /// The shell
    shell: Shell,
}

impl CompletionsCommand {
    /// `command`: the whole command line.
    pub fn run(self, mut command: Command) -> Result<(), Diagnostics> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "snnc", &mut script);
        emit(&String::from_utf8_lossy(&script))
    }
}

/// Write man pages: one of the command, and one of each subcommand
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc man -o ~/.local/share/man/man1")]
pub struct ManCommand {
    /// The folder to write them to; it is made where it is not there
    #[arg(short, long, value_name = "DIR", default_value = "man")]
    output: PathBuf,
}

impl ManCommand {
    pub fn files(&self) -> FileUse {
        FileUse::default().writes("-o", [&self.output])
    }

    /// `command`: the whole command line.
    pub fn run(self, command: Command) -> Result<(), Diagnostics> {
        let failed = |e: std::io::Error| {
            Diagnostic::new(self.output.display().to_string(), format!("cannot be written: {e}")).code(ErrorCode::FILE)
        };
        std::fs::create_dir_all(&self.output).map_err(failed)?;
        let mut whole = command.clone();
        whole.build();
        let subs = whole.get_subcommands().filter(|sub| sub.get_name() != "help");
        let pages: Vec<&Command> = std::iter::once(&command).chain(subs).collect();
        let count = pages.len();
        for page in pages {
            let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_string();
            let mut text = Vec::new();
            clap_mangen::Man::new(page.clone()).title(&name).render(&mut text).map_err(failed)?;
            files::write_whole(&self.output.join(format!("{name}.1")), |out| out.write_all(&text))?;
        }
        status(&format!("{}: {count} pages", self.output.display()));
        Ok(())
    }
}
