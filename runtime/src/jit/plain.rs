//! Kernels in plain Rust, in the order of `snnc_ir::eval`.

use crate::state::Level;
use snnc_ir::eval::row_sum;
use snnc_ir::op::Layout;
use snnc_ir::price::Events;
use snnc_ir::types::Code;

pub fn normalise(x: &[f32], y: &mut [f32], eps: f32) -> bool {
    let d = x.len() as f32;
    let mean = row_sum(x) / d;
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = x - mean);
    let squares: Vec<f32> = y.iter().map(|&c| c * c).collect();
    let variance = row_sum(&squares) / d;
    let inverse = 1.0 / (variance + eps).sqrt();
    y.iter_mut().for_each(|y| *y *= inverse);
    variance.is_finite()
}

pub fn linear(x: &[f32], w: &[f32], bias: &[f32], layout: Layout, k: usize, m: usize, y: &mut [f32]) {
    match layout {
        Layout::InputMajor => input_major(x, w, k, m, y),
        Layout::OutputMajor => {
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
                y.chunks_mut(8).zip(w.chunks(8 * k)).for_each(|(y, w)| output_major(x, w, k, y));
            }
        }
    }
    y.chunks_exact_mut(m).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, &b)| *y += b));
}

/// Four inputs a walk over the outputs, one after the other as the chain goes; weights are read once for all tokens.
fn input_major(x: &[f32], w: &[f32], k: usize, m: usize, y: &mut [f32]) {
    const COLUMNS: usize = 512;
    y.fill(0.0);
    for from in (0..m).step_by(COLUMNS) {
        let columns = from..(from + COLUMNS).min(m);
        for c in (0..k).step_by(4) {
            for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
                let row = |i: usize| &w[(c + i) * m..][columns.clone()];
                let y = &mut y[columns.clone()];
                if let [a, b, c, d] = x[c..(c + 4).min(k)] {
                    for ((((y, w0), w1), w2), w3) in y.iter_mut().zip(row(0)).zip(row(1)).zip(row(2)).zip(row(3)) {
                        *y = (((*y + a * w0) + b * w1) + c * w2) + d * w3;
                    }
                } else {
                    for (i, &x) in x[c..].iter().enumerate() {
                        y.iter_mut().zip(row(i)).for_each(|(y, &w)| *y += x * w);
                    }
                }
            }
        }
    }
}

/// Eight chains side by side, so that one need not wait for the other.
fn output_major(x: &[f32], w: &[f32], k: usize, y: &mut [f32]) {
    let mut sums = [0.0; 8];
    if y.len() < 8 {
        for (sum, w) in sums.iter_mut().zip(w.chunks_exact(k)) {
            *sum = x.iter().zip(w).fold(0.0, |sum, (&x, &w)| sum + x * w);
        }
    } else {
        let rows: [&[f32]; 8] = std::array::from_fn(|i| &w[i * k..][..k]);
        for (c, &x) in x.iter().enumerate() {
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum += x * row[c];
            }
        }
    }
    y.copy_from_slice(&sums[..y.len()]);
}

pub fn attention(q: &[f32], k: &[f32], v: &[f32], past: usize, heads: usize, d: usize, scale: f32, out: &mut [f32]) {
    let w = d / heads;
    out.fill(0.0);
    for (i, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        for h in 0..heads {
            let head = h * w..(h + 1) * w;
            let score = |j: usize| {
                let k = &k[j * d..][head.clone()];
                q[head.clone()].iter().zip(k).fold(0.0, |sum, (&q, &k)| sum + q * k) * scale
            };
            let scores: Vec<f32> = (0..=past + i).map(score).collect();
            let most = scores.iter().fold(scores[0], |m, &x| if m < x { x } else { m });
            let weights: Vec<f32> = scores.iter().map(|&s| libm::expf(s - most)).collect();
            let sum = row_sum(&weights);
            let out = &mut out[head.clone()];
            for (j, &weight) in weights.iter().enumerate() {
                out.iter_mut().zip(&v[j * d..][head.clone()]).for_each(|(o, &v)| *o += weight * v);
            }
            out.iter_mut().for_each(|o| *o /= sum);
        }
    }
}

pub fn product<T: Level + Into<i32>>(x: &[T], w: &[i8], m: usize, y: &mut [i32]) {
    let k = w.len() / m;
    y.fill(0);
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(m)) {
        for (&x, w) in x.iter().zip(w.chunks_exact(m)) {
            let x: i32 = x.into();
            y.iter_mut().zip(w).for_each(|(y, &w)| *y += x * i32::from(w));
        }
    }
}

pub struct Ssa<'a> {
    pub code: Code,
    pub past: usize,
    pub heads: usize,
    pub width: usize,
    pub slope: &'a [f32],
    pub phases: &'a [i32],
}

pub fn ssa<T: Level + Into<i32>>(q: &[T], k: &[T], v: &[T], shape: &Ssa<'_>, out: &mut [f32]) -> Events {
    let d = shape.width;
    let w = d / shape.heads;
    let mut events = Events::default();
    for (i, (q, out)) in q.chunks_exact(d).zip(out.chunks_exact_mut(d)).enumerate() {
        let keys = shape.past + i + 1;
        events.keys += keys as u64;
        for h in 0..shape.heads {
            let head = h * w..(h + 1) * w;
            let q = &q[head.clone()];
            let fired: u64 = q.iter().map(|&q| u64::from(shape.code.spikes(q.into()))).sum();
            events.score_additions += fired * keys as u64;
            let score = |j: usize| q.iter().zip(&k[j * d..][head.clone()]).map(|(&q, &k)| q.into() * k.into()).sum();
            let scores: Vec<i32> = (0..keys).map(score).collect();
            let best = scores.iter().copied().fold(scores[0], i32::max);
            let mut sums = vec![0i32; w];
            let mut total = 0i32;
            for (j, &score) in scores.iter().enumerate() {
                let delay = (best - score) as f32 * shape.slope[h] + 0.5;
                if delay >= shape.phases.len() as f32 {
                    continue;
                }
                let weight = shape.phases[delay as usize];
                events.value_keys += 1;
                total += weight;
                sums.iter_mut().zip(&v[j * d..][head.clone()]).for_each(|(sum, &v)| *sum += weight * v.into());
            }
            out[head].iter_mut().zip(&sums).for_each(|(o, &sum)| *o = sum as f32 / total as f32);
        }
    }
    events
}
