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
