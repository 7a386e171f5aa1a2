//! Honesty: what a run shows to be other than a user would think. A layer that never fires, levels that do not reach,
//! what stays dense, how much of the work spikes drive, a text unlike the one that levels were fitted to.

use crate::calibration;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value as Json;
use snnc_ir::events::Events;
use snnc_ir::op::{ArrayOp, Binary, DenseOp, LevelOp, SpikeOp};
use snnc_ir::site::Site;
use snnc_ir::state::neuron_of;
use snnc_ir::types::Elem;
use snnc_ir::{Graph, Op, Value};
use snnc_passes::cost::{self, Activity, Form, Number, Part, Sharing};
use std::collections::{BTreeMap, HashSet};

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LintKind {
    /// A layer of neurons never fires.
    Silent,
    /// Many neurons fire at every timestep.
    Saturated,
    /// An operation multiplies where spikes could drive it.
    Dense,
    /// Spikes drive less of the work than promised.
    Coverage,
    /// The text is unlike the calibration text.
    Unlike,
    /// Attention that computes no softmax was never trained.
    Untrained,
    /// The network predicts much worse than its reference.
    Perplexity,
}

impl LintKind {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            LintKind::Silent => "silent",
            LintKind::Saturated => "saturated",
            LintKind::Dense => "dense",
            LintKind::Coverage => "coverage",
            LintKind::Unlike => "unlike",
            LintKind::Untrained => "untrained",
            LintKind::Perplexity => "perplexity",
        }
    }
}

/// A warning about a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Lint {
    /// Its kind.
    pub kind: LintKind,
    /// Where it is.
    pub place: String,
    /// What it is.
    pub message: String,
}

/// Of a network's multiply-accumulates, those that spikes drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that spikes drive.
    pub driven: u64,
    /// All of them.
    pub all: u64,
}

impl Share {
    /// Driven work as a share of all.
    pub fn ratio(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.driven as f64 / self.all as f64 }
    }
}

/// Coverage in all and by layer and part, the head last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// In all.
    pub total: Share,
    /// By layer and part.
    pub parts: BTreeMap<(u32, Part), Share>,
}

/// The layer that the head is listed under.
const HEAD: u32 = u32::MAX;

/// How many of the dense network's multiply-accumulates spikes drive in a run.
pub fn coverage(graph: &Graph, activity: &Activity) -> Coverage {
    let mut coverage = Coverage::default();
    let sharing = Sharing { span: 1, batch: 1 };
    for cost in cost::costs(graph, activity, Form::Dense(Number::F32), sharing) {
        let (macs, place) = (cost.tally.macs(), cost.place);
        if macs == 0 {
            continue;
        }
        let driven = is_driven(graph, cost.node, graph.node(cost.node).op);
        let share = coverage.parts.entry((place.layer.unwrap_or(HEAD), place.part)).or_default();
        for share in [share, &mut coverage.total] {
            share.all += macs;
            share.driven += if driven { macs } else { 0 };
        }
    }
    coverage
}

fn is_driven(graph: &Graph, value: Value, op: Op) -> bool {
    let spikes = |arg: &Value| graph.ty(*arg).levels().is_some();
    matches!(op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) | Op::Level(LevelOp::Ssa { .. }))
        && graph.node(value).args.first().is_some_and(spikes)
}

impl Coverage {
    /// The part of a layer that spikes drive least.
    pub fn least(&self) -> Option<(String, Share)> {
        let least = self.parts.iter().min_by(|a, b| a.1.ratio().total_cmp(&b.1.ratio()));
        least.map(|((layer, part), share)| (place(*layer, *part), *share))
    }

    /// Layers and parts with their names, the head last.
    pub fn by_part(&self) -> impl Iterator<Item = (String, Share)> {
        self.parts.iter().map(|((layer, part), share)| (place(*layer, *part), *share))
    }

    /// The same as data.
    pub fn json(&self) -> CoverageJson {
        let part = |(&(layer, part), share): (&(u32, Part), &Share)| PartCoverage {
            layer: (layer != HEAD).then_some(layer),
            part: part.name(),
            macs: share.all,
            driven: share.driven,
        };
        CoverageJson { share: self.total.ratio(), parts: self.parts.iter().map(part).collect() }
    }
}

/// Coverage as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CoverageJson {
    /// The share of the dense network's multiply-accumulates that spikes drive.
    pub share: f64,
    /// By layer and part.
    pub parts: Vec<PartCoverage>,
}

/// Coverage of one part of a layer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PartCoverage {
    /// `null`: the head.
    pub layer: Option<u32>,
    /// The part of the layer.
    pub part: &'static str,
    /// The dense network's multiply-accumulates.
    pub macs: u64,
    /// Those that spikes drive.
    pub driven: u64,
}

/// A warning as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LintJson {
    /// Its kind.
    pub kind: &'static str,
    /// Where it is.
    pub place: String,
    /// What it is.
    pub message: String,
}

impl Lint {
    /// One line for a person.
    pub fn words(&self) -> String {
        format!("{}: {}: {}", self.kind.name(), self.place, self.message)
    }

    /// The same as data.
    pub fn json(&self) -> LintJson {
        LintJson { kind: self.kind.name(), place: self.place.clone(), message: self.message.clone() }
    }
}

fn place(layer: u32, part: Part) -> String {
    if layer == HEAD { "head".into() } else { format!("layer {layer}, {}", part.name()) }
}

/// Whether a node is what stands between a curve and its neurons where these are chosen to: a transform, or the share of a per-token
/// threshold.
fn leads_to_neurons(graph: &Graph, users: &[Vec<Value>], value: Value) -> bool {
    let measured = |user: &Value| matches!(graph.node(*user).op, Op::Level(LevelOp::RowMaxAbs { .. }));
    match graph.node(value).op {
        Op::Dense(DenseOp::Hadamard(_)) => true,
        Op::Level(LevelOp::ScaleShift) => users[value.index()].iter().any(measured),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
    }
}

/// Neurons that say features of queries and keys.
fn features(graph: &Graph) -> HashSet<Value> {
    let mut found = HashSet::new();
    for node in &graph.nodes {
        if let Op::Level(LevelOp::Ssa { variant, .. }) = node.op
            && variant.has_features()
        {
            found.extend(node.args[..2].iter().map(|&arg| neuron_of(graph, arg)));
        }
    }
    found
}

/// Places that a line of warnings names at most.
const PLACES_MOST: usize = 4;

/// A line per kind of warning: the first one, and where else it holds.
pub fn lines(lints: &[Lint]) -> Vec<String> {
    let mut kinds: Vec<LintKind> = Vec::new();
    for lint in lints {
        if !kinds.contains(&lint.kind) {
            kinds.push(lint.kind);
        }
    }
    let line = |kind: LintKind| {
        let mut all = lints.iter().filter(|lint| lint.kind == kind);
        let first = all.next().map_or(String::new(), Lint::words);
        let others: Vec<&str> = all.map(|lint| lint.place.as_str()).collect();
        let named = others[..others.len().min(PLACES_MOST)].join(", ");
        match others.len() {
            0 => first,
            1..=PLACES_MOST => format!("{first} (so are {named})"),
            more => format!("{first} (so are {named} and {} more)", more - PLACES_MOST),
        }
    };
    kinds.into_iter().map(line).collect()
}

/// A layer below this share of driven work is worth a warning.
const COVERAGE_LEAST: f64 = 0.95;

/// Neurons that fire at every timestep, above which levels do not reach: this share, and
const SATURATED_MOST: f64 = 1e-3;
/// this many times the share that the calibration text had.
const SATURATED_TIMES: f64 = 3.0;

/// Tokens of the text that the calibration text never had, above which they are unlike.
const UNSEEN_MOST: f64 = 0.3;

/// What is to be said of a run of `tokens` tokens with ids `ids`; `section` is what the program keeps of its calibration.
pub fn lints(graph: &Graph, section: Option<&Json>, ids: &[u32], tokens: u64, events: &[Events]) -> Vec<Lint> {
    let mut lints = Vec::new();
    let mut add = |kind, place: &str, message: String| lints.push(Lint { kind, place: place.into(), message });
    let (features, users) = (features(graph), graph.users());
    for (value, node) in graph.iter() {
        let origin = graph.origin(value).name.as_str();
        // Features are thresholds that are passed: those that always fire clip nothing.
        if node.op.is_neuron() && !features.contains(&value) {
            neuron_lints(graph, value, section, tokens, events[value.index()], &mut add);
        }
        if matches!(node.op, Op::Dense(DenseOp::Linear(_) | DenseOp::Attention { .. })) {
            add(LintKind::Dense, origin, format!("`{}` multiplies: what it reads is dense", node.op));
        }
        let on_the_way = || users[value.index()].iter().any(|user| leads_to_neurons(graph, &users, *user));
        if node.ty.elem() == Some(Elem::F32)
            && matches!(node.op, Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)))
            && !on_the_way()
        {
            add(LintKind::Dense, origin, format!("`{}` is computed: no neuron has this curve", node.op));
        }
    }
    let coverage = coverage(graph, &Activity { tokens, events: events.to_vec() });
    for ((layer, part), share) in &coverage.parts {
        if share.ratio() < COVERAGE_LEAST {
            add(
                LintKind::Coverage,
                &place(*layer, *part),
                format!("spikes drive {:.1} % of its multiply-accumulates", 100.0 * share.ratio()),
            );
        }
    }
    if let Some(unseen) = section.and_then(|section| unseen_share(section, ids))
        && unseen > UNSEEN_MOST
    {
        let source = section.and_then(|section| section["source"].as_str()).unwrap_or("the calibration text");
        let message =
            format!("{:.0} % of its tokens were never met in {source}; calibrate on text like this", 100.0 * unseen);
        add(LintKind::Unlike, "the text", message);
    }
    lints
}

/// What is to be said of one layer of neurons.
fn neuron_lints(
    graph: &Graph,
    value: Value,
    section: Option<&Json>,
    tokens: u64,
    did: Events,
    add: &mut impl FnMut(LintKind, &str, String),
) {
    let name = name_of(graph, value);
    let width = graph.ty(value).shape().width().unwrap_or(0) as u64;
    if did.spikes == 0 {
        add(LintKind::Silent, &name, format!("{width} neurons never fired ({})", graph.origin(value)));
    }
    // A per-token threshold is the token's largest magnitude: one neuron reaches the largest level, and none is clipped.
    if has_token_threshold(graph, value) {
        return;
    }
    let share = did.saturated as f64 / (width * tokens).max(1) as f64;
    let usual = usual_saturation(section, &name);
    if share > SATURATED_MOST && share > SATURATED_TIMES * usual {
        let message = format!(
            "{:.2} % of its neurons fired at every timestep, {:.2} % on the calibration text; calibrate on text like this, or \
             give it more timesteps",
            100.0 * share,
            100.0 * usual
        );
        add(LintKind::Saturated, &name, message);
    }
}

/// Whether neurons read shares of their token's largest magnitude.
fn has_token_threshold(graph: &Graph, neuron: Value) -> bool {
    let read = graph.node(neuron).args.first().map(|&x| graph.node(x));
    read.is_some_and(|read| {
        read.op == Op::Array(ArrayOp::Binary(Binary::Div)) && read.args.get(1).is_some_and(|&by| is_peak(graph, by))
    })
}

/// Whether a value is a token's thresholds, or these channel by channel.
fn is_peak(graph: &Graph, value: Value) -> bool {
    let node = graph.node(value);
    match node.op {
        Op::Level(LevelOp::RowMaxAbs { .. }) => true,
        Op::Level(LevelOp::GatherChannels) => is_peak(graph, node.args[0]),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
    }
}

/// The site that a neuron layer codes: `h.0.mlp.hidden`.
pub fn name_of(graph: &Graph, value: Value) -> String {
    graph.site(value).map_or_else(|| graph.origin(value).to_string(), Site::path)
}

/// The share of a site's neurons that fired at every timestep on the calibration text.
fn usual_saturation(section: Option<&Json>, site: &str) -> f64 {
    section.and_then(|section| section["sites"][site]["saturated"].as_f64()).unwrap_or(0.0)
}

/// The share of `ids` that calibration never met; `None` where the program does not say.
fn unseen_share(section: &Json, ids: &[u32]) -> Option<f64> {
    let seen = calibration::seen(section);
    let unseen = ids.iter().filter(|&&id| !seen.get(id as usize).copied().unwrap_or(false)).count();
    (!seen.is_empty() && !ids.is_empty()).then(|| unseen as f64 / ids.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_never_met_are_a_share() {
        let section = json!({ "seen": "3" });
        assert_eq!(unseen_share(&section, &[0, 1, 2, 9]), Some(0.5));
        assert_eq!(unseen_share(&json!({}), &[0]), None);
    }
}
