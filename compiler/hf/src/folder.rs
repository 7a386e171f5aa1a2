//! What a folder holds: the files of a network, or why they are not what can be read.
//!
//! Files named by other files stay in the folder: a name with a separator, or one that leads elsewhere, is refused. Links are
//! followed, since the cache of Hugging Face is made of them.

use serde::Deserialize;
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The configuration's name.
pub const CONFIG: &str = "config.json";

/// The weights' name, where they are one file.
pub const WEIGHTS: &str = "model.safetensors";

/// The name of the list of files, where weights are several.
pub const INDEX: &str = "model.safetensors.index.json";

/// Longest configuration, and longest list of tensors.
const JSON_MAX: u64 = 64 << 20;

/// Most files of weights.
const SHARDS_MAX: usize = 1024;

/// What an ONNX file is called by the tools that put one into a folder, the likeliest first.
const ONNX_NAMES: [&str; 4] = ["model.onnx", "onnx/model.onnx", "decoder_model.onnx", "onnx/decoder_model.onnx"];

/// What the first bytes of a pointer to a file in Git LFS are.
const LFS: &[u8] = b"version https://git-lfs";

/// What a folder holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FolderKind {
    /// Safetensors with a configuration.
    Weights(WeightFiles),
    /// An ONNX file.
    Onnx(PathBuf),
}

/// The files of a network's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightFiles {
    /// Files of tensors, in the order of their names.
    pub files: Vec<PathBuf>,
    /// Where the list of tensors puts each, if there is a list.
    pub listed: Option<BTreeMap<String, String>>,
}

/// The list of tensors of several files.
#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

fn wrong(path: &Path, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), message).code(ErrorCode::FOLDER)
}

/// What `folder` holds. Weights come before an ONNX file beside them.
///
/// # Errors
/// It holds neither, or files that can be neither, with what to do.
pub fn look(folder: &Path) -> Result<FolderKind, Diagnostics> {
    let (weights, index) = (folder.join(WEIGHTS), folder.join(INDEX));
    if weights.is_file() {
        let files = vec![checked(weights)?];
        return Ok(FolderKind::Weights(WeightFiles { files, listed: None }));
    }
    if index.is_file() {
        return shards(folder, &index).map(FolderKind::Weights);
    }
    match onnx(folder)? {
        Some(path) => Ok(FolderKind::Onnx(path)),
        None => Err(nothing(folder).into()),
    }
}

/// Every file of the folder that a command reads with it, whether or not it is well formed.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let beside = [CONFIG, WEIGHTS, INDEX, "genai_config.json"].map(|name| folder.join(name));
    let mut all: Vec<PathBuf> = beside.into_iter().filter(|path| path.is_file()).collect();
    match look(folder) {
        Ok(FolderKind::Weights(weights)) => all.extend(weights.files),
        Ok(FolderKind::Onnx(path)) => all.push(path),
        Err(_) => {}
    }
    all.sort();
    all.dedup();
    all
}

/// A whole text file that is not too long.
///
/// # Errors
/// It is missing, too long, or a pointer to another file.
pub fn read_json(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let file = File::open(path).map_err(|e| unread(path, &e))?;
    let mut bytes = Vec::new();
    file.take(JSON_MAX + 1).read_to_end(&mut bytes).map_err(|e| unread(path, &e))?;
    if bytes.starts_with(LFS) {
        return Err(pointer(path));
    }
    if bytes.len() as u64 > JSON_MAX {
        return Err(wrong(path, format!("is longer than {} MiB", JSON_MAX >> 20)));
    }
    Ok(bytes)
}

fn unread(path: &Path, error: &io::Error) -> Diagnostic {
    wrong(path, format!("cannot be read: {error}"))
}

fn pointer(path: &Path) -> Diagnostic {
    wrong(path, "is a pointer of Git LFS, not the file itself")
        .note("run `git lfs pull` in its folder, or download the file")
}

/// A file of weights that is no pointer.
fn checked(path: PathBuf) -> Result<PathBuf, Diagnostic> {
    let mut start = Vec::new();
    let file = File::open(&path).map_err(|e| unread(&path, &e))?;
    file.take(LFS.len() as u64).read_to_end(&mut start).map_err(|e| unread(&path, &e))?;
    if start == LFS { Err(pointer(&path)) } else { Ok(path) }
}

/// The files that a list of tensors names.
fn shards(folder: &Path, index: &Path) -> Result<WeightFiles, Diagnostics> {
    let bytes = read_json(index)?;
    let IndexFile { weight_map } =
        serde_json::from_slice(&bytes).map_err(|e| wrong(index, format!("is no list of tensors: {e}")))?;
    let names: BTreeSet<&String> = weight_map.values().collect();
    if names.is_empty() || names.len() > SHARDS_MAX {
        let message = format!("names {} files; 1 to {SHARDS_MAX} are possible", names.len());
        return Err(wrong(index, message).into());
    }
    let (mut files, mut diagnostics) = (Vec::new(), Diagnostics::new());
    for name in names {
        let path = folder.join(name);
        let plain =
            Path::new(name).file_name().is_some_and(|file| file == name.as_str()) && !name.contains(['/', '\\']);
        if !plain {
            diagnostics.push(wrong(index, format!("names the file `{name}`, which is not a name within its folder")));
        } else if !path.is_file() {
            let message = format!("names the file `{name}`, which is not here");
            diagnostics.push(wrong(index, message).note("download all files of the network"));
        } else {
            match checked(path) {
                Ok(path) => files.push(path),
                Err(e) => diagnostics.push(e),
            }
        }
    }
    diagnostics.or_else(WeightFiles { files, listed: Some(weight_map) })
}

/// The ONNX file of a folder by optimum, by the builder of ONNX Runtime GenAI, or with a single file of this kind.
fn onnx(folder: &Path) -> Result<Option<PathBuf>, Diagnostics> {
    if let Some(named) = genai_file(folder)? {
        return Ok(Some(checked(named)?));
    }
    let known = ONNX_NAMES.map(|name| folder.join(name));
    if let Some(path) = known.into_iter().find(|path| path.is_file()) {
        return Ok(Some(checked(path)?));
    }
    let mut all: Vec<PathBuf> =
        [folder.to_path_buf(), folder.join("onnx")].iter().flat_map(|at| onnx_files(at)).collect();
    match all.len() {
        0 => Ok(None),
        1 => Ok(Some(checked(all.remove(0))?)),
        _ => {
            let names: Vec<String> = all.iter().map(|path| path.display().to_string()).collect();
            Err(wrong(folder, "has several ONNX files").note(format!("name one of {}", names.join(", "))).into())
        }
    }
}

/// The file that `genai_config.json` names.
fn genai_file(folder: &Path) -> Result<Option<PathBuf>, Diagnostic> {
    let config = folder.join("genai_config.json");
    if !config.is_file() {
        return Ok(None);
    }
    let json: serde_json::Value =
        serde_json::from_slice(&read_json(&config)?).map_err(|e| wrong(&config, format!("is no JSON: {e}")))?;
    let Some(name) = json["model"]["decoder"]["filename"].as_str() else { return Ok(None) };
    let path = folder.join(name);
    if name.contains(['/', '\\']) || !path.is_file() {
        return Err(wrong(&config, format!("names the file `{name}`, which is not here")));
    }
    Ok(Some(path))
}

fn onnx_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = with_extension(folder, "onnx");
    found.sort();
    found
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension) && path.is_file()).collect()
}

/// How a network of PyTorch's own format is saved anew.
pub const SAVE: &str =
    "save it anew in Python: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(DIR), which writes safetensors";

/// What is said of a folder that holds no network that can be read.
fn nothing(folder: &Path) -> Diagnostic {
    let has = |name: &str| folder.join(name).is_file();
    let names = |extension| with_extension(folder, extension).first().map(|path| path.display().to_string());
    if has("adapter_config.json") {
        return wrong(folder, "holds an adapter (LoRA), not a network")
            .note("merge it into its network: merge_and_unload() of peft");
    }
    if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        return wrong(folder, "holds its weights in `pytorch_model.bin`, a format that runs code when it is read")
            .note(SAVE);
    }
    if has("tf_model.h5") || has("flax_model.msgpack") {
        return wrong(folder, "holds its weights in a format of TensorFlow or Flax").note(SAVE);
    }
    if let Some(file) = names("gguf") {
        return wrong(folder, format!("holds {file}, a GGUF file")).note(GGUF);
    }
    if let Some(file) = names("safetensors") {
        let message = format!("holds {file}, but no file {WEIGHTS} and no {INDEX}");
        return wrong(folder, message).note("weights have the names that Hugging Face gives them");
    }
    if let Some(file) = names("bin").or_else(|| names("pt")).or_else(|| names("pth")) {
        return wrong(folder, format!("holds its weights in {file}, a format that runs code when it is read"))
            .note(SAVE);
    }
    if folder.join("snapshots").is_dir() {
        return wrong(folder, "is a folder of a cache").note("name the folder of a revision below its `snapshots`");
    }
    let message = format!("holds no network: {WEIGHTS}, {INDEX} or an ONNX file was expected");
    wrong(folder, message)
        .note("a folder as Hugging Face, optimum or ONNX Runtime GenAI write it can be named, or an ONNX file")
}

/// What to do with a GGUF file.
pub const GGUF: &str = "name the Hugging Face folder that it was made from, or an ONNX file of the network";

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn networks_are_found() {
        let of = |files: &[(&str, &str)]| {
            let folder = folder(files);
            let strip = |path: PathBuf| path.strip_prefix(folder.path()).unwrap().display().to_string();
            match look(folder.path()).unwrap() {
                FolderKind::Weights(weights) => weights.files.into_iter().map(strip).collect::<Vec<_>>().join(" "),
                FolderKind::Onnx(path) => strip(path),
            }
        };
        assert_eq!(of(&[(WEIGHTS, ""), ("onnx/model.onnx", "")]), WEIGHTS);
        let index = r#"{"metadata":{},"weight_map":{"a":"2.safetensors","b":"1.safetensors","c":"2.safetensors"}}"#;
        let sharded = [(INDEX, index), ("1.safetensors", ""), ("2.safetensors", ""), ("3.safetensors", "")];
        assert_eq!(of(&sharded), "1.safetensors 2.safetensors");
        assert_eq!(of(&[("onnx/model.onnx", ""), ("onnx/model_q4.onnx", "")]), "onnx/model.onnx");
        assert_eq!(of(&[("decoder.onnx", "")]), "decoder.onnx");
        let genai = r#"{"model":{"decoder":{"filename":"text.onnx"}}}"#;
        assert_eq!(of(&[("genai_config.json", genai), ("text.onnx", ""), ("other.onnx", "")]), "text.onnx");
    }

    #[test]
    fn others_are_told_what_to_do() {
        let index = |name: &str| format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n";
        for (files, words) in [
            (vec![], "holds no network"),
            (vec![(WEIGHTS, lfs)], "git lfs pull"),
            (vec![("model.onnx", lfs)], "git lfs pull"),
            (vec![(INDEX, "{}")], "is no list of tensors"),
            (vec![(INDEX, r#"{"weight_map":{}}"#)], "names 0 files"),
            (vec![(INDEX, &*index("gone.safetensors"))], "which is not here"),
            (vec![(INDEX, &*index("../a.safetensors"))], "not a name within its folder"),
            (vec![(INDEX, &*index("/etc/passwd"))], "not a name within its folder"),
            (vec![(INDEX, &*index(".."))], "not a name within its folder"),
            (vec![(INDEX, &*index(""))], "not a name within its folder"),
            (vec![("pytorch_model.bin", "")], "save_pretrained"),
            (vec![("model.gguf", "GGUF")], "Hugging Face folder that it was made from"),
            (vec![("adapter_config.json", "{}"), ("adapter_model.safetensors", "")], "merge_and_unload"),
            (vec![("other.safetensors", "")], "no file model.safetensors"),
            (vec![("snapshots/1/model.safetensors", "")], "below its `snapshots`"),
            (vec![("a.onnx", ""), ("b.onnx", "")], "has several ONNX files"),
            (
                vec![("genai_config.json", r#"{"model":{"decoder":{"filename":"x.onnx"}}}"#)],
                "`x.onnx`, which is not here",
            ),
        ] {
            let folder = folder(&files);
            let told = look(folder.path()).unwrap_err().to_string();
            assert!(told.contains(words), "{files:?}: {told}");
        }
    }
}
