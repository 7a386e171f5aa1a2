//! Every engine gives the same bits and the same spikes: interpreter and machine code, stepped and collapsed, every
//! instruction set, whole and in pieces, in memory and from a file.

#![allow(clippy::unwrap_used)]

use snnc_examples::gpt2::{Activation, Gpt2Config, HeadExport};
use snnc_examples::llama::LlamaConfig;
use snnc_ir::container::{self, File};
use snnc_ir::events::Events;
use snnc_ir::membrane::{Membrane, Parameter};
use snnc_ir::op::{DenseOp, Heads, LeafOp, LevelOp, Pairs, SpikeOp};
use snnc_ir::ssa::{Output, Ssa};
use snnc_ir::{Builder, Code, Curve, Graph, Node, Op, Stage, Tensor, verify};
use snnc_passes::collapse::{collapse, depends_on_order};
use snnc_passes::cost::{Part, parts};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations, Thresholds};
use snnc_passes::{Context, front_and_back, run as run_passes};
use snnc_runtime::{Batch, Engine, ISAS, Isa, Options, Outputs, Program, Rows, Session};
use snnc_tests::{converted, from_tensor, ids, imported, llama, options, run, spiking};
use std::collections::BTreeMap;
use std::sync::Arc;

const TINY: Gpt2Config = Gpt2Config { width: 24, heads: 3, vocabulary: 70, context: 32, ..Gpt2Config::TINY };

/// Random weights score all keys within one phase. Times this, a quarter to a half of them fire inside the window.
const STEEPER: f32 = 1000.0;

fn check(config: Gpt2Config, code: Code, steps: u16) {
    let stepped = spiking(imported(&config), Levels { code, steps });
    check_graph(&format!("{config:?} {code:?} {steps}"), &stepped, config.vocabulary);
}

/// Enough tokens, and outputs enough, that threads share products and attention.
#[test]
fn threads() {
    let config = Gpt2Config { width: 96, heads: 3, vocabulary: 1200, context: 160, ..Gpt2Config::TINY };
    for (steps, weight_group) in [(7, None), (9, None), (7, Some(32)), (9, Some(32))] {
        let levels = Levels { code: Code::Binary, steps };
        let stepped = converted(imported(&config), QuantOptions { weight_group, ..QuantOptions::uniform(levels) });
        for graph in [collapse(&stepped).unwrap(), stepped] {
            let ids = ids(140, config.vocabulary);
            let calls: Vec<&[u32]> = [&ids[..100], &ids[100..101], &ids[101..139], &ids[139..]].to_vec();
            let want = run(&graph, options(Engine::Jit), &calls);
            for threads in [2, 3, 7] {
                let got = run(&graph, Options { threads, ..options(Engine::Jit) }, &calls);
                assert!(got.bits == want.bits && got.events == want.events, "{threads} threads, T = {steps}");
            }
        }
    }
}

/// Time-stepped neurons: every timestep is run, by every engine with the same bits.
#[test]
fn neurons_that_answer_within_the_timestep() {
    for membrane in Membrane::all() {
        for activation in [Activation::Relu, Activation::GeluTanh] {
            let config = Gpt2Config { activation, ..TINY };
            let levels = Levels { code: Code::Unary, steps: 6 };
            let graph = converted(
                imported(&config),
                QuantOptions { membrane: Some(membrane), ..QuantOptions::uniform(levels) },
            );
            let names: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
            assert!(names.contains(&"integrate"), "{membrane:?}: there are such neurons");
            assert_eq!(
                names.contains(&"fire"),
                activation != Activation::Relu,
                "{membrane:?}: a ReLU is plain IF layers"
            );
            assert!(depends_on_order(&graph) && collapse(&graph).is_err());
            check_forms(&format!("{membrane:?} {activation:?}"), &[("stepped", &graph)], config.vocabulary);
        }
    }
}

/// Inputs whose sums are infinite, of either sign and in turn, and parameters at their ends: what a membrane makes of them is
/// the same everywhere, and nothing panics.
#[test]
fn neurons_at_the_end_of_numbers() {
    for membrane in Membrane::all() {
        let ranges = &membrane.rule().parameters;
        let ends = |range: &Parameter| format!("[{}, {}, {}, {}]", range.least, range.most, range.start, range.most);
        let weights = ranges.iter().map(|range| format!("weight @{} : f32[4] = {}\n", range.name, ends(range)));
        let operands = ranges.iter().map(|range| format!(", @{}", range.name)).collect::<String>();
        for (steps, curve) in [1, 2, 9, 70].into_iter().flat_map(|steps| [(steps, ""), (steps, ",relu")]) {
            let name = format!("{},{steps}{curve}", membrane.name());
            let program = format!(
                "snnc 3 spiking context=40
weight @table : f32[4,4] = [1e38, -1e38, 3, 0, -3e38, 2, 1e30, -1e-38, 0.25, -0.25, 1e20, -1e20, 0, 0, 0, 0]
weight @gain : f32[4] = [1e30, -3e38, 1, 1e-38]
weight @offset : f32[4] = [0, 3e38, -3e38, 0.5]
weight @two : f32[4] = [3e38, -3e38, 1e20, 1]
weight @one : f32[4] = fill(value=1)
weight @square8 : i8[4,4] = fill(seed=15)
{}
%0 = tokens : i32[tokens]
%1 = embed(%0, @table) : f32[tokens,4]
%2 = integrate[{name}](%1, @gain, @offset{operands}) : spike<unary,{steps}>[tokens,4]
%3 = synapse(%2, @square8) : current<unary,{steps}>[tokens,4]
%4 = integrate[{name}](%3, @two, @offset{operands}) : spike<unary,{steps}>[tokens,4]
%5 = decode(%4) : level<unary,{steps}>[tokens,4]
%6 = scale_shift(%5, @one, @one) : f32[tokens,4]
output logits = %6
",
                weights.clone().collect::<String>(),
            );
            let read = snnc::opt::read(&program, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(verify::verify(&read.graph), Ok(()), "{name}");
            let calls: [&[u32]; 2] = [&[0, 1, 2, 3, 1, 0, 2], &[3]];
            let want = run(&read.graph, options(Engine::Interpreter), &calls);
            for threads in [1, 3] {
                let got = run(&read.graph, Options { threads, ..options(Engine::Jit) }, &calls);
                assert!(got.bits == want.bits && got.events == want.events, "{name}, {threads} threads");
            }
        }
    }
}

/// Weights of 4 bits in groups: levels of 8, 16 and 32 bits, spikes of both codes, sums that several products share, neurons
/// of the timestep, thresholds for every token, outlier channels, widths that groups do not divide.
#[test]
fn weights_of_four_bits() {
    let outliers = Gpt2Config { outliers: 2, width: 36, ..TINY };
    let wider = Gpt2Config { width: 320, heads: 5, layers: 1, ..TINY };
    for (config, group, code, steps, thresholds) in [
        (TINY, 32, Code::Binary, 7, Thresholds::Fixed),
        (TINY, 16, Code::Unary, 6, Thresholds::Token),
        (TINY, 8, Code::Binary, 9, Thresholds::Token),
        (outliers, 32, Code::Binary, 7, Thresholds::Token),
        (wider, 32, Code::Binary, 16, Thresholds::Fixed),
    ] {
        let levels = Levels { code, steps };
        let quant_options = QuantOptions { thresholds, weight_group: Some(group), ..QuantOptions::uniform(levels) };
        let graph = converted(imported(&config), quant_options);
        let grouped = graph.weights.iter().filter(|weight| weight.tensor.as_groups().is_some()).count();
        assert!(grouped > 6 * config.layers, "{grouped} weights of 4 bits");
        check_graph(&format!("i4:{group} {code:?} {steps}"), &graph, config.vocabulary);
    }
    for membrane in [Membrane::IF, Membrane::ST_BIF] {
        let levels = Levels { code: Code::Unary, steps: 6 };
        let quant_options =
            QuantOptions { membrane: Some(membrane), weight_group: Some(32), ..QuantOptions::uniform(levels) };
        let graph = converted(imported(&TINY), quant_options);
        check_forms("i4:32 in time", &[("stepped", &graph)], TINY.vocabulary);
    }
}

/// Sites with levels of their own, some of 16 bits, and sites that stay dense.
#[test]
fn sites_differ() {
    let overrides = [
        ("q", Override::Steps(8)),
        ("v", Override::Steps(9)),
        ("h.1.k", Override::Steps(4)),
        ("mlp.hidden", Override::Code(Code::Unary)),
        ("h.1.mlp.in", Override::Dense),
        ("h.0.attention.out", Override::Dense),
    ];
    let overrides = overrides.map(|(site, wanted)| (site.to_string(), wanted)).to_vec();
    for exact_weights in [false, true] {
        let quant_options = QuantOptions { overrides: overrides.clone(), exact_weights, ..QuantOptions::default() };
        check_graph("sites", &converted(imported(&TINY), quant_options), TINY.vocabulary);
    }
    // Levels of one width from trains of several lengths, read as reals.
    for steps in [5, 11] {
        let overrides =
            vec![("mlp.in".into(), Override::Steps(steps)), ("attention.out".into(), Override::Steps(steps + 1))];
        let quant_options = QuantOptions { overrides, exact_weights: true, ..QuantOptions::default() };
        check_graph("exact weights", &converted(imported(&TINY), quant_options), TINY.vocabulary);
    }
    let dense = QuantOptions {
        overrides: vec![("h.0.q".into(), Override::Dense), ("head".into(), Override::Dense)],
        ..QuantOptions::default()
    };
    check_graph("dense queries", &converted(imported(&TINY), dense), TINY.vocabulary);
}

/// Thresholds for every token, and outlier channels with neurons of their own.
#[test]
fn thresholds_and_outliers() {
    let outliers = Gpt2Config { outliers: 2, width: 48, ..TINY };
    for (config, thresholds, wanted) in [
        (TINY, Thresholds::Token, ["row_max_abs", "div"]),
        (TINY, Thresholds::Heads, ["row_max_abs", "ssa"]),
        (outliers, Thresholds::Fixed, ["gather_channels", "fire"]),
        (outliers, Thresholds::Token, ["gather_channels", "row_max_abs"]),
    ] {
        for (code, exact_weights) in [(Code::Binary, false), (Code::Binary, true), (Code::Unary, false)] {
            let levels = Levels { code, steps: 7 };
            // A rotation would spread the outliers.
            let rotate = Rotate::These(Rotations::default());
            let quant_options = QuantOptions { thresholds, exact_weights, rotate, ..QuantOptions::uniform(levels) };
            let graph = converted(imported(&config), quant_options);
            let names: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
            assert!(wanted.iter().all(|name| names.contains(name)), "{wanted:?} in {names:?}");
            let by_head = |op: Op| matches!(op, Op::Level(LevelOp::Ssa { heads, .. }) if heads.thresholds);
            assert_eq!(graph.nodes.iter().any(|node| by_head(node.op)), thresholds == Thresholds::Heads);
            let fine = graph.weights.iter().any(|weight| weight.name.ends_with("out.residual.weight"));
            let finer = config.outliers > 0 && code == Code::Binary && thresholds == Thresholds::Fixed;
            assert_eq!(fine, finer, "what writes to outliers is finer, but for thresholds of tokens");
            let parts = parts(&graph);
            let head = |(i, node): &(usize, &Node)| {
                matches!(node.op, Op::Level(LevelOp::MatMulInt) | Op::Spike(SpikeOp::Synapse))
                    && parts[*i].part == Part::Head
            };
            let heads = graph.nodes.iter().enumerate().filter(head).count();
            // Outliers have weights of twice eight bits where their levels are finer.
            let more = if code == Code::Binary { 2 } else { 1 };
            assert!(exact_weights || heads == 1 + if config.outliers > 0 { more } else { 0 }, "{heads} products");
            assert!(parts.iter().any(|place| place.part == Part::Mlp));
            check_graph(&format!("{thresholds:?} {code:?} {exact_weights}"), &graph, config.vocabulary);
        }
    }
    let membrane = Some(Membrane::IF);
    let levels = Levels { code: Code::Unary, steps: 6 };
    let quant_options = QuantOptions { membrane, thresholds: Thresholds::Token, ..QuantOptions::uniform(levels) };
    check_forms("prompt", &[("stepped", &converted(imported(&outliers), quant_options))], outliers.vocabulary);
}

/// A network in the text form whose every projection reads levels with thresholds of their tokens.
struct ThresholdNetwork {
    lines: String,
    values: usize,
}

impl ThresholdNetwork {
    fn add(&mut self, op: &str, ty: &str) -> String {
        let name = format!("%{}", self.values);
        self.lines += &format!("{name} = {op} : {ty}\n");
        self.values += 1;
        name
    }

    /// The train of a value, and the peaks of its rows.
    fn site(&mut self, x: &str, width: usize, steps: u16) -> [String; 2] {
        let reals = format!("f32[tokens,{width}]");
        let x = self.add(&format!("scale_shift({x}, @gain{width}, @zero{width})"), &reals);
        let peak = self.add(&format!("row_max_abs({x})"), "f32[tokens,1]");
        let share = self.add(&format!("div({x}, {peak})"), &reals);
        let fire = format!("fire[binary,{steps}]({share}, @most{width}, @zero{width})");
        [self.add(&fire, &format!("spike<binary,{steps}>[tokens,{width}]")), peak]
    }

    /// A projection's sums times the peaks; and with `shift` what is behind them.
    fn product(&mut self, site: &[String; 2], steps: u16, w: &str, outputs: usize, shift: bool) -> String {
        let reals = format!("f32[tokens,{outputs}]");
        let [train, peak] = site;
        let current = format!("current<binary,{steps}>[tokens,{outputs}]");
        let current = self.add(&format!("synapse({train}, @{w})"), &current);
        let sums = self.add(&format!("decode({current})"), &format!("i32[tokens,{outputs}]"));
        let scaled = self.add(&format!("scale_shift({sums}, @scale{outputs}, @zero{outputs})"), &reals);
        let product = self.add(&format!("mul({scaled}, {peak})"), &reals);
        if !shift {
            return product;
        }
        self.add(&format!("scale_shift({product}, @one{outputs}, @bias{outputs})"), &reals)
    }

    fn fire(&mut self, x: &str, width: usize) -> String {
        let ty = format!("spike<binary,7>[tokens,{width}]");
        self.add(&format!("fire[binary,7]({x}, @sharp{width}, @bias{width})"), &ty)
    }

    /// Attention, and a gated hidden layer; levels of sites in so many timesteps. A hidden layer that is not `turned` has fixed
    /// thresholds.
    fn network(steps: u16, turned: bool) -> String {
        let mut n = Self { lines: String::new(), values: 0 };
        let reals = "f32[tokens,24]";
        let ids = n.add("tokens", "i32[tokens]");
        let positions = n.add("positions", "i32[tokens]");
        let turns = n.add(&format!("embed({positions}, @turns)"), "f32[tokens,4]");
        let residual = n.add(&format!("embed({ids}, @table)"), reals);
        let norm = n.add(&format!("rms_norm[eps=1e-5]({residual})"), reals);
        let site = n.site(&norm, 24, steps);
        let [q, k] = ["q", "k"].map(|w| {
            let x = n.product(&site, steps, w, 24, true);
            let x = n.add(&format!("rotary[heads=2,pairs=half]({x}, {turns})"), reals);
            n.fire(&x, 24)
        });
        let v = n.product(&site, steps, "v", 24, false);
        let v = n.fire(&v, 24);
        let attention = n.add(&format!("ssa[ttfs,heads=2,phases=8]({q}, {k}, {v}, @slope)"), reals);
        let site = n.site(&attention, 24, steps);
        let out = n.product(&site, steps, "o", 24, true);
        let residual = n.add(&format!("add({residual}, {out})"), reals);
        let centred = n.add(&format!("centre({residual})"), reals);
        let norm = n.add(&format!("rms_norm[eps=1e-5]({centred})"), reals);
        let site = n.site(&norm, 24, steps);
        let [gate, up] = ["gate", "up"].map(|w| n.product(&site, steps, w, 48, turned));
        let site = if turned {
            let hidden = n.add(&format!("gated[silu]({gate}, {up})"), "f32[tokens,48]");
            let hidden = n.add(&format!("hadamard[order=12,power=1]({hidden})"), "f32[tokens,48]");
            n.site(&hidden, 48, steps)
        } else {
            let constants = "@one48, @bias48, @sharp48, @zero48";
            let hidden = format!("gated_fire[binary,{steps},silu]({gate}, {up}, {constants})");
            [n.add(&hidden, &format!("spike<binary,{steps}>[tokens,48]")), site[1].clone()]
        };
        let down = n.product(&site, steps, "down", 24, true);
        let residual = n.add(&format!("add({down}, {residual})"), reals);
        let norm = n.add(&format!("rms_norm[eps=1e-5]({residual})"), reals);
        let site = n.site(&norm, 24, steps);
        let logits = n.product(&site, steps, "head", 70, true);
        format!("snnc 3 spiking context=32\n{}{}output logits = {logits}\n", Self::weights(&n.lines), n.lines)
    }

    /// Those that are used.
    fn weights(lines: &str) -> String {
        let mut text = String::from(
            "weight @table : f32[70,24] = fill(seed=1)
weight @turns : f32[32,4] = fill(seed=2)
weight @slope : f32[2] = [0.001, 0.002]
",
        );
        for (i, name) in ["q", "k", "v", "o"].into_iter().enumerate() {
            text += &format!("weight @{name} : i8[24,24] = fill(seed={})\n", 3 + i);
        }
        for (name, sizes) in [("gate", "24,48"), ("up", "24,48"), ("down", "48,24"), ("head", "24,70")] {
            text += &format!("weight @{name} : i8[{sizes}] = fill(seed={})\n", 10 + name.len());
        }
        for width in [24, 48, 70] {
            for (name, rule) in [
                ("gain", "fill(seed=20, low=1, high=5)"),
                ("zero", "fill(value=0)"),
                ("most", "fill(value=127)"),
                ("scale", "fill(value=0.0001)"),
                ("one", "fill(value=1)"),
                ("bias", "fill(seed=21)"),
                ("sharp", "fill(value=50)"),
            ] {
                text += &format!("weight @{name}{width} : f32[{width}] = {rule}\n");
            }
        }
        let used = |line: &&str| {
            let name = line.split(' ').nth(1).unwrap();
            [",", ")"].iter().any(|end| lines.contains(&format!("{name}{end}")))
        };
        text.lines().filter(used).map(|line| format!("{line}\n")).collect()
    }
}

/// Thresholds of tokens at every site: behind norms, attention and a hidden layer that is turned. Peaks come with what they are
/// the peaks of, products of sums with peaks are one pass.
#[test]
fn thresholds_of_tokens_run_in_chains() {
    let (levels, wide) = ("row_max_abs > div > quant", "row_max_abs > div");
    for (steps, turned, peaks) in
        [(7, true, levels), (7, false, levels), (9, true, levels), (10, false, levels), (16, true, wide)]
    {
        let text = ThresholdNetwork::network(steps, turned);
        let read = snnc::opt::read(&text, &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(verify::verify(&read.graph), Ok(()));
        check_graph(&format!("T = {steps}"), &read.graph, 70);
        let collapsed = collapse(&read.graph).unwrap();
        check_batch(&format!("T = {steps}"), &collapsed, 70);
        let plan = Program::new(Arc::new(collapsed), &options(Engine::Jit)).unwrap().explain();
        let steps = |name: &str| plan.lines().filter(|line| line.contains(&format!("kernel {name}"))).count();
        assert_eq!(steps("row_max_abs ") + steps("div ") + steps("mul "), 0, "{plan}");
        assert_eq!(steps(&format!("rms_norm > scale_shift > {peaks}")), 2, "{plan}");
        assert_eq!(steps(&format!("centre > rms_norm > scale_shift > {peaks}")), 1, "{plan}");
        assert_eq!(steps(&format!("scale_shift > {peaks}")), 1, "{plan}");
        assert_eq!(steps("scale_shift > mul > scale_shift > rotary > quant"), 2, "{plan}");
        assert_eq!(steps("scale_shift > mul > quant"), 1, "{plan}");
        assert_eq!(steps("scale_shift > mul > scale_shift > add"), 2, "{plan}");
        let hidden = format!("scale_shift > mul > scale_shift > gated > hadamard > scale_shift > {peaks}");
        let hidden = if turned { &hidden } else { "scale_shift > mul > gated_quant" };
        assert_eq!(steps(hidden), 1, "{plan}");
    }
}

/// Levels of 17 bits, sums of attention in 64, and products that share their inputs: all timesteps that a code has.
#[test]
fn as_many_timesteps_as_there_are() {
    let wider = Gpt2Config { width: 320, heads: 5, layers: 1, ..TINY };
    for (config, steps) in [(TINY, 12), (TINY, 15), (TINY, 16), (wider, 16)] {
        let levels = Levels { code: Code::Binary, steps };
        let graph = spiking(imported(&config), levels);
        let synapses = graph.nodes.iter().filter(|node| node.op.name() == "synapse").count();
        assert_eq!(synapses > 6 * config.layers + 1, config.width == 320, "{synapses}: the widest share their inputs");
        check_graph(&format!("T = {steps}, width {}", config.width), &graph, config.vocabulary);
    }
    let mixed = [("q", 7), ("k", 16), ("v", 9), ("h.1.v", 16), ("h.1.k", 3), ("mlp.hidden", 10)];
    let overrides = mixed.map(|(site, steps)| (site.to_string(), Override::Steps(steps))).to_vec();
    let levels = Levels { code: Code::Binary, steps: 16 };
    let mixed = QuantOptions { overrides, thresholds: Thresholds::Token, ..QuantOptions::uniform(levels) };
    check_graph("T = 16, mixed", &converted(imported(&TINY), mixed), TINY.vocabulary);
    let rate = Levels { code: Code::Unary, steps: 1024 };
    check_graph("unary", &spiking(imported(&Gpt2Config { layers: 1, ..TINY }), rate), TINY.vocabulary);
}

/// Every kind of attention: alone, with memories that halve at all periods, with levels of 16 and 32 bits.
#[test]
fn attention_of_every_kind() {
    let linear = Ssa::Linear { guard: 3 };
    let kinds = [
        (Ssa::TopK { phases: 8, keys: 3 }, vec![]),
        (Ssa::TopK { phases: 8, keys: 4 }, vec![("v", 16), ("k", 9)]),
        (Ssa::Coincidence { squared: true }, vec![]),
        (Ssa::Coincidence { squared: false }, vec![("q", 1), ("v", 9)]),
        (Ssa::Coincidence { squared: true }, vec![("q", 200), ("v", 12)]),
        (linear, vec![]),
        (linear, vec![("h.0.q", 1), ("h.1.q", 9), ("v", 16)]),
        (Ssa::Lif { output: Output::Mean }, vec![("q", 7)]),
        (Ssa::Lif { output: Output::Spikes }, vec![]),
        (Ssa::Lif { output: Output::Spikes }, vec![("h.1.q", 130), ("h.1.v", 130)]),
    ];
    for (variant, steps) in kinds {
        let overrides = steps.iter().map(|(site, steps)| (site.to_string(), Override::Steps(*steps))).collect();
        let quant_options = QuantOptions { attention: Some(variant), overrides, ..QuantOptions::default() };
        let mut graph = converted(imported(&TINY), quant_options);
        for half_life in [None, Some([1, 2, 4]), Some([0, 16, 32])] {
            if let Some(half_life) = half_life {
                halve(&mut graph, half_life);
            }
            let what = format!("{variant:?} {steps:?} {half_life:?}");
            let events = if variant.time_collapses() {
                check_graph(&what, &graph, TINY.vocabulary)
            } else {
                assert!(depends_on_order(&graph) && collapse(&graph).is_err(), "{what}");
                check_forms(&what, &[("stepped", &graph)], TINY.vocabulary)
            };
            if variant.has_features() {
                let attention = |name: &&String| name.ends_with(".half_life") || name.ends_with(".emit.gain");
                let met: u64 = events.keys().filter(attention).map(|name| events[name].score_additions).sum();
                assert!(met > 0, "{what}: spikes meet");
            }
        }
    }
}

/// Gives all attentions these periods.
fn halve(graph: &mut Graph, half_life: [i32; 3]) {
    for weight in graph.weights.iter_mut().filter(|weight| weight.name.ends_with(".half_life")) {
        weight.tensor = Arc::new(Tensor::i32(&[3], half_life.to_vec()));
    }
    snnc_ir::verify::verify(graph).unwrap();
}

/// Kinds by layer, with a sequence's state of each beside the others'.
#[test]
fn attention_by_layer() {
    let config = Gpt2Config { layers: 5, ..TINY };
    let kinds = [
        Some(Ssa::Linear { guard: 8 }),
        None,
        Some(Ssa::Coincidence { squared: true }),
        Some(Ssa::TopK { phases: 8, keys: 2 }),
        Some(Ssa::Ttfs { phases: 8 }),
    ];
    let overrides = (0..).zip(kinds).map(|(layer, kind): (u32, _)| (format!("h.{layer}"), Override::Attention(kind)));
    let quant_options = QuantOptions { overrides: overrides.collect(), ..QuantOptions::default() };
    let graph = converted(imported(&config), quant_options);
    let kept = graph.nodes.iter().filter(|node| node.op.has_state());
    let names: Vec<String> = kept.map(|node| node.op.to_string().split(',').next().unwrap().to_string()).collect();
    assert_eq!(names, ["ssa[linear", "attention[heads=3", "ssa[coincidence", "ssa[topk", "ssa[ttfs"]);
    check_graph("by layer", &graph, config.vocabulary);
    check_batch("by layer", &collapse(&graph).unwrap(), config.vocabulary);
    check_batch("by layer, stepped", &graph, config.vocabulary);
    for output in [Output::Mean, Output::Spikes] {
        let quant_options = QuantOptions { attention: Some(Ssa::Lif { output }), ..QuantOptions::default() };
        check_batch("LIF", &converted(imported(&TINY), quant_options), TINY.vocabulary);
    }
}

/// LIF attention collapses where what feeds it fires in its first timesteps, with spikes out as well.
#[test]
fn attention_of_neurons_that_integrate_first_collapses() {
    let mut b = Builder::new(Stage::Spiking, 16);
    let mut random = 0.0f32;
    let mut number = |low: f32, high: f32| {
        random = (random * 137.0 + 0.317).fract();
        low + (high - low) * random
    };
    let mut f32s = |b: &mut Builder, name: &str, sizes: &[usize], low, high| {
        let data = (0..sizes.iter().product::<usize>()).map(|_| number(low, high)).collect();
        b.weight(name, Arc::new(Tensor::f32(sizes, data)))
    };
    let tokens = b.add(Op::Leaf(LeafOp::Tokens), &[], "").unwrap();
    let table = f32s(&mut b, "table", &[6, 6], -1.0, 1.0);
    let x = b.add(Op::Dense(DenseOp::Embed), &[tokens, table], "").unwrap();
    let mut parts = Vec::new();
    for name in ["q", "k", "v"] {
        let [gain, offset] = ["gain", "offset"].map(|part| f32s(&mut b, &format!("{name}.{part}"), &[6], 0.5, 3.0));
        let (mut args, mut curve) = (vec![x, gain, offset], Curve::Identity);
        if name != "v" {
            (curve, args) = (Curve::Relu, vec![x, gain, offset, gain, offset]);
        }
        parts.push(b.add(Op::Spike(SpikeOp::Fire { code: Code::Unary, steps: 5, curve }), &args, "").unwrap());
    }
    parts.push(f32s(&mut b, "sink", &[2], 0.0, 1.0));
    parts.push(b.weight("half_life", Arc::new(Tensor::i32(&[2], vec![0, 4]))));
    parts.push(f32s(&mut b, "emit", &[6], 0.5, 2.0));
    let variant = Ssa::Lif { output: Output::Spikes };
    let spikes = b.add(Op::Level(LevelOp::Ssa { heads: Heads::equal(2), variant }), &parts, "").unwrap();
    let levels = b.add(Op::Spike(SpikeOp::Decode), &[spikes], "").unwrap();
    let unit = f32s(&mut b, "unit", &[6], 0.5, 1.0);
    let out = b.add(Op::Level(LevelOp::ScaleShift), &[levels, unit, unit], "").unwrap();
    let graph = b.finish(vec![("logits".into(), out)]);
    snnc_ir::verify::verify(&graph).unwrap();
    let ids = ids(13, 6);
    let want = run(&graph, options(Engine::Interpreter), &[&ids]);
    assert!(want.events["emit"].spikes > 0);
    for graph in [&graph, &collapse(&graph).unwrap()] {
        for engine in [Engine::Interpreter, Engine::Jit] {
            let got = run(graph, options(engine), &[&ids[..7], &ids[7..]]);
            assert!(got.bits == want.bits && got.events == want.events, "{engine:?}");
        }
    }
}

/// Sums cannot be taken back: a call that fails in its second chunk leaves them as they were before its first.
#[test]
fn a_call_that_fails_leaves_sums_as_they_were() {
    let config = Gpt2Config { layers: 2, ..TINY };
    let quant_options = QuantOptions { attention: Some(Ssa::Linear { guard: 8 }), ..QuantOptions::default() };
    let mut graph = collapse(&converted(imported(&config), quant_options)).unwrap();
    spoil(&mut graph, config.vocabulary, 60);
    for engine in [Engine::Interpreter, Engine::Jit] {
        let options = Options { chunk: 2, ..options(engine) };
        let mut session = Session::new(Arc::new(Program::new(Arc::new(graph.clone()), &options).unwrap())).unwrap();
        let want = run(&graph, options, &[&[1, 4, 9, 7, 8]]).bits;
        let mut bits = Vec::new();
        for call in [&[1, 4, 9][..], &[2, 3, 5, 60], &[7], &[60], &[2, 60], &[8]] {
            match session.forward(call, Rows::All) {
                Ok(outputs) => bits.extend(outputs.f32("logits").unwrap().iter().map(|x| x.to_bits())),
                Err(_) => assert!(call.contains(&60)),
            }
        }
        assert!(bits == want, "{engine:?}");
    }
}

/// Gives a token an embedding that is no number: so says its row of the table, or its scale of one that is shared.
fn spoil(graph: &mut Graph, vocabulary: usize, token: usize) {
    let by_token = |tensor: &Tensor| tensor.sizes().len() == 2 && tensor.sizes()[0] == vocabulary;
    let table = graph.weights.iter_mut().find(|weight| by_token(&weight.tensor) && weight.tensor.as_f32().is_some());
    let table = &mut table.unwrap().tensor;
    let width = table.sizes()[1];
    let mut numbers = table.as_f32().unwrap().to_vec();
    numbers[token * width..(token + 1) * width].fill(f32::NAN);
    *table = Arc::new(Tensor::f32(table.sizes(), numbers));
}

/// Returns what the neurons did.
fn check_graph(what: &str, stepped: &Graph, vocabulary: usize) -> BTreeMap<String, Events> {
    let collapsed = collapse(stepped).unwrap();
    check_forms(what, &[("stepped", stepped), ("collapsed", &collapsed)], vocabulary)
}

fn check_forms(what: &str, forms: &[(&str, &Graph)], vocabulary: usize) -> BTreeMap<String, Events> {
    let stepped = forms[0].1;
    let ids = ids(19, vocabulary);
    let want = run(stepped, options(Engine::Interpreter), &[&ids]);
    assert!(want.events.values().any(|events| events.spikes > 0), "{what}: something fires");
    let mut engines = vec![("interpreter", options(Engine::Interpreter)), ("jit", options(Engine::Jit))];
    for isa in ISAS.into_iter().filter(|isa| isa.is_available()) {
        engines.push((isa.name(), Options { isa: Some(isa), chunk: 5, ..options(Engine::Jit) }));
    }
    engines.push(("three threads", Options { threads: 3, ..options(Engine::Jit) }));
    for (form, graph) in forms {
        for (engine, options) in &engines {
            let got = run(graph, *options, &[&ids]);
            assert!(got.bits == want.bits, "{what}: logits of {engine}, {form}");
            assert_eq!(got.events, want.events, "{what}: events of {engine}, {form}");
        }
        let single: Vec<&[u32]> = ids.chunks(1).collect();
        let got = run(graph, options(Engine::Jit), &single);
        assert!(got.bits == want.bits, "{what}: one token at a time, {form}");
        assert_eq!(got.events, want.events, "{what}: events of one token at a time, {form}");
    }
    let mut bytes = Vec::new();
    container::write(&File::new(stepped.clone()), &mut bytes).unwrap();
    let read = container::read(Arc::new(bytes)).unwrap();
    let got = run(&read.graph, options(Engine::Jit), &[&ids]);
    assert!(got.bits == want.bits, "{what}: written and read back");
    assert_eq!(got.events, want.events, "{what}: events, written and read back");
    want.events
}

const LLAMA: LlamaConfig = LlamaConfig { vocabulary: 70, context: 32, ..LlamaConfig::TINY };

/// Grouped heads, windows, rotations of either pairing and of parts of heads, norms of heads, gates, norms on the residual stream.
fn decoders() -> [LlamaConfig; 4] {
    [
        LLAMA,
        LlamaConfig { window: Some(5), pairs: Pairs::Interleaved, turned: 6, bias: true, ..LLAMA },
        LlamaConfig { kv_heads: 1, qk_norm: true, curve: Curve::GeluTanh, tied: false, ..LLAMA },
        LlamaConfig { turned: 0, gated: false, post_norm: true, curve: Curve::GeluErf, hidden: 33, ..LLAMA },
    ]
}

#[test]
fn parts_of_newer_decoders() {
    for config in decoders() {
        for (code, steps) in [(Code::Binary, 7), (Code::Binary, 10), (Code::Unary, 5)] {
            let graph = from_tensor(llama(&config), QuantOptions::uniform(Levels { code, steps }));
            check_graph(&format!("{config:?} {code:?} {steps}"), &graph, config.vocabulary);
        }
        check_batch(&format!("{config:?}"), &from_tensor(llama(&config), QuantOptions::default()), config.vocabulary);
    }
}

/// Grouped heads under every kind of attention.
#[test]
fn attention_of_every_kind_with_grouped_heads() {
    let kinds = [
        Ssa::TopK { phases: 8, keys: 3 },
        Ssa::Coincidence { squared: true },
        Ssa::Linear { guard: 3 },
        Ssa::Lif { output: Output::Mean },
        Ssa::Lif { output: Output::Spikes },
    ];
    for (kind, kv_heads) in kinds.into_iter().flat_map(|kind| [(kind, 1), (kind, 2)]) {
        let config = LlamaConfig { kv_heads, ..LLAMA };
        let options = QuantOptions { attention: Some(kind), ..QuantOptions::default() };
        let stepped = from_tensor(llama(&config), options);
        let what = format!("{kind:?} {kv_heads}");
        match collapse(&stepped) {
            Ok(collapsed) => check_forms(&what, &[("stepped", &stepped), ("collapsed", &collapsed)], config.vocabulary),
            Err(_) => check_forms(&what, &[("stepped", &stepped)], config.vocabulary),
        };
    }
    let windowed = LlamaConfig { window: Some(4), ..LLAMA };
    let options = QuantOptions { attention: Some(Ssa::TopK { phases: 8, keys: 2 }), ..QuantOptions::default() };
    check_graph("best keys of a window", &from_tensor(llama(&windowed), options), LLAMA.vocabulary);
}

/// Enough tokens that threads share rows, and that the tiles of every instruction set are full.
#[test]
fn newer_decoders_on_threads() {
    let config = LlamaConfig { vocabulary: 300, context: 160, window: Some(70), qk_norm: true, ..LLAMA };
    let stepped = from_tensor(llama(&config), QuantOptions::default());
    for graph in [collapse(&stepped).unwrap(), stepped, llama(&config)] {
        let ids = ids(140, config.vocabulary);
        let calls: Vec<&[u32]> = [&ids[..100], &ids[100..101], &ids[101..139], &ids[139..]].to_vec();
        let want = run(&graph, Options { isa: Some(Isa::Portable), ..options(Engine::Jit) }, &calls);
        for isa in ISAS.into_iter().filter(|isa| isa.is_available()) {
            for threads in [1, 2, 3] {
                let got = run(&graph, Options { threads, isa: Some(isa), ..options(Engine::Jit) }, &calls);
                assert!(got.bits == want.bits && got.events == want.events, "{isa:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn decoders_as_tensor_graphs() {
    for config in decoders() {
        let graph = llama(&config);
        let ids = ids(19, config.vocabulary);
        let want = run(&graph, options(Engine::Interpreter), &[&ids]);
        let single: Vec<&[u32]> = ids.chunks(1).collect();
        assert!(run(&graph, options(Engine::Jit), &[&ids]).bits == want.bits, "{config:?}");
        assert!(run(&graph, options(Engine::Jit), &single).bits == want.bits, "one token at a time: {config:?}");
    }
}

#[test]
fn codes_and_timesteps() {
    for (code, steps) in [(Code::Binary, 1), (Code::Binary, 4), (Code::Binary, 7), (Code::Binary, 8), (Code::Unary, 5)]
    {
        check(TINY, code, steps);
    }
}

#[test]
fn activations_widths_heads_and_opsets() {
    let seven = |config| check(config, Code::Binary, 7);
    seven(Gpt2Config { activation: Activation::GeluErf, opset: 13, ..TINY });
    seven(Gpt2Config { activation: Activation::Relu, heads: 1, head: HeadExport::Copied, ..TINY });
    seven(Gpt2Config { width: 20, heads: 4, layers: 1, ..TINY });
    seven(Gpt2Config { width: 80, heads: 2, vocabulary: 131, ..TINY });
    seven(Gpt2Config { width: 15, heads: 5, vocabulary: 67, ..TINY });
    seven(Gpt2Config { width: 33, heads: 1, layers: 1, vocabulary: 71, ..TINY });
}

/// Random weights attend to all tokens alike. With steeper slopes some keys fire too late to count.
#[test]
fn attention_that_leaves_keys_out() {
    for code in Code::ALL {
        let mut graph = spiking(imported(&TINY), Levels { code, steps: 6 });
        for weight in graph.weights.iter_mut().filter(|weight| weight.name.ends_with(".slope")) {
            let steep = weight.tensor.as_f32().unwrap().iter().map(|slope| slope * STEEPER).collect();
            weight.tensor = Arc::new(Tensor::f32(weight.tensor.sizes(), steep));
        }
        let events = check_graph(&format!("steep {code:?}"), &graph, TINY.vocabulary);
        for (name, Events { keys, value_keys, .. }) in events.iter().filter(|(name, _)| name.ends_with(".slope")) {
            let all = keys * TINY.heads as u64;
            assert!((all / 10..all * 9 / 10).contains(value_keys), "{name}: {value_keys} of {all} keys count");
        }
    }
}

#[test]
fn the_tensor_graph_too() {
    let (front, _) = front_and_back();
    let graph = run_passes(front, imported(&TINY), &Context::default(), &mut |_, _, _| {}).unwrap();
    let ids = ids(19, TINY.vocabulary);
    let want = run(&graph, options(Engine::Interpreter), &[&ids]);
    let single: Vec<&[u32]> = ids.chunks(1).collect();
    assert!(run(&graph, options(Engine::Jit), &[&ids]).bits == want.bits);
    assert!(run(&graph, options(Engine::Jit), &single).bits == want.bits, "one token at a time");
}

/// Sequences of different lengths that join and leave, one pass for a token of each: each has the bits that it has alone.
fn check_batch(what: &str, graph: &Graph, vocabulary: usize) {
    // Prompts, and tokens after them; three at a time, so that the fourth and the fifth join where others left.
    const SEQUENCES: [(usize, usize); 5] = [(3, 9), (1, 4), (6, 13), (7, 0), (2, 11)];
    let sequences: Vec<Vec<u32>> =
        (0..).zip(SEQUENCES).map(|(i, (prompt, more))| ids(prompt + more + i, vocabulary).split_off(i)).collect();
    let alone: Vec<Vec<u32>> =
        sequences.iter().map(|ids| run(graph, options(Engine::Interpreter), &[ids]).bits).collect();
    let mut engines = vec![("interpreter", options(Engine::Interpreter))];
    for isa in ISAS.into_iter().filter(|isa| isa.is_available()) {
        for threads in [1, 2] {
            // Chunks of two: three sequences take two passes.
            for chunk in [2, 128] {
                engines.push((isa.name(), Options { isa: Some(isa), threads, chunk, ..options(Engine::Jit) }));
            }
        }
    }
    for (engine, options) in engines {
        let got = run_batch(graph, options, &sequences, &SEQUENCES.map(|(prompt, _)| prompt));
        assert!(got == alone, "{what}: logits of {engine}, {options:?}");
    }
}

/// Logits of sequences that run three at a time: prompts alone, then a token of each in one call.
fn run_batch(graph: &Graph, options: Options, sequences: &[Vec<u32>], prompts: &[usize]) -> Vec<Vec<u32>> {
    let mut batch = Batch::new(Arc::new(Program::new(Arc::new(graph.clone()), &options).unwrap()), 3).unwrap();
    let mut bits = vec![Vec::new(); sequences.len()];
    let mut places: [Option<usize>; 3] = [None; 3];
    let mut waiting = 0..sequences.len();
    let of = |outputs: Outputs<'_>| outputs.f32("logits").unwrap().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    loop {
        for (place, here) in places.iter_mut().enumerate() {
            if here.is_some_and(|i| batch.past(place) == sequences[i].len()) {
                *here = None;
            }
            if here.is_none() {
                *here = waiting.next();
                if let Some(i) = *here {
                    batch.reset(place);
                    bits[i] = of(batch.forward(place, &sequences[i][..prompts[i]], Rows::All).unwrap());
                }
            }
        }
        let next = |(place, here): (usize, &Option<usize>)| {
            let id = sequences[(*here)?].get(batch.past(place))?;
            Some((place, *id))
        };
        let next: Vec<(usize, u32)> = places.iter().enumerate().filter_map(next).collect();
        if next.is_empty() && places.iter().all(Option::is_none) {
            return bits;
        }
        for (&(place, _), outputs) in next.iter().zip(batch.step(&next)) {
            bits[places[place].unwrap()].extend(of(outputs.unwrap()));
        }
    }
}

/// Prompts that are read together: each gives the bits that it gives alone; one that is too long fails alone.
#[test]
fn prompts_share_passes() {
    let graph = collapse(&spiking(imported(&TINY), Levels::default())).unwrap();
    let long = ids(TINY.context + 1, TINY.vocabulary);
    let prompts: Vec<Vec<u32>> =
        (0..).zip([3, 1, 7, 12]).map(|(i, n)| ids(n + i, TINY.vocabulary).split_off(i)).collect();
    let program = |chunk, threads| {
        let options = Options { chunk, threads, ..options(Engine::Jit) };
        Batch::new(Arc::new(Program::new(Arc::new(graph.clone()), &options).unwrap()), 5).unwrap()
    };
    for (chunk, threads) in [(1, 1), (2, 2), (5, 1), (128, 2)] {
        let (mut together, mut alone) = (program(chunk, threads), program(chunk, threads));
        let mut asked: Vec<(usize, &[u32])> = prompts.iter().enumerate().map(|(i, ids)| (i, &ids[..])).collect();
        asked.insert(2, (4, &long));
        let bits =
            |outputs: Outputs<'_>| outputs.f32("logits").unwrap().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        let got: Vec<Option<Vec<u32>>> = together.prefill(&asked).into_iter().map(|o| o.ok().map(bits)).collect();
        for (&(sequence, ids), got) in asked.iter().zip(got) {
            let want = alone.forward(sequence, ids, Rows::Last).ok().map(bits);
            assert_eq!(got, want, "sequence {sequence} in chunks of {chunk}");
            assert_eq!(got.is_none(), sequence == 4);
        }
    }
}

#[test]
fn batches() {
    for (config, steps) in [(TINY, 7), (TINY, 9), (Gpt2Config { width: 96, vocabulary: 1200, ..TINY }, 7)] {
        let stepped = spiking(imported(&config), Levels { code: Code::Binary, steps });
        check_batch(&format!("stepped, T = {steps}"), &stepped, config.vocabulary);
        check_batch(&format!("collapsed, T = {steps}"), &collapse(&stepped).unwrap(), config.vocabulary);
    }
    let levels = Levels { code: Code::Binary, steps: 16 };
    check_batch("sums in 64 bits", &spiking(imported(&TINY), levels), TINY.vocabulary);
    let prompt =
        QuantOptions { membrane: Some(Membrane::IF), ..QuantOptions::uniform(Levels { code: Code::Unary, steps: 6 }) };
    check_batch("neurons that answer at once", &converted(imported(&TINY), prompt), TINY.vocabulary);
    let (front, _) = front_and_back();
    let dense = run_passes(front, imported(&TINY), &Context::default(), &mut |_, _, _| {}).unwrap();
    check_batch("dense", &dense, TINY.vocabulary);
}

/// What is wrong with one sequence stops that one: the others go on as if alone, and it can go on as well.
#[test]
fn a_sequence_that_fails_leaves_the_others_alone() {
    let config = Gpt2Config { layers: 1, ..TINY };
    let mut graph = collapse(&spiking(imported(&config), Levels { code: Code::Binary, steps: 7 })).unwrap();
    spoil(&mut graph, config.vocabulary, 60);
    for engine in [Engine::Interpreter, Engine::Jit] {
        let mut batch =
            Batch::new(Arc::new(Program::new(Arc::new(graph.clone()), &options(engine)).unwrap()), 4).unwrap();
        for place in 0..4 {
            batch.forward(place, &[1, 2 + place as u32], Rows::Last).unwrap();
        }
        let done: Vec<_> = batch
            .step(&[(2, 7), (0, 60), (3, config.vocabulary as u32), (1, 8)])
            .into_iter()
            .map(|outputs| match outputs {
                Ok(outputs) => Ok(outputs.f32("logits").unwrap().iter().map(|x| x.to_bits()).collect::<Vec<u32>>()),
                Err(error) => Err(error.to_string()),
            })
            .collect();
        for (i, ids) in [(0, [1, 4, 7]), (3, [1, 3, 8])] {
            let want = run(&graph, options(engine), &[&ids]).bits;
            assert!(done[i].as_ref().unwrap() == &want[2 * config.vocabulary..], "{engine:?}: {ids:?}");
        }
        // The interpreter looks at every value, machine code where it normalises.
        let why = done[1].as_ref().unwrap_err();
        assert!(why.contains("NaN") || why.contains("not finite"), "{engine:?}: {why}");
        assert!(done[2].as_ref().unwrap_err().contains("outside the table"), "{:?}", done[2]);
        assert_eq!([0, 1, 2, 3].map(|place| batch.past(place)), [2, 3, 3, 2]);
        assert!(batch.step(&[(0, 7), (3, 9)]).iter().all(Result::is_ok), "{engine:?}: they go on");
    }
}

/// Programs of which some values are not finite, and what is said of them; `None` where no value would vanish unseen.
const NOT_FINITE: [(&str, Option<&str>); 7] = [
    // A neuron would clip the infinity to its largest level.
    (
        "%2 = scale_shift(%1, @huge, @zero) : f32[tokens,4]
%3 = fire[binary,7](%2, @one, @zero) : spike<binary,7>[tokens,4]
%4 = decode(%3) : level<binary,7>[tokens,4]
%5 = scale_shift(%4, @one, @zero) : f32[tokens,4]",
        Some("`fire[binary,7]` met a value that is not finite"),
    ),
    // A norm would make zeros of it.
    (
        "%2 = scale_shift(%1, @large, @zero) : f32[tokens,4]
%3 = rms_norm[eps=1e-5](%2) : f32[tokens,4]
%4 = row_max_abs(%3) : f32[tokens,1]
%5 = mul(%3, %4) : f32[tokens,4]",
        Some("`rms_norm[eps=1e-5]` met a value that is not finite"),
    ),
    // The first one is told of, whatever runs together.
    (
        "%2 = scale_shift(%1, @large, @zero) : f32[tokens,4]
%3 = rms_norm[eps=1e-5](%2) : f32[tokens,4]
%4 = scale_shift(%1, @huge, @zero) : f32[tokens,4]
%5 = gated[silu](%4, %1) : f32[tokens,4]
%6 = centre(%3) : f32[tokens,4]
%7 = add(%6, %5) : f32[tokens,4]",
        Some("`rms_norm[eps=1e-5]` met a value that is not finite"),
    ),
    // So it is where the other one is read by what would run with the norm.
    (
        "%2 = scale_shift(%1, @large, @zero) : f32[tokens,4]
%3 = rms_norm[eps=1e-5](%2) : f32[tokens,4]
%4 = scale_shift(%1, @huge, @zero) : f32[tokens,4]
%5 = gated[silu](%3, %4) : f32[tokens,4]",
        Some("`rms_norm[eps=1e-5]` met a value that is not finite"),
    ),
    // A quotient would be 0.
    (
        "%2 = scale_shift(%1, @huge, @zero) : f32[tokens,4]
%3 = gather_channels(%2, @first) : f32[tokens,1]
%4 = div(%1, %3) : f32[tokens,4]
%5 = scale_shift(%4, @one, @zero) : f32[tokens,4]",
        Some("`div` met a value that is not finite"),
    ),
    ("%5 = scale_shift(%1, @huge, @zero) : f32[tokens,4]", Some("`scale_shift` gave")),
    // The channel that is too large is left out.
    (
        "%2 = scale_shift(%1, @one_huge, @zero) : f32[tokens,4]
%5 = gather_channels(%2, @small) : f32[tokens,4]",
        None,
    ),
];

#[test]
fn numbers_that_are_not_finite_are_refused_in_the_same_words_by_all_engines() {
    for (nodes, want) in NOT_FINITE {
        let last = nodes.lines().last().and_then(|line| line.split(' ').next()).unwrap();
        let program = format!(
            "snnc 3 spiking context=8
weight @t : f32[4,4] = [8, 4, 2, 1, 1, 2, 4, 8, 3, 5, 7, 9, 1, 1, 2, 2]
weight @huge : f32[4] = fill(value=3e38)
weight @one_huge : f32[4] = [1, 1, 1, 3e38]
weight @large : f32[4] = fill(value=1e30)
weight @one : f32[4] = fill(value=1)
weight @zero : f32[4] = fill(value=0)
weight @first : i32[1] = [0]
weight @small : i32[4] = [0, 1, 2, 0]
%0 = tokens : i32[tokens]
%1 = embed(%0, @t) : f32[tokens,4]
{nodes}
output logits = {last}
"
        );
        let unused = |line: &&str| {
            let name = line.strip_prefix("weight ").and_then(|rest| rest.split(' ').next());
            name.is_none_or(|name| [",", ")"].iter().any(|end| program.contains(&format!("{name}{end}"))))
        };
        let lines: Vec<&str> = program.lines().filter(unused).collect();
        // Values are numbered from 0 on, without gaps.
        let mut text = lines.join("\n");
        for (i, line) in lines.iter().filter(|line| line.starts_with('%')).enumerate() {
            let old = line.split(' ').next().unwrap();
            if old != format!("%{i}") {
                text = text.replace(old, &format!("%{i}"));
            }
        }
        let graph =
            snnc_ir::text::parse_filled(&text, &|name, _, _| Err(format!("no rule for @{name}"))).unwrap().graph;
        snnc_ir::verify::verify(&graph).unwrap();
        for graph in [graph.clone(), collapse(&graph).unwrap()] {
            for engine in [Engine::Interpreter, Engine::Jit] {
                let program = Program::new(Arc::new(graph.clone()), &options(engine)).unwrap();
                let mut session = Session::new(Arc::new(program)).unwrap();
                let said = session.forward(&[0, 1, 2], Rows::All).map(|_| ()).map_err(|error| error.to_string());
                match want {
                    None => assert_eq!(said, Ok(()), "{engine:?}\n{text}"),
                    Some(words) => {
                        let words =
                            if graph.stage == Stage::Quantised { words.replace("fire", "quant") } else { words.into() };
                        assert!(said.as_ref().is_err_and(|said| said.contains(&words)), "{engine:?}: {said:?}\n{text}");
                    }
                }
            }
        }
    }
}
