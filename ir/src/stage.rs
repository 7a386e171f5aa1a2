//! Stages: named sets of legal operations, which the verifier checks.

/// A named set of legal operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// What the file says, shape arithmetic evaluated away.
    Imported,
    /// A transformer in its own words.
    Tensor,
    /// Between norms, levels and integer products.
    Quantised,
    /// Levels spread over timesteps.
    Spiking,
    /// With losses, and gradients by weights: run whole, on one window at a time.
    Training,
}

impl Stage {
    /// All of them, in the order of the compiler.
    pub const ALL: [Stage; 5] = [Stage::Imported, Stage::Tensor, Stage::Quantised, Stage::Spiking, Stage::Training];

    /// How the text form spells it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Imported => "imported",
            Stage::Tensor => "tensor",
            Stage::Quantised => "quantised",
            Stage::Spiking => "spiking",
            Stage::Training => "training",
        }
    }

    /// The stage of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}
