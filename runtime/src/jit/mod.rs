//! Plan to machine code, and the engine that runs it.
//!
//! Machine code does what is element by element or spike by spike, and calls the kernels in the plan's order. One function
//! for each shape, not for each layer: a record a step tells what differs. Outputs and events equal the oracle's, bit for
//! bit.

mod dispatch;
mod emit;
mod feature_attention;
mod host;
mod memory;
mod neuron;
mod schedule;
mod synapse;
#[cfg(test)]
mod tests;

use crate::kernel_costs::KernelCosts;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::CacheEntry;
use crate::meter::{MatmulCounts, Meter};
use crate::plan::{Buffer, Plan, RowSet, Step, StepKind, plane_bytes};
use crate::pool::Pool;
use crate::program::Options;
use crate::session::{Executor, Rows, SequenceSpan};
pub(crate) use host::dense_curve;
use host::{Fault, Prepared};
pub(crate) use memory::cast;
use memory::{Arena, ForwardPass, MachineCode, StepRecord, StepTally};
pub use schedule::Listing;
use snnc_ir::events::Events;
use snnc_ir::op::SpikeOp;
use snnc_ir::tensor::Data;
use snnc_ir::types::Elem;
use snnc_ir::{Curve, Diagnostic, Graph, Op, Value, WeightId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A plan with its machine code, records and weights in panels.
#[derive(Debug)]
pub struct Compiled {
    pub(crate) graph: Arc<Graph>,
    pub(crate) plan: Plan,
    pub(crate) kernels: Kernels,
    pub(crate) pool: Pool,
    pub(crate) costs: KernelCosts,
    /// By step: what its kernel wants beside the graph's constants.
    pub(crate) prepared: Vec<Prepared>,
    pub(crate) records: Vec<StepRecord>,
    /// Words of scratch that the widest synapse needs.
    pub(crate) scratch_len: usize,
    /// Whether spikes are counted.
    pub(crate) count: bool,
    /// By step, for products: the neurons that emit the levels it reads.
    pub(crate) emitters: Vec<Option<usize>>,
    /// Constants that records point to beside the graph's.
    pub(crate) tables: BTreeMap<Curve, Box<[f32]>>,
    code: MachineCode,
    codegen_ms: f64,
}

impl Compiled {
    /// # Errors
    /// The host is no target of the code generator, a constant is not of its operation's type, or threads cannot be pinned.
    pub fn new(graph: Arc<Graph>, plan: Plan, options: &Options) -> Result<Self, Diagnostic> {
        let kernels = host::kernels(options)?;
        let pool = Pool::new(options.threads, options.pin).map_err(|why| Diagnostic::new("", why))?;
        let graph = if graph.weights.iter().any(|weight| weight.tensor.as_i8().is_some()) {
            // Not from a file: kernels walk panels.
            Arc::new((*graph).clone().in_panels())
        } else {
            graph
        };
        let prepared = host::prepare(&plan);
        let tables = tables(&plan);
        let records = records(&graph, &plan, &tables);
        let start = Instant::now();
        let code = schedule::compile(&plan, options.count, is_wide(kernels))?;
        let codegen_ms = start.elapsed().as_secs_f64() * 1e3;
        let lists = |step: &Step| match step.kind {
            StepKind::Synapse { inputs, outputs, .. } => synapse::scratch_len(inputs, outputs),
            _ => 0,
        };
        let emitters = emitters(&graph, &plan);
        let scratch_len = plan.steps.iter().map(lists).max().unwrap_or(0);
        Ok(Self {
            graph,
            plan,
            kernels,
            pool,
            costs: options.kernel_costs.unwrap_or_else(|| KernelCosts::typical(kernels.isa())),
            prepared,
            records,
            scratch_len,
            count: options.count,
            emitters,
            tables,
            code,
            codegen_ms,
        })
    }

    pub fn codegen_ms(&self) -> f64 {
        self.codegen_ms
    }

    /// Whether machine code does the step, or a kernel.
    pub(crate) fn is_code(&self, step: &Step) -> bool {
        step.kind.is_code(is_wide(self.kernels))
    }

    /// # Errors
    /// As when it was compiled.
    pub fn listings(&self) -> Result<Vec<Listing>, Diagnostic> {
        schedule::listings(&self.plan, self.count, is_wide(self.kernels))
    }

    pub fn explain(&self) -> String {
        self.plan.explain(&self.graph, is_wide(self.kernels))
    }

    /// What a fault means to a person.
    fn complain(&self, code: i64) -> Diagnostic {
        let step = &self.plan.steps[(code >> 8) as usize];
        let (op, origin) = (self.graph.node(step.node).op, self.graph.origin(step.node));
        match Fault::from_code((code & 0xff) as i32) {
            Fault::NotFinite => Diagnostic::new(origin, format!("`{op}` met a value that is not finite")),
            Fault::Misfit => Diagnostic::new(origin, format!("internal error: operands of `{op}` do not fit its plan")),
        }
    }
}

/// Whether kernels have wider vectors than the 128 bits of machine code.
fn is_wide(kernels: Kernels) -> bool {
    kernels.isa() != Isa::Portable
}

/// The table of every curve that neurons have.
fn tables(plan: &Plan) -> BTreeMap<Curve, Box<[f32]>> {
    let curve = |step: &Step| match step.kind {
        StepKind::Neuron(layer) if layer.curve != Curve::Identity => Some(layer.curve),
        _ => None,
    };
    plan.steps.iter().filter_map(curve).map(|curve| (curve, curve.table().into())).collect()
}

/// By step, for products: the step of the neurons that emit the levels it reads, of the same rows.
fn emitters(graph: &Graph, plan: &Plan) -> Vec<Option<usize>> {
    let neurons = |(i, step): (usize, &Step)| matches!(step.kind, StepKind::Neuron(_)).then_some((step.node, i));
    let neurons: BTreeMap<Value, usize> = plan.steps.iter().enumerate().filter_map(neurons).collect();
    let emitter = |step: &Step| match step.kind {
        StepKind::MatMulInt { .. } => neurons.get(&graph.node(step.node).args[0]).copied(),
        _ => None,
    };
    let of_the_same_rows = |step: &Step| emitter(step).filter(|&i| plan.steps[i].rows == step.rows);
    plan.steps.iter().map(of_the_same_rows).collect()
}

/// A record for every step.
fn records(graph: &Graph, plan: &Plan, tables: &BTreeMap<Curve, Box<[f32]>>) -> Vec<StepRecord> {
    let record = |(i, step): (usize, &Step)| {
        let mut record =
            StepRecord { out: plan.buffers[step.out].offset as u64, step: i as u64, ..StepRecord::default() };
        record.tally = (i * size_of::<StepTally>()) as u64;
        for (offset, &input) in record.inputs.iter_mut().zip(&step.inputs) {
            *offset = plan.buffers[input].offset as u64;
        }
        for (address, &id) in record.constants.iter_mut().zip(&step.constants) {
            *address = address_of(graph, id);
        }
        if let StepKind::Neuron(layer) = step.kind
            && let Some(table) = tables.get(&layer.curve)
        {
            record.table = table.as_ptr().expose_provenance() as u64;
        }
        record
    };
    plan.steps.iter().enumerate().map(record).collect()
}

fn address_of(graph: &Graph, id: WeightId) -> u64 {
    let data = graph.weight(id).tensor.data();
    let address = match data {
        Data::F32(x) => x.as_ptr().expose_provenance(),
        Data::I32(x) => x.as_ptr().expose_provenance(),
        Data::I8(x) | Data::Panels(x) => x.as_ptr().expose_provenance(),
    };
    address as u64
}

/// Some sequences, run by machine code in one arena.
#[derive(Debug)]
pub struct Jit {
    compiled: Arc<Compiled>,
    arena: Arena,
    scratch: Vec<u64>,
    tallies: Vec<StepTally>,
    events: Vec<Events>,
    taken: Vec<u64>,
    products: Vec<MatmulCounts>,
    sequences: Vec<CachedSequence>,
    /// Wanted rows of the last step: the first, and how many.
    wanted: (usize, usize),
}

/// What is kept of one sequence.
#[derive(Clone, Debug)]
pub(crate) struct CachedSequence {
    /// By node.
    entries: Vec<Option<CacheEntry>>,
    /// Tokens that it has seen. Slots may hold more, of a pass that failed.
    past: usize,
    marked: usize,
}

impl Jit {
    pub fn new(compiled: Arc<Compiled>, sequences: usize) -> Self {
        let (graph, steps) = (&compiled.graph, compiled.plan.steps.len());
        let entries = graph.iter().map(|(value, _)| CacheEntry::new(graph, value)).collect();
        let sequence = CachedSequence { entries, past: 0, marked: 0 };
        Self {
            arena: Arena::new(compiled.plan.arena_bytes),
            scratch: vec![0; compiled.scratch_len],
            tallies: vec![StepTally::default(); steps],
            events: vec![Events::default(); steps],
            taken: vec![0; steps],
            products: vec![MatmulCounts::default(); steps],
            sequences: vec![sequence; sequences],
            wanted: (0, 0),
            compiled,
        }
    }

    fn write_ids(&mut self, buffer: Option<usize>, ids: impl Iterator<Item = i32>) {
        let Some(buffer) = buffer else { return };
        let at = self.compiled.plan.buffers[buffer].offset;
        for (bytes, id) in self.arena.bytes_mut()[at..].chunks_exact_mut(4).zip(ids) {
            bytes.copy_from_slice(&id.to_ne_bytes());
        }
    }

    fn record(&self, rows: usize, meter: &mut Meter) {
        for (i, step) in self.compiled.plan.steps.iter().enumerate() {
            let (mut events, tally) = (self.events[i], self.tallies[i]);
            events.spikes += tally.spikes;
            events.active += tally.active;
            events.saturated += tally.saturated;
            if let (StepKind::MatMulInt { outputs, .. }, Some(emitter)) = (step.kind, self.compiled.emitters[i]) {
                let spikes = self.events[emitter].spikes + self.tallies[emitter].spikes;
                events.additions += spikes * outputs as u64;
            }
            let taken = tally.taken + self.taken[i];
            meter.events[step.node.index()] += events;
            if let StepKind::Synapse { outputs, .. } | StepKind::Currents { outputs, .. } = step.kind
                && self.compiled.count
            {
                // A synapse that is decoded at once runs as a step of the node that decodes it; one that neurons read as
                // well has a step of its own, which counts.
                let node = self.compiled.graph.node(step.node);
                let synapse = if node.op == Op::Spike(SpikeOp::Decode) { node.args[0] } else { step.node };
                if synapse == step.node || self.compiled.plan.of[synapse.index()].is_none() {
                    meter.events[synapse.index()].additions += taken * outputs as u64;
                }
            }
            let rows = if step.rows == RowSet::Wanted { self.wanted.1 } else { rows };
            let products = match step.kind {
                // Of spikes, rows are all that is read.
                StepKind::Synapse { .. } | StepKind::Currents { .. } => {
                    MatmulCounts { sparse: rows as u64, fired: taken, rows: taken, ..MatmulCounts::default() }
                }
                _ => self.products[i],
            };
            meter.matmuls[step.node.index()] += products;
            meter.executed += step.kind.executed(rows, &events, &products);
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

    fn mark(&mut self, sequence: usize) {
        let sequence = &mut self.sequences[sequence];
        sequence.entries.iter_mut().flatten().for_each(CacheEntry::mark);
        sequence.marked = sequence.past;
    }

    fn rewind(&mut self, sequence: usize) {
        let sequence = &mut self.sequences[sequence];
        sequence.entries.iter_mut().flatten().for_each(CacheEntry::rewind);
        sequence.past = sequence.marked;
    }

    fn step(&mut self, spans: &[SequenceSpan<'_>], rows: Rows, meter: &mut Meter) -> Result<(), Diagnostic> {
        let n = spans.iter().map(|span| span.tokens.len()).sum();
        let compiled = Arc::clone(&self.compiled);
        self.write_ids(compiled.plan.tokens, spans.iter().flat_map(|span| span.tokens).map(|&id| id as i32));
        let positions =
            |span: &SequenceSpan<'_>| (self.past(span.sequence)..).take(span.tokens.len()).map(|i| i as i32);
        let positions: Vec<i32> = spans.iter().flat_map(positions).collect();
        self.write_ids(compiled.plan.positions, positions.into_iter());
        self.wanted = match rows {
            Rows::All => (0, n),
            Rows::Last => (n - 1, 1),
            Rows::None => (n, 0),
        };
        self.tallies.fill(StepTally::default());
        self.events.fill(Events::default());
        self.taken.fill(0);
        self.products.fill(MatmulCounts::default());
        let pass = ForwardPass {
            compiled: &compiled,
            sequences: &mut self.sequences,
            spans,
            events: &mut self.events,
            taken: &mut self.taken,
            products: &mut self.products,
        };
        let rows = [n, self.wanted.0, self.wanted.1];
        let fault = compiled.code.run(&mut self.arena, &mut self.tallies, &mut self.scratch, rows, pass);
        if fault != 0 {
            return Err(compiled.complain(fault));
        }
        for span in spans {
            self.sequences[span.sequence].past += span.tokens.len();
        }
        self.record(n, meter);
        Ok(())
    }

    fn output(&self, value: Value) -> &[f32] {
        let plan = &self.compiled.plan;
        let Some(Buffer { offset, row_bytes, .. }) = plan.of[value.index()].map(|buffer| &plan.buffers[buffer]) else {
            return &[];
        };
        let (first, rows) = self.wanted;
        let from = offset + first * row_bytes;
        memory::cast(&self.arena.bytes()[from..from + rows * row_bytes]).unwrap_or_default()
    }

    fn levels(&self, value: Value) -> Vec<i32> {
        let plan = &self.compiled.plan;
        let Some(Buffer { offset, row_bytes, ty, .. }) = plan.of[value.index()].map(|buffer| &plan.buffers[buffer])
        else {
            return Vec::new();
        };
        let (first, rows) = self.wanted;
        let bytes = &self.arena.bytes()[offset + first * row_bytes..][..rows * row_bytes];
        match ty.elem().map(Elem::bytes) {
            // Spikes: planes, padded.
            None => {
                let width = ty.shape().row_width().unwrap_or(1);
                let planes = cast::<i8>(bytes).unwrap_or_default().chunks_exact(plane_bytes(width));
                planes.flat_map(|plane| &plane[..width]).map(|&spike| i32::from(spike)).collect()
            }
            Some(1) => cast::<i8>(bytes).unwrap_or_default().iter().map(|&level| i32::from(level)).collect(),
            Some(2) => cast::<i16>(bytes).unwrap_or_default().iter().map(|&level| i32::from(level)).collect(),
            Some(_) => cast::<i32>(bytes).unwrap_or_default().to_vec(),
        }
    }
}
