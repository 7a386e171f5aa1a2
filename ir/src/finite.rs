//! Where numbers must be finite: the one law of what is checked, in every engine.
//!
//! An infinity or a NaN stays what it is through sums and products, so it need not be looked for after each of them. It is
//! looked for where it would vanish:
//!
//! | op | what is checked |
//! |---|---|
//! | `quant`, `fire`, `integrate`, `curve`, `row_max_abs` | the f32 operand |
//! | `gated_quant`, `gated_fire` | gate and factor, where they are f32 |
//! | `gated` | the gate |
//! | `rms_norm` | the mean square, which is finite only if the row is |
//! | `attention` | queries, keys and values |
//! | `div` | the divisor |
//! | an output | its rows |
//!
//! A row that nobody wants, of a value that leads to no state, is not computed, so it is not checked either.
//!
//! A check costs nothing where no number can be too large: `unproven` says where one is needed.

use crate::bounds::magnitudes;
use crate::diagnostic::{Diagnostic, ErrorCode};
use crate::graph::Graph;
use crate::op::{ArrayOp, Binary, DenseOp, LevelOp, Op, SpikeOp};
use crate::types::{Elem, Type};
use crate::value::Value;

/// What of an operation's operands must be finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FiniteCheck {
    /// Nothing: infinities and NaN stay what they are.
    Nothing,
    /// These operands, where they are f32.
    Operands(&'static [usize]),
    /// The mean square of the first operand's rows, or of each of their heads.
    MeanSquare,
}

impl FiniteCheck {
    /// What is checked before an operation.
    ///
    /// ```
    /// use snnc_ir::Op;
    /// use snnc_ir::finite::FiniteCheck;
    ///
    /// assert_eq!(FiniteCheck::of(&Op::parse("div").unwrap()), FiniteCheck::Operands(&[1]));
    /// assert_eq!(FiniteCheck::of(&Op::parse("add").unwrap()), FiniteCheck::Nothing);
    /// ```
    pub fn of(op: &Op) -> Self {
        match op {
            Op::Level(LevelOp::Quant { .. } | LevelOp::RowMaxAbs { .. })
            | Op::Spike(SpikeOp::Fire { .. } | SpikeOp::Integrate { .. })
            | Op::Dense(DenseOp::Curve(_) | DenseOp::Gated(_)) => FiniteCheck::Operands(&[0]),
            Op::Level(LevelOp::GatedQuant { .. }) | Op::Spike(SpikeOp::GatedFire { .. }) => {
                FiniteCheck::Operands(&[0, 1])
            }
            Op::Dense(DenseOp::RmsNorm { .. }) => FiniteCheck::MeanSquare,
            Op::Dense(DenseOp::Attention { .. }) => FiniteCheck::Operands(&[0, 1, 2]),
            Op::Array(ArrayOp::Binary(Binary::Div)) => FiniteCheck::Operands(&[1]),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => {
                FiniteCheck::Nothing
            }
        }
    }
}

/// Operands of `at` that must be finite and that may be f32: mean squares are not among them.
pub fn checked_operands(graph: &Graph, at: Value) -> impl Iterator<Item = Value> + '_ {
    let node = graph.node(at);
    let operands = match FiniteCheck::of(&node.op) {
        FiniteCheck::Operands(operands) => operands,
        FiniteCheck::Nothing | FiniteCheck::MeanSquare => &[],
    };
    let real = |value: &Value| matches!(graph.ty(*value), Type::Tensor { elem: Elem::F32, .. });
    operands.iter().filter_map(|&i| node.args.get(i).copied()).filter(real)
}

/// By node: whether its numbers may be infinite or NaN, so that they are to be checked where `checked_operands` names them.
/// The bounds are those of f32 arithmetic, with room to spare.
pub fn unproven(graph: &Graph) -> Vec<bool> {
    let largest = f64::from(f32::MAX) / 16.0;
    // What is no number is not proven either.
    magnitudes(graph).into_iter().map(|magnitude| magnitude.is_nan() || magnitude > largest).collect()
}

/// The error of an operation whose operand, or mean square, is not finite.
pub fn not_finite(graph: &Graph, at: Value) -> Diagnostic {
    let message = format!("`{}` met a value that is not finite", graph.node(at).op);
    Diagnostic::new(graph.origin(at), message).code(ErrorCode::RUN)
}
