//! Every operation there is, in one closed enum with its attributes inside, and how it is spelled.
//!
//! The spelling is the text format, the e-graph's atom and the profile's row name. What an operation takes and gives is
//! in `infer`; what it means is in `eval`; what it costs is in `price`. To add one, add it here and follow the compiler.

use crate::curve::Curve;
use crate::graph::{Stage, WeightId};
use crate::membrane::Membrane;
use crate::ssa::Ssa;
use crate::training::TrainingOp;
use crate::types::{Code, Shape};
use std::fmt;

/// An f32 attribute, compared and hashed by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar(u32);

impl Scalar {
    pub fn new(value: f32) -> Self {
        Self(value.to_bits())
    }

    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// An order of axes: axis `i` of the result is axis `perm[i]` of the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Perm {
    rank: u8,
    axes: [u8; Shape::MAX_RANK],
}

impl Perm {
    /// `None` unless `axes` is a permutation of `0..rank` with rank at most 5.
    pub fn new(axes: &[usize]) -> Option<Self> {
        let mut seen = [false; Shape::MAX_RANK];
        let mut all = [0u8; Shape::MAX_RANK];
        if axes.len() > Shape::MAX_RANK {
            return None;
        }
        for (i, &axis) in axes.iter().enumerate() {
            if axis >= axes.len() || std::mem::replace(&mut seen[axis], true) {
                return None;
            }
            all[i] = axis as u8;
        }
        Some(Self { rank: axes.len() as u8, axes: all })
    }

    pub fn axes(&self) -> &[u8] {
        &self.axes[..usize::from(self.rank)]
    }

    pub fn is_identity(&self) -> bool {
        self.axes().iter().enumerate().all(|(i, &axis)| i == usize::from(axis))
    }

    /// The order that results from applying `first`, then `self`.
    pub fn after(&self, first: &Perm) -> Option<Perm> {
        if self.rank != first.rank {
            return None;
        }
        let axes: Vec<usize> = self.axes().iter().map(|&axis| usize::from(first.axes[usize::from(axis)])).collect();
        Perm::new(&axes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    Neg,
    Sqrt,
    Exp,
    Tanh,
    Erf,
    Sigmoid,
    Relu,
    Reciprocal,
}

impl Unary {
    pub const ALL: [Unary; 8] =
        [Unary::Neg, Unary::Sqrt, Unary::Exp, Unary::Tanh, Unary::Erf, Unary::Sigmoid, Unary::Relu, Unary::Reciprocal];

    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Sqrt => "sqrt",
            Unary::Exp => "exp",
            Unary::Tanh => "tanh",
            Unary::Erf => "erf",
            Unary::Sigmoid => "sigmoid",
            Unary::Relu => "relu",
            Unary::Reciprocal => "reciprocal",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
}

impl Binary {
    pub const ALL: [Binary; 7] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Min, Binary::Max];

    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Pow => "pow",
            Binary::Min => "min",
            Binary::Max => "max",
        }
    }
}

/// Which index of a dense weight runs slowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// `[in, out]`: a row for every input, as GPT-2's projections are stored.
    InputMajor,
    /// `[out, in]`: a row for every output, as an embedding used as `lm_head` is stored.
    OutputMajor,
}

/// What a program starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeafOp {
    /// `i32[tokens]`: the token ids of this call.
    Tokens,
    /// `i32[tokens]`: the absolute positions of this call's tokens.
    Positions,
    /// A constant of the program.
    Weight(WeightId),
}

/// What exporters write, after shape arithmetic is evaluated away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArrayOp {
    /// A function of one number, element by element.
    Unary(Unary),
    /// Element by element, with broadcasting of sizes 1 and of missing leading sizes.
    Binary(Binary),
    /// `f32[tokens,tokens]`: `keep` where column <= row, `drop` elsewhere.
    CausalMask { keep: Scalar, drop: Scalar },
    /// `(c, a, b)`: `a` where `c` is not 0, else `b`; broadcasts.
    Where,
    /// `[..., n, k] x [..., k, m]`; leading sizes broadcast.
    MatMul,
    /// Axes in another order.
    Transpose(Perm),
    /// The same elements in another shape.
    Reshape(Shape),
    /// `len` entries of a fixed axis, from `start`.
    Slice { axis: u8, start: u32, len: u32 },
    /// Mean over the innermost axis, which stays with size 1.
    Mean,
    /// Over the innermost axis.
    Softmax,
    /// `[tokens, heads*w] -> [heads, tokens, w]`.
    SplitHeads { heads: u32 },
    /// `[heads, tokens, w] -> [tokens, heads*w]`.
    MergeHeads,
}

/// A transformer in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DenseOp {
    /// `(i32[tokens], f32[v, d]) -> f32[tokens, d]`: rows of a table.
    Embed,
    /// `(x, gain f32[d], bias f32[d])`.
    LayerNorm { eps: Scalar },
    /// `LayerNorm` without gain and bias.
    LayerNormNoGain { eps: Scalar },
    /// `(x f32[tokens, d], w, bias f32[m]) -> f32[tokens, m]`.
    Linear(Layout),
    /// An activation function.
    Curve(Curve),
    /// `(q, k, v)`, each `f32[tokens, d]`: causal softmax attention with its keys and values as state.
    Attention { heads: u32, scale: Scalar },
}

/// Levels instead of reals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LevelOp {
    /// `(x, gain f32[d], offset f32[d])`, or with a curve `(x, pre_gain, pre_offset, gain, offset)`: the nearest level of
    /// the affine image of (the curve of) `x`, ties away from zero.
    Quant { code: Code, steps: u16, curve: Curve },
    /// `(levels [tokens, d], i8[d, m]) -> i32[tokens, m]`: exact integer product.
    MatMulInt,
    /// `(x [tokens, m], gain f32[m], offset f32[m]) -> f32[tokens, m]`: sums or levels as reals, or reals in other units.
    ScaleShift,
    /// `f32[tokens, d] -> f32[tokens, 1]`: the largest magnitude of a row, 1 where all are 0: a per-token threshold.
    RowMaxAbs,
    /// `(x f32[tokens, d], channels i32[k]) -> f32[tokens, k]`: some channels of every row.
    GatherChannels,
    /// `(x f32[tokens, heads * w], map f32[heads, w, m]) -> f32[tokens, heads * m]`: a dense map of its own for every head.
    HeadLinear,
    /// `(q, k, v, ...)`: spiking attention, causal. Takes level tensors or spike trains; gives a weighted mean of v's levels,
    /// `f32[tokens, d]`, or spikes. What a key weighs, what else it takes and what it keeps is the variant's: see `Ssa`.
    Ssa { heads: u32, variant: Ssa },
}

/// Levels spread over timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpikeOp {
    /// As `Quant`, but emits the level as a spike train.
    Fire { code: Code, steps: u16, curve: Curve },
    /// `(x, gain f32[d], offset f32[d]) -> spikes [tokens, d]`, unary: a time-stepped neuron. `x` is a current of as many
    /// timesteps, or a tensor that flows evenly over them.
    Integrate { membrane: Membrane, steps: u16, curve: Curve },
    /// `(spikes [tokens, d], i8[d, m]) -> current [tokens, m]`: adds or subtracts a weight row for every spike.
    Synapse,
    /// What a spike train denotes: the sum of its parts weighted by its code.
    Decode,
}

/// An operation, by dialect. Shapes below: `d` a width, `m` another one, `...` any leading sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    /// What a program starts from.
    Leaf(LeafOp),
    /// What exporters write.
    Array(ArrayOp),
    /// A transformer in its own words.
    Dense(DenseOp),
    /// Levels instead of reals.
    Level(LevelOp),
    /// Levels spread over timesteps.
    Spike(SpikeOp),
    /// Losses and derivatives.
    Training(TrainingOp),
}

impl Op {
    /// The spelling's first word.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Leaf(LeafOp::Tokens) => "tokens",
            Op::Leaf(LeafOp::Positions) => "positions",
            Op::Leaf(LeafOp::Weight(_)) => "weight",
            Op::Array(ArrayOp::Unary(kind)) => kind.name(),
            Op::Array(ArrayOp::Binary(kind)) => kind.name(),
            Op::Array(ArrayOp::CausalMask { .. }) => "causal_mask",
            Op::Array(ArrayOp::Where) => "where",
            Op::Array(ArrayOp::MatMul) => "matmul",
            Op::Array(ArrayOp::Transpose(_)) => "transpose",
            Op::Array(ArrayOp::Reshape(_)) => "reshape",
            Op::Array(ArrayOp::Slice { .. }) => "slice",
            Op::Array(ArrayOp::Mean) => "mean",
            Op::Array(ArrayOp::Softmax) => "softmax",
            Op::Array(ArrayOp::SplitHeads { .. }) => "split_heads",
            Op::Array(ArrayOp::MergeHeads) => "merge_heads",
            Op::Dense(DenseOp::Embed) => "embed",
            Op::Dense(DenseOp::LayerNorm { .. }) => "layer_norm",
            Op::Dense(DenseOp::LayerNormNoGain { .. }) => "layer_norm_no_gain",
            Op::Dense(DenseOp::Linear(_)) => "linear",
            Op::Dense(DenseOp::Curve(_)) => "curve",
            Op::Dense(DenseOp::Attention { .. }) => "attention",
            Op::Level(LevelOp::Quant { .. }) => "quant",
            Op::Level(LevelOp::MatMulInt) => "matmul_int",
            Op::Level(LevelOp::ScaleShift) => "scale_shift",
            Op::Level(LevelOp::RowMaxAbs) => "row_max_abs",
            Op::Level(LevelOp::GatherChannels) => "gather_channels",
            Op::Level(LevelOp::HeadLinear) => "head_linear",
            Op::Level(LevelOp::Ssa { .. }) => "ssa",
            Op::Spike(SpikeOp::Fire { .. }) => "fire",
            Op::Spike(SpikeOp::Integrate { .. }) => "integrate",
            Op::Spike(SpikeOp::Synapse) => "synapse",
            Op::Spike(SpikeOp::Decode) => "decode",
            Op::Training(op) => op.name(),
        }
    }

    /// The stages in which this operation may stand.
    pub fn legal_in(&self, stage: Stage) -> bool {
        use Stage::{Imported, Quantised, Spiking, Tensor, Training};
        match self {
            Op::Leaf(LeafOp::Tokens)
            | Op::Leaf(LeafOp::Positions)
            | Op::Leaf(LeafOp::Weight(_))
            | Op::Dense(DenseOp::Embed)
            | Op::Array(ArrayOp::Binary(Binary::Add)) => true,
            // By a threshold a token.
            Op::Array(ArrayOp::Binary(Binary::Mul | Binary::Div)) => {
                matches!(stage, Imported | Quantised | Spiking | Training)
            }
            // What the gradient pass knows the derivative of.
            Op::Array(ArrayOp::Unary(Unary::Neg | Unary::Exp))
            | Op::Array(ArrayOp::Binary(Binary::Sub))
            | Op::Array(ArrayOp::CausalMask { .. })
            | Op::Array(ArrayOp::MatMul)
            | Op::Array(ArrayOp::Transpose(_))
            | Op::Array(ArrayOp::Reshape(_))
            | Op::Array(ArrayOp::Softmax)
            | Op::Array(ArrayOp::SplitHeads { .. })
            | Op::Array(ArrayOp::MergeHeads) => matches!(stage, Imported | Training),
            Op::Array(ArrayOp::Unary(_))
            | Op::Array(ArrayOp::Binary(_))
            | Op::Array(ArrayOp::Where)
            | Op::Array(ArrayOp::Slice { .. })
            | Op::Array(ArrayOp::Mean) => stage == Imported,
            Op::Dense(DenseOp::LayerNorm { .. }) => matches!(stage, Imported | Tensor),
            // A site that is left dense keeps them after `quantise` too.
            Op::Dense(DenseOp::Linear(_)) | Op::Dense(DenseOp::Attention { .. }) => {
                matches!(stage, Tensor | Quantised | Spiking)
            }
            Op::Dense(DenseOp::Curve(_)) | Op::Dense(DenseOp::LayerNormNoGain { .. }) => {
                matches!(stage, Tensor | Quantised | Spiking | Training)
            }
            Op::Level(LevelOp::Quant { .. }) | Op::Level(LevelOp::MatMulInt) => stage == Quantised,
            Op::Level(LevelOp::ScaleShift) | Op::Level(LevelOp::RowMaxAbs) | Op::Level(LevelOp::GatherChannels) => {
                matches!(stage, Quantised | Spiking | Training)
            }
            Op::Level(LevelOp::HeadLinear) | Op::Level(LevelOp::Ssa { .. }) => matches!(stage, Quantised | Spiking),
            Op::Spike(SpikeOp::Fire { .. })
            | Op::Spike(SpikeOp::Integrate { .. })
            | Op::Spike(SpikeOp::Synapse)
            | Op::Spike(SpikeOp::Decode) => stage == Spiking,
            Op::Training(_) => stage == Training,
        }
    }

    /// Whether the operation keeps something of the tokens between calls.
    pub fn has_state(&self) -> bool {
        matches!(self, Op::Dense(DenseOp::Attention { .. }) | Op::Level(LevelOp::Ssa { .. }))
    }
}

impl fmt::Display for Op {
    /// `name[attributes]`; the weight's name is the graph's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Op::Array(ArrayOp::CausalMask { keep, drop }) => write!(f, "[{:?},{:?}]", keep.get(), drop.get()),
            Op::Array(ArrayOp::Transpose(perm)) => write!(f, "{:?}", perm.axes()),
            Op::Array(ArrayOp::Reshape(shape)) => write!(f, "{shape}"),
            Op::Array(ArrayOp::Slice { axis, start, len }) => write!(f, "[axis={axis},start={start},len={len}]"),
            Op::Array(ArrayOp::SplitHeads { heads }) => write!(f, "[heads={heads}]"),
            Op::Dense(DenseOp::LayerNorm { eps }) | Op::Dense(DenseOp::LayerNormNoGain { eps }) => {
                write!(f, "[eps={:?}]", eps.get())
            }
            Op::Dense(DenseOp::Linear(Layout::InputMajor)) => Ok(()),
            Op::Dense(DenseOp::Linear(Layout::OutputMajor)) => f.write_str("[output_major]"),
            Op::Dense(DenseOp::Curve(curve)) => write!(f, "[{}]", curve.name()),
            Op::Dense(DenseOp::Attention { heads, scale }) => write!(f, "[heads={heads},scale={:?}]", scale.get()),
            Op::Level(LevelOp::Quant { code, steps, curve }) | Op::Spike(SpikeOp::Fire { code, steps, curve }) => {
                match curve {
                    Curve::Identity => write!(f, "[{},{steps}]", code.name()),
                    Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => {
                        write!(f, "[{},{steps},{}]", code.name(), curve.name())
                    }
                }
            }
            Op::Spike(SpikeOp::Integrate { membrane, steps, curve: Curve::Identity }) => {
                write!(f, "[{},{steps}]", membrane.name())
            }
            Op::Spike(SpikeOp::Integrate { membrane, steps, curve }) => {
                write!(f, "[{},{steps},{}]", membrane.name(), curve.name())
            }
            Op::Training(op) => f.write_str(&op.to_string()[op.name().len()..]),
            Op::Level(LevelOp::Ssa { heads, variant }) => {
                write!(f, "[{},heads={heads}{}]", variant.name(), variant.attributes())
            }
            Op::Leaf(LeafOp::Tokens)
            | Op::Leaf(LeafOp::Positions)
            | Op::Leaf(LeafOp::Weight(_))
            | Op::Array(ArrayOp::Unary(_))
            | Op::Array(ArrayOp::Binary(_))
            | Op::Array(ArrayOp::Where)
            | Op::Array(ArrayOp::MatMul)
            | Op::Array(ArrayOp::Mean)
            | Op::Array(ArrayOp::Softmax)
            | Op::Array(ArrayOp::MergeHeads)
            | Op::Dense(DenseOp::Embed)
            | Op::Level(LevelOp::MatMulInt)
            | Op::Level(LevelOp::ScaleShift)
            | Op::Level(LevelOp::RowMaxAbs)
            | Op::Level(LevelOp::GatherChannels)
            | Op::Level(LevelOp::HeadLinear)
            | Op::Spike(SpikeOp::Synapse)
            | Op::Spike(SpikeOp::Decode) => Ok(()),
        }
    }
}
