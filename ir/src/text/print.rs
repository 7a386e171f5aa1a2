//! Writes a graph as text. Total: a graph that a pass broke is printed too, since its error shows it.

use crate::graph::{Graph, Node, Weight};
use crate::op::{LeafOp, Op};
use crate::ssa::StateType;
use crate::text::name::{VERSION, hash, quote, spell};
use crate::value::Value;
use std::fmt::Write;

/// Where origins stand, if the line has room before them. One fixed column, so that a change of one line is a change of
/// one line.
const ORIGIN_COLUMN: usize = 80;

/// The program as text; see the module for what it looks like.
pub fn print(graph: &Graph) -> String {
    let hashes: Vec<u64> = graph.weights.iter().map(|weight| hash(&weight.tensor)).collect();
    print_hashed(graph, &hashes)
}

/// `print`, for a caller that knows the hashes of the weights already.
pub(crate) fn print_hashed(graph: &Graph, hashes: &[u64]) -> String {
    print_with(graph, &|i, _| hashes.get(i).copied().map(hash_of), &|_| true)
}

/// A hash as the line of a weight shows it.
pub(super) fn hash_of(hash: u64) -> String {
    format!("{hash:016x}")
}

/// `print` in parts: `weights` says what ends the line of a weight, or that it has none; `nodes`, which nodes have a line.
pub fn print_with(
    graph: &Graph,
    weights: &dyn Fn(usize, &Weight) -> Option<String>,
    nodes: &dyn Fn(Value) -> bool,
) -> String {
    let labels = labels(graph);
    let mut text = format!("snnc {VERSION} {} context={}\n", graph.stage.name(), graph.context);
    let lines = graph.weights.iter().enumerate().filter_map(|(i, weight)| {
        let sizes: Vec<String> = weight.tensor.sizes().iter().map(usize::to_string).collect();
        let layout = if weight.tensor.as_panels().is_some() { "panels " } else { "" };
        let line = format!("weight @{} : {}[{}]", spell(&weight.name), weight.tensor.elem(), sizes.join(","));
        Some(format!("{line} {layout}{}", weights(i, weight)?))
    });
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        text.push('\n');
    }
    lines.iter().for_each(|line| text.extend([line.trim_end(), "\n"]));
    text.push('\n');
    let shown = |(value, node): &(Value, &Node)| !matches!(node.op, Op::Leaf(LeafOp::Weight(_))) && nodes(*value);
    for (value, node) in graph.iter().filter(shown) {
        let mut line = node_line(&labels, value, node);
        if let Some(site) = graph.site(value) {
            let _ = write!(line, " #{site}");
        }
        let _ = match graph.origin(value).name.as_str() {
            "" => writeln!(text, "{line}"),
            origin => writeln!(text, "{line:<width$} // {}", spell_origin(origin), width = ORIGIN_COLUMN),
        };
        if let Some(state) = known_state(graph, value) {
            let _ = writeln!(text, "     // state: {state}");
        }
    }
    text.push('\n');
    for (name, value) in &graph.outputs {
        let _ = writeln!(text, "output {} = {}", spell(name), label_of(&labels, *value));
    }
    text
}

/// How the text names a value: `%12`, or `@name` for a constant.
pub fn label(graph: &Graph, value: Value) -> String {
    label_of(&labels(graph), value).to_string()
}

/// The labels of all values. Constants take no number.
pub(crate) fn labels(graph: &Graph) -> Vec<String> {
    let mut numbers = 0..;
    let label = |node: &Node| match node.op {
        Op::Leaf(LeafOp::Weight(id)) => {
            format!("@{}", graph.weights.get(id.0 as usize).map_or("?".into(), |weight| spell(&weight.name)))
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
            format!("%{}", numbers.next().unwrap_or(0))
        }
    };
    graph.nodes.iter().map(label).collect()
}

pub(crate) fn label_of(labels: &[String], value: Value) -> &str {
    labels.get(value.index()).map_or("%?", String::as_str)
}

fn node_line(labels: &[String], value: Value, node: &Node) -> String {
    let args: Vec<&str> = node.args.iter().map(|&arg| label_of(labels, arg)).collect();
    let args = if args.is_empty() { String::new() } else { format!("({})", args.join(", ")) };
    format!("{} = {}{args} : {}", label_of(labels, value), node.op, node.ty)
}

/// `Graph::state` where the operands that it looks at exist.
fn known_state(graph: &Graph, value: Value) -> Option<StateType> {
    let args = &graph.node(value).args;
    let known = args.len() >= 3 && args.iter().all(|arg| arg.index() < graph.nodes.len());
    if known { graph.state(value) } else { None }
}

/// An origin ends its line, so only what could not be seen, or could be trimmed away or taken for a comment, needs quotes.
fn spell_origin(origin: &str) -> String {
    let visible = origin.chars().all(|c| matches!(c, ' '..='~'));
    let plain = origin.trim() == origin && !origin.starts_with('"') && !origin.contains(';');
    if visible && plain { origin.to_string() } else { quote(origin) }
}
