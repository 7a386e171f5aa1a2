//! Levels that fit the data: for every site how many, spelled how, how far apart and around what.
//!
//! One static scale a channel, from what sample text was seen to hold. With many levels the whole range seen is covered.
//! With few, finer steps are worth more than rare extremes: scale and centre are those that lose least on the sample, and
//! what they lose on average goes into the next bias. Codes are centred on the median where most neurons then stay
//! silent, or where a channel is far from zero; the shift folds into the next bias, so it is exact.
//!
//! Queries and keys are balanced channel by channel, so that a head has one scale for each (`docs/ir.md`).

use crate::features::{self, Features};
use crate::levels::Levels;
use crate::observed::{Observations, Observed};
use crate::options::{QuantOptions, Rotations, Thresholds};
use crate::shared_channels::SharedChannels;
use crate::sites::{self, Role, SiteValue};
use indexmap::IndexMap;
use snnc_ir::op::{DenseOp, Heads, Layout};
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::types::Code;
use snnc_ir::{Curve, Diagnostic, Graph, Op, Value, eval};
use std::cell::OnceCell;

/// A site's levels: `x = scale * level + centre`, channel by channel.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantParams {
    /// How many levels, and how spikes spell them.
    pub levels: Levels,
    /// By channel: the distance of two levels.
    pub scale: Vec<f32>,
    /// By channel: what level 0 stands for.
    pub zero_point: Vec<f32>,
    /// What levels lack on average; whoever reads the site adds it.
    pub bias_correction: Vec<f32>,
    /// Every token has a threshold of its own: `scale` then counts in it, and the largest level is the token's peak.
    pub by_token: bool,
    /// Heads side by side in a row: thresholds of a token, where it has its own.
    pub heads: u32,
    /// Channels, in ascending order, that have neurons and weights of their own: what they weigh is far beyond the others.
    pub outliers: Vec<usize>,
    /// For what the site's projection gives to outlier channels of the residual stream.
    pub residual: Option<Residual>,
}

/// Finer levels of a site beside its own. Some outputs of its projection are far beyond the others: what they are wrong by
/// is as large, and the next norm, which they dominate, spreads it to all channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// Outputs, in ascending order, that are read from these levels, with weights of twice eight bits.
    pub outputs: Vec<usize>,
    /// The finer levels.
    pub levels: Levels,
    /// The distance of levels as a share of the site's own.
    pub share: f32,
}

impl Residual {
    /// For a site with `own` levels: over twice the reach, so that nothing is clipped.
    fn new(outputs: Vec<usize>, own: Levels) -> Option<Self> {
        let levels = own.finer();
        let some = levels != own && !outputs.is_empty();
        some.then(|| Self { outputs, levels, share: 2.0 * own.most() as f32 / levels.most() as f32 })
    }
}

/// The levels of all sites.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantPlan {
    /// `None`: the site stays dense.
    pub sites: IndexMap<Value, Option<QuantParams>>,
    /// By attention: what one unit of a query's and of a key's balanced level is, head by head.
    pub heads: IndexMap<Value, [Vec<f32>; 2]>,
    /// By attention, where it is spiking and not by time to first spike.
    pub variants: IndexMap<Value, Ssa>,
    /// By attention, where q and k are features; their sites then stay reals.
    pub features: IndexMap<Value, Features>,
    /// Phases per octave of time-to-first-spike attention.
    pub phases: u32,
    /// Whether weights stay f32.
    pub exact_weights: bool,
    /// Inputs that share a multiplier where weights are of 4 bits; without it they are int8.
    pub weight_group: Option<u16>,
}

/// From so many levels on, a range is covered whole.
const MANY: i32 = 100;

/// Below this a channel's range counts as this when queries and keys are balanced.
const LEAST_RANGE: f32 = 1e-8;

/// A channel whose reach around its median is less than this share of its reach around 0 is centred: it gains two bits.
const FAR_FROM_ZERO: f32 = 0.25;

/// Levels for every site of `graph`.
///
/// # Errors
/// A site that was not observed; numbers that are not finite; options that nothing fits.
pub fn fit(graph: &Graph, seen: &Observations, options: &QuantOptions) -> Result<QuantPlan, Diagnostic> {
    options.check(graph)?;
    let sites = sites::sites(graph);
    let mut quant_plan =
        QuantPlan { phases: options.phases, exact_weights: options.exact_weights, ..QuantPlan::default() };
    quant_plan.weight_group = options.weight_group;
    for site in &sites {
        let seen = observed(graph, seen, site.value)?;
        // Queries and keys are fitted below, together.
        let fit = options.of(site).map(|levels| {
            let time_stepped = options.membrane.is_some() && levels.code == Code::Unary;
            let softmax = site.layer.and_then(|layer| options.attention(layer)).is_none_or(|kind| !kind.has_features());
            let zero_point = if site.role == Role::Value && !softmax { None } else { Some(options.zero_point.worth()) };
            let mut fit = fit_site(graph, site, seen, levels, zero_point, time_stepped);
            if let Role::AttentionOut | Role::MlpHidden = site.role {
                fit.residual = Residual::new(far_outputs(graph, site.value, &fit.scale), levels);
            }
            // A pass over the weights, so once at most.
            let known = OnceCell::new();
            let weight = || known.get_or_init(|| column_weights(graph, site.value)).as_slice();
            if let Op::Dense(DenseOp::RmsNorm { heads, .. }) = graph.node(site.value).op {
                if heads == 1 && options.thresholds == Thresholds::Normal && options.rotate.named().residual {
                    fit = normal(&fit);
                }
                fit.outliers = outliers(&fit.scale, weight());
            }
            if let Some(wanted) = wanted_thresholds(graph, site, time_stepped, options) {
                by_token(&mut fit, seen, weight(), wanted);
            }
            fit
        });
        quant_plan.sites.insert(site.value, fit);
    }
    let attentions = graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. })));
    for (layer, (value, node)) in attentions.enumerate() {
        let Op::Dense(DenseOp::Attention { heads, .. }) = node.op else { continue };
        let [q, k] = [node.args[0], node.args[1]];
        let variant = options.attention(layer as u32);
        if let Some(variant @ (Ssa::TopK { .. } | Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. })) =
            variant
        {
            quant_plan.variants.insert(value, variant);
        }
        if let Some(variant) = variant.filter(|variant| variant.has_features()) {
            let site = sites.iter().find(|site| site.value == q);
            let asked = site.and_then(|site| options.of(site));
            if let Some(asked) = asked.filter(|_| quant_plan.sites[&node.args[2]].is_some()) {
                let both = [observed(graph, seen, q)?, observed(graph, seen, k)?];
                let features = Features::new(features::levels(variant, asked), both, heads);
                without_softmax(graph, &mut quant_plan, value, (variant, heads), features.levels);
                quant_plan.features.insert(value, features);
            } else {
                quant_plan.variants.shift_remove(&value);
            }
        }
        let timed = variant.is_some_and(|variant| !variant.has_features());
        let levels = node.args[..3].iter().all(|site| quant_plan.sites.get(site).is_some_and(Option::is_some));
        let own = options.thresholds == Thresholds::Heads && timed && levels;
        if let Some(Some(values)) = quant_plan.sites.get_mut(&node.args[2]).filter(|_| own) {
            values.heads = heads.kv;
            let even = vec![1.0; values.scale.len()];
            by_token(values, observed(graph, seen, node.args[2])?, &even, Thresholds::Token);
        }
        let seen = [observed(graph, seen, q)?, observed(graph, seen, k)?];
        let heads = balance(&mut quant_plan, [q, k], seen, heads, own);
        quant_plan.heads.insert(value, heads);
    }
    Ok(quant_plan)
}

/// Sites of an attention whose weights need not add up to 1: q and k are read as reals, v has no centre, and where spikes come
/// out they are read as they are.
fn without_softmax(
    graph: &Graph,
    quant_plan: &mut QuantPlan,
    attention: Value,
    (variant, heads): (Ssa, Heads),
    levels: Levels,
) {
    let &[q, k, v, ..] = graph.node(attention).args.as_slice() else { unreachable!("checked by infer") };
    quant_plan.sites.insert(q, None);
    quant_plan.sites.insert(k, None);
    let Some(Some(values)) = quant_plan.sites.get_mut(&v) else { unreachable!("asked where v has levels") };
    if let Ssa::Lif { output: Output::Spikes } = variant {
        values.levels = levels;
    }
    values.bias_correction.fill(0.0);
    let shared = SharedChannels { heads, width: values.scale.len() / heads.kv as usize };
    let all = |of: &[f32]| (0..of.len() * heads.group()).map(|q| of[shared.key(q)]).collect();
    let emitted = QuantParams {
        scale: all(&values.scale),
        zero_point: all(&values.zero_point),
        bias_correction: all(&values.bias_correction),
        outliers: Vec::new(),
        residual: None,
        by_token: false,
        heads: 1,
        levels: values.levels,
    };
    if let (Ssa::Lif { output: Output::Spikes }, Some(out)) = (variant, quant_plan.sites.get_mut(&attention)) {
        *out = Some(emitted);
    }
}

fn observed<'a>(graph: &Graph, seen: &'a Observations, site: Value) -> Result<&'a Observed, Diagnostic> {
    let width = graph.ty(site).shape().width().unwrap_or(0);
    let origin = graph.origin(site);
    let found = seen.get(&site);
    let found = found.ok_or_else(|| Diagnostic::new(origin, "no range was measured here; calibrate first"))?;
    let finite = |v: &[f32]| v.len() == width && v.iter().all(|x| x.is_finite());
    if finite(&found.min) && finite(&found.max) && found.sample.iter().all(|x| x.is_finite()) {
        return Ok(found);
    }
    Err(Diagnostic::new(origin, "the range measured here is not finite or not of the value's width"))
}

/// `worth`: see `ZeroPoint`; `None`: levels lie around 0. `time_stepped`: the neurons are time-stepped.
fn fit_site(
    graph: &Graph,
    site: &SiteValue,
    seen: &Observed,
    levels: Levels,
    worth: Option<f32>,
    time_stepped: bool,
) -> QuantParams {
    // A time-stepped neuron is a ReLU by being silent below 0, so its codes lie around 0.
    let rectifier = time_stepped && graph.node(site.value).op == Op::Dense(DenseOp::Curve(Curve::Relu));
    // What a gate multiplies has no place but 0 to lie around.
    let gated = matches!(graph.node(site.value).op, Op::Dense(DenseOp::Gated(_)));
    let curve = !rectifier && matches!(graph.node(site.value).op, Op::Dense(DenseOp::Curve(_)));
    let most = levels.most();
    let channel = |c: usize| {
        let column = seen.column(c);
        let median = if curve || site.role != Role::Query { median(&column) } else { 0.0 };
        let (lo, hi) = (seen.min[c], seen.max[c]);
        let around = |m: f32| (hi - m).max(m - lo);
        let far = !rectifier && !gated && worth.is_some() && around(median) < FAR_FROM_ZERO * around(0.0);
        let centred = curve || far;
        let zero_point = if centred { median } else { 0.0 };
        if most >= MANY {
            return Channel { scale: around(zero_point) * (1.0 / most as f32), zero_point, bias_correction: 0.0 };
        }
        // A neuron with a curve is skewed: most of it lies on one side of the median.
        Channel::least_error(&column, [lo, hi], seen.tokens, zero_point, most, worth.filter(|_| curve))
    };
    let channels: Vec<Channel> = (0..seen.min.len()).map(channel).collect();
    QuantParams {
        levels,
        scale: channels.iter().map(|channel| channel.scale).collect(),
        zero_point: channels.iter().map(|channel| channel.zero_point).collect(),
        bias_correction: channels.iter().map(|channel| channel.bias_correction).collect(),
        by_token: false,
        heads: 1,
        outliers: Vec::new(),
        residual: None,
    }
}

/// Root of the mean square of what projections of a site weigh each of its channels with.
fn column_weights(graph: &Graph, site: Value) -> Vec<f32> {
    let width = graph.ty(site).shape().width().unwrap_or(0);
    let mut squares = vec![0f64; width];
    let mut outputs = 0;
    for (_, node) in graph.iter().filter(|(_, node)| node.args.first() == Some(&site)) {
        let Op::Dense(DenseOp::Linear(layout)) = node.op else { continue };
        let w = graph.constant(node.args[1]).and_then(|weight| weight.tensor.as_f32()).unwrap_or(&[]);
        let square = |w: &f32| f64::from(*w) * f64::from(*w);
        match layout {
            Layout::InputMajor => {
                let rows = w.chunks_exact((w.len() / width.max(1)).max(1));
                squares.iter_mut().zip(rows).for_each(|(sum, row)| *sum += row.iter().map(square).sum::<f64>());
            }
            Layout::OutputMajor => {
                let add = |row: &[f32]| squares.iter_mut().zip(row).for_each(|(sum, w)| *sum += square(w));
                w.chunks_exact(width.max(1)).for_each(add);
            }
        }
        outputs += w.len() / width.max(1);
    }
    squares.into_iter().map(|sum| (sum / outputs.max(1) as f64).sqrt() as f32).collect()
}

/// A channel weighs so many times as much as the median one: its weights would take the levels of all others.
const OUTLIER: f32 = 8.0;

/// One channel in so many at most is an outlier.
const RARE: usize = 8;

/// Channels whose level, times its weights, is far beyond the others'.
fn outliers(scale: &[f32], weight: &[f32]) -> Vec<usize> {
    let reach: Vec<f32> = scale.iter().zip(weight).map(|(s, w)| s * w).collect();
    beyond(&reach)
}

/// Those far beyond the median one, in ascending order; the farthest where they are many.
fn beyond(reach: &[f32]) -> Vec<usize> {
    let bar = OUTLIER * median(reach);
    let mut found: Vec<usize> = (0..reach.len()).filter(|&c| reach[c] > bar && bar > 0.0).collect();
    found.sort_by(|&a, &b| reach[b].total_cmp(&reach[a]).then(a.cmp(&b)));
    found.truncate(reach.len() / RARE);
    found.sort_unstable();
    found
}

/// Outputs of a site's projection that are far beyond the others, as outlier channels are.
fn far_outputs(graph: &Graph, site: Value, scale: &[f32]) -> Vec<usize> {
    let reads = |node: &&snnc_ir::Node| node.args.first() == Some(&site);
    let Some((w, layout)) = graph.nodes.iter().filter(reads).find_map(|node| {
        let Op::Dense(DenseOp::Linear(layout)) = node.op else { return None };
        Some((graph.constant(node.args[1])?.tensor.as_f32()?, layout))
    }) else {
        return Vec::new();
    };
    let width = scale.len().max(1);
    let mut squares = vec![0f64; w.len() / width];
    let outputs = squares.len().max(1);
    for (i, w) in w.iter().enumerate() {
        let (c, o) = match layout {
            Layout::InputMajor => (i / outputs, i % outputs),
            Layout::OutputMajor => (i % width, i / width),
        };
        let part = f64::from(*w) * f64::from(scale[c]);
        squares[o] += part * part;
    }
    let reach: Vec<f32> = squares.into_iter().map(|square| square.sqrt() as f32).collect();
    beyond(&reach)
}

/// What the thresholds of a site may be; `None` where they are fixed whatever is asked for. In a network that is rotated, ranges of a
/// sample flatter fixed ones, and where channels are alike these gain nothing.
fn wanted_thresholds(
    graph: &Graph,
    site: &SiteValue,
    time_stepped: bool,
    options: &QuantOptions,
) -> Option<Thresholds> {
    // Neurons with a curve of their own fire by what flows in.
    let curved = matches!(graph.node(site.value).op, Op::Dense(DenseOp::Curve(_)));
    match (site.role, options.thresholds) {
        (Role::Query | Role::Key | Role::Value, _) | (_, Thresholds::Fixed | Thresholds::Normal) => None,
        (_, Thresholds::Token | Thresholds::Heads) => Some(Thresholds::Token).filter(|_| !(curved && time_stepped)),
        (_, Thresholds::Auto) if options.rotate.named() != Rotations::default() => {
            Some(Thresholds::Token).filter(|_| !curved)
        }
        (_, Thresholds::Auto) => {
            let normalised = matches!(graph.node(site.value).op, Op::Dense(DenseOp::RmsNorm { .. }));
            Some(Thresholds::Auto).filter(|_| normalised)
        }
    }
}

/// Thresholds for every token where they are asked for, or where they lose far less than fixed ones. Nothing is then clipped.
fn by_token(fit: &mut QuantParams, seen: &Observed, weight: &[f32], wanted: Thresholds) {
    let most = fit.levels.most() as f32;
    let reach = |c: usize| (seen.max[c] - fit.zero_point[c]).max(fit.zero_point[c] - seen.min[c]).max(0.0);
    let scale: Vec<f32> = (0..fit.scale.len()).map(|c| reach(c) / most).collect();
    let outlier = fit.is_outlier();
    let farthest = scale.iter().zip(&outlier).filter(|(_, outlier)| !**outlier).fold(0f32, |most, (s, _)| most.max(*s));
    let even = scale.iter().zip(&outlier).map(|(s, outlier)| if *outlier { *s } else { farthest }).collect();
    let of = |scale: Vec<f32>| QuantParams {
        scale,
        bias_correction: vec![0.0; fit.bias_correction.len()],
        by_token: true,
        residual: None,
        ..fit.clone()
    };
    let [even, own] = [of(even), of(scale)];
    let [least, other] = [even.loss(seen, weight), own.loss(seen, weight)];
    let (by_token, loss) = if least < EVEN * other { (even, least) } else { (own, other) };
    if wanted == Thresholds::Token || fit.loss(seen, weight) > WORTH * loss {
        *fit = by_token;
    }
}

/// The same levels over what is best of normal numbers with variance 1.
fn normal(fit: &QuantParams) -> QuantParams {
    let (width, most) = (fit.scale.len(), fit.levels.most());
    let scale = vec![normal_reach(most) / most as f32; width];
    QuantParams { scale, zero_point: vec![0.0; width], bias_correction: vec![0.0; width], ..fit.clone() }
}

/// How far levels up to `most` either way should reach, so that their mean square error is least for normal numbers with variance 1: 2.5
/// with levels to 7, 3.9 with levels to 127. What is beyond counts as the largest level.
fn normal_reach(most: i32) -> f32 {
    let error = |reach: f64| {
        let step = reach / f64::from(most);
        let density = libm::exp(-reach * reach / 2.0) / (2.0 * std::f64::consts::PI).sqrt();
        let beyond = libm::erfc(reach / std::f64::consts::SQRT_2) / 2.0;
        step * step / 12.0 + 2.0 * ((1.0 + reach * reach) * beyond - reach * density)
    };
    let reaches = (10..=80).map(|tenth| f64::from(tenth) / 10.0);
    let best = reaches.fold((f64::INFINITY, 1.0), |best, reach| match error(reach) {
        less if less < best.0 => (less, reach),
        _ => best,
    });
    best.1 as f32
}

/// How many times as much may be lost where all channels have one scale: weights of eight bits are then nearer.
const EVEN: f32 = 1.2;

/// How many times less is lost where thresholds for every token are worth their work, in a network that is not rotated.
const WORTH: f32 = 1.7;

/// Scales of queries and keys such that `scale_q[c] * scale_k[c]` is one number per head: channel `c` of q counts in
/// `R_q / b_c`, of k in `R_k * b_c`. Queries of a group share their key's `b`, that of the farthest of them. Returns `R_q` and
/// `R_k`, query head by query head. `own`: tokens have thresholds of their own, so that nothing is clipped.
fn balance(
    quant_plan: &mut QuantPlan,
    sites: [Value; 2],
    seen: [&Observed; 2],
    heads: Heads,
    own: bool,
) -> [Vec<f32>; 2] {
    let width = seen[1].min.len() / heads.kv as usize;
    let zero = |i: usize| vec![0.0; seen[i].min.len()];
    let zero_point = |i: usize| match &quant_plan.sites[&sites[i]] {
        Some(fit) if i == 1 => fit.zero_point.clone(),
        _ => zero(i),
    };
    let zero_points = [zero_point(0), zero_point(1)];
    let reach = |i: usize, c: usize| {
        let (lo, hi, m) = (seen[i].min[c], seen[i].max[c], zero_points[i][c]);
        (hi - m).max(m - lo).max(LEAST_RANGE)
    };
    let shared = SharedChannels { heads, width };
    let farthest = |k: usize| shared.queries(k).map(|q| reach(0, q)).fold(0f32, f32::max);
    let pairs: Vec<(f32, f32)> = (0..zero(1).len()).map(|k| (farthest(k), reach(1, k))).collect();
    let factor: Vec<f32> = pairs.iter().map(|(q, k)| (k / q).sqrt()).collect();
    let both = |k: usize| (pairs[k].0 * pairs[k].1).sqrt();
    let of_query = |q: usize| reach(0, q) / pairs[shared.key(q)].0 * both(shared.key(q));
    let most_of =
        |all: Vec<f32>| all.chunks_exact(width).map(|head| head.iter().copied().fold(0.0, f32::max)).collect();
    let mut units: [Vec<f32>; 2] =
        [most_of((0..zero(0).len()).map(of_query).collect()), most_of((0..pairs.len()).map(both).collect())];
    for i in 0..2 {
        let Some(levels) = quant_plan.sites[&sites[i]].as_ref().map(|fit| fit.levels) else { continue };
        let most = levels.most();
        for (h, unit) in units[i].iter_mut().enumerate() {
            let share = if own || most >= MANY {
                1.0
            } else {
                head_share(seen, i, h * width..(h + 1) * width, &zero_points[i], &factor, shared, *unit, most)
            };
            *unit *= share / most as f32;
        }
        let scale = (0..zero(i).len()).map(|c| {
            let unit = units[i][c / width];
            if i == 0 { unit / factor[shared.key(c)] } else { unit * factor[c] }
        });
        let fit = QuantParams {
            levels,
            scale: scale.collect(),
            zero_point: zero_points[i].clone(),
            bias_correction: zero(i),
            by_token: own,
            heads: if i == 0 { heads.query } else { heads.kv },
            outliers: Vec::new(),
            residual: None,
        };
        quant_plan.sites.insert(sites[i], Some(fit));
    }
    let [q, k] = units;
    let k = (0..q.len()).map(|h| k[h / heads.group()]).collect();
    [q, k]
}

/// The share of a head's range whose levels lose least of the scores, as far as channels tell.
fn head_share(
    seen: [&Observed; 2],
    i: usize,
    channels: std::ops::Range<usize>,
    zero_point: &[f32],
    factor: &[f32],
    shared: SharedChannels,
    whole: f32,
    most: i32,
) -> f32 {
    let power = |i: usize, c: usize| {
        let column = seen[i].column(c);
        column.iter().map(|x| x * x).sum::<f32>() / column.len().max(1) as f32
    };
    let columns: Vec<(Vec<f32>, f32, f32)> = channels
        .map(|c| {
            let power = match i {
                0 => power(1, shared.key(c)),
                _ => shared.queries(c).map(|q| power(0, q)).sum(),
            };
            let scale = if i == 0 { whole / factor[shared.key(c)] } else { whole * factor[c] };
            (seen[i].column(c).iter().map(|x| x - zero_point[c]).collect(), scale, power)
        })
        .collect();
    let loss = |share: f32| {
        columns.iter().map(|(x, scale, power)| error(x, scale * share / most as f32, most).0 * power).sum::<f32>()
    };
    let losses = HEAD_SHARES.map(|share| (share, loss(share)));
    losses.iter().fold(losses[0], |best, next| if next.1 < best.1 { *next } else { best }).0
}

/// Shares of a head's range that are tried: the largest scores matter most, so little of them is given up.
const HEAD_SHARES: [f32; 7] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7];

/// Shares of a range that are tried.
const SHARES: [f32; 14] = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35];

/// Mean square and mean of what levels `scale` apart lack of `x`.
fn error(x: &[f32], scale: f32, most: i32) -> (f32, f32) {
    /// Adding and taking away 1.5 * 2^23 rounds a small f32 to an integer.
    const ROUND: f32 = 12_582_912.0;
    const LANES: usize = 16;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let most = most as f32;
    let (mut squares, mut sums) = ([0f32; LANES], [0f32; LANES]);
    let mut add = |lane: usize, x: f32| {
        let p = x * inverse;
        let p = if p < most { p } else { most };
        let p = if p > -most { p } else { -most };
        let bias_correction = x - ((p + ROUND) - ROUND) * scale;
        squares[lane] += bias_correction * bias_correction;
        sums[lane] += bias_correction;
    };
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &x) in block.iter().enumerate() {
            add(lane, x);
        }
    }
    rest.iter().enumerate().for_each(|(lane, &x)| add(lane, x));
    let n = x.len().max(1) as f32;
    (squares.iter().sum::<f32>() / n, sums.iter().sum::<f32>() / n)
}

#[derive(Clone, Copy)]
struct Channel {
    scale: f32,
    zero_point: f32,
    bias_correction: f32,
}

impl Channel {
    /// `skewed`: the share of the error that makes a centre beside the median worth its spikes.
    ///
    /// Scale and centre that lose least of `column`, and of the two ends of what the whole text held.
    fn least_error(
        column: &[f32],
        ends: [f32; 2],
        tokens: usize,
        zero_point: f32,
        most: i32,
        skewed: Option<f32>,
    ) -> Self {
        let [lo, hi] = ends;
        if hi <= lo {
            // A constant needs no spikes.
            return Self { scale: 0.0, zero_point: lo, bias_correction: 0.0 };
        }
        let end_weight = 1.0 / tokens.max(1) as f32;
        let mut shifted = vec![0.0; column.len()];
        // The median at level -place: with one spike of a binary code, the other side has that many levels more.
        let places = (0..).map(|i| 1 << i).take_while(|&place| place < most).flat_map(|place| [place, -place]);
        let mut best: Option<(f32, Self)> = None;
        for place in std::iter::once(0).chain(places.filter(|_| skewed.is_some())) {
            let whole = ((hi - zero_point) / (most + place) as f32).max((zero_point - lo) / (most - place) as f32);
            for share in SHARES {
                let scale = whole * share;
                let at = zero_point + place as f32 * scale;
                shifted.iter_mut().zip(column).for_each(|(y, x)| *y = x - at);
                let (square, bias_correction) = error(&shifted, scale, most);
                let clipped = |x: f32| ((x - at).abs() - (most as f32 + 0.5) * scale).max(0.0);
                let rare = (clipped(lo) * clipped(lo) + clipped(hi) * clipped(hi)) * end_weight;
                let loss = (square - bias_correction * bias_correction).max(0.0) + rare;
                let fair = if place == 0 { loss } else { loss / skewed.unwrap_or(1.0) };
                if best.is_none_or(|(least, _)| fair < least) {
                    best = Some((fair, Self { scale, zero_point: at, bias_correction }));
                }
            }
        }
        best.map_or(Self { scale: 0.0, zero_point, bias_correction: 0.0 }, |(_, channel)| channel)
    }
}

/// The middle value, 0 of none.
fn median(values: &[f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let mut values = values.to_vec();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Levels so fine that what they lose does not count beside what is looked at.
const FINEST: u16 = 15;

impl QuantParams {
    /// With `steps` binary timesteps that reach `factor` times as far.
    pub fn finer(&self, steps: u16, factor: f32) -> Self {
        let levels = Levels { code: Code::Binary, steps };
        let share = self.levels.most() as f32 / levels.most() as f32 * factor;
        let scale = self.scale.iter().map(|s| s * share).collect();
        // Finer levels reach as much farther.
        let residual =
            self.residual.clone().map(|residual| Residual { share: residual.share * factor / share, ..residual });
        Self { levels, scale, residual, ..self.clone() }
    }

    /// The same reach with finest levels: what clipping alone loses.
    pub fn clipping_only(&self) -> Self {
        // With a threshold for every token nothing is clipped, and this is next to exact.
        Self { bias_correction: vec![0.0; self.bias_correction.len()], ..self.finer(self.finest(), 1.0) }
    }

    /// The same distance of levels without an end: what rounding alone loses.
    pub fn rounding_only(&self) -> Self {
        if self.by_token {
            return self.clone();
        }
        let longest = |residual: Residual| Residual {
            levels: Levels { steps: Code::Binary.max_steps(), ..residual.levels },
            ..residual
        };
        let residual = self.residual.clone().map(longest);
        Self { levels: Levels { code: Code::Binary, steps: self.finest() }, residual, ..self.clone() }
    }

    /// Binary timesteps finer than this.
    fn finest(&self) -> u16 {
        if self.levels.most() < Code::Binary.levels(FINEST) { FINEST } else { Code::Binary.max_steps() }
    }

    /// Spikes a neuron, on average over a sample.
    pub fn spikes(&self, seen: &Observed) -> f64 {
        let most = self.levels.most();
        let one = |potential: f32| u64::from(self.levels.code.spikes(eval::level(potential, most)));
        let spikes: u64 = self.rows(seen).map(|(_, potentials, _)| potentials.into_iter().map(one).sum::<u64>()).sum();
        spikes as f64 / seen.sample.len().max(1) as f64
    }

    /// The share of neurons that fire at all, on average over a sample.
    pub fn active(&self, seen: &Observed) -> f64 {
        let most = self.levels.most();
        let one = |potential: &f32| eval::level(*potential, most) != 0;
        let active = |potentials: Vec<f32>| potentials.iter().filter(|p| one(p)).count();
        let count: usize = self.rows(seen).map(|(_, potentials, _)| active(potentials)).sum();
        count as f64 / seen.sample.len().max(1) as f64
    }

    /// Rows of a sample with their potentials in levels, and what a level of this row counts by channel, in `scale`s.
    fn rows<'a>(&'a self, seen: &'a Observed) -> impl Iterator<Item = (&'a [f32], Vec<f32>, Vec<f32>)> {
        let most = self.levels.most() as f32;
        let is_outlier = self.is_outlier();
        seen.sample.chunks_exact(self.scale.len().max(1)).map(move |row| {
            let potential = |c: usize| {
                let inverse = if self.scale[c] > 0.0 { 1.0 / self.scale[c] } else { 0.0 };
                (row[c] - self.zero_point[c]) * inverse
            };
            let mut potentials: Vec<f32> = (0..row.len()).map(potential).collect();
            let mut units = vec![1.0; row.len()];
            if self.by_token {
                // By head, or outliers apart from the others.
                let width = row.len() / self.heads.max(1) as usize;
                let group = |c: usize| 2 * (c / width.max(1)) + usize::from(is_outlier[c]);
                let mut peaks = vec![0f32; 2 * self.heads.max(1) as usize];
                potentials.iter().enumerate().for_each(|(c, p)| peaks[group(c)] = peaks[group(c)].max(p.abs()));
                let unit = |c: usize| if peaks[group(c)] > 0.0 { peaks[group(c)] / most } else { 1.0 };
                units = (0..row.len()).map(unit).collect();
                potentials.iter_mut().zip(&units).for_each(|(p, unit)| *p /= unit);
            }
            (row, potentials, units)
        })
    }

    /// By channel.
    fn is_outlier(&self) -> Vec<bool> {
        let mut is_outlier = vec![false; self.scale.len()];
        self.outliers.iter().for_each(|&c| is_outlier[c] = true);
        is_outlier
    }

    /// What levels lack of a sample, as projections with these weights see it: a share of the whole.
    fn loss(&self, seen: &Observed, weight: &[f32]) -> f32 {
        let most = self.levels.most();
        let (mut lacked, mut all) = (0.0, f32::MIN_POSITIVE);
        for (row, potentials, units) in self.rows(seen) {
            for (c, p) in potentials.into_iter().enumerate() {
                let unit = units[c] * self.scale[c];
                let bias_correction =
                    row[c] - self.zero_point[c] - self.bias_correction[c] - eval::level(p, most) as f32 * unit;
                lacked += (bias_correction * weight[c]) * (bias_correction * weight[c]);
                all += (row[c] * weight[c]) * (row[c] * weight[c]);
            }
        }
        lacked / all
    }

    /// The share of a sample's neurons that fire at every timestep.
    pub fn saturated(&self, seen: &Observed) -> f64 {
        let limit = self.levels.most() as f32 - 0.5;
        let full = |potentials: Vec<f32>| potentials.into_iter().filter(|p| p.abs() >= limit).count();
        let count: usize = self.rows(seen).map(|(_, potentials, _)| full(potentials)).sum();
        count as f64 / seen.sample.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::normal_reach;

    /// Worked out by the formula at every tenth.
    #[test]
    fn more_levels_reach_farther_into_normal_numbers() {
        assert_eq!([3, 7, 15, 31, 63, 127].map(normal_reach), [2.0, 2.5, 2.9, 3.3, 3.6, 3.9]);
    }
}
