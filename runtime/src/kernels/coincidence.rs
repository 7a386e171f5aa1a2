//! Attention by coincidence: scores are AND and popcount of spike words, weights fade with distance, values are summed.
//!
//! A row of words is `[heads][timesteps][words]`, 64 features a word, so that a head's coincidences over all timesteps are one
//! stretch of words. A key's weight is the score, perhaps squared, times `2^(15 - halvings)`: keys of equal halvings lie in one
//! block, so the power is applied to the block's sums. These are of 32 bits for as many keys as cannot leave them.

use super::level::StoredLevel;

/// Bits of a word.
const WORD: usize = 64;

/// Words of one head at one timestep.
pub const fn words(features: usize) -> usize {
    features.div_ceil(WORD)
}

/// A part of rows.
#[derive(Clone, Copy, Debug)]
pub struct ColumnRange {
    pub stride: usize,
    pub from: usize,
    pub len: usize,
}

/// One head, or one timestep of one.
#[derive(Clone, Copy, Debug)]
pub struct CoincidenceShape {
    /// Keys before the first query's own.
    pub past: usize,
    /// Of queries, and of keys.
    pub words: [ColumnRange; 2],
    pub values: ColumnRange,
    pub squared: bool,
    /// The largest magnitude of a value.
    pub most: i32,
    /// Added to the sum of weights, in units of a score or its square.
    pub sink: f32,
    /// Tokens after which a weight halves; 0 is never.
    pub half_life: i32,
}

/// What spikes drove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoincidenceCount {
    /// Pairs of spikes at one timestep and feature.
    pub pairs: u64,
    /// Keys that weighed something.
    pub keys: u64,
}

impl std::ops::AddAssign for CoincidenceCount {
    fn add_assign(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.keys += other.keys;
    }
}

/// Halvings after which nothing is left of a weight.
const HALVINGS: usize = 16;

/// Results `[queries, values.len]`, for queries that are the last rows of `k` and `v`.
#[inline(always)]
pub(super) fn attend<V: Copy + Into<i32>>(
    q: &[u64],
    k: &[u64],
    v: &[V],
    shape: &CoincidenceShape,
    out: &mut [f32],
) -> CoincidenceCount {
    let CoincidenceShape { past, words, values, .. } = *shape;
    let [asked, words] = words;
    let queries = q.len() / asked.stride;
    assert!(k.len() >= (past + queries) * words.stride && asked.len == words.len, "a key for every token so far");
    assert!(v.len() >= (past + queries) * values.stride, "a value for every token so far");
    assert!(out.len() == queries * values.len, "a result for every query");
    // Keys whose sums stay in 32 bits: each adds at most this.
    let score = (words.len * WORD) as u64;
    let most = (if shape.squared { score * score } else { score }) * u64::from(shape.most.unsigned_abs().max(1));
    let group = (u64::from(i32::MAX.unsigned_abs()) / most).min(1 << 10) as usize;
    let (mut sums, mut block, mut few) = (vec![0i64; values.len], vec![0i64; values.len], vec![0i32; values.len]);
    let mut done = CoincidenceCount::default();
    for (i, (q, out)) in q.chunks_exact(asked.stride).zip(out.chunks_exact_mut(values.len)).enumerate() {
        let q = &q[asked.from..][..asked.len];
        let at = past + i;
        let every = usize::try_from(shape.half_life).unwrap_or(0);
        sums.fill(0);
        let mut total = 0i64;
        // From the oldest block on: what came before a block counts half in it.
        let last = at.checked_div(every).unwrap_or(0);
        let first = last.saturating_sub(HALVINGS - 1);
        for b in first..=last {
            let (from, to) = if every == 0 { (0, at + 1) } else { (b * every, ((b + 1) * every).min(at + 1)) };
            let fresh = HALVINGS - 1 - (last - b);
            block.fill(0);
            let mut weights = 0i64;
            let step = group.max(1);
            for start in (from..to).step_by(step) {
                let keys = start..(start + step).min(to);
                few.fill(0);
                for j in keys {
                    let k = &k[j * words.stride + words.from..][..words.len];
                    let score: u32 = q.iter().zip(k).map(|(q, k)| (q & k).count_ones()).sum();
                    if score == 0 {
                        continue;
                    }
                    done.pairs += u64::from(score);
                    done.keys += 1;
                    // Below 2^31, as the verifier has made sure.
                    let weight = if shape.squared { score * score } else { score } as i32;
                    weights += i64::from(weight);
                    let v = &v[j * values.stride + values.from..][..values.len];
                    if group == 0 {
                        let add = |(sum, &v): (&mut i64, &V)| *sum += i64::from(weight) * i64::from(v.into());
                        block.iter_mut().zip(v).for_each(add);
                    } else {
                        few.iter_mut().zip(v).for_each(|(sum, &v)| *sum += weight * v.into());
                    }
                }
                block.iter_mut().zip(&few).for_each(|(sum, &few)| *sum += i64::from(few));
            }
            total += weights << fresh;
            sums.iter_mut().zip(&block).for_each(|(sum, &block)| *sum += block << fresh);
        }
        let all = total as f32 + shape.sink * (1 << (HALVINGS - 1)) as f32;
        let mean = |sum: i64| if all == 0.0 { 0.0 } else { sum as f32 / all };
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = mean(sum));
    }
    done
}

/// Rows of levels, not negative, as words: at timestep `t` a level above `t` spikes.
#[inline(always)]
pub(super) fn spell<L: StoredLevel>(levels: &[L], heads: usize, features: usize, steps: u16, rows: &mut [u64]) {
    let row = heads * usize::from(steps) * words(features);
    assert!(levels.len() / (heads * features) == rows.len() / row, "a row of words for every row of levels");
    for (levels, row) in levels.chunks_exact(heads * features).zip(rows.chunks_exact_mut(row)) {
        let heads = levels.chunks_exact(features).zip(row.chunks_exact_mut(usize::from(steps) * words(features)));
        for (levels, head) in heads {
            for (t, plane) in (0..).zip(head.chunks_exact_mut(words(features))) {
                gather(levels, plane, |level| level.to_i32() > t);
            }
        }
    }
}

/// Planes of spikes, not negative, `stride` apart, as words.
#[inline(always)]
pub(super) fn pack(planes: &[i8], stride: usize, heads: usize, features: usize, steps: u16, rows: &mut [u64]) {
    let steps = usize::from(steps);
    let row = heads * steps * words(features);
    assert!(stride >= heads * features, "planes of {features} features for each head");
    assert!(planes.len() / (stride * steps) == rows.len() / row, "a row of words for every train");
    for (train, row) in planes.chunks_exact(stride * steps).zip(rows.chunks_exact_mut(row)) {
        for (h, head) in row.chunks_exact_mut(steps * words(features)).enumerate() {
            for (plane, words) in train.chunks_exact(stride).zip(head.chunks_exact_mut(words(features))) {
                gather(&plane[h * features..][..features], words, |spike| spike > 0);
            }
        }
    }
}

#[inline(always)]
fn gather<T: Copy>(from: &[T], words: &mut [u64], fires: impl Fn(T) -> bool) {
    for (word, some) in words.iter_mut().zip(from.chunks(WORD)) {
        *word = some.iter().enumerate().fold(0, |word, (bit, &x)| word | u64::from(fires(x)) << bit);
    }
}
