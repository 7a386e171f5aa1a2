//! Files that are mapped, not read.

use bytes::Bytes;
use memmap2::Mmap;
use snnc_ir::tensor::SharedBytes;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What is mapped.
static MAPPINGS: Mutex<Vec<Weak<Mmap>>> = Mutex::new(Vec::new());

/// A file's bytes, which stay on the disk.
pub fn map(path: &Path) -> io::Result<SharedBytes> {
    map_file(&fs::File::open(path)?)
}

/// The same of a file that is open, whether or not it has a name.
pub fn map_file(file: &File) -> io::Result<SharedBytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the mapping is read-only and private to this process. Somebody who truncates the file while it is in use
    // ends this process with SIGBUS; somebody who rewrites it in place changes numbers, never memory safety, since all
    // indices were checked against this mapping's length. `tests/hostile.rs` covers truncated and changed files.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(file)? };
    // What is read from the disk now then lies in large pages, where the system can: walking over weights of which every 4 KiB
    // have to be looked up gives up to a third of the memory's speed away. A system that cannot refuses; it is only slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let map = Arc::new(map);
    let mut all = MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|map| map.strong_count() > 0);
    all.push(Arc::downgrade(&map));
    Ok(map)
}

/// Gives pages of mapped files that were read back to the system, which reads them once more where they are needed. Worth it
/// after a step that walked over whole files of which little is needed later.
pub fn release_pages() {
    #[cfg(target_os = "linux")]
    for map in MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
        // SAFETY: of a file's mapping that nobody writes to, the same bytes come back. Test: `pages_come_back`.
        #[allow(unsafe_code)]
        let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
}

/// A mapping as an owner of `Bytes`.
struct Mapping(SharedBytes);

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// The bytes of an ONNX file: mapped, and read where they have to be copied, so that no page is held twice.
#[derive(Debug)]
pub(crate) struct ModelFile {
    bytes: Bytes,
    file: Option<File>,
}

impl ModelFile {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { bytes: Bytes::from_owner(Mapping(map(path)?)), file: Some(File::open(path)?) })
    }

    /// Of bytes that are in memory already.
    pub fn of(bytes: Bytes) -> Self {
        Self { bytes, file: None }
    }

    /// All bytes, which stay where they are.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Where a slice of `bytes` begins.
    pub fn start_of(&self, part: &Bytes) -> usize {
        part.as_ptr() as usize - self.bytes.as_ptr() as usize
    }

    /// A copy. Of a file it is read, which leaves the mapping's pages alone.
    pub fn copy(&self, range: Range<usize>) -> io::Result<Vec<u8>> {
        #[cfg(unix)]
        if let Some(file) = &self.file {
            use std::os::unix::fs::FileExt;
            let mut copy = vec![0; range.len()];
            file.read_exact_at(&mut copy, range.start as u64)?;
            return Ok(copy);
        }
        Ok(self.bytes[range].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back() {
        let path = std::env::temp_dir().join(format!("snnc-pages-{}", std::process::id()));
        let bytes: Vec<u8> = (0..1 << 16).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).expect("there is room");
        let map = map(&path).expect("it was just written");
        for _ in 0..2 {
            assert_eq!((*map).as_ref(), bytes);
            release_pages();
        }
        drop(map);
        release_pages();
        fs::remove_file(path).expect("it is there");
    }
}
