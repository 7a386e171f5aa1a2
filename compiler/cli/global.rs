//! Options of every command, and what is looked at before clap reads the line.

use crate::output::{self, LogLevel};
use crate::units;
use clap::{Args, ColorChoice, ValueEnum};
use snnc::run_record::{Host, commit, target};
use snnc_runtime::Isa;
use std::ffi::OsString;

/// Options of every command.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Say less: no progress and no words about what was done; -qq: no warnings either
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,
    /// Say more: when each stage of the work began and ended
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Colours: where a terminal shows them and NO_COLOR is not set, always, or never
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value = "auto")]
    color: ColorWhen,
    /// Most memory for values of runs and for networks that are compiled, such as 512M or 4G [default: what is available]
    #[arg(long, global = true, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub max_memory: Option<u64>,
}

/// Where there are colours.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum ColorWhen {
    Auto,
    Always,
    Never,
}

/// How much is said where no option says it.
const LOG_VARIABLE: &str = "SNNC_LOG";

impl GlobalArgs {
    /// From here on, so much is said, in these colours.
    ///
    /// # Errors
    /// What the environment says is no level.
    pub fn apply(&self) -> Result<(), String> {
        let level = match (self.quiet, self.verbose) {
            (0, 0) => level_of_environment()?,
            (0, _) => LogLevel::Debug,
            (1, _) => LogLevel::Warn,
            (_, _) => LogLevel::Error,
        };
        output::set_level(level);
        match self.color {
            ColorWhen::Auto => {}
            ColorWhen::Always | ColorWhen::Never => {
                let wanted = self.color == ColorWhen::Always;
                console::set_colors_enabled(wanted);
                console::set_colors_enabled_stderr(wanted);
            }
        }
        Ok(())
    }
}

fn level_of_environment() -> Result<LogLevel, String> {
    let Some(text) = std::env::var_os(LOG_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(LogLevel::Info) };
    let text = text.to_string_lossy();
    LogLevel::from_str(&text, true)
        .map_err(|_| format!("{LOG_VARIABLE} is `{text}`: write error, warn, info or debug, or unset it\n"))
}

/// The arguments as clap is to read them: `-m` before the model, as other tools have it, is dropped.
pub fn prepared(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut plain = false;
    arguments
        .filter(|argument| {
            plain |= argument == "--";
            plain || argument != "-m"
        })
        .collect()
}

/// The colours of clap's own messages, which it prints before it has read all options.
pub fn color_choice(arguments: &[OsString]) -> ColorChoice {
    let texts: Vec<String> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let next =
        texts.iter().zip(texts.iter().skip(1)).find(|(option, _)| *option == "--color").map(|(_, when)| when.as_str());
    match texts.iter().find_map(|text| text.strip_prefix("--color=")).or(next) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        Some(_) | None => ColorChoice::Auto,
    }
}

/// All that is known of this build, if the arguments ask for nothing but that: `--version --verbose`, `-vV`.
pub fn verbose_version(arguments: &[OsString]) -> Option<String> {
    let (mut version, mut verbose) = (false, false);
    for argument in arguments.iter().skip(1) {
        match argument.to_str()? {
            "--version" | "-V" => version = true,
            "--verbose" | "-v" => verbose = true,
            "-vV" | "-Vv" => (version, verbose) = (true, true),
            _ => return None,
        }
    }
    if !(version && verbose) {
        return None;
    }
    let sets = [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|isa| isa.is_available()).map(Isa::name);
    let host = Host::this();
    let rows = [
        ("commit", commit().unwrap_or("unknown").to_string()),
        ("target", target().unwrap_or("unknown").to_string()),
        ("features", if cfg!(feature = "mpi") { "mpi" } else { "none" }.to_string()),
        (
            "instruction sets",
            format!("{} (of {}; in use: {})", sets.collect::<Vec<&str>>().join(", "), host.arch, host.isa),
        ),
        ("processor", format!("{}, {} in use", host.cpu.as_deref().unwrap_or("unknown"), host.processors)),
    ];
    let rows: String = rows.iter().map(|(name, value)| format!("{:<18}{value}\n", format!("{name}:"))).collect();
    Some(format!("snnc {}\n{rows}", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_model_may_stand_behind_m() {
        let line = |text: &str| prepared(words(text).into_iter());
        assert_eq!(line("snnc run -m a.snn -p hi"), words("snnc run a.snn -p hi"));
        assert_eq!(line("snnc run a.snn -- -m"), words("snnc run a.snn -- -m"));
    }

    #[test]
    fn only_a_question_about_the_build_is_answered() {
        assert!(verbose_version(&words("snnc -vV")).is_some_and(|text| text.contains("\ncommit:")));
        for line in ["snnc --version", "snnc -v", "snnc run -vV", "snnc"] {
            assert_eq!(verbose_version(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn colours_of_the_parser() {
        assert_eq!(color_choice(&words("snnc --color always run")), ColorChoice::Always);
        assert_eq!(color_choice(&words("snnc run --color=never")), ColorChoice::Never);
        assert_eq!(color_choice(&words("snnc run")), ColorChoice::Auto);
    }
}
