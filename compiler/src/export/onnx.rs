//! A program as an ONNX file: time is taken out of it, and `snnc_onnx::export` says it in ONNX's operators.

use crate::{convert, files};
use prost::Message;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::{Diagnostic, ErrorCode, Graph, Stage};
use snnc_onnx::export::OnnxExport;
pub use snnc_onnx::export::{OPSET, OPSET_MAX};
use snnc_onnx::proto::StringStringEntryProto;
use snnc_passes::collapse;
use std::path::{Path, PathBuf};

/// What a protobuf message may have.
const MESSAGE_MAX: usize = 1 << 31;

/// Where weights begin in a file of their own: ONNX asks for pages.
const DATA_ALIGNMENT: usize = 4096;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnnxFiles {
    /// Bytes of all files.
    pub bytes: usize,
    /// Whether weights are in a file of their own.
    pub has_data_file: bool,
}

/// The ONNX file of a program at stage spiking or quantised, in operators of a version from `OPSET` to `OPSET_MAX`.
///
/// # Errors
/// It has time-stepped neurons: their order of spikes has no form without time. What was made computes something else.
pub fn export(graph: &Graph, opset: i64) -> Result<OnnxExport, Diagnostics> {
    if collapse::depends_on_order(graph) {
        let message = "time-stepped neurons answer within a timestep, and ONNX has no timesteps";
        let note = "compile with `--neuron fire`, or export the program with `--to nir`";
        return Err(Diagnostic::new("--to onnx", message).code(ErrorCode::EXPORT).note(note).into());
    }
    let vocabulary = convert::vocabulary(graph)?;
    match graph.stage {
        Stage::Spiking => snnc_onnx::export::export(&collapse::collapse(graph)?, vocabulary, opset),
        Stage::Imported | Stage::Tensor | Stage::Quantised | Stage::Training => {
            snnc_onnx::export::export(graph, vocabulary, opset)
        }
    }
}

/// Writes the file. Weights that do not fit in it go into `PATH.data`.
///
/// # Errors
/// A file cannot be written.
pub fn write(mut exported: OnnxExport, path: &Path) -> Result<OnnxFiles, Diagnostic> {
    let bytes = exported.model.encoded_len();
    let has_data_file = bytes >= MESSAGE_MAX;
    if has_data_file {
        write_data(&mut exported, path)?;
    }
    let message = exported.model.encode_to_vec();
    files::write_whole(path, |out| out.write_all(&message))?;
    Ok(OnnxFiles { bytes, has_data_file })
}

/// Moves the weights into a file beside `path`.
fn write_data(exported: &mut OnnxExport, path: &Path) -> Result<(), Diagnostic> {
    let mut data_path = path.as_os_str().to_os_string();
    data_path.push(".data");
    let data_path = PathBuf::from(data_path);
    let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let tensors = exported.model.graph.iter_mut().flat_map(|graph| &mut graph.initializer);
    let (mut parts, mut end) = (Vec::new(), 0usize);
    for tensor in tensors {
        let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= DATA_ALIGNMENT) else { continue };
        let start = end.next_multiple_of(DATA_ALIGNMENT);
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
        tensor.data_location = 1;
        tensor.external_data = vec![
            entry("location", location.clone()),
            entry("offset", start.to_string()),
            entry("length", raw.len().to_string()),
        ];
        end = start + raw.len();
        parts.push((start, raw));
    }
    files::write_whole(&data_path, |out| {
        let mut at = 0;
        for (start, raw) in &parts {
            out.write_all(&vec![0; start - at])?;
            out.write_all(raw)?;
            at = start + raw.len();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use snnc_onnx::proto::{GraphProto, ModelProto, TensorProto};

    /// Weights beside the file are those that were in it.
    #[test]
    fn weights_may_lie_beside_the_file() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("m.onnx");
        let raw = |len: usize, x: u8| Some(Bytes::from(vec![x; len]));
        let tensor = |name: &str, raw: Option<Bytes>| TensorProto {
            dims: vec![raw.as_ref().map_or(0, |raw| raw.len() as i64)],
            data_type: 2,
            name: name.into(),
            raw_data: raw,
            ..TensorProto::default()
        };
        let initializer = vec![tensor("a", raw(5000, 1)), tensor("b", raw(7, 2)), tensor("c", raw(9000, 3))];
        let graph = Some(GraphProto { initializer, ..GraphProto::default() });
        let proof = snnc_onnx::export::ExportProof { difference: 0.0, range: 1.0, tokens: 1, same_top1: 1 };
        let mut exported = OnnxExport { model: ModelProto { graph, ..ModelProto::default() }, proof };
        write_data(&mut exported, &path).expect("it is written");
        write(exported, &path).expect("it is written");
        let read = snnc_onnx::read::read(&path).expect("it is a file");
        for (name, len, x) in [("a", 5000, 1), ("b", 7, 2), ("c", 9000, 3)] {
            let ints = read.graph.initializers[name].ints().expect("bytes");
            assert!(ints.len() == len && ints.iter().all(|y| *y == x), "{name}");
        }
    }
}
