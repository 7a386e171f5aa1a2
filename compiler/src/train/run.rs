//! A training run from files to a file: the corpus, the steps, checkpoints on the way, and a hybrid at the end.
//!
//! Law: a run that was interrupted and resumed gives the same file, bit for bit, as one that was not.

use super::adamw::Schedule;
use super::checkpoint::{self, State};
use super::comparison::{COMPARED_WINDOWS, Comparison};
use super::events::{RunIdentity, TrainEvent, TrainingRecord};
use super::hybrid::Search;
use super::stall::Stall;
use super::text::{TrainingSource, TrainingText};
use super::trainer::{Trainer, TrainerOptions};
use crate::calibration::Calibration;
use crate::convert::{self, Sample};
use crate::evaluate::Cut;
use crate::file_use::FileUse;
use crate::files::{self, FileId};
use crate::front::{self, OnnxOptions};
use crate::memory_budget::ConversionMemory;
use crate::model::{Loaded, calibration_sample, stored_tokenizer, tokens_for};
use crate::progress::{Progress, Workers};
use crate::quant_options::training_free;
use crate::ranks::{self, Alone, Ranks};
use crate::record::{HybridRecord, ProgramRecord};
use crate::rotation::as_calibrated;
use crate::tokens::Tokens;
use crate::tokens::start::StartChoice;
use serde_json::json;
use snnc_ir::ErrorCode;
use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::op::Surrogate;
use snnc_ir::{Diagnostic, Graph, text};
use snnc_passes::apply_parameters::apply_parameters;
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_passes::relax::{Loss, Recipe, Trainable as Parameters};
use snnc_runtime::{GradientProducts, Isa, Options, PlanOptions, Program, memory_limit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use xxhash_rust::xxh3::xxh3_64;

/// What a training run is told.
#[derive(Clone, Debug)]
pub struct TrainOptions {
    /// The `.snn` file.
    pub program: PathBuf,
    /// The dense network that the program was compiled from, or another program of it, whose predictions it learns.
    pub reference: PathBuf,
    /// What the user says of an ONNX file.
    pub onnx: OnnxOptions,
    /// The text to train on: a file, a `.npy` file of token ids, or documents in a folder or a `.jsonl` file.
    pub text: PathBuf,
    /// Texts to validate on, of which the first decides; without one the last twentieth of the text, which is then not trained on.
    pub validate: Vec<PathBuf>,
    /// What stands before a text; the trained program remembers it where it was asked for.
    pub start: StartChoice,
    /// Where the trained program goes. Its checkpoint lies beside it.
    pub output: PathBuf,
    /// What trains.
    pub parameters: Parameters,
    /// The loss.
    pub loss: Loss,
    /// What stands in for the derivative of a spike.
    pub surrogate: Surrogate,
    /// Whether products of the backward pass are rounded to bf16.
    pub gradients: GradientFormat,
    /// Whether values of the forward pass are computed again for the backward pass; it changes no result.
    pub recompute: Recompute,
    /// Tokens of a window.
    pub length: TrainLength,
    /// Windows of text per step.
    pub batch: usize,
    /// Tokens per window, at most the context; without a number at most 1024.
    pub window_tokens: Option<usize>,
    /// The learning rate at its height; without one what did well on networks of width 256.
    pub rate: Option<f32>,
    /// Weight decay, as a share of the rate.
    pub weight_decay: f32,
    /// The largest norm of a step's gradients.
    pub clip: f32,
    /// Steps until the learning rate is at its height.
    pub warm_up: u64,
    /// Seed of the windows' places.
    pub seed: u64,
    /// Go on from the checkpoint beside the output.
    pub resume: bool,
    /// Begin anew where there is a checkpoint beside the output; it is lost then.
    pub restart: bool,
    /// Time between checkpoints.
    pub checkpoint_every: Duration,
    /// Give layers back to attention by time to first spike until perplexity has risen by this share over the dense network's.
    pub hybrid: Option<f64>,
    /// Windows to validate on, of each text.
    pub validation_windows: usize,
    /// End after so many validations in a row that did not improve by more than their interval.
    pub patience: Option<u32>,
    /// Threads; the result does not depend on their number.
    pub threads: usize,
    /// Processes that share the windows of a step; the result does not depend on their number.
    pub ranks: &'static dyn Ranks,
}

impl TrainOptions {
    /// What is done where nothing else is asked for.
    pub fn new(program: &Path, reference: &Path, text: &Path, output: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            reference: reference.to_path_buf(),
            onnx: OnnxOptions::default(),
            text: text.to_path_buf(),
            validate: Vec::new(),
            start: StartChoice::Auto,
            output: output.to_path_buf(),
            parameters: Parameters::Ssa,
            loss: Loss::Divergence,
            surrogate: Surrogate::Arctan,
            gradients: GradientFormat::F32,
            recompute: Recompute::Auto,
            length: TrainLength::Minutes(MINUTES),
            batch: 6,
            window_tokens: None,
            rate: None,
            weight_decay: 0.0,
            clip: 1.0,
            warm_up: 30,
            seed: 0,
            resume: false,
            restart: false,
            checkpoint_every: Duration::from_secs(60),
            hybrid: None,
            validation_windows: 16,
            patience: None,
            threads: crate::model::threads_or_all(None),
            ranks: &Alone,
        }
    }

    /// The files that a run reads and writes.
    pub fn files(&self) -> FileUse {
        let used = FileUse::default().reads_models("the program", [&self.program]);
        let used = used.reads_models("--reference", [&self.reference]).reads("--text", [&self.text]);
        let used = used.reads("--validate", &self.validate).writes("-o", [&self.output]);
        used.writes("the checkpoint", [checkpoint_path(&self.output)])
    }

    /// What did well on networks of width 256; units of parameters follow the weights, so that wider ones need not differ much.
    fn rate(&self) -> f32 {
        self.rate.unwrap_or(match self.parameters {
            Parameters::Ssa | Parameters::Thresholds => 2e-3,
            Parameters::Lora(_) | Parameters::All => 1e-3,
        })
    }

    /// # Errors
    /// Gradients in a format that this processor does not multiply.
    fn trainer(&self, window: usize) -> Result<TrainerOptions, Diagnostic> {
        Ok(TrainerOptions {
            plan: PlanOptions {
                products: self.gradients.products()?,
                recompute_above: match self.recompute {
                    Recompute::Always => 0,
                    Recompute::Never => u64::MAX,
                    Recompute::Auto => memory_limit() / RECOMPUTE_SHARE / self.threads.clamp(1, self.batch) as u64,
                },
            },
            recipe: Recipe { train: self.parameters, loss: self.loss, surrogate: self.surrogate },
            rates: Schedule {
                rate: self.rate(),
                weight_decay: self.weight_decay,
                clip: self.clip,
                warm_up: self.warm_up,
                steps: 1,
            },
            batch: self.batch,
            window,
            seed: self.seed,
            threads: self.threads,
            ranks: self.ranks,
        })
    }

    /// Refuses ranks that would train something else.
    fn agree(&self, identity: &RunIdentity, validation: &[ValidationSet]) -> Result<(), Diagnostic> {
        if self.ranks.count() == 1 {
            return Ok(());
        }
        let mut all = serde_json::to_value(identity).unwrap_or_default();
        let hash = |set: &ValidationSet| format!("{:016x}", xxh3_64(bytemuck::cast_slice(&set.ids)));
        all["validation"] = json!(validation.iter().map(hash).collect::<Vec<String>>());
        let Self { length, resume, hybrid, validation_windows, patience, .. } = self;
        all["options"] = json!(format!("{length:?}, {resume}, {hybrid:?}, {validation_windows}, {patience:?}"));
        ranks::agree(self.ranks, &all)
    }

    /// What a checkpoint belongs to.
    fn identity(&self, program: &Graph, reference: &Graph, text: u64, window_tokens: usize) -> RunIdentity {
        let hash = |graph: &Graph| format!("{:016x}", xxh3_64(text::print(graph).as_bytes()));
        RunIdentity {
            program: hash(program),
            reference: hash(reference),
            text: format!("{text:016x}"),
            parameters: self.parameters.to_string(),
            loss: loss_name(self.loss).into(),
            surrogate: self.surrogate.name().into(),
            gradients: match self.gradients.products() {
                Ok(GradientProducts::Bf16(unit)) => unit.name().into(),
                _ => "f32".into(),
            },
            batch: self.batch,
            window_tokens,
            rate: self.rate(),
            weight_decay: self.weight_decay,
            clip: self.clip,
            warm_up: self.warm_up,
            seed: self.seed,
            isa: snnc_runtime::Isa::detect().map_or("unknown", snnc_runtime::Isa::name).into(),
        }
    }
}

/// Whether the backward pass computes values of the forward pass again, which takes time and saves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Where all threads' values would take more than an eighth of the memory that there is.
    Auto,
    /// Wherever it saves memory.
    Always,
    /// Never.
    Never,
}

/// Values may take this share of memory before some are computed again.
const RECOMPUTE_SHARE: u64 = 8;

/// The numbers that products of the backward pass multiply; their sums are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradientFormat {
    /// f32.
    F32,
    /// bf16, to which operands are rounded.
    Bf16,
}

impl GradientFormat {
    /// By the unit of this processor.
    ///
    /// # Errors
    /// It has none.
    pub fn products(self) -> Result<GradientProducts, Diagnostic> {
        match self {
            Self::F32 => Ok(GradientProducts::F32),
            Self::Bf16 => {
                let unit = Isa::detect().ok().and_then(Isa::bf16_unit);
                unit.map(GradientProducts::Bf16).ok_or_else(|| {
                    let message = "this processor, or SNNC_ISA, has no products of bf16 (AMX-BF16 or AVX512-BF16)";
                    Diagnostic::new("--gradients", message).code(ErrorCode::OPTION).note("use --gradients f32")
                })
            }
        }
    }
}

/// How long a run trains.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TrainLength {
    /// 0 trains nothing, for a hybrid of a program that was trained before.
    Steps(u64),
    /// Made a number of steps at the start, which is kept.
    Minutes(f64),
}

/// Minutes that are trained where nothing is asked for.
pub const MINUTES: f64 = 10.0;

/// Steps that are timed to turn minutes into steps.
const TIMED: u64 = 3;

/// Validations of a run, the one before the first step not counted.
const VALIDATIONS: u64 = 10;

/// Bytes of documents that a hybrid is calibrated on, at most.
const CALIBRATED: usize = 1 << 20;

/// Tokens of a window where nothing is asked for, at most.
const WINDOW_TOKENS: usize = 1024;

/// How a loss is called: `kl`, `ce` or `transfer`.
pub fn loss_name(loss: Loss) -> &'static str {
    match loss {
        Loss::Divergence => "kl",
        Loss::CrossEntropy => "ce",
        Loss::Transfer => "transfer",
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The output is written.
    Finished,
    /// It was cancelled; the checkpoint has everything.
    Interrupted {
        /// It.
        step: u64,
        /// Timesteps.
        steps: u64,
        /// It.
        checkpoint: PathBuf,
    },
}

/// Who is told of a training run.
pub type TrainWatch<'a> = dyn FnMut(&TrainEvent) -> Result<(), Diagnostics> + 'a;

/// What a program learns from.
struct Corpus<'a> {
    text: TrainingText<'a>,
    /// Of its text, and of what stands before it if the user says so.
    hash: u64,
    /// At least one; the first decides which parameters are best.
    validation: Vec<ValidationSet>,
    /// Tokens run together.
    window: usize,
}

impl Corpus<'_> {
    /// The ids that programs are compared on.
    fn compared(&self) -> &[u32] {
        self.validation.first().map_or(&[], |set| &set.ids)
    }
}

/// A text to validate on.
struct ValidationSet {
    /// Its file, as it was named.
    name: String,
    ids: Vec<u32>,
}

/// A run at work: what it was told, and who watches.
struct TrainingRun<'a, 'w> {
    options: &'a TrainOptions,
    progress: &'a dyn Progress,
    watch: &'a mut TrainWatch<'w>,
    checkpoint: Checkpoint,
}

/// The file of a run's state. A run replaces, and in the end removes, only what it wrote itself or was told to take over.
struct Checkpoint {
    path: PathBuf,
    /// The file that is this run's; `None` before it is written.
    own: Option<FileVersion>,
}

/// One state of a file: another one has other values.
#[derive(Clone, Debug, PartialEq)]
struct FileVersion {
    id: FileId,
    bytes: u64,
    written: Option<SystemTime>,
}

impl FileVersion {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Self { id: FileId::of(path)?, bytes: meta.len(), written: meta.modified().ok() })
    }
}

impl Checkpoint {
    /// Takes over the checkpoint that is there, where the user said so.
    fn begin(options: &TrainOptions) -> Result<Self, Diagnostics> {
        let path = checkpoint_path(&options.output);
        let refused = |place: String, message: &str, note: &str| {
            Err(Diagnostic::new(place, message).code(ErrorCode::CHECKPOINT).note(note).into())
        };
        if options.resume && options.length == TrainLength::Steps(0) {
            return refused("--resume".into(), "0 steps go on with nothing", "leave out --resume or --steps 0");
        }
        let own = FileVersion::of(&path);
        if own.is_some() && !options.resume && !options.restart {
            let note = "use --resume to go on with it, or --restart to begin anew; --restart gives it up";
            return refused(path.display().to_string(), "is the checkpoint of a run that has not ended", note);
        }
        Ok(Self { path, own })
    }

    /// Refuses to replace what another run has written since.
    fn check_own(&self) -> Result<(), Diagnostic> {
        let now = FileVersion::of(&self.path);
        if now.is_none() || now == self.own {
            return Ok(());
        }
        let message = "was written by another run since this one began; it is left as it is";
        let note = "two runs need two outputs: start this one again with another";
        Err(Diagnostic::new(self.path.display().to_string(), message).code(ErrorCode::CHECKPOINT).note(note))
    }

    /// Rank 0 alone writes it.
    fn save(&mut self, trainer: &Trainer, begun: &Begun) -> Result<(), Diagnostic> {
        if !trainer.options.ranks.is_first() {
            return Ok(());
        }
        self.check_own()?;
        save_checkpoint(trainer, begun, &self.path)?;
        self.own = FileVersion::of(&self.path);
        Ok(())
    }

    /// Removes it, if it is this run's.
    fn remove(&self) {
        if self.check_own().is_ok() {
            // What is gone already is what is wanted.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Trains a program on text and writes it.
///
/// # Errors
/// What cannot be read, trained or written; a request to stop before or after the steps. One during the steps is no error:
/// the run is then interrupted, and its checkpoint is whole.
pub fn train(
    options: &TrainOptions,
    progress: &dyn Progress,
    watch: &mut TrainWatch<'_>,
) -> Result<Outcome, Diagnostics> {
    let trains = options.length != TrainLength::Steps(0);
    if !trains && options.hybrid.is_none() {
        let message = "0 steps train nothing; give it a number of steps, or --hybrid as well";
        return Err(Diagnostic::new("--steps", message).code(ErrorCode::TRAINING).into());
    }
    options.files().check()?;
    let checkpoint = Checkpoint::begin(options)?;
    let file = program_file(&options.program)?;
    let tokens = tokenizer_of(&file, options)?;
    let reference = reference_graph(options, &file)?;
    let context = file.graph.context.min(reference.context) as usize;
    let corpus = corpus(options, &file, tokens.as_ref(), context)?;
    let mut run = TrainingRun { options, progress, watch, checkpoint };
    let mut record = ProgramRecord::of(file.provenance.as_deref());
    // What programs of before say of it is what the tokenizer was made by.
    record.special_tokens = None;
    let mut graph = file.graph.clone();
    if trains {
        match run.learn(&file.graph, &reference, &corpus, &mut record)? {
            Learned::Graph(learned) => graph = *learned,
            Learned::Interrupted(outcome) => return Ok(outcome),
        }
    }
    if let Some(budget) = options.hybrid {
        graph = run.hybrid_of(graph, &reference, &corpus, budget, tokens.as_ref(), &mut record)?;
    }
    let after = run.compare(&graph, &reference, &corpus)?;
    (run.watch)(&TrainEvent::After { program: after.clone() })?;
    record.measured = Some(after);
    let language = tokens.as_ref().map(|tokens| tokens.language().clone()).or_else(|| file.language.clone());
    let written = File { graph, provenance: Some(record.to_bytes()), language, ..file };
    if !options.ranks.is_first() {
        return Ok(Outcome::Finished);
    }
    files::write_whole(&options.output, |out| container::write(&written, out))?;
    progress.status(&format!("{}: written", options.output.display()));
    // The program is whole; what led to it is of no more use.
    if trains {
        run.checkpoint.remove();
    }
    Ok(Outcome::Finished)
}

fn program_file(path: &Path) -> Result<File, Diagnostics> {
    match front::load(path, &OnnxOptions::default())? {
        files::Model::Snn(file) => Ok(*file),
        files::Model::Dense(_) => {
            let message = "is a dense network; compile it first, and train the program";
            Err(Diagnostic::new(path.display().to_string(), message).code(ErrorCode::TRAINING).into())
        }
    }
}

fn tokenizer_of(file: &File, options: &TrainOptions) -> Result<Option<Tokens>, Diagnostics> {
    let (json, language) = (file.tokenizer.clone(), file.language.clone());
    let stored = stored_tokenizer(&options.program, json, language, file.provenance.as_deref());
    stored.map(|stored| tokens_for(&file.graph, &stored, &options.start)).transpose()
}

/// What the program learns from, which must be of its vocabulary: the dense network, or a program of it. The dense network is rotated
/// as the program is, so that blocks add the same parts to the residual stream.
fn reference_graph(options: &TrainOptions, program: &File) -> Result<Graph, Diagnostics> {
    let path = &options.reference;
    let Loaded { source, calibration, .. } = Loaded::read(path, &options.onnx)?;
    let refused = |message: &str, note: &str| {
        Diagnostics::from(Diagnostic::new(path.display().to_string(), message).code(ErrorCode::TRAINING).note(note))
    };
    let is_dense = source.is_dense();
    let teacher = match is_dense {
        true => convert::dense(source.graph, source.rounded, &mut |_, _, _| {})?,
        false if options.hybrid.is_some() => {
            let note = "name the ONNX file or folder that the program was compiled from";
            return Err(refused("is a compiled program, and --hybrid converts the dense network", note));
        }
        false => source.graph,
    };
    let width = |graph: &Graph| graph.outputs.first().and_then(|(_, value)| graph.ty(*value).shape().width());
    if width(&teacher) != width(&program.graph) {
        let note = "name the ONNX file or folder that the program was compiled from, or another program of it";
        return Err(refused("predicts another vocabulary than the program", note));
    }
    if !is_dense {
        let rotations = |section: Option<&[u8]>| section.map_or(Ok(Rotations::default()), Calibration::rotations);
        let both = [program.calibration.as_deref(), calibration.as_deref()].map(rotations);
        let [own, other] = both.into_iter().collect::<Result<Vec<_>, _>>()?[..] else { unreachable!("two") };
        // Predictions are the same however a network is rotated.
        if options.loss == Loss::Transfer && own != other {
            let message = "is rotated in another way than the program, so their blocks cannot be compared";
            return Err(refused(message, "compile both with the same --rotate, or name the dense network"));
        }
        return Ok(teacher);
    }
    match &program.calibration {
        Some(section) => as_calibrated(teacher, section, &mut |_, _, _| {}),
        None => Ok(teacher),
    }
}

fn corpus<'a>(
    options: &TrainOptions,
    file: &File,
    tokens: Option<&'a Tokens>,
    context: usize,
) -> Result<Corpus<'a>, Diagnostics> {
    let rows = convert::vocabulary(&file.graph)?;
    let read = |path: &Path| {
        let lacking = || {
            let what = "has no tokenizer, so text cannot be read or written";
            Diagnostic::new(options.program.display().to_string(), what)
                .code(ErrorCode::TRAINING)
                .note("compile with --tokenizer FILE, or train on a .npy file of token ids")
        };
        TrainingSource::read(path, tokens.ok_or_else(lacking), rows)
    };
    let text = read(&options.text)?;
    let hash = match (&options.start, tokens) {
        (StartChoice::Auto, _) | (_, None) => text.hash(),
        (_, Some(tokens)) => text.hash() ^ xxh3_64(format!("{:?}", tokens.start()).as_bytes()),
    };
    let (text, last) = TrainingText::of(text, options.validate.is_empty())?;
    let named = |path: &PathBuf| -> Result<ValidationSet, Diagnostic> {
        Ok(ValidationSet { name: path.display().to_string(), ids: read(path)?.validation_ids()? })
    };
    let mut validation = options.validate.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    if validation.is_empty() {
        validation.push(ValidationSet { name: options.text.display().to_string(), ids: last });
    }
    let window = options.window_tokens.unwrap_or(WINDOW_TOKENS).min(context);
    let train = (options.text.display().to_string(), "to train on", text.len());
    let validate = validation.iter().map(|set| (set.name.clone(), "to validate on", set.ids.len()));
    for (place, what, count) in std::iter::once(train).chain(validate) {
        if count < window + 2 {
            let message = format!("{count} tokens {what} are less than a window of {window} and one more");
            let note = "use a longer text, or a smaller --window-tokens";
            return Err(Diagnostic::new(place, message).code(ErrorCode::TRAINING).note(note).into());
        }
    }
    Ok(Corpus { text, hash, validation, window })
}

/// What is known of a run from its beginning, and stays: whoever resumes it reads it from the checkpoint.
struct Begun {
    identity: RunIdentity,
    /// The program before the first step.
    before: Comparison,
}

/// What came of the steps.
enum Learned {
    Graph(Box<Graph>),
    Interrupted(Outcome),
}

impl TrainingRun<'_, '_> {
    fn workers(&self) -> Workers<'_> {
        Workers { threads: self.options.threads, progress: self.progress, ranks: self.options.ranks }
    }

    /// The program after all steps, as it was best. What was done is added to what the program says of its making.
    fn learn(
        &mut self,
        program: &Graph,
        reference: &Graph,
        corpus: &Corpus<'_>,
        record: &mut ProgramRecord,
    ) -> Result<Learned, Diagnostics> {
        let options = self.options;
        let mut trainer = Trainer::new(program, reference, options.trainer(corpus.window)?)
            .map_err(|e| files::at(&options.program, e))?;
        let identity = options.identity(program, reference, corpus.hash, corpus.window);
        options.agree(&identity, &corpus.validation)?;
        let mut resumed = None;
        if options.resume {
            resumed = Some(self.resume(&mut trainer, &identity)?);
        } else {
            trainer.options.rates.steps = match options.length {
                TrainLength::Steps(steps) => steps,
                // Clocks differ: the number is that of rank 0.
                TrainLength::Minutes(minutes) => {
                    ranks::gathered(options.ranks, &steps_in(&mut trainer, &corpus.text, minutes)?)?[0]
                }
            };
        }
        let steps = trainer.options.rates.steps;
        self.progress.status(&format!(
            "training {} numbers in {} parameters, {steps} steps of {} windows of {} tokens, {:.0} MB",
            trainer.parameters().map(|(_, count)| count).sum::<usize>(),
            trainer.parameters().count(),
            options.batch,
            corpus.window,
            trainer.bytes() as f64 / 1e6
        ));
        let before = match resumed {
            Some(before) => before,
            None => {
                let before = self.compare(program, reference, corpus)?;
                (self.watch)(&TrainEvent::Before { program: before.clone() })?;
                before
            }
        };
        let begun = Begun { identity, before };
        if !self.steps(&mut trainer, &begun, corpus)? {
            let (step, checkpoint) = (trainer.step, self.checkpoint.path.clone());
            return Ok(Learned::Interrupted(Outcome::Interrupted { step, steps, checkpoint }));
        }
        let graph = apply_parameters(program, &trainer.constants()?)?;
        snnc_ir::verify::verify(&graph)?;
        self.progress.status(&match trainer.best_step {
            0 => "no step was better than the start: a smaller --rate may help".into(),
            step => format!("best after step {step}"),
        });
        let (best_step, losses) = (trainer.best_step, trainer.losses.clone());
        let Begun { identity: run, before } = begun;
        // Runs one after the other, as of weights and then of thresholds.
        record.training.push(TrainingRecord { run, steps, best_step, losses, before: Some(before) });
        Ok(Learned::Graph(Box::new(graph)))
    }

    /// Goes on where the checkpoint stands. What the program was before the run.
    fn resume(&self, trainer: &mut Trainer, identity: &RunIdentity) -> Result<Comparison, Diagnostics> {
        let place = self.checkpoint.path.display().to_string();
        let bytes = files::read_bytes(&self.checkpoint.path)
            .map_err(|e| Diagnostics::from(e.note("there is nothing to resume; leave out --resume")))?;
        ranks::agree(self.options.ranks, &json!({ "checkpoint": format!("{:016x}", xxh3_64(&bytes)) }))?;
        let (state, numbers) = checkpoint::read(&bytes, &place)?;
        let others = differences(&state.run, identity);
        let names: Vec<(String, usize)> = trainer.parameters().map(|(name, count)| (name.clone(), count)).collect();
        if !others.is_empty() || names != state.parameters {
            let message = format!("belongs to another run: these differ: {}", others.join(", "));
            let note = "give the options of that run, or begin anew with --restart";
            return Err(Diagnostic::new(place, message).code(ErrorCode::TRAINING).note(note).into());
        }
        if let TrainLength::Steps(asked) = self.options.length
            && asked != state.steps
        {
            let message = format!("is of a run of {} steps, --steps says {asked}", state.steps);
            let note = "the learning rate follows the number of steps: leave out --steps";
            return Err(Diagnostic::new(place, message).code(ErrorCode::TRAINING).note(note).into());
        }
        trainer.options.rates.steps = state.steps;
        trainer.numbers = numbers;
        (trainer.step, trainer.best_step, trainer.losses) = (state.step, state.best_step, state.losses);
        trainer.stall = state.stall;
        self.progress.status(&format!("resuming after step {} of {}", state.step, state.steps));
        Ok(state.before)
    }

    /// Steps until all are done; false where somebody wanted them to end.
    fn steps(&mut self, trainer: &mut Trainer, begun: &Begun, corpus: &Corpus<'_>) -> Result<bool, Diagnostics> {
        let steps = trainer.options.rates.steps;
        let sets: Vec<Vec<&[u32]>> = corpus.validation.iter().map(|set| self.windows_of(set, corpus.window)).collect();
        let stalled = |trainer: &Trainer| self.options.patience.is_some_and(|most| most <= trainer.stall.validations);
        let tokens = (trainer.options.batch * trainer.options.window) as u64;
        self.progress.begin("training", steps);
        self.progress.advance(trainer.step);
        let (start, first) = (Instant::now(), trainer.step);
        let mut saved = Instant::now();
        let mut recent = 0.0;
        if trainer.losses.is_empty() {
            self.validate(trainer, corpus, &sets)?;
        }
        while trainer.step < steps && !stalled(trainer) {
            let done = trainer.advance(&corpus.text)?;
            recent = if recent == 0.0 { done.loss } else { 0.9 * recent + 0.1 * done.loss };
            let tokens_per_s = tokens as f64 * (trainer.step - first) as f64 / start.elapsed().as_secs_f64();
            self.progress.advance(1);
            self.progress.message(&format!("loss {recent:.4}, {tokens_per_s:.0} tokens/s"));
            let event = TrainEvent::Step {
                step: trainer.step,
                loss: done.loss,
                norm: done.norm,
                rate: done.rate,
                tokens: trainer.step * tokens,
                tokens_per_s,
            };
            if let Err(mut failed) = (self.watch)(&event) {
                // Whoever watches has failed, not the run: nothing that was learned is lost.
                failed.extend(self.checkpoint.save(trainer, begun).err());
                return Err(failed);
            }
            let every = (steps / VALIDATIONS).max(1);
            if trainer.step.is_multiple_of(every) || trainer.step == steps {
                self.validate(trainer, corpus, &sets)?;
            }
            let stop = ranks::any(self.options.ranks, self.progress.is_cancelled())?;
            if stop || saved.elapsed() > self.options.checkpoint_every {
                self.checkpoint.save(trainer, begun)?;
                saved = Instant::now();
            }
            if stop && trainer.step < steps {
                self.progress.end();
                return Ok(false);
            }
        }
        self.progress.end();
        if stalled(trainer) && trainer.step < steps {
            let Stall { validations, .. } = trainer.stall;
            let (step, word) = (trainer.step, if validations == 1 { "validation" } else { "validations" });
            self.progress
                .status(&format!("ended after step {step} of {steps}: {validations} {word} without improvement"));
        }
        // What follows may fail, as by a full disk: nothing that was learned is lost then.
        self.checkpoint.save(trainer, begun)?;
        Ok(true)
    }

    /// Windows to validate on, spread evenly.
    fn windows_of<'s>(&self, set: &'s ValidationSet, window: usize) -> Vec<&'s [u32]> {
        let most = (set.ids.len() - 1) / window;
        let some = self.options.validation_windows.min(most);
        (0..some).map(|i| i * most / some * window).map(|at| &set.ids[at..=at + window]).collect()
    }

    /// Validates on windows of all sets.
    fn validate(
        &mut self,
        trainer: &mut Trainer,
        corpus: &Corpus<'_>,
        sets: &[Vec<&[u32]>],
    ) -> Result<(), Diagnostics> {
        let (step, steps) = (trainer.step, trainer.options.rates.steps);
        for (i, (windows, set)) in sets.iter().zip(&corpus.validation).enumerate() {
            let first = i == 0;
            let loss = if first { trainer.validate(windows)? } else { trainer.loss(windows)? };
            let set = (!first).then(|| set.name.clone());
            let best = first && trainer.best_step == step;
            (self.watch)(&TrainEvent::Validation { step, loss, best, set, steps })?;
        }
        Ok(())
    }

    fn compare(&self, program: &Graph, reference: &Graph, corpus: &Corpus<'_>) -> Result<Comparison, Diagnostics> {
        Comparison::of(program, reference, corpus.compared(), corpus.window, self.workers())
    }

    /// Some layers of the trained program, the others by time to first spike.
    fn hybrid_of(
        &mut self,
        trained: Graph,
        reference: &Graph,
        corpus: &Corpus<'_>,
        budget: f64,
        tokens: Option<&Tokens>,
        record: &mut ProgramRecord,
    ) -> Result<Graph, Diagnostics> {
        let engine = Options { count: false, ..Options::default() };
        let dense = Program::new(Arc::new(reference.clone()), &engine)?;
        let options = record.options.as_deref().and_then(training_free);
        if options.is_none() {
            self.progress.warn(
                "the program does not say how it was compiled; its layers by time to first spike have the default options",
            );
        }
        // The reference is rotated already.
        let quant = QuantOptions { rotate: Rotate::These(Rotations::default()), ..options.unwrap_or_default() };
        let convert_options = convert::ConvertOptions {
            calibration_tokens: convert::calibration_tokens(reference.parameters(), &quant),
            quant,
            threads: self.options.threads,
        };
        let sample = match &corpus.text {
            TrainingText::Documents { documents, tokens, .. } => {
                Sample::Text { name: documents.place().into(), text: documents.beginning(CALIBRATED)?, tokens }
            }
            TrainingText::Ids(_) | TrainingText::Long { .. } | TrainingText::File { .. } => {
                calibration_sample(tokens, Some(&self.options.text), self.progress)?
            }
        };
        let memory = ConversionMemory::default();
        let ttfs = convert::spiking_watched(
            reference.clone(),
            &sample,
            &convert_options,
            memory,
            self.progress,
            &mut |_, _, _| {},
        )?
        .graph;
        let search = Search {
            trained: &trained,
            ttfs: &ttfs,
            dense: &Arc::new(dense),
            ids: corpus.compared(),
            cut: Cut { length: None, stride: None, windows: COMPARED_WINDOWS },
            workers: self.workers(),
            budget,
        };
        let found = search.run()?;
        for choice in &found.measured {
            (self.watch)(&TrainEvent::Hybrid { choice: choice.clone() })?;
        }
        match found.kept {
            Some((choice, graph)) => {
                self.progress.status(&format!("chosen: {}", choice.words()));
                record.hybrid = Some(HybridRecord::of(&choice));
                Ok(graph)
            }
            None => {
                self.progress.status("no layer stays within the budget: all keep attention by time to first spike");
                let layers = ttfs.nodes.iter().filter(|node| node.op.has_state()).count();
                record.hybrid = Some(HybridRecord { ttfs: (0..layers).collect(), measured: None });
                Ok(ttfs)
            }
        }
    }
}

/// The fields in which two runs differ.
fn differences(a: &RunIdentity, b: &RunIdentity) -> Vec<String> {
    let fields = |run| serde_json::to_value(run).unwrap_or_default();
    let (a, b) = (fields(a), fields(b));
    let differs = |(key, value): (&String, &serde_json::Value)| (a.get(key) != Some(value)).then(|| key.clone());
    b.as_object().into_iter().flatten().filter_map(differs).collect()
}

/// Where the state of a run lies: beside its output.
pub fn checkpoint_path(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".checkpoint");
    output.with_file_name(name)
}

fn save_checkpoint(trainer: &Trainer, begun: &Begun, path: &Path) -> Result<(), Diagnostic> {
    let state = State {
        version: checkpoint::VERSION,
        run: begun.identity.clone(),
        before: begun.before.clone(),
        steps: trainer.options.rates.steps,
        step: trainer.step,
        best_step: trainer.best_step,
        losses: trainer.losses.clone(),
        stall: trainer.stall.clone(),
        parameters: trainer.parameters().map(|(name, count)| (name.clone(), count)).collect(),
    };
    files::write_whole(path, |out| checkpoint::write(&state, &trainer.numbers, out))
        .map_err(|e| e.note("the checkpoint before this one, if there is one, is whole: --resume goes on from it"))
}

/// How many steps so many minutes hold, by timing some that change nothing.
fn steps_in(trainer: &mut Trainer, text: &TrainingText<'_>, minutes: f64) -> Result<u64, Diagnostic> {
    trainer.gradients(text, 0)?;
    let start = Instant::now();
    (1..=TIMED).try_for_each(|step| trainer.gradients(text, step).map(drop))?;
    let a_step = start.elapsed().as_secs_f64() / TIMED as f64;
    Ok(((60.0 * minutes / a_step) as u64).max(1))
}
