//! ONNX files of anybody's making.

use crate::{Verdict, below, bytes, corpus_files, pick};
use snnc_ir::random::SplitMix64;
use snnc_onnx::evaluate::graph;
use snnc_onnx::import::inputs;
use snnc_onnx::{import_model, read};
use std::collections::HashMap;

/// The corpus.
pub fn seeds() -> Vec<Vec<u8>> {
    corpus_files("onnx")
}

/// A file with a few changes.
pub fn mutant(seeds: &[Vec<u8>], random: &mut SplitMix64) -> Vec<u8> {
    let mut mutant = pick(random, seeds).clone();
    for _ in 0..1 + below(random, 3) {
        bytes::change(&mut mutant, random);
    }
    mutant
}

/// Reading, importing and evaluating ends, without a panic.
///
/// # Errors
/// What is wrong with it.
pub fn check(bytes: &[u8]) -> Result<Verdict, String> {
    let Ok(model) = read::read_bytes(bytes) else { return Ok(Verdict::Refused) };
    let ports = &model.graph.inputs;
    let ids = inputs::ids(ports).map(|port| port.name.clone());
    let mut given = HashMap::new();
    for port in ports {
        let is_ids = ids.as_ref() == Some(&port.name);
        let array = if is_ids { inputs::tokens(port, &[1, 2, 3, 4, 5, 6]) } else { inputs::fresh(port, 6) };
        given.extend(array.ok().map(|array| (port.name.clone(), array)));
    }
    let wanted: Vec<&str> = model.graph.outputs.iter().map(|port| port.name.as_str()).take(1).collect();
    drop(graph::run(&model, given, &wanted));
    Ok(import_model(model).map_or(Verdict::Refused, |_| Verdict::Accepted))
}
