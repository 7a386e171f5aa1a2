//! The options of a conversion as a user spells them: `4,mlp.hidden=5` is a default and an override.
//!
//! `QuantSpelling` is what was written, `options` what it means, and `spelled` writes the shortest options that mean the same.

use snnc_ir::ErrorCode;
use snnc_ir::membrane::Membrane;
use snnc_ir::nibbles::is_group;
use snnc_ir::ssa::{GUARD, Output, Ssa};
use snnc_ir::{Code, Diagnostic};
use snnc_passes::levels::Levels;
use snnc_passes::options::{
    FirstToken, Override, PHASES, PHASES_MOST, QuantOptions, Rotate, Rotations, Rounding, Thresholds, ZeroPoint,
};

/// Levels and their spelling, site by site, as a user wrote them.
#[derive(Clone, Debug)]
pub struct QuantSpelling {
    /// Timesteps of spike trains.
    pub timesteps: Choices<u16>,
    /// How spikes spell a level.
    pub code: Option<Choices<CodeName>>,
    /// Time-stepped neurons of unary sites; without one they integrate, then fire.
    pub neuron: Option<Membrane>,
    /// Sites that stay dense.
    pub dense: Vec<String>,
    /// What the zero point of few levels is chosen for.
    pub zero_point: ZeroPoint,
    /// Thresholds of what projections read.
    pub thresholds: Thresholds,
    /// What becomes of the token that texts begin with.
    pub first_token: FirstToken,
    /// How layers attend.
    pub attention: Choices<AttentionName>,
    /// Phases per octave of spiking attention.
    pub phases: u32,
    /// Number format of weights.
    pub weights: WeightFormat,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Keep an embedding table of its own.
    pub own_embedding: bool,
    /// What is rotated.
    pub rotate: Rotate,
}

/// Number format of weights, as a user names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// 8 bits, with a scale per output.
    I8,
    /// 4 bits, where so many inputs of an output share a multiplier.
    I4 {
        /// Inputs of a group.
        group: u16,
    },
    /// Reals: what reads spikes multiplies.
    F32,
}

impl Default for QuantSpelling {
    fn default() -> Self {
        Self {
            timesteps: Choices { all: None, overrides: Vec::new() },
            code: None,
            neuron: None,
            dense: Vec::new(),
            zero_point: ZeroPoint::Spikes,
            thresholds: Thresholds::Auto,
            first_token: FirstToken::Auto,
            attention: Choices { all: None, overrides: Vec::new() },
            phases: PHASES,
            weights: WeightFormat::I8,
            rounding: Rounding::default(),
            own_embedding: false,
            rotate: Rotate::default(),
        }
    }
}

/// The options that were written, or those that a program keeps: `spelled` reversed.
///
/// ```
/// use snnc::quant_options::{parse, spelled};
/// let options = parse("--timesteps 4,mlp.hidden=5 --attention linear")?.options()?;
/// assert_eq!(spelled(&options), "--timesteps 4,mlp.hidden=5 --attention linear");
/// assert!(parse("--timesteps many").is_err());
/// # Ok::<(), snnc_ir::Diagnostic>(())
/// ```
///
/// # Errors
/// An option that is none, or a value that it does not take.
pub fn parse(text: &str) -> Result<QuantSpelling, Diagnostic> {
    let mut words = text.split_whitespace();
    let mut pairs = Vec::new();
    while let Some(option) = words.next() {
        let value = words.next();
        let none = || Diagnostic::new(option, "has no value").code(ErrorCode::OPTION);
        pairs.push((option, value.ok_or_else(none)?));
    }
    of_pairs(pairs)
}

/// The options of a conversion that this module reads, as a user types them.
pub const CONVERSION: [&str; 13] = [
    "--timesteps",
    "--code",
    "--neuron",
    "--dense",
    "--centre",
    "--thresholds",
    "--first-token",
    "--attention",
    "--phases",
    "--weights",
    "--rounding",
    "--embedding",
    "--rotate",
];

/// The options that are written as pairs of a name and a value; later ones win.
///
/// # Errors
/// As of `parse`.
pub fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<QuantSpelling, Diagnostic> {
    let mut spelling = QuantSpelling::default();
    for (option, value) in pairs {
        let wrong = |message: String| Diagnostic::new(option, message).code(ErrorCode::OPTION);
        let one_of = |known: [&str; 2]| match known.iter().position(|name| *name == value) {
            Some(at) => Ok(at == 1),
            None => Err(wrong(format!("`{value}` is neither {} nor {}", known[0], known[1]))),
        };
        match option {
            "--timesteps" => spelling.timesteps = timesteps(value).map_err(wrong)?,
            "--code" => spelling.code = Some(codes(value).map_err(wrong)?),
            "--neuron" => spelling.neuron = neuron(value).map_err(wrong)?,
            "--dense" => spelling.dense = value.split(',').map(str::to_string).collect(),
            "--centre" => {
                spelling.zero_point = if one_of(["spikes", "error"])? { ZeroPoint::Error } else { ZeroPoint::Spikes }
            }
            "--thresholds" => spelling.thresholds = thresholds(value).map_err(wrong)?,
            "--first-token" => spelling.first_token = first_token(value).map_err(wrong)?,
            "--attention" => spelling.attention = attention(value).map_err(wrong)?,
            "--phases" => spelling.phases = phases(value).map_err(wrong)?,
            "--weights" => spelling.weights = weights(value).map_err(wrong)?,
            "--rounding" => spelling.rounding = rounding(value).map_err(wrong)?,
            "--embedding" => spelling.own_embedding = one_of(["shared", "own"])?,
            "--rotate" => spelling.rotate = rotate(value).map_err(wrong)?,
            _ => return Err(wrong("is no option of a conversion".into())),
        }
    }
    Ok(spelling)
}

/// A point of the measured front of fidelity and energy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Eight timesteps: half the divergence of seven.
    Accurate,
    /// Seven timesteps.
    Default,
    /// Five timesteps: a third fewer spikes, some percent more perplexity.
    Frugal,
}

impl Preset {
    /// All of them.
    pub const ALL: [Preset; 3] = [Preset::Accurate, Preset::Default, Preset::Frugal];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Accurate => "accurate",
            Preset::Default => "default",
            Preset::Frugal => "frugal",
        }
    }

    /// Its timesteps.
    pub fn timesteps(self) -> Choices<u16> {
        let steps = match self {
            Preset::Accurate => 8,
            Preset::Default => 7,
            Preset::Frugal => 5,
        };
        Choices { all: Some(steps), overrides: Vec::new() }
    }
}

/// A preset.
///
/// # Errors
/// A name that is none.
pub fn preset(text: &str) -> Result<Preset, String> {
    let names = || Preset::ALL.map(Preset::name).join(", ");
    let found = Preset::ALL.into_iter().find(|preset| preset.name() == text);
    found.ok_or_else(|| format!("there is no preset `{text}`; there are {}", names()))
}

/// What a program was compiled with, from the options that it keeps, but with attention by time to first spike in all layers.
/// `None` where it says nothing that is understood.
pub fn training_free(kept: &str) -> Option<QuantOptions> {
    let attention = Choices { all: Some(AttentionName(Some(Ssa::Ttfs { phases: PHASES }))), overrides: Vec::new() };
    QuantSpelling { attention, ..parse(kept).ok()? }.options().ok()
}

/// How a layer attends, as a user names it; phases are said elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionName(pub Option<Ssa>);

/// Keys that fire where only the best do and nothing else is asked for. Of 256 of WikiText-2, in a 4-layer network that attends
/// widely, perplexity rises by 7 % with 64, by 29 % with 32.
const TOP_KEYS: u32 = 64;

impl AttentionName {
    /// The kinds, as a user names them.
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

/// How layers attend. `3`, `0-5` and `h.3` are layers; so that each is a site, ranges are taken apart.
///
/// # Errors
/// A kind that is none, or a selector that names no layers.
pub fn attention(text: &str) -> Result<Choices<AttentionName>, String> {
    let asked = choices(text, AttentionName::parse)?;
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
pub enum CodeName {
    /// One of the IR's codes.
    Code(Code),
    /// Ternary spikes of one weight, decoded by neurons that take back what later inputs contradict: the unary code.
    StBif,
}

impl CodeName {
    fn code(self) -> Code {
        match self {
            CodeName::Code(code) => code,
            CodeName::StBif => Code::Unary,
        }
    }
}

/// Neurons of unary sites; `None` where they integrate, then fire.
///
/// # Errors
/// A name that no neuron has.
pub fn neuron(text: &str) -> Result<Option<Membrane>, String> {
    match Membrane::from_name(text) {
        None if text != "fire" => Err(format!("there is no neuron `{text}`; there are fire, {}", Membrane::names())),
        membrane => Ok(membrane),
    }
}

/// Phases per octave.
///
/// # Errors
/// No number of phases that attention may have.
pub fn phases(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|number| (1..=PHASES_MOST).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a number of phases, 1 to {PHASES_MOST}"))
}

/// A value for all sites, and others for the sites that selectors mean.
#[derive(Clone, Debug)]
pub struct Choices<T> {
    /// Of every site that nothing else is said of; the default without it.
    pub all: Option<T>,
    /// By selector: a site, a role or a layer.
    pub overrides: Vec<(String, T)>,
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

/// Thresholds of what projections read.
///
/// # Errors
/// A name that is none.
pub fn thresholds(text: &str) -> Result<Thresholds, String> {
    let names = || Thresholds::ALL.map(Thresholds::name).join(", ");
    let found = Thresholds::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("there are no thresholds `{text}`; there are {}", names()))
}

/// What becomes of the token that texts begin with.
///
/// # Errors
/// A name that is none.
pub fn first_token(text: &str) -> Result<FirstToken, String> {
    let names = || FirstToken::ALL.map(FirstToken::name).join(", ");
    let found = FirstToken::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("the first token cannot be `{text}`; there are {}", names()))
}

/// What is rotated.
///
/// # Errors
/// A name that is none.
pub fn rotate(text: &str) -> Result<Rotate, String> {
    match text {
        "auto" => Ok(Rotate::Auto),
        "none" => Ok(Rotate::These(Rotations::default())),
        names => Rotations::named(names.split(',')).map(Rotate::These).ok_or_else(|| {
            let known = Rotations::NAMES.join(", ");
            format!("`{text}` cannot be rotated; there are auto, none, or some of {known}")
        }),
    }
}

/// Number format of weights.
///
/// # Errors
/// A format that is none, or a group that weights of 4 bits cannot have.
pub fn weights(text: &str) -> Result<WeightFormat, String> {
    match text {
        "i8" => return Ok(WeightFormat::I8),
        "f32" => return Ok(WeightFormat::F32),
        _ => {}
    }
    let group = text.strip_prefix("i4:").and_then(|group| group.parse::<u16>().ok());
    let group = group.filter(|&group| is_group(group.into())).map(|group| WeightFormat::I4 { group });
    group.ok_or_else(|| format!("there are no weights `{text}`; there are i8, f32, and i4:8, i4:16, i4:24 or i4:32"))
}

/// How weights are rounded.
///
/// # Errors
/// A name that is none.
pub fn rounding(text: &str) -> Result<Rounding, String> {
    let names = || Rounding::ALL.map(Rounding::name).join(", ");
    let found = Rounding::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("there is no rounding `{text}`; there are {}", names()))
}

/// Timesteps by site.
///
/// # Errors
/// What is no number of timesteps.
pub fn timesteps(text: &str) -> Result<Choices<u16>, String> {
    choices(text, |value| {
        let most = Code::Unary.max_steps();
        let number = value.parse::<u16>().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("`{value}` is not a number of timesteps, 1 to {most}"))
    })
}

/// Codes by site.
///
/// # Errors
/// A name that no code has.
pub fn codes(text: &str) -> Result<Choices<CodeName>, String> {
    let st_bif = Membrane::ST_BIF.name();
    let names = || Code::ALL.map(Code::name).join(", ");
    choices(text, |value| match Code::from_name(value) {
        Some(code) => Ok(CodeName::Code(code)),
        None if value == st_bif => Ok(CodeName::StBif),
        None => Err(format!("there is no code `{value}`; there are {}, {st_bif}", names())),
    })
}

impl QuantSpelling {
    /// What it means. Whether sites of these names exist is seen when the network is known.
    ///
    /// # Errors
    /// Two kinds of neurons for unary sites.
    pub fn options(&self) -> Result<QuantOptions, Diagnostic> {
        let Levels { code, steps } = Levels::default();
        let asked = self.code.clone().unwrap_or(Choices { all: None, overrides: Vec::new() });
        let membrane = self.membrane(&asked)?;
        // A neuron alone asks for its code; a site's code asks for nothing elsewhere.
        let code = if self.neuron.is_some() { Code::Unary } else { code };
        let levels =
            Levels { code: asked.all.map_or(code, CodeName::code), steps: self.timesteps.all.unwrap_or(steps) };
        let codes = asked.overrides.iter().map(|(site, code)| (site.clone(), Override::Code(code.code())));
        let steps = self.timesteps.overrides.iter().map(|(site, steps)| (site.clone(), Override::Steps(*steps)));
        let dense = self.dense.iter().map(|site| (site.clone(), Override::Dense));
        let attention = |kind: AttentionName| kind.with_phases(self.phases);
        let attends = self.attention.overrides.iter();
        let attends = attends.map(|(site, kind)| (site.clone(), Override::Attention(attention(*kind))));
        let ttfs = AttentionName(Some(Ssa::Ttfs { phases: PHASES }));
        Ok(QuantOptions {
            levels,
            overrides: codes.chain(steps).chain(dense).chain(attends).collect(),
            membrane,
            zero_point: self.zero_point,
            thresholds: self.thresholds,
            first_token: self.first_token,
            attention: attention(self.attention.all.unwrap_or(ttfs)),
            phases: self.phases,
            exact_weights: self.weights == WeightFormat::F32,
            weight_group: if let WeightFormat::I4 { group } = self.weights { Some(group) } else { None },
            rounding: self.rounding,
            own_embedding: self.own_embedding,
            rotate: self.rotate,
        })
    }

    /// What the neurons of unary sites are: one kind in a network.
    fn membrane(&self, asked: &Choices<CodeName>) -> Result<Option<Membrane>, Diagnostic> {
        let mut spellings = asked.all.iter().chain(asked.overrides.iter().map(|(_, spelling)| spelling));
        let binary = |spelling: &CodeName| *spelling == CodeName::Code(Code::Binary);
        if let (Some(neuron), true) = (self.neuron, asked.all.iter().any(binary) && spellings.clone().all(binary)) {
            let message = format!("no site has the unary code that {} neurons spell", neuron.name());
            return Err(Diagnostic::new("--neuron", message)
                .code(ErrorCode::OPTION)
                .note("leave out --code binary, or give sites the code unary"));
        }
        if !spellings.clone().any(|spelling| *spelling == CodeName::StBif) {
            return Ok(self.neuron);
        }
        let plain = spellings.any(|spelling| *spelling == CodeName::Code(Code::Unary));
        match self.neuron {
            None if !plain => Ok(Some(Membrane::ST_BIF)),
            Some(Membrane::ST_BIF) => Ok(Some(Membrane::ST_BIF)),
            _ => {
                let message = "unary sites have one kind of neuron, so st_bif is not possible beside another";
                Err(Diagnostic::new("--code", message)
                    .code(ErrorCode::OPTION)
                    .note("leave out --neuron, and the code unary"))
            }
        }
    }
}

/// The options that mean the same: what a user types to get it.
pub fn spelled(options: &QuantOptions) -> String {
    let list = |first: String, wanted: &dyn Fn(&Override) -> Option<String>| {
        let more = options.overrides.iter().filter_map(|(s, asked)| Some(format!("{s}={}", wanted(asked)?)));
        std::iter::once(first).chain(more).collect::<Vec<_>>().join(",")
    };
    let steps = |asked: &Override| if let Override::Steps(steps) = asked { Some(steps.to_string()) } else { None };
    let code = |asked: &Override| if let Override::Code(code) = asked { Some(code.name().to_string()) } else { None };
    let codes = list(options.levels.code.name().to_string(), &code);
    let mut flags = format!("--timesteps {}", list(options.levels.steps.to_string(), &steps));
    if codes != Code::Binary.name() {
        flags += &format!(" --code {codes}");
    }
    let dense = options.overrides.iter().filter(|(_, asked)| *asked == Override::Dense).map(|(s, _)| s.clone());
    let dense: Vec<String> = dense.collect();
    if !dense.is_empty() {
        flags += &format!(" --dense {}", dense.join(","));
    }
    let attention =
        |asked: &Override| if let Override::Attention(kind) = asked { Some(AttentionName(*kind).name()) } else { None };
    let attention = list(AttentionName(options.attention).name(), &attention);
    if attention != "ttfs" {
        flags += &format!(" --attention {attention}");
    }
    if let Some(membrane) = options.membrane {
        flags += &format!(" --neuron {}", membrane.name());
    }
    if options.zero_point == ZeroPoint::Error {
        flags += " --centre error";
    }
    if options.thresholds != Thresholds::Auto {
        flags += &format!(" --thresholds {}", options.thresholds.name());
    }
    if options.first_token != FirstToken::Auto {
        flags += &format!(" --first-token {}", options.first_token.name());
    }
    if options.phases != PHASES {
        flags += &format!(" --phases {}", options.phases);
    }
    if options.exact_weights {
        flags += " --weights f32";
    }
    if let Some(group) = options.weight_group {
        flags += &format!(" --weights i4:{group}");
    }
    if options.rounding != Rounding::default() {
        flags += &format!(" --rounding {}", options.rounding.name());
    }
    if options.own_embedding {
        flags += " --embedding own";
    }
    match options.rotate {
        Rotate::Auto => {}
        Rotate::These(rotations) if rotations == Rotations::default() => flags += " --rotate none",
        Rotate::These(rotations) => flags += &format!(" --rotate {}", rotations.names().join(",")),
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a line asks for, as flags.
    fn asked(line: &str) -> Result<String, String> {
        let options = parse(line).and_then(|spelling| spelling.options());
        options.map(|options| spelled(&options)).map_err(|e| e.to_string())
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
    fn weights_are_named_by_their_bits_and_group() {
        for (line, wanted) in [
            ("--weights i4:32", "--timesteps 7 --weights i4:32"),
            ("--weights i8", "--timesteps 7"),
            ("--weights f32", "--timesteps 7 --weights f32"),
        ] {
            assert_eq!(asked(line).as_deref(), Ok(wanted), "{line}");
        }
        for line in ["--weights i4", "--weights i4:12", "--weights i4:0", "--weights i4:64", "--weights i5:32"] {
            let told = asked(line).expect_err(line);
            assert!(told.contains("there are i8, f32, and i4:8, i4:16, i4:24 or i4:32"), "{line}: {told}");
        }
    }

    #[test]
    fn what_is_rotated_is_named() {
        for (line, wanted) in [
            ("--rotate auto", "--timesteps 7"),
            ("--rotate none", "--timesteps 7 --rotate none"),
            ("--rotate heads,residual", "--timesteps 7 --rotate residual,heads"),
        ] {
            assert_eq!(asked(line).as_deref(), Ok(wanted), "{line}");
        }
        for line in ["--rotate hands", "--rotate residual,", "--rotate none,heads"] {
            let told = asked(line).expect_err(line);
            assert!(told.contains("there are auto, none, or some of residual, heads"), "{line}: {told}");
        }
    }

    #[test]
    fn options_that_a_program_keeps_are_asked_again() {
        let again = |line: &str| training_free(line).map(|options| spelled(&options));
        let kept = asked(
            "--timesteps 4,head=5 --centre error --attention linear,0=lif --phases 4 --embedding own --rotate heads",
        );
        let plain = asked("--timesteps 4,head=5 --centre error --phases 4 --embedding own --rotate heads");
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
