//! What a user reads: every help text, and what the command says of mistakes. `TRYCMD=overwrite` writes them anew; read the change.
//!
//! Formats, records of runs and recipes are here as well: they are of the command, not of a model.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use serde_json::Value as Json;
use snnc_tests::{call, demo_model, printed, snnc};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn every_help_text_and_error_is_as_written() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("snnc", snnc()).env("SNNC_LOG", "").env("NO_COLOR", "1").env("COLUMNS", "80");
    cases.case("command_line/*.trycmd");
}

/// A command without a written help text would be one that nobody has read.
#[test]
fn every_command_has_its_help_text_written() {
    let written = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("command_line/help.trycmd")).unwrap();
    for name in commands() {
        assert!(written.contains(&format!("$ snnc {name} --help\n")), "command_line/help.trycmd has {name}");
    }
}

/// The subcommands, out of the help.
fn commands() -> Vec<String> {
    let help = String::from_utf8(Command::new(snnc()).arg("--help").output().unwrap().stdout).unwrap();
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let name = |line: &str| line.strip_prefix("  ").and_then(|line| line.split(' ').next()).map(str::to_string);
    lines.filter_map(name).filter(|name| !name.is_empty() && name != "help").collect()
}

/// Columns of the narrowest terminal that output is for.
const COLUMNS: usize = 80;

/// A folder with the demo model, two programs and a text of some windows.
fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(demo_model(), at("model.onnx")).unwrap();
    fs::copy(demo_model().with_file_name("tokenizer.json"), at("tokenizer.json")).unwrap();
    fs::write(at("test.txt"), "The river runs to the sea, and the town is old. ".repeat(150)).unwrap();
    for (name, steps) in [("t7.snn", "7"), ("t4.snn", "4")] {
        let compile =
            ["compile", "model.onnx", "--calibration-tokens", "64", "--rotate", "none", "--rounding", "nearest"];
        printed(folder.path(), &[&compile[..], &["--timesteps", steps, "-o", name]].concat());
    }
    folder
}

/// The commands that print figures, on the fixture.
const WITH_FIGURES: [&[&str]; 7] = [
    &["eval", "t7.snn", "--text", "test.txt", "--windows", "12", "--stride", "16", "--reference", "model.onnx"],
    &["eval", "t7.snn", "t4.snn", "--text", "test.txt", "--windows", "2", "--reference", "model.onnx"],
    &["energy", "t7.snn", "--text", "test.txt", "--windows", "1"],
    &["energy", "t7.snn", "--text", "test.txt", "--windows", "1", "--full"],
    &["inspect", "t7.snn", "--text", "test.txt", "--tokens", "16", "--reference", "model.onnx"],
    &["bench", "t7.snn", "--prompts", "8", "--depths", "8", "--decoded", "2", "--repeats", "1"],
    &[
        "tune",
        "model.onnx",
        "--text",
        "test.txt",
        "--windows",
        "1",
        "--calibration-tokens",
        "64",
        "--probe-tokens",
        "16",
        "--budget",
        "timesteps=6",
    ],
];

#[test]
fn figures_come_in_five_formats() {
    let folder = fixture();
    for line in WITH_FIGURES {
        let as_format = |format: &str| printed(folder.path(), &[line, &["--format", format]].concat());
        for table in as_format("table").lines() {
            let width = table.chars().count();
            // All tables of `energy` are asked for by who has the room, and options are one line to paste.
            let is_wide = line.contains(&"--full") || table.starts_with("--timesteps");
            assert!(width <= COLUMNS || is_wide, "{line:?}: {width} columns: {table}");
        }
        let json: Json = serde_json::from_str(&as_format("json")).unwrap();
        assert!(json["schema"].as_str().unwrap().starts_with("snnc."), "{line:?}");
        let run = &json["run"];
        assert_eq!(run["arguments"][0], line[0]);
        assert!(run["version"].is_string() && run["host"]["cpu"].is_string(), "{run}");
        let hashed = run["files"].as_array().unwrap().iter().any(|file| file["path"] == line[1]);
        assert!(hashed, "{line:?}: the model has a hash");
        let latex = as_format("latex");
        let [begun, ended] = ["\\begin{tabular}", "\\end{tabular}"].map(|mark| latex.matches(mark).count());
        assert!(begun > 0 && begun == ended && latex.starts_with("% snnc "), "{latex}");
        let markdown = as_format("md");
        let mut columns = markdown.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count());
        let first = columns.next().unwrap();
        // Several tables may have different columns.
        assert!(line[0] == "energy" || columns.all(|count| count == first), "{markdown}");
        // The numbers of the clock are others in every run.
        if line[0] != "bench" {
            csv_has_the_numbers_of(&json, &as_format("csv"));
        }
    }
}

/// Every number of the CSV is in the JSON.
fn csv_has_the_numbers_of(json: &Json, csv: &str) {
    let mut known = Vec::new();
    numbers(json, &mut known);
    let mut rows = csv.lines();
    let columns = rows.next().unwrap().split(',').count();
    let mut count = 0;
    for cell in rows.flat_map(|row| row.split(',')) {
        if let Ok(number) = cell.parse::<f64>() {
            // The flags of `tune` are quoted, and have numbers of their own.
            assert!(known.contains(&number) || csv.contains("flags"), "{number} is in the JSON");
            count += 1;
        }
    }
    assert!(columns > 2 && count > 0, "{csv}");
}

fn numbers(json: &Json, found: &mut Vec<f64>) {
    match json {
        Json::Number(number) => found.extend(number.as_f64()),
        Json::Array(all) => all.iter().for_each(|one| numbers(one, found)),
        Json::Object(all) => all.values().for_each(|one| numbers(one, found)),
        Json::Null | Json::Bool(_) | Json::String(_) => {}
    }
}

#[test]
fn a_run_is_repeated_from_its_record() {
    let folder = fixture();
    let at = |name: &str| folder.path().join(name);
    let said = |args: &[&str]| {
        let output = call(folder.path(), args);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let eval = ["eval", "t7.snn", "--text", "test.txt", "--windows", "1", "--reference", "model.onnx", "--json"];
    let record = printed(folder.path(), &eval);
    fs::write(at("run.json"), &record).unwrap();
    assert_eq!(printed(folder.path(), &["verify", "run.json"]), "the same results as in run.json\n");
    let mut changed: Json = serde_json::from_str(&record).unwrap();
    changed["kl"] = 1.into();
    fs::write(at("other.json"), changed.to_string()).unwrap();
    let (code, words) = said(&["verify", "other.json"]);
    assert!(code == 3 && words.contains("failed: kl: 1 in the record"), "{code} {words}");
    // Lines of JSON are a record as well.
    fs::write(at("prompts.txt"), "The river\nA town\n").unwrap();
    let run = ["run", "t7.snn", "--prompts", "prompts.txt", "--json", "-n", "4"];
    fs::write(at("run.jsonl"), printed(folder.path(), &run)).unwrap();
    printed(folder.path(), &["verify", "run.jsonl"]);
    fs::write(at("prompts.txt"), "The river\nA city\n").unwrap();
    let (code, words) = said(&["verify", "run.jsonl"]);
    assert!(code == 1 && words.contains("prompts.txt: is not the file of the record"), "{code} {words}");
    // Nothing is written over.
    let html = [&eval[..], &["--html", "page.html"]].concat();
    fs::write(at("html.json"), printed(folder.path(), &html)).unwrap();
    fs::write(at("page.html"), "kept").unwrap();
    let (code, words) = said(&["verify", "html.json"]);
    assert!(code == 1 && words.contains("its run writes page.html"), "{code} {words}");
    assert_eq!(fs::read_to_string(at("page.html")).unwrap(), "kept");
    let bench: Json = serde_json::json!({"run": {"version": "0", "commit": null, "arguments": ["bench", "t7.snn"], "files": [],
        "host": {"os": "", "arch": "", "cpu": null, "processors": 1, "isa": ""}}});
    fs::write(at("bench.json"), bench.to_string()).unwrap();
    let (code, words) = said(&["verify", "bench.json"]);
    assert!(code == 1 && words.contains("`snnc bench`, which is not repeated"), "{code} {words}");
}

#[test]
fn tuning_goes_on_and_ends_in_files() {
    let folder = fixture();
    let at = |name: &str| folder.path().join(name);
    let tune = |more: &[&str]| {
        let line: Vec<&str> = WITH_FIGURES[6].iter().chain(more).copied().collect();
        call(folder.path(), &line)
    };
    let whole = tune(&["-o", "tuned.snn", "--save", "recipe.toml", "--resume", "tune.jsonl"]);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let journal = fs::read_to_string(at("tune.jsonl")).unwrap();
    // A run that was ended half way, in the middle of a line.
    fs::write(at("tune.jsonl"), &journal[..journal.len() / 2]).unwrap();
    let again = tune(&["--save", "again.toml", "--resume", "tune.jsonl"]);
    assert_eq!(whole.stdout, again.stdout);
    assert!(String::from_utf8_lossy(&again.stderr).contains("measurements are known"));
    assert_eq!(fs::read(at("recipe.toml")).unwrap(), fs::read(at("again.toml")).unwrap());
    printed(folder.path(), &["compile", "model.onnx", "--recipe", "recipe.toml", "-o", "followed.snn"]);
    assert!(
        fs::read(at("tuned.snn")).unwrap() == fs::read(at("followed.snn")).unwrap(),
        "the recipe makes the program"
    );
    // A file of another run is refused, and left as it was.
    fs::write(at("test.txt"), "Another text. ".repeat(200)).unwrap();
    let kept = fs::read(at("tune.jsonl")).unwrap();
    let other = tune(&["--resume", "tune.jsonl"]);
    let words = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && words.contains("is of a run with another network, text or option"), "{words}");
    assert!(fs::read(at("tune.jsonl")).unwrap() == kept);
}

/// Every log level says less than the next.
#[test]
fn what_is_said_has_levels() {
    let folder = fixture();
    let said = |level: &str, flags: &[&str]| {
        let line = [&["compile", "model.onnx", "--calibration-tokens", "64", "--rotate", "none", "-o", "x.snn"], flags]
            .concat();
        let output =
            Command::new(snnc()).args(line).current_dir(folder.path()).env("SNNC_LOG", level).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap().lines().count()
    };
    let lines = [said("error", &[]), said("info", &[]), said("debug", &[])];
    assert!(lines[0] == 0 && lines[1] > 0 && lines[2] > lines[1], "{lines:?}");
    assert_eq!([said("debug", &["-qq"]), said("error", &["-v"])], [lines[0], lines[2]], "an option wins");
    let coloured = |when: &str| call(folder.path(), &["check", "missing", "--color", when]).stderr.contains(&0x1b);
    assert!(coloured("always") && !coloured("never"));
}

/// LaTeX takes the tables, where it is installed.
#[test]
fn latex_compiles() {
    let found = Command::new("pdflatex").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: pdflatex is not installed");
        return;
    }
    let folder = fixture();
    let tables: String = WITH_FIGURES[..3]
        .iter()
        .map(|line| printed(folder.path(), &[line, &["--format", "latex"][..]].concat()))
        .collect();
    let text = format!(
        "\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{tables}\n\\end{{document}}\n"
    );
    let file: PathBuf = folder.path().join("paper.tex");
    fs::write(&file, text).unwrap();
    let mut latex = Command::new("pdflatex");
    let latex = latex.args(["-interaction=nonstopmode", "-halt-on-error", "paper.tex"]).current_dir(folder.path());
    let done = latex.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}
