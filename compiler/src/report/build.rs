//! A report from files: everything that can be said of a program with the files that were named.

use super::blocks::blocks;
use super::compare::{check_same_tokens, summary};
use super::contents::{
    AttentionKeys, CalibrationFacts, FileFacts, Missing, NetworkFacts, Report, ReportSources, file_name, worse,
};
use super::inputs::{TrainingCurve, read_front};
use super::passes::passes;
use super::run::{Gathered, gather};
use super::runs::{RunSummary, tell_apart};
use super::trace::{NeuronTrace, TraceChoice, trace};
use crate::energy::{PriceList, Setting, estimate};
use crate::eval::{dense_tensor, ledger_of, same_vocabulary};
use crate::eval_report::{EvalReport, ReferenceKind};
use crate::evaluate::{Cut, NeuronTotals};
use crate::files;
use crate::front::OnnxOptions;
use crate::id_file::is_npy;
use crate::lints::{coverage, lints};
use crate::model::{EngineOptions, Loaded};
use crate::program_lints::{much_worse, program_lints};
use crate::progress::{Progress, Workers};
use crate::reading::ids_for;
use crate::record::ProgramRecord;
use crate::tokens::Tokens;
use crate::tokens::start::{SpecialTokens, StartChoice, TokenizerHints};
use serde_json::Value as Json;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Stage};
use snnc_passes::collapse;
use snnc_runtime::Options;
use std::path::{Path, PathBuf};

/// Windows of a text too long to be held that a report reads.
const WINDOWS: usize = 1024;

/// What a report is told.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// The `.snn` file.
    pub model: PathBuf,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// Other programs of the same network, which are compared with it on the text.
    pub others: Vec<PathBuf>,
    /// What `snnc tune --json` printed.
    pub tune: Option<PathBuf>,
    /// What `snnc train --json` printed.
    pub training: Option<PathBuf>,
    /// The neuron whose membrane is shown; `None` shows no membrane.
    pub neuron: Option<TraceChoice>,
    /// Text to run; without it only the program itself is shown.
    pub text: Option<PathBuf>,
    /// What stands before the text.
    pub start: StartChoice,
    /// Tokens of the text to run, from its start; at most the context's.
    pub tokens: usize,
    /// The ONNX file that the program came from.
    pub reference: Option<PathBuf>,
    /// Say what every site loses, by cause.
    pub ledger: bool,
    /// Tokens that the ledger runs on; what takes a few minutes without a number.
    pub ledger_tokens: Option<usize>,
    /// Price lists of energy.
    pub lists: Vec<PriceList>,
    /// Which engine runs it, and how.
    pub engine: EngineOptions,
    /// Threads; nothing that is shown depends on them.
    pub threads: usize,
}

impl ReportOptions {
    /// Of the program alone.
    pub fn new(model: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            onnx: OnnxOptions::default(),
            others: Vec::new(),
            tune: None,
            training: None,
            neuron: Some(TraceChoice::default()),
            text: None,
            start: StartChoice::Auto,
            tokens: 128,
            reference: None,
            ledger: false,
            ledger_tokens: None,
            lists: PriceList::built_in(),
            engine: EngineOptions::default(),
            threads: crate::model::threads_or_all(None),
        }
    }
}

/// All that is to be seen of a program, beside other programs where some are named.
///
/// # Errors
/// What cannot be read or run; a reference that is not of the program's vocabulary; programs that are not of one network; a
/// request to stop.
pub fn build(options: &ReportOptions, progress: &dyn Progress) -> Result<Report, Diagnostics> {
    // Bad files are told of before any run.
    let front = options.tune.as_deref().map(read_front).transpose()?;
    let training = options.training.as_deref().map(TrainingCurve::read).transpose()?;
    if !options.others.is_empty() && options.text.is_none() {
        let diagnostic = Diagnostic::new("", "several programs are compared on a text").code(ErrorCode::OPTION);
        return Err(diagnostic.note("name one: --text FILE").into());
    }
    let mut report = build_one(options, progress)?;
    let mut runs: Vec<RunSummary> = summary(&report).into_iter().collect();
    for model in &options.others {
        let one = ReportOptions { model: model.clone(), ledger: false, neuron: None, ..options.clone() };
        let other = build_one(&one, progress)?;
        check_same_tokens(&report, &other)?;
        runs.extend(summary(&other));
    }
    if runs.len() > 1 {
        tell_apart(&mut runs);
        report.runs = runs;
    }
    Ok(Report { front, training, ..report })
}

fn build_one(options: &ReportOptions, progress: &dyn Progress) -> Result<Report, Diagnostics> {
    let model = Loaded::read(&options.model, &options.onnx)?;
    if model.source.graph.stage != Stage::Spiking {
        let message = "is a dense network, which has no spikes to show";
        let diagnostic = Diagnostic::new(options.model.display().to_string(), message).note("compile it first");
        return Err(diagnostic.into());
    }
    // A text that cannot be read is told of before a large reference is read.
    if options.text.as_deref().is_some_and(|path| !is_npy(path)) {
        model.tokens(&options.start)?;
    }
    let record = record_of(&model);
    let reference = options.reference.as_deref().map(|path| read_reference(path, &options.onnx)).transpose()?;
    let (reference, dense_file) = reference.unzip();
    if let Some(reference) = &reference {
        same_vocabulary(&model, reference)?;
    }
    for lint in program_lints(&model.source.graph, model.provenance.as_deref()) {
        progress.warn(&lint.words());
    }
    let provenance = sources(&model, record, dense_file, progress)?;
    let mut report = Report {
        network: Some(NetworkFacts::of(&model.source.graph)),
        missing: missing(options),
        worse: worse(&program_lints(&model.source.graph, model.provenance.as_deref())),
        ..Report::new(&file_name(&options.model), provenance)
    };
    let mut run = TextRun { options, model: &model, reference: reference.as_ref(), progress };
    if let Some(path) = &options.text {
        run.on_text(path, &mut report)?;
    }
    let tensor = reference.as_ref().map(|reference| dense_tensor(reference.source.clone())).transpose()?;
    report.blocks = blocks(&model.source.graph, tensor.as_ref());
    let options = report.provenance.compiled.as_ref().and_then(|record| record.options.as_deref());
    let own_embedding = options.is_some_and(|options| options.contains("--embedding own"));
    let dense = reference.map(|reference| (reference.source.graph, reference.source.rounded));
    report.passes = Some(passes(&model.source.graph, dense, model.calibration.as_deref(), own_embedding)?);
    Ok(report)
}

/// What a program says of its making.
fn record_of(model: &Loaded) -> Option<ProgramRecord> {
    let mut record = model.provenance.as_deref().and_then(|bytes| serde_json::from_slice::<ProgramRecord>(bytes).ok());
    if let (Some(record), Some(TokenizerHints::Program(language))) =
        (&mut record, model.tokenizer.as_ref().map(|file| &file.hints))
    {
        record.special_tokens = Some(SpecialTokens::of(language));
    }
    record
}

/// Where an evaluation comes from: its files, and what the program says of its making.
///
/// # Errors
/// A file cannot be read.
pub fn evaluation_sources(
    [model, text]: [&Path; 2],
    reference: Option<&Path>,
    onnx: &OnnxOptions,
    command: String,
) -> Result<ReportSources, Diagnostics> {
    let loaded = Loaded::read(model, onnx)?;
    let record = record_of(&loaded);
    // A folder has many files; what it holds is known by its origin.
    let facts = |path: &Path| match Loaded::read(path, onnx)?.origin {
        Some(origin) => Ok(FileFacts { name: file_name(path), bytes: origin.bytes, xxh3: origin.xxh3 }),
        None => file_facts(path),
    };
    let dense = reference.map(facts).transpose()?;
    let program = facts(model)?;
    let source = record.as_ref().and_then(|record| record.source.as_ref());
    let spiking = loaded.source.graph.stage == Stage::Spiking;
    let compared = |dense: &FileFacts| source.map(|source| dense.xxh3 == source.xxh3);
    Ok(ReportSources {
        snnc: env!("CARGO_PKG_VERSION").into(),
        dense_is_source: dense.as_ref().filter(|_| spiking).and_then(compared),
        program: Some(program),
        dense,
        // A pipe is read by now.
        text: if text.is_file() { Some(file_facts(text)?) } else { None },
        calibration: loaded.calibration.as_deref().and_then(|s| serde_json::from_slice::<CalibrationFacts>(s).ok()),
        compiled: record,
        command,
        ..ReportSources::default()
    })
}

/// The dense network, and what file it is.
fn read_reference(path: &Path, onnx: &OnnxOptions) -> Result<(Loaded, FileFacts), Diagnostics> {
    let loaded = Loaded::read(path, onnx)?;
    let Some(origin) = &loaded.origin else {
        let message = "is a compiled program, where an ONNX file or a folder was expected";
        return Err(Diagnostic::new(path.display().to_string(), message).into());
    };
    let facts = FileFacts { name: file_name(path), bytes: origin.bytes, xxh3: origin.xxh3.clone() };
    Ok((loaded, facts))
}

/// Where everything but the text comes from.
fn sources(
    model: &Loaded,
    compiled: Option<ProgramRecord>,
    dense: Option<FileFacts>,
    progress: &dyn Progress,
) -> Result<ReportSources, Diagnostics> {
    let source = compiled.as_ref().and_then(|record| record.source.as_ref());
    let dense_is_source = dense.as_ref().zip(source).map(|(dense, source)| dense.xxh3 == source.xxh3);
    if let (Some(false), Some(dense)) = (dense_is_source, &dense) {
        progress.warn(&format!("{} is not the file that the program was compiled from", dense.name));
    }
    Ok(ReportSources {
        snnc: env!("CARGO_PKG_VERSION").into(),
        program: Some(file_facts(&model.path)?),
        dense,
        dense_is_source,
        calibration: model.calibration.as_deref().and_then(|s| serde_json::from_slice::<CalibrationFacts>(s).ok()),
        compiled,
        ..ReportSources::default()
    })
}

/// What the report lacks, and how to get it.
fn missing(options: &ReportOptions) -> Vec<Missing> {
    let lacks = [
        (options.text.is_none(), "spikes, levels, energy and predictions", "run the program on a text: --text FILE"),
        (
            options.reference.is_none(),
            "the dense network beside it, and the IR by pass",
            "name the ONNX file or folder: --reference MODEL.onnx",
        ),
        (!options.ledger, "where every error comes from", "--text FILE --reference MODEL.onnx --ledger"),
    ];
    let missing = lacks.into_iter().filter(|(lacks, ..)| *lacks);
    missing.map(|(_, part, how)| Missing { part, how: how.into() }).collect()
}

/// A program on a text.
struct TextRun<'a> {
    options: &'a ReportOptions,
    model: &'a Loaded,
    reference: Option<&'a Loaded>,
    progress: &'a dyn Progress,
}

impl TextRun<'_> {
    /// Runs the program on the text and puts what was seen into the report.
    fn on_text(&mut self, path: &Path, report: &mut Report) -> Result<(), Diagnostics> {
        let tokens = self.model.tokens_if_any(&self.options.start)?;
        let text = self.model.ids(path, tokens.as_ref())?;
        let (bytes, xxh3) = (text.bytes() as u64, format!("{:016x}", text.hash()));
        report.provenance.text = Some(FileFacts { name: file_name(path), bytes, xxh3 });
        let cut = Cut { length: None, stride: None, windows: WINDOWS };
        let read = ids_for(&text, self.model.source.graph.context as usize, cut)?;
        if read.windows.is_some() {
            self.progress.warn(&format!("{} is long: {WINDOWS} windows of it are read", text.place()));
        }
        self.on_ids(&read.ids, tokens.as_ref(), read.tokens_per_word, report)
    }

    fn on_ids(
        &mut self,
        ids: &[u32],
        tokens: Option<&Tokens>,
        tokens_per_word: Option<f64>,
        report: &mut Report,
    ) -> Result<(), Diagnostics> {
        let (options, program) = (self.options, &self.model.source.graph);
        let most = options.tokens.min(program.context as usize);
        let shown = &ids[..ids.len().min(most + 1)];
        report.provenance.tokens = Some([shown.len().saturating_sub(1), ids.len().saturating_sub(1)]);
        let stepped = options.engine.stepped || collapse::depends_on_order(program);
        let graph = if stepped { program.clone() } else { collapse::collapse(program)? };
        // The dense network has no timesteps to run.
        let beside = EngineOptions { stepped: false, ..options.engine };
        let dense = self.reference.map(|reference| reference.source.clone().program(&beside)).transpose()?;
        let engine = Options { engine: options.engine.engine, threads: options.threads, ..Options::default() };
        let section = self.model.calibration.as_deref();
        let json: Option<Json> = section.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Gathered { done, predictions, layers } =
            gather(program, &graph, dense.as_ref(), shown, tokens, json.as_ref(), &engine, self.progress)?;
        let context = shown.len().saturating_sub(1) as u64;
        let setting = Setting { context, batch: 1, span: engine.chunk as u64 };
        report.energy = Some(estimate(&graph, &done.activity(), setting, options.lists.clone()).json());
        let far = dense
            .as_ref()
            .and_then(|_| much_worse(done.score.perplexity(), done.score.perplexity_dense(), "this text"));
        far.iter().for_each(|lint| self.progress.warn(&lint.words()));
        let mut said = program_lints(program, self.model.provenance.as_deref());
        said.extend(far);
        said.extend(lints(&graph, json.as_ref(), shown, done.run, &done.events));
        let evaluation = EvalReport {
            beside: dense.as_ref().map(|_| ReferenceKind::Dense),
            tokens_per_word,
            coverage: Some(coverage(&graph, &done.activity())),
            neurons: Some(NeuronTotals::of(&graph, &done)),
            lints: said,
            ledger: match self.reference {
                Some(reference) if options.ledger => {
                    let tensor = dense_tensor(reference.source.clone())?;
                    let trained = !ProgramRecord::of(self.model.provenance.as_deref()).training.is_empty();
                    let compiled = Some(program).filter(|_| !trained);
                    let workers = Workers::alone(options.threads, self.progress);
                    Some(ledger_of((&options.model, compiled), &tensor, section, ids, options.ledger_tokens, workers)?)
                }
                _ => None,
            },
            recalled: None,
            done,
        };
        report.worse = worse(&evaluation.lints);
        report.evaluation = Some(evaluation.json());
        report.attention = AttentionKeys::of(&graph, &evaluation.done.events);
        if let Some(choice) = &options.neuron {
            report.neuron = self.trace(shown, choice, tokens, &engine)?;
        }
        (report.predictions, report.layers) = (predictions, layers);
        Ok(())
    }
}

impl TextRun<'_> {
    /// The membrane of the chosen neuron; what cannot be traced is an error only where it was asked for.
    fn trace(
        &self,
        ids: &[u32],
        choice: &TraceChoice,
        tokens: Option<&Tokens>,
        engine: &Options,
    ) -> Result<Option<NeuronTrace>, Diagnostics> {
        match trace(&self.model.source.graph, ids, choice, tokens, engine) {
            Ok(trace) => Ok(Some(trace)),
            Err(e) if e.code == ErrorCode::OPTION && *choice == TraceChoice::default() => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

/// What file a path names.
fn file_facts(path: &Path) -> Result<FileFacts, Diagnostics> {
    let unread = |e| Diagnostics::from(Diagnostic::new(path.display().to_string(), format!("cannot be read: {e}")));
    let bytes = files::map(path).map_err(unread)?;
    Ok(FileFacts::of(path, (*bytes).as_ref()))
}
