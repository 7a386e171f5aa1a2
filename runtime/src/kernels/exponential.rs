//! `exp` of a row of numbers that are not positive: the bits of `libm::expf`, without branches, so that vectors fit.
//!
//! The method is FreeBSD's (`e_expf.c`): `x = k ln 2 + r`, a rational approximation of `exp(r)`, a power of two. Softmax
//! subtracts the row's maximum first, so nothing is positive.

const LN2_HIGH: f32 = 6.931_457_5e-1;
const LN2_LOW: f32 = 1.428_606_8e-6;
const INVERSE_LN2: f32 = std::f32::consts::LOG2_E;
const P1: f32 = 1.666_662_5e-1;
const P2: f32 = -2.766_733_3e-3;
/// Bits of the magnitudes between which the method changes: 1/2 ln 2, 3/2 ln 2, 2^-14, and where the result is 0.
const HALF_LN2: u32 = 0x3eb1_7218;
const THREE_HALVES_LN2: u32 = 0x3f85_1592;
const TINY: u32 = 0x3900_0000;
const UNDERFLOW: u32 = 0x42cf_f1b5;
/// Powers below this take two factors, the first of which leaves a normal number.
const LEAST_POWER: i32 = -100;

/// Every `x`, none positive, becomes `exp(x)`; NaN stays.
#[inline(always)]
pub(super) fn exponentials(row: &mut [f32]) {
    row.iter_mut().for_each(|x| *x = exponential(*x));
}

#[inline(always)]
pub(super) fn exponential(x: f32) -> f32 {
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let far = if x > -104.0 { x } else { -104.0 };
    // SAFETY: `far` is at most 0 and at least -104, so this is from -151 to 0. Test: `exponential_is_libm`.
    let power = unsafe { (INVERSE_LN2 * far - 0.5).to_int_unchecked::<i32>() };
    let power = if magnitude > THREE_HALVES_LN2 { power } else { -1 };
    let power = if magnitude > HALF_LN2 { power } else { 0 };
    let k = power as f32;
    let high = x - k * LN2_HIGH;
    let low = k * LN2_LOW;
    let r = high - low;
    let square = r * r;
    let c = r - square * (P1 + square * P2);
    let y = 1.0 + (r * c / (2.0 - c) - low + high);
    let first = if power > LEAST_POWER { power } else { LEAST_POWER };
    let y = y * power_of_two(first) * power_of_two(power - first);
    let y = if magnitude > TINY { y } else { 1.0 + x };
    let y = if magnitude >= UNDERFLOW { 0.0 } else { y };
    if x.is_nan() { x } else { y }
}

#[inline(always)]
fn power_of_two(k: i32) -> f32 {
    f32::from_bits(((k + 127) as u32) << 23)
}
