//! Spiking self-attention: its variants, and what each declares of itself. What they mean is in `meaning`.
//!
//! All are causal, and all but one give the mean of v's levels, weighted by integers. They differ in what a key weighs, and
//! so in what has to be kept of the past:
//!
//! | variant | a key weighs | training | time collapses | state |
//! |---|---|---|---|---|
//! | `ttfs` | by the time to its first spike: softmax to base `2^(1/phases)` | no | yes | levels of k and v |
//! | `topk` | the same, of the best keys only | no | yes | levels of k and v |
//! | `coincidence` | spikes of q and k at the same timestep and feature, perhaps squared | yes | yes | spikes of k, levels of v |
//! | `linear` | `q . k`, features that are not negative | yes | yes | sums of `k v^T` and of k: of fixed size |
//! | `lif` | as `coincidence`, by LIF neurons | yes | no | spikes of k; levels or spikes of v |
//!
//! The last three have no softmax and *recency*: a head's memory halves every so many tokens, a power of two, or never (0).
//! Halvings lie at absolute positions, so that how a sequence is cut into calls never shows. Their results are divided by the
//! row's sum plus the head's sink, a constant that is not negative.

pub mod meaning;

use crate::types::{Carrier, Code, Dim, Elem, Shape, Type};
use std::fmt;

/// How spiking attention weighs keys. Operands after `(q, k, v)` and the tokens' thresholds, all constants:
///
/// - `Ttfs`, `TopK`: `slope f32[heads]`, phases for a unit of a score; with ALiBi, `alibi f32[heads]`, units that a score loses
///   per token between query and key, which delays the key's spike;
/// - the others: `sink f32[heads]`, in units of a key's weight, and `half_life i32[kv_heads]`, tokens;
/// - `Lif` with spikes besides: `gain f32[d]` of the output neurons.
///
/// q and k of `Coincidence`, `Linear` and `Lif` are *features*, as many per head, and never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ssa {
    /// Time to first spike, `phases` an octave of weights.
    Ttfs {
        /// Phases per octave of weights.
        phases: u32,
    },
    /// The same, of the `keys` best keys; of equal ones, the latest.
    TopK {
        /// Phases per octave of weights.
        phases: u32,
        /// How many.
        keys: u32,
    },
    /// Coincidences of unary spike trains.
    Coincidence {
        /// Whether scores are squared.
        squared: bool,
    },
    /// Products of features, summed in a state that has `guard` bits below its levels: what a halving rounds away is less
    /// than `2^-guard` of them.
    Linear {
        /// Guard bits below the levels.
        guard: u8,
    },
    /// Coincidences of LIF neurons' spikes.
    Lif {
        /// What it gives.
        output: Output,
    },
}

/// What LIF attention gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Output {
    /// The weighted mean of v's levels.
    Mean,
    /// Spikes of LIF neurons that take in each timestep's weighted mean of v's spikes: the published form (Spikformer, 2022).
    Spikes,
}

/// Most guard bits of a state.
pub const GUARD_MAX: u8 = 16;

/// Guard bits where nothing else is asked for.
pub const GUARD: u8 = 8;

/// What is kept of a sequence for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateType {
    /// A row for every token's key and one for its value: `[context, width]`.
    Rows {
        /// Type of the keys' rows.
        keys: Type,
        /// Type of the values' rows.
        values: Type,
        /// Type of the rows of keys' thresholds and of values', where tokens have thresholds of their own.
        thresholds: Option<Type>,
    },
    /// Sums in 32 bits where these are enough for the context, else in 64, `[heads, features, width + 1]`: `k v^T`, and of k
    /// alone in the last column.
    Sums {
        /// How many heads a row has side by side.
        heads: usize,
        /// Features of a head.
        features: usize,
        /// Channels of a head.
        width: usize,
        /// Bits of a sum.
        bits: u32,
    },
}

impl Ssa {
    /// The names of all kinds.
    pub const NAMES: [&str; 5] = ["ttfs", "topk", "coincidence", "linear", "lif"];

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Ssa::Ttfs { .. } => Self::NAMES[0],
            Ssa::TopK { .. } => Self::NAMES[1],
            Ssa::Coincidence { .. } => Self::NAMES[2],
            Ssa::Linear { .. } => Self::NAMES[3],
            Ssa::Lif { .. } => Self::NAMES[4],
        }
    }

    /// What follows the heads in the spelling.
    pub(crate) fn attributes(self) -> String {
        match self {
            Ssa::Ttfs { phases } => format!(",phases={phases}"),
            Ssa::TopK { phases, keys } => format!(",phases={phases},keys={keys}"),
            Ssa::Coincidence { squared: true } => ",squared".into(),
            Ssa::Coincidence { squared: false } | Ssa::Lif { output: Output::Mean } => String::new(),
            Ssa::Linear { guard } => format!(",guard={guard}"),
            Ssa::Lif { output: Output::Spikes } => ",output=spikes".into(),
        }
    }

    /// Whether a network that was not trained with it needs training: what it computes is no approximation of softmax.
    pub fn needs_training(self) -> bool {
        match self {
            Ssa::Ttfs { .. } | Ssa::TopK { .. } => false,
            Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => true,
        }
    }

    /// Whether levels serve it as well as spikes, when it is fed by neurons that integrate first.
    pub fn time_collapses(self) -> bool {
        match self {
            Ssa::Ttfs { .. } | Ssa::TopK { .. } | Ssa::Coincidence { .. } | Ssa::Linear { .. } => true,
            Ssa::Lif { .. } => false,
        }
    }

    /// Whether q and k are features: they have a width of their own, are never negative, and keys fade with distance.
    pub fn has_features(self) -> bool {
        self.needs_training()
    }

    /// Phases an octave, where weights are times.
    pub fn phases(self) -> Option<u32> {
        match self {
            Ssa::Ttfs { phases } | Ssa::TopK { phases, .. } => Some(phases),
            Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => None,
        }
    }

    /// How many constants it takes, ALiBi's aside.
    pub fn constants(self) -> usize {
        match self {
            Ssa::Ttfs { .. } | Ssa::TopK { .. } => 1,
            Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { output: Output::Mean } => 2,
            Ssa::Lif { output: Output::Spikes } => 3,
        }
    }

    /// What is kept of a sequence by `heads` heads of keys, given the types of q, k and v; `own`: whether tokens have thresholds of
    /// their own; `narrow`: whether sums are of 32 bits.
    pub fn state(self, heads: usize, own: bool, [_, k, v]: [Type; 3], narrow: bool) -> StateType {
        let row = |ty: Type| Shape::new(&[Dim::Context, Dim::Fixed(ty.shape().width().unwrap_or(0) as u32)]);
        let (code, steps) = k.levels().unwrap_or((Code::Unary, 1));
        let levels = |ty: Type| {
            let (code, steps) = ty.levels().unwrap_or((Code::Unary, 1));
            Type::tensor(Elem::Level(code, steps), row(ty))
        };
        let spikes = |ty: Type| Type::Train { carrier: Carrier::Spike, code, steps, shape: row(ty) };
        match self {
            Ssa::Ttfs { .. } | Ssa::TopK { .. } => {
                let row = Shape::new(&[Dim::Context, Dim::Fixed(heads as u32)]);
                let thresholds = own.then(|| Type::tensor(Elem::F32, row));
                StateType::Rows { keys: levels(k), values: levels(v), thresholds }
            }
            Ssa::Coincidence { .. } | Ssa::Lif { output: Output::Mean } => {
                StateType::Rows { keys: spikes(k), values: levels(v), thresholds: None }
            }
            Ssa::Lif { output: Output::Spikes } => {
                StateType::Rows { keys: spikes(k), values: spikes(v), thresholds: None }
            }
            Ssa::Linear { .. } => {
                let of = |ty: Type| ty.shape().width().unwrap_or(0) / heads.max(1);
                StateType::Sums {
                    heads,
                    features: of(k),
                    width: of(v),
                    bits: if narrow { i32::BITS } else { i64::BITS },
                }
            }
        }
    }
}

impl fmt::Display for StateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateType::Rows { keys, values, thresholds } => {
                write!(f, "keys {keys}, values {values}")?;
                thresholds.map_or(Ok(()), |ty| write!(f, ", thresholds of both {ty}"))
            }
            StateType::Sums { heads, features, width, bits } => {
                write!(f, "sums of k v^T i{bits}[{heads},{features},{width}], of k i{bits}[{heads},{features}]")
            }
        }
    }
}
