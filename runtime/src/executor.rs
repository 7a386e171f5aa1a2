//! What an engine offers: some sequences, run span by span.

use crate::meter::Meter;
use snnc_ir::{Diagnostic, Value};
use std::fmt;

/// Which rows of the outputs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Every row.
    All,
    /// The last token's: what leads to no state runs on that token only.
    Last,
    /// None: only the state is kept up.
    None,
}

/// Some tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct SequenceSpan<'a> {
    /// Its number in the executor.
    pub sequence: usize,
    pub tokens: &'a [u32],
    /// The rows of its tokens that another program hands over; none where the program begins with tokens alone.
    pub stream: &'a [f32],
}

/// An engine with some sequences in it, numbered from 0.
pub trait Executor: fmt::Debug + Send {
    /// Tokens that the sequence has seen.
    fn past(&self, sequence: usize) -> usize;

    /// Forgets the sequence.
    fn reset(&mut self, sequence: usize);

    /// Forgets all but the sequence's first `tokens`. Whether it could: sums over all tokens cannot be taken back, and the
    /// sequence is then as it was.
    fn shorten(&mut self, sequence: usize, tokens: usize) -> bool;

    /// Remembers where the sequence stands, for `rewind`.
    fn mark(&mut self, sequence: usize);

    /// Goes back to the sequence's last mark.
    fn rewind(&mut self, sequence: usize);

    /// Runs spans of different sequences in one pass, at most a chunk of tokens in all, and adds what was done to the meter.
    /// `Rows::Last` is the last token of the last span. The caller has checked ids and lengths.
    ///
    /// # Errors
    /// A value that is not finite, in any of the sequences. Nothing is added then, and all of them are to be rewound.
    fn step(&mut self, spans: &[SequenceSpan<'_>], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic>;

    /// The wanted rows of an f32 output in the last step, span after span.
    fn output(&self, value: Value) -> &[f32];

    /// The wanted rows of an output of levels or spikes in the last step, span after span; a row of spikes has its timesteps
    /// one after the other.
    fn levels(&self, value: Value) -> Vec<i32>;
}

/// Rows of one output; which of the two depends on its type.
#[derive(Clone, Debug, Default)]
pub struct OutputRows {
    pub f32: Vec<f32>,
    pub levels: Vec<i32>,
}

impl OutputRows {
    pub fn clear(&mut self) {
        self.f32.clear();
        self.levels.clear();
    }
}
