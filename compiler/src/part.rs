//! What a shard of a run writes: results by window, so that sums over all windows are made in the order of the text.

use crate::evaluate::WindowScore;
use crate::shard::Shard;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The results of one shard, which `snnc merge` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartJson {
    /// Which share of the windows it is. Windows are dealt in turn: shard 1 of 3 has the windows 1, 4, 7.
    pub shard: Shard,
    /// Windows of the whole run.
    pub windows: usize,
    /// XXH3-64 of the text's ids and of all windows.
    pub work: String,
    /// Scores by window of this shard, and by program. A sum that is not finite is its bits as text.
    pub scores: Vec<Vec<WindowScore>>,
    /// By program and node, what the windows of this shard did: spikes, active and saturated neurons, additions, keys, score pairs,
    /// score additions, value keys.
    pub events: Vec<Vec<[u64; 8]>>,
    /// XXH3-64 of the record of the run and of all above, to notice damage.
    pub checksum: String,
}
