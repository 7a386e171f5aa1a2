//! Operands of spiking attention as vectors read them: pairs of 16-bit numbers, and the weights of phases.

use super::panel::OUTPUTS;

/// Numbers that are summed at once.
pub(super) const PAIR: usize = 2;

/// Two inputs of 64 outputs, `[64][2]`: two channels of keys, or two keys' channels.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct ChannelPair(pub [i16; PAIR * OUTPUTS]);

/// Entries of a table of phases: more than the phases of any base, and a power of two.
pub(super) const PHASES: usize = 1024;

/// Weights by phase, 0 for those that never fire.
pub(super) type PhaseTable = [i16; PHASES];
