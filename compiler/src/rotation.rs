//! Rotation of a network before its levels are chosen: what is rotated, and that the network stays what it was.
//!
//! `--rotate auto` rotates where that is worth it on a few windows of the sample (`worth`).
//! What was rotated is kept with the calibration, because levels belong to the rotated network: a command that reads them again
//! rotates the dense network in the same way (`as_calibrated`).

mod turned;
mod worth;

use crate::calibrate::TokenWindows;
use crate::calibration::Calibration;
use crate::describe::token_table;
use crate::progress::Workers;
use crate::record::RotationRecord;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, Graph, WeightStore};
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_passes::pipeline;
use turned::{PassWatch, turned};
use worth::worthwhile;

/// Tokens whose logits are compared.
const PROOF_TOKENS: usize = 16;

/// What rotation may change of logits, as a share of their range: they are added up in another order.
const ROUNDING: f32 = 1e-3;

/// Seed of those tokens.
const SEED: u64 = 0x9e37_0002;

/// A network, perhaps rotated.
#[derive(Debug)]
pub struct Rotated {
    /// At stage Tensor: what ranges are measured on.
    pub tensor: Graph,
    /// What was rotated.
    pub rotations: Rotations,
    /// How near its logits are to those before; `None` where nothing was rotated.
    pub record: Option<RotationRecord>,
}

impl Rotated {
    /// The choice that does the same again.
    pub fn choice(&self, asked: Rotate) -> Rotate {
        if self.rotations == Rotations::default() { asked } else { Rotate::These(self.rotations) }
    }
}

/// `tensor` with what `options` ask for rotated; `windows` are the sample's, `starts` what is constant of texts' beginnings;
/// `store` keeps weights that are made.
///
/// # Errors
/// What is asked for cannot be rotated, or changes the network by more than rounding; a request to stop.
pub fn rotated(
    tensor: Graph,
    options: &QuantOptions,
    windows: &TokenWindows,
    starts: &[Vec<u32>],
    store: Option<&dyn WeightStore>,
    workers: Workers<'_>,
    watch: &mut PassWatch<'_>,
) -> Result<Rotated, Diagnostics> {
    let asked = options.rotate;
    let (rotations, turned) = match asked {
        Rotate::These(rotations) => (rotations, turned(tensor.clone(), rotations, store, watch)?),
        Rotate::Auto => match worthwhile(&tensor, options, windows, starts, store, workers)? {
            Some((rotations, rotated)) => {
                pipeline::rotation().iter().for_each(|pass| watch(pass, &tensor, &rotated));
                (rotations, rotated)
            }
            None => (Rotations::default(), turned(tensor.clone(), Rotations::default(), store, watch)?),
        },
    };
    if rotations == Rotations::default() {
        return Ok(Rotated { tensor: turned, rotations, record: None });
    }
    let record = compare(&tensor, &turned, rotations)?;
    if record.difference <= ROUNDING * record.range {
        workers.progress.status(&record.line());
        return Ok(Rotated { tensor: turned, rotations, record: Some(record) });
    }
    let message = format!("the network is not what it was: {}", record.line());
    match asked {
        Rotate::These(_) => Err(Diagnostic::new("--rotate", message).code(ErrorCode::PASS).into()),
        Rotate::Auto => {
            workers.progress.warn(&format!("{message}; nothing is rotated"));
            Ok(Rotated { tensor, rotations: Rotations::default(), record: None })
        }
    }
}

/// The dense network in the form that the levels of a program belong to; `section` is what the program keeps of its calibration.
///
/// # Errors
/// The section is not one of this version, or belongs to another network.
pub fn as_calibrated(tensor: Graph, section: &[u8], watch: &mut PassWatch<'_>) -> Result<Graph, Diagnostics> {
    turned(tensor, Calibration::rotations(section)?, None, watch)
}

/// The logits of both networks on a few seeded tokens.
fn compare(before: &Graph, after: &Graph, rotations: Rotations) -> Result<RotationRecord, Diagnostics> {
    let vocabulary = token_table(before).and_then(|table| before.table_rows(table)).unwrap_or(1);
    let mut random = SplitMix64(SEED);
    let tokens = PROOF_TOKENS.min(before.context as usize);
    let ids: Vec<u32> = (0..tokens).map(|_| (random.bits() % vocabulary.max(1) as u64) as u32).collect();
    let logits = |graph: &Graph| -> Result<Vec<f32>, Diagnostic> {
        let evaluator = Evaluator::<f32>::new(graph);
        let done = evaluator.run(&ids, &mut Memory::new(graph))?;
        Ok(evaluator.get(&done, graph.outputs[0].1).reals().to_vec())
    };
    let (before, after) = (logits(before)?, logits(after)?);
    let far = before.iter().zip(&after).map(|(a, b)| (a - b).abs());
    let difference = far.fold(0f32, |most, far| if far.is_nan() { f32::INFINITY } else { most.max(far) });
    let (low, high) = before.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
    let rotated = rotations.names().into_iter().map(str::to_string).collect();
    Ok(RotationRecord { rotated, difference, range: high - low, tokens: ids.len() })
}
