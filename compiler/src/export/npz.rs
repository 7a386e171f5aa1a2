//! Arrays by name in one file, as `numpy.load` reads it: a ZIP archive, not compressed, of `.npy` files.

use crate::files;
use crate::npy::{self, NpyNumber};
use snnc_ir::Diagnostic;
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// An array of one type.
#[derive(Clone, Debug, PartialEq)]
pub struct NpzArray {
    sizes: Vec<usize>,
    bytes: Vec<u8>,
    kind: &'static str,
}

impl NpzArray {
    /// Row by row. Panics where sizes and data disagree: a precondition of the caller.
    pub fn new<T: NpyNumber>(sizes: &[usize], data: &[T]) -> Self {
        assert_eq!(sizes.iter().product::<usize>(), data.len(), "sizes match the data");
        let bytes = data.iter().flat_map(|x| x.little_endian()).collect();
        Self { sizes: sizes.to_vec(), bytes, kind: T::KIND }
    }
}

/// Arrays in the order in which they were added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NpzFile {
    arrays: Vec<(String, NpzArray)>,
}

impl NpzFile {
    /// Adds an array under a name of its own.
    pub fn add(&mut self, name: &str, array: NpzArray) {
        self.arrays.push((name.into(), array));
    }

    /// How many arrays there are.
    pub fn len(&self) -> usize {
        self.arrays.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.arrays.is_empty()
    }

    /// The file's bytes: the same for the same arrays.
    ///
    /// # Errors
    /// An array has more than 4 GB.
    pub fn bytes(&self) -> Result<Vec<u8>, Diagnostic> {
        self.packed().map_err(|e| Diagnostic::new("--to npz", format!("ZIP: {e}")))
    }

    fn packed(&self) -> zip::result::ZipResult<Vec<u8>> {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let plain = plain.last_modified_time(DateTime::default());
        for (name, array) in &self.arrays {
            archive.start_file(format!("{name}.npy"), plain.large_file(array.bytes.len() >= u32::MAX as usize))?;
            npy::write_header(&mut archive, array.kind, &array.sizes)?;
            archive.write_all(&array.bytes)?;
        }
        Ok(archive.finish()?.into_inner())
    }

    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Diagnostic> {
        let bytes = self.bytes()?;
        files::write_whole(path, |out| out.write_all(&bytes))
    }
}
