//! How readers of NIR understand a neuron: the same file means another neuron to each of them.
//!
//! NIR defines neurons in continuous time. Readers choose a timestep, and differ in what they compare (`>` or `>=`), in what a
//! spike leaves behind, and in which parameters they read. What is said here was run, bit for bit (`examples/compare/nir.py`).

use crate::nir::{Firing, Leak, NirNode};
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::membrane::Membrane;

/// Seconds of a timestep, as readers assume it.
pub const DT: f64 = 1e-4;

/// The f32 below 1: `v > BELOW_ONE` is `v >= 1`.
const BELOW_ONE: f32 = 1.0 - f32::EPSILON / 2.0;

/// So slow a leak that what is left after a timestep is all of it, in f32.
const NO_LEAK: f32 = 1e20;

/// A reader's understanding of NIR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// NIR by its definition, at a timestep of `DT`.
    Nir,
    /// snnTorch 1.0.
    SnnTorch,
    /// Norse 1.1.
    Norse,
    /// sinabs 3.1.
    Sinabs,
    /// SpikingJelly 2.0.
    SpikingJelly,
}

/// Whether a reader does what the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// The same spikes at every timestep.
    Faithful,
    /// It runs, but spikes differ.
    Approximate,
    /// There are no words for it.
    Unsupported,
}

/// What becomes of a neuron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeuronRating {
    /// Whether its spikes are the program's.
    pub fidelity: Fidelity,
    /// Why they are not.
    pub reason: Option<&'static str>,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 5] =
        [Dialect::Nir, Dialect::SnnTorch, Dialect::Norse, Dialect::Sinabs, Dialect::SpikingJelly];

    /// How an option spells it.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Nir => "nir",
            Dialect::SnnTorch => "snntorch",
            Dialect::Norse => "norse",
            Dialect::Sinabs => "sinabs",
            Dialect::SpikingJelly => "spikingjelly",
        }
    }

    /// The dialect of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.name() == name)
    }

    /// How it understands a neuron.
    pub fn rate(self, membrane: Membrane) -> NeuronRating {
        let rated = |fidelity, reason| NeuronRating { fidelity, reason };
        match (membrane.name(), self) {
            ("if_hard", Dialect::Nir | Dialect::SnnTorch | Dialect::Norse | Dialect::SpikingJelly)
            | ("if", Dialect::Sinabs) => rated(Fidelity::Faithful, None),
            ("if_hard", Dialect::Sinabs) => rated(
                Fidelity::Approximate,
                Some(
                    "a spike subtracts the threshold, and there may be several in a timestep; the program resets to 0",
                ),
            ),
            ("if", Dialect::Nir | Dialect::SnnTorch | Dialect::Norse | Dialect::SpikingJelly) => {
                rated(Fidelity::Approximate, Some("a spike resets to 0; the program subtracts the threshold"))
            }
            _ => rated(Fidelity::Unsupported, Some("no reader has this neuron")),
        }
    }

    /// How the neurons of an island, of these kinds, are written.
    pub fn encoding(self, membranes: &[Membrane]) -> Encoding {
        let subtracts = membranes.iter().all(|membrane| membrane.name() == "if") && !membranes.is_empty();
        if self == Dialect::Sinabs && subtracts { Encoding::Feedback } else { Encoding::Plain }
    }

    /// The node of `width` neurons that integrate, with thresholds of 1.
    pub fn neuron(self, width: usize) -> NirNode {
        let all = |x: f32| vec![x; width];
        let (r, threshold) = match self {
            Dialect::Nir => (1.0 / DT as f32, BELOW_ONE),
            Dialect::Norse => (1.0, BELOW_ONE),
            Dialect::SpikingJelly => (1.0 / DT as f32, 1.0),
            Dialect::SnnTorch => (NO_LEAK / DT as f32, BELOW_ONE),
            Dialect::Sinabs => (1.0, 1.0),
        };
        let slow = |r: f32| Leak { tau: all(NO_LEAK), r: all(r), rest: all(0.0) };
        match self {
            Dialect::Nir | Dialect::Norse | Dialect::SpikingJelly => {
                NirNode::If { r: all(r), firing: Firing::to_zero(all(threshold)) }
            }
            // Their own IF leaks, or has a floor.
            Dialect::SnnTorch | Dialect::Sinabs => {
                NirNode::Lif { leak: slow(r), firing: Firing::to_zero(all(threshold)) }
            }
        }
    }
}

/// How neurons are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One node.
    Plain,
    /// A potential without a threshold, what it says, and an edge back that subtracts it in a timestep of its own: for readers that
    /// spike as often in a timestep as the threshold fits into the potential.
    Feedback,
}

impl Encoding {
    /// Channels behind those of the program. `one` is 1 in the program's timesteps, `odd` in those between them, `start` before the first.
    pub fn lines(self) -> &'static [&'static str] {
        match self {
            Encoding::Plain => &["one", "start"],
            Encoding::Feedback => &["one", "odd", "start"],
        }
    }

    /// Timesteps of the reader per timestep of the program.
    pub fn stride(self) -> usize {
        match self {
            Encoding::Plain => 1,
            Encoding::Feedback => 2,
        }
    }

    /// Where a line is among the lines.
    pub fn line(self, name: &str) -> usize {
        self.lines().iter().position(|line| *line == name).unwrap_or(0)
    }
}

/// The nodes of neurons by `Encoding::Feedback`, in order, and an edge beside that order. `width` has the lines.
pub fn feedback(i: usize, width: usize) -> (Vec<(String, NirNode)>, [String; 2]) {
    /// A threshold that only an offset reaches.
    const HIGH: f32 = 1_048_576.0;
    /// A time constant that leaves nothing of a potential to the next timestep.
    const NO_MEMORY: f32 = 1e-3;
    let all = |x: f32| vec![x; width];
    let diagonal = |x: f32| {
        let mut weight = vec![0.0; width * width];
        (0..width).for_each(|k| weight[k * width + k] = x);
        weight
    };
    let lines = Encoding::Feedback.lines().len();
    let channels = width - lines;
    let odd = channels + Encoding::Feedback.line("odd");
    let mut offsets = diagonal(1.0);
    (0..channels).for_each(|k| offsets[k * width + odd] = -2.0 * HIGH);
    let leak = |tau: f32| Leak { tau: all(tau), r: all(1.0), rest: all(0.0) };
    let said = |threshold: f32| NirNode::Lif { leak: leak(NO_MEMORY), firing: Firing::to_zero(all(threshold)) };
    let nodes = vec![
        (format!("v{i}"), NirNode::Li { leak: leak(NO_LEAK) }),
        (format!("k{i}"), said(1.0)),
        (format!("p{i}"), NirNode::Affine { weight: offsets, bias: all(HIGH) }),
        (format!("n{i}"), said(HIGH + 1.0)),
        (format!("b{i}"), NirNode::Affine { weight: diagonal(-1.0), bias: all(0.0) }),
    ];
    (nodes, [format!("b{i}"), format!("v{i}")])
}
