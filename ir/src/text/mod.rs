//! A program as text: what files store, tests compare and people read.
//!
//! ```text
//! snnc 2 spiking context=256
//!
//! weight @wte : f32[50257,768] 3f2a9c5e01b7d844
//!
//! %0 = tokens : i32[tokens]
//! %1 = embed(%0, @wte) : f32[tokens,768]                           // /transformer/wte/Gather
//!
//! output hidden = %1
//! ```
//!
//! Law: for a graph that a `Builder` finished, `parse(print(g))` is `g` again, node for node.
//! A weight's elements are not here, only their hash; the parser asks its caller for them. What follows `//` on a node's
//! line is its origin and is read back; a line of nothing but `//` and words is a comment. The reader is lenient about
//! spaces, blank lines and needless quotes, and about nothing else.

mod op;
mod parse;
mod print;
#[cfg(test)]
pub(crate) mod tests;

pub use op::op as operation;
pub use parse::{Source, parse};
pub use print::{label, print};

pub(crate) use parse::parse_hashed;
pub(crate) use print::print_hashed;

use crate::tensor::Tensor;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

/// Version of the text form.
pub const VERSION: u32 = 2;
/// Most bytes in the name of a weight, an output or an origin. Exporters' names have about a hundred.
pub const NAME_MAX: usize = 1024;

/// XXH3-64 of a tensor's little-endian bytes: what a `weight` line shows. (On the big-endian hosts that `container`
/// refuses it is the hash of the bytes in memory.)
pub fn hash(tensor: &Tensor) -> u64 {
    xxh3_64(tensor.data().bytes())
}

/// Characters of a name that needs no quotes.
fn is_bare(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.:/-".contains(c)
}

/// A name as it is written: bare if nothing in it could be taken for something else, else quoted.
fn spell(name: &str) -> String {
    if !name.is_empty() && name.chars().all(is_bare) && !name.contains("//") { name.to_string() } else { quote(name) }
}

/// Printable ASCII whatever the name: `\"`, `\\`, and `\u{hex}` for what is not.
fn quote(name: &str) -> String {
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
