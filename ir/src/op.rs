//! Every operation there is, in one closed enum with its attributes inside, and how it is spelled.
//!
//! The spelling is the text format, the e-graph's atom and the profile's row name. What an operation takes and gives is
//! in `infer`; what it means is in `eval`; what it costs is in `price`. To add one, add it here and follow the compiler.

use crate::curve::Curve;
use crate::graph::{Stage, WeightId};
use crate::membrane::Membrane;
use crate::ssa::Ssa;
use crate::training::Training;
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
            Unary::Relu => "max0",
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

/// An operation. Shapes below: `d` a width, `m` another one, `...` any leading sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Op {
    // --- leaves ---
    /// `i32[tokens]`: the token ids of this call.
    Tokens,
    /// `i32[tokens]`: the absolute positions of this call's tokens.
    Positions,
    /// A constant of the program.
    Weight(WeightId),

    // --- imported: what exporters write, after shape arithmetic is evaluated away ---
    Unary(Unary),
    /// Element by element, with broadcasting of sizes 1 and of missing leading sizes.
    Binary(Binary),
    /// `f32[tokens,tokens]`: `keep` where column <= row, `drop` elsewhere.
    Causal {
        keep: Scalar,
        drop: Scalar,
    },
    /// `(c, a, b)`: `a` where `c` is not 0, else `b`; broadcasts.
    Where,
    /// `[..., n, k] x [..., k, m]`; leading sizes broadcast.
    MatMul,
    Transpose(Perm),
    Reshape(Shape),
    Slice {
        axis: u8,
        start: u32,
        len: u32,
    },
    /// Mean over the innermost axis, which stays with size 1.
    Mean,
    /// Over the innermost axis.
    Softmax,
    /// `[tokens, heads*w] -> [heads, tokens, w]`.
    Split {
        heads: u32,
    },
    /// `[heads, tokens, w] -> [tokens, heads*w]`.
    Merge,

    // --- tensor: a transformer in its own words ---
    /// `(i32[tokens], f32[v, d]) -> f32[tokens, d]`: rows of a table.
    Embed,
    /// `(x, gain f32[d], bias f32[d])`.
    LayerNorm {
        eps: Scalar,
    },
    /// `LayerNorm` without gain and bias.
    Normalise {
        eps: Scalar,
    },
    /// `(x f32[tokens, d], w, bias f32[m]) -> f32[tokens, m]`.
    Linear(Layout),
    Curve(Curve),
    /// `(q, k, v)`, each `f32[tokens, d]`: causal softmax attention with its keys and values as state.
    Attention {
        heads: u32,
        scale: Scalar,
    },

    // --- quantised: levels instead of reals ---
    /// `(x, gain f32[d], offset f32[d])`, or with a curve `(x, pre_gain, pre_offset, gain, offset)`: the nearest level of
    /// the affine image of (the curve of) `x`, ties away from zero.
    Quant {
        code: Code,
        steps: u16,
        curve: Curve,
    },
    /// `(levels [tokens, d], i8[d, m]) -> i32[tokens, m]`: exact integer product.
    Product,
    /// `(x [tokens, m], gain f32[m], offset f32[m]) -> f32[tokens, m]`: sums or levels as reals, or reals in other units.
    Affine,
    /// `f32[tokens, d] -> f32[tokens, 1]`: the largest magnitude of a row, 1 where all are 0: a threshold for every token.
    Peak,
    /// `(x f32[tokens, d], channels i32[k]) -> f32[tokens, k]`: some channels of every row.
    Pick,
    /// `(x f32[tokens, heads * w], map f32[heads, w, m]) -> f32[tokens, heads * m]`: a dense map of its own for every head.
    HeadMap,
    /// `(q, k, v, ...)`: spiking attention, causal. Takes level stills or spike trains; gives a weighted mean of v's levels,
    /// `f32[tokens, d]`, or spikes. What a key weighs, what else it takes and what it keeps is the variant's: see `Ssa`.
    Ssa {
        heads: u32,
        variant: Ssa,
    },

    // --- spiking: levels spread over timesteps ---
    /// As `Quant`, but emits the level as a spike train.
    Fire {
        code: Code,
        steps: u16,
        curve: Curve,
    },
    /// `(x, gain f32[d], offset f32[d]) -> spikes [tokens, d]`, unary: a neuron that answers within the timestep. `x` is a
    /// current of as many timesteps, or a still that flows evenly over them.
    Integrate {
        membrane: Membrane,
        steps: u16,
        curve: Curve,
    },
    /// `(spikes [tokens, d], i8[d, m]) -> current [tokens, m]`: adds or subtracts a weight row for every spike.
    Synapse,
    /// What a train denotes: the sum of its parts weighted by its code.
    Settle,

    // --- training: losses, derivatives ---
    Training(Training),
}

impl Op {
    /// The spelling's first word.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Tokens => "tokens",
            Op::Positions => "positions",
            Op::Weight(_) => "weight",
            Op::Unary(kind) => kind.name(),
            Op::Binary(kind) => kind.name(),
            Op::Causal { .. } => "causal",
            Op::Where => "where",
            Op::MatMul => "matmul",
            Op::Transpose(_) => "transpose",
            Op::Reshape(_) => "reshape",
            Op::Slice { .. } => "slice",
            Op::Mean => "mean",
            Op::Softmax => "softmax",
            Op::Split { .. } => "split",
            Op::Merge => "merge",
            Op::Embed => "embed",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Normalise { .. } => "normalise",
            Op::Linear(_) => "linear",
            Op::Curve(_) => "curve",
            Op::Attention { .. } => "attention",
            Op::Quant { .. } => "quant",
            Op::Product => "product",
            Op::Affine => "affine",
            Op::Peak => "peak",
            Op::Pick => "pick",
            Op::HeadMap => "head_map",
            Op::Ssa { .. } => "ssa",
            Op::Fire { .. } => "fire",
            Op::Integrate { .. } => "integrate",
            Op::Synapse => "synapse",
            Op::Settle => "settle",
            Op::Training(op) => op.name(),
        }
    }

    /// The stages in which this operation may stand.
    pub fn legal_in(&self, stage: Stage) -> bool {
        use Stage::{Imported, Quantised, Spiking, Tensor, Training};
        match self {
            Op::Tokens | Op::Positions | Op::Weight(_) | Op::Embed | Op::Binary(Binary::Add) => true,
            // By a threshold a token.
            Op::Binary(Binary::Mul | Binary::Div) => matches!(stage, Imported | Quantised | Spiking | Training),
            // What the gradient pass knows the derivative of.
            Op::Unary(Unary::Neg | Unary::Exp)
            | Op::Binary(Binary::Sub)
            | Op::Causal { .. }
            | Op::MatMul
            | Op::Transpose(_)
            | Op::Reshape(_)
            | Op::Softmax
            | Op::Split { .. }
            | Op::Merge => matches!(stage, Imported | Training),
            Op::Unary(_) | Op::Binary(_) | Op::Where | Op::Slice { .. } | Op::Mean => stage == Imported,
            Op::LayerNorm { .. } => matches!(stage, Imported | Tensor),
            // A site that is left dense keeps them after `quantise` too.
            Op::Linear(_) | Op::Attention { .. } => matches!(stage, Tensor | Quantised | Spiking),
            Op::Curve(_) | Op::Normalise { .. } => matches!(stage, Tensor | Quantised | Spiking | Training),
            Op::Quant { .. } | Op::Product => stage == Quantised,
            Op::Affine | Op::Peak | Op::Pick => matches!(stage, Quantised | Spiking | Training),
            Op::HeadMap | Op::Ssa { .. } => matches!(stage, Quantised | Spiking),
            Op::Fire { .. } | Op::Integrate { .. } | Op::Synapse | Op::Settle => stage == Spiking,
            Op::Training(_) => stage == Training,
        }
    }

    /// Whether the operation keeps something of the tokens between calls.
    pub fn has_state(&self) -> bool {
        matches!(self, Op::Attention { .. } | Op::Ssa { .. })
    }
}

impl fmt::Display for Op {
    /// `name[attributes]`; the weight's name is the graph's to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Op::Causal { keep, drop } => write!(f, "[{:?},{:?}]", keep.get(), drop.get()),
            Op::Transpose(perm) => write!(f, "{:?}", perm.axes()),
            Op::Reshape(shape) => write!(f, "{shape}"),
            Op::Slice { axis, start, len } => write!(f, "[axis={axis},start={start},len={len}]"),
            Op::Split { heads } => write!(f, "[heads={heads}]"),
            Op::LayerNorm { eps } | Op::Normalise { eps } => write!(f, "[eps={:?}]", eps.get()),
            Op::Linear(Layout::InputMajor) => Ok(()),
            Op::Linear(Layout::OutputMajor) => f.write_str("[output_major]"),
            Op::Curve(curve) => write!(f, "[{}]", curve.name()),
            Op::Attention { heads, scale } => write!(f, "[heads={heads},scale={:?}]", scale.get()),
            Op::Quant { code, steps, curve } | Op::Fire { code, steps, curve } => match curve {
                Curve::Identity => write!(f, "[{},{steps}]", code.name()),
                Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => {
                    write!(f, "[{},{steps},{}]", code.name(), curve.name())
                }
            },
            Op::Integrate { membrane, steps, curve: Curve::Identity } => write!(f, "[{},{steps}]", membrane.name()),
            Op::Integrate { membrane, steps, curve } => write!(f, "[{},{steps},{}]", membrane.name(), curve.name()),
            Op::Training(op) => f.write_str(&op.to_string()[op.name().len()..]),
            Op::Ssa { heads, variant } => write!(f, "[{},heads={heads}{}]", variant.name(), variant.attributes()),
            Op::Tokens
            | Op::Positions
            | Op::Weight(_)
            | Op::Unary(_)
            | Op::Binary(_)
            | Op::Where
            | Op::MatMul
            | Op::Mean
            | Op::Softmax
            | Op::Merge
            | Op::Embed
            | Op::Product
            | Op::Affine
            | Op::Peak
            | Op::Pick
            | Op::HeadMap
            | Op::Synapse
            | Op::Settle => Ok(()),
        }
    }
}
