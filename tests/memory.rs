//! Compiling within little memory: the program has the same bytes, however little of the network is held at once.

#![allow(clippy::unwrap_used)]

use snnc::convert::{ConvertOptions, Sample, dense_kept, spiking_watched};
use snnc::memory_budget::{ConversionMemory, MemoryBudget};
use snnc::progress::Progress;
use snnc::spill_files::SpillFiles;
use snnc_examples::gpt2::{self, Activation, Gpt2Config};
use snnc_examples::llama::{LlamaConfig, graph};
use snnc_ir::{Graph, text};
use snnc_passes::options::{QuantOptions, Rotate, Rotations};
use snnc_tests::{call, imported, printed, snnc};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// Wide enough for weights of a megabyte, which are worth a file.
const GPT2: Gpt2Config = Gpt2Config { layers: 2, width: 512, heads: 4, vocabulary: 600, ..Gpt2Config::TINY };

const LLAMA: LlamaConfig = LlamaConfig {
    layers: 2,
    width: 512,
    heads: 4,
    kv_heads: 2,
    head_width: 128,
    hidden: 768,
    turned: 128,
    vocabulary: 600,
    ..LlamaConfig::TINY
};

/// What a person is told.
#[derive(Debug, Default)]
struct StatusLines(Mutex<Vec<String>>);

impl Progress for StatusLines {
    fn status(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_string());
    }

    fn begin(&self, stage: &str, _: u64) {
        self.0.lock().unwrap().push(stage.to_string());
    }
}

/// The program as text, in which every weight has its hash, and what was told meanwhile.
fn compiled(network: &Graph, quant: &QuantOptions, memory: ConversionMemory<'_>) -> (String, Vec<String>) {
    let told = StatusLines::default();
    let options = ConvertOptions { quant: quant.clone(), calibration_tokens: 256, threads: 2 };
    let tensor = dense_kept(network.clone(), false, memory.store, &mut |_, _, _| {}).unwrap();
    let done = spiking_watched(tensor, &Sample::SeededIds, &options, memory, &told, &mut |_, _, _| {}).unwrap();
    (text::print(&done.graph), told.0.into_inner().unwrap())
}

#[test]
fn programs_do_not_depend_on_memory() {
    let folder = tempfile::tempdir().unwrap();
    let four_bits = QuantOptions { weight_group: Some(32), ..QuantOptions::default() };
    let all = Rotations { residual: true, heads: true, hidden: true };
    let rotated = QuantOptions { rotate: Rotate::These(all), ..QuantOptions::default() };
    let residual = Rotations { hidden: false, ..all };
    let turned = QuantOptions { rotate: Rotate::These(residual), ..four_bits };
    let output_major = Gpt2Config { activation: Activation::Relu, outliers: 3, ..GPT2 };
    let cases = [
        ("gpt2", imported(&GPT2), QuantOptions::default()),
        ("gpt2 with outliers, rotated, 4 bits", imported(&output_major), turned),
        ("llama", graph(&LLAMA).unwrap(), QuantOptions::default()),
        ("llama, rotated", graph(&LLAMA).unwrap(), rotated),
    ];
    for (name, network, quant) in cases {
        let budget = MemoryBudget { bytes: 1 << 34, folder: Some(folder.path().to_path_buf()) };
        let (wanted, told) = compiled(&network, &quant, budget.with(None));
        assert!(!told.iter().any(|line| line.contains("group")), "{name}: one run is enough: {told:?}");
        for (bytes, groups_at_least) in [(10 << 20, 2), (1, 8)] {
            let files = SpillFiles::new(folder.path().to_path_buf(), 0);
            let memory = MemoryBudget { bytes, ..budget.clone() }.with(Some(&files));
            let (found, told) = compiled(&network, &quant, memory);
            assert!(found == wanted, "{name}: {bytes} bytes of memory make another program");
            let runs = told.iter().filter(|stage| stage.starts_with("measuring moments, group")).count();
            assert!(runs + 1 >= groups_at_least, "{name}: {runs} more runs: {told:?}");
            assert!(told.iter().any(|line| line.contains("because")), "{name}: {told:?}");
            assert!(files.in_files() > 8 << 20, "{name}: {} bytes in files", files.in_files());
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "files have no names");
}

fn model_in(folder: &Path) {
    fs::write(folder.join("model.onnx"), gpt2::bytes(&GPT2).unwrap()).unwrap();
}

#[test]
fn the_command_stays_within_a_limit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model_in(at);
    let compile = ["compile", "model.onnx", "--calibration-tokens", "256"];
    printed(at, &[&compile[..], &["-o", "free.snn"]].concat());
    let limited = call(at, &[&compile[..], &["-o", "limited.snn", "--max-memory", "44M"]].concat());
    let told = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert!(limited.status.success(), "{told}");
    assert!(told.contains("they are measured in 2 groups") && told.contains("because 44.0 MiB"), "{told}");
    assert!(told.contains("lay in files"), "{told}");
    assert!(fs::read(at.join("free.snn")).unwrap() == fs::read(at.join("limited.snn")).unwrap());
    assert_eq!(fs::read_dir(at).unwrap().count(), 3, "nothing else is left");
}

#[cfg(unix)]
#[test]
fn a_disk_without_room_for_weights_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    model_in(at);
    // Files of at most 512 KiB.
    let script = "ulimit -f 512; exec \"$0\" compile model.onnx --calibration-tokens 256 --max-memory 16M -o out.snn";
    let failed = Command::new("bash").args(["-c", script]).arg(snnc()).current_dir(at).output().unwrap();
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot be kept in a file in .: ") && told.contains("--max-memory"), "{told}");
    assert_eq!(fs::read_dir(at).unwrap().count(), 1, "nothing is left");
}
