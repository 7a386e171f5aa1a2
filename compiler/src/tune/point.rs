//! Allocations of timesteps to sites, and what one was measured to give.

use snnc_passes::options::{QuantOptions, ZeroPoint};

/// What is to be small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Additions that spikes drive
    Energy,
    /// The same in the attention block, its projections included
    Attention,
    /// Spikes of all neurons
    Spikes,
    /// Timesteps, on average over neurons
    Timesteps,
}

impl Goal {
    /// All of them.
    pub const ALL: [Goal; 4] = [Goal::Energy, Goal::Attention, Goal::Spikes, Goal::Timesteps];

    /// Few timesteps are worth spikes, nothing else is.
    pub fn zero_point(self) -> ZeroPoint {
        match self {
            Goal::Energy | Goal::Attention | Goal::Spikes => ZeroPoint::Spikes,
            Goal::Timesteps => ZeroPoint::Error,
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Goal::Energy => "energy",
            Goal::Attention => "attention",
            Goal::Spikes => "spikes",
            Goal::Timesteps => "timesteps",
        }
    }
}

/// An allocation: timesteps by site, with what it is predicted to lose and to cost.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Timesteps.
    pub steps: Vec<u16>,
    /// Nats per token.
    pub damage: f64,
    /// What is to be small.
    pub cost: f64,
}

/// A measured allocation.
#[derive(Clone, Debug)]
pub struct Point {
    /// `None`: the same timesteps everywhere.
    pub allocation: Option<Allocation>,
    /// The options that ask for it.
    pub options: QuantOptions,
    /// The rise of perplexity, as a share.
    pub increase: f64,
    /// Kullback-Leibler divergence from the dense network, in nats per token.
    pub kl: f64,
    /// Per neuron and token.
    pub spikes: f64,
    /// Timesteps.
    pub timesteps: f64,
    /// Additions per token, of all and of the attention block.
    pub additions: f64,
    /// Additions per token of the attention block.
    pub attention_additions: f64,
    /// The share of the dense network's energy that is not spent, by the convention of the literature (`paper45`): of the
    /// attention block and of all; and by every operation's own price (`int45`). `None`: see `energy::Compared::saving`.
    pub savings: [[Option<f64>; 2]; 2],
}

impl Point {
    /// What it costs by a goal.
    pub fn cost(&self, goal: Goal) -> f64 {
        match goal {
            Goal::Energy => self.additions,
            Goal::Attention => self.attention_additions,
            Goal::Spikes => self.spikes,
            Goal::Timesteps => self.timesteps,
        }
    }
}
