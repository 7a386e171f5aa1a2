//! The energy estimate: counts equal what engines met, by hand and by meter; what is missing or silent is said, not saved.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use snnc::convert::{BUILT_IN_TEXT, ConvertOptions, Sample, convert};
use snnc::energy::measure::{MeasuredWindows, expected};
use snnc::energy::{Block, Estimate, Phase, PriceList, PricedItem, Setting, estimate, measure};
use snnc::files::{self, DenseModel, Model};
use snnc::tokens::Tokens;
use snnc_examples::gpt2::{Activation, Gpt2Config};
use snnc_examples::llama::LlamaConfig;
use snnc_ir::membrane::Membrane;
use snnc_ir::op::{DenseOp, LeafOp, LevelOp, Pairs, SpikeOp};
use snnc_ir::ssa::Output;
use snnc_ir::{Builder, Code, Curve, Graph, Op, Ssa, Stage, Tensor};
use snnc_passes::collapse::{collapse, depends_on_order};
use snnc_passes::cost::{Activity, Form, Number, Operation, Part, Rate, Sharing, Tally, Traffic, costs};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations, Thresholds};
use snnc_runtime::{Engine, Options, Program, Rows, Session};
use snnc_tests::{converted, from_tensor, ids, imported, llama, options, shared, spiking};
use std::sync::Arc;

const TINY: Gpt2Config = Gpt2Config { width: 24, heads: 3, vocabulary: 70, context: 32, ..Gpt2Config::TINY };
const F32: Form = Form::Dense(Number::F32);

fn ran(graph: &Graph, options: Options, ids: &[u32]) -> Activity {
    let program = Arc::new(Program::new(Arc::new(graph.clone()), &options).unwrap());
    let mut session = Session::new(program).unwrap();
    session.forward(ids, Rows::All).unwrap();
    Activity { tokens: ids.len() as u64, events: session.events().to_vec() }
}

fn setting(context: u64) -> Setting {
    Setting { context, batch: 1, span: 128 }
}

/// What `energy --json` prints.
fn data(estimate: &Estimate) -> serde_json::Value {
    serde_json::to_value(estimate.json()).unwrap()
}

/// The whole network's counts in every form.
fn tallies(estimate: &Estimate) -> Vec<Tally> {
    Form::ALL.iter().map(|&form| estimate.counts(Phase::Prefill, form).sum(Block::Total)).collect()
}

/// What the cost pass makes of types and rates is what engines met, operation by operation: a synapse counts what it reads, the
/// pass what neurons emitted. All forms and engines give the same counts and the same joules, to the last bit.
fn check(what: &str, graph: &Graph, vocabulary: usize) {
    let ids = ids(19, vocabulary);
    let mut forms = vec![graph.clone()];
    if !depends_on_order(graph) {
        forms.push(collapse(graph).unwrap());
    }
    let mut seen: Option<(Vec<Tally>, Vec<u64>)> = None;
    for graph in &forms {
        for engine in [Engine::Interpreter, Engine::Jit] {
            let activity = ran(graph, options(engine), &ids);
            check_nodes(what, graph, &activity);
            let estimate = estimate(graph, &activity, setting(19), PriceList::built_in());
            let joules = estimate.lists.iter().flat_map(|list| {
                let price =
                    |form| estimate.counts(Phase::Prefill, form).price(Block::Total, list).partial_pj().to_bits();
                Form::ALL.map(price)
            });
            let got = (tallies(&estimate), joules.collect::<Vec<u64>>());
            let want = seen.get_or_insert_with(|| got.clone());
            assert!(got == *want, "{what}: {engine:?} of a {} program", graph.stage.name());
        }
    }
}

fn check_nodes(what: &str, graph: &Graph, activity: &Activity) {
    let mut synapses = 0;
    for cost in costs(graph, activity, Form::Stepped, Sharing { span: 128, batch: 1 }) {
        let (node, events) = (graph.node(cost.node), activity.events[cost.node.index()]);
        let accumulates = cost.tally.of(Operation::Accumulate);
        let place = format!("{what}: {} of {}", cost.place.part.name(), graph.origin(cost.node));
        match node.op {
            Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse) => {
                assert_eq!(accumulates, events.additions, "{place}");
                synapses += events.additions;
            }
            Op::Level(LevelOp::Ssa { heads, variant: Ssa::Ttfs { .. } | Ssa::TopK { .. } }) => {
                let width = node.ty.shape().width().unwrap() as u64 / u64::from(heads.query);
                match cost.place.part {
                    Part::Scores => assert_eq!(accumulates, events.score_additions, "{place}"),
                    Part::Values => assert_eq!(accumulates, events.value_keys * width, "{place}"),
                    _ => assert_eq!(accumulates, 0, "{place}"),
                }
            }
            Op::Level(LevelOp::Ssa { variant: Ssa::Coincidence { .. } | Ssa::Lif { .. }, .. })
                if cost.place.part == Part::Scores =>
            {
                assert_eq!(cost.tally.by_coincidence().of(Operation::Accumulate), events.score_additions, "{place}");
                assert_eq!(accumulates, events.score_pairs, "{place}");
            }
            Op::Level(LevelOp::Ssa { .. }) => {}
            Op::Spike(SpikeOp::Integrate { .. }) => {
                assert_eq!(cost.tally.of(Operation::NeuronReset), events.spikes, "{place}");
                assert_eq!(accumulates, 0, "{place}");
            }
            _ => assert_eq!(accumulates, 0, "{place}"),
        }
    }
    assert!(synapses > 0, "{what}: spikes drive something");
}

#[test]
fn counts_are_the_meters() {
    for (code, steps) in [(Code::Binary, 1), (Code::Binary, 7), (Code::Binary, 9), (Code::Unary, 5)] {
        check(&format!("{code:?} {steps}"), &spiking(imported(&TINY), Levels { code, steps }), TINY.vocabulary);
    }
    let odd = Gpt2Config { width: 33, heads: 1, layers: 1, vocabulary: 71, ..TINY };
    check("odd", &spiking(imported(&odd), Levels::default()), odd.vocabulary);
    let token = QuantOptions { thresholds: Thresholds::Token, ..QuantOptions::uniform(Levels::default()) };
    check("by token", &converted(imported(&TINY), token), TINY.vocabulary);
    let overrides = vec![("h.1.mlp.in".to_string(), Override::Dense), ("q".to_string(), Override::Steps(9))];
    check(
        "dense sites",
        &converted(imported(&TINY), QuantOptions { overrides, ..QuantOptions::default() }),
        TINY.vocabulary,
    );
}

/// Time-stepped neurons of every kind, signed and rectified.
#[test]
fn counts_of_every_neuron_are_the_meters() {
    for membrane in Membrane::all() {
        for (activation, width, steps) in [(Activation::Relu, 33, 6), (Activation::GeluTanh, 32, 9)] {
            let levels = QuantOptions::uniform(Levels { code: Code::Unary, steps });
            let options = QuantOptions { membrane: Some(membrane), ..levels };
            let config = Gpt2Config { activation, width, heads: 1, layers: 1, ..TINY };
            check(membrane.name(), &converted(imported(&config), options), config.vocabulary);
        }
    }
}

/// Attention of every kind; where pairs of trains meet, both ways of counting them.
#[test]
fn counts_of_every_attention_are_the_meters() {
    let kinds = [
        Ssa::TopK { phases: 8, keys: 4 },
        Ssa::Coincidence { squared: true },
        Ssa::Coincidence { squared: false },
        Ssa::Linear { guard: 8 },
        Ssa::Lif { output: Output::Mean },
        Ssa::Lif { output: Output::Spikes },
    ];
    for kind in kinds {
        let quant_options = QuantOptions { attention: Some(kind), ..QuantOptions::default() };
        check(&format!("{kind:?}"), &converted(imported(&TINY), quant_options), TINY.vocabulary);
    }
}

/// Decoders of the Llama kind: gates, rotations, norms of heads, heads that share keys, windows.
#[test]
fn counts_of_every_part_are_the_meters() {
    const LLAMA: LlamaConfig = LlamaConfig { layers: 1, vocabulary: 70, context: 32, ..LlamaConfig::TINY };
    let configs = [
        ("llama", LLAMA),
        ("norms of heads", LlamaConfig { qk_norm: true, bias: true, turned: 6, curve: Curve::GeluTanh, ..LLAMA }),
        ("one head of keys", LlamaConfig { kv_heads: 1, gated: false, post_norm: true, turned: 0, ..LLAMA }),
        ("a window", LlamaConfig { window: Some(5), pairs: Pairs::Interleaved, ..LLAMA }),
    ];
    let (ttfs, topk) = (Ssa::Ttfs { phases: 8 }, Ssa::TopK { phases: 8, keys: 4 });
    let features = [Ssa::Coincidence { squared: true }, Ssa::Linear { guard: 8 }, Ssa::Lif { output: Output::Mean }];
    for (what, config) in configs {
        let kinds = [ttfs, topk].into_iter().chain(features.into_iter().filter(|_| config.window.is_none()));
        for kind in kinds {
            let quant_options = QuantOptions { attention: Some(kind), ..QuantOptions::default() };
            check(&format!("{what}, {kind:?}"), &from_tensor(llama(&config), quant_options), config.vocabulary);
        }
    }
}

/// What one op of each new kind does, counted by hand.
#[test]
fn parts_are_counted_by_hand() {
    // 5 tokens of 4 heads of 12 channels, 6 of which are turned, and 2 heads of keys; gates 80 wide; a window of 3.
    let config = LlamaConfig {
        layers: 1,
        vocabulary: 70,
        context: 32,
        turned: 6,
        qk_norm: true,
        window: Some(3),
        ..LlamaConfig::TINY
    };
    let plain = QuantOptions { rotate: Rotate::These(Rotations::default()), ..QuantOptions::default() };
    let graph = collapse(&from_tensor(llama(&config), plain)).unwrap();
    let activity = ran(&graph, options(Engine::Jit), &ids(5, config.vocabulary));
    let all = |form: Form, op: &dyn Fn(Op) -> bool| {
        let mut sum = Tally::default();
        let costs = costs(&graph, &activity, form, Sharing { span: 128, batch: 1 });
        costs.iter().filter(|cost| op(graph.node(cost.node).op)).for_each(|cost| sum += &cost.tally);
        sum
    };
    let rotary = all(Form::Collapsed, &|op| matches!(op, Op::Dense(DenseOp::Rotary { .. })));
    // Four products and two sums for each of 3 pairs of 4 + 2 heads.
    assert_eq!([rotary.of(Operation::MulF32), rotary.of(Operation::AddF32)], [5 * 6 * 3 * 4, 5 * 6 * 3 * 2]);
    let is_gated = |op: Op| matches!(op, Op::Level(LevelOp::GatedQuant { .. }));
    // Besides the table's product: a map of the gate, one of what it multiplies, and their product.
    let gates = all(Form::Collapsed, &is_gated);
    let numbers = 5 * 80;
    assert_eq!(gates.of(Operation::NeuronMul), (1 + 2 + 1) * numbers);
    assert_eq!(gates.of(Operation::NeuronAdd), (3 + 2) * numbers);
    // The dense network has no map, and no bias here.
    assert_eq!(all(F32, &is_gated).of(Operation::MulF32), (1 + 1) * numbers);
    // Of 5 tokens the first meets 1 key, the second 2, the others 3.
    let is_ssa = |op: Op| matches!(op, Op::Level(LevelOp::Ssa { .. }));
    let keys = 1 + 2 + 3 * 3;
    let attention = graph.iter().find(|(_, node)| is_ssa(node.op)).unwrap().0;
    assert_eq!(activity.events[attention.index()].keys, keys);
    assert_eq!(all(F32, &is_ssa).macs(), 2 * keys * 48, "scores and values of all heads of queries");
    // Keys and values of two heads, of no more tokens than the window holds: a byte for each level.
    let state = all(Form::Collapsed, &is_ssa).traffic.into_keys().filter(|(traffic, _)| *traffic == Traffic::State);
    assert_eq!(state.map(|(_, bytes)| bytes).collect::<Vec<u64>>(), [3 * 24]);
    let norms = all(Form::Collapsed, &|op| matches!(op, Op::Dense(DenseOp::RmsNorm { .. })));
    // Two of the stream, the last one, and one for each head of queries and keys.
    assert_eq!(norms.of(Operation::SqrtF32), 5 * (3 + 4 + 2));
}

/// Of a pass over the last row alone, only what is run counts.
#[test]
fn rows_that_nobody_wants_are_not_counted() {
    let graph = collapse(&spiking(imported(&TINY), Levels::default())).unwrap();
    let additions = |engine| {
        let program = Arc::new(Program::new(Arc::new(graph.clone()), &options(engine)).unwrap());
        let mut session = Session::new(program).unwrap();
        session.forward(&ids(9, TINY.vocabulary), Rows::Last).unwrap();
        session.events().iter().map(|events| events.additions).collect::<Vec<u64>>()
    };
    assert_eq!(additions(Engine::Interpreter), additions(Engine::Jit));
}

/// Splitting a projection over several products does not make the dense network larger.
#[test]
fn split_projections_are_one_of_the_dense_network() {
    let plain = Gpt2Config { width: 48, ..TINY };
    let outliers = Gpt2Config { outliers: 2, ..plain };
    let macs = |graph: &Graph| {
        let activity = ran(graph, options(Engine::Jit), &ids(7, plain.vocabulary));
        estimate(graph, &activity, setting(7), Vec::new()).counts(Phase::Prefill, F32).sum(Block::Total).macs()
    };
    let want = macs(&spiking(imported(&plain), Levels::default()));
    for thresholds in [Thresholds::Fixed, Thresholds::Token] {
        let quant_options = QuantOptions { thresholds, ..QuantOptions::uniform(Levels::default()) };
        assert_eq!(macs(&converted(imported(&outliers), quant_options)), want, "{thresholds:?}");
    }
}

/// The example of `docs/energy.md`: three inputs, two neurons, two outputs, three timesteps, one token.
fn example() -> Graph {
    let mut b = Builder::new(Stage::Spiking, 4);
    let f32 = |b: &mut Builder, name: &str, sizes: &[usize], data: &[f32]| {
        b.weight(name, Arc::new(Tensor::f32(sizes, data.to_vec())))
    };
    let i8 = |b: &mut Builder, name: &str, sizes: &[usize], data: &[i8]| {
        b.weight(name, Arc::new(Tensor::i8(sizes, data.to_vec())))
    };
    let fire = Op::Spike(SpikeOp::Fire { code: Code::Binary, steps: 3, curve: Curve::Identity });
    let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "").unwrap();
    let table = f32(&mut b, "table", &[1, 3], &[5.0, -2.0, 0.0]);
    let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "").unwrap();
    let (gain, offset) = (f32(&mut b, "in.gain", &[3], &[1.0, 1.0, 1.0]), f32(&mut b, "in.offset", &[3], &[0.0; 3]));
    let spikes = b.add(fire, &[x, gain, offset], "").unwrap();
    let w = i8(&mut b, "first", &[3, 2], &[1, -1, 2, 0, 3, 3]);
    let current = b.add(Op::Spike(SpikeOp::Synapse), &[spikes, w], "").unwrap();
    let sums = b.add(Op::Spike(SpikeOp::Decode), &[current], "").unwrap();
    let (gain, offset) = (f32(&mut b, "hidden.gain", &[2], &[0.5, 0.5]), f32(&mut b, "hidden.offset", &[2], &[0.0; 2]));
    let spikes = b.add(fire, &[sums, gain, offset], "").unwrap();
    let w = i8(&mut b, "second", &[2, 2], &[4, 1, -1, 2]);
    let current = b.add(Op::Spike(SpikeOp::Synapse), &[spikes, w], "").unwrap();
    let sums = b.add(Op::Spike(SpikeOp::Decode), &[current], "").unwrap();
    let (gain, offset) = (f32(&mut b, "scale", &[2], &[0.25, 0.25]), f32(&mut b, "bias", &[2], &[1.0, 0.0]));
    let logits = b.add(Op::Level(LevelOp::ScaleShift), &[sums, gain, offset], "").unwrap();
    b.finish(vec![("logits".into(), logits)])
}

#[test]
fn the_example_of_the_documentation() {
    let graph = example();
    let activity = ran(&graph, options(Engine::Interpreter), &[0]);
    let lists = ["paper45", "int45", "horowitz45"].map(|name| PriceList::named(name).unwrap());
    let estimate = estimate(&graph, &activity, setting(1), lists.to_vec());
    let stepped = estimate.counts(Phase::Prefill, Form::Stepped).sum(Block::Total);
    let counts = [
        (Operation::Accumulate, 12),
        (Operation::Shift, 8),
        (Operation::Address, 13),
        (Operation::Message, 6),
        (Operation::NeuronMul, 5),
        (Operation::NeuronAdd, 5),
        (Operation::NeuronCompare, 15),
        (Operation::NeuronReset, 6),
        (Operation::NeuronActive, 6),
        (Operation::NeuronIdle, 9),
        (Operation::MulF32, 2),
        (Operation::AddF32, 2),
    ];
    for operation in Operation::ALL {
        let want = counts.iter().find(|(other, _)| *other == operation).map_or(0, |(_, count)| *count);
        assert_eq!(stepped.of(operation), want, "{}", operation.name());
    }
    for (traffic, bytes) in [(Traffic::Weights, 24), (Traffic::Membranes, 216), (Traffic::Spikes, 6)] {
        assert_eq!(stepped.bytes(traffic), bytes, "{}", traffic.name());
    }
    let total = |list: usize, form| {
        let pj = estimate.counts(Phase::Prefill, form).price(Block::Total, &lists[list]).pj().unwrap();
        (pj * 1e6).round() / 1e6
    };
    assert_eq!((total(0, F32), total(0, Form::Stepped)), (46.0, 10.8));
    assert_eq!((total(1, F32), total(1, Form::Stepped)), (46.0, 1.2));
    assert_eq!(total(2, Form::Stepped), 345.34);
    let docs = include_str!("../docs/energy.md");
    for figure in ["46.0", "10.8", "1.2", "345.34"] {
        assert!(docs.contains(figure), "docs/energy.md says {figure}");
    }
}

/// A layer that never fires drives nothing. That is a defect, and no saving is claimed where it is heard.
#[test]
fn a_silent_layer_is_a_defect_and_no_saving() {
    let mut graph = spiking(imported(&TINY), Levels::default());
    for weight in graph.weights.iter_mut().filter(|weight| weight.name.starts_with("h.0.attn.q.")) {
        let zeros = vec![0.0; weight.tensor.sizes().iter().product()];
        if weight.tensor.as_f32().is_some() {
            weight.tensor = Arc::new(Tensor::f32(weight.tensor.sizes(), zeros));
        }
    }
    let activity = ran(&graph, options(Engine::Jit), &ids(19, TINY.vocabulary));
    let estimate = estimate(&graph, &activity, setting(19), PriceList::built_in());
    assert!(estimate.defects.iter().all(|(name, _)| name == "h.0.attention.q"), "{:?}", estimate.defects);
    let list = estimate.lists[0].clone();
    for block in Block::NAMED {
        assert_eq!(
            estimate.compare(block, &list, Phase::Prefill, F32, Form::Collapsed).saving(),
            None,
            "{}",
            block.name()
        );
    }
    let json = data(&estimate);
    assert_eq!(json["defects"][0]["layer"], "h.0.attention.q");
    assert!(json["attention_block"]["paper45"]["saving"].is_null());
    assert!(json["attention_block"]["paper45"]["silent"].as_bool().unwrap());
    let whole = spiking(imported(&TINY), Levels::default());
    let activity = ran(&whole, options(Engine::Jit), &ids(19, TINY.vocabulary));
    let estimate = snnc::energy::estimate(&whole, &activity, setting(19), PriceList::built_in());
    assert!(estimate.defects.is_empty() && data(&estimate)["attention_block"]["paper45"]["saving"].is_f64());
}

/// What has no price leaves no total; what is left out says why.
#[test]
fn a_missing_price_is_never_zero() {
    let graph = spiking(imported(&TINY), Levels::default());
    let activity = ran(&graph, options(Engine::Jit), &ids(19, TINY.vocabulary));
    let lists = PriceList::built_in();
    let estimate = estimate(&graph, &activity, setting(19), lists.clone());
    let has_total: Vec<&str> = lists
        .iter()
        .filter(|list| estimate.counts(Phase::Prefill, Form::Collapsed).price(Block::Total, list).pj().is_some())
        .map(|list| list.name.as_str())
        .collect();
    assert_eq!(has_total, ["paper45", "int45", "horowitz45", "horowitz45-sram", "lemaire", "cpu"]);
    let mine = r#"
        name = "mine"
        about = "two prices"
        [operations]
        accumulate = { pj = 0.5, node = "22 nm", source = "a measurement", grade = "measured" }
        [[left_out]]
        items = ["weights"]
        why = "weights are wires"
    "#;
    let list = PriceList::parse(mine, "mine.toml").unwrap();
    let priced = estimate.counts(Phase::Prefill, Form::Collapsed).price(Block::Total, &list);
    assert_eq!(priced.pj(), None);
    assert!(priced.partial_pj() > 0.0);
    assert!(priced.unpriced_names().contains(&"neuron_mul") && !priced.unpriced_names().contains(&"weights"));
    let json = data(&snnc::energy::estimate(&graph, &activity, setting(19), vec![list]));
    assert!(json["total"]["mine"]["spiking_pj"].is_null() && json["total"]["mine"]["saving"].is_null());
    assert!(json["total"]["mine"]["spiking_partial_pj"].as_f64().unwrap() > 0.0);
}

#[test]
fn wrong_price_lists_name_the_place() {
    let price = r#"{ pj = 1, node = "n", source = "s", grade = "assumed" }"#;
    for (text, wanted) in [
        ("name = \"x\"".to_string(), "about"),
        ("name = \"x\"\nabout = \"y\"\nbase = \"nothing\"".into(), "nothing"),
        (format!("name = \"x\"\nabout = \"y\"\n[operations]\nmultiply = {price}"), "multiply"),
        ("name = \"x\"\nabout = \"y\"\n[operations]\naccumulate = { pj = 1 }".into(), "accumulate"),
        (
            format!("name = \"x\"\nabout = \"y\"\n[operations]\naccumulate = {}", price.replace("pj = 1", "pj = -1")),
            "-1",
        ),
        (
            format!("name = \"x\"\nabout = \"y\"\n[operations]\naccumulate = {}", price.replace("\"s\"", "\" \"")),
            "source",
        ),
        ("name = \"x\"\nabout = \"y\"\n[[left_out]]\nitems = [\"wires\"]\nwhy = \"\"".into(), "wires"),
        ("name = \"x\"\nabout = \"y\"\n[memory]\naccess_bits = 64\nweights = \"own\"\nlevels = []".into(), "levels"),
    ] {
        let complaints = PriceList::parse(&text, "x.toml").expect_err(&text);
        let words: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert!(words.iter().any(|words| words.contains(wanted) && words.contains("x.toml")), "{words:?}");
    }
    let named = PriceList::named("no-such-list").expect_err("there is none");
    assert!(named[0].to_string().contains("paper45"));
}

/// Every number of a built-in list says where it comes from, and what it leaves out why.
#[test]
fn built_in_lists_have_sources() {
    for list in PriceList::built_in() {
        for price in list.operations.values() {
            assert!(price.source.len() > 10 && !price.node.is_empty(), "{}: {price:?}", list.name);
        }
        assert!(list.left_out.values().all(|why| why.len() > 10), "{}", list.name);
        assert!(
            list.left_out
                .keys()
                .all(|item| !matches!(item, PricedItem::Operation(op) if list.operations.contains_key(op)))
        );
    }
}

/// Expected counts at the rates that were measured are the measured ones, to rounding; decoding meets as many keys as asked.
#[test]
fn expectation_and_measurement_are_one_path() {
    let graph = collapse(&spiking(imported(&TINY), Levels::default())).unwrap();
    let tokens = 24;
    let activity = ran(&graph, options(Engine::Jit), &ids(tokens, TINY.vocabulary));
    let rate = |value: snnc_ir::Value| {
        let neurons = (tokens * graph.ty(value).shape().width().unwrap()) as f64;
        let events = activity.events[value.index()];
        Rate { spikes: events.spikes as f64 / neurons, active: events.active as f64 / neurons }
    };
    let expected = Activity::expected(&graph, tokens as u64, &|_| 13, &rate, 1.0);
    let sum = |activity: &Activity, part: Part| {
        let all = costs(&graph, activity, Form::Stepped, Sharing { span: 128, batch: 1 });
        let mut sum = Tally::default();
        all.iter().filter(|cost| cost.place.part == part).for_each(|cost| sum += &cost.tally);
        sum
    };
    for part in [Part::Projections, Part::Mlp, Part::Head, Part::Norm, Part::Rest] {
        assert_eq!(sum(&expected, part), sum(&activity, part), "{}", part.name());
    }
    let decoding = activity.decoding(&graph, 100);
    for (value, _) in graph.iter().filter(|(_, node)| node.op.has_state()) {
        assert_eq!(decoding.events[value.index()].keys, 100 * tokens as u64);
    }
    assert_eq!(sum(&decoding, Part::Mlp), sum(&activity, Part::Mlp));
}

/// Weights are read once a pass where the plan holds them, and again for every timestep where it does not.
#[test]
fn reuse_over_timesteps_and_batches() {
    let graph = collapse(&spiking(imported(&TINY), Levels::default())).unwrap();
    let activity = ran(&graph, options(Engine::Jit), &ids(24, TINY.vocabulary));
    let weights = |form, batch| {
        let setting = Setting { context: 24, batch, span: 128 };
        let estimate = estimate(&graph, &activity, setting, Vec::new());
        Phase::ALL.map(|phase| estimate.counts(phase, form).sum(Block::Total).bytes(Traffic::Weights))
    };
    let [stepped, collapsed] = [Form::Stepped, Form::Collapsed].map(|form| weights(form, 1));
    assert!(
        stepped.iter().zip(collapsed).all(|(stepped, collapsed)| *stepped > 2 * collapsed),
        "{stepped:?} {collapsed:?}"
    );
    assert!(collapsed[1] > 4 * collapsed[0], "decoding reads all weights for a token, prefill for many");
    assert!(weights(Form::Collapsed, 8)[1] < collapsed[1] / 4, "sequences of a batch share them");
}

/// What the attention block saves on the real model at 128 tokens, by the convention of the literature.
#[test]
fn the_attention_block_of_the_real_model() {
    let Some(folder) = shared("models/wt2-gelu") else { return };
    let Some(data) = shared("data/wikitext-2") else { return };
    let Ok(Model::Dense(DenseModel::Onnx(import))) = files::load(&folder.join("model.onnx")) else {
        panic!("the model is an ONNX file")
    };
    let json = std::fs::read(folder.join("tokenizer.json")).unwrap();
    let tokens = Tokens::new(&json, "tokenizer.json").unwrap();
    let text = std::fs::read_to_string(data.join("valid.txt")).unwrap();
    let ids = tokens.document(&text[..text.floor_char_boundary(60_000)]).unwrap();
    for (steps, least) in [(8, 0.39), (7, 0.47), (6, 0.57), (4, 0.70), (3, 0.77)] {
        let quant_options = QuantOptions::uniform(Levels { code: Code::Binary, steps });
        let recipe = ConvertOptions { quant: quant_options, calibration_tokens: 4096, threads: 2 };
        let sample = Sample::Text { name: "built in".into(), text: BUILT_IN_TEXT.into(), tokens: &tokens };
        let done = convert(import.graph.clone(), false, &sample, &recipe, &mut |_, _, _| {}).unwrap();
        let program =
            Program::new(Arc::new(collapse(&done.graph).unwrap()), &Options::default()).map(Arc::new).unwrap();
        let (activity, _) = measure(&program, &ids, MeasuredWindows { length: 128, count: 8 }, 2).unwrap();
        let estimate = estimate(program.graph(), &activity, setting(128), PriceList::built_in());
        let saved = |name: &str, block| {
            let list = PriceList::named(name).unwrap();
            estimate.compare(block, &list, Phase::Prefill, F32, Form::Collapsed).saving().unwrap()
        };
        let block = saved("paper45", Block::Attention);
        assert!(block >= least, "T = {steps}: {block} of the attention block");
        assert!(saved("paper45", Block::Core) > block, "T = {steps}: values of keys that do not fire are not read");
        assert!(saved("int45", Block::Attention) >= 0.93, "T = {steps}: integer additions against f32");
        let again = measure(&program, &ids, MeasuredWindows { length: 128, count: 8 }, 1).unwrap().0;
        assert_eq!(again, activity, "two runs");
    }
}

/// Without a text every layer has the rate of its calibration, whatever its thresholds are.
#[test]
fn every_layer_keeps_its_calibrated_rate() {
    for thresholds in [Thresholds::Fixed, Thresholds::Token] {
        for attention in [Ssa::Ttfs { phases: 8 }, Ssa::TopK { phases: 8, keys: 4 }] {
            let mut quant_options = QuantOptions { thresholds, ..QuantOptions::default() };
            quant_options.attention = Some(attention);
            let recipe = ConvertOptions { quant: quant_options, calibration_tokens: 1024, threads: 2 };
            let done = convert(imported(&TINY), false, &Sample::SeededIds, &recipe, &mut |_, _, _| {}).unwrap();
            let activity = expected(&done.graph, Some(&done.section), None, 32);
            assert!(activity.is_ok(), "{thresholds:?}, {attention:?}: {activity:?}");
        }
    }
}
