//! What a run did, in integers: spikes, the additions that they drove, the pairs that met in attention.
//!
//! Events are measured, and are the same for every engine and plan. What they amount to by operation, byte and joule
//! follows from them and from types, and is not for this crate to say.

use std::ops::{AddAssign, Sub};

/// What one node did, summed over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Spikes that a neuron layer emitted.
    pub spikes: u64,
    /// Neurons that fired at least once: their level is not 0.
    pub active: u64,
    /// Neurons that fired at every timestep: what they should say may be beyond their largest level.
    pub saturated: u64,
    /// Additions of a weight to a sum that the spikes of a synapse's operand drove, or would have where time is collapsed:
    /// one for every spike and output. Counted at the synapse, from what it read.
    pub additions: u64,
    /// Keys that queries met, summed over tokens (not over heads).
    pub keys: u64,
    /// Pairs of a query's neuron that fired and a key that it meets; of coincidences, of a query's spike and a key that has
    /// not faded.
    pub score_pairs: u64,
    /// Additions that spikes drove in attention scores: one for every query spike and key it meets; of coincidences, one for
    /// every pair of spikes that coincide; of linear attention, one for every spike of a query or key and channel of its sums.
    pub score_additions: u64,
    /// Keys that fired inside the window, summed over tokens and heads.
    pub value_keys: u64,
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Self) {
        self.spikes += other.spikes;
        self.active += other.active;
        self.saturated += other.saturated;
        self.additions += other.additions;
        self.keys += other.keys;
        self.score_pairs += other.score_pairs;
        self.score_additions += other.score_additions;
        self.value_keys += other.value_keys;
    }
}

impl Sub for Events {
    type Output = Self;

    /// What was done since `earlier`, whose counts are no larger.
    fn sub(self, earlier: Self) -> Self {
        Self {
            spikes: self.spikes - earlier.spikes,
            active: self.active - earlier.active,
            saturated: self.saturated - earlier.saturated,
            additions: self.additions - earlier.additions,
            keys: self.keys - earlier.keys,
            score_pairs: self.score_pairs - earlier.score_pairs,
            score_additions: self.score_additions - earlier.score_additions,
            value_keys: self.value_keys - earlier.value_keys,
        }
    }
}
