//! Changes to bytes that know nothing of what they say.

use crate::chance::{below, pick};
use snnc_ir::random::SplitMix64;

/// One change: a bit, a byte, a run of bytes twice or not at all, or an end that is missing.
pub fn change(bytes: &mut Vec<u8>, random: &mut SplitMix64) {
    if bytes.is_empty() {
        return bytes.push(random.bits() as u8);
    }
    let at = below(random, bytes.len());
    match below(random, 6) {
        0 => bytes[at] ^= 1 << below(random, 8),
        1 => bytes[at] = *pick(random, &[0, 1, 0x7f, 0x80, 0xff]),
        2 => {
            let end = (at + 1 + below(random, 64)).min(bytes.len());
            let run = bytes[at..end].to_vec();
            bytes.splice(at..at, run);
        }
        3 => {
            let end = (at + 1 + below(random, 64)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => bytes.truncate(at),
        _ => {
            let to = below(random, bytes.len());
            bytes.swap(at, to);
        }
    }
}
