//! Dense causal attention in f32.

use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{AttentionCall, Fault, StepKind, keys_met, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::op::Scalar;
use snnc_ir::{Diagnostic, Value};

/// Softmax attention over all keys of the sequence.
#[derive(Debug)]
struct AttentionStep {
    heads: usize,
    scale: Scalar,
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: usize, scale: Scalar) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    p.step(at, AttentionStep { heads, scale, width }, &p.graph.node(at).args, &[])
}

impl StepKind for AttentionStep {
    fn name(&self) -> String {
        "attention".into()
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn executed(&self, _: usize, events: &Events, _: &MatmulCounts) -> Executed {
        Executed { macs: 2 * events.keys * self.width as u64, ..Executed::default() }
    }

    fn attend(&self, call: AttentionCall<'_>) -> Result<Events, Fault> {
        let AttentionCall { resources, entry, past, rows: [q, k, v], out, .. } = call;
        let &AttentionStep { heads, scale, width } = self;
        let out = numbers_mut::<f32>(out)?;
        let events = Events { keys: keys_met(past, out.len() / width), ..Events::default() };
        let cache = entry.rows().ok_or(Fault::Misfit)?;
        let (keys, values) = cache.extend::<f32, f32>(past, numbers(k)?, numbers(v)?).ok_or(Fault::Misfit)?;
        resources.kernels.attention_f32(numbers(q)?, keys, values, width, heads, scale.get(), out);
        Ok(events)
    }
}
