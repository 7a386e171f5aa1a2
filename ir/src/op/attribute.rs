//! Attributes of operations: numbers, orders of axes, layouts, element-by-element functions, surrogates.

use crate::real::Real;
use crate::types::Shape;
use std::fmt;

/// An f32 attribute, compared and hashed by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scalar(u32);

impl Scalar {
    /// An attribute of this value.
    pub fn new(value: f32) -> Self {
        Self(value.to_bits())
    }

    /// Its value.
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

    /// The axes of the operand, in the order of the result.
    pub fn axes(&self) -> &[u8] {
        &self.axes[..usize::from(self.rank)]
    }

    /// Whether nothing moves.
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

/// How attention is divided into heads, and how far back it looks.
///
/// Query head `h` reads key and value head `h / group()`: with one key head per query head attention is *multi-head*, with
/// fewer *grouped*, with one *multi-query* (Shazeer 2019; Ainslie et al. 2023).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Heads {
    /// Heads of queries side by side in a row.
    pub query: u32,
    /// Heads of keys and values; they divide those of queries.
    pub kv: u32,
    /// How many tokens a query sees, itself among them; `None`: all before it.
    pub window: Option<u32>,
    /// Whether a score falls with the distance between query and key, evenly, in each head by its own number (ALiBi: Press et
    /// al. 2022). The numbers, `f32[query]`, are the last operand.
    pub alibi: bool,
    /// Whether each token has thresholds of its own, head by head, at q, k and v: spiking attention by time to first spike
    /// takes them as `f32[tokens, query]` and, for k and for v, `f32[tokens, kv]`, behind v.
    pub thresholds: bool,
}

impl Heads {
    /// As many heads of keys as of queries, no window, no ALiBi, no thresholds of tokens.
    pub fn equal(heads: u32) -> Self {
        Self { query: heads, kv: heads, window: None, alibi: false, thresholds: false }
    }

    /// Where an attention's constants begin: behind q, k and v, and their tokens' thresholds if there are any.
    pub fn first_constant(self) -> usize {
        if self.thresholds { 6 } else { 3 }
    }

    /// Query heads that share a head of keys.
    pub fn group(self) -> usize {
        (self.query / self.kv.max(1)) as usize
    }

    /// The first position that a query at position `at` sees.
    ///
    /// ```
    /// use snnc_ir::op::Heads;
    ///
    /// let heads = Heads { kv: 2, window: Some(8), ..Heads::equal(4) };
    /// assert_eq!((heads.group(), heads.first_key(5), heads.first_key(9)), (2, 0, 2));
    /// ```
    pub fn first_key(self, at: usize) -> usize {
        self.window.map_or(0, |window| (at + 1).saturating_sub(window as usize))
    }

    /// How many keys `tokens` queries after `past` others see, all together.
    pub fn keys(self, past: usize, tokens: usize) -> u64 {
        (past..past + tokens).map(|at| (at + 1 - self.first_key(at)) as u64).sum()
    }

    /// Why these are no heads of rows of `query_width` and `kv_width`, where they are none.
    pub(crate) fn fault(self, query_width: usize, kv_width: usize) -> Option<String> {
        let Heads { query, kv, window, .. } = self;
        if query == 0 || kv == 0 || !query.is_multiple_of(kv) {
            return Some(format!("{kv} heads of keys do not divide {query} heads of queries"));
        }
        if window == Some(0) {
            return Some("a window has one token at least".into());
        }
        [(query, query_width), (kv, kv_width)].into_iter().find_map(|(heads, width)| {
            let divides = width.is_multiple_of(heads as usize);
            (!divides).then(|| format!("{heads} heads do not divide a width of {width}"))
        })
    }
}

impl fmt::Display for Heads {
    /// `heads=9,kv_heads=3,window=8,alibi,thresholds`; all but the first only where they say something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "heads={}", self.query)?;
        if self.kv != self.query {
            write!(f, ",kv_heads={}", self.kv)?;
        }
        self.window.map_or(Ok(()), |window| write!(f, ",window={window}"))?;
        f.write_str(if self.alibi { ",alibi" } else { "" })?;
        f.write_str(if self.thresholds { ",thresholds" } else { "" })
    }
}

/// Which channels of a head a rotation turns together, of the first `r`: pair `i` of `r / 2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pairs {
    /// Channels `i` and `i + r / 2`, as GPT-NeoX and Llama of Hugging Face have them.
    Half,
    /// Channels `2 i` and `2 i + 1`, as in the paper (Su et al. 2021) and GPT-J.
    Interleaved,
}

impl Pairs {
    /// All of them.
    pub const ALL: [Pairs; 2] = [Pairs::Half, Pairs::Interleaved];

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Pairs::Half => "half",
            Pairs::Interleaved => "interleaved",
        }
    }

    /// The pairing of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pairs| pairs.name() == name)
    }

    /// The two channels of pair `i`, of `count` pairs.
    ///
    /// ```
    /// use snnc_ir::op::Pairs;
    ///
    /// assert_eq!((Pairs::Half.channels(1, 4), Pairs::Interleaved.channels(1, 4)), ([1, 5], [2, 3]));
    /// ```
    pub fn channels(self, i: usize, count: usize) -> [usize; 2] {
        match self {
            Pairs::Half => [i, i + count],
            Pairs::Interleaved => [2 * i, 2 * i + 1],
        }
    }
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `sqrt x`
    Sqrt,
    /// `e^x`
    Exp,
    /// Hyperbolic tangent.
    Tanh,
    /// Error function.
    Erf,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `max(x, 0)`
    Relu,
    /// `1 / x`
    Reciprocal,
}

impl Unary {
    /// All of them.
    pub const ALL: [Unary; 8] =
        [Unary::Neg, Unary::Sqrt, Unary::Exp, Unary::Tanh, Unary::Erf, Unary::Sigmoid, Unary::Relu, Unary::Reciprocal];

    /// How the text form spells it.
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

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `a^b`
    Pow,
    /// The smaller.
    Min,
    /// The larger.
    Max,
}

impl Binary {
    /// All of them.
    pub const ALL: [Binary; 7] =
        [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Pow, Binary::Min, Binary::Max];

    /// How the text form spells it.
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

/// What stands in for the derivative of a step, with `x` the distance from the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Surrogate {
    /// `1 / (1 + (pi x)^2)` (Fang et al. 2021, with alpha = 2)
    #[default]
    Arctan,
    /// `1 / (1 + 25 |x|)^2` (Zenke and Ganguli 2018)
    FastSigmoid,
    /// `max(0, 1 - |x|)` (Bellec et al. 2018)
    Triangle,
    /// `1` where `|x| < 1/2`, else 0 (Wu et al. 2018)
    Rectangle,
}

impl Surrogate {
    /// All of them.
    pub const ALL: [Surrogate; 4] =
        [Surrogate::Arctan, Surrogate::FastSigmoid, Surrogate::Triangle, Surrogate::Rectangle];

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Surrogate::Arctan => "arctan",
            Surrogate::FastSigmoid => "fast_sigmoid",
            Surrogate::Triangle => "triangle",
            Surrogate::Rectangle => "rectangle",
        }
    }

    /// The surrogate of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surrogate| surrogate.name() == name)
    }

    /// The stand-in derivative at a distance from the threshold.
    pub fn at<R: Real>(self, x: R) -> R {
        let one = R::from_f64(1.0);
        let far = if x < R::ZERO { R::ZERO - x } else { x };
        match self {
            Surrogate::Arctan => {
                let y = R::from_f64(std::f64::consts::PI) * x;
                one / (one + y * y)
            }
            Surrogate::FastSigmoid => {
                let y = one + R::from_f64(25.0) * far;
                one / (y * y)
            }
            Surrogate::Triangle => {
                if far < one {
                    one - far
                } else {
                    R::ZERO
                }
            }
            Surrogate::Rectangle => {
                if far < R::from_f64(0.5) {
                    one
                } else {
                    R::ZERO
                }
            }
        }
    }
}
