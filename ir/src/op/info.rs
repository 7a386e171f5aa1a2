//! The table of operations: one row each, made by the operation's dialect.

use crate::stage::Stage;
use std::ops::Range;

/// What everything but an operation's types and meaning follows from. A row is written as
/// `OpInfo::new("linear", 3, TQS).parameters(1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpInfo {
    /// The spelling's first word.
    pub name: &'static str,
    /// How many operands it takes.
    pub arity: usize,
    /// The stages in which it may stand.
    pub stages: &'static [Stage],
    /// Operands that are part of the program, not of its data: after import and before training they are constants.
    pub parameters: Range<usize>,
    /// Whether it keeps something of the tokens between calls.
    pub has_state: bool,
    /// Whether it is a layer of neurons.
    pub is_neuron: bool,
    /// What its attributes should be, where they are not.
    pub fault: Option<&'static str>,
}

/// Everywhere.
pub const ITQS: &[Stage] = &Stage::ALL;
/// What exporters write.
pub const I: &[Stage] = &[Stage::Imported];
/// What the gradient pass knows the derivative of, besides.
pub const I_TRAINING: &[Stage] = &[Stage::Imported, Stage::Training];
/// By a per-token threshold.
pub const IQS: &[Stage] = &[Stage::Imported, Stage::Quantised, Stage::Spiking, Stage::Training];
/// What a site that is left dense keeps.
pub const TQS: &[Stage] = &[Stage::Tensor, Stage::Quantised, Stage::Spiking];
/// The same, with a derivative.
pub const TQS_TRAINING: &[Stage] = &[Stage::Tensor, Stage::Quantised, Stage::Spiking, Stage::Training];
/// Where time is collapsed.
pub const Q: &[Stage] = &[Stage::Quantised];
/// Of levels and of spikes.
pub const QS: &[Stage] = &[Stage::Quantised, Stage::Spiking];
/// The same, with a derivative.
pub const QS_TRAINING: &[Stage] = &[Stage::Quantised, Stage::Spiking, Stage::Training];
/// Where time is spread.
pub const S: &[Stage] = &[Stage::Spiking];
/// Losses and derivatives.
pub const TRAINING: &[Stage] = &[Stage::Training];

impl OpInfo {
    /// An operation of `arity` operands that is legal in `stages`.
    pub fn new(name: &'static str, arity: usize, stages: &'static [Stage]) -> Self {
        Self { name, arity, stages, parameters: 0..0, has_state: false, is_neuron: false, fault: None }
    }

    /// Operands from `first` on are parameters.
    #[must_use]
    pub fn parameters(mut self, first: usize) -> Self {
        self.parameters = first..self.arity;
        self
    }

    /// It keeps something of the tokens between calls.
    #[must_use]
    pub fn state(mut self) -> Self {
        self.has_state = true;
        self
    }

    /// It is a layer of neurons.
    #[must_use]
    pub fn neuron(mut self) -> Self {
        self.is_neuron = true;
        self
    }

    /// Its attributes should have `what`.
    #[must_use]
    pub fn expect(mut self, sound: bool, what: &'static str) -> Self {
        self.fault = (!sound).then_some(what);
        self
    }
}
