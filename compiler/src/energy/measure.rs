//! What a network does: run on text, or expected from rates.

use crate::evaluate::{Cut, TextEvaluation, evaluate};
use crate::lints;
use crate::progress::Workers;
use serde_json::Value as Json;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Heads;
use snnc_ir::{Diagnostic, Graph};
use snnc_passes::cost::{Activity, Rate};
use snnc_runtime::Program;
use std::sync::Arc;

/// What is run: windows of `length` tokens, so many, spread evenly over the text.
#[derive(Clone, Copy, Debug)]
pub struct MeasuredWindows {
    /// Tokens of a window.
    pub length: usize,
    /// Windows, at most.
    pub count: usize,
}

impl MeasuredWindows {
    /// As windows of an evaluation.
    pub fn cut(self) -> Cut {
        Cut { length: Some(self.length), stride: None, windows: self.count }
    }
}

/// The activity of `program` on `ids`, the same on any engine and number of threads; and how well it predicted.
///
/// # Errors
/// The text is empty, or the program cannot be run on it.
pub fn measure<'a>(
    program: &Arc<Program>,
    ids: &[u32],
    windows: MeasuredWindows,
    workers: impl Into<Workers<'a>>,
) -> Result<(Activity, TextEvaluation), Diagnostics> {
    let done = evaluate(program, None, ids, windows.cut(), workers)?;
    Ok((done.activity(), done))
}

/// Tokens whose activity is expected: so many that counts are not rounded away.
const EXPECTED_TOKENS: u64 = 1024;

/// The activity to expect of windows of `context` tokens: every layer fires at `rate`, or as it did on the calibration text,
/// which `section` of the program keeps. Every key that is met is taken to fire.
///
/// # Errors
/// A layer has no rate: the program keeps none.
pub fn expected(
    graph: &Graph,
    section: Option<&Json>,
    rate: Option<Rate>,
    context: u64,
) -> Result<Activity, Diagnostics> {
    let mut diagnostics = Diagnostics::new();
    let mut rates = vec![Rate { spikes: 0.0, active: 0.0 }; graph.nodes.len()];
    for (value, _) in graph.iter().filter(|(_, node)| node.op.is_neuron()) {
        let name = lints::name_of(graph, value);
        let kept = |key: &str| section?["sites"][&name][key].as_f64().filter(|rate| *rate >= 0.0);
        let calibrated = || Some(Rate { spikes: kept("spikes")?, active: kept("active")?.min(1.0) });
        match rate.or_else(calibrated) {
            Some(rate) => rates[value.index()] = rate,
            None => diagnostics.push(Diagnostic::new(name, "has no calibrated rate; give --text or --firing-rate")),
        }
    }
    // A token meets half of the context on average, or what its window holds of that.
    let keys = |heads: Heads| heads.keys(0, context as usize) / context.max(1);
    let activity = Activity::expected(graph, EXPECTED_TOKENS, &keys, &|value| rates[value.index()], 1.0);
    if diagnostics.is_empty() { Ok(activity) } else { Err(diagnostics) }
}
