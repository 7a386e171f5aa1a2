//! The order of the passes, and the function that runs them.

use crate::context::Context;
use crate::egraph::rule::RewriteRule;
use crate::fold::fold;
use crate::quantise::quantise;
use crate::raise::raise;
use crate::rotate::rotate;
use crate::simplify::simplify;
use crate::spike::spike;
use crate::tie_embedding::tie_embedding;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Graph, Stage, verify};

/// A step of the compiler. `run` may assume a verified graph of stage `needs`.
#[derive(Clone, Copy)]
pub struct Pass {
    /// What `--emit` and `--passes` call it.
    pub name: &'static str,
    /// The stage of the graph that it takes.
    pub needs: Stage,
    /// The stage of the graph that it gives.
    pub gives: Stage,
    /// The pass itself.
    pub run: fn(&Graph, &Context) -> Result<Graph, Diagnostics>,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.needs.name(), self.gives.name())
    }
}

#[rustfmt::skip]
/// The passes of a compilation, in order.
pub const STANDARD: &[Pass] = &[
    // What the exporter wrote, shape arithmetic evaluated away.
    Pass { name: "raise",    needs: Stage::Imported,  gives: Stage::Tensor,    run: raise },
    // Norms, linear, curve, attention, positions; nothing else between embedding and logits.
    Pass { name: "simplify", needs: Stage::Tensor,    gives: Stage::Tensor,    run: simplify },
    // Gains and means are in weights: this is the dense network that others are compared with.
    Pass { name: "rotate",   needs: Stage::Tensor,    gives: Stage::Tensor,    run: rotate },
    // No channel is far larger than the others. What sites hold is measured on this graph; `fit` chooses their levels.
    Pass { name: "quantise", needs: Stage::Tensor,    gives: Stage::Quantised, run: quantise },
    // Levels and int8 weights; whatever the conversion loses is lost by now.
    Pass { name: "spike",    needs: Stage::Quantised, gives: Stage::Spiking,   run: spike },
    // Every level is a spike train, every product a synapse.
    Pass { name: "fold",     needs: Stage::Spiking,   gives: Stage::Spiking,   run: fold },
    // Scales and biases of projections are in the neurons that read them, which integrate integers.
    Pass { name: "tie_embedding", needs: Stage::Spiking, gives: Stage::Spiking, run: tie_embedding },
    // A tied head's weight serves the embedding as well, where that loses no more than int8 weights do.
];

/// Every table of rewrite rules, by the name of the pass that runs it.
pub const RULES: [(&str, &[RewriteRule]); 3] =
    [("raise", crate::raise::RULES), ("simplify", crate::simplify::RULES), ("collapse", crate::collapse::RULES)];

/// Passes up to the dense network, and those that follow `rotation`, behind which ranges are measured.
///
/// ```
/// use snnc_passes::{front_and_back, pipeline::rotation};
///
/// let (front, back) = front_and_back();
/// assert_eq!(front.iter().map(|pass| pass.name).collect::<Vec<_>>(), ["raise", "simplify"]);
/// assert_eq!(rotation()[0].name, "rotate");
/// assert_eq!(back[0].name, "quantise");
/// ```
pub fn front_and_back() -> (&'static [Pass], &'static [Pass]) {
    let at = place("rotate");
    (&STANDARD[..at], &STANDARD[at + rotation().len()..])
}

/// The pass between the dense network and the graph that ranges are measured on.
pub fn rotation() -> &'static [Pass] {
    &STANDARD[place("rotate")..place("quantise")]
}

fn place(name: &str) -> usize {
    STANDARD.iter().position(|pass| pass.name == name).unwrap_or(STANDARD.len())
}

/// Runs `passes` in order, shows `(pass, before, after)` to `watch` and verifies. A graph that is refused was shown.
///
/// # Errors
/// What a pass found wrong with its input; or what the verifier refused of its result.
pub fn run(
    passes: &[Pass],
    graph: Graph,
    context: &Context,
    watch: &mut dyn FnMut(&Pass, &Graph, &Graph),
) -> Result<Graph, Diagnostics> {
    let mut graph = graph;
    for pass in passes {
        assert_eq!(graph.stage, pass.needs, "pass `{}` comes at the wrong stage", pass.name);
        let after = (pass.run)(&graph, context).map_err(|errors| errors.or_code(code_of(pass)))?;
        watch(pass, &graph, &after);
        verify::verify(&after).map_err(|broken| refused(pass, broken))?;
        graph = after;
    }
    Ok(graph)
}

/// Which kind of error it is when a pass refuses its input.
fn code_of(pass: &Pass) -> ErrorCode {
    if pass.needs == Stage::Imported { ErrorCode::RAISE } else { ErrorCode::PASS }
}

/// The verifier's words, and how to see the graph they are about.
fn refused(pass: &Pass, mut broken: Diagnostics) -> Diagnostics {
    if let Some(first) = broken.first_mut() {
        first.notes.push(format!("found after pass `{0}`; compile with --emit ir={0} prints that graph", pass.name));
    }
    broken
}
