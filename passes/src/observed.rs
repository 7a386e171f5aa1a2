//! What the values of sites were seen to hold on sample text: plain data, measured elsewhere.

use indexmap::IndexMap;
use snnc_ir::Value;

/// What the channels of a site were seen to hold on sample text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// By channel: the smallest value.
    pub min: Vec<f32>,
    /// By channel: the largest value.
    pub max: Vec<f32>,
    /// Some rows, one after the other, evenly spread over the text.
    pub sample: Vec<f32>,
    /// Rows of the whole text.
    pub tokens: usize,
}

/// By site.
pub type Observations = IndexMap<Value, Observed>;

impl Observed {
    /// What channel `c` held in the sampled rows.
    pub fn column(&self, c: usize) -> Vec<f32> {
        self.sample.iter().skip(c).step_by(self.min.len().max(1)).copied().collect()
    }
}
