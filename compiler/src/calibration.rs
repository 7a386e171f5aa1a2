//! What a program keeps of its calibration: the text's name, the tokens it had, and the levels of every site.
//!
//! The levels are folded into the program's constants as well; they are kept in their own words so that the ledger can
//! ask what each of them loses. Numbers are the hexadecimal bits of f32, so that they read back exactly.

use serde_json::{Map, Value as Json, json};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{DenseOp, LevelOp};
use snnc_ir::{Code, Diagnostic, Graph, Op, Value};
use snnc_passes::features::Features;
use snnc_passes::fit::{QuantParams, QuantPlan, Residual};
use snnc_passes::levels::Levels;
use snnc_passes::sites::sites;

/// The `calibration` section of a `.snn` file.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// What the sample text is called.
    pub source: String,
    pub windows: usize,
    pub tokens: usize,
    /// Which ids of the vocabulary the text had.
    pub seen: Vec<bool>,
    pub quant_plan: QuantPlan,
    /// What the neurons of unary sites are, where they answer within the timestep.
    pub membrane: Option<Membrane>,
    /// By site, in the order of `fits`.
    pub fired: Vec<Fired>,
}

/// What a site's neurons did on the sample, on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fired {
    /// The share that fired at every timestep.
    pub saturated: f64,
    /// Spikes a neuron.
    pub spikes: f64,
    /// The share that fired at all.
    pub active: f64,
}

/// A section that is not what a program of this version has.
fn broken(what: &str) -> Diagnostic {
    Diagnostic::new("calibration", format!("{what}; compile the model again"))
}

impl Calibration {
    /// `graph` is the Tensor graph whose sites were fitted.
    pub fn json(&self, graph: &Graph) -> Json {
        let mut all = Map::new();
        let records = self.quant_plan.sites.iter().zip(&self.fired);
        for site in sites(graph) {
            let Some(((_, fit), fired)) = records.clone().find(|((value, _), _)| **value == site.value) else {
                continue;
            };
            let record = fit.as_ref().map_or(Json::Null, |fit| {
                let mut record = json!({
                    "code": fit.levels.code.name(), "timesteps": fit.levels.steps, "saturated": fired.saturated,
                    "spikes": fired.spikes, "active": fired.active,
                    "scale": hex(&fit.scale), "zero_point": hex(&fit.zero_point), "bias_correction": hex(&fit.bias_correction),
                    "by_token": fit.by_token, "outliers": fit.outliers,
                });
                if let Some(Residual { outputs, levels, share }) = &fit.residual {
                    record["residual"] = json!({ "outputs": outputs, "timesteps": levels.steps, "share": hex(&[*share]) });
                }
                record
            });
            all.insert(site.to_string(), record);
        }
        let heads = attentions(graph).map(|value| self.quant_plan.heads.get(&value));
        let heads: Vec<Json> = heads.flatten().map(|[q, k]| json!({ "q": hex(q), "k": hex(k) })).collect();
        let mut json = json!({
            "source": self.source, "windows": self.windows, "tokens": self.tokens, "seen": bits(&self.seen),
            "phases": self.quant_plan.phases, "exact_weights": self.quant_plan.exact_weights, "sites": all, "heads": heads,
        });
        let attention = |value: Value| {
            let variant = self.quant_plan.variants.get(&value)?;
            let Op::Dense(DenseOp::Attention { heads, .. }) = graph.node(value).op else { return None };
            let mut record = json!({ "op": Op::Level(LevelOp::Ssa { heads, variant: *variant }).to_string() });
            if let Some(Features { levels, units: [q, k] }) = self.quant_plan.features.get(&value) {
                record["features"] = json!({
                    "code": levels.code.name(), "timesteps": levels.steps, "q": hex(q), "k": hex(k),
                });
            }
            Some(record)
        };
        let attentions: Vec<Option<Json>> = attentions(graph).map(attention).collect();
        if attentions.iter().any(Option::is_some) {
            json["attention"] = json!(attentions);
        }
        if let Some(membrane) = self.membrane {
            json["neuron"] = json!(membrane.name());
        }
        json
    }

    /// Reads what `json` wrote, for the Tensor graph of the same network.
    ///
    /// # Errors
    /// The section is not one of this version, or belongs to another network.
    pub fn read(section: &[u8], graph: &Graph) -> Result<Self, Diagnostic> {
        let json: Json = serde_json::from_slice(section).map_err(|e| broken(&format!("is no JSON ({e})")))?;
        let number = |key: &str| json[key].as_u64().ok_or_else(|| broken(&format!("has no number `{key}`")));
        let mut quant_plan = QuantPlan {
            phases: number("phases")?.clamp(1, 64) as u32,
            exact_weights: json["exact_weights"].as_bool().unwrap_or(false),
            ..QuantPlan::default()
        };
        let mut fired = Vec::new();
        for site in sites(graph) {
            let path = site.to_string();
            let record = json["sites"].get(&path).ok_or_else(|| broken(&format!("has no site {path}")))?;
            let width = graph.ty(site.value).shape().width().unwrap_or(0);
            let fit = if record.is_null() {
                None
            } else {
                Some(read_fit(record, width, outputs_of(graph, site.value), &path)?)
            };
            let share = |key: &str| record[key].as_f64().unwrap_or(0.0);
            fired.push(Fired { saturated: share("saturated"), spikes: share("spikes"), active: share("active") });
            quant_plan.sites.insert(site.value, fit);
        }
        for (i, value) in attentions(graph).enumerate() {
            let Op::Dense(DenseOp::Attention { heads, .. }) = graph.node(value).op else { continue };
            let half = |key: &str| numbers(&json["heads"][i][key], heads as usize, "heads");
            quant_plan.heads.insert(value, [half("q")?, half("k")?]);
            let record = &json["attention"][i];
            if record.is_null() {
                continue;
            }
            let op = record["op"].as_str().and_then(|op| Op::parse(op).ok());
            let Some(Op::Level(LevelOp::Ssa { variant, .. })) = op else { return Err(broken("names no attention")) };
            quant_plan.variants.insert(value, variant);
            if variant.has_features() {
                let width = graph.ty(value).shape().width().unwrap_or(0);
                let (path, record) = (format!("h.{i}.attention"), &record["features"]);
                let code = record["code"].as_str().and_then(Code::from_name);
                let code = code.ok_or_else(|| broken(&format!("names no code for {path}")))?;
                let steps = read_steps(&record["timesteps"], code, &path)?;
                let units = [numbers(&record["q"], width, &path)?, numbers(&record["k"], width, &path)?];
                quant_plan.features.insert(value, Features { levels: Levels { code, steps }, units });
            }
        }
        Ok(Self {
            source: json["source"].as_str().unwrap_or("unknown").to_string(),
            windows: number("windows")? as usize,
            tokens: number("tokens")? as usize,
            seen: seen(&json),
            membrane: match json["neuron"].as_str() {
                None => None,
                Some(name) => Some(Membrane::from_name(name).ok_or_else(|| broken("names no neuron"))?),
            },
            quant_plan,
            fired,
        })
    }
}

/// Which ids of the vocabulary a calibration section says that its text had.
pub fn seen(section: &Json) -> Vec<bool> {
    let digits = section["seen"].as_str().unwrap_or("").chars().filter_map(|c| c.to_digit(16));
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
fn read_fit(record: &Json, width: usize, outputs: usize, path: &str) -> Result<QuantParams, Diagnostic> {
    let code = record["code"].as_str().and_then(Code::from_name);
    let code = code.ok_or_else(|| broken(&format!("names no code for {path}")))?;
    let steps = read_steps(&record["timesteps"], code, path)?;
    let part = |key: &str| numbers(&record[key], width, path);
    Ok(QuantParams {
        levels: Levels { code, steps },
        scale: part("scale")?,
        zero_point: part("zero_point")?,
        bias_correction: part("bias_correction")?,
        by_token: record["by_token"].as_bool().unwrap_or(false),
        outliers: channels(&record["outliers"], width, path)?,
        residual: if record["residual"].is_null() {
            None
        } else {
            Some(read_fine(&record["residual"], code, outputs, path)?)
        },
    })
}

fn read_fine(record: &Json, code: Code, outputs: usize, path: &str) -> Result<Residual, Diagnostic> {
    let levels = Levels { code, steps: read_steps(&record["timesteps"], code, path)? };
    let share = numbers(&record["share"], 1, path)?[0];
    Ok(Residual { outputs: channels(&record["outputs"], outputs, path)?, levels, share })
}

fn read_steps(record: &Json, code: Code, path: &str) -> Result<u16, Diagnostic> {
    let steps = record.as_u64().filter(|steps| (1..=u64::from(code.max_steps())).contains(steps));
    steps.map(|steps| steps as u16).ok_or_else(|| broken(&format!("has no timesteps for {path}")))
}

/// A list of channels below `width`, in ascending order.
fn channels(list: &Json, width: usize, path: &str) -> Result<Vec<usize>, Diagnostic> {
    let channel = |c: &Json| c.as_u64().map(|c| c as usize).filter(|&c| c < width);
    let all = list.as_array().map_or(Some(Vec::new()), |all| all.iter().map(channel).collect());
    let mut all: Vec<usize> = all.ok_or_else(|| broken(&format!("names no channels of {path}")))?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn hex(numbers: &[f32]) -> String {
    numbers.iter().map(|x| format!("{:08x}", x.to_bits())).collect()
}

fn numbers(text: &Json, count: usize, path: &str) -> Result<Vec<f32>, Diagnostic> {
    let text = text.as_str().unwrap_or("");
    let one = |i: usize| u32::from_str_radix(text.get(8 * i..8 * i + 8)?, 16).ok().map(f32::from_bits);
    let all: Option<Vec<f32>> = (0..count).map(one).collect();
    all.filter(|all| text.len() == 8 * count && all.iter().all(|x| x.is_finite()))
        .ok_or_else(|| broken(&format!("does not hold {count} numbers for {path}")))
}

fn bits(seen: &[bool]) -> String {
    let digit = |four: &[bool]| {
        let value = four.iter().enumerate().fold(0, |sum, (i, &bit)| sum | u32::from(bit) << i);
        std::char::from_digit(value, 16).unwrap_or('0')
    };
    seen.chunks(4).map(digit).collect()
}
