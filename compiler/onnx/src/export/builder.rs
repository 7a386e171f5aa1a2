//! Nodes and constants of an ONNX graph, added one by one. Equal constants stand once.

use crate::proto::{AttributeProto, NodeProto, TensorProto};
use bytes::Bytes;
use indexmap::IndexMap;

/// ONNX's numbers of element types.
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT32: i32 = 6;
pub(super) const INT64: i32 = 7;
pub(super) const BOOL: i32 = 9;
pub(super) const DOUBLE: i32 = 11;

/// Stands for the number 0 in levels and weights of 8 bits, which ONNX has without a sign: integer products of numbers with a sign
/// saturate in some runtimes, those of numbers without do not.
pub(super) const ZERO_POINT: i32 = 128;

/// The name of a value.
pub(super) type ValueName = String;

/// A graph in the making.
#[derive(Default)]
pub(super) struct OnnxBuilder {
    pub nodes: Vec<NodeProto>,
    /// The version of ONNX's operators.
    pub opset: i64,
    /// By type, sizes and elements.
    constants: IndexMap<(i32, Vec<i64>, Bytes), ValueName>,
    /// Where the nodes that follow come from.
    place: String,
    count: usize,
}

impl OnnxBuilder {
    /// Nodes from here on are named after this place.
    pub fn at(&mut self, place: String) {
        self.place = place;
    }

    /// Adds a node; its result.
    pub fn op(&mut self, op_type: &str, input: &[&str], attribute: Vec<AttributeProto>) -> ValueName {
        self.count += 1;
        let name = match self.place.is_empty() {
            true => format!("{op_type}_{}", self.count),
            false => format!("{}/{op_type}_{}", self.place, self.count),
        };
        self.nodes.push(NodeProto {
            input: input.iter().map(|name| (*name).to_string()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op_type.into(),
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// A node with a second result that nobody reads; its first.
    pub fn op_of_two(&mut self, op_type: &str, input: &[&str], attribute: Vec<AttributeProto>) -> ValueName {
        let name = self.op(op_type, input, attribute);
        if let Some(node) = self.nodes.last_mut() {
            node.output.push(format!("{name}/unread"));
        }
        name
    }

    /// A node without attributes.
    pub fn plain(&mut self, op_type: &str, input: &[&str]) -> ValueName {
        self.op(op_type, input, Vec::new())
    }

    fn constant(&mut self, data_type: i32, sizes: &[usize], elements: Vec<u8>) -> ValueName {
        let sizes = sizes.iter().map(|&size| size as i64).collect();
        let next = format!("constant_{}", self.constants.len());
        self.constants.entry((data_type, sizes, elements.into())).or_insert(next).clone()
    }

    /// f32 of these sizes.
    pub fn f32(&mut self, sizes: &[usize], data: &[f32]) -> ValueName {
        self.constant(FLOAT, sizes, data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// An f32 without sizes.
    pub fn number(&mut self, x: f32) -> ValueName {
        self.f32(&[], &[x])
    }

    /// An f64 without sizes.
    pub fn double(&mut self, x: f64) -> ValueName {
        self.constant(DOUBLE, &[], x.to_le_bytes().to_vec())
    }

    /// An i32 without sizes.
    pub fn i32(&mut self, x: i32) -> ValueName {
        self.constant(INT32, &[], x.to_le_bytes().to_vec())
    }

    /// A list of i64.
    pub fn ints(&mut self, data: &[i64]) -> ValueName {
        self.constant(INT64, &[data.len()], data.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// An i64 without sizes.
    pub fn int(&mut self, x: i64) -> ValueName {
        self.constant(INT64, &[], x.to_le_bytes().to_vec())
    }

    /// Numbers of -128 to 127 around `ZERO_POINT`.
    pub fn u8(&mut self, sizes: &[usize], data: impl Iterator<Item = i32>) -> ValueName {
        self.constant(UINT8, sizes, data.map(|x| (x + ZERO_POINT) as u8).collect())
    }

    /// `ZERO_POINT` itself.
    pub fn zero_point(&mut self) -> ValueName {
        self.constant(UINT8, &[], vec![ZERO_POINT as u8])
    }

    /// Elements of another type.
    pub fn cast(&mut self, x: &str, data_type: i32) -> ValueName {
        self.op("Cast", &[x], vec![int("to", i64::from(data_type))])
    }

    /// Sizes of 0 stay, one of -1 takes the rest.
    pub fn reshape(&mut self, x: &str, sizes: &[i64]) -> ValueName {
        let sizes = self.ints(sizes);
        self.plain("Reshape", &[x, &sizes])
    }

    /// Axes in another order.
    pub fn transpose(&mut self, x: &str, order: &[i64]) -> ValueName {
        self.op("Transpose", &[x], vec![ints("perm", order)])
    }

    /// Mean, sum or maximum over the innermost axis, which stays with one element.
    pub fn reduce(&mut self, op_type: &str, x: &str) -> ValueName {
        // Axes are an operand, of sums since version 13 of the operators, of all others since 18.
        match op_type == "ReduceSum" || self.opset >= 18 {
            true => {
                let axes = self.ints(&[-1]);
                self.plain(op_type, &[x, &axes])
            }
            false => self.op(op_type, &[x], vec![ints("axes", &[-1])]),
        }
    }

    /// Elements of an axis by their places.
    pub fn gather(&mut self, x: &str, places: &str, axis: i64) -> ValueName {
        self.op("Gather", &[x, places], vec![int("axis", axis)])
    }

    /// The constants, in the order in which they came.
    pub fn into_constants(self) -> Vec<TensorProto> {
        let tensor = |((data_type, dims, raw), name): ((i32, Vec<i64>, Bytes), ValueName)| TensorProto {
            dims,
            data_type,
            name,
            raw_data: Some(raw),
            ..TensorProto::default()
        };
        self.constants.into_iter().map(tensor).collect()
    }
}

/// An attribute with one integer.
pub(super) fn int(name: &str, x: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(x), r#type: 2, ..AttributeProto::default() }
}

/// An attribute with a word.
pub(super) fn word(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        s: Some(text.as_bytes().to_vec().into()),
        r#type: 3,
        ..AttributeProto::default()
    }
}

/// An attribute with a number.
pub(super) fn float(name: &str, x: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(x), r#type: 1, ..AttributeProto::default() }
}

/// An attribute with integers.
pub(super) fn ints(name: &str, all: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: all.to_vec(), r#type: 7, ..AttributeProto::default() }
}
