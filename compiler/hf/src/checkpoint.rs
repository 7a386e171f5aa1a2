//! The tensors of all files of a network: looked up by name, checked against what a description wants, converted to f32.
//!
//! Tensors of f32 stay where they are in their files where they lie on a multiple of four. All others are converted or copied
//! when they are taken.

use crate::folder::WeightFiles;
use crate::tensor_file::{self, StoredTensor, TensorFile, place};
use half::{bf16, f16};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use snnc_ir::tensor::{Buffer, Data, SharedBytes};
use snnc_ir::{Tensor, WeightStore};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Gives the bytes of a file, mapped or read.
pub type OpenFile<'a> = dyn Fn(&Path) -> io::Result<SharedBytes> + 'a;

/// Names that one message lists.
const LISTED: usize = 8;

/// Files of tensors.
#[derive(Debug)]
pub struct FolderTensors<'a> {
    files: Vec<TensorFile>,
    /// The file of every tensor.
    by_name: BTreeMap<String, usize>,
    /// Where weights lie that have other elements in their files.
    store: Option<&'a dyn WeightStore>,
}

/// Which tensor is wanted, and how large it must be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WantedTensor {
    /// Its name in the files.
    pub name: String,
    /// Outermost first.
    pub sizes: Vec<usize>,
}

/// Which rows or columns of a tensor are a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPart {
    /// The whole tensor.
    pub of: WantedTensor,
    /// The axis of which entries are taken.
    pub axis: usize,
    /// The entries, in the order in which the weight has them.
    pub entries: Vec<Range<usize>>,
}

impl TensorPart {
    /// All of a tensor.
    pub fn whole(name: String, sizes: &[usize]) -> Self {
        let all = 0..sizes.first().copied().unwrap_or(1);
        Self { of: WantedTensor { name, sizes: sizes.to_vec() }, axis: 0, entries: vec![all] }
    }

    /// Sizes of the weight.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes = self.of.sizes.clone();
        if let Some(size) = sizes.get_mut(self.axis) {
            *size = self.entries.iter().map(ExactSizeIterator::len).sum();
        }
        sizes
    }
}

impl<'a> FolderTensors<'a> {
    /// Reads the headers of all files. `store` keeps weights whose elements are not f32 in them.
    ///
    /// # Errors
    /// Everything that is wrong with a file; a tensor that is in two files, or not where the list puts it.
    pub fn read(
        weights: &WeightFiles,
        open: &OpenFile<'_>,
        store: Option<&'a dyn WeightStore>,
    ) -> Result<Self, Diagnostics> {
        let (mut files, mut by_name, mut diagnostics) = (Vec::new(), BTreeMap::new(), Diagnostics::new());
        for (at, path) in weights.files.iter().enumerate() {
            let shown = path.display().to_string();
            let bytes = open(path).map_err(|e| {
                Diagnostics::from(Diagnostic::new(&*shown, format!("cannot be read: {e}")).code(ErrorCode::FOLDER))
            })?;
            match tensor_file::read(bytes) {
                Ok(file) => {
                    for name in file.tensors.keys() {
                        if by_name.insert(name.clone(), at).is_some() {
                            diagnostics.push(wrong(name, "is in two files").in_file(&*shown));
                        }
                    }
                    files.push(file);
                }
                Err(found) => diagnostics.extend(found.in_file(&shown)),
            }
        }
        let mut diagnostics = diagnostics.or_else(Diagnostics::new())?;
        for (name, file) in weights.listed.iter().flatten() {
            let there = by_name.get(name).and_then(|&at| weights.files[at].file_name());
            if there.is_none_or(|there| there != file.as_str()) {
                diagnostics.push(wrong(name, format!("is not in the file {file}, where the list of tensors puts it")));
            }
        }
        diagnostics.truncate(LISTED);
        diagnostics.or_else(Self { files, by_name, store })
    }

    /// Names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Whether two tensors are stored alike.
    pub fn same(&self, a: &str, b: &str) -> bool {
        let stored = |name| {
            let (file, stored) = self.stored(name)?;
            Some((&stored.dtype, &stored.sizes, (*file.bytes).as_ref().get(stored.range.clone())?))
        };
        stored(a) == stored(b)
    }

    /// Length of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| (*file.bytes).as_ref().len() as u64).sum()
    }

    /// Adds all files to a hash.
    pub fn add_to(&self, hash: &mut Xxh3) {
        self.files.iter().for_each(|file| hash.update((*file.bytes).as_ref()));
    }

    fn stored(&self, name: &str) -> Option<(&TensorFile, &StoredTensor)> {
        let file = &self.files[*self.by_name.get(name)?];
        Some((file, file.tensors.get(name)?))
    }

    /// Compares what is there with what is wanted; `derived` says which tensors follow from the configuration.
    ///
    /// # Errors
    /// Tensors that are missing, of other sizes or of a type that cannot be read, and tensors that nobody wants.
    pub fn check(&self, wanted: &[WantedTensor], derived: impl Fn(&str) -> bool) -> Result<(), Diagnostics> {
        let mut diagnostics = Diagnostics::new();
        let mut missing = Vec::new();
        let known: HashSet<&str> = wanted.iter().map(|wanted| wanted.name.as_str()).collect();
        let mut seen: HashMap<&str, &WantedTensor> = HashMap::new();
        for wanted in
            wanted.iter().filter(|wanted| seen.insert(&wanted.name, wanted).is_none_or(|same| same != *wanted))
        {
            let sizes = &wanted.sizes;
            match self.stored(&wanted.name) {
                None => missing.push(format!("{} {sizes:?}", wanted.name)),
                Some((_, stored)) if stored.sizes != *sizes => {
                    let message = format!("it is {:?}; by the configuration it should be {sizes:?}", stored.sizes);
                    diagnostics.push(wrong(&wanted.name, message));
                }
                Some((_, stored)) if !READ.contains(&stored.dtype.as_str()) => {
                    let message = format!("it is of type {}; {} are read", stored.dtype, READ.join(", "));
                    diagnostics.push(
                        wrong(&wanted.name, message).note("save the network anew in float32, float16 or bfloat16"),
                    );
                }
                Some(_) => {}
            }
        }
        let unused: Vec<String> =
            self.names().filter(|name| !known.contains(name) && !derived(name)).map(str::to_string).collect();
        if !missing.is_empty() {
            diagnostics.push(several("are missing", &missing));
        }
        if !unused.is_empty() {
            let told = several("have no place in the network that the configuration describes", &unused);
            diagnostics.push(told.note("without them it would be another network"));
        }
        diagnostics.truncate(LISTED);
        diagnostics.or_else(())
    }

    /// The weight that a part of a tensor is, which was checked.
    ///
    /// # Errors
    /// It holds a number that is not finite; there is no room for it.
    pub fn take(&self, part: &TensorPart) -> Result<Tensor, Diagnostic> {
        let name = &part.of.name;
        let (file, stored) = self.stored(name).ok_or_else(|| wrong(name, "is missing"))?;
        let sizes = part.sizes();
        let data = floats(file, stored, part);
        if let Some(i) = data.iter().position(|x| !x.is_finite()) {
            let what = if data[i].is_nan() { "NaN" } else { "an infinity" };
            let message = format!("it holds {what} (element {i} of {})", data.len());
            return Err(wrong(name, message).note("a weight that is not finite makes every output NaN"));
        }
        let tensor = Tensor::new(sizes, Data::F32(data));
        match self.store {
            Some(store) => store.keep(tensor),
            None => Ok(tensor),
        }
    }
}

/// Types of elements that are read.
const READ: [&str; 3] = ["F32", "F16", "BF16"];

fn wrong(name: &str, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(place(name), message).code(ErrorCode::FOLDER)
}

fn several(what: &str, names: &[String]) -> Diagnostic {
    let more = names.len().saturating_sub(LISTED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = names.iter().take(LISTED).map(String::as_str).collect::<Vec<&str>>().join(", ");
    Diagnostic::new("tensors", format!("{what}: {names}{more}")).code(ErrorCode::FOLDER)
}

/// The elements of a part, as f32.
fn floats(file: &TensorFile, stored: &StoredTensor, part: &TensorPart) -> Buffer<f32> {
    let width = if stored.dtype == "F32" { 4 } else { 2 };
    let pieces = pieces(&part.of.sizes, part.axis, &part.entries);
    let bytes = |piece: &Range<usize>| stored.range.start + piece.start * width..stored.range.start + piece.end * width;
    if let [piece] = pieces.as_slice()
        && stored.dtype == "F32"
        && let Some(buffer) = Buffer::shared(file.bytes.clone(), bytes(piece))
    {
        return buffer;
    }
    let all = (*file.bytes).as_ref();
    let mut floats = Vec::with_capacity(pieces.iter().map(ExactSizeIterator::len).sum());
    for piece in &pieces {
        let raw = &all[bytes(piece)];
        let pair = |c: &[u8]| [c[0], c[1]];
        match stored.dtype.as_str() {
            "F32" => floats.extend(raw.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))),
            "F16" => floats.extend(raw.chunks_exact(2).map(|c| f16::from_le_bytes(pair(c)).to_f32())),
            _ => floats.extend(raw.chunks_exact(2).map(|c| bf16::from_le_bytes(pair(c)).to_f32())),
        }
    }
    floats.into()
}

/// Elements of entries of an axis, in row-major order, as ranges; one range where they lie together.
fn pieces(sizes: &[usize], axis: usize, entries: &[Range<usize>]) -> Vec<Range<usize>> {
    let inner: usize = sizes.iter().skip(axis + 1).product();
    let outer: usize = sizes.iter().take(axis).product();
    let size = sizes.get(axis).copied().unwrap_or(1);
    let mut pieces: Vec<Range<usize>> = Vec::new();
    for row in 0..outer {
        for entry in entries {
            let piece = (row * size + entry.start) * inner..(row * size + entry.end) * inner;
            match pieces.last_mut() {
                Some(last) if last.end == piece.start => last.end = piece.end,
                _ => pieces.push(piece),
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::pieces;
    use std::ops::Range;

    #[test]
    fn entries_of_an_axis_are_ranges() {
        let at = |sizes: &[usize], axis: usize, of: &[[usize; 2]]| -> Vec<[usize; 2]> {
            let of: Vec<Range<usize>> = of.iter().map(|&[from, to]| from..to).collect();
            pieces(sizes, axis, &of).into_iter().map(|range| [range.start, range.end]).collect()
        };
        assert_eq!(at(&[6, 2], 0, &[[0, 6]]), [[0, 12]]);
        assert_eq!(at(&[6, 2], 0, &[[1, 2], [2, 4]]), [[2, 8]]);
        assert_eq!(at(&[6, 2], 0, &[[4, 5], [0, 1]]), [[8, 10], [0, 2]]);
        assert_eq!(at(&[2, 3], 1, &[[1, 3]]), [[1, 3], [4, 6]]);
        assert_eq!(at(&[3], 0, &[[1, 2]]), [[1, 2]]);
        assert_eq!(at(&[], 0, &[[0, 1]]), [[0, 1]]);
    }
}
