//! An evaluation from files to a report: how well a program predicts text, beside the dense network it came from.

use crate::calibration::Calibration;
use crate::convert::{self, vocabulary};
use crate::eval_report::{EvalReport, ReferenceKind};
use crate::evaluate::{Cut, NeuronTotals, evaluate_windows};
use crate::files;
use crate::front::OnnxOptions;
use crate::ledger::{self, Ledger, ledger};
use crate::lints::{coverage, lints};
use crate::model::{EngineOptions, Loaded, ModelSource};
use crate::program_lints::{much_worse, program_lints};
use crate::progress::{Progress, Workers};
use crate::reading::{TextIds, ids_for};
use crate::recall::recall;
use crate::record::ProgramRecord;
use crate::rotation::as_calibrated;
use crate::tokens::start::StartChoice;
use serde_json::Value as Json;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, Stage};
use std::path::{Path, PathBuf};

/// What an evaluation is told.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// The `.snn` file, or an ONNX file, to measure the dense network.
    pub model: PathBuf,
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
}

impl EvalOptions {
    /// An evaluation on all of a text, with nothing beside it.
    pub fn new(model: &Path, text: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
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
        }
    }
}

/// Measures how well a model predicts text.
///
/// # Errors
/// What cannot be read or run; a reference of another vocabulary; a request to stop.
pub fn eval(options: &EvalOptions, progress: &dyn Progress) -> Result<EvalReport, Diagnostics> {
    let loaded = Loaded::read(&options.model, &options.onnx)?;
    loaded.warnings.iter().for_each(|warning| progress.warn(warning));
    let tokens = loaded.tokens_if_any(&options.start)?;
    let text = loaded.ids(&options.text, tokens.as_ref())?;
    let cut = Cut { length: None, stride: options.stride, windows: options.windows.unwrap_or(usize::MAX) };
    let context = loaded.source.graph.context as usize;
    let read = ids_for(&text, context, cut)?;
    let windows = read.cut(context, cut);
    let TextIds { ids, tokens_per_word, .. } = read;
    let reference = options.reference.as_deref().map(|path| Loaded::read(path, &options.onnx)).transpose()?;
    if let Some(reference) = &reference {
        same_vocabulary(&loaded, reference)?;
    }
    let spiking = loaded.source.graph.stage == Stage::Spiking;
    if options.ledger && !spiking {
        let message = "is a dense network: there is nothing to account for";
        return Err(Diagnostic::new(options.model.display().to_string(), message).into());
    }
    let beside = reference.as_ref().map(|loaded| ReferenceKind::of(&loaded.source.graph));
    if options.ledger && beside == Some(ReferenceKind::Spiking) {
        let message = "--reference is a spiking program: the ledger compares with the dense network";
        return Err(Diagnostic::new("--ledger", message).note("name the ONNX file").code(ErrorCode::OPTION).into());
    }
    let workers = Workers { threads: options.threads, progress };
    // The dense network has no timesteps to run.
    let engine = EngineOptions { stepped: false, count: false, ..options.engine };
    let dense = reference.as_ref().map(|loaded| loaded.source.clone().program(&engine)).transpose()?;
    let section = loaded.calibration;
    let program = loaded.source.program(&EngineOptions { count: true, ..options.engine })?;
    let done = evaluate_windows(&program, dense.as_ref(), &ids, &windows, workers)?;
    let json = section.as_deref().and_then(|bytes| serde_json::from_slice::<Json>(bytes).ok());
    let graph = program.graph();
    let mut said = Vec::new();
    if spiking {
        said.extend(program_lints(graph, loaded.provenance.as_deref()));
        let worse =
            beside.and_then(|_| much_worse(done.score.perplexity(), done.score.perplexity_dense(), "this text"));
        said.extend(worse);
        said.extend(lints(graph, json.as_ref(), &ids, done.run, &done.events));
    }
    Ok(EvalReport {
        beside,
        tokens_per_word,
        coverage: spiking.then(|| coverage(graph, &done.activity())),
        neurons: spiking.then(|| NeuronTotals::of(graph, &done)),
        lints: said,
        recalled: match options.recall {
            true => Some((recall(&program, &ids)?, dense.as_ref().map(|dense| recall(dense, &ids)).transpose()?)),
            false => None,
        },
        ledger: match reference {
            Some(reference) if options.ledger => {
                let tensor = dense_tensor(reference.source)?;
                let tokens = options.ledger_tokens;
                let trained = !ProgramRecord::of(loaded.provenance.as_deref()).training.is_empty();
                let compiled = Some(graph).filter(|_| !trained);
                Some(ledger_of((&options.model, compiled), &tensor, section.as_deref(), &ids, tokens, workers)?)
            }
            _ => None,
        },
        done,
    })
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
