//! The IR after every pass, and what each pass changed.
//!
//! Values are numbered anew by every pass, so lines are compared without those numbers: a line is the same if its operation,
//! its constants, its type and its origin are.

use crate::calibration::Calibration;
use crate::convert;
use crate::first_token;
use crate::rotation::as_calibrated;
use schemars::JsonSchema;
use serde::Serialize;
use similar::{Algorithm, ChangeTag, capture_diff_slices};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Graph, text};
use snnc_passes::{Context, Pass, collapse, front_and_back, run};
use std::collections::HashMap;
use std::sync::Arc;

/// All stages. A change is a sign, 0 the same, 1 new, -1 gone, and a line by its index into `lines`.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Passes {
    /// All lines of all stages, each once.
    pub lines: Vec<String>,
    /// In the order of the passes.
    pub stages: Vec<StageText>,
    /// Whether these passes give the very program of the file; `None` where they begin with it.
    pub gives_program: Option<bool>,
}

/// The graph after one pass, as its difference from the one before; the first is all new.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StageText {
    /// The pass.
    pub pass: String,
    /// The stage of the graph.
    pub stage: &'static str,
    /// Operations and constants.
    pub nodes: usize,
    /// Where weights lie.
    pub weights: usize,
    /// Signs and lines.
    pub changes: Vec<(i8, u32)>,
}

/// The passes from the dense network to the program, then its collapse. `section` is what the program keeps of its
/// calibration; without the dense network, the program and its collapse are all there is.
///
/// # Errors
/// A pass refuses its graph, which then does not belong to the program.
pub fn passes(
    program: &Graph,
    dense: Option<(Graph, bool)>,
    section: Option<&[u8]>,
    own_embedding: bool,
) -> Result<Passes, Diagnostics> {
    let mut listing = PassListing::default();
    let last = match (dense, section) {
        (Some(dense), Some(section)) => {
            let (made, same) =
                run_again(program, dense, section, own_embedding, &mut |pass, graph| listing.add(pass, graph))?;
            listing.passes.gives_program = Some(same);
            made
        }
        _ => {
            listing.add("program", program);
            program.clone()
        }
    };
    if !collapse::depends_on_order(&last) {
        listing.add("collapse", &collapse::collapse(&last)?);
    }
    Ok(listing.passes)
}

/// Runs the passes from the dense network, which comes with whether it rounds activations, to the program. `watch` sees the
/// graph after each, the imported one first. The last graph, and whether it is the very program of the file.
///
/// # Errors
/// A pass refuses its graph, which then does not belong to the program.
pub fn run_again(
    program: &Graph,
    (imported, rounded): (Graph, bool),
    section: &[u8],
    own_embedding: bool,
    watch: &mut dyn FnMut(&str, &Graph),
) -> Result<(Graph, bool), Diagnostics> {
    watch("imported", &imported);
    let mut watch = |pass: &Pass, _: &Graph, after: &Graph| watch(pass.name, after);
    let tensor = convert::dense(imported, rounded, &mut watch)?;
    let tensor = as_calibrated(tensor, section, &mut watch)?;
    let calibration = Calibration::read(section, &tensor)?.with_weights_of(program);
    let start = first_token::rows(&tensor, &calibration.starts)?.map(Arc::new);
    let Calibration { membrane, rotations, quant_plan, rounded_weights, .. } = calibration;
    let known = Context { rotations, quant_plan, rounded_weights, start, ..Context::default() };
    let context = Context { membrane, own_embedding, ..known };
    let made = run(front_and_back().1, tensor, &context, &mut watch)?;
    // Files hold weights in panels, which the text says.
    let same = text::print(&made.clone().in_panels()) == text::print(program);
    Ok((made, same))
}

/// Stages in the making.
#[derive(Default)]
struct PassListing {
    passes: Passes,
    /// Lines by their text.
    known: HashMap<String, u32>,
    /// The last stage's lines.
    last: Vec<u32>,
}

impl PassListing {
    fn add(&mut self, pass: &str, graph: &Graph) {
        let text = text::print(graph);
        let now: Vec<u32> = text.lines().filter(|line| !line.is_empty()).map(|line| self.line(line)).collect();
        let keys = |lines: &[u32]| lines.iter().map(|&line| key(&self.passes.lines[line as usize])).collect::<Vec<_>>();
        let (before, after) = (keys(&self.last), keys(&now));
        let changes = capture_diff_slices(Algorithm::Myers, &before, &after)
            .iter()
            .flat_map(|op| op.iter_changes(&before, &after))
            .filter_map(|change| match change.tag() {
                ChangeTag::Equal => Some((0, now[change.new_index()?])),
                ChangeTag::Insert => Some((1, now[change.new_index()?])),
                ChangeTag::Delete => Some((-1, self.last[change.old_index()?])),
            })
            .collect();
        self.passes.stages.push(StageText {
            pass: pass.into(),
            stage: graph.stage.name(),
            nodes: graph.nodes.len() - graph.weights.len(),
            weights: graph.weights.len(),
            changes,
        });
        self.last = now;
    }

    fn line(&mut self, line: &str) -> u32 {
        let next = self.passes.lines.len() as u32;
        let index = *self.known.entry(line.to_string()).or_insert(next);
        if index == next {
            self.passes.lines.push(line.to_string());
        }
        index
    }
}

/// A line without the numbers of values.
fn key(line: &str) -> String {
    let mut key = String::with_capacity(line.len());
    let mut numbered = false;
    for c in line.chars() {
        if !(numbered && c.is_ascii_digit()) {
            numbered = c == '%';
            key.push(c);
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn a_line_is_known_without_its_numbers() {
        let line = "%12 = add(%7, %103) : f32[tokens,256]  // /h.0/Add_1";
        assert_eq!(key(line), "% = add(%, %) : f32[tokens,256]  // /h.0/Add_1");
    }
}
