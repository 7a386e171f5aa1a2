//! One sequence of tokens: what it has seen, what it has done, and the outputs of the last call.
//!
//! Law: a token's numbers depend on it and its past alone, so how a sequence is cut into calls and calls into chunks never
//! shows. A call that fails leaves the sequence as it was before it.

use crate::batch::Batch;
use crate::executor::Rows;
use crate::meter::{Executed, MatmulCounts};
use crate::outputs::Outputs;
use crate::program::Program;
use snnc_ir::Diagnostic;
use snnc_ir::events::Events;
use std::sync::Arc;

/// One sequence.
#[derive(Debug)]
pub struct Session {
    batch: Batch,
}

impl Session {
    pub fn new(program: Arc<Program>) -> Self {
        Self { batch: Batch::new(program, 1) }
    }

    /// Tokens seen so far.
    pub fn past(&self) -> usize {
        self.batch.past(0)
    }

    /// Forgets the sequence; tallies stay.
    pub fn reset(&mut self) {
        self.batch.reset(0);
    }

    /// Runs `tokens` after what the session has seen.
    ///
    /// # Errors
    /// Ids outside a table, more tokens than the context, a value that is not finite. The sequence is then unchanged.
    pub fn forward(&mut self, tokens: &[u32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        self.batch.forward(0, tokens, rows)
    }

    /// What neurons and attention did so far, by node of the program's graph.
    pub fn events(&self) -> &[Events] {
        self.batch.events()
    }

    /// How products were done so far, by node.
    pub fn matmul_counts(&self) -> &[MatmulCounts] {
        self.batch.matmul_counts()
    }

    /// What the plan did so far.
    pub fn executed(&self) -> Executed {
        self.batch.executed()
    }
}
