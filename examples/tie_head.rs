//! Makes an ONNX GPT-2 smaller: where the head's weight is an exact transposed copy of the embedding, the copy is replaced
//! by a Transpose of the embedding at run time. All else is kept byte for byte, what ONNX has added since included: so the
//! fields of the file and of its graph are told apart here, and only nodes and tensors are decoded.
//!
//! `cargo run --release -p snnc-examples --example tie_head -- model.onnx smaller.onnx`

#![allow(clippy::print_stdout)]

use prost::Message;
use snnc_onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
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

const NO_MESSAGE: &str = "this is no protobuf message";

/// A field of a message: its number, what it holds if that is bytes, and the bytes that it is written as.
#[derive(Clone, Copy)]
struct WrittenField<'a> {
    number: u64,
    bytes: Option<&'a [u8]>,
    written: &'a [u8],
}

/// The fields of a message.
fn fields(message: &[u8]) -> Result<Vec<WrittenField<'_>>, Box<dyn Error>> {
    let mut rest = message;
    let mut all = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let key = varint(&mut rest)?;
        let bytes = match key & 7 {
            0 => varint(&mut rest).map(|_| None)?,
            1 => take(&mut rest, 8).map(|_| None)?,
            2 => {
                let len = varint(&mut rest)?;
                Some(take(&mut rest, usize::try_from(len)?)?)
            }
            5 => take(&mut rest, 4).map(|_| None)?,
            _ => return Err(NO_MESSAGE.into()),
        };
        all.push(WrittenField { number: key >> 3, bytes, written: &start[..start.len() - rest.len()] });
    }
    Ok(all)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Box<dyn Error>> {
    let (head, tail) = rest.split_at_checked(len).ok_or(NO_MESSAGE)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Box<dyn Error>> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(NO_MESSAGE.into())
}

fn tie(model: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut out = Vec::with_capacity(model.len());
    for field in fields(model)? {
        match (field.number, field.bytes) {
            (7, Some(graph)) => {
                let graph = tie_graph(graph)?;
                out.push(7 << 3 | 2);
                prost::encode_length_delimiter(graph.len(), &mut out)?;
                out.extend(graph);
            }
            _ => out.extend(field.written),
        }
    }
    Ok(out)
}

fn tie_graph(graph: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let all = fields(graph)?;
    let tensors = all.iter().filter(|field| field.number == 5).map(OnnxMatrix::of).collect::<Result<Vec<_>, _>>()?;
    let matrices: Vec<OnnxMatrix> = tensors.into_iter().flatten().collect();
    let pair = matrices.iter().find_map(|copy| Some((copy, matrices.iter().find(|m| copy.is_transpose_of(m))?)));
    let (copy, embedding) = pair.ok_or("no matrix here is a transposed copy of a larger embedding")?;
    let mut out = Vec::with_capacity(graph.len());
    let mut turned = false;
    for field in &all {
        if field.written == copy.field.written {
            continue;
        }
        if !turned && field.number == 1 && inputs(field)?.contains(&copy.name) {
            let node = transpose(&embedding.name, &copy.name);
            out.extend(GraphProto { node: vec![node], ..GraphProto::default() }.encode_to_vec());
            turned = true;
        }
        out.extend(field.written);
    }
    if turned { Ok(out) } else { Err("no node uses the copy".into()) }
}

/// A node that gives the embedding, turned, the name that the copy had.
fn transpose(embedding: &str, copy: &str) -> NodeProto {
    let perm = AttributeProto { name: "perm".into(), ints: vec![1, 0], r#type: 7, ..AttributeProto::default() };
    NodeProto {
        input: vec![embedding.into()],
        output: vec![copy.into()],
        name: "/lm_head/Transpose".into(),
        op_type: "Transpose".into(),
        attribute: vec![perm],
        ..NodeProto::default()
    }
}

fn inputs(node: &WrittenField) -> Result<Vec<String>, Box<dyn Error>> {
    Ok(NodeProto::decode(node.bytes.ok_or(NO_MESSAGE)?)?.input)
}

/// An initializer of two axes, f32, with its elements in `raw_data`.
struct OnnxMatrix<'a> {
    name: String,
    rows: usize,
    columns: usize,
    raw: prost::bytes::Bytes,
    field: WrittenField<'a>,
}

impl<'a> OnnxMatrix<'a> {
    fn of(field: &WrittenField<'a>) -> Result<Option<Self>, Box<dyn Error>> {
        let TensorProto { dims, data_type, name, raw_data, .. } = TensorProto::decode(field.bytes.ok_or(NO_MESSAGE)?)?;
        let sizes: Vec<usize> = dims.iter().map(|&size| usize::try_from(size)).collect::<Result<_, _>>()?;
        Ok(match (sizes.as_slice(), raw_data) {
            (&[rows, columns], Some(raw)) if data_type == 1 && Some(raw.len()) == rows.checked_mul(columns * 4) => {
                Some(OnnxMatrix { name, rows, columns, raw, field: *field })
            }
            _ => None,
        })
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
