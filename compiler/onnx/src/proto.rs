//! The messages of an ONNX file, as `onnx.proto` defines them: those that say something about a network.
//!
//! Field numbers and names are ONNX's. What is left out is skipped when a file is decoded. `raw_data` is a slice of the
//! bytes that a message is decoded from. `prost` encodes as well: a tiny model is a few lines.
//!
//! ```
//! use prost::Message;
//! use snnc_onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};
//!
//! let node = NodeProto { input: vec!["x".into()], output: vec!["y".into()], op_type: "Relu".into(), ..Default::default() };
//! let model = ModelProto {
//!     opset_import: vec![OperatorSetIdProto { version: 17, ..Default::default() }],
//!     graph: Some(GraphProto { node: vec![node], ..Default::default() }),
//!     ..Default::default()
//! };
//! let read = snnc_onnx::read::read_bytes(&model.encode_to_vec())?;
//! assert_eq!((read.opset(), read.graph.nodes[0].op_type.as_str()), (17, "Relu"));
//! # Ok::<(), snnc_ir::Diagnostic>(())
//! ```

use bytes::Bytes;

/// A file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ModelProto {
    /// Version of the format.
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    /// What wrote the file.
    #[prost(string, tag = "2")]
    pub producer_name: String,
    /// The version of what wrote it.
    #[prost(string, tag = "3")]
    pub producer_version: String,
    /// The network.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    /// Versions of the operators, by domain.
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// Functions of nodes, which other nodes name as operators.
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

/// Nodes that stand for an operator.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FunctionProto {
    /// The operator's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Names of its inputs.
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    /// Names of its results.
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    /// Options that have no value of their own.
    #[prost(string, repeated, tag = "6")]
    pub attribute: Vec<String>,
    /// The nodes.
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    /// Versions of the operators that they use, by domain.
    #[prost(message, repeated, tag = "9")]
    pub opset_import: Vec<OperatorSetIdProto>,
    /// The operator's domain.
    #[prost(string, tag = "10")]
    pub domain: String,
    /// Options with the values that they have where a node gives none.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
    /// Which of several functions of a name.
    #[prost(string, tag = "13")]
    pub overload: String,
}

/// The version of a domain's operators.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorSetIdProto {
    /// Empty for ONNX's own operators.
    #[prost(string, tag = "1")]
    pub domain: String,
    /// The version.
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A graph: the file's, or a branch inside a node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GraphProto {
    /// Nodes, each after those whose outputs it takes.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// The graph's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Constants by name.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// What is given from outside.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// What is computed.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

/// An operator with its operands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeProto {
    /// Names of values; an empty one is an optional input that is left out.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of the values that the node gives.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// The node's name, which may be missing.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// The operator's options.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    /// The operator's domain; empty for ONNX's own.
    #[prost(string, tag = "7")]
    pub domain: String,
    /// Which of several functions of a name.
    #[prost(string, tag = "8")]
    pub overload: String,
    /// What exporters add, such as the module that the node came from.
    #[prost(message, repeated, tag = "9")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

/// A named option of a node: one of the fields, as `type` says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeProto {
    /// The option's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Type 1.
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    /// Type 2.
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    /// Type 3: a text, which need not be UTF-8.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub s: Option<Bytes>,
    /// Type 4.
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    /// Type 5.
    #[prost(message, optional, tag = "6")]
    pub g: Option<GraphProto>,
    /// Type 6.
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    /// Type 7.
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// Type 8.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub strings: Vec<Bytes>,
    /// Which of the fields holds the value; 0 in files older than version 2 of the format.
    #[prost(int32, tag = "20")]
    pub r#type: i32,
    /// Inside a function: the option of the function whose value it takes.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
}

impl AttributeProto {
    /// The type's number; in old files that of the field that is there, 0 if none is.
    pub fn kind(&self) -> i32 {
        let there = [
            self.f.is_some(),
            self.i.is_some(),
            self.s.is_some(),
            self.t.is_some(),
            self.g.is_some(),
            !self.floats.is_empty(),
            !self.ints.is_empty(),
            !self.strings.is_empty(),
        ];
        match self.r#type {
            0 => there.iter().zip(1..).find(|(there, _)| **there).map_or(0, |(_, kind)| kind),
            kind => kind,
        }
    }
}

/// A constant: its elements are in one of five fields, or in another file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorProto {
    /// Sizes.
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// The elements' type: 1 is f32, 7 is i64.
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Elements of f32.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of at most 32 bits, f16 and bf16 by their bits.
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    /// Elements of i64.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// The tensor's name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements of any type, little-endian, row by row.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub raw_data: Option<Bytes>,
    /// Elements of f64.
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// Elements of u32 and u64.
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
    /// Where the elements are, if they are in another file: `location`, `offset`, `length`.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 1: in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StringStringEntryProto {
    /// The key.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A named input or output.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueInfoProto {
    /// The value's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value's type.
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

/// A type; of the kinds that there are, a network has tensors.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypeProto {
    /// A tensor's type.
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorTypeProto {
    /// The elements' type, as in a tensor.
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    /// Its sizes, where they are known.
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

/// Sizes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TensorShapeProto {
    /// One for each axis.
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// `TensorShapeProto.Dimension`: a number, a name, or neither.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DimensionProto {
    /// The size.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    /// The name of a size that is open, such as `batch`.
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}
