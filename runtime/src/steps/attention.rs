//! Dense causal attention in f32.

use crate::kernels::DenseShape;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{AttentionCall, Fault, StepKind, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::op::{Heads, Scalar};
use snnc_ir::{Diagnostic, Value};

/// Softmax attention over the keys that a query sees.
#[derive(Debug)]
struct AttentionStep {
    heads: Heads,
    scale: Scalar,
    /// Of a row of queries.
    width: usize,
}

/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, heads: Heads, scale: Scalar) -> Result<(), Diagnostic> {
    let width = p.width(at)?;
    let args = &p.graph.node(at).args;
    p.step(at, AttentionStep { heads, scale, width }, &args[..3], &args[3..])
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
        let AttentionCall { resources, constants, entry, past, rows: [q, k, v, ..], out, .. } = call;
        let &AttentionStep { heads, scale, width } = self;
        let out = numbers_mut::<f32>(out)?;
        let events = Events { keys: heads.keys(past, out.len() / width), ..Events::default() };
        let alibi = if heads.alibi { constants.f32(0)? } else { &[] };
        let shape = DenseShape { heads, width: width / heads.query as usize, scale: scale.get(), alibi };
        let cache = entry.rows().ok_or(Fault::Misfit)?;
        let (keys, values) = cache.extend::<f32, f32>(past, numbers(k)?, numbers(v)?).ok_or(Fault::Misfit)?;
        resources.kernels.attention_f32(numbers(q)?, keys, values, &shape, out);
        Ok(events)
    }
}
