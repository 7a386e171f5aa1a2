//! NIR, the exchange format of spiking networks: its graphs, as files and as they run by the letter of the format.

pub mod graph;
pub mod read;
pub mod simulate;

pub use graph::{Firing, Leak, NirGraph, NirNode};
