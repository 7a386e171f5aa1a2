//! Honesty about a program as a whole: attention that was never trained, and predictions much worse than the reference's.

use crate::lints::{Lint, LintKind};
use crate::record::ProgramRecord;
use snnc_ir::op::{LevelOp, SpikeOp};
use snnc_ir::{Code, Graph, Op};

/// Layers whose attention computes no softmax, in words. It says little before it is trained.
pub fn needs_training(graph: &Graph) -> Option<String> {
    let variants = graph.nodes.iter().filter_map(|node| {
        let Op::Level(LevelOp::Ssa { variant, .. }) = node.op else { return None };
        variant.needs_training().then(|| variant.name())
    });
    let mut names: Vec<&str> = variants.collect();
    let layers = names.len();
    names.sort_unstable();
    names.dedup();
    let plural = if layers == 1 { "" } else { "s" };
    let words = || {
        format!(
            "attention of {layers} layer{plural} ({}) is not trained: it computes no softmax, so this network needs `snnc train`",
            names.join(", ")
        )
    };
    (layers > 0).then(words)
}

/// Layers that integrate first though time-stepped neurons were asked for, in words: a gate multiplies what they hear.
pub fn integrates_first(graph: &Graph) -> Option<String> {
    let membranes = graph.nodes.iter().filter_map(|node| match node.op {
        Op::Spike(SpikeOp::Integrate { membrane, .. }) => Some(membrane),
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
    });
    let membrane = membranes.into_iter().next()?;
    let unary = |op: Op| matches!(op, Op::Spike(SpikeOp::GatedFire { code: Code::Unary, .. }));
    let layers = graph.nodes.iter().filter(|node| unary(node.op)).count();
    let plural = if layers == 1 { "" } else { "s" };
    let words = || {
        format!(
            "neurons of {layers} MLP layer{plural} integrate first, where {} was asked for: a gate multiplies what they hear",
            membrane.name()
        )
    };
    (layers > 0).then(words)
}

/// What is to be said of a program before it is run, by what it says of its making: attention that was never trained, and what
/// its training came to.
pub fn program_lints(graph: &Graph, provenance: Option<&[u8]>) -> Vec<Lint> {
    let record = ProgramRecord::of(provenance);
    let untrained = if record.training.is_empty() { needs_training(graph) } else { None };
    let untrained = untrained.map(|message| Lint { kind: LintKind::Untrained, place: "the program".into(), message });
    let measured =
        record.measured.and_then(|found| much_worse(found.perplexity, found.perplexity_dense, "after training"));
    untrained.into_iter().chain(measured).collect()
}

/// A rise of perplexity over the reference's that is worth a warning, as a share.
const RISE_MOST: f64 = 0.5;

/// What is to be said of a perplexity beside that of a reference.
pub fn much_worse(perplexity: f64, reference: f64, place: &str) -> Option<Lint> {
    let rise = perplexity / reference - 1.0;
    // A perplexity that is no number is no better.
    let fine = rise <= RISE_MOST;
    (!fine).then(|| Lint {
        kind: LintKind::Perplexity,
        place: place.into(),
        message: format!(
            "perplexity {perplexity:.1} is {:.0} % above the reference's {reference:.1}: the text of this network is worth little",
            100.0 * rise
        ),
    })
}
