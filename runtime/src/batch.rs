//! Several sequences over one program: one pass over the weights serves a token of each.
//!
//! Sequences are numbered places that are used again: one that is done is forgotten and another takes its place. Law: a
//! sequence's outputs do not depend on the others, bit for bit, for all but attention is row by row and attention reads its
//! own sequence. So do its failures: when a pass of several fails, each runs alone, and only those that fail then are told.
//! Tallies are of all sequences together.

use crate::executor::{Executor, OutputRows, Rows, SequenceSpan};
use crate::meter::{Executed, MatmulCounts, Meter};
use crate::outputs::{Outputs, check_finite, check_tokens, is_rows_of_f32};
use crate::program::Program;
use snnc_ir::Diagnostic;
use snnc_ir::eval::check_stream;
use snnc_ir::events::Events;
use std::sync::Arc;

/// Some sequences over one program, numbered from 0.
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
/// use snnc_runtime::{Batch, Options, Program};
///
/// let mut batch = Batch::new(Arc::new(Program::new(graph, &Options::default())?), 2)?;
/// let outputs = batch.step(&[(1, 2), (0, 0)]);
/// let rows: Vec<_> = outputs.into_iter().flatten().filter_map(|one| one.f32("rows")).collect();
/// assert_eq!(rows, [[4.0, 5.0], [0.0, 1.0]]);
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    program: Arc<Program>,
    executor: Box<dyn Executor>,
    meter: Meter,
    /// By sequence, then by output of the graph: its wanted rows in the last call.
    outputs: Vec<Vec<OutputRows>>,
}

impl Batch {
    /// So many empty sequences.
    ///
    /// # Errors
    /// There is not enough memory for the values of a pass and for what is kept of each sequence.
    pub fn new(program: Arc<Program>, sequences: usize) -> Result<Self, Diagnostic> {
        let executor = program.start(sequences)?;
        let meter = Meter::new(program.graph().nodes.len());
        let outputs = vec![vec![OutputRows::default(); program.graph().outputs.len()]; sequences];
        Ok(Self { program, executor, meter, outputs })
    }

    /// How many there are, empty ones included.
    pub fn sequences(&self) -> usize {
        self.outputs.len()
    }

    /// Tokens that a sequence can have.
    pub fn context(&self) -> usize {
        self.program.graph().context as usize
    }

    /// Tokens that the sequence has seen.
    pub fn past(&self, sequence: usize) -> usize {
        self.executor.past(sequence)
    }

    /// Forgets the sequence; tallies stay.
    pub fn reset(&mut self, sequence: usize) {
        self.executor.reset(sequence);
    }

    /// Forgets all but the sequence's first `tokens`; tallies stay. Whether it could: attention that keeps sums over all tokens
    /// cannot take them back, and the sequence is then as it was.
    pub fn shorten(&mut self, sequence: usize, tokens: usize) -> bool {
        self.executor.shorten(sequence, tokens)
    }

    /// Runs `tokens` after what the sequence has seen, without the others.
    ///
    /// # Errors
    /// Ids outside a table, more tokens than the context, a value that is not finite. The sequence is then unchanged.
    pub fn forward(&mut self, sequence: usize, tokens: &[u32], rows: Rows) -> Result<Outputs<'_>, Diagnostic> {
        self.forward_behind(sequence, tokens, &[], rows)
    }

    /// The same where the program begins behind another one, whose rows of these tokens are `stream`.
    ///
    /// # Errors
    /// As of `forward`; rows that are not one per token, or not finite.
    pub fn forward_behind(
        &mut self,
        sequence: usize,
        tokens: &[u32],
        stream: &[f32],
        rows: Rows,
    ) -> Result<Outputs<'_>, Diagnostic> {
        check_tokens(self.program.graph(), tokens, self.past(sequence))?;
        check_stream(self.program.graph(), tokens, stream)?;
        let width = stream.len() / tokens.len().max(1);
        self.outputs[sequence].iter_mut().for_each(OutputRows::clear);
        self.executor.mark(sequence);
        let chunk = self.program.options().chunk;
        for (i, part) in tokens.chunks(chunk).enumerate() {
            let last = (i + 1) * chunk >= tokens.len();
            let rows = if rows == Rows::Last && !last { Rows::None } else { rows };
            let stream = &stream[i * chunk * width..][..part.len() * width];
            let done = self.executor.step(&[SequenceSpan { sequence, tokens: part, stream }], rows, &mut self.meter);
            if let Err(error) = done.and_then(|()| if rows == Rows::None { Ok(()) } else { self.keep(sequence, 0, 1) })
            {
                self.executor.rewind(sequence);
                return Err(error);
            }
        }
        Ok(self.outputs_of(sequence))
    }

    /// Whether tokens can be run without rows of another program.
    fn check_alone(&self, sequence: usize, tokens: &[u32]) -> Result<(), Diagnostic> {
        check_tokens(self.program.graph(), tokens, self.past(sequence))?;
        check_stream(self.program.graph(), tokens, &[])
    }

    /// Runs the prompts of several sequences, `(sequence, tokens)`, after what each has seen: short ones share passes, long ones
    /// take several. Outputs are in the same order, each the row of a prompt's last token. Panics if a sequence is named twice.
    ///
    /// # Errors
    /// As for `forward`, each for its sequence alone: that one is to be reset, the others went on. A prompt without tokens.
    pub fn prefill(&mut self, prompts: &[(usize, &[u32])]) -> Vec<Result<Outputs<'_>, Diagnostic>> {
        let mut failed: Vec<Option<Diagnostic>> = Vec::with_capacity(prompts.len());
        for &(sequence, tokens) in prompts {
            let empty = tokens.is_empty().then(|| Diagnostic::new("", "a prompt without tokens"));
            let checked = self.check_alone(sequence, tokens).err();
            failed.push(empty.or(checked));
            self.executor.mark(sequence);
        }
        let all_but_last = |&(sequence, tokens): &(usize, &[u32])| (sequence, tokens.len().saturating_sub(1));
        let mut open: Vec<(usize, usize)> = prompts.iter().map(all_but_last).collect();
        open.iter_mut().zip(&failed).filter(|(_, failed)| failed.is_some()).for_each(|(open, _)| open.1 = 0);
        while let Some(first) = open.iter().position(|(_, left)| *left > 0) {
            let taken = self.shared_pass(prompts, &open, first);
            for (i, result) in taken {
                match result {
                    Ok(count) => open[i].1 -= count,
                    Err(error) => (open[i].1, failed[i]) = (0, Some(error)),
                }
            }
        }
        let fit: Vec<usize> = (0..prompts.len()).filter(|&i| failed[i].is_none()).collect();
        let last: Vec<(usize, u32)> =
            fit.iter().map(|&i| (prompts[i].0, prompts[i].1[prompts[i].1.len() - 1])).collect();
        let errors: Vec<Option<Diagnostic>> = self.step(&last).into_iter().map(Result::err).collect();
        fit.iter().zip(errors).for_each(|(&i, error)| failed[i] = error);
        let outputs = |(error, &(sequence, _)): (Option<Diagnostic>, &(usize, &[u32]))| {
            error.map_or_else(|| Ok(self.outputs_of(sequence)), Err)
        };
        failed.into_iter().zip(prompts).map(outputs).collect()
    }

    /// One pass over what is left of the prompts from `first` on, as much as a pass holds: by prompt, how many tokens were
    /// taken. If it fails, its prompts run alone, from their beginning; whose number was not finite shows there.
    fn shared_pass(
        &mut self,
        prompts: &[(usize, &[u32])],
        open: &[(usize, usize)],
        first: usize,
    ) -> Vec<(usize, Result<usize, Diagnostic>)> {
        let mut room = self.program.options().chunk;
        let mut spans = Vec::new();
        for (i, &(sequence, left)) in open.iter().enumerate().skip(first) {
            let count = left.min(room);
            if count > 0 {
                let end = prompts[i].1.len() - 1;
                let tokens = &prompts[i].1[end - left..end - left + count];
                spans.push((i, SequenceSpan { sequence, tokens, stream: &[] }));
                room -= count;
            }
        }
        let all: Vec<SequenceSpan<'_>> = spans.iter().map(|(_, span)| *span).collect();
        if self.executor.step(&all, Rows::None, &mut self.meter).is_ok() {
            return spans.iter().map(|(i, span)| (*i, Ok(span.tokens.len()))).collect();
        }
        let mut alone = Vec::new();
        for (i, span) in spans {
            self.executor.rewind(span.sequence);
            let tokens = &prompts[i].1[..prompts[i].1.len() - 1];
            let done = self.forward(span.sequence, tokens, Rows::None).map(|_| open[i].1);
            alone.push((i, done));
        }
        alone
    }

    /// Runs one token each of several sequences, `(sequence, token)`, in as few passes as hold them. Outputs are in the same
    /// order, each the row of one token. Panics if a sequence is named twice.
    ///
    /// # Errors
    /// As for `forward`, each for its sequence alone: that one is unchanged, the others went on.
    pub fn step(&mut self, next: &[(usize, u32)]) -> Vec<Result<Outputs<'_>, Diagnostic>> {
        let mut named = vec![false; self.sequences()];
        for &(sequence, _) in next {
            assert!(!std::mem::replace(&mut named[sequence], true), "a token for each sequence");
        }
        let check = |&(sequence, token): &(usize, u32)| self.check_alone(sequence, &[token]).err();
        let mut failed: Vec<Option<Diagnostic>> = next.iter().map(check).collect();
        let fit: Vec<usize> = (0..next.len()).filter(|&i| failed[i].is_none()).collect();
        for part in fit.chunks(self.program.options().chunk) {
            self.pass(next, part, &mut failed);
        }
        let outputs = |(error, &(sequence, _)): (Option<Diagnostic>, &(usize, u32))| {
            error.map_or_else(|| Ok(self.outputs_of(sequence)), Err)
        };
        failed.into_iter().zip(next).map(outputs).collect()
    }

    /// One pass for `part` of the tokens. If it fails, a pass for each: whose token it was shows there.
    fn pass(&mut self, next: &[(usize, u32)], part: &[usize], failed: &mut [Option<Diagnostic>]) {
        let span =
            |&i: &usize| SequenceSpan { sequence: next[i].0, tokens: std::slice::from_ref(&next[i].1), stream: &[] };
        let spans: Vec<SequenceSpan<'_>> = part.iter().map(span).collect();
        for span in &spans {
            self.outputs[span.sequence].iter_mut().for_each(OutputRows::clear);
            self.executor.mark(span.sequence);
        }
        let done = self.executor.step(&spans, Rows::All, &mut self.meter);
        for (row, (&i, span)) in part.iter().zip(&spans).enumerate() {
            let kept = done.clone().and_then(|()| self.keep(span.sequence, row, spans.len()));
            if kept.is_err() {
                self.executor.rewind(span.sequence);
            }
            failed[i] = kept.err();
        }
        if done.is_err() && part.len() > 1 {
            part.iter().for_each(|&i| self.pass(next, &[i], failed));
        }
    }

    /// Keeps the outputs of the last pass, of whose equal parts `part` is the sequence's.
    fn keep(&mut self, sequence: usize, part: usize, parts: usize) -> Result<(), Diagnostic> {
        let graph = self.program.graph();
        for (kept, (_, value)) in self.outputs[sequence].iter_mut().zip(&graph.outputs) {
            if is_rows_of_f32(graph, *value) {
                let rows = self.executor.output(*value);
                let length = rows.len() / parts;
                let rows = &rows[part * length..][..length];
                check_finite(graph, *value, rows)?;
                kept.f32.extend_from_slice(rows);
            } else if graph.ty(*value).levels().is_some() {
                let rows = self.executor.levels(*value);
                let length = rows.len() / parts;
                kept.levels.extend_from_slice(&rows[part * length..][..length]);
            }
        }
        Ok(())
    }

    /// Takes the rows of the f32 output of that name that the sequence's last call gave, without a copy; they are then gone.
    pub fn take_f32(&mut self, sequence: usize, name: &str) -> Option<Vec<f32>> {
        let graph = self.program.graph();
        let i = graph.outputs.iter().position(|(known, _)| known == name)?;
        let rows = is_rows_of_f32(graph, graph.outputs[i].1);
        rows.then(|| std::mem::take(&mut self.outputs[sequence][i].f32))
    }

    fn outputs_of(&self, sequence: usize) -> Outputs<'_> {
        Outputs { graph: self.program.graph(), rows: &self.outputs[sequence] }
    }

    /// What neurons and attention of all sequences did so far, by node of the program's graph.
    pub fn events(&self) -> &[Events] {
        &self.meter.events
    }

    /// How products were done so far, by node, of all sequences together.
    pub fn matmul_counts(&self) -> &[MatmulCounts] {
        &self.meter.matmuls
    }

    /// What the plan did so far.
    pub fn executed(&self) -> Executed {
        self.meter.executed
    }
}
