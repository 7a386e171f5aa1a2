//! Extreme numbers for every option that takes one, of every command: done, or refused as wrong usage, and soon.
//!
//! Options are read from the command's own help, so that a new one is tried as well.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use snnc_tests::{snnc, write_small_model};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What is tried.
const VALUES: [&str; 6] = ["0", "-1", "1e30", "NaN", "inf", "18446744073709551615"];

/// What a call may take.
const MOST: Duration = Duration::from_secs(20);

/// The commands and what they need; an option is left out where it is the one that is tried.
const COMMANDS: [(&str, &[&str]); 23] = [
    ("check", &["model.onnx"]),
    ("compile", &["model.onnx", "--output=out.snn", "--calibration-tokens=64"]),
    ("run", &["m.snn", "--prompts=prompts.txt", "--max-new-tokens=4"]),
    ("chat", &["m.snn", "--template=t.jinja", "--max-new-tokens=4"]),
    // An address that this machine does not have, so that it ends.
    ("serve", &["m.snn", "--host=192.0.2.1", "--open"]),
    ("eval", &["m.snn", "--reference=model.onnx", "--text=text.txt", "--windows=2", "--ledger", "--ledger-tokens=64"]),
    ("energy", &["m.snn", "--text=text.txt", "--windows=2"]),
    ("merge", &["part.json"]),
    ("report", &["m.snn", "--output=out.html", "--text=text.txt", "--tokens=8"]),
    (
        "inspect",
        &["m.snn", "--reference=model.onnx", "--text=text.txt", "--tokens=8", "--ledger", "--ledger-tokens=64"],
    ),
    ("logits", &["m.snn", "--tokens=1", "--output=out.npy"]),
    ("show", &["m.snn"]),
    ("opt", &["layer.ir", "--passes=quantise"]),
    ("explore", &["m.snn", "--reference=model.onnx", "--output=out.html"]),
    ("export", &["m.snn", "--to=npz", "--text=text.txt", "--output=out.npz"]),
    ("nir", &["network.nir", "--input=spikes.npy", "--output=out.npz"]),
    ("tune", &["model.onnx", "--text=text.txt", "--windows=1", "--calibration-tokens=64", "--probe-tokens=16"]),
    (
        "train",
        &[
            "m.snn",
            "--reference=model.onnx",
            "--text=text.txt",
            "--output=trained.snn",
            "--steps=2",
            "--batch=1",
            "--window-tokens=16",
            "--validation-windows=1",
            "--restart",
        ],
    ),
    (
        "bench",
        &[
            "m.snn",
            "--prompts=4",
            "--depths=4",
            "--decoded=2",
            "--repeats=1",
            "--baseline=bench.json",
            "--max-regress=1e9",
        ],
    ),
    ("verify", &["run.json"]),
    ("demo", &[concat!("--model=", env!("CARGO_MANIFEST_DIR"), "/../examples/models/tales")]),
    ("completions", &["bash"]),
    ("man", &["--output=pages"]),
];

/// Options that do not go with others of their command.
const WITHOUT: [(&str, &str, &str); 2] = [("energy", "--firing-rate", "--text"), ("train", "--minutes", "--steps")];

/// Options whose number stands in something, with `#` for it.
const SPELLED: [(&str, &[&str]); 10] = [
    ("--budget", &["perplexity+#", "perplexity+#%", "timesteps=#"]),
    ("--hybrid", &["perplexity+#", "perplexity+#%"]),
    ("--attention", &["topk:#"]),
    ("--parameters", &["lora:#"]),
    ("--firing-rate", &["#", "#,#", "1,#"]),
    ("--timesteps", &["#", "7,mlp.hidden=#"]),
    ("--max-regress", &["#", "#%"]),
    ("--min-agreement", &["#", "#%"]),
    ("--layers", &["#", "0-#"]),
    ("--shard", &["#", "#/#", "0/#"]),
];

/// Ends a call that takes too long.
fn call(at: &Path, args: &[String]) -> Option<Output> {
    let mut command = Command::new(snnc());
    let command = command.args(args).current_dir(at).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(fs::File::create(at.join("stderr")).unwrap()).spawn().unwrap();
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(Output { status, stdout: Vec::new(), stderr: fs::read(at.join("stderr")).unwrap() });
        }
        if since.elapsed() > MOST {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The options of a command that take a value which is neither a file nor words.
fn options(command: &str) -> Vec<String> {
    let help = Command::new(snnc()).args([command, "-h"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let words = |value: &str| {
        ["FILE", "DIR", "MODEL", "TEXT", "PROMPT", "|TOKEN"].iter().any(|name| value.contains(name))
            || ["SITE", "PASS", "NAME", "ir="].iter().any(|name| value.starts_with(name))
    };
    let option = |line: &str| {
        let line = line.trim_start();
        let long = line.strip_prefix("--").or_else(|| line.split_once(", --").map(|(_, long)| long))?;
        let (name, value) = long.split_once(" <")?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        (line.starts_with('-') && is_name && !words(value)).then(|| format!("--{name}"))
    };
    help.lines().filter_map(option).collect()
}

/// All calls of a command with one option.
fn calls(command: &str, base: &[&str], option: &str) -> Vec<Vec<String>> {
    let other = WITHOUT.iter().find(|(name, with, _)| *name == command && *with == option).map(|found| found.2);
    let name = |arg: &&&str| arg.split('=').next().map(str::to_string);
    let kept = |arg: &&&str| name(arg).is_some_and(|name| name != option && Some(name.as_str()) != other);
    let spelled = SPELLED.iter().find(|(name, _)| *name == option).map_or(&["#"][..], |found| found.1);
    let one = |value: String| {
        let mut args = vec![command.to_string()];
        args.extend(base.iter().filter(kept).map(|arg| arg.to_string()));
        args.push(format!("{option}={value}"));
        args
    };
    VALUES.iter().flat_map(|value| spelled.iter().map(move |text| text.replace('#', value))).map(one).collect()
}

fn fixture(at: &Path) {
    write_small_model(at);
    fs::write(at.join("prompts.txt"), "The\nA river\n").unwrap();
    let network = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs/nir/spikingjelly_if.nir");
    fs::copy(network, at.join("network.nir")).unwrap();
    let mut spikes = Vec::new();
    snnc::npy::write_f32(&mut spikes, &[2, 6], &[1.0; 12]).unwrap();
    fs::write(at.join("spikes.npy"), spikes).unwrap();
    fs::write(at.join("t.jinja"), "{{ messages[-1].content }}").unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(snnc()).args(args).current_dir(at).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["compile", "model.onnx", "-o", "m.snn", "--calibration-tokens", "64"]);
    let bench = ["bench", "m.snn", "--prompts=4", "--depths=4", "--decoded=2", "--repeats=1", "--json"];
    fs::write(at.join("bench.json"), run(&bench)).unwrap();
    fs::write(at.join("run.json"), run(&["check", "model.onnx", "--json"])).unwrap();
    run(&["energy", "m.snn", "--text=text.txt", "--windows=2", "--shard=0/1", "--output=part.json"]);
    fs::write(at.join("layer.ir"), include_str!("cases/quantise/activation.ir")).unwrap();
}

#[test]
fn extreme_numbers_are_done_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fixture(at);
    let help = String::from_utf8(Command::new(snnc()).arg("--help").output().unwrap().stdout).unwrap();
    let names = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What does not fit a line is indented further.
    let name = |line: &'_ str| line.strip_prefix("  ").and_then(|line| line.split(' ').next()).map(str::to_string);
    let names = names.filter_map(name).filter(|name| !name.is_empty() && name != "help");
    let names: Vec<String> = names.collect();
    assert_eq!(names.len(), COMMANDS.len(), "a new command has a row here: {names:?}");
    let (mut wrong, mut tried) = (Vec::new(), 0);
    for (command, base) in COMMANDS {
        assert!(names.iter().any(|name| name == command));
        for option in options(command) {
            for args in calls(command, base, &option) {
                tried += 1;
                let since = Instant::now();
                let Some(output) = call(at, &args) else {
                    wrong.push(format!("{args:?} takes more than {MOST:?}"));
                    continue;
                };
                if since.elapsed() > Duration::from_secs(2) {
                    eprintln!("{args:?}: {:.1} s", since.elapsed().as_secs_f64());
                }
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                // 3: a limit that the user set has failed, such as a rise of perplexity of 0 at most.
                let ended = matches!(output.status.code(), Some(0 | 2 | 3)) || told.contains("cannot be listened at");
                let fine = ended && !told.contains("panicked");
                if !fine {
                    wrong.push(format!("{args:?}: {:?}, {told}", output.status));
                }
            }
        }
    }
    eprintln!("{tried} calls");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 300, "options are found: {tried} calls");
}
