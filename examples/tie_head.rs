//! Makes an ONNX GPT-2 smaller: where the head's weight is an exact transposed copy of the embedding, the copy is replaced
//! by a Transpose of the embedding at run time. All else is kept byte for byte.
//!
//! `cargo run --release -p snnc-examples --example tie_head -- model.onnx smaller.onnx`

#![allow(clippy::print_stdout)]

use snnc_examples::wire::{Field, FieldPayload, Malformed, Message, fields};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = arguments.as_slice() else { return Err("usage: tie_head MODEL.onnx SMALLER.onnx".into()) };
    let model = std::fs::read(from)?;
    let tied = tie(&model)?;
    std::fs::write(to, &tied)?;
    println!("{to}: {} bytes, {from} has {}", tied.len(), model.len());
    Ok(())
}

fn tie(model: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Message::new();
    for field in fields(model)? {
        match (field.number, field.payload) {
            (7, FieldPayload::Bytes(graph)) => out = out.bytes(7, &tie_graph(graph)?),
            _ => out.0.extend(field.written),
        }
    }
    Ok(out.0)
}

fn tie_graph(graph: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let all = fields(graph)?;
    let tensors = all.iter().filter(|field| field.number == 5).map(OnnxMatrix::of).collect::<Result<Vec<_>, _>>()?;
    let matrices: Vec<OnnxMatrix> = tensors.into_iter().flatten().collect();
    let pair = matrices.iter().find_map(|copy| Some((copy, matrices.iter().find(|m| copy.is_transpose_of(m))?)));
    let (copy, embedding) = pair.ok_or("no matrix here is a transposed copy of a larger embedding")?;
    let mut out = Message::new();
    let mut turned = false;
    for field in &all {
        if field.written == copy.field.written {
            continue;
        }
        if !turned && field.number == 1 && inputs(field)?.contains(&copy.name) {
            out = out.message(1, &transpose(embedding.name, copy.name));
            turned = true;
        }
        out.0.extend(field.written);
    }
    if turned { Ok(out.0) } else { Err("no node uses the copy".into()) }
}

/// A node that gives the embedding, turned, the name that the copy had.
fn transpose(embedding: &str, copy: &str) -> Message {
    let perm = Message::new().text(1, "perm").int(8, 1).int(8, 0).int(20, 7);
    Message::new().text(1, embedding).text(2, copy).text(3, "/lm_head/Transpose").text(4, "Transpose").message(5, &perm)
}

fn inputs<'a>(node: &Field<'a>) -> Result<Vec<&'a str>, Malformed> {
    let FieldPayload::Bytes(node) = node.payload else { return Err(Malformed) };
    let names = fields(node)?.into_iter().filter(|field| field.number == 1);
    names.map(|field| text(field.payload)).collect()
}

fn text(payload: FieldPayload<'_>) -> Result<&str, Malformed> {
    match payload {
        FieldPayload::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| Malformed),
        FieldPayload::Varint(_) | FieldPayload::Fixed32(_) | FieldPayload::Fixed64(_) => Err(Malformed),
    }
}

/// An initializer of two axes, f32, with its elements in `raw_data`.
struct OnnxMatrix<'a> {
    name: &'a str,
    rows: usize,
    columns: usize,
    raw: &'a [u8],
    field: Field<'a>,
}

impl<'a> OnnxMatrix<'a> {
    fn of(field: &Field<'a>) -> Result<Option<Self>, Malformed> {
        let FieldPayload::Bytes(tensor) = field.payload else { return Err(Malformed) };
        let (mut sizes, mut is_f32, mut name, mut raw) = (Vec::new(), false, "", None);
        for part in fields(tensor)? {
            match (part.number, part.payload) {
                (1, FieldPayload::Varint(size)) => sizes.push(size as usize),
                (2, FieldPayload::Varint(elem)) => is_f32 = elem == 1,
                (8, payload) => name = text(payload)?,
                (9, FieldPayload::Bytes(bytes)) => raw = Some(bytes),
                _ => {}
            }
        }
        let matrix = match (sizes.as_slice(), raw) {
            (&[rows, columns], Some(raw)) if is_f32 && Some(raw.len()) == rows.checked_mul(columns * 4) => {
                Some(OnnxMatrix { name, rows, columns, raw, field: *field })
            }
            _ => None,
        };
        Ok(matrix)
    }

    fn at(&self, row: usize, column: usize) -> &[u8] {
        &self.raw[(row * self.columns + column) * 4..][..4]
    }

    /// Bit for bit; the other one has more rows, as an embedding has.
    fn is_transpose_of(&self, other: &OnnxMatrix) -> bool {
        self.rows == other.columns
            && self.columns == other.rows
            && other.rows > other.columns
            && (0..self.rows).all(|row| (0..self.columns).all(|column| self.at(row, column) == other.at(column, row)))
    }
}
