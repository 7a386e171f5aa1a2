//! Whether a network recalls: a pair of tokens is put into a text, its first token comes again later, and the second should
//! be predicted. Perplexity hardly sees this, and attention with a fading memory may lose it.
//!
//! Pairs are drawn with a seed from the ids of the text itself, so that they are tokens the network knows. What counts is by
//! how much the logarithm of the second token's probability is higher than in the same text without the pair.

use crate::evaluate::logits_of;
use crate::parallel::map_in_order;
use crate::progress::Workers;
use crate::score::{best, log_sum_exp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::Diagnostic;
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

/// One question: a text, and the token that the pair makes likely at its end.
#[derive(Clone, Debug)]
struct Question {
    /// Where the pair is.
    pair: usize,
    text: Vec<u32>,
    second: u32,
}

/// Questions at a distance, as so many tokens of `ids` allow: some text before the pair, the pair, the distance.
fn questions(random: &mut SplitMix64, ids: &[u32], distance: usize, room: usize) -> Vec<Question> {
    let mut draw = |count: usize| (random.bits() % count.max(1) as u64) as usize;
    let pair = (room - distance - 2).min(16);
    let length = pair + distance + 1;
    let one = |_| {
        let start = draw(ids.len() - length + 1);
        let [first, second] = [draw(ids.len()), draw(ids.len())].map(|at| ids[at]);
        let mut text = ids[start..start + length].to_vec();
        text[length - 1] = first;
        Question { pair, text, second }
    };
    (0..TRIALS).map(one).collect()
}

impl Question {
    /// By how much the pair raises the logarithm of the second token's probability, and whether it is the likeliest then.
    fn ask(&self, session: &mut Session, output: &str) -> Result<(f64, bool), Diagnostic> {
        let mut run = |text: &[u32]| -> Result<(f64, bool), Diagnostic> {
            session.reset();
            let outputs = session.forward(text, Rows::Last)?;
            let row = outputs.f32(output).unwrap_or(&[]);
            let logit = row.get(self.second as usize).copied().unwrap_or(f32::NEG_INFINITY);
            Ok((f64::from(logit) - log_sum_exp(row), best(row) == self.second as usize))
        };
        let (without, _) = run(&self.text)?;
        let mut text = self.text.clone();
        (text[self.pair], text[self.pair + 1]) = (text[text.len() - 1], self.second);
        let (with, found) = run(&text)?;
        Ok((with - without, found))
    }
}

/// Recall at every distance that texts of `longest` tokens, the program's context and `ids` have room for.
///
/// # Errors
/// What the program cannot run; a request to stop.
pub fn recall(
    program: &Arc<Program>,
    ids: &[u32],
    longest: usize,
    workers: Workers<'_>,
) -> Result<Vec<Recalled>, Diagnostics> {
    let output = logits_of(program.graph())?;
    let room = (program.graph().context as usize).min(ids.len()).min(longest);
    let mut random = SplitMix64(SEED);
    let distances: Vec<usize> = DISTANCES.into_iter().filter(|distance| distance + 8 <= room).collect();
    let all: Vec<Question> =
        distances.iter().flat_map(|&distance| questions(&mut random, ids, distance, room)).collect();
    workers
        .progress
        .begin("recalling pairs of tokens", all.iter().map(|question| 2 * question.text.len() as u64).sum());
    let ask = |session: &mut Session, _, question: &Question| {
        let answer = question.ask(session, &output);
        workers.advance(2 * question.text.len() as u64);
        answer
    };
    let (answers, _) = map_in_order(workers, &all, || Session::new(program.clone()), ask)?;
    workers.progress.end();
    let recalled = |(&distance, answers): (&usize, &[(f64, bool)])| Recalled {
        distance,
        gain: answers.iter().map(|(gain, _)| gain).sum::<f64>() / TRIALS as f64,
        right: answers.iter().filter(|(_, right)| *right).count() as f64 / TRIALS as f64,
    };
    Ok(distances.iter().zip(answers.chunks(TRIALS)).map(recalled).collect())
}
