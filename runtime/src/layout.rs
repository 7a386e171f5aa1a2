//! How the rows of values lie in memory: levels in 8, 16 or 32 bits, spikes in planes, one per timestep.

use snnc_ir::types::{Carrier, Code, Dim, Elem, Type};

/// Bytes from one plane of a spike train to the next: the row's spikes, padded so that vectors need no tail.
pub fn plane_bytes(width: usize) -> usize {
    width.next_multiple_of(16)
}

/// Bytes of a level of this code.
pub fn level_bytes(code: Code, steps: u16) -> usize {
    Elem::Level(code, steps).bytes()
}

/// Bytes of one row of a value; `None` if it is not rows, one per token.
pub fn row_bytes(ty: Type) -> Option<usize> {
    let width = match ty.shape().dims() {
        [Dim::Tokens] => 1,
        _ => ty.shape().row_width()?,
    };
    match ty {
        Type::Tensor { elem, .. } => Some(width * elem.bytes()),
        Type::Train { carrier: Carrier::Spike, steps, .. } => Some(plane_bytes(width) * usize::from(steps)),
        Type::Train { carrier: Carrier::Current, steps, .. } => Some(4 * width * usize::from(steps)),
    }
}
