//! Levels that fit, the ledger, warnings, gates and tuning, on the model in the repository.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc::calibrate::{MomentText, TokenWindows, calibrate_with_moments, read_sites};
use snnc::calibration::Calibration;
use snnc::convert::{BUILT_IN_TEXT, ConvertOptions, Sample, dense, spiking};
use snnc::evaluate::{Cut, TextEvaluation, cut, evaluate};
use snnc::ledger::{Cause, ledger};
use snnc::lints::{LintKind, coverage, lints};
use snnc::tokens::Tokens;
use snnc::tune::{Candidate, Goal, Tuner};
use snnc_examples::gpt2::Gpt2Config;
use snnc_ir::membrane::Membrane;
use snnc_ir::{Code, Graph};
use snnc_onnx as onnx;
use snnc_passes::Context;
use snnc_passes::collapse::{collapse, depends_on_order};
use snnc_passes::fit::{QuantPlan, fit};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Rotate, Rotations, Rounding};
use snnc_passes::quantise::quantise;
use snnc_runtime::{Options, Program};
use snnc_tests::{centred_cosine, demo_model, ids, imported, run};
use std::sync::Arc;

struct DemoModel {
    tensor: Graph,
    tokens: Tokens,
    ids: Vec<u32>,
}

fn demo() -> DemoModel {
    let tensor = dense(onnx::import(&demo_model()).unwrap().graph, false, &mut |_, _, _| {}).unwrap();
    let json = std::fs::read(demo_model().with_file_name("tokenizer.json")).unwrap();
    let tokens = Tokens::new(&json, "tokenizer.json").unwrap();
    let ids = tokens.document(BUILT_IN_TEXT).unwrap();
    DemoModel { tensor, tokens, ids }
}

impl DemoModel {
    fn converted(&self, quant_options: QuantOptions) -> (Graph, Calibration, Json) {
        let sample = Sample::Text { name: "text".into(), text: BUILT_IN_TEXT.into(), tokens: &self.tokens };
        let recipe = ConvertOptions { quant: quant_options, calibration_tokens: 4096, threads: 2 };
        let done = spiking(self.tensor.clone(), &sample, &recipe, &mut |_, _, _| {}).unwrap();
        (done.graph, done.calibration, done.section)
    }

    fn evaluated(&self, graph: &Graph, windows: usize) -> (Arc<Program>, TextEvaluation) {
        self.evaluated_cut(graph, Cut { length: None, stride: None, windows })
    }

    fn evaluated_cut(&self, graph: &Graph, cut: Cut) -> (Arc<Program>, TextEvaluation) {
        let program = |graph: Graph| Arc::new(Program::new(Arc::new(graph), &Options::default()).unwrap());
        let graph = if depends_on_order(graph) { graph.clone() } else { collapse(graph).unwrap() };
        let spiking = program(graph);
        let done = evaluate(&spiking, Some(&program(self.tensor.clone())), &self.ids, cut, 2).unwrap();
        (spiking, done)
    }
}

fn steps(steps: u16) -> QuantOptions {
    QuantOptions::uniform(Levels { code: Code::Binary, steps })
}

/// Divergence falls with every timestep, and is small at seven.
#[test]
fn more_timesteps_lose_less() {
    let demo = demo();
    let kl: Vec<f64> = [3, 4, 5, 7, 8]
        .map(|t| {
            let score = demo.evaluated(&demo.converted(steps(t)).0, 4).1.score;
            score.mean(score.kl)
        })
        .to_vec();
    assert!(kl.windows(2).all(|pair| pair[1] < pair[0]), "{kl:?}");
    assert!(kl[0] < 0.1 && kl[3] < 1e-3, "{kl:?}");
}

#[test]
fn the_parts_of_the_ledger_sum_to_the_whole() {
    let demo = demo();
    let (graph, calibration, section) = demo.converted(steps(5));
    let again = Calibration::read(section.to_string().as_bytes(), &demo.tensor).unwrap().with_weights_of(&graph);
    assert_eq!(again.quant_plan, calibration.quant_plan, "levels read back exactly");
    let cut = cut(demo.ids.len() - 1, 64, Cut { length: None, stride: None, windows: 4 });
    let windows: Vec<_> = cut.into_iter().map(|window| window.inputs).collect();
    let found = ledger(&demo.tensor, &again, &demo.ids, &windows, 2).unwrap();
    assert!((0.7..1.3).contains(&found.explained()), "the parts are {} of the whole", found.explained());
    assert_eq!(found.entries.len(), 4 * 8 + 1, "seven sites and a softmax a layer, and the head");
    // With all sites the network is the program, but for what later passes do: the embedding reads the head's weight.
    let score = demo.evaluated_cut(&graph, Cut { length: Some(64), stride: None, windows: 4 }).1.score;
    let kl = score.mean(score.kl);
    assert!(
        (found.total / kl - 1.0).abs() < 0.05,
        "the ledger's whole is {}, the program's divergence {kl}",
        found.total
    );
    let again = ledger(&demo.tensor, &again, &demo.ids, &windows, 1).unwrap();
    assert_eq!(found, again, "the number of threads does not show");
    let worst = found.ranked()[0];
    assert!(worst.remedy.contains(&worst.path) || worst.worst() != Cause::Rounding);
    // Mending the worst site mends the network.
    let mended = QuantOptions { overrides: vec![(worst.path.clone(), Override::Steps(8))], ..steps(5) };
    let kl = |graph: &Graph| {
        let score = demo.evaluated(graph, 4).1.score;
        score.mean(score.kl)
    };
    assert!(kl(&demo.converted(mended).0) < kl(&graph));
}

/// With levels as fine as can be, what is lost is lost by weights.
#[test]
fn weights_that_compensate_each_other_lose_less() {
    let demo = demo();
    let [compensated, nearest] = Rounding::ALL.map(|rounding| {
        let graph = demo.converted(QuantOptions { rounding, ..steps(12) }).0;
        let done = demo.evaluated(&graph, 4).1;
        let numbers: usize = graph.weights.iter().map(|weight| weight.tensor.sizes().iter().product::<usize>()).sum();
        (done.score.mean(done.score.kl), done.kl_99.unwrap(), numbers)
    });
    assert!(compensated.0 < nearest.0, "{compensated:?} and {nearest:?}");
    assert!(nearest.0 < nearest.1, "a mean above what 99 % of tokens have at most: {nearest:?}");
    assert_eq!(compensated.2, nearest.2, "weights of a program");
}

/// Moments are sums in one order, whichever thread has which part; their windows are long ones.
#[test]
fn moments_do_not_depend_on_the_number_of_threads() {
    let demo = demo();
    let windows: Vec<Vec<u32>> = demo.ids.chunks(100).take(9).map(<[u32]>::to_vec).collect();
    let moments = |windows: &TokenWindows, threads: usize| {
        let text = MomentText { windows, constants: &[], tokens: 4096 };
        calibrate_with_moments(&demo.tensor, text, &read_sites(&demo.tensor), threads).unwrap().1
    };
    let [one, three] = [1, 3].map(|threads| moments(&windows, threads));
    assert!(one == three && one.len() == 4 * 4 + 1, "{} sites", one.len());
    let mut more = windows.clone();
    more.extend(demo.ids.chunks(8).take(20).map(<[u32]>::to_vec));
    assert!(moments(&more, 2) == one, "starts of texts are left out");
}

#[test]
fn warnings_are_about_what_is_so() {
    let demo = demo();
    let (graph, _, section) = demo.converted(steps(7));
    let (program, done) = demo.evaluated(&graph, 4);
    let all = lints(program.graph(), Some(&section), &demo.ids, done.run, &done.events);
    assert_eq!(all, [], "nothing to warn of");
    assert_eq!(coverage(program.graph(), &done.activity()).total.ratio(), 1.0);

    let strange: Vec<u32> = section_unseen(&section).take(600).collect();
    let kinds = |section: &Json, ids: &[u32], graph: &Graph, done: &TextEvaluation| {
        lints(graph, Some(section), ids, done.run, &done.events).into_iter().map(|lint| lint.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&section, &strange, program.graph(), &done), [LintKind::Unlike]);

    let (graph, _, section) =
        demo.converted(QuantOptions { overrides: vec![("head".into(), Override::Dense)], ..steps(7) });
    let (program, done) = demo.evaluated(&graph, 2);
    let found = kinds(&section, &demo.ids, program.graph(), &done);
    assert_eq!(found, [LintKind::Dense, LintKind::Coverage]);
    assert!(coverage(program.graph(), &done.activity()).total.ratio() < 0.8);
}

/// Ids that the calibration text did not have.
fn section_unseen(section: &Json) -> impl Iterator<Item = u32> {
    snnc::calibration::seen(section).into_iter().zip(0..).filter(|(seen, _)| !seen).map(|(_, id)| id)
}

/// With enough timesteps the classical neurons come near those that wait; a leak does not.
#[test]
fn neurons_that_answer_at_once_come_near_those_that_wait() {
    let demo = demo();
    let kl = |membrane: Option<Membrane>| {
        let levels = Levels { code: Code::Unary, steps: 48 };
        let score =
            demo.evaluated(&demo.converted(QuantOptions { membrane, ..QuantOptions::uniform(levels) }).0, 6).1.score;
        score.mean(score.kl)
    };
    let [fire, soft, tracer, leaky] = [None, Some(Membrane::IF), Some(Membrane::ST_BIF), Some(Membrane::LIF)].map(kl);
    // What they lose by the order of their inputs is less than what six windows tell apart.
    let near = |kl: f64| (0.9..1.1).contains(&(kl / fire));
    assert!(near(soft) && near(tracer), "fire {fire}, if {soft}, st_bif {tracer}");
    assert!(leaky > 2.0 * fire, "fire {fire}, lif {leaky}");
}

/// What neurons that answer at once lose is in the ledger, and its whole is the program's own.
#[test]
fn the_ledger_says_what_time_costs() {
    let demo = demo();
    let cut = cut(demo.ids.len() - 1, 64, Cut { length: None, stride: None, windows: 2 });
    let windows: Vec<_> = cut.into_iter().map(|window| window.inputs).collect();
    let levels = Levels { code: Code::Unary, steps: 16 };
    let [waiting, leaky] = [None, Some(Membrane::LIF)].map(|membrane| {
        let (_, calibration, section) = demo.converted(QuantOptions { membrane, ..QuantOptions::uniform(levels) });
        let again = Calibration::read(section.to_string().as_bytes(), &demo.tensor).unwrap();
        assert_eq!(again.membrane, calibration.membrane);
        ledger(&demo.tensor, &again, &demo.ids, &windows, 2).unwrap()
    });
    let time = |path: &str| {
        let entry = leaky.entries.iter().find(|entry| entry.path == path).unwrap();
        (entry.isolated[Cause::Time as usize].unwrap(), entry.worst())
    };
    assert!(waiting.entries.iter().all(|entry| entry.isolated[Cause::Time as usize].unwrap_or(0.0) == 0.0));
    assert_eq!(time("h.0.mlp.hidden").0, 0.0, "a GELU keeps its few-spikes neuron");
    assert_eq!(time("head").1, Cause::Time, "a leak is what the head loses most by: {leaky:#?}");
    assert!(leaky.total > 1.5 * waiting.total, "{} and {}", leaky.total, waiting.total);
}

/// Channels of the residual stream that are thirty times the others: what writes to them is read from finer levels.
#[test]
fn outlier_channels_are_written_finely() {
    let config = Gpt2Config { layers: 6, outliers: 4, ..Gpt2Config::TINY };
    let tensor = dense(imported(&config), false, &mut |_, _, _| {}).unwrap();
    let (windows, _) = snnc::convert::sample_windows(&tensor, &Sample::SeededIds, 2048).unwrap();
    let seen = snnc::calibrate::calibrate(&tensor, &windows, &[], 2).unwrap();
    let mut finer = fit(&tensor, &seen, &QuantOptions::default()).unwrap();
    finer.sites.values_mut().for_each(|fit| *fit = fit.take().filter(|fit| fit.residual.is_some()));
    assert_eq!(finer.sites.values().flatten().count(), 2 * config.layers, "outputs of attention and of the MLP");
    let mut plain = finer.clone();
    plain.sites.values_mut().flatten().for_each(|fit| fit.residual = None);
    let ids = ids(60, config.vocabulary);
    let want = run(&tensor, Options::default(), &[&ids]).logits();
    let lost = |quant_plan: &QuantPlan| {
        let graph = quantise(&tensor, &Context { quant_plan: quant_plan.clone(), ..Context::default() }).unwrap();
        let got = run(&graph, Options::default(), &[&ids]).logits();
        let rows = want.chunks(config.vocabulary).zip(got.chunks(config.vocabulary));
        rows.map(|(a, b)| 1.0 - centred_cosine(a, b)).sum::<f64>()
    };
    assert!(lost(&finer) < 0.6 * lost(&plain), "{} and {}", lost(&finer), lost(&plain));
    // A program keeps them, and channels that are none are refused.
    let quant = QuantOptions { rotate: Rotate::These(Rotations::default()), ..QuantOptions::default() };
    let recipe = ConvertOptions { quant, calibration_tokens: 512, threads: 2 };
    let mut done = spiking(tensor.clone(), &Sample::SeededIds, &recipe, &mut |_, _, _| {}).unwrap();
    let read = |section: &Json| Calibration::read(section.to_string().as_bytes(), &tensor);
    assert_eq!(read(&done.section).unwrap().quant_plan, done.calibration.quant_plan);
    done.section["sites"]["h.0.mlp.hidden"]["residual"]["outputs"] = vec![config.width].into();
    assert!(read(&done.section).unwrap_err().message.contains("names no channels of h.0.mlp.hidden"));
}

/// A front: whoever costs less loses more, and the budget of timesteps is kept.
#[test]
fn the_front_trades_damage_for_cost() {
    let demo = demo();
    let sample = Sample::Text { name: "text".into(), text: BUILT_IN_TEXT.into(), tokens: &demo.tokens };
    let (windows, _) = snnc::convert::sample_windows(&demo.tensor, &sample, 2048).unwrap();
    let seen = snnc::calibrate::calibrate(&demo.tensor, &windows, &[], 2).unwrap();
    let two = Cut { length: None, stride: None, windows: 2 };
    let ranges = cut(demo.ids.len() - 1, demo.tensor.context as usize, two);
    let tuner = Tuner {
        tensor: &demo.tensor,
        seen: &seen,
        moments: &Default::default(),
        journal: &Default::default(),
        ids: &demo.ids,
        ranges: &ranges,
        probe_tokens: 64,
        workers: 2.into(),
        base: QuantOptions::default(),
    };
    let front = tuner.front(Goal::Timesteps).unwrap();
    assert!(front.windows(2).all(|pair| pair[1].cost < pair[0].cost && pair[1].damage >= pair[0].damage));
    let program = Program::new(Arc::new(demo.tensor.clone()), &Options::default()).unwrap();
    let four = front.iter().find(|allocation| allocation.cost <= 4.0 * tuner.neurons()).unwrap();
    let point = tuner.measure(&Arc::new(program), &[Candidate::Allocated(four)]).unwrap().swap_remove(0);
    assert!((3.5..=4.0).contains(&point.timesteps), "{point:?}");
}
