//! Runs a target on many inputs, in a process that another one watches: a panic, a hang and much memory are findings too.

use crate::chance::Verdict;
use crate::targets::Target;
use snnc_ir::random::SplitMix64;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long one input may take.
pub const TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes that the process may hold.
pub const MEMORY_MAX: u64 = 4 << 30;

/// How many inputs, or for how long.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Mutants at most.
    pub count: u64,
    /// Time at most.
    pub time: Duration,
    /// The first mutant's number: a number is always the same mutant.
    pub first: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct FuzzTally {
    /// Inputs that were tried.
    pub tried: u64,
    /// Those that were accepted.
    pub accepted: u64,
    /// What is wrong, by the number of the mutant.
    pub findings: Vec<(u64, String)>,
}

/// Mutant number `i`: the first are the seeds themselves.
pub fn input(target: &Target, seeds: &[Vec<u8>], i: u64) -> Vec<u8> {
    match seeds.get(i as usize) {
        Some(seed) => seed.clone(),
        None => {
            let mut random = SplitMix64(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            random.bits();
            (target.mutant)(seeds, &mut random)
        }
    }
}

/// Tries one input in this process.
///
/// # Errors
/// What is wrong, a panic's words among it.
pub fn attempt(target: &Target, bytes: &[u8]) -> Result<Verdict, String> {
    let caught = catch_unwind(AssertUnwindSafe(|| (target.check)(bytes)));
    caught.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words")))
    })
}

/// The watched side: one line before and one after each mutant, on `out`.
///
/// # Errors
/// Nobody reads them.
pub fn work(target: &Target, first: u64, out: &mut dyn Write) -> std::io::Result<()> {
    let seeds = (target.seeds)();
    for i in first.. {
        let bytes = input(target, &seeds, i);
        writeln!(out, "start {i}")?;
        out.flush()?;
        match attempt(target, &bytes) {
            Ok(Verdict::Accepted) => writeln!(out, "accepted")?,
            Ok(Verdict::Refused) => writeln!(out, "refused")?,
            Err(found) => writeln!(out, "finding {}", found.replace('\n', " | "))?,
        }
        out.flush()?;
    }
    Ok(())
}

/// A process that works, and what it says.
struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start(target: &Target, first: u64) -> std::io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([target.name, "--worker", &first.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (sender, lines) = channel();
        let out = child.stdout.take().ok_or_else(|| std::io::Error::other("no pipe"))?;
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)).ok();
        });
        Ok(Self { child, lines })
    }

    /// The next line; or why there is none.
    fn next(&self, since: Instant) -> Result<String, String> {
        loop {
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err("the process ended".into()),
                Err(RecvTimeoutError::Timeout) if since.elapsed() > TIME_MAX => return Err("a hang".into()),
                Err(RecvTimeoutError::Timeout) => match memory_of(self.child.id()) {
                    Some(bytes) if bytes > MEMORY_MAX => return Err(format!("{} MiB of memory", bytes >> 20)),
                    Some(_) | None => {}
                },
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Bytes that a process holds now, where the system says.
fn memory_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Tries mutants until there were enough, and writes those with findings to `findings`.
///
/// # Errors
/// A process that cannot be started, a file that cannot be written.
pub fn drive(
    target: &Target,
    effort: Effort,
    findings: &Path,
    told: &mut dyn FnMut(&FuzzTally),
) -> std::io::Result<FuzzTally> {
    let begun = Instant::now();
    let mut tally = FuzzTally::default();
    let seeds = (target.seeds)();
    let mut next = effort.first;
    'process: while tally.tried < effort.count && begun.elapsed() < effort.time {
        let worker = Worker::start(target, next)?;
        let mut since = Instant::now();
        while tally.tried < effort.count && begun.elapsed() < effort.time {
            let line = worker.next(since);
            let found = match line.as_deref() {
                Ok(line) if line.starts_with("start") => {
                    since = Instant::now();
                    continue;
                }
                Ok("accepted") => {
                    tally.accepted += 1;
                    None
                }
                Ok("refused") => None,
                Ok(line) => Some(line.strip_prefix("finding ").unwrap_or(line).to_string()),
                Err(why) => Some(why.clone()),
            };
            tally.tried += 1;
            if let Some(found) = found {
                std::fs::create_dir_all(findings)?;
                std::fs::write(findings.join(format!("{}-{next}", target.name)), input(target, &seeds, next))?;
                tally.findings.push((next, found));
            }
            told(&tally);
            next += 1;
            if line.is_err() {
                continue 'process;
            }
            since = Instant::now();
        }
    }
    Ok(tally)
}
