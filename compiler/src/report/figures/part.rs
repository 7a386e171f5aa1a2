//! The parts of the page, which figures are sorted into.

/// A part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagePart {
    /// Several programs side by side.
    Runs,
    /// What tuning found.
    Front,
    /// What training did.
    Training,
    /// Spikes.
    Spikes,
    /// Levels.
    Levels,
    /// Energy.
    Energy,
    /// Where the error comes from.
    Errors,
    /// The text, token by token.
    Text,
}

impl PagePart {
    /// The part's name in links.
    pub fn id(self) -> &'static str {
        match self {
            PagePart::Runs => "runs",
            PagePart::Front => "front",
            PagePart::Training => "training",
            PagePart::Spikes => "spikes",
            PagePart::Levels => "levels",
            PagePart::Energy => "energy",
            PagePart::Errors => "errors",
            PagePart::Text => "text",
        }
    }
}
