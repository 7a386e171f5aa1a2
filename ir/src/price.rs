//! What a run did, in integers, and what that costs.
//!
//! Two kinds of number, kept apart: `Events` are measured (spikes, keys), the same for every engine and plan;
//! `Work` is derived from them and from shapes. A price list turns work into energy.

use std::ops::AddAssign;

/// What one node did, summed over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Spikes that a neuron layer emitted.
    pub spikes: u64,
    /// Keys that queries met, summed over tokens (not over heads).
    pub keys: u64,
    /// Additions that query spikes drove in attention scores: one for every spike and key it meets.
    pub score_additions: u64,
    /// Keys that fired inside the window, summed over tokens and heads.
    pub value_keys: u64,
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Self) {
        self.spikes += other.spikes;
        self.keys += other.keys;
        self.score_additions += other.score_additions;
        self.value_keys += other.value_keys;
    }
}
