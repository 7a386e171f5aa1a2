//! Several programs that are evaluated together are each what they are alone, and they are programs of one network.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc_tests::{call, demo_model, printed};
use std::fs;
use std::path::Path;

const REFERENCE: [&str; 4] = ["--reference", "model.onnx", "--tokens", "ids.npy"];

/// Texts in the file of ids, and tokens of each.
const TEXTS: [usize; 2] = [12, 24];

fn json(folder: &Path, args: &[&str]) -> Json {
    serde_json::from_str(&printed(folder, &[args, &["--json"]].concat())).unwrap()
}

fn compile(folder: &Path, program: &str, more: &[&str]) {
    let compile = ["compile", "model.onnx", "--calibration-tokens", "64", "--rounding", "nearest", "-o", program];
    printed(folder, &[&compile[..], more].concat());
}

/// Texts of ids as a `.npy` file.
fn ids() -> Vec<u8> {
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, {}), }}", TEXTS[0], TEXTS[1]);
    let header = format!("{header:<117}\n");
    let ids = (0..TEXTS[0] * TEXTS[1]).map(|i| (i * i % 4001) as i32);
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(ids.flat_map(i32::to_le_bytes));
    file
}

/// A folder with a network, its tokenizer, two programs, a text and a file of ids of more than ten windows.
fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::copy(demo_model(), at("model.onnx")).unwrap();
    fs::copy(demo_model().with_file_name("tokenizer.json"), at("tokenizer.json")).unwrap();
    fs::write(at("text.txt"), "The river runs to the sea.").unwrap();
    fs::write(at("ids.npy"), ids()).unwrap();
    compile(folder.path(), "seven.snn", &[]);
    compile(folder.path(), "three.snn", &["--timesteps", "3"]);
    folder
}

#[test]
fn together_they_are_what_they_are_alone() {
    let folder = fixture();
    let at = folder.path();
    let names = ["three.snn", "seven.snn", "model.onnx"];
    let alone = names.map(|name| json(at, &[&["eval", name][..], &REFERENCE].concat()));
    assert!(alone[0]["kl_95"][0].as_f64() > alone[1]["kl_95"][1].as_f64(), "three timesteps lose more than seven");
    for threads in ["1", "3"] {
        let all = [&["eval"][..], &names, &REFERENCE, &["--threads", threads]].concat();
        let together = json(at, &all);
        assert_eq!(together["schema"], "snnc.evals.v2");
        let programs = together["programs"].as_array().unwrap();
        assert_eq!(programs.len(), names.len());
        for ((name, alone), program) in names.iter().zip(&alone).zip(programs) {
            let (mut alone, mut program) = (alone.clone(), program.clone());
            assert_eq!(program.as_object_mut().unwrap().remove("program"), Some(Json::from(*name)));
            alone.as_object_mut().unwrap().retain(|key, _| key != "schema" && key != "run");
            assert_eq!(program, alone, "{name} on {threads} threads");
        }
    }
    let table = printed(at, &[&["eval"][..], &names[..2], &REFERENCE].concat());
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    for (row, name) in rows[2..].iter().zip(["dense", "three.snn", "seven.snn"]) {
        assert_eq!(row.split_whitespace().next(), Some(name), "{table}");
    }
    let written = format!("{:.6}", alone[1]["kl"].as_f64().unwrap());
    assert!(rows[4].contains(&written), "{written} stands in {table}");
}

/// Limits hold for every program, and what fails is named.
#[test]
fn gates_name_the_program() {
    let folder = fixture();
    let at = folder.path();
    let gates = ["--min-agreement", "90%"];
    let output = call(at, &[&["eval", "seven.snn", "three.snn"][..], &REFERENCE, &gates].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("failed: three.snn: top-1 agreement") && !said.contains("failed: seven.snn"), "{said}");
}

/// What cannot be compared is refused by its name.
#[test]
fn programs_of_other_networks_or_tokens_are_refused() {
    let folder = fixture();
    let at = folder.path();
    let refused = |args: &[&str], words: [&str; 2]| {
        let output = call(at, &[&["eval", "seven.snn"][..], args].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(words.iter().all(|words| said.contains(words)), "{args:?} should say {words:?}, it says: {said}");
    };
    compile(at, "none.snn", &["--start", "none"]);
    refused(&["none.snn", "--text", "text.txt"], ["none.snn: reads the text as other tokens", "seven.snn"]);
    // The same network in a file of other bytes: a text that describes it is longer by one letter.
    let mut other = fs::read(demo_model()).unwrap();
    other.extend([0x32, 1, b'x']);
    fs::write(at.join("model.onnx"), other).unwrap();
    compile(at, "other.snn", &[]);
    refused(&["three.snn", "other.snn", "--text", "text.txt"], ["other.snn: comes from another file", "seven.snn"]);
    refused(&["three.snn", "--text", "text.txt", "--html", "page.html"], ["--html: a page is of one program", "2"]);
    assert!(!at.join("page.html").exists());
}

/// The demo's model is found from the repository, its texts are whole words, and nothing wraps.
#[test]
fn the_demo_and_the_summary_of_energy_fit_one_screen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = fixture();
    let page = folder.path().join("page.html");
    let demo = printed(&root, &["demo", "--report", page.to_str().unwrap()]);
    let energy = printed(folder.path(), &["energy", "seven.snn"]);
    for (text, most) in [(&demo, 24), (&energy, 30)] {
        assert!(text.lines().count() <= most, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    assert!(["dense ", "spiking ", "perplexity", "energy, int45", "Next: snnc"].iter().all(|part| demo.contains(part)));
    assert!(!demo.contains("<unk>") && demo.contains(['▀', '▄', '█']), "{demo}");
    assert!(fs::read_to_string(page).unwrap().contains("</html>"));
    let full = printed(folder.path(), &["energy", "seven.snn", "--full"]);
    assert!(full.contains("Sensitivity") && full.lines().count() > 100, "{full}");
    let told = call(folder.path(), &["demo", "--model", "nowhere"]);
    assert!(!told.status.success() && String::from_utf8_lossy(&told.stderr).contains("nowhere"));
}

/// A preset is the timesteps that its page says; shells and `man` get what they read.
#[test]
fn presets_completions_and_man_pages() {
    let folder = fixture();
    let at = folder.path();
    for (preset, steps) in [("accurate", "8"), ("default", "7"), ("frugal", "5")] {
        compile(at, "preset.snn", &["--preset", preset]);
        compile(at, "steps.snn", &["--timesteps", steps]);
        assert_eq!(fs::read(at.join("preset.snn")).unwrap(), fs::read(at.join("steps.snn")).unwrap(), "{preset}");
    }
    assert!(!call(at, &["compile", "model.onnx", "--preset", "frugal", "--timesteps", "4"]).status.success());
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(at, &["completions", shell]);
        assert!(script.contains("snnc") && script.contains("calibration-tokens"), "{shell}");
    }
    let long =
        ["run", "seven.snn", "--prompt", "The river", "--max-new-tokens", "5", "--temperature", "1", "--seed", "3"];
    let short = ["run", "seven.snn", "-p", "The river", "-n", "5", "--temp", "1", "-s", "3", "-t", "1"];
    assert_eq!(printed(at, &long), printed(at, &short));
    printed(at, &["man", "-o", "pages"]);
    let page = fs::read_to_string(at.join("pages/snnc-compile.1")).unwrap();
    assert!(page.starts_with(".") && page.contains("calibrate"), "{page}");
    assert!(at.join("pages/snnc.1").is_file());
}
