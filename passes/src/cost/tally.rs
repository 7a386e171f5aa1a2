//! The words of a count: kinds of arithmetic and of bytes, number formats and forms of a network, what an operation was seen
//! to do.

use snnc_ir::events::Events;
use snnc_ir::{Op, Type};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Kinds of arithmetic. A kind's name is the key of its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A multiplication with its addition.
    MacF32,
    /// The same in f16.
    MacF16,
    /// 8 bits by 8 bits into 32.
    MacInt8,
    /// The addition of a weight, or of a level held as one, to an integer sum, driven by a spike.
    Accumulate,
    /// Horner's doubling of a sum between timesteps of a binary code; the halving of a weight that fades.
    Shift,
    /// The computation of one address.
    Address,

    /// Gains, offsets and tables of neurons.
    NeuronMul,
    /// A gain or a table added to.
    NeuronAdd,
    /// A membrane compared with its threshold.
    NeuronCompare,
    /// The threshold taken off a membrane that fired.
    NeuronReset,
    /// A neuron brought up to date at a timestep at which it fires; the same work as the four above, for prices by neuron.
    NeuronActive,
    /// The same at a timestep at which it does not.
    NeuronIdle,
    /// A spike sent to one layer that reads it.
    Message,

    /// A sum of weights of 4 bits times its group's multiplier: 16 bits by 8.
    GroupMul,
    /// A value's level weighed by its key's phase: 12 bits by the level's.
    PhaseMul,
    /// The addition of two 32-bit integers.
    AddInt32,
    /// The comparison of two 32-bit integers.
    CompareInt32,

    /// Of what stays f32: norms, residual additions, softmax, curves, scales and biases outside neurons.
    AddF32,
    /// A multiplication in f32.
    MulF32,
    /// A division in f32.
    DivF32,
    /// A square root in f32.
    SqrtF32,
    /// A comparison in f32.
    CompareF32,
}

impl Operation {
    /// Every kind, in the order of tables.
    pub const ALL: [Operation; 22] = [
        Operation::MacF32,
        Operation::MacF16,
        Operation::MacInt8,
        Operation::Accumulate,
        Operation::Shift,
        Operation::Address,
        Operation::NeuronMul,
        Operation::NeuronAdd,
        Operation::NeuronCompare,
        Operation::NeuronReset,
        Operation::NeuronActive,
        Operation::NeuronIdle,
        Operation::Message,
        Operation::GroupMul,
        Operation::PhaseMul,
        Operation::AddInt32,
        Operation::CompareInt32,
        Operation::AddF32,
        Operation::MulF32,
        Operation::DivF32,
        Operation::SqrtF32,
        Operation::CompareF32,
    ];

    /// The name that price lists use.
    pub fn name(self) -> &'static str {
        match self {
            Operation::MacF32 => "mac_f32",
            Operation::MacF16 => "mac_f16",
            Operation::MacInt8 => "mac_int8",
            Operation::Accumulate => "accumulate",
            Operation::Shift => "shift",
            Operation::Address => "address",
            Operation::NeuronMul => "neuron_mul",
            Operation::NeuronAdd => "neuron_add",
            Operation::NeuronCompare => "neuron_compare",
            Operation::NeuronReset => "neuron_reset",
            Operation::NeuronActive => "neuron_active",
            Operation::NeuronIdle => "neuron_idle",
            Operation::Message => "message",
            Operation::GroupMul => "group_mul",
            Operation::PhaseMul => "phase_mul",
            Operation::AddInt32 => "add_int32",
            Operation::CompareInt32 => "compare_int32",
            Operation::AddF32 => "add_f32",
            Operation::MulF32 => "mul_f32",
            Operation::DivF32 => "div_f32",
            Operation::SqrtF32 => "sqrt_f32",
            Operation::CompareF32 => "compare_f32",
        }
    }

    /// Whether it is a multiply-accumulate.
    pub fn is_mac(self) -> bool {
        matches!(self, Operation::MacF32 | Operation::MacF16 | Operation::MacInt8)
    }
}

/// What bytes are of. Reads and writes both count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Traffic {
    /// Weights of projections.
    Weights,
    /// Samples of a curve.
    Tables,
    /// Membranes and accumulators, read and written once per timestep.
    Membranes,
    /// The same, read and written at every addition: instead of `Membranes`, where nothing holds a sum for a timestep.
    Potentials,
    /// Spikes, as planes or as addresses, whichever is less; levels where time is collapsed.
    Spikes,
    /// Numbers of dense layers, and what stays f32.
    Activations,
    /// Keys and values.
    State,
}

impl Traffic {
    /// Every kind, in the order of tables.
    pub const ALL: [Traffic; 7] = [
        Traffic::Weights,
        Traffic::Tables,
        Traffic::Membranes,
        Traffic::Potentials,
        Traffic::Spikes,
        Traffic::Activations,
        Traffic::State,
    ];

    /// The name that price lists use.
    pub fn name(self) -> &'static str {
        match self {
            Traffic::Weights => "weights",
            Traffic::Tables => "tables",
            Traffic::Membranes => "membranes",
            Traffic::Potentials => "potentials",
            Traffic::Spikes => "spikes",
            Traffic::Activations => "activations",
            Traffic::State => "state",
        }
    }
}

/// Counts of some operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub(super) operations: [u64; Operation::ALL.len()],
    /// Of the accumulates, those of one spike of a pair of trains that met no spike of the other: what is spared where only
    /// coincidences add.
    pub unmet: u64,
    /// Bytes by what they are of and by the bytes of the memory they lie in.
    pub traffic: BTreeMap<(Traffic, u64), u64>,
}

impl Tally {
    /// How many operations of a kind.
    pub fn of(&self, operation: Operation) -> u64 {
        self.operations[operation as usize]
    }

    /// Bytes read and written, in memories of any size.
    pub fn bytes(&self, of: Traffic) -> u64 {
        self.traffic.iter().filter(|((traffic, _), _)| *traffic == of).map(|(_, bytes)| bytes).sum()
    }

    /// Multiply-accumulates of any number format.
    pub fn macs(&self) -> u64 {
        Operation::ALL.into_iter().filter(|operation| operation.is_mac()).map(|operation| self.of(operation)).sum()
    }

    /// The same, where a pair of trains adds only when both spike.
    pub fn by_coincidence(&self) -> Self {
        let mut tally = self.clone();
        tally.operations[Operation::Accumulate as usize] -= self.unmet;
        tally.unmet = 0;
        tally
    }

    pub(super) fn add(&mut self, operation: Operation, count: u64) {
        self.operations[operation as usize] += count;
    }

    pub(super) fn moves(&mut self, of: Traffic, memory: u64, bytes: u64) {
        if bytes > 0 {
            *self.traffic.entry((of, memory)).or_default() += bytes;
        }
    }
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.operations.iter_mut().zip(other.operations).for_each(|(a, b)| *a += b);
        self.unmet += other.unmet;
        other.traffic.iter().for_each(|(&key, &bytes)| *self.traffic.entry(key).or_default() += bytes);
    }
}

/// The number format of a dense network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Number {
    /// 32-bit floating point.
    F32,
    /// 16-bit floating point.
    F16,
    /// 8-bit integers.
    Int8,
}

impl Number {
    /// Bytes per number.
    pub fn bytes(self) -> u64 {
        match self {
            Number::F32 => 4,
            Number::F16 => 2,
            Number::Int8 => 1,
        }
    }

    pub(super) fn mac(self) -> Operation {
        match self {
            Number::F32 => Operation::MacF32,
            Number::F16 => Operation::MacF16,
            Number::Int8 => Operation::MacInt8,
        }
    }
}

/// How one and the same network is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Dense, in a number format.
    Dense(Number),
    /// Dense int8 that skips what the spiking network skips: levels of 0, and keys outside the window.
    Skipping,
    /// Spiking, timestep by timestep: nothing holds a weight from one to the next.
    Stepped,
    /// Spiking, the timesteps of a token together: a weight is held, and so read once, for all of them.
    Collapsed,
}

impl Form {
    /// Every form, in the order of tables.
    pub const ALL: [Form; 6] = [
        Form::Dense(Number::F32),
        Form::Dense(Number::F16),
        Form::Dense(Number::Int8),
        Form::Skipping,
        Form::Stepped,
        Form::Collapsed,
    ];

    /// The name that JSON uses.
    pub fn name(self) -> &'static str {
        match self {
            Form::Dense(Number::F32) => "dense_f32",
            Form::Dense(Number::F16) => "dense_f16",
            Form::Dense(Number::Int8) => "dense_int8",
            Form::Skipping => "dense_int8_skipping",
            Form::Stepped => "spiking_stepped",
            Form::Collapsed => "spiking_collapsed",
        }
    }

    /// Whether it is a form of the spiking network.
    pub fn is_spiking(self) -> bool {
        matches!(self, Form::Stepped | Form::Collapsed)
    }
}

/// What shares one pass over the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// Tokens of one sequence.
    pub span: u64,
    /// Sequences.
    pub batch: u64,
}

impl Sharing {
    pub(super) fn passes(self, tokens: u64) -> u64 {
        tokens.div_ceil((self.span * self.batch).max(1))
    }
}

/// An operation with its types and what was seen of it: all that a count depends on.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The operation.
    pub op: Op,
    /// Types of its operands.
    pub args: &'a [Type],
    /// The type of its result.
    pub ty: Type,
    /// How many tokens.
    pub tokens: u64,
    /// What the neurons behind every operand did.
    pub inputs: &'a [Events],
    /// What it did itself.
    pub own: Events,
    /// The most keys that it keeps.
    pub context: u64,
    /// Whether its products belong to another product of the dense network, whose weight is split here.
    pub split: bool,
}
