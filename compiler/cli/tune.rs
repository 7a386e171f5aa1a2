//! `snnc tune`: timesteps site by site within a budget, and the front of what else could be had.

use crate::args::share;
use crate::bar::Bar;
use crate::output::{emit, emit_json, status};
use crate::wishes::flags;
use clap::Args;
use serde_json::json;
use snnc::evaluate::Cut;
use snnc::model::{Loaded, calibration_sample, threads_or_all};
use snnc::progress::Workers;
use snnc::tune::{Allocation, Goal, Point, TIMESTEPS, Tuner};
use snnc::{Complaints, calibrate, convert, files, ledger};
use snnc_ir::Diagnostic;
use snnc_passes::levels::Levels;
use snnc_passes::options::QuantOptions;
use snnc_runtime::{Options, Program};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Find the fewest spikes within a budget of perplexity, site by site
#[derive(Args, Debug)]
pub struct Tune {
    /// The ONNX file
    model: PathBuf,
    /// What may be spent: `perplexity+1%`, or `timesteps=4` on average over neurons, of which the least is lost
    #[arg(long, value_name = "BUDGET", default_value = "perplexity+1%", value_parser = budget)]
    budget: Budget,
    /// What is to be small within a budget of perplexity
    #[arg(long, value_name = "GOAL", default_value = "energy", value_parser = goal)]
    minimise: Goal,
    /// Text that points are measured on; another one than is evaluated later
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Windows of that text, spread evenly over it
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    windows: u32,
    /// Text that levels are fitted to [default: a built-in one]
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Tokens of that text to run [default: 16384; fewer for networks of more than 90 M weights]
    #[arg(long, value_name = "N")]
    calibration_tokens: Option<usize>,
    /// Tokens that every site is probed on [default: 2048; fewer for large networks]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    probe_tokens: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Threads; the result does not depend on them
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn goal(text: &str) -> Result<Goal, String> {
    let names = || Goal::ALL.map(Goal::name).join(", ");
    let found = Goal::ALL.into_iter().find(|goal| goal.name() == text);
    found.ok_or_else(|| format!("there is no `{text}` to minimise; there are {}", names()))
}

#[derive(Clone, Copy, Debug)]
enum Budget {
    /// The rise of perplexity, as a share.
    Perplexity(f64),
    /// The mean over neurons.
    Timesteps(f64),
}

fn budget(text: &str) -> Result<Budget, String> {
    let budget = match (text.strip_prefix("perplexity+"), text.strip_prefix("timesteps=")) {
        (Some(rise), _) => Budget::Perplexity(share(rise)?),
        (_, Some(steps)) => Budget::Timesteps(steps.parse().map_err(|_| format!("`{steps}` is no number"))?),
        _ => return Err("a budget is written perplexity+1% or timesteps=4".into()),
    };
    let (Budget::Perplexity(limit) | Budget::Timesteps(limit)) = budget;
    if limit > 0.0 { Ok(budget) } else { Err("a budget is more than 0".into()) }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Budget::Perplexity(rise) => write!(f, "perplexity+{:.4}%", 100.0 * rise),
            Budget::Timesteps(steps) => write!(f, "timesteps={steps}"),
        }
    }
}

/// Points of the front that are measured beside the one that keeps the budget.
const SHOWN: [f64; 4] = [0.1, 0.3, 2.0, 5.0];

/// Halvings of the front until the budget's place is known.
const HALVINGS: usize = 7;

impl Tune {
    /// Whether the budget can be kept.
    pub fn run(self) -> Result<bool, Complaints> {
        let bar = Bar::default();
        let loaded = Loaded::read(&self.model)?;
        if loaded.source.graph.stage != snnc_ir::Stage::Imported {
            let message = "is compiled already; tune the ONNX file it was made from";
            return Err(Diagnostic::new(self.model.display().to_string(), message).into());
        }
        let tokens = loaded.tokens()?;
        let text = files::read_text(&self.text)?;
        let ids = tokens.document(&text)?;
        let sample = calibration_sample(Some(&tokens), self.calibrate.as_deref(), &bar)?;
        let tensor = convert::dense(loaded.source.graph, loaded.source.rounded, &mut |_, _, _| {})?;
        let calibration_tokens =
            self.calibration_tokens.unwrap_or_else(|| convert::calibration_tokens(tensor.parameters())).max(1);
        let (windows, _) = convert::sample_windows(&tensor, &sample, calibration_tokens)?;
        let seen =
            calibrate::calibrate(&tensor, &windows, Workers { threads: threads_or_all(self.threads), progress: &bar })?;
        let tuner = Tuner {
            tensor: &tensor,
            seen: &seen,
            ids: &ids,
            cut: Cut { length: None, stride: None, windows: self.windows as usize },
            probe_tokens: self.probe_tokens.map_or_else(|| ledger::tokens(&tensor), |n| n as usize),
            threads: threads_or_all(self.threads),
            progress: &bar,
            base: QuantOptions { zero_point: self.goal().zero_point(), ..QuantOptions::uniform(Levels::default()) },
        };
        let options = Options { count: false, ..Options::default() };
        let dense = Program::new(Arc::new(tensor.clone()), &options).map(Arc::new)?;
        let front = tuner.front(self.goal())?;
        let (mut points, chosen) = match self.budget {
            Budget::Perplexity(rise) => self.search(&tuner, &dense, &front, rise)?,
            Budget::Timesteps(steps) => within(&tuner, &dense, &front, steps)?,
        };
        for steps in TIMESTEPS.filter(|steps| *steps > 2) {
            points.push(tuner.uniform(&dense, steps)?);
        }
        points.sort_by(|a, b| a.increase.total_cmp(&b.increase));
        let flags_of = |point: &Point| flags(&point.wishes);
        if self.json {
            let json = json!({
                "budget": self.budget.to_string(), "minimise": self.goal().name(),
                "chosen": chosen.as_ref().map(|point| point.json(&flags_of(point))),
                "points": points.iter().map(|point| point.json(&flags_of(point))).collect::<Vec<_>>(),
            });
            emit_json(&json)?;
        } else {
            emit(&table(&points, chosen.as_ref(), &self.budget.to_string()))?;
        }
        if chosen.is_none() {
            status("not kept: no allocation of up to 8 timesteps keeps the budget");
        }
        Ok(chosen.is_some())
    }

    fn goal(&self) -> Goal {
        match self.budget {
            Budget::Perplexity(_) => self.minimise,
            Budget::Timesteps(_) => Goal::Timesteps,
        }
    }

    /// Measured points of the front, and the cheapest that keeps a budget of perplexity.
    fn search(
        &self,
        tuner: &Tuner<'_>,
        dense: &Arc<Program>,
        front: &[Allocation],
        budget: f64,
    ) -> Result<(Vec<Point>, Option<Point>), Complaints> {
        let mut points: Vec<Point> = Vec::new();
        let mut chosen: Option<Point> = None;
        // Damage rises along the front: the last point that keeps the budget is the cheapest.
        let (mut kept, mut lost) = (0, front.len());
        for _ in 0..HALVINGS {
            if lost - kept < 2 {
                break;
            }
            // What is predicted is near what is measured, so the first guess is the prediction.
            let middle = if points.is_empty() { at_damage(front, budget) } else { (kept + lost) / 2 };
            let middle = middle.clamp(kept + 1, lost - 1);
            let point = tuner.measure(dense, &front[middle])?;
            if point.increase <= budget {
                kept = middle;
                if chosen.as_ref().is_none_or(|best| point.cost(self.minimise) < best.cost(self.minimise)) {
                    chosen = Some(point.clone());
                }
            } else {
                lost = middle;
            }
            points.push(point);
        }
        for share in SHOWN {
            let i = at_damage(front, share * budget);
            points.push(tuner.measure(dense, &front[i])?);
        }
        Ok((points, chosen))
    }
}

/// The point of the front with the least damage whose timesteps are at most so many on average; and some beside it.
fn within(
    tuner: &Tuner<'_>,
    dense: &Arc<Program>,
    front: &[Allocation],
    steps: f64,
) -> Result<(Vec<Point>, Option<Point>), Complaints> {
    let neurons = tuner.neurons();
    let at = |steps: f64| front.iter().position(|allocation| allocation.cost <= steps * neurons);
    let mut points = Vec::new();
    for more in [1.0, 0.5, -0.5] {
        if let Some(i) = at(steps + more) {
            points.push(tuner.measure(dense, &front[i])?);
        }
    }
    let chosen = at(steps).map(|i| tuner.measure(dense, &front[i])).transpose()?;
    points.extend(chosen.clone());
    Ok((points, chosen))
}

/// The last point of the front whose predicted damage is at most so much.
fn at_damage(front: &[Allocation], damage: f64) -> usize {
    front.iter().rposition(|allocation| allocation.damage <= damage).unwrap_or(0)
}

fn table(points: &[Point], chosen: Option<&Point>, budget: &str) -> String {
    let mut text = format!(
        "{:>11} {:>10} {:>8} {:>6} {:>11} {:>15}  {}\n",
        "perplexity", "KL, nats", "spikes/", "mean", "additions/", "paper45 saves %", ""
    );
    text += &format!(
        "{:>11} {:>10} {:>8} {:>6} {:>11} {:>9} {:>5}  flags\n",
        "", "", "neuron", "T", "token", "attention", "all"
    );
    for point in points {
        let mark = if point.allocation.is_none() { "uniform: " } else { "" };
        text += &format!(
            "{:>+9.3} % {:>10.6} {:>8.3} {:>6.2} {:>11} {:>9} {:>5}  {mark}{}\n",
            100.0 * point.increase,
            point.kl,
            point.spikes,
            point.timesteps,
            snnc::energy::quantity(point.additions),
            snnc::energy::table::percent(point.savings[0][0]),
            snnc::energy::table::percent(point.savings[0][1]),
            flags(&point.wishes),
        );
    }
    if let Some(point) = chosen {
        text += &format!(
            "\nwithin {budget}: {:+.3} %, {:.3} spikes a neuron, {:.2} timesteps on average\n  snnc compile MODEL {}\n",
            100.0 * point.increase,
            point.spikes,
            point.timesteps,
            flags(&point.wishes)
        );
    }
    text
}
