//! Timesteps site by site: the cheapest that keep a budget of perplexity.
//!
//! Damage is taken as additive, which the ledger measures it to be: a site with `T` timesteps costs its divergence alone.
//! So the best allocation at every price of a nat is each site's own best, and lowering that price walks along the convex
//! front of damage and cost, one site and one change at a time. Points of that front are then converted and measured;
//! the budget is kept by what was measured, never by what was predicted.

use super::journal::Journal;
use super::point::{Allocation, Goal, Point};
use crate::energy::{self, Block, Phase, PriceList, Setting};
use crate::evaluate::{NeuronTotals, TextEvaluation, Window, evaluate_programs};
use crate::ledger::damages;
use crate::parallel::side_by_side;
use crate::progress::Workers;
use crate::quant_options::spelled;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, Value};
use snnc_passes::cost::{Form, Number, Part, fan_out};
use snnc_passes::fit::{QuantParams, QuantPlan, fit};
use snnc_passes::levels::Levels;
use snnc_passes::moments::{MomentSource, SiteMoments};
use snnc_passes::observed::Observations;
use snnc_passes::options::{Override, QuantOptions};
use snnc_passes::quantise::quantise;
use snnc_passes::sites::{Role, SiteValue, sites};
use snnc_passes::{Context, front_and_back, run};
use snnc_runtime::{Options, Program};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Timesteps that are tried at every site.
pub const TIMESTEPS: std::ops::RangeInclusive<u16> = 1..=8;

/// What is converted and measured.
#[derive(Clone, Copy, Debug)]
pub enum Candidate<'a> {
    /// Timesteps by site.
    Allocated(&'a Allocation),
    /// The same timesteps everywhere.
    Uniform(u16),
}

/// Tokens of a window that sites are probed on, at most.
const PROBE_WINDOW: usize = 256;

/// A network and the texts that it is tuned with.
#[derive(Debug)]
pub struct Tuner<'a> {
    /// The dense network.
    pub tensor: &'a Graph,
    /// What its sites hold on the calibration text.
    pub seen: &'a Observations,
    /// Which channels go together on it: by them the weights of a point are rounded, without them to nearest.
    pub moments: &'a SiteMoments,
    /// Tokens that points are measured on.
    pub ids: &'a [u32],
    /// Windows of them.
    pub ranges: &'a [Window],
    /// Tokens that sites are probed on.
    pub probe_tokens: usize,
    /// How probes and windows are run.
    pub workers: Workers<'a>,
    /// What was measured before.
    pub journal: &'a Journal,
    /// The options that all points share.
    pub base: QuantOptions,
}

impl Tuner<'_> {
    fn sites(&self) -> Vec<SiteValue> {
        sites(self.tensor).into_iter().filter(|site| self.base.of(site).is_some()).collect()
    }

    /// Neurons of all sites.
    pub fn neurons(&self) -> f64 {
        let width = |site: &SiteValue| self.tensor.ty(site.value).shape().width().unwrap_or(0) as f64;
        self.sites().iter().map(width).sum()
    }

    fn options(&self, steps: u16) -> QuantOptions {
        QuantOptions { levels: Levels { steps, ..self.base.levels }, ..self.base.clone() }
    }

    /// The front of predicted damage and cost, the least damage first.
    ///
    /// # Errors
    /// A probe cannot be run.
    pub fn front(&self, goal: Goal) -> Result<Vec<Allocation>, Diagnostics> {
        let sites = self.sites();
        let mut by_steps: Vec<QuantPlan> = Vec::new();
        for steps in TIMESTEPS {
            by_steps.push(fit(self.tensor, self.seen, &self.options(steps).with_plain_head(self.tensor))?);
        }
        let choices: Vec<(usize, usize)> =
            (0..sites.len()).flat_map(|site| (0..by_steps.len()).map(move |choice| (site, choice))).collect();
        let graph_of = |&(site, choice): &(usize, usize)| {
            let whole = &by_steps[choice];
            let alone = sites[site].value;
            let chosen = whole.sites.iter().map(|(value, fit)| (*value, fit.clone().filter(|_| *value == alone)));
            let quant_plan = QuantPlan { sites: chosen.collect(), exact_weights: true, ..whole.clone() };
            quantise(self.tensor, &Context { quant_plan, ..Context::default() })
        };
        let windows = self.probe_windows();
        let unknown: Vec<(usize, usize)> =
            choices.iter().copied().filter(|&choice| self.journal.probe(choice).is_none()).collect();
        let keep = |&choice: &(usize, usize), loss: f64| self.journal.keep_probe(choice, loss);
        let measured = match unknown.is_empty() {
            true => Vec::new(),
            false => damages(self.tensor, &unknown, &graph_of, &keep, self.ids, &windows, self.workers)?,
        };
        let mut measured = measured.into_iter();
        let losses: Vec<f64> =
            choices.iter().filter_map(|&choice| self.journal.probe(choice).or_else(|| measured.next())).collect();
        let cost = |&(site, choice): &(usize, usize)| {
            let value = sites[site].value;
            let fit = by_steps[choice].sites[&value].as_ref();
            fit.map_or(0.0, |fit| self.cost(value, fit, goal))
        };
        let costs: Vec<f64> = choices.iter().map(cost).collect();
        let tables: Vec<Vec<(f64, f64)>> = losses
            .chunks(by_steps.len())
            .zip(costs.chunks(by_steps.len()))
            .map(|(losses, costs)| losses.iter().copied().zip(costs.iter().copied()).collect())
            .collect();
        let least = *TIMESTEPS.start();
        let front = walk(&tables);
        Ok(front
            .into_iter()
            .map(|(chosen, damage, cost)| {
                let steps = chosen.into_iter().map(|choice| least + choice as u16).collect();
                Allocation { steps, damage, cost }
            })
            .collect())
    }

    /// What a site's neurons cost per token, as far as the sample tells.
    fn cost(&self, site: Value, fit: &QuantParams, goal: Goal) -> f64 {
        let width = fit.scale.len() as f64;
        match goal {
            Goal::Timesteps => width * f64::from(fit.levels.steps),
            Goal::Spikes => width * fit.spikes(&self.seen[&site]),
            Goal::Energy => width * fit.spikes(&self.seen[&site]) * fan_out(self.tensor, site, |_| true),
            Goal::Attention => width * fit.spikes(&self.seen[&site]) * fan_out(self.tensor, site, Part::is_attention),
        }
    }

    /// Starts of some of the windows, evenly spread over them: `probe_tokens` in all, or a few more.
    fn probe_windows(&self) -> Vec<Range<usize>> {
        let longest = self.ranges.iter().map(|window| window.inputs.len()).max().unwrap_or(0);
        let length = longest.min(PROBE_WINDOW).min(self.probe_tokens).max(1);
        let count = self.probe_tokens.div_ceil(length).clamp(1, self.ranges.len().max(1));
        let start = |i: usize| {
            let Range { start, end } = self.ranges[i * self.ranges.len() / count].inputs;
            start..end.min(start + length)
        };
        (0..count.min(self.ranges.len())).map(start).collect()
    }

    /// Converts and measures allocations, all on one pass of the dense network.
    ///
    /// # Errors
    /// One cannot be run.
    pub fn measure(&self, dense: &Arc<Program>, wanted: &[Candidate<'_>]) -> Result<Vec<Point>, Diagnostics> {
        let options: Vec<QuantOptions> = wanted.iter().map(|wanted| self.options_for(*wanted)).collect();
        let unknown: Vec<QuantOptions> =
            options.iter().filter(|options| self.journal.point(&spelled(options)).is_none()).cloned().collect();
        self.measure_unknown(dense, unknown)?;
        let known = |(options, wanted): (&QuantOptions, &Candidate<'_>)| {
            let point = Point { options: options.clone(), ..self.journal.point(&spelled(options))? };
            Some(match wanted {
                Candidate::Allocated(allocation) => Point { allocation: Some((*allocation).clone()), ..point },
                Candidate::Uniform(_) => point,
            })
        };
        let points: Vec<Point> = options.iter().zip(wanted).filter_map(known).collect();
        if points.len() < wanted.len() {
            return Err(Diagnostic::new("", "an allocation is spelled by options that cannot be read back").into());
        }
        Ok(points)
    }

    /// Converts and measures, and keeps what was found.
    fn measure_unknown(&self, dense: &Arc<Program>, all: Vec<QuantOptions>) -> Result<(), Diagnostics> {
        if all.is_empty() {
            return Ok(());
        }
        self.workers.progress.begin("converting", all.len() as u64);
        let mut programs = Vec::with_capacity(all.len());
        for options in &all {
            programs.push(self.program(options)?);
            self.workers.progress.advance(1);
        }
        self.workers.progress.end();
        let done = evaluate_programs(&programs, Some(dense), self.ids, self.ranges, self.workers)?;
        for ((program, done), options) in programs.iter().zip(&done).zip(all) {
            self.journal.keep_point(&point(program.graph(), done, options))?;
        }
        Ok(())
    }

    fn options_for(&self, wanted: Candidate<'_>) -> QuantOptions {
        match wanted {
            Candidate::Allocated(allocation) => self.options_of(&allocation.steps),
            Candidate::Uniform(steps) => self.options(steps),
        }
    }

    fn program(&self, options: &QuantOptions) -> Result<Arc<Program>, Diagnostics> {
        let quant_plan = fit(self.tensor, self.seen, options)?;
        let (_, back) = front_and_back();
        let membrane = options.membrane;
        let rotations = options.rotate.named();
        let side_by_side = side_by_side(self.workers.threads)?;
        let moments = Some(self.moments as &dyn MomentSource);
        let context = Context { rotations, quant_plan, membrane, moments, side_by_side, ..Context::default() };
        let graph = run(back, self.tensor.clone(), &context, &mut |_, _, _| {})?;
        let graph = snnc_passes::collapse::collapse(&graph)?;
        Ok(Program::new(Arc::new(graph), &Options::default()).map(Arc::new)?)
    }

    /// The options that give sites these timesteps, in few words: the commonest is the default, whole roles come before
    /// single sites.
    fn options_of(&self, steps: &[u16]) -> QuantOptions {
        let sites = self.sites();
        let all = commonest(steps.iter().copied());
        let mut options = self.options(all);
        let mut roles: BTreeMap<String, Vec<(String, u16)>> = BTreeMap::new();
        for (site, &steps) in sites.iter().zip(steps) {
            let role = site.site.role.path().to_string();
            roles.entry(role).or_default().push((site.to_string(), steps));
        }
        // What the head has without being named.
        let head = sites.iter().find(|site| site.role == Role::Head).and_then(|site| options.of(site));
        for (role, members) in roles {
            let usual = commonest(members.iter().map(|(_, steps)| *steps));
            let unnamed = head.filter(|_| role == Role::Head.path()).map_or(all, |levels| levels.steps);
            if usual != unnamed {
                options.overrides.push((role, Override::Steps(usual)));
            }
            let others = members.into_iter().filter(|(_, steps)| *steps != usual);
            options.overrides.extend(others.map(|(path, steps)| (path, Override::Steps(steps))));
        }
        options
    }
}

fn commonest(steps: impl Iterator<Item = u16>) -> u16 {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    steps.for_each(|steps| *counts.entry(steps).or_default() += 1);
    let most = counts.values().copied().max().unwrap_or(0);
    counts.into_iter().find(|(_, count)| *count == most).map_or(Levels::default().steps, |(steps, _)| steps)
}

fn point(graph: &Graph, done: &TextEvaluation, options: QuantOptions) -> Point {
    let score = &done.score;
    let neurons = NeuronTotals::of(graph, done);
    let setting = Setting { context: graph.context.into(), batch: 1, span: Options::default().chunk as u64 };
    let lists =
        ["paper45", "int45"].map(|name| PriceList::named(name).unwrap_or_else(|e| panic!("it is built in: {e:?}")));
    let estimate = energy::estimate(graph, &done.activity(), setting, lists.to_vec());
    let saved =
        |block, list| estimate.compare(block, list, Phase::Prefill, Form::Dense(Number::F32), Form::Collapsed).saving();
    Point {
        allocation: None,
        options,
        increase: score.perplexity() / score.perplexity_dense() - 1.0,
        kl: score.mean(score.kl),
        spikes: neurons.rate(),
        timesteps: neurons.mean_steps(),
        additions: estimate.additions(Block::Total),
        attention_additions: estimate.additions(Block::Attention),
        savings: lists.each_ref().map(|list| [Block::Attention, Block::Total].map(|block| saved(block, list))),
    }
}

/// The convex front of sums of one `(damage, cost)` out of every table: choices, damage, cost; the least damage first.
fn walk(tables: &[Vec<(f64, f64)>]) -> Vec<(Vec<usize>, f64, f64)> {
    // Where every table stands: the least damage, at the least cost of that.
    let first = |table: &Vec<(f64, f64)>| {
        let better = |&a: &usize, &b: &usize| table[a].0.total_cmp(&table[b].0).then(table[a].1.total_cmp(&table[b].1));
        (0..table.len()).min_by(better).unwrap_or(0)
    };
    let mut chosen: Vec<usize> = tables.iter().map(first).collect();
    let total = |chosen: &[usize]| {
        let sum = |i: fn(&(f64, f64)) -> f64| tables.iter().zip(chosen).map(|(table, &c)| i(&table[c])).sum::<f64>();
        (sum(|point| point.0), sum(|point| point.1))
    };
    let mut front = Vec::new();
    loop {
        let (damage, cost) = total(&chosen);
        front.push((chosen.clone(), damage, cost));
        // The change that saves most for what it loses.
        let mut best: Option<(f64, usize, usize)> = None;
        for (i, table) in tables.iter().enumerate() {
            let (damage, cost) = table[chosen[i]];
            for (c, &(worse, cheaper)) in table.iter().enumerate().filter(|(_, point)| point.1 < cost) {
                let price = (worse - damage).max(0.0) / (cost - cheaper);
                if best.is_none_or(|(least, ..)| price < least) {
                    best = Some((price, i, c));
                }
            }
        }
        let Some((_, i, c)) = best else { return front };
        chosen[i] = c;
    }
}

#[cfg(test)]
mod tests {
    use super::walk;

    #[test]
    fn the_front_takes_the_cheapest_changes_first() {
        let tables = [vec![(9.0, 1.0), (1.0, 2.0), (0.0, 4.0)], vec![(4.0, 1.0), (0.0, 2.0)]];
        let front = walk(&tables);
        let expected = [([2, 1], 0.0, 6.0), ([1, 1], 1.0, 4.0), ([1, 0], 5.0, 3.0), ([0, 0], 13.0, 2.0)];
        assert_eq!(front.len(), expected.len());
        for ((chosen, damage, cost), (want, d, c)) in front.iter().zip(expected) {
            assert_eq!((&chosen[..], *damage, *cost), (&want[..], d, c));
        }
    }
}
