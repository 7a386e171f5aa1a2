//! Reference files: what a network's inputs and outputs were when something else ran it.

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tensor of a safetensors file; integers and truth as floats too, which hold token ids exactly.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// Of each axis, the outermost first.
    pub sizes: Vec<usize>,
    /// All elements, row by row.
    pub data: Vec<f32>,
    /// F32, F16, I64...
    pub kind: String,
}

/// All tensors of a safetensors file, by name. Panics on a malformed one.
pub fn safetensors(path: &Path) -> BTreeMap<String, Reference> {
    let bytes = fs::read(path).expect("the reference file can be read");
    let file = SafeTensors::deserialize(&bytes).expect("a reference file is well-formed");
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let data = floats(view.dtype(), view.data());
        (name.to_string(), Reference { sizes: view.shape().to_vec(), data, kind: format!("{:?}", view.dtype()) })
    };
    file.iter().map(tensor).collect()
}

fn floats(kind: Dtype, bytes: &[u8]) -> Vec<f32> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|chunk| value(*chunk)).collect()
    }
    match kind {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
        Dtype::BOOL | Dtype::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
        other => panic!("reference files of {other:?} are not read"),
    }
}

/// The array of a NumPy file of version 1: f32, i32 or i64, row-major. Panics on another one.
pub fn npy(path: &Path) -> Reference {
    let bytes = fs::read(path).expect("the reference file can be read");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..start]).into_owned();
    let between = |from: &str, to: &str| {
        let (_, rest) = header.split_once(from).expect("the header says it");
        rest.split_once(to).expect("the header says it").0.to_string()
    };
    let shape = between("'shape': (", ")");
    let sizes = shape.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let (kind, dtype) = match between("'descr': '", "'").as_str() {
        "<f4" => ("F32", Dtype::F32),
        "<i4" => ("I32", Dtype::I32),
        "<i8" => ("I64", Dtype::I64),
        other => panic!("NumPy files of {other} are not read"),
    };
    Reference { sizes, data: floats(dtype, &bytes[start..]), kind: kind.into() }
}
