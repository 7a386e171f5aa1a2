//! The token that texts begin with as a constant of the network.
//!
//! Attention of most language models rests on the first token, and its activations are a thousand times those of others (massive
//! activations: Sun et al. 2024). Nothing is before it, so what it makes of the residual stream is the same in every text. The dense
//! network computes that once; the program puts it where a sequence begins with that token (`at_start`). Ranges are then those of the other tokens.

use crate::calibrate::TokenWindows;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::tensor::Data;
use snnc_ir::{Builder, Diagnostic, Graph, Op, Value};
use snnc_passes::StartRows;
use snnc_passes::options::{FirstToken, QuantOptions};
use snnc_passes::sites::streams;

/// The tokens whose rows become constants: `start`, with which all texts of the sample begin, where it is asked for.
///
/// # Errors
/// It is asked for, and texts do not begin with one token, or the network has no sums to keep it in.
pub fn chosen(tensor: &Graph, start: Option<u32>, options: &QuantOptions) -> Result<Vec<u32>, Diagnostics> {
    let start = start.filter(|_| !streams(tensor).is_empty());
    match (options.first_token, start) {
        (FirstToken::Computed, _) | (FirstToken::Auto, None) => Ok(Vec::new()),
        (FirstToken::Auto, Some(_)) if !options.thresholds.are_fixed() => Ok(Vec::new()),
        (FirstToken::Auto | FirstToken::Constant, Some(start)) => Ok(vec![start]),
        (FirstToken::Constant, None) => {
            let message = "there is no token that all texts begin with, whose rows could be kept";
            let advice = "name one with --start TOKEN, or leave out --first-token";
            Err(Diagnostic::new("--first-token", message).code(ErrorCode::OPTION).note(advice).into())
        }
    }
}

/// Windows as long as before that begin with `start`. Those that are there for their start alone begin within a sentence, where the
/// second token may have massive activations as well (a full stop behind the start token has, in SmolLM2-135M); they are left out.
pub fn led_by(start: u32, mut windows: TokenWindows) -> TokenWindows {
    let longest = windows.iter().map(Vec::len).max().unwrap_or(0);
    windows.retain(|window| 2 * window.len() > longest);
    let led = |window: Vec<u32>| {
        if window.first() == Some(&start) {
            return window;
        }
        let rest = window.len().saturating_sub(1);
        std::iter::once(start).chain(window.into_iter().take(rest)).collect()
    };
    windows.into_iter().map(led).collect()
}

/// The tokens whose rows a program keeps.
pub fn constants_of(program: &Graph) -> Vec<u32> {
    let node = program.nodes.iter().find(|node| node.op == Op::Dense(DenseOp::AtStart));
    let ids = node.and_then(|node| program.constant(node.args[3]));
    match ids.map(|ids| ids.tensor.data()) {
        Some(Data::I32(ids)) => ids.iter().map(|&id| id as u32).collect(),
        _ => Vec::new(),
    }
}

/// Rows of the residual stream where these tokens begin a sequence. `None` of none.
///
/// # Errors
/// The network cannot be run on one of them.
pub fn rows(tensor: &Graph, tokens: &[u32]) -> Result<Option<StartRows>, Diagnostics> {
    if tokens.is_empty() {
        return Ok(None);
    }
    let streams = streams(tensor);
    let outputs: Vec<(String, Value)> = streams.iter().map(|value| (format!("{}", value.0), *value)).collect();
    let graph = Builder::with_outputs(tensor, outputs);
    let evaluator = Evaluator::<f32>::new(&graph);
    let mut all =
        StartRows { tokens: tokens.to_vec(), rows: streams.iter().map(|value| (*value, Vec::new())).collect() };
    for token in tokens {
        let done = evaluator.run(&[*token], &mut Memory::new(&graph))?;
        for (rows, (_, output)) in all.rows.values_mut().zip(&graph.outputs) {
            rows.extend_from_slice(evaluator.get(&done, *output).reals());
        }
    }
    Ok(Some(all))
}
