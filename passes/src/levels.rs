//! How many levels a site has, and how spikes spell them.

use snnc_ir::Code;

/// How many levels, and how they are spelled in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// How spikes spell a level.
    pub code: Code,
    /// Timesteps.
    pub steps: u16,
}

impl Default for Levels {
    /// Seven binary steps: levels up to 127 either way, which are int8.
    fn default() -> Self {
        Self { code: Code::Binary, steps: 7 }
    }
}

impl Levels {
    /// The largest level.
    ///
    /// ```
    /// use snnc_ir::Code;
    /// use snnc_passes::levels::Levels;
    ///
    /// assert_eq!(Levels::default().most(), 127);
    /// assert_eq!(Levels { code: Code::Unary, steps: 4 }.most(), 4);
    /// ```
    pub fn most(self) -> i32 {
        self.code.levels(self.steps)
    }

    /// Of twice the timesteps, as far as the code has them. Only a binary code has so many levels.
    pub fn finer(self) -> Self {
        match self.code {
            Code::Binary => Self { steps: (2 * self.steps).min(self.code.max_steps()), ..self },
            Code::Unary => self,
        }
    }
}
