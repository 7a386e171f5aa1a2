//! Files in and out: models told apart by their first bytes, outputs that appear whole or not at all.

use snnc_ir::container::{self, File};
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::{Diagnostic, Graph, WeightStore};
use snnc_onnx::import::ImportOptions;
pub use snnc_onnx::mmap::{map, map_file, release_pages};
use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// A model that a user named.
#[derive(Debug)]
pub enum Model {
    /// A network that is not compiled.
    Dense(DenseModel),
    /// A compiled program.
    Snn(Box<File>),
}

/// A network that is not compiled, as it was found.
#[derive(Debug)]
pub enum DenseModel {
    /// Of an ONNX file, at the Imported stage.
    Onnx(Box<snnc_onnx::Import>),
    /// Of a Hugging Face folder, at the Tensor stage.
    Folder(Box<snnc_hf::FolderImport>),
}

pub(crate) fn trouble(path: &Path, what: &str, error: &io::Error) -> Diagnostic {
    let text = error.to_string();
    // An error of a temporary file names that file, which nobody knows.
    let cause = text.split_once(" at path ").map_or(text.as_str(), |(cause, _)| cause);
    Diagnostic::new(path.display().to_string(), format!("{what}: {cause}")).code(ErrorCode::FILE)
}

/// Reads a model. The kind is told by content: a `.snn` begins with `SNNC`.
pub fn load(path: &Path) -> Result<Model, Diagnostics> {
    load_with(path, &ImportOptions::default(), None)
}

/// The same, with what is said of an ONNX file; `store` keeps its weights that are no f32 there.
///
/// # Errors
/// What cannot be read or is no model; no room for weights.
pub fn load_with(path: &Path, options: &ImportOptions, store: Option<&dyn WeightStore>) -> Result<Model, Diagnostics> {
    let meta = fs::metadata(path).map_err(|e| vec![trouble(path, "cannot be opened", &e)])?;
    // Opening a pipe waits for whoever writes to it.
    if !meta.is_file() {
        return Err(Diagnostic::new(path.display().to_string(), "is not a file").code(ErrorCode::FILE).into());
    }
    let mut start = Vec::with_capacity(4);
    let file = fs::File::open(path).map_err(|e| vec![trouble(path, "cannot be opened", &e)])?;
    file.take(4).read_to_end(&mut start).map_err(|e| vec![trouble(path, "cannot be read", &e)])?;
    if start == container::MAGIC {
        return read_snn(path).map(|file| Model::Snn(Box::new(file)));
    }
    if let Some(other) = other_kind(path, &start) {
        return Err(other.into());
    }
    snnc_onnx::import_with(path, options, store).map(|import| Model::Dense(DenseModel::Onnx(Box::new(import))))
}

/// What is said of a file of a kind that is known and not read.
fn other_kind(path: &Path, start: &[u8]) -> Option<Diagnostic> {
    let named = |extension: &str| path.extension().is_some_and(|found| found == extension);
    let (what, note) = match start {
        b"GGUF" => ("is a GGUF file", snnc_hf::folder::GGUF),
        b"PK\x03\x04" => ("holds weights in a format of PyTorch that runs code when it is read", snnc_hf::folder::SAVE),
        b"vers" if named("onnx") || named("safetensors") || named("snn") => {
            ("is a pointer of Git LFS, not the file itself", "run `git lfs pull` in its folder, or download the file")
        }
        _ if path.ends_with("config.json") || path.ends_with(snnc_hf::folder::INDEX) => {
            ("describes a network and is none", "name its folder")
        }
        _ if named("safetensors") => {
            ("holds weights alone", "name its folder, in which config.json says what they are")
        }
        _ => return None,
    };
    Some(Diagnostic::new(path.display().to_string(), what).note(note).code(ErrorCode::FILE))
}

/// The file that a command writes about a model where the user names none: the model's name, in the current folder.
pub fn default_output(model: &Path, extension: &str) -> PathBuf {
    let whole = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A folder's name may have a dot anywhere, and `.` has no name at all.
    let name = match model.is_dir() {
        true => whole(model).or_else(|| whole(&fs::canonicalize(model).ok()?)),
        false => model.file_stem().map(|stem| stem.to_string_lossy().into_owned()),
    };
    PathBuf::from(format!("{}.{extension}", name.unwrap_or_else(|| "model".into())))
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

/// Writes a file beside its final place, syncs it and renames it: an existing file stays until the new one is whole, and gives
/// it its permissions. A link stays a link: the file that it names is replaced.
///
/// # Errors
/// The file cannot be written, or is none that can be replaced. What was there before is untouched then.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Diagnostic> {
    let target = target_of(path)?;
    check_replaceable(path, &target)?;
    let failed = |e: io::Error| trouble(path, "cannot be written", &e);
    let pending = Pending::begin(&target).map_err(failed)?;
    pending.fill(write).and_then(|()| pending.persist(&target)).map_err(failed)
}

/// The temporary file that is being written, for whoever ends the process early. Held while one is made or renamed.
static PENDING: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Files that are whole since the process began.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

struct Pending {
    /// `None` once it has its name.
    file: Option<NamedTempFile>,
}

impl Pending {
    /// An empty file beside `target`, with the permissions that the user's umask leaves.
    fn begin(target: &Path) -> io::Result<Self> {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = tempfile::Builder::new();
        builder.prefix(".snnc-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder_of(target))?;
        *pending = Some(file.path().to_path_buf());
        Ok(Self { file: Some(file) })
    }

    /// Lets `write` write it, as large pieces, to the disk.
    fn fill(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = self.file.as_ref().map(NamedTempFile::as_file) else { return Ok(()) };
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush()?;
        file.sync_all()?;
        // Written pages are small; whoever reads the file next gets large ones (`map`), if these are gone.
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        Ok(())
    }

    /// Puts it in the place of `target`, whose permissions it takes over.
    fn persist(mut self, target: &Path) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if let Ok(before) = fs::metadata(target) {
            file.as_file().set_permissions(before.permissions())?;
        }
        let pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        file.persist(target).map_err(|e| e.error)?;
        WRITTEN.fetch_add(1, Ordering::SeqCst);
        drop(pending);
        // A name is on the disk when its folder is. Not every system syncs folders, and the file is whole either way.
        let _ = fs::File::open(folder_of(target)).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The file first: nobody has to look for one that is gone.
        self.file = None;
        *PENDING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Ends all writing, for a process that is about to end: removes the temporary file that is being written, if there is one, and
/// lets no other be begun or renamed. Whether no file was written since the process began.
pub fn discard_pending() -> bool {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = pending.take() {
        // A file that is gone already is what is wanted.
        let _ = fs::remove_file(path);
    }
    std::mem::forget(pending);
    WRITTEN.load(Ordering::SeqCst) == 0
}

/// The folder that a file is in, as its path says.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Links that are followed, at most: what the system does.
const LINKS_MAX: usize = 40;

/// The file that is written where `path` is named: what a link names, however many links there are.
fn target_of(path: &Path) -> Result<PathBuf, Diagnostic> {
    let refused = |what: &str| Err(Diagnostic::new(path.display().to_string(), what).code(ErrorCode::FILE));
    let mut target = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        // What ends in a separator names a folder, which a file cannot become.
        if target.file_name().is_none() || target.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return refused("is a folder; name a file");
        }
        match fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_symlink() => {
                let named = fs::read_link(&target).map_err(|e| trouble(path, "cannot be written", &e))?;
                target = folder_of(&target).join(named);
            }
            Ok(_) => return Ok(target),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(target),
            Err(e) => return Err(trouble(path, "cannot be written", &e)),
        }
    }
    refused("is a link that leads to no file")
}

/// What file a path names: equal for all names of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileId(FileIdKind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum FileIdKind {
    /// Device and number.
    #[cfg(unix)]
    Node(u64, u64),
    /// One that is not there yet, or where files have no numbers: a path without links.
    Path(PathBuf),
}

impl FileId {
    /// Of a file that is there.
    pub fn of(path: &Path) -> Option<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).ok().map(|meta| Self(FileIdKind::Node(meta.dev(), meta.ino())))
        }
        #[cfg(not(unix))]
        fs::canonicalize(path).ok().map(|path| Self(FileIdKind::Path(path)))
    }

    /// Of a file that is to be written, whether or not it is there.
    ///
    /// # Errors
    /// No file can be called so.
    pub fn of_output(path: &Path) -> Result<Self, Diagnostic> {
        let target = target_of(path)?;
        Ok(Self::of(&target).unwrap_or_else(|| {
            let folder = folder_of(&target);
            let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
            Self(FileIdKind::Path(folder.join(target.file_name().unwrap_or_default())))
        }))
    }
}

/// Only files are replaced: a folder stays, and so does a device, which a rename would put a file in the place of.
fn check_replaceable(path: &Path, target: &Path) -> Result<(), Diagnostic> {
    let what = match fs::metadata(target) {
        Ok(meta) if meta.is_dir() => "is a folder; name a file",
        Ok(meta) if !meta.is_file() => "is a device or a pipe, which a whole file cannot replace; name a file",
        Ok(_) | Err(_) => return Ok(()),
    };
    Err(Diagnostic::new(path.display().to_string(), what).code(ErrorCode::FILE))
}

/// Whether `path` can be written, found out before long work begins.
///
/// # Errors
/// It is no file, no file can be called so, or its folder takes none.
pub fn check_writable(path: &Path) -> Result<(), Diagnostic> {
    let target = target_of(path)?;
    check_replaceable(path, &target)?;
    Pending::begin(&target).map(drop).map_err(|e| trouble(path, "cannot be written", &e))
}

/// A text file's contents, without the byte order mark that it may begin with.
///
/// # Errors
/// The file cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, Diagnostic> {
    let bytes = fs::read(path).map_err(|e| trouble(path, "cannot be read", &e))?;
    let text = String::from_utf8(bytes).map_err(|e| not_utf8(path, e.utf8_error().valid_up_to()))?;
    Ok(without_mark(text))
}

/// A text without the byte order mark that it may begin with.
pub fn without_mark(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}

/// What is said of a file that is no text.
pub fn not_utf8(path: &Path, at: usize) -> Diagnostic {
    Diagnostic::new(path.display().to_string(), format!("is not UTF-8 text: byte {at} begins no character"))
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
            Model::Dense(dense) => dense.graph(),
            Model::Snn(file) => &file.graph,
        }
    }
}

impl DenseModel {
    /// The graph as it was found.
    pub fn graph(&self) -> &Graph {
        match self {
            DenseModel::Onnx(import) => &import.graph,
            DenseModel::Folder(import) => &import.graph,
        }
    }

    /// The graph alone.
    pub fn into_graph(self) -> Graph {
        match self {
            DenseModel::Onnx(import) => import.graph,
            DenseModel::Folder(import) => import.graph,
        }
    }

    /// Whether its numbers come from codes of eight bits.
    pub fn rounds_activations(&self) -> bool {
        match self {
            DenseModel::Onnx(import) => import.rounds_activations,
            DenseModel::Folder(_) => false,
        }
    }

    /// What the user should know of it, though it is no error.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            DenseModel::Onnx(import) => import.warnings(),
            DenseModel::Folder(import) => import.warnings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_called_as_models() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let model = folder.path().join("llama-3.2-1b");
        fs::create_dir(&model)?;
        assert_eq!(default_output(&model, "snn"), Path::new("llama-3.2-1b.snn"));
        assert_eq!(default_output(&model.join(""), "html"), Path::new("llama-3.2-1b.html"));
        assert_eq!(default_output(&model.join(".."), "snn").extension(), Some("snn".as_ref()));
        assert_eq!(default_output(Path::new("a/gpt2.v2.onnx"), "snn"), Path::new("gpt2.v2.snn"));
        Ok(())
    }
}
