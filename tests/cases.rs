//! CaseFile files: a small program in the text form, what is done with it, and what comes of it. `docs/testing.md` shows how to
//! write one.
//!
//! ```text
//! ; test: spike                  what is done: a pass, `text`, `infer`, `verify`, `cost`
//! snnc 3 quantised context=8     the program
//! ...
//! ; result:                      what comes of it, line by line behind `;`
//! ```
//!
//! An error stands at its line: `; error: ...`. With `; rule: NAME` the outputs `left` and `right` must be equal by that
//! rule alone. The whole file is what is compared, through `insta`: blessing rewrites it.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use snnc::convert::{ConvertOptions, Sample, convert};
use snnc::opt::{self, Omit, PASSES, PassSettings};
use snnc::quant_options::{WeightFormat, weights};
use snnc_examples::gpt2::Gpt2Config;
use snnc_ir::diagnostic::{Diagnostics, ErrorCode};
use snnc_ir::eval::{Content, Evaluator, Memory};
use snnc_ir::membrane::Membrane;
use snnc_ir::op::Heads;
use snnc_ir::text::Filled;
use snnc_ir::{Binary, Code, Graph, Op, Stage, Unary, Value, text, verify};
use snnc_passes::cost::{Activity, Form, Number, Operation, Rate, Sharing, Traffic};
use snnc_passes::egraph::output_classes;
use snnc_passes::egraph::rule::RewriteRule;
use snnc_passes::egraph::sampling::TOLERANCE;
use snnc_passes::levels::Levels;
use snnc_passes::options::QuantOptions;
use snnc_passes::relax::{Recipe, Trainable};
use snnc_tests::documented;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// What stands before the expected text.
const RESULT: &str = "; result:";
const ERROR: &str = "; error: ";

/// A case file.
struct CaseFile {
    path: PathBuf,
    /// Folder and name, without the ending.
    name: String,
    /// The file as it is.
    text: String,
    /// Lines before the program.
    header: Vec<String>,
    /// The program without what is expected of it.
    program: Vec<String>,
}

impl CaseFile {
    fn read(path: PathBuf) -> Self {
        take_over_accepted(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        let start = lines.iter().position(|line| line.starts_with("snnc")).unwrap_or(lines.len());
        let end = lines.iter().position(|line| line == RESULT).unwrap_or(lines.len());
        let bare = |line: &String| match line.split_once(ERROR) {
            Some((before, _)) if before.trim().is_empty() => None,
            Some((before, _)) => Some(before.trim_end().to_string()),
            None => Some(line.clone()),
        };
        let mut program: Vec<String> = lines[start..end.max(start)].iter().filter_map(bare).collect();
        while program.last().is_some_and(String::is_empty) {
            program.pop();
        }
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("{folder}/{}", path.file_stem().unwrap_or_default().to_string_lossy());
        Self { name, header: lines[..start].to_vec(), program, text, path }
    }

    /// All values of a key of the header.
    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.header.iter().filter_map(move |line| line.strip_prefix("; ")?.strip_prefix(key)?.strip_prefix(": "))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// The program as text.
    fn source(&self) -> String {
        self.program.join("\n") + "\n"
    }

    /// The same below as many empty lines as the header has, so that errors speak of lines of the file.
    fn in_place(&self) -> String {
        "\n".repeat(self.header.len()) + &self.source()
    }

    /// The names of operations that the program has, and those on lines with an error.
    fn operations(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let op = |line: &str| {
            let (_, right) = line.strip_prefix('%')?.split_once(" = ")?;
            Some(right.split(['(', '[', ' ']).next()?.to_string())
        };
        let lines = || self.text.lines().take_while(|line| *line != RESULT);
        (lines().filter_map(op).collect(), lines().filter(|line| line.contains(ERROR)).filter_map(op).collect())
    }

    /// The file as it should be: its program with the errors that were found, or with the result below it.
    fn with(&self, outcome: Result<Option<String>, Diagnostics>) -> String {
        let mut lines = self.program.clone();
        let mut below: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let mut result = None;
        match outcome {
            Ok(text) => result = text,
            Err(errors) => {
                for error in errors {
                    let line = opt::position(&self.in_place(), &error.place).map_or(0, |(line, _)| line);
                    let line = line.saturating_sub(self.header.len());
                    below.entry(line.clamp(1, lines.len()) - 1).or_default().push(format!("{ERROR}{}", error.message));
                }
            }
        }
        for (i, errors) in below.into_iter().rev() {
            lines[i] = format!("{} {}", lines[i], errors[0]);
            lines.splice(i + 1..i + 1, errors[1..].iter().cloned());
        }
        let mut whole: Vec<String> = self.header.iter().cloned().chain(lines).collect();
        if let Some(text) = result {
            whole.extend([String::new(), RESULT.to_string()]);
            whole.extend(text.trim_end().lines().map(|line| format!("; {line}").trim_end().to_string()));
        }
        whole.join("\n") + "\n"
    }
}

/// All case files, in order; those of which the path contains `CASES` where that is set.
fn cases() -> Vec<CaseFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|folder| folder.unwrap().path())
        .filter(|folder| folder.is_dir())
        .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "ir"))
        .collect();
    paths.sort();
    paths.into_iter().map(CaseFile::read).collect()
}

#[test]
fn every_case_comes_out_as_it_says() {
    let only = std::env::var("CASES").unwrap_or_default();
    let mut failed = Vec::new();
    for case in cases().iter().filter(|case| case.name.contains(&only)) {
        let told = match catch_unwind(AssertUnwindSafe(|| check(case))) {
            Ok(Ok(())) => continue,
            Ok(Err(told)) => told,
            Err(_) => "panicked".to_string(),
        };
        eprintln!("tests/cases/{}.ir: {told}", case.name);
        failed.push(case.name.clone());
    }
    assert!(failed.is_empty(), "{} cases failed: {}", failed.len(), failed.join(", "));
}

fn check(case: &CaseFile) -> Result<(), String> {
    let actual = match case.get("rule") {
        Some(rule) => {
            check_rule(case, rule)?;
            case.with(Ok(None))
        }
        None => {
            let outcome = outcome(case)?;
            check_promise(case, &outcome)?;
            case.with(outcome)
        }
    };
    if actual == case.text { Ok(()) } else { compare(case, &actual) }
}

/// What comes of a case: text to show, or errors to put at their lines.
fn outcome(case: &CaseFile) -> Result<Result<Option<String>, Diagnostics>, String> {
    let test = case.get("test").ok_or("the header names no test")?;
    let read = match opt::read(&case.in_place(), &[]) {
        Ok(read) => read,
        Err(errors) => return Ok(Err(errors)),
    };
    Ok(match test {
        "text" | "infer" => {
            let printed = read.print(&read.graph);
            let again = opt::read(&printed, &[]).map_err(|e| format!("what is printed cannot be read: {e}"))?;
            if again.print(&again.graph) != printed {
                return Err("what is printed reads back as something else".into());
            }
            Ok((printed != case.source()).then_some(printed))
        }
        "verify" => verify::verify(&read.graph).map(|()| None),
        "cost" => verify::verify(&read.graph).map(|()| Some(costs(&read.graph))),
        pass => passed(case, pass, read)?,
    })
}

fn passed(case: &CaseFile, pass: &str, read: Filled) -> Result<Result<Option<String>, Diagnostics>, String> {
    let settings = settings(case)?;
    let names: Vec<String> = case.get("passes").unwrap_or(pass).split(", ").map(str::to_string).collect();
    if !names.iter().any(|name| name == pass) {
        return Err(format!("the passes do not have `{pass}` among them"));
    }
    let outcome = opt::run(&names, read.graph.clone(), &settings, &mut |_, _, _| Ok(()));
    if let (Ok(after), None) = (&outcome, case.get("inexact")) {
        let share = case.get("loses").map_or(Ok(ROUNDING), str::parse).map_err(|_| "a share is a number")?;
        same_meaning(&read.graph, after, share)?;
    }
    Ok(outcome.map(|after| Some(opt::print(&read, &after, &Omit::default()))))
}

/// Options of passes from the header.
fn settings(case: &CaseFile) -> Result<PassSettings, String> {
    let mut levels = Levels::default();
    if let Some(words) = case.get("levels") {
        let (code, steps) = words.split_once(' ').ok_or("levels are like `binary 7`")?;
        levels.code = Code::from_name(code).ok_or("there are codes binary and unary")?;
        levels.steps = steps.parse().map_err(|_| "timesteps are a number")?;
    }
    let mut quant = QuantOptions::uniform(levels);
    if let Some(name) = case.get("neuron") {
        quant.membrane = Some(snnc_ir::membrane::Membrane::from_name(name).ok_or("there is no such neuron")?);
    }
    if let Some(op) = case.get("attention") {
        quant.attention = match Op::parse(op) {
            Ok(Op::Level(snnc_ir::op::LevelOp::Ssa { variant, .. })) => Some(variant),
            _ => None,
        };
    }
    if let Some(format) = case.get("weights") {
        let WeightFormat::I4 { group } = weights(format)? else { return Err("weights are like `i4:32`".into()) };
        quant.weight_group = Some(group);
    }
    if let Some(name) = case.get("thresholds") {
        quant.thresholds = snnc::quant_options::thresholds(name)?;
    }
    if let Some(what) = case.get("rotate") {
        quant.rotate = snnc::quant_options::rotate(what)?;
    }
    let train = match case.get("train") {
        None | Some("all") => Trainable::All,
        Some("thresholds") => Trainable::Thresholds,
        Some("ssa") => Trainable::Ssa,
        Some(other) => return Err(format!("`{other}` cannot be trained")),
    };
    let parameters = case.get("parameters").map(|names| names.split(", ").map(str::to_string).collect());
    Ok(PassSettings {
        quant,
        rounded: case.get("rounded").is_some(),
        parameters: parameters.unwrap_or_default(),
        recipe: Recipe { train, ..Recipe::default() },
    })
}

/// Token ids that programs are evaluated on; tables have that many rows or more.
const IDS: [u32; 5] = [1, 2, 3, 0, 1];
/// Reals that passes may reorder: as a share of the largest number.
const ROUNDING: f64 = 1e-5;

/// What `graph` gives for its outputs, in f64.
fn evaluated(graph: &Graph) -> Result<Vec<(String, Vec<f64>)>, String> {
    let ids = &IDS[..IDS.len().min(graph.context as usize)];
    // Rows without a pattern, where a program begins with some.
    let numbers = ids.len() * graph.stream_width().unwrap_or(0);
    let stream: Vec<f32> = (0..numbers).map(|i| (i * 7 % 11) as f32 / 4.0 - 1.0).collect();
    let evaluator = Evaluator::<f64>::with_stream(graph, &stream);
    let done = evaluator.run(ids, &mut Memory::new(graph)).map_err(|e| format!("it cannot be evaluated: {e}"))?;
    let numbers = |value: Value| match &evaluator.get(&done, value).content {
        Content::Real(x) => x.clone(),
        Content::Int(x) => x.iter().map(|&x| f64::from(x)).collect(),
        Content::Train(parts) => parts.concat().into_iter().map(f64::from).collect(),
    };
    Ok(graph.outputs.iter().map(|(name, value)| (name.clone(), numbers(*value))).collect())
}

fn near(a: &[f64], b: &[f64], share: f64) -> bool {
    let most = a.iter().chain(b).fold(1.0, |most: f64, x| most.max(x.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= share * most)
}

/// A pass leaves what a program computes as it is, but for `share` of the largest number.
fn same_meaning(before: &Graph, after: &Graph, share: f64) -> Result<(), String> {
    if after.stage == Stage::Training {
        return Ok(());
    }
    for ((name, a), (_, b)) in evaluated(before)?.iter().zip(&evaluated(after)?) {
        if !near(a, b, share) {
            return Err(format!("output {name} was {a:?}, is {b:?} behind the pass"));
        }
    }
    Ok(())
}

/// A rule makes `left` and `right` one class, alone or with the rules that `with` names; the table without it does not,
/// unless the header says what it `follows from`; both sides compute the same; what is called `other` stays another class.
fn check_rule(case: &CaseFile, name: &str) -> Result<(), String> {
    let pass = case.get("test").ok_or("the header names no test")?;
    let (_, table) = snnc_passes::RULES.iter().find(|(of, _)| *of == pass).ok_or("this pass has no rules")?;
    let with: Vec<&str> = case.get("with").map(|names| names.split(", ").collect()).unwrap_or_default();
    if let Some(unknown) = with.iter().find(|with| table.iter().all(|rule| rule.name != **with)) {
        return Err(format!("pass {pass} has no rule {unknown}"));
    }
    let read = opt::read(&case.in_place(), &[]);
    let read = read.map_err(|e| opt::with_lines(&case.path.display().to_string(), &case.in_place(), e).to_string())?;
    let rules = |wanted: &dyn Fn(&str) -> bool| -> Vec<RewriteRule> {
        table.iter().filter(|rule| wanted(rule.name)).copied().collect()
    };
    let alone = rules(&|rule| rule == name || with.contains(&rule));
    if alone.len() != with.len() + 1 {
        return Err(format!("pass {pass} has no rule {name}"));
    }
    if !equal(&read.graph, &alone, "right")? {
        return Err(format!("rule {name} does not make left and right equal"));
    }
    if equal(&read.graph, &rules(&|rule| with.contains(&rule)), "right")? {
        return Err("left and right are equal without the rule".into());
    }
    let derived = equal(&read.graph, &rules(&|rule| rule != name), "right")?;
    match (derived, case.get("follows from")) {
        (true, None) => return Err("the other rules of the pass make left and right equal too".into()),
        (false, Some(from)) => return Err(format!("it does not follow from {from}")),
        (true, Some(_)) | (false, None) => {}
    }
    if read.graph.output("other").is_some() && equal(&read.graph, &rules(&|_| true), "other")? {
        return Err("`other` is equal to left, and should not be".into());
    }
    if case.get("inexact").is_some() {
        return Ok(());
    }
    let outputs = evaluated(&read.graph)?;
    let of = |wanted: &str| outputs.iter().find(|(name, _)| name == wanted).map(|(_, numbers)| numbers.as_slice());
    match (of("left"), of("right")) {
        (Some(left), Some(right)) if near(left, right, ROUNDING) => Ok(()),
        (left, right) => Err(format!("left is {left:?}, right is {right:?}")),
    }
}

/// Whether `rules` make the outputs `left` and `to` one class.
fn equal(graph: &Graph, rules: &[RewriteRule], to: &str) -> Result<bool, String> {
    let classes = output_classes(graph, rules, TOLERANCE).map_err(|e| e.to_string())?;
    let of = |wanted: &str| graph.outputs.iter().position(|(name, _)| name == wanted).map(|i| classes[i]);
    match (of("left"), of(to)) {
        (Some(left), Some(right)) => Ok(left == right),
        _ => Err(format!("there should be outputs left and {to}")),
    }
}

/// A case of a promise breaks that one. The reader refuses some programs before the verifier can: its errors have no code of
/// a promise.
fn check_promise(case: &CaseFile, outcome: &Result<Option<String>, Diagnostics>) -> Result<(), String> {
    let Some(number) = case.get("promise") else { return Ok(()) };
    let promise = ErrorCode::promise(number.parse().map_err(|_| "promises have numbers")?);
    let Err(errors) = outcome else { return Err(format!("promise {number} is not broken")) };
    let others = verify::promises().map(ErrorCode::promise).any(|code| errors.iter().any(|error| error.code == code));
    if others && errors.iter().all(|error| error.code != promise) {
        return Err(format!("another promise than {number} is broken: {errors}"));
    }
    Ok(())
}

/// Keys that a token meets in a case of costs.
const KEYS: u64 = 4;

/// What every node does for one token, if every neuron fires once: operations, then bytes by what they are.
fn costs(graph: &Graph) -> String {
    let keys = |heads: Heads| heads.window.map_or(KEYS, |window| KEYS.min(window.into()));
    let activity = Activity::expected(graph, 1, &keys, &|_| Rate { spikes: 1.0, active: 1.0 }, 1.0);
    let mut lines = Vec::new();
    for form in [Form::Dense(Number::F32), Form::Stepped, Form::Collapsed] {
        lines.push(format!("{}:", form.name()));
        for cost in snnc_passes::cost::costs(graph, &activity, form, Sharing { span: 1, batch: 1 }) {
            let operations = Operation::ALL.into_iter().filter(|operation| cost.tally.of(*operation) > 0);
            let operations = operations.map(|operation| format!("{} {}", cost.tally.of(operation), operation.name()));
            let bytes = Traffic::ALL.into_iter().filter(|of| cost.tally.bytes(*of) > 0);
            let bytes = bytes.map(|of| format!("{} B of {}", cost.tally.bytes(of), of.name()));
            let all: Vec<String> = operations.chain(bytes).collect();
            if !all.is_empty() {
                let label = text::label(graph, cost.node);
                lines.push(format!(
                    "  {label} {}, {}: {}",
                    graph.node(cost.node).op.name(),
                    cost.place.part.name(),
                    all.join(", ")
                ));
            }
        }
    }
    lines.join("\n")
}

/// Shows the difference as `insta` does and lets it decide: it fails, leaves the text for `cargo insta review`, or, with
/// `INSTA_UPDATE=always`, takes it over.
fn compare(case: &CaseFile, actual: &str) -> Result<(), String> {
    let (folder, stem) = (case.path.parent().unwrap(), case.path.file_stem().unwrap().to_string_lossy().into_owned());
    let stored = case.path.with_extension("snap");
    std::fs::write(&stored, format!("---\nsource: tests/cases.rs\n---\n{}", case.text)).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let asserted = AssertUnwindSafe(|| settings.bind(|| insta::assert_snapshot!(stem, actual)));
    let same = catch_unwind(asserted).is_ok();
    if same {
        std::fs::remove_file(&stored).unwrap();
        return std::fs::write(&case.path, actual).map_err(|e| e.to_string());
    }
    if !stored.with_extension("snap.new").exists() {
        std::fs::remove_file(&stored).unwrap();
    }
    Err("differs; `cargo insta review` or INSTA_UPDATE=always takes the new text over".into())
}

/// A text that `cargo insta` accepted goes into its case file; one that nobody looked at goes away.
fn take_over_accepted(path: &Path) {
    let (stored, pending) = (path.with_extension("snap"), path.with_extension("snap.new"));
    if let (Ok(text), false) = (std::fs::read_to_string(&stored), pending.exists())
        && let Some((_, accepted)) = text.trim_start_matches("---\n").split_once("\n---\n")
    {
        std::fs::write(path, format!("{}\n", accepted.trim_end())).unwrap();
    }
    let _ = std::fs::remove_file(stored);
    let _ = std::fs::remove_file(pending);
}

/// Cases by what they test.
fn by_test(cases: &[CaseFile]) -> BTreeMap<&str, Vec<&CaseFile>> {
    let mut all: BTreeMap<&str, Vec<&CaseFile>> = BTreeMap::new();
    for case in cases {
        all.entry(case.get("test").unwrap_or("")).or_default().push(case);
    }
    all
}

#[test]
fn every_rule_has_a_case() {
    let cases = cases();
    let shown = |pass: &str, rule: &RewriteRule| {
        cases.iter().any(|case| case.get("test") == Some(pass) && case.get("rule") == Some(rule.name))
    };
    let rules = snnc_passes::RULES.iter().flat_map(|(pass, rules)| rules.iter().map(move |rule| (*pass, rule)));
    let missing: Vec<String> =
        rules.filter(|(pass, rule)| !shown(pass, rule)).map(|(pass, rule)| format!("{pass}/{}", rule.name)).collect();
    assert!(missing.is_empty(), "no case shows {} rules: {missing:?}", missing.len());
}

#[test]
fn every_promise_has_a_case() {
    let cases = cases();
    let shown: BTreeSet<&str> = cases.iter().flat_map(|case| case.all("promise")).collect();
    let missing: Vec<u16> = verify::promises().filter(|number| !shown.contains(number.to_string().as_str())).collect();
    assert!(missing.is_empty(), "no case breaks the promises {missing:?}");
}

#[test]
fn every_pass_has_a_case() {
    let cases = cases();
    let tests = by_test(&cases);
    let missing: Vec<&str> = PASSES.iter().map(|pass| pass.name).filter(|name| !tests.contains_key(name)).collect();
    assert!(missing.is_empty(), "no case runs the passes {missing:?}");
}

#[test]
fn every_neuron_has_a_case() {
    let cases = cases();
    let tests = by_test(&cases);
    let shown = |name: &str| tests["text"].iter().any(|case| case.source().contains(&format!("integrate[{name},")));
    let missing: Vec<&str> = Membrane::all().map(Membrane::name).filter(|name| !shown(name)).collect();
    assert!(missing.is_empty(), "no case of test `text` reads the neurons {missing:?}");
}

/// `docs/quality.md` says what every time-stepped neuron is, and `docs/ir.md` what it does.
#[test]
fn the_documentation_has_every_neuron() {
    let about = Membrane::all().map(|membrane| format!("| `{}` | {} |\n", membrane.name(), membrane.about()));
    documented("quality.md", "neurons", &about.collect::<String>());
    let rule = |membrane: Membrane| {
        let lines = membrane.formula().map(|line| format!("    {line}\n"));
        format!("{}\n{}", membrane.name(), lines.collect::<String>())
    };
    let rules = Membrane::all().map(rule).collect::<String>();
    documented("ir.md", "neurons", &format!("```text\n{rules}```\n"));
}

/// The spellings of all operations, from the tables in the code.
fn operations_in_code() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ir/src");
    let sources = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).map(|all| all.map(|file| file.unwrap().path()).collect()).unwrap_or_default()
    };
    let mut names: BTreeSet<String> = Unary::ALL.into_iter().map(|kind| kind.name().to_string()).collect();
    names.extend(Binary::ALL.into_iter().map(|kind| kind.name().to_string()));
    for file in sources(&root).into_iter().chain(sources(&root.join("op"))) {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        for line in text.lines() {
            let row = line.split_once("OpInfo::new(\"").or_else(|| line.split_once("Op::")?.1.split_once("=> \""));
            names.extend(row.and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name.to_string()));
        }
    }
    names
}

#[test]
fn every_operation_has_cases() {
    let (cases, names) = (cases(), operations_in_code());
    assert!(names.len() >= 60, "the tables of operations are where this test looks: {names:?}");
    let tests = by_test(&cases);
    let read: BTreeSet<String> = tests["text"].iter().flat_map(|case| case.operations().0).collect();
    let refused: BTreeSet<String> = tests["infer"].iter().flat_map(|case| case.operations().1).collect();
    // A weight is a line of its own, and takes nothing.
    let missing = |shown: &BTreeSet<String>| -> Vec<&String> {
        names.iter().filter(|name| *name != "weight" && !shown.contains(*name)).collect()
    };
    assert!(missing(&read).is_empty(), "no case of test `text` reads {:?}", missing(&read));
    assert!(missing(&refused).is_empty(), "no case of test `infer` refuses a use of {:?}", missing(&refused));
}

/// Every operation that may stand in the programs that a pass takes stands in one of its cases.
#[test]
fn every_pass_has_a_case_of_every_operation() {
    let cases = cases();
    let tests = by_test(&cases);
    let graphs = tests["text"].iter().filter_map(|case| opt::read(&case.source(), &[]).ok());
    let mut known: BTreeMap<&str, Op> = BTreeMap::new();
    graphs.for_each(|read| known.extend(read.graph.nodes.iter().map(|node| (node.op.name(), node.op))));
    let mut missing = Vec::new();
    for pass in PASSES {
        let shown: BTreeSet<String> =
            tests.get(pass.name).into_iter().flatten().flat_map(|case| case.operations().0).collect();
        let legal = |op: &Op| pass.needs.iter().any(|stage| op.legal_in(*stage));
        let wanted = known.iter().filter(|(name, op)| **name != "weight" && legal(op));
        missing.extend(
            wanted.filter(|(name, _)| !shown.contains(**name)).map(|(name, _)| format!("{}: {name}", pass.name)),
        );
    }
    assert!(missing.is_empty(), "no case shows {missing:#?}");
}

/// What `show` prints of any stage is read back with the weights of the model that it was made of.
#[test]
fn what_show_prints_is_read_back() {
    let config = Gpt2Config { layers: 1, width: 8, heads: 2, vocabulary: 16, context: 8, ..Gpt2Config::TINY };
    let imported = snnc_tests::imported(&config);
    let mut graphs = vec![imported.clone()];
    let options = ConvertOptions { quant: QuantOptions::default(), calibration_tokens: 64, threads: 1 };
    let converted =
        convert(imported, false, &Sample::SeededIds, &options, &mut |_, _, after| graphs.push(after.clone()));
    graphs.push(converted.unwrap().graph);
    for graph in &graphs {
        let printed = text::print(graph);
        let read = opt::read(&printed, &graphs.iter().collect::<Vec<_>>()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(text::print(&read.graph), printed);
    }
}

#[test]
fn a_pass_at_the_wrong_stage_is_refused() {
    let program = "snnc 3 tensor context=8\n%0 = tokens : i32[tokens]\noutput ids = %0\n";
    let read = opt::read(program, &[]).unwrap();
    let run = |pass: &str| {
        let told = opt::run(&[pass.to_string()], read.graph.clone(), &PassSettings::default(), &mut |_, _, _| Ok(()));
        told.map(|_| ()).unwrap_err().to_string()
    };
    assert!(run("spike").contains("pass `spike` takes stage quantised, the program is at tensor"), "{}", run("spike"));
    assert!(run("spice").contains("there is no pass `spice`; there are raise, simplify"), "{}", run("spice"));
    let broken = program.replace("output", "%1 = embed(%0, @w) : f32[tokens,4]\noutput");
    let told = opt::with_lines("x.ir", &broken, opt::read(&broken, &[]).unwrap_err()).to_string();
    assert!(told.starts_with("x.ir:3:"), "{told}");
    assert!(told.contains("   3 | %1 = embed(%0, @w) : f32[tokens,4]"), "{told}");
}
