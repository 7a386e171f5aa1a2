//! What a network in training has beside the operations of an imported one: losses, what rounds but is differentiated as
//! if it did not, derivatives, and the transposes of what has no transpose of its own.
//!
//! A graph of stage `training` is run on one window of text, whole: a value is a tensor in f32, time is collapsed or unrolled,
//! and nothing is kept between calls. The gradient pass (`snnc-passes`) takes such graphs and makes such graphs.

use crate::curve::Curve;
use crate::eval::{Array, Content, Real, row_sum};
use crate::infer::broadcast;
use crate::op::Scalar;
use crate::ssa::meaning::HALVINGS;
use crate::types::{Dim, Elem, Shape, Type};
use std::fmt;

/// What stands in for the derivative of a step, with `x` the distance from the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Surrogate {
    /// `1 / (1 + (pi x)^2)` (Fang et al. 2021, with alpha = 2)
    #[default]
    Arctan,
    /// `1 / (1 + 25 |x|)^2` (Zenke and Ganguli 2018)
    FastSigmoid,
    /// `max(0, 1 - |x|)` (Bellec et al. 2018)
    Triangle,
    /// `1` where `|x| < 1/2`, else 0 (Wu et al. 2018)
    Rectangle,
}

impl Surrogate {
    pub const ALL: [Surrogate; 4] =
        [Surrogate::Arctan, Surrogate::FastSigmoid, Surrogate::Triangle, Surrogate::Rectangle];

    pub fn name(self) -> &'static str {
        match self {
            Surrogate::Arctan => "arctan",
            Surrogate::FastSigmoid => "fast_sigmoid",
            Surrogate::Triangle => "triangle",
            Surrogate::Rectangle => "rectangle",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|surrogate| surrogate.name() == name)
    }

    pub fn at<R: Real>(self, x: R) -> R {
        let one = R::from_f64(1.0);
        let far = if x < R::ZERO { R::ZERO - x } else { x };
        match self {
            Surrogate::Arctan => {
                let y = R::from_f64(std::f64::consts::PI) * x;
                one / (one + y * y)
            }
            Surrogate::FastSigmoid => {
                let y = one + R::from_f64(25.0) * far;
                one / (y * y)
            }
            Surrogate::Triangle => {
                if far < one {
                    one - far
                } else {
                    R::ZERO
                }
            }
            Surrogate::Rectangle => {
                if far < R::from_f64(0.5) {
                    one
                } else {
                    R::ZERO
                }
            }
        }
    }
}

/// An operation that only training has. `c` is the gradient of the loss by the result of the operation that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrainingOp {
    /// `i32[tokens]`: the token that follows each of this call's.
    Targets,
    /// Sums over what broadcasting has spread: the result has this shape, which broadcasts to the operand's.
    ReduceSum(Shape),
    /// The operand spread to this shape by broadcasting: the transpose of `reduce_sum`.
    BroadcastTo(Shape),
    /// The nearest level, ties away from zero, at most `most` either way. Its derivative is taken to be 1 where nothing is
    /// clipped.
    FakeQuant { most: u32 },
    /// `(x, c)`: `c` where `FakeQuant` does not clip `x`, else 0.
    FakeQuantGrad { most: u32 },
    /// 1 where the operand is not negative, else 0. Its derivative is taken to be the surrogate.
    Step(Surrogate),
    /// The surrogate at the operand.
    Surrogate(Surrogate),
    /// The curve's derivative at the operand.
    CurveSlope(Curve),
    /// The operand, taken to be a constant.
    StopGradient,
    /// The largest of a row, innermost size 1, taken to be a constant.
    RowMax,
    /// 1 for the `keys` largest numbers of a row, of equal ones the latest, else 0; taken to be a constant.
    TopKMask { keys: u32 },
    /// `(x, c)`: the gradient by `x` of `layer_norm_no_gain`.
    LayerNormNoGainGrad { eps: Scalar },
    /// `(x, c f32[tokens,1])`: the gradient by `x` of `row_max_abs`: it goes to the first of a row's largest magnitudes.
    RowMaxAbsGrad,
    /// `(c f32[tokens,k], channels i32[k]) -> f32[tokens,width]`: the gradient of `gather_channels`.
    GatherChannelsGrad { width: u32 },
    /// `(ids i32[tokens], c f32[tokens,d]) -> f32[rows,d]`: the gradient by the table of `embed`.
    EmbedGrad { rows: u32 },
    /// `(period f32[heads]) -> f32[heads,tokens,tokens]`: `2^-(floor(i / h) - floor(j / h))` for query `i` and key `j <= i`
    /// of a head whose memory halves every `h` tokens, the period rounded to a whole number of at least 1; 0 for later keys
    /// and after 16 halvings. Its derivative is taken to be that of a memory that fades evenly, `2^-((i - j) / h)`.
    DecayMask,
    /// `(period f32[heads], c f32[heads,tokens,tokens]) -> f32[heads]`: the gradient of `decay_mask`.
    DecayMaskGrad,
    /// `(logits, reference) -> f32[1]`: Kullback-Leibler divergence of the prediction `logits` from `reference`, in nats, mean
    /// over tokens.
    Divergence,
    /// `(logits, reference, c f32[1])`: its gradient by `logits`.
    DivergenceGrad,
    /// `(logits, targets i32[tokens]) -> f32[1]`: the negative log likelihood of the targets, in nats, mean over tokens.
    CrossEntropy,
    /// `(logits, targets, c f32[1])`: its gradient by `logits`.
    CrossEntropyGrad,
}

impl TrainingOp {
    pub fn name(&self) -> &'static str {
        match self {
            TrainingOp::Targets => "targets",
            TrainingOp::ReduceSum(_) => "reduce_sum",
            TrainingOp::BroadcastTo(_) => "broadcast_to",
            TrainingOp::FakeQuant { .. } => "fake_quant",
            TrainingOp::FakeQuantGrad { .. } => "fake_quant_grad",
            TrainingOp::Step(_) => "step",
            TrainingOp::Surrogate(_) => "surrogate",
            TrainingOp::CurveSlope(_) => "curve_slope",
            TrainingOp::StopGradient => "stop_gradient",
            TrainingOp::RowMax => "row_max",
            TrainingOp::TopKMask { .. } => "topk_mask",
            TrainingOp::LayerNormNoGainGrad { .. } => "layer_norm_no_gain_grad",
            TrainingOp::RowMaxAbsGrad => "row_max_abs_grad",
            TrainingOp::GatherChannelsGrad { .. } => "gather_channels_grad",
            TrainingOp::EmbedGrad { .. } => "embed_grad",
            TrainingOp::DecayMask => "decay_mask",
            TrainingOp::DecayMaskGrad => "decay_mask_grad",
            TrainingOp::Divergence => "divergence",
            TrainingOp::DivergenceGrad => "divergence_grad",
            TrainingOp::CrossEntropy => "cross_entropy",
            TrainingOp::CrossEntropyGrad => "cross_entropy_grad",
        }
    }

    /// Operations without attributes.
    pub(crate) const PLAIN: [TrainingOp; 10] = [
        TrainingOp::Targets,
        TrainingOp::StopGradient,
        TrainingOp::RowMax,
        TrainingOp::RowMaxAbsGrad,
        TrainingOp::DecayMask,
        TrainingOp::DecayMaskGrad,
        TrainingOp::Divergence,
        TrainingOp::DivergenceGrad,
        TrainingOp::CrossEntropy,
        TrainingOp::CrossEntropyGrad,
    ];

    pub(crate) fn arity(&self) -> usize {
        match self {
            TrainingOp::Targets => 0,
            TrainingOp::ReduceSum(_)
            | TrainingOp::BroadcastTo(_)
            | TrainingOp::FakeQuant { .. }
            | TrainingOp::Step(_)
            | TrainingOp::Surrogate(_)
            | TrainingOp::CurveSlope(_)
            | TrainingOp::StopGradient
            | TrainingOp::RowMax
            | TrainingOp::TopKMask { .. }
            | TrainingOp::DecayMask => 1,
            TrainingOp::FakeQuantGrad { .. }
            | TrainingOp::LayerNormNoGainGrad { .. }
            | TrainingOp::RowMaxAbsGrad
            | TrainingOp::GatherChannelsGrad { .. }
            | TrainingOp::EmbedGrad { .. }
            | TrainingOp::DecayMaskGrad
            | TrainingOp::Divergence
            | TrainingOp::CrossEntropy => 2,
            TrainingOp::DivergenceGrad | TrainingOp::CrossEntropyGrad => 3,
        }
    }
}

impl fmt::Display for TrainingOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            TrainingOp::ReduceSum(shape) | TrainingOp::BroadcastTo(shape) => write!(f, "{shape}"),
            TrainingOp::FakeQuant { most } | TrainingOp::FakeQuantGrad { most } => write!(f, "[{most}]"),
            TrainingOp::Step(kind) | TrainingOp::Surrogate(kind) => write!(f, "[{}]", kind.name()),
            TrainingOp::TopKMask { keys } => write!(f, "[{keys}]"),
            TrainingOp::CurveSlope(curve) => write!(f, "[{}]", curve.name()),
            TrainingOp::LayerNormNoGainGrad { eps } => write!(f, "[eps={:?}]", eps.get()),
            TrainingOp::GatherChannelsGrad { width } => write!(f, "[width={width}]"),
            TrainingOp::EmbedGrad { rows } => write!(f, "[rows={rows}]"),
            TrainingOp::Targets
            | TrainingOp::StopGradient
            | TrainingOp::RowMax
            | TrainingOp::RowMaxAbsGrad
            | TrainingOp::DecayMask
            | TrainingOp::DecayMaskGrad
            | TrainingOp::Divergence
            | TrainingOp::DivergenceGrad
            | TrainingOp::CrossEntropy
            | TrainingOp::CrossEntropyGrad => Ok(()),
        }
    }
}

/// The most that a level may be: integers up to there are exact in f32.
pub const LEVEL_MAX: u32 = 1 << 23;

pub(crate) fn infer(op: TrainingOp, args: &[Type]) -> Result<Type, String> {
    let real = |i: usize| match args[i] {
        Type::Tensor { elem: Elem::F32, shape } => Ok(shape),
        other => Err(format!("operand {} should be an f32 tensor, it is {other}", i + 1)),
    };
    let integers = |i: usize, shape: Shape| match args[i] {
        ty if ty == Type::tensor(Elem::I32, shape) => Ok(()),
        other => Err(format!("operand {} should be i32{shape}, it is {other}", i + 1)),
    };
    let equal = |i: usize| {
        if args[i] == args[0] {
            Ok(())
        } else {
            Err(format!("operand {} should be {}, it is {}", i + 1, args[0], args[i]))
        }
    };
    let rows = |i: usize| {
        let shape = real(i)?;
        shape.row_width().ok_or_else(|| format!("[tokens,width] was expected, here is {shape}"))
    };
    let tokens = Shape::new(&[Dim::Tokens]);
    let one = Shape::fixed(&[1]);
    let f32_of = |shape| Ok(Type::tensor(Elem::F32, shape));
    let single = |i: usize| match real(i)? {
        shape if shape == one => Ok(()),
        shape => Err(format!("operand {} should be f32[1], it has shape {shape}", i + 1)),
    };
    match op {
        TrainingOp::Targets => Ok(Type::tensor(Elem::I32, tokens)),
        TrainingOp::ReduceSum(to) => {
            let from = real(0)?;
            match broadcast(to, from) {
                Ok(all) if all == from => f32_of(to),
                _ => Err(format!("{to} does not broadcast to {from}")),
            }
        }
        TrainingOp::BroadcastTo(to) => match broadcast(real(0)?, to) {
            Ok(all) if all == to => f32_of(to),
            _ => Err(format!("{} does not broadcast to {to}", real(0)?)),
        },
        TrainingOp::FakeQuant { most } | TrainingOp::FakeQuantGrad { most } => {
            if !(1..=LEVEL_MAX).contains(&most) {
                return Err(format!("levels up to 1 to {LEVEL_MAX} are possible, here is {most}"));
            }
            if let TrainingOp::FakeQuantGrad { .. } = op {
                equal(1)?;
            }
            real(0).and_then(f32_of)
        }
        TrainingOp::Step(_) | TrainingOp::Surrogate(_) | TrainingOp::CurveSlope(_) | TrainingOp::StopGradient => {
            real(0).and_then(f32_of)
        }
        TrainingOp::TopKMask { keys } => {
            if keys == 0 {
                return Err("no row is without a largest number".into());
            }
            if real(0)?.rank() == 0 {
                return Err("a scalar has no rows".into());
            }
            real(0).and_then(f32_of)
        }
        TrainingOp::RowMax => {
            let mut dims = real(0)?.dims().to_vec();
            *dims.last_mut().ok_or("a scalar has no innermost axis")? = Dim::Fixed(1);
            f32_of(Shape::new(&dims))
        }
        TrainingOp::LayerNormNoGainGrad { .. } => {
            rows(0)?;
            equal(1)?;
            Ok(args[0])
        }
        TrainingOp::RowMaxAbsGrad => {
            rows(0)?;
            if rows(1)? != 1 {
                return Err(format!("one number a token was expected, here is {}", args[1]));
            }
            Ok(args[0])
        }
        TrainingOp::GatherChannelsGrad { width } => {
            integers(1, Shape::fixed(&[rows(0)?]))?;
            f32_of(Shape::rows(width as usize))
        }
        TrainingOp::EmbedGrad { rows: count } => {
            integers(0, tokens)?;
            f32_of(Shape::new(&[Dim::Fixed(count), Dim::Fixed(rows(1)? as u32)]))
        }
        TrainingOp::DecayMask | TrainingOp::DecayMaskGrad => {
            let periods = real(0)?;
            let &[heads @ Dim::Fixed(_)] = periods.dims() else {
                return Err(format!("a period for every head was expected, here is {periods}"));
            };
            let pairs = Shape::new(&[heads, Dim::Tokens, Dim::Tokens]);
            if op == TrainingOp::DecayMask {
                return f32_of(pairs);
            }
            match real(1)? {
                shape if shape == pairs => f32_of(periods),
                shape => Err(format!("operand 2 should be f32{pairs}, it has shape {shape}")),
            }
        }
        TrainingOp::Divergence | TrainingOp::DivergenceGrad => {
            rows(0)?;
            equal(1)?;
            if op == TrainingOp::Divergence {
                return f32_of(one);
            }
            single(2)?;
            Ok(args[0])
        }
        TrainingOp::CrossEntropy | TrainingOp::CrossEntropyGrad => {
            rows(0)?;
            integers(1, tokens)?;
            if op == TrainingOp::CrossEntropy {
                return f32_of(one);
            }
            single(2)?;
            Ok(args[0])
        }
    }
}

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
        TrainingOp::BroadcastTo(_) => Content::Real(crate::eval::spread(sizes, &[args[0]], |x| x[0])),
        TrainingOp::FakeQuant { most } => map(&|x| R::from_i32(crate::eval::level(x, most as i32))),
        TrainingOp::FakeQuantGrad { most } => {
            let end = R::from_f64(f64::from(most) + 0.5);
            let keep = |(&x, &c): (&R, &R)| if x < end && R::ZERO - end < x { c } else { R::ZERO };
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
        TrainingOp::LayerNormNoGainGrad { eps } => {
            let width = args[0].sizes[1];
            let pairs = args[0].reals().chunks_exact(width).zip(args[1].reals().chunks_exact(width));
            Content::Real(pairs.flat_map(|(x, c)| normalise_back(x, c, R::from_f32(eps.get()))).collect())
        }
        TrainingOp::RowMaxAbsGrad => {
            let rows = args[0].reals().chunks_exact(args[0].sizes[1]).zip(args[1].reals());
            Content::Real(rows.flat_map(|(x, &c)| peak_back(x, c)).collect())
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
                head.chunks_exact_mut(n).enumerate().for_each(|(i, row)| recency(h, i, row));
            }
            Content::Real(weights.into_iter().map(R::from_f32).collect())
        }
        TrainingOp::DecayMaskGrad => {
            let n = args[1].sizes[1];
            let heads = args[0].reals().iter().zip(args[1].reals().chunks_exact(n * n));
            Content::Real(heads.map(|(&h, c)| recency_back(h, n, c)).collect())
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
pub fn recency(h: usize, i: usize, weights: &mut [f32]) {
    let (past, later) = weights.split_at_mut(i + 1);
    for (block, keys) in past.chunks_mut(h).enumerate() {
        let halvings = i / h - block;
        keys.fill(if halvings < HALVINGS { 1.0 / (1u32 << halvings) as f32 } else { 0.0 });
    }
    later.fill(0.0);
}

/// How fast the weight of a key `distance` tokens ago grows with its head's period `h`, where memory fades evenly:
/// `2^(-distance / h) ln(2) distance / h^2`.
pub fn recency_slope(h: f64, distance: usize) -> f64 {
    let (h, distance) = (h.max(1.0), distance as f64);
    libm::exp2(-distance / h) * std::f64::consts::LN_2 * distance / (h * h)
}

fn recency_back<R: Real>(h: R, n: usize, c: &[R]) -> R {
    let slopes: Vec<R> = (0..n).map(|distance| R::from_f64(recency_slope(h.to_f64(), distance))).collect();
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

/// With `y` the row normalised and `s` its inverse deviation: `s (c - mean(c) - y mean(c y))`.
fn normalise_back<R: Real>(x: &[R], c: &[R], eps: R) -> Vec<R> {
    let d = R::from_i32(x.len() as i32);
    let mean = row_sum(x) / d;
    let centred: Vec<R> = x.iter().map(|&x| x - mean).collect();
    let squares: Vec<R> = centred.iter().map(|&c| c * c).collect();
    let inverse = R::from_i32(1) / (row_sum(&squares) / d + eps).sqrt();
    let y: Vec<R> = centred.iter().map(|&c| c * inverse).collect();
    let mean_c = row_sum(c) / d;
    let products: Vec<R> = y.iter().zip(c).map(|(&y, &c)| y * c).collect();
    let mean_cy = row_sum(&products) / d;
    y.iter().zip(c).map(|(&y, &c)| inverse * (c - mean_c - y * mean_cy)).collect()
}

fn peak_back<R: Real>(x: &[R], c: R) -> Vec<R> {
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
