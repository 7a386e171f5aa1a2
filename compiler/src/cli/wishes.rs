//! The options that say what is asked of a conversion: `4,mlp.hidden=5` is a default and an exception.

use clap::{Args, ValueEnum};
use snnc_ir::Code;
use snnc_ir::membrane::Membrane;
use snnc_passes::fit::{Centre, Levels, PHASES, Thresholds, Wish, Wishes};

/// Levels and their spelling, site by site.
#[derive(Args, Clone, Debug)]
pub struct WishArgs {
    /// Timesteps of spike trains, with exceptions by site: `7`, or `4,mlp.hidden=5,h.0=6`
    #[arg(long, value_name = "T[,SITE=T...]", default_value = "7", value_parser = timesteps)]
    timesteps: Choices<u16>,
    /// How spikes spell a level: `binary` (sign and magnitude bits, 2^T - 1 levels each way), `unary` (every spike
    /// counts 1, T levels each way); with exceptions by site [default: binary; unary with --neuron if and the like]
    #[arg(long, value_name = "CODE[,SITE=CODE...]", value_parser = codes)]
    code: Option<Choices<Code>>,
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
    /// Phases an octave of spiking attention: its softmax has base 2^(1/PHASES)
    #[arg(long, value_name = "PHASES", default_value_t = PHASES, value_parser = clap::value_parser!(u32).range(1..=64))]
    phases: u32,
    /// What weights are: `i8`; or `f32`, for comparison: what reads spikes then multiplies
    #[arg(long, value_enum, default_value = "i8")]
    weights: Weights,
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
    exceptions: Vec<(String, T)>,
}

/// `VALUE` and `SITE=VALUE`, by commas.
fn choices<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Choices<T>, String> {
    let mut choices = Choices { all: None, exceptions: Vec::new() };
    for entry in text.split(',') {
        match entry.trim().split_once('=') {
            Some((selector, value)) if !selector.is_empty() => {
                choices.exceptions.push((selector.to_string(), parse(value)?));
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

fn codes(text: &str) -> Result<Choices<Code>, String> {
    let names = || Code::ALL.map(Code::name).join(", ");
    choices(text, |value| {
        Code::from_name(value).ok_or_else(|| format!("there is no code `{value}`; there are {}", names()))
    })
}

impl WishArgs {
    /// Whether sites of these names exist is seen when the network is known.
    pub fn wishes(&self) -> Wishes {
        let Levels { code, steps } = Levels::default();
        let code = if self.neuron.0.is_some() { Code::Unary } else { code };
        let asked = self.code.clone().unwrap_or(Choices { all: None, exceptions: Vec::new() });
        let levels = Levels { code: asked.all.unwrap_or(code), steps: self.timesteps.all.unwrap_or(steps) };
        let codes = asked.exceptions.iter().map(|(site, code)| (site.clone(), Wish::Code(*code)));
        let steps = self.timesteps.exceptions.iter().map(|(site, steps)| (site.clone(), Wish::Steps(*steps)));
        let dense = self.dense.iter().map(|site| (site.clone(), Wish::Dense));
        Wishes {
            levels,
            exceptions: codes.chain(steps).chain(dense).collect(),
            membrane: self.neuron.0,
            centre: match self.centre {
                CentreName::Spikes => Centre::Spikes,
                CentreName::Error => Centre::Error,
            },
            thresholds: self.thresholds,
            phases: self.phases,
            exact_weights: self.weights == Weights::F32,
        }
    }
}

/// The flags that ask for the same: what a user types to get it.
pub fn flags(wishes: &Wishes) -> String {
    let list = |first: String, wanted: &dyn Fn(&Wish) -> Option<String>| {
        let more = wishes.exceptions.iter().filter_map(|(s, wish)| Some(format!("{s}={}", wanted(wish)?)));
        std::iter::once(first).chain(more).collect::<Vec<_>>().join(",")
    };
    let steps = |wish: &Wish| if let Wish::Steps(steps) = wish { Some(steps.to_string()) } else { None };
    let code = |wish: &Wish| if let Wish::Code(code) = wish { Some(code.name().to_string()) } else { None };
    let codes = list(wishes.levels.code.name().to_string(), &code);
    let mut flags = format!("--timesteps {}", list(wishes.levels.steps.to_string(), &steps));
    if codes != Code::Binary.name() {
        flags += &format!(" --code {codes}");
    }
    let dense = wishes.exceptions.iter().filter(|(_, wish)| *wish == Wish::Dense).map(|(s, _)| s.clone());
    let dense: Vec<String> = dense.collect();
    if !dense.is_empty() {
        flags += &format!(" --dense {}", dense.join(","));
    }
    if let Some(membrane) = wishes.membrane {
        flags += &format!(" --neuron {}", membrane.name());
    }
    if wishes.centre == Centre::Error {
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
    flags
}
