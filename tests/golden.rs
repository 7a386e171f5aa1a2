//! The demo model's logits, spikes and joules, to the bit: what a change that is to change nothing must keep.
//!
//! Each row is a program as the command compiles and runs it. Its logits are the same from both engines, stepped and
//! collapsed, so one hash stands for four runs. A new value here is a change of what snnc computes: say why in its commit.

#![allow(clippy::unwrap_used)]

use serde_json::Value as Json;
use snnc_tests::{demo_model, snnc};
use std::fs;
use std::path::Path;
use std::process::Command;
use xxhash_rust::xxh3::xxh3_64;

/// Options of `snnc compile`.
const PROGRAMS: [&str; 9] = [
    "--attention ttfs",
    "--attention topk:8",
    "--attention coincidence",
    "--attention linear",
    "--attention lif",
    "--attention ttfs,0=coincidence,1=linear,2=lif:spikes",
    "--timesteps 8 --neuron st_bif",
    "--timesteps 8 --neuron lif",
    "--timesteps 4,mlp.hidden=5 --thresholds token",
];

/// Calibration and energy run on so many tokens, so that the test takes seconds.
const CALIBRATION_TOKENS: &str = "512";

/// Which tokens, and of what text, makes no difference; that they stay the same does.
const TOKENS: &str = "1,17,250,9,33,101,7,64,12,5,400,3,77,210,88,19";
const TEXT: &str = "The river rises in the north of the county, near the old border, and runs south for some forty miles \
    before it meets the sea. Its upper valley was settled early. A mill stood at the second bridge until 1874, when a \
    flood carried both away; the mill was never built again, and the bridge only in 1891, of iron. Most of the villages \
    along the lower river lived by fishing, and later by the railway, which followed the west bank.";

/// Runs the command; its standard output.
fn call(folder: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new(snnc()).args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The hash of the logits, which all engines share.
fn logits(folder: &Path, model: &str) -> u64 {
    let forms: [&[&str]; 4] = [&[], &["--stepped"], &["--interpret"], &["--interpret", "--stepped"]];
    let hashes = forms.map(|form| {
        call(folder, &[&["logits", model, "--tokens", TOKENS, "-o", "logits.npy"], form].concat());
        xxh3_64(&fs::read(folder.join("logits.npy")).unwrap())
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{model}: engines differ: {hashes:x?}");
    hashes[0]
}

/// Picojoules of a run by the list `paper45`: all digits, so that the last bit shows.
fn energy_pj(estimate: &Json, form: &str) -> String {
    let list = &estimate["prefill"]["total"][form]["prices"]["paper45"];
    list["partial_pj"].as_f64().map_or_else(|| panic!("no figure for {form} in {list}"), |pj| format!("{pj:?}"))
}

#[test]
fn the_demo_model_computes_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = demo_model();
    fs::write(at.join("text.txt"), TEXT).unwrap();
    let mut table = String::new();
    for options in PROGRAMS {
        let compile =
            ["compile", model.to_str().unwrap(), "-o", "program.snn", "--calibration-tokens", CALIBRATION_TOKENS];
        call(at, &[&compile[..], &options.split(' ').collect::<Vec<&str>>()].concat());
        let energy = ["energy", "program.snn", "--text", "text.txt", "--context", "40", "--windows", "2", "--json"];
        let counted = |more: &[&str]| {
            let mut estimate: Json = serde_json::from_slice(&call(at, &[&energy[..], more].concat())).unwrap();
            estimate.as_object_mut().unwrap().remove("run");
            estimate
        };
        let (estimate, stepped) = (counted(&[]), counted(&["--stepped"]));
        assert_eq!(estimate, stepped, "{options}: counts do not depend on the form that runs");
        let spikes: u64 = estimate["rows"].as_array().unwrap().iter().map(|row| row["spikes"].as_u64().unwrap()).sum();
        table += &format!(
            "{options}\n  logits   {:016x}\n  spikes   {spikes}\n  pJ/token dense {}, stepped {}, collapsed {}\n",
            logits(at, "program.snn"),
            energy_pj(&estimate, "dense_f32"),
            energy_pj(&estimate, "spiking_stepped"),
            energy_pj(&estimate, "spiking_collapsed"),
        );
    }
    insta::assert_snapshot!(table);
}
