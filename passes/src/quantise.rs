//! Chooses levels: the only step of the compiler that loses anything, and all of its loss can be seen on tensors.
//!
//! A *site* is a value that a weight or attention reads: it becomes levels, one static scale a channel, from ranges seen
//! on sample text. The scale is folded into the rows of the next weight before that is made int8 with one scale an
//! output. Keys and queries are balanced channel by channel, so that scores are integers with one scale a head. Outputs of
//! curves are coded around their median, where most neurons then stay silent; the shift folds into the next bias.
//!
//! Formulas: scale migration and threshold folding as in Rueckauer et al. 2016 and the spike-coded attention of
//! `docs/ir.md`.

use crate::Context;
use indexmap::IndexMap;
use snnc_ir::eval;
use snnc_ir::op::Layout;
use snnc_ir::types::Code;
use snnc_ir::{Binary, Builder, Curve, Diagnostic, Graph, Op, Stage, Tensor, Value};
use std::sync::Arc;

/// How many levels, and how they are spelled in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    pub code: Code,
    pub steps: u16,
}

impl Default for Levels {
    /// Seven binary steps: levels up to 127 either way, which are int8.
    fn default() -> Self {
        Self { code: Code::Binary, steps: 7 }
    }
}

/// What the channels of a site were seen to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range {
    pub min: Vec<f32>,
    pub max: Vec<f32>,
    pub median: Vec<f32>,
}

/// Ranges by value of the graph that is quantised.
pub type Ranges = IndexMap<Value, Range>;

/// Phases an octave of time-to-first-spike attention: weights within 4.4 % of the exact exponential, unbiased.
pub const PHASES: u32 = 8;

/// Share of the seen range that levels cover. With few levels, finer steps are worth more than rare extremes; measured
/// on a trained GPT-2 with one static scale a channel.
fn coverage(levels: i32) -> f32 {
    match levels {
        100.. => 1.0,
        40..100 => 0.9,
        _ => 0.8,
    }
}

/// Below this a channel's range counts as this when queries and keys are balanced.
const LEAST_RANGE: f32 = 1e-8;

/// Values that become levels: operands of projections and of attention, in order.
pub fn sites(graph: &Graph) -> Vec<Value> {
    let mut sites: Vec<Value> = graph
        .iter()
        .flat_map(|(_, node)| match node.op {
            Op::Linear(_) => node.args[..1].to_vec(),
            Op::Attention { .. } => node.args.clone(),
            _ => Vec::new(),
        })
        .collect();
    sites.sort_unstable();
    sites.dedup();
    sites
}

/// Whether a site is coded around its channels' medians.
pub fn is_centred(graph: &Graph, site: Value) -> bool {
    matches!(graph.node(site).op, Op::Curve(_))
}

/// The Quantised graph of a simplified Tensor graph.
///
/// # Errors
/// A site without a range; a range that is not finite; a graph whose attention reads something other than projections.
pub fn quantise(graph: &Graph, context: &Context) -> Result<Graph, Vec<Diagnostic>> {
    let mut pass = Quantise {
        graph,
        context,
        names: names(graph),
        builder: Builder::new(Stage::Quantised, graph.context),
        map: vec![None; graph.nodes.len()],
        sites: IndexMap::new(),
        units: IndexMap::new(),
    };
    for (value, _) in graph.iter() {
        pass.node(value).map_err(|e| vec![e])?;
    }
    let outputs: Result<Vec<(String, Value)>, Diagnostic> =
        graph.outputs.iter().map(|(name, value)| Ok((name.clone(), pass.still(*value)?))).collect();
    Ok(pass.builder.finish(outputs.map_err(|e| vec![e])?))
}

/// A site as levels: `x = scale * level + centre`, channel by channel.
#[derive(Clone)]
struct Site {
    levels: Value,
    scale: Vec<f32>,
    centre: Vec<f32>,
}

struct Quantise<'a> {
    graph: &'a Graph,
    context: &'a Context,
    /// What a projection or attention is called, by value.
    names: IndexMap<Value, String>,
    builder: Builder,
    /// Stills of the new graph, by value of the old one.
    map: Vec<Option<Value>>,
    /// Levels of the new graph, by value of the old one.
    sites: IndexMap<Value, Site>,
    /// What 1 of a still of the new graph stands for, where that is not 1: outputs of attention count in v's levels.
    units: IndexMap<Value, Vec<f32>>,
}

impl Quantise<'_> {
    fn node(&mut self, value: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(value);
        let origin = self.graph.origin(value).to_string();
        let new = match node.op {
            // Constants are placed where they are used; a curve belongs to the neuron that reads it.
            Op::Weight(_) | Op::Curve(_) => return Ok(()),
            Op::Linear(layout) => self.linear(value, layout)?,
            Op::Attention { heads, scale } => self.attention(value, heads, scale.get())?,
            Op::Tokens | Op::Positions | Op::Normalise { .. } | Op::Embed | Op::Binary(Binary::Add) => {
                let args = node.args.iter().map(|arg| self.still(*arg)).collect::<Result<Vec<_>, _>>()?;
                self.builder.add(node.op, &args, &origin)?
            }
            Op::LayerNorm { eps } => {
                return Err(Diagnostic::new(
                    origin,
                    format!("a LayerNorm (eps {eps:?}) feeds something that is no projection"),
                ));
            }
            op => return Err(Diagnostic::new(origin, format!("`{op}` has no spiking counterpart"))),
        };
        self.map[value.index()] = Some(new);
        Ok(())
    }

    /// The new graph's still for an old value.
    fn still(&mut self, value: Value) -> Result<Value, Diagnostic> {
        if let Some(weight) = self.graph.constant(value) {
            return Ok(self.builder.weight(&weight.name, weight.tensor.clone()));
        }
        let found = self.map[value.index()].filter(|_| !self.units.contains_key(&value));
        found.ok_or_else(|| {
            let op = self.graph.node(value).op;
            Diagnostic::new(self.graph.origin(value), format!("`{op}` is read by something that is no projection"))
        })
    }

    fn constant(&mut self, name: String, data: Vec<f32>) -> Value {
        self.builder.weight(&name, Arc::new(Tensor::f32(&[data.len()], data)))
    }

    fn range(&self, site: Value) -> Result<&Range, Diagnostic> {
        let width = self.graph.ty(site).shape().width().unwrap_or(0);
        let origin = self.graph.origin(site);
        let range = self.context.ranges.get(&site);
        let range = range.ok_or_else(|| Diagnostic::new(origin, "no range was measured here; calibrate first"))?;
        let finite = |v: &[f32]| v.len() == width && v.iter().all(|x| x.is_finite());
        if finite(&range.min) && finite(&range.max) && finite(&range.median) {
            return Ok(range);
        }
        Err(Diagnostic::new(origin, "the range measured here is not finite or not of the value's width"))
    }

    /// Largest magnitude of every channel around `centre`.
    fn reach(range: &Range, centre: &[f32]) -> Vec<f32> {
        let ends = range.min.iter().zip(&range.max);
        ends.zip(centre).map(|((&lo, &hi), &m)| (hi - m).max(m - lo)).collect()
    }

    fn most(&self) -> i32 {
        let Levels { code, steps } = self.context.levels;
        code.levels(steps)
    }

    /// The site as levels with one scale a channel.
    fn site(&mut self, value: Value, name: &str) -> Result<Site, Diagnostic> {
        if let Some(site) = self.sites.get(&value) {
            return Ok(site.clone());
        }
        let range = self.range(value)?;
        let centre = if is_centred(self.graph, value) { range.median.clone() } else { vec![0.0; range.min.len()] };
        let share = coverage(self.most()) / self.most() as f32;
        let scale: Vec<f32> = Self::reach(range, &centre).into_iter().map(|reach| reach * share).collect();
        let levels = self.levels(value, name, &scale, &centre)?;
        let site = Site { levels, scale, centre };
        self.sites.insert(value, site.clone());
        Ok(site)
    }

    /// A layer of neurons that codes `(value - centre) / scale`.
    fn levels(&mut self, value: Value, name: &str, scale: &[f32], centre: &[f32]) -> Result<Value, Diagnostic> {
        let origin = self.graph.origin(value).to_string();
        let Levels { code, steps } = self.context.levels;
        let (curve, input) = match self.graph.node(value).op {
            Op::Curve(curve) => (curve, self.graph.node(value).args[0]),
            _ => (Curve::Identity, value),
        };
        let ones = vec![1.0; scale.len()];
        let unit = self.units.get(&input).cloned().unwrap_or(ones.clone());
        let inverse = |s: f32| if s > 0.0 { 1.0 / s } else { 0.0 };
        let offset = scale.iter().zip(centre).map(|(&s, &m)| 0.0 - m * inverse(s)).collect();
        let op = Op::Quant { code, steps, curve };
        let potential = match self.map[input.index()] {
            Some(potential) => potential,
            None => self.still(input)?,
        };
        if curve == Curve::Identity {
            let gain = scale.iter().zip(&unit).map(|(&s, &u)| u * inverse(s)).collect();
            let gain = self.constant(format!("{name}.gain"), gain);
            let offset = self.constant(format!("{name}.offset"), offset);
            return self.builder.add(op, &[potential, gain, offset], &origin);
        }
        let pre_gain = self.constant(format!("{name}.pre_gain"), unit);
        let pre_offset = self.constant(format!("{name}.pre_offset"), vec![0.0; scale.len()]);
        let gain = self.constant(format!("{name}.gain"), scale.iter().map(|&s| inverse(s)).collect());
        let offset = self.constant(format!("{name}.offset"), offset);
        self.builder.add(op, &[potential, pre_gain, pre_offset, gain, offset], &origin)
    }

    /// `W x + b = (W diag s) level + (b + W m)`, with the product in integers.
    fn linear(&mut self, value: Value, layout: Layout) -> Result<Value, Diagnostic> {
        let node = self.graph.node(value);
        let origin = self.graph.origin(value).to_string();
        let name = self.names.get(&value).cloned().unwrap_or_else(|| "linear".into());
        let site = self.site(node.args[0], &format!("{}.in", site_of(&name)))?;
        let constant = |i: usize| {
            let found = self.graph.constant(node.args[i]).and_then(|weight| weight.tensor.as_f32());
            found.ok_or_else(|| Diagnostic::new(&origin, "a projection's weight and bias must be constants"))
        };
        let folded = fold_scale(constant(1)?, constant(2)?, layout, &site);
        let sizes = [site.scale.len(), folded.scale.len()];
        let w = self.builder.weight(&format!("{name}.weight"), Arc::new(Tensor::i8(&sizes, folded.weight)));
        let scale = self.constant(format!("{name}.scale"), folded.scale);
        let bias = self.constant(format!("{name}.bias"), folded.bias);
        let sums = self.builder.add(Op::Product, &[site.levels, w], &origin)?;
        self.builder.add(Op::Affine, &[sums, scale, bias], &origin)
    }

    /// Scores `q . k` are integers: channel `c` of q counts in `R / b_c`, of k in `R * b_c`, with `R` one number a head.
    fn attention(&mut self, value: Value, heads: u32, scale: f32) -> Result<Value, Diagnostic> {
        let &[q, k, v] = self.graph.node(value).args.as_slice() else { unreachable!("checked by infer") };
        let name = self.names.get(&value).cloned().unwrap_or_else(|| "attention".into());
        let reach = |pass: &Self, site| {
            let range = pass.range(site)?;
            Ok(Self::reach(range, &vec![0.0; range.min.len()]))
        };
        let (reach_q, reach_k) = (reach(self, q)?, reach(self, k)?);
        let width = reach_q.len() / heads as usize;
        let share = coverage(self.most()) / self.most() as f32;
        let pairs: Vec<(f32, f32)> =
            reach_q.iter().zip(&reach_k).map(|(&q, &k)| (q.max(LEAST_RANGE), k.max(LEAST_RANGE))).collect();
        let per_head: Vec<f32> = pairs
            .chunks_exact(width)
            .map(|head| head.iter().map(|(q, k)| (q * k).sqrt()).fold(0.0, f32::max) * share)
            .collect();
        let balance = |c: usize| (pairs[c].1 / pairs[c].0).sqrt();
        let scale_q: Vec<f32> = (0..pairs.len()).map(|c| per_head[c / width] / balance(c)).collect();
        let scale_k: Vec<f32> = (0..pairs.len()).map(|c| per_head[c / width] * balance(c)).collect();
        let zero = vec![0.0; pairs.len()];
        let q = self.levels(q, &format!("{name}.q"), &scale_q, &zero)?;
        let k = self.levels(k, &format!("{name}.k"), &scale_k, &zero)?;
        let v = self.site(v, &format!("{name}.v"))?;
        let octaves = |r: &f32| r * r * scale * std::f32::consts::LOG2_E * PHASES as f32;
        let slope = self.constant(format!("{name}.slope"), per_head.iter().map(octaves).collect());
        let origin = self.graph.origin(value).to_string();
        self.units.insert(value, v.scale);
        self.builder.add(Op::Ssa { heads, phases: PHASES }, &[q, k, v.levels, slope], &origin)
    }
}

/// A projection with its input's scales in its rows, in int8.
struct Folded {
    /// `[in, out]`
    weight: Vec<i8>,
    /// What 1 of the integer sum stands for, by output.
    scale: Vec<f32>,
    bias: Vec<f32>,
}

/// Magnitudes of int8 weights: symmetric, so that a sign change never overflows.
const WEIGHT_LEVELS: f32 = 127.0;

fn fold_scale(w: &[f32], bias: &[f32], layout: Layout, site: &Site) -> Folded {
    match layout {
        Layout::InputMajor => fold_input_major(w, bias, site),
        Layout::OutputMajor => fold_output_major(w, bias, site),
    }
}

fn fold_input_major(w: &[f32], bias: &[f32], site: &Site) -> Folded {
    let m = bias.len();
    let mut most = vec![0f32; m];
    let mut shift = vec![0f64; m];
    for ((row, &s), &centre) in w.chunks_exact(m).zip(&site.scale).zip(&site.centre) {
        most.iter_mut().zip(row).for_each(|(most, &w)| *most = most.max((w * s).abs()));
        if centre != 0.0 {
            shift.iter_mut().zip(row).for_each(|(shift, &w)| *shift += f64::from(w) * f64::from(centre));
        }
    }
    let inverse: Vec<f32> = most.iter().map(|&most| if most > 0.0 { WEIGHT_LEVELS / most } else { 0.0 }).collect();
    let mut weight = Vec::with_capacity(w.len());
    for (row, &s) in w.chunks_exact(m).zip(&site.scale) {
        weight.extend(row.iter().zip(&inverse).map(|(&w, &inverse)| eval::level(w * s * inverse, 127) as i8));
    }
    let scale = most.iter().map(|&most| most / WEIGHT_LEVELS).collect();
    let bias = bias.iter().zip(&shift).map(|(&b, &shift)| (f64::from(b) + shift) as f32).collect();
    Folded { weight, scale, bias }
}

/// Rows read at a time when an output-major weight is turned.
const TURN: usize = 64;

fn fold_output_major(w: &[f32], bias: &[f32], site: &Site) -> Folded {
    let (k, m) = (site.scale.len(), bias.len());
    let mut folded = Folded { weight: vec![0; w.len()], scale: Vec::with_capacity(m), bias: Vec::with_capacity(m) };
    for (block, rows) in w.chunks(TURN * k).enumerate() {
        let inverse: Vec<f32> = rows
            .chunks_exact(k)
            .map(|row| {
                let most = row.iter().zip(&site.scale).fold(0f32, |most, (&w, &s)| most.max((w * s).abs()));
                folded.scale.push(most / WEIGHT_LEVELS);
                if most > 0.0 { WEIGHT_LEVELS / most } else { 0.0 }
            })
            .collect();
        for (row, &b) in rows.chunks_exact(k).zip(&bias[block * TURN..]) {
            let dot = |sum: f64, (&w, &m): (&f32, &f32)| sum + f64::from(w) * f64::from(m);
            folded.bias.push((f64::from(b) + row.iter().zip(&site.centre).fold(0.0, dot)) as f32);
        }
        for (c, &s) in site.scale.iter().enumerate() {
            let out = &mut folded.weight[c * m + block * TURN..][..inverse.len()];
            for (r, (out, &inverse)) in out.iter_mut().zip(&inverse).enumerate() {
                *out = eval::level(rows[r * k + c] * s * inverse, 127) as i8;
            }
        }
    }
    folded
}

/// The site that a projection of this name reads: q, k and v share theirs.
fn site_of(name: &str) -> &str {
    ["q", "k", "v"].iter().find_map(|part| name.strip_suffix(&format!(".{part}"))).unwrap_or(name)
}

/// Names by role: what feeds attention, what attention feeds, what feeds a curve, what a curve feeds, what is an output.
fn names(graph: &Graph) -> IndexMap<Value, String> {
    let mut names = IndexMap::new();
    let mut layer = 0;
    let is_curve = |value: Value| matches!(graph.node(value).op, Op::Curve(_));
    let feeds_curve = |value: Value| graph.iter().any(|(user, node)| is_curve(user) && node.args[0] == value);
    for (value, node) in graph.iter() {
        match node.op {
            Op::Attention { .. } => {
                for (part, arg) in ["q", "k", "v"].into_iter().zip(&node.args) {
                    names.insert(*arg, format!("h.{layer}.attn.{part}"));
                }
                names.insert(value, format!("h.{layer}.attn"));
                layer += 1;
            }
            Op::Linear(_) => {
                let block = layer.max(1) - 1;
                let input = graph.node(node.args[0]).op;
                let name = match input {
                    _ if graph.outputs.iter().any(|(_, output)| *output == value) => "head".to_string(),
                    Op::Attention { .. } => format!("h.{block}.attn.out"),
                    Op::Curve(_) => format!("h.{block}.mlp.down"),
                    _ if feeds_curve(value) => format!("h.{block}.mlp.up"),
                    _ => format!("h.{block}.linear"),
                };
                names.insert(value, name);
            }
            _ => {}
        }
    }
    names
}
