//! Timesteps site by site: the cheapest that stay within a budget of perplexity.

pub mod journal;
pub mod run;
pub mod search;

pub use run::{Budget, TuneOptions, TunePoint, Tuned, tune};
pub use search::{Allocation, Candidate, Goal, Point, TIMESTEPS, Tuner};
