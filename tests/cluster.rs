//! A run on several processes gives the figures and files of one process, bit for bit: by shards that are merged, and by ranks.
//!
//! Ranks are threads here, which send each other messages. `.ci/mpi` runs the same under MPI.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc::eval::{EvalOptions, eval};
use snnc::part::PartJson;
use snnc::part_file;
use snnc::progress::{Progress, Silent};
use snnc::ranks::Ranks;
use snnc::run_record::RunRecord;
use snnc::train::{Outcome, TrainLength, TrainOptions, train};
use snnc::tune::{TuneOptions, tune};
use snnc_ir::Diagnostic;
use snnc_tests::{call, printed, snnc, write_small_model};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
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
