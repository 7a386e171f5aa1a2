//! Files in and out: models told apart by their first bytes, outputs that appear whole or not at all.

use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph};
pub use snnc_onnx::mmap::map;
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A model that a user named.
#[derive(Debug)]
pub enum Model {
    /// The network of an ONNX file, at the Imported stage.
    Onnx(Box<snnc_onnx::Import>),
    /// A compiled program.
    Snn(Box<File>),
}

fn trouble(path: &Path, what: &str, error: &io::Error) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), format!("{what}: {error}")).code(ErrorCode::FILE)
}

/// Reads a model. The kind is told by content: a `.snn` begins with `SNNC`.
pub fn load(path: &Path) -> Result<Model, Diagnostics> {
    let mut start = Vec::with_capacity(4);
    let file = fs::File::open(path).map_err(|e| vec![trouble(path, "cannot be opened", &e)])?;
    file.take(4).read_to_end(&mut start).map_err(|e| vec![trouble(path, "cannot be read", &e)])?;
    if start == container::MAGIC {
        return read_snn(path).map(|file| Model::Snn(Box::new(file)));
    }
    snnc_onnx::import(path).map(|import| Model::Onnx(Box::new(import)))
}

/// Reads a `.snn` file; its weights stay in the mapped file.
pub fn read_snn(path: &Path) -> Result<File, Diagnostics> {
    let bytes = map(path).map_err(|e| vec![trouble(path, "cannot be read", &e)])?;
    container::read(bytes).map_err(|diagnostics| at(path, diagnostics))
}

/// Puts the file's name before every place.
pub fn at(path: &Path, diagnostics: Diagnostics) -> Diagnostics {
    diagnostics.in_file(&path.display().to_string())
}

/// Writes a file beside its final place, syncs it and renames it: an existing file stays until the new one is whole.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Diagnostic> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    check_replaceable(path)?;
    let failed = |e: io::Error| trouble(path, "cannot be written", &e);
    let file = tempfile::Builder::new().prefix(".snnc-").tempfile_in(folder).map_err(failed)?;
    let _pending = Pending::new(file.path());
    let mut out = BufWriter::with_capacity(1 << 20, file.as_file());
    write(&mut out).and_then(|()| out.flush()).map_err(failed)?;
    drop(out);
    file.as_file().sync_all().map_err(failed)?;
    // Written pages are small; whoever reads the file next gets large ones (`map`), if these are gone.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file.as_file(), 0, None, rustix::fs::Advice::DontNeed);
    set_usual_permissions(file.as_file()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// The temporary file that is being written, for whoever ends the process early.
static PENDING: Mutex<Option<PathBuf>> = Mutex::new(None);

struct Pending;

impl Pending {
    fn new(path: &Path) -> Self {
        *PENDING.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.to_path_buf());
        Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *PENDING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Removes the temporary file that is being written, if there is one.
pub fn discard_pending() {
    if let Some(path) = PENDING.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A file that is gone already is what is wanted.
        let _ = fs::remove_file(path);
    }
}

/// Temporary files are private; what a user asked for is as readable as any file they make.
#[cfg(unix)]
fn set_usual_permissions(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &fs::File) -> io::Result<()> {
    Ok(())
}

/// Only files are replaced: a folder stays, and so does a device, which a rename would put a file in the place of.
fn check_replaceable(path: &Path) -> Result<(), Diagnostic> {
    let what = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => "is a folder; name a file",
        Ok(meta) if !meta.is_file() => "is a device or a pipe, which a whole file cannot replace; name a file",
        Ok(_) | Err(_) => return Ok(()),
    };
    Err(Diagnostic::new(path.display().to_string(), what).code(ErrorCode::FILE))
}

/// Whether `path` can be written, found out before long work begins.
pub fn check_writable(path: &Path) -> Result<(), Diagnostic> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    check_replaceable(path)?;
    let probe = tempfile::Builder::new().prefix(".snnc-").tempfile_in(folder);
    probe.map(drop).map_err(|e| trouble(path, "cannot be written", &e))
}

/// A text file's contents.
pub fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let bytes = fs::read(path).map_err(|e| trouble(path, "cannot be read", &e))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Diagnostic::new(path.display().to_string(), format!("is not UTF-8 text: byte {at} begins no character"))
    })
}

/// A file's bytes.
///
/// # Errors
/// The file cannot be read.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    fs::read(path).map_err(|e| trouble(path, "cannot be read", &e))
}

impl Model {
    /// The graph as it is in the file.
    pub fn graph(&self) -> &Graph {
        match self {
            Model::Onnx(import) => &import.graph,
            Model::Snn(file) => &file.graph,
        }
    }
}
