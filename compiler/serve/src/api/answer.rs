//! Parts that all answers have: why a text ended, how many tokens there were, and what its spikes took.

use crate::app::Collected;
use crate::job::{JobCounts, JobEnd};
use schemars::JsonSchema;
use serde::Serialize;
use snnc::generate::Stopped;
use std::collections::BTreeMap;

/// `stop`: the text has an end. `length`: it has as many tokens as it may.
pub fn finish_reason(stopped: Stopped) -> &'static str {
    match stopped {
        Stopped::EndOfText | Stopped::StopText => "stop",
        Stopped::Enough | Stopped::Context => "length",
    }
}

/// How many tokens there were.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Usage {
    /// Of the prompts.
    pub prompt_tokens: usize,
    /// That were written.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// More on the prompts'.
    pub prompt_tokens_details: PromptDetails,
    /// What the neurons did, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snn: Option<SpikeUsage>,
}

/// Tokens of prompts.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct PromptDetails {
    /// Whose state an earlier request had left.
    pub cached_tokens: usize,
}

/// What the neurons did for an answer.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct SpikeUsage {
    /// Spikes of all neurons.
    pub spikes: u64,
    /// Spikes by site, such as `h.0.mlp.hidden`.
    pub by_site: BTreeMap<String, u64>,
    /// Estimated energy by price list, in joules; null where something has no price.
    pub joules: BTreeMap<String, Option<f64>>,
}

impl SpikeUsage {
    fn add(&mut self, counts: &JobCounts) {
        self.spikes += counts.spikes;
        for (site, spikes) in &counts.by_site {
            *self.by_site.entry(site.clone()).or_default() += spikes;
        }
        for (list, joules) in &counts.joules {
            let sum = self.joules.entry(list.clone()).or_insert(Some(0.0));
            *sum = sum.zip(*joules).map(|(a, b)| a + b);
        }
    }
}

impl Usage {
    /// Adds a sequence. `first`: the first answer to its prompt.
    pub fn add(&mut self, end: &JobEnd, first: bool) {
        if first {
            self.prompt_tokens += end.prompt_tokens;
            self.prompt_tokens_details.cached_tokens += end.cached_tokens;
        }
        self.completion_tokens += end.tokens;
        self.total_tokens = self.prompt_tokens + self.completion_tokens;
        if let Some(counts) = &end.counts {
            self.snn.get_or_insert_default().add(counts);
        }
    }

    /// Of some sequences, `answers` of each prompt.
    pub fn of(all: &[Collected], answers: usize) -> Self {
        let mut usage = Self::default();
        for (i, one) in all.iter().enumerate() {
            one.end.iter().for_each(|end| usage.add(end, i % answers == 0));
        }
        usage
    }
}

/// Spikes of a token, by site, in the order of the network.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TokenSpikes {
    /// Spikes by site.
    pub spikes: serde_json::Map<String, serde_json::Value>,
}

impl TokenSpikes {
    /// Of what the engine tells.
    pub fn of(by_site: &[(String, u64)]) -> Self {
        Self { spikes: by_site.iter().map(|(site, spikes)| (site.clone(), (*spikes).into())).collect() }
    }
}
