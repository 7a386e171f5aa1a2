//! Weights that are read soon. While few tokens go through neurons and attention, memory has nothing to do; each of these steps
//! prefetches a part of the weights of the product that comes next.

use crate::plan::{Plan, Step};
use crate::step::MatmulInput;
use snnc_ir::{Graph, WeightId};

/// Some bytes of a weight in panels.
#[derive(Clone, Copy, Debug)]
pub struct SoonRead {
    id: WeightId,
    from: usize,
    len: usize,
}

/// Bytes that a step prefetches, and that attention does: as long as each takes, memory gives about as many.
const BYTES: usize = 2 << 10;
const ATTENTION_BYTES: usize = 48 << 10;

impl SoonRead {
    /// The bytes that there are of it.
    pub fn bytes(self, graph: &Graph) -> &[i8] {
        let tensor = &graph.weight(self.id).tensor;
        let groups = tensor.as_groups().map(|(bytes, _)| bytemuck::cast_slice(bytes));
        let panels = tensor.as_panels().or(groups).unwrap_or_default();
        let from = self.from.min(panels.len());
        &panels[from..panels.len().min(from + self.len)]
    }
}

/// By step: what it prefetches, if a product of levels comes after it.
pub fn soon_reads(plan: &Plan) -> Vec<Option<SoonRead>> {
    let is_product = |step: &Step| {
        let sizes = step.kind.matmul();
        sizes.is_some_and(|sizes| matches!(sizes.reads, MatmulInput::Levels { .. }))
    };
    let mut all = Vec::with_capacity(plan.steps.len());
    let mut from = 0;
    for (i, step) in plan.steps.iter().enumerate() {
        if is_product(step) {
            from = 0;
        }
        let len = if step.kind.keeps_state() { ATTENTION_BYTES } else { BYTES };
        let next = plan.steps[i + 1..].iter().find(|step| is_product(step));
        all.push(next.and_then(|next| next.constants.first()).map(|&id| SoonRead { id, from, len }));
        from += len;
    }
    all
}
