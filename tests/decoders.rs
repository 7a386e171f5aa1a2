//! What is said and measured of decoders whose parts GPT-2 does not have: rotary positions, gates, heads that share keys, windows,
//! norms of heads.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc::calibrate::calibrate;
use snnc::calibration::Calibration;
use snnc::convert::{ConvertOptions, Sample, sample_windows, spiking};
use snnc::describe::{HeadSource, Layers, Network};
use snnc::evaluate::{Cut, cut, evaluate};
use snnc::ledger::{Cause, ledger};
use snnc::lints::{LintKind, coverage, lints};
use snnc::program_lints::integrates_first;
use snnc::report::NetworkFacts;
use snnc::rotation::as_calibrated;
use snnc::tune::{Candidate, Goal, Tuner};
use snnc_examples::llama::{LlamaConfig, graph};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::LeafOp;
use snnc_ir::op::Pairs;
use snnc_ir::ssa::{GUARD, Output, Ssa};
use snnc_ir::{Code, Curve, Graph, Op, Tensor};
use snnc_passes::collapse::collapse;
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations, Thresholds};
use snnc_runtime::{Options, Program};
use snnc_tests::{from_tensor, ids, llama};
use std::sync::Arc;

const CONFIG: LlamaConfig = LlamaConfig { layers: 2, ..LlamaConfig::TINY };

const OTHERS: [LlamaConfig; 2] = [
    LlamaConfig { window: Some(8), pairs: Pairs::Interleaved, turned: 6, qk_norm: true, bias: true, ..CONFIG },
    LlamaConfig { turned: 0, kv_heads: 1, gated: false, post_norm: true, tied: false, ..CONFIG },
];

fn converted(tensor: &Graph, quant: QuantOptions) -> (Graph, Calibration, Json) {
    let recipe = ConvertOptions { quant, calibration_tokens: 1024, threads: 2 };
    let done = spiking(tensor.clone(), &Sample::SeededIds, &recipe, &mut |_, _, _| {}).unwrap();
    (done.graph, done.calibration, done.section)
}

/// A line of a description.
fn line(lines: &[(&'static str, String)], name: &str) -> String {
    lines.iter().find(|(known, _)| *known == name).map(|(_, words)| words.clone()).unwrap()
}

#[test]
fn a_network_is_described_by_its_parts() {
    let wanted = [
        (
            CONFIG,
            [
                ("positions", "rotary (half, 12 of 12 channels)"),
                ("norms", "RMSNorm"),
                ("attention", "causal softmax, 4 query heads and 2 key/value heads of 12, scale 0.28867513"),
                ("mlp", "gated by silu, 80 wide"),
            ],
        ),
        (
            OTHERS[0],
            [
                ("positions", "rotary (interleaved, 6 of 12 channels)"),
                ("norms", "RMSNorm; queries and keys normalised"),
                (
                    "attention",
                    "causal softmax, 4 query heads and 2 key/value heads of 12, scale 0.28867513, window of 8 tokens",
                ),
                ("mlp", "gated by silu, 80 wide"),
            ],
        ),
        (
            OTHERS[1],
            [
                ("positions", "none"),
                ("norms", "LayerNorm"),
                ("attention", "causal softmax, 4 query heads and 1 key/value head of 12, scale 0.28867513"),
                ("mlp", "silu, 80 wide"),
            ],
        ),
    ];
    for (config, parts) in wanted {
        let network = Network::of(&graph(&config).unwrap()).unwrap();
        for (name, words) in parts {
            assert_eq!(line(&network.lines(), name), words);
        }
        let json = network.json();
        assert_eq!((json.layers, json.width, json.vocabulary), (2, config.width, config.vocabulary));
        assert_eq!((json.key_value_heads, json.windows), (vec![config.kv_heads as u32; 2], vec![config.window; 2]));
        assert_eq!(json.gated, [config.gated; 2]);
        // The program is described alike, but for its attention.
        let plain = QuantOptions { rotate: Rotate::These(Rotations::default()), ..QuantOptions::default() };
        let program = from_tensor(llama(&config), plain);
        for graph in [collapse(&program).unwrap(), program] {
            let lines = Layers::of(&graph).lines();
            for (name, words) in parts {
                let words = words.replace("causal softmax", "ttfs").replace(", scale 0.28867513", "");
                assert_eq!(line(&lines, name), words, "{}", graph.stage.name());
            }
            let facts = NetworkFacts::of(&graph);
            assert_eq!((facts.layers, facts.width, facts.architecture.len()), (2, config.width, 4));
        }
    }
}

/// The tables of rotations and biases that are not there are no parameters.
#[test]
fn parameters_are_those_that_were_learned() {
    let LlamaConfig { layers, width, heads, kv_heads, head_width, hidden, vocabulary, .. } = CONFIG;
    let block = 2 * width * (heads + kv_heads) * head_width + 3 * width * hidden + 2 * width;
    let network = Network::of(&graph(&CONFIG).unwrap()).unwrap();
    assert_eq!(network.parameters, layers * block + width + vocabulary * width);
    assert_eq!(network.head, HeadSource::Tied);
}

/// Levels of gated sites and of heads that share keys read back exactly, and another network's are refused.
#[test]
fn recorded_choices_read_back() {
    let kinds = [
        Ssa::Ttfs { phases: 8 },
        Ssa::TopK { phases: 8, keys: 4 },
        Ssa::Coincidence { squared: true },
        Ssa::Linear { guard: GUARD },
        Ssa::Lif { output: Output::Spikes },
    ];
    for config in [CONFIG, OTHERS[1]] {
        let tensor = llama(&config);
        for kind in kinds {
            let options = QuantOptions { attention: Some(kind), ..QuantOptions::default() };
            let (_, calibration, section) = converted(&tensor, options);
            let bytes = section.to_string().into_bytes();
            let again = Calibration::read(&bytes, &tensor).unwrap_or_else(|e| panic!("{kind:?}: {e}"));
            assert_eq!(again.quant_plan, calibration.quant_plan, "{kind:?}");
            let equal = llama(&LlamaConfig { kv_heads: 4, ..config });
            assert!(Calibration::read(&bytes, &equal).is_err(), "{kind:?}");
        }
        let options = QuantOptions { thresholds: Thresholds::Heads, ..QuantOptions::default() };
        let (_, calibration, section) = converted(&tensor, options);
        let again = Calibration::read(section.to_string().as_bytes(), &tensor).unwrap();
        assert_eq!(again.quant_plan, calibration.quant_plan, "thresholds of heads");
    }
}

/// The same network, but one number in 41 of its tied table `[vocabulary, width]` is far larger: every token has other large channels, so that
/// no scale of a channel suits.
fn with_far_numbers(config: &LlamaConfig) -> Graph {
    let mut graph = llama(config);
    for weight in &mut graph.weights {
        let (&[_, width], Some(data)) = (weight.tensor.sizes(), weight.tensor.as_f32()) else { continue };
        if width == config.width && weight.name.contains("embed") {
            let factor = |i: usize| if i.is_multiple_of(41) { 10.0 } else { 1.0 };
            let data = data.iter().enumerate().map(|(i, x)| x * factor(i)).collect();
            weight.tensor = Arc::new(Tensor::f32(weight.tensor.sizes(), data));
        }
    }
    graph
}

/// `auto` rotates where levels are then far nearer and nowhere else. What was rotated is kept, and levels are read for the network that is rotated
/// alike.
#[test]
fn a_network_that_gains_by_it_is_rotated() {
    for (tensor, rotates) in [(llama(&CONFIG), false), (with_far_numbers(&CONFIG), true)] {
        let quant = QuantOptions { rotate: Rotate::Auto, ..QuantOptions::default() };
        let recipe = ConvertOptions { quant, calibration_tokens: 1024, threads: 2 };
        let done = spiking(tensor.clone(), &Sample::SeededIds, &recipe, &mut |_, _, _| {}).unwrap();
        let rotations = Rotations { residual: rotates, heads: rotates, hidden: rotates };
        assert_eq!(done.calibration.rotations, rotations);
        assert_eq!(done.rotation.as_ref().map(|record| record.rotated.len()), rotates.then_some(3));
        let section = done.section.to_string().into_bytes();
        let again = as_calibrated(tensor.clone(), &section, &mut |_, _, _| {}).unwrap();
        let read = Calibration::read(&section, &again).unwrap();
        assert_eq!((read.rotations, &read.quant_plan), (rotations, &done.calibration.quant_plan));
        let weights = |graph: &Graph| graph.weights.iter().map(|weight| weight.tensor.clone()).collect::<Vec<_>>();
        assert_eq!(weights(&again) != weights(&tensor), rotates);
        // A table of its own has 8 bits.
        let table = done.graph.nodes.iter().any(|node| match node.op {
            Op::Leaf(LeafOp::Weight(id)) => done.graph.weight(id).name.ends_with(".rows"),
            Op::Leaf(_) | Op::Array(_) | Op::Dense(_) | Op::Level(_) | Op::Spike(_) | Op::Training(_) => false,
        });
        assert_eq!(table, rotates);
    }
}

/// What is asked for and cannot be rotated is refused with its place.
#[test]
fn a_stream_with_gains_is_not_rotated() {
    let tensor = llama(&LlamaConfig { post_norm: true, ..CONFIG });
    let rotate = |rotations| QuantOptions { rotate: Rotate::These(rotations), ..QuantOptions::default() };
    let recipe = |quant| ConvertOptions { quant, calibration_tokens: 64, threads: 2 };
    let residual = recipe(rotate(Rotations { residual: true, heads: false, hidden: false }));
    let told = spiking(tensor.clone(), &Sample::SeededIds, &residual, &mut |_, _, _| {}).unwrap_err().to_string();
    assert!(told.contains("the residual stream cannot be rotated: a gain per channel acts on it"), "{told}");
    let heads = recipe(rotate(Rotations { residual: false, heads: true, hidden: false }));
    let done = spiking(tensor, &Sample::SeededIds, &heads, &mut |_, _, _| {}).unwrap();
    assert!(done.rotation.is_some_and(|record| record.difference <= 1e-4 * record.range));
}

/// Every site has its causes, and together they explain what the program loses.
#[test]
fn the_ledger_explains_what_is_lost() {
    for config in [CONFIG, OTHERS[0]] {
        let tensor = llama(&config);
        let levels = Levels { code: Code::Binary, steps: 4 };
        let (_, calibration, _) = converted(&tensor, QuantOptions::uniform(levels));
        let ids = ids(129, config.vocabulary);
        let cut = cut(128, 64, Cut { length: None, stride: None, windows: 2 });
        let windows: Vec<_> = cut.into_iter().map(|window| window.inputs).collect();
        let found = ledger(&tensor, &calibration, &ids, &windows, 2).unwrap();
        assert_eq!(found.entries.len(), 2 * 8 + 1, "seven sites and a softmax a layer, and the head");
        let gated = found.entries.iter().find(|entry| entry.path == "h.0.mlp.hidden").unwrap();
        let of = |cause: Cause| gated.isolated[cause as usize];
        assert!(of(Cause::Rounding).unwrap() > 0.0 && of(Cause::Weights).unwrap() > 0.0, "{gated:?}");
        assert_eq!((of(Cause::Time), of(Cause::Softmax)), (Some(0.0), None));
        let queries = found.entries.iter().find(|entry| entry.path == "h.1.attention.q").unwrap();
        assert!(queries.isolated[Cause::Rounding as usize].unwrap() > 0.0, "{queries:?}");
        assert!((0.5..1.5).contains(&found.explained()), "the parts are {} of the whole", found.explained());
    }
}

/// Time-stepped neurons everywhere but where a gate multiplies: that is said, and costs no time.
#[test]
fn gates_integrate_first() {
    let tensor = llama(&CONFIG);
    let unary = QuantOptions::uniform(Levels { code: Code::Unary, steps: 12 });
    let options = QuantOptions { membrane: Some(Membrane::ST_BIF), ..unary.clone() };
    let (graph, calibration, _) = converted(&tensor, options);
    let said = integrates_first(&graph).unwrap();
    assert!(said.contains("2 MLP layers integrate first, where st_bif was asked for"), "{said}");
    assert_eq!(integrates_first(&from_tensor(tensor.clone(), unary)), None);
    let ids = ids(65, CONFIG.vocabulary);
    let found = ledger(&tensor, &calibration, &ids, &Vec::from_iter(std::iter::once(0..64)), 2).unwrap();
    let time = |path: &str| {
        let entry = found.entries.iter().find(|entry| entry.path == path).unwrap();
        entry.isolated[Cause::Time as usize]
    };
    assert_eq!(time("h.0.mlp.hidden"), Some(0.0));
    // Of all others, values alone hear spikes.
    assert!(time("h.0.attention.v").unwrap() != 0.0, "{found:?}");
    // Nothing but gates has the code that such neurons spell.
    let overrides = vec![("mlp.hidden".to_string(), Override::Code(Code::Unary))];
    let options = QuantOptions { overrides, membrane: Some(Membrane::ST_BIF), ..QuantOptions::default() };
    let refused = options.check(&tensor).unwrap_err();
    assert!(refused.to_string().starts_with("h.0.mlp.hidden: cannot have st_bif neurons"), "{refused}");
}

/// Attention that keeps sums of all keys has no window.
#[test]
fn windows_are_refused_where_nothing_ends_them() {
    let tensor = llama(&OTHERS[0]);
    for kind in [Ssa::Linear { guard: GUARD }, Ssa::Coincidence { squared: false }, Ssa::Lif { output: Output::Mean }] {
        let options = QuantOptions {
            overrides: vec![("h.1".into(), Override::Attention(Some(kind)))],
            ..QuantOptions::default()
        };
        let refused = options.check(&tensor).unwrap_err();
        let said = format!("h.1.attention: cannot attend by `{}`: a token sees 8 tokens there", kind.name());
        assert!(refused.to_string().starts_with(&said), "{refused}");
        assert!(refused.notes.iter().any(|note| note.contains("ttfs, topk and dense have windows")), "{refused:?}");
        assert_eq!(options.check(&llama(&CONFIG)), Ok(()));
    }
}

/// Spikes drive all products by default; a gate that is left dense is a warning, and only that.
#[test]
fn warnings_are_about_what_is_so() {
    let tensor = llama(&CONFIG);
    let found = |quant_options: QuantOptions| {
        let (graph, _, section) = converted(&tensor, quant_options);
        let program = Arc::new(Program::new(Arc::new(collapse(&graph).unwrap()), &Options::default()).unwrap());
        let ids = ids(200, CONFIG.vocabulary);
        let cut = Cut { length: None, stride: None, windows: 3 };
        let done = evaluate(&program, None, &ids, cut, 2).unwrap();
        let said = lints(program.graph(), Some(&section), &ids, done.run, &done.events);
        (said, coverage(program.graph(), &done.activity()).total.ratio())
    };
    let (said, share) = found(QuantOptions::default());
    assert_eq!((said, share), (Vec::new(), 1.0));
    let overrides = vec![("h.0.mlp.hidden".to_string(), Override::Dense)];
    let (said, share) = found(QuantOptions { overrides, ..QuantOptions::default() });
    assert!(said.iter().any(|lint| lint.message.starts_with("`gated[silu]` is computed")), "{said:?}");
    assert!(said.iter().all(|lint| matches!(lint.kind, LintKind::Dense | LintKind::Coverage)), "{said:?}");
    assert!(share < 1.0, "{share}");
}

/// A front of timesteps: whoever costs less loses more, gated sites among them.
#[test]
fn timesteps_are_tuned() {
    let tensor = llama(&OTHERS[0]);
    let (windows, _) = sample_windows(&tensor, &Sample::SeededIds, 512).unwrap();
    let seen = calibrate(&tensor, &windows, &[], 2).unwrap();
    let ids = ids(129, OTHERS[0].vocabulary);
    let two = Cut { length: None, stride: None, windows: 2 };
    let ranges = cut(ids.len() - 1, tensor.context as usize, two);
    let tuner = Tuner {
        journal: &Default::default(),
        tensor: &tensor,
        seen: &seen,
        moments: &Default::default(),
        ids: &ids,
        ranges: &ranges,
        probe_tokens: 64,
        workers: 2.into(),
        base: QuantOptions::default(),
    };
    for goal in [Goal::Energy, Goal::Attention] {
        let front = tuner.front(goal).unwrap();
        assert!(front.len() > 4 && front.windows(2).all(|pair| pair[1].cost < pair[0].cost), "{goal:?}: {front:?}");
        let program = Arc::new(Program::new(Arc::new(tensor.clone()), &Options::default()).unwrap());
        let middle = Candidate::Allocated(&front[front.len() / 2]);
        let points = tuner.measure(&program, &[middle, Candidate::Uniform(3)]).unwrap();
        let point = &points[0];
        assert!(points[1].allocation.is_none() && points[1].timesteps < 4.0, "{points:?}");
        assert!(point.additions > 0.0 && point.attention_additions < point.additions, "{point:?}");
    }
}

/// Gates of every curve, in the program as in the network.
#[test]
fn gates_of_every_curve_become_levels() {
    for curve in Curve::ALL.into_iter().filter(|curve| *curve != Curve::Identity) {
        let config = LlamaConfig { layers: 1, curve, ..CONFIG };
        let graph = from_tensor(llama(&config), QuantOptions::default());
        let spelled = format!("gated by {}, 80 wide", curve.name());
        assert_eq!(line(&Layers::of(&graph).lines(), "mlp"), spelled);
    }
}
