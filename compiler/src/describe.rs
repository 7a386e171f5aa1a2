//! A network in a few words and numbers: what `snnc check` found.

use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::{Curve, Diagnostic, Graph, Node, Op, Value};
use std::collections::BTreeMap;

/// A decoder as a graph at stage Tensor has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Heads, by layer.
    pub heads: Vec<u32>,
    /// What scores are multiplied by, layer by layer.
    pub scales: Vec<f32>,
    /// Curves of the MLPs.
    pub activations: Vec<Curve>,
    /// Widths of the MLPs' inner layers.
    pub inner: Vec<usize>,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Where the logits come from.
    pub head: HeadSource,
    /// Elements of all weights.
    pub parameters: usize,
}

/// A network as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct NetworkJson {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// By layer.
    pub heads: Vec<u32>,
    /// What scores are multiplied by, by layer.
    pub scales: Vec<f32>,
    /// Curves of the MLPs.
    pub activations: Vec<&'static str>,
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
            Some(network) if network.layers > 0 => Ok(network),
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
        let width = normed.unwrap_or(embedded);
        let attentions: Vec<(u32, f32)> = nodes()
            .filter_map(|node| {
                let Op::Dense(DenseOp::Attention { heads, scale }) = node.op else { return None };
                Some((heads.query, scale.get()))
            })
            .collect();
        let curves: Vec<(Curve, usize)> = graph
            .iter()
            .filter_map(|(value, node)| {
                let Op::Dense(DenseOp::Curve(curve)) = node.op else { return None };
                Some((curve, graph.ty(value).shape().row_width()?))
            })
            .collect();
        let mut activations: Vec<Curve> = curves.iter().map(|(curve, _)| *curve).collect();
        activations.sort_unstable();
        activations.dedup();
        Some(Self {
            layers: attentions.len(),
            width,
            heads: attentions.iter().map(|(heads, _)| *heads).collect(),
            scales: attentions.iter().map(|(_, scale)| *scale).collect(),
            activations,
            inner: curves.iter().map(|(_, inner)| *inner).collect(),
            vocabulary,
            context: graph.context as usize,
            head: head(graph, table),
            parameters: graph.weights.iter().map(|weight| weight.tensor.sizes().iter().product::<usize>()).sum(),
        })
    }

    /// The same as data.
    pub fn json(&self) -> NetworkJson {
        NetworkJson {
            layers: self.layers,
            width: self.width,
            heads: self.heads.clone(),
            scales: self.scales.clone(),
            activations: self.activations.iter().map(|curve| curve.name()).collect(),
            inner: self.inner.clone(),
            vocabulary: self.vocabulary,
            context: self.context,
            head: self.head.name(),
            parameters: self.parameters,
        }
    }

    /// One line per part: its name, and what it is.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let names: Vec<&str> = self.activations.iter().map(|curve| curve.name()).collect();
        let width_of = |heads: u32| self.width / heads.max(1) as usize;
        let heads = each(&self.heads, |&heads| format!("{heads} heads of {}", width_of(heads)));
        let scales = each(&self.scales, |scale| format!("{scale}"));
        vec![
            (
                "network",
                format!(
                    "{} layers of width {}, {:.1} M parameters",
                    self.layers,
                    self.width,
                    self.parameters as f64 / 1e6
                ),
            ),
            ("vocabulary", format!("{}, head {}", self.vocabulary, self.head.name())),
            ("context", format!("{} tokens", self.context)),
            ("attention", format!("causal softmax, {heads}, scale {scales}")),
            ("mlp", format!("{}, {} wide", names.join(", "), each(&self.inner, usize::to_string))),
        ]
    }
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
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let words: Vec<String> = all.iter().map(say).collect();
    words.iter().for_each(|word| *counts.entry(word.clone()).or_default() += 1);
    match counts.len() {
        0 => "none".to_string(),
        1 => words[0].clone(),
        _ => words.join(", "),
    }
}
