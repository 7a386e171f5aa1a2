//! The memory that machine code reads and writes: how it is laid out, field by field.

/// What a step's machine code or kernel is told beside the frame: offsets into the arena, addresses of constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StepRecord {
    pub out: u64,
    pub inputs: [u64; 2],
    pub constants: [u64; 4],
    /// A neuron's curve table.
    pub table: u64,
    /// Offset of the step's tally.
    pub tally: u64,
    pub step: u64,
}

/// What machine code counts for one step.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTally {
    /// Spikes that a neuron layer emitted.
    pub spikes: u64,
    /// Neurons that fired at least once.
    pub active: u64,
    /// Neurons that fired at every timestep.
    pub saturated: u64,
    /// Spikes that a synapse took.
    pub taken: u64,
}

/// One pass over the plan, as machine code sees it.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    pub arena: *mut u8,
    pub tallies: *mut StepTally,
    /// Two lists of addresses of weight rows, of spikes +1 and of spikes -1, then a synapse's sums.
    pub scratch: *mut u64,
    /// Rows of this chunk, and which of them are wanted of the outputs.
    pub rows: u64,
    pub first: u64,
    pub wanted: u64,
    /// The `ForwardPass`: what kernels see.
    pub pass: *mut (),
}

/// One call of a layer's loop, as machine code sees it: addresses, and what it counts.
#[repr(C)]
#[derive(Debug)]
pub struct LoopFrame {
    /// Rows of numbers that flow in, padded to whole groups; or nothing.
    pub rows: *const u8,
    /// Events that flow in: channels, what they say, and where each plane's list ends, behind a 0; or nothing.
    pub channels: *const u32,
    pub values: *const i8,
    pub ends: *const usize,
    /// Panels of weights, or nothing.
    pub weights: *const i8,
    /// Gains, offsets and parameters, in rows that are padded to whole groups.
    pub constants: *const f32,
    /// -1 for a channel, 0 for what fills up the last group.
    pub lanes: *const i8,
    /// Currents of a tile, i32; or inputs of its neurons, f32, where a kernel makes them.
    pub currents: *mut i32,
    /// States of a tile between blocks of timesteps.
    pub states: *mut u8,
    /// Trains of all tokens.
    pub out: *mut i8,
    pub tokens: u64,
    /// Spikes, neurons that fired at least once, and those that fired at every timestep.
    pub counts: [u64; 3],
    /// The `TileWork` of the kernel.
    pub work: *const (),
}
