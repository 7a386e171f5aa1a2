//! How a run would take on many processes, by a small simulation: nothing is run, and every figure is modelled.
//!
//! `cargo run --release -p snnc-examples --example cluster -- --window-ms 200 --update-ms 60 --parameters 124000000`
//!
//! What is simulated is how `snnc` spreads its work. In training, ranks run the windows of a step, send gradients by window to the rank
//! that sums a slice of them, collect all slices, and all move all parameters. In an evaluation, every rank reads the models, runs its share of
//! the windows, and sends its results once.
//!
//! Events are windows that end on a thread. The time of a window is drawn around its mean with a seed. A message takes a latency and its bytes
//! over the bandwidth of a rank; ranks exchange messages pair by pair, so each takes part in one at a time.

#![allow(clippy::print_stdout)]

use clap::Parser;
use snnc_ir::random::SplitMix64;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Models how long training and evaluation take on many ranks
#[derive(Parser, Debug)]
struct ClusterOptions {
    /// Ranks: a row for each number
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 8, 64, 256, 1024], value_parser = clap::value_parser!(u32).range(1..=4096))]
    ranks: Vec<u32>,
    /// Threads of a rank
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Mean milliseconds of a window of training on a thread
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    window_ms: f64,
    /// Standard deviation of a window's time, as a share of its mean
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    spread: f64,
    /// Milliseconds in which a rank moves all parameters
    #[arg(long, default_value_t = 60.0, value_parser = positive)]
    update_ms: f64,
    /// Numbers that are trained
    #[arg(long, default_value_t = 124_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    parameters: u64,
    /// Windows of a step, on all ranks together
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: u32,
    /// Steps that are simulated
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
    /// Seconds in which a rank of an evaluation reads the models
    #[arg(long, default_value_t = 3.0, value_parser = positive)]
    start_s: f64,
    /// Windows of an evaluation
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1 << 21))]
    windows: u32,
    /// Mean milliseconds of a window of an evaluation on a thread
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    eval_window_ms: f64,
    /// Bytes of the results of a window
    #[arg(long, default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    result_bytes: u64,
    /// Microseconds until a message begins to arrive
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    latency_us: f64,
    /// Gigabits per second between a rank and the others
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    gbit_per_s: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0 && *x < 1e12);
    number.ok_or_else(|| format!("`{text}` is no number above 0"))
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| (0.0..=1.0).contains(x));
    number.ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

/// Seconds that messages take.
#[derive(Clone, Copy, Debug)]
struct MessageTimes {
    latency: f64,
    bytes_per_s: f64,
}

impl MessageTimes {
    /// Every rank sends a message to every other, pair by pair. `bytes`: what the busiest rank sends, or receives, in all.
    fn exchange(self, ranks: usize, bytes: f64) -> f64 {
        if ranks == 1 { 0.0 } else { (ranks - 1) as f64 * self.latency + bytes / self.bytes_per_s }
    }
}

/// Times of windows, drawn around a mean.
struct WindowTimes {
    random: SplitMix64,
    mean: f64,
    spread: f64,
}

impl WindowTimes {
    fn draw(&mut self) -> f64 {
        let mut uniform = || (self.random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        let (a, b) = (1.0 - uniform(), uniform());
        let normal = (-2.0 * libm::log(a)).sqrt() * libm::cos(std::f64::consts::TAU * b);
        // No window is much faster than the others.
        self.mean * (1.0 + self.spread * normal).max(0.5)
    }
}

/// When threads that each take the next window have done so many.
fn done(windows: usize, threads: usize, times: &mut WindowTimes) -> f64 {
    // Nanoseconds, which have an order.
    let mut ends: BinaryHeap<Reverse<u64>> = (0..threads).map(|_| Reverse(0)).collect();
    let mut last = 0;
    for _ in 0..windows {
        let Some(Reverse(free)) = ends.pop() else { break };
        let end = free + (1e9 * times.draw()) as u64;
        last = last.max(end);
        ends.push(Reverse(end));
    }
    last as f64 / 1e9
}

/// Where the time of a step or a run goes, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct TimeParts {
    /// Until the mean rank has run its windows.
    compute: f64,
    /// From then until the last has.
    wait: f64,
    messages: f64,
    /// What every rank does alike.
    alike: f64,
}

impl TimeParts {
    fn all(self) -> f64 {
        self.compute + self.wait + self.messages + self.alike
    }
}

/// The ranks' windows are run.
fn run(shares: &[usize], threads: usize, times: &mut WindowTimes) -> TimeParts {
    let ends: Vec<f64> = shares.iter().map(|&windows| done(windows, threads, times)).collect();
    let (last, mean) = (ends.iter().copied().fold(0.0, f64::max), ends.iter().sum::<f64>() / ends.len() as f64);
    TimeParts { compute: mean, wait: last - mean, ..TimeParts::default() }
}

/// The mean step of training.
fn training(options: &ClusterOptions, network: MessageTimes, ranks: usize) -> TimeParts {
    let mut times = WindowTimes { random: SplitMix64(1), mean: options.window_ms / 1e3, spread: options.spread };
    let (batch, threads) = (options.batch as usize, options.threads as usize);
    let slice = 4.0 * (options.parameters as f64 / ranks as f64 + 1.0);
    let mut sum = TimeParts::default();
    for _ in 0..options.steps {
        let mut left = batch;
        while left > 0 {
            let round = left.min(ranks * threads);
            left -= round;
            let shares: Vec<usize> = (0..ranks).map(|k| (k + 1) * round / ranks - k * round / ranks).collect();
            let ran = run(&shares, threads, &mut times);
            let most = shares.iter().copied().max().unwrap_or(0) as f64;
            // A rank sends its windows' gradients to the others, and receives all windows' gradients of its slice.
            let sent = most * slice * (ranks - 1) as f64;
            let received = (round as f64 - most.min(round as f64 / ranks as f64)) * slice;
            sum.compute += ran.compute;
            sum.wait += ran.wait;
            sum.messages += network.exchange(ranks, sent.max(received));
        }
        sum.messages += network.exchange(ranks, slice * (ranks - 1) as f64);
        sum.alike += options.update_ms / 1e3;
    }
    let steps = f64::from(options.steps);
    let TimeParts { compute, wait, messages, alike } = sum;
    TimeParts { compute: compute / steps, wait: wait / steps, messages: messages / steps, alike: alike / steps }
}

/// A whole evaluation.
fn evaluation(options: &ClusterOptions, network: MessageTimes, ranks: usize) -> TimeParts {
    let mut times = WindowTimes { random: SplitMix64(2), mean: options.eval_window_ms / 1e3, spread: options.spread };
    let windows = options.windows as usize;
    let shares: Vec<usize> = (0..ranks).map(|rank| windows.saturating_sub(rank).div_ceil(ranks)).collect();
    let ran = run(&shares, options.threads as usize, &mut times);
    let received = windows as f64 * options.result_bytes as f64 * (ranks - 1) as f64 / ranks as f64;
    TimeParts { messages: network.exchange(ranks, received), alike: options.start_s, ..ran }
}

fn table(title: &str, options: &ClusterOptions, time: impl Fn(usize) -> TimeParts) {
    println!("{title}, modelled");
    println!(
        "{:>6} {:>10} {:>9} {:>11} {:>8} {:>9} {:>10}",
        "ranks", "seconds", "speed-up", "efficiency", "waiting", "messages", "not spread"
    );
    let one = time(1).all();
    for &ranks in &options.ranks {
        let parts = time(ranks as usize);
        let (all, faster) = (parts.all(), one / parts.all());
        let percent = |part: f64| format!("{:.1} %", 100.0 * part / all);
        println!(
            "{ranks:>6} {all:>10.3} {faster:>9.2} {:>11} {:>8} {:>9} {:>10}",
            format!("{:.1} %", 100.0 * faster / f64::from(ranks)),
            percent(parts.wait),
            percent(parts.messages),
            percent(parts.alike)
        );
    }
}

fn main() {
    let options = ClusterOptions::parse();
    let network = MessageTimes { latency: options.latency_us / 1e6, bytes_per_s: options.gbit_per_s * 1e9 / 8.0 };
    let title = format!("A step of training: {} windows, {} numbers", options.batch, options.parameters);
    table(&title, &options, |ranks| training(&options, network, ranks));
    println!();
    table(&format!("An evaluation of {} windows", options.windows), &options, |ranks| {
        evaluation(&options, network, ranks)
    });
}
