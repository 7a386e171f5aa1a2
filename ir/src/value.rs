//! Names of values and constants inside a graph: indices that only mean something beside their graph.

/// A value of a graph: the result of the node with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// Its place in `Graph::nodes`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A constant of a graph, by index into `Graph::weights`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);
