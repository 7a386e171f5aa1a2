//! The residual stream as a set of values that are turned together.
//!
//! The set begins with what blocks add up (`residual`) and grows until nothing that commutes with a rotation joins it to another value: sums, norms
//! without a gain, centring, one factor for all channels. What remains at its border has to be a projection or a table of embeddings.

use super::refusal::refused;
use crate::residual::additions;
use snnc_ir::op::{ArrayOp, DenseOp, LeafOp, LevelOp};
use snnc_ir::{Binary, Diagnostic, Graph, Op, Value};

const WHAT: &str = "the residual stream";

/// The values of the residual stream, and in which forms they are wanted.
pub(super) struct ResidualStream {
    has: Vec<bool>,
    /// As it is, and with its channels centred.
    wanted: Vec<[bool; 2]>,
}

/// What an operation is to the stream whose value it gives.
enum StreamSource {
    /// It is of values of the stream.
    Joins(Vec<Value>),
    /// It makes the value by a constant matrix.
    Writes,
}

impl ResidualStream {
    /// No values: nothing is turned.
    pub fn none(graph: &Graph) -> Self {
        Self { has: vec![false; graph.nodes.len()], wanted: vec![[true, false]; graph.nodes.len()] }
    }

    /// All of the stream.
    ///
    /// # Errors
    /// Something acts on its channels one by one.
    pub fn of(graph: &Graph) -> Result<Self, Diagnostic> {
        let mut open: Vec<Value> = additions(graph).iter().flat_map(|part| [part.before, part.after]).collect();
        if open.is_empty() {
            return Err(refused(graph, None, WHAT, "no block adds to it"));
        }
        let users = graph.users();
        let mut stream = Self::none(graph);
        while let Some(value) = open.pop() {
            if std::mem::replace(&mut stream.has[value.index()], true) {
                continue;
            }
            if let Some((name, _)) = graph.outputs.iter().find(|(_, output)| *output == value) {
                return Err(refused(graph, Some(value), WHAT, &format!("it leaves the network as output `{name}`")));
            }
            if let StreamSource::Joins(parts) = source(graph, value)? {
                open.extend(parts);
            }
            for user in &users[value.index()] {
                if !reads(graph, *user, value)? {
                    open.push(*user);
                }
            }
        }
        stream.want(graph)?;
        Ok(stream)
    }

    /// Whether a value is of the stream.
    pub fn has(&self, value: Value) -> bool {
        self.has[value.index()]
    }

    /// Whether somebody needs a value as it is, or centred.
    pub fn wanted(&self, value: Value, centred: bool) -> bool {
        self.wanted[value.index()][usize::from(centred)]
    }

    /// Finds the forms of values: centring moves to what writes the stream, since it does not commute with a rotation.
    fn want(&mut self, graph: &Graph) -> Result<(), Diagnostic> {
        for (wanted, _) in self.wanted.iter_mut().zip(&self.has).filter(|(_, has)| **has) {
            *wanted = [false; 2];
        }
        for (value, node) in graph.iter().rev() {
            let [plain, centred] = self.wanted[value.index()];
            let is_stream = self.has(value);
            let mut want = |of: Value, forms: [bool; 2]| {
                let wanted = &mut self.wanted[of.index()];
                *wanted = [wanted[0] || forms[0], wanted[1] || forms[1]];
            };
            match node.op {
                Op::Dense(DenseOp::Centre) if is_stream => want(node.args[0], [false, plain || centred]),
                Op::Array(ArrayOp::Binary(Binary::Add)) if is_stream => {
                    node.args.iter().for_each(|arg| want(*arg, [plain, centred]));
                }
                Op::Level(LevelOp::ScaleShift) if is_stream => {
                    want(node.args[0], [plain, centred]);
                    node.args[1..].iter().for_each(|arg| want(*arg, [true, false]));
                }
                Op::Dense(DenseOp::RmsNorm { .. }) if is_stream && centred => {
                    let why = "what a norm gives is centred at run time, and a norm of centred channels is another";
                    return Err(refused(graph, Some(value), WHAT, why));
                }
                Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                    if plain || centred {
                        node.args.iter().for_each(|arg| want(*arg, [true, false]));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where a value of the stream comes from.
fn source(graph: &Graph, value: Value) -> Result<StreamSource, Diagnostic> {
    let node = graph.node(value);
    let constant = |at: usize| graph.constant(node.args[at]).is_some();
    match node.op {
        Op::Array(ArrayOp::Binary(Binary::Add)) => Ok(StreamSource::Joins(node.args.clone())),
        Op::Dense(DenseOp::RmsNorm { heads: 1, .. } | DenseOp::Centre) => Ok(StreamSource::Joins(vec![node.args[0]])),
        Op::Level(LevelOp::ScaleShift) if is_uniform(graph, value) => Ok(StreamSource::Joins(vec![node.args[0]])),
        Op::Dense(DenseOp::Linear(_)) if constant(1) && constant(2) => Ok(StreamSource::Writes),
        Op::Dense(DenseOp::Embed) if constant(1) => Ok(StreamSource::Writes),
        op => Err(refused(graph, Some(value), WHAT, &acts(op))),
    }
}

/// Whether `user` reads the stream at `value` by a constant matrix; else what it gives is of the stream as well.
fn reads(graph: &Graph, user: Value, value: Value) -> Result<bool, Diagnostic> {
    let node = graph.node(user);
    match node.op {
        Op::Dense(DenseOp::Linear(_)) if node.args[0] == value && graph.constant(node.args[1]).is_some() => Ok(true),
        Op::Array(ArrayOp::Binary(Binary::Add)) | Op::Dense(DenseOp::RmsNorm { heads: 1, .. } | DenseOp::Centre) => {
            Ok(false)
        }
        Op::Level(LevelOp::ScaleShift) if node.args[0] == value && is_uniform(graph, user) => Ok(false),
        op => Err(refused(graph, Some(user), WHAT, &acts(op))),
    }
}

/// Whether a `scale_shift` has one factor for all channels: that commutes with a rotation, and its offset is turned.
fn is_uniform(graph: &Graph, value: Value) -> bool {
    let args = &graph.node(value).args;
    let gain = graph.constant(args[1]).and_then(|gain| gain.tensor.as_f32());
    let equal = gain.is_some_and(|gain| gain.iter().all(|x| *x == gain[0]));
    equal && graph.constant(args[2]).is_some()
}

/// What an operation does that does not commute with a rotation.
fn acts(op: Op) -> String {
    match op {
        Op::Leaf(LeafOp::Stream(_)) => "another program hands it over".to_string(),
        Op::Level(LevelOp::ScaleShift) => "a gain per channel acts on it, and no projection takes that".to_string(),
        Op::Dense(DenseOp::RmsNorm { .. }) => "it is normalised in groups of channels".to_string(),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
            format!("`{}` acts on its channels one by one", op.name())
        }
    }
}
