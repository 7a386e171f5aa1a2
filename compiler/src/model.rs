//! A network that a user named, ready to be run: the file with its tokenizer, and the program that an engine takes.

use crate::convert::{self, BUILT_IN_TEXT, Sample};
use crate::files;
use crate::front::{self, OnnxOptions};
use crate::id_file::{IdFile, is_npy};
use crate::lints::Lint;
use crate::parallel::both;
use crate::program_lints::program_lints;
use crate::progress::Progress;
use crate::reading::IdSource;
use crate::record::{ProgramRecord, SourceRecord};
use crate::texts::SampleText;
use crate::tokens::Tokens;
use crate::tokens::find::{self, TokenizerFile};
use crate::tokens::start::{SpecialTokens, StartChoice, TokenizerHints};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Graph, LanguageConfig, Stage};
use snnc_passes::collapse;
use snnc_runtime::{Engine, KernelCosts, Options, Program};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Threads that work where the user names no number: one per core that this process may use.
pub fn threads_or_all(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

/// Which engine runs a program, and how. No result depends on it, only the speed.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Machine code, or the reference interpreter.
    pub engine: Engine,
    /// Run every timestep, spike by spike; otherwise time is collapsed.
    pub stepped: bool,
    /// Count spikes and operations.
    pub count: bool,
    /// Threads of one sequence.
    pub threads: usize,
    /// Keep each thread on a processor of its own.
    pub pin: bool,
    /// What rows of weights cost on this machine; typical costs without it.
    pub kernel_costs: Option<KernelCosts>,
}

impl EngineOptions {
    /// What of it the engine is told.
    pub fn of_engine(&self) -> Options {
        let &Self { engine, count, threads, pin, kernel_costs, .. } = self;
        Options { engine, count, threads, pin, kernel_costs, ..Options::default() }
    }
}

impl Default for EngineOptions {
    /// Machine code of the collapsed program on one thread, without counts.
    fn default() -> Self {
        Self { engine: Engine::Jit, stepped: false, count: false, threads: 1, pin: false, kernel_costs: None }
    }
}

/// A graph to run, and whether an imported one has its numbers from codes of eight bits.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// The graph.
    pub graph: Graph,
    /// Whether its numbers come from codes of eight bits.
    pub rounded: bool,
}

impl ModelSource {
    /// Whether it is a network that is not compiled.
    pub fn is_dense(&self) -> bool {
        matches!(self.graph.stage, Stage::Imported | Stage::Tensor)
    }

    /// The program that an engine takes: an imported graph is raised, a spiking one is collapsed unless every timestep is to
    /// run or the order of spikes matters.
    ///
    /// # Errors
    /// A dense network has no timesteps; a graph that cannot be planned.
    pub fn program(self, options: &EngineOptions) -> Result<Arc<Program>, Diagnostics> {
        self.program_within(options, None)
    }

    /// The same with a shorter context: of so many tokens, if a number is given.
    ///
    /// # Errors
    /// As of `program`; the network's own context is shorter.
    pub fn program_within(self, options: &EngineOptions, context: Option<u32>) -> Result<Arc<Program>, Diagnostics> {
        let graph = self.graph_to_run(options, context)?;
        Program::new(Arc::new(graph), &options.of_engine()).map(Arc::new).map_err(Diagnostics::from)
    }

    /// The graph of that program.
    ///
    /// # Errors
    /// As of `program_within`, but for a graph that cannot be planned.
    pub fn graph_to_run(self, options: &EngineOptions, context: Option<u32>) -> Result<Graph, Diagnostics> {
        let ModelSource { graph, rounded } = self;
        let mut graph = match graph.stage {
            Stage::Imported | Stage::Tensor if options.stepped => {
                return Err(Diagnostic::new("", "--stepped: a dense network has no timesteps; compile it first").into());
            }
            Stage::Imported => convert::raise(graph, rounded)?,
            Stage::Spiking if !options.stepped && !collapse::depends_on_order(&graph) => collapse::collapse(&graph)?,
            // A network in training is refused below.
            Stage::Tensor | Stage::Quantised | Stage::Spiking | Stage::Training => graph,
        };
        if let Some(context) = context {
            shorten_context(&mut graph, context)?;
        }
        Ok(graph)
    }
}

/// Gives a network a context of so many tokens, at most its own.
///
/// # Errors
/// Its own is shorter.
pub fn shorten_context(graph: &mut Graph, context: u32) -> Result<(), Diagnostic> {
    if context > graph.context {
        let what = format!("{context} tokens are more than the network's context of {}", graph.context);
        return Err(Diagnostic::new("--context", what).code(ErrorCode::OPTION));
    }
    graph.context = context;
    Ok(())
}

/// A model file with all that stands in it or beside it.
#[derive(Debug)]
pub struct Loaded {
    /// The file's name.
    pub path: PathBuf,
    /// Where the number comes from.
    pub source: ModelSource,
    /// What file or folder a dense network is.
    pub origin: Option<SourceRecord>,
    /// What a program keeps of its calibration, as JSON.
    pub calibration: Option<Vec<u8>>,
    /// What a program says of its making, as JSON.
    pub provenance: Option<Vec<u8>>,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<TokenizerFile>,
    /// What the user should know of it, though it is no error.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Reads a `.snn` with its tokenizer, or an ONNX file or a folder with the one beside or in it. The network of an ONNX file
    /// is proved to be the file's.
    ///
    /// # Errors
    /// What cannot be read or is no model; a network that is not its file's.
    pub fn read(path: &Path, onnx: &OnnxOptions) -> Result<Self, Diagnostics> {
        Ok(match front::load(path, onnx)? {
            files::Model::Dense(dense) => {
                let tokenizer = find::find(path, None)?;
                let proof = front::network(path, &dense, onnx.import_tolerance, None, &mut |_, _| {})?.proof;
                let warnings = dense.warnings().into_iter().chain(proof.and_then(|proof| proof.warning())).collect();
                let (origin, rounded) = (Some(SourceRecord::of(&dense)), dense.rounds_activations());
                let source = ModelSource { graph: dense.into_graph(), rounded };
                let path = path.to_path_buf();
                Self { path, source, origin, calibration: None, provenance: None, tokenizer, warnings }
            }
            files::Model::Snn(file) => Self {
                path: path.to_path_buf(),
                origin: None,
                source: ModelSource { graph: file.graph, rounded: false },
                tokenizer: stored_tokenizer(path, file.tokenizer, file.language, file.provenance.as_deref()),
                calibration: file.calibration,
                provenance: file.provenance,
                warnings: Vec::new(),
            },
        })
    }

    /// The tokenizer, without which text cannot be read, with what the user wants before every text.
    ///
    /// # Errors
    /// There is none, or it is none that snnc reads; it has no such start token.
    pub fn tokens(&self, start: &StartChoice) -> Result<Tokens, Diagnostics> {
        self.tokens_if_any(start)?.ok_or_else(|| self.no_tokenizer().into())
    }

    /// The tokenizer, if there is one, with what the user wants before every text.
    ///
    /// # Errors
    /// It is none that snnc reads; it has no such start token.
    pub fn tokens_if_any(&self, start: &StartChoice) -> Result<Option<Tokens>, Diagnostics> {
        self.tokenizer.as_ref().map(|file| tokens_for(&self.source.graph, file, start)).transpose()
    }

    /// The tokenizer and the program, which are made at the same time: as of `tokens` and of `ModelSource::program_within`.
    pub fn ready(
        &self,
        start: &StartChoice,
        options: &EngineOptions,
        context: Option<u32>,
    ) -> (Result<Tokens, Diagnostics>, Result<Arc<Program>, Diagnostics>) {
        both(|| self.tokens(start), || self.source.clone().program_within(options, context))
    }

    /// The file or folder that it is, or that it was compiled from; `None` where the program does not say.
    pub fn compiled_from(&self) -> Option<SourceRecord> {
        self.origin.clone().or_else(|| ProgramRecord::of(self.provenance.as_deref()).source)
    }

    /// What the user should know of the program before it is run, in words.
    pub fn lints(&self) -> Vec<String> {
        let lints = program_lints(&self.source.graph, self.provenance.as_deref());
        lints.iter().map(Lint::words).collect()
    }

    /// What is said of a model without a tokenizer where it needs one.
    pub fn no_tokenizer(&self) -> Diagnostic {
        Diagnostic::new(self.path.display().to_string(), "has no tokenizer, so text cannot be read or written")
            .note("compile with --tokenizer FILE, or put tokenizer.json beside the ONNX file")
            .note("a .npy file of token ids can be run without one (--tokens FILE, --calibrate FILE)")
    }

    /// A text by the model's tokenizer, or a `.npy` file of ids for the model.
    ///
    /// # Errors
    /// The file cannot be read; a text without a tokenizer; ids that the network has no row for.
    pub fn ids<'a>(&self, path: &Path, tokens: Option<&'a Tokens>) -> Result<IdSource<'a>, Diagnostics> {
        let rows = convert::vocabulary(&self.source.graph)?;
        Ok(IdSource::read(path, tokens.ok_or_else(|| self.no_tokenizer()), rows)?)
    }
}

/// The tokenizer that a program holds, with what the program remembers of its language. Programs of before remember that in
/// their provenance.
pub fn stored_tokenizer(
    path: &Path,
    json: Option<Vec<u8>>,
    language: Option<LanguageConfig>,
    provenance: Option<&[u8]>,
) -> Option<TokenizerFile> {
    let before = || {
        let SpecialTokens { start, end } = ProgramRecord::of(provenance).special_tokens?;
        Some(LanguageConfig { start, end, ..LanguageConfig::default() })
    };
    let hints = language.or_else(before).map_or_else(TokenizerHints::default, TokenizerHints::Program);
    json.map(|json| TokenizerFile { json, place: format!("{}: tokenizer", path.display()), hints })
}

/// A tokenizer for a network: ids that the network has no row for are errors.
///
/// # Errors
/// It is none that snnc reads; it has no such start token.
pub fn tokens_for(graph: &Graph, file: &TokenizerFile, start: &StartChoice) -> Result<Tokens, Diagnostics> {
    let tokens = Tokens::of(file, start)?;
    Ok(match convert::vocabulary(graph) {
        Ok(rows) => tokens.within(rows),
        Err(_) => tokens,
    })
}

/// What activation ranges are measured on: the text or the ids that a user named, the built-in text, or seeded ids where there
/// is no tokenizer.
///
/// # Errors
/// A named text that cannot be read, or that no tokenizer can take.
pub fn calibration_sample<'a>(
    tokens: Option<&'a Tokens>,
    named: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Sample<'a>, Diagnostics> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match (tokens, named) {
        (_, Some(path)) if is_npy(path) => Ok(Sample::Ids { name: name(path), file: IdFile::open(path)? }),
        (Some(tokens), Some(path)) => {
            let text = SampleText::read(path)?;
            Ok(Sample::Text { name: name(path), text, tokens })
        }
        (Some(tokens), None) => {
            Ok(Sample::Text { name: "the built-in text".into(), text: BUILT_IN_TEXT.into(), tokens })
        }
        (None, Some(path)) => Err(Diagnostics::from(
            Diagnostic::new(path.display().to_string(), "cannot be calibrated on: the model has no tokenizer")
                .note("name one with --tokenizer FILE, or calibrate on a .npy file of token ids"),
        )),
        (None, None) => {
            progress.warn(
                "no tokenizer, so calibrating on seeded random ids; name one with --tokenizer FILE, or ids with --calibrate FILE.npy",
            );
            Ok(Sample::SeededIds)
        }
    }
}
