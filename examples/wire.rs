//! Protobuf's wire format, as far as writing and editing ONNX files takes: fields in, fields out, all else kept as it is.

use std::fmt;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldPayload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1: eight bytes.
    Fixed64(&'a [u8]),
    /// Wire type 2: text, bytes, a message or packed numbers.
    Bytes(&'a [u8]),
    /// Wire type 5: four bytes.
    Fixed32(&'a [u8]),
}

/// A field of a message, with the bytes that it is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Which field of its message.
    pub number: u64,
    /// What it holds.
    pub payload: FieldPayload<'a>,
    /// Its bytes, with what stands before the payload.
    pub written: &'a [u8],
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no protobuf message")
    }
}

impl std::error::Error for Malformed {}

/// The fields of a message.
pub fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    let mut rest = message;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        let payload = match key & 7 {
            0 => FieldPayload::Varint(varint(&mut rest)?),
            1 => FieldPayload::Fixed64(take(&mut rest, 8)?),
            2 => {
                let len = varint(&mut rest)?;
                FieldPayload::Bytes(take(&mut rest, usize::try_from(len).map_err(|_| Malformed)?)?)
            }
            5 => FieldPayload::Fixed32(take(&mut rest, 4)?),
            _ => return Err(Malformed),
        };
        all.push(Field { number: key >> 3, payload, written: &start[..start.len() - rest.len()] });
    }
    Ok(all)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// One without fields.
    pub fn new() -> Self {
        Self::default()
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Adds an integer.
    #[must_use]
    pub fn int(mut self, number: u64, value: i64) -> Self {
        self.raw_varint(number << 3);
        self.raw_varint(value as u64);
        self
    }

    /// Adds an f32.
    #[must_use]
    pub fn float(mut self, number: u64, value: f32) -> Self {
        self.raw_varint(number << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(mut self, number: u64, bytes: &[u8]) -> Self {
        self.0.extend(Self::header(number, bytes.len() as u64));
        self.0.extend(bytes);
        self
    }

    /// Adds text.
    #[must_use]
    pub fn text(self, number: u64, text: &str) -> Self {
        self.bytes(number, text.as_bytes())
    }

    /// Adds a message.
    #[must_use]
    pub fn message(self, number: u64, message: &Message) -> Self {
        self.bytes(number, &message.0)
    }

    /// What stands before `len` bytes of a field.
    pub fn header(number: u64, len: u64) -> Vec<u8> {
        let mut header = Message::new();
        header.raw_varint(number << 3 | 2);
        header.raw_varint(len);
        header.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().int(1, -1).float(2, 0.5);
        let outer = Message::new().text(3, "x").message(300, &inner);
        let all = fields(&outer.0).expect("a message");
        assert_eq!(all[0].payload, FieldPayload::Bytes(b"x"));
        assert_eq!((all[1].number, all[1].payload), (300, FieldPayload::Bytes(&inner.0)));
        assert_eq!(fields(&inner.0).expect("a message")[0].payload, FieldPayload::Varint(u64::MAX));
        assert_eq!(fields(&outer.0[..outer.0.len() - 1]), Err(Malformed));
    }
}
