//! The whole compiler as a function: an imported network and sample text to a spiking program.

use crate::calibrate::{MomentText, TokenWindows, calibrate, calibrate_with_moments, moment_tokens};
use crate::calibration::{Calibration, Fired};
use crate::describe::token_table;
use crate::first_token;
use crate::id_file::IdFile;
use crate::memory_budget::ConversionMemory;
use crate::moment_groups::{self, MeasuredMoments};
use crate::parallel::side_by_side;
use crate::progress::{Progress, Silent, Workers};
use crate::reading::{self, ids_from};
use crate::record::RotationRecord;
use crate::rotation::{self, Rotated};
use crate::texts::SampleText;
use crate::tokens::Tokens;
use indexmap::IndexMap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::random::SplitMix64;
use snnc_ir::{Diagnostic, Graph, Stage, Value, WeightStore};
use snnc_passes::fit::{QuantParams, fit};
use snnc_passes::moments::MomentSource;
use snnc_passes::options::{QuantOptions, Rotate, Rounding};
use snnc_passes::side_by_side::SideBySide;
use snnc_passes::{Context, Pass, front_and_back, run};
use snnc_runtime::memory_in_words;
use std::sync::Arc;

/// Text that ranges are measured on where the user gives none: written by the demo model itself, at temperature 1.
pub const BUILT_IN_TEXT: &str = include_str!("calibration.txt");

/// Tokens that ranges are measured on: 64 windows of 256 reach a centred cosine of .9999 at seven timesteps; 8 do not.
pub const CALIBRATION_TOKENS: usize = 16384;

/// Products of a weight and a token that calibration is worth by default: a minute's work on two cores.
const CALIBRATION_PRODUCTS: usize = 1_500_000_000_000;

/// Tokens that ranges are measured on by default: fewer for a network that takes long to run, a few windows at least. Weights of 4 bits
/// are worth twice as many, since their errors compensate each other by more moments.
pub fn calibration_tokens(parameters: usize, quant: &QuantOptions) -> usize {
    let products = if quant.weight_group.is_some() { 2 * CALIBRATION_PRODUCTS } else { CALIBRATION_PRODUCTS };
    (products / parameters.max(1)).clamp(4 * CALIBRATION_WINDOW, CALIBRATION_TOKENS)
}

/// How many tokens a calibration window has at most: ranges are stable within a few hundred tokens of context.
pub const CALIBRATION_WINDOW: usize = 256;

/// What a user chooses about a conversion.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// Levels and their spelling, site by site.
    pub quant: QuantOptions,
    /// Tokens that activation ranges are measured on.
    pub calibration_tokens: usize,
    /// Threads; no result depends on their number.
    pub threads: usize,
}

/// Where calibration tokens come from.
#[derive(Debug)]
pub enum Sample<'a> {
    /// A text and its tokenizer.
    Text {
        /// Its name.
        name: String,
        /// The text.
        text: SampleText,
        /// Tokens of the run.
        tokens: &'a Tokens,
    },
    /// Ids of a file.
    Ids {
        /// Its name.
        name: String,
        /// The file.
        file: IdFile,
    },
    /// Without a tokenizer: ids drawn uniformly from a seeded generator.
    SeededIds,
}

/// A program and what it was measured on.
#[derive(Debug)]
pub struct Converted {
    /// The graph.
    pub graph: Graph,
    /// What levels were measured on, and which they are.
    pub calibration: Calibration,
    /// How near the rotated network is to the one before; `None` where nothing was rotated.
    pub rotation: Option<RotationRecord>,
    /// What was rotated, as a choice that does the same again.
    pub rotate: Rotate,
    /// What levels were measured on, for the file's `calibration` section.
    pub section: serde_json::Value,
}

/// What is shown every pass with the graphs before and after.
pub type Watch<'a> = dyn FnMut(&Pass, &Graph, &Graph) + 'a;

/// Imported to Spiking: `dense`, then `spiking`.
///
/// # Errors
/// Parts that snnc does not know; text that cannot be tokenised.
pub fn convert(
    imported: Graph,
    rounded: bool,
    sample: &Sample<'_>,
    options: &ConvertOptions,
    watch: &mut Watch<'_>,
) -> Result<Converted, Diagnostics> {
    convert_watched(imported, rounded, sample, options, &Silent, watch)
}

/// The same, with somebody who is told how far it is and may stop it.
///
/// # Errors
/// As of `convert`; a request to stop.
pub fn convert_watched(
    imported: Graph,
    rounded: bool,
    sample: &Sample<'_>,
    options: &ConvertOptions,
    progress: &dyn Progress,
    watch: &mut Watch<'_>,
) -> Result<Converted, Diagnostics> {
    let tensor = dense(imported, rounded, watch)?;
    spiking_watched(tensor, sample, options, ConversionMemory::default(), progress, watch)
}

/// The network of an imported graph in its own words, to be looked at or run; `rounded`: the file's numbers are codes of
/// eight bits. A graph at stage Tensor is that already.
///
/// # Errors
/// Parts that snnc does not know.
pub fn raise(imported: Graph, rounded: bool) -> Result<Graph, Diagnostics> {
    if imported.stage == Stage::Tensor {
        return Ok(imported);
    }
    let (front, _) = front_and_back();
    run(&front[..1], imported, &Context { rounded, ..Context::default() }, &mut |_, _, _| {})
}

/// Imported to Tensor, as ranges are measured on it. A graph at stage Tensor has nothing to be raised.
pub fn dense(imported: Graph, rounded: bool, watch: &mut Watch<'_>) -> Result<Graph, Diagnostics> {
    dense_kept(imported, rounded, None, watch)
}

/// The same with new weights where `store` keeps them.
///
/// # Errors
/// Parts that snnc does not know; no room for weights.
pub fn dense_kept(
    imported: Graph,
    rounded: bool,
    store: Option<&dyn WeightStore>,
    watch: &mut Watch<'_>,
) -> Result<Graph, Diagnostics> {
    let (front, _) = front_and_back();
    let raised = front.iter().take_while(|pass| pass.needs != imported.stage).count();
    run(&front[raised..], imported, &Context { rounded, store, ..Context::default() }, watch)
}

/// Tensor to Spiking.
pub fn spiking(
    tensor: Graph,
    sample: &Sample<'_>,
    options: &ConvertOptions,
    watch: &mut Watch<'_>,
) -> Result<Converted, Diagnostics> {
    spiking_watched(tensor, sample, options, ConversionMemory::default(), &Silent, watch)
}

/// The same within so much memory, with somebody who is told how far it is and may stop it.
///
/// # Errors
/// As of `spiking`; a request to stop.
pub fn spiking_watched(
    tensor: Graph,
    sample: &Sample<'_>,
    options: &ConvertOptions,
    memory: ConversionMemory<'_>,
    progress: &dyn Progress,
    watch: &mut Watch<'_>,
) -> Result<Converted, Diagnostics> {
    let (_, back) = front_and_back();
    options.quant.check(&tensor)?;
    let (windows, source) = sample_windows(&tensor, sample, options.calibration_tokens)?;
    let starts = first_token::chosen(&tensor, start_of(sample), &options.quant)?;
    let windows = starts.iter().fold(windows, |windows, start| first_token::led_by(*start, windows));
    let workers = Workers::alone(options.threads, progress);
    let starts = first_token::with_seconds(&tensor, &starts, &windows, workers)?;
    let rotated = rotation::rotated(tensor, &options.quant, &windows, &starts, memory.store, workers, watch)?;
    let rotate = rotated.choice(options.quant.rotate);
    let Rotated { tensor, rotations, record: rotation } = rotated;
    let start = first_token::rows(&tensor, &starts)?.map(Arc::new);
    let compensates = options.quant.rounding == Rounding::Compensated && !options.quant.exact_weights;
    let tokens = moment_tokens(options.quant.weight_group.is_some());
    let text = MomentText { windows: &windows, constants: &starts, tokens };
    let groups = if compensates { moment_groups(&tensor, memory, progress) } else { Vec::new() };
    let (seen, first) = calibrate_with_moments(&tensor, text, groups.first().map_or(&[], Vec::as_slice), workers)?;
    let quant_plan = fit(&tensor, &seen, &QuantOptions { rotate, ..options.quant.clone() })?;
    let fired = |(site, fit): (&Value, &Option<QuantParams>)| {
        let (Some(fit), seen) = (fit, &seen[site]) else { return Fired::default() };
        Fired { saturated: fit.saturated(seen), spikes: fit.spikes(seen), active: fit.active(seen) }
    };
    let calibration = Calibration {
        source,
        windows: windows.len(),
        tokens: windows.iter().map(Vec::len).sum(),
        seen: ids_of(&windows, vocabulary(&tensor)?),
        fired: quant_plan.sites.iter().map(fired).collect(),
        membrane: options.quant.membrane,
        rotations,
        starts: starts.clone(),
        quant_plan: quant_plan.clone(),
        rounded_weights: IndexMap::new(),
    };
    drop(seen);
    let section = calibration.json(&tensor);
    let QuantOptions { membrane, own_embedding, .. } = options.quant;
    let side_by_side = if compensates { side_by_side(options.threads)? } else { SideBySide::default() };
    let source = MeasuredMoments { graph: &tensor.clone(), text, workers, groups: &groups, held: (0, first).into() };
    let moments = Some(&source as &dyn MomentSource).filter(|_| compensates);
    let known = Context { rotations, quant_plan, moments, side_by_side, start, ..Context::default() };
    let context = Context { membrane, own_embedding, ..known };
    let graph = run(back, tensor, &context, watch)?;
    drop(source);
    // Files hold weights as kernels walk them.
    let graph = graph.in_panels();
    let calibration = calibration.with_weights_of(&graph);
    Ok(Converted { graph, calibration, rotation, rotate, section })
}

/// The sites whose moments are measured together, in the order in which weights are rounded by them.
fn moment_groups(tensor: &Graph, memory: ConversionMemory<'_>, progress: &dyn Progress) -> Vec<Vec<Value>> {
    let reads = moment_groups::reads(tensor);
    let groups = moment_groups::groups(&reads, memory.moments);
    if groups.len() > 1 {
        let own = |site: &Value| reads.iter().find(|(read, _)| read == site).map_or(0, |(_, bytes)| *bytes);
        let bytes: Vec<u64> = groups.iter().map(|group| group.iter().map(own).sum()).collect();
        let sites: usize = groups.iter().map(Vec::len).sum();
        progress.status(&format!(
            "moments of {sites} sites take {}: they are measured in {} groups of up to {}, because {} of memory may be taken",
            memory_in_words(bytes.iter().sum::<u64>().into()),
            groups.len(),
            memory_in_words(bytes.iter().copied().max().unwrap_or(0).into()),
            memory_in_words(memory.bytes.into()),
        ));
    }
    groups
}

/// The token that texts of the sample begin with. Of files of ids, that of two texts at least.
fn start_of(sample: &Sample<'_>) -> Option<u32> {
    match sample {
        Sample::Text { tokens, .. } => tokens.start().first().copied(),
        Sample::Ids { file, .. } => {
            let first = |text: usize| file.ids(text * file.length()..text * file.length() + 1).first().copied();
            let start = first(0)?;
            (file.texts() > 1 && (1..file.texts()).all(|text| first(text) == Some(start))).then_some(start)
        }
        Sample::SeededIds => None,
    }
}

/// Tokens of a trial.
const TRIAL_TOKENS: usize = 16;

/// Tensor to Spiking by the default options, on a few tokens and without keeping anything: whether it can be done. Nothing is rotated,
/// since that changes no operation.
///
/// # Errors
/// As of `spiking`.
pub fn trial(tensor: Graph) -> Result<(), Diagnostics> {
    let (_, back) = front_and_back();
    let quant = QuantOptions::default();
    quant.check(&tensor)?;
    let windows = vec![seeded_ids(vocabulary(&tensor)?, TRIAL_TOKENS.min(tensor.context as usize))];
    let seen = calibrate(&tensor, &windows, &[], Workers::alone(1, &Silent))?;
    let quant_plan = fit(&tensor, &seen, &quant)?;
    let QuantOptions { membrane, own_embedding, .. } = quant;
    let context = Context { quant_plan, membrane, own_embedding, ..Context::default() };
    run(back, tensor, &context, &mut |_, _, _| {}).map(drop)
}

/// Windows of sample tokens, and what they are to be called.
///
/// # Errors
/// The text is empty or cannot be tokenised.
pub fn sample_windows(
    graph: &Graph,
    sample: &Sample<'_>,
    tokens: usize,
) -> Result<(TokenWindows, String), Diagnostics> {
    let length = CALIBRATION_WINDOW.min(graph.context as usize);
    // More would only come twice: a token has a byte at least, and seeded ids repeat nothing but chance.
    let most = match sample {
        Sample::Text { text, .. } => text.len().clamp(CALIBRATION_TOKENS, TEXT_TOKENS),
        Sample::Ids { file, .. } => file.len().min(TEXT_TOKENS),
        Sample::SeededIds => SEEDED_TOKENS,
    };
    let count = (tokens.min(most) / length).max(1);
    // Windows no longer than a start are starts themselves.
    let (short, starts) = (START_TOKENS.min(length), if length > START_TOKENS { STARTS } else { 0 });
    let (windows, source) = match sample {
        Sample::Text { name, text, .. } if text.words() == 0 => {
            return Err(Diagnostic::new(name, "the calibration text is empty").into());
        }
        Sample::Text { name, text, tokens } => {
            let mut windows = text_windows(text, tokens, length, count)?;
            windows.extend(text_windows(text, tokens, short, starts.saturating_sub(windows.len()))?);
            (windows, name.clone())
        }
        Sample::Ids { name, file } => {
            file.check(vocabulary(graph)?)?;
            let mut windows = file_passages(file, length, count);
            windows.extend(file_passages(file, short, starts.saturating_sub(windows.len())));
            (windows, name.clone())
        }
        Sample::SeededIds => {
            let ids = seeded_ids(vocabulary(graph)?, length * count + short * starts.saturating_sub(count));
            let (long, starts) = ids.split_at(length * count);
            let windows = long.chunks(length).chain(starts.chunks(short)).map(<[u32]>::to_vec);
            (windows.collect(), "seeded random ids".to_string())
        }
    };
    if windows.iter().all(Vec::is_empty) {
        return Err(Diagnostic::new(source, "the calibration text is empty").into());
    }
    Ok((windows, source))
}

/// Sequences whose first tokens are seen, at least: attention averages little there, so that its results are largest.
/// Random GPT-2 small, 2048 tokens, cosine of the first 8 tokens: .994 with 8 sequences, .999 with 64.
const STARTS: usize = 64;

/// Tokens of a sequence that is there for its start.
const START_TOKENS: usize = 8;

/// Which ids of a vocabulary are in the windows.
fn ids_of(windows: &TokenWindows, vocabulary: usize) -> Vec<bool> {
    let mut seen = vec![false; vocabulary];
    for &id in windows.iter().flatten() {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = true;
        }
    }
    seen
}

/// Tokens of a text that ranges are measured on, at most.
const TEXT_TOKENS: usize = 1 << 24;

/// Seeded ids that ranges are measured on, at most.
const SEEDED_TOKENS: usize = 1 << 18;

/// Bytes of a line that is passed over to begin at the next.
const LINE: usize = 1 << 16;

/// `count` passages that begin at lines spread evenly over the text, `length` tokens each; the first begins as every text
/// does, with the start token.
fn text_windows(text: &SampleText, tokens: &Tokens, length: usize, count: usize) -> Result<TokenWindows, Diagnostics> {
    let mut windows = TokenWindows::new();
    let mut last = None;
    for i in 0..count {
        let start = text.line_from(reading::share(i, count, text.len()), LINE)?;
        if last.replace(start) == Some(start) {
            continue;
        }
        let ids = ids_from(tokens, text, start, length)?;
        if !ids.is_empty() {
            windows.push(ids);
        }
    }
    Ok(windows)
}

/// `count` passages spread evenly over a file of ids, of at most `length` ids each; none goes on from one text to the next.
fn file_passages(file: &IdFile, length: usize, count: usize) -> TokenWindows {
    let length = length.clamp(1, file.length().max(1));
    let each = file.length() / length;
    let all = file.texts().saturating_mul(each);
    let count = count.min(all);
    let passage = |i| {
        let at = reading::share(i, count, all);
        let begin = at / each * file.length() + at % each * length;
        file.ids(begin..begin + length)
    };
    (0..count).map(passage).collect()
}

/// Rows of the table that token ids index.
pub fn vocabulary(graph: &Graph) -> Result<usize, Diagnostics> {
    let table = token_table(graph).and_then(|table| graph.table_rows(table));
    table.ok_or_else(|| Diagnostics::from(Diagnostic::new("", "the network embeds no token ids")))
}

/// Seed of the ids that stand in for text.
const ID_SEED: u64 = 0x5eed_0f1d;

/// Ids that stand in for text, the same on every machine.
pub fn seeded_ids(vocabulary: usize, count: usize) -> Vec<u32> {
    let mut random = SplitMix64(ID_SEED);
    (0..count).map(|_| (random.bits() % vocabulary.max(1) as u64) as u32).collect()
}
