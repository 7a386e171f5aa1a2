//! The steps of a plan, and the values that they read.

use super::products::LevelWeight;
use crate::kernels::{Axis, Bf16Panels, Bf16Unit, Formula};
use snnc_ir::hadamard::HadamardMatrix;
use snnc_ir::op::Pairs;
use snnc_ir::origin::NodeOrigin;
use snnc_ir::{Curve, Value};
use std::ops::Range;
use std::sync::Arc;

/// Where numbers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// The arena, from this number on; while a plan is made, the value's number.
    Arena(usize),
    /// The constant that a value is.
    Constant(Value),
    /// A parameter, by its place in the list of them.
    Parameter(usize),
    Tokens,
    Positions,
    Opening,
    Targets,
}

/// A value as it lies: sizes, and how far apart elements are along each axis.
#[derive(Clone, Debug)]
pub struct StridedView {
    pub source: ValueSource,
    pub sizes: Vec<usize>,
    pub steps: Vec<usize>,
}

impl StridedView {
    pub fn whole(source: ValueSource, sizes: Vec<usize>) -> Self {
        let steps = steps_of(&sizes);
        Self { source, sizes, steps }
    }

    pub fn is_whole(&self) -> bool {
        let usual = steps_of(&self.sizes);
        self.sizes.iter().zip(&self.steps).zip(&usual).all(|((&size, step), usual)| size == 1 || step == usual)
    }

    pub fn len(&self) -> usize {
        self.sizes.iter().product()
    }

    /// The number of the value that it is, while a plan is made.
    pub fn value(&self) -> Option<usize> {
        match self.source {
            ValueSource::Arena(value) => Some(value),
            ValueSource::Constant(_)
            | ValueSource::Parameter(_)
            | ValueSource::Tokens
            | ValueSource::Positions
            | ValueSource::Opening
            | ValueSource::Targets => None,
        }
    }
}

/// How far apart elements are along each axis, in the usual order.
pub fn steps_of(sizes: &[usize]) -> Vec<usize> {
    let mut steps = vec![1; sizes.len()];
    for axis in (0..sizes.len().saturating_sub(1)).rev() {
        steps[axis] = steps[axis + 1] * sizes[axis + 1];
    }
    steps
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum TrainingStepKind {
    /// Functions of single numbers; the copy of an operand that is spread or lies in another order is one.
    Formula(Formula),
    ReduceSum(Vec<Axis>),
    MatMul,
    /// A product of levels and a weight of 8 bits.
    LevelProduct(Arc<LevelWeight>),
    /// A product of operands rounded to bf16; the right one, where it is a constant.
    RoundedProduct(Bf16Unit, Option<Arc<Bf16Panels>>),
    Softmax,
    RowMax,
    TopkMask {
        keys: usize,
    },
    CausalMask {
        keep: f32,
        drop: f32,
        window: Option<u32>,
    },
    Centre,
    Hadamard(HadamardMatrix),
    AtStart,
    RmsNorm {
        eps: f32,
        heads: usize,
    },
    RmsNormGrad {
        eps: f32,
        heads: usize,
    },
    Rotary {
        heads: usize,
        pairs: Pairs,
    },
    Gated(Curve),
    RowMaxAbs,
    RowMaxAbsGrad,
    GatherChannels,
    GatherChannelsGrad,
    Embed,
    EmbedGrad,
    DecayMask,
    DecayMaskGrad,
    Divergence,
    DivergenceGrad,
    CrossEntropy,
    CrossEntropyGrad,
}

#[derive(Clone, Debug)]
pub struct TrainingStep {
    pub node: Value,
    pub origin: NodeOrigin,
    pub kind: TrainingStepKind,
    pub inputs: Vec<StridedView>,
    /// Where its result lies in the arena.
    pub out: Range<usize>,
}

/// What a value changes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangesWith {
    Nothing,
    Parameters,
    Window,
}

/// A step, and what its result changes with.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    pub step: TrainingStep,
    pub changes: ChangesWith,
}
