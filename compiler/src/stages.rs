//! A network at a stage of its compilation: the graph after a pass, and the one before it.

use crate::convert::{self, CALIBRATION_WINDOW, ConvertOptions, Sample};
use crate::files::Model;
use crate::front::{self, OnnxOptions};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph};
use snnc_passes::options::QuantOptions;
use snnc_passes::{Pass, STANDARD, collapse, front_and_back};
use std::path::Path;

/// The graph after a pass, and the one before it.
#[derive(Clone, Debug)]
pub struct StagesShown {
    /// Before; `None` where no pass was run.
    pub before: Option<Graph>,
    /// After.
    pub after: Graph,
}

/// The graph of a `.snn`, or of an ONNX file or a folder, after the pass `until`. Without one: what a `.snn` holds, and of another
/// model what `simplify` gives.
///
/// # Errors
/// What cannot be read; a pass that does not exist, or that a compiled program has been through.
pub fn shown(model: &Path, onnx: &OnnxOptions, until: Option<&str>) -> Result<StagesShown, Diagnostics> {
    match front::load(model, onnx)? {
        Model::Snn(file) => match until {
            None | Some("tie_embedding") => Ok(StagesShown { before: None, after: file.graph }),
            Some("collapse") => {
                let after = collapse::collapse(&file.graph)?;
                Ok(StagesShown { before: Some(file.graph), after })
            }
            Some(other) => Err(unknown(
                other,
                "a compiled program has been through all passes up to tie_embedding; collapse may follow",
            )),
        },
        Model::Dense(dense) => {
            let rounded = dense.rounds_activations();
            of_dense(dense.into_graph(), rounded, until.unwrap_or("simplify"))
        }
    }
}

fn unknown(name: &str, known: &str) -> Diagnostics {
    let error = Diagnostic::new("--until", format!("there is no pass `{name}` here")).code(ErrorCode::OPTION);
    Diagnostics::from(error.note(known))
}

/// The graphs before and after a pass. Ranges, where a pass needs them, are those of seeded ids: the shape of the program does
/// not depend on them.
fn of_dense(imported: Graph, rounded: bool, until: &str) -> Result<StagesShown, Diagnostics> {
    if until == "imported" {
        return Ok(StagesShown { before: None, after: imported });
    }
    if !STANDARD.iter().any(|pass| pass.name == until) {
        let known: Vec<&str> = STANDARD.iter().map(|pass| pass.name).collect();
        return Err(unknown(until, &format!("there are imported, {}", known.join(", "))));
    }
    let mut seen = None;
    let mut watch = |pass: &Pass, before: &Graph, after: &Graph| {
        if pass.name == until {
            seen = Some(StagesShown { before: Some(before.clone()), after: after.clone() });
        }
    };
    let (front, _) = front_and_back();
    if front.iter().any(|pass| pass.name == until) {
        convert::dense(imported, rounded, &mut watch)?;
    } else {
        let recipe =
            ConvertOptions { quant: QuantOptions::default(), calibration_tokens: CALIBRATION_WINDOW, threads: 1 };
        convert::convert(imported, rounded, &Sample::SeededIds, &recipe, &mut watch)?;
    }
    seen.ok_or_else(|| unknown(until, "it was not reached"))
}
