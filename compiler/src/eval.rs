//! An evaluation from files to a report: how well a program predicts text, beside the dense network it came from.

use crate::calibration::Calibration;
use crate::convert::{self, vocabulary};
use crate::eval_report::{EvalReport, ReferenceKind};
use crate::evaluate::{Cut, NeuronTotals, TextEvaluation, Window, WindowResults, WindowWork, evaluations};
use crate::files;
use crate::first_token::constant_start;
use crate::front::OnnxOptions;
use crate::ledger::{self, Ledger, ledger};
use crate::lints::{coverage, lints};
use crate::merge::{Shards, run_shard};
use crate::model::{EngineOptions, Loaded, ModelSource};
use crate::part::PartJson;
use crate::program_lints::{much_worse, program_lints};
use crate::progress::{Progress, Workers};
use crate::ranks::{Alone, Ranks};
use crate::reading::{IdSource, TextIds, ids_for};
use crate::recall::recall;
use crate::record::ProgramRecord;
use crate::rotation::as_calibrated;
use crate::shard::Shard;
use crate::split_layers::{SplitNetwork, SplitWork};
use crate::tokens::start::StartChoice;
use serde_json::Value as Json;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, Stage};
use snnc_runtime::Program;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What an evaluation is told.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// `.snn` files of one network, or an ONNX file, to measure the dense network. All are run on the same windows.
    pub models: Vec<PathBuf>,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// The ONNX file to compare with.
    pub reference: Option<PathBuf>,
    /// The text, or a `.npy` file of token ids.
    pub text: PathBuf,
    /// What stands before the text.
    pub start: StartChoice,
    /// Windows of the context's length, spread evenly over the text; all without a number.
    pub windows: Option<usize>,
    /// Tokens from one window to the next; the context's length without a number.
    pub stride: Option<usize>,
    /// Say what every site loses, by cause.
    pub ledger: bool,
    /// Tokens that the ledger runs on; what takes a few minutes without a number.
    pub ledger_tokens: Option<usize>,
    /// Ask whether a pair of tokens seen earlier is recalled.
    pub recall: bool,
    /// Which engine runs it, and how.
    pub engine: EngineOptions,
    /// Windows that run at once; the result does not depend on it.
    pub threads: usize,
    /// Processes that share the windows, or the layers; the result does not depend on their number.
    pub ranks: &'static dyn Ranks,
    /// Whether ranks share the layers: each holds some of them, and runs all windows.
    pub split_layers: bool,
}

impl EvalOptions {
    /// An evaluation of one model on all of a text, with nothing beside it.
    pub fn new(model: &Path, text: &Path) -> Self {
        Self {
            models: vec![model.to_path_buf()],
            onnx: OnnxOptions::default(),
            reference: None,
            text: text.to_path_buf(),
            start: StartChoice::Auto,
            windows: None,
            stride: None,
            ledger: false,
            ledger_tokens: None,
            recall: false,
            engine: EngineOptions::default(),
            threads: crate::model::threads_or_all(None),
            ranks: &Alone,
            split_layers: false,
        }
    }
}

/// Measures how well models predict text: a report per model, in their order. The reference runs once, beside all of them.
///
/// # Errors
/// What cannot be read or run; models or a reference of another network; a request to stop.
pub fn eval(options: &EvalOptions, progress: &dyn Progress) -> Result<Vec<EvalReport>, Diagnostics> {
    let prepared = PreparedEval::new(options, progress)?;
    let results = prepared.run()?;
    prepared.reports(&results)
}

/// The same of a shard of the windows, for `eval_merged`. `ledger` and `recall` are measured there.
///
/// # Errors
/// As of `eval`.
pub fn eval_shard(options: &EvalOptions, shard: Shard, progress: &dyn Progress) -> Result<PartJson, Diagnostics> {
    run_shard(&PreparedEval::new(options, progress)?.window_work()?, shard)
}

/// What `eval` gives, from shards that were run before.
///
/// # Errors
/// As of `eval`; shards of another evaluation.
pub fn eval_merged(
    options: &EvalOptions,
    shards: &Shards,
    progress: &dyn Progress,
) -> Result<Vec<EvalReport>, Diagnostics> {
    let prepared = PreparedEval::new(options, progress)?;
    let results = shards.results(&prepared.window_work()?)?;
    prepared.reports(&results)
}

/// Networks as this process runs them.
enum PreparedNetworks {
    /// Whole, on windows of its own.
    Whole { programs: Vec<Arc<Program>>, dense: Option<Arc<Program>> },
    /// Layers of them, on all windows.
    Split { networks: Vec<SplitNetwork>, dense: Option<SplitNetwork> },
}

impl PreparedNetworks {
    /// The graphs of the programs, whole.
    fn graphs(&self) -> Vec<&Graph> {
        match self {
            PreparedNetworks::Whole { programs, .. } => programs.iter().map(|program| program.graph()).collect(),
            PreparedNetworks::Split { networks, .. } => networks.iter().map(|network| &*network.whole).collect(),
        }
    }
}

/// Models that are ready to run on the windows of a text.
struct PreparedEval<'a> {
    options: &'a EvalOptions,
    models: Vec<Loaded>,
    reference: Option<Loaded>,
    text: TextIds,
    windows: Vec<Window>,
    networks: PreparedNetworks,
    workers: Workers<'a>,
}

impl<'a> PreparedEval<'a> {
    fn new(options: &'a EvalOptions, progress: &'a dyn Progress) -> Result<Self, Diagnostics> {
        let read = |path: &PathBuf| Loaded::read(path, &options.onnx);
        let models = options.models.iter().map(read).collect::<Result<Vec<Loaded>, _>>()?;
        models.iter().flat_map(|model| &model.warnings).for_each(|warning| progress.warn(warning));
        let Some((first, others)) = models.split_first() else {
            return Err(Diagnostic::new("", "there is no model to evaluate").code(ErrorCode::OPTION).into());
        };
        others.iter().try_for_each(|other| same_network(first, other))?;
        let reference = options.reference.as_ref().map(read).transpose()?;
        if let Some(reference) = &reference {
            same_vocabulary(first, reference)?;
        }
        let (text, windows) = text_of_all(first, others, options)?;
        if options.ledger {
            models.iter().try_for_each(|model| has_ledger(model, reference.as_ref()))?;
        }
        let networks = networks(&models, reference.as_ref(), options)?;
        let workers = Workers { threads: options.threads, progress, ranks: options.ranks };
        Ok(Self { options, models, reference, text, windows, networks, workers })
    }

    fn run(&self) -> Result<WindowResults, Diagnostics> {
        let PreparedNetworks::Split { networks, dense } = &self.networks else { return self.window_work()?.run() };
        let (dense, ids, ranges) = (dense.as_ref(), &self.text.ids, &self.windows);
        Ok(SplitWork { networks, dense, ids, ranges, workers: self.workers }.run()?)
    }

    /// The work on windows of which ranks, or shards, have each some.
    ///
    /// # Errors
    /// Ranks have layers instead.
    fn window_work(&self) -> Result<WindowWork<'_>, Diagnostic> {
        let PreparedNetworks::Whole { programs, dense } = &self.networks else {
            let message = "ranks share either windows or layers";
            return Err(Diagnostic::new("--split-layers", message).code(ErrorCode::OPTION));
        };
        let (dense, ids, ranges) = (dense.as_ref(), &self.text.ids, &self.windows);
        Ok(WindowWork { programs, dense, ids, ranges, workers: self.workers })
    }

    fn reports(&self, results: &WindowResults) -> Result<Vec<EvalReport>, Diagnostics> {
        let compared = ComparedModels {
            options: self.options,
            text: &self.text,
            reference: self.reference.as_ref(),
            networks: &self.networks,
            workers: self.workers,
        };
        let evaluations = evaluations(&self.windows, results);
        let all = self.models.iter().zip(self.networks.graphs()).zip(evaluations).enumerate();
        all.map(|(at, ((model, graph), done))| compared.report(at, model, graph, done)).collect()
    }
}

/// Models and their reference, prepared for the engine.
fn networks(
    models: &[Loaded],
    reference: Option<&Loaded>,
    options: &EvalOptions,
) -> Result<PreparedNetworks, Diagnostics> {
    // One model needs no name.
    let named = |model: &Loaded, error| if models.len() == 1 { error } else { files::at(&model.path, error) };
    // The dense network has no timesteps to run.
    let plain = EngineOptions { stepped: false, count: false, ..options.engine };
    let counting = EngineOptions { count: true, ..options.engine };
    if !options.split_layers {
        let dense = reference.map(|loaded| loaded.source.clone().program(&plain)).transpose()?;
        let program = |model: &Loaded| model.source.clone().program(&counting).map_err(|e| named(model, e));
        let programs = models.iter().map(program).collect::<Result<Vec<_>, _>>()?;
        return Ok(PreparedNetworks::Whole { programs, dense });
    }
    if options.recall || options.ledger {
        let message = "--recall and --ledger run whole networks";
        return Err(Diagnostic::new("--split-layers", message).code(ErrorCode::OPTION).into());
    }
    // One sequence runs at a time, so that threads share its rows.
    let split = |loaded: &Loaded, engine: &EngineOptions| {
        let engine = EngineOptions { threads: options.threads, ..*engine };
        SplitNetwork::new(loaded.source.clone(), &engine, None, options.ranks)
    };
    let dense = reference.map(|loaded| split(loaded, &plain)).transpose()?;
    let network = |model: &Loaded| split(model, &counting).map_err(|e| named(model, e));
    Ok(PreparedNetworks::Split { networks: models.iter().map(network).collect::<Result<_, _>>()?, dense })
}

/// The text as all models read it, and its windows.
fn text_of_all(
    first: &Loaded,
    others: &[Loaded],
    options: &EvalOptions,
) -> Result<(TextIds, Vec<Window>), Diagnostics> {
    let constants = std::iter::once(first).chain(others).find_map(|model| constant_start(&model.source.graph));
    let (text, windows) = text_of(first, constants, options)?;
    for other in others {
        let (own, own_windows) = text_of(other, constants, options)?;
        if (&own.ids, &own_windows) != (&text.ids, &windows) {
            let message = format!("reads the text as other tokens than {}", first.path.display());
            let note = "compile both with the same tokenizer and start token, or name a .npy file of ids (--tokens)";
            return Err(Diagnostic::new(other.path.display().to_string(), message).note(note).into());
        }
    }
    Ok((text, windows))
}

/// What the models of an evaluation share.
struct ComparedModels<'a> {
    options: &'a EvalOptions,
    text: &'a TextIds,
    reference: Option<&'a Loaded>,
    networks: &'a PreparedNetworks,
    workers: Workers<'a>,
}

impl ComparedModels<'_> {
    /// Of a model that was run.
    fn report(
        &self,
        at: usize,
        model: &Loaded,
        graph: &Graph,
        done: TextEvaluation,
    ) -> Result<EvalReport, Diagnostics> {
        let &Self { options, text: TextIds { ids, tokens_per_word, .. }, reference, networks, workers } = self;
        let section = model.calibration.as_deref();
        let spiking = model.source.graph.stage == Stage::Spiking;
        let beside = reference.map(|loaded| ReferenceKind::of(&loaded.source.graph));
        let json = section.and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
        let mut said = Vec::new();
        if spiking {
            said.extend(program_lints(graph, model.provenance.as_deref()));
            let perplexities = (done.score.perplexity(), done.score.perplexity_dense());
            said.extend(beside.and_then(|_| much_worse(perplexities.0, perplexities.1, "this text")));
            said.extend(lints(graph, json.as_ref(), ids, done.run, &done.events));
        }
        Ok(EvalReport {
            beside,
            tokens_per_word: *tokens_per_word,
            coverage: spiking.then(|| coverage(graph, &done.activity())),
            neurons: spiking.then(|| NeuronTotals::of(graph, &done)),
            lints: said,
            recalled: match networks {
                PreparedNetworks::Whole { programs, dense } if options.recall => {
                    let of = |program| recall(program, ids, usize::MAX, workers);
                    Some((of(&programs[at])?, dense.as_ref().map(of).transpose()?))
                }
                PreparedNetworks::Whole { .. } | PreparedNetworks::Split { .. } => None,
            },
            ledger: match reference {
                Some(reference) if options.ledger => {
                    let tensor = dense_tensor(reference.source.clone())?;
                    let trained = !ProgramRecord::of(model.provenance.as_deref()).training.is_empty();
                    let compiled = Some(graph).filter(|_| !trained);
                    Some(ledger_of((&model.path, compiled), &tensor, section, ids, options.ledger_tokens, workers)?)
                }
                _ => None,
            },
            done,
        })
    }
}

/// The text as a model reads it, and its windows. Each begins with `start`, where a program has constants for it.
fn text_of(model: &Loaded, start: Option<u32>, options: &EvalOptions) -> Result<(TextIds, Vec<Window>), Diagnostics> {
    let tokens = model.tokens_if_any(&options.start)?;
    let text = model.ids(&options.text, tokens.as_ref())?;
    let cut = Cut { length: None, stride: options.stride, windows: options.windows.unwrap_or(usize::MAX) };
    let context = model.source.graph.context as usize;
    let read = match (start, &text) {
        (Some(start), IdSource::Text { .. }) if context > 1 => {
            ids_for(&text, context - 1, cut)?.led_by(start, context - 1, cut)
        }
        _ => ids_for(&text, context, cut)?,
    };
    let windows = read.cut(context, cut);
    Ok((read, windows))
}

/// Refuses a model that comes from another network than the first.
fn same_network(first: &Loaded, other: &Loaded) -> Result<(), Diagnostics> {
    same_vocabulary(first, other)?;
    let refused =
        |message: String, note: &str| Err(Diagnostic::new(other.path.display().to_string(), message).note(note).into());
    let [own, context] = [other, first].map(|model| model.source.graph.context);
    if own != context {
        let message = format!("has a context of {own} tokens, {} one of {context}", first.path.display());
        return refused(message, "compile both with the same --context");
    }
    match [first, other].map(Loaded::compiled_from) {
        [Some(one), Some(another)] if one.xxh3 != another.xxh3 => {
            let message = format!("comes from another file than {}", first.path.display());
            refused(message, "evaluate programs of one network together, which were compiled from one file")
        }
        _ => Ok(()),
    }
}

/// Refuses a model whose losses cannot be told.
fn has_ledger(model: &Loaded, reference: Option<&Loaded>) -> Result<(), Diagnostics> {
    if model.source.graph.stage != Stage::Spiking {
        let message = "is a dense network: there is nothing to account for";
        return Err(Diagnostic::new(model.path.display().to_string(), message).into());
    }
    if reference.is_some_and(|loaded| ReferenceKind::of(&loaded.source.graph) == ReferenceKind::Spiking) {
        let message = "--reference is a spiking program: the ledger compares with the dense network";
        return Err(Diagnostic::new("--ledger", message).note("name the ONNX file").code(ErrorCode::OPTION).into());
    }
    Ok(())
}

/// An imported graph as ranges were measured on it.
///
/// # Errors
/// Parts that snnc does not know.
pub fn dense_tensor(source: ModelSource) -> Result<Graph, Diagnostics> {
    convert::dense(source.graph, source.rounded, &mut |_, _, _| {})
}

/// Refuses a reference that predicts another vocabulary than the model.
///
/// # Errors
/// It does.
pub fn same_vocabulary(model: &Loaded, reference: &Loaded) -> Result<(), Diagnostics> {
    let (own, other) = (vocabulary(&model.source.graph)?, vocabulary(&reference.source.graph)?);
    if own == other {
        return Ok(());
    }
    let message = format!("has a vocabulary of {other}, {} one of {own}", model.path.display());
    let note = "compare with the file that the program was compiled from";
    Err(Diagnostic::new(reference.path.display().to_string(), message).note(note).into())
}

/// The ledger of the program in `model`, which keeps `section` of its calibration. `compiled`: that program, where its weights are
/// still as they were rounded.
///
/// # Errors
/// It keeps none; a probe cannot be run; a request to stop.
pub fn ledger_of(
    (model, compiled): (&Path, Option<&Graph>),
    tensor: &Graph,
    section: Option<&[u8]>,
    ids: &[u32],
    tokens: Option<usize>,
    workers: Workers<'_>,
) -> Result<Ledger, Diagnostics> {
    let section = section.ok_or_else(|| {
        let message = "keeps nothing of its calibration, so its levels are not known";
        Diagnostics::from(Diagnostic::new(model.display().to_string(), message).note("compile the model again"))
    })?;
    let tensor = &as_calibrated(tensor.clone(), section, &mut |_, _, _| {}).map_err(|e| files::at(model, e))?;
    let calibration = Calibration::read(section, tensor).map_err(|e| files::at(model, e.into()))?;
    let calibration = match compiled {
        Some(program) => calibration.with_weights_of(program),
        None => calibration,
    };
    let windows = ledger::windows(tensor, ids, tokens.unwrap_or_else(|| ledger::tokens(tensor)));
    ledger(tensor, &calibration, ids, &windows, workers)
}
