//! The compiler from files to a file: an ONNX file or a Hugging Face folder in, a spiking program out, with all that the program keeps of its making.

use crate::calibration::Calibration;
use crate::convert::{self, ConvertOptions, Converted};
use crate::energy::{self, Block, Phase, PriceList, Setting, measure};
use crate::files::{self, Model};
pub use crate::front::GraphWatch;
use crate::front::{self, DenseNetwork, OnnxOptions, UNPROVED};
use crate::memory_budget::MemoryBudget;
use crate::model::{calibration_sample, shorten_context, tokens_for};
use crate::program_lints::{integrates_first, needs_training};
use crate::progress::Progress;
use crate::proof::Proof;
use crate::quant_options::spelled;
use crate::record::{ProgramRecord, SourceRecord};
use crate::spill_files::SpillFiles;
use crate::tokens::find;
use crate::tokens::start::StartChoice;
use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, WeightStore};
use snnc_passes::Pass;
use snnc_passes::collapse;
use snnc_passes::cost::{Form, Number};
use snnc_passes::options::QuantOptions;
use snnc_runtime::Options;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// What a compilation is told.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The ONNX file, or a folder.
    pub model: PathBuf,
    /// `tokenizer.json`, `vocab.json` with `merges.txt` beside it, or a folder of these; the one beside the model without one.
    pub tokenizer: Option<PathBuf>,
    /// What stands before every text; the program remembers it.
    pub start: StartChoice,
    /// Text, or `.npy` file of token ids, that activation ranges are measured on; a built-in one without one.
    pub calibrate: Option<PathBuf>,
    /// Tokens of that text to run; 16384 without a number, fewer for networks of more than 90 M weights.
    pub calibration_tokens: Option<usize>,
    /// Levels and their spelling, site by site.
    pub quant: QuantOptions,
    /// What the user says of the file.
    pub onnx: OnnxOptions,
    /// Threads for calibration; the result does not depend on them.
    pub threads: usize,
    /// What may be held in memory; the result does not depend on it.
    pub memory: MemoryBudget,
}

impl CompileOptions {
    /// The default options for a model.
    ///
    /// ```no_run
    /// use snnc::compile::{CompileOptions, compile};
    /// use snnc::progress::Silent;
    /// let options = CompileOptions::new("model.onnx".as_ref());
    /// let compiled = compile(&options, &Silent, &mut |_, _| {}).expect("it is a network that snnc compiles");
    /// compiled.write("model.snn".as_ref()).expect("the folder can be written");
    /// ```
    pub fn new(model: &Path) -> Self {
        Self {
            model: model.to_path_buf(),
            tokenizer: None,
            start: StartChoice::Auto,
            calibrate: None,
            calibration_tokens: None,
            quant: QuantOptions::default(),
            onnx: OnnxOptions::default(),
            threads: crate::model::threads_or_all(None),
            memory: MemoryBudget::default(),
        }
    }
}

/// A program with what is to be said of it.
#[derive(Debug)]
pub struct CompiledModel {
    /// The program as its file holds it.
    pub file: File,
    /// What levels were measured on, and which they are.
    pub calibration: Calibration,
    /// How near the imported network is to its file; `None` of a folder.
    pub proof: Option<Proof>,
    /// The options, as a user types them.
    pub options: String,
}

/// Compiles an ONNX file or a folder.
///
/// # Errors
/// What cannot be read, is no part that snnc knows, or differs from its file; a request to stop.
pub fn compile(
    options: &CompileOptions,
    progress: &dyn Progress,
    watch: &mut GraphWatch<'_>,
) -> Result<CompiledModel, Diagnostics> {
    let path = &options.model;
    let spill_files = options.memory.spill_files();
    let store = spill_files.as_ref().map(|files| files as &dyn WeightStore);
    let Model::Dense(dense) = front::load_kept(path, &options.onnx, store)? else {
        return Err(Diagnostic::new(path.display().to_string(), "is compiled already").into());
    };
    let tokenizer = find::find(path, options.tokenizer.as_deref())?;
    let tokens = tokenizer.as_ref().map(|file| tokens_for(dense.graph(), file, &options.start)).transpose()?;
    tokens.iter().filter_map(|tokens| tokens.excess()).for_each(|excess| progress.warn(&excess));
    let sample = calibration_sample(tokens.as_ref(), options.calibrate.as_deref(), progress)?;
    let DenseNetwork { mut tensor, network, proof } =
        front::network(path, &dense, options.onnx.import_tolerance, store, watch)?;
    if let Some(context) = options.onnx.context {
        shorten_context(&mut tensor, context)?;
    }
    let warning = proof.as_ref().and_then(Proof::warning);
    dense.warnings().iter().chain(&warning).for_each(|warning| progress.warn(warning));
    let mut watch = |pass: &Pass, _: &Graph, after: &Graph| watch(pass.name, after);
    let calibration_tokens = options
        .calibration_tokens
        .unwrap_or_else(|| convert::calibration_tokens(network.parameters, &options.quant))
        .max(1);
    let recipe = ConvertOptions { quant: options.quant.clone(), calibration_tokens, threads: options.threads };
    progress.status(&proof.as_ref().map_or_else(|| UNPROVED.to_string(), Proof::line));
    let source = SourceRecord::of(&dense);
    drop(dense);
    // Of the file, little but the embedding is read from here on: factors were folded into the rest.
    files::release_pages();
    let memory = options.memory.with(store);
    let converted = convert::spiking_watched(tensor, &sample, &recipe, memory, progress, &mut watch);
    let converted = converted.map_err(|diagnostics| {
        // What a pass refuses is in the file; a text or a request to stop is not.
        let in_the_file = diagnostics.iter().any(|diagnostic| diagnostic.code == ErrorCode::PASS);
        if in_the_file { files::at(path, diagnostics) } else { diagnostics }
    })?;
    spill_files.iter().filter_map(SpillFiles::line).for_each(|line| progress.status(&line));
    let Converted { graph, calibration, rotation, rotate, section } = converted;
    let kept = spelled(&QuantOptions { rotate, ..options.quant.clone() });
    let record = ProgramRecord {
        compiler: Some(format!("snnc {}", env!("CARGO_PKG_VERSION"))),
        source: Some(source),
        import: proof.as_ref().map(Proof::record),
        rotation,
        options: Some(kept.clone()),
        ..ProgramRecord::default()
    };
    needs_training(&graph).iter().chain(&integrates_first(&graph)).for_each(|words| progress.warn(words));
    let file = File {
        graph,
        // As the user has it: whoever reads the program reads it by the same rules.
        language: tokens.as_ref().map(|tokens| tokens.language().clone()),
        tokenizer: tokenizer.map(|file| file.json),
        calibration: Some(section.to_string().into_bytes()),
        provenance: Some(record.to_bytes()),
    };
    Ok(CompiledModel { file, calibration, proof, options: kept })
}

/// The name of a price list, and beside the network in each number format the share of energy that is saved.
pub type ExpectedSavings = (String, Vec<(&'static str, f64)>);

impl CompiledModel {
    /// Writes the program; its file's length in bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<u64, Diagnostic> {
        files::write_whole(path, |out| container::write(&self.file, out))?;
        Ok(std::fs::metadata(path).map_or(0, |meta| meta.len()))
    }

    /// The program as it is run: with levels instead of timesteps, unless the order of spikes matters.
    pub fn collapsed(&self) -> Cow<'_, Graph> {
        let graph = &self.file.graph;
        let collapsed = (!collapse::depends_on_order(graph)).then(|| collapse::collapse(graph).ok()).flatten();
        collapsed.map_or(Cow::Borrowed(graph), Cow::Owned)
    }

    /// What a prompt is expected to save by two price lists beside three dense networks, at the firing rates of the calibration
    /// text: by list and number format, as shares. `None` where a layer has no rate.
    pub fn expected_savings(&self) -> Option<Vec<ExpectedSavings>> {
        let graph = &self.file.graph;
        let context = u64::from(graph.context);
        let section = self.file.calibration.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let activity = measure::expected(graph, section.as_ref(), None, context).ok()?;
        let lists = ["paper45", "int45"].into_iter().filter_map(|name| PriceList::named(name).ok()).collect();
        let setting = Setting { context, batch: 1, span: Options::default().chunk as u64 };
        let estimate = energy::estimate(graph, &activity, setting, lists);
        let of = |list: &PriceList| {
            let beside = |(number, name)| {
                let (dense, spiking) = (Form::Dense(number), Form::Collapsed);
                let compared = estimate.compare(Block::Total, list, Phase::Prefill, dense, spiking);
                compared.saving().map(|share| (name, share))
            };
            let all = [(Number::F32, "f32"), (Number::F16, "f16"), (Number::Int8, "int8")];
            let all: Vec<_> = all.into_iter().filter_map(beside).collect();
            (!all.is_empty()).then(|| (list.name.clone(), all))
        };
        let lists: Vec<_> = estimate.lists.iter().filter_map(of).collect();
        (!lists.is_empty()).then_some(lists)
    }
}
