//! How names are written, and what a program's text may not exceed.

use crate::tensor::Tensor;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

/// Version of the text form.
pub const VERSION: u32 = 3;
/// Most bytes in the name of a weight, an output or an origin. Exporters' names have about a hundred.
pub const NAME_MAX: usize = 1024;

/// XXH3-64 of a tensor's little-endian bytes: what a `weight` line shows. (On the big-endian hosts that `container`
/// refuses it is the hash of the bytes in memory.)
pub fn hash(tensor: &Tensor) -> u64 {
    xxh3_64(tensor.data().bytes())
}

/// Characters of a name that needs no quotes.
pub(super) fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:/-".contains(c)
}

/// A name as it is written: bare if nothing in it could be taken for something else, else quoted.
pub(super) fn spell(name: &str) -> String {
    if !name.is_empty() && name.chars().all(is_bare) && !name.contains("//") { name.to_string() } else { quote(name) }
}

/// Printable ASCII whatever the name: `\"`, `\\`, and `\u{hex}` for what is not.
pub(super) fn quote(name: &str) -> String {
    let mut quoted = String::from('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => {
                let _ = write!(quoted, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
