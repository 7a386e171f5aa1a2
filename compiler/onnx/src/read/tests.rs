//! Small files, encoded by `prost`, and by hand where they are to be wrong.

use super::*;
use crate::proto::{
    DimensionProto, FunctionProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto, TensorTypeProto,
    TypeProto,
};
use crate::tensor::ArrayData;

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![number << 3 | 2];
    prost::encode_length_delimiter(bytes.len(), &mut all).expect("room");
    [all, bytes.to_vec()].concat()
}

fn tensor(name: &str, data_type: i32, dims: &[i64], rest: TensorProto) -> TensorProto {
    TensorProto { name: name.into(), data_type, dims: dims.to_vec(), ..rest }
}

fn raw(bytes: &[u8]) -> TensorProto {
    TensorProto { raw_data: Some(Bytes::copy_from_slice(bytes)), ..TensorProto::default() }
}

fn file(graph: GraphProto) -> Vec<u8> {
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    let model = ModelProto {
        ir_version: 8,
        producer_name: "hand".into(),
        graph: Some(graph),
        opset_import: vec![opset],
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn file_of_tensor(data_type: i32, dims: &[i64], rest: TensorProto) -> Vec<u8> {
    file(GraphProto { initializer: vec![tensor("w", data_type, dims, rest)], ..GraphProto::default() })
}

fn small() -> Vec<u8> {
    let value = tensor("", 7, &[1], raw(&3i64.to_le_bytes()));
    let attribute = AttributeProto { name: "value".into(), t: Some(value), ..AttributeProto::default() };
    let node = NodeProto {
        input: vec!["x".into()],
        output: vec!["y".into()],
        name: "n".into(),
        op_type: "Add".into(),
        attribute: vec![attribute],
        ..NodeProto::default()
    };
    let batch = DimensionProto { dim_param: Some("batch".into()), ..DimensionProto::default() };
    let seven = DimensionProto { dim_value: Some(7), ..DimensionProto::default() };
    let kind = TensorTypeProto { elem_type: 7, shape: Some(TensorShapeProto { dim: vec![batch, seven] }) };
    let port = ValueInfoProto { name: "x".into(), r#type: Some(TypeProto { tensor_type: Some(kind) }) };
    file(GraphProto {
        node: vec![node],
        initializer: vec![tensor("w", 1, &[2, 1], raw(&[0, 0, 128, 63, 0, 0, 0, 64]))],
        input: vec![port],
        output: vec![ValueInfoProto { name: "y".into(), r#type: None }],
        ..GraphProto::default()
    })
}

#[test]
fn what_is_in_the_file_is_read() {
    let model = read_bytes(&small()).expect("a model");
    assert_eq!((model.opset(), model.producer.as_str(), model.bytes), (17, "hand", small().len() as u64));
    let graph = &model.graph;
    assert_eq!(graph.inputs, [Port { name: "x".into(), elem: Some(OnnxElem::I64), sizes: vec![None, Some(7)] }]);
    assert_eq!(graph.outputs[0].name, "y");
    assert_eq!((graph.nodes[0].label(), graph.nodes[0].op_type.as_str()), ("n", "Add"));
    assert_eq!(*graph.initializers["w"], OnnxArray::f32(&[2, 1], vec![1.0, 2.0]));
    assert_eq!(graph.nodes[0].tensor("value").map(|x| x.ints()), Some(Some(vec![3])));
}

#[test]
fn every_element_type_is_read_from_either_place() {
    let none = TensorProto::default;
    let int32 = |x: i32| TensorProto { int32_data: vec![x], ..none() };
    let ints = |x: &[i64]| OnnxArray::vector(x.to_vec());
    let float = |x: f32| OnnxArray::f32(&[1], vec![x]);
    let of = |data: ArrayData| OnnxArray::new(vec![1], data);
    let cases: &[(i32, TensorProto, OnnxArray)] = &[
        (1, TensorProto { float_data: vec![1.5], ..none() }, float(1.5)),
        (7, TensorProto { int64_data: vec![5], ..none() }, ints(&[5])),
        (7, TensorProto { int64_data: vec![-1], ..none() }, ints(&[-1])),
        (13, TensorProto { uint64_data: vec![5], ..none() }, ints(&[5])),
        (6, int32(9), of(ArrayData::I32(vec![9]))),
        (9, int32(1), OnnxArray::bool(&[1], vec![true])),
        (9, raw(&[0]), OnnxArray::bool(&[1], vec![false])),
        (10, raw(&[0, 0x3c]), float(1.0)),
        (10, int32(0x3c00), float(1.0)),
        (16, raw(&[0x80, 0x3f]), float(1.0)),
        (11, raw(&2f64.to_le_bytes()), float(2.0)),
        (11, TensorProto { double_data: vec![2.0], ..none() }, float(2.0)),
        (3, raw(&[255]), of(ArrayData::I8(vec![-1]))),
        (2, raw(&[255]), of(ArrayData::U8(vec![255]))),
    ];
    for (elem, rest, expected) in cases {
        let model = read_bytes(&file_of_tensor(*elem, &[1], rest.clone())).expect("a model");
        assert_eq!(*model.graph.initializers["w"], *expected, "element {elem}");
    }
}

#[track_caller]
fn refuse(bytes: &[u8], words: &str) {
    let complaint = read_bytes(bytes).expect_err("a complaint").to_string();
    assert!(complaint.contains(words), "{complaint}");
}

#[test]
fn what_is_no_model_is_refused() {
    refuse(b"", "no graph");
    refuse(b"\x89PNG\r\n\x1a\n", "byte");
    refuse(&field(7, b"")[..1], "byte 1: 1 bytes are announced, 0 are left: the file is truncated");
    refuse(&[field(7, b""), field(7, b"")].concat(), "byte 2: there are two fields 7 in the file");
    refuse(&[0x3b], "byte 1: field 7 has the unknown wire type 3");
    refuse(&[7 << 3, 1], "byte 0: field 7 of the file is of another type");
    refuse(&field(7, &field(2, b"\xff")), "byte 4: a name is not UTF-8");
    refuse(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "does not end after ten bytes");
    refuse(&field(7, &field(15, b"")), "byte 2: sparse initializers");
    refuse(&field(7, &field(5, &field(4, b"abc"))), "byte 4: 3 bytes are no numbers of 4 bytes");
}

#[test]
fn sizes_are_checked_before_anything_is_made() {
    let eight = || raw(&[0; 8]);
    refuse(&file_of_tensor(1, &[3], eight()), "tensor w: its shape [3] wants 12 bytes, the file has 8");
    refuse(&file_of_tensor(1, &[1 << 40, 1 << 40], eight()), "not possible");
    refuse(&file_of_tensor(1, &[1 << 61], eight()), "wants");
    refuse(&file_of_tensor(1, &[-1], eight()), "not possible");
    refuse(&file_of_tensor(1, &[1; 17], eight()), "17 axes");
    let one = TensorProto { int64_data: vec![1], ..TensorProto::default() };
    refuse(&file_of_tensor(7, &[3], one), "wants 3 elements, the file has 1");
    refuse(&file_of_tensor(8, &[1], eight()), "element type");
    let entry = StringStringEntryProto { key: "location".into(), value: "w.bin".into() };
    let external = TensorProto { data_location: 1, external_data: vec![entry], ..TensorProto::default() };
    refuse(&file_of_tensor(1, &[1], external), "another file");
    let twice = vec![tensor("w", 1, &[2], eight()); 2];
    refuse(&file(GraphProto { initializer: twice, ..GraphProto::default() }), "two initializers of this name");
}

#[test]
fn counts_are_limited_before_anything_is_made() {
    refuse(&field(7, &field(1, b"").repeat((1 << 20) + 1)), "there are more than 1048576 nodes");
    refuse(&field(7, &field(1, &field(1, b"").repeat((1 << 20) + 1))), "more than 1048576 inputs of a node");
}

#[test]
fn deep_nesting_is_refused() {
    let mut graph = Vec::new();
    for _ in 0..60 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    refuse(&field(7, &graph), "nested more than");
}

/// An attribute of files that are older than its type's number.
#[test]
fn an_attribute_without_a_type_is_what_is_there() {
    let read = |attribute: AttributeProto| {
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        let model = read_bytes(&file(GraphProto { node: vec![node], ..GraphProto::default() })).expect("a model");
        format!("{:?}", model.graph.nodes[0].attributes[""])
    };
    let none = AttributeProto::default;
    assert_eq!(read(AttributeProto { i: Some(3), ..none() }), "Int(3)");
    assert_eq!(read(AttributeProto { ints: vec![1, 2], ..none() }), "Ints([1, 2])");
    assert_eq!(read(AttributeProto { s: Some(Bytes::from_static(b"ab")), ..none() }), "Text(\"ab\")");
    assert_eq!(read(AttributeProto { r#type: 1, ..none() }), "Float(0.0)");
    assert_eq!(read(AttributeProto { r#type: 10, ..none() }), "Other(10)");
}

#[test]
fn no_bytes_panic() {
    let whole = small();
    // The version of the operators comes last, and a file may lack it.
    let version = field(8, &[2 << 3, 17]).len();
    for end in 0..whole.len() - version {
        assert!(read_bytes(&whole[..end]).is_err(), "{end} bytes of {}", whole.len());
    }
    for at in 0..whole.len() {
        for bits in [0x01, 0x02, 0x08, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[at] ^= bits;
            drop(read_bytes(&changed));
        }
    }
}

fn call(op: &str, domain: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        op_type: op.into(),
        domain: domain.into(),
        attribute,
        ..NodeProto::default()
    }
}

fn function(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, version: i64) -> FunctionProto {
    let default = AttributeProto { name: "axis".into(), i: Some(-1), r#type: 2, ..AttributeProto::default() };
    FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec!["y".into()],
        node: nodes,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version }],
        attribute_proto: vec![default],
        ..FunctionProto::default()
    }
}

fn with_functions(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> Result<OnnxModel, Diagnostic> {
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    let graph = Some(GraphProto { node: nodes, ..GraphProto::default() });
    read_bytes(&ModelProto { graph, opset_import, functions, ..ModelProto::default() }.encode_to_vec())
}

/// Names inside a body are its own, attributes come from the call or from the function, inputs may be left out.
#[test]
fn functions_stand_where_they_are_named() {
    let axis =
        AttributeProto { name: "axis".into(), r#type: 2, ref_attr_name: "axis".into(), ..AttributeProto::default() };
    let alpha =
        AttributeProto { name: "alpha".into(), r#type: 1, ref_attr_name: "alpha".into(), ..AttributeProto::default() };
    let inner = function("Inner", &["x"], vec![call("Softmax", "", &["x"], "y", vec![axis, alpha])], 17);
    let outer =
        vec![call("Inner", "own", &["x"], "t", Vec::new()), call("Clip", "", &["t", "least", "most"], "y", Vec::new())];
    let outer = function("Outer", &["x", "least", "most"], outer, 17);
    let two = AttributeProto { name: "axis".into(), i: Some(2), r#type: 2, ..AttributeProto::default() };
    let nodes = vec![
        call("Outer", "own", &["a", "", "m"], "b", Vec::new()),
        call("Outer", "own", &["b"], "c", Vec::new()),
        call("Inner", "own", &["c"], "d", vec![two]),
    ];
    let model = with_functions(nodes, vec![inner, outer]).expect("a model");
    let nodes = &model.graph.nodes;
    let ops: Vec<&str> = nodes.iter().map(|node| node.op_type.as_str()).collect();
    assert_eq!(ops, ["Softmax", "Clip", "Softmax", "Clip", "Softmax"]);
    assert_eq!(
        (nodes[1].inputs[1].as_str(), nodes[1].inputs[2].as_str(), nodes[1].outputs[0].as_str()),
        ("", "m", "b")
    );
    assert_eq!(nodes[3].inputs, [nodes[2].outputs[0].as_str(), "", ""]);
    assert_ne!(nodes[0].outputs, nodes[2].outputs, "each call has values of its own");
    let axes: Vec<Option<i64>> = [0, 2, 4].iter().map(|&i| nodes[i].int("axis")).collect();
    assert_eq!(axes, [Some(-1), Some(-1), Some(2)]);
    assert!(nodes[0].float("alpha").is_none(), "nobody gives it");
}

#[test]
fn functions_without_an_end_or_of_another_opset_are_refused() {
    let told =
        |functions| with_functions(vec![call("F", "own", &["a"], "b", Vec::new())], functions).expect_err("refused");
    let endless = function("F", &["x"], vec![call("F", "own", &["x"], "y", Vec::new())], 17);
    assert!(told(vec![endless]).message.contains("more than 32 times"));
    let twice = |name: &str, of: &str| {
        let nodes = (0..64).map(|i| call(of, "own", &["x"], &format!("t{i}"), Vec::new())).collect();
        function(name, &["x"], nodes, 17)
    };
    let many = vec![twice("F", "G"), twice("G", "H"), twice("H", "I"), twice("I", "J"), twice("J", "K")];
    assert!(told(many).message.contains("nodes"));
    let old = function("F", &["x"], vec![call("Relu", "", &["x"], "y", Vec::new())], 6);
    assert!(told(vec![old]).message.contains("opset 6"));
}
