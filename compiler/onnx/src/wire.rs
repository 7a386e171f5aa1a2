//! The protobuf wire format, read from a stream: fields, varints, nested messages.
//!
//! Law: nothing is reserved or read for a length before that many bytes are known to remain in the enclosing message,
//! and the outermost message is the file. So no input makes this allocate more than the file is long. Groups, which
//! ONNX does not have and which let a small file nest without end, are refused.

use snnc_ir::Diagnostic;
use std::io::{self, BufRead, Read};

/// Messages inside messages. ONNX needs about ten; a subgraph adds three.
const DEPTH_MAX: u32 = 48;

/// What follows a field's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    Varint(u64),
    Fixed64([u8; 8]),
    /// That many bytes follow: a string, packed numbers, or a message.
    Bytes(u64),
    Fixed32([u8; 4]),
}

/// A place in a stream, inside a message.
#[derive(Debug)]
pub struct Wire<R> {
    input: R,
    at: u64,
    /// Where the message that is being read ends.
    end: u64,
    depth: u32,
}

impl<R: BufRead> Wire<R> {
    /// A message that fills `input`, which has `len` bytes.
    pub fn new(input: R, len: u64) -> Self {
        Self { input, at: 0, end: len, depth: 0 }
    }

    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next field of this message: its number and what it holds. `None` at the message's end.
    pub fn field(&mut self) -> Result<Option<(u64, Payload)>, Diagnostic> {
        if self.at == self.end {
            return Ok(None);
        }
        let key = self.varint()?;
        let payload = match key & 7 {
            0 => Payload::Varint(self.varint()?),
            1 => Payload::Fixed64(self.array()?),
            2 => {
                let len = self.varint()?;
                self.check(len)?;
                Payload::Bytes(len)
            }
            5 => Payload::Fixed32(self.array()?),
            kind => return Err(self.error(format!("field {} has the unknown wire type {kind}", key >> 3))),
        };
        Ok(Some((key >> 3, payload)))
    }

    /// Goes into a nested message of `len` bytes; the answer is what `leave` wants once all its fields are read.
    pub fn enter(&mut self, len: u64) -> Result<u64, Diagnostic> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(format!("messages are nested more than {DEPTH_MAX} deep")));
        }
        self.check(len)?;
        self.depth += 1;
        Ok(std::mem::replace(&mut self.end, self.at + len))
    }

    pub fn leave(&mut self, outer: u64) {
        self.depth -= 1;
        self.end = outer;
    }

    pub fn bytes(&mut self, len: u64) -> Result<Vec<u8>, Diagnostic> {
        self.check(len)?;
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub fn text(&mut self, len: u64) -> Result<String, Diagnostic> {
        let at = self.at;
        let bytes = self.bytes(len)?;
        String::from_utf8(bytes).map_err(|_| Diagnostic::new(place(at), "a name is not UTF-8"))
    }

    /// The varints in the next `len` bytes.
    pub fn packed(&mut self, len: u64, out: &mut Vec<i64>) -> Result<(), Diagnostic> {
        let outer = self.enter(len)?;
        while self.at < self.end {
            out.push(self.varint()? as i64);
        }
        self.leave(outer);
        Ok(())
    }

    /// Leaves out what a field holds.
    pub fn skip(&mut self, payload: Payload) -> Result<(), Diagnostic> {
        let Payload::Bytes(mut len) = payload else { return Ok(()) };
        while len > 0 {
            let buffer = self.input.fill_buf().map_err(|e| trouble(self.at, &e))?;
            let step = (buffer.len() as u64).min(len);
            if step == 0 {
                return Err(self.error("the file ends here"));
            }
            self.input.consume(step as usize);
            self.at += step;
            len -= step;
        }
        Ok(())
    }

    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(place(self.at), message)
    }

    /// Whether `len` more bytes lie inside this message.
    fn check(&self, len: u64) -> Result<(), Diagnostic> {
        if len <= self.end - self.at {
            return Ok(());
        }
        let left = self.end - self.at;
        Err(self.error(format!("{len} bytes are announced, {left} are left: the file is truncated or no ONNX file")))
    }

    fn varint(&mut self) -> Result<u64, Diagnostic> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number does not end after ten bytes"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Diagnostic> {
        self.check(N as u64)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Diagnostic> {
        self.input.read_exact(bytes).map_err(|e| trouble(self.at, &e))?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

fn place(at: u64) -> String {
    format!("byte {at}")
}

fn trouble(at: u64, error: &io::Error) -> Diagnostic {
    Diagnostic::new(place(at), format!("cannot be read: {error}"))
}

/// Passes bytes on and sees each of them: for a checksum of what was read.
pub struct Watched<R, F> {
    pub input: R,
    pub see: F,
}

impl<R: Read, F: FnMut(&[u8])> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        (self.see)(&buffer[..n]);
        Ok(n)
    }
}

impl<R: std::fmt::Debug, F> std::fmt::Debug for Watched<R, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("input", &self.input).finish_non_exhaustive()
    }
}
