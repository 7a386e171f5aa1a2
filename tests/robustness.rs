//! What may happen to a process while it works: killed, interrupted, out of disk, memory or readers, or beside another of its
//! kind. Outputs are whole or untouched, inputs are untouched, nothing is left behind, and the exit status says what happened.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use snnc_tests::{demo_model, snnc};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// What no call takes.
const LONG: Duration = Duration::from_secs(30);

/// A folder with a network, a program, its tokenizer and a text.
struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::copy(demo_model(), at("model.onnx")).unwrap();
        fs::copy(demo_model().with_file_name("tokenizer.json"), at("tokenizer.json")).unwrap();
        let text = "The river runs to the sea . The road follows it to the town .\n".repeat(80);
        fs::write(at("text.txt"), text).unwrap();
        fs::write(at("layer.ir"), include_str!("cases/spike/quant.ir")).unwrap();
        fs::write(at("prompts.txt"), "The\n").unwrap();
        let fixture = Self { folder };
        let compile = ["compile", "model.onnx", "-o", "m.snn", "--calibration-tokens", "256"];
        assert_eq!(fixture.call(&compile).status.code(), Some(0));
        fixture
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(snnc());
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A call after some words of a shell, such as a limit.
    fn after(&self, shell: &str, args: &[&str]) -> Output {
        let words = format!("{shell}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &words]).arg(snnc()).args(args).current_dir(self.folder.path());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn started(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Every file of the folder with its bytes, or where a link leads.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        // A pipe would be waited for.
        let bytes = |path: PathBuf| match fs::symlink_metadata(&path).unwrap().file_type() {
            kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            kind if kind.is_file() => fs::read(&path).unwrap(),
            _ => Vec::new(),
        };
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), bytes(entry.path()))).collect()
    }

    /// Temporary files that were left.
    fn left(&self) -> Vec<String> {
        self.files().into_keys().filter(|name| name.starts_with(".snnc-")).collect()
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ended(mut child: Child) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if since.elapsed() > LONG {
            child.kill().unwrap();
            panic!("it hangs: {:?}", child.wait());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
}

/// Every command that writes a file: its words, and the file, which is the same for the same words.
const WRITERS: [(&[&str], &str); 6] = [
    (&["compile", "model.onnx", "--calibration-tokens", "256", "-o", "out.snn"], "out.snn"),
    (&["report", "m.snn", "--text", "text.txt", "--tokens", "64", "-o", "out.html"], "out.html"),
    (&["eval", "m.snn", "--text", "text.txt", "--windows", "2", "--html", "eval.html"], "eval.html"),
    (&["logits", "m.snn", "--tokens", "5,17,9", "-o", "out.npy"], "out.npy"),
    (&["opt", "layer.ir", "--passes", "spike", "-o", "out.ir"], "out.ir"),
    (&["show", "m.snn", "--emit", "clif=out.clif"], "out.clif"),
];

/// The words of a short run of training.
const TRAIN: [&str; 19] = [
    "train",
    "m.snn",
    "--reference",
    "model.onnx",
    "--text",
    "text.txt",
    "-o",
    "trained.snn",
    "--batch",
    "1",
    "--window-tokens",
    "16",
    "--validation-windows",
    "1",
    "--checkpoint-seconds",
    "0",
    "--threads",
    "1",
    "--json",
];

/// A short run of training of so many steps.
fn train<'a>(steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], &["--steps", steps], more].concat()
}

/// More steps than a test waits for.
const ENDLESS: &str = "100000";

/// Waits until a run of training has a checkpoint.
fn wait_for(path: &Path) {
    let since = Instant::now();
    while !path.exists() {
        assert!(since.elapsed() < LONG, "{} comes", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Killed or interrupted at any time, an output is what it was, or whole.
#[test]
fn a_process_that_ends_early_tears_no_file() {
    let fixture = Fixture::new();
    for (args, output) in WRITERS {
        let since = Instant::now();
        let done = fixture.call(args);
        assert_eq!(done.status.code(), Some(0), "{args:?}: {}", told(&done));
        let (time, whole) = (since.elapsed(), fs::read(fixture.at(output)).unwrap());
        for (at, name) in (1..=6).zip(["-KILL", "-INT", "-TERM", "-INT"].into_iter().cycle()) {
            fs::write(fixture.at(output), "before").unwrap();
            let child = fixture.started(args);
            std::thread::sleep(time * at / 6);
            signal(&child, name);
            let status = ended(child);
            let now = fs::read(fixture.at(output)).unwrap();
            assert!(now == b"before" || now == whole, "{args:?}, {name} after {at} sixths: {} bytes", now.len());
            if name == "-KILL" {
                fixture.left().iter().for_each(|name| fs::remove_file(fixture.at(name)).unwrap());
            } else if status.code() == Some(0) {
                assert!(now == whole, "{args:?}: status 0 is a whole output");
            } else {
                // A signal that comes before it can be caught ends the process as it ends any other.
                assert!(status.code() == Some(130) || status.code().is_none(), "{args:?}, {name}: {status:?}");
            }
            assert!(fixture.left().is_empty(), "{args:?}, {name} after {at} sixths: {:?}", fixture.left());
        }
        fs::remove_file(fixture.at(output)).unwrap();
    }
}

/// A run of training leaves a checkpoint, which nobody replaces or removes who does not say so.
#[test]
fn a_checkpoint_belongs_to_its_run() {
    let fixture = Fixture::new();
    let (checkpoint, output) = (fixture.at("trained.snn.checkpoint"), fixture.at("trained.snn"));
    let child = fixture.started(&train(ENDLESS, &[]));
    wait_for(&checkpoint);
    signal(&child, "-INT");
    assert_eq!(ended(child).code(), Some(130));
    assert!(fixture.left().is_empty() && !output.exists());
    let before = fixture.files();
    for (args, words) in [
        (train(ENDLESS, &[]), "--restart"),
        (train("3", &[]), "--restart"),
        (train("0", &["--hybrid", "perplexity+2%"]), "--restart"),
        (train("0", &["--hybrid", "perplexity+2%", "--resume"]), "0 steps go on with nothing"),
        (train("3", &["--resume"]), "--steps says 3"),
        (train(ENDLESS, &["--resume", "--seed", "1"]), "belongs to another run"),
    ] {
        let refused = fixture.call(&args);
        assert_eq!(refused.status.code(), Some(1), "{args:?}: {}", told(&refused));
        assert!(told(&refused).contains(words), "{args:?} should say `{words}`: {}", told(&refused));
        assert!(fixture.files() == before, "{args:?} leaves everything as it is");
    }
    assert_eq!(fixture.call(&train("3", &["--resume", "--restart"])).status.code(), Some(2));
    // Another run's output that would be this checkpoint.
    let own = ["compile", "model.onnx", "-o", "m.snn.checkpoint"];
    assert_eq!(fixture.call(&own).status.code(), Some(0), "a checkpoint's name is a name");
    fs::remove_file(fixture.at("m.snn.checkpoint")).unwrap();
    let anew = fixture.call(&train("3", &["--restart"]));
    assert_eq!(anew.status.code(), Some(0), "{}", told(&anew));
    assert!(output.exists() && !checkpoint.exists());
}

/// Who writes the same file at the same time: the file is one of theirs, and whole.
#[test]
fn two_writers_of_one_file() {
    let fixture = Fixture::new();
    let compile =
        |steps| ["compile", "model.onnx", "--calibration-tokens", "256", "-o", "out.snn", "--timesteps", steps];
    let mut whole = Vec::new();
    for steps in ["4", "7"] {
        assert_eq!(fixture.call(&compile(steps)).status.code(), Some(0));
        whole.push(fs::read(fixture.at("out.snn")).unwrap());
    }
    for _ in 0..3 {
        let children = ["4", "7", "4", "7"].map(|steps| fixture.started(&compile(steps)));
        assert!(children.into_iter().all(|child| ended(child).code() == Some(0)));
        assert!(whole.contains(&fs::read(fixture.at("out.snn")).unwrap()));
    }
    // Two runs of training: one at most has the checkpoint.
    let runs =
        [(); 2].map(|()| fixture.command(&train("40", &[])).stdout(Stdio::null()).stderr(Stdio::piped()).spawn());
    let done = runs.map(|run| run.unwrap().wait_with_output().unwrap());
    let finished = done.iter().filter(|output| output.status.code() == Some(0)).count();
    assert!(finished >= 1, "{}", done.iter().map(told).collect::<String>());
    for output in done.iter().filter(|output| output.status.code() != Some(0)) {
        let words = told(output);
        assert!(words.contains("another run") || words.contains("has not ended"), "{words}");
    }
    assert_eq!(fixture.call(&["show", "trained.snn"]).status.code(), Some(0));
    assert!(fixture.left().is_empty());
}

/// A small file system of its own, where this process may mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(&at).output();
        let done = mount.is_ok_and(|mount| mount.status.success());
        if !done {
            eprintln!("no file system can be mounted here: limits of files stand in for a full disk");
        }
        done.then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The words with their outputs in a folder.
fn in_folder(args: &[&str], output: &str, folder: &str) -> Vec<String> {
    args.iter().map(|arg| arg.replace(output, &format!("{folder}/{output}"))).collect()
}

/// A full disk, and a limit of the size of files: the error names the output, and what was there is there.
#[test]
fn a_full_disk_is_an_error() {
    let fixture = Fixture::new();
    let disk = Disk::mount(fixture.at("disk"), "size=64k");
    if disk.is_some() {
        for (_, output) in WRITERS {
            fs::write(fixture.at("disk").join(output), "before").unwrap();
        }
        let filled = fs::write(fixture.at("disk/filler"), vec![0; 1 << 20]);
        assert!(filled.is_err(), "the disk is full");
    }
    for (args, output) in WRITERS {
        if disk.is_some() {
            let args = in_folder(args, output, "disk");
            let failed = fixture.call(&args.iter().map(String::as_str).collect::<Vec<_>>());
            let words = told(&failed);
            assert_eq!(failed.status.code(), Some(1), "{args:?}: {words}");
            assert!(words.contains(output) && words.contains("cannot be written"), "{args:?}: {words}");
            assert_eq!(fs::read(fixture.at("disk").join(output)).unwrap(), b"before", "{args:?}");
            let left = fs::read_dir(fixture.at("disk")).unwrap().count();
            assert_eq!(left, WRITERS.len() + 1, "{args:?} leaves no file");
        }
        fs::write(fixture.at(output), "before").unwrap();
        let failed = fixture.after("ulimit -f 0", args);
        assert_eq!(failed.status.code(), Some(1), "{args:?}: {}", told(&failed));
        assert_eq!(fs::read(fixture.at(output)).unwrap(), b"before", "{args:?}");
        assert!(fixture.left().is_empty(), "{args:?}: {:?}", fixture.left());
    }
    // Training keeps what is on the disk.
    let failed = fixture.after("ulimit -f 1", &train("3", &[]));
    assert!(failed.status.code() == Some(1) && told(&failed).contains("trained.snn"), "{}", told(&failed));
    assert!(fixture.left().is_empty() && !fixture.at("trained.snn").exists());
}

/// A folder that takes no files is said before any work.
#[test]
fn a_read_only_folder_is_refused_at_once() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.at("closed")).unwrap();
    fs::set_permissions(fixture.at("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut folder = "closed";
    let mut _disk = None;
    if fs::write(fixture.at("closed/probe"), "").is_ok() {
        eprintln!("this user may write everywhere: a read-only file system stands in for a folder's permissions");
        _disk = Disk::mount(fixture.at("disk"), "ro");
        folder = "disk";
        if _disk.is_none() {
            return;
        }
    }
    let refused = |args: &[&str]| {
        let since = Instant::now();
        let output = fixture.call(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", told(&output));
        assert!(told(&output).contains("cannot be written"), "{args:?}: {}", told(&output));
        assert!(since.elapsed() < Duration::from_secs(2), "{args:?} is refused at once");
    };
    for (args, output) in WRITERS {
        let args = in_folder(args, output, folder);
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let output = format!("{folder}/trained.snn");
    let args: Vec<&str> =
        train(ENDLESS, &[]).into_iter().map(|arg| if arg == "trained.snn" { &output } else { arg }).collect();
    refused(&args);
}

/// Nobody reads standard output: whoever writes files goes on, the others end as SIGPIPE ends a process.
#[test]
fn a_closed_standard_output() {
    let fixture = Fixture::new();
    let closed = |args: &[&str]| {
        let mut child = fixture.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    };
    for args in [
        &["show", "m.snn"][..],
        &["check", "model.onnx"],
        &["run", "m.snn", "--prompt", "The", "-n", "3"],
        &["run", "m.snn", "--prompts", "prompts.txt", "-n", "3"],
        &["eval", "m.snn", "--text", "text.txt", "--windows", "1"],
        &["energy", "m.snn", "--json"],
        &["inspect", "m.snn"],
        &["opt", "layer.ir"],
        &["logits", "m.snn", "--tokens", "1", "-o", "-"],
        &["bench", "m.snn", "--prompts", "4", "--depths", "4", "--decoded", "2", "--repeats", "1"],
    ] {
        let output = closed(args);
        assert_eq!(output.status.code(), Some(141), "{args:?}: {}", told(&output));
        let full = fixture.after("exec > /dev/full", args);
        assert_eq!(full.status.code(), Some(1), "{args:?}: {}", told(&full));
        assert!(told(&full).contains("standard output: cannot be written"), "{args:?}: {}", told(&full));
    }
    let eval = ["eval", "m.snn", "--text", "text.txt", "--windows", "1", "--json", "--html", "out.html"];
    let compile = ["compile", "model.onnx", "--calibration-tokens", "256", "--emit", "ir=raise", "-o", "out.snn"];
    let run = ["run", "m.snn", "--prompt", "The", "-n", "3", "--emit", "asm=out.asm"];
    for (args, file) in
        [(&eval[..], "out.html"), (&compile, "out.snn"), (&run, "out.asm"), (&train("3", &[]), "trained.snn")]
    {
        let output = closed(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", told(&output));
        assert!(fixture.at(file).exists(), "{args:?} writes {file}");
    }
}

/// Too little memory for threads: fewer of them, or an error.
#[test]
fn little_memory_is_no_panic() {
    let fixture = Fixture::new();
    let threads = ["--threads", "64"];
    let eval = ["eval", "m.snn", "--text", "text.txt", "--windows", "16", "--stride", "8"];
    let run = ["run", "m.snn", "--prompt", "The", "-n", "3"];
    let tune = [
        "tune",
        "model.onnx",
        "--text",
        "text.txt",
        "--windows",
        "1",
        "--probe-tokens",
        "16",
        "--calibration-tokens",
        "64",
    ];
    let train = train("1", &[]);
    let train: Vec<&str> = train.iter().filter(|arg| !["--threads", "1", "--batch"].contains(*arg)).copied().collect();
    let train = [&train[..], &["--batch", "64"]].concat();
    for limit in ["60000", "300000"] {
        for args in [&eval[..], &run, &tune, &train] {
            let args = [args, &threads].concat();
            let output = fixture.after(&format!("ulimit -v {limit}"), &args);
            let words = told(&output);
            // The arena of a session is not a matter of threads.
            let arena = words.contains("is not to be had");
            assert!(arena || !words.contains("panicked"), "{limit} kB, {args:?}: {words}");
            assert_ne!(output.status.code(), Some(101), "{limit} kB, {args:?}: {words}");
            let _ = fs::remove_file(fixture.at("trained.snn.checkpoint"));
        }
    }
    // What one thread has room for is done, however many are asked for.
    let output = fixture.after("ulimit -v 900000", &[&eval[..], &threads].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let output = fixture.call(&["eval", "m.snn", "--text", "text.txt", "--threads", "1000000"]);
    assert!(output.status.code() == Some(2) && told(&output).contains("from 1 to"), "{}", told(&output));
}

/// Outputs are made as the user's umask says; what is replaced keeps its permissions; links stay links.
#[test]
fn outputs_are_files_as_any_other() {
    let fixture = Fixture::new();
    let logits = ["logits", "m.snn", "--tokens", "1", "-o", "out.npy"];
    let mode = |name: &str| fs::metadata(fixture.at(name)).unwrap().mode() & 0o777;
    for (umask, wanted) in [("077", 0o600), ("022", 0o644), ("007", 0o660)] {
        assert_eq!(fixture.after(&format!("umask {umask}"), &logits).status.code(), Some(0));
        assert_eq!(mode("out.npy"), wanted, "umask {umask}");
        fs::remove_file(fixture.at("out.npy")).unwrap();
    }
    fs::write(fixture.at("real.npy"), "before").unwrap();
    fs::set_permissions(fixture.at("real.npy"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.npy", fixture.at("out.npy")).unwrap();
    assert_eq!(fixture.call(&logits).status.code(), Some(0));
    assert!(fs::symlink_metadata(fixture.at("out.npy")).unwrap().is_symlink());
    assert!(fs::read(fixture.at("real.npy")).unwrap().starts_with(b"\x93NUMPY"));
    assert_eq!(mode("real.npy"), 0o640);
    let to_stdout = fixture.call(&["logits", "m.snn", "--tokens", "1", "-o", "-"]);
    assert_eq!(to_stdout.stdout, fs::read(fixture.at("real.npy")).unwrap());
    assert!(!fixture.at("-").exists());
    assert_eq!(fixture.call(&["opt", "layer.ir", "-o", "-"]).stdout, fixture.call(&["opt", "layer.ir"]).stdout);
}

/// Outputs that would destroy an input or one another, and outputs that are no files: refused before any work.
#[test]
fn no_output_is_an_input() {
    let fixture = Fixture::new();
    fs::hard_link(fixture.at("m.snn"), fixture.at("hard.snn")).unwrap();
    symlink("text.txt", fixture.at("soft.txt")).unwrap();
    symlink("nowhere/at/all", fixture.at("astray")).unwrap();
    fs::create_dir(fixture.at("folder")).unwrap();
    let fifo = Command::new("mkfifo").arg(fixture.at("fifo")).status();
    assert!(fifo.is_ok_and(|status| status.success()));
    let long = "x".repeat(300);
    let train = |output: &'static str| {
        train("1", &[]).into_iter().map(move |arg| if arg == "trained.snn" { output } else { arg })
    };
    let mut calls: Vec<Vec<&str>> = vec![
        vec!["compile", "model.onnx", "-o", "model.onnx"],
        vec!["compile", "model.onnx", "-o", "folder/../tokenizer.json"],
        vec!["compile", "model.onnx", "--calibrate", "text.txt", "-o", "soft.txt"],
        train("text.txt").collect(),
        train("model.onnx").collect(),
        train("hard.snn").collect(),
        vec!["eval", "m.snn", "--text", "text.txt", "--html", "text.txt"],
        vec!["eval", "m.snn", "--text", "text.txt", "--html", "hard.snn"],
        vec!["report", "m.snn", "-o", "./m.snn"],
        vec!["report", "m.snn", "--reference", "model.onnx", "-o", "tokenizer.json"],
        vec!["bench", "m.snn", "--measure-kernel-costs", "m.snn"],
        vec!["logits", "m.snn", "--tokens", "1", "-o", "hard.snn"],
        vec!["show", "m.snn", "--emit", "clif=m.snn"],
        vec!["show", "m.snn", "--emit", "clif=out,asm=folder/../out"],
        vec!["run", "m.snn", "--prompts", "prompts.txt", "--emit", "asm=prompts.txt"],
        vec!["opt", "layer.ir", "-o", "layer.ir"],
    ];
    let odd = ["folder", "fifo", "/dev/full", "astray", "nowhere/out", "new/", "-", &long];
    for output in odd {
        calls.push(vec!["compile", "model.onnx", "-o", output]);
        calls.push(vec!["report", "m.snn", "-o", output]);
        calls.push(vec!["eval", "m.snn", "--text", "text.txt", "--html", output]);
        if output != "-" {
            calls.push(vec!["logits", "m.snn", "--tokens", "1", "-o", output]);
        }
    }
    let name = "y".repeat(250);
    calls.push(TRAIN.iter().map(|arg| if *arg == "trained.snn" { name.as_str() } else { arg }).collect());
    let before = fixture.files();
    for args in calls {
        let output = fixture.call(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", told(&output));
        assert!(told(&output).lines().count() <= 2, "{args:?}: {}", told(&output));
        assert!(fixture.files() == before, "{args:?} changes nothing");
    }
    // The weights of a network that lie beside it.
    for output in ["m.onnx", "weights.bin"] {
        let folder = external_weights(&fixture);
        let args = ["compile", "m.onnx", "-o", output];
        let refused = Command::new(snnc()).args(args).current_dir(&folder).output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
        assert!(told(&refused).contains("would be lost"), "{}", told(&refused));
    }
}

/// A folder with an ONNX file whose first tensor lies in `weights.bin`.
fn external_weights(fixture: &Fixture) -> PathBuf {
    use prost::Message;
    use snnc_onnx::proto::{ModelProto, StringStringEntryProto};
    let folder = fixture.at("beside");
    fs::create_dir_all(&folder).unwrap();
    let mut model = ModelProto::decode(fs::read(fixture.at("model.onnx")).unwrap().as_slice()).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.raw_data.is_some()).unwrap();
    fs::write(folder.join("weights.bin"), tensor.raw_data.take().unwrap()).unwrap();
    tensor.data_location = 1;
    tensor.external_data = vec![StringStringEntryProto { key: "location".into(), value: "weights.bin".into() }];
    fs::write(folder.join("m.onnx"), model.encode_to_vec()).unwrap();
    folder
}
