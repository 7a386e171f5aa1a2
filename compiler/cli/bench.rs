//! `snnc bench`: how fast a program runs here.

use crate::args::{BATCH_MAX, ThreadArgs};
use crate::bar::Bar;
use crate::format::{self, Figures, Format, FormatArgs};
use crate::output::{emit, failed, status};
use crate::plan::PlanArgs;
use crate::table::Grid;
use clap::Args;
use serde_json::{Value as Json, json};
use snnc::bench::{BATCH_DEPTH, Baseline, BenchJson, BenchOptions, SpeedAt, SpeedOptions, Speeds, bench};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::kernel_costs;
use snnc::model::EngineOptions;
use snnc::run_record::RunRecord;
use snnc::schema::document;
use snnc_ir::Diagnostic;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::verify::CONTEXT_MAX;
use snnc_runtime::{Isa, Program};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure how fast a .snn program loads, prefills and decodes
///
/// Token ids are seeded. The best of several runs counts.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc bench model.snn -t 1
  snnc bench model.snn --json > before.json
  snnc bench model.snn --baseline before.json --max-regress 3%")]
pub struct BenchCommand {
    /// The .snn file
    #[arg(required_unless_present = "measure_kernel_costs")]
    model: Option<PathBuf>,
    /// Prompt lengths to measure. Lengths beyond the context are left out
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "16,128,1024",
        help_heading = "What to measure"
    )]
    prompts: Vec<usize>,
    /// Context lengths at which decoding is measured
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        default_value = "128,512,900",
        help_heading = "What to measure"
    )]
    depths: Vec<usize>,
    /// Numbers of sequences to decode together, each past 128 tokens
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=BATCH_MAX), help_heading = "What to measure")]
    batches: Vec<u32>,
    /// Tokens to decode at each depth
    #[arg(long, value_name = "N", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..), help_heading = "What to measure")]
    decoded: u32,
    /// Runs per figure. The best one counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=REPEATS_MAX), help_heading = "What to measure")]
    repeats: u32,
    #[command(flatten)]
    threads: ThreadArgs,
    /// Count spikes and operations while running, as `energy` does
    #[arg(long, help_heading = "Engine")]
    metered: bool,
    /// Also measure the program that runs every timestep, spike by spike
    #[arg(long, help_heading = "Engine")]
    stepped: bool,
    /// Make this share of all neurons fire once. The network then computes nonsense at a known density
    #[arg(long, value_name = "SHARE", value_parser = share, help_heading = "What to measure")]
    density: Option<f64>,
    /// Length of the context. Positions repeat beyond those that the network has, and it then computes nonsense
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(CONTEXT_MAX)), help_heading = "What to measure")]
    context: Option<u32>,
    /// Measure what reading weight rows costs on this machine and write the costs as JSON.
    ///
    /// With a model, the model is then measured with these costs.
    #[arg(long, value_name = "FILE", conflicts_with = "kernel_costs")]
    measure_kernel_costs: Option<PathBuf>,
    /// Costs of reading weight rows on this machine, from --measure-kernel-costs.
    ///
    /// They change the speed and no result.
    #[arg(long, value_name = "FILE", help_heading = "Engine")]
    kernel_costs: Option<PathBuf>,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// Compare with the JSON of an earlier run on the same machine
    #[arg(long, value_name = "FILE", help_heading = "Limits, for exit status 3")]
    baseline: Option<PathBuf>,
    /// How much worse than the baseline a figure may be. Beyond it, the exit status is 3
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = regress, requires = "baseline", help_heading = "Limits, for exit status 3")]
    max_regress: f64,
}

/// Most runs per figure.
const REPEATS_MAX: i64 = 1000;

fn share(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_string())?;
    if (0.0..=1.0).contains(&number) { Ok(number) } else { Err("it is a number from 0 to 1".into()) }
}

fn regress(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| "it is no number of percent".to_string())?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("it is a number from 0 up".into()) }
}

impl BenchCommand {
    pub fn files(&self) -> FileUse {
        let used = FileUse::default().reads_models("the model", &self.model).reads("--baseline", &self.baseline);
        let used = used.reads("--kernel-costs", &self.kernel_costs);
        self.plan.files(used.writes("--measure-kernel-costs", &self.measure_kernel_costs))
    }

    /// Whether no figure is worse than the baseline allows.
    pub fn run(self) -> Result<bool, Diagnostics> {
        let measured = self.measure_kernel_costs.as_deref().map(measure_kernel_costs).transpose()?;
        let Some(model) = &self.model else { return Ok(true) };
        // What is wrong with the baseline shows before long work.
        let baseline = self.baseline.as_deref().map(Baseline::read).transpose()?;
        let costs = measured.or(self.kernel_costs.clone());
        let options = self.options(model, costs.as_deref())?;
        let mut plans = String::new();
        let measured = bench(&options, &Bar::default(), &mut |program: &Arc<Program>| {
            self.plan.show(program, None, &mut |text| {
                plans += text;
                Ok(())
            })
        })?;
        let format = self.format.format();
        format::print(&measured, format)?;
        match format {
            _ if plans.is_empty() => {}
            Format::Table => emit(&format!("\n{plans}"))?,
            Format::Md | Format::Csv | Format::Latex | Format::Json => status(plans.trim_end()),
        }
        let Some(baseline) = baseline else { return Ok(true) };
        let worse = baseline.regressions(&measured, self.max_regress / 100.0);
        for figure in &worse {
            let (name, now, before) = (figure.name, figure.now, figure.before);
            failed(&format!("{name}: {now:.1}, the baseline has {before:.1}: {:.1} % worse", 100.0 * figure.worse));
        }
        Ok(worse.is_empty())
    }

    fn options(&self, model: &Path, costs: Option<&Path>) -> Result<BenchOptions, Diagnostics> {
        let kernel_costs = costs.map(kernel_costs::read).transpose()?;
        let engine = EngineOptions { count: self.metered, kernel_costs, ..EngineOptions::default() };
        Ok(BenchOptions {
            model: model.to_path_buf(),
            speeds: SpeedOptions {
                prompts: self.prompts.clone(),
                depths: self.depths.clone(),
                batches: self.batches.iter().map(|&n| n as usize).collect(),
                decoded: self.decoded as usize,
                repeats: self.repeats as usize,
            },
            engine: self.threads.of(engine),
            stepped: self.stepped,
            density: self.density,
            context: self.context,
        })
    }
}

/// Measures kernel costs and writes them; the file's name.
fn measure_kernel_costs(path: &Path) -> Result<PathBuf, Diagnostics> {
    let isa =
        Isa::detect().map_err(|message| Diagnostics::from(Diagnostic::new("", message).code(ErrorCode::OPTION)))?;
    let json = kernel_costs::json(&snnc_runtime::kernel_timing::measure(Some(isa))?, isa);
    files::write_whole(path, |out| writeln!(out, "{json:#}"))?;
    status(&format!("{}: written", path.display()));
    Ok(path.to_path_buf())
}

impl Figures for BenchJson {
    fn json(&self, run: Option<&RunRecord>) -> Json {
        document(self, run)
    }

    fn text(&self) -> String {
        table(self)
    }

    fn grids(&self) -> Vec<Grid> {
        let caption = format!("Speeds of {} on {} threads; the best of several runs.", self.model, self.threads);
        let mut grid = Grid::new(caption, &["form", "work", "at", "tokens per second"]);
        for (form, work, speed) in all_speeds(self) {
            grid.rows.push(vec![form.into(), work.into(), speed.at.to_string(), format!("{:.1}", speed.tokens_per_s)]);
        }
        vec![grid]
    }

    fn rows(&self, _: &Json) -> Vec<Json> {
        let row = |(form, work, speed): (&str, &str, SpeedAt)| {
            json!({
                "model": self.model, "threads": self.threads, "form": form, "work": work, "at": speed.at,
                "tokens_per_s": speed.tokens_per_s,
            })
        };
        all_speeds(self).map(row).collect()
    }
}

/// Every speed, with the form and the work that it is of.
fn all_speeds(all: &BenchJson) -> impl Iterator<Item = (&'static str, &'static str, SpeedAt)> {
    let forms = [Some(("collapsed", &all.collapsed)), all.stepped.as_ref().map(|stepped| ("stepped", stepped))];
    forms.into_iter().flatten().flat_map(|(form, speeds)| {
        let works = [("prefill", &speeds.prefill), ("decode", &speeds.decode), ("batch", &speeds.batched)];
        works.into_iter().flat_map(move |(work, at)| at.iter().map(move |speed| (form, work, *speed)))
    })
}

fn table(all: &BenchJson) -> String {
    let line = |name: &str, value: f64, digits: usize, unit: &str| format!("{name:<28} {value:>10.digits$} {unit}\n");
    let first = format!("ms   first token after {:.0} ms", all.first_token_ms);
    let mut text = line("load", all.load_ms, 0, &first);
    text += &all.peak_rss_mb.map_or(String::new(), |mb| line("peak memory", mb, 0, "MB"));
    text += &line("density", 100.0 * all.density, 1, "% of neurons fire at a timestep");
    if let Some(memory) = all.memory_read_gb_per_s {
        let share = all.decode_share_of_memory;
        let share = share.map(|share| format!("   decoding past 128 reads weights at {:.0} % of it", 100.0 * share));
        text += &line("memory, read in order", memory, 1, &format!("GB/s{}", share.unwrap_or_default()));
    }
    text += &speeds("collapsed", &all.collapsed);
    text + &all.stepped.as_ref().map_or(String::new(), |stepped| speeds("stepped", stepped))
}

/// A line for every speed.
fn speeds(form: &str, speeds: &Speeds) -> String {
    let line = |what: String, rate: f64, more: String| format!("{what:<28} {rate:>10.1} tokens/s{more}\n");
    let prefill = speeds.prefill.iter();
    let prefill = prefill.map(|s| line(format!("{form}, prompt of {}", s.at), s.tokens_per_s, String::new()));
    let decode = speeds.decode.iter();
    let decode = decode.map(|s| line(format!("{form}, decoding past {}", s.at), s.tokens_per_s, String::new()));
    let past = format!(" in all, past {BATCH_DEPTH}");
    let batched = speeds.batched.iter();
    let batched = batched.map(|s| line(format!("{form}, {} sequences", s.at), s.tokens_per_s, past.clone()));
    prefill.chain(decode).chain(batched).collect()
}
