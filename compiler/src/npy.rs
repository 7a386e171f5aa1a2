//! NumPy's `.npy` format, version 1.0: what `logits` writes and tests read.

use std::io::{self, Write};

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
