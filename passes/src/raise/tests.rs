//! What raise makes of whole networks, compared with them.

use super::raise;
use crate::context::Context;
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::op::DenseOp;
use snnc_ir::text::parse_filled;
use snnc_ir::{Graph, Op};

fn outputs(graph: &Graph, tokens: &[u32]) -> Vec<f64> {
    let evaluator = Evaluator::<f64>::new(graph);
    let done = evaluator.run(tokens, &mut Memory::new(graph)).expect("it runs");
    match &evaluator.get(&done, graph.outputs[0].1).content {
        Content::Real(data) => data.clone(),
        Content::Int(_) | Content::Train(_) => panic!("numbers are wanted"),
    }
}

/// Four heads of queries of which every other one reads the same keys: heads that share keys are put beside each other, in the
/// queries and in the projection behind them.
#[test]
fn heads_that_share_keys_need_not_stand_together() {
    let text = "snnc 3 imported context=8
        weight @queries : f32[4,8] = fill(seed=1)
        weight @keys : f32[4,4] = fill(seed=2)
        weight @values : f32[4,4] = fill(seed=3)
        weight @low : f32[] = [-10000]
        weight @w : f32[8,3] = fill(seed=9)
        %0 = tokens : i32[tokens]
        %1 = embed(%0, @queries) : f32[tokens,8]
        %2 = embed(%0, @keys) : f32[tokens,4]
        %3 = embed(%0, @values) : f32[tokens,4]
        %4 = reshape[tokens,4,2](%1) : f32[tokens,4,2]
        %5 = transpose[1, 0, 2](%4) : f32[4,tokens,2]
        %6 = reshape[tokens,2,2](%2) : f32[tokens,2,2]
        %7 = transpose[1, 0, 2](%6) : f32[2,tokens,2]
        %8 = reshape[tokens,2,2](%3) : f32[tokens,2,2]
        %9 = transpose[1, 0, 2](%8) : f32[2,tokens,2]
        %10 = concat[axis=0](%7, %7) : f32[4,tokens,2]
        %11 = concat[axis=0](%9, %9) : f32[4,tokens,2]
        %12 = transpose[0, 2, 1](%10) : f32[4,2,tokens]
        %13 = matmul(%5, %12) : f32[4,tokens,tokens]
        %14 = causal_mask[1.0,0.0] : f32[tokens,tokens]
        %15 = where(%14, %13, @low) : f32[4,tokens,tokens]
        %16 = softmax(%15) : f32[4,tokens,tokens]
        %17 = matmul(%16, %11) : f32[4,tokens,2]
        %18 = transpose[1, 0, 2](%17) : f32[tokens,4,2]
        %19 = reshape[tokens,8](%18) : f32[tokens,8]
        %20 = matmul(%19, @w) : f32[tokens,3]
        output y = %20";
    let graph = parse_filled(text, &|name, _, _| Err(format!("no rule for {name}"))).expect("a program").graph;
    let raised = raise(&graph, &Context::default()).expect("a decoder");
    let is_grouped =
        |op: &Op| matches!(op, Op::Dense(DenseOp::Attention { heads, .. }) if (heads.query, heads.kv) == (4, 2));
    assert!(raised.nodes.iter().any(|node| is_grouped(&node.op)), "{}", snnc_ir::text::print(&raised));
    let tokens = [0, 3, 1, 2, 2];
    let (theirs, ours) = (outputs(&graph, &tokens), outputs(&raised, &tokens));
    let far = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(theirs.len() == ours.len() && far < 1e-6, "{far}");
}
