//! Large weights that passes make, in files without a name: the system holds of them what memory has room for.
//!
//! A file has no name from the beginning, so it is gone with the process, however that ends. It is written, not mapped to be written, so
//! a full disk is an error like any other.

use crate::files;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::tensor::{Buffer, Data};
use snnc_ir::{Diagnostic, Tensor, WeightStore};
use snnc_runtime::memory_in_words;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a weight for which a file is worth its while.
const LARGE: u64 = 1 << 20;

/// Keeps weights in memory up to so many bytes in all, and those that come later in files.
#[derive(Debug)]
pub struct SpillFiles {
    folder: PathBuf,
    in_memory: u64,
    made: AtomicU64,
    in_files: AtomicU64,
}

impl SpillFiles {
    /// In files in `folder`, beyond so many bytes.
    pub fn new(folder: PathBuf, in_memory: u64) -> Self {
        Self { folder, in_memory, made: AtomicU64::new(0), in_files: AtomicU64::new(0) }
    }

    /// Bytes that were put into files so far.
    pub fn in_files(&self) -> u64 {
        self.in_files.load(Ordering::Relaxed)
    }

    /// What a person should know of it: nothing where memory had room for all.
    pub fn line(&self) -> Option<String> {
        let words = |bytes: u64| memory_in_words(bytes.into());
        let (files, memory) = (self.in_files(), self.in_memory);
        let folder = self.folder.display();
        (files > 0).then(|| {
            format!(
                "weights of {} that the compiler made lay in files in {folder}, beyond {}",
                words(files),
                words(memory)
            )
        })
    }

    fn mapped(&self, tensor: &Tensor) -> io::Result<Option<Buffer<f32>>> {
        let bytes = tensor.data().bytes();
        let mut file = tempfile::tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        Ok(Buffer::shared(files::map_file(&file)?, 0..bytes.len()))
    }
}

impl WeightStore for SpillFiles {
    fn keep(&self, tensor: Tensor) -> Result<Tensor, Diagnostic> {
        let bytes = tensor.data().bytes().len() as u64;
        let Data::F32(Buffer::Owned(_)) = tensor.data() else { return Ok(tensor) };
        if bytes < LARGE || self.made.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.in_memory {
            return Ok(tensor);
        }
        let failed = |e: io::Error| {
            let cause = e.to_string();
            let cause = cause.split_once(" at path ").map_or(cause.as_str(), |(cause, _)| cause);
            let folder = self.folder.display();
            Diagnostic::new(
                "",
                format!("a weight that memory has no room for cannot be kept in a file in {folder}: {cause}"),
            )
            .code(ErrorCode::FILE)
            .note("the folder of the output needs room for the network's weights in f32, twice if it is rotated")
            .note("--max-memory SIZE sets the memory that the compiler may take")
        };
        let Some(buffer) = self.mapped(&tensor).map_err(failed)? else { return Ok(tensor) };
        self.in_files.fetch_add(bytes, Ordering::Relaxed);
        Ok(Tensor::new(tensor.sizes().to_vec(), Data::F32(buffer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_memory_has_no_room_for_lies_in_files_without_a_name() {
        let folder = tempfile::tempdir().expect("a folder for a test");
        let store = SpillFiles::new(folder.path().to_path_buf(), 3 * LARGE);
        let count = LARGE as usize / 4;
        let weight = |first: usize| Tensor::f32(&[2, count / 2], (first..first + count).map(|x| x as f32).collect());
        let kept: Vec<Tensor> = (0..5).map(|i| store.keep(weight(i)).expect("there is room")).collect();
        let in_file = |tensor: &Tensor| matches!(tensor.data(), Data::F32(Buffer::Shared { .. }));
        assert_eq!(kept.iter().map(in_file).collect::<Vec<bool>>(), [false, false, false, true, true]);
        assert!(kept.iter().enumerate().all(|(i, kept)| *kept == weight(i)), "the numbers are the same");
        assert_eq!(store.in_files(), 2 * LARGE);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
        let small = store.keep(Tensor::f32(&[3], vec![1.0, 2.0, 3.0])).expect("it is kept");
        assert!(!in_file(&small), "small weights are not worth a file");
    }

    #[test]
    fn a_folder_that_takes_no_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder for a test").path().join("gone");
        let store = SpillFiles::new(folder, 0);
        let error = store.keep(Tensor::f32(&[1 << 19], vec![0.0; 1 << 19])).expect_err("there is no folder");
        assert!(
            error.to_string().contains("gone: ") && error.to_string().contains("a weight that memory has no room for"),
            "{error}"
        );
    }
}
