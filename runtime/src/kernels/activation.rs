//! Curves: by table, what potentials go through before they become levels; or as they are, where a product follows.

/// A curve by table: `g = table(x * gain + offset)`.
#[derive(Clone, Copy, Debug)]
pub struct ActivationTable<'a> {
    pub gain: &'a [f32],
    pub offset: &'a [f32],
    /// Samples from -8 to 8, 256 to the unit, ends included; then the slopes of the lines through 0 below and above.
    pub table: &'a [f32],
}

pub(super) const REACH: f32 = 8.0;
pub(super) const DENSITY: f32 = 256.0;
pub(super) const SAMPLES: usize = 4097;
/// The last sample, as a number.
pub(super) const LAST: f32 = (SAMPLES - 1) as f32;
/// Numbers that go through the curve at once.
pub(super) const BLOCK: usize = 16;

/// Samples of a curve, and the two slopes.
pub(super) type Samples = [f32; SAMPLES + 2];

/// The curve at `h`: interpolated within the reach, a line through 0 beyond it.
#[inline(always)]
pub(super) fn curve_at(table: &Samples, h: f32) -> f32 {
    if h >= REACH {
        return h * table[SAMPLES + 1];
    }
    if h <= -REACH {
        return h * table[SAMPLES];
    }
    let at = sample(h);
    let (left, right) = (table[at as usize], table[at as usize + 1]);
    left + ((h + REACH) * DENSITY - at as f32) * (right - left)
}

/// The sample below `h`; the last one just below the reach, where the sum rounds up to it.
#[inline(always)]
fn sample(h: f32) -> i32 {
    let s = (h + REACH) * DENSITY;
    let s = if s > 0.0 { s } else { 0.0 };
    let s = if s < LAST { s } else { LAST };
    // SAFETY: from 0 to 4096 by the two lines above; a NaN fails the first comparison. Test: `extreme_potentials`.
    unsafe { s.to_int_unchecked::<i32>() }
}

/// Evaluates an expression with `$f` as the function of each curve: a loop of its own for every one, without a choice in it.
macro_rules! with_curve {
    ($curve:expr, $f:ident, $body:expr) => {
        match $curve {
            Curve::Identity => {
                let $f = |x: f32| Curve::Identity.at_f32(x);
                $body
            }
            Curve::Relu => {
                let $f = |x: f32| Curve::Relu.at_f32(x);
                $body
            }
            Curve::GeluTanh => {
                let $f = |x: f32| Curve::GeluTanh.at_f32(x);
                $body
            }
            Curve::GeluErf => {
                let $f = |x: f32| Curve::GeluErf.at_f32(x);
                $body
            }
            Curve::GeluQuick => {
                let $f = |x: f32| Curve::GeluQuick.at_f32(x);
                $body
            }
            Curve::Silu => {
                let $f = |x: f32| Curve::Silu.at_f32(x);
                $body
            }
        }
    };
}
pub(super) use with_curve;
