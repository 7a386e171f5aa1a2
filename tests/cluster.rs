//! A run on several processes gives the figures and files of one process, bit for bit: by shards that are merged, and by ranks.
//!
//! Ranks are threads here, which send each other messages. `.ci/mpi` runs the same under MPI.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc::convert::dense;
use snnc::eval::{EvalOptions, eval};
use snnc::front::OnnxOptions;
use snnc::generate::{Request, continue_sequence, generate, prompt_ids};
use snnc::model::{EngineOptions, Loaded};
use snnc::part::PartJson;
use snnc::part_file;
use snnc::progress::{Progress, Silent};
use snnc::ranks::Ranks;
use snnc::run_record::RunRecord;
use snnc::sliding::OnFull;
use snnc::split_layers::{SplitNetwork, SplitSequence};
use snnc::tokens::start::StartChoice;
use snnc::train::{Outcome, TrainLength, TrainOptions, train};
use snnc::tune::{TuneOptions, tune};
use snnc_examples::gpt2::Gpt2Config;
use snnc_examples::llama::LlamaConfig;
use snnc_ir::ssa::Output;
use snnc_ir::verify::verify;
use snnc_ir::{Diagnostic, Graph, Ssa, Stage};
use snnc_passes::collapse::collapse;
use snnc_passes::options::QuantOptions;
use snnc_passes::segments::{Segment, segments};
use snnc_runtime::{Engine, Options, Program, Rows, SampleOptions, Session};
use snnc_tests::{call, from_tensor, ids, imported, llama, options, printed, run, snnc, write_small_model};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Longer than any rank of a test works between two exchanges.
const LONG: Duration = Duration::from_secs(120);

/// A thread as a rank.
#[derive(Debug)]
struct ThreadRank {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Mutex<Vec<Receiver<Vec<u8>>>>,
}

impl Ranks for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.to.len()
    }

    fn exchange(&self, messages: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Diagnostic> {
        assert_eq!(messages.len(), self.count());
        let lost = || Diagnostic::new("", "a rank is gone");
        for (to, message) in self.to.iter().zip(messages) {
            to.send(message).map_err(|_| lost())?;
        }
        self.from.lock().unwrap().iter().map(|from| from.recv_timeout(LONG).map_err(|_| lost())).collect()
    }
}

/// What so many ranks give, in their order.
fn on_ranks<T: Send>(count: usize, work: impl Fn(&'static dyn Ranks) -> T + Sync) -> Vec<T> {
    let mut to: Vec<Vec<Sender<Vec<u8>>>> = (0..count).map(|_| Vec::new()).collect();
    let mut from: Vec<Vec<Receiver<Vec<u8>>>> = (0..count).map(|_| Vec::new()).collect();
    for senders in &mut to {
        for receivers in &mut from {
            let (sender, receiver) = channel();
            senders.push(sender);
            receivers.push(receiver);
        }
    }
    let ranks = to.into_iter().zip(from).enumerate();
    let ranks: Vec<&'static ThreadRank> = ranks
        .map(|(rank, (to, from))| &*Box::leak(Box::new(ThreadRank { rank, to, from: Mutex::new(from) })))
        .collect();
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || work(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// A folder with a network, a program of it and a text.
fn fixture(attention: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_small_model(folder.path());
    let compile = ["compile", "model.onnx", "--calibration-tokens", "256", "--rounding", "nearest", "-o", "model.snn"];
    printed(folder.path(), &[&compile[..], &["--attention", attention]].concat());
    folder
}

const EVAL: [&str; 9] =
    ["eval", "model.snn", "--reference", "model.onnx", "--text", "text.txt", "--windows", "13", "--recall"];

const ENERGY: [&str; 6] = ["energy", "model.snn", "--text", "text.txt", "--windows", "5"];

/// Runs all shards of a command; their files in another order than theirs.
fn shards(folder: &Path, command: &[&str], count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for index in 0..count {
        let (shard, threads) = (format!("{index}/{count}"), (1 + index % 2).to_string());
        let more = ["--shard", &shard, "-o", "part-{shard}.json", "--threads", &threads];
        assert_eq!(printed(folder, &[command, &more].concat()), "", "a shard prints no figures");
        names.insert(0, format!("part-{index}.json"));
    }
    names
}

fn merged(folder: &Path, names: &[String], more: &[&str]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    printed(folder, &[&["merge"][..], &names, more].concat())
}

/// The JSON without what one process and several differ in.
fn figures(text: &str) -> Json {
    let mut json: Json = serde_json::from_str(text).unwrap();
    let run = json["run"].as_object_mut().unwrap();
    run.remove("host").unwrap();
    run.remove("arguments").unwrap();
    json
}

#[test]
fn merged_shards_are_one_process() {
    let folder = fixture("ttfs");
    let at = folder.path();
    for command in [&EVAL[..], &ENERGY[..]] {
        let alone = figures(&printed(at, &[command, &["--json"]].concat()));
        // With more shards than windows, some have none.
        for count in [1, 3, 16] {
            let names = shards(at, command, count);
            assert_eq!(figures(&merged(at, &names, &["--json"])), alone, "{command:?} in {count} shards");
            assert_eq!(merged(at, &names, &[]), printed(at, command), "the table of {command:?} in {count} shards");
        }
    }
    // What is merged is a record of the whole run.
    let names = shards(at, &EVAL, 2);
    fs::write(at.join("run.json"), merged(at, &names, &["--json"])).unwrap();
    assert!(printed(at, &["verify", "run.json"]).starts_with("the same results"));
}

#[test]
fn limits_hold_for_merged_shards() {
    let folder = fixture("ttfs");
    let at = folder.path();
    let command = [&EVAL[..], &["--min-cosine", "1"]].concat();
    let names = shards(at, &command, 2);
    let output = call(at, &["merge", &names[0], &names[1]]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("failed: the centred cosine"));
}

/// What a merge that is refused says.
fn refusal(folder: &Path, names: &[&str]) -> String {
    let output = call(folder, &[&["merge"][..], names].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{names:?}: {said}");
    assert!(output.stdout.is_empty() && !said.contains("panicked") && said.contains("note:"), "{names:?}: {said}");
    said
}

#[test]
fn shards_that_are_no_whole_are_refused() {
    let folder = fixture("ttfs");
    let at = folder.path();
    shards(at, &EVAL, 3);
    let said = refusal(at, &["part-0.json", "part-2.json"]);
    assert!(said.contains("shard 1/3 is missing") && said.contains("--shard 1/3"), "{said}");
    fs::copy(at.join("part-0.json"), at.join("again.json")).unwrap();
    let said = refusal(at, &["part-0.json", "part-1.json", "again.json", "part-2.json"]);
    assert!(said.contains("again.json") && said.contains("shard 0/3"), "{said}");
    // Another option, another number of shards, another text.
    let others = [&EVAL[..], &["--stride", "32"]].concat();
    printed(at, &[&others[..], &["--shard", "1/3", "-o", "other.json"]].concat());
    let said = refusal(at, &["part-0.json", "other.json", "part-2.json"]);
    assert!(said.contains("other.json") && said.contains("--stride 32"), "{said}");
    printed(at, &[&EVAL[..], &["--shard", "1/4", "-o", "fourth.json"]].concat());
    let said = refusal(at, &["part-0.json", "fourth.json", "part-2.json"]);
    assert!(said.contains("fourth.json") && said.contains("one of 4 shards"), "{said}");
    let text = fs::read_to_string(at.join("text.txt")).unwrap();
    fs::write(at.join("text.txt"), text.replace("river", "brook")).unwrap();
    let said = refusal(at, &["part-0.json", "part-1.json", "part-2.json"]);
    assert!(said.contains("text.txt") && said.contains("is not the file of the record"), "{said}");
    printed(at, &[&EVAL[..], &["--shard", "1/3", "-o", "brook.json"]].concat());
    let said = refusal(at, &["part-0.json", "brook.json", "part-2.json"]);
    assert!(said.contains("brook.json") && said.contains("text.txt (--text) has other contents"), "{said}");
}

/// A shard with other contents and the right checksum.
fn forged(folder: &Path, name: &str, change: impl FnOnce(&mut Json, &mut RunRecord)) -> PathBuf {
    let mut json: Json = serde_json::from_slice(&fs::read(folder.join("part-0.json")).unwrap()).unwrap();
    let all = json.as_object_mut().unwrap();
    all.remove("schema");
    let mut run: RunRecord = serde_json::from_value(all.remove("run").unwrap()).unwrap();
    change(&mut json, &mut run);
    let part: PartJson = serde_json::from_value(json).unwrap();
    let path = folder.join(name);
    part_file::write(&path, part, &run).unwrap();
    path
}

#[test]
fn damaged_and_hostile_shards_are_refused() {
    let folder = fixture("ttfs");
    let at = folder.path();
    shards(at, &EVAL, 1);
    let whole = fs::read_to_string(at.join("part-0.json")).unwrap();
    for end in [0, 1, 30, whole.len() / 2, whole.len() - 3] {
        fs::write(at.join("cut.json"), &whole[..end]).unwrap();
        assert!(refusal(at, &["cut.json"]).contains("cut.json"), "{end} bytes");
    }
    let nll = whole.find("\"nll\":").unwrap() + 7;
    let mut digit = whole.clone().into_bytes();
    digit[nll] = if digit[nll] == b'1' { b'2' } else { b'1' };
    fs::write(at.join("digit.json"), digit).unwrap();
    assert!(refusal(at, &["digit.json"]).contains("checksum"));
    fs::write(at.join("deep.json"), "[".repeat(1 << 20)).unwrap();
    refusal(at, &["deep.json"]);
    fs::create_dir(at.join("folder.json")).unwrap();
    assert!(!call(at, &["merge", "folder.json"]).status.success());
    let refused = |change: &dyn Fn(&mut Json, &mut RunRecord), words: &str| {
        let path = forged(at, "forged.json", change);
        let said = refusal(at, &[path.to_str().unwrap()]);
        assert!(said.contains(words), "{said}");
    };
    refused(&|part, _| part["events"][0][0][0] = u64::MAX.into(), "a node cannot do so much");
    refused(&|part, _| drop(part["events"][0].as_array_mut().unwrap().pop()), "another program");
    refused(&|part, _| part["scores"][3][0]["score"]["tokens"] = u64::MAX.into(), "window 3");
    refused(&|part, _| part["scores"][3][0]["score"]["right"] = u64::MAX.into(), "window 3");
    refused(&|part, _| part["scores"][0][0]["divergences"] = Json::Array(Vec::new()), "window 0");
    refused(&|part, _| drop(part["scores"].as_array_mut().unwrap().pop()), "scores of");
    refused(&|part, _| part["shard"]["count"] = 0.into(), "0 shards");
    refused(&|part, _| part["windows"] = u64::MAX.into(), "other windows");
    refused(&|_, run| run.commit = Some("another".into()), "is of snnc");
    refused(&|_, run| run.arguments = vec!["check".into(), "model.onnx".into()], "have shards");
    let html = ["eval", "model.snn", "--text", "text.txt", "--html", "text.txt"];
    refused(&|_, run| run.arguments = html.map(String::from).to_vec(), "writes files");
    assert!(fs::read_to_string(at.join("text.txt")).unwrap().starts_with("The river"), "nothing was written");
    // Written as it was, it is taken.
    let same = forged(at, "same.json", |_, _| {});
    printed(at, &["merge", same.to_str().unwrap()]);
}

#[test]
fn a_shard_needs_its_file_and_a_text() {
    let folder = fixture("ttfs");
    let at = folder.path();
    for args in [
        &["--shard", "0/2"][..],
        &["-o", "a.json"],
        &["--shard", "2/2", "-o", "a.json"],
        &["--shard", "slurm", "-o", "a"],
    ] {
        assert_eq!(call(at, &[&EVAL[..], args].concat()).status.code(), Some(2), "{args:?}");
    }
    let output = call(at, &["energy", "model.snn", "--shard", "0/2", "-o", "a.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--text"));
    // A task of Slurm says which shard it is.
    let slurm = [("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2"), ("PMI_SIZE", "2")];
    let args = [&EVAL[..], &["--shard", "slurm", "-o", "part-{shard}.json"]].concat();
    let output = Command::new(snnc()).args(args).current_dir(at).envs(slurm).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(at.join("part-1.json").is_file());
}

/// A launcher of MPI programs that starts a build without MPI several times gets an error, and no file.
#[test]
fn copies_of_one_process_are_refused() {
    let folder = fixture("ttfs");
    let at = folder.path();
    let before = fs::read_dir(at).unwrap().count();
    let compile = ["compile", "model.onnx", "-o", "other.snn"];
    for (args, variable) in [(&EVAL[..], "OMPI_COMM_WORLD_SIZE"), (&compile[..], "PMI_SIZE")] {
        let output = Command::new(snnc()).args(args).current_dir(at).env(variable, "4").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("4 processes were started"), "{said}");
        assert!(output.stdout.is_empty());
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), before);
    let one = Command::new(snnc()).args(ENERGY).current_dir(at).env("PMI_SIZE", "1").output().unwrap();
    assert!(one.status.success());
}

#[test]
fn ranks_evaluate_as_one_process() {
    let folder = fixture("ttfs");
    let at = |name: &str| folder.path().join(name);
    let plain = EvalOptions {
        reference: Some(at("model.onnx")),
        windows: Some(13),
        ledger: true,
        ledger_tokens: Some(64),
        threads: 1,
        ..EvalOptions::new(&at("model.snn"), &at("text.txt"))
    };
    let json = |options: &EvalOptions| {
        let found = eval(options, &Silent).unwrap_or_else(|e| panic!("{e:?}"));
        serde_json::to_string(&found[0].json()).unwrap()
    };
    let alone = json(&plain);
    for count in [2, 3, 15] {
        let all = on_ranks(count, |ranks| json(&EvalOptions { ranks, threads: 2, ..plain.clone() }));
        assert!(all.iter().all(|found| *found == alone), "{count} ranks");
    }
    // Ranks with other texts are told so, all of them.
    fs::write(at("other.txt"), "The road leads to the hills.\n".repeat(200)).unwrap();
    let told = on_ranks(2, |ranks| {
        let text = if ranks.is_first() { at("text.txt") } else { at("other.txt") };
        eval(&EvalOptions { ranks, text, ..plain.clone() }, &Silent).map(drop).unwrap_err()
    });
    assert!(told.iter().all(|told| told[0].message.contains("on rank 1")), "{told:?}");
}

#[test]
fn ranks_that_share_layers_evaluate_as_one_process() {
    for (attention, stepped) in [("ttfs", false), ("linear", true)] {
        let folder = fixture(attention);
        let at = |name: &str| folder.path().join(name);
        let engine = EngineOptions { stepped, ..EngineOptions::default() };
        // Two programs, windows that overlap, and the dense network, whose layers are shared as well.
        let plain = EvalOptions {
            models: vec![at("model.snn"), at("model.snn")],
            reference: Some(at("model.onnx")),
            windows: Some(7),
            stride: Some(40),
            threads: 1,
            engine,
            ..EvalOptions::new(&at("model.snn"), &at("text.txt"))
        };
        let json = |options: &EvalOptions| {
            let found = eval(options, &Silent).unwrap_or_else(|e| panic!("{e:?}"));
            found.iter().map(|one| serde_json::to_string(&one.json()).unwrap()).collect::<Vec<String>>()
        };
        let alone = json(&plain);
        for count in [1, 2, 4] {
            let all =
                on_ranks(count, |ranks| json(&EvalOptions { ranks, split_layers: true, threads: 2, ..plain.clone() }));
            assert!(all.iter().all(|found| *found == alone), "{attention} on {count} ranks");
        }
        let told = on_ranks(15, |ranks| {
            eval(&EvalOptions { ranks, split_layers: true, ..plain.clone() }, &Silent).map(drop).unwrap_err()
        });
        assert!(told.iter().all(|told| told[0].message.contains("does not fit 15 ranks")), "{told:?}");
    }
}

#[test]
fn ranks_that_share_layers_write_as_one_process() {
    let folder = fixture("ttfs");
    let loaded = || Loaded::read(&folder.path().join("model.snn"), &OnnxOptions::default()).unwrap();
    let engine = EngineOptions::default();
    let prompt = "The river runs to the sea. ".repeat(2);
    // More than the context holds, and drawn by chance.
    let options = SampleOptions { temperature: 0.8, seed: 5, ..SampleOptions::default() };
    let request = Request { options, on_full: OnFull::Slide, ..Request::new(&prompt, 40) };
    let (tokens, program) = loaded().ready(&StartChoice::Auto, &engine, None);
    let (tokens, program) = (tokens.unwrap(), program.unwrap());
    let alone = generate(&program, &tokens, &request, &mut |_| Ok(())).unwrap();
    assert!(alone.slides > 0);
    for count in [1, 2, 3] {
        let texts = on_ranks(count, |ranks| {
            let network = SplitNetwork::new(loaded().source, &engine, None, ranks).unwrap();
            let mut sequence = SplitSequence::new(&network, ranks).unwrap();
            let ids = prompt_ids(&tokens, &prompt, usize::MAX, "").unwrap();
            continue_sequence(&mut sequence, &tokens, &request, ids, &mut |_| Ok(())).unwrap().ids
        });
        assert!(texts.iter().all(|ids| *ids == alone.ids), "{count} ranks");
    }
    // All layers are somewhere, and none is in two places.
    let nodes = on_ranks(3, |ranks| {
        let network = SplitNetwork::new(loaded().source, &engine, None, ranks).unwrap();
        network.own_nodes().map(|value| network.whole.node(value).op.to_string()).collect::<Vec<String>>()
    });
    let of = |name: &str| nodes.iter().map(|own| own.iter().filter(|op| op.starts_with(name)).count()).sum::<usize>();
    assert_eq!([of("ssa"), of("matmul_int")], [2, 13], "{nodes:?}");
    assert!(nodes.iter().all(|own| own.iter().any(|op| op == "matmul_int")), "{nodes:?}");
}

/// Runs segments one behind the other on pieces of a sequence, and gives the bits of the last one's logits.
fn run_segments(graph: &Graph, count: usize, options: Options, pieces: &[&[u32]]) -> Vec<u32> {
    let parts = segments(graph, count).unwrap_or_else(|e| panic!("{e:?}"));
    let session = |part: &Segment| {
        verify(&part.graph).unwrap_or_else(|e| panic!("{e:?}"));
        assert_eq!(part.nodes.len(), part.graph.nodes.len());
        Session::new(Arc::new(Program::new(Arc::new(part.graph.clone()), &options).unwrap())).unwrap()
    };
    let mut sessions: Vec<Session> = parts.iter().map(session).collect();
    let mut bits = Vec::new();
    for piece in pieces {
        let mut stream: Vec<f32> = Vec::new();
        for (part, session) in parts.iter().zip(&mut sessions) {
            let outputs = session.forward_behind(piece, &stream, Rows::All).unwrap_or_else(|e| panic!("{e:?}"));
            stream = outputs.f32(&part.graph.outputs[0].0).unwrap().to_vec();
        }
        bits.extend(stream.iter().map(|x| x.to_bits()));
    }
    bits
}

#[test]
fn segments_are_the_whole_network() {
    let small = LlamaConfig { layers: 3, ..LlamaConfig::TINY };
    let tensor = llama(&small);
    let mut graphs = vec![("dense", tensor.clone())];
    for (name, kind) in [
        ("ttfs", Ssa::Ttfs { phases: 8 }),
        ("coincidence", Ssa::Coincidence { squared: false }),
        ("linear", Ssa::Linear { guard: 8 }),
        ("lif", Ssa::Lif { output: Output::Spikes }),
    ] {
        let quant = QuantOptions { attention: Some(kind), ..QuantOptions::default() };
        graphs.push((name, from_tensor(tensor.clone(), quant)));
    }
    graphs.push(("learned positions", imported(&Gpt2Config { layers: 2, ..Gpt2Config::TINY })));
    let ids = ids(21, small.vocabulary);
    for (name, graph) in graphs {
        let graph =
            if graph.stage == Stage::Imported { dense(graph, false, &mut |_, _, _| {}).unwrap() } else { graph };
        let collapsed = if graph.stage == Stage::Spiking {
            collapse(&graph).unwrap_or_else(|_| graph.clone())
        } else {
            graph.clone()
        };
        for graph in [&graph, &collapsed] {
            for engine in [Engine::Jit, Engine::Interpreter] {
                let pieces = [&ids[..9], &ids[9..10], &ids[10..]];
                let whole = run(graph, options(engine), &pieces).bits;
                for count in [1, 2, 3, 5] {
                    let found = run_segments(graph, count, options(engine), &pieces);
                    assert!(found == whole, "{name}, {:?}, {engine:?}, {count} segments", graph.stage);
                }
            }
        }
        // Segments take about as many bytes as each other.
        let bytes = |part: &Segment| -> usize {
            part.graph.weights.iter().map(|weight| weight.tensor.data().bytes().len()).sum()
        };
        let sizes: Vec<usize> = segments(&collapsed, 2).unwrap().iter().map(bytes).collect();
        assert!(sizes[0].abs_diff(sizes[1]) * 3 < sizes[0] + sizes[1], "{name}: {sizes:?}");
    }
}

#[test]
fn rows_that_are_no_stream_are_refused() {
    let tensor = llama(&LlamaConfig::TINY);
    let parts = segments(&tensor, 2).unwrap();
    for engine in [Engine::Jit, Engine::Interpreter] {
        let open =
            |graph: &Graph| Session::new(Arc::new(Program::new(Arc::new(graph.clone()), &options(engine)).unwrap()));
        let width = parts[1].graph.stream_width().unwrap();
        let mut second = open(&parts[1].graph).unwrap();
        for rows in [0, width - 1, width, 3 * width] {
            let told = second.forward_behind(&[1, 2], &vec![0.5; rows], Rows::All).map(drop).unwrap_err();
            assert!(told.message.contains("numbers of its stream are needed"), "{told:?}");
        }
        assert!(second.forward(&[1], Rows::All).is_err());
        let told = second.forward_behind(&[1], &vec![f32::NAN; width], Rows::All).map(drop).unwrap_err();
        assert!(told.message.contains("NaN"), "{told:?}");
        assert_eq!(second.past(), 0);
        assert!(open(&parts[0].graph).unwrap().forward_behind(&[1], &[0.0], Rows::All).is_err());
        assert!(second.forward_behind(&[1, 2], &vec![0.5; 2 * width], Rows::All).is_ok());
    }
}

#[test]
fn ranks_tune_as_one_process() {
    let folder = fixture("ttfs");
    let at = |name: &str| folder.path().join(name);
    let plain = TuneOptions {
        windows: Some(2),
        calibration_tokens: Some(128),
        probe_tokens: Some(32),
        threads: 1,
        ..TuneOptions::new(&at("model.onnx"), &at("text.txt"))
    };
    let json = |options: &TuneOptions| {
        let found = tune(options, &Silent).unwrap_or_else(|e| panic!("{e:?}"));
        serde_json::to_string(&found.json()).unwrap()
    };
    let alone = json(&plain);
    let journal = Some(at("tune.jsonl"));
    let all = on_ranks(3, |ranks| json(&TuneOptions { ranks, journal: journal.clone(), ..plain.clone() }));
    assert!(all.iter().all(|found| *found == alone));
    // The journal has everything: a run of one process goes on from it, and measures nothing anew.
    let kept = fs::read_to_string(at("tune.jsonl")).unwrap();
    assert_eq!(json(&TuneOptions { journal, ..plain.clone() }), alone);
    assert_eq!(fs::read_to_string(at("tune.jsonl")).unwrap(), kept);
    assert!(kept.lines().count() > 50, "{} lines", kept.lines().count());
}

/// Asks for an end after so many steps.
#[derive(Debug)]
struct EndsAfter(u64, AtomicU64);

impl Progress for EndsAfter {
    fn message(&self, _: &str) {
        // Told once per step.
        self.1.fetch_add(1, Ordering::SeqCst);
    }

    fn is_cancelled(&self) -> bool {
        self.1.load(Ordering::SeqCst) >= self.0
    }
}

fn training(folder: &Path, output: &str) -> TrainOptions {
    let at = |name: &str| folder.join(name);
    TrainOptions {
        length: TrainLength::Steps(6),
        batch: 5,
        window_tokens: Some(16),
        validation_windows: 3,
        threads: 1,
        ..TrainOptions::new(&at("model.snn"), &at("model.onnx"), &at("text.txt"), &at(output))
    }
}

fn train_all(options: &TrainOptions, progress: &dyn Progress) -> Outcome {
    train(options, progress, &mut |_| Ok(())).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn ranks_train_as_one_process() {
    let folder = fixture("linear");
    let at = |name: &str| folder.path().join(name);
    let plain = training(folder.path(), "alone.snn");
    train_all(&plain, &Silent);
    let alone = fs::read(at("alone.snn")).unwrap();
    assert_ne!(alone, fs::read(at("model.snn")).unwrap(), "something was learned");
    for count in [1, 2, 3, 7] {
        for threads in [1, 2] {
            let output = at(&format!("{count}-{threads}.snn"));
            let options = TrainOptions { output: output.clone(), threads, ..plain.clone() };
            let ended = on_ranks(count, |ranks| train_all(&TrainOptions { ranks, ..options.clone() }, &Silent));
            assert!(ended.iter().all(|ended| *ended == Outcome::Finished));
            assert!(fs::read(output).unwrap() == alone, "{count} ranks of {threads} threads");
        }
    }
}

#[test]
fn another_number_of_ranks_goes_on() {
    let folder = fixture("linear");
    let at = |name: &str| folder.path().join(name);
    train_all(&training(folder.path(), "alone.snn"), &Silent);
    let plain = training(folder.path(), "trained.snn");
    // Rank 2 alone is told to end: all end after the same step.
    let ended = on_ranks(3, |ranks| {
        let progress = EndsAfter(if ranks.rank() == 2 { 2 } else { u64::MAX }, AtomicU64::new(0));
        train_all(&TrainOptions { ranks, ..plain.clone() }, &progress)
    });
    assert!(ended.iter().all(|ended| matches!(ended, Outcome::Interrupted { step: 2, .. })), "{ended:?}");
    assert!(!at("trained.snn").exists());
    let resumed = TrainOptions { resume: true, ..plain };
    on_ranks(2, |ranks| {
        let progress = EndsAfter(if ranks.rank() == 1 { 2 } else { u64::MAX }, AtomicU64::new(0));
        train_all(&TrainOptions { ranks, ..resumed.clone() }, &progress)
    });
    train_all(&resumed, &Silent);
    assert!(fs::read(at("trained.snn")).unwrap() == fs::read(at("alone.snn")).unwrap());
}
