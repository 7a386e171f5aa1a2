//! Linear attention: sums of `k v^T` and of k are all that is kept, so that a token costs the same after any number of others.
//!
//! Sums of one head lie as `[features][width]`, then `[features]` of k alone. All are integers with `guard` bits below the levels;
//! halving rounds toward zero. Features that are 0 are passed over.

/// What sums are kept in; the caller knows that it is enough.
pub trait StateSum: Copy + std::ops::AddAssign + std::ops::Mul<Output = Self> {
    /// The low bits.
    fn from_i64(x: i64) -> Self;
    fn to_i64(self) -> i64;
    /// Toward zero.
    fn halve(self) -> Self;
}

impl StateSum for i32 {
    #[inline(always)]
    fn from_i64(x: i64) -> i32 {
        x as i32
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self.into()
    }
    #[inline(always)]
    fn halve(self) -> i32 {
        (self - (self >> 31)) >> 1
    }
}

impl StateSum for i64 {
    #[inline(always)]
    fn from_i64(x: i64) -> i64 {
        x
    }
    #[inline(always)]
    fn to_i64(self) -> i64 {
        self
    }
    #[inline(always)]
    fn halve(self) -> i64 {
        (self - (self >> 63)) >> 1
    }
}

/// One head of keys and values, and the heads of queries that share it.
#[derive(Clone, Copy, Debug)]
pub struct LinearShape<'a> {
    /// Tokens before the first one's.
    pub past: usize,
    pub features: usize,
    pub width: usize,
    pub guard: u8,
    /// By head of queries: added to the sum of weights, in units of a product of levels.
    pub sinks: &'a [f32],
    /// Tokens after which the sums halve; 0 is never.
    pub half_life: i32,
}

impl LinearShape<'_> {
    /// Numbers that are kept of a head.
    pub fn numbers(&self) -> usize {
        self.features * (self.width + 1)
    }
}

/// Rows of these heads alone: queries `[tokens, sinks * features]`, results `[tokens, sinks * width]`; the sums go on.
#[inline(always)]
pub(super) fn attend<S: StateSum>(
    q: &[i32],
    k: &[i32],
    v: &[i32],
    shape: &LinearShape<'_>,
    sums: &mut [S],
    out: &mut [f32],
) {
    let LinearShape { features, width, guard, sinks, .. } = *shape;
    let group = sinks.len();
    assert!(group > 0 && sums.len() == shape.numbers(), "sums of {features} features and {width} channels");
    assert!(
        k.len() / features == v.len() / width && q.len() == group * k.len(),
        "queries, keys and values of every token"
    );
    assert!(out.len() == group * v.len(), "a result for every query");
    let (mut spoken, mut asked) = (Vec::with_capacity(features), Vec::with_capacity(features));
    let queries = q.chunks_exact(group * features).zip(out.chunks_exact_mut(group * width));
    for (i, ((k, v), (q, out))) in k.chunks_exact(features).zip(v.chunks_exact(width)).zip(queries).enumerate() {
        let at = shape.past + i;
        let every = usize::try_from(shape.half_life).unwrap_or(0);
        if at > 0 && at.checked_rem(every) == Some(0) {
            sums.iter_mut().for_each(|sum| *sum = sum.halve());
        }
        let (products, keys) = sums.split_at_mut(features * width);
        list(k, &mut spoken);
        for &(f, k) in &spoken {
            let k = S::from_i64(i64::from(k) << guard);
            keys[f] += k;
            products[f * width..][..width].iter_mut().zip(v).for_each(|(sum, &v)| *sum += k * S::from_i64(v.into()));
        }
        for ((q, out), &sink) in q.chunks_exact(features).zip(out.chunks_exact_mut(width)).zip(sinks) {
            list(q, &mut asked);
            let total: i64 = asked.iter().map(|&(f, q)| i64::from(q) * keys[f].to_i64()).sum();
            let all = total as f32 + sink * (1u32 << guard) as f32;
            answer(&asked, products, all, out);
        }
    }
}

/// What the features that a query asks for have summed up, over `all`; 0 over 0 is 0.
#[inline(always)]
fn answer<S: StateSum>(asked: &[(usize, i32)], products: &[S], all: f32, out: &mut [f32]) {
    let width = out.len();
    let mean = |sum: i64| if all == 0.0 { 0.0 } else { sum as f32 / all };
    for (c, out) in (0..).step_by(BLOCK).zip(out.chunks_mut(BLOCK)) {
        let row = |f: usize| &products[f * width + c..][..out.len()];
        // Blocks of one length stay in registers.
        let mut sums = [0i64; BLOCK];
        if out.len() == BLOCK {
            for &(f, q) in asked {
                sums.iter_mut().zip(&row(f)[..BLOCK]).for_each(|(all, &sum)| *all += i64::from(q) * sum.to_i64());
            }
        } else {
            for &(f, q) in asked {
                sums.iter_mut().zip(row(f)).for_each(|(all, &sum)| *all += i64::from(q) * sum.to_i64());
            }
        }
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = mean(sum));
    }
}

/// Channels that are summed at once.
const BLOCK: usize = 32;

/// Features that are not 0. Without a branch: which they are cannot be foreseen.
#[inline(always)]
fn list(features: &[i32], found: &mut Vec<(usize, i32)>) {
    found.clear();
    found.resize(features.len(), (0, 0));
    let mut count = 0;
    for (f, &x) in features.iter().enumerate() {
        found[count] = (f, x);
        count += usize::from(x != 0);
    }
    found.truncate(count);
}
