//! Which output of a file is the logits: the one that is as wide as the vocabulary. Names only decide between several.

use super::importer::Importer;
use super::inputs::InputBindings;
use super::value::ImportValue;
use crate::model::{OnnxModel, Port};
use crate::tensor::OnnxElem;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;

/// What an output is, by its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// A number for each token of the vocabulary.
    Logits,
    /// As wide as the table of tokens: the network before its head.
    Hidden,
    /// Of another width.
    Classes(usize),
    /// It could not be translated, and the file does not declare its width.
    Unknown,
}

/// Names that a value has at most.
const IDENTITIES_MAX: usize = 8;

/// What stands in names of outputs that are no rows of numbers for tokens.
const OF_A_CACHE: [&str; 3] = ["present", "past", "cache"];

/// Outputs that may be rows of logits or of hidden states: floats of two axes or more, no cache.
fn candidates(model: &OnnxModel) -> Vec<&Port> {
    let is_rows = |port: &&Port| {
        port.elem.is_none_or(|elem| elem == OnnxElem::F32)
            && port.sizes.len() != 1
            && !OF_A_CACHE.iter().any(|word| port.name.contains(word))
    };
    model.graph.outputs.iter().filter(is_rows).collect()
}

/// How much a name says that an output is the logits; less is more.
fn by_name(name: &str) -> usize {
    match name {
        "logits" => 0,
        name if name.contains("logits") => 1,
        name if name.contains("score") || name.contains("pred") => 2,
        name if name.contains("hidden") || name.contains("embed") => 4,
        _ => 3,
    }
}

/// The output that the logits are, or else the hidden state that a head can be put on.
///
/// # Errors
/// There is no output, or all are as wide as no vocabulary.
pub(super) fn choose<'m>(
    model: &'m OnnxModel,
    counts: &[usize],
    bindings: &InputBindings,
) -> Result<&'m Port, Diagnostics> {
    let candidates = candidates(model);
    match candidates.as_slice() {
        [] => model.graph.outputs.first().ok_or_else(|| Diagnostic::new("", "the graph has no output").into()),
        [one] => Ok(one),
        several => {
            let mut survey = Importer::new(model, counts, 1, bindings);
            let names: Vec<&str> = several.iter().map(|port| port.name.as_str()).collect();
            survey.translate_all(&names);
            let kinds: Vec<OutputKind> = several.iter().map(|port| survey.kind_of(port)).collect();
            let of = |kind: OutputKind| {
                several.iter().zip(&kinds).filter(move |(_, other)| **other == kind).map(|(port, _)| *port)
            };
            let best = |kind: OutputKind| of(kind).min_by_key(|port| by_name(&port.name));
            let named = |port: &&Port| by_name(&port.name) < 3;
            if let Some(port) = best(OutputKind::Logits).or_else(|| best(OutputKind::Unknown).filter(named)) {
                return Ok(port);
            }
            if let Some(i) = kinds.iter().position(|kind| matches!(kind, OutputKind::Classes(_))) {
                return Ok(several[i]);
            }
            // The deepest of several hidden states is the last.
            let depth = |port: &Port| model.graph.needed(&[&port.name]).len();
            let hidden: Option<&Port> =
                of(OutputKind::Hidden).collect::<Vec<_>>().into_iter().rev().max_by_key(|port| depth(port));
            Ok(best(OutputKind::Unknown).or(hidden).unwrap_or(several[0]))
        }
    }
}

/// What a file's last softmax takes, where it ends with one: logits are that, and the file gives their probabilities. The
/// port keeps type and sizes.
pub(super) fn before_softmax(model: &OnnxModel, output: &Port) -> Option<Port> {
    let mut name = output.name.as_str();
    for _ in 0..IDENTITIES_MAX {
        let node = model.graph.nodes.iter().find(|node| node.outputs.iter().any(|other| other == name))?;
        let last = output.sizes.len().checked_sub(1).and_then(|axis| i64::try_from(axis).ok());
        let of_rows = match node.int("axis") {
            Some(axis) => axis == -1 || Some(axis) == last,
            // Older versions take all axes from the second on as one.
            None => model.opset() >= 13,
        };
        match node.operator().as_ref() {
            "Identity" => name = node.inputs.first()?,
            "Softmax" | "LogSoftmax" if of_rows => {
                let name = node.inputs.first()?.clone();
                return Some(Port { name, ..output.clone() });
            }
            _ => return None,
        }
    }
    None
}

impl Importer<'_> {
    /// What the output `port` is, once the graph is translated.
    pub(super) fn kind_of(&self, port: &Port) -> OutputKind {
        let shape = match self.values.get(port.name.as_str()) {
            Some(ImportValue::Live(live) | ImportValue::Last(live)) => Some(self.builder.ty(live.value).shape()),
            _ => None,
        };
        let width = shape.and_then(|shape| shape.row_width()).or(port.sizes.last().copied().flatten());
        let table = self.token_table.and_then(|table| self.builder.ty(table).shape().sizes());
        let (Some(width), Some(&[rows, hidden])) = (width, table.as_deref()) else { return OutputKind::Unknown };
        // Where both widths are the same, only the name can tell.
        let says_hidden = rows == hidden && by_name(&port.name) == 4;
        // Keys, values and attention have an axis of heads.
        let by_heads = shape.map_or(port.sizes.len() > 3, |shape| shape.rank() > 2);
        match width {
            width if width == rows && !says_hidden => OutputKind::Logits,
            width if width == hidden => OutputKind::Hidden,
            _ if by_heads => OutputKind::Unknown,
            width => OutputKind::Classes(width),
        }
    }

    /// That an output has the width of no vocabulary.
    pub(super) fn no_language_model(&self, port: &Port) -> Option<Diagnostic> {
        let OutputKind::Classes(width) = self.kind_of(port) else { return None };
        let rows = self.token_table.and_then(|table| self.builder.ty(table).shape().sizes())?[0];
        let classes = if width == 1 { "1 number".to_string() } else { format!("{width} classes") };
        let message = format!("{classes}, {rows} tokens: no language model");
        let note = format!("a language model gives a number for each of the {rows} tokens of its vocabulary");
        Some(Diagnostic::new(format!("output {}", port.name), message).note(note))
    }
}
