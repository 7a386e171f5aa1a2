//! A program as text: what files store, tests compare and people read.
//!
//! ```text
//! snnc 3 spiking context=256
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

pub mod fill;
pub mod name;
pub mod parse;
pub mod print;
#[cfg(test)]
pub(crate) mod tests;

pub use fill::{Filled, parse_filled};
pub use name::{NAME_MAX, VERSION, hash};
pub use parse::{Source, parse};
pub use print::{label, print, print_with};
