//! `snnc check`: whether a file can be compiled, and all that is in the way.

use crate::output::{emit, emit_json};
use clap::Args;
use serde_json::json;
use snnc::Complaints;
use snnc::convert;
use snnc::describe::Network;
use snnc::files::{self, Model};
use snnc_ir::Diagnostic;
use std::path::PathBuf;

/// Say what network an ONNX file holds and whether it can be compiled, without compiling it
#[derive(Args, Debug)]
pub struct Check {
    /// The ONNX file
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self) -> Result<(), Complaints> {
        let done = self.examine();
        if self.json {
            let value = match &done {
                Ok((import, network)) => json!({
                    "compilable": true, "file": file(import), "network": network.json(),
                    "estimate": { "seconds": seconds(network), "bytes": bytes(network) },
                }),
                Err(complaints) => {
                    json!({ "compilable": false, "complaints": complaints.iter().map(complaint).collect::<Vec<_>>() })
                }
            };
            emit_json(&value)?;
            return done.map(|_| ());
        }
        let (import, network) = done?;
        let origin = &import.origin;
        let producer = if origin.producer.is_empty() { "an unnamed exporter" } else { &origin.producer };
        let mut lines = vec![("file", format!("opset {}, {} nodes, {producer}", origin.opset, origin.nodes))];
        lines.extend(network.lines());
        lines.push((
            "compile",
            format!("about {:.0} s and {:.0} MB of memory", seconds(&network).ceil(), bytes(&network) as f64 / 1e6),
        ));
        let rows: String = lines.iter().map(|(name, text)| format!("  {name:<11} {text}\n")).collect();
        emit(&format!("{}: a GPT-2 that snnc compiles\n{rows}", self.model.display()))
    }

    fn examine(&self) -> Result<(snnc_onnx::Import, Network), Complaints> {
        let Model::Onnx(import) = files::load(&self.model)? else {
            return Err(Diagnostic::new(self.model.display().to_string(), "is compiled already").into());
        };
        let tensor = convert::raise(import.graph.clone(), import.rounds_activations)
            .map_err(|complaints| files::at(&self.model, snnc_onnx::explained(&import.model, complaints)))?;
        let network = Network::of(&tensor).map_err(|e| files::at(&self.model, e.into()))?;
        Ok((*import, network))
    }
}

fn complaint(complaint: &Diagnostic) -> serde_json::Value {
    json!({ "place": complaint.place.to_string(), "message": complaint.message, "notes": complaint.notes })
}

fn file(import: &snnc_onnx::Import) -> serde_json::Value {
    let origin = &import.origin;
    json!({
        "bytes": origin.bytes, "xxh3": format!("{:016x}", origin.hash), "producer": origin.producer,
        "opset": origin.opset, "nodes": origin.nodes,
    })
}

/// What compiling takes beside running the calibration text, a weight; measured on GPT-2 small and large.
const SECONDS_A_WEIGHT: f64 = 4e-8;

/// What calibration takes, a weight and token, on two cores with AVX2.
const SECONDS_A_WEIGHT_AND_TOKEN: f64 = 2.6e-11;

/// Peak memory, a weight: the file, packed copies of the layers at work, and the program.
const BYTES_A_WEIGHT: f64 = 9.0;

/// What the program and its tables take for the smallest network.
const BYTES_AT_LEAST: u64 = 30_000_000;

fn seconds(network: &Network) -> f64 {
    network.parameters as f64
        * (SECONDS_A_WEIGHT + SECONDS_A_WEIGHT_AND_TOKEN * convert::calibration_tokens(network.parameters) as f64)
}

fn bytes(network: &Network) -> u64 {
    BYTES_AT_LEAST + (network.parameters as f64 * BYTES_A_WEIGHT) as u64
}
