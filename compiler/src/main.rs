//! The `snnc` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    snnc::cli::main()
}
