//! NumPy's `.npy` format.

use crate::files;
use snnc_ir::{Diagnostic, ErrorCode};
use std::io::{self, Write};
use std::path::Path;

/// What a file starts with.
pub const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Longest header that is read: a few hundred bytes say all.
const HEADER_BYTES: usize = 1 << 16;

/// A number that the format has.
pub trait NpyNumber: Copy {
    /// How the format calls it.
    const KIND: &'static str;

    /// Its bytes in a file.
    fn little_endian(self) -> impl Iterator<Item = u8>;
}

macro_rules! npy_numbers {
    ($($number:ty => $kind:literal),* $(,)?) => {
        $(impl NpyNumber for $number {
            const KIND: &'static str = $kind;

            fn little_endian(self) -> impl Iterator<Item = u8> {
                self.to_le_bytes().into_iter()
            }
        })*
    };
}

npy_numbers! { f32 => "<f4", i8 => "|i1", i16 => "<i2", i32 => "<i4" }

/// Writes a row-major little-endian f32 array.
///
/// ```
/// let mut file = Vec::new();
/// snnc::npy::write_f32(&mut file, &[1, 2], &[0.5, 2.0])?;
/// assert_eq!(&file[..6], b"\x93NUMPY");
/// assert_eq!(file.len(), 128 + 8);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// `out` cannot be written.
pub fn write_f32(out: &mut dyn Write, sizes: &[usize], data: &[f32]) -> io::Result<()> {
    write_header(out, f32::KIND, sizes)?;
    data.iter().try_for_each(|x| out.write_all(&x.to_le_bytes()))
}

/// Writes what stands before the numbers of an array: of what kind they are, as `NpyNumber` calls it, and the array's sizes.
///
/// # Errors
/// `out` cannot be written.
pub fn write_header(out: &mut dyn Write, kind: &str, sizes: &[usize]) -> io::Result<()> {
    let shape: Vec<String> = sizes.iter().map(|n| format!("{n},")).collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({}), }}", shape.join(" "));
    // Magic, version, length and header fill a multiple of 64 bytes and end in a newline.
    let padding = (64 - (10 + header.len() + 1) % 64) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())
}

/// What a file says of its array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// The type of the numbers, as NumPy spells it: `<f4`.
    pub kind: String,
    /// The array's sizes.
    pub sizes: Vec<usize>,
    /// Whether it lies column by column.
    pub by_column: bool,
    /// Bytes before the numbers.
    pub bytes: usize,
}

impl NpyHeader {
    /// Of a file's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of(all: &[u8]) -> Result<Self, String> {
        let (text, bytes) = Self::text(all).ok_or("is damaged: its header is not whole")?;
        let value = |key: &str| {
            let rest = text.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
            rest.ok_or_else(|| format!("is damaged: its header has no `{key}`"))
        };
        let kind = value("descr")?.trim_start_matches('\'').split('\'').next().unwrap_or_default().to_string();
        let inside = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(inside, _)| inside);
        let sizes = inside.unwrap_or_default().split(',').map(str::trim).filter(|size| !size.is_empty());
        let sizes: Result<Vec<usize>, _> = sizes.map(str::parse).collect();
        let sizes = sizes.map_err(|_| "is damaged: its sizes are no numbers")?;
        let by_column = !value("fortran_order")?.starts_with("False");
        Ok(Self { kind, sizes, by_column, bytes })
    }

    /// The header's text, and where the numbers begin.
    fn text(all: &[u8]) -> Option<(&str, usize)> {
        let (length, from): (usize, usize) = match all.get(6)? {
            1 => (usize::from(u16::from_le_bytes(*all.get(8..)?.first_chunk()?)), 10),
            _ => (u32::from_le_bytes(*all.get(8..)?.first_chunk()?) as usize, 12),
        };
        let text = all.get(from..from.checked_add(length)?).filter(|text| text.len() <= HEADER_BYTES)?;
        Some((std::str::from_utf8(text).ok()?, from + length))
    }
}

/// An array, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// Its numbers.
    pub data: Vec<f32>,
}

/// Reads an array of numbers of any usual type, as f32.
///
/// # Errors
/// The file cannot be read, is no `.npy` file, or holds other numbers.
pub fn read_f32(path: &Path) -> Result<NpyArray, Diagnostic> {
    let place = path.display().to_string();
    let wrong = |what: String| Diagnostic::new(place.clone(), what).code(ErrorCode::FILE);
    let all = files::read_bytes(path)?;
    if !all.starts_with(MAGIC) {
        return Err(wrong("is no .npy file".into()).note("numpy.save(path, array) writes one"));
    }
    let header = NpyHeader::of(&all).map_err(wrong)?;
    if header.by_column && header.sizes.iter().filter(|size| **size > 1).count() > 1 {
        return Err(wrong("holds its array column by column".into()).note("numpy.ascontiguousarray turns it"));
    }
    let own = &all[header.bytes..];
    let data: Vec<f32> = match header.kind.as_str() {
        "<f4" => own.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        "<f8" => own.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x) as f32).collect(),
        "|i1" => own.iter().map(|x| f32::from(*x as i8)).collect(),
        "|u1" | "|b1" => own.iter().map(|x| f32::from(*x)).collect(),
        "<i2" => own.as_chunks().0.iter().map(|x| f32::from(i16::from_le_bytes(*x))).collect(),
        "<i4" => own.as_chunks().0.iter().map(|x| i32::from_le_bytes(*x) as f32).collect(),
        "<i8" => own.as_chunks().0.iter().map(|x| i64::from_le_bytes(*x) as f32).collect(),
        other => return Err(wrong(format!("holds numbers of type `{other}`, which are none that are read here"))),
    };
    let count = header.sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    if count != Some(data.len()) {
        return Err(wrong(format!("is damaged: {:?} numbers are not {} bytes", header.sizes, own.len())));
    }
    Ok(NpyArray { sizes: header.sizes, data })
}
