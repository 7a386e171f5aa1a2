//! Translates an ONNX graph: what depends on the token ids becomes a node, all else is evaluated away.
//!
//! The batch is 1, masks are ones, the past is empty. Everything that does not depend on the token ids is evaluated for
//! several numbers of tokens at once (`COUNTS`, and then the longest sequence that the position table allows): what comes
//! out equal is a constant; a size that equals the number of tokens *is* `tokens`; a table of numbers is what it is
//! measured to be (`known`). Values that depend on the ids are translated node by node (`operators`).
//!
//! A value's shape in the IR is its ONNX shape without leading sizes of 1: `[1,tokens,256]` is `[tokens,256]`. Here both
//! are kept, since ONNX counts axes in its own.

mod control;
mod fused;
pub mod inputs;
mod known;
mod operators;
mod quantised;
mod shapes;
mod tables;

use super::evaluate::{Call, ELEMENTS_MAX, Failure, evaluate, work};
use super::read::{Model, OnnxNode, Port};
use super::tensor::{Array, Elem};
pub use control::CONTROL;
use known::Known;
use quantised::Coded;
use shapes::{fixed, ir_shape};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Perm;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp};
use snnc_ir::types::Dim;
use snnc_ir::{Builder, Diagnostic, Graph, Op, Stage, Tensor, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// Numbers of tokens at which a file is evaluated. Two tell a linear function of the number; neither is a size that a
/// network is likely to have.
pub const COUNTS: [usize; 2] = [5, 7];

/// What the one output of an imported graph is called.
pub const OUTPUT: &str = "logits";

/// The most elements of all arrays that are held at once, where the weights are not half as many.
const HELD_MAX: usize = 4 * ELEMENTS_MAX;

/// The most elements that are evaluated in all: half a minute's work.
const EVALUATED_MAX: usize = 32 * ELEMENTS_MAX;

/// The most complaints that are worth reading.
const ERRORS_MAX: usize = 20;

/// A graph that was imported.
#[derive(Debug)]
pub struct Imported {
    /// At stage Imported.
    pub graph: Graph,
    /// Whether the file rounds activations to codes.
    pub rounds_activations: bool,
}

/// What an operator is taken as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// Evaluated, where it does not depend on the token ids.
    pub constant: bool,
    /// Translated, where it does.
    pub live: bool,
}

/// What the operator of `node` is taken as, whatever its operands.
pub fn support(node: &OnnxNode) -> Support {
    Importer::new(&Model::default(), &COUNTS, 1).support(node)
}

/// The output that the logits are: the one of that name, or the first.
pub fn output_of(model: &Model) -> Option<&Port> {
    let outputs = &model.graph.outputs;
    outputs.iter().find(|port| port.name == OUTPUT).or(outputs.first())
}

/// The graph at stage Imported.
///
/// # Errors
/// All operators that are not supported, and every node that asks for what cannot be had.
pub fn import(model: &Model) -> Result<Imported, Diagnostics> {
    if let Some(n) = inputs::fixed_tokens(&model.graph.inputs) {
        return import_fixed(model, n);
    }
    let first = Importer::new(model, &COUNTS, 1).run()?;
    let context = first.1.ok_or_else(|| {
        Diagnostics::from(
            Diagnostic::new("", "no table of positions was found")
                .note("a GPT-2 gathers rows 0, 1, 2... of a learned table; its rows are the longest context"),
        )
    })?;
    let mut counts = COUNTS.to_vec();
    if context > COUNTS[1] {
        counts.push(context);
    }
    Importer::new(model, &counts, context).run().map(|(imported, _)| imported)
}

/// A file that takes exactly `n` tokens. That is its context: what a causal network says of fewer is a part of that.
fn import_fixed(model: &Model, n: usize) -> Result<Imported, Diagnostics> {
    if n < COUNTS[0] {
        let message = format!("the file takes exactly {n} tokens, fewer than snnc can examine");
        return Err(Diagnostic::new("", message).note("export it with a dynamic sequence length").into());
    }
    Importer::new(model, &[n], n).run().map(|(imported, _)| imported)
}

/// What is known about an ONNX value.
#[derive(Clone, Debug)]
enum Held {
    /// It does not depend on the token ids.
    Known(Known),
    Live(Live),
    /// A boolean that is false everywhere: whether a finite number is NaN.
    Never(Vec<Dim>),
    /// A value in the middle of quantised arithmetic.
    Coded(Box<Coded>),
    /// Several values in a row.
    Sequence(Vec<Held>),
    /// The row of the last token of a value. What is computed of one row is computed of all: logits of the last token are
    /// a part of everybody's.
    Last(Live),
    /// Something is wrong with it and has been said.
    Failed,
}

/// A value of the graph that is being built, with its ONNX shape.
#[derive(Clone, Debug)]
struct Live {
    value: Value,
    dims: Vec<Dim>,
}

/// Why a node is not translated.
enum Trouble {
    Unsupported,
    Wrong(String),
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Trouble::Wrong(message)
    }
}

impl From<&str> for Trouble {
    fn from(message: &str) -> Self {
        Trouble::Wrong(message.to_string())
    }
}

impl From<Diagnostic> for Trouble {
    fn from(diagnostic: Diagnostic) -> Self {
        Trouble::Wrong(diagnostic.message)
    }
}

/// One evaluation and translation of a file.
struct Importer<'m> {
    model: &'m Model,
    counts: Vec<usize>,
    builder: Builder,
    held: HashMap<&'m str, Held>,
    /// How many nodes still want a value.
    wanted: HashMap<&'m str, usize>,
    /// Elements of the arrays that were made and are still held, by value.
    made: HashMap<&'m str, usize>,
    made_now: usize,
    made_ever: usize,
    /// Rows of the smallest table that positions index.
    context: Option<usize>,
    /// The table that token ids index.
    token_table: Option<Value>,
    rounds_activations: bool,
    /// Numbers that have been given out to tell things apart.
    given_out: u32,
    /// Constants that have become weights, by address; the arrays are kept so that addresses stay theirs.
    weights: HashMap<usize, (Arc<Array>, Value)>,
    scalars: HashMap<u32, Value>,
    errors: Diagnostics,
    /// Operators that are not supported, in order of appearance, with the nodes that use them.
    unsupported: Vec<(String, Vec<&'m str>)>,
}

impl<'m> Importer<'m> {
    fn new(model: &'m Model, counts: &[usize], context: usize) -> Self {
        Self {
            model,
            counts: counts.to_vec(),
            builder: Builder::new(Stage::Imported, u32::try_from(context).unwrap_or(u32::MAX)),
            held: HashMap::new(),
            wanted: HashMap::new(),
            made: HashMap::new(),
            made_now: 0,
            made_ever: 0,
            context: None,
            token_table: None,
            rounds_activations: false,
            given_out: 0,
            weights: HashMap::new(),
            scalars: HashMap::new(),
            errors: Diagnostics::new(),
            unsupported: Vec::new(),
        }
    }

    /// The graph of the first output, and the rows of the position table.
    fn run(mut self) -> Result<(Imported, Option<usize>), Diagnostics> {
        let graph = &self.model.graph;
        let Some(output) = output_of(self.model) else {
            return Err(Diagnostic::new("", "the graph has no output").into());
        };
        let live = self.enter(graph, &[&output.name]);
        self.bind(&graph.inputs);
        for node in live {
            self.node(node);
        }
        let logits = self.output(output);
        if !self.errors.is_empty() || !self.unsupported.is_empty() {
            return Err(self.complaints());
        }
        match logits {
            Ok(value) => {
                let graph = self.builder.finish(vec![(OUTPUT.to_string(), value)]);
                Ok((Imported { graph, rounds_activations: self.rounds_activations }, self.context))
            }
            Err(message) => Err(Diagnostic::new(format!("output {}", output.name), message).into()),
        }
    }

    /// What the network's output is. A file that ends before the head gets GPT-2's own: the table of tokens once more.
    fn output(&mut self, output: &Port) -> Result<Value, String> {
        let live = match self.held.get(output.name.as_str()) {
            Some(Held::Live(live) | Held::Last(live)) => live.clone(),
            Some(Held::Failed) => return Err("it could not be translated".into()),
            Some(_) => return Err("it does not depend on the token ids".into()),
            None => return Err("no node makes it".into()),
        };
        let shape = self.builder.ty(live.value).shape();
        let Some(width) = shape.row_width() else {
            let message = format!("the first output should be the logits, [1,tokens,vocabulary]; it is {shape}");
            return Err(message);
        };
        let table = self.token_table.map(|table| (table, self.builder.ty(table).shape()));
        match table.and_then(|(table, shape)| Some((table, shape.sizes()?))) {
            Some((table, sizes)) if sizes[0] != width && sizes[1] == width => {
                let swap = Perm::new(&[1, 0]).ok_or("a matrix can be turned")?;
                let head = self
                    .builder
                    .add(Op::Array(ArrayOp::Transpose(swap)), &[table], &output.name)
                    .map_err(|e| e.message)?;
                self.builder.add(Op::Array(ArrayOp::MatMul), &[live.value, head], &output.name).map_err(|e| e.message)
            }
            _ => Ok(live.value),
        }
    }

    fn complaints(self) -> Diagnostics {
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
            all.push(Diagnostic::new("", format!("and {more} other complaints")));
        }
        all
    }

    fn bind(&mut self, inputs: &'m [Port]) {
        let ids = inputs::ids(inputs);
        for port in inputs {
            if !self.wanted.contains_key(port.name.as_str()) {
                continue;
            }
            let held = if ids.is_some_and(|ids| ids.name == port.name) { self.ids(port) } else { self.fresh(port) };
            let held = held.unwrap_or_else(|message| {
                self.errors.push(Diagnostic::new(format!("input {}", port.name), message));
                Held::Failed
            });
            self.held.insert(&port.name, held);
        }
    }

    fn ids(&mut self, port: &Port) -> Result<Held, String> {
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
        Ok(Held::Live(Live { value, dims }))
    }

    fn fresh(&self, port: &Port) -> Result<Held, String> {
        let arrays = self.counts.iter().map(|&n| inputs::fresh(port, n).map(Arc::new));
        Ok(Held::Known(Known::of(&port.name, arrays.collect::<Result<_, String>>()?)))
    }

    fn node(&mut self, node: &'m OnnxNode) {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            match (name.as_str(), self.held.get(name.as_str())) {
                ("", _) => inputs.push(None),
                (_, Some(Held::Failed)) => {
                    self.probe(node);
                    self.fail(node);
                    return self.release(node);
                }
                (_, Some(held)) => inputs.push(Some(held.clone())),
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
                named.for_each(|(name, held)| self.keep(node, name, held));
            }
            Err(Trouble::Unsupported) => {
                self.refuse(node);
                self.fail(node);
            }
            Err(Trouble::Wrong(message)) => {
                self.errors.push(Diagnostic::new(node.label(), format!("{}: {message}", node.op_type)));
                self.fail(node);
            }
        }
        self.release(node);
    }

    /// Keeps a result that somebody wants, within the limits of what may be made.
    fn keep(&mut self, node: &'m OnnxNode, name: &'m str, held: Held) {
        if !self.wanted.contains_key(name) {
            return;
        }
        if self.held.contains_key(name) {
            self.errors
                .push(Diagnostic::new(node.label(), format!("its output {name} is made by another node as well")));
        }
        let elements = if let Held::Known(known) = &held { known.elements() } else { 0 };
        self.made_now += elements;
        self.made_ever = self.made_ever.saturating_add(elements);
        if self.made_now > HELD_MAX.max(self.model.graph.elements().saturating_mul(2)) || self.made_ever > EVALUATED_MAX
        {
            self.errors.push(Diagnostic::new(node.label(), "the file asks for too much to be evaluated"));
            self.made_now -= elements;
            return drop(self.held.insert(name, Held::Failed));
        }
        self.made_now -= self.made.insert(name, elements).unwrap_or(0);
        self.held.insert(name, held);
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
            constant: is_control || evaluate(node, self.model.opset(), &[]) != Err(Failure::Unknown),
            live: is_control || !matches!(self.live_operator(node, &[]), Err(Trouble::Unsupported)),
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
        node.outputs.iter().for_each(|name| drop(self.held.insert(name, Held::Failed)));
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
            self.held.remove(name);
            self.made_now -= self.made.remove(name).unwrap_or(0);
        }
    }

    /// A number that nothing else has.
    fn unique(&mut self) -> u32 {
        self.given_out += 1;
        self.given_out
    }

    fn translate(&mut self, node: &'m OnnxNode, inputs: &[Option<Held>]) -> Result<Vec<Held>, Trouble> {
        if let Some(Held::Known(x)) = inputs.first().and_then(Option::as_ref)
            && matches!(node.op_type.as_str(), "Identity" | "Dropout")
        {
            return Ok(vec![Held::Known(x.clone())]);
        }
        if let Some(outputs) = self.control(node, inputs)? {
            return Ok(outputs);
        }
        if let Some(rows) = self.embed(node, inputs)? {
            return Ok(vec![rows]);
        }
        match all_known(inputs.iter().map(Option::as_ref)) {
            Some(known) if !self.is_weight_transpose(node, &known) => match self.fold(node, &known) {
                Err(Trouble::Unsupported) => self.live_operator(node, inputs),
                Ok(outputs) => {
                    self.bound_by(node, &known, &outputs)?;
                    Ok(outputs)
                }
                Err(wrong) => Err(wrong),
            },
            _ => self.live_operator(node, inputs),
        }
    }

    fn live_operator(&mut self, node: &OnnxNode, inputs: &[Option<Held>]) -> Result<Vec<Held>, Trouble> {
        if inputs.iter().flatten().any(|held| matches!(held, Held::Last(_))) {
            return self.last_row(node, inputs);
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
    fn last_row(&mut self, node: &OnnxNode, inputs: &[Option<Held>]) -> Result<Vec<Held>, Trouble> {
        let moves = ["Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten"];
        let rows = ["MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "LayerNormalization"];
        let operator = node.operator();
        if moves.contains(&&*operator) {
            return Ok(inputs.first().cloned().flatten().into_iter().collect());
        }
        if !rows.contains(&&*operator) {
            return Err("it takes the last token's row alone".into());
        }
        let whole = |held: &Option<Held>| match held {
            Some(Held::Last(live)) => Ok(Some(Held::Live(live.clone()))),
            Some(Held::Live(live)) if live.dims.contains(&Dim::Tokens) => {
                Err("it mixes the last token's row with all".to_string())
            }
            other => Ok(other.clone()),
        };
        let inputs = inputs.iter().map(whole).collect::<Result<Vec<_>, String>>()?;
        let last = |held: Held| if let Held::Live(live) = held { Held::Last(live) } else { held };
        Ok(self.operator(node, &inputs)?.into_iter().map(last).collect())
    }

    /// The transpose of a matrix of weights stays an operation: later passes rather choose another layout.
    fn is_weight_transpose(&self, node: &OnnxNode, known: &[Option<&Known>]) -> bool {
        let is_matrix = |x: &Array| x.elem() == Elem::F32 && x.rank() == 2 && x.sizes().iter().all(|&n| n > 1);
        node.op_type == "Transpose"
            && known.first().is_some_and(|x| x.and_then(|x| x.single()).is_some_and(|x| is_matrix(x)))
    }

    /// Evaluates a node that does not depend on the token ids.
    fn fold(&mut self, node: &OnnxNode, known: &[Option<&Known>]) -> Result<Vec<Held>, Trouble> {
        let runs = if known.iter().flatten().all(|x| x.single().is_some()) { 1 } else { self.counts.len() };
        let mut outputs: Vec<Vec<Arc<Array>>> = vec![Vec::new(); node.outputs.len()];
        for k in 0..runs {
            let inputs: Vec<Option<&Array>> = known.iter().map(|x| x.map(|x| x.at(k))).collect();
            self.made_ever = self.made_ever.saturating_add(work(node, &inputs));
            if self.made_ever > EVALUATED_MAX {
                return Err("the file asks for too much to be evaluated".into());
            }
            let arrays = evaluate(node, self.model.opset(), &inputs).map_err(|failure| match failure {
                Failure::Unknown => Trouble::Unsupported,
                Failure::Wrong(message) => Trouble::Wrong(message),
            })?;
            outputs.iter_mut().zip(arrays).for_each(|(output, array)| output.push(Arc::new(array)));
        }
        let held = |(name, arrays): (&String, Vec<Arc<Array>>)| match arrays.is_empty() {
            true => Held::Failed,
            false => Held::Known(Known::of(name, arrays)),
        };
        Ok(node.outputs.iter().zip(outputs).map(held).collect())
    }

    /// The first output of a node that is not in the file, on constants.
    fn evaluated(&mut self, node: &OnnxNode, inputs: &[Option<&Held>]) -> Result<Known, Trouble> {
        let known = all_known(inputs.iter().copied()).ok_or(Trouble::Unsupported)?;
        match self.fold(node, &known)?.into_iter().next() {
            Some(Held::Known(known)) => Ok(known),
            _ => Err(Trouble::Unsupported),
        }
    }

    /// Rows of a constant table by constant indices.
    fn gathered(&mut self, node: &OnnxNode, table: &Known, indices: &Held) -> Result<Held, Trouble> {
        let gather = OnnxNode { op_type: "Gather".into(), outputs: node.outputs.clone(), ..OnnxNode::default() };
        self.evaluated(&gather, &[Some(&Held::Known(table.clone())), Some(indices)]).map(Held::Known)
    }

    /// A value with its ONNX shape, which must be its own but for leading ones.
    fn live(&self, value: Value, dims: Vec<Dim>) -> Result<Live, String> {
        let (found, expected) = (self.builder.ty(value).shape(), ir_shape(&dims)?);
        if found == expected {
            Ok(Live { value, dims })
        } else {
            Err(format!("{found} came out where {expected} should"))
        }
    }

    /// A value as an operand of the graph: what is known becomes a weight, a number, a mask or an embedding.
    fn operand(&mut self, held: &Held, node: &OnnxNode) -> Result<Live, Trouble> {
        let known = match held {
            Held::Live(live) => return Ok(live.clone()),
            Held::Known(known) => known,
            _ => return Err(Trouble::Unsupported),
        };
        let dims = known.dims(&self.counts)?;
        if let Some(number) = known.uniform() {
            return Ok(Live { value: self.scalar(number), dims });
        }
        if let Some((keep, drop)) = known.causal(&self.counts) {
            let value = self.builder.add(known::causal_op(keep, drop), &[], node.label())?;
            let lead = dims.len() - 2;
            return Ok(self.live(value, [&dims[..lead], &[Dim::Tokens; 2]].concat())?);
        }
        if let Some(array) = known.single() {
            return Ok(Live { value: self.weight(known.name(), array)?, dims });
        }
        if let Some(table) = known.table_of_positions(&self.counts) {
            let positions = self.builder.add(Op::Leaf(LeafOp::Positions), &[], node.label())?;
            let table = self.weight(known.name(), &Arc::new(table))?;
            let value = self.builder.add(Op::Dense(DenseOp::Embed), &[positions, table], node.label())?;
            return Ok(self.live(value, dims)?);
        }
        Err(format!(
            "its operand {} depends on the number of tokens, but is neither a causal mask nor a table of positions: \
             GPT-2 has no window and no bias by distance",
            known.name()
        )
        .into())
    }

    /// One number, shared by all that use it.
    fn scalar(&mut self, number: f32) -> Value {
        // A mask's minus infinity: a softmax gives exactly 0 for the lowest finite number as well, and that one can be
        // computed with.
        let number = if number == f32::NEG_INFINITY { f32::MIN } else { number };
        let builder = &mut self.builder;
        let make = || builder.weight(&format!("number {number:?}"), Arc::new(Tensor::f32(&[], vec![number])));
        *self.scalars.entry(number.to_bits()).or_insert_with(make)
    }

    fn weight(&mut self, name: &str, array: &Arc<Array>) -> Result<Value, String> {
        let address = Arc::as_ptr(array) as usize;
        if let Some((_, value)) = self.weights.get(&address) {
            return Ok(*value);
        }
        let lead = array.sizes().iter().take_while(|&&n| n == 1).count();
        let sizes = array.sizes()[lead..].to_vec();
        let dims = sizes.iter().map(|&n| fixed(n)).collect::<Result<Vec<Dim>, String>>()?;
        ir_shape(&dims)?;
        let value = self.builder.weight(name, Arc::new(Tensor::new(sizes, known::f32_data(array)?)));
        self.weights.insert(address, (array.clone(), value));
        Ok(value)
    }

    /// What `f` says of a node at every number of tokens; inputs that are not known are missing there.
    fn at_each<T>(
        &self,
        node: &OnnxNode,
        inputs: &[Option<Held>],
        f: impl Fn(&Call, usize) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let at = |k: usize| {
            let mut arrays = Vec::with_capacity(inputs.len());
            for held in inputs {
                arrays.push(match held {
                    Some(Held::Known(known)) => Some(known.at(k)),
                    Some(_) | None => None,
                });
            }
            f(&Call { node, opset: self.model.opset(), inputs: &arrays }, k)
        };
        (0..self.counts.len()).map(at).collect()
    }

    /// `dims` at the `k`-th number of tokens.
    fn sizes(&self, dims: &[Dim], k: usize) -> Vec<usize> {
        dims.iter().map(|dim| dim.size(self.counts[k], 0)).collect()
    }
}

/// Operands that are all constants, or left out.
fn all_known<'h>(inputs: impl Iterator<Item = Option<&'h Held>>) -> Option<Vec<Option<&'h Known>>> {
    let known = |held: Option<&'h Held>| match held {
        None => Some(None),
        Some(Held::Known(known)) => Some(Some(known)),
        Some(_) => None,
    };
    inputs.map(known).collect()
}

#[cfg(test)]
mod tests;
