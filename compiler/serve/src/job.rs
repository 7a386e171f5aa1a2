//! What the engine is asked for, and what it tells of the work as it goes on.

use snnc::generate::Stopped;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::SampleOptions;
use tokio::sync::mpsc::UnboundedSender;

/// Spikes by site, in the order of the network.
pub type SpikesBySite = Vec<(String, u64)>;

/// One sequence to write.
#[derive(Debug)]
pub struct Job {
    /// Which of its request's sequences it is, from 0.
    pub index: usize,
    /// The prompt.
    pub ids: Vec<u32>,
    /// Whether the written text stands at the beginning of a text, behind no prompt.
    pub begins: bool,
    /// New tokens, at most.
    pub most: usize,
    /// How tokens are drawn.
    pub options: SampleOptions,
    /// Texts before which it ends.
    pub stop: Vec<String>,
    /// So many likeliest tokens are told of each token with its probability, if that is asked for.
    pub top: Option<usize>,
    /// Probabilities of the prompt's tokens as well.
    pub echo: bool,
    /// Count its spikes.
    pub counted: bool,
    /// Where it is told what happens. Nobody listening ends the work.
    pub events: UnboundedSender<(usize, JobEvent)>,
}

impl Job {
    /// Whether every token of the prompt is scored, so that none may be passed over.
    pub fn scores_prompt(&self) -> bool {
        self.echo && self.top.is_some()
    }
}

/// What happens to a job.
#[derive(Debug)]
pub enum JobEvent {
    /// The tokens of the prompt, scored.
    Prompt(Vec<ScoredToken>),
    /// A token was written. Its text may come later, or with the next tokens.
    Written(WrittenToken),
    /// It is done.
    End(JobEnd),
    /// It cannot go on.
    Failed(Diagnostics),
}

/// A token that was written.
#[derive(Clone, Debug, Default)]
pub struct WrittenToken {
    /// Text that will not change any more.
    pub text: String,
    /// Its probability; of the token that ends a text there is none.
    pub scored: Option<ScoredToken>,
    /// Spikes that it took, by site.
    pub spikes: Option<SpikesBySite>,
}

/// A token and how probable it was.
#[derive(Clone, Debug)]
pub struct ScoredToken {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability; none of a text's first token.
    pub logprob: Option<f64>,
    /// The likeliest tokens at its place, the likeliest first.
    pub top: Vec<(u32, f64)>,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct JobEnd {
    /// Text that was not told yet.
    pub text: String,
    /// Why.
    pub stopped: Stopped,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose state an earlier request had left.
    pub cached_tokens: usize,
    /// Tokens that were written.
    pub tokens: usize,
    /// What its neurons did.
    pub counts: Option<JobCounts>,
}

/// Spikes and estimated energy of a job.
#[derive(Clone, Debug)]
pub struct JobCounts {
    /// Spikes of all neurons.
    pub spikes: u64,
    /// Spikes by site.
    pub by_site: SpikesBySite,
    /// By price list, in joules; none where something has no price.
    pub joules: Vec<(String, Option<f64>)>,
}
