//! The page of `snnc report` in a browser, as a person and as a screen reader meet it; and that what it says is what happened.
//!
//! Pictures are left in `target/report-pages` for whoever wants to look at them.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod browser;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use browser::Browser;
use serde_json::{Value as Json, json};
use snnc::convert::BUILT_IN_TEXT;
use snnc_ir::container::{self, File};
use snnc_ir::{Data, Tensor};
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
        let report = inspect(&format!("{model} --text text.txt --tokens 20"));
        let layers = report["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 4 * 7 + 1);
        assert!(layers.iter().any(|layer| layer["raster"]["planes"] == planes), "{model}");
        let mut all = 0;
        for layer in layers {
            let by_token: Vec<u64> = serde_json::from_value(layer["by_token"].clone()).unwrap();
            assert_eq!(drawn(layer, 20), by_token, "{model}: {}", layer["site"]);
            assert_eq!(layer["spikes"], by_token.iter().sum::<u64>());
            let counts: Vec<u64> = serde_json::from_value(layer["histogram"]["counts"].clone()).unwrap();
            assert_eq!(counts.iter().sum::<u64>(), 20 * layer["width"].as_u64().unwrap());
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
            let took = browser.open(page, READY);
            let place = format!("{} at {width} in {theme}", page.display());
            assert!(took.as_secs() < 20, "{place}: {took:?}");
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
        let least = browser.eval(CONTRAST);
        assert!(least["ratio"].as_f64().unwrap() >= 4.5, "{theme}: {least}");
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// The least contrast of any text with the ground behind it (WCAG 2).
const CONTRAST: &str = r"(() => {
  const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
  const lin = x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const lum = ([r, g, b]) => .2126 * lin(r) + .7152 * lin(g) + .0722 * lin(b);
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > .99) return c; } return [255, 255, 255]; };
  let least = { ratio: 21 };
  for (const e of document.querySelectorAll('main *, header *, nav *, footer *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest('svg, .hidden, option, :disabled')) continue;
    const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < least.ratio) least = { ratio, text: e.textContent.slice(0, 40), class: e.className, tag: e.tagName };
  }
  return least;
})()";

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
    browser.eval("(() => { const t = [...document.querySelectorAll('#spikes details')].pop(); t.open = true; })()");
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
