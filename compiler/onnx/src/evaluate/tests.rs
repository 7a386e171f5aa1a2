//! One case for each fact: a node, its operands, what it gives.

use super::*;
use crate::model::Attribute;
use std::sync::Arc;

fn node(op: &str, attributes: &[(&str, Attribute)]) -> OnnxNode {
    OnnxNode {
        op_type: op.into(),
        outputs: vec!["y".into()],
        attributes: attributes.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        ..OnnxNode::default()
    }
}

fn run(node: &OnnxNode, inputs: &[&OnnxArray]) -> Result<Vec<OnnxArray>, EvaluateError> {
    let inputs: Vec<Option<&OnnxArray>> = inputs.iter().map(|&x| Some(x)).collect();
    evaluate(node, 17, &inputs)
}

#[track_caller]
fn check(op: &str, attributes: &[(&str, Attribute)], inputs: &[&OnnxArray], expected: &OnnxArray) {
    assert_eq!(run(&node(op, attributes), inputs), Ok(vec![expected.clone()]), "{op}");
}

#[track_caller]
fn refuse(op: &str, attributes: &[(&str, Attribute)], inputs: &[&OnnxArray], words: &str) {
    match run(&node(op, attributes), inputs) {
        Err(EvaluateError::Invalid(message)) => assert!(message.contains(words), "{op}: {message}"),
        other => panic!("{op}: {other:?}"),
    }
}

fn ints(x: &[i64]) -> OnnxArray {
    OnnxArray::vector(x.to_vec())
}

fn table(sizes: &[usize]) -> OnnxArray {
    OnnxArray::i64(sizes, (0..sizes.iter().product::<usize>() as i64).collect())
}

fn floats(x: &[f32]) -> OnnxArray {
    OnnxArray::f32(&[x.len()], x.to_vec())
}

fn int(x: i64) -> OnnxArray {
    OnnxArray::i64(&[], vec![x])
}

use Attribute::{Int, Ints};

#[test]
fn constants() {
    check("Constant", &[("value", Attribute::Tensor(Arc::new(ints(&[1, 2]))))], &[], &ints(&[1, 2]));
    check("Constant", &[("value_float", Attribute::Float(0.5))], &[], &OnnxArray::f32(&[], vec![0.5]));
    check("Constant", &[("value_ints", Ints(vec![3]))], &[], &ints(&[3]));
    let minus = Attribute::Tensor(Arc::new(floats(&[-1.0])));
    check("ConstantOfShape", &[("value", minus)], &[&ints(&[2])], &floats(&[-1.0, -1.0]));
    check("ConstantOfShape", &[], &[&ints(&[])], &OnnxArray::f32(&[], vec![0.0]));
    refuse("ConstantOfShape", &[], &[&ints(&[1 << 40, 1 << 40])], "too large");
    refuse("ConstantOfShape", &[], &[&ints(&[-2])], "no shape");
}

#[test]
fn shapes() {
    check("Shape", &[], &[&table(&[2, 3])], &ints(&[2, 3]));
    check("Shape", &[("start", Int(-1))], &[&table(&[2, 3])], &ints(&[3]));
    check("Shape", &[("start", Int(5)), ("end", Int(-9))], &[&table(&[2, 3])], &ints(&[]));
    check("Size", &[], &[&table(&[2, 3])], &int(6));
    check("Squeeze", &[], &[&table(&[1, 3, 1])], &table(&[3]));
    check("Squeeze", &[("axes", Ints(vec![0]))], &[&table(&[1, 3, 1])], &table(&[3, 1]));
    check("Squeeze", &[], &[&table(&[1, 3, 1]), &ints(&[-1])], &table(&[1, 3]));
    refuse("Squeeze", &[], &[&table(&[2]), &ints(&[0])], "not all 1");
    check("Unsqueeze", &[], &[&table(&[3]), &ints(&[0, -1])], &table(&[1, 3, 1]));
    check("Unsqueeze", &[("axes", Ints(vec![1]))], &[&table(&[3])], &table(&[3, 1]));
    refuse("Unsqueeze", &[], &[&table(&[3]), &ints(&[0, 0])], "twice");
    check("Reshape", &[], &[&table(&[2, 6]), &ints(&[0, -1, 2])], &table(&[2, 3, 2]));
    check("Reshape", &[("allowzero", Int(1))], &[&table(&[0, 6]), &ints(&[0, 2])], &table(&[0, 2]));
    refuse("Reshape", &[], &[&table(&[5]), &ints(&[2, -1])], "cannot become");
    refuse("Reshape", &[], &[&table(&[4]), &ints(&[-1, -1])], "cannot become");
    refuse("Reshape", &[], &[&table(&[0]), &ints(&[0, -1])], "cannot become");
    check("Flatten", &[("axis", Int(2))], &[&table(&[2, 3, 4])], &table(&[6, 4]));
    check("Flatten", &[("axis", Int(-1))], &[&table(&[2, 3, 4])], &table(&[6, 4]));
}

#[test]
fn moves() {
    check("Transpose", &[], &[&table(&[2, 3])], &OnnxArray::i64(&[3, 2], vec![0, 3, 1, 4, 2, 5]));
    let turned = OnnxArray::i64(&[2, 1, 2], vec![0, 2, 1, 3]);
    check("Transpose", &[("perm", Ints(vec![2, 0, 1]))], &[&table(&[1, 2, 2])], &turned);
    refuse("Transpose", &[("perm", Ints(vec![0, 0]))], &[&table(&[2, 3])], "no order");
    check("Concat", &[("axis", Int(0))], &[&ints(&[1]), &ints(&[]), &ints(&[2, 3])], &ints(&[1, 2, 3]));
    let joined = OnnxArray::i64(&[2, 3], vec![0, 1, 0, 2, 3, 1]);
    check("Concat", &[("axis", Int(-1))], &[&table(&[2, 2]), &table(&[2, 1])], &joined);
    refuse("Concat", &[("axis", Int(0))], &[&table(&[2, 2]), &table(&[2, 1])], "do not join");
    check("Expand", &[], &[&ints(&[7]), &ints(&[2, 3])], &OnnxArray::i64(&[2, 3], vec![7; 6]));
    check("Expand", &[], &[&table(&[2, 1]), &ints(&[2])], &OnnxArray::i64(&[2, 2], vec![0, 0, 1, 1]));
    refuse("Expand", &[], &[&ints(&[7]), &ints(&[1 << 20, 1 << 20])], "too large");
    check("Tile", &[], &[&table(&[1, 2]), &ints(&[2, 2])], &OnnxArray::i64(&[2, 4], vec![0, 1, 0, 1, 0, 1, 0, 1]));
    refuse("Tile", &[], &[&table(&[1, 2]), &ints(&[1 << 40, 1])], "too large");
    check("Identity", &[], &[&ints(&[1])], &ints(&[1]));
    check("Dropout", &[], &[&floats(&[1.0])], &floats(&[1.0]));
}

#[test]
fn slices() {
    let max = i64::MAX;
    check("Slice", &[], &[&ints(&[1, 2, 3]), &ints(&[-1]), &ints(&[max]), &ints(&[0])], &ints(&[3]));
    check("Slice", &[], &[&ints(&[1, 2, 3]), &ints(&[-2]), &ints(&[-1]), &ints(&[0])], &ints(&[2]));
    check("Slice", &[], &[&ints(&[1, 2, 3]), &ints(&[5]), &ints(&[9])], &ints(&[]));
    let backward = [&ints(&[1, 2, 3]), &ints(&[-1]), &ints(&[i64::MIN]), &ints(&[0]), &ints(&[-1])];
    check("Slice", &[], &backward, &ints(&[3, 2, 1]));
    let second = [&ints(&[1, 2, 3]), &ints(&[0]), &ints(&[3]), &ints(&[0]), &ints(&[2])];
    check("Slice", &[], &second, &ints(&[1, 3]));
    let attributes = [("starts", Ints(vec![1])), ("ends", Ints(vec![2])), ("axes", Ints(vec![1]))];
    check("Slice", &attributes, &[&table(&[2, 2])], &OnnxArray::i64(&[2, 1], vec![1, 3]));
    let far = [&ints(&[1, 2, 3]), &ints(&[0]), &ints(&[3]), &ints(&[0]), &ints(&[max])];
    check("Slice", &[], &far, &ints(&[1]));
    let nothing = [&ints(&[]), &ints(&[0]), &ints(&[max]), &ints(&[0]), &ints(&[-1])];
    check("Slice", &[], &nothing, &ints(&[]));
    refuse("Slice", &[], &[&ints(&[1]), &ints(&[0]), &ints(&[1]), &ints(&[0]), &ints(&[0])], "zero");
    refuse("Slice", &[], &[&ints(&[1]), &ints(&[0]), &ints(&[1]), &ints(&[4])], "axis 4");
}

#[test]
fn splits() {
    fn three(attributes: &[(&str, Attribute)]) -> OnnxNode {
        OnnxNode { outputs: vec!["a".into(), "b".into(), "c".into()], ..node("Split", attributes) }
    }
    fn parts(x: [&[i64]; 3]) -> Result<Vec<OnnxArray>, EvaluateError> {
        Ok(x.map(ints).to_vec())
    }
    assert_eq!(run(&three(&[]), &[&ints(&[1, 2, 3])]), parts([&[1], &[2], &[3]]));
    assert_eq!(run(&three(&[]), &[&ints(&[1, 2, 3, 4]), &ints(&[2, 1, 1])]), parts([&[1, 2], &[3], &[4]]));
    assert_eq!(run(&three(&[("split", Ints(vec![0, 1, 1]))]), &[&ints(&[1, 2])]), parts([&[], &[1], &[2]]));
    assert_eq!(run(&three(&[("num_outputs", Int(3))]), &[&ints(&[1, 2, 3, 4, 5])]), parts([&[1, 2], &[3, 4], &[5]]));
    assert!(run(&three(&[("split", Ints(vec![1, 1, 1]))]), &[&ints(&[1, 2])]).is_err());
}

#[test]
fn picks() {
    check("Gather", &[], &[&ints(&[5, 6, 7]), &int(-1)], &int(7));
    check(
        "Gather",
        &[("axis", Int(1))],
        &[&table(&[2, 3]), &ints(&[2, 0])],
        &OnnxArray::i64(&[2, 2], vec![2, 0, 5, 3]),
    );
    check("Gather", &[], &[&floats(&[0.5, 1.5]), &ints(&[1])], &floats(&[1.5]));
    refuse("Gather", &[], &[&ints(&[1]), &int(1)], "index 1");
    let places = OnnxArray::i64(&[2, 2], vec![0, 1, 1, 2]);
    check("GatherND", &[], &[&table(&[2, 3]), &places], &ints(&[1, 5]));
    let rows = OnnxArray::i64(&[2, 1], vec![1, 0]);
    check("GatherND", &[], &[&table(&[2, 2]), &rows], &OnnxArray::i64(&[2, 2], vec![2, 3, 0, 1]));
    check("GatherND", &[("batch_dims", Int(1))], &[&table(&[2, 2]), &rows], &ints(&[1, 2]));
    refuse("GatherND", &[("batch_dims", Int(2))], &[&table(&[2, 2]), &rows], "do not fit");
    check("GatherElements", &[("axis", Int(1))], &[&table(&[2, 3]), &rows], &OnnxArray::i64(&[2, 1], vec![1, 3]));
    check("ScatterND", &[], &[&ints(&[1, 2, 3]), &rows, &ints(&[8, 9])], &ints(&[9, 8, 3]));
    check("NonZero", &[], &[&OnnxArray::i64(&[2, 2], vec![0, 1, 1, 0])], &OnnxArray::i64(&[2, 2], vec![0, 1, 1, 0]));
    let truth = OnnxArray::bool(&[2, 1], vec![true, false]);
    check("Where", &[], &[&truth, &ints(&[1, 2]), &int(0)], &OnnxArray::i64(&[2, 2], vec![1, 2, 0, 0]));
}

#[test]
fn arithmetic() {
    let (a, b) = (ints(&[7, -7]), ints(&[2, 2]));
    for (op, x, y) in
        [("Add", 9, -5), ("Sub", 5, -9), ("Mul", 14, -14), ("Div", 3, -3), ("Mod", 1, 1), ("Min", 2, -7), ("Max", 7, 2)]
    {
        check(op, &[], &[&a, &b], &ints(&[x, y]));
    }
    check("Pow", &[], &[&floats(&[64.0]), &floats(&[0.5])], &floats(&[8.0]));
    check("Pow", &[], &[&ints(&[3]), &int(2)], &ints(&[9]));
    check("Div", &[], &[&floats(&[1.0]), &floats(&[4.0])], &floats(&[0.25]));
    check("Min", &[], &[&int(3), &int(1), &int(2)], &int(1));
    check("Mod", &[("fmod", Int(1))], &[&floats(&[-3.5]), &floats(&[2.0])], &floats(&[-1.5]));
    check("Add", &[], &[&table(&[2, 1]), &table(&[2])], &OnnxArray::i64(&[2, 2], vec![0, 1, 1, 2]));
    refuse("Div", &[], &[&a, &int(0)], "zero");
    refuse("Add", &[], &[&table(&[2]), &table(&[3])], "do not broadcast");
    refuse("Add", &[], &[&ints(&[1]), &floats(&[1.0])], "not possible");
    check("Neg", &[], &[&ints(&[1])], &ints(&[-1]));
    check("Sqrt", &[], &[&floats(&[9.0])], &floats(&[3.0]));
    check("Floor", &[], &[&floats(&[-1.5])], &floats(&[-2.0]));
}

#[test]
fn truth() {
    let (a, b) = (ints(&[1, 2, 3]), int(2));
    let cases = [
        ("Equal", [false, true, false]),
        ("Less", [true, false, false]),
        ("LessOrEqual", [true, true, false]),
        ("Greater", [false, false, true]),
        ("GreaterOrEqual", [false, true, true]),
    ];
    for (op, expected) in cases {
        check(op, &[], &[&a, &b], &OnnxArray::bool(&[3], expected.to_vec()));
    }
    let (x, y) = (OnnxArray::bool(&[2], vec![true, false]), OnnxArray::bool(&[2], vec![true, true]));
    check("And", &[], &[&x, &y], &x);
    check("Or", &[], &[&x, &y], &y);
    check("Not", &[], &[&x], &OnnxArray::bool(&[2], vec![false, true]));
    check("IsNaN", &[], &[&floats(&[1.0, f32::NAN])], &OnnxArray::bool(&[2], vec![false, true]));
    check("Cast", &[("to", Int(7))], &[&floats(&[1.9, -1.9])], &ints(&[1, -1]));
    check("Cast", &[("to", Int(9))], &[&ints(&[0, 5])], &OnnxArray::bool(&[2], vec![false, true]));
    check("Cast", &[("to", Int(1))], &[&x], &floats(&[1.0, 0.0]));
    refuse("Cast", &[("to", Int(8))], &[&x], "not supported");
}

#[test]
fn ranges_and_sums() {
    check("Range", &[], &[&int(0), &int(3), &int(1)], &ints(&[0, 1, 2]));
    check("Range", &[], &[&int(5), &int(0), &int(-2)], &ints(&[5, 3, 1]));
    check("Range", &[], &[&int(0), &int(-1), &int(1)], &ints(&[]));
    refuse("Range", &[], &[&int(0), &int(i64::MAX), &int(1)], "too large");
    refuse("Range", &[], &[&int(0), &int(1), &int(0)], "zero");
    check("CumSum", &[], &[&ints(&[1, 2, 3]), &int(0)], &ints(&[1, 3, 6]));
    check("CumSum", &[("exclusive", Int(1))], &[&ints(&[1, 2, 3]), &int(0)], &ints(&[0, 1, 3]));
    check("CumSum", &[("reverse", Int(1))], &[&table(&[2, 2]), &int(-1)], &OnnxArray::i64(&[2, 2], vec![1, 1, 5, 3]));
    let ones = OnnxArray::i64(&[2, 2], vec![1; 4]);
    check("Sign", &[], &[&floats(&[-0.5, 0.0, 3.0])], &floats(&[-1.0, 0.0, 1.0]));
    check("Sign", &[], &[&ints(&[-5, 0, 3])], &ints(&[-1, 0, 1]));
    check("Trilu", &[("upper", Int(0))], &[&ones], &OnnxArray::i64(&[2, 2], vec![1, 0, 1, 1]));
    check("Trilu", &[], &[&ones, &int(1)], &OnnxArray::i64(&[2, 2], vec![0, 1, 0, 0]));
    check("ReduceMean", &[("axes", Ints(vec![-1]))], &[&floats(&[1.0, 3.0])], &floats(&[2.0]));
    check("ReduceSum", &[("keepdims", Int(0))], &[&table(&[2, 2])], &int(6));
    check("ReduceSum", &[], &[&table(&[2, 2]), &ints(&[0])], &OnnxArray::i64(&[1, 2], vec![2, 4]));
    let (largest, places) = (ints(&[3, 2]), ints(&[1, 2]));
    assert_eq!(run(&node("TopK", &[]), &[&ints(&[1, 3, 2]), &ints(&[2])]), Ok(vec![largest, places]));
    let columns = OnnxArray::i64(&[3, 2], vec![5, 1, 5, 0, 9, 2]);
    let smallest = [OnnxArray::i64(&[2, 2], vec![5, 0, 5, 1]), OnnxArray::i64(&[2, 2], vec![0, 1, 1, 0])];
    let least = node("TopK", &[("axis", Int(0)), ("largest", Int(0))]);
    assert_eq!(run(&least, &[&columns, &ints(&[2])]), Ok(smallest.to_vec()));
    refuse("TopK", &[], &[&ints(&[1]), &ints(&[2])], "0 to 1 elements");
    check("ReduceSum", &[("noop_with_empty_axes", Int(1))], &[&table(&[2])], &table(&[2]));
}

#[test]
fn what_is_not_here_is_unknown() {
    assert_eq!(run(&node("LSTM", &[]), &[]), Err(EvaluateError::Unknown));
    refuse("Add", &[], &[], "input 1 is missing");
}

fn matrix(rows: usize, x: &[f32]) -> OnnxArray {
    OnnxArray::f32(&[rows, x.len() / rows], x.to_vec())
}

fn bytes(sizes: &[usize], x: &[u8]) -> OnnxArray {
    OnnxArray::new(sizes.to_vec(), crate::tensor::ArrayData::U8(x.to_vec()))
}

#[test]
fn products() {
    let (a, b) = (matrix(2, &[1.0, 2.0, 3.0, 4.0]), matrix(2, &[1.0, 0.0, 2.0, 1.0]));
    check("MatMul", &[], &[&a, &b], &matrix(2, &[5.0, 2.0, 11.0, 4.0]));
    check("MatMul", &[], &[&floats(&[1.0, 1.0]), &b], &floats(&[3.0, 1.0]));
    check("MatMul", &[], &[&a, &floats(&[1.0, 1.0])], &floats(&[3.0, 7.0]));
    let batches = OnnxArray::f32(&[2, 1, 2], vec![1.0, 0.0, 0.0, 1.0]);
    check("MatMul", &[], &[&batches, &a], &OnnxArray::f32(&[2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]));
    refuse("MatMul", &[], &[&a, &floats(&[1.0, 1.0, 1.0])], "inner sizes");
    let turned = [("transA", Int(1)), ("alpha", Attribute::Float(2.0)), ("beta", Attribute::Float(0.5))];
    check("Gemm", &turned, &[&a, &b, &floats(&[2.0, 4.0])], &matrix(2, &[15.0, 8.0, 21.0, 10.0]));
    let equation = [("equation", Attribute::Text("ij,kj->ik".into()))];
    check("Einsum", &equation, &[&a, &b], &matrix(2, &[1.0, 4.0, 3.0, 10.0]));
}

#[test]
fn norms_and_softmax() {
    let x = matrix(1, &[1.0, 3.0]);
    let norm = node("LayerNormalization", &[("epsilon", Attribute::Float(0.0))]);
    let outputs = run(&norm, &[&x, &floats(&[2.0, 2.0]), &floats(&[1.0, 1.0])]).expect("rows");
    assert_eq!(outputs, [matrix(1, &[-1.0, 3.0]), matrix(1, &[2.0]), matrix(1, &[1.0])]);
    refuse("LayerNormalization", &[], &[&x, &floats(&[1.0, 1.0, 1.0])], "do not fit");
    check("Softmax", &[], &[&matrix(2, &[0.0, 0.0, 5.0, 5.0])], &matrix(2, &[0.5; 4]));
    let old = OnnxNode { op_type: "Softmax".into(), ..node("Softmax", &[]) };
    let cube = OnnxArray::f32(&[1, 2, 2], vec![0.0; 4]);
    assert_eq!(evaluate(&old, 12, &[Some(&cube)]), Ok(vec![OnnxArray::f32(&[1, 2, 2], vec![0.25; 4])]));
    check("Gelu", &[], &[&floats(&[0.0, 10.0])], &floats(&[0.0, 10.0]));
    check("Clip", &[("max", Attribute::Float(1.0))], &[&floats(&[0.5, 3.0])], &floats(&[0.5, 1.0]));
}

#[test]
fn codes() {
    let (scale, zero) = (OnnxArray::f32(&[], vec![0.5]), bytes(&[], &[10]));
    // Halves go to even, codes stay in their type.
    check(
        "QuantizeLinear",
        &[],
        &[&floats(&[0.25, 0.75, -9.0, 999.0]), &scale, &zero],
        &bytes(&[4], &[10, 12, 0, 255]),
    );
    check("DequantizeLinear", &[], &[&bytes(&[2], &[10, 13]), &scale, &zero], &floats(&[0.0, 1.5]));
    let (by_row, zeros) = (floats(&[1.0, 2.0]), bytes(&[2], &[0, 1]));
    let table = bytes(&[2, 2], &[1, 2, 3, 4]);
    check("DequantizeLinear", &[("axis", Int(0))], &[&table, &by_row, &zeros], &matrix(2, &[1.0, 2.0, 4.0, 6.0]));
    check("DequantizeLinear", &[], &[&table, &by_row, &zeros], &matrix(2, &[1.0, 2.0, 3.0, 6.0]));
    let blocks = matrix(2, &[1.0, 2.0]);
    let blocked = [("axis", Int(1)), ("block_size", Int(2))];
    check("DequantizeLinear", &blocked, &[&table, &blocks], &matrix(2, &[1.0, 2.0, 6.0, 8.0]));
    refuse("DequantizeLinear", &[], &[&table, &floats(&[1.0; 3])], "do not fit");
    let sums = OnnxArray::new(vec![2, 2], crate::tensor::ArrayData::I32(vec![-1, -2, 7, 10]));
    check("MatMulInteger", &[], &[&table, &table, &bytes(&[], &[2])], &sums);
    let dynamic = run(&node("DynamicQuantizeLinear", &[]), &[&floats(&[-1.0, 0.0, 1.55])]).expect("codes");
    assert_eq!(dynamic, [bytes(&[3], &[0, 100, 255]), OnnxArray::f32(&[], vec![2.55 / 255.0]), bytes(&[], &[100])]);
}

#[test]
fn attention_sees_the_past() {
    let one = |x: &[f32]| OnnxArray::f32(&[1, 1, x.len(), 1], x.to_vec());
    let (zeros, values) = (one(&[0.0; 3]), one(&[3.0, 6.0, 9.0]));
    let outputs = run(&node("Attention", &[("is_causal", Int(1))]), &[&zeros, &zeros, &values]).expect("rows");
    assert_eq!(outputs[0], one(&[3.0, 4.5, 6.0]));
    let mask = OnnxArray::bool(&[1, 3], vec![true, false, false]);
    let outputs = run(&node("Attention", &[]), &[&zeros, &zeros, &values, &mask]).expect("rows");
    assert_eq!(outputs[0], one(&[3.0; 3]));
}

#[test]
fn operators_without_operands_are_refused() {
    for (name, _) in OPERATORS {
        let (domain, op_type) = name.rsplit_once('.').unwrap_or(("", name));
        let node = OnnxNode { domain: domain.into(), ..node(op_type, &[]) };
        assert!(matches!(evaluate(&node, 17, &[]), Err(EvaluateError::Invalid(_))), "{name}");
    }
}

/// Numbers without a pattern, the same as those that onnxruntime was given.
fn wave(sizes: &[usize], by: f32) -> OnnxArray {
    let count = sizes.iter().product::<usize>();
    let at = |i: usize| (libm::sin(i as f64 * 1.3 + sizes.len() as f64) as f32) * by;
    OnnxArray::f32(sizes, (0..count).map(at).collect())
}

#[track_caller]
fn near(x: &OnnxArray, expected: &[f32]) {
    let x = x.as_f32().expect("floats");
    assert_eq!(x.len(), expected.len());
    assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5), "{x:?}");
}

/// Expected numbers are those of onnxruntime.
#[test]
fn heads_turn_by_their_position() {
    let angles = |f: fn(f64) -> f64, pairs: usize| {
        let at = |i: usize| f((i / pairs) as f64 * [1.0, 0.1][i % pairs]) as f32;
        (0..3 * pairs).map(at).collect::<Vec<f32>>()
    };
    let (cos, sin) =
        (OnnxArray::f32(&[1, 3, 2], angles(libm::cos, 2)), OnnxArray::f32(&[1, 3, 2], angles(libm::sin, 2)));
    let y = run(&node("RotaryEmbedding", &[]), &[&wave(&[1, 2, 3, 4], 1.0), &cos, &sin]).expect("heads");
    near(
        &OnnxArray::f32(&[4], y[0].as_f32().expect("floats")[20..].to_vec()),
        &[-0.43098, -0.23478, -1.28383, 0.57599],
    );
    let attributes = [("num_heads", Int(2)), ("interleaved", Int(1)), ("rotary_embedding_dim", Int(2))];
    let (cos, sin) = (OnnxArray::f32(&[3, 1], angles(libm::cos, 1)), OnnxArray::f32(&[3, 1], angles(libm::sin, 1)));
    let positions = OnnxArray::i64(&[1, 2], vec![2, 1]);
    let expected = [
        0.77434, 0.50958, -0.63127, 0.57844, -0.32315, 0.88668, -0.98094, -0.44965, -0.31164, 1.07996, -0.2879,
        -0.99977, -0.86354, 0.26097, 0.71116, -0.48717,
    ];
    let x = wave(&[1, 2, 8], 1.0);
    near(&run(&node("RotaryEmbedding", &attributes), &[&x, &cos, &sin, &positions]).expect("rows")[0], &expected);
    let contrib = OnnxNode { domain: "com.microsoft".into(), ..node("RotaryEmbedding", &attributes) };
    near(&run(&contrib, &[&x, &positions, &cos, &sin]).expect("rows")[0], &expected);
    refuse(
        "RotaryEmbedding",
        &attributes,
        &[&x, &cos, &sin, &OnnxArray::i64(&[1, 2], vec![3, 1])],
        "outside a size of 3",
    );
    refuse("RotaryEmbedding", &[("num_heads", Int(3))], &[&x, &cos, &sin], "do not divide");
}

/// Expected numbers are those of onnxruntime: grouped heads, a past, a mask, a cap, what is hidden altogether.
#[test]
fn attention_shares_keys_and_gives_its_scores() {
    let (q, k, v) = (wave(&[1, 2, 8], 1.0), wave(&[1, 2, 4], 0.7), wave(&[1, 2, 4], 0.5));
    let (past_k, past_v) = (wave(&[1, 2, 1, 2], 1.0), wave(&[1, 2, 1, 2], 0.3));
    let mask = OnnxArray::bool(&[2, 3], vec![true, true, true, false, true, true]);
    let with = |mode: i64| {
        let attributes = [
            ("q_num_heads", Int(4)),
            ("kv_num_heads", Int(2)),
            ("is_causal", Int(1)),
            ("softcap", Attribute::Float(0.5)),
            ("scale", Attribute::Float(0.8)),
            ("qk_matmul_output_mode", Int(mode)),
        ];
        run(&node("Attention", &attributes), &[&q, &k, &v, &mask, &past_k, &past_v]).expect("heads")
    };
    let y = with(1);
    let expected = [
        -0.07958, -0.35294, -0.10018, -0.33851, -0.06348, 0.29567, -0.17151, 0.29291, 0.33078, -0.18439, 0.22296,
        -0.29779, -0.38598, 0.08239, -0.40708, 0.02037,
    ];
    near(&y[0], &expected);
    let keys = [
        -0.7568, -0.83227, 0.09878, -0.64132, 0.65851, -0.05261, 0.31154, 0.99894, -0.44189, 0.40491, -0.68666,
        -0.31475,
    ];
    near(&y[1], &keys);
    let last = |x: &OnnxArray| OnnxArray::f32(&[6], x.as_f32().expect("floats")[18..].to_vec());
    near(&last(&y[3]), &[-0.41798, 0.19093, 0.43139, -0.20022, -0.3371, -0.24497]);
    near(&last(&with(3)[3]), &[0.35231, 0.64769, 0.0, 0.0, 0.47698, 0.52302]);
    // Two of three keys are there, and the last query stands at the second.
    let (q, k) = (wave(&[1, 2, 2, 2], 1.0), wave(&[1, 1, 3, 2], 1.0));
    let lengths = OnnxArray::i64(&[1], vec![2]);
    let inputs = [Some(&q), Some(&k), Some(&k), None, None, None, Some(&lengths)];
    let y = evaluate(&node("Attention", &[("is_causal", Int(1))]), 24, &inputs).expect("heads");
    near(&y[0], &[-0.7568, -0.83227, 0.1212, 0.67269, -0.7568, -0.83227, -0.1867, 0.14493]);
    let x = wave(&[1, 1, 2, 2], 1.0);
    let hidden = OnnxArray::bool(&[2, 2], vec![false, false, true, false]);
    let y = run(&node("Attention", &[]), &[&x, &x, &x, &hidden]).expect("heads");
    near(&y[0], &[0.0, 0.0, -0.7568, -0.83227]);
    let gain = OnnxArray::f32(&[2, 1], vec![2.0, 3.0]);
    let y = run(&node("RMSNormalization", &[("axis", Int(1))]), &[&wave(&[1, 2, 3], 1.0), &gain]).expect("rows");
    near(&y[0], &[0.43873, -2.84831, -1.96257, 2.69751, 4.38702, -0.35046]);
}
