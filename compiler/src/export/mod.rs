//! A program in the formats of other tools.
//!
//! | to | module | what it keeps |
//! |---|---|---|
//! | ONNX | [`onnx`] | the whole network with time collapsed, to the bit |
//! | NIR | [`nir`] | chains of synapses and time-stepped neurons, with a rating of each for each reader |
//! | SANA-FE | [`sana_fe`] | time-stepped neurons with integer thresholds, and their places on a chip |
//! | NumPy | [`npz`], [`record`] | spikes, levels and potentials of a run |

pub mod nir;
pub mod npz;
pub mod onnx;
mod own_names;
pub mod record;
pub mod sana_fe;
pub mod sana_fe_manifest;
