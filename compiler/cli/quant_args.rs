//! The options that say what is asked of a conversion.

use clap::{Args, ValueEnum};
use snnc::quant_options::{
    AttentionName, Choices, CodeName, Preset, QuantSpelling, WeightFormat, attention, codes, first_token, neuron,
    phases, rotate, rounding, thresholds, timesteps, weights,
};
use snnc_ir::Diagnostic;
use snnc_ir::membrane::Membrane;
use snnc_passes::options::{FirstToken, PHASES, QuantOptions, Rotate, Rounding, Thresholds, ZeroPoint};

/// Levels and their spelling, site by site.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Conversion")]
pub struct QuantArgs {
    /// A point of the measured front of fidelity and energy, instead of --timesteps (docs/quality.md)
    #[arg(long, value_enum, conflicts_with = "timesteps")]
    preset: Option<PresetName>,
    /// Timesteps of spike trains: `7`, or with overrides by site `4,mlp.hidden=5,h.0=6`
    ///
    /// In a rotated network (--rotate) the head reads one timestep more, unless `head=T` says how many.
    #[arg(long, value_name = "T[,SITE=T...]", default_value = "7", value_parser = timesteps)]
    timesteps: Choices<u16>,
    /// How spikes spell a level, with overrides by site. [default: binary; unary with time-stepped neurons]
    ///
    /// `binary` has sign and magnitude bits: 2^T - 1 levels each way.
    /// `unary` counts spikes: T levels each way.
    /// `st_bif` is unary with neurons that can take a spike back; it is the same as --neuron st_bif.
    #[arg(long, value_name = "CODE[,SITE=CODE...]", value_parser = codes)]
    code: Option<Choices<CodeName>>,
    /// Neurons of unary sites
    #[arg(long, value_name = "NEURON", default_value = "fire", value_parser = neuron_name, long_help = neurons_help())]
    neuron: NeuronName,
    /// Sites that stay dense; what reads them multiplies
    #[arg(long, value_name = "SITE[,SITE...]", value_delimiter = ',')]
    dense: Vec<String>,
    /// What few levels of an activation are centred for: few spikes, or a small error
    #[arg(long, value_enum, default_value = "spikes")]
    centre: CentreName,
    /// Thresholds of what projections read: `fixed`, `normal`, `token`, `heads` or `auto`.
    ///
    /// `fixed` thresholds come from calibration and hold for every token: a neuromorphic chip can run them.
    /// `normal` is the same, but behind norms of a rotated residual stream they need no calibration.
    /// `token` is a per-token threshold: the token's largest magnitude becomes the largest level.
    /// `heads` is the same, and gives q, k and v of each token a threshold per head.
    /// `auto` takes for every site whichever loses less.
    #[arg(long, value_name = "THRESHOLDS", default_value = "auto", value_parser = thresholds)]
    thresholds: Thresholds,
    /// What the token that texts begin with is: `constant`, `computed` or `auto`.
    ///
    /// Massive activations sit on it, and fixed thresholds clip them.
    /// `constant`: the residual stream of that token is computed once, without spikes, and kept in the program.
    /// So is that of tokens whose activations are massive right behind it.
    /// `auto` keeps it where thresholds are fixed and texts begin with one token (--start).
    #[arg(long, value_name = "KIND", default_value = "auto", value_parser = first_token)]
    first_token: FirstToken,
    /// How layers attend, with overrides by layer: `ttfs`, or `ttfs,0-5=linear,h.6=topk:32`.
    ///
    /// Training-free: `ttfs` (softmax by time to first spike), `topk:K` (the same of the K best keys; K is 64 by default) and
    /// `dense` (softmax on reals).
    /// To be trained: `coincidence` (scores are squared counts of coincident spikes), `coincidence:counts` (the counts
    /// themselves), `linear` (a state of fixed size), `lif` (coincidences of LIF neurons) and `lif:spikes` (LIF neurons behind
    /// it as well).
    #[arg(long, value_name = "KIND[,LAYERS=KIND...]", default_value = "ttfs", value_parser = attention)]
    attention: Choices<AttentionName>,
    /// Phases per octave of spiking attention: its softmax has base 2^(1/PHASES)
    #[arg(long, value_name = "PHASES", default_value_t = PHASES, value_parser = phases)]
    phases: u32,
    /// Number format of weights: `i8`, `i4:32`, or `f32` for comparison.
    ///
    /// `i8` has a scale per output.
    /// `i4:32` has 4 bits, and 32 inputs of an output share a multiplier: half the bytes, and more error.
    /// With `f32`, what reads spikes multiplies.
    #[arg(long, value_name = "FORMAT", default_value = "i8", value_parser = weights)]
    weights: WeightFormat,
    /// How weights are rounded: `compensated` or `nearest`.
    ///
    /// `compensated` rounds the inputs of a projection in order. The error of each is made good by those that follow, as far as
    /// they go together with it on the calibration text.
    /// `nearest` rounds every weight on its own.
    #[arg(long, value_name = "ROUNDING", default_value = "compensated", value_parser = rounding)]
    rounding: Rounding,
    /// Table that the embedding reads: the tied head's weight where it is near enough, or a larger one of its own in f32
    #[arg(long, value_enum, default_value = "shared")]
    embedding: EmbeddingName,
    /// What is turned by orthogonal matrices before levels are chosen: `auto`, `none`, or some of `residual,heads,hidden`.
    ///
    /// The network computes the same, but no channel is far larger than the others.
    /// `residual` is the residual stream, `heads` the values of each head of attention, `hidden` what gates of an MLP give.
    /// The first two cost nothing at run time, `hidden` costs additions.
    /// `auto` rotates where that brings the prediction 1.5 times as near on a few windows of the sample as the same number of additions
    /// does without it.
    #[arg(long, value_name = "WHAT", default_value = "auto", value_parser = rotate)]
    rotate: Rotate,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum EmbeddingName {
    Shared,
    Own,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum CentreName {
    Spikes,
    Error,
}

/// `None`: integrate, then fire.
#[derive(Clone, Copy, Debug)]
struct NeuronName(Option<Membrane>);

fn neurons_help() -> String {
    let rows = Membrane::all().map(|membrane| format!("\n`{}`: {}.", membrane.name(), membrane.about()));
    let fire = "`fire` neurons integrate their whole input, then fire, so nothing depends on the order of spikes.";
    let others = "Time-stepped neurons answer within the timestep. They imply --code unary.";
    format!("Neurons of unary sites.\n\n{fire}\n{others}{}", rows.collect::<String>())
}

fn neuron_name(text: &str) -> Result<NeuronName, String> {
    neuron(text).map(NeuronName)
}

/// Points of the front of fidelity and energy.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetName {
    /// Eight timesteps: half the divergence of seven
    Accurate,
    /// Seven timesteps
    Default,
    /// Five timesteps: a third fewer spikes, some percent more perplexity
    Frugal,
}

impl PresetName {
    fn timesteps(self) -> Choices<u16> {
        let preset = match self {
            PresetName::Accurate => Preset::Accurate,
            PresetName::Default => Preset::Default,
            PresetName::Frugal => Preset::Frugal,
        };
        preset.timesteps()
    }
}

impl QuantArgs {
    /// What is asked. Whether sites of these names exist is seen when the network is known.
    ///
    /// # Errors
    /// Two kinds of neurons for unary sites.
    pub fn options(&self) -> Result<QuantOptions, Diagnostic> {
        let spelling = QuantSpelling {
            timesteps: self.preset.map_or_else(|| self.timesteps.clone(), PresetName::timesteps),
            code: self.code.clone(),
            neuron: self.neuron.0,
            dense: self.dense.clone(),
            zero_point: match self.centre {
                CentreName::Spikes => ZeroPoint::Spikes,
                CentreName::Error => ZeroPoint::Error,
            },
            thresholds: self.thresholds,
            first_token: self.first_token,
            attention: self.attention.clone(),
            phases: self.phases,
            weights: self.weights,
            rounding: self.rounding,
            own_embedding: self.embedding == EmbeddingName::Own,
            rotate: self.rotate,
        };
        spelling.options()
    }
}
