//! A description with the numbers of a configuration: which weights a network has, how large they are, and how they are put
//! together. It is all that `build` needs beside the weights.

use crate::architecture::{
    Architecture, ArchitectureSetting, AttentionPart, NormKind, PackedOrder, PairOrder, PositionPart, ProjectionNames,
    WeightLayout, WindowKeys,
};
use crate::checkpoint::{FolderTensors, TensorPart, WantedTensor};
use crate::config::{Config, shortened};
use crate::rotary::{Rotary, RotaryKeys, rotary};
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
    /// What its rows are multiplied by.
    pub token_scale: f32,
    /// From the width of the table of tokens to that of the stream.
    pub token_project: Option<ProjectionPlan>,
    /// A norm of tokens, before positions are added.
    pub token_norm: Option<NormPlan>,
    /// How tokens know where they are.
    pub positions: PositionPlan,
    /// Blocks, the first one first.
    pub blocks: Vec<BlockPlan>,
    /// The norm before the head.
    pub norm: Option<NormPlan>,
    /// From the width of the stream to that of the head.
    pub project: Option<ProjectionPlan>,
    /// The head's weight; the table of tokens without one.
    pub head: Option<ProjectionPlan>,
    /// The bias of a head that is the table of tokens.
    pub head_bias: Option<TensorPart>,
    /// What logits are multiplied by.
    pub logit_scale: f32,
    /// All tensors, in the order in which they are used.
    pub wanted: Vec<WantedTensor>,
}

/// How tokens know where they are.
#[derive(Clone, Debug)]
pub enum PositionPlan {
    /// By rows of a stored table, which are added.
    Stored(TensorPart),
    /// By rows of sines and cosines, which are added; of the first token, this one.
    Sinusoidal(usize),
    /// By turns of queries and keys.
    Turned(Rotary, Pairs),
    /// By what scores of every head lose per token between query and key.
    Alibi(Vec<f32>),
    /// What they are was refused.
    Unknown,
}

/// A block.
#[derive(Clone, Debug)]
pub struct BlockPlan {
    /// Whether attention and MLP both read the block's input.
    pub parallel: bool,
    /// Whether norms stand before attention and MLP, or behind the sums.
    pub norms_first: bool,
    /// What results are multiplied by before they are added.
    pub result_scale: f32,
    /// Whether queries and keys are turned, in a network that turns some.
    pub turned: bool,
    /// Before attention, or behind its sum.
    pub attention_norm: Option<NormPlan>,
    /// Of the result of attention.
    pub attention_result_norm: Option<NormPlan>,
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
    /// Before the MLP, or behind its sum; none where it reads what attention reads.
    pub mlp_norm: Option<NormPlan>,
    /// Of the result of the MLP.
    pub mlp_result_norm: Option<NormPlan>,
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
    /// Channels of a group.
    pub width: usize,
    /// Its gain.
    pub gain: Option<TensorPart>,
    /// What is added to the gain.
    pub more_gain: f32,
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
    let part = &architecture.tokens;
    let token_width = part.width.as_deref().and_then(|key| planner.config.size(key)).unwrap_or(sizes.width);
    let tokens = planner.table(&part.table, sizes.vocabulary, token_width);
    let token_scale = planner.token_scale();
    let narrow = |name: &Option<String>| name.clone().filter(|_| token_width != sizes.width);
    let token_project = narrow(&part.project).map(|name| planner.projection(&name, token_width, sizes.width, false));
    let token_norm = part.norm.as_deref().map(|name| planner.norm(name, sizes.width, 1));
    let positions = planner.positions();
    let context = planner.context(asked, &positions);
    let windows = planner.windows();
    let turned = planner.turned();
    let blocks: Option<Vec<BlockPlan>> = (0..sizes.layers)
        .map(|layer| {
            Some(BlockPlan { turned: turned[layer], ..planner.block(layer, windows[layer], context, &positions)? })
        })
        .collect();
    let output = &architecture.output;
    let norm = output.norm.as_deref().map(|name| planner.norm(name, sizes.width, 1));
    let project = narrow(&output.project).map(|name| planner.projection(&name, sizes.width, token_width, false));
    let (tied, biased) = (planner.config.flag_of(&output.tied), planner.config.flag_of(&output.bias));
    let logit_scale = planner.config.number_of(&output.scale, 1.0) / planner.config.number_of(&output.divided_by, 1.0);
    let head = (!tied).then(|| planner.head(&output.head, token_width, biased));
    let head_bias = (tied && biased).then(|| planner.whole(format!("{}.bias", output.head), &[sizes.vocabulary]));
    if tied {
        planner.tied_head(&format!("{}.weight", output.head), &tokens.of, checkpoint);
    }
    let (wanted, logit_scale) = (planner.wanted, logit_scale as f32);
    Some(Blueprint {
        context,
        tokens,
        token_scale,
        token_project,
        token_norm,
        positions,
        blocks: blocks?,
        norm,
        project,
        head,
        head_bias,
        logit_scale,
        wanted,
    })
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
    if let ProjectionNames::Packed { order: PackedOrder::Quarters, .. } = architecture.attention.projections
        && !heads.is_multiple_of(4)
    {
        refuse(config, &keys.heads, format!("is {heads}; projections in four parts want a multiple of 4"));
    }
    if config.flag_of(&architecture.block.parallel) && !config.flag_of(&architecture.block.norms_first) {
        config.refuse(
            "the description",
            "has attention and MLP side by side, and norms behind sums: not both are possible",
        );
        return None;
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

    fn table(&mut self, name: &str, rows: usize, width: usize) -> TensorPart {
        self.whole(format!("{}{name}.weight", self.prefix), &[rows, width])
    }

    /// What rows of the table of tokens are multiplied by: each factor is rounded to f32, as in the library.
    fn token_scale(&mut self) -> f32 {
        let part = &self.architecture.tokens;
        let stated = self.config.number_of(&part.scale, 1.0) as f32;
        if self.config.flag_of(&part.scaled_by_width) {
            stated * (self.sizes.width as f64).sqrt() as f32
        } else {
            stated
        }
    }

    fn positions(&mut self) -> PositionPlan {
        let Sizes { width, heads, head_width, context, .. } = self.sizes;
        match &self.architecture.positions {
            PositionPart::Learned { table, first } => {
                let rows = self.table(table, context + first, width);
                PositionPlan::Stored(TensorPart { entries: alone(*first..context + first), ..rows })
            }
            PositionPart::Sinusoidal { first } => PositionPlan::Sinusoidal(*first),
            PositionPart::Alibi { scaled } => {
                let scale = if self.config.flag_of(scaled) { 1.0 / (head_width as f32).sqrt() } else { 1.0 };
                PositionPlan::Alibi(alibi_slopes(heads).into_iter().map(|slope| slope * scale).collect())
            }
            PositionPart::Rotary { pairs, theta, share, channels, .. } => {
                let pairs = match pairs {
                    PairOrder::Half => Pairs::Half,
                    PairOrder::Interleaved => Pairs::Interleaved,
                };
                let keys = RotaryKeys { theta, share, channels: channels.as_deref() };
                let rotary = rotary(self.config, &keys, head_width, context);
                rotary.map_or(PositionPlan::Unknown, |rotary| PositionPlan::Turned(rotary, pairs))
            }
        }
    }

    /// Which blocks turn queries and keys.
    fn turned(&mut self) -> Vec<bool> {
        let layers = self.sizes.layers;
        let PositionPart::Rotary { layers: Some(key), .. } = &self.architecture.positions else {
            return vec![true; layers];
        };
        let Some(listed) = self.config.value(key) else { return vec![true; layers] };
        let listed: Vec<u64> = listed.as_array().into_iter().flatten().filter_map(Json::as_u64).collect();
        if listed.len() != layers {
            self.config.refuse(key, format!("should say 0 or 1 of each of {layers} layers"));
            return vec![true; layers];
        }
        listed.into_iter().map(|turns| turns != 0).collect()
    }

    /// The most tokens of a sequence.
    fn context(&mut self, asked: Asked, positions: &PositionPlan) -> usize {
        let (trained, key) = (self.sizes.context, self.architecture.sizes.context.as_str());
        let learned = matches!(positions, PositionPlan::Stored(_));
        let limit = match positions {
            PositionPlan::Stored(_) => Some(trained),
            PositionPlan::Turned(rotary, _) => rotary.limit,
            PositionPlan::Sinusoidal(_) | PositionPlan::Alibi(_) | PositionPlan::Unknown => None,
        };
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
        let WindowKeys { size, used, from_layer, kinds: named } = keys;
        let used = used.as_deref().is_none_or(|key| self.config.flag(key).unwrap_or(false));
        let size = self.config.size(size).filter(|_| used);
        if let Some(named) = named {
            let local = self.local_layers(named);
            return (0..layers).map(|layer| size.filter(|_| local[layer])).collect();
        }
        let first = from_layer.as_deref().and_then(|key| self.config.index(key)).unwrap_or(0);
        (0..layers).map(|layer| self.kind(&kinds, layer, size.filter(|_| layer >= first), size)).collect()
    }

    /// Which layers a list of kinds calls local.
    fn local_layers(&mut self, key: &str) -> Vec<bool> {
        let layers = self.sizes.layers;
        let listed = self.config.value(key);
        let kinds = listed.as_ref().and_then(|listed| kinds_of(listed, layers));
        kinds.filter(|kinds| kinds.len() == layers).unwrap_or_else(|| {
            let found = shortened(&listed.unwrap_or(Json::Null));
            self.config.refuse(key, format!("is {found}; global or local was expected of each of {layers} layers"));
            vec![false; layers]
        })
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

    fn block(
        &mut self,
        layer: usize,
        window: Option<usize>,
        context: usize,
        positions: &PositionPlan,
    ) -> Option<BlockPlan> {
        let architecture = self.architecture;
        let (attention, mlp) = (&architecture.attention, &architecture.mlp);
        let Sizes { width, heads, kv_heads, head_width, .. } = self.sizes;
        let parallel = self.config.flag_of(&architecture.block.parallel);
        let shared = parallel && self.config.flag_of(&architecture.block.shared_norm);
        let attention_norm = self.norm_at(&attention.norm, layer, width);
        let projections = self.attention_projections(layer);
        let mut of_heads = |name: &Option<String>, heads: usize| {
            let name = name.as_deref()?.replace("{layer}", &layer.to_string());
            let (width, heads) = if attention.whole_norms { (heads * head_width, 1) } else { (head_width, heads) };
            Some(self.norm_of(NormKind::Rms, &name, width, heads))
        };
        let head_norms = [of_heads(&attention.q_norm, heads), of_heads(&attention.k_norm, kv_heads)];
        let biased = self.config.flag_of(&attention.out_bias);
        let out = self.projection(&at_layer(&attention.out, layer), heads * head_width, width, biased);
        let attention_result_norm = self.norm_at(&attention.result_norm, layer, width);
        let mlp_norm = if shared { None } else { self.norm_at(&mlp.norm, layer, width) };
        let [gate, up, down] = self.mlp_projections(layer);
        let curve = self.curve(&mlp.curve, layer)?;
        let window = window.filter(|&window| window < context).map(|window| window as u32);
        let alibi = matches!(positions, PositionPlan::Alibi(_));
        Some(BlockPlan {
            parallel,
            norms_first: self.config.flag_of(&architecture.block.norms_first),
            result_scale: self.config.number_of(&architecture.block.scale, 1.0) as f32,
            turned: true,
            attention_norm,
            attention_result_norm,
            projections,
            head_norms,
            heads: Heads { kv: kv_heads as u32, window, alibi, ..Heads::equal(heads as u32) },
            scale: self.scale(layer),
            out,
            mlp_norm,
            mlp_result_norm: self.norm_at(&mlp.result_norm, layer, width),
            gate,
            up: up?,
            curve,
            down: down?,
        })
    }

    /// The projections of an MLP: gate, up, down; the gate where there is one.
    fn mlp_projections(&mut self, layer: usize) -> [Option<ProjectionPlan>; 3] {
        let mlp = &self.architecture.mlp;
        let Sizes { width, inner, .. } = self.sizes;
        let biased = self.config.flag_of(&mlp.bias);
        let [gate, up, down] =
            [mlp.gate.as_ref(), Some(&mlp.up), Some(&mlp.down)].map(|name| name.map(|name| at_layer(name, layer)));
        let down = down.map(|down| self.projection(&down, inner, width, biased));
        if let Some(both) = up.as_ref().filter(|_| mlp.packed_gate) {
            let both = format!("{}{both}", self.prefix);
            let halves = [0..inner, inner..2 * inner];
            let [gate, up] = halves.map(|half| self.part(both.clone(), width, 2 * inner, biased, alone(half)));
            return [Some(gate), Some(up), down];
        }
        let [gate, up] = [gate, up].map(|name| name.map(|name| self.projection(&name, width, inner, biased)));
        [gate, up, down]
    }

    /// What scores are multiplied by.
    fn scale(&mut self, layer: usize) -> f32 {
        let AttentionPart { scaled, scaled_by_layer, scale, .. } = &self.architecture.attention;
        let stated = scale.as_ref().and_then(|scale| match scale {
            ArchitectureSetting::Is(scale) => Some(*scale),
            ArchitectureSetting::Key(key) => self.config.number(key),
        });
        if let Some(scale) = stated {
            return scale as f32;
        }
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

    /// The norm of this name in a block, where it has one.
    fn norm_at(&mut self, name: &Option<String>, layer: usize, width: usize) -> Option<NormPlan> {
        name.as_deref().map(|name| self.norm(&at_layer(name, layer), width, 1))
    }

    fn norm(&mut self, name: &str, width: usize, heads: usize) -> NormPlan {
        self.norm_of(self.architecture.norm.kind, name, width, heads)
    }

    fn norm_of(&mut self, kind: NormKind, name: &str, width: usize, heads: usize) -> NormPlan {
        let part = &self.architecture.norm;
        let eps = self.config.number_of(&part.eps, 0.0) as f32;
        let name = format!("{}{name}", self.prefix);
        let affine = self.config.flag_of(&part.affine);
        let biased = affine && kind == NormKind::Layer && self.config.flag_of(&part.bias);
        let gain = affine.then(|| self.whole(format!("{name}.weight"), &[width]));
        let bias = biased.then(|| self.whole(format!("{name}.bias"), &[width]));
        let more_gain = if part.less_one { 1.0 } else { 0.0 };
        NormPlan { name, kind, eps, width, gain, more_gain, bias, heads }
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
    fn head(&mut self, name: &str, width: usize, biased: bool) -> ProjectionPlan {
        let vocabulary = self.sizes.vocabulary;
        let weight = self.whole(format!("{name}.weight"), &[vocabulary, width]);
        let bias = biased.then(|| self.whole(format!("{name}.bias"), &[vocabulary]));
        ProjectionPlan { name: name.to_string(), weight, bias, layout: Layout::OutputMajor }
    }
}

/// The name of a tensor in a block.
fn at_layer(name: &str, layer: usize) -> String {
    name.replace("{layer}", &layer.to_string())
}

/// Whether each layer is local, by a list of kinds, or of patterns with how often each is repeated; none where it is neither.
fn kinds_of(listed: &Json, most: usize) -> Option<Vec<bool>> {
    let mut all = Vec::new();
    for entry in listed.as_array()? {
        match entry {
            Json::String(kind) if kind == "global" || kind == "local" => all.push(kind == "local"),
            Json::Array(entry) => {
                let [pattern, times] = entry.as_slice() else { return None };
                let pattern = kinds_of(pattern, most)?;
                let times = times.as_u64().filter(|times| *times <= most as u64)?;
                (0..times).for_each(|_| all.extend(&pattern));
            }
            _ => return None,
        }
        if all.len() > most {
            return None;
        }
    }
    Some(all)
}

/// What scores of every head lose per token of distance (Press et al. 2022): powers of `2^(-8/n)`, and where `n` heads are no power of
/// two, behind those of the power below every second one of the power above.
fn alibi_slopes(heads: usize) -> Vec<f32> {
    let below = 1usize << heads.max(1).ilog2();
    let power = |count: usize, i: usize| {
        let base = 2f64.powf(-8.0 / count as f64) as f32;
        f64::from(base).powi(i as i32) as f32
    };
    let first = (1..=below).map(|i| power(below, i));
    first.chain((0..heads - below).map(|i| power(2 * below, 2 * i + 1))).collect()
}

/// Which outputs of a packed projection are queries, keys and values.
fn packed(order: PackedOrder, heads: usize, kv_heads: usize, width: usize) -> [Vec<Range<usize>>; 3] {
    match order {
        PackedOrder::Blocks => {
            let (q, k) = (heads * width, kv_heads * width);
            [alone(0..q), alone(q..q + k), alone(q + k..q + 2 * k)]
        }
        PackedOrder::Quarters => {
            let part = heads * width / 4;
            let of = |i: usize| (0..4).map(|quarter| (3 * quarter + i) * part..(3 * quarter + i + 1) * part).collect();
            [of(0), of(2), of(1)]
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
    fn slopes_of_alibi() {
        assert_eq!(alibi_slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
        assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
        assert_eq!(alibi_slopes(1), [0.00390625]);
    }

    #[test]
    fn kinds_of_layers() {
        let of = |text: &str| kinds_of(&serde_json::from_str(text).expect("JSON"), 4);
        assert_eq!(of(r#"["global", "local"]"#), Some(vec![false, true]));
        assert_eq!(of(r#"[[["global", "local"], 2]]"#), Some(vec![false, true, false, true]));
        assert_eq!((of(r#"["near"]"#), of(r#"[[["global"], 9]]"#), of("3")), (None, None, None));
    }

    #[test]
    fn outputs_of_packed_projections() {
        assert_eq!(packed(PackedOrder::Blocks, 4, 2, 3), [alone(0..12), alone(12..18), alone(18..24)]);
        assert_eq!(packed(PackedOrder::Groups, 4, 1, 3), [alone(0..12), alone(12..15), alone(15..18)]);
        let two = packed(PackedOrder::Groups, 2, 2, 3);
        assert_eq!(two, [vec![0..3, 9..12], vec![3..6, 12..15], vec![6..9, 15..18]]);
        let [q, k, v] = packed(PackedOrder::Quarters, 4, 4, 2);
        assert_eq!([&q[..2], &k[..2], &v[..2]], [[0..2, 6..8], [4..6, 10..12], [2..4, 8..10]]);
    }
}
