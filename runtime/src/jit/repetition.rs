//! What comes again and again in a list, as the layers of a network do: it is compiled once.

use std::ops::Range;

/// The longest part that is looked for: no layer has more steps, and the search takes this times the list's length.
const PERIOD_MAX: usize = 1 << 10;

/// A part of a list that comes some times in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repetition {
    /// Where it comes first.
    pub start: usize,
    /// How long it is.
    pub period: usize,
    /// How often it comes, twice at least.
    pub times: usize,
}

impl Repetition {
    /// The repetition without which the list is shortest; of several the one that is shortest itself.
    pub fn longest<T: PartialEq>(list: &[T]) -> Option<Self> {
        let mut best: Option<Self> = None;
        for period in 1..=PERIOD_MAX.min(list.len() / 2) {
            let mut equal = 0;
            for (i, (a, b)) in list.iter().zip(&list[period..]).enumerate() {
                equal = if a == b { equal + 1 } else { 0 };
                let found = Self { start: i + 1 - equal, period, times: equal / period + 1 };
                if found.saved() > best.map_or(0, |best| best.saved()) {
                    best = Some(found);
                }
            }
        }
        best
    }

    fn saved(self) -> usize {
        (self.times - 1) * self.period
    }

    /// Where it comes first.
    pub fn body(self) -> Range<usize> {
        self.start..self.start + self.period
    }

    /// Where it has come for the last time.
    pub fn end(self) -> usize {
        self.start + self.period * self.times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &str) -> Option<(usize, usize, usize)> {
        Repetition::longest(list.as_bytes()).map(|found| (found.start, found.period, found.times))
    }

    #[test]
    fn layers_come_again() {
        assert_eq!(of("eabcabcabcabdh"), Some((1, 3, 3)));
        assert_eq!(of("eaabaabaabaabh"), Some((1, 3, 4)));
        assert_eq!(of("xyxyxyxy"), Some((0, 2, 4)));
        assert_eq!(of("aaaa"), Some((0, 1, 4)));
        assert_eq!(of("abc"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn parts_are_where_they_are_said_to_be() {
        let list = b"head.layer.layer.layer.tail";
        let found = Repetition::longest(list).expect("layers are in it");
        for time in 0..found.times {
            assert_eq!(list[found.start + time * found.period..][..found.period], list[found.body()]);
        }
        assert_eq!(found.end(), found.start + found.times * found.period);
    }
}
