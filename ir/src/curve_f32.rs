//! Curves in f32: one stated order of additions, products, quotients and integer steps, which every engine follows.
//!
//! There are no branches and no library, so that vectors fit. `silu`, which gated networks compute most, stays in f32 and is
//! wrong by less than 1.75 units in the last place. The GELUs are computed in f64 and rounded once; they are wrong by less than 0.6
//! units. Both hold for every finite number (test: `curves_are_near_the_true_values`).

/// Beyond this, `e^-x` is nothing beside 1 and nothing at all.
const FAR: f32 = 150.0;
/// `ln 2` in two parts, of which the first times a small integer is exact.
const LN2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
/// 1.5 * 2^23: a sum with it has no fraction, so its bits are an integer.
const WHOLE: f32 = 12_582_912.0;
/// `e^r = 1 + r + r^2 (c0 + c1 r + ...)` for `|r| <= ln 2 / 2`, wrong by less than 5e-9.
const EXP: [f32; 5] = [0.5, 0.166_665_15, 0.041_666_26, 0.008_369_233, 0.001_394_655_3];
/// A power of two that is far below 1 and whose reciprocal is a normal number.
const SMALL: i32 = 100;

/// `2^k` for `-126 <= k <= 127`.
#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits(((k + 127) as u32) << 23)
}

/// `x / (1 + e^-x)`.
///
/// With `|x| = k ln 2 + r` and `s = 2^-k`, it is `x / (1 + s e^-r)` for positive numbers. For negative ones it is
/// `s x / (s + e^r)`, so that nothing cancels and nothing overflows.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    let magnitude = x.abs();
    let far = if magnitude < FAR { magnitude } else { FAR };
    let shifted = far * std::f32::consts::LOG2_E + WHOLE;
    let k = shifted - WHOLE;
    let power = (shifted.to_bits() as i32).wrapping_sub(WHOLE.to_bits() as i32);
    let r = (far - k * LN2[0]) - k * LN2[1];
    let negative = x < 0.0;
    let r = if negative { r } else { -r };
    let p = EXP[0] + r * (EXP[1] + r * (EXP[2] + r * (EXP[3] + r * EXP[4])));
    let rest = r + r * r * p;
    let first = if power < SMALL { power } else { SMALL };
    let s = power_of_two(-first);
    let rest = if negative { rest } else { s * rest };
    // One rounding: of the sum of two numbers of about 1, the exact part comes first.
    let denominator = if power == 0 { 2.0 + rest } else { 1.0 + (s + rest) };
    let y = (if negative { -far } else { x }) / denominator;
    if negative { y * s * power_of_two(first - power) } else { y }
}

/// `x sigmoid(1.702 x)`.
#[inline(always)]
pub fn gelu_quick(x: f32) -> f32 {
    swish(x, 1.702 * f64::from(x))
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, which is `x sigmoid` of twice that argument.
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    /// `2 sqrt(2 / pi)`
    const SLOPE: f64 = 1.595_769_121_605_730_8;
    const CUBE: f64 = SLOPE * 0.044_715;
    let t = f64::from(x);
    swish(x, t * (SLOPE + CUBE * (t * t)))
}

/// `0.5 x (1 + erf(x / sqrt 2))`.
///
/// The tail of the normal distribution is `e^(-t^2/2) p(u) / (t + 3.625)` with `u = (t - 3.625) / (t + 3.625)`, wrong by less than
/// 4e-9 of itself.
#[inline(always)]
pub fn gelu_erf(x: f32) -> f32 {
    const MIDDLE: f64 = 3.625;
    const TAIL: [f64; 11] = [
        0.747_477_948_665_618_9,
        -0.577_270_865_440_368_7,
        0.334_608_018_398_284_9,
        -0.133_797_898_888_587_95,
        0.027_037_085_965_275_764,
        0.004_258_763_976_395_13,
        -0.003_844_626_480_713_486_7,
        5.084_328_586_235_642e-5,
        0.000_497_666_420_415_043_8,
        -1.544_880_433_357_320_7e-5,
        -5.070_424_595_032_819e-5,
    ];
    /// Beyond this, the tail is nothing.
    const END: f64 = 40.0;
    let x = f64::from(x);
    let t = x.abs();
    let t = if t < END { t } else { END };
    let inverse = 1.0 / (t + MIDDLE);
    let u = (t - MIDDLE) * inverse;
    let p = TAIL.iter().rev().fold(0.0, |p, c| p * u + c);
    let tail = t * exponential(-0.5 * t * t) * (p * inverse);
    (if x < 0.0 { -tail } else { x - tail }) as f32
}

/// `x sigmoid(z)` for `x` and `z` of one sign.
#[inline(always)]
fn swish(x: f32, z: f64) -> f32 {
    let e = exponential(-z.abs());
    let x = f64::from(x);
    let part = if z < 0.0 { x * e } else { x };
    (part / (1.0 + e)) as f32
}

/// `e^z` for `z` that is not positive, wrong by less than 1e-10 of itself; what is below `e^-700` is that.
#[inline(always)]
fn exponential(z: f64) -> f64 {
    const LN2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    /// 1.5 * 2^52
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    const TERMS: [f64; 8] =
        [1.0, 1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0, 1.0 / 40320.0];
    let z = if z > -700.0 { z } else { -700.0 };
    let shifted = z * std::f64::consts::LOG2_E + WHOLE;
    let k = shifted - WHOLE;
    let power = shifted.to_bits().wrapping_sub(WHOLE.to_bits());
    let r = (z - k * LN2[0]) - k * LN2[1];
    let y = 1.0 + r * TERMS.iter().rev().fold(0.0, |p, c| p * r + c);
    y * f64::from_bits(power.wrapping_add(1023) << 52)
}

#[cfg(test)]
mod tests {
    use crate::curve::Curve;

    /// Distance from the true value in units of its last place.
    fn units(y: f32, truth: f64) -> f64 {
        let near = (truth as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(y) - truth).abs() / unit
    }

    /// `x sigmoid(z)` without cancellation.
    fn truth(curve: Curve, x: f64) -> f64 {
        let swish = |z: f64| if z < 0.0 { x * z.exp() / (1.0 + z.exp()) } else { x / (1.0 + (-z).exp()) };
        match curve {
            Curve::Identity => x,
            Curve::Relu => x.max(0.0),
            Curve::GeluErf => 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
            Curve::GeluTanh => swish(1.595_769_121_605_730_8 * (x + 0.044_715 * x * x * x)),
            Curve::GeluQuick => swish(1.702 * x),
            Curve::Silu => swish(x),
        }
    }

    #[test]
    fn curves_are_near_the_true_values() {
        let bounds = |curve| if curve == Curve::Silu { 1.75 } else { 0.6 };
        for curve in Curve::ALL {
            let numbers = (0..u32::MAX).step_by(10_007).map(f32::from_bits).filter(|x| x.is_finite());
            for x in numbers.chain((-40_000..40_000).map(|i| i as f32 / 1024.0)) {
                let far = units(curve.at_f32(x), truth(curve, f64::from(x)));
                assert!(far < bounds(curve), "{} of {x:?}: {far} units", curve.name());
            }
        }
    }

    #[test]
    fn ends_and_what_is_no_number() {
        for curve in [Curve::GeluTanh, Curve::GeluErf, Curve::GeluQuick, Curve::Silu] {
            assert_eq!((curve.at_f32(0.0), curve.at_f32(f32::MAX), curve.at_f32(-f32::MAX)), (0.0, f32::MAX, 0.0));
            assert!(curve.at_f32(f32::NAN).is_nan() && curve.at_f32(f32::INFINITY) == f32::INFINITY);
        }
    }
}
