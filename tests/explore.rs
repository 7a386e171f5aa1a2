//! The page of `snnc explore`: its links are complete and lead where they should, and a browser opens it at every width.
//!
//! Pictures are left in `target/explore-pages` for whoever wants to look at them.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use snnc_tests::browser::{self, Browser};
use snnc_tests::{demo_model, snnc};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// A folder with the demo's model and programs made of it: integrate-then-fire, time-stepped, softmax-free.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(demo_model(), folder.path().join("model.onnx")).unwrap();
        fs::copy(demo_model().with_file_name("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
        for line in [
            "compile model.onnx -o model.snn --calibration-tokens 2048",
            "compile model.onnx -o classical.snn --code st_bif --timesteps 8 --calibration-tokens 1024",
            "compile model.onnx -o lif.snn --attention lif --calibration-tokens 1024",
        ] {
            run(folder.path(), line);
        }
        folder
    };
    FOLDER.get_or_init(make).path()
}

fn call(folder: &Path, line: &str) -> Output {
    Command::new(snnc()).args(line.split(' ')).current_dir(folder).output().unwrap()
}

fn run(folder: &Path, line: &str) {
    let output = call(folder, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The pages that are looked at.
const PAGES: [(&str, &str); 4] = [
    ("whole.html", "explore model.snn --reference model.onnx"),
    ("portable.html", "explore model.snn --reference model.onnx --isa portable"),
    ("classical.html", "explore classical.snn"),
    ("lif.html", "explore lif.snn --layers 1-2"),
];

fn page(name: &str) -> PathBuf {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| PAGES.iter().for_each(|(name, line)| run(folder(), &format!("{line} -o {name}"))));
    folder().join(name)
}

/// What a page holds.
fn data(page: &Path) -> Json {
    let text = fs::read_to_string(page).unwrap();
    let (_, rest) = text.split_once("id=\"data\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn numbers(json: &Json) -> Vec<u64> {
    json.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map_or(&[], Vec::as_slice)
}

/// Every instruction is linked to an instruction of Cranelift's IR that has a line, or to none, and to steps that there are;
/// and no byte of code is missing.
#[test]
fn every_instruction_has_its_row() {
    let mut instructions = 0;
    for (name, _) in PAGES {
        for program in list(&data(&page(name))["programs"]) {
            let functions = list(&program["functions"]);
            assert!(functions.iter().any(|function| function["name"] == "forward"), "{name}");
            for function in functions {
                let at = format!("{name}, {} of {}", function["name"], program["form"]);
                let of = numbers(&function["of"]);
                let sets = list(&function["sets"]);
                let mut lines: Vec<u64> = list(&function["clif"]).iter().filter_map(|line| line[1].as_u64()).collect();
                lines.sort_unstable();
                assert_eq!(lines, (0..of.len() as u64).collect::<Vec<_>>(), "{at}: a line per instruction");
                assert!(of.iter().all(|&set| (set as usize) < sets.len()), "{at}");
                let mut next = 0;
                for line in list(&function["code"]) {
                    let (offset, text) = (line[0].as_u64().unwrap(), line[2].as_str().unwrap());
                    assert_eq!(offset, next, "{at}: {text}");
                    next += line[1].as_str().unwrap().len() as u64 / 2;
                    assert!(line[4].as_u64().unwrap() < sets.len() as u64, "{at}: {text}");
                    if let Some(clif) = line[3].as_u64() {
                        assert_eq!(line[4], of[clif as usize], "{at}: {text}");
                        instructions += 1;
                    }
                    assert!(!text.contains("(bad)"), "{at}: {text} at {offset:x}");
                }
                assert_eq!(next, function["bytes"].as_u64().unwrap(), "{at}: all bytes are there");
            }
        }
    }
    assert!(instructions > 5000, "{instructions}");
}

/// Every step has its call in `forward`, of its function or of the trampoline to the kernels, in both listings; a function's
/// lines belong to all steps that call it; every node that runs has steps, and every step has nodes.
#[test]
fn every_step_has_its_code_and_its_nodes() {
    for (name, _) in PAGES {
        let data = data(&page(name));
        for (i, program) in list(&data["programs"]).iter().enumerate() {
            let functions = list(&program["functions"]);
            let forward = functions.iter().find(|function| function["name"] == "forward").unwrap();
            let of: Vec<HashSet<u64>> =
                list(&forward["sets"]).iter().map(|set| numbers(set).into_iter().collect()).collect();
            let own = |step: u64, line: &Json| of[line[4].as_u64().unwrap() as usize].contains(&step);
            let stage = list(&data["stages"]).iter().find(|stage| stage["program"] == i).unwrap();
            let run: HashSet<u64> = list(&stage["lines"]).iter().flat_map(|line| numbers(&line[2])).collect();
            for row in list(&program["rows"]) {
                let at = format!("{name}, {}: {row}", program["form"]);
                let step = row["step"].as_u64().unwrap();
                let code: Vec<&Json> = list(&forward["code"]).iter().filter(|line| own(step, line)).collect();
                let says = |what: &str| code.iter().any(|line| line[2].as_str().unwrap().contains(what));
                let in_clif = list(&forward["clif"]).iter().any(|line| {
                    let number = line[1].as_u64().map(|number| forward["of"][number as usize].as_u64().unwrap());
                    number.is_some_and(|set| of[set as usize].contains(&step))
                        && line[0].as_str().unwrap().contains("call ")
                });
                assert!(in_clif, "{at}: no call in Cranelift's IR");
                match row["runs"].as_str().unwrap() {
                    "code" => {
                        let function = &functions[row["function"].as_u64().unwrap() as usize];
                        let called = format!("call    {}", function["name"].as_str().unwrap());
                        assert!(says(&called), "{at}: {code:?}");
                        assert!(numbers(&function["sets"][0]).contains(&step), "{at}");
                    }
                    "loop" => {
                        let function = &functions[row["function"].as_u64().unwrap() as usize];
                        assert!(says("trampoline") && numbers(&function["sets"][0]).contains(&step), "{at}");
                    }
                    _ => assert!(says("trampoline") && row["function"].is_null(), "{at}: {code:?}"),
                }
                assert!(run.contains(&step), "{at}: no node");
            }
            let steps = list(&program["rows"]).len();
            for line in list(&stage["lines"]).iter().filter(|line| line[0].as_str().unwrap().starts_with('%')) {
                let input = [" = tokens", " = positions"].iter().any(|op| line[0].as_str().unwrap().contains(op));
                assert!(input || !numbers(&line[2]).is_empty(), "{name}: no step of {steps} runs {line}");
            }
        }
    }
}

/// A node of any stage leads to a place that has nodes in the program.
#[test]
fn every_stage_is_linked_to_the_program() {
    let data = data(&page("whole.html"));
    let passes: Vec<&str> = list(&data["stages"]).iter().map(|stage| stage["pass"].as_str().unwrap()).collect();
    let all = ["imported", "raise", "simplify", "rotate", "quantise", "spike", "fold", "tie_embedding", "collapse"];
    assert_eq!((passes.as_slice(), &data["gives_program"]), (&all[..], &json!(true)));
    let places = list(&data["places"]);
    let origin =
        |place: &Json| place.as_i64().and_then(|at| places.get(usize::try_from(at).ok()?)).map(|at| &at["origin"]);
    let program = &list(&data["stages"])[passes.len() - 2];
    let there: HashSet<&str> = list(&program["lines"]).iter().filter_map(|line| origin(&line[1])?.as_str()).collect();
    let mut folded = 0;
    for stage in list(&data["stages"]) {
        for line in list(&stage["lines"]).iter().filter(|line| line[0].as_str().unwrap().starts_with('%')) {
            let to = if line[3] == -1 { &line[1] } else { &line[3] };
            folded += usize::from(line[3] != -1);
            assert!(origin(to).is_some_and(|name| there.contains(name.as_str().unwrap())), "{}: {line}", stage["pass"]);
        }
    }
    assert!(folded > 20, "{folded} nodes of the imported graph are folded into others");
}

#[test]
fn the_same_files_give_the_same_bytes_and_layers_can_be_left_out() {
    let again = folder().join("whole-again");
    fs::create_dir_all(&again).unwrap();
    let whole = fs::read(page("whole.html")).unwrap();
    run(&again, "explore ../model.snn --reference ../model.onnx -o whole.html");
    assert!(whole == fs::read(again.join("whole.html")).unwrap(), "another run gives another page");
    let some = data(&page("lif.html"));
    assert_eq!((&some["left_out"]["shown"], &some["left_out"]["for_size"]), (&json!([1, 2]), &json!(false)));
    assert!(some["left_out"]["lines"].as_u64().unwrap() > 50);
    let text = some["stages"].to_string();
    assert!(
        text.contains("#h.1.mlp.in") && text.contains("#h.2.") && !text.contains("#h.0.") && !text.contains("#h.3.")
    );
    // Time does not collapse there.
    assert_eq!(list(&some["programs"]).len(), 1);
    for (line, told) in [
        ("explore model.snn --layers 4", "there is no layer 4: the network has 4"),
        ("explore model.onnx", "is a dense network"),
        ("explore model.snn --reference model.snn", "is a compiled program"),
        ("explore model.snn --isa mmx", "there are portable, avx2, avx512"),
    ] {
        let output = call(folder(), &format!("{line} -o refused.html"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(told), "{line}: {said}");
    }
    assert!(!folder().join("refused.html").exists());
}

const READY: &str = "document.documentElement?.dataset.ready === 'true'";

fn browser() -> Option<Browser> {
    let program = browser::program();
    if program.is_none() {
        eprintln!("skipped: there is no Chromium; tests/chromium.sh installs it, SNNC_CHROMIUM names one");
    }
    program.map(|program| Browser::start(&program))
}

/// Every page opens without a complaint, fetches nothing and fits its window; text can be read on its ground.
#[test]
fn pages_open_at_every_width_and_in_both_themes() {
    let Some(mut browser) = browser() else { return };
    let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/explore-pages");
    fs::create_dir_all(&pictures).unwrap();
    for (name, _) in PAGES {
        for (width, theme) in [(360, "light"), (360, "dark"), (768, "light"), (1440, "light"), (1440, "dark")] {
            browser.look(width, 900, theme);
            let took = browser.open(&page(name), READY);
            let place = format!("{name} at {width} in {theme}");
            assert!(took.as_secs() < 20, "{place}: {took:?}");
            assert_eq!(browser.eval("document.documentElement.dataset.theme"), theme, "{place}");
            let wide = browser.eval("document.documentElement.scrollWidth");
            assert!(wide.as_u64().unwrap() <= u64::from(width), "{place}: {wide} wide");
            let columns =
                browser.eval("[...document.querySelectorAll('.column')].filter(c => c.checkVisibility()).length");
            assert_eq!(columns, if width < 1000 { 1 } else { 4 }, "{place}");
            browser.eval("document.getElementById('about').open = true; document.querySelectorAll('#lines-ir > div')[12].click()");
            let least = browser.least_contrast(SOME_OF_EACH, "option");
            assert!(least["ratio"].as_f64().unwrap() >= 4.5, "{place}: {least}");
            browser.eval("document.getElementById('about').open = false");
            let picture = STANDARD.decode(browser.picture()).unwrap();
            fs::write(pictures.join(format!("{}-{width}-{theme}.png", name.trim_end_matches(".html"))), picture)
                .unwrap();
        }
    }
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Elements of every kind: all of them would take minutes.
const SOME_OF_EACH: &str = r"[
  ...[...document.querySelectorAll('.linked, .exact')].slice(0, 60),
  ...[...document.querySelectorAll('.lines')].flatMap(box => [...box.children].slice(0, 30)),
  ...document.querySelectorAll('header, .about, .tools, .tabs, footer, h2'),
].flatMap(top => [top, ...top.querySelectorAll('*')])";

/// How many lines of a column are marked.
fn marked(browser: &mut Browser, column: &str) -> u64 {
    let count = format!("document.querySelectorAll('#lines-{column} .linked, #lines-{column} .exact').length");
    browser.eval(&count).as_u64().unwrap()
}

fn text(browser: &mut Browser, selector: &str) -> String {
    browser.eval(&format!("document.querySelector({selector:?})?.textContent ?? ''")).as_str().unwrap().to_string()
}

/// A line is pointed at, clicked, and reached by keys, and what belongs to it is marked in the other columns, and back.
#[test]
fn links_work_by_mouse_and_by_keyboard() {
    let Some(mut browser) = browser() else { return };
    browser.look(1440, 900, "light");
    browser.open(&page("portable.html"), READY);
    // The mouse over the first addition marks its step, its function and its call.
    let at = "(() => { const line = [...document.querySelectorAll('#lines-ir > div')].find(line => line.textContent.includes('= add(')); const r = line.getBoundingClientRect(); return [r.left + 20, r.top + 8]; })()";
    let at = browser.eval(at);
    browser.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": at[0], "y": at[1] }));
    browser.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(marked(&mut browser, "plan"), 1);
    assert!(marked(&mut browser, "clif") > 50 && marked(&mut browser, "code") > 50);
    assert!(text(&mut browser, "#detail").contains("generated function add_256"), "{}", text(&mut browser, "#detail"));
    browser.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": 5, "y": 5 }));
    browser.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    assert_eq!(marked(&mut browser, "plan"), 0, "nothing stays without a click");
    // A kernel has no code but its call.
    browser.eval("[...document.querySelectorAll('#lines-plan > div')].find(line => line.textContent.includes('kernel centre')).click()");
    assert!(text(&mut browser, "#detail").contains("which is not generated code"));
    let calls =
        browser.eval("[...document.querySelectorAll('#lines-code .linked')].map(line => line.textContent).join('\\n')");
    assert!(calls.as_str().unwrap().contains("# address of trampoline"), "{calls}");
    // Back from an instruction: the IR's lines are those of all steps that share the function.
    browser.eval(
        "(() => { const all = [...document.querySelectorAll('#lines-code > div')], head = all.findIndex(line => line.textContent.startsWith('scale_shift_add_256:')); all.find((line, i) => i > head && line.textContent.includes('vaddps')).click(); })()",
    );
    assert_eq!(text(&mut browser, "#lines-clif .exact").trim().split(" = ").nth(1).map(|op| &op[..4]), Some("fadd"));
    let back = marked(&mut browser, "ir");
    assert!(back > 1 && back >= marked(&mut browser, "plan"), "{back}");
    // The keyboard: down, then to the next column, then away.
    browser.press("Escape", "");
    browser.eval("document.getElementById('lines-ir').focus()");
    for _ in 0..4 {
        browser.press("ArrowDown", "");
    }
    let chosen = browser.eval("document.getElementById('lines-ir').getAttribute('aria-activedescendant')");
    assert_eq!(
        text(&mut browser, "#lines-ir [aria-selected=true]"),
        text(&mut browser, &format!("#{}", chosen.as_str().unwrap()))
    );
    assert!(text(&mut browser, "#lines-ir [aria-selected=true]").contains(" = "));
    browser.press("ArrowRight", "");
    assert_eq!(browser.eval("document.activeElement.id"), "lines-plan");
    browser.press("ArrowRight", "");
    assert_eq!(browser.eval("document.activeElement.id"), "lines-clif");
    assert!(text(&mut browser, "#lines-clif .chosen").contains("call") || marked(&mut browser, "plan") > 0);
    browser.eval("document.activeElement.blur()");
    assert_eq!(browser.complaints, Vec::<String>::new());
}

/// Stages, forms, layers, constants and the search change what is shown; every line of every stage has a link.
#[test]
fn controls_choose_what_is_shown() {
    let Some(mut browser) = browser() else { return };
    browser.look(1440, 900, "light");
    browser.open(&page("portable.html"), READY);
    let lines = |browser: &mut Browser, column: &str| {
        browser.eval(&format!("document.querySelectorAll('#lines-{column} > div').length")).as_u64().unwrap()
    };
    let pick = |browser: &mut Browser, id: &str, value: &str| {
        browser.eval(&format!(
            "(() => {{ const pick = document.getElementById('{id}'); pick.value = '{value}'; pick.dispatchEvent(new Event('change')); }})()"
        ));
    };
    let collapsed = lines(&mut browser, "plan");
    pick(&mut browser, "program", "1");
    assert!(lines(&mut browser, "plan") > collapsed, "each spike is a step");
    assert!(text(&mut browser, "#lines-ir").contains("spiking context="));
    pick(&mut browser, "stage", "0");
    assert!(text(&mut browser, "#lines-ir").contains("imported context="));
    // A matrix product of the exporter is found in the code that runs it.
    browser.eval("[...document.querySelectorAll('#lines-ir > div')].filter(line => line.textContent.includes(' = matmul('))[3].click()");
    assert!(marked(&mut browser, "plan") > 0 && marked(&mut browser, "code") > 0, "{}", text(&mut browser, "#detail"));
    let all = (lines(&mut browser, "ir"), lines(&mut browser, "plan"));
    pick(&mut browser, "layer", "2");
    let one = (lines(&mut browser, "ir"), lines(&mut browser, "plan"));
    assert!(one.0 < all.0 / 2 && one.1 < all.1 / 2, "{one:?} of {all:?}");
    let before = lines(&mut browser, "ir");
    browser.eval("document.getElementById('weights').click()");
    assert!(lines(&mut browser, "ir") > before && text(&mut browser, "#lines-ir").contains("weight @"));
    browser.eval("(() => { const find = document.getElementById('find'); find.value = 'softmax'; find.dispatchEvent(new Event('input')); return new Promise(done => setTimeout(done, 300)); })()");
    assert_eq!(lines(&mut browser, "ir"), 1);
    // On a narrow screen a tap marks, and tabs say how much.
    browser.look(360, 740, "light");
    browser.open(&page("portable.html"), READY);
    browser.eval("document.querySelectorAll('#lines-ir > div')[7].click()");
    assert!(text(&mut browser, "#tab-code").contains("linked"));
    browser.eval("document.getElementById('tab-code').click()");
    let seen = browser.eval("[...document.querySelectorAll('#lines-code .linked')].some(line => { const r = line.getBoundingClientRect(); return r.height > 0 && r.top > 0 && r.bottom < innerHeight; })");
    assert_eq!(seen, true, "what is linked is in sight");
    assert_eq!(browser.complaints, Vec::<String>::new());
}
