//! Memory for weights that every token walks through: one mapping for a whole program, on large pages where the system
//! has them. With pages of 4 KiB, walking loses a third of the memory's bandwidth to address translation.
#![allow(unsafe_code)]

use memmap2::MmapMut;
use std::ops::Range;
use std::sync::Arc;

/// A cache line: sixteen outputs' weights for the four inputs of a group.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Line(pub [i8; 64]);

/// Lines that several weights share.
#[derive(Debug)]
pub struct Pages {
    map: Option<MmapMut>,
}

impl Pages {
    /// `count` lines of zeros.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(count: usize) -> Result<Self, String> {
        if count == 0 {
            return Ok(Self { map: None });
        }
        let bytes = count.checked_mul(size_of::<Line>()).ok_or("more weights than memory has addresses")?;
        let map = MmapMut::map_anon(bytes).map_err(|e| format!("{bytes} bytes for weights are not to be had: {e}"))?;
        // A system without large pages refuses; it is only slower then.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map) })
    }

    pub fn lines(&self) -> &[Line] {
        let bytes: &[u8] = self.map.as_deref().unwrap_or(&[]);
        // SAFETY: a mapping begins at a page, so it is aligned; any bytes are a line. Its length is a number of lines, or
        // what is left over is cut off.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<Line>()) }
    }

    pub fn lines_mut(&mut self) -> &mut [Line] {
        let bytes: &mut [u8] = self.map.as_deref_mut().unwrap_or(&mut []);
        // SAFETY: as above, and the mapping is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size_of::<Line>()) }
    }
}

/// Some of the lines.
#[derive(Clone, Debug)]
pub struct Lines {
    pages: Arc<Pages>,
    range: Range<usize>,
}

impl Lines {
    /// Panics if the range is not within the pages.
    pub fn new(pages: Arc<Pages>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= pages.lines().len(), "lines within the pages");
        Self { pages, range }
    }
}

impl Lines {
    /// Some of these. Panics if the range is not within them.
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self::new(Arc::clone(&self.pages), self.range.start + range.start..self.range.start + range.end)
    }
}

impl std::ops::Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.pages.lines()[self.range.clone()]
    }
}
