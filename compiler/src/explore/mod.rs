//! A program for compiler engineers: the IR after every pass, the plan, Cranelift's IR and machine code, linked by origin.
//!
//! Links are exact where the compiler knows them. A node of a program that runs is linked to the steps of the plan that run it,
//! and an instruction to the steps that execute it and to the instruction of Cranelift's IR that it was made from. Nodes of
//! other stages are linked by their place: their origin, an ONNX node, and their site.

mod build;
mod code;
mod contents;
mod disassembly;
mod page;
mod stages;

pub use build::{ExploreOptions, build};
pub use code::{CodeFunction, ExploredProgram, ExploredRow, MachineLine, Runner};
pub use contents::{Exploration, LeftOutLayers};
pub use page::page;
pub use stages::{IrLine, IrStage, LayerFilter, NodeFacts, NodePlace, Places};
