//! Products of training that a processor does faster than in f32.
//!
//! Law: a product of levels and a weight of 8 bits that does not train gives the integers of the engines that run programs, each as the
//! nearest f32. Operands that bf16 does not hold are rounded to it in the backward pass alone, and only where that was asked for.

use crate::kernels::{Bf16Left, Bf16Panels, Bf16Rows, Bf16Unit, Kernels, Panels, StridedMatrix, multiply_bf16};
use snnc_ir::op::{ArrayOp, LeafOp, TrainingOp};
use snnc_ir::{Graph, Op, Tensor, Value};
use std::sync::Arc;

/// How products of the backward pass are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientProducts {
    /// In f32.
    #[default]
    F32,
    /// With operands rounded to bf16, by this unit.
    Bf16(Bf16Unit),
}

/// The largest level whose two bytes a product takes.
const LEVEL_MAX: u32 = 255;

/// The largest magnitude of a weight of 8 bits.
const WEIGHT_MAX: f32 = 127.0;

/// A weight of 8 bits that does not train, in panels, for levels.
#[derive(Clone, Debug)]
pub struct LevelWeight {
    panels: Tensor,
    inputs: usize,
    outputs: usize,
    /// The largest level.
    most: u32,
}

impl LevelWeight {
    /// Of the product at `at`, where it multiplies levels by such a weight.
    pub fn of(graph: &Graph, at: Value, parameters: &[String]) -> Option<Self> {
        let &[x, w] = &graph.node(at).args[..] else { return None };
        let Op::Training(TrainingOp::FakeQuant { most }) = graph.node(x).op else { return None };
        let Op::Leaf(LeafOp::Weight(_)) = graph.node(w).op else { return None };
        let weight = graph.constant(w).filter(|weight| !parameters.contains(&weight.name))?;
        let (&[inputs, outputs], numbers) = (weight.tensor.sizes(), weight.tensor.as_f32()?) else { return None };
        let sums_fit = u128::from(most) * WEIGHT_MAX as u128 * inputs as u128 <= i32::MAX as u128;
        let whole = |x: &f32| x.trunc() == *x && x.abs() <= WEIGHT_MAX;
        if most > LEVEL_MAX || !sums_fit || !numbers.iter().all(whole) {
            return None;
        }
        let rows = Tensor::i8(&[inputs, outputs], numbers.iter().map(|&x| x as i8).collect());
        Some(Self { panels: rows.to_panels()?, inputs, outputs, most })
    }

    /// `y[n, outputs] = x[n, inputs] w`.
    pub fn product(&self, kernels: Kernels, x: &[f32], scratch: &mut ProductScratch, y: &mut [f32]) {
        let w = Panels::new(self.panels.as_panels().unwrap_or(&[]), self.inputs, self.outputs);
        let sums: &mut [i32] = bytemuck::cast_slice_mut(y);
        if self.most <= WEIGHT_MAX as u32 {
            let levels = &mut scratch.levels;
            levels.clear();
            levels.extend(x.iter().map(|&x| x as i8));
            kernels.matmul_int(levels, &[], w, sums);
        } else {
            let (levels, low) = (&mut scratch.wide_levels, &mut scratch.levels);
            levels.clear();
            levels.extend(x.iter().map(|&x| x as i16));
            low.resize(levels.len(), 0);
            let higher = kernels.split_wide(levels, self.inputs, low);
            kernels.matmul_int(low, &[higher], w, sums);
        }
        y.iter_mut().for_each(|y| *y = y.to_bits() as i32 as f32);
    }
}

/// The largest magnitude of a value that holds whole numbers: levels, spikes, and what only lays them out.
fn whole_numbers(graph: &Graph, value: Value) -> Option<u32> {
    let node = graph.node(value);
    match node.op {
        Op::Training(TrainingOp::FakeQuant { most }) => Some(most),
        Op::Training(TrainingOp::Step(_)) => Some(1),
        Op::Training(TrainingOp::StopGradient | TrainingOp::BroadcastTo(_))
        | Op::Array(ArrayOp::Transpose(_) | ArrayOp::Reshape(_) | ArrayOp::SplitHeads { .. } | ArrayOp::MergeHeads) => {
            whole_numbers(graph, node.args[0])
        }
        Op::Training(_) | Op::Array(_) | Op::Leaf(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) => None,
    }
}

/// Whether a product in bf16 gives the numbers of one in f32: both operands are whole numbers that bf16 holds, and f32 all sums.
pub fn exact_in_bf16(graph: &Graph, at: Value) -> bool {
    /// bf16 holds whole numbers up to here.
    const NUMBER_MAX: u32 = 1 << 8;
    /// f32 does.
    const SUM_MAX: u64 = 1 << 24;
    let &[a, b] = &graph.node(at).args[..] else { return false };
    let bounds = (whole_numbers(graph, a), whole_numbers(graph, b), graph.ty(a).shape().width());
    let (Some(a), Some(b), Some(inputs)) = bounds else { return false };
    a.max(b) <= NUMBER_MAX && u64::from(a) * u64::from(b) * inputs as u64 <= SUM_MAX
}

/// Memory of an engine's products.
#[derive(Clone, Debug, Default)]
pub struct ProductScratch {
    rows: Bf16Rows,
    left: Bf16Panels,
    panels: Bf16Panels,
    sums: Vec<f32>,
    levels: Vec<i8>,
    wide_levels: Vec<i16>,
}

/// A right operand that is a constant, rounded once.
pub fn rounded_once(kernels: Kernels, w: StridedMatrix<'_>) -> Arc<Bf16Panels> {
    let mut panels = Bf16Panels::default();
    kernels.round_panels(w, &mut panels);
    Arc::new(panels)
}

/// `y = a b` with rounded operands; `w`: the right one, where it is rounded already.
pub fn in_bf16(
    (kernels, unit): (Kernels, Bf16Unit),
    a: StridedMatrix<'_>,
    b: StridedMatrix<'_>,
    w: Option<&Bf16Panels>,
    scratch: &mut ProductScratch,
    y: &mut [f32],
) {
    let ProductScratch { rows, left, panels, sums, .. } = scratch;
    // Rows of a turned operand lie apart: its panels are read as they lie.
    let turned = unit == Bf16Unit::Pairs && a.steps[0] == 1 && a.steps[1] != 1;
    let x = if turned {
        kernels.round_panels(a.turned(), left);
        Bf16Left::Panels(left)
    } else {
        kernels.round_rows(a, rows);
        Bf16Left::Rows(rows)
    };
    let w = match w {
        Some(w) => w,
        None => {
            kernels.round_panels(b, panels);
            panels
        }
    };
    multiply_bf16(unit, x, w, [a.rows, b.columns], y, sums);
}
