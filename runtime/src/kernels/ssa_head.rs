//! A head of spiking attention: where it lies in rows, and which of its keys fire.

use super::pairs::PhaseTable;
use super::topk::outside_topk;
use super::vectors::interface::Vectors;
use snnc_ir::op::Heads;
use std::ops::Range;

/// A head's place in rows, and how its keys fire. Keys are counted from the first that any query sees.
pub(super) struct SsaHead<'a> {
    /// Widths of rows of queries, and of keys and values.
    pub d: usize,
    pub kd: usize,
    /// Its first channel among queries, and among keys and values.
    pub from: usize,
    pub shared: usize,
    pub width: usize,
    /// Its first channel in rows of results, and their width.
    pub out: [usize; 2],
    pub slope: f32,
    /// What scores lose by the distance of their keys, the farthest first; empty: nothing.
    pub falls: &'a [i32],
    pub thresholds: Option<KeyThresholds<'a>>,
    pub late: f32,
    pub table: &'a PhaseTable,
    /// Keys before the first query's own.
    pub past: usize,
    pub window: Heads,
    /// Positions before the first key.
    pub seen: usize,
    /// How many keys may fire, if not all.
    pub keys: Option<usize>,
}

impl SsaHead<'_> {
    /// Keys that query `i` sees.
    #[inline(always)]
    pub fn keys_met(&self, i: usize) -> Range<usize> {
        let at = self.past + i;
        self.window.first_key(self.seen + at) - self.seen..at + 1
    }

    /// Its place in query `i`'s row of results.
    #[inline(always)]
    pub fn results(&self, i: usize) -> Range<usize> {
        let [from, stride] = self.out;
        i * stride + from..i * stride + from + self.width
    }

    /// Weights of all keys of query `i`; what they are together.
    #[inline(always)]
    pub fn fire(&self, vectors: impl Vectors, i: usize, scores: &mut [i32], weights: &mut [i16]) -> RowTotal {
        let own = self.thresholds.map(|all| all.of(self.keys_met(i), all.queries[i * all.heads]));
        // The last key is the query's own.
        let falls = &self.falls[self.falls.len().saturating_sub(scores.len())..];
        let silent = match own {
            None => {
                scores.iter_mut().zip(falls).for_each(|(score, fall)| *score -= fall);
                let silent = self.keys.map_or(Vec::new(), |most| outside_topk(scores, most));
                let best = scores.iter().copied().fold(i32::MIN, i32::max);
                self.phases(scores, |score| (best - score) as f32);
                silent
            }
            Some(own) => {
                let best = own.scale(scores, falls);
                let number = |bits: i32| f32::from_bits(bits.cast_unsigned());
                let ranks = |scores: &[i32]| scores.iter().map(|&bits| rank(number(bits))).collect::<Vec<i32>>();
                let silent = self.keys.map_or(Vec::new(), |most| outside_topk(&ranks(scores), most));
                self.phases(scores, |score| best - number(score));
                silent
            }
        };
        vectors.look_up(self.table, self.late as usize, scores, weights);
        silent.into_iter().for_each(|key| weights[key] = 0);
        let total = weights.iter().map(|&w| i32::from(w)).sum();
        RowTotal { total, threshold: own.map_or(1.0, |own| own.weigh(weights)) }
    }

    /// The phases in which keys fire, in place of their scores, by how far they are behind the best one.
    #[inline(always)]
    fn phases(&self, scores: &mut [i32], behind: impl Fn(i32) -> f32) {
        for score in scores.iter_mut() {
            let delay = behind(*score) * self.slope + 0.5;
            let phase = if self.late <= delay { self.late } else { delay };
            let phase = if phase > 0.0 { phase } else { 0.0 };
            // SAFETY: from 0 to `late`, which is below `PHASES`, by the two lines above; of NaN the second makes 0.
            // Test: `dots_and_weighted_sums_are_exact`.
            *score = unsafe { phase.to_int_unchecked::<i32>() };
        }
    }
}

/// What sums of weighted values are divided by, and then multiplied by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowTotal {
    total: i32,
    threshold: f32,
}

impl RowTotal {
    /// The mean whose sum this is.
    #[inline(always)]
    pub fn mean(self, sum: i32) -> f32 {
        sum as f32 / self.total as f32 * self.threshold
    }
}

/// Thresholds of tokens as a head sees them.
#[derive(Clone, Copy)]
pub(super) struct KeyThresholds<'a> {
    /// From its own of the first query on, `heads` apart.
    pub queries: &'a [f32],
    pub heads: usize,
    /// Of its keys and their values.
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

impl<'a> KeyThresholds<'a> {
    #[inline(always)]
    fn of(self, keys: Range<usize>, query: f32) -> QueryThresholds<'a> {
        QueryThresholds { query, keys: &self.keys[keys.clone()], values: &self.values[keys] }
    }
}

/// A query's threshold, and those of the keys that it meets.
#[derive(Clone, Copy)]
pub(super) struct QueryThresholds<'a> {
    pub query: f32,
    pub keys: &'a [f32],
    pub values: &'a [f32],
}

impl QueryThresholds<'_> {
    /// Key `j`'s score: a product times thresholds, less what distance takes. What is no number counts as 0.
    #[inline(always)]
    pub fn score(self, j: usize, product: f32, lost: f32) -> f32 {
        let score = product * (self.keys[j] * self.query) - lost;
        if score.is_nan() { 0.0 } else { score }
    }

    /// The scores of products, as the bits of an f32 in place of them; the best one.
    #[inline(always)]
    fn scale(self, scores: &mut [i32], falls: &[i32]) -> f32 {
        let mut best = f32::NEG_INFINITY;
        for (j, score) in scores.iter_mut().enumerate() {
            let value = self.score(j, *score as f32, falls.get(j).map_or(0.0, |&fall| fall as f32));
            best = if best < value { value } else { best };
            *score = value.to_bits().cast_signed();
        }
        best
    }

    /// Weights as values are added with: by their thresholds, of which the largest one among keys that fire counts whole. That
    /// largest one.
    #[inline(always)]
    pub fn weigh(self, weights: &mut [i16]) -> f32 {
        let fired = weights.iter().zip(self.values).filter(|(weight, _)| **weight > 0);
        let largest = fired.fold(0.0, |most: f32, (_, &value)| if most < value { value } else { most });
        let share = 1.0 / largest;
        for (weight, &value) in weights.iter_mut().zip(self.values) {
            let scaled = f32::from(*weight) * (value * share) + 0.5;
            let most = f32::from(*weight) + 0.5;
            let scaled = if most < scaled { most } else { scaled };
            *weight = if scaled > 0.0 { scaled as i16 } else { 0 };
        }
        largest
    }
}

/// Whole numbers in the order of scores; zeros of both signs are equal.
#[inline(always)]
pub(super) fn rank(score: f32) -> i32 {
    let bits = (score + 0.0).to_bits().cast_signed();
    bits ^ ((bits >> 31).cast_unsigned() >> 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn ranks_are_in_the_order_of_floats() {
        let ordered = [f32::NEG_INFINITY, -2.0, -1e-40, 0.0, 1e-40, 1.5, f32::INFINITY];
        let ranks = ordered.map(rank);
        assert!(ranks.is_sorted() && ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
        assert_eq!(rank(-0.0), rank(0.0));
    }
}
