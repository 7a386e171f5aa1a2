//! Translates an ONNX graph: what depends on the token ids becomes a node, all else is evaluated away.
//!
//! The batch is 1, masks are ones, the past is empty. Everything that does not depend on the token ids is evaluated for
//! several numbers of tokens at once (`COUNTS`, and then the longest sequence that the position table allows): what comes
//! out equal is a constant; a size that equals the number of tokens *is* `tokens`; a table of numbers is what it is
//! measured to be (`known`). Values that depend on the ids are translated node by node (`operators`).
//!
//! A value's shape in the IR is its ONNX shape without leading sizes of 1: `[1,tokens,256]` is `[tokens,256]`. Here both
//! are kept, since ONNX counts axes in its own.

mod attention;
mod constants;
mod context;
mod control;
mod fused;
mod heads;
mod importer;
pub mod inputs;
mod merged;
mod moves;
mod operators;
mod output;
mod quantised;
mod reduce;
mod shapes;
mod tables;
mod value;

use crate::evaluate::call::EvaluateError;
use crate::evaluate::evaluate;
use crate::model::{OnnxModel, OnnxNode, Port};
use crate::tensor::{OnnxArray, OnnxElem};
use constants::Constant;
use context::Bound;
pub use context::ImportOptions;
pub use control::CONTROL;
pub use importer::COUNTS;
use importer::{EVALUATED_MAX, HELD_MAX, Importer, all_constants};
use inputs::InputBindings;
use output::OutputKind;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Perm;
use snnc_ir::op::{ArrayOp, LeafOp};
use snnc_ir::types::Dim;
use snnc_ir::verify::CONTEXT_MAX;
use snnc_ir::{Diagnostic, Graph, Op, Value};
use std::sync::Arc;
use value::{ImportError, ImportValue, LiveValue};

/// What the one output of an imported graph is called.
pub const OUTPUT: &str = "logits";

/// The most diagnostics that are worth reading.
const ERRORS_MAX: usize = 20;

/// A graph that was imported.
#[derive(Debug)]
pub struct Imported {
    /// At stage Imported.
    pub graph: Graph,
    /// Whether the file rounds activations to codes.
    pub rounds_activations: bool,
    /// The file's output that the graph computes.
    pub output: String,
    /// Whether that output is a hidden state, on which the table of tokens was put as a head.
    pub head_added: bool,
    /// The file's output of probabilities, where the logits are what its softmax takes.
    pub probabilities: Option<String>,
    /// What the file has that snnc does not take, in words: why it may not be recognised.
    pub traits: Vec<String>,
    /// Where the context comes from, where the file does not say it.
    pub context_note: Option<String>,
}

/// A file that is not imported.
#[derive(Debug)]
pub struct Refused {
    /// What is in the way, node by node.
    pub diagnostics: Diagnostics,
    /// What the file has that snnc does not take, in words.
    pub traits: Vec<String>,
}

impl<D: Into<Diagnostics>> From<D> for Refused {
    fn from(diagnostics: D) -> Self {
        Self { diagnostics: diagnostics.into(), traits: Vec::new() }
    }
}

/// What an operator is taken as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Evaluated, where it does not depend on the token ids.
    pub constant: bool,
    /// Result<LiveValue, ImportError>, where it does.
    pub live: bool,
}

/// What the operator of `node` is taken as, whatever its operands.
pub fn support(node: &OnnxNode) -> Support {
    Importer::new(&OnnxModel::default(), &COUNTS, 1, &InputBindings::default()).support(node)
}

/// The graph at stage Imported; `options` say what inputs hold that snnc does not know, and how long a sequence may be.
///
/// # Errors
/// All operators that are not supported, and every node that asks for what cannot be had.
pub fn import(model: &OnnxModel, options: &ImportOptions) -> Result<Imported, Refused> {
    let bindings = &options.bindings;
    bindings.check(&model.graph.inputs)?;
    if let Some(n) = inputs::fixed_tokens(&model.graph.inputs) {
        return import_fixed(model, n, options);
    }
    let chosen = output::choose(model, &COUNTS, bindings)?;
    let logits = output::before_softmax(model, chosen);
    let output = logits.as_ref().unwrap_or(chosen);
    let first = Importer::new(model, &COUNTS, 1, bindings).run(output)?;
    let (context, context_note) =
        context::choose(Bound { rows: first.1, learned: context::are_learned(&first.0.graph) }, options)?;
    let mut counts = COUNTS.to_vec();
    if context > COUNTS[1] {
        counts.push(context);
    }
    let probabilities = logits.as_ref().map(|_| chosen.name.clone());
    let (imported, _) = Importer::new(model, &counts, context, bindings).run(output)?;
    Ok(Imported { probabilities, context_note, ..imported })
}

/// A file that takes exactly `n` tokens. That is its context: what a causal network says of fewer is a part of that.
fn import_fixed(model: &OnnxModel, n: usize, options: &ImportOptions) -> Result<Imported, Refused> {
    if n < COUNTS[0] {
        let message = format!("the file takes exactly {n} tokens, fewer than snnc can examine");
        return Err(Diagnostic::new("", message).note("export it with a dynamic sequence length").into());
    }
    if n > CONTEXT_MAX as usize {
        let message = format!("the file takes exactly {n} tokens; a context of {CONTEXT_MAX} is the longest possible");
        return Err(Diagnostic::new("", message).into());
    }
    context::check(Some(n), options.context)?;
    let bindings = &options.bindings;
    let chosen = output::choose(model, &[n], bindings)?;
    let logits = output::before_softmax(model, chosen);
    let probabilities = logits.as_ref().map(|_| chosen.name.clone());
    let (imported, _) = Importer::new(model, &[n], n, bindings).run(logits.as_ref().unwrap_or(chosen))?;
    Ok(Imported { probabilities, ..imported })
}

impl<'m> Importer<'m> {
    /// The graph of an output, and the rows of the position table.
    fn run(mut self, output: &'m Port) -> Result<(Imported, Option<usize>), Refused> {
        self.translate_all(&[&output.name]);
        if let Some(classes) = self.no_language_model(output) {
            return Err(classes.into());
        }
        let logits = self.output(output);
        if !self.errors.is_empty() || !self.unsupported.is_empty() {
            let traits = std::mem::take(&mut self.traits);
            return Err(Refused { diagnostics: self.diagnostics(), traits });
        }
        let (value, head_added) =
            logits.map_err(|message| Diagnostic::new(format!("output {}", output.name), message))?;
        let graph = self.builder.finish(vec![(OUTPUT.to_string(), value)]);
        let rounds_activations = self.rounds_activations;
        let (output, traits) = (output.name.clone(), self.traits);
        let imported =
            Imported { graph, rounds_activations, output, probabilities: None, head_added, traits, context_note: None };
        Ok((imported, self.context))
    }

    /// Translates all nodes that `outputs` need.
    fn translate_all(&mut self, outputs: &[&'m str]) {
        let graph = &self.model.graph;
        let live = self.enter(graph, outputs);
        self.bind(&graph.inputs);
        for node in live {
            self.node(node);
        }
    }

    /// What the network's output is, and whether a head was put on it: a file that ends before the head gets GPT-2's own,
    /// the table of tokens once more.
    fn output(&mut self, output: &Port) -> Result<(Value, bool), String> {
        let live = match self.values.get(output.name.as_str()) {
            Some(ImportValue::Live(live) | ImportValue::Last(live)) => live.clone(),
            Some(ImportValue::Failed) => return Err("it could not be translated".into()),
            Some(_) => return Err("it does not depend on the token ids".into()),
            None => return Err("no node makes it".into()),
        };
        let shape = self.builder.ty(live.value).shape();
        if shape.row_width().is_none() {
            return Err(format!("it should be the logits, [1,tokens,vocabulary]; it is {shape}"));
        }
        match self.token_table.filter(|_| self.kind_of(output) == OutputKind::Hidden) {
            Some(table) => {
                let swap = Perm::new(&[1, 0]).ok_or("a matrix can be turned")?;
                let builder = &mut self.builder;
                let head = builder.add(Op::Array(ArrayOp::Transpose(swap)), &[table], &output.name);
                let head = head.map_err(|e| e.message)?;
                let logits = builder.add(Op::Array(ArrayOp::MatMul), &[live.value, head], &output.name);
                logits.map(|logits| (logits, true)).map_err(|e| e.message)
            }
            None => Ok((live.value, false)),
        }
    }

    fn diagnostics(self) -> Diagnostics {
        let all = self.unsupported.into_iter().map(|(operator, nodes)| {
            let diagnostic = Diagnostic::new(nodes[0], format!("the operator {operator} is not supported here"));
            match nodes.len() {
                1 => diagnostic,
                n => diagnostic.note(format!("and at {} other nodes", n - 1)),
            }
        });
        let mut all: Diagnostics = all.chain(self.errors).collect();
        if all.len() > ERRORS_MAX {
            let more = all.len() - ERRORS_MAX;
            all.truncate(ERRORS_MAX);
            all.push(Diagnostic::new("", format!("and {more} other diagnostics")));
        }
        all
    }

    fn bind(&mut self, inputs: &'m [Port]) {
        let ids = inputs::ids(inputs);
        for port in inputs {
            if !self.wanted.contains_key(port.name.as_str()) {
                continue;
            }
            let value = if ids.is_some_and(|ids| ids.name == port.name) { self.ids(port) } else { self.fresh(port) };
            let value = value.unwrap_or_else(|message| {
                self.errors.push(Diagnostic::new(format!("input {}", port.name), message));
                ImportValue::Failed
            });
            self.values.insert(&port.name, value);
        }
    }

    fn ids(&mut self, port: &Port) -> Result<ImportValue, String> {
        let mut dims = vec![Dim::Fixed(1); port.sizes.len().max(1) - 1];
        if port.sizes.is_empty() {
            dims.push(Dim::Fixed(1));
        }
        dims.push(Dim::Tokens);
        let lead = &port.sizes[..port.sizes.len().saturating_sub(1)];
        if let Some(batch) = lead.iter().flatten().find(|&&size| size != 1) {
            return Err(format!("the file takes a batch of exactly {batch}; export it with a dynamic batch size"));
        }
        let value = self.builder.add(Op::Leaf(LeafOp::Tokens), &[], &port.name).map_err(|e| e.message)?;
        Ok(ImportValue::Live(LiveValue { value, dims }))
    }

    fn fresh(&self, port: &Port) -> Result<ImportValue, String> {
        let arrays = self.counts.iter().map(|&n| inputs::fresh(port, n, &self.bindings).map(Arc::new));
        Ok(ImportValue::Constant(Constant::of(&port.name, arrays.collect::<Result<_, String>>()?)))
    }

    fn node(&mut self, node: &'m OnnxNode) {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            match (name.as_str(), self.values.get(name.as_str())) {
                ("", _) => inputs.push(None),
                (_, Some(ImportValue::Failed)) => {
                    self.probe(node);
                    self.fail(node);
                    return self.release(node);
                }
                (_, Some(value)) => inputs.push(Some(value.clone())),
                (name, None) => {
                    let message = format!("its input {name} is made by no node before it");
                    self.errors.push(Diagnostic::new(node.label(), message));
                    return self.fail(node);
                }
            }
        }
        match self.translate(node, &inputs) {
            Ok(outputs) => {
                let named = node.outputs.iter().zip(outputs).filter(|(name, _)| !name.is_empty());
                named.for_each(|(name, value)| self.keep(node, name, value));
            }
            Err(ImportError::Unsupported) => {
                self.refuse(node);
                self.fail(node);
            }
            Err(ImportError::Invalid(message)) => {
                self.errors.push(Diagnostic::new(node.label(), format!("{}: {message}", node.op_type)));
                self.fail(node);
            }
        }
        self.release(node);
    }

    /// Keeps a result that somebody wants, within the limits of what may be made.
    fn keep(&mut self, node: &'m OnnxNode, name: &'m str, value: ImportValue) {
        if !self.wanted.contains_key(name) {
            return;
        }
        if self.values.contains_key(name) {
            self.errors
                .push(Diagnostic::new(node.label(), format!("its output {name} is made by another node as well")));
        }
        let elements = if let ImportValue::Constant(constant) = &value { constant.elements() } else { 0 };
        self.made_now += elements;
        self.made_ever = self.made_ever.saturating_add(elements);
        if self.made_now > HELD_MAX.max(self.model.graph.elements().saturating_mul(2)) || self.made_ever > EVALUATED_MAX
        {
            self.errors.push(Diagnostic::new(node.label(), "the file asks for too much to be evaluated"));
            self.made_now -= elements;
            return drop(self.values.insert(name, ImportValue::Failed));
        }
        self.made_now -= self.made.insert(name, elements).unwrap_or(0);
        self.values.insert(name, value);
    }

    /// Without operands, a node can still be asked whether its operator is known: all that are not are said at once.
    fn probe(&mut self, node: &'m OnnxNode) {
        let support = self.support(node);
        if !support.constant && !support.live {
            self.refuse(node);
        }
    }

    fn support(&mut self, node: &OnnxNode) -> Support {
        let is_control = CONTROL.contains(&&*node.operator());
        Support {
            constant: is_control || evaluate(node, self.model.opset(), &[]) != Err(EvaluateError::Unknown),
            live: is_control || !matches!(self.live_operator(node, &[]), Err(ImportError::Unsupported)),
        }
    }

    fn refuse(&mut self, node: &'m OnnxNode) {
        let operator = node.operator();
        match self.unsupported.iter_mut().find(|(name, _)| *name == operator) {
            Some((_, nodes)) => nodes.push(node.label()),
            None => self.unsupported.push((operator.into_owned(), vec![node.label()])),
        }
    }

    fn fail(&mut self, node: &'m OnnxNode) {
        node.outputs.iter().for_each(|name| drop(self.values.insert(name, ImportValue::Failed)));
    }

    /// Forgets the operands that no other node wants: masks of a long context are large.
    fn release(&mut self, node: &'m OnnxNode) {
        for name in node.needs() {
            self.let_go(name);
        }
    }

    fn let_go(&mut self, name: &'m str) {
        let Some(left) = self.wanted.get_mut(name) else { return };
        *left -= 1;
        if *left == 0 {
            self.wanted.remove(name);
            self.values.remove(name);
            self.made_now -= self.made.remove(name).unwrap_or(0);
        }
    }

    fn translate(
        &mut self,
        node: &'m OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        if let Some(ImportValue::Constant(x)) = inputs.first().and_then(Option::as_ref)
            && matches!(node.op_type.as_str(), "Identity" | "Dropout")
        {
            return Ok(vec![ImportValue::Constant(x.clone())]);
        }
        if let Some(outputs) = self.control(node, inputs)? {
            return Ok(outputs);
        }
        if let Some(rows) = self.embed(node, inputs)? {
            return Ok(vec![rows]);
        }
        match all_constants(inputs.iter().map(Option::as_ref)) {
            Some(constant) if !self.is_weight_transpose(node, &constant) => match self.fold(node, &constant) {
                Err(ImportError::Unsupported) => self.live_operator(node, inputs),
                Ok(outputs) => {
                    self.bound_by(node, &constant, &outputs)?;
                    Ok(outputs)
                }
                Err(wrong) => Err(wrong),
            },
            _ => self.live_operator(node, inputs),
        }
    }

    fn live_operator(
        &mut self,
        node: &OnnxNode,
        inputs: &[Option<ImportValue>],
    ) -> Result<Vec<ImportValue>, ImportError> {
        if inputs.iter().flatten().any(|value| matches!(value, ImportValue::Last(_))) {
            return self.last_row(node, inputs);
        }
        if inputs.iter().flatten().any(|value| matches!(value, ImportValue::Merged(_))) {
            return self.on_merged_axes(node, inputs);
        }
        if inputs.is_empty() && operators::BY_OPERANDS.contains(&&*node.operator()) {
            return Err("its inputs are missing".into());
        }
        match self.quantised(node, inputs)? {
            Some(outputs) => Ok(outputs),
            None => self.operator(node, inputs),
        }
    }

    /// An operator on the last token's row, if it does to that row what it does to every row.
    fn last_row(&mut self, node: &OnnxNode, inputs: &[Option<ImportValue>]) -> Result<Vec<ImportValue>, ImportError> {
        let moves = ["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];
        let rows = [
            "MatMul",
            "Gemm",
            "Add",
            "Sub",
            "Mul",
            "Div",
            "LayerNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
        ];
        let operator = node.operator();
        let turned = operator == "Transpose"
            && node.ints("perm").is_some_and(|perm| perm.last() == Some(&(perm.len() as i64 - 1)));
        if moves.contains(&&*operator) || turned {
            return Ok(inputs.first().cloned().flatten().into_iter().collect());
        }
        if !rows.contains(&&*operator) {
            return Err("it takes the last token's row alone".into());
        }
        let whole = |value: &Option<ImportValue>| match value {
            Some(ImportValue::Last(live)) => Ok(Some(ImportValue::Live(live.clone()))),
            Some(ImportValue::Live(live)) if live.dims.contains(&Dim::Tokens) => {
                Err("it mixes the last token's row with all".to_string())
            }
            other => Ok(other.clone()),
        };
        let inputs = inputs.iter().map(whole).collect::<Result<Vec<_>, String>>()?;
        let last =
            |value: ImportValue| if let ImportValue::Live(live) = value { ImportValue::Last(live) } else { value };
        Ok(self.operator(node, &inputs)?.into_iter().map(last).collect())
    }

    /// The transpose of a matrix of weights stays an operation: later passes rather choose another layout.
    fn is_weight_transpose(&self, node: &OnnxNode, constant: &[Option<&Constant>]) -> bool {
        let is_matrix = |x: &OnnxArray| x.elem() == OnnxElem::F32 && x.rank() == 2 && x.sizes().iter().all(|&n| n > 1);
        node.op_type == "Transpose"
            && constant.first().is_some_and(|x| x.and_then(|x| x.single()).is_some_and(|x| is_matrix(x)))
    }
}

#[cfg(test)]
mod tests;
