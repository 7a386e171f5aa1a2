//! `snnc bench`: how fast a program runs here.

use crate::args::{BATCH_MAX, EngineArgs, ThreadArgs, WhichEngine};
use crate::output::{emit, emit_json, status};
use crate::plan::PlanArgs;
use clap::Args;
use serde_json::{Value as Json, json};
use snnc::bench::{self, Setting, Speeds};
use snnc::model::{EngineOptions, Source, threads_or_all};
use snnc::{Complaints, files, prices};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::verify::CONTEXT_MAX;
use snnc_ir::{Diagnostic, Stage};
use snnc_runtime::{Isa, Program};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure load, prefill and decoding of a .snn program on seeded ids; the best of some runs
#[derive(Args, Debug)]
pub struct Bench {
    /// The .snn file
    #[arg(required_unless_present = "measure_prices")]
    model: Option<PathBuf>,
    /// Lengths of prompts to measure; those beyond the context are left out
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "16,128,1024")]
    prompts: Vec<usize>,
    /// Tokens before the ones whose decoding is measured
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "128,512,900")]
    depths: Vec<usize>,
    /// Numbers of sequences whose decoding together, past 128 tokens each, is measured
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX))]
    batches: Vec<u32>,
    /// Tokens to decode at each depth
    #[arg(long, value_name = "N", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..))]
    decoded: u32,
    /// Runs of which the best counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Count events while running, as `energy` does: what the meter costs
    #[arg(long)]
    metered: bool,
    /// Measure the form that runs every timestep, spike by spike, as well
    #[arg(long)]
    stepped: bool,
    /// Make this share of all neurons fire, once each, whatever they read; results then mean nothing
    #[arg(long, value_name = "SHARE", value_parser = share)]
    density: Option<f64>,
    /// Let sequences have so many tokens: positions repeat where the network has fewer; results then mean nothing
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTEXT_MAX)))]
    context: Option<u32>,
    /// Measure what rows of weights cost on this machine, and write the prices as JSON; with a model, measure it with them
    #[arg(long, value_name = "FILE", conflicts_with = "prices")]
    measure_prices: Option<PathBuf>,
    /// What rows of weights cost on this machine, from --measure-prices
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    /// Write JSON to standard output
    #[arg(long)]
    json: bool,
    /// Compare with the JSON of an earlier run on this machine
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How much slower than the baseline a figure may be: beyond, the exit status is 3
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent, requires = "baseline")]
    max_regress: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_string())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("it is a number from 0 to 1".into()) }
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "it is no number of percent".to_string())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("it is a number from 0 up".into()) }
}

/// Figures that a baseline is compared by: whether more is better.
const FIGURES: [(&str, bool); 5] = [
    ("load_ms", false),
    ("prefill_128_tokens_per_s", true),
    ("prefill_1024_tokens_per_s", true),
    ("decode_tokens_per_s", true),
    ("peak_rss_mb", false),
];

impl Bench {
    /// Whether no figure is worse than the baseline allows.
    pub fn run(self) -> Result<bool, Complaints> {
        let own = self.measure_prices.as_deref().map(measure_prices).transpose()?;
        let Some(model) = &self.model else { return Ok(true) };
        let prices = own.or(self.prices.clone());
        let load = || {
            let graph = match files::load(model)? {
                files::Model::Snn(file) if file.graph.stage == Stage::Spiking => file.graph,
                _ => {
                    let place = model.display().to_string();
                    return Err(Diagnostic::new(place, "is no .snn program").note("compile it first").into());
                }
            };
            let graph = match self.context {
                Some(context) => bench::with_context(&graph, context)?,
                None => graph,
            };
            match self.density {
                Some(density) => bench::with_density(&graph, density),
                None => Ok(graph),
            }
        };
        let baseline = self.baseline.as_ref().map(|path| read(path)).transpose()?;
        let threads = threads_or_all(self.threads.threads);
        let program = |stepped| {
            let source = Source { graph: load()?, rounded: false };
            let engine =
                EngineArgs { which: WhichEngine { stepped, ..WhichEngine::default() }, prices: prices.clone() };
            source.program(&EngineOptions { count: self.metered, ..self.threads.of(engine.options()?) })
        };
        let setting = Setting {
            prompts: self.prompts.clone(),
            depths: self.depths.clone(),
            batches: self.batches.iter().map(|&n| n as usize).collect(),
            decoded: self.decoded as usize,
            repeats: self.repeats as usize,
        };
        let ([load_ms, first_ms], fast) = bench::first_token(&|| program(false))?;
        let collapsed = bench::measure(&fast, &setting)?;
        let peak = bench::peak_rss_mb();
        let bytes = bench::weight_bytes(fast.graph());
        let density = bench::density(fast.graph(), 64)?;
        let mut plans = String::new();
        let mut explain = |program: &Arc<Program>| {
            self.plan.show(program, None, &mut |text| {
                plans += text;
                Ok(())
            })
        };
        explain(&fast)?;
        drop(fast);
        let stepped = if self.stepped {
            let slow = program(true)?;
            let speeds = bench::measure(&slow, &setting)?;
            explain(&slow)?;
            Some(speeds)
        } else {
            None
        };
        let memory = bench::memory_read_gb_per_s(threads);
        let decode = Speeds::at(&collapsed.decode, 128);
        let real = decode.filter(|_| self.density.is_none()).zip(memory);
        let share = real.map(|(rate, most)| rate * bytes as f64 / 1e9 / most);
        let all = json!({
            "model": model.display().to_string(), "threads": threads,
            "load_ms": load_ms, "first_token_ms": first_ms,
            "prefill_128_tokens_per_s": Speeds::at(&collapsed.prefill, 128),
            "prefill_1024_tokens_per_s": Speeds::at(&collapsed.prefill, 1024),
            "decode_tokens_per_s": decode,
            "memory_read_gb_per_s": memory, "decode_share_of_memory": share,
            "decoded_tokens": self.decoded, "peak_rss_mb": peak, "weight_bytes": bytes,
            "density": density, "collapsed": collapsed.json(), "stepped": stepped.as_ref().map(Speeds::json),
        });
        if self.json {
            emit_json(&all)?;
            if !plans.is_empty() {
                status(plans.trim_end());
            }
        } else {
            let gap = if plans.is_empty() { "" } else { "\n" };
            emit(&format!("{}{gap}{plans}", table(&all, &collapsed, stepped.as_ref())))?;
        }
        Ok(baseline.is_none_or(|baseline| kept(&all, &baseline, self.max_regress)))
    }
}

/// Measures prices and writes them; the file's name.
fn measure_prices(path: &Path) -> Result<PathBuf, Complaints> {
    files::check_writable(path)?;
    let isa = Isa::detect().map_err(|message| Diagnostics::from(Diagnostic::new("", message)))?;
    let json = prices::json(&snnc_runtime::kernel_costs::measure(Some(isa))?, isa);
    files::write_whole(path, |out| writeln!(out, "{json:#}"))?;
    status(&format!("{}: written", path.display()));
    Ok(path.to_path_buf())
}

fn read(path: &Path) -> Result<Json, Complaints> {
    let text = files::read_text(path)?;
    serde_json::from_str(&text).map_err(|e| {
        Diagnostics::from(Diagnostic::new(
            path.display().to_string(),
            format!("is no JSON of `snnc bench --json` ({e})"),
        ))
    })
}

/// Says which figures are worse than the baseline by more than so many percent; whether there are none.
fn kept(now: &Json, before: &Json, most: f64) -> bool {
    let mut kept = true;
    for (name, more_is_better) in FIGURES {
        let (Some(now), Some(before)) = (now[name].as_f64(), before[name].as_f64()) else { continue };
        let worse = if more_is_better { before / now - 1.0 } else { now / before - 1.0 };
        if worse * 100.0 > most {
            status(&format!("{name}: {now:.1}, the baseline has {before:.1}: {:.1} % worse", 100.0 * worse));
            kept = false;
        }
    }
    kept
}

fn table(all: &Json, collapsed: &Speeds, stepped: Option<&Speeds>) -> String {
    let number = |name: &str| all[name].as_f64().map_or("-".to_string(), |x| format!("{x:.0}"));
    let mut text = format!(
        "{:<28} {:>10} ms   first token after {} ms\n{:<28} {:>10} MB\n{:<28} {:>10.1} % of neurons fire at a timestep\n",
        "load",
        number("load_ms"),
        number("first_token_ms"),
        "peak memory",
        number("peak_rss_mb"),
        "density",
        100.0 * all["density"].as_f64().unwrap_or(0.0),
    );
    if let Some(memory) = all["memory_read_gb_per_s"].as_f64() {
        text += &format!("{:<28} {memory:>10.1} GB/s", "memory, read in order");
    }
    if let Some(share) = all["decode_share_of_memory"].as_f64() {
        text += &format!("   decoding past 128 reads weights at {:.0} % of it", 100.0 * share);
    }
    text.push('\n');
    for (form, speeds) in [("collapsed", Some(collapsed)), ("stepped", stepped)] {
        let Some(speeds) = speeds else { continue };
        for rate in &speeds.prefill {
            let what = format!("{form}, prompt of {}", rate.at);
            text += &format!("{what:<28} {:>10.1} tokens/s\n", rate.tokens_per_s);
        }
        for rate in &speeds.decode {
            let what = format!("{form}, decoding past {}", rate.at);
            text += &format!("{what:<28} {:>10.1} tokens/s\n", rate.tokens_per_s);
        }
        for rate in &speeds.batched {
            let what = format!("{form}, {} sequences", rate.at);
            let past = bench::BATCH_DEPTH;
            text += &format!("{what:<28} {:>10.1} tokens/s in all, past {past}\n", rate.tokens_per_s);
        }
    }
    text
}
