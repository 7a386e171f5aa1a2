//! What a run was: version, options, files and machine. The JSON of every command says it, so that a figure can be traced and
//! `snnc verify` can repeat the run.

use crate::file_use::FileUse;
use crate::report::{FileFacts, file_name};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use snnc_runtime::Isa;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// A run of the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// The version of snnc.
    pub version: String,
    /// The commit that it was built from, with `-edited` where sources had been changed since; `null` of a build without git.
    pub commit: Option<String>,
    /// The subcommand and its options, as they were typed.
    pub arguments: Vec<String>,
    /// The files that were read: models, what lies beside them, texts.
    pub files: Vec<RunFile>,
    /// The machine. Only the results of `bench` depend on it.
    pub host: Host,
}

/// A file that a run read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunFile {
    /// What it was to the command: `the model`, `--text`.
    pub role: String,
    /// Where it was, as it was typed.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// XXH3-64.
    pub xxh3: String,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// `linux`.
    pub os: String,
    /// `x86_64`.
    pub arch: String,
    /// What the processor calls itself, where the system says it.
    pub cpu: Option<String>,
    /// Processors that the process may use.
    pub processors: usize,
    /// The instruction set that the kernels use.
    pub isa: String,
}

impl RunRecord {
    /// Of this process, which was given these arguments and reads these files. Files that cannot be read are left out: whoever
    /// reads them tells of it.
    pub fn of(arguments: Vec<String>, used: &FileUse) -> Self {
        let files = used.inputs().filter_map(|(role, path)| RunFile::of(role, path).ok());
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit().map(String::from),
            arguments,
            files: files.collect(),
            host: Host::this(),
        }
    }
}

/// The commit that this build is of; `None` of a build without git.
pub fn commit() -> Option<&'static str> {
    option_env!("SNNC_COMMIT")
}

/// The machine that this build is for, as Rust names it.
pub fn target() -> Option<&'static str> {
    option_env!("SNNC_TARGET")
}

impl RunFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no file, or cannot be read.
    pub fn of(role: &str, path: &Path) -> io::Result<Self> {
        let FileFacts { bytes, xxh3, .. } = hashed(path)?;
        Ok(Self { role: role.into(), path: path.display().to_string(), bytes, xxh3 })
    }
}

/// A file's length and XXH3-64, without holding it in memory.
fn hashed(path: &Path) -> io::Result<FileFacts> {
    // A pipe can be read once, and a device has no end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut file = File::open(path)?;
    let (mut hash, mut bytes, mut buffer) = (Xxh3::new(), 0, vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    Ok(FileFacts { name: file_name(path), bytes, xxh3: format!("{:016x}", hash.digest()) })
}

impl Host {
    /// This machine.
    pub fn this() -> Self {
        // Linux says it; elsewhere it stays unknown.
        let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            line.split_once(':').map(|(_, name)| name.trim().to_string())
        });
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            cpu,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            isa: Isa::detect().map_or_else(|_| "unknown".into(), |isa| isa.name().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_that_are_there() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "kept")?;
        let used = FileUse::default().reads("--text", [at("text"), at("missing"), folder.path().to_path_buf()]);
        let record = RunRecord::of(vec!["eval".into()], &used);
        let [file] = &record.files[..] else { return Err(format!("{:?}", record.files).into()) };
        let direct = FileFacts::of(&at("text"), b"kept");
        assert_eq!((file.role.as_str(), file.bytes, &file.xxh3), ("--text", 4, &direct.xxh3));
        Ok(())
    }
}
