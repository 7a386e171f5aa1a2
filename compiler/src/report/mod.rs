//! A run to look at: one set of data, of which `inspect` prints the essentials and `report` makes a page.
//!
//! `Report` is all there is to see, as plain data; what a command was not given the files for is absent from it and listed in
//! `missing`. Nothing in it depends on clocks, threads, engines or the folder that files lie in: the same input gives the
//! same bytes.

mod blocks;
mod page;
mod passes;
mod raster;
mod run;

pub use blocks::{Block, Conversion, blocks};
pub use page::page;
pub use passes::{Passes, passes};
pub use raster::{Histogram, NeuronLayer, Raster};
pub use run::{Gathered, Guess, Guesses, Prediction, gather};
use snnc_ir::op::LevelOp;

use crate::convert;
use crate::findings::Findings;
use serde::Serialize;
use serde_json::Value as Json;
use snnc_ir::{Graph, Node, Op};

/// All there is to see.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The program's file name.
    pub title: String,
    pub provenance: Provenance,
    pub network: Option<Facts>,
    /// How the program came from the network, block by block.
    pub blocks: Vec<Block>,
    /// Scores, warnings, coverage and ledger, as `eval --json` has them.
    pub findings: Option<Json>,
    /// Neuron layers in the order of the network.
    pub layers: Vec<NeuronLayer>,
    /// The tokens that were run, each with what was predicted to follow.
    pub predictions: Vec<Prediction>,
    pub energy: Option<Json>,
    pub passes: Option<Passes>,
    pub missing: Vec<Missing>,
}

/// What is not in a report, and how to get it.
#[derive(Debug, Serialize)]
pub struct Missing {
    pub part: &'static str,
    pub how: String,
}

/// Where everything came from.
#[derive(Debug, Default, Serialize)]
pub struct Provenance {
    /// The compiler that made the report.
    pub snnc: String,
    pub program: Option<Origin>,
    pub dense: Option<Origin>,
    /// Whether the dense network is the file that the program was compiled from; `None` where the program does not say.
    pub dense_is_source: Option<bool>,
    pub text: Option<Origin>,
    /// Tokens that were run, and those that the text has.
    pub tokens: Option<[usize; 2]>,
    /// What the program says of its making.
    pub compiled: Option<Json>,
    /// What its levels were measured on.
    pub calibration: Option<Json>,
    /// The command, with file names alone.
    pub command: String,
}

/// A file: its name without folders, its length and XXH3-64.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Origin {
    pub name: String,
    pub bytes: u64,
    pub xxh3: String,
}

impl Origin {
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
#[derive(Debug, Serialize)]
pub struct Facts {
    pub layers: usize,
    pub width: usize,
    pub vocabulary: usize,
    pub context: usize,
    /// Elements of all constants.
    pub parameters: usize,
    pub neurons: usize,
    /// The kinds of neurons and attention, as the IR spells them.
    pub kinds: Vec<String>,
    /// By attention whose keys fade, in the network's order: after how many tokens each head's memory halves; 0 is never.
    pub halvings: Vec<Vec<i32>>,
}

/// Half-lives of an attention whose keys fade.
fn half_life(graph: &Graph, node: &Node) -> Option<Vec<i32>> {
    let Op::Level(LevelOp::Ssa { variant, .. }) = node.op else { return None };
    let periods = node.args.get(4).filter(|_| variant.has_features())?;
    Some(graph.constant(*periods)?.tensor.as_i32()?.to_vec())
}

impl Facts {
    pub fn of(graph: &Graph) -> Self {
        let is_neuron = |op| snnc_ir::events::is_neuron(op);
        let nodes = || graph.nodes.iter();
        let mut kinds: Vec<String> = Vec::new();
        for node in nodes().filter(|node| is_neuron(&node.op) || node.op.has_state()) {
            let kind = node.op.to_string();
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let width = |node: &Node| node.ty.shape().width().unwrap_or(0);
        Self {
            layers: nodes().filter(|node| node.op.has_state()).count(),
            width: nodes().find(|node| node.op.has_state()).map_or(0, width),
            vocabulary: convert::vocabulary(graph).unwrap_or(0),
            context: graph.context as usize,
            parameters: graph.parameters(),
            neurons: nodes().filter(|node| is_neuron(&node.op)).map(width).sum(),
            kinds,
            halvings: nodes().filter_map(|node| half_life(graph, node)).collect(),
        }
    }
}

impl Report {
    /// Of an evaluation alone, which keeps nothing of single neurons.
    pub fn of_findings(title: &str, findings: &Findings) -> Self {
        let how = "snnc report MODEL.snn --text FILE --against MODEL.onnx".to_string();
        Self {
            title: title.into(),
            provenance: Provenance { snnc: env!("CARGO_PKG_VERSION").into(), ..Provenance::default() },
            network: None,
            blocks: Vec::new(),
            findings: Some(findings.json()),
            layers: Vec::new(),
            predictions: Vec::new(),
            energy: None,
            passes: None,
            missing: vec![Missing { part: "network, spikes, levels, energy, text and IR", how }],
        }
    }

    pub fn json(&self) -> Json {
        serde_json::to_value(self).unwrap_or(Json::Null)
    }
}
