//! The options that say what is asked of a conversion: `4,mlp.hidden=5` is a default and an exception.

use clap::{Args, Parser, ValueEnum};
use snnc_ir::membrane::Membrane;
use snnc_ir::ssa::{GUARD, Output, Ssa};
use snnc_ir::{Code, Diagnostic};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, PHASES, PHASES_MOST, QuantOptions, Thresholds, ZeroPoint};

/// Levels and their spelling, site by site.
#[derive(Args, Clone, Debug)]
pub struct WishArgs {
    /// Timesteps of spike trains, with exceptions by site: `7`, or `4,mlp.hidden=5,h.0=6`
    #[arg(long, value_name = "T[,SITE=T...]", default_value = "7", value_parser = timesteps)]
    timesteps: Choices<u16>,
    /// How spikes spell a level: `binary` (sign and magnitude bits, 2^T - 1 levels each way), `unary` (every spike
    /// counts 1, T levels each way), `st_bif` (unary, of neurons that can take a spike back: the same as --neuron st_bif);
    /// with exceptions by site [default: binary; unary with --neuron if and the like]
    #[arg(long, value_name = "CODE[,SITE=CODE...]", value_parser = codes)]
    code: Option<Choices<Spelling>>,
    /// Neurons of unary sites: `fire` integrates its whole input first, so that nothing depends on order; `if` (soft
    /// reset), `if_hard`, `lif` and `st_bif` answer within the timestep [code: unary]
    #[arg(long, value_name = "NEURON", default_value = "fire", value_parser = neuron)]
    neuron: Neuron,
    /// Sites that stay dense; what reads them multiplies
    #[arg(long, value_name = "SITE[,SITE...]", value_delimiter = ',')]
    dense: Vec<String>,
    /// What few levels of an activation's output are centred for: `spikes` (few of them) or `error` (little of it)
    #[arg(long, value_enum, default_value = "spikes")]
    centre: CentreName,
    /// Thresholds behind a LayerNorm: `static`, `token` (one for every token: its largest magnitude is the largest
    /// level), or `auto`, site by site, whichever loses less
    #[arg(long, value_name = "THRESHOLDS", default_value = "auto", value_parser = thresholds)]
    thresholds: Thresholds,
    /// How layers attend, with exceptions by layer: `ttfs`, or `ttfs,0-5=linear,h.6=topk:32`.
    /// Training-free: `ttfs` (softmax by time to first spike), `topk:K` (the same of the K best keys, 64 if not said), `dense`
    /// (softmax on reals). To be trained: `coincidence` (scores are coincident spikes, squared; `coincidence:counts` as they
    /// are), `linear` (a state of fixed size), `lif` (coincidences of LIF neurons; `lif:spikes` with LIF neurons behind it)
    #[arg(long, value_name = "KIND[,LAYERS=KIND...]", default_value = "ttfs", value_parser = attention)]
    attention: Choices<Attention>,
    /// Phases an octave of spiking attention: its softmax has base 2^(1/PHASES)
    #[arg(long, value_name = "PHASES", default_value_t = PHASES, value_parser = clap::value_parser!(u32).range(1..=i64::from(PHASES_MOST)))]
    phases: u32,
    /// What weights are: `i8`; or `f32`, for comparison: what reads spikes then multiplies
    #[arg(long, value_enum, default_value = "i8")]
    weights: Weights,
    /// What the embedding reads: `shared`, a tied head's weight, where that is near enough; or a table of its `own`, larger
    /// and in f32
    #[arg(long, value_enum, default_value = "shared")]
    embedding: Embedding,
}

/// The options that a program was compiled with, as it keeps them: `flags` reversed.
#[derive(Parser, Debug)]
struct Kept {
    #[command(flatten)]
    wishes: WishArgs,
}

/// What was asked of a program, from the options that it keeps, but with attention by time to first spike in all layers.
/// `None` where it says nothing that is understood.
pub fn training_free(options: &str) -> Option<QuantOptions> {
    let kept = Kept::try_parse_from(std::iter::once("snnc").chain(options.split_whitespace())).ok()?;
    let attention = Choices { all: Some(Attention(Some(Ssa::Ttfs { phases: PHASES }))), overrides: Vec::new() };
    WishArgs { attention, ..kept.wishes }.wishes().ok()
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Embedding {
    Shared,
    Own,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum CentreName {
    Spikes,
    Error,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Weights {
    I8,
    F32,
}

/// `None`: integrate, then fire.
#[derive(Clone, Copy, Debug)]
struct Neuron(Option<Membrane>);

/// How a layer attends, as a user names it; phases are said elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attention(Option<Ssa>);

/// Keys that fire where only the best do and nothing else is asked for. Of 256 of WikiText-2, in a 4-layer network that attends
/// widely, perplexity rises by 7 % with 64, by 29 % with 32.
const TOP_KEYS: u32 = 64;

impl Attention {
    const NAMES: &str = "ttfs, topk, topk:K, coincidence, coincidence:counts, linear, lif, lif:spikes, dense";

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("there is no attention `{text}`; there are {}", Self::NAMES);
        Ok(Self(match text.split_once(':').map_or((text, None), |(name, detail)| (name, Some(detail))) {
            ("ttfs", None) => Some(Ssa::Ttfs { phases: PHASES }),
            ("topk", detail) => {
                let keys = detail.map_or(Some(TOP_KEYS), |keys| keys.parse().ok().filter(|&keys| keys > 0));
                Some(Ssa::TopK { phases: PHASES, keys: keys.ok_or_else(wrong)? })
            }
            ("coincidence", None) => Some(Ssa::Coincidence { squared: true }),
            ("coincidence", Some("counts")) => Some(Ssa::Coincidence { squared: false }),
            ("linear", None) => Some(Ssa::Linear { guard: GUARD }),
            ("lif", None) => Some(Ssa::Lif { output: Output::Mean }),
            ("lif", Some("spikes")) => Some(Ssa::Lif { output: Output::Spikes }),
            ("dense", None) => None,
            _ => return Err(wrong()),
        }))
    }

    fn name(self) -> String {
        match self.0 {
            Some(Ssa::TopK { keys, .. }) => format!("topk:{keys}"),
            Some(Ssa::Coincidence { squared: false }) => "coincidence:counts".into(),
            Some(Ssa::Lif { output: Output::Spikes }) => "lif:spikes".into(),
            Some(variant) => variant.name().into(),
            None => "dense".into(),
        }
    }

    fn with_phases(self, phases: u32) -> Option<Ssa> {
        self.0.map(|variant| match variant {
            Ssa::Ttfs { .. } => Ssa::Ttfs { phases },
            Ssa::TopK { keys, .. } => Ssa::TopK { phases, keys },
            Ssa::Coincidence { .. } | Ssa::Linear { .. } | Ssa::Lif { .. } => variant,
        })
    }
}

/// Most layers that a range may name.
const LAYERS_MAX: u32 = 1 << 12;

/// `3`, `0-5` and `h.3` are layers; so that each is a site, ranges are taken apart.
fn attention(text: &str) -> Result<Choices<Attention>, String> {
    let asked = choices(text, Attention::parse)?;
    let mut overrides = Vec::new();
    for (selector, kind) in asked.overrides {
        let (first, last) = selector.split_once('-').unwrap_or((&selector, &selector));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) if first <= last && last < LAYERS_MAX => {
                overrides.extend((first..=last).map(|layer| (format!("h.{layer}"), kind)));
            }
            (Err(_), Err(_)) if !selector.is_empty() => overrides.push((selector, kind)),
            _ => return Err(format!("`{selector}` names no layers: they are written 3, 0-5 or h.3")),
        }
    }
    Ok(Choices { all: asked.all, overrides })
}

/// A code as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    Code(Code),
    /// Ternary spikes of one weight, decoded by neurons that take back what later inputs contradict: the unary code.
    StBif,
}

impl Spelling {
    fn code(self) -> Code {
        match self {
            Spelling::Code(code) => code,
            Spelling::StBif => Code::Unary,
        }
    }
}

fn neuron(text: &str) -> Result<Neuron, String> {
    let names = || Membrane::ALL.map(Membrane::name).join(", ");
    match Membrane::from_name(text) {
        None if text != "fire" => Err(format!("there is no neuron `{text}`; there are fire, {}", names())),
        membrane => Ok(Neuron(membrane)),
    }
}

/// A value for all sites, and others for the sites that selectors mean.
#[derive(Clone, Debug)]
struct Choices<T> {
    all: Option<T>,
    overrides: Vec<(String, T)>,
}

/// `VALUE` and `SITE=VALUE`, by commas.
fn choices<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Choices<T>, String> {
    let mut choices = Choices { all: None, overrides: Vec::new() };
    for entry in text.split(',') {
        match entry.trim().split_once('=') {
            Some((selector, value)) if !selector.is_empty() => {
                choices.overrides.push((selector.to_string(), parse(value)?));
            }
            None if choices.all.is_none() => choices.all = Some(parse(entry.trim())?),
            _ => return Err(format!("`{entry}` is not SITE=VALUE")),
        }
    }
    Ok(choices)
}

fn thresholds(text: &str) -> Result<Thresholds, String> {
    let names = || Thresholds::ALL.map(Thresholds::name).join(", ");
    let found = Thresholds::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("there are no thresholds `{text}`; there are {}", names()))
}

fn timesteps(text: &str) -> Result<Choices<u16>, String> {
    choices(text, |value| {
        let most = Code::Unary.max_steps();
        let number = value.parse::<u16>().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("`{value}` is not a number of timesteps, 1 to {most}"))
    })
}

fn codes(text: &str) -> Result<Choices<Spelling>, String> {
    let st_bif = Membrane::StBif.name();
    let names = || Code::ALL.map(Code::name).join(", ");
    choices(text, |value| match Code::from_name(value) {
        Some(code) => Ok(Spelling::Code(code)),
        None if value == st_bif => Ok(Spelling::StBif),
        None => Err(format!("there is no code `{value}`; there are {}, {st_bif}", names())),
    })
}

impl WishArgs {
    /// Whether sites of these names exist is seen when the network is known.
    ///
    /// # Errors
    /// Two kinds of neurons for unary sites.
    pub fn wishes(&self) -> Result<QuantOptions, Diagnostic> {
        let Levels { code, steps } = Levels::default();
        let asked = self.code.clone().unwrap_or(Choices { all: None, overrides: Vec::new() });
        let membrane = self.membrane(&asked)?;
        // A neuron alone asks for its code; a site's code asks for nothing elsewhere.
        let code = if self.neuron.0.is_some() { Code::Unary } else { code };
        let levels =
            Levels { code: asked.all.map_or(code, Spelling::code), steps: self.timesteps.all.unwrap_or(steps) };
        let codes = asked.overrides.iter().map(|(site, code)| (site.clone(), Override::Code(code.code())));
        let steps = self.timesteps.overrides.iter().map(|(site, steps)| (site.clone(), Override::Steps(*steps)));
        let dense = self.dense.iter().map(|site| (site.clone(), Override::Dense));
        let attention = |kind: Attention| kind.with_phases(self.phases);
        let attends = self.attention.overrides.iter();
        let attends = attends.map(|(site, kind)| (site.clone(), Override::Attention(attention(*kind))));
        let ttfs = Attention(Some(Ssa::Ttfs { phases: PHASES }));
        Ok(QuantOptions {
            levels,
            overrides: codes.chain(steps).chain(dense).chain(attends).collect(),
            membrane,
            zero_point: match self.centre {
                CentreName::Spikes => ZeroPoint::Spikes,
                CentreName::Error => ZeroPoint::Error,
            },
            thresholds: self.thresholds,
            attention: attention(self.attention.all.unwrap_or(ttfs)),
            phases: self.phases,
            exact_weights: self.weights == Weights::F32,
            own_embedding: self.embedding == Embedding::Own,
        })
    }

    /// What the neurons of unary sites are: one kind in a network.
    fn membrane(&self, asked: &Choices<Spelling>) -> Result<Option<Membrane>, Diagnostic> {
        let mut spellings = asked.all.iter().chain(asked.overrides.iter().map(|(_, spelling)| spelling));
        let binary = |spelling: &Spelling| *spelling == Spelling::Code(Code::Binary);
        if let (Some(neuron), true) = (self.neuron.0, asked.all.iter().any(binary) && spellings.clone().all(binary)) {
            let message = format!("no site has the unary code that {} neurons spell", neuron.name());
            return Err(
                Diagnostic::new("--neuron", message).note("leave out --code binary, or give sites the code unary")
            );
        }
        if !spellings.clone().any(|spelling| *spelling == Spelling::StBif) {
            return Ok(self.neuron.0);
        }
        let plain = spellings.any(|spelling| *spelling == Spelling::Code(Code::Unary));
        match self.neuron.0 {
            None if !plain => Ok(Some(Membrane::StBif)),
            Some(Membrane::StBif) => Ok(Some(Membrane::StBif)),
            _ => {
                let message = "unary sites have one kind of neuron, so st_bif is not possible beside another";
                Err(Diagnostic::new("--code", message).note("leave out --neuron, and the code unary"))
            }
        }
    }
}

/// The flags that ask for the same: what a user types to get it.
pub fn flags(wishes: &QuantOptions) -> String {
    let list = |first: String, wanted: &dyn Fn(&Override) -> Option<String>| {
        let more = wishes.overrides.iter().filter_map(|(s, wish)| Some(format!("{s}={}", wanted(wish)?)));
        std::iter::once(first).chain(more).collect::<Vec<_>>().join(",")
    };
    let steps = |wish: &Override| if let Override::Steps(steps) = wish { Some(steps.to_string()) } else { None };
    let code = |wish: &Override| if let Override::Code(code) = wish { Some(code.name().to_string()) } else { None };
    let codes = list(wishes.levels.code.name().to_string(), &code);
    let mut flags = format!("--timesteps {}", list(wishes.levels.steps.to_string(), &steps));
    if codes != Code::Binary.name() {
        flags += &format!(" --code {codes}");
    }
    let dense = wishes.overrides.iter().filter(|(_, wish)| *wish == Override::Dense).map(|(s, _)| s.clone());
    let dense: Vec<String> = dense.collect();
    if !dense.is_empty() {
        flags += &format!(" --dense {}", dense.join(","));
    }
    let attention =
        |wish: &Override| if let Override::Attention(kind) = wish { Some(Attention(*kind).name()) } else { None };
    let attention = list(Attention(wishes.attention).name(), &attention);
    if attention != "ttfs" {
        flags += &format!(" --attention {attention}");
    }
    if let Some(membrane) = wishes.membrane {
        flags += &format!(" --neuron {}", membrane.name());
    }
    if wishes.zero_point == ZeroPoint::Error {
        flags += " --centre error";
    }
    if wishes.thresholds != Thresholds::Auto {
        flags += &format!(" --thresholds {}", wishes.thresholds.name());
    }
    if wishes.phases != PHASES {
        flags += &format!(" --phases {}", wishes.phases);
    }
    if wishes.exact_weights {
        flags += " --weights f32";
    }
    if wishes.own_embedding {
        flags += " --embedding own";
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line asks for, as flags.
    fn asked(line: &str) -> Result<String, String> {
        let words = std::iter::once("snnc").chain(line.split_whitespace());
        let line = Kept::try_parse_from(words).map_err(|e| e.to_string())?;
        line.wishes.wishes().map(|wishes| flags(&wishes)).map_err(|e| e.to_string())
    }

    #[test]
    fn attention_is_chosen_by_layer() {
        let layers = "--timesteps 7 --attention ttfs,h.0=linear,h.1=linear,h.3=topk:5,h.2=dense";
        for line in
            ["--attention 0-1=linear,3=topk:5,h.2=dense", "--attention ttfs,0=linear,1-1=linear,h.3=topk:5,h.2=dense"]
        {
            assert_eq!(asked(line).as_deref(), Ok(layers), "{line}");
        }
        assert_eq!(asked("--attention coincidence").as_deref(), Ok("--timesteps 7 --attention coincidence"));
        for (line, wanted) in [
            ("--attention sigmoid", "there is no attention `sigmoid`; there are ttfs, topk"),
            ("--attention topk:0", "there is no attention `topk:0`"),
            ("--attention 5-0=linear", "`5-0` names no layers"),
            ("--attention 0-=linear", "`0-` names no layers"),
            ("--attention linear,lif", "`lif` is not SITE=VALUE"),
        ] {
            let told = asked(line).expect_err(line);
            assert!(told.contains(wanted), "{line}: {told}");
        }
    }

    #[test]
    fn options_that_a_program_keeps_are_asked_again() {
        let again = |line: &str| training_free(line).map(|wishes| flags(&wishes));
        let kept = asked("--timesteps 4,head=5 --centre error --attention linear,0=lif --phases 4 --embedding own");
        let plain = asked("--timesteps 4,head=5 --centre error --phases 4 --embedding own");
        assert_eq!(again(&kept.expect("it is right")), plain.ok());
        assert_eq!(again("--timesteps many"), None);
    }

    #[test]
    fn st_bif_is_the_unary_code_of_neurons_that_take_spikes_back() {
        let long = "--timesteps 7 --code unary --neuron st_bif";
        for line in ["--code st_bif", "--neuron st_bif", "--code st_bif --neuron st_bif", long] {
            assert_eq!(asked(line).as_deref(), Ok(long), "{line}");
        }
        let site = "--timesteps 7 --code binary,mlp.in=unary --neuron st_bif";
        assert_eq!(asked("--code binary,mlp.in=st_bif").as_deref(), Ok(site));
        for line in ["--code st_bif --neuron if", "--code st_bif,head=unary"] {
            let told = asked(line).expect_err(line);
            assert!(told.contains("one kind of neuron"), "{line}: {told}");
        }
        assert!(asked("--code ternary").expect_err("no code").contains("there are binary, unary, st_bif"));
    }
}
