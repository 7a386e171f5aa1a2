//! The kernels' side of the trampoline: from a step and its rows to the kernel that does it.

use crate::executor::SequenceSpan;
use crate::jit::loop_call::LoopCode;
use crate::jit::soon::SoonRead;
use crate::kv_cache::CachedSequence;
use crate::meter::MatmulCounts;
use crate::plan::Plan;
use crate::step::{AttentionCall, Constants, Fault, KernelCall, MOST_INPUTS, Resources};
use snnc_ir::Graph;
use snnc_ir::events::Events;

/// One pass over the plan, as kernels see it.
#[derive(Debug)]
pub struct ForwardPass<'a> {
    pub graph: &'a Graph,
    pub plan: &'a Plan,
    pub resources: Resources<'a>,
    /// By step: its loop in machine code, if it has one.
    pub loops: &'a [Option<LoopCode>],
    /// By step, for products: the neurons that emit the levels it reads.
    pub emitters: &'a [Option<usize>],
    /// By step: weights that it prefetches; nothing where there are many tokens.
    pub soon: &'a [Option<SoonRead>],
    pub sequences: &'a mut [CachedSequence],
    /// Whose the rows are, in their order.
    pub spans: &'a [SequenceSpan<'a>],
    /// By step.
    pub events: &'a mut [Events],
    /// By step: spikes that a kernel took.
    pub taken: &'a mut [u64],
    /// By step: how products were done.
    pub matmuls: &'a mut [MatmulCounts],
}

/// The rows of the arena that a kernel reads and writes.
#[derive(Debug)]
pub struct Operands<'a> {
    pub inputs: [&'a [u8]; MOST_INPUTS],
    pub out: &'a mut [u8],
    /// Of the step's second result, if it has one.
    pub also: &'a mut [u8],
}

/// Runs the kernel of step `i` on its operands' rows, which begin at row `first` of the chunk.
pub fn run_step(pass: &mut ForwardPass<'_>, i: usize, operands: Operands<'_>, first: usize) -> Result<(), Fault> {
    let step = &pass.plan.steps[i];
    if operands.out.is_empty() {
        // Of this step's rows none are wanted.
        return Ok(());
    }
    if step.kind.keeps_state() {
        return if first == 0 { attend(pass, i, operands) } else { Err(Fault::Misfit) };
    }
    let done = step.kind.run(KernelCall {
        resources: pass.resources,
        constants: Constants { graph: pass.graph, ids: &step.constants },
        code: pass.loops[i].as_ref(),
        inputs: operands.inputs,
        out: operands.out,
        also: operands.also,
        counted: pass.emitters[i].is_some(),
        events: &mut pass.events[i],
        taken: &mut pass.taken[i],
        matmuls: &mut pass.matmuls[i],
    });
    pass.resources.kernels.prefetch(soon(pass, i));
    done
}

/// Weights that step `i` prefetches.
fn soon<'a>(pass: &ForwardPass<'a>, i: usize) -> &'a [i8] {
    pass.soon.get(i).copied().flatten().map_or(&[], |read| read.bytes(pass.graph))
}

/// Runs attention on the rows of each sequence, with what is kept of it.
fn attend(pass: &mut ForwardPass<'_>, i: usize, operands: Operands<'_>) -> Result<(), Fault> {
    let step = &pass.plan.steps[i];
    let soon = soon(pass, i);
    let rows: usize = pass.spans.iter().map(|span| span.tokens.len()).sum();
    let Operands { mut inputs, mut out, .. } = operands;
    let bytes = inputs.map(|rows_of| rows_of.len() / rows);
    let out_bytes = out.len() / rows;
    for span in pass.spans {
        let rows = span.tokens.len();
        let sequence = &mut pass.sequences[span.sequence];
        let entry = sequence.entries[step.node.index()].as_mut().ok_or(Fault::Misfit)?;
        let mine: [_; MOST_INPUTS] = std::array::from_fn(|k| inputs[k].split_at(rows * bytes[k]));
        let (mine_out, rest) = out.split_at_mut(rows * out_bytes);
        pass.events[i] += step.kind.attend(AttentionCall {
            resources: pass.resources,
            constants: Constants { graph: pass.graph, ids: &step.constants },
            code: pass.loops[i].as_ref(),
            entry,
            past: sequence.past,
            rows: mine.map(|(mine, _)| mine),
            soon,
            out: mine_out,
        })?;
        (inputs, out) = (mine.map(|(_, rest)| rest), rest);
    }
    Ok(())
}
