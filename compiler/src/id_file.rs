//! Token ids in a `.npy` file: for networks that have no tokenizer, and for texts that were tokenised elsewhere.
//!
//! `[n]` is one text, `[texts, n]` several of one length. Ids are as the network reads them: nothing is put before them. The
//! file stays mapped, so that a long one takes no memory.

use crate::files;
use crate::npy::{MAGIC, NpyHeader};
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::ErrorCode;
use snnc_ir::tensor::SharedBytes;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Integers that ids may be stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdElement {
    bytes: usize,
    signed: bool,
}

/// A file of ids, all of which are 0 or more and fit 32 bits.
pub struct IdFile {
    place: String,
    bytes: SharedBytes,
    from: usize,
    element: IdElement,
    texts: usize,
    length: usize,
    largest: u32,
}

impl std::fmt::Debug for IdFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IdFile({}, [{}, {}])", self.place, self.texts, self.length)
    }
}

/// Whether a file begins as `.npy` files do.
pub fn is_npy(path: &Path) -> bool {
    let mut start = [0; MAGIC.len()];
    // Opening a pipe waits for whoever writes to it.
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *MAGIC
}

impl IdFile {
    /// Maps a file and looks through it once.
    ///
    /// # Errors
    /// The file cannot be read, is none of integers in one or two dimensions, or holds what is no id.
    pub fn open(path: &Path) -> Result<Self, Diagnostic> {
        let place = path.display().to_string();
        let wrong = |what: String| Diagnostic::new(place.as_str(), what).code(ErrorCode::FILE);
        if !is_npy(path) {
            return Err(wrong("is no .npy file of token ids".into()).note("numpy.save(path, ids) writes one"));
        }
        let bytes = files::map(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
        let all = (*bytes).as_ref();
        let header = NpyHeader::of(all).map_err(wrong)?;
        let from = header.bytes;
        let (element, [texts, length]) =
            ids_of(&header).map_err(|what| wrong(what).note("ids are integers, [n] or [texts, n], in C order"))?;
        let wanted = texts.checked_mul(length).and_then(|count| count.checked_mul(element.bytes));
        if wanted != Some(all.len() - from) {
            return Err(wrong(format!("is damaged: [{texts}, {length}] ids are not {} bytes", all.len() - from)));
        }
        let mut file = Self { place, bytes, from, element, texts, length, largest: 0 };
        file.largest = file.scan()?;
        Ok(file)
    }

    /// The largest id, of ids that are all ids.
    fn scan(&self) -> Result<u32, Diagnostic> {
        let mut largest = 0;
        for i in 0..self.len() {
            let number = self.number(i);
            let id = u32::try_from(number).map_err(|_| self.at(i, &format!("{number} is no token id")))?;
            largest = largest.max(id);
        }
        Ok(largest)
    }

    fn at(&self, i: usize, what: &str) -> Diagnostic {
        let at = if self.texts > 1 {
            format!("element [{}, {}]", i / self.length, i % self.length)
        } else {
            format!("element {i}")
        };
        Diagnostic::new(self.place.as_str(), format!("{at}: {what}")).code(ErrorCode::FILE)
    }

    fn number(&self, i: usize) -> i128 {
        let IdElement { bytes, signed } = self.element;
        let own = &(*self.bytes).as_ref()[self.from + i * bytes..][..bytes];
        let mut wide = [if signed && own[bytes - 1] >= 0x80 { 0xff } else { 0 }; 16];
        wide[..bytes].copy_from_slice(own);
        i128::from_le_bytes(wide)
    }

    /// Refuses ids for which the network has no row.
    ///
    /// # Errors
    /// There is one, with its place.
    pub fn check(&self, rows: usize) -> Result<(), Diagnostic> {
        if (self.largest as usize) < rows || self.is_empty() {
            return Ok(());
        }
        let first = (0..self.len()).find(|&i| self.number(i) >= rows as i128).unwrap_or(0);
        let what = format!("id {}; the network's embedding has {rows} rows", self.number(first));
        Err(self.at(first, &what).note("the ids are those of another tokenizer"))
    }

    /// What it is called in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Texts in it.
    pub fn texts(&self) -> usize {
        self.texts
    }

    /// Ids of each text.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Ids in all.
    pub fn len(&self) -> usize {
        self.texts * self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> usize {
        (*self.bytes).as_ref().len()
    }

    /// XXH3-64 of its bytes.
    pub fn hash(&self) -> u64 {
        xxh3_64((*self.bytes).as_ref())
    }

    /// Ids by their place in all of them, text after text. Panics beyond the end: a precondition of the caller.
    pub fn ids(&self, range: Range<usize>) -> Vec<u32> {
        // The scan has shown that all are ids.
        range.map(|i| self.number(i) as u32).collect()
    }
}

/// What a header says of the numbers: their type and the two sizes.
fn ids_of(header: &NpyHeader) -> Result<(IdElement, [usize; 2]), String> {
    let element = match header.kind.as_str() {
        "|u1" => IdElement { bytes: 1, signed: false },
        "<u2" => IdElement { bytes: 2, signed: false },
        "<i2" => IdElement { bytes: 2, signed: true },
        "<u4" => IdElement { bytes: 4, signed: false },
        "<i4" => IdElement { bytes: 4, signed: true },
        "<u8" => IdElement { bytes: 8, signed: false },
        "<i8" => IdElement { bytes: 8, signed: true },
        other => return Err(format!("holds numbers of type `{other}`, which are no little-endian integers")),
    };
    let sizes = match header.sizes[..] {
        [n] => [1, n],
        [texts, n] => [texts, n],
        _ => return Err("holds no array of one or two dimensions".into()),
    };
    if sizes[0] > 1 && header.by_column {
        return Err("holds its array column by column".into());
    }
    Ok((element, sizes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of these bytes, as NumPy writes it.
    fn file(descr: &str, order: &str, shape: &str, numbers: &[u8]) -> (tempfile::TempDir, Result<IdFile, Diagnostic>) {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let length = (header.len() as u16).to_le_bytes();
        let bytes = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ids.npy");
        std::fs::write(&path, bytes).expect("written");
        let file = IdFile::open(&path);
        (folder, file)
    }

    fn refusal(descr: &str, order: &str, shape: &str, numbers: &[u8]) -> String {
        file(descr, order, shape, numbers).1.expect_err("these are no ids").message
    }

    #[test]
    fn integers_of_any_width_are_ids() {
        let two = |bytes: &[u8]| [bytes, bytes].concat();
        for (descr, number) in [
            ("<u2", &[7, 1][..]),
            ("<i2", &[7, 1]),
            ("<i4", &[7, 1, 0, 0]),
            ("<u4", &[7, 1, 0, 0]),
            ("<i8", &[7, 1, 0, 0, 0, 0, 0, 0]),
            ("<u8", &[7, 1, 0, 0, 0, 0, 0, 0]),
        ] {
            let (_folder, ids) = file(descr, "False", "(2,)", &two(number));
            let ids = ids.expect(descr);
            assert_eq!((ids.ids(0..2), ids.texts(), ids.length()), (vec![263, 263], 1, 2), "{descr}");
            assert!(ids.check(264).is_ok());
            assert!(ids.check(263).expect_err("too large").message.contains("element 0: id 263"));
        }
        let (_folder, ids) = file("|u1", "False", "(2, 3)", &[1, 2, 3, 4, 5, 6]);
        let ids = ids.expect("two texts");
        assert_eq!((ids.ids(3..6), ids.texts(), ids.length()), (vec![4, 5, 6], 2, 3));
        assert!(ids.check(5).expect_err("too large").message.contains("element [1, 1]: id 5"));
    }

    #[test]
    fn what_is_no_id_is_named() {
        assert!(refusal("<f4", "False", "(1,)", &[0; 4]).contains("type `<f4`"));
        assert!(refusal(">i4", "False", "(1,)", &[0; 4]).contains("type `>i4`"));
        assert!(refusal("<i4", "False", "(1,)", &[0xff; 4]).contains("element 0: -1 is no token id"));
        assert!(refusal("<u8", "False", "(1,)", &[0xff; 8]).contains("is no token id"));
        assert!(refusal("<i4", "False", "(1, 1, 1)", &[0; 4]).contains("one or two dimensions"));
        assert!(refusal("<i4", "False", "()", &[0; 4]).contains("one or two dimensions"));
        assert!(refusal("|u1", "True", "(2, 2)", &[0; 4]).contains("column by column"));
        assert!(refusal("<i4", "False", "(2,)", &[0; 4]).contains("is damaged"));
        assert!(refusal("<i8", "False", "(4611686018427387904, 4611686018427387904)", &[]).contains("is damaged"));
    }

    #[test]
    fn no_beginning_of_a_file_is_one() {
        let (folder, _) = file("<i4", "False", "(1,)", &[0; 4]);
        let path = folder.path().join("ids.npy");
        let bytes = std::fs::read(&path).expect("it was written");
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("written");
            assert!(IdFile::open(&path).is_err(), "{length} of {} bytes", bytes.len());
        }
    }
}
