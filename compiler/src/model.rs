//! A network that a user named, ready to be run: the file with its tokenizer, and the program that an engine takes.

use crate::convert::{self, BUILT_IN_TEXT, Sample};
use crate::files;
use crate::front::{self, OnnxOptions};
use crate::progress::Progress;
use crate::record::ProgramRecord;
use crate::texts::SampleText;
use crate::tokens::Tokens;
use crate::tokens::find::{self, TokenizerFile};
use crate::tokens::start::{StartChoice, TokenizerHints};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, Graph, Stage};
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
    /// The program that an engine takes: an imported graph is raised, a spiking one is collapsed unless every timestep is to
    /// run or the order of spikes matters.
    ///
    /// # Errors
    /// A dense network has no timesteps; a graph that cannot be planned.
    pub fn program(self, options: &EngineOptions) -> Result<Arc<Program>, Diagnostics> {
        let ModelSource { graph, rounded } = self;
        let graph = match graph.stage {
            Stage::Imported if options.stepped => {
                return Err(Diagnostic::new("", "--stepped: a dense network has no timesteps; compile it first").into());
            }
            Stage::Imported => convert::raise(graph, rounded)?,
            Stage::Spiking if !options.stepped && !collapse::depends_on_order(&graph) => collapse::collapse(&graph)?,
            // A network in training is refused below.
            Stage::Tensor | Stage::Quantised | Stage::Spiking | Stage::Training => graph,
        };
        let &EngineOptions { engine, count, threads, pin, kernel_costs, .. } = options;
        let options = Options { engine, count, threads, pin, kernel_costs, ..Options::default() };
        Program::new(Arc::new(graph), &options).map(Arc::new).map_err(Diagnostics::from)
    }
}

/// A model file with all that stands in it or beside it.
#[derive(Debug)]
pub struct Loaded {
    /// The file's name.
    pub path: PathBuf,
    /// Where the number comes from.
    pub source: ModelSource,
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
    /// Reads a `.snn` with its tokenizer, or an ONNX file with the one beside it. The network of an ONNX file is proved to be
    /// the file's.
    ///
    /// # Errors
    /// What cannot be read or is no model; a network that is not its file's.
    pub fn read(path: &Path, onnx: &OnnxOptions) -> Result<Self, Diagnostics> {
        Ok(match files::load_with(path, &onnx.of_file(path))? {
            files::Model::Onnx(import) => {
                let tokenizer = find::find(path, None)?;
                let proof = front::network(path, &import, onnx.import_tolerance, &mut |_, _| {})?.proof;
                let warnings = import.warnings().into_iter().chain(proof.warning()).collect();
                let source = ModelSource { graph: import.graph, rounded: import.rounds_activations };
                let path = path.to_path_buf();
                Self { path, source, calibration: None, provenance: None, tokenizer, warnings }
            }
            files::Model::Snn(file) => Self {
                path: path.to_path_buf(),
                source: ModelSource { graph: file.graph, rounded: false },
                tokenizer: stored_tokenizer(path, file.tokenizer, file.provenance.as_deref()),
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
        let file = self.tokenizer.as_ref().ok_or_else(|| {
            let what = "has no tokenizer, so text cannot be read or written";
            Diagnostics::from(
                Diagnostic::new(self.path.display().to_string(), what)
                    .note("compile with --tokenizer FILE, or put tokenizer.json beside the ONNX file"),
            )
        })?;
        tokens_for(&self.source.graph, file, start)
    }
}

/// The tokenizer that a program holds, with what the program remembers of its start token.
pub fn stored_tokenizer(path: &Path, json: Option<Vec<u8>>, provenance: Option<&[u8]>) -> Option<TokenizerFile> {
    let resolved = ProgramRecord::of(provenance).special_tokens;
    let hints = TokenizerHints { resolved, ..TokenizerHints::default() };
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

/// The text that activation ranges are measured on: the text that a user named, the built-in one, or seeded ids where there
/// is no tokenizer.
///
/// # Errors
/// A named text that cannot be read, or that no tokenizer can take.
pub fn calibration_sample<'a>(
    tokens: Option<&'a Tokens>,
    named: Option<&Path>,
    progress: &dyn Progress,
) -> Result<Sample<'a>, Diagnostics> {
    match (tokens, named) {
        (Some(tokens), Some(path)) => {
            let text = SampleText::read(path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Sample::Text { name, text, tokens })
        }
        (Some(tokens), None) => {
            Ok(Sample::Text { name: "the built-in text".into(), text: BUILT_IN_TEXT.into(), tokens })
        }
        (None, Some(path)) => Err(Diagnostics::from(
            Diagnostic::new(path.display().to_string(), "cannot be calibrated on: the model has no tokenizer")
                .note("name one with --tokenizer FILE"),
        )),
        (None, None) => {
            progress.warn("no tokenizer, so calibrating on seeded random ids; name one with --tokenizer FILE");
            Ok(Sample::SeededIds)
        }
    }
}
