//! What a run did, by node and in total.
//!
//! Two tallies, all integers: *events* are what the spiking network does, the same for every engine and plan; *executed* is
//! what this plan did on this machine. The oracle has no plan, so its executed tally stays empty.

use snnc_ir::events::Events;
use std::ops::AddAssign;

/// What the plan did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    /// Multiplications with an addition each: dense matmuls and attention.
    pub macs: u64,
    /// Additions of a weight to a sum, driven by spikes.
    pub additions: u64,
    /// Bytes of weights that were read; a weight that serves several tokens of one pass counts once.
    pub bytes: u64,
}

impl Executed {
    /// A dense product on so many rows, with so many multiplications per row and bytes of weights in all.
    pub fn dense(rows: usize, macs: usize, bytes: usize) -> Self {
        Self { macs: rows as u64 * macs as u64, bytes: if rows == 0 { 0 } else { bytes as u64 }, additions: 0 }
    }
}

impl AddAssign for Executed {
    fn add_assign(&mut self, other: Self) {
        self.macs += other.macs;
        self.additions += other.additions;
        self.bytes += other.bytes;
    }
}

/// How matmuls of levels, and synapses, were done: by token, reading the rows of what fired or all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MatmulCounts {
    /// Tokens of sparse products: rows were read one by one.
    pub sparse: u64,
    /// Tokens of dense products: they passed over all rows.
    pub dense: u64,
    /// Levels that were not zero, or spikes.
    pub fired: u64,
    /// Rows that were read one by one.
    pub rows: u64,
}

impl AddAssign for MatmulCounts {
    fn add_assign(&mut self, other: Self) {
        self.sparse += other.sparse;
        self.dense += other.dense;
        self.fired += other.fired;
        self.rows += other.rows;
    }
}

/// Both tallies of a session.
#[derive(Clone, Debug)]
pub struct Meter {
    /// By node of the graph.
    pub events: Vec<Events>,
    pub executed: Executed,
    /// By node; the oracle's stay empty.
    pub matmuls: Vec<MatmulCounts>,
}

impl Meter {
    pub fn new(nodes: usize) -> Self {
        Self {
            events: vec![Events::default(); nodes],
            executed: Executed::default(),
            matmuls: vec![MatmulCounts::default(); nodes],
        }
    }
}
