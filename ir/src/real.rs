//! The real numbers that programs are evaluated in: f32, which they mean, and f64.

use std::fmt::Debug;

/// The arithmetic that `eval` needs of a real number. Transcendentals are the `libm` crate's, the same everywhere.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    /// 0.
    const ZERO: Self;
    /// The nearest.
    fn from_f32(x: f32) -> Self;
    /// The nearest.
    fn from_f64(x: f64) -> Self;
    /// The nearest.
    fn from_i32(x: i32) -> Self;
    /// The nearest.
    fn from_i64(x: i64) -> Self;
    /// Exactly.
    fn to_f64(self) -> f64;
    /// Toward zero.
    fn truncate(self) -> i32;
    /// The largest whole number that is not above it.
    fn floor(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Natural exponential.
    fn exp(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// Power.
    fn pow(self, exponent: Self) -> Self;
    /// Whether engines run this type: curves are then evaluated as they do it, neurons' by table, and not by formula.
    const IN_ENGINES: bool;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const IN_ENGINES: bool = true;
    fn from_f32(x: f32) -> f32 {
        x
    }
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    fn from_i32(x: i32) -> f32 {
        x as f32
    }
    fn from_i64(x: i64) -> f32 {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn truncate(self) -> i32 {
        self as i32
    }
    fn floor(self) -> Self {
        self.floor()
    }
    fn sqrt(self) -> f32 {
        self.sqrt()
    }
    fn ln(self) -> f32 {
        libm::logf(self)
    }
    fn exp(self) -> f32 {
        libm::expf(self)
    }
    fn tanh(self) -> f32 {
        libm::tanhf(self)
    }
    fn erf(self) -> f32 {
        libm::erff(self)
    }
    fn pow(self, exponent: f32) -> f32 {
        libm::powf(self, exponent)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const IN_ENGINES: bool = false;
    fn from_f32(x: f32) -> f64 {
        f64::from(x)
    }
    fn from_f64(x: f64) -> f64 {
        x
    }
    fn from_i32(x: i32) -> f64 {
        f64::from(x)
    }
    fn from_i64(x: i64) -> f64 {
        x as f64
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn truncate(self) -> i32 {
        self as i32
    }
    fn floor(self) -> Self {
        self.floor()
    }
    fn sqrt(self) -> f64 {
        self.sqrt()
    }
    fn ln(self) -> f64 {
        libm::log(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn tanh(self) -> f64 {
        libm::tanh(self)
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
    fn pow(self, exponent: f64) -> f64 {
        libm::pow(self, exponent)
    }
}
