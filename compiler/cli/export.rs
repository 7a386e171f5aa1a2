//! `snnc export`: a program in the format of another tool.

use crate::args::StartArgs;
use crate::output::status;
use clap::{Args, ValueEnum};
use snnc::evaluate::Cut;
use snnc::export::nir::dialect::{Dialect, Fidelity};
use snnc::export::nir::manifest::NirManifest;
use snnc::export::nir::{self, NirOptions};
use snnc::export::sana_fe::{self, ChipPlacement, SanaFeOptions};
use snnc::export::{onnx, record};
use snnc::file_use::FileUse;
use snnc::front::OnnxOptions;
use snnc::model::Loaded;
use snnc::reading::ids_for;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode};
use snnc_runtime::Options;
use std::path::PathBuf;

/// Formats of other tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// ONNX, for any runtime: time is collapsed, synapses are MatMulInteger, logits are the same to the bit
    Onnx,
    /// NIR, a folder: chains of synapses and time-stepped neurons, each rated faithful, approximate or unsupported
    Nir,
    /// SANA-FE, a folder: time-stepped neurons with integer thresholds, and their places on its model of Loihi
    #[value(name = "sana-fe")]
    SanaFe,
    /// NumPy: spikes, levels and potentials of a run
    Npz,
}

/// How groups of neurons come to cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlacementName {
    /// Every group begins a core
    Layers,
    /// Groups that read the same spikes share cores: fewer messages
    Packed,
}

/// Write a program in the format of another tool
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  snnc export model.snn --to onnx -o spiking.onnx
  snnc export model.snn --to nir --dialect norse -o islands
  snnc export model.snn --to sana-fe --text test.txt -o chip
  snnc export model.snn --to npz --text test.txt -o run.npz")]
pub struct ExportCommand {
    /// The .snn file
    model: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT")]
    to: ExportFormat,
    /// Output file; with --to nir and --to sana-fe a folder
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Version of ONNX's operators, 17 to 27; from 27 on linear attention is the operator LinearAttention
    #[arg(long, value_name = "N", default_value_t = onnx::OPSET, value_parser = clap::value_parser!(i64).range(onnx::OPSET..=onnx::OPSET_MAX), help_heading = "ONNX")]
    opset: i64,
    /// Whose understanding of NIR to write for: nir, snntorch, norse, sinabs or spikingjelly
    #[arg(long, value_name = "DIALECT", default_value = "nir", value_parser = dialect, help_heading = "NIR")]
    dialect: Dialect,
    /// How groups of neurons come to cores
    #[arg(long, value_name = "HOW", default_value = "layers", help_heading = "SANA-FE")]
    placement: PlacementName,
    /// Text, or .npy file of token ids, to run. --to npz needs one; --to nir and --to sana-fe then write spikes as well
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    text: Option<PathBuf>,
    /// Tokens to run from the start of the text
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Run")]
    limit: u32,
    #[command(flatten)]
    start: StartArgs,
}

fn dialect(text: &str) -> Result<Dialect, String> {
    Dialect::from_name(text).ok_or_else(|| format!("there are {}", Dialect::ALL.map(Dialect::name).join(", ")))
}

impl ExportCommand {
    pub fn files(&self) -> FileUse {
        let used = FileUse::default().reads_models("the model", [&self.model]).reads("--text", &self.text);
        match self.to {
            ExportFormat::Onnx | ExportFormat::Npz => used.writes("-o", [&self.output]),
            ExportFormat::Nir | ExportFormat::SanaFe => {
                used.writes_in_folder("-o", [self.output.join("manifest.json")])
            }
        }
    }

    pub fn run(self) -> Result<(), Diagnostics> {
        let loaded = Loaded::read(&self.model, &OnnxOptions::default())?;
        let graph = &loaded.source.graph;
        if loaded.source.is_dense() {
            let error = Diagnostic::new(self.model.display().to_string(), "is a dense network, which has no spikes");
            return Err(error.code(ErrorCode::EXPORT).note("compile it first").into());
        }
        match self.to {
            ExportFormat::Onnx => {
                let exported = onnx::export(graph, self.opset)?;
                status(&exported.proof.line());
                let written = onnx::write(exported, &self.output)?;
                let data = if written.has_data_file { " with the weights in a file beside it" } else { "" };
                status(&format!("{}: {:.1} MB{data}", self.output.display(), written.bytes as f64 / 1e6));
            }
            ExportFormat::Nir => {
                let ids = self.ids(&loaded)?;
                let options = NirOptions { dialect: self.dialect, folder: &self.output, trace: ids.as_deref() };
                self.summarise(&nir::export(graph, &options)?);
            }
            ExportFormat::SanaFe => {
                let ids = self.ids(&loaded)?;
                let placement =
                    if self.placement == PlacementName::Packed { ChipPlacement::Packed } else { ChipPlacement::Layers };
                let options = SanaFeOptions { placement, folder: &self.output, trace: ids.as_deref() };
                let made = sana_fe::export(graph, &options)?;
                let messages =
                    made.messages_per_token.map_or(String::new(), |count| format!(", {count:.0} messages per token"));
                status(&format!(
                    "{}: {} neurons and {} synapses on {} of {} cores{messages}",
                    self.output.display(),
                    made.neurons,
                    made.synapses,
                    made.cores,
                    made.cores_of_chip
                ));
                status(&format!("all neurons of the program would take {} cores", made.cores_of_network));
                let rounding = made.groups.iter().filter_map(|group| group.rounding).fold(0.0, f64::max);
                status(&format!("approximate: {}: {rounding:.1e}", made.reason));
            }
            ExportFormat::Npz => {
                let ids = self.ids(&loaded)?.ok_or_else(|| {
                    let error = Diagnostic::new("--to npz", "there is no text to run").code(ErrorCode::OPTION);
                    error.note("name one with --text FILE")
                })?;
                let file = record::record(graph, &ids, &Options::default())?;
                file.write(&self.output)?;
                status(&format!("{}: {} arrays of {} tokens", self.output.display(), file.len(), ids.len()));
            }
        }
        Ok(())
    }

    /// The first tokens of the text.
    fn ids(&self, loaded: &Loaded) -> Result<Option<Vec<u32>>, Diagnostics> {
        let Some(path) = &self.text else { return Ok(None) };
        let tokens = loaded.tokens_if_any(&self.start.start)?;
        let source = loaded.ids(path, tokens.as_ref())?;
        let limit = (self.limit as usize).min(loaded.source.graph.context as usize);
        let read = ids_for(&source, limit, Cut { windows: 1, length: Some(limit), stride: None })?;
        let mut ids = read.ids;
        ids.truncate(limit);
        if ids.is_empty() {
            return Err(Diagnostic::new(source.place().to_string(), "has no tokens").code(ErrorCode::FILE).into());
        }
        Ok(Some(ids))
    }

    /// How many islands there are of each kind, and what they hold.
    fn summarise(&self, manifest: &NirManifest) {
        let count = |rating: Fidelity| manifest.islands.iter().filter(|island| island.rating == rating).count();
        status(&format!(
            "{}: {} islands for {}, {} of them faithful and {} approximate; they hold {:.1} % of the synaptic weights",
            self.output.display(),
            manifest.islands.len(),
            manifest.dialect,
            count(Fidelity::Faithful),
            count(Fidelity::Approximate),
            100.0 * manifest.weights_in_islands
        ));
        let mut told = Vec::new();
        for reason in manifest.islands.iter().flat_map(|island| &island.nodes).filter_map(|node| node.reason.as_ref()) {
            if !told.contains(&reason) {
                told.push(reason);
                status(&format!("approximate: {reason}"));
            }
        }
        if let Some(first) = manifest.unsupported.first() {
            status(&format!(
                "unsupported: {} layers of neurons, such as {} at {}: {}",
                manifest.unsupported.len(),
                first.neuron,
                first.site,
                first.reason
            ));
        }
    }
}
