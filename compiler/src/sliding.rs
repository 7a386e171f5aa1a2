//! What happens to a text that is longer than the network's context.
//!
//! A token's place in the context is part of what the network computed of it, so nothing can be moved: what stays of a text is
//! run again from the start.

use std::fmt;
use std::str::FromStr;

/// What is done when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// The text ends.
    #[default]
    Stop,
    /// The oldest half of the text is dropped, and the rest is run again.
    Slide,
}

impl FromStr for OnFull {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stop" => Ok(Self::Stop),
            "slide" => Ok(Self::Slide),
            _ => Err("it is stop or slide".into()),
        }
    }
}

impl fmt::Display for OnFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Slide => "slide",
        })
    }
}

/// The ids that stay of `ids`: the first `kept`, as far as they take no more than half the context, and the newest half of the
/// others, as often as it takes until all fit a context. The last id always stays.
///
/// ```
/// use snnc::sliding::slid;
/// assert_eq!(slid(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 1, 8), [0, 5, 6, 7, 8]);
/// assert_eq!(slid(&[0, 1, 2], 1, 8), [0, 1, 2]);
/// ```
pub fn slid(ids: &[u32], kept: usize, context: usize) -> Vec<u32> {
    let context = context.max(1);
    let (first, mut rest) = ids.split_at(kept.min(context / 2).min(ids.len()));
    while first.len() + rest.len() > context {
        rest = &rest[rest.len().div_ceil(2)..];
    }
    [first, rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_always_fit() {
        for context in 1..12 {
            for length in 1..60u32 {
                for kept in 0..14 {
                    let ids: Vec<u32> = (0..length).collect();
                    let stays = slid(&ids, kept, context);
                    assert!(stays.len() <= context && !stays.is_empty(), "{length} ids, {kept} kept, {context}");
                    assert_eq!(stays.last(), ids.last(), "{length} ids, {kept} kept, {context}");
                    if ids.len() <= context {
                        assert_eq!(stays, ids);
                    }
                }
            }
        }
    }
}
