//! What every program promises, and the check that it does. Engines rely on it and check none of it again.
//!
//! 1. The context is 1 to 2^20 tokens. There is an output; outputs are values of the graph with names of their own. There is at most
//!    one stream.
//! 2. Every constant is one node, has a name of its own, at most five sizes, and the type of its tensor.
//! 3. Operands come before their users. A node's type is what `infer` says.
//! 4. Every node leads to an output, so that nothing is run in vain.
//! 5. Sizes are at least 1, and a value has fewer than 2^31 numbers per token, those of all timesteps together. Sums that are
//!    kept of a sequence are at most 2^27, those of all nodes together.
//! 6. Every operation is legal in the graph's stage.
//! 7. After import and before training, an addition's operands have one shape, `[tokens,width]`; a product's or a quotient's second operand has
//!    one number per token. Nothing else broadcasts.
//! 8. After import and before training, parameters (weights, gains, offsets, tables, slopes) are constants.
//! 9. Outputs are computed tensors: no train leaves the program. (That a current is only ever decoded follows from 3: no
//!    other operation takes one.)
//! 10. Attributes are numbers, finite ones where they scale. Quantised and spiking constants are finite, slopes and sinks of
//!     attention are not negative, half-lives are 0 or powers of two, i8 weights lie within -127 and 127, and parameters of
//!     time-stepped neurons within their ranges.
//! 11. A table that positions look up has a row for every token of the context; channels that are picked are channels.
//! 12. No sum overflows, whatever the levels. Partial sums are sums over fewer terms or over the leading bits of the
//!     levels, so the bounds hold at every timestep too:
//!     - a product or synapse is i32: `max over outputs of sum over inputs of |weight| * levels <= 2^31 - 1`;
//!     - a difference of attention scores is i64: `2 * head width * levels of q * levels of k <= 2^63 - 1`;
//!     - attention's weighted values are i64: `2^11 * levels of v * context <= 2^63 - 1`; by coincidence, with a score of at
//!       most features times timesteps, perhaps squared and then i32, `score * 2^15 * levels of v * context <= 2^63 - 1`;
//!     - so is what linear attention reads from its sums: `features * levels of q * levels of k * levels of v * 2^guard *
//!       tokens <= 2^63 - 1`, where tokens are the context or twice the half-life, whichever is less. Its sums are
//!       kept in i32 where `levels of k * levels of v * 2^guard * tokens <= 2^31 - 1` (`narrow_sums`), else in i64.
//!
//!     Where an attention by time to first spike keeps both below 2^31 as well (`narrow_attention`), engines may sum it in
//!     i32.
//! 13. Features of attention are never negative: the neurons that emit them are rectified, with gains and offsets behind the
//!     rectifier that are not negative. Those of coincidences fire in their first timesteps (`fire`, `quant`), so that levels
//!     say when they spike; only `lif` takes others.
//! 14. After import and before training, an output called `logits` has a number per token of the vocabulary: it is f32 rows,
//!     as wide as every table that token ids look up is long.

use crate::bounds::{SumBounds, attention_sums, largest_sum, node_constant};
use crate::curve::Curve;
use crate::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use crate::graph::{Graph, Node};
use crate::op::{ArrayOp, Binary, DenseOp, LeafOp, LevelOp, Op, SpikeOp};
use crate::ssa::{Ssa, StateType};
use crate::stage::Stage;
use crate::state::neuron_of;
use crate::text::name::NAME_MAX;
use crate::text::print::{label_of, labels};
use crate::types::{Dim, Elem, Shape, Type};
use crate::value::Value;
use std::cell::OnceCell;
use std::collections::HashSet;

/// The output that predicts the next token, wherever a program has one.
pub const LOGITS: &str = "logits";
/// Most tokens of a sequence. Engines reserve memory by it.
pub const CONTEXT_MAX: u32 = 1 << 20;
/// Complaints that are worth reading.
const ERRORS_MAX: usize = 50;
/// Most sums that are kept of a sequence: 1 GiB, and as much to go back to.
const SUMS_MAX: u128 = 1 << 27;

/// Adds what breaks a promise to the list.
type Check = fn(&Graph, &mut Findings<'_>);

/// A promise by its number above, and the check of a part of it.
type Promise = (u16, Check);

/// Promises that look at nothing but what they check.
const OF_SHAPE: &[Promise] =
    &[(1, context), (1, outputs), (1, streams), (2, constants), (3, operands_and_types), (5, sizes)];

/// Promises that need those above to hold.
const OF_MEANING: &[Promise] = &[
    (4, liveness),
    (6, legality),
    (7, additions),
    (7, thresholds),
    (8, parameters),
    (9, departures),
    (14, logits),
    (10, attributes),
    (10, numbers),
    (10, ranges),
    (11, tables),
    (11, picks),
    (12, sums),
    (13, features),
];

/// The numbers of all promises, in order.
pub fn promises() -> impl Iterator<Item = u16> {
    1..=14
}

/// Whether `graph` keeps the promises above.
///
/// # Errors
/// Every promise that it breaks, up to fifty, at the value that breaks it. The code of promise `n` is `E0400 + n`.
///
/// ```
/// use snnc_ir::{Builder,  LeafOp, Op, Stage, verify::verify};
///
/// let mut b = Builder::new(Stage::Tensor, 8);
/// let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "")?;
/// let graph = b.finish(vec![("ids".into(), tokens)]);
/// assert!(verify(&graph).is_ok());
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
pub fn verify(graph: &Graph) -> Result<(), Diagnostics> {
    let mut found = Findings::new(graph);
    for promises in [OF_SHAPE, OF_MEANING] {
        for (number, check) in promises {
            check(graph, &mut found);
            found.errors = found.errors.or_code(ErrorCode::promise(*number));
        }
        if !found.is_empty() {
            return Err(found.errors);
        }
    }
    Ok(())
}

/// What was found so far, at most `ERRORS_MAX`. Names of values are made once, and only if something is wrong: there may be as
/// many errors as nodes.
struct Findings<'g> {
    graph: &'g Graph,
    labels: OnceCell<Vec<String>>,
    errors: Diagnostics,
}

impl<'g> Findings<'g> {
    fn new(graph: &'g Graph) -> Self {
        Self { graph, labels: OnceCell::new(), errors: Diagnostics::new() }
    }

    fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    fn push(&mut self, error: Diagnostic) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(error);
        }
    }

    /// How the text names a value.
    fn label(&self, value: Value) -> &str {
        label_of(self.labels.get_or_init(|| labels(self.graph)), value)
    }

    /// An error at a value: how the text names it, and where it comes from.
    fn at(&mut self, value: Value, message: impl Into<String>, notes: &[&str]) {
        if self.errors.len() >= ERRORS_MAX {
            return;
        }
        let label = self.label(value);
        let place = match self.graph.origin(value).name.as_str() {
            "" => label.to_string(),
            origin => format!("{label} ({origin})"),
        };
        let error = Diagnostic::new(place, message);
        self.errors.push(notes.iter().fold(error, |error, note| error.note(*note)));
    }
}

fn context(graph: &Graph, errors: &mut Findings<'_>) {
    if !(1..=CONTEXT_MAX).contains(&graph.context) {
        let found = graph.context;
        errors.push(Diagnostic::new("", format!("a context of {found} tokens; 1 to {CONTEXT_MAX} are possible")));
    }
}

fn outputs(graph: &Graph, errors: &mut Findings<'_>) {
    if graph.outputs.is_empty() {
        errors.push(Diagnostic::new("", "the program has no output"));
    }
    let mut seen = HashSet::new();
    for (name, value) in &graph.outputs {
        let place = format!("output {name}");
        if let Some(message) = bad_name(name) {
            errors.push(Diagnostic::new("outputs", message));
        } else if !seen.insert(name) {
            errors.push(Diagnostic::new(place, "there are two outputs of this name"));
        } else if value.index() >= graph.nodes.len() {
            errors.push(Diagnostic::new(place, format!("there is no node {}", value.0)));
        }
    }
}

fn streams(graph: &Graph, errors: &mut Findings<'_>) {
    let streams = graph.iter().filter(|(_, node)| matches!(node.op, Op::Leaf(LeafOp::Stream(_))));
    for (value, _) in streams.skip(1) {
        errors.at(value, "there is a second stream", &["a program begins where one other program ended"]);
    }
}

fn bad_name(name: &str) -> Option<String> {
    let bad = name.is_empty() || name.len() > NAME_MAX;
    bad.then(|| format!("a name of {} bytes; 1 to {NAME_MAX} are possible", name.len()))
}

fn constants(graph: &Graph, errors: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for weight in &graph.weights {
        let sizes = weight.tensor.sizes();
        if let Some(message) = bad_name(&weight.name) {
            errors.push(Diagnostic::new("weights", message));
        } else if !seen.insert(&weight.name) {
            errors.push(Diagnostic::new(format!("@{}", weight.name), "there are two weights of this name"));
        } else if sizes.len() > Shape::MAX_RANK || sizes.iter().any(|&size| u32::try_from(size).is_err()) {
            errors.push(Diagnostic::new(format!("@{}", weight.name), format!("sizes {sizes:?} are beyond shapes")));
        }
    }
    let mut uses = vec![0; graph.weights.len()];
    for (value, node) in graph.iter() {
        let Op::Leaf(LeafOp::Weight(id)) = node.op else { continue };
        match uses.get_mut(id.0 as usize) {
            Some(uses) => *uses += 1,
            None => errors.at(value, format!("there is no weight {}", id.0), &[]),
        }
    }
    for (weight, _) in graph.weights.iter().zip(uses).filter(|(_, uses)| *uses != 1) {
        errors.push(Diagnostic::new(format!("@{}", weight.name), "a constant should be one node"));
    }
}

fn operands_and_types(graph: &Graph, errors: &mut Findings<'_>) {
    if !errors.is_empty() {
        return;
    }
    for (value, node) in graph.iter() {
        if let Err(message) = well_typed(graph, value, node, errors) {
            errors.at(value, message, &[]);
        }
    }
}

fn well_typed(graph: &Graph, value: Value, node: &Node, errors: &Findings<'_>) -> Result<(), String> {
    if graph.origins.get_index(node.origin as usize).is_none_or(|origin| origin.name.len() > NAME_MAX) {
        return Err(format!("its origin is missing or longer than {NAME_MAX} bytes"));
    }
    if let Some(late) = node.args.iter().find(|arg| **arg >= value) {
        return Err(format!("its operand {} does not come before it", errors.label(*late)));
    }
    let inferred = match node.op {
        Op::Leaf(LeafOp::Weight(id)) if node.args.is_empty() => {
            let tensor = &graph.weight(id).tensor;
            Type::tensor(tensor.elem(), Shape::fixed(tensor.sizes()))
        }
        op => {
            let types: Vec<Type> = node.args.iter().map(|&arg| graph.ty(arg)).collect();
            op.infer(&types).map_err(|message| format!("`{op}` does not fit its operands: {message}"))?
        }
    };
    if inferred == node.ty { Ok(()) } else { Err(format!("`{}` gives {inferred} here, not {}", node.op, node.ty)) }
}

fn liveness(graph: &Graph, errors: &mut Findings<'_>) {
    let mut live = vec![false; graph.nodes.len()];
    graph.outputs.iter().for_each(|(_, value)| live[value.index()] = true);
    for (value, node) in graph.iter().rev().collect::<Vec<_>>() {
        if live[value.index()] {
            node.args.iter().for_each(|arg| live[arg.index()] = true);
        } else {
            errors.at(value, "no output needs this value", &["a pass should drop it"]);
        }
    }
}

fn sizes(graph: &Graph, errors: &mut Findings<'_>) {
    let mut kept = 0u128;
    for (value, node) in graph.iter() {
        let steps = match node.ty {
            Type::Train { steps, .. } => u128::from(steps),
            Type::Tensor { .. } => 1,
        };
        let shape = node.ty.shape();
        let numbers = shape.dims().iter().try_fold(steps, |product, dim| match dim {
            Dim::Fixed(n) => product.checked_mul(u128::from(*n)),
            Dim::Tokens | Dim::Context => Some(product),
        });
        if !numbers.is_some_and(|numbers| (1..=i32::MAX as u128).contains(&numbers)) {
            errors.at(value, format!("{}: 1 to 2^31 - 1 numbers are possible", node.ty), &[]);
        }
        if let Op::Level(LevelOp::Ssa { variant: Ssa::Linear { .. }, .. }) = node.op
            && let Some(state @ StateType::Sums { heads, features, width, .. }) = graph.state(value)
        {
            let sums = (heads as u128).saturating_mul(features as u128).saturating_mul(width as u128 + 1);
            kept = kept.saturating_add(sums);
            if kept > SUMS_MAX {
                let what = if sums > SUMS_MAX { "" } else { ", with those of attention before it" };
                errors.at(value, format!("it keeps {state}{what}: 2^27 numbers are possible"), &[]);
            }
        }
    }
}

fn legality(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter().filter(|(_, node)| !node.op.legal_in(graph.stage)) {
        errors.at(value, format!("`{}` is not legal in stage {}", node.op, graph.stage.name()), &[]);
    }
}

/// Whether operands may have different shapes, and parameters may be computed.
fn broadcasts(stage: Stage) -> bool {
    matches!(stage, Stage::Imported | Stage::Training)
}

fn additions(graph: &Graph, errors: &mut Findings<'_>) {
    let adds = |node: &Node| !broadcasts(graph.stage) && node.op == Op::Array(ArrayOp::Binary(Binary::Add));
    for (value, node) in graph.iter().filter(|(_, node)| adds(node)) {
        let [a, b] = [graph.ty(node.args[0]), graph.ty(node.args[1])];
        if a != b || a.shape().row_width().is_none() {
            let message = format!("`add` takes two values of one shape [tokens,width] here, not {a} and {b}");
            errors.at(value, message, &[]);
        }
    }
}

fn thresholds(graph: &Graph, errors: &mut Findings<'_>) {
    let scales = |node: &Node| matches!(node.op, Op::Array(ArrayOp::Binary(Binary::Mul | Binary::Div)));
    for (value, node) in graph.iter().filter(|(_, node)| !broadcasts(graph.stage) && scales(node)) {
        let [a, b] = [graph.ty(node.args[0]), graph.ty(node.args[1])];
        if a.shape().row_width().is_none() || ![Shape::rows(1), a.shape()].contains(&b.shape()) {
            let message = format!(
                "`{}` takes [tokens,width] and one number per token, or as many, here, not {a} and {b}",
                node.op.name()
            );
            errors.at(value, message, &[]);
        }
    }
}

fn picks(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter().filter(|(_, node)| node.op == Op::Level(LevelOp::GatherChannels)) {
        let channels = graph.constant(node.args[1]).and_then(|weight| weight.tensor.as_i32());
        let width = graph.ty(node.args[0]).shape().row_width().unwrap_or(0);
        if let Some(bad) =
            channels.unwrap_or(&[]).iter().find(|&&c| usize::try_from(c).is_ok_and(|c| c >= width) || c < 0)
        {
            errors.at(value, format!("channel {bad} is picked of {width}"), &[]);
        }
    }
}

fn parameters(graph: &Graph, errors: &mut Findings<'_>) {
    if broadcasts(graph.stage) {
        return;
    }
    for (value, node) in graph.iter() {
        for i in node.op.info().parameters.filter(|&i| graph.constant(node.args[i]).is_none()) {
            let found = errors.label(node.args[i]);
            errors.at(value, format!("operand {} of `{}` should be a constant, it is {found}", i + 1, node.op), &[]);
        }
    }
}

fn departures(graph: &Graph, errors: &mut Findings<'_>) {
    for (name, value) in &graph.outputs {
        let ty = graph.ty(*value);
        if matches!(ty, Type::Train { .. }) {
            let error = Diagnostic::new(format!("output {name}"), format!("a spike train ({ty}) leaves the program"));
            errors.push(error.note("decode it"));
        } else if graph.constant(*value).is_some() {
            errors.push(Diagnostic::new(format!("output {name}"), "an output should be computed, this is a constant"));
        }
    }
}

fn logits(graph: &Graph, errors: &mut Findings<'_>) {
    if broadcasts(graph.stage) {
        return;
    }
    let by_ids =
        |node: &&Node| node.op == Op::Dense(DenseOp::Embed) && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Tokens);
    let tables: Vec<usize> =
        graph.nodes.iter().filter(by_ids).filter_map(|node| graph.table_rows(node.args[1])).collect();
    for (name, value) in graph.outputs.iter().filter(|(name, _)| name == LOGITS) {
        let ty = graph.ty(*value);
        let width = ty.shape().row_width();
        let message = match tables.iter().find(|rows| Some(**rows) != width) {
            _ if ty.elem() != Some(Elem::F32) || width.is_none() => format!("logits are f32 rows, this is {ty}"),
            Some(rows) => format!("logits are as many as the {rows} tokens that a table has, this is {ty}"),
            None => continue,
        };
        errors.push(Diagnostic::new(format!("output {name}"), message));
    }
}

fn attributes(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter() {
        if let Some(wanted) = node.op.info().fault {
            errors.at(value, format!("`{}` should have {wanted}", node.op), &[]);
        }
    }
}

fn numbers(graph: &Graph, errors: &mut Findings<'_>) {
    let finite = matches!(graph.stage, Stage::Quantised | Stage::Spiking);
    let constants: Vec<_> = graph.iter().filter_map(|(value, _)| Some((value, graph.constant(value)?))).collect();
    for (value, weight) in constants {
        if finite && !all(weight.tensor.as_f32(), |x| x.is_finite()) {
            errors.at(value, "its numbers should be finite, one of them is not", &[]);
        }
        let levels = weight.tensor.as_i8().or_else(|| weight.tensor.as_panels());
        if !all(levels, |x| x != i8::MIN) {
            errors.at(value, "its weights should lie within -127 and 127, one of them is -128", &[]);
        }
        if weight.tensor.as_groups().is_some_and(|(bytes, sizes)| !sizes.has_multipliers(bytes)) {
            errors.at(value, "its multipliers should lie within -127 and 127, one of them is -128", &[]);
        }
    }
    for (value, node) in graph.iter() {
        let constant = |i: usize| node.args.get(i).and_then(|&arg| graph.constant(arg)).map(|weight| &weight.tensor);
        if let Op::Level(LevelOp::Ssa { heads, .. }) | Op::Dense(DenseOp::Attention { heads, .. }) = node.op
            && heads.alibi
            && !all(constant(node.args.len() - 1).and_then(|tensor| tensor.as_f32()), |x| x >= 0.0)
        {
            errors.at(value, "what scores lose with the distance should not be negative", &[]);
        }
        let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { continue };
        let first = heads.first_constant();
        let what = if variant.has_features() { "sinks" } else { "slopes" };
        if !all(constant(first).and_then(|tensor| tensor.as_f32()), |x| x >= 0.0) {
            errors.at(value, format!("the {what} of attention should not be negative"), &[]);
        }
        let period = |x: i32| x == 0 || x > 0 && x.count_ones() == 1;
        if variant.has_features() && !all(constant(first + 1).and_then(|tensor| tensor.as_i32()), period) {
            let message = "a head's memory should halve every 1, 2, 4, ... tokens, or never (0)";
            errors.at(value, message, &[]);
        }
    }
}

fn ranges(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter() {
        let Op::Spike(SpikeOp::Integrate { membrane, .. }) = node.op else { continue };
        for (parameter, &arg) in membrane.rule().parameters.iter().zip(&node.args[3..]) {
            let (least, most) = (parameter.least as f32, parameter.most as f32);
            let numbers = graph.constant(arg).and_then(|weight| weight.tensor.as_f32());
            if !all(numbers, |x| least <= x && x <= most) {
                let message = format!("`{}` of `{}` should lie within {least} and {most}", parameter.name, node.op);
                errors.at(value, message, &[]);
            }
        }
    }
}

fn features(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter() {
        let Op::Level(LevelOp::Ssa { variant, .. }) = node.op else { continue };
        if !variant.has_features() {
            continue;
        }
        for &arg in &node.args[..2] {
            let neuron = graph.node(neuron_of(graph, arg));
            let positive = |i: usize| {
                let constant = node_constant(graph, neuron, i).and_then(|weight| weight.tensor.as_f32());
                all(constant, |x| x >= 0.0)
            };
            let sound = match neuron.op {
                Op::Level(LevelOp::Quant { curve: Curve::Relu, .. })
                | Op::Spike(SpikeOp::Fire { curve: Curve::Relu, .. }) => positive(3) && positive(4),
                Op::Spike(SpikeOp::Integrate { membrane, curve: Curve::Relu, .. }) => {
                    membrane.rule().down.is_none() && matches!(variant, Ssa::Lif { .. })
                }
                Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
            };
            if !sound {
                let message =
                    format!("features of `{}` should be of rectified neurons, these are of `{}`", node.op, neuron.op);
                errors.at(value, message, &[]);
            }
        }
    }
}

/// Whether all elements satisfy `sound`; true where there are none. By blocks without an exit, which the compiler turns
/// into vector code: this runs over all weights of a program whenever it is loaded.
fn all<T: Copy>(elements: Option<&[T]>, sound: impl Fn(T) -> bool) -> bool {
    let mut blocks = elements.unwrap_or(&[]).chunks(1 << 12);
    blocks.all(|block| block.iter().fold(true, |ok, &x| ok & sound(x)))
}

fn tables(graph: &Graph, errors: &mut Findings<'_>) {
    let looks_up_positions = |node: &Node| {
        node.op == Op::Dense(DenseOp::Embed) && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Positions)
    };
    for (value, node) in graph.iter().filter(|(_, node)| looks_up_positions(node)) {
        if let Some(rows) = graph.table_rows(node.args[1])
            && rows < graph.context as usize
        {
            let message = format!("a table of {rows} rows is short of a context of {} positions", graph.context);
            errors.at(value, message, &["use a smaller context"]);
        }
    }
}

fn sums(graph: &Graph, errors: &mut Findings<'_>) {
    for (value, node) in graph.iter() {
        let levels_of = |i: usize| {
            let (code, steps) = graph.ty(*node.args.get(i)?).levels()?;
            Some((code, steps, code.levels(steps) as u64))
        };
        let Some((code, steps, levels)) = levels_of(0) else { continue };
        let advice = format!("use fewer timesteps than the {steps} of a {} code", code.name());
        let mut bound = |what: &str, most: u128, bits: u32| {
            let end = (1 << (bits - 1)) - 1;
            if most > end {
                let message = format!("{what} may reach {most}, an i{bits} sum ends at {end}");
                errors.at(value, message, &[&advice]);
            }
        };
        // Decoding a spike train gives its levels; settling a current, its synapse's product.
        if let Op::Level(LevelOp::Ssa { variant, .. }) = node.op {
            let SumBounds { scores, values } = attention_sums(graph, value);
            let scores_bits = match variant {
                Ssa::Ttfs { .. } | Ssa::TopK { .. } | Ssa::Linear { .. } => i64::BITS,
                Ssa::Coincidence { .. } | Ssa::Lif { .. } => i32::BITS,
            };
            bound("what scores come to", scores, scores_bits);
            bound("a weighted sum of values", values, i64::BITS);
        } else if let (Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse), Some(weight)) =
            (node.op, node_constant(graph, node, 1))
        {
            bound("a neuron's input", u128::from(largest_sum(&weight.tensor, levels)), i32::BITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::narrow_attention;
    use crate::graph::Weight;
    use crate::membrane::Membrane;
    use crate::op::{Heads, Layout, Scalar};
    use crate::tensor::{Data, Tensor};
    use crate::text;
    use crate::text::tests::{Sketch, all, features, quantised, spiking, thresholds};
    use crate::types::Code;
    use crate::value::WeightId;
    use std::sync::Arc;

    #[test]
    fn picks_are_channels() {
        let mut graph = thresholds();
        replace(&mut graph, "channels", Tensor::i32(&[3], vec![0, 1, 4]));
        let told: Vec<String> = verify(&graph).expect_err("no channel").iter().map(ToString::to_string).collect();
        assert_eq!(told, ["%7 (/h.0/gather_channels): channel 4 is picked of 4"]);
        replace(&mut graph, "channels", Tensor::i32(&[3], vec![0, 1, -1]));
        assert!(verify(&graph).is_err());
    }

    #[test]
    fn the_samples_are_programs() {
        for graph in all() {
            assert_eq!(verify(&graph), Ok(()), "{}", text::print(&graph));
        }
    }

    fn find(graph: &Graph, name: &str) -> usize {
        graph.nodes.iter().position(|node| node.op.name() == name).expect("the sample has it")
    }

    fn replace(graph: &mut Graph, name: &str, tensor: Tensor) {
        let weight = graph.weights.iter_mut().find(|weight| weight.name == name).expect("the sample has it");
        weight.tensor = Arc::new(tensor);
    }

    /// The spiking sample after `damage` breaks one promise.
    fn check(damage: impl FnOnce(&mut Graph), expected: &str) {
        let mut graph = spiking();
        damage(&mut graph);
        let errors = verify(&graph).expect_err(expected);
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(told.iter().any(|line| line == expected), "{told:#?}");
        text::print(&graph);
    }

    #[test]
    fn broken_promises_are_told() {
        check(|g| g.context = 0, "a context of 0 tokens; 1 to 1048576 are possible");
        check(|g| g.outputs.clear(), "the program has no output");
        check(|g| g.outputs.push(g.outputs[0].clone()), "output y: there are two outputs of this name");
        check(|g| g.outputs[0].1 = Value(99), "output y: there is no node 99");
        check(|g| g.outputs[0].0.clear(), "outputs: a name of 0 bytes; 1 to 1024 are possible");
        check(|g| g.weights[1].name = "wte".into(), "@wte: there are two weights of this name");
        check(|g| g.nodes[0].op = Op::Leaf(LeafOp::Weight(WeightId(99))), "@?: there is no weight 99");
        check(|g| g.nodes[0].op = Op::Leaf(LeafOp::Weight(WeightId(1))), "@wte: a constant should be one node");
        check(|g| g.weights.truncate(3), "@?: there is no weight 5");
        let late = |g: &mut Graph| {
            let decode = find(g, "decode");
            g.nodes[decode].args[0] = Value(decode as u32 + 1);
        };
        check(late, "%8 (/h.0/decode): its operand %9 does not come before it");
        let retyped = |g: &mut Graph| {
            let i = find(g, "synapse");
            g.nodes[i].ty = g.nodes[0].ty;
        };
        check(retyped, "%7 (/h.0/synapse): `synapse` gives current<binary,7>[tokens,4] here, not f32[16,4]");
        check(
            |g| replace(g, "w", Tensor::f32(&[4, 4], vec![0.0; 16])),
            "@w: `weight` gives f32[4,4] here, not i8[4,4]",
        );
        let dead = |g: &mut Graph| g.outputs[0].1 = Value(find(g, "ssa") as u32);
        check(dead, "%19 (/h.0/add): no output needs this value\n  a pass should drop it");
        check(|g| g.stage = Stage::Quantised, "%7 (/h.0/synapse): `synapse` is not legal in stage quantised");
        let train = |g: &mut Graph| g.outputs.push(("x".into(), Value(find(g, "fire") as u32)));
        check(train, "output x: a spike train (spike<binary,7>[tokens,4]) leaves the program\n  decode it");
        let current = |g: &mut Graph| g.outputs.push(("x".into(), Value(find(g, "synapse") as u32)));
        check(current, "output x: a spike train (current<binary,7>[tokens,4]) leaves the program\n  decode it");
        check(|g| g.outputs.push(("x".into(), Value(0))), "output x: an output should be computed, this is a constant");
        let eps = |g: &mut Graph| {
            let i = find(g, "rms_norm");
            g.nodes[i].op = Op::Dense(DenseOp::RmsNorm { eps: Scalar::new(f32::INFINITY), heads: 1 });
        };
        check(eps, "%5 (/h.0/rms_norm): `rms_norm[eps=inf]` should have a finite eps that is not negative");
        check(
            |g| replace(g, "gain", Tensor::f32(&[4], vec![1.0, 1.0, f32::NAN, 1.0])),
            "@gain: its numbers should be finite, one of them is not",
        );
        let mut weights = vec![1; 16];
        weights[15] = -128;
        check(
            |g| replace(g, "w", Tensor::i8(&[4, 4], weights)),
            "@w: its weights should lie within -127 and 127, one of them is -128",
        );
        check(
            |g| replace(g, "slope", Tensor::f32(&[2], vec![1.0, -0.5])),
            "%10 (/h.0/ssa): the slopes of attention should not be negative",
        );
        check(
            |g| g.context = 9,
            "%3 (/h.0/embed): a table of 8 rows is short of a context of 9 positions\n  use a smaller context",
        );
    }

    #[test]
    fn long_sums_are_bounded_by_their_weights() {
        let product = |inputs: usize, w: i8, steps: u16| {
            let mut s = Sketch::new(Stage::Quantised);
            let tokens = s.add(Op::Leaf(LeafOp::Tokens), &[]);
            let (table, gain) = (s.f32("table", &[1, inputs]), s.f32("gain", &[inputs]));
            let x = s.add(Op::Dense(DenseOp::Embed), &[tokens, table]);
            let levels = s
                .add(Op::Level(LevelOp::Quant { code: Code::Binary, steps, curve: Curve::Identity }), &[x, gain, gain]);
            let mut weights = vec![0; inputs * 2];
            weights.iter_mut().skip(1).step_by(2).for_each(|weight| *weight = w);
            let weights = s.0.weight("w", Arc::new(Tensor::i8(&[inputs, 2], weights)));
            let product = s.add(Op::Level(LevelOp::MatMulInt), &[levels, weights]);
            verify(&s.finish(&[("y", product)]))
        };
        assert_eq!(product(512, 127, 15), Ok(()));
        assert_eq!(product(65538, 1, 15), Ok(()));
        let errors = product(65539, -1, 15).expect_err("one term too many");
        assert_eq!(errors[0].place, "%3 (/h.0/matmul_int)");
        assert_eq!(errors[0].message, "a neuron's input may reach 2147516413, an i32 sum ends at 2147483647");
    }

    #[test]
    fn attention_sums_beyond_i32_are_known() {
        let mut graph = quantised();
        let ssa = Value(find(&graph, "ssa") as u32);
        for (context, narrow) in [(8, true), (8256, true), (8257, false)] {
            graph.context = context;
            assert_eq!(narrow_attention(&graph, ssa), narrow, "{context} values of 7 timesteps");
        }
        graph.context = 8;
        for node in &mut graph.nodes {
            if let Op::Level(LevelOp::Quant { code: Code::Binary, steps, .. }) = &mut node.op {
                *steps = 16;
                node.ty = Type::tensor(Elem::Level(Code::Binary, 16), node.ty.shape());
            }
        }
        assert_eq!(verify(&graph), Ok(()));
        assert!(!narrow_attention(&graph, ssa));
    }

    #[test]
    fn features_are_rectified_and_memories_halve_at_powers_of_two() {
        let told = |damage: &dyn Fn(&mut Graph)| {
            let mut graph = features(Stage::Spiking);
            damage(&mut graph);
            let errors = verify(&graph).expect_err("damaged");
            errors.into_iter().map(|error| error.message).collect::<Vec<String>>()
        };
        let half_life = |data: [i32; 2]| move |g: &mut Graph| replace(g, "half_life", Tensor::i32(&[2], data.to_vec()));
        let period = "a head's memory should halve every 1, 2, 4, ... tokens, or never (0)";
        for bad in [[3, 0], [0, -1], [i32::MIN, 1]] {
            assert_eq!(told(&half_life(bad)), [period; 5], "{bad:?}");
        }
        let sink = told(&|g| replace(g, "sink", Tensor::f32(&[2], vec![1.0, -1.0])));
        assert_eq!(sink, ["the sinks of attention should not be negative"; 5]);
        let negative = told(&|g| replace(g, "gain", Tensor::f32(&[6], vec![-1.0; 6])));
        assert!(
            negative[0].ends_with("should be of rectified neurons, these are of `fire[unary,4,relu]`"),
            "{negative:?}"
        );
        let signed = |g: &mut Graph| {
            for node in &mut g.nodes {
                if let Op::Spike(SpikeOp::Fire { code, steps, curve: Curve::Relu }) = node.op {
                    node.op = Op::Spike(SpikeOp::Integrate { membrane: Membrane::ST_BIF, steps, curve: Curve::Relu });
                    assert_eq!(code, Code::Unary);
                    node.args.drain(3..);
                }
            }
        };
        assert_eq!(told(&signed).len(), 10, "neurons that take spikes back are no features");
    }

    #[test]
    fn sums_that_are_kept_have_bounds() {
        let mut s = Sketch::new(Stage::Quantised);
        let tokens = s.add(Op::Leaf(LeafOp::Tokens), &[]);
        let (table, gain) = (s.f32("table", &[1, 1 << 14]), s.f32("gain", &[1 << 14]));
        let x = s.add(Op::Dense(DenseOp::Embed), &[tokens, table]);
        let x = s.add(
            Op::Level(LevelOp::Quant { code: Code::Binary, steps: 1, curve: Curve::Relu }),
            &[x, gain, gain, gain, gain],
        );
        let (sink, half_life) = (s.f32("sink", &[1]), s.i32("half_life", &[1]));
        let y = s.add(
            Op::Level(LevelOp::Ssa { heads: Heads::equal(1), variant: Ssa::Linear { guard: 0 } }),
            &[x, x, x, sink, half_life],
        );
        let errors = verify(&s.finish(&[("y", y)])).expect_err("2^28 + 2^14 numbers");
        assert!(errors[0].message.ends_with("2^27 numbers are possible"), "{errors:?}");
    }

    #[test]
    fn sums_of_attention_are_bounded_by_context_and_halving() {
        let attend = |variant, steps: u16, every: i32, context: u32| {
            let mut s = Sketch::new(Stage::Quantised);
            let tokens = s.add(Op::Leaf(LeafOp::Tokens), &[]);
            let (table, gain) = (s.f32("table", &[1, 1 << 10]), s.f32("gain", &[1 << 10]));
            let x = s.add(Op::Dense(DenseOp::Embed), &[tokens, table]);
            let code = if variant == (Ssa::Coincidence { squared: true }) { Code::Unary } else { Code::Binary };
            let features =
                s.add(Op::Level(LevelOp::Quant { code, steps, curve: Curve::Relu }), &[x, gain, gain, gain, gain]);
            let sink = s.f32("sink", &[1]);
            let half_life = s.0.weight("half_life", Arc::new(Tensor::i32(&[1], vec![every])));
            let y = s.add(
                Op::Level(LevelOp::Ssa { heads: Heads::equal(1), variant }),
                &[features, features, features, sink, half_life],
            );
            let mut graph = s.finish(&[("y", y)]);
            graph.context = context;
            verify(&graph).map_err(|errors| errors[0].message.clone())
        };
        assert_eq!(attend(Ssa::Coincidence { squared: true }, 45, 0, 8), Ok(()));
        let told = attend(Ssa::Coincidence { squared: true }, 46, 0, 8);
        assert_eq!(told, Err("what scores come to may reach 2218786816, an i32 sum ends at 2147483647".into()));
        // 2^10 features of 10 bits each for q, k and v, 8 guard bits, so 2^15 tokens may be held.
        let linear = Ssa::Linear { guard: 8 };
        assert_eq!(attend(linear, 10, 0, 1 << 15), Ok(()));
        assert_eq!(attend(linear, 10, 1 << 14, 1 << 20), Ok(()));
        for (every, context) in [(0, 1 << 16), (1 << 15, 1 << 20)] {
            assert!(attend(linear, 10, every, context).is_err_and(|told| told.contains("an i64 sum ends at")));
        }
    }

    #[test]
    fn after_import_nothing_broadcasts_and_parameters_are_constants() {
        let told = |stage: Stage| {
            let mut s = Sketch::new(stage);
            let x = s.embedding();
            let bias = s.f32("bias", &[4]);
            let x = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, bias]);
            let sum = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[bias, bias]);
            let w = s.f32("w", &[4, 4]);
            let y = s.add(Op::Dense(DenseOp::Linear(Layout::InputMajor)), &[x, w, sum]);
            let errors = verify(&s.finish(&[("y", y)])).expect_err("wrong in every stage");
            errors.into_iter().map(|error| error.message).collect::<Vec<String>>()
        };
        let expected = [
            "`add` takes two values of one shape [tokens,width] here, not f32[tokens,4] and f32[4]",
            "`add` takes two values of one shape [tokens,width] here, not f32[4] and f32[4]",
            "operand 3 of `linear` should be a constant, it is %6",
        ];
        assert_eq!(told(Stage::Tensor), expected);
        assert_eq!(told(Stage::Imported), ["`linear` is not legal in stage imported"]);
    }

    #[test]
    fn sizes_are_neither_nothing_nor_endless() {
        let told = |reshape: &[Dim], sizes: &[usize]| {
            let mut s = Sketch::new(Stage::Imported);
            let x = s.f32("x", sizes);
            let y = s.add(Op::Array(ArrayOp::Binary(Binary::Add)), &[x, x]);
            let y = s.add(Op::Array(ArrayOp::Reshape(Shape::new(reshape))), &[y]);
            verify(&s.finish(&[("y", y)])).map_err(|errors| errors.len())
        };
        assert_eq!(told(&[Dim::Fixed(0), Dim::Fixed(u32::MAX)], &[0]), Err(3));
        assert_eq!(told(&[Dim::Fixed(4), Dim::Fixed(1)], &[2, 2]), Ok(()));
    }

    #[test]
    fn a_weight_that_no_node_names_is_refused() {
        let mut graph = spiking();
        let tensor = Arc::new(Tensor::new(vec![1], Data::F32(vec![1.0].into())));
        graph.weights.push(Weight { name: "left over".into(), tensor });
        assert_eq!(verify(&graph).expect_err("unused")[0].message, "a constant should be one node");
    }
}
