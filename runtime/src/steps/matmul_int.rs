//! The product of levels with an int8 weight: dense over all its rows, or sparse over those whose channels fired.

use crate::jit::dispatch;
use crate::kernels::MOST_IN_TWO;
use crate::layout::level_bytes;
use crate::meter::{Executed, MatmulCounts};
use crate::planner::Planner;
use crate::step::{Fault, KernelCall, MatmulInput, MatmulSizes, StepKind, numbers, numbers_mut};
use snnc_ir::events::Events;
use snnc_ir::types::Code;
use snnc_ir::{Diagnostic, Value};

/// `y = x w`, exact in i32.
#[derive(Debug)]
struct MatMulIntStep {
    code: Code,
    steps: u16,
    inputs: usize,
    outputs: usize,
    /// Bytes of the weight.
    bytes: u64,
}

/// # Errors
/// Operands are not levels in rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let args = &p.graph.node(at).args;
    let (code, steps) = p.levels(args[0])?;
    let bytes = p.graph.constant(args[1]).map_or(0, |weight| weight.tensor.data().len() as u64);
    let kind = MatMulIntStep { code, steps, inputs: p.width(args[0])?, outputs: p.width(at)?, bytes };
    p.step(at, kind, &args[..1], &args[1..])
}

impl StepKind for MatMulIntStep {
    fn name(&self) -> String {
        "matmul_int".into()
    }

    fn matmul(&self) -> Option<MatmulSizes> {
        let wide = level_bytes(self.code, self.steps) > 1;
        Some(MatmulSizes { inputs: self.inputs, outputs: self.outputs, reads: MatmulInput::Levels { wide } })
    }

    fn executed(&self, _: usize, _: &Events, matmuls: &MatmulCounts) -> Executed {
        let weights = (self.inputs * self.outputs) as u64;
        let sparse = matmuls.rows * self.outputs as u64;
        let dense = if matmuls.dense > 0 { self.bytes } else { 0 };
        Executed { macs: matmuls.dense * weights, additions: sparse, bytes: dense + sparse }
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, ..], out, counted, events, matmuls, .. } = call;
        let &MatMulIntStep { code, steps, inputs, outputs, .. } = self;
        let (kernels, pool) = (resources.kernels, resources.pool);
        let (w, y) = (constants.panels(0, inputs, outputs)?, numbers_mut(out)?);
        let bytes = level_bytes(code, steps);
        // Where neurons have counted what they emit, the engine adds it.
        if resources.count && !counted {
            let spikes = match bytes {
                1 => kernels.count_spikes(numbers::<i8>(x)?, code),
                2 => kernels.count_spikes(numbers::<i16>(x)?, code),
                _ => numbers::<i32>(x)?.iter().map(|&level| u64::from(code.spikes(level))).sum(),
            };
            events.additions += spikes * outputs as u64;
        }
        *matmuls += match bytes {
            1 => dispatch::matmul_int(kernels, resources.costs, pool, numbers(x)?, w, y),
            2 if code.levels(steps) <= MOST_IN_TWO => dispatch::matmul_int_wide(kernels, pool, numbers(x)?, w, y),
            2 => dispatch::matmul_int_widest(kernels, pool, numbers::<i16>(x)?, w, y),
            _ => dispatch::matmul_int_widest(kernels, pool, numbers::<i32>(x)?, w, y),
        };
        Ok(())
    }
}
