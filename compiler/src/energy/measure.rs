//! Runs a network on text and takes down what it did.

use crate::Complaints;
use crate::evaluate::{Cut, Evaluation, evaluate};
use snnc_passes::cost::Activity;
use snnc_runtime::Program;
use std::sync::Arc;

/// What is run: windows of `length` tokens, so many, spread evenly over the text.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub length: usize,
    pub count: usize,
}

/// The activity of `program` on `ids`, the same on any engine and number of threads; and how well it predicted.
///
/// # Errors
/// The text is empty, or the program cannot be run on it.
pub fn measure(
    program: &Arc<Program>,
    ids: &[u32],
    windows: Windows,
    threads: usize,
) -> Result<(Activity, Evaluation), Complaints> {
    let cut = Cut { length: Some(windows.length), stride: None, windows: windows.count };
    let done = evaluate(program, None, ids, cut, threads)?;
    Ok((done.activity(), done))
}
