//! A program in the formats of other tools.
//!
//! | to | module | what it keeps |
//! |---|---|---|
//! | ONNX | [`onnx`] | the whole network with time collapsed; integers are the same, f32 operations those of the runtime |

pub mod onnx;
