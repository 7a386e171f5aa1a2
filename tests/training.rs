//! Training on small networks: what the relaxed graph means, its gradients, the engine, and that a run goes on bit for bit.

#![allow(clippy::unwrap_used)]

use snnc::ranks::Alone;
use snnc::train::adamw::Schedule;
use snnc::train::checkpoint;
use snnc::train::comparison::Comparison;
use snnc::train::events::RunIdentity;
use snnc::train::{Trainer, TrainerOptions};
use snnc_examples::gpt2::{Activation, Gpt2Config};
use snnc_examples::llama::LlamaConfig;
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::Pairs;
use snnc_ir::ssa::{GUARD, Output};
use snnc_ir::{Code, Graph, Ssa, Value, verify};
use snnc_passes::apply_parameters::apply_parameters;
use snnc_passes::collapse::{collapse, depends_on_order};
use snnc_passes::gradient::gradient;
use snnc_passes::hybrid::hybrid;
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, PHASES, QuantOptions, Rounding, Thresholds};
use snnc_passes::relax::{Loss, Recipe, TrainGraph, Trainable, relax};
use snnc_passes::residual::additions;
use snnc_runtime::{Engine, GradientProducts, Isa, PlanOptions, TrainingEngine};
use snnc_tests::{converted, demo_model, from_tensor, ids, imported, llama, options, run, say, snnc};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const CONFIG: Gpt2Config =
    Gpt2Config { layers: 2, width: 16, heads: 2, vocabulary: 40, context: 24, ..Gpt2Config::TINY };

/// A decoder of the Llama kind: heads that share keys, turned in part, normalised; gated MLPs; biases.
const LLAMA: LlamaConfig = LlamaConfig {
    layers: 1,
    width: 16,
    heads: 4,
    kv_heads: 2,
    head_width: 6,
    hidden: 20,
    vocabulary: 40,
    context: 24,
    turned: 4,
    qk_norm: true,
    bias: true,
    ..LlamaConfig::TINY
};

/// The same with a window, other pairs and norms on the residual stream.
const WINDOWED: LlamaConfig =
    LlamaConfig { window: Some(7), pairs: Pairs::Interleaved, post_norm: true, qk_norm: false, ..LLAMA };

/// Tokens of a window.
const WINDOW: usize = 20;

/// A program, and the dense network that it was made from.
struct Taught {
    name: &'static str,
    teacher: Graph,
    program: Graph,
}

fn dense() -> Graph {
    snnc::convert::dense(imported(&CONFIG), false, &mut |_, _, _| {}).unwrap()
}

fn quant_options(steps: u16, attention: Ssa) -> QuantOptions {
    let mut quant_options = QuantOptions::uniform(Levels { steps, ..Levels::default() });
    quant_options.attention = Some(attention);
    quant_options.rounding = Rounding::Nearest;
    quant_options
}

/// Attention of every kind, by name, with as many timesteps as it takes.
fn attentions() -> Vec<(&'static str, QuantOptions)> {
    let ttfs = Ssa::Ttfs { phases: PHASES };
    let token = QuantOptions { thresholds: Thresholds::Token, ..quant_options(4, ttfs) };
    vec![
        ("ttfs", quant_options(4, ttfs)),
        ("a threshold for every token", token),
        ("thresholds of heads", QuantOptions { thresholds: Thresholds::Heads, ..quant_options(4, ttfs) }),
        ("topk", quant_options(6, Ssa::TopK { phases: PHASES, keys: 5 })),
        ("coincidence", quant_options(6, Ssa::Coincidence { squared: false })),
        ("coincidence, squared", quant_options(6, Ssa::Coincidence { squared: true })),
        ("linear", quant_options(6, Ssa::Linear { guard: GUARD })),
        ("lif", quant_options(6, Ssa::Lif { output: Output::Mean })),
        ("lif, spikes", quant_options(6, Ssa::Lif { output: Output::Spikes })),
    ]
}

fn time_stepped(membrane: Membrane) -> QuantOptions {
    let levels = Levels { code: Code::Unary, steps: 6 };
    QuantOptions { membrane: Some(membrane), ..QuantOptions::uniform(levels) }
}

/// One network of every kind that trains.
fn programs() -> Vec<Taught> {
    gpt2s().into_iter().chain(llamas()).collect()
}

/// Those of GPT-2's kind.
fn gpt2s() -> Vec<Taught> {
    let mut all: Vec<Taught> = Vec::new();
    for (name, quant_options) in attentions() {
        all.push(Taught { name, teacher: dense(), program: converted(imported(&CONFIG), quant_options) });
    }
    // Time-stepped neurons, of a network whose MLPs have them too.
    for membrane in Membrane::all() {
        let relu = Gpt2Config { activation: Activation::Relu, ..CONFIG };
        let program = converted(imported(&relu), time_stepped(membrane));
        all.push(Taught { name: membrane.name(), teacher: dense(), program });
    }
    all
}

/// The same of decoders of the Llama kind.
fn llamas() -> Vec<Taught> {
    let mut all = Vec::new();
    let mut add = |name, config: &LlamaConfig, quant_options| {
        let teacher = llama(config);
        all.push(Taught { name, program: from_tensor(teacher.clone(), quant_options), teacher });
    };
    let names =
        ["llama, ttfs", "llama, by token", "llama, by head", "llama, topk", "llama, coincidence", "llama, squared"];
    let names = names.into_iter().chain(["llama, linear", "llama, lif", "llama, lif spikes"]);
    for (name, (_, quant_options)) in names.zip(attentions()) {
        add(name, &LLAMA, quant_options);
    }
    add("windows, ttfs", &WINDOWED, quant_options(4, Ssa::Ttfs { phases: PHASES }));
    add("windows, topk", &WINDOWED, quant_options(6, Ssa::TopK { phases: PHASES, keys: 3 }));
    add("llama, st_bif", &LLAMA, time_stepped(Membrane::ST_BIF));
    all
}

fn starts(relaxed: &TrainGraph) -> Vec<Vec<f32>> {
    let start = |name: &String| {
        let weight = relaxed.graph.weights.iter().find(|weight| weight.name == *name).unwrap();
        weight.tensor.as_f32().unwrap().to_vec()
    };
    relaxed.parameters.iter().map(start).collect()
}

fn recipe(train: Trainable) -> Recipe {
    Recipe { train, ..Recipe::default() }
}

/// Mean divergence of two networks' predictions, from their logits.
fn divergence(own: &[f32], dense: &[f32], width: usize) -> f64 {
    use snnc::score::{divergence, log_sum_exp};
    let rows = own.chunks_exact(width).zip(dense.chunks_exact(width));
    let each = rows.map(|(q, p)| divergence([p, q], [log_sum_exp(p), log_sum_exp(q)]));
    each.sum::<f64>() / (own.len() / width) as f64
}

fn engine(graph: &Graph, tokens: usize, parameters: &[String]) -> TrainingEngine {
    TrainingEngine::new(graph, tokens, parameters, PlanOptions::default()).unwrap()
}

/// Before a step the relaxed graph's loss is that of the program itself, level for level.
#[test]
fn an_untrained_relaxation_is_the_program() {
    let text = ids(WINDOW + 1, CONFIG.vocabulary);
    for Taught { name, teacher, program } in programs() {
        let reference = run(&teacher, options(Engine::Interpreter), &[&text[..WINDOW]]).logits();
        for train in [Trainable::Ssa, Trainable::Thresholds, Trainable::Lora(2), Trainable::All] {
            let relaxed = relax(&program, &teacher, recipe(train)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
            assert_eq!(verify::verify(&relaxed.graph), Ok(()), "{name}");
            assert_eq!(verify::verify(&relaxed.constants), Ok(()), "{name}");
            let mut whole = engine(&relaxed.graph, WINDOW, &relaxed.parameters);
            let start = starts(&relaxed);
            whole.run(&text, &start).unwrap();
            let own = run(&program, options(Engine::Interpreter), &[&text[..WINDOW]]).logits();
            let wanted = divergence(&own, &reference, CONFIG.vocabulary);
            let found = f64::from(whole.output(0, &start)[0]);
            // One spike of a time-stepped neuron more or less, where a potential is at its threshold to a rounding.
            let share = if depends_on_order(&program) || name.contains("lif") { 1e-2 } else { 1e-3 };
            assert!((found - wanted).abs() <= share * wanted + 1e-5, "{name}, {train:?}: {found}, not {wanted}");
        }
    }
}

/// Constants that nothing has moved are those of the program, to a rounding; the program is what it was.
#[test]
fn constants_come_back() {
    for Taught { name, teacher, program } in programs() {
        let trainer = trainer(&program, &teacher, Trainable::All, 1);
        let constants = trainer.constants().unwrap();
        assert!(constants.len() > 20, "{name}: {}", constants.len());
        let again = apply_parameters(&program, &constants).unwrap();
        assert_eq!(verify::verify(&again), Ok(()), "{name}");
        let names = |graph: &Graph| {
            let mut names: Vec<String> = graph.weights.iter().map(|weight| weight.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&again), names(&program), "{name}");
        let text = ids(WINDOW, CONFIG.vocabulary);
        let logits = |graph: &Graph| run(graph, options(Engine::Interpreter), &[&text]).logits();
        let (before, after) = (logits(&program), logits(&again));
        let near = snnc_tests::centred_cosine(&before, &after);
        assert!(near > 0.999, "{name}: {near}");
    }
}

/// A program that was trained predicts as the network in training did, but for weights of 8 bits, and has the same bits on
/// both engines, stepped and collapsed, whole and token by token.
#[test]
fn a_trained_program_is_what_was_trained() {
    let text = ids(400, CONFIG.vocabulary);
    let window = &text[..=WINDOW];

    for Taught { name, teacher, program } in programs() {
        let reference = run(&teacher, options(Engine::Interpreter), &[&window[..WINDOW]]).logits();
        let mut trainer = trainer(&program, &teacher, Trainable::Ssa, 2);
        for _ in 0..12 {
            trainer.advance(&text).unwrap();
        }
        // By more than twelve steps would: to the next octave, one up and one down.
        let names: Vec<String> = trainer.parameters().map(|(name, _)| name.clone()).collect();
        for (name, numbers) in names.iter().zip(&mut trainer.numbers.parameters) {
            if name.ends_with(".half_life.shift") {
                numbers.copy_from_slice(&[-0.2, 0.2]);
            }
        }
        let wanted = trainer.validate(&[window]).unwrap();
        let graph = apply_parameters(&program, &trainer.constants().unwrap()).unwrap();
        assert_eq!(verify::verify(&graph), Ok(()), "{name}");
        let periods = |graph: &Graph| -> Vec<Vec<i32>> {
            let weights = graph.weights.iter().filter(|weight| weight.name.ends_with(".half_life"));
            weights.map(|weight| weight.tensor.as_i32().unwrap().to_vec()).collect()
        };
        let moved = periods(&program).into_iter().map(|_| vec![16, 4]).collect::<Vec<Vec<i32>>>();
        assert_eq!(periods(&graph), moved, "{name}: never and 2 became these");
        let ran = run(&graph, options(Engine::Interpreter), &[&window[..WINDOW]]);
        let found = divergence(&ran.logits(), &reference, CONFIG.vocabulary);
        // Of Llama's kind one network may be this far off; `trained_decoders_are_on_average_what_was_trained` is closer.
        let near = if name.starts_with("llama") || name.starts_with("windows") { 0.25 } else { 0.05 };
        assert!((found - wanted).abs() <= near * wanted + 2e-6, "{name}: {found}, {wanted} in training");
        let mut forms = vec![graph.clone()];
        if !depends_on_order(&graph) {
            forms.push(collapse(&graph).unwrap());
        }
        let tokens: Vec<&[u32]> = window[..WINDOW].chunks(1).collect();
        let pieces = [&window[..7], &window[7..WINDOW]];
        for form in &forms {
            for engine in [Engine::Interpreter, Engine::Jit] {
                for pieces in [&tokens[..], &pieces[..]] {
                    assert_eq!(run(form, options(engine), pieces).bits, ran.bits, "{name}, {engine:?}");
                }
            }
        }
    }
}

/// Of a network without levels the whole gradient is a derivative: every parameter, against central differences in f64.
#[test]
fn gradients_of_a_whole_network_are_derivatives() {
    let gpt2 = |config: Gpt2Config| snnc::convert::dense(imported(&config), false, &mut |_, _, _| {}).unwrap();
    check_gradients(&gpt2(CONFIG), &gpt2(Gpt2Config { seed: CONFIG.seed + 1, ..CONFIG }));
    for config in [LLAMA, WINDOWED] {
        check_gradients(&llama(&config), &llama(&LlamaConfig { seed: config.seed + 1, ..config }));
    }
}

fn check_gradients(student: &Graph, teacher: &Graph) {
    let text = ids(9, CONFIG.vocabulary);
    for loss in [Loss::Divergence, Loss::CrossEntropy, Loss::Transfer] {
        let relaxed = relax(student, teacher, Recipe { loss, ..recipe(Trainable::All) }).unwrap();
        let back = gradient(&relaxed.graph, &relaxed.parameters).unwrap();
        assert_eq!(verify::verify(&back), Ok(()));
        let run = |evaluator: &Evaluator<'_, f64>, graph: &Graph| {
            let done = evaluator.run(&text[..8], &mut Memory::new(graph)).unwrap();
            let real = |(_, value): &(String, Value)| match &evaluator.get(&done, *value).content {
                Content::Real(x) => x.clone(),
                Content::Int(_) | Content::Train(_) => unreachable!(),
            };
            graph.outputs.iter().map(real).collect::<Vec<Vec<f64>>>()
        };
        let evaluator = Evaluator::<f64>::with_targets(&back, &text[1..]);
        let exact = run(&evaluator, &back);
        // The engine computes the same in f32.
        let mut whole = engine(&back, 8, &relaxed.parameters);
        let start = starts(&relaxed);
        whole.run(&text, &start).unwrap();
        for (i, (name, gradient)) in relaxed.parameters.iter().zip(&exact[1..]).enumerate() {
            let largest = gradient.iter().fold(1e-6, |most: f64, x| most.max(x.abs()));
            for (a, &b) in whole.output(i + 1, &start).iter().zip(gradient) {
                assert!((f64::from(*a) - b).abs() <= 1e-4 * largest, "{name}: {a} in f32, {b}");
            }
            let value = relaxed
                .graph
                .iter()
                .find(|(value, _)| relaxed.graph.constant(*value).is_some_and(|weight| weight.name == *name));
            let (value, _) = value.unwrap();
            for at in [0, gradient.len() / 2, gradient.len() - 1] {
                let moved = |by: f64| {
                    let mut numbers: Vec<f64> = start[i].iter().map(|&x| f64::from(x)).collect();
                    numbers[at] += by;
                    let mut evaluator = Evaluator::<f64>::with_targets(&relaxed.graph, &text[1..]);
                    evaluator.set(value, numbers);
                    run(&evaluator, &relaxed.graph)[0][0]
                };
                let step = 1e-5;
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let error = (gradient[at] - difference).abs();
                assert!(error <= 1e-4 * largest, "{name}[{at}]: {}, by differences {difference}", gradient[at]);
            }
        }
    }
}

/// With levels, features and spikes the engine's gradients are the evaluator's, wherever no number lies at a threshold.
#[test]
fn the_engine_computes_what_the_graph_says() {
    let text = ids(9, CONFIG.vocabulary);
    for Taught { name, teacher, program } in programs() {
        let relaxed = relax(&program, &teacher, recipe(Trainable::All)).unwrap();
        let back = gradient(&relaxed.graph, &relaxed.parameters).unwrap();
        let evaluator = Evaluator::<f32>::with_targets(&back, &text[1..]);
        let done = evaluator.run(&text[..8], &mut Memory::new(&back)).unwrap();
        let mut whole = engine(&back, 8, &relaxed.parameters);
        let start = starts(&relaxed);
        whole.run(&text, &start).unwrap();
        // Some gradients are 0 but for rounding, such as by what is added to all keys: all are compared as one vector.
        let (mut dot, mut squares) = (0.0, [0.0; 2]);
        for (i, (_, value)) in back.outputs.iter().enumerate() {
            let Content::Real(wanted) = &evaluator.get(&done, *value).content else { panic!("reals") };
            for (a, b) in wanted.iter().zip(whole.output(i, &start)) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                dot += a * b;
                squares[0] += a * a;
                squares[1] += b * b;
            }
        }
        let alike = dot / (squares[0] * squares[1]).sqrt();
        assert!(alike > 0.999 && (squares[0] / squares[1] - 1.0).abs() < 0.01, "{name}: {alike}, {squares:?}");
    }
}

/// Blocks are told by what they add, whatever stands before the first one, at every stage.
#[test]
fn every_block_adds_two_parts() {
    let parts = |graph: &Graph| additions(graph).len();
    // Where norms are the stream, the block that reads the embedding itself is not told yet.
    for Taught { name, teacher, program } in programs().into_iter().filter(|taught| !taught.name.starts_with("windows"))
    {
        let layers = teacher.nodes.iter().filter(|node| node.op.has_state()).count();
        assert_eq!([parts(&teacher), parts(&program)], [2 * layers; 2], "{name}");
    }
}

/// A hybrid of two programs is the program whose layers were told to attend so.
#[test]
fn a_hybrid_attends_as_two_programs_do() {
    let deep = LlamaConfig { layers: 2, ..LLAMA };
    let of_llama = |options: QuantOptions| from_tensor(llama(&deep), options);
    let of_gpt2 = |options: QuantOptions| converted(imported(&CONFIG), options);
    let makers: [(&str, &dyn Fn(QuantOptions) -> Graph); 2] = [("gpt2", &of_gpt2), ("llama", &of_llama)];
    let text = ids(WINDOW, CONFIG.vocabulary);
    let logits = |graph: &Graph| run(graph, options(Engine::Interpreter), &[&text]).bits;
    for (name, make) in makers {
        let linear = quant_options(4, Ssa::Linear { guard: GUARD });
        let ttfs = quant_options(4, Ssa::Ttfs { phases: PHASES });
        let programs = [make(linear.clone()), make(ttfs.clone())];
        for take in [[true, false], [false, true], [true, true], [false, false]] {
            let mixed = hybrid(&programs[0], &programs[1], &take).unwrap();
            assert_eq!(verify::verify(&mixed), Ok(()), "{name}");
            let asked = take.iter().enumerate().filter(|(_, take)| **take);
            let asked = asked.map(|(layer, _)| (format!("h.{layer}"), Override::Attention(ttfs.attention)));
            let wanted = make(QuantOptions { overrides: asked.collect(), ..linear.clone() });
            assert_eq!(logits(&mixed), logits(&wanted), "{name}, {take:?}");
        }
        assert!(hybrid(&programs[0], &programs[1], &[true]).is_err(), "{name}: a layer too few");
    }
}

/// The gradients of a window, one after the other, and the loss.
fn gradients_of(whole: &mut TrainingEngine, text: &[u32], relaxed: &TrainGraph) -> (f32, Vec<f64>) {
    let start = starts(relaxed);
    whole.run(text, &start).unwrap();
    let count = relaxed.parameters.len();
    let all = (1..=count).flat_map(|i| whole.output(i, &start).iter().map(|&x| f64::from(x)).collect::<Vec<f64>>());
    (whole.output(0, &start)[0], all.collect())
}

/// Gradients of bf16 point where those of f32 do, and are as long; the loss has the same bits, with the backward pass and without.
#[test]
fn gradients_in_bf16_change_little() {
    let Some(unit) = Isa::detect().ok().and_then(Isa::bf16_unit) else {
        return say("not tested: this processor, or SNNC_ISA, has no products of bf16");
    };
    let text = ids(WINDOW + 1, CONFIG.vocabulary);
    for Taught { name, teacher, program } in programs() {
        for train in [Trainable::Ssa, Trainable::Thresholds, Trainable::All] {
            let relaxed = relax(&program, &teacher, recipe(train)).unwrap();
            let back = gradient(&relaxed.graph, &relaxed.parameters).unwrap();
            let [(loss, exact), (loss_rounded, rounded)] =
                [GradientProducts::F32, GradientProducts::Bf16(unit)].map(|products| {
                    let plan = PlanOptions { products, ..PlanOptions::default() };
                    let mut whole = TrainingEngine::new(&back, WINDOW, &relaxed.parameters, plan).unwrap();
                    let (loss, gradients) = gradients_of(&mut whole, &text, &relaxed);
                    assert_eq!(whole.run_loss(&text, &starts(&relaxed)).unwrap(), loss, "{name}");
                    (loss, gradients)
                });
            assert_eq!(loss, loss_rounded, "{name}, {train:?}");
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let error: Vec<f64> = exact.iter().zip(&rounded).map(|(a, b)| a - b).collect();
            let share = (dot(&error, &error) / dot(&exact, &exact)).sqrt();
            assert!(share > 0.0 && share < 0.01, "{name}, {train:?}: bf16 changes gradients by {share}");
        }
    }
}

/// Values that are computed again for the backward pass change no bit, and take less memory.
#[test]
fn values_computed_again_are_the_same() {
    let text = ids(WINDOW + 1, CONFIG.vocabulary);
    let again = PlanOptions { recompute_above: 0, ..PlanOptions::default() };
    let mut saved = 0;
    for Taught { name, teacher, program } in programs() {
        for loss in [Loss::Divergence, Loss::CrossEntropy, Loss::Transfer] {
            let relaxed = relax(&program, &teacher, Recipe { loss, ..recipe(Trainable::All) }).unwrap();
            let back = gradient(&relaxed.graph, &relaxed.parameters).unwrap();
            let [(usual, bytes), (recomputed, fewer)] = [PlanOptions::default(), again].map(|plan| {
                let mut whole = TrainingEngine::new(&back, WINDOW, &relaxed.parameters, plan).unwrap();
                // The second window must not find what the first has left.
                gradients_of(&mut whole, &text[..].iter().rev().copied().collect::<Vec<u32>>(), &relaxed);
                (gradients_of(&mut whole, &text, &relaxed), whole.bytes())
            });
            assert!(usual == recomputed, "{name}, {loss:?}");
            assert!(fewer <= bytes, "{name}, {loss:?}: {fewer} bytes, not {bytes}");
            saved += usize::from(4 * fewer < 3 * bytes);
        }
    }
    assert!(saved > 20, "{saved} of the programs save a quarter");
}

/// A program may learn from another program; from itself it has nothing to learn.
#[test]
fn a_program_learns_from_a_program() {
    let text = ids(WINDOW + 1, CONFIG.vocabulary);
    for Taught { name, teacher, program } in programs() {
        for loss in [Loss::Divergence, Loss::Transfer] {
            let itself = relax(&program, &program, Recipe { loss, ..recipe(Trainable::All) }).unwrap();
            let mut whole = engine(&itself.graph, WINDOW, &itself.parameters);
            let found = whole.run_loss(&text, &starts(&itself)).unwrap();
            assert!(found.abs() < 1e-6, "{name}, {loss:?}: {found} from itself");
        }
        let other = relax(&program, &teacher, recipe(Trainable::All)).unwrap();
        let mut whole = engine(&other.graph, WINDOW, &other.parameters);
        assert!(whole.run_loss(&text, &starts(&other)).unwrap() > 1e-6, "{name}: the dense network is another");
    }
}

fn trainer(program: &Graph, teacher: &Graph, train: Trainable, threads: usize) -> Trainer {
    let rates = Schedule { rate: 3e-3, weight_decay: 0.01, clip: 1.0, warm_up: 2, steps: 12 };
    let (recipe, plan) = (recipe(train), PlanOptions::default());
    let options = TrainerOptions { recipe, rates, plan, batch: 3, window: WINDOW, seed: 5, threads, ranks: &Alone };
    Trainer::new(program, teacher, options).unwrap()
}

/// Time-stepped neurons of every kind: the loss falls, and their parameters move within their ranges.
#[test]
fn every_neuron_learns() {
    let teacher = dense();
    let text = ids(400, CONFIG.vocabulary);
    let windows: Vec<&[u32]> = text.chunks_exact(WINDOW + 1).take(6).collect();
    let programs = programs();
    for membrane in Membrane::all() {
        let Taught { program, .. } = programs.iter().find(|taught| taught.name == membrane.name()).unwrap();
        for train in [Trainable::Thresholds, Trainable::All] {
            let mut trainer = trainer(program, &teacher, train, 2);
            let first = trainer.validate(&windows).unwrap();
            for _ in 0..12 {
                trainer.advance(&text).unwrap();
            }
            let last = trainer.validate(&windows).unwrap();
            assert!(last < first, "{membrane:?}, {train:?}: {first} before, {last} after");
            let constants = trainer.constants().unwrap();
            let trained = apply_parameters(program, &constants).unwrap();
            assert_eq!(verify::verify(&trained), Ok(()), "{membrane:?}");
            for range in &membrane.rule().parameters {
                let of_neurons = |name: &&String| name.ends_with(&format!(".{}", range.name));
                let names: Vec<&String> = constants.keys().filter(of_neurons).collect();
                assert!(!names.is_empty(), "{membrane:?}: {} does not train", range.name);
                for name in names {
                    let numbers = &constants[name];
                    let inside = numbers.iter().all(|&x| range.least as f32 <= x && x <= range.most as f32);
                    let moved = numbers.iter().any(|&x| x != range.start as f32);
                    assert!(inside && moved, "{membrane:?}, {train:?}: {name} is {numbers:?}");
                }
            }
        }
    }
}

/// Far beyond its range a parameter is its end, and comes back.
#[test]
fn a_parameter_of_a_neuron_stays_in_its_range() {
    let teacher = dense();
    let text = ids(400, CONFIG.vocabulary);
    let Taught { program, .. } = programs().into_iter().find(|taught| taught.name == "plif").unwrap();
    let mut trainer = trainer(&program, &teacher, Trainable::Thresholds, 1);
    let names: Vec<String> = trainer.parameters().map(|(name, _)| name.clone()).collect();
    let leaks: Vec<usize> = (0..names.len()).filter(|&i| names[i].ends_with(".kept.shift")).collect();
    assert!(!leaks.is_empty(), "{names:?}");
    for (far, end) in [(10.0, 1.0), (-10.0, 0.0)] {
        for &i in &leaks {
            trainer.numbers.parameters[i].fill(far);
            trainer.numbers.best[i].fill(far);
        }
        let constants = trainer.constants().unwrap();
        let ends = constants.iter().filter(|(name, _)| name.ends_with(".kept"));
        assert!(ends.clone().count() > 0 && ends.clone().all(|(_, x)| x.iter().all(|&x| x == end)), "{ends:?}");
        assert_eq!(verify::verify(&apply_parameters(&program, &constants).unwrap()), Ok(()));
    }
    trainer.advance(&text).unwrap();
    // Ten times what the decay of weights does.
    let moved = |&i: &usize| trainer.numbers.parameters[i].iter().any(|&x| x > -10.0 + 1e-3);
    assert!(leaks.iter().any(moved), "a step leads back");
}

fn bits(arrays: &[Vec<f32>]) -> Vec<u32> {
    arrays.iter().flatten().map(|x| x.to_bits()).collect()
}

/// Threads do not show, and neither does an interruption after any step.
#[test]
fn a_run_is_the_same_however_it_is_run() {
    let teacher = dense();
    let Taught { program, .. } = programs().into_iter().find(|taught| taught.name == "coincidence").unwrap();
    let text = ids(400, CONFIG.vocabulary);
    let windows: Vec<&[u32]> = text.chunks_exact(WINDOW + 1).take(4).collect();
    let mut whole = trainer(&program, &teacher, Trainable::Ssa, 1);
    let first = whole.validate(&windows).unwrap();
    for _ in 0..12 {
        whole.advance(&text).unwrap();
    }
    let last = whole.validate(&windows).unwrap();
    assert!(last < first, "it learns: {first} before, {last} after");
    for stop in [0, 1, 7] {
        let mut part = trainer(&program, &teacher, Trainable::Ssa, 2);
        part.validate(&windows).unwrap();
        for _ in 0..stop {
            part.advance(&text).unwrap();
        }
        let state = checkpoint::State {
            version: checkpoint::VERSION,
            run: RunIdentity::default(),
            before: Comparison::default(),
            steps: 12,
            step: part.step,
            best_step: part.best_step,
            losses: part.losses.clone(),
            stall: part.stall.clone(),
            parameters: part.parameters().map(|(name, count)| (name.clone(), count)).collect(),
        };
        let mut bytes = Vec::new();
        checkpoint::write(&state, &part.numbers, &mut bytes).unwrap();
        let (state, numbers) = checkpoint::read(&bytes, "memory").unwrap();
        let mut rest = trainer(&program, &teacher, Trainable::Ssa, 3);
        (rest.numbers, rest.step, rest.losses, rest.stall) = (numbers, state.step, state.losses, state.stall);
        while rest.step < 12 {
            rest.advance(&text).unwrap();
        }
        rest.validate(&windows).unwrap();
        assert_eq!(bits(&rest.numbers.parameters), bits(&whole.numbers.parameters), "stopped after {stop}");
        assert_eq!(bits(&rest.numbers.best), bits(&whole.numbers.best));
        assert_eq!(rest.losses, whole.losses);
        assert_eq!(rest.stall, whole.stall);
    }
}

/// The command, killed where nothing can be cleaned up, and told to go on with another number of threads.
#[test]
fn a_killed_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let call = |args: &[&str]| {
        let output = Command::new(snnc()).args(args).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let model = demo_model();
    let model = model.to_str().unwrap();
    std::fs::write(at.join("text.txt"), include_str!("../docs/architecture.md")).unwrap();
    call(&[
        "compile",
        model,
        "--attention",
        "ttfs,1=coincidence,2=linear",
        "--calibration-tokens",
        "256",
        "-o",
        "start.snn",
    ]);
    let train = |output: &'static str, more: &[&'static str]| {
        let mut args = vec!["train", "start.snn", "--reference", model, "--text", "text.txt", "-o", output];
        args.extend(["--steps", "10", "--batch", "2", "--window-tokens", "24", "--validation-windows", "1"]);
        args.extend(["--checkpoint-seconds", "0", "--json"]);
        args.extend(more);
        args
    };
    call(&train("whole.snn", &["--threads", "1"]));
    let args = train("killed.snn", &["--threads", "2"]);
    let mut child =
        Command::new(snnc()).args(&args).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // One step at least is in a checkpoint when the next one's line comes.
    let reached = lines.map_while(Result::ok).any(|line| line.contains("\"step\":4,"));
    assert!(reached, "the run writes a line a step");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(at.join("killed.snn.checkpoint").is_file() && !at.join("killed.snn").exists());
    let resumed = call(&train("killed.snn", &["--threads", "1", "--resume"]));
    assert!(!resumed.contains("\"step\":1,"), "it goes on, and does not begin again: {resumed}");
    // Without a step, layers are only given back; a program says what was done to it.
    call(&[
        "train",
        "whole.snn",
        "--reference",
        model,
        "--text",
        "text.txt",
        "-o",
        "hybrid.snn",
        "--steps",
        "0",
        "--window-tokens",
        "24",
        "--hybrid",
        "perplexity+1000%",
        "--json",
    ]);
    let told = call(&["inspect", "hybrid.snn"]);
    assert!(told.contains("ssa by kl, 10 steps of 2 windows of 24 tokens") && told.contains("back to ttfs"), "{told}");
    let args = ["train", "whole.snn", "--steps", "0", "--reference", model, "--text", "text.txt", "-o", "none.snn"];
    let refused = Command::new(snnc()).args(args).current_dir(at).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--hybrid as well"));
    let start = call(&["show", "start.snn"]);
    let whole = call(&["show", "whole.snn"]);
    assert_eq!(call(&["show", "killed.snn"]), whole);
    assert_ne!(start, whole, "training changes weights");
}

/// Documents of a folder are trained on; several texts are validated on; a run that does not improve ends early, resumed or not.
#[test]
fn documents_train_until_nothing_improves() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = demo_model();
    let model = model.to_str().unwrap();
    std::fs::create_dir(at.join("texts")).unwrap();
    std::fs::write(at.join("texts/a.txt"), include_str!("../docs/architecture.md")).unwrap();
    let line = |text: &str| serde_json::json!({ "text": text }).to_string();
    let lines: Vec<String> = include_str!("../docs/ir.md").split("\n\n").map(line).collect();
    std::fs::write(at.join("texts/b.jsonl"), lines.join("\n")).unwrap();
    std::fs::write(at.join("other.txt"), include_str!("../docs/training.md")).unwrap();
    let call = |args: &[&str]| {
        let output = Command::new(snnc()).args(args).current_dir(at).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let start = ["--calibration-tokens", "256", "-o", "start.snn"];
    let (compiled, _, told) = call(&[&["compile", model, "--attention", "linear"][..], &start].concat());
    assert!(compiled, "{told}");
    let train = |output: &'static str, more: &[&'static str]| {
        let mut args = vec!["train", "start.snn", "--reference", model, "--text", "texts", "-o", output, "--json"];
        args.extend(["--steps", "8", "--batch", "1", "--window-tokens", "24", "--validation-windows", "3"]);
        args.extend(more);
        let (ended, printed, told) = call(&args);
        assert!(ended, "{told}");
        (printed, told)
    };
    let (printed, _) = train("own.snn", &["--hybrid", "perplexity+1000%"]);
    assert!(printed.contains("\"step\":8,") && !printed.contains("\"set\""), "{printed}");
    let still = ["--validate", "other.txt", "--validate", "texts/b.jsonl", "--rate", "1e-9", "--patience", "2"];
    let (printed, told) = train("still.snn", &still);
    assert!(told.contains("ended after step 2 of 8: 2 validations without improvement"), "{told}");
    assert_eq!(printed.matches("\"set\":\"texts/b.jsonl\"").count(), 3, "{printed}");
    assert!(!printed.contains("other.txt\",\"loss") && printed.matches("\"kind\":\"validation\"").count() == 6);
}

/// Rounding a small random network's weights to 8 bits moves single levels, either way; over several networks that evens out.
#[test]
fn trained_decoders_are_on_average_what_was_trained() {
    let text = ids(400, CONFIG.vocabulary);
    let window = &text[..=WINDOW];
    for attention in [Ssa::Linear { guard: GUARD }, Ssa::Lif { output: Output::Mean }] {
        let (mut found, mut wanted) = (0.0, 0.0);
        for seed in 100..106 {
            let teacher = llama(&LlamaConfig { seed, ..LLAMA });
            let program = from_tensor(teacher.clone(), quant_options(6, attention));
            let reference = run(&teacher, options(Engine::Interpreter), &[&window[..WINDOW]]).logits();
            let mut trainer = trainer(&program, &teacher, Trainable::Ssa, 2);
            for _ in 0..12 {
                trainer.advance(&text).unwrap();
            }
            wanted += trainer.validate(&[window]).unwrap();
            let graph = apply_parameters(&program, &trainer.constants().unwrap()).unwrap();
            let ran = run(&graph, options(Engine::Interpreter), &[&window[..WINDOW]]);
            found += divergence(&ran.logits(), &reference, CONFIG.vocabulary);
        }
        assert!((found - wanted).abs() <= 0.08 * wanted, "{attention:?}: {found}, {wanted} in training");
    }
}
