//! The elements of tensors: in one of five fields of the file, or in files beside it.
//!
//! Files are mapped, not read: a weight of f32 stays where it is on the disk if it lies on a multiple of four there, and
//! every other one is converted or copied, tensor by tensor.

use crate::mmap::{self, ModelFile};
use crate::proto::{StringStringEntryProto, TensorProto};
use crate::tensor::{ArrayData, OnnxArray};
use bytes::Bytes;
use half::{bf16, f16};
use snnc_ir::tensor::{Buffer, Data, SharedBytes};
use snnc_ir::{Tensor, WeightStore};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The most axes of a tensor.
const RANK_MAX: usize = 16;

/// Copies of fewer bytes come from the mapping: their pages are there already, with the nodes beside them.
const READ_MIN: usize = 1 << 16;

/// Where elements come from.
pub(crate) struct TensorSources<'a> {
    file: ModelFile,
    /// What was read of the file, by place: hashed from the copy.
    copies: Vec<(usize, SharedBytes)>,
    beside: DataFiles,
    /// Where f32 lie that the files have in other types.
    store: Option<&'a dyn WeightStore>,
}

impl<'a> TensorSources<'a> {
    /// Of a file in `folder`; without one, no other file may be named.
    pub fn new(file: ModelFile, folder: Option<PathBuf>, store: Option<&'a dyn WeightStore>) -> Self {
        Self { file, copies: Vec::new(), beside: DataFiles::new(folder), store }
    }

    /// The same elements, as they lie from now on.
    fn kept(&self, data: ArrayData) -> Result<ArrayData, String> {
        match (data, self.store) {
            (ArrayData::F32(Buffer::Owned(numbers)), Some(store)) => {
                let kept = store.keep(Tensor::f32(&[numbers.len()], numbers));
                match kept.map_err(|e| format!("{}: {}", e.place, e.message))?.into_data() {
                    Data::F32(numbers) => Ok(ArrayData::F32(numbers)),
                    Data::I32(_) | Data::I8(_) | Data::Panels(_) | Data::Groups { .. } => {
                        unreachable!("a store keeps what it is given")
                    }
                }
            }
            (data, _) => Ok(data),
        }
    }

    /// XXH3-64 of the whole file.
    pub fn hash(mut self) -> u64 {
        let (mut hash, mut at, bytes) = (Xxh3::new(), 0, self.file.bytes());
        self.copies.sort_by_key(|(start, _)| *start);
        for (start, copy) in &self.copies {
            let copy = (**copy).as_ref();
            hash.update(&bytes[at..*start]);
            hash.update(copy);
            at = start + copy.len();
        }
        hash.update(&bytes[at..]);
        hash.digest()
    }

    /// f32 that are `raw` in the file.
    fn floats(&mut self, raw: Bytes) -> Result<ArrayData, String> {
        let (start, len) = (self.file.start_of(&raw), raw.len());
        if let Some(buffer) = Buffer::shared(Arc::new(raw), 0..len) {
            return Ok(ArrayData::F32(buffer));
        }
        let copy = self.file.copy(start..start + len).map_err(|e| format!("its data cannot be read: {e}"))?;
        let copy: SharedBytes = Arc::new(copy);
        if len >= READ_MIN {
            self.copies.push((start, copy.clone()));
        }
        Ok(ArrayData::F32(floats_of(copy, 0..len)))
    }
}

/// The array that a tensor of the file is.
///
/// # Errors
/// A sentence on its shape, its type or its elements.
pub(crate) fn array(mut tensor: TensorProto, sources: &mut TensorSources<'_>) -> Result<OnnxArray, String> {
    let (sizes, count) = sizes(&tensor.dims)?;
    let data = if tensor.data_location == EXTERNAL {
        let (bytes, range) = sources.beside.bytes(&tensor.external_data, bytes_of(tensor.data_type, count)?)?;
        match tensor.data_type {
            FLOAT => ArrayData::F32(floats_of(bytes, range)),
            elem => of_bytes(elem, &(*bytes).as_ref()[range], count)?,
        }
    } else if let Some(raw) = tensor.raw_data.take() {
        let (want, have) = (bytes_of(tensor.data_type, count)?, raw.len());
        if have != want {
            let dims = &tensor.dims;
            return Err(format!("its shape {dims:?} wants {want} bytes, the file has {have}: is it truncated?"));
        }
        match tensor.data_type {
            FLOAT => sources.floats(raw)?,
            elem => of_bytes(elem, &raw, count)?,
        }
    } else {
        of_fields(&mut tensor, count)?
    };
    if data.len() != count {
        return Err(format!("its shape {:?} wants {count} elements, the file has {}", tensor.dims, data.len()));
    }
    Ok(OnnxArray::new(sizes, sources.kept(data)?))
}

/// ONNX's number of f32.
const FLOAT: i32 = 1;

/// ONNX's number for data in another file.
const EXTERNAL: i32 = 1;

fn sizes(dims: &[i64]) -> Result<(Vec<usize>, usize), String> {
    if dims.len() > RANK_MAX {
        return Err(format!("it has {} axes; {RANK_MAX} are possible", dims.len()));
    }
    let sizes = dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
    let count = sizes.as_ref().and_then(|sizes| sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
    sizes.zip(count).ok_or_else(|| format!("its shape {dims:?} is not possible"))
}

/// f32 that stay in their bytes where they lie on a multiple of four.
fn floats_of(bytes: SharedBytes, range: Range<usize>) -> Buffer<f32> {
    let four = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
    Buffer::shared(bytes.clone(), range.clone())
        .unwrap_or_else(|| (*bytes).as_ref()[range].chunks_exact(4).map(four).collect::<Vec<f32>>().into())
}

/// Little-endian elements, converted.
fn of_bytes(elem: i32, bytes: &[u8], count: usize) -> Result<ArrayData, String> {
    let u16s = || bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    let u32s = || bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let eight = |c: &[u8]| [c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]];
    let u64s = || bytes.chunks_exact(8).map(move |c| u64::from_le_bytes(eight(c)));
    let halves = || bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(count);
    Ok(match elem {
        2 => ArrayData::U8(bytes.to_vec()),
        3 => ArrayData::I8(bytes.iter().map(|&b| b as i8).collect()),
        4 => ArrayData::I64(u16s().map(i64::from).collect()),
        5 => ArrayData::I64(u16s().map(|x| i64::from(x as i16)).collect()),
        6 => ArrayData::I32(u32s().map(|x| x as i32).collect()),
        7 | 13 => ArrayData::I64(u64s().map(|x| x as i64).collect()),
        9 => ArrayData::Bool(bytes.iter().map(|&b| b != 0).collect()),
        10 => floats(u16s().map(|bits| f16::from_bits(bits).to_f32())),
        11 => floats(u64s().map(|bits| f64::from_bits(bits) as f32)),
        12 => ArrayData::I64(u32s().map(i64::from).collect()),
        16 => floats(u16s().map(|bits| bf16::from_bits(bits).to_f32())),
        21 => ArrayData::U8(halves().collect()),
        22 => ArrayData::I8(halves().map(|x| (x << 4) as i8 >> 4).collect()),
        other => return Err(no_elem(other)),
    })
}

fn floats(numbers: impl Iterator<Item = f32>) -> ArrayData {
    ArrayData::F32(numbers.collect::<Vec<f32>>().into())
}

/// Elements in the field of their type. A bare tensor of no elements has none.
fn of_fields(tensor: &mut TensorProto, count: usize) -> Result<ArrayData, String> {
    let (int32, int64, uint64) = (&tensor.int32_data, &tensor.int64_data, &tensor.uint64_data);
    let all = int32.iter().map(|&x| i64::from(x)).chain(int64.iter().copied());
    let mut ints = all.chain(uint64.iter().map(|&x| x as i64));
    Ok(match tensor.data_type {
        FLOAT => ArrayData::F32(std::mem::take(&mut tensor.float_data).into()),
        elem @ (21 | 22) => {
            let (bytes, want): (Vec<u8>, usize) = (ints.map(|x| x as u8).collect(), count.div_ceil(2));
            if bytes.len() != want {
                let (dims, have) = (&tensor.dims, bytes.len());
                return Err(format!("its shape {dims:?} wants {want} bytes, the file has {have}"));
            }
            return of_bytes(elem, &bytes, count);
        }
        2 => ArrayData::U8(ints.map(|x| x as u8).collect()),
        3 => ArrayData::I8(ints.map(|x| x as i8).collect()),
        6 => ArrayData::I32(ints.map(|x| x as i32).collect()),
        4 | 5 | 7 | 12 | 13 => ArrayData::I64(ints.collect()),
        9 => ArrayData::Bool(ints.map(|x| x != 0).collect()),
        10 => floats(ints.map(|x| f16::from_bits(x as u16).to_f32())),
        11 => floats(tensor.double_data.iter().map(|&x| x as f32)),
        16 => floats(ints.by_ref().map(|x| bf16::from_bits(x as u16).to_f32())),
        other => return Err(no_elem(other)),
    })
}

/// Bytes of `count` elements in the file.
fn bytes_of(elem: i32, count: usize) -> Result<usize, String> {
    let width = match elem {
        21 | 22 => return Ok(count.div_ceil(2)),
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        other => return Err(no_elem(other)),
    };
    count.checked_mul(width).ok_or_else(|| "its size in bytes overflows".to_string())
}

fn no_elem(elem: i32) -> String {
    format!("its element type (ONNX's number {elem}) is not supported")
}

/// Files in the model's folder that its tensors lie in, each mapped once.
#[derive(Default)]
struct DataFiles {
    folder: Option<PathBuf>,
    maps: HashMap<PathBuf, SharedBytes>,
}

impl DataFiles {
    fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, maps: HashMap::new() }
    }

    /// `want` bytes of the file that the entries name. It must lie in the folder or below.
    fn bytes(
        &mut self,
        entries: &[StringStringEntryProto],
        want: usize,
    ) -> Result<(SharedBytes, Range<usize>), String> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("its external data's {key} is {text:?}")),
        };
        let folder = self.folder.as_deref().ok_or("its data is in another file, which cannot be read here")?;
        let location = entry("location").ok_or("its external data names no file")?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if length.is_some_and(|length| length != want as u64) {
            return Err(format!("its shape wants {want} bytes, its external data says {}", length.unwrap_or(0)));
        }
        let path = confined(folder, location)?;
        let shared = match self.maps.get(&path) {
            Some(shared) => shared.clone(),
            None => {
                let shared = mmap::map(&path).map_err(|e| cannot(location, &e))?;
                self.maps.insert(path, shared.clone());
                shared
            }
        };
        let have = (*shared).as_ref().len();
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(want)?)).filter(|range| range.end <= have);
        let range = range.ok_or_else(|| {
            format!("its data is said to be {want} bytes from {offset} in {location:?}, which has {have} bytes")
        })?;
        Ok((shared, range))
    }
}

fn cannot(location: &str, e: &std::io::Error) -> String {
    format!("its data in {location:?} cannot be read: {e}")
}

/// Where `location` is, if that is in `folder`.
fn confined(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let outside = || format!("its data is said to be in {location:?}, which is outside the model's folder");
    let inside = |c: Component| matches!(c, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(inside) {
        return Err(outside());
    }
    let failed = |e: std::io::Error| cannot(location, &e);
    let real = folder.join(location).canonicalize().map_err(failed)?;
    let home = if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.canonicalize().map_err(failed)?;
    if !real.starts_with(home) {
        return Err(outside());
    }
    // A folder, a pipe or a device cannot be mapped.
    if !real.metadata().map_err(failed)?.is_file() {
        return Err(format!("its data is said to be in {location:?}, which is not a file"));
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_stays_in_its_folder() {
        let entries = |location: &str| vec![StringStringEntryProto { key: "location".into(), value: location.into() }];
        for location in ["../secret", "/etc/passwd", "a/../../b"] {
            let answer = DataFiles::new(Some(PathBuf::from("."))).bytes(&entries(location), 1);
            assert!(answer.is_err_and(|message| message.contains("outside")), "{location}");
        }
        let answer = DataFiles::new(Some(PathBuf::from("."))).bytes(&entries("src"), 1);
        assert!(answer.is_err_and(|message| message.contains("not a file")));
    }

    fn of(dims: &[i64], data_type: i32, raw: &[u8]) -> ArrayData {
        let file = ModelFile::of(Bytes::copy_from_slice(raw));
        let tensor = TensorProto { dims: dims.to_vec(), data_type, raw_data: Some(file.bytes()), ..Default::default() };
        array(tensor, &mut TensorSources::new(file, None, None)).expect("an array").data().clone()
    }

    #[test]
    fn halves_of_bytes_are_elements_of_four_bits() {
        assert_eq!(of(&[3], 21, &[0xf1, 0x08]), ArrayData::U8(vec![1, 15, 8]));
        assert_eq!(of(&[3], 22, &[0xf1, 0x08]), ArrayData::I8(vec![1, -1, -8]));
    }

    #[test]
    fn halves_are_exact() {
        let cases: [(u16, f32); 5] =
            [(0x3c00, 1.0), (0xc000, -2.0), (1, 5.960_464_5e-8), (0xfbff, -65504.0), (0xfc00, f32::NEG_INFINITY)];
        for (bits, value) in cases {
            assert_eq!(of(&[1], 10, &bits.to_le_bytes()), ArrayData::F32(vec![value].into()));
        }
        assert_eq!(of(&[1], 16, &0x3f80u16.to_le_bytes()), ArrayData::F32(vec![1.0].into()));
    }

    /// A slice of the file that starts one byte off a multiple of four is copied, another one is not.
    #[test]
    fn what_is_aligned_stays_where_it_is() {
        let bytes: Bytes = vec![0u8; 4 * READ_MIN].into();
        let off = bytes.as_ptr().align_offset(4);
        let file = ModelFile::of(bytes.clone());
        let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
        let mut sources = TensorSources::new(file, None, None);
        for (start, copies) in [(off, 0), (off + READ_MIN + 1, 1)] {
            let raw = bytes.slice(start..start + READ_MIN);
            let address = raw.as_ptr() as usize;
            let data = sources.floats(raw).expect("numbers");
            let ArrayData::F32(buffer) = data else { panic!("f32") };
            assert_eq!(buffer.as_ptr() as usize == address, copies == 0);
            assert_eq!(sources.copies.len(), copies);
        }
        assert_eq!(sources.hash(), hash);
    }
}
