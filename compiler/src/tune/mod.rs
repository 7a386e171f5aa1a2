//! Timesteps site by site: the cheapest that stay within a budget of perplexity.

pub mod journal;
pub mod point;
pub mod run;
pub mod search;

pub use point::{Allocation, Goal, Point};
pub use run::{Budget, TuneJson, TuneOptions, TunePoint, Tuned, tune};
pub use search::{Candidate, TIMESTEPS, Tuner};
