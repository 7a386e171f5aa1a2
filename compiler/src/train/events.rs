//! What happens in a training run, as it happens: for a line of JSON, or a line for a person.

use super::comparison::Comparison;
use super::hybrid::HybridChoice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TrainEvent {
    /// The program before training.
    Before {
        /// The program's file.
        program: Comparison,
    },
    /// A step was done.
    Step {
        /// Steps done.
        step: u64,
        /// The mean loss of the step's windows.
        loss: f64,
        /// The norm of the gradients before clipping.
        norm: f32,
        /// The learning rate.
        rate: f32,
        /// Tokens trained on.
        tokens: u64,
        /// Tokens per second.
        tokens_per_s: f64,
    },
    /// The validation windows were predicted.
    Validation {
        /// Steps done.
        step: u64,
        /// The loss.
        loss: f64,
        /// Whether no loss before was smaller.
        best: bool,
        /// The text, where it is not the first of several; the first alone says which parameters are best.
        #[serde(skip_serializing_if = "Option::is_none")]
        set: Option<String>,
        /// Steps of the whole run, for the line.
        #[serde(skip)]
        steps: u64,
    },
    /// A choice of layers was measured.
    Hybrid {
        /// The choice.
        choice: HybridChoice,
    },
    /// The program after training.
    After {
        /// The program's file.
        program: Comparison,
    },
}

impl TrainEvent {
    /// A line for a person; steps have none.
    pub fn words(&self) -> Option<String> {
        Some(match self {
            Self::Before { program } => format!("before: {}", program.words()),
            Self::After { program } => format!("after: {}", program.words()),
            Self::Step { .. } => return None,
            Self::Validation { step, loss, best, set, steps } => {
                let best = if *best { ", the best so far" } else { "" };
                let of = set.as_ref().map_or(String::new(), |set| format!(" on {set}"));
                format!("step {step} of {steps}: validation loss {loss:.5}{of}{best}")
            }
            Self::Hybrid { choice } => choice.words(),
        })
    }
}

/// What a run is of: a checkpoint belongs to the run that has the same. The number of threads is no part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunIdentity {
    /// XXH3-64 of the program's and of the dense network's text form.
    pub program: String,
    /// The dense network's text form.
    pub reference: String,
    /// XXH3-64 of the training text.
    pub text: String,
    /// What trains.
    pub parameters: String,
    /// The loss.
    pub loss: String,
    /// The stand-in for the derivative of a spike.
    pub surrogate: String,
    /// What products of the backward pass multiply: f32, or bf16 by a unit of the processor.
    #[serde(default = "f32_gradients")]
    pub gradients: String,
    /// Windows per step.
    pub batch: usize,
    /// Tokens per window.
    pub window_tokens: usize,
    /// The learning rate at its height.
    pub rate: f32,
    /// Weight decay, as a share of the rate.
    pub weight_decay: f32,
    /// The largest norm of gradients.
    pub clip: f32,
    /// Steps until the rate is at its height.
    pub warm_up: u64,
    /// Seed of the windows' places.
    pub seed: u64,
    /// The instruction set, on which sums in f32 depend.
    pub isa: String,
}

/// Of runs before there was a choice.
fn f32_gradients() -> String {
    "f32".into()
}

/// What a program keeps of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingRecord {
    /// What the run was of.
    pub run: RunIdentity,
    /// Timesteps.
    pub steps: u64,
    /// The step with the least validation loss.
    pub best_step: u64,
    /// Validation losses by step.
    pub losses: Vec<(u64, f64)>,
    /// The program before; absent where an earlier snnc resumed the run.
    pub before: Option<Comparison>,
}
