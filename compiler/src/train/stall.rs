//! Whether validation still improves, by more than chance.

use serde::{Deserialize, Serialize};

/// Standard errors on either side of a mean that hold 95 % of a normal distribution.
const DEVIATES: f64 = 1.96;

/// Validations since the last that was better, by more than the 95 % interval of its windows' differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    /// Losses by window at the last improvement; none before the first validation.
    pub losses: Vec<f32>,
    /// Validations since then.
    pub validations: u32,
}

impl Stall {
    /// Takes note of a validation's losses, by window.
    pub fn note(&mut self, losses: &[f32]) {
        if self.losses.len() != losses.len() || is_less(losses, &self.losses) {
            *self = Self { losses: losses.to_vec(), validations: 0 };
        } else {
            self.validations += 1;
        }
    }
}

/// Whether the interval of the mean difference of pairs lies below 0. Of one pair there is no interval.
fn is_less(a: &[f32], b: &[f32]) -> bool {
    let differences = || a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b));
    let count = a.len() as f64;
    let mean = differences().sum::<f64>() / count;
    let squares: f64 = differences().map(|d| (d - mean) * (d - mean)).sum();
    let error = if a.len() > 1 { (squares / (count - 1.0) / count).sqrt() } else { 0.0 };
    mean + DEVIATES * error < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_no_improvement() {
        let mut stall = Stall::default();
        stall.note(&[1.0, 2.0, 3.0]);
        // Better on average, by 0.1, but not beyond its standard error of 0.21.
        stall.note(&[1.3, 1.6, 2.8]);
        assert_eq!(stall.validations, 1);
        stall.note(&[0.9, 1.9, 2.9]);
        assert_eq!(stall, Stall { losses: vec![0.9, 1.9, 2.9], validations: 0 });
        stall.note(&[0.9, 1.9, 2.9]);
        stall.note(&[1.9, 2.9, 2.9]);
        assert_eq!(stall.validations, 2);
    }
}
