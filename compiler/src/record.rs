//! What a program says of its making: the `provenance` section of a `.snn` file, as JSON.

use crate::files::DenseModel;
use crate::tokens::start::SpecialTokens;
use crate::train::comparison::Comparison;
use crate::train::events::TrainingRecord;
use crate::train::hybrid::HybridChoice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `provenance` section.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProgramRecord {
    /// `snnc 0.1.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// Where the number comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRecord>,
    /// How near the imported network is to its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportRecord>,
    /// How near the rotated network is to the one before; absent where nothing was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationRecord>,
    /// The options of the conversion, as a user types them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<String>,
    /// What stands before every text and what ends one, as it was decided when the program was compiled. Files keep it in
    /// their header; those of before have it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub special_tokens: Option<SpecialTokens>,
    /// Training runs, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub training: Vec<TrainingRecord>,
    /// Which layers attend by time to first spike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<HybridRecord>,
    /// The program beside the dense network, after training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Comparison>,
}

/// The file or folder that a program was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceRecord {
    /// Its length.
    pub bytes: u64,
    /// XXH3-64.
    pub xxh3: String,
    /// What wrote it.
    pub producer: String,
    /// The version of the ONNX operators, of an ONNX file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// The description by which a Hugging Face folder was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

impl SourceRecord {
    /// Of a network that was found.
    pub fn of(dense: &DenseModel) -> Self {
        let hex = |hash: u64| format!("{hash:016x}");
        match dense {
            DenseModel::Onnx(import) => Self {
                bytes: import.origin.bytes,
                xxh3: hex(import.origin.hash),
                producer: import.origin.producer.clone(),
                opset: Some(import.origin.opset),
                architecture: None,
            },
            DenseModel::Folder(import) => Self {
                bytes: import.origin.bytes,
                xxh3: hex(import.origin.hash),
                producer: import.origin.producer.clone(),
                opset: None,
                architecture: Some(import.origin.architecture.clone()),
            },
        }
    }
}

/// How near the imported network is to its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportRecord {
    /// Largest difference of a logit.
    pub difference: f32,
    /// Range of the file's logits.
    pub range: f32,
    /// Tokens that were run.
    pub tokens: usize,
    /// The largest difference allowed, as a share of the range.
    pub tolerance: f32,
    /// Whether the file rounds activations, which the network does not.
    pub rounds_activations: bool,
}

/// What was rotated, and how near the network stayed to what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RotationRecord {
    /// `residual`, `heads`.
    pub rotated: Vec<String>,
    /// Largest difference of a logit.
    pub difference: f32,
    /// Range of the logits before.
    pub range: f32,
    /// Tokens that were run.
    pub tokens: usize,
}

impl RotationRecord {
    /// One line for a person.
    pub fn line(&self) -> String {
        let share = self.difference / self.range.max(f32::MIN_POSITIVE);
        format!(
            "rotated: {}; logits differ from those before by at most {share:.1e} of their range {:.1} ({} random tokens)",
            self.rotated.join(", "),
            self.range,
            self.tokens
        )
    }
}

/// Which layers a hybrid keeps with attention by time to first spike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HybridRecord {
    /// Layers with attention by time to first spike.
    pub ttfs: Vec<usize>,
    /// Absent where no layer stayed within the budget.
    #[serde(flatten)]
    pub measured: Option<HybridFigures>,
}

/// What the choice was measured to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HybridFigures {
    /// The exponential of the mean negative log likelihood.
    pub perplexity: f64,
    /// Rise over the dense network's perplexity, as a share.
    pub rise: f64,
    /// Energy of attention, in nanojoules per token.
    pub attention_nj: f64,
    /// Energy in all, in nanojoules per token.
    pub total_nj: f64,
    /// Whether perplexity stays within the budget.
    pub within_budget: bool,
}

impl HybridRecord {
    /// Of a choice of layers.
    pub fn of(choice: &HybridChoice) -> Self {
        let &HybridChoice { perplexity, rise, attention_nj, total_nj, within_budget, .. } = choice;
        let measured = Some(HybridFigures { perplexity, rise, attention_nj, total_nj, within_budget });
        Self { ttfs: choice.ttfs.clone(), measured }
    }
}

impl ProgramRecord {
    /// Of the section of a file; empty where it has none, or one that is not understood.
    pub fn of(section: Option<&[u8]>) -> Self {
        section.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// As the section of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Maps have string keys and writing to memory does not fail, so there is always JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
