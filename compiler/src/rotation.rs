//! Rotation of a network before its levels are chosen: what is rotated, and that the network stays what it was.
//!
//! `--rotate auto` rotates where channels behind norms are far apart on a few windows of the sample; nothing else is gained by it.
//! What was rotated is kept with the calibration, because levels belong to the rotated network: a command that reads them again
//! rotates the dense network in the same way (`as_calibrated`).

use crate::calibrate::{TokenWindows, calibrate};
use crate::calibration::Calibration;
use crate::describe::token_table;
use crate::progress::{Silent, Workers};
use crate::record::RotationRecord;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, Graph, Op};
use snnc_passes::options::{Rotate, Rotations};
use snnc_passes::sites::sites;
use snnc_passes::{Context, Pass, fit, pipeline, rotate, run};

/// Channels are far apart where, behind some norm, the farthest reaches so many times as far as the median one. On 256 tokens that is
/// 56 in SmolLM2-135M, 19 in the demo model of tales, 6 in a Llama of 260 k weights and 4 in the demo model of WikiText-2.
const FAR_APART: f32 = 25.0;

/// Windows of the sample that `auto` looks at, at most, and tokens of each.
const LOOK: (usize, usize) = (4, 64);

/// Tokens whose logits are compared.
const PROOF_TOKENS: usize = 16;

/// What rotation may change of logits, as a share of their range: they are added up in another order.
const ROUNDING: f32 = 1e-3;

/// Seed of those tokens.
const SEED: u64 = 0x9e37_0002;

/// What is shown the pass with the graphs before and after.
type PassWatch<'a> = dyn FnMut(&Pass, &Graph, &Graph) + 'a;

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

/// `tensor` with what is asked for rotated; `windows` are the sample's.
///
/// # Errors
/// What is asked for cannot be rotated, or changes the network by more than rounding; a request to stop.
pub fn rotated(
    tensor: Graph,
    asked: Rotate,
    windows: &TokenWindows,
    workers: Workers<'_>,
    watch: &mut PassWatch<'_>,
) -> Result<Rotated, Diagnostics> {
    let rotations = match asked {
        Rotate::These(rotations) => rotations,
        Rotate::Auto => chosen(&tensor, windows, workers)?,
    };
    let turned = turned(tensor.clone(), rotations, watch)?;
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
    turned(tensor, Calibration::rotations(section)?, watch)
}

fn turned(tensor: Graph, rotations: Rotations, watch: &mut PassWatch<'_>) -> Result<Graph, Diagnostics> {
    run(pipeline::rotation(), tensor, &Context { rotations, ..Context::default() }, watch)
}

/// What can be rotated, where channels are far apart: the residual stream and the values of heads by what norms give, hidden layers by
/// what gates give, and with the others.
fn chosen(tensor: &Graph, windows: &TokenWindows, workers: Workers<'_>) -> Result<Rotations, Diagnostics> {
    let (possible, reasons) = rotate::possible(tensor);
    if possible == Rotations::default() {
        return Ok(possible);
    }
    let [norms, gates] = spreads(tensor, windows, workers.threads)?;
    let (by_norms, by_gates) = (norms >= FAR_APART, norms.max(gates) >= FAR_APART);
    let rotations = Rotations {
        residual: possible.residual && by_norms,
        heads: possible.heads && by_norms,
        hidden: possible.hidden && by_gates,
    };
    let what = match rotations.names().join(", ") {
        none if none.is_empty() => "nothing is rotated".to_string(),
        names => format!("rotated: {names}"),
    };
    workers.progress.status(&format!(
        "the farthest channel behind a norm reaches {norms:.1} times as far as the median one, behind a gate {gates:.1} times: {what}"
    ));
    if by_gates {
        reasons.iter().for_each(|reason| workers.progress.status(&format!("not rotated: {reason}")));
    }
    Ok(rotations)
}

/// How far the channels behind norms and behind gates are apart: the farthest channel's reach, its range times its weights, over that of
/// the median channel, at the site where that is most.
fn spreads(tensor: &Graph, windows: &TokenWindows, threads: usize) -> Result<[f32; 2], Diagnostics> {
    let (most, length) = LOOK;
    let every = windows.len().div_ceil(most).max(1);
    let few = windows.iter().step_by(every).map(|window| window[..window.len().min(length)].to_vec()).collect();
    let seen = calibrate(tensor, &few, &[], Workers { threads, progress: &Silent })?;
    let mut spreads = [0f32; 2];
    for site in sites(tensor) {
        let kind = match tensor.node(site.value).op {
            Op::Dense(DenseOp::RmsNorm { heads: 1, .. }) => 0,
            Op::Dense(DenseOp::Gated(_)) => 1,
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => continue,
        };
        if let Some(seen) = seen.get(&site.value) {
            spreads[kind] = spreads[kind].max(fit::spread(tensor, site.value, seen));
        }
    }
    Ok(spreads)
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
