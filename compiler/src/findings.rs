//! All that an evaluation found out, and the same as data: what the table, `--json` and the page of `report` say.

use crate::evaluate::{Evaluation, Neurons};
use crate::ledger::Ledger;
use crate::lints::{self, Coverage, Lint};
use crate::recall::{self, Recalled};
use serde_json::{Value as Json, json};

/// All that an evaluation found out.
#[derive(Debug)]
pub struct Findings {
    pub done: Evaluation,
    pub beside: bool,
    /// Tokens a word, for perplexity by word.
    pub tokens_a_word: f64,
    pub coverage: Option<Coverage>,
    pub neurons: Option<Neurons>,
    pub lints: Vec<Lint>,
    /// Of the program, and of the dense network where there is one.
    pub recalled: Option<(Vec<Recalled>, Option<Vec<Recalled>>)>,
    pub ledger: Option<Ledger>,
}

impl Findings {
    /// Everything as data.
    pub fn json(&self) -> Json {
        let done = &self.done;
        let score = &done.score;
        let tokens = score.tokens as f64;
        let by_word = |nll: f64| libm::exp(nll / tokens * self.tokens_a_word);
        let mut json = json!({
            "tokens": score.tokens,
            "windows": done.windows,
            "perplexity": score.perplexity(),
            "perplexity_by_word": by_word(score.nll),
            "accuracy": score.right as f64 / tokens,
            "spikes": done.events.iter().map(|events| events.spikes).sum::<u64>(),
            "warnings": lints::json(&self.lints),
        });
        if let Some(neurons) = &self.neurons {
            json["neurons"] = json!(neurons.neurons);
            json["spikes_per_neuron"] = json!(neurons.rate());
            json["timesteps_mean"] = json!(neurons.mean_steps());
        }
        if let Some(coverage) = &self.coverage {
            json["coverage"] = coverage.json();
        }
        if let Some((own, dense)) = &self.recalled {
            json["recall"] = recall::json(own);
            if let Some(dense) = dense {
                json["recall_dense"] = recall::json(dense);
            }
        }
        if let Some(ledger) = &self.ledger {
            json["ledger"] = ledger.json();
        }
        if self.beside {
            json["perplexity_dense"] = json!(score.perplexity_dense());
            json["perplexity_by_word_dense"] = json!(by_word(score.nll_dense));
            json["perplexity_increase"] = json!(score.perplexity() / score.perplexity_dense() - 1.0);
            json["perplexity_increase_95"] = json!(self.done.interval);
            json["cosine"] = json!(score.mean(score.cosine));
            json["cosine_centred"] = json!(score.mean(score.cosine_centred));
            json["top1_agreement"] = json!(score.agreed as f64 / tokens);
            json["kl"] = json!(score.mean(score.kl));
            json["accuracy_dense"] = json!(score.right_dense as f64 / tokens);
        }
        json
    }
}
