//! How near a program is to the dense network that it learns from: on text, and on pairs of tokens seen earlier.

use crate::evaluate::{Cut, evaluate};
use crate::progress::Workers;
use crate::recall::{Recalled, recall};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::Graph;
use snnc_ir::diagnostic::Diagnostics;
use snnc_passes::collapse;
use snnc_runtime::{Options, Program};
use std::sync::Arc;

/// Windows that program and dense network are compared on, before and after training.
pub const COMPARED_WINDOWS: usize = 32;

/// A program beside the dense network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Whether a pair seen earlier is recalled, by distance.
    pub recall: Vec<Recalled>,
    /// The same of the dense network.
    pub recall_dense: Vec<Recalled>,
    /// Tokens that were predicted.
    pub tokens: usize,
    /// The exponential of the mean negative log likelihood.
    pub perplexity: f64,
    /// The dense network's.
    pub perplexity_dense: f64,
    /// Kullback-Leibler divergence from the dense network's predictions, in nats per token.
    pub kl: f64,
    /// The share of tokens for which both networks hold the same token for likeliest.
    pub top1_agreement: f64,
}

impl Comparison {
    /// Runs both networks on `ids`, in texts of at most `longest` tokens.
    ///
    /// # Errors
    /// What cannot be run; a request to stop.
    pub fn of(
        program: &Graph,
        dense: &Graph,
        ids: &[u32],
        longest: usize,
        workers: Workers<'_>,
    ) -> Result<Self, Diagnostics> {
        let options = Options { count: false, ..Options::default() };
        let graph = if collapse::depends_on_order(program) { program.clone() } else { collapse::collapse(program)? };
        let program = Arc::new(Program::new(Arc::new(graph), &options)?);
        let dense = Arc::new(Program::new(Arc::new(dense.clone()), &options)?);
        let cut = Cut { length: Some(longest), stride: None, windows: COMPARED_WINDOWS };
        let score = evaluate(&program, Some(&dense), ids, cut, workers)?.score;
        Ok(Self {
            recall: recall(&program, ids, longest, workers)?,
            recall_dense: recall(&dense, ids, longest, workers)?,
            tokens: score.tokens,
            perplexity: score.perplexity(),
            perplexity_dense: score.perplexity_dense(),
            kl: score.mean(score.kl),
            top1_agreement: score.agreed as f64 / score.tokens as f64,
        })
    }

    /// One line for a person.
    pub fn words(&self) -> String {
        let recalled = self.recall.iter().zip(&self.recall_dense);
        let recalled = recalled.map(|(own, dense)| format!("{} ago {:.2} ({:.2})", own.distance, own.gain, dense.gain));
        format!(
            "perplexity {:.3} (dense {:.3}, {:+.2} %), KL from dense {:.5}, top-1 agreement {:.2} %; recall of a pair, nats \
             (dense): {}",
            self.perplexity,
            self.perplexity_dense,
            100.0 * (self.perplexity / self.perplexity_dense - 1.0),
            self.kl,
            100.0 * self.top1_agreement,
            recalled.collect::<Vec<String>>().join(", ")
        )
    }
}
