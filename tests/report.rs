//! The page of `snnc report` in a browser, as a person and as a screen reader meet it; and that what it says is what happened.
//!
//! Pictures are left in `target/report-pages` for whoever wants to look at them.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use snnc::convert::BUILT_IN_TEXT;
use snnc_ir::container::{self, File};
use snnc_ir::{Data, Tensor};
use snnc_tests::browser::{self, Browser};
use snnc_tests::{demo_model, snnc};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// Text with all that could break a page.
const HOSTILE: &str = "<script>alert(1)</script> </script> <!-- {{data}} \" ' & \u{2028} 🦀\n";

/// A folder with the demo's model, a program made of it, and a text.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::copy(demo_model(), at("model.onnx")).unwrap();
        fs::copy(demo_model().with_file_name("tokenizer.json"), at("tokenizer.json")).unwrap();
        fs::write(at("text.txt"), format!("{HOSTILE}{BUILT_IN_TEXT}")).unwrap();
        run(folder.path(), "compile model.onnx -o model.snn --calibration-tokens 4096");
        let classical = "compile model.onnx -o classical.snn --code st_bif --timesteps 8 --calibration-tokens 2048";
        run(folder.path(), classical);
        run(folder.path(), "compile model.onnx -o four.snn --timesteps 4 --calibration-tokens 2048");
        silence(&at("model.snn"), &at("silent.snn"), "h.1.mlp.down.in");
        folder
    };
    FOLDER.get_or_init(make).path()
}

/// What the command writes to its standard output.
fn run(folder: &Path, line: &str) -> String {
    let output = Command::new(snnc()).args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The same program with one layer of neurons that hears nothing.
fn silence(from: &Path, to: &Path, neurons: &str) {
    let file = container::read(Arc::new(fs::read(from).unwrap())).unwrap();
    let mut graph = file.graph.clone();
    for weight in &mut graph.weights {
        if [".gain", ".offset"].iter().any(|end| weight.name == format!("{neurons}{end}")) {
            let zeros = vec![0.0; weight.tensor.sizes().iter().product()];
            assert!(matches!(weight.tensor.data(), Data::F32(_)));
            weight.tensor = Arc::new(Tensor::f32(weight.tensor.sizes(), zeros));
        }
    }
    let mut bytes = Vec::new();
    container::write(&File { graph, ..file }, &mut bytes).unwrap();
    fs::write(to, bytes).unwrap();
}

fn inspect(line: &str) -> Json {
    serde_json::from_str(&run(folder(), &format!("inspect {line} --json"))).unwrap()
}

/// A layer's spikes by token, counted from the raster that the page draws.
fn drawn(layer: &Json, tokens: usize) -> Vec<u64> {
    let raster = &layer["raster"];
    let (planes, width) = (raster["planes"].as_u64().unwrap() as usize, layer["width"].as_u64().unwrap() as usize);
    assert_eq!(raster["neurons"].as_array().unwrap().len(), width, "a small network is drawn whole");
    let data = STANDARD.decode(raster["data"].as_str().unwrap()).unwrap();
    let numbers: Vec<i64> = match raster["bytes"].as_u64().unwrap() {
        1 => data.iter().map(|&b| i64::from(b as i8)).collect(),
        bytes => panic!("{bytes} bytes where one is enough"),
    };
    assert_eq!(numbers.len(), tokens * planes * width);
    let spikes = |number: &i64| match (planes, layer["code"].as_str().unwrap()) {
        (1, "binary") => u64::from(number.unsigned_abs().count_ones()),
        _ => number.unsigned_abs(),
    };
    numbers.chunks(planes * width).map(|token| token.iter().map(spikes).sum()).collect()
}

/// What is drawn is what was counted, of integrate-then-fire and of time-stepped neurons.
#[test]
fn every_spike_that_is_drawn_was_counted() {
    for (model, planes) in [("model.snn", 1), ("classical.snn", 8)] {
        let report = inspect(&format!("{model} --text text.txt --tokens 12"));
        let layers = report["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4 * 7 + 1);
        assert!(layers.iter().any(|layer| layer["raster"]["planes"] == planes), "{model}");
        let mut all = 0;
        for layer in layers {
            let by_token: Vec<u64> = serde_json::from_value(layer["by_token"].clone()).unwrap();
            assert_eq!(drawn(layer, 12), by_token, "{model}: {}", layer["site"]);
            assert_eq!(layer["spikes"], by_token.iter().sum::<u64>());
            let counts: Vec<u64> = serde_json::from_value(layer["histogram"]["counts"].clone()).unwrap();
            assert_eq!(counts.iter().sum::<u64>(), 12 * layer["width"].as_u64().unwrap());
            all += by_token.iter().sum::<u64>();
        }
        assert_eq!(report["evaluation"]["spikes"], all, "{model}: the meter's count");
    }
}

/// The same files give the same bytes, whatever runs them.
#[test]
fn a_report_depends_on_its_files_alone() {
    let line = "report model.snn --text text.txt --tokens 24 --reference model.onnx -o";
    let page = |name: &str, more: &str| {
        run(folder(), &format!("{line} same.html{more}"));
        let kept = folder().join(name);
        fs::rename(folder().join("same.html"), &kept).unwrap();
        fs::read(kept).unwrap()
    };
    let first = page("a.html", " --threads 1");
    assert!(first == page("b.html", " --threads 2"), "threads show");
    assert!(first == page("c.html", " --interpret"), "the engine shows");
    assert!(first == page("d.html", " --stepped"), "it shows whether time is collapsed");
    assert!(first.len() < 5_000_000, "{} bytes", first.len());
}

/// A layer that never fires is a defect in words and in figures.
#[test]
fn a_silent_layer_is_no_saving() {
    let text = run(folder(), "inspect silent.snn --text text.txt --tokens 24");
    assert!(text.contains("defect: silent: h.1.mlp.hidden"), "{text}");
    assert!(text.contains("a defect"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours where there is no terminal");
    let report = inspect("silent.snn --text text.txt --tokens 24");
    assert_eq!(report["energy"]["total"]["paper45"]["saving"], Json::Null);
    let layer = report["layers"].as_array().unwrap().iter().find(|layer| layer["site"] == "h.1.mlp.hidden").unwrap();
    assert_eq!((&layer["spikes"], &layer["silent"]), (&json!(0), &layer["width"]));
}

/// The passes that are run again give the program of the file; without its source the program stands alone.
#[test]
fn the_passes_are_those_of_the_file() {
    for model in ["model.snn", "classical.snn"] {
        let report = inspect(&format!("{model} --reference model.onnx"));
        assert_eq!(report["passes"]["gives_program"], true, "{model}");
        assert_eq!(report["provenance"]["dense_is_source"], true);
    }
    let report = inspect("model.snn");
    let stages: Vec<&str> =
        report["passes"]["stages"].as_array().unwrap().iter().filter_map(|stage| stage["pass"].as_str()).collect();
    assert_eq!(stages, ["program", "collapse"]);
    assert_eq!(report["missing"].as_array().unwrap().len(), 3);
}

/// A CSV file as rows of cells; no cell of these has a line break.
fn csv(path: &Path) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cells.last_mut().unwrap().push(c),
            }
        }
        cells
    };
    fs::read_to_string(path).unwrap().lines().map(cells).collect()
}

/// Looks at the three files of a figure.
fn check_files(figures: &Path, name: &str) {
    let svg = fs::read_to_string(figures.join(format!("{name}.svg"))).unwrap();
    assert!(svg.starts_with("<svg xmlns='http://www.w3.org/2000/svg'") && svg.contains("<style>"), "{name}");
    assert!(!svg.contains("var(") && !svg.contains("href"), "{name} needs nothing else");
    let number = |key: &str| -> f64 {
        svg.split_once(&format!(" {key}='")).unwrap().1.split('\'').next().unwrap().parse().unwrap()
    };
    let png = fs::read(figures.join(format!("{name}.png"))).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n", "{name}");
    let side = |at: usize| f64::from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap()));
    assert!((side(16) - 2.0 * number("width")).abs() <= 2.0, "{name}: {} pixels wide", side(16));
    assert!((side(20) - 2.0 * number("height")).abs() <= 2.0, "{name}: {} pixels high", side(20));
    let rows = csv(&figures.join(format!("{name}.csv")));
    assert!(rows.len() > 1 && rows.iter().all(|row| row.len() == rows[0].len()), "{name}");
}

/// Every figure is three files; the SVG is XML with a style of its own, the PNG is a picture of twice its size, and the CSV has the
/// numbers of the JSON.
#[test]
fn figures_are_files_whose_numbers_are_those_of_the_json() {
    let line = "model.snn --text text.txt --tokens 24 --reference model.onnx";
    run(folder(), &format!("report {line} --ledger --ledger-tokens 64 --figures figures -o with.html"));
    let figures = folder().join("figures");
    let names: Vec<String> = fs::read_dir(&figures)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".svg").map(String::from))
        .collect();
    let wanted = [
        "spikes-by-layer",
        "rate-by-timestep",
        "spikes-by-token",
        "raster",
        "attention-keys",
        "membrane",
        "levels-h.0.mlp.hidden",
        "firing-head",
        "energy-by-part-paper45",
        "energy-by-list",
        "errors-by-site",
        "errors-cumulative",
        "surprisal-by-token",
        "kl-by-token",
    ];
    for name in wanted {
        assert!(names.iter().any(|known| known == name), "{name} of {names:?}");
    }
    names.iter().for_each(|name| check_files(&figures, name));
    let report = inspect(line);
    let layers = report["layers"].as_array().unwrap();
    let rows = csv(&figures.join("spikes-by-layer.csv"));
    assert_eq!(rows.len(), layers.len() + 1);
    for (row, layer) in rows[1..].iter().zip(layers) {
        assert_eq!(
            (&row[0], row[3].parse().ok()),
            (&layer["site"].as_str().unwrap().to_string(), layer["spikes"].as_u64())
        );
    }
    let rows = csv(&figures.join("rate-by-timestep.csv"));
    let spikes = rows[1..].iter().map(|row| row[3].parse::<u64>().unwrap()).sum::<u64>();
    assert_eq!(report["evaluation"]["spikes"], spikes, "timesteps have all spikes");
    let rows = csv(&figures.join("energy-by-list.csv"));
    for row in &rows[1..] {
        let total = &report["energy"]["total"][&row[0]];
        assert_eq!(
            (row[1].parse::<f64>().ok(), row[2].parse::<f64>().ok()),
            (total["dense_pj"].as_f64(), total["spiking_pj"].as_f64())
        );
    }
    let rows = csv(&figures.join("energy-by-part-paper45.csv"));
    let (parts, all) = rows[1..].split_at(rows.len() - 2);
    for column in 1..4 {
        let sum: f64 = parts.iter().map(|row| row[column].parse::<f64>().unwrap()).sum();
        let all: f64 = all[0][column].parse().unwrap();
        assert!((sum - all).abs() <= 1e-9 * all.abs(), "parts are the whole: {sum} and {all}");
    }
    let token = &report["predictions"][3];
    let row = &csv(&figures.join("surprisal-by-token.csv"))[4];
    let bits = |nll: &Json| nll.as_f64().unwrap() / std::f64::consts::LN_2;
    assert!((row[2].parse::<f64>().unwrap() - bits(&token["spiking"]["nll"])).abs() < 1e-9);
    assert!((row[3].parse::<f64>().unwrap() - bits(&token["dense"]["nll"])).abs() < 1e-9);
    // The same bytes once more, on another number of threads.
    run(folder(), &format!("report {line} --ledger --ledger-tokens 64 --figures again --threads 1 -o with.html"));
    for name in &names {
        for ending in ["svg", "png", "csv"] {
            let bytes = |at: &str| fs::read(folder().join(at).join(format!("{name}.{ending}"))).unwrap();
            assert!(bytes("figures") == bytes("again"), "{name}.{ending}");
        }
    }
}

/// No figure replaces a file that was read, and nothing is written then.
#[test]
fn figures_do_not_replace_inputs() {
    let here = folder().join("guarded");
    fs::create_dir_all(&here).unwrap();
    let curve = here.join("training-loss.csv");
    let line = r#"{"schema":"snnc.train.v2","kind":"step","step":1,"loss":2.5,"norm":1.0,"rate":0.1,"tokens":8,"tokens_per_s":1.0}"#;
    fs::write(&curve, line).unwrap();
    let args = [
        "report",
        "model.snn",
        "--training",
        "guarded/training-loss.csv",
        "--figures",
        "guarded",
        "-o",
        "guarded/page.html",
    ];
    let output = Command::new(snnc()).args(args).current_dir(folder()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("--training") && told.contains("--figures"), "{told}");
    assert_eq!(fs::read_dir(&here).unwrap().count(), 1, "nothing was written");
    assert_eq!(fs::read_to_string(&curve).unwrap(), line);
}

/// The traced neuron fires as the raster of its layer says, for both kinds of neurons, and as its level demands.
#[test]
fn a_membrane_is_that_of_the_run() {
    for (model, site) in [
        ("model.snn", "h.1.mlp.hidden"),
        ("model.snn", "h.0.attention.in"),
        ("classical.snn", "h.2.attention.q"),
        ("classical.snn", "h.0.attention.in"),
    ] {
        let report = inspect(&format!("{model} --text text.txt --tokens 12 --neuron {site}:7@9"));
        let trace = &report["neuron"];
        assert_eq!((&trace["site"], &trace["neuron"], &trace["token"]), (&json!(site), &json!(7), &json!(9)));
        let layer = report["layers"].as_array().unwrap().iter().find(|layer| layer["site"] == site).unwrap();
        let (planes, width) =
            (layer["raster"]["planes"].as_u64().unwrap() as usize, layer["width"].as_u64().unwrap() as usize);
        let data = STANDARD.decode(layer["raster"]["data"].as_str().unwrap()).unwrap();
        let at = |plane: usize| i64::from(data[(9 * planes + plane) * width + 7] as i8);
        let steps = trace["steps"].as_array().unwrap();
        let fired =
            steps.iter().filter(|step| step["phase"] != "integrate").map(|step| step["spike"].as_i64().unwrap());
        let fired: Vec<i64> = fired.collect();
        assert_eq!(trace["level"], (0..planes).map(at).sum::<i64>(), "{model} {site}");
        if planes > 1 {
            assert_eq!(fired, (0..planes).map(at).collect::<Vec<_>>(), "{model} {site}");
        } else {
            // What no spike has taken is less than a level, if nothing was clipped.
            let left = steps.last().unwrap()["potential"].as_f64().unwrap();
            assert!(left.abs() <= 0.5 || trace["level"].as_i64().unwrap().unsigned_abs() == 127, "{left}");
        }
    }
    for (neuron, told) in
        [("nowhere:0", "no site"), ("h.0.mlp.hidden:9999", "neurons 0 to"), ("h.0.mlp.hidden:0@99", "tokens 0 to")]
    {
        let line = format!("inspect model.snn --text text.txt --tokens 12 --neuron {neuron}");
        let output = Command::new(snnc()).args(line.split(' ')).current_dir(folder()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told), "{neuron}: {said}");
    }
}

/// Several programs have the numbers that each has alone; programs of another text or network are refused.
#[test]
fn programs_are_compared_by_their_own_numbers() {
    let line = "--text text.txt --tokens 24 --reference model.onnx";
    run(folder(), &format!("report model.snn four.snn classical.snn {line} --figures compared -o compared.html"));
    let rows = csv(&folder().join("compared/runs-perplexity.csv"));
    for (row, model) in rows[1..].iter().zip(["model.snn", "four.snn", "classical.snn"]) {
        let alone = inspect(&format!("{model} {line}"));
        assert_eq!(row[0], model);
        let found = &alone["evaluation"];
        assert_eq!(row[1].parse::<f64>().ok(), found["perplexity"].as_f64());
        assert_eq!(row[2].parse::<f64>().ok(), found["perplexity_95"][0].as_f64());
        let [low, middle, high] =
            [&found["perplexity_95"][0], &found["perplexity"], &found["perplexity_95"][1]].map(|x| x.as_f64().unwrap());
        assert!(low < middle && middle < high && found["intervals_over"] == "tokens");
    }
    let output = Command::new(snnc()).args(["report", "model.snn", "four.snn"]).current_dir(folder()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--text"), "what compares needs a text");
}

/// What `tune` and `train` print is shown with its own numbers.
#[test]
fn a_front_and_a_training_run_are_shown() {
    let point = |flags: &str, uniform: bool, rise: f64, saved: f64| {
        json!({ "flags": flags, "uniform": uniform, "perplexity_increase": rise, "kl": 0.01, "spikes_per_neuron": 1.5, "timesteps_mean": 5.0,
            "additions_per_token": 1e6, "attention_additions_per_token": 1e5,
            "saving": { "paper45": { "attention_block": 0.5, "total": saved }, "int45": { "attention_block": null, "total": null } } })
    };
    let best = point("--timesteps 5", true, 0.01, 0.5);
    let tune = json!({ "schema": "snnc.tune.v2", "budget": "perplexity+1%", "minimise": "energy", "chosen": best,
        "points": [best, point("--timesteps 4,head=7", false, 0.02, 0.6)] });
    fs::write(folder().join("tune.json"), tune.to_string()).unwrap();
    let compared = |perplexity: f64| json!({ "recall": [], "recall_dense": [], "tokens": 64, "perplexity": perplexity, "perplexity_dense": 20.0, "kl": 0.1, "top1_agreement": 0.75 });
    let lines = [
        json!({ "schema": "snnc.train.v2", "kind": "before", "program": compared(90.0) }),
        json!({ "schema": "snnc.train.v2", "kind": "step", "step": 1, "loss": 2.5, "norm": 1.0, "rate": 0.1, "tokens": 8, "tokens_per_s": 1.0 }),
        json!({ "schema": "snnc.train.v2", "kind": "validation", "step": 1, "loss": 2.25, "best": true }),
        json!({ "schema": "snnc.train.v2", "kind": "after", "program": compared(25.0) }),
    ];
    fs::write(folder().join("train.jsonl"), lines.map(|line| line.to_string()).join("\n")).unwrap();
    run(folder(), "report model.snn --tune tune.json --training train.jsonl --figures fronts -o fronts.html");
    let rows = csv(&folder().join("fronts/front-energy-paper45.csv"));
    assert_eq!((rows[1][0].as_str(), rows[1][1].as_str(), rows[2][8].as_str()), ("50", "1", "--timesteps 4,head=7"));
    assert!(folder().join("fronts/front-timesteps.svg").is_file());
    assert!(!folder().join("fronts/front-energy-int45.svg").exists(), "what has no price has no place");
    let rows = csv(&folder().join("fronts/training-perplexity.csv"));
    assert_eq!((rows[1][2].as_str(), rows[2][2].as_str()), ("90", "25"));
    assert_eq!(csv(&folder().join("fronts/training-loss.csv")).len(), 3);
    for (option, file, told) in
        [("--tune", "train.jsonl", "tune"), ("--training", "tune.json", "train"), ("--tune", "text.txt", "tune")]
    {
        let output =
            Command::new(snnc()).args(["report", "model.snn", option, file]).current_dir(folder()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(file) && said.contains(told), "{option} {file}: {said}");
    }
}

/// A network that is much worse than its reference says so in the first line.
#[test]
fn a_bad_network_says_so_first() {
    run(folder(), "compile model.onnx -o bad.snn --timesteps 1 --calibration-tokens 2048");
    fs::write(folder().join("plain.txt"), BUILT_IN_TEXT).unwrap();
    let text = run(folder(), "inspect bad.snn --text plain.txt --tokens 48 --reference model.onnx");
    let first = text.lines().next().unwrap();
    assert!(first.starts_with("much worse than its reference: perplexity"), "{first}");
    let good = run(folder(), "inspect model.snn --text plain.txt --tokens 48 --reference model.onnx");
    assert!(good.starts_with("model.snn"), "{good}");
}

/// Where pictures go.
fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/report-pages");
    fs::create_dir_all(&folder).unwrap();
    folder
}

const READY: &str = "document.documentElement?.dataset.ready === 'true'";

fn browser() -> Option<Browser> {
    let program = browser::program();
    if program.is_none() {
        eprintln!("skipped: there is no Chromium; tests/chromium.sh installs it, SNNC_CHROMIUM names one");
    }
    program.map(|program| Browser::start(&program))
}

fn pages() -> &'static [PathBuf; 5] {
    static PAGES: OnceLock<[PathBuf; 5]> = OnceLock::new();
    PAGES.get_or_init(make_pages)
}

fn make_pages() -> [PathBuf; 5] {
    let make = |name: &str, line: &str| {
        run(folder(), &format!("report {line} -o {name}"));
        folder().join(name)
    };
    run(folder(), "eval model.snn --text text.txt --windows 1 --html eval.html");
    let evaluated = folder().join("eval.html");
    [
        make("whole.html", "model.snn --text text.txt --tokens 64 --reference model.onnx --ledger --ledger-tokens 64"),
        make("alone.html", "classical.snn --text text.txt --tokens 32"),
        make("silent.html", "silent.snn --text text.txt --tokens 32"),
        make("bare.html", "model.snn"),
        evaluated,
    ]
}

/// Every page opens without a complaint, fetches nothing and fits its window, narrow and wide, light and dark.
#[test]
fn pages_open_at_every_width_and_in_both_themes() {
    let Some(mut browser) = browser() else { return };
    for page in pages() {
        for (width, theme) in [(320, "light"), (768, "dark"), (1440, "light"), (1440, "dark"), (320, "dark")] {
            browser.look(width, 900, theme);
            let before = browser.worked();
            browser.open(page, READY);
            let worked = browser.worked() - before;
            let place = format!("{} at {width} in {theme}", page.display());
            assert!(worked < 4.0, "{place}: {worked} s of work");
            assert_eq!(browser.eval("document.documentElement.dataset.theme"), theme, "{place}");
            let wide = browser.eval("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{place}: {wide} wide");
            let picture = STANDARD.decode(browser.picture()).unwrap();
            let name = page.file_stem().unwrap().to_string_lossy().into_owned();
            fs::write(pictures().join(format!("{name}-{width}-{theme}.png")), picture).unwrap();
        }
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Every control has a name, headings have an order, and canvases say what they show.
#[test]
fn a_screen_reader_finds_its_way() {
    let Some(mut browser) = browser() else { return };
    let [whole, ..] = pages();
    browser.look(1024, 900, "light");
    browser.open(whole, READY);
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let controls =
        ["button", "link", "combobox", "textbox", "searchbox", "spinbutton", "checkbox", "application", "image"];
    let mut seen = 0;
    for node in tree["nodes"].as_array().unwrap().iter().filter(|node| node["ignored"] != true) {
        let role = node["role"]["value"].as_str().unwrap_or("");
        if controls.contains(&role) {
            seen += 1;
            assert!(node["name"]["value"].as_str().is_some_and(|name| !name.trim().is_empty()), "{node}");
        }
    }
    assert!(seen > 100, "{seen} controls");
    let landmarks = browser.eval("['header','nav','main','footer'].every(t => document.querySelector(t))");
    assert_eq!(landmarks, true);
    let levels = browser.eval("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])");
    let levels: Vec<u64> = serde_json::from_value(levels).unwrap();
    assert!(levels[0] == 1 && levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    // The first stop of the keyboard skips to the report.
    browser.press("Tab", "");
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    browser.press("Enter", "\r");
    assert_eq!(browser.eval("document.activeElement.id"), "main");
    // Text and its ground differ enough to be read, in both themes.
    for theme in ["light", "dark"] {
        browser.look(1024, 900, theme);
        let least = browser.least_contrast(
            "document.querySelectorAll('main *, header *, nav *, footer *')",
            "svg, .hidden, option, :disabled",
        );
        assert!(least["ratio"].as_f64().unwrap() >= 4.5, "{theme}: {least}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Every figure can be saved from the page as it is saved without one, and the raster in view as well.
#[test]
fn figures_are_saved_from_the_page() {
    let Some(mut browser) = browser() else { return };
    let [whole, ..] = pages();
    let line = "report model.snn --text text.txt --tokens 64 --reference model.onnx --ledger --ledger-tokens 64";
    run(folder(), &format!("{line} --figures of-page -o of-page.html"));
    let saved = tempfile::tempdir().unwrap();
    browser.look(1200, 900, "dark");
    browser.save_into(saved.path());
    let names =
        ["spikes-by-layer", "membrane", "energy-by-list", "surprisal-by-token", "errors-by-site", "raster-view"];
    for name in names {
        // A browser asks its user before a page saves an eleventh file.
        browser.open(whole, READY);
        let buttons = match name {
            "raster-view" => "document.querySelectorAll('#spikes .key .saving button')".to_string(),
            _ => format!("document.querySelectorAll('#figure-{name} .saving button')"),
        };
        assert_eq!(
            browser.eval(&format!("[...{buttons}].map(b => b.textContent)")),
            json!(["SVG", "PNG", "CSV"]),
            "{name}"
        );
        for (i, ending) in ["svg", "png", "csv"].into_iter().enumerate() {
            browser.eval(&format!("{buttons}[{i}].click()"));
            let file = saved.path().join(format!("{name}.{ending}"));
            let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
            while !file.is_file() {
                assert!(std::time::Instant::now() < until, "{} is not saved", file.display());
                browser.eval("new Promise(done => setTimeout(done, 20))");
            }
            let bytes = fs::read(&file).unwrap();
            match (ending, name) {
                ("png", _) => assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 2000, "{name}"),
                (_, "raster-view") => assert!(bytes.len() > 100, "{name}.{ending}"),
                _ => assert!(
                    bytes == fs::read(folder().join(format!("of-page/{name}.{ending}"))).unwrap(),
                    "{name}.{ending}"
                ),
            }
        }
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Narrow pages have every figure and every name, and so has paper.
#[test]
fn nothing_is_lost_on_a_phone_and_on_paper() {
    let Some(mut browser) = browser() else { return };
    let [whole, ..] = pages();
    let seen = "[...document.querySelectorAll('figure svg.fig')].filter(svg => svg.checkVisibility()).map(svg => [svg.getAttribute('aria-label'), svg.querySelectorAll('text').length > 1, svg.getBoundingClientRect().width])";
    browser.look(1440, 900, "light");
    browser.open(whole, READY);
    let wide = browser.eval(seen);
    browser.look(360, 800, "light");
    let narrow = browser.eval(seen);
    let titles = |all: &Json| all.as_array().unwrap().iter().map(|svg| svg[0].clone()).collect::<Vec<_>>();
    assert!(titles(&wide).len() > 10 && titles(&wide) == titles(&narrow), "{wide} {narrow}");
    for svg in narrow.as_array().unwrap() {
        assert!(svg[1] == true && svg[2].as_f64().unwrap() <= 360.0, "{svg}");
    }
    let names = "[...document.querySelectorAll('#figure-spikes-by-token svg')].filter(svg => svg.checkVisibility()).flatMap(svg => [...svg.querySelectorAll('text')].map(t => t.textContent)).filter(t => /^(h\\.|head)/.test(t)).length";
    assert_eq!(browser.eval(names), json!(29), "every layer has its name");
    browser.look(1000, 900, "dark");
    let pdf = STANDARD.decode(browser.printed()).unwrap();
    assert!(pdf.starts_with(b"%PDF"));
    fs::write(pictures().join("whole.pdf"), pdf).unwrap();
    // As paper sees it, nothing is cut by a scroll bar.
    browser.look_print(700);
    let cut = browser.eval("[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility() && e.scrollWidth > 702).map(e => [e.getAttribute('aria-label'), e.scrollWidth])");
    assert_eq!(cut, json!([]), "tables fit the paper");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Controls do what they say, by mouse and by keyboard.
#[test]
fn controls_work() {
    let Some(mut browser) = browser() else { return };
    let [whole, _, silent, ..] = pages();
    browser.look(1200, 900, "light");
    browser.open(whole, READY);
    let text = |browser: &mut Browser, selector: &str| {
        let value = browser.eval(&format!("document.querySelector({selector:?}).textContent"));
        value.as_str().unwrap().to_string()
    };
    // The raster has spikes of both signs on it, and the arrow keys, plus and nought move in it.
    let colours = "(() => { const c = document.querySelector('canvas.raster'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] + ',' + d[i+1] + ',' + d[i+2]); return s.size; })()";
    assert!(browser.eval(colours).as_u64().unwrap() > 3, "spikes are drawn");
    browser.eval("document.querySelector('canvas.raster').focus()");
    let label = "document.querySelector('canvas.raster').getAttribute('aria-label')";
    let before = browser.eval(label);
    browser.press("ArrowRight", "");
    browser.press("ArrowDown", "");
    let after = browser.eval(label);
    assert!(before != after && after.as_str().unwrap().contains("Token 1 "), "{after}");
    let token = "[...document.querySelectorAll('#spikes input')].map(input => +input.value)";
    let view = browser.eval(token);
    browser.press("+", "+");
    let zoomed: Vec<u64> = serde_json::from_value(browser.eval(token)).unwrap();
    assert!(zoomed[1] - zoomed[0] < view[1].as_u64().unwrap() - view[0].as_u64().unwrap(), "{view} {zoomed:?}");
    browser.press("0", "0");
    assert_eq!(browser.eval(token), json!([0, 1023, 0, 63]), "all neurons and tokens");
    browser.eval(
        "(() => { const t = [...document.querySelectorAll('#spikes details:not(.numbers)')].pop(); t.open = true; })()",
    );
    assert!(browser.eval("document.querySelectorAll('#spikes td').length").as_u64().unwrap() > 100);
    // A cell of the map chooses the layer of both the raster and the levels.
    browser.eval("document.querySelector('table.map button').click()");
    for part in ["spikes", "levels"] {
        assert_eq!(
            browser.eval(&format!("document.querySelector('#{part} select').selectedOptions[0].text")),
            "h.0.attention.in"
        );
    }
    // Prices change what is said of energy.
    let before = text(&mut browser, "#energy");
    browser.eval("(() => { const s = document.querySelector('#energy select'); s.value = 'horowitz45'; s.onchange ? s.onchange() : s.dispatchEvent(new Event('change')); })()");
    assert_ne!(before, text(&mut browser, "#energy"));
    // Arrow keys walk over the text.
    browser.eval("document.querySelector('.text button').focus()");
    browser.press("ArrowRight", "");
    assert!(
        text(&mut browser, "#text .pair").len() > 10
            && browser.eval("document.activeElement.getAttribute('aria-label')").as_str().unwrap().contains("token 2,")
    );
    assert!(text(&mut browser, "#text").contains("</script>"), "text is shown as it is");
    // The IR: another pass, and a word to find.
    browser.eval("[...document.querySelectorAll('.passes button')].find(b => b.textContent === 'spike').click()");
    assert!(text(&mut browser, ".code").contains("synapse"));
    browser.eval("(() => { const f = document.querySelector('#ir input[type=search]'); f.value = 'h.2.mlp'; f.dispatchEvent(new Event('input')); })()");
    assert!(
        browser.eval("[...document.querySelectorAll('.code div')].every(d => d.textContent.includes('h.2.mlp'))")
            == true
    );
    // The theme that a reader chooses goes before the system's.
    browser.eval("document.querySelector('[data-theme-choice=dark]').click()");
    assert_eq!(browser.eval("document.documentElement.dataset.theme"), "dark");
    browser.eval("document.querySelector('[data-theme-choice=auto]').click()");
    browser.open(silent, READY);
    assert!(text(&mut browser, "#summary").contains("Defect: h.1.mlp.hidden is silent"));
    assert!(text(&mut browser, "#energy").contains("a defect"));
    assert_eq!(browser.complaints, Vec::<String>::new());
}
