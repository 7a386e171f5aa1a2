//! A network in a few words and numbers: what `snnc check` found, part by part.

use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::op::{DenseOp, Heads, LeafOp, LevelOp, Pairs, SpikeOp};
use snnc_ir::ssa::Ssa;
use snnc_ir::{Curve, Diagnostic, Graph, Node, Op, Value};

/// A decoder as a graph at stage Tensor has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Channels of the residual stream.
    pub width: usize,
    /// What its blocks are made of.
    pub layers: Layers,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Where the logits come from.
    pub head: HeadSource,
    /// Elements of all weights.
    pub parameters: usize,
}

/// What the blocks of a network are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    /// By layer.
    pub attention: Vec<AttentionShape>,
    /// In the network's order.
    pub mlps: Vec<MlpShape>,
    /// Whether norms subtract the mean: LayerNorm, else RMSNorm.
    pub centred: bool,
    /// Whether a table of positions is added to the residual stream.
    pub learned_positions: bool,
}

/// One attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Heads of queries and of keys, and how far back they see.
    pub heads: Heads,
    /// Channels of a head.
    pub width: usize,
    /// What scores are multiplied by; spiking attention has it in a constant.
    pub scale: Option<f32>,
    /// How spikes attend; `None`: by softmax, on reals.
    pub spiking: Option<Ssa>,
    /// Which channels of queries and keys are turned by their positions.
    pub rotary: Option<RotaryShape>,
    /// Whether queries and keys are normalised.
    pub normalised: bool,
}

/// Rotary positions of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotaryShape {
    /// Which channels make a pair.
    pub pairs: Pairs,
    /// Channels of a head that are turned.
    pub turned: usize,
}

/// The inner layer of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlpShape {
    /// Its curve.
    pub curve: Curve,
    /// Whether the curve is a gate, which multiplies another projection.
    pub gated: bool,
    /// Its channels.
    pub width: usize,
    /// Whether a Hadamard transform turns it before its neurons.
    pub turned: bool,
}

/// A network as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NetworkJson {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Heads of queries, by layer.
    pub heads: Vec<u32>,
    /// Heads of keys and values, by layer.
    pub key_value_heads: Vec<u32>,
    /// Channels of a head, by layer.
    pub head_width: Vec<usize>,
    /// What scores are multiplied by, by layer.
    pub scales: Vec<f32>,
    /// How many tokens a query sees, itself among them, by layer; `null`: all before it.
    pub windows: Vec<Option<u32>>,
    /// Whether queries and keys are normalised, by layer.
    pub query_key_norms: Vec<bool>,
    /// Whether a table of positions is added to the residual stream.
    pub learned_positions: bool,
    /// Rotary positions by layer; `null`: none.
    pub rotary: Vec<Option<RotaryJson>>,
    /// `LayerNorm` or `RMSNorm`.
    pub norm: &'static str,
    /// Curves of the MLPs.
    pub activations: Vec<&'static str>,
    /// Whether a curve is a gate, by MLP.
    pub gated: Vec<bool>,
    /// Widths of the MLPs' inner layers.
    pub inner: Vec<usize>,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Where the logits come from.
    pub head: &'static str,
    /// Elements of all weights.
    pub parameters: usize,
}

/// Rotary positions as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct RotaryJson {
    /// Which channels make a pair: those of two halves, or neighbours (`interleaved`).
    pub pairs: &'static str,
    /// Channels of a head that are turned.
    pub turned: usize,
}

/// Where the logits come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadSource {
    /// The token table once more.
    Tied,
    /// A matrix with the token table's numbers.
    Copied,
    /// A matrix of its own.
    Untied,
}

impl HeadSource {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            HeadSource::Tied => "tied",
            HeadSource::Copied => "a copy of the token table",
            HeadSource::Untied => "untied",
        }
    }
}

impl Network {
    /// Of a graph at stage Tensor.
    ///
    /// # Errors
    /// It has no layers, or embeds no tokens.
    pub fn of(graph: &Graph) -> Result<Self, Diagnostic> {
        match Self::read(graph) {
            Some(network) if !network.layers.attention.is_empty() => Ok(network),
            Some(_) => Err(Diagnostic::new("", "there is no attention in it; a decoder has a layer or more")),
            None => Err(Diagnostic::new("", "it embeds no token ids")),
        }
    }

    fn read(graph: &Graph) -> Option<Self> {
        let nodes = || graph.iter().map(|(_, node)| node);
        let table = token_table(graph)?;
        let &[vocabulary, embedded] = graph.ty(table).shape().sizes()?.as_slice() else { return None };
        // Embeddings may be narrower than the blocks that they are projected to.
        let is_norm = |node: &&Node| matches!(node.op, Op::Dense(DenseOp::RmsNorm { heads: 1, .. }));
        let normed = nodes().find(is_norm).and_then(|node| graph.ty(node.args[0]).shape().row_width());
        Some(Self {
            width: normed.unwrap_or(embedded),
            layers: Layers::of(graph),
            vocabulary,
            context: graph.context as usize,
            head: head(graph, table),
            parameters: parameters(graph),
        })
    }

    /// The same as data.
    pub fn json(&self) -> NetworkJson {
        fn of<T>(all: &[AttentionShape], what: impl Fn(&AttentionShape) -> T) -> Vec<T> {
            all.iter().map(what).collect()
        }
        let Layers { attention: all, mlps, learned_positions, .. } = &self.layers;
        let rotary = |RotaryShape { pairs, turned }| RotaryJson { pairs: pairs.name(), turned };
        let mut activations: Vec<Curve> = mlps.iter().map(|mlp| mlp.curve).collect();
        activations.sort_unstable();
        activations.dedup();
        NetworkJson {
            layers: all.len(),
            width: self.width,
            heads: of(all, |layer| layer.heads.query),
            key_value_heads: of(all, |layer| layer.heads.kv),
            head_width: of(all, |layer| layer.width),
            scales: of(all, |layer| layer.scale.unwrap_or(1.0)),
            windows: of(all, |layer| layer.heads.window),
            query_key_norms: of(all, |layer| layer.normalised),
            learned_positions: *learned_positions,
            rotary: of(all, |layer| layer.rotary.map(rotary)),
            norm: self.layers.norm(),
            activations: activations.into_iter().map(Curve::name).collect(),
            gated: mlps.iter().map(|mlp| mlp.gated).collect(),
            inner: mlps.iter().map(|mlp| mlp.width).collect(),
            vocabulary: self.vocabulary,
            context: self.context,
            head: self.head.name(),
            parameters: self.parameters,
        }
    }

    /// One line per part: its name, and what it is.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let Self { layers, width, parameters, vocabulary, context, .. } = self;
        let (count, millions) = (layers.attention.len(), *parameters as f64 / 1e6);
        let mut lines = vec![
            ("network", format!("{count} layers of width {width}, {millions:.1} M parameters")),
            ("vocabulary", format!("{vocabulary}, head {}", self.head.name())),
            ("context", format!("{context} tokens")),
        ];
        lines.extend(layers.lines());
        lines
    }
}

impl Layers {
    /// Of a graph at any stage.
    pub fn of(graph: &Graph) -> Self {
        let turns = tables_of_turns(graph);
        let nodes = || graph.iter();
        Self {
            attention: nodes().filter_map(|(_, node)| attention(graph, node)).collect(),
            mlps: nodes().filter_map(|(value, node)| mlp(graph, value, node)).collect(),
            centred: nodes().any(|(_, node)| node.op == Op::Dense(DenseOp::Centre)),
            learned_positions: position_tables(graph).any(|table| !turns.contains(&table)),
        }
    }

    fn norm(&self) -> &'static str {
        if self.centred { "LayerNorm" } else { "RMSNorm" }
    }

    /// One line per part: its name, and what it is.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let attention = &self.attention;
        let normalised = |layer: &AttentionShape| if layer.normalised { "normalised" } else { "not normalised" }.into();
        let norms = match attention.iter().any(|layer| layer.normalised) {
            true => format!("{}; queries and keys {}", self.norm(), each(attention, normalised)),
            false => self.norm().to_string(),
        };
        vec![
            ("positions", self.positions()),
            ("norms", norms),
            ("attention", each(attention, AttentionShape::words)),
            ("mlp", each(&self.mlps, MlpShape::words)),
        ]
    }

    /// How the network knows where a token stands.
    fn positions(&self) -> String {
        let rotary = |layer: &AttentionShape| match layer.rotary {
            Some(RotaryShape { pairs, turned }) => {
                format!("rotary ({}, {turned} of {} channels)", pairs.name(), layer.width)
            }
            None => "not rotary".into(),
        };
        let alibi = |layer: &AttentionShape| if layer.heads.alibi { "ALiBi" } else { "no ALiBi" }.to_string();
        let any = |has: fn(&AttentionShape) -> bool| self.attention.iter().any(has);
        let kinds = [
            self.learned_positions.then(|| "learned".to_string()),
            any(|layer| layer.rotary.is_some()).then(|| each(&self.attention, rotary)),
            any(|layer| layer.heads.alibi).then(|| each(&self.attention, alibi)),
        ];
        let kinds: Vec<String> = kinds.into_iter().flatten().collect();
        if kinds.is_empty() { "none".into() } else { kinds.join(", and ") }
    }
}

impl AttentionShape {
    fn words(&self) -> String {
        let Heads { query, kv, window, .. } = self.heads;
        let several = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let heads = if query == kv {
            several(query, "head")
        } else {
            format!("{} and {}", several(query, "query head"), several(kv, "key/value head"))
        };
        let window = window.map_or(String::new(), |window| format!(", window of {}", several(window, "token")));
        let how = self.spiking.map_or("causal softmax", Ssa::name);
        let scale = self.scale.map_or(String::new(), |scale| format!(", scale {scale}"));
        format!("{how}, {heads} of {}{scale}{window}", self.width)
    }
}

impl MlpShape {
    fn words(&self) -> String {
        let (gated, turned) =
            (if self.gated { "gated by " } else { "" }, if self.turned { ", turned by a Hadamard matrix" } else { "" });
        format!("{gated}{}, {} wide{turned}", self.curve.name(), self.width)
    }
}

fn attention(graph: &Graph, node: &Node) -> Option<AttentionShape> {
    let (heads, scale, spiking) = match node.op {
        Op::Dense(DenseOp::Attention { heads, scale }) => (heads, Some(scale.get()), None),
        Op::Level(LevelOp::Ssa { heads, variant }) => (heads, None, Some(variant)),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => return None,
    };
    let width = graph.ty(node.args[0]).shape().row_width()? / heads.query.max(1) as usize;
    let (mut rotary, mut normalised) = (None, false);
    let mut at = node.args[0];
    loop {
        let made = graph.node(at);
        match made.op {
            Op::Dense(DenseOp::Rotary { pairs, .. }) => {
                let turned = graph.ty(made.args[1]).shape().row_width().unwrap_or(0);
                rotary = Some(RotaryShape { pairs, turned });
            }
            Op::Dense(DenseOp::RmsNorm { .. }) => normalised = true,
            Op::Dense(DenseOp::Hadamard(_))
            | Op::Level(LevelOp::ScaleShift | LevelOp::HeadLinear | LevelOp::Quant { .. })
            | Op::Spike(SpikeOp::Fire { .. } | SpikeOp::Integrate { .. }) => {}
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => break,
        }
        at = made.args[0];
    }
    Some(AttentionShape { heads, width, scale, spiking, rotary, normalised })
}

fn mlp(graph: &Graph, value: Value, node: &Node) -> Option<MlpShape> {
    // Attention has neurons with a curve for its features.
    let of_attention = graph.site(value).is_some_and(|site| site.role.is_attention());
    let (curve, gated) = match node.op {
        Op::Dense(DenseOp::Curve(curve)) => (curve, false),
        Op::Dense(DenseOp::Gated(curve))
        | Op::Level(LevelOp::GatedQuant { curve, .. })
        | Op::Spike(SpikeOp::GatedFire { curve, .. }) => (curve, true),
        Op::Level(LevelOp::Quant { curve, .. })
        | Op::Spike(SpikeOp::Fire { curve, .. } | SpikeOp::Integrate { curve, .. })
            if curve != Curve::Identity && !of_attention =>
        {
            (curve, false)
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => return None,
    };
    let turns = |node: &Node| matches!(node.op, Op::Dense(DenseOp::Hadamard(_))) && node.args[0] == value;
    let turned = graph.nodes.iter().any(turns);
    Some(MlpShape { curve, gated, width: node.ty.shape().row_width()?, turned })
}

/// Tables of which a token's position is the row.
fn position_tables(graph: &Graph) -> impl Iterator<Item = Value> {
    let is_place = |value: Value| matches!(graph.node(value).op, Op::Leaf(LeafOp::Positions));
    let rows = graph.nodes.iter().filter(move |node| node.op == Op::Dense(DenseOp::Embed) && is_place(node.args[0]));
    rows.map(|node| node.args[1])
}

/// Tables of cosines and sines by position: no weights that anybody learned.
fn tables_of_turns(graph: &Graph) -> Vec<Value> {
    let turns = graph.nodes.iter().filter(|node| matches!(node.op, Op::Dense(DenseOp::Rotary { .. })));
    let embedded = turns.map(|node| graph.node(node.args[1])).filter(|node| node.op == Op::Dense(DenseOp::Embed));
    embedded.map(|node| node.args[1]).collect()
}

/// Elements of all weights, but for tables of rotations and for biases that a network does not have.
fn parameters(graph: &Graph) -> usize {
    let turns = tables_of_turns(graph);
    let learned = graph.iter().filter(|(value, _)| !turns.contains(value));
    let weights = learned.filter_map(|(value, _)| graph.constant(value)).map(|weight| &weight.tensor);
    let is_bias = |sizes: &[usize], numbers: Option<&[f32]>| {
        sizes.len() == 1 && numbers.is_some_and(|numbers| numbers.iter().all(|&x| x == 0.0))
    };
    let has = weights.filter(|tensor| !is_bias(tensor.sizes(), tensor.as_f32()));
    has.map(|tensor| tensor.sizes().iter().product::<usize>()).sum()
}

/// The table that token ids index.
pub fn token_table(graph: &Graph) -> Option<Value> {
    let is_ids = |value: Value| matches!(graph.node(value).op, Op::Leaf(LeafOp::Tokens));
    let embeds = |node: &&Node| matches!(node.op, Op::Dense(DenseOp::Embed)) && is_ids(node.args[0]);
    graph.nodes.iter().find(embeds).map(|node| node.args[1])
}

/// The head is the last projection.
fn head(graph: &Graph, table: Value) -> HeadSource {
    let mut projections = graph.nodes.iter().rev().filter(|node| matches!(node.op, Op::Dense(DenseOp::Linear(_))));
    let last = projections.next().map(|node| node.args[1]);
    let Some(weight) = last else { return HeadSource::Untied };
    if weight == table {
        return HeadSource::Tied;
    }
    let (Some(a), Some(b)) = (graph.constant(table), graph.constant(weight)) else { return HeadSource::Untied };
    let (Some(a), Some(b)) = (a.tensor.as_f32(), b.tensor.as_f32()) else { return HeadSource::Untied };
    let &[rows, width] = graph.ty(table).shape().sizes().unwrap_or_default().as_slice() else {
        return HeadSource::Untied;
    };
    let turned = |i: usize| i % width * rows + i / width;
    let same = a.len() == b.len() && (a == b || (0..a.len()).all(|i| a[i].to_bits() == b[turned(i)].to_bits()));
    if same { HeadSource::Copied } else { HeadSource::Untied }
}

/// What all layers have, once; else how many have what.
fn each<T>(all: &[T], say: impl Fn(&T) -> String) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for word in all.iter().map(say) {
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    match counts.as_slice() {
        [] => "none".to_string(),
        [(word, _)] => word.clone(),
        several => {
            let words = several.iter().map(|(word, count)| format!("{word} ({count} of {})", all.len()));
            words.collect::<Vec<String>>().join("; ")
        }
    }
}
