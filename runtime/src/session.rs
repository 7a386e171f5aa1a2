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

/// One sequence of tokens run through a program. How it is cut into calls never shows:
///
/// ```
/// # use snnc_ir::op::{DenseOp, LeafOp, Op};
/// # use snnc_ir::{Builder, Stage, Tensor};
/// # use std::sync::Arc;
/// # let mut b = Builder::new(Stage::Tensor, 8);
/// # let table = b.weight("table", Arc::new(Tensor::f32(&[3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
/// # let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens")?;
/// # let rows = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "embed")?;
/// # let graph = Arc::new(b.finish(vec![("rows".to_string(), rows)]));
/// use snnc_runtime::{Options, Program, Rows, Session};
///
/// let program = Arc::new(Program::new(graph, &Options::default())?);
/// let mut session = Session::new(Arc::clone(&program))?;
/// session.forward(&[1], Rows::None)?;
/// let last = session.forward(&[0, 2], Rows::Last)?.f32("rows").map(<[f32]>::to_vec);
/// assert_eq!(last, Some(vec![4.0, 5.0]));
/// assert_eq!(session.past(), 3);
///
/// // An id outside the table is refused, and the sequence stays as it was.
/// assert!(session.forward(&[3], Rows::Last).is_err());
/// assert_eq!(session.past(), 3);
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
#[derive(Debug)]
pub struct Session {
    batch: Batch,
}

impl Session {
    /// An empty sequence.
    ///
    /// # Errors
    /// There is not enough memory for the values of a pass.
    pub fn new(program: Arc<Program>) -> Result<Self, Diagnostic> {
        Ok(Self { batch: Batch::new(program, 1)? })
    }

    /// Tokens that it can have.
    pub fn context(&self) -> usize {
        self.batch.context()
    }

    /// Tokens seen so far.
    pub fn past(&self) -> usize {
        self.batch.past(0)
    }

    /// Forgets the sequence; tallies stay.
    pub fn reset(&mut self) {
        self.batch.reset(0);
    }

    /// Forgets all but the first `tokens`; tallies stay. Whether it could: attention that keeps sums over all tokens cannot take
    /// them back, and the session is then as it was.
    pub fn shorten(&mut self, tokens: usize) -> bool {
        self.batch.shorten(0, tokens)
    }

    /// Runs `tokens` after what the session has seen.
    ///
    /// # Errors
    /// Ids outside a table, more tokens than the context, a value that is not finite. The sequence is then unchanged.
    pub fn forward(&mut self, tokens: &[u32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        self.batch.forward(0, tokens, rows)
    }

    /// The same where the program begins behind another one, whose rows of these tokens are `stream`, `[tokens, width]`.
    ///
    /// # Errors
    /// As of `forward`; rows that are not one per token, or not finite.
    pub fn forward_behind(&mut self, tokens: &[u32], stream: &[f32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        self.batch.forward_behind(0, tokens, stream, rows)
    }

    /// Takes the rows of the f32 output of that name that the last call gave, without a copy; they are then gone.
    ///
    /// ```
    /// # use snnc_ir::op::{DenseOp, LeafOp, Op};
    /// # use snnc_ir::{Builder, Stage, Tensor};
    /// # use std::sync::Arc;
    /// # let mut b = Builder::new(Stage::Tensor, 8);
    /// # let table = b.weight("table", Arc::new(Tensor::f32(&[2, 1], vec![0.5, 1.5])));
    /// # let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "tokens")?;
    /// # let rows = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "embed")?;
    /// # let graph = Arc::new(b.finish(vec![("rows".to_string(), rows)]));
    /// use snnc_runtime::{Options, Program, Rows, Session};
    ///
    /// let mut session = Session::new(Arc::new(Program::new(graph, &Options::default())?))?;
    /// session.forward(&[1, 0], Rows::All)?;
    /// assert_eq!(session.take_f32("rows"), Some(vec![1.5, 0.5]));
    /// assert_eq!(session.take_f32("rows"), Some(vec![]));
    /// # Ok::<(), snnc_ir::Diagnostic>(())
    /// ```
    pub fn take_f32(&mut self, name: &str) -> Option<Vec<f32>> {
        self.batch.take_f32(0, name)
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
