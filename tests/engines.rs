//! Every engine gives the same bits and the same spikes: interpreter and machine code, stepped and collapsed, every
//! instruction set, whole and in pieces, in memory and from a file.

#![allow(clippy::unwrap_used)]

use snnc_examples::gpt2::{Activation, Gpt2Config};
use snnc_ir::Code;
use snnc_ir::container::{self, File};
use snnc_passes::collapse::collapse;
use snnc_passes::quantise::Levels;
use snnc_passes::{Context, front_and_back, run as run_passes};
use snnc_runtime::{Engine, Isa, Options};
use snnc_tests::{ids, imported, options, run, spiking};
use std::sync::Arc;

const TINY: Gpt2Config = Gpt2Config { width: 24, heads: 3, vocabulary: 70, context: 32, ..Gpt2Config::TINY };

fn check(config: Gpt2Config, code: Code, steps: u16) {
    let what = format!("{config:?} {code:?} {steps}");
    let stepped = spiking(imported(&config), Levels { code, steps });
    let collapsed = collapse(&stepped).unwrap();
    let ids = ids(19, config.vocabulary);
    let want = run(&stepped, options(Engine::Interpreter), &[&ids]);
    assert!(want.events.values().any(|events| events.spikes > 0), "{what}: something fires");
    let mut engines = vec![("interpreter", options(Engine::Interpreter)), ("jit", options(Engine::Jit))];
    for isa in [Isa::Portable, Isa::Avx2].into_iter().filter(|isa| isa.is_available()) {
        engines.push((isa.name(), Options { isa: Some(isa), chunk: 5, ..options(Engine::Jit) }));
    }
    for (form, graph) in [("stepped", &stepped), ("collapsed", &collapsed)] {
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
    seven(Gpt2Config { activation: Activation::Relu, heads: 1, tied: false, ..TINY });
    seven(Gpt2Config { width: 20, heads: 4, layers: 1, ..TINY });
    seven(Gpt2Config { width: 80, heads: 2, vocabulary: 131, ..TINY });
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
