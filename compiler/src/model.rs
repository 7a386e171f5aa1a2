//! A network that a user named, ready to be run: the file with its tokenizer, and the program that an engine takes.

use crate::convert::{self, BUILT_IN_TEXT, Sample};
use crate::files;
use crate::progress::Progress;
use crate::tokens::{self, Tokens};
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
    /// `tokenizer.json`, if there is one.
    pub tokenizer: Option<Vec<u8>>,
    /// What the tokenizer is called in messages.
    pub tokenizer_place: String,
}

impl Loaded {
    /// Reads a `.snn` with its tokenizer, or an ONNX file with the one beside it.
    ///
    /// # Errors
    /// What cannot be read or is no model.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        Ok(match files::load(path)? {
            files::Model::Onnx(import) => {
                let (tokenizer, tokenizer_place) = find_tokenizer(path, None)?;
                let source = ModelSource { graph: import.graph, rounded: import.rounds_activations };
                let path = path.to_path_buf();
                Self { path, source, calibration: None, provenance: None, tokenizer, tokenizer_place }
            }
            files::Model::Snn(file) => Self {
                path: path.to_path_buf(),
                source: ModelSource { graph: file.graph, rounded: false },
                calibration: file.calibration,
                provenance: file.provenance,
                tokenizer: file.tokenizer,
                tokenizer_place: format!("{}: tokenizer", path.display()),
            },
        })
    }

    /// The tokenizer, without which text cannot be read.
    ///
    /// # Errors
    /// There is none, or it is none that snnc reads.
    pub fn tokens(&self) -> Result<Tokens, Diagnostics> {
        let json = self.tokenizer.as_ref().ok_or_else(|| {
            let what = "has no tokenizer, so text cannot be read or written";
            Diagnostics::from(
                Diagnostic::new(self.path.display().to_string(), what)
                    .note("compile with --tokenizer FILE, or put tokenizer.json beside the ONNX file"),
            )
        })?;
        Tokens::new(json, &self.tokenizer_place).map_err(Diagnostics::from)
    }
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
            let text = files::read_text(path)?;
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

/// The tokenizer file that a user named, or the one beside the model; and its name.
///
/// # Errors
/// The file cannot be read.
pub fn find_tokenizer(model: &Path, named: Option<&Path>) -> Result<(Option<Vec<u8>>, String), Diagnostics> {
    let path: Option<PathBuf> = named.map(Path::to_path_buf).or_else(|| tokens::beside(model));
    let Some(path) = path else { return Ok((None, String::new())) };
    let bytes = files::read_bytes(&path)?;
    Ok((Some(bytes), path.display().to_string()))
}
