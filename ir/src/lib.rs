//! What a program is: the types of its values, its operations, the graph they form, what each of them means, and how a
//! program is written down.
//!
//! One `Graph` type serves every stage from the imported ONNX file to the spiking program; a `Stage` is the set of
//! operations that are legal there. This crate touches no file, no clock, no thread and no randomness.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bounds;
pub mod build;
pub mod container;
pub mod curve;
mod curve_f32;
pub mod diagnostic;
pub mod eval;
pub mod events;
pub mod finite;
pub mod graph;
pub mod hadamard;
pub mod language;
pub mod membrane;
pub mod nibbles;
pub mod op;
pub mod origin;
pub mod random;
pub mod real;
pub mod site;
pub mod ssa;
pub mod stage;
pub mod state;
pub mod tensor;
pub mod text;
pub mod types;
pub mod value;
pub mod verify;
pub mod weight_store;

pub use build::Builder;
pub use curve::Curve;
pub use diagnostic::{Diagnostic, Diagnostics, ErrorCode, Place};
pub use graph::{Graph, Node, Weight};
pub use language::LanguageConfig;
pub use op::{ArrayOp, Binary, DenseOp, LeafOp, LevelOp, Op, SpikeOp, TrainingOp, Unary};
pub use origin::NodeOrigin;
pub use site::Site;
pub use ssa::Ssa;
pub use stage::Stage;
pub use tensor::{Data, Tensor};
pub use types::{Carrier, Code, Dim, Elem, Shape, Type};
pub use value::{Value, WeightId};
pub use weight_store::WeightStore;
