//! What a rotation is worth: how near levels come to the dense network with and without it, and how many additions their spikes drive, on a few
//! windows of the sample. Levels are chosen on other windows: thresholds of channels suit the tokens that they were chosen on better than any
//! others, and thresholds of tokens do not.
//!
//! More timesteps bring levels nearer as well. What one more is worth without rotation says at which price. The network is rotated where its
//! divergence is less than three fifths of what it has without rotation for as many additions.

use super::turned::turned;
use crate::calibrate::{TokenWindows, calibrate};
use crate::evaluate::{Window, evaluate_programs, logits_of};
use crate::first_token;
use crate::progress::{Silent, Workers, cancelled};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::DenseOp;
use snnc_ir::ssa::Ssa;
use snnc_ir::{Graph, Node, Op, Value, WeightStore};
use snnc_passes::cost::fan_out;
use snnc_passes::fit::{QuantParams, QuantPlan, fit};
use snnc_passes::observed::Observations;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations};
use snnc_passes::quantise::quantise;
use snnc_passes::{Context, rotate};
use snnc_runtime::{Options, Program};
use std::sync::Arc;

/// Windows of the sample that networks are compared on, at most, and tokens of each.
const JUDGED: (usize, usize) = (4, 64);

/// Tokens of other windows on which levels are chosen for that. With a quarter of them, thresholds of channels clip so much of other text
/// that the comparison says nothing.
const OBSERVED: usize = 2048;

/// How many times nearer a rotated network must be for as many additions: rotation has a price that is not counted here, such as thresholds per
/// token.
const GAIN: f64 = 1.7;

/// How near a network with levels is to the dense one, and what its spikes drive.
#[derive(Clone, Copy, Debug)]
struct Nearness {
    /// Divergence from the dense network, in nats per token.
    kl: f64,
    /// Additions per token.
    additions: f64,
}

/// The rotations that are worth it, and the network with them: all that are possible, or all but those of hidden layers. `None`: neither is.
///
/// # Errors
/// A network cannot be run on the sample.
pub(super) fn worthwhile(
    tensor: &Graph,
    options: &QuantOptions,
    windows: &TokenWindows,
    starts: &[Vec<u32>],
    store: Option<&dyn WeightStore>,
    workers: Workers<'_>,
) -> Result<Option<(Rotations, Graph)>, Diagnostics> {
    let (possible, reasons) = rotate::possible(tensor);
    // Networks that predict no tokens are not compared.
    if possible == Rotations::default() || logits_of(tensor).is_err() {
        return Ok(None);
    }
    let none = Rotations::default();
    let without_hidden = Rotations { hidden: false, ..possible };
    let fewer = Some(without_hidden).filter(|fewer| possible.hidden && *fewer != none);
    workers.progress.begin("trying rotations", 3 + u64::from(fewer.is_some()));
    let trial = Trial::new(tensor, options, windows, starts, workers.threads)?;
    let seen = trial.seen(tensor)?;
    let plain = trial.nearness(tensor, &seen, none, &trial.options)?;
    workers.progress.advance(1);
    let finer = trial.nearness(tensor, &seen, none, &with_another_timestep(tensor, &trial.options))?;
    workers.progress.advance(1);
    drop(seen);
    let mut found = None;
    for rotations in std::iter::once(possible).chain(fewer) {
        if workers.progress.is_cancelled() {
            return Err(cancelled().into());
        }
        let rotated = turned(tensor.clone(), rotations, store, &mut |_, _, _| {})?;
        let nearness = trial.nearness(&rotated, &trial.seen(&rotated)?, rotations, &trial.options)?;
        let gain = gain(plain, finer, nearness);
        workers.progress.advance(1);
        workers.progress.status(&line(rotations, plain, nearness, gain));
        if gain > GAIN {
            reasons.iter().for_each(|reason| workers.progress.status(&format!("not rotated: {reason}")));
            found = Some((rotations, rotated));
            break;
        }
    }
    workers.progress.end();
    Ok(found)
}

/// For a person to read.
fn line(rotations: Rotations, plain: Nearness, rotated: Nearness, gain: f64) -> String {
    let verdict = if gain > GAIN { "rotated" } else { "left as it is" };
    format!(
        "rotating {}: KL {:.2e} on a few windows with {:.1} M additions per token, without it {:.2e} with {:.1} M: {verdict}",
        rotations.names().join(", "),
        rotated.kl,
        rotated.additions / 1e6,
        plain.kl,
        plain.additions / 1e6,
    )
}

/// How many times nearer the rotated network is than one without rotation would be for as many additions, up to those of another timestep:
/// beyond them nothing was measured, and clipped numbers stay however many timesteps there are.
fn gain(plain: Nearness, finer: Nearness, rotated: Nearness) -> f64 {
    if plain.kl <= 0.0 {
        return 0.0;
    }
    let nearer = (plain.kl / finer.kl.max(f64::MIN_POSITIVE)).ln().max(0.0);
    let more = finer.additions - plain.additions;
    let price = if more > 0.0 { nearer / more } else { 0.0 };
    let paid = (rotated.additions - plain.additions).min(more.max(0.0));
    plain.kl / rotated.kl.max(f64::MIN_POSITIVE) / (price * paid).exp()
}

/// The same levels with one timestep more, where codes have it.
fn with_another_timestep(tensor: &Graph, options: &QuantOptions) -> QuantOptions {
    let more = |steps: u16| (steps + 1).min(options.levels.code.max_steps());
    let mut finer = options.clone();
    finer.levels.steps = more(finer.levels.steps);
    for (_, chosen) in &mut finer.overrides {
        if let Override::Steps(steps) = chosen {
            *steps = more(*steps);
        }
    }
    if finer.check(tensor).is_ok() { finer } else { options.clone() }
}

/// What networks are compared on, and by.
struct Trial<'a> {
    dense: Arc<Program>,
    /// What levels are chosen on.
    observed: TokenWindows,
    starts: &'a [Vec<u32>],
    ids: Vec<u32>,
    ranges: Vec<Window>,
    /// With attention that needs no training, and weights of 8 bits: errors of 4 bits to nearest would hide all others.
    options: QuantOptions,
    threads: usize,
}

impl<'a> Trial<'a> {
    fn new(
        tensor: &Graph,
        options: &QuantOptions,
        windows: &TokenWindows,
        starts: &'a [Vec<u32>],
        threads: usize,
    ) -> Result<Self, Diagnostics> {
        let (observed, judged) = apart(windows);
        let ids = judged.concat();
        let range = |end: &mut usize, window: &Vec<u32>| {
            let start = std::mem::replace(end, *end + window.len());
            // The last id of all is only predicted. What comes next matters to no divergence.
            Some(Window { inputs: start..(*end).min(ids.len() - 1), scored: start })
        };
        let ranges = judged.iter().scan(0, range).filter(|window| !window.inputs.is_empty()).collect();
        let attends = options.overrides.iter().filter_map(|(_, chosen)| match chosen {
            Override::Attention(kind) => *kind,
            Override::Steps(_) | Override::Code(_) | Override::Dense => None,
        });
        let has_features = attends.chain(options.attention).any(Ssa::has_features);
        // Timesteps of features mean nothing to other attention.
        let suits = |chosen: &Override| match chosen {
            Override::Attention(_) => false,
            Override::Steps(_) | Override::Code(_) => !has_features,
            Override::Dense => true,
        };
        let overrides = options.overrides.iter().filter(|(_, chosen)| suits(chosen));
        let attention = options.attention.map(|_| Ssa::Ttfs { phases: options.phases });
        let overrides = overrides.cloned().collect();
        // Networks are compared by rotations alone.
        let options =
            QuantOptions { overrides, attention, weight_group: None, ..options.clone() }.with_plain_head(tensor);
        let dense = Program::new(Arc::new(tensor.clone()), &uncounted()).map(Arc::new)?;
        Ok(Self { dense, observed, starts, ids, ranges, options, threads })
    }

    fn workers(&self) -> Workers<'static> {
        Workers::alone(self.threads, &Silent)
    }

    fn seen(&self, graph: &Graph) -> Result<Observations, Diagnostics> {
        calibrate(graph, &self.observed, self.starts, self.workers())
    }

    fn nearness(
        &self,
        graph: &Graph,
        seen: &Observations,
        rotations: Rotations,
        options: &QuantOptions,
    ) -> Result<Nearness, Diagnostics> {
        if self.ranges.is_empty() {
            return Ok(Nearness { kl: 0.0, additions: 0.0 });
        }
        let quant_plan = fit(graph, seen, &QuantOptions { rotate: Rotate::These(rotations), ..options.clone() })?;
        let additions = additions(graph, seen, &quant_plan);
        let start = first_token::rows(graph, self.starts)?.map(Arc::new);
        let levels = quantise(graph, &Context { rotations, quant_plan, start, ..Context::default() })?;
        let program = Program::new(Arc::new(levels), &uncounted()).map(Arc::new)?;
        let done = evaluate_programs(&[program], Some(&self.dense), &self.ids, &self.ranges, self.workers())?;
        Ok(Nearness { kl: done[0].score.mean(done[0].score.kl), additions })
    }
}

/// Windows on which levels are chosen, and others on which they are judged: some of the sample's, spread evenly. A sample of one window
/// gives half of its tokens to each.
fn apart(windows: &TokenWindows) -> (TokenWindows, TokenWindows) {
    let mut windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).filter(|window| !window.is_empty()).collect();
    if let &[one] = windows.as_slice() {
        let (first, second) = one.split_at(one.len().div_ceil(2));
        windows = [first, second].into_iter().filter(|half| !half.is_empty()).collect();
    }
    let (most, length) = JUDGED;
    let spread = |count: usize, most: usize| count.div_ceil(most.max(1)).max(1);
    // Every second one at most.
    let every = spread(windows.len(), most).max(2);
    let judges = |i: usize| i % every == 1;
    let cut = |window: &[u32]| window[..window.len().min(length)].to_vec();
    let judged = windows.iter().enumerate().filter(|(i, _)| judges(*i)).map(|(_, window)| cut(window)).collect();
    let others: Vec<&[u32]> =
        windows.iter().enumerate().filter(|(i, _)| !judges(*i)).map(|(_, window)| *window).collect();
    let tokens: usize = others.iter().map(|window| window.len()).sum();
    let observed = others.iter().step_by(spread(tokens, OBSERVED)).map(|window| window.to_vec()).collect();
    (observed, judged)
}

fn uncounted() -> Options {
    Options { count: false, ..Options::default() }
}

/// Additions per token: what spikes drive, and those of transforms.
fn additions(graph: &Graph, seen: &Observations, quant_plan: &QuantPlan) -> f64 {
    let of = |(site, fit): (&Value, &Option<QuantParams>)| {
        let Some(fit) = fit else { return 0.0 };
        fit.spikes(&seen[site]) * fit.scale.len() as f64 * fan_out(graph, *site, |_| true)
    };
    let by_spikes: f64 = quant_plan.sites.iter().map(of).sum();
    let transform = |node: &Node| match node.op {
        Op::Dense(DenseOp::Hadamard(size)) => f64::from(size.additions()) * node.ty.shape().width().unwrap_or(0) as f64,
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => 0.0,
    };
    by_spikes + graph.nodes.iter().map(transform).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No token is judged by levels that were chosen on it, and both sides have tokens wherever there are two.
    #[test]
    fn levels_are_judged_on_other_tokens() {
        for count in [2, 3, 4, 11, 12, 13, 200] {
            let windows: TokenWindows = (0..count).map(|i| vec![i; 100]).collect();
            let (observed, judged) = apart(&windows);
            assert!((1..=JUDGED.0).contains(&judged.len()) && !observed.is_empty(), "{count}");
            assert!(observed.iter().map(Vec::len).sum::<usize>() <= OBSERVED, "{count}");
            assert!(observed.iter().all(|window| judged.iter().all(|other| other[0] != window[0])), "{count}");
            assert!(judged.iter().all(|window| window.len() == JUDGED.1));
        }
        assert_eq!(apart(&vec![vec![1, 2, 3]]), (vec![vec![1, 2]], vec![vec![3]]));
        assert_eq!(apart(&vec![vec![], vec![7]]), (vec![vec![7]], vec![]));
    }

    /// Additions that rotation needs more are worth what another timestep makes of them.
    #[test]
    fn rotation_pays_where_as_many_additions_buy_less() {
        let of = |kl, additions| Nearness { kl, additions };
        let (plain, finer) = (of(0.8, 100.0), of(0.2, 120.0));
        for (rotated, wanted) in
            [(of(0.1, 100.0), 8.0), (of(0.1, 120.0), 2.0), (of(0.1, 300.0), 2.0), (of(0.8, 80.0), 4.0)]
        {
            assert!((gain(plain, finer, rotated) - wanted).abs() < 1e-9, "{rotated:?}");
        }
        assert!((gain(plain, of(0.8, 120.0), of(0.4, 500.0)) - 2.0).abs() < 1e-9, "another timestep buys nothing");
        assert!(gain(of(0.0, 1.0), of(0.0, 2.0), of(0.0, 1.0)) < GAIN, "nothing is lost");
    }
}
