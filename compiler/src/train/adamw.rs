//! AdamW (Loshchilov and Hutter 2019) with warm-up, a cosine and clipping. All in f32, in one order: the same bits every time.

use rayon::prelude::*;

/// How parameters move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// At its height.
    pub rate: f32,
    /// Weight decay, as a share of the rate.
    pub weight_decay: f32,
    /// The largest norm of all gradients together; larger ones are scaled down.
    pub clip: f32,
    /// Steps until the rate is at its height.
    pub warm_up: u64,
    /// Steps of the whole schedule.
    pub steps: u64,
}

/// What is left of the rate at the end.
const FLOOR: f32 = 0.03;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn at(&self, step: u64) -> f32 {
        let warm = ((step + 1) as f32 / self.warm_up.max(1) as f32).min(1.0);
        let share = step as f64 / self.steps.max(1) as f64;
        let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * share)) as f32;
        self.rate * warm * (cosine * (1.0 - FLOOR) + FLOOR)
    }
}

/// Running means of gradients and of their squares, by parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Of gradients.
    pub first: Vec<Vec<f32>>,
    /// Of their squares.
    pub second: Vec<Vec<f32>>,
}

impl Moments {
    /// At the start.
    pub fn new(parameters: &[Vec<f32>]) -> Self {
        let zeros = || parameters.iter().map(|p| vec![0.0; p.len()]).collect();
        Self { first: zeros(), second: zeros() }
    }

    /// Moves the parameters by a step, counted from 0. `gradients`: of all parameters one after the other, each to be multiplied by
    /// `share`. Returns their norm before clipping. Parameters are spread over the threads of the pool that calls it.
    pub fn step(
        &mut self,
        parameters: &mut [Vec<f32>],
        (gradients, share): (&[f32], f32),
        rates: &Schedule,
        step: u64,
    ) -> f32 {
        let mut rest = gradients;
        let mut take = |parameter: &Vec<f32>| {
            let (own, after) = rest.split_at(parameter.len());
            rest = after;
            own
        };
        let gradients: Vec<&[f32]> = parameters.iter().map(&mut take).collect();
        // A sum per parameter, so that threads do not show.
        let square = |sum: f64, x: &f32| sum + f64::from(*x * share) * f64::from(*x * share);
        let squares: Vec<f64> = gradients.par_iter().map(|g| g.iter().fold(0.0, square)).collect();
        let norm = squares.iter().sum::<f64>().sqrt() as f32;
        let scale = if norm > rates.clip { rates.clip / norm } else { 1.0 };
        let rate = rates.at(step);
        let power = |beta: f32| 1.0 - libm::pow(f64::from(beta), (step + 1) as f64) as f32;
        let (less_1, less_2) = (power(BETA_1), power(BETA_2));
        let moments = self.first.par_iter_mut().zip(&mut self.second);
        parameters.par_iter_mut().zip(gradients).zip(moments).for_each(|((parameter, gradient), (first, second))| {
            let moments = first.iter_mut().zip(second);
            for ((x, &g), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
                let g = g * share * scale;
                *first = BETA_1 * *first + (1.0 - BETA_1) * g;
                *second = BETA_2 * *second + (1.0 - BETA_2) * g * g;
                let step = (*first / less_1) / ((*second / less_2).sqrt() + EPSILON);
                *x -= rate * (step + rates.weight_decay * *x);
            }
        });
        norm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Schedule = Schedule { rate: 0.1, weight_decay: 0.0, clip: 1.0, warm_up: 4, steps: 100 };

    #[test]
    fn rates_rise_and_fall() {
        let near = |a: f32, b: f32| assert!((a - b).abs() < 1e-6, "{a} and {b}");
        near(RATES.at(0), 0.025);
        near(RATES.at(50), 0.1 * (0.5 * 0.97 + 0.03));
        near(RATES.at(100), 0.003);
    }

    /// The first step is of the rate's size whatever the gradient's, as worked out by hand; a minimum is found.
    #[test]
    fn a_parabola_is_descended() {
        let mut x = vec![vec![3.0f32]];
        let mut moments = Moments::new(&x);
        let rates = Schedule { warm_up: 1, ..RATES };
        for step in 0..100 {
            let gradient = [4.0 * (x[0][0] - 1.0)];
            moments.step(&mut x, (&gradient, 0.5), &rates, step);
            if step == 0 {
                assert!((x[0][0] - 2.9).abs() < 1e-5);
            }
        }
        assert!((x[0][0] - 1.0).abs() < 0.05, "{}", x[0][0]);
    }
}
