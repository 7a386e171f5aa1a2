//! All that the page shows, as plain data.

use crate::explore::code::ExploredProgram;
use crate::explore::stages::{IrStage, NodePlace};
use serde::Serialize;

/// A program, from its IR to machine code.
#[derive(Debug, Serialize)]
pub struct Exploration {
    /// The file's name.
    pub title: String,
    /// The version of snnc.
    pub snnc: String,
    /// The command that makes this page again.
    pub command: String,
    /// The instructions that kernels use.
    pub isa: String,
    /// The processor's architecture.
    pub machine: String,
    /// Whether the passes from the reference give the very program of the file; `None` where they were not run.
    pub gives_program: Option<bool>,
    /// Layers of the network.
    pub layers: u32,
    /// What is not shown.
    pub left_out: Option<LeftOutLayers>,
    /// Where lines of IR come from.
    pub places: Vec<NodePlace>,
    /// The IR after every pass.
    pub stages: Vec<IrStage>,
    /// The forms in which the program runs.
    pub programs: Vec<ExploredProgram>,
}

/// Lines that are left out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LeftOutLayers {
    /// The first and the last layer that is shown.
    pub shown: [u32; 2],
    /// Lines of other layers, of all stages and plans.
    pub lines: usize,
    /// Whether nobody asked for it: the page would be too large.
    pub for_size: bool,
}
