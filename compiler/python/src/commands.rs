//! The commands as functions: each reads its options, calls the library, and gives JSON.

use crate::asked::{AskedOptions, Given, wrong};
use crate::errors::exception;
use crate::work::work;
use pyo3::prelude::*;
use serde_json::{Value as Json, json};
use snnc::check::{CheckJson, check as check_model};
use snnc::compile::{CompileOptions, CompiledModel, compile as compile_model};
use snnc::energy::PriceList;
use snnc::energy::run::{EnergyOptions, energy as estimate};
use snnc::eval::{EvalOptions, eval};
use snnc::eval_report::{EvalsJson, ProgramEvalJson};
use snnc::file_use::FileUse;
use snnc::files;
use snnc::front::OnnxOptions;
use snnc::lints;
use snnc::memory_budget::MemoryBudget;
use snnc::option_values::{
    ENERGY_BATCH_MAX, budget, calibration_tokens, context, firing_rate, goal, price_lists as lists_of, text_or_ids,
    whole,
};
use snnc::progress::Progress;
use snnc::quant_options::{CONVERSION, of_pairs, preset};
use snnc::recipe::CompileRecipe;
use snnc::schema::document;
use snnc::stages::shown;
use snnc::tune::{Point, TuneOptions, tune as tune_model};
use snnc_ir::diagnostic::Diagnostics;
use snnc_ir::text;
use snnc_passes::options::QuantOptions;
use std::path::{Path, PathBuf};

/// What Python calls to show progress.
pub type Told = Option<Py<PyAny>>;

/// Numbers from 1 up that fit where the command takes them.
const COUNT: std::ops::RangeInclusive<u64> = 1..=u32::MAX as u64;

/// A number from 1 up.
pub fn count(asked: &AskedOptions, name: &'static str) -> Result<Option<usize>, Diagnostics> {
    Ok(asked.read(name, |text| whole(text, COUNT))?.map(|number| number as usize))
}

/// Options, read on the caller's thread.
pub fn read<T>(py: Python<'_>, read: impl FnOnce() -> Result<T, Diagnostics>) -> PyResult<T> {
    read().map_err(|diagnostics| exception(py, &diagnostics))
}

/// The files of the options of an ONNX file or a folder.
pub fn used_by(asked: &AskedOptions, onnx: &OnnxOptions) -> FileUse {
    let used = FileUse::default().reads("architecture", &onnx.architectures);
    match asked.has("kernel_costs") {
        true => used.reads("kernel_costs", asked.file("kernel_costs").ok().flatten()),
        false => used,
    }
}

/// The text or the file of ids that a call names.
pub fn text_of(asked: &AskedOptions, used: FileUse) -> Result<(Option<PathBuf>, FileUse), Diagnostics> {
    asked.excludes("text", "tokens")?;
    let (text, tokens) = (asked.file("text")?, asked.file("tokens")?);
    let used = used.reads("text", &text).reads("tokens", &tokens);
    Ok((text_or_ids(&text, &tokens)?, used))
}

pub fn needs_text(text: Option<PathBuf>) -> Result<PathBuf, Diagnostics> {
    text.ok_or_else(|| wrong("text", "is missing: name a text, or token ids with `tokens`".into()))
}

/// Levels and their spelling.
fn quant(asked: &AskedOptions) -> Result<Option<QuantOptions>, Diagnostics> {
    let mut pairs = Vec::new();
    let mut given = false;
    for option in CONVERSION {
        // Names live as long as the table that they are from.
        let name: &'static str = NAMES.iter().find(|(_, dashed)| *dashed == option).map_or(option, |(name, _)| *name);
        if let Some(value) = asked.one(name)? {
            given = true;
            pairs.push((option, value));
        }
    }
    asked.excludes("preset", "timesteps")?;
    let preset = asked.read("preset", preset)?;
    let mut spelling = of_pairs(pairs.iter().map(|(option, value)| (*option, value.as_str()))).map_err(|error| {
        let name = error.place.to_string();
        let name = NAMES.iter().find(|(_, dashed)| *dashed == name).map_or(name.as_str(), |(name, _)| *name);
        Diagnostics::from(snnc_ir::Diagnostic { place: name.into(), ..error.clone() })
    })?;
    given |= preset.is_some();
    if let Some(preset) = preset {
        spelling.timesteps = preset.timesteps();
    }
    Ok(if given { Some(spelling.options()?) } else { None })
}

/// Options of a conversion: as Python and as the command line names them.
const NAMES: [(&str, &str); 13] = [
    ("timesteps", "--timesteps"),
    ("code", "--code"),
    ("neuron", "--neuron"),
    ("dense", "--dense"),
    ("centre", "--centre"),
    ("thresholds", "--thresholds"),
    ("first_token", "--first-token"),
    ("attention", "--attention"),
    ("phases", "--phases"),
    ("weights", "--weights"),
    ("rounding", "--rounding"),
    ("embedding", "--embedding"),
    ("rotate", "--rotate"),
];

fn compile_options(
    asked: &AskedOptions,
    model: &Path,
    output: &Path,
) -> Result<(CompileOptions, Option<String>), Diagnostics> {
    let onnx = OnnxOptions { context: asked.read("context", context)?, ..asked.onnx()? };
    let recipe_file = asked.file("recipe")?;
    let recipe = recipe_file.as_deref().map(CompileRecipe::read).transpose()?;
    let quant = quant(asked)?;
    if recipe.is_some() && quant.is_some() {
        return Err(wrong("recipe", "stands instead of the other options of the conversion; leave them out".into()));
    }
    let (tokenizer, mut calibrate) = (asked.file("tokenizer")?, asked.file("calibrate")?);
    let used = used_by(asked, &onnx).reads_models("the model", [model]).reads("tokenizer", &tokenizer);
    let used = used.reads("calibrate", &calibrate).reads("recipe", &recipe_file).writes("output", [output]);
    let mut warning = None;
    if let (None, Some(recipe)) = (&calibrate, &recipe) {
        (calibrate, warning) = recipe.calibration_file();
    }
    used.reads("the calibration text of the recipe", &calibrate).check()?;
    let tokens = asked.read("calibration_tokens", calibration_tokens)?;
    let options = CompileOptions {
        tokenizer,
        start: asked.start()?,
        calibrate,
        calibration_tokens: tokens.or_else(|| recipe.as_ref()?.calibration_tokens()),
        quant: match (&recipe, quant) {
            (Some(recipe), _) => recipe.options()?.options()?,
            (None, quant) => quant.unwrap_or_default(),
        },
        onnx,
        threads: asked.threads()?,
        memory: MemoryBudget::beside(output),
        ..CompileOptions::new(model)
    };
    asked.finish()?;
    Ok((options, warning))
}

/// What is worth knowing of a compiled program.
fn facts(compiled: &CompiledModel, bytes: u64) -> Json {
    let CompiledModel { options, calibration, proof, .. } = compiled;
    let savings = compiled.expected_savings().unwrap_or_default();
    let savings: serde_json::Map<String, Json> =
        savings.into_iter().map(|(list, beside)| (list, beside.into_iter().collect::<Json>())).collect();
    json!({
        "bytes": bytes,
        "options": options,
        "calibration": calibration.source,
        "import": proof.as_ref().map(|proof| proof.line()),
        "context": compiled.file.graph.context,
        "expected_savings": savings,
    })
}

/// Compiles a model, and writes the program to `output`; facts as JSON.
#[pyfunction]
pub fn compile(py: Python<'_>, model: PathBuf, output: PathBuf, given: Given, progress: Told) -> PyResult<String> {
    let (options, warning) = read(py, || {
        let asked = AskedOptions::new("compile", vec![model.clone()], given);
        compile_options(&asked, &model, &output)
    })?;
    work(py, progress.as_ref(), move |watch| {
        warning.iter().for_each(|warning| watch.warn(warning));
        let compiled = compile_model(&options, watch, &mut |_, _| {})?;
        // Whoever pressed Ctrl-C is to find no new file.
        if watch.is_cancelled() {
            return Err(snnc::progress::cancelled().into());
        }
        let bytes = compiled.write(&output)?;
        Ok(facts(&compiled, bytes).to_string())
    })
}

/// What `snnc check --json` prints.
#[pyfunction]
pub fn check(py: Python<'_>, model: PathBuf, given: Given, progress: Told) -> PyResult<String> {
    let (options, record) = read(py, || {
        let asked = AskedOptions::new("check", vec![model.clone()], given);
        let options = asked.onnx()?;
        asked.finish()?;
        let used = used_by(&asked, &options).reads_models("the model", [&model]);
        Ok((options, asked.record(&used)))
    })?;
    work(py, progress.as_ref(), move |_| {
        let checked = check_model(&model, &options);
        Ok(document(&CheckJson::of(&checked), Some(&record)).to_string())
    })
}

fn energy_options(asked: &AskedOptions, model: &Path) -> Result<(EnergyOptions, FileUse), Diagnostics> {
    let onnx = asked.onnx()?;
    let (text, used) = text_of(asked, used_by(asked, &onnx).reads_models("the model", [model]))?;
    let prices = asked.all("prices")?;
    asked.excludes("firing_rate", "text")?;
    asked.excludes("firing_rate", "tokens")?;
    let plain = EnergyOptions::new(model);
    let options = EnergyOptions {
        onnx,
        text,
        start: asked.start()?,
        firing_rate: asked.read("firing_rate", firing_rate)?,
        context: asked.read("context", context)?,
        windows: count(asked, "windows")?.unwrap_or(plain.windows),
        batch: asked.read("batch", |text| whole(text, 1..=ENERGY_BATCH_MAX.into()))?.unwrap_or(plain.batch),
        lists: lists_of(&prices)?,
        engine: asked.engine()?,
        threads: asked.threads()?,
        ..plain
    };
    asked.finish()?;
    Ok((options, used.reads("prices", &prices)))
}

/// What `snnc energy --json` prints.
#[pyfunction]
pub fn energy(py: Python<'_>, model: PathBuf, given: Given, progress: Told) -> PyResult<String> {
    let (options, used, asked) = read(py, || {
        let asked = AskedOptions::new("energy", vec![model.clone()], given);
        let (options, used) = energy_options(&asked, &model)?;
        Ok((options, used, asked))
    })?;
    work(py, progress.as_ref(), move |watch| {
        let found = estimate(&options, watch)?;
        Ok(document(&found.json(), Some(&asked.record(&used))).to_string())
    })
}

fn eval_options(asked: &AskedOptions, models: &[PathBuf]) -> Result<(EvalOptions, FileUse), Diagnostics> {
    let onnx = asked.onnx()?;
    let (text, used) = text_of(asked, used_by(asked, &onnx).reads_models("the model", models))?;
    let reference = asked.file("reference")?;
    let (ledger, ledger_tokens) = (asked.flag("ledger")?, count(asked, "ledger_tokens")?);
    if ledger && reference.is_none() {
        return Err(wrong("ledger", "needs `reference`".into()));
    }
    if ledger_tokens.is_some() && !ledger {
        return Err(wrong("ledger_tokens", "needs `ledger`".into()));
    }
    let used = used.reads_models("reference", &reference);
    let first = models.first().map_or(Path::new(""), PathBuf::as_path);
    let options = EvalOptions {
        models: models.to_vec(),
        onnx,
        reference,
        start: asked.start()?,
        windows: count(asked, "windows")?,
        stride: count(asked, "stride")?,
        ledger,
        ledger_tokens,
        recall: asked.flag("recall")?,
        engine: asked.engine_with_costs()?,
        threads: asked.threads()?,
        ..EvalOptions::new(first, &needs_text(text)?)
    };
    asked.finish()?;
    Ok((options, used))
}

/// What `snnc eval --json` prints.
#[pyfunction]
pub fn evaluate(py: Python<'_>, models: Vec<PathBuf>, given: Given, progress: Told) -> PyResult<String> {
    let (options, used, asked) = read(py, || {
        let asked = AskedOptions::new("eval", models.clone(), given);
        let (options, used) = eval_options(&asked, &models)?;
        Ok((options, used, asked))
    })?;
    work(py, progress.as_ref(), move |watch| {
        let found = eval(&options, watch)?;
        let record = asked.record(&used);
        for report in &found {
            lints::lines(&report.lints).iter().for_each(|line| watch.warn(line));
        }
        let json = match &found[..] {
            [report] => document(&report.json(), Some(&record)),
            several => {
                let named = options.models.iter().map(|path| path.display().to_string()).zip(several);
                let programs =
                    named.map(|(program, report)| ProgramEvalJson { program, evaluation: report.json() }).collect();
                document(&EvalsJson { programs }, Some(&record))
            }
        };
        Ok(json.to_string())
    })
}

/// Where the results of a tuning run go.
struct TuneOutputs {
    output: Option<PathBuf>,
    save: Option<PathBuf>,
}

fn tune_options(asked: &AskedOptions, model: &Path) -> Result<(TuneOptions, TuneOutputs, FileUse), Diagnostics> {
    let onnx = asked.onnx()?;
    let (text, used) = text_of(asked, used_by(asked, &onnx).reads_models("the model", [model]))?;
    let calibrate = asked.file("calibrate")?;
    let (output, save, journal) = (asked.file("output")?, asked.file("save")?, asked.file("resume")?);
    let used = used.reads("calibrate", &calibrate).writes("output", &output).writes("save", &save);
    let used = used.writes("resume", &journal);
    used.check()?;
    let plain = TuneOptions::new(model, &needs_text(text)?);
    let options = TuneOptions {
        onnx,
        budget: asked.read("budget", budget)?.unwrap_or(plain.budget),
        minimise: asked.read("minimise", goal)?.unwrap_or(plain.minimise),
        windows: count(asked, "windows")?,
        start: asked.start()?,
        calibrate,
        calibration_tokens: asked.read("calibration_tokens", calibration_tokens)?,
        probe_tokens: count(asked, "probe_tokens")?,
        threads: asked.threads()?,
        journal,
        ..plain
    };
    asked.finish()?;
    Ok((options, TuneOutputs { output, save }, used))
}

/// What was chosen, in the files that were asked for.
fn keep(point: &Point, options: &TuneOptions, outputs: &TuneOutputs, watch: &dyn Progress) -> Result<(), Diagnostics> {
    if let Some(path) = &outputs.save {
        let text = CompileRecipe::of(point, options).text();
        files::write_whole(path, |out| out.write_all(text.as_bytes()))?;
    }
    if let Some(path) = &outputs.output {
        compile_model(&options.compile(point), watch, &mut |_, _| {})?.write(path)?;
    }
    Ok(())
}

/// What `snnc tune --json` prints, with the files that it writes.
#[pyfunction]
pub fn tune(py: Python<'_>, model: PathBuf, given: Given, progress: Told) -> PyResult<String> {
    let (options, outputs, used, asked) = read(py, || {
        let asked = AskedOptions::new("tune", vec![model.clone()], given);
        let (options, outputs, used) = tune_options(&asked, &model)?;
        Ok((options, outputs, used, asked))
    })?;
    work(py, progress.as_ref(), move |watch| {
        let tuned = tune_model(&options, watch)?;
        if let Some(point) = &tuned.chosen {
            keep(point, &options, &outputs, watch)?;
        }
        Ok(document(&tuned.json(), Some(&asked.record(&used))).to_string())
    })
}

/// The IR of a model after a pass, as text.
#[pyfunction]
pub fn ir(py: Python<'_>, model: PathBuf, until: Option<String>, given: Given) -> PyResult<String> {
    let onnx = read(py, || {
        let asked = AskedOptions::new("show", vec![model.clone()], given);
        let onnx = asked.onnx()?;
        asked.finish()?;
        Ok(onnx)
    })?;
    work(py, None, move |_| Ok(text::print(&shown(&model, &onnx, until.as_deref())?.after)))
}

/// The built-in price lists as JSON, by name.
#[pyfunction]
pub fn price_lists() -> String {
    let lists = PriceList::built_in();
    let all: serde_json::Map<String, Json> =
        lists.iter().map(|list| (list.name.clone(), serde_json::to_value(list.json()).unwrap_or_default())).collect();
    Json::Object(all).to_string()
}
