//! Reference files: what a network's inputs and outputs were when something else ran it.

use serde_json::Value as Json;
use snnc_onnx::tensor::{f32_of_bf16, f32_of_f16};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor of a safetensors file; integers and truth as floats too, which hold token ids exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub sizes: Vec<usize>,
    pub data: Vec<f32>,
    /// F32, F16, I64...
    pub kind: String,
}

/// All tensors of a safetensors file, by name. Panics on a malformed one.
pub fn safetensors(path: &Path) -> BTreeMap<String, Reference> {
    let bytes = fs::read(path).expect("the reference file can be read");
    let length = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..8 + length]).expect("a header");
    let all = header.as_object().expect("an object").iter().filter(|(name, _)| *name != "__metadata__");
    let tensor = |(name, entry): (&String, &Json)| {
        let numbers = |key: &str| -> Vec<usize> {
            entry[key].as_array().expect("numbers").iter().map(|n| n.as_u64().expect("a size") as usize).collect()
        };
        let (kind, range) = (entry["dtype"].as_str().expect("a type").to_string(), numbers("data_offsets"));
        let data = floats(&kind, &bytes[8 + length + range[0]..8 + length + range[1]]);
        (name.clone(), Reference { sizes: numbers("shape"), data, kind })
    };
    all.map(tensor).collect()
}

fn floats(kind: &str, bytes: &[u8]) -> Vec<f32> {
    match kind {
        "F32" => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        "F64" => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        "F16" => bytes.chunks_exact(2).map(|b| f32_of_f16(u16::from_le_bytes([b[0], b[1]]))).collect(),
        "BF16" => bytes.chunks_exact(2).map(|b| f32_of_bf16(u16::from_le_bytes([b[0], b[1]]))).collect(),
        "I64" => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        "I32" => bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32).collect(),
        "BOOL" | "U8" => bytes.iter().map(|&b| f32::from(b)).collect(),
        other => panic!("reference files of {other} are not read"),
    }
}
