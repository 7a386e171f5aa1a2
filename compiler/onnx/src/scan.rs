//! Looks through a protobuf file before it is decoded: where it is malformed, and that it does not ask for too much.
//!
//! Law: what passes here decodes, and what it becomes is limited: messages inside messages, items of one message, messages
//! in all. Only the headers of fields are read, so a file of weights takes no time. Groups, which ONNX does not have and
//! which let a small file nest without end, are refused; fields that the decoder does not know are stepped over.

use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Place;

/// Messages inside messages. ONNX needs about ten; a subgraph adds three. `prost` gives up at 100.
const DEPTH_MAX: u32 = 48;

/// The most items of one kind in a message: nodes, initializers, names. They are larger in memory than in the file.
const ITEMS_MAX: usize = 1 << 20;

/// The most messages in all: a node with its attributes, names and metadata is about ten.
const MESSAGES_MAX: usize = 1 << 22;

/// What a field holds.
enum FieldKind {
    Varint,
    Fixed32,
    /// Bytes of any kind.
    Bytes,
    /// UTF-8.
    Text,
    Texts(&'static str),
    /// Repeated numbers, one by one or packed.
    Varints,
    Fixed32s,
    Fixed64s,
    /// A message, at most once.
    Message(&'static MessageKind),
    Messages(&'static str, &'static MessageKind),
    /// What is not supported, in words.
    Unsupported(&'static str),
}

/// A message of the format: what it is called, and its fields by number.
struct MessageKind {
    name: &'static str,
    fields: &'static [(u64, FieldKind)],
}

use FieldKind::{Bytes, Fixed32, Fixed32s, Fixed64s, Message, Messages, Text, Texts, Unsupported, Varint, Varints};

static MODEL: MessageKind = MessageKind {
    name: "the file",
    fields: &[
        (1, Varint),
        (2, Text),
        (3, Text),
        (7, Message(&GRAPH)),
        (8, Messages("versions of operators", &OPSET)),
        (25, Messages("functions", &FUNCTION)),
    ],
};

static FUNCTION: MessageKind = MessageKind {
    name: "a function",
    fields: &[
        (1, Text),
        (4, Texts("inputs of a function")),
        (5, Texts("outputs of a function")),
        (6, Texts("attributes of a function")),
        (7, Messages("nodes of a function", &NODE)),
        (9, Messages("versions of operators", &OPSET)),
        (10, Text),
        (11, Messages("attributes of a function", &ATTRIBUTE)),
        (13, Text),
    ],
};

static OPSET: MessageKind = MessageKind { name: "a version of operators", fields: &[(1, Text), (2, Varint)] };

static GRAPH: MessageKind = MessageKind {
    name: "a graph",
    fields: &[
        (1, Messages("nodes", &NODE)),
        (2, Text),
        (5, Messages("initializers", &TENSOR)),
        (11, Messages("inputs", &VALUE)),
        (12, Messages("outputs", &VALUE)),
        (15, Unsupported("sparse initializers are not supported")),
    ],
};

static NODE: MessageKind = MessageKind {
    name: "a node",
    fields: &[
        (1, Texts("inputs of a node")),
        (2, Texts("outputs of a node")),
        (3, Text),
        (4, Text),
        (5, Messages("attributes of a node", &ATTRIBUTE)),
        (7, Text),
        (8, Text),
        (9, Messages("properties of a node", &ENTRY)),
    ],
};

static ATTRIBUTE: MessageKind = MessageKind {
    name: "an attribute",
    fields: &[
        (1, Text),
        (2, Fixed32),
        (3, Varint),
        (4, Bytes),
        (5, Message(&TENSOR)),
        (6, Message(&GRAPH)),
        (7, Fixed32s),
        (8, Varints),
        (9, Messages("texts of an attribute", &OPAQUE)),
        (20, Varint),
        (21, Text),
    ],
};

/// Bytes that are counted and not looked into.
static OPAQUE: MessageKind = MessageKind { name: "bytes", fields: &[] };

static TENSOR: MessageKind = MessageKind {
    name: "a tensor",
    fields: &[
        (1, Varints),
        (2, Varint),
        (4, Fixed32s),
        (5, Varints),
        (7, Varints),
        (8, Text),
        (9, Bytes),
        (10, Fixed64s),
        (11, Varints),
        (13, Messages("entries of external data", &ENTRY)),
        (14, Varint),
    ],
};

static ENTRY: MessageKind = MessageKind { name: "an entry", fields: &[(1, Text), (2, Text)] };

static VALUE: MessageKind = MessageKind { name: "an input or output", fields: &[(1, Text), (2, Message(&TYPE))] };

static TYPE: MessageKind = MessageKind { name: "a type", fields: &[(1, Message(&TENSOR_TYPE))] };

static TENSOR_TYPE: MessageKind = MessageKind { name: "a tensor's type", fields: &[(1, Varint), (2, Message(&SHAPE))] };

static SHAPE: MessageKind = MessageKind { name: "a shape", fields: &[(1, Messages("sizes", &DIMENSION))] };

static DIMENSION: MessageKind = MessageKind { name: "a size", fields: &[(1, Varint), (2, Text)] };

/// Whether `file` decodes as an ONNX file within the limits.
///
/// # Errors
/// What is malformed or too much, and at which byte.
pub(crate) fn scan(file: &[u8]) -> Result<(), Diagnostic> {
    let mut scanner = Scanner { file, at: 0, messages: 0 };
    scanner.message(file.len(), &MODEL, 0)
}

struct Scanner<'f> {
    file: &'f [u8],
    at: usize,
    messages: usize,
}

/// What follows a field's number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WireType {
    Varint,
    Fixed64,
    /// That many bytes.
    Bytes(usize),
    Fixed32,
}

impl Scanner<'_> {
    /// The fields of a message that ends at `end`.
    fn message(&mut self, end: usize, kind: &MessageKind, depth: u32) -> Result<(), Diagnostic> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("messages are nested more than {DEPTH_MAX} deep")));
        }
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return Err(self.error(format!("there are more than {MESSAGES_MAX} messages")));
        }
        let mut counts = vec![0usize; kind.fields.len()];
        while self.at < end {
            let start = self.at;
            let (number, wire) = self.header(end)?;
            let body = self.at;
            let next = body + if let WireType::Bytes(len) = wire { len } else { 0 };
            if let Some(i) = kind.fields.iter().position(|(known, _)| *known == number) {
                counts[i] += 1;
                let field = Field { kind: &kind.fields[i].1, number, wire, start, count: counts[i] };
                self.field(&field, next, kind, depth)?;
            }
            self.at = next;
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, next: usize, of: &MessageKind, depth: u32) -> Result<(), Diagnostic> {
        let at = |message: String| Diagnostic::new(place(field.start), message);
        let limited = |what: &str| match field.count > ITEMS_MAX {
            true => Err(at(format!("there are more than {ITEMS_MAX} {what}"))),
            false => Ok(()),
        };
        match (field.kind, field.wire) {
            (Varint | Varints, WireType::Varint) | (Fixed32 | Fixed32s, WireType::Fixed32) => Ok(()),
            (Fixed64s, WireType::Fixed64) | (Bytes, WireType::Bytes(_)) => Ok(()),
            (Text, WireType::Bytes(_)) => self.text(next),
            (Texts(what), WireType::Bytes(_)) => limited(what).and_then(|()| self.text(next)),
            (Varints, WireType::Bytes(_)) => self.varints(next),
            (Fixed32s, WireType::Bytes(len)) => whole(len, 4).map_err(at),
            (Fixed64s, WireType::Bytes(len)) => whole(len, 8).map_err(at),
            (Message(_), WireType::Bytes(_)) if field.count > 1 => {
                Err(at(format!("there are two fields {} in {}, where one is possible", field.number, of.name)))
            }
            (Message(kind), WireType::Bytes(_)) => self.message(next, kind, depth + 1),
            (Messages(what, kind), WireType::Bytes(_)) => {
                limited(what)?;
                self.message(next, kind, depth + 1)
            }
            (Unsupported(message), _) => Err(at((*message).to_string())),
            _ => Err(at(format!("field {} of {} is of another type than ONNX says", field.number, of.name))),
        }
    }

    /// A field's number, and what follows. Of bytes that many are there before `end`.
    fn header(&mut self, end: usize) -> Result<(u64, WireType), Diagnostic> {
        let key = self.varint(end)?;
        let number = key >> 3;
        if number == 0 || number >= 1 << 29 {
            return Err(self.error(format!("{number} is no number of a field: this is no ONNX file")));
        }
        let wire = match key & 7 {
            0 => {
                self.varint(end)?;
                WireType::Varint
            }
            1 => {
                self.skip(8, end)?;
                WireType::Fixed64
            }
            2 => {
                let len = self.varint(end)?;
                WireType::Bytes(self.check(len, end)?)
            }
            5 => {
                self.skip(4, end)?;
                WireType::Fixed32
            }
            kind => return Err(self.error(format!("field {number} has the unknown wire type {kind}"))),
        };
        Ok((number, wire))
    }

    fn text(&self, end: usize) -> Result<(), Diagnostic> {
        let text = std::str::from_utf8(&self.file[self.at..end]);
        text.map(|_| ()).map_err(|_| self.error("a name is not UTF-8"))
    }

    fn varints(&mut self, end: usize) -> Result<(), Diagnostic> {
        while self.at < end {
            self.varint(end)?;
        }
        Ok(())
    }

    fn varint(&mut self, end: usize) -> Result<u64, Diagnostic> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            self.check(1, end)?;
            let byte = self.file[self.at];
            // The tenth byte holds one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number does not end after ten bytes"))
    }

    fn skip(&mut self, len: usize, end: usize) -> Result<(), Diagnostic> {
        self.at += self.check(len as u64, end)?;
        Ok(())
    }

    /// `len`, if that many bytes are left before `end`.
    fn check(&self, len: u64, end: usize) -> Result<usize, Diagnostic> {
        let left = end - self.at;
        usize::try_from(len).ok().filter(|&len| len <= left).ok_or_else(|| {
            let message = format!("{len} bytes are announced, {left} are left: the file is truncated or no ONNX file");
            self.error(message)
        })
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(place(self.at), message)
    }
}

/// A field that the format has, where it was found.
struct Field<'k> {
    kind: &'k FieldKind,
    number: u64,
    wire: WireType,
    start: usize,
    /// Which of its number it is in its message.
    count: usize,
}

fn whole(len: usize, each: usize) -> Result<(), String> {
    if len.is_multiple_of(each) { Ok(()) } else { Err(format!("{len} bytes are no numbers of {each} bytes")) }
}

fn place(at: usize) -> Place {
    Place::Byte(at as u64)
}
