//! Files that are mapped, not read, and the file's name before what is wrong in one.

use memmap2::Mmap;
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::tensor::SharedBytes;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Puts the file's name before every place.
pub fn at(path: &Path, complaints: Diagnostics) -> Diagnostics {
    complaints.in_file(&path.display().to_string())
}

/// A file's bytes, which stay on the disk.
pub fn map(path: &Path) -> io::Result<SharedBytes> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Arc::new(Vec::new()));
    }
    // SAFETY: the mapping is read-only and private to this process. Somebody who truncates the file while it is in use
    // ends this process with SIGBUS; somebody who rewrites it in place changes numbers, never memory safety, since all
    // indices were checked against this mapping's length. `tests/hostile.rs` covers truncated and changed files.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file)? };
    // What is read from the disk now then lies in large pages, where the system can: walking over weights of which every 4 KiB
    // have to be looked up gives up to a third of the memory's speed away. A system that cannot refuses; it is only slower.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(Arc::new(map))
}
