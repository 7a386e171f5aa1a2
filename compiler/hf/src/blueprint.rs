//! A description with the numbers of a configuration: which weights a network has, how large they are, and how they are put
//! together. It is all that `build` needs beside the weights.

use crate::architecture::{
    Architecture, ArchitectureSetting, AttentionPart, NormKind, PackedOrder, PairOrder, PositionPart, ProjectionNames,
    WeightLayout, WindowKeys,
};
use crate::checkpoint::{FolderTensors, TensorPart, WantedTensor};
use crate::config::{Config, shortened};
use crate::rotary::{Rotary, rotary};
use serde_json::Value as Json;
use snnc_ir::Curve;
use snnc_ir::op::{Heads, Layout, Pairs};
use std::ops::Range;

/// Longest context of a network whose positions have no end, where nobody asks for another: its table of turns, keys and
/// values take memory.
pub const CONTEXT_USUAL: usize = 4096;

/// Most layers: a program has at most 2^17 nodes.
const LAYERS_MAX: usize = 4096;

/// Most heads, and most channels of one: a hundred times as many as any network has.
const HEADS_MAX: usize = 1 << 14;

/// A network without its weights' numbers.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The most tokens of a sequence.
    pub context: usize,
    /// The table of tokens.
    pub tokens: TensorPart,
    /// The table of positions, where they are learned.
    pub positions: Option<TensorPart>,
    /// Turns of queries and keys, where there are some.
    pub turns: Option<(Rotary, Pairs)>,
    /// Blocks, the first one first.
    pub blocks: Vec<BlockPlan>,
    /// The norm before the head.
    pub norm: NormPlan,
    /// The head's weight; the table of tokens without one.
    pub head: Option<ProjectionPlan>,
    /// All tensors, in the order in which they are used.
    pub wanted: Vec<WantedTensor>,
}

/// A block.
#[derive(Clone, Debug)]
pub struct BlockPlan {
    /// Before attention.
    pub attention_norm: NormPlan,
    /// Queries, keys, values.
    pub projections: [ProjectionPlan; 3],
    /// Norms of queries and of keys, head by head.
    pub head_norms: [Option<NormPlan>; 2],
    /// How attention is divided.
    pub heads: Heads,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Behind attention.
    pub out: ProjectionPlan,
    /// Before the MLP.
    pub mlp_norm: NormPlan,
    /// What is multiplied with `up`, if the MLP is gated.
    pub gate: Option<ProjectionPlan>,
    /// The MLP's first projection.
    pub up: ProjectionPlan,
    /// The activation function.
    pub curve: Curve,
    /// The MLP's last projection.
    pub down: ProjectionPlan,
}

/// A norm.
#[derive(Clone, Debug)]
pub struct NormPlan {
    /// What it is called.
    pub name: String,
    /// What it does.
    pub kind: NormKind,
    /// What is added to the variance or the mean square.
    pub eps: f32,
    /// Its gain.
    pub gain: TensorPart,
    /// Its bias.
    pub bias: Option<TensorPart>,
    /// Groups of channels that are normalised on their own, each by the same gain.
    pub heads: usize,
}

/// A projection.
#[derive(Clone, Debug)]
pub struct ProjectionPlan {
    /// What it is called.
    pub name: String,
    /// Its weight.
    pub weight: TensorPart,
    /// Its bias.
    pub bias: Option<TensorPart>,
    /// How the weight lies.
    pub layout: Layout,
}

/// What a user says of a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// The most tokens of a sequence; what the configuration says without it, and at most 4096 where positions are turned.
    pub context: Option<u32>,
}

/// Sizes of a network.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_width: usize,
    inner: usize,
    vocabulary: usize,
    context: usize,
}

/// Reads a configuration by a description. What is wrong is told to `config`; `None` where nothing more can be said.
pub fn plan(
    architecture: &Architecture,
    config: &mut Config,
    asked: Asked,
    checkpoint: &FolderTensors,
) -> Option<Blueprint> {
    let sizes = sizes(architecture, config)?;
    let based = |name: &str| checkpoint.has(&format!("{}{name}", architecture.prefix));
    // Base models are stored without the prefix of the network that has a head.
    let prefix =
        if based(&format!("{}.weight", architecture.tokens.table)) { architecture.prefix.as_str() } else { "" };
    let mut planner = BlueprintMaker { architecture, config, sizes, prefix, wanted: Vec::new() };
    let tokens = planner.table(&architecture.tokens.table, sizes.vocabulary);
    let (positions, turns) = planner.positions();
    let context = planner.context(asked, turns.as_ref().map(|(rotary, _)| rotary));
    let windows = planner.windows();
    let blocks: Option<Vec<BlockPlan>> =
        (0..sizes.layers).map(|layer| planner.block(layer, windows[layer], context)).collect();
    let norm = planner.norm(&architecture.output.norm, architecture.norm.kind, sizes.width, 1);
    let tied = planner.config.flag_of(&architecture.output.tied);
    let name = &architecture.output.head;
    let head = (!tied).then(|| planner.head(name));
    if tied {
        planner.tied_head(&format!("{name}.weight"), &tokens.of, checkpoint);
    }
    let wanted = planner.wanted;
    Some(Blueprint { context, tokens, positions, turns, blocks: blocks?, norm, head, wanted })
}

fn sizes(architecture: &Architecture, config: &mut Config) -> Option<Sizes> {
    let keys = &architecture.sizes;
    let width = config.needed_size(&keys.width);
    let layers = config.needed_size(&keys.layers);
    let heads = config.needed_size(&keys.heads);
    let stated_heads = keys.kv_heads.as_deref().and_then(|key| config.size(key));
    let multi_query = config.flag_of(&architecture.attention.multi_query);
    let kv_heads = if multi_query { 1 } else { stated_heads.unwrap_or(heads) };
    let head_width = keys.head_width.as_deref().and_then(|key| config.size(key));
    let inner = config.size(&keys.inner).unwrap_or(4 * width);
    let vocabulary = config.needed_size(&keys.vocabulary);
    let context = config.needed_size(&keys.context);
    let mut sound = true;
    let mut refuse = |config: &mut Config, key: &str, message: String| {
        config.refuse(key, message);
        sound = false;
    };
    if head_width.is_none() && !width.is_multiple_of(heads) {
        refuse(config, &keys.heads, format!("is {heads}, which does not divide the width {width}"));
    }
    if !heads.is_multiple_of(kv_heads) {
        let key = keys.kv_heads.as_deref().unwrap_or(&keys.heads);
        refuse(config, key, format!("is {kv_heads}, which does not divide the {heads} heads"));
    }
    let head_width = head_width.unwrap_or(width / heads);
    let of_heads = keys.head_width.as_deref().unwrap_or(&keys.heads);
    for (key, number, most) in
        [(&*keys.layers, layers, LAYERS_MAX), (&*keys.heads, heads, HEADS_MAX), (of_heads, head_width, HEADS_MAX)]
    {
        if number > most {
            refuse(config, key, format!("gives {number}; at most {most} are possible"));
        }
    }
    sound.then_some(Sizes { width, layers, heads, kv_heads, head_width, inner, vocabulary, context })
}

/// What tensors a description wants of a configuration, one after the other.
struct BlueprintMaker<'a> {
    architecture: &'a Architecture,
    config: &'a mut Config,
    sizes: Sizes,
    prefix: &'a str,
    wanted: Vec<WantedTensor>,
}

impl BlueprintMaker<'_> {
    /// All of a tensor.
    fn whole(&mut self, name: String, sizes: &[usize]) -> TensorPart {
        let part = TensorPart::whole(name, sizes);
        self.wanted.push(part.of.clone());
        part
    }

    fn table(&mut self, name: &str, rows: usize) -> TensorPart {
        let width = self.sizes.width;
        self.whole(format!("{}{name}.weight", self.prefix), &[rows, width])
    }

    fn positions(&mut self) -> (Option<TensorPart>, Option<(Rotary, Pairs)>) {
        match &self.architecture.positions {
            PositionPart::Learned { table } => (Some(self.table(table, self.sizes.context)), None),
            PositionPart::Rotary { pairs, theta, share } => {
                let pairs = match pairs {
                    PairOrder::Half => Pairs::Half,
                    PairOrder::Interleaved => Pairs::Interleaved,
                };
                let rotary = rotary(self.config, theta, share, self.sizes.head_width, self.sizes.context);
                (None, rotary.map(|rotary| (rotary, pairs)))
            }
        }
    }

    /// The most tokens of a sequence.
    fn context(&mut self, asked: Asked, turns: Option<&Rotary>) -> usize {
        let (trained, key) = (self.sizes.context, self.architecture.sizes.context.as_str());
        let learned = matches!(self.architecture.positions, PositionPart::Learned { .. });
        let limit = if learned { Some(trained) } else { turns.and_then(|turns| turns.limit) };
        let usual = if learned { trained } else { trained.min(CONTEXT_USUAL) };
        let context = asked.context.map_or(usual, |context| context as usize);
        match limit {
            Some(limit) if context > limit && asked.context.is_some() => {
                let message = format!("is {trained}: positions beyond {limit} tokens cannot be told apart as it says");
                self.config.refuse(key, format!("{message}, so a context of {context} is not possible"));
            }
            Some(limit) => return context.min(limit),
            None if context > trained => {
                let message = format!("the network was trained on {trained} tokens; beyond them it may predict badly");
                self.config.warn(message);
            }
            None => {}
        }
        context
    }

    /// How far the tokens of each layer see.
    fn windows(&mut self) -> Vec<Option<usize>> {
        let layers = self.sizes.layers;
        let kinds = self.config.value("layer_types");
        let Some(keys) = &self.architecture.attention.window else {
            return vec![None; layers]
                .into_iter()
                .enumerate()
                .map(|(layer, none)| self.kind(&kinds, layer, none, none))
                .collect();
        };
        let WindowKeys { size, used, from_layer } = keys;
        let used = used.as_deref().is_none_or(|key| self.config.flag(key).unwrap_or(false));
        let size = self.config.size(size).filter(|_| used);
        let first = from_layer.as_deref().and_then(|key| self.config.index(key)).unwrap_or(0);
        (0..layers).map(|layer| self.kind(&kinds, layer, size.filter(|_| layer >= first), size)).collect()
    }

    /// The window of a layer by `layer_types`, where that is there; else `usual`.
    fn kind(&mut self, kinds: &Option<Json>, layer: usize, usual: Option<usize>, size: Option<usize>) -> Option<usize> {
        let Some(kinds) = kinds else { return usual };
        match (kinds.get(layer).and_then(Json::as_str), size) {
            (Some("full_attention"), _) => None,
            (Some("sliding_attention"), Some(size)) => Some(size),
            (Some("sliding_attention"), None) => {
                self.config.refuse(
                    "layer_types",
                    format!("gives layer {layer} a sliding window, but nothing says how long it is"),
                );
                None
            }
            (found, _) => {
                let found = found.map_or_else(|| shortened(kinds.get(layer).unwrap_or(&Json::Null)), str::to_string);
                let message =
                    format!("gives layer {layer} the kind {found}: full_attention and sliding_attention are known");
                self.config.refuse("layer_types", message);
                None
            }
        }
    }

    fn block(&mut self, layer: usize, window: Option<usize>, context: usize) -> Option<BlockPlan> {
        let architecture = self.architecture;
        let AttentionPart { norm, out, out_bias, q_norm, k_norm, .. } = &architecture.attention;
        let Sizes { width, heads, kv_heads, head_width, inner, .. } = self.sizes;
        let at = |name: &str| name.replace("{layer}", &layer.to_string());
        let kind = architecture.norm.kind;
        let attention_norm = self.norm(&at(norm), kind, width, 1);
        let projections = self.attention_projections(layer);
        let mut of_heads = |name: &Option<String>, heads: usize| {
            name.as_deref().map(|name| self.norm(&at(name), NormKind::Rms, head_width, heads))
        };
        let head_norms = [of_heads(q_norm, heads), of_heads(k_norm, kv_heads)];
        let biased = self.config.flag_of(out_bias);
        let out = self.projection(&at(out), heads * head_width, width, biased);
        let mlp = &architecture.mlp;
        let biased = self.config.flag_of(&mlp.bias);
        let mlp_norm = self.norm(&at(&mlp.norm), kind, width, 1);
        let gate = mlp.gate.as_deref().map(|gate| self.projection(&at(gate), width, inner, biased));
        let up = self.projection(&at(&mlp.up), width, inner, biased);
        let down = self.projection(&at(&mlp.down), inner, width, biased);
        let curve = self.curve(&mlp.curve, layer)?;
        let window = window.filter(|&window| window < context).map(|window| window as u32);
        let heads = Heads { query: heads as u32, kv: kv_heads as u32, window, alibi: false };
        let scale = self.scale(layer);
        Some(BlockPlan { attention_norm, projections, head_norms, heads, scale, out, mlp_norm, gate, up, curve, down })
    }

    /// What scores are multiplied by.
    fn scale(&mut self, layer: usize) -> f32 {
        let AttentionPart { scaled, scaled_by_layer, .. } = &self.architecture.attention;
        let by_width = if self.config.flag_of(scaled) { (self.sizes.head_width as f64).sqrt() } else { 1.0 };
        let by_layer = if self.config.flag_of(scaled_by_layer) { (layer + 1) as f64 } else { 1.0 };
        (1.0 / by_width / by_layer) as f32
    }

    fn curve(&mut self, setting: &ArchitectureSetting<String>, layer: usize) -> Option<Curve> {
        let (name, key) = self.config.text_of(setting);
        let curve = match name.as_deref() {
            Some("relu") => Some(Curve::Relu),
            Some("gelu" | "gelu_python") => Some(Curve::GeluErf),
            Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate") => Some(Curve::GeluTanh),
            Some("quick_gelu") => Some(Curve::GeluQuick),
            Some("silu" | "swish") => Some(Curve::Silu),
            Some(_) | None => None,
        };
        if curve.is_none() && layer == 0 {
            let name = name.unwrap_or_else(|| "missing".into());
            let message =
                format!("is {name}: the activation functions relu, gelu, gelu_new, quick_gelu and silu are known");
            self.config.refuse(&key, message);
        }
        curve
    }

    fn norm(&mut self, name: &str, kind: NormKind, width: usize, heads: usize) -> NormPlan {
        let eps = self.config.number_of(&self.architecture.norm.eps, 0.0) as f32;
        let name = format!("{}{name}", self.prefix);
        let gain = self.whole(format!("{name}.weight"), &[width]);
        let bias = (kind == NormKind::Layer).then(|| self.whole(format!("{name}.bias"), &[width]));
        NormPlan { name, kind, eps, gain, bias, heads }
    }

    fn projection(&mut self, name: &str, inputs: usize, outputs: usize, biased: bool) -> ProjectionPlan {
        let name = format!("{}{name}", self.prefix);
        self.part(name, inputs, outputs, biased, alone(0..outputs))
    }

    /// The projection to some of the `outputs` of a tensor.
    fn part(
        &mut self,
        name: String,
        inputs: usize,
        outputs: usize,
        biased: bool,
        of: Vec<Range<usize>>,
    ) -> ProjectionPlan {
        let (layout, sizes, axis) = match self.architecture.layout {
            WeightLayout::OutputMajor => (Layout::OutputMajor, [outputs, inputs], 0),
            WeightLayout::InputMajor => (Layout::InputMajor, [inputs, outputs], 1),
        };
        let weight = TensorPart { axis, entries: of.clone(), ..self.whole(format!("{name}.weight"), &sizes) };
        let bias = biased.then(|| TensorPart { entries: of, ..self.whole(format!("{name}.bias"), &[outputs]) });
        ProjectionPlan { name, weight, bias, layout }
    }

    fn attention_projections(&mut self, layer: usize) -> [ProjectionPlan; 3] {
        let Sizes { width, heads, kv_heads, head_width, .. } = self.sizes;
        let at = |name: &str| name.replace("{layer}", &layer.to_string());
        let part = &self.architecture.attention;
        let biased = self.config.flag_of(&part.bias);
        let outputs = [heads, kv_heads, kv_heads].map(|heads| heads * head_width);
        match &part.projections {
            ProjectionNames::Separate { q, k, v } => {
                let [q, k, v] = [(q, outputs[0]), (k, outputs[1]), (v, outputs[2])];
                [q, k, v].map(|(name, outputs)| self.projection(&at(name), width, outputs, biased))
            }
            ProjectionNames::Packed { tensor, order } => {
                let all = outputs.iter().sum();
                packed(*order, heads, kv_heads, head_width)
                    .map(|of| self.part(format!("{}{}", self.prefix, at(tensor)), width, all, biased, of))
            }
        }
    }

    /// A head that is stored although the table of tokens is the head.
    fn tied_head(&mut self, name: &str, table: &WantedTensor, checkpoint: &FolderTensors) {
        if !checkpoint.has(name) {
            return;
        }
        self.wanted.push(WantedTensor { name: name.to_string(), sizes: table.sizes.clone() });
        if !checkpoint.same(name, &table.name) {
            let message = "the configuration ties the head to the table of tokens";
            self.config.warn(format!("{message}, so the other numbers of `{name}` are not read"));
        }
    }

    /// The head that is no table of tokens: its name has no prefix.
    fn head(&mut self, name: &str) -> ProjectionPlan {
        let Sizes { width, vocabulary, .. } = self.sizes;
        let weight = self.whole(format!("{name}.weight"), &[vocabulary, width]);
        ProjectionPlan { name: name.to_string(), weight, bias: None, layout: Layout::OutputMajor }
    }
}

/// Which outputs of a packed projection are queries, keys and values.
fn packed(order: PackedOrder, heads: usize, kv_heads: usize, width: usize) -> [Vec<Range<usize>>; 3] {
    match order {
        PackedOrder::Blocks => {
            let (q, k) = (heads * width, kv_heads * width);
            [alone(0..q), alone(q..q + k), alone(q + k..q + 2 * k)]
        }
        PackedOrder::Groups => {
            let group = heads / kv_heads;
            let size = (group + 2) * width;
            let of = |from: usize, to: usize| {
                (0..kv_heads).map(|head| head * size + from * width..head * size + to * width).collect()
            };
            [of(0, group), of(group, group + 1), of(group + 1, group + 2)]
        }
    }
}

/// One range of rows.
fn alone(rows: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_packed_projections() {
        assert_eq!(packed(PackedOrder::Blocks, 4, 2, 3), [alone(0..12), alone(12..18), alone(18..24)]);
        assert_eq!(packed(PackedOrder::Groups, 4, 1, 3), [alone(0..12), alone(12..15), alone(15..18)]);
        let two = packed(PackedOrder::Groups, 2, 2, 3);
        assert_eq!(two, [vec![0..3, 9..12], vec![3..6, 12..15], vec![6..9, 15..18]]);
    }
}
