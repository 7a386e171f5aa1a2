//! Whether a file can be compiled, what network it holds, and what compiling takes.

use crate::convert;
use crate::describe::{Network, NetworkJson};
use crate::files::{self, DenseModel, Model};
use crate::front::{self, DenseNetwork, OnnxOptions};
use crate::model::{calibration_sample, tokens_for};
use crate::progress::Silent;
use crate::proof::Proof;
use crate::record::SourceRecord;
use crate::tokens::find;
use crate::tokens::start::StartChoice;
use schemars::JsonSchema;
use serde::Serialize;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::verify::LOGITS;
use snnc_passes::options::QuantOptions;
use std::path::Path;

/// A file that can be compiled.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The file itself.
    pub file: CheckedFile,
    /// What network it holds.
    pub network: Network,
    /// What the user should know of it, though it can be compiled.
    pub warnings: Vec<String>,
}

/// The file itself.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckedFile {
    /// Its length.
    pub bytes: u64,
    /// XXH3-64.
    pub xxh3: String,
    /// What wrote it.
    pub producer: String,
    /// The version of the ONNX operators, of an ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// ONNX nodes, of an ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
    /// The description by which a folder was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Tensors of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<usize>,
    /// The output that the network is compiled for.
    pub output: String,
}

impl CheckedFile {
    fn of(dense: &DenseModel) -> Self {
        let SourceRecord { bytes, xxh3, producer, opset, architecture } = SourceRecord::of(dense);
        let (nodes, tensors, output) = match dense {
            DenseModel::Onnx(import) => (Some(import.origin.nodes), None, import.output.clone()),
            DenseModel::Folder(import) => (None, Some(import.origin.tensors), LOGITS.to_string()),
        };
        Self { bytes, xxh3, producer, opset, nodes, architecture, tensors, output }
    }

    /// One line for a person.
    pub fn line(&self) -> String {
        let by = |unnamed: &str| if self.producer.is_empty() { unnamed.to_string() } else { self.producer.clone() };
        match (&self.architecture, self.opset, self.nodes, self.tensors) {
            (Some(architecture), _, _, Some(tensors)) => {
                format!("a Hugging Face folder of {architecture}, {tensors} tensors, {}", by("an unnamed writer"))
            }
            (_, Some(opset), Some(nodes), _) => format!("opset {opset}, {nodes} nodes, {}", by("an unnamed exporter")),
            _ => by("an unnamed writer"),
        }
    }
}

/// What compiling takes, about.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct CompileEstimate {
    /// Time on two cores with AVX2.
    pub seconds: f64,
    /// Peak memory.
    pub bytes: u64,
}

/// A check as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckJson {
    /// Whether it can be compiled.
    pub compilable: bool,
    /// The file itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<CheckedFile>,
    /// What network it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkJson>,
    /// What compiling takes, about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate: Option<CompileEstimate>,
    /// What the user should know of it, though it can be compiled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// All that is in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<DiagnosticJson>,
}

/// What is wrong, as data.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct DiagnosticJson {
    /// Where it is.
    pub place: String,
    /// What it is.
    pub message: String,
    /// What more there is to say, and what to do.
    pub notes: Vec<String>,
}

/// Reads an ONNX file or a folder, recognises its network, proves that it is the file's, and translates it once for a few tokens: whatever
/// `compile` would refuse by its default options is refused here.
///
/// # Errors
/// All that is in the way of compiling it.
pub fn check(path: &Path, options: &OnnxOptions) -> Result<Checked, Diagnostics> {
    let Model::Dense(dense) = front::load(path, options)? else {
        return Err(Diagnostic::new(path.display().to_string(), "is compiled already").into());
    };
    let DenseNetwork { tensor, network, proof } =
        front::network(path, &dense, options.import_tolerance, None, &mut |_, _| {})?;
    // A tokenizer beside the file is part of what is compiled.
    let tokenizer = find::find(path, None)?;
    let tokens = tokenizer.as_ref().map(|file| tokens_for(dense.graph(), file, &StartChoice::Auto)).transpose()?;
    if tokens.is_some() {
        // What ranges would be measured on, if the user names no text.
        let sample = calibration_sample(tokens.as_ref(), None, &Silent)?;
        convert::sample_windows(
            &tensor,
            &sample,
            convert::calibration_tokens(network.parameters, &QuantOptions::default()),
        )?;
    }
    let excess = tokens.iter().filter_map(|tokens| tokens.excess());
    let warnings = dense.warnings().into_iter().chain(proof.as_ref().and_then(Proof::warning)).chain(excess).collect();
    let file = CheckedFile::of(&dense);
    drop(dense);
    convert::trial(tensor).map_err(|diagnostics| files::at(path, diagnostics))?;
    Ok(Checked { file, network, warnings })
}

/// What compiling takes beside running the calibration text, per weight; measured on GPT-2 small and large.
const SECONDS_PER_WEIGHT: f64 = 4e-8;

/// What calibration takes, per weight and token, on two cores with AVX2.
const SECONDS_PER_WEIGHT_AND_TOKEN: f64 = 2.6e-11;

/// Peak memory, per weight: the file, packed copies of the layers at work, and the program.
const BYTES_PER_WEIGHT: f64 = 9.0;

/// What the program and its tables take for the smallest network.
const BYTES_AT_LEAST: u64 = 30_000_000;

impl Checked {
    /// What compiling takes, about.
    pub fn estimate(&self) -> CompileEstimate {
        let parameters = self.network.parameters;
        let tokens = convert::calibration_tokens(parameters, &QuantOptions::default()) as f64;
        CompileEstimate {
            seconds: parameters as f64 * (SECONDS_PER_WEIGHT + SECONDS_PER_WEIGHT_AND_TOKEN * tokens),
            bytes: BYTES_AT_LEAST + (parameters as f64 * BYTES_PER_WEIGHT) as u64,
        }
    }
}

impl CheckJson {
    /// Of a file that can be compiled, or of what is in the way.
    pub fn of(checked: &Result<Checked, Diagnostics>) -> Self {
        match checked {
            Ok(checked) => Self {
                compilable: true,
                file: Some(checked.file.clone()),
                network: Some(checked.network.json()),
                estimate: Some(checked.estimate()),
                warnings: checked.warnings.clone(),
                diagnostics: Vec::new(),
            },
            Err(diagnostics) => Self {
                compilable: false,
                file: None,
                network: None,
                estimate: None,
                warnings: Vec::new(),
                diagnostics: diagnostics.iter().map(DiagnosticJson::of).collect(),
            },
        }
    }
}

impl DiagnosticJson {
    fn of(diagnostic: &Diagnostic) -> Self {
        Self {
            place: diagnostic.place.to_string(),
            message: diagnostic.message.clone(),
            notes: diagnostic.notes.clone(),
        }
    }
}
