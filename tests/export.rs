//! What `snnc export` writes: ONNX files that give the program's logits, node by node, for every kind of program; NIR islands that do
//! what their rating says; arrays of runs. And NIR files of other libraries.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc::export::nir::dialect::{Dialect, Fidelity};
use snnc::export::nir::{self, NirOptions};
use snnc::export::sana_fe::{self, ChipPlacement, SanaFeOptions};
use snnc::export::{onnx, record};
use snnc::front::OnnxOptions;
use snnc::model::Loaded;
use snnc::nir::read;
use snnc::nir::simulate::Simulation;
use snnc::npy::NpyHeader;
use snnc_examples::gpt2::{Activation, Gpt2Config};
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::LevelOp;
use snnc_ir::{Code, Graph, Node, Op, Ssa, Tensor};
use snnc_passes::levels::Levels;
use snnc_passes::options::{Override, QuantOptions, Thresholds};
use snnc_runtime::Options;
use snnc_tests::{converted, ids, imported, snnc, write_small_model};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const TINY: Gpt2Config = Gpt2Config::TINY;

/// What roundings may do to logits, as a share of their range, where a runtime has an order of its own: a level or two that are
/// another one.
const NEAR: f32 = 0.02;

/// The file gives the program's logits: their bits, unless the runtime has an order of its own.
#[track_caller]
fn check(name: &str, graph: &Graph) {
    check_within(name, graph, 0.0);
}

#[track_caller]
fn check_within(name: &str, graph: &Graph, most: f32) {
    let is_linear = |node: &Node| matches!(node.op, Op::Level(LevelOp::Ssa { variant: Ssa::Linear { .. }, .. }));
    let has_linear = graph.nodes.iter().any(is_linear);
    for opset in [onnx::OPSET, onnx::OPSET_MAX] {
        let exported = onnx::export(graph, opset).unwrap_or_else(|e| panic!("{name}: {e}"));
        let proof = exported.proof;
        let nodes = exported.model.graph.unwrap_or_default().node;
        let operators = nodes.iter().filter(|node| node.op_type == "LinearAttention").count();
        assert_eq!(operators > 0, has_linear && opset == onnx::OPSET_MAX, "{name}");
        // The operator's sums are f32.
        let most = if operators > 0 { most.max(NEAR) } else { most };
        assert!(proof.range > 0.0 && proof.difference <= most * proof.range, "{name}: {}", proof.line());
    }
}

fn levels(code: Code, steps: u16) -> QuantOptions {
    QuantOptions::uniform(Levels { code, steps })
}

/// Levels of 8 bits and of more, both codes, curves, weights of 4 bits and of f32.
#[test]
fn levels_and_weights_of_all_widths() {
    for (code, steps) in [
        (Code::Binary, 1),
        (Code::Binary, 7),
        (Code::Binary, 8),
        (Code::Binary, 14),
        (Code::Unary, 9),
        (Code::Unary, 200),
    ] {
        check(&format!("{code:?} {steps}"), &converted(imported(&TINY), levels(code, steps)));
    }
    for activation in [Activation::Relu, Activation::GeluErf, Activation::GeluQuick, Activation::Silu] {
        let config = Gpt2Config { activation, ..TINY };
        check(&format!("{activation:?}"), &converted(imported(&config), QuantOptions::default()));
    }
    for thresholds in [Thresholds::Fixed, Thresholds::Token, Thresholds::Normal] {
        check(
            &format!("{thresholds:?}"),
            &converted(imported(&TINY), QuantOptions { thresholds, ..QuantOptions::default() }),
        );
    }
    // A GELU before thresholds of tokens is near, and so is what they scale.
    let rectified = Gpt2Config { activation: Activation::Relu, ..TINY };
    for steps in [7, 12] {
        let levels = Levels { steps, ..Levels::default() };
        let heads = QuantOptions { thresholds: Thresholds::Heads, ..QuantOptions::uniform(levels) };
        check(&format!("thresholds of heads, {steps} timesteps"), &converted(imported(&rectified), heads));
    }
    let grouped = QuantOptions { weight_group: Some(32), ..QuantOptions::default() };
    check("i4", &converted(imported(&TINY), grouped));
    check("f32 weights", &converted(imported(&TINY), QuantOptions { exact_weights: true, ..QuantOptions::default() }));
    let overrides = vec![("h.0.q".into(), Override::Dense), ("head".into(), Override::Dense)];
    check("dense sites", &converted(imported(&TINY), QuantOptions { overrides, ..QuantOptions::default() }));
}

#[test]
fn every_kind_of_attention() {
    type Steps = &'static [(&'static str, u16)];
    let kinds: [(Option<Ssa>, Steps); 9] = [
        (None, &[]),
        (Some(Ssa::Ttfs { phases: 3 }), &[]),
        // Scores beyond the whole numbers of f32.
        (Some(Ssa::Ttfs { phases: 8 }), &[("q", 14), ("k", 12)]),
        (Some(Ssa::TopK { phases: 8, keys: 3 }), &[]),
        (Some(Ssa::TopK { phases: 8, keys: 4 }), &[("q", 15), ("k", 13), ("v", 16)]),
        (Some(Ssa::Coincidence { squared: false }), &[("q", 1), ("v", 9)]),
        (Some(Ssa::Coincidence { squared: true }), &[]),
        (Some(Ssa::Linear { guard: 8 }), &[]),
        (Some(Ssa::Linear { guard: 8 }), &[("h.0.q", 1), ("h.1.q", 9), ("v", 16)]),
    ];
    for (attention, steps) in kinds {
        let overrides = steps.iter().map(|(site, steps)| (site.to_string(), Override::Steps(*steps))).collect();
        let mut graph = converted(imported(&TINY), QuantOptions { attention, overrides, ..QuantOptions::default() });
        check(&format!("{attention:?} {steps:?}"), &graph);
        for half_life in [[1, 2, 4, 4], [0, 16, 32, 0]] {
            let mut found = false;
            for weight in graph.weights.iter_mut().filter(|weight| weight.name.ends_with(".half_life")) {
                weight.tensor = Arc::new(Tensor::i32(&[4], half_life.to_vec()));
                found = true;
            }
            if found {
                // Sums that halve toward zero have no form as a matrix.
                let most = if matches!(attention, Some(Ssa::Linear { .. })) { NEAR } else { 0.0 };
                check_within(&format!("{attention:?} {steps:?} {half_life:?}"), &graph, most);
            }
        }
    }
}

/// Rotary positions, gated layers, grouped heads, windows, ALiBi, parallel blocks, rotations: whatever families have.
#[test]
fn every_family() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/folders");
    let mut count = 0;
    for entry in fs::read_dir(&root).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.join("config.json").is_file() {
            continue;
        }
        let loaded = Loaded::read(&folder, &OnnxOptions::default()).unwrap();
        check(&folder.display().to_string(), &converted(loaded.source.graph, QuantOptions::default()));
        count += 1;
    }
    assert!(count >= 20, "{count} folders");
}

/// What answers within a timestep is refused with what to do, and nothing is written.
#[test]
fn time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = QuantOptions { membrane: Some(Membrane::IF), ..levels(Code::Unary, 4) };
    let refused = onnx::export(&converted(imported(&TINY), options), onnx::OPSET).unwrap_err().to_string();
    assert!(refused.contains("ONNX has no timesteps") && refused.contains("--neuron fire"), "{refused}");
    write_small_model(folder.path());
    let run = |line: &str| Command::new(snnc()).args(line.split(' ')).current_dir(folder.path()).output().unwrap();
    assert!(run("compile model.onnx -o m.snn --calibration-tokens 64 --neuron if --timesteps 4").status.success());
    let failed = run("export m.snn --to onnx -o out.onnx");
    assert!(!failed.status.success() && !folder.path().join("out.onnx").exists());
    let done = run("compile model.onnx -o m.snn --calibration-tokens 64");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = run("export m.snn --to onnx -o out.onnx");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let done = run("compile model.onnx -o c.snn --calibration-tokens 64 --start 3 --first-token constant");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let program = snnc::files::read_snn(&folder.path().join("c.snn")).unwrap().graph;
    assert!(program.nodes.iter().any(|node| node.op.name() == "at_start"));
    check("the first token as a constant", &program);
    let same = run("export m.snn --to onnx -o m.snn");
    assert!(!same.status.success(), "a program is not overwritten by its own export");
}

/// A program of time-stepped neurons, with a ReLU between the projections of its MLPs.
fn time_stepped(membrane: &str) -> Graph {
    let config = Gpt2Config { activation: Activation::Relu, ..TINY };
    let membrane = Membrane::from_name(membrane);
    converted(imported(&config), QuantOptions { membrane, ..levels(Code::Unary, 9) })
}

/// Arrays of a file that `numpy.load` reads, by name: sizes and numbers of one byte.
fn bytes_of(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<i8>)> {
    let mut archive = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut arrays = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).unwrap();
        let mut all = Vec::new();
        entry.read_to_end(&mut all).unwrap();
        let header = NpyHeader::of(&all).unwrap();
        if header.kind == "|i1" {
            let numbers = all[header.bytes..].iter().map(|x| *x as i8).collect();
            arrays.insert(entry.name().unwrap().trim_end_matches(".npy").to_string(), (header.sizes, numbers));
        }
    }
    arrays
}

/// Islands that are rated faithful by the letter of NIR give the program's spikes when their files are read and run by it, at
/// every timestep; those that are rated approximate do not.
#[test]
fn nir_islands_do_what_their_rating_says() {
    let ids = ids(10, TINY.vocabulary);
    for (membrane, rating) in [("if_hard", Fidelity::Faithful), ("if", Fidelity::Approximate)] {
        let graph = time_stepped(membrane);
        let folder = tempfile::tempdir().unwrap();
        let options = NirOptions { dialect: Dialect::Nir, folder: folder.path(), trace: Some(&ids) };
        let manifest = nir::export(&graph, &options).unwrap();
        assert_eq!(manifest.weights_in_islands, 1.0);
        assert!(manifest.unsupported.is_empty());
        let mlp = manifest.islands.iter().find(|island| island.name == "h.0.mlp").unwrap();
        assert_eq!(mlp.nodes.iter().map(|node| node.r#type).collect::<String>(), "InputAffineAffineIFAffineOutput");
        let (mut compared, mut wrong) = (0, 0);
        for island in manifest.islands.iter().filter(|island| island.nodes.iter().any(|node| node.neuron.is_some())) {
            assert_eq!(island.rating, rating, "{}", island.name);
            let file = read::read(&folder.path().join(&island.file)).unwrap();
            let trace = bytes_of(&folder.path().join(island.trace.as_ref().unwrap()));
            let (sizes, input) = &trace["input"];
            let [tokens, timesteps, width] = sizes[..] else { panic!("{sizes:?}") };
            assert_eq!((tokens, timesteps), (ids.len(), 1 + 9));
            let mut simulation = Simulation::new(&file, manifest.dt).unwrap();
            for (token, rows) in input.chunks_exact(timesteps * width).enumerate() {
                simulation.reset();
                for (t, row) in rows.chunks_exact(width).enumerate() {
                    let given = simulation.step(&row.iter().map(|x| f32::from(*x)).collect::<Vec<f32>>());
                    for ((name, _), got) in file.nodes.iter().zip(&given).filter(|((name, _), _)| name.starts_with('n'))
                    {
                        let (sizes, spikes) = &trace[name];
                        let want = &spikes[(token * timesteps + t) * sizes[2]..][..sizes[2]];
                        compared += want.len();
                        wrong += want.iter().zip(got).filter(|(want, got)| f32::from(**want) != **got).count();
                    }
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
        assert_eq!(wrong == 0, rating == Fidelity::Faithful, "{membrane}: {wrong} of {compared}");
    }
}

/// A reader that subtracts gets neurons that subtract, by nodes of its own.
#[test]
fn nir_dialects_differ() {
    let ratings = |membrane: &str, dialect: Dialect| {
        let folder = tempfile::tempdir().unwrap();
        let options = NirOptions { dialect, folder: folder.path(), trace: None };
        let manifest = nir::export(&time_stepped(membrane), &options).unwrap();
        let mlp = manifest.islands.into_iter().find(|island| island.name == "h.1.mlp").unwrap();
        let types: Vec<&str> = mlp.nodes.iter().map(|node| node.r#type).collect();
        (mlp.rating, mlp.stride, types.join(" "))
    };
    let plain = |neuron: &str| format!("Input Affine Affine {neuron} Affine Output");
    assert_eq!(ratings("if_hard", Dialect::Norse), (Fidelity::Faithful, 1, plain("IF")));
    assert_eq!(ratings("if_hard", Dialect::SnnTorch), (Fidelity::Faithful, 1, plain("LIF")));
    assert_eq!(ratings("if_hard", Dialect::Sinabs), (Fidelity::Approximate, 1, plain("LIF")));
    assert_eq!(ratings("if", Dialect::SpikingJelly), (Fidelity::Approximate, 1, plain("IF")));
    assert_eq!(ratings("if", Dialect::Sinabs), (Fidelity::Faithful, 2, plain("LI LIF Affine LIF Affine")));
    let folder = tempfile::tempdir().unwrap();
    let options = NirOptions { dialect: Dialect::Nir, folder: folder.path(), trace: None };
    let default = nir::export(&converted(imported(&TINY), QuantOptions::default()), &options).unwrap();
    assert!(default.islands.iter().all(|island| island.nodes.iter().all(|node| node.neuron.is_none())));
    assert!(default.unsupported[0].reason.contains("answer within the timestep"));
}

/// NIR files that other libraries wrote give what the libraries' own networks do, where the files say all of it.
#[test]
fn nir_files_of_other_libraries_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/nir");
    let (mut exact, mut refused) = (0, Vec::new());
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "nir") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let graph = read::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
        let own = path.with_extension("json");
        let Ok(own) = fs::read_to_string(&own) else {
            assert!(Simulation::new(&graph, 1e-4).is_ok(), "{name}");
            continue;
        };
        let own: Json = serde_json::from_str(&own).unwrap();
        let mut simulation = match Simulation::new(&graph, own["dt"].as_f64().unwrap()) {
            Ok(simulation) => simulation,
            Err(e) => {
                refused.push(format!("{name}: {e}"));
                continue;
            }
        };
        let rows = |key: &str| -> Vec<Vec<f32>> { serde_json::from_value(own[key].clone()).unwrap() };
        let output = graph.nodes.iter().position(|(_, node)| node.type_name() == "Output").unwrap();
        let got: Vec<Vec<f32>> = rows("input").iter().map(|row| simulation.step(row)[output].clone()).collect();
        // What a library does beside the file stands in `but`.
        let says_all = own["but"] == "";
        assert_eq!(got == rows("output"), says_all, "{name}: {}", own["but"]);
        exact += usize::from(says_all);
    }
    assert!(exact >= 4, "{exact}");
    assert!(
        refused.len() == 1 && refused[0].starts_with("snntorch_recurrent") && refused[0].contains("cycle"),
        "{refused:?}"
    );
}

/// Arrays of a run are those of the stepped program, and potentials explain spikes.
#[test]
fn runs_are_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let graph = time_stepped("if");
    let ids = ids(6, TINY.vocabulary);
    let file = record::record(&graph, &ids, &Options::default()).unwrap();
    file.write(&folder.path().join("run.npz")).unwrap();
    let arrays = bytes_of(&folder.path().join("run.npz"));
    let (sizes, spikes) = &arrays["h.0.mlp.hidden.spikes"];
    assert_eq!(sizes[..2], [6, 9]);
    let evaluator = Evaluator::<f32>::new(&graph);
    let done = evaluator.run(&ids, &mut Memory::new(&graph)).unwrap();
    let hidden = graph.iter().find(|(value, node)| {
        node.op.is_neuron() && graph.site(*value).is_some_and(|site| site.to_string() == "h.0.mlp.hidden")
    });
    let Content::Train(parts) = &evaluator.get(&done, hidden.unwrap().0).content else { panic!("a train") };
    let width = sizes[2];
    for (t, part) in parts.iter().enumerate() {
        for (token, row) in part.chunks_exact(width).enumerate() {
            let got = &spikes[(token * 9 + t) * width..][..width];
            assert!(row.iter().zip(got).all(|(want, got)| *want == i32::from(*got)), "token {token}, timestep {t}");
        }
    }
    assert!(spikes.iter().any(|spike| *spike != 0));
    let again = record::record(&graph, &ids, &Options::default()).unwrap();
    assert_eq!(again.bytes().unwrap(), file.bytes().unwrap(), "the same bytes");
}

/// Numbers of a list in a line: `... [1,2,3]]`.
fn listed(line: &str) -> Vec<f64> {
    let list = line.rsplit_once(": [").unwrap().1.trim_end_matches(']');
    list.split(',').map(|x| x.parse().unwrap()).collect()
}

/// The network that is written for SANA-FE gives the program's spikes when it is run as its simulator runs it, and fits the chip.
#[test]
fn networks_for_sana_fe_give_the_spikes() {
    let ids = ids(6, TINY.vocabulary);
    for (membrane, placement) in [("if", ChipPlacement::Layers), ("if_hard", ChipPlacement::Packed)] {
        let folder = tempfile::tempdir().unwrap();
        let options = SanaFeOptions { placement, folder: folder.path(), trace: Some(&ids) };
        let manifest = sana_fe::export(&time_stepped(membrane), &options).unwrap();
        let yaml = fs::read_to_string(folder.path().join("network.yaml")).unwrap();
        let trace = bytes_of(&folder.path().join("spikes.npz"));
        let (mut thresholds, mut edges, mut cores) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut group = String::new();
        for line in yaml.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("- name: ") {
                group = name.into();
            } else if line.contains("[threshold: ") {
                thresholds
                    .entry(group.clone())
                    .or_insert_with(Vec::new)
                    .push(listed(&line.replace("threshold: ", ""))[0]);
            } else if let Some((ends, _)) = line.strip_prefix("- ").and_then(|line| line.split_once(": [type: dense")) {
                let (from, to) = ends.split_once(" -> ").unwrap();
                edges.push((from.to_string(), to.to_string(), listed(line)));
            } else if let Some((neuron, place)) = line.strip_prefix("- ").and_then(|l| l.split_once(": [core: ")) {
                let core = place.split(',').next().unwrap();
                *cores.entry(core.to_string()).or_insert(0) += 1;
                assert!(neuron.contains('.'), "{neuron}");
            }
        }
        assert!(cores.values().all(|count| *count <= 1024) && cores.len() <= 128, "{cores:?}");
        assert!(cores.len() == manifest.cores && cores.values().sum::<usize>() >= manifest.neurons);
        let (mut compared, mut wrong, mut spikes) = (0, 0, 0);
        for layer in manifest.groups.iter().filter(|group| group.depth.is_some()) {
            let theta = &thresholds[&layer.name];
            let own =
                |name: &str| edges.iter().filter(|edge| edge.1 == layer.name).find(|edge| edge.0.starts_with(name));
            let (bias, start) = (&own("one").unwrap().2, &own("start").unwrap().2);
            let reads: Vec<_> = edges
                .iter()
                .filter(|edge| edge.1 == layer.name && !edge.0.starts_with("one") && !edge.0.starts_with("start"))
                .collect();
            let (sizes, want) = &trace[&layer.name];
            let [tokens, timesteps, width] = sizes[..] else { panic!("{sizes:?}") };
            for token in 0..tokens {
                let mut v = start.clone();
                for t in 0..timesteps {
                    let at = token * timesteps + t;
                    v.iter_mut().zip(bias).for_each(|(v, bias)| *v += bias);
                    for (from, _, weights) in &reads {
                        let (sizes, spikes) = &trace[from];
                        let row = &spikes[at * sizes[2]..][..sizes[2]];
                        for (_, weights) in
                            row.iter().zip(weights.chunks_exact(width)).filter(|(spike, _)| **spike != 0)
                        {
                            v.iter_mut().zip(weights).for_each(|(v, weight)| *v += weight);
                        }
                    }
                    for (i, v) in v.iter_mut().enumerate() {
                        assert!(v.abs() < 33_554_432.0, "what the simulator holds");
                        let fires = *v > theta[i];
                        if fires {
                            *v = if membrane == "if" { *v - theta[i] } else { 0.015625 };
                        }
                        compared += 1;
                        spikes += usize::from(fires);
                        wrong += usize::from(fires != (want[at * width + i] != 0));
                    }
                }
            }
        }
        assert!(compared > 10_000 && spikes > 500, "{compared} {spikes}");
        assert!(wrong * 10_000 <= compared, "{membrane}: {wrong} of {compared}");
    }
}

/// Layers of several lengths have no common clock: refused, and nothing is written.
#[test]
fn one_clock_is_asked_for_by_sana_fe() {
    let config = Gpt2Config { activation: Activation::Relu, ..TINY };
    let overrides = vec![("mlp".into(), Override::Steps(5))];
    let options = QuantOptions { membrane: Some(Membrane::IF), overrides, ..levels(Code::Unary, 9) };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("chip");
    let options_of = SanaFeOptions { placement: ChipPlacement::Layers, folder: &out, trace: None };
    let refused = sana_fe::export(&converted(imported(&config), options), &options_of).unwrap_err().to_string();
    assert!(refused.contains("timesteps") && !out.exists(), "{refused}");
}
