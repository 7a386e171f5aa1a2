//! All that an evaluation found out, and the same as data: what the table, `--json` and the page of `report` say.

use crate::evaluate::{NeuronTotals, TextEvaluation};
use crate::ledger::{Ledger, LedgerJson};
use crate::lints::{Coverage, CoverageJson, Lint, LintJson};
use crate::recall::Recalled;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::{Graph, Stage};

/// All that an evaluation found out.
#[derive(Debug)]
pub struct EvalReport {
    /// Scores and spikes.
    pub done: TextEvaluation,
    /// What ran beside it.
    pub beside: Option<ReferenceKind>,
    /// Tokens per word, for perplexity by word; a file of ids has no words.
    pub tokens_per_word: Option<f64>,
    /// Absent of a dense network, as `neurons` is.
    pub coverage: Option<Coverage>,
    /// Neurons.
    pub neurons: Option<NeuronTotals>,
    /// Warnings.
    pub lints: Vec<Lint>,
    /// Of the program, and of the dense network where there is one.
    pub recalled: Option<(Vec<Recalled>, Option<Vec<Recalled>>)>,
    /// What every site loses, where that was asked for.
    pub ledger: Option<Ledger>,
}

/// What a network is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// The dense network of an ONNX file.
    Dense,
    /// A spiking program.
    Spiking,
}

impl ReferenceKind {
    /// Of the network in this graph.
    pub fn of(graph: &Graph) -> Self {
        if graph.stage == Stage::Spiking { ReferenceKind::Spiking } else { ReferenceKind::Dense }
    }

    /// What its column is called.
    pub fn name(self) -> &'static str {
        match self {
            ReferenceKind::Dense => "dense",
            ReferenceKind::Spiking => "spiking reference",
        }
    }
}

/// An evaluation as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EvalJson {
    /// Tokens that were predicted.
    pub tokens: usize,
    /// Windows that were run.
    pub windows: usize,
    /// The exponential of the mean negative log likelihood.
    pub perplexity: f64,
    /// What intervals are drawn over: `windows`, or `tokens` of a report's one window; `null` where there are none.
    pub intervals_over: Option<&'static str>,
    /// Its 95 % confidence interval; `null` of fewer than ten windows.
    pub perplexity_95: Option<[f64; 2]>,
    /// Perplexity by word; `null` of token ids.
    pub perplexity_by_word: Option<f64>,
    /// Next-token accuracy: the share of tokens that were the likeliest.
    pub accuracy: f64,
    /// Spikes of all neurons in the run.
    pub spikes: u64,
    /// What is not as it seems.
    pub warnings: Vec<LintJson>,
    /// NeuronTotals times tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neurons: Option<u64>,
    /// Spikes per neuron and token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spikes_per_neuron: Option<f64>,
    /// Timesteps per neuron, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timesteps_mean: Option<f64>,
    /// How much of the dense network's work spikes drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageJson>,
    /// Whether a pair seen earlier is recalled, by distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<Vec<Recalled>>,
    /// The same of the dense network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_dense: Option<Vec<Recalled>>,
    /// What every site loses, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerJson>,
    /// What is known only beside the dense network.
    #[serde(flatten)]
    pub beside: Option<BesideDense>,
}

/// What is known only beside a reference: the dense network, or where `reference` says so, a spiking program.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct BesideDense {
    /// What the reference is. Keys with `dense` are about it.
    pub reference: ReferenceKind,
    /// The dense network's.
    pub perplexity_dense: f64,
    /// Its 95 % confidence interval; `null` of fewer than ten windows.
    pub perplexity_dense_95: Option<[f64; 2]>,
    /// The dense network's.
    pub perplexity_by_word_dense: Option<f64>,
    /// Rise over the dense network's perplexity, as a share; and its 95 % confidence interval, of ten windows or more.
    pub perplexity_increase: f64,
    /// Its 95 % confidence interval; `null` of fewer than ten windows.
    pub perplexity_increase_95: Option<[f64; 2]>,
    /// Mean cosine of logits, and the same around their means.
    pub cosine: f64,
    /// The same around the means.
    pub cosine_centred: f64,
    /// The share of tokens for which both networks hold the same token for likeliest.
    pub top1_agreement: f64,
    /// Its 95 % confidence interval; `null` of fewer than ten windows.
    pub top1_agreement_95: Option<[f64; 2]>,
    /// Kullback-Leibler divergence from the dense network, in nats per token.
    pub kl: f64,
    /// Its 95 % confidence interval; `null` of fewer than ten windows.
    pub kl_95: Option<[f64; 2]>,
    /// The divergence that 99 % of predictions have at most, in nats.
    pub kl_99: Option<f64>,
    /// The dense network's.
    pub accuracy_dense: f64,
}

/// An evaluation of several programs on the same text, as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EvalsJson {
    /// The programs, in the order of the command.
    pub programs: Vec<ProgramEvalJson>,
}

/// One of several programs.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ProgramEvalJson {
    /// The file, as it was named.
    pub program: String,
    /// As for one program alone.
    #[serde(flatten)]
    pub evaluation: EvalJson,
}

impl EvalReport {
    /// A sum of nats as perplexity by word.
    pub fn perplexity_by_word(&self, nll: f64) -> Option<f64> {
        Some(libm::exp(nll / self.done.score.tokens as f64 * self.tokens_per_word?))
    }

    /// Everything as data.
    pub fn json(&self) -> EvalJson {
        let done = &self.done;
        let score = &done.score;
        let tokens = score.tokens as f64;
        EvalJson {
            tokens: score.tokens,
            windows: done.windows,
            perplexity: score.perplexity(),
            intervals_over: done.intervals.map(|intervals| intervals.over),
            perplexity_95: done.intervals.map(|intervals| intervals.perplexity),
            perplexity_by_word: self.perplexity_by_word(score.nll),
            accuracy: score.right as f64 / tokens,
            spikes: done.events.iter().map(|events| events.spikes).sum::<u64>(),
            warnings: self.lints.iter().map(Lint::json).collect(),
            neurons: self.neurons.map(|neurons| neurons.neurons),
            spikes_per_neuron: self.neurons.map(|neurons| neurons.rate()),
            timesteps_mean: self.neurons.map(|neurons| neurons.mean_steps()),
            coverage: self.coverage.as_ref().map(Coverage::json),
            recall: self.recalled.as_ref().map(|(own, _)| own.clone()),
            recall_dense: self.recalled.as_ref().and_then(|(_, dense)| dense.clone()),
            ledger: self.ledger.as_ref().map(Ledger::json),
            beside: self.beside.map(|reference| BesideDense {
                reference,
                perplexity_dense: score.perplexity_dense(),
                perplexity_dense_95: done.intervals.map(|intervals| intervals.perplexity_dense),
                perplexity_by_word_dense: self.perplexity_by_word(score.nll_dense),
                perplexity_increase: score.increase(),
                perplexity_increase_95: done.intervals.map(|intervals| intervals.increase),
                cosine: score.mean(score.cosine),
                cosine_centred: score.mean(score.cosine_centred),
                top1_agreement: score.agreed as f64 / tokens,
                top1_agreement_95: done.intervals.map(|intervals| intervals.agreement),
                kl: score.mean(score.kl),
                kl_95: done.intervals.map(|intervals| intervals.kl),
                kl_99: done.kl_99,
                accuracy_dense: score.right_dense as f64 / tokens,
            }),
        }
    }
}

/// Limits that a user sets to an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gates {
    /// The largest rise of perplexity over the dense network's, as a share.
    pub max_perplexity_increase: Option<f64>,
    /// The least cosine of centred logits.
    pub min_cosine: Option<f64>,
    /// The least top-1 agreement, as a share.
    pub min_agreement: Option<f64>,
    /// No warnings.
    pub deny_warnings: bool,
}

impl Gates {
    /// The gates that failed, in words.
    pub fn failed(&self, report: &EvalReport) -> Vec<String> {
        let score = &report.done.score;
        let mut failed = Vec::new();
        let increase = score.increase();
        if let Some(most) = self.max_perplexity_increase
            && (increase.is_nan() || increase > most)
        {
            failed.push(format!("perplexity rises by {:.3} %, {:.3} % is the limit", 100.0 * increase, 100.0 * most));
        }
        let cosine = score.mean(score.cosine_centred);
        if let Some(least) = self.min_cosine
            && (cosine.is_nan() || cosine < least)
        {
            failed.push(format!("the centred cosine is {cosine:.6}, {least} is the limit"));
        }
        let agreed = score.agreed as f64 / score.tokens as f64;
        if let Some(least) = self.min_agreement
            && (agreed.is_nan() || agreed < least)
        {
            failed.push(format!("top-1 agreement is {:.2} %, {:.2} % is the limit", 100.0 * agreed, 100.0 * least));
        }
        if self.deny_warnings && !report.lints.is_empty() {
            failed.push(format!("{} warnings, and --deny", report.lints.len()));
        }
        failed
    }
}
