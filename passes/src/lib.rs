//! Graph to graph: from what an exporter wrote to a spiking program.
//!
//! Every pass is a function from a graph and a context to a graph; `STANDARD` is their order. Passes read no files and no
//! clocks: what was measured on text comes in as plain data.

#![forbid(unsafe_code)]

pub mod collapse;
pub mod constants;
pub mod cost;
pub mod egraph;
pub mod features;
pub mod fit;
pub mod fold;
pub mod gradient;
pub mod hybrid;
pub mod quantise;
pub mod raise;
pub mod relax;
pub mod share;
pub mod simplify;
pub mod sites;
pub mod spike;
pub mod trained;

use fit::Fits;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::membrane::Membrane;
use snnc_ir::{Graph, Stage, verify};

/// What passes know besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The levels of every site, by value of the simplified graph.
    pub fits: Fits,
    /// Neurons that answer within the timestep take the place of those that integrate first, where a unary code allows.
    pub membrane: Option<Membrane>,
    /// A site whose neurons integrate first all the same.
    pub waiting: Option<String>,
    /// Whether the numbers of the imported graph were rounded to codes of eight bits, those of activation functions too.
    pub rounded: bool,
    /// Whether the embedding keeps its table where it might read a tied head's weight.
    pub own_embedding: bool,
}

/// A step of the compiler. `run` may assume a verified graph of stage `needs`.
#[derive(Clone, Copy)]
pub struct Pass {
    pub name: &'static str,
    pub needs: Stage,
    pub gives: Stage,
    pub run: fn(&Graph, &Context) -> Result<Graph, Diagnostics>,
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.name, self.needs.name(), self.gives.name())
    }
}

#[rustfmt::skip]
pub const STANDARD: &[Pass] = &[
    // What the exporter wrote, shape arithmetic evaluated away.
    Pass { name: "raise",    needs: Stage::Imported,  gives: Stage::Tensor,    run: raise::raise },
    // LayerNorm, linear, curve, attention; nothing else between embedding and logits.
    Pass { name: "simplify", needs: Stage::Tensor,    gives: Stage::Tensor,    run: simplify::simplify },
    // Gains are in weights. What sites hold is measured on this graph; `fit` chooses their levels.
    Pass { name: "quantise", needs: Stage::Tensor,    gives: Stage::Quantised, run: quantise::quantise },
    // Levels and int8 weights; whatever the conversion loses is lost by now.
    Pass { name: "spike",    needs: Stage::Quantised, gives: Stage::Spiking,   run: spike::spike },
    // Every level is a spike train, every product a synapse.
    Pass { name: "fold",     needs: Stage::Spiking,   gives: Stage::Spiking,   run: fold::fold },
    // Scales and biases of projections are in the neurons that read them, which integrate integers.
    Pass { name: "share",    needs: Stage::Spiking,   gives: Stage::Spiking,   run: share::share },
    // A tied head's weight serves the embedding as well, where that loses no more than int8 weights do.
];

/// Every table of rewrite rules, by the name of the pass that runs it.
pub const RULES: [(&str, &[egraph::rule::Rule]); 3] =
    [("raise", raise::RULES), ("simplify", simplify::RULES), ("collapse", collapse::RULES)];

/// Passes up to the graph that ranges are measured on, and those after it.
pub fn front_and_back() -> (&'static [Pass], &'static [Pass]) {
    let at = STANDARD.iter().position(|pass| pass.name == "quantise").unwrap_or(STANDARD.len());
    STANDARD.split_at(at)
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
        let after = (pass.run)(&graph, context)?;
        watch(pass, &graph, &after);
        verify::verify(&after).map_err(|broken| refused(pass, broken))?;
        graph = after;
    }
    Ok(graph)
}

/// The verifier's words, and how to see the graph they are about.
fn refused(pass: &Pass, mut broken: Diagnostics) -> Diagnostics {
    if let Some(first) = broken.first_mut() {
        first.notes.push(format!("found after pass `{0}`; compile with --emit ir={0} prints that graph", pass.name));
    }
    broken
}
