//! What must be finite before an operation, where that is not known beforehand: see `snnc_ir::finite`.

use crate::planner::Planner;
use crate::step::{Fault, KernelCall, StepKind, check_finite, numbers};
use snnc_ir::finite::checked_operands;
use snnc_ir::{Diagnostic, Elem, Shape, Type, Value};

/// Rows of f32 that must be finite. Nothing comes of them.
#[derive(Debug)]
struct CheckStep;

/// Adds a check before the node `at` for each operand that needs one.
///
/// # Errors
/// The operand is not rows.
pub fn plan(p: &mut Planner<'_>, at: Value) -> Result<(), Diagnostic> {
    let operands: Vec<Value> = checked_operands(p.graph, at).filter(|&value| p.unproven[value.index()]).collect();
    for (i, &operand) in operands.iter().enumerate() {
        if operands[..i].contains(&operand) {
            continue;
        }
        let nothing = p.buffer(at, Type::tensor(Elem::I8, Shape::rows(1)))?;
        let rows = p.row_set(at);
        p.push(at, CheckStep, &[operand], &[], nothing, rows)?;
    }
    Ok(())
}

impl StepKind for CheckStep {
    fn name(&self) -> String {
        "check_finite".into()
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        // Without the sign, bits of floats are in the order of their magnitudes: infinity and NaN are the largest.
        let largest =
            numbers::<f32>(call.inputs[0])?.iter().fold(0, |most, x| (x.to_bits() & (u32::MAX >> 1)).max(most));
        check_finite(f32::from_bits(largest).is_finite())
    }
}
