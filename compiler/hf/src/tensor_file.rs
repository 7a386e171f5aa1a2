//! One safetensors file: a header that names tensors, and their bytes, which stay where they are.
//!
//! Law: the tensors tile the file. Each lies within it, none overlaps another, and no byte belongs to none. So a file that is
//! cut off, or that was put together wrongly, is refused before a number is read.
//!
//! The header is read here, since a message is to name the tensor and its numbers.

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use snnc_ir::diagnostic::{Diagnostic, Diagnostics, ErrorCode};
use snnc_ir::tensor::SharedBytes;
use std::fmt;
use std::ops::Range;

/// Longest header: some two hundred thousand tensors.
const HEADER_MAX: u64 = 32 << 20;

/// Bytes before the header: its length.
const LENGTH_BYTES: usize = 8;

/// Most axes of a tensor.
const RANK_MAX: usize = 8;

/// Longest name of a tensor, in bytes.
const NAME_MAX: usize = 512;

/// Errors of one file that are worth reading.
const ERRORS_MAX: usize = 10;

/// A file and what is in it.
pub struct TensorFile {
    /// All bytes.
    pub bytes: SharedBytes,
    /// Tensors by name, in the order of the header.
    pub tensors: IndexMap<String, StoredTensor>,
}

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorFile").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

/// Where a tensor lies, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// How elements are spelled: `F32`, `BF16` and so on.
    pub dtype: String,
    /// Outermost first.
    pub sizes: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

impl StoredTensor {
    /// Its type and sizes, for a person: `F32 [4, 8]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.dtype, self.sizes)
    }
}

/// A tensor as the header spells it.
#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// What stands at a name: `__metadata__` is no tensor.
enum HeaderItem {
    Tensor(HeaderEntry),
    Metadata,
}

/// The header as it is spelled, with names that come twice.
struct HeaderItems(Vec<(String, HeaderItem)>);

impl<'de> Deserialize<'de> for HeaderItems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = HeaderItems;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<HeaderItems, M::Error> {
                let mut items = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let item = if name == "__metadata__" {
                        map.next_value::<serde::de::IgnoredAny>()?;
                        HeaderItem::Metadata
                    } else {
                        HeaderItem::Tensor(map.next_value()?)
                    };
                    items.push((name, item));
                }
                Ok(HeaderItems(items))
            }
        }
        deserializer.deserialize_map(Items)
    }
}

/// The tensors of a file's bytes. Errors have no file in their places: the caller puts it there.
///
/// # Errors
/// What is wrong with the header, or with where tensors lie: by tensor, ten at most.
pub fn read(bytes: SharedBytes) -> Result<TensorFile, Diagnostics> {
    let all = (*bytes).as_ref();
    let header = header(all)?;
    let start = LENGTH_BYTES + header.len();
    let HeaderItems(items) = serde_json::from_slice(header).map_err(|e| wrong("header", format!("is damaged: {e}")))?;
    let mut tensors = IndexMap::new();
    let mut diagnostics = Diagnostics::new();
    for (name, item) in items {
        let HeaderItem::Tensor(entry) = item else { continue };
        match entry.located(start, all.len()) {
            _ if name.len() > NAME_MAX || name.chars().any(char::is_control) => {
                diagnostics.push(wrong("header", "has a tensor whose name is too long, or not text"));
            }
            _ if tensors.contains_key(&name) => diagnostics.push(wrong(&place(&name), "is in the file twice")),
            Ok(tensor) => drop(tensors.insert(name, tensor)),
            Err(message) => diagnostics.push(wrong(&place(&name), message)),
        }
        if diagnostics.len() == ERRORS_MAX {
            break;
        }
    }
    if diagnostics.is_empty() {
        diagnostics.extend(tiling(&tensors, start, all.len()));
    }
    diagnostics.or_else(()).map(|()| TensorFile { bytes, tensors })
}

/// How a tensor is called in messages.
pub fn place(name: &str) -> String {
    format!("tensor {name}")
}

fn wrong(place: &str, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(place, message).code(ErrorCode::FOLDER)
}

/// The bytes of the header.
fn header(all: &[u8]) -> Result<&[u8], Diagnostic> {
    let Some(length) = all.first_chunk::<LENGTH_BYTES>() else {
        return Err(wrong("header", format!("is missing: the file has {} bytes", all.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > HEADER_MAX {
        let message =
            format!("would have {length} bytes, of {HEADER_MAX} that are possible: this is no safetensors file");
        return Err(wrong("header", message));
    }
    all.get(LENGTH_BYTES..LENGTH_BYTES + length as usize).ok_or_else(|| {
        let message = format!("has {length} bytes, the file {}: is it truncated?", all.len());
        wrong("header", message).note("download the file again")
    })
}

impl HeaderEntry {
    /// Where the tensor lies in a file of `len` bytes whose data begin at `start`.
    fn located(self, start: usize, len: usize) -> Result<StoredTensor, String> {
        let HeaderEntry { dtype, shape, data_offsets: [from, to] } = self;
        if shape.len() > RANK_MAX {
            return Err(format!("it has {} axes; {RANK_MAX} are possible", shape.len()));
        }
        let sizes = shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<Vec<usize>>>();
        let count = sizes.as_ref().and_then(|sizes| sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size)));
        let sizes = sizes.ok_or_else(|| format!("its shape {shape:?} is not possible"))?;
        let count = count.ok_or_else(|| format!("its shape {shape:?} is not possible"))?;
        let begin = usize::try_from(from).ok().and_then(|from| from.checked_add(start));
        let end = usize::try_from(to).ok().and_then(|to| to.checked_add(start));
        let range = match (begin, end) {
            (Some(begin), Some(end)) if begin <= end && end <= len => begin..end,
            (Some(begin), Some(end)) if begin <= end => {
                return Err(format!("it ends at byte {end}, the file has {len}: is it truncated? download it again"));
            }
            _ => return Err(format!("its place {from} to {to} is not possible")),
        };
        // Sizes of other types are not checked one by one: such tensors are never read.
        if let Some(width) = element_bytes(&dtype)
            && count.checked_mul(width) != Some(range.len())
        {
            return Err(format!("its shape {shape:?} of {dtype} does not fit the {} bytes that it has", range.len()));
        }
        Ok(StoredTensor { dtype, sizes, range })
    }
}

/// Bytes of an element, where elements have whole bytes.
fn element_bytes(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => 1,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "F32" | "I32" | "U32" => 4,
        "F64" | "I64" | "U64" => 8,
        _ => return None,
    })
}

/// What breaks the law that the tensors tile the file.
fn tiling(tensors: &IndexMap<String, StoredTensor>, start: usize, len: usize) -> Option<Diagnostic> {
    let mut order: Vec<(&String, &Range<usize>)> = tensors.iter().map(|(name, tensor)| (name, &tensor.range)).collect();
    order.sort_by_key(|(_, range)| (range.start, range.end));
    let mut at = start;
    for (name, range) in order {
        if range.start < at {
            return Some(wrong(&place(name), "it lies where another tensor lies"));
        }
        if range.start > at {
            let message = format!("{} bytes before it belong to no tensor", range.start - at);
            return Some(wrong(&place(name), message));
        }
        at = range.end;
    }
    (at < len).then(|| wrong("", format!("its last {} bytes belong to no tensor", len - at)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn file(header: &str, data: usize) -> Result<TensorFile, String> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        read(Arc::new(bytes)).map_err(|e| e.to_string())
    }

    #[test]
    fn tensors_are_found() {
        let file = file(
            r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[2,10]},
                "a":{"dtype":"BF16","shape":[1,1],"data_offsets":[0,2]}}  "#,
            10,
        )
        .unwrap();
        let names: Vec<&str> = file.tensors.keys().map(String::as_str).collect();
        assert_eq!(names, ["b", "a"]);
        assert_eq!(file.tensors["a"].describe(), "BF16 [1, 1]");
        let (a, b) = (&file.tensors["a"].range, &file.tensors["b"].range);
        assert_eq!((a.len(), b.len(), a.end), (2, 8, b.start));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let one = |entry: &str, data| file(&format!(r#"{{"a":{entry}}}"#), data).unwrap_err();
        for (entry, data, words) in [
            (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 7, "tensor a: it ends at byte"),
            (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#, 9, "its last 1 bytes belong to no tensor"),
            (r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#, 8, "does not fit the 8 bytes"),
            (r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#, 8, "its place 8 to 0 is not possible"),
            (r#"{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#, 12, "4 bytes before it belong to no tensor"),
            (r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#, 8, "header: is damaged"),
            (r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#, 8, "is not possible"),
            (r#"{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}"#, 8, "not possible"),
            (r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}"#, 8, "9 axes"),
            (r#"{"shape":[2],"data_offsets":[0,8]}"#, 8, "header: is damaged"),
        ] {
            let told = one(entry, data);
            assert!(told.contains(words), "{entry}: {told}");
        }
        let both = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert!(file(both, 6).unwrap_err().contains("tensor b: it lies where another tensor lies"));
        let twice = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        assert!(file(twice, 4).unwrap_err().contains("tensor a: is in the file twice"));
        assert!(file("[]", 0).unwrap_err().contains("header: is damaged"));
        let deep = format!(r#"{{"a":{}"#, "[".repeat(1 << 16));
        assert!(file(&deep, 0).unwrap_err().contains("header: is damaged"));
    }

    #[test]
    fn a_header_that_is_none() {
        let of = |bytes: Vec<u8>| read(Arc::new(bytes)).unwrap_err().to_string();
        assert!(of(vec![1, 2, 3]).contains("header: is missing"));
        assert!(of(vec![255; 64]).contains("this is no safetensors file"));
        assert!(of([100, 0, 0, 0, 0, 0, 0, 0, b'{'].to_vec()).contains("is it truncated?"));
    }
}
