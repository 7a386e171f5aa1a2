//! Whether an exported file computes what the program does: both on the same random tokens, the file node by node.

use crate::evaluate::graph;
use crate::proto::ModelProto;
use crate::read;
use crate::tensor::OnnxArray;
use prost::Message;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::eval::{Evaluator, Memory};
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, ErrorCode, Graph};
use std::collections::HashMap;

/// Tokens that are run.
const TOKENS: usize = 16;

/// Seed of the tokens.
const SEED: u64 = 0x9e37_0002;

/// What levels that roundings change may do to logits, as a share of their range. Another network is ten times as far.
const TOLERANCE: f32 = 0.1;

/// How far an exported file is from its program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExportProof {
    /// Largest difference of a logit.
    pub difference: f32,
    /// Range of the program's logits.
    pub range: f32,
    /// Tokens that were run.
    pub tokens: usize,
    /// Of these, those after which both predict the same token.
    pub same_top1: usize,
}

impl ExportProof {
    /// One line for a person.
    pub fn line(&self) -> String {
        format!(
            "the file's logits differ from the program's by at most {:.1e} of their range {:.1}, and {} of {} predictions are the same \
             (random tokens)",
            self.difference / self.range.max(f32::MIN_POSITIVE),
            self.range,
            self.same_top1,
            self.tokens
        )
    }
}

/// Runs both.
///
/// # Errors
/// The file cannot be evaluated, or computes something else.
pub(super) fn prove(model: &ModelProto, program: &Graph, vocabulary: usize) -> Result<ExportProof, Diagnostics> {
    let wrong = |message: &str| Diagnostic::new("the exported file", message).code(ErrorCode::EXPORT);
    let tokens = TOKENS.min(program.context as usize);
    let mut random = SplitMix64(SEED);
    let ids: Vec<u32> = (0..tokens).map(|_| (random.bits() % vocabulary.max(1) as u64) as u32).collect();
    let (name, value) = &program.outputs[0];
    let evaluator = Evaluator::<f32>::new(program);
    let done = evaluator.run(&ids, &mut Memory::new(program))?;
    let ours = evaluator.get(&done, *value).reals();
    let read = read::read_bytes(&model.encode_to_vec())?;
    let row = OnnxArray::i64(&[1, tokens], ids.iter().map(|&id| i64::from(id)).collect());
    let outputs = graph::run(&read, HashMap::from([("input_ids".to_string(), row)]), &[name])?;
    let theirs =
        outputs[0].as_f32().filter(|theirs| theirs.len() == ours.len()).ok_or_else(|| wrong("gives no logits"))?;
    let far = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
    let difference = ours.iter().zip(theirs).map(far).fold(0.0, f32::max);
    let (low, high) = ours.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
    let width = ours.len() / tokens;
    let best = |row: &[f32]| row.iter().enumerate().fold(0, |best, (i, x)| if *x > row[best] { i } else { best });
    let rows = ours.chunks_exact(width).zip(theirs.chunks_exact(width));
    let same_top1 = rows.filter(|(ours, theirs)| best(ours) == best(theirs)).count();
    let proof = ExportProof { difference, range: high - low, tokens, same_top1 };
    if difference > TOLERANCE * proof.range {
        return Err(wrong(&format!("computes something else: {}", proof.line()))
            .note("please report the program")
            .into());
    }
    Ok(proof)
}
