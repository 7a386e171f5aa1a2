//! Activation curves: their meaning, and the table by which a neuron evaluates one without a transcendental.

use crate::curve_f32;
use crate::real::Real;

/// A function applied element by element between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Curve {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    GeluTanh,
    /// `0.5 x (1 + erf(x / sqrt 2))`
    GeluErf,
    /// `x sigmoid(1.702 x)`
    GeluQuick,
    /// `x sigmoid(x)`
    Silu,
}

/// The table covers `[-TABLE_REACH, TABLE_REACH]` in steps of `1 / TABLE_DENSITY`; beyond it a curve is a line through 0.
/// Linear interpolation errs by at most `h^2/8 * max|f''| < 2e-6` there, far below half a level of a GELU output.
pub const TABLE_REACH: f32 = 8.0;
/// Samples per unit.
pub const TABLE_DENSITY: f32 = 256.0;
/// Samples, then the slopes below and above the table's reach.
pub const TABLE_LEN: usize = 4097 + 2;

impl Curve {
    /// All of them.
    pub const ALL: [Curve; 6] =
        [Curve::Identity, Curve::Relu, Curve::GeluTanh, Curve::GeluErf, Curve::GeluQuick, Curve::Silu];

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Curve::Identity => "identity",
            Curve::Relu => "relu",
            Curve::GeluTanh => "gelu_tanh",
            Curve::GeluErf => "gelu_erf",
            Curve::GeluQuick => "gelu_quick",
            Curve::Silu => "silu",
        }
    }

    /// The curve of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|curve| curve.name() == name)
    }

    /// The curve at `x`: as engines compute it where they run the type (`at_f32`), by its formula in f64.
    pub fn at<R: Real>(self, x: R) -> R {
        if R::IN_ENGINES { R::from_f32(self.at_f32(x.to_f64() as f32)) } else { self.formula(x) }
    }

    /// The curve at `x` in the order of operations that every engine follows: see `curve_f32`.
    #[inline(always)]
    pub fn at_f32(self, x: f32) -> f32 {
        match self {
            Curve::Identity => x,
            Curve::Relu => {
                if x > 0.0 {
                    x
                } else {
                    0.0
                }
            }
            Curve::GeluTanh => curve_f32::gelu_tanh(x),
            Curve::GeluErf => curve_f32::gelu_erf(x),
            Curve::GeluQuick => curve_f32::gelu_quick(x),
            Curve::Silu => curve_f32::silu(x),
        }
    }

    /// The definition.
    fn formula<R: Real>(self, x: R) -> R {
        let half = R::from_f64(0.5);
        let one = R::from_f64(1.0);
        match self {
            Curve::Identity => x,
            Curve::Relu => {
                if x > R::ZERO {
                    x
                } else {
                    R::ZERO
                }
            }
            Curve::GeluTanh => {
                let cube = x * x * x;
                let t = (R::from_f64(0.797_884_560_802_865_4) * (x + R::from_f64(0.044_715) * cube)).tanh();
                (half * x) * (one + t)
            }
            Curve::GeluErf => (half * x) * (one + (x * R::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf()),
            Curve::GeluQuick => x / (one + (R::from_f64(-1.702) * x).exp()),
            Curve::Silu => x / (one + R::ZERO.sub(x).exp()),
        }
    }

    /// The curve's derivative at `x`.
    pub fn slope<R: Real>(self, x: R) -> R {
        let number = R::from_f64;
        let one = number(1.0);
        // Of `x sigmoid(a x)`.
        let swish = |a: f64| {
            let s = one / (one + (number(-a) * x).exp());
            s + number(a) * x * s * (one - s)
        };
        match self {
            Curve::Identity => one,
            Curve::Relu => {
                if x > R::ZERO {
                    one
                } else {
                    R::ZERO
                }
            }
            Curve::GeluTanh => {
                let inner = number(0.797_884_560_802_865_4) * (x + number(0.044_715) * x * x * x);
                let t = inner.tanh();
                let by_x = number(0.797_884_560_802_865_4) * (one + number(3.0 * 0.044_715) * x * x);
                number(0.5) * (one + t) + number(0.5) * x * (one - t * t) * by_x
            }
            Curve::GeluErf => {
                let whole = number(0.5) * (one + (x * number(std::f64::consts::FRAC_1_SQRT_2)).erf());
                whole + x * number(0.398_942_280_401_432_7) * (number(-0.5) * x * x).exp()
            }
            Curve::GeluQuick => swish(1.702),
            Curve::Silu => swish(1.0),
        }
    }

    /// Slope of the line through 0 that the curve is on beyond the table's reach: below it, above it.
    fn slopes(self) -> (f32, f32) {
        match self {
            Curve::Identity => (1.0, 1.0),
            Curve::Relu | Curve::GeluTanh | Curve::GeluErf | Curve::GeluQuick | Curve::Silu => (0.0, 1.0),
        }
    }

    /// Samples of the curve, computed in f64 and rounded once; then the two slopes.
    pub fn table(self) -> Vec<f32> {
        let samples = (0..TABLE_LEN - 2).map(|i| {
            let x = -f64::from(TABLE_REACH) + i as f64 / f64::from(TABLE_DENSITY);
            self.at(x) as f32
        });
        let (below, above) = self.slopes();
        samples.chain([below, above]).collect()
    }

    /// The curve as a neuron evaluates it: from its `table` where engines run the type, by its formula in f64.
    pub fn by_table<R: Real>(self, table: &[f32], x: R) -> R {
        if R::IN_ENGINES { R::from_f32(look_up(table, x.to_f64() as f32)) } else { self.at(x) }
    }
}

/// The curve whose `table` this is, at `h`: interpolated within the reach, a line through 0 beyond it.
pub fn look_up(table: &[f32], h: f32) -> f32 {
    if h >= TABLE_REACH {
        return h * table[TABLE_LEN - 1];
    }
    if h <= -TABLE_REACH {
        return h * table[TABLE_LEN - 2];
    }
    let s = (h + TABLE_REACH) * TABLE_DENSITY;
    let i = s as usize;
    let fraction = s - i as f32;
    table[i] + fraction * (table[i + 1] - table[i])
}
