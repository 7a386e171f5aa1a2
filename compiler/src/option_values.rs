//! Values of options as a user writes them: the command line reads its arguments by these functions, and so does whoever takes
//! options as text.

use crate::energy::PriceList;
use crate::id_file::{IdFile, is_npy};
use crate::parallel::THREADS_MAX;
use crate::proof;
use crate::report::TraceChoice;
use crate::train::run::{GradientFormat, Recompute, loss_name};
use crate::tune::{Budget, Goal};
use snnc_ir::Code;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::op::Surrogate;
use snnc_ir::{Diagnostic, verify::CONTEXT_MAX};
use snnc_passes::cost::Rate;
use snnc_passes::relax::{Loss, Trainable};
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Most calibration tokens: some hundred times as many as levels need.
const CALIBRATION_TOKENS_MAX: usize = 1 << 24;

/// Most steps of training: months on any network.
pub const STEPS_MAX: u64 = 1_000_000_000;

/// Most minutes of training: a year.
const MINUTES_MAX: f64 = 525_600.0;

/// Sequences that share a pass of the energy estimate at most: beyond, reading weights costs nothing per token.
pub const ENERGY_BATCH_MAX: u32 = 1 << 16;

/// Windows per step of training at most.
pub const TRAIN_BATCH_MAX: u32 = 1 << 16;

/// A whole number of a range.
///
/// ```
/// use snnc::option_values::whole;
/// assert_eq!(whole("8", 1..=16), Ok(8));
/// assert!(whole("0", 1..=16).is_err());
/// ```
///
/// # Errors
/// It is none, or outside.
pub fn whole(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| match (range.start(), range.end()) {
        (least, &u64::MAX) => format!("`{text}` is no whole number from {least} up"),
        (least, most) => format!("`{text}` is no whole number from {least} to {most}"),
    })
}

/// Tokens of a context.
///
/// # Errors
/// It is no number, 0, or more than any network has.
pub fn context(text: &str) -> Result<u32, String> {
    whole(text, 1..=u64::from(CONTEXT_MAX)).map(|number| number as u32)
}

/// A number of threads.
///
/// # Errors
/// It is no number, or out of range.
pub fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (1..=THREADS_MAX).contains(number));
    number.ok_or_else(|| format!("threads are a whole number from 1 to {THREADS_MAX}"))
}

/// Calibration tokens.
///
/// # Errors
/// It is no number, or out of range.
pub fn calibration_tokens(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (1..=CALIBRATION_TOKENS_MAX).contains(number));
    number.ok_or_else(|| format!("tokens are a whole number from 1 to {CALIBRATION_TOKENS_MAX}"))
}

/// How far an import may be from its file, as a share.
///
/// # Errors
/// It is no share.
pub fn import_tolerance(text: &str) -> Result<f32, String> {
    let share = text.parse::<f32>().ok().and_then(|share| proof::tolerance(share).ok());
    share.ok_or_else(|| "a number above 0 and at most 1 was expected".to_string())
}

/// A number, or a percentage.
///
/// ```
/// use snnc::option_values::share;
/// assert_eq!(share("1%"), Ok(0.01));
/// assert!(share("98").is_err());
/// ```
///
/// # Errors
/// It is neither, or a whole without a percent sign.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let share = number.trim().parse::<f64>().ok().filter(|share| share.is_finite()).map(|share| share * unit);
    match share {
        // Whoever writes 98 means 98 %.
        Some(share) if share < 1.0 || unit != 1.0 => Ok(share),
        Some(_) => Err(format!("`{text}` is all or more: write {text}% if it is percent")),
        None => Err(format!("`{text}` is no share: write 1% or 0.01")),
    }
}

/// The text or the token ids that a user named.
///
/// # Errors
/// What is named as token ids is no file of ids.
pub fn text_or_ids(text: &Option<PathBuf>, tokens: &Option<PathBuf>) -> Result<Option<PathBuf>, Diagnostics> {
    match tokens {
        Some(path) if !is_npy(path) => Err(IdFile::open(path).map(drop).err().into_iter().collect()),
        Some(path) => Ok(Some(path.clone())),
        None => Ok(text.clone()),
    }
}

/// The price lists of these names or files, or all that are built in.
///
/// # Errors
/// A list that is none; two of one name.
pub fn price_lists(named: &[String]) -> Result<Vec<PriceList>, Diagnostics> {
    if named.is_empty() {
        return Ok(PriceList::built_in());
    }
    let (mut lists, mut diagnostics) = (Vec::new(), Diagnostics::new());
    for name in named {
        match PriceList::named(name) {
            Ok(list) if lists.iter().any(|other: &PriceList| other.name == list.name) => {
                let message = format!("is called `{}` as another list is; give it a name of its own", list.name);
                diagnostics.push(Diagnostic::new(name, message).code(ErrorCode::OPTION));
            }
            Ok(list) => lists.push(list),
            Err(more) => diagnostics.extend(more),
        }
    }
    if diagnostics.is_empty() { Ok(lists) } else { Err(diagnostics) }
}

/// Spikes per neuron and token, and the share of neurons that fire at all.
///
/// # Errors
/// They are no numbers, or no neuron can fire so.
pub fn firing_rate(text: &str) -> Result<Rate, String> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    let (spikes, active) = text.split_once(',').map_or((text, None), |(spikes, active)| (spikes, Some(active)));
    let spikes = number(spikes).ok_or_else(|| format!("`{spikes}` is no number of spikes"))?;
    let active = match active {
        None => spikes.min(1.0),
        Some(text) => number(text).filter(|share| *share <= 1.0).ok_or_else(|| format!("`{text}` is no share of 1"))?,
    };
    let most = Code::Unary.max_steps();
    if spikes > f64::from(most) {
        return Err(format!(
            "a neuron fires once per timestep at most, and {most} timesteps are the most that there are"
        ));
    }
    if active > spikes { Err("who fires at all spikes once at least".into()) } else { Ok(Rate { spikes, active }) }
}

/// A number of tokens; `None` is -1, which writes until the text or the context ends.
///
/// # Errors
/// It is neither.
pub fn most_tokens(text: &str) -> Result<Option<usize>, String> {
    match text {
        "-1" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "it is a whole number from 0 up, or -1".into()),
    }
}

/// A temperature of sampling.
///
/// # Errors
/// It is no number from 0 up.
pub fn temperature(text: &str) -> Result<f32, String> {
    finite(text).filter(|number| *number >= 0.0).ok_or_else(|| "it is a number from 0 up".into())
}

/// The probability that the likeliest tokens have together.
///
/// # Errors
/// It is none.
pub fn top_p(text: &str) -> Result<f32, String> {
    let number = finite(text).filter(|number| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "it is a number above 0, at most 1".into())
}

/// The least probability of a token, as a share of the likeliest's.
///
/// # Errors
/// It is none.
pub fn min_p(text: &str) -> Result<f32, String> {
    finite(text).filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| "it is a number from 0 to 1".into())
}

/// What divides the logits of repeated tokens.
///
/// # Errors
/// It is no such number.
pub fn repeat_penalty(text: &str) -> Result<f32, String> {
    let number = finite(text).filter(|number| (0.01..=100.0).contains(number));
    number.ok_or_else(|| "it is a number from 0.01 to 100".into())
}

fn finite(text: &str) -> Option<f32> {
    text.parse().ok().filter(|number: &f32| number.is_finite())
}

/// What a tuning run minimises.
///
/// # Errors
/// A name that is none.
pub fn goal(text: &str) -> Result<Goal, String> {
    let names = || Goal::ALL.map(Goal::name).join(", ");
    let found = Goal::ALL.into_iter().find(|goal| goal.name() == text);
    found.ok_or_else(|| format!("there is no `{text}` to minimise; there are {}", names()))
}

/// The budget of a tuning run: `perplexity+1%` or `timesteps=4`.
///
/// # Errors
/// It is none.
pub fn budget(text: &str) -> Result<Budget, String> {
    let budget = match (text.strip_prefix("perplexity+"), text.strip_prefix("timesteps=")) {
        (Some(rise), _) => Budget::Perplexity(share(rise)?),
        (_, Some(steps)) => Budget::Timesteps(steps.parse().map_err(|_| format!("`{steps}` is no number"))?),
        _ => return Err("a budget is written perplexity+1% or timesteps=4".into()),
    };
    let (Budget::Perplexity(limit) | Budget::Timesteps(limit)) = budget;
    if limit > 0.0 { Ok(budget) } else { Err("a budget is more than 0".into()) }
}

/// The parameters that train: `ssa`, `thresholds`, `lora:R` or `all`.
///
/// # Errors
/// They are none.
pub fn parameters(text: &str) -> Result<Trainable, String> {
    Ok(match text.split_once(':') {
        None if text == "ssa" => Trainable::Ssa,
        None if text == "thresholds" => Trainable::Thresholds,
        None if text == "all" => Trainable::All,
        Some(("lora", rank)) => {
            let rank = rank.parse::<u32>().ok().filter(|rank| (1..=4096).contains(rank));
            Trainable::Lora(rank.ok_or("a rank of 1 to 4096 was expected, such as lora:8")?)
        }
        _ => return Err(format!("there is no `{text}` to train; there are ssa, thresholds, lora:RANK, all")),
    })
}

/// The loss of training: `kl`, `ce` or `transfer`.
///
/// # Errors
/// A name that is none.
pub fn loss(text: &str) -> Result<Loss, String> {
    let all = [Loss::Divergence, Loss::CrossEntropy, Loss::Transfer];
    let found = all.into_iter().find(|loss| loss_name(*loss) == text);
    found.ok_or_else(|| format!("there is no loss `{text}`; there are {}", all.map(loss_name).join(", ")))
}

/// The numbers that products of the backward pass multiply.
///
/// # Errors
/// There is no such format.
pub fn gradients(text: &str) -> Result<GradientFormat, String> {
    match text {
        "f32" => Ok(GradientFormat::F32),
        "bf16" => Ok(GradientFormat::Bf16),
        _ => Err(format!("there is no format `{text}`; there are f32, bf16")),
    }
}

/// When values of the forward pass are computed again.
///
/// # Errors
/// It is none of the three.
pub fn recompute(text: &str) -> Result<Recompute, String> {
    match text {
        "auto" => Ok(Recompute::Auto),
        "always" => Ok(Recompute::Always),
        "never" => Ok(Recompute::Never),
        _ => Err(format!("`{text}` is none of auto, always, never")),
    }
}

/// What stands in for the derivative of a spike.
///
/// # Errors
/// A name that is none.
pub fn surrogate(text: &str) -> Result<Surrogate, String> {
    let names = || Surrogate::ALL.map(Surrogate::name).join(", ");
    Surrogate::from_name(text).ok_or_else(|| format!("there is no surrogate `{text}`; there are {}", names()))
}

/// The budget of a hybrid: `perplexity+2%`.
///
/// # Errors
/// It is none.
pub fn hybrid_budget(text: &str) -> Result<f64, String> {
    let rise = text.strip_prefix("perplexity+").ok_or("a budget is written perplexity+2%")?;
    share(rise).and_then(|rise| if rise > 0.0 { Ok(rise) } else { Err("a budget is more than 0".into()) })
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| format!("`{text}` is no number above 0"))
}

/// Minutes of training.
///
/// # Errors
/// It is no number above 0, or more than a year.
pub fn minutes(text: &str) -> Result<f64, String> {
    let number = positive(text)?;
    if number <= MINUTES_MAX { Ok(number) } else { Err(format!("a run takes {MINUTES_MAX} minutes, a year, at most")) }
}

/// A learning rate. A step of AdamW moves a number by about the rate, in units of the network's own weights.
///
/// # Errors
/// It is no number above 0, at most 1.
pub fn rate(text: &str) -> Result<f32, String> {
    let number = positive(text)? as f32;
    if number > 0.0 && number <= 1.0 { Ok(number) } else { Err(format!("`{text}` is no number above 0, at most 1")) }
}

/// The largest norm of gradients.
///
/// # Errors
/// It is no number above 0 that f32 holds.
pub fn norm(text: &str) -> Result<f32, String> {
    let number = positive(text)? as f32;
    let fits = number > 0.0 && number.is_finite();
    if fits { Ok(number) } else { Err(format!("`{text}` is no number above 0 that f32 holds")) }
}

/// Weight decay, as a share of the learning rate.
///
/// # Errors
/// It is no number from 0 to 1.
pub fn decay(text: &str) -> Result<f32, String> {
    let number = text.parse::<f32>().ok().filter(|x| (0.0..=1.0).contains(x));
    number.ok_or_else(|| format!("`{text}` is no number from 0 to 1"))
}

/// A site, a neuron of it and a token, of which the last two may be missing: `h.0.mlp.hidden:12@5`.
///
/// # Errors
/// It does not begin with a site, or an index is none.
pub fn neuron_choice(text: &str) -> Result<TraceChoice, String> {
    let index = |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no index: write SITE:INDEX@TOKEN"));
    let (place, token) = text.rsplit_once('@').map_or((text, None), |(place, token)| (place, Some(token)));
    let (site, neuron) = place.rsplit_once(':').map_or((place, None), |(site, neuron)| (site, Some(neuron)));
    if site.is_empty() {
        return Err("it begins with a site, such as h.0.mlp.hidden".into());
    }
    Ok(TraceChoice {
        site: Some(site.into()),
        neuron: neuron.map(index).transpose()?,
        token: token.map(index).transpose()?,
    })
}
