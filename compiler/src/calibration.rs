//! What a program keeps of its calibration: the text's name, the tokens it had, and the levels of every site.
//!
//! The levels are folded into the program's constants as well; they are kept in their own words so that the ledger can
//! ask what each of them loses. Numbers are the hexadecimal bits of f32, so that they read back exactly.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::membrane::Membrane;
use snnc_ir::nibbles::is_group;
use snnc_ir::op::{DenseOp, LevelOp};
use snnc_ir::{Code, Diagnostic, Graph, Op, Tensor, Value};
use snnc_passes::features::Features;
use snnc_passes::fit::{QuantParams, QuantPlan, Residual};
use snnc_passes::levels::Levels;
use snnc_passes::options::Rotations;
use snnc_passes::quantise::rounded_weights;
use snnc_passes::sites::{SiteValue, sites};
use std::sync::Arc;

/// The `calibration` section of a `.snn` file.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// What the sample text is called.
    pub source: String,
    /// Sequences that were run.
    pub windows: usize,
    /// Tokens of them.
    pub tokens: usize,
    /// Which ids of the vocabulary the text had.
    pub seen: Vec<bool>,
    /// The levels of every site.
    pub quant_plan: QuantPlan,
    /// What of the network is rotated: the levels are those of the rotated network.
    pub rotations: Rotations,
    /// Tokens, one or two, whose rows are constants where they begin a sequence.
    pub starts: Vec<Vec<u32>>,
    /// The program's own int8 weights, by name; they are not in the section. Without them weights are rounded to nearest.
    pub rounded_weights: IndexMap<String, Arc<Tensor>>,
    /// What the neurons of unary sites are, where they are time-stepped.
    pub membrane: Option<Membrane>,
    /// By site, in the order of `quant_plan`.
    pub fired: Vec<Fired>,
}

/// What a site's neurons did on the sample, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fired {
    /// The share that fired at every timestep.
    pub saturated: f64,
    /// Spikes per neuron.
    pub spikes: f64,
    /// The share that fired at all.
    pub active: f64,
}

/// A section that is not what a program of this version has.
fn broken(what: &str) -> Diagnostic {
    Diagnostic::new("calibration", format!("{what}; compile the model again")).code(ErrorCode::CALIBRATION)
}

/// The section as it is written.
#[derive(Serialize, Deserialize)]
struct CalibrationSection {
    source: String,
    windows: usize,
    tokens: usize,
    /// Hexadecimal, four ids per digit, the lowest bit first.
    seen: String,
    phases: u32,
    exact_weights: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_group: Option<u16>,
    /// What is rotated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotated: Vec<String>,
    /// Tokens, one or two, whose rows are constants where they begin a sequence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    starts: Vec<Vec<u32>>,
    /// `null`: a site that stays dense.
    sites: IndexMap<String, Option<SiteRecord>>,
    /// By attention.
    heads: Vec<HeadUnits>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attention: Vec<Option<AttentionRecord>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    neuron: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct SiteRecord {
    code: String,
    timesteps: u16,
    /// `null`: not a number.
    saturated: Option<f64>,
    spikes: Option<f64>,
    active: Option<f64>,
    scale: HexFloats,
    zero_point: HexFloats,
    bias_correction: HexFloats,
    by_token: bool,
    /// Thresholds of a token, where it has its own.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    heads: u32,
    outliers: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    residual: Option<ResidualRecord>,
}

fn one() -> u32 {
    1
}

fn is_one(heads: &u32) -> bool {
    *heads == 1
}

#[derive(Serialize, Deserialize)]
struct ResidualRecord {
    outputs: Vec<usize>,
    timesteps: u16,
    share: HexFloats,
}

#[derive(Serialize, Deserialize)]
struct HeadUnits {
    q: HexFloats,
    k: HexFloats,
}

#[derive(Serialize, Deserialize)]
struct AttentionRecord {
    op: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<FeaturesRecord>,
}

#[derive(Serialize, Deserialize)]
struct FeaturesRecord {
    code: String,
    timesteps: u16,
    q: HexFloats,
    k: HexFloats,
}

/// Numbers as the hexadecimal digits of their bits, which read back exactly.
struct HexFloats(Vec<f32>);

impl Serialize for HexFloats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.iter().map(|x| format!("{:08x}", x.to_bits())).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for HexFloats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let one = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().map(f32::from_bits);
        let all: Option<Vec<f32>> = text.as_bytes().chunks(8).map(one).collect();
        let whole = all.filter(|all| text.len() == 8 * all.len() && all.iter().all(|x| x.is_finite()));
        whole.map(Self).ok_or_else(|| de::Error::custom("finite numbers of eight hexadecimal digits were expected"))
    }
}

impl HexFloats {
    /// The numbers, if there are `count`.
    fn exactly(&self, count: usize, path: &str) -> Result<Vec<f32>, Diagnostic> {
        let fits = self.0.len() == count;
        fits.then(|| self.0.clone()).ok_or_else(|| broken(&format!("does not hold {count} numbers for {path}")))
    }
}

impl Calibration {
    /// The section for the Tensor graph whose sites were fitted.
    pub fn json(&self, graph: &Graph) -> Json {
        let plan = &self.quant_plan;
        let fired = |value: &Value| plan.sites.get_index_of(value).map(|at| self.fired[at]);
        let site =
            |site: &SiteValue| Some((site.to_string(), record(plan.sites.get(&site.value)?, fired(&site.value)?)));
        let heads = attentions(graph).filter_map(|value| plan.heads.get(&value));
        let attention: Vec<Option<AttentionRecord>> =
            attentions(graph).map(|value| self.attention_record(graph, value)).collect();
        let section = CalibrationSection {
            source: self.source.clone(),
            windows: self.windows,
            tokens: self.tokens,
            seen: bits(&self.seen),
            phases: plan.phases,
            exact_weights: plan.exact_weights,
            weight_group: plan.weight_group,
            rotated: self.rotations.names().into_iter().map(str::to_string).collect(),
            starts: self.starts.clone(),
            sites: sites(graph).iter().filter_map(site).collect(),
            heads: heads.map(|[q, k]| HeadUnits { q: HexFloats(q.clone()), k: HexFloats(k.clone()) }).collect(),
            attention: if attention.iter().any(Option::is_some) { attention } else { Vec::new() },
            neuron: self.membrane.map(|membrane| membrane.name().into()),
        };
        // Keys are strings and numbers are finite, so there is always JSON.
        serde_json::to_value(section).unwrap_or_default()
    }

    fn attention_record(&self, graph: &Graph, value: Value) -> Option<AttentionRecord> {
        let variant = *self.quant_plan.variants.get(&value)?;
        let Op::Dense(DenseOp::Attention { heads, .. }) = graph.node(value).op else { return None };
        let features = self.quant_plan.features.get(&value);
        Some(AttentionRecord {
            op: Op::Level(LevelOp::Ssa { heads, variant }).to_string(),
            features: features.map(|Features { levels, units: [q, k] }| FeaturesRecord {
                code: levels.code.name().into(),
                timesteps: levels.steps,
                q: HexFloats(q.clone()),
                k: HexFloats(k.clone()),
            }),
        })
    }

    /// The same, with the weights of the program that was made by it.
    #[must_use]
    pub fn with_weights_of(self, program: &Graph) -> Self {
        Self { rounded_weights: rounded_weights(program), ..self }
    }

    /// What a section says is rotated.
    ///
    /// # Errors
    /// The section is not one of this version.
    pub fn rotations(section: &[u8]) -> Result<Rotations, Diagnostic> {
        #[derive(Deserialize)]
        struct RotatedParts {
            #[serde(default)]
            rotated: Vec<String>,
        }
        let section: RotatedParts =
            serde_json::from_slice(section).map_err(|e| broken(&format!("is not understood ({e})")))?;
        let names = section.rotated.iter().map(String::as_str);
        Rotations::named(names).ok_or_else(|| broken("names what cannot be rotated"))
    }

    /// Reads what `json` wrote, for the Tensor graph of the same network, rotated alike.
    ///
    /// # Errors
    /// The section is not one of this version, or belongs to another network.
    pub fn read(section: &[u8], graph: &Graph) -> Result<Self, Diagnostic> {
        let rotations = Self::rotations(section)?;
        let section: CalibrationSection =
            serde_json::from_slice(section).map_err(|e| broken(&format!("is not understood ({e})")))?;
        let mut quant_plan = QuantPlan {
            phases: section.phases.clamp(1, 64),
            exact_weights: section.exact_weights,
            weight_group: section.weight_group.filter(|&group| is_group(group.into())),
            ..QuantPlan::default()
        };
        let mut fired = Vec::new();
        for site in sites(graph) {
            let path = site.to_string();
            let record = section.sites.get(&path).ok_or_else(|| broken(&format!("has no site {path}")))?;
            let width = graph.ty(site.value).shape().width().unwrap_or(0);
            let outputs = outputs_of(graph, site.value);
            let params = record.as_ref().map(|record| quant_params(record, width, outputs, &path)).transpose()?;
            quant_plan.sites.insert(site.value, params);
            fired.push(record.as_ref().map_or_else(Fired::default, |record| Fired {
                saturated: record.saturated.unwrap_or(0.0),
                spikes: record.spikes.unwrap_or(0.0),
                active: record.active.unwrap_or(0.0),
            }));
        }
        for (i, value) in attentions(graph).enumerate() {
            read_attention(&section, graph, (i, value), &mut quant_plan)?;
        }
        let membrane = |name: &String| Membrane::from_name(name).ok_or_else(|| broken("names no neuron"));
        Ok(Self {
            seen: seen_ids(&section.seen),
            membrane: section.neuron.as_ref().map(membrane).transpose()?,
            source: section.source,
            windows: section.windows,
            tokens: section.tokens,
            quant_plan,
            rotations,
            starts: section.starts,
            rounded_weights: IndexMap::new(),
            fired,
        })
    }
}

fn finite(x: f64) -> Option<f64> {
    Some(x).filter(|x| x.is_finite())
}

/// What is written of a site.
fn record(params: &Option<QuantParams>, fired: Fired) -> Option<SiteRecord> {
    let params = params.as_ref()?;
    let Fired { saturated, spikes, active } = fired;
    Some(SiteRecord {
        code: params.levels.code.name().into(),
        timesteps: params.levels.steps,
        saturated: finite(saturated),
        spikes: finite(spikes),
        active: finite(active),
        scale: HexFloats(params.scale.clone()),
        zero_point: HexFloats(params.zero_point.clone()),
        bias_correction: HexFloats(params.bias_correction.clone()),
        by_token: params.by_token,
        heads: params.heads,
        outliers: params.outliers.clone(),
        residual: params.residual.as_ref().map(|Residual { outputs, levels, share }| ResidualRecord {
            outputs: outputs.clone(),
            timesteps: levels.steps,
            share: HexFloats(vec![*share]),
        }),
    })
}

/// Reads what the section says of the `i`th attention.
fn read_attention(
    section: &CalibrationSection,
    graph: &Graph,
    (i, value): (usize, Value),
    plan: &mut QuantPlan,
) -> Result<(), Diagnostic> {
    let Op::Dense(DenseOp::Attention { heads, .. }) = graph.node(value).op else { return Ok(()) };
    let units = section.heads.get(i).ok_or_else(|| broken("has too few heads"))?;
    let half = |numbers: &HexFloats| numbers.exactly(heads.query as usize, "heads");
    plan.heads.insert(value, [half(&units.q)?, half(&units.k)?]);
    let Some(Some(record)) = section.attention.get(i) else { return Ok(()) };
    let Ok(Op::Level(LevelOp::Ssa { variant, .. })) = Op::parse(&record.op) else {
        return Err(broken("names no attention"));
    };
    plan.variants.insert(value, variant);
    if variant.has_features() {
        // Of queries, and of the keys that they may share.
        let width = |i: usize| graph.ty(graph.node(value).args[i]).shape().width().unwrap_or(0);
        let path = format!("h.{i}.attention");
        let record = record.features.as_ref().ok_or_else(|| broken(&format!("has no features for {path}")))?;
        let levels = read_levels(&record.code, record.timesteps, &path)?;
        let units = [record.q.exactly(width(0), &path)?, record.k.exactly(width(1), &path)?];
        plan.features.insert(value, Features { levels, units });
    }
    Ok(())
}

/// Which ids of the vocabulary a calibration section says that its text had.
pub fn seen(section: &Json) -> Vec<bool> {
    seen_ids(section["seen"].as_str().unwrap_or(""))
}

fn seen_ids(digits: &str) -> Vec<bool> {
    let digits = digits.chars().filter_map(|c| c.to_digit(16));
    digits.flat_map(|digit| (0..4).map(move |bit| digit >> bit & 1 == 1)).collect()
}

/// The width of what a site's first reader gives.
fn outputs_of(graph: &Graph, site: Value) -> usize {
    let reader = graph.nodes.iter().find(|node| node.args.first() == Some(&site));
    reader.and_then(|node| node.ty.shape().width()).unwrap_or(0)
}

fn attentions(graph: &Graph) -> impl Iterator<Item = Value> {
    graph.iter().filter(|(_, node)| matches!(node.op, Op::Dense(DenseOp::Attention { .. }))).map(|(value, _)| value)
}

/// `outputs`: of the projection that reads the site.
fn quant_params(record: &SiteRecord, width: usize, outputs: usize, path: &str) -> Result<QuantParams, Diagnostic> {
    let levels = read_levels(&record.code, record.timesteps, path)?;
    let residual = |residual: &ResidualRecord| {
        let levels = Levels { steps: read_steps(residual.timesteps, levels.code, path)?, ..levels };
        let share = residual.share.exactly(1, path)?[0];
        Ok(Residual { outputs: channels(&residual.outputs, outputs, path)?, levels, share })
    };
    Ok(QuantParams {
        levels,
        scale: record.scale.exactly(width, path)?,
        zero_point: record.zero_point.exactly(width, path)?,
        bias_correction: record.bias_correction.exactly(width, path)?,
        by_token: record.by_token,
        heads: record.heads,
        outliers: channels(&record.outliers, width, path)?,
        residual: record.residual.as_ref().map(residual).transpose()?,
    })
}

fn read_levels(code: &str, steps: u16, path: &str) -> Result<Levels, Diagnostic> {
    let code = Code::from_name(code).ok_or_else(|| broken(&format!("names no code for {path}")))?;
    Ok(Levels { code, steps: read_steps(steps, code, path)? })
}

fn read_steps(steps: u16, code: Code, path: &str) -> Result<u16, Diagnostic> {
    let possible = (1..=code.max_steps()).contains(&steps);
    possible.then_some(steps).ok_or_else(|| broken(&format!("has no timesteps for {path}")))
}

/// A list of channels below `width`, in ascending order.
fn channels(list: &[usize], width: usize, path: &str) -> Result<Vec<usize>, Diagnostic> {
    if list.iter().any(|&channel| channel >= width) {
        return Err(broken(&format!("names no channels of {path}")));
    }
    let mut all = list.to_vec();
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn bits(seen: &[bool]) -> String {
    let digit = |four: &[bool]| {
        let value = four.iter().enumerate().fold(0, |sum, (i, &bit)| sum | u32::from(bit) << i);
        std::char::from_digit(value, 16).unwrap_or('0')
    };
    seen.chunks(4).map(digit).collect()
}
