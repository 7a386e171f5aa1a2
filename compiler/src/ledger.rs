//! Where every error comes from: what each site loses by clipping, rounding, softmax and weights, each isolated and cumulative.
//!
//! *Isolated*: all of the network is dense but one site, and of that site only one cause is let in; the damage is the
//! Kullback-Leibler divergence of the logits from the dense network's. *Cumulative*: sites take their levels one after the
//! other, in the order of the network, with everything that belongs to them. The causes are
//!
//! - clipping: finest levels over the same reach;
//! - rounding: the same levels without an end;
//! - weights: finest levels over a wider reach, read by the weights in 8 bits;
//! - softmax: attention by time to first spike on finest queries, keys and values; or attention without softmax, with its
//!   features, on finest values;
//! - time: what the spikes of a train have not yet said when its timesteps are over, or said too early. Neurons that
//!   integrate before they fire say it all, so it is 0 for them. For time-stepped neurons it is what the
//!   site does with them less what it does with its levels alone; the site that it hears, if there is one, has its own
//!   neurons in both, for what a neuron says depends on the order in which it hears.

use crate::calibration::Calibration;
use crate::evaluate::{self, Cut, chunks, logits_of};
use crate::first_token;
use crate::parallel::map_in_order;
use crate::progress::Workers;
use crate::score::{divergence, log_sum_exp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::DenseOp;
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Code, Diagnostic, Graph, Op, Value};
use snnc_passes::fit::{QuantParams, QuantPlan};
use snnc_passes::levels::Levels;
use snnc_passes::options::PHASES_MOST;
use snnc_passes::sites::{Role, Site, SiteValue, sites};
use snnc_passes::{Context, StartRows, fold::fold, quantise::quantise, spike::spike};
use snnc_runtime::{Options, Program, Rows, Session};
use std::ops::Range;
use std::sync::Arc;

/// What makes a site's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Levels that do not reach.
    Clipping,
    /// Levels that are too far apart.
    Rounding,
    /// Spikes that come too late or too early.
    Time,
    /// Attention's own approximation.
    Softmax,
    /// Weights of 8 bits.
    Weights,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 5] = [Cause::Clipping, Cause::Rounding, Cause::Time, Cause::Softmax, Cause::Weights];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Clipping => "clipping",
            Cause::Rounding => "rounding",
            Cause::Time => "time",
            Cause::Softmax => "softmax",
            Cause::Weights => "weights",
        }
    }

    /// The option that makes less of it at a site.
    /// `phases`: where attention has such.
    fn remedy(self, path: &str, fit: Option<&QuantParams>, phases: Option<u32>) -> String {
        match self {
            Cause::Clipping => {
                "calibrate on more text, and like this one: --calibrate FILE --calibration-tokens N".into()
            }
            Cause::Time => "--neuron fire".into(),
            Cause::Rounding => match fit.and_then(|fit| twice_the_levels(fit.levels)) {
                Some(steps) => format!("--timesteps ...,{path}={steps}"),
                None => format!("--dense {path}"),
            },
            Cause::Softmax => match phases {
                Some(phases) => format!("--phases {}", (2 * phases).min(PHASES_MOST)),
                None => format!("snnc train, or --attention ...,{path}=ttfs"),
            },
            Cause::Weights => format!("--dense {path}"),
        }
    }
}

/// Timesteps that have twice the levels, if the code has so many.
fn twice_the_levels(Levels { code, steps }: Levels) -> Option<u16> {
    let more = match code {
        Code::Binary => steps + 1,
        Code::Unary => 2 * steps,
    };
    (more <= code.max_steps()).then_some(more)
}

/// One line: a site's damage by cause, in nats of KL divergence per token.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `h.0.mlp.hidden`; attention's softmax is `h.0.attention`.
    pub path: String,
    /// The layer; `null` outside all layers.
    pub layer: Option<u32>,
    /// By `Cause::ALL`; `None` where the cause has no place.
    pub isolated: [Option<f64>; 5],
    /// The network's divergence when this site and all before it have their levels.
    pub cumulative: f64,
    /// Timesteps.
    pub steps: Option<u16>,
    /// The option that makes less of it.
    pub remedy: String,
}

impl Entry {
    /// All causes together.
    pub fn sum(&self) -> f64 {
        self.isolated.iter().flatten().sum()
    }

    /// The cause that does most.
    pub fn worst(&self) -> Cause {
        let of = |cause: &Cause| self.isolated[*cause as usize].unwrap_or(0.0);
        Cause::ALL.into_iter().max_by(|a, b| of(a).total_cmp(&of(b)).then(b.cmp(a))).unwrap_or(Cause::Rounding)
    }
}

/// The ledger of a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// In the order of the network.
    pub entries: Vec<Entry>,
    /// The whole program's divergence, in nats per token.
    pub total: f64,
    /// Tokens of the run.
    pub tokens: usize,
}

/// One network to compare with the dense one.
#[derive(Clone, Debug)]
enum Probe {
    Isolated(usize, Cause),
    /// A site and what it hears, with time-stepped neurons; the site's own do, or integrate first.
    Time(usize, bool),
    /// The first so many sites.
    Cumulative(usize),
}

/// Timesteps that lose next to nothing while sums of products stay far from the ends of i32.
const FINE: u16 = 12;
/// How much farther than a site's own such levels reach, so that nothing is clipped.
const WIDER: f32 = 3.0;

/// The ledger of a program with `calibration`, made from `tensor`, over windows of `ids`.
///
/// # Errors
/// The text is too short; a probe cannot be run.
pub fn ledger<'a>(
    tensor: &Graph,
    calibration: &Calibration,
    ids: &[u32],
    windows: &[Range<usize>],
    workers: impl Into<Workers<'a>>,
) -> Result<Ledger, Diagnostics> {
    let places = places(tensor, calibration);
    let mut probes: Vec<Probe> = Vec::new();
    for (i, place) in places.iter().enumerate() {
        probes.extend(place.causes.iter().map(|cause| Probe::Isolated(i, *cause)));
        if place.time_stepped {
            probes.extend([Probe::Time(i, false), Probe::Time(i, true)]);
        }
        probes.push(Probe::Cumulative(i + 1));
    }
    let start = first_token::rows(tensor, &calibration.starts)?.map(Arc::new);
    let graphs = |probe: &Probe| probe_graph(tensor, calibration, start.as_ref(), &places, probe);
    let damages = damages(tensor, &probes, &graphs, &|_, _| Ok(()), ids, windows, workers.into())?;
    let mut entries: Vec<Entry> = places
        .iter()
        .map(|place| Entry {
            path: place.path.clone(),
            layer: place.layer,
            isolated: [None; 5],
            cumulative: 0.0,
            steps: place.fit.map(|fit| fit.levels.steps),
            remedy: String::new(),
        })
        .collect();
    for (entry, place) in entries.iter_mut().zip(&places) {
        entry.isolated[Cause::Time as usize] = place.site.map(|_| 0.0);
    }
    for (probe, damage) in probes.iter().zip(damages) {
        match *probe {
            Probe::Isolated(i, cause) => entries[i].isolated[cause as usize] = Some(damage),
            Probe::Time(i, time_stepped) => {
                let time = entries[i].isolated[Cause::Time as usize].get_or_insert(0.0);
                *time += if time_stepped { damage } else { -damage };
            }
            Probe::Cumulative(n) => entries[n - 1].cumulative = damage,
        }
    }
    for (entry, place) in entries.iter_mut().zip(&places) {
        let learned = place.attention.is_some_and(|attention| calibration.quant_plan.features.contains_key(&attention));
        let phases = (!learned).then_some(calibration.quant_plan.phases);
        entry.remedy = entry.worst().remedy(&place.path, place.fit, phases);
    }
    let total = entries.last().map_or(0.0, |entry| entry.cumulative);
    Ok(Ledger { entries, total, tokens: windows.iter().map(Range::len).sum() })
}

/// Products of a weight and a token that a ledger is worth by default: a few minutes' work on two cores.
const PRODUCTS: usize = 3_000_000_000_000;

/// Numbers of dense logits that are kept at a time, at most: 1 GiB.
const LOGITS: usize = 1 << 28;

/// Tokens that a ledger of this network runs on by default.
pub fn tokens(tensor: &Graph) -> usize {
    let probes = 4 * sites(tensor).len();
    let vocabulary = tensor.outputs.first().and_then(|(_, value)| tensor.ty(*value).shape().width()).unwrap_or(1);
    let most = (LOGITS / vocabulary.max(1)).clamp(1, 2048);
    (PRODUCTS / (tensor.parameters() * probes).max(1)).clamp(64, most.max(64))
}

/// Windows of the context's length, at most 256, spread evenly over the ids.
pub fn windows(tensor: &Graph, ids: &[u32], tokens: usize) -> Vec<Range<usize>> {
    let length = (tensor.context as usize).min(256).min(tokens).max(1);
    let inputs = ids.len().saturating_sub(1);
    let cut = Cut { length: None, stride: None, windows: tokens.div_ceil(length) };
    evaluate::cut(inputs, length, cut).into_iter().map(|window| window.inputs).collect()
}

/// A line of the ledger to be: a site with levels, or the softmax of an attention.
struct LedgerPlace<'a> {
    path: String,
    layer: Option<u32>,
    /// The site's name, where it is one.
    named: Option<Site>,
    site: Option<Value>,
    attention: Option<Value>,
    fit: Option<&'a QuantParams>,
    causes: Vec<Cause>,
    /// Whether its neurons are time-stepped.
    time_stepped: bool,
    /// The site whose spikes they hear.
    presynaptic: Option<Value>,
}

fn places<'a>(tensor: &Graph, calibration: &'a Calibration) -> Vec<LedgerPlace<'a>> {
    let quant_plan = &calibration.quant_plan;
    let fit_of = |value: &Value| quant_plan.sites.get(value).and_then(Option::as_ref);
    let mut places: Vec<(Value, LedgerPlace<'a>)> = Vec::new();
    for SiteValue { value, site: named } in sites(tensor) {
        let Some(fit) = fit_of(&value) else { continue };
        let mut causes = vec![Cause::Clipping, Cause::Rounding];
        if !matches!(named.role, Role::Query | Role::Key | Role::Value) && !quant_plan.exact_weights {
            causes.push(Cause::Weights);
        }
        let (path, layer) = (named.to_string(), named.layer);
        // What a gate multiplies integrates first.
        let is_gated = matches!(tensor.node(value).op, Op::Dense(DenseOp::Gated(_)));
        let time_stepped = calibration.membrane.is_some() && fit.levels.code == Code::Unary && !is_gated;
        let presynaptic = presynaptic(tensor, value);
        places.push((
            value,
            LedgerPlace {
                path,
                layer,
                named: Some(named),
                site: Some(value),
                attention: None,
                fit: Some(fit),
                causes,
                time_stepped,
                presynaptic,
            },
        ));
    }
    let attentions = tensor.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. })));
    for (layer, (value, node)) in attentions.enumerate() {
        let layer = layer as u32;
        if quant_plan.features.contains_key(&value) || node.args.iter().all(|arg| fit_of(arg).is_some()) {
            let (path, causes) = (format!("h.{layer}.attention"), vec![Cause::Softmax]);
            let place = LedgerPlace {
                path,
                layer: Some(layer),
                named: None,
                site: None,
                attention: Some(value),
                fit: fit_of(&node.args[0]),
                causes,
                time_stepped: false,
                presynaptic: None,
            };
            places.push((value, place));
        }
    }
    // Attention has the number of the site behind it, whose values it makes.
    places.sort_by_key(|(value, place)| (*value, place.site.is_some()));
    places.into_iter().map(|(_, place)| place).collect()
}

/// What the projection reads whose sums a site's neurons take in.
fn presynaptic(tensor: &Graph, site: Value) -> Option<Value> {
    let node = tensor.node(site);
    let sums = if let Op::Dense(DenseOp::Curve(_)) = node.op { tensor.node(node.args[0]) } else { node };
    matches!(sums.op, Op::Dense(DenseOp::Linear(_))).then(|| sums.args[0])
}

/// The network in which only what the probe asks about is not dense.
fn probe_graph(
    tensor: &Graph,
    calibration: &Calibration,
    start: Option<&Arc<StartRows>>,
    places: &[LedgerPlace<'_>],
    probe: &Probe,
) -> Result<Graph, Diagnostics> {
    let whole = &calibration.quant_plan;
    let mut quant_plan = QuantPlan {
        exact_weights: true,
        phases: whole.phases,
        weight_group: whole.weight_group,
        ..QuantPlan::default()
    };
    quant_plan.sites = whole.sites.keys().map(|site| (*site, None)).collect();
    quant_plan.heads.clone_from(&whole.heads);
    let mut integrates_first = None;
    match *probe {
        Probe::Time(i, time_stepped) => {
            let place = &places[i];
            for site in place.site.iter().chain(&place.presynaptic) {
                quant_plan.sites.insert(*site, whole.sites.get(site).cloned().flatten());
            }
            quant_plan.exact_weights = whole.exact_weights;
            integrates_first = place.named.filter(|_| !time_stepped);
        }
        Probe::Isolated(i, cause) => {
            let LedgerPlace { site, attention, fit, .. } = &places[i];
            match (site, attention, fit) {
                (Some(site), _, Some(fit)) => {
                    let (fit, exact) = match cause {
                        Cause::Clipping => (fit.clipping_only(), true),
                        Cause::Rounding => (fit.rounding_only(), true),
                        Cause::Weights => (neither(fit), false),
                        Cause::Time | Cause::Softmax => unreachable!("not a site's cause to probe"),
                    };
                    quant_plan.sites.insert(*site, Some(fit));
                    quant_plan.exact_weights = exact;
                }
                (None, Some(attention), _) => softmax_only(tensor, whole, *attention, &mut quant_plan),
                _ => unreachable!("a place is a site or an attention"),
            }
        }
        Probe::Cumulative(n) => {
            for place in &places[..n] {
                if let (Some(site), Some(fit)) = (place.site, place.fit) {
                    quant_plan.sites.insert(site, Some(fit.clone()));
                }
                if let Some(attention) = place.attention {
                    as_it_is(whole, attention, &mut quant_plan);
                }
            }
            quant_plan.exact_weights = whole.exact_weights;
        }
    }
    let membrane = calibration.membrane.filter(|_| !matches!(probe, Probe::Isolated(..)));
    let rounded_weights = calibration.rounded_weights.clone();
    let start = start.cloned();
    let context = Context { quant_plan, membrane, integrates_first, rounded_weights, start, ..Context::default() };
    let levels = quantise(tensor, &context)?;
    // Time collapses but for time-stepped neurons.
    let prompt = membrane.is_some() || context.quant_plan.variants.values().any(|variant| !variant.time_collapses());
    if prompt { fold(&spike(&levels, &context)?, &context) } else { Ok(levels) }
}

/// Levels that neither clip nor round.
fn neither(fit: &QuantParams) -> QuantParams {
    QuantParams { bias_correction: vec![0.0; fit.bias_correction.len()], ..fit.finer(FINE, WIDER) }
}

/// The kind of an attention, with its features.
fn as_it_is(whole: &QuantPlan, attention: Value, quant_plan: &mut QuantPlan) {
    if let Some(variant) = whole.variants.get(&attention) {
        quant_plan.variants.insert(attention, *variant);
    }
    if let Some(features) = whole.features.get(&attention) {
        quant_plan.features.insert(attention, features.clone());
    }
    if whole.variants.get(&attention) == Some(&EMITS) {
        // What it gives are spikes already.
        quant_plan.sites.insert(attention, whole.sites.get(&attention).cloned().flatten());
    }
}

const EMITS: Ssa = Ssa::Lif { output: Output::Spikes };

/// Finest levels for one attention, whose scores then have other units.
fn softmax_only(tensor: &Graph, whole: &QuantPlan, attention: Value, quant_plan: &mut QuantPlan) {
    let args = &tensor.node(attention).args;
    as_it_is(whole, attention, quant_plan);
    if whole.features.contains_key(&attention) {
        let values = whole.sites.get(&args[2]).cloned().flatten();
        let emits = whole.variants.get(&attention) == Some(&EMITS);
        quant_plan.sites.insert(args[2], values.map(|fit| if emits { fit } else { neither(&fit) }));
        return;
    }
    for (i, &arg) in args.iter().enumerate() {
        let Some(Some(fit)) = whole.sites.get(&arg) else { continue };
        let fine = neither(fit);
        if i < 2 {
            let share = fit.levels.most() as f32 / fine.levels.most() as f32 * WIDER;
            if let Some(units) = quant_plan.heads.get_mut(&attention) {
                units[i].iter_mut().for_each(|unit| *unit *= share);
            }
        }
        quant_plan.sites.insert(arg, Some(fine));
    }
}

/// What the network of every probe loses against the dense one, in nats per token. The result does not depend on `threads`.
/// `found` is told of each as soon as it is known, in any order; rank 0 is told of all.
///
/// # Errors
/// The text is too short; a network cannot be run; `found` fails.
pub fn damages<P: Sync>(
    tensor: &Graph,
    probes: &[P],
    graph_of: &(dyn Fn(&P) -> Result<Graph, Diagnostics> + Sync),
    found: &(dyn Fn(&P, f64) -> Result<(), Diagnostic> + Sync),
    ids: &[u32],
    windows: &[Range<usize>],
    workers: Workers<'_>,
) -> Result<Vec<f64>, Diagnostics> {
    let options = Options { count: false, ..Options::default() };
    let program = |graph: Graph| Program::new(Arc::new(graph), &options).map(Arc::new);
    let name = logits_of(tensor)?;
    let tokens: usize = windows.iter().map(Range::len).sum();
    if tokens == 0 {
        return Err(Diagnostic::new("", "the text is empty: there is nothing to predict").into());
    }
    let dense = logits(&program(tensor.clone())?, &name, ids, windows)?;
    let width = dense.len() / tokens;
    let sums: Vec<f64> = dense.chunks_exact(width).map(log_sum_exp).collect();
    workers.progress.begin("probing", probes.len() as u64);
    let ranks = workers.ranks;
    let work = |(): &mut (), _, probe: &P| {
        let graph = graph_of(probe).map_err(Diagnostics::into_first)?;
        let mut session = Session::new(program(graph)?)?;
        let (mut damage, mut row) = (0.0, 0);
        for window in windows {
            session.reset();
            for chunk in chunks(window.clone()) {
                let outputs = session.forward(&ids[chunk], Rows::All)?;
                for got in outputs.f32(&name).unwrap_or(&[]).chunks_exact(width) {
                    let rows = [&dense[row * width..(row + 1) * width], got];
                    damage += divergence(rows, [sums[row], log_sum_exp(got)]);
                    row += 1;
                }
            }
        }
        let damage = damage / tokens as f64;
        found(probe, damage)?;
        workers.advance(1);
        Ok(Damage(damage))
    };
    let mut all = Vec::with_capacity(probes.len());
    // Between pieces rank 0 hears of the others' probes: no more are lost when a run ends early.
    let piece = if ranks.count() == 1 { probes.len() } else { PROBES_A_RANK * ranks.count() };
    for some in probes.chunks(piece.max(1)) {
        let (damages, _) = map_in_order(workers, some, || Ok(()), work)?;
        let mut others = damages.iter().enumerate().filter(|(i, _)| ranks.is_first() && i % ranks.count() != 0);
        others.try_for_each(|(i, Damage(damage))| found(&some[i], *damage))?;
        all.extend(damages.iter().map(|Damage(damage)| damage));
    }
    workers.progress.end();
    Ok(all)
}

/// Probes of a rank between two exchanges.
const PROBES_A_RANK: usize = 32;

/// What a network loses, in nats per token.
#[derive(Serialize, Deserialize)]
struct Damage(#[serde(with = "crate::exact")] f64);

fn logits(program: &Arc<Program>, name: &str, ids: &[u32], windows: &[Range<usize>]) -> Result<Vec<f32>, Diagnostic> {
    let mut session = Session::new(program.clone())?;
    let mut all = Vec::new();
    for window in windows {
        session.reset();
        for chunk in chunks(window.clone()) {
            all.extend_from_slice(session.forward(&ids[chunk], Rows::All)?.f32(name).unwrap_or(&[]));
        }
    }
    Ok(all)
}

impl Ledger {
    /// The parts' sum against the whole.
    pub fn explained(&self) -> f64 {
        let sum: f64 = self.entries.iter().map(Entry::sum).sum();
        if self.total > 0.0 { sum / self.total } else { 1.0 }
    }

    /// Entries by damage, the worst first.
    pub fn ranked(&self) -> Vec<&Entry> {
        let mut ranked: Vec<&Entry> = self.entries.iter().collect();
        ranked.sort_by(|a, b| b.sum().total_cmp(&a.sum()));
        ranked
    }

    /// The same as data.
    pub fn json(&self) -> LedgerJson {
        let site = |entry: &Entry| {
            let of = |cause: Cause| entry.isolated[cause as usize];
            LedgerSite {
                site: entry.path.clone(),
                layer: entry.layer,
                timesteps: entry.steps,
                kl_isolated: entry.sum(),
                kl_cumulative: entry.cumulative,
                worst: entry.worst().name(),
                remedy: entry.remedy.clone(),
                clipping: of(Cause::Clipping),
                rounding: of(Cause::Rounding),
                time: of(Cause::Time),
                softmax: of(Cause::Softmax),
                weights: of(Cause::Weights),
            }
        };
        LedgerJson {
            tokens: self.tokens,
            kl: self.total,
            explained: self.explained(),
            sites: self.entries.iter().map(site).collect(),
            ranking: self.ranked().iter().map(|entry| entry.path.clone()).collect(),
        }
    }
}

/// A ledger as data; divergences in nats per token.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LedgerJson {
    /// Tokens of the run.
    pub tokens: usize,
    /// The whole program's divergence from the dense network.
    pub kl: f64,
    /// The sum of the isolated divergences as a share of the whole.
    pub explained: f64,
    /// In the order of the network.
    pub sites: Vec<LedgerSite>,
    /// Sites, the most damage first.
    pub ranking: Vec<String>,
}

/// What one site loses.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LedgerSite {
    /// The site.
    pub site: String,
    /// The layer; `null` outside all layers.
    pub layer: Option<u32>,
    /// Timesteps.
    pub timesteps: Option<u16>,
    /// With all else dense.
    pub kl_isolated: f64,
    /// With this site and all before it coded.
    pub kl_cumulative: f64,
    /// The cause that does most, and the option that makes less of it.
    pub worst: &'static str,
    /// The option that makes less of it.
    pub remedy: String,
    /// By cause, isolated; `null` where the cause has no place.
    pub clipping: Option<f64>,
    /// By levels that are too far apart.
    pub rounding: Option<f64>,
    /// By spikes that come too late or too early.
    pub time: Option<f64>,
    /// By attention's own approximation.
    pub softmax: Option<f64>,
    /// Where weights lie.
    pub weights: Option<f64>,
}
