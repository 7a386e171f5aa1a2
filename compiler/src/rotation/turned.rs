//! The pass `rotate` on its own.

use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Graph, WeightStore};
use snnc_passes::options::Rotations;
use snnc_passes::{Context, Pass, pipeline, run};

/// What is shown the pass with the graphs before and after.
pub(super) type PassWatch<'a> = dyn FnMut(&Pass, &Graph, &Graph) + 'a;

/// A network at stage Tensor with these parts rotated; its new weights are where `store` keeps them.
pub(super) fn turned(
    tensor: Graph,
    rotations: Rotations,
    store: Option<&dyn WeightStore>,
    watch: &mut PassWatch<'_>,
) -> Result<Graph, Diagnostics> {
    run(pipeline::rotation(), tensor, &Context { rotations, store, ..Context::default() }, watch)
}
