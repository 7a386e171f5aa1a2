//! What operations do to arrays: broadcasting, products, rows, levels. One stated order for every sum.

use crate::curve::Curve;
use crate::eval::value::Array;
use crate::events::Events;
use crate::op::attribute::{Binary, Heads, Pairs, Unary};
use crate::real::Real;
use crate::types::Code;

/// One number through a unary operation.
pub fn unary<R: Real>(kind: Unary, x: R) -> R {
    let one = R::from_i32(1);
    match kind {
        Unary::Neg => R::ZERO - x,
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Tanh => x.tanh(),
        Unary::Erf => x.erf(),
        Unary::Sigmoid => one / (one + (R::ZERO - x).exp()),
        Unary::Relu => Curve::Relu.at(x),
        Unary::Reciprocal => one / x,
    }
}

/// Two numbers through a binary operation.
pub fn binary<R: Real>(kind: Binary, a: R, b: R) -> R {
    match kind {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Pow => a.pow(b),
        Binary::Min => {
            if b < a {
                b
            } else {
                a
            }
        }
        Binary::Max => {
            if a < b {
                b
            } else {
                a
            }
        }
    }
}

/// `f` over the operands at every index of `sizes`, with broadcasting.
pub(super) fn spread<R: Real>(sizes: &[usize], args: &[&Array<R>], f: impl Fn(&[R]) -> R) -> Vec<R> {
    let strides: Vec<Vec<usize>> = args.iter().map(|array| broadcast_strides(&array.sizes, sizes)).collect();
    let mut picked = vec![R::ZERO; args.len()];
    (0..sizes.iter().product())
        .map(|flat| {
            for ((array, strides), x) in args.iter().zip(&strides).zip(&mut picked) {
                *x = array.reals()[offset(flat, sizes, strides)];
            }
            f(&picked)
        })
        .collect()
}

/// Strides of `own` seen as `sizes`: 0 where it is broadcast.
pub(super) fn broadcast_strides(own: &[usize], sizes: &[usize]) -> Vec<usize> {
    let missing = sizes.len() - own.len();
    let mut stride = 1;
    let mut strides = vec![0; sizes.len()];
    for i in (0..own.len()).rev() {
        if own[i] != 1 {
            strides[missing + i] = stride;
        }
        stride *= own[i];
    }
    strides
}

pub(super) fn offset(mut flat: usize, sizes: &[usize], strides: &[usize]) -> usize {
    let mut at = 0;
    for (size, stride) in sizes.iter().zip(strides).rev() {
        at += flat % size * stride;
        flat /= size;
    }
    at
}

pub(super) fn matmul<R: Real>(a: &Array<R>, b: &Array<R>, sizes: &[usize]) -> Vec<R> {
    let inner = sizes.len() - 2;
    let (n, m, k) = (sizes[inner], sizes[inner + 1], a.sizes[a.sizes.len() - 1]);
    let lead = &sizes[..inner];
    let strides_a = broadcast_strides(&a.sizes[..a.sizes.len() - 2], lead);
    let strides_b = broadcast_strides(&b.sizes[..b.sizes.len() - 2], lead);
    let mut out = Vec::with_capacity(sizes.iter().product());
    for batch in 0..lead.iter().product() {
        let a = &a.reals()[offset(batch, lead, &strides_a) * n * k..][..n * k];
        let b = &b.reals()[offset(batch, lead, &strides_b) * k * m..][..k * m];
        for row in a.chunks_exact(k) {
            let mut sums = vec![R::ZERO; m];
            for (&x, b) in row.iter().zip(b.chunks_exact(m)) {
                sums.iter_mut().zip(b).for_each(|(sum, &b)| *sum = *sum + x * b);
            }
            out.extend(sums);
        }
    }
    out
}

pub(super) fn transpose<R: Real>(x: &Array<R>, axes: &[u8]) -> Vec<R> {
    let strides = broadcast_strides(&x.sizes, &x.sizes);
    let order = |all: &[usize]| axes.iter().map(|&axis| all[usize::from(axis)]).collect::<Vec<usize>>();
    let (sizes, strides) = (order(&x.sizes), order(&strides));
    (0..x.reals().len()).map(|flat| x.reals()[offset(flat, &sizes, &strides)]).collect()
}

pub(super) fn slice<R: Real>(x: &Array<R>, axis: usize, start: usize, len: usize) -> Vec<R> {
    let inner: usize = x.sizes[axis + 1..].iter().product();
    let blocks = x.reals().chunks_exact(x.sizes[axis] * inner);
    blocks.flat_map(|block| block[start * inner..(start + len) * inner].iter().copied()).collect()
}

pub(super) fn concat<R: Real>(a: &Array<R>, b: &Array<R>, axis: usize) -> Vec<R> {
    let block = |x: &Array<R>| x.sizes[axis..].iter().product::<usize>().max(1);
    let blocks = a.reals().chunks_exact(block(a)).zip(b.reals().chunks_exact(block(b)));
    blocks.flat_map(|(a, b)| a.iter().chain(b).copied()).collect()
}

/// `[n, heads*w] -> [heads, n, w]`.
pub(super) fn split_heads<R: Real>(x: &Array<R>, heads: usize) -> Vec<R> {
    let (n, d) = (x.sizes[0], x.sizes[1]);
    let seen = Array::real(vec![n, heads, d / heads], x.reals().to_vec());
    transpose(&seen, &[1, 0, 2])
}

/// One ascending chain for each output.
pub(super) fn head_linear<R: Real>(x: &Array<R>, map: &Array<R>) -> Vec<R> {
    let [heads, w, m] = map.sizes[..] else { unreachable!("checked by infer") };
    let mut y = Vec::with_capacity(x.sizes[0] * heads * m);
    for row in rows(x) {
        for (x, map) in row.chunks_exact(w).zip(map.reals().chunks_exact(w * m)) {
            let mut sums = vec![R::ZERO; m];
            for (&x, map) in x.iter().zip(map.chunks_exact(m)) {
                sums.iter_mut().zip(map).for_each(|(sum, &w)| *sum = *sum + x * w);
            }
            y.extend(sums);
        }
    }
    y
}

pub(super) fn rows<R: Real>(x: &Array<R>) -> impl Iterator<Item = &[R]> {
    x.reals().chunks_exact(x.sizes.last().copied().unwrap_or(1).max(1))
}

/// Lanes that a sum over a row is split into. Part of the meaning: every engine sums in this order.
pub const LANES: usize = 16;

/// Element `i` goes to lane `i mod 16` in ascending order; lanes fold 8, 4, 2, 1.
pub fn row_sum<R: Real>(row: &[R]) -> R {
    let mut lanes = [R::ZERO; LANES];
    for (i, &x) in row.iter().enumerate() {
        lanes[i % LANES] = lanes[i % LANES] + x;
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] = lanes[i] + lanes[i + half];
        }
    }
    lanes[0]
}

/// A product of two vectors as one ascending chain.
pub(super) fn chain<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::ZERO, |sum, (&a, &b)| sum + a * b)
}

/// A row, or a head of it, over the root of its mean square plus `eps`: one reciprocal, which multiplies.
pub(super) fn rms_norm<R: Real>(row: &[R], eps: R) -> Vec<R> {
    let inverse = R::from_i32(1) / (mean_square(row) + eps).sqrt();
    row.iter().map(|&x| x * inverse).collect()
}

/// Of each head the first `turns.len()` channels, turned in pairs.
pub(super) fn turned<R: Real>(row: &[R], turns: &[R], heads: usize, pairs: Pairs) -> Vec<R> {
    let mut out = row.to_vec();
    let count = turns.len() / 2;
    for head in out.chunks_exact_mut(row.len() / heads) {
        for (i, (&cos, &sin)) in turns[..count].iter().zip(&turns[count..]).enumerate() {
            let [p, q] = pairs.channels(i, count);
            let (a, b) = (head[p], head[q]);
            head[p] = a * cos - b * sin;
            head[q] = b * cos + a * sin;
        }
    }
    out
}

/// A row less its mean.
pub(super) fn centred<R: Real>(row: &[R]) -> Vec<R> {
    let mean = row_sum(row) / R::from_i32(row.len() as i32);
    row.iter().map(|&x| x - mean).collect()
}

/// The mean of a row's squares.
pub(super) fn mean_square<R: Real>(row: &[R]) -> R {
    let squares: Vec<R> = row.iter().map(|&x| x * x).collect();
    row_sum(&squares) / R::from_i32(row.len() as i32)
}

/// The largest magnitude of a row, 1 where all are 0.
pub(super) fn row_max_abs<R: Real>(row: &[R]) -> R {
    let magnitude = |x: R| if x < R::ZERO { R::ZERO - x } else { x };
    let most = row.iter().fold(R::ZERO, |most, &x| if most < magnitude(x) { magnitude(x) } else { most });
    if most == R::ZERO { R::from_i32(1) } else { most }
}

pub(super) fn softmax<R: Real>(row: &[R]) -> Vec<R> {
    let most = row.iter().fold(row[0], |m, &x| if m < x { x } else { m });
    let weights: Vec<R> = row.iter().map(|&x| (x - most).exp()).collect();
    let sum = row_sum(&weights);
    weights.into_iter().map(|w| w / sum).collect()
}

/// Causal attention of `n` queries over all keys, the last `n` of which are the queries' own.
pub(super) fn attention<R: Real>(
    [q, k, v]: [&[R]; 3],
    n: usize,
    heads: Heads,
    scale: R,
    alibi: Option<&[R]>,
) -> Vec<R> {
    let d = q.len() / n;
    let w = d / heads.query as usize;
    let kv = w * heads.kv as usize;
    let past = k.len() / kv - n;
    let mut out = vec![R::ZERO; n * d];
    for i in 0..n {
        for h in 0..heads.query as usize {
            let (head, shared) = (h * w..(h + 1) * w, h / heads.group() * w..(h / heads.group() + 1) * w);
            let q = &q[i * d..][head.clone()];
            let keys = heads.first_key(past + i)..=past + i;
            let scaled = |j: usize| chain(q, &k[j * kv..][shared.clone()]) * scale;
            let lost = |j: usize| alibi.map(|alibi| R::from_i32((past + i - j) as i32) * alibi[h]);
            let scores: Vec<R> = keys.clone().map(|j| lost(j).map_or(scaled(j), |lost| scaled(j) - lost)).collect();
            let most = scores.iter().fold(scores[0], |m, &x| if m < x { x } else { m });
            let weights: Vec<R> = scores.iter().map(|&s| (s - most).exp()).collect();
            let sum = row_sum(&weights);
            let out = &mut out[i * d..][head];
            for (j, &weight) in keys.zip(&weights) {
                let v = &v[j * kv..][shared.clone()];
                out.iter_mut().zip(v).for_each(|(o, &v)| *o = *o + weight * v);
            }
            out.iter_mut().for_each(|o| *o = *o / sum);
        }
    }
    out
}

/// The nearest level of a potential, ties away from zero, at most `most` either way.
pub fn level<R: Real>(potential: R, most: i32) -> i32 {
    let half = R::from_f64(0.5);
    let negative = potential < R::ZERO;
    let magnitude = if negative { R::ZERO - potential } else { potential };
    let limit = R::from_i32(most) + half;
    let v = magnitude + half;
    let n = (if v < limit { v } else { limit }).truncate();
    if negative { -n } else { n }
}

pub(super) fn spikes(code: Code, levels: &[i32]) -> u64 {
    levels.iter().map(|&level| u64::from(code.spikes(level))).sum()
}

/// What neurons of these levels did.
pub fn fired(code: Code, steps: u16, levels: &[i32]) -> Events {
    let most = code.levels(steps);
    let count = |wanted: &dyn Fn(i32) -> bool| levels.iter().filter(|level| wanted(level.abs())).count() as u64;
    let (active, saturated) = (count(&|level| level != 0), count(&|level| level == most));
    Events { spikes: spikes(code, levels), active, saturated, ..Events::default() }
}

/// What neurons with these spikes did.
pub fn spike_events(parts: &[Vec<i32>]) -> Events {
    let spikes = parts.iter().flatten().map(|spike| u64::from(spike.unsigned_abs())).sum();
    let neurons = parts.first().map_or(0, Vec::len);
    let active = (0..neurons).filter(|&i| parts.iter().any(|part| part[i] != 0)).count() as u64;
    let saturated = (0..neurons).filter(|&i| parts.iter().all(|part| part[i] != 0)).count() as u64;
    Events { spikes, active, saturated, ..Events::default() }
}

pub(super) fn matmul_int(x: &[i32], w: &[i32], m: usize) -> Vec<i32> {
    let k = w.len() / m;
    let mut y = vec![0; x.len() / k * m];
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
        for (&x, w) in x.iter().zip(w.chunks_exact(m)).filter(|(x, _)| **x != 0) {
            y.iter_mut().zip(w).for_each(|(y, &w)| *y += x * w);
        }
    }
    y
}
