//! What a program is: the types of its values, its operations, the graph they form, what each of them means, and how a
//! program is written down.
//!
//! One `Graph` type serves every stage from the imported ONNX file to the spiking program; a `Stage` is the set of
//! operations that are legal there. This crate touches no file, no clock, no thread and no randomness.

#![forbid(unsafe_code)]

pub mod build;
pub mod container;
pub mod curve;
pub mod diagnostic;
pub mod eval;
pub mod events;
pub mod graph;
pub mod infer;
pub mod membrane;
pub mod op;
pub mod ssa;
pub mod tensor;
pub mod text;
pub mod training;
pub mod types;
pub mod verify;

pub use build::Builder;
pub use curve::Curve;
pub use diagnostic::{Diagnostic, Diagnostics};
pub use graph::{Graph, Node, Stage, Value, Weight, WeightId};
pub use op::{Binary, Op, Unary};
pub use ssa::Ssa;
pub use tensor::{Data, Tensor};
pub use types::{Carrier, Code, Dim, Elem, Shape, Type};
