//! The meaning of what only training has.

use crate::eval::arithmetic::{level, mean_square, row_sum, spread};
use crate::eval::value::{Array, Content};
use crate::op::training::TrainingOp;
use crate::real::Real;
use crate::ssa::meaning::HALVINGS;

/// The result of `op` as `sizes`; `targets` are what `Targets` gives. Errors are of ids outside a table.
pub(crate) fn eval<R: Real>(
    op: TrainingOp,
    args: &[&Array<R>],
    sizes: &[usize],
    targets: &[u32],
) -> Result<Content<R>, String> {
    let map = |f: &dyn Fn(R) -> R| Content::Real(args[0].reals().iter().map(|&x| f(x)).collect());
    let one = R::from_f64(1.0);
    let inside = |id: i32, count: usize| {
        usize::try_from(id).ok().filter(|&id| id < count).ok_or_else(|| format!("id {id} is outside {count} rows"))
    };
    Ok(match op {
        TrainingOp::Targets => Content::Int(targets.iter().map(|&id| id as i32).collect()),
        TrainingOp::ReduceSum(_) => Content::Real(sum_to(args[0], sizes)),
        TrainingOp::BroadcastTo(_) => Content::Real(spread(sizes, &[args[0]], |x| x[0])),
        TrainingOp::FakeQuant { most } => map(&|x| R::from_i32(level(x, most as i32))),
        TrainingOp::FakeQuantGrad { most } => {
            let end = R::from_f64(f64::from(most) + 0.5);
            let keep = |(&x, &c): (&R, &R)| if x < end && R::ZERO - end < x { c } else { R::ZERO };
            Content::Real(args[0].reals().iter().zip(args[1].reals()).map(keep).collect())
        }
        TrainingOp::Floor => map(&R::floor),
        TrainingOp::Clamp { least, most } => {
            let (least, most) = (R::from_f32(least.get()), R::from_f32(most.get()));
            map(&|x| {
                if x < least {
                    least
                } else if most < x {
                    most
                } else {
                    x
                }
            })
        }
        TrainingOp::ClampGrad { least, most } => {
            let (least, most) = (R::from_f32(least.get()), R::from_f32(most.get()));
            let leaves = |x: R, c: R| (x <= least && c > R::ZERO) || (most <= x && c < R::ZERO);
            let keep = |(&x, &c): (&R, &R)| if leaves(x, c) { R::ZERO } else { c };
            Content::Real(args[0].reals().iter().zip(args[1].reals()).map(keep).collect())
        }
        TrainingOp::Step(_) => map(&|x| if x < R::ZERO { R::ZERO } else { one }),
        TrainingOp::Surrogate(kind) => map(&|x| kind.at(x)),
        TrainingOp::CurveSlope(curve) => map(&|x| curve.slope(x)),
        TrainingOp::StopGradient => map(&|x| x),
        TrainingOp::RowMax => {
            let width = args[0].sizes.last().copied().unwrap_or(1).max(1);
            let most = |row: &[R]| row[1..].iter().fold(row[0], |a, &b| if a < b { b } else { a });
            Content::Real(args[0].reals().chunks_exact(width).map(most).collect())
        }
        TrainingOp::TopKMask { keys } => {
            let width = args[0].sizes.last().copied().unwrap_or(1).max(1);
            let wins = |row: &[R], j: usize| {
                let better = |&(i, &x): &(usize, &R)| row[j] < x || (i > j && row[j] <= x);
                row.iter().enumerate().filter(better).count() < keys as usize
            };
            let number = |wins| if wins { one } else { R::ZERO };
            let rows = args[0].reals().chunks_exact(width);
            Content::Real(rows.flat_map(|row| (0..row.len()).map(move |j| number(wins(row, j)))).collect())
        }
        TrainingOp::RmsNormGrad { eps, heads } => {
            let width = args[0].sizes[1] / heads as usize;
            let pairs = args[0].reals().chunks_exact(width).zip(args[1].reals().chunks_exact(width));
            Content::Real(pairs.flat_map(|(x, c)| rms_norm_grad(x, c, R::from_f32(eps.get()))).collect())
        }
        TrainingOp::RowMaxAbsGrad => {
            let width = args[0].sizes[1] / args[1].sizes[1];
            let heads = args[0].reals().chunks_exact(width).zip(args[1].reals());
            Content::Real(heads.flat_map(|(x, &c)| row_max_abs_grad(x, c)).collect())
        }
        TrainingOp::GatherChannelsGrad { width } => {
            let k = args[0].sizes[1];
            let mut out = vec![R::ZERO; sizes[0] * width as usize];
            for (out, c) in out.chunks_exact_mut(width as usize).zip(args[0].reals().chunks_exact(k)) {
                for (&c, &at) in c.iter().zip(args[1].ints()) {
                    let at = inside(at, width as usize)?;
                    out[at] = out[at] + c;
                }
            }
            Content::Real(out)
        }
        TrainingOp::EmbedGrad { rows } => {
            let width = sizes[1];
            let mut out = vec![R::ZERO; sizes[0] * width];
            for (&id, c) in args[0].ints().iter().zip(args[1].reals().chunks_exact(width)) {
                let at = inside(id, rows as usize)? * width;
                out[at..at + width].iter_mut().zip(c).for_each(|(out, &c)| *out = *out + c);
            }
            Content::Real(out)
        }
        TrainingOp::DecayMask => {
            let n = sizes[1];
            let mut weights = vec![0.0; args[0].reals().len() * n * n];
            for (&h, head) in args[0].reals().iter().zip(weights.chunks_exact_mut(n * n)) {
                let h = period(h.to_f64());
                head.chunks_exact_mut(n).enumerate().for_each(|(i, row)| decay_row(h, i, row));
            }
            Content::Real(weights.into_iter().map(R::from_f32).collect())
        }
        TrainingOp::DecayMaskGrad => {
            let n = args[1].sizes[1];
            let heads = args[0].reals().iter().zip(args[1].reals().chunks_exact(n * n));
            Content::Real(heads.map(|(&h, c)| decay_mask_grad(h, n, c)).collect())
        }
        TrainingOp::Divergence => {
            let (p, q) = (args[1], args[0]);
            let width = q.sizes[1];
            let rows = p.reals().chunks_exact(width).zip(q.reals().chunks_exact(width));
            let each: Vec<R> = rows.map(|(p, q)| divergence(p, q)).collect();
            Content::Real(vec![row_sum(&each) / R::from_i32(each.len() as i32)])
        }
        TrainingOp::DivergenceGrad => {
            let width = sizes[1];
            let scale = args[2].reals()[0] / R::from_i32(sizes[0] as i32);
            let rows = args[1].reals().chunks_exact(width).zip(args[0].reals().chunks_exact(width));
            let back = |(p, q): (&[R], &[R])| {
                let pairs = softmax(q).into_iter().zip(softmax(p));
                pairs.map(|(q, p)| (q - p) * scale).collect::<Vec<R>>()
            };
            Content::Real(rows.flat_map(back).collect())
        }
        TrainingOp::CrossEntropy => {
            let width = args[0].sizes[1];
            let mut each = Vec::new();
            for (row, &target) in args[0].reals().chunks_exact(width).zip(args[1].ints()) {
                each.push(log_sum_exp(row) - row[inside(target, width)?]);
            }
            Content::Real(vec![row_sum(&each) / R::from_i32(each.len() as i32)])
        }
        TrainingOp::CrossEntropyGrad => {
            let width = sizes[1];
            let scale = args[2].reals()[0] / R::from_i32(sizes[0] as i32);
            let mut out = Vec::with_capacity(sizes[0] * width);
            for (row, &target) in args[0].reals().chunks_exact(width).zip(args[1].ints()) {
                let target = inside(target, width)?;
                let all = softmax(row).into_iter().enumerate();
                out.extend(all.map(|(i, q)| if i == target { (q - one) * scale } else { q * scale }));
            }
            Content::Real(out)
        }
    })
}

/// A whole number of tokens, at least 1.
pub fn period(h: f64) -> usize {
    // The larger of NaN and 1 is 1.
    libm::round(h).max(1.0).min(f64::from(u32::MAX)) as usize
}

/// Weights of the first keys for query `i`, its own the last, where memory halves every `h` tokens, at least 1; 0 for later
/// keys.
pub fn decay_row(h: usize, i: usize, weights: &mut [f32]) {
    let (past, later) = weights.split_at_mut(i + 1);
    for (block, keys) in past.chunks_mut(h).enumerate() {
        let halvings = i / h - block;
        keys.fill(if halvings < HALVINGS { 1.0 / (1u32 << halvings) as f32 } else { 0.0 });
    }
    later.fill(0.0);
}

/// How fast the weight of a key `distance` tokens ago grows with its head's period `h`, where memory fades evenly:
/// `2^(-distance / h) ln(2) distance / h^2`.
pub fn decay_slope(h: f64, distance: usize) -> f64 {
    let (h, distance) = (h.max(1.0), distance as f64);
    libm::exp2(-distance / h) * std::f64::consts::LN_2 * distance / (h * h)
}

fn decay_mask_grad<R: Real>(h: R, n: usize, c: &[R]) -> R {
    let slopes: Vec<R> = (0..n).map(|distance| R::from_f64(decay_slope(h.to_f64(), distance))).collect();
    let pairs = (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)));
    pairs.fold(R::ZERO, |sum, (i, j)| sum + c[i * n + j] * slopes[i - j])
}

fn sum_to<R: Real>(x: &Array<R>, sizes: &[usize]) -> Vec<R> {
    let mut out = vec![R::ZERO; sizes.iter().product()];
    let missing = x.sizes.len() - sizes.len();
    for (flat, &value) in x.reals().iter().enumerate() {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for axis in (0..x.sizes.len()).rev() {
            let index = rest % x.sizes[axis];
            rest /= x.sizes[axis];
            if axis >= missing {
                let size = sizes[axis - missing];
                at += if size == 1 { 0 } else { index * stride };
                stride *= size;
            }
        }
        out[at] = out[at] + value;
    }
    out
}

/// With `y` the row normalised and `s` the inverse of its root mean square: `s (c - y mean(c y))`.
fn rms_norm_grad<R: Real>(x: &[R], c: &[R], eps: R) -> Vec<R> {
    let inverse = R::from_i32(1) / (mean_square(x) + eps).sqrt();
    let y: Vec<R> = x.iter().map(|&x| x * inverse).collect();
    let products: Vec<R> = y.iter().zip(c).map(|(&y, &c)| y * c).collect();
    let mean = row_sum(&products) / R::from_i32(x.len() as i32);
    y.iter().zip(c).map(|(&y, &c)| inverse * (c - y * mean)).collect()
}

fn row_max_abs_grad<R: Real>(x: &[R], c: R) -> Vec<R> {
    let magnitude = |x: R| if x < R::ZERO { R::ZERO - x } else { x };
    let mut out = vec![R::ZERO; x.len()];
    let first = (0..x.len()).fold(0, |best, i| if magnitude(x[best]) < magnitude(x[i]) { i } else { best });
    if magnitude(x[first]) > R::ZERO {
        out[first] = if x[first] < R::ZERO { R::ZERO - c } else { c };
    }
    out
}

fn most<R: Real>(row: &[R]) -> R {
    row[1..].iter().fold(row[0], |a, &b| if a < b { b } else { a })
}

fn softmax<R: Real>(row: &[R]) -> Vec<R> {
    let most = most(row);
    let e: Vec<R> = row.iter().map(|&x| (x - most).exp()).collect();
    let sum = row_sum(&e);
    e.into_iter().map(|e| e / sum).collect()
}

fn log_sum_exp<R: Real>(row: &[R]) -> R {
    let most = most(row);
    let e: Vec<R> = row.iter().map(|&x| (x - most).exp()).collect();
    most + row_sum(&e).ln()
}

/// `sum p (log p - log q)` of the rows' softmax.
fn divergence<R: Real>(p: &[R], q: &[R]) -> R {
    let (sum_p, sum_q) = (log_sum_exp(p), log_sum_exp(q));
    let term = |(&p, &q): (&R, &R)| (p - sum_p).exp() * ((p - sum_p) - (q - sum_q));
    let terms: Vec<R> = p.iter().zip(q).map(term).collect();
    row_sum(&terms)
}
