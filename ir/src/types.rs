//! Types of values: tensors, trains, and shapes with two symbolic sizes.
//!
//! A *still* is an ordinary tensor. A *train* is a tensor spread over `T` timesteps; it denotes the weighted sum of its
//! parts, with the weights of its code. A level is an integer that a train of that code and length can denote.

use std::fmt;

/// How a train spells an integer.
///
/// `Binary`: sign latch and magnitude bits, most significant first; step `t` of `T` weighs `2^(T-1-t)`.
/// `Unary`: every step weighs 1 (the rate code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// Sign, and magnitude bits from the top.
    Binary,
    /// The rate code.
    Unary,
}

impl Code {
    /// All of them.
    pub const ALL: [Code; 2] = [Code::Binary, Code::Unary];

    /// Largest magnitude that `steps` timesteps can spell.
    pub fn levels(self, steps: u16) -> i32 {
        match self {
            Code::Binary => (1 << steps) - 1,
            Code::Unary => i32::from(steps),
        }
    }

    /// The most timesteps of a train. Levels of 17 bits and more would be finer than the f32 they are made from is exact.
    pub fn max_steps(self) -> u16 {
        match self {
            Code::Binary => 16,
            Code::Unary => 1024,
        }
    }

    /// Weight of timestep `t` of `steps`.
    pub fn weight(self, t: u16, steps: u16) -> i32 {
        match self {
            Code::Binary => 1 << (steps - 1 - t),
            Code::Unary => 1,
        }
    }

    /// What the accumulator is multiplied by before a timestep's input is added (Horner's rule).
    pub fn carry(self) -> i32 {
        match self {
            Code::Binary => 2,
            Code::Unary => 1,
        }
    }

    /// Spikes that spell `level`.
    pub fn spikes(self, level: i32) -> u32 {
        match self {
            Code::Binary => level.unsigned_abs().count_ones(),
            Code::Unary => level.unsigned_abs(),
        }
    }

    /// The spike (-1, 0, +1) of `level` at timestep `t` of `steps`.
    pub fn spike(self, level: i32, t: u16, steps: u16) -> i32 {
        let magnitude = level.unsigned_abs() as i32;
        let fires = match self {
            Code::Binary => (magnitude >> (steps - 1 - t)) & 1 == 1,
            Code::Unary => i32::from(t) < magnitude,
        };
        if fires { level.signum() } else { 0 }
    }

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Code::Binary => "binary",
            Code::Unary => "unary",
        }
    }

    /// The code of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Element of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Elem {
    /// Reals.
    F32,
    /// Integers.
    I32,
    /// Synaptic weights: -127 to 127.
    I8,
    /// Synaptic weights of 4 bits, -8 to 7, where so many inputs of an output share a multiplier, -127 to 127: an element is the
    /// product, an integer (`nibbles`).
    I4(u16),
    /// Integers of magnitude at most `code.levels(steps)`; stored in 8 bits where that fits, else in 16 or 32.
    Level(Code, u16),
}

impl Elem {
    /// Bytes that one element takes in memory and in files; for 4 bits in groups a whole one (`tensor::stored_bytes` has all).
    pub fn bytes(self) -> usize {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::I8 | Elem::I4(_) => 1,
            Elem::Level(code, steps) => match code.levels(steps) {
                ..=127 => 1,
                128..=32_767 => 2,
                _ => 4,
            },
        }
    }
}

/// One size of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A number.
    Fixed(u32),
    /// Tokens of this call.
    Tokens,
    /// Tokens of this call and all before it.
    Context,
}

impl Dim {
    /// The number this size stands for in a call on `tokens` tokens after `past` others.
    pub fn size(self, tokens: usize, past: usize) -> usize {
        match self {
            Dim::Fixed(n) => n as usize,
            Dim::Tokens => tokens,
            Dim::Context => past + tokens,
        }
    }
}

/// Up to five sizes, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    rank: u8,
    dims: [Dim; Shape::MAX_RANK],
}

impl Shape {
    /// Most sizes of a shape.
    pub const MAX_RANK: usize = 5;

    /// Panics above rank 5: a precondition of the caller, who checks what comes from a file.
    pub fn new(dims: &[Dim]) -> Self {
        assert!(dims.len() <= Self::MAX_RANK, "shapes have at most five sizes");
        let mut all = [Dim::Fixed(1); Self::MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Self { rank: dims.len() as u8, dims: all }
    }

    /// A shape of numbers alone.
    pub fn fixed(sizes: &[usize]) -> Self {
        let dims: Vec<Dim> = sizes.iter().map(|&n| Dim::Fixed(n as u32)).collect();
        Self::new(&dims)
    }

    /// `[tokens, width]`, the shape of most values of a transformer.
    pub fn rows(width: usize) -> Self {
        Self::new(&[Dim::Tokens, Dim::Fixed(width as u32)])
    }

    /// Its sizes, outermost first.
    pub fn dims(&self) -> &[Dim] {
        &self.dims[..usize::from(self.rank)]
    }

    /// How many sizes it has.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// The innermost size where it is fixed.
    pub fn width(&self) -> Option<usize> {
        match self.dims().last() {
            Some(Dim::Fixed(n)) => Some(*n as usize),
            _ => None,
        }
    }

    /// The width of a `[tokens, width]` shape.
    pub fn row_width(&self) -> Option<usize> {
        match self.dims() {
            [Dim::Tokens, Dim::Fixed(n)] => Some(*n as usize),
            _ => None,
        }
    }

    /// Sizes as numbers where all are fixed.
    pub fn sizes(&self) -> Option<Vec<usize>> {
        self.dims()
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(n) => Some(*n as usize),
                Dim::Tokens | Dim::Context => None,
            })
            .collect()
    }

    /// Sizes in a call on `tokens` tokens after `past` others.
    pub fn concrete(&self, tokens: usize, past: usize) -> Vec<usize> {
        self.dims().iter().map(|dim| dim.size(tokens, past)).collect()
    }
}

/// What travels on a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// Parts are -1, 0 or +1.
    Spike,
    /// Parts are integers: what a synapse delivers.
    Current,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// An ordinary tensor.
    Tensor {
        /// Type of an element.
        elem: Elem,
        /// Sizes, without timesteps.
        shape: Shape,
    },
    /// A spike train: a tensor spread over timesteps.
    Train {
        /// What its parts are.
        carrier: Carrier,
        /// How levels are spelled.
        code: Code,
        /// How many timesteps.
        steps: u16,
        /// Sizes, without timesteps.
        shape: Shape,
    },
}

impl Type {
    /// An ordinary tensor.
    pub fn tensor(elem: Elem, shape: Shape) -> Self {
        Type::Tensor { elem, shape }
    }

    /// Its shape, without timesteps.
    pub fn shape(&self) -> Shape {
        match self {
            Type::Tensor { shape, .. } | Type::Train { shape, .. } => *shape,
        }
    }

    /// The element of a tensor; `None` of a spike train.
    pub fn elem(&self) -> Option<Elem> {
        match self {
            Type::Tensor { elem, .. } => Some(*elem),
            Type::Train { .. } => None,
        }
    }

    /// Code and timesteps of what denotes levels: level tensors and spike trains alike.
    pub fn levels(&self) -> Option<(Code, u16)> {
        match *self {
            Type::Tensor { elem: Elem::Level(code, steps), .. }
            | Type::Train { carrier: Carrier::Spike, code, steps, .. } => Some((code, steps)),
            _ => None,
        }
    }
}

impl fmt::Display for Elem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Elem::F32 => f.write_str("f32"),
            Elem::I32 => f.write_str("i32"),
            Elem::I8 => f.write_str("i8"),
            Elem::I4(group) => write!(f, "i4<{group}>"),
            Elem::Level(code, steps) => write!(f, "level<{},{steps}>", code.name()),
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Tokens => f.write_str("tokens"),
            Dim::Context => f.write_str("context"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.dims().iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor { elem, shape } => write!(f, "{elem}{shape}"),
            Type::Train { carrier, code, steps, shape } => {
                let carrier = match carrier {
                    Carrier::Spike => "spike",
                    Carrier::Current => "current",
                };
                write!(f, "{carrier}<{},{steps}>{shape}", code.name())
            }
        }
    }
}
