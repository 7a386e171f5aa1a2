//! The engine that runs machine code: some sequences in one arena.

use crate::executor::{Executor, Rows, SequenceSpan};
use crate::jit::compiled::CompiledPlan;
use crate::jit::frame::StepTally;
use crate::jit::memory::Arena;
use crate::jit::pass::ForwardPass;
use crate::kv_cache::{CachedSequence, kept_per_token, kept_sums};
use crate::layout::plane_bytes;
use crate::memory_limit::MemoryReservation;
use crate::meter::{MatmulCounts, Meter};
use crate::plan::{RowSet, Step, ValueBuffer};
use crate::step::{MatmulInput, MatmulSizes, numbers};
use snnc_ir::events::Events;
use snnc_ir::op::{Op, SpikeOp};
use snnc_ir::types::Elem;
use snnc_ir::{Diagnostic, Value};
use std::sync::Arc;

/// Tokens of a pass for which memory limits products.
const FEW: usize = 2;

/// Some sequences, run by machine code in one arena.
#[derive(Debug)]
pub struct Jit {
    compiled: Arc<CompiledPlan>,
    arena: Arena,
    scratch: Vec<u64>,
    tallies: Vec<StepTally>,
    events: Vec<Events>,
    taken: Vec<u64>,
    matmuls: Vec<MatmulCounts>,
    sequences: Vec<CachedSequence>,
    /// Wanted rows of the last step: the first, and how many.
    wanted: (usize, usize),
    /// Memory of the arena and of sums.
    _reserved: MemoryReservation,
    /// Memory of keys and values, by sequence.
    rows_reserved: Vec<MemoryReservation>,
    /// Bytes of keys and values of one token.
    bytes_per_token: u128,
}

impl Jit {
    /// So many empty sequences.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(compiled: Arc<CompiledPlan>, sequences: usize) -> Result<Self, Diagnostic> {
        let steps = compiled.plan.steps.len();
        let (arena, scratch) = (compiled.plan.arena_bytes, compiled.plan.scratch_words());
        let sums = sequences as u128 * kept_sums(&compiled.graph);
        let reserved = MemoryReservation::new(arena as u128 + 8 * scratch as u128 + sums, "values of a pass")?;
        Ok(Self {
            arena: Arena::new(arena)?,
            scratch: vec![0; scratch],
            tallies: vec![StepTally::default(); steps],
            events: vec![Events::default(); steps],
            taken: vec![0; steps],
            matmuls: vec![MatmulCounts::default(); steps],
            sequences: vec![CachedSequence::new(&compiled.graph); sequences],
            wanted: (0, 0),
            _reserved: reserved,
            rows_reserved: (0..sequences).map(|_| MemoryReservation::default()).collect(),
            bytes_per_token: kept_per_token(&compiled.graph),
            compiled,
        })
    }

    /// Reserves memory for keys and values of these tokens, in the steps in which it grows.
    fn reserve_rows(&mut self, spans: &[SequenceSpan<'_>]) -> Result<(), Diagnostic> {
        for span in spans {
            let tokens = self.sequences[span.sequence].past + span.tokens.len();
            let held = (2 * tokens).min(self.compiled.graph.context as usize);
            let bytes = self.bytes_per_token * held as u128;
            self.rows_reserved[span.sequence].grow_to(bytes, "keys and values of a sequence")?;
        }
        Ok(())
    }

    fn write(&mut self, buffer: Option<usize>, numbers: impl Iterator<Item = [u8; 4]>) {
        let Some(buffer) = buffer else { return };
        let at = self.compiled.plan.buffers[buffer].offset;
        for (bytes, number) in self.arena.bytes_mut()[at..].chunks_exact_mut(4).zip(numbers) {
            bytes.copy_from_slice(&number);
        }
    }

    fn record(&self, rows: usize, meter: &mut Meter) {
        let compiled = &*self.compiled;
        for (i, step) in compiled.plan.steps.iter().enumerate() {
            let (mut events, tally) = (self.events[i], self.tallies[i]);
            events.spikes += tally.spikes;
            events.active += tally.active;
            events.saturated += tally.saturated;
            let taken = tally.taken + self.taken[i];
            let rows = if step.rows == RowSet::Wanted { self.wanted.1 } else { rows };
            let mut matmuls = self.matmuls[i];
            if let Some(MatmulSizes { outputs, reads, .. }) = step.kind.matmul() {
                match (reads, compiled.emitters[i]) {
                    (MatmulInput::Levels { .. }, Some(emitter)) => {
                        let spikes = self.events[emitter].spikes + self.tallies[emitter].spikes;
                        events.additions += spikes * outputs as u64;
                    }
                    (MatmulInput::Levels { .. }, None) => {}
                    (MatmulInput::Spikes { .. }, _) => {
                        self.record_synapse(step, taken * outputs as u64, meter);
                        // Of spikes, rows are all that is read.
                        matmuls =
                            MatmulCounts { sparse: rows as u64, fired: taken, rows: taken, ..MatmulCounts::default() };
                    }
                }
            }
            meter.events[step.node.index()] += events;
            meter.matmuls[step.node.index()] += matmuls;
            meter.executed += step.kind.executed(rows, &events, &matmuls);
        }
    }

    /// Adds a synapse's additions to its node. One that is read at once runs as a step of the node that decodes it or integrates
    /// it; one that others read as well has a step of its own, which counts.
    fn record_synapse(&self, step: &Step, additions: u64, meter: &mut Meter) {
        let compiled = &*self.compiled;
        let node = compiled.graph.node(step.node);
        let reads = matches!(node.op, Op::Spike(SpikeOp::Decode | SpikeOp::Integrate { .. }));
        let synapse = if reads { node.args[0] } else { step.node };
        if compiled.count && (synapse == step.node || compiled.plan.of[synapse.index()].is_none()) {
            meter.events[synapse.index()].additions += additions;
        }
    }
}

impl Executor for Jit {
    fn past(&self, sequence: usize) -> usize {
        self.sequences[sequence].past
    }

    fn reset(&mut self, sequence: usize) {
        self.sequences[sequence].past = 0;
    }

    fn shorten(&mut self, sequence: usize, tokens: usize) -> bool {
        self.sequences[sequence].shorten(tokens)
    }

    fn mark(&mut self, sequence: usize) {
        self.sequences[sequence].mark();
    }

    fn rewind(&mut self, sequence: usize) {
        self.sequences[sequence].rewind();
    }

    fn step(&mut self, spans: &[SequenceSpan<'_>], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic> {
        let n = spans.iter().map(|span| span.tokens.len()).sum();
        self.reserve_rows(spans)?;
        let compiled = Arc::clone(&self.compiled);
        self.write(compiled.plan.tokens, spans.iter().flat_map(|span| span.tokens).map(|&id| id.to_ne_bytes()));
        self.write(compiled.plan.stream, spans.iter().flat_map(|span| span.stream).map(|x| x.to_ne_bytes()));
        let positions =
            |span: &SequenceSpan<'_>| (self.past(span.sequence)..).take(span.tokens.len()).map(|i| i as i32);
        let positions: Vec<i32> = spans.iter().flat_map(positions).collect();
        self.write(compiled.plan.positions, positions.into_iter().map(i32::to_ne_bytes));
        let openings = spans.iter().flat_map(|span| self.sequences[span.sequence].opening(span.tokens).flatten());
        let openings: Vec<i32> = openings.collect();
        self.write(compiled.plan.opening, openings.into_iter().map(i32::to_ne_bytes));
        self.wanted = match rows {
            Rows::All => (0, n),
            Rows::Last => (n - 1, 1),
            Rows::None => (n, 0),
        };
        self.tallies.fill(StepTally::default());
        self.events.fill(Events::default());
        self.taken.fill(0);
        self.matmuls.fill(MatmulCounts::default());
        let pass = ForwardPass {
            graph: &compiled.graph,
            plan: &compiled.plan,
            resources: compiled.resources(),
            loops: compiled.code.loops(),
            emitters: &compiled.emitters,
            soon: if n <= FEW { &compiled.soon } else { &[] },
            sequences: &mut self.sequences,
            spans,
            events: &mut self.events,
            taken: &mut self.taken,
            matmuls: &mut self.matmuls,
        };
        let rows = [n, self.wanted.0, self.wanted.1];
        let (arena, tallies, scratch) = (&mut self.arena, &mut self.tallies, &mut self.scratch);
        let fault = compiled.code.run(arena, tallies, scratch, &compiled.records, rows, pass);
        if fault != 0 {
            return Err(compiled.diagnose(fault));
        }
        for span in spans {
            self.sequences[span.sequence].advance(span.tokens);
        }
        self.record(n, meter);
        Ok(())
    }

    fn output(&self, value: Value) -> &[f32] {
        let plan = &self.compiled.plan;
        let Some(ValueBuffer { offset, row_bytes, .. }) = plan.of[value.index()].map(|buffer| &plan.buffers[buffer])
        else {
            return &[];
        };
        let (first, rows) = self.wanted;
        let from = offset + first * row_bytes;
        numbers(&self.arena.bytes()[from..from + rows * row_bytes]).unwrap_or_default()
    }

    fn levels(&self, value: Value) -> Vec<i32> {
        let plan = &self.compiled.plan;
        let Some(ValueBuffer { offset, row_bytes, ty, .. }) =
            plan.of[value.index()].map(|buffer| &plan.buffers[buffer])
        else {
            return Vec::new();
        };
        let (first, rows) = self.wanted;
        let bytes = &self.arena.bytes()[offset + first * row_bytes..][..rows * row_bytes];
        match ty.elem().map(Elem::bytes) {
            // Spikes: planes, padded.
            None => {
                let width = ty.shape().row_width().unwrap_or(1);
                let planes = numbers::<i8>(bytes).unwrap_or_default().chunks_exact(plane_bytes(width));
                planes.flat_map(|plane| &plane[..width]).map(|&spike| i32::from(spike)).collect()
            }
            Some(1) => numbers::<i8>(bytes).unwrap_or_default().iter().map(|&level| i32::from(level)).collect(),
            Some(2) => numbers::<i16>(bytes).unwrap_or_default().iter().map(|&level| i32::from(level)).collect(),
            Some(_) => numbers::<i32>(bytes).unwrap_or_default().to_vec(),
        }
    }
}
