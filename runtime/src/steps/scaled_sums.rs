//! Sums with a scale, times a number of their row, and perhaps a gain, an offset and a residual behind that: what a projection of
//! levels gives whose tokens have thresholds of their own. One pass over the sums, to the bit what the operations give one after
//! the other.

use crate::jit::dispatch;
use crate::kernels::{ScaledRows, SpikeCount};
use crate::planner::Planner;
use crate::step::{Constants, Fault, KernelCall, StepKind, numbers, numbers_mut};
use snnc_ir::op::{ArrayOp, Binary, LevelOp, Op};
use snnc_ir::types::{Elem, Shape};
use snnc_ir::{Diagnostic, Value};

/// What `(sums * gain + offset) * by`, and perhaps `* gain + offset`, reads.
#[derive(Clone, Debug)]
pub struct ScaledSums {
    /// i32 `[tokens, width]`.
    pub sums: Value,
    /// f32 `[tokens, 1]`.
    pub by: Value,
    /// A gain and an offset per channel, or two of each.
    pub constants: Vec<Value>,
}

impl ScaledSums {
    /// Whether a gain and an offset come behind the product.
    pub fn is_shifted(&self) -> bool {
        self.constants.len() > 2
    }
}

/// One pass: `[tokens, width]` to the same in f32.
#[derive(Debug)]
struct ScaledSumsStep {
    width: usize,
    shift: bool,
    residual: bool,
}

/// What ends at a node in this form, if it does.
pub fn scaled_sums(p: &Planner<'_>, at: Value) -> Option<ScaledSums> {
    let node = p.graph.node(at);
    if node.op != Op::Level(LevelOp::ScaleShift) {
        return product(p, at);
    }
    let inner = *node.args.first()?;
    let mut of = product(p, inner).filter(|_| p.only_user(inner) == Some(at))?;
    of.constants.extend(&node.args[1..]);
    Some(of)
}

/// The product alone.
fn product(p: &Planner<'_>, at: Value) -> Option<ScaledSums> {
    let node = p.graph.node(at);
    let (Op::Array(ArrayOp::Binary(Binary::Mul)), &[scaled, by]) = (node.op, node.args.as_slice()) else { return None };
    let inner = p.graph.node(scaled);
    let sums = inner.args.first().filter(|&&sums| p.graph.ty(sums).elem() == Some(Elem::I32))?;
    let fits = inner.op == Op::Level(LevelOp::ScaleShift)
        && p.only_user(scaled) == Some(at)
        && p.graph.ty(scaled).shape() == Shape::rows(p.width(at).ok()?)
        && p.graph.ty(by).shape() == Shape::rows(1);
    fits.then(|| ScaledSums { sums: *sums, by, constants: inner.args[1..].to_vec() })
}

/// Whether the node that alone reads this one is the rest of such a product.
pub fn absorbed(p: &Planner<'_>, node: Value) -> bool {
    let Some(user) = p.only_user(node) else { return false };
    if p.graph.node(user).args.first() != Some(&node) {
        return false;
    }
    match p.graph.node(node).op {
        Op::Level(LevelOp::ScaleShift) => product(p, user).is_some(),
        Op::Array(ArrayOp::Binary(Binary::Mul)) => {
            p.graph.node(user).op == Op::Level(LevelOp::ScaleShift) && product(p, node).is_some()
        }
        Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
    }
}

/// Adds the step of what ends at the node, with a residual where one is added at `at`.
///
/// # Errors
/// Operands are not rows.
pub fn plan(p: &mut Planner<'_>, at: Value, of: &ScaledSums, residual: Option<Value>) -> Result<(), Diagnostic> {
    let kind = ScaledSumsStep { width: p.width(at)?, shift: of.is_shifted(), residual: residual.is_some() };
    let inputs: Vec<Value> = [of.sums, of.by].into_iter().chain(residual).collect();
    p.step(at, kind, &inputs, &of.constants)
}

/// The constants of such a product, of which the first is number `first` of the step's.
///
/// # Errors
/// A constant is not there.
pub fn scaled_rows<'a>(constants: Constants<'a>, first: usize, shift: bool) -> Result<ScaledRows<'a>, Fault> {
    let pair = |i| Ok([constants.f32(i)?, constants.f32(i + 1)?]);
    Ok(ScaledRows { scale: pair(first)?, shift: if shift { Some(pair(first + 2)?) } else { None } })
}

impl StepKind for ScaledSumsStep {
    fn name(&self) -> String {
        let shift = if self.shift { " > scale_shift" } else { "" };
        format!("scale_shift > mul{shift}{}", if self.residual { " > add" } else { "" })
    }

    fn run(&self, call: KernelCall<'_>) -> Result<(), Fault> {
        let KernelCall { resources, constants, inputs: [x, by, residual, ..], out, .. } = call;
        let (x, by, width) = (numbers::<i32>(x)?, numbers::<f32>(by)?, self.width);
        let rows = scaled_rows(constants, 0, self.shift)?;
        let residual = if self.residual { Some(numbers::<f32>(residual)?) } else { None };
        dispatch::by_rows(resources.pool, numbers_mut::<f32>(out)?, width, |first, y| {
            let some = first * width..first * width + y.len();
            let by = &by[first..first + y.len() / width];
            let residual = residual.map(|residual| &residual[some.clone()]);
            resources.kernels.scaled_sums(&x[some], &rows, by, residual, y);
            Ok(SpikeCount::default())
        })?;
        Ok(())
    }
}
