//! Tensors as ONNX files store them: in one of five fields of the file, or in files beside it.
//!
//! Files beside the model are mapped, not read: a weight of f32 stays where it is on the disk, and every other type is
//! converted tensor by tensor.

use super::tensor::{ArrayData, OnnxArray, f32_of_bf16, f32_of_bytes, f32_of_f16};
use crate::mmap;
use snnc_ir::tensor::{Buffer, SharedBytes};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The most axes of a tensor.
const RANK_MAX: usize = 16;

/// A tensor as it is in the file.
#[derive(Default)]
pub(super) struct RawTensor {
    pub name: String,
    pub dims: Vec<i64>,
    pub elem: i64,
    pub bytes: Option<Vec<u8>>,
    /// Little-endian f32, f64.
    pub floats: Vec<u8>,
    pub doubles: Vec<u8>,
    pub ints: Vec<i64>,
    pub external: Vec<(String, String)>,
    pub is_external: bool,
}

impl RawTensor {
    pub fn array(mut self, beside: &mut Beside) -> Result<OnnxArray, String> {
        let (sizes, count) = self.sizes()?;
        let data = if self.is_external {
            let (bytes, range) = beside.bytes(&self.external, bytes_of(self.elem, count)?)?;
            self.of_bytes(bytes, range, count)?
        } else if let Some(bytes) = self.bytes.take() {
            let (want, have) = (bytes_of(self.elem, count)?, bytes.len());
            if have != want {
                return Err(format!(
                    "its shape {:?} wants {want} bytes, the file has {have}: is it truncated?",
                    self.dims
                ));
            }
            self.of_bytes(Arc::new(bytes), 0..have, count)?
        } else {
            self.of_fields()?
        };
        if data.len() != count {
            let have = data.len();
            return Err(format!("its shape {:?} wants {count} elements, the file has {have}", self.dims));
        }
        Ok(OnnxArray::new(sizes, data))
    }

    fn sizes(&self) -> Result<(Vec<usize>, usize), String> {
        if self.dims.len() > RANK_MAX {
            return Err(format!("it has {} axes; {RANK_MAX} are possible", self.dims.len()));
        }
        let sizes = self.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<Vec<usize>>>();
        let count = sizes.as_ref().and_then(|sizes| sizes.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
        sizes.zip(count).ok_or_else(|| format!("its shape {:?} is not possible", self.dims))
    }

    fn of_bytes(&self, shared: SharedBytes, range: Range<usize>, count: usize) -> Result<ArrayData, String> {
        let bytes = &(*shared).as_ref()[range.clone()];
        let u16s = || bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
        let u32s = || bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
        let eight = |c: &[u8]| [c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]];
        let u64s = || bytes.chunks_exact(8).map(move |c| u64::from_le_bytes(eight(c)));
        let halves = || bytes.iter().flat_map(|b| [b & 15, b >> 4]).take(count);
        Ok(match self.elem {
            1 => ArrayData::F32(
                Buffer::shared(shared.clone(), range)
                    .unwrap_or_else(|| u32s().map(f32::from_bits).collect::<Vec<f32>>().into()),
            ),
            2 => ArrayData::U8(bytes.to_vec()),
            3 => ArrayData::I8(bytes.iter().map(|&b| b as i8).collect()),
            4 => ArrayData::I64(u16s().map(i64::from).collect()),
            5 => ArrayData::I64(u16s().map(|x| i64::from(x as i16)).collect()),
            6 => ArrayData::I32(u32s().map(|x| x as i32).collect()),
            7 | 13 => ArrayData::I64(u64s().map(|x| x as i64).collect()),
            9 => ArrayData::Bool(bytes.iter().map(|&b| b != 0).collect()),
            10 => ArrayData::F32(u16s().map(f32_of_f16).collect::<Vec<f32>>().into()),
            11 => ArrayData::F32(u64s().map(|x| f64::from_bits(x) as f32).collect::<Vec<f32>>().into()),
            12 => ArrayData::I64(u32s().map(i64::from).collect()),
            16 => ArrayData::F32(u16s().map(f32_of_bf16).collect::<Vec<f32>>().into()),
            21 => ArrayData::U8(halves().collect()),
            22 => ArrayData::I8(halves().map(|x| (x << 4) as i8 >> 4).collect()),
            other => return Err(no_elem(other)),
        })
    }

    /// Elements in the field of their type. A bare tensor of no elements has none.
    fn of_fields(&mut self) -> Result<ArrayData, String> {
        let ints = std::mem::take(&mut self.ints);
        Ok(match self.elem {
            1 => ArrayData::F32(f32_of_bytes(std::mem::take(&mut self.floats))),
            21 | 22 => {
                let bytes: Vec<u8> = ints.iter().map(|&x| x as u8).collect();
                let (_, count) = self.sizes()?;
                if bytes.len() != count.div_ceil(2) {
                    return Err(format!(
                        "its shape {:?} wants {} bytes, the file has {}",
                        self.dims,
                        count.div_ceil(2),
                        bytes.len()
                    ));
                }
                return self.of_bytes(Arc::new(bytes.clone()), 0..bytes.len(), count);
            }
            2 => ArrayData::U8(ints.iter().map(|&x| x as u8).collect()),
            3 => ArrayData::I8(ints.iter().map(|&x| x as i8).collect()),
            6 => ArrayData::I32(ints.iter().map(|&x| x as i32).collect()),
            4 | 5 | 7 | 12 | 13 => ArrayData::I64(ints),
            9 => ArrayData::Bool(ints.iter().map(|&x| x != 0).collect()),
            10 => ArrayData::F32(ints.iter().map(|&x| f32_of_f16(x as u16)).collect::<Vec<f32>>().into()),
            11 => {
                let eight = |c: &[u8]| f64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]) as f32;
                ArrayData::F32(self.doubles.chunks_exact(8).map(eight).collect::<Vec<f32>>().into())
            }
            16 => ArrayData::F32(ints.iter().map(|&x| f32_of_bf16(x as u16)).collect::<Vec<f32>>().into()),
            other => return Err(no_elem(other)),
        })
    }
}

/// Bytes of `count` elements in the file.
fn bytes_of(elem: i64, count: usize) -> Result<usize, String> {
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

fn no_elem(elem: i64) -> String {
    format!("its element type (ONNX's number {elem}) is not supported")
}

/// Files in the model's folder that its tensors lie in, each mapped once.
pub(super) struct Beside {
    folder: Option<PathBuf>,
    maps: HashMap<PathBuf, SharedBytes>,
}

impl Beside {
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, maps: HashMap::new() }
    }

    /// `want` bytes of the file that the entries name. It must lie in the folder or below.
    fn bytes(&mut self, entries: &[(String, String)], want: usize) -> Result<(SharedBytes, Range<usize>), String> {
        let entry = |key: &str| entries.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
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
        let entries = |location: &str| vec![("location".to_string(), location.to_string())];
        for location in ["../secret", "/etc/passwd", "a/../../b"] {
            let answer = Beside::new(Some(PathBuf::from("."))).bytes(&entries(location), 1);
            assert!(answer.is_err_and(|message| message.contains("outside")), "{location}");
        }
        let answer = Beside::new(Some(PathBuf::from("."))).bytes(&entries("src"), 1);
        assert!(answer.is_err_and(|message| message.contains("not a file")));
    }

    #[test]
    fn halves_of_bytes_are_elements_of_four_bits() {
        let tensor = |elem| RawTensor { dims: vec![3], elem, bytes: Some(vec![0xf1, 0x08]), ..RawTensor::default() };
        let array = |elem| tensor(elem).array(&mut Beside::new(None)).map(|array| array.data().clone());
        assert_eq!(array(21), Ok(ArrayData::U8(vec![1, 15, 8])));
        assert_eq!(array(22), Ok(ArrayData::I8(vec![1, -1, -8])));
    }
}
