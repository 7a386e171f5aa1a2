//! Proof-carrying import: the network that was imported against the file that it came from.
//!
//! The file's own nodes are evaluated one by one (`evaluate::graph`), on fresh rows of random tokens, and so is the network
//! (by the IR's oracle). The two share the weights, what a file's inputs are bound to, and the evaluation of what does not
//! depend on the tokens; what import or recognition gets wrong of the rest shows as a difference of logits.

use crate::convert;
use crate::describe::token_table;
use crate::record::ImportRecord;
use snnc_ir::ErrorCode;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, Graph};
use snnc_onnx::Import;
use snnc_onnx::evaluate::graph;
use snnc_onnx::import::inputs;
use snnc_onnx::tensor::OnnxArray;
use std::collections::{HashMap, HashSet};

/// Tokens of the rows that are compared, where the file takes any number and its context allows it.
const ROWS: [usize; 2] = [11, 16];

/// How often rows are drawn of a file that rounds activations: what rounding does to logits differs from token to token.
const DRAWS: usize = 8;

/// The same for a file that takes long to evaluate.
const DRAWS_AT_LEAST: usize = 3;

/// Numbers that all draws but the first may read or multiply, about: a second's work.
const DRAWN_WORK: usize = 1_000_000_000;

/// Seed of the rows' tokens.
const SEED: u64 = 0x9e37_0001;

/// What two orders of adding the same f32s may differ by, as a share of the logits' range.
pub const ROUNDING: f32 = 1e-3;

/// What dropping the rounding of activations to eight bits may change, as a share of the logits' range.
pub const ROUNDED_ACTIVATIONS: f32 = 0.1;

/// What was compared and how far apart it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// Largest difference of a logit, and the range of the file's logits.
    pub difference: f32,
    /// Range of the file's logits.
    pub range: f32,
    /// Tokens that were run.
    pub tokens: usize,
    /// The largest difference allowed, as a share of the range.
    pub tolerance: f32,
    /// Whether the file rounds activations to codes, which the network does not.
    pub rounds_activations: bool,
}

impl Proof {
    /// Whether the difference is one that is allowed.
    pub fn holds(&self) -> bool {
        // A difference or a range that is no number, or infinite, is none that is allowed.
        self.range.is_finite() && self.difference.is_finite() && self.difference <= self.tolerance * self.range
    }

    /// What a proof does not say, if it says nothing.
    pub fn warning(&self) -> Option<String> {
        (self.range == 0.0)
            .then(|| "all logits of the file are equal: it predicts nothing, and no comparison can say more".into())
    }

    /// The same for the program's record.
    pub fn record(&self) -> ImportRecord {
        let &Proof { difference, range, tokens, tolerance, rounds_activations } = self;
        ImportRecord { difference, range, tokens, tolerance, rounds_activations }
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let why = if self.rounds_activations { "; the file rounds activations, the network does not" } else { "" };
        format!(
            "the network's logits differ from the file's by at most {:.1e} of their range {:.1} ({} random tokens{why})",
            self.difference, self.range, self.tokens
        )
    }
}

/// The tolerance that a user names.
///
/// # Errors
/// It is not above 0 and at most 1.
pub fn tolerance(share: f32) -> Result<f32, Diagnostic> {
    if share > 0.0 && share <= 1.0 {
        return Ok(share);
    }
    let message = format!("{share} is no share of the logits' range: a number above 0 and at most 1 was expected");
    Err(Diagnostic::new("--import-tolerance", message).code(ErrorCode::OPTION))
}

/// Compares `tensor`, the network at stage Tensor, with the file of `import`. `share` is the tolerance, as a share of the
/// logits' range: above 0, at most 1.
///
/// # Errors
/// The file cannot be evaluated, its logits are not finite, or the difference is above the tolerance.
pub fn prove(import: &Import, tensor: &Graph, share: Option<f32>) -> Result<Proof, Diagnostics> {
    let share = share.map(tolerance).transpose()?;
    let proof = compare(import, tensor, share, SEED)
        .map_err(|e| Diagnostics::from(e.note("found while the import was checked")))?;
    if proof.holds() {
        return Ok(proof);
    }
    let message = format!(
        "the imported network is not the file's: its logits differ by {:.2e}, of a range of {:.2}; {:.2e} is allowed",
        proof.difference,
        proof.range,
        proof.tolerance * proof.range
    );
    let why = if proof.rounds_activations {
        "the file rounds activations to codes and the network does not: if that alone changes its logits so much, it was quantised badly"
    } else {
        "please report the file"
    };
    Err(Diagnostic::new("", message)
        .code(ErrorCode::ONNX_PROOF)
        .note(why)
        .note("--import-tolerance SHARE allows another share of the range, at most 1")
        .into())
}

/// The lengths of the rows that are compared.
fn lengths(import: &Import, tensor: &Graph) -> Vec<usize> {
    let context = tensor.context as usize;
    let once = match inputs::fixed_tokens(&import.model.graph.inputs) {
        Some(n) => vec![n],
        None => ROWS.iter().map(|&n| n.min(context)).collect(),
    };
    let work = tensor.parameters().max(1) * once.iter().sum::<usize>();
    let draws = if import.rounds_activations { (1 + DRAWN_WORK / work).clamp(DRAWS_AT_LEAST, DRAWS) } else { 1 };
    once.repeat(draws)
}

/// What the file's inputs hold: `tokens`, and a fresh sequence in the inputs that the logits need.
fn given(import: &Import, tokens: &[u32]) -> Result<HashMap<String, OnnxArray>, Diagnostic> {
    let graph = &import.model.graph;
    let ids = inputs::ids(&graph.inputs)
        .ok_or_else(|| Diagnostic::new("", "the file has no input for token ids").code(ErrorCode::ONNX_PROOF))?;
    let needed: HashSet<&str> =
        graph.needed(&[import.output.as_str()]).into_iter().flat_map(|node| node.needs()).collect();
    let mut given = HashMap::new();
    for port in graph.inputs.iter().filter(|port| needed.contains(port.name.as_str())) {
        let array = match port.name == ids.name {
            true => inputs::tokens(port, tokens),
            false => inputs::fresh(port, tokens.len(), &import.bindings),
        };
        let array = array
            .map_err(|message| Diagnostic::new(format!("input {}", port.name), message).code(ErrorCode::ONNX_PROOF));
        given.insert(port.name.clone(), array?);
    }
    Ok(given)
}

/// How far `tensor` is from the file of `import` on tokens drawn by `seed`; whether that is allowed is the caller's to ask.
///
/// # Errors
/// The file cannot be evaluated, or its logits are not finite.
pub fn compare(import: &Import, tensor: &Graph, share: Option<f32>, seed: u64) -> Result<Proof, Diagnostic> {
    let vocabulary = convert::vocabulary(tensor).map_err(Diagnostics::into_first)?;
    let output = import.output.as_str();
    let wrong = |message: String| Diagnostic::new(format!("output {output}"), message).code(ErrorCode::ONNX_PROOF);
    let evaluator = Evaluator::<f32>::new(tensor);
    let mut random = SplitMix64(seed);
    let (mut difference, mut low, mut high) = (0f32, f32::INFINITY, f32::NEG_INFINITY);
    let lengths = lengths(import, tensor);
    for &n in &lengths {
        let tokens: Vec<u32> = (0..n).map(|_| (random.bits() % vocabulary.max(1) as u64) as u32).collect();
        let outputs = graph::run(&import.model, given(import, &tokens)?, &[output])?;
        let theirs = outputs[0].as_f32().ok_or_else(|| wrong("it should be floats".into()))?;
        if let Some(bad) = theirs.iter().find(|x| !x.is_finite()) {
            let what = if bad.is_nan() { "NaN" } else { "infinite" };
            return Err(wrong(format!("the file's own logits are {what} for {n} random tokens")));
        }
        let done = evaluator.run(&tokens, &mut Memory::new(tensor))?;
        let ours = evaluator.get(&done, tensor.outputs[0].1).reals();
        let theirs = match outputs[0].sizes().last() {
            Some(&width) if import.head_added => headed(tensor, theirs, width),
            _ => theirs.to_vec(),
        };
        // A file that gives the last token's logits alone is compared there.
        let ours = ours.get(ours.len().saturating_sub(theirs.len())..).unwrap_or(ours);
        if ours.len() != theirs.len() {
            let message = format!("the file gives {} logits for {n} tokens, the network {}", theirs.len(), ours.len());
            return Err(wrong(message));
        }
        for (a, b) in ours.iter().zip(&theirs) {
            let far = (a - b).abs();
            difference = if far.is_nan() { f32::INFINITY } else { difference.max(far) };
            (low, high) = (low.min(*b), high.max(*b));
        }
    }
    let rounds_activations = import.rounds_activations;
    let tolerance = share.unwrap_or(if rounds_activations { ROUNDED_ACTIVATIONS } else { ROUNDING });
    Ok(Proof { difference, range: high - low, tokens: lengths.iter().sum(), tolerance, rounds_activations })
}

/// The token table's logits of a file that ends at the hidden state.
fn headed(tensor: &Graph, hidden: &[f32], width: usize) -> Vec<f32> {
    let table = token_table(tensor).and_then(|table| tensor.constant(table));
    let Some(table) = table.and_then(|table| table.tensor.as_f32()) else { return Vec::new() };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    hidden.chunks_exact(width).flat_map(|row| table.chunks_exact(width).map(move |token| dot(row, token))).collect()
}
