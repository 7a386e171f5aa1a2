//! Cuts a network into segments that run one behind the other, each in a process of its own.
//!
//! A network is cut where all that is known of the text so far is one value: `[tokens, width]` numbers, as the residual stream is
//! between two layers. The segment before the cut gives it, and the segment behind begins with it (`stream`). What follows from
//! positions alone is made in every segment that reads it.
//!
//! Law: segments one behind the other give the outputs of the whole network, to the bit.

use snnc_ir::op::{DenseOp, LeafOp};
use snnc_ir::types::Elem;
use snnc_ir::{Builder, Diagnostic, ErrorCode, Graph, Op, Type, Value};

/// What a segment that others follow gives.
pub const STREAM: &str = "stream";

/// Layers of a network that follow each other.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What runs them. All but the first begin with `stream`, and all but the last have one output, `STREAM`.
    pub graph: Graph,
    /// By node of the segment: the node of the network that it is, if no other segment has it as well.
    pub nodes: Vec<Option<Value>>,
}

/// A place where a network can be cut.
#[derive(Clone, Copy, Debug)]
struct CutPlace {
    /// All that the rest reads of what came before.
    stream: Value,
    /// Bytes of constants that are read before it.
    bytes: usize,
}

/// Cuts a network into so many segments, whose constants take about as many bytes each.
///
/// # Errors
/// It has too few places where it can be cut.
pub fn segments(graph: &Graph, count: usize) -> Result<Vec<Segment>, Diagnostic> {
    let (places, bytes) = places(graph);
    let Some(cuts) = chosen(&places, bytes, count.saturating_sub(1)) else {
        let message = format!("a network that can be cut at {} places does not fit {count} ranks", places.len());
        let note = format!("start {} ranks at most", places.len() + 1);
        return Err(Diagnostic::new("", message).code(ErrorCode::OPTION).note(note));
    };
    let begins = std::iter::once(None).chain(cuts.iter().copied().map(Some));
    let ends = cuts.iter().copied().map(Some).chain([None]);
    begins.zip(ends).map(|(begin, end)| segment(graph, begin, end)).collect()
}

/// The places, first to last, and the bytes of all constants. Those that several nodes read count for each.
fn places(graph: &Graph) -> (Vec<CutPlace>, usize) {
    let free = free_of_text(graph);
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for (value, node) in graph.iter() {
        node.args.iter().for_each(|arg| last_use[arg.index()] = value.index());
    }
    graph.outputs.iter().for_each(|(_, value)| last_use[value.index()] = usize::MAX);
    let mut open: Vec<Value> = Vec::new();
    let mut places: Vec<CutPlace> = Vec::new();
    let mut bytes = 0;
    for (value, node) in graph.iter() {
        let constants = node.args.iter().filter_map(|&arg| graph.constant(arg));
        bytes += constants.map(|weight| weight.tensor.data().bytes().len()).sum::<usize>();
        open.retain(|open| last_use[open.index()] > value.index());
        open.extend((!free[value.index()] && last_use[value.index()] > value.index()).then_some(value));
        if let &[stream] = open.as_slice()
            && last_use[stream.index()] < usize::MAX
            && is_rows_of_f32(graph.ty(stream))
        {
            match places.last_mut().filter(|place| place.stream == stream) {
                Some(place) => place.bytes = bytes,
                None => places.push(CutPlace { stream, bytes }),
            }
        }
    }
    (places, bytes)
}

fn is_rows_of_f32(ty: Type) -> bool {
    ty.elem() == Some(Elem::F32) && ty.shape().row_width().is_some()
}

/// By node: whether it follows from constants and from what every segment knows, the tokens' positions and what the text begins with.
fn free_of_text(graph: &Graph) -> Vec<bool> {
    let mut free = vec![false; graph.nodes.len()];
    for (value, node) in graph.iter() {
        let looked_up = node.op == Op::Dense(DenseOp::Embed) && graph.node(node.args[0]).op == Op::Leaf(LeafOp::Tokens);
        free[value.index()] = match node.op {
            Op::Leaf(LeafOp::Stream(_)) => false,
            Op::Leaf(LeafOp::Tokens | LeafOp::Positions | LeafOp::Opening | LeafOp::Weight(_)) => true,
            Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                !looked_up && node.args.iter().all(|arg| free[arg.index()])
            }
        };
    }
    free
}

/// So many of the places, in order, with about as many bytes between them; `None` if there are fewer.
fn chosen(places: &[CutPlace], bytes: usize, count: usize) -> Option<Vec<Value>> {
    let mut cuts = Vec::with_capacity(count);
    let mut first = 0;
    for i in 0..count {
        // Later cuts need places as well.
        let end = (places.len() + i + 1).checked_sub(count).filter(|&end| end > first)?;
        let wanted = (i + 1) as f64 * bytes as f64 / (count + 1) as f64;
        let far = |at: usize| (places[at].bytes as f64 - wanted).abs();
        let best = (first..end).min_by(|&a, &b| far(a).total_cmp(&far(b)))?;
        cuts.push(places[best].stream);
        first = best + 1;
    }
    Some(cuts)
}

/// What lies between two cuts.
fn segment(graph: &Graph, begin: Option<Value>, end: Option<Value>) -> Result<Segment, Diagnostic> {
    let wanted: Vec<(String, Value)> = match end {
        Some(end) => vec![(STREAM.to_string(), end)],
        None => graph.outputs.clone(),
    };
    let mut needed = vec![false; graph.nodes.len()];
    wanted.iter().for_each(|(_, value)| needed[value.index()] = true);
    for (value, node) in graph.iter().rev() {
        if needed[value.index()] && begin != Some(value) {
            node.args.iter().for_each(|arg| needed[arg.index()] = true);
        }
    }
    let free = free_of_text(graph);
    let mut builder = Builder::new(graph.stage, graph.context);
    let mut map = vec![Value(0); graph.nodes.len()];
    let (mut constants, mut rest) = (Vec::new(), Vec::new());
    for (value, node) in graph.iter().filter(|(value, _)| needed[value.index()]) {
        let origin = graph.origin(value).clone();
        map[value.index()] = match (graph.constant(value), begin == Some(value)) {
            (Some(weight), _) => {
                constants.push(None);
                builder.weight(&weight.name, weight.tensor.clone())
            }
            (None, true) => {
                rest.push(None);
                let width = graph.ty(value).shape().row_width().unwrap_or(0);
                builder.add(LeafOp::Stream(width as u32), &[], origin)?
            }
            (None, false) => {
                rest.push((!free[value.index()]).then_some(value));
                let args: Vec<Value> = node.args.iter().map(|arg| map[arg.index()]).collect();
                builder.add(node.op, &args, origin)?
            }
        };
    }
    let outputs = wanted.into_iter().map(|(name, value)| (name, map[value.index()])).collect();
    let graph = builder.finish(outputs);
    // A finished graph has its constants first, and else the order in which it was built.
    constants.append(&mut rest);
    if constants.len() != graph.nodes.len() {
        return Err(Diagnostic::new("", "the network has equal nodes, so it is not cut").code(ErrorCode::RUN));
    }
    Ok(Segment { graph, nodes: constants })
}
