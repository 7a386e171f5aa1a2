//! Whether a network recalls: a pair of tokens is put into a text, its first token comes again later, and the second should
//! be predicted. Perplexity hardly sees this, and attention with a fading memory may lose it.
//!
//! Pairs are drawn with a seed from the ids of the text itself, so that they are tokens the network knows. What counts is by
//! how much the logarithm of the second token's probability is higher than in the same text without the pair.

use crate::evaluate::logits_of;
use crate::score::{best, log_sum_exp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::random::SplitMix64;
use snnc_runtime::{Program, Rows, Session};
use std::sync::Arc;

/// Tokens from a pair to the question.
const DISTANCES: [usize; 5] = [4, 16, 64, 192, 768];

/// Texts a distance.
const TRIALS: usize = 32;

const SEED: u64 = 0x5eed_0000_cafe;

/// What one network makes of pairs at one distance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recalled {
    /// Tokens from the pair to the question.
    pub distance: usize,
    /// By how much the pair raises the logarithm of the second token's probability, in nats.
    pub gain: f64,
    /// How often the second token is the likeliest.
    pub right: f64,
}

/// Recall at every distance that fits the program's context and the text.
///
/// # Errors
/// What the program cannot run.
pub fn recall(program: &Arc<Program>, ids: &[u32]) -> Result<Vec<Recalled>, Diagnostics> {
    let output = logits_of(program.graph())?;
    let room = (program.graph().context as usize).min(ids.len());
    let mut session = Session::new(program.clone())?;
    let mut random = SplitMix64(SEED);
    let mut all = Vec::new();
    // Some text before the pair, the pair, the distance.
    for distance in DISTANCES.into_iter().filter(|distance| distance + 8 <= room) {
        let before = (room - distance - 2).min(16);
        let length = before + distance + 1;
        let (mut gain, mut right) = (0.0, 0usize);
        for _ in 0..TRIALS {
            let mut draw = |count: usize| (random.bits() % count.max(1) as u64) as usize;
            let start = draw(ids.len() - length + 1);
            let [first, second] = [draw(ids.len()), draw(ids.len())].map(|at| ids[at]);
            let mut text = ids[start..start + length].to_vec();
            text[length - 1] = first;
            let mut ask = |text: &[u32]| -> Result<(f64, bool), Diagnostics> {
                session.reset();
                let outputs = session.forward(text, Rows::Last)?;
                let row = outputs.f32(&output).unwrap_or(&[]);
                let logit = row.get(second as usize).copied().unwrap_or(f32::NEG_INFINITY);
                Ok((f64::from(logit) - log_sum_exp(row), best(row) == second as usize))
            };
            let (without, _) = ask(&text)?;
            (text[before], text[before + 1]) = (first, second);
            let (with, found) = ask(&text)?;
            gain += with - without;
            right += usize::from(found);
        }
        all.push(Recalled { distance, gain: gain / TRIALS as f64, right: right as f64 / TRIALS as f64 });
    }
    Ok(all)
}
