//! Channels of grouped heads: which of the queries' meet which of the keys'.

use snnc_ir::op::Heads;

/// Which channels of queries and of keys meet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedChannels {
    pub heads: Heads,
    /// Channels of a head.
    pub width: usize,
}

impl SharedChannels {
    /// The channel of keys that a channel of queries meets.
    pub fn key(self, q: usize) -> usize {
        q / self.width / self.heads.group() * self.width + q % self.width
    }

    /// The channels of queries that a channel of keys meets.
    pub fn queries(self, k: usize) -> impl Iterator<Item = usize> {
        let (head, group) = (k / self.width, self.heads.group());
        (head * group..(head + 1) * group).map(move |h| h * self.width + k % self.width)
    }
}
