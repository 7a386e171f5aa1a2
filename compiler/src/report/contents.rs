//! What a report holds: plain data, of which `inspect` prints the essentials and `report` makes a page.

use super::blocks::ReportBlock;
use super::inputs::TrainingCurve;
use super::passes::Passes;
use super::raster::ReportLayer;
use super::run::Prediction;
use super::runs::RunSummary;
use super::trace::NeuronTrace;
use crate::convert;
use crate::describe::Layers;
use crate::energy::json::EnergyJson;
use crate::eval_report::{EvalJson, EvalReport};
use crate::lints::{Lint, LintKind};
use crate::record::ProgramRecord;
use crate::tune::TuneJson;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_ir::events::Events;
use snnc_ir::op::LevelOp;
use snnc_ir::{Graph, Node, Op, Site, Value};
use snnc_passes::residual::{additions, start};

/// All there is to see.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// The program's file name.
    pub title: String,
    /// That the text of this network is worth little, and why; `null` where it is not so.
    pub worse: Option<String>,
    /// Where everything comes from.
    pub provenance: ReportSources,
    /// What network it holds.
    pub network: Option<NetworkFacts>,
    /// How the program came from the network, block by block.
    pub blocks: Vec<ReportBlock>,
    /// Scores, warnings, coverage and ledger, as `eval --json` has them.
    pub evaluation: Option<EvalJson>,
    /// Neuron layers in the order of the network.
    pub layers: Vec<ReportLayer>,
    /// Attention by time to first spike: keys that fired, layer by layer.
    pub attention: Vec<AttentionKeys>,
    /// One neuron's membrane, timestep by timestep.
    pub neuron: Option<NeuronTrace>,
    /// The tokens that were run, each with what was predicted to follow.
    pub predictions: Vec<Prediction>,
    /// The estimate of energy.
    pub energy: Option<EnergyJson>,
    /// The IR after every pass.
    pub passes: Option<Passes>,
    /// Several programs on the same text, this one first; empty where there is only this one.
    pub runs: Vec<RunSummary>,
    /// What `snnc tune` found.
    pub front: Option<TuneJson>,
    /// The course of a training run.
    pub training: Option<TrainingCurve>,
    /// What is not there, and how to get it.
    pub missing: Vec<Missing>,
}

/// Keys of an attention that fired within the window.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct AttentionKeys {
    /// The site.
    pub site: String,
    /// Keys that queries met, summed over tokens and heads.
    pub keys: u64,
    /// Those that fired.
    pub fired: u64,
}

impl AttentionKeys {
    /// Of all attention of `graph` by time to first spike, by what its nodes did.
    pub fn of(graph: &Graph, events: &[Events]) -> Vec<Self> {
        let of = |(value, node): (Value, &Node)| {
            let Op::Level(LevelOp::Ssa { heads, variant }) = node.op else { return None };
            let did = events[value.index()];
            let site = graph.site(value).map_or_else(|| graph.origin(value).to_string(), Site::path);
            let keys = did.keys * u64::from(heads.query);
            (!variant.needs_training() && keys > 0).then_some(Self { site, keys, fired: did.value_keys })
        };
        graph.iter().filter_map(of).collect()
    }
}

/// What is not in a report, and how to get it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Missing {
    /// The part of the layer.
    pub part: &'static str,
    /// How to get it.
    pub how: String,
}

/// Where everything came from.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ReportSources {
    /// The compiler that made the report.
    pub snnc: String,
    /// The program's file.
    pub program: Option<FileFacts>,
    /// The dense network.
    pub dense: Option<FileFacts>,
    /// Whether the dense network is the file that the program was compiled from; `None` where the program does not say.
    pub dense_is_source: Option<bool>,
    /// The text.
    pub text: Option<FileFacts>,
    /// Tokens that were run, and those that the text has.
    pub tokens: Option<[usize; 2]>,
    /// What the program says of its making.
    pub compiled: Option<ProgramRecord>,
    /// What its levels were measured on.
    pub calibration: Option<CalibrationFacts>,
    /// The command, with file names alone.
    pub command: String,
}

/// What a program's levels were measured on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationFacts {
    /// What the text is called.
    pub source: String,
    /// Windows that were run.
    pub windows: usize,
    /// Tokens that were run.
    pub tokens: usize,
    /// Phases per octave of spiking attention.
    pub phases: u32,
}

/// A file: its name without folders, its length and XXH3-64.
#[derive(Clone, Debug, Serialize, JsonSchema, PartialEq, Eq)]
pub struct FileFacts {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// XXH3-64.
    pub xxh3: String,
}

impl FileFacts {
    /// Of a file's bytes.
    pub fn of(path: &std::path::Path, bytes: &[u8]) -> Self {
        let xxh3 = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(bytes));
        Self { name: file_name(path), bytes: bytes.len() as u64, xxh3 }
    }
}

/// A path's last part.
pub fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The network's sizes, as its program has them.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NetworkFacts {
    /// Transformer blocks.
    pub layers: usize,
    /// Channels of the residual stream.
    pub width: usize,
    /// Entries of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of a sequence at most.
    pub context: usize,
    /// Elements of all constants.
    pub parameters: usize,
    /// Neurons.
    pub neurons: usize,
    /// What its blocks are made of, part by part.
    pub architecture: Vec<NetworkPart>,
    /// The kinds of neurons and attention, as the IR spells them.
    pub kinds: Vec<String>,
    /// By attention whose keys fade, in the network's order: each head's half-life in tokens; 0 is none.
    pub half_lives: Vec<Vec<i32>>,
}

/// A part of a network, in words.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NetworkPart {
    /// What it is called: `attention`.
    pub name: &'static str,
    /// What it is.
    pub words: String,
}

/// Half-lives of an attention whose keys fade.
fn half_lives(graph: &Graph, node: &Node) -> Option<Vec<i32>> {
    let Op::Level(LevelOp::Ssa { variant, .. }) = node.op else { return None };
    let half_lives = node.args.get(4).filter(|_| variant.has_features())?;
    Some(graph.constant(*half_lives)?.tensor.as_i32()?.to_vec())
}

impl NetworkFacts {
    /// Of a program.
    pub fn of(graph: &Graph) -> Self {
        let nodes = || graph.nodes.iter();
        let mut kinds: Vec<String> = Vec::new();
        for node in nodes().filter(|node| node.op.is_neuron() || node.op.has_state()) {
            let kind = node.op.to_string();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let width = |node: &Node| node.ty.shape().width().unwrap_or(0);
        Self {
            layers: nodes().filter(|node| node.op.has_state()).count(),
            width: start(graph, &additions(graph)).map_or(0, |start| width(graph.node(start))),
            vocabulary: convert::vocabulary(graph).unwrap_or(0),
            context: graph.context as usize,
            parameters: graph.parameters(),
            neurons: nodes().filter(|node| node.op.is_neuron()).map(width).sum(),
            architecture: Layers::of(graph)
                .lines()
                .into_iter()
                .map(|(name, words)| NetworkPart { name, words })
                .collect(),
            kinds,
            half_lives: nodes().filter_map(|node| half_lives(graph, node)).collect(),
        }
    }
}

impl Report {
    /// Of this name, from these sources, with nothing else.
    pub fn new(title: &str, provenance: ReportSources) -> Self {
        Self {
            title: title.into(),
            worse: None,
            provenance,
            network: None,
            blocks: Vec::new(),
            evaluation: None,
            layers: Vec::new(),
            attention: Vec::new(),
            neuron: None,
            predictions: Vec::new(),
            energy: None,
            passes: None,
            runs: Vec::new(),
            front: None,
            training: None,
            missing: Vec::new(),
        }
    }

    /// Of an evaluation alone, which keeps nothing of single neurons.
    pub fn of_evaluation(title: &str, evaluation: &EvalReport, sources: ReportSources) -> Self {
        let how = "snnc report MODEL.snn --text FILE --reference MODEL.onnx".to_string();
        Self {
            worse: worse(&evaluation.lints),
            evaluation: Some(evaluation.json()),
            missing: vec![Missing { part: "network, spikes, levels, energy, text and IR", how }],
            ..Self::new(title, sources)
        }
    }
}

/// That a network's text is worth little: what kind of fault it has, a colon, and why. By what lints say of its perplexity, or that
/// it was never trained.
pub fn worse(lints: &[Lint]) -> Option<String> {
    let of = |kind: LintKind| lints.iter().rev().find(|lint| lint.kind == kind);
    let measured = of(LintKind::Perplexity)
        .map(|lint| format!("much worse than its reference: {} ({})", lint.message, lint.place));
    measured.or_else(|| of(LintKind::Untrained).map(|lint| format!("not trained: {}", lint.message)))
}
