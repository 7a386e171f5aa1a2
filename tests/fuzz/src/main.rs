//! `fuzz TARGET`: mutants of a target for some time. Status 1 where something is wrong; the input is in `findings`.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use snnc_fuzz::chance::corpus;
use snnc_fuzz::driver::{self, Effort};
use snnc_fuzz::targets::{TARGETS, Target};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Makes mutants of files and looks at what becomes of them.
#[derive(Parser)]
struct FuzzArgs {
    /// What is read: snn, program, onnx, tokenizer, or all
    target: String,
    /// Stop after so many seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after so many mutants
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// The first mutant's number; the same number is the same mutant
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Where inputs that show something wrong are written
    #[arg(long, default_value = "findings")]
    findings: PathBuf,
    /// Try this file alone
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Write mutant number `--first` to this file
    #[arg(long)]
    write: Option<PathBuf>,
    #[arg(long, hide = true)]
    worker: Option<u64>,
}

fn main() -> ExitCode {
    let args = FuzzArgs::parse();
    let chosen: Vec<&Target> =
        TARGETS.iter().filter(|target| args.target == "all" || target.name == args.target).collect();
    if chosen.is_empty() {
        eprintln!("there is no target {}: there are {}", args.target, TARGETS.map(|target| target.name).join(", "));
        return ExitCode::from(2);
    }
    let done = chosen.into_iter().map(|target| run(target, &args)).collect::<Result<Vec<bool>, _>>();
    match done {
        Ok(fine) if fine.iter().all(|fine| *fine) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing is wrong.
fn run(target: &Target, args: &FuzzArgs) -> std::io::Result<bool> {
    if let Some(first) = args.worker {
        return driver::work(target, first, &mut std::io::stdout()).map(|()| true);
    }
    if let Some(path) = &args.replay {
        let verdict = driver::attempt(target, &std::fs::read(path)?);
        println!("{verdict:?}");
        return Ok(verdict.is_ok());
    }
    if let Some(path) = &args.write {
        std::fs::write(path, driver::input(target, &(target.seeds)(), args.first))?;
        return Ok(true);
    }
    let effort = Effort { count: args.count, time: Duration::from_secs(args.seconds), first: args.first };
    let mut last = Instant::now();
    let tally = driver::drive(target, effort, &args.findings, &mut |tally| {
        if last.elapsed() > Duration::from_secs(10) {
            last = Instant::now();
            eprintln!("{}: {} tried, {} findings", target.name, tally.tried, tally.findings.len());
        }
    })?;
    println!(
        "{}: {} inputs, {} accepted, {} findings (corpus: {})",
        target.name,
        tally.tried,
        tally.accepted,
        tally.findings.len(),
        corpus(target.name).display()
    );
    for (number, found) in &tally.findings {
        println!("  {} --first {number}: {found}", target.name);
    }
    Ok(tally.findings.is_empty())
}
