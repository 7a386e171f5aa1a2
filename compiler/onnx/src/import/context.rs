//! The longest sequence of a network: its tables of positions bound it, or somebody says it.

use super::inputs::InputBindings;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::op::{ArrayOp, Binary, DenseOp, LeafOp};
use snnc_ir::verify::CONTEXT_MAX;
use snnc_ir::{Diagnostic, Graph, Op, Value};

/// The longest context that is taken without being asked for: keys and values of every token are kept.
const UNASKED_MAX: usize = 4096;

/// The context of a network without an end, of which nobody says anything.
const UNASKED: usize = 2048;

/// What a user and the files beside an ONNX file say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportOptions {
    /// What inputs hold, by name.
    pub bindings: InputBindings,
    /// The longest sequence that a user asks for, in tokens.
    pub context: Option<u32>,
    /// The longest sequence that the network is configured for, in tokens.
    pub configured: Option<u32>,
}

/// Whether a context that is asked for can be had from tables of `bound` rows.
pub(super) fn check(bound: Option<usize>, asked: Option<u32>) -> Result<(), Diagnostic> {
    let Some(asked) = asked else { return Ok(()) };
    let failed = |message: String| Err(Diagnostic::new("--context", message).code(ErrorCode::OPTION));
    if !(1..=CONTEXT_MAX).contains(&asked) {
        return failed(format!("a context of {asked} tokens; 1 to {CONTEXT_MAX} are possible"));
    }
    match bound.filter(|&bound| bound < asked as usize) {
        Some(bound) => failed(format!("a context of {asked} tokens is not possible: the file takes {bound} at most")),
        None => Ok(()),
    }
}

/// Whether rows of positions are added to what tokens are: positions that were learned have an end, and turned ones none.
pub(super) fn are_learned(graph: &Graph) -> bool {
    let users = graph.users();
    let is_position = |value: Value| graph.node(value).op == Op::Leaf(LeafOp::Positions);
    let mut rows: Vec<Value> = graph
        .iter()
        .filter(|(_, node)| {
            node.op == Op::Dense(DenseOp::Embed) && node.args.first().is_some_and(|&ids| is_position(ids))
        })
        .map(|(value, _)| value)
        .collect();
    while let Some(row) = rows.pop() {
        for &user in &users[row.index()] {
            let op = graph.node(user).op;
            if op == Op::Array(ArrayOp::Binary(Binary::Add)) {
                return true;
            }
            if matches!(op, Op::Array(ArrayOp::Reshape(_) | ArrayOp::Transpose(_))) {
                rows.push(user);
            }
        }
    }
    false
}

/// What the tables of positions in a file say of the longest sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bound {
    /// Rows of the shortest table.
    pub rows: Option<usize>,
    /// Whether its rows were learned.
    pub learned: bool,
}

/// The context of a file whose tables of positions have `bound` rows, and where it comes from if they do not say it.
pub(super) fn choose(bound: Bound, options: &ImportOptions) -> Result<(usize, Option<String>), Diagnostic> {
    check(bound.rows, options.context)?;
    if let Some(asked) = options.context {
        return Ok((asked as usize, None));
    }
    let other = "--context takes another length";
    let configured = options.configured.map(|n| n as usize).filter(|&n| n > 0);
    Ok(match (bound.rows, configured) {
        (Some(rows), _) if rows <= UNASKED_MAX || bound.learned => (rows, None),
        (Some(rows), _) => {
            (UNASKED_MAX, Some(format!("the context is {UNASKED_MAX} tokens of the {rows} that are possible; {other}")))
        }
        (None, Some(n)) if n <= UNASKED_MAX => {
            (n, Some(format!("its positions have no end: the context is {n} tokens, by config.json; {other}")))
        }
        (None, Some(n)) => (
            UNASKED_MAX,
            Some(format!(
                "its positions have no end: the context is {UNASKED_MAX} tokens of the {n} in config.json; {other}"
            )),
        ),
        (None, None) => {
            (UNASKED, Some(format!("its positions have no end: a context of {UNASKED} tokens is taken; {other}")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_asked_for_or_bound_or_configured() {
        let options = |context, configured| ImportOptions { context, configured, ..ImportOptions::default() };
        let chosen = |rows, context, configured| {
            choose(Bound { rows, learned: false }, &options(context, configured)).map(|(n, note)| (n, note.is_some()))
        };
        assert_eq!(chosen(Some(64), None, Some(128)), Ok((64, false)));
        assert_eq!(chosen(Some(131_072), None, None), Ok((4096, true)));
        assert_eq!(chosen(None, None, Some(512)), Ok((512, true)));
        assert_eq!(chosen(None, None, Some(8192)), Ok((4096, true)));
        assert_eq!(chosen(None, None, None), Ok((2048, true)));
        assert_eq!(chosen(None, Some(9000), Some(512)), Ok((9000, false)));
        let learned = Bound { rows: Some(8192), learned: true };
        assert_eq!(choose(learned, &ImportOptions::default()).map(|(n, _)| n), Ok(8192));
        assert!(chosen(Some(64), Some(65), None).is_err());
        assert!(chosen(None, Some(0), None).is_err());
    }
}
