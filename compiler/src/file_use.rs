//! The files that a command reads and writes, compared before any work begins.
//!
//! Law: no output is an input, and no two outputs are one file, whatever they are called: links and hard links are followed.

use crate::files::{self, FileId};
use snnc_hf::folder::FolderKind;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use std::path::{Path, PathBuf};

/// Files beside a model that are read with it.
const BESIDE: [&str; 9] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// A file, and what it is to the command: `--text`, `MODEL`.
#[derive(Clone, Debug)]
struct NamedFile {
    role: String,
    path: PathBuf,
    /// Whether its folder is made where there is none.
    folder_is_made: bool,
}

/// What a command reads and writes.
///
/// ```
/// use snnc::file_use::FileUse;
///
/// let used = FileUse::default().reads("--text", ["Cargo.toml"]).writes("-o", ["./Cargo.toml"]);
/// let told = used.check().expect_err("the text would be lost");
/// assert!(told[0].message.contains("--text"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct FileUse {
    inputs: Vec<NamedFile>,
    models: Vec<PathBuf>,
    outputs: Vec<NamedFile>,
}

impl FileUse {
    /// The command reads these files.
    pub fn reads(mut self, role: &str, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        self.inputs.extend(named(role, paths));
        self
    }

    /// The command reads these models, and what lies beside them and belongs to them.
    pub fn reads_models(mut self, role: &str, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        for file in named(role, paths) {
            let folder = file.path.is_dir();
            let beside = |name| if folder { file.path.join(name) } else { file.path.with_file_name(name) };
            self.inputs.extend(named(&format!("a file of {role}"), BESIDE.map(beside)));
            if folder {
                self.inputs.extend(named(&format!("a file of {role}"), snnc_hf::folder::files(&file.path)));
            }
            self.models.push(file.path.clone());
            self.inputs.push(file);
        }
        self
    }

    /// The command writes these files.
    pub fn writes(mut self, role: &str, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        self.outputs.extend(named(role, paths));
        self
    }

    /// The command writes these files, and makes their folders.
    pub fn writes_in_folder(mut self, role: &str, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Self {
        self.outputs.extend(named(role, paths).map(|file| NamedFile { folder_is_made: true, ..file }));
        self
    }

    /// Whether the command writes any file.
    pub fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// The files that it reads, each with what it is to the command; those beside a model that are not there as well.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.inputs.iter().map(|file| (file.role.as_str(), file.path.as_path()))
    }

    /// The files that it writes, each with the option that names it.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.outputs.iter().map(|file| (file.role.as_str(), file.path.as_path()))
    }

    /// All files, inputs first.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.inputs.iter().chain(&self.outputs).map(|file| file.path.as_path())
    }

    /// Refuses an output that is an input, or another output, or that cannot be written. Nothing is changed.
    ///
    /// # Errors
    /// Every such output, with what it would destroy.
    pub fn check(&self) -> Result<(), Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut inputs: Vec<(FileId, &str)> = Vec::new();
        // An input that is not there is told of by whoever reads it.
        inputs.extend(self.inputs.iter().filter_map(|file| Some((FileId::of(&file.path)?, file.role.as_str()))));
        if self.outputs.iter().any(|file| FileId::of(&file.path).is_some()) {
            let beside = self.models.iter().flat_map(|model| weights_of(model));
            inputs.extend(beside.filter_map(|path| Some((FileId::of(&path)?, "the weights of a model"))));
        }
        let mut outputs: Vec<(FileId, &str)> = Vec::new();
        for output in &self.outputs {
            match output.check(&inputs, &outputs) {
                Ok(id) => outputs.push((id, &output.role)),
                Err(e) => diagnostics.push(e),
            }
        }
        if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
    }
}

/// Files with weights that an ONNX file names, or that of a folder.
fn weights_of(model: &Path) -> Vec<PathBuf> {
    match snnc_hf::folder::look(model) {
        Ok(FolderKind::Onnx(file)) => snnc_onnx::read::external_files(&file),
        Ok(FolderKind::Weights(_)) => Vec::new(),
        Err(_) => snnc_onnx::read::external_files(model),
    }
}

fn named(role: &str, paths: impl IntoIterator<Item = impl AsRef<Path>>) -> impl Iterator<Item = NamedFile> {
    let role = role.to_string();
    let named = move |path: PathBuf| NamedFile { role: role.clone(), path, folder_is_made: false };
    paths.into_iter().map(|path| path.as_ref().to_path_buf()).map(named)
}

impl NamedFile {
    /// What file this output becomes, if that is none of the others and can be written.
    fn check(&self, inputs: &[(FileId, &str)], outputs: &[(FileId, &str)]) -> Result<FileId, Diagnostic> {
        let refused = |message: String, note: &str| {
            let place = format!("{} {}", self.role, self.path.display());
            Diagnostic::new(place, message).code(ErrorCode::OPTION).note(note)
        };
        if self.path.as_os_str() == "-" {
            let message = "standard output is not written to here; a file is".to_string();
            return Err(refused(message, "name a file; one that is called - is ./-"));
        }
        let id = FileId::of_output(&self.path)?;
        if let Some((_, role)) = inputs.iter().find(|(input, _)| *input == id) {
            return Err(refused(format!("is {role} as well, which would be lost"), "name another file"));
        }
        if let Some((_, role)) = outputs.iter().find(|(output, _)| *output == id) {
            return Err(refused(format!("is {role} as well: one of them would be lost"), "name another file"));
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if !(self.folder_is_made && folder.is_some_and(|folder| !folder.exists())) {
            files::check_writable(&self.path)?;
        }
        Ok(id)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn one_file_under_several_names_is_one_file() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("in"), "kept")?;
        fs::hard_link(at("in"), at("hard"))?;
        symlink("in", at("soft"))?;
        symlink("soft", at("softer"))?;
        symlink("new", at("dangling"))?;
        symlink("gone/new", at("astray"))?;
        symlink("round", at("round"))?;
        fs::create_dir(at("folder"))?;
        let used = |outputs: &[&str]| {
            let outputs = outputs.iter().map(|name| at(name));
            FileUse::default().reads("--text", [at("in"), at("missing")]).writes("-o", outputs).check()
        };
        for name in ["in", "hard", "soft", "softer", "folder/../in", "folder/../hard"] {
            let told = used(&[name]).expect_err(name);
            assert!(told[0].message.contains("is --text as well"), "{name}: {told:?}");
        }
        for pair in [["new", "new"], ["new", "dangling"], ["folder/../new", "new"]] {
            let told = used(&pair).expect_err(pair[0]);
            assert!(told[0].message.contains("is -o as well"), "{pair:?}: {told:?}");
        }
        for name in ["astray", "round", "folder", "new/", "in/below", "gone/new", &"x".repeat(300)] {
            assert!(used(&[name]).is_err(), "{name}");
        }
        assert!(used(&["new", "other", "folder/new"]).is_ok() && used(&["dangling"]).is_ok());
        let dash = FileUse::default().writes("-o", ["-"]).check().expect_err("no file is called so by chance");
        assert!(dash[0].notes.iter().any(|note| note.contains("./-")));
        let in_folder = FileUse::default().writes_in_folder("-o", [at("gone/new")]);
        assert!(in_folder.check().is_ok());
        assert_eq!(fs::read(at("in"))?, b"kept");
        assert_eq!(fs::read_dir(folder.path())?.count(), 8, "nothing is left behind");
        Ok(())
    }
}
