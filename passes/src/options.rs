//! What a user asks of a conversion: levels for all sites, exceptions by site, kinds of attention and thresholds.
//!
//! Nothing is chosen here: `fit` chooses levels that these options allow.

use crate::features;
use crate::levels::Levels;
use crate::sites::{self, Role, SiteValue, selects};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::DenseOp;
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Code, Diagnostic, Graph, Op};

/// What a user asks of the sites that a selector means.
#[derive(Clone, Debug, PartialEq)]
pub enum Override {
    /// Another number of timesteps.
    Steps(u16),
    /// Another code.
    Code(Code),
    /// No levels: what reads it stays a multiplication.
    Dense,
    /// How a layer attends; `None` with softmax, on reals.
    Attention(Option<Ssa>),
}

/// What is asked of a conversion: levels for all sites, and exceptions, of which the later ones win.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantOptions {
    /// The levels of sites without an override.
    pub levels: Levels,
    /// Selectors of sites or layers, and what they have instead; later ones win.
    pub overrides: Vec<(String, Override)>,
    /// What zero points are chosen for.
    pub zero_point: ZeroPoint,
    /// Neurons of unary sites are time-stepped.
    pub membrane: Option<Membrane>,
    /// Of what projections read.
    pub thresholds: Thresholds,
    /// How layers attend; `None` with softmax, on reals.
    pub attention: Option<Ssa>,
    /// Phases an octave of time-to-first-spike attention.
    pub phases: u32,
    /// Weights stay f32, for comparison: what reads levels then multiplies.
    pub exact_weights: bool,
    /// What becomes of the token that texts begin with.
    pub first_token: FirstToken,
    /// Weights are of 4 bits, and so many inputs share a multiplier; without it they are int8.
    pub weight_group: Option<u16>,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Whether the embedding keeps its table where it might read a tied head's weight.
    pub own_embedding: bool,
    /// What is turned by orthogonal matrices before levels are chosen.
    pub rotate: Rotate,
}

/// Phases an octave of time-to-first-spike attention: weights within 4.4 % of the exact exponential, unbiased.
pub const PHASES: u32 = 8;

/// The most phases an octave: their table has fewer than 1024 entries.
pub const PHASES_MOST: u32 = 64;

impl Default for QuantOptions {
    fn default() -> Self {
        Self::uniform(Levels::default())
    }
}

impl QuantOptions {
    /// The same levels everywhere.
    pub fn uniform(levels: Levels) -> Self {
        Self {
            levels,
            overrides: Vec::new(),
            zero_point: ZeroPoint::default(),
            membrane: None,
            thresholds: Thresholds::default(),
            attention: Some(Ssa::Ttfs { phases: PHASES }),
            phases: PHASES,
            exact_weights: false,
            first_token: FirstToken::default(),
            weight_group: None,
            rounding: Rounding::default(),
            own_embedding: false,
            rotate: Rotate::default(),
        }
    }

    /// How a layer attends; `None` with softmax, on reals.
    ///
    /// ```
    /// use snnc_ir::ssa::Ssa;
    /// use snnc_passes::levels::Levels;
    /// use snnc_passes::options::{Override, QuantOptions};
    ///
    /// let overrides = vec![("h.1".to_string(), Override::Attention(Some(Ssa::Linear { guard: 8 })))];
    /// let options = QuantOptions { overrides, ..QuantOptions::uniform(Levels::default()) };
    /// assert_eq!(options.attention(0), Some(Ssa::Ttfs { phases: 8 }));
    /// assert_eq!(options.attention(1), Some(Ssa::Linear { guard: 8 }));
    /// ```
    pub fn attention(&self, layer: u32) -> Option<Ssa> {
        let path = attention_path(layer);
        let asked = |(selector, wanted): &(String, Override)| match wanted {
            Override::Attention(variant) if selects(selector, &path) => Some(*variant),
            Override::Attention(_) | Override::Steps(_) | Override::Code(_) | Override::Dense => None,
        };
        self.overrides.iter().rev().find_map(asked).unwrap_or(self.attention)
    }

    /// The levels of a site, or of its features where attention has such; `None` where it stays dense.
    pub fn of(&self, site: &SiteValue) -> Option<Levels> {
        let path = site.to_string();
        let attention = site.layer.map(|layer| self.attention(layer));
        let few = |variant| features::levels(variant, Levels { steps: features::STEPS, ..self.levels });
        let base = match (site.role, attention) {
            (Role::Query | Role::Key | Role::Value, Some(None)) => return None,
            (Role::Query | Role::Key, Some(Some(variant))) if variant.has_features() => few(variant),
            (Role::Value, Some(Some(variant @ Ssa::Lif { output: Output::Spikes }))) => few(variant),
            (Role::Head, _) => self.head_levels(),
            _ => self.levels,
        };
        let mut levels = Some(base);
        for (_, wanted) in self.overrides.iter().filter(|(selector, _)| selects(selector, &path)) {
            let known = levels.unwrap_or(base);
            levels = match *wanted {
                Override::Steps(steps) => Some(Levels { steps, ..known }),
                Override::Code(code) => Some(Levels { code, ..known }),
                Override::Dense => None,
                Override::Attention(_) => levels,
            };
        }
        levels
    }

    /// The same, with as many timesteps at the head as elsewhere where no override names it.
    pub fn with_plain_head(&self, graph: &Graph) -> Self {
        let has_head = sites::sites(graph).iter().any(|site| site.role == Role::Head);
        let plain = has_head.then(|| (Role::Head.path().to_string(), Override::Steps(self.levels.steps)));
        Self { overrides: plain.into_iter().chain(self.overrides.iter().cloned()).collect(), ..self.clone() }
    }

    /// The levels that the head reads where no override names it. Its errors go straight into the logits, and it is one site of many: in a
    /// rotated network, where no other site stands out, one more timestep there is worth most.
    fn head_levels(&self) -> Levels {
        let Levels { code, steps } = self.levels;
        let finer = code == Code::Binary && steps < code.max_steps() && self.rotate.named().residual;
        if finer { Levels { steps: steps + 1, code } } else { self.levels }
    }

    /// # Errors
    /// A selector that means no site; more timesteps than a code has.
    pub fn check(&self, graph: &Graph) -> Result<(), Diagnostic> {
        let sites = sites::sites(graph);
        let layers =
            graph.nodes.iter().filter(|node| matches!(node.op, Op::Dense(DenseOp::Attention { .. }))).count() as u32;
        self.check_windows(graph)?;
        self.check_membrane(graph, &sites)?;
        for (selector, wanted) in &self.overrides {
            if let Override::Attention(_) = wanted {
                if !(0..layers).any(|layer| selects(selector, &attention_path(layer))) {
                    let message = "names no attention of this network";
                    let known = format!("layers are 0 to {}, in words h.0.attention and so on", layers.max(1) - 1);
                    return Err(Diagnostic::new(selector, message).note(known));
                }
                continue;
            }
            if !sites.iter().any(|site| selects(selector, &site.to_string())) {
                let known = sites.iter().map(SiteValue::to_string).collect::<Vec<_>>().join(", ");
                return Err(Diagnostic::new(selector, "names no site of this network").note(format!("sites: {known}")));
            }
        }
        for site in &sites {
            let variant = site.layer.and_then(|layer| self.attention(layer)).filter(|variant| variant.has_features());
            let Some(Levels { code, steps }) = self.of(site) else {
                let emits = variant == Some(Ssa::Lif { output: Output::Spikes }) && site.role == Role::AttentionOut;
                let reads = matches!(site.role, Role::Query | Role::Key | Role::Value);
                if let Some(variant) = variant.filter(|_| emits || reads) {
                    let message = format!("cannot stay dense: `{}` attention is of spikes", variant.name());
                    let advice = "let the layer attend by ttfs, or dense";
                    return Err(Diagnostic::new(site.to_string(), message).note(advice));
                }
                continue;
            };
            if !(1..=code.max_steps()).contains(&steps) {
                let most = code.max_steps();
                let message = format!("{} code has at most {most} timesteps, here are {steps}", code.name());
                return Err(Diagnostic::new(site.to_string(), message));
            }
        }
        Ok(())
    }
}

impl QuantOptions {
    /// Refuses attention that keeps sums of all keys, or weighs all by their age, where a window lets a token see the last of them
    /// alone.
    fn check_windows(&self, graph: &Graph) -> Result<(), Diagnostic> {
        let attentions = graph.nodes.iter().filter_map(|node| match node.op {
            Op::Dense(DenseOp::Attention { heads, .. }) => Some(heads.window),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => None,
        });
        for (layer, window) in (0..).zip(attentions) {
            let asked = self.attention(layer).filter(|variant| variant.has_features());
            if let (Some(window), Some(variant)) = (window, asked) {
                let message = format!("cannot attend by `{}`: a token sees {window} tokens there", variant.name());
                let advice = "only ttfs, topk and dense have windows: leave the layer at one of them";
                return Err(Diagnostic::new(attention_path(layer), message).note(advice));
            }
        }
        Ok(())
    }

    /// Refuses time-stepped neurons where all that might have them multiply what a gate lets through.
    fn check_membrane(&self, graph: &Graph, sites: &[SiteValue]) -> Result<(), Diagnostic> {
        let Some(membrane) = self.membrane else { return Ok(()) };
        let mut unary = sites.iter().filter(|site| self.of(site).is_some_and(|levels| levels.code == Code::Unary));
        let is_gated = |site: &SiteValue| matches!(graph.node(site.value).op, Op::Dense(DenseOp::Gated(_)));
        let Some(first) = unary.clone().next() else { return Ok(()) };
        if unary.any(|site| !is_gated(site)) {
            return Ok(());
        }
        let message = format!("cannot have {} neurons: it multiplies, so its neurons integrate first", membrane.name());
        let advice = "give another site the unary code, or leave out the neuron";
        Err(Diagnostic::new(first.to_string(), message).note(advice))
    }
}

/// What a layer's attention is called.
fn attention_path(layer: u32) -> String {
    format!("h.{layer}.attention")
}

/// What the thresholds of neurons are that projections read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Thresholds {
    /// Site by site, whichever loses less on the sample; for every token only where that is far less.
    #[default]
    Auto,
    /// One per channel, whatever the token: what a neuromorphic chip can run.
    Fixed,
    /// The same; but behind the norms of a rotated residual stream, where every channel is nearly normal with variance 1 whatever the
    /// text, they need no calibration.
    Normal,
    /// One per channel, times one per token: the token's largest magnitude is the largest level. q, k and v are left out.
    Token,
    /// The same, and at q, k and v one per token and head, where attention is by time to first spike.
    Heads,
}

impl Thresholds {
    /// All of them, in the order of the help text.
    pub const ALL: [Thresholds; 5] =
        [Thresholds::Auto, Thresholds::Fixed, Thresholds::Normal, Thresholds::Token, Thresholds::Heads];

    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            Thresholds::Auto => "auto",
            Thresholds::Fixed => "fixed",
            Thresholds::Normal => "normal",
            Thresholds::Token => "token",
            Thresholds::Heads => "heads",
        }
    }

    /// Whether nothing depends on a token's maximum.
    pub fn are_fixed(self) -> bool {
        match self {
            Thresholds::Fixed | Thresholds::Normal => true,
            Thresholds::Auto | Thresholds::Token | Thresholds::Heads => false,
        }
    }
}

/// What becomes of the token that texts begin with. Massive activations sit there, and fixed thresholds clip them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstToken {
    /// A constant, where texts begin with one token and thresholds are fixed.
    #[default]
    Auto,
    /// What it makes of the residual stream is computed once, without spikes, and kept.
    Constant,
    /// As every other token.
    Computed,
}

impl FirstToken {
    /// All of them, in the order of the help text.
    pub const ALL: [FirstToken; 3] = [FirstToken::Auto, FirstToken::Constant, FirstToken::Computed];

    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            FirstToken::Auto => "auto",
            FirstToken::Constant => "constant",
            FirstToken::Computed => "computed",
        }
    }
}

/// How weights are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Input by input, what the errors before it come to added: outputs on sample text are nearer.
    #[default]
    Compensated,
    /// Each weight to the nearest.
    Nearest,
}

impl Rounding {
    /// All of them.
    pub const ALL: [Rounding; 2] = [Rounding::Compensated, Rounding::Nearest];

    /// The name that options use.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::Compensated => "compensated",
            Rounding::Nearest => "nearest",
        }
    }
}

/// What the centre of a code is chosen for, where levels are few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPoint {
    /// Few spikes: beside the median, where most neurons are silent, only if that loses much less.
    #[default]
    Spikes,
    /// Little error: wherever it is least.
    Error,
}

impl ZeroPoint {
    /// The share of the error around the median that is little enough for a centre beside it. Measured on a trained GPT-2
    /// at 3 to 6 timesteps: .3 has a quarter more divergence than .8, and 30 % fewer spikes.
    pub fn worth(self) -> f32 {
        match self {
            ZeroPoint::Spikes => 0.3,
            ZeroPoint::Error => 0.8,
        }
    }
}

/// What of a network is turned by orthogonal matrices, so that no channel is far larger than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotations {
    /// The residual stream, as a whole.
    pub residual: bool,
    /// The values of attention, head by head.
    pub heads: bool,
    /// What gates of an MLP give, while the network runs.
    pub hidden: bool,
}

impl Rotations {
    /// What users call them, in the order of the help text.
    pub const NAMES: [&str; 3] = ["residual", "heads", "hidden"];

    /// Which of `NAMES` they are.
    pub fn names(self) -> Vec<&'static str> {
        let are = [self.residual, self.heads, self.hidden];
        Self::NAMES.into_iter().zip(are).filter(|(_, is)| *is).map(|(name, _)| name).collect()
    }

    /// Those of these names; `None` where a name is of none.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().try_fold(Self::default(), |all, name| match name {
            "residual" => Some(Self { residual: true, ..all }),
            "heads" => Some(Self { heads: true, ..all }),
            "hidden" => Some(Self { hidden: true, ..all }),
            _ => None,
        })
    }
}

/// What a user asks to be rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotate {
    /// What can be, where levels are then far nearer on the sample for as many additions.
    #[default]
    Auto,
    /// These and no others.
    These(Rotations),
}

impl Rotate {
    /// What is named to be rotated.
    pub fn named(self) -> Rotations {
        match self {
            Rotate::Auto => Rotations::default(),
            Rotate::These(rotations) => rotations,
        }
    }
}
