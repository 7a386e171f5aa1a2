//! Puts levels where they were chosen to be: the only step of the compiler that loses anything, and all of its loss can be
//! seen on tensors.
//!
//! A *site* is a value that a weight or attention reads (`sites`); `fit` has chosen its levels. Its scales are folded into
//! the rows of the next weight before that is made int8 with one scale an output, its centre into the next bias. Scores of
//! balanced queries and keys are integers with one scale a head. What reads a site that stays dense stays f32.
//!
//! Formulas: scale migration and threshold folding as in Rueckauer et al. 2016 and the spike-coded attention of
//! `docs/ir.md`.

mod compensate;
mod groups;
mod weights;

use crate::context::{Context, StartRows};
use crate::features::{self, Features};
use crate::fit::{QuantParams, QuantPlan};
use crate::levels::Levels;
use crate::moments::MomentSource;
use crate::side_by_side::SideBySide;
use crate::sites;
use compensate::Feedback;
use indexmap::IndexMap;
use snnc_ir::bounds::{SUM_MAX, largest_sum};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::op::{Heads, Layout, opening};
use snnc_ir::origin::NodeOrigin;
use snnc_ir::site::{ChannelGroup, Role, Site};
use snnc_ir::ssa::Output;
use snnc_ir::{Binary, Builder, Curve, Diagnostic, Elem, Graph, Op, Ssa, Stage, Tensor, Value};
use std::sync::Arc;
use weights::{
    Units, WeightRounding, fold_input_major, fold_scale, lacking, rows_of, scaled, shares, shifted, split_outputs,
};

/// The Quantised graph of a simplified Tensor graph.
///
/// # Errors
/// A site without a choice; a graph whose attention reads something other than projections.
pub fn quantise(graph: &Graph, context: &Context) -> Result<Graph, Diagnostics> {
    let graph = &sites::annotated(graph.clone());
    let mut pass = Quantise {
        graph,
        quant_plan: &context.quant_plan,
        moments: context.moments,
        start: context.start.as_deref(),
        start_ids: None,
        rounded_weights: &context.rounded_weights,
        feedback: None,
        rounds_head_alone: !context.own_embedding && !context.rotations.residual,
        side_by_side: context.side_by_side.clone(),
        names: sites::names(graph),
        sites: sites::sites(graph).into_iter().map(|site| (site.value, site.site)).collect(),
        builder: Builder::new(Stage::Quantised, graph.context),
        map: vec![None; graph.nodes.len()],
        levels: IndexMap::new(),
        groups: IndexMap::new(),
        reals: IndexMap::new(),
        units: IndexMap::new(),
    };
    for (value, _) in graph.iter() {
        pass.node(value)?;
    }
    let outputs: Result<Vec<(String, Value)>, Diagnostic> =
        graph.outputs.iter().map(|(name, value)| Ok((name.clone(), pass.tensor(*value)?))).collect();
    Ok(pass.builder.finish(outputs?))
}

/// By site and group: what errors of weights come to, where moments were measured.
type KnownFeedback = ((Value, usize), Option<Arc<Feedback>>);

struct Quantise<'a> {
    graph: &'a Graph,
    quant_plan: &'a QuantPlan,
    /// What weights are rounded by, where it was measured.
    moments: Option<&'a dyn MomentSource>,
    /// What tokens that texts begin with make of the residual stream.
    start: Option<&'a StartRows>,
    /// Their pairs of ids in the new graph.
    start_ids: Option<Value>,
    /// Weights that are known already, by name.
    rounded_weights: &'a IndexMap<String, Arc<Tensor>>,
    /// What was last made of them, by site and group: projections that read the same come one after the other.
    feedback: Option<KnownFeedback>,
    /// Whether weights of the head are rounded to nearest: the embedding may read them, one by one.
    rounds_head_alone: bool,
    /// How panels of weights are rounded.
    side_by_side: SideBySide,
    /// What a projection or attention is called, by value.
    names: IndexMap<Value, String>,
    /// The places of values that become levels.
    sites: IndexMap<Value, Site>,
    builder: Builder,
    /// Stills of the new graph, by value of the old one.
    map: Vec<Option<Value>>,
    /// Levels of the new graph, by value of the old one.
    levels: IndexMap<Value, Value>,
    /// The same where channels are in groups, and the thresholds of the tokens, by value and group.
    groups: IndexMap<(Value, usize), (Value, Option<Value>)>,
    /// Sites as reals, after their levels where they have any.
    reals: IndexMap<Value, Value>,
    /// By value of the old graph, where 1 of the new graph's still does not stand for 1: spiking attention counts in v's
    /// levels.
    units: IndexMap<Value, Units>,
}

impl Quantise<'_> {
    fn node(&mut self, value: Value) -> Result<(), Diagnostic> {
        let node = self.graph.node(value);
        let origin = self.graph.origin(value).clone();
        let new = match node.op {
            // Constants are placed where they are used; a curve belongs to the neuron that reads it.
            Op::Leaf(LeafOp::Weight(_)) | Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)) => return Ok(()),
            Op::Dense(DenseOp::Linear(layout)) => self.linear(value, layout)?,
            Op::Dense(DenseOp::Attention { heads, scale }) => self.attention(value, heads, scale.get())?,
            Op::Leaf(LeafOp::Tokens)
            | Op::Leaf(LeafOp::Positions)
            | Op::Dense(DenseOp::Centre | DenseOp::RmsNorm { .. } | DenseOp::Rotary { .. })
            | Op::Dense(DenseOp::Embed | DenseOp::Hadamard(_))
            | Op::Level(LevelOp::ScaleShift)
            | Op::Array(ArrayOp::Binary(Binary::Add)) => {
                let args = node.args.iter().map(|arg| self.tensor(*arg)).collect::<Result<Vec<_>, _>>()?;
                self.builder.add(node.op, &args, &origin)?
            }
            op => return Err(Diagnostic::new(origin, format!("`{op}` has no spiking counterpart"))),
        };
        let new = self.at_start(value, new)?;
        self.map[value.index()] = Some(new);
        Ok(())
    }

    /// The new graph's still for an old value; but a constant where a sequence begins as texts do.
    fn at_start(&mut self, value: Value, new: Value) -> Result<Value, Diagnostic> {
        let Some((start, rows)) = self.start.and_then(|start| Some((start, start.rows.get(&value)?))) else {
            return Ok(new);
        };
        let (origin, count) = (self.graph.origin(value), start.starts.len());
        let ids = start.starts.iter().filter_map(|start| opening(0, None, start).last()).flatten().collect();
        let ids = || self.builder.weight("start.ids", Arc::new(Tensor::i32(&[count, 2], ids)));
        let ids = self.start_ids.unwrap_or_else(ids);
        self.start_ids = Some(ids);
        let opening = self.builder.add(LeafOp::Opening, &[], origin)?;
        let at = start.rows.get_index_of(&value).unwrap_or(0);
        let rows = Tensor::f32(&[count, rows.len() / count.max(1)], rows.clone());
        let rows = self.builder.weight(&format!("start.{at}"), Arc::new(rows));
        self.builder.add(DenseOp::AtStart, &[new, opening, ids, rows], origin)
    }

    /// The new graph's still for an old value.
    fn tensor(&mut self, value: Value) -> Result<Value, Diagnostic> {
        if let Some(weight) = self.graph.constant(value) {
            return Ok(self.builder.weight(&weight.name, weight.tensor.clone()));
        }
        if let Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)) = self.graph.node(value).op {
            return self.curved(value);
        }
        let found = self.map[value.index()].filter(|_| !self.units.contains_key(&value));
        found.ok_or_else(|| {
            let op = self.graph.node(value).op;
            Diagnostic::new(self.graph.origin(value), format!("`{op}` is read by something that is no projection"))
        })
    }

    /// A curve that something else than neurons reads.
    fn curved(&mut self, value: Value) -> Result<Value, Diagnostic> {
        if let Some(done) = self.map[value.index()] {
            return Ok(done);
        }
        let (node, origin) = (self.graph.node(value), self.coded(value, ChannelGroup::Whole));
        let args = node.args.iter().map(|arg| self.tensor(*arg)).collect::<Result<Vec<_>, _>>()?;
        let new = self.builder.add(node.op, &args, &origin)?;
        self.map[value.index()] = Some(new);
        Ok(new)
    }

    fn constant(&mut self, name: String, data: Vec<f32>) -> Value {
        self.builder.weight(&name, Arc::new(Tensor::f32(&[data.len()], data)))
    }

    fn fit(&self, site: Value) -> Result<Option<&QuantParams>, Diagnostic> {
        let chosen = self.quant_plan.sites.get(&site);
        let chosen = chosen.ok_or_else(|| Diagnostic::new(self.graph.origin(site), "no levels were chosen here"))?;
        Ok(chosen.as_ref())
    }

    /// A layer of neurons that codes `(value - centre) / scale`.
    fn levels(&mut self, value: Value, name: &str) -> Result<Value, Diagnostic> {
        if let Some(levels) = self.levels.get(&value) {
            return Ok(*levels);
        }
        let Some(fit) = self.fit(value)?.cloned() else { unreachable!("asked of sites that have levels") };
        let new = self.neurons(value, name, fit, ChannelGroup::Whole)?;
        self.levels.insert(value, new);
        Ok(new)
    }

    fn neurons(
        &mut self,
        value: Value,
        name: &str,
        fit: QuantParams,
        group: ChannelGroup,
    ) -> Result<Value, Diagnostic> {
        if let Op::Dense(DenseOp::Gated(curve)) = self.graph.node(value).op {
            return self.gated_neurons(value, curve, name, &fit, group);
        }
        let QuantParams { levels, scale, zero_point, .. } = fit;
        let origin = self.coded(value, group);
        let (curve, input) = match self.graph.node(value).op {
            Op::Dense(DenseOp::Curve(curve)) => (curve, self.graph.node(value).args[0]),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                (Curve::Identity, value)
            }
        };
        let Units { unit, shift } = self.units_of(input, scale.len());
        let inverse = |s: f32| if s > 0.0 { 1.0 / s } else { 0.0 };
        let op = Op::Level(LevelOp::Quant { code: levels.code, steps: levels.steps, curve });
        let potential = match self.map[input.index()] {
            Some(potential) => potential,
            None => self.tensor(input)?,
        };
        let channels = scale.iter().zip(&zero_point);
        let args = if curve == Curve::Identity {
            let gain = scale.iter().zip(&unit).map(|(&s, &u)| u * inverse(s)).collect();
            let offset = channels.zip(&shift).map(|((&s, &m), &h)| (h - m) * inverse(s)).collect();
            let gain = self.constant(format!("{name}.gain"), gain);
            vec![potential, gain, self.constant(format!("{name}.offset"), offset)]
        } else {
            let gain = scale.iter().map(|&s| inverse(s)).collect();
            let offset = channels.map(|(&s, &m)| (0.0 - m) * inverse(s)).collect();
            let pre_gain = self.constant(format!("{name}.pre_gain"), unit);
            let pre_offset = self.constant(format!("{name}.pre_offset"), shift);
            let gain = self.constant(format!("{name}.gain"), gain);
            vec![potential, pre_gain, pre_offset, gain, self.constant(format!("{name}.offset"), offset)]
        };
        self.builder.add(op, &args, &origin)
    }

    /// Neurons with a multiplicative input: the scale divides what the gate multiplies.
    fn gated_neurons(
        &mut self,
        value: Value,
        curve: Curve,
        name: &str,
        fit: &QuantParams,
        group: ChannelGroup,
    ) -> Result<Value, Diagnostic> {
        let origin = self.coded(value, group);
        let &[gate, up] = self.graph.node(value).args.as_slice() else { unreachable!("checked by infer") };
        if fit.zero_point.iter().any(|&point| point != 0.0) {
            return Err(Diagnostic::new(origin, "gated neurons have levels around 0"));
        }
        let inverse = fit.scale.iter().map(|&s| if s > 0.0 { 1.0 / s } else { 0.0 }).collect();
        let (ones, zeros) = (vec![1.0; fit.scale.len()], vec![0.0; fit.scale.len()]);
        let mut args = vec![self.tensor(gate)?, self.tensor(up)?];
        for (what, data) in [("pre_gain", ones), ("pre_offset", zeros.clone()), ("gain", inverse), ("offset", zeros)] {
            args.push(self.constant(format!("{name}.{what}"), data));
        }
        let op = LevelOp::GatedQuant { code: fit.levels.code, steps: fit.levels.steps, curve };
        self.builder.add(Op::Level(op), &args, &origin)
    }

    /// Where a part of a projection comes from and stands.
    fn in_group(&self, value: Value, group: ChannelGroup) -> NodeOrigin {
        self.graph.origin(value).at(self.graph.site(value).map(|site| site.group(group)))
    }

    /// Where the neurons that code a value come from and stand.
    fn coded(&self, value: Value, group: ChannelGroup) -> NodeOrigin {
        let site = self.sites.get(&value).copied().or(self.graph.site(value));
        self.graph.origin(value).at(site.map(|site| site.group(group)))
    }

    fn units_of(&self, value: Value, width: usize) -> Units {
        let plain = || Units { unit: vec![1.0; width], shift: vec![0.0; width] };
        self.units.get(&value).cloned().unwrap_or_else(plain)
    }

    /// The site as reals, for what reads it without spikes: what its levels stand for, or itself where it stays dense.
    fn real(&mut self, value: Value, name: &str) -> Result<Value, Diagnostic> {
        if let Some(real) = self.reals.get(&value) {
            return Ok(*real);
        }
        let origin = self.coded(value, ChannelGroup::Whole);
        let real = match self.fit(value)?.cloned() {
            Some(QuantParams { scale, zero_point, bias_correction, .. }) => {
                let levels = self.levels(value, name)?;
                let scale = self.constant(format!("{name}.scale"), scale);
                let zero_point =
                    zero_point.iter().zip(&bias_correction).map(|(m, bias_correction)| m + bias_correction).collect();
                let zero_point = self.constant(format!("{name}.zero_point"), zero_point);
                self.builder.add(Op::Level(LevelOp::ScaleShift), &[levels, scale, zero_point], &origin)?
            }
            None => match self.graph.node(value).op {
                Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)) => self.curved(value)?,
                // Where it counts in other units, its one reader takes them into its weight.
                Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                    self.map[value.index()].map_or_else(|| self.tensor(value), Ok)?
                }
            },
        };
        self.reals.insert(value, real);
        Ok(real)
    }

    /// `W x + b = (W diag s) level + (b + W m)`, with the product in integers.
    fn linear(&mut self, value: Value, layout: Layout) -> Result<Value, Diagnostic> {
        let node = self.graph.node(value);
        let site = node.args[0];
        let origin = self.graph.origin(value).clone();
        let name = self.names.get(&value).cloned().unwrap_or_else(|| "linear".into());
        let site_name = format!("{}.in", site_of(&name));
        let constant = |i: usize| {
            let found = self.graph.constant(node.args[i]).and_then(|weight| weight.tensor.as_f32());
            found.ok_or_else(|| Diagnostic::new(&origin, "a projection's weight and bias must be constants"))
        };
        let (w, bias) = (constant(1)?, constant(2)?);
        if let Some(fit) = self.fit(site)?.filter(|fit| fit.by_token || !fit.outliers.is_empty()).cloned() {
            return self.grouped_linear(value, layout, &name, &fit);
        }
        if let Some(fit) = self.fit(site)?.filter(|fit| fit.residual.is_some()).cloned() {
            return self.residual_linear(value, layout, [&name, &site_name], fit);
        }
        let Some(fit) = self.fit(site)?.filter(|_| !self.quant_plan.exact_weights).cloned() else {
            return self.dense_linear(value, layout, &site_name);
        };
        let inputs = fit.scale.len();
        let feedback = self.feedback((site, 0), &fit, &(0..inputs).collect::<Vec<usize>>())?;
        let folded = fold_scale(w, bias, layout, &fit, self.rounding(feedback.as_deref()));
        let most = fit.levels.most();
        let levels = self.levels(site, &site_name)?;
        let sums = self.products(levels, &name, folded.weight, most, &origin)?;
        let scale = self.constant(format!("{name}.scale"), folded.scale);
        let bias = self.constant(format!("{name}.bias"), folded.bias);
        self.sum_of(&sums, &name, scale, bias, &origin)
    }

    fn rounding<'f>(&self, feedback: Option<&'f Feedback>) -> WeightRounding<'f> {
        WeightRounding { feedback, group: self.quant_plan.weight_group }
    }

    /// What errors of weights come to at later inputs, for some channels of a site. `None` where no moments were measured.
    fn feedback(
        &mut self,
        of: (Value, usize),
        fit: &QuantParams,
        channels: &[usize],
    ) -> Result<Option<Arc<Feedback>>, Diagnostic> {
        if let Some((found, feedback)) = &self.feedback
            && *found == of
        {
            return Ok(feedback.clone());
        }
        let is_head = self.sites.get(&of.0).is_some_and(|site| site.role == Role::Head);
        let asked = self.moments.filter(|_| !(is_head && self.rounds_head_alone));
        let Some(moments) = asked.map_or(Ok(None), |source| source.moments(of.0))? else { return Ok(None) };
        let scale = group_scale(fit, of.1, channels);
        let centre: Vec<f32> = channels.iter().map(|&c| fit.zero_point[c]).collect();
        let feedback = Feedback::new(&moments, channels, &scale, &centre, self.side_by_side.clone()).map(Arc::new);
        self.feedback = Some((of, feedback.clone()));
        Ok(feedback)
    }

    /// The integer product; where its sums might leave 32 bits several, each with the weights of some inputs.
    fn products(
        &mut self,
        levels: Value,
        name: &str,
        weight: Tensor,
        most: i32,
        origin: &NodeOrigin,
    ) -> Result<Vec<Value>, Diagnostic> {
        let known = self.rounded_weights.get(&format!("{name}.weight")).filter(|known| known.sizes() == weight.sizes());
        let known = known.filter(|known| known.elem() == weight.elem()).and_then(|known| match known.as_groups() {
            Some(_) => Some(known.as_ref().clone()),
            None => known.to_rows().map(|rows| Tensor::i8(weight.sizes(), rows)),
        });
        let weight = known.unwrap_or(weight);
        let parts = if largest_sum(&weight, most as u64) <= SUM_MAX { vec![weight] } else { shares(&weight, most) };
        let product = |part: Tensor| {
            let w = self.builder.weight(&format!("{name}.weight"), Arc::new(part));
            self.builder.add(Op::Level(LevelOp::MatMulInt), &[levels, w], origin)
        };
        parts.into_iter().map(product).collect()
    }

    /// Products of one projection as reals, together.
    fn sum_of(
        &mut self,
        products: &[Value],
        name: &str,
        scale: Value,
        bias: Value,
        origin: &NodeOrigin,
    ) -> Result<Value, Diagnostic> {
        let mut sum = self.builder.add(Op::Level(LevelOp::ScaleShift), &[products[0], scale, bias], origin)?;
        for product in &products[1..] {
            let zeros = vec![0.0; self.builder.ty(*product).shape().width().unwrap_or(0)];
            let zeros = self.constant(format!("{name}.none"), zeros);
            let part = self.builder.add(Op::Level(LevelOp::ScaleShift), &[*product, scale, zeros], origin)?;
            sum = self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, part], origin)?;
        }
        Ok(sum)
    }

    /// A projection whose largest outputs read finer levels of the same site, with weights in twice eight bits: the integers
    /// of what the first eight lack are a second weight. They are added to the others, which lack them.
    fn residual_linear(
        &mut self,
        value: Value,
        layout: Layout,
        [name, site_name]: [&str; 2],
        mut fit: QuantParams,
    ) -> Result<Value, Diagnostic> {
        let Some(residual) = fit.residual.take() else { unreachable!("asked of sites that have finer levels") };
        let node = self.graph.node(value);
        let (site, origin) = (node.args[0], self.graph.origin(value).clone());
        let weights = [1, 2].map(|i| self.graph.constant(node.args[i]).and_then(|weight| weight.tensor.as_f32()));
        let [Some(w), Some(bias)] = weights else {
            return Err(Diagnostic::new(&origin, "a projection's weight and bias must be constants"));
        };
        let [common, few] = split_outputs(w, layout, fit.scale.len(), bias.len(), &residual.outputs);
        let levels = self.levels(site, site_name)?;
        let feedback = self.feedback((site, 0), &fit, &(0..fit.scale.len()).collect::<Vec<usize>>())?;
        let common = self.integer_linear([levels], name, [&common, bias], &fit, feedback.as_deref(), &origin)?;
        let name = format!("{name}.residual");
        let fit = QuantParams {
            levels: residual.levels,
            scale: fit.scale.iter().map(|s| s * residual.share).collect(),
            bias_correction: vec![0.0; fit.bias_correction.len()],
            ..fit
        };
        let levels = self.neurons(site, &format!("{site_name}.residual"), fit.clone(), ChannelGroup::Residual)?;
        let zeros = vec![0.0; residual.outputs.len() + 1];
        let origin = self.in_group(value, ChannelGroup::Residual);
        let few = self.integer_linear([levels; 2], &name, [&few, &zeros], &fit, None, &origin)?;
        // Whoever is none of them takes the last, which is 0.
        let place = |o: usize| residual.outputs.binary_search(&o).unwrap_or(residual.outputs.len()) as i32;
        let places = Tensor::i32(&[bias.len()], (0..bias.len()).map(place).collect());
        let places = self.builder.weight(&format!("{name}.places"), Arc::new(places));
        let few = self.builder.add(Op::Level(LevelOp::GatherChannels), &[few, places], &origin)?;
        self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[common, few], self.graph.origin(value))
    }

    /// `W x + b` by products with the levels of `x`, as many times eight bits of the input-major `w` as there are levels. With
    /// exact weights, by multiplications with what they stand for.
    fn integer_linear<const N: usize>(
        &mut self,
        levels: [Value; N],
        name: &str,
        [w, bias]: [&[f32]; 2],
        fit: &QuantParams,
        feedback: Option<&Feedback>,
        origin: &NodeOrigin,
    ) -> Result<Value, Diagnostic> {
        let sizes = [fit.scale.len(), bias.len()];
        let zero_point: Vec<f32> =
            fit.zero_point.iter().zip(&fit.bias_correction).map(|(m, bias_correction)| m + bias_correction).collect();
        if self.quant_plan.exact_weights {
            let unit = self.constant(format!("{name}.unit"), fit.scale.clone());
            let zero_point = self.constant(format!("{name}.zero_point"), zero_point);
            let x = self.builder.add(Op::Level(LevelOp::ScaleShift), &[levels[0], unit, zero_point], origin)?;
            let w = self.builder.weight(&format!("{name}.weight"), Arc::new(Tensor::f32(&sizes, w.to_vec())));
            let bias = self.constant(format!("{name}.bias"), bias.to_vec());
            return self.builder.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[x, w, bias], origin);
        }
        let (mut w, mut bias, mut scale, mut zero_point) = (w.to_vec(), bias.to_vec(), fit.scale.clone(), zero_point);
        let mut sum: Option<Value> = None;
        for levels in levels {
            let folded = fold_input_major(&w, &bias, &scale, &zero_point, self.rounding(feedback));
            w = lacking(&w, &scale, &folded);
            let products = self.products(levels, name, folded.weight, fit.levels.most(), origin)?;
            let unit = self.constant(format!("{name}.scale"), folded.scale);
            let shift = self.constant(format!("{name}.bias"), folded.bias);
            let part = self.sum_of(&products, name, unit, shift, origin)?;
            sum = Some(match sum {
                Some(sum) => self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, part], origin)?,
                None => part,
            });
            // What is left has the scales in it, and centre and bias are there already.
            bias.fill(0.0);
            scale.fill(1.0);
            zero_point.fill(0.0);
        }
        sum.ok_or_else(|| Diagnostic::new(origin, "a projection of no levels"))
    }

    /// A projection of channels in groups, whose parts are added: outliers have weights of their own, so that they take no
    /// levels of the others'; and what a token's levels stand for counts in its threshold, which multiplies the sums.
    fn grouped_linear(
        &mut self,
        value: Value,
        layout: Layout,
        name: &str,
        fit: &QuantParams,
    ) -> Result<Value, Diagnostic> {
        let node = self.graph.node(value);
        let site = node.args[0];
        let origin = self.graph.origin(value).clone();
        let constant = |i: usize| {
            let found = self.graph.constant(node.args[i]).and_then(|weight| weight.tensor.as_f32());
            found.ok_or_else(|| Diagnostic::new(&origin, "a projection's weight and bias must be constants"))
        };
        let (w, bias) = (constant(1)?, constant(2)?);
        let m = bias.len();
        let zeros = vec![0.0; m];
        let zero_point: Vec<f32> =
            fit.zero_point.iter().zip(&fit.bias_correction).map(|(m, bias_correction)| m + bias_correction).collect();
        let ones = Units { unit: vec![1.0; fit.scale.len()], shift: zero_point };
        let shifted = shifted(w, bias, layout, &ones);
        let mut sum: Option<Value> = None;
        for (group, channels) in groups(fit).into_iter().enumerate() {
            let name = format!("{name}{}", GROUPS[group]);
            let origin = self.in_group(value, CHANNEL_GROUPS[group]);
            let (levels, threshold) = self.group_levels(site, fit, group, &channels)?;
            let w = rows_of(w, fit.scale.len(), layout, &channels);
            let own = group_levels(fit, group);
            let share = fit.levels.most() as f32 / own.most() as f32;
            let unit = if threshold.is_some() { 1.0 / own.most() as f32 } else { share };
            let scale = group_scale(fit, group, &channels);
            let zero = self.constant(format!("{name}.none"), zeros.clone());
            let part = if own != fit.levels {
                let none = vec![0.0; channels.len()];
                let scale = scale.iter().map(|s| s * unit).collect();
                let few =
                    QuantParams { levels: own, scale, zero_point: none.clone(), bias_correction: none, ..fit.clone() };
                self.integer_linear([levels; 2], &name, [&w, &zeros], &few, None, &origin)?
            } else if self.quant_plan.exact_weights {
                let width = channels.len();
                let scale = scale.iter().map(|s| s * unit).collect();
                let scale = self.constant(format!("{name}.unit"), scale);
                let none = self.constant(format!("{name}.in.none"), vec![0.0; width]);
                let x = self.builder.add(Op::Level(LevelOp::ScaleShift), &[levels, scale, none], &origin)?;
                let sizes = [width, m];
                let w = self.builder.weight(&format!("{name}.weight"), Arc::new(Tensor::f32(&sizes, w)));
                self.builder.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[x, w, zero], &origin)?
            } else {
                let none = vec![0.0; channels.len()];
                let feedback = self.feedback((site, group), fit, &channels)?;
                let folded = fold_input_major(&w, &zeros, &scale, &none, self.rounding(feedback.as_deref()));
                let sums = self.products(levels, &name, folded.weight, fit.levels.most(), &origin)?;
                let scale = folded.scale.iter().map(|s| s * unit).collect();
                let scale = self.constant(format!("{name}.scale"), scale);
                self.sum_of(&sums, &name, scale, zero, &origin)?
            };
            let part = match threshold {
                Some(threshold) => {
                    self.builder.add(Op::Array(ArrayOp::Binary(Binary::Mul)), &[part, threshold], &origin)?
                }
                None => part,
            };
            sum = Some(match sum {
                Some(sum) => self.builder.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[sum, part], &origin)?,
                None => part,
            });
        }
        let Some(sum) = sum else { return Err(Diagnostic::new(&origin, "a projection of no channels")) };
        let one = self.constant(format!("{name}.one"), vec![1.0; m]);
        let bias = self.constant(format!("{name}.bias"), shifted.as_f32().unwrap_or(&[]).to_vec());
        self.builder.add(Op::Level(LevelOp::ScaleShift), &[sum, one, bias], &origin)
    }

    /// The neurons of a group of channels, and where tokens have thresholds of their own those: the levels are of the
    /// potential's share of the token's peak.
    fn group_levels(
        &mut self,
        site: Value,
        fit: &QuantParams,
        group: usize,
        channels: &[usize],
    ) -> Result<(Value, Option<Value>), Diagnostic> {
        if let Some(found) = self.groups.get(&(site, group)) {
            return Ok(*found);
        }
        let origin = self.coded(site, CHANNEL_GROUPS[group]);
        let name = format!("{}{}", self.site_name(site), GROUPS[group]);
        let Units { unit, shift } = self.units_of(site, fit.scale.len());
        let mut x = match self.map[site.index()] {
            Some(x) => x,
            None => self.tensor(site)?,
        };
        if group > 0 {
            let list = channels.iter().map(|&c| c as i32).collect();
            let list = self.builder.weight(&format!("{name}.channels"), Arc::new(Tensor::i32(&[channels.len()], list)));
            x = self.builder.add(Op::Level(LevelOp::GatherChannels), &[x, list], &origin)?;
        }
        let own = group_levels(fit, group);
        // Thresholds for every token are in fixed levels of the site.
        let share = if fit.by_token { 1.0 } else { fit.levels.most() as f32 / own.most() as f32 };
        let inverse = |&s: &f32| if s > 0.0 { 1.0 / (s * share) } else { 0.0 };
        let inverse: Vec<f32> = group_scale(fit, group, channels).iter().map(inverse).collect();
        let each = || channels.iter().zip(&inverse);
        let offset = each().map(|(&c, inverse)| (shift[c] - fit.zero_point[c]) * inverse).collect();
        let gain = each().map(|(&c, inverse)| unit[c] * inverse).collect();
        let found = if fit.by_token {
            let (levels, peak) = self.shares(x, [gain, offset], 1, own, &name, &origin)?;
            (levels, Some(peak))
        } else {
            let gain = self.constant(format!("{name}.gain"), gain);
            let offset = self.constant(format!("{name}.offset"), offset);
            let Levels { code, steps } = own;
            let op = Op::Level(LevelOp::Quant { code, steps, curve: Curve::Identity });
            (self.builder.add(op, &[x, gain, offset], &origin)?, None)
        };
        self.groups.insert((site, group), found);
        Ok(found)
    }

    /// Neurons of a site whose tokens have a threshold per head: the largest magnitude of a head is the largest level. And these
    /// thresholds, in those of the site.
    fn head_levels(&mut self, site: Value, name: &str) -> Result<(Value, Value), Diagnostic> {
        if let Some(&(levels, Some(thresholds))) = self.groups.get(&(site, 0)) {
            return Ok((levels, thresholds));
        }
        let Some(fit) = self.fit(site)?.cloned() else { unreachable!("asked of sites that have levels") };
        let (origin, most, width) = (self.coded(site, ChannelGroup::Whole), fit.levels.most() as f32, fit.scale.len());
        let Units { unit, shift } = self.units_of(site, width);
        let x = self.map[site.index()].map_or_else(|| self.tensor(site), Ok)?;
        let inverse: Vec<f32> = fit.scale.iter().map(|&s| if s > 0.0 { 1.0 / (s * most) } else { 0.0 }).collect();
        let gain = unit.iter().zip(&inverse).map(|(unit, inverse)| unit * inverse).collect();
        let centred = shift.iter().zip(&fit.zero_point).map(|(shift, m)| shift - m);
        let offset = centred.zip(&inverse).map(|(x, inverse)| x * inverse).collect();
        let (levels, peaks) = self.shares(x, [gain, offset], fit.heads, fit.levels, name, &origin)?;
        self.groups.insert((site, 0), (levels, Some(peaks)));
        Ok((levels, peaks))
    }

    /// Levels of a potential's shares of its row's largest magnitude, or of that of each head, and these magnitudes.
    fn shares(
        &mut self,
        x: Value,
        [gain, offset]: [Vec<f32>; 2],
        heads: u32,
        levels: Levels,
        name: &str,
        origin: &NodeOrigin,
    ) -> Result<(Value, Value), Diagnostic> {
        let width = gain.len();
        let gain = self.constant(format!("{name}.gain"), gain);
        let offset = self.constant(format!("{name}.offset"), offset);
        let x = self.builder.add(Op::Level(LevelOp::ScaleShift), &[x, gain, offset], origin)?;
        let peaks = self.builder.add(Op::Level(LevelOp::RowMaxAbs { heads }), &[x], origin)?;
        let mut each = peaks;
        if heads > 1 {
            let list = (0..width).map(|c| (c * heads as usize / width) as i32).collect();
            let list = self.builder.weight(&format!("{name}.heads"), Arc::new(Tensor::i32(&[width], list)));
            each = self.builder.add(Op::Level(LevelOp::GatherChannels), &[peaks, list], origin)?;
        }
        let share = self.builder.add(Op::Array(ArrayOp::Binary(Binary::Div)), &[x, each], origin)?;
        let gain = self.constant(format!("{name}.share.gain"), vec![levels.most() as f32; width]);
        let offset = self.constant(format!("{name}.share.offset"), vec![0.0; width]);
        let Levels { code, steps } = levels;
        let op = Op::Level(LevelOp::Quant { code, steps, curve: Curve::Identity });
        Ok((self.builder.add(op, &[share, gain, offset], origin)?, peaks))
    }

    /// By which the constants of a site's neurons are called: the first projection that reads it gives its name.
    fn site_name(&self, site: Value) -> String {
        let reads = |value: &&Value| self.graph.node(**value).args.first() == Some(&site);
        let name = self.names.keys().find(reads).map_or("linear", |value| &self.names[value]);
        format!("{}.in", site_of(name))
    }

    /// A projection that multiplies. Units of what it reads go into its weight and bias.
    fn dense_linear(&mut self, value: Value, layout: Layout, site_name: &str) -> Result<Value, Diagnostic> {
        let node = self.graph.node(value);
        let (site, origin) = (node.args[0], self.graph.origin(value).clone());
        let x = self.real(site, site_name)?;
        let has_levels = self.fit(site)?.is_some();
        let [w, bias] = [1, 2].map(|i| self.graph.constant(node.args[i]));
        let (Some(w), Some(bias)) = (w, bias) else {
            return Err(Diagnostic::new(origin, "a projection's weight and bias must be constants"));
        };
        let (w, bias) = match self.units.get(&site).filter(|_| !has_levels) {
            Some(units) => (
                (
                    format!("{}.units", w.name),
                    scaled(w.tensor.as_f32().unwrap_or(&[]), w.tensor.sizes(), layout, units),
                ),
                (
                    format!("{}.units", bias.name),
                    shifted(w.tensor.as_f32().unwrap_or(&[]), bias.tensor.as_f32().unwrap_or(&[]), layout, units),
                ),
            ),
            None => ((w.name.clone(), w.tensor.clone()), (bias.name.clone(), bias.tensor.clone())),
        };
        let w = self.builder.weight(&w.0, w.1);
        let bias = self.builder.weight(&bias.0, bias.1);
        self.builder.add(Op::Dense(DenseOp::Linear(layout)), &[x, w, bias], &origin)
    }

    /// Scores `q . k` of balanced levels are integers with one scale a head. A key's centre adds the same to all scores of
    /// a query, which softmax does not notice; a value's centre passes through.
    fn attention(&mut self, value: Value, heads: Heads, scale: f32) -> Result<Value, Diagnostic> {
        let &[q, k, v, ref alibi @ ..] = self.graph.node(value).args.as_slice() else {
            unreachable!("checked by infer")
        };
        let name = self.names.get(&value).cloned().unwrap_or_else(|| "attention".into());
        let origin = self.graph.origin(value).clone();
        if let (Some(features), Some(&variant)) =
            (self.quant_plan.features.get(&value), self.quant_plan.variants.get(&value))
        {
            return self.without_softmax(value, heads, variant, features.clone());
        }
        let parts = [(q, "q"), (k, "k"), (v, "v")];
        let values = match [q, k, v].map(|site| self.fit(site)) {
            [Ok(Some(_)), Ok(Some(_)), Ok(Some(v))] => v.clone(),
            [q, k, v] => {
                q.and(k).and(v)?;
                let mut args = Vec::new();
                for (site, part) in parts {
                    args.push(self.real(site, &format!("{name}.{part}"))?);
                }
                for &alibi in alibi {
                    args.push(self.tensor(alibi)?);
                }
                return self.builder.add(self.graph.node(value).op, &args, &origin);
            }
        };
        let (mut args, mut thresholds) = (Vec::new(), Vec::new());
        for (site, part) in parts {
            let name = format!("{name}.{part}");
            if values.by_token {
                let (levels, own) = self.head_levels(site, &name)?;
                args.push(levels);
                thresholds.push(own);
            } else {
                args.push(self.levels(site, &name)?);
            }
        }
        args.extend(thresholds);
        let heads = Heads { thresholds: values.by_token, ..heads };
        let units = self.quant_plan.heads.get(&value);
        let [unit_q, unit_k] = units.ok_or_else(|| Diagnostic::new(&origin, "no scales of scores were chosen here"))?;
        let variant = self.quant_plan.variants.get(&value).copied();
        let variant = variant.unwrap_or(Ssa::Ttfs { phases: self.quant_plan.phases });
        let phases = variant.phases().unwrap_or(self.quant_plan.phases);
        let unit = |(q, k): (&f32, &f32)| q * k * scale;
        let mut units: Vec<f32> = unit_q.iter().zip(unit_k).map(unit).collect();
        let alibi = alibi.first().and_then(|&alibi| self.graph.constant(alibi)).and_then(|w| w.tensor.as_f32());
        if alibi.is_some() {
            // Where all products are 0, any unit will do for what the distance takes from them.
            units.iter_mut().filter(|unit| **unit == 0.0).for_each(|unit| *unit = 1.0 / 1024.0);
        }
        let slope = units.iter().map(|unit| unit * std::f32::consts::LOG2_E * phases as f32).collect();
        args.push(self.constant(format!("{name}.slope"), slope));
        if let Some(alibi) = alibi {
            let in_units = alibi.iter().zip(&units).map(|(alibi, unit)| alibi / unit).collect();
            args.push(self.constant(format!("{name}.alibi"), in_units));
        }
        let shift = values
            .zero_point
            .iter()
            .zip(&values.bias_correction)
            .map(|(m, bias_correction)| m + bias_correction)
            .collect();
        let units = Units { unit: values.scale, shift }.for_queries(heads);
        self.units.insert(value, units);
        self.builder.add(Op::Level(LevelOp::Ssa { heads, variant }), &args, &origin)
    }

    /// Attention on features of q and k. Weights need not add up to 1, so v's levels lie around 0.
    fn without_softmax(
        &mut self,
        value: Value,
        heads: Heads,
        variant: Ssa,
        features: Features,
    ) -> Result<Value, Diagnostic> {
        let &[q, k, v, ref alibi @ ..] = self.graph.node(value).args.as_slice() else {
            unreachable!("checked by infer")
        };
        let alibi = alibi.first().and_then(|&alibi| self.graph.constant(alibi)).and_then(|w| w.tensor.as_f32());
        let heads = Heads { alibi: false, ..heads };
        let name = self.names.get(&value).cloned().unwrap_or_else(|| "attention".into());
        let origin = self.graph.origin(value).clone();
        let Some(values) = self.fit(v)?.cloned() else {
            return Err(Diagnostic::new(origin, "attention on features takes values with levels"));
        };
        let mut args = Vec::new();
        for (part, (site, letter)) in [(q, "q"), (k, "k")].into_iter().enumerate() {
            let x = self.real(site, &format!("{name}.{letter}"))?;
            let origin = self.feature_origin(site, variant);
            args.push(self.features(x, &format!("{name}.{letter}"), part, heads, variant, &features, &origin)?);
        }
        args.push(self.levels(v, &format!("{name}.v"))?);
        args.push(self.constant(format!("{name}.sink"), features::sinks(variant, heads.query as usize)));
        let half_life = match alibi {
            Some(alibi) => features::half_lives(alibi, heads, self.graph.context),
            None => features::halvings(heads.kv as usize, self.graph.context),
        };
        let half_life = Arc::new(Tensor::i32(&[half_life.len()], half_life));
        args.push(self.builder.weight(&format!("{name}.half_life"), half_life));
        let spikes = variant == Ssa::Lif { output: Output::Spikes };
        if spikes {
            args.push(self.constant(format!("{name}.emit.gain"), vec![1.0; values.scale.len() * heads.group()]));
        }
        let new = self.builder.add(Op::Level(LevelOp::Ssa { heads, variant }), &args, &origin)?;
        if spikes {
            // What reads it reads these spikes.
            self.levels.insert(value, new);
        }
        let units = Units { unit: values.scale, shift: values.zero_point }.for_queries(heads);
        self.units.insert(value, units);
        Ok(new)
    }

    /// Where features of q or k come from and stand; those of LIF attention are the channels themselves.
    fn feature_origin(&self, site: Value, variant: Ssa) -> NodeOrigin {
        let group = if let Ssa::Lif { .. } = variant { ChannelGroup::Whole } else { ChannelGroup::Features };
        self.coded(site, group)
    }

    /// Rectified neurons of a head's map of q or k; LIF neurons take the channels themselves.
    fn features(
        &mut self,
        x: Value,
        name: &str,
        part: usize,
        heads: Heads,
        variant: Ssa,
        features: &Features,
        origin: &NodeOrigin,
    ) -> Result<Value, Diagnostic> {
        let gain = features.gain();
        let (potential, gain) = if let Ssa::Lif { .. } = variant {
            (x, features.units[part].iter().map(|unit| gain / unit).collect())
        } else {
            let map = self.builder.weight(&format!("{name}.map"), Arc::new(features.map(part, heads)));
            let y = self.builder.add(Op::Level(LevelOp::HeadLinear), &[x, map], origin)?;
            (y, vec![gain; features::SIDES * features.units[part].len()])
        };
        let width = gain.len();
        let constants = [
            ("pre_gain", gain),
            ("pre_offset", vec![0.0; width]),
            ("gain", vec![1.0; width]),
            ("offset", vec![0.0; width]),
        ];
        let Levels { code, steps } = features.levels;
        let constants = constants.map(|(what, data)| self.constant(format!("{name}.{what}"), data));
        let args: Vec<Value> = std::iter::once(potential).chain(constants).collect();
        self.builder.add(Op::Level(LevelOp::Quant { code, steps, curve: Curve::Relu }), &args, origin)
    }
}

/// The rounded weights of a program that one product reads whole, by name.
pub fn rounded_weights(program: &Graph) -> IndexMap<String, Arc<Tensor>> {
    let all: IndexMap<&str, &Arc<Tensor>> = program.weights.iter().map(|w| (w.name.as_str(), &w.tensor)).collect();
    // A second of the same name has the rest of the inputs, or of the eight bits.
    let whole = |name: &str| !all.contains_key(format!("{name}.2").as_str());
    let bytes = all.iter().filter(|(name, tensor)| matches!(tensor.elem(), Elem::I8 | Elem::I4(_)) && whole(name));
    bytes.map(|(name, tensor)| (name.to_string(), Arc::clone(tensor))).collect()
}

/// What the names of a group's constants end in.
const GROUPS: [&str; 2] = ["", ".outliers"];

const CHANNEL_GROUPS: [ChannelGroup; 2] = [ChannelGroup::Whole, ChannelGroup::Outliers];

/// Channels by group: all of them, of which outliers are silent; and the outliers.
fn groups(fit: &QuantParams) -> Vec<Vec<usize>> {
    let mut groups = vec![(0..fit.scale.len()).collect()];
    if !fit.outliers.is_empty() {
        groups.push(fit.outliers.clone());
    }
    groups
}

/// Levels of a group: outliers are few, so that finer ones cost next to nothing.
fn group_levels(fit: &QuantParams, group: usize) -> Levels {
    if group == 0 { fit.levels } else { fit.levels.finer() }
}

/// Scales of a group's channels, 0 for those that are silent in it.
fn group_scale(fit: &QuantParams, group: usize, channels: &[usize]) -> Vec<f32> {
    let silent = |c: &usize| group == 0 && fit.outliers.binary_search(c).is_ok();
    channels.iter().map(|c| if silent(c) { 0.0 } else { fit.scale[*c] }).collect()
}

/// The site that a projection of this name reads: q, k and v share theirs.
fn site_of(name: &str) -> &str {
    ["q", "k", "v"].iter().find_map(|part| name.strip_suffix(&format!(".{part}"))).unwrap_or(name)
}
