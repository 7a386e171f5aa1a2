//! Small graphs, node by node, and what they become.

use super::*;
use crate::model::{Attribute, OnnxGraph};
use indexmap::IndexMap;
use snnc_ir::text;

/// A network in a few lines: `out = Op(in, in)`, with the attributes `name=integer`.
fn model(lines: &str, initializers: &[(&str, OnnxArray)]) -> OnnxModel {
    let node = |line: &str| {
        let (outputs, call) = line.split_once(" = ").expect("outputs");
        let (op, rest) = call.split_once('(').expect("inputs");
        let (inputs, attributes) = rest.split_once(')').expect("a bracket");
        let names = |text: &str| text.split(", ").filter(|name| !name.is_empty()).map(str::to_string).collect();
        let attribute = |pair: &str| {
            let (name, value) = pair.split_once('=').expect("a value");
            let ints: Option<Vec<i64>> = value.split(',').map(|x| x.parse().ok()).collect();
            let value = match ints.as_deref() {
                Some([int]) if name != "axes" => Attribute::Int(*int),
                Some(ints) => Attribute::Ints(ints.to_vec()),
                None => Attribute::Text(value.into()),
            };
            (name.to_string(), value)
        };
        OnnxNode {
            op_type: op.to_string(),
            inputs: names(inputs),
            outputs: names(outputs),
            attributes: attributes.split_whitespace().map(attribute).collect(),
            ..OnnxNode::default()
        }
    };
    let port = |name: &str, elem, sizes: &[Option<usize>]| Port { name: name.into(), elem, sizes: sizes.to_vec() };
    OnnxModel {
        opsets: IndexMap::from([(String::new(), 17)]),
        producer: String::new(),
        graph: OnnxGraph {
            inputs: vec![
                port("input_ids", Some(OnnxElem::I64), &[None, None]),
                port("attention_mask", Some(OnnxElem::I64), &[None, None]),
            ],
            outputs: vec![port("y", Some(OnnxElem::F32), &[])],
            nodes: lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(node).collect(),
            initializers: initializers
                .iter()
                .map(|(name, array)| (name.to_string(), Arc::new(array.clone())))
                .collect(),
        },
        bytes: 0,
        hash: 0,
    }
}

/// Rows of the position table.
const CONTEXT: usize = 16;

fn constants() -> Vec<(&'static str, OnnxArray)> {
    let int = |x: i64| OnnxArray::i64(&[], vec![x]);
    let ints = |x: &[i64]| OnnxArray::vector(x.to_vec());
    let float = |x: f32| OnnxArray::f32(&[], vec![x]);
    let ramp = |n: usize| (0..n).map(|i| i as f32).collect::<Vec<f32>>();
    let lower = |n: usize| (0..n * n).map(|i| i % n <= i / n).collect();
    let window = |n: usize| (0..n * n).map(|i| i % n <= i / n && i / n - i % n < 10).collect();
    vec![
        ("zero", int(0)),
        ("one", int(1)),
        ("axis0", ints(&[0])),
        ("axis1", ints(&[1])),
        ("axis3", ints(&[3])),
        ("axis2", ints(&[2])),
        ("start", ints(&[0])),
        ("heads", ints(&[0, 0, 2, 2])),
        ("rows", ints(&[0, 0, 4])),
        ("wte", OnnxArray::f32(&[4, 4], ramp(16))),
        ("wide", OnnxArray::f32(&[6, 4], ramp(24))),
        ("wpe", OnnxArray::f32(&[CONTEXT, 4], ramp(CONTEXT * 4))),
        ("huge", ints(&[1 << 40])),
        ("lower", OnnxArray::bool(&[1, 1, CONTEXT, CONTEXT], lower(CONTEXT))),
        ("window", OnnxArray::bool(&[1, 1, CONTEXT, CONTEXT], window(CONTEXT))),
        ("lowest", float(f32::NEG_INFINITY)),
        ("tokens_heads", ints(&[-1, 2, 2])),
        ("tokens_batch", ints(&[-1, 1, 4])),
        ("by_head", OnnxArray::f32(&[4, 2, 2], ramp(16))),
        ("back_by_head", OnnxArray::f32(&[2, 2, 4], ramp(16))),
        ("narrow0", OnnxArray::f32(&[4, 2], ramp(8))),
        ("narrow1", OnnxArray::f32(&[4, 2], ramp(8))),
        ("minus_one", OnnxArray::i64(&[1, 1], vec![-1])),
        ("last_of_batch", OnnxArray::i64(&[1, 1, 2], vec![0, -1])),
        ("two_rows", int(2)),
        ("ones_row", OnnxArray::f32(&[4], vec![1.0; 4])),
        ("zeros", OnnxArray::f32(&[4, 4], vec![0.0; 16])),
        ("b1", ints(&[1])),
        ("eight", ints(&[8])),
        ("h2", ints(&[2])),
        ("w2", ints(&[2])),
        ("w4", ints(&[4])),
        ("triangle", OnnxArray::f32(&[1, 1, 8, 8], (0..64).map(|i| if i % 8 <= i / 8 { 0.0 } else { -1e4 }).collect())),
        ("table", OnnxArray::f32(&[1, 8, 4], ramp(32))),
        ("two", float(2.0)),
    ]
}

const EMBEDDINGS: &str = "
    ids_shape = Shape(input_ids)
    n = Gather(ids_shape, one) axis=0
    range = Range(zero, n, one)
    positions = Unsqueeze(range, axis0)
    tok = Gather(wte, input_ids)
    pos = Gather(wpe, positions)
    x = Add(tok, pos)
";

fn import_lines(lines: &str) -> Result<String, Vec<String>> {
    match import(&model(&format!("{EMBEDDINGS}{lines}"), &constants()), &ImportOptions::default()) {
        Ok(Imported { graph, .. }) => {
            assert_eq!(snnc_ir::verify::verify(&graph), Ok(()));
            let printed = text::print(&graph);
            let code = printed.lines().filter(|line| line.starts_with('%') || line.starts_with("output"));
            Ok(code.map(|line| line.split("//").next().unwrap_or(line).trim_end().to_string() + "\n").collect())
        }
        Err(refused) => Err(refused.diagnostics.iter().map(ToString::to_string).collect()),
    }
}

#[track_caller]
fn check(lines: &str, expected: &str) {
    let text = import_lines(lines).expect("a graph");
    let expected: String =
        expected.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect();
    assert_eq!(text, expected);
}

#[track_caller]
fn refuse(lines: &str, words: &[&str]) {
    let complaints = import_lines(lines).expect_err("complaints");
    assert_eq!(complaints.len(), words.len(), "{complaints:#?}");
    for (complaint, word) in complaints.iter().zip(words) {
        assert!(complaint.contains(word), "{complaint}");
    }
}

#[test]
fn shape_arithmetic_vanishes() {
    check(
        "y = Mul(x, two)",
        "%0 = tokens : i32[tokens]
         %1 = embed(%0, @wte) : f32[tokens,4]
         %2 = positions : i32[tokens]
         %3 = embed(%2, @wpe) : f32[tokens,4]
         %4 = add(%1, %3) : f32[tokens,4]
         %5 = mul(%4, @\"number 2.0\") : f32[tokens,4]
         output logits = %5",
    );
}

#[test]
fn heads_are_reshaped_and_turned_and_masked() {
    let lines = "
        h = Reshape(x, heads)
        q = Transpose(h) perm=0,2,1,3
        k = Transpose(h) perm=0,2,3,1
        s = MatMul(q, k)
        end = Unsqueeze(n, axis0)
        m1 = Slice(lower, start, end, axis2)
        m = Slice(m1, start, end, axis3)
        w = Where(m, s, lowest)
        p = Softmax(w) axis=-1
        a = MatMul(p, q)
        b = Transpose(a) perm=0,2,1,3
        y = Reshape(b, rows)";
    check(
        lines,
        "%0 = tokens : i32[tokens]
         %1 = embed(%0, @wte) : f32[tokens,4]
         %2 = positions : i32[tokens]
         %3 = embed(%2, @wpe) : f32[tokens,4]
         %4 = add(%1, %3) : f32[tokens,4]
         %5 = reshape[tokens,2,2](%4) : f32[tokens,2,2]
         %6 = transpose[1, 0, 2](%5) : f32[2,tokens,2]
         %7 = transpose[1, 2, 0](%5) : f32[2,2,tokens]
         %8 = matmul(%6, %7) : f32[2,tokens,tokens]
         %9 = causal_mask[1.0,0.0] : f32[tokens,tokens]
         %10 = where(%9, %8, @\"number -3.4028235e38\") : f32[2,tokens,tokens]
         %11 = softmax(%10) : f32[2,tokens,tokens]
         %12 = matmul(%11, %6) : f32[2,tokens,2]
         %13 = transpose[1, 0, 2](%12) : f32[tokens,2,2]
         %14 = reshape[tokens,4](%13) : f32[tokens,4]
         output logits = %14",
    );
    let windowed = import_lines(&lines.replace("lower", "window")).expect("a graph");
    assert!(windowed.contains("causal_mask[1.0,0.0,window=10]"), "{windowed}");
}

#[test]
fn a_mask_of_ones_changes_nothing() {
    let masked = "
        f = Cast(attention_mask) to=1
        g = Unsqueeze(f, axis2)
        y = Mul(x, g)";
    let text = import_lines(masked).expect("a graph");
    assert!(text.contains("mul(%4, @\"number 1.0\")"), "{text}");
}

#[test]
fn unsupported_operators_are_said_at_once() {
    let lines = "
        a = LSTM(x)
        b = Conv(a)
        c = Tanh(b)
        d = Conv(c)
        y = Det(d)";
    refuse(lines, &["LSTM", "Conv is not supported here\n  and at 1 other nodes", "Det"]);
}

#[test]
fn what_cannot_be_is_refused() {
    refuse("y = Add(x, nowhere)", &["made by no node before it"]);
    refuse("z = Add(x, x)", &["no node makes it"]);
    refuse("y = Softmax(x) axis=1", &["innermost"]);
    refuse("y = Slice(x, start, one, axis1)", &["depends on the number of tokens"]);
    refuse("y = Gemm(x, x) transB=1", &["a matrix is wanted"]);
    refuse("y = MatMul(x, x)", &["inner sizes"]);
    refuse("y = Identity(wpe)", &["does not depend on the token ids"]);
    refuse("y = Transpose(x) perm=0,2,1", &["should be the logits"]);
}

/// The graph of a file whose ids have these sizes.
fn import_of_size(lines: &str, sizes: [Option<usize>; 2]) -> Result<String, Vec<String>> {
    let mut fixed = model(&format!("{EMBEDDINGS}{lines}"), &constants());
    fixed.graph.inputs[0].sizes = sizes.to_vec();
    let imported = import(&fixed, &ImportOptions::default());
    imported
        .map(|imported| text::print(&imported.graph))
        .map_err(|e| e.diagnostics.iter().map(ToString::to_string).collect())
}

#[test]
fn a_file_of_one_number_of_tokens_has_that_context() {
    let heads = "
        shape = Concat(b1, eight, h2, w2) axis=0
        h = Reshape(x, shape)
        q = Transpose(h) perm=0,2,1,3
        k = Transpose(h) perm=0,2,3,1
        s = MatMul(q, k)
        w = Add(s, triangle)
        p = Softmax(w) axis=-1
        a = MatMul(p, q)
        b = Transpose(a) perm=0,2,1,3
        back = Concat(b1, eight, w4) axis=0
        c = Reshape(b, back)
        y = Add(c, table)";
    let open = import_lines(heads).expect_err("sizes that are not the number of tokens");
    assert!(open[0].contains("cannot become"), "{open:?}");
    let text = import_of_size(heads, [Some(1), Some(8)]).expect("a graph");
    assert!(text.starts_with("snnc 3 imported context=8"), "{text}");
    for part in
        ["reshape[tokens,2,2](%4)", "causal_mask[0.0,-10000.0]", "reshape[tokens,4](", ", @table) : f32[tokens,4]"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_file_of_few_tokens_or_of_another_batch_is_refused() {
    let refused = |sizes, words: &str| {
        let complaints = import_of_size("y = Add(x, x)", sizes).expect_err("complaints");
        assert!(complaints[0].contains(words), "{complaints:?}");
    };
    refused([Some(1), Some(3)], "exactly 3 tokens");
    refused([Some(2), None], "batch of exactly 2");
}

#[test]
fn a_file_without_a_head_gets_the_table_of_tokens() {
    let text = import_lines("t = Gather(wide, input_ids)\n u = Add(t, pos)\n y = Tanh(u)").expect("a graph");
    assert!(text.contains("transpose[1, 0](@wide) : f32[4,6]"), "{text}");
    assert!(text.contains(": f32[tokens,6]\noutput logits"), "{text}");
}

#[test]
fn a_network_without_a_table_of_positions_has_the_context_that_is_asked_for() {
    let model = model("y = Gather(wte, input_ids)", &constants());
    let of = |context| import(&model, &ImportOptions { context, ..ImportOptions::default() }).expect("a graph");
    assert_eq!((of(None).graph.context, of(Some(300)).graph.context), (2048, 300));
    assert!(of(None).context_note.is_some_and(|note| note.contains("no end")) && of(Some(300)).context_note.is_none());
}

#[test]
fn what_asks_for_too_much_is_refused() {
    refuse("a = ConstantOfShape(huge)\n b = Shape(a)\n y = Reshape(x, b)", &["too large"]);
}

#[test]
fn a_batch_behind_the_tokens_is_put_aside() {
    let behind = "
        t = Transpose(x) perm=1,0,2
        u = MatMul(t, wte)
        h = Reshape(u, tokens_heads)
        k = Transpose(h) perm=1,2,0
        q = Transpose(h) perm=1,0,2
        s = MatMul(q, k)
        a = MatMul(s, q)
        b = Transpose(a) perm=1,0,2
        c = Reshape(b, tokens_batch)
        y = Transpose(c) perm=1,0,2";
    check(
        behind,
        "%0 = tokens : i32[tokens]
         %1 = embed(%0, @wte) : f32[tokens,4]
         %2 = positions : i32[tokens]
         %3 = embed(%2, @wpe) : f32[tokens,4]
         %4 = add(%1, %3) : f32[tokens,4]
         %5 = matmul(%4, @wte) : f32[tokens,4]
         %6 = reshape[tokens,2,2](%5) : f32[tokens,2,2]
         %7 = transpose[1, 2, 0](%6) : f32[2,2,tokens]
         %8 = transpose[1, 0, 2](%6) : f32[2,tokens,2]
         %9 = matmul(%8, %7) : f32[2,tokens,tokens]
         %10 = matmul(%9, %8) : f32[2,tokens,2]
         %11 = transpose[1, 0, 2](%10) : f32[tokens,2,2]
         %12 = reshape[tokens,4](%11) : f32[tokens,4]
         output logits = %12",
    );
}

#[test]
fn weights_by_head_are_put_together() {
    let text = import_lines(
        "
        q = Einsum(x, by_head) equation=btw,whd->bthd
        y = Einsum(q, back_by_head) equation=bthd,hdw->btw",
    )
    .expect("a graph");
    for part in [
        "matmul(%4, @by_head.2) : f32[tokens,4]",
        "reshape[tokens,2,2](%5)",
        "reshape[tokens,4](",
        "@back_by_head.2) : f32[tokens,4]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    refuse("y = Einsum(x, by_head) equation=btw,whd->bth", &["is not supported"]);
}

#[test]
fn heads_side_by_side_are_computed_at_once() {
    let heads = "
        q0 = MatMul(x, narrow0)
        q1 = MatMul(x, narrow1)
        k0 = Transpose(q0) perm=0,2,1
        k1 = Transpose(q1) perm=0,2,1
        s0 = MatMul(q0, k0)
        s1 = MatMul(q1, k1)
        a0 = MatMul(s0, q0)
        a1 = MatMul(s1, q1)
        y = Concat(a0, a1) axis=-1";
    let text = import_lines(heads).expect("a graph");
    for part in [
        "matmul(%4, @\"narrow0 and others\") : f32[tokens,4]",
        "transpose[1, 0, 2](%6) : f32[2,tokens,2]",
        ") : f32[2,tokens,tokens]",
        "reshape[tokens,4](",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let unlike = heads.replace("a1 = MatMul(s1, q1)", "a2 = Tanh(q1)\n a1 = MatMul(s1, a2)");
    assert!(import_lines(&unlike).expect("a graph").contains("concat[axis=1]("));
    // A head that is turned is no neighbour; parts of one value are that value.
    let parts = "
        l, r = Split(x) axis=2
        y = Concat(l, r) axis=2";
    assert!(import_lines(parts).expect("a graph").contains("output logits = %4"));
    assert!(import_lines(&parts.replace("Concat(l, r)", "Concat(r, l)")).expect("a graph").contains("concat[axis=1]("));
}

#[test]
fn the_last_token_may_be_taken_by_lists_of_indices() {
    for lines in [
        "t = Transpose(x) perm=1,0,2\n l = GatherND(t, minus_one)\n b = Transpose(l) perm=1,0,2\n y = MatMul(b, wte)",
        "l = GatherND(x, last_of_batch)\n y = MatMul(l, wte)",
        "l = Gather(x, minus_one) axis=1\n y = MatMul(l, wte)",
    ] {
        let text = import_lines(lines).unwrap_or_else(|e| panic!("{lines}: {e:?}"));
        assert!(text.contains("matmul(%4, @wte) : f32[tokens,4]"), "{lines}: {text}");
    }
    refuse("y = GatherND(x, axis0)", &["picks what is not the last token"]);
}

#[test]
fn positions_may_begin_at_any_row() {
    let lines = "
        shifted = Add(positions, two_rows)
        pos2 = Gather(wpe, shifted)
        tok2 = Gather(wte, input_ids)
        y = Add(tok2, pos2)";
    let model = model(&format!("{}{lines}", EMBEDDINGS.replace("x = Add(tok, pos)", "")), &constants());
    let imported = import(&model, &ImportOptions::default()).expect("a graph");
    assert_eq!(imported.graph.context as usize, CONTEXT - 2, "two rows are never read");
    let far = imported.graph.weights.iter().find(|weight| weight.name == "wpe").expect("the table");
    assert_eq!((far.tensor.sizes(), far.tensor.as_f32().expect("floats")[0]), (&[CONTEXT - 2, 4][..], 8.0));
}

#[test]
fn what_is_stretched_by_a_constant_of_equal_elements_is_whole() {
    // A column of means times a row of ones is as wide as the row.
    let text = import_lines("m = ReduceMean(x) axes=-1\n w = Mul(m, ones_row)\n y = Add(w, x)").expect("a graph");
    assert!(text.contains(": f32[4]") || text.contains("mul(%5, @"), "{text}");
    let text = import_lines("y = MatMul(x, zeros)").expect("a graph");
    assert!(text.contains(": f32[tokens,4]\noutput"), "{text}");
}
