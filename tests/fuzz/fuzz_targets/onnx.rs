//! Reading, importing and evaluating an ONNX file of any bytes ends, in bounded memory, without a panic.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz onnx tests/fuzz/corpus/onnx -- -rss_limit_mb=4096 -timeout=20`

#![no_main]

use libfuzzer_sys::fuzz_target;
use snnc_onnx::evaluate::graph;
use snnc_onnx::import::inputs;
use snnc_onnx::{import_model, read};
use std::collections::HashMap;

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = read::read_bytes(bytes) else { return };
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
    drop(import_model(model));
});
